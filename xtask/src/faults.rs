//! Builds of the binary with built-in faults: the controls without which the crash tests would prove nothing.
//!
//! The builds share one target directory of their own, so that they never replace the binary that `cargo test` runs,
//! and each is kept under its own name. Tests find them by environment variables; a test that does not find its
//! binary says so and skips, so that plain `cargo test` needs no more than one build.

use crate::process::{self, Deadline};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

struct Fault {
    /// By which the tests find the binary.
    variable: &'static str,
    name: &'static str,
    features: &'static str,
}

const FAULTS: &[Fault] = &[
    Fault { variable: "PLAYHEAD_BIN_EARLY_ACK", name: "early-ack", features: "fault-early-ack" },
    Fault { variable: "PLAYHEAD_BIN_HELD", name: "held-writes", features: "fault-held-writes" },
    Fault {
        variable: "PLAYHEAD_BIN_HELD_NO_SYNC",
        name: "held-writes-no-sync",
        features: "fault-held-writes,fault-no-sync",
    },
];

/// Builds all and prints the variables, ready for a shell.
pub(crate) fn run(root: &Path, deadline: Deadline) -> Result<()> {
    for (variable, path) in build(root, deadline)? {
        println!("export {variable}='{}'", path.display());
    }
    Ok(())
}

/// Builds all; gives back each variable and the binary it names. Quick if nothing changed.
pub(crate) fn build(root: &Path, deadline: Deadline) -> Result<Vec<(&'static str, PathBuf)>> {
    let directory = root.join("target/fault");
    let mut built = Vec::new();
    for fault in FAULTS {
        let mut cargo = process::cargo();
        cargo.current_dir(root).args(["build", "--quiet", "--locked", "--package", "playhead", "--bin", "playhead"]);
        cargo.args(["--features", fault.features]).arg("--target-dir").arg(&directory);
        process::run(&mut cargo, deadline)?;
        let kept = directory.join(format!("playhead-{}", fault.name));
        replace(&directory.join("debug/playhead"), &kept)
            .with_context(|| format!("can't keep the build as {}", kept.display()))?;
        built.push((fault.variable, kept));
    }
    Ok(built)
}

/// A copy by way of a rename: a server of an earlier run may still be executing the old file.
fn replace(from: &Path, to: &Path) -> Result<()> {
    let half = to.with_extension("new");
    fs::copy(from, &half)?;
    fs::rename(&half, to)?;
    Ok(())
}
