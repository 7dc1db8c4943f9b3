//! Many rows at rest: look-ups and lists of viewers drawn at random, memory, disk, the time of a start and of drains.

use super::{Bench, rounded};
use crate::process::{Deadline, output, run as run_command};
use crate::subject::{Launch, Load, Server, eventually, wait_for};
use anyhow::{Context, Result, anyhow, ensure};
use clap::Args;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Rows, titles of 50 for each viewer
    #[arg(long, default_value_t = 100_000_000)]
    rows: u64,
    /// Viewers who are read
    #[arg(long, default_value_t = 1_000)]
    readers: u64,
    /// Seconds of heartbeats over the rows: enough to fill the log, so that there is a drain
    #[arg(long, default_value_t = 240)]
    seconds: u32,
    /// Where the store is, instead of a temporary directory; must have room: about 60 bytes a row
    #[arg(long)]
    directory: Option<PathBuf>,
}

/// Of each viewer.
pub(super) const TITLES: u64 = 50;

/// Kept free on the disk.
const ROOM_BYTES: u64 = 4 << 30;

pub(super) fn run(bench: &Bench, options: &Options) -> Result<Value> {
    let parent = options.directory.clone().unwrap_or_else(std::env::temp_dir);
    let stat = rustix::fs::statvfs(&parent)?;
    let (free, wanted) = (stat.f_bavail * stat.f_frsize, options.rows * 60 + ROOM_BYTES);
    ensure!(free > wanted, "{} has {free} bytes free and {wanted} are wanted: give fewer --rows", parent.display());
    let directory = tempfile::tempdir_in(&parent)?;
    let data = directory.path().join("data");
    let users = options.rows / TITLES;
    let filled = fill(bench, &data, users)?;

    let launch = Launch::new(&bench.binary, &data, &[]);
    let server = launch.start()?;
    let ready_after = server.ready_after;
    let (own_at_start, _) = server.memory();
    let reads = read(bench, &server, &data, users, options.readers)?;
    let (own_after_reads, _) = server.memory();
    let disk_bytes = size_of(&data)?;
    let names = ["drain_duration_seconds_sum", "drains_total", "drained_rows_total"];
    let drained = || names.map(|name| server.metric(&format!("playhead_store_{name}")));
    let before = drained();
    let duration = format!("{}s", options.seconds);
    let words = ["--saturate", "--duration", &duration, "--streamers", "1M", "--workers", "1"];
    let load = Load::start(&bench.binary, &server.url, &data, &words)?;
    let load = thread::spawn(move || load.wait());
    let mut resident_before_freeze = 0;
    while !load.is_finished() && server.metric("playhead_store_freezes_total") < 1.0 {
        (_, resident_before_freeze) = server.memory();
        wait_for(Duration::from_millis(100));
    }
    let loaded = load.join().map_err(|_| anyhow!("the load was not waited for"))??;
    let is_drained = || server.metric("playhead_store_drains_total") >= server.metric("playhead_store_freezes_total");
    eventually(Duration::from_secs(600), "the drains have ended", is_drained)?;
    let after = drained();
    let [seconds, drains, rows] = std::array::from_fn(|at| after[at] - before[at]);
    let (own_after_drains, resident) = server.memory();
    let began = Instant::now();
    server.signal(Signal::TERM)?;
    server.wait(Duration::from_secs(900)).context("the server does not stop")?;
    let stopped_after = began.elapsed();
    let result = json!({
        "rows": options.rows,
        "fill_seconds": rounded(filled.as_secs_f64()),
        "stopped_after_s": rounded(stopped_after.as_secs_f64()),
        "ready_after_s": rounded(ready_after.as_secs_f64()),
        "disk_bytes_per_row": rounded(float(disk_bytes) / float(options.rows)),
        "reads": reads,
        "own_bytes_at_start": own_at_start,
        "own_bytes_after_reads": own_after_reads,
        "own_bytes_after_drains": own_after_drains,
        "resident_bytes_before_freeze": resident_before_freeze,
        "resident_bytes_after_drains": resident,
        "heartbeats_per_s": rounded(loaded.number("/acknowledged_per_s")),
        "drains": drains,
        "seconds_per_drain": rounded(seconds / drains.max(1.0)),
        "rows_per_drain": rounded(rows / drains.max(1.0)),
        "ratios": [{"goal": "11", "what": "resident memory with 1 M titles beaten within one freeze, MB (less is better)", "floor": 400, "aim": 250, "value": rounded(float(resident_before_freeze) / 1e6)}],
    });
    println!("{result}");
    Ok(result)
}

fn float(number: u64) -> f64 {
    number as f64
}

fn fill(bench: &Bench, data: &Path, users: u64) -> Result<Duration> {
    let example = bench.example("playhead-engine", "fill", &[])?;
    let started = Instant::now();
    let mut fill = Command::new(example);
    fill.arg(data).arg(users.to_string()).arg(TITLES.to_string());
    run_command(&mut fill, Deadline::after(Duration::from_secs(4 * 3_600)))?;
    Ok(started.elapsed())
}

/// One read after the other, of viewers and titles drawn at random, on one connection.
pub(super) fn read(bench: &Bench, server: &Server, data: &Path, users: u64, readers: u64) -> Result<Value> {
    let mut rng = fastrand::Rng::with_seed(7);
    let (mut points, mut lists) = (Vec::new(), Vec::new());
    let address = server.url.trim_start_matches("http://");
    let socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    let mut socket = BufReader::new(socket);
    for _ in 0..readers {
        let movie = rng.u64(1..=TITLES);
        for (path, times) in [
            (format!("/api/v1/stream/progress/{movie}"), &mut points),
            ("/api/v1/stream/progress?state=all".to_owned(), &mut lists),
        ] {
            // Another viewer each time: what was just read lies in memory.
            let mut mint = Command::new(&bench.binary);
            mint.args(["token", "--user", &rng.u64(1..=users).to_string(), "--data-dir"]).arg(data);
            let token = output(&mut mint)?;
            let token = token.trim();
            let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\r\n");
            let started = Instant::now();
            socket.get_mut().write_all(request.as_bytes())?;
            let body = answer(&mut socket)?;
            times.push(started.elapsed().as_secs_f64() * 1_000.0);
            ensure!(body.contains("in_progress") || body.contains("completed"), "a row is not there: {body}");
        }
    }
    let spread = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        let at = |share: usize| rounded(times[(times.len() * share / 1_000).min(times.len() - 1)]);
        json!({"p50_ms": at(500), "p99_ms": at(990), "max_ms": at(1_000)})
    };
    Ok(json!({"count": readers, "by_title": spread(&mut points), "list_of_20": spread(&mut lists)}))
}

fn answer(socket: &mut BufReader<TcpStream>) -> Result<String> {
    let mut length = 0;
    let mut line = String::new();
    socket.read_line(&mut line)?;
    ensure!(line.starts_with("HTTP/1.1 200"), "a read was answered with {line}");
    loop {
        line.clear();
        socket.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().context("the length of an answer")?;
        }
    }
    let mut body = vec![0; length];
    socket.read_exact(&mut body)?;
    Ok(String::from_utf8(body)?)
}

fn size_of(directory: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        bytes += if entry.path().is_dir() { size_of(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(bytes)
}
