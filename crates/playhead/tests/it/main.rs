//! The real binary over real sockets.
//!
//! - [`harness`]: starts servers and speaks HTTP to them;
//! - [`api`]: what works, and what each answer looks like;
//! - [`bad_input`]: what does not, by tables: framing, size, slowness, paths, queries, bodies, tokens, overload;
//! - [`batch`]: what a player that was offline sends; times, sizes, all or nothing;
//! - [`cors`]: what browsers are told;
//! - [`delete`]: forgetting a title and a user; nobody reaches another user's rows;
//! - [`docs`]: the examples of docs/API.md;
//! - [`startup`]: flags, files, signals and exit codes.
//!
//! What a 204 promises, whatever ends the server:
//!
//! - [`process`], [`client`], [`ledger`]: any build of the binary, ended in any way; a load, and what it remembers;
//! - [`crash`]: killed, and cut from its power, under load;
//! - [`restart`]: told to stop, and started twice;
//! - [`disk_faults`]: its disk fails.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test, as the test itself does")]

mod api;
mod bad_input;
mod batch;
mod client;
mod cors;
mod crash;
mod delete;
mod disk_faults;
mod docs;
mod harness;
mod ledger;
mod process;
mod restart;
mod startup;
