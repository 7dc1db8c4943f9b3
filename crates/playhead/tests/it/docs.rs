//! The examples of docs/API.md: each gives what the page says.
//!
//! A block of `sh` that is followed by a block of `http` is run by a shell, with `curl`, and its status and body are
//! compared; times and cursors in kind only. Without `curl` nothing is run, and this says so.

use crate::client::token;
use crate::process::Server;
use serde_json::Value;
use std::process::Command;
use tempfile::TempDir;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/API.md");

/// The fenced blocks: language and text.
fn blocks(page: &str) -> Vec<(&str, &str)> {
    let mut pieces = page.split("```");
    pieces.next();
    // Fences come in pairs: inside, outside, inside.
    pieces.step_by(2).map(|block| block.split_once('\n').unwrap()).collect()
}

/// Times and cursors differ each time.
fn in_kind(mut json: Value) -> Value {
    fn walk(json: &mut Value) {
        match json {
            Value::Object(fields) => {
                for (name, value) in fields {
                    match value {
                        Value::String(text) if name == "updated_at" || name == "next_cursor" => {
                            *text = "x".repeat(text.len());
                        }
                        value => walk(value),
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(walk),
            _ => {}
        }
    }
    walk(&mut json);
    json
}

fn status_and_body(answer: &str) -> (String, Option<Value>) {
    let (head, body) = answer.split_once("\n\n").unwrap_or((answer, ""));
    let status = head.lines().next().unwrap().trim_start_matches("HTTP/1.1 ").to_owned();
    let body = (!body.trim().is_empty()).then(|| in_kind(serde_json::from_str(body).unwrap()));
    (status, body)
}

#[test]
fn every_example_of_the_page_gives_what_the_page_says() {
    if Command::new("curl").arg("--version").output().is_err() {
        eprintln!("SKIPPED: there is no curl to run the examples of docs/API.md with");
        return;
    }
    let directory = TempDir::new().unwrap();
    let server = Server::in_memory(&directory, &[]);
    let page = std::fs::read_to_string(PAGE).unwrap();
    let blocks = blocks(&page);
    let examples = blocks.windows(2).filter(|pair| pair[0].0 == "sh" && pair[1].0 == "http");
    let mut count = 0;
    for pair in examples {
        let (command, expected) = (pair[0].1, pair[1].1);
        let command = command.replace("127.0.0.1:8080", &server.address.to_string());
        let output = Command::new("sh")
            .args(["-euc", &command])
            .env("TOKEN", token(&directory, 42))
            .env("no_proxy", "*")
            .output()
            .unwrap();
        let answer = String::from_utf8(output.stdout).unwrap().replace("\r\n", "\n");
        assert!(output.status.success(), "{command}{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(status_and_body(&answer), status_and_body(expected), "{command}");
        count += 1;
    }
    assert_eq!(count, blocks.iter().filter(|(language, _)| *language == "http").count(), "an answer without a command");
    assert!(count >= 9, "only {count} examples were found");
}
