//! `playhead load` against a real server: what it reports, what it finds, and how it ends when things go wrong.
//!
//! No test here judges a latency or the generator's lag: the machine may be busy, so a run may be INVALID (exit code 3)
//! and its counts are still exact. Services that are not Playhead are played by a listener of the test.

use crate::client::{PROGRESS, token};
use crate::disk_faults::SmallDisk;
use crate::process::{Launch, Server, eventually, playhead, run, wait_for};
use playhead_load::ledger::Contents;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};
use tempfile::TempDir;

struct Fixture {
    directory: TempDir,
    launch: Launch,
    server: Server,
}

impl Fixture {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let launch = Launch::embedded(&directory.path().join("data"));
        let server = launch.start();
        Self { directory, launch, server }
    }

    fn ledger(&self) -> PathBuf {
        self.directory.path().join("ledger")
    }
}

/// The words of a load against this address, for a server over this directory.
fn words(address: SocketAddr, data: &Path, more: &[&str]) -> Vec<String> {
    let target = format!("http://{address}");
    let mut words = vec!["load".to_owned()];
    // A subcommand comes first.
    let (subcommand, flags) = if more.first() == Some(&"verify") { more.split_at(1) } else { more.split_at(0) };
    words.extend(subcommand.iter().map(|word| (*word).to_owned()));
    words.extend(["--target", &target, "--data-dir", data.to_str().unwrap()].map(str::to_owned));
    words.extend(flags.iter().map(|word| (*word).to_owned()));
    words
}

struct Loaded {
    code: Option<i32>,
    /// The result; null if none was printed.
    json: Value,
    stderr: String,
}

fn load_at(address: SocketAddr, data: &Path, more: &[&str]) -> Loaded {
    let words = words(address, data, &[more, &["--output", "json"]].concat());
    let ended = run(&words.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    let json = serde_json::from_str(&ended.stdout).unwrap_or(Value::Null);
    Loaded { code: ended.code, json, stderr: ended.stderr }
}

fn load(fixture: &Fixture, more: &[&str]) -> Loaded {
    load_at(fixture.server.address, &fixture.launch.directory, more)
}

/// A load that goes on beside the test.
fn start(fixture: &Fixture, more: &[&str]) -> Child {
    let words = words(fixture.server.address, &fixture.launch.directory, &[more, &["--output", "json"]].concat());
    playhead(&words.iter().map(String::as_str).collect::<Vec<_>>()).spawn().unwrap()
}

fn ended(child: Child) -> Loaded {
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(!stderr.contains("panicked"), "{stderr}");
    Loaded { code: output.status.code(), json: serde_json::from_slice(&output.stdout).unwrap_or(Value::Null), stderr }
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// A short run: 200 streamers, two beats a second each.
const SHORT: &[&str] = &["--streamers", "200", "--interval", "500ms", "--connections", "8", "--duration", "2s"];

/// Whole, or only INVALID because the machine was busy.
fn check_whole(loaded: &Loaded, beats_min: u64) {
    let json = &loaded.json;
    assert!(matches!(loaded.code, Some(0 | 3)), "{:?}\n{json}\n{}", loaded.code, loaded.stderr);
    assert_eq!(json["failed"], 0, "{json}");
    assert_eq!(json["acknowledged"], json["sent"], "{json}");
    assert!(json["acknowledged"].as_u64().unwrap() >= beats_min, "{json}");
    assert_eq!(loaded.code == Some(0), json["is_valid"] == true, "{json}");
    let found = &json["verification"];
    assert!(found["rows"].as_u64().unwrap() >= 200, "{json}");
    assert_eq!(found["good"], found["rows"], "{json}");
}

#[test]
fn what_was_acknowledged_is_read_back_over_either_protocol_and_any_connections() {
    let fixture = Fixture::start();
    for (more, beats_min) in [
        (&["--connections", "8"][..], 600),
        (&["--connections", "8", "--http2"], 600),
        (&["--connections", "each"], 600),
        (&["--connections", "8", "--saturate"], 200),
    ] {
        let flags = ["--streamers", "200", "--interval", "500ms", "--duration", "2s", "--verify"];
        let loaded = load(&fixture, &[&flags, more].concat());
        check_whole(&loaded, beats_min);
    }
}

#[test]
fn a_row_that_was_tampered_with_is_found() {
    let fixture = Fixture::start();
    let ledger = fixture.ledger();
    let ledger = ledger.to_str().unwrap();
    check_whole(&load(&fixture, &[SHORT, &["--ledger", ledger, "--verify"]].concat()), 600);
    let verify = || load(&fixture, &["verify", "--ledger", ledger]);
    let good = verify();
    assert_eq!((good.code, &good.json["good"]), (Some(0), &good.json["rows"]), "{}", good.stderr);

    let row = Contents::read(Path::new(ledger)).unwrap().current[7];
    let bearer = token(&fixture.launch.directory, row.user);
    let mut client = fixture.server.connect();
    let beat = |position: f64| format!("{{\"movie_id\": {}, \"position_seconds\": {position}}}", row.movie);
    assert_eq!(client.beat(&bearer, beat(row.position(row.sent + 1))).status, 204);
    let found = verify();
    assert_eq!((found.code, &found.json["invented"]), (Some(4), &Value::from(1)), "{}", found.json);
    assert_eq!(client.beat(&bearer, beat(row.position(row.acknowledged - 1))).status, 204);
    let found = verify();
    assert_eq!((found.code, &found.json["lost"]), (Some(4), &Value::from(1)), "{}", found.json);
    // What is right for the title at its neighbour's place is right for no title.
    assert_eq!(client.beat(&bearer, beat(row.position(row.sent) + 1.0 / 64.0)).status, 204);
    assert_eq!(verify().code, Some(4));
    assert_eq!(client.beat(&bearer, beat(row.position(row.sent))).status, 204);
    assert_eq!(verify().code, Some(0));
    let path = format!("{PROGRESS}/{}", row.movie);
    assert_eq!(client.delete(&path, &bearer).status, 204);
    let found = verify();
    assert_eq!((found.code, &found.json["lost"]), (Some(4), &Value::from(1)), "{}", found.json);
}

#[test]
fn a_stall_of_the_server_shows_as_latency_of_the_intended_times() {
    const STALL: Duration = Duration::from_secs(3);
    let fixture = Fixture::start();
    let flags = ["--streamers", "400", "--duration", "6s", "--steady"];
    let child = start(&fixture, &flags);
    eventually("the load has begun", || fixture.server.metric("playhead_store_records_total") > 30);
    fixture.server.signal(Signal::STOP);
    wait_for(STALL);
    fixture.server.signal(Signal::CONT);
    let loaded = ended(child);
    let json = &loaded.json;
    assert_eq!(json["failed"], 0, "{json}");
    // 100 beats a second were due during the stall; those of its first second and a half waited for as long again.
    let slow: u64 = json["latency_histogram_us"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pair| if pair[0].as_u64().unwrap() > 1_500_000 { pair[1].as_u64().unwrap() } else { 0 })
        .sum();
    assert!(slow >= 120, "{slow} slow beats: {json}");
    assert!(json["latency_ms"]["max"].as_f64().unwrap() > 2_700.0, "{json}");
    let due: Vec<u64> =
        json["timeline"]["offered"].as_array().unwrap()[..6].iter().map(|due| due.as_u64().unwrap()).collect();
    assert!(due.iter().all(|due| *due >= 90), "a gap: {due:?}");
}

#[test]
fn a_server_that_is_killed_ends_no_run_and_loses_nothing() {
    let fixture = Fixture::start();
    let ledger = fixture.ledger();
    let ledger = ledger.to_str().unwrap();
    let flags = ["--streamers", "200", "--interval", "500ms", "--duration", "4s", "--ledger", ledger];
    let child = start(&fixture, &flags);
    let Fixture { directory: _directory, launch, server } = fixture;
    eventually("the load has begun", || server.metric("playhead_store_records_total") > 100);
    server.kill();
    let loaded = ended(child);
    assert_eq!(loaded.code, Some(3), "{}", loaded.stderr);
    assert!(loaded.json["connects_failed"].as_u64().unwrap() > 0, "{}", loaded.json);
    assert!(loaded.json["acknowledged"].as_u64().unwrap() > 0, "{}", loaded.json);
    let server = launch.start();
    let verify = || load_at(server.address, &launch.directory, &["verify", "--ledger", ledger]);
    let found = verify();
    assert_eq!((found.code, &found.json["good"]), (Some(0), &found.json["rows"]), "{}\n{}", found.json, found.stderr);
}

#[test]
fn the_ledger_survives_its_own_process_and_a_run_goes_on_with_it() {
    let fixture = Fixture::start();
    let path = fixture.ledger();
    let ledger = path.to_str().unwrap();
    let flags = ["--streamers", "100", "--interval", "200ms", "--duration", "60s", "--ledger", ledger];
    let mut child = start(&fixture, &flags);
    let acknowledged = || match Contents::read(&path) {
        Ok(contents) => contents.current.iter().filter(|row| row.acknowledged > 0).count(),
        // Not yet there, or not yet whole.
        Err(_) => 0,
    };
    eventually("the file knows what was acknowledged", || acknowledged() > 90);
    child.kill().unwrap();
    child.wait().unwrap();
    let verify = || load(&fixture, &["verify", "--ledger", ledger]);
    let found = verify();
    assert_eq!(found.code, Some(0), "{}\n{}", found.json, found.stderr);
    assert!(found.stderr.contains("did not end in order"), "{}", found.stderr);

    let flags = ["--streamers", "100", "--interval", "200ms", "--duration", "1s", "--ledger", ledger, "--verify"];
    let more = load(&fixture, &flags);
    assert!(matches!(more.code, Some(0 | 3)), "{}\n{}", more.json, more.stderr);
    assert_eq!(more.json["verification"]["good"], more.json["verification"]["rows"], "{}", more.json);
    let found = verify();
    assert_eq!(found.code, Some(0), "{}", found.json);
    assert!(!found.stderr.contains("did not end in order"), "{}", found.stderr);
    let other = load(&fixture, &["--streamers", "99", "--duration", "1s", "--ledger", ledger]);
    assert_eq!(other.code, Some(1));
    assert!(other.stderr.contains("--streamers"), "{}", other.stderr);
}

#[test]
fn interrupted_it_gives_the_results_so_far() {
    let fixture = Fixture::start();
    let child = start(&fixture, &["--streamers", "200", "--interval", "500ms", "--duration", "600s", "--verify"]);
    eventually("the load has begun", || fixture.server.metric("playhead_store_records_total") > 100);
    signal(&child, Signal::INT);
    let told = Instant::now();
    let loaded = ended(child);
    assert!(told.elapsed() < Duration::from_secs(20), "ended after {:?}", told.elapsed());
    assert_eq!(loaded.code, Some(1));
    assert!(loaded.stderr.contains("interrupted"), "{}", loaded.stderr);
    assert!(loaded.json["acknowledged"].as_u64().unwrap() >= 100, "{}", loaded.json);
    assert!(loaded.json["elapsed_s"].as_f64().unwrap() < 60.0, "{}", loaded.json);
}

#[test]
fn processes_side_by_side_become_one_result() {
    let fixture = Fixture::start();
    let files = ["a.json", "b.json"].map(|name| fixture.directory.path().join(name));
    let children = [("-1", &files[0]), ("-201", &files[1])].map(|(first_user, file)| {
        let own = ["--verify", "--first-user", first_user, "--json", file.to_str().unwrap()];
        start(&fixture, &[SHORT, &own].concat())
    });
    let sum: u64 = children.map(|child| ended(child).json["acknowledged"].as_u64().unwrap()).into_iter().sum();
    let page = fixture.directory.path().join("page.html");
    let [first, second] = files.each_ref().map(|file| file.to_str().unwrap());
    let merged = run(&["load", "merge", first, second, "--output", "json", "--report", page.to_str().unwrap()]);
    assert!(matches!(merged.code, Some(0 | 3)), "{}", merged.stderr);
    let json: Value = serde_json::from_str(&merged.stdout).unwrap();
    assert_eq!((&json["acknowledged"], &json["asked"]["streamers"]), (&Value::from(sum), &Value::from(400)));
    assert_eq!(json["verification"]["good"], json["verification"]["rows"]);
    assert!(std::fs::read_to_string(page).unwrap().contains("</svg>"));
    assert_eq!(run(&["load", "merge", first, first]).code, Some(1));
}

#[test]
fn a_search_that_can_not_succeed_ends() {
    let fixture = Fixture::start();
    // The committer alone waits for longer.
    let flags = ["--find-capacity", "--streamers", "20", "--interval", "500ms", "--duration", "1s", "--p99-max", "1ms"];
    let loaded = load(&fixture, &flags);
    assert_eq!((loaded.code, &loaded.json["streamers_carried"]), (Some(3), &Value::from(0)), "{}", loaded.stderr);
    assert!(loaded.json["tries"].as_array().unwrap().len() >= 4, "{}", loaded.json);
}

/// A service that answers reads as Playhead would, and every heartbeat with these bytes; or ends after so many bytes of
/// them.
fn service(heartbeat: &'static str) -> SocketAddr {
    const NONE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 39\r\n\r\n{\"state\":\"none\",\"position_seconds\":0.0}";
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            std::thread::spawn(move || {
                let mut request = [0; 4_096];
                while let Ok(count @ 1..) = socket.read(&mut request) {
                    let answer = if request[..count].starts_with(b"GET") { NONE } else { heartbeat };
                    if socket.write_all(answer.as_bytes()).is_err() || !answer.contains("\r\n\r\n") {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// A directory with a secret such as `--dev` makes.
fn secret() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("dev-secret"), "0123456789abcdef0123456789abcdef\n").unwrap();
    directory
}

#[test]
fn answers_that_are_no_204_are_counted_or_end_the_run() {
    let secret = secret();
    const SHED: &str = "HTTP/1.1 503 No\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n";
    let flags = &["--streamers", "50", "--interval", "500ms", "--connections", "4", "--duration", "2s"];
    for (heartbeat, failure, code, word) in [
        ("HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n", "500", 3, "objective"),
        (SHED, "503", 3, "objective"),
        ("HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n", "401", 1, "--token-ttl"),
        ("HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n", "404", 1, "404"),
        ("HTTP/1.1 204 No", "closed", 3, "objective"),
        ("hello, who is there?\r\n\r\n", "garbled", 3, "objective"),
    ] {
        let loaded = load_at(service(heartbeat), secret.path(), flags);
        let json = &loaded.json;
        assert!(
            json["failures"][failure].as_u64().is_some_and(|count| count > 0),
            "{failure}: {json} {}",
            loaded.stderr
        );
        assert_eq!(json["acknowledged"], 0, "{failure}: {json}");
        assert_eq!(loaded.code, Some(code), "{failure}: {json}\n{}", loaded.stderr);
        // Where connections break the generator may not get all out in time.
        let is_told = loaded.stderr.contains(word) || (code == 3 && loaded.stderr.contains("INVALID"));
        assert!(is_told, "{failure}: {}", loaded.stderr);
    }
    // Told to wait for a second or two, a player does.
    let shed = load_at(service(SHED), secret.path(), flags);
    let attempts = shed.json["failures"]["503"].as_u64().unwrap();
    assert!((50..=150).contains(&attempts), "{attempts} attempts of 50 streamers in 2 s: {}", shed.json);
}

#[test]
fn a_target_that_is_none_is_refused_at_once() {
    let secret = secret();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let check = |words: &[&str], code: i32, word: &str| {
        let ended = run(words);
        assert_eq!(ended.code, Some(code), "{words:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(word) && ended.stdout.is_empty(), "{words:?}: {}", ended.stderr);
    };
    let data = secret.path().to_str().unwrap();
    let down = format!("http://{nobody}");
    check(&["load", "--target", &down, "--data-dir", data], 1, "is the server running");
    check(&["load", "--target", "https://127.0.0.1", "--data-dir", data], 2, "plain HTTP");
    check(&["load", "--target", "127.0.0.1:1", "--data-dir", data], 2, "http://HOST:PORT");
    check(&["load", "--target", &down, "--data-dir", "no-such-directory"], 1, "can't read the secret");
    check(&["load", "--streamers", "0"], 2, "40k");
    check(&["load", "--saturate", "--find-capacity"], 2, "cannot be used with");
    check(&["load", "--connections", "1M", "--streamers", "2M", "--data-dir", data], 2, "ulimit -n");
    check(&["load", "merge", "a.json"], 2, "merge");
    let fixture = Fixture::start();
    let here = format!("http://{}", fixture.server.address);
    check(&["load", "--target", &here, "--data-dir", data], 1, "--jwt-secret-file");
    let nowhere = fixture.directory.path().join("no/such/ledger");
    let nowhere = nowhere.to_str().unwrap();
    let own = fixture.launch.directory.to_str().unwrap();
    check(&["load", "--target", &here, "--data-dir", own, "--ledger", nowhere], 1, "--ledger a place with room");
    check(&["load", "verify", "--target", &here, "--data-dir", own, "--ledger", nowhere], 1, "can't read the ledger");
    let odd = fixture.directory.path().join("odd");
    std::fs::write(&odd, "x").unwrap();
    check(
        &["load", "verify", "--target", &here, "--data-dir", own, "--ledger", odd.to_str().unwrap()],
        1,
        "not a ledger",
    );
}

#[test]
fn a_full_disk_under_the_ledger_ends_the_run_with_the_results_so_far() {
    let test = "a_full_disk_under_the_ledger_ends_the_run_with_the_results_so_far";
    let directory = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(test, &directory.path().join("disk"), 1) else { return };
    let secret = secret();
    // Each beat that meets an unknown end leaves a title, and a title that was left takes room.
    let address = service("HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n");
    let ledger = disk.path.join("ledger");
    std::fs::write(disk.path.join("filler"), vec![1; (1 << 20) - (2 * 4_096)]).unwrap();
    let flags =
        ["--streamers", "100", "--interval", "200ms", "--duration", "60s", "--ledger", ledger.to_str().unwrap()];
    let loaded = load_at(address, secret.path(), &flags);
    assert_eq!(loaded.code, Some(1), "{}", loaded.stderr);
    assert!(loaded.stderr.contains("No space left") && loaded.stderr.contains("--ledger"), "{}", loaded.stderr);
    assert!(loaded.json["sent"].as_u64().unwrap() > 60, "{}", loaded.json);
    assert!(loaded.json["elapsed_s"].as_f64().unwrap() < 50.0, "{}", loaded.json);
}

#[test]
fn help_has_examples() {
    let help = run(&["load", "--help"]).stdout;
    for word in ["Examples:", "playhead load verify --ledger", "Exit codes:", "--find-capacity"] {
        assert!(help.contains(word), "{word}");
    }
}
