//! The faults that a soak draws from: rows 3 to 11 of the durability plan.
//!
//! Each leaves no server behind and the store as the fault left it; who called then starts it and reads every row back.
//! A fault that this machine does not allow says so and is counted as skipped.

use super::{Soak, Subject};
use crate::process::output;
use crate::subject::{Ended, Server, eventually, wait_for};
use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server that met a failed write may take to end, tracer included.
const ENDS_WITHIN: Duration = Duration::from_secs(20);

/// A server that was told to stop must have ended by then.
const STOP_WITHIN: Duration = Duration::from_millis(10_500);

pub(super) enum Outcome {
    /// What was done and seen.
    Done(String),
    /// Why it was not.
    Skipped(String),
}

/// A kind of fault.
pub(super) struct Case {
    pub(super) name: &'static str,
    /// In the durability plan.
    pub(super) row: &'static str,
    pub(super) run: fn(&mut Soak, &Subject) -> Result<Outcome>,
}

const CASES: &[Case] = &[
    Case { name: "sync-fails", row: "3", run: sync_fails },
    Case { name: "disk-full", row: "4", run: disk_full },
    Case { name: "write-fails", row: "4b", run: write_fails },
    Case { name: "slow-disk", row: "5", run: slow_disk },
    Case { name: "damage", row: "6", run: damage },
    Case { name: "no-descriptors", row: "7", run: no_descriptors },
    Case { name: "overload", row: "8", run: overload },
    Case { name: "pause", row: "9", run: pause },
    Case { name: "stop", row: "10", run: stop },
    Case { name: "clock", row: "11", run: clock },
];

/// All, or those named.
pub(super) fn chosen(only: &[String]) -> Result<Vec<&'static Case>> {
    if let Some(unknown) = only.iter().find(|name| !CASES.iter().any(|case| case.name == **name)) {
        let names: Vec<_> = CASES.iter().map(|case| case.name).collect();
        bail!("there is no fault `{unknown}`; the faults are {}", names.join(", "));
    }
    Ok(CASES.iter().filter(|case| only.is_empty() || only.iter().any(|name| name == case.name)).collect())
}

/// Whether a program is there and may do its work.
fn works(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn can_trace() -> Option<Outcome> {
    let works = works("strace", &["-D", "-qq", "-o", "/dev/null", "true"]);
    (!works).then(|| Outcome::Skipped("needs strace, and leave to trace".to_owned()))
}

/// The words of a tracer that bends these calls.
fn tracer<'a>(trace: &'a str, inject: &'a str) -> Vec<&'a str> {
    vec!["strace", "-D", "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null", "-e", trace, "-e", inject]
}

/// A disk of which calls fail from one of them on: the server must end by itself, and not with success.
fn calls_fail(soak: &mut Soak, subject: &Subject, calls: &str, first: u32) -> Result<Outcome> {
    if let Some(skipped) = can_trace() {
        return Ok(skipped);
    }
    let (trace, inject) = (format!("trace={calls}"), format!("inject={calls}:error=EIO:when={first}+"));
    let how = format!("{calls} fail from the {first}th of a thread on");
    let ended = match subject.launch.under(&tracer(&trace, &inject)).try_start()? {
        Err(ended) => ended,
        Ok(server) => {
            let load = soak.load(subject, &server, "5s")?;
            let deadline = Instant::now() + ENDS_WITHIN;
            // It ends once the fault is met; one that only the keeper of spare segments meets is no reason to end.
            let mut is_running = true;
            while is_running && Instant::now() < deadline {
                is_running = TcpStream::connect(server.url.trim_start_matches("http://")).is_ok();
                wait_for(Duration::from_millis(100));
            }
            load.interrupt()?;
            load.wait()?;
            if is_running {
                server.kill()?;
                return Ok(Outcome::Done(format!("{how}; it went on")));
            }
            server.wait(ENDS_WITHIN)?
        }
    };
    ensure!(!ended.status.success(), "a server whose {calls} fail ended with success: {}", ended.talk);
    Ok(Outcome::Done(format!("{how}; it ended")))
}

fn sync_fails(soak: &mut Soak, subject: &Subject) -> Result<Outcome> {
    let first = [1, 2, 5, 20, 100][soak.rng.usize(..5)];
    calls_fail(soak, subject, "fsync,fdatasync", first)
}

fn write_fails(soak: &mut Soak, subject: &Subject) -> Result<Outcome> {
    let first = [1, 2, 3, 20, 60][soak.rng.usize(..5)];
    calls_fail(soak, subject, "pwrite64", first)
}

fn slow_disk(soak: &mut Soak, subject: &Subject) -> Result<Outcome> {
    if let Some(skipped) = can_trace() {
        return Ok(skipped);
    }
    let delay_ms = soak.rng.u64(500..=5_000);
    let inject = format!("inject=fdatasync:delay_enter={}", delay_ms * 1_000);
    let server = subject.launch.under(&tracer("trace=fdatasync", &inject)).start()?;
    let loaded = soak.load(subject, &server, "8s")?.wait()?;
    let fastest = loaded.json["latency_histogram_us"][0][0].as_u64();
    let floor = delay_ms * 1_000 * 9 / 10;
    ensure!(
        fastest.is_none_or(|fastest| fastest >= floor),
        "a 204 came within {fastest:?} µs of a sync of {delay_ms} ms"
    );
    server.kill()?;
    Ok(Outcome::Done(format!("each sync takes {delay_ms} ms; acknowledged {}", loaded.json["acknowledged"])))
}

fn disk_full(soak: &mut Soak, _: &Subject) -> Result<Outcome> {
    let own = soak.subject(&soak.binary.clone())?;
    let disk = own.data.join("disk");
    fs::create_dir(&disk)?;
    if !works("mount", &["-t", "tmpfs", "-o", "size=64m", "tmpfs", &disk.to_string_lossy()]) {
        return Ok(Outcome::Skipped("needs leave to mount a small file system".to_owned()));
    }
    let outcome = fill(soak, &own, &disk);
    // Lazily: what still runs in it, after an error, does not keep it.
    works("umount", &["-l", &disk.to_string_lossy()]);
    let outcome = outcome.with_context(|| own.left_in_place("a full disk"))?;
    own.keep_no_more()?;
    Ok(outcome)
}

fn fill(soak: &mut Soak, own: &Subject, disk: &Path) -> Result<Outcome> {
    const RESERVE: u64 = 16 << 20;
    let launch = own.launch.at(&disk.join("data")).with(&["--disk-reserve-bytes", &RESERVE.to_string()]);
    let own = Subject { launch, data: own.data.clone(), ledger: own.ledger.clone() };
    let server = own.launch.start()?;
    let load = soak.load(&own, &server, "6s")?;
    wait_for(Duration::from_secs(2));
    let filler = disk.join("filler");
    let mut file = File::create(&filler)?;
    let zeros = vec![0; 256 << 10];
    loop {
        let stat = rustix::fs::statvfs(disk)?;
        if stat.f_bavail * stat.f_frsize <= RESERVE / 2 {
            break;
        }
        file.write_all(&zeros)?;
    }
    // Open, it would keep its space even once it is removed.
    drop(file);
    let loaded = load.wait()?;
    let refused = loaded.json["failures"]["503"].as_u64().unwrap_or_default();
    ensure!(refused > 0, "no write was refused on a full disk: {}", loaded.json["failures"]);
    own.verify(&server)?;
    fs::remove_file(&filler)?;
    let again = eventually_taken(soak, &own, &server)?;
    own.verify(&server)?;
    server.kill()?;
    own.verify(&own.launch.start()?)?;
    Ok(Outcome::Done(format!("{refused} writes refused; {again} taken once there was room")))
}

/// A short load that must be acknowledged whole, tried until it is.
fn eventually_taken(soak: &mut Soak, subject: &Subject, server: &Server) -> Result<u64> {
    let mut acknowledged = 0;
    eventually(Duration::from_secs(30), "writes are taken again", || {
        let loaded = soak.load(subject, server, "1s").and_then(crate::subject::Load::wait);
        let Ok(loaded) = loaded else { return false };
        acknowledged = loaded.json["acknowledged"].as_u64().unwrap_or_default();
        acknowledged > 0 && loaded.json["failed"] == 0
    })?;
    Ok(acknowledged)
}

/// Damage to a copy: a wrong value must never come out of it.
fn damage(soak: &mut Soak, subject: &Subject) -> Result<Outcome> {
    let server = subject.launch.start()?;
    let load = soak.load(subject, &server, "30s")?;
    let is_loaded = || server.metric("playhead_store_records_total") > 500.0;
    eventually(Duration::from_secs(60), "the load has begun", is_loaded)?;
    server.kill()?;
    load.interrupt()?;
    load.wait()?;
    let copy = tempfile::tempdir()?;
    let data = copy.path().join("data");
    copy_directory(&subject.launch.directory, &data)?;
    let ledger = copy.path().join("ledger");
    fs::copy(subject.ledger_file(), &ledger)?;
    let files = files_in(&data.join("log"))?.into_iter().chain(files_in(&data.join("base"))?).collect::<Vec<_>>();
    let path = &files[soak.rng.usize(..files.len())];
    let name = path.strip_prefix(&data)?.display().to_string();
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let length = file.metadata()?.len().max(1);
    let offset = soak.rng.u64(..length);
    let kind = ["flipped", "zeroed", "cut"][soak.rng.usize(..3)];
    match kind {
        "flipped" => {
            let mut byte = [0];
            // An empty file has nothing to flip.
            if file.read_at(&mut byte, offset)? == 1 {
                file.write_all_at(&[byte[0] ^ (1 << soak.rng.u8(..8))], offset)?;
            }
        }
        "zeroed" => file.write_all_at(&vec![0; soak.rng.usize(1..=8_192)], offset)?,
        _ => file.set_len(offset)?,
    }
    let what = format!("{name} {kind} at {offset}");
    let damaged = subject.launch.at(&data);
    let server = match damaged.try_start()? {
        Err(Ended { status, talk }) => {
            ensure!(!status.success(), "a refused start must not be a success");
            let last = talk.lines().last().unwrap_or_default().chars().take(200).collect::<String>();
            return Ok(Outcome::Done(format!("{what}: refused: {last}")));
        }
        Ok(server) => server,
    };
    let words = ["verify", "--ledger", &*ledger.to_string_lossy()];
    let found = crate::subject::load(&soak.binary, &server.url, &data, &words)?;
    let count = |name: &str| found.json[name].as_u64().unwrap_or_default();
    let talk = server.talk();
    server.kill()?;
    ensure!(count("invented") == 0, "{what}: a wrong value came out: {}", found.json);
    let said = talk.contains("torn") || talk.contains("cut");
    ensure!(count("lost") == 0 || said, "{what}: {} lost without a word: {}\n{talk}", count("lost"), found.json);
    Ok(Outcome::Done(format!(
        "{what}: served; {} good, {} unreadable, {} cut with a warning",
        count("good"),
        count("unreadable"),
        count("lost")
    )))
}

fn files_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("can't list {}", directory.display()))? {
        let path = entry?.path();
        if path.is_dir() { files.extend(files_in(&path)?) } else { files.push(path) }
    }
    files.sort();
    Ok(files)
}

fn copy_directory(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let target = to.join(path.file_name().context("an entry has a name")?);
        if path.is_dir() {
            copy_directory(&path, &target)?;
        } else {
            fs::copy(&path, &target)?;
        }
    }
    Ok(())
}

fn no_descriptors(soak: &mut Soak, subject: &Subject) -> Result<Outcome> {
    let limited = subject.launch.under(&["sh", "-c", "ulimit -n 256; exec \"$@\"", "sh"]);
    let server = limited.start()?;
    let load = soak.load(subject, &server, "8s")?;
    let address = server.url.trim_start_matches("http://").to_owned();
    let crowd: Vec<_> = (0..2_000).filter_map(|_| TcpStream::connect(&address).ok()).collect();
    wait_for(Duration::from_secs(2));
    let count = crowd.len();
    drop(crowd);
    let loaded = load.wait()?;
    let again = eventually_taken(soak, subject, &server)?;
    server.kill()?;
    Ok(Outcome::Done(format!(
        "{count} sockets against 256 descriptors; acknowledged {} meanwhile, {again} afterwards",
        loaded.json["acknowledged"]
    )))
}

fn overload(soak: &mut Soak, subject: &Subject) -> Result<Outcome> {
    if let Some(skipped) = can_trace() {
        return Ok(skipped);
    }
    let slow = subject.launch.with(&["--max-in-flight-writes", "100"]);
    let server = slow.under(&tracer("trace=fdatasync", "inject=fdatasync:delay_enter=20000")).start()?;
    // Far more than 100 writes for each 20 ms.
    let ledger = subject.ledger_file();
    let ledger = ledger.to_string_lossy();
    let factor = if soak.rng.bool() { "40ms" } else { "20ms" };
    let words = ["--streamers", "400", "--interval", factor, "--connections", "400", "--duration", "6s", "--steady"];
    let words = [&words[..], &["--workers", "1", "--patience", "3s", "--ledger", &ledger]].concat();
    let loaded = crate::subject::load(&soak.binary, &server.url, &subject.launch.directory, &words)?;
    let shed = loaded.json["failures"]["503"].as_u64().unwrap_or_default();
    ensure!(
        loaded.number("/acknowledged") > 0.0,
        "nothing was acknowledged under overload: {}",
        loaded.json["failures"]
    );
    let again = eventually_taken(soak, subject, &server)?;
    server.kill()?;
    Ok(Outcome::Done(format!(
        "a beat each {factor} of 400: {} acknowledged, {shed} shed (p99 {} ms); {again} afterwards",
        loaded.json["acknowledged"], loaded.json["shed_ms"]["p99"]
    )))
}

fn pause(soak: &mut Soak, subject: &Subject) -> Result<Outcome> {
    let server = subject.launch.start()?;
    let seconds = soak.rng.u64(5..=20);
    let load = soak.load(subject, &server, &format!("{}s", seconds + 5))?;
    wait_for(Duration::from_millis(soak.rng.u64(300..=1_500)));
    server.signal(Signal::STOP)?;
    wait_for(Duration::from_secs(seconds));
    server.signal(Signal::CONT)?;
    let loaded = load.wait()?;
    let again = eventually_taken(soak, subject, &server)?;
    let talk = server.talk();
    ensure!(!talk.contains("ERROR"), "an error after a pause: {talk}");
    server.kill()?;
    Ok(Outcome::Done(format!(
        "paused for {seconds} s; acknowledged {}, {again} afterwards",
        loaded.json["acknowledged"]
    )))
}

fn stop(soak: &mut Soak, subject: &Subject) -> Result<Outcome> {
    let server = subject.launch.start()?;
    // A client that never finishes its request must not keep the server.
    let mut stuck = TcpStream::connect(server.url.trim_start_matches("http://"))?;
    stuck.write_all(b"POST /api/v1/stream/progress HTTP/1.1\r\nHost: a\r\nContent-Length: 40\r\n\r\n{")?;
    let load = soak.load(subject, &server, "30s")?;
    wait_for(Duration::from_millis(soak.rng.u64(500..=2_500)));
    let told = Instant::now();
    let status = server.stop()?;
    let took = told.elapsed();
    load.interrupt()?;
    let loaded = load.wait()?;
    ensure!(status.success(), "told to stop it ended with {status}");
    ensure!(took <= STOP_WITHIN, "it took {took:?} to stop");
    let odd: Vec<&String> = loaded.json["failures"].as_object().into_iter().flatten().map(|(how, _)| how).collect();
    let is_allowed = |how: &str| how.starts_with("503") || how == "closed";
    ensure!(odd.iter().all(|how| is_allowed(how)), "a stop showed as {odd:?}");
    Ok(Outcome::Done(format!("stopped within {took:.1?}; acknowledged {}", loaded.json["acknowledged"])))
}

fn clock(soak: &mut Soak, subject: &Subject) -> Result<Outcome> {
    // The library alone: the program starts a child and waits, so a server killed through it would live on.
    let mut asked = Command::new("faketime");
    let Ok(library) = output(asked.args(["-f", "+0", "printenv", "LD_PRELOAD"])) else {
        return Ok(Outcome::Skipped("needs faketime".to_owned()));
    };
    let library = format!("LD_PRELOAD={}", library.trim());
    let offsets: Vec<i64> = (0..2).map(|_| soak.rng.i64(-600..=600)).collect();
    for offset in &offsets {
        let server = {
            let time = format!("FAKETIME={offset:+}s");
            // Only the clock of the wall is off.
            subject.launch.under(&["env", &library, &time, "DONT_FAKE_MONOTONIC=1"]).start()?
        };
        let loaded = soak.load(subject, &server, "2s")?.wait()?;
        // Late or shed, as on any busy machine; but nothing else, and not for long.
        let failures = loaded.json["failures"].as_object().cloned().unwrap_or_default();
        let is_refused = failures.keys().any(|how| !["timed_out", "503"].contains(&how.as_str()));
        ensure!(!is_refused, "a write was refused by a clock {offset} s off: {failures:?}");
        eventually_taken(soak, subject, &server)?;
        subject.verify(&server)?;
        server.kill()?;
    }
    Ok(Outcome::Done(format!("clocks {offsets:?} s off, one after the other")))
}
