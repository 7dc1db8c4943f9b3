//! The route table.
//!
//! The heartbeat is listed here too, so that `Allow` is right, though the worker serves it before the router is asked.

use crate::auth::Authenticator;
use crate::problem::Problem;
use crate::resume;
use axum::Router;
use axum::extract::FromRequestParts;
use axum::routing::get;
use http::Method;
use http::request::Parts;
use playhead_core::{Rules, UserId};
use playhead_engine::EngineHandle;
use std::sync::Arc;

/// The path of the heartbeat and of the list.
const PROGRESS: &str = "/api/v1/stream/progress";

/// The routes, as the metrics tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    Heartbeat,
    Title,
    Titles,
    Other,
}

impl Route {
    pub(crate) const ALL: [Self; 4] = [Self::Heartbeat, Self::Title, Self::Titles, Self::Other];

    /// What the router serves at this path.
    pub(crate) fn of(path: &str) -> Self {
        match path.strip_prefix(PROGRESS) {
            Some("") => Self::Titles,
            Some(rest) if rest.starts_with('/') => Self::Title,
            _ => Self::Other,
        }
    }

    /// The label that metrics carry.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Heartbeat => "heartbeat",
            Self::Title => "title",
            Self::Titles => "titles",
            Self::Other => "other",
        }
    }
}

/// Whether the worker serves this request itself.
pub(crate) fn is_heartbeat(method: &Method, path: &str) -> bool {
    method == Method::POST && path == PROGRESS
}

/// What the router's handlers work with.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) engine: EngineHandle,
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) rules: Rules,
}

/// Every path but the heartbeat's.
pub(crate) fn router(api: Api) -> Router {
    Router::new()
        .route(PROGRESS, get(resume::titles).post(heartbeat_is_the_workers))
        .route("/api/v1/stream/progress/{movie_id}", get(resume::title))
        .fallback(async || Problem::NotFound)
        .method_not_allowed_fallback(async || Problem::MethodNotAllowed)
        .with_state(api)
}

/// Never called: see the module.
async fn heartbeat_is_the_workers() -> Problem {
    Problem::StorageUnavailable
}

/// The token's user, as a parameter of handlers.
pub(crate) struct Viewer(pub(crate) UserId);

impl FromRequestParts<Api> for Viewer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        api.authenticator.viewer(&parts.headers).map(Self)
    }
}
