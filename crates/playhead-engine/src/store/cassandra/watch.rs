//! The store's thread: it gets ready, carries out writes and reads, and keeps an eye on the cluster.
//!
//! **Getting ready** takes: a session, a schema as it must be, one read at the level asked for, and, if that was asked
//! for, commit logs that are seen to be synced. What is missing is told in one line, once, and tried again; jobs are
//! refused meanwhile, and the process goes on.
//!
//! **Writes leave together**, all of a commit window: while the first one waits, the others stay in their channel and wake
//! nobody, and their answers come together too. Reads wait for nothing.
//!
//! **Serving.** Every [`WATCH`] the clocks are compared and the commit logs looked at again. Failures without any
//! success for [`OUTAGE`] are an outage, which degrades the store; reads and new links then look for its end.

use super::clock::{self, Verdict};
use super::connection::{Connection, chain};
use super::durability::CommitLogs;
use super::link::{Link, Links};
use super::writer::Writer;
use super::{ReadJob, Shared, WriteJob, durability, reader, scan};
use crate::store::{Durability, Health};
use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::spawn_local;

/// Between two looks at the cluster's clocks and commit logs.
const WATCH: Duration = Duration::from_secs(60);

/// Between two looks at what is overdue, and at whether the store is closed.
const TICK: Duration = Duration::from_millis(25);

/// Between two judgements of how the store is.
const JUDGEMENT: Duration = Duration::from_millis(500);

/// Failures without a success for this long are an outage.
const OUTAGE: Duration = Duration::from_secs(1);

/// From one attempt to get ready to the next: at first, and at most.
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// How long a new link may take to be of use in an outage.
const NEW_LINK: Duration = Duration::from_secs(2);

/// One attempt to get ready: names, handshakes and logins may all hang.
const ATTEMPT: Duration = Duration::from_secs(20);

/// Runs until the store is closed.
pub(super) async fn run(shared: Arc<Shared>, mut jobs: Jobs) {
    let mut watch = Watch::default();
    let link = tokio::select! {
        link = get_ready(&shared, &mut watch) => Some(link),
        () = refuse_until_closed(&shared, &mut jobs) => None,
    };
    if let Some(link) = link {
        serve(&shared, watch, link, &mut jobs).await;
    }
    jobs.writes.close();
    jobs.reads.close();
    while let Some(job) = jobs.writes.recv().await {
        job.refuse();
    }
    while let Some(job) = jobs.reads.recv().await {
        job.refuse();
    }
}

/// Where jobs come in.
pub(super) struct Jobs {
    pub(super) writes: UnboundedReceiver<WriteJob>,
    pub(super) reads: UnboundedReceiver<ReadJob>,
}

async fn refuse_until_closed(shared: &Shared, jobs: &mut Jobs) {
    let mut tick = tokio::time::interval(TICK);
    while !shared.closed.load(Ordering::Relaxed) {
        tokio::select! {
            Some(job) = jobs.writes.recv() => job.refuse(),
            Some(job) = jobs.reads.recv() => job.refuse(),
            _ = tick.tick() => {}
        }
    }
}

/// Tries until there is a link that may be used.
async fn get_ready(shared: &Shared, watch: &mut Watch) -> Link {
    let mut pause = RETRY_FIRST;
    loop {
        let reason = match tokio::time::timeout(ATTEMPT, attempt(shared, watch)).await {
            Ok(Ok(link)) => return link,
            Ok(Err(reason)) => reason,
            Err(_) => {
                let nodes = shared.options.nodes.join(", ");
                format!("no node of {nodes} has answered in {ATTEMPT:?}: see to --cassandra-nodes")
            }
        };
        watch.set(shared, Health::Unready(reason));
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_MAX);
    }
}

async fn attempt(shared: &Shared, watch: &mut Watch) -> Result<Link, String> {
    let link = Link::establish(shared).await?;
    watch.look(shared, &link.connection).await;
    watch.unsynced(shared).map_or(Ok(link), Err)
}

/// Carries out jobs until the store is closed and what was under way has ended.
async fn serve(shared: &Arc<Shared>, mut watch: Watch, link: Link, jobs: &mut Jobs) {
    let (links, pulse) = (Rc::new(Links::new(link)), Rc::new(Pulse::default()));
    let writer = Rc::new(Writer::new(Arc::clone(shared), Rc::clone(&links), Rc::clone(&pulse)));
    let reads = Rc::new(Cell::new(0_usize));
    watch.judge(shared, &pulse);
    let watching = spawn_local(watch.run(Arc::clone(shared), Rc::clone(&links), Rc::clone(&pulse)));
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut window = pin!(tokio::time::sleep(Duration::ZERO));
    // The first job of a window. The others are still in the channel.
    let mut first: Option<WriteJob> = None;
    while !shared.closed.load(Ordering::Relaxed) || first.is_some() || !writer.is_idle() || reads.get() > 0 {
        tokio::select! {
            Some(job) = jobs.writes.recv(), if first.is_none() => {
                first = Some(job);
                window.as_mut().reset(tokio::time::Instant::now() + shared.options.commit_window);
            }
            () = &mut window, if first.is_some() => {
                let others = std::iter::from_fn(|| jobs.writes.try_recv().ok());
                writer.take(first.take().into_iter().chain(others).flat_map(WriteJob::into_units));
            }
            Some(job) = jobs.reads.recv() => begin(job, shared, &links, &pulse, &reads),
            () = writer.freed() => {}
            _ = tick.tick() => writer.refuse_overdue(),
        }
        writer.dispatch();
    }
    watching.abort();
}

/// Begins a read on the store's thread.
fn begin(job: ReadJob, shared: &Arc<Shared>, links: &Rc<Links>, pulse: &Rc<Pulse>, reads: &Rc<Cell<usize>>) {
    match job {
        ReadJob::Scan(from, pieces) => {
            // Not waited for at the end: its reader learns that it has broken off.
            let (shared, links, pulse) = (Arc::clone(shared), Rc::clone(links), Rc::clone(pulse));
            spawn_local(async move { scan::run(&shared, &links, &pulse, from, pieces).await });
        }
        ReadJob::Bookmarks(user, movies, answer, permit) => {
            reads.set(reads.get() + 1);
            let (shared, links) = (Arc::clone(shared), Rc::clone(links));
            let (pulse, reads) = (Rc::clone(pulse), Rc::clone(reads));
            spawn_local(async move {
                let outcome = reader::bookmarks(&shared, &links, &pulse, user, movies).await;
                // Who asked may have gone.
                let _ = answer.send(outcome);
                drop(permit);
                reads.set(reads.get() - 1);
            });
        }
    }
}

/// What is known of the cluster beyond its answers.
#[derive(Default)]
struct Watch {
    clocks: Option<Verdict>,
    said: Option<Health>,
}

impl Watch {
    async fn run(mut self, shared: Arc<Shared>, links: Rc<Links>, pulse: Rc<Pulse>) {
        let mut looked = Instant::now();
        loop {
            tokio::time::sleep(JUDGEMENT).await;
            if looked.elapsed() >= WATCH {
                looked = Instant::now();
                self.look(&shared, &links.current().connection).await;
            }
            self.judge(&shared, &pulse);
            if pulse.outage().is_some() {
                let link = links.current();
                let (old, new) = tokio::join!(link.probe(), tokio::time::timeout(NEW_LINK, Link::establish(&shared)));
                match (old, new) {
                    (Ok(()), _) => pulse.beats(),
                    (Err(_), Ok(Ok(link))) => {
                        links.replace(link);
                        pulse.beats();
                    }
                    (Err(error), _) => pulse.fails(error),
                }
                self.judge(&shared, &pulse);
            }
        }
    }

    /// Looks at clocks and commit logs.
    async fn look(&mut self, shared: &Shared, connection: &Connection) {
        if !shared.rig.clock_is_set
            && let Some(verdict) = clock::watch(connection, &*shared.clock).await
        {
            shared.metrics.clock_ahead_us.set(verdict.ahead_us);
            self.clocks = Some(verdict);
        }
        let CommitLogs { durability: seen, is_grouped } = durability::seen(connection).await;
        let known = shared.condition.durability();
        // A node that is away says nothing; what was seen of it before still holds.
        if seen == Durability::Unknown && known.is_some() {
            return;
        }
        shared.rows_may_share.store(!is_grouped, Ordering::Relaxed);
        if known != Some(seen) {
            match seen {
                Durability::Synced => tracing::info!("every node syncs its commit log before it acknowledges"),
                Durability::Periodic => tracing::warn!(
                    "a node acknowledges before it syncs its commit log (commitlog_sync: periodic): what was \
                     acknowledged in the last seconds is lost if most copies lose their power at once"
                ),
                Durability::Unknown => tracing::warn!("the nodes do not say when they sync their commit logs"),
            }
            shared.condition.set_durability(seen);
        }
    }

    /// Why nothing may be written, if commit logs must be synced.
    fn unsynced(&self, shared: &Shared) -> Option<String> {
        let seen = shared.condition.durability();
        (shared.options.require_synced_commitlog && seen != Some(Durability::Synced)).then(|| {
            let seen = seen.unwrap_or(Durability::Unknown).name();
            format!("commitlog_sync of some node is {seen}, and --require-synced-commitlog wants batch or group on all")
        })
    }

    fn judge(&mut self, shared: &Shared, pulse: &Pulse) {
        let refusal = self.clocks.as_ref().and_then(Verdict::refusal).or_else(|| self.unsynced(shared));
        shared.takes_writes.store(refusal.is_none(), Ordering::Relaxed);
        let warnings: Vec<_> =
            pulse.outage().into_iter().chain(self.clocks.as_ref().and_then(Verdict::warning)).collect();
        let health = match refusal {
            Some(reason) => Health::Unready(reason),
            None if warnings.is_empty() => Health::Ready,
            None => Health::Degraded(warnings.join("; ")),
        };
        self.set(shared, health);
    }

    /// Sets the health; tells what has changed, once.
    fn set(&mut self, shared: &Shared, health: Health) {
        if self.said.as_ref() == Some(&health) {
            return;
        }
        match &health {
            Health::Unready(reason) => tracing::error!(%reason, "not ready"),
            Health::Degraded(reason) => tracing::warn!(%reason, "degraded"),
            Health::Ready => tracing::info!("the cluster is in use"),
            Health::Failed(_) => {}
        }
        shared.condition.set(health.clone());
        self.said = Some(health);
    }
}

/// Whether the cluster answers.
#[derive(Default)]
pub(super) struct Pulse {
    failing_since: Cell<Option<Instant>>,
    last_error: RefCell<String>,
}

impl Pulse {
    /// Something was done.
    pub(super) fn beats(&self) {
        self.failing_since.set(None);
    }

    /// Something was not.
    pub(super) fn fails(&self, error: String) {
        if self.failing_since.get().is_none() {
            self.failing_since.set(Some(Instant::now()));
        }
        *self.last_error.borrow_mut() = error;
    }

    fn outage(&self) -> Option<String> {
        let since = self.failing_since.get()?;
        (since.elapsed() >= OUTAGE).then(|| format!("the cluster does not answer: {}", self.last_error.borrow()))
    }
}

/// A failure of the driver in words.
pub(super) fn words(error: &dyn std::error::Error) -> String {
    chain(error)
}
