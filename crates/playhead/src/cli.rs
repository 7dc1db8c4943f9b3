//! The command line: every command, flag, default and example. What a combination means is [`crate::config`]'s.
//!
//! **Keys.** Each flag of `serve` that has a variable of the environment is a key of the configuration file too: the name
//! of the variable without `PLAYHEAD_`, in lower case. [`crate::settings`] puts the three together; a new key needs its
//! field here and nothing else but `playhead config reference > docs/CONFIGURATION.md`. Flags of other commands with the
//! same variable take the same key.

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use playhead_engine::store::embedded::EmbeddedOptions;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// The version. A build with faults names them: nobody should take it for a good one.
pub(crate) const VERSION: &str =
    match (cfg!(feature = "fault-early-ack"), cfg!(feature = "fault-held-writes"), cfg!(feature = "fault-no-sync")) {
        (false, false, false) => env!("CARGO_PKG_VERSION"),
        (true, false, false) => concat!(env!("CARGO_PKG_VERSION"), " fault-early-ack"),
        (false, true, false) => concat!(env!("CARGO_PKG_VERSION"), " fault-held-writes"),
        (false, true, true) => concat!(env!("CARGO_PKG_VERSION"), " fault-held-writes fault-no-sync"),
        _ => concat!(env!("CARGO_PKG_VERSION"), " with other faults"),
    };

/// Remembers where each viewer is in each title.
#[derive(Debug, Parser)]
#[command(name = "playhead", version = VERSION, propagate_version = true, max_term_width = 110)]
pub(crate) struct Cli {
    /// A file of settings (TOML); the environment and flags win over it
    #[arg(long, global = true, env = "PLAYHEAD_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serves heartbeats and reads
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(Box<Serve>),
    /// Prints a token for a user, signed with the server's secret
    Token(Token),
    /// Reads all of a stopped server's data directory and says what is wrong with it
    Check(Check),
    /// Writes everything that a store holds to a file: a backup, and the way to another store
    Export(Box<crate::commands::export::Export>),
    /// Brings what an export holds into a store; the newest of each position is kept
    Import(Box<crate::commands::import::Import>),
    /// Prints, makes or compares the table that `--store cassandra` needs
    #[cfg(feature = "cassandra")]
    Schema(Box<crate::commands::schema::Schema>),
    /// Asks a running server whether it is ready; exit code 0 says yes
    Health(Health),
    /// Plays many viewers against a server, and reads back what it acknowledged
    Load(Box<crate::commands::load::Load>),
    /// Shows, checks and explains the settings of a server
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Prints a shell's completions for this command
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions(Completions),
    /// Prints a manual page
    #[command(after_help = MAN_EXAMPLES)]
    Man(Man),
}

const SERVE_EXAMPLES: &str = "\
Examples:
  playhead serve --dev
      Try it out: on loopback, with a token and curl lines to paste.
  playhead serve --listen 0.0.0.0:8080 --data-dir /var/lib/playhead --jwt-secret-file /etc/playhead/secret
      Serve viewers whose tokens are signed (HS256) with that secret.
  playhead serve --config /etc/playhead.toml
      The same, said in a file: see `playhead config --help`.
  playhead serve --store cassandra --cassandra-nodes 10.0.0.5,10.0.0.6 --jwt-secret-file /etc/playhead/secret
      Keep positions on a cluster, as any number of such servers may; `playhead schema apply` makes the table.
  playhead serve --dev --store discard
      Keep nothing: measures what storing costs.";

/// Flags of `serve`.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// For trying it out: makes a secret in the data directory, prints a token and curl lines, serves a demo; loopback only
    #[arg(long, env = "PLAYHEAD_DEV")]
    pub(crate) dev: bool,
    /// Lets --dev listen on other addresses than loopback
    #[arg(long, env = "PLAYHEAD_DEV_ALLOW_REMOTE")]
    pub(crate) dev_allow_remote: bool,
    /// Where viewers connect; port 0 takes a free one
    #[arg(long, env = "PLAYHEAD_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,
    /// Where operators connect: /livez, /readyz, /metrics, /version
    #[arg(long, env = "PLAYHEAD_ADMIN_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:9464")]
    pub(crate) admin_listen: SocketAddr,
    /// File with the token that `playhead export --admin` must show: 32 visible characters or more; without it nobody can
    #[arg(long, env = "PLAYHEAD_ADMIN_TOKEN_FILE", value_name = "FILE")]
    pub(crate) admin_token_file: Option<PathBuf>,
    /// Where positions are kept; made if absent
    #[arg(long, env = "PLAYHEAD_DATA_DIR", value_name = "DIRECTORY", default_value = "./playhead-data")]
    pub(crate) data_dir: PathBuf,
    /// What keeps positions; memory and discard keep nothing and need --dev
    #[arg(long, env = "PLAYHEAD_STORE", default_value = "embedded")]
    pub(crate) store: StoreName,
    /// An origin whose web pages may call, as browsers send it; may be repeated. `*` for any needs --dev
    #[arg(long = "cors-origin", env = "PLAYHEAD_CORS_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    pub(crate) cors_origins: Vec<String>,
    /// Threads that serve; one per core by default
    #[arg(long, env = "PLAYHEAD_WORKERS", value_name = "N", value_parser = workers)]
    pub(crate) workers: Option<u16>,
    /// How long to serve on after SIGTERM, no longer ready, so that a balancer notices
    #[arg(long, env = "PLAYHEAD_SHUTDOWN_DELAY", value_name = "TIME", default_value = "0s", value_parser = time)]
    pub(crate) shutdown_delay: Duration,
    /// How long connections may take to end after that
    #[arg(long, env = "PLAYHEAD_DRAIN_DEADLINE", value_name = "TIME", default_value = "10s", value_parser = time)]
    pub(crate) drain_deadline: Duration,
    /// The share of its duration from which a title counts as completed
    #[arg(long, env = "PLAYHEAD_COMPLETED_AT", value_name = "SHARE", default_value = "0.95", value_parser = share)]
    pub(crate) completed_at: f64,
    /// Asks players to send a position this often, in whole seconds, to spare a busy server: a time, or off
    #[arg(long, env = "PLAYHEAD_BEAT_INTERVAL", value_name = "TIME", default_value = "off", value_parser = beat_interval)]
    pub(crate) beat_interval: TimeOrOff,
    // Those with a heading come last: what follows a heading is under it.
    #[command(flatten)]
    pub(crate) tokens: TokenFlags,
    #[command(flatten)]
    pub(crate) limits: LimitFlags,
    #[command(flatten)]
    pub(crate) throttles: ThrottleFlags,
    #[command(flatten)]
    pub(crate) keeping: KeepingFlags,
    #[command(flatten)]
    pub(crate) embedded: EmbeddedFlags,
    #[cfg(feature = "cassandra")]
    #[command(flatten)]
    pub(crate) cassandra: crate::cassandra::CassandraFlags,
}

/// Whose tokens count.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Tokens")]
pub(crate) struct TokenFlags {
    /// File with the HS256 secret: 32 bytes or more; a newline at its end is not part of it
    #[arg(long, env = "PLAYHEAD_JWT_SECRET_FILE", value_name = "FILE")]
    pub(crate) jwt_secret_file: Option<PathBuf>,
    /// The issuer (iss) that tokens must name
    #[arg(long, env = "PLAYHEAD_JWT_ISSUER", value_name = "ISSUER")]
    pub(crate) jwt_issuer: Option<String>,
    /// The audience (aud) that tokens must name
    #[arg(long, env = "PLAYHEAD_JWT_AUDIENCE", value_name = "AUDIENCE")]
    pub(crate) jwt_audience: Option<String>,
    /// The claim that holds the user's id
    #[arg(long, env = "PLAYHEAD_USER_CLAIM", value_name = "CLAIM", default_value = "sub")]
    pub(crate) user_claim: String,
}

/// What is bounded, and by how much.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct LimitFlags {
    /// The most open connections, if the limit of open files allows as many; more are closed at once
    #[arg(long, env = "PLAYHEAD_MAX_CONNECTIONS", value_name = "N", default_value_t = 100_000, value_parser = count)]
    pub(crate) max_connections: usize,
    /// The most heartbeats under way; more are answered with 503
    #[arg(long, env = "PLAYHEAD_MAX_IN_FLIGHT_WRITES", value_name = "N", default_value_t = 32_768, value_parser = count)]
    pub(crate) max_in_flight_writes: usize,
    /// Verified tokens remembered per worker; 0 verifies each anew
    #[arg(long, env = "PLAYHEAD_TOKENS_REMEMBERED", value_name = "N", default_value_t = playhead_server::TOKENS_REMEMBERED_MAX, value_parser = whole::<usize>)]
    pub(crate) tokens_remembered: usize,
    /// From the first byte of a request to its last
    #[arg(long, env = "PLAYHEAD_REQUEST_DEADLINE", value_name = "TIME", default_value = "10s", value_parser = time)]
    pub(crate) request_deadline: Duration,
    /// From a write to its outcome; then the answer is 503 outcome-unknown
    #[arg(long, env = "PLAYHEAD_ACK_DEADLINE", value_name = "TIME", default_value = "5s", value_parser = time)]
    pub(crate) ack_deadline: Duration,
    /// From one request on a connection to the next
    #[arg(long, env = "PLAYHEAD_IDLE_TIMEOUT", value_name = "TIME", default_value = "75s", value_parser = time)]
    pub(crate) idle_timeout: Duration,
}

/// How often one user may ask; more is answered with 429.
#[derive(Debug, Args)]
#[command(next_help_heading = "Throttles")]
pub(crate) struct ThrottleFlags {
    /// Requests a second of one user, over all connections to this server, for long; 0 lets any number through
    #[arg(long, env = "PLAYHEAD_THROTTLE_PER_SECOND", value_name = "N", default_value_t = 10, value_parser = per_second)]
    pub(crate) throttle_per_second: u32,
    /// Requests of one user at once, beyond which that rate holds; 0 lets any number through
    #[arg(long, env = "PLAYHEAD_THROTTLE_BURST", value_name = "N", default_value_t = 100, value_parser = burst)]
    pub(crate) throttle_burst: u32,
    /// The same for requests that forget; they count as requests too
    #[arg(long, env = "PLAYHEAD_DELETE_THROTTLE_PER_SECOND", value_name = "N", default_value_t = 1, value_parser = per_second)]
    pub(crate) delete_throttle_per_second: u32,
    /// The same for requests that forget, at once
    #[arg(long, env = "PLAYHEAD_DELETE_THROTTLE_BURST", value_name = "N", default_value_t = 20, value_parser = burst)]
    pub(crate) delete_throttle_burst: u32,
}

/// What the embedded store takes if it is told nothing.
fn embedded() -> EmbeddedOptions {
    EmbeddedOptions::at("")
}

/// How positions are kept, whatever keeps them.
#[derive(Debug, Args)]
#[command(next_help_heading = "Every store")]
pub(crate) struct KeepingFlags {
    /// Rows not written for this long are forgotten: a time, or off
    #[arg(long, env = "PLAYHEAD_RETENTION", value_name = "TIME", default_value = "off", value_parser = time_or_off)]
    pub(crate) retention: TimeOrOff,
    /// How late an item of an offline batch may be
    #[arg(long, env = "PLAYHEAD_MAX_ITEM_AGE", value_name = "TIME", default_value = "30d", value_parser = time)]
    pub(crate) max_item_age: Duration,
    /// How long a write may wait for others that are then kept with it
    #[arg(long, env = "PLAYHEAD_COMMIT_WINDOW", value_name = "TIME", default_value = "5ms", value_parser = time)]
    pub(crate) commit_window: Duration,
}

/// Settings of the embedded store.
#[derive(Debug, Args)]
#[command(next_help_heading = "Embedded store")]
pub(crate) struct EmbeddedFlags {
    /// The size of a log segment
    #[arg(long, env = "PLAYHEAD_SEGMENT_BYTES", value_name = "BYTES", default_value_t = embedded().segment_bytes, value_parser = whole::<u64>)]
    pub(crate) segment_bytes: u64,
    /// The log written since the last freeze at which the memtable is frozen
    #[arg(long, env = "PLAYHEAD_FREEZE_BYTES", value_name = "BYTES", default_value_t = embedded().freeze_bytes, value_parser = whole::<u64>)]
    pub(crate) freeze_bytes: u64,
    /// The memtable's size at which it is frozen
    #[arg(long, env = "PLAYHEAD_MEMTABLE_BYTES", value_name = "BYTES", default_value_t = embedded().memtable_bytes, value_parser = whole::<usize>)]
    pub(crate) memtable_bytes: usize,
    /// Free space on the disk below which writes are refused
    #[arg(long, env = "PLAYHEAD_DISK_RESERVE_BYTES", value_name = "BYTES", default_value_t = embedded().disk_reserve_bytes, value_parser = whole::<u64>)]
    pub(crate) disk_reserve_bytes: u64,
    /// The base's block cache
    #[arg(long, env = "PLAYHEAD_BLOCK_CACHE_BYTES", value_name = "BYTES", default_value_t = embedded().block_cache_bytes, value_parser = whole::<u64>)]
    pub(crate) block_cache_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StoreName {
    /// On this machine's disk
    Embedded,
    /// On an Apache Cassandra or ScyllaDB cluster
    #[cfg(feature = "cassandra")]
    Cassandra,
    /// In memory, lost at exit
    Memory,
    /// Nowhere
    Discard,
}

const TOKEN_EXAMPLES: &str = "\
Examples:
  playhead token --user 42
      For a server that runs with --dev on the same data directory.
  playhead token --user 42 --ttl 8h --jwt-secret-file /etc/playhead/secret --jwt-issuer https://id.example.com";

/// Flags of `token`.
#[derive(Debug, Args)]
#[command(after_help = TOKEN_EXAMPLES)]
pub(crate) struct Token {
    /// The user's id
    #[arg(long, value_name = "ID", allow_hyphen_values = true, value_parser = user_id)]
    pub(crate) user: playhead_core::UserId,
    /// How long the token is valid
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = time)]
    pub(crate) ttl: Duration,
    /// The data directory of a server that runs with --dev
    #[arg(long, env = "PLAYHEAD_DATA_DIR", value_name = "DIRECTORY", default_value = "./playhead-data")]
    pub(crate) data_dir: PathBuf,
    #[command(flatten)]
    pub(crate) tokens: TokenFlags,
}

const CHECK_EXAMPLES: &str = "\
Examples:
  playhead check --data-dir /var/lib/playhead
      Changes nothing. Exit code 0: all is whole; 1: something is damaged or lost.
  playhead check --repair --data-dir /var/lib/playhead
      Goes on without what the log has lost, and keeps the damaged files in a directory beside it.";

/// Flags of `check`.
#[derive(Debug, Args)]
#[command(after_help = CHECK_EXAMPLES)]
pub(crate) struct Check {
    /// The data directory; no server may be using it
    #[arg(long, env = "PLAYHEAD_DATA_DIR", value_name = "DIRECTORY", default_value = "./playhead-data")]
    pub(crate) data_dir: PathBuf,
    /// Brings what is whole into the base, begins the log anew, and keeps the damaged files aside
    #[arg(long)]
    pub(crate) repair: bool,
    /// The size of a log segment, if the server is given another than the default
    #[arg(long, env = "PLAYHEAD_SEGMENT_BYTES", value_name = "BYTES", default_value_t = embedded().segment_bytes, value_parser = whole::<u64>)]
    pub(crate) segment_bytes: u64,
    /// How to print what was found
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) output: Output,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Text,
    /// For programs: one JSON object
    Json,
}

const HEALTH_EXAMPLES: &str = "\
Examples:
  playhead health
  playhead health --admin 10.0.0.5:9464 --timeout 1s";

/// Flags of `health`.
#[derive(Debug, Args)]
#[command(after_help = HEALTH_EXAMPLES)]
pub(crate) struct Health {
    /// The server's address for operators
    #[arg(long, env = "PLAYHEAD_ADMIN_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:9464")]
    pub(crate) admin: SocketAddr,
    /// How long to wait for the answer
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = time)]
    pub(crate) timeout: Duration,
}

const SHOW_EXAMPLES: &str = "\
Examples:
  playhead config show
      Every key with its value and where that comes from, in the form of a file.
  playhead config show --config /etc/playhead.toml --output json";

const CHECK_CONFIG_EXAMPLES: &str = "\
Examples:
  playhead config check /etc/playhead.toml
      Exit code 0 if `serve --config /etc/playhead.toml` would start with it, in this environment.";

const REFERENCE_EXAMPLES: &str = "\
Examples:
  playhead config reference | less";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  playhead completions bash > /etc/bash_completion.d/playhead
  playhead completions zsh > \"${fpath[1]}/_playhead\"";

const MAN_EXAMPLES: &str = "\
Examples:
  playhead man > /usr/local/share/man/man1/playhead.1
  playhead man config show > /usr/local/share/man/man1/playhead-config-show.1";

/// What there is to know of settings.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Shows the value of each key, and where it comes from: what `serve` would do if it were called like this
    #[command(after_help = SHOW_EXAMPLES)]
    Show(Box<Show>),
    /// Checks a file of settings, and says everything that is wrong with it
    #[command(after_help = CHECK_CONFIG_EXAMPLES)]
    Check(CheckConfig),
    /// Prints the reference of all keys and bounds, in Markdown
    #[command(after_help = REFERENCE_EXAMPLES)]
    Reference,
}

/// Flags of `config show`: those of `serve`.
#[derive(Debug, Args)]
pub(crate) struct Show {
    #[command(flatten)]
    pub(crate) serve: Serve,
    /// How to print it
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) output: Output,
}

/// Arguments of `config check`.
#[derive(Debug, Args)]
pub(crate) struct CheckConfig {
    /// The file; that of --config or PLAYHEAD_CONFIG by default
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub(crate) shell: Shell,
}

/// Arguments of `man`.
#[derive(Debug, Args)]
pub(crate) struct Man {
    /// The command, word by word; none for the first page
    #[arg(value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

/// A time, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimeOrOff(pub(crate) Option<Duration>);

// What each kind of value looks like: said where one is refused, and in the reference.
pub(crate) const A_TIME: &str = "a time is a number and a unit, such as 500ms, 10s, 1h or 30d";
pub(crate) const A_SHARE: &str = "a share is a number above 0 and at most 1";

fn time(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| A_TIME.to_owned())
}

fn time_or_off(text: &str) -> Result<TimeOrOff, String> {
    if text == "off" { Ok(TimeOrOff(None)) } else { time(text).map(|time| TimeOrOff(Some(time))) }
}

fn beat_interval(text: &str) -> Result<TimeOrOff, String> {
    let interval = time_or_off(text)?;
    let is_whole = |time: Duration| time.subsec_nanos() == 0 && (1..=3600).contains(&time.as_secs());
    match interval.0.is_none_or(is_whole) {
        true => Ok(interval),
        false => Err("it is whole seconds, 1s to 1h, or off".to_owned()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| *share > 0.0 && *share <= 1.0);
    share.ok_or_else(|| A_SHARE.to_owned())
}

fn count(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|count| *count > 0).ok_or_else(|| "a count is a whole number above 0".to_owned())
}

fn whole<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| "it is a whole number, 0 or more".to_owned())
}

fn within(text: &str, range: std::ops::RangeInclusive<u32>) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| format!("it is a whole number, {} to {}", range.start(), range.end()))
}

fn workers(text: &str) -> Result<u16, String> {
    within(text, 1..=1024).map(|workers| u16::try_from(workers).expect("1,024 at most"))
}

fn per_second(text: &str) -> Result<u32, String> {
    within(text, 0..=playhead_server::THROTTLE_PER_SECOND_MAX)
}

fn burst(text: &str) -> Result<u32, String> {
    within(text, 0..=playhead_server::THROTTLE_BURST_MAX)
}

fn user_id(text: &str) -> Result<playhead_core::UserId, String> {
    text.parse().map_err(|error: playhead_core::ParseIdError| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn the_commit_window_is_the_stores_own() {
        assert_eq!(time("5ms"), Ok(embedded().commit_window));
        assert_eq!(time("30d"), Ok(embedded().max_item_age));
    }

    #[test]
    fn values_are_checked() {
        assert_eq!(time("10s"), Ok(Duration::from_secs(10)));
        assert!(time("10").is_err());
        assert_eq!(time_or_off("off"), Ok(TimeOrOff(None)));
        assert_eq!(time_or_off("30d"), Ok(TimeOrOff(Some(Duration::from_secs(30 * 86_400)))));
        assert_eq!(beat_interval("8s"), Ok(TimeOrOff(Some(Duration::from_secs(8)))));
        for bad in ["0s", "500ms", "8", "2h", "-1s"] {
            assert!(beat_interval(bad).is_err(), "{bad}");
        }
        for bad in ["0", "1.1", "-1", "NaN", "x"] {
            assert!(share(bad).is_err(), "{bad}");
        }
        assert!(count("0").is_err());
        assert!(workers("0").is_err() && workers("1025").is_err() && burst("1000001").is_err());
        assert!(user_id("042").is_err());
    }
}
