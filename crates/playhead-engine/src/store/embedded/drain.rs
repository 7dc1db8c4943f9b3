//! Draining: a frozen memtable becomes one ingestion of the base.
//!
//! Called by the drain thread with a table that [`super::tables::Tables::freeze`] gave, and by recovery's first drain.
//!
//! **The promise.** When [`drain`] returns, the base knows what it knew before merged with the table, and the mark says
//! so, in one atomic edit. Readers that merge the table with the base see the same before and after.
//!
//! **How.** One merge in the base's key order, one edit per key:
//! - a live entry goes down unread: it is newer than whatever lies there. A forget stays as a barrier in its title's key;
//! - a late entry goes down if it is newer than the base's row, barrier and erasure;
//! - an erasure goes down as a barrier in the user's key, and every key of that user in table or base gets the newer
//!   row if there is one, else a tombstone;
//! - a barrier that has expired is not written: its title, or user, gets a tombstone;
//! - a surplus title gets a tombstone, if the base's row is still the one that the list met and the table is silent.
//!
//! **The limits.** Memory: 8 bytes per user of the table. Late entries cost a read of the base each (4 µs warm), an
//! erasure a scan of the user, a surplus title a read.
//!
//! **Failures.** As [`Base::ingest`]; also a read of the base, before anything has changed. All of them mean fail-stop:
//! the log keeps what the table held.

use super::base::{Base, BaseEdit, BaseError, BaseItem, BaseTitle, ExpiryFilter, Mark, Scan};
use super::memtable::{Entry, Memtable, Sorted};
use playhead_core::{MovieId, RecordKind, UserId, WriteTime, newest};
use std::cmp::Ordering;
use std::iter::Peekable;

/// A title that a list had no room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Surplus {
    /// Whose.
    pub(crate) user: UserId,
    /// Which.
    pub(crate) movie: MovieId,
    /// The row that the list met.
    pub(crate) write_time: WriteTime,
}

/// What a drain did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DrainReport {
    /// Rows, tombstones and barriers handed to the base, the mark left out.
    pub(crate) rows: u64,
}

/// Brings a frozen table to the base. `surplus` is ascending, without duplicates.
///
/// # Errors
/// See the module.
pub(crate) fn drain(
    frozen: &Memtable,
    base: &Base,
    mark: &Mark,
    now: WriteTime,
    surplus: &[Surplus],
) -> Result<DrainReport, BaseError> {
    Ok(DrainReport { rows: base.ingest(edits(frozen, base, now, surplus), mark)? })
}

/// What a drain of this table would change in the base, ascending.
pub(crate) fn edits<'a>(
    frozen: &'a Memtable,
    base: &'a Base,
    now: WriteTime,
    surplus: &'a [Surplus],
) -> impl Iterator<Item = Result<BaseEdit, BaseError>> + 'a {
    debug_assert!(surplus.is_sorted_by(|a, b| (a.user, a.movie) < (b.user, b.movie)), "one per title, ascending");
    Edits {
        base,
        filter: base.expiry().filter_at(now),
        table: frozen.sorted().peekable(),
        surplus: surplus.iter().peekable(),
        erasure: None,
        late_user: None,
    }
}

/// The edits of a drain, ascending.
struct Edits<'a> {
    base: &'a Base,
    filter: ExpiryFilter,
    table: Peekable<Sorted<'a>>,
    surplus: Peekable<std::slice::Iter<'a, Surplus>>,
    /// The user whose erasure is being carried out.
    erasure: Option<Erasure>,
    /// The last user of whom a late entry was met, and the base's erasure of him.
    late_user: Option<(UserId, Option<WriteTime>)>,
}

struct Erasure {
    user: UserId,
    write_time: WriteTime,
    /// What the base has of the user.
    stored: Peekable<Scan>,
}

impl Iterator for Edits<'_> {
    type Item = Result<BaseEdit, BaseError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}

impl Edits<'_> {
    fn step(&mut self) -> Result<Option<BaseEdit>, BaseError> {
        loop {
            if let Some(edit) = self.erased_title()? {
                return Ok(Some(edit));
            }
            let place = |(user, entry): &(UserId, Entry)| (*user, entry.movie());
            let surplus = self.surplus.peek().map(|surplus| (surplus.user, surplus.movie));
            // An erasure has title 0 in its entry but comes first of its user: it must not be compared by title.
            let table = self.table.peek().map(|item| match item.1.kind() {
                RecordKind::Erase => (item.0, MovieId(i64::MIN)),
                _ => place(item),
            });
            let edit = match (table, surplus) {
                (None, None) => return Ok(None),
                (table, Some(surplus)) if table.is_none_or(|table| surplus < table) => self.surplus_title()?,
                (Some(table), surplus) => {
                    // Of one title the table knows better than a list that was read before.
                    self.surplus.next_if(|_| surplus == Some(table));
                    self.entry()?
                }
                (None, Some(_)) => unreachable!("taken by the second arm"),
            };
            if edit.is_some() {
                return Ok(edit);
            }
        }
    }

    /// The next entry of the table.
    fn entry(&mut self) -> Result<Option<BaseEdit>, BaseError> {
        let Some((user, entry)) = self.table.next() else { return Ok(None) };
        if entry.kind() == RecordKind::Erase {
            let write_time = entry.write_time();
            let mut stored = self.base.scan(user)?.peekable();
            let had = matches!(stored.peek(), Some(Ok(BaseItem::Erased(_))));
            if had {
                stored.next();
            }
            self.erasure = Some(Erasure { user, write_time, stored });
            let to = Some(write_time).filter(|write_time| self.filter.keeps_barrier(*write_time));
            return Ok((had || to.is_some()).then_some(BaseEdit::Erasure { user, to }));
        }
        let title = if entry.is_live() { Some(title_of(&entry)) } else { self.late_title(user, &entry)? };
        Ok(title.map(|title| self.edit(user, entry.movie(), title)))
    }

    fn edit(&self, user: UserId, movie: MovieId, title: BaseTitle) -> BaseEdit {
        let is_kept = match title {
            BaseTitle::Row(_) => true,
            BaseTitle::Forgotten(write_time) => self.filter.keeps_barrier(write_time),
        };
        BaseEdit::Title { user, movie, to: is_kept.then_some(title) }
    }

    /// What a late entry makes of its title: nothing, if the base knows better.
    fn late_title(&mut self, user: UserId, entry: &Entry) -> Result<Option<BaseTitle>, BaseError> {
        let (erased, stored) = match self.late_user {
            Some((of, erased)) if of == user => (erased, self.base.title(user, entry.movie())?),
            _ => {
                let rows = self.base.bookmarks(user, &[entry.movie()])?;
                self.late_user = Some((user, rows.erased));
                (rows.erased, rows.titles.into_iter().next().flatten())
            }
        };
        if erased.is_some_and(|erased| erased >= entry.write_time()) {
            return Ok(None);
        }
        Ok(match stored {
            None => Some(title_of(entry)),
            Some(stored) => merged(stored, entry).filter(|title| *title != stored),
        })
    }

    /// The next title of the erased user, in table or base; `None` when there is none left, or no user is erased.
    fn erased_title(&mut self) -> Result<Option<BaseEdit>, BaseError> {
        let Some(Erasure { user, write_time, stored }) = &mut self.erasure else { return Ok(None) };
        let (user, erased) = (*user, *write_time);
        loop {
            let in_table = self.table.peek().filter(|item| item.0 == user).map(|item| item.1);
            let in_base = match stored.peek() {
                Some(Ok(BaseItem::Title(movie, title))) => Some((*movie, *title)),
                Some(Ok(BaseItem::Erased(_))) => return Err(BaseError::Damaged("the order of keys")),
                Some(Err(_)) => return Err(stored.next().and_then(Result::err).expect("it was just looked at")),
                None => None,
            };
            let order = match (&in_table, &in_base) {
                (None, None) => {
                    self.erasure = None;
                    // All of the user was in the scan: no surplus of his is left to look at.
                    while self.surplus.next_if(|surplus| surplus.user <= user).is_some() {}
                    return Ok(None);
                }
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(entry), Some((movie, _))) => entry.movie().cmp(movie),
            };
            if order.is_le() {
                self.table.next();
            }
            if order.is_ge() {
                stored.next();
            }
            let in_table = in_table.filter(|_| order.is_le());
            let in_base = in_base.filter(|_| order.is_ge());
            let survivor = in_base.filter(|(_, title)| title.write_time() > erased).map(|(_, title)| title);
            let Some(movie) = in_table.map(|entry| entry.movie()).or(in_base.map(|(movie, _)| movie)) else {
                continue;
            };
            let kept = match (in_table, survivor) {
                (Some(entry), Some(stored)) => merged(stored, &entry).or(Some(stored)),
                (Some(entry), None) => Some(title_of(&entry)),
                (None, Some(_)) => continue,
                (None, None) => None,
            };
            return Ok(Some(match kept {
                Some(title) => self.edit(user, movie, title),
                None => BaseEdit::Title { user, movie, to: None },
            }));
        }
    }

    fn surplus_title(&mut self) -> Result<Option<BaseEdit>, BaseError> {
        let Some(Surplus { user, movie, write_time }) = self.surplus.next().copied() else { return Ok(None) };
        let stored = self.base.title(user, movie)?;
        let is_still = matches!(stored, Some(BaseTitle::Row(row)) if row.write_time == write_time);
        Ok(is_still.then_some(BaseEdit::Title { user, movie, to: None }))
    }
}

/// What an entry makes of its title where nothing else is known of it.
fn title_of(entry: &Entry) -> BaseTitle {
    match entry.kind() {
        RecordKind::Forget => BaseTitle::Forgotten(entry.write_time()),
        RecordKind::Put | RecordKind::LatePut | RecordKind::Erase => BaseTitle::Row(entry.row()),
    }
}

/// The winner of a title's two versions; `None` if it is surely the stored one.
fn merged(stored: BaseTitle, entry: &Entry) -> Option<BaseTitle> {
    match (entry.write_time().cmp(&stored.write_time()), stored, title_of(entry)) {
        (Ordering::Greater, _, title) => Some(title),
        (Ordering::Less, ..) | (Ordering::Equal, BaseTitle::Forgotten(_), _) => None,
        (Ordering::Equal, BaseTitle::Row(_), forgotten @ BaseTitle::Forgotten(_)) => Some(forgotten),
        (Ordering::Equal, BaseTitle::Row(stored), BaseTitle::Row(row)) => Some(BaseTitle::Row(newest(stored, row))),
    }
}

#[cfg(test)]
mod tests;
