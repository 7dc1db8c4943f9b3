//! The description of the interface: its copy in docs/, and that the server does what it says, no less and no more.
//!
//! Each operation of the document is called in every way that a table knows, good and bad. Whatever is answered must be
//! in the document, with the headers it lists; and what the document lists must have been answered, but for
//! [`NEED_A_FAULT`].

use crate::client::{Answer, Client, PROGRESS, token};
use crate::process::{Launch, Server};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use tempfile::TempDir;

const COPY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");

/// The statuses of who asks too often, of a full lane and of a failing store. They have tests of their own: those of the
/// throttle, of overload, batches and disk faults.
const NEED_A_FAULT: [&str; 2] = ["429", "503"];

const BEAT: &str = r#"{"movie_id": 42, "position_seconds": 1234.5}"#;
const LATE: &str = r#"{"sent_at_ms": 5, "items": [{"movie_id": 42, "position_seconds": 9, "event_time_ms": 5}]}"#;

fn document(server: &Server) -> Value {
    let answer = server.connect().get("/openapi.json", None);
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    answer.json()
}

#[test]
fn the_copy_in_docs_is_what_is_served() {
    let directory = TempDir::new().unwrap();
    let server = Server::in_memory(&directory, &[]);
    let served = server.connect().get("/openapi.json", None).body;
    if std::env::var_os("PLAYHEAD_TEST_REGENERATE").is_some() {
        std::fs::write(COPY, &served).unwrap();
    }
    let copy = std::fs::read_to_string(COPY).unwrap();
    assert!(copy == served, "docs/openapi.json is not what is served: run this test with PLAYHEAD_TEST_REGENERATE=1");
    assert_eq!(document(&server)["openapi"], "3.1.0");
}

/// The operations: method in upper case, path as the document has it, and the rest.
fn operations(document: &Value) -> Vec<(String, String, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, item)| {
        let methods = item.as_object().unwrap().iter();
        methods.map(move |(method, operation)| (method.to_uppercase(), path.clone(), operation))
    });
    operations.collect()
}

#[test]
fn allow_lists_the_methods_of_the_document() {
    let directory = TempDir::new().unwrap();
    let server = Server::in_memory(&directory, &[]);
    let document = document(&server);
    let mut methods: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (method, path, _) in operations(&document) {
        methods.entry(path).or_default().insert(method);
    }
    assert_eq!(methods.len(), 4);
    for (path, methods) in methods {
        let path = path.replace("{movie_id}", "42");
        for method in ["OPTIONS", "PUT", "PATCH", "TRACE", "FOO"] {
            let answer = server.connect().request(method, &path, &[], None);
            assert_eq!((answer.status, answer.slug().as_str()), (405, "method-not-allowed"), "{method} {path}");
            let allowed = answer.header("allow").unwrap().split(',').map(|method| method.trim().to_owned());
            assert_eq!(allowed.collect::<BTreeSet<_>>(), methods, "{method} {path}");
        }
    }
}

/// How a request is spoiled, if it is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Good,
    NoHost,
    NoToken,
    LongHead,
    OtherMethod,
    OtherSpelling,
    BadQuery,
    NoJson,
    NoBeat,
    NoType,
    LongBody,
    SlowBody,
}

const WAYS: [Way; 12] = [
    Way::Good,
    Way::NoHost,
    Way::NoToken,
    Way::LongHead,
    Way::OtherMethod,
    Way::OtherSpelling,
    Way::BadQuery,
    Way::NoJson,
    Way::NoBeat,
    Way::NoType,
    Way::LongBody,
    Way::SlowBody,
];

fn request(way: Way, method: &str, path: &str, token: &str) -> String {
    let good = if path.ends_with("/batch") { LATE } else { BEAT };
    let id = if way == Way::OtherSpelling { "042" } else { "42" };
    let query = if way == Way::BadQuery { "?limit=0" } else { "" };
    let method = if way == Way::OtherMethod { "PATCH" } else { method };
    let mut request = format!("{method} {}{query} HTTP/1.1\r\n", path.replace("{movie_id}", id));
    let header = |name: &str, value: &str| format!("{name}: {value}\r\n");
    if way != Way::NoHost {
        request += &header("Host", "x");
    }
    if way != Way::NoToken {
        request += &header("Authorization", &format!("Bearer {token}"));
    }
    if way == Way::LongHead {
        request += &header("X-Filler", &"a".repeat(16 * 1024));
    }
    if method != "POST" {
        return request + "\r\n";
    }
    let body = match way {
        Way::NoJson => "{",
        Way::NoBeat => "{}",
        Way::LongBody => &" ".repeat(128 * 1024 + 1),
        _ => good,
    };
    request += &header("Content-Type", if way == Way::NoType { "text/plain" } else { "application/json" });
    let length = if way == Way::SlowBody { body.len() + 1 } else { body.len() };
    request + &header("Content-Length", &length.to_string()) + "\r\n" + body
}

/// What a reference refers to.
fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).unwrap(),
        None => value,
    }
}

/// The answer is in the document, with exactly the headers and the media type that this lists. Gives back its problem,
/// if the document says that it has one in its body.
fn check_answer(document: &Value, operation: &Value, answer: &Answer, what: &str) -> Option<String> {
    let documented = &operation["responses"][answer.status.to_string()];
    assert!(documented.is_object(), "{what}: {} is not in the document: {answer:?}", answer.status);
    let documented = resolved(document, documented);
    let of_the_protocol = ["date", "content-type", "content-length", "connection"];
    let headers = answer.headers.iter().map(|(name, _)| name.clone());
    let headers: BTreeSet<_> = headers.filter(|name| !of_the_protocol.contains(&name.as_str())).collect();
    let listed = documented["headers"].as_object().into_iter().flatten().map(|(name, _)| name.to_lowercase());
    assert_eq!(headers, listed.collect::<BTreeSet<_>>(), "{what}: {answer:?}");
    let contents = documented["content"].as_object()?;
    assert_eq!(contents.keys().collect::<Vec<_>>(), [answer.header("content-type").unwrap()], "{what}: {answer:?}");
    contents.contains_key("application/problem+json").then(|| answer.slug())
}

#[test]
fn every_answer_is_in_the_document_and_everything_in_it_is_answered() {
    let directory = TempDir::new().unwrap();
    // With an interval, so that every answer that may have it does.
    let server = Server::in_memory(&directory, &["--request-deadline", "1s", "--beat-interval", "8s"]);
    let token = token(&directory, 7);
    let document = document(&server);
    for (method, path, operation) in operations(&document) {
        let mut answered: BTreeSet<(String, Option<String>)> = BTreeSet::new();
        for way in WAYS {
            let what = format!("{way:?} {method} {path}");
            let mut client = server.connect();
            client.send(request(way, &method, &path, &token));
            // An answer to HEAD ends with its head.
            let answer = if method == "HEAD" && way != Way::OtherMethod {
                let (status, headers) = client.head().unwrap_or_else(|| panic!("{what}: no answer"));
                Answer { status, headers, body: String::new() }
            } else {
                client.answer()
            };
            let slug = check_answer(&document, operation, &answer, &what);
            answered.insert((answer.status.to_string(), slug));
        }
        let mut listed = BTreeSet::new();
        for (status, documented) in operation["responses"].as_object().unwrap() {
            let content = &resolved(&document, documented)["content"]["application/problem+json"];
            let slugs: Vec<_> = content["examples"].as_object().into_iter().flatten().map(|(slug, _)| slug).collect();
            match slugs[..] {
                [] => drop(listed.insert((status.clone(), None))),
                _ => listed.extend(slugs.into_iter().map(|slug| (status.clone(), Some(slug.clone())))),
            }
        }
        listed.retain(|(status, _)| !NEED_A_FAULT.contains(&status.as_str()));
        assert_eq!(answered, listed, "{method} {path}");
    }
}

#[test]
fn the_page_is_for_dev_only_and_needs_nothing_but_itself() {
    let directory = TempDir::new().unwrap();
    let server = Server::in_memory(&directory, &[]);
    let page = server.connect().get("/docs", None);
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
    assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
    for outside in ["<script", "<link", "<img", "<iframe", "src=", "url(", "@import", " style=", "onload="] {
        assert!(!page.body.contains(outside), "{outside:?} is on the page");
    }
    for (_, path, operation) in operations(&document(&server)) {
        assert!(page.body.contains(&format!("<code>{path}</code>")), "{path} is not on the page");
        let id = operation["operationId"].as_str().unwrap();
        let is_shown = page.body.contains(&format!("<article id=\"{id}\">"));
        assert_eq!(is_shown, !id.ends_with("Head"), "{id}");
    }
    // Every link within the page leads somewhere.
    for link in page.body.split("href=\"#").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(page.body.contains(&format!("id=\"{link}\"")), "#{link} leads nowhere");
    }
    assert_eq!(server.connect().request("POST", "/docs", &[], None).header("allow"), Some("GET,HEAD"));
    drop(server);

    let secret = directory.path().join("secret");
    std::fs::write(&secret, "k".repeat(32)).unwrap();
    let server = Launch::new(&directory.path().join("data"), &["--jwt-secret-file", secret.to_str().unwrap()]).start();
    assert_eq!(server.connect().get("/docs", None).slug(), "not-found");
    assert_eq!(server.connect().get("/openapi.json", None).status, 200);
    assert_eq!(Client::to(server.address).get(PROGRESS, None).slug(), "unauthorized");
}
