//! When rows and barriers expire, for reads and for the compaction that takes them off the disk.
//!
//! Rows past the retention and barriers past their life are not shown, and leave the disk when compaction meets them:
//! as a tombstone, because anything weaker would bring back an older version of the key, for a forget barrier the very
//! row that was forgotten. Values that do not decode are kept for [`super::Base::verify`] to find.

use super::BaseOptions;
use super::layout::{BaseTitle, Key, decode_erasure};
use fjall::compaction::filter::{CompactionFilter, CompactionFilterResult, Context, Factory, ItemAccessor, Verdict};
use playhead_core::{Bookmark, Clock, WriteTime};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

/// When rows and barriers expire.
#[derive(Clone)]
pub(crate) struct Expiry {
    retention: Option<Duration>,
    barrier_life: Duration,
    clock: Arc<dyn Clock>,
}

/// What has expired as of one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ExpiryFilter {
    rows_after: Option<WriteTime>,
    barriers_after: WriteTime,
}

impl Expiry {
    /// As the options say.
    pub(crate) fn new(options: &BaseOptions) -> Self {
        let BaseOptions { retention, barrier_life, ref clock, .. } = *options;
        Self { retention, barrier_life, clock: Arc::clone(clock) }
    }

    /// As of now.
    pub(crate) fn filter(&self) -> ExpiryFilter {
        self.filter_at(self.clock.now())
    }

    /// As of `now`.
    pub(crate) fn filter_at(&self, now: WriteTime) -> ExpiryFilter {
        ExpiryFilter {
            rows_after: self.retention.map(|retention| now.before(retention)),
            barriers_after: now.before(self.barrier_life),
        }
    }
}

impl ExpiryFilter {
    /// Whether the row is still shown.
    pub(crate) fn keeps_row(&self, row: &Bookmark) -> bool {
        self.rows_after.is_none_or(|after| row.write_time > after)
    }

    /// Whether the barrier still bars.
    pub(crate) fn keeps_barrier(&self, write_time: WriteTime) -> bool {
        write_time > self.barriers_after
    }

    /// Whether what is known of a title still counts.
    pub(crate) fn keeps_title(&self, title: &BaseTitle) -> bool {
        match title {
            BaseTitle::Row(row) => self.keeps_row(row),
            BaseTitle::Forgotten(write_time) => self.keeps_barrier(*write_time),
        }
    }

    /// What compaction asks; whatever does not decode is kept.
    pub(super) fn keeps(&self, key: &[u8], value: &[u8]) -> bool {
        match Key::decode(key) {
            Ok(Key::Title(user, movie)) => {
                BaseTitle::decode(user, movie, value).map_or(true, |title| self.keeps_title(&title))
            }
            Ok(Key::Erasure(user)) => decode_erasure(user, value).map_or(true, |time| self.keeps_barrier(time)),
            Ok(Key::Mark) | Err(_) => true,
        }
    }
}

/// Gives each compaction a filter as of its beginning.
pub(super) struct ExpiryFactory(pub(super) AssertUnwindSafe<Expiry>);

impl Factory for ExpiryFactory {
    fn name(&self) -> &str {
        "expiry"
    }

    fn make_filter(&self, _: &Context) -> Box<dyn CompactionFilter> {
        Box::new(self.0.filter())
    }
}

impl CompactionFilter for ExpiryFilter {
    fn filter_item(&mut self, item: ItemAccessor<'_>, _: &Context) -> CompactionFilterResult {
        Ok(if self.keeps(item.key(), &item.value()?) { Verdict::Keep } else { Verdict::Remove })
    }
}
