//! Memory of a connected viewer between two heartbeats: each has a connection of its own and has beaten at least once.

use super::{Bench, rounded, summary};
use crate::subject::{Launch, Load, eventually};
use anyhow::{Result, ensure};
use clap::Args;
use serde_json::{Value, json};
use std::time::Duration;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Connections, one for each viewer
    #[arg(long, default_value_t = 15_000)]
    connections: u32,
    /// Rounds
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// From one heartbeat of a viewer to the next
    #[arg(long, default_value_t = 30)]
    interval_seconds: u32,
}

pub(super) fn run(bench: &Bench, options: &Options) -> Result<Value> {
    let mut measured = Vec::new();
    for round in 1..=options.rounds {
        let directory = tempfile::tempdir()?;
        let server = Launch::new(&bench.binary, directory.path(), &[]).start()?;
        let (count, interval) = (options.connections.to_string(), format!("{}s", options.interval_seconds));
        let (own_before, all_before) = server.memory();
        let duration = format!("{}s", options.interval_seconds + 20);
        let words = [
            "--connections",
            "each",
            "--streamers",
            &count,
            "--interval",
            &interval,
            "--duration",
            &duration,
            "--steady",
        ];
        let load = Load::start(&bench.binary, &server.url, directory.path(), &words)?;
        let wanted = f64::from(options.connections);
        let all_beat = || server.metric("playhead_store_records_total") >= wanted;
        eventually(Duration::from_secs(600), "every viewer has beaten once", all_beat)?;
        let (own, all) = server.memory();
        let rows = server.metric("playhead_store_memtable_bytes");
        load.interrupt()?;
        let loaded = load.wait()?;
        ensure!(loaded.json["failed"] == 0, "requests failed: {}", loaded.json["failures"]);
        let per = |before: u64, after: u64| after.saturating_sub(before) as f64 / wanted;
        let one = json!({
            "round": round,
            "own_bytes_per_connection": rounded(per(own_before, own)),
            "resident_bytes_per_connection": rounded(per(all_before, all)),
            "memtable_bytes_per_connection": rounded(rows / wanted),
        });
        println!("{one}");
        measured.push(one);
        server.kill()?;
    }
    let of = |field: &str| measured.iter().filter_map(|one| one[field].as_f64()).collect::<Vec<_>>();
    let own = of("own_bytes_per_connection");
    Ok(json!({
        "connections": options.connections,
        "interval_seconds": options.interval_seconds,
        "own_bytes_per_connection": summary(&own),
        "ratios": [{"goal": "5", "what": "user memory of an idle connected streamer, bytes (less is better)", "floor": 8_000, "aim": 4_000, "value": rounded(super::median(&own))}],
        "measured": measured,
    }))
}
