//! Everything below HTTP: lanes gather writes into groups, a store makes each group durable.
//!
//! The server's workers each own one [`Lane`]; everything else goes through an [`EngineHandle`]. `playhead` opens an
//! [`Engine`] over one of the stores and closes it at the end.
//!
//! **The promise.** A write whose outcome is `Ok` is kept, in the sense of its store ([`store`] says what that is), and
//! is seen by every read that starts afterwards. A write whose ticket was dropped is still carried out: a connection
//! that breaks loses a reply, never a write.
//!
//! **The limits.** Writes in flight per lane and through the handle ([`Limits`]); at the bound a write is refused at
//! once, nothing queues. No call here blocks the thread it is made on, but [`Engine::open`], [`Engine::close`].
//!
//! In reading order:
//! - [`store`]: what a store is; its durability contract;
//! - [`lane`]: a worker's way in;
//! - [`store::embedded`], `store::cassandra` (feature `cassandra`), [`store::memory`], [`store::discard`]: the stores;
//! - [`metrics`]: what is counted; [`bounds`]: what is bounded;
//! - `conformance` and `store::faulty` (feature `test-util`): what every store must pass, and one that fails on order.

pub mod bounds;
#[cfg(feature = "test-util")]
pub mod conformance;
pub mod lane;
pub mod metrics;
pub mod store;

pub use lane::{Lane, LaneDriver, Permit, Ticket};
pub use store::scan::Scan;
pub use store::{Condition, Durability, Group, Health, Outcome, Refusal, Store, StoreError};

use metrics::StoreMetrics;
use playhead_core::{Bookmark, Clock, MovieId, UserId, Write};
use std::sync::Arc;
use std::time::Duration;
use store::embedded::{Embedded, EmbeddedOptions, OpenError};
use tokio::sync::Semaphore;

/// What bounds the writes in flight.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Heartbeats admitted and not yet settled, per lane; at the bound a heartbeat is shed.
    pub lane_writes: usize,
    /// Client batches, forgets and erases in flight, over all workers.
    pub handle_groups: usize,
    /// How long a caller waits for an outcome; then it is [`StoreError::Unknown`], whatever becomes of the write.
    pub ack_deadline: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { lane_writes: 16_384, handle_groups: 1_024, ack_deadline: Duration::from_secs(5) }
    }
}

/// Which store to open.
#[derive(Debug, Clone)]
pub enum StoreChoice {
    /// Own log, memtable and base in a directory.
    Embedded(EmbeddedOptions),
    /// On a Cassandra or ScyllaDB cluster.
    #[cfg(feature = "cassandra")]
    Cassandra(Box<store::cassandra::CassandraOptions>),
    /// In memory, lost at exit.
    Memory {
        /// Rows not written for this long are not shown; `None` shows them for ever.
        retention: Option<Duration>,
    },
    /// Keeps nothing.
    Discard,
}

/// An open store and the ways to it.
#[derive(Clone)]
pub struct Engine {
    store: Arc<dyn Store>,
    limits: Limits,
    handle_groups: Arc<Semaphore>,
}

impl Engine {
    /// Opens a store. Blocks for as long as recovery takes; the embedded store's threads run from here on.
    ///
    /// # Errors
    /// What keeps the store from opening, in words for the person who starts it; nothing was changed.
    pub fn open(choice: StoreChoice, clock: Arc<dyn Clock>, limits: Limits) -> Result<Self, OpenError> {
        let store: Arc<dyn Store> = match choice {
            StoreChoice::Embedded(options) => Arc::new(Embedded::open(options, clock)?),
            #[cfg(feature = "cassandra")]
            StoreChoice::Cassandra(options) => Arc::new(store::cassandra::Cassandra::open(*options, clock)?),
            StoreChoice::Memory { retention } => Arc::new(store::memory::Memory::with_retention(clock, retention)),
            StoreChoice::Discard => Arc::new(store::discard::Discard::default()),
        };
        Ok(Self::over(store, limits))
    }

    /// An engine over a store that is already open.
    #[must_use]
    pub fn over(store: Arc<dyn Store>, limits: Limits) -> Self {
        Self { store, limits, handle_groups: Arc::new(Semaphore::new(limits.handle_groups)) }
    }

    /// A new lane for one worker. The driver must run on that worker for as long as the lane is used.
    #[must_use]
    pub fn lane(&self) -> (Lane, LaneDriver) {
        lane::new(Arc::clone(&self.store), self.limits)
    }

    /// The way in for all that is not a heartbeat.
    #[must_use]
    pub fn handle(&self) -> EngineHandle {
        EngineHandle(self.clone())
    }

    /// How the store is: watched by readiness and by main.
    #[must_use]
    pub fn condition(&self) -> &Condition {
        self.store.condition()
    }

    /// What the store has counted.
    #[must_use]
    pub fn metrics(&self) -> &StoreMetrics {
        self.store.metrics()
    }

    /// Settles what is in flight, brings all of it to rest and releases the directory. Blocks.
    ///
    /// # Errors
    /// What could not be brought to rest; all that was acknowledged is still in the log.
    pub fn close(&self) -> Result<(), StoreError> {
        self.store.close()
    }
}

/// Reads, client batches, forgets and erases: may be used from any thread.
#[derive(Clone)]
pub struct EngineHandle(Engine);

impl EngineHandle {
    /// Carries out these writes, all or none, in this order. Dropping the future loses the outcome, not the writes.
    ///
    /// # Errors
    /// As [`Outcome`]; [`Refusal::Busy`] at the bound.
    pub async fn commit(&self, writes: Vec<Write>) -> Outcome {
        let Ok(permit) = Arc::clone(&self.0.handle_groups).try_acquire_owned() else {
            return Err(StoreError::Refused(Refusal::Busy));
        };
        let (group, outcome) = Group::whole(writes, permit);
        self.0.store.commit(group);
        match tokio::time::timeout(self.0.limits.ack_deadline, outcome).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(StoreError::Unknown),
        }
    }

    /// One title's bookmark; `None` if there is none.
    ///
    /// # Errors
    /// If the store could not be read; never "none" for an unread row.
    pub async fn bookmark(&self, user: UserId, movie: MovieId) -> Result<Option<Bookmark>, StoreError> {
        let found = self.0.store.bookmarks(user, vec![movie]).await?;
        Ok(found.into_iter().next().flatten())
    }

    /// These titles' bookmarks, in this order.
    ///
    /// # Errors
    /// As [`bookmark`](Self::bookmark).
    pub async fn bookmarks(&self, user: UserId, movies: Vec<MovieId>) -> Result<Vec<Option<Bookmark>>, StoreError> {
        self.0.store.bookmarks(user, movies).await
    }

    /// All of a user's titles, newest first, [`store::TITLES_LISTED_MAX`] at most.
    ///
    /// # Errors
    /// As [`bookmark`](Self::bookmark).
    pub async fn titles(&self, user: UserId) -> Result<Vec<Bookmark>, StoreError> {
        self.0.store.titles(user).await
    }

    /// A walk over all that is stored, or from a user on, see [`store::scan`].
    #[must_use]
    pub fn scan(&self, from: Option<UserId>) -> Scan {
        self.0.store.scan(from)
    }
}
