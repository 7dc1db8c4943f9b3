//! A disk that fails, by a tracer that answers the server's system calls in its place: after the first failed sync no
//! 204 is sent, the process ends at once and not with success, and whatever was acknowledged is there after a restart.
//!
//! One connection sends one heartbeat at a time, so that no 204 of an earlier commit can be under way when the sync of
//! the next one fails: any 204 after the fault is a false one.

use crate::client::{Connection, token};
use crate::harness::PROGRESS;
use crate::process::{End, Launch, Playhead, binary, skip};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const USER: i64 = 5;
const MOVIE: i64 = 6;

/// Beats sent before a fault that does not come is given up.
const BEATS_MAX: u32 = 3_000;

/// From the failed call to the end of the process.
const END_SECONDS: f64 = 1.0;

/// What is injected: system calls, the error, and which call of each thread fails first. From there on all do, as on a
/// disk that is gone.
struct Fault {
    calls: &'static str,
    error: &'static str,
    first: u32,
}

fn has_tracer(test: &str) -> bool {
    // It may be there and not be allowed to trace.
    let probe = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
    let works = probe.is_ok_and(|status| status.success());
    if !works {
        skip(test, "needs strace, and leave to trace");
    }
    works
}

/// Beats until the server ends. The number of the last position acknowledged, and the end.
fn beat_until_it_ends(playhead: Playhead, bearer: &str, first: u32) -> (u32, u32, Option<End>) {
    let mut connection = Connection::open(playhead.address()).unwrap();
    let mut acknowledged = 0;
    for number in first..first + BEATS_MAX {
        let beat = format!("{{\"movie_id\": {MOVIE}, \"position_seconds\": {number}}}");
        match connection.post(PROGRESS, bearer, &beat) {
            Ok(answer) if answer.status == 204 => acknowledged = number,
            Ok(answer) => assert_eq!(answer.status, 503, "{}", answer.text()),
            Err(_) => return (acknowledged, number, Some(playhead.wait(Duration::from_secs(20)))),
        }
    }
    (acknowledged, first + BEATS_MAX - 1, None)
}

/// A line of the trace: when, and what.
fn parse(line: &str) -> Option<(f64, &str)> {
    let (_thread, rest) = line.trim_start().split_once(' ')?;
    let (time, what) = rest.trim_start().split_once(' ')?;
    Some((time.parse().ok()?, what))
}

/// The trace shows every 204 sent, and none after the first fault.
fn check_trace(trace: &str, acknowledged: usize) {
    let lines: Vec<_> = trace.lines().filter_map(parse).collect();
    let fault = lines.iter().position(|(_, what)| what.contains("(INJECTED)")).expect("a fault was injected");
    let answers = |lines: &[(f64, &str)]| lines.iter().filter(|(_, what)| what.contains("HTTP/1.1 204")).count();
    assert_eq!(answers(&lines[..fault]), acknowledged, "the trace does not show what the client saw:\n{trace}");
    assert_eq!(answers(&lines[fault..]), 0, "a 204 was sent after the fault:\n{trace}");
    let end = lines.iter().rfind(|(_, what)| what.starts_with("+++ exited")).expect("the process ended");
    let took = end.0 - lines[fault].0;
    assert!(took <= END_SECONDS, "the process ended {took:.3} s after the fault");
}

fn check(directory: &Path, fault: &Fault) {
    let data = directory.join("data");
    let launch = Launch::embedded(&binary(), &data);
    let playhead = launch.start();
    let bearer = token(&launch.secret(), USER);
    let mut connection = Connection::open(playhead.address()).unwrap();
    for number in 1..=20 {
        let beat = format!("{{\"movie_id\": {MOVIE}, \"position_seconds\": {number}}}");
        assert_eq!(connection.post(PROGRESS, &bearer, &beat).unwrap().status, 204);
    }
    playhead.kill();

    let trace_file = directory.join("trace");
    let Fault { calls, error, first } = fault;
    let inject = format!("inject={calls}:error={error}:when={first}+");
    let trace = format!("trace={calls},write,writev,sendto,sendmsg");
    let output = trace_file.to_str().unwrap();
    let wrapper = ["strace", "-f", "-ttt", "-s", "16", "-o", output, "-e", &trace, "-e", &inject];
    let (acknowledged, sent, end) = match launch.clone().under(&wrapper).try_start() {
        Ok(playhead) => beat_until_it_ends(playhead, &bearer, 21),
        Err(end) => (0, 20, Some(end)),
    };
    let acknowledged = acknowledged.max(20);
    let end = end.unwrap_or_else(|| panic!("{calls} number {first} never failed"));
    assert!(end.status.code().is_some_and(|code| code != 0), "{:?}\n{}", end.status, end.stderr);
    check_trace(&std::fs::read_to_string(&trace_file).unwrap(), acknowledged as usize - 20);

    let playhead = launch.start();
    let mut connection = Connection::open(playhead.address()).unwrap();
    let found = connection.get(&format!("{PROGRESS}/{MOVIE}"), &bearer).unwrap().json();
    let found = found["position_seconds"].as_f64().unwrap();
    assert!((f64::from(acknowledged)..=f64::from(sent)).contains(&found), "{acknowledged} <= {found} <= {sent}");
    println!("{calls} failed from the {first}th on: {acknowledged} acknowledged, {sent} sent, {found} found");
}

fn check_all(test: &str, faults: &[Fault]) {
    if has_tracer(test) {
        for fault in faults {
            let directory = tempfile::tempdir().unwrap();
            check(directory.path(), fault);
        }
    }
}

#[test]
fn a_failed_sync_ends_the_process_and_no_acknowledgement_follows() {
    let sync = |first| Fault { calls: "fsync,fdatasync", error: "EIO", first };
    check_all("a_failed_sync_ends_the_process_and_no_acknowledgement_follows", &[1, 2, 5, 20, 100].map(sync));
}
