//! Builds of the binary with built-in faults: the controls without which the crash tests would prove nothing.
//!
//! Each is kept under its own name, and the plain binary is put back last, so that nobody runs a faulty one by mistake.
//! They share the target directory and the dependencies with `cargo test --workspace`: a second build of those would take
//! longer than all else here. Tests find the binaries by environment variables; a test that does not find its binary
//! says so and skips, so that plain `cargo test` needs no more than one build.

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
    Fault { variable: "PLAYHEAD_BIN_EARLY_ACK", name: "early-ack", features: "playhead/fault-early-ack" },
    Fault { variable: "PLAYHEAD_BIN_HELD", name: "held-writes", features: "playhead/fault-held-writes" },
    Fault {
        variable: "PLAYHEAD_BIN_HELD_NO_SYNC",
        name: "held-writes-no-sync",
        features: "playhead/fault-held-writes,playhead/fault-no-sync",
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
    fs::create_dir_all(&directory).with_context(|| format!("can't create {}", directory.display()))?;
    let target = root.join("target");
    let mut built = Vec::new();
    for fault in FAULTS {
        compile(root, &target, Some(fault.features), deadline)?;
        let kept = directory.join(format!("playhead-{}", fault.name));
        replace(&target.join("debug/playhead"), &kept)
            .with_context(|| format!("can't keep the build as {}", kept.display()))?;
        built.push((fault.variable, kept));
    }
    compile(root, &target, None, deadline)?;
    Ok(built)
}

/// The whole workspace is asked for, so that its dependencies have the features that `cargo test` gives them.
fn compile(root: &Path, target: &Path, features: Option<&str>, deadline: Deadline) -> Result<()> {
    let mut cargo = process::cargo();
    cargo.current_dir(root).args(["build", "--quiet", "--locked", "--workspace", "--bin", "playhead"]);
    cargo.args(features.map(|features| format!("--features={features}"))).arg("--target-dir").arg(target);
    process::run(&mut cargo, deadline)
}

/// A copy by way of a rename: a server of an earlier run may still be executing the old file.
fn replace(from: &Path, to: &Path) -> Result<()> {
    let half = to.with_extension("new");
    fs::copy(from, &half)?;
    fs::rename(&half, to)?;
    Ok(())
}
