//! What the tests of the read side share: a clock set by hand, both bases, and a small store without log and threads.

use super::base::{Base, BaseOptions, Expiry, Mark, ModelBase};
use super::drain::{DrainReport, drain};
use super::memtable::Memtable;
use super::read::{SurplusList, TitlesInMemory, UserInMemory};
use super::tables::Tables;
use crate::conformance::TestClock;
use crate::store::TITLES_LISTED_MAX;
use crate::store::memory::Model;
use crate::store::stamp::Stamper;
use playhead_core::{
    Bookmark, Change, Clock, MediaDuration, MovieId, Position, Record, RecordKind, UserId, Write, WriteTime,
};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// The ids where signs and bounds are.
pub(super) const EDGES: [i64; 5] = [i64::MIN, -1, 0, 1, i64::MAX];

/// Where the clocks of tests begin.
pub(super) const START: u64 = 1_000_000_000;

/// A clock that shows [`START`] until it is stepped.
pub(super) fn start_clock() -> Arc<TestClock> {
    Arc::new(TestClock::at_micros(START))
}

pub(super) fn options(clock: &Arc<TestClock>) -> BaseOptions {
    let clock: Arc<dyn Clock> = Arc::<TestClock>::clone(clock);
    BaseOptions { block_cache_bytes: 4 << 20, retention: None, barrier_life: Duration::from_secs(86_400), clock }
}

/// Runs `case` on the base of the simulator.
pub(super) fn on_the_model(options: &BaseOptions, case: impl Fn(Base)) {
    case(Base::Model(ModelBase::new(Expiry::new(options))));
}

/// Runs `case` on either base; the directory is gone afterwards.
pub(super) fn on_both_bases(options: &BaseOptions, case: impl Fn(Base)) {
    on_the_model(options, &case);
    let directory = TempDir::new().unwrap();
    case(Base::open(&directory.path().join("base"), options).unwrap());
}

/// Runs `case` on the base of the simulator, and now and then on either: the disk takes its time and knows no other
/// rules.
pub(super) fn mostly_on_the_model(options: &BaseOptions, case: impl Fn(Base)) {
    match fastrand::u32(..30) {
        0 => on_both_bases(options, case),
        _ => on_the_model(options, case),
    }
}

pub(super) fn row(movie: i64, position: f64, duration: Option<f64>, micros: u64) -> Bookmark {
    Bookmark {
        movie: MovieId(movie),
        position: Position::from_seconds(position).unwrap(),
        duration: duration.map(|seconds| MediaDuration::from_seconds(seconds).unwrap()),
        write_time: WriteTime::from_micros(micros),
    }
}

pub(super) fn put(user: i64, movie: i64, position: f64, micros: u64) -> Record {
    Record { user: UserId(user), kind: RecordKind::Put, row: row(movie, position, None, micros) }
}

pub(super) fn late(user: i64, movie: i64, position: f64, micros: u64) -> Record {
    Record { kind: RecordKind::LatePut, ..put(user, movie, position, micros) }
}

pub(super) fn forget(user: i64, movie: i64, micros: u64) -> Record {
    Record::forget(UserId(user), MovieId(movie), WriteTime::from_micros(micros))
}

pub(super) fn erase(user: i64, micros: u64) -> Record {
    Record::erase(UserId(user), WriteTime::from_micros(micros))
}

pub(super) fn put_now(user: i64, movie: i64, position: f64) -> Write {
    let position = Position::from_seconds(position).unwrap();
    Write { user: UserId(user), change: Change::Put { movie: MovieId(movie), position, duration: None } }
}

/// Tables, a base and the oracle beside them.
pub(super) struct World {
    pub(super) clock: Arc<TestClock>,
    pub(super) tables: Arc<Tables>,
    pub(super) base: Arc<Base>,
    pub(super) surplus: Arc<SurplusList>,
    pub(super) model: Model,
    retention: Option<Duration>,
    stamper: Stamper,
    sequence: u64,
    frozen: Option<(Arc<Memtable>, Mark)>,
}

impl World {
    pub(super) fn new(clock: Arc<TestClock>, options: &BaseOptions, base: Base) -> Self {
        Self {
            clock,
            tables: Arc::new(Tables::new()),
            base: Arc::new(base),
            surplus: Arc::default(),
            model: Model::default(),
            retention: options.retention,
            stamper: Stamper::new(None),
            sequence: 0,
            frozen: None,
        }
    }

    pub(super) fn commit(&mut self, write: &Write) {
        let record = self.stamper.stamp(self.clock.now(), write);
        self.sequence += 1;
        self.model.apply(&record);
        self.tables.active().apply(&record);
    }

    /// Freezes if nothing is frozen.
    pub(super) fn freeze(&mut self) {
        assert_eq!(self.tables.is_frozen(), self.frozen.is_some());
        if let Some(frozen) = self.tables.freeze() {
            let mark = Mark { store_id: [7; 16], sequence: self.sequence, newest: self.stamper.last(), version: 1 };
            self.frozen = Some((frozen, mark));
        }
    }

    /// Brings the frozen table to the base, if there is one; it stays published.
    pub(super) fn ingest(&mut self) -> Option<DrainReport> {
        let (frozen, mark) = self.frozen.as_ref()?;
        let report = drain(frozen, &self.base, mark, self.clock.now(), &self.surplus.take()).unwrap();
        assert_eq!(self.base.mark().unwrap(), Some(*mark));
        Some(report)
    }

    /// Ends a drain whose table was ingested.
    pub(super) fn drained(&mut self) {
        if let Some((frozen, _)) = self.frozen.take() {
            self.tables.drained(frozen);
        }
    }

    /// All of it.
    pub(super) fn drain(&mut self) -> Option<DrainReport> {
        self.freeze();
        let report = self.ingest();
        self.drained();
        report
    }

    /// Reads as the reader does, but on this thread.
    pub(super) fn bookmarks(&self, user: UserId, movies: &[MovieId]) -> Vec<Option<Bookmark>> {
        let mut found = TitlesInMemory::of(&self.tables, user, movies.to_vec());
        let filter = self.base.expiry().filter();
        let settled = found.is_settled().then(|| found.bookmarks(&filter));
        found.add_base(&self.base).unwrap();
        let answer = found.bookmarks(&filter);
        assert_eq!(settled.as_ref().unwrap_or(&answer), &answer, "memory had settled it");
        answer
    }

    pub(super) fn titles(&self, user: UserId) -> Vec<Bookmark> {
        let filter = self.base.expiry().filter();
        let found = UserInMemory::of(&self.tables, user);
        let base = (!found.is_settled()).then_some(&*self.base);
        found.list(base, &filter, &self.surplus).unwrap()
    }

    /// Holds every read against the oracle.
    pub(super) fn check(&self) {
        let oldest = self.retention.map(|retention| self.clock.now().before(retention));
        let is_shown = |row: &Bookmark| oldest.is_none_or(|oldest| row.write_time > oldest);
        let movies = EDGES.map(MovieId);
        for user in EDGES.map(UserId) {
            let expected = movies.map(|movie| self.model.bookmark(user, movie).filter(is_shown));
            assert_eq!(self.bookmarks(user, &movies), expected, "{user}");
            let mut expected = self.model.titles(user);
            expected.retain(is_shown);
            expected.truncate(TITLES_LISTED_MAX);
            assert_eq!(self.titles(user), expected, "the list of {user}");
        }
    }
}
