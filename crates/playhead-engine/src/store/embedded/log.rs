//! The log: segments of fixed size, filled with frames, one fdatasync each. Written by the committer alone.
//!
//! **The promise.** When [`Log::append`] returns `Ok`, its records survive a power cut. No frame is written before the
//! sync of the one before it has returned, so at most the newest frame of a log can be missing or broken.
//!
//! **The limits.** A frame holds 1 to [`Log::frame_records_max`] records. A new segment is taken from the spares, which
//! the keeper provides ahead ([`Segments::provide_spare`]); where none comes in time, [`Log::has_room`] is
//! false and the committer refuses. An error of any call leaves the log unusable: the process must stop, and recovery read it.
//!
//! **Layout** (version [`VERSION`]; all numbers little-endian, everything at multiples of [`BLOCK`]):
//!
//! | segment header | bytes | | frame | bytes |
//! |---|---|---|---|---|
//! | magic `PLAYHLOG` | 0–8 | | magic `FRAM`, or `SEAL` | 0–4 |
//! | version | 8–12 | | CRC32C over all that follows, padding left out | 4–8 |
//! | CRC32C over bytes 8–12 and 16–72, in every version | 12–16 | | length in bytes, this header included | 8–12 |
//! | store id | 16–32 | | count of records | 12–16 |
//! | segment id | 32–40 | | sequence of the first record | 16–24 |
//! | salt of this life | 40–48 | | the segment's salt | 24–32 |
//! | first sequence to come | 48–56 | | the records, or a seal's successor: id and salt | 32– |
//! | size of the segment | 56–64 | | zeros up to the next block | |
//! | zeros | 64–4096 | | | |
//!
//! A segment that was drained is used again without being wiped. What its former lives left behind carries their
//! salts, which is how it is told from frames of this life.
//!
//! **Order of a rotation.** Header into the spare, sync; the spare gets its number, sync of the directory; the seal
//! into the predecessor, sync; only then the first frame. So a numbered segment always has a good header, and a seal
//! always a successor.

use super::disk::Disk;
use playhead_core::Record;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The version of the layout. A higher one in a file is refused.
pub(crate) const VERSION: u32 = 1;
/// The unit of all offsets: what a disk writes in one piece. No block that was acknowledged is written again.
pub(crate) const BLOCK: usize = 4096;
/// Frames stay below this many records, however large the segments: 160 KiB, a third of a millisecond to sync.
const FRAME_RECORDS_LIMIT: usize = 4096;
/// Spares kept: one to rotate to, and one for the next start, which shall not have to zero a file first.
pub(crate) const SPARES_KEPT: usize = 2;

/// Recycled segments kept as spares: what the log fills between two drains.
const SPARES_RECYCLED: usize = 6;

const HEADER_MAGIC: &[u8; 8] = b"PLAYHLOG";
const FRAME_MAGIC: &[u8; 4] = b"FRAM";
const SEAL_MAGIC: &[u8; 4] = b"SEAL";
const FRAME_HEADER_BYTES: usize = 32;
const SEGMENT_SUFFIX: &str = ".log";
const SPARE_PREFIX: &str = "spare-";
const ZEROING_PREFIX: &str = "zeroing-";

/// Which store a file belongs to: random, in every segment's header and in the base's mark.
pub(crate) type StoreId = [u8; 16];

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn half(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// The first block of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) store_id: StoreId,
    pub(crate) id: u64,
    pub(crate) salt: u64,
    pub(crate) first_sequence: u64,
    pub(crate) segment_bytes: u64,
}

/// Why a block is not a segment header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadHeader {
    /// The magic or the checksum is wrong.
    Damaged,
    /// The version is not ours.
    Version(u32),
}

impl SegmentHeader {
    fn encode(&self) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        block[0..8].copy_from_slice(HEADER_MAGIC);
        block[8..12].copy_from_slice(&VERSION.to_le_bytes());
        block[16..32].copy_from_slice(&self.store_id);
        block[32..40].copy_from_slice(&self.id.to_le_bytes());
        block[40..48].copy_from_slice(&self.salt.to_le_bytes());
        block[48..56].copy_from_slice(&self.first_sequence.to_le_bytes());
        block[56..64].copy_from_slice(&self.segment_bytes.to_le_bytes());
        let crc = Self::checksum(&block);
        block[12..16].copy_from_slice(&crc.to_le_bytes());
        block
    }

    /// The same in every version: a version that was damaged is damage, and not another version.
    pub(crate) fn checksum(block: &[u8]) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c(&block[8..12]), &block[16..72])
    }

    pub(crate) fn decode(block: &[u8]) -> Result<Self, BadHeader> {
        if &block[0..8] != HEADER_MAGIC || half(block, 12) != Self::checksum(block) {
            return Err(BadHeader::Damaged);
        }
        if half(block, 8) != VERSION {
            return Err(BadHeader::Version(half(block, 8)));
        }
        Ok(Self {
            store_id: block[16..32].try_into().expect("sixteen bytes"),
            id: word(block, 32),
            salt: word(block, 40),
            first_sequence: word(block, 48),
            segment_bytes: word(block, 56),
        })
    }
}

/// What stands at a block boundary of a segment.
#[derive(Debug, PartialEq)]
pub(crate) enum Block<'a> {
    /// A whole frame of this life.
    Frame { first_sequence: u64, records: &'a [u8], blocks: usize },
    /// The end of a segment that was filled.
    Seal { next_sequence: u64, successor: u64, successor_salt: u64 },
    /// A frame of this life was begun here and is not whole.
    Broken,
    /// Nothing of this life.
    Nothing,
}

/// Reads what stands at the beginning of `bytes`, in a segment of this salt.
pub(crate) fn read_block(bytes: &[u8], salt: u64) -> Block<'_> {
    if bytes.len() < FRAME_HEADER_BYTES {
        return Block::Nothing;
    }
    let is_seal = &bytes[0..4] == SEAL_MAGIC;
    if !is_seal && &bytes[0..4] != FRAME_MAGIC {
        return Block::Nothing;
    }
    if word(bytes, 24) != salt && !defence::is_left_out(defence::Defence::Salt) {
        return Block::Nothing;
    }
    let length = half(bytes, 8) as usize;
    let count = half(bytes, 12) as usize;
    let expected = FRAME_HEADER_BYTES + if is_seal { 16 } else { count.saturating_mul(Record::BYTES) };
    let whole = length == expected && length <= bytes.len();
    if !whole || (half(bytes, 4) != crc32c::crc32c(&bytes[8..length]) && !defence::is_left_out(defence::Defence::Crc)) {
        return Block::Broken;
    }
    if is_seal {
        let (successor, successor_salt) = (word(bytes, 32), word(bytes, 40));
        Block::Seal { next_sequence: word(bytes, 16), successor, successor_salt }
    } else {
        let records = &bytes[FRAME_HEADER_BYTES..length];
        Block::Frame { first_sequence: word(bytes, 16), records, blocks: length.div_ceil(BLOCK) }
    }
}

/// Builds a frame or a seal around a payload that already stands at [`FRAME_HEADER_BYTES`], and pads it.
fn finish_frame(frame: &mut Vec<u8>, magic: &[u8; 4], count: usize, first_sequence: u64, salt: u64) {
    let length = frame.len();
    let as_half = |number: usize| u32::try_from(number).expect("frames are far below 4 GiB").to_le_bytes();
    frame[0..4].copy_from_slice(magic);
    frame[8..12].copy_from_slice(&as_half(length));
    frame[12..16].copy_from_slice(&as_half(count));
    frame[16..24].copy_from_slice(&first_sequence.to_le_bytes());
    frame[24..32].copy_from_slice(&salt.to_le_bytes());
    let crc = crc32c::crc32c(&frame[8..length]);
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
    frame.resize(length.next_multiple_of(BLOCK), 0);
}

/// The file name of a segment.
pub(crate) fn segment_name(id: u64) -> String {
    format!("{id:016x}{SEGMENT_SUFFIX}")
}

/// The id in a segment's file name.
pub(crate) fn segment_id(name: &str) -> Option<u64> {
    let id = name.strip_suffix(SEGMENT_SUFFIX).filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(id, 16).ok()
}

/// The files of the log beside the one being written; shared by the committer, the drain and the keeper.
#[derive(Debug)]
pub(crate) struct Segments<D> {
    pub(crate) disk: D,
    segment_bytes: u64,
    files: Mutex<Files>,
    /// The committer may wait for the keeper, see [`Log::has_room`].
    spare_came: Condvar,
}

#[derive(Debug)]
struct Files {
    /// Full or left behind, oldest first: the id and the last sequence in it or before it.
    closed: Vec<(u64, u64)>,
    spares: Vec<String>,
    /// For the name of the next spare: never used twice in one process.
    next_spare: u64,
}

impl<D: Disk> Segments<D> {
    /// Takes stock of the spares of a directory; half-zeroed files are removed.
    ///
    /// Syncs the directory: the process before may have ended between renaming a segment to a spare and syncing that.
    /// Filled with a new header, such a spare could come back under its old name.
    pub(crate) fn open(disk: D, segment_bytes: u64, closed: Vec<(u64, u64)>) -> io::Result<Self> {
        let mut spares = Vec::new();
        let mut next_spare = 0;
        let mut names = disk.list()?;
        names.sort_unstable();
        for name in names {
            if name.starts_with(ZEROING_PREFIX) {
                disk.remove(&name)?;
            } else if let Some(number) = name.strip_prefix(SPARE_PREFIX) {
                next_spare = next_spare.max(number.parse().unwrap_or(0) + 1);
                // A spare of another size is left from other settings.
                let fits = disk.length(&disk.open(&name)?)? == segment_bytes;
                if fits {
                    spares.push(name);
                } else {
                    disk.remove(&name)?;
                }
            }
        }
        disk.sync_dir()?;
        let files = Mutex::new(Files { closed, spares, next_spare });
        Ok(Self { disk, segment_bytes, files, spare_came: Condvar::new() })
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Segments that hold what is not yet known to be in the base, the one being written left out.
    pub(crate) fn closed_count(&self) -> usize {
        self.files().closed.len()
    }

    /// Spares at hand.
    pub(crate) fn spare_count(&self) -> usize {
        self.files().spares.len()
    }

    /// Waits until there is a spare; whether there is one.
    fn wait_for_spare(&self, patience: Duration) -> bool {
        let none = |files: &mut Files| files.spares.is_empty();
        let waited = self.spare_came.wait_timeout_while(self.files(), patience, none);
        !waited.unwrap_or_else(PoisonError::into_inner).0.spares.is_empty()
    }

    /// Makes one spare if fewer than [`SPARES_KEPT`] are at hand: a file of zeros, written and synced, so that a later
    /// sync has no metadata to write. Takes long; called by the keeper.
    pub(crate) fn provide_spare(&self) -> io::Result<bool> {
        let number = {
            let mut files = self.files();
            if files.spares.len() >= SPARES_KEPT {
                return Ok(false);
            }
            files.next_spare += 1;
            files.next_spare - 1
        };
        let (zeroing, spare) = (format!("{ZEROING_PREFIX}{number}"), format!("{SPARE_PREFIX}{number}"));
        let made = self.zero(&zeroing).and_then(|()| self.disk.rename(&zeroing, &spare));
        if let Err(error) = made.and_then(|()| self.disk.sync_dir()) {
            // Nothing rests on the file yet: what is left of it goes now or at the next start.
            let _ = self.disk.remove(&zeroing);
            return Err(error);
        }
        self.files().spares.push(spare);
        self.spare_came.notify_all();
        Ok(true)
    }

    fn zero(&self, name: &str) -> io::Result<()> {
        const CHUNK: usize = 1 << 20;
        let zeros = vec![0; CHUNK.min(usize::try_from(self.segment_bytes).unwrap_or(CHUNK))];
        let file = self.disk.create(name)?;
        let mut offset = 0;
        while offset < self.segment_bytes {
            let rest = self.segment_bytes - offset;
            let chunk = &zeros[..usize::try_from(rest).unwrap_or(CHUNK).min(zeros.len())];
            self.disk.write_at(&file, chunk, offset)?;
            offset += chunk.len() as u64;
        }
        self.disk.sync(&file)
    }

    /// Turns every closed segment at or below this sequence into a spare, or removes it where there are enough.
    /// Called once the base durably holds everything up to there.
    pub(crate) fn recycle(&self, sequence: u64) -> io::Result<usize> {
        let drained: Vec<u64> = {
            let mut files = self.files();
            let (drained, kept) = files.closed.iter().partition(|(_, last)| *last <= sequence);
            files.closed = kept;
            drained.into_iter().map(|(id, _): (u64, u64)| id).collect()
        };
        let mut spares = Vec::new();
        for id in &drained {
            let name = segment_name(*id);
            let fits = self.disk.length(&self.disk.open(&name)?)? == self.segment_bytes;
            let spare = {
                let mut files = self.files();
                let is_wanted = fits && files.spares.len() + spares.len() < SPARES_RECYCLED;
                files.next_spare += 1;
                is_wanted.then(|| format!("{SPARE_PREFIX}{}", files.next_spare - 1))
            };
            match spare {
                Some(spare) => {
                    self.disk.rename(&name, &spare)?;
                    spares.push(spare);
                }
                None => self.disk.remove(&name)?,
            }
        }
        if !drained.is_empty() {
            self.disk.sync_dir()?;
        }
        // Only now may the committer have them: a spare whose old name could come back would be two segments.
        self.files().spares.extend(spares);
        self.spare_came.notify_all();
        Ok(drained.len())
    }

    /// Opens a new segment in a spare: header, sync, number, sync of the directory.
    fn start_segment(&self, header: &SegmentHeader) -> io::Result<D::File> {
        let spare = self.files().spares.pop().ok_or_else(|| io::Error::other("no spare segment"))?;
        let file = self.disk.open(&spare)?;
        self.disk.write_at(&file, &header.encode(), 0)?;
        self.disk.sync(&file)?;
        self.disk.rename(&spare, &segment_name(header.id))?;
        self.disk.sync_dir()?;
        Ok(file)
    }
}

/// The salts of one process's segments: SplitMix64 over a random seed, so that two lives of a file never share one.
#[derive(Debug)]
pub(crate) struct Salts(u64);

impl Salts {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// The writing end of the log.
pub(crate) struct Log<D: Disk> {
    segments: Arc<Segments<D>>,
    header: SegmentHeader,
    file: D::File,
    /// Where the next frame goes.
    offset: u64,
    next_sequence: u64,
    frame: Vec<u8>,
    salts: Salts,
}

impl<D: Disk> Log<D> {
    /// Opens a new segment of this id; the next record gets `next_sequence`. Needs a spare.
    pub(crate) fn start(
        segments: Arc<Segments<D>>,
        store_id: StoreId,
        id: u64,
        next_sequence: u64,
        mut salts: Salts,
    ) -> io::Result<Self> {
        let segment_bytes = segments.segment_bytes;
        let header = SegmentHeader { store_id, id, salt: salts.next(), first_sequence: next_sequence, segment_bytes };
        let file = segments.start_segment(&header)?;
        Ok(Self { segments, header, file, offset: BLOCK as u64, next_sequence, frame: Vec::new(), salts })
    }

    /// The most records of one frame.
    pub(crate) fn frame_records_max(&self) -> usize {
        frame_records_max(self.header.segment_bytes)
    }

    /// The sequence of the last record appended.
    pub(crate) fn last_sequence(&self) -> u64 {
        self.next_sequence - 1
    }

    /// Whether a frame of this many records can be appended: into this segment, or into a spare that is there, or comes
    /// within `patience`.
    pub(crate) fn has_room(&self, records: usize, patience: Duration) -> bool {
        self.fits(padded_bytes(records)) || self.segments.wait_for_spare(patience)
    }

    /// Whether fewer spares are at hand than there should be.
    pub(crate) fn needs_spares(&self) -> bool {
        self.segments.spare_count() < SPARES_KEPT
    }

    /// A frame and, behind it, a seal.
    fn fits(&self, frame_bytes: u64) -> bool {
        self.offset + frame_bytes + BLOCK as u64 <= self.header.segment_bytes
    }

    /// Writes these records as one frame and syncs it; gives back the bytes written. `sync` runs the sync, so that the
    /// committer can time and watch it.
    pub(crate) fn append(
        &mut self,
        records: &[Record],
        sync: impl FnOnce(&mut dyn FnMut() -> io::Result<()>) -> io::Result<()>,
    ) -> io::Result<u64> {
        let bytes = padded_bytes(records.len());
        if !self.fits(bytes) {
            self.rotate()?;
        }
        self.frame.clear();
        self.frame.resize(FRAME_HEADER_BYTES, 0);
        for record in records {
            self.frame.extend_from_slice(&record.encode());
        }
        finish_frame(&mut self.frame, FRAME_MAGIC, records.len(), self.next_sequence, self.header.salt);
        debug_assert_eq!(self.frame.len() as u64, bytes);
        let disk = &self.segments.disk;
        disk.write_at(&self.file, &self.frame, self.offset)?;
        if !cfg!(feature = "fault-no-sync") {
            sync(&mut || disk.sync(&self.file))?;
        }
        self.offset += bytes;
        self.next_sequence += records.len() as u64;
        Ok(bytes)
    }

    fn rotate(&mut self) -> io::Result<()> {
        let header = SegmentHeader {
            id: self.header.id + 1,
            salt: self.salts.next(),
            first_sequence: self.next_sequence,
            ..self.header
        };
        let successor = self.segments.start_segment(&header)?;

        self.frame.clear();
        self.frame.resize(FRAME_HEADER_BYTES, 0);
        self.frame.extend_from_slice(&header.id.to_le_bytes());
        self.frame.extend_from_slice(&header.salt.to_le_bytes());
        finish_frame(&mut self.frame, SEAL_MAGIC, 0, self.next_sequence, self.header.salt);
        self.segments.disk.write_at(&self.file, &self.frame, self.offset)?;
        self.segments.disk.sync(&self.file)?;

        self.segments.files().closed.push((self.header.id, self.last_sequence()));
        self.header = header;
        self.file = successor;
        self.offset = BLOCK as u64;
        Ok(())
    }
}

/// The most records of one frame in segments of this size.
#[expect(clippy::cast_possible_truncation, reason = "not above the limit, which is a usize")]
pub(crate) const fn frame_records_max(segment_bytes: u64) -> usize {
    let without_header_and_seal = segment_bytes - 2 * BLOCK as u64;
    let records = (without_header_and_seal - FRAME_HEADER_BYTES as u64) / Record::BYTES as u64;
    if records < FRAME_RECORDS_LIMIT as u64 { records as usize } else { FRAME_RECORDS_LIMIT }
}

fn padded_bytes(records: usize) -> u64 {
    (FRAME_HEADER_BYTES + records * Record::BYTES).next_multiple_of(BLOCK) as u64
}

/// What the simulator leaves out, to prove that it would notice.
pub(crate) mod defence {
    /// A check that recovery makes.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Defence {
        Crc,
        Salt,
    }

    #[cfg(test)]
    thread_local! {
        pub(crate) static LEFT_OUT: std::cell::Cell<Option<Defence>> = const { std::cell::Cell::new(None) };
    }

    #[cfg(test)]
    pub(super) fn is_left_out(defence: Defence) -> bool {
        LEFT_OUT.get() == Some(defence)
    }

    #[cfg(not(test))]
    pub(super) fn is_left_out(_: Defence) -> bool {
        false
    }
}
