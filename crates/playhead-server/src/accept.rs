//! Accepting: one listener, and each socket to the worker with the fewest connections.
//!
//! One listener on purpose: if each worker had its own (SO_REUSEPORT), a second server could bind the same address
//! without an error and take half the heartbeats, and long-lived connections would stay as the kernel's hash dealt them.
//!
//! **The limits.** At [`connections_max`](Acceptor::connections_max) a new connection is accepted and closed. When
//! accepting fails, for want of descriptors for instance, it pauses and goes on: what is open is served meanwhile.

use crate::metrics::AcceptMetrics;
use crate::worker::WorkerHandle;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// Long enough for a descriptor to come free, short enough that nobody notices.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections for the workers.
pub(crate) struct Acceptor {
    pub(crate) listener: TcpListener,
    pub(crate) connections_max: usize,
    pub(crate) metrics: Arc<AcceptMetrics>,
}

impl Acceptor {
    /// Accepts for ever; to be dropped to stop.
    pub(crate) async fn run(self, workers: &[WorkerHandle]) {
        let mut is_failing = false;
        loop {
            match self.listener.accept().await {
                Ok((socket, _)) => {
                    is_failing = false;
                    self.metrics.accepted.add_alone(1);
                    self.hand_over(socket, workers);
                }
                // The client gave up before its turn came.
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) => {}
                Err(error) => {
                    self.metrics.errors.add_alone(1);
                    if !std::mem::replace(&mut is_failing, true) {
                        tracing::warn!(%error, "accepting connections fails; it is tried again");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn hand_over(&self, socket: tokio::net::TcpStream, workers: &[WorkerHandle]) {
        let total: usize = workers.iter().map(|worker| worker.metrics.connections.get()).sum();
        let emptiest = workers.iter().min_by_key(|worker| worker.metrics.connections.get());
        let (true, Some(worker), Ok(socket)) = (total < self.connections_max, emptiest, socket.into_std()) else {
            self.metrics.refused.add_alone(1);
            return;
        };
        worker.metrics.connections.add(1);
        // A worker that is gone ends the server; its connections close with it.
        if worker.sockets.send(socket).is_err() {
            worker.metrics.connections.sub(1);
        }
    }
}
