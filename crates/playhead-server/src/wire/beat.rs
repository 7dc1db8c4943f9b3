//! A beat: where a viewer is in a title. The body of a heartbeat, and the fields that an item of a batch shares with it.
//!
//! Each field is a type that reads itself and takes only what is valid. [`Object`] reads the structs that serde derives,
//! which alone would also take an array.

use super::faults::{self, DURATION_SECONDS, MOVIE_ID, POSITION_SECONDS, Place};
use crate::problem::Problem;
use playhead_core::{MediaDuration, MovieId, Position};
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use std::fmt;
use std::marker::PhantomData;

/// What `POST /api/v1/stream/progress` says.
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
        match serde_json::from_str(text) {
            Ok(Object(HeartbeatBody { movie_id, position_seconds, duration_seconds })) => {
                Ok(Self::of(movie_id, position_seconds, duration_seconds))
            }
            Err(_) => Err(explain(text)),
        }
    }

    /// Puts the fields together.
    pub(super) fn of(movie: Id, position: PositionSeconds, duration: Option<DurationSeconds>) -> Self {
        Self { movie: movie.0, position: position.0, duration: duration.map(|DurationSeconds(duration)| duration) }
    }
}

/// The body as it comes.
#[derive(serde::Deserialize)]
struct HeartbeatBody {
    movie_id: Id,
    position_seconds: PositionSeconds,
    duration_seconds: Option<DurationSeconds>,
}

/// A struct that is read from an object only.
pub(super) struct Object<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(Fields(PhantomData))
    }
}

/// An id as a JSON integer or as a canonical decimal string.
pub(super) struct Id(MovieId);

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

/// A position: a JSON number of seconds.
pub(super) struct PositionSeconds(Position);

impl<'de> Deserialize<'de> for PositionSeconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Number(seconds) = Number::deserialize(deserializer)?;
        Position::from_seconds(seconds).map(Self).map_err(de::Error::custom)
    }
}

/// A duration: a JSON number of seconds.
pub(super) struct DurationSeconds(MediaDuration);

impl<'de> Deserialize<'de> for DurationSeconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Number(seconds) = Number::deserialize(deserializer)?;
        MediaDuration::from_seconds(seconds).map(Self).map_err(de::Error::custom)
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
pub(super) static HEARTBEAT: Place = Place::Object("Heartbeat", &[MOVIE_ID, POSITION_SECONDS, DURATION_SECONDS]);

/// The second pass: what is wrong with a body that did not parse.
fn explain(text: &str) -> Problem {
    match faults::see(text, &HEARTBEAT) {
        Ok(seen) => Problem::InvalidRequest(seen.faults(&HEARTBEAT)),
        Err(problem) => problem,
    }
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
