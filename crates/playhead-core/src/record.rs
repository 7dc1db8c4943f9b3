//! The fixed-size record by which a stamped write is logged.
//!
//! **Layout** (version [`Record::VERSION`]; little-endian, so that a record is read and written as it lies in memory):
//!
//! | offset | bytes | field | of |
//! |---|---|---|---|
//! | 0 | 8 | `user_id`, i64 | every kind |
//! | 8 | 8 | `movie_id`, i64 | put, late put, forget; else 0 |
//! | 16 | 8 | `position_seconds`, IEEE double | put, late put; else 0 |
//! | 24 | 8 | `duration_seconds`, IEEE double, 0 = unknown | put, late put; else 0 |
//! | 32 | 7 | write time, µs since the epoch | every kind |
//! | 39 | 1 | kind: 1 put, 2 late put, 3 forget, 4 erase | every kind |
//!
//! 40 bytes for the 24 that a heartbeat is about. **The promise.** [`Record::decode`] gives back exactly what was
//! encoded, and refuses any 40 bytes that no encoder writes: a bit that flipped unseen must not become a position.

use crate::{Bookmark, MediaDuration, MovieId, Position, UserId, WriteTime};

/// What a record does when it is replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum RecordKind {
    /// A live put: surely newer than every record before it.
    Put = 1,
    /// A late or imported put: it may be older than what is stored.
    LatePut = 2,
    /// Forgets one title and bars anything older.
    Forget = 3,
    /// Forgets a user and bars anything older.
    Erase = 4,
}

/// A write with its write time, as it is logged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Record {
    /// Whose row.
    pub user: UserId,
    /// What the record does.
    pub kind: RecordKind,
    /// The row; for [`RecordKind::Forget`] only `movie` and `write_time` mean anything, for an erase only the latter.
    pub row: Bookmark,
}

/// The bytes are not a record that this version writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a record of layout version {}", Record::VERSION)]
pub struct BadRecord;

impl Record {
    /// The version of the layout above.
    pub const VERSION: u32 = 1;
    /// Bytes of an encoded record.
    pub const BYTES: usize = 40;

    /// A barrier over one title.
    #[must_use]
    pub fn forget(user: UserId, movie: MovieId, write_time: WriteTime) -> Self {
        let row = Bookmark { movie, position: Position::ZERO, duration: None, write_time };
        Self { user, kind: RecordKind::Forget, row }
    }

    /// A barrier over one user.
    #[must_use]
    pub fn erase(user: UserId, write_time: WriteTime) -> Self {
        Self { kind: RecordKind::Erase, ..Self::forget(user, MovieId(0), write_time) }
    }

    /// The bytes to log.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let duration = self.row.duration.map_or(0.0, MediaDuration::seconds);
        let stamp = (self.kind as u64) << 56 | self.row.write_time.micros();
        let mut bytes = [0; Self::BYTES];
        bytes[0..8].copy_from_slice(&self.user.0.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.row.movie.0.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.row.position.seconds().to_le_bytes());
        bytes[24..32].copy_from_slice(&duration.to_le_bytes());
        bytes[32..40].copy_from_slice(&stamp.to_le_bytes());
        bytes
    }

    /// The record in these bytes.
    ///
    /// # Errors
    /// [`BadRecord`] if no encoder of this version writes them.
    pub fn decode(bytes: &[u8; Self::BYTES]) -> Result<Self, BadRecord> {
        let field = |at: usize| {
            let mut eight = [0; 8];
            eight.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(eight)
        };
        let stamp = field(32);
        let kind = match stamp >> 56 {
            1 => RecordKind::Put,
            2 => RecordKind::LatePut,
            3 => RecordKind::Forget,
            4 => RecordKind::Erase,
            _ => return Err(BadRecord),
        };
        let duration = match f64::from_bits(field(24)) {
            0.0 => None,
            seconds => Some(MediaDuration::from_seconds(seconds).map_err(|_| BadRecord)?),
        };
        let record = Self {
            user: UserId(field(0).cast_signed()),
            kind,
            row: Bookmark {
                movie: MovieId(field(8).cast_signed()),
                position: Position::from_seconds(f64::from_bits(field(16))).map_err(|_| BadRecord)?,
                duration,
                write_time: WriteTime::from_micros(stamp & ((1 << 56) - 1)),
            },
        };
        // Whatever the checks above let through in another spelling (a negative zero, a position of a forget).
        let canonical = match kind {
            RecordKind::Put | RecordKind::LatePut => record,
            RecordKind::Forget => Self::forget(record.user, record.row.movie, record.row.write_time),
            RecordKind::Erase => Self::erase(record.user, record.row.write_time),
        };
        if canonical.encode() == *bytes { Ok(canonical) } else { Err(BadRecord) }
    }
}

const _: () = assert!(Record::BYTES == 5 * 8, "five words, the last shared by write time and kind");
const _: () = assert!(WriteTime::MAX.micros() < 1 << 56, "the byte above the write time is the kind's");

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_record() -> impl Strategy<Value = Record> {
        (any::<i64>(), any::<i64>(), 0.0..=1e6, prop::option::of(0.001..=1e6), 1u64..1 << 55, 1u8..=4).prop_map(
            |(user, movie, position, duration, micros, kind)| {
                let (user, movie, write_time) = (UserId(user), MovieId(movie), WriteTime::from_micros(micros));
                let row = Bookmark {
                    movie,
                    position: Position::from_seconds(position).unwrap(),
                    duration: duration.map(|seconds| MediaDuration::from_seconds(seconds).unwrap()),
                    write_time,
                };
                match kind {
                    1 => Record { user, kind: RecordKind::Put, row },
                    2 => Record { user, kind: RecordKind::LatePut, row },
                    3 => Record::forget(user, movie, write_time),
                    _ => Record::erase(user, write_time),
                }
            },
        )
    }

    #[test]
    fn the_layout_is_what_the_table_says() {
        let row = Bookmark {
            movie: MovieId(-2),
            position: Position::from_seconds(1.5).unwrap(),
            duration: Some(MediaDuration::from_seconds(2.0).unwrap()),
            write_time: WriteTime::from_micros(0x0102_0304_0506),
        };
        let bytes = Record { user: UserId(1), kind: RecordKind::LatePut, row }.encode();
        assert_eq!(bytes[0..8], [1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[8..16], [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(bytes[16..24], 1.5f64.to_le_bytes());
        assert_eq!(bytes[24..32], 2.0f64.to_le_bytes());
        assert_eq!(bytes[32..40], [6, 5, 4, 3, 2, 1, 0, 2]);
    }

    proptest! {
        #[test]
        fn what_was_encoded_comes_back(record in any_record()) {
            prop_assert_eq!(Record::decode(&record.encode()), Ok(record));
        }

        #[test]
        fn whatever_decodes_encodes_to_the_same_bytes(record in any_record(), at in 0usize..320) {
            let mut bytes = record.encode();
            bytes[at / 8] ^= 1 << (at % 8);
            if let Ok(flipped) = Record::decode(&bytes) {
                prop_assert_eq!(flipped.encode(), bytes);
                prop_assert_ne!(flipped, record);
            }
        }
    }
}
