//! What an acknowledgement of the cluster is worth: whether each node syncs its commit log before it answers.
//!
//! `commitlog_sync` is the cluster's own setting, read from each node, for a node knows only its own. With `batch` or
//! `group` an answer means that the copy is on that node's disk; with `periodic`, the default, up to ten seconds of
//! answers are in memory only, and a node that loses its power loses them. The weakest node decides, and a node that
//! does not say counts as the weakest.

use super::connection::Connection;
use super::statements;
use crate::store::Durability;
use futures_util::future::join_all;

/// The weakest of all nodes' settings.
pub(super) async fn seen(connection: &Connection) -> Durability {
    let nodes = connection.nodes();
    let asked = nodes.iter().map(async |node| {
        for statement in [statements::COMMITLOG_SYNC_CASSANDRA, statements::COMMITLOG_SYNC_SCYLLA] {
            if let Ok((setting,)) = connection.ask::<(Option<String>,)>(node, statement).await {
                return of_setting(setting.as_deref());
            }
        }
        Durability::Unknown
    });
    join_all(asked).await.into_iter().min().unwrap_or(Durability::Unknown)
}

fn of_setting(setting: Option<&str>) -> Durability {
    match setting.map(|value| value.trim_matches('"')) {
        Some("batch" | "group") => Durability::Synced,
        Some("periodic") => Durability::Periodic,
        _ => Durability::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_not_trusted() {
        assert_eq!(of_setting(Some("batch")), Durability::Synced);
        assert_eq!(of_setting(Some("group")), Durability::Synced);
        // ScyllaDB gives its settings as JSON.
        assert_eq!(of_setting(Some("\"batch\"")), Durability::Synced);
        assert_eq!(of_setting(Some("periodic")), Durability::Periodic);
        assert_eq!(of_setting(Some("new")), Durability::Unknown);
        assert_eq!(of_setting(None), Durability::Unknown);
        assert!(Durability::Unknown < Durability::Periodic && Durability::Periodic < Durability::Synced);
    }
}
