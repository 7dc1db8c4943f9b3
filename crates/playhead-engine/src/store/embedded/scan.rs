//! Walks over all of a store: of one that runs, and of one in a directory that no process uses.
//!
//! The first is the embedded store's `scan`, the second [`of_stopped`] is for `playhead export`.
//!
//! **The promise** is [`crate::store::scan`]'s, and more: what comes is the store as of one moment, users ascending, of
//! each the erasure first, then the titles ascending. The same contents come in the same order.
//!
//! **How.** What memory knows is brought to the base as it always is, by a freeze and a drain, only sooner. Then one
//! snapshot of the base is walked; what is written meanwhile goes its own way and does not wait. A directory that no
//! process uses is not to be changed, so there the log is read into a table, and the walk shows the base as it would be
//! after its drain.
//!
//! **The limits.** A walk keeps its snapshot: what is overwritten meanwhile leaves the disk after its end. Its reader
//! sets the pace; the one of a running store must have a bound for how slow it may be.

use super::base::{Base, BaseEdit, BaseError, BaseItem, BaseTitle, ExpiryFilter};
use super::disk::OsDisk;
use super::drain::edits;
use super::memtable::Memtable;
use super::recovery::OnLoss;
use super::{EmbeddedOptions, OpenError, Places, Shared, check_version, lock_directory, recovery, replay};
use crate::store::scan::{Pieces, Scan};
use crate::store::{Refusal, StoreError};
use playhead_core::{Clock, MovieId, Record, RecordKind, UserId, WriteTime};
use std::cmp::Ordering;
use std::iter::Peekable;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Between two looks at whether a drain has ended.
const LOOK: Duration = Duration::from_millis(5);

/// Walks over a running store, from a user on.
pub(super) fn of_running(shared: &Arc<Shared>, from: Option<UserId>) -> Scan {
    let shared = Arc::clone(shared);
    Scan::on_a_thread(true, move |pieces| {
        bring_to_base(&shared, pieces)?;
        let walked = walk(&shared.base, &Memtable::new(), shared.clock.now(), from, pieces);
        if walked.is_err() && !pieces.is_unread() {
            shared.metrics.base_read_errors.add(1);
        }
        walked
    })
}

/// Has all that was acknowledged so far brought to the base.
fn bring_to_base(shared: &Shared, pieces: &Pieces) -> Result<(), StoreError> {
    let freezes = shared.tables.freezes();
    while !shared.tables.is_in_base(freezes) {
        if shared.has_failed() {
            return Err(StoreError::Fatal);
        }
        if pieces.is_unread() {
            return Err(StoreError::Refused(Refusal::Unavailable));
        }
        if !shared.tables.is_frozen() {
            shared.mailbox.ask_for_freeze();
        }
        std::thread::park_timeout(LOOK);
    }
    Ok(())
}

/// Walks over the store in a directory that no process uses, from a user on. Blocks for as long as reading the log takes; holds the
/// directory until the walk ends. Nothing is changed, but for files that the base has done with and removes whenever it
/// is opened.
///
/// # Errors
/// What keeps the store from being opened.
pub fn of_stopped(options: &EmbeddedOptions, clock: &Arc<dyn Clock>, from: Option<UserId>) -> Result<Scan, OpenError> {
    let directory = &options.directory;
    let is_there = |path: &Path| path.try_exists().unwrap_or(false);
    let places = Places::of(directory);
    if !is_there(&places.log) && !is_there(&places.base) {
        return Err(OpenError::NoStore(directory.clone()));
    }
    let lock = lock_directory(directory)?;
    places.check_both()?;
    if !is_there(&places.base) {
        // Its making was interrupted before it held anything.
        return Err(OpenError::NoStore(directory.clone()));
    }
    let disk = OsDisk::create_directory(&places.log).map_err(|source| places.log_error(source))?;
    let base = Base::open(&places.base, &options.base_options(clock)).map_err(|error| places.base_error(&error))?;
    let mark = base.mark().map_err(|error| places.base_error(&error))?;
    check_version(mark.as_ref())?;
    let table = Memtable::new();
    let recovered = replay::on_all_cores(&table, |replay| {
        recovery::recover(&disk, mark.as_ref(), OnLoss::Refuse, |record| replay.apply(record))
    })
    .map_err(|error| places.recovery_error(error))?;
    for warning in recovered.iter().flat_map(|recovered| &recovered.warnings) {
        tracing::warn!(directory = %places.log.display(), "{warning}");
    }
    let now = clock.now();
    Ok(Scan::on_a_thread(true, move |pieces| {
        let walked = walk(&base, &table, now, from, pieces);
        drop(base);
        drop(lock);
        walked
    }))
}

fn walk(
    base: &Base,
    table: &Memtable,
    now: WriteTime,
    from: Option<UserId>,
    pieces: &mut Pieces,
) -> Result<(), StoreError> {
    let told = |error: BaseError| {
        tracing::error!(error = &error as &dyn std::error::Error, "the base could not be read to its end");
        StoreError::Refused(Refusal::Unavailable)
    };
    let records = records(base, table, now, from.unwrap_or(UserId(i64::MIN))).map_err(told)?;
    pieces.put_all(records.map(|record| record.map_err(told)))
}

/// What the base holds, and would hold after a drain of this table, from a user on, expired things left out.
pub(super) fn records<'a>(
    base: &'a Base,
    table: &'a Memtable,
    now: WriteTime,
    from: UserId,
) -> Result<impl Iterator<Item = Result<Record, BaseError>> + 'a, BaseError> {
    let filter = base.expiry().filter_at(now);
    let is_before =
        move |edit: &Result<BaseEdit, BaseError>| edit.as_ref().is_ok_and(|edit| place_of_edit(edit).0 < from);
    let edits = edits(table, base, now, &[]).skip_while(is_before);
    let drained = Drained { stored: base.everything(from)?.peekable(), edits: edits.peekable() };
    Ok(drained.filter_map(move |found| found.map(|(user, item)| record_of(user, item, &filter)).transpose()))
}

fn record_of(user: UserId, item: BaseItem, filter: &ExpiryFilter) -> Option<Record> {
    match item {
        BaseItem::Erased(erased) => filter.keeps_barrier(erased).then(|| Record::erase(user, erased)),
        BaseItem::Title(_, title) if !filter.keeps_title(&title) => None,
        BaseItem::Title(_, BaseTitle::Row(row)) => Some(Record { user, kind: RecordKind::Put, row }),
        BaseItem::Title(movie, BaseTitle::Forgotten(at)) => Some(Record::forget(user, movie, at)),
    }
}

/// Two walks in the order of the base's keys, laid over each other: where both have something, the edit counts.
struct Drained<S: Iterator, E: Iterator> {
    stored: Peekable<S>,
    edits: Peekable<E>,
}

impl<S, E> Iterator for Drained<S, E>
where
    S: Iterator<Item = Result<(UserId, BaseItem), BaseError>>,
    E: Iterator<Item = Result<BaseEdit, BaseError>>,
{
    type Item = Result<(UserId, BaseItem), BaseError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let order = match (self.stored.peek(), self.edits.peek()) {
                (Some(Err(_)), _) => Ordering::Less,
                (_, Some(Err(_))) | (None, Some(_)) => Ordering::Greater,
                (Some(Ok((user, item))), Some(Ok(edit))) => place_of_item(*user, item).cmp(&place_of_edit(edit)),
                (Some(_), None) => Ordering::Less,
                (None, None) => return None,
            };
            if order.is_lt() {
                return self.stored.next();
            }
            if order.is_eq() {
                self.stored.next();
            }
            match self.edits.next()? {
                Ok(BaseEdit::Erasure { user, to: Some(erased) }) => return Some(Ok((user, BaseItem::Erased(erased)))),
                Ok(BaseEdit::Title { user, movie, to: Some(title) }) => {
                    return Some(Ok((user, BaseItem::Title(movie, title))));
                }
                Ok(BaseEdit::Erasure { to: None, .. } | BaseEdit::Title { to: None, .. }) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// An erasure comes before its user's titles.
type Place = (UserId, Option<MovieId>);

fn place_of_item(user: UserId, item: &BaseItem) -> Place {
    match item {
        BaseItem::Erased(_) => (user, None),
        BaseItem::Title(movie, _) => (user, Some(*movie)),
    }
}

fn place_of_edit(edit: &BaseEdit) -> Place {
    match edit {
        BaseEdit::Erasure { user, .. } => (*user, None),
        BaseEdit::Title { user, movie, .. } => (*user, Some(*movie)),
    }
}

#[cfg(test)]
mod tests;
