//! Reads: the rows of a user, at the level that makes an acknowledged write seen.
//!
//! **The promise.** What a read gives was written by a Playhead, is within its retention, and is the newest that the
//! level sees; a read that fails is an error, never "no rows". Rows that nobody of us wrote are left out and counted.
//!
//! **The limits.** One deadline for all pages, one repeat within it. Of a list the newest titles are kept while it is
//! read, so that a user of a million titles costs time but no memory.

use super::connection::chain;
use super::link::{Link, Links};
use super::statements::{self, ReadRow};
use super::watch::Pulse;
use super::{ReadOutcome, Shared};
use crate::store::{Refusal, StoreError, TITLES_LISTED_MAX, newest_first};
use futures_util::TryStreamExt;
use playhead_core::{Bookmark, MovieId, UserId};
use tokio::time::Instant;

/// Rows of one page.
pub(super) const PAGE_ROWS: i32 = 2_000;

/// A user's bookmarks: of these titles, in any order, or the list.
pub(super) async fn bookmarks(
    shared: &Shared,
    links: &Links,
    pulse: &Pulse,
    user: UserId,
    movies: Option<Vec<MovieId>>,
) -> ReadOutcome {
    let deadline = Instant::now() + shared.rig.deadline;
    for is_last in [false, true] {
        let latest = shared.latest();
        let mut found: Vec<Bookmark> = Vec::new();
        let link = links.current();
        let outcome = rows(&link, user, movies.as_deref(), deadline, |row| {
            match statements::row(row, latest) {
                Some(bookmark) if shared.is_retained(&bookmark) => found.push(bookmark),
                Some(_) => {}
                None => shared.metrics.foreign_rows.add(1),
            }
            if found.len() > 2 * TITLES_LISTED_MAX {
                newest_first(&mut found);
            }
        });
        match outcome.await {
            Ok(()) => {
                pulse.beats();
                newest_first(&mut found);
                return Ok(found);
            }
            Err(error) if is_last || Instant::now() >= deadline => {
                pulse.fails(error);
                break;
            }
            Err(_) => {}
        }
    }
    shared.metrics.base_read_errors.add(1);
    Err(StoreError::Refused(Refusal::Unavailable))
}

/// Hands each row of a user to `each`: of these titles, or of all.
pub(super) async fn rows(
    link: &Link,
    user: UserId,
    movies: Option<&[MovieId]>,
    deadline: Instant,
    each: impl FnMut(ReadRow),
) -> Result<(), String> {
    let read = async {
        match movies {
            Some(movies) => titles(link, user, movies, each).await,
            None => all_titles(link, user, each).await,
        }
    };
    tokio::time::timeout_at(deadline, read).await.unwrap_or_else(|_| Err("no answer in time".to_owned()))
}

async fn titles(link: &Link, user: UserId, movies: &[MovieId], mut each: impl FnMut(ReadRow)) -> Result<(), String> {
    let movies: Vec<i64> = movies.iter().map(|movie| movie.0).collect();
    let answer = link.connection.session.execute_unpaged(&link.prepared.titles, (user.0, movies)).await;
    let rows = answer.map_err(|error| chain(&error))?.into_rows_result().map_err(|error| chain(&error))?;
    for row in rows.rows::<ReadRow>().map_err(|error| chain(&error))? {
        each(row.map_err(|error| chain(&error))?);
    }
    Ok(())
}

async fn all_titles(link: &Link, user: UserId, mut each: impl FnMut(ReadRow)) -> Result<(), String> {
    let pages = link.connection.session.execute_iter(link.prepared.all_titles.clone(), (user.0,)).await;
    let mut rows = pages.map_err(|error| chain(&error))?.rows_stream::<ReadRow>().map_err(|error| chain(&error))?;
    while let Some(row) = rows.try_next().await.map_err(|error| chain(&error))? {
        each(row);
    }
    Ok(())
}
