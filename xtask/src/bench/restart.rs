//! Time from a start to the first answer when all of the log must be replayed: the server is killed right before the log
//! would have been given to the base.

use super::{Bench, rounded, summary};
use crate::subject::{Launch, Load, eventually};
use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Kills and starts
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Viewers: each has a row in memory
    #[arg(long, default_value_t = 200_000)]
    streamers: u32,
}

/// The default of `--freeze-bytes`: then the table in memory is frozen and given to the base.
const FREEZE_BYTES: f64 = (256 << 20) as f64;

pub(super) fn run(bench: &Bench, options: &Options) -> Result<Value> {
    let directory = tempfile::tempdir()?;
    let data = directory.path().join("data");
    let launch = Launch::new(&bench.binary, &data, &[]);
    let streamers = options.streamers.to_string();
    let mut measured = Vec::new();
    for round in 1..=options.rounds {
        let server = launch.start()?;
        // What the start has replayed is given to the base at once; the log is empty after that.
        let rested = || server.metric("playhead_store_drains_total") >= server.metric("playhead_store_freezes_total");
        eventually(Duration::from_secs(300), "what was replayed is drained", rested)?;
        let before = server.metric(WRITTEN);
        let words = ["--saturate", "--duration", "600s", "--streamers", &streamers, "--workers", "1"];
        let load = Load::start(&bench.binary, &server.url, &data, &words)?;
        let is_full = || server.metric(WRITTEN) - before >= 0.97 * FREEZE_BYTES;
        eventually(Duration::from_secs(900), "the log is full", is_full)?;
        let written = server.metric(WRITTEN) - before;
        server.kill()?;
        load.interrupt()?;
        load.wait()?;
        let check =
            Command::new(&bench.binary).args(["check", "--output", "json", "--data-dir"]).arg(&data).output()?;
        let found: Value = serde_json::from_slice(&check.stdout).unwrap_or(Value::Null);
        let server = launch.start()?;
        let one = json!({
            "round": round,
            "log_bytes": written,
            "records_replayed": found["records_to_replay"],
            "ready_after_s": rounded(server.ready_after.as_secs_f64()),
        });
        println!("{one}");
        measured.push(one);
        server.stop()?;
    }
    let times: Vec<f64> = measured.iter().filter_map(|one| one["ready_after_s"].as_f64()).collect();
    Ok(json!({
        "streamers": options.streamers,
        "freeze_bytes": FREEZE_BYTES,
        "ready_after_s": summary(&times),
        "ratios": [{"goal": "8", "what": "from the start to ready with the log full, s (less is better)", "floor": 2.0, "aim": 0.5, "value": rounded(super::median(&times))}],
        "measured": measured,
    }))
}

const WRITTEN: &str = "playhead_store_log_written_bytes_total";
