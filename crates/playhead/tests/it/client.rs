//! The least of an HTTP/1.1 client that a load needs: kept connections, and sending apart from receiving, so that one
//! thread can have a request under way on each of many connections. Unlike the harness's client it takes a connection
//! that ends for what it is in these tests: an answer like any other.

use crate::harness::PROGRESS;
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longer than any deadline of the server.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A token of this user, valid until 2100.
pub(crate) fn token(secret: &[u8], user: i64) -> String {
    let claims = json!({"sub": user.to_string(), "exp": 4_102_444_800_u64});
    jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(secret)).unwrap()
}

/// A connection that is kept.
pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
}

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    pub(crate) fn send_get(&mut self, path: &str, bearer: &str) -> io::Result<()> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {bearer}\r\n\r\n");
        self.stream.get_mut().write_all(request.as_bytes())
    }

    pub(crate) fn send_post(&mut self, path: &str, bearer: &str, body: &str) -> io::Result<()> {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {bearer}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stream.get_mut().write_all(request.as_bytes())
    }

    /// A head that promises a body which never comes.
    pub(crate) fn send_unfinished(&mut self) -> io::Result<()> {
        let head = format!("POST {PROGRESS} HTTP/1.1\r\nHost: test\r\nContent-Length: 40\r\n\r\n{{");
        self.stream.get_mut().write_all(head.as_bytes())
    }

    pub(crate) fn get(&mut self, path: &str, bearer: &str) -> io::Result<Answer> {
        self.send_get(path, bearer)?;
        self.receive()
    }

    pub(crate) fn post(&mut self, path: &str, bearer: &str, body: &str) -> io::Result<Answer> {
        self.send_post(path, bearer, body)?;
        self.receive()
    }

    /// The next answer; an error also if the server has closed.
    pub(crate) fn receive(&mut self) -> io::Result<Answer> {
        let status_line = self.line()?;
        let status = status_line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("not a status line: {status_line:?}")))?;
        let mut length = 0;
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().map_err(io::Error::other)?;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok(Answer { status, body })
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }
}
