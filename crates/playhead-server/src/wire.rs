//! Every request and answer of the HTTP contract, as JSON and as query: the only serde for HTTP.
//!
//! **The promise.** What parses is valid: ids, positions and durations are the types of `playhead_core`. What does not
//! parse is either no JSON ([`Problem::MalformedJson`]) or JSON that says something else, with one fault for each
//! field that is wrong ([`Problem::InvalidRequest`]). No answer repeats what a client sent.
//!
//! **Two passes.** The first, on the hot path, takes the good bodies: it borrows, allocates nothing, and stops at the
//! first fault. Only after it has failed does a second one collect the faults. Both check that the whole body is UTF-8
//! beforehand, since a JSON parser skips that check in fields it ignores, and both accept objects only, since a derived
//! struct would also take an array.
//!
//! **The limits.** The caller bounds the body. Time is linear in it; nesting is followed 128 deep in the fields that
//! count and not at all in others.
//!
//! Here are the heartbeat, the queries and the answers; [`batch`] is the batch's body, [`faults`] the second pass.

mod batch;
mod faults;

pub(crate) use batch::{Batch, BatchItem, ITEMS_MAX};
pub(crate) use faults::Fault;

use crate::problem::Problem;
use faults::{DURATION_SECONDS, MOVIE_ID, POSITION_SECONDS, Place};
use playhead_core::{Bookmark, MediaDuration, MovieId, Position, Rules, State, WriteTime};
use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize as DeriveDeserialize, Serialize};
use std::fmt;

/// The body of `POST /api/v1/stream/progress`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Heartbeat {
    pub(crate) movie: MovieId,
    pub(crate) position: Position,
    pub(crate) duration: Option<MediaDuration>,
}

impl Heartbeat {
    /// Parses a body.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Problem> {
        let text = std::str::from_utf8(body).map_err(|_| Problem::MalformedJson)?;
        serde_json::from_str(text).map_err(|_| explain(text))
    }
}

#[derive(DeriveDeserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Field {
    MovieId,
    PositionSeconds,
    DurationSeconds,
    #[serde(other)]
    Ignored,
}

impl<'de> Deserialize<'de> for Heartbeat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Heartbeat;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Heartbeat, A::Error> {
                let (mut movie, mut position, mut duration) = (None, None, None);
                while let Some(field) = map.next_key()? {
                    let is_duplicate = match field {
                        Field::MovieId => movie.replace(map.next_value::<Id>()?).is_some(),
                        Field::PositionSeconds => position.replace(map.next_value::<Number>()?).is_some(),
                        Field::DurationSeconds => duration.replace(map.next_value::<Option<Number>>()?).is_some(),
                        Field::Ignored => {
                            map.next_value::<IgnoredAny>()?;
                            false
                        }
                    };
                    if is_duplicate {
                        return Err(de::Error::custom("a duplicate field"));
                    }
                }
                let Id(movie) = movie.ok_or_else(|| de::Error::missing_field("movie_id"))?;
                let Number(position) = position.ok_or_else(|| de::Error::missing_field("position_seconds"))?;
                let position = Position::from_seconds(position).map_err(de::Error::custom)?;
                let duration = match duration.flatten() {
                    Some(Number(seconds)) => Some(MediaDuration::from_seconds(seconds).map_err(de::Error::custom)?),
                    None => None,
                };
                Ok(Heartbeat { movie, position, duration })
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// An id as a JSON integer or as a canonical decimal string.
struct Id(MovieId);

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Spelling;
        impl Visitor<'_> for Spelling {
            type Value = Id;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an id")
            }

            fn visit_i64<E: de::Error>(self, id: i64) -> Result<Id, E> {
                Ok(Id(MovieId(id)))
            }

            fn visit_u64<E: de::Error>(self, id: u64) -> Result<Id, E> {
                i64::try_from(id).map(|id| Id(MovieId(id))).map_err(E::custom)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Id, E> {
                text.parse().map(Id).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Spelling)
    }
}

/// A JSON number.
struct Number(f64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Kind;
        impl Visitor<'_> for Kind {
            type Value = Number;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a number")
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Number, E> {
                Ok(Number(number))
            }

            // Above 2^53 the nearest double is as good: every bound on a number lies far below.
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Number, E> {
                Ok(Number(number as f64))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Number, E> {
                Ok(Number(number as f64))
            }
        }
        deserializer.deserialize_any(Kind)
    }
}

/// What a heartbeat should be.
static HEARTBEAT: Place = Place::Object(&[MOVIE_ID, POSITION_SECONDS, DURATION_SECONDS]);

/// The second pass: what is wrong with a body that did not parse.
fn explain(text: &str) -> Problem {
    match faults::see(text, &HEARTBEAT) {
        Ok(seen) => Problem::InvalidRequest(seen.faults(&HEARTBEAT)),
        Err(problem) => problem,
    }
}

/// An error answer (RFC 9457).
#[derive(Serialize)]
pub(crate) struct ProblemAnswer<'a> {
    #[serde(rename = "type")]
    pub(crate) kind: &'a str,
    pub(crate) title: &'a str,
    pub(crate) status: u16,
    pub(crate) detail: &'a str,
    #[serde(skip_serializing_if = "<[Fault]>::is_empty")]
    pub(crate) errors: &'a [Fault],
}

/// A bookmark as viewers see it, with the rules applied.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct BookmarkAnswer {
    /// A string: JavaScript loses integers above 2^53.
    movie_id: String,
    position_seconds: f64,
    resume_position_seconds: f64,
    duration_seconds: Option<f64>,
    updated_at: Option<String>,
    state: &'static str,
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
            state: state_name(progress.state),
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
            state: state_name(State::None),
        }
    }
}

fn state_name(state: State) -> &'static str {
    match state {
        State::None => "none",
        State::InProgress => "in_progress",
        State::Completed => "completed",
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
    /// Null exactly when nothing follows.
    pub(crate) next_cursor: Option<String>,
}

/// Which states a list shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StateFilter {
    InProgress,
    Completed,
    All,
}

/// The query of `GET /api/v1/stream/progress`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum TitlesQuery {
    /// A page of what was watched.
    List(ListQuery),
    /// These titles, in this order, 1 to [`MOVIES_MAX`].
    Set(Vec<MovieId>),
}

/// Which page of what was watched.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ListQuery {
    pub(crate) limit: usize,
    pub(crate) state: StateFilter,
    /// As it came; its meaning is [`crate::resume`]'s.
    pub(crate) cursor: Option<String>,
}

/// Titles on a page if the query does not say.
const LIMIT_DEFAULT: usize = 20;
/// The most titles on a page.
pub(crate) const LIMIT_MAX: usize = 100;
/// The most titles that a query names.
pub(crate) const MOVIES_MAX: usize = 100;

impl TitlesQuery {
    /// Parses the decoded pairs of a query. Unknown parameters are ignored; known ones may occur once, but for
    /// `movie_id`, which goes with no other.
    pub(crate) fn parse(pairs: Vec<(String, String)>) -> Result<Self, Problem> {
        let (mut limit, mut state, mut cursor) = (None, None, None);
        let mut movies = Vec::new();
        for (name, value) in pairs {
            let is_duplicate = match name.as_str() {
                "limit" => limit.replace(parse_limit(&value)?).is_some(),
                "state" => state.replace(parse_state(&value)?).is_some(),
                "cursor" => cursor.replace(value).is_some(),
                "movie_id" => {
                    movies.push(value.parse().map_err(|_| Problem::InvalidQuery)?);
                    false
                }
                _ => false,
            };
            if is_duplicate {
                return Err(Problem::InvalidQuery);
            }
        }
        if movies.is_empty() {
            let limit = limit.unwrap_or(LIMIT_DEFAULT);
            return Ok(Self::List(ListQuery { limit, state: state.unwrap_or(StateFilter::InProgress), cursor }));
        }
        let is_list_too = limit.is_some() || state.is_some() || cursor.is_some();
        if is_list_too || movies.len() > MOVIES_MAX { Err(Problem::InvalidQuery) } else { Ok(Self::Set(movies)) }
    }
}

fn parse_limit(text: &str) -> Result<usize, Problem> {
    let limit = text.parse().map_err(|_| Problem::InvalidQuery)?;
    // The standard parser also takes a plus sign.
    let is_valid = (1..=LIMIT_MAX).contains(&limit) && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_valid { Ok(limit) } else { Err(Problem::InvalidQuery) }
}

fn parse_state(text: &str) -> Result<StateFilter, Problem> {
    match text {
        "in_progress" => Ok(StateFilter::InProgress),
        "completed" => Ok(StateFilter::Completed),
        "all" => Ok(StateFilter::All),
        _ => Err(Problem::InvalidQuery),
    }
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
    use proptest::prelude::*;

    fn heartbeat(movie: i64, position: f64, duration: Option<f64>) -> Heartbeat {
        Heartbeat {
            movie: MovieId(movie),
            position: Position::from_seconds(position).unwrap(),
            duration: duration.map(|seconds| MediaDuration::from_seconds(seconds).unwrap()),
        }
    }

    #[test]
    fn good_bodies_parse() {
        let cases = [
            (r#"{"movie_id": 42, "position_seconds": 1234.5}"#, heartbeat(42, 1234.5, None)),
            (r#"{"position_seconds":7,"movie_id":"-7","duration_seconds":90}"#, heartbeat(-7, 7.0, Some(90.0))),
            (r#"{"movie_id":"9223372036854775807","position_seconds":0}"#, heartbeat(i64::MAX, 0.0, None)),
            (r#"{"movie_id":-9223372036854775808,"position_seconds":1e6}"#, heartbeat(i64::MIN, 1e6, None)),
            (r#"{"movie_id":1,"position_seconds":-0.0,"duration_seconds":null}"#, heartbeat(1, 0.0, None)),
            (r#"{"movie_id":1,"position_seconds":1e-320}"#, heartbeat(1, 0.0, None)),
            (r#"{"movie_id":1,"position_seconds":2,"user_id":9,"x":{"movie_id":[]}}"#, heartbeat(1, 2.0, None)),
            ("\r\n\t {\"movie\\u005fid\":\"\\u0034\",\"position_seconds\":1} ", heartbeat(4, 1.0, None)),
        ];
        for (body, expected) in cases {
            assert_eq!(Heartbeat::parse(body.as_bytes()), Ok(expected), "{body}");
        }
        let nested = format!(r#"{{"movie_id":1,"position_seconds":2,"x":{}{}}}"#, "[".repeat(1500), "]".repeat(1500));
        assert_eq!(Heartbeat::parse(nested.as_bytes()), Ok(heartbeat(1, 2.0, None)));
    }

    #[test]
    fn what_is_no_json_is_malformed() {
        let good = r#"{"movie_id": 42, "position_seconds": 1234.5, "duration_seconds": 7200}"#;
        for end in 0..good.len() {
            assert_eq!(Heartbeat::parse(&good.as_bytes()[..end]), Err(Problem::MalformedJson), "{end}");
        }
        let nested = format!(r#"{{"movie_id":{}{}}}"#, "[".repeat(1500), "]".repeat(1500));
        let cases: [&[u8]; 18] = [
            b"   ",
            b"{}{}",
            b"[1,",
            br#"{"movie_id":1,"position_seconds":2,}"#,
            br#"{"movie_id":1,"position_seconds":2} // so"#,
            b"\xEF\xBB\xBF{\"movie_id\":1,\"position_seconds\":2}",
            b"{\"movie_id\":1,\"position_seconds\":2,\"x\":\"\xFF\"}",
            b"{\"movie_id\":1,\"position_seconds\":2,\"\xC0\xAF\":1}",
            br#"{"movie_id":"\ud800","position_seconds":2}"#,
            b"{\"movie_id\":\"1\n\",\"position_seconds\":2}",
            br#"{"movie_id":1,"position_seconds":NaN}"#,
            br#"{"movie_id":true,"position_seconds":NaN}"#,
            br#"{"movie_id":01,"position_seconds":2}"#,
            br#"{"movie_id":1,"position_seconds":.5}"#,
            br#"{"movie_id":1,"position_seconds":+1}"#,
            br#"{"movie_id":1,"position_seconds":1e99999}"#,
            br#"{'movie_id':1,"position_seconds":2}"#,
            nested.as_bytes(),
        ];
        for body in cases {
            assert_eq!(Heartbeat::parse(body), Err(Problem::MalformedJson), "{:?}", String::from_utf8_lossy(body));
        }
    }

    /// Checks that a body is refused with exactly these (pointer, code).
    fn check_faults(body: &str, expected: &[(&str, &str)]) {
        let Err(Problem::InvalidRequest(faults)) = Heartbeat::parse(body.as_bytes()) else {
            panic!("not refused as invalid: {body}");
        };
        let faults: Vec<_> = faults.iter().map(|fault| (fault.pointer.as_str(), fault.code)).collect();
        assert_eq!(faults, expected, "{body}");
    }

    #[test]
    fn what_is_no_heartbeat_is_invalid_with_a_fault_for_each_field() {
        for body in ["[]", "[7, 5.0]", "\"text\"", "7", "null", "true"] {
            check_faults(body, &[("", "wrong-type")]);
        }
        check_faults("{}", &[("/movie_id", "missing"), ("/position_seconds", "missing")]);
        check_faults(
            r#"{"movie_id":"x","position_seconds":-1,"duration_seconds":"1"}"#,
            &[("/movie_id", "invalid-id"), ("/position_seconds", "out-of-range"), ("/duration_seconds", "wrong-type")],
        );
        check_faults(r#"{"movie_id":1,"movie_id":1,"position_seconds":2}"#, &[("/movie_id", "duplicate")]);
        check_faults(
            r#"{"movie_id":1,"position_seconds":2,"duration_seconds":null,"duration_seconds":3}"#,
            &[("/duration_seconds", "duplicate")],
        );
        for value in ["null", "true", "[]", "{}", "[1]"] {
            check_faults(&format!(r#"{{"movie_id":{value},"position_seconds":2}}"#), &[("/movie_id", "wrong-type")]);
            let body = format!(r#"{{"movie_id":1,"position_seconds":{value}}}"#);
            check_faults(&body, &[("/position_seconds", "wrong-type")]);
            if value != "null" {
                let body = format!(r#"{{"movie_id":1,"position_seconds":2,"duration_seconds":{value}}}"#);
                check_faults(&body, &[("/duration_seconds", "wrong-type")]);
            }
        }
    }

    #[test]
    fn ids_and_numbers_out_of_range_are_invalid() {
        let ids = [
            "9223372036854775808",
            "-9223372036854775809",
            "1.5",
            "1e3",
            "1.0",
            "-0",
            "18446744073709551616",
            r#""""#,
            r#"" 42""#,
            r#""+42""#,
            r#""042""#,
            r#""-0""#,
            r#""४२""#,
            r#""1e3""#,
            r#""9223372036854775808""#,
        ];
        for id in ids {
            check_faults(&format!(r#"{{"movie_id":{id},"position_seconds":2}}"#), &[("/movie_id", "invalid-id")]);
        }
        for number in ["-1", "-0.001", "1000000.001", "1e308", "18446744073709551616", "-1e-320"] {
            let body = format!(r#"{{"movie_id":1,"position_seconds":{number}}}"#);
            check_faults(&body, &[("/position_seconds", "out-of-range")]);
        }
        for text in [r#""12""#, r#""NaN""#] {
            let body = format!(r#"{{"movie_id":1,"position_seconds":{text}}}"#);
            check_faults(&body, &[("/position_seconds", "wrong-type")]);
        }
        for number in ["0", "-0.0", "-1", "1e308", "1e-320"] {
            let body = format!(r#"{{"movie_id":1,"position_seconds":1,"duration_seconds":{number}}}"#);
            check_faults(&body, &[("/duration_seconds", "out-of-range")]);
        }
    }

    #[test]
    fn queries_are_strict_about_what_they_know() {
        let parse = |pairs: &[(&str, &str)]| {
            TitlesQuery::parse(pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect())
        };
        let default = ListQuery { limit: 20, state: StateFilter::InProgress, cursor: None };
        assert_eq!(parse(&[]), Ok(TitlesQuery::List(default)));
        assert_eq!(
            parse(&[("limit", "100"), ("state", "all"), ("cursor", "x"), ("other", "1"), ("other", "2")]),
            Ok(TitlesQuery::List(ListQuery { limit: 100, state: StateFilter::All, cursor: Some("x".to_owned()) }))
        );
        assert_eq!(
            parse(&[("movie_id", "2"), ("x", "y"), ("movie_id", "-1"), ("movie_id", "2")]),
            Ok(TitlesQuery::Set([2, -1, 2].map(MovieId).to_vec()))
        );
        assert!(parse(&[("movie_id", "2"); 100]).is_ok());
        let bad: [&[(&str, &str)]; 18] = [
            &[("limit", "0")],
            &[("limit", "-1")],
            &[("limit", "+1")],
            &[("limit", "101")],
            &[("limit", "abc")],
            &[("limit", "")],
            &[("limit", "1e9")],
            &[("limit", "18446744073709551616")],
            &[("limit", "5"), ("limit", "5")],
            &[("state", "none")],
            &[("state", "all"), ("state", "all")],
            &[("cursor", "a"), ("cursor", "a")],
            &[("movie_id", "2"); 101],
            &[("movie_id", "2"), ("limit", "5")],
            &[("state", "all"), ("movie_id", "2")],
            &[("movie_id", "2"), ("cursor", "a")],
            &[("movie_id", "")],
            &[("movie_id", "1"), ("movie_id", "02")],
        ];
        for pairs in bad {
            assert_eq!(parse(pairs), Err(Problem::InvalidQuery), "{pairs:?}");
        }
    }

    #[test]
    fn times_carry_microseconds() {
        assert_eq!(rfc3339(WriteTime::from_micros(1_700_000_000_000_005)), "2023-11-14T22:13:20.000005Z");
        assert!(rfc3339(WriteTime::MAX).starts_with("3111-"));
        assert_eq!(rfc3339(WriteTime::MIN), "1970-01-01T00:00:00.000001Z");
    }

    proptest! {
        #[test]
        fn no_body_panics_and_every_refusal_names_a_fault(body in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Err(Problem::InvalidRequest(faults)) = Heartbeat::parse(&body) {
                prop_assert!(!faults.is_empty());
            }
        }

        #[test]
        fn an_edited_body_is_parsed_or_explained(at in 0usize..70, byte: u8) {
            let mut body = br#"{"movie_id": 42, "position_seconds": 1234.5, "duration_seconds": 7200}"#.to_vec();
            let at = at.min(body.len() - 1);
            body[at] = byte;
            if let Err(Problem::InvalidRequest(faults)) = Heartbeat::parse(&body) {
                prop_assert!(!faults.is_empty());
            }
        }
    }
}
