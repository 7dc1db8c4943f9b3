//! The browser proofs: the real server and Debian's Chromium, and how much of a film is lost when something happens.
//!
//! `cargo xtask browser` runs each proof 50 times, `ci` 5 times. What a proof does is told in `demo/proofs/proofs.mjs`; this
//! builds the server, sees to the scripts' packages and hands over. **The promise.** Success means that every round of
//! every proof held. **The limits.** Without Node or Chromium nothing is proved, and that is said: in `ci` loudly, by hand
//! as an error.

use crate::process::{self, Deadline};
use crate::sdk;
use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use std::path::Path;
use std::process::Command;

/// Rounds side by side: a round mostly waits for its film to play.
const LANES: u32 = 3;
const ROUNDS_IN_CI: u32 = 5;

/// What to prove, and how often.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How often each proof is run
    #[arg(long, value_name = "N", default_value_t = 50)]
    rounds: u32,
    /// Rounds side by side, each with a server and browsers of its own
    #[arg(long, value_name = "N", default_value_t = LANES)]
    lanes: u32,
    /// Run the proofs with these words in their names alone (may be given more than once)
    #[arg(long, value_name = "WORDS")]
    only: Vec<String>,
    /// How the results are printed
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output: Output,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Output {
    /// A table
    Text,
    /// For programs
    Json,
}

/// Runs the proofs that were asked for.
pub(crate) fn run(options: &Options, root: &Path, deadline: Deadline) -> Result<()> {
    if let Some(why) = browser_is_missing() {
        bail!("{why}: install Debian's packages nodejs, npm and chromium, or see `cargo xtask packages`");
    }
    let demo = root.join("demo");
    if !demo.join("node_modules").is_dir() {
        sdk::install(&demo, deadline)?;
    }
    let mut cargo = process::cargo();
    cargo.current_dir(root).args(["build", "--quiet", "--locked", "--package", "playhead", "--bin", "playhead"]);
    // Where it will lie, whatever the environment says about target directories.
    let target = root.join("target");
    process::run(cargo.arg("--target-dir").arg(&target), deadline)?;

    let mut node = Command::new("node");
    node.current_dir(&demo).arg("proofs/run.mjs").arg("--binary").arg(target.join("debug/playhead"));
    node.args(["--rounds", &options.rounds.to_string(), "--lanes", &options.lanes.to_string()]);
    for words in &options.only {
        node.args(["--only", words]);
    }
    if matches!(options.output, Output::Json) {
        node.args(["--output", "json"]);
    }
    process::run(&mut node, deadline)
}

/// The stage of `ci`.
pub(crate) fn in_ci(root: &Path, deadline: Deadline) -> Result<()> {
    if let Some(why) = browser_is_missing() {
        println!("SKIPPED, {why}: nothing was proved in a browser");
        return Ok(());
    }
    let options = Options { rounds: ROUNDS_IN_CI, lanes: LANES, only: Vec::new(), output: Output::Text };
    run(&options, root, deadline)
}

fn browser_is_missing() -> Option<String> {
    let chromium = process::succeeds(Command::new("chromium").arg("--version"));
    sdk::node_is_missing().or_else(|| (!chromium).then(|| "there is no chromium".to_owned()))
}
