//! Every metric: what the workers count, and the public name of it and of all that the store counts.
//!
//! **How.** Each worker counts into its own [`WorkerMetrics`], with plain loads and stores; a scrape of `/metrics` adds
//! them up. No metric carries a user or a title.

use crate::problem::{STATUSES, status_name};
use crate::routes::Route;
use playhead_engine::metrics::{Counter, Histogram};
use playhead_engine::{Engine, Health};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// What one worker counts. Only its thread writes, but for [`connections`](Self::connections).
#[derive(Default)]
pub(crate) struct WorkerMetrics {
    requests: [[Counter; STATUSES.len() + 1]; Route::ALL.len()],
    request_time: [Histogram; Route::ALL.len()],
    pub(crate) shed: Counter,
    pub(crate) items_too_old: Counter,
    pub(crate) token_hits: Counter,
    pub(crate) token_misses: Counter,
    pub(crate) tokens_remembered: Counter,
    pub(crate) writes_in_flight: Counter,
    pub(crate) connections_timed_out: Counter,
    /// Open connections, those on their way to the worker included.
    pub(crate) connections: Gauge,
}

impl WorkerMetrics {
    /// Counts an answer; `status_slot` is where its status is counted.
    pub(crate) fn answered(&self, route: Route, status_slot: usize, time: Duration) {
        self.requests[route as usize][status_slot].add_alone(1);
        self.request_time[route as usize].record_time(time);
    }
}

/// What the accepting task counts.
#[derive(Default)]
pub(crate) struct AcceptMetrics {
    pub(crate) accepted: Counter,
    pub(crate) refused: Counter,
    pub(crate) errors: Counter,
}

/// A number that two threads move up and down.
#[derive(Default)]
pub(crate) struct Gauge(AtomicUsize);

impl Gauge {
    pub(crate) fn add(&self, n: usize) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn sub(&self, n: usize) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// All sources of metrics.
pub(crate) struct Metrics {
    pub(crate) workers: Vec<Arc<WorkerMetrics>>,
    pub(crate) accept: Arc<AcceptMetrics>,
    pub(crate) engine: Engine,
    pub(crate) version: &'static str,
}

/// The content type of [`Metrics::to_text`].
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

impl Metrics {
    /// All metrics as text.
    pub(crate) fn to_text(self: &Arc<Self>) -> String {
        let mut registry = Registry::with_prefix("playhead");
        registry.register_collector(Box::new(Arc::clone(self)));
        let mut output = String::new();
        text::encode(&mut output, &registry).expect("writing to a string does not fail");
        output
    }

    fn sum(&self, of: impl Fn(&WorkerMetrics) -> u64) -> u64 {
        self.workers.iter().map(|worker| of(worker)).sum()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Collector for Metrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        self.encode_requests(&mut page)?;
        self.encode_server(&mut page)?;
        self.encode_store(&mut page)
    }
}

impl Metrics {
    fn encode_requests(&self, page: &mut Page<'_>) -> fmt::Result {
        let mut requests =
            page.0.encode_descriptor("http_requests", "Answers, by route and status", None, MetricType::Counter)?;
        for route in Route::ALL {
            for slot in 0..=STATUSES.len() {
                let count = self.sum(|worker| worker.requests[route as usize][slot].get());
                if count > 0 {
                    let labels = [("route", route.name()), ("status", status_name(slot))];
                    requests.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
                }
            }
        }
        let help = "From a request's head to its answer, by route";
        let mut times =
            page.0.encode_descriptor("http_request_duration", help, Some(&Unit::Seconds), MetricType::Histogram)?;
        for route in Route::ALL {
            let (sum, buckets) = add_up(self.workers.iter().map(|worker| &worker.request_time[route as usize]));
            let (sum, count, buckets) = to_seconds(sum, &buckets);
            times
                .encode_family(&[("route", route.name())])?
                .encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        Ok(())
    }

    fn encode_server(&self, page: &mut Page<'_>) -> fmt::Result {
        page.counter(
            "heartbeats_shed",
            "Heartbeats refused because too many were under way",
            self.sum(|w| w.shed.get()),
        )?;
        let help = "Items of batches that were older than max_item_age, and so not stored";
        page.counter("batch_items_too_old", help, self.sum(|w| w.items_too_old.get()))?;
        page.gauge(
            "writes_in_flight",
            "Heartbeats admitted and not yet settled",
            self.sum(|w| w.writes_in_flight.get()),
        )?;
        page.gauge("connections", "Open connections", self.sum(|w| w.connections.get() as u64))?;
        page.counter("connections_accepted", "Connections accepted", self.accept.accepted.get())?;
        page.counter("connections_refused", "Connections closed at once, at the cap", self.accept.refused.get())?;
        page.counter("accept_errors", "Failed attempts to accept a connection", self.accept.errors.get())?;
        let timed_out = self.sum(|w| w.connections_timed_out.get());
        page.counter("connections_timed_out", "Connections closed because their client was slow or idle", timed_out)?;
        page.counter("token_cache_hits", "Heartbeats whose token was remembered", self.sum(|w| w.token_hits.get()))?;
        page.counter("token_cache_misses", "Heartbeats whose token was not", self.sum(|w| w.token_misses.get()))?;
        page.gauge("token_cache_entries", "Tokens remembered", self.sum(|w| w.tokens_remembered.get()))?;
        let mut build = page.0.encode_descriptor("build", "This build", None, MetricType::Info)?;
        build.encode_info(&[("version", self.version)])
    }

    fn encode_store(&self, page: &mut Page<'_>) -> fmt::Result {
        let store = self.engine.metrics();
        let health = match self.engine.condition().health() {
            Health::Ready => 2,
            Health::Degraded(_) => 1,
            Health::Unready(_) | Health::Failed(_) => 0,
        };
        page.gauge("store_health", "2 in use, 1 in use with something to look at, 0 not to be used", health)?;
        let help = "What an acknowledged write survives: 3 synced, 2 synced some seconds later, 1 unknown, 0 no word";
        let durability = self.engine.condition().durability().map_or(0, |durability| durability as u64 + 1);
        page.gauge("store_durability", help, durability)?;
        page.counter("store_records", "Records made durable", store.records.get())?;
        page.counter("store_frames", "Frames written to the log", store.frames.get())?;
        page.counter("store_log_written_bytes", "Bytes written to the log", store.log_bytes.get())?;
        page.sizes("store_frame_records", "Records per frame of the log", &store.frame_records)?;
        page.times("store_commit_duration", "From taking a frame's first group to its outcome", &store.commit_time)?;
        page.times("store_sync_duration", "One sync of the log", &store.sync_time)?;
        page.gauge("store_sync_worst_microseconds", "The slowest sync of the log", store.sync_worst_us.get())?;
        page.gauge("store_queued_writes", "Writes handed over and not yet taken", store.queued_writes.get())?;
        let help = "Groups of writes refused, by reason";
        let mut refused = page.0.encode_descriptor("store_groups_refused", help, None, MetricType::Counter)?;
        for (reason, counter) in [("busy", &store.refused_busy), ("no_space", &store.refused_no_space)] {
            let labels = [("reason", reason)];
            let mut family = refused.encode_family(&labels)?;
            family.encode_counter::<NoLabelSet, _, u64>(&counter.get(), None)?;
        }
        page.counter("store_freezes", "Freezes of the memtable", store.freezes.get())?;
        page.counter("store_drains", "Drains finished", store.drains.get())?;
        page.counter("store_drained_rows", "Rows, tombstones and barriers drained", store.drained_rows.get())?;
        page.times("store_drain_duration", "One drain of a frozen memtable", &store.drain_time)?;
        page.gauge("store_memtable_bytes", "Bytes held by the active memtable", store.memtable_bytes.get())?;
        page.gauge("store_log_segments", "Log segments not yet in the base", store.log_segments.get())?;
        page.gauge("store_base_l0_tables", "Tables in the base's first level", store.base_l0_tables.get())?;
        page.counter("store_base_read_errors", "Reads that the base could not answer", store.base_read_errors.get())?;
        page.gauge("store_reads_queued", "Reads waiting for or on the reader pool", store.reads_queued.get())?;
        let help = "Writes of which it is not known whether they were stored";
        page.counter("store_unknown_outcomes", help, store.unknown_outcomes.get())?;
        page.counter("store_repeats", "Statements sent to the cluster a second time", store.repeats.get())?;
        page.counter("store_foreign_rows", "Rows read that no Playhead has written", store.foreign_rows.get())?;
        let help = "How far this machine's clock is ahead of the median of the cluster's";
        let mut ahead = page.0.encode_descriptor("store_clock_ahead", help, Some(&Unit::Seconds), MetricType::Gauge)?;
        ahead.encode_gauge(&(store.clock_ahead_us.get() as f64 * 1e-6))
    }
}

/// Writes metrics one after the other.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        metric.encode_gauge(&value)
    }

    /// A histogram of microseconds, in seconds.
    fn times(&mut self, name: &str, help: &str, histogram: &Histogram) -> fmt::Result {
        let (sum, buckets) = histogram.read();
        let (sum, count, buckets) = to_seconds(sum, &buckets);
        let mut metric = self.0.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        metric.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn sizes(&mut self, name: &str, help: &str, histogram: &Histogram) -> fmt::Result {
        let (sum, buckets) = histogram.read();
        let (count, buckets) = with_bounds(&buckets, 1.0);
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        metric.encode_histogram::<NoLabelSet>(sum as f64, count, &buckets, None)
    }
}

type Buckets = [u64; Histogram::BUCKETS];

fn add_up<'a>(histograms: impl Iterator<Item = &'a Histogram>) -> (u64, Buckets) {
    histograms.map(Histogram::read).fold((0, Buckets::default()), |(sum, mut buckets), (more, counts)| {
        for (bucket, count) in buckets.iter_mut().zip(counts) {
            *bucket += count;
        }
        (sum + more, buckets)
    })
}

fn to_seconds(sum_us: u64, buckets: &Buckets) -> (f64, u64, Vec<(f64, u64)>) {
    let (count, buckets) = with_bounds(buckets, 1e-6);
    (sum_us as f64 * 1e-6, count, buckets)
}

/// How many there are in all, and each bucket with its upper bound.
fn with_bounds(buckets: &Buckets, unit: f64) -> (u64, Vec<(f64, u64)>) {
    let last = buckets.len() - 1;
    let bound = |index: usize| if index == last { f64::INFINITY } else { (1_u64 << index) as f64 * unit };
    (buckets.iter().sum(), buckets.iter().enumerate().map(|(index, count)| (bound(index), *count)).collect())
}
