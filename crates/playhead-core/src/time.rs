//! Write times, the clock seam and the age of late items.
//!
//! **The promise.** A [`WriteTime`] is microseconds since the Unix epoch, within `1 ..= 2^55`: it fits 56 bits, so a
//! record keeps its kind in the byte above ([`crate::record`]), and zero is free to mean "none".

use std::time::Duration;

/// What the store orders by, in microseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteTime(u64);

impl WriteTime {
    /// The earliest write time: one microsecond into 1970.
    pub const MIN: Self = Self(1);
    /// The latest, in the year 3111.
    pub const MAX: Self = Self(1 << 55);

    /// The write time at `micros` since the epoch, brought into the range of the type.
    #[must_use]
    pub fn from_micros(micros: u64) -> Self {
        Self(micros.clamp(Self::MIN.0, Self::MAX.0))
    }

    /// Microseconds since the Unix epoch.
    #[must_use]
    pub const fn micros(self) -> u64 {
        self.0
    }

    /// The next microsecond.
    #[must_use]
    pub fn next(self) -> Self {
        Self::from_micros(self.0 + 1)
    }

    /// This long before, but never before [`MIN`](Self::MIN).
    #[must_use]
    pub fn before(self, age: Duration) -> Self {
        let age = u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
        Self::from_micros(self.0.saturating_sub(age))
    }

    /// How long after `earlier` this is; zero if it is not after.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// Where "now" comes from: the system's clock in the binary, a hand-set one in tests.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock. It may jump, back and forth; whoever needs order makes it himself.
    fn now(&self) -> WriteTime;
}

/// An event lay a minute or more after the moment its batch was sent: the two numbers are not of one clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the event lies 60 s or more after the moment of sending")]
pub struct EventAfterSending;

/// How long before its batch was sent an item happened, from two readings of the device's own clock.
///
/// Both are milliseconds of whatever epoch the device believes in: only their difference counts, so the device's clock
/// may be wrong by years. A difference of less than a minute the wrong way is jitter and counts as zero.
///
/// # Errors
/// [`EventAfterSending`] if the event lies 60 s or more after the sending.
pub fn age_of_event(sent_at_ms: u64, event_time_ms: u64) -> Result<Duration, EventAfterSending> {
    const JITTER_MS: u64 = 60_000;
    if event_time_ms.saturating_sub(sent_at_ms) >= JITTER_MS {
        return Err(EventAfterSending);
    }
    Ok(Duration::from_millis(sent_at_ms.saturating_sub(event_time_ms)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn write_times_stay_in_range() {
        assert_eq!(WriteTime::from_micros(0), WriteTime::MIN);
        assert_eq!(WriteTime::from_micros(u64::MAX), WriteTime::MAX);
        assert_eq!(WriteTime::from_micros(5).before(Duration::from_secs(1)), WriteTime::MIN);
        assert_eq!(WriteTime::MAX.next(), WriteTime::MAX);
        assert_eq!(WriteTime::from_micros(7).since(WriteTime::from_micros(9)), Duration::ZERO);
    }

    #[test]
    fn age_is_the_difference_of_the_device_clock() {
        assert_eq!(age_of_event(10_000, 4_000), Ok(Duration::from_secs(6)));
        assert_eq!(age_of_event(10_000, 10_000), Ok(Duration::ZERO));
        assert_eq!(age_of_event(10_000, 69_999), Ok(Duration::ZERO));
        assert_eq!(age_of_event(10_000, 70_000), Err(EventAfterSending));
        assert_eq!(age_of_event(0, u64::MAX), Err(EventAfterSending));
        assert_eq!(age_of_event(1 << 53, 0), Ok(Duration::from_millis(1 << 53)));
    }
}
