//! Viewers with plain times: what is due, and what answers mean.

use super::*;
use crate::ledger::Contents;
use crate::target::Target;

const S: u64 = 1_000_000;

fn plan() -> Plan {
    Plan {
        target: Target { host: "h".to_owned(), address: ([127, 0, 0, 1], 1).into() },
        streamers: 1,
        interval: Duration::from_secs(4),
        connections: 1,
        duration: Duration::from_secs(60),
        first_user: -1,
        workers: 1,
        http2: false,
        saturate: false,
        steady: true,
        seed: 1,
        patience: Duration::from_secs(10),
        first_title: 100,
        ledger: None,
    }
}

fn row(sent: u32, acknowledged: u32) -> Row {
    Row { user: -1, movie: 100, sent, acknowledged }
}

fn desk(plan: Plan, row: Row, file: Option<Arc<LedgerFile>>) -> Desk {
    Desk::new(Arc::new(plan), 0, &[row], file)
}

fn answer(status: u16) -> Answer {
    Answer { status, ..Answer::default() }
}

/// Lets time pass until a request is due.
fn wait(desk: &mut Desk, now_us: &mut u64) -> Order {
    loop {
        if let Some(order) = desk.due(*now_us) {
            return order;
        }
        *now_us += 1_000;
    }
}

fn send(desk: &mut Desk, order: &mut Order, now_us: u64) -> Beat {
    match desk.message(order, now_us) {
        Ok(Message::Beat(beat)) => beat,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_schedule_does_not_wait_for_answers_and_positions_rise() {
    let (mut desk, mut now) = (desk(plan(), row(0, 0), None), 0);
    let mut last = 0;
    let mut times = Vec::new();
    for beat in 0..3_u64 {
        let mut order = wait(&mut desk, &mut now);
        let position = send(&mut desk, &mut order, now).seconds;
        assert!(position > last, "{position} behind {last}");
        last = position;
        times.push(order.intended_us);
        // Late, but before the next is due.
        assert_eq!(desk.answered(order, answer(204), b"", now, now + (beat + 1) * S), None);
    }
    assert_eq!([times[1] - times[0], times[2] - times[1]], [4 * S, 4 * S]);
    assert_eq!((desk.measured.offered, desk.measured.acknowledged), (3, 3));
    assert!(desk.measured.latency_us.max() >= 3 * S && desk.measured.lag_us.max() <= 2_000);
    assert_eq!(desk.row(0), row(last, last));
    assert!(desk.is_quiet());
}

#[test]
fn beats_due_while_one_is_under_way_are_superseded_and_their_latency_is_not_lost() {
    let (mut desk, mut now) = (desk(plan(), row(0, 0), None), 0);
    let mut order = wait(&mut desk, &mut now);
    let first = send(&mut desk, &mut order, now);
    let stalled = now + 13 * S;
    assert_eq!(desk.due(stalled), None);
    let mut next = desk.answered(order, answer(204), b"", now, stalled).expect("the newest goes out at once");
    let beat = send(&mut desk, &mut next, stalled);
    assert_eq!((beat.seconds - first.seconds, next.intended_us - order.intended_us), (12, 12 * S));
    assert_eq!(desk.answered(next, answer(204), b"", stalled, stalled), None);
    let measured = &desk.measured;
    assert_eq!((measured.offered, measured.sent, measured.superseded, measured.acknowledged), (4, 2, 2, 2));
    // 13, 9, 5 and 1 seconds.
    assert_eq!(measured.latency_us.len(), 4);
    for seconds in [13, 9, 5, 1] {
        let about = measured.latency_us.count_between((seconds - 1) * S, seconds * S + 2_000);
        assert_eq!(about, 1, "{seconds} s");
    }
}

#[test]
fn retry_after_is_obeyed_with_the_newest_position() {
    let (mut desk, mut now) = (desk(plan(), row(0, 0), None), 0);
    let mut order = wait(&mut desk, &mut now);
    let first = send(&mut desk, &mut order, now).seconds;
    let refused = Answer { retry_after_s: Some(10), ..answer(503) };
    assert_eq!(desk.answered(order, refused, b"overloaded", now, now), None);
    let asked = now;
    let mut retry = wait(&mut desk, &mut now);
    assert!((10 * S..=20 * S + 1_000).contains(&(now - asked)), "after {} µs", now - asked);
    let again = send(&mut desk, &mut retry, now).seconds;
    assert!(again >= first + 8, "{again}, not the newest");
    assert!(desk.measured.held >= 2);
    assert_eq!(desk.row(0).movie, 100, "it was surely not stored: the row goes on");
}

#[test]
fn a_wished_interval_is_kept_until_an_answer_omits_it() {
    let (mut desk, mut now) = (desk(plan(), row(0, 0), None), 0);
    let mut times = Vec::new();
    for interval_s in [Some(30), Some(30), None, None] {
        let mut order = wait(&mut desk, &mut now);
        times.push(order.intended_us);
        send(&mut desk, &mut order, now);
        desk.answered(order, Answer { interval_s, ..answer(204) }, b"", now, now);
    }
    let gaps: Vec<u64> = times.windows(2).map(|pair| (pair[1] - pair[0]) / S).collect();
    assert_eq!(gaps, [30, 30, 4]);
}

#[test]
fn an_unknown_end_leaves_the_row_and_a_known_one_does_not() {
    type End = fn(&mut Desk, Order) -> Option<Order>;
    let cases: [(End, bool); 6] = [
        (|desk, order| desk.failed(order, Failure::Closed, 0), true),
        (|desk, order| desk.failed(order, Failure::TimedOut, 0), true),
        (|desk, order| desk.answered(order, answer(503), b"urn:x:outcome-unknown", 0, 0), true),
        (|desk, order| desk.answered(order, answer(500), b"", 0, 0), true),
        (|desk, order| desk.answered(order, answer(503), b"overloaded", 0, 0), false),
        (|desk, order| desk.answered(order, answer(429), b"", 0, 0), false),
    ];
    for (at, (end, leaves)) in cases.into_iter().enumerate() {
        let (mut desk, mut now) = (desk(plan(), row(40, 40), None), 0);
        let mut order = wait(&mut desk, &mut now);
        let sent = send(&mut desk, &mut order, now).seconds;
        assert_eq!(end(&mut desk, order), None);
        let mut order = wait(&mut desk, &mut now);
        let beat = send(&mut desk, &mut order, now);
        assert_eq!((beat.movie == 101, desk.measured.failed()), (leaves, 1), "case {at}");
        let (_, left, _) = desk.finish();
        let expected = if leaves { vec![row(sent, 40)] } else { Vec::new() };
        assert_eq!(left, expected, "case {at}");
        assert!(desk.stop.is_none(), "case {at}");
    }
}

#[test]
fn a_4xx_ends_the_run() {
    let (mut desk, mut now) = (desk(plan(), row(0, 0), None), 0);
    let mut order = wait(&mut desk, &mut now);
    send(&mut desk, &mut order, now);
    desk.answered(order, answer(401), b"", now, now);
    assert!(matches!(desk.stop, Some(Stop::Refused(401))));
}

#[test]
fn a_new_device_asks_for_the_place_and_tells_what_is_wrong() {
    let bookmark = |position: f64| format!("{{\"state\":\"in_progress\",\"position_seconds\":{position}}}");
    for (found, is_wrong) in [(row(0, 0).position(40), false), (row(0, 0).position(39), true), (40.001, true)] {
        let (mut desk, mut now) = (desk(plan(), row(40, 40), None), 0);
        desk.streamers[0].reads_first = true;
        let mut order = wait(&mut desk, &mut now);
        assert!(matches!(desk.message(&mut order, now), Ok(Message::Read(100))));
        let next = desk.answered(order, answer(200), bookmark(found).as_bytes(), now, now);
        assert_eq!(next.map(|next| next.kind), Some(Kind::Beat));
        assert_eq!((desk.measured.faults.len(), desk.measured.reads), (usize::from(is_wrong), 1), "{found}");
    }
}

#[test]
fn the_file_is_ahead_of_what_was_sent_and_exact_at_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger");
    let head = crate::ledger::Head { streamers: 1, first_user: -1, first_title: 100, seed: 1, is_exact: false };
    let file = Arc::new(LedgerFile::open(&path, head, &[row(0, 0)]).unwrap());
    let (mut desk, mut now) = (desk(plan(), row(0, 0), Some(file)), 0);
    let stored = || Contents::read(&path).unwrap().current[0];
    for _ in 0..200 {
        let mut order = wait(&mut desk, &mut now);
        let sent = send(&mut desk, &mut order, now).seconds;
        let read = stored();
        assert!(sent <= read.sent && read.acknowledged < sent, "{sent}, {read:?}");
        desk.answered(order, answer(204), b"", now, now);
        now += S;
        desk.sweep(now).unwrap();
        let (read, row) = (stored(), desk.row(0));
        assert_eq!((read.movie, read.acknowledged), (row.movie, row.acknowledged), "within a second");
    }
    let (current, left, written) = desk.finish();
    written.unwrap();
    assert_eq!((stored(), left.len()), (current[0], Contents::read(&path).unwrap().left.len()));
}

#[test]
fn what_was_open_when_a_ledger_ended_is_not_written_again() {
    for (row, movie) in [(row(40, 40), 100), (row(44, 40), 101)] {
        let (mut desk, mut now) = (desk(plan(), row, None), 0);
        let mut order = wait(&mut desk, &mut now);
        assert_eq!(send(&mut desk, &mut order, now).movie, movie);
    }
}

#[test]
fn a_closed_loop_takes_each_in_turn() {
    let plan = Plan { saturate: true, streamers: 3, ..plan() };
    let rows: Vec<Row> = (0..3).map(|at| Row { user: plan.user(at), ..row(0, 0) }).collect();
    let mut desk = Desk::new(Arc::new(plan), 0, &rows, None);
    let orders: Vec<_> = std::iter::from_fn(|| desk.next_in_loop(5)).collect();
    assert_eq!(orders.iter().map(|order| order.streamer).collect::<Vec<_>>(), [0, 1, 2]);
    for mut order in orders {
        send(&mut desk, &mut order, 5);
        desk.answered(order, answer(204), b"", 5, 9);
    }
    assert_eq!((desk.measured.acknowledged, desk.is_quiet()), (3, true));
    assert!(desk.next_in_loop(9).is_some());
}
