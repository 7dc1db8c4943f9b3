//! The base of the simulator: a sorted map whose ingestion survives a crash whole or not at all.
//!
//! The rows outlive the handle: a clone is the same base, as the same directory would be. Deterministic, unbounded.

use super::{BaseError, Expiry};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(super) type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// See the module.
#[derive(Clone)]
pub(crate) struct ModelBase {
    pub(super) expiry: Expiry,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    rows: Arc<Rows>,
    /// Whether the next ingestion survives the crash that it meets.
    crash: Option<bool>,
    fails_reads: bool,
}

impl ModelBase {
    /// An empty base.
    pub(crate) fn new(expiry: Expiry) -> Self {
        Self { expiry, state: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the next ingestion end in [`BaseError::Crashed`], having done all or nothing.
    pub(crate) fn crash_next_ingest(&self, survives: bool) {
        self.state().crash = Some(survives);
    }

    /// Lets every read fail, or none, from now on.
    pub(crate) fn fail_reads(&self, fail: bool) {
        self.state().fails_reads = fail;
    }

    pub(super) fn view(&self) -> Result<Arc<Rows>, BaseError> {
        let state = self.state();
        if state.fails_reads { Err(BaseError::Crashed) } else { Ok(Arc::clone(&state.rows)) }
    }

    /// `None` is a tombstone.
    pub(super) fn ingest(&self, edits: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Result<(), BaseError> {
        let mut state = self.state();
        let crash = state.crash.take();
        if crash != Some(false) {
            let rows = Arc::make_mut(&mut state.rows);
            for (key, value) in edits {
                match value {
                    Some(value) => rows.insert(key, value),
                    None => rows.remove(&key),
                };
            }
        }
        if crash.is_some() { Err(BaseError::Crashed) } else { Ok(()) }
    }

    /// Drops what has expired, as a compaction of the real base does.
    pub(crate) fn compact(&self) {
        let keeps = self.expiry.filter();
        Arc::make_mut(&mut self.state().rows).retain(|key, value| keeps.keeps(key, value));
    }
}
