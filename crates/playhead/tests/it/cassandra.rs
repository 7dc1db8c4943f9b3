//! The server on a real Cassandra cluster: what works, and what is said when it can't.
//!
//! `PLAYHEAD_TEST_CASSANDRA` names nodes as `--cassandra-nodes` does; `PLAYHEAD_TEST_CASSANDRA_SECURE` names one that
//! wants a password and speaks TLS. Without them the tests say that they were skipped. `cargo xtask ci --only cassandra`
//! starts both and sets these; [`crate::cassandra_faults`] kills and pauses nodes, and needs the cluster for itself
//! meanwhile.

use crate::client::{Client, PROGRESS, beat, token};
use crate::process::{Ended, Launch, PATIENCE_FOR_CLUSTER, Server, run, skip, within};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use tempfile::TempDir;

/// Held to use the cluster; for oneself, to break it.
static CLUSTER: RwLock<()> = RwLock::new(());

/// A cluster that is there.
pub(crate) struct Cluster {
    /// What `--cassandra-nodes` takes.
    pub(crate) nodes: String,
}

impl Cluster {
    /// The cluster, to be used beside other tests.
    pub(crate) fn shared(test: &str) -> Option<(Self, RwLockReadGuard<'static, ()>)> {
        let cluster = Self::of("PLAYHEAD_TEST_CASSANDRA", test)?;
        Some((cluster, CLUSTER.read().unwrap_or_else(PoisonError::into_inner)))
    }

    /// The cluster, to be broken.
    pub(crate) fn alone(test: &str) -> Option<(Self, RwLockWriteGuard<'static, ()>)> {
        let cluster = Self::of("PLAYHEAD_TEST_CASSANDRA", test)?;
        Some((cluster, CLUSTER.write().unwrap_or_else(PoisonError::into_inner)))
    }

    /// The node that wants a password.
    fn secure(test: &str) -> Option<Self> {
        Self::of("PLAYHEAD_TEST_CASSANDRA_SECURE", test)
    }

    fn of(variable: &str, test: &str) -> Option<Self> {
        let nodes = std::env::var(variable).ok();
        if nodes.is_none() {
            skip(test, &format!("needs a cluster in {variable}; see docs/DEVELOPING.md"));
        }
        Some(Self { nodes: nodes? })
    }

    /// How many copies a keyspace here can have.
    fn copies(&self) -> String {
        self.nodes.split(',').count().min(3).to_string()
    }

    /// Makes a keyspace for a test, unless it is there.
    pub(crate) fn make(&self, keyspace: &str) {
        let made = run(&[
            "schema",
            "apply",
            "--cassandra-nodes",
            &self.nodes,
            "--cassandra-keyspace",
            keyspace,
            "--cassandra-replication",
            &self.copies(),
        ]);
        assert_eq!(made.code, Some(0), "{made:?}");
    }

    /// How a server on it is started.
    pub(crate) fn launch(&self, directory: &Path, keyspace: &str) -> Launch {
        let store = ["--dev", "--store", "cassandra", "--cassandra-nodes", &self.nodes];
        Launch::new(directory, &[&store[..], &["--cassandra-keyspace", keyspace]].concat())
    }

    /// Runs `cargo xtask cassandra` on it.
    pub(crate) fn xtask(&self, arguments: &[&str]) -> String {
        let output = self.xtask_command(arguments).output().unwrap();
        let talk = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {talk}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The same, to be started by the caller.
    pub(crate) fn xtask_command(&self, arguments: &[&str]) -> Command {
        let variable = |name: &str| std::env::var_os(name).unwrap_or_else(|| panic!("{name} goes with the cluster"));
        let mut command = Command::new(variable("PLAYHEAD_TEST_XTASK"));
        command
            .arg("cassandra")
            .args(arguments)
            .arg("--dir")
            .arg(PathBuf::from(variable("PLAYHEAD_TEST_CASSANDRA_DIR")));
        command
    }
}

/// What `/readyz` says.
pub(crate) fn readiness(server: &Server) -> (u16, Value) {
    let answer = Client::to(server.admin).get("/readyz", None);
    (answer.status, answer.json())
}

/// Waits until it is ready.
pub(crate) fn wait_until_ready(server: &Server) {
    within(PATIENCE_FOR_CLUSTER, "ready", || readiness(server).0 == 200);
}

/// Starts a server and waits until the cluster is in use.
pub(crate) fn start(launch: &Launch) -> Server {
    let server = launch.start();
    wait_until_ready(&server);
    server
}

/// A user that no other run has.
pub(crate) fn new_user() -> i64 {
    -fastrand::i64(1 << 40..1 << 60)
}

#[test]
fn a_position_written_through_one_server_is_read_through_another_and_lies_in_the_table() {
    let test = "a_position_written_through_one_server_is_read_through_another";
    let Some((cluster, _in_use)) = Cluster::shared(test) else { return };
    cluster.make("playhead_api");
    let directory = tempfile::tempdir().unwrap();
    let launch = cluster.launch(directory.path(), "playhead_api");
    let (one, other) = (start(&launch), start(&launch));
    let user = new_user();
    let token = token(directory.path(), user);
    let body = r#"{"movie_id": 42, "position_seconds": 1234.5, "duration_seconds": 7200}"#;
    assert_eq!(one.connect().beat(&token, body).status, 204);
    let read = other.connect().get(&format!("{PROGRESS}/42"), Some(&token));
    assert_eq!((read.status, &read.json()["position_seconds"]), (200, &json!(1234.5)), "{read:?}");
    let statement = format!(
        "SELECT movie_id, position_seconds, duration_seconds FROM playhead_api.resume_positions WHERE user_id = {user}"
    );
    assert_eq!(cluster.xtask(&["cql", "1", &statement]), "42\t1234.5\t7200\n");
    let (status, ready) = readiness(&one);
    assert_eq!((status, &ready["status"], &ready["durability"]), (200, &json!("ready"), &json!("synced")), "{ready}");
    assert_eq!(one.metric("playhead_store_durability"), 3);
    // The newest wins, whichever server it came through.
    assert_eq!(other.connect().beat(&token, beat(42, 7)).status, 204);
    assert_eq!(one.connect().get(&format!("{PROGRESS}/42"), Some(&token)).json()["position_seconds"], 7.0);
}

#[test]
fn batches_lists_and_deletions_work_as_on_any_store() {
    let Some((cluster, _in_use)) = Cluster::shared("batches_lists_and_deletions") else { return };
    cluster.make("playhead_api");
    let directory = tempfile::tempdir().unwrap();
    let server = start(&cluster.launch(directory.path(), "playhead_api"));
    let token = token(directory.path(), new_user());
    let mut client = server.connect();
    let item = |movie: i64, age_s: i64| json!({"movie_id": movie, "position_seconds": movie, "event_time_ms": 1_000_000_000 - age_s * 1_000});
    let items: Vec<_> = (1..=60).map(|movie| item(movie, movie)).collect();
    let batch = json!({"sent_at_ms": 1_000_000_000, "items": items}).to_string();
    assert_eq!(client.batch(&token, batch).status, 204);
    let page = client.get(&format!("{PROGRESS}?limit=25"), Some(&token)).json();
    let ids: Vec<_> =
        page["items"].as_array().unwrap().iter().map(|item| item["movie_id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, (1..=25).map(|movie| movie.to_string()).collect::<Vec<_>>());
    let next = page["next_cursor"].as_str().unwrap();
    let second = client.get(&format!("{PROGRESS}?limit=25&cursor={next}"), Some(&token)).json();
    assert_eq!(second["items"][0]["movie_id"], "26");
    assert_eq!(client.delete(&format!("{PROGRESS}/1"), &token).status, 204);
    // What happened before it was forgotten does not bring it back.
    let late = json!({"sent_at_ms": 1_000_000_000, "items": [item(1, 60)]}).to_string();
    assert_eq!(client.batch(&token, late).status, 204);
    let set = client.get(&format!("{PROGRESS}?movie_id=1&movie_id=2"), Some(&token)).json();
    assert_eq!((&set["items"][0]["state"], &set["items"][1]["position_seconds"]), (&json!("none"), &json!(2.0)));
    assert_eq!(client.delete(PROGRESS, &token).status, 204);
    assert_eq!(client.get(PROGRESS, Some(&token)).json()["items"], json!([]));
}

/// Runs `schema` on a keyspace.
fn schema(cluster: &Cluster, action: &str, keyspace: &str, flags: &[&str]) -> Ended {
    run(&[&["schema", action, "--cassandra-nodes", &cluster.nodes, "--cassandra-keyspace", keyspace][..], flags]
        .concat())
}

#[test]
fn the_schema_is_printed_made_once_and_compared() {
    let Some((cluster, _in_use)) = Cluster::shared("the_schema_is_printed_made_once_and_compared") else { return };
    let printed = run(&["schema", "cql", "--cassandra-keyspace", "mine", "--cassandra-data-center", "eu-west"]);
    assert!(printed.stdout.contains("CREATE TABLE IF NOT EXISTS mine.resume_positions"), "{printed:?}");
    assert!(printed.stdout.contains("'eu-west': 3") && printed.stdout.contains("gc_grace_seconds = 2764800"));
    let keyspace = "playhead_schema";
    cluster.xtask(&["cql", "1", &format!("DROP KEYSPACE IF EXISTS {keyspace}")]);
    let missing = schema(&cluster, "check", keyspace, &[]);
    assert!(missing.code == Some(1) && missing.stdout.contains("there is no keyspace"), "{missing:?}");
    for _ in 0..2 {
        let made = schema(&cluster, "apply", keyspace, &["--cassandra-replication", &cluster.copies()]);
        assert!(made.code == Some(0) && made.stdout.contains("as it must be"), "{made:?}");
    }
    let checked = schema(&cluster, "check", keyspace, &["--output", "json"]);
    assert_eq!((checked.code, checked.stdout.as_str()), (Some(0), "{\"differences\":[]}\n"), "{checked:?}");
    let older_items = schema(&cluster, "check", keyspace, &["--max-item-age", "60d"]);
    assert!(older_items.code == Some(1) && older_items.stdout.contains("gc_grace_seconds"), "{older_items:?}");
}

/// Starts a server that can't use its cluster, and checks that it says why: once in its log, and in `/readyz`; that it
/// refuses, and goes on.
fn check_not_ready(launch: &Launch, directory: &TempDir, words: &[&str]) -> Server {
    let mut server = launch.start();
    let reason = |server: &Server| readiness(server).1["reasons"][0].as_str().unwrap_or_default().to_owned();
    within(PATIENCE_FOR_CLUSTER, &format!("a reason with {words:?}"), || {
        let reason = reason(&server);
        words.iter().all(|word| reason.contains(word))
    });
    assert_eq!(readiness(&server).0, 503);
    let token = token(directory.path(), 1);
    let refused = server.connect().beat(&token, beat(1, 1));
    assert_eq!((refused.status, refused.slug().as_str()), (503, "storage-unavailable"));
    let unread = server.connect().get(&format!("{PROGRESS}/1"), Some(&token));
    assert_eq!((unread.status, unread.slug().as_str()), (503, "storage-unavailable"), "never position 0");
    let told = server
        .talk()
        .lines()
        .filter(|line| line.contains("not ready") && words.iter().all(|word| line.contains(word)))
        .count();
    assert_eq!(told, 1, "{}", server.talk());
    assert!(!server.has_ended(), "it goes on trying");
    server
}

#[test]
fn a_cluster_that_is_not_there_is_named_and_waited_for() {
    // Needs no cluster: that is the point.
    let directory = tempfile::tempdir().unwrap();
    let on =
        |nodes: &str| Launch::new(directory.path(), &["--dev", "--store", "cassandra", "--cassandra-nodes", nodes]);
    check_not_ready(&on("no-such-host.invalid:9042"), &directory, &["no-such-host.invalid", "--cassandra-nodes"]);
    check_not_ready(&on("127.0.0.1:1"), &directory, &["127.0.0.1:1", "--cassandra-nodes"]);
}

#[test]
fn a_schema_that_does_not_fit_is_named_and_serves_once_it_does() {
    let Some((cluster, _in_use)) = Cluster::shared("a_schema_that_does_not_fit_is_named") else { return };
    let directory = tempfile::tempdir().unwrap();
    let keyspace = "playhead_unfit";
    let cql = |statement: &str| cluster.xtask(&["cql", "1", statement]);
    cql(&format!("DROP KEYSPACE IF EXISTS {keyspace}"));
    let launch = cluster.launch(directory.path(), keyspace);
    let server = check_not_ready(&launch, &directory, &["no keyspace playhead_unfit", "--cassandra-keyspace"]);
    let copies = cluster.copies();
    cql(&format!(
        "CREATE KEYSPACE {keyspace} WITH replication = {{'class': 'NetworkTopologyStrategy', 'datacenter1': {copies}}}"
    ));
    within(PATIENCE_FOR_CLUSTER, "the next thing that is missing", || {
        readiness(&server).1.to_string().contains("no table")
    });
    cql(&format!(
        "CREATE TABLE {keyspace}.resume_positions (user_id bigint, movie_id bigint, position_seconds float, PRIMARY KEY \
         (user_id, movie_id)) WITH gc_grace_seconds = 864000"
    ));
    for word in ["position_seconds", "is float, not double", "has no column duration_seconds", "is 864000", "2764800"] {
        within(PATIENCE_FOR_CLUSTER, word, || readiness(&server).1.to_string().contains(word));
    }
    // A server changes no schema: it is for a person to mend, and the server then serves without a new start.
    cql(&format!("DROP TABLE {keyspace}.resume_positions"));
    cluster.make(keyspace);
    wait_until_ready(&server);
    assert_eq!(server.connect().beat(&token(directory.path(), 1), beat(1, 1)).status, 204);
}

#[test]
fn flags_that_make_no_sense_are_refused_with_advice() {
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "x".repeat(32)).unwrap();
    let key = ["serve", "--store", "cassandra", "--jwt-secret-file", secret.path().to_str().unwrap()];
    let nodes = ["--cassandra-nodes", "127.0.0.1:1"];
    let cases: [(&[&str], i32, &str); 6] = [
        (&[], 2, "--cassandra-nodes"),
        (&["--cassandra-nodes", "host:port"], 2, "not HOST:PORT"),
        (&[&nodes[..], &["--cassandra-keyspace", "Two Words"]].concat(), 2, "a keyspace is"),
        (&[&nodes[..], &["--cassandra-user", "a"]].concat(), 2, "--cassandra-password-file"),
        (
            &[&nodes[..], &["--cassandra-user", "a", "--cassandra-password-file", "/nonexistent"]].concat(),
            1,
            "--cassandra-password-file",
        ),
        (
            &[&nodes[..], &["--cassandra-tls-ca-file", secret.path().to_str().unwrap()]].concat(),
            1,
            "--cassandra-tls-ca-file",
        ),
    ];
    for (flags, code, word) in cases {
        let ended = run(&[&key[..], flags].concat());
        assert!(ended.code == Some(code) && ended.stderr.contains(word), "{flags:?}: {ended:?}");
    }
}

#[test]
fn a_password_and_tls_are_spoken_and_their_failures_name_the_flags() {
    let Some(cluster) = Cluster::secure("a_password_and_tls_are_spoken") else { return };
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (right, wrong) = (file("right", "cassandra\n"), file("wrong", "mistaken"));
    let authority = std::env::var("PLAYHEAD_TEST_CASSANDRA_CA").expect("goes with the node");
    let plain = cluster.launch(directory.path(), "playhead");
    check_not_ready(&plain, &directory, &["wants a user", "--cassandra-user"]);
    let with =
        |password: &str| plain.clone().with(&["--cassandra-user", "cassandra", "--cassandra-password-file", password]);
    let refused = check_not_ready(&with(&wrong), &directory, &["refuses the user", "--cassandra-password-file"]);
    assert!(!refused.talk().contains("mistaken"), "a password is never told");
    let over_tls = with(&right).with(&["--cassandra-tls-ca-file", &authority]);
    let user =
        ["--cassandra-user", "cassandra", "--cassandra-password-file", &right, "--cassandra-tls-ca-file", &authority];
    let made = schema(&cluster, "apply", "playhead", &[&user[..], &["--cassandra-replication", "1"]].concat());
    assert_eq!(made.code, Some(0), "{made:?}");
    let server = start(&over_tls);
    assert_eq!(server.connect().beat(&token(directory.path(), 1), beat(1, 1)).status, 204);
    // The node speaks plain CQL too; an authority that did not sign its certificate is no reason to fall back on it.
    let other = file("other.pem", include_str!("cassandra/other-authority.pem"));
    let distrusted = with(&right).with(&["--cassandra-tls-ca-file", &other]);
    check_not_ready(&distrusted, &directory, &["--cassandra-tls-ca-file"]);
}
