//! The examples of docs/API.md: each gives what the page says.
//!
//! Every block of `sh` is run by a shell, with the real `playhead` and `curl`. If a block of `http` follows, status and body
//! are compared with it, times and cursors in kind only; else the command must succeed. What a block without `curl` sets is
//! there for those behind it. Without `curl` nothing is run, and this says so.

use crate::process::{Server, binary, skip};
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
    let test = "every_example_of_the_page_gives_what_the_page_says";
    if Command::new("curl").arg("--version").output().is_err() {
        return skip(test, "needs curl");
    }
    let directory = TempDir::new().unwrap();
    let server = Server::in_memory(&directory, &[]);
    let page = std::fs::read_to_string(PAGE).unwrap();
    let blocks = blocks(&page);
    let binaries = binary().parent().unwrap().display().to_string();
    let path = format!("{binaries}:{}", std::env::var("PATH").unwrap());
    let mut settings = String::new();
    let (mut compared, mut succeeded) = (0, 0);
    for (at, (_, text)) in blocks.iter().enumerate().filter(|(_, (language, _))| *language == "sh") {
        if !text.contains("curl ") {
            settings.push_str(text);
            continue;
        }
        let command = text.replace("127.0.0.1:8080", &server.address.to_string());
        let output = Command::new("sh")
            .args(["-euc", &format!("{settings}{command}")])
            .current_dir(&directory)
            .env("PATH", &path)
            .env("PLAYHEAD_DATA_DIR", directory.path())
            .env("no_proxy", "*")
            .output()
            .unwrap();
        let answer = String::from_utf8(output.stdout).unwrap().replace("\r\n", "\n");
        assert!(output.status.success(), "{command}{}", String::from_utf8_lossy(&output.stderr));
        match blocks.get(at + 1) {
            Some(("http", expected)) => {
                assert_eq!(status_and_body(&answer), status_and_body(expected), "{command}");
                compared += 1;
            }
            _ => succeeded += 1,
        }
    }
    let answers = blocks.iter().filter(|(language, _)| *language == "http").count();
    assert_eq!(compared, answers, "an answer without a command");
    assert!(compared >= 9 && succeeded >= 1, "only {compared} and {succeeded} examples were found");
    assert!(settings.contains("TOKEN="), "no token was made as the page says");
    let copy = std::fs::read_to_string(directory.path().join("openapi.json")).unwrap();
    assert_eq!(copy, server.connect().get("/openapi.json", None).body);
}
