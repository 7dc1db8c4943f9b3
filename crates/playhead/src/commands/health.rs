//! `playhead health`: asks a running server's `/readyz`, prints what it says, and succeeds if it is ready.

use crate::Failure;
use crate::cli::Health;
use anyhow::Context;
use std::io::{Read, Write};
use std::net::TcpStream;

/// Far more than `/readyz` ever says.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// Runs the command.
pub(crate) fn run(flags: &Health) -> Result<(), Failure> {
    let answer = ask(flags).with_context(|| format!("no answer from {}: is the server running?", flags.admin))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    println!("{}", body.trim());
    if head.starts_with("HTTP/1.1 200 ") {
        return Ok(());
    }
    Err(anyhow::anyhow!("the server at {} is not ready", flags.admin).into())
}

fn ask(flags: &Health) -> std::io::Result<String> {
    let mut socket = TcpStream::connect_timeout(&flags.admin, flags.timeout)?;
    socket.set_read_timeout(Some(flags.timeout))?;
    socket.set_write_timeout(Some(flags.timeout))?;
    socket
        .write_all(format!("GET /readyz HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", flags.admin).as_bytes())?;
    let mut answer = String::new();
    socket.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    Ok(answer)
}
