//! Paging: over a row that beats keep changing, no title is repeated and the end comes; and a cursor is good for nothing
//! but what it was made for.

use crate::client::{Client, PROGRESS, mint, token};
use crate::process::Server;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tempfile::TempDir;

/// Titles that nobody watches any more, and those that beats keep coming for.
const RESTING: std::ops::RangeInclusive<i64> = 1..=40;
const WATCHED: std::ops::RangeInclusive<i64> = 41..=60;

fn body(movie: i64, position: u64) -> String {
    format!(r#"{{"movie_id":{movie},"position_seconds":{position},"duration_seconds":100}}"#)
}

/// Goes from page to page to the end; gives the titles in the order they came.
fn walk(client: &mut Client, token: &str, query: &str) -> Vec<i64> {
    let mut found = Vec::new();
    let mut path = format!("{PROGRESS}?{query}");
    loop {
        let answer = client.get(&path, Some(token));
        assert_eq!(answer.status, 200, "{answer:?}");
        let page = answer.json();
        let items = page["items"].as_array().unwrap();
        assert!(!items.is_empty(), "a page with nothing on it, at {path}");
        found.extend(items.iter().map(|item| item["movie_id"].as_str().unwrap().parse::<i64>().unwrap()));
        assert!(found.len() <= 60, "more titles than there are: {found:?}");
        let Some(cursor) = page["next_cursor"].as_str() else { return found };
        path = format!("{PROGRESS}?{query}&cursor={cursor}");
    }
}

#[test]
fn over_a_row_that_beats_keep_changing_no_title_is_repeated_and_the_end_comes() {
    let directory = TempDir::new().unwrap();
    let server = Server::in_memory(&directory, &["--workers", "2"]);
    let token = token(&directory, 7);
    let mut client = server.connect();
    // In progress, every third completed.
    let position = |movie: i64| if movie % 3 == 0 { 99 } else { 50 };
    for movie in RESTING.chain(WATCHED) {
        assert_eq!(client.beat(&token, body(movie, position(movie))).status, 204);
    }
    let (ends, beats, address) = (AtomicBool::new(false), AtomicU64::new(0), server.address);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = Client::to(address);
            for movie in WATCHED.cycle() {
                if ends.load(Ordering::Relaxed) {
                    break;
                }
                assert_eq!(client.beat(&token, body(movie, position(movie))).status, 204);
                beats.fetch_add(1, Ordering::Relaxed);
            }
        });
        for round in 0..30 {
            for (query, shows) in [
                (format!("state=all&limit={}", 1 + round % 7), None),
                (format!("state=in_progress&limit={}", 1 + round % 5), Some(50)),
                (format!("state=completed&limit={}", 1 + round % 3), Some(99)),
            ] {
                let before = beats.load(Ordering::Relaxed);
                let found = walk(&mut client, &token, &query);
                let distinct: BTreeSet<_> = found.iter().copied().collect();
                assert_eq!(distinct.len(), found.len(), "{query} repeats a title: {found:?}");
                let expected = |movie: &i64| shows.is_none_or(|shows| shows == position(*movie));
                assert!(found.iter().all(expected), "{query} shows another state: {found:?}");
                // Who rests is never missed.
                let resting: Vec<_> = found.iter().copied().filter(|movie| RESTING.contains(movie)).collect();
                assert_eq!(resting, RESTING.rev().filter(expected).collect::<Vec<_>>(), "{query}");
                // The next walk has something to run into.
                crate::process::eventually("beats go on", || beats.load(Ordering::Relaxed) > before);
            }
        }
        ends.store(true, Ordering::Relaxed);
    });
    assert!(beats.into_inner() > 90);
}

#[test]
fn a_cursor_of_another_user_or_state_or_one_that_was_cut_or_changed_is_400() {
    let directory = TempDir::new().unwrap();
    let server = Server::in_memory(&directory, &[]);
    let secret = crate::client::dev_secret(&directory);
    let (mine, theirs) = (mint(&secret, 7), mint(&secret, 8));
    let mut client = server.connect();
    for token in [&mine, &theirs] {
        for movie in 1..=3 {
            assert_eq!(client.beat(token, body(movie, 50)).status, 204);
        }
    }
    let cursor = |client: &mut Client, token: &str, state: &str| {
        let page = client.get(&format!("{PROGRESS}?limit=1&state={state}"), Some(token)).json();
        page["next_cursor"].as_str().unwrap().to_owned()
    };
    let check = |client: &mut Client, query: &str, status: u16| {
        let answer = client.get(&format!("{PROGRESS}?{query}"), Some(&mine));
        assert_eq!(answer.status, status, "{query}: {answer:?}");
        if status == 400 {
            assert_eq!(answer.slug(), "invalid-query", "{query}");
        }
    };
    let good = cursor(&mut client, &mine, "all");
    check(&mut client, &format!("state=all&cursor={good}"), 200);
    check(&mut client, &format!("state=all&limit=2&cursor={good}"), 200);
    for state in ["in_progress", "completed"] {
        check(&mut client, &format!("state={state}&cursor={good}"), 400);
    }
    check(&mut client, &format!("cursor={good}"), 400);
    let others = cursor(&mut client, &theirs, "all");
    check(&mut client, &format!("state=all&cursor={others}"), 400);
    let in_progress = cursor(&mut client, &mine, "in_progress");
    check(&mut client, &format!("state=all&cursor={in_progress}"), 400);
    // Cut at each byte, at either end; longer; and each byte changed to each of its alphabet.
    for end in 0..good.len() {
        check(&mut client, &format!("state=all&cursor={}", &good[..end]), 400);
        check(&mut client, &format!("state=all&cursor={}", &good[end + 1..]), 400);
    }
    for more in ["A", "AA", "AAAA", "%3D", "%00", "%20"] {
        check(&mut client, &format!("state=all&cursor={good}{more}"), 400);
    }
    for at in 0..good.len() {
        for byte in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".chars() {
            if good[at..].starts_with(byte) {
                continue;
            }
            let changed = format!("{}{byte}{}", &good[..at], &good[at + 1..]);
            check(&mut client, &format!("state=all&cursor={changed}"), 400);
        }
    }
    check(&mut client, &format!("state=all&cursor={good}"), 200);
}
