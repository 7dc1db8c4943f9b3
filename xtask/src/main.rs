//! The repository's tasks: `cargo xtask ci` is what must pass before a change is merged, the others are its parts.
//!
//! Run through the alias of `.cargo/config.toml`, from anywhere in the repository. One file per task; this one only
//! says which there are.

mod bench;
mod browser;
mod cassandra;
mod ci;
mod client;
mod faults;
mod license;
mod mutations;
mod packages;
mod process;
mod readme;
mod sdk;
mod soak;
mod subject;
mod tidy;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use process::Deadline;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Tasks of the Playhead repository")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Everything that must pass, stage by stage, with the time of each
    Ci(ci::Options),
    /// The house rules that no compiler checks
    Tidy,
    /// Build the binaries with built-in faults and print the variables by which tests find them
    Faults,
    /// What a write costs, and memory, restarts and the disk: measured and stored
    Bench(bench::Options),
    /// Faults under load for as long as you like, every row read back after each
    Soak(soak::Options),
    /// Take checks out of the product one at a time, and see its tests notice
    Mutations(mutations::Options),
    /// Prove in a real browser that a viewer goes on where they were
    Browser(browser::Options),
    /// Build the player SDK and the demo's scripts, compare them with what is committed, test the SDK
    Sdk,
    /// A real Cassandra cluster on this machine
    Cassandra(cassandra::Options),
    /// Install the Debian packages that the tests need, or name them
    Packages,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match root().and_then(|root| carry_out(arguments.task, &root)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn carry_out(task: Task, root: &Path) -> Result<()> {
    match task {
        Task::Ci(options) => ci::run(&options, root),
        Task::Tidy => tidy::run(root),
        Task::Faults => faults::run(root, Deadline::after(Duration::from_secs(3_600))),
        Task::Bench(options) => bench::run(&options, root),
        Task::Soak(options) => soak::run(&options, root),
        Task::Mutations(options) => mutations::run(&options, root, Deadline::after(Duration::from_secs(4 * 3_600))),
        Task::Browser(options) => browser::run(&options, root, Deadline::after(Duration::from_secs(6 * 3_600))),
        Task::Sdk => sdk::run(root, Deadline::after(Duration::from_secs(3_600))),
        Task::Cassandra(options) => cassandra::run(&options, root),
        Task::Packages => packages::run(Deadline::after(Duration::from_secs(3_600))),
    }
}

/// The repository's top directory: the parent of this crate's.
fn root() -> Result<PathBuf> {
    let manifest =
        std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    let root = manifest.parent().context("xtask lies in the repository's top directory")?;
    Ok(root.to_owned())
}
