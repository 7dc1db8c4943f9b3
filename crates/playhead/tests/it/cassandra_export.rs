//! `playhead export` and `playhead import` with a real cluster: into it, out of it, and back.

use crate::cassandra::{Cluster, new_user, start};
use crate::client::{PROGRESS, beat, dev_secret, mint};
use crate::export::{Place, check_barriers, done, lists, write_story};
use crate::process::{Ended, run};
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;

impl Place {
    fn import_into(&self, cluster: &Cluster, keyspace: &str, file: &str) -> Ended {
        let store = ["--store", "cassandra", "--cassandra-nodes", &cluster.nodes, "--cassandra-keyspace", keyspace];
        run(&[&["import", &self.text(file), "--output", "json"][..], &store].concat())
    }

    fn export_of_cluster(&self, cluster: &Cluster, keyspace: &str, file: &str) -> Ended {
        let store = ["--store", "cassandra", "--cassandra-nodes", &cluster.nodes, "--cassandra-keyspace", keyspace];
        run(&[&["export", &self.text(file), "--resume", "--output", "json"][..], &store].concat())
    }
}

/// A keyspace that no other run has; gone in the end.
struct Keyspace<'a> {
    cluster: &'a Cluster,
    name: String,
}

impl<'a> Keyspace<'a> {
    fn of(cluster: &'a Cluster) -> Self {
        let name = format!("playhead_export_{}", fastrand::u32(..));
        cluster.make(&name);
        Self { cluster, name }
    }
}

impl Drop for Keyspace<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.cluster.xtask(&["cql", "1", &format!("DROP KEYSPACE {}", self.name)]);
        }
    }
}

#[test]
fn cassandra_takes_an_export_keeps_its_times_and_gives_it_back() {
    let Some((cluster, _in_use)) = Cluster::shared("cassandra_takes_an_export") else { return };
    let (place, user) = (Place::new(), new_user());
    let embedded = place.launch("data").start();
    let secret = dev_secret(place.path("data"));
    write_story(&mut embedded.connect(), &secret, user);
    // A user with more titles than one page holds.
    let many = mint(&secret, user + 2);
    let item = |movie: i64| json!({"movie_id": movie, "position_seconds": movie, "event_time_ms": 1_000_000 - movie});
    for first in (0..2_500).step_by(500) {
        let items: Vec<_> = (first..first + 500).map(item).collect();
        let body = json!({"sent_at_ms": 1_000_000, "items": items}).to_string();
        assert_eq!(embedded.connect().batch(&many, body).status, 204);
    }
    let before = lists(&mut embedded.connect(), &secret, user);
    let exported = done(&place.export_from(&embedded, "export.ndjson.zst"));
    drop(embedded);

    let keyspace = Keyspace::of(&cluster);
    let imported = done(&place.import_into(&cluster, &keyspace.name, "export.ndjson.zst"));
    assert_eq!((&imported["rows"], &imported["changed"]), (&exported["rows"], &json!(null)), "{imported}");
    let first = done(&place.export_of_cluster(&cluster, &keyspace.name, "first.ndjson"));
    assert_eq!((&first["rows"], &first["has_barriers"]), (&exported["rows"], &json!(false)), "{first}");
    let rows =
        |file: &str| -> Vec<_> { place.lines(file).into_iter().filter(|line| line.starts_with("{\"row\"")).collect() };
    assert_eq!(rows("first.ndjson"), rows("export.ndjson.zst"), "every row, to the microsecond");
    done(&place.import_into(&cluster, &keyspace.name, "export.ndjson.zst"));
    done(&place.export_of_cluster(&cluster, &keyspace.name, "second.ndjson"));
    assert_eq!(rows("second.ndjson"), rows("first.ndjson"), "a second import changes nothing");

    place.share_secret("node");
    let server = start(
        &cluster.launch(&place.path("node"), &keyspace.name).with(&["--admin-token-file", &place.text("admin-token")]),
    );
    assert_eq!(lists(&mut server.connect(), &secret, user), before, "rows, times and lists");
    // A server on a cluster gives the same.
    done(&place.export_from(&server, "served.ndjson"));
    assert_eq!(rows("served.ndjson"), rows("first.ndjson"));
    check_barriers(&mut server.connect(), &secret, user);
    // What has been written since is newer, and stays; so does what was forgotten since.
    let token = mint(&secret, user);
    assert_eq!(server.connect().beat(&token, beat(1, 4_000)).status, 204);
    assert_eq!(server.connect().delete(&format!("{PROGRESS}/-1"), &token).status, 204);
    done(&place.import_into(&cluster, &keyspace.name, "export.ndjson.zst"));
    assert_eq!(server.connect().get(&format!("{PROGRESS}/1"), Some(&token)).json()["position_seconds"], 4_000.0);
    assert_eq!(server.connect().get(&format!("{PROGRESS}/-1"), Some(&token)).json()["state"], "none");
    drop(server);

    // And back: into an empty directory, rows and times.
    let back = place.import("first.ndjson", "back");
    assert_eq!(done(&back)["changed"], exported["rows"]);
    assert!(back.stderr.contains("holds no forgotten titles"), "{back:?}");
    place.share_secret("back");
    let server = place.launch("back").start();
    assert_eq!(lists(&mut server.connect(), &secret, user), before);
}

#[test]
fn cassandra_loses_nothing_that_a_load_was_promised_on_the_way() {
    let Some((cluster, _in_use)) = Cluster::shared("cassandra_loses_nothing_on_the_way") else { return };
    let place = Place::new();
    let embedded = place.launch("data").start();
    let ledger = place.text("ledger");
    let load = |command: &[&str], server: &crate::process::Server, directory: &str| {
        let target = format!("http://{}", server.address);
        let directory = place.text(directory);
        run(&[command, &["--target", &target, "--data-dir", &directory, "--ledger", &ledger]].concat())
    };
    let loaded = load(&["load", "--streamers", "500", "--interval", "500ms", "--duration", "4s"], &embedded, "data");
    assert!(matches!(loaded.code, Some(0 | 3)), "a slow machine may miss its schedule: {loaded:?}");
    done(&place.export_from(&embedded, "export.ndjson.zst"));
    drop(embedded);
    let keyspace = Keyspace::of(&cluster);
    done(&place.import_into(&cluster, &keyspace.name, "export.ndjson.zst"));
    // An export that broke off in the midst, in the order of a cluster, goes on.
    done(&place.export_of_cluster(&cluster, &keyspace.name, "whole.ndjson"));
    let whole = fs::read(place.path("whole.ndjson")).unwrap();
    fs::write(place.path("part.ndjson.partial"), &whole[..whole.len() / 2]).unwrap();
    let resumed = done(&place.export_of_cluster(&cluster, &keyspace.name, "part.ndjson"));
    assert!(resumed["lines_of_earlier_run"].as_u64() > Some(100), "{resumed}");
    let distinct = |file: &str| place.lines(file).into_iter().collect::<BTreeSet<_>>();
    assert_eq!(distinct("part.ndjson"), distinct("whole.ndjson"));
    place.share_secret("node");
    let server = start(&cluster.launch(&place.path("node"), &keyspace.name));
    let verified = load(&["load", "verify"], &server, "node");
    assert_eq!(verified.code, Some(0), "{verified:?}");
}

#[test]
fn cassandra_rows_of_others_are_left_out_of_an_export_and_counted() {
    let Some((cluster, _in_use)) = Cluster::shared("cassandra_rows_of_others") else { return };
    let (place, keyspace) = (Place::new(), Keyspace::of(&cluster));
    let insert = |values: &str, rest: &str| {
        let table = format!("{}.resume_positions", keyspace.name);
        let columns = "(user_id, movie_id, position_seconds, duration_seconds)";
        cluster.xtask(&["cql", "1", &format!("INSERT INTO {table} {columns} VALUES ({values}) {rest}")]);
    };
    insert("1, 1, 5.5, 0.0", "USING TIMESTAMP 1700000000000000");
    insert("1, 2, NaN, 0.0", "");
    insert("2, 1, null, 0.0", "");
    insert("3, 1, 5.5, 0.0", "USING TIMESTAMP 9000000000000000");
    let exported = done(&place.export_of_cluster(&cluster, &keyspace.name, "export.ndjson"));
    assert_eq!((&exported["rows"], &exported["rows_left_out"]), (&json!(1), &json!(3)), "{exported}");
    let row = r#"{"row":{"user_id":"1","movie_id":"1","position_seconds":5.5,"duration_seconds":null,"write_time_us":1700000000000000}}"#;
    assert_eq!(place.lines("export.ndjson"), [row]);
}

#[test]
fn cassandra_that_is_not_there_ends_an_export_and_an_import_with_its_reason() {
    // Needs no cluster: that is the point.
    let place = Place::new();
    let nowhere = Cluster { nodes: "127.0.0.1:1".to_owned() };
    let ended = place.export_of_cluster(&nowhere, "playhead", "export.ndjson");
    assert!(ended.code == Some(1) && ended.stderr.contains("--cassandra-nodes"), "{ended:?}");
    assert!(!place.path("export.ndjson").exists());
}
