//! The embedded store: an own log and a table in memory, in front of a fjall base on disk.

#[cfg_attr(not(test), expect(dead_code, reason = "not yet wired"))]
mod base;
#[cfg_attr(not(test), expect(dead_code, reason = "not yet wired"))]
mod drain;
#[cfg_attr(not(test), expect(dead_code, reason = "not yet wired"))]
mod memtable;
#[cfg(test)]
#[cfg(feature = "model-check")]
mod model_check;
#[cfg_attr(not(test), expect(dead_code, reason = "not yet wired"))]
mod read;
mod sync;
#[cfg_attr(not(test), expect(dead_code, reason = "not yet wired"))]
mod tables;
#[cfg(test)]
mod testing;

use crate::metrics::StoreMetrics;
use crate::store::{Condition, Group, Store, StoreError};
use futures_util::future::BoxFuture;
use playhead_core::{Bookmark, Clock, MovieId, UserId};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How to open an embedded store; [`EmbeddedOptions::at`] gives the defaults.
#[derive(Debug, Clone)]
pub struct EmbeddedOptions {
    /// The data directory; made if it is not there.
    pub directory: PathBuf,
    /// Rows not written for this long are neither shown nor kept; `None` keeps them for ever.
    pub retention: Option<Duration>,
    /// How late an item may be: barriers live a day longer.
    pub max_item_age: Duration,
    /// The size of a log segment.
    pub segment_bytes: u64,
    /// The log written since the last freeze at which the memtable is frozen.
    pub freeze_bytes: u64,
    /// The memtable's size at which it is frozen.
    pub memtable_bytes: usize,
    /// Free space below which writes are refused.
    pub disk_reserve_bytes: u64,
    /// The base's block cache.
    pub block_cache_bytes: u64,
    /// How long the committer waits for more groups before it writes a frame that is not full.
    pub commit_window: Duration,
}

impl EmbeddedOptions {
    /// The defaults, in this directory.
    #[must_use]
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            retention: None,
            max_item_age: Duration::from_secs(30 * 86_400),
            segment_bytes: 64 << 20,
            freeze_bytes: 256 << 20,
            memtable_bytes: 256 << 20,
            disk_reserve_bytes: 1 << 30,
            block_cache_bytes: 64 << 20,
            commit_window: Duration::ZERO,
        }
    }
}

/// What keeps a store from opening, in words for the person who starts it. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// To be replaced.
    #[error("not yet")]
    NotYet,
}

/// Placeholder.
pub struct Embedded;

impl Embedded {
    /// Opens.
    ///
    /// # Errors
    /// Always.
    pub fn open(_options: EmbeddedOptions, _clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        Err(OpenError::NotYet)
    }
}
impl Store for Embedded {
    fn commit(&self, _group: Group) {}
    fn bookmarks(
        &self,
        _user: UserId,
        _movies: Vec<MovieId>,
    ) -> BoxFuture<'static, Result<Vec<Option<Bookmark>>, StoreError>> {
        unreachable!()
    }
    fn titles(&self, _user: UserId) -> BoxFuture<'static, Result<Vec<Bookmark>, StoreError>> {
        unreachable!()
    }
    fn condition(&self) -> &Condition {
        unreachable!()
    }
    fn metrics(&self) -> &StoreMetrics {
        unreachable!()
    }
    fn close(&self) -> Result<(), StoreError> {
        unreachable!()
    }
}
