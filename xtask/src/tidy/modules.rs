//! Source files: each says what it is, none is dead, none grows past reading.

use super::code::{Line, Source};
use super::{File, Finding, Tree};
use std::collections::{BTreeMap, BTreeSet};

const LINES_ASK_WHY: usize = 600;
const LINES_MAX: usize = 1_000;

pub(super) fn check(tree: &Tree, findings: &mut Vec<Finding>) {
    for file in tree.files.iter().filter(|file| file.is_rust()) {
        header(file, findings);
        let lines = line_count(file);
        if lines > LINES_MAX {
            let instead = format!("{lines} lines, {LINES_MAX} are the most: split it by what its parts promise");
            findings.push(file.finding(0, "file-length", instead));
        }
    }
    dead_files(tree, findings);
}

/// Files at whose length one should ask why.
pub(super) fn long_files(tree: &Tree) -> Vec<Finding> {
    let long =
        tree.files.iter().filter(|file| file.is_rust() && (LINES_ASK_WHY + 1..=LINES_MAX).contains(&line_count(file)));
    long.map(|file| {
        file.finding(0, "file-length", format!("{} lines: does it do more than one thing?", line_count(file)))
    })
    .collect()
}

fn line_count(file: &File) -> usize {
    file.text().unwrap_or_default().lines().count()
}

/// The first line begins a sentence that says what the file is.
fn header(file: &File, findings: &mut Vec<Finding>) {
    let text = file.text().unwrap_or_default();
    let paragraph: Vec<&str> = text.lines().map_while(|line| line.strip_prefix("//! ")).collect();
    let opens = paragraph
        .first()
        .and_then(|line| line.chars().next())
        .is_some_and(|c| c.is_uppercase() || "`[0123456789".contains(c));
    let closes = paragraph.last().is_some_and(|line| line.ends_with(['.', '?', ':']) || paragraph.len() > 1);
    if !opens || !closes {
        findings.push(file.finding(1, "file-header", "the first line must be `//! What it is.`, a sentence"));
    }
}

/// Files that no `mod` line leads to are compiled by nobody.
fn dead_files(tree: &Tree, findings: &mut Vec<Finding>) {
    let sources: Vec<(&File, Source)> = tree.rust().collect();
    let alive = reached(&sources, |_| true);
    for (file, _) in sources.iter().filter(|(file, _)| !alive.contains(file.path.as_str())) {
        findings.push(file.finding(0, "dead-file", "no `mod` line leads here: name it in its parent, or delete it"));
    }
}

/// Files that only tests compile: those of test targets, and modules that only test items name.
pub(super) fn test_files<'a>(sources: &'a [(&'a File, Source)]) -> BTreeSet<&'a str> {
    let built = reached(sources, |line| !line.test);
    let in_tests = |path: &&str| path.contains("/tests/") || path.contains("/benches/") || !built.contains(path);
    reached(sources, |_| true).into_iter().filter(in_tests).collect()
}

/// The files that the compiler comes to, from the roots by the `mod` lines that are followed.
fn reached<'a>(sources: &'a [(&'a File, Source)], follows: impl Fn(&Line) -> bool) -> BTreeSet<&'a str> {
    let sources: BTreeMap<&str, &Source> = sources.iter().map(|(file, source)| (file.path.as_str(), source)).collect();
    let mut reached = BTreeSet::new();
    let mut open: Vec<&str> = sources.keys().copied().filter(|path| is_root(path)).collect();
    while let Some(path) = open.pop() {
        if !reached.insert(path) {
            continue;
        }
        let lines = sources[path].lines.iter().filter(|line| follows(line));
        for candidate in lines.flat_map(|line| modules_of(path, &line.code)) {
            if let Some((known, _)) = sources.get_key_value(candidate.as_str()) {
                open.push(known);
            }
        }
    }
    reached
}

/// Where cargo begins to read.
fn is_root(path: &str) -> bool {
    let parts: Vec<&str> = path.rsplit('/').collect();
    matches!(
        parts[..],
        ["build.rs", ..]
            | ["lib.rs" | "main.rs", "src", ..]
            | [_, "bin", "src", ..]
            | ["main.rs", _, "bin", "src", ..]
            | [_, "tests" | "benches" | "examples", ..]
            | ["main.rs", _, "tests" | "benches" | "examples", ..]
    )
}

/// The two files that may hold the module which a line names, if it names one.
fn modules_of(path: &str, code: &str) -> Vec<String> {
    let Some(declaration) = code.trim().strip_suffix(';') else { return Vec::new() };
    let mut words = declaration.split_whitespace().rev();
    let (Some(name), Some("mod")) = (words.next(), words.next()) else { return Vec::new() };
    let directory = match path.rsplit_once('/') {
        Some((directory, "lib.rs" | "main.rs" | "mod.rs")) => directory.to_owned(),
        // The root of a test, a bench or an example is a crate of its own: its modules lie beside it.
        Some((directory, _)) if is_root(path) => directory.to_owned(),
        _ => path.trim_end_matches(".rs").to_owned(),
    };
    vec![format!("{directory}/{name}.rs"), format!("{directory}/{name}/mod.rs")]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(files: &[(&str, &str)]) -> Vec<(&'static str, String)> {
        let mut findings = Vec::new();
        check(&Tree::of(files), &mut findings);
        findings.into_iter().map(|finding| (finding.rule, finding.path)).collect()
    }

    #[test]
    fn files_begin_with_what_they_are() {
        for (text, caught) in [
            ("//! What it is.\n", false),
            ("//! What it is, at such a length that\n//! it takes two lines.\n\nuse a;\n", false),
            ("//! `name`: what it is.\n//!\n//! More.\n", false),
            ("use a;\n", true),
            ("\n//! What it is.\n", true),
            ("//! what it is.\n", true),
            ("//! What it is\n", true),
            ("//!\n//! What it is.\n", true),
            ("// What it is.\n", true),
        ] {
            assert_eq!(broken(&[("a/src/lib.rs", text)]).len(), usize::from(caught), "{text}");
        }
    }

    #[test]
    fn long_files_are_caught() {
        let lines = |count: usize| format!("//! A.\n{}", "\n".repeat(count - 1));
        assert_eq!(broken(&[("a/src/lib.rs", &lines(LINES_MAX))]), []);
        assert_eq!(broken(&[("a/src/lib.rs", &lines(LINES_MAX + 1))])[0].0, "file-length");
        for (count, warned) in [(LINES_ASK_WHY, 0), (LINES_ASK_WHY + 1, 1), (LINES_MAX, 1), (LINES_MAX + 1, 0)] {
            assert_eq!(long_files(&Tree::of(&[("a.rs", &lines(count))])).len(), warned, "{count}");
        }
    }

    #[test]
    fn files_that_no_module_names_are_caught() {
        let text = "//! A.\n";
        let files = [
            ("a/src/lib.rs", "//! A.\npub mod one;\n// mod dead;\n"),
            ("a/src/one.rs", "//! A.\n#[cfg(test)]\npub(crate) mod two;\n"),
            ("a/src/one/two.rs", text),
            ("a/src/dead.rs", text),
            ("a/src/one/dead.rs", text),
            ("a/tests/it/main.rs", "//! A.\nmod three;\n"),
            ("a/tests/it/three.rs", text),
            ("a/tests/four.rs", "//! A.\nmod five;\n"),
            ("a/tests/five/mod.rs", text),
            ("a/build.rs", text),
        ];
        let dead: Vec<String> = broken(&files).into_iter().map(|(_, path)| path).collect();
        assert_eq!(dead, ["a/src/dead.rs", "a/src/one/dead.rs"]);
        let tree = Tree::of(&files);
        let sources: Vec<_> = tree.rust().collect();
        let test_only = test_files(&sources);
        assert!(test_only.contains("a/src/one/two.rs") && test_only.contains("a/tests/it/three.rs"), "{test_only:?}");
        assert!(!test_only.contains("a/src/one.rs") && !test_only.contains("a/src/lib.rs"), "{test_only:?}");
    }
}
