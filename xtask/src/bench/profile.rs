//! Where each microsecond of a durable write goes: samples of the saturated server's stacks, told apart by what they were
//! doing. Needs `perf`.
//!
//! A sample belongs to the first area of [`AREAS`] of which a function stands in its stack, the kernel's functions first.
//! Stacks through optimised code are cut short at times, which is why areas are told by the innermost functions. What fits
//! none is shown as such.

use super::{Bench, rounded};
use crate::process::{Deadline, output};
use crate::subject::{Launch, Load, load};
use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Seconds of sampling
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// Connections, one request under way on each
    #[arg(long, default_value_t = 256)]
    connections: u32,
}

/// Areas with parts of the names of their functions, the most telling first.
const AREAS: &[(&str, &[&str])] = &[
    (
        "sync: `fdatasync`, the file system and the disk's driver",
        &["fdatasync", "vfs_fsync", "do_fsync", "virtio_queue_rq"],
    ),
    ("log: the frame's write", &["pwrite", "vfs_write", "playhead_engine::store::embedded::log", "crc32c"]),
    (
        "socket: reading the request",
        &["__x64_sys_recvfrom", "__sys_recvfrom", "tcp_recvmsg", "__libc_recv", "recvfrom"],
    ),
    ("socket: writing the answer", &["__x64_sys_sendto", "__sys_sendto", "tcp_sendmsg", "__send", "tcp_write_xmit"]),
    ("waiting for events: epoll, wake-ups between threads", &["epoll_", "eventfd", "futex"]),
    ("token: looking up the verified one", &["TokenCache", "playhead_server::auth", "aws_lc", "jsonwebtoken"]),
    ("parse: JSON to a position", &["serde", "wire::beat", "playhead_server::wire", "lexical", "dec2flt"]),
    ("HTTP: hyper's reading of heads and writing of answers", &["httparse", "hyper", "http::", "Header"]),
    ("memtable: putting the row", &["::memtable::", "hashbrown"]),
    ("base: drains", &["fjall", "lsm_tree", "embedded::drain", "lz4"]),
    ("lane: grouping, stamping, handing to the committer and back", &["playhead_engine", "oneshot", "mpsc"]),
    ("the server's own: routing, deadlines, throttle, metrics", &["playhead"]),
    ("allocating", &["mi_", "_mi", "malloc", "cfree"]),
    ("the runtime: tasks and readiness", &["tokio", "ScheduledIo", "waker"]),
    ("copying and clearing memory", &["memmove", "memcpy", "memset"]),
    ("clocks", &["clock_gettime", "vdso"]),
    ("the kernel's network stack, outside of a call of ours", &["net_rx", "tcp_", "softirq", "napi", "ip_rcv"]),
    ("the kernel, otherwise", &["entry_SYSCALL", "do_syscall", "asm_", "irq", "[k]"]),
];

pub(super) fn run(bench: &Bench, options: &Options) -> Result<Value> {
    let directory = tempfile::tempdir()?;
    let server = Launch::new(&bench.binary, directory.path(), &["--freeze-bytes", "16777216"]).start()?;
    let connections = options.connections.to_string();
    let words = |duration| ["--saturate", "--duration", duration, "--streamers", "20k", "--connections", &connections];
    load(&bench.binary, &server.url, directory.path(), &words("3s"))?;
    let seconds = format!("{}s", options.seconds + 4);
    let running = Load::start(&bench.binary, &server.url, directory.path(), &words(&seconds))?;
    let records = || server.metric("playhead_store_records_total");
    let begun = records();
    crate::subject::eventually(Duration::from_secs(30), "the load has begun", || records() > begun + 10_000.0)?;
    let (before, cpu_before) = (records(), server.cpu());
    let samples = directory.path().join("perf.data");
    let mut perf = Command::new("perf");
    perf.args([
        "record",
        "--quiet",
        "--freq",
        "997",
        "--call-graph",
        "fp",
        "--pid",
        &server.id().to_string(),
        "--output",
    ]);
    perf.arg(&samples).args(["--", "sleep", &options.seconds.to_string()]);
    crate::process::run(&mut perf, Deadline::after(Duration::from_secs(u64::from(options.seconds) + 60)))
        .context("`perf record` did not work: install linux-perf, and see /proc/sys/kernel/perf_event_paranoid")?;
    let per_heartbeat_us = (server.cpu() - cpu_before).as_secs_f64() * 1e6 / (records() - before);
    running.wait()?;
    let mut script = Command::new("perf");
    script.args(["script", "--fields", "comm,ip,sym", "--input"]).arg(&samples);
    let stacks = output(&mut script)?;
    let (areas, count) = told_apart(&stacks);
    ensure!(count > 1_000, "only {count} samples were taken");
    let mut rows: Vec<(String, usize)> = areas.into_iter().collect();
    rows.sort_by_key(|(_, samples)| std::cmp::Reverse(*samples));
    let share = |samples: usize| samples as f64 / count as f64;
    let areas: Vec<Value> = rows
        .iter()
        .map(|(area, samples)| {
            json!({"area": area, "share": rounded(share(*samples)), "us": rounded(share(*samples) * per_heartbeat_us)})
        })
        .collect();
    server.kill()?;
    let result = json!({"samples": count, "us_per_heartbeat": rounded(per_heartbeat_us), "areas": areas});
    println!("{result:#}");
    Ok(result)
}

/// Samples by area, and how many there are. Stacks are separated by empty lines and begin with the thread's name.
fn told_apart(stacks: &str) -> (BTreeMap<String, usize>, usize) {
    let (mut areas, mut count) = (BTreeMap::new(), 0);
    for stack in stacks.split("\n\n").filter(|stack| !stack.trim().is_empty()) {
        let functions = stack.trim().split_once('\n').map_or("", |(_, functions)| functions);
        let is_in = |parts: &[&str]| parts.iter().any(|part| functions.contains(part));
        let area = AREAS.iter().find(|(_, parts)| is_in(parts)).map_or("not told apart", |(area, _)| area);
        *areas.entry(area.to_owned()).or_default() += 1;
        count += 1;
    }
    (areas, count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_belongs_to_the_innermost_work() {
        let stacks = "worker-0 \n\ttcp_sendmsg\n\t__x64_sys_sendto\n\t__send\n\thyper::x\n\n\
                      worker-0 \n\thyper::proto\n\ttokio::task\n\n\
                      committer \n\text4_sync\n\t__x64_sys_fdatasync\n\n\
                      worker-1 \n\t[unknown]\n";
        let (areas, count) = told_apart(stacks);
        assert_eq!(count, 4);
        assert_eq!(areas.len(), 4);
        assert_eq!(areas["not told apart"], 1);
        assert!(areas.keys().any(|area| area.starts_with("sync")) && areas.keys().any(|area| area.starts_with("HTTP")));
    }
}
