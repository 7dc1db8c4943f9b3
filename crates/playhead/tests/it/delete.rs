//! Forgetting a title and a user: gone, for good, and nobody else's. And over any sequence of calls, that two users are
//! two users.

use crate::client::{Client, PATIENCE, PROGRESS, mint, token};
use crate::process::{Launch, Server};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use std::cell::Cell;
use tempfile::TempDir;

fn beat(movie: i64, position: f64) -> String {
    json!({"movie_id": movie, "position_seconds": position}).to_string()
}

fn late(movie: i64, position: f64, age_ms: u64) -> String {
    let sent_at_ms = 1_700_000_000_000_u64;
    let item = json!({"movie_id": movie, "position_seconds": position, "event_time_ms": sent_at_ms - age_ms});
    json!({"sent_at_ms": sent_at_ms, "items": [item]}).to_string()
}

/// Titles and positions, in the order of titles.
fn rows(client: &mut Client, token: &str) -> Vec<(i64, f64)> {
    let answer = client.get(&format!("{PROGRESS}?state=all&limit=100"), Some(token));
    assert_eq!(answer.status, 200, "{answer:?}");
    let row = |item: &Value| {
        (item["movie_id"].as_str().unwrap().parse::<i64>().unwrap(), item["position_seconds"].as_f64().unwrap())
    };
    let mut rows: Vec<_> = answer.json()["items"].as_array().unwrap().iter().map(row).collect();
    rows.sort_by_key(|(movie, _)| *movie);
    rows
}

#[test]
fn a_forgotten_title_is_gone_and_a_late_item_does_not_bring_it_back() {
    let directory = TempDir::new().unwrap();
    // On the embedded store: what is barred must be so after a restart too.
    let mut server = Launch::new(directory.path(), &["--dev"]).start();
    let (token, other) = (token(&directory, 7), token(&directory, 8));
    let mut client = server.connect();
    for movie in 1..=3 {
        assert_eq!(client.beat(&token, beat(movie, 10.0)).status, 204);
        assert_eq!(client.beat(&other, beat(movie, 20.0)).status, 204);
    }
    let others = rows(&mut client, &other);
    for path in [format!("{PROGRESS}/2"), format!("{PROGRESS}/2"), format!("{PROGRESS}/99")] {
        let answer = client.delete(&path, &token);
        assert_eq!((answer.status, answer.body.as_str()), (204, ""), "{path}");
    }
    assert_eq!(client.get(&format!("{PROGRESS}/2"), Some(&token)).json()["state"], "none");
    assert_eq!(rows(&mut client, &token), [(1, 10.0), (3, 10.0)]);
    for age_ms in [60_000, 86_400_000] {
        assert_eq!(client.batch(&token, late(2, 5.0, age_ms)).status, 204);
    }
    assert_eq!(rows(&mut client, &token), [(1, 10.0), (3, 10.0)]);
    server.signal(rustix::process::Signal::TERM);
    assert_eq!(server.wait(PATIENCE).status.code(), Some(0));

    let server = Launch::new(directory.path(), &["--dev"]).start();
    let mut client = server.connect();
    assert_eq!(client.batch(&token, late(2, 5.0, 60_000)).status, 204);
    assert_eq!(rows(&mut client, &token), [(1, 10.0), (3, 10.0)]);
    // What happens afterwards is stored as ever.
    assert_eq!(client.beat(&token, beat(2, 11.0)).status, 204);
    assert_eq!(rows(&mut client, &token), [(1, 10.0), (2, 11.0), (3, 10.0)]);

    assert_eq!(client.delete(PROGRESS, &token).status, 204);
    assert_eq!(client.batch(&token, late(1, 5.0, 60_000)).status, 204);
    assert!(rows(&mut client, &token).is_empty());
    assert_eq!(client.beat(&token, beat(1, 12.0)).status, 204);
    assert_eq!(rows(&mut client, &token), [(1, 12.0)]);
    assert_eq!(rows(&mut client, &other), others);
}

#[test]
fn only_a_canonical_id_names_a_title_to_forget() {
    let directory = TempDir::new().unwrap();
    let server = Server::in_memory(&directory, &[]);
    let (token, mut client) = (token(&directory, 7), server.connect());
    assert_eq!(client.beat(&token, beat(42, 1.0)).status, 204);
    for id in ["042", "+42", "abc", "%34%32", "42/", "", "9223372036854775808"] {
        let answer = client.delete(&format!("{PROGRESS}/{id}"), &token);
        assert_eq!((answer.status, answer.slug().as_str()), (404, "not-found"), "{id:?}");
    }
    assert_eq!(rows(&mut client, &token), [(42, 1.0)]);
}

/// One call of one of two users; titles are few, so that both have the same ones.
#[derive(Debug, Clone)]
enum Call {
    Beat(i64),
    Late(i64, u64),
    Read(i64),
    Set,
    Forget(i64),
    Erase,
}

fn calls() -> impl Strategy<Value = Vec<(bool, Call)>> {
    let movie = 1i64..4;
    let call = prop_oneof![
        4 => movie.clone().prop_map(Call::Beat),
        2 => (movie.clone(), 0u64..100_000).prop_map(|(movie, age_ms)| Call::Late(movie, age_ms)),
        1 => movie.clone().prop_map(Call::Read),
        1 => Just(Call::Set),
        2 => movie.prop_map(Call::Forget),
        1 => Just(Call::Erase),
    ];
    prop::collection::vec((any::<bool>(), call), 1..24)
}

#[test]
fn over_any_sequence_of_calls_neither_of_two_users_sees_or_changes_the_others_rows() {
    let directory = TempDir::new().unwrap();
    let server = Server::in_memory(&directory, &[]);
    let secret = std::fs::read_to_string(directory.path().join("dev-secret")).unwrap();
    let token = |user: i64| mint(secret.trim_end().as_bytes(), user);
    let next_user = Cell::new(1);
    let check = |calls: Vec<(bool, Call)>| {
        // New users for each sequence, whose positions tell whose they are.
        let first = next_user.replace(next_user.get() + 2);
        let tokens = [token(first), token(first + 1)];
        let mut client = server.connect();
        let mut step = 0.0;
        for (is_second, call) in calls {
            let (me, position) = (usize::from(is_second), f64::from(is_second) * 1_000.0 + step);
            step += 1.0;
            let theirs = rows(&mut client, &tokens[1 - me]);
            let answer = match &call {
                Call::Beat(movie) => client.beat(&tokens[me], beat(*movie, position)),
                Call::Late(movie, age_ms) => client.batch(&tokens[me], late(*movie, position, *age_ms)),
                Call::Read(movie) => client.get(&format!("{PROGRESS}/{movie}"), Some(&tokens[me])),
                Call::Set => client.get(&format!("{PROGRESS}?movie_id=1&movie_id=2&movie_id=3"), Some(&tokens[me])),
                Call::Forget(movie) => client.delete(&format!("{PROGRESS}/{movie}"), &tokens[me]),
                Call::Erase => client.delete(PROGRESS, &tokens[me]),
            };
            prop_assert!(matches!(answer.status, 200 | 204), "{:?}: {:?}", call, answer);
            prop_assert_eq!(rows(&mut client, &tokens[1 - me]), theirs, "{:?}", call);
            let mut mine = rows(&mut client, &tokens[me]);
            if !answer.body.is_empty() {
                let json = answer.json();
                let items = json["items"].as_array().cloned().unwrap_or_else(|| vec![json]);
                mine.extend(
                    items
                        .iter()
                        .filter(|item| item["state"] != "none")
                        .map(|item| (0, item["position_seconds"].as_f64().unwrap())),
                );
            }
            let is_mine = |(_, position): &(i64, f64)| (*position >= 1_000.0) == is_second;
            prop_assert!(mine.iter().all(is_mine), "{:?} shows {:?}", call, mine);
            match call {
                Call::Beat(movie) => prop_assert!(mine.contains(&(movie, position))),
                Call::Forget(movie) => prop_assert!(mine.iter().all(|(found, _)| *found != movie)),
                Call::Erase => prop_assert!(mine.is_empty()),
                Call::Late(..) | Call::Read(_) | Call::Set => {}
            }
        }
        Ok(())
    };
    let mut runner = TestRunner::new(ProptestConfig { cases: 48, failure_persistence: None, ..Default::default() });
    if let Err(error) = runner.run(&calls(), check) {
        panic!("{error}");
    }
}
