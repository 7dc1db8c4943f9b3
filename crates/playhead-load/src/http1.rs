//! HTTP/1.1 connections: one request under way on each.
//!
//! A task per connection connects, reads answers and connects again; one that belongs to a streamer does so when there is
//! something to send, as a player does: servers end connections on which nothing comes. Requests are written from wherever their streamer is
//! due, straight to the socket. One request fits a socket's buffer, so a write that can't be made whole means that the
//! other side is gone.

use crate::desk::{Message, Order};
use crate::measure::Failure;
use crate::wire::{self, Parsed};
use crate::worker::{Backoff, CONNECT_PATIENCE, Room};
use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;

/// What an answer of ours fits into.
const BUFFER_BYTES: usize = 2 * 1024;

/// Larger answers are none of ours.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// A connection, as the room knows it.
#[derive(Debug, Default)]
pub(crate) struct Connection {
    write: Option<OwnedWriteHalf>,
    under_way: Option<(Order, u64)>,
    /// Where each streamer has its own connection: what waits until it is there.
    next: Option<Order>,
    /// Told when something waits.
    wanted: Rc<Notify>,
    is_late: bool,
}

impl Connection {
    /// Whether a request can be sent.
    pub(crate) fn is_idle(&self) -> bool {
        self.write.is_some() && self.under_way.is_none()
    }

    /// Sends this as soon as it can.
    pub(crate) fn wait(&mut self, order: Order) {
        self.next = Some(order);
        self.wanted.notify_one();
    }

    /// What waits, if anything does.
    pub(crate) fn take_next(&mut self) -> Option<Order> {
        self.next.take()
    }

    /// Whom to ask for when something will wait; `None` if it does.
    pub(crate) fn nothing_waits(&self) -> Option<Rc<Notify>> {
        self.next.is_none().then(|| Rc::clone(&self.wanted))
    }

    /// Notes that it is there.
    pub(crate) fn open(&mut self, write: OwnedWriteHalf) {
        self.write = Some(write);
        self.is_late = false;
    }

    /// Notes that it is gone; gives back what was under way, and how it ended.
    pub(crate) fn close(&mut self, failure: Failure) -> Option<(Order, Failure)> {
        self.write = None;
        let (order, _) = self.under_way.take()?;
        Some((order, if self.is_late { Failure::TimedOut } else { failure }))
    }

    /// The request whose answer has come, and when it was sent.
    pub(crate) fn take(&mut self) -> Option<(Order, u64)> {
        self.under_way.take()
    }

    /// Sends a request.
    pub(crate) fn send(&mut self, order: Order, bytes: &[u8], now_us: u64) {
        let written = self.write.as_ref().map(|write| write.try_write(bytes));
        self.under_way = Some((order, now_us));
        if !matches!(written, Some(Ok(count)) if count == bytes.len()) {
            self.end();
        }
    }

    /// Ends a connection whose answer is too late.
    pub(crate) fn end_if_late(&mut self, sent_before_us: u64) {
        if self.under_way.is_some_and(|(_, sent_us)| sent_us < sent_before_us) && !self.is_late {
            self.is_late = true;
            self.end();
        }
    }

    /// The task that reads from it will see the end.
    pub(crate) fn end(&self) {
        if let Some(write) = &self.write {
            // It may have ended by itself.
            let _ = rustix::net::shutdown(write.as_ref(), rustix::net::Shutdown::Both);
        }
    }
}

/// Writes a message into the buffer.
pub(crate) fn write(parts: &mut wire::BeatParts, buffer: &mut Vec<u8>, host: &str, token: &str, message: Message) {
    buffer.clear();
    match message {
        Message::Beat(beat) => parts.write(buffer, token.as_bytes(), beat),
        Message::Read(movie) => wire::get(buffer, host, &format!("{}/{movie}", wire::PROGRESS), token),
    }
}

/// Keeps a connection up for as long as the room is open. Tells once whether to begin: an error is that of the first
/// attempt.
pub(crate) async fn keep(
    room: Rc<RefCell<Room>>,
    at: usize,
    address: SocketAddr,
    gate: Rc<Semaphore>,
    tell: impl FnOnce(io::Result<()>),
) {
    let mut tell = Some(tell);
    let mut was_up = false;
    let mut backoff = Backoff::default();
    while room.borrow().is_open {
        while let Some(wanted) = { room.borrow().wanted(at) } {
            if let Some(tell) = tell.take() {
                tell(Ok(()));
            }
            wanted.notified().await;
        }
        let permit = gate.acquire().await;
        let connected = timeout(CONNECT_PATIENCE, TcpStream::connect(address)).await;
        drop(permit);
        let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let connected = connected.and_then(|socket| socket.set_nodelay(true).map(|()| socket));
        match (connected, tell.take()) {
            (Ok(socket), tell) => {
                let (read, write) = socket.into_split();
                room.borrow_mut().opened(at, |connection| connection.open(write), was_up);
                was_up = true;
                if let Some(tell) = tell {
                    tell(Ok(()));
                }
                let failure = answers(&room, at, read, &mut backoff).await;
                room.borrow_mut().closed(at, failure);
            }
            (Err(error), Some(tell)) => return tell(Err(error)),
            (Err(_), None) => room.borrow_mut().desk.measured.connects_failed += 1,
        }
        backoff.wait().await;
    }
}

/// Reads answers until the connection ends; how what was under way then ended.
async fn answers(room: &RefCell<Room>, at: usize, mut read: OwnedReadHalf, backoff: &mut Backoff) -> Failure {
    let mut bytes = vec![0; BUFFER_BYTES];
    let mut filled = 0;
    loop {
        match read.read(&mut bytes[filled..]).await {
            Ok(0) | Err(_) => return Failure::Closed,
            Ok(count) => filled += count,
        }
        match wire::parse(&bytes[..filled]) {
            Parsed::Partial if filled < bytes.len() => {}
            Parsed::Partial if filled < ANSWER_BYTES_MAX => bytes.resize(2 * filled, 0),
            Parsed::Partial | Parsed::Broken => return Failure::Garbled,
            Parsed::Whole { answer, body, length } => {
                backoff.reset();
                let goes_on = room.borrow_mut().answered(at, answer, &bytes[body]);
                if !goes_on || filled > length {
                    return Failure::Closed;
                }
                filled = 0;
            }
        }
    }
}
