//! `playhead check`: reads all of a stopped server's data directory, prints what it found, and succeeds if all is whole.

use crate::Failure;
use crate::cli::{Check, Output};
use crate::clock::SystemClock;
use playhead_engine::store::embedded::EmbeddedOptions;
use playhead_engine::store::embedded::check::{Report, check};
use std::io::{IsTerminal, Write};
use std::sync::Arc;

/// Rows between two signs of life.
const PROGRESS_ROWS: u64 = 1 << 20;

/// Runs the command.
pub(crate) fn run(flags: &Check) -> Result<(), Failure> {
    let defaults = EmbeddedOptions::at(&flags.data_dir);
    let options = EmbeddedOptions { segment_bytes: flags.segment_bytes, ..defaults };
    let is_watched = std::io::stderr().is_terminal();
    let mut said = 0;
    let report = check(&options, Arc::new(SystemClock), flags.repair, &mut |rows| {
        if is_watched && rows >= said + PROGRESS_ROWS {
            said = rows;
            eprint!("\r{rows} rows read");
        }
    })?;
    if said > 0 {
        eprintln!();
    }
    let text = match flags.output {
        Output::Text => as_text(&report),
        Output::Json => as_json(&report),
    };
    // Who closed our stdout does not want to know.
    let _ = std::io::stdout().write_all(text.as_bytes());
    match (&report.set_aside, report.problems.is_empty()) {
        (_, true) | (Some(_), _) => Ok(()),
        (None, false) => Err(anyhow::anyhow!(
            "the store in {} is damaged: restore it from a backup, or go on without what its log has lost with \
             `playhead check --repair`",
            flags.data_dir.display()
        )
        .into()),
    }
}

fn as_text(report: &Report) -> String {
    let mut lines = vec![
        format!("log: {} segments, {} records not yet in the base", report.segments, report.records_to_replay),
        format!("base: {} rows, {} barriers", report.rows, report.barriers),
    ];
    lines.extend(report.warnings.iter().map(|warning| format!("warning: {warning}")));
    lines.extend(report.problems.iter().map(|problem| format!("damaged: {problem}")));
    lines.push(match &report.set_aside {
        Some(aside) => format!("repaired; the segments of before are kept in {}", aside.display()),
        None if report.problems.is_empty() => "all is whole".to_owned(),
        None => "not all is whole".to_owned(),
    });
    lines.join("\n") + "\n"
}

fn as_json(report: &Report) -> String {
    let json = serde_json::json!({
        "segments": report.segments,
        "records_to_replay": report.records_to_replay,
        "rows": report.rows,
        "barriers": report.barriers,
        "warnings": report.warnings,
        "problems": report.problems,
        "set_aside": report.set_aside,
    });
    format!("{json}\n")
}
