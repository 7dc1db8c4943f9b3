//! What was written comes back; what was not, does not.

use super::*;
use playhead_core::{Bookmark, MediaDuration, MovieId, Position, Record, RecordKind, UserId, WriteTime};
use proptest::prelude::*;

const NOW: WriteTime = WriteTime::MIN;

fn now() -> WriteTime {
    WriteTime::from_micros(1_770_000_000_000_000)
}

fn any_record() -> impl Strategy<Value = Record> {
    let micros = 1..now().micros();
    (any::<i64>(), any::<i64>(), 0.0..=1e6, prop::option::of(0.001..=1e6), micros, 0..4u32).prop_map(
        |(user, movie, position, duration, micros, kind)| {
            let (user, movie, write_time) = (UserId(user), MovieId(movie), WriteTime::from_micros(micros));
            let position = Position::from_seconds(position).unwrap();
            let duration = duration.map(|seconds| MediaDuration::from_seconds(seconds).unwrap());
            match kind {
                0 => Record::forget(user, movie, write_time),
                1 => Record::erase(user, write_time),
                _ => Record { user, kind: RecordKind::Put, row: Bookmark { movie, position, duration, write_time } },
            }
        },
    )
}

fn written(records: &[Record]) -> Vec<u8> {
    let mut writer = Writer::new("1.2.3", now(), true);
    let mut bytes = Vec::new();
    for (index, record) in records.iter().enumerate() {
        writer.record(record);
        if index % 3 == 0 {
            bytes.append(&mut writer.take());
        }
    }
    bytes.append(&mut writer.finish());
    bytes
}

type BadLines = Vec<(u64, LineError)>;

/// All of it: the good records, the bad lines, and whether it was whole.
fn read(bytes: &[u8]) -> Result<(Vec<Record>, BadLines), Unfit> {
    let mut reader = Reader::new(bytes, now())?;
    let (mut records, mut bad) = (Vec::new(), Vec::new());
    while let Some(item) = reader.next_line()? {
        match item {
            Ok(Item::Record(record)) => records.push(record),
            Ok(Item::Trailer) => {}
            Err(error) => bad.push((reader.line(), error)),
        }
    }
    reader.finish().map(|_| (records, bad))
}

/// A file of these lines with a trailer that fits.
fn with_trailer(lines: &[&str], rows: u64) -> Vec<u8> {
    let header = r#"{"header":{"format":1,"version":"x","exported_at_us":1,"has_barriers":true}}"#;
    let mut text = format!("{header}\n{}", lines.iter().map(|line| format!("{line}\n")).collect::<String>());
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    let sha256 = writer::hexadecimal(digest.as_ref());
    text += &format!("{{\"trailer\":{{\"rows\":{rows},\"forgets\":0,\"erases\":0,\"sha256\":\"{sha256}\"}}}}\n");
    text.into_bytes()
}

#[test]
fn the_format_is_what_the_documentation_shows() {
    let micros = WriteTime::from_micros;
    let row = Bookmark {
        movie: MovieId(42),
        position: Position::from_seconds(1234.5).unwrap(),
        duration: MediaDuration::from_seconds(7200.0).ok(),
        write_time: micros(1_764_061_880_123_456),
    };
    let mut writer = Writer::new("0.1.0", micros(1_764_061_880_000_000), true);
    writer.record(&Record::erase(UserId(7), micros(1_764_061_870_000_000)));
    writer.record(&Record { user: UserId(7), kind: RecordKind::LatePut, row });
    writer.record(&Record::forget(UserId(7), MovieId(43), micros(1_764_061_880_123_457)));
    let text = String::from_utf8(writer.finish()).unwrap();
    let documented = include_str!("lib.rs").lines().skip_while(|line| *line != "//! ```text").skip(1).take(4);
    let documented: Vec<_> = documented.map(|line| line.trim_start_matches("//! ")).collect();
    assert_eq!(text.lines().take(4).collect::<Vec<_>>(), documented);
    assert!(text.lines().nth(4).unwrap().starts_with(r#"{"trailer":{"rows":1,"forgets":1,"erases":1,"sha256":""#));
}

proptest! {
    #[test]
    fn what_was_written_comes_back(records in prop::collection::vec(any_record(), 0..40)) {
        let (found, bad) = read(&written(&records)).unwrap();
        prop_assert_eq!(found, records);
        prop_assert_eq!(bad, []);
    }

    #[test]
    fn what_was_cut_off_or_changed_is_never_whole(
        records in prop::collection::vec(any_record(), 1..8), at in any::<prop::sample::Index>(), bit in 0..8u32,
    ) {
        let bytes = written(&records);
        prop_assert!(read(&bytes[..at.index(bytes.len())]).is_err());
        let mut changed = bytes.clone();
        changed[at.index(bytes.len())] ^= 1 << bit;
        // Upper and lower case of the checksum mean the same.
        if !changed.eq_ignore_ascii_case(&bytes) {
            prop_assert!(read(&changed).is_err());
        }
        let mut longer = bytes.clone();
        longer.extend_from_slice(&bytes);
        prop_assert!(read(&longer).is_err());
    }
}

#[test]
fn a_bad_line_is_told_by_its_number_and_the_others_come() {
    let long = format!("{{\"row\":\"{}\"}}", "x".repeat(3 * LINE_BYTES_MAX));
    let row = |user: &str, movie: &str, rest: &str| {
        format!(r#"{{"row":{{"user_id":"{user}","movie_id":"{movie}",{rest}}}}}"#)
    };
    let at = |micros: &str| format!(r#""position_seconds":1.5,"write_time_us":{micros}"#);
    let good = row("-1", "2", &at("5"));
    let future = (now().micros() + 86_400_000_001).to_string();
    let cases = [
        ("".to_owned(), LineError::NotALine(0)),
        ("{".to_owned(), LineError::NotALine(1)),
        ("not json".to_owned(), LineError::NotALine(1)),
        ("{\"row\":{\"user_id\":\"\u{1}\"}}".to_owned(), LineError::NotALine(20)),
        (long, LineError::TooLong),
        (row("+1", "2", &at("5")), LineError::Id("user_id")),
        (row("1", "02", &at("5")), LineError::Id("movie_id")),
        (row("9223372036854775808", "2", &at("5")), LineError::Id("user_id")),
        (row("1", "2", r#""position_seconds":-1,"write_time_us":5"#), LineError::Position),
        (row("1", "2", r#""position_seconds":1000000.1,"write_time_us":5"#), LineError::Position),
        (row("1", "2", &format!(r#""duration_seconds":0,{}"#, at("5"))), LineError::Duration),
        (row("1", "2", &at("0")), LineError::WriteTime),
        (row("1", "2", &at(&future)), LineError::Future),
        (row("1", "2", &at("36028797018963968")), LineError::Future),
        (row("1", "2", &at("9223372036854775807")), LineError::Future),
        (row("1", "2", &at("18446744073709551615")), LineError::Future),
        (format!(r#"{{"erase":{{"user_id":"1","write_time_us":{future}}}}}"#), LineError::Future),
        (format!(r#"{{"forget":{{"user_id":"1","movie_id":"1","write_time_us":{future}}}}}"#), LineError::Future),
        (
            r#"{"header":{"format":1,"version":"x","exported_at_us":1,"has_barriers":true}}"#.to_owned(),
            LineError::Misplaced,
        ),
    ];
    for (bad, error) in cases {
        let file = with_trailer(&[&good, &bad, &good], 2);
        let (records, told) = read(&file).unwrap();
        assert_eq!((records.len(), told), (2, vec![(3, error)]), "{bad}");
    }
    let not_lines = [
        "null".to_owned(),
        "[]".to_owned(),
        "{}".to_owned(),
        r#"{"rows":{}}"#.to_owned(),
        row("1", "2", r#""position_seconds":1"#),
        row("1", "2", &at("-5")),
        row("1", "2", &at("1.5")),
        row("1", "2", &at("18446744073709551616")),
        row("1", "2", &format!("{},{}", at("5"), at("5"))),
        row("1", "2", &format!(r#""speed":2,{}"#, at("5"))),
        r#"{"row":{"user_id":1,"movie_id":"2","position_seconds":1,"write_time_us":5}}"#.to_owned(),
        r#"{"forget":{"user_id":"1","write_time_us":5},"x":1}"#.to_owned(),
    ];
    for bad in not_lines {
        let (records, told) = read(&with_trailer(&[&good, &bad], 1)).unwrap();
        assert!(records.len() == 1 && matches!(told[..], [(3, LineError::NotALine(_))]), "{bad}: {told:?}");
    }
    // A day ahead is the last that is believed.
    let (records, told) =
        read(&with_trailer(&[&row("1", "2", &at(&(now().micros() + 86_400_000_000).to_string()))], 1)).unwrap();
    assert_eq!((records.len(), told), (1, vec![]));
}

#[test]
fn what_a_bad_line_says_is_not_repeated() {
    let secret = r#"{"row":{"user_id":"secret","movie_id":"2","position_seconds":"secret","write_time_us":5}}"#;
    let (_, told) = read(&with_trailer(&[secret], 0)).unwrap();
    assert!(told.len() == 1 && !told[0].1.to_string().contains("secret"), "{told:?}");
}

#[test]
fn what_is_no_export_is_refused_at_its_first_line() {
    for bytes in ["", "\n", "{}\n", "hello", "{\"row\":{}}\n", "\u{0}\u{0}\n"] {
        assert!(matches!(read(bytes.as_bytes()), Err(Unfit::NoExport)), "{bytes:?}");
    }
    let newer = "{\"header\":{\"format\":2,\"version\":\"9\",\"exported_at_us\":1,\"has_barriers\":true,\"more\":1}}\n";
    let refused = Reader::new(newer.as_bytes(), NOW).err().unwrap().to_string();
    assert!(refused.contains("newer version") && refused.contains("format 2"), "{refused}");
}

#[test]
fn a_trailer_that_counts_otherwise_is_told() {
    let good = r#"{"erase":{"user_id":"1","write_time_us":5}}"#;
    let error = read(&with_trailer(&[good], 1)).unwrap_err();
    assert!(matches!(error, Unfit::Counts { .. }), "{error}");
}
