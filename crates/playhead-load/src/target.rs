//! Where the server is, and whether it is one: a question asked once, before the clock starts.

use crate::ledger::Row;
use crate::wire::{self, Parsed};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

/// How long the first question may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The most bytes of an answer that is looked at.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// A server's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// As it goes into `Host`.
    pub host: String,
    /// What it resolved to.
    pub address: SocketAddr,
}

/// Why a target can't be loaded. Each says what to do next.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// Not `http://HOST:PORT`.
    #[error("{0}: a target is http://HOST:PORT, without a path")]
    Spelling(String),
    /// TLS.
    #[error("{0}: load speaks plain HTTP only; aim at the server behind what ends TLS")]
    Tls(String),
    /// The name is unknown.
    #[error("can't resolve {name}: check the name in --target")]
    Resolve {
        /// The host.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No connection.
    #[error("can't connect to http://{host}: is the server running, and is --target right?")]
    Connect {
        /// The host.
        host: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No answer, or half of one.
    #[error("http://{host} took the connection but {what}: is it Playhead, and is it well?")]
    Silent {
        /// The host.
        host: String,
        /// What it did instead.
        what: String,
    },
    /// The token was refused.
    #[error(
        "http://{host} refuses the token (401): sign it as the server expects, with --data-dir of a --dev server, or with \
         --jwt-secret-file, --jwt-issuer, --jwt-audience and --user-claim"
    )]
    Unauthorized {
        /// The host.
        host: String,
    },
    /// Another service, or an unwell one.
    #[error("http://{host} answers a read with {status}{and}")]
    Answer {
        /// The host.
        host: String,
        /// The status.
        status: u16,
        /// What that may mean.
        and: &'static str,
    },
}

impl Target {
    /// Reads `http://HOST:PORT` and resolves it.
    ///
    /// # Errors
    /// If it is spelled otherwise, or the host is unknown.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        if text.starts_with("https://") {
            return Err(TargetError::Tls(text.to_owned()));
        }
        let spelling = || TargetError::Spelling(text.to_owned());
        let host = text.strip_prefix("http://").ok_or_else(spelling)?.trim_end_matches('/');
        if host.is_empty() || host.contains(['/', '?', '#', '@', ' ']) || !host.is_ascii() {
            return Err(spelling());
        }
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let with_port = if has_port { host.to_owned() } else { format!("{host}:80") };
        let resolve = |source| TargetError::Resolve { name: host.to_owned(), source };
        let mut addresses = with_port.to_socket_addrs().map_err(resolve)?;
        let address = addresses.next().ok_or_else(|| resolve(ErrorKind::NotFound.into()))?;
        Ok(Self { host: host.to_owned(), address })
    }

    /// Reads one title, as a player that opens: is this Playhead, and does it take our tokens?
    ///
    /// # Errors
    /// If not, in words for people.
    pub fn ask(&self, token: &str) -> Result<(), TargetError> {
        let host = || self.host.clone();
        let connect = |source| TargetError::Connect { host: host(), source };
        let mut socket = TcpStream::connect_timeout(&self.address, PATIENCE).map_err(connect)?;
        let silent = |what: &str| TargetError::Silent { host: host(), what: what.to_owned() };
        let mut request = Vec::new();
        wire::get(&mut request, &self.host, "/api/v1/stream/progress/1", token);
        let (answer, body) = exchange(&mut socket, &request).map_err(|error| match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => silent("gave no answer within 5 s"),
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset => silent("closed it before a whole answer"),
            ErrorKind::InvalidData => silent("answered with something that is not HTTP/1.1"),
            _ => silent("the connection broke"),
        })?;
        let and = match answer.status {
            200 if Row::position_of(&body).is_some() => return Ok(()),
            200 => ", but not with a bookmark: this is another service",
            401 => return Err(TargetError::Unauthorized { host: host() }),
            429 | 503 => {
                ": it is overloaded, or its store is unavailable; try again once /readyz of its second address is content"
            }
            500.. => ": it is unwell, see its log",
            _ => ": is it Playhead, or another service?",
        };
        Err(TargetError::Answer { host: host(), status: answer.status, and })
    }
}

fn exchange(socket: &mut TcpStream, request: &[u8]) -> io::Result<(wire::Answer, Vec<u8>)> {
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.write_all(request)?;
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match wire::parse(&bytes) {
            Parsed::Whole { answer, body, .. } => return Ok((answer, bytes[body].to_vec())),
            Parsed::Broken => return Err(ErrorKind::InvalidData.into()),
            Parsed::Partial if bytes.len() > ANSWER_BYTES_MAX => return Err(ErrorKind::InvalidData.into()),
            Parsed::Partial => {}
        }
        match socket.read(&mut chunk)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            count => bytes.extend_from_slice(&chunk[..count]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn targets_are_spelled_in_one_way() {
        let target = Target::parse("http://127.0.0.1:8080/").unwrap();
        assert_eq!((target.host.as_str(), target.address), ("127.0.0.1:8080", ([127, 0, 0, 1], 8080).into()));
        assert_eq!(Target::parse("http://127.0.0.1").unwrap().address.port(), 80);
        for bad in ["127.0.0.1:8080", "https://a", "http://", "http://a/b", "ftp://a", "http://a b", "http://u@a"] {
            assert!(Target::parse(bad).is_err(), "{bad}");
        }
    }

    /// A server that gives these bytes to whoever connects, and closes.
    fn answers(bytes: &'static str) -> Target {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let _ = socket.read(&mut [0; 4096]);
            let _ = socket.write_all(bytes.as_bytes());
        });
        Target { host: address.to_string(), address }
    }

    #[test]
    fn what_is_not_a_well_playhead_is_told_apart() {
        const NONE: &str =
            "HTTP/1.1 200 OK\r\ncontent-length: 40\r\n\r\n{\"state\":\"none\",\"position_seconds\":0.0}  ";
        assert!(answers(NONE).ask("t").is_ok());
        for (bytes, word) in [
            ("", "closed"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 40\r\n\r\n{\"st", "closed"),
            ("SSH-2.0-OpenSSH_9\r\n", "not HTTP"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", "another service"),
            ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", "another service"),
            ("HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n", "log"),
            ("HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", "overloaded"),
            ("HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n", "--data-dir"),
        ] {
            let message = answers(bytes).ask("t").unwrap_err().to_string();
            assert!(message.contains(word), "{bytes:?}: {message}");
        }
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let nobody = Target { host: nobody.to_string(), address: nobody };
        assert!(nobody.ask("t").unwrap_err().to_string().contains("is the server running"));
    }
}
