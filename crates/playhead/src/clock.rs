//! The system's clock, read in this one place.

use playhead_core::{Clock, WriteTime};
use std::time::UNIX_EPOCH;

/// The wall clock of this machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> WriteTime {
        #[expect(clippy::disallowed_methods, reason = "this is the one exception: everyone else asks a Clock")]
        let now = std::time::SystemTime::now();
        // A clock before 1970 is wrong; the earliest write time is as good as any.
        let micros = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
        WriteTime::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }
}

impl SystemClock {
    /// Seconds since the epoch, as tokens count them.
    pub(crate) fn seconds(self) -> u64 {
        self.now().micros() / 1_000_000
    }
}
