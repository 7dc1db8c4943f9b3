//! A worker: one core's thread with its own runtime, connections, token cache and lane.
//!
//! Started by [`crate::Server::run`], fed with sockets by [`crate::accept`]. Nothing of a request leaves its worker but
//! through the store, so nothing on the way of a heartbeat is locked, and but for one word of [`crate::throttle`] nothing
//! is shared.
//!
//! **The promise.** [`answer`] makes exactly one answer of every request. Writes with a body (the heartbeat and the batch)
//! are served here, on hyper directly; all else goes to the router, whose handlers must be `Send` and so reach the store
//! by a handle.
//!
//! **Its end.** When no more sockets can come, the worker closes down: idle connections are closed, busy ones after
//! their answer (`Connection: close`, GOAWAY). It ends once all are closed and the lane is empty, or when the drain
//! deadline has passed.

use crate::auth::{Authenticator, Lookup, TokenCache};
use crate::connection::{self, Deadlines, TICK, Watch};
use crate::cors::{self, Origins};
use crate::metrics::WorkerMetrics;
use crate::problem::{Problem, kept, status_slot};
use crate::progress::{batch, heartbeat};
use crate::routes::{self, Route};
use crate::throttle::Throttles;
use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Version};
use hyper::body::Incoming;
use playhead_core::{Clock, UserId};
use playhead_engine::{Engine, EngineHandle, Lane};
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};
use tower::ServiceExt;

/// Asks players to send a position each so many seconds, until an answer omits it.
const PLAYHEAD_INTERVAL: HeaderName = HeaderName::from_static("playhead-interval");

/// How often a worker that closes down looks whether it is done.
const DRAIN_CHECK: Duration = Duration::from_millis(10);

/// What a worker is made of; each takes its own copy to its thread.
#[derive(Clone)]
pub(crate) struct WorkerParts {
    pub(crate) engine: Engine,
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) router: Router,
    pub(crate) deadlines: Deadlines,
    pub(crate) drain_deadline: Duration,
    pub(crate) tokens_remembered: usize,
    pub(crate) max_item_age: Duration,
    pub(crate) origins: Option<Arc<Origins>>,
    pub(crate) throttles: Arc<Throttles>,
    pub(crate) beat_interval: Option<Duration>,
}

/// A running worker, seen from outside.
pub(crate) struct WorkerHandle {
    /// Where its sockets come in. The cap on connections bounds the queue.
    pub(crate) sockets: mpsc::UnboundedSender<std::net::TcpStream>,
    pub(crate) metrics: Arc<WorkerMetrics>,
}

/// Ready once a worker's thread has ended, be it by a panic.
pub(crate) type Ended = oneshot::Receiver<()>;

/// Starts a worker on its own thread.
///
/// # Errors
/// If there is no thread to be had.
pub(crate) fn start(number: usize, parts: WorkerParts) -> std::io::Result<(WorkerHandle, Ended)> {
    let (sockets, inbox) = mpsc::unbounded_channel();
    let (alive, ended) = oneshot::channel::<()>();
    let metrics = Arc::new(WorkerMetrics::default());
    let runtime_metrics = Arc::clone(&metrics);
    std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
        let _alive = alive;
        let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
        match runtime {
            Ok(runtime) => runtime.block_on(run(parts, runtime_metrics, inbox)),
            Err(error) => tracing::error!(%error, "a worker could not start"),
        }
    })?;
    Ok((WorkerHandle { sockets, metrics }, ended))
}

/// What the tasks of one worker share.
pub(crate) struct Worker {
    lane: Lane,
    engine: EngineHandle,
    authenticator: Arc<Authenticator>,
    tokens: RefCell<TokenCache>,
    router: Router,
    deadlines: Deadlines,
    metrics: Arc<WorkerMetrics>,
    /// The clock of deadlines: milliseconds, moved by the sweep.
    now_ms: Rc<Cell<u64>>,
    /// The wall clock as of the last sweep, in seconds, for the expiry of remembered tokens.
    wall_s: Cell<u64>,
    max_item_age: Duration,
    origins: Option<Arc<Origins>>,
    throttles: Arc<Throttles>,
    /// The value of [`PLAYHEAD_INTERVAL`], if it is set: this worker's own, so that handing it out shares nothing.
    beat_interval: Option<HeaderValue>,
    /// Client batches under way.
    batches: Cell<usize>,
    connections: RefCell<Slab<Rc<Watch>>>,
    closes_down: Cell<bool>,
}

impl Worker {
    pub(crate) fn lane(&self) -> &Lane {
        &self.lane
    }

    pub(crate) fn engine(&self) -> &EngineHandle {
        &self.engine
    }

    pub(crate) fn max_item_age(&self) -> Duration {
        self.max_item_age
    }

    /// How many client batches are under way.
    pub(crate) fn batches(&self) -> &Cell<usize> {
        &self.batches
    }

    pub(crate) fn deadlines(&self) -> Deadlines {
        self.deadlines
    }

    pub(crate) fn metrics(&self) -> &WorkerMetrics {
        &self.metrics
    }

    pub(crate) fn is_closing_down(&self) -> bool {
        self.closes_down.get()
    }

    /// Who sends this request, which has begun at this moment, if it is not one too many.
    pub(crate) fn viewer(&self, headers: &HeaderMap, begun: Instant) -> Result<UserId, Problem> {
        let (viewer, lookup) = self.tokens.borrow_mut().viewer(&self.authenticator, headers, self.wall_s.get());
        let counter = match lookup {
            Lookup::Hit => &self.metrics.token_hits,
            Lookup::Miss => &self.metrics.token_misses,
        };
        counter.add_alone(1);
        let user = viewer?;
        self.throttles.requests.take(user, begun)?;
        Ok(user)
    }

    /// Moves the clocks, wakes the connections that are overdue, and publishes what is only known here.
    fn sweep(&self, clock: &dyn Clock) {
        self.wall_s.set(clock.now().micros() / 1_000_000);
        self.metrics.writes_in_flight.set(self.lane.in_flight() as u64);
        self.metrics.tokens_remembered.set(self.tokens.borrow().len() as u64);
        for (_, watch) in &*self.connections.borrow() {
            if watch.is_overdue() {
                watch.wake();
            }
        }
    }

    fn close_down(&self) {
        self.closes_down.set(true);
        for (_, watch) in &*self.connections.borrow() {
            watch.wake();
        }
    }

    fn is_drained(&self) -> bool {
        self.connections.borrow().is_empty() && self.lane.in_flight() == 0
    }
}

async fn run(parts: WorkerParts, metrics: Arc<WorkerMetrics>, mut inbox: mpsc::UnboundedReceiver<std::net::TcpStream>) {
    let (lane, driver) = parts.engine.lane();
    tokio::task::spawn_local(driver.run());
    let worker = Rc::new(Worker {
        lane,
        engine: parts.engine.handle(),
        authenticator: parts.authenticator,
        tokens: RefCell::new(TokenCache::new(parts.tokens_remembered)),
        router: parts.router,
        deadlines: parts.deadlines,
        metrics,
        now_ms: Rc::default(),
        wall_s: Cell::default(),
        max_item_age: parts.max_item_age,
        origins: parts.origins,
        throttles: parts.throttles,
        beat_interval: parts.beat_interval.map(|interval| HeaderValue::from(interval.as_secs())),
        batches: Cell::new(0),
        connections: RefCell::default(),
        closes_down: Cell::new(false),
    });
    tokio::task::spawn_local(sweep_for_ever(Rc::clone(&worker), parts.clock));
    while let Some(socket) = inbox.recv().await {
        open(&worker, socket);
    }
    worker.close_down();
    let drained = async {
        while !worker.is_drained() {
            tokio::time::sleep(DRAIN_CHECK).await;
        }
    };
    // Whoever is still connected after the deadline is cut off: the runtime ends, and its tasks with it.
    let _ = tokio::time::timeout(parts.drain_deadline, drained).await;
}

async fn sweep_for_ever(worker: Rc<Worker>, clock: Arc<dyn Clock>) {
    let tick_ms = u64::try_from(TICK.as_millis()).expect("a tick is short");
    let mut ticks = interval(TICK);
    // Ticks are counted, not time: after a pause of the whole process no client is late at once.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        worker.now_ms.set(worker.now_ms.get() + tick_ms);
        worker.sweep(&*clock);
    }
}

/// Opens a connection and serves it as a task.
fn open(worker: &Rc<Worker>, socket: std::net::TcpStream) {
    let socket = match TcpStream::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => {
            worker.metrics.connections.sub(1);
            tracing::warn!(%error, "a connection could not be taken over");
            return;
        }
    };
    let watch = Rc::new(Watch::new(worker.deadlines, Rc::clone(&worker.now_ms)));
    let key = worker.connections.borrow_mut().insert(Rc::clone(&watch));
    let open = Open { worker: Rc::clone(worker), key };
    tokio::task::spawn_local(async move {
        connection::serve(Rc::clone(&open.worker), watch, socket).await;
        drop(open);
    });
}

/// A place in the table of connections, given back however the task ends.
struct Open {
    worker: Rc<Worker>,
    key: usize,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.worker.connections.borrow_mut().remove(self.key);
        self.worker.metrics.connections.sub(1);
    }
}

/// Answers a request, and counts it.
pub(crate) async fn answer(worker: &Rc<Worker>, watch: &Watch, request: Request<Incoming>) -> Response {
    watch.request_begins();
    let begun = Instant::now();
    let grant = worker.origins.as_ref().map(|origins| origins.grant(request.headers()));
    let (route, mut response) = if !names_its_host(&request) {
        (Route::Other, Problem::MalformedRequest.into_response())
    } else if routes::is_heartbeat(request.method(), request.uri().path()) {
        let outcome = heartbeat(worker, watch, request, begun).await;
        (Route::Heartbeat, outcome.map_or_else(IntoResponse::into_response, |()| kept()))
    } else if routes::is_batch(request.method(), request.uri().path()) {
        // In a box, because it is large and rare: it would double every connection.
        let outcome = Box::pin(batch(worker, watch, request, begun)).await;
        (Route::Batch, outcome.map_or_else(IntoResponse::into_response, |()| kept()))
    } else if grant.is_some() && cors::is_preflight(&request) {
        watch.request_is_complete();
        (Route::Other, cors::preflight())
    } else {
        watch.request_is_complete();
        let route = Route::of(request.method(), request.uri().path());
        // In a box for the same reason.
        let response = Box::pin(worker.router.clone().oneshot(request.map(Body::new))).await;
        (route, response.unwrap_or_else(|infallible| match infallible {}))
    };
    if let (Some(origins), Some(grant)) = (&worker.origins, grant) {
        origins.mark(grant, response.headers_mut());
    }
    // On each answer, errors too: one without it would send players back to their own interval.
    if let Some(interval) = &worker.beat_interval {
        response.headers_mut().insert(PLAYHEAD_INTERVAL, interval.clone());
    }
    worker.metrics.answered(route, status_slot(response.status()), begun.elapsed());
    watch.answer_is_made();
    response
}

/// HTTP/1.1 requires exactly one `Host`; hyper does not.
fn names_its_host(request: &Request<Incoming>) -> bool {
    if request.version() != Version::HTTP_11 {
        return true;
    }
    let mut hosts = request.headers().get_all(HOST).iter();
    hosts.next().is_some() && hosts.next().is_none()
}
