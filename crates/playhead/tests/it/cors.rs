//! CORS: every answer tells the browser that its page may read it, be it a success, an error or an early refusal; and
//! without configured origins there is nothing of it.

use crate::client::{Answer, BATCH, Client, PROGRESS, token};
use crate::process::{Launch, Server, eventually, run};
use tempfile::TempDir;

const PAGE: &str = "https://watch.example.com";
const OTHER: &str = "http://localhost:5173";
const FLAGS: [&str; 4] = ["--cors-origin", PAGE, "--cors-origin", OTHER];
const GOOD: &str = r#"{"movie_id": 42, "position_seconds": 1234.5}"#;

/// Method, path, headers and body of a request, and its answer's status.
type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], Option<&'a [u8]>, u16);

/// An answer is marked for this origin, or for none.
fn check_marks(answer: &Answer, origin: Option<&str>, what: &str) {
    assert_eq!(answer.header("access-control-allow-origin"), origin, "{what}: {answer:?}");
    assert_eq!(answer.header("vary"), Some("Origin"), "{what}: {answer:?}");
    let exposed = answer.header("access-control-expose-headers");
    assert_eq!(exposed, Some("Retry-After, Playhead-Interval"), "{what}: {answer:?}");
    assert_eq!(answer.header("access-control-allow-credentials"), None, "{what}: {answer:?}");
}

fn preflight(client: &mut Client, path: &str, origin: &str, method: &str) -> Answer {
    let headers = [
        ("Origin", origin),
        ("Access-Control-Request-Method", method),
        ("Access-Control-Request-Headers", "authorization,content-type"),
    ];
    client.request("OPTIONS", path, &headers, None)
}

fn check_preflight(answer: &Answer, origin: Option<&str>) {
    assert_eq!((answer.status, answer.body.as_str()), (204, ""), "{answer:?}");
    check_marks(answer, origin, "preflight");
    assert_eq!(answer.header("access-control-allow-methods"), Some("GET, POST, DELETE"));
    assert_eq!(answer.header("access-control-allow-headers"), Some("authorization, content-type"));
    assert_eq!(answer.header("access-control-max-age"), Some("7200"));
}

#[test]
fn every_answer_may_be_read_by_a_page_of_a_configured_origin_and_of_no_other() {
    let directory = TempDir::new().unwrap();
    let server = Server::in_memory(&directory, &FLAGS);
    let bearer = format!("Bearer {}", token(&directory, 7));
    let auth = ("Authorization", bearer.as_str());
    let json = ("Content-Type", "application/json");
    let long = vec![b' '; 4097];
    let late = r#"{"sent_at_ms":5,"items":[{"movie_id":1,"position_seconds":1,"event_time_ms":5}]}"#;
    let title = format!("{PROGRESS}/42");
    let query = format!("{PROGRESS}?limit=0");
    let cases: [Case<'_>; 16] = [
        ("POST", PROGRESS, &[auth, json], Some(GOOD.as_bytes()), 204),
        ("POST", PROGRESS, &[json], Some(GOOD.as_bytes()), 401),
        ("POST", PROGRESS, &[auth], Some(GOOD.as_bytes()), 415),
        ("POST", PROGRESS, &[auth, json], Some(b"{"), 400),
        ("POST", PROGRESS, &[auth, json], Some(b"{}"), 422),
        ("POST", PROGRESS, &[auth, json], Some(&long), 413),
        ("POST", BATCH, &[auth, json], Some(late.as_bytes()), 204),
        ("POST", BATCH, &[auth, json], Some(b"{}"), 422),
        ("GET", BATCH, &[auth], None, 405),
        ("GET", &title, &[auth], None, 200),
        ("GET", &title, &[], None, 401),
        ("GET", PROGRESS, &[auth], None, 200),
        ("GET", &query, &[auth], None, 400),
        ("GET", "/nowhere", &[], None, 404),
        ("OPTIONS", PROGRESS, &[], None, 405),
        ("DELETE", &title, &[auth], None, 204),
    ];
    for (method, path, headers, body, status) in cases {
        for (origin, granted) in [
            (Some(PAGE), Some(PAGE)),
            (Some(OTHER), Some(OTHER)),
            (Some("https://evil.example"), None),
            (Some("null"), None),
            (None, None),
        ] {
            let origin_header = origin.map(|origin| ("Origin", origin));
            let headers: Vec<_> = headers.iter().copied().chain(origin_header).collect();
            let what = format!("{method} {path} {origin:?}");
            let answer = server.connect().request(method, path, &headers, body);
            assert_eq!(answer.status, status, "{what}: {answer:?}");
            check_marks(&answer, granted, &what);
        }
    }
    // Not HTTP as it should be, and refused before it is looked at.
    let mut client = server.connect();
    client.send(format!("POST {PROGRESS} HTTP/1.1\r\nOrigin: {PAGE}\r\nContent-Length: 0\r\n\r\n"));
    let answer = client.answer();
    assert_eq!(answer.slug(), "malformed-request");
    check_marks(&answer, Some(PAGE), "no host");
}

#[test]
fn a_preflight_needs_no_token_and_is_the_same_for_every_path() {
    let directory = TempDir::new().unwrap();
    let server = Server::in_memory(&directory, &FLAGS);
    let mut client = server.connect();
    for path in [PROGRESS, BATCH, "/api/v1/stream/progress/42", "/nowhere"] {
        for method in ["POST", "GET", "DELETE"] {
            check_preflight(&preflight(&mut client, path, PAGE, method), Some(PAGE));
        }
        check_preflight(&preflight(&mut client, path, "https://evil.example", "POST"), None);
    }
}

#[test]
fn a_refusal_under_load_may_be_read_and_a_preflight_is_never_shed() {
    let directory = TempDir::new().unwrap();
    let origins = [PAGE, OTHER].join(",");
    let launch = Launch::embedded(directory.path()).with(&["--cors-origin", &origins, "--request-deadline", "2s"]);
    // The committer waits for so long for more beats: as long, one is under way and holds the only place.
    let flags = ["--workers", "1", "--max-in-flight-writes", "1", "--commit-window", "3s"];
    let server = launch.with(&flags).start();
    let token = token(&directory, 7);
    let mut slow = server.connect();
    slow.send(format!(
        "POST {PROGRESS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Origin: {PAGE}\r\nContent-Length: 40\r\n\r\n{{"
    ));
    let mut holder = server.connect();
    holder.send_beat(&token, GOOD).unwrap();
    let mut client = server.connect();
    let mut shed = None;
    eventually("a beat is shed", || {
        let answer = client.request("POST", PROGRESS, &[("Origin", PAGE)], Some(b""));
        shed = (answer.status == 503).then_some(answer);
        shed.is_some()
    });
    let shed = shed.unwrap();
    assert_eq!((shed.slug().as_str(), shed.header("retry-after")), ("overloaded", Some("4")));
    check_marks(&shed, Some(PAGE), "shed");
    check_preflight(&preflight(&mut client, PROGRESS, PAGE, "POST"), Some(PAGE));
    let late = slow.answer();
    assert_eq!(late.slug(), "request-timeout");
    check_marks(&late, Some(PAGE), "late");
}

#[test]
fn without_origins_there_is_nothing_of_it() {
    let directory = TempDir::new().unwrap();
    let server = Server::in_memory(&directory, &[]);
    let token = token(&directory, 7);
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json"), ("Origin", PAGE)];
    let mut client = server.connect();
    let beat = client.request("POST", PROGRESS, &headers, Some(GOOD.as_bytes()));
    let answers =
        [beat, client.request("GET", PROGRESS, &headers, None), preflight(&mut client, PROGRESS, PAGE, "POST")];
    for (answer, status) in answers.iter().zip([204, 200, 405]) {
        assert_eq!(answer.status, status, "{answer:?}");
        let is_cors = |name: &str| name.starts_with("access-control-") || name == "vary";
        assert!(!answer.headers.iter().any(|(name, _)| is_cors(name)), "{answer:?}");
    }
}

#[test]
fn any_origin_goes_with_dev_only_and_what_is_no_origin_is_refused() {
    let directory = TempDir::new().unwrap();
    let server = Server::in_memory(&directory, &["--cors-origin", "*"]);
    check_preflight(&preflight(&mut server.connect(), PROGRESS, "https://any.example", "POST"), Some("*"));
    check_marks(&server.connect().get(PROGRESS, None), Some("*"), "no token");
    drop(server);

    let data = directory.path().to_str().unwrap();
    let secret = directory.path().join("dev-secret");
    let secret = secret.to_str().unwrap();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data-dir", data];
    for (flags, advice) in [
        (&["--jwt-secret-file", secret, "--cors-origin", "*"][..], "--dev"),
        (&["--dev", "--cors-origin", "*", "--cors-origin", PAGE][..], "alone"),
        (&["--dev", "--cors-origin", "https://watch.example.com/"][..], "no path"),
        (&["--dev", "--cors-origin", "null"][..], "is no origin"),
    ] {
        let ended = run(&[&serve, flags].concat());
        assert_eq!(ended.code, Some(2), "{flags:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(advice), "{flags:?}: {}", ended.stderr);
    }
}
