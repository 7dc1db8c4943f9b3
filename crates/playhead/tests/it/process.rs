//! The real binary: run to its end, or started as a server in a directory of its own, told what to do, and killed.
//!
//! A [`Launch`] says how a server is started, any build of it and under any other program; a [`Server`] runs on free
//! ports and is killed, by its id, when it is dropped. Nothing here sleeps to wait: reads have deadlines, and
//! [`eventually`] polls.

use crate::client::{Client, PATIENCE};
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};
use tempfile::{NamedTempFile, TempDir};

/// How long a start may take, recovery included, in a build that is not optimised, on a machine that is busy.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// How long a cluster may take to come back, on a machine that is busy.
pub(crate) const PATIENCE_FOR_CLUSTER: Duration = Duration::from_secs(120);

/// Between two looks at what is waited for.
const POLL: Duration = Duration::from_millis(5);

/// The binary of this build.
pub(crate) fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_playhead"))
}

/// A command, with nothing of this process's environment that would change the binary under test.
fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PLAYHEAD_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The binary under test with these arguments.
pub(crate) fn playhead(arguments: &[&str]) -> Command {
    let mut command = command(binary());
    command.args(arguments);
    command
}

/// What a command that ended by itself said.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a command to its end.
pub(crate) fn run(arguments: &[&str]) -> Ended {
    run_in(&[], arguments)
}

/// Runs a command to its end, with these variables in its environment.
pub(crate) fn run_in(environment: &[(&str, &str)], arguments: &[&str]) -> Ended {
    let output = playhead(arguments).envs(environment.iter().copied()).output().unwrap();
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// How a server is started.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    binary: PathBuf,
    /// Its data directory.
    pub(crate) directory: PathBuf,
    /// A program that starts the binary, and its arguments.
    wrapper: Vec<String>,
    flags: Vec<String>,
}

impl Launch {
    /// `serve` with these flags over this directory, on free ports.
    pub(crate) fn new(directory: &Path, flags: &[&str]) -> Self {
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        Self { binary: binary(), directory: directory.to_owned(), wrapper: Vec::new(), flags }
    }

    /// `serve --dev` on the embedded store. 128 KiB of log freeze the memtable, so that each second of load rotates,
    /// drains and recycles.
    pub(crate) fn embedded(directory: &Path) -> Self {
        let sizes = ["--segment-bytes", "65536", "--freeze-bytes", "131072", "--memtable-bytes", "1048576"];
        let disk = ["--disk-reserve-bytes", "1048576", "--block-cache-bytes", "4194304"];
        Self::new(directory, &[&["--dev"][..], &sizes, &disk].concat())
    }

    /// The same with another build of the binary.
    pub(crate) fn of(mut self, binary: &Path) -> Self {
        binary.clone_into(&mut self.binary);
        self
    }

    /// The same with these flags instead of those of the same names, or besides.
    pub(crate) fn with(mut self, flags: &[&str]) -> Self {
        for pair in flags.chunks(2) {
            if let Some(at) = self.flags.iter().position(|flag| flag == pair[0]) {
                self.flags.drain(at..at + pair.len());
            }
            self.flags.extend(pair.iter().map(|word| (*word).to_owned()));
        }
        self
    }

    /// The same over another directory.
    pub(crate) fn at(mut self, directory: &Path) -> Self {
        directory.clone_into(&mut self.directory);
        self
    }

    /// Started by another program, which gets the binary and its flags as its last arguments.
    pub(crate) fn under(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Starts it and waits until it is ready.
    pub(crate) fn start(&self) -> Server {
        match self.try_start() {
            Ok(server) => server,
            Err(end) => panic!("the server did not start: {:?}\n{}", end.status, end.stderr),
        }
    }

    /// Starts it and waits until it is ready or has ended.
    pub(crate) fn try_start(&self) -> Result<Server, End> {
        let words: Vec<&OsStr> = self.wrapper.iter().map(OsStr::new).chain([self.binary.as_os_str()]).collect();
        // Each start has a file of its own for what it says.
        let stderr = NamedTempFile::new().unwrap();
        let mut child = command(words[0])
            .args(&words[1..])
            // One user of a test does what many do elsewhere; a flag wins over this.
            .env("PLAYHEAD_THROTTLE_PER_SECOND", "0")
            .env("PLAYHEAD_DELETE_THROTTLE_PER_SECOND", "0")
            .args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data-dir"])
            .arg(&self.directory)
            .args(&self.flags)
            .stderr(Stdio::from(File::create(stderr.path()).unwrap()))
            .spawn()
            .unwrap();
        let lines = lines_of(&mut child);
        // Where it listens is known once it has said so.
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut server = Server { child, address: nowhere, admin: nowhere, stderr, lines };
        let deadline = Instant::now() + START_DEADLINE;
        while server.admin == nowhere {
            match server.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => server.take_line(&line),
                Err(RecvTimeoutError::Disconnected) => return Err(server.wait(START_DEADLINE)),
                Err(RecvTimeoutError::Timeout) => panic!("not ready in time\n{}", server.talk()),
            }
        }
        Ok(server)
    }

    /// The log's directory.
    pub(crate) fn log_directory(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// The log's segments, oldest first; none if it is gone.
    pub(crate) fn segments(&self) -> Vec<PathBuf> {
        let files = std::fs::read_dir(self.log_directory()).into_iter().flatten().map(|file| file.unwrap().path());
        let mut segments: Vec<_> = files.filter(|file| file.extension().is_some_and(|end| end == "log")).collect();
        segments.sort();
        segments
    }

    /// Bytes of the log's files.
    pub(crate) fn log_bytes(&self) -> u64 {
        let files = std::fs::read_dir(self.log_directory()).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
    }
}

/// A running server; killed when dropped.
pub(crate) struct Server {
    child: Child,
    /// Where viewers connect.
    pub(crate) address: SocketAddr,
    /// Where operators connect.
    pub(crate) admin: SocketAddr,
    stderr: NamedTempFile,
    /// Lines of stdout, as they come.
    lines: Receiver<String>,
}

/// A server that has ended.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) status: ExitStatus,
    pub(crate) stderr: String,
}

/// Reads lines on a thread of its own, so that a full pipe never holds up the server.
fn lines_of(child: &mut Child) -> Receiver<String> {
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let (sender, lines) = channel();
    std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    lines
}

impl Server {
    /// Starts `serve --dev --store memory` over this directory, with these flags besides.
    pub(crate) fn in_memory(directory: &TempDir, flags: &[&str]) -> Self {
        Launch::new(directory.path(), &[&["--dev", "--store", "memory"], flags].concat()).start()
    }

    fn take_line(&mut self, line: &str) {
        if let Some(address) = line.strip_prefix("listening on http://") {
            self.address = address.parse().unwrap();
        } else if let Some(address) = line.strip_prefix("admin on http://") {
            self.admin = address.parse().unwrap();
        }
    }

    /// What is printed below the addresses, up to this many lines.
    pub(crate) fn printed_lines(&self, count: usize) -> Vec<String> {
        (0..count).map_while(|_| self.lines.recv_timeout(PATIENCE).ok()).collect()
    }

    /// A new connection.
    pub(crate) fn connect(&self) -> Client {
        Client::to(self.address)
    }

    /// One metric's value, labels included in its name as they are printed; 0 if it is not there.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let page = Client::to(self.admin).get("/metrics", None).body;
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().unwrap())
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// The id of its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// SIGKILL, and its end.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self, patience: Duration) -> End {
        let deadline = Instant::now() + patience;
        // Its stdout ends when it does: nothing to poll for until then.
        while self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok() {}
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                return End { status, stderr: self.talk() };
            }
            wait_for(POLL);
        }
        panic!("the server has not ended in time\n{}", self.talk());
    }

    /// What it has said on stderr so far.
    pub(crate) fn talk(&self) -> String {
        std::fs::read_to_string(self.stderr.path()).unwrap()
    }

    /// Waits for a line on stderr that contains this.
    pub(crate) fn wait_for_log(&self, text: &str) {
        eventually(&format!("a line says {text:?}"), || self.talk().lines().any(|line| line.contains(text)));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Says that a test could not be made; past the test harness, which keeps what passing tests print to itself.
pub(crate) fn skip(test: &str, missing: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {missing}");
}

/// The seed of this run: `PLAYHEAD_TEST_SEED`, or a fresh one. Printed, so that a failure shows it.
pub(crate) fn seed() -> u64 {
    let seed = match std::env::var("PLAYHEAD_TEST_SEED") {
        Ok(text) => text.parse().expect("PLAYHEAD_TEST_SEED is a number"),
        Err(_) => fastrand::u64(..),
    };
    println!("repeat with PLAYHEAD_TEST_SEED={seed}");
    seed
}

/// Polls until it is so.
pub(crate) fn eventually(what: &str, is_so: impl FnMut() -> bool) {
    within(PATIENCE, what, is_so);
}

/// Polls until it is so, for so long.
pub(crate) fn within(patience: Duration, what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {patience:?}: {what}");
        wait_for(POLL);
    }
}

/// Lets this much time pass: for a fault that lasts, and between two looks of a poll.
pub(crate) fn wait_for(delay: Duration) {
    // A channel on which nothing is ever sent: the delay is the point here, not an event.
    let (_sender, nothing) = channel::<()>();
    let _ = nothing.recv_timeout(delay);
}
