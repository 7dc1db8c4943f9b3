//! The two memtables that take turns: one active, one frozen and being drained, or spare.
//!
//! The committer asks for the active table, and freezes it; reads take a snapshot; the drain hands its table back.
//!
//! **The promise.** Active and frozen table are published as one value. A table leaves it only in [`Tables::drained`],
//! which its caller calls only when the table's rows are durable *and* visible in the base. So a read that takes its
//! snapshot **first** and reads the base **afterwards** misses nothing that was acknowledged before it began: a row is
//! in the snapshot, or its table was drained before. A table is cleared only when no snapshot holds it any more.
//!
//! **The limits.** Freezing fails while a table is frozen, or its clearing has not ended; the caller goes on filling
//! the active one. A snapshot should be held for as long as it takes to copy a user's entries: [`Tables::drained`]
//! waits for it.

use super::memtable::Memtable;
use super::sync::{Mutex, MutexGuard, pause};
use std::sync::{Arc, PoisonError};

/// See the module.
#[derive(Debug)]
pub(crate) struct Tables {
    published: Mutex<Published>,
}

#[derive(Debug)]
struct Published {
    active: Arc<Memtable>,
    frozen: Option<Arc<Memtable>>,
    /// The other table while none is frozen; away while it is being cleared.
    spare: Option<Arc<Memtable>>,
    /// How often a table was frozen.
    freezes: u64,
}

impl Tables {
    /// Two empty tables.
    pub(crate) fn new() -> Self {
        let active = Arc::new(Memtable::new());
        let spare = Some(Arc::new(Memtable::new()));
        Self { published: Mutex::new(Published { active, frozen: None, spare, freezes: 0 }) }
    }

    fn published(&self) -> MutexGuard<'_, Published> {
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The table that takes writes. The writer must ask again after each freeze, and hold no other.
    pub(crate) fn active(&self) -> Arc<Memtable> {
        Arc::clone(&self.published().active)
    }

    /// The active and the frozen table as of one moment.
    pub(crate) fn snapshot(&self) -> (Arc<Memtable>, Option<Arc<Memtable>>) {
        let published = self.published();
        (Arc::clone(&published.active), published.frozen.clone())
    }

    /// Freezes the active table, for the drain; the spare one takes the writes from now on. `None` if there is no
    /// spare table: one is frozen already, or being cleared. Only the writer may call this, between two writes.
    pub(crate) fn freeze(&self) -> Option<Arc<Memtable>> {
        let mut published = self.published();
        let spare = published.spare.take()?;
        let frozen = std::mem::replace(&mut published.active, spare);
        published.frozen = Some(Arc::clone(&frozen));
        published.freezes += 1;
        Some(frozen)
    }

    /// Whether a table is frozen.
    pub(crate) fn is_frozen(&self) -> bool {
        self.published().frozen.is_some()
    }

    /// How often a table was frozen so far.
    pub(crate) fn freezes(&self) -> u64 {
        self.published().freezes
    }

    /// Whether everything that was written before that count of freezes was taken is in the base.
    pub(crate) fn is_in_base(&self, freezes: u64) -> bool {
        let published = self.published();
        match published.freezes - freezes {
            0 => published.frozen.is_none() && published.active.is_empty(),
            1 => published.frozen.is_none(),
            // The table that was active then has come back, else there had been none to freeze after it.
            _ => true,
        }
    }

    /// Takes back the frozen table, whose rows are now durable and visible in the base: reads no longer see it, it is
    /// cleared when the last of them has let go of it, and can be used again.
    ///
    /// # Panics
    /// If `frozen` is not the frozen table.
    pub(crate) fn drained(&self, frozen: Arc<Memtable>) {
        let published = self.published().frozen.take();
        assert!(published.is_some_and(|published| Arc::ptr_eq(&published, &frozen)), "the frozen table was drained");
        let mut frozen = frozen;
        let mut pauses = 0;
        while Arc::get_mut(&mut frozen).is_none() {
            pause(pauses);
            pauses = pauses.saturating_add(1);
        }
        frozen.clear();
        self.published().spare = Some(frozen);
    }
}
