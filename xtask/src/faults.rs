//! Builds of the binary with built-in faults: the controls without which the crash tests would prove nothing.
//!
//! Each is kept under its own name. They share the target directory and the dependencies with `cargo test --workspace`: a
//! second build of those would take longer than all else here. So another build that runs at the same time can put its
//! binary where one of these is expected: each is asked which faults it has before it is used, and the plain one is put
//! back, and kept, last. Tests find the binaries by environment variables; a test that does not find its binary says so
//! and skips, so that plain `cargo test` needs no more than one build.

use crate::process::{self, Deadline};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

struct Fault {
    /// By which the tests find the binary.
    variable: &'static str,
    name: &'static str,
    /// Features of `playhead`, as its version names them.
    features: &'static [&'static str],
}

const FAULTS: &[Fault] = &[
    Fault { variable: "PLAYHEAD_BIN_EARLY_ACK", name: "early-ack", features: &["fault-early-ack"] },
    Fault { variable: "PLAYHEAD_BIN_HELD", name: "held-writes", features: &["fault-held-writes"] },
    Fault {
        variable: "PLAYHEAD_BIN_HELD_NO_SYNC",
        name: "held-writes-no-sync",
        features: &["fault-held-writes", "fault-no-sync"],
    },
];

/// Builds kept aside.
pub(crate) struct Builds {
    /// Without a fault.
    pub(crate) plain: PathBuf,
    /// Each variable and the binary it names.
    pub(crate) faulty: Vec<(&'static str, PathBuf)>,
}

/// Builds all and prints the variables, ready for a shell.
pub(crate) fn run(root: &Path, deadline: Deadline) -> Result<()> {
    for (variable, path) in build(root, deadline)?.faulty {
        println!("export {variable}='{}'", path.display());
    }
    Ok(())
}

/// Builds all. Quick if nothing changed.
pub(crate) fn build(root: &Path, deadline: Deadline) -> Result<Builds> {
    let directory = root.join("target/fault");
    fs::create_dir_all(&directory).with_context(|| format!("can't create {}", directory.display()))?;
    let mut faulty = Vec::new();
    for fault in FAULTS {
        let kept = directory.join(format!("playhead-{}", fault.name));
        compile(root, fault.features, &kept, deadline)?;
        faulty.push((fault.variable, kept));
    }
    let plain = directory.join("playhead");
    compile(root, &[], &plain, deadline)?;
    Ok(Builds { plain, faulty })
}

/// Builds the binary with these features and keeps it. The whole workspace is asked for, so that its dependencies have the
/// features that `cargo test` gives them.
fn compile(root: &Path, features: &[&str], kept: &Path, deadline: Deadline) -> Result<()> {
    let target = root.join("target");
    let mut cargo = process::cargo();
    cargo.current_dir(root).args(["build", "--quiet", "--locked", "--workspace", "--bin", "playhead", "--target-dir"]);
    cargo.arg(&target).args(features.iter().map(|feature| format!("--features=playhead/{feature}")));
    process::run(&mut cargo, deadline)?;
    replace(&target.join("debug/playhead"), kept)
        .with_context(|| format!("can't keep the build as {}", kept.display()))?;
    let version = process::output(Command::new(kept).arg("--version"))?;
    let has: Vec<&str> = version.split_whitespace().filter(|word| word.starts_with("fault-")).collect();
    ensure!(has == features, "another build has taken the place of {}: run this alone", kept.display());
    Ok(())
}

/// A copy by way of a rename: a server of an earlier run may still be executing the old file.
fn replace(from: &Path, to: &Path) -> Result<()> {
    let half = to.with_extension(format!("new-{}", std::process::id()));
    fs::copy(from, &half)?;
    fs::rename(&half, to)?;
    Ok(())
}
