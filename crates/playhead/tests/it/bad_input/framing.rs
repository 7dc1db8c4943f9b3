//! Requests that are no HTTP as it should be, that hide another, that are too long or break off.

use super::{GOOD, Scene};
use crate::client::PROGRESS;

#[test]
fn framing_that_is_not_http_is_refused_and_closed() {
    let scene = Scene::new();
    let token = &scene.token;
    let post = |headers: &str, body: &str| {
        let auth = format!("Authorization: Bearer {token}\r\nContent-Type: application/json\r\n");
        format!("POST {PROGRESS} HTTP/1.1\r\n{auth}{headers}\r\n{body}")
    };
    let sized = format!("Content-Length: {}\r\n", GOOD.len());
    let other = GOOD.replace("42", "43");
    let cases = [
        post("Host: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n", &other),
        post("Host: x\r\nContent-Length: +70\r\n", &other),
        post("Host: x\r\nContent-Length: 0x46\r\n", &other),
        post("Host: x\r\nContent-Length: -1\r\n", &other),
        post("Host: x\r\nContent-Length: 70, 70\r\n", &other),
        post("Host: x\r\nContent-Length: 7 0\r\n", &other),
        post("Host: x\r\nContent-Length:\r\n", &other),
        post("Host: x\r\nContent-Length: 99999999999999999999999\r\n", &other),
        post("Host: x\r\nTransfer-Encoding: chunked, identity\r\n", &format!("46\r\n{other}\r\n0\r\n\r\n")),
        post("Host: x\r\nTransfer-Encoding: gzip\r\n", &other),
        post("Host: x\r\nTransfer-Encoding: xchunked\r\n", &format!("46\r\n{other}\r\n0\r\n\r\n")),
        post(
            "Host: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
            &format!("46\r\n{other}\r\n0\r\n\r\n"),
        ),
        post("Host: x\r\nTransfer-Encoding: chunked\r\n", &format!("fffffffffffffffff\r\n{other}\r\n0\r\n\r\n")),
        post("Host: x\r\nTransfer-Encoding: chunked\r\n", &format!("zz\r\n{other}\r\n0\r\n\r\n")),
        post(&format!("Host: x\r\nX-Nul: a\0b\r\n{sized}"), &other),
        post(&format!("Host: x\r\nX-Bare: a\rb\r\n{sized}"), &other),
        post(&format!("Host: x\r\nX-Folded: a\r\n b\r\n{sized}"), &other),
        post(&format!("Host: x\r\nX Space: a\r\n{sized}"), &other),
        post(&format!("Host: x\r\nX-Space : a\r\n{sized}"), &other),
        format!("POST {PROGRESS}\r\n\r\n"),
        format!("POST {PROGRESS} HTTP/3.0\r\nHost: x\r\n\r\n"),
        "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\u{1}\u{fc}\u{3}\u{3}hello over TLS\r\n\r\n".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".to_owned(),
    ];
    for request in cases {
        let answer = scene.refuse(&request, |client| {
            client.send(&request);
            let answer = client.try_answer();
            assert!(client.is_closed(), "left open after {request:?}");
            answer
        });
        if let Some(answer) = answer {
            assert_eq!(answer.status, 400, "{request:?}");
        }
    }
    for hosts in ["", "Host: a\r\nHost: b\r\n", "Host: a\r\nHost: a\r\n"] {
        let request = post(&format!("{hosts}{sized}"), &other);
        let answer = scene.refuse(&request, |client| {
            client.send(&request);
            client.try_answer()
        });
        let answer = answer.unwrap();
        assert_eq!((answer.status, answer.slug().as_str()), (400, "malformed-request"), "{hosts:?}");
    }
    scene.end();
}

#[test]
fn a_request_hidden_behind_another_is_never_carried_out() {
    let scene = Scene::new();
    let token = &scene.token;
    let hidden_body = r#"{"movie_id": 666, "position_seconds": 1}"#;
    let hidden = format!(
        "POST {PROGRESS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{hidden_body}",
        hidden_body.len()
    );
    let behind = format!("0\r\n\r\n{hidden}");
    let length = format!("Content-Length: {}\r\n", behind.len());
    let chunked = "Transfer-Encoding: chunked\r\n";
    for both in [format!("{length}{chunked}"), format!("{chunked}{length}")] {
        let mut client = scene.server.connect();
        client.send(format!(
            "POST {PROGRESS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
             {both}\r\n{behind}"
        ));
        // The chunks are empty, so there is no JSON.
        assert_eq!(client.answer().status, 400, "{both:?}");
        assert!(client.is_closed(), "the leftovers were read: {both:?}");
        let title = scene.server.connect().get(&format!("{PROGRESS}/666"), Some(token));
        assert_eq!(title.json()["state"], "none", "{both:?}");
    }
    scene.end();
}

#[test]
fn sizes_are_bounded() {
    let scene = Scene::new();
    let filler = |bytes: usize| format!("X-Filler: {}\r\n", "a".repeat(bytes));
    let heads = [
        (format!("GET {PROGRESS} HTTP/1.1\r\nHost: x\r\n{}\r\n", filler(16 * 1024)), 431),
        (format!("GET {PROGRESS}?x={} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(16 * 1024)), 431),
        (format!("GET {PROGRESS} HTTP/1.1\r\nHost: x\r\n{}\r\n", filler(1).repeat(100)), 431),
        // Just within: refused for want of a token only.
        (format!("GET {PROGRESS} HTTP/1.1\r\nHost: x\r\n{}\r\n", filler(1).repeat(99)), 401),
        (format!("GET {PROGRESS} HTTP/1.1\r\nHost: x\r\n{}\r\n", filler(15 * 1024)), 401),
    ];
    for (head, status) in heads {
        let answer = scene.refuse(&head, |client| {
            client.send(&head);
            client.try_answer()
        });
        assert_eq!(answer.map(|answer| answer.status), Some(status), "{} bytes", head.len());
    }

    let body = |bytes: usize| format!(r#"{{"movie_id":43,"position_seconds":1,"x":"{}"}}"#, "a".repeat(bytes - 43));
    assert_eq!(body(4096).len(), 4096);
    let headers = format!("Host: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n", scene.token);
    let with_length =
        |bytes: usize| format!("POST {PROGRESS} HTTP/1.1\r\n{headers}Content-Length: {bytes}\r\n\r\n{}", body(bytes));
    let chunked = |bytes: usize| {
        let body = body(bytes);
        let (first, second) = body.split_at(1000);
        format!(
            "POST {PROGRESS} HTTP/1.1\r\n{headers}Transfer-Encoding: chunked\r\n\r\n3e8\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n",
            second.len()
        )
    };
    for request in [with_length(4097), chunked(4097), with_length(200_000), chunked(200_000)] {
        let answer = scene.refuse(&request[..80], |client| {
            client.send(&request);
            client.try_answer()
        });
        let answer = answer.unwrap();
        assert_eq!((answer.status, answer.slug().as_str()), (413, "payload-too-large"));
    }
    // Announced only: refused without waiting for it.
    let announced =
        format!("POST {PROGRESS} HTTP/1.1\r\n{headers}Content-Length: 4097\r\nExpect: 100-continue\r\n\r\n");
    let answer = scene.refuse("announced", |client| {
        client.send(&announced);
        client.try_answer()
    });
    assert_eq!(answer.unwrap().slug(), "payload-too-large");
    for request in [with_length(4096), chunked(4096)] {
        let mut client = scene.server.connect();
        client.send(request);
        assert_eq!(client.answer().status, 204);
    }
    scene.end();
}

#[test]
fn a_body_that_breaks_off_is_not_stored() {
    let scene = Scene::new();
    let headers = format!("Host: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n", scene.token);
    let body = GOOD.replace("42", "43");
    for framing in [format!("Content-Length: {}\r\n\r\n{body}", body.len() + 1), {
        format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n", body.len())
    }] {
        let answer = scene.refuse(&framing, |client| {
            client.send(format!("POST {PROGRESS} HTTP/1.1\r\n{headers}{framing}"));
            client.half_close();
            let answer = client.try_answer();
            assert!(client.is_closed());
            answer
        });
        if let Some(answer) = answer {
            assert_eq!(answer.slug(), "malformed-request", "{framing:?}");
        }
    }
    scene.end();
}
