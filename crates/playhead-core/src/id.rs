//! Ids of users and titles: parsed once at the edge, valid everywhere behind it.
//!
//! **The promise.** An id has exactly one spelling: the canonical decimal of a signed 64-bit integer (`42`, `-7`; not
//! `042`, `+42`, `-0`, ` 42` or `4e1`). Two requests that name the same title therefore name it with the same bytes,
//! and no second spelling can slip past a cache, a log search or a rate limit.

use std::fmt;
use std::str::FromStr;

/// The text was not a canonical decimal signed 64-bit integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an id is a signed 64-bit integer in canonical decimal spelling, such as 42 or -7")]
pub struct ParseIdError;

/// Parses the one canonical spelling; the standard parser would also take `+42`, `042` and `-0`.
fn parse_canonical(text: &str) -> Result<i64, ParseIdError> {
    let digits = text.strip_prefix('-').unwrap_or(text).as_bytes();
    let canonical = match digits {
        [b'0'] => text.len() == 1,
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if !canonical {
        return Err(ParseIdError);
    }
    text.parse().map_err(|_| ParseIdError)
}

macro_rules! id {
    ($name:ident, $what:literal) => {
        #[doc = $what]
        ///
        /// ```
        #[doc = concat!("use playhead_core::", stringify!($name), ";")]
        #[doc = concat!("assert_eq!(\"-7\".parse(), Ok(", stringify!($name), "(-7)));")]
        #[doc = concat!("assert!(\"+7\".parse::<", stringify!($name), ">().is_err());")]
        /// ```
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub i64);

        impl $name {
            /// Eight bytes that sort as the id does: big-endian with the sign bit flipped.
            #[must_use]
            pub const fn to_sortable_bytes(self) -> [u8; 8] {
                (self.0 ^ i64::MIN).to_be_bytes()
            }

            /// The inverse of [`to_sortable_bytes`](Self::to_sortable_bytes).
            #[must_use]
            pub const fn from_sortable_bytes(bytes: [u8; 8]) -> Self {
                Self(i64::from_be_bytes(bytes) ^ i64::MIN)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse_canonical(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(formatter)
            }
        }
    };
}

id!(UserId, "Who watches: the partition key of every store.");
id!(MovieId, "What is watched: the clustering key of every store.");

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_canonical_spelling_parses() {
        for good in ["0", "7", "42", "-1", "9223372036854775807", "-9223372036854775808"] {
            assert_eq!(good.parse::<UserId>().map(|id| id.to_string()).as_deref(), Ok(good));
        }
        let bad = [
            "",
            "-",
            "+42",
            "042",
            "-0",
            "00",
            " 42",
            "42 ",
            "4 2",
            "1.5",
            "1e3",
            "0x10",
            "४२",
            "--1",
            "-042",
            "9223372036854775808",
            "-9223372036854775809",
            "99999999999999999999999999",
        ];
        for bad in bad {
            assert_eq!(bad.parse::<MovieId>(), Err(ParseIdError), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn sortable_bytes_sort_as_the_ids_and_come_back(a: i64, b: i64) {
            let (a, b) = (UserId(a), UserId(b));
            prop_assert_eq!(a.to_sortable_bytes().cmp(&b.to_sortable_bytes()), a.cmp(&b));
            prop_assert_eq!(UserId::from_sortable_bytes(a.to_sortable_bytes()), a);
        }
    }
}
