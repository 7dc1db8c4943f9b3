//! A tracer (strace) around the server: it notes system calls in their order, and answers or delays some in the
//! kernel's place.
//!
//! The server stays this process's child, so that signals and exit codes are its own; the tracer runs beside it and ends
//! with it.

use crate::process::{eventually, skip};
use std::collections::HashMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// One system call, or one end of a thread.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Call {
    pub(crate) thread: u32,
    /// The places of its beginning and its end in the trace: of two calls, one came first if it ended before the other
    /// began.
    pub(crate) begun: usize,
    pub(crate) ended: usize,
    /// When it began, in seconds.
    pub(crate) time: f64,
    /// The call, its arguments and its result. Descriptors are followed by their paths.
    pub(crate) text: String,
}

impl Call {
    pub(crate) fn is(&self, names: &[&str]) -> bool {
        self.text.split_once('(').is_some_and(|(name, _)| names.contains(&name))
    }

    /// Whether the tracer answered it with an error.
    pub(crate) fn is_injected(&self) -> bool {
        self.text.ends_with("(INJECTED)")
    }

    pub(crate) fn is_end(&self) -> bool {
        self.text.starts_with("+++ ")
    }
}

/// Whether there is a tracer and it may trace; else the test is skipped.
pub(crate) fn is_possible(test: &str) -> bool {
    let probe = Command::new("strace").args(["-D", "-qq", "-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
    let works = probe.is_ok_and(|status| status.success());
    if !works {
        skip(test, "needs strace, and leave to trace");
    }
    works
}

/// A trace that is being written.
pub(crate) struct Trace {
    file: PathBuf,
}

impl Trace {
    pub(crate) fn to(file: PathBuf) -> Self {
        Self { file }
    }

    /// The words before the server's: a tracer with these arguments.
    pub(crate) fn words<'a>(&'a self, arguments: &[&'a str]) -> Vec<&'a str> {
        let file = self.file.to_str().unwrap();
        [&["strace", "-D", "-f", "-y", "-ttt", "-s", "24", "-o", file][..], arguments].concat()
    }

    /// All of it, once the server has ended.
    pub(crate) fn read(&self) -> Vec<Call> {
        let mut calls = Vec::new();
        eventually("the tracer has written down every thread's end", || {
            calls = self.so_far();
            let mut ended: HashMap<u32, bool> = HashMap::new();
            for call in &calls {
                ended.insert(call.thread, call.is_end());
            }
            !ended.is_empty() && ended.values().all(|ended| *ended)
        });
        calls
    }

    /// What was written down until now.
    pub(crate) fn so_far(&self) -> Vec<Call> {
        parse(&std::fs::read_to_string(&self.file).unwrap())
    }
}

fn parse(trace: &str) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    let mut unfinished: HashMap<u32, usize> = HashMap::new();
    for (place, line) in trace.lines().enumerate() {
        let Some((thread, time, text)) = parts(line) else { continue };
        if let Some(begun) = text.strip_suffix(" <unfinished ...>") {
            unfinished.insert(thread, calls.len());
            calls.push(Call { thread, begun: place, ended: usize::MAX, time, text: begun.to_owned() });
        } else if let Some((_, end)) = text.strip_prefix("<... ").and_then(|rest| rest.split_once(" resumed>")) {
            if let Some(at) = unfinished.remove(&thread) {
                calls[at].text.push_str(end);
                calls[at].ended = place;
            }
        } else {
            calls.push(Call { thread, begun: place, ended: place, time, text: text.to_owned() });
        }
    }
    calls
}

/// A line: which thread, when, and what.
fn parts(line: &str) -> Option<(u32, f64, &str)> {
    let (thread, rest) = line.trim_start().split_once(' ')?;
    let (time, text) = rest.trim_start().split_once(' ')?;
    Some((thread.parse().ok()?, time.parse().ok()?, text.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_others_interrupt_is_put_together() {
        let calls = parse(
            "7 1.5 fdatasync(3</a/log/1> <unfinished ...>\n8 1.6 read(4, \"x\", 1) = 1\n\
             7 1.7 <... fdatasync resumed>) = -1 EIO (Input/output error) (INJECTED)\n7 1.8 +++ exited with 1 +++\n",
        );
        let texts: Vec<_> =
            calls.iter().map(|call| (call.thread, call.begun, call.ended, call.text.as_str())).collect();
        assert_eq!(
            texts,
            [
                (7, 0, 2, "fdatasync(3</a/log/1>) = -1 EIO (Input/output error) (INJECTED)"),
                (8, 1, 1, "read(4, \"x\", 1) = 1"),
                (7, 3, 3, "+++ exited with 1 +++"),
            ]
        );
        assert!(calls[0].is(&["fdatasync"]) && calls[0].is_injected() && !calls[1].is_injected() && calls[2].is_end());
    }
}
