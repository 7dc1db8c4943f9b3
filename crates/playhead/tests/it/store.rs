//! A store of known contents, in every state that a test of damage needs: rows that rest in the base, and frames of the
//! log, one record each, that are not drained yet. And the damage.

use crate::client::{Client, PATIENCE, PROGRESS, beat, token};
use crate::process::Launch;
use playhead_core::{Record, WriteTime};
use rustix::process::Signal;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

const USER: i64 = -3;

/// Titles 1 to this are in the base.
pub(crate) const DRAINED: u32 = 50;
/// Titles after those, each in a frame of its own that is not drained.
pub(crate) const UNDRAINED: u32 = 80;

/// The unit of the log's offsets, and what stands before a frame's records.
pub(crate) const BLOCK: u64 = 4096;
const FRAME_HEADER_BYTES: u64 = 32;

/// A store that no process uses.
pub(crate) struct Store {
    _parent: TempDir,
    pub(crate) launch: Launch,
    pub(crate) bearer: String,
}

fn position(title: u32) -> u32 {
    7 * title + 1
}

impl Store {
    /// Writes the base's part, ends well, which drains it, writes the log's part, and is killed.
    pub(crate) fn write() -> Self {
        let parent = tempfile::tempdir().unwrap();
        let launch = Launch::embedded(&parent.path().join("data"));
        let mut server = launch.start();
        let bearer = token(&launch.directory, USER);
        let write = |client: &mut Client, titles: std::ops::RangeInclusive<u32>| {
            for title in titles {
                assert_eq!(client.beat(&bearer, beat(title.into(), position(title))).status, 204);
            }
        };
        write(&mut server.connect(), 1..=DRAINED);
        server.signal(Signal::TERM);
        assert_eq!(server.wait(PATIENCE).status.code(), Some(0));
        // From here on nothing is drained before its time, but segments are full soon.
        let launch = launch.with(&["--freeze-bytes", "1000000000"]);
        let server = launch.start();
        write(&mut server.connect(), DRAINED + 1..=DRAINED + UNDRAINED);
        server.kill();
        Self { _parent: parent, launch, bearer }
    }

    /// Another store of the same contents.
    pub(crate) fn copy(&self) -> Self {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("data");
        copy_directory(&self.launch.directory, &directory);
        let launch = self.launch.clone().at(&directory);
        Self { _parent: parent, launch, bearer: self.bearer.clone() }
    }

    /// A segment with others before and behind it, its header's and its frames' places known.
    pub(crate) fn middle_segment(&self) -> PathBuf {
        let segments = self.launch.segments();
        assert!(segments.len() >= 5, "only {} segments", segments.len());
        segments[segments.len() / 2].clone()
    }

    /// The base's tables of rows: more than one, so that not all damage meets the newest mark.
    pub(crate) fn tables(&self) -> Vec<PathBuf> {
        let keyspaces = fs::read_dir(self.launch.directory.join("base/keyspaces")).unwrap();
        let mut keyspaces: Vec<_> = keyspaces.map(|keyspace| keyspace.unwrap().path()).collect();
        keyspaces.sort();
        // The first is the base's own list of keyspaces.
        let tables = fs::read_dir(keyspaces.last().unwrap().join("tables")).unwrap();
        let mut tables: Vec<_> = tables.map(|table| table.unwrap().path()).collect();
        tables.sort();
        assert!(tables.len() >= 2, "{tables:?}");
        tables
    }

    /// Reads every title back from a server over it: the titles that are not there, and those whose read was refused.
    /// A wrong value fails the test, as does a list with one.
    pub(crate) fn read_back(&self, client: &mut Client) -> ReadBack {
        let mut found = ReadBack::default();
        for title in 1..=DRAINED + UNDRAINED {
            let answer = client.get(&format!("{PROGRESS}/{title}"), Some(&self.bearer));
            if answer.status == 503 {
                found.refused.insert(title);
                continue;
            }
            assert_eq!(answer.status, 200, "{answer:?}");
            let bookmark = answer.json();
            if bookmark["state"] == "none" {
                found.absent.insert(title);
            } else {
                assert_eq!(bookmark["position_seconds"], f64::from(position(title)), "title {title}");
            }
        }
        let list = client.get(&format!("{PROGRESS}?limit=100"), Some(&self.bearer));
        match list.status {
            200 => {
                for item in list.json()["items"].as_array().unwrap() {
                    let title: u32 = item["movie_id"].as_str().unwrap().parse().unwrap();
                    assert_eq!(item["position_seconds"], f64::from(position(title)), "title {title} in the list");
                }
            }
            status => assert_eq!(status, 503, "{list:?}"),
        }
        found
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ReadBack {
    pub(crate) absent: BTreeSet<u32>,
    pub(crate) refused: BTreeSet<u32>,
}

/// The one title in the frame at this offset of a segment.
pub(crate) fn title_at(segment: &Path, offset: u64) -> u32 {
    let mut bytes = [0; Record::BYTES];
    fs::File::open(segment).unwrap().read_exact_at(&mut bytes, offset + FRAME_HEADER_BYTES).unwrap();
    u32::try_from(Record::decode(&bytes).unwrap().row.movie.0).unwrap()
}

/// Where a segment's last frame begins.
pub(crate) fn last_frame(segment: &Path) -> u64 {
    let bytes = fs::read(segment).unwrap();
    let frame = bytes.chunks(usize::try_from(BLOCK).unwrap()).rposition(|block| block.starts_with(b"FRAM"));
    frame.expect("a segment has a frame") as u64 * BLOCK
}

/// Dates the last record of a segment ahead, as if the clock had been ahead when it was written.
pub(crate) fn date_ahead(segment: &Path, by: Duration) {
    let mut bytes = fs::read(segment).unwrap();
    let frames = bytes.chunks_mut(usize::try_from(BLOCK).unwrap()).filter(|block| block.starts_with(b"FRAM"));
    let frame = frames.last().expect("a segment has a frame");
    let length = usize::try_from(u32::from_le_bytes(frame[8..12].try_into().unwrap())).unwrap();
    let last: &mut [u8; Record::BYTES] = (&mut frame[length - Record::BYTES..length]).try_into().unwrap();
    let mut record = Record::decode(last).unwrap();
    let micros = u64::try_from(by.as_micros()).unwrap();
    record.row.write_time = WriteTime::from_micros(record.row.write_time.micros() + micros);
    *last = record.encode();
    let crc = crc32c::crc32c(&frame[8..length]);
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
    fs::write(segment, bytes).unwrap();
}

/// Turns some bits of a byte.
pub(crate) fn flip(file: &Path, offset: u64) {
    let file = fs::File::options().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x55], offset).unwrap();
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

/// Something that keeps a store from being opened.
pub(crate) struct Damage {
    pub(crate) what: &'static str,
    /// Does it, and gives back what a message about it must say.
    pub(crate) inflict: fn(&Store) -> Vec<String>,
}

/// What both a start and a check must notice, with a line that names it.
pub(crate) const DAMAGES: [Damage; 8] = [
    Damage {
        what: "a newer format",
        inflict: |store| {
            let segment = store.middle_segment();
            let mut bytes = fs::read(&segment).unwrap();
            bytes[8..12].copy_from_slice(&9_u32.to_le_bytes());
            let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[8..12]), &bytes[16..72]);
            bytes[12..16].copy_from_slice(&crc.to_le_bytes());
            fs::write(&segment, bytes).unwrap();
            vec![name(&segment), "newer version".to_owned(), "format 9".to_owned(), "start that version".to_owned()]
        },
    },
    Damage {
        what: "a damaged segment header",
        inflict: |store| {
            let segment = store.middle_segment();
            flip(&segment, 40);
            vec![name(&segment), "offset 0 ".to_owned(), "checksum".to_owned(), "backup".to_owned()]
        },
    },
    Damage {
        what: "a damaged frame before later ones",
        inflict: |store| {
            let segment = store.middle_segment();
            flip(&segment, 2 * BLOCK + FRAME_HEADER_BYTES);
            vec![name(&segment), format!("offset {}", 2 * BLOCK), "missing".to_owned(), "--repair".to_owned()]
        },
    },
    Damage {
        what: "a segment cut short",
        inflict: |store| {
            let segment = store.middle_segment();
            fs::File::options().write(true).open(&segment).unwrap().set_len(2 * BLOCK).unwrap();
            vec![name(&segment), format!("offset {}", 2 * BLOCK), "the file ends here".to_owned(), "backup".to_owned()]
        },
    },
    Damage {
        what: "a missing segment",
        inflict: |store| {
            let segment = store.middle_segment();
            let segments = store.launch.segments();
            fs::remove_file(&segment).unwrap();
            // It is noticed at the next one.
            let next = segments.iter().find(|later| **later > segment).unwrap();
            vec![name(next), "offset 0 ".to_owned(), "missing".to_owned(), "--repair".to_owned()]
        },
    },
    Damage {
        what: "a base without its log",
        inflict: |store| {
            let log = store.launch.log_directory();
            fs::remove_dir_all(&log).unwrap();
            vec![log.display().to_string(), "missing".to_owned(), "backup".to_owned(), "--repair".to_owned()]
        },
    },
    Damage {
        what: "a log without its base",
        inflict: |store| {
            let base = store.launch.directory.join("base");
            fs::remove_dir_all(&base).unwrap();
            vec![base.display().to_string(), "missing".to_owned(), "backup".to_owned()]
        },
    },
    Damage {
        what: "a base whose table has lost its end",
        inflict: |store| {
            let table = store.tables().remove(0);
            let length = fs::metadata(&table).unwrap().len();
            fs::File::options().write(true).open(&table).unwrap().set_len(length - 100).unwrap();
            vec![store.launch.directory.join("base").display().to_string(), "backup".to_owned()]
        },
    },
];

/// Every name below a directory, and what is in it; lock files, which have no contents, are left out.
pub(crate) fn contents(directory: &Path) -> BTreeMap<PathBuf, Option<u64>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.insert(path.clone(), None);
            found.append(&mut contents(&path));
        } else if path.file_name().is_none_or(|name| name != "LOCK") {
            let mut hasher = DefaultHasher::new();
            hasher.write(&fs::read(&path).unwrap());
            found.insert(path, Some(hasher.finish()));
        }
    }
    found
}

fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let copy = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_directory(&path, &copy);
        } else {
            fs::copy(&path, &copy).unwrap();
        }
    }
}
