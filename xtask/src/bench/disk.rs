//! Bytes that reach the device for each byte acknowledged, while titles are overwritten again and again.
//!
//! The store lies on a file system of its own on a loop device in memory, so that the device's counter counts nothing
//! else; a sync is then quicker than on a real disk and frames are smaller, so the figure is no better than there.

use super::{Bench, rounded};
use crate::subject::{Launch, Load, wait_for};
use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// For how long
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Viewers: each has a title that is overwritten
    #[arg(long, default_value_t = 50_000)]
    streamers: u32,
    /// The size of the file system
    #[arg(long, default_value_t = 3)]
    gibibytes: u64,
}

/// What a heartbeat has to say: user, title, position.
const RECORD_BYTES: f64 = 24.0;

pub(super) fn run(bench: &Bench, options: &Options) -> Result<Value> {
    let disk = Disk::mount(options.gibibytes << 30)?;
    let data = disk.directory.path().join("mount/data");
    let server = Launch::new(&bench.binary, &data, &[]).start()?;
    let streamers = options.streamers.to_string();
    let words = ["--saturate", "--duration", "86400s", "--streamers", &streamers, "--workers", "1"];
    let load = Load::start(&bench.binary, &server.url, &data, &words)?;
    // The first writing of segments, and of the rows, is over.
    wait_for(Duration::from_secs(20));
    let names = ["records", "frames", "log_written_bytes", "drains", "drained_rows"];
    let read = || names.map(|name| server.metric(&format!("playhead_store_{name}_total")));
    let (before, bytes_before) = (read(), disk.written_bytes()?);
    let started = Instant::now();
    let time = Duration::from_secs_f64(options.minutes * 60.0);
    let mut memory_peak = 0;
    while started.elapsed() < time {
        wait_for(Duration::from_secs(1).min(time.saturating_sub(started.elapsed())));
        memory_peak = memory_peak.max(server.memory().1);
    }
    let (after, bytes) = (read(), disk.written_bytes()? - bytes_before);
    load.interrupt()?;
    load.wait()?;
    server.stop()?;
    let [records, frames, log_bytes, drains, drained_rows] = std::array::from_fn(|at| after[at] - before[at]);
    ensure!(records > 0.0, "nothing was acknowledged");
    let (bytes, memory_peak) = (bytes as f64, memory_peak as f64);
    let factor = |bytes: f64| rounded(bytes / (records * RECORD_BYTES));
    let result = json!({
        "minutes": options.minutes,
        "streamers": options.streamers,
        "acknowledged": records,
        "per_s": rounded(records / started.elapsed().as_secs_f64()),
        "records_per_frame": rounded(records / frames),
        "drains": drains,
        "drained_rows": drained_rows,
        "device_bytes_per_byte": factor(bytes),
        "log_bytes_per_byte": factor(log_bytes),
        "base_bytes_per_byte": factor((bytes - log_bytes).max(0.0)),
        "resident_bytes_peak": memory_peak,
        "ratios": [
            {"goal": "7", "what": "bytes written to the device for each of 24 acknowledged (less is better)", "floor": 6.0, "aim": 2.5, "value": factor(bytes)},
        ],
    });
    println!("{result}");
    Ok(result)
}

/// A file system on a loop device whose file lies in memory; gone when dropped.
struct Disk {
    directory: tempfile::TempDir,
    device: String,
    _image: tempfile::TempDir,
}

impl Disk {
    fn mount(bytes: u64) -> Result<Self> {
        let memory = Path::new("/dev/shm");
        let image_directory = tempfile::tempdir_in(memory).context("needs a file system in memory at /dev/shm")?;
        let image: PathBuf = image_directory.path().join("image");
        File::create(&image)?.set_len(bytes)?;
        let run = |command: &mut Command| {
            let output = command.output().with_context(|| format!("can't run {:?}", command.get_program()))?;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(output.status.success(), "{:?} failed, root may be needed: {said}", command.get_program());
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))?;
        let directory = tempfile::tempdir()?;
        let mount = directory.path().join("mount");
        fs::create_dir(&mount)?;
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&mount))?;
        let device = run(Command::new("findmnt").args(["-n", "-o", "SOURCE"]).arg(&mount))?;
        let device = device.trim_start_matches("/dev/").to_owned();
        Ok(Self { directory, device, _image: image_directory })
    }

    /// What the device has been given to write, so far.
    fn written_bytes(&self) -> Result<u64> {
        let stats = fs::read_to_string("/proc/diskstats")?;
        let line = stats.lines().find(|line| line.split_whitespace().nth(2) == Some(self.device.as_str()));
        let sectors = line.and_then(|line| line.split_whitespace().nth(9)).and_then(|text| text.parse::<u64>().ok());
        Ok(sectors.with_context(|| format!("/proc/diskstats does not know {}", self.device))? * 512)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.directory.path().join("mount")).status();
    }
}
