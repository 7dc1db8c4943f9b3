//! HTTP/2 connections, without negotiation: many requests under way on each.
//!
//! hyper's client speaks the protocol; each request is a task of the worker's own thread. It costs more than HTTP/1.1
//! here, allocations included: figures of the generator's own cost are given for HTTP/1.1.

use crate::desk::{Message, Order};
use crate::measure::Failure;
use crate::wire::{self, Answer};
use crate::worker::{Backoff, CONNECT_PATIENCE, Room};
use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::TokioIo;
use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Requests under way on one connection: fewer than any server allows.
const STREAMS_MAX: u32 = 90;

/// Larger answers are none of ours.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// A connection, as the room knows it.
#[derive(Debug, Default)]
pub(crate) struct Connection {
    sender: Option<SendRequest<Full<Bytes>>>,
    under_way: u32,
}

impl Connection {
    /// Whether another request can be sent.
    pub(crate) fn has_room(&self) -> bool {
        self.sender.is_some() && self.under_way < STREAMS_MAX
    }

    /// Notes that it is gone. What was under way ends by itself.
    pub(crate) fn close(&mut self) {
        self.sender = None;
    }

    /// A request has ended.
    pub(crate) fn ended(&mut self) {
        self.under_way -= 1;
    }

    /// Sends a request and tells the room of its end.
    pub(crate) fn send(&mut self, room: Rc<RefCell<Room>>, at: usize, sending: Sending) {
        let Some(mut sender) = self.sender.clone() else { return };
        self.under_way += 1;
        tokio::task::spawn_local(async move {
            let Sending { order, request, sent_us, patience } = sending;
            let answered = timeout(patience, async {
                let (head, body) = sender.send_request(request).await.ok()?.into_parts();
                let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.ok()?.to_bytes();
                let answer = Answer {
                    status: head.status.as_u16(),
                    retry_after_s: head
                        .headers
                        .contains_key("retry-after")
                        .then(|| number(&head.headers, "retry-after").unwrap_or(1)),
                    interval_s: number(&head.headers, "playhead-interval"),
                    closes: false,
                };
                Some((answer, body))
            });
            let ended = match answered.await {
                Ok(Some(answered)) => Ok(answered),
                Ok(None) => Err(Failure::Closed),
                Err(_) => Err(Failure::TimedOut),
            };
            room.borrow_mut().ended(at, order, sent_us, ended);
        });
    }
}

/// A request and what the room wants to know at its end.
#[derive(Debug)]
pub(crate) struct Sending {
    pub(crate) order: Order,
    pub(crate) request: Request<Full<Bytes>>,
    pub(crate) sent_us: u64,
    pub(crate) patience: Duration,
}

fn number(headers: &HeaderMap, name: &str) -> Option<u32> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

/// The request of a message.
pub(crate) fn request(host: &str, token: &str, message: Message) -> Request<Full<Bytes>> {
    let (method, path, body) = match message {
        Message::Beat(beat) => {
            let mut body = Vec::with_capacity(128);
            wire::write_body(&mut body, beat);
            ("POST", wire::PROGRESS.to_owned(), body)
        }
        Message::Read(movie) => ("GET", format!("{}/{movie}", wire::PROGRESS), Vec::new()),
    };
    Request::builder()
        .method(method)
        .uri(format!("http://{host}{path}"))
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body)))
        .expect("a target, a path and a token are visible ASCII")
}

/// Runs hyper's tasks on the worker's own thread.
#[derive(Debug, Clone, Copy)]
struct OwnThread;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for OwnThread {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}

/// Keeps a connection up for as long as the room is open; an error is that of the first attempt.
pub(crate) async fn keep(
    room: Rc<RefCell<Room>>,
    at: usize,
    address: SocketAddr,
    gate: Rc<Semaphore>,
    first: impl FnOnce(io::Result<()>),
) {
    let mut first = Some(first);
    let mut backoff = Backoff::default();
    while room.borrow().is_open {
        let permit = gate.acquire().await;
        let connected = timeout(CONNECT_PATIENCE, async {
            let socket = TcpStream::connect(address).await?;
            socket.set_nodelay(true)?;
            http2::handshake(OwnThread, TokioIo::new(socket)).await.map_err(io::Error::other)
        });
        let connected = connected.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        drop(permit);
        match (connected, first.take()) {
            (Ok((sender, connection)), tell) => {
                room.borrow_mut().opened2(at, |connection| connection.sender = Some(sender), tell.is_none());
                if let Some(tell) = tell {
                    tell(Ok(()));
                }
                // How it ends shows in its requests.
                if connection.await.is_ok() {
                    backoff.reset();
                }
                room.borrow_mut().closed(at, Failure::Closed);
            }
            (Err(error), Some(tell)) => return tell(Err(error)),
            (Err(_), None) => room.borrow_mut().desk.measured.connects_failed += 1,
        }
        backoff.wait().await;
    }
}
