//! The reference model: the rules of a store in their plainest form, in memory. The oracle of every other store's
//! tests, and `--store memory`. Settles at once, on the caller's thread, under one lock; grows without bound.

use super::scan::Scan;
use super::stamp::Stamper;
use super::{Condition, Group, Refusal, Store, StoreError, newest_first};
use crate::metrics::StoreMetrics;
use futures_util::future::{self, BoxFuture, FutureExt};
use playhead_core::{Bookmark, Clock, MovieId, Record, RecordKind, UserId, WriteTime, newest};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Bookmarks in memory.
pub struct Memory {
    clock: Arc<dyn Clock>,
    retention: Option<Duration>,
    state: Mutex<State>,
    condition: Condition,
    metrics: StoreMetrics,
}

/// What a store knows, and what a record does to it: the definition that all stores are held against.
#[derive(Debug, Clone, Default)]
pub struct Model {
    rows: BTreeMap<(UserId, MovieId), Bookmark>,
    forgotten: HashMap<(UserId, MovieId), WriteTime>,
    erased: HashMap<UserId, WriteTime>,
}

impl Model {
    /// Carries out one record. The order of records does not matter but for what is above.
    pub fn apply(&mut self, record: &Record) {
        let Record { user, kind, row } = *record;
        match kind {
            RecordKind::Put | RecordKind::LatePut => {
                let barrier = self.forgotten.get(&(user, row.movie)).max(self.erased.get(&user));
                if barrier.is_none_or(|barrier| row.write_time > *barrier) {
                    let kept = self.rows.entry((user, row.movie)).or_insert(row);
                    *kept = newest(*kept, row);
                }
            }
            RecordKind::Forget => {
                let barrier = self.forgotten.entry((user, row.movie)).or_insert(row.write_time);
                *barrier = row.write_time.max(*barrier);
                if self.rows.get(&(user, row.movie)).is_some_and(|kept| kept.write_time <= row.write_time) {
                    self.rows.remove(&(user, row.movie));
                }
            }
            RecordKind::Erase => {
                let barrier = self.erased.entry(user).or_insert(row.write_time);
                *barrier = row.write_time.max(*barrier);
                self.rows.retain(|(of, _), kept| *of != user || kept.write_time > row.write_time);
            }
        }
    }

    /// One title's bookmark.
    #[must_use]
    pub fn bookmark(&self, user: UserId, movie: MovieId) -> Option<Bookmark> {
        self.rows.get(&(user, movie)).copied()
    }

    /// All of a user's titles, in the order of lists.
    #[must_use]
    pub fn titles(&self, user: UserId) -> Vec<Bookmark> {
        let range = (user, MovieId(i64::MIN))..=(user, MovieId(i64::MAX));
        let mut titles = self.rows.range(range).map(|(_, row)| *row).collect();
        newest_first(&mut titles);
        titles
    }

    /// Everything, as [`super::scan`] wants it: by user, of each the erasure first, then by title.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        let is_newest = |(user, movie): (UserId, MovieId), forgotten: WriteTime| {
            let row = self.rows.get(&(user, movie)).map(|row| row.write_time);
            row.max(self.erased.get(&user).copied()).is_none_or(|newer| newer < forgotten)
        };
        let rows = self.rows.iter().map(|((user, _), row)| Record { user: *user, kind: RecordKind::Put, row: *row });
        let forgets = self.forgotten.iter().filter(|(title, forgotten)| is_newest(**title, **forgotten));
        let forgets = forgets.map(|((user, movie), forgotten)| Record::forget(*user, *movie, *forgotten));
        let erasures = self.erased.iter().map(|(user, erased)| Record::erase(*user, *erased));
        let mut records: Vec<_> = rows.chain(forgets).chain(erasures).collect();
        records.sort_unstable_by_key(|record| (record.user, record.kind != RecordKind::Erase, record.row.movie));
        records
    }
}

struct State {
    stamper: Stamper,
    model: Model,
    closed: bool,
}

impl Memory {
    /// An empty store that keeps rows for ever.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self::with_retention(clock, None)
    }

    /// An empty store that shows no row older than `retention`.
    #[must_use]
    pub fn with_retention(clock: Arc<dyn Clock>, retention: Option<Duration>) -> Self {
        let state = State { stamper: Stamper::new(None), model: Model::default(), closed: false };
        Self {
            clock,
            retention,
            state: Mutex::new(state),
            condition: Condition::default(),
            metrics: StoreMetrics::default(),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_retained(&self, row: &Bookmark) -> bool {
        self.retention.is_none_or(|retention| row.write_time > self.clock.now().before(retention))
    }
}

impl Store for Memory {
    fn commit(&self, group: Group) {
        let mut state = self.state();
        if state.closed {
            drop(state);
            return group.settle(Err(StoreError::Refused(Refusal::Unavailable)));
        }
        for write in group.writes() {
            let record = state.stamper.stamp(self.clock.now(), write);
            state.model.apply(&record);
        }
        drop(state);
        group.settle(Ok(()));
    }

    fn bookmarks(
        &self,
        user: UserId,
        movies: Vec<MovieId>,
    ) -> BoxFuture<'static, Result<Vec<Option<Bookmark>>, StoreError>> {
        let state = self.state();
        let found =
            movies.iter().map(|movie| state.model.bookmark(user, *movie).filter(|row| self.is_retained(row))).collect();
        future::ready(Ok(found)).boxed()
    }

    fn titles(&self, user: UserId) -> BoxFuture<'static, Result<Vec<Bookmark>, StoreError>> {
        let mut titles = self.state().model.titles(user);
        titles.retain(|row| self.is_retained(row));
        future::ready(Ok(titles)).boxed()
    }

    fn scan(&self, from: Option<UserId>) -> Scan {
        let mut records = self.state().model.records();
        records.retain(|record| from.is_none_or(|from| record.user >= from));
        records.retain(|record| record.kind != RecordKind::Put || self.is_retained(&record.row));
        Scan::on_a_thread(true, move |pieces| pieces.put_all(records.into_iter().map(Ok)))
    }

    fn condition(&self) -> &Condition {
        &self.condition
    }

    fn metrics(&self) -> &StoreMetrics {
        &self.metrics
    }

    fn close(&self) -> Result<(), StoreError> {
        self.state().closed = true;
        Ok(())
    }
}
