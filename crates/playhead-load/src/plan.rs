//! What a run is to do.

use crate::target::Target;
use std::path::PathBuf;
use std::time::Duration;

/// A run, complete: nothing in it is looked up elsewhere.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where the server is.
    pub target: Target,
    /// How many viewers play at once.
    pub streamers: u32,
    /// From one heartbeat of a streamer to the next.
    pub interval: Duration,
    /// How many connections carry them; as many as streamers: each has its own.
    pub connections: u32,
    /// How long heartbeats are sent.
    pub duration: Duration,
    /// The user of the first streamer; the next ones count down from it.
    pub first_user: i64,
    /// Threads.
    pub workers: u32,
    /// HTTP/2 without negotiation instead of HTTP/1.1.
    pub http2: bool,
    /// A closed loop: each connection sends again as soon as it is answered.
    pub saturate: bool,
    /// Streamers only play: no pause, seek, end or other device.
    pub steady: bool,
    /// What the streamers' behaviour is drawn from.
    pub seed: u64,
    /// How long an answer may take.
    pub patience: Duration,
    /// Titles are numbered from here, so that no run meets the rows of another.
    pub first_title: i64,
    /// Where the ledger is kept; in memory only without it.
    pub ledger: Option<PathBuf>,
}

/// Longer than this no streamer waits, whatever a server says.
pub const REST_MAX: Duration = Duration::from_secs(300);

impl Plan {
    /// The user of the streamer with this number.
    #[must_use]
    pub fn user(&self, streamer: u32) -> i64 {
        self.first_user - i64::from(streamer)
    }

    /// Whether each streamer has a connection of its own.
    #[must_use]
    pub fn is_bound(&self) -> bool {
        self.connections >= self.streamers && !self.saturate
    }

    /// What the plan asks of the server, in heartbeats a second; `None` in a closed loop.
    #[must_use]
    pub fn beats_per_second(&self) -> Option<f64> {
        (!self.saturate).then(|| f64::from(self.streamers) / self.interval.as_secs_f64())
    }

    /// This worker's share of so many things.
    #[must_use]
    pub(crate) fn share(&self, count: u32, worker: u32) -> std::ops::Range<u32> {
        let at = |worker: u32| {
            let at = u64::from(count) * u64::from(worker) / u64::from(self.workers);
            u32::try_from(at).expect("not more than the count")
        };
        at(worker)..at(worker + 1)
    }
}
