//! Dependencies and lints: each crate's fence against the others, a reason for every dependency, one source for all.

use super::{File, Finding, Tree, has_extension};

/// Crates that another must not depend on, as house rules have it; dev-dependencies are free.
struct Wall {
    of: &'static str,
    /// Nothing else, if it is given.
    only: Option<&'static [&'static str]>,
    never: &'static [&'static str],
    instead: &'static str,
}

const HTTP: &[&str] = &[
    "hyper",
    "hyper-util",
    "http",
    "http-body-util",
    "axum",
    "tower",
    "serde",
    "serde_json",
    "jsonwebtoken",
    "playhead-server",
];

const WALLS: &[Wall] = &[
    Wall {
        of: "crates/playhead-core/Cargo.toml",
        only: Some(&["thiserror"]),
        never: &[],
        instead: "core uses std and thiserror, nothing else: take the value as an argument",
    },
    Wall {
        of: "crates/playhead-engine/Cargo.toml",
        only: None,
        never: HTTP,
        instead: "the engine knows no HTTP, no JSON and no tokens: that belongs into the server",
    },
    Wall {
        of: "crates/playhead-server/Cargo.toml",
        only: None,
        never: &["fjall", "rustix", "scylla", "crc32c", "clap"],
        instead: "the server knows no store, no files and no command line: that belongs into the engine or the binary",
    },
    Wall {
        of: "crates/playhead-archive/Cargo.toml",
        only: None,
        never: &["playhead-engine", "playhead-server", "tokio", "hyper", "zstd"],
        instead: "the archive knows lines and records: files, sockets and compression are the binary's",
    },
    Wall {
        of: "crates/playhead-load/Cargo.toml",
        only: None,
        never: &["playhead-engine", "playhead-server"],
        instead: "the load generator is a client like any other",
    },
];

pub(super) fn check(tree: &Tree, findings: &mut Vec<Finding>) {
    let manifests = tree.files.iter().filter(|file| file.path == "Cargo.toml" || file.path.ends_with("/Cargo.toml"));
    for file in manifests {
        let entries = entries(file.text().unwrap_or_default());
        if file.path != "Cargo.toml" {
            inheritance(file, &entries, findings);
            walls(file, &entries, findings);
        }
        reasons(file, &entries, findings);
    }
    sources(tree, findings);
}

/// A line `key = value` of a manifest.
#[derive(Debug)]
struct Entry<'a> {
    section: &'a str,
    key: &'a str,
    value: &'a str,
    line: usize,
    /// A comment stands above it, or above the lines that it follows without a gap.
    has_reason: bool,
}

impl Entry<'_> {
    fn is_dependency(&self) -> bool {
        self.section.ends_with("dependencies")
    }

    fn crate_name(&self) -> &str {
        self.key.split('.').next().unwrap_or(self.key)
    }
}

/// Reads a manifest line by line; a value that goes on over lines is taken by its first.
fn entries(text: &str) -> Vec<Entry<'_>> {
    let mut entries = Vec::new();
    let mut section = "";
    let mut has_reason = false;
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_matches(|c| c == '[' || c == ']');
            has_reason = false;
        } else if line.is_empty() {
            has_reason = false;
        } else if line.starts_with('#') {
            has_reason = true;
        } else if let Some((key, value)) = line.split_once('=') {
            entries.push(Entry { section, key: key.trim(), value: value.trim(), line: at + 1, has_reason });
        }
    }
    entries
}

fn inheritance(file: &File, entries: &[Entry<'_>], findings: &mut Vec<Finding>) {
    if !entries.iter().any(|entry| entry.section == "lints" && entry.key == "workspace" && entry.value == "true") {
        findings.push(file.finding(
            0,
            "lints",
            "the crate does not take the workspace's lints: add `[lints] workspace = true`",
        ));
    }
    for key in ["version", "edition", "license", "publish"] {
        let inherits = |entry: &Entry<'_>| entry.section == "package" && entry.key == format!("{key}.workspace");
        if !entries.iter().any(inherits) {
            findings.push(file.finding(
                0,
                "package",
                format!("`{key}` is not the workspace's: write `{key}.workspace = true`"),
            ));
        }
    }
}

fn walls(file: &File, entries: &[Entry<'_>], findings: &mut Vec<Finding>) {
    let Some(wall) = WALLS.iter().find(|wall| wall.of == file.path) else { return };
    for entry in entries.iter().filter(|entry| matches!(entry.section, "dependencies" | "build-dependencies")) {
        let name = entry.crate_name();
        if wall.never.contains(&name) || wall.only.is_some_and(|only| !only.contains(&name)) {
            findings.push(file.finding(entry.line, "crate-wall", format!("`{name}`: {}", wall.instead)));
        }
    }
}

/// Each dependency is declared in the workspace's table, with its reason there.
fn reasons(file: &File, entries: &[Entry<'_>], findings: &mut Vec<Finding>) {
    for entry in entries.iter().filter(|entry| entry.is_dependency()) {
        let name = entry.crate_name();
        let is_own = entry.value.contains("path = ");
        let in_table = entry.section == "workspace.dependencies";
        if in_table && !entry.has_reason && !is_own {
            let instead = format!("`{name}` has no reason: say in a comment above it what it is here for");
            findings.push(file.finding(entry.line, "dependency-reason", instead));
        }
        let inherits = entry.key.ends_with(".workspace") || entry.value.contains("workspace = true");
        if !in_table && !inherits && !is_own {
            let instead =
                format!("`{name}` is declared here alone: move it into the workspace's table, with its reason");
            findings.push(file.finding(entry.line, "dependency-table", instead));
        }
    }
}

/// One registry, so that `Cargo.lock` alone tells what is built.
fn sources(tree: &Tree, findings: &mut Vec<Finding>) {
    const REGISTRY: &str = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";
    let locks = tree.files.iter().filter(|file| has_extension(&file.path, "lock"));
    for file in locks {
        for (at, line) in file.text().unwrap_or_default().lines().enumerate() {
            if line.starts_with("source = ") && line != REGISTRY {
                findings.push(file.finding(at + 1, "crate-source", "not from crates.io: use a published version"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "[package]\nversion.workspace = true\nedition.workspace = true\nlicense.workspace = true\n\
                        publish.workspace = true\n[lints]\nworkspace = true\n";

    fn broken(path: &str, text: &str) -> Vec<&'static str> {
        let mut findings = Vec::new();
        check(&Tree::of(&[(path, text)]), &mut findings);
        findings.iter().map(|finding| finding.rule).collect()
    }

    #[test]
    fn crates_inherit_from_the_workspace() {
        assert_eq!(broken("crates/a/Cargo.toml", HEAD), [""; 0]);
        assert_eq!(broken("crates/a/Cargo.toml", &HEAD.replace("[lints]\nworkspace = true", "")), ["lints"]);
        assert_eq!(
            broken("crates/a/Cargo.toml", &HEAD.replace("[lints]\nworkspace = true", "[lints.rust]\na = 1")),
            ["lints"]
        );
        assert_eq!(
            broken("crates/a/Cargo.toml", &HEAD.replace("license.workspace = true", "license = \"MIT\"")),
            ["package"]
        );
    }

    #[test]
    fn crates_keep_to_their_side_of_the_wall() {
        for wall in WALLS {
            let names = if wall.only.is_some() { &["tokio"] } else { wall.never };
            for name in names {
                for line in
                    [format!("{name}.workspace = true"), format!("{name} = {{ workspace = true, features = [] }}")]
                {
                    assert_eq!(
                        broken(wall.of, &format!("{HEAD}[dependencies]\n{line}")),
                        ["crate-wall"],
                        "{}: {name}",
                        wall.of
                    );
                    assert_eq!(broken(wall.of, &format!("{HEAD}[dev-dependencies]\n{line}")), [""; 0]);
                }
            }
        }
    }

    #[test]
    fn dependencies_have_a_reason_in_the_table() {
        let table = "[workspace.dependencies]\n";
        assert_eq!(broken("Cargo.toml", &format!("{table}# Why.\na = \"1\"\nb = {{ version = \"1\" }}")), [""; 0]);
        assert_eq!(broken("Cargo.toml", &format!("{table}# Why.\na = \"1\"\n\nb = \"1\"")), ["dependency-reason"]);
        assert_eq!(broken("Cargo.toml", &format!("{table}own = {{ path = \"crates/own\" }}")), [""; 0]);
        assert_eq!(
            broken("crates/a/Cargo.toml", &format!("{HEAD}[dev-dependencies]\n# Why.\na = \"1\"")),
            ["dependency-table"]
        );
    }

    #[test]
    fn crates_come_from_the_registry() {
        let good = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";
        assert_eq!(broken("Cargo.lock", good), [""; 0]);
        assert_eq!(broken("Cargo.lock", "source = \"git+https://example.org/a\""), ["crate-source"]);
    }
}
