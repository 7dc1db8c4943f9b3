//! How viewers behave, drawn from a seed: when they pause, seek, change the device and quit.
//!
//! **The promise.** What a streamer does with its n-th beat depends on the seed, the streamer and n alone, so a run can be
//! repeated, however its answers fall. The rates are those of time, not of beats: with a longer interval each beat is
//! more likely to be followed by something.

use std::time::Duration;

/// What a streamer does after a beat.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Next {
    /// It plays on.
    Play,
    /// It is silent for so long, and plays on.
    Pause(Duration),
    /// It jumps forward by so many seconds of media time, and plays on.
    Seek(u32),
    /// It stops, and begins another title after so long.
    Quit(Duration),
    /// It goes on at another device, which asks for the place first.
    Switch,
}

/// How often each happens to a viewer.
const PAUSE_EVERY_S: f64 = 600.0;
const SEEK_EVERY_S: f64 = 300.0;
const QUIT_EVERY_S: f64 = 2_400.0;
const SWITCH_EVERY_S: f64 = 3_600.0;

/// Sixty-four well mixed bits of three numbers (the finisher of SplitMix64, once for each).
#[must_use]
pub fn mix(a: u64, b: u64, c: u64) -> u64 {
    let mut mixed = 0x9E37_79B9_7F4A_7C15;
    for word in [a, b, c] {
        mixed = (mixed ^ word).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 32;
    }
    mixed
}

/// A number from 0 up to 1 of such bits.
#[must_use]
pub fn unit(bits: u64) -> f64 {
    // 53 bits fill a double exactly.
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

/// A number of a range, both ends included.
#[must_use]
pub fn between(bits: u64, low: u64, high: u64) -> u64 {
    low + bits % (high - low + 1)
}

/// What this streamer does after the beat with this number.
#[must_use]
pub fn next(seed: u64, streamer: u64, step: u32, interval: Duration) -> Next {
    let draw = mix(seed, streamer, u64::from(step));
    let mut left = unit(draw);
    let more = mix(draw, 1, 2);
    let mut happens = |every_s: f64| {
        let share = interval.as_secs_f64() / every_s;
        left -= share;
        left < 0.0
    };
    if happens(PAUSE_EVERY_S) {
        Next::Pause(Duration::from_secs(between(more, 5, 60)))
    } else if happens(SEEK_EVERY_S) {
        Next::Seek(u32::try_from(between(more, 10, 600)).expect("small"))
    } else if happens(QUIT_EVERY_S) {
        Next::Quit(Duration::from_secs(between(more, 2, 20)))
    } else if happens(SWITCH_EVERY_S) {
        Next::Switch
    } else {
        Next::Play
    }
}

/// The length of a title in seconds: 30 minutes to 3 hours.
#[must_use]
pub fn title_seconds(title: u32) -> u32 {
    u32::try_from(between(mix(u64::from(title), 3, 4), 1_800, 10_800)).expect("small")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_viewers_and_each_does_everything() {
        let draw = |seed| (0..100_000).map(|step| next(seed, 7, step, Duration::from_secs(4))).collect::<Vec<_>>();
        let steps = draw(1);
        assert_eq!(steps, draw(1));
        assert_ne!(steps, draw(2));
        let count = |is: fn(&Next) -> bool| steps.iter().filter(|next| is(next)).count();
        // 400,000 s of playing.
        assert!((560..780).contains(&count(|next| matches!(next, Next::Pause(_)))));
        assert!((1_200..1_470).contains(&count(|next| matches!(next, Next::Seek(_)))));
        assert!((120..220).contains(&count(|next| matches!(next, Next::Quit(_)))));
        assert!((70..160).contains(&count(|next| matches!(next, Next::Switch))));
    }

    #[test]
    fn draws_stay_in_their_range() {
        for bits in (0..1_000).map(|n| mix(n, 0, 0)) {
            assert!((0.0..1.0).contains(&unit(bits)));
            assert!((5..=9).contains(&between(bits, 5, 9)));
        }
    }
}
