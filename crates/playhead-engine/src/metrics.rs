//! What is counted: plain atomics, each written by one thread and read when somebody asks.
//!
//! The server's workers use the same [`Counter`] and [`Histogram`] for theirs, and its `metrics.rs` gives every one of
//! them its public name. Nothing here carries a user or a title.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// A number that only grows, or a gauge that is set.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Takes `n` off a gauge.
    pub fn subtract(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    /// Adds to a counter that only the calling thread writes: a load and a store, no locked instruction.
    pub fn add_alone(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed) + n, Ordering::Relaxed);
    }

    /// Sets a gauge.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Raises a gauge of a maximum.
    pub fn raise(&self, value: u64) {
        self.0.fetch_max(value, Ordering::Relaxed);
    }

    /// The value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How often a value fell at or below each power of two; of microseconds for times, of items for sizes.
///
/// Bucket `i` counts values `<= 2^i`; the last takes all above. 2^25 µs is 33 s: nothing here may last longer.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; Histogram::BUCKETS],
    sum: Counter,
}

impl Histogram {
    /// Buckets of a histogram, the one without an upper bound included.
    pub const BUCKETS: usize = 27;

    /// Counts a value; only one thread may.
    pub fn record(&self, value: u64) {
        let exponent = u64::BITS - value.saturating_sub(1).leading_zeros();
        let bucket = (exponent as usize).min(Self::BUCKETS - 1);
        self.buckets[bucket].add_alone(1);
        self.sum.add_alone(value);
    }

    /// Counts a time in microseconds; only one thread may.
    pub fn record_time(&self, time: Duration) {
        self.record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// The sum of all values, and how many fell into each bucket (not cumulated).
    pub fn read(&self) -> (u64, [u64; Self::BUCKETS]) {
        (self.sum.get(), std::array::from_fn(|bucket| self.buckets[bucket].get()))
    }
}

/// What a store counts. Each store fills what it has, and leaves the rest at zero.
#[derive(Debug, Default)]
pub struct StoreMetrics {
    /// Records made durable.
    pub records: Counter,
    /// Frames written to the log.
    pub frames: Counter,
    /// Bytes written to the log, padding included.
    pub log_bytes: Counter,
    /// Records per frame.
    pub frame_records: Histogram,
    /// From taking a frame's first group to its outcome.
    pub commit_time: Histogram,
    /// One fdatasync of the log.
    pub sync_time: Histogram,
    /// The slowest fdatasync so far, in microseconds.
    pub sync_worst_us: Counter,
    /// Writes handed over and not yet taken by the committer.
    pub queued_writes: Counter,
    /// Groups refused, by reason: a queue or the memtable was full.
    pub refused_busy: Counter,
    /// Groups refused for lack of disk space.
    pub refused_no_space: Counter,
    /// Freezes of the memtable.
    pub freezes: Counter,
    /// Drains that have finished.
    pub drains: Counter,
    /// Rows, tombstones and barriers handed to the base.
    pub drained_rows: Counter,
    /// One drain, from the frozen table to its recycled segments.
    pub drain_time: Histogram,
    /// Bytes held by the active memtable.
    pub memtable_bytes: Counter,
    /// Log segments that hold what is not yet in the base.
    pub log_segments: Counter,
    /// Tables in the base's first level: drains wait while they are too many.
    pub base_l0_tables: Counter,
    /// Reads that the base could not answer.
    pub base_read_errors: Counter,
    /// Reads waiting for or running on the reader pool.
    pub reads_queued: Counter,
    /// Writes of which it is not known whether they were stored (cassandra).
    pub unknown_outcomes: Counter,
    /// Statements sent a second time (cassandra).
    pub repeats: Counter,
    /// Rows read that no Playhead has written (cassandra).
    pub foreign_rows: Counter,
    /// How far this machine's clock is ahead of the median of the cluster's, in microseconds (cassandra).
    pub clock_ahead_us: Offset,
}

/// A gauge that may be below zero.
#[derive(Debug, Default)]
pub struct Offset(AtomicI64);

impl Offset {
    /// Sets it.
    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The value.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_in_the_first_bucket_whose_bound_holds_it() {
        let histogram = Histogram::default();
        for (value, bucket) in [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (1 << 25, 25), (u64::MAX / 2, 26)] {
            let before = histogram.read().1[bucket];
            histogram.record(value);
            assert_eq!(histogram.read().1[bucket], before + 1, "{value}");
        }
    }
}
