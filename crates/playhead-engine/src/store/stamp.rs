//! Write times: one strictly rising sequence per store, whatever the wall clock does.

use playhead_core::{Change, Record, RecordKind, Write, WriteTime};

/// Gives writes their write times and turns them into records.
///
/// **The promise.** A live write's write time is above every one given before, and above the newest that the stamper
/// was told of. A late item's is that minus its age; an import keeps its own.
#[derive(Debug)]
pub struct Stamper {
    last: Option<WriteTime>,
}

impl Stamper {
    /// Goes on after `last`, the newest write time that the store holds.
    #[must_use]
    pub fn new(last: Option<WriteTime>) -> Self {
        Self { last }
    }

    /// The newest write time given or seen.
    #[must_use]
    pub fn last(&self) -> Option<WriteTime> {
        self.last
    }

    /// The record of a write that is carried out now.
    pub fn stamp(&mut self, now: WriteTime, write: &Write) -> Record {
        let Write { user, change } = *write;
        if let Change::Import(row) = change {
            self.last = self.last.max(Some(row.write_time));
            return Record { user, kind: RecordKind::LatePut, row };
        }
        let write_time = self.last.map_or(now, |last| now.max(last.next()));
        self.last = Some(write_time);
        match change {
            Change::Put { movie, position, duration } => {
                let row = playhead_core::Bookmark { movie, position, duration, write_time };
                Record { user, kind: RecordKind::Put, row }
            }
            Change::LatePut { movie, position, duration, age } => {
                let write_time = write_time.before(age);
                let row = playhead_core::Bookmark { movie, position, duration, write_time };
                Record { user, kind: RecordKind::LatePut, row }
            }
            Change::Forget { movie } => Record::forget(user, movie, write_time),
            Change::Erase => Record::erase(user, write_time),
            Change::Import(_) => unreachable!("returned above"),
        }
    }
}
