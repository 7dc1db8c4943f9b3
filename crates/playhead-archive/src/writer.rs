//! Writing: the header, a line a record, the trailer.

use crate::FORMAT;
use crate::line::{Counts, Header, Line, Trailer};
use aws_lc_rs::digest::{Context, SHA256};
use playhead_core::{Record, WriteTime};

/// Makes the lines of one export, and keeps those not yet taken in memory.
pub struct Writer {
    bytes: Vec<u8>,
    digest: Context,
    counts: Counts,
}

impl Writer {
    /// Begins with the header.
    #[must_use]
    pub fn new(version: &str, exported_at: WriteTime, has_barriers: bool) -> Self {
        let mut writer = Self { bytes: Vec::new(), digest: Context::new(&SHA256), counts: Counts::default() };
        let exported_at_us = exported_at.micros();
        writer.line(&Line::Header(Header {
            format: FORMAT,
            version: version.to_owned(),
            exported_at_us,
            has_barriers,
        }));
        writer
    }

    /// Adds a record.
    pub fn record(&mut self, record: &Record) {
        self.line(&Line::of(record));
        self.counts.add(record.kind);
    }

    /// The lines made since the last call.
    pub fn take(&mut self) -> Vec<u8> {
        self.digest.update(&self.bytes);
        std::mem::take(&mut self.bytes)
    }

    /// How many records there were so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The rest, with the trailer.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        let mut rest = self.take();
        let Counts { rows, forgets, erases } = self.counts;
        let sha256 = hexadecimal(self.digest.finish().as_ref());
        // What is taken from here on is no part of the checksum.
        self.digest = Context::new(&SHA256);
        self.line(&Line::Trailer(Trailer { rows, forgets, erases, sha256 }));
        rest.append(&mut self.bytes);
        rest
    }

    fn line(&mut self, line: &Line) {
        serde_json::to_writer(&mut self.bytes, line)
            .expect("a line is plain structs, and writing to memory does not fail");
        self.bytes.push(b'\n');
    }
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
