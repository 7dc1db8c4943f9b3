//! Walks against the oracle: whatever lies in the base and whatever in memory, a walk gives what the model knows.

use super::super::base::Mark;
use super::super::testing::{
    START, erase, forget, late, mostly_on_the_model, on_both_bases, options, put, start_clock,
};
use super::*;
use crate::store::embedded::drain::drain;
use crate::store::memory::Model;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

fn any_record() -> impl Strategy<Value = Record> {
    let ids =
        (prop::sample::select(vec![i64::MIN, -1, 0, i64::MAX]), prop::sample::select(vec![i64::MIN, 0, i64::MAX]));
    (ids, 0..4u32, 1..40u64, 0..10u32).prop_map(|((user, movie), seconds, micros, kind)| {
        let at = START + micros;
        match kind {
            0..6 => late(user, movie, f64::from(seconds), at),
            6..9 => forget(user, movie, at),
            _ => erase(user, at),
        }
    })
}

#[test]
fn a_walk_gives_base_and_table_as_one() {
    let clock = start_clock();
    let groups = prop::collection::vec(prop::collection::vec(any_record(), 0..12), 1..5);
    let mut runner = TestRunner::new(Config { cases: 200, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&groups, |groups| {
        let case = |base: Base| {
            let mut model = Model::default();
            // Above every late one: a live write is newer than all that there is.
            let mut at = START + 100;
            for (sequence, group) in groups.iter().enumerate() {
                let table = Memtable::new();
                for record in group {
                    at += 1;
                    let mut record = *record;
                    let stays_late = record.kind == RecordKind::LatePut && record.row.write_time.micros() % 2 == 0;
                    if !stays_late {
                        if record.kind == RecordKind::LatePut {
                            record.kind = RecordKind::Put;
                        }
                        record.row.write_time = WriteTime::from_micros(at);
                    }
                    model.apply(&record);
                    table.apply(&record);
                }
                let walk = |table: &Memtable, from: UserId| -> Vec<Record> {
                    records(&base, table, clock.now(), from).unwrap().collect::<Result<_, _>>().unwrap()
                };
                let check = |table: &Memtable, when: &str| {
                    let expected = model.records();
                    assert_eq!(walk(table, UserId(i64::MIN)), expected, "{when} of group {sequence}");
                    let Some(amid) = expected.get(expected.len() / 2).map(|record| record.user) else { return };
                    let rest: Vec<_> = expected.into_iter().filter(|record| record.user >= amid).collect();
                    assert_eq!(walk(table, amid), rest, "{when} of group {sequence}, from user {amid} on");
                };
                check(&table, "before the drain");
                let mark = Mark { store_id: [7; 16], sequence: sequence as u64 + 1, newest: None, version: 1 };
                drain(&table, &base, &mark, clock.now(), &[]).unwrap();
                check(&Memtable::new(), "after the drain");
            }
        };
        mostly_on_the_model(&options(&clock), case);
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn what_has_expired_is_left_out() {
    let clock = start_clock();
    let options = crate::store::embedded::base::BaseOptions {
        retention: Some(Duration::from_secs(60)),
        barrier_life: Duration::from_secs(60),
        ..options(&clock)
    };
    on_both_bases(&options, |base| {
        let table = Memtable::new();
        for record in [put(1, 1, 5.0, START), forget(1, 2, START), erase(2, START), put(3, 1, 5.0, START + 50_000_000)]
        {
            table.apply(&record);
        }
        let at = |seconds: u64| WriteTime::from_micros(START + seconds * 1_000_000);
        let count = |now| records(&base, &table, now, UserId(i64::MIN)).unwrap().map(Result::unwrap).count();
        assert_eq!((count(at(59)), count(at(61)), count(at(111))), (4, 1, 0));
        let mark = Mark { store_id: [7; 16], sequence: 1, newest: None, version: 1 };
        drain(&table, &base, &mark, at(0), &[]).unwrap();
        let count = |now| records(&base, &Memtable::new(), now, UserId(i64::MIN)).unwrap().map(Result::unwrap).count();
        assert_eq!((count(at(59)), count(at(61)), count(at(111))), (4, 1, 0));
    });
}
