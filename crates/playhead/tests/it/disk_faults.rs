//! A disk that fails, is slow, or is full.
//!
//! **It fails**, by a tracer that answers the server's system calls in its place: nothing acknowledged is lost, no 204
//! follows the first failure of the log, and the process ends at once and not with success. One connection sends one
//! heartbeat at a time, so that no 204 of an earlier commit can be under way when the next one fails: any 204 after the
//! fault is a false one. The one thread that may fail softly is the keeper, which prepares segments ahead.
//!
//! **It is slow**, by a tracer that holds up each sync: no 204 comes before the sync has returned, and who would have to
//! wait too long is shed.
//!
//! **It is full**, by a small file system of its own: writes are refused and reads go on, until there is room again.

use crate::client::{Client, PROGRESS, beat, token};
use crate::ledger::{Ledger, Load};
use crate::process::{End, Launch, Server, seed, skip, within};
use crate::trace::{self, Call, Trace};
use std::collections::HashSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// None of a ledger's.
const USER: i64 = 5_000;
const MOVIE: i64 = 6;

/// Beats sent before the fault.
const BEATS_BEFORE: u32 = 20;
/// Beats sent before a fault that does not come is given up.
const BEATS_MAX: u32 = 3_000;
/// For how long a server may refuse all writes before it is taken to go on so: longer than it may take to end.
const REFUSED_MAX: Duration = Duration::from_secs(3);

/// From the failed call to the end of the process.
const END_SECONDS: f64 = 1.0;

/// What is injected: system calls, the error, where, and which call of each thread fails first. From there on all do,
/// as on a disk that is gone.
struct Fault {
    calls: &'static str,
    error: &'static str,
    place: Place,
    first: u32,
}

/// The files whose calls fail.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Place {
    Anywhere,
    /// The segments that the server will write its frames to.
    Segments,
    /// The tables that the base will be given.
    Tables,
}

impl Place {
    /// The paths, as the tracer knows them: of files that are not there yet.
    fn paths(self, launch: &Launch) -> Vec<PathBuf> {
        match self {
            Self::Anywhere => Vec::new(),
            Self::Segments => {
                let newest = launch.segments().pop().expect("a store has a segment");
                let name = newest.file_stem().and_then(|name| name.to_str()).unwrap().to_owned();
                let id = u64::from_str_radix(&name, 16).unwrap();
                (id + 1..id + 4).map(|id| launch.log_directory().join(format!("{id:016x}.log"))).collect()
            }
            Self::Tables => {
                let keyspaces = std::fs::read_dir(launch.directory.join("base/keyspaces")).unwrap();
                let tables = keyspaces.map(|keyspace| keyspace.unwrap().path().join("tables"));
                tables.flat_map(|tables| (0..100).map(move |id| tables.join(id.to_string()))).collect()
            }
        }
    }
}

/// What a client saw of a server that fails.
struct Seen {
    /// The last position acknowledged.
    acknowledged: u32,
    /// The last position sent.
    sent: u32,
    /// Its end; `None` if it goes on.
    end: Option<End>,
}

fn beat_until_it_ends(mut server: Server, bearer: &str) -> Seen {
    let mut seen = Seen { acknowledged: BEATS_BEFORE, sent: BEATS_BEFORE, end: None };
    let mut last_taken = Instant::now();
    // It may have ended before anybody could connect.
    let mut client = Client::try_to(server.address);
    while seen.sent < BEATS_BEFORE + BEATS_MAX && last_taken.elapsed() < REFUSED_MAX {
        seen.sent += 1;
        let answer = client.as_mut().ok().and_then(|client| client.try_beat(bearer, beat(MOVIE, seen.sent)).ok());
        match answer {
            Some(answer) if answer.status == 204 => (seen.acknowledged, last_taken) = (seen.sent, Instant::now()),
            Some(answer) => assert_eq!(answer.status, 503, "{answer:?}"),
            None => {
                seen.end = Some(server.wait(Duration::from_secs(20)));
                return seen;
            }
        }
    }
    server.kill();
    seen
}

/// The first call that failed and was not the keeper's, which is known by the files it zeroes.
fn first_hard_fault(calls: &[Call]) -> Option<&Call> {
    let keepers: HashSet<u32> =
        calls.iter().filter(|call| call.text.contains("/log/zeroing-")).map(|call| call.thread).collect();
    calls.iter().find(|call| call.is_injected() && !keepers.contains(&call.thread))
}

/// No 204 follows the fault, and the end does, at once.
fn check_trace(calls: &[Call], place: Place, acknowledged: usize, ended: bool) {
    let Some(fault) = first_hard_fault(calls) else {
        assert!(!ended, "the process ended without need: {calls:#?}");
        return;
    };
    assert!(ended, "the process goes on after {fault:?}");
    let (before, after): (Vec<_>, Vec<_>) = calls.iter().partition(|call| call.begun < fault.begun);
    match place {
        Place::Anywhere => {
            let answers = |calls: &[&Call]| calls.iter().filter(|call| call.text.contains("\"HTTP/1.1 204")).count();
            assert_eq!(answers(&before), acknowledged, "the trace does not show what the client saw: {calls:#?}");
            assert_eq!(answers(&after), 0, "a 204 was sent after the fault: {calls:#?}");
        }
        // The sockets are not traced, but a 204 rests on a frame's sync; one frame more is the repeated last one.
        Place::Segments if fault.is(&["fdatasync"]) => {
            let synced = before.iter().filter(|call| call.is(&["fdatasync"]) && !call.is_injected()).count();
            assert!(acknowledged <= synced.saturating_sub(1), "{acknowledged} acknowledged, {synced} synced");
        }
        Place::Segments | Place::Tables => {}
    }
    let end = calls.iter().rfind(|call| call.is_end()).expect("the process ended");
    let took = end.time - fault.time;
    assert!(took <= END_SECONDS, "the process ended {took:.3} s after the fault");
}

fn check_fault(directory: &Path, fault: &Fault) {
    let launch = Launch::embedded(&directory.join("data"));
    let server = launch.start();
    let bearer = token(&launch.directory, USER);
    let mut client = server.connect();
    for number in 1..=BEATS_BEFORE {
        assert_eq!(client.beat(&bearer, beat(MOVIE, number)).status, 204);
    }
    server.kill();

    let trace = Trace::to(directory.join("trace"));
    let Fault { calls, error, place, first } = fault;
    let inject = format!("inject={calls}:error={error}:when={first}+");
    let paths = place.paths(&launch);
    let mut arguments = vec!["-e", &inject];
    let traced = match place {
        // The keeper is known by its writes.
        Place::Anywhere => format!("trace={calls},pwrite64,write,writev,sendto,sendmsg"),
        Place::Segments | Place::Tables => format!("trace={calls}"),
    };
    arguments.extend(["-e", &traced]);
    arguments.extend(paths.iter().flat_map(|path| ["-P", path.to_str().unwrap()]));
    let seen = match launch.clone().under(&trace.words(&arguments)).try_start() {
        Ok(server) => beat_until_it_ends(server, &bearer),
        Err(end) => Seen { acknowledged: BEATS_BEFORE, sent: BEATS_BEFORE, end: Some(end) },
    };
    let Seen { acknowledged, sent, end } = seen;
    if let Some(end) = &end {
        assert!(end.status.code().is_some_and(|code| code != 0), "{:?}\n{}", end.status, end.stderr);
    }
    check_trace(&trace.read(), *place, (acknowledged - BEATS_BEFORE) as usize, end.is_some());

    let server = launch.start();
    let found = server.connect().get(&format!("{PROGRESS}/{MOVIE}"), Some(&bearer)).json();
    let found = found["position_seconds"].as_f64().unwrap();
    assert!((f64::from(acknowledged)..=f64::from(sent)).contains(&found), "{acknowledged} <= {found} <= {sent}");
    let ended = if end.is_some() { "ended" } else { "went on" };
    println!("{calls} {place:?} {error} from the {first}th on: {acknowledged} acknowledged, {sent} sent, {ended}");
}

fn check_faults(test: &str, faults: impl IntoIterator<Item = Fault>) {
    if trace::is_possible(test) {
        for fault in faults {
            let directory = tempfile::tempdir().unwrap();
            check_fault(directory.path(), &fault);
        }
    }
}

#[test]
fn a_failed_sync_ends_the_process_and_no_acknowledgement_follows() {
    let sync = |first| Fault { calls: "fsync,fdatasync", error: "EIO", place: Place::Anywhere, first };
    let of_frames = |first| Fault { calls: "fdatasync", error: "EIO", place: Place::Segments, first };
    let faults = [1, 2, 5, 20, 100].map(sync).into_iter().chain([1, 2, 9, 16].map(of_frames));
    check_faults("a_failed_sync_ends_the_process_and_no_acknowledgement_follows", faults);
}

#[test]
fn a_failed_write_ends_the_process_and_nothing_acknowledged_is_lost() {
    let fault = |calls, error, place| move |first| Fault { calls, error, place, first };
    let anywhere = [1, 2, 3, 20, 60].map(fault("pwrite64", "EIO", Place::Anywhere));
    let full = [2, 9, 16].map(fault("pwrite64", "ENOSPC", Place::Segments));
    let base = [1, 3].map(fault("write", "EIO", Place::Tables));
    let faults = anywhere.into_iter().chain(full).chain(base);
    check_faults("a_failed_write_ends_the_process_and_nothing_acknowledged_is_lost", faults);
}

#[test]
fn a_slow_disk_delays_every_204_and_sheds_and_loses_nothing() {
    const DELAY: Duration = Duration::from_millis(500);
    const LOAD: Load = Load { threads: 2, connections: 16, reads: false };
    if !trace::is_possible("a_slow_disk_delays_every_204_and_sheds_and_loses_nothing") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let launch = Launch::embedded(&directory.path().join("data"));
    let trace = Trace::to(directory.path().join("trace"));
    let delay = format!("inject=fdatasync:delay_enter={}", DELAY.as_micros());
    let slow = launch.clone().with(&["--workers", "2", "--max-in-flight-writes", "8"]);
    let server = slow.under(&trace.words(&["-e", "trace=fdatasync", "-e", &delay])).start();
    let mut ledger = Ledger::new(16, 10, &launch.directory, seed());
    let end = Instant::now() + Duration::from_secs(5);
    let (tally, ()) = ledger.load(server.address, LOAD, || Instant::now() >= end, || ());
    println!("{tally:?}");
    assert_eq!((&tally.faults, tally.closed), (&Vec::new(), 0));
    assert!(tally.unavailable > 0, "none was shed: {tally:?}");
    assert!(tally.fastest.is_some_and(|fastest| fastest >= DELAY), "acknowledged before the sync returned: {tally:?}");
    server.kill();
    let server = launch.start();
    ledger.verify(server.address).unwrap();
}

/// A file system of its own, in memory; gone when dropped.
pub(crate) struct SmallDisk {
    pub(crate) path: PathBuf,
}

impl SmallDisk {
    /// `None`, and the test is skipped, where this process may not mount.
    pub(crate) fn mount(test: &str, path: &Path, mebibytes: u64) -> Option<Self> {
        std::fs::create_dir(path).unwrap();
        let size = format!("size={mebibytes}m");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(path).stderr(Stdio::null());
        if mount.status().is_ok_and(|status| status.success()) {
            return Some(Self { path: path.to_owned() });
        }
        skip(test, "needs leave to mount a small file system");
        None
    }

    fn free_bytes(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.path).unwrap();
        stat.f_bavail * stat.f_frsize
    }

    /// Fills it with a file of zeros until so much is free.
    fn fill(&self, free_bytes: u64) -> PathBuf {
        let path = self.path.join("filler");
        let mut filler = std::fs::File::create(&path).unwrap();
        let zeros = vec![0; 64 << 10];
        while self.free_bytes() > free_bytes {
            filler.write_all(&zeros).unwrap();
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: what still runs in it, after a panic, does not keep it.
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

/// Whether a heartbeat is taken; if not, it is refused for want of space.
fn is_taken(client: &mut Client, bearer: &str) -> bool {
    let answer = client.beat(bearer, beat(MOVIE, 1));
    if answer.status == 204 {
        return true;
    }
    assert_eq!((answer.status, answer.slug().as_str()), (503, "storage-unavailable"));
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
    false
}

#[test]
fn a_full_disk_refuses_writes_and_answers_reads_until_there_is_room_again() {
    const RESERVE: u64 = 16 << 20;
    const NOTICED: Duration = Duration::from_secs(5);
    let directory = tempfile::tempdir().unwrap();
    let test = "a_full_disk_refuses_writes_and_answers_reads_until_there_is_room_again";
    let Some(disk) = SmallDisk::mount(test, &directory.path().join("disk"), 64) else { return };
    let launch = Launch::embedded(&disk.path.join("data")).with(&["--disk-reserve-bytes", &RESERVE.to_string()]);
    let mut server = launch.start();
    let bearer = token(&launch.directory, USER);
    let mut ledger = Ledger::new(10, 10, &launch.directory, seed());
    let load = Load { threads: 1, connections: 8, reads: true };
    for round in 1..=2 {
        let tally = ledger.load_until_kept(&server, load, 100);
        assert_eq!((tally.faults, tally.closed), (Vec::new(), 0), "in round {round}");

        let filler = disk.fill(RESERVE / 2);
        let mut client = server.connect();
        within(NOTICED, "writes are refused", || !is_taken(&mut client, &bearer));
        ledger.verify(server.address).unwrap();
        // A start needs no room either.
        server.kill();
        server = launch.start();
        ledger.verify(server.address).unwrap();
        let mut client = server.connect();
        within(NOTICED, "writes are refused after a start too", || !is_taken(&mut client, &bearer));

        std::fs::remove_file(filler).unwrap();
        within(NOTICED, "writes are taken again", || is_taken(&mut client, &bearer));
    }
}

#[test]
fn a_disk_with_less_room_than_the_reserve_takes_no_write_and_answers_reads() {
    let directory = tempfile::tempdir().unwrap();
    let launch = Launch::embedded(&directory.path().join("data"));
    let server = launch.start();
    let bearer = token(&launch.directory, USER);
    assert!(is_taken(&mut server.connect(), &bearer));
    server.kill();

    let server = launch.with(&["--disk-reserve-bytes", &(1_u64 << 60).to_string()]).start();
    let mut client = server.connect();
    within(Duration::from_secs(5), "writes are refused", || !is_taken(&mut client, &bearer));
    // By the reserve, not for want of a next segment when this one is full.
    let written = server.metric("playhead_store_log_written_bytes_total");
    assert!(written < 32 << 10, "{written} bytes were written all the same");
    let bookmark = client.get(&format!("{PROGRESS}/{MOVIE}"), Some(&bearer)).json();
    assert_eq!(bookmark["position_seconds"], 1.0);
}
