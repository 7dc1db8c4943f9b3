//! `GET /export` of another process's operations listener, as bytes to be read.
//!
//! **The promise.** The token goes into the request and nowhere else. A stream that breaks ends as one that was cut off;
//! whether it was whole, its last line says.
//!
//! **The limits.** [`CONNECT`] to connect, [`SILENCE`] between two pieces; the first may take as long as a drain of that
//! server's memory does.

use crate::Failure;
use anyhow::{Context, anyhow};
use bytes::{Buf, Bytes};
use http::header::{AUTHORIZATION, HOST, HeaderValue};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use playhead_core::UserId;
use playhead_load::target::Target;
use std::io::{self, Read};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::time::timeout;

const CONNECT: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_secs(120);

/// The lines of an export, as they come.
pub(crate) struct RemoteExport {
    runtime: LocalRuntime,
    body: Incoming,
    piece: Bytes,
}

impl RemoteExport {
    /// Asks for it, from a user on. `url` is `http://HOST:PORT` of the operations listener.
    pub(crate) fn ask(url: &str, token: &[u8], from: Option<UserId>) -> Result<Self, Failure> {
        let spelling = || Failure::usage("--admin is http://HOST:PORT, the server's second address, without a path");
        if url.starts_with("https://") {
            return Err(Failure::usage(
                "--admin speaks plain HTTP: aim at the server itself, over loopback or a tunnel (ssh -L)",
            ));
        }
        let target = Target::parse(url).map_err(|_| spelling())?;
        let mut bearer = HeaderValue::from_bytes(&[b"Bearer ", token].concat()).map_err(|_| {
            anyhow!("the token in --admin-token-file can't be sent: it is one line of visible characters")
        })?;
        bearer.set_sensitive(true);
        let path = from.map_or_else(|| "/export".to_owned(), |user| format!("/export?from_user={user}"));
        let request = Request::get(path)
            .header(HOST, &target.host)
            .header(AUTHORIZATION, bearer)
            .body(Empty::<Bytes>::new())
            .map_err(|_| spelling())?;
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
            .context("can't start the runtime")?;
        let answer = runtime.block_on(async {
            let connected = timeout(CONNECT, TcpStream::connect(target.address)).await.map_err(io::Error::from);
            let socket = connected.flatten().with_context(|| {
                format!("can't connect to http://{}: is the server running, and is --admin right?", target.host)
            })?;
            let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await.context("no HTTP there")?;
            // It ends with the answer, and its errors show there.
            drop(tokio::task::spawn_local(connection));
            let silent = || format!("http://{} takes the connection but does not answer", target.host);
            timeout(SILENCE, sender.send_request(request)).await.with_context(silent)?.with_context(silent)
        })?;
        let host = &target.host;
        match answer.status() {
            StatusCode::OK => Ok(Self { runtime, body: answer.into_body(), piece: Bytes::new() }),
            StatusCode::UNAUTHORIZED => {
                Err(anyhow!("http://{host} refuses the token (401): give its --admin-token-file").into())
            }
            StatusCode::NOT_FOUND => Err(anyhow!(
                "http://{host} gives no export (404): start that server with --admin-token-file, and aim at its second \
                 address (--admin-listen)"
            )
            .into()),
            StatusCode::SERVICE_UNAVAILABLE => Err(anyhow!(
                "http://{host} gives no export now (503): another one is under way, or its store can't be read; see its log"
            )
            .into()),
            status => Err(anyhow!("http://{host} answers with {status}: is it Playhead's second address?").into()),
        }
    }
}

impl Read for RemoteExport {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Self { runtime, body, piece } = self;
        while !piece.has_remaining() {
            match runtime.block_on(async { timeout(SILENCE, body.frame()).await }) {
                Ok(Some(Ok(frame))) => *piece = frame.into_data().unwrap_or_default(),
                Ok(None) => return Ok(0),
                // Cut off: what came is not all.
                Ok(Some(Err(_))) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(_) => return Err(io::ErrorKind::TimedOut.into()),
            }
        }
        let count = piece.len().min(buffer.len());
        piece.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}
