//! Drains against the model, on both bases: merging, barriers, expiry, surplus.

use super::*;
use crate::store::embedded::base::BaseUser;
use crate::store::embedded::testing::{
    START, World, erase, forget, late, on_both_bases, options, put, put_now, row, start_clock,
};
use playhead_core::{Change, Record, Write};
use std::time::Duration;

const USER: i64 = 5;

fn mark(sequence: u64) -> Mark {
    Mark { store_id: [1; 16], sequence, newest: None, version: 1 }
}

fn at(micros: u64) -> WriteTime {
    WriteTime::from_micros(micros)
}

fn table_of(records: &[Record]) -> Memtable {
    let table = Memtable::new();
    records.iter().for_each(|record| table.apply(record));
    table
}

/// The base after each of these tables was drained.
fn drain_all(base: &Base, tables: &[&[Record]]) -> Vec<u64> {
    let drain_one = |(number, records): (u64, &&[Record])| {
        drain(&table_of(records), base, &mark(number), at(START), &[]).unwrap().rows
    };
    (1..).zip(tables).map(drain_one).collect()
}

fn shown(user: &BaseUser) -> (Option<u64>, Vec<(i64, &'static str, u64)>) {
    let titles = user.titles.iter().map(|(movie, title)| match title {
        BaseTitle::Row(row) => (movie.0, "row", row.write_time.micros()),
        BaseTitle::Forgotten(write_time) => (movie.0, "forgotten", write_time.micros()),
    });
    (user.erased.map(WriteTime::micros), titles.collect())
}

#[test]
fn what_a_second_table_makes_of_the_first() {
    let t = START;
    type Titles = &'static [(i64, &'static str, u64)];
    type Case<'a> = (&'static str, &'a [Record], &'a [Record], u64, Option<u64>, Titles);
    let cases: &[Case<'_>] = &[
        ("live over row", &[put(USER, 1, 1.0, t)], &[put(USER, 1, 2.0, t + 1)], 1, None, &[(1, "row", START + 1)]),
        ("older late put", &[put(USER, 1, 1.0, t)], &[late(USER, 1, 2.0, t - 1)], 0, None, &[(1, "row", START)]),
        ("newer late put", &[late(USER, 1, 1.0, t)], &[late(USER, 1, 2.0, t + 1)], 1, None, &[(1, "row", START + 1)]),
        (
            "late put below a forget",
            &[forget(USER, 1, t)],
            &[late(USER, 1, 2.0, t)],
            0,
            None,
            &[(1, "forgotten", START)],
        ),
        (
            "late put above a forget",
            &[forget(USER, 1, t)],
            &[late(USER, 1, 2.0, t + 1)],
            1,
            None,
            &[(1, "row", START + 1)],
        ),
        ("late put below an erasure", &[erase(USER, t)], &[late(USER, 1, 2.0, t)], 0, Some(t), &[]),
        (
            "late put above an erasure",
            &[erase(USER, t)],
            &[late(USER, 1, 2.0, t + 1)],
            1,
            Some(t),
            &[(1, "row", START + 1)],
        ),
        ("forget", &[put(USER, 1, 1.0, t)], &[forget(USER, 1, t + 1)], 1, None, &[(1, "forgotten", START + 1)]),
        (
            "erasure over rows and barriers",
            &[put(USER, 1, 1.0, t), forget(USER, 2, t), put(USER, 3, 1.0, t), put(USER, i64::MAX, 1.0, t)],
            &[put(USER, 1, 1.0, t + 1), erase(USER, t + 2), put(USER, 2, 2.0, t + 3), put(USER, 9, 2.0, t + 4)],
            6,
            Some(t + 2),
            &[(2, "row", START + 3), (9, "row", START + 4)],
        ),
        ("a second erasure", &[erase(USER, t)], &[erase(USER, t + 1)], 1, Some(t + 1), &[]),
        ("an erasure of nobody", &[], &[erase(USER, t)], 1, Some(t), &[]),
        (
            "an erasure below what an import brought",
            &[late(USER, 1, 1.0, t + 5)],
            &[erase(USER, t + 1)],
            1,
            Some(t + 1),
            &[(1, "row", START + 5)],
        ),
    ];
    let clock = start_clock();
    for (name, first, second, edits, erased, titles) in cases {
        on_both_bases(&options(&clock), |base| {
            assert_eq!(drain_all(&base, &[first, second])[1], *edits, "edits of: {name}");
            assert_eq!(shown(&base.user(UserId(USER)).unwrap()), (*erased, titles.to_vec()), "{name}");
            assert_eq!(base.mark().unwrap(), Some(mark(2)), "{name}");
            // A neighbour is none of their business.
            assert_eq!(shown(&base.user(UserId(USER + 1)).unwrap()), (None, vec![]), "{name}");
        });
    }
}

#[test]
fn a_tie_keeps_the_greater_value_of_each_column() {
    let clock = start_clock();
    on_both_bases(&options(&clock), |base| {
        let of =
            |position, duration| Record { row: row(1, position, duration, START), ..late(USER, 1, position, START) };
        drain_all(&base, &[&[of(10.0, None)], &[of(3.0, Some(60.0))]]);
        let expected = BaseTitle::Row(row(1, 10.0, Some(60.0), START));
        assert_eq!(base.title(UserId(USER), MovieId(1)).unwrap(), Some(expected));
    });
}

#[test]
fn expired_barriers_are_not_written_but_do_their_work() {
    let clock = start_clock();
    let long_ago = START - 10;
    on_both_bases(&options(&clock), |base| {
        drain_all(&base, &[&[put(1, 1, 1.0, long_ago - 2), erase(2, long_ago - 3), put(2, 1, 1.0, long_ago - 2)]]);
        let table = table_of(&[forget(1, 1, long_ago - 1), erase(2, long_ago - 1), erase(3, long_ago - 1)]);
        // The clock stands a day and more after the barriers.
        let now = at(START + 2 * 86_400_000_000);
        let report = drain(&table, &base, &mark(2), now, &[]).unwrap();
        assert_eq!(report.rows, 3, "the title, the older erasure, the erased title");
        for user in [1, 2, 3].map(UserId) {
            assert_eq!(base.scan(user).unwrap().count(), 0, "{user}");
        }
    });
}

#[test]
fn a_surplus_title_goes_only_if_it_is_still_the_one() {
    let clock = start_clock();
    on_both_bases(&options(&clock), |base| {
        let first = [1, 2, 3, 4].map(|movie| put(USER, movie, 1.0, START));
        let others = [put(i64::MIN, 1, 1.0, START), put(i64::MAX, i64::MAX, 1.0, START), put(7, 1, 1.0, START)];
        drain_all(&base, &[&first, &others, &[put(USER, 2, 1.0, START + 1)]]);
        let surplus: Vec<_> = [(i64::MIN, 1), (USER, 1), (USER, 2), (USER, 3), (USER, 9), (7, 1), (i64::MAX, i64::MAX)]
            .map(|(user, movie)| Surplus { user: UserId(user), movie: MovieId(movie), write_time: at(START) })
            .to_vec();
        // Title 3 is in the table, as a late put that loses; user 7 is erased by the table.
        let table = table_of(&[late(USER, 3, 9.0, START - 1), erase(7, START + 5)]);
        let report = drain(&table, &base, &mark(4), at(START), &surplus).unwrap();
        assert_eq!(report.rows, 5, "the least user, title 1, erasure and title of user 7, the greatest user");
        let titles = vec![(2, "row", START + 1), (3, "row", START), (4, "row", START)];
        assert_eq!(shown(&base.user(UserId(USER)).unwrap()), (None, titles));
        assert_eq!(shown(&base.user(UserId(7)).unwrap()), (Some(START + 5), vec![]));
        for user in [i64::MIN, i64::MAX].map(UserId) {
            assert_eq!(shown(&base.user(user).unwrap()), (None, vec![]));
        }
    });
}

#[test]
fn put_drain_forget_drain_expire_compact_get_none() {
    let day = Duration::from_secs(86_400);
    let clock = start_clock();
    let options = options(&clock);
    on_both_bases(&options, |base| {
        let mut world = World::new(clock.clone(), &options, base);
        let (user, movie) = (UserId(USER), MovieId(1));
        let none_in_all_reads = |world: &World| {
            assert_eq!(world.bookmarks(user, &[movie]), [None]);
            assert_eq!(world.titles(user), []);
        };
        world.commit(&put_now(USER, 1, 5.0));
        world.drain();
        assert!(world.bookmarks(user, &[movie])[0].is_some());
        world.commit(&Write { user, change: Change::Forget { movie } });
        none_in_all_reads(&world);
        world.drain();
        none_in_all_reads(&world);
        clock.advance(2 * day);
        none_in_all_reads(&world);
        for _ in 0..3 {
            world.base.compact();
            none_in_all_reads(&world);
        }
        assert_eq!(world.base.scan(user).unwrap().count(), 0, "nothing of it is left");
        assert_eq!(world.drain().unwrap().rows, 0, "an empty table drains too");
    });
}
