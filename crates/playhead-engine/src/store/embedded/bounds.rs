//! The embedded store's part of the list of bounds that are no setting.

use super::base::L0_TABLES_MAX;
use super::committer::MAILBOX_WRITES_MAX;
use super::read::{READ_THREADS, READS_QUEUED_MAX, SURPLUS_MAX};
use crate::bounds::Bound;

pub(crate) const BOUNDS: [Bound; 5] = [
    Bound::new("embedded store: writes that wait for the committer", MAILBOX_WRITES_MAX, "503 overloaded"),
    Bound::new("embedded store: reads that wait for a thread", READS_QUEUED_MAX, "503 overloaded"),
    Bound::new("embedded store: threads that read the disk", READ_THREADS, "reads wait"),
    Bound::new(
        "embedded store: titles beyond a list's end, noted for the next drain",
        SURPLUS_MAX,
        "noted when listed again",
    ),
    Bound::new("embedded store: tables in the base's first level", L0_TABLES_MAX, "a drain waits for compaction"),
];
