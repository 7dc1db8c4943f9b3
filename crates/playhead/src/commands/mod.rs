//! What each command does.

pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod export;
pub(crate) mod health;
pub(crate) mod import;
pub(crate) mod load;
pub(crate) mod man;
#[cfg(feature = "cassandra")]
pub(crate) mod schema;
pub(crate) mod serve;
pub(crate) mod token;

use std::io::Write;

/// Prints a result.
fn print(result: &[u8]) {
    // Who closed our stdout does not want to know.
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(result).and_then(|()| stdout.flush());
}
