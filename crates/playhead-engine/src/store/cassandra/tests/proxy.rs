//! Stands between a store and its nodes, and cuts connections: after a request was taken and before it is handed on, or
//! before the answer is.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// What is cut.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(u8)]
pub(super) enum Cut {
    Nothing,
    Requests,
    Answers,
}

/// One proxy before each node.
pub(super) struct Proxies {
    ways: Vec<(SocketAddr, SocketAddr)>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    cut: AtomicU8,
    cuts: AtomicU64,
}

impl Proxies {
    pub(super) fn before(nodes: &[String]) -> Self {
        let state = Arc::new(State::default());
        let ways = nodes.iter().map(|node| {
            let node: SocketAddr = node.parse().unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let proxy = listener.local_addr().unwrap();
            let state = Arc::clone(&state);
            // Ends with the test's process.
            std::thread::spawn(move || {
                for client in listener.incoming().flatten() {
                    let Ok(server) = TcpStream::connect(node) else { continue };
                    hand_on(&client, &server, Cut::Requests, &state);
                    hand_on(&server, &client, Cut::Answers, &state);
                }
            });
            (node, proxy)
        });
        Self { ways: ways.collect(), state }
    }

    /// Where the driver must go instead. It takes every node to be at the port of the one that it came in by, so each
    /// node is asked for at the port of each proxy.
    pub(super) fn detours(&self) -> HashMap<SocketAddr, SocketAddr> {
        let ports = || self.ways.iter().flat_map(|(node, proxy)| [node.port(), proxy.port()]);
        let to = |&(node, proxy): &(SocketAddr, SocketAddr)| {
            ports().map(move |port| (SocketAddr::new(node.ip(), port), proxy)).chain([(proxy, proxy)])
        };
        self.ways.iter().flat_map(to).collect()
    }

    pub(super) fn addresses(&self) -> Vec<String> {
        self.ways.iter().map(|(_, proxy)| proxy.to_string()).collect()
    }

    pub(super) fn behind(&self) -> Vec<String> {
        self.ways.iter().map(|(node, _)| node.to_string()).collect()
    }

    pub(super) fn cut(&self, cut: Cut) {
        self.state.cut.store(cut as u8, Ordering::SeqCst);
    }

    pub(super) fn cuts(&self) -> u64 {
        self.state.cuts.load(Ordering::SeqCst)
    }
}

fn hand_on(from: &TcpStream, to: &TcpStream, direction: Cut, state: &Arc<State>) {
    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    let state = Arc::clone(state);
    std::thread::spawn(move || {
        let mut buffer = [0; 16 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if state.cut.load(Ordering::SeqCst) == direction as u8 {
                state.cuts.fetch_add(1, Ordering::SeqCst);
                break;
            }
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    });
}
