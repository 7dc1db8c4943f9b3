//! `playhead serve`: takes the addresses, opens the store, serves, and ends.
//!
//! The addresses come first: a busy port is found before the store is touched. Clients that connect meanwhile wait.
//!
//! **Its ends.** SIGTERM or SIGINT: closes down, brings the store to rest, exit code 0; a second signal ends at once.
//! If the store fails it has stopped for good and nothing more may be acknowledged: one line, and exit code 1 at once;
//! the next start recovers from the log.

use crate::Failure;
use crate::cli::{Serve, StoreName};
use crate::clock::SystemClock;
use crate::commands::token;
use crate::config::Config;
use crate::demo::{self, Signer};
use crate::settings;
use anyhow::Context;
use playhead_core::UserId;
use playhead_engine::Engine;
use playhead_server::Server;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{Builder, LocalOptions};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// The user of the token that `--dev` prints, and how long it is valid.
const DEV_USER: UserId = UserId(1);
const DEV_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// Runs the command.
pub(crate) fn run(flags: Serve) -> Result<(), Failure> {
    let data_dir = flags.data_dir.clone();
    let token_flags = flags.tokens.clone();
    let on_disk = flags.store == StoreName::Embedded;
    let connections_wanted = flags.limits.max_connections;
    let is_remote_allowed = flags.dev_allow_remote;
    let mut config = Config::of(flags)?;
    let connections_max = config.server.connections_max;
    let dev_token = match config.dev_secret.take() {
        Some(secret) => {
            let dev_token = token::mint(&secret, &token_flags, DEV_USER, DEV_TTL)?;
            config.server.demo = Some(demo::router(Signer { secret, flags: token_flags, is_remote_allowed }));
            Some(dev_token)
        }
        None => None,
    };
    for (stranger, meant) in settings::strangers() {
        tracing::warn!(stranger, meant, "a variable of the environment is no setting, but looks like one");
    }
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .context("can't start the runtime")?;
    runtime.block_on(async {
        let clock = Arc::new(SystemClock);
        let server = Server::bind(config.server).map_err(|error| {
            let advice = format!("can't listen on {}: choose another address or stop who has it", error.address);
            anyhow::Error::new(error.source).context(advice)
        })?;
        let engine = Engine::open(config.store, clock.clone(), config.limits).with_context(|| {
            if on_disk {
                format!("can't open the store in {}", data_dir.display())
            } else {
                "can't open the store".to_owned()
            }
        })?;
        let shutdown = on_signals()?;
        announce(server.address()?, server.admin_address()?, dev_token.as_deref());
        if connections_max < connections_wanted {
            tracing::info!(
                connections_max,
                "fewer connections than --max-connections, since this process may not have more files open (ulimit -n)"
            );
        }
        let shutdown = async {
            // The sender lives as long as the runtime.
            let _ = shutdown.await;
        };
        tokio::select! {
            outcome = server.run(engine.clone(), clock, shutdown) => {
                let closed = close(&engine).await;
                outcome?;
                closed?;
                tracing::info!("stopped");
                // Not by returning: the base would wait for a compaction under way, many seconds if there are 100 M
                // rows. It is cut short as by a kill, and the next start begins it anew.
                std::process::exit(0)
            }
            reason = engine.condition().failed() => {
                tracing::error!(%reason, "the store has failed; this process ends, and the next start recovers");
                std::process::exit(1)
            }
        }
    })
}

/// Ready at the first SIGTERM or SIGINT; a second ends the process.
fn on_signals() -> Result<oneshot::Receiver<()>, Failure> {
    let mut terminate = signal(SignalKind::terminate()).context("can't watch for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("can't watch for SIGINT")?;
    let (first, shutdown) = oneshot::channel();
    tokio::task::spawn_local(async move {
        either(&mut terminate, &mut interrupt).await;
        tracing::info!("told to stop: closing down");
        let _ = first.send(());
        either(&mut terminate, &mut interrupt).await;
        tracing::warn!("told to stop a second time: ending at once");
        std::process::exit(1);
    });
    Ok(shutdown)
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Brings the store to rest, on a thread of its own so that a second signal is still heard.
async fn close(engine: &Engine) -> Result<(), Failure> {
    let (sender, closed) = oneshot::channel();
    let engine = engine.clone();
    std::thread::Builder::new()
        .name("close".to_owned())
        .spawn(move || sender.send(engine.close()))
        .context("can't start a thread to close the store")?;
    closed
        .await
        .context("closing the store was cut short")?
        .context("the store could not be brought to rest; what was acknowledged is in its log")?;
    Ok(())
}

/// Prints where the server is and, with `--dev`, what to try.
fn announce(address: SocketAddr, admin_address: SocketAddr, dev_token: Option<&str>) {
    let mut text = format!("listening on http://{address}\nadmin on http://{admin_address}\n");
    if let Some(token) = dev_token {
        text.push_str(&lines_to_paste(reachable(address), token));
    }
    // Who closed our stdout does not want to know.
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

fn lines_to_paste(address: SocketAddr, token: &str) -> String {
    let url = format!("http://{address}/api/v1/stream/progress");
    let bearer = format!("-H 'Authorization: Bearer {token}'");
    let body = r#"{"movie_id": 42, "position_seconds": 1234.5, "duration_seconds": 7200}"#;
    format!(
        "demo on http://{address}/demo/\n\
         token for user {DEV_USER}, valid for a day: {token}\n\
         \n\
         # Save a position: the answer is 204 once it is durable.\n\
         curl -i {bearer} -H 'Content-Type: application/json' -d '{body}' {url}\n\
         # Get it back, on any device.\n\
         curl {bearer} {url}/42\n\
         # The continue-watching row.\n\
         curl {bearer} {url}\n\
         # Every call, to read in a browser: http://{address}/docs\n"
    )
}

/// An address that a client on this machine can use.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        });
    }
    address
}
