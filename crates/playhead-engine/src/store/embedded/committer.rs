//! The committer: one thread that turns groups into frames, makes each frame durable, and only then settles.
//!
//! Workers put groups into the [`Mailbox`]; [`run`] takes all that are there, stamps them, writes one frame, syncs it,
//! applies it to the memtable, and settles every group with one value.
//!
//! **The promise.** A group is settled `Ok` only after its frame's sync has returned and its records are in the active
//! memtable. A group lies in one frame, so it is kept whole or not at all. Write times rise in frame order: nothing is
//! stamped before it has its place in the log, so two lanes cannot commit out of order.
//!
//! **Why the committer may wait** ([`Mailbox::take`]). A sync costs the same for one record as for a hundred, and a
//! frame costs a whole block on the disk. Waiting a moment for more groups costs a four-second beat nothing. Once a
//! block is full there is nothing to be gained, and the wait ends.
//!
//! **The limits.** The mailbox holds [`MAILBOX_WRITES_MAX`] writes; beyond that a group is refused as busy. A frame
//! holds what `Log::frame_records_max` says. When an append fails, that frame's groups and all later ones are settled
//! as unknown or fatal, never `Ok`, and the store has failed for good.

use super::base::Mark;
use super::disk::Disk;
use super::log::{Log, StoreId};
use super::memtable::Memtable;
use super::tables::Tables;
use super::watchdog::SyncWatch;
use super::{DRAIN_BEHIND, Shared};
use crate::metrics::StoreMetrics;
use crate::store::stamp::Stamper;
use crate::store::{Group, Refusal, StoreError};
use playhead_core::{Record, Write, WriteTime};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Writes that may wait for the committer: four full lanes of the default size.
pub(crate) const MAILBOX_WRITES_MAX: usize = 65_536;

/// How long a frame may wait for a segment that the keeper is still zeroing, before its groups are refused.
const SPARE_PATIENCE: Duration = Duration::from_millis(250);

/// Records that fill the one block that the smallest frame costs; more waiting saves nothing.
const WORTH_WAITING_FOR: usize = 101;

/// Groups on their way from the workers to the committer.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    groups: Vec<Group>,
    writes: usize,
    /// Whether the memtable is to be frozen though nothing demands it.
    freeze: bool,
    closed: bool,
}

/// What the committer is to do next.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Commit the groups taken; there may be none.
    Commit { freeze: bool },
    /// The mailbox is closed and empty.
    End,
}

impl Mailbox {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves a group for the committer; gives it back if the mailbox is full or closed.
    pub(crate) fn put(&self, group: Group) -> Result<(), (Group, Refusal)> {
        let mut waiting = self.waiting();
        if waiting.closed {
            return Err((group, Refusal::Unavailable));
        }
        let before = waiting.writes;
        let after = before + group.writes().len();
        if after > MAILBOX_WRITES_MAX {
            return Err((group, Refusal::Busy));
        }
        waiting.groups.push(group);
        waiting.writes = after;
        drop(waiting);
        // The committer sleeps until there is something, or until there is enough: other arrivals need not wake it.
        if before == 0 || (before < WORTH_WAITING_FOR && after >= WORTH_WAITING_FOR) {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Takes all groups, once there are some and either `window` has passed or a block is full.
    fn take(&self, window: Duration, into: &mut Vec<Group>) -> Next {
        let mut waiting = self.waiting();
        while waiting.writes == 0 && !waiting.freeze {
            if waiting.closed {
                return Next::End;
            }
            waiting = self.arrived.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        let deadline = Instant::now() + window;
        while waiting.writes < WORTH_WAITING_FOR && !waiting.closed && !waiting.freeze {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            waiting = self.arrived.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        std::mem::swap(&mut waiting.groups, into);
        waiting.writes = 0;
        Next::Commit { freeze: std::mem::take(&mut waiting.freeze) }
    }

    /// Has the memtable frozen as soon as it can be.
    pub(crate) fn ask_for_freeze(&self) {
        self.waiting().freeze = true;
        self.arrived.notify_one();
    }

    /// Refuses later groups; those that are in are still taken.
    pub(crate) fn close(&self) {
        self.waiting().closed = true;
        self.arrived.notify_one();
    }

    /// Whether the store comes to rest.
    pub(crate) fn is_closed(&self) -> bool {
        self.waiting().closed
    }

    /// Writes that wait.
    pub(crate) fn writes(&self) -> usize {
        self.waiting().writes
    }
}

/// What the committer is to do by itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CommitLimits {
    /// Log written since the last freeze at which the memtable is frozen.
    pub(crate) freeze_bytes: u64,
    /// The memtable's size at which it is frozen.
    pub(crate) memtable_bytes: usize,
}

/// A frozen table on its way to the base.
#[derive(Debug)]
pub(crate) struct DrainJob {
    pub(crate) frozen: Arc<Memtable>,
    /// What the base will hold once the table is in it.
    pub(crate) mark: Mark,
}

/// Log, memtable and stamps: what one commit changes.
pub(crate) struct Committer<D: Disk> {
    log: Log<D>,
    tables: Arc<Tables>,
    /// The active table; held so that a commit need not ask for it.
    active: Arc<Memtable>,
    stamper: Stamper,
    store_id: StoreId,
    limits: CommitLimits,
    log_bytes_since_freeze: u64,
    records: Vec<Record>,
    watch: Arc<SyncWatch>,
    metrics: Arc<StoreMetrics>,
}

impl<D: Disk> Committer<D> {
    pub(crate) fn new(
        log: Log<D>,
        tables: Arc<Tables>,
        stamper: Stamper,
        store_id: StoreId,
        limits: CommitLimits,
        watch: Arc<SyncWatch>,
        metrics: Arc<StoreMetrics>,
    ) -> Self {
        let records = Vec::with_capacity(log.frame_records_max());
        let active = tables.active();
        Self { log, tables, active, stamper, store_id, limits, log_bytes_since_freeze: 0, records, watch, metrics }
    }

    /// The most writes of one commit.
    pub(crate) fn writes_max(&self) -> usize {
        self.log.frame_records_max()
    }

    /// Whether this many writes can be committed, if need be after this long a wait for the keeper.
    pub(crate) fn has_room(&self, writes: usize, patience: Duration) -> bool {
        self.log.has_room(writes, patience)
    }

    /// Whether the keeper should make a spare.
    pub(crate) fn needs_spares(&self) -> bool {
        self.log.needs_spares()
    }

    /// Commits these writes as one frame: on `Ok` they are durable and visible.
    pub(crate) fn commit<'a>(&mut self, now: WriteTime, writes: impl Iterator<Item = &'a Write>) -> io::Result<()> {
        self.records.clear();
        self.records.extend(writes.map(|write| self.stamper.stamp(now, write)));
        self.log_again()?;
        for record in &self.records {
            self.active.apply(record);
        }
        self.metrics.records.add_alone(self.records.len() as u64);
        self.metrics.memtable_bytes.set(self.active.bytes() as u64);
        Ok(())
    }

    /// Logs the records at hand: those of a commit, or the last frame of a former life.
    fn log_again(&mut self) -> io::Result<()> {
        let (watch, metrics) = (&self.watch, &self.metrics);
        let bytes = self.log.append(&self.records, |sync| {
            let begun = Instant::now();
            watch.watch(sync)?;
            metrics.sync_time.record_time(begun.elapsed());
            metrics.sync_worst_us.raise(u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX));
            Ok(())
        })?;
        self.log_bytes_since_freeze += bytes;
        self.metrics.frames.add_alone(1);
        self.metrics.log_bytes.add_alone(bytes);
        self.metrics.frame_records.record(self.records.len() as u64);
        Ok(())
    }

    /// Logs the last frame of a former life again: it was read, but may never have reached the disk.
    pub(crate) fn repeat(&mut self, last_frame: Vec<Record>) -> io::Result<()> {
        if last_frame.is_empty() {
            return Ok(());
        }
        self.records = last_frame;
        self.log_again()
    }

    /// The records of the last commit.
    #[cfg(test)]
    pub(crate) fn last_records(&self) -> &[Record] {
        &self.records
    }

    /// Whether the memtable should be frozen.
    pub(crate) fn is_freeze_due(&self) -> bool {
        self.log_bytes_since_freeze >= self.limits.freeze_bytes || self.active.bytes() >= self.limits.memtable_bytes
    }

    /// Whether the active table is three quarters full while the frozen one is not drained yet: writes are to be
    /// refused, since neither can take much more.
    pub(crate) fn is_drain_behind(&self) -> bool {
        self.tables.is_frozen()
            && (self.log_bytes_since_freeze >= self.limits.freeze_bytes / 4 * 3
                || self.active.bytes() >= self.limits.memtable_bytes / 4 * 3)
    }

    /// Freezes the active table, unless it is empty or the one before it is not drained yet.
    pub(crate) fn freeze(&mut self) -> Option<DrainJob> {
        if self.active.is_empty() {
            return None;
        }
        let frozen = self.tables.freeze()?;
        self.active = self.tables.active();
        self.log_bytes_since_freeze = 0;
        self.metrics.freezes.add_alone(1);
        let mark = Mark {
            store_id: self.store_id,
            sequence: self.log.last_sequence(),
            newest: self.stamper.last(),
            version: super::log::VERSION,
        };
        Some(DrainJob { frozen, mark })
    }
}

/// The committer's thread, until the mailbox is closed and empty. Gives back the committer for the last freeze; `None`
/// after a failure.
pub(crate) fn run<D: Disk>(
    mut committer: Committer<D>,
    shared: &Shared,
    drain: impl Fn(DrainJob),
) -> Option<Committer<D>> {
    let mut groups = Vec::new();
    let mut acknowledged_early = Vec::new();
    while let Next::Commit { freeze } = shared.mailbox.take(shared.commit_window, &mut groups) {
        let begun = Instant::now();
        let mut rest = groups.drain(..).peekable();
        while rest.peek().is_some() {
            let mut frame = Vec::new();
            let mut writes = 0;
            while let Some(group) = rest.next_if(|group| writes + group.writes().len() <= committer.writes_max()) {
                writes += group.writes().len();
                frame.push(group);
            }
            if committer.needs_spares() {
                shared.keeper.wake();
            }
            if !committer.has_room(writes, SPARE_PATIENCE) {
                shared.metrics.refused_no_space.add(frame.len() as u64);
                settle_all(frame, Err(StoreError::Refused(Refusal::NoSpace)));
                continue;
            }
            if cfg!(feature = "fault-early-ack") {
                // The control of the crash test, which must catch it: acknowledged now, committed in place of the next
                // frame. Were it committed at once, a kill would hardly ever fall in between.
                let writes = frame.iter().flat_map(Group::writes).copied().collect();
                settle_all(std::mem::take(&mut frame), Ok(()));
                let earlier: Vec<Write> = std::mem::replace(&mut acknowledged_early, writes);
                if !earlier.is_empty() && committer.has_room(earlier.len(), SPARE_PATIENCE) {
                    committer.commit(shared.clock.now(), earlier.iter()).ok()?;
                }
                continue;
            }
            if let Err(error) = committer.commit(shared.clock.now(), frame.iter().flat_map(Group::writes)) {
                shared.fail(&format!("the log can't be written: {error}"));
                settle_all(frame, Err(StoreError::Unknown));
                settle_all(rest.collect(), Err(StoreError::Fatal));
                shared.mailbox.close();
                while shared.mailbox.take(Duration::ZERO, &mut groups) != Next::End {
                    settle_all(std::mem::take(&mut groups), Err(StoreError::Fatal));
                }
                return None;
            }
            shared.metrics.commit_time.record_time(begun.elapsed());
            settle_all(frame, Ok(()));
        }
        drop(rest);
        if (freeze || committer.is_freeze_due())
            && let Some(job) = committer.freeze()
        {
            drain(job);
        }
        shared.set_refusal(DRAIN_BEHIND, committer.is_drain_behind());
    }
    Some(committer)
}

fn settle_all(groups: Vec<Group>, outcome: crate::store::Outcome) {
    for group in groups {
        group.settle(outcome);
    }
}
