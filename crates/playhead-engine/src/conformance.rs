//! One suite for every store that keeps something.
//!
//! A store's tests call [`run`] with a way to open it. The suite writes through the same lanes and handles that the
//! server uses, waits for every outcome, and compares every read with the oracle: [`Model`] and [`Stamper`], fed the
//! same writes at the same readings of a hand-set clock.
//!
//! **What it holds a store to.** Newest wins, ties included; a forget and an erase bar what is older; lists are in
//! order and agree with point reads; a walk gives everything; ids at the edges of their range; retention; what was
//! acknowledged is read at once; groups are settled, and refused once the store is closed. First by cases with a name (`cases`), each of
//! them by lane and by handle, undisturbed, disturbed and reopened after every step; then by random sequences of all
//! of it (`sequences`), shrunk to the shortest that fails.
//!
//! **What it asks of a store.** It may read the clock as often as it likes: the clock stands still while a group is
//! under way. It must order groups by their arrival. Write times are compared to the microsecond, across a reopening
//! too: the suite puts a live write before each, since the newest write time that a store can find again is that of a
//! record, and a late item's record carries an older one.
//!
//! **What it leaves out.** Crashes, damage and a disk that fails, which differ from store to store; write times near
//! [`WriteTime::MAX`](playhead_core::WriteTime::MAX), where "the next microsecond" ends.
//!
//! [`Model`]: crate::store::memory::Model
//! [`Stamper`]: crate::store::stamp::Stamper

mod bench;
mod caller;
mod cases;
#[cfg(test)]
mod controls;
mod sequences;

pub use caller::{Caller, TestClock};

use crate::Store;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// What a store is to be opened with.
#[derive(Clone)]
pub struct Setup {
    /// The clock that the suite sets.
    pub clock: Arc<TestClock>,
    /// Rows older than this are not shown.
    pub retention: Option<Duration>,
    /// How late an item may be; barriers live a day longer at least.
    pub max_item_age: Duration,
}

/// A freshly opened, empty store, and what may be done to it without a reader noticing.
pub struct Subject {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Moves what the store holds: a freeze, a drain, a compaction, by turns or by the number given. May be called
    /// from any thread, while others read and write.
    pub disturb: Option<Box<dyn Fn(u32) + Send + Sync>>,
    /// Closes the store and opens it again, over what it kept. The suite has let go of the store before.
    pub reopen: Option<Box<dyn FnMut() -> Arc<dyn Store>>>,
}

impl Subject {
    /// A store that has nothing to disturb and does not outlive its closing.
    #[must_use]
    pub fn plain(store: Arc<dyn Store>) -> Self {
        Self { store, disturb: None, reopen: None }
    }
}

/// A case that failed, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The case's name.
    pub case: &'static str,
    /// What it found.
    pub reason: String,
}

/// Runs the suite: the cases, and this many random sequences.
///
/// # Panics
/// If the store fails any of them; the message names each, and the seed that repeats the sequences.
pub fn run(sequences: u32, open: impl Fn(&Setup) -> Subject) {
    let failures = failures(sequences, open);
    let list: Vec<_> = failures.iter().map(|failure| format!("{}: {}", failure.case, failure.reason)).collect();
    assert!(list.is_empty(), "{} cases failed:\n{}", list.len(), list.join("\n"));
}

/// Runs the suite and says what failed: for tests of the suite itself.
pub fn failures(sequences: u32, open: impl Fn(&Setup) -> Subject) -> Vec<Failure> {
    let open = &open;
    let cases = cases::all().into_iter().map(|(case, run)| (case, catch_unwind(AssertUnwindSafe(|| run(open)))));
    let random = sequences::all()
        .into_iter()
        .map(|(case, plan)| (case, catch_unwind(AssertUnwindSafe(|| sequences::run(&plan, sequences, open)))));
    cases
        .chain(random)
        .filter_map(|(case, outcome)| {
            let reason = match outcome {
                Ok(found) => found.err()?,
                Err(panic) => match panic.downcast::<String>() {
                    Ok(text) => *text,
                    Err(panic) => panic.downcast_ref::<&str>().copied().unwrap_or("a panic without words").to_owned(),
                },
            };
            Some(Failure { case, reason })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::faulty::Faulty;
    use crate::store::memory::Memory;

    fn memory(setup: &Setup) -> Arc<dyn Store> {
        let clock: Arc<TestClock> = Arc::clone(&setup.clock);
        Arc::new(Memory::with_retention(clock, setup.retention))
    }

    #[test]
    fn memory_conforms() {
        run(256, |setup| Subject::plain(memory(setup)));
    }

    #[test]
    fn faulty_without_a_fault_conforms() {
        run(64, |setup| Subject::plain(Arc::new(Faulty::over(memory(setup)))));
    }
}
