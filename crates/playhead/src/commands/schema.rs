//! `playhead schema`: prints, makes or compares the table that `--store cassandra` needs. A server never does.

use crate::Failure;
use crate::cassandra::CassandraFlags;
use crate::cli::Output;
use clap::{Args, Subcommand};
use playhead_engine::store::cassandra::schema;
use std::io::Write;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  playhead schema cql --cassandra-data-center eu-west > playhead.cql
      For who reviews changes to the cluster and carries them out.
  playhead schema apply --cassandra-nodes 10.0.0.5,10.0.0.6
      Makes what is missing and changes nothing that is there; may be repeated.
  playhead schema check --cassandra-nodes 10.0.0.5
      Exit code 0: a server can use it; 1: it says what is missing or wrong.";

/// Flags of `schema`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Schema {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print the statements
    Cql(Flags),
    /// Carry them out on the cluster
    Apply(Flags),
    /// Compare what the cluster has
    Check(CheckFlags),
}

#[derive(Debug, Args)]
struct Flags {
    #[command(flatten)]
    cluster: CassandraFlags,
    /// How many nodes of the data centre keep each row, of a keyspace that is made
    #[arg(long, env = "PLAYHEAD_CASSANDRA_REPLICATION", value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    cassandra_replication: u8,
    /// How late an item of an offline batch may be: deletions are kept for this long and two days
    #[arg(long, env = "PLAYHEAD_MAX_ITEM_AGE", value_name = "TIME", default_value = "30d", value_parser = humantime::parse_duration)]
    max_item_age: Duration,
}

#[derive(Debug, Args)]
struct CheckFlags {
    #[command(flatten)]
    flags: Flags,
    /// How to print what was found
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output: Output,
}

/// Runs the command.
pub(crate) fn run(flags: &Schema) -> Result<(), Failure> {
    match &flags.action {
        Action::Cql(flags) => {
            let data_center = flags.cluster.cassandra_data_center.as_deref().unwrap_or("datacenter1");
            let statements = schema::statements(
                &flags.cluster.cassandra_keyspace,
                data_center,
                flags.cassandra_replication,
                flags.max_item_age,
            );
            print(&statements.map(|statement| statement + ";\n").concat());
            Ok(())
        }
        Action::Apply(flags) => {
            let options = flags.cluster.cluster(flags.max_item_age)?;
            schema::apply(&options, flags.cassandra_replication)?;
            print(&format!("{}.{} is there\n", options.keyspace, schema::TABLE));
            // What was there before may be another table of the same name.
            report(&options, Output::Text)
        }
        Action::Check(check) => {
            let options = check.flags.cluster.cluster(check.flags.max_item_age)?;
            report(&options, check.output)
        }
    }
}

fn report(options: &playhead_engine::store::cassandra::CassandraOptions, output: Output) -> Result<(), Failure> {
    let differences = schema::check(options)?;
    match output {
        Output::Text if differences.is_empty() => print("the schema is as it must be\n"),
        Output::Text => print(&(differences.join("\n") + "\n")),
        Output::Json => print(&format!("{}\n", serde_json::json!({ "differences": differences }))),
    }
    if differences.is_empty() {
        return Ok(());
    }
    Err(anyhow::anyhow!("the schema of {} is not as it must be", options.keyspace).into())
}

fn print(text: &str) {
    // Who closed our stdout does not want to know.
    let _ = std::io::stdout().write_all(text.as_bytes());
}
