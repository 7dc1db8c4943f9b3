//! Recovery: reads the log's segments, replays what the base does not have, and refuses where something is missing.
//!
//! Called when a store is opened, by `playhead check`, and by the simulator after every crash.
//!
//! **The promise.** Every record above the base's mark that was ever acknowledged is replayed, in order, exactly once;
//! or recovery refuses and names the file, the offset and how much follows. It never skips acknowledged data in
//! silence. It writes nothing.
//!
//! **How it tells loss from a torn tail.** From the mark's sequence plus one to the highest sequence found, sequences
//! must be contiguous. A hole is lost data: no frame is written before its predecessor is synced. So is a seal whose
//! successor is missing with no later segment there, a bad header of a numbered segment (a segment gets its number
//! after its header is synced), and a file shorter than its header says. What was begun behind the last whole frame of
//! a segment was never acknowledged: one warning. Damage that lies wholly at or below the mark has lost nothing.
//!
//! **What remains undetectable.** Damage to the very last frame, after the process was killed: it looks like a frame
//! that was never finished.

use super::base::Mark;
use super::disk::Disk;
use super::log::{BLOCK, BadHeader, Block, SegmentHeader, StoreId, VERSION, read_block, segment_id, segment_name};
use playhead_core::{Record, WriteTime};
use std::io;

/// What stands in the log.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) store_id: StoreId,
    /// The id of the next segment.
    pub(crate) next_segment: u64,
    /// The highest sequence in log and mark.
    pub(crate) last_sequence: u64,
    /// The newest write time in log and mark.
    pub(crate) newest: Option<WriteTime>,
    /// The last frame, if it is above the mark: it may not be on the disk yet, and is to be logged again.
    pub(crate) last_frame: Vec<Record>,
    /// The segments found, each with the last sequence in it or before it.
    pub(crate) segments: Vec<(u64, u64)>,
    /// Records replayed.
    pub(crate) replayed: u64,
    /// What an operator should know; nothing acknowledged is lost by it.
    pub(crate) warnings: Vec<String>,
    /// What is lost. Empty, unless recovery was told to go on.
    pub(crate) losses: Vec<Loss>,
}

impl Recovered {
    /// A store that is new.
    pub(crate) fn nothing(store_id: StoreId) -> Self {
        Self {
            store_id,
            next_segment: 1,
            last_sequence: 0,
            newest: None,
            last_frame: Vec::new(),
            segments: Vec::new(),
            replayed: 0,
            warnings: Vec::new(),
            losses: Vec::new(),
        }
    }
}

/// Acknowledged data that the log should have and has not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Loss {
    pub(crate) file: String,
    pub(crate) offset: u64,
    pub(crate) what: String,
    /// Whole records found behind it.
    pub(crate) records_behind: u64,
}

/// What to do about a loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnLoss {
    /// Refuse.
    Refuse,
    /// Replay what is whole, and report.
    GoOn,
}

/// Why a log can't be recovered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecoveryError {
    #[error("{file} can't be read: {source}")]
    Io { file: String, source: io::Error },
    #[error("{file} was written by a newer version of Playhead (log format {version}, this one reads {VERSION})")]
    NewerFormat { file: String, version: u32 },
    #[error(
        "{} at offset {} is damaged: {}; {} whole records follow", .0.file, .0.offset, .0.what, .0.records_behind
    )]
    Lost(Loss),
    #[error("the base is marked as filled from a log (up to sequence {sequence}), but the log has no segment")]
    MarkWithoutLog { sequence: u64 },
    #[error("the log holds records, but the base has no mark of having been filled from it")]
    LogWithoutMark,
}

/// Reads all segments and hands every record above the mark to `replay`, oldest first.
///
/// `Ok(None)` if there is neither a log nor a mark: the store is new. Without a mark but with an empty log, its creation
/// was interrupted; it is given back as empty.
pub(crate) fn recover<D: Disk>(
    disk: &D,
    mark: Option<&Mark>,
    on_loss: OnLoss,
    replay: impl FnMut(&Record),
) -> Result<Option<Recovered>, RecoveryError> {
    let names = disk.list().map_err(|source| RecoveryError::Io { file: "the log's directory".to_owned(), source })?;
    let mut ids: Vec<u64> = names.iter().filter_map(|name| segment_id(name)).collect();
    ids.sort_unstable();

    let mut scan = Scan::new(mark, replay);
    let mut headers = Vec::new();
    for id in &ids {
        headers.push(scan.read_header(disk, *id)?);
    }
    let first_header = headers.iter().flatten().next();
    let Some(store_id) = mark.map(|mark| mark.store_id).or(first_header.map(|header| header.store_id)) else {
        // Without a mark there is nothing to go on from if no header is whole.
        return scan.losses.drain(..).next().map_or(Ok(None), |loss| Err(RecoveryError::Lost(loss)));
    };
    if let (Some(mark), true, OnLoss::Refuse) = (mark, ids.is_empty(), on_loss) {
        return Err(RecoveryError::MarkWithoutLog { sequence: mark.sequence });
    }
    let mut segment = Vec::new();
    for (at, id) in ids.iter().enumerate() {
        match &headers[at] {
            Some(header) if header.store_id == store_id => {
                scan.read_segment(disk, header, &headers[at + 1..], &mut segment)?;
            }
            Some(_) => scan.lose(*id, 0, "it belongs to another store".to_owned()),
            None => {}
        }
        scan.segments.push((*id, scan.last_sequence));
    }
    scan.finish(store_id, &ids, mark, on_loss).map(Some)
}

/// The state of one pass over the log.
struct Scan<F> {
    replay: F,
    mark_sequence: u64,
    /// The highest sequence replayed, or the mark's.
    last_sequence: u64,
    /// The highest sequence that any header or frame speaks of.
    log_end: u64,
    newest: Option<WriteTime>,
    last_frame: Vec<Record>,
    last_frame_first: u64,
    segments: Vec<(u64, u64)>,
    replayed: u64,
    warnings: Vec<String>,
    losses: Vec<Loss>,
}

impl<F: FnMut(&Record)> Scan<F> {
    fn new(mark: Option<&Mark>, replay: F) -> Self {
        let mark_sequence = mark.map_or(0, |mark| mark.sequence);
        Self {
            replay,
            mark_sequence,
            last_sequence: mark_sequence,
            log_end: 0,
            newest: mark.and_then(|mark| mark.newest),
            last_frame: Vec::new(),
            last_frame_first: 0,
            segments: Vec::new(),
            replayed: 0,
            warnings: Vec::new(),
            losses: Vec::new(),
        }
    }

    fn lose(&mut self, id: u64, offset: usize, what: String) {
        let loss = Loss { file: segment_name(id), offset: offset as u64, what, records_behind: 0 };
        self.losses.push(loss);
    }

    fn read_header<D: Disk>(&mut self, disk: &D, id: u64) -> Result<Option<SegmentHeader>, RecoveryError> {
        let in_file = |source| RecoveryError::Io { file: segment_name(id), source };
        let file = disk.open(&segment_name(id)).map_err(in_file)?;
        let length = disk.length(&file).map_err(in_file)?;
        let mut block = [0; BLOCK];
        if length < BLOCK as u64 {
            self.lose(id, 0, "the file is shorter than a header".to_owned());
            return Ok(None);
        }
        disk.read_at(&file, &mut block, 0).map_err(in_file)?;
        match SegmentHeader::decode(&block) {
            Ok(header) if header.id == id => {
                if length < header.segment_bytes {
                    let what = format!("the file ends here, {} bytes early", header.segment_bytes - length);
                    self.lose(id, usize::try_from(length).unwrap_or(usize::MAX), what);
                }
                Ok(Some(header))
            }
            Ok(header) => {
                self.lose(id, 0, format!("its header is that of {}", segment_name(header.id)));
                Ok(None)
            }
            Err(BadHeader::Damaged) => {
                self.lose(id, 0, "its header does not match its checksum".to_owned());
                Ok(None)
            }
            Err(BadHeader::Version(version)) => Err(RecoveryError::NewerFormat { file: segment_name(id), version }),
        }
    }

    fn read_segment<D: Disk>(
        &mut self,
        disk: &D,
        header: &SegmentHeader,
        later: &[Option<SegmentHeader>],
        segment: &mut Vec<u8>,
    ) -> Result<(), RecoveryError> {
        let in_file = |source| RecoveryError::Io { file: segment_name(header.id), source };
        let file = disk.open(&segment_name(header.id)).map_err(in_file)?;
        let length = disk.length(&file).map_err(in_file)?.min(header.segment_bytes);
        segment.resize(usize::try_from(length).unwrap_or(usize::MAX), 0);
        disk.read_at(&file, segment, 0).map_err(in_file)?;

        self.expect_sequence(header.id, 0, header.first_sequence);
        let mut at = BLOCK;
        // Where the run of blocks that are no frames began, and where in it a frame was begun and not finished.
        let mut gap_since = None;
        let mut torn_since = None;
        let mut is_first_frame = true;
        let mut seal = None;
        while at + BLOCK <= segment.len() && seal.is_none() {
            let blocks = match read_block(&segment[at..], header.salt) {
                Block::Frame { first_sequence, records, blocks } => {
                    self.read_frame(header.id, at, gap_since.take(), is_first_frame, first_sequence, records);
                    torn_since = None;
                    is_first_frame = false;
                    blocks
                }
                Block::Seal { next_sequence, successor, successor_salt } => {
                    self.expect_sequence(header.id, gap_since.unwrap_or(at), next_sequence);
                    seal = Some((at, successor, successor_salt));
                    1
                }
                // Behind the last frame that is no news; before a later one it is damage, noticed there.
                nothing_whole => {
                    gap_since.get_or_insert(at);
                    if nothing_whole == Block::Broken {
                        torn_since.get_or_insert(at);
                    }
                    1
                }
            };
            at += blocks * BLOCK;
        }
        if let Some((at, successor, salt)) = seal {
            self.follow_seal(header.id, at, successor, salt, later);
        } else if let Some(torn) = torn_since {
            let bytes = segment.len() - torn;
            self.warnings.push(format!(
                "{} ends in a frame that was never finished (offset {torn}, {bytes} bytes to the end of the file); \
                 nothing of it was acknowledged",
                segment_name(header.id)
            ));
        }
        Ok(())
    }

    /// The log says that everything below this sequence stands before this place.
    fn expect_sequence(&mut self, id: u64, offset: usize, next: u64) {
        self.log_end = self.log_end.max(next.saturating_sub(1));
        if next > self.last_sequence + 1 {
            let (from, to) = (self.last_sequence + 1, next - 1);
            self.lose(id, offset, format!("the records with sequences {from} to {to} are missing before it"));
            self.last_sequence = to;
        }
    }

    fn read_frame(
        &mut self,
        id: u64,
        at: usize,
        damaged_from: Option<usize>,
        is_first_of_segment: bool,
        first_sequence: u64,
        bytes: &[u8],
    ) {
        let (chunks, _) = bytes.as_chunks::<{ Record::BYTES }>();
        let end = first_sequence + chunks.len() as u64 - 1;
        self.log_end = self.log_end.max(end);
        for loss in &mut self.losses {
            loss.records_behind += chunks.len() as u64;
        }
        if end <= self.mark_sequence {
            if let Some(from) = damaged_from {
                self.warnings.push(format!(
                    "{} is damaged at offset {from}; the base already has what stood there",
                    segment_name(id)
                ));
            }
            return;
        }
        if end <= self.last_sequence {
            // Logged again by the recovery that opened this segment; the newer copy is the one that was synced.
            let is_repetition = is_first_of_segment && first_sequence == self.last_frame_first;
            if !is_repetition {
                self.lose(id, at, format!("the frame of sequence {first_sequence} stands there a second time"));
            }
            return;
        }
        if first_sequence <= self.last_sequence {
            self.lose(id, at, format!("the frame of sequence {first_sequence} overlaps the one before it"));
            return;
        }
        self.expect_sequence(id, damaged_from.unwrap_or(at), first_sequence);
        self.last_frame.clear();
        self.last_frame_first = first_sequence;
        for chunk in chunks {
            match Record::decode(chunk) {
                Ok(record) => {
                    (self.replay)(&record);
                    self.newest = self.newest.max(Some(record.row.write_time));
                    self.last_frame.push(record);
                    self.replayed += 1;
                }
                Err(_) => self.lose(id, at, "a record in it is not one that this version writes".to_owned()),
            }
        }
        self.last_sequence = end;
    }

    fn follow_seal(&mut self, id: u64, at: usize, successor: u64, salt: u64, later: &[Option<SegmentHeader>]) {
        match later.iter().flatten().find(|header| header.id == successor) {
            Some(header) if header.salt == salt => {}
            Some(header) => {
                self.lose(header.id, 0, format!("it is not the segment that {} was sealed for", segment_name(id)));
            }
            // The successor may be drained and gone; what matters then is that later segments go on without a hole.
            None if !later.is_empty() => {}
            None => self.lose(id, at, format!("{}, which follows it, is missing", segment_name(successor))),
        }
    }

    fn finish(
        mut self,
        store_id: StoreId,
        ids: &[u64],
        mark: Option<&Mark>,
        on_loss: OnLoss,
    ) -> Result<Recovered, RecoveryError> {
        let last_id = ids.last().copied().unwrap_or(0);
        if mark.is_none() && self.replayed > 0 {
            match on_loss {
                OnLoss::Refuse => return Err(RecoveryError::LogWithoutMark),
                OnLoss::GoOn => self.lose(last_id, 0, RecoveryError::LogWithoutMark.to_string()),
            }
        }
        if self.log_end < self.mark_sequence {
            let (has, log_end) = (self.mark_sequence, self.log_end);
            self.lose(last_id, 0, format!("the log ends at sequence {log_end}, but the base holds up to {has}"));
        }
        if on_loss == OnLoss::Refuse && !self.losses.is_empty() {
            return Err(RecoveryError::Lost(self.losses.swap_remove(0)));
        }
        Ok(Recovered {
            store_id,
            next_segment: last_id + 1,
            last_sequence: self.last_sequence,
            newest: self.newest,
            last_frame: self.last_frame,
            segments: self.segments,
            replayed: self.replayed,
            warnings: self.warnings,
            losses: self.losses,
        })
    }
}
