//! What a result means, and merging.

use super::*;
use crate::measure::Failure;
use crate::run::Stop;
use crate::target::Target;

fn plan(first_user: i64) -> Plan {
    Plan {
        target: Target { host: "h".to_owned(), address: ([127, 0, 0, 1], 1).into() },
        streamers: 10,
        interval: Duration::from_secs(4),
        connections: 2,
        duration: Duration::from_secs(10),
        first_user,
        workers: 1,
        http2: false,
        saturate: false,
        steady: false,
        seed: 1,
        patience: Duration::from_secs(10),
        first_title: 0,
        ledger: None,
    }
}

fn finished() -> Finished {
    let mut measured = Measured::new(Duration::from_secs(1));
    for beat in 0..1_000 {
        measured.offered += 1;
        measured.sent += 1;
        measured.acknowledged += 1;
        measured.lag_us.record(1_000).unwrap();
        measured.slot(beat * 10_000).offered += 1;
        measured.acknowledge(beat * 10_000, beat * 10_000 + 5_000);
    }
    let elapsed = Duration::from_secs(10);
    Finished { measured, rows: Vec::new(), first_title: 0, stop: None, elapsed, cpu: Duration::from_millis(5) }
}

fn report(change: impl FnOnce(&mut Finished), found: Option<Verification>) -> Report {
    let mut finished = finished();
    change(&mut finished);
    Report::new(&plan(-1), &finished, found, 1_000, Some(Duration::from_millis(100)))
}

#[test]
fn exit_codes_say_the_worst() {
    let good = Verification { rows: 1, good: 1, ..Verification::default() };
    let lost = Verification { lost: 1, ..good.clone() };
    let unread = Verification { unreadable: 1, ..good.clone() };
    let whole = |_: &mut Finished| {};
    for (report, code, is_valid) in [
        (report(whole, None), 0, true),
        (report(whole, Some(good)), 0, true),
        (report(whole, Some(lost.clone())), 4, true),
        (report(|run| run.stop = Some(Stop::Interrupted), Some(lost)), 4, true),
        (report(|run| run.measured.faults.push("lost".to_owned()), None), 4, true),
        (report(whole, Some(unread)), 1, true),
        (report(|run| run.stop = Some(Stop::Interrupted), None), 1, true),
        (report(|run| run.measured.fail(Failure::Closed, 0), None), 3, true),
        (report(|run| run.measured.offered += 2, None), 3, false),
        (report(|run| run.measured.lag_us.record_n(20_000, 50).unwrap(), None), 3, false),
        (report(|run| run.measured.latency_us.record_n(200_000, 50).unwrap(), None), 3, true),
    ] {
        assert_eq!((report.exit_code(), report.is_valid), (code, is_valid), "{report:#?}");
    }
}

#[test]
fn a_result_survives_its_json() {
    let report = report(|_| {}, None);
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!((json["schema"].as_str(), json["asked"]["loop"].as_str()), (Some("playhead-load/1"), Some("open")));
    let read: Report = serde_json::from_value(json).unwrap();
    assert_eq!(read.latency_histogram_us, report.latency_histogram_us);
    assert_eq!((read.latency_ms.count, read.timeline.offered[3]), (1_000, 100));
    assert_eq!(read.generator.cpu_us_per_request, 5.0);
    assert!(read.generator.memory_peak_bytes > 1 << 20);
}

#[test]
fn results_of_processes_side_by_side_are_merged() {
    let first = report(|_| {}, Some(Verification { rows: 4, good: 4, ..Verification::default() }));
    let mut second = Report::new(
        &plan(-11),
        &finished(),
        Some(Verification { rows: 2, good: 2, ..Verification::default() }),
        1_003,
        None,
    );
    second.latency_histogram_us = vec![(50_000, 1_000)];
    let all = Report::merge(vec![first.clone(), second.clone()]).unwrap();
    assert_eq!((all.asked.streamers, all.acknowledged, all.generator.processes), (20, 2_000, 2));
    assert_eq!(all.acknowledged_per_s, 200.0);
    assert!((all.latency_ms.p50 - 5.0).abs() < 0.1 && (all.latency_ms.p99 - 50.0).abs() < 0.5, "{:?}", all.latency_ms);
    assert_eq!((all.timeline.offered.len(), all.timeline.offered[2], all.timeline.offered[4]), (13, 100, 200));
    assert_eq!(all.verification.as_ref().map(|found| found.rows), Some(6));
    assert_eq!(all.exit_code(), 0);

    let other_pace = Report { asked: Asked { interval_s: 60.0, ..second.asked.clone() }, ..second.clone() };
    let other_schema = Report { schema: "x".to_owned(), ..second };
    for (reports, word) in [
        (vec![], "no result"),
        (vec![first.clone(), first.clone()], "--first-user"),
        (vec![first.clone(), other_pace], "kinds"),
        (vec![first, other_schema], "schema"),
    ] {
        assert!(Report::merge(reports).unwrap_err().to_string().contains(word), "{word}");
    }
}

#[test]
fn the_page_stands_alone_and_the_table_tells_all() {
    let report = report(|run| run.measured.fail(Failure::Status(500), 2_000_000), None);
    let page = crate::html::page(&report);
    assert_eq!(page.matches("<svg").count(), 3);
    for outside in ["http://www", "https://", "<script", "src=", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
    let table = crate::table::of(&report);
    for word in ["10 streamers", "500 1", "p99 5.0", "VALID", "1 requests failed"] {
        assert!(table.contains(word), "{word}: {table}");
    }
}
