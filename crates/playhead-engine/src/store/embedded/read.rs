//! Reads: what is in memory first, then the base, and of each title the newest that no barrier bars.
//!
//! The embedded store's `bookmarks` and `titles` are [`Reader`]'s. A read that memory alone settles is answered at
//! once, on the caller's thread; any other goes to a pool of [`READ_THREADS`] threads of its own, because a read of the
//! base may take as long as the disk does.
//!
//! **The promise.** A read sees every write that was settled before the read was asked for, and never an older value
//! after a newer one. That rests on the order: the tables' snapshot is taken first, the base is read afterwards
//! ([`super::tables`] says why). Of each title the newest row counts, if it is newer than every barrier over it, in
//! active table, frozen table **and** base.
//!
//! **What memory settles.** A title of which a table holds a live entry, and every title of a user of whom a table
//! holds an erasure: nothing in the base can be newer. A late entry settles nothing.
//!
//! **The limits.** [`READS_QUEUED_MAX`] reads wait for a thread; above that a read is refused as
//! [`Refusal::Busy`]. A list keeps the newest [`TITLES_LISTED_MAX`] titles, holds twice that in memory at most, and
//! hands on what it had no room for, up to [`SURPLUS_MAX`] titles between two drains.
//!
//! **Failures.** What the base cannot read is [`Refusal::Unavailable`] for the request that asked, a metric and a log
//! line, nothing else. Dropping the [`Reader`] ends its threads, after the reads that wait
//! for them.

use super::base::{Base, BaseError, BaseItem, BaseRows, BaseTitle, ExpiryFilter};
use super::drain::Surplus;
use super::memtable::{Copied, Entry};
use super::tables::Tables;
use crate::metrics::StoreMetrics;
use crate::store::{Refusal, StoreError, TITLES_LISTED_MAX, newest_first};
use futures_util::future::{self, BoxFuture, FutureExt};
use playhead_core::{Bookmark, MovieId, RecordKind, UserId, WriteTime, newest};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use tokio::sync::oneshot;

/// Threads that read the base.
pub(crate) const READ_THREADS: usize = 4;

/// Reads that wait for a thread.
pub(crate) const READS_QUEUED_MAX: usize = 1_024;

/// Surplus titles kept for the next drain.
pub(crate) const SURPLUS_MAX: usize = 100_000;

/// What is known of one title, gathered from one place after another.
#[derive(Debug, Clone, Copy, Default)]
struct Found {
    row: Option<Bookmark>,
    barrier: Option<WriteTime>,
    /// Whether nothing in the base can be newer.
    is_settled: bool,
}

impl Found {
    fn add_entry(&mut self, entry: &Entry) {
        match entry.kind() {
            RecordKind::Put | RecordKind::LatePut => self.add_row(entry.row()),
            RecordKind::Forget | RecordKind::Erase => self.add_barrier(entry.write_time()),
        }
        self.is_settled |= entry.is_live();
    }

    fn add_stored(&mut self, title: &BaseTitle) {
        match title {
            BaseTitle::Row(row) => self.add_row(*row),
            BaseTitle::Forgotten(write_time) => self.add_barrier(*write_time),
        }
    }

    fn add_row(&mut self, row: Bookmark) {
        self.row = Some(self.row.map_or(row, |known| newest(known, row)));
    }

    fn add_barrier(&mut self, write_time: WriteTime) {
        self.barrier = self.barrier.max(Some(write_time));
    }

    /// The bookmark, given the user's newest erasure.
    fn bookmark(&self, erased: Option<WriteTime>, filter: &ExpiryFilter) -> Option<Bookmark> {
        let barrier = self.barrier.max(erased);
        self.row.filter(|row| barrier.is_none_or(|barrier| row.write_time > barrier) && filter.keeps_row(row))
    }
}

/// What memory knows of the titles asked for.
#[derive(Debug)]
pub(super) struct TitlesInMemory {
    user: UserId,
    erased: Option<WriteTime>,
    titles: Vec<(MovieId, Found)>,
}

impl TitlesInMemory {
    /// Copies what the tables know now.
    pub(super) fn of(tables: &Tables, user: UserId, movies: Vec<MovieId>) -> Self {
        let (active, frozen) = tables.snapshot();
        let mut found = Self { user, erased: None, titles: Vec::new() };
        let copies = [Some(active.copy(user, &movies)), frozen.map(|frozen| frozen.copy(user, &movies))];
        found.titles = movies.into_iter().map(|movie| (movie, Found::default())).collect();
        for Copied { erased, titles } in copies.into_iter().flatten() {
            found.erased = found.erased.max(erased);
            // The copy has the order of the question, with gaps.
            let mut titles = titles.into_iter().peekable();
            for (movie, found) in &mut found.titles {
                if let Some(entry) = titles.next_if(|entry| entry.movie() == *movie) {
                    found.add_entry(&entry);
                }
            }
        }
        if found.erased.is_some() {
            found.titles.iter_mut().for_each(|(_, title)| title.is_settled = true);
        }
        found
    }

    /// Whether the base need not be asked.
    pub(super) fn is_settled(&self) -> bool {
        self.titles.iter().all(|(_, title)| title.is_settled)
    }

    /// Adds what the base knows.
    pub(super) fn add_base(&mut self, base: &Base) -> Result<(), BaseError> {
        let open: Vec<MovieId> =
            self.titles.iter().filter(|(_, title)| !title.is_settled).map(|(movie, _)| *movie).collect();
        let BaseRows { erased, titles } = base.bookmarks(self.user, &open)?;
        self.add_rows(erased, titles.into_iter());
        Ok(())
    }

    /// Adds what the base was found to know: of the unsettled titles, in their order.
    pub(super) fn add_rows(&mut self, erased: Option<WriteTime>, titles: impl Iterator<Item = Option<BaseTitle>>) {
        self.erased = self.erased.max(erased);
        let unsettled = self.titles.iter_mut().filter(|(_, title)| !title.is_settled);
        for ((_, found), stored) in unsettled.zip(titles) {
            if let Some(stored) = stored {
                found.add_stored(&stored);
            }
        }
    }

    /// The bookmarks, in the order asked for.
    pub(super) fn bookmarks(&self, filter: &ExpiryFilter) -> Vec<Option<Bookmark>> {
        self.titles.iter().map(|(_, title)| title.bookmark(self.erased, filter)).collect()
    }
}

/// What memory knows of a user.
#[derive(Debug)]
pub(super) struct UserInMemory {
    user: UserId,
    erased: Option<WriteTime>,
    titles: BTreeMap<MovieId, Found>,
}

impl UserInMemory {
    /// Copies what the tables know now.
    pub(super) fn of(tables: &Tables, user: UserId) -> Self {
        let (active, frozen) = tables.snapshot();
        let mut found = Self { user, erased: None, titles: BTreeMap::new() };
        for Copied { erased, titles } in
            [Some(active.copy_all(user)), frozen.map(|frozen| frozen.copy_all(user))].into_iter().flatten()
        {
            found.erased = found.erased.max(erased);
            for entry in titles {
                found.titles.entry(entry.movie()).or_default().add_entry(&entry);
            }
        }
        found
    }

    /// Whether the base need not be asked: all of its rows are barred.
    pub(super) fn is_settled(&self) -> bool {
        self.erased.is_some()
    }

    /// The list, after a look into `base` if there is one, and what it had no room for.
    pub(super) fn list(
        mut self,
        base: Option<&Base>,
        filter: &ExpiryFilter,
        surplus: &SurplusList,
    ) -> Result<Vec<Bookmark>, BaseError> {
        let mut listed = Vec::new();
        let mut add = |row: Bookmark| {
            listed.push(row);
            if listed.len() >= 2 * TITLES_LISTED_MAX {
                surplus.add(self.user, newest_first(&mut listed));
            }
        };
        for item in base.map(|base| base.scan(self.user)).transpose()?.into_iter().flatten() {
            match item? {
                BaseItem::Erased(erased) if filter.keeps_barrier(erased) => self.erased = self.erased.max(Some(erased)),
                BaseItem::Erased(_) => {}
                BaseItem::Title(_, BaseTitle::Forgotten(at)) if !filter.keeps_barrier(at) => {}
                BaseItem::Title(movie, title) => {
                    // Each movie comes once here: what memory knows of it is used up.
                    let mut found = self.titles.remove(&movie).unwrap_or_default();
                    found.add_stored(&title);
                    found.bookmark(self.erased, filter).map(&mut add);
                }
            }
        }
        self.titles.values().filter_map(|found| found.bookmark(self.erased, filter)).for_each(add);
        surplus.add(self.user, newest_first(&mut listed));
        Ok(listed)
    }
}

/// Titles that lists had no room for, until the next drain takes them.
#[derive(Debug, Default)]
pub(crate) struct SurplusList(Mutex<Vec<Surplus>>);

impl SurplusList {
    fn list(&self) -> MutexGuard<'_, Vec<Surplus>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps as many as there is room for: the others are met again by a later list.
    fn add(&self, user: UserId, rows: Vec<Bookmark>) {
        if !rows.is_empty() {
            let mut list = self.list();
            let room = SURPLUS_MAX.saturating_sub(list.len());
            let surplus = rows.into_iter().map(|row| Surplus { user, movie: row.movie, write_time: row.write_time });
            list.extend(surplus.take(room));
        }
    }

    /// All of them, ascending, one for each title: its newest.
    pub(crate) fn take(&self) -> Vec<Surplus> {
        let mut list = std::mem::take(&mut *self.list());
        list.sort_unstable_by_key(|surplus| (surplus.user, surplus.movie, std::cmp::Reverse(surplus.write_time)));
        list.dedup_by_key(|surplus| (surplus.user, surplus.movie));
        list
    }
}

/// The read side of the embedded store.
pub(crate) struct Reader {
    shared: Arc<Shared>,
    pool: Pool,
}

/// What a read on the pool needs.
struct Shared {
    tables: Arc<Tables>,
    base: Arc<Base>,
    metrics: Arc<StoreMetrics>,
    surplus: Arc<SurplusList>,
}

impl Reader {
    /// Starts the pool.
    ///
    /// # Errors
    /// If a thread can't be started.
    pub(crate) fn start(
        tables: Arc<Tables>,
        base: Arc<Base>,
        metrics: Arc<StoreMetrics>,
        surplus: Arc<SurplusList>,
    ) -> std::io::Result<Self> {
        let pool = Pool::start(Arc::clone(&metrics))?;
        Ok(Self { shared: Arc::new(Shared { tables, base, metrics, surplus }), pool })
    }

    /// The bookmarks of these titles, in this order.
    pub(crate) fn bookmarks(
        &self,
        user: UserId,
        movies: Vec<MovieId>,
    ) -> BoxFuture<'static, Result<Vec<Option<Bookmark>>, StoreError>> {
        let mut found = TitlesInMemory::of(&self.shared.tables, user, movies);
        if found.is_settled() {
            return future::ready(Ok(found.bookmarks(&self.shared.base.expiry().filter()))).boxed();
        }
        self.on_pool(move |shared| {
            found.add_base(&shared.base)?;
            Ok(found.bookmarks(&shared.base.expiry().filter()))
        })
    }

    /// A user's titles in the order of lists.
    pub(crate) fn titles(&self, user: UserId) -> BoxFuture<'static, Result<Vec<Bookmark>, StoreError>> {
        let found = UserInMemory::of(&self.shared.tables, user);
        self.on_pool(move |shared| {
            let base = (!found.is_settled()).then_some(&*shared.base);
            found.list(base, &shared.base.expiry().filter(), &shared.surplus)
        })
    }

    fn on_pool<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Shared) -> Result<T, BaseError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, StoreError>> {
        let (sender, receiver) = oneshot::channel();
        let shared = Arc::clone(&self.shared);
        let job = Box::new(move || {
            if sender.is_closed() {
                return;
            }
            // A block that is damaged in a way that fjall did not foresee must cost one request, not a thread.
            let answer = match catch_unwind(AssertUnwindSafe(|| read(&shared))) {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(error)) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "a read of the base failed");
                    Err(())
                }
                Err(_) => {
                    tracing::error!("a read of the base panicked");
                    Err(())
                }
            };
            if answer.is_err() {
                shared.metrics.base_read_errors.add(1);
            }
            // A caller that is gone does not need the answer.
            let _ = sender.send(answer.map_err(|()| StoreError::Refused(Refusal::Unavailable)));
        });
        if let Err(refusal) = self.pool.run(job) {
            return future::ready(Err(StoreError::Refused(refusal))).boxed();
        }
        receiver.map(|answer| answer.unwrap_or(Err(StoreError::Refused(Refusal::Unavailable)))).boxed()
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// A bounded queue and its threads.
struct Pool {
    jobs: Option<SyncSender<Job>>,
    threads: Vec<JoinHandle<()>>,
    metrics: Arc<StoreMetrics>,
}

impl Pool {
    fn start(metrics: Arc<StoreMetrics>) -> std::io::Result<Self> {
        let (jobs, receiver) = sync_channel(READS_QUEUED_MAX);
        let receiver = Arc::new(Mutex::new(receiver));
        let mut pool = Self { jobs: Some(jobs), threads: Vec::new(), metrics };
        for number in 0..READ_THREADS {
            let (receiver, metrics) = (Arc::clone(&receiver), Arc::clone(&pool.metrics));
            let thread = thread::Builder::new().name(format!("playhead-read-{number}"));
            pool.threads.push(thread.spawn(move || work(&receiver, &metrics))?);
        }
        Ok(pool)
    }

    fn run(&self, job: Job) -> Result<(), Refusal> {
        let jobs = self.jobs.as_ref().expect("taken only by drop");
        self.metrics.reads_queued.add(1);
        jobs.try_send(job).map_err(|error| {
            self.metrics.reads_queued.subtract(1);
            match error {
                TrySendError::Full(_) => Refusal::Busy,
                TrySendError::Disconnected(_) => Refusal::Unavailable,
            }
        })
    }
}

fn work(jobs: &Mutex<Receiver<Job>>, metrics: &StoreMetrics) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        job();
        metrics.reads_queued.subtract(1);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // A job catches its own panics: there is nothing to learn from the result.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
