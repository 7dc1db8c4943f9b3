//! Checks taken out of the product one at a time, to see that the test which guards each of them notices.
//!
//! `cargo xtask mutations` runs the table in [`table`]: a test that stays green without what it is named after guards
//! nothing. It works on a copy of the repository with a target directory of its own, so that neither the working tree nor
//! the binary of other tests is ever spoiled. The tests are built once, with the product whole, and seen to pass; each
//! mutation builds the product's binary anew, which those tests then run.
//!
//! **The promise.** Success means that each mutation turned at least one of its tests red, and that all of them were green
//! before. A test that does not end in time counts as red, and is told apart.
//!
//! **The limits.** Tests of the real binary alone, those of `crates/playhead/tests/it`; what is checked at a smaller scale
//! has unit tests, and the controls of the crash tests are builds of their own ([`crate::faults`]). About half a minute
//! for each mutation.

mod table;

use crate::process::{self, Deadline, Running};
use crate::tidy::Tree;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::Value;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use table::{MUTATIONS, Mutation};

/// Of the tests of one mutation; a green one takes seconds.
const TEST_LIMIT: Duration = Duration::from_secs(180);

/// Which mutations to try.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Try the mutations with these words in their names alone (may be given more than once)
    #[arg(long, value_name = "WORDS")]
    only: Vec<String>,
}

/// Tries them.
pub(crate) fn run(options: &Options, root: &Path, deadline: Deadline) -> Result<()> {
    let chosen: Vec<_> = MUTATIONS
        .iter()
        .filter(|mutation| options.only.is_empty() || options.only.iter().any(|words| mutation.what.contains(words)))
        .collect();
    ensure!(!chosen.is_empty(), "no mutation has these words in its name");
    let copy = Copy { root: root.join("target/mutations/tree"), target: root.join("target/mutations/build") };
    if copy.root.exists() {
        fs::remove_dir_all(&copy.root).context("can't remove the copy of an earlier run")?;
    }
    Tree::of_repository(root)?.copy_to(&copy.root)?;

    let tests = copy.build_tests(deadline)?;
    copy.build_product(deadline)?;
    let mut names: Vec<_> = chosen.iter().flat_map(|mutation| mutation.tests).copied().collect();
    names.sort_unstable();
    names.dedup();
    eprintln!("{} tests with nothing taken out", names.len());
    if let Some(how) = copy.run_tests(&tests, &names, deadline.at_most(20 * TEST_LIMIT))? {
        bail!("a test is red with nothing taken out: {how}");
    }
    let mut missed = Vec::new();
    println!("| what is taken out | where | how its test failed |\n|---|---|---|");
    for mutation in &chosen {
        let begun = Instant::now();
        let (place, how) = copy.attempt(mutation, &tests, deadline)?;
        println!("| {} | {place} | {} |", mutation.what, how.as_deref().unwrap_or("**not at all**"));
        eprintln!("{:.0} s", begun.elapsed().as_secs_f64());
        if how.is_none() {
            missed.push(mutation.what);
        }
    }
    println!("{} of {} were noticed", chosen.len() - missed.len(), chosen.len());
    ensure!(missed.is_empty(), "no test noticed that this is gone: {}", missed.join("; "));
    Ok(())
}

/// A copy of the repository.
struct Copy {
    root: PathBuf,
    target: PathBuf,
}

impl Copy {
    fn cargo(&self, arguments: &[&str]) -> Command {
        let mut cargo = process::cargo();
        cargo.current_dir(&self.root).args(arguments).args(["--quiet", "--locked", "--package", "playhead"]);
        // The crash simulation, for which that crate is optimised, is not among these tests.
        cargo.args(["--config", "profile.dev.package.playhead-engine.opt-level=0"]);
        cargo.arg("--target-dir").arg(&self.target);
        cargo
    }

    /// Builds the tests of the real binary, and gives their executable.
    fn build_tests(&self, deadline: Deadline) -> Result<PathBuf> {
        let build = ["test", "--test", "it", "--no-run"];
        process::run(&mut self.cargo(&build), deadline)?;
        let messages = process::output(self.cargo(&build).arg("--message-format=json"))?;
        let executable = messages.lines().find_map(|line| {
            let message: Value = serde_json::from_str(line).ok()?;
            let is_theirs = message["target"]["name"] == "it" && message["executable"].is_string();
            is_theirs.then(|| PathBuf::from(message["executable"].as_str().unwrap_or_default()))
        });
        executable.context("cargo named no executable for the tests")
    }

    /// Builds the binary to where the tests look for it.
    fn build_product(&self, deadline: Deadline) -> Result<()> {
        process::run(&mut self.cargo(&["build", "--bin", "playhead"]), deadline)
    }

    /// `None` if all of these pass; else how the first did not.
    fn run_tests(&self, tests: &Path, names: &[&str], deadline: Deadline) -> Result<Option<String>> {
        let said = self.root.join("tests.log");
        let mut command = Command::new(tests);
        command.current_dir(self.root.join("crates/playhead")).arg("--exact").args(names);
        command.stdout(File::create(&said)?).stderr(Stdio::null());
        let mut running = Running::watch(command.spawn().context("can't run the tests")?);
        let Ok(status) = running.wait(deadline) else { return Ok(Some("it did not end".to_owned())) };
        let said = fs::read_to_string(said)?;
        let ran = format!("running {} test", names.len());
        ensure!(said.contains(&ran), "not all of these are tests: {names:?}");
        Ok((!status.success()).then(|| how_it_failed(&said)))
    }

    /// Takes it out, and gives the place and how its tests failed, if they did. Puts it back in any case.
    fn attempt(&self, mutation: &Mutation, tests: &Path, deadline: Deadline) -> Result<(String, Option<String>)> {
        let path = self.root.join(mutation.file);
        let whole = fs::read_to_string(&path)?;
        let (mutated, line) = mutation.apply(&whole)?;
        fs::write(&path, mutated)?;
        let outcome = self.build_product(deadline).with_context(|| format!("without \"{}\"", mutation.what));
        let outcome = outcome.and_then(|()| self.run_tests(tests, mutation.tests, deadline.at_most(TEST_LIMIT)));
        fs::write(&path, whole)?;
        let file = mutation.file.trim_start_matches("crates/").replacen("/src/", " ", 1);
        Ok((format!("{file}:{line}"), outcome?))
    }
}

/// The name of the first test that failed, and what it said.
fn how_it_failed(said: &str) -> String {
    let mut lines = said.lines().skip_while(|line| !line.starts_with("---- "));
    let name = lines.next().unwrap_or("---- a test that crashed stdout ----");
    let name = name.trim_start_matches("---- ").trim_end_matches(" stdout ----");
    let mut lines = lines.skip_while(|line| !line.contains("panicked at")).skip(1);
    let ends = |line: &&str| !line.starts_with("note: ") && !line.starts_with("stack backtrace:");
    let reason = lines.by_ref().take(3).take_while(ends).collect::<Vec<_>>().join(" ").replace('|', "/");
    // What was sent may stand first and be long; what came of it stands last.
    let letters: Vec<char> = reason.chars().collect();
    let reason = match letters.len() {
        0..=180 => reason,
        length => letters[..80].iter().chain(&[' ', '…', ' ']).chain(&letters[length - 80..]).collect(),
    };
    format!("`{name}`: {reason}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_mutation_fits_the_code_and_names_tests_that_there_are() {
        let root = crate::root().unwrap();
        let names: BTreeSet<_> = MUTATIONS.iter().map(|mutation| mutation.what).collect();
        assert_eq!(names.len(), MUTATIONS.len(), "two mutations have one name");
        for mutation in MUTATIONS {
            let text = fs::read_to_string(root.join(mutation.file)).unwrap();
            let (mutated, _) = mutation.apply(&text).unwrap_or_else(|error| panic!("{error}"));
            assert_ne!(mutated, text, "{}", mutation.what);
            for test in mutation.tests {
                let (module, name) = test.rsplit_once("::").unwrap();
                let file = format!("crates/playhead/tests/it/{}.rs", module.replace("::", "/"));
                let text = fs::read_to_string(root.join(&file)).unwrap_or_else(|error| panic!("{file}: {error}"));
                assert!(text.contains(&format!("fn {name}() {{")), "{file} has no test {name}");
            }
        }
    }

    #[test]
    fn a_failure_is_told_by_its_test_and_its_reason() {
        let said = "running 2 tests\n\nfailures:\n\n---- a::b stdout ----\nhello\nthread 'a::b' panicked at a.rs:1:2:\n\
                    assertion failed: x | y\n  left: 1\n right: 2\nnote: run with\n";
        assert_eq!(how_it_failed(said), "`a::b`: assertion failed: x / y   left: 1  right: 2");
    }
}
