//! A walk over all that a store holds: every row with its write time, and every barrier, a piece at a time.
//!
//! What [`Store::scan`](super::Store::scan) gives, and [`super::embedded::scan`] for a directory that no process uses:
//! for `GET /export` and `playhead export`.
//!
//! **The promise.** Everything that was acknowledged before the walk was asked for is in it, unless it was replaced,
//! forgotten or has expired since. Users come in the store's own order, which is the same in each walk, all of a user
//! together: a walk that broke off can go on from the user that came last. Rows come as [`RecordKind::Put`], barriers as
//! forgets and erasures; of one title there is its row or its forget, whichever is newer, and nothing that an erasure of
//! its user bars. A walk that does not get to its end says so: [`Scan::next`] gives an error, never an early `None`.
//!
//! **The limits.** [`PIECES_AHEAD`] pieces of a few thousand records wait for the reader; a slow one slows the walk, and
//! one that lets go of it ends it. The store's writers and readers do not wait for it.

use super::{Refusal, StoreError};
use playhead_core::Record;
#[cfg(doc)]
use playhead_core::RecordKind;
use tokio::sync::mpsc;

/// Records of a piece, of walks that choose it themselves.
const PIECE_RECORDS: usize = 1_000;

/// Pieces that wait for the reader.
const PIECES_AHEAD: usize = 4;

/// `None` is the end: without it the walk has broken off.
type Piece = Result<Option<Vec<Record>>, StoreError>;

/// The reader's side of a walk.
#[derive(Debug)]
pub struct Scan {
    has_barriers: bool,
    pieces: mpsc::Receiver<Piece>,
    is_over: bool,
}

/// The walk's side.
#[derive(Debug)]
pub(crate) struct Pieces(mpsc::Sender<Piece>);

impl Scan {
    /// Both sides.
    pub(crate) fn new(has_barriers: bool) -> (Pieces, Self) {
        let (sender, pieces) = mpsc::channel(PIECES_AHEAD);
        (Pieces(sender), Self { has_barriers, pieces, is_over: false })
    }

    /// A walk on a thread of its own. If the system gives none, the reader learns of it.
    pub(crate) fn on_a_thread(
        has_barriers: bool,
        walk: impl FnOnce(&mut Pieces) -> Result<(), StoreError> + Send + 'static,
    ) -> Self {
        let (mut pieces, scan) = Self::new(has_barriers);
        let run = move || {
            let outcome = walk(&mut pieces);
            // A reader that is gone does not need the end.
            let _ = pieces.0.blocking_send(outcome.map(|()| None));
        };
        if let Err(error) = std::thread::Builder::new().name("playhead-scan".to_owned()).spawn(run) {
            tracing::error!(%error, "there is no thread to walk over the store");
        }
        scan
    }

    /// Whether barriers are given too; a store that can't give them back leaves them out.
    #[must_use]
    pub fn has_barriers(&self) -> bool {
        self.has_barriers
    }

    /// The next piece; `None` once all have come.
    ///
    /// # Errors
    /// The walk has broken off: what came so far is not all.
    pub async fn next(&mut self) -> Result<Option<Vec<Record>>, StoreError> {
        if self.is_over {
            return Ok(None);
        }
        let received = self.pieces.recv().await;
        self.piece(received)
    }

    /// The same, for callers outside of any runtime.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn blocking_next(&mut self) -> Result<Option<Vec<Record>>, StoreError> {
        if self.is_over {
            return Ok(None);
        }
        let received = self.pieces.blocking_recv();
        self.piece(received)
    }

    fn piece(&mut self, received: Option<Piece>) -> Piece {
        self.is_over = matches!(received, Some(Ok(None)));
        received.unwrap_or(Err(BROKEN_OFF))
    }
}

/// What is left of a walk whose other side is gone.
const BROKEN_OFF: StoreError = StoreError::Refused(Refusal::Unavailable);

impl Pieces {
    /// Hands over records, and waits while the reader is behind.
    ///
    /// # Errors
    /// If nobody reads on, and from the records themselves.
    pub(crate) fn put_all(
        &mut self,
        records: impl Iterator<Item = Result<Record, StoreError>>,
    ) -> Result<(), StoreError> {
        let mut piece = Vec::new();
        for record in records {
            piece.push(record?);
            if piece.len() == PIECE_RECORDS {
                self.0.blocking_send(Ok(Some(std::mem::take(&mut piece)))).map_err(|_| BROKEN_OFF)?;
            }
        }
        self.0.blocking_send(Ok(Some(piece))).map_err(|_| BROKEN_OFF)
    }

    /// Hands over one piece, and waits while the reader is behind.
    ///
    /// # Errors
    /// If nobody reads on.
    #[cfg(feature = "cassandra")]
    pub(crate) async fn put(&self, piece: Vec<Record>) -> Result<(), StoreError> {
        self.0.send(Ok(Some(piece))).await.map_err(|_| BROKEN_OFF)
    }

    /// Ends the walk.
    #[cfg(feature = "cassandra")]
    pub(crate) async fn end(self, outcome: Result<(), StoreError>) {
        // A reader that is gone does not need the end.
        let _ = self.0.send(outcome.map(|()| None)).await;
    }

    /// Whether nobody reads on.
    pub(crate) fn is_unread(&self) -> bool {
        self.0.is_closed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use playhead_core::{MovieId, UserId, WriteTime};

    fn records(count: i64) -> impl Iterator<Item = Result<Record, StoreError>> {
        (0..count).map(|movie| Ok(Record::forget(UserId(1), MovieId(movie), WriteTime::MIN)))
    }

    fn read(mut scan: Scan) -> (usize, Result<(), StoreError>) {
        let mut count = 0;
        loop {
            match scan.blocking_next() {
                Ok(Some(piece)) => count += piece.len(),
                Ok(None) => return (count, Ok(())),
                Err(error) => return (count, Err(error)),
            }
        }
    }

    #[test]
    fn every_record_comes_and_then_the_end() {
        for count in [0, 1, 999, 1_000, 1_001, 12_345] {
            let scan = Scan::on_a_thread(true, move |pieces| pieces.put_all(records(count)));
            assert_eq!(read(scan), (usize::try_from(count).unwrap(), Ok(())));
        }
    }

    #[test]
    fn a_walk_that_breaks_off_has_no_end() {
        let failing = Scan::on_a_thread(true, |pieces| pieces.put_all(records(2_500).chain([Err(StoreError::Fatal)])));
        assert_eq!(read(failing), (2_000, Err(StoreError::Fatal)));
        let panicking = Scan::on_a_thread(true, |pieces| {
            pieces.put_all(records(10))?;
            std::panic::resume_unwind(Box::new("a walk's own mistake"))
        });
        assert_eq!(read(panicking), (10, Err(BROKEN_OFF)));
    }

    #[test]
    fn a_reader_that_lets_go_ends_the_walk() {
        let (ended, end) = std::sync::mpsc::channel();
        let scan = Scan::on_a_thread(true, move |pieces| {
            let outcome =
                pieces.put_all((0..).map(|movie| Ok(Record::forget(UserId(1), MovieId(movie), WriteTime::MIN))));
            ended.send((outcome, pieces.is_unread())).unwrap();
            outcome
        });
        drop(scan);
        assert_eq!(end.recv().unwrap(), (Err(BROKEN_OFF), true));
    }
}
