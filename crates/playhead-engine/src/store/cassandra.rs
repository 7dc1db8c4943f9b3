//! The store that keeps bookmarks on an Apache Cassandra or ScyllaDB cluster: `serve --store cassandra`.
//!
//! Any number of processes may share a cluster; none of them keeps anything. One thread per process talks to it, with
//! one session of the `scylla` driver on a runtime of that thread's own: the driver runs its connections on the runtime
//! that built the session, and a worker must neither wait for them nor work for them (measured:
//! docs/decisions/cassandra-session.md). `commit` and the reads hand jobs to that thread and return at once.
//!
//! **The promise.** A write is settled with `Ok` once the consistency level asked for (`LOCAL_QUORUM` unless told
//! otherwise) has acknowledged it. Whether a node syncs before it acknowledges is the cluster's setting; it is read
//! from each node and told ([`durability`]). A read at the same level sees every such write. What is settled with
//! [`StoreError::Refused`] was never sent; whatever was sent and not acknowledged is [`StoreError::Unknown`].
//!
//! **Order.** By write times of this process's clock, unique and rising ([`stamps`]); between processes to within the
//! skew of their clocks, which is watched ([`clock`]). A group that is carried out whole is one mutation of its user's
//! partition, and so all or none; of a group over several users each user's part is.
//!
//! **The limits.** Every write has [`DEADLINE`], waiting included, and one repeat within it, with the same write time.
//! Rows under way are bounded per node ([`window`]); the others wait, bounded by the lanes. [`READS_MAX`] reads.
//!
//! **Failures.** A cluster that can't be reached, refuses the user or lacks the table makes the store not ready, with
//! the reason in words, and it goes on trying: a server in front of it does not end, and writes and reads are refused
//! meanwhile. Once it has been used, an outage makes it degraded. Nothing here ends the process.
//!
//! In reading order: [`connection`] (the session), [`link`], [`schema`], [`statements`] (all CQL), [`stamps`],
//! [`mod@unit`], [`writer`] (rows and batches), [`window`], [`deletion`] (forget and erase), [`import`], [`reader`],
//! [`scan`], [`clock`], [`durability`], [`watch`].

mod clock;
mod connection;
mod deletion;
mod durability;
pub mod import;
mod link;
mod reader;
mod scan;
pub mod schema;
mod stamps;
mod statements;
#[cfg(test)]
mod tests;
mod unit;
mod watch;
pub(crate) mod window;
mod writer;

use super::embedded::OpenError;
use super::scan::{Pieces, Scan};
use super::{Condition, Group, Health, Outcome, Refusal, Store, StoreError};
use crate::metrics::StoreMetrics;
use futures_util::future::{self, BoxFuture, FutureExt};
use import::Importing;
use playhead_core::{Bookmark, Clock, MovieId, Record, UserId, WriteTime};
use stamps::Stamps;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use unit::Unit;

/// From handing a write over to its outcome, and from asking for a read to its answer. A beat comes every 4 s: an answer
/// much later than this is worth nothing.
const DEADLINE: Duration = Duration::from_millis(1_500);

/// Reads under way.
pub(crate) const READS_MAX: usize = 1_024;

/// Rows dated later than this after now were written by nobody that could be right.
const FUTURE_MAX: Duration = Duration::from_secs(86_400);

/// Which cluster, and how it is used.
#[derive(Debug, Clone)]
pub struct CassandraOptions {
    /// Nodes to ask first, as `host:port`.
    pub nodes: Vec<String>,
    /// The keyspace that holds the table; a name that needs no quotes.
    pub keyspace: String,
    /// The data centre whose nodes are asked; any if `None`.
    pub data_center: Option<String>,
    /// Who asks, if the cluster wants to know.
    pub credentials: Option<Credentials>,
    /// Certificates of the authorities that vouch for the nodes (PEM); `None` for no TLS.
    pub authorities: Option<Vec<u8>>,
    /// How many copies must confirm.
    pub consistency: Consistency,
    /// Whether nothing is written unless every node is seen to sync before it acknowledges.
    pub require_synced_commitlog: bool,
    /// Rows older than this are not shown, and expire.
    pub retention: Option<Duration>,
    /// How late an item may be: deletions must be kept for longer.
    pub max_item_age: Duration,
    /// How long a write waits for others to leave with, to the millisecond; [`CassandraOptions::COMMIT_WINDOW_MAX`] at most.
    pub commit_window: Duration,
}

impl CassandraOptions {
    /// The longest commit window: the deadline of a write counts from its arrival.
    pub const COMMIT_WINDOW_MAX: Duration = Duration::from_millis(500);
}

/// A user of the cluster. The password is never shown.
#[derive(Clone)]
pub struct Credentials {
    /// The name.
    pub user: String,
    /// The password.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// How many copies must confirm a write, and be asked by a read: levels at which a read sees what was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// Most copies of one data centre.
    LocalQuorum,
    /// Most copies of all.
    Quorum,
    /// Every copy.
    All,
}

/// The store. See the module.
pub struct Cassandra {
    shared: Arc<Shared>,
    writes: mpsc::UnboundedSender<WriteJob>,
    reads: mpsc::UnboundedSender<ReadJob>,
    reads_left: Arc<Semaphore>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the store's thread and everybody else know.
struct Shared {
    options: CassandraOptions,
    clock: Arc<dyn Clock>,
    /// What is for tests only.
    rig: Rig,
    stamps: Arc<Stamps>,
    condition: Condition,
    metrics: StoreMetrics,
    /// Whether a write may be stamped and sent: the clock and the commit log are trusted.
    takes_writes: AtomicBool,
    /// Whether rows of several users may share a request, see [`writer`].
    rows_may_share: AtomicBool,
    closed: AtomicBool,
}

/// What a test may change. A clock that tests set has nothing to do with the cluster's, so with it neither can the two
/// be compared nor rows expire on time.
#[derive(Clone)]
struct Rig {
    clock_is_set: bool,
    /// [`DEADLINE`], which a starved machine passes although nothing is wrong.
    deadline: Duration,
    /// Where nodes are really reached.
    detours: Option<std::collections::HashMap<std::net::SocketAddr, std::net::SocketAddr>>,
}

impl Default for Rig {
    fn default() -> Self {
        Self { clock_is_set: false, deadline: DEADLINE, detours: None }
    }
}

/// What the store's thread is asked to keep. The lanes' bounds, the handle's and the callers of an import bound how much
/// waits.
enum WriteJob {
    Commit(Group, Vec<Record>, Instant),
    Import(Vec<Record>, oneshot::Sender<Outcome>, Instant),
}

/// What it is asked to find. [`READS_MAX`] bounds how many wait.
enum ReadJob {
    Bookmarks(UserId, Option<Vec<MovieId>>, oneshot::Sender<ReadOutcome>, OwnedSemaphorePermit),
    Scan(Option<UserId>, Pieces),
}

type ReadOutcome = Result<Vec<Bookmark>, StoreError>;

impl Cassandra {
    /// Starts the store's thread. Returns at once: whether the cluster can be used shows in the store's condition.
    ///
    /// # Errors
    /// If the certificates can't be used, or the system gives no thread.
    pub fn open(options: CassandraOptions, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        Self::open_with(options, clock, Arc::default(), Rig::default())
    }

    fn open_with(
        options: CassandraOptions,
        clock: Arc<dyn Clock>,
        stamps: Arc<Stamps>,
        rig: Rig,
    ) -> Result<Self, OpenError> {
        // Before the thread, so that a file that is no certificate ends the start.
        connection::tls(&options).map_err(OpenError::Setting)?;
        let shared = Arc::new(Shared {
            options,
            clock,
            rig,
            stamps,
            condition: Condition::default(),
            metrics: StoreMetrics::default(),
            takes_writes: AtomicBool::new(false),
            rows_may_share: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        });
        shared.condition.set(Health::Unready("the cluster has not been asked yet".to_owned()));
        let ((writes, taken_writes), (reads, taken_reads)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
        let jobs = watch::Jobs { writes: taken_writes, reads: taken_reads };
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("cassandra".to_owned())
            .spawn(move || match runtime() {
                Ok(runtime) => runtime.block_on(watch::run(for_thread, jobs)),
                Err(error) => for_thread.condition.set(Health::Failed(format!("there is no runtime: {error}"))),
            })
            .map_err(OpenError::System)?;
        let reads_left = Arc::new(Semaphore::new(READS_MAX));
        Ok(Self { shared, writes, reads, reads_left, thread: Mutex::new(Some(thread)) })
    }

    /// Hands over rows and barriers that keep their write times. The caller bounds how many are under way.
    #[must_use]
    pub fn import(&self, records: Vec<Record>) -> Importing {
        let (told, outcome) = oneshot::channel();
        let job = WriteJob::Import(records, told, Instant::now());
        if !self.takes_writes() {
            job.refuse();
        } else if let Err(mpsc::error::SendError(job)) = self.writes.send(job) {
            job.refuse();
        }
        Importing(outcome)
    }

    fn takes_writes(&self) -> bool {
        self.shared.takes_writes.load(Ordering::Relaxed) && !self.shared.closed.load(Ordering::Relaxed)
    }

    fn read(&self, user: UserId, movies: Option<Vec<MovieId>>) -> BoxFuture<'static, ReadOutcome> {
        let refused = |refusal| future::ready(Err(StoreError::Refused(refusal))).boxed();
        let Ok(permit) = Arc::clone(&self.reads_left).try_acquire_owned() else {
            self.shared.metrics.refused_busy.add(1);
            return refused(Refusal::Busy);
        };
        let (sender, answer) = oneshot::channel();
        if self.reads.send(ReadJob::Bookmarks(user, movies, sender, permit)).is_err() {
            return refused(Refusal::Unavailable);
        }
        // The thread carries it out whether or not somebody still waits: a request that is given up in the midst would
        // leave its place on the connection taken.
        async move { answer.await.unwrap_or(Err(StoreError::Refused(Refusal::Unavailable))) }.boxed()
    }
}

impl Store for Cassandra {
    fn commit(&self, group: Group) {
        if !self.takes_writes() {
            return group.settle(Err(StoreError::Refused(Refusal::Unavailable)));
        }
        let records = self.shared.stamps.stamp(self.shared.clock.now(), group.writes());
        if let Err(mpsc::error::SendError(job)) = self.writes.send(WriteJob::Commit(group, records, Instant::now())) {
            job.refuse();
        }
    }

    fn bookmarks(
        &self,
        user: UserId,
        movies: Vec<MovieId>,
    ) -> BoxFuture<'static, Result<Vec<Option<Bookmark>>, StoreError>> {
        if movies.is_empty() {
            return future::ready(Ok(Vec::new())).boxed();
        }
        let rows = self.read(user, Some(movies.clone()));
        async move {
            let rows = rows.await?;
            let find = |movie: &MovieId| rows.iter().find(|row| row.movie == *movie).copied();
            Ok(movies.iter().map(find).collect())
        }
        .boxed()
    }

    fn titles(&self, user: UserId) -> BoxFuture<'static, Result<Vec<Bookmark>, StoreError>> {
        self.read(user, None)
    }

    fn scan(&self, from: Option<UserId>) -> Scan {
        let (pieces, scan) = Scan::new(false);
        // If the thread is gone, the reader learns that the walk has broken off.
        let _ = self.reads.send(ReadJob::Scan(from, pieces));
        scan
    }

    fn condition(&self) -> &Condition {
        &self.shared.condition
    }

    fn metrics(&self) -> &StoreMetrics {
        &self.shared.metrics
    }

    fn close(&self) -> Result<(), StoreError> {
        self.shared.closed.store(true, Ordering::Relaxed);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        match thread {
            // Its own loop looks at `closed`, and lets what is under way end first.
            Some(thread) => thread.join().map_err(|_| StoreError::Fatal),
            None => Ok(()),
        }
    }
}

impl Drop for Cassandra {
    fn drop(&mut self) {
        // Nothing durable hangs on it: what was acknowledged is the cluster's.
        let _ = self.close();
    }
}

impl WriteJob {
    /// Answers without doing anything.
    fn refuse(self) {
        let refused = Err(StoreError::Refused(Refusal::Unavailable));
        match self {
            Self::Commit(group, ..) => group.settle(refused),
            // Who asked may have gone.
            Self::Import(_, told, _) => drop(told.send(refused)),
        }
    }

    fn into_units(self) -> Vec<Unit> {
        match self {
            Self::Commit(group, records, arrived) => unit::of_group(group, records, arrived),
            Self::Import(records, told, arrived) => unit::of_import(records, told, arrived),
        }
    }
}

impl ReadJob {
    /// Answers without doing anything.
    fn refuse(self) {
        match self {
            // A walk that ends without its end has broken off.
            Self::Scan(_, pieces) => drop(pieces),
            // Who asked may have gone.
            Self::Bookmarks(_, _, answer, _) => {
                drop(answer.send(Err(StoreError::Refused(Refusal::Unavailable))));
            }
        }
    }
}

impl Shared {
    /// Rows dated later are not ours.
    fn latest(&self) -> WriteTime {
        let now = self.clock.now().max(self.stamps.last().unwrap_or(WriteTime::MIN));
        WriteTime::from_micros(now.micros() + u64::try_from(FUTURE_MAX.as_micros()).unwrap_or(0))
    }

    fn is_retained(&self, row: &Bookmark) -> bool {
        self.options.retention.is_none_or(|retention| row.write_time > self.clock.now().before(retention))
    }

    /// In how many seconds a row of this write time expires; `None` is never. A second later than it is shown, so that
    /// it is the reads that decide.
    fn expires_in(&self, write_time: WriteTime) -> Option<i32> {
        /// Cassandra's own limit: 20 years.
        const SECONDS_MAX: u64 = 630_720_000;
        let retention = self.options.retention.filter(|_| !self.rig.clock_is_set)?;
        let left = retention.saturating_sub(self.clock.now().since(write_time)).as_secs() + 1;
        i32::try_from(left.min(SECONDS_MAX)).ok()
    }
}

/// A runtime for one thread, on which the driver runs.
fn runtime() -> io::Result<LocalRuntime> {
    Builder::new_current_thread().enable_all().build_local(LocalOptions::default())
}
