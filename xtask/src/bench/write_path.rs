//! What a durable write costs: Playhead with its embedded store, with none (`discard`), hyper alone, and nginx that
//! answers 204 to everything. Each in turn, round after round, each warmed up, under the same closed loop.

use super::{Bench, rounded, summary};
use crate::subject::{Launch, Server, load};
use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::{Value, json};
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Rounds, in each of which every peer is measured once
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// Connections, one request under way on each
    #[arg(long, default_value_t = 256)]
    connections: u32,
    /// Viewers
    #[arg(long, default_value_t = 20_000)]
    streamers: u32,
    /// Where the store is, instead of a temporary directory
    #[arg(long)]
    directory: Option<std::path::PathBuf>,
}

/// A sixteenth of the default, so that drains run in each measurement, more often than they would.
const FREEZE_BYTES: &str = "16777216";

const PEERS: &[(&str, &str)] = &[
    ("embedded", "Playhead, embedded store: on the disk before the 204, drains running"),
    ("discard", "Playhead, `--store discard`: all but the store"),
    ("bare-hyper", "hyper alone: reads the body, answers 204"),
    ("nginx", "nginx, `return 204`"),
];

pub(super) fn run(bench: &Bench, options: &Options) -> Result<Value> {
    let example = bench.example("playhead-server", "bare_hyper", &[])?;
    let mut measured: Vec<Value> = Vec::new();
    for round in 1..=options.rounds {
        for (peer, _) in PEERS {
            let directory = match &options.directory {
                Some(parent) => tempfile::tempdir_in(parent)?,
                None => tempfile::tempdir()?,
            };
            let server = start(bench, peer, directory.path(), &example)?;
            let Some(server) = server else {
                println!("SKIPPED {peer}: it is not installed");
                continue;
            };
            let one =
                measure(bench, options, &server, directory.path()).with_context(|| format!("{peer}, round {round}"))?;
            println!("round {round}: {peer}: {one}");
            let mut one = one;
            one["peer"] = json!(peer);
            one["round"] = json!(round);
            measured.push(one);
            server.kill()?;
        }
    }
    let of = |peer: &str, field: &str| -> Vec<f64> {
        let rows = measured.iter().filter(|one| one["peer"] == peer);
        rows.filter_map(|one| one[field].as_f64()).collect()
    };
    let mut peers = Vec::new();
    for (peer, what) in PEERS.iter().filter(|(peer, _)| !of(peer, "per_s").is_empty()) {
        peers.push(json!({
            "peer": peer,
            "what": what,
            "per_s": summary(&of(peer, "per_s")),
            "server_us": summary(&of(peer, "server_us")),
            "generator_us": summary(&of(peer, "generator_us")),
            "p99_ms": summary(&of(peer, "p99_ms")),
            "drains": summary(&of(peer, "drains")),
        }));
    }
    let cpu = |peer: &str| super::median(&of(peer, "server_us"));
    let mut ratios = vec![
        json!({"goal": "1", "what": "durable writes for each second of server CPU, drains running, embedded / discard", "floor": 0.75, "aim": 0.9, "value": rounded(cpu("discard") / cpu("embedded"))}),
        json!({"goal": "1b", "what": "server CPU of a request, discard / bare hyper (less is better)", "floor": 1.7, "aim": 1.3, "value": rounded(cpu("discard") / cpu("bare-hyper"))}),
    ];
    if !of("nginx", "per_s").is_empty() {
        ratios.push(json!({"goal": "2", "what": "writes for each second of server CPU, embedded / nginx `return 204`", "floor": 0.6, "aim": 1.0, "value": rounded(cpu("nginx") / cpu("embedded"))}));
    }
    let generator: Vec<f64> = PEERS.iter().flat_map(|(peer, _)| of(peer, "generator_us")).collect();
    ratios.push(json!({"goal": "10", "what": format!("CPU of the generator for a request, µs (less is better); bare hyper's is {} here", rounded(cpu("bare-hyper"))), "floor": 8.0, "aim": 5.0, "value": rounded(super::median(&generator))}));
    Ok(json!({
        "rounds": options.rounds,
        "seconds": options.seconds,
        "connections": options.connections,
        "streamers": options.streamers,
        "peers": peers,
        "ratios": ratios,
        "measured": measured,
    }))
}

fn start(bench: &Bench, peer: &str, directory: &Path, example: &Path) -> Result<Option<Server>> {
    // What mints tokens looks for a secret here; peers that check none take any.
    let secret = directory.join("dev-secret");
    match peer {
        "embedded" => Launch::new(&bench.binary, directory, &["--freeze-bytes", FREEZE_BYTES]).start().map(Some),
        "discard" => Launch::new(&bench.binary, directory, &["--store", "discard"]).start().map(Some),
        "bare-hyper" => {
            fs::write(secret, "0123456789abcdef0123456789abcdef\n")?;
            let mut command = Command::new(example);
            let cores = std::thread::available_parallelism().map_or(1, usize::from).to_string();
            command.args(["127.0.0.1:0", &cores]);
            match Server::spawn(command, false)? {
                Ok(server) => Ok(Some(server)),
                Err(ended) => anyhow::bail!("{example:?} ended: {}", ended.talk),
            }
        }
        _ => {
            fs::write(secret, "0123456789abcdef0123456789abcdef\n")?;
            nginx(bench, directory)
        }
    }
}

fn nginx(bench: &Bench, directory: &Path) -> Result<Option<Server>> {
    let is_there = Command::new("nginx").arg("-v").stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    if !is_there {
        return Ok(None);
    }
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    let template =
        fs::read_to_string(bench.root.join("bench/nginx-204.conf")).context("can't read bench/nginx-204.conf")?;
    let file = directory.join("nginx.conf");
    let place = directory.to_string_lossy();
    fs::write(&file, template.replace("@ADDRESS@", &address).replace("@DIRECTORY@", &place))?;
    let mut command = Command::new("nginx");
    command.arg("-p").arg(directory).arg("-e").arg(directory.join("error.log")).arg("-c").arg(&file);
    Server::silent(command, &address).map(Some)
}

fn measure(bench: &Bench, options: &Options, server: &Server, data: &Path) -> Result<Value> {
    let (streamers, connections) = (options.streamers.to_string(), options.connections.to_string());
    let seconds = format!("{}s", options.seconds);
    let words = |duration| {
        let count = ["--streamers", &streamers, "--connections", &connections, "--workers", "2"];
        [&["--saturate", "--duration", duration][..], &count].concat()
    };
    // Every token is known afterwards, and every connection has been made once.
    load(&bench.binary, &server.url, data, &words("3s"))?;
    let (before, records, frames) = (server.cpu(), server.metric(RECORDS), server.metric(FRAMES));
    let drains = server.metric("playhead_store_drains_total");
    let loaded = load(&bench.binary, &server.url, data, &words(&seconds))?;
    let cpu = server.cpu() - before;
    ensure!(matches!(loaded.code, Some(0)), "the load ended with {:?}: {}", loaded.code, loaded.talk);
    let requests = loaded.number("/acknowledged");
    let frames = server.metric(FRAMES) - frames;
    Ok(json!({
        "per_s": rounded(loaded.number("/acknowledged_per_s")),
        "server_us": rounded(cpu.as_secs_f64() * 1e6 / requests),
        "generator_us": rounded(loaded.number("/generator/cpu_us_per_request")),
        "p50_ms": rounded(loaded.number("/latency_ms/p50")),
        "p99_ms": rounded(loaded.number("/latency_ms/p99")),
        "drains": server.metric("playhead_store_drains_total") - drains,
        "records_per_frame": if frames > 0.0 { rounded((server.metric(RECORDS) - records) / frames) } else { 0.0 },
    }))
}

const RECORDS: &str = "playhead_store_records_total";
const FRAMES: &str = "playhead_store_frames_total";
