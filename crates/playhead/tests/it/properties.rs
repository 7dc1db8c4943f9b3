//! Any interleaving of live beats, late batches, forgetting and erasing, of two users, equals a model of a page: after each
//! call each user's whole list, its order included, is what the model says. So nobody sees or changes another's rows.
//!
//! The model knows no clock: it counts the writes, and takes a late item's age off in minutes, each of which outweighs all
//! writes that a test can make.

use crate::client::{Client, PROGRESS, mint};
use crate::process::{Launch, Server};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::json;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use tempfile::TempDir;

/// In the model's time, longer than any test has writes.
const MINUTE: i64 = 1_000_000;

/// Where a row of the model is, and when it was written.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Row {
    time: i64,
    position: u32,
    duration: Option<u32>,
}

/// What a list shows of a row: title, position and duration.
type Listed = (i64, f64, Option<f64>);

/// What should be kept of one user.
#[derive(Debug, Default)]
struct Oracle {
    rows: BTreeMap<i64, Row>,
    barriers: BTreeMap<i64, i64>,
    erased: Option<i64>,
}

impl Oracle {
    fn put(&mut self, movie: i64, row: Row) {
        let barrier = self.barriers.get(&movie).copied().max(self.erased);
        let is_barred = barrier.is_some_and(|barrier| row.time <= barrier);
        let is_older = self.rows.get(&movie).is_some_and(|kept| row.time <= kept.time);
        if !is_barred && !is_older {
            self.rows.insert(movie, row);
        }
    }

    fn forget(&mut self, movie: i64, time: i64) {
        self.rows.remove(&movie);
        self.barriers.insert(movie, time);
    }

    fn erase(&mut self, time: i64) {
        self.rows.clear();
        self.erased = Some(time);
    }

    /// The list with all states: newest first.
    fn list(&self) -> Vec<Listed> {
        let mut rows: Vec<_> = self.rows.iter().collect();
        rows.sort_by_key(|(movie, row)| (-row.time, **movie));
        rows.into_iter().map(|(movie, row)| (*movie, row.position.into(), row.duration.map(f64::from))).collect()
    }
}

#[derive(Debug, Clone)]
struct Item {
    movie: i64,
    age_minutes: i64,
    duration: Option<u32>,
}

#[derive(Debug, Clone)]
enum Call {
    Beat(i64, Option<u32>),
    Late(Vec<Item>),
    Forget(i64),
    Erase,
    /// The server is killed and started again.
    Restart,
}

/// Calls of one of two users; titles are few, so that both have the same ones and calls meet.
fn calls(restarts: u32) -> impl Strategy<Value = Vec<(bool, Call)>> {
    let movie = -1i64..4;
    let duration = prop::option::of(1u32..200);
    let item = (movie.clone(), 0i64..6, duration.clone()).prop_map(|(movie, age_minutes, duration)| Item {
        movie,
        age_minutes,
        duration,
    });
    let call = prop_oneof![
        8 => (movie.clone(), duration).prop_map(|(movie, duration)| Call::Beat(movie, duration)),
        8 => prop::collection::vec(item, 1..5).prop_map(Call::Late),
        4 => movie.prop_map(Call::Forget),
        2 => Just(Call::Erase),
        restarts => Just(Call::Restart),
    ];
    prop::collection::vec((any::<bool>(), call), 1..32)
}

/// A list as the server gives it, page by page.
fn list(client: &mut Client, token: &str) -> Vec<Listed> {
    let mut rows = Vec::new();
    let mut path = format!("{PROGRESS}?state=all&limit=3");
    loop {
        let answer = client.get(&path, Some(token));
        assert_eq!(answer.status, 200, "{answer:?}");
        let page = answer.json();
        rows.extend(page["items"].as_array().unwrap().iter().map(|item| {
            let movie = item["movie_id"].as_str().unwrap().parse().unwrap();
            (movie, item["position_seconds"].as_f64().unwrap(), item["duration_seconds"].as_f64())
        }));
        let Some(cursor) = page["next_cursor"].as_str() else { return rows };
        path = format!("{PROGRESS}?state=all&limit=3&cursor={cursor}");
    }
}

/// A device's clock, which may be any.
const SENT_AT_MS: i64 = 900_000_000;

fn check(launch: &Launch, cases: u32, restarts: u32) {
    let server = RefCell::new(Some(launch.start()));
    let secret = crate::client::dev_secret(&launch.directory);
    let next_user = Cell::new(1);
    let run = |calls: Vec<(bool, Call)>| {
        // New users for each sequence.
        let first = next_user.replace(next_user.get() + 2);
        let tokens = [mint(&secret, first), mint(&secret, first + 1)];
        let mut oracles = [Oracle::default(), Oracle::default()];
        let mut client = server.borrow().as_ref().map(Server::connect).unwrap();
        // Positions tell the writes apart, and with them the users.
        let mut time = 0;
        let mut tick = || {
            time += 1;
            (time, u32::try_from(time).unwrap())
        };
        for (is_second, call) in &calls {
            let (token, oracle) = (&tokens[usize::from(*is_second)], &mut oracles[usize::from(*is_second)]);
            let answer = match call {
                Call::Beat(movie, duration) => {
                    let (time, position) = tick();
                    oracle.put(*movie, Row { time, position, duration: *duration });
                    let body = json!({"movie_id": movie, "position_seconds": position, "duration_seconds": duration});
                    Some(client.beat(token, body.to_string()))
                }
                Call::Late(items) => {
                    let mut by_age: Vec<_> = items.iter().map(|item| (item, 0)).collect();
                    by_age.sort_by_key(|(item, _)| -item.age_minutes);
                    for (item, position) in &mut by_age {
                        let (now, at) = tick();
                        *position = at;
                        let row = Row { time: now - item.age_minutes * MINUTE, position: at, duration: item.duration };
                        oracle.put(item.movie, row);
                    }
                    // Sent newest first: their order in the batch is not that of what happened.
                    let items = by_age.iter().rev().map(|(item, position)| {
                        json!({"movie_id": item.movie, "position_seconds": position, "duration_seconds": item.duration,
                               "event_time_ms": SENT_AT_MS - item.age_minutes * 60_000})
                    });
                    // But of one age the last one in the batch counts.
                    let mut items: Vec<_> = items.collect();
                    items.sort_by_key(|item| {
                        (-item["event_time_ms"].as_i64().unwrap(), item["position_seconds"].as_u64())
                    });
                    let body = json!({"sent_at_ms": SENT_AT_MS, "items": items});
                    Some(client.batch(token, body.to_string()))
                }
                Call::Forget(movie) => {
                    oracle.forget(*movie, tick().0);
                    Some(client.delete(&format!("{PROGRESS}/{movie}"), token))
                }
                Call::Erase => {
                    oracle.erase(tick().0);
                    Some(client.delete(PROGRESS, token))
                }
                Call::Restart => {
                    // One at a time has the directory.
                    drop(server.borrow_mut().take());
                    *server.borrow_mut() = Some(launch.start());
                    client = server.borrow().as_ref().map(Server::connect).unwrap();
                    None
                }
            };
            if let Some(answer) = answer {
                prop_assert_eq!(answer.status, 204, "{:?}: {:?}", call, answer);
            }
            for (token, oracle) in tokens.iter().zip(&oracles) {
                prop_assert_eq!(list(&mut client, token), oracle.list(), "after {:?} in {:?}", call, calls);
            }
        }
        Ok(())
    };
    let config = ProptestConfig { cases, failure_persistence: None, ..Default::default() };
    if let Err(error) = TestRunner::new(config).run(&calls(restarts), run) {
        panic!("{error}");
    }
}

#[test]
fn any_interleaving_equals_the_model_in_memory() {
    let directory = TempDir::new().unwrap();
    check(&Launch::new(directory.path(), &["--dev", "--store", "memory"]), 96, 0);
}

#[test]
fn any_interleaving_equals_the_model_on_the_disk_through_kills() {
    let directory = TempDir::new().unwrap();
    check(&Launch::embedded(directory.path()), 24, 1);
}
