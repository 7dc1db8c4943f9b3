//! What the service costs on a Cassandra node: server and JVM together, against the driver alone with the same
//! statement, at the same rate and as fast as both can; the latency by how many writes are under way; and reads.
//!
//! One node that syncs before it acknowledges, one replica; a node for each `concurrent_writes`. Bare driver and service
//! take turns, round after round, at each load. The bare driver makes its rows itself; of the service the generator's CPU
//! is left out.
//!
//! **Why at the same rate.** What a row costs the JVM hangs on how many rows it has a second, since rows share syncs and
//! wake-ups. As fast as they can, the two do not have the same rate on one machine: the generator takes a part of it, which
//! is left out of the sum but not of the rate. Both are told.

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
    /// Writes under way
    #[arg(long, value_delimiter = ',', default_value = "16,64,256")]
    depths: Vec<u32>,
    /// Writes a second, the last of the depths at most under way; the goal is judged at the last one
    #[arg(long, value_delimiter = ',', default_value = "2000,8000")]
    rates: Vec<u32>,
    /// `concurrent_writes` of the node: its default, at which the goal is judged, and more, as its own cassandra.yaml
    /// advises with `batch`
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

/// How much is written.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// Writes under way, at most.
    depth: u32,
    /// Writes a second; `None` for as many as are answered.
    rate: Option<u32>,
}

impl Options {
    fn paces(&self) -> Result<Vec<Pace>> {
        let deepest = *self.depths.last().context("no depth was asked for")?;
        let as_fast_as_can_be = self.depths.iter().map(|depth| Pace { depth: *depth, rate: None });
        let at_a_rate = self.rates.iter().map(|rate| Pace { depth: deepest, rate: Some(*rate) });
        Ok(as_fast_as_can_be.chain(at_a_rate).collect())
    }
}

pub(super) fn run(bench: &Bench, options: &Options) -> Result<Value> {
    let bare = bench.example("playhead-engine", "bare_driver", &["--features", "cassandra"])?;
    let paces = options.paces()?;
    let (mut by_pace, mut ratios, mut measured, mut reads) = (Vec::new(), Vec::new(), Vec::new(), Value::Null);
    for concurrent_writes in &options.concurrent_writes {
        let on_node = Measured::on(bench, &bare, options, &paces, *concurrent_writes)?;
        for (pace, peer) in paces.iter().flat_map(|pace| ["driver", "service"].map(|peer| (*pace, peer))) {
            let mut row = json!({"concurrent_writes": concurrent_writes, "depth": pace.depth, "rate": pace.rate});
            row["peer"] = json!(peer);
            for field in ["per_s", "client_us", "jvm_us", "both_us", "p50_ms", "p99_ms"] {
                row[field] = summary(&on_node.of(peer, pace, field));
            }
            by_pace.push(row);
        }
        // Of the first setting; the table has them all.
        let is_first = ratios.is_empty();
        for pace in paces.iter().filter(|pace| is_first && Some(&pace.depth) == options.depths.last()) {
            let both = |peer: &str| median(&on_node.of(peer, *pace, "both_us"));
            let how = match pace.rate {
                Some(rate) => format!("both at {rate} rows a second"),
                None => format!("each as fast as it can with {} rows under way", pace.depth),
            };
            let what = format!(
                "Cassandra, one node, `batch`: client and JVM CPU of a row, the bare driver / the service, {how}"
            );
            let value = rounded(both("driver") / both("service"));
            ratios.push(json!({"goal": "12", "what": what, "floor": 0.8, "aim": 0.9, "value": value}));
        }
        measured.extend(on_node.rows);
        reads = on_node.reads;
    }
    Ok(json!({
        "rounds": options.rounds,
        "seconds": options.seconds,
        "by_pace": by_pace,
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
    fn on(bench: &Bench, bare: &Path, options: &Options, paces: &[Pace], concurrent_writes: u32) -> Result<Self> {
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
        let driver = |users, titles, Pace { depth, rate }: Pace, seconds| {
            drive(bare, &points, [users, titles, u64::from(depth), seconds, u64::from(rate.unwrap_or(0))])
        };

        let mut rows: Vec<Value> = Vec::new();
        for round in 0..=options.rounds {
            for pace in paces.iter().copied() {
                let mut keep = |peer: &str, mut one: Value| {
                    one["peer"] = json!(peer);
                    one["depth"] = json!(pace.depth);
                    one["rate"] = json!(pace.rate);
                    one["round"] = json!(round);
                    one["concurrent_writes"] = json!(concurrent_writes);
                    println!("{one}");
                    // The first is for the JVM's compiler.
                    if round > 0 {
                        rows.push(one);
                    }
                };
                let before = cpu_of(&nodes.0.processes());
                let saw = driver(USERS, 1, pace, u64::from(options.seconds))?;
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
                let (count, seconds) = (pace.depth.to_string(), format!("{}s", options.seconds));
                // Each of them writes every 4 s.
                let streamers = pace.rate.map_or(20_000, |rate| 4 * rate).to_string();
                let mut words = vec!["--connections", &count, "--streamers", &streamers, "--duration", &seconds];
                if pace.rate.is_none() {
                    words.push("--saturate");
                }
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
            listed += number(&driver(LISTED_USERS, TITLES, Pace { depth: 64, rate: None }, 20)?, "/rows");
        }
        let reads = read(bench, &server, directory.path(), LISTED_USERS, options.readers)?;
        server.stop()?;
        Ok(Self { rows, reads })
    }

    fn of(&self, peer: &str, pace: Pace, field: &str) -> Vec<f64> {
        let is_it = |one: &&Value| {
            one["peer"] == peer && one["depth"] == pace.depth && one["rate"].as_u64() == pace.rate.map(u64::from)
        };
        let rows = self.rows.iter().filter(is_it);
        rows.filter_map(|one| one[field].as_f64()).collect()
    }
}

/// Runs the bare driver: users, titles, depth, seconds, rate.
fn drive(bare: &Path, points: &str, numbers: [u64; 5]) -> Result<Value> {
    let mut command = Command::new(bare);
    command.args([points, KEYSPACE]).args(numbers.map(|number| number.to_string()));
    let line = output(&mut command)?;
    serde_json::from_str(&line).with_context(|| format!("the bare driver said {line}"))
}

fn number(value: &Value, pointer: &str) -> f64 {
    value.pointer(pointer).and_then(Value::as_f64).unwrap_or_default()
}
