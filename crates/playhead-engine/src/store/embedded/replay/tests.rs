//! Replay against a table that one thread filled.

use super::*;
use crate::store::embedded::testing::{erase, forget, late, put};

/// A table filled by replay, and one filled in order by this thread.
fn check(records: &[Record]) {
    let (replayed, in_order) = (Memtable::new(), Memtable::new());
    on_all_cores(&replayed, |replay| records.iter().for_each(|record| replay.apply(record)));
    records.iter().for_each(|record| in_order.apply(record));
    assert!(replayed.sorted().eq(in_order.sorted()), "{} records", records.len());
    assert_eq!((replayed.entries(), replayed.bytes()), (in_order.entries(), in_order.bytes()));
}

/// Beats of some users and titles whose write times rise, with now and then a late one, a forgotten or an erased one.
fn records(count: u64, seed: u64) -> Vec<Record> {
    let mut random = fastrand::Rng::with_seed(seed);
    let one = |micros| {
        let (user, movie) = (random.i64(-3_000..3_000), random.i64(0..4));
        match random.u8(0..40) {
            0 => late(user, movie, 2.0, random.u64(1..=micros)),
            1 => forget(user, movie, micros),
            2 => erase(user, micros),
            _ => put(user, movie, 1.0, micros),
        }
    };
    (1..=count).map(one).collect()
}

#[test]
fn a_table_replayed_on_all_cores_is_the_one_that_was_filled_in_order() {
    for (seed, count) in [0, 1, 100, BATCH_RECORDS as u64, 200_000].into_iter().enumerate() {
        check(&records(count, seed as u64));
    }
}

#[test]
fn one_user_alone_is_replayed_in_order() {
    let beats: Vec<_> =
        (1..100_000).map(|micros| put(7, 1, f64::from(u32::try_from(micros).unwrap()), micros)).collect();
    check(&beats);
}
