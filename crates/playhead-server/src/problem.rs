//! The only place where an error becomes a status: the table of problems and their answers.
//!
//! Every error answer of the API is `application/problem+json` (RFC 9457). Its `type` ends in a slug that clients may
//! rely on; `title` and `detail` are for people and never repeat anything that the client sent. What hyper refuses by
//! itself (a head that is no HTTP, or too long) has an empty body.
//!
//! A 4xx is final: the same request fails again. 408, 429 and 503 are worth another attempt, with the newest position.

use crate::overload::{RETRY_OVERLOADED_SECONDS, RETRY_UNAVAILABLE_SECONDS, RETRY_UNKNOWN_SECONDS};
use crate::wire::{Fault, ProblemAnswer, json};
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};

/// The media type of every problem.
pub(crate) const MEDIA_TYPE: &str = "application/problem+json";

/// What went wrong with a request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Problem {
    /// The body is not JSON.
    MalformedJson,
    /// The request is not HTTP as it should be: no `Host`, a body that breaks off.
    MalformedRequest,
    /// A query parameter.
    InvalidQuery,
    /// No token, or none that counts.
    Unauthorized,
    /// No such path; an id in any spelling but the canonical one is no path.
    NotFound,
    /// The path knows other methods; the router adds `Allow`.
    MethodNotAllowed,
    /// The request did not arrive in time.
    RequestTimeout,
    /// The body is longer than this route takes.
    PayloadTooLarge,
    /// The body is not declared to be plain JSON.
    UnsupportedMediaType,
    /// The JSON does not say what it should.
    InvalidRequest(Vec<Fault>),
    /// This user asks too often.
    RateLimited {
        /// When one more request is let through.
        after_seconds: u32,
    },
    /// Too much is under way.
    Overloaded,
    /// The store can't write or read at present. Nothing was stored.
    StorageUnavailable,
    /// The write may have been stored, or not.
    OutcomeUnknown,
}

/// One row of the table.
struct Row {
    status: StatusCode,
    slug: &'static str,
    title: &'static str,
    detail: &'static str,
    retry_after_seconds: Option<u32>,
}

const fn row(status: StatusCode, slug: &'static str, title: &'static str, detail: &'static str) -> Row {
    Row { status, slug, title, detail, retry_after_seconds: None }
}

const fn retry(slug: &'static str, title: &'static str, detail: &'static str, after_seconds: u32) -> Row {
    Row { status: StatusCode::SERVICE_UNAVAILABLE, slug, title, detail, retry_after_seconds: Some(after_seconds) }
}

static MALFORMED_JSON: Row = row(
    StatusCode::BAD_REQUEST,
    "malformed-json",
    "The body is not JSON",
    "Send one JSON object in UTF-8, with nothing before or after it.",
);
static MALFORMED_REQUEST: Row = row(
    StatusCode::BAD_REQUEST,
    "malformed-request",
    "The request is malformed",
    "Send exactly one Host header and the whole body that was announced.",
);
static INVALID_QUERY: Row = row(
    StatusCode::BAD_REQUEST,
    "invalid-query",
    "The query is invalid",
    "limit is 1 to 100; state is in_progress, completed or all; cursor is what the last page gave, for the same state; each at most once. Or movie_id, up to 100 times, with none of these.",
);
static UNAUTHORIZED: Row = row(
    StatusCode::UNAUTHORIZED,
    "unauthorized",
    "A valid token is needed",
    "Send one Authorization header with a Bearer token that is signed with a configured key, has not expired and names the user.",
);
static NOT_FOUND: Row = row(
    StatusCode::NOT_FOUND,
    "not-found",
    "There is nothing at this path",
    "Ids in a path are signed 64-bit integers in canonical decimal spelling.",
);
static METHOD_NOT_ALLOWED: Row = row(
    StatusCode::METHOD_NOT_ALLOWED,
    "method-not-allowed",
    "This path does not know the method",
    "The Allow header lists the methods it knows.",
);
static REQUEST_TIMEOUT: Row = row(
    StatusCode::REQUEST_TIMEOUT,
    "request-timeout",
    "The request took too long to arrive",
    "Nothing was stored. Send the newest position on a new connection.",
);
static PAYLOAD_TOO_LARGE: Row = row(
    StatusCode::PAYLOAD_TOO_LARGE,
    "payload-too-large",
    "The body is too long",
    "A heartbeat is at most 4,096 bytes, a batch 131,072.",
);
static UNSUPPORTED_MEDIA_TYPE: Row = row(
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
    "unsupported-media-type",
    "The body must be plain JSON",
    "Send Content-Type: application/json, in UTF-8, without Content-Encoding.",
);
static INVALID_REQUEST: Row = row(
    StatusCode::UNPROCESSABLE_ENTITY,
    "invalid-request",
    "The request is invalid",
    "Nothing was stored. Each entry of errors names one fault.",
);
static RATE_LIMITED: Row = row(
    StatusCode::TOO_MANY_REQUESTS,
    "rate-limited",
    "This user sends too many requests",
    "Nothing was stored. Try again after the time in Retry-After, with the newest position.",
);
static OVERLOADED: Row = retry(
    "overloaded",
    "The server is busy",
    "Nothing was stored. Try again later, with the newest position.",
    RETRY_OVERLOADED_SECONDS,
);
static STORAGE_UNAVAILABLE: Row = retry(
    "storage-unavailable",
    "Positions can't be stored or read at present",
    "An unread position is unknown, not zero. Try again later, with the newest position.",
    RETRY_UNAVAILABLE_SECONDS,
);
static OUTCOME_UNKNOWN: Row = retry(
    "outcome-unknown",
    "The position may have been stored, or not",
    "Try again, with the newest position.",
    RETRY_UNKNOWN_SECONDS,
);

impl Problem {
    fn row(&self) -> &'static Row {
        match self {
            Problem::MalformedJson => &MALFORMED_JSON,
            Problem::MalformedRequest => &MALFORMED_REQUEST,
            Problem::InvalidQuery => &INVALID_QUERY,
            Problem::Unauthorized => &UNAUTHORIZED,
            Problem::NotFound => &NOT_FOUND,
            Problem::MethodNotAllowed => &METHOD_NOT_ALLOWED,
            Problem::RequestTimeout => &REQUEST_TIMEOUT,
            Problem::PayloadTooLarge => &PAYLOAD_TOO_LARGE,
            Problem::UnsupportedMediaType => &UNSUPPORTED_MEDIA_TYPE,
            Problem::InvalidRequest(_) => &INVALID_REQUEST,
            Problem::RateLimited { .. } => &RATE_LIMITED,
            Problem::Overloaded => &OVERLOADED,
            Problem::StorageUnavailable => &STORAGE_UNAVAILABLE,
            Problem::OutcomeUnknown => &OUTCOME_UNKNOWN,
        }
    }

    /// One of each kind.
    #[cfg(test)]
    pub(crate) fn all() -> Vec<Self> {
        // A kind that is added makes this match incomplete: add it below too.
        let kinds = |problem: Self| match problem {
            Problem::MalformedJson
            | Problem::MalformedRequest
            | Problem::InvalidQuery
            | Problem::Unauthorized
            | Problem::NotFound
            | Problem::MethodNotAllowed
            | Problem::RequestTimeout
            | Problem::PayloadTooLarge
            | Problem::UnsupportedMediaType
            | Problem::InvalidRequest(_)
            | Problem::RateLimited { .. }
            | Problem::Overloaded
            | Problem::StorageUnavailable
            | Problem::OutcomeUnknown => problem,
        };
        [
            Problem::MalformedJson,
            Problem::MalformedRequest,
            Problem::InvalidQuery,
            Problem::Unauthorized,
            Problem::NotFound,
            Problem::MethodNotAllowed,
            Problem::RequestTimeout,
            Problem::PayloadTooLarge,
            Problem::UnsupportedMediaType,
            Problem::InvalidRequest(Vec::new()),
            Problem::RateLimited { after_seconds: 1 },
            Problem::Overloaded,
            Problem::StorageUnavailable,
            Problem::OutcomeUnknown,
        ]
        .map(kinds)
        .into()
    }

    /// The status, as the API's document spells it.
    pub(crate) fn status(&self) -> &'static str {
        self.row().status.as_str()
    }

    /// What its type ends in.
    pub(crate) fn slug(&self) -> &'static str {
        self.row().slug
    }

    /// The header that this problem has and others have not; the router adds `Allow`.
    pub(crate) fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        match self {
            Problem::Unauthorized => Some((WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))),
            Problem::RateLimited { after_seconds } => Some((RETRY_AFTER, HeaderValue::from(*after_seconds))),
            // What is left of the body is not waited for.
            Problem::RequestTimeout => Some((CONNECTION, HeaderValue::from_static("close"))),
            _ => self.row().retry_after_seconds.map(|seconds| (RETRY_AFTER, HeaderValue::from(seconds))),
        }
    }

    /// The body of its answer.
    pub(crate) fn answer(&self) -> ProblemAnswer<'_> {
        let row = self.row();
        let errors = match self {
            Problem::InvalidRequest(faults) => faults.as_slice(),
            _ => &[],
        };
        ProblemAnswer {
            kind: format!("urn:playhead:problem:{}", row.slug),
            title: row.title,
            status: row.status.as_u16(),
            detail: row.detail,
            errors,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(json(&self.answer())));
        *response.status_mut() = self.row().status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.extend(self.header());
        response
    }
}

/// The answer to what was carried out and has no more to say: a bare 204.
pub(crate) fn kept() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// A status that says "not now" to whoever asks whether this server takes requests.
pub(crate) const NOT_READY: StatusCode = StatusCode::SERVICE_UNAVAILABLE;

/// What the operations listener answers to a query that it does not know.
pub(crate) const UNKNOWN_QUERY: StatusCode = StatusCode::BAD_REQUEST;

/// The statuses that are counted one by one; the last slot of [`status_slot`] takes any other.
pub(crate) const STATUSES: [StatusCode; 12] = [
    StatusCode::NO_CONTENT,
    StatusCode::OK,
    StatusCode::BAD_REQUEST,
    StatusCode::UNAUTHORIZED,
    StatusCode::NOT_FOUND,
    StatusCode::METHOD_NOT_ALLOWED,
    StatusCode::REQUEST_TIMEOUT,
    StatusCode::PAYLOAD_TOO_LARGE,
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
    StatusCode::UNPROCESSABLE_ENTITY,
    StatusCode::TOO_MANY_REQUESTS,
    StatusCode::SERVICE_UNAVAILABLE,
];

/// The name of what a slot counts.
pub(crate) fn status_name(slot: usize) -> &'static str {
    STATUSES.get(slot).map_or("other", StatusCode::as_str)
}

/// Where a status is counted: its place in [`STATUSES`], or behind them.
pub(crate) fn status_slot(status: StatusCode) -> usize {
    STATUSES.iter().position(|known| *known == status).unwrap_or(STATUSES.len())
}
