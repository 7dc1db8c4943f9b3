//! The least of an HTTP/1.1 client that the tests need.
//!
//! A [`Client`] is one connection, kept open over requests. Each step has two forms: one that fails the test, and one
//! that gives back the error, for tests in which a server ends under its clients. Sending and receiving are apart, so
//! that one thread can have a request under way on each of many connections; [`Client::send`] writes any bytes, so that
//! tests can be as rude as they like.

use jsonwebtoken::{EncodingKey, Header};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

/// Longer than any deadline of the server, and than anything here takes on a busy machine: only a failing test waits
/// for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The path of heartbeats and of the list.
pub(crate) const PROGRESS: &str = "/api/v1/stream/progress";

/// The path of batches.
pub(crate) const BATCH: &str = "/api/v1/stream/progress/batch";

/// The secret that `--dev` has made in this data directory.
pub(crate) fn dev_secret(directory: impl AsRef<Path>) -> Vec<u8> {
    let text = std::fs::read_to_string(directory.as_ref().join("dev-secret")).unwrap();
    text.trim_end().as_bytes().to_vec()
}

/// A token of this user, signed with this secret, valid until 2100.
pub(crate) fn mint(secret: &[u8], user: i64) -> String {
    let claims = serde_json::json!({"sub": user.to_string(), "exp": 4_102_444_800_u64});
    jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(secret)).unwrap()
}

/// A token for a user of the dev server over this directory.
pub(crate) fn token(directory: impl AsRef<Path>, user: i64) -> String {
    mint(&dev_secret(directory), user)
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names in lower case, in the order they came.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The slug at the end of a problem's type, after a check that this is a whole problem.
    pub(crate) fn slug(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let json = self.json();
        assert_eq!(json["status"], self.status, "{self:?}");
        assert!(json["title"].is_string() && json["detail"].is_string(), "{self:?}");
        json["type"].as_str().unwrap().rsplit(':').next().unwrap().to_owned()
    }
}

/// One connection to a server.
pub(crate) struct Client {
    socket: BufReader<TcpStream>,
    address: SocketAddr,
}

impl Client {
    /// Connects.
    pub(crate) fn to(address: SocketAddr) -> Self {
        Self::try_to(address).unwrap_or_else(|error| panic!("can't connect to {address}: {error}"))
    }

    /// Connects, if it can.
    pub(crate) fn try_to(address: SocketAddr) -> io::Result<Self> {
        let socket = TcpStream::connect_timeout(&address, PATIENCE)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { socket: BufReader::new(socket), address })
    }

    /// Writes bytes as they are. That the other side has closed already is not an error: it shows in the answer.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.socket.get_mut().write_all(bytes.as_ref());
    }

    /// Ends the sending side.
    pub(crate) fn half_close(&mut self) {
        let _ = self.socket.get_mut().shutdown(Shutdown::Write);
    }

    /// Begins a GET.
    pub(crate) fn send_get(&mut self, path: &str, token: &str) -> io::Result<()> {
        let bytes = self.request_bytes("GET", path, &[("Authorization", &format!("Bearer {token}"))], None);
        self.socket.get_mut().write_all(&bytes)
    }

    /// Begins a heartbeat.
    pub(crate) fn send_beat(&mut self, token: &str, body: impl AsRef<[u8]>) -> io::Result<()> {
        let bearer = format!("Bearer {token}");
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
        let bytes = self.request_bytes("POST", PROGRESS, &headers, Some(body.as_ref()));
        self.socket.get_mut().write_all(&bytes)
    }

    /// The next answer; an error also if the connection was closed instead: [`ErrorKind::UnexpectedEof`] or
    /// [`ErrorKind::ConnectionReset`] before its first byte.
    pub(crate) fn receive(&mut self) -> io::Result<Answer> {
        let (status, headers) = self.receive_head()?;
        let length = headers.iter().find(|(name, _)| name == "content-length").map(|(_, value)| value.parse().unwrap());
        let mut body = vec![0; length.unwrap_or(0)];
        self.socket.read_exact(&mut body).map_err(in_the_midst)?;
        let body = String::from_utf8(body).map_err(io::Error::other)?;
        Ok(Answer { status, headers, body })
    }

    fn receive_head(&mut self) -> io::Result<(u16, Vec<(String, String)>)> {
        let line = self.line()?;
        let status = line.strip_prefix("HTTP/1.1 ").and_then(|line| line.get(..3)?.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("not a status line: {line:?}")))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line().map_err(in_the_midst)?;
            let Some((name, value)) = line.split_once(':') else {
                return Ok((status, headers));
            };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        match self.socket.read_line(&mut line)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    }

    /// Reads the answer to a request by a method that has a body in its answer.
    pub(crate) fn answer(&mut self) -> Answer {
        self.try_answer().expect("the connection was closed instead of an answer")
    }

    /// Reads an answer; `None` if the connection was closed instead.
    pub(crate) fn try_answer(&mut self) -> Option<Answer> {
        unless_closed(self.receive())
    }

    /// Reads an answer's head alone.
    pub(crate) fn head(&mut self) -> Option<(u16, Vec<(String, String)>)> {
        unless_closed(self.receive_head())
    }

    /// Whether the server closes the connection, within the deadline of reads, without another byte.
    pub(crate) fn is_closed(&mut self) -> bool {
        // `bytes` goes on after an interrupted call, as `read` would not.
        match self.socket.by_ref().bytes().next() {
            None => true,
            Some(Ok(_)) => false,
            Some(Err(error)) => error.kind() == ErrorKind::ConnectionReset,
        }
    }

    fn request_bytes(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&[u8]>) -> Vec<u8> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.address);
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(body) = body {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        [head.as_bytes(), body.unwrap_or_default()].concat()
    }

    /// Sends a request and reads its answer.
    pub(crate) fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Answer {
        let bytes = self.request_bytes(method, path, headers, body);
        self.send(bytes);
        self.answer()
    }

    /// GET.
    pub(crate) fn get(&mut self, path: &str, token: Option<&str>) -> Answer {
        let bearer = token.map(|token| format!("Bearer {token}"));
        let headers: Vec<_> = bearer.iter().map(|bearer| ("Authorization", bearer.as_str())).collect();
        self.request("GET", path, &headers, None)
    }

    /// POSTs a heartbeat.
    pub(crate) fn beat(&mut self, token: &str, body: impl AsRef<[u8]>) -> Answer {
        self.try_beat(token, body).unwrap_or_else(|error| panic!("a heartbeat was not answered: {error}"))
    }

    /// POSTs a batch.
    pub(crate) fn batch(&mut self, token: &str, body: impl AsRef<[u8]>) -> Answer {
        let bearer = format!("Bearer {token}");
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
        self.request("POST", BATCH, &headers, Some(body.as_ref()))
    }

    /// DELETE.
    pub(crate) fn delete(&mut self, path: &str, token: &str) -> Answer {
        self.request("DELETE", path, &[("Authorization", &format!("Bearer {token}"))], None)
    }

    /// POSTs a heartbeat to a server that may end meanwhile.
    pub(crate) fn try_beat(&mut self, token: &str, body: impl AsRef<[u8]>) -> io::Result<Answer> {
        self.send_beat(token, body)?;
        self.receive()
    }
}

/// The end of a connection within an answer is not the end of a connection before one.
fn in_the_midst(error: io::Error) -> io::Error {
    if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) {
        io::Error::new(ErrorKind::InvalidData, "the connection was closed within an answer")
    } else {
        error
    }
}

fn unless_closed<T>(received: io::Result<T>) -> Option<T> {
    match received {
        Ok(received) => Some(received),
        Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => None,
        Err(error) => panic!("no answer in time: {error}"),
    }
}

/// The body of a heartbeat.
pub(crate) fn beat(movie: i64, position: u32) -> String {
    format!("{{\"movie_id\": {movie}, \"position_seconds\": {position}}}")
}
