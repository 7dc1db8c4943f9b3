//! Tests of the real binary, from outside: it is started, spoken to over its sockets, and ended in every way.
//!
//! - [`crash`]: killed, and cut from its power, under load;
//! - [`restart`]: told to stop, and started twice;
//! - [`disk_faults`]: its disk fails;
//! - [`ledger`], [`client`], [`process`]: what these tests share.

#![expect(clippy::unwrap_used, reason = "a test that can't go on says so by its panic")]

mod client;
mod crash;
mod disk_faults;
mod ledger;
mod process;
mod restart;
