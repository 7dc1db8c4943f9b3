//! A client that a public generator makes of `/openapi.json`, compiled and tried against the real binary.
//!
//! A stage of `cargo xtask ci`. **The promise.** The document that the server serves passes a public linter; the generated
//! client compiles as strict TypeScript; and a small program that uses it gets what the document says of every call, each
//! body checked against its schema ([smoke.ts](../client/smoke.ts)).
//!
//! The tools come from npm, in the versions of package-lock.json, into a directory that is gone afterwards; none of their
//! install scripts is run. **The limits.** Without node or npm nothing is done, and this says so.

use crate::process::{self, Deadline, Running, succeeds};
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// The sources of the client's project, within the repository.
const PROJECT: &str = "xtask/client";

/// From its start to its last address.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Runs the whole of it.
pub(crate) fn run(root: &Path, deadline: Deadline) -> Result<()> {
    if !["node", "npm"].iter().all(|program| succeeds(Command::new(program).arg("--version"))) {
        println!("SKIPPED: there is no node or no npm to generate a client with");
        return Ok(());
    }
    let mut build = process::cargo();
    // As the tests build it, so that after them it is there.
    build.current_dir(root).args(["test", "--quiet", "--locked", "--workspace", "--no-run"]);
    process::run(&mut build, deadline)?;

    let fresh = tempfile::tempdir().context("can't make a fresh directory")?;
    let project = fresh.path().join("client");
    fs::create_dir(&project)?;
    for file in fs::read_dir(root.join(PROJECT))? {
        let file = file?;
        if file.file_type()?.is_file() {
            fs::copy(file.path(), project.join(file.file_name()))?;
        }
    }
    let server = Server::start(&root.join("target/debug/playhead"), &fresh.path().join("data"), deadline)?;
    let npm = |arguments: &[&str]| {
        let mut npm = Command::new("npm");
        npm.current_dir(&project).args(arguments).env("PLAYHEAD_URL", &server.url).env("PLAYHEAD_TOKEN", &server.token);
        process::run(&mut npm, deadline)
    };
    npm(&["ci", "--ignore-scripts", "--no-audit", "--no-fund"])?;
    for script in ["fetch", "lint", "generate", "compile", "smoke"] {
        npm(&["run", "--silent", script])?;
    }
    Ok(())
}

/// A dev server that keeps nothing; it ends when this is dropped.
struct Server {
    _process: Running,
    url: String,
    token: String,
}

impl Server {
    fn start(binary: &Path, data: &Path, deadline: Deadline) -> Result<Self> {
        let mut command = Command::new(binary);
        command.args([
            "serve",
            "--dev",
            "--store",
            "memory",
            "--listen",
            "127.0.0.1:0",
            "--admin-listen",
            "127.0.0.1:0",
        ]);
        command.arg("--data-dir").arg(data).stdin(Stdio::null()).stdout(Stdio::piped());
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PLAYHEAD_")) {
            command.env_remove(name);
        }
        let mut child = command.spawn().with_context(|| format!("can't start {}", binary.display()))?;
        let stdout = child.stdout.take().context("the server has a stdout")?;
        let process = Running::watch(child);
        let (url, token) = Self::announced(stdout, deadline.at_most(READY_WITHIN))?;
        Ok(Self { _process: process, url, token })
    }

    /// Its address and a token, from the lines that it prints.
    fn announced(stdout: ChildStdout, deadline: Deadline) -> Result<(String, String)> {
        let (sender, lines) = mpsc::channel();
        // Reads on to the end, so that the server never waits for us.
        thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).for_each(|line| drop(sender.send(line)));
        });
        let mut url = None;
        while let Ok(line) = lines.recv_timeout(deadline.left()) {
            if let Some(address) = line.strip_prefix("listening on ") {
                url = Some(address.to_owned());
            } else if line.starts_with("token for user ") {
                let token = line.rsplit(' ').next().unwrap_or_default();
                ensure!(!token.is_empty(), "the server printed no token");
                return Ok((url.context("the server printed a token before its address")?, token.to_owned()));
            }
        }
        bail!("the server ended, or its time did, before it printed its address and a token")
    }
}
