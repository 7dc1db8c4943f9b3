//! The page of `serve --dev`: its files, ranges and tokens; and that it is there with `--dev` only.

use crate::client::{Answer, Client, PROGRESS};
use crate::process::{Launch, Server};
use std::fs;
use tempfile::TempDir;

const VIEWER: &str = "-9000000000000000001";

fn get(client: &mut Client, path: &str, headers: &[(&str, &str)]) -> Answer {
    client.request("GET", path, headers, None)
}

#[test]
fn each_file_comes_with_its_type_and_a_policy() {
    let directory = TempDir::new().unwrap();
    let server = Server::in_memory(&directory, &[]);
    let mut client = server.connect();
    for (path, kind) in [
        ("/demo/", "text/html"),
        ("/demo/index.html", "text/html"),
        ("/demo/device.html", "text/html"),
        ("/demo/page.css", "text/css"),
        ("/demo/built/page.js", "text/javascript"),
        ("/demo/posters/tideline.svg", "image/svg+xml"),
        ("/demo/media/tideline.m3u8", "mpegurl"),
        ("/demo/examples/video.html", "text/html"),
    ] {
        let answer = get(&mut client, path, &[]);
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.header("content-type").unwrap().contains(kind), "{path}: {:?}", answer.headers);
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    }
    assert_eq!(get(&mut client, "/demo", &[]).header("location"), Some("/demo/"));
    for path in ["/demo/nothing", "/demo/../Cargo.toml", "/demo/%2e%2e/index.html", "/demo/media/"] {
        assert_eq!(get(&mut client, path, &[]).status, 404, "{path}");
    }
    for method in ["POST", "DELETE", "PUT"] {
        assert_eq!(client.request(method, "/demo/", &[], None).status, 405, "{method}");
    }
}

#[test]
fn parts_of_a_file_are_served() {
    let directory = TempDir::new().unwrap();
    let server = Server::in_memory(&directory, &[]);
    let mut client = server.connect();
    let whole = get(&mut client, "/demo/icon.svg", &[]);
    let length = whole.body.len();
    let tag = whole.header("etag").unwrap().to_owned();
    assert_eq!(whole.header("accept-ranges"), Some("bytes"));
    for (range, part, content_range) in [
        ("bytes=0-3", &whole.body[..4], format!("bytes 0-3/{length}")),
        ("bytes=5-", &whole.body[5..], format!("bytes 5-{}/{length}", length - 1)),
        ("bytes=-6", &whole.body[length - 6..], format!("bytes {}-{}/{length}", length - 6, length - 1)),
        ("bytes=1-999999", &whole.body[1..], format!("bytes 1-{}/{length}", length - 1)),
    ] {
        let answer = get(&mut client, "/demo/icon.svg", &[("Range", range)]);
        assert_eq!((answer.status, answer.body.as_str()), (206, part), "{range}");
        assert_eq!(answer.header("content-range"), Some(content_range.as_str()));
        assert_eq!(answer.header("content-type"), Some("image/svg+xml"));
    }
    let beyond = get(&mut client, "/demo/icon.svg", &[("Range", "bytes=999999-")]);
    assert_eq!((beyond.status, beyond.header("content-range")), (416, Some(format!("bytes */{length}").as_str())));
    let same = get(&mut client, "/demo/icon.svg", &[("Range", "bytes=0-3"), ("If-Range", &tag)]);
    let changed = get(&mut client, "/demo/icon.svg", &[("Range", "bytes=0-3"), ("If-Range", "\"other\"")]);
    assert_eq!((same.status, changed.status), (206, 200));
    client.send(format!("GET /demo/icon.svg HTTP/1.1\r\nHost: x\r\nIf-None-Match: {tag}\r\n\r\n"));
    assert_eq!(client.head().unwrap().0, 304);
    client.send("HEAD /demo/icon.svg HTTP/1.1\r\nHost: x\r\n\r\n");
    let (status, headers) = client.head().unwrap();
    let announced = headers.iter().find(|(name, _)| name == "content-length").map(|(_, value)| value.as_str());
    assert_eq!((status, announced), (200, Some(length.to_string().as_str())));
}

#[test]
fn its_viewers_get_tokens_and_nobody_else() {
    let directory = TempDir::new().unwrap();
    let server = Server::in_memory(&directory, &["--jwt-issuer", "i", "--cors-origin", "*"]);
    let mut client = server.connect();
    let mut token = |viewer: &str, headers: &[(&str, &str)]| {
        client.request("POST", &format!("/demo/token/{viewer}"), headers, None)
    };
    let own = format!("http://{}", server.address);
    let given = token(VIEWER, &[("Origin", &own), ("Sec-Fetch-Site", "same-origin")]);
    assert_eq!((given.status, given.header("cache-control")), (200, Some("no-store")));
    for viewer in ["42", "-1", "-9000000000000000009", "nobody", "-9000000000000000001%20"] {
        assert_eq!(token(viewer, &[("Origin", &own)]).status, 404, "{viewer}");
    }
    for headers in [
        &[("Origin", "https://evil.example")][..],
        &[("Origin", "null")],
        &[("Sec-Fetch-Site", "cross-site")],
        &[("Origin", &own), ("Sec-Fetch-Site", "same-site")],
    ] {
        let refused = token(VIEWER, headers);
        assert_eq!(refused.status, 403, "{headers:?}");
        assert!(!refused.body.contains("ey"), "{refused:?}");
    }
    let mut client = server.connect();
    assert_eq!(client.get("/demo/token/-9000000000000000001", None).status, 405);
    assert_eq!(client.beat(&given.body, r#"{"movie_id": 101, "position_seconds": 5}"#).status, 204);
    assert_eq!(client.get(PROGRESS, Some(&given.body)).json()["items"][0]["movie_id"], "101");
}

#[test]
fn it_is_not_there_without_dev() {
    let directory = TempDir::new().unwrap();
    let secret = directory.path().join("secret");
    fs::write(&secret, "x".repeat(32)).unwrap();
    let server = Launch::new(&directory.path().join("data"), &["--jwt-secret-file", secret.to_str().unwrap()]).start();
    let mut client = server.connect();
    for path in ["/demo", "/demo/", "/demo/index.html"] {
        assert_eq!(get(&mut client, path, &[]).slug(), "not-found", "{path}");
    }
    let token = client.request("POST", &format!("/demo/token/{VIEWER}"), &[], None);
    assert_eq!(token.slug(), "not-found");
}
