//! Bad input, by tables. Every case but the slow and the overloaded ones also checks that nothing was stored, that the
//! next valid request works, and that the answer came within a second; at the end of each test, that the server did not
//! panic and that nothing of a token or body is in its log.

use crate::client::{Answer, BATCH, Client, PROGRESS, token};
use crate::process::{Launch, Server, eventually};
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
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
fn framing_that_is_not_http_is_refused_and_closed() {
    let scene = Scene::new();
    let token = &scene.token;
    let post = |headers: &str, body: &str| {
        let auth = format!("Authorization: Bearer {token}\r\nContent-Type: application/json\r\n");
        format!("POST {PROGRESS} HTTP/1.1\r\n{auth}{headers}\r\n{body}")
    };
    let sized = format!("Content-Length: {}\r\n", GOOD.len());
    let other = GOOD.replace("42", "43");
    let cases = [
        post("Host: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n", &other),
        post("Host: x\r\nContent-Length: +70\r\n", &other),
        post("Host: x\r\nContent-Length: 0x46\r\n", &other),
        post("Host: x\r\nContent-Length: -1\r\n", &other),
        post("Host: x\r\nContent-Length: 99999999999999999999999\r\n", &other),
        post("Host: x\r\nTransfer-Encoding: chunked, identity\r\n", &format!("46\r\n{other}\r\n0\r\n\r\n")),
        post("Host: x\r\nTransfer-Encoding: gzip\r\n", &other),
        post("Host: x\r\nTransfer-Encoding: chunked\r\n", &format!("fffffffffffffffff\r\n{other}\r\n0\r\n\r\n")),
        post("Host: x\r\nTransfer-Encoding: chunked\r\n", &format!("zz\r\n{other}\r\n0\r\n\r\n")),
        post(&format!("Host: x\r\nX-Nul: a\0b\r\n{sized}"), &other),
        post(&format!("Host: x\r\nX-Bare: a\rb\r\n{sized}"), &other),
        post(&format!("Host: x\r\nX-Folded: a\r\n b\r\n{sized}"), &other),
        post(&format!("Host: x\r\nX Space: a\r\n{sized}"), &other),
        post(&format!("Host: x\r\nX-Space : a\r\n{sized}"), &other),
        format!("POST {PROGRESS}\r\n\r\n"),
        format!("POST {PROGRESS} HTTP/3.0\r\nHost: x\r\n\r\n"),
        "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\u{1}\u{fc}\u{3}\u{3}hello over TLS\r\n\r\n".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".to_owned(),
    ];
    for request in cases {
        let answer = scene.refuse(&request, |client| {
            client.send(&request);
            let answer = client.try_answer();
            assert!(client.is_closed(), "left open after {request:?}");
            answer
        });
        if let Some(answer) = answer {
            assert_eq!(answer.status, 400, "{request:?}");
        }
    }
    for hosts in ["", "Host: a\r\nHost: b\r\n", "Host: a\r\nHost: a\r\n"] {
        let request = post(&format!("{hosts}{sized}"), &other);
        let answer = scene.refuse(&request, |client| {
            client.send(&request);
            client.try_answer()
        });
        let answer = answer.unwrap();
        assert_eq!((answer.status, answer.slug().as_str()), (400, "malformed-request"), "{hosts:?}");
    }
    scene.end();
}

#[test]
fn a_request_hidden_behind_another_is_never_carried_out() {
    let scene = Scene::new();
    let token = &scene.token;
    let hidden_body = r#"{"movie_id": 666, "position_seconds": 1}"#;
    let hidden = format!(
        "POST {PROGRESS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{hidden_body}",
        hidden_body.len()
    );
    let behind = format!("0\r\n\r\n{hidden}");
    let length = format!("Content-Length: {}\r\n", behind.len());
    let chunked = "Transfer-Encoding: chunked\r\n";
    for both in [format!("{length}{chunked}"), format!("{chunked}{length}")] {
        let mut client = scene.server.connect();
        client.send(format!(
            "POST {PROGRESS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
             {both}\r\n{behind}"
        ));
        // The chunks are empty, so there is no JSON.
        assert_eq!(client.answer().status, 400, "{both:?}");
        assert!(client.is_closed(), "the leftovers were read: {both:?}");
        let title = scene.server.connect().get(&format!("{PROGRESS}/666"), Some(token));
        assert_eq!(title.json()["state"], "none", "{both:?}");
    }
    scene.end();
}

#[test]
fn sizes_are_bounded() {
    let scene = Scene::new();
    let filler = |bytes: usize| format!("X-Filler: {}\r\n", "a".repeat(bytes));
    let heads = [
        (format!("GET {PROGRESS} HTTP/1.1\r\nHost: x\r\n{}\r\n", filler(16 * 1024)), 431),
        (format!("GET {PROGRESS}?x={} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(16 * 1024)), 431),
        (format!("GET {PROGRESS} HTTP/1.1\r\nHost: x\r\n{}\r\n", filler(1).repeat(100)), 431),
        // Just within: refused for want of a token only.
        (format!("GET {PROGRESS} HTTP/1.1\r\nHost: x\r\n{}\r\n", filler(1).repeat(99)), 401),
        (format!("GET {PROGRESS} HTTP/1.1\r\nHost: x\r\n{}\r\n", filler(15 * 1024)), 401),
    ];
    for (head, status) in heads {
        let answer = scene.refuse(&head, |client| {
            client.send(&head);
            client.try_answer()
        });
        assert_eq!(answer.map(|answer| answer.status), Some(status), "{} bytes", head.len());
    }

    let body = |bytes: usize| format!(r#"{{"movie_id":43,"position_seconds":1,"x":"{}"}}"#, "a".repeat(bytes - 43));
    assert_eq!(body(4096).len(), 4096);
    let headers = format!("Host: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n", scene.token);
    let with_length =
        |bytes: usize| format!("POST {PROGRESS} HTTP/1.1\r\n{headers}Content-Length: {bytes}\r\n\r\n{}", body(bytes));
    let chunked = |bytes: usize| {
        let body = body(bytes);
        let (first, second) = body.split_at(1000);
        format!(
            "POST {PROGRESS} HTTP/1.1\r\n{headers}Transfer-Encoding: chunked\r\n\r\n3e8\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n",
            second.len()
        )
    };
    for request in [with_length(4097), chunked(4097), with_length(200_000), chunked(200_000)] {
        let answer = scene.refuse(&request[..80], |client| {
            client.send(&request);
            client.try_answer()
        });
        let answer = answer.unwrap();
        assert_eq!((answer.status, answer.slug().as_str()), (413, "payload-too-large"));
    }
    // Announced only: refused without waiting for it.
    let announced =
        format!("POST {PROGRESS} HTTP/1.1\r\n{headers}Content-Length: 4097\r\nExpect: 100-continue\r\n\r\n");
    let answer = scene.refuse("announced", |client| {
        client.send(&announced);
        client.try_answer()
    });
    assert_eq!(answer.unwrap().slug(), "payload-too-large");
    for request in [with_length(4096), chunked(4096)] {
        let mut client = scene.server.connect();
        client.send(request);
        assert_eq!(client.answer().status, 204);
    }
    scene.end();
}

/// Sends a piece again and again, a few times a second, until the server answers or closes; gives what it sent, and
/// when it was closed.
fn trickle(address: SocketAddr, start: &str, piece: &str) -> (String, Duration) {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    std::io::Write::write_all(&mut socket, start.as_bytes()).unwrap();
    let begun = Instant::now();
    let mut received = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        assert!(begun.elapsed() < Duration::from_secs(12), "never closed after {start:?}");
        match socket.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => received.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(_) => {}
        }
        if std::io::Write::write_all(&mut socket, piece.as_bytes()).is_err() {
            break;
        }
    }
    (String::from_utf8(received).unwrap(), begun.elapsed())
}

#[test]
fn a_slow_client_is_closed_in_time_however_it_trickles() {
    let directory = TempDir::new().unwrap();
    let server = Server::in_memory(&directory, &["--request-deadline", "1s", "--idle-timeout", "60s"]);
    let token = token(&directory, 7);
    let headers = format!("Host: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n");
    let head = format!("POST {PROGRESS} HTTP/1.1\r\n{headers}Content-Length: 4000\r\n\r\n");
    let chunked = format!("POST {PROGRESS} HTTP/1.1\r\n{headers}Transfer-Encoding: chunked\r\n\r\n");
    let complete = format!("GET {PROGRESS} HTTP/1.1\r\n{headers}\r\n");
    // What is sent, then what again and again, and how the answer begins.
    let cases = [
        ("", "", ""),
        ("P", "", ""),
        ("PRI * HTTP/2.0\r\n\r\n", "", ""),
        ("GET / HTTP/1.1\r\n", "X-Slow: 1\r\n", ""),
        (head.as_str(), "", "HTTP/1.1 408 "),
        (head.as_str(), " ", "HTTP/1.1 408 "),
        (chunked.as_str(), "1\r\n \r\n", "HTTP/1.1 408 "),
    ];
    std::thread::scope(|scope| {
        for (start, piece, answer) in cases {
            let address = server.address;
            scope.spawn(move || {
                let (received, time) = trickle(address, start, piece);
                let is_as_said = received.starts_with(answer) && received.is_empty() == answer.is_empty();
                assert!(is_as_said, "{start:?}: {received:?}");
                assert!(time >= Duration::from_millis(900) && time < Duration::from_secs(5), "{start:?}: {time:?}");
                assert!(answer.is_empty() || received.contains("connection: close"), "{received:?}");
            });
        }
    });
    // After a complete request, the next one's head has the same time.
    let (received, time) = trickle(server.address, &complete, "X");
    assert!(received.starts_with("HTTP/1.1 200 ") && time < Duration::from_secs(6), "{time:?} {received:?}");
    assert!(server.metric("playhead_connections_timed_out_total") >= 4);
    let mut client = server.connect();
    let list = client.get(&format!("{PROGRESS}?state=all"), Some(&token));
    assert!(list.json()["items"].as_array().unwrap().is_empty(), "something was stored: {list:?}");
}

#[test]
fn an_idle_connection_is_kept_for_its_own_time() {
    let directory = TempDir::new().unwrap();
    let server = Server::in_memory(&directory, &["--request-deadline", "1s", "--idle-timeout", "3s"]);
    let token = token(&directory, 7);
    let begun = Instant::now();
    let mut client = server.connect();
    assert_eq!(client.beat(&token, GOOD).status, 204);
    assert!(client.is_closed());
    let time = begun.elapsed();
    assert!(time >= Duration::from_millis(2900) && time < Duration::from_secs(10), "{time:?}");
}

#[test]
fn a_body_that_breaks_off_is_not_stored() {
    let scene = Scene::new();
    let headers = format!("Host: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n", scene.token);
    let body = GOOD.replace("42", "43");
    for framing in [format!("Content-Length: {}\r\n\r\n{body}", body.len() + 1), {
        format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n", body.len())
    }] {
        let answer = scene.refuse(&framing, |client| {
            client.send(format!("POST {PROGRESS} HTTP/1.1\r\n{headers}{framing}"));
            client.half_close();
            let answer = client.try_answer();
            assert!(client.is_closed());
            answer
        });
        if let Some(answer) = answer {
            assert_eq!(answer.slug(), "malformed-request", "{framing:?}");
        }
    }
    scene.end();
}

#[test]
fn unknown_methods_are_405_with_what_is_allowed() {
    let scene = Scene::new();
    for (path, allowed) in [
        (PROGRESS.to_owned(), "GET,HEAD,POST,DELETE"),
        (format!("{PROGRESS}/42"), "GET,HEAD,DELETE"),
        (BATCH.to_owned(), "POST"),
    ] {
        for method in ["PUT", "PATCH", "TRACE", "FOO", "get"] {
            let answer = scene.refuse(method, |client| Some(client.request(method, &path, &[], None))).unwrap();
            assert_eq!((answer.status, answer.slug().as_str()), (405, "method-not-allowed"), "{method} {path}");
            assert_eq!(answer.header("allow"), Some(allowed), "{method} {path}");
        }
    }
    let answer = scene.refuse("POST", |client| Some(client.request("POST", "/api/v1/stream/progress/42", &[], None)));
    assert_eq!(answer.unwrap().slug(), "method-not-allowed");
    scene.end();
}

#[test]
fn other_paths_are_404_and_nothing_is_normalised() {
    let scene = Scene::new();
    let beyond =
        ["abc", "042", "+42", "-0", "9223372036854775808", "42.0", "%34%32", "42%00", "%00", "%2e%2e", "4%2f2", "%zz"];
    let ids = beyond.map(|id| format!("{PROGRESS}/{id}"));
    let others = [
        "/",
        "/api/v1/stream/progress/",
        "/api/v1/stream/progress/42/",
        "/api/v1//stream/progress",
        "//api/v1/stream/progress",
        "/api/v1/stream/../stream/progress",
        "/API/v1/stream/progress",
        "/api/v1/stream/PROGRESS",
        "/api/v1/stream/progress%2f42",
        "/api/v1/stream/%70rogress",
        "/metrics",
        "/readyz",
    ];
    for path in ids.iter().map(String::as_str).chain(others) {
        scene.check_get(path, (404, "not-found"));
    }
    for path in others {
        let answer = scene.refuse(path, |client| Some(client.request("POST", path, &[], Some(GOOD.as_bytes()))));
        assert_eq!(answer.unwrap().status, 404, "{path}");
    }
    scene.end();
}

#[test]
fn bad_queries_are_400() {
    let scene = Scene::new();
    for movie in 1..=3 {
        let body = format!(r#"{{"movie_id":{movie},"position_seconds":5}}"#);
        assert_eq!(scene.server.connect().beat(&token(&scene.directory, 8), body).status, 204);
    }
    let theirs = scene.server.connect().get(&format!("{PROGRESS}?limit=1"), Some(&token(&scene.directory, 8)));
    let theirs = theirs.json()["next_cursor"].as_str().unwrap().to_owned();
    let cut = &theirs[..theirs.len() - 1];
    for query in [
        "limit=-1",
        "limit=0",
        "limit=abc",
        "limit=1e9",
        "limit=18446744073709551616",
        "limit=101",
        "limit=",
        "limit=5&limit=5",
        "state=none",
        "state=",
        "state=all&state=all",
        "cursor=",
        "cursor=!",
        "cursor=AAAA",
        "limit=%zz%ff",
        &format!("cursor={theirs}"),
        &format!("cursor={cut}"),
        "cursor=a&cursor=a",
        &["movie_id=1"; 101].join("&"),
        "movie_id=1&limit=5",
        "movie_id=1&state=all",
        &format!("movie_id=1&cursor={theirs}"),
        "movie_id=",
        "movie_id=042",
        "movie_id=1&movie_id=9223372036854775808",
    ] {
        scene.check_get(&format!("{PROGRESS}?{query}"), (400, "invalid-query"));
    }
    scene.end();
}

#[test]
fn only_plain_json_is_taken() {
    let scene = Scene::new();
    let body = GOOD.replace("42", "43");
    for media_type in ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16", ""] {
        scene.check_beat(&[("Content-Type", media_type)], body.as_bytes(), (415, "unsupported-media-type"));
    }
    let twice = [("Content-Type", "application/json"), ("Content-Type", "text/plain")];
    scene.check_beat(&twice, body.as_bytes(), (415, "unsupported-media-type"));
    for encoding in ["gzip", "identity", "br"] {
        scene.check_beat(&[("Content-Encoding", encoding)], body.as_bytes(), (415, "unsupported-media-type"));
    }
    let bearer = format!("Bearer {}", scene.token);
    let answer = scene.refuse("no type", |client| {
        Some(client.request("POST", PROGRESS, &[("Authorization", &bearer)], Some(body.as_bytes())))
    });
    assert_eq!(answer.unwrap().slug(), "unsupported-media-type");
    scene.end();
}

#[test]
fn what_is_no_json_is_400() {
    let scene = Scene::new();
    for end in 0..GOOD.len() {
        scene.check_beat(&[], &GOOD.as_bytes()[..end], (400, "malformed-json"));
    }
    let deep = format!(r#"{{"movie_id":{}"#, "[".repeat(4000));
    let digits = format!(r#"{{"movie_id":1,"position_seconds":1e{}}}"#, "9".repeat(4000));
    let cases: [&[u8]; 14] = [
        b"   ",
        b"{}{}",
        br#"{"movie_id":43,"position_seconds":2,}"#,
        br#"{"movie_id":43,"position_seconds":2} // so"#,
        b"\xEF\xBB\xBF{\"movie_id\":43,\"position_seconds\":2}",
        b"{\"movie_id\":43,\"position_seconds\":2,\"x\":\"\xFF\"}",
        br#"{"movie_id":"\ud800","position_seconds":2}"#,
        b"{\"movie_id\":\"43\n\",\"position_seconds\":2}",
        br#"{"movie_id":43,"position_seconds":NaN}"#,
        br#"{"movie_id":01,"position_seconds":2}"#,
        br#"{"movie_id":43,"position_seconds":+1}"#,
        br#"{"movie_id":43,"position_seconds":1e99999}"#,
        deep.as_bytes(),
        digits.as_bytes(),
    ];
    for body in cases {
        scene.check_beat(&[], body, (400, "malformed-json"));
    }
    scene.check_beat(&[], format!(r#"{{"movie_id":{}}}"#, "1".repeat(10_000)).as_bytes(), (413, "payload-too-large"));
    scene.end();
}

#[test]
fn what_is_no_heartbeat_is_422_with_a_pointer_for_each_fault() {
    let scene = Scene::new();
    let (id, position, duration) = ("/movie_id", "/position_seconds", "/duration_seconds");
    let cases: [(&str, &[&str]); 22] = [
        ("[]", &[""]),
        ("[7, 5.0]", &[""]),
        ("\"text\"", &[""]),
        ("7", &[""]),
        ("null", &[""]),
        ("{}", &[id, position]),
        (r#"{"movie_id":43}"#, &[position]),
        (r#"{"movie_id":null,"position_seconds":{},"duration_seconds":[]}"#, &[id, position, duration]),
        (r#"{"movie_id":43,"movie_id":43,"position_seconds":1}"#, &[id]),
        (r#"{"movie_id":43,"position_seconds":1,"position_seconds":1}"#, &[position]),
        (r#"{"movie_id":9223372036854775808,"position_seconds":1}"#, &[id]),
        (r#"{"movie_id":-9223372036854775809,"position_seconds":1}"#, &[id]),
        (r#"{"movie_id":1.5,"position_seconds":1}"#, &[id]),
        (r#"{"movie_id":1e3,"position_seconds":1}"#, &[id]),
        (r#"{"movie_id":"","position_seconds":1}"#, &[id]),
        (r#"{"movie_id":"042","position_seconds":1}"#, &[id]),
        (r#"{"movie_id":"४२","position_seconds":1}"#, &[id]),
        (r#"{"movie_id":43,"position_seconds":-0.001}"#, &[position]),
        (r#"{"movie_id":43,"position_seconds":1000000.001}"#, &[position]),
        (r#"{"movie_id":43,"position_seconds":"12"}"#, &[position]),
        (r#"{"movie_id":43,"position_seconds":1,"duration_seconds":0}"#, &[duration]),
        (r#"{"movie_id":43,"position_seconds":1,"duration_seconds":1e308}"#, &[duration]),
    ];
    for (body, pointers) in cases {
        scene.check_beat(&[], body.as_bytes(), (422, "invalid-request"));
        let answer = scene.server.connect().beat(&scene.token, body).json();
        let faults = answer["errors"].as_array().unwrap();
        let found: Vec<_> = faults.iter().map(|fault| fault["pointer"].as_str().unwrap()).collect();
        assert_eq!(found, pointers, "{body}");
        assert!(faults.iter().all(|fault| fault["code"].is_string() && fault["detail"].is_string()), "{answer}");
    }
    let answer = scene.server.connect().beat(&scene.token, r#"{"movie_id":"SECRET","position_seconds":1}"#);
    assert!(!answer.body.contains("SECRET"), "the answer repeats what was sent: {answer:?}");
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
