//! Settings: which of a flag, the environment, a file and the default counts, and what is said of one that can't be.
//! Completions and manual pages too, since they are made of the same flags.

use crate::client::PROGRESS;
use crate::process::{Launch, Server, run, run_in};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

/// A file of settings in a directory of its own.
struct File {
    directory: TempDir,
    path: PathBuf,
}

impl File {
    fn of(text: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("playhead.toml");
        fs::write(&path, text).unwrap();
        Self { directory, path }
    }

    fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }
}

/// `config show --output json` of one key.
fn shown(environment: &[(&str, &str)], flags: &[&str], key: &str) -> Value {
    let ended = run_in(environment, &[&["config", "show", "--output", "json"], flags].concat());
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let all: Value = serde_json::from_str(&ended.stdout).unwrap();
    let found = all["settings"].as_array().unwrap().iter().find(|setting| setting["key"] == key);
    found.unwrap_or_else(|| panic!("{key} is not shown: {all}")).clone()
}

#[test]
fn a_flag_wins_over_the_environment_over_the_file_over_the_default() {
    let file = File::of("# one\nidle_timeout = \"60s\"\n");
    let config = ["--config", file.path()];
    let environment = [("PLAYHEAD_IDLE_TIMEOUT", "50s")];
    let flags = [&config[..], &["--idle-timeout", "40s"]].concat();
    let key = "idle_timeout";
    let expect = |found: Value, value: &str, origin: &str| {
        assert_eq!((&found["value"], &found["origin"]), (&value.into(), &origin.into()), "{found}");
        found
    };
    expect(shown(&environment, &flags, key), "40s", "flag");
    let found = expect(shown(&environment, &config, key), "50s", "environment");
    assert_eq!(found["variable"], "PLAYHEAD_IDLE_TIMEOUT");
    let found = expect(shown(&[], &config, key), "60s", "file");
    assert_eq!((&found["file"], &found["line"]), (&file.path().into(), &2.into()));
    expect(shown(&[], &[], key), "75s", "default");
    // The file may be named by the environment as well.
    expect(shown(&[("PLAYHEAD_CONFIG", file.path())], &[], key), "60s", "file");
}

#[test]
fn values_are_shown_as_what_they_are() {
    let file = File::of(
        "dev = true\nworkers = 0x3\ncompleted_at = 0.5\ncors_origin = [\"https://a.example\", \"https://b.example\"]\n\
         user_claim = \"a \\\"b\\\" \\\\ c\"\nmax_connections = 1_000\nthrottle_burst = \"7\"\n",
    );
    let config = ["--config", file.path()];
    let value = |key| shown(&[], &config, key)["value"].clone();
    assert_eq!(value("dev"), true);
    assert_eq!(value("dev_allow_remote"), false);
    assert_eq!(value("workers"), 3);
    assert_eq!(value("completed_at"), 0.5);
    assert_eq!(value("cors_origin"), serde_json::json!(["https://a.example", "https://b.example"]));
    assert_eq!(value("user_claim"), "a \"b\" \\ c");
    assert_eq!(value("max_connections"), 1000);
    assert_eq!(value("throttle_burst"), 7);
    assert_eq!(value("jwt_issuer"), Value::Null);
    assert_eq!(shown(&[], &["--dev"], "dev")["value"], true);
    assert_eq!(
        shown(&[("PLAYHEAD_CORS_ORIGIN", "https://c.example,https://d.example")], &[], "cors_origin")["value"][1],
        "https://d.example"
    );
}

#[test]
fn what_is_shown_is_a_file_that_says_the_same() {
    let first = File::of("dev = true\ncors_origin = [\"*\"]\nretention = \"90d\"\nuser_claim = \"\\u0007 \\\"\\\\\"\n");
    let ended = run(&["config", "show", "--config", first.path(), "--workers", "2"]);
    let line = |key: &str| ended.stdout.lines().find(|line| line.contains(&format!("{key} ="))).unwrap().to_owned();
    assert!(line("retention").ends_with(&format!("# {}, line 3", first.path())), "{}", ended.stdout);
    assert!(line("workers").starts_with("workers = 2 ") && line("workers").ends_with("# flag"), "{}", ended.stdout);
    assert!(line("jwt_issuer").starts_with("# jwt_issuer ="), "{}", ended.stdout);
    assert!(line("listen").ends_with("# default"), "{}", ended.stdout);

    let second = File::of(&ended.stdout);
    for setting in ["dev", "cors_origin", "retention", "user_claim", "workers", "listen", "segment_bytes"] {
        let found = shown(&[], &["--config", second.path()], setting);
        let before = shown(&[], &["--config", first.path(), "--workers", "2"], setting);
        assert_eq!((&found["value"], &found["origin"]), (&before["value"], &"file".into()), "{setting}");
    }
}

#[test]
fn everything_wrong_with_a_file_is_said_at_once_with_its_line() {
    let text = "idel_timeout = \"60s\"\nidle_timeout = 60\n\nstore = \"paper\"\nlisten = \"nowhere\"\nworkers = 0\n\
                completed_at = 1.5\ndev = \"yes\"\nmax_connections = [1]\ncors_origin = [1, [2]]\nthrottle_burst = 1000001\n\
                retention = 2026-01-01\nbeat_interval = \"500ms\"\njwt_secret = \"x\"\n[limits]\nworkers = 5\n";
    let file = File::of(text);
    let said = [
        (1, "there is no key idel_timeout; the nearest is idle_timeout"),
        (2, "idle_timeout: a time is a number and a unit"),
        (4, "store: it is one of embedded, cassandra, memory, discard"),
        (5, "listen: "),
        (6, "workers: it is a whole number, 1 to 1024"),
        (7, "completed_at: a share is"),
        (8, "dev: it is true or false"),
        (9, "max_connections: it is one text or number"),
        (10, "cors_origin: it is a text or a list of texts"),
        (11, "throttle_burst: it is a whole number, 0 to 1000000"),
        (12, "retention: "),
        (13, "beat_interval: it is whole seconds"),
        (14, "there is no key jwt_secret; the nearest is jwt_secret_file"),
        (15, "there is no key limits"),
    ];
    let commands: [&[&str]; 4] = [
        &["config", "check", file.path()],
        &["config", "show", "--config", file.path()],
        &["serve", "--config", file.path()],
        // A flag that would win does not excuse the file.
        &["token", "--user", "1", "--config", file.path()],
    ];
    for arguments in commands {
        let ended = run(arguments);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{arguments:?}: {}", ended.stderr);
        let lines: Vec<_> = ended.stderr.lines().collect();
        assert_eq!(lines.len(), said.len(), "{}", ended.stderr);
        for (line, (number, says)) in lines.iter().zip(said) {
            let says = format!("{}, line {number}: {says}", file.path());
            assert!(line.contains(&says), "{line:?} is not {says:?}");
        }
    }
}

#[test]
fn a_file_that_is_none_is_refused() {
    let cases = [
        ("listen = \"a\nworkers = 1\n", 2, "line 1: this is not TOML"),
        ("workers = 1\n\nworkers = 2\n", 2, "line 3: this is not TOML"),
        ("workers = 99999999999999999999999999999999999999999999\n", 2, "line 1: workers: "),
    ];
    for (text, code, says) in cases {
        let file = File::of(text);
        let ended = run(&["config", "check", file.path()]);
        assert!(ended.code == Some(code) && ended.stderr.contains(says), "{text:?}: {}", ended.stderr);
    }
    let file = File::of("");
    fs::write(&file.path, [b'#', 0xff, b'\n']).unwrap();
    for path in ["/nonexistent/playhead.toml", file.directory.path().to_str().unwrap(), file.path()] {
        let ended = run(&["serve", "--config", path]);
        let says = format!("can't read the settings in {path}");
        assert!(ended.code == Some(1) && ended.stderr.contains(&says), "{}", ended.stderr);
    }
    fs::write(&file.path, "#".repeat((1 << 20) + 1)).unwrap();
    let ended = run(&["config", "check", file.path()]);
    assert!(ended.code == Some(2) && ended.stderr.contains("longer than"), "{}", ended.stderr);
}

#[test]
fn a_variable_that_can_not_be_is_refused_by_its_name_and_a_slip_is_told() {
    for (variable, value, says) in [
        ("PLAYHEAD_IDLE_TIMEOUT", "75", "a time is a number and a unit"),
        ("PLAYHEAD_STORE", "paper", "it is one of embedded"),
        ("PLAYHEAD_DEV", "yes", "it is true or false"),
        ("PLAYHEAD_WORKERS", "0", "it is a whole number, 1 to 1024"),
    ] {
        let ended = run_in(&[(variable, value)], &["config", "show"]);
        let says = format!("error: {variable} in the environment: {says}");
        assert!(ended.code == Some(2) && ended.stderr.contains(&says), "{variable}={value}: {}", ended.stderr);
    }
    // If only the flag counts, only the flag can be wrong.
    assert_eq!(run_in(&[("PLAYHEAD_WORKERS", "0")], &["config", "show", "--workers", "1"]).code, Some(0));
    let ended = run_in(&[("PLAYHEAD_IDEL_TIMEOUT", "1s"), ("PLAYHEAD_SERVICE_HOST", "10.0.0.1")], &["config", "show"]);
    assert_eq!(ended.code, Some(0));
    assert!(
        ended.stderr.contains("PLAYHEAD_IDEL_TIMEOUT") && ended.stderr.contains("PLAYHEAD_IDLE_TIMEOUT"),
        "{}",
        ended.stderr
    );
    assert!(!ended.stderr.contains("PLAYHEAD_SERVICE_HOST"), "{}", ended.stderr);
}

#[test]
fn check_knows_what_serve_would_refuse() {
    let secret = File::of(&"x".repeat(32));
    let short = File::of("short");
    let key = |secret: &File| format!("jwt_secret_file = \"{}\"\n", secret.path());
    let cases = [
        (key(&secret), 0, ""),
        ("dev = true\n".to_owned(), 0, ""),
        (String::new(), 2, "--jwt-secret-file"),
        (format!("dev = true\n{}", key(&secret)), 2, "leave out"),
        (format!("store = \"memory\"\n{}", key(&secret)), 2, "keeps nothing"),
        (format!("cors_origin = \"https://example.com/path\"\n{}", key(&secret)), 2, "is no origin"),
        (format!("segment_bytes = 65537\n{}", key(&secret)), 2, "segment_bytes"),
        (key(&short), 1, "5 bytes"),
    ];
    for (text, code, says) in cases {
        let file = File::of(&text);
        let data = file.directory.path().join("data");
        let ended = run_in(&[("PLAYHEAD_DATA_DIR", data.to_str().unwrap())], &["config", "check", file.path()]);
        assert!(ended.code == Some(code) && ended.stderr.contains(says), "{text:?}: {ended:?}");
        assert_eq!(ended.stdout.contains(file.path()), code == 0, "{ended:?}");
        assert!(!data.exists(), "a check has left something behind");
    }
    let ended = run(&["config", "check"]);
    assert!(ended.code == Some(2) && ended.stderr.contains("PLAYHEAD_CONFIG"), "{}", ended.stderr);
    let file = File::of("dev = true\n");
    assert_eq!(run_in(&[("PLAYHEAD_CONFIG", file.path())], &["config", "check"]).code, Some(0));
}

#[test]
fn a_server_and_its_tokens_go_by_the_file() {
    let directory = TempDir::new().unwrap();
    let secret = directory.path().join("secret");
    fs::write(&secret, "s".repeat(32)).unwrap();
    let data = directory.path().join("data");
    let file = File::of(&format!(
        "jwt_secret_file = \"{}\"\njwt_issuer = \"i\"\nuser_claim = \"profile\"\nbeat_interval = \"6s\"\n",
        secret.display()
    ));
    let server = Launch::new(&data, &["--config", file.path()]).start();
    let token = run(&["token", "--user", "9", "--config", file.path()]);
    assert_eq!(token.code, Some(0), "{}", token.stderr);
    let answer = server.connect().get(PROGRESS, Some(token.stdout.trim_end()));
    assert_eq!((answer.status, answer.header("playhead-interval")), (200, Some("6")), "{answer:?}");
    // What is no key of that command is no matter.
    let admin = server.admin.to_string();
    assert_eq!(run(&["health", "--config", file.path(), "--admin", &admin]).code, Some(0));
}

// The page is that of a build with all stores.
#[cfg(feature = "cassandra")]
#[test]
fn the_reference_is_of_this_build() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/CONFIGURATION.md");
    let ended = run(&["config", "reference"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let kept = fs::read_to_string(path).unwrap_or_default();
    assert!(kept == ended.stdout, "docs/CONFIGURATION.md is old: `playhead config reference > docs/CONFIGURATION.md`");
    // Its example is one that works.
    let example = kept.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let secret = File::of(&"x".repeat(32));
    let file = File::of(&example.replace("/etc/playhead/secret", secret.path()));
    let ended = run(&["config", "check", file.path()]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

#[test]
fn every_key_has_one_name_in_all_its_places() {
    let ended = run(&["serve", "--help"]);
    let file = run(&["config", "show", "--output", "json"]);
    let all: Value = serde_json::from_str(&file.stdout).unwrap();
    for setting in all["settings"].as_array().unwrap() {
        let key = setting["key"].as_str().unwrap();
        for name in [format!("--{}", key.replace('_', "-")), format!("[env: PLAYHEAD_{}=", key.to_ascii_uppercase())] {
            assert!(ended.stdout.contains(&name), "`serve --help` does not know {name}");
        }
    }
    assert!(all["settings"].as_array().unwrap().len() > 30);
}

#[test]
fn completions_and_manual_pages_know_the_flags() {
    let script = run(&["completions", "bash"]).stdout;
    for word in ["--idle-timeout", "config", "reference"] {
        assert!(script.contains(word), "{word} is not completed");
    }
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("playhead");
    fs::write(&path, &script).unwrap();
    let parsed = Command::new("bash").arg("-n").arg(&path).status();
    assert!(parsed.is_ok_and(|status| status.success()), "bash does not take its completions");
    for shell in ["zsh", "fish", "powershell", "elvish"] {
        assert!(run(&["completions", shell]).stdout.contains("idle-timeout"), "{shell}");
    }
    assert_eq!(run(&["completions", "teletype"]).code, Some(2));

    for (words, title, text) in [
        (&["man"][..], "playhead 1", "Remembers where each viewer is"),
        (&["man", "serve"], "playhead-serve 1", "idle\\-timeout"),
        (&["man", "config", "show"], "playhead-config-show 1", "Examples"),
    ] {
        let page = run(words).stdout;
        assert!(page.contains(&format!(".TH {title}")) && page.contains(text), "{words:?}: {page}");
    }
    let ended = run(&["man", "nonsense"]);
    assert!(ended.code == Some(2) && ended.stderr.contains("nonsense"), "{}", ended.stderr);
}

#[test]
fn memory_forgets_by_the_file_too() {
    let directory = TempDir::new().unwrap();
    let file = File::of("retention = \"1s\"\n");
    let server = Server::in_memory(&directory, &["--config", file.path()]);
    let bearer = crate::client::token(&directory, 7);
    let mut client = server.connect();
    assert_eq!(client.beat(&bearer, crate::client::beat(1, 5)).status, 204);
    crate::process::eventually("the row is forgotten", || {
        client.get(&format!("{PROGRESS}/1"), Some(&bearer)).json()["state"] == "none"
    });
}

#[cfg(feature = "cassandra")]
#[test]
fn a_cluster_is_found_by_the_file_and_what_belongs_together_is_checked() {
    let secret = File::of(&"x".repeat(32));
    let store = format!("jwt_secret_file = \"{}\"\nstore = \"cassandra\"\n", secret.path());
    let nodes = "cassandra_nodes = [\"10.0.0.5:9042\", \"10.0.0.6\"]\n";
    let user = "cassandra_user = \"playhead\"\n";
    let password = format!("cassandra_password_file = \"{}\"\n", secret.path());
    for (text, code, says) in [
        (format!("{store}{nodes}"), 0, ""),
        (format!("{store}{nodes}{user}{password}"), 0, ""),
        (store.clone(), 2, "--cassandra-nodes"),
        (format!("{store}{nodes}{user}"), 2, "go together"),
        (format!("{store}{nodes}{password}"), 2, "go together"),
        (format!("{store}{nodes}{user}cassandra_password_file = \"/nonexistent\"\n"), 1, "--cassandra-password-file"),
        (format!("{store}{nodes}commit_window = \"501ms\"\n"), 2, "--commit-window"),
        (format!("{store}{nodes}commit_window = \"500ms\"\n"), 0, ""),
        (format!("{store}{nodes}cassandra_keyspace = \"a b\"\n"), 2, "line 4: cassandra_keyspace: a keyspace is"),
    ] {
        let file = File::of(&text);
        let ended = run(&["config", "check", file.path()]);
        assert!(ended.code == Some(code) && ended.stderr.contains(says), "{text:?}: {ended:?}");
    }
    // Half of it may come from elsewhere.
    let file = File::of(&password);
    let found = shown(&[], &["--config", file.path(), "--cassandra-user", "playhead"], "cassandra_user");
    assert_eq!((&found["value"], &found["origin"]), (&"playhead".into(), &"flag".into()));
}
