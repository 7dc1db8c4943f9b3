//! Faults of a three-node cluster under a server with load: rows 12 to 15 of the table in docs/DURABILITY.md, drawn at
//! random, with every row of one ledger read back after each.
//!
//! The nodes sync before they acknowledge, so that nothing may be lost even if all are killed at once.

use super::{Soak, Subject};
use crate::cassandra::{Nodes, Start, Sync};
use crate::process::{Deadline, run as run_command};
use crate::subject::{Launch, Load, Server, eventually, wait_for};
use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::json;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const NODES: u8 = 3;

/// How long a fault may take to be over: three JVMs start on the cores that also carry the load.
const HEALED_WITHIN: Duration = Duration::from_secs(180);

/// A fault, and what is put right again before it returns.
type Fault = fn(&mut Soak, &Cluster<'_>) -> Result<()>;

const FAULTS: &[(&str, Fault)] = &[
    ("one node killed", one_killed),
    ("two nodes paused", two_paused),
    ("all nodes killed", all_killed),
    ("nodes restarted one by one", restarted),
];

struct Cluster<'a> {
    nodes: &'a Nodes,
    root: &'a Path,
    start: &'a Start,
}

pub(super) fn run(soak: &mut Soak, root: &Path, time: Duration) -> Result<()> {
    let start = Start { nodes: NODES, sync: Sync::Batch, heap_mib: 512, fast_start: true, yaml: Vec::new() };
    let nodes = Nodes::fresh(root, "target/soak-cassandra", &start)?;
    let cluster = Cluster { nodes: &nodes, root, start: &start };
    let points = nodes.0.contact_points()?;
    let mut apply = Command::new(&soak.binary);
    apply.args(["schema", "apply", "--cassandra-nodes", &points, "--cassandra-replication", "3"]);
    run_command(&mut apply, Deadline::after(HEALED_WITHIN))?;
    let (data, ledger) = (tempfile::tempdir()?.keep(), tempfile::tempdir()?.keep());
    let flags = ["--store", "cassandra", "--cassandra-nodes", &points, "--require-synced-commitlog"];
    let launch = Launch::new(&soak.binary, &data.join("data"), &flags);
    let subject = Subject { launch, data, ledger };
    let end = Instant::now() + time;
    let mut count = 0;
    while Instant::now() < end || count == 0 {
        count += 1;
        let (name, fault) = FAULTS[soak.rng.usize(..FAULTS.len())];
        let is_server_killed = soak.rng.u8(..4) == 0;
        one(soak, &subject, &cluster, fault, is_server_killed)
            .and_then(|told| soak.event(json!({"event": "fault", "count": count, "name": name, "server_killed_too": is_server_killed, "how": told})))
            .with_context(|| subject.left_in_place(&format!("fault {count}, {name}")))?;
    }
    subject.keep_no_more()
}

/// A fault under load, its end, and a look at every row.
fn one(
    soak: &mut Soak,
    subject: &Subject,
    cluster: &Cluster<'_>,
    fault: Fault,
    kills: bool,
) -> Result<serde_json::Value> {
    let server = subject.launch.start()?;
    let is_ready = |server: &Server| eventually(HEALED_WITHIN, "the server is ready", || server.is_ready());
    is_ready(&server)?;
    let (seed, ledger) = (soak.rng.u32(..).to_string(), subject.ledger_file());
    let ledger = ledger.to_string_lossy();
    let mut words = vec!["--streamers", "300", "--interval", "1s", "--connections", "32", "--workers", "1"];
    words.extend(["--duration", "600s", "--patience", "3s", "--ledger", &ledger, "--seed", &seed]);
    let load = Load::start(&soak.binary, &server.url, &subject.launch.directory, &words)?;
    let is_loaded = || server.metric("playhead_store_records_total") > 300.0;
    eventually(HEALED_WITHIN, "the load has begun", is_loaded)?;
    wait_for(Duration::from_millis(soak.rng.u64(0..2_000)));
    fault(soak, cluster)?;
    let server = if kills {
        server.kill()?;
        subject.launch.start()?
    } else {
        server
    };
    is_ready(&server)?;
    wait_for(Duration::from_secs(2));
    load.interrupt()?;
    let loaded = load.wait()?;
    ensure!(!loaded.json.is_null(), "the load gave no result: {}", loaded.talk);
    let found = subject.verify(&server)?;
    server.stop()?;
    Ok(json!({"acknowledged": loaded.json["acknowledged"], "failures": loaded.json["failures"], "rows": found["rows"]}))
}

fn one_killed(soak: &mut Soak, cluster: &Cluster<'_>) -> Result<()> {
    let node = soak.rng.u8(1..=NODES);
    cluster.nodes.0.kill(node..=node)?;
    wait_for(Duration::from_millis(soak.rng.u64(3_000..10_000)));
    cluster.nodes.0.up(node)
}

fn two_paused(soak: &mut Soak, cluster: &Cluster<'_>) -> Result<()> {
    let spared = soak.rng.u8(1..=NODES);
    let paused = || (1..=NODES).filter(|node| *node != spared);
    paused().try_for_each(|node| cluster.nodes.0.signal(node, Signal::STOP))?;
    wait_for(Duration::from_millis(soak.rng.u64(2_000..8_000)));
    paused().try_for_each(|node| cluster.nodes.0.signal(node, Signal::CONT))
}

fn all_killed(_: &mut Soak, cluster: &Cluster<'_>) -> Result<()> {
    cluster.nodes.0.kill(1..=NODES)?;
    cluster.nodes.0.start(cluster.root, cluster.start)
}

fn restarted(_: &mut Soak, cluster: &Cluster<'_>) -> Result<()> {
    for node in 1..=NODES {
        cluster.nodes.0.signal(node, Signal::TERM)?;
        let is_gone = || cluster.nodes.0.processes().len() < usize::from(NODES);
        eventually(HEALED_WITHIN, "the node has stopped", is_gone)?;
        cluster.nodes.0.up(node)?;
    }
    Ok(())
}
