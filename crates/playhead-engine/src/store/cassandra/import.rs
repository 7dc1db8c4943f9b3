//! Rows and barriers of an export on their way into the table, with the write times they had.
//!
//! For `playhead import` alone: [`Cassandra::import`](super::Cassandra::import). The records of one user go as one
//! mutation, by the windows and deadlines of all writes; Cassandra itself drops what is older than what it has, so in
//! whatever order and however often they come, the newest is left. Nothing is read first, unlike a viewer's
//! own forget ([`super::deletion`]), which must also take along rows of a clock that is ahead.

use super::statements;
use super::writer::{self, Writer};
use crate::store::{Outcome, StoreError};
use playhead_core::{Record, RecordKind};
use scylla::statement::prepared::PreparedStatement;
use scylla::value::CqlValue;
use std::time::Instant;
use tokio::sync::oneshot;

/// Records on their way.
#[derive(Debug)]
pub struct Importing(pub(super) oneshot::Receiver<Outcome>);

impl Importing {
    /// Waits for the outcome, outside of any runtime. Whatever it is, importing the same again is right.
    ///
    /// # Errors
    /// As [`Outcome`].
    pub fn wait(self) -> Outcome {
        self.0.blocking_recv().unwrap_or(Err(StoreError::Unknown))
    }
}

/// Sends a user's records as one mutation, deletions among them.
pub(super) async fn send(
    writer: &Writer,
    records: impl Iterator<Item = Record>,
    deadline: Instant,
) -> Result<(), StoreError> {
    let mut batch = writer::batch();
    let mut values = Vec::new();
    for record in records {
        let (statement, bound) = bound(writer, &record);
        batch.append_statement(statement);
        values.push(bound);
    }
    writer.send(deadline, async |link| link.connection.session.batch(&batch, &values).await.map(drop)).await
}

/// A record as a statement and what it binds.
fn bound(writer: &Writer, record: &Record) -> (PreparedStatement, Vec<Option<CqlValue>>) {
    let link = writer.links.current();
    let big = |number: i64| Some(CqlValue::BigInt(number));
    let (user, movie) = (big(record.user.0), big(record.row.movie.0));
    let write_time = big(statements::timestamp(record.row.write_time));
    match record.kind {
        RecordKind::Put | RecordKind::LatePut => {
            let (_, _, position, duration, _, expires) = writer.values(record);
            let double = |number: f64| Some(CqlValue::Double(number));
            let values = vec![user, movie, double(position), double(duration), write_time, expires.map(CqlValue::Int)];
            (link.prepared.insert.clone(), values)
        }
        RecordKind::Forget => (link.prepared.delete_title.clone(), vec![write_time, user, movie]),
        RecordKind::Erase => (link.prepared.delete_user.clone(), vec![write_time, user]),
    }
}
