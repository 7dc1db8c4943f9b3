//! Writes: from a group with its write times to statements on their way, and back to outcomes.
//!
//! A lane's group becomes a statement per row, each to a replica of its user, all at once and in any order: the write
//! times say what wins. A group that is carried out whole becomes one CQL batch per user, which Cassandra applies as one
//! mutation. Groups do not wait for each other.
//!
//! **Which node.** Of the replicas that can be reached the one with the most room in its [`Window`]: a node that hangs
//! keeps its window full and is passed over by itself. If none has room the row waits here, in the order of arrival.
//!
//! **The promise.** Each unit ends: by its deadline at the latest. One that was never sent is refused; of one that was
//! sent and not acknowledged nobody knows. A repeat carries the same write time, so it changes nothing.
//!
//! **The limits.** The queue is bounded by the lanes that fill it, and each entry by its deadline. A row at the front
//! whose replicas are all full holds up rows of other replicas: at most until its deadline.

use super::link::{Link, Links};
use super::statements::{self, InsertValues};
use super::watch::{Pulse, words};
use super::window::Window;
use super::{Shared, deletion, import};
use crate::store::{Group, Outcome, Refusal, StoreError};
use playhead_core::{MediaDuration, Record, RecordKind, UserId};
use scylla::cluster::{ClusterState, Node, NodeRef};
use scylla::errors::ExecutionError;
use scylla::policies::load_balancing::{FallbackPlan, LoadBalancingPolicy, RoutingInfo};
use scylla::routing::Shard;
use scylla::statement::batch::{Batch, BatchType};
use scylla::statement::prepared::PreparedStatement;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot};
use tokio::task::spawn_local;
use uuid::Uuid;

/// Before a statement that failed is sent once more: the driver may find out meanwhile that a node is gone.
const REPEAT_AFTER: Duration = Duration::from_millis(50);

/// What is sent as one.
struct Unit {
    work: Work,
    /// Which of the caller's writes it is made of.
    indexes: Vec<usize>,
    pending: Rc<Pending>,
}

enum Work {
    Row(Record),
    /// Of one user, in their order; all or none.
    Batch(Vec<Record>),
    /// Of one user, with the times they have.
    Import(Vec<Record>),
}

/// Who is told the outcome.
enum Caller {
    Group(Group),
    Import { told: oneshot::Sender<Outcome>, records: usize },
}

/// What a caller has handed over, under way.
struct Pending {
    caller: Cell<Option<Caller>>,
    failed: RefCell<Vec<(usize, StoreError)>>,
    left: Cell<usize>,
    arrived: Instant,
}

/// A node, as far as writing goes.
struct NodeState {
    node: Arc<Node>,
    window: RefCell<Window>,
    under_way: Cell<usize>,
    /// The insert that goes to this node first.
    insert: PreparedStatement,
}

/// Carries out groups. Stays on the store's thread.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) links: Rc<Links>,
    pub(super) pulse: Rc<Pulse>,
    nodes: RefCell<HashMap<Uuid, Rc<NodeState>>>,
    queue: RefCell<VecDeque<Unit>>,
    under_way: Cell<usize>,
    freed: Notify,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, links: Rc<Links>, pulse: Rc<Pulse>) -> Self {
        let (nodes, queue) = (RefCell::default(), RefCell::default());
        Self { shared, links, pulse, nodes, queue, under_way: Cell::new(0), freed: Notify::new() }
    }

    /// Whether nothing waits and nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.under_way.get() == 0 && self.queue.borrow().is_empty()
    }

    /// Ready when something has ended since it was last asked.
    pub(super) fn freed(&self) -> impl Future<Output = ()> + '_ {
        self.freed.notified()
    }

    /// Takes a group.
    pub(super) fn take(&self, group: Group, records: Vec<Record>, arrived: Instant) {
        if records.is_empty() {
            return group.settle(Ok(()));
        }
        let is_whole = group.is_whole();
        let left = Cell::new(records.len());
        let caller = Cell::new(Some(Caller::Group(group)));
        let pending = Rc::new(Pending { caller, failed: RefCell::default(), left, arrived });
        let mut queue = self.queue.borrow_mut();
        let unit = |work, indexes| Unit { work, indexes, pending: Rc::clone(&pending) };
        if is_whole {
            queue.extend(by_user(records).map(|(indexes, records)| unit(Work::Batch(records), indexes)));
        } else {
            queue.extend(records.into_iter().enumerate().map(|(index, record)| {
                let is_put = matches!(record.kind, RecordKind::Put | RecordKind::LatePut);
                unit(if is_put { Work::Row(record) } else { Work::Batch(vec![record]) }, vec![index])
            }));
        }
        self.shared.metrics.queued_writes.set(queue.len() as u64);
    }

    /// Takes records of an import.
    pub(super) fn take_import(&self, records: Vec<Record>, told: oneshot::Sender<Outcome>, arrived: Instant) {
        if records.is_empty() {
            // Who asked may have gone.
            let _ = told.send(Ok(()));
            return;
        }
        let left = Cell::new(records.len());
        let caller = Cell::new(Some(Caller::Import { told, records: records.len() }));
        let pending = Rc::new(Pending { caller, failed: RefCell::default(), left, arrived });
        let units = by_user(records).map(|(indexes, records)| {
            let work = match records[..] {
                // As a beat is sent: to its replica, by a window that learns from it.
                [only] if is_put(only.kind) => Work::Row(only),
                _ => Work::Import(records),
            };
            Unit { work, indexes, pending: Rc::clone(&pending) }
        });
        let mut queue = self.queue.borrow_mut();
        queue.extend(units);
        self.shared.metrics.queued_writes.set(queue.len() as u64);
    }

    /// Refuses what has waited for too long: it was never sent.
    pub(super) fn refuse_overdue(&self) {
        loop {
            let unit =
                self.queue.borrow_mut().pop_front_if(|unit| unit.pending.arrived.elapsed() >= self.shared.rig.deadline);
            let Some(unit) = unit else { return };
            self.shared.metrics.refused_busy.add(1);
            unit.settle(&self.shared, Err(StoreError::Refused(Refusal::Busy)));
        }
    }

    /// Sends what there is room for.
    pub(super) fn dispatch(self: &Rc<Self>) {
        let mut queue = self.queue.borrow_mut();
        if queue.is_empty() {
            return;
        }
        let link = self.links.current();
        let cluster = link.connection.cluster();
        while let Some(unit) = queue.front() {
            let Some(node) = self.node_with_room(&link, &cluster, unit.work.user()) else { break };
            let unit = queue.pop_front().expect("there is a front");
            let is_full = !queue.is_empty();
            node.under_way.set(node.under_way.get() + 1);
            self.under_way.set(self.under_way.get() + 1);
            let writer = Rc::clone(self);
            spawn_local(async move {
                let outcome = writer.carry_out(&unit, &node, is_full).await;
                node.under_way.set(node.under_way.get() - 1);
                writer.under_way.set(writer.under_way.get() - 1);
                unit.settle(&writer.shared, outcome);
                writer.freed.notify_one();
            });
        }
        self.shared.metrics.queued_writes.set(queue.len() as u64);
    }

    /// The replica of a user with the most room; `None` if none has any.
    fn node_with_room(&self, link: &Link, cluster: &ClusterState, user: UserId) -> Option<Rc<NodeState>> {
        let keyspace = self.shared.options.keyspace.as_str();
        let token = cluster.compute_token(keyspace, statements::TABLE, &(user.0,)).ok();
        let replicas = token.map(|token| cluster.get_token_endpoints(keyspace, statements::TABLE, token));
        let mut best = self.best_of(link, replicas.into_iter().flatten().map(|(node, _)| node));
        if best.is_none() {
            // No replica can be reached: any node will say so, and one that is back will be found.
            best = self.best_of(link, cluster.get_nodes_info().iter().cloned());
        }
        let (room, node) = best?;
        (room > 0.0).then_some(node)
    }

    fn best_of(&self, link: &Link, nodes: impl Iterator<Item = Arc<Node>>) -> Option<(f64, Rc<NodeState>)> {
        let usable = nodes.filter(|node| link.connection.is_usable(node));
        let with_room = usable.map(|node| {
            let state = self.state_of(link, node);
            let size = state.window.borrow().size() as f64;
            ((size - state.under_way.get() as f64) / size, state)
        });
        with_room.max_by(|(a, _), (b, _)| a.total_cmp(b))
    }

    fn state_of(&self, link: &Link, node: Arc<Node>) -> Rc<NodeState> {
        let mut nodes = self.nodes.borrow_mut();
        if let Some(known) = nodes.get(&node.host_id)
            && Arc::ptr_eq(&known.node, &node)
        {
            return Rc::clone(known);
        }
        let mut insert = link.prepared.insert.clone();
        let otherwise = Arc::clone(&link.connection.policy);
        insert.set_load_balancing_policy(Some(Arc::new(First { node: Arc::clone(&node), otherwise })));
        let state = Rc::new(NodeState {
            window: RefCell::new(Window::new()),
            under_way: Cell::new(0),
            insert,
            node: Arc::clone(&node),
        });
        nodes.insert(node.host_id, Rc::clone(&state));
        state
    }

    async fn carry_out(&self, unit: &Unit, node: &NodeState, is_full: bool) -> Outcome {
        let deadline = unit.pending.arrived + self.shared.rig.deadline;
        let began = Instant::now();
        let done = match &unit.work {
            Work::Row(record) => {
                let values = self.values(record);
                let done = self
                    .send(deadline, async |link, is_repeat| {
                        let insert = if is_repeat { &link.prepared.insert } else { &node.insert };
                        link.connection.session.execute_unpaged(insert, &values).await.map(drop)
                    })
                    .await;
                let (now, mut window) = (Instant::now(), node.window.borrow_mut());
                match &done {
                    Ok(()) => window.kept(now - began, is_full),
                    Err(_) => window.failed(now),
                }
                done
            }
            Work::Batch(records) | Work::Import(records) if records.iter().all(|record| is_put(record.kind)) => {
                let mut batch = self.batch();
                let values: Vec<_> = records.iter().map(|record| self.values(record)).collect();
                let insert = self.links.current().prepared.insert.clone();
                for _ in records {
                    batch.append_statement(insert.clone());
                }
                self.send(deadline, async |link, _| link.connection.session.batch(&batch, &values).await.map(drop))
                    .await
            }
            Work::Batch(records) => deletion::carry_out(self, records, deadline).await,
            Work::Import(records) => import::send(self, records.iter().copied(), deadline).await,
        };
        match &done {
            Ok(()) => self.pulse.beats(),
            Err(StoreError::Unknown) => self.shared.metrics.unknown_outcomes.add(unit.indexes.len() as u64),
            Err(_) => {}
        }
        done
    }

    /// A batch of one user's partition, that may be repeated.
    pub(super) fn batch(&self) -> Batch {
        let mut batch = Batch::new(BatchType::Unlogged);
        batch.set_is_idempotent(true);
        batch
    }

    /// What an insert of this record binds.
    pub(super) fn values(&self, record: &Record) -> InsertValues {
        let row = &record.row;
        (
            record.user.0,
            row.movie.0,
            row.position.seconds(),
            row.duration.map_or(0.0, MediaDuration::seconds),
            statements::timestamp(row.write_time),
            self.shared.expires_in(row.write_time),
        )
    }

    /// Sends, and once more if that fails and there is time.
    pub(super) async fn send(
        &self,
        deadline: Instant,
        attempt: impl AsyncFn(Rc<Link>, bool) -> Result<(), ExecutionError>,
    ) -> Result<(), StoreError> {
        let deadline = tokio::time::Instant::from_std(deadline);
        let mut was_sent = false;
        for is_repeat in [false, true] {
            match tokio::time::timeout_at(deadline, attempt(self.links.current(), is_repeat)).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => {
                    was_sent |= !matches!(error, ExecutionError::EmptyPlan | ExecutionError::ConnectionPoolError(_));
                    self.pulse.fails(words(&error));
                }
                Err(_) => {
                    self.pulse.fails("no answer in time".to_owned());
                    return Err(StoreError::Unknown);
                }
            }
            if !is_repeat {
                self.shared.metrics.repeats.add(1);
                let again = tokio::time::Instant::now() + REPEAT_AFTER;
                tokio::time::sleep_until(again.min(deadline)).await;
            }
        }
        Err(if was_sent { StoreError::Unknown } else { StoreError::Refused(Refusal::Unavailable) })
    }
}

fn is_put(kind: RecordKind) -> bool {
    matches!(kind, RecordKind::Put | RecordKind::LatePut)
}

impl Work {
    fn user(&self) -> UserId {
        match self {
            Self::Row(record) => record.user,
            Self::Batch(records) | Self::Import(records) => records.first().map_or(UserId(0), |record| record.user),
        }
    }
}

impl Unit {
    fn settle(self, shared: &Shared, outcome: Outcome) {
        let Self { indexes, pending, .. } = self;
        if let Err(error) = outcome {
            pending.failed.borrow_mut().extend(indexes.iter().map(|index| (*index, error)));
        }
        pending.left.set(pending.left.get() - indexes.len());
        if pending.left.get() > 0 {
            return;
        }
        let Some(caller) = pending.caller.take() else { return };
        let failed = pending.failed.take();
        let count = match &caller {
            Caller::Group(group) => group.writes().len(),
            Caller::Import { records, .. } => *records,
        };
        shared.metrics.records.add((count - failed.len()) as u64);
        shared.metrics.commit_time.record_time(pending.arrived.elapsed());
        match caller {
            Caller::Group(group) if failed.is_empty() => group.settle(Ok(())),
            Caller::Group(group) => {
                let mut outcomes = vec![Ok(()); count];
                for (index, error) in failed {
                    outcomes[index] = Err(error);
                }
                group.settle_each(outcomes);
            }
            Caller::Import { told, .. } => {
                // Who asked may have gone.
                let _ = told.send(failed.first().map_or(Ok(()), |(_, error)| Err(*error)));
            }
        }
    }
}

/// Records by their users, in their order; of each its place in the whole.
fn by_user(records: Vec<Record>) -> impl Iterator<Item = (Vec<usize>, Vec<Record>)> {
    let mut by_user: BTreeMap<UserId, (Vec<usize>, Vec<Record>)> = BTreeMap::new();
    for (index, record) in records.into_iter().enumerate() {
        let (indexes, records) = by_user.entry(record.user).or_default();
        indexes.push(index);
        records.push(record);
    }
    by_user.into_values()
}

/// One node first, and if it can't, whoever the driver would ask.
#[derive(Debug)]
struct First {
    node: Arc<Node>,
    otherwise: Arc<dyn LoadBalancingPolicy>,
}

impl LoadBalancingPolicy for First {
    fn pick<'a>(
        &'a self,
        request: &'a RoutingInfo<'_>,
        cluster: &'a ClusterState,
    ) -> Option<(NodeRef<'a>, Option<Shard>)> {
        if !self.node.is_connected() {
            return self.otherwise.pick(request, cluster);
        }
        // ScyllaDB's nodes are made of shards, and each row has its own.
        let shard = request.token.and_then(|token| Some(self.node.sharder()?.shard_of(token)));
        Some((&self.node, shard))
    }

    fn fallback<'a>(&'a self, request: &'a RoutingInfo<'_>, cluster: &'a ClusterState) -> FallbackPlan<'a> {
        self.otherwise.fallback(request, cluster)
    }

    fn name(&self) -> String {
        "First".to_owned()
    }
}
