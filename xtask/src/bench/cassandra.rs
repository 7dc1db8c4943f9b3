//! What the service costs on a Cassandra node: server and JVM together, against the driver alone with the same
//! statement; the latency by how many writes are under way; and reads.
//!
//! One node that syncs before it acknowledges, one replica; a node for each `concurrent_writes`. Bare driver and service take turns, round after round, at
//! each depth. The bare driver makes its rows itself; of the service the generator's CPU is left out.

use super::base::{TITLES, read};
use super::{Bench, median, rounded, summary};
use crate::cassandra::{Nodes, Start, Sync};
use crate::process::{Deadline, output, run as run_command};
use crate::subject::{Launch, cpu_of, load};
use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Rounds, in each of which every depth is measured once on both sides
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 6)]
    seconds: u32,
    /// Writes under way; the goal is judged at the last one
    #[arg(long, value_delimiter = ',', default_value = "16,64,256")]
    depths: Vec<u32>,
    /// `concurrent_writes` of the node: its default, and more, as its own cassandra.yaml advises with `batch`
    #[arg(long, value_delimiter = ',', default_value = "32,128")]
    concurrent_writes: Vec<u32>,
    /// Viewers who are read
    #[arg(long, default_value_t = 500)]
    readers: u64,
}

const KEYSPACE: &str = "playhead";
/// Whom the bare driver writes for; the load generator counts down from -1.
const USERS: u64 = 20_000;
/// Who has a full list to read.
const LISTED_USERS: u64 = 500;

pub(super) fn run(bench: &Bench, options: &Options) -> Result<Value> {
    let bare = bench.example("playhead-engine", "bare_driver", &["--features", "cassandra"])?;
    let deepest = options.depths.last().context("no depth was asked for")?;
    let (mut by_depth, mut ratios, mut measured, mut reads) = (Vec::new(), Vec::new(), Vec::new(), Value::Null);
    for concurrent_writes in &options.concurrent_writes {
        let on_node = Measured::on(bench, &bare, options, *concurrent_writes)?;
        for (depth, peer) in options.depths.iter().flat_map(|depth| ["driver", "service"].map(|peer| (depth, peer))) {
            let mut row = json!({"concurrent_writes": concurrent_writes, "depth": depth, "peer": peer});
            for field in ["per_s", "client_us", "jvm_us", "both_us", "p50_ms", "p99_ms"] {
                row[field] = summary(&on_node.of(peer, *depth, field));
            }
            by_depth.push(row);
        }
        let both = |peer: &str| median(&on_node.of(peer, *deepest, "both_us"));
        let what = format!(
            "Cassandra, one node, `batch`, `concurrent_writes: {concurrent_writes}`: client and JVM CPU of a row, the \
             bare driver / the service"
        );
        let value = rounded(both("driver") / both("service"));
        ratios.push(json!({"goal": "12", "what": what, "floor": 0.8, "aim": 0.9, "value": value}));
        measured.extend(on_node.rows);
        reads = on_node.reads;
    }
    Ok(json!({
        "rounds": options.rounds,
        "seconds": options.seconds,
        "by_depth": by_depth,
        "reads": reads,
        "ratios": ratios,
        "measured": measured,
    }))
}

/// What was measured on one node.
struct Measured {
    rows: Vec<Value>,
    reads: Value,
}

impl Measured {
    /// Starts a node, measures, and stops it.
    fn on(bench: &Bench, bare: &Path, options: &Options, concurrent_writes: u32) -> Result<Self> {
        let yaml = vec![format!("concurrent_writes: {concurrent_writes}")];
        let start = Start { nodes: 1, sync: Sync::Batch, heap_mib: 1_024, fast_start: false, yaml };
        let nodes = Nodes::fresh(&bench.root, "target/bench-cassandra", &start)?;
        let points = nodes.0.contact_points()?;
        let mut apply = Command::new(&bench.binary);
        apply.args(["schema", "apply", "--cassandra-nodes", &points, "--cassandra-replication", "1"]);
        run_command(&mut apply, Deadline::after(Duration::from_secs(120)))?;
        let directory = tempfile::tempdir()?;
        let flags = ["--store", "cassandra", "--cassandra-nodes", &points];
        let server = Launch::new(&bench.binary, directory.path(), &flags).start()?;
        let driver = |users, titles, depth, seconds| drive(bare, &points, [users, titles, u64::from(depth), seconds]);

        let mut rows: Vec<Value> = Vec::new();
        for round in 0..=options.rounds {
            for depth in &options.depths {
                let mut keep = |peer: &str, mut one: Value| {
                    one["peer"] = json!(peer);
                    one["depth"] = json!(depth);
                    one["round"] = json!(round);
                    one["concurrent_writes"] = json!(concurrent_writes);
                    println!("{one}");
                    // The first is for the JVM's compiler.
                    if round > 0 {
                        rows.push(one);
                    }
                };
                let before = cpu_of(&nodes.0.processes());
                let saw = driver(USERS, 1, *depth, u64::from(options.seconds))?;
                let jvm = cpu_of(&nodes.0.processes()) - before;
                let written = number(&saw, "/rows");
                let per_row = |cpu: f64| rounded(cpu * 1e6 / written);
                let jvm_s = jvm.as_secs_f64();
                keep(
                    "driver",
                    json!({
                        "per_s": rounded(written / number(&saw, "/seconds")),
                        "client_us": per_row(number(&saw, "/cpu_s")),
                        "jvm_us": per_row(jvm_s),
                        "both_us": per_row(number(&saw, "/cpu_s") + jvm_s),
                        "p50_ms": number(&saw, "/p50_ms"),
                        "p99_ms": number(&saw, "/p99_ms"),
                    }),
                );
                let (count, seconds) = (depth.to_string(), format!("{}s", options.seconds));
                let words = ["--saturate", "--connections", &count, "--streamers", "20k", "--duration", &seconds];
                let (before, jvm_before) = (server.cpu(), cpu_of(&nodes.0.processes()));
                let loaded = load(&bench.binary, &server.url, directory.path(), &words)?;
                let (own, jvm) = (server.cpu() - before, cpu_of(&nodes.0.processes()) - jvm_before);
                ensure!(matches!(loaded.code, Some(0)), "the load ended with {:?}: {}", loaded.code, loaded.talk);
                let written = loaded.number("/acknowledged");
                let per_row = |cpu: Duration| rounded(cpu.as_secs_f64() * 1e6 / written);
                keep(
                    "service",
                    json!({
                        "per_s": rounded(loaded.number("/acknowledged_per_s")),
                        "client_us": per_row(own),
                        "jvm_us": per_row(jvm),
                        "both_us": per_row(own + jvm),
                        "p50_ms": rounded(loaded.number("/latency_ms/p50")),
                        "p99_ms": rounded(loaded.number("/latency_ms/p99")),
                    }),
                );
            }
        }
        let mut listed = 0.0;
        while listed < (LISTED_USERS * TITLES) as f64 {
            listed += number(&driver(LISTED_USERS, TITLES, 64, 20)?, "/rows");
        }
        let reads = read(bench, &server, directory.path(), LISTED_USERS, options.readers)?;
        server.stop()?;
        Ok(Self { rows, reads })
    }

    fn of(&self, peer: &str, depth: u32, field: &str) -> Vec<f64> {
        let rows = self.rows.iter().filter(|one| one["peer"] == peer && one["depth"] == depth);
        rows.filter_map(|one| one[field].as_f64()).collect()
    }
}

/// Runs the bare driver: users, titles, depth, seconds.
fn drive(bare: &Path, points: &str, numbers: [u64; 4]) -> Result<Value> {
    let mut command = Command::new(bare);
    command.args([points, KEYSPACE]).args(numbers.map(|number| number.to_string()));
    let line = output(&mut command)?;
    serde_json::from_str(&line).with_context(|| format!("the bare driver said {line}"))
}

fn number(value: &Value, pointer: &str) -> f64 {
    value.pointer(pointer).and_then(Value::as_f64).unwrap_or_default()
}
