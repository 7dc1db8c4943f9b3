//! The real binary over real sockets.
//!
//! - [`process`]: starts it, any build of it, and ends it; [`client`]: speaks HTTP to it;
//! - [`api`]: what works, and what each answer looks like;
//! - [`bad_input`]: what does not, by tables: framing, size, slowness, paths, queries, bodies, isolation, overload;
//! - [`tokens`]: those that do not count;
//! - [`batch`]: what a player that was offline sends; times, sizes, all or nothing;
//! - [`cors`]: what browsers are told;
//! - [`delete`]: forgetting a title and a user; nobody reaches another user's rows;
//! - [`demo`]: the page of `serve --dev`, its files and tokens;
//! - [`docs`]: the examples of docs/API.md; [`openapi`]: the description of the interface, and that it is true;
//! - [`paging`]: over a row that changes; [`properties`]: any interleaving of calls of two users equals a model;
//! - [`http2`]: refusals, deadlines and the end over HTTP/2;
//! - [`throttle`]: who asks too often;
//! - [`startup`]: flags, files, signals and exit codes;
//! - [`config`]: settings from flags, the environment and a file; completions and manual pages;
//! - [`data_dir`]: directories that it must not start on; [`check`]: what `playhead check` finds and mends;
//!   [`store`]: a store of known contents for both, and ways to damage it;
//! - [`export`]: `export` and `import`, and who may ask for one;
//! - [`load`]: the load generator, against real servers and others.
//!
//! What a 204 promises, whatever befalls the server:
//!
//! - [`ledger`]: a load, and what it remembers;
//! - [`order`]: one heartbeat's system calls; [`trace`]: who sees and bends them;
//! - [`crash`]: killed, and cut from its power, under load;
//! - [`restart`]: told to stop, and paused;
//! - [`disk_faults`]: its disk fails, is slow, or is full;
//! - [`descriptors`]: more clients than it may have sockets.
//!
//! On a real cluster:
//!
//! - [`cassandra`]: what works, and what is said when it can't; [`cassandra_export`]: into it, out of it, and back;
//!   [`cassandra_faults`]: nodes killed and paused.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test, as the test itself does")]

mod api;
mod bad_input;
mod batch;
mod cassandra;
mod cassandra_export;
mod cassandra_faults;
mod check;
mod client;
mod clock;
mod config;
mod cors;
mod crash;
mod data_dir;
mod delete;
mod demo;
mod descriptors;
mod disk_faults;
mod docs;
mod export;
mod export_resume;
mod http2;
mod ledger;
mod load;
mod openapi;
mod order;
mod paging;
mod process;
mod properties;
mod restart;
mod startup;
mod store;
mod throttle;
mod tokens;
mod trace;
