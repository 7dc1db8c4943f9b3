//! Write times of this process: one atomic number for all threads, whatever the wall clock does.
//!
//! **The promise.** A live write's time is above every one that this process has given before and above every one that
//! it was told of ([`Stamps::raise`]): unique and strictly rising, by the rule of [`Stamper`]. Across processes it is
//! the clocks that order writes, to within their skew; [`super::clock`] watches that.
//!
//! **The cost.** A group takes all of its times in one update of the number.

use crate::store::stamp::Stamper;
use playhead_core::{Record, Write, WriteTime};
use std::sync::atomic::{AtomicU64, Ordering};

/// The last write time given or seen; 0 is none.
#[derive(Debug, Default)]
pub(super) struct Stamps(AtomicU64);

impl Stamps {
    /// The records of a group that is carried out now.
    pub(super) fn stamp(&self, now: WriteTime, writes: &[Write]) -> Vec<Record> {
        let mut records = Vec::with_capacity(writes.len());
        let mut known = self.0.load(Ordering::Relaxed);
        loop {
            let mut stamper = Stamper::new((known > 0).then(|| WriteTime::from_micros(known)));
            records.extend(writes.iter().map(|write| stamper.stamp(now, write)));
            let last = stamper.last().map_or(0, WriteTime::micros);
            match self.0.compare_exchange_weak(known, last, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return records,
                Err(newer) => known = newer,
            }
            records.clear();
        }
    }

    /// The last write time given or seen.
    pub(super) fn last(&self) -> Option<WriteTime> {
        let last = self.0.load(Ordering::Relaxed);
        (last > 0).then(|| WriteTime::from_micros(last))
    }

    /// Goes on after this write time.
    pub(super) fn raise(&self, seen: WriteTime) {
        self.0.fetch_max(seen.micros(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use playhead_core::{Change, MovieId, Position, UserId};
    use std::collections::BTreeSet;

    fn put() -> Write {
        let change = Change::Put { movie: MovieId(1), position: Position::ZERO, duration: None };
        Write { user: UserId(1), change }
    }

    fn times(records: &[Record]) -> Vec<u64> {
        records.iter().map(|record| record.row.write_time.micros()).collect()
    }

    #[test]
    fn a_group_takes_times_in_a_row_and_a_clock_that_goes_back_is_passed_over() {
        let stamps = Stamps::default();
        let at = WriteTime::from_micros;
        assert_eq!(times(&stamps.stamp(at(1_000), &[put(), put(), put()])), [1_000, 1_001, 1_002]);
        assert_eq!(times(&stamps.stamp(at(10), &[put()])), [1_003]);
        stamps.raise(at(5_000));
        stamps.raise(at(4_000));
        assert_eq!(times(&stamps.stamp(at(2_000), &[put(), put()])), [5_001, 5_002]);
        assert_eq!(stamps.last(), Some(at(5_002)));
    }

    #[test]
    fn no_time_is_given_twice_by_threads_that_stamp_at_once() {
        let stamps = &Stamps::default();
        let given = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(move || {
                        let groups = (0..500).map(|_| times(&stamps.stamp(WriteTime::from_micros(7), &[put(), put()])));
                        groups.flatten().collect::<Vec<_>>()
                    })
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(given.iter().collect::<BTreeSet<_>>().len(), 4_000);
    }
}
