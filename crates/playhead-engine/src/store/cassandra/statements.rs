//! All CQL that a running server speaks, and what rows look like in it. Nobody else holds CQL.
//!
//! **A write replaces the whole row.** Every column is bound: an unknown duration is 0.0, never null (which would leave
//! a tombstone with each heartbeat) and never left out (which would keep the column of the write before). Both columns
//! carry the one write time of the record, bound by us: a repeat of a statement is then the same write, and any number
//! of repeats, in any order, leave the newest.
//!
//! **What is read may not be ours.** The server takes null, NaN and any time; [`row`] passes only what a store may give
//! back, and says what it has left out.

use playhead_core::{Bookmark, MediaDuration, MovieId, Position, WriteTime};

/// The table's name in its keyspace.
pub const TABLE: &str = "resume_positions";

/// Columns, with their types and their part in the key.
pub(super) const COLUMNS: [(&str, &str, &str); 4] = [
    ("user_id", "bigint", "partition_key"),
    ("movie_id", "bigint", "clustering"),
    ("position_seconds", "double", "regular"),
    ("duration_seconds", "double", "regular"),
];

/// Makes the keyspace.
pub(super) fn create_keyspace(keyspace: &str, data_center: &str, copies: u8) -> String {
    format!(
        "CREATE KEYSPACE IF NOT EXISTS {keyspace}\n  WITH replication = {{'class': 'NetworkTopologyStrategy', \
         '{data_center}': {copies}}}"
    )
}

/// Makes the table.
pub(super) fn create_table(keyspace: &str, gc_grace_seconds: u64, compaction: &str) -> String {
    let columns: Vec<_> = COLUMNS.iter().map(|(name, kind, _)| format!("  {name} {kind},\n")).collect();
    format!(
        "CREATE TABLE IF NOT EXISTS {keyspace}.{TABLE} (\n{}  PRIMARY KEY ((user_id), movie_id)\n) WITH gc_grace_seconds \
         = {gc_grace_seconds}\n  AND compaction = {{'class': '{compaction}'}}",
        columns.concat()
    )
}

/// Of the node that is asked.
pub(super) const LOCAL_DATA_CENTER: &str = "SELECT data_center FROM system.local";
/// Of the node that is asked.
pub(super) const NODE_CLOCK: &str = "SELECT toTimestamp(now()) FROM system.local";
/// Of the node that is asked, if it is Apache Cassandra.
pub(super) const COMMITLOG_SYNC_CASSANDRA: &str =
    "SELECT value FROM system_views.settings WHERE name = 'commitlog_sync'";
/// Of the node that is asked, if it is ScyllaDB.
pub(super) const COMMITLOG_SYNC_SCYLLA: &str = "SELECT value FROM system.config WHERE name = 'commitlog_sync'";

/// Whether there is such a keyspace, by its name.
pub(super) const KEYSPACE_IS_THERE: &str = "SELECT keyspace_name FROM system_schema.keyspaces WHERE keyspace_name = ?";
/// The table's options, by keyspace and table.
pub(super) const TABLE_OPTIONS: &str =
    "SELECT gc_grace_seconds, compaction FROM system_schema.tables WHERE keyspace_name = ? AND table_name = ?";
/// The table's columns, by keyspace and table.
pub(super) const TABLE_COLUMNS: &str =
    "SELECT column_name, type, kind FROM system_schema.columns WHERE keyspace_name = ? AND table_name = ?";

/// The statements that a session prepares, in the keyspace.
pub(super) struct Texts {
    /// user, movie, position, duration, write time, TTL.
    pub(super) insert: String,
    /// write time, user, movie.
    pub(super) delete_title: String,
    /// write time, user.
    pub(super) delete_user: String,
    /// user, movies.
    pub(super) titles: String,
    /// user.
    pub(super) all_titles: String,
    /// The token after which, the token up to which.
    pub(super) everything: String,
}

/// The statements' texts.
pub(super) fn texts(keyspace: &str) -> Texts {
    let row = "movie_id, position_seconds, duration_seconds, WRITETIME(position_seconds)";
    let table = format!("{keyspace}.{TABLE}");
    Texts {
        insert: format!(
            "INSERT INTO {table} (user_id, movie_id, position_seconds, duration_seconds) VALUES (?, ?, ?, ?) USING \
             TIMESTAMP ? AND TTL ?"
        ),
        delete_title: format!("DELETE FROM {table} USING TIMESTAMP ? WHERE user_id = ? AND movie_id = ?"),
        delete_user: format!("DELETE FROM {table} USING TIMESTAMP ? WHERE user_id = ?"),
        titles: format!("SELECT {row} FROM {table} WHERE user_id = ? AND movie_id IN ?"),
        all_titles: format!("SELECT {row} FROM {table} WHERE user_id = ?"),
        everything: format!("SELECT user_id, {row} FROM {table} WHERE token(user_id) > ? AND token(user_id) <= ?"),
    }
}

/// What [`Texts::insert`] binds.
pub(super) type InsertValues = (i64, i64, f64, f64, i64, Option<i32>);

/// A row as it is read: movie, position, duration, write time.
pub(super) type ReadRow = (i64, Option<f64>, Option<f64>, Option<i64>);

/// A row of a walk over everything: the user, then as [`ReadRow`].
pub(super) type WalkedRow = (i64, i64, Option<f64>, Option<f64>, Option<i64>);

/// The bookmark in a row; `None` if no Playhead wrote it: without a position, with one that can't be, or dated later
/// than `latest`.
pub(super) fn row((movie, position, duration, write_time): ReadRow, latest: WriteTime) -> Option<Bookmark> {
    let write_time = u64::try_from(write_time?).ok().filter(|micros| (1..=latest.micros()).contains(micros))?;
    let duration = match duration? {
        0.0 => None,
        seconds => Some(MediaDuration::from_seconds(seconds).ok()?),
    };
    Some(Bookmark {
        movie: MovieId(movie),
        position: Position::from_seconds(position?).ok()?,
        duration,
        write_time: WriteTime::from_micros(write_time),
    })
}

/// A write time as CQL has it.
pub(super) fn timestamp(write_time: WriteTime) -> i64 {
    i64::try_from(write_time.micros()).expect("write times fit 56 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rows_that_a_store_may_give_back_pass() {
        let latest = WriteTime::from_micros(1_000);
        let good = row((7, Some(12.5), Some(0.0), Some(1_000)), latest).unwrap();
        assert_eq!((good.movie, good.position.seconds(), good.duration), (MovieId(7), 12.5, None));
        assert!(row((7, Some(12.5), Some(60.0), Some(1)), latest).unwrap().duration.is_some());
        let foreign = [
            (7, None, Some(0.0), Some(5)),
            (7, Some(1.0), None, Some(5)),
            (7, Some(1.0), Some(0.0), None),
            (7, Some(f64::NAN), Some(0.0), Some(5)),
            (7, Some(1.0), Some(f64::NAN), Some(5)),
            (7, Some(-1.0), Some(0.0), Some(5)),
            (7, Some(1.0), Some(-1.0), Some(5)),
            (7, Some(f64::INFINITY), Some(0.0), Some(5)),
            (7, Some(1.0), Some(0.0), Some(0)),
            (7, Some(1.0), Some(0.0), Some(-5)),
            (7, Some(1.0), Some(0.0), Some(1_001)),
            (7, Some(1.0), Some(0.0), Some(i64::MAX)),
        ];
        for foreign in foreign {
            assert_eq!(row(foreign, latest), None, "{foreign:?}");
        }
    }
}
