//! The least of CQL's protocol (version 4) that a readiness probe and `cargo xtask cassandra cql` need.
//!
//! One connection a statement, no authentication, no paging; cells as text. A driver would do more, and would have to
//! be compiled before any other task of this crate can run.

use anyhow::{Context, Result, bail, ensure};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddrV4, TcpStream};
use std::time::Duration;

/// Cells as text; `None` is null.
pub(super) type Rows = Vec<Vec<Option<String>>>;

/// The node is up, and wants to know who asks.
#[derive(Debug)]
pub(super) struct WantsPassword;

impl std::fmt::Display for WantsPassword {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("the node wants a password, which this client can't give")
    }
}

impl std::error::Error for WantsPassword {}

/// Opcodes of requests and answers.
const STARTUP: u8 = 0x01;
const QUERY: u8 = 0x07;
const ERROR: u8 = 0x00;
const AUTHENTICATE: u8 = 0x03;

/// The longest answer taken.
const BYTES_MAX: usize = 64 << 20;

/// Runs one statement at consistency ONE.
pub(super) fn query(node: SocketAddrV4, statement: &str, timeout: Duration) -> Result<Rows> {
    let mut socket =
        TcpStream::connect_timeout(&node.into(), timeout).with_context(|| format!("no answer from {node}"))?;
    socket.set_read_timeout(Some(timeout))?;
    socket.set_write_timeout(Some(timeout))?;
    let options = [&1_u16.to_be_bytes()[..], &text("CQL_VERSION")?, &text("3.0.0")?].concat();
    call(&mut socket, STARTUP, &options)?;
    let length = i32::try_from(statement.len())?.to_be_bytes();
    // Consistency ONE is 1; no flags.
    let body = [&length[..], statement.as_bytes(), &1_u16.to_be_bytes(), &[0]].concat();
    rows(&call(&mut socket, QUERY, &body)?)
}

fn text(text: &str) -> Result<Vec<u8>> {
    Ok([&u16::try_from(text.len())?.to_be_bytes()[..], text.as_bytes()].concat())
}

/// Sends a request and gives back the body of the answer, without warnings.
fn call(socket: &mut TcpStream, opcode: u8, body: &[u8]) -> Result<Vec<u8>> {
    let length = i32::try_from(body.len())?.to_be_bytes();
    socket.write_all(&[&[4, 0, 0, 0, opcode][..], &length, body].concat())?;
    let mut head = [0; 9];
    socket.read_exact(&mut head)?;
    let [_, flags, _, _, answer, length @ ..] = head;
    let length = usize::try_from(i32::from_be_bytes(length))?;
    ensure!(length <= BYTES_MAX, "an answer of {length} bytes");
    let mut body = vec![0; length];
    socket.read_exact(&mut body)?;
    match answer {
        ERROR => {
            let mut cursor = Cursor(&body);
            let code = cursor.int()?;
            bail!("error 0x{code:04x}: {}", cursor.string()?)
        }
        AUTHENTICATE => bail!(WantsPassword),
        _ if flags & 8 != 0 => {
            let mut cursor = Cursor(&body);
            for _ in 0..cursor.short()? {
                cursor.string()?;
            }
            Ok(cursor.0.to_vec())
        }
        _ => Ok(body),
    }
}

/// What is left of a body.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count).context("the answer ends too early")?;
        self.0 = rest;
        Ok(bytes)
    }

    fn short(&mut self) -> Result<u16> {
        Ok(u16::from_be_bytes(self.bytes(2)?.try_into()?))
    }

    fn int(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.bytes(4)?.try_into()?))
    }

    fn string(&mut self) -> Result<String> {
        let length = usize::from(self.short()?);
        Ok(String::from_utf8_lossy(self.bytes(length)?).into_owned())
    }

    /// A value's bytes; a negative length is null.
    fn value(&mut self) -> Result<Option<&'a [u8]>> {
        usize::try_from(self.int()?).ok().map(|length| self.bytes(length)).transpose()
    }

    /// A type's number; what it is made of is skipped.
    fn kind(&mut self) -> Result<u16> {
        let kind = self.short()?;
        match kind {
            0x00 => drop(self.string()?),
            0x20 | 0x22 => drop(self.kind()?),
            0x21 => {
                self.kind()?;
                self.kind()?;
            }
            0x30 => {
                self.string()?;
                self.string()?;
                for _ in 0..self.short()? {
                    self.string()?;
                    self.kind()?;
                }
            }
            0x31 => {
                for _ in 0..self.short()? {
                    self.kind()?;
                }
            }
            _ => {}
        }
        Ok(kind)
    }
}

/// The rows of a result; none for any other kind of result.
fn rows(body: &[u8]) -> Result<Rows> {
    let mut cursor = Cursor(body);
    if cursor.int()? != 2 {
        return Ok(Vec::new());
    }
    let flags = cursor.int()?;
    let columns = cursor.int()?;
    let has_one_table = flags & 1 != 0;
    if flags & 2 != 0 {
        cursor.value()?;
    }
    if has_one_table {
        cursor.string()?;
        cursor.string()?;
    }
    let mut kinds = Vec::new();
    for _ in 0..columns {
        if !has_one_table {
            cursor.string()?;
            cursor.string()?;
        }
        cursor.string()?;
        kinds.push(cursor.kind()?);
    }
    let count = cursor.int()?;
    let mut rows = Vec::new();
    for _ in 0..count {
        let cells = kinds.iter().map(|kind| Ok(cursor.value()?.map(|bytes| shown(*kind, bytes))));
        rows.push(cells.collect::<Result<Vec<_>>>()?);
    }
    Ok(rows)
}

/// A value as text: numbers, texts and addresses as such, anything else as hexadecimal digits.
fn shown(kind: u16, bytes: &[u8]) -> String {
    match (kind, bytes.len()) {
        (0x01 | 0x0a | 0x0d, _) => String::from_utf8_lossy(bytes).into_owned(),
        (0x02 | 0x05 | 0x09 | 0x0b | 0x13 | 0x14, 1..=8) => {
            let negative = bytes[0] & 0x80 != 0;
            let mut wide = [if negative { 0xff } else { 0 }; 8];
            wide[8 - bytes.len()..].copy_from_slice(bytes);
            i64::from_be_bytes(wide).to_string()
        }
        (0x04, 1) => (bytes[0] != 0).to_string(),
        (0x07, 8) => f64::from_be_bytes(bytes.try_into().unwrap_or_default()).to_string(),
        (0x10, 4) => IpAddr::from(<[u8; 4]>::try_from(bytes).unwrap_or_default()).to_string(),
        (0x10, 16) => IpAddr::from(<[u8; 16]>::try_from(bytes).unwrap_or_default()).to_string(),
        _ => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_as_people_write_them() {
        for (kind, bytes, text) in [
            (0x0d, &b"ab"[..], "ab"),
            (0x02, &(-7_i64).to_be_bytes(), "-7"),
            (0x09, &5_i32.to_be_bytes(), "5"),
            (0x07, &1.5_f64.to_be_bytes(), "1.5"),
            (0x04, &[1], "true"),
            (0x10, &[127, 0, 0, 1], "127.0.0.1"),
            (0x03, &[1, 0xab], "01ab"),
        ] {
            assert_eq!(shown(kind, bytes), text);
        }
    }

    #[test]
    fn a_result_that_is_cut_is_an_error_and_no_panic() {
        let mut whole = vec![0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1];
        for name in ["k", "t", "c"] {
            whole.extend(text(name).unwrap());
        }
        whole.extend([0, 0x0d, 0, 0, 0, 1, 0, 0, 0, 1, b'x']);
        assert_eq!(rows(&whole).unwrap(), [[Some("x".to_owned())]]);
        for end in 0..whole.len() {
            assert!(rows(&whole[..end]).is_err(), "{end}");
        }
    }
}
