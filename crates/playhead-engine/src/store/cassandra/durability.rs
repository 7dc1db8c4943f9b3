//! What an acknowledgement of the cluster is worth: whether each node syncs its commit log before it answers.
//!
//! `commitlog_sync` is the cluster's own setting, read from each node, for a node knows only its own. With `batch` or
//! `group` an answer means that the copy is on that node's disk; with `periodic`, the default, up to ten seconds of
//! answers are in memory only, and a node that loses its power loses them. The weakest node decides, and a node that
//! does not say counts as the weakest.
//!
//! By `group` a node makes each row of a request wait for a sync of its own, one row after the other: there rows do not
//! share requests ([`super::writer`]).

use super::connection::Connection;
use super::statements;
use crate::store::Durability;
use futures_util::future::join_all;

/// What all nodes' settings come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CommitLogs {
    /// The weakest node's.
    pub(super) durability: Durability,
    /// Whether some node's is `group`.
    pub(super) is_grouped: bool,
}

/// Asks all nodes.
pub(super) async fn seen(connection: &Connection) -> CommitLogs {
    let nodes = connection.nodes();
    let asked = nodes.iter().map(async |node| {
        for statement in [statements::COMMITLOG_SYNC_CASSANDRA, statements::COMMITLOG_SYNC_SCYLLA] {
            if let Ok((setting,)) = connection.ask::<(Option<String>,)>(node, statement).await {
                return setting;
            }
        }
        None
    });
    of_settings(&join_all(asked).await)
}

fn of_settings(settings: &[Option<String>]) -> CommitLogs {
    // ScyllaDB gives its settings as JSON.
    let settings = settings.iter().map(|setting| setting.as_deref().map(|value| value.trim_matches('"')));
    let durability = settings.clone().map(|setting| match setting {
        Some("batch" | "group") => Durability::Synced,
        Some("periodic") => Durability::Periodic,
        _ => Durability::Unknown,
    });
    CommitLogs {
        durability: durability.min().unwrap_or(Durability::Unknown),
        is_grouped: settings.clone().any(|setting| setting == Some("group")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_not_trusted() {
        for (settings, durability, is_grouped) in [
            (&[Some("batch"), Some("batch")][..], Durability::Synced, false),
            (&[Some("batch"), Some("group")], Durability::Synced, true),
            (&[Some("\"batch\"")], Durability::Synced, false),
            (&[Some("group"), Some("periodic")], Durability::Periodic, true),
            (&[Some("periodic"), Some("new")], Durability::Unknown, false),
            (&[Some("batch"), None], Durability::Unknown, false),
            (&[], Durability::Unknown, false),
        ] {
            let given: Vec<_> = settings.iter().map(|setting| setting.map(str::to_owned)).collect();
            assert_eq!(of_settings(&given), CommitLogs { durability, is_grouped }, "{settings:?}");
        }
    }
}
