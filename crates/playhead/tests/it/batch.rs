//! Client batches: ordered by when things happened, all or nothing, and bounded.
//!
//! Every refusal is also checked to have changed nothing and to come within a second.

use crate::client::{Answer, BATCH, Client, PROGRESS, token};
use crate::process::{Server, eventually};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A moment of some device's clock, in milliseconds.
const NOON: u64 = 1_700_000_000_000;

struct Scene {
    _directory: TempDir,
    server: Server,
    token: String,
    client: Client,
}

impl Scene {
    fn new(flags: &[&str]) -> Self {
        let directory = TempDir::new().unwrap();
        let server = Server::in_memory(&directory, flags);
        let (token, client) = (token(&directory, 7), server.connect());
        Self { _directory: directory, server, token, client }
    }

    fn send(&mut self, body: impl AsRef<[u8]>) -> Answer {
        self.client.batch(&self.token, body)
    }

    fn list(&mut self) -> Value {
        self.client.get(&format!("{PROGRESS}?state=all&limit=100"), Some(&self.token)).json()
    }

    fn position(&mut self, movie: i64) -> f64 {
        let bookmark = self.client.get(&format!("{PROGRESS}/{movie}"), Some(&self.token)).json();
        bookmark["position_seconds"].as_f64().unwrap()
    }

    /// Refused with this status and slug, at once, and nothing changes.
    fn check_refused(&mut self, body: impl AsRef<[u8]>, expected: (u16, &str)) -> Answer {
        let body = body.as_ref();
        let what = String::from_utf8_lossy(&body[..body.len().min(120)]).into_owned();
        let before = self.list();
        let begun = Instant::now();
        let answer = self.send(body);
        assert!(begun.elapsed() < Duration::from_secs(1), "{what}: {:?}", begun.elapsed());
        assert_eq!((answer.status, answer.slug().as_str()), expected, "{what}");
        // A new connection: the old one is closed where the body was not read.
        self.client = self.server.connect();
        assert_eq!(self.list(), before, "{what} changed what is stored");
        answer
    }

    /// Refused as invalid, with exactly these faults.
    fn check_invalid(&mut self, body: &str, expected: &[(&str, &str)]) {
        let answer = self.check_refused(body, (422, "invalid-request")).json();
        let faults = answer["errors"].as_array().unwrap().iter();
        let found: Vec<_> = faults.map(|f| (f["pointer"].as_str().unwrap(), f["code"].as_str().unwrap())).collect();
        assert_eq!(found, expected, "{body}");
    }
}

impl Drop for Scene {
    /// What every test checks at its end: nothing of a token or a body is in the log, and the server did not panic.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let log = self.server.talk();
            for secret in [self.token.as_str(), "movie_id", "event_time_ms", "Bearer", "panicked"] {
                assert!(!log.contains(secret), "{secret:?} is in the log: {log}");
            }
        }
    }
}

fn item(movie: i64, position: f64, event_time_ms: u64) -> Value {
    json!({"movie_id": movie.to_string(), "position_seconds": position, "event_time_ms": event_time_ms})
}

fn batch(sent_at_ms: u64, items: &[Value]) -> String {
    json!({"sent_at_ms": sent_at_ms, "items": items}).to_string()
}

#[test]
fn items_are_ordered_by_when_they_happened_whatever_the_devices_clock_says() {
    let mut scene = Scene::new(&[]);
    assert_eq!(scene.client.beat(&scene.token, r#"{"movie_id":1,"position_seconds":500}"#).status, 204);
    // The same title twice and out of order; one that is live meanwhile; clocks that are years off.
    for (sent_at_ms, last) in [(NOON, 30.0), (3_600_000, 31.0), (1 << 53, 32.0)] {
        let items =
            [item(2, last, sent_at_ms - 1_000), item(2, 5.0, sent_at_ms - 60_000), item(1, 9.0, sent_at_ms - 600_000)];
        let answer = scene.send(batch(sent_at_ms, &items));
        assert_eq!((answer.status, answer.body.as_str()), (204, ""));
        assert_eq!(scene.position(2), last);
        assert_eq!(scene.position(1), 500.0, "an old item replaced a newer position");
    }
    // A clock that runs a little ahead of its own sending is jitter.
    assert_eq!(scene.send(batch(NOON, &[item(3, 7.0, NOON + 59_999)])).status, 204);
    assert_eq!(scene.position(3), 7.0);
    let written = |movie: i64, scene: &mut Scene| {
        let bookmark = scene.client.get(&format!("{PROGRESS}/{movie}"), Some(&scene.token)).json();
        bookmark["updated_at"].as_str().unwrap().to_owned()
    };
    let live = written(3, &mut scene);
    assert_eq!(scene.send(batch(NOON, &[item(4, 1.0, NOON - 86_400_000)])).status, 204);
    let day_old = written(4, &mut scene);
    assert!(day_old < live && day_old[..10] != live[..10], "{day_old} should be a day before {live}");
}

#[test]
fn an_item_older_than_max_item_age_is_counted_and_dropped() {
    let mut scene = Scene::new(&["--max-item-age", "1h"]);
    let hour = 3_600_000;
    let too_old = item(1, 1.0, NOON - hour - 1);
    assert_eq!(scene.send(batch(NOON, std::slice::from_ref(&too_old))).status, 204);
    assert_eq!(scene.send(batch(NOON, &[item(2, 2.0, NOON - hour), too_old, item(3, 3.0, NOON)])).status, 204);
    assert_eq!((scene.position(1), scene.position(2), scene.position(3)), (0.0, 2.0, 3.0));
    assert_eq!(scene.server.metric("playhead_batch_items_too_old_total"), 2);
    assert_eq!(scene.server.metric(r#"playhead_http_requests_total{route="batch",status="204"}"#), 2);
}

#[test]
fn five_hundred_items_are_taken_and_one_bad_one_among_them_stores_nothing() {
    let mut scene = Scene::new(&[]);
    let mut items: Vec<_> = (0..500).map(|movie| item(movie, 1.0, NOON)).collect();
    items[499]["position_seconds"] = json!(-1);
    scene.check_invalid(&batch(NOON, &items), &[("/items/499/position_seconds", "out-of-range")]);
    items[499]["position_seconds"] = json!(1);
    items[3]["event_time_ms"] = json!(NOON + 60_000);
    scene.check_invalid(&batch(NOON, &items), &[("/items/3/event_time_ms", "after-sending")]);
    items[3]["event_time_ms"] = json!(NOON);
    assert_eq!(scene.send(batch(NOON, &items)).status, 204);
    assert_eq!(scene.position(499), 1.0);
    items.push(item(500, 1.0, NOON));
    scene.check_invalid(&batch(NOON, &items), &[("/items", "too-many")]);
}

#[test]
fn each_fault_has_its_pointer() {
    let mut scene = Scene::new(&[]);
    let good = item(1, 1.0, NOON);
    scene.check_invalid("[]", &[("", "wrong-type")]);
    scene.check_invalid(&json!([NOON, [good]]).to_string(), &[("", "wrong-type")]);
    scene.check_invalid("{}", &[("/sent_at_ms", "missing"), ("/items", "missing")]);
    scene.check_invalid(&batch(NOON, &[]), &[("/items", "empty")]);
    scene.check_invalid(
        &json!({"sent_at_ms": -1, "items": good}).to_string(),
        &[("/sent_at_ms", "out-of-range"), ("/items", "wrong-type")],
    );
    scene.check_invalid(&batch((1 << 53) + 1, std::slice::from_ref(&good)), &[("/sent_at_ms", "out-of-range")]);
    let items =
        [good, json!([1, 2.0, null, NOON]), json!({"movie_id": "042", "event_time_ms": 1.5, "duration_seconds": 0})];
    scene.check_invalid(
        &batch(NOON, &items),
        &[
            ("/items/1", "wrong-type"),
            ("/items/2/movie_id", "invalid-id"),
            ("/items/2/position_seconds", "missing"),
            ("/items/2/duration_seconds", "out-of-range"),
            ("/items/2/event_time_ms", "out-of-range"),
        ],
    );
    let twice = r#"{"movie_id":1,"movie_id":1,"position_seconds":1,"event_time_ms":5}"#;
    scene.check_invalid(&format!(r#"{{"sent_at_ms":5,"items":[{twice}]}}"#), &[("/items/0/movie_id", "duplicate")]);
}

/// A batch with this in place of one known field's value; of the list if the field is `items`.
fn with_field(field: &str, value: &str) -> String {
    let of = |name: &str, good: &str| format!("{name:?}:{}", if name == field { value } else { good });
    let beat =
        [of("movie_id", "1"), of("position_seconds", "1"), of("duration_seconds", "90"), of("event_time_ms", "5")];
    let items = of("items", &format!("[{{{}}}]", beat.join(",")));
    format!("{{{},{items}}}", of("sent_at_ms", "5"))
}

#[test]
fn a_field_of_another_kind_or_given_twice_is_a_fault_of_its_own() {
    let mut scene = Scene::new(&[]);
    let fields = ["sent_at_ms", "items", "movie_id", "position_seconds", "duration_seconds", "event_time_ms"];
    let pointer = |field: &str| match field {
        "sent_at_ms" | "items" => format!("/{field}"),
        _ => format!("/items/0/{field}"),
    };
    let odd = ["null", "true", "[[]]", "{}", "\"x\"", "-1", "1.5", "1e3", "9223372036854775808", "\"12\"", "0"];
    for field in fields {
        for value in odd {
            let is_good = match field {
                "movie_id" => ["-1", "\"12\"", "0"].contains(&value),
                "position_seconds" => ["1.5", "1e3", "0"].contains(&value),
                "duration_seconds" => ["null", "1.5", "1e3"].contains(&value),
                // An event long after it was sent is another test's.
                "sent_at_ms" | "event_time_ms" => value == "0",
                _ => false,
            };
            if is_good {
                assert_eq!(scene.send(with_field(field, value)).status, 204, "{field}: {value}");
                continue;
            }
            let answer = scene.check_refused(with_field(field, value), (422, "invalid-request")).json();
            let faults = answer["errors"].as_array().unwrap();
            let expected = if field == "items" && value == "[[]]" { "/items/0".to_owned() } else { pointer(field) };
            assert_eq!(faults.len(), 1, "{field}: {value}: {answer}");
            assert_eq!(faults[0]["pointer"], json!(expected), "{field}: {value}: {answer}");
        }
        let twice = with_field(field, &format!("{},{field:?}:{}", first_value(field), first_value(field)));
        scene.check_invalid(&twice, &[(pointer(field).as_str(), "duplicate")]);
    }
}

/// A good value of a field.
fn first_value(field: &str) -> &'static str {
    if field == "items" { r#"[{"movie_id":1,"position_seconds":1,"event_time_ms":5}]"# } else { "5" }
}

#[test]
fn what_is_odd_in_fields_that_nobody_knows_is_ignored_unless_it_is_no_text() {
    let mut scene = Scene::new(&[]);
    let with = |odd: &str, movie: i64, position: &str| {
        let item = format!(r#"{{"x":{odd},"movie_id":{movie},"position_seconds":{position},"event_time_ms":5}}"#);
        format!(r#"{{"x":{odd},"sent_at_ms":5,"items":[{item}]}}"#)
    };
    let deep = "[".repeat(30_000) + &"]".repeat(30_000);
    let deep_objects = r#"{"a":"#.repeat(10_000) + "1" + &"}".repeat(10_000);
    let digits = "1".repeat(50_000);
    for (movie, odd) in (1..).zip([deep.as_str(), &deep_objects, &digits, r#""\ud800""#, r#""\u0000""#, "-0.0e-0"]) {
        assert_eq!(scene.send(with(odd, movie, "7")).status, 204, "title {movie}");
        assert_eq!(scene.position(movie), 7.0);
        // The second pass, which looks for the fault, skips it too.
        scene.check_invalid(&with(odd, movie, "-7"), &[("/items/0/position_seconds", "out-of-range")]);
    }
    // Bytes that are no UTF-8 are no JSON, wherever they stand.
    let good = with(r#""é""#, 50, "7");
    for at in 0..=good.len() {
        let bad = [&good.as_bytes()[..at], b"\xFF", &good.as_bytes()[at..]].concat();
        scene.check_refused(bad, (400, "malformed-json"));
    }
    for (bad, movie) in [("\"\u{1}\"", "1"), ("1", r#""\ud800""#), ("01", "1"), ("NaN", "1"), ("'x'", "1")] {
        let body = with(bad, 1, "7").replace(r#""movie_id":1"#, &format!(r#""movie_id":{movie}"#));
        scene.check_refused(body, (400, "malformed-json"));
    }
    assert_eq!(scene.position(50), 0.0);
}

#[test]
fn what_is_no_json_too_deep_or_too_long_is_refused_at_once() {
    let mut scene = Scene::new(&[]);
    let good = batch(NOON, &[item(1, 1.0, NOON)]);
    for end in 0..good.len() {
        scene.check_refused(&good.as_bytes()[..end], (400, "malformed-json"));
    }
    let (deep, digits) = ("[".repeat(10_000) + &"]".repeat(10_000), "1".repeat(10_000));
    for odd in [deep.as_str(), &digits, &"[".repeat(100_000)] {
        for body in [
            format!(r#"{{"sent_at_ms":{odd},"items":[]}}"#),
            format!(r#"{{"sent_at_ms":5,"items":[{{"movie_id":{odd},"position_seconds":1,"event_time_ms":5}}]}}"#),
            format!(r#"{{"sent_at_ms":5,"items":[{{"movie_id":1,"position_seconds":1,"event_time_ms":{odd}}}]}}"#),
        ] {
            scene.check_refused(body, (400, "malformed-json"));
        }
    }
    // As many faults as fit: linear time, and an answer that does not grow with them.
    let many = format!(r#"{{"sent_at_ms":5,"items":[{}0]}}"#, "0,".repeat(64_000));
    scene.check_invalid(&many, &[("/items", "too-many")]);
    let padded = |bytes: usize| {
        let start = good.trim_end_matches('}').to_owned() + r#","x":""#;
        let padding = "a".repeat(bytes - start.len() - 2);
        format!(r#"{start}{padding}"}}"#)
    };
    scene.check_refused(padded(128 * 1024 + 1), (413, "payload-too-large"));
    scene.check_refused(padded(129 * 1024), (413, "payload-too-large"));
    // In chunks of a byte, which no length announces.
    let bearer = format!("Authorization: Bearer {}\r\nContent-Type: application/json\r\n", scene.token);
    let chunked = |body: &str| {
        let chunks: String = body.chars().map(|byte| format!("1\r\n{byte}\r\n")).collect();
        format!("POST {BATCH} HTTP/1.1\r\nHost: x\r\n{bearer}Transfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n")
    };
    let mut client = scene.server.connect();
    client.send(chunked(&padded(128 * 1024 + 1)));
    assert_eq!(client.answer().slug(), "payload-too-large");
    let mut client = scene.server.connect();
    client.send(chunked(&padded(128 * 1024)));
    assert_eq!(client.answer().status, 204);
    assert_eq!(scene.position(1), 1.0);
}

#[test]
fn a_batch_without_a_token_or_of_another_type_is_refused() {
    let mut scene = Scene::new(&[]);
    let body = batch(NOON, &[item(1, 1.0, NOON)]);
    let bearer = format!("Bearer {}", scene.token);
    let json = ("Content-Type", "application/json");
    for (headers, expected) in [
        (vec![json], (401, "unauthorized")),
        (vec![json, ("Authorization", "Bearer x")], (401, "unauthorized")),
        (vec![("Authorization", bearer.as_str())], (415, "unsupported-media-type")),
        (vec![("Authorization", bearer.as_str()), json, ("Content-Encoding", "gzip")], (415, "unsupported-media-type")),
    ] {
        let answer = scene.server.connect().request("POST", BATCH, &headers, Some(body.as_bytes()));
        assert_eq!((answer.status, answer.slug().as_str()), expected, "{headers:?}");
    }
    for method in ["GET", "PUT", "DELETE"] {
        let answer = scene.server.connect().request(method, BATCH, &[("Authorization", &bearer)], None);
        assert_eq!((answer.slug().as_str(), answer.header("allow")), ("method-not-allowed", Some("POST")), "{method}");
    }
    assert_eq!(scene.list()["items"], json!([]));
}

#[test]
fn the_same_batch_a_hundred_times_at_once_leaves_the_same_state() {
    let mut scene = Scene::new(&[]);
    let items: Vec<_> =
        (0..50_u32).map(|n| item(i64::from(n % 10), f64::from(n), NOON - 1_000 * u64::from(50 - n))).collect();
    let body = batch(NOON, &items);
    let (address, token) = (scene.server.address, &scene.token);
    std::thread::scope(|scope| {
        for _ in 0..100 {
            scope.spawn(|| assert_eq!(Client::to(address).batch(token, &body).status, 204));
        }
    });
    for movie in 0..10 {
        assert_eq!(scene.position(movie), (40 + movie) as f64);
    }
}

#[test]
fn a_batch_whose_body_trickles_is_408_in_time() {
    let mut scene = Scene::new(&["--request-deadline", "3s"]);
    let mut client = scene.server.connect();
    let begun = Instant::now();
    client.send(format!(
        "POST {BATCH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Content-Length: 1000\r\n\r\n{{",
        scene.token
    ));
    let answer = client.answer();
    assert_eq!((answer.status, answer.slug().as_str()), (408, "request-timeout"));
    assert!(client.is_closed());
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
    // A new connection: the scene's own has been silent for as long, and may be closed for it.
    scene.client = scene.server.connect();
    assert_eq!(scene.list()["items"], json!([]));
}

#[test]
fn past_the_bound_of_batches_one_is_shed_before_its_token_is_looked_at() {
    let scene = Scene::new(&["--workers", "1"]);
    let body = batch(NOON, &[item(1, 1.0, NOON)]);
    let (first, rest) = body.split_at(10);
    let head = format!(
        "POST {BATCH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{first}",
        scene.token,
        body.len()
    );
    // Batches whose bodies are under way hold all places: as many as 32 MiB allow.
    let mut holders: Vec<_> = (0..256).map(|_| scene.server.connect()).collect();
    for holder in &mut holders {
        holder.send(&head);
    }
    let mut client = scene.server.connect();
    eventually("all places are taken", || client.batch(&scene.token, &body).status == 503);
    let shed = client.request("POST", BATCH, &[], Some(b"no token and no JSON"));
    assert_eq!((shed.slug().as_str(), shed.header("retry-after")), ("overloaded", Some("4")));
    // Heartbeats and reads go on, and with a place free so do batches.
    assert_eq!(client.beat(&scene.token, r#"{"movie_id":2,"position_seconds":1}"#).status, 204);
    assert_eq!(client.get(PROGRESS, Some(&scene.token)).status, 200);
    for holder in &mut holders {
        holder.send(rest);
        assert_eq!(holder.answer().status, 204);
    }
    assert_eq!(client.batch(&scene.token, &body).status, 204);
}
