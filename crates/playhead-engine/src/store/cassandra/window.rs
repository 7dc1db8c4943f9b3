//! How many rows may be under way at one node: as many as it answers in good time.
//!
//! One window per node, used by [`super::writer`]. A node that has many rows at once syncs its commit log once for all of
//! them, so it does more, and each row costs it less, the more are under way. But what waits at a node that hangs is lost
//! time for whoever asked; what waits here can still go to another node, or be refused.
//!
//! **How.** While the window is full, it grows as long as rows are answered within [`SOON`]: at first by one for each of
//! them, so that it doubles; once one was not, by one each time that all of it was answered. It shrinks likewise when rows
//! take longer than [`LATE`]. A failure halves it.
//!
//! **The limits.** [`SIZE_MIN`] to [`SIZE_MAX`]. What was measured is in docs/BENCHMARKS.md.

use std::time::{Duration, Instant};

pub(super) const SIZE_MIN: usize = 16;
pub(crate) const SIZE_MAX: usize = 1_024;

/// Well within a write's deadline, and beyond what a node takes whose cores are all busy: fewer rows at once would cost
/// it more for each, and it would grow slower still.
const SOON: Duration = Duration::from_millis(100);
const LATE: Duration = Duration::from_millis(200);

/// Failures within this time count as one.
const CUT_AT_MOST_EVERY: Duration = Duration::from_millis(200);

/// The window of one node.
#[derive(Debug)]
pub(super) struct Window {
    size: f64,
    /// No row has taken longer than [`SOON`] yet.
    doubles: bool,
    cut_last: Option<Instant>,
}

impl Window {
    pub(super) fn new() -> Self {
        Self { size: SIZE_MIN as f64, doubles: true, cut_last: None }
    }

    /// Rows that may be under way.
    pub(super) fn size(&self) -> usize {
        // Within the limits, so neither sign nor size can be lost.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "16 to 1,024, see `grow`")]
        let size = self.size as usize;
        size
    }

    /// A row was kept; `is_full` if others waited for its place.
    pub(super) fn kept(&mut self, latency: Duration, is_full: bool) {
        let is_soon = latency < SOON;
        self.doubles &= is_soon;
        if latency > LATE {
            self.grow(-1.0 / self.size);
        } else if is_soon && is_full {
            self.grow(if self.doubles { 1.0 } else { 1.0 / self.size });
        }
    }

    /// A row was not kept, or not in time.
    pub(super) fn failed(&mut self, now: Instant) {
        if self.cut_last.is_none_or(|last| now.duration_since(last) > CUT_AT_MOST_EVERY) {
            self.cut_last = Some(now);
            self.doubles = false;
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

    /// A node that answers so many rows a second, over a line that takes `distance`, kept full for so many rows; gives
    /// the size that the window comes to.
    fn settle(rows_per_s: f64, distance: Duration, rows: usize) -> usize {
        let mut window = Window::new();
        for _ in 0..rows {
            let latency = distance + Duration::from_secs_f64(window.size / rows_per_s);
            window.kept(latency, true);
        }
        window.size()
    }

    #[test]
    fn a_node_gets_what_it_answers_in_good_time_however_far_it_is() {
        let near = settle(3_000.0, Duration::ZERO, 2_000_000);
        assert!((299..=301).contains(&near), "{near}");
        let far = settle(3_000.0, Duration::from_millis(40), 2_000_000);
        assert!((179..=181).contains(&far), "{far}");
        assert_eq!(settle(3_000.0, Duration::ZERO, 284), 300, "it doubles at first");
        assert_eq!(settle(50.0, Duration::ZERO, 10_000), SIZE_MIN);
        assert_eq!(settle(1_000_000.0, Duration::ZERO, 2_000_000), SIZE_MAX);
    }

    #[test]
    fn a_node_that_grows_slow_gets_less() {
        let mut window = Window::new();
        window.grow(500.0);
        (0..1_000_000).for_each(|_| window.kept(LATE + Duration::from_millis(1), false));
        assert_eq!(window.size(), SIZE_MIN);
    }

    #[test]
    fn a_failure_halves_the_window_once() {
        let start = Instant::now();
        let mut window = Window::new();
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
    fn a_window_that_is_not_full_does_not_grow() {
        let mut window = Window::new();
        for _ in 0..10_000 {
            window.kept(Duration::from_millis(1), false);
        }
        assert_eq!(window.size(), SIZE_MIN);
    }
}
