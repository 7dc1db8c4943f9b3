//! What is asked of the store ([`Write`]), what it keeps ([`Bookmark`]), and which of two versions wins.
//!
//! **Newest wins.** Of two versions of one title the one with the later write time is kept. At equal write times a
//! deletion wins, and of two positions each column keeps its greater value. That is what Apache Cassandra does with
//! two cells of one timestamp (it compares serialised bytes, which order as the numbers do, see [`crate::position`]),
//! so every store agrees, whichever version it saw first.

use crate::{MediaDuration, MovieId, Position, UserId, WriteTime};
use std::time::Duration;

/// One change that a client asks for. The store gives it its write time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Write {
    /// Whose row; always the token's user.
    pub user: UserId,
    /// What is done.
    pub change: Change,
}

/// What a [`Write`] does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Change {
    /// A live heartbeat: ordered by its arrival.
    Put {
        /// The title.
        movie: MovieId,
        /// Where the viewer is.
        position: Position,
        /// The title's length, if the player knows it; the whole row is replaced, so `None` clears it.
        duration: Option<MediaDuration>,
    },
    /// An item of a late batch: ordered by when it happened.
    LatePut {
        /// The title.
        movie: MovieId,
        /// Where the viewer was.
        position: Position,
        /// The title's length, if the player knew it.
        duration: Option<MediaDuration>,
        /// How long before its arrival it happened.
        age: Duration,
    },
    /// A row of an export: it keeps the write time it had.
    Import(Bookmark),
    /// Forgets one title, and bars anything older.
    Forget {
        /// The title.
        movie: MovieId,
    },
    /// Forgets all of the user, and bars anything older.
    Erase,
}

/// The stored row of one user and one title, without the user, which every call names.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bookmark {
    /// The title.
    pub movie: MovieId,
    /// The raw position as last written; no rule has been applied to it.
    pub position: Position,
    /// The title's length, if the last write knew it.
    pub duration: Option<MediaDuration>,
    /// When it was written, by the store's order.
    pub write_time: WriteTime,
}

/// The winner of two bookmarks of the same title.
#[must_use]
pub fn newest(a: Bookmark, b: Bookmark) -> Bookmark {
    use std::cmp::Ordering;
    match a.write_time.cmp(&b.write_time) {
        Ordering::Greater => a,
        Ordering::Less => b,
        Ordering::Equal => Bookmark {
            position: if a.position >= b.position { a.position } else { b.position },
            // An unknown duration is stored as 0.0: `None` is the smallest value here too.
            duration: if a.duration >= b.duration { a.duration } else { b.duration },
            ..a
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bookmark(write_time: u64, position: f64, duration: Option<f64>) -> Bookmark {
        Bookmark {
            movie: MovieId(1),
            position: Position::from_seconds(position).unwrap(),
            duration: duration.map(|seconds| MediaDuration::from_seconds(seconds).unwrap()),
            write_time: WriteTime::from_micros(write_time),
        }
    }

    #[test]
    fn the_later_write_time_wins_whatever_the_position() {
        let old = bookmark(1, 500.0, Some(9.0));
        let new = bookmark(2, 3.0, None);
        assert_eq!(newest(old, new), new);
        assert_eq!(newest(new, old), new);
    }

    #[test]
    fn a_tie_keeps_the_greater_value_of_each_column() {
        let tie = newest(bookmark(5, 10.0, None), bookmark(5, 3.0, Some(60.0)));
        assert_eq!(tie, bookmark(5, 10.0, Some(60.0)));
    }

    proptest! {
        #[test]
        fn the_order_of_arrival_does_not_matter(versions in prop::collection::vec(
            (1u64..4, 0.0f64..100.0, prop::option::of(1.0f64..100.0)), 1..6)) {
            let versions: Vec<_> = versions.into_iter().map(|(t, p, d)| bookmark(t, p, d)).collect();
            let forwards = versions.iter().copied().reduce(newest);
            let backwards = versions.iter().rev().copied().reduce(newest);
            prop_assert_eq!(forwards, backwards);
        }
    }
}
