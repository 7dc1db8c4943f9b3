//! What the build and the tests need beyond Rust: installed where that is allowed, named where it is not.
//!
//! **The limits.** Only Debian's own packages, by `apt-get`, and only what a program of the table is missing for. A
//! package that can't be had is no failure here: the tests that need it say loudly that they were skipped.

use crate::process::{self, Deadline, succeeds};
use anyhow::{Result, bail};
use std::env;
use std::process::Command;

/// A program, and what to install for it.
struct Need {
    program: &'static str,
    packages: &'static [&'static str],
    without: &'static str,
}

/// Add a row with the first test that needs it.
const NEEDS: &[Need] = &[
    Need {
        program: "cc",
        packages: &["gcc", "libc6-dev"],
        without: "nothing links, and the cryptography does not compile",
    },
    Need { program: "git", packages: &["git"], without: "tidy and the readme stage can't list the files" },
    Need { program: "curl", packages: &["curl"], without: "the readme stage can't run" },
    Need {
        program: "strace",
        packages: &["strace"],
        without: "the tests of failing and slow disks and of the order of system calls are skipped",
    },
    Need { program: "node", packages: &["nodejs"], without: "the sdk, client and browser stages are skipped" },
    Need { program: "npm", packages: &["npm"], without: "the sdk, client and browser stages are skipped" },
    Need { program: "chromium", packages: &["chromium"], without: "the browser stage is skipped" },
    Need {
        program: "java",
        packages: &["openjdk-17-jre-headless"],
        without: "the tests on a real Cassandra cluster are skipped",
    },
    Need { program: "mvn", packages: &["maven"], without: "Cassandra can't be fetched, and its tests are skipped" },
    Need {
        program: "faketime",
        packages: &["faketime"],
        without: "the tests of clocks that jump or differ are skipped",
    },
];

/// Installs what is missing, or says what it is.
pub(crate) fn run(deadline: Deadline) -> Result<()> {
    for (part, arguments) in [("rustfmt", ["fmt", "--version"]), ("clippy", ["clippy", "--version"])] {
        if !succeeds(process::cargo().args(arguments)) {
            bail!("{part} is missing: run `rustup component add {part}`");
        }
    }
    let missing: Vec<&Need> = NEEDS.iter().filter(|need| !is_on_path(need.program)).collect();
    if missing.is_empty() {
        println!("nothing is missing");
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().flat_map(|need| need.packages).copied().collect();
    match installer() {
        Some(prefix) => {
            if let Err(error) = install(prefix, &packages, deadline) {
                println!("could not install {}: {error:#}", packages.join(" "));
            }
        }
        None => println!("missing, and not allowed to install: apt-get install {}", packages.join(" ")),
    }
    for need in missing.iter().filter(|need| !is_on_path(need.program)) {
        println!("without {}: {}", need.program, need.without);
    }
    Ok(())
}

/// The words that apt-get must be called with to have the right to install; `None` if it has not, or is not there.
fn installer() -> Option<&'static [&'static str]> {
    if !is_on_path("apt-get") {
        return None;
    }
    if rustix::process::geteuid().is_root() {
        return Some(&["env"]);
    }
    succeeds(Command::new("sudo").args(["-n", "true"])).then_some(&["sudo", "-n", "env"])
}

fn install(prefix: &[&str], packages: &[&str], deadline: Deadline) -> Result<()> {
    let apt_get = |arguments: &[&str]| {
        let mut command = Command::new(prefix[0]);
        command.args(&prefix[1..]).args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-q"]).args(arguments);
        process::run(&mut command, deadline)
    };
    apt_get(&["update"])?;
    apt_get(&[&["install", "--yes", "--no-install-recommends"], packages].concat())
}

pub(crate) fn is_on_path(program: &str) -> bool {
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|directory| directory.join(program).is_file()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_looked_up_in_the_path() {
        assert!(is_on_path("sh"));
        assert!(!is_on_path("no-such-program-anywhere"));
    }
}
