//! The embedded store as a whole against the suite of all stores; and damage to the log, at the face of recovery: what
//! is refused, what is a warning, and that nothing is ever invented.

use super::base::{Base, BaseOptions, Expiry, ModelBase};
use super::committer::Committer;
use super::disk::Disk;
use super::log::{BLOCK, SPARES_KEPT, SegmentHeader, segment_id};
use super::recovery::{OnLoss, Recovered, RecoveryError, recover};
use super::simulated::{Sabotage, SimDisk};
use super::{Chance, Embedded, EmbeddedOptions, Opened, Places, open_parts};
use crate::conformance::{self, Subject, TestClock};
use crate::store::Store;
use fastrand::Rng;
use playhead_core::{Change, MovieId, Position, Record, UserId, Write, WriteTime};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A log of several segments, none of it drained, and what was committed to it.
struct Written {
    disk: SimDisk,
    base: Base,
    records: Vec<Record>,
    last_frame: usize,
}

impl Written {
    /// Frames of 60 records: 3 segments of 4 frames, and one that has begun.
    fn new() -> Self {
        let disk = SimDisk::new(Sabotage::None);
        let base = Base::Model(ModelBase::new(Expiry::new(&BaseOptions {
            block_cache_bytes: 0,
            retention: None,
            barrier_life: Duration::from_secs(1 << 40),
            clock: Arc::new(TestClock::at_micros(1)),
        })));
        let mut written = Self { disk, base, records: Vec::new(), last_frame: 0 };
        let mut opened = written.open();
        for frame in 0..14 {
            while opened.segments.spare_count() < SPARES_KEPT {
                opened.segments.provide_spare().unwrap();
            }
            written.commit(&mut opened.committer, frame);
        }
        written
    }

    fn open(&self) -> Opened<SimDisk> {
        let options = EmbeddedOptions { segment_bytes: 24 << 10, ..EmbeddedOptions::at("simulated") };
        let chance = Chance { store_id: [7; 16], salt_seed: 1 };
        open_parts(self.disk.clone(), &self.base, &options, &Places::of(Path::new("simulated")), chance).unwrap()
    }

    fn commit(&mut self, committer: &mut Committer<SimDisk>, frame: i64) {
        let put = |movie| Change::Put {
            movie: MovieId(movie),
            position: Position::from_seconds(f64::from(u16::try_from(frame).unwrap())).unwrap(),
            duration: None,
        };
        let writes: Vec<Write> = (0..60).map(|movie| Write { user: UserId(frame), change: put(movie) }).collect();
        committer.commit(WriteTime::MIN, writes.iter()).unwrap();
        self.records.extend_from_slice(committer.last_records());
        self.last_frame = committer.last_records().len();
    }

    fn names(&self) -> Vec<String> {
        self.disk.list().unwrap().into_iter().filter(|name| segment_id(name).is_some()).collect()
    }

    fn change(&self, name: &str, offset: usize, change: impl FnOnce(&mut [u8])) {
        let file = self.disk.open(name).unwrap();
        let mut block = vec![0; BLOCK];
        let at = (offset - offset % BLOCK) as u64;
        self.disk.read_at(&file, &mut block, at).unwrap();
        change(&mut block[offset % BLOCK..]);
        self.disk.write_at(&file, &block, at).unwrap();
    }

    fn recover(&self, on_loss: OnLoss) -> (Result<Recovered, RecoveryError>, Vec<Record>) {
        let mut replayed = Vec::new();
        let mark = self.base.mark().unwrap();
        let recovered = recover(&self.disk, mark.as_ref(), on_loss, |record| replayed.push(*record));
        (recovered.map(|recovered| recovered.expect("there is a log")), replayed)
    }
}

#[test]
fn an_undamaged_log_gives_back_every_record_in_order() {
    let written = Written::new();
    assert_eq!(written.names().len(), 4);
    let (recovered, replayed) = written.recover(OnLoss::Refuse);
    let recovered = recovered.unwrap();
    assert_eq!(replayed, written.records);
    assert_eq!(recovered.last_frame, written.records[written.records.len() - written.last_frame..]);
    assert_eq!((recovered.warnings, recovered.losses), (Vec::new(), Vec::new()));
}

#[test]
fn what_is_damaged_before_valid_data_is_refused_with_its_place() {
    type Damage = fn(&Written, &[String]);
    let cases: [(&str, Damage, &str); 9] = [
        ("a bit of a record", |w, names| w.change(&names[1], 2 * BLOCK + 100, |b| b[0] ^= 1), "at offset 8192"),
        ("a frame's magic", |w, names| w.change(&names[1], 2 * BLOCK, |b| b[0] = 0), "at offset 8192"),
        ("a zeroed frame", |w, names| w.change(&names[0], BLOCK, |b| b.fill(0)), "at offset 4096"),
        ("a header", |w, names| w.change(&names[2], 20, |b| b[0] ^= 1), "its header does not match"),
        ("a missing segment", |w, names| w.disk.remove(&names[1]).unwrap(), "are missing"),
        ("the missing last segment", |w, names| w.disk.remove(&names[3]).unwrap(), "which follows it, is missing"),
        ("a segment under another name", |w, names| w.disk.rename(&names[0], &names[1]).unwrap(), "is that of"),
        ("another store's segment", |w, names| with_another_header(w, &names[1], 16), "belongs to another store"),
        ("the last frame before a seal", |w, names| w.change(&names[1], 4 * BLOCK, |b| b.fill(0)), "at offset 16384"),
    ];
    for (what, damage, expected) in cases {
        let written = Written::new();
        damage(&written, &written.names());
        let (recovered, _) = written.recover(OnLoss::Refuse);
        let refusal = recovered.expect_err(what).to_string();
        assert!(refusal.contains(expected), "{what}: {refusal}");
        // Told to go on, recovery gives back only what was written, and says what is lost.
        let (recovered, replayed) = written.recover(OnLoss::GoOn);
        assert!(!recovered.expect(what).losses.is_empty(), "{what}");
        assert!(replayed.iter().all(|record| written.records.contains(record)), "{what}");
    }
}

/// Changes a byte of a segment's header, and its checksum to fit.
fn with_another_header(written: &Written, name: &str, at: usize) {
    let file = written.disk.open(name).unwrap();
    let mut block = vec![0; BLOCK];
    written.disk.read_at(&file, &mut block, 0).unwrap();
    block[at] ^= 3;
    let crc = SegmentHeader::checksum(&block);
    block[12..16].copy_from_slice(&crc.to_le_bytes());
    written.disk.write_at(&file, &block, 0).unwrap();
}

#[test]
fn a_newer_format_is_refused_as_such_and_a_damaged_version_as_damage() {
    let written = Written::new();
    with_another_header(&written, &written.names()[3], 8);
    let (recovered, _) = written.recover(OnLoss::Refuse);
    assert!(matches!(recovered, Err(RecoveryError::NewerFormat { version: 2, .. })), "{recovered:?}");
    let written = Written::new();
    written.change(&written.names()[3], 8, |bytes| bytes[0] += 1);
    let (recovered, _) = written.recover(OnLoss::Refuse);
    assert!(!matches!(recovered, Ok(_) | Err(RecoveryError::NewerFormat { .. })), "{recovered:?}");
}

#[test]
fn a_torn_last_frame_is_one_warning() {
    let written = Written::new();
    let name = written.names().pop().unwrap();
    // The last segment holds two frames: offsets 4096 and 8192.
    written.change(&name, 2 * BLOCK + 500, |bytes| bytes[..100].fill(0xee));
    let (recovered, replayed) = written.recover(OnLoss::Refuse);
    let recovered = recovered.unwrap();
    assert_eq!(recovered.warnings.len(), 1, "{:?}", recovered.warnings);
    assert!(recovered.warnings[0].contains("offset 8192"), "{:?}", recovered.warnings);
    assert_eq!(replayed, written.records[..written.records.len() - written.last_frame]);
}

#[test]
fn damage_that_the_base_already_has_is_a_warning() {
    let mut written = Written::new();
    let mut opened = written.open();
    let job = opened.first_drain.take().unwrap();
    super::threads::drain_once(
        job,
        &opened.tables,
        &written.base,
        &[],
        WriteTime::MIN,
        // Segments that know of none: nothing is recycled, as if the process had ended before.
        &super::log::Segments::open(written.disk.clone(), 24 << 10, Vec::new()).unwrap(),
    )
    .unwrap();
    written.commit(&mut opened.committer, 100);
    written.change(&written.names()[1], 2 * BLOCK, |bytes| bytes[0] = 0);
    let (recovered, replayed) = written.recover(OnLoss::Refuse);
    let recovered = recovered.unwrap();
    assert_eq!(recovered.warnings.len(), 1, "{:?}", recovered.warnings);
    assert_eq!(replayed, written.records[written.records.len() - 60..]);
}

#[test]
fn a_base_without_its_log_and_a_log_without_its_base_are_refused() {
    let written = Written::new();
    for name in written.names() {
        written.disk.remove(&name).unwrap();
    }
    let (recovered, _) = written.recover(OnLoss::Refuse);
    assert!(matches!(recovered, Err(RecoveryError::MarkWithoutLog { .. })), "{recovered:?}");

    let written = Written::new();
    let recovered = recover(&written.disk, None, OnLoss::Refuse, |_| {});
    assert!(matches!(recovered, Err(RecoveryError::LogWithoutMark)), "{recovered:?}");
}

#[test]
fn damage_anywhere_is_refused_or_costs_the_last_frame_and_never_invents() {
    for seed in 0..300 {
        let mut random = Rng::with_seed(seed);
        let written = Written::new();
        let names = written.names();
        let name = &names[random.usize(..names.len())];
        let offset = random.usize(0..24 << 10);
        let length = [1, 8, 512, BLOCK][random.usize(..4)];
        let is_zeroed = random.bool();
        let flip = 1 << random.u8(0..8);
        written.change(name, offset, |bytes| {
            let length = length.min(bytes.len());
            bytes[..length].iter_mut().for_each(|byte| *byte = if is_zeroed { 0 } else { *byte ^ flip });
        });
        let (recovered, replayed) = written.recover(OnLoss::Refuse);
        if recovered.is_ok() {
            let all = written.records.len();
            let kept = replayed.len();
            assert!(kept == all || kept == all - written.last_frame, "seed {seed}: {kept} of {all} records");
            assert_eq!(replayed, written.records[..kept], "seed {seed}");
        }
    }
}

/// In memory where there is such a place: the suite opens hundreds of stores, and asks nothing of the disk.
fn quick_directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

#[test]
fn embedded_conforms() {
    conformance::run(8, |setup| {
        let directory = Arc::new(quick_directory());
        let options = EmbeddedOptions {
            retention: setup.retention,
            max_item_age: setup.max_item_age,
            segment_bytes: 64 << 10,
            freeze_bytes: 1 << 20,
            disk_reserve_bytes: 0,
            commit_window: Duration::ZERO,
            ..EmbeddedOptions::at(directory.path().join("data"))
        };
        let clock: Arc<TestClock> = Arc::clone(&setup.clock);
        let open = move || Arc::new(Embedded::open(options.clone(), clock.clone()).unwrap());
        let store = open();
        let current = Arc::new(Mutex::new(Some(Arc::clone(&store))));
        let disturbed = Arc::clone(&current);
        Subject {
            store,
            disturb: Some(Box::new(move |_| {
                if let Some(store) = &*disturbed.lock().unwrap() {
                    store.shared.mailbox.ask_for_freeze();
                }
            })),
            reopen: Some(Box::new(move || {
                // The directory lives for as long as the store may be opened again.
                let _ = &directory;
                let mut current = current.lock().unwrap();
                current.take().expect("a store is open").close().unwrap();
                let store: Arc<dyn Store> = Arc::<Embedded>::clone(current.insert(open()));
                store
            })),
        }
    });
}
