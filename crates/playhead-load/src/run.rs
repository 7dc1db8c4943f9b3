//! One run, from the first question to the server to the counts of all workers.

use crate::ledger::{Contents, Head, LedgerError, LedgerFile, Row};
use crate::measure::{Measured, slot_of};
use crate::plan::Plan;
use crate::target::TargetError;
use crate::worker::{Job, Shared, Worked, work};
use rustix::time::{ClockId, clock_gettime};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// A run could not begin.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The server is not there, or not what it should be.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The ledger can't be used.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A token can't be signed.
    #[error("can't sign a token: {0}")]
    Token(String),
    /// A thread or its runtime can't be had.
    #[error("can't start a worker")]
    Thread(#[source] io::Error),
    /// Not all connections could be made.
    #[error(
        "only {made} connections could be made: give fewer --connections, or raise the limit of open files (ulimit -n)"
    )]
    Connect {
        /// How many could.
        made: u64,
        /// Why the next could not.
        #[source]
        source: io::Error,
    },
    /// It was told to stop before the clock started.
    #[error("interrupted before the first heartbeat")]
    Interrupted,
}

/// Why a run ended before its time.
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    /// It was told to.
    #[error("interrupted: these are the results so far")]
    Interrupted,
    /// The server refuses for good.
    #[error("{}", refused(*.0))]
    Refused(u16),
    /// The ledger can't be written, and without it nothing more may be sent.
    #[error("{}: {}; nothing more was sent, these are the results so far", .0, cause(.0))]
    Ledger(LedgerError),
    /// A worker panicked.
    #[error("a worker has failed; this is a bug: please report what stands above")]
    Worker,
}

fn refused(status: u16) -> String {
    let reason = match status {
        401 => "has a token expired (--token-ttl), or have the server's keys changed?",
        _ => "what was refused once is refused again.",
    };
    format!("the server answered {status}: {reason} These are the results so far")
}

fn cause(error: &LedgerError) -> String {
    std::error::Error::source(error).map(ToString::to_string).unwrap_or_default()
}

/// What a run gives back.
#[derive(Debug)]
pub struct Finished {
    /// All counts.
    pub measured: Measured,
    /// Every row that was written, once.
    pub rows: Vec<Row>,
    /// The run's first title: the plan's, or that of the ledger that it went on with.
    pub first_title: i64,
    /// Why it ended before its time, if it did.
    pub stop: Option<Stop>,
    /// For how long heartbeats were sent.
    pub elapsed: Duration,
    /// The CPU that this process used from the first heartbeat to the last answer.
    pub cpu: Duration,
}

/// How far a run is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Progress {
    /// Since the clock has started; `None` before.
    pub elapsed: Option<Duration>,
    /// Tokens signed.
    pub minted: u64,
    /// Connections made.
    pub connected: u64,
    /// Heartbeats due.
    pub offered: u64,
    /// Heartbeats sent.
    pub sent: u64,
    /// 204s.
    pub acknowledged: u64,
    /// Other ends.
    pub failed: u64,
}

/// Between two looks at the progress.
const WATCH: Duration = Duration::from_millis(200);

/// From the last worker's readiness to the first heartbeat.
const HEAD_START: Duration = Duration::from_millis(20);

enum Event {
    Ready(oneshot::Sender<Instant>),
    Done,
}

/// Runs a plan. `mint` signs a token for a user; `stop` ends the run early; `watch` is called a few times a second.
///
/// # Errors
/// If the run can't begin. Whatever happens later is part of what is finished.
pub fn run(
    plan: Plan,
    mint: &(dyn Fn(i64) -> Result<String, String> + Sync),
    stop: &AtomicBool,
    watch: &mut dyn FnMut(Progress),
) -> Result<Finished, LoadError> {
    plan.target.ask(&mint(plan.user(0)).map_err(LoadError::Token)?)?;
    let (plan, current, left) = rows(plan)?;
    let head = Head {
        streamers: plan.streamers,
        first_user: plan.first_user,
        first_title: plan.first_title,
        seed: plan.seed,
        is_exact: false,
    };
    let file = plan.ledger.as_deref().map(|path| LedgerFile::open(path, head, &current)).transpose()?.map(Arc::new);
    let plan = Arc::new(plan);
    let shared = Arc::new(Shared::default());
    let (sender, events) = mpsc::channel();
    let mut finished = std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for worker in 0..plan.workers {
            let range = plan.share(plan.streamers, worker);
            let (ready, done) = (sender.clone(), sender.clone());
            let job = Job {
                plan: Arc::clone(&plan),
                worker,
                rows: current[range.start as usize..range.end as usize].to_vec(),
                file: file.clone(),
                mint,
                shared: Arc::clone(&shared),
                ready: Box::new(move || {
                    let (start, wait) = oneshot::channel();
                    // Who watches lives longer than the workers.
                    let _ = ready.send(Event::Ready(start));
                    wait
                }),
            };
            let name = format!("load-{worker}");
            let thread = std::thread::Builder::new().name(name).spawn_scoped(scope, move || {
                let worked = work(job);
                let _ = done.send(Event::Done);
                worked
            });
            threads.push(thread.map_err(LoadError::Thread)?);
        }
        drop(sender);
        let clock = attend(&events, plan.workers, &shared, stop, watch);
        let worked = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Ok(panicked(&plan))));
        let worked = worked.collect::<Result<Vec<_>, _>>()?;
        // Without a clock no worker has begun, and the error above said why.
        let (elapsed, cpu) = clock.ok_or(LoadError::Interrupted)?;
        Ok::<_, LoadError>(added_up(&plan, worked, elapsed, cpu))
    })?;
    if stop.load(Ordering::Relaxed) && finished.elapsed < plan.duration {
        finished.stop.get_or_insert(Stop::Interrupted);
    }
    if let Some(file) = &file
        && !matches!(finished.stop, Some(Stop::Ledger(_) | Stop::Worker))
        && let Err(error) = file.finish()
    {
        finished.stop = Some(Stop::Ledger(error));
    }
    finished.rows = Contents { head, current: std::mem::take(&mut finished.rows), left }.rows();
    Ok(finished)
}

/// The rows to go on with: those of a ledger that is there, or fresh ones.
fn rows(mut plan: Plan) -> Result<(Plan, Vec<Row>, Vec<Row>), LoadError> {
    if let Some(path) = plan.ledger.as_deref().filter(|path| path.exists()) {
        let contents = Contents::read(path)?;
        contents.must_be_of(path, plan.streamers, plan.first_user)?;
        plan.first_title = contents.head.first_title;
        return Ok((plan, contents.current, contents.left));
    }
    let row = |at| Row { user: plan.user(at), movie: plan.first_title, sent: 0, acknowledged: 0 };
    let rows = (0..plan.streamers).map(row).collect();
    Ok((plan, rows, Vec::new()))
}

/// Starts the clock once all workers are ready, and watches until they have ended. Gives back how long heartbeats were
/// sent and the CPU used meanwhile; `None` if the clock never started.
fn attend(
    events: &mpsc::Receiver<Event>,
    workers: u32,
    shared: &Shared,
    stop: &AtomicBool,
    watch: &mut dyn FnMut(Progress),
) -> Option<(Duration, Duration)> {
    let mut waiting = Vec::new();
    let mut clock: Option<(Instant, Duration)> = None;
    let mut over = None;
    loop {
        match events.recv_timeout(WATCH) {
            Ok(Event::Ready(start)) => waiting.push(start),
            // The first to end has sent its last beat; before the start it ends all.
            Ok(Event::Done) => {
                over = over.or_else(|| clock.map(|(start, cpu)| (start.elapsed(), cpu_used().saturating_sub(cpu))));
                if clock.is_none() {
                    shared.stop.store(true, Ordering::Relaxed);
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if stop.load(Ordering::Relaxed) {
            shared.stop.store(true, Ordering::Relaxed);
        }
        if shared.stop.load(Ordering::Relaxed) && clock.is_none() {
            // Who waits for the start learns that there is none.
            waiting.clear();
        }
        if waiting.len() == workers as usize && clock.is_none() {
            let start = Instant::now() + HEAD_START;
            clock = Some((start, cpu_used()));
            for worker in waiting.drain(..) {
                // A worker that has ended meanwhile says so itself.
                let _ = worker.send(start);
            }
        }
        let get = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        watch(Progress {
            elapsed: clock.map(|(start, _)| start.elapsed()),
            minted: get(&shared.minted),
            connected: get(&shared.connected),
            offered: get(&shared.offered),
            sent: get(&shared.sent),
            acknowledged: get(&shared.acknowledged),
            failed: get(&shared.failed),
        });
    }
    over
}

fn panicked(plan: &Plan) -> Worked {
    Worked {
        measured: Measured::new(slot_of(plan.duration)),
        current: Vec::new(),
        left: Vec::new(),
        stop: Some(Stop::Worker),
    }
}

fn added_up(plan: &Plan, worked: Vec<Worked>, elapsed: Duration, cpu: Duration) -> Finished {
    let mut all = Finished {
        measured: Measured::new(slot_of(plan.duration)),
        rows: Vec::new(),
        first_title: plan.first_title,
        stop: None,
        elapsed: elapsed.min(plan.duration),
        cpu,
    };
    for worker in worked {
        all.measured.add(&worker.measured);
        all.rows.extend(worker.current);
        all.rows.extend(worker.left);
        all.stop = all.stop.or(worker.stop);
    }
    all
}

/// The CPU that this process has used, in all its threads.
#[must_use]
pub fn cpu_used() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let (seconds, nanoseconds) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(seconds.unwrap_or_default(), nanoseconds.unwrap_or_default())
}
