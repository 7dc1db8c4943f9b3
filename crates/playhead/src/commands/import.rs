//! `playhead import`: brings the lines of an export into a store.
//!
//! Into the data directory of a server that is stopped, or into a cluster. The file may be compressed or not.
//!
//! **The promise.** Each row and barrier keeps its write time, and the newest wins, as between heartbeats: so importing
//! twice changes nothing, and one that was interrupted is simply started again. Of a line that is not right nothing is
//! stored: its number and what is wrong with it are told, and the other lines go on. Whether the file was whole is
//! known, and told, at its end.
//!
//! **Exit codes.** 0 all is stored; 1 some lines were not right, or the import could not go on; 4 the file is cut off or
//! damaged: what it still has is stored.
//!
//! **The limits.** [`CHUNK_OF_DIRECTORY`] records in memory for a directory, [`UNDER_WAY`] times [`CHUNK_OF_CLUSTER`]
//! for a cluster, which may be away for [`PATIENCE`].

use crate::Failure;
use crate::cli::Output;
use crate::clock::SystemClock;
use crate::place::{Place, PlaceFlags};
use crate::progress::Progress;
use anyhow::{Context, anyhow};
use clap::Args;
use playhead_archive::{Counts, Item, LineError, Reader};
use playhead_core::{Clock, Record};
#[cfg(feature = "cassandra")]
use playhead_engine::store::cassandra::{Cassandra, import::Importing};
use playhead_engine::store::embedded::import::Import as Directory;
#[cfg(feature = "cassandra")]
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;
#[cfg(feature = "cassandra")]
use std::time::{Duration, Instant};

/// Records that go into a directory at once: one table of its base.
const CHUNK_OF_DIRECTORY: usize = 250_000;

/// Records that go into a cluster at once, and how often that is under way: more would wait for longer than the store lets
/// a write wait, on a cluster that is slow.
#[cfg(feature = "cassandra")]
const CHUNK_OF_CLUSTER: usize = 64;
#[cfg(feature = "cassandra")]
const UNDER_WAY: usize = 8;

/// How long a cluster may refuse before the import gives up, and the pause between two attempts.
#[cfg(feature = "cassandra")]
const PATIENCE: Duration = Duration::from_secs(120);
#[cfg(feature = "cassandra")]
const PAUSE: Duration = Duration::from_millis(250);

/// Lines that are not right and are told one by one.
const TOLD_MAX: u64 = 20;

/// How files begin that are compressed.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

const EXAMPLES: &str = "\
Examples:
  playhead import backup.ndjson.zst --data-dir /var/lib/playhead
      Into the directory of a server that is stopped; made if it is not there.
  playhead import backup.ndjson.zst --store cassandra --cassandra-nodes 10.0.0.5,10.0.0.6
      Into a cluster, also while servers use it.
  playhead import backup.ndjson.zst --config /etc/playhead.toml
      Into the store of the server with these settings.
  ssh db zstd -dc backup.ndjson.zst | playhead import - --data-dir /var/lib/playhead

Exit codes: 0 all is stored; 1 some lines were not right, or it could not go on; 2 wrong use; 4 the file is cut off or
damaged, and what it still has is stored. Importing again is always right: the newest of each position is kept.";

/// Flags of `import`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Import {
    /// The file that `playhead export` wrote, compressed or not; - is stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Go on at this line: those before it are read and checked, but not stored again
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    from_line: u64,
    /// How to print what was imported
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output: Output,
    #[command(flatten)]
    place: PlaceFlags,
}

/// Runs the command.
pub(crate) fn run(flags: &Import) -> Result<(), Failure> {
    let not_taken = || format!("can't import {}", flags.file.display());
    let mut reader = Reader::new(open(&flags.file)?, SystemClock.now()).map_err(|error| Failure {
        exit_code: if error.is_loss() { 4 } else { 1 },
        error: anyhow::Error::new(error).context(not_taken()),
    })?;
    let mut sink = Sink::open(flags.place.open()?)?;
    if !reader.header().has_barriers {
        eprintln!(
            "note: this export holds no forgotten titles and erased users, so devices that were offline may bring back \
             what was forgotten before it"
        );
    }
    let mut progress = Progress::new();
    let mut bad_lines = 0;
    while let Some(item) = reader.next_line().with_context(not_taken)? {
        let line = reader.line();
        match item {
            Ok(Item::Record(record)) if line >= flags.from_line => sink.add(record, line)?,
            Ok(Item::Record(_) | Item::Trailer) => {}
            Err(error) => {
                bad_lines += 1;
                tell(&mut progress, bad_lines, line, &error);
            }
        }
        progress.at(|| format!("line {line}; all up to line {} is stored", sink.stored()));
    }
    let changed = sink.finish()?;
    let lines = reader.line();
    let counts = reader.counts();
    let whole = reader.finish();
    let seconds = progress.end();
    let text = match flags.output {
        Output::Text => as_text(counts, changed, bad_lines, seconds),
        Output::Json => as_json(counts, changed, bad_lines, lines, whole.is_ok(), seconds),
    };
    super::print(text.as_bytes());
    match whole {
        Err(error) => {
            let error = anyhow::Error::new(error)
                .context(format!("{} is not whole; what it still has is stored", flags.file.display()));
            Err(Failure { error, exit_code: 4 })
        }
        Ok(_) if bad_lines > 0 => {
            Err(anyhow!("{bad_lines} lines of {} are not right and were left out", flags.file.display()).into())
        }
        Ok(_) => Ok(()),
    }
}

/// A file that `export` wrote, or stdin, decompressed.
pub(super) fn open(path: &Path) -> Result<Box<dyn BufRead>, Failure> {
    let unreadable = || format!("can't read {}", path.display());
    let mut input: Box<dyn BufRead> = if path.as_os_str() == "-" {
        Box::new(BufReader::new(io::stdin()))
    } else {
        Box::new(BufReader::with_capacity(256 << 10, File::open(path).with_context(unreadable)?))
    };
    let begins = input.fill_buf().with_context(unreadable)?;
    if begins.starts_with(&ZSTD_MAGIC) {
        input = Box::new(BufReader::with_capacity(256 << 10, zstd::Decoder::with_buffer(input)?));
    }
    Ok(input)
}

fn tell(progress: &mut Progress, bad_lines: u64, line: u64, error: &LineError) {
    if bad_lines <= TOLD_MAX {
        progress.end();
        eprintln!("line {line}: {error}");
    }
    if bad_lines == TOLD_MAX {
        eprintln!("further lines that are not right are counted only");
    }
}

/// Where records go.
enum Sink {
    Directory {
        import: Box<Directory>,
        open: Vec<Record>,
        /// The line of the last record in `open`.
        line: u64,
        stored: u64,
        changed: u64,
    },
    #[cfg(feature = "cassandra")]
    Cluster(Box<Cluster>),
}

impl Sink {
    fn open(place: Place) -> Result<Self, Failure> {
        match place {
            Place::Directory(options) => {
                let clock: Arc<dyn Clock> = Arc::new(SystemClock);
                let directory = options.directory.clone();
                let import = Directory::open(options, clock)
                    .with_context(|| format!("can't import into {}", directory.display()))?;
                Ok(Self::Directory { import: Box::new(import), open: Vec::new(), line: 0, stored: 0, changed: 0 })
            }
            #[cfg(feature = "cassandra")]
            Place::Cluster(store) => Ok(Self::Cluster(Box::new(Cluster {
                store,
                open: Vec::new(),
                line: 0,
                stored: 0,
                under_way: VecDeque::new(),
            }))),
        }
    }

    /// Takes a record, from this line.
    fn add(&mut self, record: Record, at: u64) -> Result<(), Failure> {
        match self {
            Self::Directory { open, line, .. } => {
                open.push(record);
                *line = at;
                if open.len() < CHUNK_OF_DIRECTORY {
                    return Ok(());
                }
                self.flush()
            }
            #[cfg(feature = "cassandra")]
            Self::Cluster(cluster) => cluster.add(record, at),
        }
    }

    fn flush(&mut self) -> Result<(), Failure> {
        match self {
            Self::Directory { import, open, line, stored, changed } => {
                *changed += import.add(std::mem::take(open)).with_context(|| stopped(*stored))?;
                *stored = *line;
                Ok(())
            }
            #[cfg(feature = "cassandra")]
            Self::Cluster(cluster) => cluster.flush(),
        }
    }

    /// Every record up to this line is stored.
    fn stored(&self) -> u64 {
        match self {
            Self::Directory { stored, .. } => *stored,
            #[cfg(feature = "cassandra")]
            Self::Cluster(cluster) => cluster.stored,
        }
    }

    /// Stores the rest. How many rows and barriers were changed, if the store can say.
    fn finish(mut self) -> Result<Option<u64>, Failure> {
        self.flush()?;
        match self {
            Self::Directory { changed, .. } => Ok(Some(changed)),
            #[cfg(feature = "cassandra")]
            Self::Cluster(_) => Ok(None),
        }
    }
}

/// What to do after an import that could not go on.
fn stopped(stored: u64) -> String {
    let next = stored + 1;
    format!("the import has stopped; all up to line {stored} is stored: import again, or go on with --from-line {next}")
}

/// A cluster, and what is on its way there.
#[cfg(feature = "cassandra")]
struct Cluster {
    store: Cassandra,
    open: Vec<Record>,
    /// The line of the last record in `open`.
    line: u64,
    stored: u64,
    /// Oldest first; each with the line of its last record.
    under_way: VecDeque<(Importing, Vec<Record>, u64)>,
}

#[cfg(feature = "cassandra")]
impl Cluster {
    fn add(&mut self, record: Record, line: u64) -> Result<(), Failure> {
        self.open.push(record);
        self.line = line;
        if self.open.len() < CHUNK_OF_CLUSTER {
            return Ok(());
        }
        self.send();
        while self.under_way.len() >= UNDER_WAY {
            self.settle()?;
        }
        Ok(())
    }

    fn send(&mut self) {
        let records = std::mem::take(&mut self.open);
        self.under_way.push_back((self.store.import(records.clone()), records, self.line));
    }

    fn flush(&mut self) -> Result<(), Failure> {
        self.send();
        while !self.under_way.is_empty() {
            self.settle()?;
        }
        Ok(())
    }

    /// Waits for the oldest chunk, and sends it again until it is stored.
    fn settle(&mut self) -> Result<(), Failure> {
        let Some((importing, records, line)) = self.under_way.pop_front() else { return Ok(()) };
        let mut outcome = importing.wait();
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = outcome {
            if Instant::now() >= deadline {
                let away = format!("the cluster has taken nothing for {} s", PATIENCE.as_secs());
                return Err(anyhow::Error::new(error).context(away).context(stopped(self.stored)).into());
            }
            std::thread::park_timeout(PAUSE);
            outcome = self.store.import(records.clone()).wait();
        }
        self.stored = line;
        Ok(())
    }
}

fn as_text(counts: Counts, changed: Option<u64>, bad_lines: u64, seconds: f64) -> String {
    let Counts { rows, forgets, erases } = counts;
    let changed = match changed {
        Some(changed) => format!("; {changed} of them were new or newer"),
        None => String::new(),
    };
    let bad = if bad_lines > 0 { format!("; {bad_lines} lines were not right") } else { String::new() };
    format!("imported {rows} rows, {forgets} forgotten titles, {erases} erased users in {seconds:.1} s{changed}{bad}\n")
}

fn as_json(counts: Counts, changed: Option<u64>, bad_lines: u64, lines: u64, is_whole: bool, seconds: f64) -> String {
    let Counts { rows, forgets, erases } = counts;
    let json = serde_json::json!({
        "lines": lines,
        "rows": rows,
        "forgets": forgets,
        "erases": erases,
        "changed": changed,
        "bad_lines": bad_lines,
        "is_whole": is_whole,
        "seconds": seconds,
    });
    format!("{json}\n")
}
