//! Units: what a caller hands over, cut into pieces that are each kept or not, and the way back to the caller.
//!
//! Used by [`super::writer`], which carries them out in any order. The caller is told once, when the last of its units
//! is settled.

use super::Shared;
use crate::store::{Group, Outcome, StoreError};
use playhead_core::{Record, RecordKind, UserId};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Instant;
use tokio::sync::oneshot;

/// What is kept or not as one.
pub(super) struct Unit {
    pub(super) work: Work,
    /// Which of the caller's writes it is made of.
    indexes: Vec<usize>,
    pending: Rc<Pending>,
}

pub(super) enum Work {
    /// A row of its own.
    Row(Record),
    /// Rows of one user.
    Rows(Vec<Record>),
    /// What one user does, forgets or erasures among it, in its order.
    Changes(Vec<Record>),
    /// Rows and barriers of one user, with the times they have.
    Import(Vec<Record>),
}

/// What a caller has handed over, under way.
struct Pending {
    caller: Cell<Option<Caller>>,
    writes: usize,
    failed: RefCell<Vec<(usize, StoreError)>>,
    left: Cell<usize>,
    arrived: Instant,
}

/// Who is told the outcome.
enum Caller {
    Group(Group),
    Import(oneshot::Sender<Outcome>),
}

/// The units of a group: one for each user if it is carried out whole, or one for each write.
pub(super) fn of_group(group: Group, records: Vec<Record>, arrived: Instant) -> Vec<Unit> {
    if records.is_empty() {
        group.settle(Ok(()));
        return Vec::new();
    }
    let is_whole = group.is_whole();
    let pending = Pending::new(Caller::Group(group), records.len(), arrived);
    let unit = |(indexes, records)| Unit { work: work(records, Work::Changes), indexes, pending: Rc::clone(&pending) };
    if is_whole {
        by_user(records).map(unit).collect()
    } else {
        records.into_iter().enumerate().map(|(index, record)| unit((vec![index], vec![record]))).collect()
    }
}

/// The units of an import: one for each user.
pub(super) fn of_import(records: Vec<Record>, told: oneshot::Sender<Outcome>, arrived: Instant) -> Vec<Unit> {
    if records.is_empty() {
        // Who asked may have gone.
        let _ = told.send(Ok(()));
        return Vec::new();
    }
    let pending = Pending::new(Caller::Import(told), records.len(), arrived);
    let unit = |(indexes, records)| Unit { work: work(records, Work::Import), indexes, pending: Rc::clone(&pending) };
    by_user(records).map(unit).collect()
}

/// What one user's records mean; `otherwise` if not all of them are rows.
fn work(records: Vec<Record>, otherwise: impl FnOnce(Vec<Record>) -> Work) -> Work {
    if !records.iter().all(|record| matches!(record.kind, RecordKind::Put | RecordKind::LatePut)) {
        return otherwise(records);
    }
    match records[..] {
        [only] => Work::Row(only),
        _ => Work::Rows(records),
    }
}

/// Records by their users, in their order; of each its place in the whole.
fn by_user(records: Vec<Record>) -> impl Iterator<Item = (Vec<usize>, Vec<Record>)> {
    let mut by_user: BTreeMap<UserId, (Vec<usize>, Vec<Record>)> = BTreeMap::new();
    for (index, record) in records.into_iter().enumerate() {
        let (indexes, records) = by_user.entry(record.user).or_default();
        indexes.push(index);
        records.push(record);
    }
    by_user.into_values()
}

impl Unit {
    pub(super) fn user(&self) -> UserId {
        match &self.work {
            Work::Row(record) => record.user,
            Work::Rows(records) | Work::Changes(records) | Work::Import(records) => {
                records.first().map_or(UserId(0), |record| record.user)
            }
        }
    }

    /// Writes that it is made of.
    pub(super) fn writes(&self) -> usize {
        self.indexes.len()
    }

    pub(super) fn arrived(&self) -> Instant {
        self.pending.arrived
    }

    pub(super) fn settle(self, shared: &Shared, outcome: Outcome) {
        let Self { indexes, pending, .. } = self;
        if let Err(error) = outcome {
            pending.failed.borrow_mut().extend(indexes.iter().map(|index| (*index, error)));
        }
        pending.left.set(pending.left.get() - indexes.len());
        if pending.left.get() == 0 {
            pending.settle(shared);
        }
    }
}

impl Pending {
    fn new(caller: Caller, writes: usize, arrived: Instant) -> Rc<Self> {
        let (caller, left) = (Cell::new(Some(caller)), Cell::new(writes));
        Rc::new(Self { caller, writes, failed: RefCell::default(), left, arrived })
    }

    fn settle(&self, shared: &Shared) {
        let Some(caller) = self.caller.take() else { return };
        let failed = self.failed.take();
        shared.metrics.records.add((self.writes - failed.len()) as u64);
        shared.metrics.commit_time.record_time(self.arrived.elapsed());
        match caller {
            Caller::Group(group) if failed.is_empty() => group.settle(Ok(())),
            Caller::Group(group) => {
                let mut outcomes = vec![Ok(()); self.writes];
                for (index, error) in failed {
                    outcomes[index] = Err(error);
                }
                group.settle_each(outcomes);
            }
            Caller::Import(told) => {
                // Who asked may have gone.
                let _ = told.send(failed.first().map_or(Ok(()), |(_, error)| Err(*error)));
            }
        }
    }
}
