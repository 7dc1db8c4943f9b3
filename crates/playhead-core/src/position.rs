//! Points in media time and lengths of films, in seconds.
//!
//! **The promise.** A [`Position`] is finite and within `0 ..= 1,000,000` seconds (eleven days: longer than any
//! title), a [`MediaDuration`] finite and within `0 < d <= 1,000,000`. Neither is ever negative zero or subnormal, so
//! the bits of the number order as the number does: the tie rule of [`crate::bookmark`] rests on it. A position may
//! lie behind the duration; players report that at the end of a film.

/// The number was not finite, or lay outside the range of its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("out of range")]
pub struct OutOfRange;

/// A point in media time, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Position(f64);

impl Position {
    /// The largest position taken, in seconds.
    pub const MAX_SECONDS: f64 = 1_000_000.0;
    /// The beginning.
    pub const ZERO: Self = Self(0.0);

    /// Takes `0 <= seconds <= 1,000,000`; negative zero and subnormal numbers become 0.
    ///
    /// # Errors
    /// [`OutOfRange`] for anything else, NaN and infinities included.
    pub fn from_seconds(seconds: f64) -> Result<Self, OutOfRange> {
        if !(0.0..=Self::MAX_SECONDS).contains(&seconds) {
            return Err(OutOfRange);
        }
        Ok(if seconds.is_normal() { Self(seconds) } else { Self::ZERO })
    }

    /// Seconds from the beginning of the title.
    #[must_use]
    pub const fn seconds(self) -> f64 {
        self.0
    }
}

/// The length of a title, in seconds. Unknown is `None` in an `Option`, never a value of this type.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct MediaDuration(f64);

impl MediaDuration {
    /// The longest duration taken, in seconds.
    pub const MAX_SECONDS: f64 = 1_000_000.0;

    /// Takes `0 < seconds <= 1,000,000`; a subnormal number counts as 0 and is refused.
    ///
    /// # Errors
    /// [`OutOfRange`] for anything else, NaN and infinities included.
    pub fn from_seconds(seconds: f64) -> Result<Self, OutOfRange> {
        if seconds.is_normal() && seconds > 0.0 && seconds <= Self::MAX_SECONDS {
            Ok(Self(seconds))
        } else {
            Err(OutOfRange)
        }
    }

    /// Seconds from beginning to end.
    #[must_use]
    pub const fn seconds(self) -> f64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_finite_and_within_range() {
        for (given, kept) in [(0.0, 0.0), (-0.0, 0.0), (1e-320, 0.0), (0.25, 0.25), (1e6, 1e6)] {
            let position = Position::from_seconds(given).unwrap();
            assert_eq!(position.seconds().to_bits(), f64::to_bits(kept), "{given}");
        }
        for bad in [-1.0, -0.001, 1_000_000.001, 1e308, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, -1e-320] {
            assert_eq!(Position::from_seconds(bad), Err(OutOfRange), "{bad}");
        }
    }

    #[test]
    fn durations_are_above_zero() {
        for good in [f64::MIN_POSITIVE, 0.5, 7200.0, 1e6] {
            assert_eq!(MediaDuration::from_seconds(good).unwrap().seconds(), good);
        }
        for bad in [0.0, -0.0, 1e-320, -1.0, 1_000_000.001, 1e308, f64::INFINITY, f64::NAN] {
            assert_eq!(MediaDuration::from_seconds(bad), Err(OutOfRange), "{bad}");
        }
    }
}
