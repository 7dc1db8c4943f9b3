//! A store that fails on order: it wraps any other, and hands every call on until a test orders otherwise.
//!
//! **The promise.** A fault is an honest one: what is settled as refused is surely not carried out, now or later, and
//! a group that is carried out all or none is never split. What is settled as unknown is carried out or is not, as
//! ordered. Orders are used up in the order given, one for each group or read; reads and groups do not mix.
//!
//! **The limits.** Groups handed over later overtake those on hold. Held groups and orders are kept without bound:
//! this is for tests.

use super::scan::Scan;
use super::{Condition, Group, GroupOutcome, Health, Outcome, Refusal, Settlement, Store, StoreError};
use crate::metrics::StoreMetrics;
use futures_util::future::{self, BoxFuture, FutureExt};
use playhead_core::{Bookmark, MovieId, UserId, Write};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;

/// What becomes of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Refused, and not carried out.
    Refuse(Refusal),
    /// Refused for the writes at these places, carried out for the others. A group that is carried out all or none is
    /// refused as a whole.
    RefuseSome(Refusal, Vec<usize>),
    /// Settled as unknown at once; carried out or not.
    Unknown {
        /// Whether it is stored all the same.
        carried_out: bool,
    },
    /// Neither carried out nor settled until [`Faulty::release`].
    Hold,
}

/// A store with faults on order.
pub struct Faulty {
    store: Arc<dyn Store>,
    orders: Mutex<Orders>,
}

#[derive(Default)]
struct Orders {
    groups: VecDeque<Fault>,
    reads: VecDeque<StoreError>,
    held: Vec<Group>,
    failed: bool,
}

impl Faulty {
    /// A store that behaves as `store` does, so far.
    #[must_use]
    pub fn over(store: Arc<dyn Store>) -> Self {
        Self { store, orders: Mutex::default() }
    }

    /// Orders a fault for each of the next `count` groups that have none yet.
    pub fn fail_groups(&self, count: usize, fault: &Fault) {
        self.orders().groups.extend(std::iter::repeat_n(fault.clone(), count));
    }

    /// Orders an error for each of the next `count` reads that have none yet.
    pub fn fail_reads(&self, count: usize, error: StoreError) {
        self.orders().reads.extend(std::iter::repeat_n(error, count));
    }

    /// Takes back all orders not yet used.
    pub fn heal(&self) {
        let mut orders = self.orders();
        orders.groups.clear();
        orders.reads.clear();
    }

    /// Groups on hold.
    #[must_use]
    pub fn held(&self) -> usize {
        self.orders().held.len()
    }

    /// Carries out the groups on hold, in the order of their arrival.
    pub fn release(&self) {
        let held = std::mem::take(&mut self.orders().held);
        for group in held {
            self.store.commit(group);
        }
    }

    /// Fails for good: the condition says so, every call ends in [`StoreError::Fatal`], groups on hold included.
    pub fn fail_for_good(&self, reason: &str) {
        let mut orders = self.orders();
        orders.failed = true;
        let held = std::mem::take(&mut orders.held);
        drop(orders);
        self.store.condition().set(Health::Failed(reason.to_owned()));
        for group in held {
            group.settle(Err(StoreError::Fatal));
        }
    }

    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_read(&self) -> Result<(), StoreError> {
        let mut orders = self.orders();
        if orders.failed {
            return Err(StoreError::Fatal);
        }
        orders.reads.pop_front().map_or(Ok(()), Err)
    }

    /// Carries out writes of a group that goes another way.
    fn carry_out(&self, writes: Vec<Write>) -> mpsc::UnboundedReceiver<Settlement> {
        let (sender, settlement) = mpsc::unbounded_channel();
        self.store.commit(Group::of_lane(writes, 0, sender));
        settlement
    }

    fn refuse_some(&self, group: Group, refusal: Refusal, refused: Vec<usize>) {
        let kept = group.writes().iter().enumerate().filter(|(index, _)| !refused.contains(index));
        let mut settlement = self.carry_out(kept.map(|(_, write)| *write).collect());
        let settle = move |settlement: Option<Settlement>| {
            let outcome = settlement.map_or(GroupOutcome::All(Err(StoreError::Unknown)), |told| told.outcome);
            let mut carried_out: Box<dyn Iterator<Item = Outcome>> = match outcome {
                GroupOutcome::All(outcome) => Box::new(std::iter::repeat(outcome)),
                GroupOutcome::Each(outcomes) => Box::new(outcomes.into_iter()),
            };
            let outcome_of = |index| {
                let kept = !refused.contains(&index);
                if kept { carried_out.next() } else { Some(Err(StoreError::Refused(refusal))) }
            };
            let outcomes = (0..group.writes().len()).filter_map(outcome_of).collect();
            group.settle_each(outcomes);
        };
        match settlement.try_recv() {
            Ok(told) => settle(Some(told)),
            // The wrapped store settles later, from a thread of its own.
            Err(_) => drop(std::thread::spawn(move || settle(settlement.blocking_recv()))),
        }
    }
}

impl Store for Faulty {
    fn commit(&self, group: Group) {
        let mut orders = self.orders();
        if orders.failed {
            drop(orders);
            return group.settle(Err(StoreError::Fatal));
        }
        let fault = orders.groups.pop_front();
        if fault == Some(Fault::Hold) {
            return orders.held.push(group);
        }
        drop(orders);
        match fault {
            None | Some(Fault::Hold) => self.store.commit(group),
            Some(Fault::Refuse(refusal)) => group.settle(Err(StoreError::Refused(refusal))),
            Some(Fault::RefuseSome(refusal, _)) if group.is_whole() => {
                group.settle(Err(StoreError::Refused(refusal)));
            }
            Some(Fault::RefuseSome(refusal, refused)) => self.refuse_some(group, refusal, refused),
            Some(Fault::Unknown { carried_out }) => {
                if carried_out {
                    drop(self.carry_out(group.writes().to_vec()));
                }
                group.settle(Err(StoreError::Unknown));
            }
        }
    }

    fn bookmarks(
        &self,
        user: UserId,
        movies: Vec<MovieId>,
    ) -> BoxFuture<'static, Result<Vec<Option<Bookmark>>, StoreError>> {
        match self.next_read() {
            Ok(()) => self.store.bookmarks(user, movies),
            Err(error) => future::ready(Err(error)).boxed(),
        }
    }

    fn titles(&self, user: UserId) -> BoxFuture<'static, Result<Vec<Bookmark>, StoreError>> {
        match self.next_read() {
            Ok(()) => self.store.titles(user),
            Err(error) => future::ready(Err(error)).boxed(),
        }
    }

    fn scan(&self, from: Option<UserId>) -> Scan {
        match self.next_read() {
            Ok(()) => self.store.scan(from),
            Err(error) => Scan::on_a_thread(true, move |_| Err(error)),
        }
    }

    fn condition(&self) -> &Condition {
        self.store.condition()
    }

    fn metrics(&self) -> &StoreMetrics {
        self.store.metrics()
    }

    /// Refuses the groups on hold and closes the wrapped store.
    fn close(&self) -> Result<(), StoreError> {
        let held = std::mem::take(&mut self.orders().held);
        for group in held {
            group.settle(Err(StoreError::Refused(Refusal::Unavailable)));
        }
        if self.orders().failed { Err(StoreError::Fatal) } else { self.store.close() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{Caller, TestClock};
    use crate::store::memory::Memory;
    use playhead_core::{Change, Position};
    use std::time::Duration;

    const USER: UserId = UserId(1);
    const REFUSALS: [Refusal; 3] = [Refusal::Busy, Refusal::NoSpace, Refusal::Unavailable];

    fn put(movie: i64, seconds: f64) -> Write {
        let position = Position::from_seconds(seconds).unwrap();
        Write { user: USER, change: Change::Put { movie: MovieId(movie), position, duration: None } }
    }

    fn check(scenario: impl FnOnce(&Faulty, &Caller)) {
        let faulty = Arc::new(Faulty::over(Arc::new(Memory::new(Arc::new(TestClock::at_micros(1_000))))));
        let caller = Caller::of(Arc::clone(&faulty) as Arc<dyn Store>);
        scenario(&faulty, &caller);
    }

    fn seconds(caller: &Caller, movie: i64) -> Option<f64> {
        caller.bookmark(USER, MovieId(movie)).unwrap().map(|bookmark| bookmark.position.seconds())
    }

    #[test]
    fn refused_groups_are_not_stored_and_the_next_one_is() {
        check(|faulty, caller| {
            for refusal in REFUSALS {
                let refused = Err(StoreError::Refused(refusal));
                faulty.fail_groups(2, &Fault::Refuse(refusal));
                assert_eq!(caller.whole(&[put(1, 1.0), put(2, 1.0)]), refused);
                assert_eq!(caller.each(&[put(1, 1.0), put(2, 1.0)]), [refused; 2]);
                assert_eq!((seconds(caller, 1), seconds(caller, 2)), (None, None));
            }
            assert_eq!(caller.whole(&[put(1, 1.0)]), Ok(()));
            assert_eq!(seconds(caller, 1), Some(1.0));
        });
    }

    #[test]
    fn unknown_groups_are_stored_or_not_as_ordered() {
        check(|faulty, caller| {
            for (movie, carried_out) in [(1, true), (2, false)] {
                faulty.fail_groups(2, &Fault::Unknown { carried_out });
                assert_eq!(caller.each(&[put(movie, 1.0)]), [Err(StoreError::Unknown)]);
                assert_eq!(seconds(caller, movie), carried_out.then_some(1.0));
                assert_eq!(caller.whole(&[put(movie, 2.0)]), Err(StoreError::Unknown));
                assert_eq!(seconds(caller, movie), carried_out.then_some(2.0));
            }
        });
    }

    #[test]
    fn single_writes_are_refused_but_a_whole_group_is_not_split() {
        check(|faulty, caller| {
            let refused = Err(StoreError::Refused(Refusal::Busy));
            faulty.fail_groups(2, &Fault::RefuseSome(Refusal::Busy, vec![0, 2]));
            let outcomes = caller.each(&[put(1, 1.0), put(2, 1.0), put(3, 1.0), put(4, 1.0)]);
            assert_eq!(outcomes, [refused, Ok(()), refused, Ok(())]);
            let stored: Vec<_> = (1..=4).map(|movie| seconds(caller, movie)).collect();
            assert_eq!(stored, [None, Some(1.0), None, Some(1.0)]);
            assert_eq!(caller.whole(&[put(5, 1.0), put(6, 1.0)]), refused);
            assert_eq!((seconds(caller, 5), seconds(caller, 6)), (None, None));
        });
    }

    #[test]
    fn single_writes_are_refused_over_a_store_that_settles_later() {
        let slow = Arc::new(Faulty::over(Arc::new(Memory::new(Arc::new(TestClock::at_micros(1_000))))));
        let faulty = Arc::new(Faulty::over(Arc::clone(&slow) as Arc<dyn Store>));
        slow.fail_groups(1, &Fault::Hold);
        faulty.fail_groups(1, &Fault::RefuseSome(Refusal::Busy, vec![1]));
        std::thread::scope(|scope| {
            let caller = scope.spawn(|| Caller::of(Arc::clone(&faulty) as _).each(&[put(1, 1.0), put(2, 1.0)]));
            while slow.held() == 0 {
                std::thread::yield_now();
            }
            slow.release();
            assert_eq!(caller.join().unwrap(), [Ok(()), Err(StoreError::Refused(Refusal::Busy))]);
        });
    }

    #[test]
    fn held_groups_wait_for_their_release() {
        let faulty = Arc::new(Faulty::over(Arc::new(Memory::new(Arc::new(TestClock::at_micros(1_000))))));
        let caller = Caller::with_deadline(Arc::clone(&faulty) as Arc<dyn Store>, Duration::ZERO);
        faulty.fail_groups(2, &Fault::Hold);
        assert_eq!(caller.whole(&[put(1, 1.0)]), Err(StoreError::Unknown));
        assert_eq!(caller.whole(&[put(1, 2.0)]), Err(StoreError::Unknown));
        assert_eq!((faulty.held(), seconds(&caller, 1)), (2, None));
        faulty.release();
        assert_eq!((faulty.held(), seconds(&caller, 1)), (0, Some(2.0)));
    }

    #[test]
    fn reads_fail_as_ordered_and_then_work() {
        check(|faulty, caller| {
            let unavailable = StoreError::Refused(Refusal::Unavailable);
            faulty.fail_reads(2, unavailable);
            assert_eq!(caller.bookmark(USER, MovieId(1)), Err(unavailable));
            assert_eq!(caller.titles(USER), Err(unavailable));
            assert_eq!(caller.titles(USER), Ok(Vec::new()));
            faulty.fail_reads(9, unavailable);
            faulty.fail_groups(9, &Fault::Refuse(Refusal::Busy));
            faulty.heal();
            assert_eq!(caller.whole(&[put(1, 1.0)]), Ok(()));
            assert_eq!(seconds(caller, 1), Some(1.0));
        });
    }

    #[test]
    fn failed_for_good_it_answers_nothing_any_more() {
        check(|faulty, caller| {
            assert_eq!(caller.whole(&[put(1, 1.0)]), Ok(()));
            faulty.fail_for_good("the disk is gone");
            assert_eq!(faulty.condition().health(), Health::Failed("the disk is gone".to_owned()));
            assert_eq!(caller.whole(&[put(1, 2.0)]), Err(StoreError::Fatal));
            assert_eq!(caller.each(&[put(1, 2.0)]), [Err(StoreError::Fatal)]);
            assert_eq!(caller.bookmark(USER, MovieId(1)), Err(StoreError::Fatal));
            assert_eq!(faulty.close(), Err(StoreError::Fatal));
        });
    }
}
