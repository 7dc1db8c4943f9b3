//! Who is due: a timing wheel of milliseconds.
//!
//! **The promise.** A streamer put in for a time comes out in the millisecond after it, never before; putting in and
//! taking out cost the same whatever is in it, and nothing is allocated.
//!
//! **The limits.** One entry for each streamer. A time beyond the wheel's turn (131 s) comes out after a turn, and the
//! caller, who knows the time, puts it in again.

/// Slots; a power of two.
const SLOTS: usize = 1 << 17;

/// No streamer.
const NOBODY: u32 = u32::MAX;

/// The wheel. Slots are lists, linked through one array of all streamers.
#[derive(Debug)]
pub(crate) struct Wheel {
    heads: Vec<u32>,
    next: Vec<u32>,
    /// The millisecond that is taken out next.
    now_ms: u64,
}

impl Wheel {
    pub(crate) fn new(streamers: usize) -> Self {
        Self { heads: vec![NOBODY; SLOTS], next: vec![NOBODY; streamers], now_ms: 0 }
    }

    /// Puts a streamer in that is not in it.
    pub(crate) fn put(&mut self, streamer: u32, due_us: u64) {
        let last = self.now_ms + SLOTS as u64 - 1;
        // What is late already comes out next.
        let slot = Self::slot((due_us / 1_000).clamp(self.now_ms, last));
        self.next[streamer as usize] = self.heads[slot];
        self.heads[slot] = streamer;
    }

    fn slot(ms: u64) -> usize {
        // The remainder is far below any `usize`.
        usize::try_from(ms % SLOTS as u64).expect("a slot's number is small")
    }

    /// Takes out one that is due: whose millisecond is over.
    pub(crate) fn take(&mut self, now_us: u64) -> Option<u32> {
        while self.now_ms < now_us / 1_000 {
            let head = &mut self.heads[Self::slot(self.now_ms)];
            if *head != NOBODY {
                let streamer = *head;
                *head = std::mem::replace(&mut self.next[streamer as usize], NOBODY);
                return Some(streamer);
            }
            self.now_ms += 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(wheel: &mut Wheel, now_us: u64) -> Vec<u32> {
        let mut all: Vec<u32> = std::iter::from_fn(|| wheel.take(now_us)).collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn each_comes_out_when_its_millisecond_is_over() {
        let mut wheel = Wheel::new(5);
        for (streamer, due_us) in [(0, 0), (1, 1_999), (2, 1_000), (3, 5_000)] {
            wheel.put(streamer, due_us);
        }
        assert_eq!(all(&mut wheel, 999), [0; 0]);
        assert_eq!(all(&mut wheel, 1_500), [0]);
        assert_eq!(all(&mut wheel, 2_000), [1, 2]);
        wheel.put(4, 10);
        assert_eq!(all(&mut wheel, 3_000), [4]);
        assert_eq!(all(&mut wheel, 9_000), [3]);
        assert_eq!(all(&mut wheel, 1_000_000_000), [0; 0]);
    }

    #[test]
    fn a_time_beyond_the_turn_comes_out_early_and_can_be_put_in_again() {
        let mut wheel = Wheel::new(1);
        let due_us = 300_000_000;
        wheel.put(0, due_us);
        let mut turns = 0;
        let mut now_us = 0;
        loop {
            now_us += 1_000_000;
            if wheel.take(now_us).is_some() {
                if now_us >= due_us {
                    break;
                }
                turns += 1;
                wheel.put(0, due_us);
            }
        }
        assert_eq!((now_us, turns), (301_000_000, 2));
    }
}
