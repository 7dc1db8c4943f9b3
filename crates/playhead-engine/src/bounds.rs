//! The bounds that are no setting, in one list for the reference of the configuration.

use crate::Limits;
use crate::lane::GROUP_WRITES_MAX;
use crate::store::TITLES_LISTED_MAX;
#[cfg(feature = "cassandra")]
use crate::store::cassandra;
use crate::store::embedded;

/// A bound that is built in.
#[derive(Debug, Clone, Copy)]
pub struct Bound {
    /// What is bounded.
    pub what: &'static str,
    /// By how much, in the unit that `what` names.
    pub bound: u64,
    /// What happens at it.
    pub then: &'static str,
}

impl Bound {
    /// A row of the list.
    #[must_use]
    pub const fn new(what: &'static str, bound: usize, then: &'static str) -> Self {
        Self { what, bound: bound as u64, then }
    }
}

/// All of the engine's.
#[must_use]
pub fn bounds() -> Vec<Bound> {
    let limits = Limits::default();
    let mut bounds = vec![
        Bound::new("batches and forgets handed to the store and not settled", limits.handle_groups, "503 overloaded"),
        Bound::new("writes of one group, which a worker hands to the store", GROUP_WRITES_MAX, "the next group begins"),
        Bound::new("titles that a user's list shows", TITLES_LISTED_MAX, "the oldest are dropped"),
    ];
    bounds.extend(embedded::bounds::BOUNDS);
    #[cfg(feature = "cassandra")]
    bounds.extend([
        Bound::new("Cassandra: rows under way to one node", cassandra::window::SIZE_MAX, "they wait"),
        Bound::new("Cassandra: reads under way", cassandra::READS_MAX, "503 overloaded"),
    ]);
    bounds
}
