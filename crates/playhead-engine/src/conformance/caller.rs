//! A caller that waits: writes and reads of a store without an `async` in sight. And the clock that tests set.

use crate::lane::GROUP_WRITES_MAX;
use crate::{Engine, EngineHandle, Lane, Limits, Outcome, Store, StoreError};
use futures_util::future::join_all;
use playhead_core::{Bookmark, Clock, MovieId, Record, UserId, Write, WriteTime};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};

/// A clock that stands still until it is set.
#[derive(Debug)]
pub struct TestClock(AtomicU64);

impl TestClock {
    /// A clock that shows this many microseconds since the epoch.
    #[must_use]
    pub fn at_micros(micros: u64) -> Self {
        Self(AtomicU64::new(micros))
    }

    /// Sets it.
    pub fn set_micros(&self, micros: u64) {
        self.0.store(micros, Ordering::SeqCst);
    }

    /// Moves it forwards.
    pub fn advance(&self, time: Duration) {
        self.0.fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// Moves it, forwards or back.
    pub fn step_micros(&self, micros: i64) {
        let moved = |now: u64| Some(now.saturating_add_signed(micros));
        let _ = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, moved);
    }
}

impl Clock for TestClock {
    fn now(&self) -> WriteTime {
        WriteTime::from_micros(self.0.load(Ordering::SeqCst))
    }
}

/// Calls a store as the server does, and waits for each answer on a runtime of its own. Stays on its thread.
///
/// It waits for an outcome for a minute, so that a machine that stalls does not look like a store that forgets.
pub struct Caller {
    runtime: LocalRuntime,
    handle: EngineHandle,
    lane: Lane,
}

impl Caller {
    /// A caller with its own lane to this store.
    ///
    /// # Panics
    /// If the operating system gives no runtime.
    #[must_use]
    pub fn of(store: Arc<dyn Store>) -> Self {
        Self::with_deadline(store, Duration::from_secs(60))
    }

    /// A caller that takes an outcome as unknown after this long.
    ///
    /// # Panics
    /// If the operating system gives no runtime.
    #[must_use]
    pub fn with_deadline(store: Arc<dyn Store>, ack_deadline: Duration) -> Self {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .build_local(LocalOptions::default())
            .expect("a current-thread runtime without I/O needs nothing but memory");
        let engine = Engine::over(store, Limits { ack_deadline, ..Limits::default() });
        let (lane, driver) = engine.lane();
        runtime.spawn_local(driver.run());
        Self { runtime, handle: engine.handle(), lane }
    }

    /// Commits these writes as one group, all or none.
    ///
    /// # Errors
    /// As [`Outcome`].
    pub fn whole(&self, writes: &[Write]) -> Outcome {
        self.runtime.block_on(self.handle.commit(writes.to_vec()))
    }

    /// Commits several such groups, handed over one after another before any is waited for.
    pub fn whole_at_once(&self, groups: &[Vec<Write>]) -> Vec<Outcome> {
        let commits = groups.iter().map(|writes| self.handle.commit(writes.clone()));
        self.runtime.block_on(join_all(commits))
    }

    /// Commits these writes through the lane, [`GROUP_WRITES_MAX`] a group.
    ///
    /// # Panics
    /// If the lane is full.
    pub fn each(&self, writes: &[Write]) -> Vec<Outcome> {
        let groups = writes.chunks(GROUP_WRITES_MAX).map(|writes| {
            let admit = |write: &Write| self.lane.admit().expect("the lane has room for a test").write(*write);
            let tickets: Vec<_> = writes.iter().map(admit).collect();
            self.runtime.block_on(join_all(tickets))
        });
        groups.flatten().collect()
    }

    /// One title's bookmark.
    ///
    /// # Errors
    /// If the store could not be read.
    pub fn bookmark(&self, user: UserId, movie: MovieId) -> Result<Option<Bookmark>, StoreError> {
        self.runtime.block_on(self.handle.bookmark(user, movie))
    }

    /// These titles' bookmarks, in this order.
    ///
    /// # Errors
    /// If the store could not be read.
    pub fn bookmarks(&self, user: UserId, movies: &[MovieId]) -> Result<Vec<Option<Bookmark>>, StoreError> {
        self.runtime.block_on(self.handle.bookmarks(user, movies.to_vec()))
    }

    /// All of a user's titles, newest first.
    ///
    /// # Errors
    /// If the store could not be read.
    pub fn titles(&self, user: UserId) -> Result<Vec<Bookmark>, StoreError> {
        self.runtime.block_on(self.handle.titles(user))
    }

    /// Everything that is stored, or from a user on, and whether barriers are among it.
    ///
    /// # Errors
    /// If the store could not be read to its end.
    pub fn scan(&self, from: Option<UserId>) -> Result<(Vec<Record>, bool), StoreError> {
        let mut scan = self.handle.scan(from);
        let mut records = Vec::new();
        while let Some(piece) = self.runtime.block_on(scan.next())? {
            records.extend(piece);
        }
        Ok((records, scan.has_barriers()))
    }
}
