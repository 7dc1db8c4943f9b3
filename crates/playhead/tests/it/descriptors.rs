//! More clients than the process may have sockets: connections are turned away, and the store never goes without.

use crate::client::{Client, PROGRESS, beat, token};
use crate::process::{Launch, eventually, within};
use std::time::{Duration, Instant};

const USER: i64 = 3;

/// Beats over the connection that is there first, each in a frame of its own: enough to rotate and to drain, which
/// opens files.
const BEATS: u32 = 200;

/// Before this the server closes no connection for being silent.
const IDLE_MIN: Duration = Duration::from_secs(10);

#[test]
fn out_of_descriptors_the_store_goes_on_and_so_does_accepting() {
    let directory = tempfile::tempdir().unwrap();
    let launch = Launch::embedded(&directory.path().join("data"));
    let server = launch.clone().under(&["sh", "-c", "ulimit -n 256 && exec \"$@\"", "sh"]).start();
    let bearer = token(&launch.directory, USER);
    let mut first = server.connect();
    assert_eq!(first.beat(&bearer, beat(1, 1)).status, 204);

    let begun = Instant::now();
    let mut crowd: Vec<_> = (0..400).map(|_| Client::to(server.address)).collect();
    for number in 2..=BEATS {
        // So small a memtable may be full before the one before it is drained: that is over soon, and says so.
        eventually("the client that was there first is served", || {
            let answer = first.beat(&bearer, beat(1, number));
            assert!(answer.status == 204 || answer.slug() == "overloaded", "heartbeat {number}: {answer:?}");
            answer.status == 204
        });
    }
    // Accepted and closed: not left waiting until the server has closed others for idling.
    assert!(crowd.last_mut().unwrap().is_closed(), "400 sockets were accepted under a limit of 256");
    assert!(begun.elapsed() < IDLE_MIN, "accepting has stopped");
    drop(crowd);
    within(Duration::from_secs(2), "a new client is served", || {
        server.connect().try_beat(&bearer, beat(2, 7)).is_ok_and(|answer| answer.status == 204)
    });
    let drains = server.metric("playhead_store_drains_total");
    assert!(drains >= 2, "the base was hardly touched: {drains} drains");
    assert!(!server.talk().contains("ERROR"), "{}", server.talk());
    server.kill();

    let server = launch.start();
    for (movie, position) in [(1, f64::from(BEATS)), (2, 7.0)] {
        let bookmark = server.connect().get(&format!("{PROGRESS}/{movie}"), Some(&bearer)).json();
        assert_eq!(bookmark["position_seconds"], position, "title {movie}");
    }
}
