//! Methods, paths and queries that there are not.

use super::{GOOD, Scene};
use crate::client::{BATCH, PROGRESS, token};

#[test]
fn unknown_methods_are_405_with_what_is_allowed() {
    let scene = Scene::new();
    for (path, allowed) in [
        (PROGRESS.to_owned(), "GET,HEAD,POST,DELETE"),
        (format!("{PROGRESS}/42"), "GET,HEAD,DELETE"),
        (BATCH.to_owned(), "POST"),
    ] {
        for method in ["PUT", "PATCH", "TRACE", "FOO", "get"] {
            let answer = scene.refuse(method, |client| Some(client.request(method, &path, &[], None))).unwrap();
            assert_eq!((answer.status, answer.slug().as_str()), (405, "method-not-allowed"), "{method} {path}");
            assert_eq!(answer.header("allow"), Some(allowed), "{method} {path}");
        }
    }
    let answer = scene.refuse("POST", |client| Some(client.request("POST", "/api/v1/stream/progress/42", &[], None)));
    assert_eq!(answer.unwrap().slug(), "method-not-allowed");
    scene.end();
}

#[test]
fn other_paths_are_404_and_nothing_is_normalised() {
    let scene = Scene::new();
    let beyond =
        ["abc", "042", "+42", "-0", "9223372036854775808", "42.0", "%34%32", "42%00", "%00", "%2e%2e", "4%2f2", "%zz"];
    let ids = beyond.map(|id| format!("{PROGRESS}/{id}"));
    let others = [
        "/",
        "/api/v1/stream/progress/",
        "/api/v1/stream/progress/42/",
        "/api/v1//stream/progress",
        "//api/v1/stream/progress",
        "/api/v1/stream/../stream/progress",
        "/API/v1/stream/progress",
        "/api/v1/stream/PROGRESS",
        "/api/v1/stream/progress%2f42",
        "/api/v1/stream/%70rogress",
        "/api/v1/stream/progress;x",
        "/api/v1/stream/progress\\42",
        "/openapi.json/",
        "/Openapi.json",
        "/metrics",
        "/readyz",
    ];
    for path in ids.iter().map(String::as_str).chain(others) {
        scene.check_get(path, (404, "not-found"));
    }
    for path in others {
        let answer = scene.refuse(path, |client| Some(client.request("POST", path, &[], Some(GOOD.as_bytes()))));
        assert_eq!(answer.unwrap().status, 404, "{path}");
    }
    scene.end();
}

#[test]
fn bad_queries_are_400() {
    let scene = Scene::new();
    for movie in 1..=3 {
        let body = format!(r#"{{"movie_id":{movie},"position_seconds":5}}"#);
        assert_eq!(scene.server.connect().beat(&token(&scene.directory, 8), body).status, 204);
    }
    let theirs = scene.server.connect().get(&format!("{PROGRESS}?limit=1"), Some(&token(&scene.directory, 8)));
    let theirs = theirs.json()["next_cursor"].as_str().unwrap().to_owned();
    let cut = &theirs[..theirs.len() - 1];
    for query in [
        "limit=-1",
        "limit=0",
        "limit=abc",
        "limit=1e9",
        "limit=18446744073709551616",
        "limit=101",
        "limit=",
        "limit=5&limit=5",
        "state=none",
        "state=",
        "state=all&state=all",
        "cursor=",
        "cursor=!",
        "cursor=AAAA",
        "limit=%zz%ff",
        &format!("cursor={theirs}"),
        &format!("cursor={cut}"),
        "cursor=a&cursor=a",
        &["movie_id=1"; 101].join("&"),
        "movie_id=1&limit=5",
        "movie_id=1&state=all",
        &format!("movie_id=1&cursor={theirs}"),
        "movie_id=",
        "movie_id=042",
        "movie_id=1&movie_id=9223372036854775808",
    ] {
        scene.check_get(&format!("{PROGRESS}?{query}"), (400, "invalid-query"));
    }
    scene.end();
}

#[test]
fn forms_of_targets_that_are_meant_for_proxies_reach_nothing_new() {
    let scene = Scene::new();
    let token = &scene.token;
    for (line, status) in [
        ("OPTIONS * HTTP/1.1", Some(404)),
        ("CONNECT x:443 HTTP/1.1", None),
        ("GET http://other.example/nowhere HTTP/1.1", Some(404)),
        ("GET nowhere HTTP/1.1", None),
    ] {
        let answer = scene.refuse(line, |client| {
            client.send(format!("{line}\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"));
            client.try_answer()
        });
        let answered = answer.map(|answer| answer.status);
        assert!(status.is_none() || answered == status, "{line}: {answered:?}");
    }
    // An absolute target names a path like any other; whose rows these are the token says.
    let mut client = scene.server.connect();
    client.send(format!(
        "GET http://other.example{PROGRESS}/42 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
    ));
    assert_eq!(client.answer().json()["position_seconds"], 1234.5);
    scene.end();
}
