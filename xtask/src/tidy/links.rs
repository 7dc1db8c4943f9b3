//! Links of the documents that lead to files and headings of the repository: each must arrive.
//!
//! **The limits.** Inline links and images, `[text](target)`, outside of code. Addresses with a scheme are not visited.

use super::{File, Finding, Tree, has_extension};
use std::collections::BTreeSet;

pub(super) fn check(tree: &Tree, findings: &mut Vec<Finding>) {
    let places = places(tree);
    for file in tree.files.iter().filter(|file| has_extension(&file.path, "md")) {
        for (line, target) in links(file.text().unwrap_or_default()) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (path, heading) =
                target.split_once('#').map_or((target.as_str(), None), |(path, heading)| (path, Some(heading)));
            let path = if path.is_empty() { Some(file.path.clone()) } else { resolve(&file.path, path) };
            let Some(path) = path.filter(|path| places.contains(path.as_str())) else {
                findings.push(file.finding(
                    line,
                    "link",
                    format!("`{target}` leads nowhere: name a file of the repository"),
                ));
                continue;
            };
            if let Some(heading) = heading
                && !tree.file(&path).is_some_and(|file| headings(file).contains(heading))
            {
                findings.push(file.finding(line, "link", format!("`{target}`: {path} has no such heading")));
            }
        }
    }
}

/// All files and directories.
fn places(tree: &Tree) -> BTreeSet<&str> {
    let mut places = BTreeSet::new();
    for file in &tree.files {
        let mut path = file.path.as_str();
        while places.insert(path) {
            let Some((directory, _)) = path.rsplit_once('/') else { break };
            path = directory;
        }
    }
    places
}

/// Follows a relative path from a file; `None` if it leaves the repository.
fn resolve(from: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

/// Lines outside of fences, with code spans blanked.
fn prose(text: &str) -> impl Iterator<Item = (usize, String)> {
    let mut in_fence = false;
    text.lines().enumerate().filter_map(move |(at, line)| {
        if line.trim_start().starts_with("```") {
            in_fence = !in_fence;
            return None;
        }
        let spans = line.split('`').enumerate().map(|(at, span)| if at % 2 == 0 { span } else { "" });
        (!in_fence).then(|| (at + 1, spans.collect()))
    })
}

fn links(text: &str) -> Vec<(usize, String)> {
    let mut links = Vec::new();
    for (number, line) in prose(text) {
        let targets = line.match_indices("](").filter_map(|(at, _)| line[at + 2..].split([')', ' ']).next());
        links.extend(targets.map(|target| (number, target.to_owned())));
    }
    links
}

/// The anchors of a document's headings, as GitHub makes them.
fn headings(file: &File) -> BTreeSet<String> {
    let text = file.text().unwrap_or_default();
    let outside_fences = {
        let numbers: BTreeSet<usize> = prose(text).map(|(number, _)| number).collect();
        text.lines().enumerate().filter(move |(at, _)| numbers.contains(&(at + 1))).map(|(_, line)| line)
    };
    let titles = outside_fences.filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    titles
        .map(|title| {
            let kept =
                title.to_lowercase().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>();
            kept.replace(' ', "-")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_must_arrive() {
        let target = "# A title, `code` & all\n```\n# No title\n```\n";
        for (link, arrives) in [
            ("[a](../README.md)", true),
            ("[a](B.md) and [b](./B.md#a-title-code--all)", true),
            ("[a](../crates)", true),
            ("[a](../crates/x/src/lib.rs)", true),
            ("[a](https://example.org/none)", true),
            ("`[a](none.md)`", true),
            ("```\n[a](none.md)\n```", true),
            ("[a](none.md)", false),
            ("[a](../../README.md)", false),
            ("[a](B.md#no-title)", false),
            ("[a](#nowhere)", false),
            ("![a](none.png \"words\")", false),
        ] {
            let mut findings = Vec::new();
            let files = [("README.md", ""), ("crates/x/src/lib.rs", ""), ("docs/A.md", link), ("docs/B.md", target)];
            check(&Tree::of(&files), &mut findings);
            assert_eq!(findings.is_empty(), arrives, "{link}: {findings:?}");
        }
    }
}
