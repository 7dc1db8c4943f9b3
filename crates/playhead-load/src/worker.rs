//! A thread of the generator: its streamers, its connections, and the loop that sends what is due.
//!
//! **The promise.** Nothing is shared with other workers while the clock runs but a flag to stop and four counters for the
//! progress line. A beat that finds no free connection waits, and its latency with it. The loop looks each
//! millisecond; what it sees late is its own lag, and is reported as such.
//!
//! **The limits.** One current-thread runtime. Connections are made 64 at a time; one that is lost is made again, with
//! pauses that grow to a second. After the last beat, answers have the plan's patience, and then the run is over.

use crate::desk::{Desk, Order};
use crate::http1;
use crate::http2;
use crate::ledger::{LedgerFile, Row};
use crate::measure::{Failure, Measured};
use crate::plan::Plan;
use crate::run::{LoadError, Stop};
use crate::wire::{Answer, BeatParts};
use bytes::Bytes;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until};

/// How long a connection may take to be made.
pub(crate) const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// Connections under construction at a time, so that a listener's queue does not overflow.
const CONNECTING_MAX: usize = 64;

/// Between two looks at what is due.
const TICK: Duration = Duration::from_millis(1);

/// Between two looks for answers that are late.
const LATE_CHECK_US: u64 = 100_000;

/// How long answers are waited for when the run was interrupted.
const INTERRUPTED_PATIENCE: Duration = Duration::from_secs(2);

/// What the workers and who watches them share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) stop: AtomicBool,
    pub(crate) minted: AtomicU64,
    pub(crate) connected: AtomicU64,
    pub(crate) offered: AtomicU64,
    pub(crate) sent: AtomicU64,
    pub(crate) acknowledged: AtomicU64,
    pub(crate) failed: AtomicU64,
}

/// The pause before a connection is made again.
#[derive(Debug)]
pub(crate) struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(Duration::from_millis(10))
    }
}

impl Backoff {
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }

    pub(crate) async fn wait(&mut self) {
        sleep(self.0).await;
        self.0 = (self.0 * 2).min(Duration::from_secs(1));
    }
}

/// Tokens of a worker's streamers, one behind the other.
#[derive(Debug)]
struct Tokens {
    text: String,
    ends: Vec<usize>,
}

impl Tokens {
    fn get(&self, at: u32) -> &str {
        let at = at as usize;
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.text[start..self.ends[at]]
    }
}

#[derive(Debug)]
enum Connections {
    One(Vec<http1::Connection>),
    Two(Vec<http2::Connection>),
}

/// All that a worker's tasks share.
#[derive(Debug)]
pub(crate) struct Room {
    pub(crate) desk: Desk,
    /// Connections are to be kept up.
    pub(crate) is_open: bool,
    plan: Arc<Plan>,
    me: Weak<RefCell<Room>>,
    tokens: Tokens,
    parts: BeatParts,
    buffer: Vec<u8>,
    connections: Connections,
    /// Connections that may be idle, the one that has been so for longest first: all are used alike.
    free: VecDeque<usize>,
    /// Which connections stand in `free`: each at most once.
    is_free: Vec<bool>,
    /// Orders without a connection.
    waiting: VecDeque<Order>,
    start: Instant,
    /// The closed loop goes on.
    is_looping: bool,
}

impl Room {
    fn now_us(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// A connection is there.
    pub(crate) fn opened(&mut self, at: usize, open: impl FnOnce(&mut http1::Connection), is_again: bool) {
        if let Connections::One(connections) = &mut self.connections {
            open(&mut connections[at]);
        }
        self.up(at, is_again);
    }

    /// A connection of HTTP/2 is there.
    pub(crate) fn opened2(&mut self, at: usize, open: impl FnOnce(&mut http2::Connection), is_again: bool) {
        if let Connections::Two(connections) = &mut self.connections {
            open(&mut connections[at]);
        }
        self.up(at, is_again);
    }

    fn up(&mut self, at: usize, is_again: bool) {
        self.desk.measured.reconnects += u64::from(is_again);
        self.serve(at);
    }

    /// What a connection that belongs to one streamer waits for before it is made; `None` if it is to be made now.
    pub(crate) fn wanted(&self, at: usize) -> Option<Rc<Notify>> {
        match &self.connections {
            Connections::One(connections) if self.plan.is_bound() => connections[at].nothing_waits(),
            _ => None,
        }
    }

    /// A connection is gone.
    pub(crate) fn closed(&mut self, at: usize, failure: Failure) {
        let now_us = self.now_us();
        let ended = match &mut self.connections {
            Connections::One(connections) => connections[at].close(failure),
            Connections::Two(connections) => {
                connections[at].close();
                None
            }
        };
        if let Some((order, failure)) = ended
            && let Some(order) = self.desk.failed(order, failure, now_us)
        {
            self.place(order);
        }
    }

    /// An answer has come over HTTP/1.1; `false`: the connection is of no more use.
    pub(crate) fn answered(&mut self, at: usize, answer: Answer, body: &[u8]) -> bool {
        let now_us = self.now_us();
        let Connections::One(connections) = &mut self.connections else { return false };
        // A server may end an idle connection with a 408.
        let Some((order, sent_us)) = connections[at].take() else { return false };
        let next = self.desk.answered(order, answer, body, sent_us, now_us);
        match (next, answer.closes) {
            (Some(order), false) => self.send(at, order),
            (None, false) => self.serve(at),
            (next, true) => {
                connections[at].end();
                if let Some(order) = next {
                    self.place(order);
                }
            }
        }
        !answer.closes
    }

    /// A request over HTTP/2 has ended.
    pub(crate) fn ended(&mut self, at: usize, order: Order, sent_us: u64, ended: Result<(Answer, Bytes), Failure>) {
        let now_us = self.now_us();
        let Connections::Two(connections) = &mut self.connections else { return };
        connections[at].ended();
        let next = match ended {
            Ok((answer, body)) => self.desk.answered(order, answer, &body, sent_us, now_us),
            Err(failure) => self.desk.failed(order, failure, now_us),
        };
        self.serve(at);
        if let Some(order) = next {
            self.place(order);
        }
    }

    /// A connection can take a request: what waits goes first.
    fn serve(&mut self, at: usize) {
        let own = match &mut self.connections {
            Connections::One(connections) => connections[at].take_next(),
            Connections::Two(_) => None,
        };
        match own.or_else(|| self.waiting.pop_front()).or_else(|| self.in_loop()) {
            Some(order) => self.send(at, order),
            None if self.plan.is_bound() && !self.plan.http2 => {}
            None => self.free(at),
        }
    }

    fn free(&mut self, at: usize) {
        if !std::mem::replace(&mut self.is_free[at], true) {
            self.free.push_back(at);
        }
    }

    fn in_loop(&mut self) -> Option<Order> {
        if self.is_looping { self.desk.next_in_loop(self.now_us()) } else { None }
    }

    /// Sends an order over a connection that is free, or lets it wait for one.
    fn place(&mut self, order: Order) {
        if let Connections::One(connections) = &mut self.connections
            && self.plan.is_bound()
        {
            let at = order.streamer as usize;
            if connections[at].is_idle() {
                self.send(at, order);
            } else {
                self.desk.measured.waited += 1;
                connections[at].wait(order);
            }
            return;
        }
        match self.take_free() {
            Some(at) => self.send(at, order),
            None => {
                self.desk.measured.waited += 1;
                self.waiting.push_back(order);
            }
        }
    }

    fn take_free(&mut self) -> Option<usize> {
        while let Some(at) = self.free.pop_front() {
            self.is_free[at] = false;
            let is_free = match &self.connections {
                Connections::One(connections) => connections[at].is_idle(),
                Connections::Two(connections) => connections[at].has_room(),
            };
            if is_free {
                return Some(at);
            }
        }
        None
    }

    fn send(&mut self, at: usize, mut order: Order) {
        let now_us = self.now_us();
        let message = match self.desk.message(&mut order, now_us) {
            Ok(message) => message,
            Err(error) => {
                self.desk.stop.get_or_insert(Stop::Ledger(error));
                self.desk.drop_order(order);
                return;
            }
        };
        let token = self.tokens.get(order.streamer);
        let host = &self.plan.target.host;
        match &mut self.connections {
            Connections::One(connections) => {
                http1::write(&mut self.parts, &mut self.buffer, host, token, message);
                connections[at].send(order, &self.buffer, now_us);
            }
            Connections::Two(connections) => {
                let request = http2::request(host, token, message);
                let sending = http2::Sending { order, request, sent_us: now_us, patience: self.plan.patience };
                if let Some(room) = self.me.upgrade() {
                    connections[at].send(room, at, sending);
                }
                if connections[at].has_room() {
                    self.free(at);
                }
            }
        }
    }

    /// Sends everything that is due.
    fn send_due(&mut self) {
        let now_us = self.now_us();
        while self.desk.stop.is_none()
            && let Some(order) = self.desk.due(now_us)
        {
            self.place(order);
        }
    }

    /// Those who were told to wait may have left connections without work.
    fn loop_again(&mut self) {
        while let Some(at) = self.take_free() {
            match self.in_loop() {
                Some(order) => self.send(at, order),
                None => return self.free(at),
            }
        }
    }

    fn end_late(&mut self) {
        let patience_us = u64::try_from(self.plan.patience.as_micros()).unwrap_or(u64::MAX);
        let sent_before_us = self.now_us().saturating_sub(patience_us);
        if let Connections::One(connections) = &mut self.connections {
            connections.iter_mut().for_each(|connection| connection.end_if_late(sent_before_us));
        }
    }

    /// Gives up what was never sent.
    fn give_up(&mut self) {
        let mut orders = std::mem::take(&mut self.waiting);
        if let Connections::One(connections) = &mut self.connections {
            orders.extend(connections.iter_mut().filter_map(|connection| connection.take_next()));
        }
        for order in orders {
            self.desk.drop_order(order);
        }
    }
}

/// What a worker is given.
pub(crate) struct Job<'a> {
    pub(crate) plan: Arc<Plan>,
    pub(crate) worker: u32,
    pub(crate) rows: Vec<Row>,
    pub(crate) file: Option<Arc<LedgerFile>>,
    pub(crate) mint: &'a (dyn Fn(i64) -> Result<String, String> + Sync),
    pub(crate) shared: Arc<Shared>,
    /// Called when all connections are there; gives back when the clock starts.
    pub(crate) ready: Box<dyn FnOnce() -> oneshot::Receiver<Instant> + Send + 'a>,
}

/// What a worker gives back.
#[derive(Debug)]
pub(crate) struct Worked {
    pub(crate) measured: Measured,
    pub(crate) current: Vec<Row>,
    pub(crate) left: Vec<Row>,
    pub(crate) stop: Option<Stop>,
}

/// A worker's life, on its own thread.
pub(crate) fn work(job: Job<'_>) -> Result<Worked, LoadError> {
    let tokens = mint(&job)?;
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
    runtime.map_err(LoadError::Thread)?.block_on(play(job, tokens))
}

fn mint(job: &Job<'_>) -> Result<Tokens, LoadError> {
    let mut tokens = Tokens { text: String::new(), ends: Vec::with_capacity(job.rows.len()) };
    for row in &job.rows {
        tokens.text.push_str(&(job.mint)(row.user).map_err(LoadError::Token)?);
        tokens.ends.push(tokens.text.len());
        if tokens.ends.len() == 1 {
            // They are all about as long as the first.
            tokens.text.reserve_exact((job.rows.len() - 1) * (tokens.text.len() + 2));
        }
        job.shared.minted.fetch_add(1, Ordering::Relaxed);
        if job.shared.stop.load(Ordering::Relaxed) {
            break;
        }
    }
    Ok(tokens)
}

async fn play(job: Job<'_>, tokens: Tokens) -> Result<Worked, LoadError> {
    let Job { plan, worker, rows, file, shared, ready, .. } = job;
    let first = plan.share(plan.streamers, worker).start;
    let count = if plan.is_bound() { rows.len() } else { plan.share(plan.connections, worker).len() };
    let connections = if plan.http2 {
        Connections::Two((0..count).map(|_| http2::Connection::default()).collect())
    } else {
        Connections::One((0..count).map(|_| http1::Connection::default()).collect())
    };
    let room = Rc::new_cyclic(|me| {
        RefCell::new(Room {
            desk: Desk::new(Arc::clone(&plan), first, &rows, file),
            is_open: true,
            me: me.clone(),
            tokens,
            parts: BeatParts::new(&plan.target.host),
            buffer: Vec::with_capacity(1_024),
            connections,
            free: VecDeque::with_capacity(count),
            is_free: vec![false; count],
            waiting: VecDeque::new(),
            start: Instant::now(),
            is_looping: false,
            plan: Arc::clone(&plan),
        })
    });
    drop(rows);
    connect(&room, &plan, count, &shared).await?;
    let start = ready();
    // Another worker that can't begin takes its end of the channel with it.
    let Ok(start) = start.await else { return Ok(finished(&room)) };
    room.borrow_mut().start = start;
    tick_until_over(&room, &plan, &shared).await;
    drain(&room, &plan, &shared).await;
    room.borrow_mut().is_open = false;
    Ok(finished(&room))
}

/// Makes all connections for the first time.
async fn connect(room: &Rc<RefCell<Room>>, plan: &Plan, count: usize, shared: &Shared) -> Result<(), LoadError> {
    let gate = Rc::new(Semaphore::new(CONNECTING_MAX));
    let (sender, mut connected) = mpsc::channel(count.max(1));
    for at in 0..count {
        let (room, gate, sender) = (Rc::clone(room), Rc::clone(&gate), sender.clone());
        // The channel has a place for each.
        let tell = move |result| drop(sender.try_send(result));
        let address = plan.target.address;
        if plan.http2 {
            tokio::task::spawn_local(http2::keep(room, at, address, gate, tell));
        } else {
            tokio::task::spawn_local(http1::keep(room, at, address, gate, tell));
        }
    }
    for _ in 0..count {
        if let Some(Err(source)) = connected.recv().await {
            return Err(LoadError::Connect { made: shared.connected.load(Ordering::Relaxed), source });
        }
        shared.connected.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

async fn tick_until_over(room: &Rc<RefCell<Room>>, plan: &Plan, shared: &Shared) {
    let start = room.borrow().start;
    let end = start + plan.duration;
    let mut told = [0; 4];
    let mut late_check_us = 0;
    sleep_until(start).await;
    if plan.saturate {
        let mut room = room.borrow_mut();
        room.is_looping = true;
        room.loop_again();
    }
    while Instant::now() < end && !shared.stop.load(Ordering::Relaxed) && room.borrow().desk.stop.is_none() {
        {
            let mut room = room.borrow_mut();
            if plan.saturate {
                room.loop_again();
            } else {
                room.send_due();
            }
            upkeep(&mut room, shared, &mut told, &mut late_check_us);
        }
        // Millisecond by millisecond, without drift; none is caught up with.
        let ticks = start.elapsed().as_millis() + 1;
        let next = start + TICK * u32::try_from(ticks).unwrap_or(u32::MAX);
        sleep_until(next.min(end)).await;
    }
    room.borrow_mut().is_looping = false;
}

fn upkeep(room: &mut Room, shared: &Shared, told: &mut [u64; 4], late_check_us: &mut u64) {
    let now_us = room.now_us();
    if now_us >= *late_check_us {
        *late_check_us = now_us + LATE_CHECK_US;
        room.end_late();
    }
    if let Err(error) = room.desk.sweep(now_us) {
        room.desk.stop.get_or_insert(Stop::Ledger(error));
    }
    let measured = &room.desk.measured;
    let counts = [measured.offered, measured.sent, measured.acknowledged, measured.failed()];
    let counters = [&shared.offered, &shared.sent, &shared.acknowledged, &shared.failed];
    for ((counter, count), told) in counters.into_iter().zip(counts).zip(told) {
        counter.fetch_add(count - *told, Ordering::Relaxed);
        *told = count;
    }
}

/// Waits for the answers to what was sent, and sends what still waits for a connection.
async fn drain(room: &Rc<RefCell<Room>>, plan: &Plan, shared: &Shared) {
    let is_cut_short = shared.stop.load(Ordering::Relaxed) || room.borrow().desk.stop.is_some();
    if is_cut_short {
        room.borrow_mut().give_up();
    }
    let patience = if is_cut_short { INTERRUPTED_PATIENCE } else { plan.patience + Duration::from_secs(1) };
    let deadline = Instant::now() + patience;
    while !room.borrow().desk.is_quiet() && Instant::now() < deadline {
        room.borrow_mut().end_late();
        sleep(Duration::from_millis(5)).await;
    }
    room.borrow_mut().give_up();
}

fn finished(room: &RefCell<Room>) -> Worked {
    let mut room = room.borrow_mut();
    let mut stop = room.desk.stop.take();
    let (current, left, written) = room.desk.finish();
    if let Err(error) = written {
        stop.get_or_insert(Stop::Ledger(error));
    }
    Worked { measured: room.desk.measured.clone(), current, left, stop }
}
