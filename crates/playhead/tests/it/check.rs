//! `playhead check`: what it finds, that it changes nothing, and that a repair keeps everything that is whole.

use crate::process::{Ended, eventually, run};
use crate::store::{BLOCK, DAMAGES, DRAINED, Store, UNDRAINED, contents, flip, title_at};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;

/// Both ways to print.
const FORMATS: [&[&str]; 2] = [&[], &["--output", "json"]];

/// Runs `check` over a store, with these flags.
fn check(store: &Store, flags: &[&str]) -> Ended {
    let data = store.launch.directory.to_str().unwrap();
    run(&[&["check", "--segment-bytes", "65536", "--data-dir", data], flags].concat())
}

/// The same, and nothing below the directory changes.
fn check_unchanged(what: &str, store: &Store, flags: &[&str]) -> Ended {
    let before = contents(&store.launch.directory);
    let ended = check(store, flags);
    assert_eq!(contents(&store.launch.directory), before, "{what}: the directory was changed");
    ended
}

fn parse(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
}

#[test]
fn a_whole_store_is_whole_and_counted() {
    let store = Store::write();
    let segments = store.launch.segments().len();
    let ended = check_unchanged("a whole store", &store, &[]);
    let text = format!(
        "log: {segments} segments, {UNDRAINED} records not yet in the base\n\
         base: {DRAINED} rows, 0 barriers\nall is whole\n"
    );
    assert_eq!((ended.code, ended.stdout.as_str(), ended.stderr.as_str()), (Some(0), text.as_str(), ""));
    // There is nothing to repair.
    let forms: [&[&str]; 2] = [&["--output", "json"], &["--output", "json", "--repair"]];
    for flags in forms {
        let ended = check_unchanged("a whole store", &store, flags);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let expected = json!({
            "segments": segments, "records_to_replay": UNDRAINED, "rows": DRAINED, "barriers": 0,
            "warnings": [], "problems": [], "set_aside": null,
        });
        assert_eq!(parse(&ended), expected);
    }
}

#[test]
fn damage_is_named_and_left_as_it_is() {
    let whole = Store::write();
    for damage in DAMAGES {
        let store = whole.copy();
        let says = (damage.inflict)(&store);
        for flags in FORMATS {
            let ended = check_unchanged(damage.what, &store, flags);
            assert_eq!(ended.code, Some(1), "{}: {ended:?}", damage.what);
            let said = format!("{}{}", ended.stdout, ended.stderr);
            for words in &says {
                assert!(said.contains(words), "{}: does not say {words:?}: {said}", damage.what);
            }
            let errors = ended.stderr.lines().filter(|line| line.starts_with("error: ")).count();
            assert_eq!((errors, ended.stderr.lines().count()), (1, 1), "{}: {said}", damage.what);
            if !flags.is_empty() && !ended.stdout.is_empty() {
                assert!(!parse(&ended)["problems"].as_array().unwrap().is_empty(), "{}: {said}", damage.what);
            }
        }
    }
}

/// Repairs, and gives back the titles that are lost; everything else is there.
fn check_repaired(what: &str, store: &Store) -> BTreeSet<u32> {
    let directory = &store.launch.directory;
    let segments: Vec<_> =
        store.launch.segments().into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    let ended = check(store, &["--repair", "--output", "json"]);
    assert_eq!(ended.code, Some(0), "{what}: {ended:?}");
    let aside = directory.join(parse(&ended)["set_aside"].as_str().expect("a place for what was"));
    assert!(aside.file_name().unwrap().to_str().unwrap().starts_with("damaged-"), "{what}: {}", aside.display());
    assert_eq!(fs::read_dir(&aside).unwrap().count(), segments.len(), "{what}");
    for (path, bytes) in &segments {
        let kept = fs::read(aside.join(path.file_name().unwrap())).unwrap();
        assert!(kept == *bytes, "{what}: {} was not kept byte for byte", path.display());
    }
    // What the repair has replaced in the base, the base removes when it is opened next.
    assert_eq!(check(store, &[]).code, Some(0), "{what}");
    let ended = check_unchanged(what, store, &[]);
    assert_eq!(ended.code, Some(0), "{what}: {ended:?}");
    assert!(ended.stdout.ends_with("all is whole\n"), "{what}: {ended:?}");

    let server = store.launch.start();
    let found = store.read_back(&mut server.connect());
    assert!(found.refused.is_empty(), "{what}: {found:?}");
    server.kill();
    // And once more, from what that start has made of it.
    let server = store.launch.start();
    assert_eq!(store.read_back(&mut server.connect()), found, "{what}");
    found.absent
}

#[test]
fn a_repair_keeps_all_that_is_whole_and_the_damaged_files_aside() {
    let whole = Store::write();
    let segment = whole.middle_segment();
    let in_segment: BTreeSet<u32> = (1..15).map(|frame| title_at(&segment, frame * BLOCK)).collect();
    assert_eq!(in_segment.len(), 14, "a full segment has 14 frames");

    let store = whole.copy();
    let titles = [2, 5].map(|frame| {
        flip(&store.middle_segment(), frame * BLOCK + 40);
        title_at(&segment, frame * BLOCK)
    });
    assert_eq!(check_repaired("two damaged frames", &store), BTreeSet::from(titles));

    let store = whole.copy();
    flip(&store.middle_segment(), 40);
    assert_eq!(check_repaired("a damaged header", &store), in_segment);

    let store = whole.copy();
    fs::remove_file(store.middle_segment()).unwrap();
    assert_eq!(check_repaired("a missing segment", &store), in_segment);

    let store = whole.copy();
    fs::remove_dir_all(store.launch.log_directory()).unwrap();
    let of_the_log: BTreeSet<u32> = (DRAINED + 1..=DRAINED + UNDRAINED).collect();
    assert_eq!(check_repaired("a missing log", &store), of_the_log);
}

#[test]
fn a_base_that_is_damaged_or_gone_is_not_repaired() {
    let whole = Store::write();
    let store = whole.copy();
    for table in store.tables() {
        flip(&table, 100);
    }
    let ended = check_unchanged("a damaged base", &store, &["--repair"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("backup"), "{ended:?}");

    let store = whole.copy();
    fs::remove_dir_all(store.launch.directory.join("base")).unwrap();
    let ended = check_unchanged("a missing base", &store, &["--repair"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("backup"), "{ended:?}");
}

#[test]
fn a_store_in_use_or_none_at_all_is_not_checked() {
    let store = Store::write();
    let server = store.launch.start();
    eventually("the replayed log is drained", || server.metric("playhead_store_drains_total") == 1);
    let forms: [&[&str]; 2] = [&[], &["--repair"]];
    for flags in forms {
        let ended = check(&store, flags);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{ended:?}");
        assert!(ended.stderr.contains("in use by another process"), "{ended:?}");
    }
    let found = store.read_back(&mut server.connect());
    assert!(found.absent.is_empty() && found.refused.is_empty(), "{found:?}");

    let parent = tempfile::tempdir().unwrap();
    let photos = parent.path().join("photos");
    fs::create_dir(&photos).unwrap();
    fs::write(photos.join("1.jpg"), "1").unwrap();
    let before = contents(parent.path());
    for name in ["photos", "photos/1.jpg", "absent"] {
        let ended = run(&["check", "--repair", "--data-dir", parent.path().join(name).to_str().unwrap()]);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{name}: {ended:?}");
        assert!(ended.stderr.contains("no Playhead store") && ended.stderr.contains("--data-dir"), "{ended:?}");
        assert_eq!(contents(parent.path()), before, "{name}");
    }
}
