//! Every interleaving of reads against writes, freezes and drains, as far as a model checker gets.
//!
//! `cargo test -p playhead-engine --features model-check --lib model_check`: no other test of the store runs with that
//! feature, for its locks work inside the checker only. A switch of threads may happen at each lock of tables and
//! memtables, and wherever a thread yields.
//!
//! What is checked is that of a register: a read gives what the title was at some moment between the last write that
//! was acknowledged before the read began and the last that had begun when it ended. The controls do one thing in the
//! wrong order each, and the checker must find it.

use super::base::{Base, Expiry, Mark, ModelBase};
use super::drain::drain;
use super::read::{SurplusList, TitlesInMemory, UserInMemory};
use super::tables::Tables;
use super::testing::{START, erase, forget, late, options, put, start_clock};
use crate::store::memory::Model;
use playhead_core::{Bookmark, Clock, MovieId, Record, UserId};
use shuttle::sync::mpsc::channel;
use shuttle::thread;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

const USER: i64 = 1;
const MOVIE: i64 = 2;

/// What is done in which order.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Order {
    Right,
    /// The frozen table is unpublished before its rows are in the base.
    UnpublishFirst,
    /// The base is read before the tables.
    BaseFirst,
    /// The write is acknowledged before the table has it.
    AcknowledgeFirst,
}

/// Puts, late puts, a forget and an erasure of one title; the write times are those a store would give.
fn script() -> Vec<Record> {
    vec![
        put(USER, MOVIE, 1.0, START + 1),
        late(USER, MOVIE, 2.0, START),
        erase(USER, START + 3),
        late(USER, MOVIE, 4.0, START + 2),
        put(USER, MOVIE, 5.0, START + 5),
        forget(USER, MOVIE, START + 6),
        late(USER, MOVIE, 7.0, START + 4),
        put(USER, MOVIE, 8.0, START + 8),
    ]
}

/// What the title is after each number of records.
fn states() -> Vec<Option<Bookmark>> {
    let mut model = Model::default();
    let state = |model: &Model| model.bookmark(UserId(USER), MovieId(MOVIE));
    let mut states = vec![state(&model)];
    for record in script() {
        model.apply(&record);
        states.push(state(&model));
    }
    states
}

struct Scene {
    tables: Tables,
    base: Base,
    begun: AtomicUsize,
    acknowledged: AtomicUsize,
}

fn run(order: Order) {
    let clock = start_clock();
    let scene = Arc::new(Scene {
        tables: Tables::new(),
        base: Base::Model(ModelBase::new(Expiry::new(&options(&clock)))),
        begun: AtomicUsize::new(0),
        acknowledged: AtomicUsize::new(0),
    });
    let (to_drain, frozen_tables) = channel();
    let writer = thread::spawn({
        let scene = Arc::clone(&scene);
        move || {
            for (number, record) in (1..).zip(script()) {
                scene.begun.store(number, SeqCst);
                if order == Order::AcknowledgeFirst {
                    scene.acknowledged.store(number, SeqCst);
                }
                scene.tables.active().apply(&record);
                scene.acknowledged.store(number, SeqCst);
                if let Some(frozen) = scene.tables.freeze() {
                    to_drain.send(frozen).unwrap();
                }
            }
        }
    });
    let drains = thread::spawn({
        let scene = Arc::clone(&scene);
        move || {
            while let Ok(frozen) = frozen_tables.recv() {
                let mark = Mark { store_id: [0; 16], sequence: 1, newest: None, version: 1 };
                if order == Order::UnpublishFirst {
                    let rows = super::memtable::Memtable::new();
                    frozen.sorted().for_each(|(user, entry)| rows.apply(&record_of(user, &entry)));
                    scene.tables.drained(frozen);
                    drain(&rows, &scene.base, &mark, clock.now(), &[]).unwrap();
                } else {
                    drain(&frozen, &scene.base, &mark, clock.now(), &[]).unwrap();
                    scene.tables.drained(frozen);
                }
            }
        }
    });
    let states = states();
    for number in 0..4 {
        let from = scene.acknowledged.load(SeqCst);
        let seen = if number % 2 == 0 || order == Order::BaseFirst { read(&scene, order) } else { list(&scene) };
        let to = scene.begun.load(SeqCst);
        assert!(states[from..=to].contains(&seen), "{seen:?} is none of the states {from} to {to}");
    }
    writer.join().unwrap();
    drains.join().unwrap();
    assert_eq!(read(&scene, Order::Right), states[states.len() - 1]);
}

fn record_of(user: UserId, entry: &super::memtable::Entry) -> Record {
    Record { user, kind: entry.kind(), row: entry.row() }
}

fn read(scene: &Scene, order: Order) -> Option<Bookmark> {
    let filter = scene.base.expiry().filter();
    let of_memory = || TitlesInMemory::of(&scene.tables, UserId(USER), vec![MovieId(MOVIE)]);
    let found = if order == Order::BaseFirst {
        let early = scene.base.user(UserId(USER)).unwrap();
        thread::yield_now();
        let mut found = of_memory();
        found.add_rows(early.erased, early.titles.into_iter().map(|(_, title)| Some(title)));
        found
    } else {
        let mut found = of_memory();
        thread::yield_now();
        if !found.is_settled() {
            found.add_base(&scene.base).unwrap();
        }
        found
    };
    found.bookmarks(&filter)[0]
}

fn list(scene: &Scene) -> Option<Bookmark> {
    let found = UserInMemory::of(&scene.tables, UserId(USER));
    thread::yield_now();
    let base = (!found.is_settled()).then_some(&scene.base);
    let listed = found.list(base, &scene.base.expiry().filter(), &SurplusList::default()).unwrap();
    assert!(listed.len() <= 1);
    listed.first().copied()
}

#[test]
fn no_interleaving_misses_a_write_or_goes_back() {
    shuttle::check_random(|| run(Order::Right), 5_000);
    shuttle::check_pct(|| run(Order::Right), 5_000, 4);
    shuttle::check_dfs(|| run(Order::Right), Some(5_000));
}

fn must_be_found(order: Order) {
    let found = std::panic::catch_unwind(|| shuttle::check_random(move || run(order), 5_000));
    assert!(found.is_err(), "{order:?} went unnoticed: this check proves nothing");
}

#[test]
fn control_unpublishing_first_is_found() {
    must_be_found(Order::UnpublishFirst);
}

#[test]
fn control_reading_the_base_first_is_found() {
    must_be_found(Order::BaseFirst);
}

#[test]
fn control_acknowledging_first_is_found() {
    must_be_found(Order::AcknowledgeFirst);
}
