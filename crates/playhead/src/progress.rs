//! How long work shows that it goes on: one line on stderr that is written over, if a person watches.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Between two signs of life.
const EVERY: Duration = Duration::from_millis(250);

/// Wider than any line that is said here.
const WIDTH: usize = 78;

pub(crate) struct Progress {
    began: Instant,
    said: Instant,
    is_watched: bool,
    has_said: bool,
}

impl Progress {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self { began: now, said: now, is_watched: std::io::stderr().is_terminal(), has_said: false }
    }

    /// Says how far it is, if it is time to.
    pub(crate) fn at(&mut self, text: impl FnOnce() -> String) {
        if self.is_watched && self.said.elapsed() >= EVERY {
            self.said = Instant::now();
            self.has_said = true;
            eprint!("\r{:WIDTH$}", text());
        }
    }

    /// Makes room for other lines; gives the seconds since the beginning.
    pub(crate) fn end(&mut self) -> f64 {
        if std::mem::take(&mut self.has_said) {
            eprint!("\r{:WIDTH$}\r", "");
        }
        self.began.elapsed().as_secs_f64()
    }
}
