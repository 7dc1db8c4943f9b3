//! The bounds that are no setting, in one list for the reference of the configuration.

use crate::connection::{HEAD_BYTES_MAX, LINGER_BYTES_MAX, STREAMS_MAX};
use crate::overload::BATCHES_MAX;
use crate::progress::{BATCH_BYTES_MAX, BODY_BYTES_MAX};
use crate::wire::{ITEMS_MAX, LIMIT_MAX, MOVIES_MAX};
use crate::{BACKLOG, admin, export, throttle};
use playhead_engine::bounds::Bound;

/// All of the server's.
#[must_use]
pub fn bounds() -> Vec<Bound> {
    vec![
        Bound::new(
            "connections that wait to be accepted, if the system allows as many",
            BACKLOG as usize,
            "tried again by the client",
        ),
        Bound::new("bytes of a request's head", HEAD_BYTES_MAX as usize, "431"),
        Bound::new("fields of a request's head over HTTP/1.1", 100, "431"),
        Bound::new("requests under way on one HTTP/2 connection", STREAMS_MAX as usize, "they wait at the client"),
        Bound::new("bytes of a heartbeat", BODY_BYTES_MAX, "413"),
        Bound::new("bytes of a batch", BATCH_BYTES_MAX, "413"),
        Bound::new("items of a batch", ITEMS_MAX, "422"),
        Bound::new("batches under way on one worker", BATCHES_MAX, "503 overloaded"),
        Bound::new("titles of one page of a list", LIMIT_MAX, "400"),
        Bound::new("titles asked for by id at once", MOVIES_MAX, "400"),
        Bound::new("users ahead of their rate that a throttle can tell apart", throttle::SLOTS, "some are let through"),
        Bound::new("bytes still read of a connection that is being closed", LINGER_BYTES_MAX, "closed at once"),
        Bound::new("connections of operators", admin::CONNECTIONS_MAX, "closed at once"),
        Bound::new("exports under way", export::EXPORTS_MAX, "503"),
    ]
}
