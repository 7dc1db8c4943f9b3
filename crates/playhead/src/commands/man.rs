//! `playhead man`: prints a manual page, made of the command's own help.

use super::print;
use crate::Failure;
use crate::cli::{Cli, Man};
use anyhow::Context;
use clap::CommandFactory;

/// Runs the command.
pub(crate) fn run(arguments: &Man) -> Result<(), Failure> {
    let mut root = Cli::command();
    root.build();
    let mut command = &root;
    for word in &arguments.command {
        command = command.find_subcommand(word).ok_or_else(|| {
            Failure::usage(format!("there is no command {}: see `playhead help`", arguments.command.join(" ")))
        })?;
    }
    let name = [&["playhead".to_owned()], &arguments.command[..]].concat().join("-");
    let mut page = Vec::new();
    let command = command.clone().display_name(name);
    clap_mangen::Man::new(command).render(&mut page).context("can't make the page")?;
    print(&page);
    Ok(())
}
