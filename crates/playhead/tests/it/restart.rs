//! Ends that are asked for: SIGTERM idle and under load, and a second server on one directory.

use crate::client::{Connection, token};
use crate::harness::PROGRESS;
use crate::ledger::{Ledger, Load};
use crate::process::{Launch, binary, seed, wait_for};
use rustix::process::Signal;
use std::time::{Duration, Instant};

const LOAD: Load = Load { threads: 2, connections: 8, reads: true };

/// By when a server that was told to stop must have ended.
const STOP_DEADLINE: Duration = Duration::from_secs(10);

struct Fixture {
    _directory: tempfile::TempDir,
    launch: Launch,
}

fn fixture() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let launch = Launch::embedded(&binary(), &directory.path().join("data"));
    Fixture { _directory: directory, launch }
}

#[test]
fn what_was_kept_is_there_after_every_restart() {
    let Fixture { launch, _directory } = fixture();
    let mut playhead = launch.start();
    let mut ledger = Ledger::new(10, 10, &launch.secret(), seed());
    for _ in 0..3 {
        let end = Instant::now() + Duration::from_millis(300);
        let (tally, ()) = ledger.load(playhead.address(), LOAD, || Instant::now() >= end, || ());
        assert_eq!((tally.faults, tally.closed), (Vec::new(), 0));
        assert!(tally.acknowledged > 0);
        ledger.verify(playhead.address()).unwrap();
        playhead.signal(Signal::TERM);
        let end = playhead.wait(STOP_DEADLINE);
        assert_eq!(end.status.code(), Some(0), "{}", end.stderr);
        playhead = launch.start();
        ledger.verify(playhead.address()).unwrap();
    }
}

#[test]
fn told_to_stop_under_load_it_answers_204_or_503_or_closes() {
    let Fixture { launch, _directory } = fixture();
    let playhead = launch.start();
    let mut ledger = Ledger::new(20, 10, &launch.secret(), seed());
    // A client that never finishes its request must not keep the server.
    let mut stuck = Connection::open(playhead.address()).unwrap();
    stuck.send_unfinished().unwrap();
    let address = playhead.address();
    let (tally, end) = ledger.load(
        address,
        LOAD,
        || false,
        || {
            wait_for(Duration::from_millis(400));
            let told = Instant::now();
            playhead.signal(Signal::TERM);
            let end = playhead.wait(STOP_DEADLINE + Duration::from_secs(5));
            println!("ended {:?} after SIGTERM", told.elapsed());
            assert!(told.elapsed() <= STOP_DEADLINE + Duration::from_millis(500), "ended after {:?}", told.elapsed());
            end
        },
    );
    assert_eq!(end.status.code(), Some(0), "{}", end.stderr);
    assert_eq!(tally.faults, Vec::<String>::new());
    assert!(tally.acknowledged > 0);
    let playhead = launch.start();
    ledger.verify(playhead.address()).unwrap();
}

#[test]
fn a_second_server_on_one_directory_is_refused_and_the_first_goes_on() {
    let Fixture { launch, _directory } = fixture();
    let playhead = launch.start();
    let Err(end) = launch.try_start() else { panic!("two servers have one directory") };
    assert_eq!(end.status.code(), Some(1), "{}", end.stderr);
    let lines: Vec<_> = end.stderr.lines().collect();
    assert!(matches!(lines[..], [line] if line.starts_with("error: ")), "not one clear line:\n{}", end.stderr);
    let bearer = token(&launch.secret(), 7);
    let mut connection = Connection::open(playhead.address()).unwrap();
    let beat = r#"{"movie_id": 1, "position_seconds": 2.5}"#;
    assert_eq!(connection.post(PROGRESS, &bearer, beat).unwrap().status, 204);
    let bookmark = connection.get(&format!("{PROGRESS}/1"), &bearer).unwrap().json();
    assert_eq!(bookmark["position_seconds"], 2.5);
}
