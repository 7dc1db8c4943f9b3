//! Licenses of all crates that are built or tested with, against the list of deny.toml.
//!
//! cargo-deny checks more (banned crates, sources) but can't be assumed to be there: where it is not, its one
//! question that must never go unanswered is answered here, from what `cargo tree` says.

use crate::process::{self, Deadline, cargo};
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// What `cargo tree` writes behind a crate that it has shown before.
const SEEN: &str = " (*)";

/// Checks the licenses, and runs cargo-deny if it is installed.
pub(crate) fn run(root: &Path, deadline: Deadline) -> Result<()> {
    let settings = fs::read_to_string(root.join("deny.toml")).context("can't read deny.toml")?;
    let allowed = allowed(&settings)?;
    let mut tree = cargo();
    tree.current_dir(root).args(["tree", "--workspace", "--locked", "--all-features"]);
    tree.args(["--edges", "normal,build,dev", "--prefix", "none", "--format", "{p}|{l}"]);
    let crates = process::output(&mut tree)?;
    let crates: BTreeSet<&str> =
        crates.lines().map(|line| line.trim_end_matches(SEEN)).filter(|line| !line.is_empty()).collect();
    ensure!(!crates.is_empty(), "cargo tree named no crate");
    let refused: Vec<&&str> = crates.iter().filter(|line| !is_allowed(line, &allowed)).collect();
    for line in &refused {
        println!("{}", line.replace('|', ": "));
    }
    if !refused.is_empty() {
        bail!("{} crates have a license that deny.toml does not allow, listed above", refused.len());
    }
    println!("{} crates, all under allowed licenses", crates.len());
    if !process::succeeds(cargo().args(["deny", "--version"])) {
        println!("cargo-deny is not installed: its other checks were skipped");
        return Ok(());
    }
    // Advisories change without a change here, and need the network: they are for a schedule of their own.
    process::run(cargo().current_dir(root).args(["deny", "--locked", "check", "bans", "licenses", "sources"]), deadline)
}

/// The strings of the list `allow` under `[licenses]`.
fn allowed(settings: &str) -> Result<BTreeSet<&str>> {
    let section = settings.split_once("[licenses]").context("deny.toml has no [licenses]")?.1;
    let list = section.split_once("allow = [").and_then(|(_, rest)| rest.split_once(']')).context("no list `allow`")?.0;
    Ok(list.split('"').skip(1).step_by(2).collect())
}

/// Whether a line of crate and license can be met by allowed licenses alone.
fn is_allowed(line: &str, allowed: &BTreeSet<&str>) -> bool {
    let Some((_, license)) = line.rsplit_once('|') else { return false };
    // The old way to write OR, still found.
    let license = license.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = license.split_whitespace().peekable();
    let met = any_of(&mut words, allowed);
    met == Some(true) && words.next().is_none()
}

type Words<'a, 'w> = std::iter::Peekable<std::str::SplitWhitespace<'w>>;

/// `a OR b`, which binds less than AND. `None` where the expression is none.
fn any_of(words: &mut Words<'_, '_>, allowed: &BTreeSet<&str>) -> Option<bool> {
    let mut met = all_of(words, allowed)?;
    while words.next_if_eq(&"OR").is_some() {
        met |= all_of(words, allowed)?;
    }
    Some(met)
}

fn all_of(words: &mut Words<'_, '_>, allowed: &BTreeSet<&str>) -> Option<bool> {
    let mut met = one(words, allowed)?;
    while words.next_if_eq(&"AND").is_some() {
        met &= one(words, allowed)?;
    }
    Some(met)
}

fn one(words: &mut Words<'_, '_>, allowed: &BTreeSet<&str>) -> Option<bool> {
    let word = words.next()?;
    if word == "(" {
        let met = any_of(words, allowed)?;
        return words.next_if_eq(&")").map(|_| met);
    }
    if words.next_if_eq(&"WITH").is_some() {
        let exception = words.next()?;
        return Some(allowed.contains(format!("{word} WITH {exception}").as_str()));
    }
    Some(allowed.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_read_as_spdx_has_them() {
        let allowed =
            allowed("[bans]\nallow = [\"No\"]\n[licenses]\n# Why.\nallow = [\n  \"A\",\n  \"B\", # b\n]\n").unwrap();
        assert_eq!(allowed, BTreeSet::from(["A", "B"]));
        for (license, expected) in [
            ("A", true),
            ("C", false),
            ("", false),
            ("A OR C", true),
            ("C/A", true),
            ("A AND C", false),
            ("A AND (C OR B)", true),
            ("C OR A AND C", false),
            ("(A OR C) AND B AND (C OR B)", true),
            ("A WITH exception", false),
            ("A WITH exception OR B", true),
            ("A B", false),
            ("(A", false),
            ("A OR", false),
        ] {
            assert_eq!(is_allowed(&format!("name v1.0.0|{license}"), &allowed), expected, "{license}");
        }
    }
}
