//! How many files and sockets this process may have open, and how many of those are left for connections.
//!
//! **The promise.** However many clients connect, the store can open its files: a log segment that can't be opened
//! would be a write that fails, and end the process.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Kept from connections: what the base has open at most, the log's few, the operators' connections.
const KEPT: u64 = 1024;

/// Raises the limit as far as this process may, and gives back how many connections it leaves room for.
pub(crate) fn left_for_connections() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Where it may not be raised, the limit that is counts.
    let _ = setrlimit(Resource::Nofile, limit);
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, left_of)
}

/// What is left of so many: where they are few, half.
fn left_of(available: u64) -> usize {
    usize::try_from(available - KEPT.min(available / 2)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::left_of;

    #[test]
    fn the_store_keeps_its_share() {
        for (available, left) in [(0, 0), (1, 1), (256, 128), (1024, 512), (2048, 1024), (100_000, 98_976)] {
            assert_eq!(left_of(available), left, "of {available}");
        }
    }
}
