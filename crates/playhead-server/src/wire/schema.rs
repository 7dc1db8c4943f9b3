//! What bodies look like, as JSON Schema for the API's document ([`crate::openapi`]).
//!
//! Requests are described by the same tables that explain what is wrong with one ([`Place`]), so that fields, bounds and
//! what is required can't differ. Answers are written out here; a test compares them with what real ones look like.

use super::faults::{Kind, Place};
use super::{StateAnswer, batch, beat};
use playhead_core::{MediaDuration, Position};
use serde_json::{Map, Value, json};

/// The names of schemas that calls refer to.
pub(crate) const HEARTBEAT: &str = "Heartbeat";
pub(crate) const BATCH: &str = "Batch";
pub(crate) const BOOKMARK: &str = "Bookmark";
pub(crate) const LIST: &str = "BookmarkList";
pub(crate) const PROBLEM: &str = "Problem";
pub(crate) const CANONICAL_ID: &str = "CanonicalId";

/// Every schema, by its name.
pub(crate) fn schemas() -> Map<String, Value> {
    let mut schemas = answers();
    for (name, place) in [(HEARTBEAT, &beat::HEARTBEAT), (BATCH, &batch::BATCH)] {
        let found = described(place, &mut schemas);
        debug_assert_eq!(found, reference(name));
    }
    schemas
}

/// A reference to a schema.
pub(crate) fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// The schema of a place; objects are put among the others and referred to.
fn described(place: &Place, schemas: &mut Map<String, Value>) -> Value {
    match place {
        Place::Value(Kind::MovieId, _) => reference("MovieId"),
        Place::Value(Kind::PositionSeconds, _) => reference("PositionSeconds"),
        Place::Value(Kind::DurationSeconds, _) => or_null(reference("DurationSeconds")),
        Place::Value(Kind::Millis, _) => {
            json!({"type": "integer", "format": "int64", "minimum": 0, "maximum": batch::MILLIS_MAX})
        }
        Place::List(element, most) => {
            json!({"type": "array", "items": described(element, schemas), "minItems": 1, "maxItems": most})
        }
        Place::Object(name, fields) => {
            let required: Vec<_> = fields.iter().filter(|field| field.is_required).map(|field| field.name).collect();
            let mut properties = Map::new();
            for field in *fields {
                let schema = about(described(&field.place, schemas), field.about);
                properties.insert(field.name.to_owned(), schema);
            }
            let object = json!({"type": "object", "description": "Other fields are ignored.", "required": required,
                                "properties": properties});
            schemas.insert((*name).to_owned(), object);
            reference(name)
        }
    }
}

fn answers() -> Map<String, Value> {
    let position = |words| about(reference("PositionSeconds"), words);
    let duration = about(or_null(reference("DurationSeconds")), "Null if no beat has said it.");
    let moment = json!({"type": ["string", "null"], "format": "date-time",
                        "description": "When it was saved, in UTC with microseconds; null if never."});
    let cursor = json!({"type": ["string", "null"],
                        "description": "For the next page; null exactly when nothing follows."});
    let Value::Object(schemas) = json!({
        "MovieId": {
            "description": "A title: a signed 64-bit integer, or a string that holds one.",
            "oneOf": [{"type": "integer", "format": "int64"}, reference(CANONICAL_ID)],
        },
        CANONICAL_ID: {
            "type": "string",
            "pattern": "^(0|-?[1-9][0-9]{0,18})$",
            "description": "A signed 64-bit integer in its one canonical spelling: `42`, not `042` or `+42`. A string, \
                            because JavaScript loses integers above 2^53.",
        },
        "PositionSeconds": {
            "type": "number",
            "format": "double",
            "minimum": 0,
            "maximum": whole(Position::MAX_SECONDS),
            "description": "Seconds from the beginning of the title.",
        },
        "DurationSeconds": {
            "type": "number",
            "format": "double",
            "exclusiveMinimum": 0,
            "maximum": whole(MediaDuration::MAX_SECONDS),
            "description": "Seconds from the beginning of a title to its end.",
        },
        BOOKMARK: object("Where to resume a title.", &[
            ("movie_id", reference(CANONICAL_ID)),
            ("position_seconds", position("What was saved last; 0 if nothing was.")),
            ("resume_position_seconds", position("Where to start: the position, or 0 once the title is completed.")),
            ("duration_seconds", duration),
            ("updated_at", moment),
            ("state", reference("State")),
        ]),
        "State": {
            "type": "string",
            "enum": [StateAnswer::None, StateAnswer::InProgress, StateAnswer::Completed],
            "description": "`none`: never watched. `completed`: the position is 95 % of the duration or more, unless the \
                            server was told another share.",
        },
        LIST: object("A page of a list, or the titles that were asked for.", &[
            ("items", json!({"type": "array", "items": reference(BOOKMARK)})),
            ("next_cursor", cursor),
        ]),
        PROBLEM: object("An error (RFC 9457).", &[
            ("type", json!({"type": "string", "pattern": "^urn:playhead:problem:[a-z-]+$",
                            "description": "Ends in a slug to rely on."})),
            ("title", text("For people.")),
            ("status", json!({"type": "integer", "description": "The answer's status."})),
            ("detail", text("What to do about it, for people. Never repeats what was sent.")),
        ]),
        "Fault": object("One thing that is wrong with a request.", &[
            ("pointer", text("JSON pointer to it; to where it should be, if it is missing.")),
            ("code", text("For programs: `missing`, `duplicate`, `wrong-type`, `invalid-id`, `out-of-range`, `empty`, \
                           `too-many`, `after-sending`.")),
            ("detail", text("For people.")),
        ]),
    }) else {
        unreachable!("written as an object")
    };
    let mut schemas = schemas;
    // Alone not always there.
    schemas[PROBLEM]["properties"]["errors"] = json!({"type": "array", "items": reference("Fault"),
        "description": "One for each fault of a request whose JSON does not say what it should."});
    schemas
}

/// An object with these fields, all of which are always there.
fn object(words: &str, fields: &[(&str, Value)]) -> Value {
    let required: Vec<_> = fields.iter().map(|(name, _)| *name).collect();
    let properties: Map<_, _> = fields.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())).collect();
    json!({"type": "object", "description": words, "required": required, "properties": properties})
}

fn text(words: &str) -> Value {
    json!({"type": "string", "description": words})
}

fn or_null(schema: Value) -> Value {
    json!({"oneOf": [schema, {"type": "null"}]})
}

/// The same with words of its own, if there are any.
fn about(mut schema: Value, words: &str) -> Value {
    if !words.is_empty() {
        schema["description"] = words.into();
    }
    schema
}

/// A bound that is a whole number, written as one.
#[expect(clippy::cast_possible_truncation, reason = "bounds are far below 2^53")]
fn whole(bound: f64) -> i64 {
    bound as i64
}

#[cfg(test)]
mod tests {
    use super::super::{BookmarkAnswer, ListAnswer};
    use super::*;
    use crate::problem::Problem;
    use crate::wire::Fault;
    use playhead_core::MovieId;
    use std::collections::BTreeSet;

    /// The fields of answers are those of the schema: each that is required is always there, and no other ever is.
    fn check(name: &str, answers: &[Value]) {
        let schema = &schemas()[name];
        let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
        let listed = names(&schema["properties"]);
        let required = schema["required"].as_array().unwrap().iter();
        let required: BTreeSet<_> = required.map(|name| name.as_str().unwrap().to_owned()).collect();
        let found: Vec<_> = answers.iter().map(names).collect();
        assert_eq!(found.iter().flatten().cloned().collect::<BTreeSet<_>>(), listed, "{name}");
        assert_eq!(found.into_iter().reduce(|all, next| &all & &next).unwrap(), required, "{name}");
    }

    #[test]
    fn answers_have_the_fields_of_their_schemas() {
        let bookmark = BookmarkAnswer::none(MovieId(1));
        check(BOOKMARK, &[json!(bookmark)]);
        check(LIST, &[json!(ListAnswer { items: vec![bookmark], next_cursor: None })]);
        let fault = Fault { pointer: "/a".to_owned(), code: "missing", detail: "b" };
        check("Fault", &[json!(fault)]);
        let invalid = Problem::InvalidRequest(vec![fault]);
        check(PROBLEM, &[json!(invalid.answer()), json!(Problem::NotFound.answer())]);
    }

    #[test]
    fn every_schema_that_is_referred_to_is_there() {
        let schemas = schemas();
        let text = Value::Object(schemas.clone()).to_string();
        for name in text.split("#/components/schemas/").skip(1).map(|rest| rest.split('"').next().unwrap()) {
            assert!(schemas.contains_key(name), "{name}");
        }
        assert_eq!(schemas["Batch"]["required"], json!(["sent_at_ms", "items"]));
    }
}
