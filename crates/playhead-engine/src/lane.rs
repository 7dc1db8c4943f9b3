//! A worker's lane: it admits heartbeats, gathers them into groups, hands these to the store, and hands outcomes back.
//!
//! One worker owns one [`Lane`] and runs its [`LaneDriver`] as a task; both stay on that worker's thread, so nothing
//! in here is shared or locked. [`new`] is called by `Engine::lane` alone.
//!
//! ```text
//! request ─ admit ─▶ Permit ─ write ─▶ open group ─ driver, once the ready requests have run ─▶ Store::commit
//!           full: shed                                                                             │
//! request ◀─ outcome ─ Ticket ◀─ wake each waiting ticket ◀─ driver ◀─ one settlement a group ─────┘
//! ```
//!
//! **Why a group is whatever came in one turn of the loop.** The first write of a group wakes the driver, which takes
//! its place behind every task that is ready: requests that arrived in the same turn join the group, and no timer is
//! needed. What arrives while the store is busy is gathered again by the store, which takes all that is ready.
//!
//! **The promise.** A write accepted by [`Permit::write`] reaches the store even if its ticket is dropped. Each ticket
//! ends: with the store's outcome, or with [`StoreError::Unknown`] after the deadline (within a quarter of a second).
//!
//! **The limits.** At most `lane_writes` admitted and unsettled at once, those given up at the deadline included: they
//! are still the store's to settle, so a store that hangs ends in shedding, not in memory. Groups are at most
//! [`GROUP_WRITES_MAX`] writes.

use crate::store::{Group, GroupOutcome, Outcome, Settlement, Store, StoreError};
use crate::{Limits, Refusal};
use playhead_core::Write;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// The most writes of one group. A client's batch, the largest group that is carried out all or none, has 500.
pub const GROUP_WRITES_MAX: usize = 512;

/// How often the driver looks for tickets past their deadline.
const DEADLINE_CHECK: Duration = Duration::from_millis(250);

/// Buffers kept for new groups; in a steady state few groups are under way at once.
const BUFFERS_KEPT: usize = 16;

/// A worker's way to the store. Cheap to clone; `!Send`.
#[derive(Clone)]
pub struct Lane(Rc<State>);

struct State {
    store: Arc<dyn Store>,
    /// Where the store settles this lane's groups.
    settlements: mpsc::UnboundedSender<Settlement>,
    limits: Limits,
    /// Admitted and not yet settled.
    in_flight: Cell<usize>,
    groups: RefCell<Groups>,
    /// The driver's, to be woken when a group opens.
    driver: Cell<Option<Waker>>,
}

/// The groups that some ticket may still ask about, oldest first; the last one is open.
struct Groups {
    first_number: u64,
    all: VecDeque<GroupState>,
    /// Writes of the open group, which is the last of `all` if this is not empty.
    open: Vec<Write>,
    buffers: Vec<Vec<Write>>,
    slots: Vec<Vec<Slot>>,
}

struct GroupState {
    opened: Instant,
    slots: Vec<Slot>,
    /// Tickets that have neither taken their outcome nor been dropped.
    unread: usize,
    settled: bool,
}

enum Slot {
    Waiting(Option<Waker>),
    Settled(Outcome),
    /// Its ticket was dropped or has taken its outcome.
    Done,
}

/// A new lane and its driver.
pub(crate) fn new(store: Arc<dyn Store>, limits: Limits) -> (Lane, LaneDriver) {
    let groups =
        Groups { first_number: 0, all: VecDeque::new(), open: Vec::new(), buffers: Vec::new(), slots: Vec::new() };
    let (sender, settlements) = mpsc::unbounded_channel();
    let state = Rc::new(State {
        store,
        settlements: sender,
        limits,
        in_flight: Cell::new(0),
        groups: RefCell::new(groups),
        driver: Cell::new(None),
    });
    (Lane(Rc::clone(&state)), LaneDriver { state, settlements })
}

impl Lane {
    /// Whether there is no place at present: then no work need be begun for a write.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.0.in_flight.get() >= self.0.limits.lane_writes
    }

    /// A place for one write.
    ///
    /// # Errors
    /// [`Refusal::Busy`] if the lane is full: shed the request.
    pub fn admit(&self) -> Result<Permit, Refusal> {
        if self.is_full() {
            return Err(Refusal::Busy);
        }
        self.0.in_flight.set(self.0.in_flight.get() + 1);
        Ok(Permit(Some(Rc::clone(&self.0))))
    }

    /// Writes admitted and not yet settled.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.0.in_flight.get()
    }
}

/// A place in the lane. Dropped unused, it is free again.
pub struct Permit(Option<Rc<State>>);

impl Permit {
    /// Puts a write into the open group. From here on it is carried out, whatever becomes of the ticket.
    #[must_use]
    pub fn write(mut self, write: Write) -> Ticket {
        // The place is now the write's, and is given back when the store settles it.
        let state = self.0.take().expect("a permit is used once");
        let (number, slot) = state.join_open_group(write);
        Ticket { state, number, slot }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(state) = &self.0 {
            state.in_flight.set(state.in_flight.get() - 1);
        }
    }
}

impl State {
    fn join_open_group(&self, write: Write) -> (u64, usize) {
        let mut groups = self.groups.borrow_mut();
        if groups.open.is_empty() {
            groups.open();
            if let Some(driver) = self.driver.take() {
                driver.wake();
            }
        }
        groups.open.push(write);
        let number = groups.newest_number();
        let group = groups.group(number);
        let slot = group.slots.len();
        group.slots.push(Slot::Waiting(None));
        group.unread += 1;
        if groups.open.len() == GROUP_WRITES_MAX {
            drop(groups);
            self.commit_open_group();
        }
        (number, slot)
    }

    fn commit_open_group(&self) {
        let mut groups = self.groups.borrow_mut();
        if groups.open.is_empty() {
            return;
        }
        let writes = std::mem::take(&mut groups.open);
        let number = groups.newest_number();
        drop(groups);
        self.store.commit(Group::of_lane(writes, number, self.settlements.clone()));
    }

    fn settle(&self, settlement: Settlement) {
        let Settlement { number, outcome, mut writes } = settlement;
        let mut groups = self.groups.borrow_mut();
        let count = groups.settle(number, &outcome);
        writes.clear();
        if groups.buffers.len() < BUFFERS_KEPT {
            groups.buffers.push(writes);
        }
        self.in_flight.set(self.in_flight.get() - count);
    }

    fn give_up_on_overdue(&self) {
        let mut groups = self.groups.borrow_mut();
        for group in groups.all.iter_mut().take_while(|group| group.opened.elapsed() >= self.limits.ack_deadline) {
            for slot in &mut group.slots {
                slot.end_waiting(Err(StoreError::Unknown));
            }
        }
    }
}

/// The outcome of one write, once there is one.
pub struct Ticket {
    state: Rc<State>,
    number: u64,
    slot: usize,
}

impl Future for Ticket {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        let mut groups = self.state.groups.borrow_mut();
        match groups.slot(self.number, self.slot) {
            Slot::Settled(outcome) => Poll::Ready(*outcome),
            Slot::Waiting(waker) => {
                match waker {
                    Some(known) => known.clone_from(context.waker()),
                    None => *waker = Some(context.waker().clone()),
                }
                Poll::Pending
            }
            Slot::Done => unreachable!("only dropping the ticket ends its slot"),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut groups = self.state.groups.borrow_mut();
        *groups.slot(self.number, self.slot) = Slot::Done;
        groups.group(self.number).unread -= 1;
        groups.retire();
    }
}

impl Groups {
    fn open(&mut self) {
        self.open = self.buffers.pop().unwrap_or_default();
        let slots = self.slots.pop().unwrap_or_default();
        self.all.push_back(GroupState { opened: Instant::now(), slots, unread: 0, settled: false });
    }

    fn newest_number(&self) -> u64 {
        self.first_number + self.all.len() as u64 - 1
    }

    fn group(&mut self, number: u64) -> &mut GroupState {
        let at = usize::try_from(number - self.first_number).expect("groups in memory are few");
        &mut self.all[at]
    }

    fn slot(&mut self, number: u64, slot: usize) -> &mut Slot {
        &mut self.group(number).slots[slot]
    }

    /// Lets go of the oldest groups, once they are settled and nobody waits for them.
    fn retire(&mut self) {
        while self.all.front().is_some_and(|group| group.settled && group.unread == 0) {
            let mut group = self.all.pop_front().expect("there is a front");
            self.first_number += 1;
            group.slots.clear();
            if self.slots.len() < BUFFERS_KEPT {
                self.slots.push(group.slots);
            }
        }
    }

    /// Hands out an outcome to the tickets that wait for one.
    fn settle(&mut self, number: u64, outcome: &GroupOutcome) -> usize {
        let group = self.group(number);
        let count = group.slots.len();
        group.settled = true;
        for (index, slot) in group.slots.iter_mut().enumerate() {
            let outcome = match outcome {
                GroupOutcome::All(outcome) => *outcome,
                GroupOutcome::Each(outcomes) => outcomes[index],
            };
            slot.end_waiting(outcome);
        }
        self.retire();
        count
    }
}

impl Slot {
    fn end_waiting(&mut self, outcome: Outcome) {
        if let Slot::Waiting(waker) = self {
            let waker = waker.take();
            *self = Slot::Settled(outcome);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

/// The task that moves groups to the store and outcomes to their tickets.
pub struct LaneDriver {
    state: Rc<State>,
    settlements: mpsc::UnboundedReceiver<Settlement>,
}

impl LaneDriver {
    /// Runs for as long as it is polled: a worker spawns it and ends it with its runtime.
    pub async fn run(mut self) {
        let mut deadline_check = tokio::time::interval(DEADLINE_CHECK);
        deadline_check.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        poll_fn(move |context| {
            while let Poll::Ready(Some(settlement)) = self.settlements.poll_recv(context) {
                self.state.settle(settlement);
            }
            while deadline_check.poll_tick(context).is_ready() {
                self.state.give_up_on_overdue();
            }
            self.state.commit_open_group();
            self.state.driver.set(Some(context.waker().clone()));
            // A store that settles on the spot has filled the channel by now.
            if !self.settlements.is_empty() {
                context.waker().wake_by_ref();
            }
            Poll::<()>::Pending
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Engine;
    use crate::metrics::StoreMetrics;
    use crate::store::Condition;
    use futures_util::future::BoxFuture;
    use playhead_core::{Bookmark, Change, MovieId, Position, UserId};
    use std::sync::Mutex;

    /// A store that holds groups until the test settles them.
    #[derive(Default)]
    struct Held {
        groups: Mutex<Vec<Group>>,
        condition: Condition,
        metrics: StoreMetrics,
    }

    impl Store for Arc<Held> {
        fn commit(&self, group: Group) {
            self.groups.lock().unwrap().push(group);
        }
        fn bookmarks(
            &self,
            _: UserId,
            _: Vec<MovieId>,
        ) -> BoxFuture<'static, Result<Vec<Option<Bookmark>>, StoreError>> {
            unreachable!("lanes do not read")
        }
        fn titles(&self, _: UserId) -> BoxFuture<'static, Result<Vec<Bookmark>, StoreError>> {
            unreachable!("lanes do not read")
        }
        fn scan(&self, _: Option<UserId>) -> crate::store::scan::Scan {
            unreachable!("lanes do not read")
        }
        fn condition(&self) -> &Condition {
            &self.condition
        }
        fn metrics(&self) -> &StoreMetrics {
            &self.metrics
        }
        fn close(&self) -> Result<(), StoreError> {
            Ok(())
        }
    }

    fn put(movie: i64) -> Write {
        let change = Change::Put { movie: MovieId(movie), position: Position::ZERO, duration: None };
        Write { user: UserId(1), change }
    }

    fn check(limits: Limits, scenario: impl AsyncFnOnce(Lane, Arc<Held>)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build_local(tokio::runtime::LocalOptions::default())
            .unwrap();
        runtime.block_on(async {
            let store = Arc::new(Held::default());
            let (lane, driver) = Engine::over(Arc::new(Arc::clone(&store)), limits).lane();
            tokio::task::spawn_local(driver.run());
            scenario(lane, store).await;
        });
    }

    /// Lets every task that is ready run.
    async fn turn() {
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn writes_of_one_turn_are_one_group_and_each_gets_its_own_outcome() {
        check(Limits::default(), async |lane, store| {
            turn().await;
            let tickets: Vec<_> = (0..3).map(|movie| lane.admit().unwrap().write(put(movie))).collect();
            turn().await;
            let group = store.groups.lock().unwrap().pop().unwrap();
            assert_eq!(group.writes(), [put(0), put(1), put(2)]);
            assert_eq!(lane.in_flight(), 3);
            let refused = Err(StoreError::Refused(Refusal::NoSpace));
            group.settle_each(vec![Ok(()), refused, Ok(())]);
            let mut outcomes = Vec::new();
            for ticket in tickets {
                outcomes.push(ticket.await);
            }
            assert_eq!(outcomes, [Ok(()), refused, Ok(())]);
            assert_eq!(lane.in_flight(), 0);
        });
    }

    #[test]
    fn a_dropped_ticket_still_writes_and_a_dropped_permit_does_not() {
        check(Limits::default(), async |lane, store| {
            drop(lane.admit().unwrap());
            assert_eq!(lane.in_flight(), 0);
            drop(lane.admit().unwrap().write(put(7)));
            turn().await;
            let group = store.groups.lock().unwrap().pop().unwrap();
            assert_eq!(group.writes(), [put(7)]);
            group.settle(Ok(()));
            turn().await;
            assert_eq!(lane.in_flight(), 0);
        });
    }

    #[test]
    fn a_full_lane_refuses_until_the_store_settles() {
        check(Limits { lane_writes: 2, ..Limits::default() }, async |lane, store| {
            let first = lane.admit().unwrap().write(put(1));
            let second = lane.admit().unwrap();
            assert!(matches!(lane.admit(), Err(Refusal::Busy)));
            drop(second);
            let second = lane.admit().unwrap();
            turn().await;
            assert!(matches!(lane.admit(), Err(Refusal::Busy)));
            store.groups.lock().unwrap().pop().unwrap().settle(Ok(()));
            assert_eq!(first.await, Ok(()));
            drop((second, lane.admit().unwrap()));
        });
    }

    #[test]
    fn past_the_deadline_the_outcome_is_unknown_and_the_place_stays_taken() {
        let limits = Limits { ack_deadline: Duration::from_millis(1), ..Limits::default() };
        check(limits, async |lane, store| {
            assert_eq!(lane.admit().unwrap().write(put(1)).await, Err(StoreError::Unknown));
            assert_eq!(lane.in_flight(), 1);
            store.groups.lock().unwrap().pop().unwrap().settle(Ok(()));
            turn().await;
            assert_eq!(lane.in_flight(), 0);
        });
    }

    #[test]
    fn a_store_that_drops_a_group_leaves_its_outcome_unknown() {
        check(Limits::default(), async |lane, store| {
            let ticket = lane.admit().unwrap().write(put(1));
            turn().await;
            store.groups.lock().unwrap().clear();
            assert_eq!(ticket.await, Err(StoreError::Unknown));
        });
    }

    #[test]
    fn a_full_group_goes_at_once_and_settled_groups_leave_in_any_order() {
        check(Limits::default(), async |lane, store| {
            let count = GROUP_WRITES_MAX + 1;
            let tickets: Vec<_> = (0..count).map(|_| lane.admit().unwrap().write(put(0))).collect();
            assert_eq!(store.groups.lock().unwrap().len(), 1);
            turn().await;
            let groups = std::mem::take(&mut *store.groups.lock().unwrap());
            assert_eq!(groups.iter().map(|group| group.writes().len()).collect::<Vec<_>>(), [GROUP_WRITES_MAX, 1]);
            for group in groups.into_iter().rev() {
                group.settle(Ok(()));
                turn().await;
            }
            for ticket in tickets {
                assert_eq!(ticket.await, Ok(()));
            }
            assert_eq!(lane.0.groups.borrow().all.len(), 0);
        });
    }
}
