//! The real binary in a directory of its own: started on free ports, told what to do, killed.

use crate::client::{Answer, Connection};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How long a start may take, recovery included, in a build that is not optimised, on a machine that is busy.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// The binary of this build.
pub(crate) fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_playhead"))
}

/// How a server is started.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    binary: PathBuf,
    directory: PathBuf,
    /// A program that starts the binary, and its arguments.
    wrapper: Vec<String>,
    flags: Vec<String>,
}

impl Launch {
    /// `serve --dev` on the embedded store in this directory, on free ports. 128 KiB of log freeze the memtable, so that
    /// each second of load rotates, drains and recycles.
    pub(crate) fn embedded(binary: &Path, directory: &Path) -> Self {
        let flags = ["--segment-bytes", "65536", "--freeze-bytes", "131072", "--memtable-bytes", "1048576"];
        let disk = ["--disk-reserve-bytes", "1048576", "--block-cache-bytes", "4194304"];
        Self {
            binary: binary.to_owned(),
            directory: directory.to_owned(),
            wrapper: Vec::new(),
            flags: flags.into_iter().chain(disk).map(str::to_owned).collect(),
        }
    }

    /// The same on a store that keeps nothing across a kill.
    pub(crate) fn in_memory(mut self) -> Self {
        self.flags.extend(["--store".to_owned(), "memory".to_owned()]);
        self
    }

    /// Started by another program, which gets the binary and its flags as its last arguments.
    pub(crate) fn under(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Starts it and waits until it is ready.
    pub(crate) fn start(&self) -> Playhead {
        match self.try_start() {
            Ok(playhead) => playhead,
            Err(end) => panic!("the server did not start: {:?}\n{}", end.status, end.stderr),
        }
    }

    /// Starts it and waits until it is ready or has ended.
    pub(crate) fn try_start(&self) -> Result<Playhead, End> {
        let (program, arguments) = match self.wrapper.split_first() {
            Some((program, arguments)) => (PathBuf::from(program), arguments),
            None => (self.binary.clone(), [].as_slice()),
        };
        let mut command = Command::new(program);
        command.args(arguments);
        if !self.wrapper.is_empty() {
            command.arg(&self.binary);
        }
        // Nothing of this process's environment may change what is started.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PLAYHEAD_")) {
            command.env_remove(name);
        }
        // Each start has a file of its own for what it says.
        let stderr = tempfile::NamedTempFile::new().unwrap();
        let mut child = command
            .args(["serve", "--dev", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data-dir"])
            .arg(&self.directory)
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::from(File::create(stderr.path()).unwrap()))
            .spawn()
            .unwrap();
        let lines = lines_of(&mut child);
        let mut starting = Playhead { child, address: None, admin: None, stderr, lines };
        let deadline = Instant::now() + START_DEADLINE;
        while starting.admin.is_none() {
            match starting.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => starting.take_line(&line),
                Err(RecvTimeoutError::Disconnected) => return Err(starting.wait(START_DEADLINE)),
                Err(RecvTimeoutError::Timeout) => panic!("not ready in time\n{}", starting.talk()),
            }
        }
        Ok(starting)
    }

    /// Bytes of the log's files.
    pub(crate) fn log_bytes(&self) -> u64 {
        let files = std::fs::read_dir(self.directory.join("log")).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
    }

    /// The secret that `--dev` has made.
    pub(crate) fn secret(&self) -> Vec<u8> {
        let text = std::fs::read_to_string(self.directory.join("dev-secret")).unwrap();
        text.trim_end().as_bytes().to_vec()
    }
}

/// A running server; killed when dropped.
pub(crate) struct Playhead {
    child: Child,
    address: Option<SocketAddr>,
    admin: Option<SocketAddr>,
    stderr: tempfile::NamedTempFile,
    lines: Receiver<String>,
}

/// A server that has ended.
pub(crate) struct End {
    pub(crate) status: ExitStatus,
    pub(crate) stderr: String,
}

fn lines_of(child: &mut Child) -> Receiver<String> {
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let (sender, lines) = channel();
    std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    lines
}

impl Playhead {
    fn take_line(&mut self, line: &str) {
        let address = |prefix: &str| line.strip_prefix(prefix).map(|address| address.parse().unwrap());
        self.address = self.address.or_else(|| address("listening on http://"));
        self.admin = self.admin.or_else(|| address("admin on http://"));
    }

    /// Where viewers connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address.expect("a started server has said where it listens")
    }

    /// The page for operators.
    pub(crate) fn operations(&self, path: &str) -> Answer {
        let admin = self.admin.expect("a started server has said where its operators connect");
        Connection::open(admin)
            .and_then(|mut connection| connection.get(path, ""))
            .expect("the operators' page answers")
    }

    /// The value of a metric without labels; 0 if it is not there.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let page = self.operations("/metrics").text();
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or(0)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).unwrap();
        kill_process(id, signal).unwrap();
    }

    /// SIGKILL, and its end.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self, deadline: Duration) -> End {
        let deadline = Instant::now() + deadline;
        // Its stdout ends when it does: nothing to poll for until then.
        while self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok() {}
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                return End { status, stderr: self.talk() };
            }
            std::thread::yield_now();
        }
        panic!("the server has not ended in time\n{}", self.talk());
    }

    /// What it has said on stderr.
    pub(crate) fn talk(&self) -> String {
        std::fs::read_to_string(self.stderr.path()).unwrap()
    }
}

impl Drop for Playhead {
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

/// Waits for this long, or until what else is waited for ends the wait.
pub(crate) fn wait_for(delay: Duration) {
    // A channel on which nothing is ever sent: the delay is the point here, not an event.
    let (_sender, nothing) = channel::<()>();
    let _ = nothing.recv_timeout(delay);
}
