//! Line plots as SVG that stands in a page: sizes scale, colours are the page's (`--line-1` to `--line-4`).

use std::fmt::Write;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 300.0;
/// Room for labels around the plot.
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 40.0;

/// A line.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) name: &'static str,
    /// Which of the page's colours.
    pub(crate) colour: u8,
    /// Parts between which nothing is drawn.
    pub(crate) parts: Vec<Vec<(f64, f64)>>,
}

/// A place on an axis, and what is written there.
pub(crate) type Tick = (f64, String);

/// A plot.
#[derive(Debug)]
pub(crate) struct Plot {
    /// What it shows, for who can't see it.
    pub(crate) label: String,
    pub(crate) x_name: &'static str,
    pub(crate) y_name: &'static str,
    /// Ascending; the first and the last are the ends of the axis.
    pub(crate) x_ticks: Vec<Tick>,
    /// The vertical axis is logarithmic.
    pub(crate) is_log: bool,
    pub(crate) series: Vec<Series>,
}

impl Plot {
    /// The SVG; nothing but a note if there is nothing to draw.
    pub(crate) fn svg(&self) -> String {
        let points = || self.series.iter().flat_map(|series| series.parts.iter().flatten());
        let y_max = points().map(|(_, y)| *y).fold(0.0, f64::max);
        let (Some((x_min, _)), Some((x_max, _)), true) = (self.x_ticks.first(), self.x_ticks.last(), y_max > 0.0)
        else {
            return "<p class=\"nothing\">Nothing to show.</p>\n".to_owned();
        };
        let y_min = points().map(|(_, y)| *y).filter(|y| *y > 0.0).fold(y_max, f64::min);
        let y_ticks = if self.is_log { decades(y_min, y_max) } else { steps(y_max) };
        let (low, high) = (y_ticks[0].0, y_ticks[y_ticks.len() - 1].0);
        let scale = |y: f64| if self.is_log { y.max(low).log10() } else { y };
        let x_at = |x: f64| LEFT + (x - x_min) / (x_max - x_min).max(1e-9) * (WIDTH - LEFT - RIGHT);
        let y_at = |y: f64| {
            HEIGHT - BOTTOM - (scale(y) - scale(low)) / (scale(high) - scale(low)).max(1e-9) * (HEIGHT - TOP - BOTTOM)
        };
        let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n", self.label);
        let mut add = |text: String| {
            svg.push_str(&text);
            svg.push('\n');
        };
        for (y, text) in &y_ticks {
            let at = y_at(*y);
            add(format!("<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>", WIDTH - RIGHT));
            add(format!("<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>", LEFT - 6.0, at + 4.0));
        }
        for (x, text) in &self.x_ticks {
            let at = x_at(*x);
            add(format!("<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{text}</text>", HEIGHT - BOTTOM + 16.0));
        }
        let (middle, base) = (f64::midpoint(LEFT, WIDTH - RIGHT), HEIGHT - 6.0);
        add(format!("<text x=\"{middle}\" y=\"{base}\" text-anchor=\"middle\">{}</text>", self.x_name));
        let across = f64::midpoint(TOP, HEIGHT - BOTTOM);
        add(format!(
            "<text transform=\"translate(12 {across}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            self.y_name
        ));
        for series in &self.series {
            for part in &series.parts {
                let mut path = String::new();
                for (x, y) in part {
                    // A string takes all.
                    let _ = write!(path, "{:.1},{:.1} ", x_at(*x), y_at(*y));
                }
                // A single point would not show as a line.
                let marker = if part.len() == 1 { " stroke-linecap=\"round\"" } else { "" };
                let path = if part.len() == 1 { path.repeat(2) } else { path };
                add(format!("<polyline class=\"line-{}\"{marker} points=\"{}\"/>", series.colour, path.trim_end()));
            }
        }
        svg + "</svg>\n"
    }

    /// The names of the lines, each with its colour.
    pub(crate) fn legend(&self) -> String {
        let names =
            self.series.iter().map(|series| format!("<span class=\"key-{}\">{}</span>", series.colour, series.name));
        format!("<p class=\"legend\">{}</p>\n", names.collect::<Vec<_>>().join(" "))
    }
}

/// Powers of ten around both.
fn decades(low: f64, high: f64) -> Vec<Tick> {
    let (from, to) = (low.log10().floor(), high.log10().ceil());
    let to = if to > from { to } else { from + 1.0 };
    let mut ticks = Vec::new();
    let mut power = from;
    while power <= to {
        let value = 10_f64.powf(power);
        ticks.push((value, number(value)));
        power += 1.0;
    }
    ticks
}

/// From 0 in round steps.
pub(crate) fn steps(high: f64) -> Vec<Tick> {
    let rough = high / 5.0;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * power).find(|step| *step >= rough);
    let step = step.unwrap_or(power);
    let mut ticks = vec![(0.0, "0".to_owned())];
    while ticks[ticks.len() - 1].0 < high - step * 1e-9 {
        let value = ticks[ticks.len() - 1].0 + step;
        ticks.push((value, number(value)));
    }
    ticks
}

/// As short as it can be written.
pub(crate) fn number(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{}M", round(value / 1e6)),
        value if value >= 1e4 => format!("{}k", round(value / 1e3)),
        value => round(value),
    }
}

fn round(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(ticks: Vec<Tick>) -> Vec<String> {
        ticks.into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn ticks_are_round_and_cover_all() {
        assert_eq!(texts(steps(10_000.0)), ["0", "2000", "4000", "6000", "8000", "10k"]);
        assert_eq!(texts(steps(0.7)), ["0", "0.2", "0.4", "0.6", "0.8"]);
        assert_eq!(texts(decades(0.3, 250.0)), ["0.1", "1", "10", "100", "1000"]);
        assert_eq!(texts(decades(1.0, 1.0)), ["1", "10"]);
        assert_eq!([number(1.5e6), number(0.001), number(12_000.0)], ["1.5M", "0.001", "12k"]);
    }

    #[test]
    fn lines_lie_within_the_plot_and_nothing_is_said_to_be_nothing() {
        let plot = |parts| Plot {
            label: "a".to_owned(),
            x_name: "x",
            y_name: "y",
            x_ticks: vec![(0.0, "0".to_owned()), (10.0, "10".to_owned())],
            is_log: true,
            series: vec![Series { name: "s", colour: 1, parts }],
        };
        let svg = plot(vec![vec![(0.0, 1.0), (10.0, 1_000.0)], vec![(5.0, 10.0)]]).svg();
        assert!(svg.contains("points=\"64.0,260.0 844.0,12.0\""), "{svg}");
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert!(plot(Vec::new()).svg().contains("Nothing"));
    }
}
