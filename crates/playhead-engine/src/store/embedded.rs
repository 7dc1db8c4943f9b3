//! The embedded store: an own log and a table in memory, in front of a base on disk. One machine, no set-up.
//!
//! ```text
//! lanes ─groups─▶ mailbox ─▶ committer: stamp, one frame ─▶ log (write, fdatasync) ─▶ memtable (in place) ─▶ outcomes
//!                                 │ enough log, a full memtable, after recovery, at the end: freeze (swap two tables)
//!                                 ▼
//!                  drain: frozen table, sorted ─▶ base: one ingestion, the mark as its last row ─▶ segments recycled
//! reads: (active, frozen) taken as one value, THEN the base ─▶ newest write time wins
//! start: the base's mark, and every later frame of the log ─▶ new segment ─▶ ready, draining in the background
//! ```
//!
//! **The promise.** A write settled `Ok` survives SIGKILL and a power cut, and every later read sees it. After a failed
//! write or sync nothing more is settled `Ok` by this process: the store has failed for good ([`Health::Failed`]), and
//! recovery at the next start reads the log.
//!
//! **The limits.** Writes waiting ([`committer::MAILBOX_WRITES_MAX`]), the memtable's bytes, the log kept before a
//! drain, reads waiting ([`read`]), free space on the disk: at each bound writes (or reads) are refused, nothing
//! queues. Opening reads the whole log above the mark: a quarter of a gigabyte at the defaults.
//!
//! **The directory** holds `LOCK` (an flock of the one process that may use it), `log/` and `base/`; beside them may
//! lie what `playhead` keeps there (`dev-secret`) and what a repair put aside (`damaged-…`).
//!
//! In reading order: [`log`], [`recovery`], [`replay`], [`committer`], [`memtable`], [`drain`], [`base`], [`read`], and
//! [`disk`]; [`scan`] and [`import`] are the ways of everything at once, out and in.

mod log;
mod recovery;
mod replay;
mod committer;
mod memtable;
mod tables;
mod drain;
mod base;
mod read;
mod threads;
mod watchdog;
mod disk;
mod stop;
mod sync;
pub(crate) mod bounds;
pub mod check;
pub mod scan;
pub mod import;
#[cfg(test)]
#[cfg(feature = "model-check")]
mod model_check;
#[cfg(test)]
mod simulated;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use crate::metrics::StoreMetrics;
use crate::store::scan::Scan;
use crate::store::stamp::Stamper;
use crate::store::{Condition, Durability, Group, Health, Refusal, Store, StoreError};
use base::{Base, BaseOptions, Mark};
use committer::{CommitLimits, Committer, DrainJob, Mailbox};
use disk::{Disk, OsDisk};
use futures_util::future::BoxFuture;
use log::{Log, Salts, Segments, StoreId};
use playhead_core::{Bookmark, Clock, MovieId, UserId, WriteTime};
use read::{Reader, SurplusList};
use recovery::{OnLoss, Recovered, RecoveryError};
use rustix::fs::FlockOperation;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use stop::Stop;
use tables::Tables;
use threads::Threads;
use watchdog::SyncWatch;

/// How to open an embedded store; [`EmbeddedOptions::at`] gives the defaults.
#[derive(Debug, Clone)]
pub struct EmbeddedOptions {
    /// The data directory; made if it is not there.
    pub directory: PathBuf,
    /// Rows not written for this long are neither shown nor kept; `None` keeps them for ever.
    pub retention: Option<Duration>,
    /// How late an item may be: barriers live a day longer.
    pub max_item_age: Duration,
    /// The size of a log segment: whole blocks of 4 KiB, 64 KiB at least.
    pub segment_bytes: u64,
    /// The log written since the last freeze at which the memtable is frozen.
    pub freeze_bytes: u64,
    /// The memtable's size at which it is frozen.
    pub memtable_bytes: usize,
    /// Free space below which writes are refused.
    pub disk_reserve_bytes: u64,
    /// The base's block cache.
    pub block_cache_bytes: u64,
    /// How long the committer waits for more groups before it writes a frame that does not fill a block.
    pub commit_window: Duration,
}

impl EmbeddedOptions {
    /// The smallest segment: it holds a frame of the largest group.
    pub const SEGMENT_BYTES_MIN: u64 = 64 << 10;

    /// The defaults, in this directory.
    #[must_use]
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            retention: None,
            max_item_age: Duration::from_secs(30 * 86_400),
            segment_bytes: 64 << 20,
            freeze_bytes: 256 << 20,
            memtable_bytes: 256 << 20,
            disk_reserve_bytes: 1 << 30,
            block_cache_bytes: 64 << 20,
            commit_window: Duration::from_millis(5),
        }
    }

    fn base_options(&self, clock: &Arc<dyn Clock>) -> BaseOptions {
        BaseOptions {
            block_cache_bytes: self.block_cache_bytes,
            retention: self.retention,
            barrier_life: self.max_item_age + Duration::from_secs(86_400),
            clock: Arc::clone(clock),
        }
    }

    /// Whether a store can be opened with these.
    ///
    /// # Errors
    /// [`OpenError::Setting`]
    pub fn check(&self) -> Result<(), OpenError> {
        let block = log::BLOCK as u64;
        if self.segment_bytes < Self::SEGMENT_BYTES_MIN || !self.segment_bytes.is_multiple_of(block) {
            let what = format!(
                "segment_bytes is {}; it must be a multiple of {block}, and {} at least",
                self.segment_bytes,
                Self::SEGMENT_BYTES_MIN
            );
            return Err(OpenError::Setting(what));
        }
        Ok(())
    }
}

const _: () = assert!(
    log::frame_records_max(EmbeddedOptions::SEGMENT_BYTES_MIN) >= crate::lane::GROUP_WRITES_MAX,
    "a group lies in one frame"
);

/// What keeps a store from opening, in words for the person who starts it. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A setting has a value that can't be used.
    #[error("{0}")]
    Setting(String),
    /// The directory can't be made, read or locked.
    #[error(
        "the data directory {} can't be used: {source}; give one that this user may write with --data-dir",
        .directory.display()
    )]
    Directory {
        /// The data directory.
        directory: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The directory holds other things.
    #[error(
        "{} holds files but no Playhead store; give an empty or a new directory with --data-dir", .0.display()
    )]
    NotOurs(PathBuf),
    /// There is nothing to check.
    #[error("{} holds no Playhead store; give the directory of one with --data-dir", .0.display())]
    NoStore(PathBuf),
    /// Another process has it.
    #[error("{} is in use by another process; stop that one first, or give another --data-dir", .0.display())]
    InUse(PathBuf),
    /// Of log and base only one is there.
    #[error("{} is missing, but {} is there. Put it back, or restore both from a backup{advice}", .missing.display(), .present.display())]
    Half {
        /// The directory that is missing.
        missing: PathBuf,
        /// The directory that is there.
        present: PathBuf,
        /// What else can be done.
        advice: &'static str,
    },
    /// Acknowledged data is missing, or can't be told from missing.
    #[error(
        "the log in {} can't be recovered: {what}. Restore the directory from a backup, or look at it with \
         `playhead check`; `playhead check --repair` goes on without what is lost and keeps the damaged files aside",
        .directory.display()
    )]
    Damaged {
        /// The directory of the log.
        directory: PathBuf,
        /// File, offset, and how much follows.
        what: String,
    },
    /// A newer version of the format.
    #[error("{0}; start that version")]
    NewerFormat(String),
    /// The base can't be opened.
    #[error("the base in {} can't be opened; if it is damaged, restore all from a backup: {what}", .directory.display())]
    Base {
        /// The directory of the base.
        directory: PathBuf,
        /// Why.
        what: String,
    },
    /// The log can't be read or written.
    #[error("the log in {} can't be used; see to the disk, then start again: {source}", .directory.display())]
    Log {
        /// The directory of the log.
        directory: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The operating system refuses a thread or random bytes.
    #[error("the operating system refuses what a store needs: {0}")]
    System(std::io::Error),
}

const NO_SPACE: u8 = 1;
const DRAIN_BEHIND: u8 = 2;
const FAILED: u8 = 4;

/// What the store's threads share.
pub(crate) struct Shared {
    mailbox: Mailbox,
    commit_window: Duration,
    clock: Arc<dyn Clock>,
    metrics: Arc<StoreMetrics>,
    tables: Arc<Tables>,
    base: Arc<Base>,
    reader: Reader,
    surplus: Arc<SurplusList>,
    condition: Condition,
    /// Why writes are refused at present: a set of the bits above.
    refusals: AtomicU8,
    keeper: Stop,
    watchdog: Stop,
}

impl Shared {
    /// The store has failed for good.
    fn fail(&self, reason: &str) {
        self.refusals.fetch_or(FAILED, Ordering::Relaxed);
        self.condition.set(Health::Failed(reason.to_owned()));
    }

    fn has_failed(&self) -> bool {
        self.refusals.load(Ordering::Relaxed) & FAILED != 0
    }

    fn set_refusal(&self, bit: u8, on: bool) {
        // A load costs the committer less than a locked instruction for what hardly ever changes.
        if (self.refusals.load(Ordering::Relaxed) & bit != 0) != on {
            if on {
                self.refusals.fetch_or(bit, Ordering::Relaxed);
            } else {
                self.refusals.fetch_and(!bit, Ordering::Relaxed);
            }
        }
    }

    /// Why a write must be refused now, if it must.
    fn refusal(&self) -> Option<StoreError> {
        let bits = self.refusals.load(Ordering::Relaxed);
        if bits == 0 {
            None
        } else if bits & FAILED != 0 {
            Some(StoreError::Fatal)
        } else if bits & NO_SPACE != 0 {
            self.metrics.refused_no_space.add(1);
            Some(StoreError::Refused(Refusal::NoSpace))
        } else if self.tables.is_frozen() {
            self.metrics.refused_busy.add(1);
            Some(StoreError::Refused(Refusal::Busy))
        } else {
            // The drain has caught up; the next commit takes the bit back.
            None
        }
    }
}

/// The store: see the module.
pub struct Embedded {
    shared: Arc<Shared>,
    /// The threads, and the directory's lock; `None` once closed.
    open: Mutex<Option<(Threads<OsDisk>, File)>>,
}

impl Embedded {
    /// Opens the store in a directory, or makes one. Blocks for as long as recovery takes.
    ///
    /// # Errors
    /// [`OpenError`]; nothing was changed.
    pub fn open(options: EmbeddedOptions, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        options.check()?;
        let lock = lock_directory(&options.directory)?;
        let places = Places::of(&options.directory);
        places.check_both()?;
        let disk = OsDisk::create_directory(&places.log).map_err(|source| places.log_error(source))?;
        let base =
            Base::open(&places.base, &options.base_options(&clock)).map_err(|error| places.base_error(&error))?;
        let chance = Chance { store_id: random()?, salt_seed: u64::from_le_bytes(random()?) };
        let opened = open_parts(disk, &base, &options, &places, chance)?;

        let (base, surplus) = (Arc::new(base), Arc::new(SurplusList::default()));
        let (tables, metrics) = (Arc::clone(&opened.tables), Arc::clone(&opened.metrics));
        let reader = Reader::start(Arc::clone(&tables), Arc::clone(&base), Arc::clone(&metrics), Arc::clone(&surplus))
            .map_err(OpenError::System)?;
        let shared = Arc::new(Shared {
            mailbox: Mailbox::default(),
            commit_window: options.commit_window,
            condition: condition_at_start(opened.newest, clock.now()),
            clock,
            metrics,
            tables,
            base,
            reader,
            surplus,
            refusals: AtomicU8::new(0),
            keeper: Stop::default(),
            watchdog: Stop::default(),
        });
        let threads = Threads::start(opened, &shared, options.disk_reserve_bytes).map_err(OpenError::System)?;
        Ok(Self { shared, open: Mutex::new(Some((threads, lock))) })
    }
}

/// Ready; or degraded, if the clock lies so far behind what is stored that write times no longer mean anything.
fn condition_at_start(newest: Option<WriteTime>, now: WriteTime) -> Condition {
    let condition = Condition::default();
    condition.set_durability(Durability::Synced);
    if newest.is_some_and(|newest| newest.since(now) > CLOCK_BEHIND_MAX) {
        let what = "the newest stored write is over a minute ahead of this machine's clock; write times go on from it";
        tracing::warn!("{what}");
        condition.set(Health::Degraded(what.to_owned()));
    }
    condition
}

/// Whether a store may be opened in this directory: it holds one, or nothing else, or is not there. Changes nothing.
///
/// # Errors
/// [`OpenError::NotOurs`], or [`OpenError::Directory`] if it can't be read.
pub fn check_directory(directory: &Path) -> Result<(), OpenError> {
    let unusable = |source| OpenError::Directory { directory: directory.to_owned(), source };
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(unusable)?,
    };
    let mut is_ours = false;
    let mut is_foreign = false;
    for entry in entries {
        match entry.map_err(unusable)?.file_name().to_str() {
            Some("LOCK" | "log" | "base") => is_ours = true,
            Some("dev-secret" | "lost+found") => {}
            _ => is_foreign = true,
        }
    }
    if is_foreign && !is_ours {
        return Err(OpenError::NotOurs(directory.to_owned()));
    }
    Ok(())
}

/// Takes the directory for this process, if it is ours or empty.
fn lock_directory(directory: &Path) -> Result<File, OpenError> {
    check_directory(directory)?;
    let unusable = |source| OpenError::Directory { directory: directory.to_owned(), source };
    std::fs::create_dir_all(directory).map_err(unusable)?;
    let lock = File::options().create(true).truncate(false).write(true).open(directory.join("LOCK"));
    let lock = lock.map_err(unusable)?;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::InUse(directory.to_owned())),
        Err(error) => Err(unusable(error.into())),
    }
}

/// An error and all that it rests on, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(error.source(), |error| error.source());
    sources.fold(error.to_string(), |text, source| format!("{text}: {source}"))
}

/// The two directories of a store, for its error messages.
#[derive(Debug, Clone)]
struct Places {
    log: PathBuf,
    base: PathBuf,
}

impl Places {
    fn of(directory: &Path) -> Self {
        Self { log: directory.join("log"), base: directory.join("base") }
    }

    /// That neither directory was taken away from the other: told before anything is made in their place.
    ///
    /// A new store makes the log's directory, then the base, then the first segment: neither case is a creation that
    /// was interrupted.
    fn check_both(&self) -> Result<(), OpenError> {
        let is_there = |path: &Path| path.try_exists().map_err(|source| self.log_error(source));
        let half = |missing: &Path, present: &Path, advice| {
            Err(OpenError::Half { missing: missing.to_owned(), present: present.to_owned(), advice })
        };
        match (is_there(&self.log)?, is_there(&self.base)?) {
            (false, true) => {
                half(&self.log, &self.base, "; `playhead check --repair` goes on without what the log held")
            }
            (true, false) if self.has_segments().map_err(|source| self.log_error(source))? => {
                half(&self.base, &self.log, "")
            }
            _ => Ok(()),
        }
    }

    fn has_segments(&self) -> std::io::Result<bool> {
        let mut names = std::fs::read_dir(&self.log)?.flatten().map(|entry| entry.file_name());
        Ok(names.any(|name| name.to_str().is_some_and(|name| log::segment_id(name).is_some())))
    }

    fn log_error(&self, source: std::io::Error) -> OpenError {
        OpenError::Log { directory: self.log.clone(), source }
    }

    fn base_error(&self, error: &base::BaseError) -> OpenError {
        OpenError::Base { directory: self.base.clone(), what: chain(error) }
    }

    fn recovery_error(&self, error: RecoveryError) -> OpenError {
        match error {
            RecoveryError::Io { source, .. } => self.log_error(source),
            RecoveryError::NewerFormat { .. } => OpenError::NewerFormat(error.to_string()),
            _ => OpenError::Damaged { directory: self.log.clone(), what: error.to_string() },
        }
    }
}

/// A store that is open and has no threads yet.
struct Opened<D: Disk> {
    committer: Committer<D>,
    segments: Arc<Segments<D>>,
    tables: Arc<Tables>,
    watch: Arc<SyncWatch>,
    metrics: Arc<StoreMetrics>,
    /// What recovery replayed, to be drained first.
    first_drain: Option<DrainJob>,
    /// The newest write time stored.
    newest: Option<WriteTime>,
}

/// Recovers or creates: the same for the real disk and the simulated one.
fn open_parts<D: Disk>(
    disk: D,
    base: &Base,
    options: &EmbeddedOptions,
    places: &Places,
    chance: Chance,
) -> Result<Opened<D>, OpenError> {
    let log_error = |source| places.log_error(source);
    let metrics = Arc::new(StoreMetrics::default());
    let tables = Arc::new(Tables::new());

    let mark = base.mark().map_err(|error| places.base_error(&error))?;
    check_version(mark.as_ref())?;
    let active = tables.active();
    let recovered = replay::on_all_cores(&active, |replay| {
        recovery::recover(&disk, mark.as_ref(), OnLoss::Refuse, |record| replay.apply(record))
    })
    .map_err(|error| places.recovery_error(error))?;
    let recovered = match recovered {
        Some(recovered) => recovered,
        None => Recovered::nothing(chance.store_id),
    };
    drop(active);
    for warning in &recovered.warnings {
        tracing::warn!(directory = %places.log.display(), "{warning}");
    }

    let segments = Segments::open(disk, options.segment_bytes, recovered.segments).map_err(log_error)?;
    if segments.spare_count() == 0 {
        segments.provide_spare().map_err(log_error)?;
    }
    let segments = Arc::new(segments);
    let first_sequence = recovered.last_sequence + 1 - recovered.last_frame.len() as u64;
    let log = Log::start(
        Arc::clone(&segments),
        recovered.store_id,
        recovered.next_segment,
        first_sequence,
        Salts::new(chance.salt_seed),
    )
    .map_err(log_error)?;
    if mark.is_none() {
        let mark = Mark { store_id: recovered.store_id, sequence: 0, newest: None, version: log::VERSION };
        base.ingest(std::iter::empty(), &mark).map_err(|error| places.base_error(&error))?;
    }

    let watch = Arc::new(SyncWatch::default());
    let limits = CommitLimits { freeze_bytes: options.freeze_bytes, memtable_bytes: options.memtable_bytes };
    let mut committer = Committer::new(
        log,
        Arc::clone(&tables),
        Stamper::new(recovered.newest),
        recovered.store_id,
        limits,
        Arc::clone(&watch),
        Arc::clone(&metrics),
    );
    committer.repeat(recovered.last_frame).map_err(log_error)?;
    let first_drain = committer.freeze();
    if recovered.replayed > 0 {
        tracing::info!(records = recovered.replayed, "replayed the log");
    }

    let newest = recovered.newest;
    Ok(Opened { committer, segments, tables, watch, metrics, first_drain, newest })
}

/// That the base is not of a newer version.
fn check_version(mark: Option<&Mark>) -> Result<(), OpenError> {
    match mark.filter(|mark| mark.version > log::VERSION) {
        Some(mark) => {
            let what = format!("the base was written by a newer version of Playhead (format {})", mark.version);
            Err(OpenError::NewerFormat(what))
        }
        None => Ok(()),
    }
}

/// How far the stored write times may be ahead of the clock before an operator should know.
const CLOCK_BEHIND_MAX: Duration = Duration::from_secs(60);

/// What is left to chance: the simulation takes it from its seed.
#[derive(Debug, Clone, Copy)]
struct Chance {
    /// The id of the store, if it is new.
    store_id: StoreId,
    salt_seed: u64,
}

fn random<const N: usize>() -> Result<[u8; N], OpenError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| OpenError::System(std::io::Error::other(error)))?;
    Ok(bytes)
}

impl Store for Embedded {
    fn commit(&self, group: Group) {
        if group.writes().is_empty() {
            return group.settle(Ok(()));
        }
        if let Some(refusal) = self.shared.refusal() {
            return group.settle(Err(refusal));
        }
        if let Err((group, refusal)) = self.shared.mailbox.put(group) {
            self.shared.metrics.refused_busy.add(1);
            let error = if self.shared.has_failed() { StoreError::Fatal } else { StoreError::Refused(refusal) };
            group.settle(Err(error));
        }
    }

    fn bookmarks(
        &self,
        user: UserId,
        movies: Vec<MovieId>,
    ) -> BoxFuture<'static, Result<Vec<Option<Bookmark>>, StoreError>> {
        self.shared.reader.bookmarks(user, movies)
    }

    fn titles(&self, user: UserId) -> BoxFuture<'static, Result<Vec<Bookmark>, StoreError>> {
        self.shared.reader.titles(user)
    }

    fn scan(&self, from: Option<UserId>) -> Scan {
        scan::of_running(&self.shared, from)
    }

    fn condition(&self) -> &Condition {
        &self.shared.condition
    }

    fn metrics(&self) -> &StoreMetrics {
        &self.shared.metrics
    }

    fn close(&self) -> Result<(), StoreError> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner).take();
        open.map_or(Ok(()), |(threads, _lock)| threads.stop(&self.shared))
    }
}

impl Drop for Embedded {
    /// Ends the threads. Nothing durable hangs on it: what is not drained is in the log.
    fn drop(&mut self) {
        let _ = self.close();
    }
}
