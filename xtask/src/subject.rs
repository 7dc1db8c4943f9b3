//! A server under test and the load beside it, as processes of their own: what `bench` and `soak` share.
//!
//! **The promise.** A server is killed, by its id, when its value goes away; what it said is kept until then. Readings come
//! from the operating system: CPU and memory from `/proc`, counters from the server's own metrics.

use crate::process::{Deadline, Running, cargo, run};
use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};
use tempfile::NamedTempFile;

/// How long a start may take, recovery of a full log included, on a busy machine.
const START_WITHIN: Duration = Duration::from_secs(120);

/// Between two looks at what is waited for.
const POLL: Duration = Duration::from_millis(5);

/// An hour and a half is more than any run between two looks at the clock.
const LOAD_WITHIN: Duration = Duration::from_secs(5_400);

/// Lets this much time pass: for a fault that lasts, and between two looks of a poll.
pub(crate) fn wait_for(delay: Duration) {
    // A channel on which nothing is ever sent: the delay is the point here, not an event.
    let (_sender, nothing) = channel::<()>();
    let _ = nothing.recv_timeout(delay);
}

/// Polls until it is so.
pub(crate) fn eventually(within: Duration, what: &str, mut is_so: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + within;
    while !is_so() {
        ensure!(Instant::now() < deadline, "not within {within:?}: {what}");
        wait_for(POLL);
    }
    Ok(())
}

/// Builds the binary as it is released, and gives back where it is.
pub(crate) fn release(root: &Path) -> Result<PathBuf> {
    let mut build = cargo();
    build.current_dir(root).args(["build", "--release", "--locked", "--quiet", "--package", "playhead"]);
    run(&mut build, Deadline::after(Duration::from_secs(3_600)))?;
    Ok(target(root).join("release/playhead"))
}

/// Where cargo builds.
pub(crate) fn target(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from)
}

/// A command, with nothing of this process's environment that would change the server or the load.
fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PLAYHEAD_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

/// How a server is started.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    pub(crate) binary: PathBuf,
    pub(crate) directory: PathBuf,
    /// A program that starts the binary, and its arguments.
    pub(crate) wrapper: Vec<String>,
    pub(crate) flags: Vec<String>,
}

/// A start that ended instead of being ready.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) talk: String,
}

impl Launch {
    /// `serve --dev` with these flags.
    pub(crate) fn new(binary: &Path, directory: &Path, flags: &[&str]) -> Self {
        let flags = ["--dev"].iter().chain(flags).map(|flag| (*flag).to_owned()).collect();
        Self { binary: binary.to_owned(), directory: directory.to_owned(), wrapper: Vec::new(), flags }
    }

    /// The same with another build of the binary.
    pub(crate) fn of(&self, binary: &Path) -> Self {
        Self { binary: binary.to_owned(), ..self.clone() }
    }

    /// The same over another directory.
    pub(crate) fn at(&self, directory: &Path) -> Self {
        Self { directory: directory.to_owned(), ..self.clone() }
    }

    /// The same with these flags and values instead of those of the same names, or besides.
    pub(crate) fn with(&self, flags: &[&str]) -> Self {
        let mut all = self.flags.clone();
        for pair in flags.chunks(2) {
            if let Some(at) = all.iter().position(|flag| flag == pair[0]) {
                all.drain(at..at + pair.len());
            }
            all.extend(pair.iter().map(|word| (*word).to_owned()));
        }
        Self { flags: all, ..self.clone() }
    }

    /// The same, started by another program, which gets the binary and its flags as its last arguments.
    pub(crate) fn under(&self, wrapper: &[&str]) -> Self {
        Self { wrapper: wrapper.iter().map(|word| (*word).to_owned()).collect(), ..self.clone() }
    }

    /// Starts it and waits until it is ready; an end before that is an error.
    pub(crate) fn start(&self) -> Result<Server> {
        match self.try_start()? {
            Ok(server) => Ok(server),
            Err(ended) => bail!("the server did not start ({}): {}", ended.status, ended.talk.trim()),
        }
    }

    /// Starts it and waits until it is ready or has ended.
    pub(crate) fn try_start(&self) -> Result<Result<Server, Ended>> {
        let binary = self.binary.to_string_lossy().into_owned();
        let words: Vec<&String> = self.wrapper.iter().chain([&binary]).collect();
        let mut command = command(words[0]);
        command.args(&words[1..]).args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
        command.arg("--data-dir").arg(&self.directory).args(&self.flags);
        Server::spawn(command, true)
    }
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    running: Running,
    /// `http://…`, where viewers connect.
    pub(crate) url: String,
    /// Where operators connect.
    admin: String,
    stderr: NamedTempFile,
    /// From its start until it was ready.
    pub(crate) ready_after: Duration,
    _lines: Receiver<String>,
}

impl Server {
    /// Starts a server that prints `listening on http://…` and, if it is Playhead, `admin on http://…`.
    pub(crate) fn spawn(mut command: Command, is_playhead: bool) -> Result<Result<Self, Ended>> {
        let stderr = NamedTempFile::new().context("can't make a file for what the server says")?;
        let started = Instant::now();
        let mut child = command.stdout(Stdio::piped()).stderr(File::create(stderr.path())?).spawn()?;
        let lines = lines_of(&mut child)?;
        let mut server = Self {
            running: Running::watch(child),
            url: String::new(),
            admin: String::new(),
            stderr,
            ready_after: Duration::ZERO,
            _lines: channel().1,
        };
        let deadline = started + START_WITHIN;
        loop {
            match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    if let Some(url) = line.strip_prefix("listening on ") {
                        url.clone_into(&mut server.url);
                        server.ready_after = started.elapsed();
                    } else if let Some(admin) = line.strip_prefix("admin on http://") {
                        admin.clone_into(&mut server.admin);
                    }
                    if !server.url.is_empty() && (!server.admin.is_empty() || !is_playhead) {
                        server._lines = lines;
                        return Ok(Ok(server));
                    }
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let status = server.running.wait(Deadline::after(Duration::from_secs(20)))?;
                    return Ok(Err(Ended { status, talk: server.talk() }));
                }
                Err(RecvTimeoutError::Timeout) => bail!("not ready within {START_WITHIN:?}: {}", server.talk()),
            }
        }
    }

    /// A server that says nothing, at an address that it was told.
    pub(crate) fn silent(mut command: Command, address: &str) -> Result<Self> {
        let stderr = NamedTempFile::new().context("can't make a file for what the server says")?;
        let child = command.stdout(Stdio::null()).stderr(File::create(stderr.path())?).spawn()?;
        let server = Self {
            running: Running::watch(child),
            url: format!("http://{address}"),
            admin: String::new(),
            stderr,
            ready_after: Duration::ZERO,
            _lines: channel().1,
        };
        eventually(Duration::from_secs(20), "the server listens", || TcpStream::connect(address).is_ok())
            .with_context(|| server.talk())?;
        Ok(server)
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        self.running.signal(signal)
    }

    /// SIGKILL, and its end.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.running.wait(Deadline::after(Duration::from_secs(60)))?;
        Ok(())
    }

    /// SIGTERM, and its end.
    pub(crate) fn stop(self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait(Duration::from_secs(60)).map(|ended| ended.status)
    }

    /// Waits for an end by itself.
    pub(crate) fn wait(mut self, within: Duration) -> Result<Ended> {
        let status = self.running.wait(Deadline::after(within))?;
        Ok(Ended { status, talk: self.talk() })
    }

    /// What it has said on stderr so far.
    pub(crate) fn talk(&self) -> String {
        fs::read_to_string(self.stderr.path()).unwrap_or_default()
    }

    /// Whether it says that it can serve.
    pub(crate) fn is_ready(&self) -> bool {
        get(&self.admin, "/readyz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }

    /// One metric's value; 0 if it is not there or can't be asked for.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let page = get(&self.admin, "/metrics").unwrap_or_default();
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned));
        line.and_then(|value| value.trim().parse().ok()).unwrap_or_default()
    }

    pub(crate) fn id(&self) -> u32 {
        self.running.id()
    }

    /// The processes: its own and those that it started.
    fn processes(&self) -> Vec<u32> {
        crate::process::family(self.id())
    }

    /// User and system time so far, of it and its children.
    pub(crate) fn cpu(&self) -> Duration {
        cpu_of(&self.processes())
    }

    /// Memory that is its own (anonymous), in bytes, and all that is resident.
    pub(crate) fn memory(&self) -> (u64, u64) {
        let (mut own, mut all) = (0, 0);
        for id in self.processes() {
            let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
            let field = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name));
                let kibibytes = line.and_then(|line| line.split_whitespace().next()).and_then(|text| text.parse().ok());
                kibibytes.unwrap_or(0_u64) * 1_024
            };
            own += field("RssAnon:");
            all += field("VmRSS:");
        }
        (own, all)
    }
}

/// User and system time so far of these processes.
pub(crate) fn cpu_of(processes: &[u32]) -> Duration {
    Duration::from_millis(processes.iter().filter_map(|id| ticks_of(*id)).sum::<u64>() * 10)
}

/// User and system time of a process, in hundredths of a second.
fn ticks_of(id: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

fn get(address: &str, path: &str) -> Result<String> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(socket, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Reads lines on a thread of its own, so that a full pipe never holds up the server.
fn lines_of(child: &mut Child) -> Result<Receiver<String>> {
    let stdout = BufReader::new(child.stdout.take().context("its output was not taken")?);
    let (sender, lines) = channel();
    std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    Ok(lines)
}

/// A load that has ended.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) code: Option<i32>,
    /// The result; null if none was printed.
    pub(crate) json: Value,
    pub(crate) talk: String,
}

impl Loaded {
    pub(crate) fn number(&self, pointer: &str) -> f64 {
        self.json.pointer(pointer).and_then(Value::as_f64).unwrap_or_default()
    }
}

/// A load that goes on.
#[derive(Debug)]
pub(crate) struct Load {
    running: Running,
    output: NamedTempFile,
    talk: NamedTempFile,
}

impl Load {
    /// Starts `playhead load` with these words, for a server over this directory.
    pub(crate) fn start(binary: &Path, url: &str, data: &Path, words: &[&str]) -> Result<Self> {
        let (output, talk) = (NamedTempFile::new()?, NamedTempFile::new()?);
        let mut command = command(binary);
        // A subcommand comes first.
        let (subcommand, flags) = words.split_at(usize::from(words.first() == Some(&"verify")));
        command.arg("load").args(subcommand).args(["--output", "json", "--target", url, "--data-dir"]).arg(data);
        command.args(flags).stdout(File::create(output.path())?).stderr(File::create(talk.path())?);
        let child = command.spawn().context("can't start the load")?;
        Ok(Self { running: Running::watch(child), output, talk })
    }

    pub(crate) fn interrupt(&self) -> Result<()> {
        self.running.interrupt()
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self) -> Result<Loaded> {
        let status = self.running.wait(Deadline::after(LOAD_WITHIN))?;
        let text = fs::read_to_string(self.output.path())?;
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        let talk = fs::read_to_string(self.talk.path())?;
        ensure!(!talk.contains("panicked"), "the load panicked: {talk}");
        Ok(Loaded { code: status.code(), json, talk })
    }
}

/// Runs `playhead load` with these words to its end.
pub(crate) fn load(binary: &Path, url: &str, data: &Path, words: &[&str]) -> Result<Loaded> {
    Load::start(binary, url, data, words)?.wait()
}
