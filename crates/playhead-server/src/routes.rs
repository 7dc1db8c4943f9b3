//! The route table.
//!
//! The heartbeat and the batch are listed here too, so that `Allow` is right, though the worker serves them before the
//! router is asked: their bodies are timed by the connection.

use crate::auth::Authenticator;
use crate::problem::Problem;
use crate::throttle::Throttles;
use crate::{forget, openapi, resume};
use axum::Router;
use axum::extract::FromRequestParts;
use axum::routing::{get, post};
use http::request::Parts;
use http::{Method, Uri};
use playhead_core::{MovieId, Rules, UserId};
use playhead_engine::EngineHandle;
use std::sync::Arc;
use std::time::Instant;

/// The path of the heartbeat and of the list.
pub(crate) const PROGRESS: &str = "/api/v1/stream/progress";

/// The path of the batch.
pub(crate) const BATCH: &str = "/api/v1/stream/progress/batch";

/// The path of one title.
pub(crate) const TITLE: &str = "/api/v1/stream/progress/{movie_id}";

/// The path of what describes all this.
pub(crate) const DOCUMENT: &str = "/openapi.json";

/// The path of the same as a page, with `--dev` only.
const DOCS: &str = "/docs";

/// The routes, as the metrics tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    Heartbeat,
    Batch,
    Title,
    Titles,
    Forget,
    Erase,
    Other,
}

impl Route {
    pub(crate) const ALL: [Self; 7] =
        [Self::Heartbeat, Self::Batch, Self::Title, Self::Titles, Self::Forget, Self::Erase, Self::Other];

    /// What the router serves of this method at this path.
    pub(crate) fn of(method: &Method, path: &str) -> Self {
        let forgets = method == Method::DELETE;
        match path.strip_prefix(PROGRESS) {
            Some("") if forgets => Self::Erase,
            Some("") => Self::Titles,
            Some("/batch") => Self::Batch,
            Some(rest) if rest.starts_with('/') && forgets => Self::Forget,
            Some(rest) if rest.starts_with('/') => Self::Title,
            _ => Self::Other,
        }
    }

    /// The label that metrics carry.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Heartbeat => "heartbeat",
            Self::Batch => "batch",
            Self::Title => "title",
            Self::Titles => "titles",
            Self::Forget => "forget",
            Self::Erase => "erase",
            Self::Other => "other",
        }
    }
}

/// Whether this is a heartbeat, which the worker serves itself.
pub(crate) fn is_heartbeat(method: &Method, path: &str) -> bool {
    method == Method::POST && path == PROGRESS
}

/// Whether this is a client batch, which the worker serves itself.
pub(crate) fn is_batch(method: &Method, path: &str) -> bool {
    method == Method::POST && path == BATCH
}

/// What the router's handlers work with.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) engine: EngineHandle,
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) throttles: Arc<Throttles>,
    pub(crate) rules: Rules,
}

/// Every path; with those for who tries it out.
pub(crate) fn router(api: Api, is_dev: bool) -> Router {
    let router = Router::new()
        .route(PROGRESS, get(resume::titles).post(is_the_workers).delete(forget::user))
        .route(BATCH, post(is_the_workers))
        .route(TITLE, get(resume::title).delete(forget::title))
        .route(DOCUMENT, openapi::json());
    let router = if is_dev { router.route(DOCS, openapi::docs()) } else { router };
    router
        .fallback(async || Problem::NotFound)
        .method_not_allowed_fallback(async || Problem::MethodNotAllowed)
        .with_state(api)
}

/// Never called: see the module.
async fn is_the_workers() -> Problem {
    Problem::StorageUnavailable
}

/// The title that a path ends in.
pub(crate) fn title_of(uri: &Uri) -> Result<MovieId, Problem> {
    // As it was sent: an escaped digit is not the canonical spelling.
    uri.path().rsplit('/').next().and_then(|id| id.parse().ok()).ok_or(Problem::NotFound)
}

/// The token's user, who does not ask too often, as a parameter of handlers.
pub(crate) struct Viewer(pub(crate) UserId);

impl FromRequestParts<Api> for Viewer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let user = api.authenticator.viewer(&parts.headers)?;
        let now = Instant::now();
        api.throttles.requests.take(user, now)?;
        if parts.method == Method::DELETE {
            api.throttles.deletions.take(user, now)?;
        }
        Ok(Self(user))
    }
}
