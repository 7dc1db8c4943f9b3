//! `cargo xtask ci`: every check, stage by stage, stopping at the first that fails.
//!
//! Called by `.ci/run` and by hand. Needs Debian and Rust; what else the tests need, the first stage installs or names.
//!
//! **The promise.** Each stage's name is printed when it starts and its time at the end, also when one fails; a failed
//! stage is named with the command that runs it alone. Exit status 0 means that every stage asked for has passed.
//!
//! **The limits.** Each stage has a time limit, and the whole run has [`WHOLE_RUN`]; a command that is still running
//! then is ended, with its descendants.

use crate::process::{self, Deadline, cargo};
use crate::{browser, cassandra, client, faults, license, packages, readme, sdk, tidy};
use anyhow::{Result, bail, ensure};
use clap::Args;
use std::path::Path;
use std::time::{Duration, Instant};

/// Less than the hour that a run may take, with room for the machine that runs it.
const WHOLE_RUN: Duration = Duration::from_secs(55 * 60);

/// Which stages to run.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Run this stage alone (may be given more than once)
    #[arg(long, value_name = "STAGE")]
    only: Vec<String>,
    /// Name the stages and run nothing
    #[arg(long)]
    list: bool,
}

struct Stage {
    name: &'static str,
    what: &'static str,
    limit_minutes: u64,
    run: fn(&Path, Deadline) -> Result<()>,
}

/// In the order of running: what fails soonest comes first.
const STAGES: &[Stage] = &[
    Stage {
        name: "packages",
        what: "what the tests need beyond Rust: installed or named",
        limit_minutes: 10,
        run: |_, deadline| packages::run(deadline),
    },
    Stage { name: "format", what: "rustfmt has nothing to change", limit_minutes: 2, run: format },
    Stage { name: "tidy", what: "the house rules", limit_minutes: 2, run: |root, _| tidy::run(root) },
    Stage {
        name: "license",
        what: "licenses of all crates; cargo-deny too, if it is installed",
        limit_minutes: 5,
        run: license::run,
    },
    Stage {
        name: "clippy",
        what: "no warning, with the features of tests and faults and without",
        limit_minutes: 20,
        run: clippy,
    },
    Stage { name: "docs", what: "rustdoc has nothing to warn about", limit_minutes: 10, run: docs },
    Stage {
        name: "sdk",
        what: "the player SDK and the demo's scripts are what is committed; the SDK's tests, size and package",
        limit_minutes: 12,
        run: sdk::run,
    },
    Stage {
        name: "faults",
        what: "builds of the binary with built-in faults, for the tests that must catch them",
        limit_minutes: 25,
        run: |root, deadline| faults::build(root, deadline).map(drop),
    },
    Stage { name: "test", what: "all tests of the workspace, faults included", limit_minutes: 35, run: test },
    Stage {
        name: "features",
        what: "tests that need another build of a crate: the model check",
        limit_minutes: 15,
        run: features,
    },
    Stage {
        name: "browser",
        what: "in a real browser, five times each: a viewer goes on where they were, whatever happened",
        limit_minutes: 20,
        run: browser::in_ci,
    },
    Stage {
        name: "cassandra",
        what: "conformance, the API and faults on a real three-node cluster",
        limit_minutes: 35,
        run: cassandra::test,
    },
    Stage {
        name: "client",
        what: "a generated client of /openapi.json compiles and gets what the document says",
        limit_minutes: 15,
        run: client::run,
    },
    Stage {
        name: "readme",
        what: "the README's commands, as written, in a fresh directory",
        limit_minutes: 25,
        run: readme::run,
    },
];

/// Runs the stages that were asked for.
pub(crate) fn run(options: &Options, root: &Path) -> Result<()> {
    if options.list {
        for stage in STAGES {
            println!("{:10} {}", stage.name, stage.what);
        }
        return Ok(());
    }
    let stages = chosen(&options.only)?;
    let whole_run = Deadline::after(WHOLE_RUN);
    let mut times = Vec::new();
    let mut failed = None;
    for stage in stages {
        println!("\n==> {}: {}", stage.name, stage.what);
        let started = Instant::now();
        let result = (stage.run)(root, whole_run.at_most(Duration::from_secs(stage.limit_minutes * 60)));
        times.push((stage.name, started.elapsed(), result.is_ok()));
        if let Err(error) = result {
            failed = Some((stage.name, error));
            break;
        }
    }
    println!("\n{}", table(&times));
    match failed {
        None => Ok(()),
        Some((name, error)) => {
            bail!("stage {name} failed: {error:#}\nto run it alone: cargo xtask ci --only {name}")
        }
    }
}

fn chosen(only: &[String]) -> Result<Vec<&'static Stage>> {
    if let Some(unknown) = only.iter().find(|name| !STAGES.iter().any(|stage| stage.name == **name)) {
        let names: Vec<_> = STAGES.iter().map(|stage| stage.name).collect();
        bail!("there is no stage `{unknown}`; the stages are {}", names.join(", "));
    }
    Ok(STAGES.iter().filter(|stage| only.is_empty() || only.iter().any(|name| name == stage.name)).collect())
}

fn table(times: &[(&str, Duration, bool)]) -> String {
    let mut lines = String::new();
    for (name, time, passed) in times {
        let verdict = if *passed { "passed" } else { "FAILED" };
        lines += &format!("{name:10} {:>8.1} s  {verdict}\n", time.as_secs_f64());
    }
    let total: Duration = times.iter().map(|(_, time, _)| *time).sum();
    lines + &format!("{:10} {:>8.1} s", "total", total.as_secs_f64())
}

fn format(root: &Path, deadline: Deadline) -> Result<()> {
    process::run(cargo().current_dir(root).args(["fmt", "--all", "--check"]), deadline)
}

/// `model-check` swaps the locks' types, and faults cut code out, so neither run sees all of the code.
fn clippy(root: &Path, deadline: Deadline) -> Result<()> {
    for features in [&["--all-features"][..], &[]] {
        let mut cargo = cargo();
        cargo.current_dir(root).args(["clippy", "--quiet", "--workspace", "--all-targets", "--locked"]);
        cargo.args(features).args(["--", "--deny", "warnings"]);
        process::run(&mut cargo, deadline)?;
    }
    Ok(())
}

/// These crates are a program, not libraries for others: their documentation is for who works on them, privates included.
fn docs(root: &Path, deadline: Deadline) -> Result<()> {
    let mut cargo = cargo();
    cargo.current_dir(root).env("RUSTDOCFLAGS", "--deny warnings --allow rustdoc::private-intra-doc-links");
    cargo.args(["doc", "--quiet", "--no-deps", "--document-private-items", "--workspace", "--locked"]);
    process::run(&mut cargo, deadline)
}

/// The time limits of the tests' own waits are theirs; this one catches a test that hangs.
fn test(root: &Path, deadline: Deadline) -> Result<()> {
    let faulty = faults::build(root, deadline)?;
    let mut cargo = cargo();
    cargo.current_dir(root).envs(faulty).args(["test", "--workspace", "--locked", "--no-fail-fast"]);
    process::run(&mut cargo, deadline)
}

/// The model check runs under a scheduler of its own, which the other tests would not survive: hence by name.
fn features(root: &Path, deadline: Deadline) -> Result<()> {
    let test = || {
        let mut cargo = cargo();
        cargo.current_dir(root).args(["test", "--locked", "--package", "playhead-engine", "--features", "model-check"]);
        cargo.args(["--lib", "model_check"]);
        cargo
    };
    process::run(&mut test(), deadline)?;
    // A name that fits no test is no error to cargo.
    let listed = process::output(test().args(["--quiet", "--", "--list"]))?;
    ensure!(listed.contains(": test"), "no test has `model_check` in its name");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_chosen_by_name_and_run_in_their_own_order() {
        let names = |only: &[&str]| {
            let only: Vec<String> = only.iter().map(|name| (*name).to_owned()).collect();
            chosen(&only).map(|stages| stages.iter().map(|stage| stage.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&[]).unwrap().len(), STAGES.len());
        assert_eq!(names(&["test", "format"]).unwrap(), ["format", "test"]);
        let error = names(&["tests"]).unwrap_err().to_string();
        assert!(error.contains("`tests`") && error.contains("readme"), "{error}");
    }

    #[test]
    fn the_documents_table_has_these_stages_in_this_order() {
        let page = std::fs::read_to_string(crate::root().unwrap().join("docs/DEVELOPING.md")).unwrap();
        let table = page.split("| stage | passes if |").nth(1).unwrap();
        let rows = table.lines().skip(2).map_while(|line| line.strip_prefix("| `")?.split('`').next());
        assert_eq!(rows.collect::<Vec<_>>(), STAGES.iter().map(|stage| stage.name).collect::<Vec<_>>());
    }

    #[test]
    fn the_table_shows_each_time_and_what_failed() {
        let table = table(&[("format", Duration::from_millis(1_500), true), ("test", Duration::from_secs(60), false)]);
        assert_eq!(table.lines().count(), 3);
        assert!(table.contains("1.5 s  passed") && table.contains("FAILED") && table.contains("61.5 s"), "{table}");
    }
}
