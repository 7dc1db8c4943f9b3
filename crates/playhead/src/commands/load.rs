//! `playhead load`: plays many viewers against a server, says what it saw, and reads back what the server acknowledged.
//!
//! Also `load verify`, which reads an older ledger back, and `load merge`, which makes one result of several processes'.
//! The work is the crate `playhead_load`'s; this file knows flags, tokens, the clock, the terminal and exit codes.

use crate::Failure;
use crate::cli::{Output, TokenFlags};
use crate::clock::SystemClock;
use crate::commands::token;
use crate::config::secret_of;
use crate::descriptors;
use anyhow::Context;
use clap::{Args, Subcommand};
use playhead_core::UserId;
use playhead_load::ledger::Contents;
use playhead_load::report::Report;
use playhead_load::run::{Finished, Progress};
use playhead_load::target::Target;
use playhead_load::verify::{Readback, Verification};
use playhead_load::{Plan, capacity, html, table};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

const EXAMPLES: &str = "\
Examples:
  playhead load --streamers 10k --duration 60s --verify
      Ten thousand viewers against a `serve --dev` in this directory; then all that was acknowledged is read back.
  playhead load --streamers 40k --ledger ledger --report report.html
      Keeps what was sent and acknowledged in a file, to be checked after a crash, and writes a page with plots.
  playhead load verify --ledger ledger
      Reads an older ledger back.
  playhead load --saturate --duration 10s
      As fast as answers come: the most heartbeats a second, and what each costs.
  playhead load --find-capacity --duration 60s
      The most viewers with a p99 of 100 ms, without an error, with everything read back.
  playhead load merge a.json b.json
      One result of two processes that ran side by side with viewers of their own (--first-user).

Exit codes: 0 all is well; 1 cut short or not read back; 2 wrong use; 3 not valid, or an objective missed; 4 a lost or
wrong position.";

/// Flags of `load`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct Load {
    #[command(subcommand)]
    command: Option<LoadCommand>,
    #[command(flatten)]
    run: RunFlags,
}

#[derive(Debug, Subcommand)]
enum LoadCommand {
    /// Reads a ledger back: every position must be there as it was acknowledged
    Verify(VerifyFlags),
    /// Makes one result of the JSON results of processes that ran side by side
    Merge(MergeFlags),
}

/// Where the server is, and what it trusts.
#[derive(Debug, Clone, Args)]
struct ServerFlags {
    /// The server
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    target: String,
    /// The data directory of a `--dev` server, for its secret
    #[arg(long, env = "PLAYHEAD_DATA_DIR", value_name = "DIRECTORY", default_value = "./playhead-data")]
    data_dir: PathBuf,
    #[command(flatten)]
    tokens: TokenFlags,
}

/// What is played.
#[derive(Debug, Clone, Args)]
struct RunFlags {
    #[command(flatten)]
    server: ServerFlags,
    /// Viewers who play at the same time; 40k and 1M are numbers too
    #[arg(long, value_name = "N", default_value = "10k", value_parser = count)]
    streamers: u32,
    /// From one heartbeat of a viewer to the next
    #[arg(long, value_name = "TIME", default_value = "4s", value_parser = time)]
    interval: Duration,
    /// Connections that carry them, or `each`: every viewer has one
    #[arg(long, value_name = "N", default_value = "256", value_parser = connections)]
    connections: Connections,
    /// How long heartbeats are sent
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = time)]
    duration: Duration,
    /// The first viewer's user id; the others count down from it. Not a real viewer's
    #[arg(long, value_name = "ID", default_value = "-1", allow_hyphen_values = true, value_parser = user_id)]
    first_user: UserId,
    /// Threads; one per core by default
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: Option<u16>,
    /// HTTP/2, without negotiation, instead of HTTP/1.1
    #[arg(long)]
    http2: bool,
    /// As fast as answers come, instead of by a schedule: each connection sends again once it is answered
    #[arg(long, conflicts_with = "find_capacity")]
    saturate: bool,
    /// Finds the most streamers that the server carries, beginning with --streamers
    #[arg(long, conflicts_with = "ledger")]
    find_capacity: bool,
    /// Viewers only play: nobody pauses, seeks, quits or changes the device
    #[arg(long)]
    steady: bool,
    /// What the viewers' behaviour is drawn from
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// How long an answer may take
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time)]
    patience: Duration,
    /// How long tokens are valid; an hour more than the run by default
    #[arg(long, value_name = "TIME", value_parser = time)]
    token_ttl: Option<Duration>,
    /// An objective: exit code 3 if the p99 of the latency is above it. 100ms for --find-capacity by default
    #[arg(long, value_name = "TIME", value_parser = time)]
    p99_max: Option<Duration>,
    /// Reads everything back after the run
    #[arg(long)]
    verify: bool,
    /// Keeps what was sent and acknowledged in this file; if it is there, the run goes on with it
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
    #[command(flatten)]
    result: ResultFlags,
}

/// Where results go.
#[derive(Debug, Clone, Args)]
struct ResultFlags {
    /// How to print the result
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output: Output,
    /// Also writes the result as JSON to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Also writes a page with plots to this file
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// Flags of `load verify`.
#[derive(Debug, Args)]
struct VerifyFlags {
    #[command(flatten)]
    server: ServerFlags,
    /// The ledger of a run
    #[arg(long, value_name = "FILE")]
    ledger: PathBuf,
    /// How to print the result
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output: Output,
}

/// Flags of `load merge`.
#[derive(Debug, Args)]
struct MergeFlags {
    /// JSON results
    #[arg(value_name = "FILE", required = true, num_args = 2..)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    result: ResultFlags,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Connections {
    Each,
    Count(u32),
}

fn time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).ok().filter(|time| *time >= Duration::from_millis(1));
    time.ok_or_else(|| "a time is a number and a unit, such as 500ms, 10s, 1h or 30d".to_owned())
}

/// A count above 0, also with k or M behind it.
fn count(text: &str) -> Result<u32, String> {
    let (digits, factor) = match text.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 1_000.0),
        None => text.strip_suffix('M').map_or((text, 1.0), |digits| (digits, 1e6)),
    };
    let number: Option<f64> = digits.parse().ok().map(|number: f64| number * factor);
    let whole =
        number.filter(|number| number.fract() == 0.0 && (1.0..=f64::from(capacity::STREAMERS_MAX)).contains(number));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is whole and in range")]
    whole
        .map(|number| number as u32)
        .ok_or_else(|| format!("a whole number from 1 to {}, such as 500, 40k or 1M", capacity::STREAMERS_MAX))
}

fn connections(text: &str) -> Result<Connections, String> {
    if text == "each" { Ok(Connections::Each) } else { count(text).map(Connections::Count) }
}

fn user_id(text: &str) -> Result<UserId, String> {
    text.parse().map_err(|error: playhead_core::ParseIdError| error.to_string())
}

/// Runs the command.
pub(crate) fn run(flags: Load) -> Result<(), Failure> {
    match flags.command {
        None => load(&flags.run),
        Some(LoadCommand::Verify(flags)) => verify(&flags),
        Some(LoadCommand::Merge(flags)) => merge(&flags),
    }
}

/// Signs tokens as the server expects them.
struct Minter {
    secret: Vec<u8>,
    flags: TokenFlags,
    ttl: Duration,
}

impl Minter {
    fn new(server: &ServerFlags, ttl: Duration) -> Result<Self, Failure> {
        Ok(Self { secret: secret_of(&server.tokens, &server.data_dir)?, flags: server.tokens.clone(), ttl })
    }

    fn mint(&self, user: i64) -> Result<String, String> {
        token::mint(&self.secret, &self.flags, UserId(user), self.ttl).map_err(|error| format!("{error:#}"))
    }
}

const HOUR: Duration = Duration::from_secs(3_600);

fn load(flags: &RunFlags) -> Result<(), Failure> {
    let mut plan = plan(flags)?;
    let minter = Minter::new(&flags.server, flags.token_ttl.unwrap_or(flags.duration + HOUR))?;
    let stop = on_signals()?;
    if flags.find_capacity {
        return find_capacity(flags, plan, &minter, &stop);
    }
    let started_at_s = SystemClock.seconds();
    plan.first_title = first_title(started_at_s);
    let (finished, verification) = play(&plan, flags.verify, &minter, &stop)?;
    let report = Report::new(&plan, &finished, verification, started_at_s, flags.p99_max);
    publish(&report, &flags.result)?;
    judge(&report)
}

fn plan(flags: &RunFlags) -> Result<Plan, Failure> {
    let connections = match flags.connections {
        Connections::Each => flags.streamers,
        // More than streamers would be idle.
        Connections::Count(count) => count.min(flags.streamers),
    };
    let most = descriptors::left_for_connections();
    if connections as usize > most {
        return Err(Failure::usage(format!(
            "{connections} connections are more than the {most} that this process may have: give fewer --connections, or raise the \
             limit of open files (ulimit -n)"
        )));
    }
    let lowest = flags.first_user.0.checked_sub(i64::from(flags.streamers));
    if lowest.is_none() {
        return Err(Failure::usage("--first-user is too low for so many streamers: they count down from it"));
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = flags.workers.map_or_else(|| u32::try_from(cores).unwrap_or(1), u32::from);
    Ok(Plan {
        target: Target::parse(&flags.server.target).map_err(|error| Failure { error: error.into(), exit_code: 2 })?,
        streamers: flags.streamers,
        interval: flags.interval,
        connections,
        duration: flags.duration,
        first_user: flags.first_user.0,
        // None without a connection or a streamer.
        workers: workers.min(connections),
        http2: flags.http2,
        saturate: flags.saturate,
        steady: flags.steady,
        seed: flags.seed,
        patience: flags.patience,
        first_title: 0,
        ledger: flags.ledger.clone(),
    })
}

/// Titles of a run that begins now: a million for each second since 1970, exact in JavaScript too.
fn first_title(now_s: u64) -> i64 {
    i64::try_from(now_s).unwrap_or_default().saturating_mul(1 << 20)
}

fn play(
    plan: &Plan,
    verifies: bool,
    minter: &Minter,
    stop: &AtomicBool,
) -> Result<(Finished, Option<Verification>), Failure> {
    let mint = |user| minter.mint(user);
    let mut line = ProgressLine::new();
    let finished = playhead_load::run(plan.clone(), &mint, stop, &mut |progress| line.show(plan, progress))?;
    line.clear();
    if !verifies || finished.stop.is_some() {
        return Ok((finished, None));
    }
    let first_title = finished.first_title;
    let found = read_back(&plan.target, &finished.rows, first_title, minter, stop)?;
    Ok((finished, Some(found)))
}

fn read_back(
    target: &Target,
    rows: &[playhead_load::ledger::Row],
    first_title: i64,
    minter: &Minter,
    stop: &AtomicBool,
) -> Result<Verification, Failure> {
    let mint = |user| minter.mint(user);
    let mut line = ProgressLine::new();
    let readback = Readback { target, rows, first_title, mint: &mint, stop, workers: 2 };
    let found = readback.verify(&mut |done, of| line.print(&format!("read back: {done} of {of} users")));
    line.clear();
    Ok(found.context("can't read back")?)
}

fn find_capacity(flags: &RunFlags, mut plan: Plan, minter: &Minter, stop: &AtomicBool) -> Result<(), Failure> {
    let p99_max = flags.p99_max.unwrap_or(Duration::from_millis(100));
    let mut tries = Vec::new();
    let carried = capacity::search(plan.streamers, |streamers| {
        let started_at_s = SystemClock.seconds();
        plan.streamers = streamers;
        plan.first_title = first_title(started_at_s);
        if let Connections::Count(count) = flags.connections {
            plan.connections = count.min(streamers);
        } else {
            plan.connections = streamers;
        }
        plan.workers = plan.workers.min(plan.connections);
        let (finished, found) = play(&plan, true, minter, stop)?;
        let report = Report::new(&plan, &finished, found, started_at_s, Some(p99_max));
        let is_carried = report.exit_code() == 0;
        let reasons = [&report.invalid_because[..], &report.objectives_missed].concat().join("; ");
        let p99 = report.latency_ms.p99;
        let verdict = if is_carried { "carried".to_owned() } else { format!("not carried: {reasons}") };
        eprintln!("{streamers} streamers, p99 {p99:.1} ms: {verdict}");
        let exit_code = report.exit_code();
        tries.push(report);
        // A loss or an end before its time is no question of how many.
        match judge(&tries[tries.len() - 1]) {
            Err(failure) if exit_code == 1 || exit_code == 4 => Err(failure),
            _ => Ok(is_carried),
        }
    })?;
    let best = tries.iter().rfind(|report| report.asked.streamers == u64::from(carried));
    match flags.result.output {
        Output::Text => {
            print(&format!("streamers carried: {carried} (p99 at most {p99_max:?}, no error, everything read back)\n"));
        }
        Output::Json => {
            let tries: Vec<_> = tries
                .iter()
                .map(|report| {
                    serde_json::json!({
                        "streamers": report.asked.streamers,
                        "is_carried": report.exit_code() == 0,
                        "p99_ms": report.latency_ms.p99,
                        "acknowledged_per_s": report.acknowledged_per_s,
                        "invalid_because": report.invalid_because,
                        "objectives_missed": report.objectives_missed,
                    })
                })
                .collect();
            let schema = "playhead-load-capacity/1";
            let p99_max_ms = p99_max.as_secs_f64() * 1_000.0;
            print(&format!(
                "{}\n",
                serde_json::json!({"schema": schema, "streamers_carried": carried, "p99_max_ms": p99_max_ms, "tries": tries})
            ));
        }
    }
    match best {
        Some(report) => files(report, &flags.result),
        None => Err(Failure { error: anyhow::anyhow!("not a single streamer was carried"), exit_code: 3 }),
    }
}

fn verify(flags: &VerifyFlags) -> Result<(), Failure> {
    let target = Target::parse(&flags.server.target).map_err(|error| Failure { error: error.into(), exit_code: 2 })?;
    let minter = Minter::new(&flags.server, HOUR * 24)?;
    let mut contents = Contents::read(&flags.ledger)?;
    target.ask(&minter.mint(contents.head.first_user).map_err(anyhow::Error::msg)?)?;
    let stop = on_signals()?;
    let found = read_back(&target, &contents.rows(), contents.head.first_title, &minter, &stop)?;
    if !contents.head.is_exact {
        eprintln!(
            "the run of this ledger did not end in order: what it sent is known as a bound, its last second of acknowledgements may be missing"
        );
    }
    match flags.output {
        Output::Text => {
            let mut text = format!("{}\n", table::verification(&found));
            found.faults.iter().for_each(|fault| text.push_str(&format!("fault        {fault}\n")));
            print(&text);
        }
        Output::Json => print(&format!("{}\n", serde_json::to_string(&found)?)),
    }
    if found.is_kept() {
        contents.confirm(&flags.ledger, &found.recovered)?;
    }
    judge_verification(&found)
}

fn merge(flags: &MergeFlags) -> Result<(), Failure> {
    let mut reports = Vec::new();
    for file in &flags.files {
        let text = std::fs::read_to_string(file).with_context(|| format!("can't read {}", file.display()))?;
        let report: Report = serde_json::from_str(&text)
            .with_context(|| format!("{} is not a result of `playhead load --json`", file.display()))?;
        reports.push(report);
    }
    let report = Report::merge(reports)?;
    publish(&report, &flags.result)?;
    judge(&report)
}

/// Prints a result and writes its files.
fn publish(report: &Report, flags: &ResultFlags) -> Result<(), Failure> {
    match flags.output {
        Output::Text => print(&table::of(report)),
        Output::Json => print(&format!("{}\n", serde_json::to_string(report)?)),
    }
    files(report, flags)
}

fn files(report: &Report, flags: &ResultFlags) -> Result<(), Failure> {
    let write = |path: &Path, text: &str| {
        std::fs::write(path, text).with_context(|| format!("can't write the result to {}", path.display()))
    };
    if let Some(path) = &flags.json {
        write(path, &serde_json::to_string(report)?)?;
    }
    if let Some(path) = &flags.report {
        write(path, &html::page(report))?;
    }
    Ok(())
}

fn print(text: &str) {
    // Who closed our stdout does not want to know.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// What a result means for the exit code.
fn judge(report: &Report) -> Result<(), Failure> {
    let exit_code = report.exit_code();
    let error = match exit_code {
        0 => return Ok(()),
        4 => anyhow::anyhow!("a position was lost or invented, see above"),
        1 => match &report.stopped {
            Some(stopped) => anyhow::anyhow!("{stopped}"),
            None => anyhow::anyhow!("not everything could be read back, see above"),
        },
        _ if report.is_valid => anyhow::anyhow!("an objective was missed: {}", report.objectives_missed.join("; ")),
        _ => anyhow::anyhow!(
            "the run is INVALID: {}; give the generator more of the machine, or fewer streamers",
            report.invalid_because.join("; ")
        ),
    };
    Err(Failure { error, exit_code })
}

fn judge_verification(found: &Verification) -> Result<(), Failure> {
    if !found.is_kept() {
        return Err(Failure { error: anyhow::anyhow!("a position was lost or invented, see above"), exit_code: 4 });
    }
    match found.unreadable {
        0 => Ok(()),
        count => Err(anyhow::anyhow!("{count} positions could not be read: try again once the server is well").into()),
    }
}

/// Set at the first SIGINT or SIGTERM; a second ends the process.
fn on_signals() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("can't start a runtime")?;
    let told = Arc::clone(&stop);
    let watch = move || {
        runtime.block_on(async {
            let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
            let (Ok(mut interrupt), Ok(mut terminate)) = signals else { return };
            for _ in 0..2 {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if told.swap(true, Ordering::Relaxed) {
                    eprintln!("told to stop a second time: ending at once");
                    std::process::exit(1);
                }
            }
        });
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(watch).context("can't start a thread for signals")?;
    Ok(stop)
}

/// One line on a terminal that changes in place; nothing elsewhere.
struct ProgressLine {
    is_watched: bool,
    is_shown: bool,
}

impl ProgressLine {
    fn new() -> Self {
        Self { is_watched: std::io::stderr().is_terminal(), is_shown: false }
    }

    fn show(&mut self, plan: &Plan, now: Progress) {
        let Progress { minted, connected, offered, sent, acknowledged, failed, .. } = now;
        self.print(&match now.elapsed {
            None if minted < u64::from(plan.streamers) => format!("signing tokens: {minted} of {}", plan.streamers),
            None => format!("connecting: {connected} of {}", plan.connections),
            Some(elapsed) => format!(
                "{} of {} s  due {offered}  sent {sent}  acknowledged {acknowledged}  failed {failed}",
                elapsed.as_secs(),
                plan.duration.as_secs()
            ),
        });
    }

    fn print(&mut self, text: &str) {
        if self.is_watched {
            self.is_shown = true;
            eprint!("\r\x1b[K{text}");
        }
    }

    fn clear(&mut self) {
        if self.is_shown {
            eprint!("\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_written_as_people_do() {
        for (text, value) in [("1", 1), ("40k", 40_000), ("1M", 1_000_000), ("1.5k", 1_500), ("256", 256)] {
            assert_eq!(count(text), Ok(value));
        }
        for bad in ["0", "-1", "1.5", "k", "", "5M", "NaN", "1e9", "40 k"] {
            assert!(count(bad).is_err(), "{bad}");
        }
        assert_eq!(connections("each"), Ok(Connections::Each));
        assert_eq!(connections("1k"), Ok(Connections::Count(1_000)));
    }

    #[test]
    fn titles_of_a_run_are_exact_in_javascript() {
        assert!(first_title(8_000_000_000) < 1 << 53);
        assert_eq!(first_title(2) - first_title(1), 1 << 20);
    }
}
