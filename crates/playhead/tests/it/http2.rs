//! HTTP/2: a refusal arrives whole though the client has not done sending, heads, bodies and streams are bounded, streams
//! and silent connections have their time, and the end of the server lets what is under way be answered. And at the finest
//! level of logging nothing of a request is logged, in either protocol.

use crate::client::{Client, PATIENCE, PROGRESS, dev_secret, token};
use crate::process::{Launch, Server};
use bytes::Bytes;
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{Request, Response};
use rustix::process::Signal;
use serde_json::Value;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::JoinHandle;

const BEAT: &str = r#"{"movie_id": 42, "position_seconds": 1234.5}"#;

/// Runs a client's side, which must end in time.
fn run(client: impl Future<Output = ()>) {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async { tokio::time::timeout(2 * PATIENCE, client).await }).expect("it takes too long");
}

/// A connection, and how it ends.
async fn connect(address: SocketAddr) -> (SendRequest<Bytes>, JoinHandle<Result<(), h2::Error>>) {
    let socket = TcpStream::connect(address).await.unwrap();
    let (requests, connection) = h2::client::handshake(socket).await.unwrap();
    (requests, tokio::task::spawn_local(connection))
}

fn post(address: SocketAddr, token: &str, media_type: &str) -> Request<()> {
    let request = Request::post(format!("http://{address}{PROGRESS}"));
    request.header("authorization", format!("Bearer {token}")).header("content-type", media_type).body(()).unwrap()
}

async fn begin(
    requests: &mut SendRequest<Bytes>,
    request: Request<()>,
) -> (h2::client::ResponseFuture, SendStream<Bytes>) {
    let mut ready = requests.clone().ready().await.unwrap();
    ready.send_request(request, false).unwrap()
}

/// Sends as much as the other side has room for, again and again; an error if it resets the stream.
async fn send(stream: &mut SendStream<Bytes>, mut bytes: Bytes, is_end: bool) -> Result<(), h2::Error> {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let room = std::future::poll_fn(|context| stream.poll_capacity(context)).await.unwrap_or(Ok(0))?;
        let piece = bytes.split_to(room.min(bytes.len()));
        stream.send_data(piece, is_end && bytes.is_empty())?;
    }
    Ok(())
}

/// The status and the slug of an answer.
async fn answer(response: Response<RecvStream>) -> (u16, String) {
    let status = response.status().as_u16();
    let mut body = response.into_body();
    let mut whole = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece.unwrap();
        body.flow_control().release_capacity(piece.len()).unwrap();
        whole.extend_from_slice(&piece);
    }
    let json: Value = serde_json::from_slice(&whole).unwrap_or(Value::Null);
    (status, json["type"].as_str().unwrap_or_default().rsplit(':').next().unwrap().to_owned())
}

#[test]
fn a_refusal_arrives_whole_and_the_stream_ends_well_though_the_client_goes_on_sending() {
    let directory = TempDir::new().unwrap();
    let server = Server::in_memory(&directory, &[]);
    let (token, address) = (token(&directory, 7), server.address);
    run(async move {
        let (mut requests, _connection) = connect(address).await;
        for (token, media_type, expected) in [
            (token.as_str(), "application/json", (413, "payload-too-large")),
            ("x", "application/json", (401, "unauthorized")),
            (token.as_str(), "text/plain", (415, "unsupported-media-type")),
        ] {
            let (response, mut stream) = begin(&mut requests, post(address, token, media_type)).await;
            send(&mut stream, Bytes::from(vec![b' '; 5_000]), false).await.unwrap();
            let (status, slug) = answer(response.await.unwrap()).await;
            assert_eq!((status, slug.as_str()), expected);
            // What follows the answer is let through, up to a bound.
            for _ in 0..10 {
                send(&mut stream, Bytes::from(vec![b' '; 10_000]), false).await.unwrap();
            }
            send(&mut stream, Bytes::from_static(b" "), true).await.unwrap();
        }
        // The connection goes on.
        let (response, mut stream) = begin(&mut requests, post(address, &token, "application/json")).await;
        send(&mut stream, Bytes::from_static(BEAT.as_bytes()), true).await.unwrap();
        assert_eq!(response.await.unwrap().status(), 204);
    });
}

#[test]
fn who_never_ends_a_refused_body_is_reset() {
    let directory = TempDir::new().unwrap();
    let server = Server::in_memory(&directory, &[]);
    let (token, address) = (token(&directory, 7), server.address);
    run(async move {
        let (mut requests, _connection) = connect(address).await;
        let (response, mut stream) = begin(&mut requests, post(address, &token, "application/json")).await;
        let endless = async {
            while send(&mut stream, Bytes::from(vec![b' '; 10_000]), false).await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        let (response, ()) = tokio::join!(response, endless);
        assert_eq!(answer(response.unwrap()).await, (413, "payload-too-large".to_owned()));
        // So is who falls silent.
        let (response, mut stream) = begin(&mut requests, post(address, "x", "application/json")).await;
        assert_eq!(answer(response.await.unwrap()).await.0, 401);
        let reset = std::future::poll_fn(|context| stream.poll_reset(context)).await.unwrap();
        assert_eq!(reset, h2::Reason::NO_ERROR);
    });
}

#[test]
fn heads_bodies_and_streams_are_bounded_and_the_connection_goes_on() {
    let directory = TempDir::new().unwrap();
    let server = Server::in_memory(&directory, &[]);
    let (token, address) = (token(&directory, 7), server.address);
    run(async {
        let (mut requests, mut connection) =
            h2::client::handshake(TcpStream::connect(address).await.unwrap()).await.unwrap();
        let (response, _unsent) = begin(&mut requests, post(address, "x", "application/json")).await;
        tokio::select! {
            response = response => assert_eq!(response.unwrap().status(), 401),
            ended = &mut connection => panic!("the connection has ended: {ended:?}"),
        }
        assert_eq!(connection.max_concurrent_send_streams(), 128);
        tokio::task::spawn_local(connection);

        let mut long = post(address, &token, "application/json");
        long.headers_mut().insert("x-filler", "a".repeat(16 * 1024).parse().unwrap());
        let (response, _stream) = begin(&mut requests, long).await;
        assert_eq!(response.await.unwrap().status(), 431);
        // A body that is not as long as was said: refused or reset, and not stored.
        for length in [BEAT.len() - 1, BEAT.len() + 1] {
            let mut request = post(address, &token, "application/json");
            request.headers_mut().insert("content-length", length.into());
            let (response, mut stream) = begin(&mut requests, request).await;
            let _ = send(&mut stream, Bytes::from_static(BEAT.as_bytes()), true).await;
            let status = response.await.map(|response| response.status().as_u16());
            assert!(status.as_ref().map_or(true, |status| *status == 400), "{length}: {status:?}");
        }
        let list = server.connect().get(&format!("{PROGRESS}?state=all"), Some(&token)).json();
        assert_eq!(list["items"].as_array().map(Vec::len), Some(0), "{list}");
        let (response, mut stream) = begin(&mut requests, post(address, &token, "application/json")).await;
        send(&mut stream, Bytes::from_static(BEAT.as_bytes()), true).await.unwrap();
        assert_eq!(response.await.unwrap().status(), 204);
    });
}

#[test]
fn at_the_finest_level_nothing_of_a_request_is_logged() {
    const USER: i64 = 271_828_182_845_904;
    const TITLE: &str = "314159265358979";
    const BODY: &str = r#"{"movie_id": 314159265358979, "position_seconds": 1618.0339, "x": "querulous"}"#;
    let directory = TempDir::new().unwrap();
    let server = Launch::embedded(directory.path()).under(&["env", "PLAYHEAD_LOG=trace"]).start();
    let (token, address) = (token(&directory, USER), server.address);
    let signature = token.rsplit('.').next().unwrap().to_owned();
    let bad_body = BODY.replace("1618", "-1618");
    let title = format!("{PROGRESS}/{TITLE}?x=querulous");
    let calls = |client: &mut Client| {
        assert_eq!(client.beat(&token, BODY).status, 204);
        assert_eq!(client.beat(&token, &bad_body).status, 422);
        assert_eq!(client.beat(&token[1..], BODY).status, 401);
        assert_eq!(client.batch(&token, BODY).status, 422);
        assert_eq!(client.get(&title, Some(&token)).status, 200);
        assert_eq!(client.get(&format!("{PROGRESS}?limit=querulous"), Some(&token)).status, 400);
        assert_eq!(client.delete(&title, &token).status, 204);
        client.send(format!("GET {title} HTTP/1.1\r\nHost: x\r\nX-Bad\0: querulous\r\nAuthorization: {token}\r\n\r\n"));
        assert_eq!(client.try_answer().map(|answer| answer.status), Some(400));
    };
    calls(&mut server.connect());
    run(async {
        let (mut requests, _connection) = connect(address).await;
        let (good, bad) = (token.as_str(), bad_body.as_str());
        for (token, body, status) in [(good, BODY, 204), (good, bad, 422), (&good[1..], BODY, 401)] {
            let (response, mut stream) = begin(&mut requests, post(address, token, "application/json")).await;
            send(&mut stream, Bytes::copy_from_slice(body.as_bytes()), true).await.unwrap();
            assert_eq!(response.await.unwrap().status(), status);
        }
    });
    let log = server.talk();
    assert!(log.contains(r#""level":"TRACE""#), "the control: it does log at this level: {log}");
    let (secret, user) = (String::from_utf8(dev_secret(&directory)).unwrap(), USER.to_string());
    for secret in [signature.as_str(), &secret, &user, TITLE, "1618.0339", "querulous", "Bearer"] {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret:?} is logged");
    }
}

#[test]
fn a_stream_whose_body_is_late_is_408_and_others_of_its_connection_go_on() {
    let directory = TempDir::new().unwrap();
    let server = Server::in_memory(&directory, &["--request-deadline", "2s"]);
    let (token, address) = (token(&directory, 7), server.address);
    run(async move {
        let (mut requests, _connection) = connect(address).await;
        for path in [PROGRESS.to_owned(), format!("{PROGRESS}/batch")] {
            let begun = Instant::now();
            let mut request = post(address, &token, "application/json");
            *request.uri_mut() = format!("http://{address}{path}").parse().unwrap();
            let (late, mut stream) = begin(&mut requests, request).await;
            send(&mut stream, Bytes::from_static(b"{"), false).await.unwrap();
            let (other, mut beat) = begin(&mut requests, post(address, &token, "application/json")).await;
            send(&mut beat, Bytes::from_static(BEAT.as_bytes()), true).await.unwrap();
            assert_eq!(other.await.unwrap().status(), 204);
            assert_eq!(answer(late.await.unwrap()).await, (408, "request-timeout".to_owned()), "{path}");
            let time = begun.elapsed();
            assert!(time >= Duration::from_secs(2) && time < Duration::from_secs(12), "{path}: {time:?}");
        }
    });
}

#[test]
fn a_silent_connection_is_closed_in_its_time() {
    let directory = TempDir::new().unwrap();
    let server = Server::in_memory(&directory, &["--request-deadline", "1s", "--idle-timeout", "3s"]);
    let (token, address) = (token(&directory, 7), server.address);
    run(async move {
        let begun = Instant::now();
        let (mut requests, connection) = connect(address).await;
        let (response, mut stream) = begin(&mut requests, post(address, &token, "application/json")).await;
        send(&mut stream, Bytes::from_static(BEAT.as_bytes()), true).await.unwrap();
        assert_eq!(response.await.unwrap().status(), 204);
        // Ended by the server, in whatever words.
        let _ = connection.await.unwrap();
        let time = begun.elapsed();
        assert!(time >= Duration::from_millis(2_900) && time < Duration::from_secs(12), "{time:?}");
        // And one that never makes a request has the time of a request.
        let begun = Instant::now();
        let (_requests, connection) = connect(address).await;
        let _ = connection.await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    });
}

#[test]
fn at_the_end_what_is_under_way_is_answered_and_the_connection_ends_well() {
    let directory = TempDir::new().unwrap();
    let mut server = Server::in_memory(&directory, &[]);
    let (token, address) = (token(&directory, 7), server.address);
    run(async {
        let (mut requests, connection) = connect(address).await;
        let (response, mut stream) = begin(&mut requests, post(address, &token, "application/json")).await;
        let (first, rest) = BEAT.split_at(10);
        send(&mut stream, Bytes::from_static(first.as_bytes()), false).await.unwrap();
        // An answer shows that the stream before it is known there.
        let request = Request::get(format!("http://{address}/openapi.json")).body(()).unwrap();
        let (other, _) = requests.clone().ready().await.unwrap().send_request(request, true).unwrap();
        assert_eq!(answer(other.await.unwrap()).await.0, 200);
        server.signal(Signal::TERM);
        server.wait_for_log("told to stop");
        send(&mut stream, Bytes::from_static(rest.as_bytes()), true).await.unwrap();
        assert_eq!(response.await.unwrap().status(), 204);
        drop(requests);
        // GOAWAY without an error.
        connection.await.unwrap().unwrap();
    });
    assert_eq!(server.wait(PATIENCE).status.code(), Some(0));
}
