//! Runs the README's commands as they are written, in a fresh directory: a first screen that does not work is worse
//! than none.
//!
//! Every fenced `sh` block of README.md has an HTML comment before it, invisible to readers, that says what it is:
//!
//! | comment | the block is |
//! |---|---|
//! | `<!-- ci: serve -->` | the one command that starts the server |
//! | `<!-- ci: call, answer holds TEXT -->` | run as one script while the server runs |
//! | `<!-- ci: call after restart, answer holds TEXT -->` | the same, after the server was stopped and started again |
//! | `<!-- ci: skip, REASON -->` | not run |
//!
//! The tree as it lies, uncommitted changes included, is copied to a new directory and built there. The server gets
//! free ports; the documented ones are replaced in the blocks. The curl lines that the server prints are run too, as
//! pasted. **The promise.** All of them ended well, with HTTP statuses below 400 and the texts they should hold, the
//! server left on SIGINT with status 0, and what was stored was there after the restart.

use crate::process::{self, Deadline, Running};
use crate::tidy::Tree;
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

/// The documented addresses, which the free ones replace.
const LISTEN: &str = "127.0.0.1:8080";
const ADMIN: &str = "127.0.0.1:9464";

/// From its start to its last printed line; nothing is compiled any more.
const READY_WITHIN: Duration = Duration::from_secs(60);
const STOPPED_WITHIN: Duration = Duration::from_secs(20);
const CALL_WITHIN: Duration = Duration::from_secs(60);

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Serve,
    Call { after_restart: bool, holds: String },
    Skip,
}

#[derive(Debug, PartialEq, Eq)]
struct Block {
    kind: Kind,
    text: String,
}

/// Runs the whole of it.
pub(crate) fn run(root: &Path, deadline: Deadline) -> Result<()> {
    let readme = fs::read_to_string(root.join("README.md")).context("can't read README.md")?;
    let blocks = blocks(&readme)?;
    let serve: Vec<&str> =
        blocks.iter().filter(|block| block.kind == Kind::Serve).map(|block| block.text.trim()).collect();
    let [serve] = serve[..] else { bail!("README.md must have exactly one block marked `ci: serve`") };
    ensure!(!serve.contains('\n'), "the block that starts the server must be one command");

    let fresh = tempfile::tempdir().context("can't make a fresh directory")?;
    let place =
        Place { directory: &fresh.path().join("playhead"), target: &root.join("target/readme"), curl: fresh.path() };
    Tree::of_repository(root)?.copy_to(place.directory)?;
    // Makes curl fail on an error status, and print it, without a change of the lines.
    fs::write(
        place.curl.join(".curlrc"),
        "silent\nshow-error\nfail-with-body\nmax-time = 20\nwrite-out = \"\\nHTTP %{http_code}\\n\"\n",
    )?;
    let mut build = process::cargo();
    build.current_dir(place.directory).env("CARGO_TARGET_DIR", place.target);
    process::run(build.args(["build", "--quiet", "--release", "--locked", "--package", "playhead"]), deadline)?;

    for restarted in [false, true] {
        let server = Server::start(&place, serve, deadline)?;
        for line in &server.curl_lines {
            place.call(line, "", deadline)?;
        }
        for block in &blocks {
            if let Kind::Call { after_restart, holds } = &block.kind
                && *after_restart == restarted
            {
                place.call(&server.at_its_ports(&block.text), holds, deadline)?;
            }
        }
        server.stop(deadline)?;
    }
    Ok(())
}

/// Reads the marked blocks; a block that could be run and says nothing is an error.
fn blocks(readme: &str) -> Result<Vec<Block>> {
    let mut blocks = Vec::new();
    let mut marker = None;
    let mut lines = readme.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        if let Some(comment) = line.strip_prefix("<!-- ci: ").and_then(|rest| rest.strip_suffix(" -->")) {
            marker = Some(kind(comment).with_context(|| format!("README.md:{}", number + 1))?);
        } else if let Some(language) = line.strip_prefix("```") {
            let text: Vec<&str> = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```").collect();
            match (language, marker.take()) {
                ("sh", Some(kind)) => blocks.push(Block { kind, text: text.join("\n") }),
                ("sh", None) => {
                    bail!("README.md:{}: this block says nothing to ci; see xtask/src/readme.rs", number + 1)
                }
                (_, Some(_)) => bail!("README.md:{}: a block for ci must be marked `sh`", number + 1),
                (_, None) => {}
            }
        } else if !line.is_empty() {
            marker = None;
        }
    }
    Ok(blocks)
}

fn kind(comment: &str) -> Result<Kind> {
    if comment == "serve" {
        return Ok(Kind::Serve);
    }
    if comment.starts_with("skip, ") {
        return Ok(Kind::Skip);
    }
    let (call, holds) = comment.split_once(", answer holds ").unwrap_or((comment, ""));
    let after_restart = match call {
        "call" => false,
        "call after restart" => true,
        _ => bail!("`{comment}` is no marker that ci knows"),
    };
    Ok(Kind::Call { after_restart, holds: holds.to_owned() })
}

/// Where the commands run.
struct Place<'a> {
    directory: &'a Path,
    target: &'a Path,
    curl: &'a Path,
}

impl Place<'_> {
    fn shell(&self, script: &str) -> Command {
        let mut shell = Command::new("bash");
        shell.args(["-euo", "pipefail", "-c", script]).current_dir(self.directory);
        shell.env("CARGO_TARGET_DIR", self.target).env("CURL_HOME", self.curl).stdin(Stdio::null());
        for variable in ["CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH", "CARGO_PKG_NAME", "CARGO_PKG_VERSION"] {
            shell.env_remove(variable);
        }
        shell
    }

    fn call(&self, script: &str, holds: &str, deadline: Deadline) -> Result<()> {
        println!("{}", script.lines().map(|line| format!("    $ {line}\n")).collect::<String>().trim_end());
        let mut child = self.shell(script).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let (sender, lines) = mpsc::channel();
        forward(child.stdout.take(), &sender);
        forward(child.stderr.take(), &sender);
        drop(sender);
        let status = Running::watch(child).wait(deadline.at_most(CALL_WITHIN)).context("the commands above")?;
        let answer: Vec<String> = lines.iter().collect();
        for line in answer.iter().filter(|line| !line.is_empty()) {
            println!("      {line}");
        }
        ensure!(status.success(), "the commands above failed ({status})");
        ensure!(answer.iter().any(|line| line.contains(holds)), "no line of the answer holds {holds}");
        Ok(())
    }
}

/// A running server, and what it printed.
struct Server {
    process: Running,
    lines: Receiver<String>,
    listen: String,
    admin: String,
    curl_lines: Vec<String>,
}

impl Server {
    fn start(place: &Place<'_>, serve: &str, deadline: Deadline) -> Result<Self> {
        let command = format!("exec {serve} --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0");
        println!("    $ {serve}");
        // `exec`, and cargo's own, make the server the process that is watched and gets the signal.
        let mut child = place.shell(&command).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let (sender, lines) = mpsc::channel();
        forward(child.stdout.take(), &sender);
        forward(child.stderr.take(), &sender);
        drop(sender);
        let mut server = Self {
            process: Running::watch(child),
            lines,
            listen: String::new(),
            admin: String::new(),
            curl_lines: Vec::new(),
        };
        server.read_until_ready(deadline.at_most(READY_WITHIN))?;
        Ok(server)
    }

    fn read_until_ready(&mut self, deadline: Deadline) -> Result<()> {
        let mut unfinished = String::new();
        while self.listen.is_empty() || self.admin.is_empty() || self.curl_lines.is_empty() || !unfinished.is_empty() {
            let Ok(line) = self.lines.recv_timeout(deadline.left()) else {
                bail!("the server ended, or its time did, before it printed both addresses and a curl line");
            };
            println!("      {line}");
            self.take(&line, &mut unfinished);
        }
        // Nothing marks the last line: what follows at once belongs to the first words.
        while let Ok(line) = self.lines.recv_timeout(deadline.left().min(Duration::from_secs(1))) {
            println!("      {line}");
            self.take(&line, &mut unfinished);
        }
        Ok(())
    }

    fn take(&mut self, line: &str, unfinished: &mut String) {
        let line = line.trim();
        if let Some(address) = line.strip_prefix("listening on http://") {
            self.listen = address.to_owned();
        } else if let Some(address) = line.strip_prefix("admin on http://") {
            self.admin = address.to_owned();
        } else if line.starts_with("curl ") || !unfinished.is_empty() {
            match line.strip_suffix('\\') {
                Some(part) => unfinished.push_str(part),
                None => self.curl_lines.push(std::mem::take(unfinished) + line),
            }
        }
    }

    fn at_its_ports(&self, script: &str) -> String {
        script.replace(LISTEN, &self.listen).replace(ADMIN, &self.admin)
    }

    fn stop(mut self, deadline: Deadline) -> Result<()> {
        println!("    ^C");
        self.process.interrupt()?;
        let status = self.process.wait(deadline.at_most(STOPPED_WITHIN)).context("the server, after SIGINT")?;
        for line in &self.lines {
            println!("      {line}");
        }
        ensure!(status.success(), "the server left on SIGINT with {status}");
        Ok(())
    }
}

/// Passes lines on until the other end is closed. The process that writes them is bounded by its deadline.
fn forward(from: Option<impl Read + Send + 'static>, to: &Sender<String>) {
    let to = to.clone();
    let lines = from.into_iter().flat_map(|from| BufReader::new(from).lines()).map_while(Result::ok);
    thread::spawn(move || lines.for_each(|line| drop(to.send(line))));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_read_with_their_markers() {
        let readme = "# A\n\n<!-- ci: serve -->\n```sh\nrun me\n```\ntext\n\n<!-- ci: call after restart, answer holds \"a\":1 -->\n\n\
                      ```sh\na\nb\n```\n\n```json\n{}\n```\n<!-- ci: skip, why -->\n```sh\nno\n```\n";
        let call = Kind::Call { after_restart: true, holds: "\"a\":1".to_owned() };
        let expected = [(Kind::Serve, "run me"), (call, "a\nb"), (Kind::Skip, "no")]
            .map(|(kind, text)| Block { kind, text: text.to_owned() });
        assert_eq!(blocks(readme).unwrap(), expected);
    }

    #[test]
    fn a_block_that_says_nothing_is_an_error() {
        for readme in
            ["```sh\nrun\n```\n", "<!-- ci: serve -->\nwords\n```sh\nrun\n```\n", "<!-- ci: cal -->\n```sh\n```\n"]
        {
            assert!(blocks(readme).is_err(), "{readme}");
        }
    }

    #[test]
    fn a_call_must_end_well_and_hold_its_text() {
        let fresh = tempfile::tempdir().unwrap();
        let place = Place { directory: fresh.path(), target: fresh.path(), curl: fresh.path() };
        let deadline = Deadline::after(Duration::from_secs(60));
        for (script, holds, passes) in [
            ("echo abc", "b", true),
            ("echo abc", "d", false),
            ("false; echo abc", "b", false),
            ("false | true", "", false),
        ] {
            assert_eq!(place.call(script, holds, deadline).is_ok(), passes, "{script}");
        }
    }

    /// A stand-in for the server: what a start prints, and how it leaves.
    fn start(script: &str) -> Result<Server> {
        let fresh = tempfile::tempdir().unwrap();
        let place = Place { directory: fresh.path(), target: fresh.path(), curl: fresh.path() };
        // Whoever runs the tests in the background has SIGINT ignored, which a shell could not undo.
        let script = format!("env --default-signal=INT bash -c '{script}' server");
        Server::start(&place, &script, Deadline::after(Duration::from_secs(20)))
    }

    #[test]
    fn a_server_is_read_and_stopped_by_sigint() {
        let lines = "echo listening on http://127.0.0.1:5; echo admin on http://127.0.0.1:6; echo \"curl a \\\\\"; echo \"  b\"";
        let deadline = Deadline::after(Duration::from_secs(20));
        let leaving_with = |status: u8| {
            start(&format!("trap \"kill \\$!; exit {status}\" INT; {lines}; tail -f /dev/null & wait")).unwrap()
        };
        let server = leaving_with(0);
        assert_eq!(server.at_its_ports("x 127.0.0.1:8080 127.0.0.1:9464"), "x 127.0.0.1:5 127.0.0.1:6");
        assert_eq!(server.curl_lines, ["curl a b"]);
        server.stop(deadline).unwrap();
        assert!(leaving_with(3).stop(deadline).unwrap_err().to_string().contains('3'));
        assert!(start("echo listening on http://127.0.0.1:5").is_err());
    }
}
