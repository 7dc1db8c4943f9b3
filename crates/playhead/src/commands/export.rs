//! `playhead export`: writes everything that a store holds to a file.
//!
//! From the data directory of a server that is stopped, from a server that serves (`--admin`), or from a cluster. The
//! lines are [`playhead_archive`]'s; a file whose name ends in `.zst` is compressed.
//!
//! **The promise.** A file under the name that was given is whole: it is written beside it, under `….partial`, synced,
//! and gets its name last. A file that is there already is not touched. What comes from a server is read line by line
//! before it counts. Files can be read by their owner only.
//!
//! **Going on** (`--resume`): the lines that an earlier run left are taken over, and the walk begins at the user of the
//! last of them, whose lines may come twice: the newest wins, as everywhere. All that was acknowledged before the earlier
//! run began is in the file, but it is no picture of one moment.

use crate::Failure;
use crate::cli::Output;
use crate::clock::SystemClock;
use crate::config::read_admin_token;
use crate::place::{Place, PlaceFlags};
use crate::progress::Progress;
use crate::remote::RemoteExport;
use anyhow::{Context, bail};
use clap::Args;
use playhead_archive::{Counts, Header, Item, Reader, Writer};
use playhead_core::{Clock, Record, UserId, WriteTime};
use playhead_engine::store::embedded::scan;
use playhead_engine::{Scan, Store};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Lines of an archive that are taken at once.
const LINES_AT_ONCE: usize = 1_000;

const EXAMPLES: &str = "\
Examples:
  playhead export backup.ndjson.zst --admin http://127.0.0.1:9464 --admin-token-file /etc/playhead/admin-token
      Of a server that serves, and was started with the same --admin-token-file.
  playhead export backup.ndjson.zst --data-dir /var/lib/playhead
      Of a server that is stopped.
  playhead export rows.ndjson.zst --store cassandra --cassandra-nodes 10.0.0.5,10.0.0.6
      Of a cluster. Forgets and erasures can't be read back from one, so they are not in it.
  playhead export rows.ndjson.zst --resume --store cassandra --cassandra-nodes 10.0.0.5,10.0.0.6
      The same, as often as it breaks off: each run goes on where the last one ended.
  playhead export - --data-dir /var/lib/playhead | jq -c 'select(.row) | .row'
      To stdout, as plain lines.";

/// Flags of `export`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Export {
    /// The file to write, compressed if its name ends in .zst; - is stdout
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// A server that serves: its address for operators
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
    /// File with the token that this server was given for it
    #[arg(long, env = "PLAYHEAD_ADMIN_TOKEN_FILE", value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
    /// If it breaks off, keep what came so far as FILE.partial; and go on from there, if an earlier run of the same
    /// source has left one
    #[arg(long)]
    resume: bool,
    /// How to print what was exported
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output: Output,
    #[command(flatten)]
    place: PlaceFlags,
}

/// What was exported.
struct Done {
    counts: Counts,
    has_barriers: bool,
    /// Rows of a cluster that no Playhead has written.
    left_out: u64,
    /// Records that an earlier run has left.
    taken_over: u64,
}

/// Runs the command.
pub(crate) fn run(flags: &Export) -> Result<(), Failure> {
    let to_stdout = flags.file.as_os_str() == "-";
    if to_stdout && flags.resume {
        return Err(Failure::usage("--resume needs a file: what went to stdout can't be read back"));
    }
    if !to_stdout && flags.file.try_exists().unwrap_or(false) {
        let message = format!("{} is there already: give another name, or remove it", flags.file.display());
        return Err(Failure::usage(message));
    }
    let mut progress = Progress::new();
    let (done, bytes) = if to_stdout {
        let mut sink = Counted { inner: BufWriter::new(io::stdout().lock()), bytes: 0 };
        let done = export(flags, None, &mut sink, &mut progress)?;
        sink.flush().context("can't write to stdout")?;
        (done, sink.bytes)
    } else {
        let partial = beside(&flags.file, ".partial");
        let outcome = to_file(flags, &partial, &mut progress);
        if outcome.is_err() {
            progress.end();
            // What was being taken over is still where it was, or has been.
            let _ = fs::remove_file(next_of_partial(&partial));
            if flags.resume && fs::metadata(&partial).is_ok_and(|metadata| metadata.len() > 0) {
                eprintln!("what came so far is in {}: the same command goes on from there", partial.display());
            } else {
                // What is not whole is of no use; why it is not is being told.
                let _ = fs::remove_file(&partial);
            }
        }
        outcome?
    };
    let seconds = progress.end();
    let text = match flags.output {
        Output::Text => as_text(&done, bytes, seconds),
        Output::Json => as_json(&done, bytes, seconds),
    };
    if to_stdout {
        eprint!("{text}");
    } else {
        super::print(text.as_bytes());
    }
    Ok(())
}

fn beside(file: &Path, ending: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// Where what an earlier run has left is written anew.
fn next_of_partial(partial: &Path) -> PathBuf {
    beside(partial, ".next")
}

fn to_file(flags: &Export, partial: &Path, progress: &mut Progress) -> Result<(Done, u64), Failure> {
    let earlier = if flags.resume { Earlier::of(partial)? } else { None };
    // What an earlier run has left stays as it is until all of it is taken over.
    let begun = earlier.as_ref().map_or_else(|| partial.to_owned(), |_| next_of_partial(partial));
    let failed = || format!("can't write {}", begun.display());
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&begun);
    let mut sink = Counted { inner: BufWriter::new(file.with_context(failed)?), bytes: 0 };
    let fill = |sink: &mut dyn Write, progress: &mut Progress| {
        let mut taken_over = None;
        if let Some(earlier) = earlier {
            taken_over = Some(earlier.take_over(sink, progress)?);
            sink.flush().with_context(failed)?;
            fs::rename(&begun, partial).with_context(failed)?;
        }
        let done = export(flags, taken_over, sink, progress);
        if done.is_err() {
            // For another run; why this one has ended is being told.
            let _ = sink.flush();
        }
        done
    };
    let done = if flags.file.extension().is_some_and(|extension| extension == "zst") {
        let mut compressed = zstd::Encoder::new(&mut sink, zstd::DEFAULT_COMPRESSION_LEVEL).with_context(failed)?;
        compressed.include_checksum(true).with_context(failed)?;
        let done = fill(&mut compressed, progress)?;
        compressed.finish().with_context(failed)?;
        done
    } else {
        fill(&mut sink, progress)?
    };
    let file = sink.inner.into_inner().map_err(io::IntoInnerError::into_error).with_context(failed)?;
    keep(&file, partial, &flags.file).with_context(|| format!("can't keep {}", flags.file.display()))?;
    Ok((done, sink.bytes))
}

/// Makes the file durable, then gives it its name, and makes that durable too.
#[expect(clippy::disallowed_methods, reason = "a backup is no part of a store: nothing but this file hangs on it")]
fn keep(file: &File, partial: &Path, name: &Path) -> io::Result<()> {
    file.sync_all()?; // tidy-allow(sync-fence): a backup is no part of a store, and is worth nothing before it is synced
    fs::rename(partial, name)?;
    let directory = name.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all() // tidy-allow(sync-fence): as above, of its name
}

/// What an earlier run has left.
struct Earlier {
    file: PathBuf,
    reader: Reader<Box<dyn BufRead>>,
}

/// The same, written anew.
struct TakenOver {
    writer: Writer,
    records: u64,
    has_barriers: bool,
    /// The user of the last line.
    last: Option<UserId>,
}

impl Earlier {
    /// `None` if there is nothing that could be gone on from.
    fn of(file: &Path) -> Result<Option<Self>, Failure> {
        // A run that ends soon leaves an empty one.
        if fs::metadata(file).map_or(0, |metadata| metadata.len()) == 0 {
            return Ok(None);
        }
        match Reader::new(super::import::open(file)?, WriteTime::MAX) {
            Ok(reader) => Ok(Some(Self { file: file.to_owned(), reader })),
            Err(error) if error.is_loss() => Ok(None),
            Err(error) => Err(anyhow::Error::new(error).context(no_beginning(file)).into()),
        }
    }

    /// Writes all of its lines that are whole.
    fn take_over(mut self, sink: &mut dyn Write, progress: &mut Progress) -> Result<TakenOver, Failure> {
        let has_barriers = self.reader.header().has_barriers;
        let exported_at = WriteTime::from_micros(self.reader.header().exported_at_us);
        let mut writer = Writer::new(env!("CARGO_PKG_VERSION"), exported_at, has_barriers);
        let mut last = None;
        while let Some(records) = next_of(&mut self.reader).with_context(|| no_beginning(&self.file))? {
            records.iter().for_each(|record| writer.record(record));
            last = records.last().map_or(last, |record| Some(record.user));
            sink.write_all(&writer.take()).context("can't write")?;
            progress.at(|| format!("{} rows of an earlier run", writer.counts().rows));
        }
        let Counts { rows, forgets, erases } = writer.counts();
        Ok(TakenOver { writer, records: rows + forgets + erases, has_barriers, last })
    }
}

fn no_beginning(file: &Path) -> String {
    format!("can't go on from {}: remove it", file.display())
}

/// Where records come from.
enum Source {
    /// A walk, when it began, and the cluster's store, if it is one of those.
    Walk(Scan, WriteTime, Option<Arc<dyn Store>>),
    /// What a server sends. `None` after its end.
    Server(Header, Option<Box<Reader<BufReader<RemoteExport>>>>),
}

impl Source {
    /// Everything, or what comes from a user on.
    fn open(flags: &Export, from: Option<UserId>) -> Result<Self, Failure> {
        if let Some(url) = &flags.admin {
            let Some(file) = &flags.admin_token_file else {
                return Err(Failure::usage("--admin wants a token: give --admin-token-file, as that server was given"));
            };
            let remote = RemoteExport::ask(url, &read_admin_token(file)?, from)?;
            let reader = BufReader::with_capacity(256 << 10, remote);
            // Whatever a store holds is part of its backup: an import is stricter.
            let reader = Reader::new(reader, WriteTime::MAX).context("what the server sends is not taken")?;
            return Ok(Self::Server(reader.header().clone(), Some(Box::new(reader))));
        }
        let place = flags.place.open()?;
        let exported_at = SystemClock.now();
        match place {
            Place::Directory(options) => {
                let clock: Arc<dyn Clock> = Arc::new(SystemClock);
                let scan = scan::of_stopped(&options, &clock, from)
                    .with_context(|| format!("can't export the store in {}", options.directory.display()))?;
                Ok(Self::Walk(scan, exported_at, None))
            }
            #[cfg(feature = "cassandra")]
            Place::Cluster(store) => Ok(Self::Walk(store.scan(from), exported_at, Some(Arc::new(store)))),
        }
    }

    fn has_barriers(&self) -> bool {
        match self {
            Self::Walk(scan, ..) => scan.has_barriers(),
            Self::Server(header, _) => header.has_barriers,
        }
    }

    fn exported_at(&self) -> WriteTime {
        match self {
            Self::Walk(_, exported_at, _) => *exported_at,
            Self::Server(header, _) => WriteTime::from_micros(header.exported_at_us),
        }
    }

    /// Some more; `None` once all have come.
    fn next(&mut self) -> Result<Option<Vec<Record>>, Failure> {
        match self {
            Self::Walk(scan, ..) => Ok(scan.blocking_next().context("the store could not be read to its end")?),
            Self::Server(_, reader) => {
                let Some(open) = reader else { return Ok(None) };
                let records = next_of(open.as_mut()).context("what the server sends")?;
                if records.is_none()
                    && let Some(reader) = reader.take()
                {
                    reader.finish().context("what the server has sent is not whole")?;
                }
                Ok(records)
            }
        }
    }

    /// Rows of a cluster that no Playhead has written.
    fn left_out(&self) -> u64 {
        match self {
            Self::Walk(_, _, Some(store)) => store.metrics().foreign_rows.get(),
            _ => 0,
        }
    }
}

/// The records of the next lines; `None` at the end, be it whole or not.
fn next_of(reader: &mut Reader<impl BufRead>) -> anyhow::Result<Option<Vec<Record>>> {
    let mut records = Vec::new();
    while records.len() < LINES_AT_ONCE {
        match reader.next_line().context("it has ended too soon")? {
            Some(Ok(Item::Record(record))) => records.push(record),
            Some(Ok(Item::Trailer)) => {}
            Some(Err(error)) => bail!("line {} is not right: {error}", reader.line()),
            None if records.is_empty() => return Ok(None),
            None => break,
        }
    }
    Ok(Some(records))
}

/// Writes all lines, behind those of an earlier run.
fn export(
    flags: &Export,
    taken_over: Option<TakenOver>,
    sink: &mut dyn Write,
    progress: &mut Progress,
) -> Result<Done, Failure> {
    let mut source = Source::open(flags, taken_over.as_ref().and_then(|earlier| earlier.last))?;
    let has_barriers = source.has_barriers();
    let (mut writer, taken_over) = match taken_over {
        // A cluster's order is not that of a directory.
        Some(earlier) if earlier.has_barriers != has_barriers => {
            return Err(Failure::usage("what the earlier run left is of another kind of store: remove it"));
        }
        Some(earlier) => (earlier.writer, earlier.records),
        None => (Writer::new(env!("CARGO_PKG_VERSION"), source.exported_at(), has_barriers), 0),
    };
    while let Some(records) = source.next()? {
        records.iter().for_each(|record| writer.record(record));
        sink.write_all(&writer.take()).context("can't write")?;
        progress.at(|| format!("{} rows", writer.counts().rows));
    }
    let (counts, left_out) = (writer.counts(), source.left_out());
    sink.write_all(&writer.finish()).context("can't write")?;
    Ok(Done { counts, has_barriers, left_out, taken_over })
}

/// Counts what goes through.
struct Counted<W> {
    inner: W,
    bytes: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn as_text(done: &Done, bytes: u64, seconds: f64) -> String {
    let Counts { rows, forgets, erases } = done.counts;
    let barriers = match done.has_barriers {
        true => format!("{forgets} forgotten titles, {erases} erased users"),
        false => "no forgotten titles or erased users, since a cluster does not give them back".to_owned(),
    };
    let left_out = match done.left_out {
        0 => String::new(),
        rows => format!("left out: {rows} rows that no Playhead has written\n"),
    };
    let taken_over = match done.taken_over {
        0 => String::new(),
        lines => format!("of an earlier run: {lines} lines\n"),
    };
    format!("exported {rows} rows, {barriers}: {bytes} bytes in {seconds:.1} s\n{taken_over}{left_out}")
}

fn as_json(done: &Done, bytes: u64, seconds: f64) -> String {
    let Counts { rows, forgets, erases } = done.counts;
    let json = serde_json::json!({
        "rows": rows,
        "forgets": forgets,
        "erases": erases,
        "has_barriers": done.has_barriers,
        "rows_left_out": done.left_out,
        "lines_of_earlier_run": done.taken_over,
        "bytes": bytes,
        "seconds": seconds,
    });
    format!("{json}\n")
}
