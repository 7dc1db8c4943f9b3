//! Keys and values of the base.
//!
//! **Layout.** Keys sort by user, then title, each as [`UserId::to_sortable_bytes`] says:
//!
//! | key | bytes | value | bytes |
//! |---|---|---|---|
//! | user, movie | 16 | position, duration, stamp of a row or a forget: the end of its [`Record`] | 24 |
//! | user | 8 | the same of an erasure | 24 |
//! | `[0xff; 17]`, behind every other | 17 | the [`Mark`] | 40 |
//!
//! A user's erasure therefore comes before his titles, and all of him is the range `user ..= user‖[0xff; 8]`. The
//! prefix of the greatest user would take in the mark.
//!
//! **The promise.** What decodes is what was encoded, or the result is an error: every value is checked as a log record
//! is, and must fit its key.

use super::BaseError;
use playhead_core::{Bookmark, MovieId, Record, RecordKind, UserId, WriteTime};

/// The key of the mark.
pub(crate) const MARK_KEY: [u8; 17] = [0xff; 17];

/// Bytes of a value under a user's key or a title's.
pub(crate) const VALUE_BYTES: usize = 24;

/// The key of a title.
pub(crate) fn title_key(user: UserId, movie: MovieId) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&user.to_sortable_bytes());
    key[8..].copy_from_slice(&movie.to_sortable_bytes());
    key
}

/// What lies at a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    Erasure(UserId),
    Title(UserId, MovieId),
    Mark,
}

impl Key {
    pub(crate) fn decode(key: &[u8]) -> Result<Self, BaseError> {
        if let Ok(user) = <[u8; 8]>::try_from(key) {
            return Ok(Self::Erasure(UserId::from_sortable_bytes(user)));
        }
        if let Ok(title) = <[u8; 16]>::try_from(key) {
            let half = |at: usize| <[u8; 8]>::try_from(&title[at..at + 8]).expect("eight of sixteen bytes");
            let (user, movie) = (UserId::from_sortable_bytes(half(0)), MovieId::from_sortable_bytes(half(8)));
            return Ok(Self::Title(user, movie));
        }
        if key == MARK_KEY { Ok(Self::Mark) } else { Err(BaseError::Damaged("a key")) }
    }
}

/// What the base knows of a title.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum BaseTitle {
    /// Its row.
    Row(Bookmark),
    /// It was forgotten then, and nothing newer has come.
    Forgotten(WriteTime),
}

impl BaseTitle {
    /// When it was written.
    pub(crate) fn write_time(&self) -> WriteTime {
        match self {
            Self::Row(row) => row.write_time,
            Self::Forgotten(write_time) => *write_time,
        }
    }

    pub(crate) fn encode(&self, user: UserId, movie: MovieId) -> [u8; VALUE_BYTES] {
        value_of(&match self {
            Self::Row(row) => Record { user, kind: RecordKind::Put, row: *row },
            Self::Forgotten(write_time) => Record::forget(user, movie, *write_time),
        })
    }

    pub(crate) fn decode(user: UserId, movie: MovieId, value: &[u8]) -> Result<Self, BaseError> {
        let record = record_of(user, movie, value)?;
        match record.kind {
            RecordKind::Put => Ok(Self::Row(record.row)),
            RecordKind::Forget => Ok(Self::Forgotten(record.row.write_time)),
            RecordKind::LatePut | RecordKind::Erase => Err(BaseError::Damaged("a title's value")),
        }
    }
}

pub(crate) fn encode_erasure(user: UserId, write_time: WriteTime) -> [u8; VALUE_BYTES] {
    value_of(&Record::erase(user, write_time))
}

pub(crate) fn decode_erasure(user: UserId, value: &[u8]) -> Result<WriteTime, BaseError> {
    let record = record_of(user, MovieId(0), value)?;
    if record.kind == RecordKind::Erase { Ok(record.row.write_time) } else { Err(BaseError::Damaged("an erasure")) }
}

fn value_of(record: &Record) -> [u8; VALUE_BYTES] {
    let bytes = record.encode();
    bytes[Record::BYTES - VALUE_BYTES..].try_into().expect("the last bytes of a record")
}

fn record_of(user: UserId, movie: MovieId, value: &[u8]) -> Result<Record, BaseError> {
    if value.len() != VALUE_BYTES {
        return Err(BaseError::Damaged("a value's length"));
    }
    let mut bytes = [0; Record::BYTES];
    bytes[0..8].copy_from_slice(&user.0.to_le_bytes());
    bytes[8..16].copy_from_slice(&movie.0.to_le_bytes());
    bytes[16..].copy_from_slice(value);
    Record::decode(&bytes).map_err(|_| BaseError::Damaged("a value"))
}

/// How far the base has come: the last row of every drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Whose base it is: random, made with the store, also in the log.
    pub(crate) store_id: [u8; 16],
    /// The sequence of the last record that the base knows of.
    pub(crate) sequence: u64,
    /// The newest write time that the store has given or seen.
    pub(crate) newest: Option<WriteTime>,
    /// The format of base and log.
    pub(crate) version: u32,
}

impl Mark {
    /// Bytes of an encoded mark: store id, sequence, newest (0 = none), version, CRC32C of all before; little-endian.
    pub(crate) const BYTES: usize = 40;

    /// The bytes to store.
    pub(crate) fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[0..16].copy_from_slice(&self.store_id);
        bytes[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.newest.map_or(0, WriteTime::micros).to_le_bytes());
        bytes[32..36].copy_from_slice(&self.version.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..36]);
        bytes[36..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The mark in these bytes.
    ///
    /// # Errors
    /// [`BaseError::Damaged`] if [`encode`](Self::encode) does not write them.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, BaseError> {
        let damaged = || BaseError::Damaged("the mark");
        let bytes: &[u8; Self::BYTES] = bytes.try_into().map_err(|_| damaged())?;
        let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let short = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let mark = Self {
            store_id: bytes[..16].try_into().expect("sixteen bytes"),
            sequence: long(16),
            newest: (long(24) != 0).then(|| WriteTime::from_micros(long(24))),
            version: short(32),
        };
        if mark.encode() == *bytes { Ok(mark) } else { Err(damaged()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use playhead_core::{MediaDuration, Position};
    use proptest::prelude::*;

    #[test]
    fn keys_sort_by_user_then_erasure_then_title_then_mark() {
        let ids = [i64::MIN, -1, 0, 1, i64::MAX];
        let mut keys = Vec::new();
        for user in ids {
            keys.push(UserId(user).to_sortable_bytes().to_vec());
            keys.extend(ids.map(|movie| title_key(UserId(user), MovieId(movie)).to_vec()));
        }
        keys.push(MARK_KEY.to_vec());
        assert!(keys.is_sorted_by(|a, b| a < b));
        assert_eq!(Key::decode(&keys[1]).unwrap(), Key::Title(UserId(i64::MIN), MovieId(i64::MIN)));
        assert_eq!(Key::decode(&MARK_KEY).unwrap(), Key::Mark);
        assert!(Key::decode(&[0xff; 18]).is_err() && Key::decode(&[0; 17]).is_err() && Key::decode(&[]).is_err());
    }

    #[test]
    fn only_what_an_encoder_writes_decodes() {
        let (user, movie) = (UserId(-5), MovieId(7));
        let row = Bookmark {
            movie,
            position: Position::from_seconds(1.5).unwrap(),
            duration: MediaDuration::from_seconds(9.0).ok(),
            write_time: WriteTime::from_micros(77),
        };
        let titles = [BaseTitle::Row(row), BaseTitle::Forgotten(WriteTime::from_micros(78))];
        for title in titles {
            let value = title.encode(user, movie);
            assert_eq!(BaseTitle::decode(user, movie, &value).unwrap(), title);
            assert!(decode_erasure(user, &value).is_err());
            assert!(BaseTitle::decode(user, movie, &value[..23]).is_err());
        }
        let erasure = encode_erasure(user, WriteTime::from_micros(79));
        assert_eq!(decode_erasure(user, &erasure).unwrap(), WriteTime::from_micros(79));
        assert!(BaseTitle::decode(user, movie, &erasure).is_err());
        let late = value_of(&Record { user, kind: RecordKind::LatePut, row });
        assert!(BaseTitle::decode(user, movie, &late).is_err());
    }

    proptest! {
        #[test]
        fn a_mark_comes_back_and_a_changed_one_does_not(
            store_id: [u8; 16], sequence: u64, newest in prop::option::of(1u64..1 << 55), version: u32, at in 0usize..320,
        ) {
            let mark = Mark { store_id, sequence, newest: newest.map(WriteTime::from_micros), version };
            let mut bytes = mark.encode();
            prop_assert_eq!(Mark::decode(&bytes).unwrap(), mark);
            bytes[at / 8] ^= 1 << (at % 8);
            prop_assert!(Mark::decode(&bytes).is_err());
            prop_assert!(Mark::decode(&bytes[1..]).is_err());
        }
    }
}
