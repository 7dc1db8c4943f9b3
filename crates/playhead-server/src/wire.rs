//! Every request and answer of the HTTP contract, as JSON and as query: the only serde for HTTP.
//!
//! **The promise.** What parses is valid: ids, positions and durations are the types of `playhead_core`. What does not
//! parse is either no JSON (`Problem::MalformedJson`) or JSON that says something else, with one fault for each
//! field that is wrong (`Problem::InvalidRequest`). No answer repeats what a client sent.
//!
//! **Two passes.** The first, on the hot path, takes the good bodies: it borrows, allocates nothing, and stops at the
//! first fault. Only after it has failed does a second one collect the faults. Both check that the whole body is UTF-8
//! beforehand, since a JSON parser skips that check in fields it ignores, and both accept objects only, since a derived
//! struct would also take an array.
//!
//! **The limits.** The caller bounds the body. Time is linear in it; nesting is followed 128 deep in the fields that
//! count and not at all in others.
//!
//! In reading order: [`beat`] is the body of a heartbeat and what a batch shares with it; [`batch`] the body of a batch;
//! [`faults`] the second pass; [`query`] the queries; [`schema`] what all of them look like, for the API's document. Here
//! are the answers.

mod beat;
mod batch;
mod faults;
mod query;
mod schema;

pub(crate) use batch::{Batch, BatchItem, ITEMS_MAX};
pub(crate) use beat::Heartbeat;
pub(crate) use faults::Fault;
pub(crate) use query::{LIMIT_DEFAULT, LIMIT_MAX, ListQuery, MOVIES_MAX, StateFilter, TitlesQuery};
pub(crate) use schema::{BATCH, BOOKMARK, CANONICAL_ID, HEARTBEAT, LIST, PROBLEM, reference, schemas};

use playhead_core::{Bookmark, MediaDuration, MovieId, Rules, State, WriteTime};
use serde::Serialize;

/// An error (RFC 9457).
#[derive(Serialize)]
pub(crate) struct ProblemAnswer<'a> {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) title: &'a str,
    pub(crate) status: u16,
    pub(crate) detail: &'a str,
    #[serde(skip_serializing_if = "<[Fault]>::is_empty")]
    pub(crate) errors: &'a [Fault],
}

/// Where to resume a title.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct BookmarkAnswer {
    /// A string: JavaScript loses integers above 2^53.
    movie_id: String,
    position_seconds: f64,
    resume_position_seconds: f64,
    duration_seconds: Option<f64>,
    updated_at: Option<String>,
    state: StateAnswer,
}

/// Whether a title was watched, and to its end.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum StateAnswer {
    None,
    InProgress,
    Completed,
}

impl From<State> for StateAnswer {
    fn from(state: State) -> Self {
        match state {
            State::None => Self::None,
            State::InProgress => Self::InProgress,
            State::Completed => Self::Completed,
        }
    }
}

impl BookmarkAnswer {
    /// A stored bookmark, seen through the rules.
    pub(crate) fn of(bookmark: &Bookmark, rules: &Rules) -> Self {
        let progress = rules.apply(bookmark);
        Self {
            movie_id: bookmark.movie.to_string(),
            position_seconds: bookmark.position.seconds(),
            resume_position_seconds: progress.resume_position_seconds,
            duration_seconds: bookmark.duration.map(MediaDuration::seconds),
            updated_at: Some(rfc3339(bookmark.write_time)),
            state: progress.state.into(),
        }
    }

    /// A title that was never watched.
    pub(crate) fn none(movie: MovieId) -> Self {
        Self {
            movie_id: movie.to_string(),
            position_seconds: 0.0,
            resume_position_seconds: 0.0,
            duration_seconds: None,
            updated_at: None,
            state: StateAnswer::None,
        }
    }
}

/// RFC 3339 with microseconds.
fn rfc3339(time: WriteTime) -> String {
    i64::try_from(time.micros())
        .ok()
        .and_then(|micros| jiff::Timestamp::from_microsecond(micros).ok())
        .expect("write times end in the year 3111")
        .strftime("%Y-%m-%dT%H:%M:%S.%6fZ")
        .to_string()
}

/// A page of a list, or the titles that were asked for.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct ListAnswer {
    pub(crate) items: Vec<BookmarkAnswer>,
    /// For the next page; null exactly when nothing follows.
    pub(crate) next_cursor: Option<String>,
}

/// What `/readyz` says.
#[derive(Serialize)]
pub(crate) struct ReadinessAnswer {
    pub(crate) status: &'static str,
    /// Why it is not simply `ready`.
    pub(crate) reasons: Vec<String>,
    /// What an acknowledged write survives, where the store knows: `synced`, `periodic` or `unknown`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) durability: Option<&'static str>,
}

/// What `/version` says.
#[derive(Serialize)]
pub(crate) struct VersionAnswer {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
}

/// An answer's bytes.
pub(crate) fn json(answer: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(answer).expect("answers are plain structs, and writing to memory does not fail")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_carry_microseconds() {
        assert_eq!(rfc3339(WriteTime::from_micros(1_700_000_000_000_005)), "2023-11-14T22:13:20.000005Z");
        assert!(rfc3339(WriteTime::MAX).starts_with("3111-"));
        assert_eq!(rfc3339(WriteTime::MIN), "1970-01-01T00:00:00.000001Z");
    }
}
