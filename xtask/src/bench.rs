//! `cargo xtask bench`: what a write costs, and memory, restarts and the disk: measured, stored, and put into
//! docs/BENCHMARKS.md.
//!
//! Each benchmark prints what it sees, writes `docs/benchmarks/<name>.json`, and renders the document anew
//! ([`document`]). **The method.** Machines are noisy, so what is compared is measured in one run, side by side, in turn,
//! three rounds or more; medians and the spread are given, and ratios of medians. The load generator shares the machine
//! with the server: the CPU of each is told apart by the operating system. **The limits.** Loopback only.

mod base;
mod cassandra;
mod disk;
pub(crate) mod document;
mod idle;
mod loss;
mod profile;
mod restart;
mod write_path;

use crate::subject::{release, target};
use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// CPU of a durable write, against no store, a bare HTTP server, and nginx
    WritePath(write_path::Options),
    /// Memory of a connection whose viewer is between two heartbeats
    Idle(idle::Options),
    /// Time from the start to the first answer with a full log
    Restart(restart::Options),
    /// Bytes written to the device for each byte acknowledged
    Disk(disk::Options),
    /// Reads, memory, disk and start with many rows at rest
    Base(base::Options),
    /// Where each microsecond of a durable write goes
    Profile(profile::Options),
    /// CPU of a row on a Cassandra node, against the driver alone; latency by depth; reads
    Cassandra(cassandra::Options),
    /// What a cluster loses when all of its nodes are killed
    Loss(loss::Options),
    /// Write docs/BENCHMARKS.md and its plots anew from the stored results
    Document,
}

/// What every benchmark has.
struct Bench {
    root: PathBuf,
    binary: PathBuf,
}

pub(crate) fn run(options: &Options, root: &Path) -> Result<()> {
    if let What::Document = options.what {
        return document::write(root);
    }
    let bench = Bench { root: root.to_owned(), binary: release(root)? };
    let (name, result) = match &options.what {
        What::WritePath(options) => ("write-path", write_path::run(&bench, options)?),
        What::Idle(options) => ("idle", idle::run(&bench, options)?),
        What::Restart(options) => ("restart", restart::run(&bench, options)?),
        What::Disk(options) => ("disk", disk::run(&bench, options)?),
        What::Base(options) => ("base", base::run(&bench, options)?),
        What::Profile(options) => ("profile", profile::run(&bench, options)?),
        What::Cassandra(options) => ("cassandra", cassandra::run(&bench, options)?),
        What::Loss(options) => ("loss", loss::run(&bench, options)?),
        What::Document => unreachable!("it was written above"),
    };
    bench.store(name, result)?;
    document::write(root)
}

impl Bench {
    /// Writes a result with what it was measured on.
    fn store(&self, name: &str, mut result: Value) -> Result<()> {
        let command: Vec<String> = std::env::args().skip(1).collect();
        result["schema"] = json!("playhead-bench/1");
        result["command"] = json!(format!("cargo xtask {}", command.join(" ")));
        result["machine"] = machine();
        let directory = self.root.join("docs/benchmarks");
        fs::create_dir_all(&directory)?;
        let path = directory.join(format!("{name}.json"));
        fs::write(&path, format!("{result:#}\n")).with_context(|| format!("can't write {}", path.display()))?;
        println!("stored as docs/benchmarks/{name}.json");
        Ok(())
    }

    /// An example of a crate, built as it is released.
    fn example(&self, package: &str, name: &str, features: &[&str]) -> Result<PathBuf> {
        let mut build = crate::process::cargo();
        build.current_dir(&self.root).args(["build", "--release", "--locked", "--quiet"]);
        build.args(["--package", package, "--example", name]).args(features);
        crate::process::run(&mut build, crate::process::Deadline::after(std::time::Duration::from_secs(3_600)))?;
        Ok(target(&self.root).join("release/examples").join(name))
    }
}

fn machine() -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).map(str::to_owned);
        line.and_then(|line| line.split_once(':').map(|(_, value)| value.trim().to_owned())).unwrap_or_default()
    };
    json!({
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "cpu": field(&read("/proc/cpuinfo"), "model name"),
        "memory": field(&read("/proc/meminfo"), "MemTotal"),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
    })
}

/// The middle of some numbers.
fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        length if length.is_multiple_of(2) => f64::midpoint(sorted[length / 2 - 1], sorted[length / 2]),
        length => sorted[length / 2],
    }
}

/// Median, least and most.
fn summary(numbers: &[f64]) -> Value {
    let least = numbers.iter().copied().fold(f64::INFINITY, f64::min);
    let most = numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    json!({"median": rounded(median(numbers)), "min": rounded(least), "max": rounded(most)})
}

/// Four digits that count: more would pretend.
fn rounded(number: f64) -> f64 {
    if number == 0.0 || !number.is_finite() {
        return 0.0;
    }
    let scale = 10_f64.powf(3.0 - number.abs().log10().floor());
    (number * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_digits() {
        assert_eq!((median(&[3.0, 1.0, 2.0]), median(&[4.0, 1.0])), (2.0, 2.5));
        assert_eq!(summary(&[3.0, 1.0, 2.0]), json!({"median": 2.0, "min": 1.0, "max": 3.0}));
        assert_eq!((rounded(12_345.6), rounded(0.012_345_6), rounded(0.0)), (12_350.0, 0.012_35, 0.0));
    }
}
