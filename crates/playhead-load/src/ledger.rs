//! The ledger: for each row (one title of one user) the last position sent and the last acknowledged.
//!
//! Filled by [`crate::desk`], read back by [`crate::verify`].
//!
//! **The promise.** A row's positions rise strictly and one request of it is under way at a time. A row whose request met
//! an unknown end (closed, timed out, outcome unknown) is never written again by its run. So whatever befell the server,
//! [`Row::check`] can tell: at least what was acknowledged, at most what was sent, and with the fraction that only this
//! row has at this second, so that one row's position in another, or a torn one, is noticed (63 times of 64).
//!
//! **The file** survives the end of the generator, also by SIGKILL (not a power cut: it is the server's disk that is on
//! trial). While a run lasts, the last position sent stands in it as a *bound*, somewhat ahead, so that not each beat
//! costs a system call; acknowledgements are at most a second behind. Both err to the safe side: a row is never called lost
//! or invented that is not. A run that ends in order writes the exact rows and says so in the header.
//!
//! **The layout**, little-endian: a header of 64 bytes (magic `PHLEDGER`, version, whether the rows are exact, streamers,
//! first user, first title, seed), then a row of 24 bytes (user, movie, sent, acknowledged) for each streamer's current
//! title, then those of titles that were left, in the order of leaving. A row may stand in both parts after a kill; the
//! larger numbers count.

use crate::profile::mix;
use serde::Deserialize;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 8] = b"PHLEDGER";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 64;

/// Of one row in the file.
pub const ROW_BYTES: usize = 24;

/// One title of one user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Whose.
    pub user: i64,
    /// Which title.
    pub movie: i64,
    /// The whole seconds of the last position sent, or a bound above it; 0: none was.
    pub sent: u32,
    /// The whole seconds of the last position acknowledged; 0: none was.
    pub acknowledged: u32,
}

/// What a read of a title found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Found {
    /// The title was never watched.
    Nothing,
    /// This position, in seconds.
    At(f64),
}

/// What is wrong with a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// Less than what was acknowledged is there.
    Lost(Found),
    /// A position that was never sent is there.
    Invented(f64),
}

impl Row {
    /// The fraction of this row's positions at these whole seconds, in 64ths: exact in binary and in six decimals.
    #[must_use]
    pub fn sixty_fourths(&self, seconds: u32) -> u32 {
        let mixed = mix(self.user.cast_unsigned(), self.movie.cast_unsigned(), u64::from(seconds));
        u32::try_from(mixed % 64).expect("below 64")
    }

    /// The position at these whole seconds.
    #[must_use]
    pub fn position(&self, seconds: u32) -> f64 {
        f64::from(seconds) + f64::from(self.sixty_fourths(seconds)) / 64.0
    }

    /// The whole seconds of what was found, if that may be what is stored.
    ///
    /// # Errors
    /// If it may not.
    pub fn check(&self, found: Found) -> Result<u32, Fault> {
        let Found::At(position) = found else {
            return if self.acknowledged == 0 { Ok(0) } else { Err(Fault::Lost(found)) };
        };
        if position < self.position(self.acknowledged) && self.acknowledged > 0 {
            return Err(Fault::Lost(found));
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast from a float saturates")]
        let seconds = position as u32;
        let is_sent = seconds > 0 && seconds <= self.sent && position == self.position(seconds);
        if is_sent { Ok(seconds) } else { Err(Fault::Invented(position)) }
    }

    /// What a bookmark's JSON says; `None` if it is none.
    #[must_use]
    pub fn position_of(json: &[u8]) -> Option<Found> {
        #[derive(Deserialize)]
        struct Bookmark<'a> {
            position_seconds: f64,
            state: &'a str,
        }
        let bookmark: Bookmark<'_> = serde_json::from_slice(json).ok()?;
        Some(if bookmark.state == "none" { Found::Nothing } else { Found::At(bookmark.position_seconds) })
    }

    fn to_bytes(self) -> [u8; ROW_BYTES] {
        let mut bytes = [0; ROW_BYTES];
        bytes[..8].copy_from_slice(&self.user.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.movie.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.sent.to_le_bytes());
        bytes[20..].copy_from_slice(&self.acknowledged.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; ROW_BYTES]) -> Self {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let long = |at: usize| i64::from(word(at + 4).cast_signed()) << 32 | i64::from(word(at));
        Self { user: long(0), movie: long(8), sent: word(16), acknowledged: word(20) }
    }
}

/// Which run a ledger belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The rows of the first part.
    pub streamers: u32,
    /// The user of the first.
    pub first_user: i64,
    /// Its first title.
    pub first_title: i64,
    /// What the run's behaviour was drawn from.
    pub seed: u64,
    /// Whether `sent` is the last position sent and not a bound above it.
    pub is_exact: bool,
}

/// A ledger can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The system refuses.
    #[error("can't {doing} the ledger {}: give --ledger a place with room, that this user may write", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It is none, or of another version.
    #[error("{} is not a ledger that this version reads: {what}", path.display())]
    Foreign {
        /// Which.
        path: PathBuf,
        /// What is odd.
        what: String,
    },
    /// A run can only go on with its own ledger.
    #[error(
        "the ledger {} is of {streamers} streamers from user {first_user} down: give the same --streamers and \
         --first-user to go on with it, or another file to begin anew",
        path.display()
    )]
    Other {
        /// Which.
        path: PathBuf,
        /// Its streamers.
        streamers: u32,
        /// Its first user.
        first_user: i64,
    },
}

/// A ledger's file while a run writes it; shared by the workers, each of which writes its own rows.
#[derive(Debug)]
pub struct LedgerFile {
    path: PathBuf,
    rows: File,
    /// Opened to append: the system puts the rows of several workers one behind the other.
    left: File,
    head: Head,
}

/// A ledger as it was read.
#[derive(Debug, Clone)]
pub struct Contents {
    /// Which run it is of.
    pub head: Head,
    /// The current title of each streamer.
    pub current: Vec<Row>,
    /// Titles that were left.
    pub left: Vec<Row>,
}

impl LedgerFile {
    /// Writes a new ledger, or opens one that is there to go on with it, as [`Contents::read`] has found it.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn open(path: &Path, head: Head, current: &[Row]) -> Result<Self, LedgerError> {
        let failed = |doing| move |source| LedgerError::File { path: path.to_owned(), doing, source };
        let mut options = OpenOptions::new();
        // What is there stays: rows that were left lie behind the first part.
        let rows = options.read(true).write(true).create(true).truncate(false).open(path).map_err(failed("make"))?;
        let left = OpenOptions::new().append(true).open(path).map_err(failed("open"))?;
        let ledger = Self { path: path.to_owned(), rows, left, head: Head { is_exact: false, ..head } };
        ledger.write_head(ledger.head)?;
        ledger.write(0, current)?;
        Ok(ledger)
    }

    fn write_head(&self, head: Head) -> Result<(), LedgerError> {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&u32::from(head.is_exact).to_le_bytes());
        bytes[16..20].copy_from_slice(&head.streamers.to_le_bytes());
        bytes[24..32].copy_from_slice(&head.first_user.to_le_bytes());
        bytes[32..40].copy_from_slice(&head.first_title.to_le_bytes());
        bytes[40..48].copy_from_slice(&head.seed.to_le_bytes());
        self.rows.write_all_at(&bytes, 0).map_err(|source| self.failed(source))
    }

    fn failed(&self, source: io::Error) -> LedgerError {
        LedgerError::File { path: self.path.clone(), doing: "write", source }
    }

    /// Writes rows of the first part, from this one on.
    pub(crate) fn write(&self, first: u32, rows: &[Row]) -> Result<(), LedgerError> {
        let bytes: Vec<u8> = rows.iter().flat_map(|row| row.to_bytes()).collect();
        self.write_bytes(first, &bytes)
    }

    /// Writes one row of the first part.
    pub(crate) fn write_one(&self, at: u32, row: Row) -> Result<(), LedgerError> {
        self.write_bytes(at, &row.to_bytes())
    }

    fn write_bytes(&self, first: u32, bytes: &[u8]) -> Result<(), LedgerError> {
        let offset = HEADER_BYTES as u64 + u64::from(first) * ROW_BYTES as u64;
        self.rows.write_all_at(bytes, offset).map_err(|source| self.failed(source))
    }

    /// Adds a row that will not be written again.
    pub(crate) fn leave(&self, row: Row) -> Result<(), LedgerError> {
        io::Write::write_all(&mut &self.left, &row.to_bytes()).map_err(|source| self.failed(source))
    }

    /// Says that all rows are exact.
    pub(crate) fn finish(&self) -> Result<(), LedgerError> {
        self.write_head(Head { is_exact: true, ..self.head })
    }
}

impl Contents {
    /// Reads a ledger.
    ///
    /// # Errors
    /// If it can't be read or is none.
    pub fn read(path: &Path) -> Result<Self, LedgerError> {
        let failed = |source| LedgerError::File { path: path.to_owned(), doing: "read", source };
        let bytes = std::fs::read(path).map_err(failed)?;
        let foreign = |what: &str| LedgerError::Foreign { path: path.to_owned(), what: what.to_owned() };
        let Some((header, rows)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Err(foreign("it is shorter than a header"));
        };
        if &header[..8] != MAGIC {
            return Err(foreign("it does not begin with PHLEDGER"));
        }
        let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let long = |at: usize| u64::from(word(at + 4)) << 32 | u64::from(word(at));
        if word(8) != VERSION {
            return Err(foreign(&format!("its version is {}, not {VERSION}", word(8))));
        }
        let head = Head {
            streamers: word(16),
            first_user: long(24).cast_signed(),
            first_title: long(32).cast_signed(),
            seed: long(40),
            is_exact: word(12) == 1,
        };
        // The last row may be cut off, by a kill or a full disk: it was then being left, and stands in the first part.
        let mut current: Vec<Row> = rows.as_chunks::<ROW_BYTES>().0.iter().map(Row::from_bytes).collect();
        let streamers = usize::try_from(head.streamers).unwrap_or(usize::MAX);
        if current.len() < streamers {
            return Err(foreign(&format!("it has {} rows of {streamers}", current.len())));
        }
        let left = current.split_off(streamers);
        Ok(Self { head, current, left })
    }

    /// Whether a run of these streamers can go on with it.
    ///
    /// # Errors
    /// If it is another's.
    pub fn must_be_of(&self, path: &Path, streamers: u32, first_user: i64) -> Result<(), LedgerError> {
        if (self.head.streamers, self.head.first_user) == (streamers, first_user) {
            return Ok(());
        }
        let Head { streamers, first_user, .. } = self.head;
        Err(LedgerError::Other { path: path.to_owned(), streamers, first_user })
    }

    /// Every row once.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        let mut rows: HashMap<(i64, i64), Row> = HashMap::with_capacity(self.current.len() + self.left.len());
        for row in self.left.iter().chain(&self.current).filter(|row| row.sent > 0) {
            let known = rows.entry((row.user, row.movie)).or_insert(*row);
            known.sent = known.sent.max(row.sent);
            known.acknowledged = known.acknowledged.max(row.acknowledged);
        }
        let mut rows: Vec<Row> = rows.into_values().collect();
        rows.sort_unstable_by_key(|row| (std::cmp::Reverse(row.user), row.movie));
        rows
    }

    /// Notes what was read back: it was stored, so from now on it counts as acknowledged.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn confirm(&mut self, path: &Path, recovered: &HashMap<(i64, i64), u32>) -> Result<(), LedgerError> {
        for row in self.current.iter_mut().chain(&mut self.left) {
            if let Some(seconds) = recovered.get(&(row.user, row.movie)) {
                row.acknowledged = row.acknowledged.max(*seconds);
            }
        }
        let is_exact = self.head.is_exact;
        let file = LedgerFile::open(path, self.head, &self.current)?;
        let behind = u32::try_from(self.current.len()).unwrap_or(u32::MAX);
        file.write(behind, &self.left)?;
        if is_exact { file.finish() } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(sent: u32, acknowledged: u32) -> Row {
        Row { user: -7, movie: 1 << 40, sent, acknowledged }
    }

    #[test]
    fn only_what_was_sent_and_not_before_the_last_acknowledged_passes() {
        let at = |seconds| Found::At(row(0, 0).position(seconds));
        for (row, found, expected) in [
            (row(50, 30), at(30), Ok(30)),
            (row(50, 30), at(44), Ok(44)),
            (row(50, 30), at(50), Ok(50)),
            (row(50, 0), Found::Nothing, Ok(0)),
            (row(50, 0), at(20), Ok(20)),
            (row(50, 30), Found::Nothing, Err("lost")),
            (row(50, 30), at(29), Err("lost")),
            (row(50, 30), at(51), Err("invented")),
            (row(0, 0), at(1), Err("invented")),
            (row(50, 30), Found::At(row(0, 0).position(44) + 1.0 / 64.0), Err("invented")),
            (row(50, 30), Found::At(f64::NAN), Err("invented")),
            (row(50, 0), Found::At(-1.0), Err("invented")),
            (row(50, 0), Found::At(0.0), Err("invented")),
        ] {
            let is = match row.check(found) {
                Ok(seconds) => Ok(seconds),
                Err(Fault::Lost(_)) => Err("lost"),
                Err(Fault::Invented(_)) => Err("invented"),
            };
            assert_eq!(is, expected, "{row:?} {found:?}");
        }
    }

    fn head(streamers: u32) -> Head {
        Head { streamers, first_user: -1, first_title: 9, seed: 3, is_exact: false }
    }

    #[test]
    fn what_is_written_is_read_and_a_row_in_both_parts_counts_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger");
        let rows = [row(8, 4), Row { user: i64::MIN, movie: -1, sent: u32::MAX, acknowledged: 0 }];
        let file = LedgerFile::open(&path, head(2), &rows).unwrap();
        file.leave(row(12, 12)).unwrap();
        let read = Contents::read(&path).unwrap();
        assert_eq!((read.head, &read.current[..], &read.left[..]), (head(2), &rows[..], &[row(12, 12)][..]));
        assert_eq!(read.rows(), [row(12, 12), rows[1]]);
        file.write_one(0, row(20, 16)).unwrap();
        file.finish().unwrap();

        let mut read = Contents::read(&path).unwrap();
        assert!(read.head.is_exact);
        read.confirm(&path, &[((-7, 1 << 40), 18)].into()).unwrap();
        let read = Contents::read(&path).unwrap();
        assert!(read.head.is_exact);
        assert_eq!((read.current[0], read.left[0]), (row(20, 18), row(12, 18)));
        assert!(read.must_be_of(&path, 2, -1).is_ok());
        for (streamers, first_user) in [(3, -1), (2, -2)] {
            assert!(read.must_be_of(&path, streamers, first_user).is_err());
        }
    }

    #[test]
    fn what_is_no_ledger_is_refused_and_a_cut_row_is_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger");
        let file = LedgerFile::open(&path, head(1), &[row(8, 4)]).unwrap();
        file.leave(row(12, 12)).unwrap();
        let good = std::fs::read(&path).unwrap();
        std::fs::write(&path, &good[..good.len() - 1]).unwrap();
        assert_eq!(Contents::read(&path).unwrap().left, []);
        let mut newer = good.clone();
        newer[8] = 2;
        for (bytes, word) in [
            (&b"short"[..], "shorter"),
            (&[b'x'; 200][..], "begin"),
            (&newer[..], "version is 2"),
            (&good[..HEADER_BYTES + 3], "0 rows of 1"),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let message = Contents::read(&path).unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        }
    }

    #[test]
    fn bookmarks_are_told_from_other_json() {
        assert_eq!(Row::position_of(br#"{"state":"none","position_seconds":0.0}"#), Some(Found::Nothing));
        assert_eq!(Row::position_of(br#"{"x":1,"state":"completed","position_seconds":7.5}"#), Some(Found::At(7.5)));
        for other in ["{}", "hello", r#"{"state":"none"}"#, "[]"] {
            assert_eq!(Row::position_of(other.as_bytes()), None);
        }
    }
}
