//! Reading a ledger back: each row by its title, and each user's list beside it.
//!
//! **The promise.** A row is *good* only if a read answered and [`Row::check`] takes what it said, and the list holds the
//! same bookmark, newest first, and no title of the run that was never sent. A server that does not answer is asked again,
//! by each of the readers for half a minute in all; what stays unanswered is *unreadable*, which is neither good nor lost.
//!
//! **Why a user may be read [`READINGS_MAX`] times.** A write that nobody acknowledged may come to light between the read of
//! its title and that of the list: on a cluster, once a node that has it is asked. Then all of the user is read again, and
//! every reading must be without loss; it is those that never agree that are wrong.
//!
//! **The limits.** No time is measured here. Nothing may be written to these users meanwhile.

use crate::ledger::{Fault, Found, Row};
use crate::target::Target;
use crate::wire::{self, PROGRESS, Parsed};
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions};
use tokio::time::{Instant, sleep, timeout};

/// Users that are read at a time.
const READERS: usize = 64;

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a reader asks again, all of its reads together: a damaged store may have any number that never come.
const ASKED_AGAIN: Duration = Duration::from_secs(30);

/// Between two tries, unless the answer says.
const PAUSE: Duration = Duration::from_millis(500);

/// How often a user is read, if list and titles do not agree.
const READINGS_MAX: u32 = 3;

/// Larger answers are none of ours.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// The most faults told.
const FAULTS_MAX: usize = 20;

/// Titles of one run, from its first.
const TITLES_OF_A_RUN: i64 = 1 << 20;

/// What reading a ledger back has found.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Verification {
    /// Rows of the ledger.
    pub rows: u64,
    /// Rows that are as they must be.
    pub good: u64,
    /// Rows of which less is there than was acknowledged.
    pub lost: u64,
    /// Rows of which something is there that was never sent.
    pub invented: u64,
    /// Lists that do not agree with the reads by title.
    pub lists_wrong: u64,
    /// Rows or lists that could not be read.
    pub unreadable: u64,
    /// The first of the faults, in words.
    pub faults: Vec<String>,
    /// What was there, in whole seconds.
    #[serde(skip)]
    pub recovered: HashMap<(i64, i64), u32>,
}

impl Verification {
    /// Nothing lost, nothing invented, and the lists agree.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.lost == 0 && self.invented == 0 && self.lists_wrong == 0
    }

    fn tell(&mut self, fault: String) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(fault);
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.rows += other.rows;
        self.good += other.good;
        self.lost += other.lost;
        self.invented += other.invented;
        self.lists_wrong += other.lists_wrong;
        self.unreadable += other.unreadable;
        self.recovered.extend(other.recovered);
        other.faults.into_iter().for_each(|fault| self.tell(fault));
    }
}

/// What is read back, and how.
pub struct Readback<'a> {
    /// From where.
    pub target: &'a Target,
    /// Sorted by user.
    pub rows: &'a [Row],
    /// The run's first title: others are none of ours.
    pub first_title: i64,
    /// Signs a token for a user.
    pub mint: &'a (dyn Fn(i64) -> Result<String, String> + Sync),
    /// Ends it early.
    pub stop: &'a AtomicBool,
    /// Threads.
    pub workers: u32,
}

impl Readback<'_> {
    /// Reads everything back. `watch` is told how many users are done, of how many.
    ///
    /// # Errors
    /// If a thread can't be had.
    pub fn verify(&self, watch: &mut dyn FnMut(usize, usize)) -> io::Result<Verification> {
        let users: Vec<&[Row]> = self.rows.chunk_by(|a, b| a.user == b.user).collect();
        let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            let mut threads = Vec::new();
            for _ in 0..self.workers {
                let work = || {
                    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
                    Ok(runtime.block_on(self.read_users(&users, &next, &done)))
                };
                threads.push(std::thread::Builder::new().name("verify".to_owned()).spawn_scoped(scope, work)?);
            }
            while !threads.iter().all(std::thread::ScopedJoinHandle::is_finished) {
                watch(done.load(Ordering::Relaxed), users.len());
                std::thread::park_timeout(Duration::from_millis(100));
            }
            watch(done.load(Ordering::Relaxed), users.len());
            let mut all = Verification::default();
            for thread in threads {
                let found: io::Result<Verification> =
                    thread.join().unwrap_or_else(|_| Err(io::Error::other("a reader has panicked; this is a bug")));
                all.add(found?);
            }
            all.rows = self.rows.len() as u64;
            Ok(all)
        })
    }

    async fn read_users(&self, users: &[&[Row]], next: &AtomicUsize, done: &AtomicUsize) -> Verification {
        let readers = (0..READERS).map(|_| async {
            let mut found = Verification::default();
            let mut reader = Reader { target: self.target, socket: None, patience: ASKED_AGAIN };
            while let Some(rows) = users.get(next.fetch_add(1, Ordering::Relaxed)) {
                if self.stop.load(Ordering::Relaxed) {
                    found.unreadable += rows.len() as u64;
                } else {
                    self.read_user(&mut reader, rows, &mut found).await;
                }
                done.fetch_add(1, Ordering::Relaxed);
            }
            found
        });
        let mut all = Verification::default();
        for found in join_all(readers).await {
            all.add(found);
        }
        all
    }

    async fn read_user(&self, reader: &mut Reader<'_>, rows: &[Row], found: &mut Verification) {
        let user = rows[0].user;
        let token = match (self.mint)(user) {
            Ok(token) => token,
            Err(error) => {
                found.unreadable += rows.len() as u64;
                return found.tell(format!("user {user}: can't sign a token: {error}"));
            }
        };
        for reading in 1..=READINGS_MAX {
            let mut read = Verification::default();
            let disagreement = self.read_once(reader, rows, &token, &mut read).await;
            if reading > 1 {
                // What was good before is counted.
                read.good = 0;
            }
            found.add(read);
            match disagreement {
                Some(fault) if reading == READINGS_MAX => {
                    found.lists_wrong += 1;
                    found.tell(format!("the list of user {user}: {fault}"));
                }
                Some(_) => {}
                None => return,
            }
        }
    }

    /// Reads a user's titles and list; gives back how they do not agree.
    async fn read_once(
        &self,
        reader: &mut Reader<'_>,
        rows: &[Row],
        token: &str,
        found: &mut Verification,
    ) -> Option<String> {
        let mut by_title: HashMap<i64, Value> = HashMap::new();
        for row in rows {
            match reader.get(&format!("{PROGRESS}/{}", row.movie), token, self.stop).await {
                Ok(body) => {
                    check(row, &body, found);
                    if let Ok(bookmark) = serde_json::from_slice(&body) {
                        by_title.insert(row.movie, bookmark);
                    }
                }
                Err(why) => {
                    found.unreadable += 1;
                    found.tell(format!("{row:?}: unreadable: {why}"));
                }
            }
        }
        match self.list(reader, token).await {
            // What could not be read is told, and can't be compared.
            Ok(items) if by_title.len() == rows.len() => self.check_list(&items, &by_title).err(),
            Ok(_) => None,
            Err(why) => {
                found.unreadable += 1;
                found.tell(format!("the list of user {}: unreadable: {why}", rows[0].user));
                None
            }
        }
    }

    async fn list(&self, reader: &mut Reader<'_>, token: &str) -> Result<Vec<Value>, String> {
        let mut items = Vec::new();
        let mut path = format!("{PROGRESS}?state=all&limit=100");
        loop {
            let body = reader.get(&path, token, self.stop).await?;
            let mut page: Value = serde_json::from_slice(&body).map_err(|_| "not JSON".to_owned())?;
            match page["items"].take() {
                Value::Array(page) => items.extend(page),
                _ => return Err("it has no items".to_owned()),
            }
            match &page["next_cursor"] {
                Value::String(cursor) => path = format!("{PROGRESS}?state=all&limit=100&cursor={cursor}"),
                _ => return Ok(items),
            }
        }
    }

    /// The list must hold the bookmarks of the reads by title, newest first, and of this run's titles no others.
    fn check_list(&self, items: &[Value], by_title: &HashMap<i64, Value>) -> Result<(), String> {
        let mut listed = 0;
        for item in items {
            let movie: i64 =
                item["movie_id"].as_str().and_then(|id| id.parse().ok()).ok_or("an item without a title")?;
            match by_title.get(&movie) {
                Some(bookmark) if bookmark == item => listed += 1,
                Some(bookmark) => return Err(format!("holds {item}, but by title it is {bookmark}")),
                None if (0..TITLES_OF_A_RUN).contains(&(movie - self.first_title)) => {
                    return Err(format!("holds {item}, which was never sent"));
                }
                None => {}
            }
        }
        let expected = by_title.values().filter(|bookmark| bookmark["state"] != "none").count();
        if listed != expected {
            return Err(format!("holds {listed} of {expected} titles"));
        }
        // RFC 3339 with a fixed number of digits sorts as text.
        let times = items.iter().map(|item| item["updated_at"].as_str().unwrap_or_default());
        if !times.is_sorted_by(|earlier, later| earlier >= later) {
            return Err("is not newest first".to_owned());
        }
        Ok(())
    }
}

fn check(row: &Row, body: &[u8], found: &mut Verification) {
    let Some(read) = Row::position_of(body) else {
        found.unreadable += 1;
        return found.tell(format!("{row:?}: unreadable: not a bookmark"));
    };
    match row.check(read) {
        Ok(seconds) => {
            found.good += 1;
            found.recovered.insert((row.user, row.movie), seconds);
        }
        Err(Fault::Lost(read)) => {
            found.lost += 1;
            let there = match read {
                Found::Nothing => "nothing is".to_owned(),
                Found::At(position) => format!("{position} is"),
            };
            found.tell(format!("{row:?}: lost: {there} there"));
        }
        Err(Fault::Invented(position)) => {
            found.invented += 1;
            found.tell(format!("{row:?}: invented: {position} is there"));
        }
    }
}

/// One connection that reads, and is made again when it breaks.
struct Reader<'a> {
    target: &'a Target,
    socket: Option<TcpStream>,
    /// What is left of [`ASKED_AGAIN`].
    patience: Duration,
}

impl Reader<'_> {
    /// The body of a 200.
    async fn get(&mut self, path: &str, token: &str, stop: &AtomicBool) -> Result<Vec<u8>, String> {
        let mut request = Vec::new();
        wire::get(&mut request, &self.target.host, path, token);
        loop {
            let began = Instant::now();
            let (why, pause) = match timeout(PATIENCE, self.exchange(&request)).await {
                Ok(Ok((answer, body))) => match answer.status {
                    200 => return Ok(body),
                    429 | 500.. => {
                        let asked = answer.retry_after_s.map(|seconds| Duration::from_secs(u64::from(seconds.min(10))));
                        (format!("answered with {}", answer.status), asked.unwrap_or(PAUSE))
                    }
                    status => return Err(format!("answered with {status}")),
                },
                Ok(Err(error)) => (error.to_string(), PAUSE),
                Err(_) => {
                    self.socket = None;
                    (format!("no answer within {PATIENCE:?}"), PAUSE)
                }
            };
            self.patience = self.patience.saturating_sub(began.elapsed() + pause);
            if self.patience.is_zero() || stop.load(Ordering::Relaxed) {
                return Err(why);
            }
            sleep(pause).await;
        }
    }

    async fn exchange(&mut self, request: &[u8]) -> io::Result<(wire::Answer, Vec<u8>)> {
        let mut socket = match self.socket.take() {
            Some(socket) => socket,
            None => TcpStream::connect(self.target.address).await?,
        };
        socket.set_nodelay(true)?;
        socket.write_all(request).await?;
        let mut bytes = Vec::with_capacity(2_048);
        loop {
            match wire::parse(&bytes) {
                Parsed::Whole { answer, body, .. } => {
                    if !answer.closes {
                        self.socket = Some(socket);
                    }
                    return Ok((answer, bytes[body].to_vec()));
                }
                Parsed::Broken => return Err(io::Error::other("not HTTP/1.1")),
                Parsed::Partial if bytes.len() > ANSWER_BYTES_MAX => return Err(io::Error::other("an endless answer")),
                Parsed::Partial => {}
            }
            if socket.read_buf(&mut bytes).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    /// Reads back a row that was acknowledged at 5 s and sent up to 9 s, of a server that answers with these positions, by
    /// title and in the list by turns, or with 404 for 0. Gives back how many were asked for, too.
    fn read_back(positions: &[u32]) -> (Verification, usize) {
        let row = Row { user: -7, movie: 100, sent: 9, acknowledged: 5 };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let answer = |number: usize, seconds: u32| {
            if seconds == 0 {
                return "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned();
            }
            let at = format!("2026-01-01T00:00:{seconds:02}Z");
            let bookmark = json!({
                "movie_id": "100", "position_seconds": row.position(seconds), "state": "in_progress", "updated_at": at,
            });
            let body = if number.is_multiple_of(2) { bookmark } else { json!({ "items": [bookmark] }) }.to_string();
            format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        };
        let (target, stop) = (Target { host: "x".to_owned(), address }, AtomicBool::new(false));
        let mint: &(dyn Fn(i64) -> Result<String, String> + Sync) = &|_| Ok("token".to_owned());
        let readback = Readback { target: &target, rows: &[row], first_title: 100, mint, stop: &stop, workers: 1 };
        std::thread::scope(|scope| {
            let server = scope.spawn(|| {
                let (mut socket, _) = listener.accept().unwrap();
                let mut asked = 0;
                while socket.read(&mut [0; 4_096]).unwrap() > 0 {
                    socket.write_all(answer(asked, positions[asked]).as_bytes()).unwrap();
                    asked += 1;
                }
                asked
            });
            let found = readback.verify(&mut |_, _| {}).unwrap();
            (found, server.join().unwrap())
        })
    }

    #[test]
    fn a_write_that_comes_to_light_between_two_reads_is_no_fault() {
        let (found, asked) = read_back(&[5, 5]);
        assert!(found.is_kept() && (found.good, asked) == (1, 2), "{found:?}");
        let (found, asked) = read_back(&[5, 9, 9, 9]);
        assert!(found.is_kept() && (found.good, asked) == (1, 4), "{found:?}");
    }

    #[test]
    fn what_can_not_be_read_by_title_makes_no_list_wrong() {
        let (found, asked) = read_back(&[0, 9]);
        assert_eq!((found.unreadable, found.lists_wrong, asked), (1, 0, 2), "{found:?}");
    }

    #[test]
    fn a_list_that_never_agrees_and_a_loss_that_heals_are_faults() {
        let (found, asked) = read_back(&[5, 9, 5, 9, 5, 9]);
        assert_eq!((found.lists_wrong, found.good, asked), (1, 1, 6), "{found:?}");
        for positions in [&[4, 9, 9, 9], &[5, 9, 4, 4]] {
            let (found, _) = read_back(positions);
            assert!(found.lost == 1 && !found.is_kept(), "{positions:?}: {found:?}");
        }
        let (found, _) = read_back(&[5, 9, 10, 10]);
        assert!(found.invented == 1 && !found.is_kept(), "{found:?}");
    }

    #[test]
    fn a_list_must_agree_with_the_reads_by_title() {
        let target = Target { host: String::new(), address: ([127, 0, 0, 1], 1).into() };
        let stop = AtomicBool::new(false);
        let mint: &(dyn Fn(i64) -> Result<String, String> + Sync) = &|_| Ok(String::new());
        let readback = Readback { target: &target, rows: &[], first_title: 100, mint, stop: &stop, workers: 1 };
        let item = |movie: i64, time: &str| json!({"movie_id": movie.to_string(), "updated_at": time, "state": "x"});
        let (older, newer, foreign) = (item(101, "2026-01-01"), item(102, "2026-01-02"), item(7, "2026-01-01"));
        let none = json!({"movie_id": "103", "state": "none"});
        let by_title = [(101, older.clone()), (102, newer.clone()), (103, none)].into();
        let check = |items: &[Value]| readback.check_list(items, &by_title);
        assert_eq!(check(&[newer.clone(), older.clone(), foreign]), Ok(()));
        for (bad, word) in [
            (vec![older.clone(), newer.clone()], "newest first"),
            (vec![newer.clone()], "1 of 2"),
            (vec![newer.clone(), item(101, "2025")], "by title"),
            (vec![newer, older, item(104, "2025")], "never sent"),
            (vec![json!({})], "without a title"),
        ] {
            assert!(check(&bad).unwrap_err().contains(word), "{word}");
        }
    }
}
