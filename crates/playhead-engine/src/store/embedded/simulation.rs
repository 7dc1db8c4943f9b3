//! The crash simulation: the whole write path over a simulated disk, cut off at every step, against the oracle.
//!
//! One seed is one history of a store: commits, freezes, drains, recycled segments, and many ends of the process or
//! the machine at a call chosen by chance, each followed by a recovery whose every answer is compared with the model.
//! It runs on one thread, so a seed repeats to the last call. `PLAYHEAD_SIMULATION_SEEDS` sets how many seeds run,
//! `PLAYHEAD_SIMULATION_FIRST` the first.
//!
//! **What is checked after each recovery.** The store holds exactly the acknowledged records; or those and the one
//! frame that was under way, whole. Point reads and lists agree. Live write times rise strictly, across restarts too.
//! Each seed has rotated, drained and recycled; each has crashed.
//!
//! **The controls.** With the sync, the check of the CRC, the check of the salt, or the sync of the directory left
//! out, some seed must notice.

use super::base::{Base, BaseOptions, Expiry, ModelBase};
use super::committer::{Committer, DrainJob};
use super::log::defence::{self, Defence};
use super::log::{SPARES_KEPT, Segments};
use super::read::{SurplusList, TitlesInMemory, UserInMemory};
use super::simulated::{Order, Sabotage, SimDisk};
use super::tables::Tables;
use super::threads::drain_once;
use super::{Chance, EmbeddedOptions, Opened, Places, open_parts};
use crate::conformance::TestClock;
use crate::store::memory::Model;
use fastrand::Rng;
use playhead_core::{
    Bookmark, Change, Clock, MediaDuration, MovieId, Position, Record, RecordKind, UserId, Write, WriteTime,
};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const USERS: [i64; 5] = [-1, 0, 7, i64::MIN, i64::MAX];
const MOVIES: [i64; 5] = [-1, 0, 3, i64::MIN, i64::MAX];

/// What a history contained; a seed that lacks any of it proves little.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    commits: u64,
    rotations: u64,
    drains: u64,
    recycled: u64,
    crashes: u64,
    kills: u64,
    failures: u64,
}

/// One store over its lives.
struct History {
    random: Rng,
    disk: SimDisk,
    base: ModelBase,
    clock: Arc<TestClock>,
    options: EmbeddedOptions,
    /// What was acknowledged.
    kept: Model,
    /// The frame that was under way when the process ended.
    in_doubt: Vec<Record>,
    newest_live: Option<WriteTime>,
    tally: Tally,
}

/// One life of the process.
struct Life {
    base: Base,
    tables: Arc<Tables>,
    surplus: SurplusList,
    segments: Arc<Segments<SimDisk>>,
    committer: Committer<SimDisk>,
    job: Option<DrainJob>,
}

/// Runs one seed; what it found wrong, if anything.
fn run_seed(seed: u64, sabotage: Sabotage) -> Result<(Tally, u64), String> {
    let random = Rng::with_seed(seed);
    let clock = Arc::new(TestClock::at_micros(1_700_000_000_000_000));
    let options = EmbeddedOptions {
        segment_bytes: 24 << 10,
        freeze_bytes: 32 << 10,
        memtable_bytes: 1 << 20,
        ..EmbeddedOptions::at("simulated")
    };
    let mut history = History {
        random,
        disk: SimDisk::new(sabotage),
        base: ModelBase::new(Expiry::new(&BaseOptions {
            block_cache_bytes: 0,
            retention: None,
            barrier_life: Duration::from_secs(1 << 40),
            clock: clock.clone(),
        })),
        clock,
        options,
        kept: Model::default(),
        in_doubt: Vec::new(),
        newest_live: None,
        tally: Tally::default(),
    };
    // Lives go on until the history holds all that it must, and at least four of them have ended.
    for life in 0..200 {
        let tally = history.tally;
        let is_complete = tally.rotations > 0 && tally.drains > 1 && tally.recycled > 0 && tally.crashes > 1;
        if is_complete && life >= 4 {
            break;
        }
        history.live().map_err(|wrong| format!("seed {seed}, life {life}: {wrong}"))?;
    }
    history.end_in_order().map_err(|wrong| format!("seed {seed}, at the end: {wrong}"))?;
    Ok((history.tally, history.disk.trace()))
}

impl History {
    /// One life: it may end at any call of the disk, while opening too.
    fn live(&mut self) -> Result<(), String> {
        let call = self.disk.calls() + self.random.u64(1..120);
        let is_failure = self.random.u8(0..5) == 0;
        self.tally.failures += u64::from(is_failure);
        self.disk.order(Some(if is_failure { Order::Fail { at: call } } else { Order::PowerOff { at: call } }));
        let is_base_next = self.random.u8(0..4) == 0;
        if is_base_next {
            self.base.crash_next_ingest(self.random.bool());
        }
        if let Some(mut life) = self.open()? {
            self.check(&life)?;
            for _ in 0..self.random.usize(1..60) {
                if self.step(&mut life)?.is_break() {
                    break;
                }
            }
        }
        // The process may end while the machine goes on; the page cache then keeps what the disk does not have.
        if self.random.u8(0..3) == 0 {
            self.tally.kills += 1;
            self.disk.kill_process();
        } else {
            self.tally.crashes += 1;
            self.disk.crash(&mut self.random);
        }
        Ok(())
    }

    /// A last life without faults, closed in order and opened again.
    fn end_in_order(&mut self) -> Result<(), String> {
        // Uses up a crash of the base that was ordered and not met.
        let base = Base::Model(self.base.clone());
        if let Some(mark) = base.mark().map_err(|error| error.to_string())? {
            let _ = base.ingest(std::iter::empty(), &mark);
        }
        for _ in 0..2 {
            let mut life = self.open()?.ok_or("does not open, though nothing is wrong with the disk")?;
            self.check(&life)?;
            for _ in 0..5 {
                self.commit(&mut life).map_err(|()| "a commit failed, though nothing is wrong with the disk")?;
            }
            self.drain(&mut life).map_err(|error| format!("a drain failed: {error}"))?;
            life.job = life.committer.freeze();
            self.drain(&mut life).map_err(|error| format!("the last drain failed: {error}"))?;
            self.check(&life)?;
            drop(life);
            self.disk.kill_process();
        }
        Ok(())
    }

    fn open(&mut self) -> Result<Option<Life>, String> {
        let base = Base::Model(self.base.clone());
        let mut store_id = [0; 16];
        self.random.fill(&mut store_id);
        let chance = Chance { store_id, salt_seed: self.random.u64(..) };
        let places = Places::of(Path::new("simulated"));
        match open_parts(self.disk.clone(), &base, &self.options, &places, chance) {
            Ok(Opened { committer, segments, tables, first_drain, .. }) => {
                let surplus = SurplusList::default();
                Ok(Some(Life { base, tables, surplus, segments, committer, job: first_drain }))
            }
            // A disk that fails while the store opens is no loss; one that works, and a store that does not open, is.
            Err(_) if self.disk.has_failed() => Ok(None),
            Err(error) if error.to_string().contains("simulated base crashed") => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    fn step(&mut self, life: &mut Life) -> Result<ControlFlow<()>, String> {
        let done = match self.random.u8(0..10) {
            0 => self.drain(life).map_err(|_| ()),
            1 => life.segments.provide_spare().map(|_| ()).map_err(|_| ()),
            2 => {
                self.check(life)?;
                Ok(())
            }
            _ => self.commit(life),
        };
        Ok(if done.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    }

    fn commit(&mut self, life: &mut Life) -> Result<(), ()> {
        let writes: Vec<Write> = (0..self.random.usize(1..=120)).map(|_| self.any_write()).collect();
        if life.segments.spare_count() < SPARES_KEPT {
            // What the keeper does meanwhile; where it does not come to it, the committer refuses.
            let provided = life.segments.provide_spare();
            if provided.is_err() || !life.committer.has_room(writes.len(), Duration::ZERO) {
                return Err(());
            }
        }
        let segments_before = life.segments.closed_count();
        let result = life.committer.commit(self.clock.now(), writes.iter());
        let records = life.committer.last_records().to_vec();
        if result.is_err() {
            self.in_doubt = records;
            return Err(());
        }
        for record in &records {
            self.note(record);
        }
        self.tally.commits += 1;
        self.tally.rotations += u64::from(life.segments.closed_count() > segments_before);
        if life.committer.is_freeze_due() && life.job.is_none() {
            life.job = life.committer.freeze();
        }
        Ok(())
    }

    fn note(&mut self, record: &Record) {
        self.kept.apply(record);
        if record.kind != RecordKind::LatePut {
            assert!(Some(record.row.write_time) > self.newest_live, "live write times rise strictly");
            self.newest_live = Some(record.row.write_time);
        }
    }

    fn drain(&mut self, life: &mut Life) -> Result<(), String> {
        let Some(job) = life.job.take() else { return Ok(()) };
        let before = life.segments.closed_count();
        drain_once(job, &life.tables, &life.base, &life.surplus.take(), self.clock.now(), &life.segments)?;
        self.tally.drains += 1;
        self.tally.recycled += (before - life.segments.closed_count()) as u64;
        Ok(())
    }

    fn any_write(&mut self) -> Write {
        let user = UserId(USERS[self.random.usize(..USERS.len())]);
        let movie = MovieId(MOVIES[self.random.usize(..MOVIES.len())]);
        let position = Position::from_seconds(f64::from(self.random.u32(0..10_000))).unwrap();
        let duration = self.random.bool().then(|| MediaDuration::from_seconds(7_200.0).unwrap());
        // The wall clock stands, runs, and now and then jumps back.
        match self.random.u8(0..20) {
            0 => self.clock.step_micros(-3_000_000),
            1..=8 => self.clock.step_micros(self.random.i64(0..200_000)),
            _ => {}
        }
        let change = match self.random.u8(0..40) {
            0 => Change::Erase,
            1..=3 => Change::Forget { movie },
            4..=9 => {
                let age = Duration::from_micros(self.random.u64(0..3_000_000));
                Change::LatePut { movie, position, duration, age }
            }
            _ => Change::Put { movie, position, duration },
        };
        Write { user, change }
    }

    /// Compares every answer of the store with the model; settles what was in doubt.
    fn check(&mut self, life: &Life) -> Result<(), String> {
        if let Err(wrong) = compare(life, &self.kept) {
            let mut with_doubtful = self.kept.clone();
            for record in &self.in_doubt {
                with_doubtful.apply(record);
            }
            compare(life, &with_doubtful).map_err(|_| wrong)?;
            for record in std::mem::take(&mut self.in_doubt) {
                self.note(&record);
            }
        }
        self.in_doubt.clear();
        Ok(())
    }
}

fn compare(life: &Life, model: &Model) -> Result<(), String> {
    for user in USERS.map(UserId) {
        let movies = MOVIES.map(MovieId);
        let expected: Vec<Option<Bookmark>> = movies.iter().map(|movie| model.bookmark(user, *movie)).collect();
        let filter = life.base.expiry().filter();
        let mut titles = TitlesInMemory::of(&life.tables, user, movies.to_vec());
        titles.add_base(&life.base).map_err(|error| error.to_string())?;
        let found = titles.bookmarks(&filter);
        if found != expected {
            return Err(format!("user {user}: found {found:?}, expected {expected:?}"));
        }
        let listed = UserInMemory::of(&life.tables, user);
        let listed = listed.list(Some(&life.base), &filter, &life.surplus).map_err(|error| error.to_string())?;
        if listed != model.titles(user) {
            return Err(format!("user {user}: listed {listed:?}, expected {:?}", model.titles(user)));
        }
    }
    Ok(())
}

fn number_from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number of seeds"))
}

/// Runs seeds until one finds something wrong; which, and what.
fn first_wrong_seed(seeds: u64, sabotage: Sabotage) -> Option<String> {
    (0..seeds).find_map(|seed| {
        let found = std::panic::catch_unwind(|| run_seed(seed, sabotage).err());
        found.unwrap_or_else(|_| Some(format!("seed {seed}: a panic")))
    })
}

#[test]
fn nothing_is_lost_or_invented_in_any_seed() {
    let first = number_from_environment("PLAYHEAD_SIMULATION_FIRST", 0);
    let seeds = number_from_environment("PLAYHEAD_SIMULATION_SEEDS", 2_000);
    let mut sum = Tally::default();
    for seed in first..first + seeds {
        let (tally, _) = run_seed(seed, Sabotage::None).unwrap_or_else(|wrong| panic!("{wrong}"));
        assert!(
            tally.rotations > 0 && tally.drains > 0 && tally.recycled > 0 && tally.crashes > 0,
            "{seed}: {tally:?}"
        );
        sum.commits += tally.commits;
        sum.rotations += tally.rotations;
        sum.drains += tally.drains;
        sum.recycled += tally.recycled;
        sum.crashes += tally.crashes;
        sum.kills += tally.kills;
        sum.failures += tally.failures;
    }
    println!("{seeds} seeds from {first}: nothing lost, nothing invented; {sum:?}");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..20 {
        assert_eq!(run_seed(seed, Sabotage::None).unwrap().1, run_seed(seed, Sabotage::None).unwrap().1);
    }
}

/// Seeds within which a control must be caught.
const CONTROL_SEEDS: u64 = 500;

#[test]
fn a_sync_left_out_is_noticed() {
    let noticed = first_wrong_seed(CONTROL_SEEDS, Sabotage::NoSync).expect("lost writes go unnoticed");
    println!("noticed: {noticed}");
}

#[test]
fn a_directory_sync_left_out_is_noticed() {
    let noticed = first_wrong_seed(CONTROL_SEEDS, Sabotage::NoDirectorySync).expect("lost names go unnoticed");
    println!("noticed: {noticed}");
}

#[test]
fn a_check_left_out_is_noticed() {
    for left_out in [Defence::Crc, Defence::Salt] {
        defence::LEFT_OUT.set(Some(left_out));
        let noticed = first_wrong_seed(CONTROL_SEEDS, Sabotage::None);
        defence::LEFT_OUT.set(None);
        println!("{left_out:?} left out, noticed: {}", noticed.expect("it goes unnoticed"));
    }
}
