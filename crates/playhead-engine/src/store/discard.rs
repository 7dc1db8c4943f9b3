//! Keeps nothing: `--store discard`, which measures what storing costs. Every write is settled with `Ok` at once, on
//! the worker's own thread; every read finds nothing.

use super::scan::Scan;
use super::{Condition, Group, Store, StoreError};
use crate::metrics::StoreMetrics;
use futures_util::future::{self, BoxFuture, FutureExt};
use playhead_core::{Bookmark, MovieId, UserId};

/// The store that is none.
#[derive(Debug, Default)]
pub struct Discard {
    condition: Condition,
    metrics: StoreMetrics,
}

impl Store for Discard {
    fn commit(&self, group: Group) {
        group.settle(Ok(()));
    }

    fn bookmarks(
        &self,
        _user: UserId,
        movies: Vec<MovieId>,
    ) -> BoxFuture<'static, Result<Vec<Option<Bookmark>>, StoreError>> {
        future::ready(Ok(vec![None; movies.len()])).boxed()
    }

    fn titles(&self, _user: UserId) -> BoxFuture<'static, Result<Vec<Bookmark>, StoreError>> {
        future::ready(Ok(Vec::new())).boxed()
    }

    fn scan(&self, _from: Option<UserId>) -> Scan {
        Scan::on_a_thread(true, |_| Ok(()))
    }

    fn condition(&self) -> &Condition {
        &self.condition
    }

    fn metrics(&self) -> &StoreMetrics {
        &self.metrics
    }

    fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
