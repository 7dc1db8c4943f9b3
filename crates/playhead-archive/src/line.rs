//! One line: its JSON, and the record in it.

use playhead_core::{Bookmark, MediaDuration, MovieId, Position, Record, RecordKind, UserId, WriteTime};
use serde::{Deserialize, Serialize};

/// Every kind of line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Line {
    Header(Header),
    Row(Row),
    Forget(Forget),
    Erase(Erase),
    Trailer(Trailer),
}

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// [`crate::FORMAT`]
    pub(crate) format: u32,
    /// The version of Playhead that wrote it.
    pub version: String,
    /// When it was begun, in microseconds since the epoch: what was acknowledged before is in it.
    pub exported_at_us: u64,
    /// Whether forgets and erasures are among the lines.
    pub has_barriers: bool,
}

/// How many lines there are of each kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Rows.
    pub rows: u64,
    /// Forgotten titles.
    pub forgets: u64,
    /// Erased users.
    pub erases: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, kind: RecordKind) {
        match kind {
            RecordKind::Put | RecordKind::LatePut => self.rows += 1,
            RecordKind::Forget => self.forgets += 1,
            RecordKind::Erase => self.erases += 1,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Row {
    user_id: String,
    movie_id: String,
    position_seconds: f64,
    #[serde(default)]
    duration_seconds: Option<f64>,
    write_time_us: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Forget {
    user_id: String,
    movie_id: String,
    write_time_us: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Erase {
    user_id: String,
    write_time_us: u64,
}

/// The last line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Trailer {
    pub(crate) rows: u64,
    pub(crate) forgets: u64,
    pub(crate) erases: u64,
    pub(crate) sha256: String,
}

/// What is wrong with a line. Says nothing of what the line says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// No JSON, or JSON that is something else.
    #[error(
        "not a line of an export (column {0}): no JSON object, or a field is missing, unknown, twice there or of another type"
    )]
    NotALine(usize),
    /// Longer than any line is.
    #[error("longer than {} bytes", crate::LINE_BYTES_MAX)]
    TooLong,
    /// A user's or a title's id.
    #[error("{0} is not a signed 64-bit integer in canonical decimal spelling")]
    Id(&'static str),
    /// The position.
    #[error("position_seconds is not 0 to 1,000,000")]
    Position,
    /// The duration.
    #[error("duration_seconds is not above 0 and at most 1,000,000; leave it out if it is unknown")]
    Duration,
    /// The write time.
    #[error("write_time_us is 0, which is no time")]
    WriteTime,
    /// It would hold up every later write.
    #[error("write_time_us is more than a day ahead of this machine's clock")]
    Future,
    /// A header in the midst, or anything behind the trailer.
    #[error("a line of this kind can't stand here")]
    Misplaced,
}

impl Line {
    pub(crate) fn of(record: &Record) -> Self {
        let (user_id, row) = (record.user.to_string(), &record.row);
        let write_time_us = row.write_time.micros();
        match record.kind {
            RecordKind::Put | RecordKind::LatePut => Self::Row(Row {
                user_id,
                movie_id: row.movie.to_string(),
                position_seconds: row.position.seconds(),
                duration_seconds: row.duration.map(MediaDuration::seconds),
                write_time_us,
            }),
            RecordKind::Forget => Self::Forget(Forget { user_id, movie_id: row.movie.to_string(), write_time_us }),
            RecordKind::Erase => Self::Erase(Erase { user_id, write_time_us }),
        }
    }

    /// Reads a line, its newline left out or not.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, LineError> {
        // The library's own words may repeat what the line says.
        serde_json::from_slice(bytes.trim_ascii_end()).map_err(|error| LineError::NotALine(error.column()))
    }
}

impl Row {
    pub(crate) fn record(&self, latest: WriteTime) -> Result<Record, LineError> {
        let row = Bookmark {
            movie: movie(&self.movie_id)?,
            position: Position::from_seconds(self.position_seconds).map_err(|_| LineError::Position)?,
            duration: match self.duration_seconds {
                Some(seconds) => Some(MediaDuration::from_seconds(seconds).map_err(|_| LineError::Duration)?),
                None => None,
            },
            write_time: write_time(self.write_time_us, latest)?,
        };
        Ok(Record { user: user(&self.user_id)?, kind: RecordKind::Put, row })
    }
}

impl Forget {
    pub(crate) fn record(&self, latest: WriteTime) -> Result<Record, LineError> {
        Ok(Record::forget(user(&self.user_id)?, movie(&self.movie_id)?, write_time(self.write_time_us, latest)?))
    }
}

impl Erase {
    pub(crate) fn record(&self, latest: WriteTime) -> Result<Record, LineError> {
        Ok(Record::erase(user(&self.user_id)?, write_time(self.write_time_us, latest)?))
    }
}

fn user(text: &str) -> Result<UserId, LineError> {
    text.parse().map_err(|_| LineError::Id("user_id"))
}

fn movie(text: &str) -> Result<MovieId, LineError> {
    text.parse().map_err(|_| LineError::Id("movie_id"))
}

/// The type brings any number into its range; here one outside of it is refused instead.
fn write_time(micros: u64, latest: WriteTime) -> Result<WriteTime, LineError> {
    match micros {
        0 => Err(LineError::WriteTime),
        _ if micros > latest.micros() => Err(LineError::Future),
        _ => Ok(WriteTime::from_micros(micros)),
    }
}
