//! The real binary over real sockets.
//!
//! - [`harness`]: starts servers and speaks HTTP to them;
//! - [`api`]: what works, and what each answer looks like;
//! - [`bad_input`]: what does not, by tables: framing, size, slowness, paths, queries, bodies, tokens, overload;
//! - [`startup`]: flags, files, signals and exit codes.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test, as the test itself does")]

mod api;
mod bad_input;
mod harness;
mod startup;
