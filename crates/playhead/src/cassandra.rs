//! The flags by which commands find a Cassandra (or ScyllaDB) cluster, and what they mean together.
//!
//! Shared by `serve`, `schema` and `import`. Files are read here, so that a wrong path ends the command with a sentence
//! that names the flag; whether the cluster takes what is in them shows later, and does not end a server.

use crate::Failure;
use crate::cli::KeepingFlags;
use anyhow::Context;
use clap::{Args, ValueEnum};
use playhead_engine::store::cassandra::{CassandraOptions, Consistency, Credentials};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Which cluster, and who asks.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Cassandra")]
pub(crate) struct CassandraFlags {
    /// Nodes of the cluster to ask first; the others are found through them. The port is 9042 if left out
    #[arg(long, env = "PLAYHEAD_CASSANDRA_NODES", value_name = "HOST:PORT", value_delimiter = ',')]
    pub(crate) cassandra_nodes: Vec<String>,
    /// The keyspace that holds the table
    #[arg(long, env = "PLAYHEAD_CASSANDRA_KEYSPACE", value_name = "NAME", default_value = "playhead", value_parser = keyspace)]
    pub(crate) cassandra_keyspace: String,
    /// The data centre whose nodes are asked; any by default
    #[arg(long, env = "PLAYHEAD_CASSANDRA_DATA_CENTER", value_name = "NAME", value_parser = data_center)]
    pub(crate) cassandra_data_center: Option<String>,
    /// The user to log in as
    #[arg(long, env = "PLAYHEAD_CASSANDRA_USER", value_name = "NAME")]
    pub(crate) cassandra_user: Option<String>,
    /// File with that user's password; a newline at its end is not part of it
    #[arg(long, env = "PLAYHEAD_CASSANDRA_PASSWORD_FILE", value_name = "FILE")]
    pub(crate) cassandra_password_file: Option<PathBuf>,
    /// Speak TLS to the cluster, and trust the authorities in this file (PEM)
    #[arg(long, env = "PLAYHEAD_CASSANDRA_TLS_CA_FILE", value_name = "FILE")]
    pub(crate) cassandra_tls_ca_file: Option<PathBuf>,
    /// How many copies must confirm a write, and be asked by a read
    #[arg(long, env = "PLAYHEAD_CASSANDRA_CONSISTENCY", default_value = "local-quorum")]
    pub(crate) cassandra_consistency: ConsistencyName,
    /// Serve only if every node is seen to sync its commit log before it acknowledges
    #[arg(long, env = "PLAYHEAD_REQUIRE_SYNCED_COMMITLOG")]
    pub(crate) require_synced_commitlog: bool,
}

/// Consistency levels under which a write that was acknowledged is read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ConsistencyName {
    /// Most copies of one data centre
    LocalQuorum,
    /// Most copies of all data centres
    Quorum,
    /// Every copy
    All,
}

impl CassandraFlags {
    /// The engine's options, for a store.
    pub(crate) fn options(&self, keeping: &KeepingFlags) -> Result<CassandraOptions, Failure> {
        let KeepingFlags { retention, max_item_age, commit_window } = *keeping;
        if commit_window > CassandraOptions::COMMIT_WINDOW_MAX {
            let most = humantime::format_duration(CassandraOptions::COMMIT_WINDOW_MAX);
            let complaint = format!("--commit-window: with --store cassandra a write may wait for {most} at most");
            return Err(Failure::usage(complaint));
        }
        Ok(CassandraOptions { retention: retention.0, commit_window, ..self.cluster(max_item_age)? })
    }

    /// The same for who keeps nothing there, but looks at the cluster or changes its schema.
    pub(crate) fn cluster(&self, max_item_age: Duration) -> Result<CassandraOptions, Failure> {
        if self.cassandra_nodes.is_empty() {
            return Err(Failure::usage("no cluster to ask: give --cassandra-nodes HOST:PORT, several by commas"));
        }
        let nodes = self.cassandra_nodes.iter().map(|node| address(node)).collect::<Result<_, _>>()?;
        let credentials = match (&self.cassandra_user, &self.cassandra_password_file) {
            (Some(user), Some(file)) => Some(Credentials { user: user.clone(), password: password(file)? }),
            (None, None) => None,
            // Not by clap's `requires`, for which a value of the file is none.
            _ => {
                let complaint = "--cassandra-user and --cassandra-password-file go together: give both, or neither";
                return Err(Failure::usage(complaint));
            }
        };
        let authorities = match &self.cassandra_tls_ca_file {
            Some(file) => Some(fs::read(file).with_context(|| {
                format!("can't read --cassandra-tls-ca-file {}: give a file that this user may read", file.display())
            })?),
            None => None,
        };
        Ok(CassandraOptions {
            nodes,
            keyspace: self.cassandra_keyspace.clone(),
            data_center: self.cassandra_data_center.clone(),
            credentials,
            authorities,
            consistency: match self.cassandra_consistency {
                ConsistencyName::LocalQuorum => Consistency::LocalQuorum,
                ConsistencyName::Quorum => Consistency::Quorum,
                ConsistencyName::All => Consistency::All,
            },
            require_synced_commitlog: self.require_synced_commitlog,
            retention: None,
            max_item_age,
            commit_window: Duration::ZERO,
        })
    }
}

/// With the port that nodes have unless told otherwise.
fn address(node: &str) -> Result<String, Failure> {
    let complaint = || Failure::usage(format!("--cassandra-nodes: `{node}` is not HOST:PORT, such as 10.0.0.5:9042"));
    // An IPv6 address stands in brackets if a port follows.
    let (host, port) = match node.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port),
        _ => (node, "9042"),
    };
    let is_port = port.parse::<u16>().is_ok_and(|port| port > 0);
    if host.is_empty() || host.contains(char::is_whitespace) || !is_port {
        return Err(complaint());
    }
    let is_bare_v6 = host.contains(':') && !host.starts_with('[');
    Ok(if is_bare_v6 { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
}

fn password(file: &Path) -> Result<String, Failure> {
    let text = fs::read_to_string(file).with_context(|| {
        format!("can't read --cassandra-password-file {}: give a file that this user may read", file.display())
    })?;
    Ok(text.strip_suffix('\n').map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text)).to_owned())
}

/// A name that means the same in CQL with and without quotes.
fn keyspace(text: &str) -> Result<String, String> {
    let is_name = text.len() <= 48
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    let complaint = "a keyspace is 1 to 48 of a-z, 0-9 and _, beginning with a letter";
    if is_name { Ok(text.to_owned()) } else { Err(complaint.to_owned()) }
}

fn data_center(text: &str) -> Result<String, String> {
    let is_name =
        !text.is_empty() && text.len() <= 64 && !text.contains(['\'', '\\']) && !text.contains(char::is_control);
    if is_name {
        Ok(text.to_owned())
    } else {
        Err("a data centre is 1 to 64 characters, none of them a quote".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_a_host_and_perhaps_a_port() {
        for (given, meant) in [
            ("10.0.0.5", "10.0.0.5:9042"),
            ("db.example.com:9142", "db.example.com:9142"),
            ("[::1]:9042", "[::1]:9042"),
            ("::1", "[::1]:9042"),
        ] {
            assert_eq!(address(given).unwrap(), meant);
        }
        for bad in ["", ":9042", "host:0", "host:70000", "host:x", "a b"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_that_would_need_quotes_are_refused() {
        assert!(keyspace("playhead_2").is_ok());
        for bad in ["", "Playhead", "2x", "a-b", "a; DROP KEYSPACE b", "a\"b"] {
            assert!(keyspace(bad).is_err(), "{bad}");
        }
        assert!(data_center("eu-west 1").is_ok());
        for bad in ["", "a'b", "a\\b", "a\nb"] {
            assert!(data_center(bad).is_err(), "{bad}");
        }
    }
}
