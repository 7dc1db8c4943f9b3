//! What each streamer of a worker sends when it is due, and what an answer means for it.
//!
//! Called by [`crate::worker`], which knows connections; this file knows viewers. No clock, no socket: times come in as
//! microseconds since the start, so all of it can be tested with plain values.
//!
//! **The promise.** The schedule never depends on answers, but for what the server asks for (`Retry-After`,
//! `Playhead-Interval`). One request of a streamer is under way at a time; a beat that is due meanwhile is *superseded* by
//! the next one sent, and its latency runs until that one is acknowledged. A row whose request met an unknown end is left
//! at once (see [`crate::ledger`]). The ledger's file knows of a position before its bytes go out.

use crate::ledger::{Fault, Found, LedgerError, LedgerFile, Row};
use crate::measure::{Failure, Measured, slot_of};
use crate::plan::{Plan, REST_MAX};
use crate::profile::{self, Next, between, mix, unit};
use crate::run::Stop;
use crate::wheel::Wheel;
use crate::wire::{Answer, Beat};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

/// The ledger's file is ahead by so many beats, so that only one of them costs a system call.
const BEATS_AHEAD: u32 = 64;

/// Rows written at once when acknowledgements are brought to the file: about a block.
const SWEEP_ROWS: usize = 170;

/// How long one sweep over all rows takes.
const SWEEP_US: u64 = 1_000_000;

/// The most faults told of one run.
const FAULTS_MAX: usize = 20;

/// One viewer.
#[derive(Debug, Clone, Default)]
struct Streamer {
    /// Its next beat.
    due_us: u64,
    /// The beat before.
    last_us: u64,
    /// The newest beat that was due while a request was under way.
    pending_us: u64,
    /// Before this the server wants nothing from it.
    hold_until_us: u64,
    /// Beats so far, which its behaviour is drawn from.
    step: u32,
    /// Where it is in the title.
    position: u32,
    /// Which title, from the run's first.
    title: u32,
    sent: u32,
    acknowledged: u32,
    /// What the ledger's file says of `sent`.
    bound: u32,
    /// From one beat to the next, as the server wishes; 0: no wish.
    interval_wish_s: u32,
    /// Beats that were due while a request was under way.
    pending: u16,
    /// A request is under way, or waits for a connection.
    is_busy: bool,
    /// It begins another title with its next beat.
    leaves: bool,
    /// It asks for the place before its next beat.
    reads_first: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Beat,
    Read,
}

/// A request to be made, or under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) streamer: u32,
    pub(crate) intended_us: u64,
    pub(crate) kind: Kind,
    /// Beats before it that it stands for.
    superseded: u16,
}

/// What is to be sent for an order.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Message {
    Beat(Beat),
    /// Of this title.
    Read(i64),
}

/// A worker's streamers.
#[derive(Debug)]
pub(crate) struct Desk {
    plan: Arc<Plan>,
    /// The number of our first streamer in the run.
    first: u32,
    streamers: Vec<Streamer>,
    wheel: Wheel,
    /// When those who were told to wait try again.
    retries: BinaryHeap<Reverse<(u64, u32)>>,
    /// Where the closed loop is.
    cursor: usize,
    busy: usize,
    pub(crate) measured: Measured,
    /// Why the run must end.
    pub(crate) stop: Option<Stop>,
    file: Option<Arc<LedgerFile>>,
    /// Parts of [`SWEEP_ROWS`] rows with acknowledgements that the file does not have.
    dirty: Vec<bool>,
    swept_us: u64,
    sweep: usize,
    left: Vec<Row>,
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Desk {
    /// The streamers from `first` on, with the rows they go on with.
    pub(crate) fn new(plan: Arc<Plan>, first: u32, rows: &[Row], file: Option<Arc<LedgerFile>>) -> Self {
        let mut wheel = Wheel::new(rows.len());
        let interval_us = micros(plan.interval);
        let mut streamers = Vec::with_capacity(rows.len());
        for (at, row) in (0_u32..).zip(rows) {
            let phase = mix(plan.seed, u64::from(first + at), u64::MAX);
            let due_us = phase % interval_us.max(1);
            let title = u32::try_from(row.movie - plan.first_title).unwrap_or_default();
            let start = u32::try_from(between(phase >> 20, 1, 1_000)).expect("small");
            streamers.push(Streamer {
                due_us,
                title,
                position: if row.sent > 0 { row.sent } else { start },
                sent: row.sent,
                acknowledged: row.acknowledged,
                bound: row.sent,
                // What was under way when the last run ended may still be on its way.
                leaves: row.sent > row.acknowledged,
                ..Streamer::default()
            });
            if !plan.saturate {
                wheel.put(at, due_us);
            }
        }
        let parts = rows.len().div_ceil(SWEEP_ROWS);
        Self {
            measured: Measured::new(slot_of(plan.duration)),
            plan,
            first,
            streamers,
            wheel,
            retries: BinaryHeap::new(),
            cursor: 0,
            busy: 0,
            stop: None,
            file,
            dirty: vec![false; parts],
            swept_us: 0,
            sweep: 0,
            left: Vec::new(),
        }
    }

    fn row(&self, at: u32) -> Row {
        let streamer = &self.streamers[at as usize];
        Row {
            user: self.plan.user(self.first + at),
            movie: self.plan.first_title + i64::from(streamer.title),
            sent: streamer.sent,
            acknowledged: streamer.acknowledged,
        }
    }

    /// Whether no request is under way or waits.
    pub(crate) fn is_quiet(&self) -> bool {
        self.busy == 0
    }

    /// The next request that is due, if one is.
    pub(crate) fn due(&mut self, now_us: u64) -> Option<Order> {
        loop {
            if let Some(order) = self.retry(now_us) {
                return Some(order);
            }
            let at = self.wheel.take(now_us)?;
            if let Some(order) = self.beat(at, now_us) {
                return Some(order);
            }
        }
    }

    /// A streamer whose `Retry-After` is over sends the newest position.
    fn retry(&mut self, now_us: u64) -> Option<Order> {
        while let Some(&Reverse((due_us, at))) = self.retries.peek()
            && due_us <= now_us
        {
            self.retries.pop();
            let streamer = &mut self.streamers[at as usize];
            if !streamer.is_busy && streamer.hold_until_us == due_us {
                self.offer(due_us, now_us);
                return Some(self.order(at, due_us));
            }
        }
        None
    }

    fn offer(&mut self, due_us: u64, now_us: u64) {
        self.measured.lag_us.saturating_record(now_us.saturating_sub(due_us));
        self.measured.offered += 1;
        self.measured.slot(due_us).offered += 1;
    }

    fn order(&mut self, at: u32, intended_us: u64) -> Order {
        let streamer = &mut self.streamers[at as usize];
        streamer.is_busy = true;
        self.busy += 1;
        let kind = if streamer.reads_first { Kind::Read } else { Kind::Beat };
        Order { streamer: at, intended_us, kind, superseded: 0 }
    }

    /// A streamer's beat is due: what it does afterwards is decided now, whatever becomes of this one.
    fn beat(&mut self, at: u32, now_us: u64) -> Option<Order> {
        let streamer = &mut self.streamers[at as usize];
        let due_us = streamer.due_us;
        let wished_us = streamer.last_us + u64::from(streamer.interval_wish_s) * 1_000_000;
        if streamer.interval_wish_s > 0 && wished_us > due_us {
            streamer.due_us = wished_us;
        }
        if streamer.due_us > now_us {
            self.wheel.put(at, streamer.due_us);
            return None;
        }
        let rest = self.play_on(at);
        let streamer = &mut self.streamers[at as usize];
        streamer.last_us = due_us;
        streamer.due_us = due_us + micros(self.plan.interval + rest);
        self.wheel.put(at, streamer.due_us);
        if streamer.hold_until_us > due_us {
            self.measured.held += 1;
            return None;
        }
        let is_busy = streamer.is_busy;
        self.offer(due_us, now_us);
        if is_busy {
            let streamer = &mut self.streamers[at as usize];
            streamer.pending = streamer.pending.saturating_add(1);
            streamer.pending_us = due_us;
            return None;
        }
        Some(self.order(at, due_us))
    }

    /// Moves the place on by a beat, and decides what the viewer does next: how long it rests.
    fn play_on(&mut self, at: u32) -> Duration {
        let interval_s = u32::try_from(self.plan.interval.as_secs()).unwrap_or(u32::MAX).clamp(1, 3_600);
        let streamer = &mut self.streamers[at as usize];
        streamer.position += interval_s;
        streamer.step += 1;
        let mut next = Next::Play;
        if !self.plan.steady && !self.plan.saturate {
            next = profile::next(self.plan.seed, u64::from(self.first + at), streamer.step, self.plan.interval);
        }
        if streamer.position + interval_s > profile::title_seconds(streamer.title) {
            streamer.leaves = true;
        }
        match next {
            Next::Play => return Duration::ZERO,
            Next::Pause(rest) => return rest,
            Next::Quit(rest) => {
                streamer.leaves = true;
                return rest;
            }
            Next::Seek(seconds) => streamer.position += seconds,
            Next::Switch => streamer.reads_first = true,
        }
        Duration::ZERO
    }

    /// The next request of a closed loop, if anybody is free.
    pub(crate) fn next_in_loop(&mut self, now_us: u64) -> Option<Order> {
        for _ in 0..self.streamers.len() {
            let at = self.cursor;
            self.cursor = (at + 1) % self.streamers.len();
            let streamer = &self.streamers[at];
            if !streamer.is_busy && streamer.hold_until_us <= now_us {
                let at = u32::try_from(at).expect("a streamer's number");
                self.play_on(at);
                self.offer(now_us, now_us);
                return Some(self.order(at, now_us));
            }
        }
        None
    }

    /// What to send for this order, now. The ledger knows of it when this returns.
    pub(crate) fn message(&mut self, order: &mut Order, now_us: u64) -> Result<Message, LedgerError> {
        let at = order.streamer;
        if order.kind == Kind::Read {
            return Ok(Message::Read(self.row(at).movie));
        }
        if self.streamers[at as usize].leaves {
            self.leave(at)?;
        }
        let streamer = &mut self.streamers[at as usize];
        if streamer.pending > 0 {
            order.superseded = order.superseded.saturating_add(streamer.pending);
            order.intended_us = streamer.pending_us;
            self.measured.superseded += u64::from(streamer.pending);
            streamer.pending = 0;
        }
        streamer.sent = streamer.position.max(streamer.sent + 1);
        streamer.position = streamer.sent;
        let (sent, title) = (streamer.sent, streamer.title);
        if let Some(file) = &self.file
            && sent > streamer.bound
        {
            let interval_s = u32::try_from(self.plan.interval.as_secs()).unwrap_or(u32::MAX).clamp(1, 3_600);
            streamer.bound = sent + BEATS_AHEAD * interval_s;
            let row = Row { sent: streamer.bound, ..self.row(at) };
            file.write_one(self.first + at, row)?;
        }
        self.measured.sent += 1;
        self.measured.slot(now_us).sent += 1;
        let row = self.row(at);
        Ok(Message::Beat(Beat {
            movie: row.movie,
            seconds: sent,
            sixty_fourths: row.sixty_fourths(sent),
            duration: profile::title_seconds(title),
        }))
    }

    /// Begins another title; the row of the one before is never written again.
    fn leave(&mut self, at: u32) -> Result<(), LedgerError> {
        let row = self.row(at);
        if row.sent > 0 {
            self.left.push(row);
            if let Some(file) = &self.file {
                file.leave(row)?;
            }
        }
        let streamer = &mut self.streamers[at as usize];
        streamer.title += 1;
        streamer.position =
            u32::try_from(between(mix(u64::from(at), u64::from(streamer.title), 5), 1, 60)).expect("small");
        (streamer.sent, streamer.acknowledged, streamer.bound) = (0, 0, 0);
        streamer.leaves = false;
        if let Some(file) = &self.file {
            file.write_one(self.first + at, self.row(at))?;
        }
        Ok(())
    }

    /// An answer has come; gives back what its streamer sends next at once.
    pub(crate) fn answered(
        &mut self,
        order: Order,
        answer: Answer,
        body: &[u8],
        sent_us: u64,
        now_us: u64,
    ) -> Option<Order> {
        let at = order.streamer;
        self.streamers[at as usize].interval_wish_s = answer.interval_s.unwrap_or_default();
        match (order.kind, answer.status) {
            (Kind::Beat, 204) => self.acknowledged(order, now_us),
            (Kind::Read, 200) => {
                self.measured.reads += 1;
                self.measured.reads_us.saturating_record(now_us.saturating_sub(sent_us));
                self.look_at(at, Row::position_of(body));
                self.streamers[at as usize].reads_first = false;
                // The beat that was due goes out behind the read.
                return Some(Order { kind: Kind::Beat, ..order });
            }
            (_, 429 | 503) => {
                let is_unknown = answer.status == 503 && contains(body, b"outcome-unknown");
                let failure = if is_unknown { Failure::OutcomeUnknown } else { Failure::Shed(answer.status) };
                self.measured.fail(failure, now_us);
                self.measured.shed_us.saturating_record(now_us.saturating_sub(order.intended_us));
                self.streamers[at as usize].leaves |= is_unknown;
                self.hold(at, answer.retry_after_s.unwrap_or(1), now_us);
            }
            (_, status) => {
                self.measured.fail(Failure::Status(status), now_us);
                self.streamers[at as usize].leaves = true;
                if (400..500).contains(&status) && status != 408 {
                    // A 4xx is final: the same request fails again, for every streamer.
                    self.stop.get_or_insert(Stop::Refused(status));
                }
            }
        }
        self.done(at)
    }

    fn acknowledged(&mut self, order: Order, now_us: u64) {
        let at = order.streamer;
        let streamer = &mut self.streamers[at as usize];
        streamer.acknowledged = streamer.sent;
        self.measured.acknowledged += 1;
        self.measured.slot(now_us).acknowledged += 1;
        let interval_us = micros(self.plan.interval);
        for beats in 0..=u64::from(order.superseded) {
            self.measured.acknowledge(order.intended_us.saturating_sub(beats * interval_us), now_us);
        }
        self.dirty[at as usize / SWEEP_ROWS] = true;
    }

    /// Another device has asked for the place.
    fn look_at(&mut self, at: u32, found: Option<Found>) {
        let row = self.row(at);
        // In the moment of leaving a title its fate is open.
        if row.sent == 0 || self.streamers[at as usize].leaves {
            return;
        }
        let fault = match found.map(|found| row.check(found)) {
            Some(Ok(_)) => return,
            Some(Err(Fault::Lost(found))) => format!("lost: {found:?} is there"),
            Some(Err(Fault::Invented(position))) => format!("invented: {position} is there"),
            None => "a read was answered with something that is no bookmark".to_owned(),
        };
        if self.measured.faults.len() < FAULTS_MAX {
            self.measured.faults.push(format!("{row:?}: {fault}"));
        }
    }

    /// The server asks this streamer to wait.
    fn hold(&mut self, at: u32, seconds: u32, now_us: u64) {
        let streamer = &mut self.streamers[at as usize];
        let jitter = 1.0 + unit(mix(self.plan.seed, u64::from(at), now_us));
        let rest = Duration::from_secs(u64::from(seconds)).mul_f64(jitter).min(REST_MAX);
        streamer.hold_until_us = now_us + micros(rest);
        // The newest position goes out then; what was due meanwhile is part of it.
        self.measured.held += u64::from(std::mem::take(&mut streamer.pending));
        if !self.plan.saturate {
            self.retries.push(Reverse((streamer.hold_until_us, at)));
        }
    }

    /// A request has ended without an answer; gives back what its streamer sends next at once.
    pub(crate) fn failed(&mut self, order: Order, failure: Failure, now_us: u64) -> Option<Order> {
        self.measured.fail(failure, now_us);
        let streamer = &mut self.streamers[order.streamer as usize];
        // A read leaves the row as it was.
        streamer.leaves |= order.kind == Kind::Beat;
        self.done(order.streamer)
    }

    fn done(&mut self, at: u32) -> Option<Order> {
        let streamer = &mut self.streamers[at as usize];
        streamer.is_busy = false;
        self.busy -= 1;
        if streamer.pending == 0 {
            return None;
        }
        streamer.pending -= 1;
        let intended_us = streamer.pending_us;
        Some(self.order(at, intended_us))
    }

    /// Gives up an order that was never sent: its beat was due, and not achieved.
    pub(crate) fn drop_order(&mut self, order: Order) {
        let streamer = &mut self.streamers[order.streamer as usize];
        streamer.is_busy = false;
        streamer.pending = 0;
        self.busy -= 1;
    }

    /// Brings a share of the acknowledgements to the ledger's file.
    pub(crate) fn sweep(&mut self, now_us: u64) -> Result<(), LedgerError> {
        let Some(file) = self.file.clone() else { return Ok(()) };
        let parts = self.dirty.len();
        let elapsed_us = now_us.saturating_sub(self.swept_us).min(SWEEP_US);
        let due = usize::try_from(elapsed_us * parts as u64 / SWEEP_US).unwrap_or(parts);
        if due == 0 {
            return Ok(());
        }
        self.swept_us = now_us;
        for _ in 0..due {
            let part = self.sweep;
            self.sweep = (part + 1) % parts;
            if std::mem::take(&mut self.dirty[part]) {
                let from = part * SWEEP_ROWS;
                let rows = from..(from + SWEEP_ROWS).min(self.streamers.len());
                let rows: Vec<Row> = rows.map(|at| self.row_ahead(at)).collect();
                file.write(self.first + u32::try_from(from).expect("a streamer's number"), &rows)?;
            }
        }
        Ok(())
    }

    fn row_ahead(&self, at: usize) -> Row {
        let bound = self.streamers[at].bound;
        Row { sent: bound, ..self.row(u32::try_from(at).expect("a streamer's number")) }
    }

    /// The run is over: writes the exact rows, and gives back those of the current titles, those of the titles left, and
    /// whether they could be written.
    pub(crate) fn finish(&mut self) -> (Vec<Row>, Vec<Row>, Result<(), LedgerError>) {
        let count = u32::try_from(self.streamers.len()).expect("a streamer's number");
        let current: Vec<Row> = (0..count).map(|at| self.row(at)).collect();
        let written = self.file.as_ref().map_or(Ok(()), |file| file.write(self.first, &current));
        (current, std::mem::take(&mut self.left), written)
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests;
