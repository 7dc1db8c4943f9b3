//! Replay: brings what recovery reads into the table in memory, on all cores.
//!
//! Called when a store is opened. What a start with a full log waits for is neither the disk nor the checksums but
//! memory: each of millions of records is a walk to a user's entry that no cache holds. So the thread that reads the
//! log deals the records out to appliers, each user to one of them, and the walks overlap.
//!
//! **The promise.** When [`on_all_cores`] returns, every record handed over is in the table, and those of one user were
//! applied in the order in which they came. Order between users means nothing to the table.
//!
//! **The limits.** [`APPLIERS_MAX`] threads, [`BATCHES_QUEUED`] batches of [`BATCH_RECORDS`] waiting for each: a few
//! megabytes in all; the reader waits for a slow one. A short log starts no thread. If the system refuses a thread, the
//! reader does its part.

use super::memtable::Memtable;
use playhead_core::Record;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{Builder, Scope};

/// More cores than this would wait for the one that reads.
const APPLIERS_MAX: usize = 8;

/// Enough for a wake-up to cost nothing beside them.
const BATCH_RECORDS: usize = 4_096;

/// Batches that may wait for one applier.
const BATCHES_QUEUED: usize = 2;

/// Runs `read`, and applies to the table what it hands over.
pub(crate) fn on_all_cores<R>(table: &Memtable, read: impl FnOnce(&mut Replay<'_, '_>) -> R) -> R {
    std::thread::scope(|scope| {
        let cores = std::thread::available_parallelism().map_or(1, usize::from).min(APPLIERS_MAX);
        let mut replay = Replay { table, scope, appliers: None, dealt: vec![Vec::new(); cores] };
        let read = read(&mut replay);
        for at in 0..cores {
            let rest = std::mem::take(&mut replay.dealt[at]);
            replay.pass_on(at, rest);
        }
        // Dropping the senders ends the appliers, and the scope waits for them.
        read
    })
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Replay<'scope, 'env> {
    table: &'env Memtable,
    scope: &'scope Scope<'scope, 'env>,
    /// `None` until a batch is full.
    appliers: Option<Vec<SyncSender<Vec<Record>>>>,
    /// The records of each applier's users.
    dealt: Vec<Vec<Record>>,
}

impl Replay<'_, '_> {
    /// Hands over the next record.
    pub(crate) fn apply(&mut self, record: &Record) {
        // Appliers share no shard, so they never wait for each other.
        let at = Memtable::shard_of(record.user) % self.dealt.len();
        self.dealt[at].push(*record);
        if self.dealt[at].len() == BATCH_RECORDS {
            let batch = std::mem::replace(&mut self.dealt[at], Vec::with_capacity(BATCH_RECORDS));
            if self.appliers.is_none() {
                self.appliers = Some(self.start());
            }
            self.pass_on(at, batch);
        }
    }

    fn start(&self) -> Vec<SyncSender<Vec<Record>>> {
        let table = self.table;
        let start_one = |_| {
            let (sender, batches) = sync_channel::<Vec<Record>>(BATCHES_QUEUED);
            let apply_all = move || batches.iter().flatten().for_each(|record| table.apply(&record));
            Builder::new().name("playhead-replay".to_owned()).spawn_scoped(self.scope, apply_all).ok().map(|_| sender)
        };
        (0..self.dealt.len()).map_while(start_one).collect()
    }

    fn pass_on(&self, at: usize, batch: Vec<Record>) {
        match self.appliers.as_ref().and_then(|appliers| appliers.get(at)) {
            Some(applier) => applier.send(batch).expect("an applier ends before its sender by a panic only"),
            None => batch.iter().for_each(|record| self.table.apply(record)),
        }
    }
}

#[cfg(test)]
mod tests;
