//! The figures of docs/BENCHMARKS.md, docs/DURABILITY.md and the README, written from the stored results.
//!
//! A part stands between `<!-- figures: NAME -->` and `<!-- end -->`; all else is written by people. Plots are SVG files
//! beside the results. A test writes all of it anew and compares, so that no figure is ever typed.

use anyhow::{Context, Result};
use serde_json::Value;
use std::fmt::Write;
use std::fs;
use std::path::Path;

const DOCUMENTS: &[&str] = &["docs/BENCHMARKS.md", "docs/DURABILITY.md", "README.md"];
const RESULTS: &str = "docs/benchmarks";

/// Writes the document and the plots anew.
pub(crate) fn write(root: &Path) -> Result<()> {
    for (path, text) in files(root)? {
        fs::write(root.join(&path), text).with_context(|| format!("can't write {path}"))?;
    }
    Ok(())
}

/// Every file that is generated, with what must be in it.
fn files(root: &Path) -> Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    for path in DOCUMENTS {
        let document = fs::read_to_string(root.join(path)).with_context(|| format!("can't read {path}"))?;
        let text = written(root, &document, &mut files).with_context(|| format!("in {path}"))?;
        files.push(((*path).to_owned(), text));
    }
    Ok(files)
}

/// A document with its figures written anew; plots go to the files.
fn written(root: &Path, document: &str, files: &mut Vec<(String, String)>) -> Result<String> {
    let mut text = String::new();
    let mut rest = document;
    while let Some((before, after)) = rest.split_once("<!-- figures: ") {
        let (name, after) = after.split_once(" -->").context("a figures comment without an end")?;
        let (_, after) = after.split_once("<!-- end -->").context("figures without `<!-- end -->`")?;
        let figures = match name {
            "goals" => goals(root)?,
            "headline" => headline(root)?,
            name => match result(root, name)? {
                Some(result) => figures(name, &result, files),
                None => "Not measured yet.\n".to_owned(),
            },
        };
        // A string takes all.
        let _ = write!(text, "{before}<!-- figures: {name} -->\n{figures}<!-- end -->");
        rest = after;
    }
    text.push_str(rest);
    Ok(text)
}

fn result(root: &Path, name: &str) -> Result<Option<Value>> {
    let path = root.join(RESULTS).join(format!("{name}.json"));
    if !path.exists() {
        return Ok(None);
    }
    let text = fs::read_to_string(&path)?;
    serde_json::from_str(&text).map(Some).with_context(|| format!("{} is no JSON", path.display()))
}

const BENCHES: &[&str] = &["write-path", "idle", "restart", "disk", "base", "cassandra"];

/// The goals that were measured, each with its result.
fn goals(root: &Path) -> Result<String> {
    let mut rows = Vec::new();
    for name in BENCHES {
        let Some(result) = result(root, name)? else { continue };
        for ratio in result["ratios"].as_array().into_iter().flatten() {
            let (floor, aim) = (number(&ratio["floor"]), number(&ratio["aim"]));
            let value = ratio["value"].as_f64().unwrap_or(f64::NAN);
            let is_more_better = ratio["aim"].as_f64() > ratio["floor"].as_f64();
            let reaches = |bound: &Value| {
                let bound = bound.as_f64().unwrap_or(f64::NAN);
                if is_more_better { value >= bound } else { value <= bound }
            };
            let verdict = match (reaches(&ratio["aim"]), reaches(&ratio["floor"])) {
                (true, _) => "aim reached",
                (false, true) => "floor reached",
                (false, false) => "**below the floor**",
            };
            let (goal, what) = (text(&ratio["goal"]), text(&ratio["what"]));
            let value = number(&ratio["value"]);
            rows.push((
                goal_order(goal),
                format!("| {goal} | {what} | **{value}** | {floor} | {aim} | {verdict} | [{name}](benchmarks/{name}.json) |\n"),
            ));
        }
    }
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    let mut table = "| goal | what | measured | floor | aim | | result |\n|---|---|---|---|---|---|---|\n".to_owned();
    rows.iter().for_each(|(_, row)| table.push_str(row));
    Ok(table)
}

/// What was measured, for who has a minute.
fn headline(root: &Path) -> Result<String> {
    let mut rows = Vec::new();
    for name in BENCHES {
        let Some(result) = result(root, name)? else { continue };
        for ratio in result["ratios"].as_array().into_iter().flatten() {
            let (what, value) = (text(&ratio["what"]), number(&ratio["value"]));
            let command = text(&result["command"]);
            let row = format!("| {what} | **{value}** | [`{command}`](docs/benchmarks/{name}.json) |\n");
            rows.push((goal_order(text(&ratio["goal"])), row));
        }
    }
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(rows
        .into_iter()
        .fold("| what | measured | command and result |\n|---|---|---|\n".to_owned(), |table, (_, row)| table + &row))
}

fn goal_order(goal: &str) -> (u32, String) {
    let digits: String = goal.chars().take_while(char::is_ascii_digit).collect();
    (digits.parse().unwrap_or_default(), goal[digits.len()..].to_owned())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A number as it is read best.
fn number(value: &Value) -> String {
    let number = value.as_f64().unwrap_or_default();
    if number.abs() < 1_000.0 {
        let text = format!("{number:.3}");
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    let mut digits = format!("{number:.0}");
    let mut at = digits.len();
    while at > 3 {
        at -= 3;
        digits.insert(at, ',');
    }
    digits
}

/// `12.3 (11.9–13.0)`.
fn spread(value: &Value) -> String {
    format!("{} ({}–{})", number(&value["median"]), number(&value["min"]), number(&value["max"]))
}

fn figures(name: &str, result: &Value, files: &mut Vec<(String, String)>) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    match name {
        "write-path" => {
            files.push((format!("{RESULTS}/write-path.svg"), bars(result)));
            line(
                "| peer | heartbeats/s | server CPU, µs | generator CPU, µs | p99, ms |\n|---|---|---|---|---|"
                    .to_owned(),
            );
            for peer in result["peers"].as_array().into_iter().flatten() {
                line(format!(
                    "| {} | {} | {} | {} | {} |",
                    text(&peer["what"]),
                    spread(&peer["per_s"]),
                    spread(&peer["server_us"]),
                    spread(&peer["generator_us"]),
                    spread(&peer["p99_ms"])
                ));
            }
            line(format!(
                "\nMedian, least and most of {} rounds of {} s each, {} connections, in turn.\n\n\
                 ![server CPU of a heartbeat](benchmarks/write-path.svg)",
                number(&result["rounds"]),
                number(&result["seconds"]),
                number(&result["connections"])
            ));
        }
        "idle" => line(format!(
            "{} connections, a heartbeat each {} s: **{} bytes** of the process's own memory for each, their rows included.",
            number(&result["connections"]),
            number(&result["interval_seconds"]),
            spread(&result["own_bytes_per_connection"])
        )),
        "restart" => {
            let replayed = result["measured"].as_array().into_iter().flatten();
            let records: Vec<String> = replayed.map(|one| number(&one["records_replayed"])).collect();
            line(format!(
                "Ready after **{} s** with {} viewers' heartbeats in the log; records replayed: {}.",
                spread(&result["ready_after_s"]),
                number(&result["streamers"]),
                records.join("; ")
            ));
        }
        "disk" => line(format!(
            "**{} bytes** reach the device for each byte acknowledged (24 a heartbeat): {} by the log and {} by the base, at {} \
             heartbeats/s, {} records a frame, {} drains in {} minutes.",
            number(&result["device_bytes_per_byte"]),
            number(&result["log_bytes_per_byte"]),
            number(&result["base_bytes_per_byte"]),
            number(&result["per_s"]),
            number(&result["records_per_frame"]),
            number(&result["drains"]),
            number(&result["minutes"])
        )),
        "loss" => {
            line(
                "| `commitlog_sync` | acknowledged a second | lost | that is the last |\n|---|---|---|---|".to_owned(),
            );
            for one in result["measured"].as_array().into_iter().flatten() {
                let (sync, per_s, lost) = (text(&one["commitlog_sync"]), number(&one["per_s"]), number(&one["lost"]));
                line(format!("| `{sync}` | {per_s} | {lost} | {} ms |", number(&one["lost_ms"])));
            }
        }
        "profile" => {
            line("| what | µs of a heartbeat | share |\n|---|---|---|".to_owned());
            for area in result["areas"].as_array().into_iter().flatten() {
                let percent = 100.0 * area["share"].as_f64().unwrap_or_default();
                line(format!("| {} | {} | {percent:.1} % |", text(&area["area"]), number(&area["us"])));
            }
            line(format!(
                "\n{} samples of a server that spends {} µs of CPU on a heartbeat, drains running.",
                number(&result["samples"]),
                number(&result["us_per_heartbeat"])
            ));
        }
        "cassandra" => {
            line(
                "| `concurrent_writes` | load | | rows/s | its CPU, µs a row | JVM, µs a row | p50, ms | p99, ms |\n|---|---|---|---|---|---|---|---|"
                    .to_owned(),
            );
            for row in result["by_pace"].as_array().into_iter().flatten() {
                let fields = ["per_s", "client_us", "jvm_us", "p50_ms", "p99_ms"].map(|field| spread(&row[field]));
                let load = match &row["rate"] {
                    Value::Null => format!("{} under way", number(&row["depth"])),
                    rate => format!("{} a second", number(rate)),
                };
                let setting = number(&row["concurrent_writes"]);
                line(format!("| {setting} | {load} | {} | {} |", text(&row["peer"]), fields.join(" | ")));
            }
            line(format!(
                "\nMedian, least and most of {} rounds of {} s each, in turn. Reads through the service, one at a time: a \
                 title p50 / p99 {} ms, a list of 20 {} ms.",
                number(&result["rounds"]),
                number(&result["seconds"]),
                pair(&result["reads"]["by_title"]),
                pair(&result["reads"]["list_of_20"])
            ));
        }
        _ => {
            let reads = &result["reads"];
            line(format!("| with {} rows at rest | |\n|---|---|", number(&result["rows"])));
            for (what, value) in [
                ("ready after, s", number(&result["ready_after_s"])),
                ("stopped after SIGTERM, s", number(&result["stopped_after_s"])),
                ("read of a title, p50 / p99, ms", pair(&reads["by_title"])),
                ("list of 20, p50 / p99, ms", pair(&reads["list_of_20"])),
                ("disk, bytes a row", number(&result["disk_bytes_per_row"])),
                ("resident memory before the first freeze, MB", megabytes(&result["resident_bytes_before_freeze"])),
                ("own memory at the start / after the reads / after the drains, MB", memory(result)),
                ("heartbeats/s meanwhile", number(&result["heartbeats_per_s"])),
                ("one drain, s", number(&result["seconds_per_drain"])),
                ("rows of a drain", number(&result["rows_per_drain"])),
            ] {
                line(format!("| {what} | {value} |"));
            }
        }
    }
    let machine = &result["machine"];
    line(format!("\n`{}`, {} cores ({})", text(&result["command"]), number(&machine["cores"]), text(&machine["cpu"])));
    out
}

fn pair(value: &Value) -> String {
    format!("{} / {}", number(&value["p50_ms"]), number(&value["p99_ms"]))
}

fn memory(result: &Value) -> String {
    let names = ["own_bytes_at_start", "own_bytes_after_reads", "own_bytes_after_drains"];
    names.map(|name| megabytes(&result[name])).join(" / ")
}

fn megabytes(bytes: &Value) -> String {
    format!("{:.0}", bytes.as_f64().unwrap_or_default() / 1e6)
}

/// Server CPU of each peer as bars, with the spread.
fn bars(result: &Value) -> String {
    const ROW: f64 = 34.0;
    let peers = result["peers"].as_array().map_or(&[][..], Vec::as_slice);
    let most = peers.iter().filter_map(|peer| peer["server_us"]["max"].as_f64()).fold(1.0, f64::max);
    let height = peers.len() as f64 * ROW + 30.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 720 {height}\" role=\"img\" \
         aria-label=\"server CPU of a heartbeat in microseconds\">\n<style>\
         text {{ font: 13px system-ui, sans-serif; fill: #1b1f24; }} .bar {{ fill: #0b6bcb; }} \
         .spread {{ stroke: #c2410c; stroke-width: 2; }} \
         @media (prefers-color-scheme: dark) {{ text {{ fill: #e6edf3; }} .bar {{ fill: #58a6ff; }} \
         .spread {{ stroke: #f0883e; }} }}</style>\n"
    );
    let x = |value: f64| 110.0 + value / most * 520.0;
    let mut y = 10.0;
    for peer in peers {
        let cpu = |name: &str| peer["server_us"][name].as_f64().unwrap_or_default();
        let (middle, width) = (y + 11.0, x(cpu("median")) - 110.0);
        let _ = write!(
            svg,
            "<text x=\"100\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n\
             <rect class=\"bar\" x=\"110\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"22\" rx=\"3\"/>\n\
             <line class=\"spread\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\">{} µs</text>\n",
            y + 16.0,
            text(&peer["peer"]),
            x(cpu("min")),
            x(cpu("max")),
            x(cpu("max")) + 8.0,
            y + 16.0,
            number(&peer["server_us"]["median"])
        );
        y += ROW;
    }
    let _ = write!(
        svg,
        "<text x=\"110\" y=\"{:.1}\">server CPU of a heartbeat: median, and least to most</text>\n</svg>\n",
        y + 12.0
    );
    svg
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_document_shows_what_was_measured() {
        let root = crate::root().unwrap();
        for (path, expected) in files(&root).unwrap() {
            let found = fs::read_to_string(root.join(&path)).unwrap_or_default();
            assert!(found == expected, "{path} is not what the results say: run `cargo xtask bench document`");
        }
    }

    #[test]
    fn numbers_are_for_reading() {
        for (value, text) in
            [(json!(0.91), "0.91"), (json!(12), "12"), (json!(15_000), "15,000"), (json!(1e6), "1,000,000")]
        {
            assert_eq!(number(&value), text);
        }
        assert!(goal_order("1b") > goal_order("1") && goal_order("10") > goal_order("2"));
    }
}
