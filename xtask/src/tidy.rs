//! The house rules that no compiler checks: `cargo xtask tidy`, and a test of this crate.
//!
//! Reads every file that git knows or would add. **The promise.** Each breach is reported with its file, its line, the
//! rule and what to do instead. **The limits.** Code is read by a small lexer ([`code`]), not a parser: it knows comments,
//! strings and test modules, no types. Where a rule is wrong for one line, the line above it says so:
//! `// tidy-allow(rule): why`.
//!
//! In reading order: [`fences`] who may know what; [`code`] how source is read; [`words`] what no file may say;
//! [`manifests`] dependencies and lints; [`modules`] files and their headers; [`links`] the documents' links.

mod code;
mod fences;
mod links;
mod manifests;
mod modules;
mod words;

use anyhow::{Context, Result, bail};
use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

/// One breach of one rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    path: String,
    /// From 1; 0 for a file as a whole.
    line: usize,
    rule: &'static str,
    instead: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        write!(f, ": {} [{}]", self.instead, self.rule)
    }
}

/// A file of the repository.
pub(crate) struct File {
    /// From the top directory, with `/`.
    path: String,
    bytes: Vec<u8>,
}

impl File {
    /// Its text, if it is text.
    fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.bytes).ok().filter(|text| !text.contains('\0'))
    }

    fn is_rust(&self) -> bool {
        has_extension(&self.path, "rs")
    }

    fn finding(&self, line: usize, rule: &'static str, instead: impl Into<String>) -> Finding {
        Finding { path: self.path.clone(), line, rule, instead: instead.into() }
    }
}

fn has_extension(path: &str, extension: &str) -> bool {
    Path::new(path).extension().is_some_and(|found| found == extension)
}

/// The repository's files.
pub(crate) struct Tree {
    files: Vec<File>,
}

impl Tree {
    /// All files that are committed or would be, as they lie in the working directory.
    pub(crate) fn of_repository(root: &Path) -> Result<Self> {
        let mut git = Command::new("git");
        git.arg("-C").arg(root).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
        let names = crate::process::output(&mut git)?;
        let mut files = Vec::new();
        for name in names.split('\0').filter(|name| !name.is_empty()) {
            let path = root.join(name);
            // Deleted and not yet committed, or a link to a directory.
            if path.is_file() {
                let bytes = fs::read(&path).with_context(|| format!("can't read {name}"))?;
                files.push(File { path: name.to_owned(), bytes });
            }
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        files.dedup_by(|a, b| a.path == b.path);
        Ok(Self { files })
    }

    /// Writes the files into another directory.
    pub(crate) fn copy_to(&self, directory: &Path) -> Result<()> {
        for file in &self.files {
            let path = directory.join(&file.path);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(&path, &file.bytes).with_context(|| format!("can't write {}", path.display()))?;
        }
        Ok(())
    }

    fn rust(&self) -> impl Iterator<Item = (&File, code::Source)> {
        self.files
            .iter()
            .filter(|file| file.is_rust())
            .filter_map(|file| Some((file, code::Source::read(file.text()?))))
    }

    fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    #[cfg(test)]
    fn of(files: &[(&str, &str)]) -> Self {
        let files = files.iter().map(|(path, text)| File { path: (*path).to_owned(), bytes: text.as_bytes().to_vec() });
        Self { files: files.collect() }
    }
}

/// Checks the repository; every breach is printed.
pub(crate) fn run(root: &Path) -> Result<()> {
    let tree = Tree::of_repository(root)?;
    for warning in modules::long_files(&tree) {
        println!("warning: {warning}");
    }
    let findings = findings(&tree);
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!("{} breaches of the house rules, listed above", findings.len());
    }
    println!("{} files, no breach", tree.files.len());
    Ok(())
}

fn findings(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for rule in [fences::check, words::check, manifests::check, modules::check, links::check] {
        rule(tree, &mut findings);
    }
    findings.sort();
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_keeps_the_rules() {
        let tree = Tree::of_repository(&crate::root().unwrap()).unwrap();
        assert!(tree.files.len() > 20, "git names too few files");
        let findings: Vec<String> = findings(&tree).iter().map(Finding::to_string).collect();
        assert!(findings.is_empty(), "\n{}", findings.join("\n"));
    }

    #[test]
    fn a_finding_names_the_place_and_the_rule() {
        let tree = Tree::of(&[("a.md", "")]);
        assert_eq!(tree.files[0].finding(3, "rule", "do this").to_string(), "a.md:3: do this [rule]");
        assert_eq!(tree.files[0].finding(0, "rule", "do this").to_string(), "a.md: do this [rule]");
    }
}
