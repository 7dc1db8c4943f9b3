//! Who may know what: words that only some files may use.
//!
//! What a crate must not know at all, its manifest keeps out ([`super::manifests`]); these fences run inside crates.
//! Code of tests is exempt unless a fence says otherwise: a test may look behind the curtain.

use super::modules::test_files;
use super::{Finding, Tree};

/// Words that code under some directory may use only in some of its files.
struct Fence {
    rule: &'static str,
    within: &'static str,
    words: &'static [&'static str],
    /// Files, and directories by a `/` at the end.
    except: &'static [&'static str],
    tests_too: bool,
    instead: &'static str,
}

const DISK: &str = "crates/playhead-engine/src/store/embedded/disk.rs";
const DISKS: &str = "crates/playhead-engine/src/store/embedded/disk/";
const BASE: &str = "crates/playhead-engine/src/store/embedded/base.rs";
const BASES: &str = "crates/playhead-engine/src/store/embedded/base/";
/// What the store is measured against: the driver alone.
const BARE_DRIVER: &str = "crates/playhead-engine/examples/bare_driver.rs";
const CASSANDRA: &str = "crates/playhead-engine/src/store/cassandra.rs";
const CASSANDRAS: &str = "crates/playhead-engine/src/store/cassandra/";

const FENCES: &[Fence] = &[
    Fence {
        rule: "json-fence",
        within: "crates/playhead-server/src/",
        words: &["serde_json", "axum::Json"],
        except: &[
            "crates/playhead-server/src/wire.rs",
            "crates/playhead-server/src/wire/",
            "crates/playhead-server/src/openapi.rs",
            "crates/playhead-server/src/openapi/",
        ],
        tests_too: false,
        instead: "in the server only wire.rs knows the JSON of requests and answers: put the struct and its reading or writing there",
    },
    Fence {
        rule: "status-fence",
        within: "crates/playhead-server/src/",
        words: &["StatusCode"],
        except: &["crates/playhead-server/src/problem.rs"],
        tests_too: false,
        instead: "in the server only problem.rs knows status codes: return a `Problem`, or take the answer from there",
    },
    Fence {
        rule: "store-fence",
        within: "crates/playhead-server/src/",
        words: &[
            "store::embedded",
            "store::memory",
            "store::discard",
            "Embedded",
            "EmbeddedOptions",
            "StoreChoice",
            "OpenError",
        ],
        except: &[],
        tests_too: false,
        instead: "the server knows lanes and handles, not which store lies behind them: take what is needed from the engine's face",
    },
    Fence {
        rule: "file-fence",
        within: "crates/playhead-server/src/",
        words: &["std::fs", "tokio::fs", "File::open", "File::create"],
        except: &[],
        tests_too: false,
        instead: "the server opens no files: the binary reads them and hands over what is in them",
    },
    Fence {
        rule: "base-fence",
        within: "crates/",
        words: &["fjall"],
        except: &[BASE, BASES],
        tests_too: true,
        instead: "only base.rs knows fjall: add what is needed to `Base`",
    },
    Fence {
        rule: "sync-fence",
        within: "crates/",
        words: &["sync_all", "sync_data", "fsync", "fdatasync", "syncfs", "sync_file_range"],
        except: &[DISK, DISKS, BASE, BASES],
        tests_too: false,
        instead: "only disk.rs and base.rs sync, so that durability has one home: go through `Disk`",
    },
    Fence {
        rule: "scylla-fence",
        within: "crates/",
        words: &["scylla"],
        except: &[CASSANDRA, CASSANDRAS, BARE_DRIVER],
        tests_too: true,
        instead: "only the Cassandra store knows its driver: add what is needed there",
    },
    Fence {
        rule: "lane-fence",
        within: "crates/playhead-engine/src/lane.rs",
        words: &["embedded", "Embedded", "cassandra", "Cassandra", "memory", "Memory", "discard", "Discard"],
        except: &[],
        tests_too: false,
        instead: "a lane knows the `Store` trait, not which store it is",
    },
    Fence {
        rule: "pure-core",
        within: "crates/playhead-core/src/",
        words: &[
            "std::fs",
            "std::net",
            "std::io",
            "std::env",
            "std::process",
            "std::thread",
            "SystemTime::now",
            "Instant::now",
        ],
        except: &[],
        tests_too: true,
        instead: "core is pure, no I/O and no clock: take the value as an argument",
    },
];

/// By whatever runtime.
const SLEEPS: &[&str] = &["sleep", "sleep_until", "sleep_ms"];

pub(super) fn check(tree: &Tree, findings: &mut Vec<Finding>) {
    let sources: Vec<_> = tree.rust().collect();
    let test_files = test_files(&sources);
    for (file, source) in &sources {
        let all_test = test_files.contains(file.path.as_str());
        let is_test = |line: usize| all_test || source.lines[line - 1].test;
        for fence in FENCES {
            if !file.path.starts_with(fence.within) || fence.except.iter().any(|room| is_in(&file.path, room)) {
                continue;
            }
            for (line, word) in source.lines_with(fence.words, fence.rule) {
                if fence.tests_too || !is_test(line) {
                    findings.push(file.finding(line, fence.rule, format!("`{word}`: {}", fence.instead)));
                }
            }
        }
        for (line, word) in source.lines_with(SLEEPS, "sleep") {
            // Where clippy's ban was lifted with a reason, the reason was given.
            let attributes = &source.lines[line.saturating_sub(5)..line];
            let is_lifted = attributes.iter().any(|line| line.code.contains("disallowed_methods"));
            if is_test(line) && !is_lifted {
                let instead = "a test does not sleep to wait: poll for the event with a deadline";
                findings.push(file.finding(line, "sleep", format!("`{word}`: {instead}")));
            }
        }
    }
}

fn is_in(path: &str, room: &str) -> bool {
    if room.ends_with('/') { path.starts_with(room) } else { path == room }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rules that a file breaks.
    fn broken(path: &str, text: &str) -> Vec<&'static str> {
        let mut findings = Vec::new();
        check(&Tree::of(&[(path, text)]), &mut findings);
        findings.iter().map(|finding| finding.rule).collect()
    }

    #[test]
    fn each_fence_holds_its_words_back() {
        for fence in FENCES {
            let path =
                if fence.within.ends_with('/') { format!("{}any.rs", fence.within) } else { fence.within.to_owned() };
            for word in fence.words {
                let line = format!("use {word};");
                assert!(broken(&path, &line).contains(&fence.rule), "{} must catch {word} in {path}", fence.rule);
                let hidden = format!("// {word}\nlet a = \"{word}\";");
                assert_eq!(broken(&path, &hidden), [""; 0], "{word} in words only");
                let test = format!("#[cfg(test)]\nmod tests {{\n use {word};\n}}");
                assert_eq!(broken(&path, &test).contains(&fence.rule), fence.tests_too, "{word} in a test");
                for room in fence.except {
                    let path = if room.ends_with('/') { format!("{room}part.rs") } else { (*room).to_owned() };
                    assert!(!broken(&path, &line).contains(&fence.rule), "{path} may use {word}");
                }
            }
        }
    }

    #[test]
    fn tests_do_not_sleep() {
        for line in ["std::thread::sleep(a);", "tokio::time::sleep(a).await;", "use tokio::time::{sleep, timeout};"] {
            assert_eq!(broken("crates/a/tests/it/main.rs", line), ["sleep"]);
            assert_eq!(broken("crates/a/src/lib.rs", &format!("#[cfg(test)]\nmod tests {{\n{line}\n}}")), ["sleep"]);
            assert_eq!(broken("crates/a/src/lib.rs", line), [""; 0]);
        }
        assert_eq!(broken("crates/a/tests/a.rs", "// tidy-allow(sleep): a pause is the fault\nsleep(a);"), [""; 0]);
    }
}
