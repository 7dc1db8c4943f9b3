//! The result of a run: what it means, its JSON, and how the results of several processes become one.
//!
//! **The schema** is `playhead-load/1`: names carry their units, histograms are lists of pairs (microseconds, count), and
//! nothing that stands in it changes its meaning without a new number.
//!
//! **VALID** is a run whose figures are the server's: the generator's own lag has a p99 of at most 10 ms, and it sent at
//! least 99.9 % of what was due. A run that is valid may still miss an objective: a failed request, or a p99 above the
//! one asked for.

use crate::measure::Measured;
use crate::plan::Plan;
use crate::run::Finished;
use crate::verify::Verification;
use hdrhistogram::{Counter, Histogram};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// The name of the schema, and its version.
pub const SCHEMA: &str = "playhead-load/1";

/// Above this the generator was late itself.
const LAG_MS_P99_MAX: f64 = 10.0;

/// Below this share of what was due the generator did not do its work.
const ACHIEVED_MIN: f64 = 0.999;

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// Viewers.
    pub streamers: u64,
    /// From one heartbeat to the next.
    pub interval_s: f64,
    /// Connections.
    pub connections: u64,
    /// Length of the run.
    pub duration_s: f64,
    /// Threads of the generator.
    pub workers: u64,
    /// `http/1.1` or `http/2`.
    pub protocol: String,
    /// `open`: by a schedule, `closed`: as fast as answers come.
    #[serde(rename = "loop")]
    pub kind_of_loop: String,
    /// `viewers` or `steady`.
    pub profile: String,
    /// What behaviour was drawn from.
    pub seed: u64,
    /// The user of the first streamer.
    pub first_user: i64,
}

/// Some numbers that tell of many.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// How many.
    pub count: u64,
    /// Milliseconds.
    pub mean: f64,
    /// Half are at most this.
    pub p50: f64,
    /// 9 of 10.
    pub p90: f64,
    /// 99 of 100.
    pub p99: f64,
    /// 999 of 1,000.
    pub p999: f64,
    /// The largest.
    pub max: f64,
}

/// Pairs of a value in microseconds and how often it was.
pub type Pairs = Vec<(u64, u64)>;

/// The run in slots of equal length.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Timeline {
    /// Seconds of a slot.
    pub slot_s: u64,
    /// Heartbeats due in each.
    pub offered: Vec<u64>,
    /// Heartbeats sent in each.
    pub sent: Vec<u64>,
    /// 204s in each.
    pub acknowledged: Vec<u64>,
    /// Other ends in each.
    pub failed: Vec<u64>,
    /// Latencies by the slot of the intended time.
    pub latency_us: Vec<Pairs>,
}

/// What the generator itself cost.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Generator {
    /// User and system.
    pub cpu_s: f64,
    /// For each heartbeat and read.
    pub cpu_us_per_request: f64,
    /// The most memory it ever held.
    pub memory_peak_bytes: u64,
    /// Processes that were merged.
    pub processes: u64,
}

/// A run's result.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// Of the generator.
    pub version: String,
    /// Seconds since 1970.
    pub started_at_s: u64,
    /// The server.
    pub target: String,
    /// What was asked for.
    pub asked: Asked,
    /// Whether the figures are the server's.
    pub is_valid: bool,
    /// Why not.
    pub invalid_because: Vec<String>,
    /// What was missed in a run that is valid.
    pub objectives_missed: Vec<String>,
    /// Why it ended before its time.
    pub stopped: Option<String>,
    /// For how long heartbeats were sent.
    pub elapsed_s: f64,
    /// Heartbeats that were due.
    pub offered: u64,
    /// Heartbeats sent.
    pub sent: u64,
    /// 204s.
    pub acknowledged: u64,
    /// Due while the one before was unanswered; the next one sent stood for it.
    pub superseded: u64,
    /// Not sent because the server asked to wait.
    pub held: u64,
    /// Reads answered.
    pub reads: u64,
    /// Requests that ended otherwise.
    pub failed: u64,
    /// How.
    pub failures: BTreeMap<String, u64>,
    /// Heartbeats that waited for a free connection.
    pub waited_for_connection: u64,
    /// Connections made again.
    pub reconnects: u64,
    /// Attempts to make one that failed.
    pub connects_failed: u64,
    /// Heartbeats due a second.
    pub offered_per_s: f64,
    /// 204s a second.
    pub acknowledged_per_s: f64,
    /// From the intended time to the 204.
    pub latency_ms: Spread,
    /// From the intended time to a 503 or 429.
    pub shed_ms: Spread,
    /// From a read to its answer.
    pub reads_ms: Spread,
    /// The generator's own.
    pub lag_ms: Spread,
    /// What the generator cost.
    pub generator: Generator,
    /// What reading back has found, if that was asked for.
    pub verification: Option<Verification>,
    /// Lost or invented positions that were found during the run.
    pub faults: Vec<String>,
    /// The run over time.
    pub timeline: Timeline,
    /// All latencies.
    pub latency_histogram_us: Pairs,
    /// Of sheds.
    pub shed_histogram_us: Pairs,
    /// Of reads.
    pub reads_histogram_us: Pairs,
    /// Of the lag.
    pub lag_histogram_us: Pairs,
}

/// Results that can't be merged.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// Nothing to merge.
    #[error("no result to merge: name the JSON files of two runs or more")]
    Nothing,
    /// Another schema.
    #[error("a result has the schema {0:?}, not {SCHEMA}: merge results of one version")]
    Schema(String),
    /// Different kinds of run.
    #[error("the results are of runs of different kinds: merge runs of one --interval, --duration, protocol and loop")]
    Kind,
    /// The same viewers.
    #[error("two results have the same --first-user: give each process viewers of its own")]
    Viewers,
}

fn float(count: u64) -> f64 {
    count as f64
}

fn per(amount: f64, of: f64) -> f64 {
    if of > 0.0 { amount / of } else { 0.0 }
}

/// What a histogram of microseconds says, in milliseconds.
#[must_use]
pub fn spread<T: Counter>(histogram: &Histogram<T>) -> Spread {
    if histogram.is_empty() {
        return Spread::default();
    }
    let ms = |share: f64| float(histogram.value_at_quantile(share)) / 1_000.0;
    Spread {
        count: histogram.len(),
        mean: histogram.mean() / 1_000.0,
        p50: ms(0.5),
        p90: ms(0.9),
        p99: ms(0.99),
        p999: ms(0.999),
        max: float(histogram.max()) / 1_000.0,
    }
}

fn pairs<T: Counter>(histogram: &Histogram<T>) -> Pairs {
    histogram.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value().as_u64())).collect()
}

/// The histogram of such pairs.
#[must_use]
pub fn of_pairs(pairs: &[(u64, u64)]) -> Histogram<u64> {
    let mut histogram = Histogram::new(3).expect("three digits are allowed");
    for (value, count) in pairs {
        // It grows by itself.
        let _ = histogram.record_n(*value, *count);
    }
    histogram
}

impl Asked {
    fn of(plan: &Plan) -> Self {
        Self {
            streamers: u64::from(plan.streamers),
            interval_s: plan.interval.as_secs_f64(),
            connections: u64::from(plan.connections),
            duration_s: plan.duration.as_secs_f64(),
            workers: u64::from(plan.workers),
            protocol: if plan.http2 { "http/2" } else { "http/1.1" }.to_owned(),
            kind_of_loop: if plan.saturate { "closed" } else { "open" }.to_owned(),
            profile: if plan.steady || plan.saturate { "steady" } else { "viewers" }.to_owned(),
            seed: plan.seed,
            first_user: plan.first_user,
        }
    }
}

impl Report {
    /// The report of a run. `started_at_s` is the wall clock at its start, `p99_max` an objective.
    #[must_use]
    pub fn new(
        plan: &Plan,
        finished: &Finished,
        verification: Option<Verification>,
        started_at_s: u64,
        p99_max: Option<Duration>,
    ) -> Self {
        let measured = &finished.measured;
        let requests = measured.sent + measured.reads;
        let mut report = Self {
            schema: SCHEMA.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at_s,
            target: format!("http://{}", plan.target.host),
            asked: Asked::of(plan),
            is_valid: true,
            invalid_because: Vec::new(),
            objectives_missed: Vec::new(),
            stopped: finished.stop.as_ref().map(ToString::to_string),
            elapsed_s: finished.elapsed.as_secs_f64(),
            offered: measured.offered,
            sent: measured.sent,
            acknowledged: measured.acknowledged,
            superseded: measured.superseded,
            held: measured.held,
            reads: measured.reads,
            failed: measured.failed(),
            failures: BTreeMap::new(),
            waited_for_connection: measured.waited,
            reconnects: measured.reconnects,
            connects_failed: measured.connects_failed,
            offered_per_s: 0.0,
            acknowledged_per_s: 0.0,
            latency_ms: spread(&measured.latency_us),
            shed_ms: spread(&measured.shed_us),
            reads_ms: spread(&measured.reads_us),
            lag_ms: spread(&measured.lag_us),
            generator: Generator {
                cpu_s: finished.cpu.as_secs_f64(),
                cpu_us_per_request: per(finished.cpu.as_secs_f64() * 1e6, float(requests)),
                memory_peak_bytes: memory_peak_bytes(),
                processes: 1,
            },
            verification,
            faults: measured.faults.clone(),
            timeline: timeline(measured),
            latency_histogram_us: pairs(&measured.latency_us),
            shed_histogram_us: pairs(&measured.shed_us),
            reads_histogram_us: pairs(&measured.reads_us),
            lag_histogram_us: pairs(&measured.lag_us),
        };
        for (failure, count) in &measured.failures {
            *report.failures.entry(failure.label()).or_default() += count;
        }
        report.judge(p99_max);
        report
    }

    /// Says what the figures are worth.
    fn judge(&mut self, p99_max: Option<Duration>) {
        self.offered_per_s = per(float(self.offered), self.elapsed_s);
        self.acknowledged_per_s = per(float(self.acknowledged), self.elapsed_s);
        self.invalid_because.clear();
        self.objectives_missed.clear();
        if self.lag_ms.p99 > LAG_MS_P99_MAX {
            let lag = self.lag_ms.p99;
            self.invalid_because.push(format!("the generator lagged: p99 {lag:.1} ms, above {LAG_MS_P99_MAX} ms"));
        }
        let achieved = per(float(self.sent), float(self.offered));
        if self.offered > 0 && achieved < ACHIEVED_MIN {
            let (sent, due) = (self.sent, self.offered);
            self.invalid_because.push(format!("{sent} of {due} heartbeats were sent ({:.2} %)", 100.0 * achieved));
        }
        self.is_valid = self.invalid_because.is_empty();
        if self.failed > 0 {
            let how: Vec<String> = self.failures.iter().map(|(how, count)| format!("{how}: {count}")).collect();
            self.objectives_missed.push(format!("{} requests failed ({})", self.failed, how.join(", ")));
        }
        if let Some(most) = p99_max
            && self.latency_ms.p99 > most.as_secs_f64() * 1_000.0
        {
            self.objectives_missed.push(format!("p99 is {:.1} ms, above {most:?}", self.latency_ms.p99));
        }
    }

    /// The exit code: 4 for a lost or wrong position, 1 for a run that was cut short or could not be read back, 3 for one
    /// that is not valid or missed an objective.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        let is_kept = self.verification.as_ref().is_none_or(Verification::is_kept) && self.faults.is_empty();
        let is_unread = self.verification.as_ref().is_some_and(|found| found.unreadable > 0);
        match () {
            () if !is_kept => 4,
            () if self.stopped.is_some() || is_unread => 1,
            () if !self.is_valid || !self.objectives_missed.is_empty() => 3,
            () => 0,
        }
    }

    /// Makes one of the results of several processes that ran side by side.
    ///
    /// # Errors
    /// If they do not belong together.
    pub fn merge(reports: Vec<Self>) -> Result<Self, MergeError> {
        let mut reports = reports.into_iter();
        let mut all = reports.next().ok_or(MergeError::Nothing)?;
        if all.schema != SCHEMA {
            return Err(MergeError::Schema(all.schema));
        }
        let mut viewers = vec![(all.asked.first_user, all.asked.streamers)];
        for report in reports {
            if report.schema != SCHEMA {
                return Err(MergeError::Schema(report.schema));
            }
            let (ours, theirs) = (&all.asked, &report.asked);
            let kind = |asked: &Asked| {
                (asked.interval_s, asked.duration_s, asked.protocol.clone(), asked.kind_of_loop.clone())
            };
            if kind(ours) != kind(theirs) || all.timeline.slot_s != report.timeline.slot_s {
                return Err(MergeError::Kind);
            }
            let range = |(first, count): (i64, u64)| (first - count.cast_signed() + 1, first);
            let (low, high) = range((theirs.first_user, theirs.streamers));
            if viewers.iter().any(|known| range(*known).0 <= high && low <= range(*known).1) {
                return Err(MergeError::Viewers);
            }
            viewers.push((theirs.first_user, theirs.streamers));
            all.add(report);
        }
        all.judge(None);
        Ok(all)
    }

    fn add(&mut self, other: Self) {
        self.asked.streamers += other.asked.streamers;
        self.asked.connections += other.asked.connections;
        self.asked.workers += other.asked.workers;
        self.stopped = self.stopped.take().or(other.stopped);
        self.elapsed_s = self.elapsed_s.max(other.elapsed_s);
        self.offered += other.offered;
        self.sent += other.sent;
        self.acknowledged += other.acknowledged;
        self.superseded += other.superseded;
        self.held += other.held;
        self.failed += other.failed;
        for (failure, count) in other.failures {
            *self.failures.entry(failure).or_default() += count;
        }
        self.waited_for_connection += other.waited_for_connection;
        self.reconnects += other.reconnects;
        self.connects_failed += other.connects_failed;
        self.reads += other.reads;
        let merged = |ours: &mut Pairs, theirs: &Pairs| {
            let mut histogram = of_pairs(ours);
            // Both grow by themselves.
            let _ = histogram.add(of_pairs(theirs));
            *ours = pairs(&histogram);
            spread(&histogram)
        };
        self.latency_ms = merged(&mut self.latency_histogram_us, &other.latency_histogram_us);
        self.shed_ms = merged(&mut self.shed_histogram_us, &other.shed_histogram_us);
        self.reads_ms = merged(&mut self.reads_histogram_us, &other.reads_histogram_us);
        self.lag_ms = merged(&mut self.lag_histogram_us, &other.lag_histogram_us);
        self.generator.cpu_s += other.generator.cpu_s;
        self.generator.cpu_us_per_request = per(self.generator.cpu_s * 1e6, float(self.sent + self.reads));
        self.generator.memory_peak_bytes += other.generator.memory_peak_bytes;
        self.generator.processes += other.generator.processes;
        self.faults.extend(other.faults);
        match (&mut self.verification, other.verification) {
            (Some(ours), Some(theirs)) => ours.add(theirs),
            // One that was not read back leaves the whole unproven.
            (ours, _) => *ours = None,
        }
        let later = other.started_at_s.saturating_sub(self.started_at_s) / self.timeline.slot_s.max(1);
        self.timeline.add(&other.timeline, usize::try_from(later).unwrap_or_default());
    }
}

impl Timeline {
    /// Adds another that began so many slots later.
    fn add(&mut self, other: &Self, later: usize) {
        let length = self.offered.len().max(other.offered.len() + later);
        for (ours, theirs) in [
            (&mut self.offered, &other.offered),
            (&mut self.sent, &other.sent),
            (&mut self.acknowledged, &other.acknowledged),
            (&mut self.failed, &other.failed),
        ] {
            ours.resize(length, 0);
            ours[later..].iter_mut().zip(theirs).for_each(|(ours, theirs)| *ours += theirs);
        }
        self.latency_us.resize(length, Vec::new());
        for (ours, theirs) in self.latency_us[later..].iter_mut().zip(&other.latency_us) {
            let mut histogram = of_pairs(ours);
            let _ = histogram.add(of_pairs(theirs));
            *ours = pairs(&histogram);
        }
    }
}

fn timeline(measured: &Measured) -> Timeline {
    let slots = &measured.slots;
    Timeline {
        slot_s: measured.slot.as_secs(),
        offered: slots.iter().map(|slot| u64::from(slot.offered)).collect(),
        sent: slots.iter().map(|slot| u64::from(slot.sent)).collect(),
        acknowledged: slots.iter().map(|slot| u64::from(slot.acknowledged)).collect(),
        failed: slots.iter().map(|slot| u64::from(slot.failed)).collect(),
        latency_us: slots.iter().map(|slot| pairs(&slot.latency_us)).collect(),
    }
}

/// The most memory that this process ever held; 0 where the system does not say.
#[must_use]
pub fn memory_peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|count| count.parse::<u64>().ok());
    kibibytes.unwrap_or_default() * 1_024
}

#[cfg(test)]
mod tests;
