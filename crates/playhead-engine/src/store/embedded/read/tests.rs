//! Reads against the model while tables freeze and drain, and the bounds of the pool.

use super::*;
use crate::conformance::TestClock;
use crate::store::embedded::base::{Base, BaseOptions, Expiry, Mark, ModelBase};
use crate::store::embedded::drain::drain;
use crate::store::embedded::testing::{EDGES, World, on_both_bases, options, put, put_now, row, start_clock};
use playhead_core::{Change, Clock, Position, Write};
use proptest::prelude::*;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;

#[derive(Debug, Clone)]
enum Step {
    Commit(Write),
    Freeze,
    Ingest,
    Drained,
    Compact,
    Pass(Duration),
}

fn any_change() -> impl Strategy<Value = Change> {
    let movie = || prop::sample::select(&EDGES).prop_map(MovieId);
    let position = || (0u8..6).prop_map(|seconds| Position::from_seconds(f64::from(seconds)).unwrap());
    let age = prop_oneof![Just(Duration::ZERO), (0u64..40).prop_map(Duration::from_micros)];
    // Few write times, and in the middle of those of the live writes: ties are wanted.
    let import = (0u64..60).prop_map(|micros| crate::store::embedded::testing::START - 20 + micros);
    prop_oneof![
        6 => (movie(), position()).prop_map(|(movie, position)| Change::Put { movie, position, duration: None }),
        4 => (movie(), position(), age)
            .prop_map(|(movie, position, age)| Change::LatePut { movie, position, duration: None, age }),
        3 => (movie(), position(), import, prop::option::of(1u8..4)).prop_map(|(movie, position, micros, duration)| {
            Change::Import(row(movie.0, position.seconds(), duration.map(f64::from), micros))
        }),
        2 => movie().prop_map(|movie| Change::Forget { movie }),
        1 => Just(Change::Erase),
    ]
}

fn any_steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    let user = prop::sample::select(&EDGES).prop_map(UserId);
    let step = prop_oneof![
        12 => (user, any_change()).prop_map(|(user, change)| Step::Commit(Write { user, change })),
        2 => Just(Step::Freeze),
        2 => Just(Step::Ingest),
        2 => Just(Step::Drained),
        1 => Just(Step::Compact),
        2 => (1u64..30).prop_map(|micros| Step::Pass(Duration::from_micros(micros))),
    ];
    prop::collection::vec(step, 1..most)
}

/// Carries out the steps and holds every read against the oracle, after each step and at rest.
fn run(clock: Arc<TestClock>, options: &BaseOptions, base: Base, steps: &[Step]) {
    let mut world = World::new(clock, options, base);
    let mut is_ingested = false;
    for step in steps {
        match step {
            Step::Commit(write) => world.commit(write),
            Step::Freeze => world.freeze(),
            Step::Ingest => is_ingested = is_ingested || world.ingest().is_some(),
            Step::Drained if is_ingested => {
                world.drained();
                is_ingested = false;
            }
            Step::Drained => {}
            Step::Compact => world.base.compact(),
            Step::Pass(time) => world.clock.advance(*time),
        }
        world.check();
    }
    // Once for what is frozen, once for what is active: then all rests in the base.
    for _ in 0..2 {
        world.drain();
        world.check();
    }
    assert!(world.tables.active().is_empty() && !world.tables.is_frozen());
}

fn options_with(clock: &Arc<TestClock>, retention: Option<u64>) -> BaseOptions {
    BaseOptions { retention: retention.map(Duration::from_micros), ..options(clock) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn reads_are_the_models_over_the_simulated_base(steps in any_steps(80), retention in prop::option::of(10u64..80)) {
        let clock = start_clock();
        let options = options_with(&clock, retention);
        run(clock, &options, Base::Model(ModelBase::new(Expiry::new(&options))), &steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn reads_are_the_models_over_the_base_on_disk(steps in any_steps(80), retention in prop::option::of(10u64..80)) {
        let clock = start_clock();
        let options = options_with(&clock, retention);
        let directory = TempDir::new().unwrap();
        run(clock, &options, Base::open(&directory.path().join("base"), &options).unwrap(), &steps);
    }
}

fn reader_of(tables: &Arc<Tables>, base: &Arc<Base>) -> (Reader, Arc<StoreMetrics>) {
    let metrics = Arc::<StoreMetrics>::default();
    let reader = Reader::start(Arc::clone(tables), Arc::clone(base), Arc::clone(&metrics), Arc::default()).unwrap();
    (reader, metrics)
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

#[test]
fn the_reader_answers_from_memory_and_base() {
    let clock = start_clock();
    let options = options(&clock);
    on_both_bases(&options, |base| {
        let mut world = World::new(clock.clone(), &options, base);
        (1..=3).for_each(|movie| world.commit(&put_now(9, movie, 1.0)));
        world.drain();
        (3..=4).for_each(|movie| world.commit(&put_now(9, movie, 2.0)));
        let (reader, metrics) = reader_of(&world.tables, &world.base);
        let asked: Vec<_> = [5, 4, 3, 1].map(MovieId).to_vec();
        let expected: Vec<_> = asked.iter().map(|movie| world.model.bookmark(UserId(9), *movie)).collect();
        assert_eq!(wait(reader.bookmarks(UserId(9), asked)), Ok(expected));
        assert_eq!(wait(reader.titles(UserId(9))), Ok(world.model.titles(UserId(9))));
        assert_eq!(wait(reader.bookmarks(UserId(9), vec![])), Ok(vec![]));
        drop(reader);
        assert_eq!((metrics.reads_queued.get(), metrics.base_read_errors.get()), (0, 0));
    });
}

#[test]
fn a_read_of_the_base_that_fails_is_that_request_s() {
    let clock = start_clock();
    let options = options(&clock);
    let model = ModelBase::new(Expiry::new(&options));
    let mut world = World::new(clock, &options, Base::Model(model.clone()));
    world.commit(&put_now(1, 1, 1.0));
    let (reader, metrics) = reader_of(&world.tables, &world.base);
    model.fail_reads(true);
    let unavailable = StoreError::Refused(Refusal::Unavailable);
    assert_eq!(wait(reader.bookmarks(UserId(1), vec![MovieId(1), MovieId(2)])), Err(unavailable));
    assert_eq!(wait(reader.titles(UserId(1))), Err(unavailable));
    assert_eq!(metrics.base_read_errors.get(), 2);
    let in_memory = wait(reader.bookmarks(UserId(1), vec![MovieId(1)])).unwrap();
    assert!(in_memory[0].is_some(), "what memory settles does not ask the base");
    model.fail_reads(false);
    assert_eq!(wait(reader.titles(UserId(1))).map(|titles| titles.len()), Ok(1));
}

#[test]
fn a_full_queue_refuses_and_a_panic_costs_one_read() {
    let clock = start_clock();
    let options = options(&clock);
    let world = World::new(clock, &options, Base::Model(ModelBase::new(Expiry::new(&options))));
    let (reader, metrics) = reader_of(&world.tables, &world.base);
    let lost = reader.on_pool(|_| -> Result<(), BaseError> { panic!("a test's panic") });
    assert_eq!(wait(lost), Err(StoreError::Refused(Refusal::Unavailable)));
    assert_eq!(metrics.base_read_errors.get(), 1);

    // Every thread is held, then the queue is filled.
    let gate = Arc::new(Mutex::new(()));
    let closed = gate.lock().unwrap();
    let started = Arc::new(AtomicU64::new(0));
    let hold = || {
        let (gate, started) = (Arc::clone(&gate), Arc::clone(&started));
        reader.on_pool(move |_| {
            started.fetch_add(1, Ordering::SeqCst);
            drop(gate.lock());
            Ok(())
        })
    };
    let mut held: Vec<_> = (0..READ_THREADS).map(|_| hold()).collect();
    while started.load(Ordering::SeqCst) < READ_THREADS as u64 {
        thread::yield_now();
    }
    held.extend((0..READS_QUEUED_MAX).map(|_| hold()));
    assert_eq!(wait(hold()), Err(StoreError::Refused(Refusal::Busy)));
    assert_eq!(metrics.reads_queued.get(), (READ_THREADS + READS_QUEUED_MAX) as u64);
    drop(closed);
    assert!(held.into_iter().all(|read| wait(read) == Ok(())));
    drop(reader);
    assert_eq!(metrics.reads_queued.get(), 0);
}

#[test]
fn a_list_keeps_the_newest_ten_thousand_and_the_next_drain_drops_the_others() {
    const EXTRA: usize = 10_500;
    let clock = start_clock();
    let options = options(&clock);
    on_both_bases(&options, |base| {
        let mut world = World::new(clock.clone(), &options, base);
        let titles = i64::try_from(TITLES_LISTED_MAX + EXTRA).unwrap();
        // Half of the surplus rests in the base when the list is read, half is still in memory.
        for movie in 0..titles {
            world.commit(&put_now(i64::MAX, movie * 7_919 % titles, 1.0));
            if movie == 5_000 {
                world.drain();
            }
        }
        let expected = world.model.titles(UserId(i64::MAX));
        assert_eq!(expected.len(), TITLES_LISTED_MAX);
        assert_eq!(world.titles(UserId(i64::MAX)), expected);
        let kept = world.surplus.take();
        assert_eq!(kept.len(), EXTRA);
        assert!(kept.is_sorted_by(|a, b| (a.user, a.movie) < (b.user, b.movie)));

        let stored = |world: &World| world.base.user(UserId(i64::MAX)).unwrap().titles.len();
        world.titles(UserId(i64::MAX));
        world.drain();
        assert_eq!(stored(&world), TITLES_LISTED_MAX + EXTRA - 5_001, "those in the base went, those in memory came");
        world.titles(UserId(i64::MAX));
        world.drain();
        assert_eq!(stored(&world), TITLES_LISTED_MAX);
        assert_eq!(world.titles(UserId(i64::MAX)), expected);
        assert_eq!(world.surplus.take(), []);
    });
}

#[test]
fn the_surplus_list_is_bounded() {
    let list = SurplusList::default();
    let rows = |from: i64| (from..from + 60_000).map(|movie| row(movie, 1.0, None, 5)).collect::<Vec<_>>();
    list.add(UserId(1), rows(0));
    list.add(UserId(1), rows(0));
    assert_eq!(list.take().len(), 60_000, "each title once");
    list.add(UserId(1), rows(0));
    list.add(UserId(1), rows(60_000));
    assert_eq!(list.take().len(), SURPLUS_MAX);
}

/// One writer that freezes, one drain, two readers: no read may miss what was acknowledged, or go back.
#[test]
fn reads_while_draining_miss_nothing_and_never_go_back() {
    const USERS: i64 = 20;
    const ROUNDS: u64 = 400;
    let clock = start_clock();
    on_both_bases(&options(&clock), |base| {
        let (tables, base) = (Arc::new(Tables::new()), Arc::new(base));
        let (reader, _) = reader_of(&tables, &base);
        let acknowledged = AtomicU64::new(0);
        let is_over = AtomicBool::new(false);
        let drains = AtomicU64::new(0);
        thread::scope(|scope| {
            let drain_thread = scope.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    let frozen = tables.snapshot().1;
                    let Some(frozen) = frozen else {
                        thread::park_timeout(Duration::from_micros(100));
                        continue;
                    };
                    let mark = Mark { store_id: [1; 16], sequence: 1, newest: None, version: 1 };
                    drain(&frozen, &base, &mark, clock.now(), &[]).unwrap();
                    tables.drained(frozen);
                    drains.fetch_add(1, Ordering::SeqCst);
                }
            });
            let readers = [0, 1].map(|_| {
                scope.spawn(|| {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    let mut seen: Vec<_> = (0..USERS).map(|user| (user, 0.0)).collect();
                    let mut reads = 0u64;
                    while !is_over.load(Ordering::SeqCst) {
                        for (user, seen) in &mut seen {
                            let user = *user;
                            let floor = acknowledged.load(Ordering::SeqCst);
                            let asked = vec![MovieId(user), MovieId(-1)];
                            let found = runtime.block_on(reader.bookmarks(UserId(user), asked)).unwrap();
                            let listed = runtime.block_on(reader.titles(UserId(user))).unwrap();
                            let position = found[0].map_or(0.0, |row| row.position.seconds());
                            let listed = listed.first().map_or(0.0, |row| row.position.seconds());
                            assert!(position >= floor as f64, "user {user}: {position} after {floor}");
                            assert!(position >= *seen, "user {user} went back");
                            assert!(listed >= position, "user {user}: the list went back");
                            *seen = listed;
                            reads += 1;
                        }
                    }
                    reads
                })
            });
            // The writer goes on until there were enough drains and rounds for the readers to meet.
            let mut round = 0;
            while round < ROUNDS || drains.load(Ordering::SeqCst) < 5 {
                round += 1;
                for user in 0..USERS {
                    let micros = clock.now().micros() + round;
                    tables.active().apply(&put(user, user, round as f64, micros));
                }
                acknowledged.store(round, Ordering::SeqCst);
                tables.freeze();
                thread::yield_now();
            }
            is_over.store(true, Ordering::SeqCst);
            drain_thread.join().unwrap();
            let reads: u64 = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
            assert!(reads > 0);
        });
    });
}
