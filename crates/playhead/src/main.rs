//! The `playhead` binary: reads the command line, runs one command, and turns its end into an exit code.
//!
//! Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 wrong use; for `load`
//! also 3 an objective missed, 4 a lost or wrong position; for `import` 4 an export that is not whole.
//!
//! In reading order: [`cli`] (what may be said), [`settings`] (from where it may be said), [`config`] (what is meant),
//! `cassandra` (which cluster), [`descriptors`] (what the system allows), [`commands`] (what is done), [`demo`] (a page to
//! see it by), [`place`] (which store a command works on), [`remote`] (what another process streams), [`progress`] (how
//! long work shows that it goes on), [`clock`] (the only reader of the system's clock), [`log`] (how it talks).

#[cfg(feature = "cassandra")]
mod cassandra;
mod cli;
mod clock;
mod commands;
mod config;
mod demo;
mod descriptors;
mod log;
mod place;
mod progress;
mod remote;
mod settings;

use mimalloc::MiMalloc;
use std::process::ExitCode;

/// A heartbeat allocates a handful of times in the HTTP library; this costs 6 % less CPU than the system's allocator.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    match settings::read(std::env::args_os()).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {:#}", failure.error);
            ExitCode::from(failure.exit_code)
        }
    }
}

fn run(said: settings::Said) -> Result<(), Failure> {
    log::start();
    match said.cli.command {
        cli::Command::Serve(arguments) => commands::serve::run(*arguments),
        cli::Command::Token(arguments) => commands::token::run(&arguments),
        cli::Command::Check(arguments) => commands::check::run(&arguments),
        cli::Command::Export(arguments) => commands::export::run(&arguments),
        cli::Command::Import(arguments) => commands::import::run(&arguments),
        #[cfg(feature = "cassandra")]
        cli::Command::Schema(arguments) => commands::schema::run(&arguments),
        cli::Command::Health(arguments) => commands::health::run(&arguments),
        cli::Command::Load(arguments) => commands::load::run(*arguments),
        cli::Command::Config(cli::ConfigCommand::Show(arguments)) => {
            commands::config::show(arguments.output, &said.matches, said.file.as_ref())
        }
        cli::Command::Config(cli::ConfigCommand::Check(arguments)) => commands::config::check(arguments, said.file),
        cli::Command::Config(cli::ConfigCommand::Reference) => commands::config::reference(),
        cli::Command::Completions(arguments) => commands::completions::run(&arguments),
        cli::Command::Man(arguments) => commands::man::run(&arguments),
    }
}

/// Why a command ended without success.
#[derive(Debug)]
struct Failure {
    error: anyhow::Error,
    exit_code: u8,
}

impl Failure {
    /// The command was used in a way that it can't be.
    fn usage(message: impl Into<String>) -> Self {
        Self { error: anyhow::Error::msg(message.into()), exit_code: 2 }
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { error: error.into(), exit_code: 1 }
    }
}
