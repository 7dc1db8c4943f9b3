//! One connection: which protocol it speaks, how long its client may take, and how it ends.
//!
//! Run by [`crate::worker`], one task per connection, all on the worker's thread.
//!
//! **The promise.** A client gets [`Deadlines::idle`] of silence between requests and [`Deadlines::request`] from the
//! first byte of a request to its last, however the bytes are spread: a body that is late is answered with 408, all
//! else is closed. So nobody holds a connection by trickling. A client that does not take its answer is closed too.
//!
//! **How.** hyper's own timer runs between requests as well and per request, so it stays off. Instead the I/O under
//! hyper and the service above it move a [`Watch`] from phase to phase, each with the moment at which it is overdue;
//! the worker's sweep wakes connections that are. No timer is armed per request. Time is the sweep's, in steps of
//! [`TICK`]: a deadline is up to two ticks late and never early, and a process that was stopped for a while does not
//! find all its clients late. HTTP/2 multiplexes, so there the body of each stream is timed by the runtime.
//!
//! ```text
//! Idle ─ first byte ─▶ Receiving ─ body complete ─▶ Answering ─ answer made ─▶ Answered ─ flushed ─▶ Idle
//! ```
//!
//! **The limits.** Head 16 KiB and 100 fields (431, by hyper), 128 streams on an HTTP/2 connection. If the tail of one
//! read holds the beginning of a next request, that one's time starts with its second piece.

use crate::worker::{Worker, answer};
use axum::response::Response;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The step of the sweep's clock.
pub(crate) const TICK: Duration = Duration::from_secs(1);

/// The largest request head.
pub(crate) const HEAD_BYTES_MAX: u32 = 16 * 1024;

/// Requests under way at once on one HTTP/2 connection.
pub(crate) const STREAMS_MAX: u32 = 128;

/// How long a closed connection still takes what its client sends, so that the answer is not lost in a reset.
const LINGER: Duration = Duration::from_secs(1);

/// How much it then takes.
pub(crate) const LINGER_BYTES_MAX: usize = 256 * 1024;

const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long clients may take.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// From the first byte of a request to its last; also from accepting a connection to its first byte.
    pub request: Duration,
    /// From the last byte of a request to the last of its answer.
    pub answer: Duration,
    /// From one request to the next.
    pub idle: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Receiving,
    Answering,
    Answered,
    /// HTTP/2: any of these at once.
    Streams,
    /// The answer is out and no more requests are taken.
    Closing,
}

/// What a connection waits for, and until when.
pub(crate) struct Watch {
    deadlines: Deadlines,
    /// The sweep's clock, in milliseconds.
    now_ms: Rc<Cell<u64>>,
    due_ms: Cell<u64>,
    phase: Cell<Phase>,
    /// Bytes came while the last request was being answered.
    has_early_bytes: Cell<bool>,
    streams: Cell<usize>,
    waker: RefCell<Option<Waker>>,
}

impl Watch {
    /// A connection that was just accepted.
    pub(crate) fn new(deadlines: Deadlines, now_ms: Rc<Cell<u64>>) -> Self {
        let watch = Self {
            deadlines,
            now_ms,
            due_ms: Cell::new(0),
            phase: Cell::new(Phase::Receiving),
            has_early_bytes: Cell::new(false),
            streams: Cell::new(0),
            waker: RefCell::new(None),
        };
        watch.enter(Phase::Receiving, deadlines.request);
        watch
    }

    fn enter(&self, phase: Phase, time: Duration) {
        self.phase.set(phase);
        self.due_in(time);
    }

    fn due_in(&self, time: Duration) {
        // The clock may stand up to a tick behind.
        let time = u64::try_from((time + TICK).as_millis()).unwrap_or(u64::MAX);
        self.due_ms.set(self.now_ms.get().saturating_add(time));
    }

    /// Whether the client has used up its time.
    pub(crate) fn is_overdue(&self) -> bool {
        self.now_ms.get() >= self.due_ms.get()
    }

    /// Wakes the connection's task.
    pub(crate) fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// All of a connection is polled by one task, so its waker is taken once.
    fn keep_waker(&self, context: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if waker.is_none() {
            *waker = Some(context.waker().clone());
        }
    }

    /// hyper hands over a request.
    pub(crate) fn request_begins(&self) {
        // Its head was read together with the request before it.
        if self.phase.get() == Phase::Idle {
            self.enter(Phase::Receiving, self.deadlines.request);
        }
    }

    /// The client has done its part.
    pub(crate) fn request_is_complete(&self) {
        if self.phase.get() == Phase::Receiving {
            self.enter(Phase::Answering, self.deadlines.answer);
        }
    }

    /// The answer goes to hyper.
    pub(crate) fn answer_is_made(&self) {
        match self.phase.get() {
            Phase::Receiving => self.enter(Phase::Answered, self.deadlines.answer),
            Phase::Answering => self.phase.set(Phase::Answered),
            _ => {}
        }
    }

    fn bytes_read(&self) {
        match self.phase.get() {
            Phase::Idle => self.enter(Phase::Receiving, self.deadlines.request),
            Phase::Answering | Phase::Answered => self.has_early_bytes.set(true),
            _ => {}
        }
    }

    fn flushed(&self) {
        if self.phase.get() == Phase::Answered {
            if self.has_early_bytes.take() {
                self.enter(Phase::Receiving, self.deadlines.request);
            } else {
                self.enter(Phase::Idle, self.deadlines.idle);
            }
        }
    }

    /// Counts an HTTP/2 stream; while there is one, the connection is not idle.
    fn stream_begins(self: &Rc<Self>) -> Stream {
        self.streams.set(self.streams.get() + 1);
        self.due_in(self.deadlines.request + self.deadlines.answer);
        Stream(Rc::clone(self))
    }
}

/// An HTTP/2 request under way.
struct Stream(Rc<Watch>);

impl Drop for Stream {
    fn drop(&mut self) {
        let left = self.0.streams.get() - 1;
        self.0.streams.set(left);
        if left == 0 {
            self.0.due_in(self.0.deadlines.idle);
        }
    }
}

/// Serves a socket until it is closed, by either side.
pub(crate) async fn serve(worker: Rc<Worker>, watch: Rc<Watch>, socket: TcpStream) {
    // Answers are small and complete: waiting for more to send would only delay them.
    let _ = socket.set_nodelay(true);
    let mut reading = pin!(Preface::read(socket));
    // Who has not begun to speak when the worker closes down need not begin.
    let reading = poll_fn(|context| match worker.is_closing_down() {
        true => Poll::Ready(None),
        false => reading.as_mut().poll(context),
    });
    let Some((socket, preface)) = within(&worker, &watch, |_| {}, pin!(reading)).await.flatten() else {
        return;
    };
    let is_http2 = preface.is_http2();
    let io = TokioIo::new(WatchedIo { socket, preface, watch: Rc::clone(&watch), lingered_bytes: 0 });
    let service = service_fn({
        let (worker, watch) = (Rc::clone(&worker), Rc::clone(&watch));
        move |request| serve_request(Rc::clone(&worker), Rc::clone(&watch), request)
    });
    if is_http2 {
        watch.enter(Phase::Streams, watch.deadlines.request);
        let connection = http2::Builder::new(LocalExecutor)
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(HEAD_BYTES_MAX)
            .serve_connection(io, service);
        let _ = within(&worker, &watch, |connection| connection.graceful_shutdown(), pin!(connection)).await;
    } else {
        let connection =
            http1::Builder::new().max_buf_size(HEAD_BYTES_MAX as usize).writev(false).serve_connection(io, service);
        let _ = within(&worker, &watch, |connection| connection.graceful_shutdown(), pin!(connection)).await;
    }
}

async fn serve_request(
    worker: Rc<Worker>,
    watch: Rc<Watch>,
    request: hyper::Request<Incoming>,
) -> Result<Response, Infallible> {
    let _stream = (watch.phase.get() == Phase::Streams).then(|| watch.stream_begins());
    Ok(answer(&worker, &watch, request).await)
}

/// Runs a future until it is done or its connection is overdue; tells it once when the worker closes down.
async fn within<F: Future>(
    worker: &Worker,
    watch: &Watch,
    close_down: impl Fn(Pin<&mut F>),
    mut future: Pin<&mut F>,
) -> Option<F::Output> {
    let mut was_told = false;
    poll_fn(|context| {
        watch.keep_waker(context);
        if worker.is_closing_down() && !was_told {
            was_told = true;
            close_down(future.as_mut());
        }
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(Some(output));
        }
        // Looked at afterwards: a late body has been answered by now, and that is given its time.
        if watch.is_overdue() {
            worker.metrics().connections_timed_out.add_alone(1);
            return Poll::Ready(None);
        }
        Poll::Pending
    })
    .await
}

/// The first bytes of a connection, up to where they tell HTTP/2 from HTTP/1; read again by hyper.
struct Preface {
    bytes: [u8; HTTP2_PREFACE.len()],
    read: usize,
    replayed: usize,
}

impl Preface {
    /// `None` if the connection ended before.
    async fn read(mut socket: TcpStream) -> Option<(TcpStream, Self)> {
        let mut preface = Self { bytes: [0; HTTP2_PREFACE.len()], read: 0, replayed: 0 };
        while preface.read < HTTP2_PREFACE.len() && HTTP2_PREFACE.starts_with(&preface.bytes[..preface.read]) {
            match socket.read(&mut preface.bytes[preface.read..]).await {
                Ok(0) | Err(_) => return None,
                Ok(count) => preface.read += count,
            }
        }
        Some((socket, preface))
    }

    fn is_http2(&self) -> bool {
        self.bytes == *HTTP2_PREFACE
    }
}

/// A socket that keeps its [`Watch`] up to date.
struct WatchedIo {
    socket: TcpStream,
    preface: Preface,
    watch: Rc<Watch>,
    lingered_bytes: usize,
}

impl AsyncRead for WatchedIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Preface { bytes, read, replayed } = self.preface;
        if replayed < read {
            let count = buffer.remaining().min(read - replayed);
            buffer.put_slice(&bytes[replayed..replayed + count]);
            self.preface.replayed += count;
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            self.watch.bytes_read();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for WatchedIo {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A socket has no buffer of its own: hyper flushes once it has written all there is.
        self.watch.flushed();
        Poll::Ready(Ok(()))
    }

    /// Closes in the way that loses no answer: a socket closed over unread bytes resets the connection, and that can
    /// overtake the answer to, say, a body that was too long. So the client is told, and what it sends is let through.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.watch.phase.get() != Phase::Closing {
            ready!(Pin::new(&mut self.socket).poll_shutdown(context))?;
            self.watch.enter(Phase::Closing, LINGER);
        }
        let mut scratch = [0; 4096];
        while self.lingered_bytes < LINGER_BYTES_MAX {
            let mut buffer = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut self.socket).poll_read(context, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => self.lingered_bytes += buffer.filled().len(),
                _ => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Spawns HTTP/2 streams on the worker's thread.
#[derive(Clone, Copy)]
struct LocalExecutor;

impl<F: Future + 'static> Executor<F> for LocalExecutor
where
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINES: Deadlines =
        Deadlines { request: Duration::from_secs(10), answer: Duration::from_secs(15), idle: Duration::from_secs(75) };

    /// After these steps, the connection is overdue this many seconds of the sweep's clock later, and no earlier.
    fn check(steps: &[fn(&Watch)], overdue_after_s: u64) {
        let now_ms = Rc::new(Cell::new(0));
        let watch = Watch::new(DEADLINES, Rc::clone(&now_ms));
        for step in steps {
            step(&watch);
            now_ms.set(now_ms.get() + 1_000);
        }
        let mut waited_s = 0;
        while !watch.is_overdue() {
            now_ms.set(now_ms.get() + 1_000);
            waited_s += 1;
        }
        assert_eq!(waited_s, overdue_after_s);
    }

    #[test]
    fn each_phase_has_its_time_and_trickling_does_not_extend_it() {
        // A tick is added to each time, and one passes after each step.
        check(&[], 11);
        check(&[|_| {}], 10);
        check(&[Watch::bytes_read, Watch::bytes_read, Watch::bytes_read], 8);
        let answered: [fn(&Watch); 4] =
            [Watch::request_begins, Watch::request_is_complete, Watch::answer_is_made, Watch::flushed];
        check(&answered[..2], 15);
        check(&answered[..3], 14);
        check(&answered, 75);
        // A refusal without a look at the body is an answer like any other.
        check(&[Watch::request_begins, Watch::answer_is_made, Watch::flushed], 75);
        // The next request's first byte, after and before the end of the last.
        check(&[&answered[..], &[Watch::bytes_read, Watch::bytes_read]].concat(), 9);
        check(&[&answered[..2], &[Watch::bytes_read], &answered[2..], &[Watch::bytes_read]].concat(), 9);
        // A flush before the answer is hyper's habit and means nothing.
        check(&[Watch::request_begins, Watch::request_is_complete, Watch::flushed], 14);
    }
}
