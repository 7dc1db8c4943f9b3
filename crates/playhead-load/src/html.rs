//! A result as a page that stands alone: no script, no font, no address; plots as SVG, for light and dark screens.

use crate::plot::{Plot, Series, Tick, number, steps};
use crate::report::{Pairs, Report, of_pairs};
use crate::table;

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #59636e; --paper: #ffffff; --edge: #d9dee3; --good: #1a7f37;
  --bad: #b42318; --line-1: #0b6bcb; --line-2: #c2410c; --line-3: #7a3fb0; --line-4: #b42318; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9aa5b1; --paper: #0f141a; --edge: #2b333c;
  --good: #4ac26b; --bad: #ff7b72; --line-1: #58a6ff; --line-2: #f0883e; --line-3: #c297ff; --line-4: #ff7b72; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 900px;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.05rem; margin: 2rem 0 .25rem; }
p { margin: .25rem 0; } .soft, .legend, .nothing { color: var(--soft); }
.verdict { font-weight: 600; } .good { color: var(--good); } .bad { color: var(--bad); }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(7.8rem, 1fr)); gap: .6rem; margin: 1.25rem 0; }
.figures div { border: 1px solid var(--edge); border-radius: 8px; padding: .6rem .8rem; }
.figures b { display: block; font-size: 1.2rem; font-variant-numeric: tabular-nums; }
.figures span { color: var(--soft); font-size: .85rem; }
.plot { overflow-x: auto; } svg { width: 100%; min-width: 36rem; height: auto; } svg text { fill: var(--soft); font: 11px system-ui, sans-serif; }
.grid { stroke: var(--edge); stroke-width: 1; } polyline { fill: none; stroke-width: 1.6; stroke-linejoin: round; }
.legend span { margin-right: 1.2rem; } .legend span::before { content: ''; display: inline-block; width: 1rem;
  height: .2rem; margin-right: .4rem; vertical-align: middle; background: currentColor; }
.line-1 { stroke: var(--line-1); } .line-2 { stroke: var(--line-2); } .line-3 { stroke: var(--line-3); }
.line-4 { stroke: var(--line-4); } .key-1::before { color: var(--line-1); } .key-2::before { color: var(--line-2); }
.key-3::before { color: var(--line-3); } .key-4::before { color: var(--line-4); }
.all { border-top: 1px solid var(--edge); margin-top: 2rem; padding-top: 1rem; }
pre { overflow-x: auto; font: 13px/1.5 ui-monospace, monospace; white-space: pre-wrap; }
";

/// The page of a result.
#[must_use]
pub fn page(report: &Report) -> String {
    let asked = &report.asked;
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Playhead load: {} streamers</title>\n<style>{STYLE}</style>\n</head>\n<body>\n",
        table::thousands(asked.streamers)
    );
    let pace = match asked.kind_of_loop.as_str() {
        "closed" => "as fast as answers came".to_owned(),
        _ => format!("each sending its position every {} s", asked.interval_s),
    };
    html += &format!(
        "<h1>{} streamers against {}</h1>\n<p class=\"soft\">{pace}, for {:.0} s, over {} connections of {}</p>\n",
        table::thousands(asked.streamers),
        escaped(&report.target),
        report.elapsed_s,
        table::thousands(asked.connections),
        asked.protocol
    );
    html += &verdict(report);
    html += &figures(report);
    for (title, note, plot) in plots(report) {
        html += &format!(
            "<h2>{title}</h2>\n<p class=\"soft\">{note}</p>\n{}<div class=\"plot\">{}</div>\n",
            plot.legend(),
            plot.svg()
        );
    }
    html + &format!("<div class=\"all\"><pre>{}</pre></div>\n</body>\n</html>\n", escaped(&table::of(report)))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn verdict(report: &Report) -> String {
    let mut lines = Vec::new();
    let mut line = |is_good: bool, text: &str| {
        let class = if is_good { "good" } else { "bad" };
        lines.push(format!("<p class=\"verdict {class}\">{}</p>\n", escaped(text)));
    };
    if let Some(stopped) = &report.stopped {
        line(false, stopped);
    }
    if let Some(found) = &report.verification {
        line(found.is_kept() && found.unreadable == 0, &format!("Read back: {}.", table::verification(found)));
    }
    for fault in &report.faults {
        line(false, fault);
    }
    match (report.is_valid, report.objectives_missed.is_empty()) {
        (true, true) => line(true, "VALID"),
        (true, false) => line(false, &format!("VALID, but {}", report.objectives_missed.join("; "))),
        (false, _) => line(false, &format!("INVALID: {}", report.invalid_because.join("; "))),
    }
    lines.concat()
}

fn figures(report: &Report) -> String {
    let ms = |value: f64| format!("{} ms", table::digits(value));
    let figures = [
        (format!("{}/s", table::rate(report.acknowledged_per_s)), "acknowledged"),
        (ms(report.latency_ms.p50), "latency, p50"),
        (ms(report.latency_ms.p99), "latency, p99"),
        (ms(report.latency_ms.max), "latency, max"),
        (table::thousands(report.failed), "failed"),
        (ms(report.lag_ms.p99), "generator's lag, p99"),
    ];
    let figures = figures.map(|(value, name)| format!("<div><b>{value}</b><span>{name}</span></div>\n"));
    format!("<div class=\"figures\">\n{}</div>\n", figures.concat())
}

fn plots(report: &Report) -> [(&'static str, &'static str, Plot); 3] {
    let from = match report.asked.kind_of_loop.as_str() {
        "closed" => "From sending a heartbeat to its 204.",
        _ => {
            "From the time at which a heartbeat was due to its 204, by the time at which it was due: a stall shows as a \
             slope, not as a gap."
        }
    };
    [
        ("Latency over time", from, over_time(report)),
        (
            "Latency by share",
            "This share of the heartbeats took at most so long.",
            by_share(&report.latency_histogram_us),
        ),
        (
            "Offered against achieved",
            "Heartbeats that were due, that were sent, and that were acknowledged, a second.",
            rates(report),
        ),
    ]
}

fn float(number: u64) -> f64 {
    number as f64
}

/// The middle of a slot, in seconds.
fn seconds(report: &Report, slot: usize) -> f64 {
    let slot_s = float(report.timeline.slot_s);
    (float(slot as u64) + 0.5) * slot_s
}

/// Round times, and the end of the last slot without a text.
fn time_ticks(report: &Report, slots: usize) -> Vec<Tick> {
    let end = float(report.timeline.slot_s * slots.max(1) as u64);
    let mut ticks = steps(end);
    ticks.retain(|(time, _)| *time <= end);
    for (_, text) in &mut ticks {
        text.push_str(" s");
    }
    ticks.push((end, String::new()));
    ticks
}

fn over_time(report: &Report) -> Plot {
    let slots: Vec<_> = report.timeline.latency_us.iter().map(|pairs| of_pairs(pairs)).collect();
    let line = |value: &dyn Fn(&hdrhistogram::Histogram<u64>) -> u64| {
        let mut parts = vec![Vec::new()];
        for (at, slot) in slots.iter().enumerate() {
            if slot.is_empty() {
                parts.push(Vec::new());
            } else if let Some(part) = parts.last_mut() {
                part.push((seconds(report, at), float(value(slot)) / 1_000.0));
            }
        }
        parts.retain(|part| !part.is_empty());
        parts
    };
    Plot {
        label: "latency over time".to_owned(),
        x_name: "time at which heartbeats were due",
        y_name: "milliseconds",
        x_ticks: time_ticks(report, slots.iter().rposition(|slot| !slot.is_empty()).map_or(1, |last| last + 1)),
        is_log: true,
        series: vec![
            Series { name: "p50", colour: 1, parts: line(&|slot| slot.value_at_quantile(0.5)) },
            Series { name: "p99", colour: 2, parts: line(&|slot| slot.value_at_quantile(0.99)) },
            Series { name: "max", colour: 3, parts: line(&hdrhistogram::Histogram::max) },
        ],
    }
}

fn by_share(pairs: &Pairs) -> Plot {
    let total = float(pairs.iter().map(|(_, count)| count).sum());
    let mut below = 0.0;
    let mut points = Vec::new();
    for (value, count) in pairs {
        below += float(*count);
        // The last one would be at 100 %, which no logarithm reaches: it stands where one more would.
        let above = ((total - below) / total).max(0.5 / total.max(1.0));
        points.push((-above.log10(), float(*value) / 1_000.0));
    }
    let last = points.last().map_or(0.0, |(x, _)| *x);
    let mut ticks = vec![(0.0, "0 %".to_owned()), (0.301, "50 %".to_owned())];
    for (nines, text) in [(1.0, "90 %"), (2.0, "99 %"), (3.0, "99.9 %"), (4.0, "99.99 %"), (5.0, "99.999 %")] {
        if nines <= last {
            ticks.push((nines, text.to_owned()));
        }
    }
    ticks.push((last.max(1.0), String::new()));
    Plot {
        label: "latency by share".to_owned(),
        x_name: "share of heartbeats",
        y_name: "milliseconds",
        x_ticks: ticks,
        is_log: true,
        series: vec![Series { name: "latency", colour: 1, parts: vec![points] }],
    }
}

fn rates(report: &Report) -> Plot {
    let timeline = &report.timeline;
    // What comes in after the last heartbeat is a part of a slot only.
    let lasted = (0..).find(|slot| float(*slot as u64 * timeline.slot_s) >= report.elapsed_s).unwrap_or_default();
    let slots = timeline.offered.len().min(lasted);
    let slot_s = float(timeline.slot_s.max(1));
    let line = |counts: &[u64]| {
        let points = counts.iter().take(slots).enumerate();
        vec![points.map(|(at, count)| (seconds(report, at), float(*count) / slot_s)).collect()]
    };
    let mut series = vec![
        Series { name: "due", colour: 3, parts: line(&timeline.offered) },
        Series { name: "sent", colour: 2, parts: line(&timeline.sent) },
        Series { name: "acknowledged", colour: 1, parts: line(&timeline.acknowledged) },
    ];
    if report.failed > 0 {
        series.push(Series { name: "failed", colour: 4, parts: line(&timeline.failed) });
    }
    let peak = [&timeline.offered, &timeline.acknowledged].into_iter().flatten().max();
    Plot {
        label: format!("heartbeats a second, at most {}", number(float(peak.copied().unwrap_or_default()) / slot_s)),
        x_name: "time",
        y_name: "heartbeats a second",
        x_ticks: time_ticks(report, slots),
        is_log: false,
        series,
    }
}
