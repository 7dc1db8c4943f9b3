//! How the process talks: structured lines on stderr, as text on a terminal and as JSON elsewhere.
//!
//! No line ever carries a token, a body, a user or a title. `PLAYHEAD_LOG` sets the level, `info` by default. What the
//! Cassandra driver says of each lost connection is left out then: the store says the same once, and names the setting.

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

/// Starts logging for the whole process.
pub(crate) fn start() {
    let filter = EnvFilter::try_from_env("PLAYHEAD_LOG").unwrap_or_else(|_| EnvFilter::new("info,scylla=off"));
    let lines = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        lines.with_target(false).init();
    } else {
        lines.json().flatten_event(true).init();
    }
}
