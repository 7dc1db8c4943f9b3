//! Child processes with a deadline.
//!
//! Every stage runs its commands through [`run`]; servers under test are [`Running`]. **The promise.** When a call returns, the command and whatever it
//! started in turn have ended, or were ended at the deadline: each by its own process id, parents first, so that
//! nothing else on the machine is touched. Children stay in the caller's process group: Ctrl-C ends them too.

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::HashMap;
use std::fs;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// A point in time after which a child is ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    /// A deadline this far away.
    pub(crate) fn after(time: Duration) -> Self {
        Self(Instant::now() + time)
    }

    /// The earlier of two.
    #[must_use]
    pub(crate) fn at_most(self, time: Duration) -> Self {
        Self(self.0.min(Instant::now() + time))
    }

    /// What is left of it.
    pub(crate) fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}

/// Runs a command to its end with its output shown; anything but success is an error.
pub(crate) fn run(command: &mut Command, deadline: Deadline) -> Result<()> {
    let shown = shown(command);
    eprintln!("$ {shown}");
    let child = command.spawn().with_context(|| format!("can't run `{shown}`"))?;
    let status = Running::watch(child).wait(deadline).with_context(|| format!("`{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` failed ({status})");
    }
    Ok(())
}

/// Runs a short command and gives back what it printed; anything but success is an error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let shown = shown(command);
    let output = command.output().with_context(|| format!("can't run `{shown}`"))?;
    if !output.status.success() {
        bail!("`{shown}` failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{shown}` did not print UTF-8"))
}

/// Whether a short command succeeds, its output unseen.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// A cargo of the same toolchain.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // Set for this crate by the cargo that runs it; wrong for every other.
    for variable in ["CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH", "CARGO_PKG_NAME", "CARGO_PKG_VERSION"] {
        command.env_remove(variable);
    }
    command
}

/// A child that is being waited for.
#[derive(Debug)]
pub(crate) struct Running {
    id: u32,
    ended: Receiver<std::io::Result<ExitStatus>>,
    status: Option<ExitStatus>,
}

impl Running {
    /// Waits for a child in a thread of its own.
    pub(crate) fn watch(mut child: Child) -> Self {
        let (sender, ended) = mpsc::channel();
        let id = child.id();
        // The receiver is gone only if nobody asks any more.
        thread::spawn(move || sender.send(child.wait()));
        Self { id, ended, status: None }
    }

    /// The child's exit status; past the deadline the child and its descendants are ended, and that is an error.
    pub(crate) fn wait(&mut self, deadline: Deadline) -> Result<ExitStatus> {
        if let Some(status) = self.status {
            return Ok(status);
        }
        match self.ended.recv_timeout(deadline.left()) {
            Ok(status) => {
                let status = status.context("can't wait for the process")?;
                self.status = Some(status);
                Ok(status)
            }
            Err(RecvTimeoutError::Timeout) => {
                self.end();
                bail!("took longer than its time limit and was ended")
            }
            Err(RecvTimeoutError::Disconnected) => bail!("the thread that waits for the process is gone"),
        }
    }

    /// Sends SIGINT, as Ctrl-C does.
    pub(crate) fn interrupt(&self) -> Result<()> {
        self.signal(Signal::INT)
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.id)?).context("process ids are positive")?;
        kill_process(pid, signal).with_context(|| format!("can't send {signal:?}"))
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    fn end(&mut self) {
        for id in family(self.id) {
            if let Some(pid) = i32::try_from(id).ok().and_then(Pid::from_raw) {
                // It may have ended by itself meanwhile.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        self.status = self.ended.recv().ok().and_then(Result::ok);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.status.is_none() && matches!(self.ended.try_recv(), Err(mpsc::TryRecvError::Empty)) {
            self.end();
        }
    }
}

/// A process and its descendants, parents first.
pub(crate) fn family(id: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(child) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        if let Some(parent) = parent_of(&stat) {
            children.entry(parent).or_default().push(child);
        }
    }
    let mut family = vec![id];
    let mut next = 0;
    while let Some(member) = family.get(next) {
        family.extend(children.remove(member).unwrap_or_default());
        next += 1;
    }
    family
}

/// The parent in a line of `/proc/<id>/stat`: the second field after the name, which may itself hold parentheses.
fn parent_of(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn shown(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let mut shown = program.to_string_lossy().into_owned();
    for argument in command.get_args() {
        shown.push(' ');
        shown.push_str(&argument.to_string_lossy());
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_past_its_deadline_is_ended_with_its_own_children() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 600 & wait"]);
        let child = command.spawn().unwrap();
        let id = child.id();
        let mut running = Running::watch(child);
        let started = Instant::now();
        while family(id).len() < 2 {
            assert!(started.elapsed() < Duration::from_secs(10), "the shell never started its child");
            thread::yield_now();
        }
        let members = family(id);
        assert!(running.wait(Deadline::after(Duration::ZERO)).is_err());
        for member in members {
            let path = format!("/proc/{member}/stat");
            while fs::read_to_string(&path).is_ok_and(|stat| !stat.contains(") Z ")) {
                assert!(started.elapsed() < Duration::from_secs(20), "process {member} still runs");
                thread::yield_now();
            }
        }
    }

    #[test]
    fn the_parent_is_found_behind_odd_names() {
        assert_eq!(parent_of("12 (a) b) S 7 12 12 0"), Some(7));
        assert_eq!(parent_of("garbage"), None);
    }

    #[test]
    fn failure_is_an_error_that_names_the_command() {
        let error =
            run(Command::new("sh").args(["-c", "exit 3"]), Deadline::after(Duration::from_secs(60))).unwrap_err();
        assert!(error.to_string().contains("sh -c exit 3"), "{error}");
    }
}
