//! Random sequences: groups of every kind of write by few users of few titles, the clock stepping meanwhile, the store
//! disturbed and reopened in between. After each step every read must equal the oracle's.
//!
//! A failure names its seed; `PLAYHEAD_TEST_SEED` set to it repeats the run. `PLAYHEAD_TEST_SEQUENCES` sets how many
//! are run, for the long form.

use super::bench::{Act, Bench, HOUR, MOVIES, SECOND, Step, USERS, Way};
use super::cases::Open;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use std::time::Duration;

/// Steps of the longest sequence.
const STEPS_MAX: usize = 40;

/// What the sequences of one case are like.
pub(super) struct Plan {
    way: Way,
    retention: Option<Duration>,
}

/// The cases.
pub(super) fn all() -> Vec<(&'static str, Plan)> {
    // A store may drop a row for good once it is past its retention, so that clock only goes forwards.
    let hour = Some(Duration::from_micros(HOUR.unsigned_abs()));
    vec![
        ("random sequences by lane", Plan { way: Way::Lane, retention: None }),
        ("random sequences by handle", Plan { way: Way::Handle, retention: None }),
        ("random sequences with retention", Plan { way: Way::Handle, retention: hour }),
    ]
}

/// Runs `count` sequences, unless the environment asks for another number of them.
///
/// # Errors
/// The shortest sequence found that fails, and the seed.
pub(super) fn run(plan: &Plan, count: u32, open: Open<'_>) -> Result<(), String> {
    let seed = match std::env::var("PLAYHEAD_TEST_SEED") {
        Ok(text) => text.parse().expect("PLAYHEAD_TEST_SEED is a number"),
        Err(_) => fastrand::u64(..),
    };
    let count = match std::env::var("PLAYHEAD_TEST_SEQUENCES") {
        Ok(text) if count > 0 => text.parse().expect("PLAYHEAD_TEST_SEQUENCES is a number"),
        _ => count,
    };
    let mut seed_bytes = [0; 32];
    seed_bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed_bytes);
    let config = Config { cases: count, failure_persistence: None, max_shrink_iters: 1_000, ..Config::default() };
    let outcome = TestRunner::new_with_rng(config, rng).run(&steps(plan), |steps| {
        let mut bench = Bench::open(open, plan.way, plan.retention);
        for (index, step) in steps.iter().enumerate() {
            let outcome = bench.step(step).and_then(|()| bench.compare());
            outcome.map_err(|reason| TestCaseError::fail(format!("after step {index}: {reason}")))?;
        }
        bench.compare_scan().map_err(|reason| TestCaseError::fail(format!("in the end: {reason}")))
    });
    outcome.map_err(|error| format!("PLAYHEAD_TEST_SEED={seed}: {error}"))
}

fn steps(plan: &Plan) -> impl Strategy<Value = Vec<Step>> + use<> {
    let clock = if plan.retention.is_some() {
        prop_oneof![0..=3i64, 0..=HOUR / 2].boxed()
    } else {
        prop_oneof![-3..=3i64, -HOUR..=HOUR].boxed()
    };
    let group = prop::collection::vec(act(), 1..6);
    let groups = prop::collection::vec(prop::collection::vec(act(), 1..4), 2..5);
    let step = prop_oneof![
        10 => group.prop_map(Step::Group),
        2 => groups.prop_map(Step::AtOnce),
        4 => clock.prop_map(Step::Clock),
        3 => (0..8u32).prop_map(Step::Disturb),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..STEPS_MAX)
}

fn act() -> impl Strategy<Value = Act> {
    let ids = (prop::sample::select(USERS.to_vec()), prop::sample::select(MOVIES.to_vec()));
    let seconds = (0..20u32).prop_map(f64::from);
    let length = prop_oneof![Just(0.0), (1..4u32).prop_map(f64::from)];
    let age = prop_oneof![0..8u64, 0..2 * HOUR.unsigned_abs()];
    // Mostly close to the newest write time, so that ties with rows and barriers happen.
    let after_newest = prop_oneof![4 => -8..=2i64, 1 => -HOUR..=SECOND];
    (ids, seconds, length, age, after_newest, 0..20u32).prop_map(
        |((user, movie), seconds, length, age, after, kind)| match kind {
            0..6 => Act::Live(user, movie, seconds),
            6..9 => Act::LiveOf(user, movie, seconds, length),
            9..13 => Act::Late(user, movie, seconds, age),
            13..16 => Act::Import(user, movie, seconds, length, after),
            16..19 => Act::Forget(user, movie),
            _ => Act::Erase(user),
        },
    )
}
