//! Writes: from units to statements on their way, and back to outcomes.
//!
//! Each unit goes to a replica of its user, all at once and in any order: the write times say what wins. Several rows of
//! one user are a CQL batch that Cassandra applies as one mutation. Groups do not wait for each other.
//!
//! **Rows travel together** to a node that has more requests than it works on at once: those that go there at one moment,
//! [`ROWS_TOGETHER`] at most, share a request, an unlogged CQL batch. It spares both sides most of what a request costs,
//! and nothing waits for it to fill. A node carries out its rows one after the other, each with its own sync, so a node
//! with fewer than [`REQUESTS_MIN`] requests gets each row by itself, and where syncs are far between (`group`, see
//! [`super::durability`]) each row always goes by itself. Rows that share a request also fail together, as when another
//! replica of one of them is gone: they are repeated one by one.
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
use super::unit::{Unit, Work};
use super::watch::{Pulse, words};
use super::window::Window;
use super::{Shared, deletion, import};
use crate::store::{Outcome, Refusal, StoreError};
use futures_util::future::join_all;
use playhead_core::{MediaDuration, Record, UserId};
use scylla::cluster::{ClusterState, Node, NodeRef};
use scylla::errors::ExecutionError;
use scylla::policies::load_balancing::{FallbackPlan, LoadBalancingPolicy, RoutingInfo};
use scylla::routing::Shard;
use scylla::statement::batch::{Batch, BatchType};
use scylla::statement::prepared::PreparedStatement;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::task::spawn_local;
use uuid::Uuid;

/// Before a statement that failed is sent once more: the driver may find out meanwhile that a node is gone.
const REPEAT_AFTER: Duration = Duration::from_millis(50);

/// Rows of one request. Cassandra warns of each batch over more than 10 partitions
/// (`unlogged_batch_across_partitions_warn_threshold`).
const ROWS_TOGETHER: usize = 10;

/// Requests under way at a node below which rows do not share one: about as many as it takes to keep a node busy.
const REQUESTS_MIN: usize = 16;

/// A node, as far as writing goes.
struct NodeState {
    node: Arc<Node>,
    window: RefCell<Window>,
    under_way: Cell<usize>,
    requests: Cell<usize>,
    /// The insert that goes to this node first.
    insert: PreparedStatement,
    /// The same as batches of one more row each, from one row on, [`ROWS_TOGETHER`] at most.
    inserts: Vec<Batch>,
}

/// How one request ended.
enum Sent {
    Kept,
    Failed {
        /// Whether some node may have got it.
        may_be_kept: bool,
    },
    /// At the deadline nobody knew.
    Late,
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

    /// Takes units into the queue.
    pub(super) fn take(&self, units: impl IntoIterator<Item = Unit>) {
        let mut queue = self.queue.borrow_mut();
        queue.extend(units);
        self.shared.metrics.queued_writes.set(queue.len() as u64);
    }

    /// Refuses what has waited for too long: it was never sent.
    pub(super) fn refuse_overdue(&self) {
        loop {
            let unit =
                self.queue.borrow_mut().pop_front_if(|unit| unit.arrived().elapsed() >= self.shared.rig.deadline);
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
        let may_share = self.shared.rows_may_share.load(Ordering::Relaxed);
        // Of each node the rows that leave together. There are a few nodes at a time.
        let mut together: Vec<(Rc<NodeState>, Vec<Unit>)> = Vec::new();
        while let Some(unit) = queue.front() {
            let Some(node) = self.node_with_room(&link, &cluster, unit.user()) else { break };
            let unit = queue.pop_front().expect("there is a front");
            node.under_way.set(node.under_way.get() + 1);
            self.under_way.set(self.under_way.get() + 1);
            if !may_share || !matches!(unit.work, Work::Row(_)) || node.requests.get() < REQUESTS_MIN {
                self.start(vec![unit], node, !queue.is_empty());
                continue;
            }
            let place = together.iter().position(|(other, _)| Rc::ptr_eq(other, &node)).unwrap_or_else(|| {
                together.push((node, Vec::new()));
                together.len() - 1
            });
            together[place].1.push(unit);
            if together[place].1.len() == ROWS_TOGETHER {
                let (node, units) = together.swap_remove(place);
                self.start(units, node, !queue.is_empty());
            }
        }
        for (node, units) in together {
            self.start(units, node, !queue.is_empty());
        }
        self.shared.metrics.queued_writes.set(queue.len() as u64);
    }

    /// Carries out units at a node: one, or some rows. `is_full` if others wait for their place.
    fn start(self: &Rc<Self>, units: Vec<Unit>, node: Rc<NodeState>, is_full: bool) {
        let writer = Rc::clone(self);
        node.requests.set(node.requests.get() + 1);
        spawn_local(async move {
            let outcomes = writer.carry_out(&units, &node, is_full).await;
            node.requests.set(node.requests.get() - 1);
            node.under_way.set(node.under_way.get() - units.len());
            writer.under_way.set(writer.under_way.get() - units.len());
            for (unit, outcome) in units.into_iter().zip(outcomes) {
                match outcome {
                    Ok(()) => writer.pulse.beats(),
                    Err(StoreError::Unknown) => {
                        writer.shared.metrics.unknown_outcomes.add(unit.writes() as u64);
                    }
                    Err(_) => {}
                }
                unit.settle(&writer.shared, outcome);
            }
            writer.freed.notify_one();
        });
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
        let first: Arc<dyn LoadBalancingPolicy> = Arc::new(First { node: Arc::clone(&node), otherwise });
        insert.set_load_balancing_policy(Some(Arc::clone(&first)));
        let inserts = (1..=ROWS_TOGETHER).map(|rows| {
            let mut batch = inserts(link, rows);
            batch.set_load_balancing_policy(Some(Arc::clone(&first)));
            batch
        });
        let inserts = inserts.collect();
        let state = Rc::new(NodeState {
            window: RefCell::new(Window::new()),
            under_way: Cell::new(0),
            requests: Cell::new(0),
            insert,
            inserts,
            node: Arc::clone(&node),
        });
        nodes.insert(node.host_id, Rc::clone(&state));
        state
    }

    /// Carries out one unit, or some rows; gives an outcome for each.
    async fn carry_out(&self, units: &[Unit], node: &NodeState, is_full: bool) -> Vec<Outcome> {
        // Of rows that leave together the first has waited longest.
        let Some(first) = units.first() else { return Vec::new() };
        let deadline = first.arrived() + self.shared.rig.deadline;
        let done = match &first.work {
            Work::Row(_) => return self.carry_out_rows(units, node, is_full, deadline).await,
            Work::Rows(records) => {
                let batch = inserts(&self.links.current(), records.len());
                let values: Vec<_> = records.iter().map(|record| self.values(record)).collect();
                self.send(deadline, async |link| link.connection.session.batch(&batch, &values).await.map(drop)).await
            }
            Work::Changes(records) => deletion::carry_out(self, records, deadline).await,
            Work::Import(records) => import::send(self, records.iter().copied(), deadline).await,
        };
        vec![done]
    }

    /// All in one request, and if it fails, each once more by itself.
    async fn carry_out_rows(&self, units: &[Unit], node: &NodeState, is_full: bool, deadline: Instant) -> Vec<Outcome> {
        let rows = units.iter().filter_map(|unit| if let Work::Row(record) = &unit.work { Some(record) } else { None });
        let values: Vec<_> = rows.map(|record| self.values(record)).collect();
        let began = Instant::now();
        let sent = {
            let link = self.links.current();
            let session = &link.connection.session;
            match &values[..] {
                [only] => self.attempt(deadline, session.execute_unpaged(&node.insert, only)).await,
                _ => self.attempt(deadline, session.batch(&node.inserts[values.len() - 1], &values)).await,
            }
        };
        let was_sent = match sent {
            Sent::Kept => {
                let (latency, mut window) = (began.elapsed(), node.window.borrow_mut());
                values.iter().for_each(|_| window.kept(latency, is_full));
                return vec![Ok(()); values.len()];
            }
            Sent::Late => {
                node.window.borrow_mut().failed(Instant::now());
                return vec![Err(StoreError::Unknown); values.len()];
            }
            Sent::Failed { may_be_kept } => may_be_kept,
        };
        node.window.borrow_mut().failed(Instant::now());
        self.wait_before_repeat(deadline, values.len()).await;
        let link = self.links.current();
        let (session, insert) = (&link.connection.session, &link.prepared.insert);
        let again = values.iter().map(async |values| {
            let sent = self.attempt(deadline, session.execute_unpaged(insert, values)).await;
            outcome(&sent, was_sent)
        });
        join_all(again).await
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
        request: impl AsyncFn(Rc<Link>) -> Result<(), ExecutionError>,
    ) -> Result<(), StoreError> {
        let sent = self.attempt(deadline, request(self.links.current())).await;
        let Sent::Failed { may_be_kept } = sent else { return outcome(&sent, true) };
        self.wait_before_repeat(deadline, 1).await;
        outcome(&self.attempt(deadline, request(self.links.current())).await, may_be_kept)
    }

    async fn attempt<T>(&self, deadline: Instant, request: impl Future<Output = Result<T, ExecutionError>>) -> Sent {
        match tokio::time::timeout_at(deadline.into(), request).await {
            Ok(Ok(_)) => Sent::Kept,
            Ok(Err(error)) => {
                self.pulse.fails(words(&error));
                let was_not = matches!(error, ExecutionError::EmptyPlan | ExecutionError::ConnectionPoolError(_));
                Sent::Failed { may_be_kept: !was_not }
            }
            Err(_) => {
                self.pulse.fails("no answer in time".to_owned());
                Sent::Late
            }
        }
    }

    async fn wait_before_repeat(&self, deadline: Instant, requests: usize) {
        self.shared.metrics.repeats.add(requests as u64);
        tokio::time::sleep_until((Instant::now() + REPEAT_AFTER).min(deadline).into()).await;
    }
}

/// What the last attempt makes of a write; `was_sent` if some node may have got it before.
fn outcome(last: &Sent, was_sent: bool) -> Outcome {
    match last {
        Sent::Kept => Ok(()),
        Sent::Failed { may_be_kept: false } if !was_sent => Err(StoreError::Refused(Refusal::Unavailable)),
        Sent::Failed { .. } | Sent::Late => Err(StoreError::Unknown),
    }
}

/// A CQL batch, unlogged, that may be repeated.
pub(super) fn batch() -> Batch {
    let mut batch = Batch::new(BatchType::Unlogged);
    batch.set_is_idempotent(true);
    batch
}

/// Inserts of so many rows.
fn inserts(link: &Link, rows: usize) -> Batch {
    let mut batch = batch();
    (0..rows).for_each(|_| batch.append_statement(link.prepared.insert.clone()));
    batch
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
