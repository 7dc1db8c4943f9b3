//! The rules applied when a bookmark is read: is it completed, and where does playback start?
//!
//! The store keeps raw positions and applies none of this, so a changed rule is retroactive.

use crate::Bookmark;

/// The settings of the rules.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rules {
    /// The share of the duration from which a title counts as completed, `0 < completed_at <= 1`.
    pub completed_at: f64,
}

impl Default for Rules {
    fn default() -> Self {
        Self { completed_at: 0.95 }
    }
}

/// What a title is to its viewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Never watched, or forgotten.
    None,
    /// Begun and not completed. A stored position of 0 counts too, though the continue-watching row leaves it out.
    InProgress,
    /// Watched to the end, or near enough.
    Completed,
}

/// A bookmark seen through the rules.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// What the title is to its viewer.
    pub state: State,
    /// Where playback starts, in seconds: the stored position, or 0 when completed.
    pub resume_position_seconds: f64,
}

impl Rules {
    /// Applies the rules to one stored row. Without a duration nothing is ever completed.
    #[must_use]
    pub fn apply(&self, bookmark: &Bookmark) -> Progress {
        let position = bookmark.position.seconds();
        let completed = bookmark.duration.is_some_and(|duration| position >= self.completed_at * duration.seconds());
        if completed {
            Progress { state: State::Completed, resume_position_seconds: 0.0 }
        } else {
            Progress { state: State::InProgress, resume_position_seconds: position }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MediaDuration, MovieId, Position, WriteTime};

    #[test]
    fn completed_from_the_share_on_and_only_with_a_duration() {
        let cases = [
            (94.9, Some(100.0), State::InProgress, 94.9),
            (95.0, Some(100.0), State::Completed, 0.0),
            (120.0, Some(100.0), State::Completed, 0.0),
            (95.0, None, State::InProgress, 95.0),
            (0.0, Some(100.0), State::InProgress, 0.0),
        ];
        for (position, duration, state, resume_position_seconds) in cases {
            let bookmark = Bookmark {
                movie: MovieId(1),
                position: Position::from_seconds(position).unwrap(),
                duration: duration.map(|seconds| MediaDuration::from_seconds(seconds).unwrap()),
                write_time: WriteTime::MIN,
            };
            let progress = Rules::default().apply(&bookmark);
            assert_eq!(progress, Progress { state, resume_position_seconds }, "{position} of {duration:?}");
        }
    }
}
