//! Heartbeats whose bodies are of another type, no JSON, or JSON that says something else. Batches have tests of their own.

use super::{GOOD, Scene};
use crate::client::PROGRESS;

#[test]
fn only_plain_json_is_taken() {
    let scene = Scene::new();
    let body = GOOD.replace("42", "43");
    for media_type in ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16", ""] {
        scene.check_beat(&[("Content-Type", media_type)], body.as_bytes(), (415, "unsupported-media-type"));
    }
    let twice = [("Content-Type", "application/json"), ("Content-Type", "text/plain")];
    scene.check_beat(&twice, body.as_bytes(), (415, "unsupported-media-type"));
    for encoding in ["gzip", "identity", "br"] {
        scene.check_beat(&[("Content-Encoding", encoding)], body.as_bytes(), (415, "unsupported-media-type"));
    }
    let bearer = format!("Bearer {}", scene.token);
    let answer = scene.refuse("no type", |client| {
        Some(client.request("POST", PROGRESS, &[("Authorization", &bearer)], Some(body.as_bytes())))
    });
    assert_eq!(answer.unwrap().slug(), "unsupported-media-type");
    scene.end();
}

#[test]
fn what_is_no_json_is_400() {
    let scene = Scene::new();
    for end in 0..GOOD.len() {
        scene.check_beat(&[], &GOOD.as_bytes()[..end], (400, "malformed-json"));
    }
    let deep = format!(r#"{{"movie_id":{}"#, "[".repeat(4000));
    let digits = format!(r#"{{"movie_id":1,"position_seconds":1e{}}}"#, "9".repeat(4000));
    let bad_utf8 = |at: usize| [&GOOD.as_bytes()[..at], b"\xC3", &GOOD.as_bytes()[at..]].concat();
    for at in 0..GOOD.len() {
        scene.check_beat(&[], &bad_utf8(at), (400, "malformed-json"));
    }
    let cases: [&[u8]; 21] = [
        b"   ",
        b"[1,",
        b"\0",
        b"{}{}",
        br#"{"movie_id":43,"position_seconds":2,}"#,
        br#"{"movie_id":43,"position_seconds":2} // so"#,
        b"\xEF\xBB\xBF{\"movie_id\":43,\"position_seconds\":2}",
        b"{\"movie_id\":43,\"position_seconds\":2,\"x\":\"\xFF\"}",
        b"{\"movie_id\":43,\"position_seconds\":2,\"\xC0\xAF\":1}",
        br#"{"movie_id":"\ud800","position_seconds":2}"#,
        br#"{"movie_id":"\udc00\ud800","position_seconds":2}"#,
        b"{\"movie_id\":\"43\n\",\"position_seconds\":2}",
        b"{\"movie_id\":43,\"position\x01_seconds\":2}",
        br#"{"movie_id":43,"position_seconds":NaN}"#,
        br#"{"movie_id":01,"position_seconds":2}"#,
        br#"{"movie_id":43,"position_seconds":.5}"#,
        br#"{"movie_id":43,"position_seconds":+1}"#,
        br#"{"movie_id":43,"position_seconds":-Infinity}"#,
        br#"{"movie_id":43,"position_seconds":1e99999}"#,
        deep.as_bytes(),
        digits.as_bytes(),
    ];
    for body in cases {
        scene.check_beat(&[], body, (400, "malformed-json"));
    }
    for long in ["1".repeat(10_000), "[".repeat(10_000)] {
        scene.check_beat(&[], format!(r#"{{"movie_id":{long}}}"#).as_bytes(), (413, "payload-too-large"));
    }
    scene.end();
}

#[test]
fn what_is_no_heartbeat_is_422_with_a_pointer_for_each_fault() {
    let scene = Scene::new();
    let (id, position, duration) = ("/movie_id", "/position_seconds", "/duration_seconds");
    let cases: [(&str, &[&str]); 33] = [
        ("[]", &[""]),
        ("[7, 5.0]", &[""]),
        ("[7, 5.0, null]", &[""]),
        ("\"text\"", &[""]),
        ("7", &[""]),
        ("null", &[""]),
        ("true", &[""]),
        ("{}", &[id, position]),
        (r#"{"movie_id":43}"#, &[position]),
        (r#"{"movie_id":null,"position_seconds":{},"duration_seconds":[]}"#, &[id, position, duration]),
        (r#"{"movie_id":43,"movie_id":43,"position_seconds":1}"#, &[id]),
        (r#"{"movie_id":43,"position_seconds":1,"position_seconds":1}"#, &[position]),
        (r#"{"movie_id":9223372036854775808,"position_seconds":1}"#, &[id]),
        (r#"{"movie_id":-9223372036854775809,"position_seconds":1}"#, &[id]),
        (r#"{"movie_id":1.5,"position_seconds":1}"#, &[id]),
        (r#"{"movie_id":1e3,"position_seconds":1}"#, &[id]),
        (r#"{"movie_id":-0,"position_seconds":1}"#, &[id]),
        (r#"{"movie_id":"","position_seconds":1}"#, &[id]),
        (r#"{"movie_id":" 42","position_seconds":1}"#, &[id]),
        (r#"{"movie_id":"+42","position_seconds":1}"#, &[id]),
        (r#"{"movie_id":"042","position_seconds":1}"#, &[id]),
        (r#"{"movie_id":"-0","position_seconds":1}"#, &[id]),
        (r#"{"movie_id":"४२","position_seconds":1}"#, &[id]),
        (r#"{"movie_id":43,"position_seconds":-1}"#, &[position]),
        (r#"{"movie_id":43,"position_seconds":-0.001}"#, &[position]),
        (r#"{"movie_id":43,"position_seconds":1000000.001}"#, &[position]),
        (r#"{"movie_id":43,"position_seconds":1e308}"#, &[position]),
        (r#"{"movie_id":43,"position_seconds":"12"}"#, &[position]),
        (r#"{"movie_id":43,"position_seconds":"NaN"}"#, &[position]),
        (r#"{"movie_id":43,"position_seconds":1,"duration_seconds":0}"#, &[duration]),
        (r#"{"movie_id":43,"position_seconds":1,"duration_seconds":-1}"#, &[duration]),
        (r#"{"movie_id":43,"position_seconds":1,"duration_seconds":null,"duration_seconds":2}"#, &[duration]),
        (r#"{"movie_id":43,"position_seconds":1,"duration_seconds":1e308}"#, &[duration]),
    ];
    let in_a_field = ["null", "true", "[]", "{}", "[42]"].iter().flat_map(|value| {
        [
            (format!(r#"{{"movie_id":{value},"position_seconds":1}}"#), id),
            (format!(r#"{{"movie_id":43,"position_seconds":{value}}}"#), position),
            (format!(r#"{{"movie_id":43,"position_seconds":1,"duration_seconds":{value}}}"#), duration),
        ]
    });
    let in_a_field: Vec<_> = in_a_field.filter(|(body, _)| !body.contains(r#""duration_seconds":null"#)).collect();
    let in_a_field = in_a_field.iter().map(|(body, pointer)| (body.as_str(), std::slice::from_ref(pointer)));
    for (body, pointers) in cases.into_iter().chain(in_a_field) {
        scene.check_beat(&[], body.as_bytes(), (422, "invalid-request"));
        let answer = scene.server.connect().beat(&scene.token, body).json();
        let faults = answer["errors"].as_array().unwrap();
        let found: Vec<_> = faults.iter().map(|fault| fault["pointer"].as_str().unwrap()).collect();
        assert_eq!(found, pointers, "{body}");
        assert!(faults.iter().all(|fault| fault["code"].is_string() && fault["detail"].is_string()), "{answer}");
    }
    let answer = scene.server.connect().beat(&scene.token, r#"{"movie_id":"SECRET","position_seconds":1}"#);
    assert!(!answer.body.contains("SECRET"), "the answer repeats what was sent: {answer:?}");
    scene.end();
}

#[test]
fn what_is_odd_but_good_is_stored_as_what_it_means() {
    let scene = Scene::new();
    let mut client = scene.server.connect();
    let deep = "[".repeat(1_900) + &"]".repeat(1_900);
    for (fields, position, duration) in [
        (r#""position_seconds":-0.0"#, "0.0", "null"),
        (r#""position_seconds":1e-320"#, "0.0", "null"),
        (r#""position_seconds":1e6,"duration_seconds":1e6"#, "1000000.0", "1000000.0"),
        (r#""position_seconds":7,"duration_seconds":null"#, "7.0", "null"),
        (r#""position_seconds":8.25,"duration_seconds":3"#, "8.25", "3.0"),
        (&format!(r#""position_seconds":9,"x":{deep}"#), "9.0", "null"),
        (r#""x":{"movie_id":[]},"position_seconds":10,"user_id":"x""#, "10.0", "null"),
        (r#""position\u005fseconds":11"#, "11.0", "null"),
    ] {
        let answer = client.beat(&scene.token, format!(r#"{{"movie_id":"-9223372036854775808",{fields}}}"#));
        assert_eq!(answer.status, 204, "{fields}: {answer:?}");
        let stored = client.get(&format!("{PROGRESS}/-9223372036854775808"), Some(&scene.token)).json();
        let found = (stored["position_seconds"].to_string(), stored["duration_seconds"].to_string());
        assert_eq!(found, (position.to_owned(), duration.to_owned()), "{fields}");
    }
    scene.end();
}
