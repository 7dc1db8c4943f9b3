//! How many rows may be under way at one node: as many as it works on at the same time, and few that wait there.
//!
//! One window per node, used by [`super::writer`]. A node does not say when it has enough: it queues, every row then
//! waits behind all others, and what was asked for when it hangs is lost time for whoever asked. So rows wait here
//! instead, where they can still go to another node or be refused.
//!
//! **How.** Of `size` rows under way at a latency of `latency`, about `size × (1 − base / latency)` stand in a queue,
//! where `base` is the least latency seen lately. While the window is full, it grows as long as fewer than
//! [`QUEUED_FEW`] queue, and shrinks when more than [`QUEUED_MANY`] do. A failure halves it.
//!
//! **The limits.** [`SIZE_MIN`] to [`SIZE_MAX`]. On the machines it was measured on a node gave its full rate with 16
//! single rows under way, and deeper only added to latency (docs/OPERATING.md); the upper end is for far-away nodes.

use std::time::{Duration, Instant};

pub(super) const SIZE_MIN: usize = 16;
pub(crate) const SIZE_MAX: usize = 1_024;

const QUEUED_FEW: f64 = 12.0;
const QUEUED_MANY: f64 = 36.0;

/// How long the least latency is remembered, at least; twice that at most.
const BASE_KEPT: Duration = Duration::from_secs(5);

/// Failures within this time count as one.
const CUT_AT_MOST_EVERY: Duration = Duration::from_millis(200);

/// The window of one node.
#[derive(Debug)]
pub(super) struct Window {
    size: f64,
    /// The least latency of this period and of the one before, in seconds.
    least: f64,
    least_before: f64,
    period_began: Instant,
    cut_last: Option<Instant>,
}

impl Window {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            size: SIZE_MIN as f64,
            least: f64::INFINITY,
            least_before: f64::INFINITY,
            period_began: now,
            cut_last: None,
        }
    }

    /// Rows that may be under way.
    pub(super) fn size(&self) -> usize {
        // Within the limits, so neither sign nor size can be lost.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "16 to 1,024, see `grow`")]
        let size = self.size as usize;
        size
    }

    /// A row was kept; `is_full` if others waited for its place.
    pub(super) fn kept(&mut self, latency: Duration, is_full: bool, now: Instant) {
        let latency = latency.as_secs_f64().max(1e-6);
        if now.duration_since(self.period_began) > BASE_KEPT {
            self.least_before = self.least;
            self.least = latency;
            self.period_began = now;
        }
        self.least = self.least.min(latency);
        if !is_full {
            return;
        }
        let queued = self.size * (1.0 - self.least.min(self.least_before) / latency);
        if queued < QUEUED_FEW {
            self.grow(1.0 / self.size);
        } else if queued > QUEUED_MANY {
            self.grow(-1.0 / self.size);
        }
    }

    /// A row was not kept, or not in time.
    pub(super) fn failed(&mut self, now: Instant) {
        if self.cut_last.is_none_or(|last| now.duration_since(last) > CUT_AT_MOST_EVERY) {
            self.cut_last = Some(now);
            self.grow(-self.size / 2.0);
        }
    }

    fn grow(&mut self, by: f64) {
        self.size = (self.size + by).clamp(SIZE_MIN as f64, SIZE_MAX as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a node that works on `servers` rows at once, each for `service`, over a line of `distance`, kept full for
    /// so many rows; gives the size the window comes to.
    fn settle(servers: f64, service: Duration, distance: Duration, rows: usize) -> usize {
        let start = Instant::now();
        let mut window = Window::new(start);
        let mut now = start;
        for row in 0..rows {
            // Now and then the node is idle: that is when the least latency shows.
            let depth = if row % 1_000 == 0 { 1.0 } else { window.size };
            // Who is on the line is not in the queue: the node is the limit only once the line is full.
            let latency = (service + distance).max(service.mul_f64(depth / servers));
            now += service.div_f64(servers);
            window.kept(latency, true, now);
        }
        window.size()
    }

    #[test]
    fn a_near_node_gets_few_rows_and_a_far_one_as_many_as_the_line_holds() {
        let near = settle(8.0, Duration::from_micros(300), Duration::ZERO, 200_000);
        assert!((16..64).contains(&near), "{near}");
        // 8 rows every 0.3 ms are 27 a millisecond: a line of 10 ms holds 270 of them.
        let far = settle(8.0, Duration::from_micros(300), Duration::from_millis(10), 2_000_000);
        assert!((200..420).contains(&far), "{far}");
    }

    #[test]
    fn a_failure_halves_the_window_once() {
        let start = Instant::now();
        let mut window = Window::new(start);
        window.grow(200.0);
        let grown = window.size();
        for _ in 0..100 {
            window.failed(start);
        }
        assert_eq!(window.size(), grown / 2);
        for second in 1..10 {
            window.failed(start + Duration::from_secs(second));
        }
        assert_eq!(window.size(), SIZE_MIN);
    }

    #[test]
    fn a_window_that_is_not_full_learns_nothing() {
        let start = Instant::now();
        let mut window = Window::new(start);
        for _ in 0..10_000 {
            window.kept(Duration::from_millis(1), false, start);
        }
        assert_eq!(window.size(), SIZE_MIN);
    }
}
