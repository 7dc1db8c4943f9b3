//! Who asks too often is told to wait, on each route, and nobody else is.

use crate::client::{Answer, BATCH, Client, PROGRESS, beat, token};
use crate::process::{Server, eventually};
use std::time::Instant;
use tempfile::TempDir;

const LATE: &str = r#"{"sent_at_ms": 5, "items": [{"movie_id": 42, "position_seconds": 9, "event_time_ms": 5}]}"#;

/// Sends one of each route's requests and gives the answers; the last two forget.
fn one_of_each(client: &mut Client, bearer: &str) -> Vec<(&'static str, Answer)> {
    vec![
        ("heartbeat", client.beat(bearer, beat(1, 1))),
        ("batch", client.batch(bearer, LATE)),
        ("title", client.get(&format!("{PROGRESS}/1"), Some(bearer))),
        ("titles", client.get(PROGRESS, Some(bearer))),
        ("titles", client.get(&format!("{PROGRESS}?movie_id=1&movie_id=2"), Some(bearer))),
        ("forget", client.delete(&format!("{PROGRESS}/1"), bearer)),
        ("erase", client.delete(PROGRESS, bearer)),
    ]
}

fn check_refusal(answer: &Answer, seconds: std::ops::RangeInclusive<u32>) {
    assert_eq!((answer.status, answer.slug().as_str()), (429, "rate-limited"), "{answer:?}");
    let wait: u32 = answer.header("retry-after").expect("it says when").parse().unwrap();
    assert!(seconds.contains(&wait), "{answer:?}");
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer:?}");
}

#[test]
fn past_a_users_rate_each_route_is_429_and_others_are_served() {
    let directory = TempDir::new().unwrap();
    let origin = "https://watch.example.com";
    let flags = ["--throttle-per-second", "1", "--throttle-burst", "8", "--cors-origin", origin];
    let server = Server::in_memory(&directory, &flags);
    let (bearer, other) = (token(&directory, 7), token(&directory, 8));
    // Connections are dealt to workers in turn; the rate is the user's over all of them.
    let mut clients: Vec<_> = (0..4).map(|_| server.connect()).collect();
    let begun = Instant::now();
    let taken = (0..200).filter(|number| clients[number % 4].beat(&bearer, beat(1, 5)).status == 204).count();
    let allowed = 8 + usize::try_from(begun.elapsed().as_secs()).unwrap() + 1;
    assert!((8..=allowed).contains(&taken), "{taken} of {allowed} in {:?}", begun.elapsed());

    // Refused requests do not count, so all of these are.
    for client in &mut clients {
        eventually("all that was saved up is used", || client.beat(&bearer, beat(1, 5)).status == 429);
        for (route, answer) in one_of_each(client, &bearer).into_iter().filter(|(_, answer)| answer.status >= 300) {
            println!("{route}: {answer:?}");
            check_refusal(&answer, 1..=1);
            assert_eq!(answer.header("vary"), Some("Origin"), "{answer:?}");
        }
    }
    for (route, _) in one_of_each(&mut clients[0], &bearer) {
        let counted = format!(r#"playhead_http_requests_total{{route="{route}",status="429"}}"#);
        assert!(server.metric(&counted) > 0, "{route} was never refused");
    }
    // What needs no token and what has a bad one is what it was; so are another user, and a preflight.
    assert_eq!(clients[0].get(PROGRESS, None).status, 401);
    assert_eq!(clients[0].request("PUT", PROGRESS, &[], None).status, 405);
    let preflight = [("Origin", origin), ("Access-Control-Request-Method", "POST")];
    assert_eq!(clients[0].request("OPTIONS", BATCH, &preflight, None).status, 204);
    let answers: Vec<_> = one_of_each(&mut clients[0], &other).iter().map(|(_, answer)| answer.status).collect();
    assert_eq!(answers, [204, 204, 200, 200, 200, 204, 204]);
    // And after the time that was named, this one.
    eventually("the user is served again", || clients[1].beat(&bearer, beat(1, 6)).status == 204);
}

#[test]
fn by_default_a_player_may_stutter_and_a_loop_may_not() {
    let directory = TempDir::new().unwrap();
    let flags = ["--throttle-per-second", "10", "--delete-throttle-per-second", "1"];
    let server = Server::in_memory(&directory, &flags);
    let bearer = token(&directory, 7);
    let mut client = server.connect();
    let begun = Instant::now();
    let deleted = (0..60).filter(|_| client.delete(PROGRESS, &bearer).status == 204).count();
    let allowed = 20 + usize::try_from(begun.elapsed().as_secs()).unwrap() + 1;
    assert!((20..=allowed).contains(&deleted), "{deleted} of {allowed}");
    eventually("all that was saved up is used", || client.delete(PROGRESS, &bearer).status == 429);
    check_refusal(&client.delete(&format!("{PROGRESS}/1"), &bearer), 1..=1);
    // Who may not forget for a while may well watch.
    assert_eq!(client.beat(&bearer, beat(1, 1)).status, 204);

    let begun = Instant::now();
    let taken = (0..400).filter(|_| client.beat(&bearer, beat(1, 5)).status == 204).count();
    let allowed = 100 + usize::try_from(begun.elapsed().as_millis() / 100).unwrap() + 1;
    // Some of it was used for deletions, and some of that has come back.
    assert!((20..=allowed).contains(&taken), "{taken} of {allowed}");
}

#[test]
fn without_a_rate_nobody_is_throttled() {
    let directory = TempDir::new().unwrap();
    let server = Server::in_memory(&directory, &["--throttle-burst", "0", "--delete-throttle-per-second", "0"]);
    let bearer = token(&directory, 7);
    let mut client = server.connect();
    assert!((0..300).all(|_| client.beat(&bearer, beat(1, 1)).status == 204));
    assert!((0..60).all(|_| client.delete(PROGRESS, &bearer).status == 204));
}

#[test]
fn every_answer_asks_for_the_interval_that_is_set() {
    let directory = TempDir::new().unwrap();
    let flags = ["--beat-interval", "8s", "--throttle-per-second", "1", "--throttle-burst", "8"];
    let server = Server::in_memory(&directory, &flags);
    let bearer = token(&directory, 7);
    let mut client = server.connect();
    let mut answers = one_of_each(&mut client, &bearer);
    for _ in 0..4 {
        answers.push(("heartbeat", client.beat(&bearer, beat(1, 1))));
    }
    answers.push(("none", client.get("/nowhere", None)));
    answers.push(("none", client.get(PROGRESS, None)));
    assert!(answers.iter().any(|(_, answer)| answer.status == 429), "{answers:?}");
    for (_, answer) in answers {
        assert_eq!(answer.header("playhead-interval"), Some("8"), "{answer:?}");
    }
    let server = Server::in_memory(&TempDir::new().unwrap(), &[]);
    assert_eq!(server.connect().get(PROGRESS, None).header("playhead-interval"), None);
}
