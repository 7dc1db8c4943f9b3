//! `playhead export` and `playhead import`: what comes out of a store goes into another as it was, whatever befalls the
//! way between; and who may ask a serving one.
//!
//! On a cluster: [`crate::cassandra_export`].

use crate::client::{Client, PATIENCE, PROGRESS, beat, dev_secret, mint};
use crate::ledger::{Ledger, Load};
use crate::process::{Ended, Launch, Server, eventually, run, seed};
use crate::store::{DRAINED, Store, UNDRAINED, contents};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tempfile::TempDir;

pub(crate) const ADMIN_TOKEN: &str = "operators-only-0123456789abcdef0123456789";

/// The user whose barriers and rows are compared to the letter.
const USER: i64 = -5_000_000;

/// A directory with everything that a test writes.
pub(crate) struct Place {
    directory: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let place = Self { directory: tempfile::tempdir().unwrap() };
        fs::write(place.path("admin-token"), format!("{ADMIN_TOKEN}\n")).unwrap();
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// `serve --dev` over a directory of this name, which may be exported; its secret is the same for all names.
    pub(crate) fn launch(&self, name: &str) -> Launch {
        self.share_secret(name);
        Launch::embedded(&self.path(name)).with(&["--admin-token-file", &self.text("admin-token")])
    }

    /// Gives a directory the secret of the others.
    pub(crate) fn share_secret(&self, name: &str) {
        fs::create_dir_all(self.path(name)).unwrap();
        fs::write(self.path(name).join("dev-secret"), "0123456789abcdef0123456789abcdef\n").unwrap();
    }

    /// `export` of a serving store into a file of this name.
    pub(crate) fn export_from(&self, server: &Server, file: &str) -> Ended {
        let admin = format!("http://{}", server.admin);
        let token = self.text("admin-token");
        run(&["export", &self.text(file), "--admin", &admin, "--admin-token-file", &token, "--output", "json"])
    }

    /// `export` of a stopped directory into a file of this name.
    fn export_of(&self, name: &str, file: &str) -> Ended {
        run(&["export", &self.text(file), "--data-dir", &self.text(name), "--output", "json"])
    }

    /// `import` of a file into a stopped directory.
    pub(crate) fn import(&self, file: &str, name: &str) -> Ended {
        let sizes = ["--segment-bytes", "65536", "--disk-reserve-bytes", "1048576"];
        run(&[&["import", &self.text(file), "--data-dir", &self.text(name), "--output", "json"][..], &sizes].concat())
    }

    /// The lines of a file between the first and the last, sorted.
    pub(crate) fn lines(&self, file: &str) -> Vec<String> {
        let bytes = fs::read(self.path(file)).unwrap();
        let text = if file.ends_with(".zst") { zstd::decode_all(&bytes[..]).unwrap() } else { bytes };
        let text = String::from_utf8(text).unwrap();
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        let (first, last) = (lines.remove(0), lines.pop().unwrap());
        assert!(first.starts_with("{\"header\":") && last.starts_with("{\"trailer\":"), "{first} … {last}");
        lines.sort();
        lines
    }
}

/// What a command printed as JSON, after a check that it went well.
pub(crate) fn done(ended: &Ended) -> Value {
    assert_eq!(ended.code, Some(0), "{ended:?}");
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
}

fn stop(mut server: Server) {
    server.signal(Signal::TERM);
    assert_eq!(server.wait(PATIENCE).status.code(), Some(0));
}

/// Rows with and without a duration, a late item, a title forgotten, a user erased who came back.
pub(crate) fn write_story(client: &mut Client, secret: &[u8], user: i64) {
    let (token, erased) = (mint(secret, user), mint(secret, user + 1));
    let known = r#"{"movie_id": "9223372036854775807", "position_seconds": 0.1, "duration_seconds": 7200.25}"#;
    for body in [known, &beat(-1, 7), &beat(1, 8), &beat(2, 9)] {
        assert_eq!(client.beat(&token, body).status, 204);
    }
    assert_eq!(client.batch(&token, late(3, 60)).status, 204);
    assert_eq!(client.delete(&format!("{PROGRESS}/2"), &token).status, 204);
    for movie in 1..4 {
        assert_eq!(client.beat(&erased, beat(movie, 5)).status, 204);
    }
    assert_eq!(client.delete(PROGRESS, &erased).status, 204);
    assert_eq!(client.beat(&erased, beat(2, 6)).status, 204);
}

/// A batch of one item that happened so many seconds ago.
fn late(movie: i64, seconds_ago: u64) -> String {
    let sent_at_ms = 1_000_000_000_u64;
    let item = json!({"movie_id": movie, "position_seconds": 33.5, "event_time_ms": sent_at_ms - seconds_ago * 1_000});
    json!({"sent_at_ms": sent_at_ms, "items": [item]}).to_string()
}

/// The lists of the story's two users, times and all.
pub(crate) fn lists(client: &mut Client, secret: &[u8], user: i64) -> [Value; 2] {
    [user, user + 1].map(|user| {
        let answer = client.get(&format!("{PROGRESS}?state=all&limit=100"), Some(&mint(secret, user)));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    })
}

/// Items from before the forget and the erasure come too late, wherever the store lies now.
pub(crate) fn check_barriers(client: &mut Client, secret: &[u8], user: i64) {
    for (user, movie) in [(user, 2), (user + 1, 1), (user + 1, 3)] {
        let token = mint(secret, user);
        assert_eq!(client.batch(&token, late(movie, 3_600)).status, 204);
        let read = client.get(&format!("{PROGRESS}/{movie}"), Some(&token)).json();
        assert_eq!(read["state"], "none", "a late item of title {movie} came back: {read}");
    }
    // A title that was never forgotten takes one.
    let token = mint(secret, user);
    assert_eq!(client.batch(&token, late(77, 3_600)).status, 204);
    assert_eq!(client.get(&format!("{PROGRESS}/77"), Some(&token)).json()["position_seconds"], 33.5);
}

#[test]
fn a_serving_store_is_exported_under_load_and_comes_back_as_it_was() {
    let place = Place::new();
    let server = place.launch("data").start();
    let secret = dev_secret(place.path("data"));
    write_story(&mut server.connect(), &secret, USER);
    let before = lists(&mut server.connect(), &secret, USER);

    // Acknowledged before the export: must be in it. Drained, frozen and in memory by turns.
    let mut ledger = Ledger::new(40, 30, &place.path("data"), seed());
    let load = Load { threads: 2, connections: 8, reads: false };
    let acknowledged = AtomicU64::new(0);
    let drained = || server.metric("playhead_store_drains_total") >= 2;
    let enough = AtomicBool::new(false);
    ledger.load(
        server.address,
        load,
        || enough.load(Ordering::Relaxed),
        || {
            eventually("two drains", drained);
            enough.store(true, Ordering::Relaxed);
        },
    );
    assert!(ledger.rows_acknowledged() > 300, "{}", ledger.rows_acknowledged());

    // Others go on meanwhile.
    let done_exporting = AtomicBool::new(false);
    let exported = std::thread::scope(|scope| {
        for thread in 0..2 {
            let (address, secret) = (server.address, &secret);
            let (done_exporting, acknowledged) = (&done_exporting, &acknowledged);
            scope.spawn(move || {
                let mut client = Client::to(address);
                let token = mint(secret, 1_000 + thread);
                for number in 0_u32.. {
                    if done_exporting.load(Ordering::Relaxed) {
                        return;
                    }
                    assert_eq!(client.beat(&token, beat(i64::from(number % 500), number)).status, 204);
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        eventually("the load goes on", || acknowledged.load(Ordering::Relaxed) > 50);
        let exported = place.export_from(&server, "export.ndjson.zst");
        done_exporting.store(true, Ordering::Relaxed);
        exported
    });
    let exported = done(&exported);
    assert_eq!((&exported["has_barriers"], &exported["rows_left_out"]), (&json!(true), &json!(0)), "{exported}");
    assert_eq!((&exported["forgets"], &exported["erases"]), (&json!(1), &json!(1)), "{exported}");
    assert!(exported["rows"].as_u64().unwrap() > ledger.rows_acknowledged() as u64, "{exported}");
    assert_eq!(lists(&mut server.connect(), &secret, USER), before, "the source is as it was");
    for text in [server.talk(), exported.to_string()] {
        assert!(!text.contains(ADMIN_TOKEN), "the token is never told");
    }
    stop(server);

    place.share_secret("copy");
    let imported = done(&place.import("export.ndjson.zst", "copy"));
    assert_eq!((&imported["rows"], &imported["is_whole"]), (&exported["rows"], &json!(true)), "{imported}");
    let all = exported["rows"].as_u64().unwrap() + 2;
    assert_eq!((imported["changed"].as_u64(), &imported["bad_lines"]), (Some(all), &json!(0)), "{imported}");
    let again = done(&place.import("export.ndjson.zst", "copy"));
    assert_eq!(again["changed"], 0, "a second time changes nothing: {again}");
    done(&place.export_of("copy", "again.ndjson"));
    assert_eq!(place.lines("again.ndjson"), place.lines("export.ndjson.zst"));

    let copy = place.launch("copy").start();
    assert_eq!(lists(&mut copy.connect(), &secret, USER), before, "rows, times and lists");
    if let Err(violation) = ledger.verify(copy.address) {
        panic!("lost on the way: {violation:?}");
    }
    check_barriers(&mut copy.connect(), &secret, USER);
    // The clock of the copy goes on above what came.
    let token = mint(&secret, USER);
    assert_eq!(copy.connect().beat(&token, beat(1, 1_000)).status, 204);
    assert_eq!(copy.connect().get(&format!("{PROGRESS}/1"), Some(&token)).json()["position_seconds"], 1_000.0);
}

#[test]
fn a_stopped_store_is_exported_without_a_change_its_log_included() {
    let store = Store::write();
    let place = Place::new();
    let data = store.launch.directory.to_str().unwrap();
    let before = contents(&store.launch.directory);
    for file in ["one.ndjson", "other.ndjson.zst"] {
        let exported = done(&run(&["export", &place.text(file), "--data-dir", data, "--output", "json"]));
        assert_eq!(exported["rows"], DRAINED + UNDRAINED, "{exported}");
        assert_eq!(exported["bytes"].as_u64(), Some(fs::metadata(place.path(file)).unwrap().len()));
    }
    assert_eq!(contents(&store.launch.directory), before);
    assert_eq!(place.lines("one.ndjson"), place.lines("other.ndjson.zst"));
    // To a pipe: the lines alone.
    let piped = run(&["export", "-", "--data-dir", data]);
    assert_eq!(piped.code, Some(0), "{piped:?}");
    assert_eq!(piped.stdout.lines().count(), usize::try_from(DRAINED + UNDRAINED + 2).unwrap());
    assert!(piped.stderr.contains("exported 130 rows"), "{piped:?}");
    // Merged into a store that knows newer things, and older.
    let ended = run(&["import", &place.text("one.ndjson"), "--data-dir", data, "--segment-bytes", "65536"]);
    assert!(ended.code == Some(0) && ended.stdout.contains("; 0 of them were new or newer"), "{ended:?}");
    let server = store.launch.start();
    let found = store.read_back(&mut server.connect());
    assert!(found.absent.is_empty() && found.refused.is_empty(), "{found:?}");
}

#[test]
fn damage_keeps_a_store_from_being_exported() {
    let whole = Store::write();
    let place = Place::new();
    for damage in crate::store::DAMAGES {
        let store = whole.copy();
        let says = (damage.inflict)(&store);
        let data = store.launch.directory.to_str().unwrap();
        let ended = run(&["export", &place.text("export.ndjson"), "--data-dir", data]);
        assert_eq!(ended.code, Some(1), "{}: {ended:?}", damage.what);
        for words in &says {
            assert!(ended.stderr.contains(words), "{}: does not say {words:?}: {}", damage.what, ended.stderr);
        }
        assert!(!place.path("export.ndjson").exists(), "{}", damage.what);
        assert!(!place.path("export.ndjson.partial").exists(), "{}", damage.what);
    }
}

#[test]
fn what_was_cut_off_or_damaged_is_noticed_and_importing_the_whole_goes_on() {
    const ROWS: u32 = 20_000;
    let place = Place::new();
    many_rows(&place.path("whole.ndjson"), ROWS);
    let lines = fs::read(place.path("whole.ndjson")).unwrap();
    fs::write(place.path("whole.ndjson.zst"), zstd::encode_all(&lines[..], 3).unwrap()).unwrap();
    for file in ["whole.ndjson", "whole.ndjson.zst"] {
        let bytes = fs::read(place.path(file)).unwrap();
        for (number, cut) in [20, 40, bytes.len() / 2].into_iter().enumerate() {
            let copy = format!("copy-{number}-{file}");
            fs::write(place.path("part"), &bytes[..bytes.len() - cut]).unwrap();
            let ended = place.import("part", &copy);
            assert_eq!(ended.code, Some(4), "{cut} of {}: {ended:?}", bytes.len());
            assert!(ended.stderr.contains("cut off") && ended.stderr.contains("is stored"), "{ended:?}");
            let part: Value = serde_json::from_str(&ended.stdout).unwrap();
            assert_eq!(part["is_whole"], false);
            let rest = done(&place.import(file, &copy));
            let rows = part["changed"].as_u64().unwrap() + rest["changed"].as_u64().unwrap();
            assert_eq!(rows, u64::from(ROWS), "{part} and {rest}");
        }
        let mut damaged = bytes.clone();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 1;
        fs::write(place.path("part"), &damaged).unwrap();
        let ended = place.import("part", &format!("damaged-{file}"));
        assert_eq!(ended.code, Some(4), "{ended:?}");
        assert!(ended.stderr.contains("damaged"), "{ended:?}");
        // Nothing but its beginning: too little to have a line.
        fs::write(place.path("part"), &bytes[..30]).unwrap();
        let ended = place.import("part", "nothing");
        assert!(matches!(ended.code, Some(1 | 4)) && ended.stdout.is_empty(), "{ended:?}");
        assert!(!place.path("nothing").exists(), "nothing was made");
    }
    // Only from some line on.
    let from = (ROWS + 2 - 30).to_string();
    let ended = run(&["import", &place.text("whole.ndjson"), "--data-dir", &place.text("rest"), "--from-line", &from]);
    assert!(ended.code == Some(0) && ended.stdout.contains("; 30 of them were new"), "{ended:?}");
}

#[test]
fn lines_that_are_not_right_are_told_and_left_out() {
    let place = Place::new();
    let server = place.launch("data").start();
    let secret = dev_secret(place.path("data"));
    write_story(&mut server.connect(), &secret, USER);
    done(&place.export_from(&server, "export.ndjson"));
    stop(server);
    let text = fs::read_to_string(place.path("export.ndjson")).unwrap();
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    let count = lines.len() - 2;
    lines.pop();
    let row = |rest: &str| format!(r#"{{"row":{{"user_id":"12345","movie_id":"54321",{rest}}}}}"#);
    let bad = [
        (row(r#""position_seconds":1,"write_time_us":18446744073709551615"#), "ahead"),
        (row(r#""position_seconds":1,"write_time_us":9223372036854775807"#), "ahead"),
        (row(r#""position_seconds":-3,"write_time_us":5"#), "position_seconds"),
        (row(r#""position_seconds":"54321","write_time_us":5"#), "not a line"),
        ("54321".repeat(2_000), "longer"),
        (r#"{"erase":{"user_id":"12345","write_time_us":9000000000000000}}"#.to_owned(), "ahead"),
    ];
    for (line, _) in &bad {
        lines.insert(2, line.clone());
    }
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let sha256: String = {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let trailer = json!({"trailer": {"rows": 0, "forgets": 0, "erases": 0, "sha256": sha256}});
    fs::write(place.path("bad.ndjson"), format!("{text}{trailer}\n")).unwrap();
    let ended = place.import("bad.ndjson", "copy");
    assert_eq!(ended.code, Some(1), "{ended:?}");
    for (index, (_, word)) in bad.iter().rev().enumerate() {
        let begins = format!("line {}: ", index + 3);
        let told = ended.stderr.lines().find(|line| line.starts_with(&begins));
        assert!(told.is_some_and(|line| line.contains(word)), "{begins}{word}: {ended:?}");
    }
    assert!(!format!("{ended:?}").contains("54321"), "what a line says is not repeated: {ended:?}");
    let imported: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((imported["bad_lines"].as_u64(), imported["changed"].as_u64()), (Some(6), Some(count as u64)));
    done(&place.export_of("copy", "copy.ndjson"));
    assert_eq!(place.lines("copy.ndjson"), place.lines("export.ndjson"));
}

/// Asks for `/export` as a browser or curl would.
fn ask(server: &Server, token: Option<&str>) -> (u16, String) {
    let mut client = Client::to(server.admin);
    let answer = client.get("/export", token);
    (answer.status, answer.body)
}

#[test]
fn nobody_exports_without_the_token_and_by_default_nobody_at_all() {
    let place = Place::new();
    let server = Launch::embedded(&place.path("plain")).start();
    assert_eq!(ask(&server, None).0, 404);
    assert_eq!(ask(&server, Some(ADMIN_TOKEN)).0, 404);
    assert_eq!(server.connect().get("/export", Some(ADMIN_TOKEN)).status, 404, "nor where viewers connect");
    let ended = place.export_from(&server, "export.ndjson");
    assert!(ended.code == Some(1) && ended.stderr.contains("--admin-token-file"), "{ended:?}");

    let server = place.launch("data").start();
    for token in [None, Some(""), Some("wrong"), Some(&ADMIN_TOKEN[1..]), Some(&*ADMIN_TOKEN.to_uppercase())] {
        let (status, body) = ask(&server, token);
        assert_eq!(status, 401, "{token:?}: {body}");
    }
    assert_eq!(server.connect().get("/export", Some(ADMIN_TOKEN)).status, 404, "nor where viewers connect");
    fs::write(place.path("admin-token"), "another-token-0123456789abcdef0123456789\n").unwrap();
    let ended = place.export_from(&server, "export.ndjson");
    assert!(ended.code == Some(1) && ended.stderr.contains("401"), "{ended:?}");
    for text in [format!("{ended:?}"), server.talk()] {
        assert!(!text.contains("another-token") && !text.contains(ADMIN_TOKEN), "{text}");
    }
    assert!(!place.path("export.ndjson").exists() && !place.path("export.ndjson.partial").exists());
    // Where the right one is, it is taken.
    fs::write(place.path("admin-token"), ADMIN_TOKEN).unwrap();
    assert_eq!(done(&place.export_from(&server, "export.ndjson"))["rows"], 0);
}

#[test]
fn wrong_use_is_told_with_advice() {
    let place = Place::new();
    let data = place.text("data");
    let file = place.text("export.ndjson");
    let admin = ["--admin", "http://127.0.0.1:1", "--admin-token-file", &place.text("admin-token")];
    fs::write(place.path("there"), "x").unwrap();
    fs::write(place.path("short"), "too-short\n").unwrap();
    let there = place.text("there");
    let none = place.text("none");
    let short = place.text("short");
    let cases: [(&[&str], i32, &str); 12] = [
        (&["export"], 2, "<FILE>"),
        (&["export", &there, "--data-dir", &data], 2, "there already"),
        (&["export", &file, "--data-dir", &data], 1, "no Playhead store"),
        (&["export", &file, "--store", "memory"], 2, "keeps nothing"),
        (&["export", &file, "--admin", "http://127.0.0.1:1"], 2, "--admin-token-file"),
        (&["export", &file, "--admin", "https://127.0.0.1:1", "--admin-token-file", &short], 2, "plain HTTP"),
        (&["export", &file, "--admin", "127.0.0.1:1", "--admin-token-file", &short], 2, "http://HOST:PORT"),
        (&[&["export", &file], &admin[..]].concat(), 1, "is the server running"),
        (&["import", &none, "--data-dir", &data], 1, "can't read"),
        (&["import", &there, "--data-dir", &data], 1, "no export of Playhead"),
        (&["import", &there, "--store", "discard"], 1, "no export of Playhead"),
        (&["serve", "--dev", "--data-dir", &data, "--admin-token-file", &short], 1, "openssl rand"),
    ];
    for (arguments, code, word) in cases {
        let ended = run(arguments);
        assert!(ended.code == Some(code) && ended.stderr.contains(word), "{arguments:?}: {ended:?}");
        assert!(!ended.stderr.contains("too-short"), "{ended:?}");
    }
    assert_eq!(fs::read_to_string(place.path("there")).unwrap(), "x");
    assert!(!place.path("data").join("LOCK").exists(), "nothing was made");
}

#[test]
fn a_directory_in_use_is_neither_exported_nor_imported_into() {
    let place = Place::new();
    let server = place.launch("data").start();
    done(&place.export_from(&server, "export.ndjson"));
    for ended in [place.import("export.ndjson", "data"), place.export_of("data", "other.ndjson")] {
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains("in use by another process"), "{ended:?}");
    }
    assert!(!place.path("other.ndjson").exists());
}

/// A file of so many rows of users above 0, newest in no order.
pub(crate) fn many_rows(path: &Path, count: u32) {
    let mut text =
        json!({"header": {"format": 1, "version": "0", "exported_at_us": 1, "has_barriers": true}}).to_string();
    text.push('\n');
    for number in 0..count {
        let (user, movie, time) = (number / 10, number % 10, 1_700_000_000_000_000 + u64::from(number));
        text += &format!(
            "{{\"row\":{{\"user_id\":\"{user}\",\"movie_id\":\"{movie}\",\"position_seconds\":{number},\"duration_seconds\":\
             7200.0,\"write_time_us\":{time}}}}}\n"
        );
    }
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    let sha256: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let trailer = json!({"trailer": {"rows": count, "forgets": 0, "erases": 0, "sha256": sha256}});
    fs::write(path, format!("{text}{trailer}\n")).unwrap();
}

#[test]
fn one_export_at_a_time_and_a_client_that_reads_nothing_holds_up_no_heartbeat() {
    let place = Place::new();
    // More than the sockets between take.
    many_rows(&place.path("many.ndjson"), 300_000);
    assert_eq!(done(&place.import("many.ndjson", "data"))["changed"], 300_000);
    let server = place.launch("data").start();
    let mut idler = TcpStream::connect(server.admin).unwrap();
    idler.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(idler, "GET /export HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\n\r\n").unwrap();
    let mut begin = [0; 12];
    idler.read_exact(&mut begin).unwrap();
    assert_eq!(&begin, b"HTTP/1.1 200");
    // It has begun, and its client reads no further.
    let (status, body) = ask(&server, Some(ADMIN_TOKEN));
    assert!(status == 503 && body.contains("under way"), "{status}: {body}");
    let ended = place.export_from(&server, "second.ndjson");
    assert!(ended.code == Some(1) && ended.stderr.contains("503"), "{ended:?}");
    let token = mint(&dev_secret(place.path("data")), -5);
    let mut client = server.connect();
    for position in 0..200 {
        assert_eq!(client.beat(&token, beat(1, position)).status, 204);
    }
    assert_eq!(Client::to(server.admin).get("/livez", None).status, 200);
    drop(idler);
    eventually("another one has its turn", || place.export_from(&server, "second.ndjson").code == Some(0));
    assert_eq!(place.lines("second.ndjson").len(), 300_001, "and the beat's row");
}

#[test]
fn a_stream_that_breaks_leaves_no_file() {
    // A stand-in, to break at a place of the test's choice.
    let header = "{\"header\":{\"format\":1,\"version\":\"0\",\"exported_at_us\":1,\"has_barriers\":true}}\n";
    let chunk = format!("{:x}\r\n{header}\r\n", header.len());
    let whole = "0\r\n\r\n";
    for (end, what) in [("", "no end"), (whole, "an end without the last line"), ("zz\r\n", "no HTTP")] {
        let place = Place::new();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let admin = format!("http://{}", listener.local_addr().unwrap());
        let answer = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{chunk}{end}");
        let server = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let count = socket.read(&mut request).unwrap();
            socket.write_all(answer.as_bytes()).unwrap();
            String::from_utf8_lossy(&request[..count]).into_owned()
        });
        let token = place.text("admin-token");
        let ended = run(&["export", &place.text("export.ndjson"), "--admin", &admin, "--admin-token-file", &token]);
        assert_eq!(ended.code, Some(1), "{what}: {ended:?}");
        assert!(ended.stderr.contains("cut off"), "{what}: {ended:?}");
        assert!(server.join().unwrap().contains(&format!("Bearer {ADMIN_TOKEN}")));
        let left: Vec<_> = fs::read_dir(place.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["admin-token"], "{what}");
    }
}

#[test]
fn a_killed_import_is_simply_started_again() {
    let place = Place::new();
    many_rows(&place.path("many.ndjson"), 600_000);
    let mut command =
        crate::process::playhead(&["import", &place.text("many.ndjson"), "--data-dir", &place.text("data")]);
    let mut import = command.spawn().unwrap();
    // Two chunks of it are stored one by one; killed at a moment after the store is there.
    eventually("the import has begun", || place.path("data").join("base").exists());
    crate::process::wait_for(std::time::Duration::from_millis(fastrand::u64(100..3_000)));
    import.kill().unwrap();
    import.wait().unwrap();
    assert_eq!(done(&place.import("many.ndjson", "data"))["rows"], 600_000);
    assert_eq!(done(&place.import("many.ndjson", "data"))["changed"], 0);
    done(&place.export_of("data", "again.ndjson"));
    // A position without a fraction is printed with one.
    let again = place.lines("again.ndjson");
    let mut again: Vec<_> = again.iter().map(|line| line.replacen(".0,\"dur", ",\"dur", 1)).collect();
    again.sort();
    assert!(again == place.lines("many.ndjson"), "what was imported is what the file holds");
}
