//! The document as a page to read: `/docs`, with `--dev` only.
//!
//! Rendered here from the document itself when the server starts: one file without a script, a font or an image, so that
//! it works with the network cut and its content security policy can forbid all but its own style. Follows the reader's
//! choice of light or dark.
//!
//! **The limits.** It knows as much of OpenAPI as this document uses. A description is paragraphs with `code` in them.

use aws_lc_rs::digest::{SHA256, digest};
use axum::response::IntoResponse;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::HeaderValue;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use serde_json::Value;

const STYLE: &str = include_str!("page.css");

/// The page and its headers.
pub(super) fn answer(document: &Value) -> impl IntoResponse + Clone + Send + Sync + use<> {
    let hash = STANDARD.encode(digest(&SHA256, STYLE.as_bytes()));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let text = HeaderValue::from_static;
    let headers: [(HeaderName, HeaderValue); 5] = [
        (CONTENT_TYPE, text("text/html; charset=utf-8")),
        (CACHE_CONTROL, text("no-cache")),
        (CONTENT_SECURITY_POLICY, HeaderValue::from_str(&policy).expect("a policy is plain ASCII")),
        (X_CONTENT_TYPE_OPTIONS, text("nosniff")),
        (REFERRER_POLICY, text("no-referrer")),
    ];
    (headers, Bytes::from(render(document)))
}

fn render(document: &Value) -> String {
    let calls = calls(document);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}: the HTTP interface</title>\n<style>{STYLE}</style>\n<header>\n\
         <h1>{title} <small>HTTP interface, version {version}</small></h1>\n{about}\n\
         <p>For programs: <a href=\"/openapi.json\">openapi.json</a></p>\n</header>\n<nav><ul>\n",
        title = escaped(text(&document["info"]["title"])),
        version = escaped(text(&document["info"]["version"])),
        about = paragraphs(text(&document["info"]["description"])),
    );
    for call in &calls {
        page += &format!("<li><a href=\"#{}\">{}</a></li>\n", escaped(call.id()), call.line());
    }
    page += "</ul></nav>\n<main>\n";
    for tag in document["tags"].as_array().into_iter().flatten() {
        let name = text(&tag["name"]);
        page += &format!("<h2>{}</h2>\n{}\n", escaped(name), paragraphs(text(&tag["description"])));
        for call in calls.iter().filter(|call| call.operation["tags"][0] == tag["name"]) {
            page += &call.render(document);
        }
    }
    page += "<h2>schemas</h2>\n";
    for (name, schema) in fields(&document["components"]["schemas"]) {
        let name = escaped(name);
        page +=
            &format!("<section id=\"schema-{name}\">\n<h3>{name}</h3>\n{}", paragraphs(text(&schema["description"])));
        page +=
            &if schema["properties"].is_object() { properties(schema) } else { format!("<p>{}</p>\n", shape(schema)) };
        page += "</section>\n";
    }
    page + "</main>\n</html>\n"
}

/// An operation, and where it is.
struct Call<'a> {
    method: &'a str,
    path: &'a str,
    operation: &'a Value,
}

/// All but HEAD, of which the introduction says what there is to say.
fn calls(document: &Value) -> Vec<Call<'_>> {
    let paths = fields(&document["paths"]);
    let calls =
        paths.flat_map(|(path, item)| fields(item).map(move |(method, operation)| Call { method, path, operation }));
    calls.filter(|call| call.method != "head").collect()
}

impl Call<'_> {
    fn id(&self) -> &str {
        text(&self.operation["operationId"])
    }

    fn line(&self) -> String {
        let method = escaped(self.method);
        format!("<b class=\"{method}\">{}</b> <code>{}</code>", method.to_uppercase(), escaped(self.path))
    }

    fn render(&self, document: &Value) -> String {
        let mut page = format!(
            "<article id=\"{}\">\n<h3>{}</h3>\n<p class=\"summary\">{}</p>\n{}\n",
            escaped(self.id()),
            self.line(),
            in_line(text(&self.operation["summary"])),
            paragraphs(text(&self.operation["description"])),
        );
        let parameters: Vec<_> = self.operation["parameters"].as_array().into_iter().flatten().collect();
        if !parameters.is_empty() {
            page += "<h4>Parameters</h4>\n<table>\n<tr><th>name<th>in<th>value<th>what it is\n";
            for parameter in parameters {
                page += &format!(
                    "<tr><td><code>{}</code><td>{}<td>{}<td>{}\n",
                    escaped(text(&parameter["name"])),
                    escaped(text(&parameter["in"])),
                    shape(&parameter["schema"]),
                    in_line(text(&parameter["description"])),
                );
            }
            page += "</table>\n";
        }
        for (_, content) in fields(&self.operation["requestBody"]["content"]) {
            page += &format!("<h4>Body: {}</h4>\n{}", shape(&content["schema"]), example(&content["example"]));
        }
        page += "<h4>Answers</h4>\n<table>\n<tr><th>status<th>what it means\n";
        for (status, answer) in fields(&self.operation["responses"]) {
            page +=
                &format!("<tr><td><code>{}</code><td>{}\n", escaped(status), render_answer(resolved(document, answer)));
        }
        page + "</table>\n</article>\n"
    }
}

fn render_answer(answer: &Value) -> String {
    let mut words = in_line(text(&answer["description"]));
    for (media_type, content) in fields(&answer["content"]) {
        let examples: String = fields(&content["examples"]).map(|(_, shown)| example(&shown["value"])).collect();
        words += &format!(
            "<details><summary><code>{}</code>: {}</summary>\n{}{examples}</details>",
            escaped(media_type),
            shape(&content["schema"]),
            example(&content["example"]),
        );
    }
    words
}

/// The fields of an object schema.
fn properties(schema: &Value) -> String {
    let required: Vec<_> = schema["required"].as_array().into_iter().flatten().collect();
    let mut page = "<table>\n<tr><th>field<th>value<th>what it is\n".to_owned();
    for (name, property) in fields(&schema["properties"]) {
        let is_required = required.iter().any(|required| *required == name);
        page += &format!(
            "<tr><td><code>{}</code><td>{}{}<td>{}\n",
            escaped(name),
            shape(property),
            if is_required { "" } else { ", optional" },
            in_line(text(&property["description"])),
        );
    }
    page + "</table>\n"
}

/// What a schema allows, in a line.
fn shape(schema: &Value) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = escaped(reference.rsplit('/').next().unwrap_or_default());
        return format!("<a href=\"#schema-{name}\">{name}</a>");
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        return choices.iter().map(shape).collect::<Vec<_>>().join(" or ");
    }
    let mut words = match &schema["type"] {
        Value::Array(types) => types.iter().map(|kind| escaped(text(kind))).collect::<Vec<_>>().join(" or "),
        kind => escaped(text(kind)),
    };
    if let Some(format) = schema["format"].as_str() {
        words += &format!(" ({})", escaped(format));
    }
    if let Some(values) = schema["enum"].as_array() {
        words =
            values.iter().map(|value| format!("<code>{}</code>", escaped(text(value)))).collect::<Vec<_>>().join(", ");
    }
    let bounds = [
        ("minimum", "at least"),
        ("exclusiveMinimum", "above"),
        ("maximum", "at most"),
        ("minItems", "at least"),
        ("maxItems", "at most"),
        ("pattern", "as"),
        ("default", "by default"),
    ];
    for (name, meaning) in bounds {
        match &schema[name] {
            Value::Null => {}
            Value::String(bound) => words += &format!(", {meaning} <code>{}</code>", escaped(bound)),
            bound => words += &format!(", {meaning} {}", escaped(&bound.to_string())),
        }
    }
    if schema["items"].is_object() {
        words += &format!(" of {}", shape(&schema["items"]));
    }
    words
}

fn example(example: &Value) -> String {
    if example.is_null() {
        return String::new();
    }
    format!("<pre>{}</pre>\n", escaped(&format!("{example:#}")))
}

fn resolved<'a>(document: &'a Value, answer: &'a Value) -> &'a Value {
    let name = answer["$ref"].as_str().and_then(|reference| reference.rsplit('/').next());
    name.map_or(answer, |name| &document["components"]["responses"][name])
}

fn fields(object: &Value) -> impl Iterator<Item = (&str, &Value)> {
    object.as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn paragraphs(words: &str) -> String {
    words.split("\n\n").filter(|words| !words.is_empty()).map(|words| format!("<p>{}</p>\n", in_line(words))).collect()
}

/// Text with `code` in it.
fn in_line(words: &str) -> String {
    let pieces = words.split('`').enumerate();
    // Backticks come in pairs: outside, inside, outside.
    pieces
        .map(|(at, piece)| if at % 2 == 1 { format!("<code>{}</code>", escaped(piece)) } else { escaped(piece) })
        .collect()
}

fn escaped(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn text_is_escaped_and_code_is_marked() {
        assert_eq!(in_line("a `b<c` & \"d\""), "a <code>b&lt;c</code> &amp; &quot;d&quot;");
        assert_eq!(paragraphs("a\n\nb"), "<p>a</p>\n<p>b</p>\n");
    }

    #[test]
    fn a_schema_is_said_in_a_line() {
        for (schema, words) in [
            (json!({"$ref": "#/components/schemas/A"}), "<a href=\"#schema-A\">A</a>"),
            (
                json!({"oneOf": [{"type": "null"}, {"type": "string", "pattern": "^a$"}]}),
                "null or string, as <code>^a$</code>",
            ),
            (
                json!({"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 5}),
                "number or null, above 0, at most 5",
            ),
            (
                json!({"type": "string", "enum": ["a", "b"], "default": "a"}),
                "<code>a</code>, <code>b</code>, by default <code>a</code>",
            ),
            (json!({"type": "array", "items": {"type": "integer"}, "minItems": 1}), "array, at least 1 of integer"),
        ] {
            assert_eq!(shape(&schema), words, "{schema}");
        }
    }
}
