//! Data directories that a server must not start on: refused with one line that says what to do, and left as they are.
//! And a base with damage that only a read meets: refused reads, but never a wrong position.

use crate::client::{PROGRESS, beat, token};
use crate::process::{Launch, eventually, run, seed, skip, wait_for};
use crate::store::{BLOCK, DAMAGES, DRAINED, Store, UNDRAINED, contents, flip, last_frame};
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// A start ends with one line that says all of this, and changes nothing below this directory.
fn check_refused(what: &str, launch: &Launch, unchanged: &Path, says: &[String]) {
    let before = contents(unchanged);
    let Err(end) = launch.try_start() else { panic!("{what}: started") };
    assert!(matches!(end.status.code(), Some(1 | 2)), "{what}: {:?}", end.status);
    let lines: Vec<_> = end.stderr.lines().collect();
    assert!(matches!(lines[..], [line] if line.starts_with("error: ")), "{what}: not one line:\n{}", end.stderr);
    for words in says {
        assert!(lines[0].contains(words), "{what}: does not say {words:?}: {}", lines[0]);
    }
    assert_eq!(contents(unchanged), before, "{what}: the directory was changed");
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn a_damaged_store_is_refused_and_left_as_it_is() {
    let whole = Store::write();
    for damage in DAMAGES {
        let store = whole.copy();
        let says = (damage.inflict)(&store);
        check_refused(damage.what, &store.launch, &store.launch.directory, &says);
    }
    // The control: it is the damage that is refused.
    let store = whole.copy();
    let server = store.launch.start();
    let found = store.read_back(&mut server.connect());
    assert!(found.absent.is_empty() && found.refused.is_empty(), "{found:?}");
}

#[test]
fn a_directory_that_is_not_ours_is_refused_and_left_as_it_is() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("photos");
    fs::create_dir_all(directory.join("album")).unwrap();
    fs::write(directory.join("album/1.jpg"), "1").unwrap();
    let secret = parent.path().join("secret");
    fs::write(&secret, "x".repeat(32)).unwrap();
    let file = directory.join("album/1.jpg");
    let flags: [&[&str]; 2] = [&["--dev"], &["--jwt-secret-file", secret.to_str().unwrap()]];
    for flags in flags {
        let says = words(&["photos", "no Playhead store", "--data-dir"]);
        check_refused("not ours", &Launch::new(&directory, flags), parent.path(), &says);
        let says = words(&["1.jpg", "Not a directory", "--data-dir"]);
        check_refused("a file", &Launch::new(&file, flags), parent.path(), &says);
        check_refused("below a file", &Launch::new(&file.join("data"), flags), parent.path(), &says);
    }
}

#[test]
fn a_second_server_is_refused_and_the_first_goes_on() {
    let store = Store::write();
    let server = store.launch.start();
    // What was replayed is drained first; then the directory rests.
    let drains = || server.metric("playhead_store_drains_total");
    eventually("the replayed log is drained", || drains() == 1);
    let mut last = contents(&store.launch.directory);
    eventually("the directory rests", || {
        wait_for(Duration::from_millis(200));
        let now = contents(&store.launch.directory);
        std::mem::replace(&mut last, now.clone()) == now
    });
    let says = words(&["in use by another process", "--data-dir"]);
    check_refused("a second server", &store.launch, &store.launch.directory, &says);
    let bearer = token(&store.launch.directory, 7);
    let mut client = server.connect();
    assert_eq!(client.beat(&bearer, beat(1, 2)).status, 204);
    assert_eq!(client.get(&format!("{PROGRESS}/1"), Some(&bearer)).json()["position_seconds"], 2.0);
    let found = store.read_back(&mut client);
    assert!(found.absent.is_empty() && found.refused.is_empty(), "{found:?}");
}

/// A directory that may not be written; as it was when dropped.
struct ReadOnly {
    directory: PathBuf,
    is_mounted: bool,
}

impl ReadOnly {
    /// By its mode; or, for a user who may write whatever the mode says, by a mount. `None` where neither helps.
    fn make(directory: &Path) -> Option<Self> {
        let is_writable = || {
            let probe = directory.join("probe");
            fs::write(&probe, "").and_then(|()| fs::remove_file(&probe)).is_ok()
        };
        fs::set_permissions(directory, fs::Permissions::from_mode(0o500)).unwrap();
        let mut this = Self { directory: directory.to_owned(), is_mounted: false };
        if is_writable() {
            this.is_mounted = mount(&["--bind".as_ref(), directory.as_ref(), directory.as_ref()]);
            let _ = this.is_mounted && mount(&["-o".as_ref(), "remount,ro,bind".as_ref(), directory.as_ref()]);
        }
        (!is_writable()).then_some(this)
    }
}

fn mount(arguments: &[&std::ffi::OsStr]) -> bool {
    Command::new("mount").args(arguments).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        if self.is_mounted {
            let _ = Command::new("umount").arg("-l").arg(&self.directory).status();
        }
        let _ = fs::set_permissions(&self.directory, fs::Permissions::from_mode(0o700));
    }
}

#[test]
fn without_leave_to_write_nothing_starts() {
    let test = "without_leave_to_write_nothing_starts";
    let parent = tempfile::tempdir().unwrap();
    let empty = parent.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let store = Store::write();
    let secret = parent.path().join("secret");
    fs::write(&secret, "x".repeat(32)).unwrap();
    let with_secret = ["--jwt-secret-file", secret.to_str().unwrap()];
    let (Some(_empty), Some(_store)) = (ReadOnly::make(&empty), ReadOnly::make(&store.launch.directory)) else {
        return skip(test, "needs a user whom modes hold back, or leave to mount");
    };
    let cases = [
        ("an empty directory, --dev", Launch::new(&empty, &["--dev"])),
        ("an empty directory", Launch::new(&empty, &with_secret)),
        ("below an empty directory, --dev", Launch::new(&empty.join("data"), &["--dev"])),
        ("below an empty directory", Launch::new(&empty.join("data"), &with_secret)),
        ("a store, --dev", store.launch.clone()),
        ("a store", Launch::new(&store.launch.directory, &with_secret)),
    ];
    for (what, launch) in cases {
        check_refused(what, &launch, launch.directory.parent().unwrap(), &words(&["--data-dir"]));
    }
}

#[test]
fn a_damaged_log_is_refused_by_its_place_and_only_a_torn_tail_is_cut() {
    const ROUNDS: usize = 24;
    let whole = Store::write();
    let mut rng = fastrand::Rng::with_seed(seed());
    let mut refused = 0;
    let store = whole.copy();
    let last = store.launch.segments().pop().unwrap();
    flip(&last, last_frame(&last) + 40);
    let server = store.launch.start();
    let found = store.read_back(&mut server.connect());
    assert_eq!(found.absent, [DRAINED + UNDRAINED].into(), "a torn tail is cut, and nothing else");
    drop(server);
    for round in 0..ROUNDS {
        let store = whole.copy();
        let segments = store.launch.segments();
        // By chance the last one would be met too seldom.
        let place = if round % 3 == 0 { segments.len() - 1 } else { rng.usize(..segments.len()) };
        let is_last = place == segments.len() - 1;
        let segment = &segments[place];
        let blocks = fs::metadata(segment).unwrap().len() / BLOCK;
        // In a block, the rest is padding.
        let offset = rng.u64(..blocks) * BLOCK + rng.u64(..70);
        let file = fs::File::options().write(true).open(segment).unwrap();
        let what = match round % 4 {
            0 | 1 => {
                flip(segment, offset);
                format!("byte {offset} flipped in {}", segment.display())
            }
            2 => {
                file.write_all_at(&vec![0; usize::try_from(BLOCK).unwrap()], offset / BLOCK * BLOCK).unwrap();
                format!("the block of byte {offset} zeroed in {}", segment.display())
            }
            _ => {
                file.set_len(offset).unwrap();
                format!("cut at {offset}: {}", segment.display())
            }
        };
        match store.launch.try_start() {
            Ok(server) => {
                let found = store.read_back(&mut server.connect());
                assert!(found.refused.is_empty(), "{what}: {found:?}");
                let absent = u32::try_from(found.absent.len()).unwrap();
                let last_titles = (DRAINED + UNDRAINED - absent + 1..=DRAINED + UNDRAINED).collect();
                assert_eq!(found.absent, last_titles, "{what}: what is lost is not the tail");
                assert!(absent == 0 || is_last, "{what}: {absent} titles are lost without a word");
                server.kill();
            }
            Err(end) => {
                assert_eq!(end.status.code(), Some(1), "{what}: {}", end.stderr);
                let is_clear = end.stderr.lines().count() == 1 && end.stderr.contains("offset ");
                assert!(is_clear && end.stderr.contains(".log"), "{what}: {}", end.stderr);
                refused += 1;
            }
        }
    }
    println!("{refused} of {ROUNDS} refused");
    assert!(refused > 0, "no start met the damage");
}

#[test]
fn a_damaged_base_refuses_reads_or_the_start_and_never_gives_a_wrong_position() {
    let whole = Store::write();
    let mut rng = fastrand::Rng::with_seed(seed());
    let mut refused_reads = 0;
    for place in 0..whole.tables().len() {
        // The first rows; and anywhere: a table has a directory and filters too.
        for is_of_rows in [true, false] {
            let store = whole.copy();
            let table = store.tables().swap_remove(place);
            let length = fs::metadata(&table).unwrap().len();
            let offset = if is_of_rows { 100 } else { rng.u64(..length) };
            let what = format!("{}, byte {offset} of {length}", table.display());
            flip(&table, offset);
            if is_of_rows {
                let data = store.launch.directory.to_str().unwrap();
                let ended = run(&["check", "--data-dir", data]);
                assert_eq!(ended.code, Some(1), "{what}: {ended:?}");
                assert!(format!("{ended:?}").contains(&format!("{data}/base")), "{what}: {ended:?}");
            }
            match store.launch.try_start() {
                Ok(server) => {
                    let found = store.read_back(&mut server.connect());
                    assert!(found.absent.is_empty(), "{what}: {found:?} is none instead of refused");
                    refused_reads += found.refused.len();
                    server.kill();
                }
                Err(end) => {
                    assert_eq!(end.status.code(), Some(1), "{what}: {}", end.stderr);
                    let is_clear = end.stderr.lines().count() == 1 && end.stderr.contains("backup");
                    assert!(is_clear, "{what}: {}", end.stderr);
                }
            }
        }
    }
    assert!(refused_reads > 0, "no read met the damage");
}
