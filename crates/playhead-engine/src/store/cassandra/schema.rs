//! The table that the store needs: its statements, making it, and comparing it. For `playhead schema`, and for the
//! store, which checks at each start and changes nothing.
//!
//! **Why `gc_grace_seconds` matters.** A deletion is the barrier that keeps late items out, and Cassandra forgets it
//! after that time. It must outlive the oldest item that may still come, and the days that a repair may be late.

use super::connection::{Connection, connect};
use super::{CassandraOptions, statements};
use std::collections::HashMap;
use std::time::Duration;

pub use super::statements::TABLE;

/// What repair may be late by.
const REPAIR: Duration = Duration::from_secs(2 * 86_400);

/// The compaction that new tables get: it suits rows that are overwritten all the time.
const COMPACTION: &str = "UnifiedCompactionStrategy";

/// A command could not be carried out: why, and what to do.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct SchemaError(pub(super) String);

/// The statements that make the keyspace and the table.
#[must_use]
pub fn statements(keyspace: &str, data_center: &str, copies: u8, max_item_age: Duration) -> [String; 2] {
    [
        statements::create_keyspace(keyspace, data_center, copies),
        statements::create_table(keyspace, gc_grace_seconds(max_item_age), COMPACTION),
    ]
}

/// How long deletions must be kept.
fn gc_grace_seconds(max_item_age: Duration) -> u64 {
    (max_item_age + REPAIR).as_secs()
}

/// Makes what is missing. Blocks. Changes nothing that is there, so it may be repeated.
///
/// # Errors
/// If the cluster can't be asked, or refuses.
pub fn apply(options: &CassandraOptions, copies: u8) -> Result<(), SchemaError> {
    blocking(async {
        let connection = connect(options).await.map_err(SchemaError)?;
        let data_center = match &options.data_center {
            Some(name) => name.clone(),
            None => connection.data_center().await.map_err(SchemaError)?,
        };
        let on = statements(&options.keyspace, &data_center, copies, options.max_item_age);
        let is_scylla = connection.is_scylla().await;
        for statement in on {
            // ScyllaDB knows no unified compaction; its default is as good for this.
            let statement = if is_scylla { without_compaction(&statement) } else { statement };
            connection.change(&statement).await.map_err(SchemaError)?;
        }
        Ok(())
    })
}

fn without_compaction(statement: &str) -> String {
    statement.split("\n  AND compaction").next().unwrap_or_default().to_owned()
}

/// What of the cluster's schema a store can't use, in sentences. Blocks.
///
/// # Errors
/// If the cluster can't be asked.
pub fn check(options: &CassandraOptions) -> Result<Vec<String>, SchemaError> {
    blocking(async {
        let connection = connect(options).await.map_err(SchemaError)?;
        differences(&connection, options).await.map_err(SchemaError)
    })
}

fn blocking<T>(task: impl Future<Output = Result<T, SchemaError>>) -> Result<T, SchemaError> {
    let runtime = super::runtime().map_err(|error| SchemaError(format!("can't start a runtime: {error}")))?;
    runtime.block_on(task)
}

/// What differs from what a store needs.
pub(super) async fn differences(connection: &Connection, options: &CassandraOptions) -> Result<Vec<String>, String> {
    let keyspace = options.keyspace.as_str();
    if connection.rows::<(String,)>(statements::KEYSPACE_IS_THERE, (keyspace,)).await?.is_empty() {
        return Ok(vec![format!(
            "there is no keyspace {keyspace}: see to --cassandra-keyspace, or make it with `playhead schema apply`"
        )]);
    }
    let names = (keyspace, TABLE);
    type Options = (Option<i32>, Option<HashMap<String, String>>);
    let Some((gc_grace, _)) = connection.rows::<Options>(statements::TABLE_OPTIONS, names).await?.pop() else {
        return Ok(vec![format!("there is no table {keyspace}.{TABLE}: make it with `playhead schema apply`")]);
    };
    let columns = connection.rows::<(String, String, String)>(statements::TABLE_COLUMNS, names).await?;
    let mut differences = of_columns(keyspace, &columns);
    let needed = gc_grace_seconds(options.max_item_age);
    let found = u64::try_from(gc_grace.unwrap_or(0)).unwrap_or(0);
    if found < needed {
        differences.push(format!(
            "gc_grace_seconds of {keyspace}.{TABLE} is {found}, too short for --max-item-age: deletions would be \
             forgotten before the last late item can come; needed are {needed} (ALTER TABLE {keyspace}.{TABLE} WITH \
             gc_grace_seconds = {needed})"
        ));
    }
    Ok(differences)
}

fn of_columns(keyspace: &str, columns: &[(String, String, String)]) -> Vec<String> {
    let mut differences = Vec::new();
    for (name, kind, part) in statements::COLUMNS {
        let found = columns.iter().find(|(known, ..)| known == name);
        match found {
            None => differences.push(format!("{keyspace}.{TABLE} has no column {name} {kind}")),
            Some((_, other, _)) if other != kind => {
                differences.push(format!("column {name} of {keyspace}.{TABLE} is {other}, not {kind}"));
            }
            Some((_, _, other)) if other != part => {
                differences.push(format!("column {name} of {keyspace}.{TABLE} is a {other} column, not {part}"));
            }
            Some(_) => {}
        }
    }
    let is_known = |name: &str| statements::COLUMNS.iter().any(|(known, ..)| *known == name);
    for (name, _, part) in columns.iter().filter(|(name, _, part)| part != "regular" && !is_known(name)) {
        differences.push(format!("the key of {keyspace}.{TABLE} has a column too many: {name} ({part})"));
    }
    differences
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statements_are_those_of_the_documentation() {
        let [keyspace, table] = statements("playhead", "datacenter1", 3, Duration::from_secs(30 * 86_400));
        assert_eq!(
            keyspace,
            "CREATE KEYSPACE IF NOT EXISTS playhead\n  WITH replication = {'class': 'NetworkTopologyStrategy', \
             'datacenter1': 3}"
        );
        assert_eq!(
            table,
            "CREATE TABLE IF NOT EXISTS playhead.resume_positions (\n  user_id bigint,\n  movie_id bigint,\n  \
             position_seconds double,\n  duration_seconds double,\n  PRIMARY KEY ((user_id), movie_id)\n) WITH \
             gc_grace_seconds = 2764800\n  AND compaction = {'class': 'UnifiedCompactionStrategy'}"
        );
        assert!(without_compaction(&table).ends_with("= 2764800"));
    }

    #[test]
    fn each_difference_is_named() {
        let mut columns: Vec<_> =
            statements::COLUMNS.iter().map(|(a, b, c)| ((*a).to_owned(), (*b).to_owned(), (*c).to_owned())).collect();
        assert_eq!(of_columns("k", &columns), [""; 0]);
        columns[2].1 = "float".to_owned();
        columns[3].0 = "length".to_owned();
        columns.push(("profile_id".to_owned(), "int".to_owned(), "clustering".to_owned()));
        let found = of_columns("k", &columns);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].contains("is float, not double") && found[1].contains("has no column duration_seconds"));
        assert!(found[2].contains("profile_id"));
    }
}
