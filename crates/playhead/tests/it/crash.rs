//! The server killed under load, again and again, over one directory: nothing acknowledged is lost, nothing is invented.
//!
//! **The faults.** SIGKILL, which loses what the process had not yet handed to the kernel; and a power cut, made of
//! SIGKILL and a build whose disk keeps writes in its own memory until they are synced.
//!
//! **The controls.** The same cycles over a build that acknowledges before it commits, and over one that leaves out the
//! sync, must find a loss: a test that can't fail proves nothing. Those builds are named by environment variables
//! (`PLAYHEAD_BIN_EARLY_ACK`, `PLAYHEAD_BIN_HELD`, `PLAYHEAD_BIN_HELD_NO_SYNC`); without one its test is skipped, and
//! says so.
//!
//! `PLAYHEAD_TEST_CYCLES` sets the number of cycles for the long form.

use crate::ledger::{Ledger, Load, Tally, Violation};
use crate::process::{End, Launch, binary, seed, skip, wait_for};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Cycles of the short form.
const CYCLES: usize = 20;
/// Cycles within which a control must be caught.
const CYCLES_OF_CONTROL: usize = 5;
/// When the server is killed, after its load has begun.
const KILLED_AFTER_MS: RangeInclusive<u64> = 50..=1_500;
const USERS: usize = 40;
const TITLES: usize = 25;
const LOAD: Load = Load { threads: 4, connections: 8, reads: true };

/// What happened over all cycles.
#[derive(Debug, Default)]
struct Summary {
    tally: Tally,
    freezes: u64,
    drains: u64,
    log_bytes: u64,
    /// The log's files, all cycles later.
    log_bytes_on_disk: u64,
    /// Cycles that were cut after at least one drain.
    cycles_with_drains: usize,
}

/// Load, kill, start, verify: `count` times in one directory, or until something is lost or invented.
fn run(launch: &Launch, load: Load, count: usize, seed: u64) -> Result<Summary, (usize, Violation)> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut summary = Summary::default();
    let mut server = launch.start();
    let mut ledger = Ledger::new(USERS, TITLES, &launch.directory, rng.u64(..));
    for cycle in 1..=count {
        let delay = Duration::from_millis(rng.u64(KILLED_AFTER_MS));
        let address = server.address;
        let kill = || {
            wait_for(delay);
            let counters = ["store_freezes_total", "store_drains_total", "store_log_written_bytes_total"];
            let seen = counters.map(|counter| server.metric(&format!("playhead_{counter}")));
            server.kill();
            seen
        };
        let (tally, [freezes, drains, log_bytes]) = ledger.load(address, load, || false, kill);
        summary.freezes += freezes;
        summary.drains += drains;
        summary.log_bytes += log_bytes;
        summary.cycles_with_drains += usize::from(drains > 0);
        println!("cycle {cycle}: killed after {delay:?}, {freezes} freezes, {drains} drains, {tally:?}");
        if !tally.faults.is_empty() {
            return Err((cycle, Violation(tally.faults)));
        }
        summary.tally.acknowledged += tally.acknowledged;
        summary.tally.reads += tally.reads;
        let refused = |end: End| Violation(vec![format!("lost, by its own account, and not started: {}", end.stderr)]);
        server = launch.try_start().map_err(|end| (cycle, refused(end)))?;
        ledger.verify(server.address).map_err(|violation| (cycle, violation))?;
    }
    summary.log_bytes_on_disk = launch.log_bytes();
    println!("{} of {} titles were acknowledged at least once", ledger.rows_acknowledged(), USERS * TITLES);
    Ok(summary)
}

fn cycles(default: usize) -> usize {
    std::env::var("PLAYHEAD_TEST_CYCLES").map_or(default, |text| text.parse().expect("a number of cycles"))
}

/// The binary of a build with faults, if there is one; else the test is skipped.
fn faulty_binary(test: &str, variable: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable).map(PathBuf::from);
    if path.is_none() {
        skip(test, &format!("needs a build with faults, its path in {variable}; see docs/DEVELOPING.md"));
    }
    path
}

/// Nothing is lost, and the log really rotated, drained and recycled meanwhile.
fn check_kept(binary: &Path, count: usize) {
    let directory = tempfile::tempdir().unwrap();
    let launch = Launch::embedded(&directory.path().join("data")).of(binary);
    let summary = run(&launch, LOAD, count, seed()).unwrap_or_else(|(cycle, violation)| {
        panic!("in cycle {cycle}:\n{}", violation.0.join("\n"));
    });
    println!("{summary:?}");
    assert!(summary.tally.acknowledged > 100 * count as u64, "hardly any load: {summary:?}");
    assert!(summary.freezes >= 2 * count as u64 && summary.drains >= 2 * count as u64, "few drains: {summary:?}");
    assert!(summary.log_bytes > 2 * summary.log_bytes_on_disk, "no segment was recycled: {summary:?}");
    assert!(2 * summary.cycles_with_drains > count, "most cycles had no drain: {summary:?}");
}

/// A loss is found, by what is there after a restart: no title is read before.
fn check_caught(of: impl FnOnce(&Path) -> Launch) {
    let directory = tempfile::tempdir().unwrap();
    let load = Load { reads: false, ..LOAD };
    match run(&of(&directory.path().join("data")), load, CYCLES_OF_CONTROL, seed()) {
        Ok(summary) => panic!("the fault was not caught in {CYCLES_OF_CONTROL} cycles: {summary:?}"),
        Err((cycle, violation)) => {
            println!("caught in cycle {cycle}:\n{}", violation.0.join("\n"));
            assert!(violation.0.iter().any(|fault| fault.contains("lost")), "{violation:?}");
        }
    }
}

#[test]
fn killed_under_load_nothing_is_lost_or_invented() {
    check_kept(&binary(), cycles(CYCLES));
}

#[test]
fn control_a_store_that_keeps_nothing_is_caught() {
    check_caught(|directory| Launch::embedded(directory).with(&["--store", "memory"]));
}

#[test]
fn control_acknowledging_before_the_commit_is_caught() {
    let test = "control_acknowledging_before_the_commit_is_caught";
    if let Some(binary) = faulty_binary(test, "PLAYHEAD_BIN_EARLY_ACK") {
        check_caught(|directory| Launch::embedded(directory).of(&binary));
    }
}

#[test]
fn a_power_cut_under_load_loses_and_invents_nothing() {
    let test = "a_power_cut_under_load_loses_and_invents_nothing";
    if let Some(binary) = faulty_binary(test, "PLAYHEAD_BIN_HELD") {
        check_kept(&binary, cycles(CYCLES / 2));
    }
}

#[test]
fn control_leaving_out_the_sync_is_caught_by_a_power_cut() {
    let test = "control_leaving_out_the_sync_is_caught_by_a_power_cut";
    if let Some(binary) = faulty_binary(test, "PLAYHEAD_BIN_HELD_NO_SYNC") {
        check_caught(|directory| Launch::embedded(directory).of(&binary));
    }
}
