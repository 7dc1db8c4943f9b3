//! Who is turned away, when, and for how long.
//!
//! - A heartbeat beyond its worker's bound on writes in flight is *shed* before its token or body is looked at: a
//!   refused beat must cost far less than an accepted one. A player loses nothing by it, its next beat says more.
//! - A connection beyond the cap is closed as soon as it is accepted ([`crate::accept`]).
//! - What the store refuses is handed on.
//!
//! Players spread their next attempt over `Retry-After × (1 + random 0…1)`.

use crate::problem::Problem;
use playhead_engine::{Lane, Permit, Refusal, StoreError};

/// One beat: the next one replaces this one anyway.
pub(crate) const RETRY_OVERLOADED_SECONDS: u32 = 4;
/// A disk without room or a store that is down needs longer.
pub(crate) const RETRY_UNAVAILABLE_SECONDS: u32 = 10;
/// One beat.
pub(crate) const RETRY_UNKNOWN_SECONDS: u32 = 4;

/// A place for one heartbeat, before anything else is done for it.
pub(crate) fn admit(lane: &Lane) -> Result<Permit, Problem> {
    lane.admit().map_err(|refusal| StoreError::Refused(refusal).into())
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Refused(Refusal::Busy) => Problem::Overloaded,
            StoreError::Refused(Refusal::NoSpace | Refusal::Unavailable) | StoreError::Fatal => {
                Problem::StorageUnavailable
            }
            StoreError::Unknown => Problem::OutcomeUnknown,
        }
    }
}
