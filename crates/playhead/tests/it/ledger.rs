//! What was sent and what was acknowledged, kept by the client, and the load that fills it: the oracle of the tests that
//! end a server in any way.
//!
//! **The promise.** Each row (one title of one user) belongs to one connection, which sends it strictly rising
//! positions, one request at a time. So after any fault and restart [`Ledger::verify`] knows what may be read back:
//! at least the last position acknowledged, at most the last one sent, exactly one of those sent; and the list must
//! agree with the point reads. What was read back once must be there ever after, and counts as acknowledged.
//!
//! **What it leaves out.** Deletions, and devices that write one title at the same time: the engine's tests have them.

use crate::client::{Answer, Client, PROGRESS, dev_secret, mint};
use crate::process::{Server, eventually};
use serde_json::Value;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Of so many heartbeats one is followed by a read of its title.
const BEATS_PER_READ: u32 = 40;

/// The most faults told of one verification.
const FAULTS_TOLD: usize = 10;

/// How long a load waits with a connection that was shed.
const SHED_PAUSE: Duration = Duration::from_millis(5);

/// Everything that was sent to one server.
pub(crate) struct Ledger {
    rows: Vec<Row>,
    rng: fastrand::Rng,
}

/// One title of one user.
#[derive(Debug, Clone)]
struct Row {
    user: i64,
    movie: i64,
    /// Added to the number of every position, so that one row's position in another is noticed. In 64ths, which every
    /// parser of JSON numbers reads exactly.
    fraction: f64,
    bearer: Arc<str>,
    /// The number of the last position sent; 0 is none.
    sent: u32,
    acknowledged: u32,
}

/// How a load is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) threads: usize,
    /// Of each thread; each has one request under way.
    pub(crate) connections: usize,
    /// Whether titles are read back meanwhile.
    pub(crate) reads: bool,
}

/// What a load met.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    pub(crate) acknowledged: u64,
    /// 503: not stored, or perhaps.
    pub(crate) unavailable: u64,
    pub(crate) reads: u64,
    /// Connections that ended.
    pub(crate) closed: u64,
    /// From sending a heartbeat to its 204, at least.
    pub(crate) fastest: Option<Duration>,
    /// Answers that must not be, in words.
    pub(crate) faults: Vec<String>,
}

/// A lost, invented or torn position, in words.
#[derive(Debug, Clone)]
pub(crate) struct Violation(pub(crate) Vec<String>);

/// How many writes this process of the server has kept so far.
pub(crate) fn kept(server: &Server) -> u64 {
    server.metric("playhead_store_records_total")
}

/// Says so if it is dropped by a panic.
struct EndOnPanic<'a>(&'a AtomicBool);

impl Drop for EndOnPanic<'_> {
    fn drop(&mut self) {
        self.0.store(std::thread::panicking(), Ordering::Relaxed);
    }
}

impl Ledger {
    /// An empty ledger of users of the dev server over this directory, some at the edges of their range, with so many
    /// titles each.
    pub(crate) fn new(users: usize, titles: usize, directory: &Path, seed: u64) -> Self {
        let secret = dev_secret(directory);
        let edges = [i64::MIN, i64::MAX, -1, 0];
        let ids = |count: usize| edges.into_iter().chain(1..).take(count).collect::<Vec<_>>();
        let mut rows = Vec::new();
        for user in ids(users) {
            let bearer: Arc<str> = mint(&secret, user).into();
            for movie in ids(titles) {
                let fraction = f64::from(u32::try_from(rows.len() % 64).unwrap()) / 64.0;
                rows.push(Row { user, movie, fraction, bearer: Arc::clone(&bearer), sent: 0, acknowledged: 0 });
            }
        }
        let mut rng = fastrand::Rng::with_seed(seed);
        // A connection's rows are then many users', and a user's rows many connections'.
        rng.shuffle(&mut rows);
        Self { rows, rng }
    }

    /// Positions acknowledged so far, over all rows.
    pub(crate) fn rows_acknowledged(&self) -> usize {
        self.rows.iter().filter(|row| row.acknowledged > 0).count()
    }

    /// Sends heartbeats until every connection has ended or `until` says so; `meanwhile` runs beside the load, on the
    /// caller's thread, and gets to know whether the load has ended.
    pub(crate) fn load<T>(
        &mut self,
        address: SocketAddr,
        load: Load,
        until: impl Fn() -> bool + Sync,
        meanwhile: impl FnOnce() -> T,
    ) -> (Tally, T) {
        let share = self.rows.len().div_ceil(load.threads);
        // Else a check that fails meanwhile would wait for a load that goes on for ever.
        let has_failed = AtomicBool::new(false);
        let until = || until() || has_failed.load(Ordering::Relaxed);
        let (rng, until) = (&mut self.rng, &until);
        std::thread::scope(|scope| {
            let mut threads = Vec::new();
            for rows in self.rows.chunks_mut(share) {
                let rng = rng.fork();
                threads.push(scope.spawn(move || load_of_thread(rows, address, load, until, rng)));
            }
            let end_on_panic = EndOnPanic(&has_failed);
            let result = meanwhile();
            drop(end_on_panic);
            let mut tally = Tally::default();
            for thread in threads {
                tally.add(thread.join().expect("a thread of the load panicked"));
            }
            (tally, result)
        })
    }

    /// Sends heartbeats until the server has kept so many of them: however slow the machine is, there were some.
    pub(crate) fn load_until_kept(&mut self, server: &Server, load: Load, beats: u64) -> Tally {
        let end = kept(server) + beats;
        let is_over = AtomicBool::new(false);
        let until = || is_over.load(Ordering::Relaxed);
        let (tally, ()) = self.load(server.address, load, until, || {
            eventually("beats are kept", || kept(server) >= end);
            is_over.store(true, Ordering::Relaxed);
        });
        tally
    }

    /// Reads every row back, by title and in lists.
    pub(crate) fn verify(&mut self, address: SocketAddr) -> Result<(), Violation> {
        let mut client = Client::to(address);
        let mut faults = Vec::new();
        let mut by_user: HashMap<i64, HashMap<String, String>> = HashMap::new();
        for row in &mut self.rows {
            let answer = client.get(&row.path(), Some(&*row.bearer));
            match row.check(&answer) {
                Ok(number) => row.acknowledged = number,
                Err(fault) => faults.push(fault),
            }
            if row.is_listed(&answer) {
                let bookmark = answer.json().to_string();
                by_user.entry(row.user).or_default().insert(row.movie.to_string(), bookmark);
            }
        }
        let bearers: HashMap<i64, Arc<str>> = self.rows.iter().map(|row| (row.user, Arc::clone(&row.bearer))).collect();
        for (user, bearer) in bearers {
            let answer = client.get(&format!("{PROGRESS}?limit=100"), Some(&*bearer));
            let points = by_user.remove(&user).unwrap_or_default();
            if let Err(fault) = check_list(&answer, &points) {
                faults.push(format!("the list of user {user}: {fault}"));
            }
        }
        if faults.is_empty() {
            return Ok(());
        }
        let count = faults.len();
        faults.truncate(FAULTS_TOLD);
        if count > FAULTS_TOLD {
            faults.push(format!("and {} more", count - FAULTS_TOLD));
        }
        Err(Violation(faults))
    }
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.unavailable += other.unavailable;
        self.reads += other.reads;
        self.closed += other.closed;
        self.fastest = self.fastest.into_iter().chain(other.fastest).min();
        self.faults.extend(other.faults);
    }
}

impl Row {
    fn path(&self) -> String {
        format!("{PROGRESS}/{}", self.movie)
    }

    fn position(&self, number: u32) -> f64 {
        f64::from(number) + self.fraction
    }

    fn beat(&mut self) -> String {
        self.sent += 1;
        // Both spellings of an id, by turns.
        let quote = if self.sent.is_multiple_of(2) { "\"" } else { "" };
        let (movie, position) = (self.movie, self.position(self.sent));
        format!("{{\"movie_id\": {quote}{movie}{quote}, \"position_seconds\": {position}}}")
    }

    /// The number of the position read, if it may be what is stored.
    fn check(&self, answer: &Answer) -> Result<u32, String> {
        let Self { user, movie, sent, acknowledged, .. } = *self;
        let row = format!("user {user}, title {movie}, sent {sent}, acknowledged {acknowledged}");
        if answer.status != 200 {
            return Err(format!("{row}: the read was answered with {}", answer.status));
        }
        let bookmark = answer.json();
        if bookmark["state"] == "none" {
            return if acknowledged == 0 { Ok(0) } else { Err(format!("{row}: lost, nothing is there")) };
        }
        let found = bookmark["position_seconds"].as_f64().unwrap_or(f64::NAN);
        match (acknowledged.max(1)..=sent).find(|number| self.position(*number) == found) {
            Some(number) => Ok(number),
            None if found < self.position(acknowledged) => Err(format!("{row}: lost, {found} is there")),
            None => Err(format!("{row}: invented, {found} is there")),
        }
    }

    fn is_listed(&self, answer: &Answer) -> bool {
        answer.status == 200 && answer.json()["state"] == "in_progress"
    }
}

/// A list must hold the bookmarks of the point reads, newest first.
fn check_list(answer: &Answer, points: &HashMap<String, String>) -> Result<(), String> {
    if answer.status != 200 {
        return Err(format!("answered with {}", answer.status));
    }
    let page = answer.json();
    let items: &[Value] = page["items"].as_array().map_or(&[], Vec::as_slice);
    if items.len() != points.len() || page["next_cursor"] != Value::Null {
        return Err(format!("{} items, next cursor {}, not {} titles", items.len(), page["next_cursor"], points.len()));
    }
    for item in items {
        let movie = item["movie_id"].as_str().unwrap_or_default();
        if points.get(movie) != Some(&item.to_string()) {
            return Err(format!("holds {item}, but by title it is {:?}", points.get(movie)));
        }
    }
    // RFC 3339 with a fixed number of digits sorts as text.
    let times = items.iter().map(|item| item["updated_at"].as_str().unwrap_or_default());
    if !times.is_sorted_by(|earlier, later| earlier >= later) {
        return Err("is not newest first".to_owned());
    }
    Ok(())
}

/// A connection and the rows that it alone writes.
struct Player<'a> {
    client: Client,
    rows: &'a mut [Row],
    under_way: Option<UnderWay>,
    paused_until: Option<Instant>,
}

/// The request that waits for its answer, by the place of its row.
enum UnderWay {
    /// Sent at this time.
    Beat(usize, Instant),
    Read(usize),
}

fn load_of_thread(
    rows: &mut [Row],
    address: SocketAddr,
    load: Load,
    until: &(impl Fn() -> bool + Sync),
    mut rng: fastrand::Rng,
) -> Tally {
    let mut tally = Tally::default();
    let share = rows.len().div_ceil(load.connections);
    let mut players = Vec::new();
    for rows in rows.chunks_mut(share) {
        match Client::try_to(address) {
            Ok(client) => players.push(Player { client, rows, under_way: None, paused_until: None }),
            Err(_) => tally.closed += 1,
        }
    }
    while !players.is_empty() && !until() {
        players.retain_mut(|player| player.send(&mut rng, load.reads).is_ok() || player.end(&mut tally));
        players.retain_mut(|player| player.receive(&mut tally).is_ok() || player.end(&mut tally));
    }
    tally
}

impl Player<'_> {
    fn send(&mut self, rng: &mut fastrand::Rng, reads: bool) -> std::io::Result<()> {
        if self.paused_until.is_some_and(|until| Instant::now() < until) {
            return Ok(());
        }
        self.paused_until = None;
        // Half of the beats go to an eighth of the rows: some are overwritten often, others rest in the base.
        let hot = (self.rows.len() / 8).max(1);
        let among = if rng.bool() { hot } else { self.rows.len() };
        let place = rng.usize(..among);
        let row = &mut self.rows[place];
        let bearer = Arc::clone(&row.bearer);
        if reads && rng.u32(..BEATS_PER_READ) == 0 {
            self.under_way = Some(UnderWay::Read(place));
            self.client.send_get(&row.path(), &bearer)
        } else {
            self.under_way = Some(UnderWay::Beat(place, Instant::now()));
            let body = row.beat();
            self.client.send_beat(&bearer, body)
        }
    }

    fn receive(&mut self, tally: &mut Tally) -> std::io::Result<()> {
        let Some(under_way) = self.under_way.take() else { return Ok(()) };
        let answer = self.client.receive()?;
        match (under_way, answer.status) {
            (UnderWay::Beat(place, sent_at), 204) => {
                let row = &mut self.rows[place];
                row.acknowledged = row.sent;
                tally.acknowledged += 1;
                tally.fastest = tally.fastest.into_iter().chain([sent_at.elapsed()]).min();
            }
            (_, 503) => {
                tally.unavailable += 1;
                self.paused_until = Some(Instant::now() + SHED_PAUSE);
            }
            (UnderWay::Read(place), 200) => {
                tally.reads += 1;
                if let Err(fault) = self.rows[place].check(&answer) {
                    tally.faults.push(format!("while the server ran, {fault}"));
                }
            }
            (UnderWay::Beat(..), status) => tally.faults.push(format!("a heartbeat was answered with {status}")),
            (UnderWay::Read(_), status) => tally.faults.push(format!("a read was answered with {status}")),
        }
        Ok(())
    }

    /// Counts its end; what was under way stays sent and unacknowledged. `false`: to be let go of.
    fn end(&self, tally: &mut Tally) -> bool {
        tally.closed += 1;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(sent: u32, acknowledged: u32) -> Row {
        Row { user: 1, movie: 2, fraction: 0.125, bearer: "".into(), sent, acknowledged }
    }

    fn read(state: &str, position: f64) -> Answer {
        let body = serde_json::json!({"movie_id": "2", "state": state, "position_seconds": position}).to_string();
        Answer { status: 200, headers: Vec::new(), body }
    }

    #[test]
    fn only_what_was_sent_and_not_before_the_last_acknowledged_passes() {
        let cases = [
            (row(5, 3), read("in_progress", 3.125), Ok(3)),
            (row(5, 3), read("in_progress", 5.125), Ok(5)),
            (row(5, 3), read("in_progress", 2.125), Err("lost")),
            (row(5, 3), read("none", 0.0), Err("lost")),
            (row(5, 0), read("none", 0.0), Ok(0)),
            (row(5, 3), read("in_progress", 6.125), Err("invented")),
            (row(5, 3), read("in_progress", 4.25), Err("invented")),
            (row(5, 3), Answer { status: 503, ..read("none", 0.0) }, Err("503")),
        ];
        for (row, answer, expected) in cases {
            match (row.check(&answer), expected) {
                (Ok(number), Ok(expected)) => assert_eq!(number, expected),
                (Err(fault), Err(word)) => assert!(fault.contains(word), "{fault}"),
                (found, expected) => panic!("{found:?}, not {expected:?}"),
            }
        }
    }

    #[test]
    fn a_list_must_agree_with_the_point_reads() {
        let item = |movie: &str, time: &str| serde_json::json!({"movie_id": movie, "updated_at": time});
        let page = |items: &[Value]| {
            let body = serde_json::json!({"items": items, "next_cursor": null}).to_string();
            Answer { status: 200, headers: Vec::new(), body }
        };
        let (older, newer) = (item("1", "2026-01-01T00:00:00.000001Z"), item("2", "2026-01-01T00:00:00.000002Z"));
        let points: HashMap<_, _> = [("1".to_owned(), older.to_string()), ("2".to_owned(), newer.to_string())].into();
        assert_eq!(check_list(&page(&[newer.clone(), older.clone()]), &points), Ok(()));
        for bad in [vec![older, newer.clone()], vec![newer.clone()], vec![newer, item("1", "2025")]] {
            assert!(check_list(&page(&bad), &points).is_err(), "{bad:?}");
        }
    }
}
