//! What no file may say: unfinished work, paths of somebody's machine, names that mean nothing; and no large files.

use super::code::holds_word;
use super::{Finding, Tree};

/// Blobs stay in the history for ever.
const FILE_BYTES_MAX: usize = 1 << 20;

/// Code that has no place in a commit.
const UNFINISHED: &[(&str, &str)] = &[
    ("#[ignore", "run the test or delete it; one that needs a missing service says so loudly and returns"),
    ("todo!", "finish it, or leave it out"),
    ("unimplemented!", "finish it, or leave it out"),
    ("dbg!", "log through tracing, or leave it out"),
];

/// Top directories of one machine; in pieces, so that this file does not break its own rule.
const MACHINE_DIRECTORIES: &[&str] = &["work", "root", "tmp", "home", "Users"];

/// File names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &["util", "utils", "common", "helper", "helpers", "misc", "manager"];

pub(super) fn check(tree: &Tree, findings: &mut Vec<Finding>) {
    unfinished(tree, findings);
    notes(tree, findings);
    machine_paths(tree, findings);
    names(tree, findings);
    for file in tree.files.iter().filter(|file| file.bytes.len() > FILE_BYTES_MAX) {
        findings.push(file.finding(0, "large-file", "larger than 1 MiB: generate it, or fetch it where it is needed"));
    }
}

fn unfinished(tree: &Tree, findings: &mut Vec<Finding>) {
    for (file, source) in tree.rust() {
        for (word, instead) in UNFINISHED {
            for (line, _) in source.lines_with(&[word], "unfinished") {
                findings.push(file.finding(line, "unfinished", format!("`{word}`: {instead}")));
            }
        }
    }
}

/// Notes to oneself: in Rust where they stand in comments, elsewhere anywhere.
fn notes(tree: &Tree, findings: &mut Vec<Finding>) {
    let marks = [["TO", "DO"].concat(), ["FIX", "ME"].concat(), ["XX", "X"].concat()];
    let rust = tree.rust().map(|(file, source)| (file, source.lines.into_iter().map(|line| line.comment).collect()));
    let others = tree.files.iter().filter(|file| !file.is_rust() && !is_lock(&file.path));
    let others = others.filter_map(|file| Some((file, file.text()?.lines().map(str::to_owned).collect())));
    for (file, lines) in rust.chain(others) {
        let lines: Vec<String> = lines;
        for (at, line) in lines.iter().enumerate() {
            if let Some(mark) = marks.iter().find(|mark| holds_word(line, mark)) {
                let instead = format!("`{mark}`: do it now, or open an issue and leave the note out");
                findings.push(file.finding(at + 1, "note", instead));
            }
        }
    }
}

fn machine_paths(tree: &Tree, findings: &mut Vec<Finding>) {
    for file in &tree.files {
        for (at, line) in file.text().unwrap_or_default().lines().enumerate() {
            if let Some(path) = machine_path(line) {
                let instead =
                    format!("`{path}` is a path of one machine: use a relative path, or a directory made for it");
                findings.push(file.finding(at + 1, "machine-path", instead));
            }
        }
    }
}

fn machine_path(line: &str) -> Option<String> {
    MACHINE_DIRECTORIES.iter().map(|directory| format!("/{directory}/")).find(|path| {
        // Behind a name or a dot it is the middle of another path.
        line.match_indices(path.as_str()).any(|(at, _)| {
            !line[..at].ends_with(|before: char| before.is_alphanumeric() || "_-.}*)>:/".contains(before))
        })
    })
}

fn names(tree: &Tree, findings: &mut Vec<Finding>) {
    for (file, source) in tree.rust() {
        let parts = file.path.trim_end_matches(".rs").split('/');
        if let Some(name) = parts.into_iter().find(|part| EMPTY_NAMES.contains(part)) {
            findings.push(file.finding(
                0,
                "empty-name",
                format!("`{name}` says nothing: name the file by what it holds"),
            ));
        }
        for (at, line) in source.lines.iter().enumerate() {
            let declared = ["struct ", "enum ", "trait "].iter().find_map(|keyword| line.code.split_once(keyword));
            let name =
                declared.map_or("", |(_, rest)| rest.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default());
            if name.ends_with("Manager") || name.ends_with("Helper") {
                let instead = format!("`{name}` says nothing: name the type by what it is or does");
                findings.push(file.finding(at + 1, "empty-name", instead));
            }
        }
    }
}

fn is_lock(path: &str) -> bool {
    path.ends_with("Cargo.lock") || path.ends_with("package-lock.json")
}

#[cfg(test)]
mod tests {
    use super::super::File;
    use super::*;

    fn broken(path: &str, text: &str) -> Vec<&'static str> {
        let mut findings = Vec::new();
        check(&Tree::of(&[(path, text)]), &mut findings);
        findings.iter().map(|finding| finding.rule).collect()
    }

    #[test]
    fn unfinished_work_is_caught() {
        for text in ["#[ignore]", "#[ignore = \"slow\"]", "  todo!()", "unimplemented!(\"x\")", "dbg!(x);"] {
            assert_eq!(broken("a.rs", text), ["unfinished"], "{text}");
        }
        assert_eq!(broken("a.rs", "let a = \"todo!()\"; // no dbg! here"), [""; 0]);
    }

    #[test]
    fn notes_to_oneself_are_caught() {
        for mark in ["TO DO", "FIX ME", "XX X"].map(|mark| mark.replace(' ', "")) {
            assert_eq!(broken("a.rs", &format!("// {mark}: later")), ["note"]);
            assert_eq!(broken("a.md", &format!("- {mark}")), ["note"]);
            assert_eq!(broken("a.rs", &format!("let {mark} = 1;")), [""; 0]);
            assert_eq!(broken("Cargo.lock", &format!("checksum = \"{mark}\"")), [""; 0]);
        }
    }

    #[test]
    fn paths_of_a_machine_are_caught() {
        for directory in MACHINE_DIRECTORIES {
            for (line, caught) in [("see {}x", true), ("\"{}x\"", true), ("src{}x", false), ("./a/..{}x", false)] {
                let line = line.replace("{}", &format!("/{directory}/"));
                assert_eq!(!broken("docs/a.md", &line).is_empty(), caught, "{line}");
            }
        }
    }

    #[test]
    fn names_that_say_nothing_are_caught() {
        for path in ["crates/a/src/util.rs", "crates/a/tests/common/mod.rs"] {
            assert_eq!(broken(path, ""), ["empty-name"]);
        }
        assert_eq!(broken("a.rs", "pub struct TokenManager<T> {"), ["empty-name"]);
        assert_eq!(broken("a.rs", "pub struct Managerial;"), [""; 0]);
    }

    #[test]
    fn large_files_are_caught() {
        let file = |length| Tree { files: vec![File { path: "a.bin".to_owned(), bytes: vec![0; length] }] };
        let count = |tree: &Tree| {
            let mut findings = Vec::new();
            check(tree, &mut findings);
            findings.len()
        };
        assert_eq!((count(&file(FILE_BYTES_MAX)), count(&file(FILE_BYTES_MAX + 1))), (0, 1));
    }
}
