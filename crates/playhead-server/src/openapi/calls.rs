//! The calls of the interface, one function each: what it is for, what it takes, how it answers when all is well, and which
//! problems it may meet.
//!
//! Read by [`super`], which makes the document of them. A test over sockets provokes what can be provoked, so that neither
//! an answer nor a problem is missing here.

use super::{JSON, text};
use crate::problem::Problem;
use crate::wire::{self, BookmarkAnswer, Fault, LIMIT_DEFAULT, LIMIT_MAX, ListAnswer, MOVIES_MAX, StateFilter};
use playhead_core::{Bookmark, MediaDuration, MovieId, Position, Rules, WriteTime};
use serde::Serialize;
use serde_json::{Value, json};

/// One call.
pub(super) struct Call {
    pub(super) id: &'static str,
    /// The group it belongs to.
    pub(super) tag: &'static str,
    pub(super) summary: &'static str,
    pub(super) about: &'static str,
    pub(super) parameters: Vec<Value>,
    pub(super) body: Option<Value>,
    /// How it answers when all is well: the status, and the rest.
    pub(super) success: (&'static str, Value),
    refusals: Vec<&'static [Problem]>,
}

impl Call {
    /// Every problem that it may meet.
    pub(super) fn problems(&self) -> impl Iterator<Item = &'static Problem> {
        self.refusals.iter().copied().flatten()
    }
}

/// What any call may meet.
const ANY: &[Problem] = &[Problem::MalformedRequest, Problem::MethodNotAllowed];

/// What a call with a token may meet besides.
const PERSONAL: &[Problem] = &[
    Problem::Unauthorized,
    Problem::RateLimited { after_seconds: 1 },
    Problem::Overloaded,
    Problem::StorageUnavailable,
];

/// What a call that changes something may meet besides.
const CHANGE: &[Problem] = &[Problem::OutcomeUnknown];

/// What a call with a body may meet besides.
const BODY: &[Problem] = &[
    Problem::MalformedJson,
    Problem::RequestTimeout,
    Problem::PayloadTooLarge,
    Problem::UnsupportedMediaType,
    Problem::InvalidRequest(Vec::new()),
];

/// What a call with an id in its path may meet besides.
const ID: &[Problem] = &[Problem::NotFound];

/// What a call with a query may meet besides.
const QUERY: &[Problem] = &[Problem::InvalidQuery];

/// `POST /api/v1/stream/progress`
pub(super) fn heartbeat() -> Call {
    Call {
        id: "saveProgress",
        tag: "save",
        summary: "Save a position: the heartbeat",
        about: "204 once the position is kept: on the disk, not in a cache. A write replaces the whole row, and the newest \
                beat to arrive wins, whatever its position. At most 4,096 bytes.",
        parameters: Vec::new(),
        body: body(wire::HEARTBEAT, HEARTBEAT),
        success: ("204", json!({"description": "Kept."})),
        refusals: vec![ANY, PERSONAL, CHANGE, BODY],
    }
}

/// `POST /api/v1/stream/progress/batch`
pub(super) fn batch() -> Call {
    Call {
        id: "saveProgressBatch",
        tag: "save",
        summary: "Save what happened offline",
        about: "204 once all items are kept. If one is bad nothing is stored, and the 422 points to each fault. An item is \
                ordered by when it happened, which is the moment of its arrival less `sent_at_ms − event_time_ms`: so it \
                never replaces a position that is newer. Items older than 30 days (or what the server has been told) are \
                dropped, which is no fault. At most 131,072 bytes.",
        parameters: Vec::new(),
        body: body(wire::BATCH, LATE),
        success: ("204", json!({"description": "All are kept, but for those that are too old."})),
        refusals: vec![ANY, PERSONAL, CHANGE, BODY],
    }
}

/// `GET /api/v1/stream/progress/{movie_id}`
pub(super) fn title() -> Call {
    Call {
        id: "getProgress",
        tag: "resume",
        summary: "Where to resume a title",
        about: "A title never watched is no error: its state is `none`, its position 0.",
        parameters: vec![movie_id()],
        body: None,
        success: ("200", personal(wire::BOOKMARK, "The title's bookmark.", &bookmark())),
        refusals: vec![ANY, PERSONAL, ID],
    }
}

/// `GET /api/v1/stream/progress`
pub(super) fn titles() -> Call {
    let example = ListAnswer { items: vec![bookmark()], next_cursor: Some(CURSOR.to_owned()) };
    let states = StateFilter::NAMES.map(|(name, _)| name);
    let default = StateFilter::NAMES.iter().find(|(_, filter)| *filter == StateFilter::DEFAULT).map(|(name, _)| name);
    let limit = json!({"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT});
    let state = json!({"type": "string", "enum": states, "default": default});
    let movies = json!({"type": "array", "items": wire::reference(wire::CANONICAL_ID), "minItems": 1,
                        "maxItems": MOVIES_MAX});
    Call {
        id: "listProgress",
        tag: "resume",
        summary: "What was watched last, or a set of titles",
        about: "The continue-watching row, newest first, page by page. A title that gets a beat while one pages moves to the \
                front: it may be missed on later pages, but is never repeated. A list shows the newest 10,000 titles.\n\n\
                With `movie_id`, which goes with none of the others: the bookmarks of these titles, in this order, on one \
                page.",
        parameters: vec![
            in_query("limit", "Titles on a page.", limit),
            in_query("state", "Which titles; `in_progress` needs a position above 0.", state),
            in_query(
                "cursor",
                "The `next_cursor` of the page before, for the same user and state.",
                json!({"type": "string"}),
            ),
            in_query("movie_id", "The titles of a set, one by one: `movie_id=1&movie_id=2`.", movies),
        ],
        body: None,
        success: ("200", personal(wire::LIST, "A page.", &example)),
        refusals: vec![ANY, PERSONAL, QUERY],
    }
}

/// `DELETE /api/v1/stream/progress/{movie_id}`
pub(super) fn forget_title() -> Call {
    Call {
        id: "forgetTitle",
        tag: "forget",
        summary: "Forget a title",
        about: "The row is gone once the 204 is there. Forgetting what is not there is 204 too.",
        parameters: vec![movie_id()],
        body: None,
        success: ("204", json!({"description": "Forgotten."})),
        refusals: vec![ANY, PERSONAL, CHANGE, ID],
    }
}

/// `DELETE /api/v1/stream/progress`
pub(super) fn forget_user() -> Call {
    Call {
        id: "forgetUser",
        tag: "forget",
        summary: "Forget a user",
        about: "All titles of the token's user: erasure.",
        parameters: Vec::new(),
        body: None,
        success: ("204", json!({"description": "Forgotten."})),
        refusals: vec![ANY, PERSONAL, CHANGE],
    }
}

/// `GET /openapi.json`
pub(super) fn document() -> Call {
    let answer = json!({
        "description": "OpenAPI 3.1.",
        "headers": {"Cache-Control": text("Always `no-cache`.")},
        "content": {JSON: {"schema": {"type": "object"}}},
    });
    Call {
        id: "describe",
        tag: "about",
        summary: "This document",
        about: "Needs no token.",
        parameters: Vec::new(),
        body: None,
        success: ("200", answer),
        refusals: vec![ANY],
    }
}

/// The title that a path ends in.
fn movie_id() -> Value {
    json!({"name": "movie_id", "in": "path", "required": true, "schema": wire::reference(wire::CANONICAL_ID),
           "description": "The title. Any other spelling of an id is 404.", "example": "42"})
}

fn in_query(name: &str, about: &str, schema: Value) -> Value {
    json!({"name": name, "in": "query", "description": about, "schema": schema})
}

fn body(schema: &str, example: &str) -> Option<Value> {
    let example: Value = serde_json::from_str(example).expect("an example is JSON");
    Some(json!({"required": true, "content": {JSON: {"schema": wire::reference(schema), "example": example}}}))
}

/// A 200 for nobody else.
fn personal(schema: &str, about: &str, example: &impl Serialize) -> Value {
    json!({
        "description": about,
        "headers": {"Cache-Control": text("Always `no-store`.")},
        "content": {JSON: {"schema": wire::reference(schema), "example": example}},
    })
}

/// The body of a heartbeat.
const HEARTBEAT: &str = r#"{"movie_id": 42, "position_seconds": 1234.5, "duration_seconds": 7200}"#;

/// The body of a batch.
const LATE: &str = r#"{"sent_at_ms": 1767225600000, "items": [
    {"movie_id": "8", "position_seconds": 96, "event_time_ms": 1767225520000},
    {"movie_id": "8", "position_seconds": 100, "event_time_ms": 1767225524000},
    {"movie_id": "9", "position_seconds": 4, "duration_seconds": 90, "event_time_ms": 1767225590000}]}"#;

/// As long as they are.
const CURSOR: &str = "NDkbHA0AAQAHAAAAAAAAAHcDFS1PYOox";

fn bookmark() -> BookmarkAnswer {
    let bookmark = Bookmark {
        movie: MovieId(42),
        position: Position::from_seconds(1234.5).expect("it is in range"),
        duration: MediaDuration::from_seconds(7200.0).ok(),
        write_time: WriteTime::from_micros(1_767_225_600_123_456),
    };
    BookmarkAnswer::of(&bookmark, &Rules::default())
}

/// The problem as it may look.
pub(super) fn example_of(problem: &Problem) -> Problem {
    match problem {
        Problem::InvalidRequest(_) => Problem::InvalidRequest(vec![Fault {
            pointer: "/position_seconds".to_owned(),
            code: "out-of-range",
            detail: "A position is 0 to 1,000,000 seconds.",
        }]),
        problem => problem.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Batch, Heartbeat};

    #[test]
    fn the_examples_of_requests_are_good_ones() {
        assert!(Heartbeat::parse(HEARTBEAT.as_bytes()).is_ok());
        assert_eq!(Batch::parse(LATE.as_bytes()).unwrap().items.len(), 3);
    }

    #[test]
    fn the_examples_of_faults_are_real_ones() {
        let Problem::InvalidRequest(shown) = example_of(&Problem::InvalidRequest(Vec::new())) else {
            panic!("an example of another problem");
        };
        let body = HEARTBEAT.replace("1234.5", "-1");
        assert_eq!(Heartbeat::parse(body.as_bytes()), Err(Problem::InvalidRequest(shown)));
    }
}
