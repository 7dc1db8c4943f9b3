//! Writes with a body: from a request on a worker to durable positions.
//!
//! Called by [`crate::worker`] for exactly `POST /api/v1/stream/progress` and `.../batch`, on the worker's own thread.
//!
//! **The promise.** When [`heartbeat`] returns `Ok`, the position is kept, in the sense of the store; when [`batch`] does,
//! all of its items are, but those older than `max_item_age`, which are counted and dropped. When either returns a
//! problem nothing was stored, but for [`Problem::OutcomeUnknown`]. A client that hangs up loses the answer, not the
//! write. Steps are in the order of their cost, so that what is refused costs little.
//!
//! **Times of a batch.** An item is ordered by when it happened: the store takes its age off the moment of its arrival.
//! Items are handed over oldest first, so that two of one title keep their order whatever the store's clock does meanwhile.
//!
//! **The limits.** [`BODY_BYTES_MAX`], [`BATCH_BYTES_MAX`]; the body's time is the connection's ([`crate::connection`]).

use crate::connection::Watch;
use crate::overload::{BatchPlace, admit, shed_if_full};
use crate::problem::Problem;
use crate::wire::{Batch, BatchItem, Heartbeat};
use crate::worker::Worker;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, Request, Version};
use hyper::body::{Body, Incoming};
use playhead_core::{Change, Write};
use std::cmp::Reverse;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Instant;

/// The longest body of a heartbeat.
pub(crate) const BODY_BYTES_MAX: usize = 4 * 1024;

/// The longest body of a batch.
pub(crate) const BATCH_BYTES_MAX: usize = 128 * 1024;

/// Carries out one heartbeat.
pub(crate) async fn heartbeat(
    worker: &Worker,
    watch: &Watch,
    request: Request<Incoming>,
    begun: Instant,
) -> Result<(), Problem> {
    let shed = |_: &Problem| worker.metrics().shed.add_alone(1);
    shed_if_full(worker.lane()).inspect_err(shed)?;
    let (head, body) = request.into_parts();
    let user = worker.viewer(&head.headers, begun)?;
    require_json(&head.headers)?;
    let body = match head.version {
        // Streams share a connection, so each has a timer; it is armed only if the body is not here yet.
        Version::HTTP_2 => tokio::time::timeout(worker.deadlines().request, read::<BODY_BYTES_MAX>(watch, body))
            .await
            .unwrap_or(Err(Problem::RequestTimeout)),
        _ => read::<BODY_BYTES_MAX>(watch, body).await,
    }?;
    watch.request_is_complete();
    let Heartbeat { movie, position, duration } = Heartbeat::parse(&body)?;
    // The wait for the disk is long: nothing of the request is kept for it, and what it held is still in the cache.
    drop((head.headers, head.uri, head.extensions, body));
    // Only now: a client that is slow with its body holds no place that others could use.
    let permit = admit(worker.lane()).inspect_err(shed)?;
    permit.write(Write { user, change: Change::Put { movie, position, duration } }).await?;
    Ok(())
}

/// Carries out one client batch, all or none.
pub(crate) async fn batch(
    worker: &Worker,
    watch: &Watch,
    request: Request<Incoming>,
    begun: Instant,
) -> Result<(), Problem> {
    let _place = BatchPlace::take(worker.batches())?;
    let (head, body) = request.into_parts();
    let user = worker.viewer(&head.headers, begun)?;
    require_json(&head.headers)?;
    let body = tokio::time::timeout(worker.deadlines().request, read::<BATCH_BYTES_MAX>(watch, body));
    let body = body.await.unwrap_or(Err(Problem::RequestTimeout))?;
    watch.request_is_complete();
    let Batch { mut items } = Batch::parse(&body)?;
    let given = items.len();
    items.retain(|item| item.age <= worker.max_item_age());
    items.sort_by_key(|item| Reverse(item.age));
    let dropped = given - items.len();
    if !items.is_empty() {
        let writes = items.into_iter().map(|BatchItem { beat: Heartbeat { movie, position, duration }, age }| {
            let change = Change::LatePut { movie, position, duration, age };
            Write { user, change }
        });
        worker.engine().commit(writes.collect()).await?;
    }
    worker.metrics().items_too_old.add_alone(dropped as u64);
    Ok(())
}

/// The body must be declared as JSON in UTF-8, not compressed.
fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (Some(media_type), None) = (types.next(), types.next()) else {
        return Err(Problem::UnsupportedMediaType);
    };
    if is_json(media_type.as_bytes()) && !headers.contains_key(CONTENT_ENCODING) {
        Ok(())
    } else {
        Err(Problem::UnsupportedMediaType)
    }
}

/// `application/json`, with `charset=utf-8` at most.
fn is_json(media_type: &[u8]) -> bool {
    let mut parts = media_type.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let is_json = parts.next().is_some_and(|essence| essence.eq_ignore_ascii_case(b"application/json"));
    is_json
        && parts.all(|parameter| {
            parameter.eq_ignore_ascii_case(b"charset=utf-8") || parameter.eq_ignore_ascii_case(b"charset=\"utf-8\"")
        })
}

/// Reads a body to its end. A body in one piece, which nearly all are, is not copied.
async fn read<const BYTES_MAX: usize>(watch: &Watch, mut body: Incoming) -> Result<Bytes, Problem> {
    if body.size_hint().lower() > BYTES_MAX as u64 {
        return Err(Problem::PayloadTooLarge);
    }
    let mut whole = Bytes::new();
    while let Some(piece) = next_piece(watch, &mut body).await? {
        if whole.len() + piece.len() > BYTES_MAX {
            return Err(Problem::PayloadTooLarge);
        }
        whole = if whole.is_empty() {
            piece
        } else {
            let mut joined = BytesMut::from(whole);
            joined.extend_from_slice(&piece);
            joined.freeze()
        };
        if body.is_end_stream() {
            break;
        }
    }
    Ok(whole)
}

async fn next_piece(watch: &Watch, body: &mut Incoming) -> Result<Option<Bytes>, Problem> {
    poll_fn(|context| match Pin::new(&mut *body).poll_frame(context) {
        // Trailers say nothing here.
        Poll::Ready(Some(Ok(frame))) => Poll::Ready(Ok(Some(frame.into_data().unwrap_or_default()))),
        Poll::Ready(Some(Err(_))) => Poll::Ready(Err(Problem::MalformedRequest)),
        Poll::Ready(None) => Poll::Ready(Ok(None)),
        Poll::Pending if watch.is_overdue() => Poll::Ready(Err(Problem::RequestTimeout)),
        Poll::Pending => Poll::Pending,
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_json_in_utf_8_is_taken() {
        for good in [
            "application/json",
            "Application/JSON",
            "application/json;charset=utf-8",
            "application/json; charset=UTF-8",
            "application/json ; charset=\"utf-8\"",
        ] {
            assert!(is_json(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/json; charset=utf-16",
            "json",
            "application/jsonp",
            "application/problem+json",
            "application/json; profile=x",
            "application/json,text/plain",
        ] {
            assert!(!is_json(bad.as_bytes()), "{bad}");
        }
    }
}
