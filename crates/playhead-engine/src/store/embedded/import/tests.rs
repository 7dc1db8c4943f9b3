//! An import against the oracle: whatever comes, in any order and in any pieces, the base holds what the model knows.

use super::super::base::BaseOptions;
use super::super::memtable::Memtable;
use super::super::scan::records;
use super::super::testing::{
    START, erase, forget, mostly_on_the_model, on_both_bases, on_the_model, options, put, row, start_clock,
};
use super::*;
use crate::conformance::{Caller, TestClock};
use crate::store::memory::Model;
use playhead_core::{Change, Position, Write};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

fn any_record() -> impl Strategy<Value = Record> {
    let ids = (prop::sample::select(vec![i64::MIN, -1, i64::MAX]), prop::sample::select(vec![i64::MIN, 0, i64::MAX]));
    (ids, 0..4u32, 0..3u32, 1..12u64, 0..10u32).prop_map(|((user, movie), seconds, length, micros, kind)| match kind {
        0..6 => {
            let duration = (length > 0).then(|| f64::from(length));
            let row = row(movie, f64::from(seconds), duration, START + micros);
            Record { user: UserId(user), kind: RecordKind::Put, row }
        }
        6..9 => forget(user, movie, START + micros),
        _ => erase(user, START + micros),
    })
}

fn fresh_mark() -> Mark {
    Mark { store_id: [7; 16], sequence: 9, newest: None, version: 1 }
}

fn all(base: &Base, now: WriteTime) -> Vec<Record> {
    records(base, &Memtable::new(), now, UserId(i64::MIN)).unwrap().collect::<Result<_, _>>().unwrap()
}

#[test]
fn any_order_and_any_pieces_give_what_the_model_knows_and_again_nothing() {
    let clock = start_clock();
    let pieces = prop::collection::vec(prop::collection::vec(any_record(), 1..10), 1..6);
    let mut runner = TestRunner::new(Config { cases: 300, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&pieces, |pieces| {
        let case = |base: Base| {
            let (mut mark, mut model) = (fresh_mark(), Model::default());
            for piece in &pieces {
                piece.iter().for_each(|record| model.apply(record));
                add(&base, &mut mark, piece.clone(), clock.now()).unwrap();
                assert_eq!(all(&base, clock.now()), model.records());
            }
            for piece in pieces.iter().rev() {
                assert_eq!(add(&base, &mut mark, piece.clone(), clock.now()).unwrap(), 0, "a second time");
            }
            assert_eq!(all(&base, clock.now()), model.records());
            assert_eq!((mark.store_id, mark.sequence), ([7; 16], 9), "the log goes on where it was");
            // What is walked over is itself an export: it makes another store of the same contents.
            let exported = all(&base, clock.now());
            on_the_model(&options(&clock), |copy| {
                let changed = add(&copy, &mut fresh_mark(), exported.clone(), clock.now()).unwrap();
                assert_eq!(changed, exported.len() as u64);
                assert_eq!(all(&copy, clock.now()), exported);
            });
        };
        mostly_on_the_model(&options(&clock), case);
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn what_has_expired_is_not_taken_but_still_takes_away() {
    let clock = start_clock();
    let life = Duration::from_secs(60);
    let at = |seconds: u64| WriteTime::from_micros(START + seconds * 1_000_000);
    let rows_expire = BaseOptions { retention: Some(life), ..options(&clock) };
    on_both_bases(&rows_expire, |base| {
        let old = vec![put(1, 1, 5.0, START)];
        assert_eq!(add(&base, &mut fresh_mark(), old.clone(), at(61)).unwrap(), 0);
        assert_eq!(add(&base, &mut fresh_mark(), old, at(59)).unwrap(), 1);
    });
    let barriers_expire = BaseOptions { barrier_life: life, ..options(&clock) };
    on_both_bases(&barriers_expire, |base| {
        let mut mark = fresh_mark();
        let rows = vec![put(1, 1, 5.0, START), put(2, 1, 5.0, START), put(2, 2, 5.0, START + 9_000_000)];
        assert_eq!(add(&base, &mut mark, rows, at(1)).unwrap(), 3);
        // Too old to be kept as barriers; what they were about is gone all the same.
        let barriers = vec![forget(1, 1, START + 1), erase(2, START + 1), erase(3, START)];
        assert_eq!(add(&base, &mut mark, barriers.clone(), at(62)).unwrap(), 2);
        assert_eq!(add(&base, &mut mark, barriers, at(62)).unwrap(), 0);
        assert_eq!(all(&base, at(62)), [put(2, 2, 5.0, START + 9_000_000)]);
    });
}

#[test]
fn a_store_goes_on_above_what_was_imported() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(TestClock::at_micros(START));
    let options = || EmbeddedOptions {
        segment_bytes: 64 << 10,
        disk_reserve_bytes: 0,
        commit_window: Duration::ZERO,
        ..EmbeddedOptions::at(directory.path().join("data"))
    };
    let open = || Arc::new(Embedded::open(options(), clock.clone()).unwrap());
    let live = |seconds| Write {
        user: UserId(1),
        change: Change::Put { movie: MovieId(1), position: Position::from_seconds(seconds).unwrap(), duration: None },
    };
    let position = |caller: &Caller| caller.bookmark(UserId(1), MovieId(1)).unwrap().map(|row| row.position.seconds());

    // A log that was never drained, and a store that was killed: its records come first.
    let store = open();
    assert_eq!(Caller::of(store.clone()).each(&[live(3.0)]), [Ok(())]);
    let refused = Import::open(options(), clock.clone()).err().unwrap();
    assert!(refused.to_string().contains("in use by another process"), "{refused}");
    drop(store);
    let ahead = START + 3_600_000_000;
    let mut import = Import::open(options(), clock.clone()).unwrap();
    assert_eq!(import.add(vec![put(1, 1, 50.0, ahead), put(1, 1, 40.0, START - 5)]).unwrap(), 1);
    assert_eq!(import.add(vec![put(1, 1, 50.0, ahead), put(1, 1, 40.0, START - 5)]).unwrap(), 0);
    drop(import);

    let store = open();
    let caller = Caller::of(store.clone());
    assert_eq!(position(&caller), Some(50.0));
    assert_eq!(caller.each(&[live(7.0)]), [Ok(())]);
    assert_eq!(position(&caller), Some(7.0), "a live write is newer than anything imported");
    drop((caller, store));
    let full = EmbeddedOptions { disk_reserve_bytes: u64::MAX, ..options() };
    let mut import = Import::open(full, clock.clone()).unwrap();
    assert!(matches!(import.add(vec![put(2, 1, 1.0, START)]), Err(ImportError::NoSpace { .. })));
}
