//! Clients that are slow or silent.

use super::GOOD;
use crate::client::{PROGRESS, token};
use crate::process::Server;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Sends a piece again and again, a few times a second, until the server answers or closes; gives what it sent, and
/// when it was closed.
fn trickle(address: SocketAddr, start: &str, piece: &str) -> (String, Duration) {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    std::io::Write::write_all(&mut socket, start.as_bytes()).unwrap();
    let begun = Instant::now();
    let mut received = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        assert!(begun.elapsed() < Duration::from_secs(12), "never closed after {start:?}");
        match socket.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => received.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(_) => {}
        }
        if std::io::Write::write_all(&mut socket, piece.as_bytes()).is_err() {
            break;
        }
    }
    (String::from_utf8(received).unwrap(), begun.elapsed())
}

#[test]
fn a_slow_client_is_closed_in_time_however_it_trickles() {
    let directory = TempDir::new().unwrap();
    let server = Server::in_memory(&directory, &["--request-deadline", "1s", "--idle-timeout", "60s"]);
    let token = token(&directory, 7);
    let headers = format!("Host: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n");
    let head = format!("POST {PROGRESS} HTTP/1.1\r\n{headers}Content-Length: 4000\r\n\r\n");
    let chunked = format!("POST {PROGRESS} HTTP/1.1\r\n{headers}Transfer-Encoding: chunked\r\n\r\n");
    let complete = format!("GET {PROGRESS} HTTP/1.1\r\n{headers}\r\n");
    // What is sent, then what again and again, and how the answer begins.
    let cases = [
        ("", "", ""),
        ("P", "", ""),
        ("PRI * HTTP/2.0\r\n\r\n", "", ""),
        ("GET / HTTP/1.1\r\n", "X-Slow: 1\r\n", ""),
        (head.as_str(), "", "HTTP/1.1 408 "),
        (head.as_str(), " ", "HTTP/1.1 408 "),
        (chunked.as_str(), "1\r\n \r\n", "HTTP/1.1 408 "),
    ];
    std::thread::scope(|scope| {
        for (start, piece, answer) in cases {
            let address = server.address;
            scope.spawn(move || {
                let (received, time) = trickle(address, start, piece);
                let is_as_said = received.starts_with(answer) && received.is_empty() == answer.is_empty();
                assert!(is_as_said, "{start:?}: {received:?}");
                assert!(time >= Duration::from_millis(900) && time < Duration::from_secs(5), "{start:?}: {time:?}");
                assert!(answer.is_empty() || received.contains("connection: close"), "{received:?}");
            });
        }
    });
    // After a complete request, the next one's head has the same time.
    let (received, time) = trickle(server.address, &complete, "X");
    assert!(received.starts_with("HTTP/1.1 200 ") && time < Duration::from_secs(6), "{time:?} {received:?}");
    assert!(server.metric("playhead_connections_timed_out_total") >= 4);
    let mut client = server.connect();
    let list = client.get(&format!("{PROGRESS}?state=all"), Some(&token));
    assert!(list.json()["items"].as_array().unwrap().is_empty(), "something was stored: {list:?}");
}

#[test]
fn an_idle_connection_is_kept_for_its_own_time() {
    let directory = TempDir::new().unwrap();
    let server = Server::in_memory(&directory, &["--request-deadline", "1s", "--idle-timeout", "3s"]);
    let token = token(&directory, 7);
    let begun = Instant::now();
    let mut client = server.connect();
    assert_eq!(client.beat(&token, GOOD).status, 204);
    assert!(client.is_closed());
    let time = begun.elapsed();
    assert!(time >= Duration::from_millis(2900) && time < Duration::from_secs(10), "{time:?}");
}
