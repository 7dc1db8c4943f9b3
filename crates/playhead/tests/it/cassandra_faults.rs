//! A real three-node cluster that loses nodes: what a 204 still means, and how soon all is well again.
//!
//! Each test takes the cluster for itself, breaks it, and leaves it whole. Positions rise, one request at a time on
//! each connection; afterwards each title must be at least where the last 204 said and at most where the last request
//! did.
//!
//! `PLAYHEAD_TEST_ROUNDS` makes the first test kill as many nodes, one after the other: the long form.

use crate::cassandra::{Cluster, new_user, readiness, start, wait_until_ready};
use crate::client::{Client, PROGRESS, beat, token};
use crate::clock::Clock;
use crate::process::{PATIENCE_FOR_CLUSTER, Server, eventually, wait_for, within};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const KEYSPACE: &str = "playhead_faults";

/// Connections, and how often each sends: 300 writes a second together.
const STREAMERS: usize = 30;
const INTERVAL: Duration = Duration::from_millis(100);

/// What one streamer saw.
#[derive(Debug, Default)]
struct Seen {
    user: i64,
    sent: u32,
    acknowledged: u32,
    /// Latency of each answer and its status.
    answers: Vec<(Duration, u16)>,
}

/// Sends at a steady rate while `meanwhile` runs; gives what each streamer saw.
fn stream<T>(server: &Server, directory: &Path, meanwhile: impl FnOnce() -> T) -> (Vec<Seen>, T) {
    let is_over = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        let streamers: Vec<_> = (0..STREAMERS)
            .map(|_| {
                let (user, address) = (new_user(), server.address);
                let token = token(directory, user);
                scope.spawn(move || {
                    let mut seen = Seen { user, ..Seen::default() };
                    let mut client = Client::to(address);
                    let mut due = Instant::now();
                    while !is_over.load(Ordering::SeqCst) {
                        wait_for(due.saturating_duration_since(Instant::now()));
                        due += INTERVAL;
                        seen.sent += 1;
                        let began = Instant::now();
                        let answer = client.beat(&token, beat(1, seen.sent));
                        seen.answers.push((began.elapsed(), answer.status));
                        if answer.status == 204 {
                            seen.acknowledged = seen.sent;
                        }
                    }
                    seen
                })
            })
            .collect();
        let result = meanwhile();
        is_over.store(true, Ordering::SeqCst);
        (streamers.into_iter().map(|streamer| streamer.join().unwrap()).collect(), result)
    })
}

/// Reads every title back.
fn verify(server: &Server, directory: &Path, seen: &[Seen]) {
    let mut client = server.connect();
    for Seen { user, sent, acknowledged, .. } in seen {
        let answer = client.get(&format!("{PROGRESS}/1"), Some(&token(directory, *user)));
        assert_eq!(answer.status, 200, "{answer:?}");
        let found = answer.json()["position_seconds"].as_f64().unwrap();
        let range = f64::from(*acknowledged)..=f64::from(*sent);
        assert!(range.contains(&found), "user {user}: {found} is there, not {range:?}");
    }
}

/// How many there were, and how many of them were acknowledged within this time.
fn acknowledged_within(seen: &[Seen], time: Duration) -> (usize, usize) {
    let answers = || seen.iter().flat_map(|seen| &seen.answers);
    (answers().count(), answers().filter(|(latency, status)| *status == 204 && *latency <= time).count())
}

fn server_on(cluster: &Cluster, directory: &Path) -> Server {
    cluster.make(KEYSPACE);
    start(&cluster.launch(directory, KEYSPACE))
}

#[test]
fn a_node_killed_under_load_loses_no_acknowledged_write() {
    let Some((cluster, _alone)) = Cluster::alone("a_node_killed_under_load") else { return };
    let directory = tempfile::tempdir().unwrap();
    let server = server_on(&cluster, directory.path());
    let rounds = std::env::var("PLAYHEAD_TEST_ROUNDS").map_or(1, |text| text.parse().expect("a number of rounds"));
    let (seen, ()) = stream(&server, directory.path(), || {
        for round in 0..rounds {
            let node = (round % 3 + 1).to_string();
            wait_for(Duration::from_secs(2));
            cluster.xtask(&["kill", &node]);
            wait_for(Duration::from_secs(6));
            cluster.xtask(&["up", &node]);
        }
        wait_for(Duration::from_secs(2));
    });
    verify(&server, directory.path(), &seen);
    let (all, in_time) = acknowledged_within(&seen, Duration::from_secs(2));
    let worst = seen.iter().flat_map(|seen| &seen.answers).map(|(latency, _)| *latency).max().unwrap();
    println!("{in_time} of {all} writes were acknowledged within 2 s, the worst answer took {worst:?}");
    assert!(all > 1_000, "hardly any load: {all}");
    assert!(in_time as f64 >= all as f64 * 0.999, "{in_time} of {all}");
}

#[test]
fn two_of_three_paused_are_answered_with_503_in_time_and_all_is_well_once_they_go_on() {
    let Some((cluster, _alone)) = Cluster::alone("two_of_three_paused") else { return };
    let directory = tempfile::tempdir().unwrap();
    let server = server_on(&cluster, directory.path());
    let resident_before = resident_kib(&server);
    let (seen, (paused, resumed)) = stream(&server, directory.path(), || {
        wait_for(Duration::from_secs(2));
        for node in ["1", "2"] {
            cluster.xtask(&["pause", node]);
        }
        let paused = Instant::now();
        wait_for(Duration::from_secs(12));
        let state = readiness(&server);
        let growth = resident_kib(&server).saturating_sub(resident_before);
        for node in ["1", "2"] {
            cluster.xtask(&["resume", node]);
        }
        let resumed = Instant::now();
        // Told before anything is judged, so that the nodes go on in any case.
        println!("resident memory grew by {growth} KiB in the outage; {state:?}");
        assert!(growth < 32 * 1024, "memory grew by {growth} KiB");
        assert_eq!(
            (state.0, state.1["status"].as_str()),
            (200, Some("degraded")),
            "an outage of all is no reason to leave"
        );
        let token = token(directory.path(), new_user());
        let mut client = server.connect();
        while client.beat(&token, beat(1, 1)).status != 204 {
            assert!(resumed.elapsed() < Duration::from_secs(20), "never normal again");
        }
        println!("normal {:?} after they went on", resumed.elapsed());
        assert!(resumed.elapsed() < Duration::from_secs(3), "normal only {:?} after they went on", resumed.elapsed());
        wait_for(Duration::from_secs(2));
        (paused, resumed)
    });
    verify(&server, directory.path(), &seen);
    eventually("ready", || readiness(&server).1["status"] == "ready");
    let refused = || seen.iter().flat_map(|seen| &seen.answers).filter(|(_, status)| *status == 503);
    let worst = refused().map(|(latency, _)| *latency).max().unwrap_or_default();
    println!("{} answers of 503 in {:?}, the slowest after {worst:?}", refused().count(), resumed - paused);
    assert!(refused().count() > STREAMERS, "the outage was not noticed");
    assert!(worst < Duration::from_millis(1_600 + SLACK_MS), "a 503 took {worst:?}");
    let others = seen.iter().flat_map(|seen| &seen.answers).filter(|(_, status)| !matches!(status, 204 | 503)).count();
    assert_eq!(others, 0);
}

/// What a starved machine may add to an answer.
const SLACK_MS: u64 = 400;

/// Kilobytes of memory that a server holds.
fn resident_kib(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn all_nodes_killed_lose_nothing_and_are_waited_for() {
    let Some((cluster, _alone)) = Cluster::alone("all_nodes_killed") else { return };
    let directory = tempfile::tempdir().unwrap();
    let server = server_on(&cluster, directory.path());
    assert_eq!(readiness(&server).1["durability"], "synced", "this test is about commit logs that are synced");
    let (seen, ()) = stream(&server, directory.path(), || {
        wait_for(Duration::from_secs(3));
        for node in ["1", "2", "3"] {
            cluster.xtask(&["kill", node]);
        }
    });
    // A server that is started now has nobody to talk to, and neither ends nor says that it is ready.
    let other = cluster.launch(directory.path(), KEYSPACE).start();
    within(PATIENCE_FOR_CLUSTER, "the reason", || {
        readiness(&other).1["reasons"][0].as_str().is_some_and(|text| text.contains("--cassandra-nodes"))
    });
    cluster.xtask(&["up", "1"]);
    assert_eq!(readiness(&other).0, 503, "one of three copies is no quorum");
    cluster.xtask(&["up", "2"]);
    wait_until_ready(&other);
    verify(&other, directory.path(), &seen);
    within(PATIENCE_FOR_CLUSTER, "the first server recovers", || {
        server.connect().beat(&token(directory.path(), new_user()), beat(1, 1)).status == 204
    });
    cluster.xtask(&["up", "3"]);
    verify(&server, directory.path(), &seen);
    let acknowledged: u32 = seen.iter().map(|seen| seen.acknowledged).sum();
    println!("{acknowledged} acknowledged writes of {} titles, none lost", seen.len());
    assert!(acknowledged > 300, "hardly any load: {acknowledged}");
}

#[test]
fn of_two_servers_the_one_whose_clock_is_wrong_takes_no_writes() {
    let test = "of_two_servers_the_one_whose_clock_is_wrong_takes_no_writes";
    let Some((cluster, _in_use)) = Cluster::shared(test) else { return };
    let directory = tempfile::tempdir().unwrap();
    let Some(clock) = Clock::new(test, directory.path()) else { return };
    cluster.make(KEYSPACE);
    let launch = cluster.launch(directory.path(), KEYSPACE);
    let right = start(&launch);
    let token = token(directory.path(), new_user());
    assert_eq!(right.connect().beat(&token, beat(1, 10)).status, 204);
    clock.set(5);
    let wrong = clock.on(&launch).start();
    let says = |server: &Server, word: &str| {
        readiness(server).1["reasons"][0].as_str().is_some_and(|reason| reason.contains(word))
    };
    within(PATIENCE_FOR_CLUSTER, "the reason", || says(&wrong, "ahead of the median"));
    assert_eq!(readiness(&wrong).0, 503);
    let refused = wrong.connect().beat(&token, beat(1, 99));
    assert_eq!((refused.status, refused.slug().as_str()), (503, "storage-unavailable"));
    // Reads go on, and the viewer's next beat through the right server counts.
    let read = |server: &Server| {
        server.connect().get(&format!("{PROGRESS}/1"), Some(&token)).json()["position_seconds"].as_f64()
    };
    assert_eq!(read(&wrong), Some(10.0));
    assert_eq!(right.connect().beat(&token, beat(1, 20)).status, 204);
    assert_eq!((read(&right), read(&wrong)), (Some(20.0), Some(20.0)));
    drop(wrong);
    clock.set(1);
    let nearly = clock.on(&launch).start();
    within(PATIENCE_FOR_CLUSTER, "a warning", || says(&nearly, "ahead of the median"));
    assert_eq!(readiness(&nearly).1["status"], "degraded");
    assert_eq!(nearly.connect().beat(&token, beat(1, 30)).status, 204);
}
