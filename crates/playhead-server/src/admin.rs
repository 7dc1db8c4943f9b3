//! The operations listener, on an address of its own: `/livez`, `/readyz`, `/version`, `/metrics`; with a token `/export`.
//!
//! `/livez` says that the process answers. `/readyz` says whether a balancer should send requests here: 503 before the
//! server serves, while it closes down, while the store can't be used yet or must not be written, and once it has
//! failed. It also says what an acknowledged write survives, where the store knows. A store that is merely `degraded` is not 503:
//! an outage that all nodes share must not take all of them out. Nothing here but [`crate::export`] needs a token, so it
//! belongs on an address that viewers don't reach.

use crate::export::Export;
use crate::metrics::{self, Metrics};
use crate::problem::{NOT_READY, Problem};
use crate::wire::{ReadinessAnswer, VersionAnswer, json};
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use playhead_engine::{Durability, Engine, Health};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;

/// How long a client may take for a request's head, and be idle before it.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);

/// Connections at once.
pub(crate) const CONNECTIONS_MAX: usize = 64;

/// Pause after a failed accept: descriptors may be short.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the page knows.
#[derive(Clone)]
pub(crate) struct Operations {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) engine: Engine,
    pub(crate) closes_down: Arc<AtomicBool>,
    pub(crate) version: &'static str,
    /// What `/export` needs; `None` if there is no such path.
    pub(crate) export: Option<Export>,
}

fn router(mut operations: Operations) -> Router {
    let export = operations.export.take().map_or_else(Router::new, Export::router);
    Router::new()
        .merge(export)
        .route("/livez", get("alive\n"))
        .route("/readyz", get(ready))
        .route("/version", get(version))
        .route("/metrics", get(scrape))
        .fallback(async || Problem::NotFound)
        .method_not_allowed_fallback(async || Problem::MethodNotAllowed)
        .with_state(operations)
}

async fn ready(State(operations): State<Operations>) -> Response {
    let health = operations.engine.condition().health();
    let (status, reasons) = match health {
        Health::Failed(reason) => ("failed", vec![reason]),
        _ if operations.closes_down.load(Ordering::Relaxed) => {
            ("closing down", vec!["the server was told to stop".to_owned()])
        }
        Health::Unready(reason) => ("not ready", vec![reason]),
        Health::Degraded(reason) => ("degraded", vec![reason]),
        Health::Ready => ("ready", Vec::new()),
    };
    let durability = operations.engine.condition().durability().map(Durability::name);
    let is_ready = matches!(status, "ready" | "degraded");
    let answer = ([(CONTENT_TYPE, "application/json")], json(&ReadinessAnswer { status, reasons, durability }));
    if is_ready { answer.into_response() } else { (NOT_READY, answer).into_response() }
}

async fn version(State(operations): State<Operations>) -> impl IntoResponse {
    let answer = VersionAnswer { name: "playhead", version: operations.version };
    ([(CONTENT_TYPE, "application/json")], json(&answer))
}

async fn scrape(State(operations): State<Operations>) -> impl IntoResponse {
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], operations.metrics.to_text())
}

/// Serves for ever, on the runtime of the caller.
pub(crate) async fn serve(listener: TcpListener, operations: Operations) {
    let router = router(operations);
    let connections = Rc::new(Cell::new(0));
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        if connections.get() >= CONNECTIONS_MAX {
            continue;
        }
        connections.set(connections.get() + 1);
        let (router, connections) = (router.clone(), Rc::clone(&connections));
        tokio::task::spawn_local(async move {
            // A client's mistake or hang-up is its own affair.
            let _ = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_DEADLINE)
                .serve_connection(TokioIo::new(socket), TowerToHyperService::new(router))
                .await;
            connections.set(connections.get() - 1);
        });
    }
}
