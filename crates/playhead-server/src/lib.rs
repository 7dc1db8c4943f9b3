//! HTTP in front of the engine.
//!
//! `playhead serve` binds a [`Server`], opens an engine and runs the one over the other.
//!
//! **The promise.** While [`Server::run`] runs, heartbeats that are answered with 204 are durable in the sense of the
//! engine's store. When it returns, every answer that could be given within the drain deadline has been given, and no
//! thread of the server is left; the engine is still open.
//!
//! In reading order:
//! - `accept`: one listener, each socket to a worker;
//! - `worker`: one runtime per core, and which requests it serves itself;
//! - `connection`: the deadlines of clients;
//! - `routes`: the route table; `progress`: heartbeats and batches; `resume`: reads; `forget`: deletions;
//! - `wire`: JSON and queries; `auth`: tokens; `overload`: who is turned away; `throttle`: who asks too often;
//!   `problem`: error answers;
//! - `cors`: which web pages may call; `openapi`: the description of all this;
//! - `metrics`, `admin`, `export`: operations; `bounds`: what is bounded and no setting.

mod accept;
mod admin;
mod auth;
mod bounds;
mod connection;
mod cors;
mod export;
mod forget;
mod metrics;
mod openapi;
mod overload;
mod problem;
mod progress;
mod resume;
mod routes;
mod throttle;
mod wire;
mod worker;

pub use auth::{Authenticator, Claims, SECRET_BYTES_MIN, SecretTooShort, TOKENS_REMEMBERED_MAX};
pub use bounds::bounds;
pub use connection::Deadlines;
pub use cors::{NotAnOrigin, Origins};
pub use export::{EXPORT_TOKEN_BYTES, ExportToken, NotAToken};
pub use throttle::{Rate, THROTTLE_BURST_MAX, THROTTLE_PER_SECOND_MAX, ThrottleLimits};

use accept::Acceptor;
use admin::Operations;
use export::Export;
use metrics::{AcceptMetrics, Metrics};
use playhead_core::{Clock, Rules};
use playhead_engine::Engine;
use routes::Api;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;
use throttle::Throttles;
use tokio::net::{TcpListener, TcpSocket};
use worker::{Ended, WorkerParts};

/// Connections that wait to be accepted: after a restart all players come back within seconds.
pub(crate) const BACKLOG: u32 = 4096;

/// What a server is told.
pub struct Options {
    /// Where viewers connect; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where operators connect; port 0 takes a free one.
    pub admin_listen: SocketAddr,
    /// Who may export, by the operators' address; nobody if `None`.
    pub export_token: Option<ExportToken>,
    /// Threads that serve, one per core as a rule.
    pub workers: usize,
    /// The most open connections.
    pub connections_max: usize,
    /// Whose tokens count.
    pub authenticator: Authenticator,
    /// Verified tokens that each worker remembers; 0 for none.
    pub tokens_remembered: usize,
    /// When a title counts as completed.
    pub rules: Rules,
    /// How old an item of a batch may be; older ones are counted and dropped.
    pub max_item_age: Duration,
    /// Whose web pages may call; `None` for no CORS at all.
    pub origins: Option<Origins>,
    /// Routes of `serve --dev` beside the API's.
    pub demo: Option<axum::Router>,
    /// How long clients may take.
    pub deadlines: Deadlines,
    /// How often users may ask.
    pub throttles: ThrottleLimits,
    /// How often players are asked to send a position, in whole seconds; `None` leaves it to them.
    pub beat_interval: Option<Duration>,
    /// How long it serves on after it was told to stop, no longer ready.
    pub shutdown_delay: Duration,
    /// How long connections may take to end after that.
    pub drain_deadline: Duration,
    /// Whether this is for trying it out: serves a page that describes the interface.
    pub is_dev: bool,
    /// The version that `/version` and the metrics give.
    pub version: &'static str,
}

/// A server with its addresses taken, not yet serving: connections wait.
pub struct Server {
    listener: TcpListener,
    admin_listener: TcpListener,
    options: Options,
}

/// An address could not be taken.
#[derive(Debug, thiserror::Error)]
#[error("can't listen on {address}")]
pub struct BindError {
    /// Which.
    pub address: SocketAddr,
    /// Why.
    pub source: io::Error,
}

/// The server ended for another reason than being told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There is no thread to be had.
    #[error("can't start a worker")]
    Start(#[source] io::Error),
    /// A worker's thread has ended.
    #[error("a worker has stopped")]
    WorkerStopped,
}

impl Server {
    /// Takes both addresses. To be called in a runtime with I/O.
    ///
    /// # Errors
    /// [`BindError`], with nothing taken.
    pub fn bind(options: Options) -> Result<Self, BindError> {
        let listener = listen(options.listen)?;
        let admin_listener = listen(options.admin_listen)?;
        Ok(Self { listener, admin_listener, options })
    }

    /// Where viewers connect.
    ///
    /// # Errors
    /// If the system can't say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Where operators connect.
    ///
    /// # Errors
    /// If the system can't say.
    pub fn admin_address(&self) -> io::Result<SocketAddr> {
        self.admin_listener.local_addr()
    }

    /// Serves until `shutdown` is ready, then closes down: no longer ready, serves on for the shutdown delay, stops
    /// accepting, lets connections end. To be called in a `LocalRuntime`, which accepts and serves the operators.
    ///
    /// # Errors
    /// [`RunError`]; the store is not at fault then, and keeps what was acknowledged.
    pub async fn run(
        self,
        engine: Engine,
        clock: Arc<dyn Clock>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), RunError> {
        let Self { listener, admin_listener, options } = self;
        let authenticator = Arc::new(options.authenticator);
        let throttles = Arc::new(Throttles::new(options.throttles));
        let api = Api {
            engine: engine.handle(),
            authenticator: Arc::clone(&authenticator),
            throttles: Arc::clone(&throttles),
            rules: options.rules,
        };
        let router = routes::router(api, options.is_dev);
        let router = router.merge(options.demo.unwrap_or_default());
        let version = options.version;
        let export = options.export_token.map(|token| Export::new(token, engine.clone(), Arc::clone(&clock), version));
        let parts = WorkerParts {
            engine: engine.clone(),
            authenticator,
            clock,
            router,
            deadlines: options.deadlines,
            drain_deadline: options.drain_deadline,
            tokens_remembered: options.tokens_remembered,
            max_item_age: options.max_item_age,
            origins: options.origins.map(Arc::new),
            throttles,
            beat_interval: options.beat_interval,
        };
        let started: io::Result<Vec<_>> =
            (0..options.workers).map(|number| worker::start(number, parts.clone())).collect();
        drop(parts);
        let (workers, mut ended): (Vec<_>, Vec<_>) = started.map_err(RunError::Start)?.into_iter().unzip();

        let accept_metrics = Arc::new(AcceptMetrics::default());
        let metrics = Arc::new(Metrics {
            workers: workers.iter().map(|worker| Arc::clone(&worker.metrics)).collect(),
            accept: Arc::clone(&accept_metrics),
            engine: engine.clone(),
            version,
        });
        let closes_down = Arc::new(AtomicBool::new(false));
        let operations = Operations { metrics, engine, closes_down: Arc::clone(&closes_down), version, export };
        let admin = tokio::task::spawn_local(admin::serve(admin_listener, operations));

        let acceptor = Acceptor { listener, connections_max: options.connections_max, metrics: accept_metrics };
        let shutdown = async {
            shutdown.await;
            closes_down.store(true, Ordering::Relaxed);
            tokio::time::sleep(options.shutdown_delay).await;
        };
        let outcome = tokio::select! {
            () = shutdown => Ok(()),
            () = acceptor.run(&workers) => unreachable!("accepts for ever"),
            () = any_ended(&mut ended) => Err(RunError::WorkerStopped),
        };
        // Dropping the way in tells the workers to close down.
        drop(workers);
        for worker in ended.into_iter().filter(|worker| !worker.is_terminated()) {
            let _ = worker.await;
        }
        admin.abort();
        outcome
    }
}

fn listen(address: SocketAddr) -> Result<TcpListener, BindError> {
    let attempt = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A restarted server need not wait for the connections of the last one to be forgotten.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    attempt().map_err(|source| BindError { address, source })
}

/// Waits until some worker has ended.
async fn any_ended(workers: &mut [Ended]) {
    poll_fn(|context| {
        let is_over = workers.iter_mut().any(|worker| std::pin::Pin::new(worker).poll(context).is_ready());
        if is_over { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
