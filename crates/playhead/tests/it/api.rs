//! What works: heartbeats, reads, lists, and the operators' page.

use crate::client::{Client, PATIENCE, PROGRESS, token};
use crate::process::{Server, eventually};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

fn server() -> (TempDir, Server) {
    let directory = TempDir::new().unwrap();
    let server = Server::in_memory(&directory, &[]);
    (directory, server)
}

/// A bookmark without its time, which must be there.
fn timeless(mut bookmark: Value) -> Value {
    let time = bookmark.as_object_mut().unwrap().remove("updated_at").unwrap();
    let time = time.as_str().unwrap();
    assert!(time.len() == "2026-01-01T00:00:00.000000Z".len() && time.ends_with('Z'), "{time}");
    bookmark
}

#[test]
fn a_heartbeat_is_answered_with_a_bare_204_and_read_back() {
    let (directory, server) = server();
    let (mut client, token) = (server.connect(), token(&directory, 7));
    let answer = client.beat(&token, r#"{"movie_id": 42, "position_seconds": 1234.5, "duration_seconds": 7200}"#);
    assert_eq!((answer.status, answer.body.as_str()), (204, ""));
    let names: Vec<_> = answer.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["date"]);
    let answer = client.get(&format!("{PROGRESS}/42"), Some(&token));
    assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(
        timeless(answer.json()),
        json!({"movie_id": "42", "position_seconds": 1234.5, "resume_position_seconds": 1234.5,
               "duration_seconds": 7200.0, "state": "in_progress"})
    );
}

#[test]
fn a_title_never_watched_is_none_and_has_no_time() {
    let (directory, server) = server();
    let answer = server.connect().get(&format!("{PROGRESS}/-9223372036854775808"), Some(&token(&directory, 7)));
    assert_eq!(
        answer.json(),
        json!({"movie_id": "-9223372036854775808", "position_seconds": 0.0, "resume_position_seconds": 0.0,
               "duration_seconds": null, "updated_at": null, "state": "none"})
    );
}

#[test]
fn a_completed_title_starts_over_and_a_write_replaces_the_whole_row() {
    let (directory, server) = server();
    let (mut client, token) = (server.connect(), token(&directory, 7));
    assert_eq!(client.beat(&token, r#"{"movie_id":"1","position_seconds":95,"duration_seconds":100}"#).status, 204);
    let bookmark = client.get(&format!("{PROGRESS}/1"), Some(&token)).json();
    assert_eq!((&bookmark["state"], &bookmark["resume_position_seconds"]), (&json!("completed"), &json!(0.0)));
    assert_eq!(bookmark["position_seconds"], 95.0);
    assert_eq!(client.beat(&token, r#"{"movie_id":1,"position_seconds":-0.0}"#).status, 204);
    let bookmark = client.get(&format!("{PROGRESS}/1"), Some(&token)).json();
    assert_eq!((&bookmark["state"], &bookmark["duration_seconds"]), (&json!("in_progress"), &Value::Null));
    assert_eq!(bookmark["position_seconds"].to_string(), "0.0");
}

/// The ids of a list's page, and its cursor.
fn list(client: &mut Client, token: &str, query: &str) -> (Vec<String>, Option<String>) {
    let answer = client.get(&format!("{PROGRESS}{query}"), Some(token));
    assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")), "{answer:?}");
    let page = answer.json();
    let ids = page["items"].as_array().unwrap().iter();
    let ids = ids.map(|item| item["movie_id"].as_str().unwrap().to_owned()).collect();
    (ids, page["next_cursor"].as_str().map(str::to_owned))
}

#[test]
fn the_list_is_newest_first_filtered_by_state_and_paged_to_its_end() {
    let (directory, server) = server();
    let (mut client, token) = (server.connect(), token(&directory, 7));
    assert_eq!(list(&mut client, &token, ""), (vec![], None));
    for (movie, position) in [(1, 10), (2, 20), (3, 100), (4, 0), (5, 30), (1, 11)] {
        let body = format!(r#"{{"movie_id":{movie},"position_seconds":{position},"duration_seconds":100}}"#);
        assert_eq!(client.beat(&token, body).status, 204);
    }
    let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
    assert_eq!(list(&mut client, &token, ""), (ids(&["1", "5", "2"]), None));
    assert_eq!(list(&mut client, &token, "?state=completed"), (ids(&["3"]), None));
    assert_eq!(list(&mut client, &token, "?state=all&limit=5"), (ids(&["1", "5", "4", "3", "2"]), None));
    let (first, cursor) = list(&mut client, &token, "?limit=2");
    assert_eq!(first, ids(&["1", "5"]));
    let next = format!("?limit=2&cursor={}", cursor.unwrap());
    // A title that gets a beat meanwhile is not repeated.
    assert_eq!(client.beat(&token, r#"{"movie_id":5,"position_seconds":31}"#).status, 204);
    assert_eq!(list(&mut client, &token, &next), (ids(&["2"]), None));
}

#[test]
fn a_set_of_titles_is_answered_in_its_order_with_those_never_watched() {
    let (directory, server) = server();
    let (mut client, token) = (server.connect(), token(&directory, 7));
    for (movie, position) in [(1, 10), (2, 96), (3, 30)] {
        let body = format!(r#"{{"movie_id":{movie},"position_seconds":{position},"duration_seconds":100}}"#);
        assert_eq!(client.beat(&token, body).status, 204);
    }
    let answer = client.get(&format!("{PROGRESS}?movie_id=3&movie_id=-9&movie_id=2&movie_id=3"), Some(&token));
    assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")));
    let page = answer.json();
    assert_eq!(page["next_cursor"], Value::Null);
    let items = page["items"].as_array().unwrap().iter();
    let items: Vec<_> =
        items.map(|item| (item["movie_id"].as_str().unwrap(), item["state"].as_str().unwrap())).collect();
    assert_eq!(items, [("3", "in_progress"), ("-9", "none"), ("2", "completed"), ("3", "in_progress")]);
    let hundred = (0..100).map(|movie| format!("movie_id={movie}")).collect::<Vec<_>>().join("&");
    let page = client.get(&format!("{PROGRESS}?{hundred}"), Some(&token)).json();
    assert_eq!(page["items"].as_array().unwrap().len(), 100);
    for item in page["items"].as_array().unwrap() {
        let movie = item["movie_id"].as_str().unwrap();
        assert_eq!(*item, client.get(&format!("{PROGRESS}/{movie}"), Some(&token)).json());
    }
}

#[test]
fn head_answers_as_get_without_a_body() {
    let (directory, server) = server();
    let (mut client, token) = (server.connect(), token(&directory, 7));
    for path in [PROGRESS.to_owned(), format!("{PROGRESS}/42")] {
        let get = client.get(&path, Some(&token));
        client.send(format!("HEAD {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"));
        let (status, headers) = client.head().unwrap();
        assert_eq!((status, &headers), (get.status, &get.headers), "{path}");
    }
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let (directory, server) = server();
    let (mut client, token) = (server.connect(), token(&directory, 7));
    let beat = |position: u32| {
        let body = format!(r#"{{"movie_id":1,"position_seconds":{position}}}"#);
        format!(
            "POST {PROGRESS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let get = format!("GET {PROGRESS}/1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n");
    client.send(format!("{}{get}{}{get}", beat(1), beat(2)));
    for expected in [1.0, 2.0] {
        assert_eq!(client.answer().status, 204);
        assert_eq!(client.answer().json()["position_seconds"], expected);
    }
}

#[test]
fn the_operators_page_says_ready_counts_and_names_the_version() {
    let (directory, server) = server();
    let mut admin = Client::to(server.admin);
    assert_eq!(admin.get("/livez", None).status, 200);
    assert_eq!(admin.get("/readyz", None).json(), json!({"status": "ready", "reasons": []}));
    assert_eq!(admin.get("/version", None).json()["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(admin.get("/nope", None).slug(), "not-found");
    let (mut client, token) = (server.connect(), token(&directory, 987_654_321));
    for _ in 0..3 {
        assert_eq!(client.beat(&token, r#"{"movie_id":123456789,"position_seconds":1}"#).status, 204);
    }
    assert_eq!(client.beat("x", "").status, 401);
    assert_eq!(server.metric(r#"playhead_http_requests_total{route="heartbeat",status="204"}"#), 3);
    assert_eq!(server.metric(r#"playhead_http_requests_total{route="heartbeat",status="401"}"#), 1);
    assert_eq!(server.metric(r#"playhead_http_request_duration_seconds_count{route="heartbeat"}"#), 4);
    assert_eq!(server.metric("playhead_token_cache_hits_total"), 2);
    assert_eq!(server.metric("playhead_connections"), 1);
    let page = admin.get("/metrics", None).body;
    assert!(page.ends_with("# EOF\n") && page.contains("playhead_build_info{version="), "{page}");
    assert!(!page.contains("987654321") && !page.contains("123456789"), "a user or a title in the metrics");
    drop(client);
    eventually("the closed connection is no longer counted", || server.metric("playhead_connections") == 0);
}

#[test]
fn connections_go_to_the_worker_with_the_fewest() {
    let directory = TempDir::new().unwrap();
    let server = Server::in_memory(&directory, &["--workers", "3", "--max-connections", "4"]);
    let token = token(&directory, 1);
    let mut clients: Vec<_> = (0..4).map(|_| server.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.get(PROGRESS, Some(&token)).status, 200);
    }
    // Each worker verifies a token for itself, and all three have.
    for client in &mut clients {
        assert_eq!(client.beat(&token, r#"{"movie_id":1,"position_seconds":1}"#).status, 204);
    }
    assert_eq!(server.metric("playhead_token_cache_misses_total"), 3);
    // At the cap a fifth is closed, and there is room again once one has left.
    assert!(server.connect().is_closed());
    assert_eq!(server.metric("playhead_connections_refused_total"), 1);
    clients.pop();
    eventually("there is room again", || {
        let mut client = server.connect();
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        client.try_answer().is_some()
    });
}

#[test]
fn closing_down_is_not_ready_then_answers_with_close_and_ends() {
    let directory = TempDir::new().unwrap();
    let mut server = Server::in_memory(&directory, &["--shutdown-delay", "2s"]);
    let token = token(&directory, 1);
    let (mut client, mut idle) = (server.connect(), server.connect());
    assert_eq!(client.get(PROGRESS, Some(&token)).status, 200);
    assert_eq!(idle.get(PROGRESS, Some(&token)).status, 200);
    server.signal(Signal::TERM);
    server.wait_for_log("told to stop");
    eventually("no longer ready", || Client::to(server.admin).get("/readyz", None).status == 503);
    assert_eq!(Client::to(server.admin).get("/readyz", None).json()["status"], "closing down");
    // It serves on for the delay, then idle connections are closed and the process ends well.
    assert_eq!(client.beat(&token, r#"{"movie_id":1,"position_seconds":1}"#).status, 204);
    assert!(idle.is_closed());
    assert_eq!(server.wait(PATIENCE).status.code(), Some(0));
}
