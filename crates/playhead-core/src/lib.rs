//! The vocabulary of Playhead: the types every other crate speaks in, and the pure rules over them.
//!
//! Nothing here does I/O, knows a runtime or reads the system clock, so every rule can be tested with plain values.
//!
//! In reading order:
//! - [`id`]: whose place in which film ([`UserId`], [`MovieId`]), parsed once and valid for ever;
//! - [`position`]: a point in media time ([`Position`]) and a film's length ([`MediaDuration`]);
//! - [`time`]: what the store orders by ([`WriteTime`]), the [`Clock`] seam, the age of late items;
//! - [`bookmark`]: the [`Write`] that asks and the [`Bookmark`] that is stored; newest wins, and what a tie does;
//! - [`resume`]: the rules applied when a bookmark is read: is it completed, where to start;
//! - [`record`]: the fixed-size [`Record`] by which a write is logged.
//!
//! Words: a *position* is a point in media time. A *bookmark* is the stored row of one user and one title. *Event time*
//! is when something happened on the device, *write time* is what the store orders by. A *live* write happened when
//! it arrived; a *late* item (of an offline batch) happened earlier. A *barrier* is what a forget or an erase leaves
//! behind, so that nothing older can come back.

pub mod id;
pub mod position;
pub mod time;
pub mod bookmark;
pub mod resume;
pub mod record;

pub use bookmark::{Bookmark, Change, Write, newest};
pub use id::{MovieId, ParseIdError, UserId};
pub use position::{MediaDuration, OutOfRange, Position};
pub use record::{Record, RecordKind};
pub use resume::{Progress, Rules, State};
pub use time::{Clock, WriteTime};
