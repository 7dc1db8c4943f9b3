//! `playhead import`: brings rows and barriers of an export into the store of a directory that no process uses.
//!
//! They go into the base at once, by the one way that there is into it ([`Base::ingest`]), and past log and memtable:
//! those rest on live writes being newer than everything stored, and an import may be older. So [`Import::open`] first
//! starts the store as ever and brings it to rest, which leaves the log empty; then each [`Import::add`] compares what
//! comes with what is there and ingests what is newer.
//!
//! **The promise.** When `add` returns, its records are in the base, durably, or something newer is: newest wins, a tie
//! goes as [`playhead_core::newest`] and the barriers' rule say, in whatever order they come. So adding twice changes
//! nothing, and it gives back how many keys it has changed. What `add` fails at is not done, or is done; adding it again
//! is right in both cases. The store's next write times go on above the newest that came.
//!
//! **The limits.** One `add` holds its records and, for each user that they erase, that user's titles in memory. Below
//! the reserve of free space nothing is added.

use super::base::{Base, BaseEdit, BaseError, BaseItem, BaseTitle, ExpiryFilter, L0_TABLES_MAX, Mark};
use super::disk::{Disk, OsDisk};
use super::{Embedded, EmbeddedOptions, OpenError, Places, chain};
use playhead_core::{Clock, MovieId, Record, RecordKind, UserId, WriteTime, newest};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fs::File;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// How long an ingestion waits for the base to compact before it goes on all the same.
const L0_PATIENCE: Duration = Duration::from_secs(60);

/// Why records could not be added.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The store can't be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It could not be brought to rest first.
    #[error("the store could not be brought to rest; start a server on it, or look at it with `playhead check`")]
    NotAtRest,
    /// Too little space is left.
    #[error(
        "too little space is left on the disk: {free} bytes, and {reserve} are kept free (--disk-reserve-bytes); make \
         room and import again"
    )]
    NoSpace {
        /// What is left.
        free: u64,
        /// What is kept free.
        reserve: u64,
    },
    /// The base.
    #[error("{0}")]
    Base(String),
}

/// A store that is open for nothing else.
pub struct Import {
    base: Arc<Base>,
    mark: Mark,
    disk: OsDisk,
    disk_reserve_bytes: u64,
    clock: Arc<dyn Clock>,
    /// The directory is ours for as long as this is held.
    _lock: File,
}

impl Import {
    /// Opens the store in a directory, or makes one, and brings it to rest. Blocks for as long as that takes.
    ///
    /// # Errors
    /// [`ImportError`]; nothing was added.
    pub fn open(options: EmbeddedOptions, clock: Arc<dyn Clock>) -> Result<Self, ImportError> {
        let places = Places::of(&options.directory);
        let disk_reserve_bytes = options.disk_reserve_bytes;
        let store = Embedded::open(options, Arc::clone(&clock))?;
        let open = store.open.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (threads, lock) = open.expect("it was opened just now");
        threads.stop(&store.shared).map_err(|_| ImportError::NotAtRest)?;
        let base = Arc::clone(&store.shared.base);
        let mark =
            base.mark().map_err(|error| ImportError::Base(chain(&error)))?.expect("a store that was open has one");
        let disk = OsDisk::create_directory(&places.log).map_err(|source| places.log_error(source))?;
        Ok(Self { base, mark, disk, disk_reserve_bytes, clock, _lock: lock })
    }

    /// Adds records, in any order, and gives back how many rows and barriers were changed.
    ///
    /// # Errors
    /// [`ImportError`]; adding them again is right.
    pub fn add(&mut self, records: Vec<Record>) -> Result<u64, ImportError> {
        let free = self.disk.free_bytes().map_err(|error| ImportError::Base(error.to_string()))?;
        if free < self.disk_reserve_bytes {
            return Err(ImportError::NoSpace { free, reserve: self.disk_reserve_bytes });
        }
        let begun = Instant::now();
        while self.base.l0_tables() >= L0_TABLES_MAX && begun.elapsed() < L0_PATIENCE {
            std::thread::park_timeout(Duration::from_millis(20));
        }
        add(&self.base, &mut self.mark, records, self.clock.now()).map_err(|error| ImportError::Base(chain(&error)))
    }
}

fn add(base: &Base, mark: &mut Mark, mut records: Vec<Record>, now: WriteTime) -> Result<u64, BaseError> {
    let newest = records.iter().map(|record| record.row.write_time).max();
    records.sort_unstable_by_key(|record| (record.user, record.row.movie));
    let filter = base.expiry().filter_at(now);
    let mut edits = Vec::new();
    for of_user in records.chunk_by(|one, next| one.user == next.user) {
        edits_of_user(base, &filter, of_user, &mut edits)?;
    }
    if edits.is_empty() {
        return Ok(0);
    }
    let next = Mark { newest: mark.newest.max(newest), ..*mark };
    let changed = base.ingest(edits.into_iter().map(Ok), &next)?;
    *mark = next;
    Ok(changed)
}

/// What the records of one user change in the base, ascending.
fn edits_of_user(
    base: &Base,
    filter: &ExpiryFilter,
    records: &[Record],
    edits: &mut Vec<BaseEdit>,
) -> Result<(), BaseError> {
    let Some(user) = records.first().map(|record| record.user) else { return Ok(()) };
    let mut erased_now = None;
    let mut coming: BTreeMap<MovieId, BaseTitle> = BTreeMap::new();
    for record in records {
        let title = match record.kind {
            RecordKind::Put | RecordKind::LatePut => BaseTitle::Row(record.row),
            RecordKind::Forget => BaseTitle::Forgotten(record.row.write_time),
            RecordKind::Erase => {
                erased_now = erased_now.max(Some(record.row.write_time));
                continue;
            }
        };
        coming.entry(record.row.movie).and_modify(|known| *known = newer(*known, title)).or_insert(title);
    }
    let (erased_before, stored) = stored(base, filter, user, &coming, erased_now.is_some())?;
    let erased = erased_before.max(erased_now);
    if erased > erased_before && erased.is_some_and(|erased| filter.keeps_barrier(erased)) {
        edits.push(BaseEdit::Erasure { user, to: erased });
    }
    let mut movies: Vec<MovieId> = coming.keys().chain(stored.keys()).copied().collect();
    movies.sort_unstable();
    movies.dedup();
    for movie in movies {
        let before = stored.get(&movie).copied();
        let newest = before.into_iter().chain(coming.get(&movie).copied()).reduce(newer);
        let after = newest
            .filter(|title| erased.is_none_or(|erased| title.write_time() > erased))
            .filter(|title| filter.keeps_title(title));
        if after != before {
            edits.push(BaseEdit::Title { user, movie, to: after });
        }
    }
    Ok(())
}

/// The user's erasure in the base, and the titles that may change: those that come, or all if the user is erased now.
/// What has expired is as good as absent.
fn stored(
    base: &Base,
    filter: &ExpiryFilter,
    user: UserId,
    coming: &BTreeMap<MovieId, BaseTitle>,
    is_erased_now: bool,
) -> Result<(Option<WriteTime>, BTreeMap<MovieId, BaseTitle>), BaseError> {
    let mut titles = BTreeMap::new();
    if !is_erased_now {
        let movies: Vec<MovieId> = coming.keys().copied().collect();
        let found = base.bookmarks(user, &movies)?;
        titles.extend(movies.into_iter().zip(found.titles).filter_map(|(movie, title)| Some((movie, title?))));
        return Ok((found.erased, titles));
    }
    let mut erased = None;
    for item in base.scan(user)? {
        match item? {
            BaseItem::Erased(at) => erased = Some(at).filter(|at| filter.keeps_barrier(*at)),
            BaseItem::Title(movie, title) if filter.keeps_title(&title) => {
                titles.insert(movie, title);
            }
            BaseItem::Title(..) => {}
        }
    }
    Ok((erased, titles))
}

/// The winner of a title's two versions.
fn newer(one: BaseTitle, other: BaseTitle) -> BaseTitle {
    match (one.write_time().cmp(&other.write_time()), one, other) {
        (Ordering::Greater, ..) | (Ordering::Equal, BaseTitle::Forgotten(_), _) => one,
        (Ordering::Less, ..) | (Ordering::Equal, _, BaseTitle::Forgotten(_)) => other,
        (Ordering::Equal, BaseTitle::Row(one), BaseTitle::Row(other)) => BaseTitle::Row(newest(one, other)),
    }
}

#[cfg(test)]
mod tests;
