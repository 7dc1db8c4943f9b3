//! The player SDK and the demo's scripts: built anew and compared with what is committed, tested, checked as a package.
//!
//! What is built is committed, so that a Rust build needs no Node. **The promise.** When this passes, `sdk/dist` and
//! `demo/static/built` are what their sources make, byte for byte; the SDK's tests hold, it is within its budget, publint
//! and are-the-types-wrong have no complaint, and it type-checks in an empty project that installs it. **The limits.**
//! Without Node 20 or newer nothing of it is checked, and that is said.

use crate::process::{self, Deadline};
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

const NODE_MAJOR_MIN: u32 = 20;

/// Builds, compares, tests.
pub(crate) fn run(root: &Path, deadline: Deadline) -> Result<()> {
    if let Some(why) = node_is_missing() {
        println!("SKIPPED, {why}: the SDK was not tested, and nobody knows whether what is committed is what is built");
        return Ok(());
    }
    let (sdk, demo) = (root.join("sdk"), root.join("demo"));
    install(&sdk, deadline)?;
    install(&demo, deadline)?;
    let fresh = tempfile::tempdir().context("can't make a fresh directory")?;
    for (package, built) in [(&sdk, "dist"), (&demo, "static/built")] {
        let fresh = fresh.path().join(built.replace('/', "-"));
        process::run(npm(package).args(["run", "--silent", "build", "--"]).arg(&fresh), deadline)?;
        compare(&package.join(built), &fresh)
            .with_context(|| format!("{} is not what its sources make", package.join(built).display()))?;
    }
    for script in ["test", "check"] {
        process::run(npm(&sdk).args(["run", "--silent", script]), deadline)?;
    }
    Ok(())
}

/// Why scripts can't run here, if they can't.
pub(crate) fn node_is_missing() -> Option<String> {
    let Ok(version) = process::output(Command::new("node").arg("--version")) else {
        return Some("there is no node".to_owned());
    };
    let version = version.trim();
    let major = version.strip_prefix('v').and_then(|version| version.split('.').next()).and_then(|n| n.parse().ok());
    match major {
        Some(major) if major >= NODE_MAJOR_MIN => None,
        Some::<u32>(_) | None => Some(format!("node {version} is older than {NODE_MAJOR_MIN}")),
    }
}

/// What the lock file names, and nothing else.
pub(crate) fn install(package: &Path, deadline: Deadline) -> Result<()> {
    process::run(npm(package).args(["ci", "--prefer-offline", "--no-audit", "--no-fund", "--loglevel=error"]), deadline)
}

fn npm(package: &Path) -> Command {
    let mut npm = Command::new("npm");
    npm.current_dir(package);
    npm
}

/// Both directories hold the same files.
fn compare(committed: &Path, built: &Path) -> Result<()> {
    let (committed, built) = (files(committed)?, files(built)?);
    let mut names: Vec<&String> = committed.keys().chain(built.keys()).collect();
    names.sort();
    names.dedup();
    let differing: Vec<&str> =
        names.into_iter().filter(|name| committed.get(*name) != built.get(*name)).map(String::as_str).collect();
    if !differing.is_empty() {
        bail!("run `npm run build` there and commit what it makes; these differ: {}", differing.join(", "));
    }
    Ok(())
}

/// The files right in a directory; a directory in it is an error, since nothing here makes one.
fn files(directory: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(directory).with_context(|| format!("can't read {}", directory.display()))? {
        let entry = entry?;
        let bytes = fs::read(entry.path()).with_context(|| format!("can't read {}", entry.path().display()))?;
        files.insert(entry.file_name().to_string_lossy().into_owned(), bytes);
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_named() {
        let parent = tempfile::tempdir().unwrap();
        let make = |name: &str, files: &[(&str, &str)]| {
            let directory = parent.path().join(name);
            fs::create_dir(&directory).unwrap();
            for (name, text) in files {
                fs::write(directory.join(name), text).unwrap();
            }
            directory
        };
        let built = make("built", &[("a.js", "1"), ("b.js", "2")]);
        assert!(compare(&make("same", &[("a.js", "1"), ("b.js", "2")]), &built).is_ok());
        for (committed, name) in [
            (make("changed", &[("a.js", "1"), ("b.js", "3")]), "b.js"),
            (make("less", &[("a.js", "1")]), "b.js"),
            (make("more", &[("a.js", "1"), ("b.js", "2"), ("c.js", "")]), "c.js"),
        ] {
            let error = compare(&committed, &built).unwrap_err().to_string();
            assert!(error.ends_with(&format!("these differ: {name}")), "{error}");
        }
        assert!(compare(&parent.path().join("absent"), &built).is_err());
    }
}
