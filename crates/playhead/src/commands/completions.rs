//! `playhead completions`: prints what a shell needs to complete this command.

use super::print;
use crate::Failure;
use crate::cli::{Cli, Completions};
use clap::CommandFactory;

/// Runs the command.
pub(crate) fn run(arguments: &Completions) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "playhead", &mut script);
    print(&script);
    Ok(())
}
