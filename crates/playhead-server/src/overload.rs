//! Who is turned away, when, and for how long.
//!
//! - A heartbeat beyond its worker's bound on writes in flight is *shed* before its token or body is looked at: a
//!   refused beat must cost far less than an accepted one. A player loses nothing by it, its next beat says more. Its
//!   place is taken once its body is here, when it may be shed after all: nobody holds a place by being slow.
//! - So is a client batch beyond its worker's bound ([`BatchPlace`]): its body is long, so few are held at once.
//! - A connection beyond the cap is closed as soon as it is accepted ([`crate::accept`]).
//! - What the store refuses is handed on. Who asks too often is another matter: [`crate::throttle`].
//!
//! Players spread their next attempt over `Retry-After × (1 + random 0…1)`.

use crate::problem::Problem;
use playhead_engine::{Lane, Permit, Refusal, StoreError};
use std::cell::Cell;

/// One beat: the next one replaces this one anyway.
pub(crate) const RETRY_OVERLOADED_SECONDS: u32 = 4;
/// A disk without room or a store that is down needs longer.
pub(crate) const RETRY_UNAVAILABLE_SECONDS: u32 = 10;
/// One beat.
pub(crate) const RETRY_UNKNOWN_SECONDS: u32 = 4;

/// Refuses a heartbeat that would find no place now, before anything else is done for it.
pub(crate) fn shed_if_full(lane: &Lane) -> Result<(), Problem> {
    if lane.is_full() { Err(StoreError::Refused(Refusal::Busy).into()) } else { Ok(()) }
}

/// A place for one heartbeat that is here.
pub(crate) fn admit(lane: &Lane) -> Result<Permit, Problem> {
    lane.admit().map_err(|refusal| StoreError::Refused(refusal).into())
}

/// Client batches under way on one worker, of 128 KiB each at most: 32 MiB.
pub(crate) const BATCHES_MAX: usize = 256;

/// A place for one client batch, from before its token is looked at to its outcome.
pub(crate) struct BatchPlace<'a>(&'a Cell<usize>);

impl<'a> BatchPlace<'a> {
    /// Takes one of the worker's places, of which so many are taken.
    pub(crate) fn take(taken: &'a Cell<usize>) -> Result<Self, Problem> {
        if taken.get() >= BATCHES_MAX {
            return Err(Problem::Overloaded);
        }
        taken.set(taken.get() + 1);
        Ok(Self(taken))
    }
}

impl Drop for BatchPlace<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_beyond_the_bound_is_shed_until_one_has_ended() {
        let taken = Cell::new(0);
        let mut places: Vec<_> = (0..BATCHES_MAX).map(|_| BatchPlace::take(&taken).ok().unwrap()).collect();
        assert_eq!(BatchPlace::take(&taken).err(), Some(Problem::Overloaded));
        places.pop();
        assert!(BatchPlace::take(&taken).is_ok());
        drop(places);
        assert_eq!(taken.get(), 0);
    }
}
