//! Starts the real binary and speaks HTTP/1.1 to it.
//!
//! A [`Server`] runs on free ports over a directory of its own and is killed, by its id, when it is dropped. A
//! [`Client`] is one connection, kept open over requests; [`Client::send`] writes any bytes, so that tests can be as
//! rude as they like. Nothing here sleeps: reads have deadlines, and [`eventually`] polls.

use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longer than anything here takes on a busy machine; only a failing test waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The path of heartbeats and of the list.
pub(crate) const PROGRESS: &str = "/api/v1/stream/progress";

/// The path of batches.
pub(crate) const BATCH: &str = "/api/v1/stream/progress/batch";

/// The binary under test, with nothing of this process's environment that would change it.
pub(crate) fn playhead(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_playhead"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PLAYHEAD_")) {
        command.env_remove(name);
    }
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What a command that ended by itself said.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a command to its end.
pub(crate) fn run(arguments: &[&str]) -> Ended {
    let output = playhead(arguments).output().unwrap();
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A running server.
pub(crate) struct Server {
    child: Child,
    /// Where viewers connect.
    pub(crate) address: SocketAddr,
    /// Where operators connect.
    pub(crate) admin: SocketAddr,
    /// Lines of stderr, as they come.
    log: Receiver<String>,
    /// The lines on stdout after the addresses have been left unread until here.
    stdout: BufReader<std::process::ChildStdout>,
}

impl Server {
    /// Starts `serve --dev --store memory` over this directory, with these flags besides.
    pub(crate) fn in_memory(directory: &TempDir, flags: &[&str]) -> Self {
        Self::start(directory.path(), &[&["--dev", "--store", "memory"], flags].concat())
    }

    /// Starts `serve` on free ports over this directory and waits until it is ready.
    pub(crate) fn start(directory: &Path, flags: &[&str]) -> Self {
        let directory = directory.to_str().unwrap();
        let mut arguments =
            vec!["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data-dir", directory];
        arguments.extend(flags);
        let mut child = playhead(&arguments).spawn().unwrap();
        let log = lines(child.stderr.take().unwrap());
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut address_after = |prefix: &str| -> SocketAddr {
            let mut line = String::new();
            stdout.read_line(&mut line).unwrap();
            match line.trim_end().strip_prefix(prefix) {
                Some(address) => address.parse().unwrap(),
                None => panic!("the server did not start: {line:?} {:?}", log.iter().collect::<Vec<_>>()),
            }
        };
        let address = address_after("listening on http://");
        let admin = address_after("admin on http://");
        Self { child, address, admin, log, stdout }
    }

    /// What is printed below the addresses, up to this many lines.
    pub(crate) fn printed_lines(&mut self, count: usize) -> Vec<String> {
        self.stdout.by_ref().lines().take(count).map(Result::unwrap).collect()
    }

    /// A new connection.
    pub(crate) fn connect(&self) -> Client {
        Client::to(self.address)
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the server ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// All that was logged; the server must have ended, or been killed.
    pub(crate) fn log(&mut self) -> Vec<String> {
        let _ = self.child.kill();
        self.log.iter().collect()
    }

    /// Waits for a line of the log that contains this.
    pub(crate) fn wait_for_log(&self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.log.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains(text) => return line,
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => panic!("no line says {text:?}"),
            }
        }
    }

    /// One metric's value, labels included in its name as they are printed.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let page = Client::to(self.admin).get("/metrics", None).body;
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads lines on a thread of its own, so that a full pipe never holds up the server.
fn lines(source: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(source).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

/// A token for a user of the dev server over this directory.
pub(crate) fn token(directory: &TempDir, user: i64) -> String {
    let ended = run(&["token", "--user", &user.to_string(), "--data-dir", directory.path().to_str().unwrap()]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended.stdout.trim_end().to_owned()
}

/// Polls until it is so.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::yield_now();
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names in lower case, in the order they came.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The slug at the end of a problem's type, after a check that this is a whole problem.
    pub(crate) fn slug(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let json = self.json();
        assert_eq!(json["status"], self.status, "{self:?}");
        assert!(json["title"].is_string() && json["detail"].is_string(), "{self:?}");
        json["type"].as_str().unwrap().rsplit(':').next().unwrap().to_owned()
    }
}

/// One connection to a server.
pub(crate) struct Client {
    socket: BufReader<TcpStream>,
    address: SocketAddr,
}

impl Client {
    /// Connects.
    pub(crate) fn to(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket: BufReader::new(socket), address }
    }

    /// Writes bytes as they are. That the other side has closed already is not an error: it shows in the answer.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.socket.get_mut().write_all(bytes.as_ref());
    }

    /// Ends the sending side.
    pub(crate) fn half_close(&mut self) {
        let _ = self.socket.get_mut().shutdown(Shutdown::Write);
    }

    /// Reads the answer to a request by a method that has a body in its answer.
    pub(crate) fn answer(&mut self) -> Answer {
        self.try_answer().expect("the connection was closed instead of an answer")
    }

    /// Reads an answer; `None` if the connection was closed instead.
    pub(crate) fn try_answer(&mut self) -> Option<Answer> {
        let (status, headers) = self.head()?;
        let length = headers.iter().find(|(name, _)| name == "content-length").map(|(_, value)| value.parse().unwrap());
        let mut body = vec![0; length.unwrap_or(0)];
        self.socket.read_exact(&mut body).unwrap();
        Some(Answer { status, headers, body: String::from_utf8(body).unwrap() })
    }

    /// Reads an answer's head alone.
    pub(crate) fn head(&mut self) -> Option<(u16, Vec<(String, String)>)> {
        let status = self.line()?;
        let status = status.strip_prefix("HTTP/1.1 ").unwrap_or_else(|| panic!("no answer: {status:?}"));
        let status = status[..3].parse().unwrap();
        let mut headers = Vec::new();
        loop {
            let line = self.line().expect("a whole head");
            let Some((name, value)) = line.split_once(':') else {
                return Some((status, headers));
            };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.socket.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(line.trim_end().to_owned()),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
            Err(error) => panic!("no answer in time: {error}"),
        }
    }

    /// Whether the server closes the connection, within the deadline of reads, without another byte.
    pub(crate) fn is_closed(&mut self) -> bool {
        // `bytes` goes on after an interrupted call, as `read` would not.
        match self.socket.by_ref().bytes().next() {
            None => true,
            Some(Ok(_)) => false,
            Some(Err(error)) => error.kind() == ErrorKind::ConnectionReset,
        }
    }

    /// Sends a request and reads its answer.
    pub(crate) fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Answer {
        let mut bytes = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.address);
        for (name, value) in headers {
            bytes.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(body) = body {
            bytes.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        bytes.push_str("\r\n");
        self.send([bytes.as_bytes(), body.unwrap_or_default()].concat());
        self.answer()
    }

    /// GET.
    pub(crate) fn get(&mut self, path: &str, token: Option<&str>) -> Answer {
        let bearer = token.map(|token| format!("Bearer {token}"));
        let headers: Vec<_> = bearer.iter().map(|bearer| ("Authorization", bearer.as_str())).collect();
        self.request("GET", path, &headers, None)
    }

    /// POSTs a heartbeat.
    pub(crate) fn beat(&mut self, token: &str, body: impl AsRef<[u8]>) -> Answer {
        self.post(PROGRESS, token, body)
    }

    /// POSTs a batch.
    pub(crate) fn batch(&mut self, token: &str, body: impl AsRef<[u8]>) -> Answer {
        self.post(BATCH, token, body)
    }

    fn post(&mut self, path: &str, token: &str, body: impl AsRef<[u8]>) -> Answer {
        let bearer = format!("Bearer {token}");
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
        self.request("POST", path, &headers, Some(body.as_ref()))
    }

    /// DELETE.
    pub(crate) fn delete(&mut self, path: &str, token: &str) -> Answer {
        self.request("DELETE", path, &[("Authorization", &format!("Bearer {token}"))], None)
    }
}
