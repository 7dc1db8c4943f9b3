//! The description of the HTTP interface, OpenAPI 3.1, generated from the code that serves it.
//!
//! Built by [`crate::routes`] when the server starts, and served at `/openapi.json` to everybody; with `--dev` also as a
//! page to read, at `/docs` ([`page`]). The calls themselves are in [`calls`].
//!
//! **What can't drift.** Bodies are described beside the code that reads and writes them ([`wire::schemas`]), errors by
//! the table of [`crate::problem`]. What is written by hand is which calls there are and which problems each may meet:
//! tests over sockets compare that with `Allow` and with real answers. docs/openapi.json is a copy, compared by a test.
//!
//! **What it leaves out.** Preflights of browsers, which are the same for every path; `Date`, and the headers of CORS.

mod calls;
mod page;

use crate::problem::{self, Problem};
use crate::routes::{BATCH, DOCUMENT, PROGRESS, TITLE};
use crate::wire;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use bytes::Bytes;
use calls::Call;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The media type of what is neither an error nor a page.
const JSON: &str = "application/json";

const ABOUT: &str = "\
Remembers where each viewer is in each title. A player saves its position every few seconds; 204 means that it is kept.

Every call but `/openapi.json` needs a token, `Authorization: Bearer <JWT>`, as a header. The user is always the token's.

An error is `application/problem+json`. Its `type` ends in a slug to rely on; `title` and `detail` are for people. A 4xx \
is final, but for 408 and 429: the same request fails again. After 408, 429, 503 or no answer at all send the newest position, not the \
old one, after `Retry-After × (1 + random 0…1)` seconds. Every call may be repeated. Unknown is not zero: a player that \
starts at 0 because the place to resume could not be read must not save that.

`Playhead-Interval: N` on an answer asks the player to save every N seconds from now on, until an answer omits it.

HEAD answers as GET, without a body.";

/// The name of the header that may be on any answer.
const INTERVAL: &str = "Playhead-Interval";

/// The groups of calls.
const TAGS: [(&str, &str); 4] = [
    ("save", "What a player says."),
    ("resume", "What a viewer reads back."),
    ("forget", "What is to be gone for good: a late item that happened before does not bring it back."),
    ("about", "This interface."),
];

/// What the HTTP library refuses by itself.
const HEAD_TOO_LONG: (&str, &str) =
    ("431", "The head of the request is longer than 16 KiB or has more than 100 fields. Without a body.");

/// The route that serves the document.
pub(crate) fn json<S: Clone + Send + Sync + 'static>() -> MethodRouter<S> {
    let headers = [(CONTENT_TYPE, JSON), (CACHE_CONTROL, "no-cache")];
    constant((headers, Bytes::from(format!("{:#}\n", document()))))
}

/// The route that serves the page.
pub(crate) fn docs<S: Clone + Send + Sync + 'static>() -> MethodRouter<S> {
    constant(page::answer(&document()))
}

fn constant<S, A>(answer: A) -> MethodRouter<S>
where
    S: Clone + Send + Sync + 'static,
    A: IntoResponse + Clone + Send + Sync + 'static,
{
    get(async move || -> Response { answer.into_response() })
}

/// The whole document.
fn document() -> Value {
    let mut refusals = Refusals::default();
    let mut path = |calls: &[(&str, Call)]| {
        let mut item = Map::new();
        for (method, call) in calls {
            item.insert((*method).to_owned(), operation(call, &mut refusals));
            if *method == "get" {
                item.insert("head".to_owned(), head(call));
            }
        }
        item
    };
    let paths = json!({
        PROGRESS: path(&[
            ("get", calls::titles()), ("post", calls::heartbeat()), ("delete", calls::forget_user()),
        ]),
        BATCH: path(&[("post", calls::batch())]),
        TITLE: path(&[("get", calls::title()), ("delete", calls::forget_title())]),
        DOCUMENT: path(&[("get", calls::document())]),
    });
    let token = json!({
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "Signed with a key that the server knows, not expired, and naming the user.",
    });
    let interval = json!({
        "description": "Save every so many seconds from now on, until an answer omits this.",
        "schema": {"type": "integer", "minimum": 1},
    });
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Playhead",
            "version": "1",
            "description": ABOUT,
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "tags": TAGS.map(|(name, about)| json!({"name": name, "description": about})),
        "paths": paths,
        "components": {
            "schemas": wire::schemas(),
            "responses": refusals.0,
            "headers": {INTERVAL: interval},
            "securitySchemes": {"token": token},
        },
    })
}

/// A call as an operation of its path.
fn operation(call: &Call, refusals: &mut Refusals) -> Value {
    let (status, success) = &call.success;
    let mut answers = answers(status, success.clone());
    for problems in by_status(call) {
        answers.insert(problems[0].status().to_owned(), refusals.refer_to(&problems));
    }
    let mut operation = described(call, call.id.to_owned(), answers);
    if let Some(body) = &call.body {
        operation["requestBody"] = body.clone();
    }
    operation
}

/// HEAD of a call that answers to GET: the same heads, and no body.
fn head(call: &Call) -> Value {
    let (status, success) = &call.success;
    let mut success = success.clone();
    success.as_object_mut().expect("an answer is an object").remove("content");
    let mut answers = answers(status, success);
    for problems in by_status(call) {
        answers.insert(problems[0].status().to_owned(), refusal(&problems));
    }
    described(call, format!("{}Head", call.id), answers)
}

fn answers(status: &str, mut success: Value) -> Map<String, Value> {
    success["headers"][INTERVAL] = interval();
    let too_long = (HEAD_TOO_LONG.0.to_owned(), json!({"description": HEAD_TOO_LONG.1}));
    Map::from_iter([(status.to_owned(), success), too_long])
}

fn described(call: &Call, id: String, answers: Map<String, Value>) -> Value {
    let mut operation = json!({
        "operationId": id,
        "tags": [call.tag],
        "summary": call.summary,
        "description": call.about,
        "parameters": call.parameters,
        "responses": answers,
    });
    // Whoever has no token may ask.
    if !call.problems().any(|problem| *problem == Problem::Unauthorized) {
        operation["security"] = json!([]);
    }
    operation
}

/// The problems that a call may meet, in groups of one status.
fn by_status(call: &Call) -> Vec<Vec<&Problem>> {
    let mut groups: BTreeMap<&str, Vec<&Problem>> = BTreeMap::new();
    for problem in call.problems() {
        groups.entry(problem.status()).or_default().push(problem);
    }
    groups.into_values().collect()
}

/// The answers to problems of one status, each written once, by its name.
#[derive(Default)]
struct Refusals(Map<String, Value>);

impl Refusals {
    fn refer_to(&mut self, problems: &[&Problem]) -> Value {
        let slugs: Vec<_> = problems.iter().map(|problem| problem.slug()).collect();
        let name = slugs.join("-or-");
        let reference = json!({"$ref": format!("#/components/responses/{name}")});
        let mut answer = refusal(problems);
        let examples = problems.iter().map(|problem| {
            let shown = calls::example_of(problem);
            (problem.slug().to_owned(), json!({"summary": shown.answer().title, "value": shown.answer()}))
        });
        let content = json!({"schema": wire::reference(wire::PROBLEM), "examples": Map::from_iter(examples)});
        answer["content"] = json!({problem::MEDIA_TYPE: content});
        self.0.insert(name, answer);
        reference
    }
}

/// An answer to any of these problems, but for its body.
fn refusal(problems: &[&Problem]) -> Value {
    let mut headers =
        Map::from_iter([("Cache-Control".to_owned(), text("Always `no-store`.")), (INTERVAL.to_owned(), interval())]);
    let mut words = Vec::new();
    for problem in problems {
        let title = problem.answer().title;
        // That of a connection says nothing that a client could use.
        let header = problem.header().filter(|(name, _)| name != CONNECTION);
        words.push(match header {
            None => format!("`{}`: {title}.", problem.slug()),
            Some((name, value)) => {
                let (name, header) = match name {
                    RETRY_AFTER => ("Retry-After", retry_after()),
                    _ => ("WWW-Authenticate", text("How to say who one is.")),
                };
                headers.insert(name.to_owned(), header);
                format!("`{}`: {title}, with `{name}: {}`.", problem.slug(), value.to_str().unwrap_or_default())
            }
        });
        if **problem == Problem::MethodNotAllowed {
            headers.insert("Allow".to_owned(), text("The methods that this path knows."));
        }
    }
    json!({"description": words.join(" "), "headers": headers})
}

fn retry_after() -> Value {
    json!({
        "description": "Seconds to wait, times 1 + random 0…1, so that players do not come back all at once.",
        "schema": {"type": "integer", "minimum": 0},
    })
}

fn interval() -> Value {
    json!({"$ref": format!("#/components/headers/{INTERVAL}")})
}

/// A header whose value is a text.
fn text(words: &str) -> Value {
    json!({"description": words, "schema": {"type": "string"}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_of_the_table_is_an_answer_of_some_call() {
        let document = document().to_string();
        for problem in Problem::all() {
            assert!(document.contains(&format!("urn:playhead:problem:{}\"", problem.slug())), "{}", problem.slug());
        }
    }

    #[test]
    fn every_call_has_a_name_of_its_own_words_and_a_group() {
        let document = document();
        let items = document["paths"].as_object().unwrap().values();
        let operations: Vec<_> = items.flat_map(|item| item.as_object().unwrap().values()).collect();
        let mut ids: Vec<_> = operations.iter().map(|operation| operation["operationId"].as_str().unwrap()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), operations.len());
        for operation in operations {
            assert!(operation["summary"].is_string() && operation["description"].is_string());
            assert!(TAGS.iter().any(|(name, _)| operation["tags"] == json!([name])), "{operation}");
        }
    }
}
