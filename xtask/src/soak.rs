//! `cargo xtask soak`: hours of faults under load, with a ledger in another process as the oracle.
//!
//! - `kill`: the server is killed at a random moment of its load and started again, in half of the cycles as a power cut
//!   (a build that keeps writes in its own memory until they are synced);
//! - `faults`: failing and slow and full disks, damage, lack of descriptors, overload, pauses, stops, clocks, drawn at random;
//! - `cassandra`: nodes of a real cluster killed, paused and restarted, with a server in front;
//! - `all`: `kill` and `faults` in turn, until the time is over.
//!
//! **The promise.** After each fault the server is started again and every row of the ledger is read back by
//! `playhead load verify`; one ledger lasts for the whole soak, so that a row that was kept once must be kept ever after.
//! `kill` begins with the controls: builds that lose must be caught, or nothing else here means anything. Everything that
//! happens is a line of JSON in the event log, the seed first; the same seed draws the same faults at the same moments, as
//! far as a loaded machine repeats anything.
//!
//! **The limits.** Loopback only; every wait has a deadline; the first loss ends the soak with the data left in place.

mod cases;
mod cassandra;

use crate::faults;
use crate::process::Deadline;
use crate::subject::{Launch, Load, Loaded, Server, eventually, load, wait_for};
use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Cycles within which a control must be caught.
const CYCLES_OF_CONTROL: u32 = 5;

/// From the first acknowledgement to the kill.
const KILLED_AFTER_MS: std::ops::RangeInclusive<u64> = 50..=3_000;

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    what: What,
    /// Draws the same faults again
    #[arg(long, global = true, value_name = "N")]
    seed: Option<u64>,
    /// Where the event log is written
    #[arg(long, global = true, value_name = "FILE", default_value = "target/soak-events.jsonl")]
    log: PathBuf,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Kills and power cuts, after the controls
    Kill {
        /// How many
        #[arg(long, value_name = "N", default_value_t = 300)]
        cycles: u32,
    },
    /// Faults drawn at random
    Faults {
        /// For how long
        #[arg(long, value_name = "N", default_value_t = 30.0)]
        minutes: f64,
        /// Only these, by name
        #[arg(long, value_name = "NAME")]
        only: Vec<String>,
    },
    /// Nodes of a three-node Cassandra cluster killed, paused and restarted at random
    Cassandra {
        /// For how long
        #[arg(long, value_name = "N", default_value_t = 30.0)]
        minutes: f64,
    },
    /// Controls, kills and faults in turn
    All {
        /// For how long
        #[arg(long, value_name = "H", default_value_t = 1.0)]
        hours: f64,
    },
}

/// What a soak runs with.
struct Soak {
    binary: PathBuf,
    held: PathBuf,
    early_ack: PathBuf,
    held_no_sync: PathBuf,
    rng: fastrand::Rng,
    log: File,
    started: Instant,
}

/// A store, its ledger elsewhere, and how often they were tried.
struct Subject {
    launch: Launch,
    /// Directories that stay if something goes wrong.
    data: PathBuf,
    ledger: PathBuf,
}

pub(crate) fn run(options: &Options, root: &Path) -> Result<()> {
    let deadline = Deadline::after(Duration::from_secs(3_600));
    let built = faults::build(root, deadline)?;
    let fault = |variable: &str| {
        let found = built.faulty.iter().find(|(name, _)| *name == variable);
        found.map(|(_, path)| path.clone()).with_context(|| format!("no build for {variable}"))
    };
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..));
    let path = root.join(&options.log);
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let log = OpenOptions::new().create(true).append(true).open(&path);
    let mut soak = Soak {
        // Kept aside: a build that runs meanwhile does not change what is soaked.
        binary: built.plain.clone(),
        held: fault("PLAYHEAD_BIN_HELD")?,
        early_ack: fault("PLAYHEAD_BIN_EARLY_ACK")?,
        held_no_sync: fault("PLAYHEAD_BIN_HELD_NO_SYNC")?,
        rng: fastrand::Rng::with_seed(seed),
        log: log.with_context(|| format!("can't write {}", path.display()))?,
        started: Instant::now(),
    };
    println!("repeat with --seed {seed}; events go to {}", options.log.display());
    soak.event(json!({"event": "start", "seed": seed, "what": format!("{:?}", options.what)}))?;
    let outcome = match &options.what {
        What::Kill { cycles } => soak.controls().and_then(|()| soak.kills(*cycles)),
        What::Faults { minutes, only } => soak.faults(Duration::from_secs_f64(minutes * 60.0), only),
        What::Cassandra { minutes } => cassandra::run(&mut soak, root, Duration::from_secs_f64(minutes * 60.0)),
        What::All { hours } => soak.all(Duration::from_secs_f64(hours * 3_600.0)),
    };
    let said = outcome.as_ref().map_or_else(|error| format!("{error:#}"), |()| "0 lost, 0 invented".to_owned());
    soak.event(json!({"event": "end", "outcome": said}))?;
    outcome
}

impl Soak {
    /// One line of the event log, and one for who watches.
    fn event(&mut self, mut event: Value) -> Result<()> {
        let elapsed_s = (self.started.elapsed().as_secs_f64() * 1_000.0).round() / 1_000.0;
        event["elapsed_s"] = json!(elapsed_s);
        writeln!(self.log, "{event}").context("can't write the event log")?;
        println!("{event}");
        Ok(())
    }

    fn subject(&self, binary: &Path) -> Result<Subject> {
        // The ledger lies on another file system, where there is one.
        let memory = Path::new("/dev/shm");
        let ledger = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let (data, ledger) = (tempfile::tempdir()?.keep(), ledger?.keep());
        // 128 KiB of log freeze the memtable: each second of load rotates, drains and recycles.
        let sizes = ["--segment-bytes", "65536", "--freeze-bytes", "131072", "--memtable-bytes", "1048576"];
        let disk = ["--disk-reserve-bytes", "1048576", "--block-cache-bytes", "4194304"];
        let launch = Launch::new(binary, &data.join("data"), &[&sizes[..], &disk].concat());
        Ok(Subject { launch, data, ledger })
    }

    /// Builds that lose must be caught.
    fn controls(&mut self) -> Result<()> {
        for (name, binary) in
            [("early acknowledgement", self.early_ack.clone()), ("no sync, power cut", self.held_no_sync.clone())]
        {
            let subject = self.subject(&binary)?;
            let mut caught = None;
            for cycle in 1..=CYCLES_OF_CONTROL {
                self.kill_under_load(&subject, &subject.launch)?;
                // Its own word counts too: a start that is refused because acknowledged data is gone.
                caught = match subject.launch.try_start()? {
                    Ok(server) => subject.verify(&server).err().map(|error| format!("{error:#}")),
                    Err(ended) => Some(ended.talk),
                };
                if let Some(how) = &caught {
                    let how: String = how.chars().take(300).collect();
                    self.event(json!({"event": "control caught", "control": name, "cycle": cycle, "how": how}))?;
                    break;
                }
            }
            ensure!(caught.is_some(), "the control `{name}` was not caught in {CYCLES_OF_CONTROL} cycles");
        }
        Ok(())
    }

    fn kills(&mut self, cycles: u32) -> Result<()> {
        let subject = self.subject(&self.binary.clone())?;
        for cycle in 1..=cycles {
            self.kill(&subject, cycle)?;
        }
        subject.keep_no_more()
    }

    /// One cycle: load, kill or power cut, start, verify.
    fn kill(&mut self, subject: &Subject, cycle: u32) -> Result<()> {
        let is_power_cut = cycle.is_multiple_of(2);
        let launch = if is_power_cut { subject.launch.of(&self.held) } else { subject.launch.clone() };
        let (after, loaded) = self.kill_under_load(subject, &launch)?;
        let server = launch.start().with_context(|| subject.left_in_place("the server did not start again"))?;
        let found = subject.verify(&server).with_context(|| subject.left_in_place("a loss"))?;
        self.event(json!({
            "event": if is_power_cut { "power cut" } else { "kill" },
            "cycle": cycle,
            "after_s": after.as_secs_f64(),
            "acknowledged": loaded.json["acknowledged"],
            "rows": found["rows"],
            "ready_after_s": server.ready_after.as_secs_f64(),
        }))?;
        // Half of the next cycles begin on what a clean stop has left.
        if self.rng.bool() { server.kill() } else { server.stop().map(drop) }
    }

    /// Starts a server and a load, and kills the server some time after the load has begun.
    fn kill_under_load(&mut self, subject: &Subject, launch: &Launch) -> Result<(Duration, Loaded)> {
        let server = launch.start().with_context(|| subject.left_in_place("the server did not start"))?;
        let load = self.load(subject, &server, "30s")?;
        let is_loaded = || server.metric("playhead_store_records_total") > 20.0;
        eventually(Duration::from_secs(30), "the load has begun", is_loaded)?;
        let after = Duration::from_millis(self.rng.u64(KILLED_AFTER_MS));
        wait_for(after);
        server.kill()?;
        load.interrupt()?;
        let loaded = load.wait()?;
        ensure!(!loaded.json.is_null(), "the load gave no result: {}", loaded.talk);
        Ok((after, loaded))
    }

    /// A load of its own kind: by schedule or as fast as it goes.
    fn load(&mut self, subject: &Subject, server: &Server, duration: &str) -> Result<Load> {
        let seed = self.rng.u32(..).to_string();
        let ledger = subject.ledger_file();
        let ledger = ledger.to_string_lossy();
        let mut words = vec!["--streamers", "400", "--interval", "400ms", "--connections", "32", "--workers", "1"];
        words.extend(["--duration", duration, "--patience", "3s", "--ledger", &ledger, "--seed", &seed]);
        if self.rng.u8(..3) == 0 {
            words.push("--saturate");
        }
        Load::start(&self.binary, &server.url, &subject.launch.directory, &words)
    }

    fn faults(&mut self, time: Duration, only: &[String]) -> Result<()> {
        let subject = self.subject(&self.binary.clone())?;
        let end = Instant::now() + time;
        let cases = cases::chosen(only)?;
        let mut count = 0_u32;
        while Instant::now() < end || count == 0 {
            count += 1;
            let drawn = self.rng.usize(..cases.len());
            self.fault(&subject, cases[drawn], count)?;
        }
        subject.keep_no_more()
    }

    /// One fault, a start, and a look at every row.
    fn fault(&mut self, subject: &Subject, case: &cases::Case, count: u32) -> Result<()> {
        let how = (case.run)(self, subject)
            .with_context(|| subject.left_in_place(&format!("fault {count}, {}", case.name)))?;
        let found = match &how {
            cases::Outcome::Skipped(_) => Value::Null,
            cases::Outcome::Done(_) => {
                let server = subject.launch.start().with_context(|| subject.left_in_place("no start afterwards"))?;
                let found = subject.verify(&server).with_context(|| subject.left_in_place(case.name))?;
                server.stop()?;
                found["rows"].clone()
            }
        };
        let (event, how) = match how {
            cases::Outcome::Done(how) => ("fault", how),
            cases::Outcome::Skipped(why) => ("SKIPPED fault", why),
        };
        self.event(
            json!({"event": event, "count": count, "name": case.name, "row": case.row, "how": how, "rows": found}),
        )
    }

    fn all(&mut self, time: Duration) -> Result<()> {
        self.controls()?;
        let end = Instant::now() + time;
        let subject = self.subject(&self.binary.clone())?;
        let cases = cases::chosen(&[])?;
        let mut count = 0;
        while Instant::now() < end {
            count += 1;
            if self.rng.bool() {
                self.kill(&subject, count)?;
            } else {
                let drawn = self.rng.usize(..cases.len());
                self.fault(&subject, cases[drawn], count)?;
            }
        }
        subject.keep_no_more()
    }
}

impl Subject {
    fn ledger_file(&self) -> PathBuf {
        self.ledger.join("ledger")
    }

    /// Reads every row back; what is lost or invented is an error. Before the first load there is none.
    fn verify(&self, server: &Server) -> Result<Value> {
        if !self.ledger_file().exists() {
            return Ok(json!({"rows": 0}));
        }
        self.verify_at(server, &self.ledger_file())
    }

    fn verify_at(&self, server: &Server, ledger: &Path) -> Result<Value> {
        let ledger = ledger.to_string_lossy();
        let found = load(&self.launch.binary, &server.url, &self.launch.directory, &["verify", "--ledger", &ledger])?;
        match found.code {
            Some(0) => Ok(found.json),
            code => bail!("verification ended with {code:?}: {} {}", found.json, found.talk.trim()),
        }
    }

    /// Says where the data is, and leaves it there.
    fn left_in_place(&self, what: &str) -> String {
        let (data, ledger) = (self.data.display(), self.ledger.display());
        format!("{what}; the store is in {data}, the ledger in {ledger}")
    }

    /// The soak went well: nothing is left.
    fn keep_no_more(self) -> Result<()> {
        fs::remove_dir_all(self.data)?;
        Ok(fs::remove_dir_all(self.ledger)?)
    }
}
