//! Both bases, by one table of cases; and what fjall alone can do: damage, reopening, compaction.

use super::*;
use crate::store::embedded::testing::{EDGES, START, on_both_bases, options, row, start_clock};
use std::fs;
use tempfile::TempDir;

const DAY: Duration = Duration::from_secs(86_400);

fn mark(sequence: u64) -> Mark {
    Mark { store_id: [3; 16], sequence, newest: Some(WriteTime::from_micros(START)), version: 1 }
}

fn at(micros: u64) -> WriteTime {
    WriteTime::from_micros(micros)
}

fn title(user: i64, movie: i64, to: Option<BaseTitle>) -> BaseEdit {
    BaseEdit::Title { user: UserId(user), movie: MovieId(movie), to }
}

fn a_row(movie: i64, micros: u64) -> BaseTitle {
    BaseTitle::Row(row(movie, 1.0, Some(2.0), micros))
}

fn ingest(base: &Base, sequence: u64, edits: &[BaseEdit]) -> Result<u64, BaseError> {
    base.ingest(edits.iter().copied().map(Ok), &mark(sequence))
}

/// Everything stored, whether expired or not.
fn stored_keys(base: &Base) -> usize {
    base.view().unwrap().range((Bound::Unbounded, Bound::Unbounded)).collect::<Result<Vec<_>, _>>().unwrap().len()
}

#[test]
fn what_was_ingested_is_read_whatever_the_ids() {
    let clock = start_clock();
    on_both_bases(&options(&clock), |base| {
        assert_eq!(base.mark().unwrap(), None);
        let mut edits = Vec::new();
        for user in EDGES {
            edits.push(BaseEdit::Erasure { user: UserId(user), to: Some(at(START - 10)) });
            edits.extend(EDGES.map(|movie| title(user, movie, Some(a_row(movie, START)))));
        }
        assert_eq!(ingest(&base, 9, &edits).unwrap(), 30);
        assert_eq!(base.mark().unwrap(), Some(mark(9)));
        for user in EDGES.map(UserId) {
            let titles: Vec<_> = EDGES.map(|movie| (MovieId(movie), a_row(movie, START))).to_vec();
            let found = base.user(user).unwrap();
            assert_eq!(found, BaseUser { erased: Some(at(START - 10)), titles });
            let asked = [MovieId(7), MovieId(i64::MAX), MovieId(-1)];
            let titles = vec![None, Some(a_row(i64::MAX, START)), Some(a_row(-1, START))];
            let found = base.bookmarks(user, &asked).unwrap();
            assert_eq!(found, BaseRows { erased: Some(at(START - 10)), titles });
        }
        assert_eq!(base.user(UserId(2)).unwrap(), BaseUser { erased: None, titles: vec![] });
        assert!(base.l0_tables() <= 1 && base.l0_tables() < L0_TABLES_MAX, "one ingestion, one table");
        assert_eq!(base.verify(|_| {}).unwrap(), Verified { rows: 25, barriers: 5 });
    });
}

#[test]
fn later_edits_win_and_tombstones_remove() {
    let clock = start_clock();
    on_both_bases(&options(&clock), |base| {
        ingest(&base, 1, &[title(1, 1, Some(a_row(1, START))), title(1, 2, Some(a_row(2, START)))]).unwrap();
        ingest(&base, 2, &[title(1, 1, None), title(1, 2, Some(BaseTitle::Forgotten(at(START + 1))))]).unwrap();
        let titles = vec![(MovieId(2), BaseTitle::Forgotten(at(START + 1)))];
        assert_eq!(base.user(UserId(1)).unwrap(), BaseUser { erased: None, titles });
        base.compact();
        assert_eq!(base.title(UserId(1), MovieId(1)).unwrap(), None);
        assert_eq!(stored_keys(&base), 2);
        assert_eq!(base.mark().unwrap().unwrap().sequence, 2);
    });
}

#[test]
fn edits_out_of_order_are_refused_and_change_nothing() {
    let clock = start_clock();
    let erasure = |user| BaseEdit::Erasure { user: UserId(user), to: None };
    let put = |user, movie| title(user, movie, Some(a_row(movie, START)));
    let cases = [
        vec![put(1, 2), put(1, 1)],
        vec![put(1, 2), put(1, 2)],
        vec![put(1, i64::MIN), erasure(1)],
        vec![put(2, 0), put(1, 1)],
        vec![put(2, 0), put(-1, 1)],
    ];
    on_both_bases(&options(&clock), |base| {
        for edits in &cases {
            assert!(matches!(ingest(&base, 1, edits), Err(BaseError::OutOfOrder)), "{edits:?}");
        }
        let broken = [Ok(put(1, 1)), Err(BaseError::Damaged("a test"))];
        assert!(matches!(base.ingest(broken.into_iter(), &mark(1)), Err(BaseError::Damaged("a test"))));
        assert_eq!((base.mark().unwrap(), stored_keys(&base)), (None, 0));
        ingest(&base, 2, &[erasure(1), put(1, i64::MIN), put(1, 1)]).unwrap();
        assert_eq!(stored_keys(&base), 3, "two titles and the mark");
    });
}

#[test]
fn what_has_expired_is_neither_shown_nor_kept() {
    let clock = start_clock();
    let options = BaseOptions { retention: Some(2 * DAY), barrier_life: DAY, ..options(&clock) };
    on_both_bases(&options, |base| {
        let start = clock.now().micros();
        let edits = [
            BaseEdit::Erasure { user: UserId(1), to: Some(at(start)) },
            title(1, 1, Some(a_row(1, start))),
            title(1, 2, Some(BaseTitle::Forgotten(at(start)))),
        ];
        ingest(&base, 1, &edits).unwrap();
        let shown = |base: &Base| {
            let user = base.user(UserId(1)).unwrap();
            let rows = base.bookmarks(UserId(1), &[MovieId(1), MovieId(2)]).unwrap();
            assert_eq!(user.erased, rows.erased);
            assert_eq!(user.titles.len(), rows.titles.iter().flatten().count());
            (user.erased.is_some(), user.titles.len())
        };
        assert_eq!((shown(&base), stored_keys(&base)), ((true, 2), 4));
        clock.advance(DAY);
        assert_eq!((shown(&base), stored_keys(&base)), ((false, 1), 4), "barriers are past their life");
        base.compact();
        assert_eq!((shown(&base), stored_keys(&base)), ((false, 1), 2));
        clock.advance(DAY);
        assert_eq!((shown(&base), stored_keys(&base)), ((false, 0), 2), "the row is past the retention");
        base.compact();
        assert_eq!((shown(&base), stored_keys(&base)), ((false, 0), 1), "the mark stays for ever");
    });
}

#[test]
fn an_expired_barrier_does_not_bring_back_what_it_barred() {
    let clock = start_clock();
    let options = BaseOptions { barrier_life: DAY, ..options(&clock) };
    on_both_bases(&options, |base| {
        let start = clock.now().micros();
        ingest(&base, 1, &[title(1, 1, Some(a_row(1, start)))]).unwrap();
        ingest(&base, 2, &[title(1, 1, Some(BaseTitle::Forgotten(at(start + 1))))]).unwrap();
        clock.advance(2 * DAY);
        for _ in 0..3 {
            assert_eq!(base.title(UserId(1), MovieId(1)).unwrap(), None);
            assert_eq!(base.user(UserId(1)).unwrap().titles, []);
            base.compact();
        }
        assert_eq!(stored_keys(&base), 1, "the mark");
    });
}

#[test]
fn a_base_on_disk_is_found_again() {
    let directory = TempDir::new().unwrap();
    let clock = start_clock();
    for sequence in 1..4i64 {
        let base = Base::open(&directory.path().join("base"), &options(&clock)).unwrap();
        let found = base.mark().unwrap().map(|mark| mark.sequence);
        assert_eq!(found, (sequence > 1).then_some(sequence.cast_unsigned() - 1));
        assert_eq!(base.user(UserId(1)).unwrap().titles.len(), usize::try_from(sequence).unwrap() - 1);
        ingest(&base, sequence.cast_unsigned(), &[title(1, sequence, Some(a_row(sequence, START)))]).unwrap();
    }
}

#[test]
fn a_foreign_value_is_an_error_and_survives_compaction() {
    let clock = start_clock();
    let directory = TempDir::new().unwrap();
    let options = BaseOptions { retention: Some(DAY), ..options(&clock) };
    let base = Base::open(&directory.path().join("base"), &options).unwrap();
    let Base::Fjall(inner) = &base else { unreachable!("opened on disk") };
    let mut ingestion = inner.keyspace.start_ingestion().unwrap();
    ingestion.write(title_key(UserId(1), MovieId(1)), [0; VALUE_BYTES]).unwrap();
    ingestion.write(title_key(UserId(1), MovieId(2)), a_row(2, START).encode(UserId(1), MovieId(2))).unwrap();
    ingestion.write(MARK_KEY, [1; Mark::BYTES]).unwrap();
    ingestion.finish().unwrap();
    clock.advance(2 * DAY);
    for _ in 0..2 {
        assert!(matches!(base.title(UserId(1), MovieId(1)), Err(BaseError::Damaged(_))));
        assert!(matches!(base.user(UserId(1)), Err(BaseError::Damaged(_))));
        assert!(matches!(base.mark(), Err(BaseError::Damaged(_))));
        assert!(matches!(base.verify(|_| {}), Err(BaseError::Damaged(_))));
        assert_eq!(base.title(UserId(1), MovieId(2)).unwrap(), None, "the sound row has expired");
        base.compact();
    }
}

/// The largest table file below.
fn table_file(directory: &Path) -> PathBuf {
    let mut found = vec![directory.to_owned()];
    let mut largest = (0, PathBuf::new());
    while let Some(directory) = found.pop() {
        for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                found.push(entry.path());
            } else if entry.path().parent().unwrap().ends_with("tables") {
                largest = largest.max((entry.metadata().unwrap().len(), entry.path()));
            }
        }
    }
    largest.1
}

#[test]
fn a_damaged_table_gives_errors_and_never_a_wrong_value() {
    const ROWS: i64 = 4_000;
    let clock = start_clock();
    let directory = TempDir::new().unwrap();
    let edits: Vec<_> = (0..ROWS).map(|user| title(user, user % 7, Some(a_row(user % 7, START)))).collect();
    ingest(&Base::open(&directory.path().join("base"), &options(&clock)).unwrap(), 1, &edits).unwrap();
    let table = table_file(directory.path());
    let sound = fs::read(&table).unwrap();
    assert!(sound.len() > 40_000, "{}", sound.len());
    let (mut noticed, mut answered) = (0, 0);
    for at in (0..sound.len()).step_by(sound.len() / 15) {
        let mut damaged = sound.clone();
        damaged[at] ^= 0x10;
        fs::write(&table, &damaged).unwrap();
        let Ok(base) = Base::open(&directory.path().join("base"), &options(&clock)) else {
            noticed += 1;
            continue;
        };
        for user in (0..ROWS).step_by(10) {
            match base.title(UserId(user), MovieId(user % 7)) {
                Ok(found) => {
                    assert_eq!(found, Some(a_row(user % 7, START)), "byte {at}, user {user}");
                    answered += 1;
                }
                Err(BaseError::Read(_) | BaseError::Damaged(_)) => noticed += 1,
                Err(other) => panic!("byte {at}, user {user}: {other}"),
            }
        }
        if !matches!(base.verify(|_| {}), Ok(Verified { rows: 4_000, barriers: 0 }) | Err(_)) {
            panic!("a scan past byte {at} gave something else");
        }
    }
    assert!(noticed >= 10 && answered >= 1_000, "{noticed} noticed, {answered} answered");
}

#[test]
fn a_simulated_crash_does_all_or_nothing() {
    let clock = start_clock();
    let model = ModelBase::new(Expiry::new(&options(&clock)));
    let base = Base::Model(model.clone());
    for (survives, rows, sequence) in [(false, 1, 1), (true, 2, 3)] {
        if !survives {
            ingest(&base, 1, &[title(1, 1, Some(a_row(1, START)))]).unwrap();
        }
        model.crash_next_ingest(survives);
        let crashed = ingest(&base, 3, &[title(1, 2, Some(a_row(2, START)))]);
        assert!(matches!(crashed, Err(BaseError::Crashed)));
        let reopened = Base::Model(model.clone());
        assert_eq!(reopened.user(UserId(1)).unwrap().titles.len(), rows);
        assert_eq!(reopened.mark().unwrap().unwrap().sequence, sequence);
    }
    ingest(&base, 4, &[title(1, 3, Some(a_row(3, START)))]).unwrap();
    model.fail_reads(true);
    assert!(base.title(UserId(1), MovieId(3)).is_err());
    model.fail_reads(false);
    assert!(base.title(UserId(1), MovieId(3)).unwrap().is_some());
}
