//! What a cluster loses of what it has acknowledged when all of its nodes are killed at once, by `commitlog_sync`.
//!
//! SIGKILL is milder than a power cut: what a node has handed to the operating system stays. So this is the least that is
//! lost, not the most. The ledger of the load generator is the oracle.

use super::Bench;
use crate::cassandra::{Nodes, Start, Sync};
use crate::process::{Deadline, run as run_command};
use crate::subject::{Launch, Load, Server, eventually, load, wait_for};
use anyhow::{Result, ensure};
use clap::Args;
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Times that all nodes are killed, of each kind
    #[arg(long, default_value_t = 3)]
    rounds: u32,
}

const NODES: u8 = 3;
const READY_WITHIN: Duration = Duration::from_secs(180);

pub(super) fn run(bench: &Bench, options: &Options) -> Result<Value> {
    let mut measured = Vec::new();
    for (name, sync) in [("periodic", Sync::Periodic), ("batch", Sync::Batch)] {
        let start = Start { nodes: NODES, sync, heap_mib: 512, fast_start: false, yaml: Vec::new() };
        let nodes = Nodes::fresh(&bench.root, "target/bench-loss", &start)?;
        let points = nodes.0.contact_points()?;
        let mut apply = Command::new(&bench.binary);
        apply.args(["schema", "apply", "--cassandra-nodes", &points, "--cassandra-replication", "3"]);
        run_command(&mut apply, Deadline::after(READY_WITHIN))?;
        let directory = tempfile::tempdir()?;
        let launch =
            Launch::new(&bench.binary, directory.path(), &["--store", "cassandra", "--cassandra-nodes", &points]);
        for round in 1..=options.rounds {
            let server = launch.start()?;
            let is_ready = |server: &Server| eventually(READY_WITHIN, "the server is ready", || server.is_ready());
            is_ready(&server)?;
            let ledger = directory.path().join(format!("ledger-{round}"));
            let ledger = ledger.to_string_lossy();
            let words =
                ["--saturate", "--streamers", "20k", "--connections", "64", "--duration", "120s", "--ledger", &ledger];
            let running = Load::start(&bench.binary, &server.url, directory.path(), &words)?;
            let records = || server.metric("playhead_store_records_total");
            eventually(READY_WITHIN, "the load has begun", || records() > 5_000.0)?;
            let before = records();
            wait_for(Duration::from_secs(3));
            let per_s = (records() - before) / 3.0;
            nodes.0.kill(1..=NODES)?;
            wait_for(Duration::from_secs(2));
            running.interrupt()?;
            let loaded = running.wait()?;
            nodes.0.start(&bench.root, &start)?;
            is_ready(&server)?;
            let found = load(&bench.binary, &server.url, directory.path(), &["verify", "--ledger", &ledger])?;
            ensure!(matches!(found.code, Some(0 | 4)), "the verification ended with {:?}: {}", found.code, found.talk);
            let lost = found.number("/lost");
            let one = json!({
                "commitlog_sync": name,
                "round": round,
                "acknowledged": loaded.json["acknowledged"],
                "per_s": per_s.round(),
                "lost": lost,
                "lost_ms": (lost / per_s * 1_000.0).round(),
                "invented": found.json["invented"],
            });
            println!("{one}");
            measured.push(one);
            server.stop()?;
        }
    }
    Ok(json!({"nodes": NODES, "rounds": options.rounds, "measured": measured}))
}
