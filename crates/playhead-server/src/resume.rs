//! What a viewer reads back: one title's bookmark, those of a set of titles, and the list of titles, page by page.
//!
//! Handlers of [`crate::routes`]. **The promise.** An answer is what the store said, seen through the completion rules;
//! if the store can't be read the answer is a problem, never position 0. All answers are personal: `no-store`.
//!
//! **Pages.** A page goes on behind the last title of the one before, in the order of lists, so a title that gets a
//! beat meanwhile moves to the front: it may be missed by who pages, but comes never twice. A cursor holds the last
//! title's write time and id, and a check over these, the user and the filter, so that one that was cut, changed or
//! taken from elsewhere is refused. It is no secret, and grants nothing that the token does not.

use crate::problem::Problem;
use crate::routes::{Api, Viewer, title_of};
use crate::wire::{BookmarkAnswer, ListAnswer, ListQuery, StateFilter, TitlesQuery, json};
use aws_lc_rs::digest::{SHA256, digest};
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Uri;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use playhead_core::{Bookmark, MovieId, Rules, UserId, WriteTime};
use serde::Serialize;
use std::cmp::Reverse;

/// `GET /api/v1/stream/progress/{movie_id}`
pub(crate) async fn title(State(api): State<Api>, Viewer(user): Viewer, uri: Uri) -> Result<Response, Problem> {
    let movie = title_of(&uri)?;
    let bookmark = api.engine.bookmark(user, movie).await?;
    Ok(personal(&seen(movie, bookmark, &api.rules)))
}

fn seen(movie: MovieId, bookmark: Option<Bookmark>, rules: &Rules) -> BookmarkAnswer {
    bookmark.map_or_else(|| BookmarkAnswer::none(movie), |bookmark| BookmarkAnswer::of(&bookmark, rules))
}

/// `GET /api/v1/stream/progress`
pub(crate) async fn titles(State(api): State<Api>, Viewer(user): Viewer, uri: Uri) -> Result<Response, Problem> {
    let Query(pairs) = Query::try_from_uri(&uri).map_err(|_| Problem::InvalidQuery)?;
    match TitlesQuery::parse(pairs)? {
        TitlesQuery::List(query) => list(&api, user, &query).await,
        TitlesQuery::Set(movies) => set(&api, user, movies).await,
    }
}

/// These titles' bookmarks, in this order.
async fn set(api: &Api, user: UserId, movies: Vec<MovieId>) -> Result<Response, Problem> {
    let bookmarks = api.engine.bookmarks(user, movies.clone()).await?;
    let items = movies.into_iter().zip(bookmarks).map(|(movie, bookmark)| seen(movie, bookmark, &api.rules));
    Ok(personal(&ListAnswer { items: items.collect(), next_cursor: None }))
}

/// A page of the user's titles.
async fn list(api: &Api, user: UserId, query: &ListQuery) -> Result<Response, Problem> {
    let after = match &query.cursor {
        Some(cursor) => Some(Place::from_cursor(cursor, user, query.state).ok_or(Problem::InvalidQuery)?),
        None => None,
    };
    let titles = api.engine.titles(user).await?;
    let (page, last) = page(&titles, query, after, &api.rules);
    let items = page.into_iter().map(|bookmark| BookmarkAnswer::of(bookmark, &api.rules)).collect();
    Ok(personal(&ListAnswer { items, next_cursor: last.map(|last| last.to_cursor(user, query.state)) }))
}

fn personal(answer: &impl Serialize) -> Response {
    ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")], json(answer)).into_response()
}

/// A page of titles, which are in the order of lists, and its last place if something follows.
fn page<'a>(
    titles: &'a [Bookmark],
    query: &ListQuery,
    after: Option<Place>,
    rules: &Rules,
) -> (Vec<&'a Bookmark>, Option<Place>) {
    let mut shown = titles
        .iter()
        .filter(|bookmark| after.is_none_or(|after| Place::of(bookmark) > after))
        .filter(|bookmark| is_listed(bookmark, query.state, rules));
    let page: Vec<_> = shown.by_ref().take(query.limit).collect();
    let last = shown.next().and(page.last()).map(|last| Place::of(last));
    (page, last)
}

fn is_listed(bookmark: &Bookmark, filter: StateFilter, rules: &Rules) -> bool {
    let state = rules.apply(bookmark).state;
    match filter {
        StateFilter::All => true,
        StateFilter::Completed => state == playhead_core::State::Completed,
        // Who has seen nothing of a title has nothing to continue.
        StateFilter::InProgress => state == playhead_core::State::InProgress && bookmark.position.seconds() > 0.0,
    }
}

/// A place in the order of lists: newest first, then by title.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    write_time: Reverse<WriteTime>,
    movie: MovieId,
}

/// Of the check, so many bytes are enough to notice a mistake.
const CHECK_BYTES: usize = 8;

impl Place {
    fn of(bookmark: &Bookmark) -> Self {
        Self { write_time: Reverse(bookmark.write_time), movie: bookmark.movie }
    }

    fn to_cursor(self, user: UserId, filter: StateFilter) -> String {
        let place = self.to_bytes();
        URL_SAFE_NO_PAD.encode([&place[..], &check_bytes(&place, user, filter)].concat())
    }

    fn from_cursor(cursor: &str, user: UserId, filter: StateFilter) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
        let (place, check) = bytes.split_first_chunk()?;
        if check != check_bytes(place, user, filter) {
            return None;
        }
        let (time, movie) = place.split_first_chunk()?;
        Some(Self {
            write_time: Reverse(WriteTime::from_micros(u64::from_le_bytes(*time))),
            movie: MovieId(i64::from_le_bytes(movie.try_into().ok()?)),
        })
    }

    fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.write_time.0.micros().to_le_bytes());
        bytes[8..].copy_from_slice(&self.movie.0.to_le_bytes());
        bytes
    }
}

fn check_bytes(place: &[u8; 16], user: UserId, filter: StateFilter) -> [u8; CHECK_BYTES] {
    let whole = digest(&SHA256, &[&place[..], &user.0.to_le_bytes(), &[filter as u8]].concat());
    *whole.as_ref().first_chunk().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use playhead_core::{MediaDuration, Position};

    fn bookmark(movie: i64, write_time: u64, position: f64) -> Bookmark {
        Bookmark {
            movie: MovieId(movie),
            position: Position::from_seconds(position).unwrap(),
            duration: MediaDuration::from_seconds(100.0).ok(),
            write_time: WriteTime::from_micros(write_time),
        }
    }

    fn titles() -> Vec<Bookmark> {
        vec![
            bookmark(1, 9, 10.0),
            bookmark(2, 8, 99.0),
            bookmark(-3, 7, 10.0),
            bookmark(4, 7, 10.0),
            bookmark(5, 6, 0.0),
            bookmark(6, 5, 10.0),
        ]
    }

    /// Pages through the titles to the end and gives the ids of each page.
    fn pages(limit: usize, state: StateFilter) -> Vec<Vec<i64>> {
        let (mut pages, mut after) = (Vec::new(), None);
        loop {
            let query = ListQuery { limit, state, cursor: None };
            let titles = titles();
            let (page, last) = page(&titles, &query, after, &Rules::default());
            pages.push(page.iter().map(|bookmark| bookmark.movie.0).collect());
            let Some(last) = last else { return pages };
            after = Place::from_cursor(&last.to_cursor(UserId(1), state), UserId(1), state);
            assert_eq!(after, Some(last));
        }
    }

    #[test]
    fn pages_follow_each_other_and_the_last_says_so() {
        assert_eq!(pages(2, StateFilter::InProgress), [vec![1, -3], vec![4, 6]]);
        assert_eq!(pages(3, StateFilter::InProgress), [vec![1, -3, 4], vec![6]]);
        assert_eq!(pages(4, StateFilter::InProgress), [vec![1, -3, 4, 6]]);
        assert_eq!(pages(1, StateFilter::Completed), [vec![2]]);
        assert_eq!(pages(5, StateFilter::All), [vec![1, 2, -3, 4, 5], vec![6]]);
        assert_eq!(pages(1, StateFilter::All).len(), 6);
    }

    #[test]
    fn a_foreign_cut_or_changed_cursor_is_refused() {
        let (user, state) = (UserId(1), StateFilter::All);
        let cursor = Place::of(&titles()[0]).to_cursor(user, state);
        assert!(Place::from_cursor(&cursor, user, state).is_some());
        assert_eq!(Place::from_cursor(&cursor, UserId(2), state), None);
        assert_eq!(Place::from_cursor(&cursor, user, StateFilter::Completed), None);
        for end in 0..cursor.len() {
            assert_eq!(Place::from_cursor(&cursor[..end], user, state), None);
            let mut changed = cursor.clone().into_bytes();
            changed[end] = if changed[end] == b'A' { b'B' } else { b'A' };
            assert_eq!(Place::from_cursor(&String::from_utf8(changed).unwrap(), user, state), None);
        }
        assert_eq!(Place::from_cursor("!", user, state), None);
    }
}
