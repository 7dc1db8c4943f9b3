//! Controls: stores with one flaw each, which the suite must find. A suite that passes them proves nothing.

use super::{Setup, Subject, TestClock, failures, sequences};
use crate::metrics::StoreMetrics;
use crate::store::memory::Model;
use crate::store::scan::Scan;
use crate::store::stamp::Stamper;
use crate::{Condition, Group, Refusal, Store, StoreError};
use futures_util::future::{self, BoxFuture, FutureExt};
use playhead_core::{Bookmark, Clock, MovieId, Record, RecordKind, UserId, Write};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Flaw {
    /// None: the control of the controls.
    Sound,
    OldestWins,
    LastArrivedWins,
    TiesGoToTheLastArrived,
    TiesGoToTheRow,
    ForgetLeavesNoBarrier,
    EraseLeavesNoBarrier,
    EraseTakesOnlyKnownTitles,
    GreatestUserIsErasedWithAll,
    LosesEvery50thWrite,
    SplitsWholeGroups,
    SettlesAsUnknown,
    WritesShowOneReadLater,
    ListIsNotSorted,
    ListIsUnbounded,
    ListForgetsTheGreatestTitle,
    WalkLeavesOutTheGreatestUser,
    WalkLeavesOutBarriers,
    WalkFromAUserLeavesThemOut,
    RetentionIsIgnored,
    ClosedStillTakes,
    WriteTimesFollowTheClock,
    DisturbedItLosesForgets,
    ReopenedItLosesTheLastRow,
}

struct Flawed {
    flaw: Flaw,
    clock: Arc<TestClock>,
    retention: Option<Duration>,
    state: Mutex<State>,
    condition: Condition,
    metrics: StoreMetrics,
}

struct State {
    stamper: Stamper,
    model: Model,
    /// What the model was before the last group.
    model_before: Model,
    users: BTreeSet<UserId>,
    taken: u64,
    closed: bool,
}

impl Flawed {
    fn new(flaw: Flaw, setup: &Setup) -> Self {
        let state = State {
            stamper: Stamper::new(None),
            model: Model::default(),
            model_before: Model::default(),
            users: BTreeSet::new(),
            taken: 0,
            closed: false,
        };
        Self {
            flaw,
            clock: Arc::clone(&setup.clock),
            retention: setup.retention.filter(|_| flaw != Flaw::RetentionIsIgnored),
            state: Mutex::new(state),
            condition: Condition::default(),
            metrics: StoreMetrics::default(),
        }
    }

    fn take(&self, state: &mut State, writes: &[Write]) {
        if self.flaw == Flaw::WritesShowOneReadLater {
            state.model_before = state.model.clone();
        }
        for write in writes {
            if self.flaw == Flaw::WriteTimesFollowTheClock {
                state.stamper = Stamper::new(None);
            }
            let record = state.stamper.stamp(self.clock.now(), write);
            state.users.insert(record.user);
            state.taken += 1;
            if self.flaw != Flaw::LosesEvery50thWrite || !state.taken.is_multiple_of(50) {
                self.apply(state, record);
            }
        }
    }

    fn apply(&self, state: &mut State, record: Record) {
        let Record { user, kind, row } = record;
        let is_put = matches!(kind, RecordKind::Put | RecordKind::LatePut);
        let kept = state.model.bookmark(user, row.movie);
        let is_tie = kept.is_some_and(|kept| kept.write_time == row.write_time);
        match self.flaw {
            Flaw::OldestWins if is_put && kept.is_some() => {}
            Flaw::LastArrivedWins if is_put && kept.is_some() => replace(state, user, row),
            Flaw::TiesGoToTheLastArrived if is_put && is_tie => replace(state, user, row),
            Flaw::TiesGoToTheRow if matches!(kind, RecordKind::Forget | RecordKind::Erase) => {
                let write_time = row.write_time.before(Duration::from_micros(1));
                state.model.apply(&Record { user, kind, row: Bookmark { write_time, ..row } });
            }
            Flaw::ForgetLeavesNoBarrier if kind == RecordKind::Forget => {
                rebuild(state, |of, kept| of != user || kept.movie != row.movie);
            }
            Flaw::EraseLeavesNoBarrier if kind == RecordKind::Erase => rebuild(state, |of, _| of != user),
            Flaw::EraseTakesOnlyKnownTitles if kind == RecordKind::Erase => {
                for kept in state.model.titles(user) {
                    state.model.apply(&Record::forget(user, kept.movie, row.write_time));
                }
            }
            Flaw::GreatestUserIsErasedWithAll if kind == RecordKind::Erase && user.0 == i64::MAX => {
                for user in state.users.clone() {
                    state.model.apply(&Record::erase(user, row.write_time));
                }
            }
            _ => state.model.apply(&record),
        }
    }

    fn shown(&self, row: &Bookmark) -> bool {
        self.retention.is_none_or(|retention| row.write_time > self.clock.now().before(retention))
    }

    /// Answers a read from the model that this store shows.
    fn read<T>(&self, of: impl FnOnce(&Model) -> T) -> T {
        let mut state = self.state.lock().unwrap();
        if self.flaw == Flaw::WritesShowOneReadLater {
            let answer = of(&state.model_before);
            state.model_before = state.model.clone();
            return answer;
        }
        of(&state.model)
    }

    fn lose_forgets(&self) {
        rebuild(&mut self.state.lock().unwrap(), |_, _| true);
    }

    fn lose_the_last_row(&self) {
        let mut state = self.state.lock().unwrap();
        let last = state.stamper.last();
        rebuild(&mut state, |_, kept| Some(kept.write_time) != last);
    }
}

/// A model of the rows alone that pass.
fn rebuild(state: &mut State, passes: impl Fn(UserId, &Bookmark) -> bool) {
    let mut model = Model::default();
    for user in &state.users {
        for row in state.model.titles(*user) {
            if passes(*user, &row) {
                model.apply(&Record { user: *user, kind: RecordKind::Put, row });
            }
        }
    }
    state.model = model;
}

fn replace(state: &mut State, user: UserId, row: Bookmark) {
    rebuild(state, |of, kept| of != user || kept.movie != row.movie);
    state.model.apply(&Record { user, kind: RecordKind::Put, row });
}

impl Store for Flawed {
    fn commit(&self, group: Group) {
        let mut state = self.state.lock().unwrap();
        if state.closed && self.flaw != Flaw::ClosedStillTakes {
            return group.settle(Err(StoreError::Refused(Refusal::Unavailable)));
        }
        let writes = group.writes();
        let split = self.flaw == Flaw::SplitsWholeGroups && group.is_whole() && writes.len() > 100;
        let writes = if split { &writes[..100] } else { writes };
        self.take(&mut state, writes);
        drop(state);
        let unknown = self.flaw == Flaw::SettlesAsUnknown && group.writes().len() > 1;
        if unknown { drop(group) } else { group.settle(Ok(())) }
    }

    fn bookmarks(
        &self,
        user: UserId,
        movies: Vec<MovieId>,
    ) -> BoxFuture<'static, Result<Vec<Option<Bookmark>>, StoreError>> {
        let find = |model: &Model| {
            movies.iter().map(|movie| model.bookmark(user, *movie).filter(|row| self.shown(row))).collect()
        };
        let found = self.read(find);
        future::ready(Ok(found)).boxed()
    }

    fn titles(&self, user: UserId) -> BoxFuture<'static, Result<Vec<Bookmark>, StoreError>> {
        let mut titles = self.read(|model| model.titles(user));
        titles.retain(|row| self.shown(row));
        match self.flaw {
            Flaw::ListIsNotSorted => titles.sort_by_key(|row| row.movie),
            Flaw::ListForgetsTheGreatestTitle => titles.retain(|row| row.movie.0 != i64::MAX),
            Flaw::ListIsUnbounded => titles.extend((titles.len() == 10_000).then(|| titles[0])),
            _ => {}
        }
        future::ready(Ok(titles)).boxed()
    }

    fn scan(&self, from: Option<UserId>) -> Scan {
        let mut records = self.read(Model::records);
        let is_after = |user: UserId, from: UserId| match self.flaw {
            Flaw::WalkFromAUserLeavesThemOut => user > from,
            _ => user >= from,
        };
        records.retain(|record| from.is_none_or(|from| is_after(record.user, from)));
        records.retain(|record| record.kind != RecordKind::Put || self.shown(&record.row));
        match self.flaw {
            Flaw::WalkLeavesOutTheGreatestUser => records.retain(|record| record.user.0 != i64::MAX),
            Flaw::WalkLeavesOutBarriers => records.retain(|record| record.kind == RecordKind::Put),
            _ => {}
        }
        Scan::on_a_thread(true, move |pieces| pieces.put_all(records.into_iter().map(Ok)))
    }

    fn condition(&self) -> &Condition {
        &self.condition
    }

    fn metrics(&self) -> &StoreMetrics {
        &self.metrics
    }

    fn close(&self) -> Result<(), StoreError> {
        self.state.lock().unwrap().closed = true;
        Ok(())
    }
}

fn open(flaw: Flaw, setup: &Setup) -> Subject {
    let store = Arc::new(Flawed::new(flaw, setup));
    let (disturbed, reopened) = (Arc::clone(&store), Arc::clone(&store));
    let disturb = move |_| {
        if flaw == Flaw::DisturbedItLosesForgets {
            disturbed.lose_forgets();
        }
    };
    let reopen = move || {
        if flaw == Flaw::ReopenedItLosesTheLastRow {
            reopened.lose_the_last_row();
        }
        reopened.state.lock().unwrap().closed = false;
        Arc::clone(&reopened) as Arc<dyn Store>
    };
    Subject { store, disturb: Some(Box::new(disturb)), reopen: Some(Box::new(reopen)) }
}

/// Which cases find a flaw.
fn found(flaw: Flaw, sequences: u32) -> BTreeMap<&'static str, String> {
    failures(sequences, |setup| open(flaw, setup)).into_iter().map(|failure| (failure.case, failure.reason)).collect()
}

#[test]
fn a_sound_store_with_every_hook_passes() {
    assert_eq!(found(Flaw::Sound, 64), BTreeMap::new());
}

#[test]
fn each_flaw_is_found_by_the_case_made_for_it() {
    let flaws = [
        (Flaw::OldestWins, "the newest heartbeat wins"),
        (Flaw::LastArrivedWins, "an older late item loses"),
        (Flaw::TiesGoToTheLastArrived, "at a tie each column keeps its greater value"),
        (Flaw::TiesGoToTheRow, "at a tie a forget wins"),
        (Flaw::TiesGoToTheRow, "at a tie an erasure wins"),
        (Flaw::ForgetLeavesNoBarrier, "a forget bars what happened before it"),
        (Flaw::EraseLeavesNoBarrier, "an erasure bars every title of its user"),
        (Flaw::EraseTakesOnlyKnownTitles, "an erasure bars every title of its user"),
        (Flaw::GreatestUserIsErasedWithAll, "the greatest user is erased alone"),
        (Flaw::LosesEvery50thWrite, "every write of a large group is settled"),
        (Flaw::SplitsWholeGroups, "every write of a large group is settled"),
        (Flaw::SettlesAsUnknown, "every write of a large group is settled"),
        (Flaw::LosesEvery50thWrite, "groups handed over at once are kept in order"),
        (Flaw::WritesShowOneReadLater, "point reads keep the order asked for"),
        (Flaw::ListIsNotSorted, "a list is in order of writing, and by title at equal times"),
        (Flaw::ListIsUnbounded, "a list shows the newest titles up to its bound"),
        (Flaw::WalkLeavesOutTheGreatestUser, "a walk gives everything"),
        (Flaw::WalkLeavesOutBarriers, "a walk gives everything"),
        (Flaw::WalkFromAUserLeavesThemOut, "a walk gives everything"),
        (Flaw::ListForgetsTheGreatestTitle, "ids at the edges of their range are told apart"),
        (Flaw::RetentionIsIgnored, "a row past its retention is not shown"),
        (Flaw::ClosedStillTakes, "a closed store refuses"),
        (Flaw::WriteTimesFollowTheClock, "a clock that goes back does not stop what comes after"),
        (Flaw::DisturbedItLosesForgets, "a forget bars what happened before it"),
        (Flaw::ReopenedItLosesTheLastRow, "a title past its retention can be watched anew"),
    ];
    for (flaw, case) in flaws {
        let found = found(flaw, 0);
        assert!(found.contains_key(case), "{flaw:?} got past {case:?}; found were {found:#?}");
    }
}

#[test]
fn random_sequences_find_what_they_can_meet_and_shrink_it() {
    use Flaw::{
        DisturbedItLosesForgets, EraseLeavesNoBarrier, EraseTakesOnlyKnownTitles, ForgetLeavesNoBarrier,
        LastArrivedWins, ListForgetsTheGreatestTitle, ListIsNotSorted, LosesEvery50thWrite, OldestWins,
        SettlesAsUnknown, TiesGoToTheLastArrived, TiesGoToTheRow, WriteTimesFollowTheClock, WritesShowOneReadLater,
    };
    let flaws = [
        OldestWins,
        LastArrivedWins,
        TiesGoToTheLastArrived,
        TiesGoToTheRow,
        ForgetLeavesNoBarrier,
        EraseLeavesNoBarrier,
        EraseTakesOnlyKnownTitles,
        LosesEvery50thWrite,
        SettlesAsUnknown,
        WritesShowOneReadLater,
        ListIsNotSorted,
        ListForgetsTheGreatestTitle,
        WriteTimesFollowTheClock,
        DisturbedItLosesForgets,
    ];
    let plans = sequences::all();
    let (_, by_handle) = plans.iter().find(|(name, _)| *name == "random sequences by handle").unwrap();
    for flaw in flaws {
        let outcome = sequences::run(by_handle, 512, &|setup| open(flaw, setup));
        let reason = outcome.err().unwrap_or_else(|| panic!("{flaw:?} got past"));
        assert!(reason.starts_with("PLAYHEAD_TEST_SEED="), "{reason}");
    }
}
