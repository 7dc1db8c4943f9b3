//! `playhead export`: writes everything that a store holds to a file.
//!
//! From the data directory of a server that is stopped, from a server that serves (`--admin`), or from a cluster. The
//! lines are [`playhead_archive`]'s; a file whose name ends in `.zst` is compressed.
//!
//! **The promise.** A file under the name that was given is whole: it is written beside it, under `….partial`, synced,
//! and gets its name last. A file that is there already is not touched. What comes from a server is read line by line
//! before it counts. Files can be read by their owner only.

use crate::Failure;
use crate::cli::Output;
use crate::clock::SystemClock;
use crate::config::read_admin_token;
use crate::place::{Place, PlaceFlags};
use crate::progress::Progress;
use crate::remote::RemoteExport;
use anyhow::{Context, anyhow};
use clap::Args;
use playhead_archive::{Counts, Reader, Writer};
use playhead_core::{Clock, WriteTime};
use playhead_engine::Scan;
use playhead_engine::store::embedded::scan;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const EXAMPLES: &str = "\
Examples:
  playhead export backup.ndjson.zst --admin http://127.0.0.1:9464 --admin-token-file /etc/playhead/admin-token
      Of a server that serves, and was started with the same --admin-token-file.
  playhead export backup.ndjson.zst --data-dir /var/lib/playhead
      Of a server that is stopped.
  playhead export rows.ndjson.zst --store cassandra --cassandra-nodes 10.0.0.5,10.0.0.6
      Of a cluster. Forgets and erasures can't be read back from one, so they are not in it.
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
}

/// Runs the command.
pub(crate) fn run(flags: &Export) -> Result<(), Failure> {
    let to_stdout = flags.file.as_os_str() == "-";
    if !to_stdout && flags.file.try_exists().unwrap_or(false) {
        let message = format!("{} is there already: give another name, or remove it", flags.file.display());
        return Err(Failure::usage(message));
    }
    let mut progress = Progress::new();
    let (done, bytes) = if to_stdout {
        let mut sink = Counted { inner: BufWriter::new(io::stdout().lock()), bytes: 0 };
        let done = export(flags, &mut sink, &mut progress)?;
        sink.flush().context("can't write to stdout")?;
        (done, sink.bytes)
    } else {
        let partial = partial_of(&flags.file);
        let outcome = to_file(flags, &partial, &mut progress);
        if outcome.is_err() {
            // What is not whole is of no use; why it is not is being told.
            let _ = fs::remove_file(&partial);
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

fn partial_of(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

fn to_file(flags: &Export, partial: &Path, progress: &mut Progress) -> Result<(Done, u64), Failure> {
    let failed = || format!("can't write {}", partial.display());
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(partial);
    let mut sink = Counted { inner: BufWriter::new(file.with_context(failed)?), bytes: 0 };
    let done = if flags.file.extension().is_some_and(|extension| extension == "zst") {
        let mut compressed = zstd::Encoder::new(&mut sink, zstd::DEFAULT_COMPRESSION_LEVEL).with_context(failed)?;
        compressed.include_checksum(true).with_context(failed)?;
        let done = export(flags, &mut compressed, progress)?;
        compressed.finish().with_context(failed)?;
        done
    } else {
        export(flags, &mut sink, progress)?
    };
    let file = sink.inner.into_inner().map_err(io::IntoInnerError::into_error).with_context(failed)?;
    keep(&file, partial, &flags.file).with_context(failed)?;
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

/// Writes all lines.
fn export(flags: &Export, sink: &mut dyn Write, progress: &mut Progress) -> Result<Done, Failure> {
    if let Some(url) = &flags.admin {
        let Some(file) = &flags.admin_token_file else {
            return Err(Failure::usage("--admin wants a token: give --admin-token-file, as that server was given"));
        };
        return copy(RemoteExport::ask(url, &read_admin_token(file)?)?, sink, progress);
    }
    let place = flags.place.open()?;
    let exported_at = SystemClock.now();
    match place {
        Place::Directory(options) => {
            let clock: Arc<dyn Clock> = Arc::new(SystemClock);
            let scan = scan::of_stopped(&options, &clock)
                .with_context(|| format!("can't export the store in {}", options.directory.display()))?;
            write(scan, exported_at, sink, progress)
        }
        #[cfg(feature = "cassandra")]
        Place::Cluster(store) => {
            use playhead_engine::Store;
            let mut done = write(store.scan(), exported_at, sink, progress)?;
            done.left_out = store.metrics().foreign_rows.get();
            Ok(done)
        }
    }
}

/// Writes what a walk gives.
fn write(
    mut scan: Scan,
    exported_at: WriteTime,
    sink: &mut dyn Write,
    progress: &mut Progress,
) -> Result<Done, Failure> {
    let has_barriers = scan.has_barriers();
    let mut writer = Writer::new(env!("CARGO_PKG_VERSION"), exported_at, has_barriers);
    while let Some(piece) = scan.blocking_next().context("the store could not be read to its end")? {
        piece.iter().for_each(|record| writer.record(record));
        sink.write_all(&writer.take()).context("can't write")?;
        progress.at(|| format!("{} rows", writer.counts().rows));
    }
    let counts = writer.counts();
    sink.write_all(&writer.finish()).context("can't write")?;
    Ok(Done { counts, has_barriers, left_out: 0 })
}

/// Writes what a server sends, line by line, if it is whole.
fn copy(remote: RemoteExport, sink: &mut dyn Write, progress: &mut Progress) -> Result<Done, Failure> {
    let reader = BufReader::with_capacity(256 << 10, remote);
    // Whatever a store holds is part of its backup: an import is stricter.
    let mut reader = Reader::new(reader, WriteTime::MAX).context("what the server sends is not taken")?;
    sink.write_all(reader.bytes()).context("can't write")?;
    while let Some(item) = reader.next_line().context("the stream has ended too soon")? {
        if let Err(error) = item {
            return Err(anyhow!("line {} of what the server sends is not right: {error}", reader.line()).into());
        }
        sink.write_all(reader.bytes()).context("can't write")?;
        progress.at(|| format!("{} rows", reader.counts().rows));
    }
    let has_barriers = reader.header().has_barriers;
    let counts = reader.finish().context("what the server has sent is not whole, and was not kept")?;
    Ok(Done { counts, has_barriers, left_out: 0 })
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
    format!("exported {rows} rows, {barriers}: {bytes} bytes in {seconds:.1} s\n{left_out}")
}

fn as_json(done: &Done, bytes: u64, seconds: f64) -> String {
    let Counts { rows, forgets, erases } = done.counts;
    let json = serde_json::json!({
        "rows": rows,
        "forgets": forgets,
        "erases": erases,
        "has_barriers": done.has_barriers,
        "rows_left_out": done.left_out,
        "bytes": bytes,
        "seconds": seconds,
    });
    format!("{json}\n")
}
