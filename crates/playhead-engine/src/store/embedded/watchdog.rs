//! The watchdog: ends a process whose log sync never returns.
//!
//! **The promise.** A sync that lasts more than [`PATIENCE_TICKS`] of the watchdog's own one-second waits fails the
//! store. Its own waits are counted, not the time that has passed: a machine that was paused for an hour is healthy,
//! and the watchdog was paused with it.

use super::stop::Stop;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const TICK: Duration = Duration::from_secs(1);
const PATIENCE_TICKS: u32 = 10;

/// Which sync is under way: odd while one is.
#[derive(Debug, Default)]
pub(crate) struct SyncWatch(AtomicU64);

impl SyncWatch {
    /// Runs a sync under the watchdog's eyes.
    pub(crate) fn watch(&self, sync: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        self.0.fetch_add(1, Ordering::Relaxed);
        let result = sync();
        self.0.fetch_add(1, Ordering::Relaxed);
        result
    }
}

/// The watchdog's thread, until `stop`; calls `fail` once if a sync does not return.
pub(crate) fn run(watch: &SyncWatch, stop: &Stop, fail: impl FnOnce()) {
    let mut seen = 0;
    let mut ticks = 0;
    while !stop.wait(TICK) {
        let now = watch.0.load(Ordering::Relaxed);
        let is_stuck = now % 2 == 1 && now == seen;
        ticks = if is_stuck { ticks + 1 } else { 0 };
        seen = now;
        if ticks > PATIENCE_TICKS {
            return fail();
        }
    }
}
