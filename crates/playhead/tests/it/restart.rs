//! Ends that are asked for, SIGTERM idle and under load, again and again; a pause, and a clock that jumps.

use crate::client::{Client, PROGRESS, beat, token};
use crate::clock::Clock;
use crate::ledger::{Ledger, Load, kept};
use crate::process::{Launch, Server, eventually, seed, wait_for, within};
use crate::store::date_ahead;
use crate::trace::{self, Trace};
use rustix::process::Signal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const LOAD: Load = Load { threads: 2, connections: 8, reads: true };

/// Of a load, before something happens to its server.
const BEATS: u64 = 100;

/// By when a server that was told to stop must have ended.
const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// Longer than the watchdog would wait, if it went by the time that has passed.
const PAUSE: Duration = Duration::from_secs(12);

struct Fixture {
    directory: tempfile::TempDir,
    launch: Launch,
}

fn fixture() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let launch = Launch::embedded(&directory.path().join("data"));
    Fixture { directory, launch }
}

#[test]
fn what_was_kept_is_there_after_every_restart() {
    let Fixture { launch, directory: _directory } = fixture();
    let mut server = launch.start();
    let mut ledger = Ledger::new(10, 10, &launch.directory, seed());
    for _ in 0..3 {
        let tally = ledger.load_until_kept(&server, LOAD, BEATS);
        assert_eq!((tally.faults, tally.closed), (Vec::new(), 0));
        ledger.verify(server.address).unwrap();
        server.signal(Signal::TERM);
        let end = server.wait(STOP_DEADLINE);
        assert_eq!(end.status.code(), Some(0), "{}", end.stderr);
        server = launch.start();
        ledger.verify(server.address).unwrap();
    }
}

#[test]
fn told_to_stop_under_load_it_answers_204_or_503_or_closes() {
    let Fixture { launch, directory: _directory } = fixture();
    let mut server = launch.start();
    let mut ledger = Ledger::new(20, 10, &launch.directory, seed());
    // A client that never finishes its request must not keep the server.
    let mut stuck = server.connect();
    stuck.send(format!("POST {PROGRESS} HTTP/1.1\r\nHost: test\r\nContent-Length: 40\r\n\r\n{{"));
    let address = server.address;
    let (tally, end) = ledger.load(
        address,
        LOAD,
        || false,
        || {
            eventually("beats are kept", || kept(&server) >= BEATS);
            let told = Instant::now();
            server.signal(Signal::TERM);
            let end = server.wait(STOP_DEADLINE + Duration::from_secs(5));
            println!("ended {:?} after SIGTERM", told.elapsed());
            assert!(told.elapsed() <= STOP_DEADLINE + Duration::from_millis(500), "ended after {:?}", told.elapsed());
            end
        },
    );
    assert_eq!(end.status.code(), Some(0), "{}", end.stderr);
    assert_eq!(tally.faults, Vec::<String>::new());
    assert!(tally.acknowledged > 0);
    let server = launch.start();
    ledger.verify(server.address).unwrap();
}

/// Clients that would keep a server for ever: who says nothing, who stops in a head, in a body, and who reads no answer.
fn stuck_clients(server: &Server, bearer: &str) -> Vec<Client> {
    let headers = format!("Host: x\r\nAuthorization: Bearer {bearer}\r\nContent-Type: application/json\r\n");
    let unread = format!("GET {PROGRESS}?limit=100 HTTP/1.1\r\n{headers}\r\n").repeat(100);
    let starts = [
        String::new(),
        format!("GET {PROGRESS} HTTP/1.1\r\nHost: x\r\nX-"),
        format!("POST {PROGRESS} HTTP/1.1\r\n{headers}Content-Length: 40\r\n\r\n{{"),
        unread,
    ];
    let client = |start| {
        let mut client = server.connect();
        client.send(start);
        client
    };
    starts.map(client).into()
}

#[test]
fn stopped_again_and_again_under_load_with_stuck_clients_it_ends_in_time_and_loses_nothing() {
    const DRAIN: Duration = Duration::from_secs(2);
    const DELAY: Duration = Duration::from_millis(500);
    let Fixture { launch, directory: _directory } = fixture();
    let launch = launch.with(&["--drain-deadline", "2s", "--shutdown-delay", "500ms", "--request-deadline", "1h"]);
    let mut server = launch.start();
    // No user of the ledger.
    let bearer = token(&launch.directory, 5_000);
    let mut ledger = Ledger::new(20, 10, &launch.directory, seed());
    for round in 1..=3 {
        let _stuck = stuck_clients(&server, &bearer);
        let address = server.address;
        let (tally, (end, took)) = ledger.load(
            address,
            LOAD,
            || false,
            || {
                eventually("beats are kept", || kept(&server) >= BEATS);
                let told = Instant::now();
                server.signal(Signal::TERM);
                server.wait_for_log("told to stop");
                // It serves on for a while: a balancer has not noticed yet.
                assert_eq!(Client::to(address).beat(&bearer, beat(1, round)).status, 204);
                (server.wait(STOP_DEADLINE + Duration::from_secs(5)), told.elapsed())
            },
        );
        println!("round {round}: ended {took:?} after SIGTERM, {tally:?}");
        assert_eq!(end.status.code(), Some(0), "{}", end.stderr);
        assert_eq!(tally.faults, Vec::<String>::new());
        assert!(tally.acknowledged > 0);
        // They did hold it up, until they were cut off.
        let longest = DELAY + DRAIN + Duration::from_secs(8);
        assert!((DELAY + DRAIN..longest).contains(&took), "it ended after {took:?}");
        server = launch.start();
        ledger.verify(server.address).unwrap();
        let bookmark = server.connect().get(&format!("{PROGRESS}/1"), Some(&bearer)).json();
        assert_eq!(bookmark["position_seconds"], f64::from(round));
    }
}

#[test]
fn paused_and_let_go_it_serves_on_and_has_lost_nothing() {
    let Fixture { launch, directory: _directory } = fixture();
    let mut server = launch.start();
    let mut ledger = Ledger::new(20, 10, &launch.directory, seed());
    let is_over = AtomicBool::new(false);
    let (tally, ()) = ledger.load(
        server.address,
        LOAD,
        || is_over.load(Ordering::Relaxed),
        || {
            eventually("beats are kept", || kept(&server) >= BEATS);
            server.signal(Signal::STOP);
            wait_for(PAUSE);
            server.signal(Signal::CONT);
            let before = kept(&server);
            within(Duration::from_secs(10), "the same clients are served again", || kept(&server) > before + BEATS);
            is_over.store(true, Ordering::Relaxed);
        },
    );
    println!("{tally:?}");
    assert_eq!(tally.faults, Vec::<String>::new());
    let tally = ledger.load_until_kept(&server, LOAD, BEATS);
    assert_eq!((tally.faults, tally.closed, tally.unavailable), (Vec::new(), 0, 0));
    ledger.verify(server.address).unwrap();
    assert!(!server.talk().contains("ERROR"), "{}", server.talk());
    server.kill();
    server = launch.start();
    ledger.verify(server.address).unwrap();
}

/// The watchdog looks each second whether a sync is still the one that it saw before: twice before the pause, and again
/// as soon as it is over, when the sync has lasted longer than the watchdog's patience and is still under way.
#[test]
fn a_pause_amid_a_sync_does_not_wake_the_watchdog() {
    const BEFORE: Duration = Duration::from_millis(2_200);
    const SYNC: Duration = PAUSE.saturating_add(Duration::from_secs(4));
    if !trace::is_possible("a_pause_amid_a_sync_does_not_wake_the_watchdog") {
        return;
    }
    let Fixture { launch, directory } = fixture();
    let mut server = launch.start();
    let bearer = token(&launch.directory, 7);
    server.kill();
    let trace = Trace::to(directory.path().join("trace"));
    let delay = format!("inject=fdatasync:delay_enter={}:when=3", SYNC.as_micros());
    server = launch.clone().under(&trace.words(&["-e", "trace=fdatasync", "-e", &delay])).start();
    let mut client = server.connect();
    for number in [1, 2] {
        assert_eq!(client.beat(&bearer, beat(1, number)).status, 204);
    }
    client.send_beat(&bearer, beat(1, 3)).unwrap();
    wait_for(BEFORE);
    server.signal(Signal::STOP);
    wait_for(PAUSE);
    server.signal(Signal::CONT);
    let answer = client.receive().unwrap();
    assert!(answer.status == 204 || answer.slug() == "outcome-unknown", "{answer:?}");
    assert_eq!(client.beat(&bearer, beat(1, 4)).status, 204);
    assert!(!server.talk().contains("ERROR"), "{}", server.talk());
    server.kill();
    let bookmark = launch.start().connect().get(&format!("{PROGRESS}/1"), Some(&bearer)).json();
    assert_eq!(bookmark["position_seconds"], 4.0);
}

#[test]
fn a_clock_that_has_jumped_back_leaves_the_newest_write_the_newest() {
    let Fixture { launch, directory: _directory } = fixture();
    let server = launch.start();
    let bearer = token(&launch.directory, 7);
    assert_eq!(server.connect().beat(&bearer, beat(1, 10)).status, 204);
    server.kill();
    date_ahead(&launch.segments().pop().unwrap(), Duration::from_secs(600));

    let server = launch.start();
    let ready = Client::to(server.admin).get("/readyz", None);
    assert!(ready.status == 200 && ready.json()["status"] == "degraded", "{ready:?}");
    let mut client = server.connect();
    let time = |client: &mut Client, movie: i64, position: f64| {
        let bookmark = client.get(&format!("{PROGRESS}/{movie}"), Some(&bearer)).json();
        assert_eq!(bookmark["position_seconds"], position, "{bookmark}");
        bookmark["updated_at"].as_str().unwrap().to_owned()
    };
    let before = time(&mut client, 1, 10.0);
    assert_eq!(client.beat(&bearer, beat(1, 5)).status, 204);
    assert_eq!(client.beat(&bearer, beat(2, 3)).status, 204);
    let (overwritten, another) = (time(&mut client, 1, 5.0), time(&mut client, 2, 3.0));
    assert!(before < overwritten && overwritten < another, "{before}, {overwritten}, {another}");
    server.kill();

    let server = launch.start();
    let mut client = server.connect();
    assert_eq!((time(&mut client, 1, 5.0), time(&mut client, 2, 3.0)), (overwritten, another));
}

#[test]
fn a_clock_that_jumps_forth_and_back_refuses_no_write_and_keeps_their_order() {
    let Fixture { launch, directory } = fixture();
    let test = "a_clock_that_jumps_forth_and_back_refuses_no_write_and_keeps_their_order";
    let Some(clock) = Clock::new(test, directory.path()) else { return };
    let launch = clock.on(&launch);
    let (hour, day) = (3_600, 86_400);
    let mut server = launch.start();
    let bearer = token(&launch.directory, 7);
    let mut times: Vec<String> = Vec::new();
    let mut titles = Vec::new();
    for (step, (ahead, is_restarted)) in
        [(0, false), (hour, false), (-hour, false), (-hour, true), (2 * day, true), (0, true), (-3 * day, false)]
            .into_iter()
            .enumerate()
    {
        clock.set(ahead);
        if is_restarted {
            server.kill();
            server = launch.start();
        }
        let mut client = server.connect();
        for _ in 0..3 {
            let number = u32::try_from(titles.len() + 1).unwrap();
            for (title, position) in [(i64::from(number), number), (1_000, number)] {
                let answer = client.beat(&bearer, beat(title, position));
                assert_eq!(answer.status, 204, "step {step}: {answer:?}");
                let bookmark = client.get(&format!("{PROGRESS}/{title}"), Some(&bearer)).json();
                assert_eq!(bookmark["position_seconds"], f64::from(position), "step {step}: {bookmark}");
                times.push(bookmark["updated_at"].as_str().unwrap().to_owned());
            }
            titles.insert(0, number.to_string());
        }
        let list = client.get(&format!("{PROGRESS}?limit=100"), Some(&bearer)).json();
        let listed: Vec<_> =
            list["items"].as_array().unwrap().iter().map(|item| item["movie_id"].as_str().unwrap()).collect();
        assert_eq!(listed, [&["1000"][..], &titles.iter().map(String::as_str).collect::<Vec<_>>()].concat());
    }
    println!("{times:?}");
    assert!(times.is_sorted_by(|earlier, later| earlier < later), "not in their order: {times:?}");
    // The jumps were seen: else this shows nothing.
    assert_ne!(times[0][..10], times.last().unwrap()[..10]);
    assert!(!server.talk().contains("ERROR"), "{}", server.talk());
}
