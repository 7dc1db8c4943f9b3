//! What a run counts: latencies, the generator's own lag, outcomes, and all of it over time.
//!
//! Each worker has its own and they are added up at the end, so nothing is shared while the clock runs. Latencies go
//! into HDR histograms of microseconds. Time is cut into at most [`SLOTS_MAX`] slots, whatever the duration.

use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::time::Duration;

/// The most points of a plot over time.
const SLOTS_MAX: usize = 900;

/// The longest latency that is told from a longer one.
const LATENCY_US_MAX: u64 = 3_600_000_000;

/// What became of a request that was not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// The connection ended before a whole answer.
    Closed,
    /// No answer in time.
    TimedOut,
    /// What came back was not HTTP.
    Garbled,
    /// 503 or 429: surely not stored.
    Shed(u16),
    /// 503 outcome-unknown: perhaps stored.
    OutcomeUnknown,
    /// Any other status.
    Status(u16),
}

impl Failure {
    /// A word for it, as it stands in results.
    #[must_use]
    pub fn label(self) -> String {
        match self {
            Self::Closed => "closed".to_owned(),
            Self::TimedOut => "timed_out".to_owned(),
            Self::Garbled => "garbled".to_owned(),
            Self::Shed(status) | Self::Status(status) => status.to_string(),
            Self::OutcomeUnknown => "503_outcome_unknown".to_owned(),
        }
    }
}

/// A piece of the run's time.
#[derive(Debug, Clone)]
pub struct Slot {
    /// Heartbeats whose intended time lies in it.
    pub offered: u32,
    /// Heartbeats sent in it.
    pub sent: u32,
    /// 204s received in it.
    pub acknowledged: u32,
    /// Other ends of requests in it.
    pub failed: u32,
    /// Latencies of the acknowledged heartbeats whose intended time lies in it.
    pub latency_us: Histogram<u32>,
}

/// Everything that one worker, or all of them, counted.
#[derive(Debug, Clone)]
pub struct Measured {
    /// From the intended time to the 204.
    pub latency_us: Histogram<u64>,
    /// From the intended time to a 503 or 429.
    pub shed_us: Histogram<u64>,
    /// From sending a read to its answer.
    pub reads_us: Histogram<u64>,
    /// From the intended time to the moment the generator looked at it.
    pub lag_us: Histogram<u64>,
    /// Heartbeats that were due.
    pub offered: u64,
    /// Heartbeats sent.
    pub sent: u64,
    /// Heartbeats due while the one before was unanswered: the next one sent carried their place.
    pub superseded: u64,
    /// Heartbeats not sent because the server had asked to wait.
    pub held: u64,
    /// 204s.
    pub acknowledged: u64,
    /// Reads answered.
    pub reads: u64,
    /// Heartbeats that waited for a free connection.
    pub waited: u64,
    /// Connections that were made, beyond the first of each.
    pub reconnects: u64,
    /// Attempts to connect that failed, after the clock had started.
    pub connects_failed: u64,
    /// Ends other than a 204, for heartbeats and reads.
    pub failures: BTreeMap<Failure, u64>,
    /// Lost or invented positions that reads during the run found.
    pub faults: Vec<String>,
    /// The length of a slot.
    pub slot: Duration,
    /// The run's time.
    pub slots: Vec<Slot>,
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("the bounds are sound")
}

/// The length of a slot of a run that lasts so long: whole seconds.
#[must_use]
pub fn slot_of(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_secs().div_ceil(SLOTS_MAX as u64).max(1))
}

impl Measured {
    /// Nothing counted yet.
    #[must_use]
    pub fn new(slot: Duration) -> Self {
        Self {
            latency_us: histogram(),
            shed_us: histogram(),
            reads_us: histogram(),
            lag_us: histogram(),
            offered: 0,
            sent: 0,
            superseded: 0,
            held: 0,
            acknowledged: 0,
            reads: 0,
            waited: 0,
            reconnects: 0,
            connects_failed: 0,
            failures: BTreeMap::new(),
            faults: Vec::new(),
            slot,
            slots: Vec::new(),
        }
    }

    pub(crate) fn slot(&mut self, at_us: u64) -> &mut Slot {
        let slot_us = u64::try_from(self.slot.as_micros()).unwrap_or(u64::MAX);
        // A run's last answers come in after its duration, by its patience at most.
        let at = usize::try_from(at_us / slot_us).unwrap_or(usize::MAX).min(2 * SLOTS_MAX);
        if at >= self.slots.len() {
            self.slots.resize_with(at + 1, || Slot {
                offered: 0,
                sent: 0,
                acknowledged: 0,
                failed: 0,
                latency_us: Histogram::new_with_bounds(1, LATENCY_US_MAX, 2).expect("the bounds are sound"),
            });
        }
        &mut self.slots[at]
    }

    pub(crate) fn fail(&mut self, failure: Failure, now_us: u64) {
        *self.failures.entry(failure).or_default() += 1;
        self.slot(now_us).failed += 1;
    }

    pub(crate) fn acknowledge(&mut self, intended_us: u64, now_us: u64) {
        let latency_us = now_us.saturating_sub(intended_us);
        self.latency_us.saturating_record(latency_us);
        self.slot(intended_us).latency_us.saturating_record(latency_us);
    }

    /// All ends other than a 204 or the answer to a read.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// Adds another worker's.
    ///
    /// # Panics
    /// If their slots differ in length.
    pub fn add(&mut self, other: &Self) {
        assert_eq!(self.slot, other.slot, "both are of one run");
        let same = "the bounds are the same";
        self.latency_us.add(&other.latency_us).expect(same);
        self.shed_us.add(&other.shed_us).expect(same);
        self.reads_us.add(&other.reads_us).expect(same);
        self.lag_us.add(&other.lag_us).expect(same);
        self.offered += other.offered;
        self.sent += other.sent;
        self.superseded += other.superseded;
        self.held += other.held;
        self.acknowledged += other.acknowledged;
        self.reads += other.reads;
        self.waited += other.waited;
        self.reconnects += other.reconnects;
        self.connects_failed += other.connects_failed;
        for (failure, count) in &other.failures {
            *self.failures.entry(*failure).or_default() += count;
        }
        self.faults.extend(other.faults.iter().cloned());
        let slot_us = u64::try_from(self.slot.as_micros()).unwrap_or(u64::MAX);
        for (at, theirs) in (0..).zip(&other.slots) {
            let ours = self.slot(at * slot_us);
            ours.offered += theirs.offered;
            ours.sent += theirs.sent;
            ours.acknowledged += theirs.acknowledged;
            ours.failed += theirs.failed;
            ours.latency_us.add(&theirs.latency_us).expect(same);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_few_and_workers_add_up() {
        for (seconds, slot) in [(1, 1), (900, 1), (901, 2), (86_400, 96)] {
            assert_eq!(slot_of(Duration::from_secs(seconds)), Duration::from_secs(slot));
        }
        let mut all = Measured::new(Duration::from_secs(1));
        for worker in 0..2_u64 {
            let mut own = Measured::new(Duration::from_secs(1));
            own.acknowledge(500_000, 501_000 + worker * 1_000_000);
            own.fail(Failure::Closed, 3_000_000);
            all.add(&own);
        }
        assert_eq!((all.latency_us.len(), all.failed(), all.slots.len()), (2, 2, 4));
        assert_eq!((all.slots[0].latency_us.len(), all.slots[3].failed), (2, 2));
        assert!((990_000..1_010_000).contains(&all.latency_us.max()), "{}", all.latency_us.max());
    }
}
