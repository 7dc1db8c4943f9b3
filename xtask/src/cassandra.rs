//! `cargo xtask cassandra`: a real Apache Cassandra cluster on loopback addresses, without containers.
//!
//! Used by the stage `cassandra` of `cargo xtask ci`, by the tests of that stage (which kill and pause nodes through
//! it), and by who wants to try `playhead serve --store cassandra`. Needs Java 17 (or 11) and, the first time, Maven.
//!
//! **How.** Maven fetches Cassandra's own jars, once per version ([`jars`]). A cluster is a directory with one
//! directory a node; a node is a process of its own that outlives this one ([`node`]). Nodes listen on `127.A.B.1`,
//! `127.A.B.2`, …, where A and B come from the directory's path, so that two clusters never meet; the port is
//! Cassandra's own, 9042. `start` prints `contact points: …`, which is what `--cassandra-nodes` takes.
//!
//! **The promise.** When `start` or `up` returns, each node answers CQL, knows all others, and they agree on a schema;
//! when it fails, what it has started is ended. Signals go to process ids that were recorded with their time of start,
//! so that a process which took the number since is never touched.
//!
//! **The limits.** Small heaps, one token a node, every node a seed: for tests, never for data that matters.

mod cql;
mod jars;
mod node;
mod stage;

pub(crate) use stage::{Nodes, test};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand, ValueEnum};
use node::{Node, Settings};
use rustix::process::Signal;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long nodes may take to answer, on a machine that does other things too.
const READY_WITHIN: Duration = Duration::from_secs(180);

/// How long a node may take to stop before it is killed.
const STOPPED_WITHIN: Duration = Duration::from_secs(20);

const EXAMPLES: &str = "\
Examples:
  cargo xtask cassandra start
      Three nodes in target/cassandra that sync before they acknowledge; prints their contact points.
  cargo xtask cassandra start --nodes 1 --sync periodic --dir target/one
  cargo xtask cassandra cql 1 'SELECT * FROM playhead.resume_positions'
  cargo xtask cassandra kill 2 && cargo xtask cassandra up 2
  cargo xtask cassandra stop";

/// What to do, and with which cluster.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    #[command(subcommand)]
    action: Action,
    /// Where the cluster lives
    #[arg(long, global = true, value_name = "DIRECTORY", default_value = "target/cassandra")]
    dir: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Start a cluster, or start it again on its data
    Start(Start),
    /// Stop all nodes
    Stop,
    /// Kill a node as a crash does (SIGKILL)
    Kill(OneNode),
    /// Make a node hang (SIGSTOP)
    Pause(OneNode),
    /// Let it go on (SIGCONT)
    Resume(OneNode),
    /// Start a node again on its data
    Up(OneNode),
    /// Show the nodes
    Status,
    /// Run a CQL statement on a node and print its rows
    Cql(Statement),
}

/// How a new cluster is made.
#[derive(Debug, Clone, Args)]
pub(crate) struct Start {
    /// How many nodes
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    pub(crate) nodes: u8,
    /// When the commit log is synced
    #[arg(long, default_value = "batch")]
    pub(crate) sync: Sync,
    /// Java's heap, of each node
    #[arg(long, value_name = "MIB", default_value_t = 512)]
    pub(crate) heap_mib: u32,
    /// Start in half the time and run at half the speed: for tests, not for measuring
    #[arg(long)]
    pub(crate) fast_start: bool,
    /// A line of cassandra.yaml, as it is; may be repeated
    #[arg(long = "yaml", value_name = "LINE")]
    pub(crate) yaml: Vec<String>,
}

/// Cassandra's `commitlog_sync`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sync {
    /// Acknowledges first, syncs every 10 s
    Periodic,
    /// Syncs every 5 ms and acknowledges then
    Group,
    /// Syncs as soon as it can and acknowledges then
    Batch,
}

#[derive(Debug, Args)]
struct OneNode {
    /// Its number, from 1
    node: u8,
}

#[derive(Debug, Args)]
struct Statement {
    /// The node's number, from 1
    node: u8,
    /// The statement
    statement: String,
}

/// Carries out the command.
pub(crate) fn run(options: &Options, root: &Path) -> Result<()> {
    let cluster = Cluster::at(&root.join(&options.dir))?;
    match &options.action {
        Action::Start(start) => {
            cluster.start(root, start)?;
            println!("contact points: {}", cluster.contact_points()?);
        }
        Action::Stop => cluster.stop()?,
        Action::Kill(one) => cluster.kill(one.node..=one.node)?,
        Action::Pause(one) => cluster.signal(one.node, Signal::STOP)?,
        Action::Resume(one) => cluster.signal(one.node, Signal::CONT)?,
        Action::Up(one) => cluster.up(one.node)?,
        Action::Status => cluster.status()?,
        Action::Cql(statement) => {
            let node = cluster.node(statement.node)?;
            for row in node.query(&statement.statement, Duration::from_secs(30))? {
                let cells: Vec<_> = row.into_iter().map(|cell| cell.unwrap_or_else(|| "null".to_owned())).collect();
                println!("{}", cells.join("\t"));
            }
        }
    }
    Ok(())
}

/// The nodes of one directory.
#[derive(Debug)]
pub(crate) struct Cluster {
    directory: PathBuf,
    /// The first three bytes of its nodes' addresses.
    network: [u8; 3],
}

impl Cluster {
    /// The cluster in this directory, which need not be there yet.
    pub(crate) fn at(directory: &Path) -> Result<Self> {
        let directory = std::path::absolute(directory).context("where are we?")?;
        let mut hasher = DefaultHasher::new();
        directory.hash(&mut hasher);
        let [a, b, ..] = hasher.finish().to_le_bytes();
        // 127.0.0.x is where people run clusters of their own.
        Ok(Self { directory, network: [127, a.clamp(1, 254), b] })
    }

    fn node_of(&self, number: u8) -> Node {
        let [a, b, c] = self.network;
        Node::at(self.directory.join(format!("node{number}")), number, Ipv4Addr::new(a, b, c, number))
    }

    /// All of its nodes.
    pub(crate) fn nodes(&self) -> Vec<Node> {
        (1..=9).map(|number| self.node_of(number)).take_while(Node::exists).collect()
    }

    /// The ids of those that run.
    pub(crate) fn processes(&self) -> Vec<u32> {
        self.nodes().iter().filter_map(Node::process).collect()
    }

    fn node(&self, number: u8) -> Result<Node> {
        let mut nodes = self.nodes();
        ensure!(!nodes.is_empty(), "there is no cluster in {}: start one", self.directory.display());
        ensure!((1..=nodes.len()).contains(&usize::from(number)), "this cluster has nodes 1 to {}", nodes.len());
        Ok(nodes.swap_remove(usize::from(number) - 1))
    }

    /// What `--cassandra-nodes` takes.
    pub(crate) fn contact_points(&self) -> Result<String> {
        let nodes = self.nodes();
        ensure!(!nodes.is_empty(), "there is no cluster in {}", self.directory.display());
        Ok(nodes.iter().map(|node| format!("{}:{}", node.address, node::PORT)).collect::<Vec<_>>().join(","))
    }

    /// Starts it and waits until it is ready.
    pub(crate) fn start(&self, root: &Path, start: &Start) -> Result<()> {
        let known = self.nodes();
        if !known.is_empty() && known.len() != usize::from(start.nodes) {
            bail!("{} holds a cluster of {} nodes: stop and remove it first", self.directory.display(), known.len());
        }
        let java = jars::java()?;
        let jars = jars::fetch(root)?;
        let began = Instant::now();
        let nodes: Vec<_> = (1..=start.nodes).map(|number| self.node_of(number)).collect();
        let seeds: Vec<_> = nodes.iter().map(|node| node.address.to_string()).collect();
        for node in &nodes {
            fs::create_dir_all(&node.directory).with_context(|| format!("can't make {}", node.directory.display()))?;
            node.configure(&Settings { start, jars: &jars, seeds: &seeds, cluster: &self.directory })?;
        }
        let started = nodes.iter().try_for_each(|node| node.launch(&java));
        started.and_then(|()| wait_until_ready(&nodes, nodes.len(), began)).inspect_err(|_| {
            for node in nodes.iter().filter(|node| node.process().is_some()) {
                // Best effort: the first error is the one to tell.
                let _ = node.signal(Signal::KILL);
            }
        })
    }

    /// Sends a signal to a node.
    pub(crate) fn signal(&self, number: u8, signal: Signal) -> Result<()> {
        self.node(number)?.signal(signal)
    }

    /// Kills these nodes at once, and waits until they are gone: what is left of one still holds its ports.
    pub(crate) fn kill(&self, numbers: RangeInclusive<u8>) -> Result<()> {
        let nodes = numbers.map(|number| self.node(number)).collect::<Result<Vec<_>>>()?;
        nodes.iter().try_for_each(|node| node.signal(Signal::KILL))?;
        let began = Instant::now();
        while let Some(node) = nodes.iter().find(|node| node.process().is_some()) {
            ensure!(began.elapsed() < STOPPED_WITHIN, "node {} was killed and is still there", node.number);
            node::wait_a_little();
        }
        Ok(())
    }

    /// Starts a node again on its data, and waits until it is ready.
    pub(crate) fn up(&self, number: u8) -> Result<()> {
        let node = self.node(number)?;
        let began = Instant::now();
        node.launch(&jars::java()?)?;
        wait_until_ready(std::slice::from_ref(&node), self.nodes().len(), began)
    }

    /// Stops every node that runs, and waits.
    pub(crate) fn stop(&self) -> Result<()> {
        let running: Vec<_> = self.nodes().into_iter().filter(|node| node.process().is_some()).collect();
        for node in &running {
            node.signal(Signal::CONT)?;
            node.signal(Signal::TERM)?;
        }
        let began = Instant::now();
        while running.iter().any(|node| node.process().is_some()) {
            if began.elapsed() > STOPPED_WITHIN {
                for node in running.iter().filter(|node| node.process().is_some()) {
                    eprintln!("node {} had to be killed", node.number);
                    node.signal(Signal::KILL)?;
                }
            }
            node::wait_a_little();
        }
        println!("stopped {} nodes in {:.1} s", running.len(), began.elapsed().as_secs_f64());
        Ok(())
    }

    fn status(&self) -> Result<()> {
        let nodes = self.nodes();
        ensure!(!nodes.is_empty(), "there is no cluster in {}", self.directory.display());
        for node in &nodes {
            let state = match (node.process(), node.is_ready(nodes.len())) {
                (None, _) => "down".to_owned(),
                (Some(id), true) => format!("ready, process {id}"),
                (Some(id), false) => format!("not ready, process {id}"),
            };
            println!("node {} {}:{} {state}", node.number, node.address, node::PORT);
        }
        Ok(())
    }
}

fn wait_until_ready(nodes: &[Node], cluster_size: usize, began: Instant) -> Result<()> {
    let mut waiting: Vec<&Node> = nodes.iter().collect();
    while !waiting.is_empty() {
        let mut still = Vec::new();
        for node in waiting {
            if node.is_ready(cluster_size) {
                println!("node {} is ready after {:.1} s", node.number, began.elapsed().as_secs_f64());
            } else {
                ensure!(node.process().is_some(), "node {} has ended: {}", node.number, node.last_words());
                still.push(node);
            }
        }
        if let Some(node) = still.first() {
            ensure!(began.elapsed() < READY_WITHIN, "node {} is not ready in time: {}", node.number, node.last_words());
            node::wait_a_little();
        }
        waiting = still;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_of_two_directories_have_two_networks() {
        let one = Cluster::at(Path::new("/one/a")).unwrap();
        let other = Cluster::at(Path::new("/one/b")).unwrap();
        assert_ne!(one.network, other.network);
        assert_eq!(one.network, Cluster::at(Path::new("/one/a")).unwrap().network);
        assert!(one.node_of(3).address.is_loopback());
    }
}
