//! A walk over the whole table, slice by slice of the ring of tokens, page by page.
//!
//! For an export, so that it may take hours beside the viewers' requests: one page is under way at a time, and the next
//! is asked for when there is room for it.
//!
//! **The promise.** Every row that was acknowledged before the walk began comes, or what has replaced it since, read at
//! the level of all reads. There is no one moment for all rows: each page shows the table as it is then. Deletions are
//! the cluster's own and can't be read back, so no barrier comes. Rows that no Playhead wrote are left out and counted.
//!
//! **The limits.** A page that fails is asked for again, with a pause, for [`PATIENCE`]; then the walk breaks off.

use super::connection::chain;
use super::link::Links;
use super::statements::{self, WalkedRow};
use super::{Shared, watch::Pulse};
use crate::store::scan::Pieces;
use crate::store::{Refusal, StoreError};
use playhead_core::{Record, RecordKind, UserId};
use scylla::response::{PagingState, PagingStateResponse};
use std::time::{Duration, Instant};

/// How long a node may take for one page.
pub(super) const PAGE: Duration = Duration::from_secs(10);

/// How long a page is asked for again and again.
const PATIENCE: Duration = Duration::from_secs(60);

/// Before it is asked for again.
const PAUSE: Duration = Duration::from_secs(1);

/// Slices of the ring: enough for no statement to be about all of it, few enough to cost an empty table nothing.
const SLICES: i128 = 64;

/// Walks, and ends the walk.
pub(super) async fn run(shared: &Shared, links: &Links, pulse: &Pulse, from: Option<UserId>, pieces: Pieces) {
    let outcome = walk(shared, links, pulse, from, &pieces).await;
    pieces.end(outcome).await;
}

async fn walk(
    shared: &Shared,
    links: &Links,
    pulse: &Pulse,
    from: Option<UserId>,
    pieces: &Pieces,
) -> Result<(), StoreError> {
    let before = match from {
        Some(user) => token_before(shared, links, user)?,
        None => i64::MIN,
    };
    let slices = (0..SLICES).map(slice_of_ring).map(|(after, to)| (after.max(before), to));
    for slice in slices.filter(|(after, to)| after < to) {
        let mut state = PagingState::start();
        loop {
            let (piece, next) = page(shared, links, pulse, pieces, slice, state).await?;
            pieces.put(piece).await?;
            match next.into_paging_control_flow() {
                std::ops::ControlFlow::Continue(next) => state = next,
                std::ops::ControlFlow::Break(()) => break,
            }
        }
    }
    Ok(())
}

/// The token right before a user's.
fn token_before(shared: &Shared, links: &Links, user: UserId) -> Result<i64, StoreError> {
    let keyspace = shared.options.keyspace.as_str();
    let link = links.current();
    let token = link.connection.cluster().compute_token(keyspace, statements::TABLE, &(user.0,)).map_err(|error| {
        tracing::error!(error = chain(&error), "where a walk is to go on can't be told");
        StoreError::Refused(Refusal::Unavailable)
    })?;
    Ok(token.value().saturating_sub(1))
}

/// The token after which a slice begins, and its last. No row has the least token of all.
fn slice_of_ring(slice: i128) -> (i64, i64) {
    let edge = |number: i128| i128::from(i64::MIN) + (number << 64) / SLICES;
    let token = |edge: i128| i64::try_from(edge).unwrap_or(i64::MAX);
    (token(edge(slice)), token(edge(slice + 1)))
}

/// One page, asked for until it comes.
async fn page(
    shared: &Shared,
    links: &Links,
    pulse: &Pulse,
    pieces: &Pieces,
    slice: (i64, i64),
    state: PagingState,
) -> Result<(Vec<Record>, PagingStateResponse), StoreError> {
    let began = Instant::now();
    loop {
        match page_once(shared, links, slice, state.clone()).await {
            Ok(page) => {
                pulse.beats();
                return Ok(page);
            }
            Err(error) if began.elapsed() >= PATIENCE || pieces.is_unread() => {
                tracing::error!(%error, "a walk over the table has broken off");
                return Err(StoreError::Refused(Refusal::Unavailable));
            }
            Err(error) => pulse.fails(error),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn page_once(
    shared: &Shared,
    links: &Links,
    slice: (i64, i64),
    state: PagingState,
) -> Result<(Vec<Record>, PagingStateResponse), String> {
    let link = links.current();
    let asked = link.connection.session.execute_single_page(&link.prepared.everything, slice, state).await;
    let (page, next) = asked.map_err(|error| chain(&error))?;
    let page = page.into_rows_result().map_err(|error| chain(&error))?;
    let latest = shared.latest();
    let mut piece = Vec::with_capacity(page.rows_num());
    for row in page.rows::<WalkedRow>().map_err(|error| chain(&error))? {
        let (user, movie, position, duration, write_time) = row.map_err(|error| chain(&error))?;
        match statements::row((movie, position, duration, write_time), latest) {
            Some(row) if shared.is_retained(&row) => {
                piece.push(Record { user: UserId(user), kind: RecordKind::Put, row });
            }
            Some(_) => {}
            None => shared.metrics.foreign_rows.add(1),
        }
    }
    Ok((piece, next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slices_are_the_ring() {
        let slices: Vec<_> = (0..SLICES).map(slice_of_ring).collect();
        assert_eq!((slices[0].0, slices[slices.len() - 1].1), (i64::MIN, i64::MAX));
        assert!(slices.windows(2).all(|pair| pair[0].1 == pair[1].0));
        assert!(slices.iter().all(|(after, to)| after < to));
    }
}
