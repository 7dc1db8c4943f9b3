//! Flags, files, signals and exit codes.

use crate::client::{PATIENCE, PROGRESS, token};
use crate::process::{Launch, Server, playhead, run};
use rustix::process::Signal;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use tempfile::TempDir;

/// Checks that a command ends with this code and one line on stderr that says this, and nothing on stdout.
fn check_refused(arguments: &[&str], code: i32, says: &str) {
    let ended = run(arguments);
    assert_eq!(ended.code, Some(code), "{arguments:?}: {}", ended.stderr);
    assert!(ended.stderr.contains(says), "{arguments:?} does not say {says:?}: {}", ended.stderr);
    assert_eq!(ended.stdout, "", "{arguments:?}");
    if ended.stderr.starts_with("error: ") && code == 1 {
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    }
}

#[test]
fn flags_that_make_no_sense_are_wrong_use() {
    let directory = TempDir::new().unwrap();
    let secret = directory.path().join("secret");
    fs::write(&secret, "x".repeat(32)).unwrap();
    let secret = secret.to_str().unwrap();
    let data = directory.path().join("data");
    let data = data.to_str().unwrap();
    let cases: [(&[&str], &str); 14] = [
        (&["serve"], "--jwt-secret-file"),
        (&["serve", "--dev", "--jwt-secret-file", secret], "leave out"),
        (&["serve", "--dev", "--listen", "0.0.0.0:0"], "--dev-allow-remote"),
        (&["serve", "--dev", "--admin-listen", "0.0.0.0:0"], "--dev-allow-remote"),
        (&["serve", "--store", "memory", "--jwt-secret-file", secret], "--dev"),
        (&["serve", "--store", "discard", "--jwt-secret-file", secret], "--dev"),
        (&["serve", "--dev", "--store", "paper"], "embedded"),
        (&["serve", "--dev", "--listen", "nowhere"], "--listen"),
        (&["serve", "--dev", "--completed-at", "1.5"], "share"),
        (&["serve", "--dev", "--idle-timeout", "75"], "unit"),
        (&["serve", "--dev", "--workers", "0"], "--workers"),
        (&["serve", "--nonsense"], "--nonsense"),
        (&["nonsense"], "nonsense"),
        (&["token", "--user", "042"], "canonical"),
    ];
    for (arguments, says) in cases {
        let arguments: Vec<_> =
            if arguments[0] == "serve" { [arguments, &["--data-dir", data]].concat() } else { arguments.to_vec() };
        check_refused(&arguments, 2, says);
    }
    assert!(!directory.path().join("data").exists(), "wrong use left something behind");
}

#[test]
fn files_and_addresses_that_can_not_be_used_fail_with_one_line() {
    let directory = TempDir::new().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("short"), "x".repeat(31)).unwrap();
    fs::write(path("newline"), format!("{}\n", "x".repeat(31))).unwrap();
    fs::write(path("file"), "").unwrap();
    check_refused(&["serve", "--jwt-secret-file", &path("absent")], 1, "can't read the secret");
    check_refused(&["serve", "--jwt-secret-file", directory.path().to_str().unwrap()], 1, "can't read the secret");
    check_refused(&["serve", "--jwt-secret-file", &path("short")], 1, "31 bytes");
    check_refused(&["serve", "--jwt-secret-file", &path("newline")], 1, "31 bytes");
    check_refused(&["serve", "--dev", "--data-dir", &path("file")], 1, "--data-dir");
    check_refused(&["serve", "--dev", "--data-dir", &path("file/below")], 1, "--data-dir");
    check_refused(&["token", "--user", "1", "--data-dir", &path("absent")], 1, "can't read the secret");

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let serve = ["serve", "--dev", "--store", "memory", "--data-dir", &path("data")];
    check_refused(&[&serve[..], &["--listen", &address, "--admin-listen", "127.0.0.1:0"]].concat(), 1, &address);
    check_refused(&[&serve[..], &["--listen", "127.0.0.1:0", "--admin-listen", &address]].concat(), 1, &address);
}

#[test]
fn the_dev_secret_is_made_once_and_only_its_owner_may_read_it() {
    let parent = TempDir::new().unwrap();
    let directory = parent.path().join("a/b");
    let file = directory.join("dev-secret");
    drop(Launch::new(&directory, &["--dev", "--store", "memory"]).start());
    let secret = fs::read(&file).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    drop(Launch::new(&directory, &["--dev", "--store", "memory"]).start());
    assert_eq!(fs::read(&file).unwrap(), secret);
    assert!(secret.len() >= 64);
}

#[test]
fn the_printed_lines_work_as_pasted() {
    let directory = TempDir::new().unwrap();
    let server = Server::in_memory(&directory, &[]);
    let lines = server.printed_lines(9);
    assert_eq!(lines[0], format!("demo on http://{}/demo/", server.address));
    let token = lines[1].rsplit(' ').next().unwrap();
    assert_eq!(server.connect().get(PROGRESS, Some(token)).status, 200);
    let curls: Vec<_> = lines.iter().filter(|line| line.starts_with("curl ")).collect();
    let outputs: Vec<_> = curls
        .iter()
        .map(|line| {
            let output = std::process::Command::new("sh").args(["-c", line]).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        })
        .collect();
    assert_eq!(outputs.len(), 3, "{lines:?}");
    assert!(outputs[0].starts_with("HTTP/1.1 204 No Content"), "{outputs:?}");
    assert!(outputs[1].contains(r#""position_seconds":1234.5"#), "{outputs:?}");
    assert!(outputs[2].contains(r#""items":[{"movie_id":"42""#), "{outputs:?}");
}

#[test]
fn a_secret_file_with_issuer_audience_and_claim_takes_the_tokens_made_for_it() {
    let directory = TempDir::new().unwrap();
    let secret = directory.path().join("secret");
    fs::write(&secret, format!("{}\r\n", "k".repeat(32))).unwrap();
    let key = ["--jwt-secret-file", secret.to_str().unwrap()];
    let claims = ["--jwt-issuer", "i", "--jwt-audience", "a", "--user-claim", "profile"];
    let mint = |flags: &[&str]| run(&[&["token", "--user", "-5"], flags].concat()).stdout.trim_end().to_owned();
    let good = mint(&[&key[..], &claims].concat());
    let bare = mint(&key);
    let server = Server::in_memory(&directory, &claims);
    // The dev secret is another one.
    assert_eq!(server.connect().get(PROGRESS, Some(&good)).status, 401);
    let data = directory.path().to_str().unwrap();
    let dev = mint(&[&["--data-dir", data][..], &claims].concat());
    assert_eq!(server.connect().get(PROGRESS, Some(&dev)).status, 200);
    let without_claims = token(&directory, -5);
    assert_eq!(server.connect().get(PROGRESS, Some(&without_claims)).status, 401);
    assert_ne!(good, bare);
}

#[test]
fn health_says_what_the_server_says() {
    let directory = TempDir::new().unwrap();
    let server = Server::in_memory(&directory, &[]);
    let admin = server.admin.to_string();
    let ended = run(&["health", "--admin", &admin]);
    assert_eq!((ended.code, ended.stdout.trim()), (Some(0), r#"{"status":"ready","reasons":[]}"#));
    drop(server);
    check_refused(&["health", "--admin", &admin], 1, "is the server running?");
}

#[test]
fn the_environment_counts_and_a_flag_wins_over_it() {
    let directory = TempDir::new().unwrap();
    let complaint = |flags: &[&str]| {
        let mut command = playhead(&[&["serve", "--dev"], flags].concat());
        command.env("PLAYHEAD_LISTEN", "0.0.0.0:0").env("PLAYHEAD_DATA_DIR", directory.path().join("file"));
        fs::write(directory.path().join("file"), "").unwrap();
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, stderr) = complaint(&[]);
    assert!(code == Some(2) && stderr.contains("--dev-allow-remote"), "{stderr}");
    let (code, stderr) = complaint(&["--listen", "127.0.0.1:0"]);
    assert!(code == Some(1) && stderr.contains("data directory"), "{stderr}");
}

#[test]
fn help_has_examples_for_each_command() {
    for command in ["serve", "token", "health"] {
        let ended = run(&[command, "--help"]);
        assert_eq!(ended.code, Some(0));
        assert!(ended.stdout.contains(&format!("Examples:\n  playhead {command}")), "{}", ended.stdout);
    }
}

#[test]
fn either_signal_closes_down_and_a_second_ends_at_once() {
    for signal in [Signal::TERM, Signal::INT] {
        let directory = TempDir::new().unwrap();
        let mut server = Server::in_memory(&directory, &[]);
        let _idle = server.connect();
        server.signal(signal);
        assert_eq!(server.wait(PATIENCE).status.code(), Some(0));
    }
    let directory = TempDir::new().unwrap();
    let mut server = Server::in_memory(&directory, &["--shutdown-delay", "1h"]);
    server.signal(Signal::TERM);
    server.wait_for_log("told to stop: closing down");
    server.signal(Signal::INT);
    assert_eq!(server.wait(PATIENCE).status.code(), Some(1));
}

#[test]
fn a_stuck_client_does_not_hold_up_the_end_past_the_deadline() {
    let directory = TempDir::new().unwrap();
    let mut server = Server::in_memory(&directory, &["--drain-deadline", "1s", "--request-deadline", "1h"]);
    let mut stuck = server.connect();
    stuck.send(format!("POST {PROGRESS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n", token(&directory, 1)));
    let mut client = server.connect();
    assert_eq!(client.get("/", None).status, 404);
    let begun = std::time::Instant::now();
    server.signal(Signal::TERM);
    assert_eq!(server.wait(PATIENCE).status.code(), Some(0));
    let time = begun.elapsed();
    assert!(time >= std::time::Duration::from_millis(900) && time.as_secs() < 8, "{time:?}");
}

#[test]
fn logs_are_json_lines_where_no_terminal_is() {
    let directory = TempDir::new().unwrap();
    let mut server = Server::in_memory(&directory, &[]);
    server.signal(Signal::TERM);
    assert_eq!(server.wait(PATIENCE).status.code(), Some(0));
    let log = server.talk();
    assert!(!log.is_empty());
    for line in log.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(line["level"].is_string() && line["message"].is_string(), "{line}");
    }
}
