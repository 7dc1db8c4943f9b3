//! `playhead check`: reads all of a stopped store and says what is wrong; with repair, goes on without what is lost.
//!
//! **The promise.** Without repair nothing is changed, but for files that the base has done with and removes whenever
//! it is opened. Repair keeps every whole record that the log still has, also those behind a hole, brings them into the
//! base, and moves the log's old segments into a directory `damaged-…` beside it: nothing is deleted. It mends the log
//! only; a damaged base needs a backup.

use super::base::{Base, Mark};
use super::disk::{Disk, OsDisk};
use super::drain::drain;
use super::log::{Log, Salts, Segments, segment_id};
use super::memtable::Memtable;
use super::recovery::{self, OnLoss, Recovered, RecoveryError};
use super::{EmbeddedOptions, OpenError, Places, lock_directory, random};
use playhead_core::{Clock, Record};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Segments of the log.
    pub segments: usize,
    /// Whole records of the log that the base does not have yet.
    pub records_to_replay: u64,
    /// Rows in the base.
    pub rows: u64,
    /// Barriers of forgets and erasures in the base.
    pub barriers: u64,
    /// What an operator should know; nothing acknowledged is lost by it.
    pub warnings: Vec<String>,
    /// What is damaged or lost.
    pub problems: Vec<String>,
    /// Where the log's old segments were moved by a repair.
    pub set_aside: Option<PathBuf>,
}

/// Checks the store in a directory that no process uses; `progress` is told how many rows of the base were read so far.
///
/// # Errors
/// What keeps the store from being checked at all.
pub fn check(
    options: &EmbeddedOptions,
    clock: Arc<dyn Clock>,
    repair: bool,
    progress: &mut dyn FnMut(u64),
) -> Result<Report, OpenError> {
    let directory = &options.directory;
    let is_there = |path: &Path| path.try_exists().unwrap_or(false);
    let places = Places::of(directory);
    if !is_there(&places.log) && !is_there(&places.base) {
        return Err(OpenError::NoStore(directory.clone()));
    }
    let _lock = lock_directory(directory)?;
    let mut report = Report::default();
    // A log that is gone is a loss to report; what is reported is changed by a repair only.
    let disk = if repair || is_there(&places.log) {
        Some(OsDisk::create_directory(&places.log).map_err(|source| places.log_error(source))?)
    } else {
        report.problems.push(format!("the log {} is missing", places.log.display()));
        None
    };
    let base = if is_there(&places.base) {
        let opened = Base::open(&places.base, &options.base_options(&clock));
        Some(opened.map_err(|error| places.base_error(&error))?)
    } else {
        report.problems.push(format!("the base {} is missing", places.base.display()));
        None
    };
    let mark = base.as_ref().map_or(Ok(None), Base::mark).map_err(|error| places.base_error(&error))?;

    let table = Memtable::new();
    let replay = |record: &Record| {
        if repair {
            table.apply(record);
        }
    };
    let recovered = disk.as_ref().map(|disk| recovery::recover(disk, mark.as_ref(), OnLoss::GoOn, replay));
    let recovered = match recovered.transpose() {
        Ok(recovered) => recovered.flatten(),
        Err(RecoveryError::Lost(loss)) => {
            report.problems.push(RecoveryError::Lost(loss).to_string());
            None
        }
        Err(error) => return Err(places.recovery_error(error)),
    };
    if let Some(recovered) = &recovered {
        report.segments = recovered.segments.len();
        report.records_to_replay = recovered.replayed;
        report.warnings.clone_from(&recovered.warnings);
        let losses = recovered.losses.iter().map(|loss| RecoveryError::Lost(loss.clone()).to_string());
        report.problems.extend(losses);
    }
    if let Some(base) = &base {
        match base.verify(progress) {
            Ok(contents) => {
                report.rows = contents.rows;
                report.barriers = contents.barriers;
            }
            Err(error) => report.problems.push(format!("in {}: {}", places.base.display(), super::chain(&error))),
        }
    }
    match (base, disk, recovered) {
        (Some(base), Some(disk), Some(recovered)) if repair && !recovered.losses.is_empty() => {
            let aside = set_aside(directory, &disk, &clock)?;
            restart_log(&base, disk, &table, recovered, options, &clock, &places)?;
            report.set_aside = Some(aside);
        }
        _ => {}
    }
    Ok(report)
}

/// Copies all segments of the log into a directory of their own: the last trace of what is lost.
fn set_aside(directory: &Path, log: &OsDisk, clock: &Arc<dyn Clock>) -> Result<PathBuf, OpenError> {
    const CHUNK: u64 = 1 << 20;
    let aside = directory.join(format!("damaged-{}", clock.now().micros()));
    let copy = || -> std::io::Result<()> {
        let copies = OsDisk::create_directory(&aside)?;
        for name in log.list()?.iter().filter(|name| segment_id(name).is_some()) {
            let (original, copy) = (log.open(name)?, copies.create(name)?);
            let length = log.length(&original)?;
            let mut chunk = Vec::new();
            for offset in (0..length).step_by(1 << 20) {
                chunk.resize(usize::try_from(CHUNK.min(length - offset)).expect("a mebibyte at most"), 0);
                log.read_at(&original, &mut chunk, offset)?;
                copies.write_at(&copy, &chunk, offset)?;
            }
            copies.sync(&copy)?;
        }
        copies.sync_dir()
    };
    copy().map_err(|source| OpenError::Directory { directory: aside.clone(), source })?;
    Ok(aside)
}

/// Brings what was whole into the base, and begins the log anew behind it.
fn restart_log(
    base: &Base,
    disk: OsDisk,
    table: &Memtable,
    recovered: Recovered,
    options: &EmbeddedOptions,
    clock: &Arc<dyn Clock>,
    places: &Places,
) -> Result<(), OpenError> {
    let mark = Mark {
        store_id: recovered.store_id,
        sequence: recovered.last_sequence,
        newest: recovered.newest,
        version: super::log::VERSION,
    };
    drain(table, base, &mark, clock.now(), &[]).map_err(|error| places.base_error(&error))?;
    let salts = Salts::new(u64::from_le_bytes(random()?));
    let restart = || -> std::io::Result<()> {
        let segments = Arc::new(Segments::open(disk, options.segment_bytes, recovered.segments)?);
        if segments.spare_count() == 0 {
            segments.provide_spare()?;
        }
        let next_sequence = recovered.last_sequence + 1;
        Log::start(Arc::clone(&segments), recovered.store_id, recovered.next_segment, next_sequence, salts)?;
        segments.recycle(recovered.last_sequence).map(|_| ())
    };
    restart().map_err(|source| places.log_error(source))
}
