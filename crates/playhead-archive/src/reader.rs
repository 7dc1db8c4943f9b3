//! Reading: line by line, and in the end whether it was all.

use crate::line::{Counts, Header, Line, LineError, Trailer};
use crate::writer::hexadecimal;
use crate::{FORMAT, LINE_BYTES_MAX};
use aws_lc_rs::digest::{Context, SHA256};
use playhead_core::{Record, WriteTime};
use std::io::{self, BufRead, ErrorKind, Read};
use std::time::Duration;

/// How far ahead of now a write time may be and still be believed: as in a cluster's rows.
const FUTURE_MAX: Duration = Duration::from_secs(86_400);

/// Reads one export.
pub struct Reader<R> {
    input: R,
    header: Header,
    /// Of the line at hand, from 1.
    line: u64,
    bytes: Vec<u8>,
    latest: WriteTime,
    digest: Context,
    counts: Counts,
    bad_lines: u64,
    trailer: Option<Trailer>,
    is_damaged: bool,
}

/// What a line holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// A row or a barrier.
    Record(Record),
    /// The trailer. More is only read to see that nothing follows.
    Trailer,
}

/// Why what was read is not an export, or not all of one.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// Something else.
    #[error("this is no export of Playhead: its first line is no header")]
    NoExport,
    /// A newer one.
    #[error("this export was written by a newer version of Playhead (format {0}, this one reads {FORMAT})")]
    NewerFormat(u32),
    /// It ends without a trailer.
    #[error("it is cut off: it ends at line {0}, without its last line, the trailer")]
    CutOff(u64),
    /// The bytes are not those that were written.
    #[error("it is damaged: its checksum does not fit what is in it")]
    Checksum,
    /// The trailer counts other lines.
    #[error("its trailer does not fit: it counts {told:?}, and there are {found:?}")]
    Counts {
        /// What the trailer says.
        told: Counts,
        /// What was read.
        found: Counts,
    },
    /// Reading itself failed.
    #[error("it can't be read on")]
    Io(#[from] io::Error),
}

impl Unfit {
    /// Whether it is an export that has lost something, not something else.
    #[must_use]
    pub fn is_loss(&self) -> bool {
        matches!(self, Self::CutOff(_) | Self::Checksum | Self::Counts { .. })
    }
}

impl<R: BufRead> Reader<R> {
    /// Reads the header. No record may be dated later than a day after `now`.
    ///
    /// # Errors
    /// [`Unfit`], if there is none that this version knows.
    pub fn new(input: R, now: WriteTime) -> Result<Self, Unfit> {
        let nothing = Header { format: FORMAT, version: String::new(), exported_at_us: 0, has_barriers: false };
        let future = u64::try_from(FUTURE_MAX.as_micros()).unwrap_or(0);
        let latest = WriteTime::from_micros(now.micros() + future);
        let mut reader = Self {
            input,
            header: nothing,
            line: 0,
            bytes: Vec::new(),
            latest,
            digest: Context::new(&SHA256),
            counts: Counts::default(),
            bad_lines: 0,
            trailer: None,
            is_damaged: false,
        };
        match reader.read_line() {
            Ok(Some(false)) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Err(Unfit::CutOff(0)),
            Err(error) if is_of_compression(&error) => return Err(Unfit::Checksum),
            Err(error) => return Err(error.into()),
            Ok(_) => return Err(Unfit::NoExport),
        }
        match Line::parse(&reader.bytes) {
            Ok(Line::Header(header)) if header.format == FORMAT => reader.header = header,
            Ok(Line::Header(header)) => return Err(Unfit::NewerFormat(header.format)),
            _ => return Err(Unfit::NoExport),
        }
        reader.digest.update(&reader.bytes);
        Ok(reader)
    }

    /// The first line.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The number of the line that was read last.
    #[must_use]
    pub fn line(&self) -> u64 {
        self.line
    }

    /// That line, as it is, its newline included; of one that is too long, its beginning.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many good records were read so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The next line: what is in it, or what is wrong with it; then the next one can be read. `None` at the end.
    ///
    /// # Errors
    /// If the input can't be read on. That it ends too soon is [`finish`](Self::finish)'s to say.
    pub fn next_line(&mut self) -> io::Result<Option<Result<Item, LineError>>> {
        let is_too_long = match self.read_line() {
            Ok(Some(is_too_long)) => is_too_long,
            Ok(None) => return Ok(None),
            Err(error) if is_of_compression(&error) => {
                self.is_damaged = error.kind() != ErrorKind::UnexpectedEof;
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let item = if is_too_long { Err(LineError::TooLong) } else { self.item() };
        if !matches!(item, Ok(Item::Trailer)) {
            if !is_too_long {
                self.digest.update(&self.bytes);
            }
            match &item {
                Ok(Item::Record(record)) => self.counts.add(record.kind),
                _ => self.bad_lines += 1,
            }
        }
        Ok(Some(item))
    }

    fn item(&mut self) -> Result<Item, LineError> {
        if self.trailer.is_some() {
            return Err(LineError::Misplaced);
        }
        let record = match Line::parse(&self.bytes)? {
            Line::Row(row) => row.record(self.latest)?,
            Line::Forget(forget) => forget.record(self.latest)?,
            Line::Erase(erase) => erase.record(self.latest)?,
            Line::Header(_) => return Err(LineError::Misplaced),
            Line::Trailer(trailer) => {
                self.trailer = Some(trailer);
                return Ok(Item::Trailer);
            }
        };
        Ok(Item::Record(record))
    }

    /// Whether it was all, and as it was written. To be called once [`next_line`](Self::next_line) has given `None`.
    ///
    /// # Errors
    /// [`Unfit`], if not.
    pub fn finish(self) -> Result<Counts, Unfit> {
        if self.is_damaged {
            return Err(Unfit::Checksum);
        }
        let Some(trailer) = self.trailer else { return Err(Unfit::CutOff(self.line)) };
        if !trailer.sha256.eq_ignore_ascii_case(&hexadecimal(self.digest.finish().as_ref())) {
            return Err(Unfit::Checksum);
        }
        let told = Counts { rows: trailer.rows, forgets: trailer.forgets, erases: trailer.erases };
        // Bad lines were told one by one, and nobody knows which kind they were to be.
        if self.bad_lines == 0 && told != self.counts {
            return Err(Unfit::Counts { told, found: self.counts });
        }
        Ok(self.counts)
    }

    /// Reads a line into `bytes`, its newline included. Whether it is too long; `None` at the end.
    fn read_line(&mut self) -> io::Result<Option<bool>> {
        self.bytes.clear();
        let limit = LINE_BYTES_MAX as u64;
        if self.input.by_ref().take(limit).read_until(b'\n', &mut self.bytes)? == 0 {
            return Ok(None);
        }
        if self.bytes.ends_with(b"\n") {
            self.line += 1;
            return Ok(Some(false));
        }
        if self.bytes.len() < LINE_BYTES_MAX {
            // What ends without a newline is a line that was cut off: never taken, even if it looks whole.
            return Ok(None);
        }
        self.line += 1;
        self.digest.update(&self.bytes);
        let mut rest = Vec::new();
        while !rest.ends_with(b"\n") {
            rest.clear();
            if self.input.by_ref().take(limit).read_until(b'\n', &mut rest)? == 0 {
                break;
            }
            self.digest.update(&rest);
        }
        Ok(Some(true))
    }
}

/// Whether the input is compressed and was cut off, or its bytes have changed: libraries tell it like this.
fn is_of_compression(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::InvalidData | ErrorKind::Other)
}
