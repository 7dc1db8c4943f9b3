//! What a store is: it takes groups of writes, makes them durable, settles each, and reads back.
//!
//! Called by [`crate::lane`] (a worker's heartbeats) and by [`crate::EngineHandle`] (all else).
//!
//! **The durability contract.** A store settles a write with `Ok` only when the write is kept *and* visible:
//! - [`embedded`]: its record is in the log and `fdatasync` has returned; it survives the process and the power;
//! - `cassandra`: as many replicas as were asked for have acknowledged it; what that survives is the cluster's setting,
//!   which is read and told ([`Durability`]);
//! - [`memory`]: it is in memory; it survives nothing;
//! - [`discard`]: never; nothing is kept.
//!
//! Every write handed over is settled exactly once. [`StoreError::Refused`] is a promise too: the write is surely not
//! stored and never will be. [`StoreError::Unknown`] is the absence of one: it may be stored. A group made with
//! [`Group::whole`] is carried out all or none.
//!
//! **Order.** A live write is ordered by its arrival at the store, by write times that rise strictly
//! ([`stamp::Stamper`]). Newest wins ([`playhead_core::newest`]); a forget or an erase bars everything at or below its
//! own write time. Whatever a read returns is newer than the newest barrier over it.
//!
//! **The limits.** `commit` never blocks and never queues without bound. A list shows the newest
//! [`TITLES_LISTED_MAX`] titles; a store may drop the others.

#[cfg(feature = "cassandra")]
pub mod cassandra;
pub mod discard;
pub mod embedded;
#[cfg(feature = "test-util")]
pub mod faulty;
pub mod memory;
pub mod scan;
pub mod stamp;

use crate::metrics::StoreMetrics;
use futures_util::future::BoxFuture;
use playhead_core::{Bookmark, MovieId, UserId, Write};
use scan::Scan;
use std::cmp::Reverse;
use std::sync::{Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};

/// The most titles that a list of one user shows.
pub const TITLES_LISTED_MAX: usize = 10_000;

/// A place that keeps bookmarks. See the module for what its implementors promise.
pub trait Store: Send + Sync + 'static {
    /// Takes a group and returns at once; the group is settled later, or at once if it is refused.
    fn commit(&self, group: Group);

    /// The bookmarks of these titles, in this order.
    fn bookmarks(
        &self,
        user: UserId,
        movies: Vec<MovieId>,
    ) -> BoxFuture<'static, Result<Vec<Option<Bookmark>>, StoreError>>;

    /// A user's titles in the order of [`newest_first`], [`TITLES_LISTED_MAX`] at most.
    fn titles(&self, user: UserId) -> BoxFuture<'static, Result<Vec<Bookmark>, StoreError>>;

    /// Walks over all that is stored, or over what comes from this user on, him included, in a walk over all of it; see
    /// [`scan`] for what it promises.
    fn scan(&self, from: Option<UserId>) -> Scan;

    /// How the store is.
    fn condition(&self) -> &Condition;

    /// What the store has counted.
    fn metrics(&self) -> &StoreMetrics;

    /// Settles what is in flight, syncs, stops the store's threads. Blocks. Later groups are refused.
    ///
    /// # Errors
    /// What could not be brought to rest.
    fn close(&self) -> Result<(), StoreError>;
}

/// What became of a write.
pub type Outcome = Result<(), StoreError>;

/// Why a store did not do what was asked, by what the caller must do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Surely not stored: try again.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// May be stored: try again, newest position only.
    #[error("the outcome is unknown")]
    Unknown,
    /// The store has stopped for good: this process must end, and recovery read the log.
    #[error("the store has stopped")]
    Fatal,
}

/// Why a call was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A queue is full.
    #[error("a queue is full")]
    Busy,
    /// Too little space on the disk.
    #[error("too little space on the disk")]
    NoSpace,
    /// The store can't be used, or its data not be read, at present.
    #[error("the store is unavailable")]
    Unavailable,
}

/// Writes that are handed to a store together, and the way back for their outcomes.
///
/// Dropping a group unsettled settles it as [`StoreError::Unknown`].
#[derive(Debug)]
pub struct Group {
    writes: Vec<Write>,
    reply: Option<Reply>,
}

#[derive(Debug)]
enum Reply {
    /// A lane's: it tells its groups apart by number.
    Lane { settlements: mpsc::UnboundedSender<Settlement>, number: u64 },
    /// A caller's, who waits for all of it as one.
    Whole { outcome: oneshot::Sender<Outcome>, _in_flight: OwnedSemaphorePermit },
}

/// What a store tells a lane. The lane's bound on writes in flight bounds the channel.
#[derive(Debug)]
pub(crate) struct Settlement {
    pub(crate) number: u64,
    pub(crate) outcome: GroupOutcome,
    /// The group's buffer, to be used again.
    pub(crate) writes: Vec<Write>,
}

/// The outcomes of a group's writes.
#[derive(Debug)]
pub(crate) enum GroupOutcome {
    All(Outcome),
    Each(Vec<Outcome>),
}

impl Group {
    /// A lane's group.
    pub(crate) fn of_lane(writes: Vec<Write>, number: u64, settlements: mpsc::UnboundedSender<Settlement>) -> Self {
        Self { writes, reply: Some(Reply::Lane { settlements, number }) }
    }

    /// A group that is carried out all or none, and the way to its outcome; the permit is held until it is settled.
    pub(crate) fn whole(writes: Vec<Write>, in_flight: OwnedSemaphorePermit) -> (Self, oneshot::Receiver<Outcome>) {
        let (outcome, receiver) = oneshot::channel();
        (Self { writes, reply: Some(Reply::Whole { outcome, _in_flight: in_flight }) }, receiver)
    }

    /// The writes, in the order of their arrival.
    #[must_use]
    pub fn writes(&self) -> &[Write] {
        &self.writes
    }

    /// Whether the writes are carried out all or none.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        matches!(self.reply, Some(Reply::Whole { .. }))
    }

    /// Settles every write with one outcome.
    pub fn settle(mut self, outcome: Outcome) {
        self.reply_once(GroupOutcome::All(outcome));
    }

    /// Settles each write by itself, in the order of [`writes`](Self::writes). A group carried out all or none takes
    /// the first outcome that is not `Ok`.
    ///
    /// # Panics
    /// If the count differs.
    pub fn settle_each(mut self, outcomes: Vec<Outcome>) {
        assert_eq!(outcomes.len(), self.writes.len(), "one outcome for each write");
        self.reply_once(GroupOutcome::Each(outcomes));
    }

    fn reply_once(&mut self, outcome: GroupOutcome) {
        // A receiver that is gone belongs to a worker or a caller that is gone: nobody is left to tell.
        match self.reply.take() {
            Some(Reply::Lane { settlements, number }) => {
                let writes = std::mem::take(&mut self.writes);
                let _ = settlements.send(Settlement { number, outcome, writes });
            }
            Some(Reply::Whole { outcome: sender, _in_flight }) => {
                let outcome = match outcome {
                    GroupOutcome::All(outcome) => outcome,
                    GroupOutcome::Each(outcomes) => outcomes.into_iter().collect(),
                };
                let _ = sender.send(outcome);
            }
            None => {}
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.reply_once(GroupOutcome::All(Err(StoreError::Unknown)));
    }
}

/// How a store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// In use, nothing to report.
    Ready,
    /// In use, but an operator should look: the reason.
    Degraded(String),
    /// Not to be used, for now: the reason. It may become usable by itself.
    Unready(String),
    /// Stopped for good: the reason. The process must end.
    Failed(String),
}

/// What an acknowledged write survives, from the weakest to the strongest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// Nobody says.
    Unknown,
    /// It is synced some seconds after it was acknowledged.
    Periodic,
    /// It was synced before it was acknowledged.
    Synced,
}

impl Durability {
    /// Its name in answers and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Periodic => "periodic",
            Self::Synced => "synced",
        }
    }
}

/// A store's health, set by the store and watched by readiness and by main; and what its acknowledgements are worth.
#[derive(Debug)]
pub struct Condition {
    health: watch::Sender<Health>,
    durability: Mutex<Option<Durability>>,
}

impl Default for Condition {
    fn default() -> Self {
        Self { health: watch::Sender::new(Health::Ready), durability: Mutex::new(None) }
    }
}

impl Condition {
    /// What an acknowledged write survives; `None` if nothing is kept, or nobody knows yet.
    #[must_use]
    pub fn durability(&self) -> Option<Durability> {
        *self.durability.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets what an acknowledged write survives.
    pub fn set_durability(&self, durability: Durability) {
        *self.durability.lock().unwrap_or_else(PoisonError::into_inner) = Some(durability);
    }

    /// How the store is now.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health.borrow().clone()
    }

    /// Sets the health, unless the store has failed: that is for good.
    pub fn set(&self, health: Health) {
        self.health.send_if_modified(|current| {
            let changes = !matches!(current, Health::Failed(_)) && *current != health;
            if changes {
                *current = health;
            }
            changes
        });
    }

    /// Returns the reason once the store has failed; waits for ever otherwise.
    pub fn failed(&self) -> impl Future<Output = String> + use<> {
        let mut watcher = self.health.subscribe();
        async move {
            loop {
                if let Health::Failed(reason) = &*watcher.borrow_and_update() {
                    return reason.clone();
                }
                if watcher.changed().await.is_err() {
                    return std::future::pending().await;
                }
            }
        }
    }
}

/// Puts bookmarks into the order of lists: newest first, by title where two have one write time; keeps the newest
/// [`TITLES_LISTED_MAX`] and gives back the others.
pub fn newest_first(titles: &mut Vec<Bookmark>) -> Vec<Bookmark> {
    titles.sort_unstable_by_key(|bookmark| (Reverse(bookmark.write_time), bookmark.movie));
    titles.split_off(titles.len().min(TITLES_LISTED_MAX))
}
