//! The memtable against the model, its bytes, and its order.

use super::*;
use crate::store::embedded::testing::{EDGES, erase, forget, late, put, row};
use crate::store::memory::Model;
use proptest::prelude::*;

fn any_record() -> impl Strategy<Value = Record> {
    let ids = (prop::sample::select(&EDGES), prop::sample::select(&EDGES));
    let values = (1u64..12, 0.0f64..9.0, prop::option::of(1.0f64..9.0));
    (ids, values, 1u8..=4).prop_map(|((user, movie), (micros, position, duration), kind)| {
        let row = row(movie, position.floor(), duration.map(f64::floor), micros);
        match kind {
            1 => Record { user: UserId(user), kind: RecordKind::Put, row },
            2 => Record { user: UserId(user), kind: RecordKind::LatePut, row },
            3 => forget(user, movie, micros),
            _ => erase(user, micros),
        }
    })
}

/// What a table alone says of a title.
fn bookmark(table: &Memtable, user: UserId, movie: MovieId) -> Option<Bookmark> {
    let copied = table.copy(user, &[movie]);
    let entry = copied.titles.first().filter(|entry| entry.kind() != RecordKind::Forget)?;
    assert!(copied.erased.is_none_or(|erased| entry.write_time() > erased), "barred entries are dropped");
    Some(entry.row())
}

/// Counts anew what the table keeps count of.
fn recount(table: &Memtable) -> (usize, usize) {
    table.shards.iter().fold((0, 0), |(entries, bytes), shard| {
        let shard = lock(shard);
        let users = shard.values().map(User::entries).sum::<usize>();
        let heap = shard.values().map(User::heap_bytes).sum::<usize>();
        (entries + users, bytes + shard.allocation_size() + heap)
    })
}

proptest! {
    #[test]
    fn it_knows_what_the_model_knows_in_whatever_order_records_come(
        records in prop::collection::vec(any_record(), 1..80),
    ) {
        let (table, mut model) = (Memtable::new(), Model::default());
        for record in &records {
            table.apply(record);
            model.apply(record);
        }
        for user in EDGES.map(UserId) {
            for movie in EDGES.map(MovieId) {
                prop_assert_eq!(bookmark(&table, user, movie), model.bookmark(user, movie));
            }
        }
        prop_assert_eq!(recount(&table), (table.entries(), table.bytes()));
        prop_assert_eq!(table.sorted().count(), table.entries());
    }

    #[test]
    fn sorted_is_the_bases_order_and_complete(records in prop::collection::vec(any_record(), 1..80)) {
        let table = Memtable::new();
        records.iter().for_each(|record| table.apply(record));
        let sorted: Vec<_> = table.sorted().collect();
        let places: Vec<_> = sorted
            .iter()
            .map(|(user, entry)| (*user, (entry.kind() != RecordKind::Erase).then_some(entry.movie())))
            .collect();
        prop_assert!(places.is_sorted_by(|a, b| a < b), "{places:?}");
        for user in EDGES.map(UserId) {
            let copied = table.copy_all(user);
            let of_user: Vec<_> = sorted.iter().filter(|(of, _)| *of == user).map(|(_, entry)| *entry).collect();
            let (erasures, titles): (Vec<_>, Vec<_>) =
                of_user.iter().partition(|entry| entry.kind() == RecordKind::Erase);
            prop_assert_eq!(erasures.first().map(Entry::write_time), copied.erased);
            prop_assert_eq!(titles, copied.titles);
        }
    }
}

#[test]
fn an_entry_is_live_if_something_live_lies_below_it() {
    let cases = [
        (vec![late(1, 2, 5.0, 10)], false),
        (vec![late(1, 2, 5.0, 10), late(1, 2, 6.0, 11)], false),
        (vec![put(1, 2, 5.0, 10)], true),
        (vec![put(1, 2, 5.0, 10), late(1, 2, 6.0, 11)], true),
        (vec![late(1, 2, 5.0, 10), put(1, 2, 6.0, 11)], true),
        (vec![put(1, 2, 5.0, 10), late(1, 2, 6.0, 10)], true),
        (vec![forget(1, 2, 10), late(1, 2, 6.0, 11)], true),
        (vec![erase(1, 10), late(1, 2, 6.0, 11)], true),
        (vec![late(1, 2, 6.0, 11), erase(1, 10)], true),
        (vec![late(1, 3, 6.0, 12), late(1, 2, 6.0, 11), erase(1, 10)], true),
        (vec![put(1, 3, 5.0, 10), late(1, 2, 6.0, 11)], false),
    ];
    for (records, is_live) in cases {
        let table = Memtable::new();
        records.iter().for_each(|record| table.apply(record));
        let copied = table.copy(UserId(1), &[MovieId(2)]);
        assert_eq!(copied.titles[0].is_live(), is_live, "{records:?}");
    }
}

#[test]
fn a_user_with_many_titles_is_as_right_as_one_with_few() {
    let titles = 3 * i64::try_from(COPIED_AT_ONCE).unwrap();
    let table = Memtable::new();
    // A step prime to the count visits every title in a scattered order.
    for step in 0..titles {
        table.apply(&put(5, step * 1_009 % titles - 100, 1.0, 10));
    }
    table.apply(&late(5, 0, 7.0, 9));
    table.apply(&put(6, 0, 1.0, 10));
    assert_eq!(recount(&table), (table.entries(), table.bytes()));
    let sorted: Vec<_> = table.sorted().map(|(user, entry)| (user.0, entry.movie().0)).collect();
    let expected: Vec<_> = (-100..titles - 100).map(|movie| (5, movie)).chain([(6, 0)]).collect();
    assert_eq!(sorted, expected);
    assert_eq!(bookmark(&table, UserId(5), MovieId(0)), Some(row(0, 1.0, None, 10)), "the late one was older");

    table.apply(&put(5, 0, 2.0, 12));
    table.apply(&erase(5, 11));
    assert_eq!(table.entries(), 3, "the erasure, the newer title, the other user");
    assert_eq!(recount(&table), (table.entries(), table.bytes()));
    table.apply(&erase(5, 12));
    assert_eq!(table.copy_all(UserId(5)).titles, []);
    assert_eq!(recount(&table), (table.entries(), table.bytes()));
}

#[test]
fn clearing_keeps_the_room_but_not_for_ever() {
    let table = Memtable::new();
    (0..50_000).for_each(|user| table.apply(&put(user, 1, 1.0, 10)));
    let full = table.bytes();
    table.clear();
    assert!(table.is_empty() && table.sorted().next().is_none());
    assert_eq!(table.bytes(), full, "the room is kept");
    table.apply(&put(1, 1, 1.0, 10));
    assert_eq!(table.bytes(), full, "and used again");
    table.clear();
    assert!(table.bytes() < full / 100, "after a table that did not use it, it is given back: {}", table.bytes());
    assert_eq!(recount(&table), (0, table.bytes()));
}

#[test]
fn a_user_with_one_title_costs_what_the_module_says() {
    let table = Memtable::new();
    (0..1_000_000).for_each(|user| table.apply(&put(user, 1, 1.0, 10)));
    let per_user = table.bytes() / 1_000_000;
    assert!((41..=100).contains(&per_user), "{per_user}");
}
