//! The cases with a name. Most are tables of steps and of what must be read afterwards; each table is run by lane and
//! by handle, and again disturbed or reopened after every step, where the store can be.

use super::bench::{Act, Bench, HOUR, MOVIES, SECOND, Step, USERS, Way, put};
use super::{Caller, Setup, Subject};
use crate::store::TITLES_LISTED_MAX;
use crate::{Health, Store, StoreError};
use playhead_core::{Bookmark, MovieId, UserId, Write};
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

pub(super) type Open<'a> = &'a dyn Fn(&Setup) -> Subject;
/// Says what it found wrong, if anything: a panic would print its trace for each flaw that the controls let it find.
type Case = Box<dyn Fn(Open<'_>) -> Result<(), String>>;

const USER: UserId = USERS[1];
const OTHER: UserId = USERS[0];
const A: MovieId = MOVIES[1];
const B: MovieId = MOVIES[2];
const SECOND_US: u64 = SECOND.unsigned_abs();
const HOUR_US: u64 = HOUR.unsigned_abs();
const DAY: i64 = 24 * HOUR;
const DAY_US: u64 = DAY.unsigned_abs();

/// Steps, and the positions that must be read after them.
struct Table {
    name: &'static str,
    retention: Option<Duration>,
    steps: Vec<Step>,
    then: Vec<(UserId, MovieId, Option<f64>)>,
}

/// Every case, in reading order.
pub(super) fn all() -> Vec<(&'static str, Case)> {
    let tables = tables().into_iter().map(|table| {
        let name = table.name;
        let case: Case = Box::new(move |open| table.run(open));
        (name, case)
    });
    let others: [(&'static str, Case); 9] = [
        ("a new store is ready and empty", Box::new(new_is_ready_and_empty)),
        ("point reads keep the order asked for", Box::new(point_reads_keep_the_order_asked_for)),
        ("an empty group is settled", Box::new(an_empty_group_is_settled)),
        ("every write of a large group is settled", Box::new(large_groups)),
        ("groups handed over at once are kept in order", Box::new(groups_at_once)),
        ("a list shows the newest titles up to its bound", Box::new(a_list_has_a_bound)),
        ("what was acknowledged is read at once", Box::new(acknowledged_is_read_at_once)),
        ("a walk gives everything", Box::new(a_walk_gives_everything)),
        ("a closed store refuses", Box::new(a_closed_store_refuses)),
    ];
    tables.chain(others).collect()
}

/// What happens between the steps of a table.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Between {
    Nothing,
    Disturbance,
    Reopening,
}

impl Table {
    fn run(&self, open: Open<'_>) -> Result<(), String> {
        for way in [Way::Lane, Way::Handle] {
            for between in [Between::Nothing, Between::Disturbance, Between::Reopening] {
                self.run_once(open, way, between)
                    .map_err(|reason| format!("by {way:?}, with {between:?} between the steps: {reason}"))?;
            }
        }
        Ok(())
    }

    fn run_once(&self, open: Open<'_>, way: Way, between: Between) -> Result<(), String> {
        let mut bench = Bench::open(open, way, self.retention);
        let possible = match between {
            Between::Nothing => true,
            Between::Disturbance => bench.can_disturb(),
            Between::Reopening => bench.can_reopen(),
        };
        if !possible {
            return Ok(());
        }
        for (index, step) in self.steps.iter().enumerate() {
            bench.step(step)?;
            match between {
                Between::Nothing => {}
                Between::Disturbance => bench.step(&Step::Disturb(u32::try_from(index).unwrap_or(0)))?,
                Between::Reopening => bench.step(&Step::Reopen)?,
            }
            bench.compare().map_err(|reason| format!("after step {index}, {step:?}, {reason}"))?;
        }
        for (user, movie, expected) in &self.then {
            let found = bench.position(*user, *movie)?;
            if found != *expected {
                return Err(format!("title {movie} of user {user} is at {found:?}, not {expected:?}"));
            }
        }
        Ok(())
    }
}

fn table(name: &'static str, steps: &[Step], then: &[(UserId, MovieId, Option<f64>)]) -> Table {
    Table { name, retention: None, steps: steps.to_vec(), then: then.to_vec() }
}

/// A group of one write.
fn one(act: Act) -> Step {
    Step::Group(vec![act])
}

fn tables() -> Vec<Table> {
    let mut tables = order();
    tables.extend(barriers());
    tables.extend(edges());
    tables.extend(retention());
    tables
}

fn order() -> Vec<Table> {
    vec![
        table(
            "the newest heartbeat wins",
            &[one(Act::Live(USER, A, 10.0)), one(Act::Live(USER, A, 5.0))],
            &[(USER, A, Some(5.0))],
        ),
        table(
            "within a group the last heartbeat wins",
            &[Step::Group(vec![Act::Live(USER, A, 10.0), Act::Live(USER, A, 20.0), Act::Live(USER, A, 15.0)])],
            &[(USER, A, Some(15.0))],
        ),
        table(
            "a heartbeat replaces the whole row",
            &[one(Act::LiveOf(USER, A, 10.0, 100.0)), one(Act::Live(USER, A, 20.0))],
            &[(USER, A, Some(20.0))],
        ),
        table(
            "an older late item loses",
            &[one(Act::Live(USER, A, 10.0)), one(Act::Late(USER, A, 99.0, 60 * SECOND_US))],
            &[(USER, A, Some(10.0))],
        ),
        table(
            "a newer late item wins",
            &[one(Act::Live(USER, A, 10.0)), Step::Clock(60 * SECOND), one(Act::Late(USER, A, 99.0, 30 * SECOND_US))],
            &[(USER, A, Some(99.0))],
        ),
        table(
            "late items win by when they happened",
            &[
                one(Act::Late(USER, A, 50.0, 30 * SECOND_US)),
                one(Act::Late(USER, A, 40.0, 60 * SECOND_US)),
                one(Act::Late(USER, B, 40.0, 60 * SECOND_US)),
                one(Act::Late(USER, B, 50.0, 30 * SECOND_US)),
            ],
            &[(USER, A, Some(50.0)), (USER, B, Some(50.0))],
        ),
        table(
            "at a tie each column keeps its greater value",
            &[
                one(Act::Live(USER, A, 10.0)),
                one(Act::Import(USER, A, 3.0, 60.0, 0)),
                one(Act::Live(USER, B, 10.0)),
                one(Act::Import(USER, B, 12.0, 0.0, 0)),
            ],
            &[(USER, A, Some(10.0)), (USER, B, Some(12.0))],
        ),
        table(
            "an import from the future does not stop what comes after",
            &[one(Act::Import(USER, A, 10.0, 0.0, HOUR)), one(Act::Live(USER, A, 20.0))],
            &[(USER, A, Some(20.0))],
        ),
        table(
            "a clock that goes back does not stop what comes after",
            &[
                one(Act::Live(USER, A, 10.0)),
                one(Act::Live(USER, B, 10.0)),
                Step::Clock(-HOUR),
                one(Act::Live(USER, A, 20.0)),
                one(Act::Forget(USER, B)),
            ],
            &[(USER, A, Some(20.0)), (USER, B, None)],
        ),
        table(
            "a list is in order of writing, and by title at equal times",
            &[
                Step::Group(MOVIES.iter().rev().map(|movie| Act::Live(USER, *movie, 1.0)).collect()),
                one(Act::Live(USER, MOVIES[4], 2.0)),
                one(Act::Import(USER, MOVIES[0], 3.0, 0.0, SECOND)),
                one(Act::Import(USER, MOVIES[3], 3.0, 0.0, 0)),
                one(Act::Import(USER, MOVIES[1], 3.0, 0.0, 0)),
            ],
            &[(USER, MOVIES[0], Some(3.0)), (USER, MOVIES[4], Some(2.0))],
        ),
    ]
}

fn barriers() -> Vec<Table> {
    let late = |movie, age| one(Act::Late(USER, movie, 99.0, age));
    vec![
        table(
            "a forgotten title is gone, and no other",
            &[
                Step::Group(vec![Act::Live(USER, A, 1.0), Act::Live(USER, B, 2.0), Act::Live(OTHER, A, 3.0)]),
                one(Act::Forget(USER, A)),
            ],
            &[(USER, A, None), (USER, B, Some(2.0)), (OTHER, A, Some(3.0))],
        ),
        table(
            "a forget bars what happened before it",
            &[one(Act::Live(USER, A, 10.0)), one(Act::Forget(USER, A)), late(A, 1_000), late(A, SECOND_US)],
            &[(USER, A, None)],
        ),
        table(
            "a forget bars a title that was never there",
            &[one(Act::Forget(USER, A)), late(A, SECOND_US)],
            &[(USER, A, None)],
        ),
        table(
            "what happened after a forget is kept",
            &[
                Step::Group(vec![Act::Live(USER, A, 10.0), Act::Live(USER, B, 10.0)]),
                Step::Group(vec![Act::Forget(USER, A), Act::Forget(USER, B)]),
                Step::Clock(10 * SECOND),
                late(A, 5 * SECOND_US),
                one(Act::Live(USER, B, 3.0)),
            ],
            &[(USER, A, Some(99.0)), (USER, B, Some(3.0))],
        ),
        table(
            "at a tie a forget wins",
            &[
                one(Act::Live(USER, A, 10.0)),
                one(Act::Live(USER, B, 10.0)),
                Step::Group(vec![Act::Forget(USER, A)]),
                one(Act::Import(USER, A, 20.0, 0.0, 0)),
                Step::Group(vec![Act::Forget(USER, B)]),
                one(Act::Import(USER, B, 20.0, 0.0, 1)),
            ],
            &[(USER, A, None), (USER, B, Some(20.0))],
        ),
        table(
            "at a tie an erasure wins",
            &[one(Act::Live(USER, A, 10.0)), one(Act::Erase(USER)), one(Act::Import(USER, A, 20.0, 0.0, 0))],
            &[(USER, A, None)],
        ),
        table(
            "an erasure bars every title of its user",
            &[
                Step::Group(vec![Act::Live(USER, A, 10.0), Act::Live(OTHER, A, 10.0)]),
                one(Act::Erase(USER)),
                late(A, SECOND_US),
                late(B, SECOND_US),
            ],
            &[(USER, A, None), (USER, B, None), (OTHER, A, Some(10.0))],
        ),
        table(
            "a newer heartbeat passes an erasure",
            &[one(Act::Live(USER, A, 10.0)), one(Act::Erase(USER)), one(Act::Live(USER, A, 4.0))],
            &[(USER, A, Some(4.0))],
        ),
        table(
            "an erasure leaves a later forget and a later title alone",
            &[
                one(Act::Erase(USER)),
                one(Act::Live(USER, A, 5.0)),
                one(Act::Live(USER, B, 6.0)),
                one(Act::Forget(USER, A)),
                late(A, 1_000),
            ],
            &[(USER, A, None), (USER, B, Some(6.0))],
        ),
        table(
            "a forget before an erasure and one after it",
            &[
                one(Act::Live(USER, A, 5.0)),
                one(Act::Forget(USER, A)),
                one(Act::Erase(USER)),
                Step::Clock(10 * SECOND),
                one(Act::Forget(USER, B)),
                late(A, 5 * SECOND_US),
                late(B, 5 * SECOND_US),
            ],
            &[(USER, A, Some(99.0)), (USER, B, None)],
        ),
        table(
            "within a group barriers lie where they stand",
            &[
                Step::Group(vec![
                    Act::Live(USER, A, 1.0),
                    Act::Live(USER, B, 1.0),
                    Act::Erase(USER),
                    Act::Live(USER, A, 2.0),
                ]),
                Step::Group(vec![Act::Live(OTHER, A, 1.0), Act::Forget(OTHER, A), Act::Live(OTHER, B, 2.0)]),
            ],
            &[(USER, A, Some(2.0)), (USER, B, None), (OTHER, A, None), (OTHER, B, Some(2.0))],
        ),
        table(
            "barriers last as long as an item may be late",
            &[
                Step::Group(vec![Act::Live(USER, A, 1.0), Act::Live(OTHER, A, 1.0)]),
                Step::Group(vec![Act::Forget(USER, A), Act::Erase(OTHER)]),
                Step::Clock(30 * DAY - HOUR),
                late(A, 30 * DAY_US),
                one(Act::Late(OTHER, B, 99.0, 30 * DAY_US)),
                Step::Clock(12 * HOUR),
                // Its write time lies a second before the barriers.
                one(Act::Import(USER, A, 5.0, 0.0, HOUR - SECOND - 30 * DAY)),
            ],
            &[(USER, A, None), (OTHER, A, None), (OTHER, B, None)],
        ),
    ]
}

fn edges() -> Vec<Table> {
    let every = || USERS.iter().flat_map(|user| MOVIES.iter().map(|movie| (*user, *movie)));
    let seconds = |index: usize| f64::from(u32::try_from(index).unwrap_or(0)) + 1.0;
    let fill: Vec<_> =
        every().enumerate().map(|(index, (user, movie))| Act::Live(user, movie, seconds(index))).collect();
    let kept = |gone: fn(UserId, MovieId) -> bool| -> Vec<_> {
        let expect = |(index, (user, movie))| (user, movie, (!gone(user, movie)).then(|| seconds(index)));
        every().enumerate().map(expect).collect()
    };
    vec![
        table("ids at the edges of their range are told apart", &[Step::Group(fill.clone())], &kept(|_, _| false)),
        table(
            "a title at the edge of the range is forgotten alone",
            &[
                Step::Group(fill.clone()),
                one(Act::Forget(USERS[3], MOVIES[4])),
                one(Act::Forget(USERS[2], MOVIES[3])),
                one(Act::Forget(USERS[0], MOVIES[0])),
            ],
            &kept(|user, movie| {
                [(USERS[3], MOVIES[4]), (USERS[2], MOVIES[3]), (USERS[0], MOVIES[0])].contains(&(user, movie))
            }),
        ),
        table(
            "the greatest user is erased alone",
            &[Step::Group(fill.clone()), one(Act::Erase(USERS[3]))],
            &kept(|user, _| user == USERS[3]),
        ),
        table(
            "the least user and user -1 are erased alone",
            &[Step::Group(fill), Step::Group(vec![Act::Erase(USERS[2]), Act::Erase(USERS[0])])],
            &kept(|user, _| user == USERS[2] || user == USERS[0]),
        ),
    ]
}

fn retention() -> Vec<Table> {
    let hour = Some(Duration::from_micros(HOUR_US));
    let retained = |name, steps: &[Step], then: &[_]| Table { retention: hour, ..table(name, steps, then) };
    vec![
        retained(
            "a row is shown for as long as it is retained",
            &[one(Act::Live(USER, A, 1.0)), Step::Clock(HOUR - SECOND)],
            &[(USER, A, Some(1.0))],
        ),
        retained(
            "a row past its retention is not shown",
            &[one(Act::Live(USER, A, 1.0)), one(Act::Live(USER, B, 1.0)), Step::Clock(HOUR + SECOND)],
            &[(USER, A, None), (USER, B, None)],
        ),
        retained(
            "a heartbeat renews a row's retention",
            &[
                one(Act::Live(USER, A, 1.0)),
                one(Act::Live(USER, B, 1.0)),
                Step::Clock(HOUR - SECOND),
                one(Act::Live(USER, A, 2.0)),
                Step::Clock(2 * SECOND),
            ],
            &[(USER, A, Some(2.0)), (USER, B, None)],
        ),
        retained(
            "a late item is retained from when it happened",
            &[
                one(Act::Late(USER, A, 1.0, 2 * HOUR_US)),
                one(Act::Late(USER, B, 1.0, HOUR_US / 2)),
                Step::Clock(HOUR / 4),
            ],
            &[(USER, A, None), (USER, B, Some(1.0))],
        ),
        retained(
            "a title past its retention can be watched anew",
            &[one(Act::Live(USER, A, 1.0)), Step::Clock(2 * HOUR), one(Act::Live(USER, A, 2.0))],
            &[(USER, A, Some(2.0))],
        ),
    ]
}

fn bench(open: Open<'_>, way: Way) -> Bench {
    Bench::open(open, way, None)
}

/// An error that says what was found and what was expected.
fn expect<T: PartialEq + Debug>(what: &str, found: T, expected: T) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{what} is {found:?}, not {expected:?}")) }
}

fn unread(error: StoreError) -> String {
    format!("a read failed: {error}")
}

fn new_is_ready_and_empty(open: Open<'_>) -> Result<(), String> {
    let bench = bench(open, Way::Handle);
    expect("its health", bench.store().condition().health(), Health::Ready)?;
    bench.compare()
}

fn point_reads_keep_the_order_asked_for(open: Open<'_>) -> Result<(), String> {
    let mut bench = bench(open, Way::Handle);
    let row = |found: &Option<Bookmark>| found.map(|bookmark| (bookmark.movie, bookmark.position.seconds()));
    bench.step(&one(Act::Live(USER, A, 1.0)))?;
    bench.step(&Step::Disturb(0))?;
    bench.step(&one(Act::Live(USER, B, 2.0)))?;
    let unknown = MovieId(404);
    let found = bench.caller().bookmarks(USER, &[B, unknown, A, B]).map_err(unread)?;
    let expected = vec![Some((B, 2.0)), None, Some((A, 1.0)), Some((B, 2.0))];
    expect("what was read", found.iter().map(row).collect(), expected)?;
    expect("a read of no title", bench.caller().bookmarks(USER, &[]), Ok(Vec::new()))
}

fn an_empty_group_is_settled(open: Open<'_>) -> Result<(), String> {
    let bench = bench(open, Way::Handle);
    expect("its outcome", bench.caller().whole(&[]), Ok(()))?;
    bench.compare()
}

fn large_groups(open: Open<'_>) -> Result<(), String> {
    // A client's batch has 500 items; a lane cuts its groups itself.
    for (way, count) in [(Way::Handle, 500), (Way::Lane, 1_300)] {
        let mut bench = bench(open, way);
        let acts = (0..count).map(|index| {
            let user = USERS[usize::try_from(index % 4).unwrap_or(0)];
            Act::Live(user, MovieId(i64::from(index / 4)), f64::from(index))
        });
        bench.step(&Step::Group(acts.collect()))?;
        bench.compare()?;
        bench.step(&Step::Disturb(0))?;
        bench.compare()?;
    }
    Ok(())
}

fn groups_at_once(open: Open<'_>) -> Result<(), String> {
    let mut bench = bench(open, Way::Handle);
    let group = |index: u32| vec![Act::Live(USER, A, f64::from(index)), Act::Live(OTHER, B, f64::from(index) + 0.5)];
    for round in 0..5 {
        bench.step(&Step::AtOnce((round * 40..(round + 1) * 40).map(group).collect()))?;
        bench.step(&Step::Disturb(round))?;
        bench.compare()?;
    }
    expect("the last position", bench.position(USER, A)?, Some(199.0))
}

fn a_list_has_a_bound(open: Open<'_>) -> Result<(), String> {
    const SURPLUS: usize = 40;
    let mut bench = bench(open, Way::Handle);
    let titles: Vec<_> = (1..).map(MovieId).take(TITLES_LISTED_MAX + SURPLUS).collect();
    for (index, movies) in titles.chunks(480).enumerate() {
        let writes: Vec<_> = movies.iter().map(|movie| put(USER, *movie, 1.0)).collect();
        bench.commit(&writes)?;
        if index % 8 == 7 {
            bench.step(&Step::Disturb(0))?;
        }
    }
    let expected: Vec<_> = titles[SURPLUS..].iter().rev().copied().collect();
    for round in 0..2 {
        let listed = bench.caller().titles(USER).map_err(unread)?;
        let listed: Vec<_> = listed.iter().map(|bookmark| bookmark.movie).collect();
        if listed != expected {
            let (count, first) = (listed.len(), listed.first());
            return Err(format!("in round {round} the list has {count} titles from {first:?}, not the newest"));
        }
        let sample: Vec<_> = expected.iter().step_by(997).copied().collect();
        let found = bench.caller().bookmarks(USER, &sample).map_err(unread)?;
        expect("that each listed title is found by itself", found.iter().all(Option::is_some), true)?;
        bench.step(&Step::Disturb(1))?;
    }
    Ok(())
}

/// Two writers read back what they have just written, a reader sees no title go back, and all the while the store is
/// disturbed.
fn acknowledged_is_read_at_once(open: Open<'_>) -> Result<(), String> {
    const ROUNDS: u32 = 150;
    let bench = bench(open, Way::Lane);
    let (store, movies) = (bench.store(), [A, B]);
    let at_work = &AtomicUsize::new(2);
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for user in [USER, OTHER] {
            let store = Arc::clone(&store);
            threads.push(scope.spawn(move || {
                // Counted even if it panics, so that the others end.
                let _leaving = Leaving(at_work);
                write_and_read_back(store, user, movies, ROUNDS)
            }));
        }
        let reader = Arc::clone(&store);
        threads.push(scope.spawn(move || watch_positions_rise(reader, movies, at_work)));
        let mut kind = 0;
        while at_work.load(Ordering::SeqCst) > 0 {
            match bench.disturbance() {
                Some(disturb) => disturb(kind),
                None => std::thread::yield_now(),
            }
            kind += 1;
        }
        let outcomes = threads.into_iter().map(|thread| thread.join().map_err(|_| "a thread panicked".to_owned())?);
        outcomes.collect()
    })
}

struct Leaving<'a>(&'a AtomicUsize);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn write_and_read_back(store: Arc<dyn Store>, user: UserId, movies: [MovieId; 2], rounds: u32) -> Result<(), String> {
    let caller = Caller::of(store);
    for round in 1..=rounds {
        let seconds = f64::from(round);
        let writes: Vec<Write> = movies.iter().map(|movie| put(user, *movie, seconds)).collect();
        let outcomes = if round % 2 == 0 { vec![caller.whole(&writes); 2] } else { caller.each(&writes) };
        expect("a pair of outcomes", outcomes, vec![Ok(()); 2])?;
        let seconds_of = |bookmark: &Bookmark| bookmark.position.seconds();
        let found = caller.bookmarks(user, &movies).map_err(unread)?;
        expect("a pair read by title", found.iter().flatten().map(seconds_of).collect(), vec![seconds; 2])?;
        let listed = caller.titles(user).map_err(unread)?;
        expect("a pair read as a list", listed.iter().map(seconds_of).collect(), vec![seconds; 2])?;
    }
    Ok(())
}

fn watch_positions_rise(store: Arc<dyn Store>, movies: [MovieId; 2], at_work: &AtomicUsize) -> Result<(), String> {
    let caller = Caller::of(store);
    let mut last = [0.0; 2];
    while at_work.load(Ordering::SeqCst) > 0 {
        let found = caller.bookmarks(USER, &movies).map_err(unread)?;
        for (last, bookmark) in last.iter_mut().zip(found) {
            let seconds = bookmark.map_or(0.0, |bookmark| bookmark.position.seconds());
            if seconds < *last {
                return Err(format!("a title went back from {last} to {seconds}"));
            }
            *last = seconds;
        }
    }
    Ok(())
}

fn a_walk_gives_everything(open: Open<'_>) -> Result<(), String> {
    let mut bench = bench(open, Way::Lane);
    bench.compare_scan()?;
    let acts = USERS.iter().flat_map(|user| MOVIES.iter().map(|movie| Act::LiveOf(*user, *movie, 5.0, 60.0)));
    bench.step(&Step::Group(acts.collect()))?;
    bench.step(&Step::Disturb(0))?;
    bench.compare_scan()?;
    // What is in memory when it begins is in it too; more than one piece of it.
    let acts = (0..2_500).map(|movie| Act::Live(USER, MovieId(movie), 1.0));
    bench.step(&Step::Group(acts.collect()))?;
    bench.step(&Step::Group(vec![Act::Forget(USER, A), Act::Erase(OTHER), Act::Live(OTHER, B, 2.0)]))?;
    bench.compare_scan()?;
    bench.reopen();
    bench.compare_scan()
}

fn a_closed_store_refuses(open: Open<'_>) -> Result<(), String> {
    let mut bench = bench(open, Way::Handle);
    bench.step(&one(Act::Live(USER, A, 1.0)))?;
    expect("the closing", bench.store().close(), Ok(()))?;
    let writes = [put(USER, A, 2.0), put(USER, B, 2.0)];
    let mut outcomes = bench.caller().each(&writes);
    outcomes.push(bench.caller().whole(&writes));
    if !outcomes.iter().all(|outcome| matches!(outcome, Err(StoreError::Refused(_)))) {
        return Err(format!("a closed store answered {outcomes:?}"));
    }
    // What was refused is not there: now, if a closed store can be read, and after a new start, if there can be one.
    if bench.caller().bookmark(USER, A).is_ok() {
        bench.compare()?;
    }
    if bench.can_reopen() {
        bench.reopen();
        bench.compare()?;
    }
    Ok(())
}
