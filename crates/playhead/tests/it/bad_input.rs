//! Bad input, by tables: [`framing`], [`slowness`], [`paths`], [`bodies`]; here isolation and overload.
//!
//! Every case but the slow and the overloaded ones also checks that nothing was stored, that the next valid request works,
//! and that the answer came within a second; at the end of each test, that the server did not panic and that nothing of a
//! token or body is in its log.

mod bodies;
mod framing;
mod paths;
mod slowness;

use crate::client::{Answer, BATCH, Client, PROGRESS, token};
use crate::process::{Launch, Server, eventually};
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
    let launch = Launch::embedded(directory.path()).with(&["--workers", "1", "--max-in-flight-writes", "1"]);
    // The committer waits for so long for more beats: as long, one is under way.
    let server = launch.with(&["--commit-window", "4s", "--ack-deadline", "20s"]).start();
    let token = token(&directory, 7);
    let mut slow = server.connect();
    let (first, rest) = GOOD.split_at(10);
    slow.send(format!(
        "POST {PROGRESS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{first}",
        GOOD.len()
    ));
    let mut holder = server.connect();
    holder.send_beat(&token, GOOD).unwrap();
    let mut client = server.connect();
    let nonsense = |client: &mut Client| client.request("POST", PROGRESS, &[], Some(b"no token and no JSON"));
    eventually("the place is taken", || nonsense(&mut client).status == 503);
    let shed = nonsense(&mut client);
    assert_eq!((shed.status, shed.slug().as_str()), (503, "overloaded"));
    assert_eq!(shed.header("retry-after"), Some("4"));
    // Reads go on, and whose body was slow is shed as well.
    assert_eq!(client.get(PROGRESS, Some(&token)).status, 200);
    slow.send(rest);
    assert_eq!(slow.answer().slug(), "overloaded");
    assert!(server.metric("playhead_heartbeats_shed_total") >= 3);
    assert_eq!(holder.answer().status, 204);
    // A body that is under way holds no place.
    slow.send(format!(
        "POST {PROGRESS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{first}",
        GOOD.len()
    ));
    assert_eq!(client.beat(&token, GOOD).status, 204);
    slow.send(rest);
    assert_eq!(slow.answer().status, 204);
}

#[test]
fn a_write_whose_outcome_is_not_known_in_time_says_so() {
    let directory = TempDir::new().unwrap();
    // The committer waits for longer than anyone is let wait.
    let launch = Launch::embedded(directory.path()).with(&["--commit-window", "4s", "--ack-deadline", "500ms"]);
    let server = launch.start();
    let token = token(&directory, 7);
    let late = LATE.replace("42", "43");
    let begun = Instant::now();
    let mut client = server.connect();
    let answers =
        [client.beat(&token, GOOD), client.batch(&token, &late), client.delete(&format!("{PROGRESS}/44"), &token)];
    for answer in answers {
        assert_eq!((answer.status, answer.slug().as_str()), (503, "outcome-unknown"), "{answer:?}");
        assert_eq!(answer.header("retry-after"), Some("4"), "{answer:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    // Unknown is not lost: each was carried out.
    for movie in [42, 43] {
        eventually("it is stored after all", || {
            server.connect().get(&format!("{PROGRESS}/{movie}"), Some(&token)).json()["state"] != "none"
        });
    }
}
