//! A clock of the wall for one process, that a file sets while it runs.
//!
//! The library of `faketime` without its program: that one starts a child and waits, so a server that is killed through it
//! would live on.

use crate::process::{Launch, skip};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) struct Clock {
    file: PathBuf,
    wrapper: Vec<String>,
}

impl Clock {
    /// `None`, and the test is skipped, where there is no such thing.
    pub(crate) fn new(test: &str, directory: &Path) -> Option<Self> {
        let output = Command::new("faketime").args(["-f", "+0", "printenv", "LD_PRELOAD"]).output();
        let Ok(output) = output.map_err(|_| skip(test, "needs faketime")) else { return None };
        let library = String::from_utf8(output.stdout).unwrap();
        let file = directory.join("clock");
        let variables = [
            format!("LD_PRELOAD={}", library.trim()),
            format!("FAKETIME_TIMESTAMP_FILE={}", file.display()),
            "FAKETIME_NO_CACHE=1".to_owned(),
            // Only the clock of the wall jumps.
            "DONT_FAKE_MONOTONIC=1".to_owned(),
        ];
        let clock = Self { file, wrapper: ["env".to_owned()].into_iter().chain(variables).collect() };
        clock.set(0);
        Some(clock)
    }

    /// So many seconds ahead of the true time.
    pub(crate) fn set(&self, seconds: i64) {
        // In one step: it is read at any time.
        let new = self.file.with_extension("new");
        fs::write(&new, format!("{seconds:+}s\n")).unwrap();
        fs::rename(new, &self.file).unwrap();
    }

    /// The same launch, by this clock.
    pub(crate) fn on(&self, launch: &Launch) -> Launch {
        let wrapper: Vec<_> = self.wrapper.iter().map(String::as_str).collect();
        launch.clone().under(&wrapper)
    }
}
