//! The most streamers that a server carries: doubled until it no longer does, then halved between.

/// Between what is carried and what is not, at most this factor.
const PRECISION: f64 = 1.05;

/// More than this no search tries.
pub const STREAMERS_MAX: u32 = 4_000_000;

/// Searches from `start` on. `carries` tries so many streamers and tells whether they were carried. Gives back the most
/// that were, 0 if none.
///
/// # Errors
/// The first of a try.
pub fn search<E>(start: u32, mut carries: impl FnMut(u32) -> Result<bool, E>) -> Result<u32, E> {
    let (mut carried, mut not_carried) = (0, None);
    let mut next = start.clamp(1, STREAMERS_MAX);
    loop {
        if carries(next)? {
            carried = next;
        } else {
            not_carried = Some(next);
        }
        next = match (carried, not_carried) {
            (0, Some(most)) => most / 2,
            (carried, None) if carried >= STREAMERS_MAX => return Ok(carried),
            (carried, None) => carried.saturating_mul(2).min(STREAMERS_MAX),
            (carried, Some(most)) if f64::from(most) <= PRECISION * f64::from(carried) => return Ok(carried),
            (carried, Some(most)) => carried.midpoint(most),
        };
        if next <= carried {
            return Ok(carried);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_is_found_from_wherever_the_search_begins() {
        for limit in [0_u32, 1, 7, 999, 40_000, 1_234_567, STREAMERS_MAX] {
            for start in [1, 500, 60_000, u32::MAX] {
                let mut tries = 0;
                let found = search(start, |streamers| {
                    tries += 1;
                    assert!((1..=STREAMERS_MAX).contains(&streamers));
                    Ok::<_, ()>(streamers <= limit)
                });
                let found = found.unwrap();
                assert!(found <= limit && f64::from(limit) <= PRECISION * f64::from(found) + 1.0, "{found} of {limit}");
                assert!(tries <= 35, "{tries}");
            }
        }
        assert_eq!(search(5, |_| Err::<bool, _>("down")), Err("down"));
    }
}
