//! The store's own threads: committer, drain, keeper and watchdog; how they start and in which order they stop.
//!
//! **The promise.** After [`Threads::stop`] every group that was in the mailbox is settled, everything acknowledged is
//! in the base, durably, and no thread of the store runs. A thread that meets an error of its disk fails the store and
//! ends.

use super::base::{Base, L0_TABLES_MAX};
use super::committer::DrainJob;
use super::committer::{self, Committer};
use super::disk::Disk;
use super::drain::{Surplus, drain};
use super::log::{SPARES_KEPT, Segments};
use super::tables::Tables;
use super::{NO_SPACE, Opened, Shared, watchdog};
use crate::store::StoreError;
use playhead_core::WriteTime;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

/// How often the keeper looks at the disk.
const KEEPER_TICK: Duration = Duration::from_secs(1);
/// How long a drain waits for the base to compact before it goes on all the same; not at all once the store closes.
const L0_PATIENCE: Duration = Duration::from_secs(60);

/// The threads of an open store.
pub(crate) struct Threads<D: Disk> {
    committer: JoinHandle<Option<Committer<D>>>,
    drain: JoinHandle<()>,
    keeper: JoinHandle<()>,
    watchdog: JoinHandle<()>,
    segments: Arc<Segments<D>>,
}

fn spawn<T: Send + 'static>(name: &str, run: impl FnOnce() -> T + Send + 'static) -> io::Result<JoinHandle<T>> {
    Builder::new().name(format!("playhead-{name}")).spawn(run)
}

impl<D: Disk> Threads<D> {
    pub(crate) fn start(opened: Opened<D>, shared: &Arc<Shared>, disk_reserve_bytes: u64) -> io::Result<Self> {
        let Opened { committer, segments, watch, first_drain, .. } = opened;
        // One job at most is under way: a table is frozen only after the one before it is drained.
        let (drains, jobs) = sync_channel(1);
        if let Some(job) = first_drain {
            drains.send(job).expect("the receiver is still here");
        }
        let watchdog = {
            let shared = Arc::clone(shared);
            spawn("watchdog", move || {
                watchdog::run(&watch, &shared.watchdog, || shared.fail("a sync of the log did not return for 10 s"));
            })?
        };
        let keeper = {
            let (shared, segments) = (Arc::clone(shared), Arc::clone(&segments));
            spawn("keeper", move || keep(&shared, &segments, disk_reserve_bytes))?
        };
        let drain = {
            let (shared, segments) = (Arc::clone(shared), Arc::clone(&segments));
            spawn("drain", move || run_drains(&jobs, &shared, &segments))?
        };
        let committer = {
            let shared = Arc::clone(shared);
            spawn("committer", move || run_committer(committer, &shared, &drains))?
        };
        Ok(Self { committer, drain, keeper, watchdog, segments })
    }

    /// Ends the threads in the order in which they feed each other, and drains what is left.
    pub(crate) fn stop(self, shared: &Shared) -> Result<(), StoreError> {
        shared.mailbox.close();
        // A thread that panicked has told why by itself; what it held is in the log.
        let committer = self.committer.join().ok().flatten();
        let is_drained = self.drain.join().is_ok();
        if let (Some(mut committer), true, false) = (committer, is_drained, shared.has_failed())
            && let Some(job) = committer.freeze()
        {
            carry_out(job, shared, &self.segments);
        }
        shared.keeper.stop();
        shared.watchdog.stop();
        let is_joined = self.keeper.join().is_ok() & self.watchdog.join().is_ok();
        if shared.has_failed() || !is_joined || !is_drained { Err(StoreError::Fatal) } else { Ok(()) }
    }
}

/// The committer's thread; what it freezes goes to the drain.
fn run_committer<D: Disk>(
    committer: Committer<D>,
    shared: &Shared,
    drains: &SyncSender<DrainJob>,
) -> Option<Committer<D>> {
    committer::run(committer, shared, |job| {
        // The drain is gone only after it has failed the store.
        let _ = drains.try_send(job);
    })
}

/// The drain's thread, until the committer is gone or a drain fails.
fn run_drains<D: Disk>(jobs: &Receiver<DrainJob>, shared: &Shared, segments: &Segments<D>) {
    while let Ok(job) = jobs.recv() {
        let begun = Instant::now();
        let is_patient = || begun.elapsed() < L0_PATIENCE && !shared.mailbox.is_closed();
        while shared.base.l0_tables() >= L0_TABLES_MAX && is_patient() {
            std::thread::park_timeout(Duration::from_millis(20));
        }
        carry_out(job, shared, segments);
        if shared.has_failed() {
            return;
        }
    }
}

/// Brings one frozen table to rest in the base and gives its segments back.
fn carry_out<D: Disk>(job: DrainJob, shared: &Shared, segments: &Segments<D>) {
    let begun = Instant::now();
    let sequence = job.mark.sequence;
    let Shared { tables, base, surplus, clock, .. } = shared;
    match drain_once(job, tables, base, &surplus.take(), clock.now(), segments) {
        Ok(rows) => {
            shared.metrics.drains.add_alone(1);
            shared.metrics.drained_rows.add_alone(rows);
            shared.metrics.drain_time.record_time(begun.elapsed());
            tracing::debug!(rows, sequence, milliseconds = begun.elapsed().as_millis(), "drained");
        }
        Err(reason) => shared.fail(&reason),
    }
}

/// The steps of a drain, in the order on which nothing being lost depends; gives back the rows written.
pub(crate) fn drain_once<D: Disk>(
    job: DrainJob,
    tables: &Tables,
    base: &Base,
    surplus: &[Surplus],
    now: WriteTime,
    segments: &Segments<D>,
) -> Result<u64, String> {
    let DrainJob { frozen, mark } = job;
    let report = drain(&frozen, base, &mark, now, surplus)
        .map_err(|error| format!("the base can't be filled: {}", super::chain(&error)))?;
    tables.drained(frozen);
    segments.recycle(mark.sequence).map_err(|error| format!("the log's segments can't be recycled: {error}"))?;
    Ok(report.rows)
}

/// The keeper's thread: spares ahead of their need, free space, and the gauges that nobody else has at hand.
fn keep<D: Disk>(shared: &Shared, segments: &Segments<D>, disk_reserve_bytes: u64) {
    let mut has_warned = false;
    loop {
        let free = segments.disk.free_bytes();
        let has_space = match &free {
            Ok(bytes) => *bytes >= disk_reserve_bytes,
            // Not knowing is no reason to refuse: a write that fails stops the store by itself.
            Err(_) => true,
        };
        if has_space
            && segments.spare_count() < SPARES_KEPT
            && let Err(error) = provide_spares(segments)
        {
            tracing::warn!("the next log segment can't be prepared, will try again: {error}");
        }
        if !has_space && !has_warned {
            let free = free.unwrap_or_default();
            tracing::warn!(
                free_bytes = free,
                disk_reserve_bytes,
                "too little space on the disk: writes are refused, reads go on"
            );
        }
        has_warned = !has_space;
        shared.set_refusal(NO_SPACE, !has_space);
        shared.metrics.log_segments.set(segments.closed_count() as u64 + 1);
        shared.metrics.base_l0_tables.set(shared.base.l0_tables() as u64);
        shared.metrics.queued_writes.set(shared.mailbox.writes() as u64);
        if shared.keeper.wait(KEEPER_TICK) {
            return;
        }
    }
}

fn provide_spares<D: Disk>(segments: &Segments<D>) -> io::Result<()> {
    while segments.provide_spare()? {}
    Ok(())
}
