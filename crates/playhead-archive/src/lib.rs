//! The lines of an export: what `GET /export` streams, `playhead export` keeps and `playhead import` takes.
//!
//! The server and the binary write with a [`Writer`]; the binary reads with a [`Reader`]. Nothing here knows files,
//! sockets or compression: bytes go in and out.
//!
//! **The format**, version [`FORMAT`]: UTF-8, one JSON object a line, each with one key that names its kind.
//!
//! ```text
//! {"header":{"format":1,"version":"0.1.0","exported_at_us":1764061880000000,"has_barriers":true}}
//! {"erase":{"user_id":"7","write_time_us":1764061870000000}}
//! {"row":{"user_id":"7","movie_id":"42","position_seconds":1234.5,"duration_seconds":7200.0,"write_time_us":1764061880123456}}
//! {"forget":{"user_id":"7","movie_id":"43","write_time_us":1764061880123457}}
//! {"trailer":{"rows":1,"forgets":1,"erases":1,"sha256":"…"}}
//! ```
//!
//! - The header comes first. `has_barriers` is false where the source can't give its forgets and erasures back.
//! - Ids are strings, as in the API's answers, since JavaScript loses large integers. An unknown duration is `null` or
//!   left out. Write times are microseconds since the Unix epoch.
//! - The lines between may come in any order, and more than once: the newest wins.
//! - The trailer comes last. It counts the lines of each kind, and holds the SHA-256 of every byte before its own line, in
//!   hexadecimal: `head -n -1 export.ndjson | sha256sum`.
//!
//! **The promise.** What a writer wrote comes back as it was, to the last bit of a position. A file without its
//! trailer, or with one that does not fit, is never taken for whole. A line that is not right is told by its number and
//! what is wrong with it, never by what it says: positions are personal.
//!
//! **The limits.** A line has [`LINE_BYTES_MAX`] bytes; a longer one is skipped and told.

mod line;
mod reader;
mod writer;

pub use line::{Counts, Header, LineError};
pub use reader::{Item, Reader, Unfit};
pub use writer::Writer;

/// The format that this version writes, and the only one that it reads.
pub const FORMAT: u32 = 1;

/// The longest line taken, its newline included: several times what the longest row needs.
pub const LINE_BYTES_MAX: usize = 4096;

#[cfg(test)]
mod tests;
