//! Throttles: how often one user may ask, over all connections and workers of this process.
//!
//! Asked by [`crate::worker`] for writes with a body and by [`crate::routes`] for all else, as soon as the token has said
//! who it is: what is refused costs no more than that.
//!
//! **The promise.** Of one user, `burst` requests may come at once and `per_second` for long; what is beyond is
//! [`Problem::RateLimited`] with the seconds after which one more is let through, and does not count. A user who keeps
//! within it is never refused for what another does, but for a collision of 36 bits of a keyed hash.
//!
//! **How.** GCRA: all that is known of a user is one moment, up to which what was let through has used the rate up. A
//! request moves it on by one interval, and is refused if that would put it more than `burst` intervals ahead of now.
//! Who asks once in four seconds at ten a second is ahead for a tenth of a second; then nothing need be known.
//!
//! **The limits.** [`SLOTS`] words of memory for each throttle, whatever the number of users. A slot holds one user at a
//! time. If two are ahead at once and share it, the one further ahead keeps it and the other is let through uncounted: a
//! collision never refuses, and who asks too much is the one who is seen.
//!
//! **What it costs.** One word of memory that all workers share, changed by compare-and-swap: no lock, no allocation.
//! It is the one thing on the way of a heartbeat that is shared between workers, since a user's connections may lie on
//! different ones.

use crate::problem::Problem;
use playhead_core::UserId;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// The highest rate: an interval must be a whole number of ticks.
pub const THROTTLE_PER_SECOND_MAX: u32 = 10_000;

/// The largest burst.
pub const THROTTLE_BURST_MAX: u32 = 1_000_000;

/// Half a mebibyte, which stays in a core's cache. Players come and go in it; what it must tell apart is the users who ask
/// too much at one time.
pub(crate) const SLOTS: usize = 1 << 16;

/// In a slot, the low bits are a moment in ticks since the start, enough for 55 years; the others mark whose it is.
const MOMENT_BITS: u32 = 44;
const MOMENT: u64 = (1 << MOMENT_BITS) - 1;

/// 100 µs each.
const TICKS_PER_SECOND: u64 = 10_000;

/// How often a user may ask; 0 in either is any number.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// For long.
    pub per_second: u32,
    /// At once.
    pub burst: u32,
}

/// What users may do how often.
#[derive(Debug, Clone, Copy)]
pub struct ThrottleLimits {
    /// Any request.
    pub requests: Rate,
    /// Requests that forget, which are requests too.
    pub deletions: Rate,
}

/// The throttles of one server.
pub(crate) struct Throttles {
    pub(crate) requests: Throttle,
    pub(crate) deletions: Throttle,
}

impl Throttles {
    pub(crate) fn new(limits: ThrottleLimits) -> Self {
        Self { requests: Throttle::new(limits.requests), deletions: Throttle::new(limits.deletions) }
    }
}

/// One rate, and who is ahead of it.
pub(crate) struct Throttle {
    interval_ticks: u64,
    burst_ticks: u64,
    start: Instant,
    hasher: RandomState,
    /// None without a rate.
    slots: Box<[AtomicU64]>,
}

impl Throttle {
    /// A throttle that nobody is ahead of.
    fn new(rate: Rate) -> Self {
        let is_on = rate.per_second > 0 && rate.burst > 0;
        let per_second = u64::from(rate.per_second.clamp(1, THROTTLE_PER_SECOND_MAX));
        // Rounded down, in the user's favour.
        let interval_ticks = TICKS_PER_SECOND / per_second;
        Self {
            interval_ticks,
            burst_ticks: interval_ticks * u64::from(rate.burst.min(THROTTLE_BURST_MAX)),
            start: Instant::now(),
            hasher: RandomState::new(),
            slots: (0..if is_on { SLOTS } else { 0 }).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Counts a request of this user at this moment, or refuses it.
    pub(crate) fn take(&self, user: UserId, now: Instant) -> Result<(), Problem> {
        if self.slots.is_empty() {
            return Ok(());
        }
        let hash = self.hasher.hash_one(user.0);
        let mark = hash & !MOMENT;
        let slot = &self.slots[usize::try_from(hash & (SLOTS as u64 - 1)).expect("a slot's number is small")];
        let now = self.ticks(now);
        let mut seen = slot.load(Ordering::Relaxed);
        loop {
            let (is_theirs, moment) = (seen & !MOMENT == mark, seen & MOMENT);
            let next = if is_theirs { moment.max(now) } else { now } + self.interval_ticks;
            if !is_theirs && moment > next {
                return Ok(());
            }
            let ahead = next - now;
            if ahead > self.burst_ticks {
                return Err(Problem::RateLimited { after_seconds: seconds(ahead - self.burst_ticks) });
            }
            match slot.compare_exchange_weak(seen, mark | next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(changed) => seen = changed,
            }
        }
    }

    fn ticks(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.start);
        since.as_secs() * TICKS_PER_SECOND + u64::from(since.subsec_micros()) / (1_000_000 / TICKS_PER_SECOND)
    }
}

/// As many whole seconds as these ticks last.
fn seconds(ticks: u64) -> u32 {
    u32::try_from(ticks.div_ceil(TICKS_PER_SECOND)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn throttle(per_second: u32, burst: u32) -> Throttle {
        Throttle::new(Rate { per_second, burst })
    }

    /// How many of these moments, in milliseconds, let a request of one user through.
    fn taken(throttle: &Throttle, user: i64, moments_ms: impl IntoIterator<Item = u64>) -> usize {
        let at = |ms| throttle.start + Duration::from_millis(ms);
        moments_ms.into_iter().filter(|ms| throttle.take(UserId(user), at(*ms)).is_ok()).count()
    }

    #[test]
    fn a_burst_at_once_and_then_the_rate() {
        let throttle = throttle(10, 100);
        assert_eq!(taken(&throttle, 1, [0; 500]), 100);
        // Refused requests have not counted.
        assert_eq!(taken(&throttle, 1, [99, 100, 100, 199, 200, 200]), 2);
        assert_eq!(taken(&throttle, 1, [1_200; 50]), 10);
        // All of it again, and no more, after a long pause.
        assert_eq!(taken(&throttle, 1, [3_600_000; 500]), 100);
        assert_eq!(taken(&throttle, 2, [0; 500]), 100);
        // A player.
        assert_eq!(taken(&throttle, 3, (0..100_000).map(|beat| beat * 4_000)), 100_000);
    }

    #[test]
    fn the_wait_is_as_long_as_it_takes() {
        let deletions = throttle(1, 20);
        assert_eq!(taken(&deletions, 1, [0; 20]), 20);
        let refusal = |ms| deletions.take(UserId(1), deletions.start + Duration::from_millis(ms)).err();
        for (ms, after_seconds) in [(0, 1), (500, 1), (999, 1)] {
            assert_eq!(refusal(ms), Some(Problem::RateLimited { after_seconds }), "at {ms} ms");
        }
        assert_eq!(refusal(1_000), None);
    }

    #[test]
    fn nought_is_no_throttle_and_takes_no_memory() {
        for (per_second, burst) in [(0, 100), (10, 0), (0, 0)] {
            let throttle = throttle(per_second, burst);
            assert_eq!((taken(&throttle, 1, [0; 1_000]), throttle.slots.len()), (1_000, 0));
        }
    }

    #[test]
    fn the_limits_of_what_may_be_set_fit_a_slot() {
        let largest = throttle(1, THROTTLE_BURST_MAX);
        let fifty_years = Duration::from_secs(50 * 365 * 86_400);
        assert!(largest.ticks(largest.start + fifty_years) + largest.burst_ticks < MOMENT);
        assert_eq!(throttle(THROTTLE_PER_SECOND_MAX, 1).interval_ticks, 1);
        assert_eq!(taken(&largest, 1, [0; 3]), 3);
    }

    #[test]
    fn the_one_further_ahead_keeps_a_slot_and_nobody_is_refused_for_another() {
        let throttle = throttle(10, 100);
        // More users than slots, each once: all are let through.
        let users = i64::try_from(SLOTS).unwrap() * 2;
        assert!((0..users).all(|user| taken(&throttle, user, [0]) == 1));
        // One who asks too much is seen among them.
        assert_eq!(taken(&throttle, -1, [0; 500]), 100);
        assert!((0..users).all(|user| taken(&throttle, user, [0]) == 1));
        assert_eq!(taken(&throttle, -1, [0; 500]), 0);
    }

    #[test]
    fn workers_at_once_let_no_more_through() {
        let throttle = throttle(1, 1_000);
        let taken: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| taken(&throttle, 7, [0; 1_000]))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(taken, 1_000);
    }
}
