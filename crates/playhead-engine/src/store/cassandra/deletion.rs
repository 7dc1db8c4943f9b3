//! Forget and erase: deletions that hold although another node's clock may be ahead.
//!
//! A deletion bars what is at or below its write time. A row that a Playhead with a clock ahead of ours wrote a moment
//! ago may lie *above* it and would survive, so this is the one write that reads first: rows dated later than every
//! stamp this process has given are deleted at their own time, which wins a tie. Rows that this process stamped after
//! the deletion are newer beats, and stay.
//!
//! - **Forget**: the later of its own write time and that of such a row.
//! - **Erase**: the same over the partition; but a row that is more than [`AHEAD_MAX`] ahead of now must not bar the
//!   user's whole future, so it is deleted by itself.
//! - The process's stamps go on above what was deleted, so that the viewer's next beat is not barred. Not above rows
//!   further ahead than [`AHEAD_MAX`]: they were written by nobody that could be right, and would take all stamps along.
//!
//! **The promise.** Everything of the batch, deletions and rows, is one mutation; afterwards it is read back. If a row is
//! left that must be gone, the deletion is repeated once; then the outcome is unknown, which the caller answers with 503.

use super::import;
use super::reader;
use super::statements::ReadRow;
use super::writer::Writer;
use crate::store::StoreError;
use playhead_core::{MovieId, Record, RecordKind, UserId, WriteTime};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How far ahead of now a clock may be and still be a clock.
const AHEAD_MAX: Duration = Duration::from_secs(2);

/// Carries out a batch of one user that holds deletions.
pub(super) async fn carry_out(writer: &Writer, records: &[Record], deadline: Instant) -> Result<(), StoreError> {
    let Some(user) = records.first().map(|record| record.user) else { return Ok(()) };
    let rows = read(writer, user, records, deadline).await?;
    // Taken after the read: every row of ours in it was stamped before.
    let given = writer.shared.stamps.last().unwrap_or(WriteTime::MIN);
    let plan = Plan::of(records, &rows, given, writer.shared.clock.now());
    if let Some(raised) = plan.raised {
        writer.shared.stamps.raise(raised);
    }
    for is_repeat in [false, true] {
        send(writer, records, &plan, deadline).await?;
        let left = read(writer, user, records, deadline).await.map_err(|_| StoreError::Unknown)?;
        if !left.iter().any(|(movie, write_time)| plan.bars(*movie, *write_time)) {
            return Ok(());
        }
        if is_repeat {
            tracing::warn!("a deletion was acknowledged, and rows that it bars are still there");
        }
    }
    Err(StoreError::Unknown)
}

/// Titles and write times of the rows that the deletions are about.
async fn read(
    writer: &Writer,
    user: UserId,
    records: &[Record],
    deadline: Instant,
) -> Result<Vec<(MovieId, WriteTime)>, StoreError> {
    let is_erasing = records.iter().any(|record| record.kind == RecordKind::Erase);
    let forgotten = records.iter().filter(|record| record.kind == RecordKind::Forget);
    let movies: Option<Vec<_>> = (!is_erasing).then(|| forgotten.map(|record| record.row.movie).collect());
    let mut found = Vec::new();
    let deadline = tokio::time::Instant::from_std(deadline);
    // Whatever a row holds, its time counts: what nobody of us wrote is deleted too.
    let each = |(movie, _, _, write_time): ReadRow| {
        let micros = write_time.and_then(|time| u64::try_from(time).ok()).unwrap_or(0);
        found.push((MovieId(movie), WriteTime::from_micros(micros)));
    };
    let outcome = reader::rows(&writer.links.current(), user, movies.as_deref(), deadline, each).await;
    outcome.map_err(|error| {
        writer.pulse.fails(error);
        // Nothing was sent yet.
        StoreError::Refused(crate::store::Refusal::Unavailable)
    })?;
    Ok(found)
}

/// At which times what is deleted.
#[derive(Debug, Default, PartialEq)]
struct Plan {
    /// Erasures: the latest decides, but each is sent.
    erased: Vec<WriteTime>,
    /// Titles forgotten, and titles that an erasure leaves to be deleted by themselves.
    forgotten: Vec<(MovieId, WriteTime)>,
    /// What the process's stamps must go on above.
    raised: Option<WriteTime>,
}

impl Plan {
    fn of(records: &[Record], rows: &[(MovieId, WriteTime)], given: WriteTime, now: WriteTime) -> Self {
        let mut plan = Self::default();
        let ahead: BTreeMap<MovieId, WriteTime> = rows.iter().filter(|(_, time)| *time > given).copied().collect();
        let is_clock = |time: WriteTime| time.since(now) <= AHEAD_MAX;
        for record in records {
            let own = record.row.write_time;
            match record.kind {
                RecordKind::Put | RecordKind::LatePut => {}
                RecordKind::Forget => {
                    let time = ahead.get(&record.row.movie).map_or(own, |ahead| own.max(*ahead));
                    plan.forgotten.push((record.row.movie, time));
                    plan.raise(time, is_clock(time));
                }
                RecordKind::Erase => {
                    let near = ahead.values().copied().filter(|time| is_clock(*time)).max();
                    let time = near.map_or(own, |near| own.max(near));
                    plan.erased.push(time);
                    plan.raise(time, is_clock(time));
                    let far = ahead.iter().filter(|(_, time)| !is_clock(**time));
                    plan.forgotten.extend(far.map(|(movie, time)| (*movie, *time)));
                }
            }
        }
        plan
    }

    fn raise(&mut self, time: WriteTime, is_clock: bool) {
        if is_clock {
            self.raised = self.raised.max(Some(time));
        }
    }

    fn bars(&self, movie: MovieId, time: WriteTime) -> bool {
        self.erased.iter().any(|erased| time <= *erased)
            || self.forgotten.iter().any(|(forgotten, barrier)| *forgotten == movie && time <= *barrier)
    }
}

async fn send(writer: &Writer, records: &[Record], plan: &Plan, deadline: Instant) -> Result<(), StoreError> {
    let Some(user) = records.first().map(|record| record.user) else { return Ok(()) };
    let rows = records.iter().filter(|record| matches!(record.kind, RecordKind::Put | RecordKind::LatePut)).copied();
    let erasures = plan.erased.iter().map(|time| Record::erase(user, *time));
    let forgets = plan.forgotten.iter().map(|(movie, time)| Record::forget(user, *movie, *time));
    import::send(writer, rows.chain(erasures).chain(forgets), deadline).await
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOVIE: MovieId = MovieId(1);
    const OTHER: MovieId = MovieId(2);

    fn at(micros: u64) -> WriteTime {
        WriteTime::from_micros(micros)
    }

    /// The plan of one deletion at 10 s, the process having given stamps up to 11 s, at 12 s.
    fn plan(record: Record, rows: &[(MovieId, WriteTime)]) -> Plan {
        Plan::of(&[record], rows, at(11_000_000), at(12_000_000))
    }

    #[test]
    fn a_row_of_a_clock_ahead_is_taken_along_and_one_stamped_since_is_not() {
        let forget = Record::forget(UserId(1), MOVIE, at(10_000_000));
        let since = plan(forget, &[(MOVIE, at(10_500_000))]);
        assert_eq!((since.forgotten, since.raised), (vec![(MOVIE, at(10_000_000))], Some(at(10_000_000))));
        let ahead = plan(forget, &[(MOVIE, at(13_000_000)), (OTHER, at(13_500_000))]);
        assert_eq!((ahead.forgotten, ahead.raised), (vec![(MOVIE, at(13_000_000))], Some(at(13_000_000))));
    }

    #[test]
    fn a_row_from_nowhere_neither_bars_the_user_nor_moves_the_clock() {
        let year = at(31_000_000_000_000);
        let erase = Record::erase(UserId(1), at(10_000_000));
        let erased = plan(erase, &[(MOVIE, year), (OTHER, at(13_000_000))]);
        assert_eq!(erased.erased, [at(13_000_000)]);
        assert_eq!(erased.forgotten, [(MOVIE, year)]);
        assert_eq!(erased.raised, Some(at(13_000_000)));
        assert!(erased.bars(MOVIE, year) && erased.bars(OTHER, at(13_000_000)) && !erased.bars(OTHER, at(13_000_001)));
        let forgotten = plan(Record::forget(UserId(1), MOVIE, at(10_000_000)), &[(MOVIE, year)]);
        assert_eq!((forgotten.forgotten, forgotten.raised), (vec![(MOVIE, year)], None));
    }
}
