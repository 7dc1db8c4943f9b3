//! The store on a real cluster: the conformance suite, and each rule that only a cluster can show.
//!
//! `PLAYHEAD_TEST_CASSANDRA` names nodes, as `--cassandra-nodes` does, and `PLAYHEAD_TEST_CASSANDRA_SECURE` one that wants
//! a password and syncs by `group`; without them these tests say that they were skipped. `cargo xtask ci --only cassandra`
//! starts both and sets these. Each test has a keyspace or users of its own, so they
//! run at once.

mod proxy;

use super::connection::{Connection, connect};
use super::{Cassandra, CassandraOptions, Consistency, Credentials, Rig, Stamps, schema};
use crate::conformance::{self, Caller, Subject, TestClock};
use crate::metrics::StoreMetrics;
use crate::store::scan::Scan;
use crate::store::{Condition, Group, Health, Refusal, Store, StoreError};
use futures_util::future::BoxFuture;
use playhead_core::{Bookmark, Change, Clock, MediaDuration, MovieId, Position, UserId, Write, WriteTime};
use proxy::{Cut, Proxies};
use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const DAY: Duration = Duration::from_secs(86_400);
const MOVIE: MovieId = MovieId(7);

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Options for a keyspace that is made if it is not there; `None`, and a word about it, without a cluster.
fn options(test: &str, keyspace: &str) -> Option<CassandraOptions> {
    options_on("PLAYHEAD_TEST_CASSANDRA", None, test, keyspace)
}

/// The same on the nodes in this variable.
fn options_on(
    variable: &str,
    credentials: Option<Credentials>,
    test: &str,
    keyspace: &str,
) -> Option<CassandraOptions> {
    let Ok(nodes) = std::env::var(variable) else {
        // Past the harness, which keeps what passing tests print to itself.
        let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: needs a cluster in {variable}; see docs/DEVELOPING.md");
        return None;
    };
    let options = CassandraOptions {
        nodes: nodes.split(',').map(str::to_owned).collect(),
        keyspace: keyspace.to_owned(),
        data_center: None,
        credentials,
        authorities: None,
        consistency: Consistency::LocalQuorum,
        require_synced_commitlog: false,
        retention: None,
        max_item_age: 30 * DAY,
        commit_window: Duration::from_millis(5),
    };
    let copies = u8::try_from(options.nodes.len().min(3)).unwrap();
    // Two nodes that make one table at the same time may make two of it: one test after the other.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    schema::apply(&options, copies).unwrap();
    Some(options)
}

/// A clock that runs from where it is set.
struct Running {
    shown: WriteTime,
    since: Instant,
}

impl Running {
    /// This far ahead of the cluster's (below 0: behind), in milliseconds.
    fn ahead_of(cql: &Cql, by_ms: i64) -> Self {
        let (shown,) =
            cql.rows::<(scylla::value::CqlTimestamp,)>("SELECT toTimestamp(now()) FROM system.local").pop().unwrap();
        let micros = u64::try_from((shown.0 + by_ms) * 1_000).unwrap();
        Self { shown: WriteTime::from_micros(micros), since: Instant::now() }
    }
}

impl Clock for Running {
    fn now(&self) -> WriteTime {
        WriteTime::from_micros(self.shown.micros() + u64::try_from(self.since.elapsed().as_micros()).unwrap())
    }
}

/// Statements past the store.
struct Cql {
    runtime: tokio::runtime::LocalRuntime,
    connection: Connection,
}

impl Cql {
    fn of(options: &CassandraOptions) -> Self {
        let runtime = super::runtime().unwrap();
        let connection = runtime.block_on(connect(options)).unwrap();
        Self { runtime, connection }
    }

    /// At the session's consistency: a single replica may not have the newest write yet.
    fn rows<T>(&self, text: &str) -> Vec<T>
    where
        T: for<'r> scylla::deserialize::row::DeserializeRow<'r, 'r>,
    {
        let answer = self.runtime.block_on(self.connection.session.query_unpaged(text, ())).unwrap();
        let rows = answer.into_rows_result().unwrap();
        rows.rows::<T>().unwrap().collect::<Result<_, _>>().unwrap()
    }

    fn run(&self, text: &str) {
        self.runtime.block_on(self.connection.change(text)).unwrap();
    }

    /// Of all unlogged batches that any node has had.
    fn most_partitions_of_a_batch(&self) -> i64 {
        let most = "SELECT max FROM system_views.batch_metrics WHERE name = 'partitions_per_unlogged_batch'";
        let ask = |node| self.runtime.block_on(self.connection.ask::<(i64,)>(node, most)).expect("a node does not say");
        self.connection.nodes().iter().map(|node| ask(node).0).max().expect("there are nodes")
    }
}

fn wait_until(store: &dyn Store, what: &str, is_so: impl Fn(&Health) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let health = store.condition().health();
        if is_so(&health) {
            return;
        }
        assert!(Instant::now() < deadline, "not {what}: {health:?}");
        std::thread::yield_now();
    }
}

fn ready(store: Cassandra) -> Arc<dyn Store> {
    wait_until(&store, "ready", |health| *health == Health::Ready);
    Arc::new(store)
}

fn open(options: &CassandraOptions, clock: impl Clock) -> Cassandra {
    Cassandra::open(options.clone(), Arc::new(clock)).unwrap()
}

fn put_of(user: UserId, seconds: f64, duration: Option<f64>) -> Write {
    let position = Position::from_seconds(seconds).unwrap();
    let duration = duration.map(|seconds| MediaDuration::from_seconds(seconds).unwrap());
    Write { user, change: Change::Put { movie: MOVIE, position, duration } }
}

fn put(user: UserId, seconds: f64) -> Write {
    put_of(user, seconds, None)
}

fn seconds(caller: &Caller, user: UserId) -> Option<f64> {
    caller.bookmark(user, MOVIE).unwrap().map(|bookmark| bookmark.position.seconds())
}

/// A user that no other test and no other run has.
fn new_user() -> UserId {
    UserId(i64::from_le_bytes(fastrand::u64(..).to_le_bytes()))
}

/// Another table would be a change of schema for each case of the suite; other users do as well.
struct Masked {
    store: Arc<dyn Store>,
    mask: i64,
}

impl Store for Masked {
    fn commit(&self, mut group: Group) {
        for write in &mut group.writes {
            write.user.0 ^= self.mask;
        }
        self.store.commit(group);
    }

    fn bookmarks(
        &self,
        user: UserId,
        movies: Vec<MovieId>,
    ) -> BoxFuture<'static, Result<Vec<Option<Bookmark>>, StoreError>> {
        self.store.bookmarks(UserId(user.0 ^ self.mask), movies)
    }

    fn titles(&self, user: UserId) -> BoxFuture<'static, Result<Vec<Bookmark>, StoreError>> {
        self.store.titles(UserId(user.0 ^ self.mask))
    }

    fn scan(&self, from: Option<UserId>) -> Scan {
        let (mut scan, mask) = (self.store.scan(from.map(|user| UserId(user.0 ^ self.mask))), self.mask);
        Scan::on_a_thread(scan.has_barriers(), move |pieces| {
            while let Some(piece) = scan.blocking_next()? {
                pieces.put_all(piece.into_iter().map(|mut record| {
                    record.user.0 ^= mask;
                    Ok(record)
                }))?;
            }
            Ok(())
        })
    }

    fn condition(&self) -> &Condition {
        self.store.condition()
    }

    fn metrics(&self) -> &StoreMetrics {
        self.store.metrics()
    }

    fn close(&self) -> Result<(), StoreError> {
        self.store.close()
    }
}

#[test]
fn cassandra_conforms() {
    let Some(options) = options("cassandra_conforms", "playhead_conformance") else { return };
    conformance::run(6, |setup| {
        let options =
            CassandraOptions { retention: setup.retention, max_item_age: setup.max_item_age, ..options.clone() };
        let clock: Arc<TestClock> = Arc::clone(&setup.clock);
        // Write times rise per process: one that is started again in this test goes on as the same.
        let stamps = Arc::new(Stamps::default());
        let mask = new_user().0;
        let open = move || -> Arc<dyn Store> {
            let rig = Rig { clock_is_set: true, deadline: PATIENCE, ..Rig::default() };
            let store = Cassandra::open_with(options.clone(), clock.clone(), Arc::clone(&stamps), rig).unwrap();
            Arc::new(Masked { store: ready(store), mask })
        };
        Subject { store: open(), disturb: None, reopen: Some(Box::new(open)) }
    });
}

#[test]
fn a_write_replaces_the_whole_row_and_both_columns_have_its_write_time() {
    let Some(options) = options("a_write_replaces_the_whole_row", "playhead_rows") else { return };
    let cql = Cql::of(&options);
    let caller = Caller::of(ready(open(&options, Running::ahead_of(&cql, 0))));
    let user = new_user();
    assert_eq!(caller.each(&[put_of(user, 10.0, Some(100.0))]), [Ok(())]);
    assert_eq!(caller.each(&[put(user, 20.0)]), [Ok(())]);
    let text = format!(
        "SELECT position_seconds, duration_seconds, WRITETIME(position_seconds), WRITETIME(duration_seconds), \
         TTL(position_seconds) FROM playhead_rows.resume_positions WHERE user_id = {}",
        user.0
    );
    type Row = (Option<f64>, Option<f64>, Option<i64>, Option<i64>, Option<i32>);
    let rows = cql.rows::<Row>(&text);
    let [(position, duration, of_position, of_duration, ttl)] = rows[..] else { panic!("{rows:?}") };
    assert_eq!((position, duration, ttl), (Some(20.0), Some(0.0), None), "an unknown duration is 0.0, never null");
    assert_eq!(of_position, of_duration);
    let shown = caller.bookmark(user, MOVIE).unwrap().unwrap();
    assert_eq!(i64::try_from(shown.write_time.micros()).ok(), of_position);
}

#[test]
fn a_client_batch_is_one_mutation_with_a_write_time_for_each_row() {
    let Some(options) = options("a_client_batch_is_one_mutation", "playhead_rows") else { return };
    let cql = Cql::of(&options);
    let caller = Caller::of(ready(open(&options, Running::ahead_of(&cql, 0))));
    let user = new_user();
    let item = |index: u32| {
        let (movie, position) = (MovieId(i64::from(index)), Position::from_seconds(f64::from(index)).unwrap());
        let age = Duration::from_secs(u64::from(500 - index));
        Write { user, change: Change::LatePut { movie, position, duration: None, age } }
    };
    // Far more than the 50 KiB above which Cassandra refuses batches over many partitions.
    assert_eq!(caller.whole(&(0..500).map(item).collect::<Vec<_>>()), Ok(()));
    let titles = caller.titles(user).unwrap();
    assert_eq!(titles.len(), 500);
    assert!(titles.is_sorted_by(|newer, older| newer.write_time > older.write_time && newer.movie > older.movie));
}

#[test]
fn rows_expire_with_their_retention_counted_from_their_write_time() {
    let Some(options) = options("rows_expire_with_their_retention", "playhead_rows") else { return };
    let options = CassandraOptions { retention: Some(Duration::from_secs(3_600)), ..options };
    let cql = Cql::of(&options);
    let caller = Caller::of(ready(open(&options, Running::ahead_of(&cql, 0))));
    let (fresh, old, expired) = (new_user(), new_user(), new_user());
    let late = |user, age_s| {
        let (position, age) = (Position::from_seconds(1.0).unwrap(), Duration::from_secs(age_s));
        Write { user, change: Change::LatePut { movie: MOVIE, position, duration: None, age } }
    };
    assert_eq!(caller.each(&[late(fresh, 0), late(old, 3_000), late(expired, 7_200)]), [Ok(()); 3]);
    let ttl = |user: UserId| {
        let from = "FROM playhead_rows.resume_positions";
        let text = format!("SELECT TTL(position_seconds) {from} WHERE user_id = {}", user.0);
        cql.rows::<(Option<i32>,)>(&text).pop().and_then(|(ttl,)| ttl)
    };
    assert!((3_500..=3_601).contains(&ttl(fresh).unwrap()));
    assert!((500..=601).contains(&ttl(old).unwrap()));
    assert!(ttl(expired).is_none_or(|ttl| ttl <= 1));
    assert_eq!((seconds(&caller, fresh), seconds(&caller, expired)), (Some(1.0), None));
}

#[test]
fn rows_that_nobody_of_us_wrote_are_left_out_and_counted() {
    let Some(options) = options("rows_that_nobody_of_us_wrote", "playhead_rows") else { return };
    let cql = Cql::of(&options);
    let store = ready(open(&options, Running::ahead_of(&cql, 0)));
    let caller = Caller::of(Arc::clone(&store));
    let user = new_user();
    assert_eq!(caller.each(&[put(user, 5.0)]), [Ok(())]);
    let insert = |movie: i64, values: &str| {
        let into = "INSERT INTO playhead_rows.resume_positions (user_id, movie_id, position_seconds, duration_seconds)";
        cql.run(&format!("{into} VALUES ({}, {movie}, {values}", user.0));
    };
    insert(1, "null, 0.0)");
    insert(2, "NaN, 0.0)");
    insert(3, "-1.0, 0.0)");
    insert(4, "1.0, 0.0) USING TIMESTAMP 9000000000000000");
    insert(5, "1.0, null)");
    insert(6, "Infinity, 0.0)");
    let titles: Vec<_> = caller.titles(user).unwrap().iter().map(|bookmark| bookmark.movie).collect();
    assert_eq!(titles, [MOVIE]);
    assert_eq!(caller.bookmarks(user, &[MovieId(2), MovieId(4)]), Ok(vec![None, None]));
    assert_eq!(store.metrics().foreign_rows.get(), 8);
}

#[test]
fn a_forget_takes_along_a_row_of_a_clock_ahead_and_the_next_beat_is_kept() {
    let Some(options) = options("a_forget_takes_along_a_row_of_a_clock_ahead", "playhead_rows") else { return };
    let cql = Cql::of(&options);
    let right = Caller::of(ready(open(&options, Running::ahead_of(&cql, 0))));
    let ahead = Caller::of(ready(open(&options, Running::ahead_of(&cql, 400))));
    for erases in [false, true] {
        let user = new_user();
        let change = if erases { Change::Erase } else { Change::Forget { movie: MOVIE } };
        assert_eq!(ahead.each(&[put(user, 10.0)]), [Ok(())]);
        assert_eq!(right.whole(&[Write { user, change }]), Ok(()));
        assert_eq!(seconds(&right, user), None, "erases: {erases}");
        assert_eq!(right.each(&[put(user, 3.0)]), [Ok(())]);
        assert_eq!(seconds(&right, user), Some(3.0), "erases: {erases}");
    }
}

#[test]
fn an_erasure_takes_a_row_from_nowhere_and_leaves_the_user_a_future() {
    let Some(options) = options("an_erasure_takes_a_row_from_nowhere", "playhead_rows") else { return };
    let cql = Cql::of(&options);
    let caller = Caller::of(ready(open(&options, Running::ahead_of(&cql, 0))));
    let user = new_user();
    let table = "playhead_rows.resume_positions";
    cql.run(&format!(
        "INSERT INTO {table} (user_id, movie_id, position_seconds, duration_seconds) VALUES ({}, 99, 1.0, 0.0) USING \
         TIMESTAMP 9000000000000000",
        user.0
    ));
    assert_eq!(caller.each(&[put(user, 10.0)]), [Ok(())]);
    assert_eq!(caller.whole(&[Write { user, change: Change::Erase }]), Ok(()));
    assert!(cql.rows::<(i64,)>(&format!("SELECT movie_id FROM {table} WHERE user_id = {}", user.0)).is_empty());
    assert_eq!(caller.each(&[put(user, 3.0)]), [Ok(())]);
    assert_eq!(seconds(&caller, user), Some(3.0));
}

#[test]
fn a_clock_that_disagrees_warns_and_then_stops_writes_but_not_reads() {
    let Some(options) = options("a_clock_that_disagrees", "playhead_rows") else { return };
    let cql = Cql::of(&options);
    let user = new_user();
    let right = Caller::of(ready(open(&options, Running::ahead_of(&cql, 0))));
    assert_eq!(right.each(&[put(user, 1.0)]), [Ok(())]);
    for (ahead_ms, word) in [(1_000, "ahead of"), (-1_000, "behind")] {
        let store = open(&options, Running::ahead_of(&cql, ahead_ms));
        wait_until(&store, "degraded", |health| matches!(health, Health::Degraded(reason) if reason.contains(word)));
        assert_eq!(Caller::of(Arc::new(store)).each(&[put(new_user(), 1.0)]), [Ok(())]);
    }
    for (ahead_ms, word) in [(5_000, "ahead of"), (-5_000, "behind")] {
        let store = open(&options, Running::ahead_of(&cql, ahead_ms));
        wait_until(&store, "unready", |health| matches!(health, Health::Unready(reason) if reason.contains(word)));
        let caller = Caller::of(Arc::new(store));
        assert_eq!(caller.each(&[put(user, 2.0)]), [Err(StoreError::Refused(Refusal::Unavailable))]);
        assert_eq!(seconds(&caller, user), Some(1.0));
    }
}

#[test]
fn commit_logs_that_are_synced_are_seen() {
    let Some(options) = options("commit_logs_that_are_synced", "playhead_rows") else { return };
    let cql = Cql::of(&options);
    let (setting,) =
        cql.rows::<(String,)>("SELECT value FROM system_views.settings WHERE name = 'commitlog_sync'").pop().unwrap();
    let options = CassandraOptions { require_synced_commitlog: true, ..options };
    let store = open(&options, Running::ahead_of(&cql, 0));
    if setting == "periodic" {
        let names_it = |reason: &str| reason.contains("--require-synced-commitlog");
        wait_until(&store, "unready", |health| matches!(health, Health::Unready(reason) if names_it(reason)));
    } else {
        wait_until(&store, "ready", |health| *health == Health::Ready);
        assert_eq!(store.condition().durability(), Some(crate::Durability::Synced));
    }
}

#[test]
fn whatever_is_cut_on_the_way_the_newest_write_stays() {
    let Some(options) = options("whatever_is_cut_on_the_way", "playhead_rows") else { return };
    let cql = Cql::of(&options);
    let proxies = Proxies::before(&options.nodes);
    let rig = Rig { detours: Some(proxies.detours()), ..Rig::default() };
    let through = CassandraOptions { nodes: proxies.addresses(), ..options };
    let clock = Arc::new(Running::ahead_of(&cql, 0));
    let caller = Caller::of(ready(Cassandra::open_with(through, clock, Arc::default(), rig).unwrap()));
    // Many rows at once share requests, and so what is cut.
    let users: Vec<UserId> = (0..25).map(|_| new_user()).collect();
    let puts = |position| users.iter().map(|user| put(*user, position)).collect::<Vec<_>>();
    let (mut acknowledged, mut unknown) = (0, 0);
    for round in 1..=40_u32 {
        // Before the request reaches a node, or before its answer comes back; and now and then not at all.
        proxies.cut([Cut::Requests, Cut::Answers, Cut::Nothing][round as usize % 3]);
        for outcome in caller.each(&puts(f64::from(round))) {
            match outcome {
                Ok(()) => acknowledged += 1,
                Err(StoreError::Unknown | StoreError::Refused(_)) => unknown += 1,
                Err(other) => panic!("{other:?}"),
            }
        }
        proxies.cut(Cut::Nothing);
    }
    // Now that the way is free, a last beat, and every repeat of an older one has come or never will.
    let deadline = Instant::now() + PATIENCE;
    while caller.each(&puts(1_000.0)).iter().any(Result::is_err) {
        assert!(Instant::now() < deadline, "the store did not recover");
    }
    println!("{acknowledged} were acknowledged, {unknown} outcomes were unknown, {} cuts", proxies.cuts());
    assert!(proxies.cuts() > 0, "nothing was cut");
    let direct = Caller::of(ready(open(
        &CassandraOptions { nodes: proxies.behind(), ..cql_options(&cql) },
        Running::ahead_of(&cql, 0),
    )));
    for user in &users {
        assert_eq!(seconds(&direct, *user), Some(1_000.0));
    }
}

#[test]
fn rows_of_one_moment_share_requests_and_no_node_warns_of_them() {
    let Some(options) = options("rows_of_one_moment_share_requests", "playhead_rows") else { return };
    let cql = Cql::of(&options);
    let caller = Caller::of(ready(open(&options, Running::ahead_of(&cql, 0))));
    let puts: Vec<Write> = (0..2_000).map(|_| put(new_user(), 5.0)).collect();
    assert!(caller.each(&puts).iter().all(Result::is_ok));
    let most = cql.most_partitions_of_a_batch();
    assert!((2..=10).contains(&most), "{most} partitions in one batch");
}

#[test]
fn a_write_waits_for_its_window() {
    let Some(options) = options("a_write_waits_for_its_window", "playhead_rows") else { return };
    let cql = Cql::of(&options);
    let commit_window = CassandraOptions::COMMIT_WINDOW_MAX;
    let options = CassandraOptions { commit_window, ..options };
    let rig = Rig { deadline: PATIENCE, ..Rig::default() };
    let clock = Arc::new(Running::ahead_of(&cql, 0));
    let caller = Caller::of(ready(Cassandra::open_with(options, clock, Arc::default(), rig).unwrap()));
    let (user, began) = (new_user(), Instant::now());
    caller.each(&[put(user, 5.0)])[0].unwrap();
    assert!(began.elapsed() >= commit_window, "{:?}", began.elapsed());
    assert_eq!(seconds(&caller, user), Some(5.0));
}

#[test]
fn rows_of_one_moment_go_by_themselves_where_syncs_are_far_between() {
    let by_default = Credentials { user: "cassandra".to_owned(), password: "cassandra".to_owned() };
    let grouped = ("PLAYHEAD_TEST_CASSANDRA_SECURE", Some(by_default));
    let Some(options) = options_on(grouped.0, grouped.1, "rows_of_one_moment_go_by_themselves", "playhead_rows") else {
        return;
    };
    let cql = Cql::of(&options);
    let rig = Rig { deadline: PATIENCE, ..Rig::default() };
    let clock = Arc::new(Running::ahead_of(&cql, 0));
    let caller = Caller::of(ready(Cassandra::open_with(options, clock, Arc::default(), rig).unwrap()));
    let puts: Vec<Write> = (0..500).map(|_| put(new_user(), 5.0)).collect();
    assert!(caller.each(&puts).iter().all(Result::is_ok));
    assert!(cql.most_partitions_of_a_batch() <= 1);
}

fn cql_options(_: &Cql) -> CassandraOptions {
    options("a second look", "playhead_rows").expect("there was a cluster a moment ago")
}
