//! A line chart in SVG.

use std::fmt::Write as _;

/// So narrow that the labels keep their size on a phone.
const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 270.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 26.0;
const TOP: f64 = 28.0;
const BOTTOM: f64 = 54.0;

/// Width of a character of a label at most, and the gap between two labels.
const CHARACTER: f64 = 9.0;
const GAP: f64 = 10.0;

/// Lines of the grid on an axis, at most.
const TICKS: f64 = 6.0;

/// How a value finds its place on an axis.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Scale {
    /// Evenly, from zero.
    Linear,
    /// Each power of ten takes the same room.
    Log,
    /// As `Log`, of one in how many is more; labelled with the share that isn't.
    Nines,
}

/// One line and its name in the key.
pub(super) struct Line {
    pub(super) class: &'static str,
    pub(super) name: &'static str,
    pub(super) points: Vec<(f64, f64)>,
}

/// Lines over common axes.
pub(super) struct Chart {
    pub(super) x: Scale,
    pub(super) y: Scale,
    pub(super) x_label: &'static str,
    pub(super) y_label: &'static str,
    pub(super) lines: Vec<Line>,
}

/// The range of one axis.
struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
    /// From tick to tick; a divisor of the range.
    step: f64,
}

impl Chart {
    /// Adds the chart with its title and key to a page.
    pub(super) fn draw(&self, page: &mut String, title: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(page, "<section><h2>{title}</h2>");
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let x = Axis::over(self.x, points().map(|point| point.0));
        let y = Axis::over(self.y, points().map(|point| point.1));
        let (Some(x), Some(y)) = (x, y) else {
            page.push_str("<p>nothing to draw</p></section>\n");
            return;
        };
        page.push_str("<p class=\"key\">");
        for line in &self.lines {
            let _ = write!(page, "<span class=\"{}\">&#9632; {}</span>", line.class, line.name);
        }
        let _ = writeln!(
            page,
            "</p>\n<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">"
        );
        self.grid(page, &x, &y);
        for line in &self.lines {
            let place = |&(a, b): &(f64, f64)| {
                let across = LEFT + x.place(a) * (WIDTH - LEFT - RIGHT);
                let down = HEIGHT - BOTTOM - y.place(b) * (HEIGHT - TOP - BOTTOM);
                format!("{across:.1},{down:.1}")
            };
            let places: Vec<String> = line.points.iter().map(place).collect();
            // A line of one point is drawn as a dot.
            let (dot, doubled) = match &places[..] {
                [] => continue,
                [only] => (" dot", format!("{only} {only}")),
                _ => ("", places.join(" ")),
            };
            let _ = writeln!(
                page,
                "<polyline class=\"line {}{dot}\" points=\"{doubled}\"/>",
                line.class
            );
        }
        page.push_str("</svg></section>\n");
    }

    fn grid(&self, page: &mut String, x: &Axis, y: &Axis) {
        let (floor, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        let ticks = x.ticks();
        let every = label_every(&ticks);
        for (index, (value, label)) in ticks.iter().enumerate() {
            let at = LEFT + x.place(*value) * (WIDTH - LEFT - RIGHT);
            let _ = writeln!(page, "<path class=\"grid\" d=\"M{at:.1} {TOP}V{floor}\"/>");
            if index % every == 0 {
                let label_at = at.min(WIDTH - width(label) / 2.0);
                let _ = writeln!(
                    page,
                    "<text x=\"{label_at:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
                    floor + 24.0
                );
            }
        }
        for (value, label) in y.ticks() {
            let at = floor - y.place(value) * (HEIGHT - TOP - BOTTOM);
            let _ = writeln!(
                page,
                "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{right}\"/><text x=\"{}\" y=\"{:.1}\" \
                 text-anchor=\"end\">{label}</text>",
                LEFT - 6.0,
                at + 5.0
            );
        }
        let _ = writeln!(
            page,
            "<text x=\"{right}\" y=\"{}\" text-anchor=\"end\">{}</text>\
             <text x=\"4\" y=\"15\">{}</text>",
            HEIGHT - 8.0,
            self.x_label,
            self.y_label
        );
    }
}

impl Axis {
    /// `None` without a value.
    fn over(scale: Scale, values: impl Iterator<Item = f64>) -> Option<Self> {
        let is_log = scale != Scale::Linear;
        let values = values.filter(|value| value.is_finite() && (!is_log || *value > 0.0));
        let (low, high) = values
            .fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
        if low > high {
            return None;
        }
        Some(if is_log {
            let (low, high) = (low.log10().floor(), high.log10().ceil());
            Self { scale, low, high: high.max(low + 1.0), step: 1.0 }
        } else {
            // All zero is a line on the floor, under a scale that can be read.
            let high = if high > 0.0 { high } else { 1.0 };
            let step = step(high / TICKS);
            Self { scale, low: 0.0, high: (high / step).ceil().max(1.0) * step, step }
        })
    }

    /// From 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let value = if self.scale == Scale::Linear { value } else { value.max(1e-9).log10() };
        ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    fn ticks(&self) -> Vec<(f64, String)> {
        let count = ((self.high - self.low) / self.step).round() as i32;
        match self.scale {
            Scale::Linear => {
                let at = |index| self.low + f64::from(index) * self.step;
                (0..=count).map(|index| (at(index), short(at(index)))).collect()
            }
            Scale::Log | Scale::Nines => (0..=count)
                .map(|index| {
                    let power = self.low + f64::from(index);
                    let value = 10f64.powf(power);
                    let digits = (power - 2.0).max(0.0) as usize;
                    let label = match self.scale {
                        Scale::Nines => format!("{:.digits$} %", 100.0 * (1.0 - 1.0 / value)),
                        _ => short(value),
                    };
                    (value, label)
                })
                .collect(),
        }
    }
}

/// Each how-manyth tick has a label, so that none touches another.
fn label_every(ticks: &[(f64, String)]) -> usize {
    let widest = ticks.iter().map(|(_, label)| width(label)).fold(0.0, f64::max);
    let spacing = (WIDTH - LEFT - RIGHT) / (ticks.len().max(2) - 1) as f64;
    ((widest + GAP) / spacing).ceil() as usize
}

fn width(label: &str) -> f64 {
    label.len() as f64 * CHARACTER
}

/// The next of 1, 2, 5, 10, 20 and so on.
fn step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|digit| digit * power)
        .find(|&step| step >= least * 0.999)
        .unwrap_or(power)
}

/// A number with k or M.
fn short(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{}M", (value / 1e4).round() / 100.0),
        value if value >= 1e3 => format!("{}k", (value / 1e1).round() / 100.0),
        // No value of a scale has more digits than these.
        value => format!("{}", (value * 1e9).round() / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_hold_their_values() {
        for scale in [Scale::Linear, Scale::Log, Scale::Nines] {
            let more = vec![3003.0, 1.0];
            for values in
                [vec![1.0], vec![1.0, 7.0, 1234.5], vec![0.002, 3e7], vec![5e5, 5e5], more]
            {
                let axis = Axis::over(scale, values.iter().copied()).expect("values");
                assert!(values.iter().all(|&value| (0.0..=1.0).contains(&axis.place(value))));
                let ticks = axis.ticks();
                assert!((2..=14).contains(&ticks.len()), "{}", ticks.len());
                let places: Vec<f64> = ticks.iter().map(|(value, _)| axis.place(*value)).collect();
                let gap = 1.0 / (ticks.len() - 1) as f64;
                let is_even = |pair: &[f64]| (pair[1] - pair[0] - gap).abs() < 1e-6;
                assert!(places.windows(2).all(is_even), "{places:?}");
            }
            assert!(Axis::over(scale, std::iter::empty()).is_none());
        }
    }

    #[test]
    fn zeros_have_a_scale() {
        let labels = |values: [f64; 2]| {
            let axis = Axis::over(Scale::Linear, values.into_iter()).expect("values");
            axis.ticks().into_iter().map(|(_, label)| label).collect::<Vec<_>>()
        };
        assert_eq!(labels([0.0, 0.0]), ["0", "0.2", "0.4", "0.6", "0.8", "1"]);
        assert_eq!(labels([0.0, 0.0004]).last().expect("ticks"), "0.0004");
    }

    #[test]
    fn labels_are_short() {
        assert_eq!(
            ["0", "0.5", "20", "1k", "1.5k", "2M"],
            [0.0, 0.5, 20.0, 1e3, 1.5e3, 2e6].map(short)
        );
    }
}
