//! The body of `POST /api/v1/stream/progress/batch`: what a player that was offline has to say.
//!
//! **The promise.** [`Batch::parse`] gives 1 to [`ITEMS_MAX`] items, each valid and with its age, or a problem: one bad
//! item and there is no batch. Ages are differences of the device's own clock ([`age_of_event`]), so it may be wrong by
//! years. `sent_at_ms` may stand before or after the items.

use super::beat::{DurationSeconds, Heartbeat, Id, Object, PositionSeconds};
use super::faults::{self, Complaint, DURATION_SECONDS, Fault, Field, Kind, MOVIE_ID, POSITION_SECONDS, Place, Seen};
use crate::problem::Problem;
use playhead_core::time::age_of_event;
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use serde_json::Value;
use std::fmt;
use std::time::Duration;

/// The most items of a batch. A store takes this many as one group.
pub(crate) const ITEMS_MAX: usize = 500;

/// The largest time: up to here every whole number is a double.
pub(super) const MILLIS_MAX: u64 = 1 << 53;

/// What a batch says.
#[derive(Debug, PartialEq)]
pub(crate) struct Batch {
    pub(crate) items: Vec<BatchItem>,
}

/// One beat of a batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct BatchItem {
    pub(crate) beat: Heartbeat,
    /// How long before the sending it happened.
    pub(crate) age: Duration,
}

impl Batch {
    /// Parses a body.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Problem> {
        let text = std::str::from_utf8(body).map_err(|_| Problem::MalformedJson)?;
        let Ok(Object(BatchBody { sent_at_ms: Millis(sent_at_ms), items: Items(items) })) = serde_json::from_str(text)
        else {
            return Err(explain(text));
        };
        let items = items.into_iter().map(|(beat, Millis(event_time_ms))| {
            age_of_event(sent_at_ms, event_time_ms).map(|age| BatchItem { beat, age })
        });
        items.collect::<Result<_, _>>().map(|items| Self { items }).map_err(|_| explain(text))
    }
}

/// The body as it comes, its times not yet compared.
#[derive(serde::Deserialize)]
struct BatchBody {
    sent_at_ms: Millis,
    items: Items,
}

/// 1 to [`ITEMS_MAX`] items.
struct Items(Vec<(Heartbeat, Millis)>);

impl<'de> Deserialize<'de> for Items {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Items;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Items, A::Error> {
                let mut items = Vec::new();
                while let Some(Object(item)) = list.next_element()? {
                    if items.len() == ITEMS_MAX {
                        return Err(de::Error::custom("too many items"));
                    }
                    let ItemBody { movie_id, position_seconds, duration_seconds, event_time_ms } = item;
                    items.push((Heartbeat::of(movie_id, position_seconds, duration_seconds), event_time_ms));
                }
                if items.is_empty() { Err(de::Error::custom("no items")) } else { Ok(Items(items)) }
            }
        }
        deserializer.deserialize_seq(List)
    }
}

/// A beat as it comes, and when it happened.
#[derive(serde::Deserialize)]
struct ItemBody {
    movie_id: Id,
    position_seconds: PositionSeconds,
    duration_seconds: Option<DurationSeconds>,
    event_time_ms: Millis,
}

/// A moment of the device's clock, in milliseconds: a JSON integer, 0 to 2^53.
struct Millis(u64);

impl<'de> Deserialize<'de> for Millis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Whole;
        impl Visitor<'_> for Whole {
            type Value = Millis;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a time in milliseconds")
            }

            fn visit_u64<E: de::Error>(self, millis: u64) -> Result<Millis, E> {
                if millis <= MILLIS_MAX { Ok(Millis(millis)) } else { Err(E::custom("too late")) }
            }
        }
        deserializer.deserialize_any(Whole)
    }
}

const SENT_AT_MS: usize = 0;
const ITEMS: usize = 1;
const EVENT_TIME_MS: usize = 3;

/// What a batch should be.
pub(super) static BATCH: Place = Place::Object(
    "Batch",
    &[
        Field {
            name: "sent_at_ms",
            is_required: true,
            place: Place::Value(Kind::Millis, check_millis),
            about: "When this is sent, by the device's own clock, which may be wrong by years; set anew for each attempt.",
        },
        Field {
            name: "items",
            is_required: true,
            place: Place::List(&ITEM, ITEMS_MAX),
            about: "What happened, in any order; of two of one title the later one counts.",
        },
    ],
);
static ITEM: Place = Place::Object(
    "BatchItem",
    &[
        MOVIE_ID,
        POSITION_SECONDS,
        DURATION_SECONDS,
        Field {
            name: "event_time_ms",
            is_required: true,
            place: Place::Value(Kind::Millis, check_millis),
            about: "When it happened, by the clock of `sent_at_ms`: before that, or less than 60 s after it.",
        },
    ],
);

fn check_millis(value: &Value) -> Option<Complaint> {
    if !value.is_number() {
        return Some(("wrong-type", "A time is a number of milliseconds."));
    }
    millis(value)
        .is_none()
        .then_some(("out-of-range", "A time is a whole number of milliseconds, 0 to 9,007,199,254,740,992."))
}

fn millis(value: &Value) -> Option<u64> {
    value.as_u64().filter(|millis| *millis <= MILLIS_MAX)
}

/// The second pass: what is wrong with a body that did not parse.
fn explain(text: &str) -> Problem {
    let seen = match faults::see(text, &BATCH) {
        Ok(seen) => seen,
        Err(problem) => return problem,
    };
    let mut faults = seen.faults(&BATCH);
    // A list that is a fault itself is not looked into.
    if !faults.iter().any(|fault| fault.pointer == "/items") {
        faults.extend(events_after_sending(&seen));
    }
    Problem::InvalidRequest(faults)
}

/// The items that happened a minute or more after they were sent.
fn events_after_sending(seen: &Seen) -> Vec<Fault> {
    let time_of = |seen: &Seen, number| match seen.field(number) {
        Some(Seen::Value(value)) => millis(value),
        _ => None,
    };
    let Some(sent_at_ms) = time_of(seen, SENT_AT_MS) else { return Vec::new() };
    let items = seen.field(ITEMS).map(Seen::elements).unwrap_or_default();
    let is_after = |item: &Seen| {
        time_of(item, EVENT_TIME_MS).is_some_and(|event_time_ms| age_of_event(sent_at_ms, event_time_ms).is_err())
    };
    let indices = items.iter().enumerate().filter(|(_, item)| is_after(item)).map(|(index, _)| index);
    indices
        .map(|index| Fault {
            pointer: format!("/items/{index}/event_time_ms"),
            code: "after-sending",
            detail: "An event lies 60 s or more after sent_at_ms: take both from one clock, sent_at_ms anew for each attempt.",
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use playhead_core::{MovieId, Position};
    use proptest::prelude::*;

    fn item(movie: i64, position: f64, age_ms: u64) -> BatchItem {
        let position = Position::from_seconds(position).unwrap();
        let beat = Heartbeat { movie: MovieId(movie), position, duration: None };
        BatchItem { beat, age: Duration::from_millis(age_ms) }
    }

    #[test]
    fn ages_are_differences_of_one_clock_in_either_order_of_fields() {
        let items = r#"[{"movie_id":"1","position_seconds":2,"event_time_ms":4000},
                        {"event_time_ms":69999,"position_seconds":3.5,"movie_id":-1,"x":[[]],"duration_seconds":null}]"#;
        let expected = Ok(Batch { items: vec![item(1, 2.0, 6000), item(-1, 3.5, 0)] });
        assert_eq!(Batch::parse(format!(r#"{{"sent_at_ms":10000,"items":{items}}}"#).as_bytes()), expected);
        assert_eq!(Batch::parse(format!(r#"{{"items":{items},"y":"z","sent_at_ms":10000}}"#).as_bytes()), expected);
        let years =
            r#"{"sent_at_ms":9007199254740992,"items":[{"movie_id":1,"position_seconds":2,"event_time_ms":0}]}"#;
        assert_eq!(Batch::parse(years.as_bytes()), Ok(Batch { items: vec![item(1, 2.0, 1 << 53)] }));
    }

    fn check_faults(body: &str, expected: &[(&str, &str)]) {
        let Err(Problem::InvalidRequest(faults)) = Batch::parse(body.as_bytes()) else {
            panic!("not refused as invalid: {body}");
        };
        let faults: Vec<_> = faults.iter().map(|fault| (fault.pointer.as_str(), fault.code)).collect();
        assert_eq!(faults, expected, "{body}");
    }

    #[test]
    fn each_fault_has_its_pointer() {
        let good = r#"{"movie_id":1,"position_seconds":2,"event_time_ms":5}"#;
        check_faults("[]", &[("", "wrong-type")]);
        check_faults("{}", &[("/sent_at_ms", "missing"), ("/items", "missing")]);
        check_faults(r#"{"sent_at_ms":5,"items":[]}"#, &[("/items", "empty")]);
        check_faults(r#"{"sent_at_ms":5,"items":{"0":1}}"#, &[("/items", "wrong-type")]);
        check_faults(&format!(r#"{{"sent_at_ms":5,"items":[{good}],"items":[{good}]}}"#), &[("/items", "duplicate")]);
        check_faults(
            &format!(r#"{{"sent_at_ms":5,"items":[{}]}}"#, vec!["{}"; ITEMS_MAX + 1].join(",")),
            &[("/items", "too-many")],
        );
        check_faults(
            &format!(r#"{{"sent_at_ms":5,"items":[{good},[1,2],7,null,{{"movie_id":"x","event_time_ms":1.5}}]}}"#),
            &[
                ("/items/1", "wrong-type"),
                ("/items/2", "wrong-type"),
                ("/items/3", "wrong-type"),
                ("/items/4/movie_id", "invalid-id"),
                ("/items/4/position_seconds", "missing"),
                ("/items/4/event_time_ms", "out-of-range"),
            ],
        );
        check_faults(
            r#"{"sent_at_ms":5,"items":[{"movie_id":1,"position_seconds":2,"event_time_ms":60005}]}"#,
            &[("/items/0/event_time_ms", "after-sending")],
        );
        for (time, code) in [
            ("-1", "out-of-range"),
            ("9007199254740993", "out-of-range"),
            ("1e3", "out-of-range"),
            ("\"5\"", "wrong-type"),
            ("null", "wrong-type"),
        ] {
            check_faults(&format!(r#"{{"sent_at_ms":{time},"items":[{good}]}}"#), &[("/sent_at_ms", code)]);
        }
    }

    #[test]
    fn what_is_no_json_or_too_deep_is_malformed_and_what_is_ignored_may_be_deep() {
        let deep = "[".repeat(10_000) + &"]".repeat(10_000);
        let digits = "1".repeat(10_000);
        let good = r#"{"movie_id":1,"position_seconds":2,"event_time_ms":5"#;
        for body in [
            format!(r#"{{"sent_at_ms":{deep},"items":[{good}}}]}}"#),
            format!(r#"{{"sent_at_ms":5,"items":{deep}}}"#),
            format!(r#"{{"sent_at_ms":5,"items":[{{"movie_id":{deep},"position_seconds":2,"event_time_ms":5}}]}}"#),
            format!(r#"{{"sent_at_ms":{digits},"items":[{good}}}]}}"#),
            format!(r#"{{"sent_at_ms":5,"items":[{{"movie_id":{digits},"position_seconds":2,"event_time_ms":5}}]}}"#),
            format!(r#"{{"sent_at_ms":5,"items":[{{"movie_id":1,"position_seconds":{digits},"event_time_ms":5}}]}}"#),
            format!(r#"{{"sent_at_ms":5,"items":[{good}}},]}}"#),
            format!(r#"{{"sent_at_ms":5,"items":[{good}}}]}}x"#),
        ] {
            assert_eq!(Batch::parse(body.as_bytes()), Err(Problem::MalformedJson), "{}", &body[..60]);
        }
        let ignored = format!(r#"{{"sent_at_ms":5,"x":{deep},"items":[{good},"y":{deep}}}]}}"#);
        assert_eq!(Batch::parse(ignored.as_bytes()), Ok(Batch { items: vec![item(1, 2.0, 0)] }));
    }

    proptest! {
        #[test]
        fn an_edited_batch_is_parsed_or_explained(at in 0usize..200, byte: u8) {
            let mut body = br#"{"sent_at_ms": 60010, "items": [{"movie_id": 1, "position_seconds": 2.5, "event_time_ms": 7},
                {"movie_id": "2", "position_seconds": 3, "duration_seconds": 9, "event_time_ms": 8}]}"#.to_vec();
            let at = at.min(body.len() - 1);
            body[at] = byte;
            match Batch::parse(&body) {
                Ok(batch) => prop_assert!(!batch.items.is_empty()),
                Err(Problem::InvalidRequest(faults)) => prop_assert!(!faults.is_empty()),
                Err(problem) => prop_assert_eq!(problem, Problem::MalformedJson),
            }
        }
    }
}
