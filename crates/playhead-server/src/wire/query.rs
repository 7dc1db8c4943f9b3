//! The query of `GET /api/v1/stream/progress`: a page of what was watched, or a set of titles.
//!
//! **The promise.** What parses is valid, but for the cursor, whose meaning is [`crate::resume`]'s. A known parameter that
//! is out of range, given twice or goes with no other is [`Problem::InvalidQuery`]; unknown ones are ignored.

use crate::problem::Problem;
use playhead_core::MovieId;

/// Which states a list shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StateFilter {
    InProgress,
    Completed,
    All,
}

impl StateFilter {
    /// What a list shows if the query does not say.
    pub(crate) const DEFAULT: Self = Self::InProgress;

    /// All of them, as queries spell them.
    pub(crate) const NAMES: [(&str, Self); 3] =
        [("in_progress", Self::InProgress), ("completed", Self::Completed), ("all", Self::All)];
}

/// The query of `GET /api/v1/stream/progress`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum TitlesQuery {
    /// A page of what was watched.
    List(ListQuery),
    /// These titles, in this order, 1 to [`MOVIES_MAX`].
    Set(Vec<MovieId>),
}

/// Which page of what was watched.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ListQuery {
    pub(crate) limit: usize,
    pub(crate) state: StateFilter,
    /// As it came; its meaning is [`crate::resume`]'s.
    pub(crate) cursor: Option<String>,
}

/// Titles on a page if the query does not say.
pub(crate) const LIMIT_DEFAULT: usize = 20;
/// The most titles on a page.
pub(crate) const LIMIT_MAX: usize = 100;
/// The most titles that a query names.
pub(crate) const MOVIES_MAX: usize = 100;

impl TitlesQuery {
    /// Parses the decoded pairs of a query. Unknown parameters are ignored; known ones may occur once, but for
    /// `movie_id`, which goes with no other.
    pub(crate) fn parse(pairs: Vec<(String, String)>) -> Result<Self, Problem> {
        let (mut limit, mut state, mut cursor) = (None, None, None);
        let mut movies = Vec::new();
        for (name, value) in pairs {
            let is_duplicate = match name.as_str() {
                "limit" => limit.replace(parse_limit(&value)?).is_some(),
                "state" => state.replace(parse_state(&value)?).is_some(),
                "cursor" => cursor.replace(value).is_some(),
                "movie_id" => {
                    movies.push(value.parse().map_err(|_| Problem::InvalidQuery)?);
                    false
                }
                _ => false,
            };
            if is_duplicate {
                return Err(Problem::InvalidQuery);
            }
        }
        if movies.is_empty() {
            let limit = limit.unwrap_or(LIMIT_DEFAULT);
            return Ok(Self::List(ListQuery { limit, state: state.unwrap_or(StateFilter::DEFAULT), cursor }));
        }
        let is_list_too = limit.is_some() || state.is_some() || cursor.is_some();
        if is_list_too || movies.len() > MOVIES_MAX { Err(Problem::InvalidQuery) } else { Ok(Self::Set(movies)) }
    }
}

fn parse_limit(text: &str) -> Result<usize, Problem> {
    let limit = text.parse().map_err(|_| Problem::InvalidQuery)?;
    // The standard parser also takes a plus sign.
    let is_valid = (1..=LIMIT_MAX).contains(&limit) && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_valid { Ok(limit) } else { Err(Problem::InvalidQuery) }
}

fn parse_state(text: &str) -> Result<StateFilter, Problem> {
    let known = StateFilter::NAMES.iter().find(|(name, _)| *name == text);
    known.map(|(_, filter)| *filter).ok_or(Problem::InvalidQuery)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_strict_about_what_they_know() {
        let parse = |pairs: &[(&str, &str)]| {
            TitlesQuery::parse(pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect())
        };
        let default = ListQuery { limit: 20, state: StateFilter::InProgress, cursor: None };
        assert_eq!(parse(&[]), Ok(TitlesQuery::List(default)));
        assert_eq!(
            parse(&[("limit", "100"), ("state", "all"), ("cursor", "x"), ("other", "1"), ("other", "2")]),
            Ok(TitlesQuery::List(ListQuery { limit: 100, state: StateFilter::All, cursor: Some("x".to_owned()) }))
        );
        assert_eq!(
            parse(&[("movie_id", "2"), ("x", "y"), ("movie_id", "-1"), ("movie_id", "2")]),
            Ok(TitlesQuery::Set([2, -1, 2].map(MovieId).to_vec()))
        );
        assert!(parse(&[("movie_id", "2"); 100]).is_ok());
        let bad: [&[(&str, &str)]; 18] = [
            &[("limit", "0")],
            &[("limit", "-1")],
            &[("limit", "+1")],
            &[("limit", "101")],
            &[("limit", "abc")],
            &[("limit", "")],
            &[("limit", "1e9")],
            &[("limit", "18446744073709551616")],
            &[("limit", "5"), ("limit", "5")],
            &[("state", "none")],
            &[("state", "all"), ("state", "all")],
            &[("cursor", "a"), ("cursor", "a")],
            &[("movie_id", "2"); 101],
            &[("movie_id", "2"), ("limit", "5")],
            &[("state", "all"), ("movie_id", "2")],
            &[("movie_id", "2"), ("cursor", "a")],
            &[("movie_id", "")],
            &[("movie_id", "1"), ("movie_id", "02")],
        ];
        for pairs in bad {
            assert_eq!(parse(pairs), Err(Problem::InvalidQuery), "{pairs:?}");
        }
    }
}
