//! A store beside its oracle: steps are done to both, then every read is compared.

use super::{Caller, Setup, Subject, TestClock};
use crate::store::memory::Model;
use crate::store::stamp::Stamper;
use crate::{Outcome, Store};
use playhead_core::{Bookmark, Change, Clock, MediaDuration, MovieId, Position, RecordKind, UserId, Write, WriteTime};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// The ids that all cases and sequences use: the edges of the range, and what lies where a sign or a prefix goes wrong.
pub(super) const USERS: [UserId; 4] = [UserId(-1), UserId(0), UserId(i64::MIN), UserId(i64::MAX)];
pub(super) const MOVIES: [MovieId; 5] = [MovieId(-1), MovieId(0), MovieId(1), MovieId(i64::MIN), MovieId(i64::MAX)];

/// Has the live write before each reopening, see the suite's head.
const LAST_BEFORE_REOPENING: UserId = UserId(-77);

/// What the clock shows at first: some day in 2026.
pub(super) const START_MICROS: u64 = 1_770_000_000_000_000;
pub(super) const SECOND: i64 = 1_000_000;
pub(super) const HOUR: i64 = 3_600 * SECOND;
pub(super) const MAX_ITEM_AGE: Duration = Duration::from_secs(30 * 86_400);

/// One write, before it is known when it comes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Act {
    /// A heartbeat: user, title, seconds.
    Live(UserId, MovieId, f64),
    /// A heartbeat that knows the duration.
    LiveOf(UserId, MovieId, f64, f64),
    /// An item of a late batch, this many microseconds late.
    Late(UserId, MovieId, f64, u64),
    /// A row of an export, with its duration (0: none) and its write time relative to the newest one given so far.
    Import(UserId, MovieId, f64, f64, i64),
    Forget(UserId, MovieId),
    Erase(UserId),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    /// Committed together.
    Group(Vec<Act>),
    /// Groups handed over before any of them is waited for.
    AtOnce(Vec<Vec<Act>>),
    /// The clock moves by so many microseconds.
    Clock(i64),
    Disturb(u32),
    Reopen,
}

/// By which way groups reach the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Lane,
    Handle,
}

/// What a store must answer.
struct Oracle {
    clock: Arc<TestClock>,
    retention: Option<Duration>,
    stamper: Stamper,
    model: Model,
}

impl Oracle {
    fn apply(&mut self, writes: &[Write]) {
        for write in writes {
            self.model.apply(&self.stamper.stamp(self.clock.now(), write));
        }
    }

    fn is_shown(&self, row: &Bookmark) -> bool {
        self.retention.is_none_or(|retention| row.write_time > self.clock.now().before(retention))
    }

    fn newest_write_time(&self) -> WriteTime {
        self.stamper.last().unwrap_or_else(|| self.clock.now())
    }
}

pub(super) struct Bench {
    pub(super) clock: Arc<TestClock>,
    oracle: Oracle,
    subject: Subject,
    /// `None` only while the store is reopened.
    caller: Option<Caller>,
    way: Way,
    seen: BTreeSet<(UserId, MovieId)>,
    /// The newest write time given to an act: imports are relative to it, whatever was written for a reopening.
    newest: WriteTime,
}

impl Bench {
    pub(super) fn open(open: &dyn Fn(&Setup) -> Subject, way: Way, retention: Option<Duration>) -> Self {
        let clock = Arc::new(TestClock::at_micros(START_MICROS));
        let setup = Setup { clock: Arc::clone(&clock), retention, max_item_age: MAX_ITEM_AGE };
        let subject = open(&setup);
        let oracle =
            Oracle { clock: Arc::clone(&clock), retention, stamper: Stamper::new(None), model: Model::default() };
        let caller = Some(Caller::of(Arc::clone(&subject.store)));
        let seen = USERS.iter().flat_map(|user| MOVIES.iter().map(|movie| (*user, *movie))).collect();
        let newest = clock.now();
        Self { clock, oracle, subject, caller, way, seen, newest }
    }

    pub(super) fn caller(&self) -> &Caller {
        self.caller.as_ref().expect("there is a caller but while the store is reopened")
    }

    pub(super) fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.subject.store)
    }

    pub(super) fn can_disturb(&self) -> bool {
        self.subject.disturb.is_some()
    }

    pub(super) fn can_reopen(&self) -> bool {
        self.subject.reopen.is_some()
    }

    pub(super) fn disturbance(&self) -> Option<&(dyn Fn(u32) + Send + Sync)> {
        self.subject.disturb.as_deref()
    }

    /// Does one step to both; what could not be compared or done is an error.
    pub(super) fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Group(acts) => {
                let writes = self.writes(acts);
                self.commit(&writes)?;
                self.newest = self.oracle.newest_write_time();
            }
            Step::AtOnce(groups) => {
                // Times of imports are relative to what is known when all of them are handed over.
                let groups: Vec<_> = groups.iter().map(|acts| self.writes(acts)).collect();
                let outcomes = self.caller().whole_at_once(&groups);
                all_kept(&outcomes)?;
                for writes in &groups {
                    self.oracle.apply(writes);
                }
                self.newest = self.oracle.newest_write_time();
            }
            Step::Clock(micros) => self.clock.step_micros(*micros),
            Step::Disturb(kind) => {
                if let Some(disturb) = &self.subject.disturb {
                    disturb(*kind);
                }
            }
            Step::Reopen => {
                if self.can_reopen() {
                    self.seen.insert((LAST_BEFORE_REOPENING, MovieId(0)));
                    self.commit(&[put(LAST_BEFORE_REOPENING, MovieId(0), 1.0)])?;
                }
                self.reopen();
            }
        }
        Ok(())
    }

    /// Commits writes to both.
    pub(super) fn commit(&mut self, writes: &[Write]) -> Result<(), String> {
        match self.way {
            Way::Lane => {
                let outcomes = self.caller().each(writes);
                if outcomes.len() != writes.len() {
                    return Err(format!("{} outcomes of {} writes", outcomes.len(), writes.len()));
                }
                all_kept(&outcomes)?;
            }
            Way::Handle => all_kept(&[self.caller().whole(writes)])?,
        }
        self.oracle.apply(writes);
        Ok(())
    }

    /// Closes the store and opens it again, if it can be.
    pub(super) fn reopen(&mut self) {
        if let Some(reopen) = &mut self.subject.reopen {
            self.caller = None;
            // Something must stand in its place while the store itself is let go of.
            self.subject.store = Arc::new(crate::store::discard::Discard::default());
            self.subject.store = reopen();
            self.caller = Some(Caller::of(Arc::clone(&self.subject.store)));
        }
    }

    fn writes(&mut self, acts: &[Act]) -> Vec<Write> {
        for act in acts {
            match *act {
                Act::Live(user, movie, _)
                | Act::LiveOf(user, movie, ..)
                | Act::Late(user, movie, ..)
                | Act::Import(user, movie, ..)
                | Act::Forget(user, movie) => self.seen.insert((user, movie)),
                Act::Erase(_) => false,
            };
        }
        acts.iter().map(|act| act.write(self.newest)).collect()
    }

    /// Compares every read of every user and title that was ever written.
    pub(super) fn compare(&self) -> Result<(), String> {
        let users: BTreeSet<_> = self.seen.iter().map(|(user, _)| *user).collect();
        for user in users {
            let movies: Vec<_> = self.seen.iter().filter(|(of, _)| *of == user).map(|(_, movie)| *movie).collect();
            self.compare_user(user, &movies)?;
        }
        Ok(())
    }

    fn compare_user(&self, user: UserId, movies: &[MovieId]) -> Result<(), String> {
        let mut titles = self.oracle.model.titles(user);
        titles.retain(|row| self.oracle.is_shown(row));
        let listed = self.caller().titles(user);
        if listed.as_ref() != Ok(&titles) {
            return Err(format!("the list of user {user} is\n{listed:?}, not\n{titles:?}"));
        }
        let expected: Vec<_> = movies
            .iter()
            .map(|movie| self.oracle.model.bookmark(user, *movie).filter(|row| self.oracle.is_shown(row)))
            .collect();
        let read = self.caller().bookmarks(user, movies);
        if read.as_ref() != Ok(&expected) {
            return Err(format!("the titles {movies:?} of user {user} are\n{read:?}, not\n{expected:?}"));
        }
        Ok(())
    }

    /// Compares a walk over everything, as far as it is about users that were written here, and one from a user amid
    /// them on.
    pub(super) fn compare_scan(&self) -> Result<(), String> {
        let users: BTreeSet<_> = self.seen.iter().map(|(user, _)| *user).collect();
        let walk = |from| {
            let (mut scanned, has_barriers) =
                self.caller().scan(from).map_err(|error| format!("the walk broke off: {error}"))?;
            scanned.retain(|record| users.contains(&record.user));
            Ok::<_, String>((scanned, has_barriers))
        };
        let (mut scanned, has_barriers) = walk(None)?;
        if let Some(amid) = scanned.get(scanned.len() / 2).map(|record| record.user) {
            let first = scanned.iter().position(|record| record.user == amid).expect("it was found there");
            let (rest, _) = walk(Some(amid))?;
            if rest != scanned[first..] {
                let expected = &scanned[first..];
                return Err(format!("a walk from user {amid} on gives\n{rest:?}, not\n{expected:?}"));
            }
        }
        scanned.sort_unstable_by_key(|record| (record.user, record.kind != RecordKind::Erase, record.row.movie));
        let mut expected = self.oracle.model.records();
        expected.retain(|record| match record.kind {
            RecordKind::Put | RecordKind::LatePut => self.oracle.is_shown(&record.row),
            RecordKind::Forget | RecordKind::Erase => has_barriers,
        });
        if scanned == expected { Ok(()) } else { Err(format!("a walk gives\n{scanned:?}, not\n{expected:?}")) }
    }

    /// The position that the store gives, in seconds.
    pub(super) fn position(&self, user: UserId, movie: MovieId) -> Result<Option<f64>, String> {
        let read = self.caller().bookmark(user, movie).map_err(|error| format!("the read failed: {error}"))?;
        Ok(read.map(|bookmark| bookmark.position.seconds()))
    }
}

impl Act {
    fn write(&self, newest: WriteTime) -> Write {
        let (user, change) = match *self {
            Self::Live(user, movie, seconds) => {
                (user, Change::Put { movie, position: position(seconds), duration: None })
            }
            Self::LiveOf(user, movie, seconds, of) => {
                (user, Change::Put { movie, position: position(seconds), duration: duration(of) })
            }
            Self::Late(user, movie, seconds, age_us) => {
                let age = Duration::from_micros(age_us);
                (user, Change::LatePut { movie, position: position(seconds), duration: None, age })
            }
            Self::Import(user, movie, seconds, of, after_newest_us) => {
                let write_time = WriteTime::from_micros(newest.micros().saturating_add_signed(after_newest_us));
                let row = Bookmark { movie, position: position(seconds), duration: duration(of), write_time };
                (user, Change::Import(row))
            }
            Self::Forget(user, movie) => (user, Change::Forget { movie }),
            Self::Erase(user) => (user, Change::Erase),
        };
        Write { user, change }
    }
}

pub(super) fn position(seconds: f64) -> Position {
    Position::from_seconds(seconds).expect("the suite stays within the range of positions")
}

fn duration(seconds: f64) -> Option<MediaDuration> {
    MediaDuration::from_seconds(seconds).ok()
}

/// A heartbeat.
pub(super) fn put(user: UserId, movie: MovieId, seconds: f64) -> Write {
    Act::Live(user, movie, seconds).write(WriteTime::MIN)
}

fn all_kept(outcomes: &[Outcome]) -> Result<(), String> {
    match outcomes.iter().find(|outcome| outcome.is_err()) {
        Some(outcome) => Err(format!("a write was not kept: {outcome:?}")),
        None => Ok(()),
    }
}
