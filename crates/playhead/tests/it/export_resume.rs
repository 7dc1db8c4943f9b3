//! `playhead export --resume`: what broke off goes on where it ended, whatever the source and the file.

use crate::client::{Client, beat, dev_secret, mint};
use crate::export::{ADMIN_TOKEN, Place, done, many_rows};
use crate::process::{Ended, run};
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;

const ROWS: u32 = 20_000;

const FILES: [&str; 2] = ["export.ndjson", "export.ndjson.zst"];

fn resume(place: &Place, file: &str, source: &[&str]) -> Ended {
    run(&[&["export", &place.text(file), "--resume", "--output", "json"][..], source].concat())
}

fn partial(file: &str) -> String {
    format!("{file}.partial")
}

/// A place with a store in `data`, and of it the first part of an export in this file.
fn broken_off(file: &str) -> Place {
    let place = Place::new();
    many_rows(&place.path("many.ndjson"), ROWS);
    assert_eq!(done(&place.import("many.ndjson", "data"))["changed"], ROWS);
    done(&run(&["export", &place.text(file), "--data-dir", &place.text("data"), "--output", "json"]));
    let whole = fs::read(place.path(file)).unwrap();
    fs::rename(place.path(file), place.path(&format!("whole-{file}"))).unwrap();
    fs::write(place.path(&partial(file)), &whole[..whole.len() * 2 / 3]).unwrap();
    place
}

/// Lines of the last user may come twice.
fn distinct(place: &Place, file: &str) -> BTreeSet<String> {
    place.lines(file).into_iter().collect()
}

#[test]
fn of_a_stopped_store_the_rest_is_added() {
    for file in FILES {
        let place = broken_off(file);
        let exported = done(&resume(&place, file, &["--data-dir", &place.text("data")]));
        let taken_over = exported["lines_of_earlier_run"].as_u64().unwrap();
        assert!((1_000..u64::from(ROWS)).contains(&taken_over), "{exported}");
        let twice = exported["rows"].as_u64().unwrap() - u64::from(ROWS);
        assert!(twice <= 10, "only one user's rows come twice: {exported}");
        assert_eq!(distinct(&place, file), distinct(&place, &format!("whole-{file}")));
        assert!(!place.path(&partial(file)).exists());
        let imported = done(&place.import(file, "copy"));
        assert_eq!((&imported["changed"], &imported["is_whole"]), (&json!(ROWS), &json!(true)), "{imported}");
    }
}

#[test]
fn of_a_serving_store_the_rest_is_added_and_what_is_new_in_it() {
    for file in FILES {
        let place = broken_off(file);
        let server = place.launch("data").start();
        let token = mint(&dev_secret(place.path("data")), 7_000_000);
        assert_eq!(server.connect().beat(&token, beat(1, 5)).status, 204);
        let (admin, token) = (format!("http://{}", server.admin), place.text("admin-token"));
        done(&resume(&place, file, &["--admin", &admin, "--admin-token-file", &token]));
        let mut lines = distinct(&place, file);
        let before = lines.len();
        lines.retain(|line| !line.contains("\"7000000\""));
        assert_eq!(lines.len() + 1, before, "the new row is in it");
        assert_eq!(lines, distinct(&place, &format!("whole-{file}")));
    }
}

/// A row of each of these users.
fn rows(users: std::ops::RangeInclusive<u32>) -> Vec<String> {
    let row = |user| {
        format!(
            "{{\"row\":{{\"user_id\":\"{user}\",\"movie_id\":\"1\",\"position_seconds\":1.5,\"duration_seconds\":null,\
             \"write_time_us\":1700000000000000}}}}"
        )
    };
    users.map(row).collect()
}

/// An export of these rows, with its last line or without.
fn archive(rows: &[String], is_whole: bool) -> String {
    let header = json!({"header": {"format": 1, "version": "0", "exported_at_us": 1, "has_barriers": true}});
    let text = format!("{header}\n{}\n", rows.join("\n"));
    if !is_whole {
        return text;
    }
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    let sha256: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let trailer = json!({"trailer": {"rows": rows.len(), "forgets": 0, "erases": 0, "sha256": sha256}});
    format!("{text}{trailer}\n")
}

#[test]
fn a_stream_that_breaks_twice_is_gone_on_with_from_the_user_that_came_last() {
    for file in FILES {
        let place = Place::new();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let admin = format!("http://{}", listener.local_addr().unwrap());
        let token = place.text("admin-token");
        let source = ["--admin", &admin, "--admin-token-file", &token];
        // A stand-in, to break at a place of the test's choice.
        let answers = [archive(&rows(1..=30), false), archive(&rows(30..=50), false), archive(&rows(50..=60), true)];
        let asked = std::thread::scope(|scope| {
            let server = scope.spawn(|| {
                let answer = |lines: &String| {
                    let (mut socket, _) = listener.accept().unwrap();
                    let mut request = [0; 4096];
                    let count = socket.read(&mut request).unwrap();
                    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
                    let end = if lines.contains("trailer") { "0\r\n\r\n" } else { "" };
                    write!(socket, "{head}{:x}\r\n{lines}\r\n{end}", lines.len()).unwrap();
                    let request = String::from_utf8_lossy(&request[..count]).into_owned();
                    request.lines().next().unwrap().to_owned()
                };
                answers.iter().map(answer).collect::<Vec<_>>()
            });
            for _ in 0..2 {
                let ended = resume(&place, file, &source);
                assert!(ended.code == Some(1) && ended.stderr.contains("cut off"), "{ended:?}");
                assert!(ended.stderr.contains(".partial: the same command goes on"), "{ended:?}");
                assert!(!place.path(file).exists() && place.path(&partial(file)).exists());
            }
            let exported = done(&resume(&place, file, &source));
            assert_eq!((&exported["lines_of_earlier_run"], &exported["rows"]), (&json!(51), &json!(62)), "{exported}");
            server.join().unwrap()
        });
        let paths = ["/export", "/export?from_user=30", "/export?from_user=50"];
        assert_eq!(asked, paths.map(|path| format!("GET {path} HTTP/1.1")));
        assert_eq!(distinct(&place, file), rows(1..=60).into_iter().collect());
        let mut left: Vec<_> = fs::read_dir(place.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["admin-token", file]);
    }
}

#[test]
fn what_can_not_be_gone_on_from_is_told_or_begun_anew() {
    let place = broken_off(FILES[0]);
    let (data, part) = (place.text("data"), place.path(&partial(FILES[0])));
    let other = archive(&rows(1..=3), false).replace("\"has_barriers\":true", "\"has_barriers\":false");
    let damaged = archive(&rows(1..=3), false) + "\0\0\0\n";
    let cases = [
        (&*other, 2, "another kind of store"),
        (&*damaged, 1, "remove it: line 5 is not right"),
        ("something else\n", 1, "remove it: this is no export"),
        ("{\"he", 1, "remove it: this is no export"),
    ];
    for (left, code, word) in cases {
        fs::write(&part, left).unwrap();
        let ended = resume(&place, FILES[0], &["--data-dir", &data]);
        assert!(ended.code == Some(code) && ended.stderr.contains(word), "{ended:?}");
        assert!(fs::metadata(&part).unwrap().len() > 0, "it is left");
        assert!(!place.path(&format!("{}.next", partial(FILES[0]))).exists(), "nothing else is");
    }
    fs::write(&part, "").unwrap();
    let exported = done(&resume(&place, FILES[0], &["--data-dir", &data]));
    assert_eq!((&exported["lines_of_earlier_run"], &exported["rows"]), (&json!(0), &json!(ROWS)), "{exported}");
    let ended = run(&["export", "-", "--resume", "--data-dir", &data]);
    assert!(ended.code == Some(2) && ended.stderr.contains("needs a file"), "{ended:?}");
}

#[test]
fn a_server_takes_no_other_query() {
    let place = Place::new();
    let server = place.launch("data").start();
    let get = |query: &str, token| Client::to(server.admin).get(&format!("/export?{query}"), token);
    for query in ["from_user=", "from_user=07", "from_user=a", "from_user=1&from_user=2", "user=1", "from_user=1&x=2"] {
        let answer = get(query, Some(ADMIN_TOKEN));
        assert!(answer.status == 400 && answer.body.contains("from_user=ID"), "{query}: {answer:?}");
    }
    assert_eq!(get("from_user=-7", Some(ADMIN_TOKEN)).status, 200);
    assert_eq!(get("from_user=x", None).status, 401, "who may not ask learns nothing");
}
