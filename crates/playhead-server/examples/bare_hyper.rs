//! The floor that the server is measured against: hyper alone, which reads a body and answers 204.
//!
//! One current-thread runtime per core and one listener whose sockets go round, as in the server; no token, no JSON, no
//! store, no deadlines. The one read with which a load generator looks whom it talks to is answered as Playhead would.
//! Run as `bare_hyper ADDRESS WORKERS`; it serves until it is killed.

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Error, Request};
use hyper_util::rt::TokioIo;
use std::net::TcpListener;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:8090".to_owned());
    let workers = arguments.next().and_then(|workers| workers.parse().ok()).unwrap_or(2);
    let listener = TcpListener::bind(&address)?;
    let inboxes: Vec<_> = (0..workers)
        .map(|_| {
            let (sender, inbox) = mpsc::unbounded_channel();
            std::thread::spawn(move || work(inbox));
            sender
        })
        .collect();
    println!("listening on http://{}", listener.local_addr()?);
    for inbox in inboxes.iter().cycle() {
        let (socket, _) = listener.accept()?;
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        if inbox.send(socket).is_err() {
            break;
        }
    }
    Ok(())
}

fn work(mut inbox: mpsc::UnboundedReceiver<std::net::TcpStream>) -> std::io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(async {
        while let Some(socket) = inbox.recv().await {
            let io = TokioIo::new(TcpStream::from_std(socket)?);
            tokio::task::spawn_local(http1::Builder::new().serve_connection(io, service_fn(answer)));
        }
        Ok(())
    })
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Error> {
    if request.method() == Method::GET {
        return Ok(Response::new(Full::from(r#"{"state":"none","position_seconds":0.0}"#)));
    }
    request.into_body().collect().await?;
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}
