//! The second pass over a body that did not parse: what is wrong with it, field by field.
//!
//! Called by the parsers of [`crate::wire`] after a failure, never on the way of a good request. Each describes its body
//! as a [`Place`]; [`see`] reads the text along it, [`Seen::faults`] compares.
//!
//! **The promise.** Text that is no JSON, nested deeper than 128 in a place that counts, or with a number there that no
//! double can hold, is [`Problem::MalformedJson`]. All else that is wrong is a [`Fault`] with its pointer, one for each
//! field. **The limits.** Time is linear in the text. Of a list that is too long only the length is a fault, so an answer
//! has at most a few hundred of them; what lies in unknown fields is skipped and not kept.

use crate::problem::Problem;
use playhead_core::{MediaDuration, MovieId, Position};
use serde::Serialize;
use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use std::fmt;

/// One thing that is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Fault {
    /// JSON pointer to it; to where it should be, if a field is missing.
    pub(crate) pointer: String,
    /// For programs.
    pub(crate) code: &'static str,
    /// For people.
    pub(crate) detail: &'static str,
}

/// The code and detail of what is wrong with a value.
pub(super) type Complaint = (&'static str, &'static str);

/// What a body should hold at one place. The API's document is made of the same ([`super::schema`]).
pub(super) enum Place {
    /// A value of a kind, that this rule finds nothing wrong with.
    Value(Kind, fn(&Value) -> Option<Complaint>),
    /// An object, by its name in the document, with these fields; others are ignored.
    Object(&'static str, &'static [Field]),
    /// A list of 1 to so many.
    List(&'static Place, usize),
}

/// What a value means.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    MovieId,
    PositionSeconds,
    /// Or null.
    DurationSeconds,
    Millis,
}

/// A known field of an object.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) is_required: bool,
    pub(super) place: Place,
    /// What it is, for people; nothing if its kind says it.
    pub(super) about: &'static str,
}

/// What a body does hold at one place.
pub(super) enum Seen {
    Value(Value),
    /// The known fields, by their number, as often as they occur.
    Object(Vec<(usize, Seen)>),
    /// One element more than is allowed at most.
    List(Vec<Seen>),
    /// Something else than the object or the list that should be here.
    Other,
}

/// Reads a body along a place.
pub(super) fn see(text: &str, place: &Place) -> Result<Seen, Problem> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let seen = place.deserialize(&mut deserializer).map_err(|_| Problem::MalformedJson)?;
    deserializer.end().map_err(|_| Problem::MalformedJson)?;
    Ok(seen)
}

impl<'de> DeserializeSeed<'de> for &Place {
    type Value = Seen;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Seen, D::Error> {
        match self {
            Place::Value(..) => Value::deserialize(deserializer).map(Seen::Value),
            Place::Object(..) | Place::List(..) => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for &Place {
    type Value = Seen;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Seen, A::Error> {
        let Place::Object(_, fields) = self else {
            while map.next_entry::<IgnoredAny, Value>()?.is_some() {}
            return Ok(Seen::Other);
        };
        let mut known = Vec::new();
        while let Some(number) = map.next_key_seed(NumberOf(fields))? {
            match number {
                Some(number) => known.push((number, map.next_value_seed(&fields[number].place)?)),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Seen::Object(known))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Seen, A::Error> {
        let mut elements = Vec::new();
        if let Place::List(element, most) = self {
            while elements.len() <= *most {
                match list.next_element_seed(*element)? {
                    Some(seen) => elements.push(seen),
                    None => return Ok(Seen::List(elements)),
                }
            }
        }
        while list.next_element::<Value>()?.is_some() {}
        Ok(if matches!(self, Place::List(..)) { Seen::List(elements) } else { Seen::Other })
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Seen, E> {
        Ok(Seen::Other)
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Seen, E> {
        Ok(Seen::Other)
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Seen, E> {
        Ok(Seen::Other)
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Seen, E> {
        Ok(Seen::Other)
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<Seen, E> {
        Ok(Seen::Other)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Seen, E> {
        Ok(Seen::Other)
    }
}

/// Reads a field's name and gives its number.
struct NumberOf(&'static [Field]);

impl<'de> DeserializeSeed<'de> for NumberOf {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<usize>, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for NumberOf {
    type Value = Option<usize>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a field's name")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Option<usize>, E> {
        Ok(self.0.iter().position(|field| field.name == name))
    }
}

impl Seen {
    /// Everything that is not as it should be at this place.
    pub(super) fn faults(&self, place: &Place) -> Vec<Fault> {
        let mut faults = Vec::new();
        self.find_faults(place, String::new(), &mut faults);
        faults
    }

    fn find_faults(&self, place: &Place, pointer: String, faults: &mut Vec<Fault>) {
        let complaint = match (place, self) {
            (Place::Value(_, rule), Seen::Value(value)) => rule(value),
            (Place::Object(_, fields), Seen::Object(_)) => {
                for (number, field) in fields.iter().enumerate() {
                    self.find_field_faults(number, field, &pointer, faults);
                }
                None
            }
            (Place::List(..), Seen::List(elements)) if elements.is_empty() => {
                Some(("empty", "This list must not be empty."))
            }
            (Place::List(_, most), Seen::List(elements)) if elements.len() > *most => {
                Some(("too-many", "This list is too long."))
            }
            (Place::List(element, _), Seen::List(elements)) => {
                for (index, seen) in elements.iter().enumerate() {
                    seen.find_faults(element, format!("{pointer}/{index}"), faults);
                }
                None
            }
            (Place::List(..), _) => Some(("wrong-type", "This must be a list.")),
            _ => Some(("wrong-type", "This must be an object.")),
        };
        if let Some((code, detail)) = complaint {
            faults.push(Fault { pointer, code, detail });
        }
    }

    fn find_field_faults(&self, number: usize, field: &Field, pointer: &str, faults: &mut Vec<Fault>) {
        let pointer = format!("{pointer}/{}", field.name);
        let mut values = self.all(number);
        let (code, detail) = match (values.next(), values.next()) {
            (None, _) if field.is_required => ("missing", "This field is required."),
            (None, _) => return,
            (Some(_), Some(_)) => ("duplicate", "This field occurs more than once."),
            (Some(seen), None) => return seen.find_faults(&field.place, pointer, faults),
        };
        faults.push(Fault { pointer, code, detail });
    }

    fn all(&self, number: usize) -> impl Iterator<Item = &Seen> {
        let fields = if let Seen::Object(fields) = self { fields.as_slice() } else { &[] };
        fields.iter().filter(move |(found, _)| *found == number).map(|(_, seen)| seen)
    }

    /// The field of an object with this number, if it occurs.
    pub(super) fn field(&self, number: usize) -> Option<&Seen> {
        self.all(number).next()
    }

    /// The elements of a list.
    pub(super) fn elements(&self) -> &[Seen] {
        if let Seen::List(elements) = self { elements } else { &[] }
    }
}

/// The fields that say where a viewer is.
pub(super) const MOVIE_ID: Field =
    Field { name: "movie_id", is_required: true, place: Place::Value(Kind::MovieId, check_id), about: "" };
pub(super) const POSITION_SECONDS: Field = Field {
    name: "position_seconds",
    is_required: true,
    place: Place::Value(Kind::PositionSeconds, check_position),
    about: "",
};
pub(super) const DURATION_SECONDS: Field = Field {
    name: "duration_seconds",
    is_required: false,
    place: Place::Value(Kind::DurationSeconds, check_duration),
    about: "The title's length; null or absent if it is not known. A write replaces the whole row, so send it with every \
            beat once it is.",
};

fn check_id(value: &Value) -> Option<Complaint> {
    let is_valid = match value {
        Value::Number(number) => number.as_i64().is_some(),
        Value::String(text) => text.parse::<MovieId>().is_ok(),
        _ => return Some(("wrong-type", "An id is an integer, or a string that holds one.")),
    };
    (!is_valid)
        .then_some(("invalid-id", "An id is a signed 64-bit integer; as a string, in canonical decimal spelling."))
}

fn check_position(value: &Value) -> Option<Complaint> {
    match value.as_f64() {
        None => Some(("wrong-type", "A position is a number of seconds.")),
        Some(seconds) => Position::from_seconds(seconds)
            .is_err()
            .then_some(("out-of-range", "A position is 0 to 1,000,000 seconds.")),
    }
}

fn check_duration(value: &Value) -> Option<Complaint> {
    match value.as_f64() {
        None if value.is_null() => None,
        None => Some(("wrong-type", "A duration is a number of seconds, or null.")),
        Some(seconds) => MediaDuration::from_seconds(seconds)
            .is_err()
            .then_some(("out-of-range", "A duration is above 0 and at most 1,000,000 seconds.")),
    }
}
