//! Whether this machine's clock can be trusted to order writes.
//!
//! Several Playhead nodes stamp by their own clocks. One that is 5 s ahead makes the writes of the node that a viewer
//! moves to *ignored* for 5 s, so a clock that disagrees must not stamp. The judge is the **median** of the clocks of
//! the database's nodes: one of them that is wrong does not move it, and is told of.
//!
//! **The verdict.** More than [`WARN_ABOVE`] from the median: degraded. More than [`REFUSE_ABOVE`]: not ready, writes
//! are refused, reads go on. With no node to ask the last verdict stands.

use super::connection::Connection;
use super::statements;
use futures_util::future::join_all;
use playhead_core::{Clock, WriteTime};
use scylla::value::CqlTimestamp;
use std::time::Duration;

/// From here on a person should look.
pub(super) const WARN_ABOVE: Duration = Duration::from_millis(500);
/// From here on no write is stamped.
pub(super) const REFUSE_ABOVE: Duration = Duration::from_secs(2);

/// What was found of the clocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    /// How far this machine's clock is ahead of the median (below 0: behind), in microseconds.
    pub(super) ahead_us: i64,
    /// Nodes whose own clocks are off the median.
    pub(super) wrong_nodes: Vec<String>,
}

impl Verdict {
    /// Compares; `offsets` are how far each node's clock is ahead of ours, in microseconds.
    fn of(mut offsets: Vec<(String, i64)>) -> Option<Self> {
        offsets.sort_by_key(|(_, offset)| *offset);
        // Of an even number the lower one of the middle two: a real clock, not a mean that none shows.
        let (_, median) = *offsets.get(offsets.len().checked_sub(1)? / 2)?;
        let wrong = offsets.iter().filter(|(_, offset)| is_above(offset - median, WARN_ABOVE));
        Some(Self { ahead_us: -median, wrong_nodes: wrong.map(|(node, _)| node.clone()).collect() })
    }

    /// Why no write may be stamped, if so.
    pub(super) fn refusal(&self) -> Option<String> {
        is_above(self.ahead_us, REFUSE_ABOVE).then(|| self.sentence("no write is taken until it is right"))
    }

    /// What a person should look at, if anything.
    pub(super) fn warning(&self) -> Option<String> {
        if is_above(self.ahead_us, WARN_ABOVE) {
            return Some(self.sentence("see to its time service"));
        }
        (!self.wrong_nodes.is_empty()).then(|| {
            format!(
                "the clock of {} is off the median of the cluster's: see to its time service",
                self.wrong_nodes.join(", ")
            )
        })
    }

    fn sentence(&self, advice: &str) -> String {
        let (seconds, direction) = match self.ahead_us {
            behind @ ..0 => (-behind as f64 / 1e6, "behind"),
            ahead => (ahead as f64 / 1e6, "ahead of"),
        };
        format!("this machine's clock is {seconds:.1} s {direction} the median of the cluster's: {advice}")
    }
}

fn is_above(micros: i64, limit: Duration) -> bool {
    u128::from(micros.unsigned_abs()) > limit.as_micros()
}

/// Asks every node for its clock; `None` if none has answered.
pub(super) async fn watch(connection: &Connection, clock: &dyn Clock) -> Option<Verdict> {
    // All at once: a node that hangs holds up nobody else's answer.
    let nodes = connection.nodes();
    let asked = nodes.iter().map(async |node| {
        let asked = clock.now();
        let shown = connection.ask::<(CqlTimestamp,)>(node, statements::NODE_CLOCK).await;
        let (shown,) = shown.ok()?;
        Some((node.address.to_string(), offset_us(asked, shown.0, clock.now())))
    });
    Verdict::of(join_all(asked).await.into_iter().flatten().collect())
}

/// How far a clock that showed these milliseconds is ahead of ours, half of the round trip taken off.
fn offset_us(asked: WriteTime, shown_ms: i64, answered: WriteTime) -> i64 {
    let ours = asked.micros() + (answered.micros().saturating_sub(asked.micros())) / 2;
    // It shows whole milliseconds: on average it was half of one later.
    shown_ms.saturating_mul(1_000).saturating_add(500).saturating_sub_unsigned(ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(offsets: &[i64]) -> Verdict {
        let named = offsets.iter().enumerate().map(|(index, offset)| (format!("n{index}"), *offset));
        Verdict::of(named.collect()).unwrap()
    }

    #[test]
    fn the_median_judges_and_one_wrong_node_does_not_move_it() {
        assert_eq!(Verdict::of(Vec::new()), None);
        let all_agree = verdict(&[100, -200, 300]);
        assert_eq!((all_agree.warning(), all_agree.refusal()), (None, None));
        let one_is_wrong = verdict(&[100, 9_000_000, -200]);
        assert_eq!(one_is_wrong.refusal(), None);
        assert!(one_is_wrong.warning().unwrap().contains("n1"), "{one_is_wrong:?}");
        let ours_is_ahead = verdict(&[-600_000, -600_100, -599_900]);
        assert!(ours_is_ahead.warning().unwrap().contains("0.6 s ahead"), "{ours_is_ahead:?}");
        assert_eq!(ours_is_ahead.refusal(), None);
        let ours_is_behind = verdict(&[5_000_000, 5_000_100]);
        assert!(ours_is_behind.refusal().unwrap().contains("5.0 s behind"), "{ours_is_behind:?}");
    }

    #[test]
    fn half_of_the_round_trip_is_taken_off() {
        let at = WriteTime::from_micros;
        assert_eq!(offset_us(at(1_000_000), 1_010, at(1_020_000)), 500);
        assert_eq!(offset_us(at(2_000_000), 1_000, at(2_000_000)), -999_500);
    }
}
