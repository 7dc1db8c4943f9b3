//! `GET /export` of the operations listener: everything that the store holds, as the lines of [`playhead_archive`]; with
//! `?from_user=ID` what comes from that user on, for an export that broke off.
//!
//! There is no such path unless the server was given a token for it ([`ExportToken`]): it gives away what every viewer
//! has watched. The token is asked for as `Authorization: Bearer`, and compared in constant time.
//!
//! **The promise.** What was acknowledged before the request is in the answer, and the last line says that it is whole:
//! an answer without that line was cut off. Heartbeats do not wait for it: the store's walk has a thread of its own,
//! and between it and the client lie bounded queues, so that a slow client slows the walk and nothing else.
//!
//! **The limits.** One export at a time; another one gets 503. A client that takes nothing for [`STALL`] is let go.

use crate::problem::{NOT_READY, Problem, UNKNOWN_QUERY};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Digest, SHA256, digest};
use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, Uri};
use http_body_util::channel::{Channel, Sender};
use playhead_archive::Writer;
use playhead_core::{Clock, UserId};
use playhead_engine::{Engine, Scan};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Exports at once.
pub(crate) const EXPORTS_MAX: usize = 1;

/// How long a client may take nothing.
const STALL: Duration = Duration::from_secs(60);

/// Pieces of the answer that wait for the client.
const PIECES_AHEAD: usize = 2;

/// The shortest token taken, and the longest.
pub const EXPORT_TOKEN_BYTES: std::ops::RangeInclusive<usize> = 32..=1024;

/// Who may export. Only a hash of the token is kept.
#[derive(Clone)]
pub struct ExportToken(Digest);

/// The token is too short or too long, or can't be sent in a header.
#[derive(Debug, thiserror::Error)]
#[error(
    "a token is {} to {} visible ASCII characters without a space; `openssl rand -hex 32` makes one",
    EXPORT_TOKEN_BYTES.start(),
    EXPORT_TOKEN_BYTES.end()
)]
pub struct NotAToken;

impl ExportToken {
    /// Takes a token.
    ///
    /// # Errors
    /// [`NotAToken`]
    pub fn of(token: &[u8]) -> Result<Self, NotAToken> {
        let is_good = EXPORT_TOKEN_BYTES.contains(&token.len()) && token.iter().all(u8::is_ascii_graphic);
        if is_good { Ok(Self(digest(&SHA256, token))) } else { Err(NotAToken) }
    }

    /// Whether exactly one header holds it.
    fn is_in(&self, headers: &HeaderMap) -> bool {
        let mut given = headers.get_all(AUTHORIZATION).iter();
        let (Some(given), None) = (given.next(), given.next()) else { return false };
        let Some(token) = given.as_bytes().strip_prefix(b"Bearer ") else { return false };
        // Of hashes, so that the time tells nothing of the length either.
        verify_slices_are_equal(digest(&SHA256, token).as_ref(), self.0.as_ref()).is_ok()
    }
}

/// What an export needs.
#[derive(Clone)]
pub(crate) struct Export {
    token: ExportToken,
    engine: Engine,
    clock: Arc<dyn Clock>,
    version: &'static str,
    turn: Arc<Semaphore>,
}

impl Export {
    pub(crate) fn new(token: ExportToken, engine: Engine, clock: Arc<dyn Clock>, version: &'static str) -> Self {
        Self { token, engine, clock, version, turn: Arc::new(Semaphore::new(EXPORTS_MAX)) }
    }

    /// The one route.
    pub(crate) fn router<S: Clone + Send + Sync + 'static>(self) -> Router<S> {
        Router::new().route("/export", get(export)).with_state(self)
    }
}

/// What a client sees as a connection that breaks, not as an answer that ends.
#[derive(Debug, thiserror::Error)]
#[error("the export has broken off")]
struct BrokenOff;

/// What may be asked for.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    from_user: Option<String>,
}

async fn export(State(export): State<Export>, uri: Uri, headers: HeaderMap) -> Result<Response, Problem> {
    if !export.token.is_in(&headers) {
        return Err(Problem::Unauthorized);
    }
    let asked = Query::<Asked>::try_from_uri(&uri).ok();
    let from = asked.map(|Query(asked)| asked.from_user.map(|user| user.parse::<UserId>()).transpose());
    let Some(Ok(from)) = from else {
        return Ok((UNKNOWN_QUERY, "the query may be from_user=ID, and nothing else\n").into_response());
    };
    let Ok(turn) = Arc::clone(&export.turn).try_acquire_owned() else {
        return Ok((NOT_READY, "an export is under way: try again when it has ended\n").into_response());
    };
    let exported_at = export.clock.now();
    let mut scan = export.engine.handle().scan(from);
    // Whether it can be read at all shows before the status leaves.
    let first = match scan.next().await {
        Ok(first) => first.unwrap_or_default(),
        Err(error) => {
            tracing::warn!(%error, "an export could not begin");
            return Err(Problem::StorageUnavailable);
        }
    };
    let mut writer = Writer::new(export.version, exported_at, scan.has_barriers());
    first.iter().for_each(|record| writer.record(record));
    let (sender, body) = Channel::<Bytes, BrokenOff>::new(PIECES_AHEAD);
    tokio::task::spawn_local(feed(scan, writer, sender, turn));
    let headers = [(CONTENT_TYPE, "application/x-ndjson"), (CACHE_CONTROL, "no-store")];
    Ok((headers, Body::new(body)).into_response())
}

/// Sends the rest, and lets the next export have its turn.
async fn feed(mut scan: Scan, mut writer: Writer, mut sender: Sender<Bytes, BrokenOff>, _turn: OwnedSemaphorePermit) {
    tracing::info!("an export has begun");
    loop {
        if let Err(reason) = send(&mut sender, writer.take()).await {
            tracing::warn!(reason, "an export was given up");
            return sender.abort(BrokenOff);
        }
        match scan.next().await {
            Ok(Some(piece)) => piece.iter().for_each(|record| writer.record(record)),
            Ok(None) => break,
            Err(error) => {
                tracing::error!(%error, "an export has broken off");
                return sender.abort(BrokenOff);
            }
        }
    }
    let counts = writer.counts();
    match send(&mut sender, writer.finish()).await {
        Ok(()) => tracing::info!(rows = counts.rows, barriers = counts.forgets + counts.erases, "an export has ended"),
        Err(reason) => {
            tracing::warn!(reason, "an export was given up at its end");
            sender.abort(BrokenOff);
        }
    }
}

async fn send(sender: &mut Sender<Bytes, BrokenOff>, bytes: Vec<u8>) -> Result<(), &'static str> {
    match tokio::time::timeout(STALL, sender.send_data(bytes.into())).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err("its client has gone"),
        Err(_) => Err("its client took nothing for a minute"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn one_header_must_hold_the_whole_token() {
        let text = "0123456789abcdef0123456789abcdef";
        let token = ExportToken::of(text.as_bytes()).unwrap();
        let with = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            }
            token.is_in(&headers)
        };
        let right = format!("Bearer {text}");
        assert!(with(&[&right]));
        let wrong = ["", "Bearer ", text, &right[..38], &format!("{right}0"), &right.to_uppercase(), "Basic 0123"];
        for wrong in wrong {
            assert!(!with(&[wrong]), "{wrong}");
        }
        assert!(!with(&[]) && !with(&[&right, &right]));
    }

    #[test]
    fn a_token_is_long_and_can_be_sent() {
        for bad in [&b""[..], &[b'a'; 31], &[b'a'; 1025], &[b' '; 40], &[b'\n'; 40], &[0xe4; 40]] {
            assert!(ExportToken::of(bad).is_err());
        }
        assert!(ExportToken::of(&[b'a'; 32]).is_ok());
    }
}
