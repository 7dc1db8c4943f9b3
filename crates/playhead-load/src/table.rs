//! A result as text for a terminal.

use crate::report::{Report, Spread};
use crate::verify::Verification;
use std::fmt::Write;

/// The table of a run.
#[must_use]
pub fn of(report: &Report) -> String {
    let mut text = String::new();
    let asked = &report.asked;
    let mut line = |name: &str, value: String| {
        // A string takes all.
        let _ = writeln!(text, "{name:<12} {value}");
    };
    line("target", report.target.clone());
    let pace = if asked.kind_of_loop == "closed" {
        "a closed loop".to_owned()
    } else {
        format!("one beat each {} s", asked.interval_s)
    };
    line(
        "load",
        format!(
            "{} streamers ({}), {pace}, over {} connections ({}), {:.1} s",
            thousands(asked.streamers),
            asked.profile,
            thousands(asked.connections),
            asked.protocol,
            report.elapsed_s
        ),
    );
    line(
        "heartbeats",
        format!(
            "{} due, {} sent, {} acknowledged: {} of {} a second",
            thousands(report.offered),
            thousands(report.sent),
            thousands(report.acknowledged),
            rate(report.acknowledged_per_s),
            rate(report.offered_per_s)
        ),
    );
    let failures: Vec<String> =
        report.failures.iter().map(|(how, count)| format!("{how} {}", thousands(*count))).collect();
    line("failed", if failures.is_empty() { "none".to_owned() } else { failures.join(", ") });
    let odd: Vec<String> = [
        (report.superseded, "superseded"),
        (report.held, "held back, as the server asked"),
        (report.waited_for_connection, "waited for a connection"),
        (report.reconnects, "reconnects"),
        (report.connects_failed, "failed to connect"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{} {what}", thousands(count)))
    .collect();
    if !odd.is_empty() {
        line("also", odd.join(", "));
    }
    line("latency", spread(&report.latency_ms));
    if report.reads > 0 {
        line("reads", spread(&report.reads_ms));
    }
    if report.shed_ms.count > 0 {
        line("refusals", spread(&report.shed_ms));
    }
    let generator = &report.generator;
    line(
        "generator",
        format!(
            "lag p99 {:.1} ms, {:.1} µs of CPU a request, {} MB at most",
            report.lag_ms.p99,
            generator.cpu_us_per_request,
            generator.memory_peak_bytes / 1_000_000
        ),
    );
    if let Some(found) = &report.verification {
        line("read back", verification(found));
    }
    let verdict =
        if report.is_valid { "VALID".to_owned() } else { "INVALID: ".to_owned() + &report.invalid_because.join("; ") };
    line("verdict", verdict);
    for missed in &report.objectives_missed {
        line("missed", missed.clone());
    }
    for fault in &report.faults {
        line("fault", fault.clone());
    }
    for fault in report.verification.iter().flat_map(|found| &found.faults) {
        line("fault", fault.clone());
    }
    text
}

/// What reading back has found, on a line.
#[must_use]
pub fn verification(found: &Verification) -> String {
    if found.is_kept() && found.unreadable == 0 {
        return format!("all {} positions are as they must be", thousands(found.rows));
    }
    format!(
        "of {} positions {} are good, {} LOST, {} INVENTED, {} unreadable; {} lists disagree",
        thousands(found.rows),
        thousands(found.good),
        thousands(found.lost),
        thousands(found.invented),
        thousands(found.unreadable),
        thousands(found.lists_wrong)
    )
}

fn spread(spread: &Spread) -> String {
    format!(
        "p50 {} p90 {} p99 {} p99.9 {} max {} ms",
        digits(spread.p50),
        digits(spread.p90),
        digits(spread.p99),
        digits(spread.p999),
        digits(spread.max)
    )
}

/// Three digits that count.
pub(crate) fn digits(number: f64) -> String {
    match number {
        number if number >= 100.0 => format!("{number:.0}"),
        number if number >= 10.0 => format!("{number:.1}"),
        number => format!("{number:.2}"),
    }
}

/// Something a second, in whole numbers.
pub(crate) fn rate(per_s: f64) -> String {
    format!("{per_s:.0}").parse().map_or_else(|_| format!("{per_s}"), thousands)
}

/// A count with its thousands set apart.
#[must_use]
pub fn thousands(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_for_reading() {
        for (count, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (12_345_678, "12,345,678")] {
            assert_eq!(thousands(count), text);
        }
        for (number, text) in [(0.123, "0.12"), (9.999, "10.00"), (12.34, "12.3"), (1234.5, "1234")] {
            assert_eq!(digits(number), text);
        }
    }

    #[test]
    fn a_loss_is_not_to_be_overlooked() {
        let good = Verification { rows: 5, good: 5, ..Verification::default() };
        assert!(verification(&good).starts_with("all 5"));
        let bad = Verification { rows: 5, good: 4, lost: 1, ..Verification::default() };
        assert!(verification(&bad).contains("1 LOST"));
    }
}
