//! Bad input, by tables: [`framing`], [`slowness`], [`paths`], [`bodies`]; here tokens, isolation and overload.
//!
//! Every case but the slow and the overloaded ones also checks that nothing was stored, that the next valid request works,
//! and that the answer came within a second; at the end of each test, that the server did not panic and that nothing of a
//! token or body is in its log.

mod bodies;
mod framing;
mod paths;
mod slowness;

use crate::client::{Answer, BATCH, Client, PROGRESS, token};
use crate::process::{Server, eventually};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const SECOND: Duration = Duration::from_secs(1);
const GOOD: &str = r#"{"movie_id": 42, "position_seconds": 1234.5, "duration_seconds": 7200}"#;

const LATE: &str = r#"{"sent_at_ms": 5, "items": [{"movie_id": 42, "position_seconds": 9, "event_time_ms": 5}]}"#;

/// A server with one stored row, and the row's owner.
struct Scene {
    directory: TempDir,
    server: Server,
    token: String,
    stored: Answer,
}

impl Scene {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let server = Server::in_memory(&directory, &[]);
        let token = token(&directory, 7);
        let mut client = server.connect();
        assert_eq!(client.beat(&token, GOOD).status, 204);
        let stored = client.get(&format!("{PROGRESS}?state=all"), Some(&token));
        assert_eq!(stored.json()["items"].as_array().unwrap().len(), 1);
        Self { directory, server, token, stored: without_date(stored) }
    }

    /// Runs one bad request on a new connection, checks that it changed nothing, and gives its answer.
    fn refuse(&self, what: &str, request: impl FnOnce(&mut Client) -> Option<Answer>) -> Option<Answer> {
        let begun = Instant::now();
        let answer = request(&mut self.server.connect());
        assert!(begun.elapsed() < SECOND, "{what}: {:?}", begun.elapsed());
        if let Some(answer) = &answer {
            assert!((400..500).contains(&answer.status), "{what}: {answer:?}");
        }
        let stored = self.server.connect().get(&format!("{PROGRESS}?state=all"), Some(&self.token));
        assert_eq!(without_date(stored), self.stored, "{what} changed what is stored");
        answer
    }

    /// A POST with these headers and this body is refused with this status and slug, and the connection goes on.
    fn check_beat(&self, headers: &[(&str, &str)], body: &[u8], expected: (u16, &str)) {
        let what = format!("{headers:?} {:?}", String::from_utf8_lossy(&body[..body.len().min(200)]));
        let bearer = format!("Bearer {}", self.token);
        let mut all = vec![("Authorization", bearer.as_str())];
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
            all.push(("Content-Type", "application/json"));
        }
        all.extend(headers);
        let answer = self.refuse(&what, |client| {
            let answer = client.request("POST", PROGRESS, &all, Some(body));
            assert_eq!(client.get(PROGRESS, Some(&self.token)).status, 200, "{what}");
            Some(answer)
        });
        let answer = answer.unwrap();
        assert_eq!((answer.status, answer.slug().as_str()), expected, "{what}");
    }

    /// A GET is refused with this status and slug.
    fn check_get(&self, path: &str, expected: (u16, &str)) {
        let answer = self.refuse(path, |client| Some(client.get(path, Some(&self.token)))).unwrap();
        assert_eq!((answer.status, answer.slug().as_str()), expected, "{path}");
    }

    /// What every test of this file checks at its end.
    fn end(self) {
        let mut client = self.server.connect();
        assert_eq!(client.beat(&self.token, GOOD).status, 204);
        let log = self.server.talk();
        for secret in [self.token.as_str(), "movie_id", "1234.5", "panicked", "Bearer"] {
            assert!(!log.contains(secret), "{secret:?} is in the log: {log}");
        }
    }
}

fn without_date(mut answer: Answer) -> Answer {
    answer.headers.retain(|(name, _)| name != "date");
    answer
}

#[test]
fn a_token_that_does_not_count_is_401() {
    let scene = Scene::new();
    let good = &scene.token;
    let parts: Vec<_> = good.split('.').collect();
    let other = TempDir::new().unwrap();
    drop(Server::in_memory(&other, &[]));
    let foreign = token(&other, 7);
    // {"alg":"none"}
    let unsigned = format!("eyJhbGciOiJub25lIn0.{}.", parts[1]);
    let cases: [&[&str]; 13] = [
        &[],
        &[""],
        &["Bearer"],
        &["Bearer "],
        &["Basic dTpw"],
        &[good],
        &[&format!("Bearer {good}"), &format!("Bearer {good}")],
        &[&format!("Bearer {}", parts[0])],
        &[&format!("Bearer {}.{}", parts[0], parts[1])],
        &[&format!("Bearer {good}.x")],
        &[&format!("Bearer {}.{}.{}", parts[0], parts[1], &parts[2][1..])],
        &[&format!("Bearer {foreign}")],
        &[&format!("Bearer {unsigned}")],
    ];
    for values in cases {
        let mut headers: Vec<_> = values.iter().map(|value| ("Authorization", *value)).collect();
        headers.push(("Content-Type", "application/json"));
        for (method, path, body) in [
            ("POST", PROGRESS, Some(GOOD.as_bytes())),
            ("POST", BATCH, Some(LATE.as_bytes())),
            ("DELETE", PROGRESS, None),
            ("DELETE", "/api/v1/stream/progress/42", None),
            ("GET", PROGRESS, None),
            ("GET", "/api/v1/stream/progress/42", None),
            ("GET", &format!("/api/v1/stream/progress?access_token={good}"), None),
        ] {
            let what = format!("{method} {path} {values:?}");
            let answer = scene.refuse(&what, |client| Some(client.request(method, path, &headers, body))).unwrap();
            assert_eq!((answer.status, answer.slug().as_str()), (401, "unauthorized"), "{what}");
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"), "{what}");
        }
    }
    scene.end();
}

#[test]
fn the_user_is_the_tokens_whatever_else_is_said() {
    let scene = Scene::new();
    let intruder = token(&scene.directory, 8);
    let bearer = format!("Bearer {intruder}");
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json"), ("X-User-Id", "7")];
    let body = br#"{"user_id":7,"sub":"7","movie_id":42,"position_seconds":1}"#;
    let mut client = scene.server.connect();
    let path = format!("{PROGRESS}?user_id=7");
    assert_eq!(client.request("POST", &path, &headers, Some(body)).status, 204);
    let late = LATE.replace("}]", r#", "user_id": 7}], "user_id": 7"#);
    assert_eq!(client.request("POST", &format!("{BATCH}?user_id=7"), &headers, Some(late.as_bytes())).status, 204);
    assert_eq!(client.request("POST", &path, &headers, Some(body)).status, 204);
    for path in [format!("{PROGRESS}/42?user_id=7"), format!("{PROGRESS}/42")] {
        assert_eq!(client.request("GET", &path, &headers, None).json()["position_seconds"], 1.0);
    }
    for path in [format!("{PROGRESS}/42?user_id=7"), path] {
        let body = Some(br#"{"user_id":7}"#.as_slice());
        assert_eq!(scene.server.connect().request("DELETE", &path, &headers, body).status, 204, "{path}");
    }
    let stored = client.get(&format!("{PROGRESS}?state=all"), Some(&scene.token));
    assert_eq!(without_date(stored), scene.stored);
    scene.end();
}

#[test]
fn past_the_bound_of_writes_a_beat_is_shed_before_its_token_is_looked_at() {
    let directory = TempDir::new().unwrap();
    let server = Server::in_memory(&directory, &["--workers", "1", "--max-in-flight-writes", "1"]);
    let token = token(&directory, 7);
    // A beat whose body is under way holds the only place.
    let mut holder = server.connect();
    let (first, rest) = GOOD.split_at(10);
    holder.send(format!(
        "POST {PROGRESS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{first}",
        GOOD.len()
    ));
    let mut client = server.connect();
    eventually("the place is taken", || client.beat(&token, GOOD).status == 503);
    let shed = client.request("POST", PROGRESS, &[], Some(b"no token and no JSON"));
    assert_eq!((shed.status, shed.slug().as_str()), (503, "overloaded"));
    assert_eq!(shed.header("retry-after"), Some("4"));
    assert!(server.metric("playhead_heartbeats_shed_total") >= 2);
    // Reads go on, and with the place free so do writes.
    assert_eq!(client.get(PROGRESS, Some(&token)).status, 200);
    holder.send(rest);
    assert_eq!(holder.answer().status, 204);
    eventually("the place is free", || client.beat(&token, GOOD).status == 204);
}
