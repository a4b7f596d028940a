//! A comparison as bars: what an answer costs, or a cached name, the cheapest first.

use std::fmt::Write as _;

use crate::outcome::{Finding, Outcome, Row};
use crate::subject::Kind;
use crate::workload::Workload;

const WIDTH: f64 = 760.0;
const LEFT: f64 = 150.0;
/// Room for the label behind the longest bar.
const RIGHT: f64 = 190.0;
const TOP: f64 = 64.0;
const BOTTOM: f64 = 50.0;
const ROW: f64 = 30.0;
const BAR: f64 = 18.0;

/// Colours of light pages, and of dark ones. It has a ground of its own, since a page that is dark
/// by its own choice shows the picture as the system prefers it.
pub(super) const STYLE: &str = "\
:root{--ground:#fff;--text:#1b1f24;--soft:#59636e;--rule:#d1d9e0;--peer:#8fa8c6;--zone:#c3cfde;\
--ours:#d9622b;--echo:#7d8590}\
@media(prefers-color-scheme:dark){:root{--ground:#0d1117;--text:#e6edf3;--soft:#9198a1;\
--rule:#3d444d;--peer:#5b7ba3;--zone:#394b61;--ours:#f0804a;--echo:#8b949e}}\
text{font:14px system-ui,-apple-system,'Segoe UI',sans-serif;fill:var(--text)}\
.title{font-size:17px;font-weight:600}.soft{font-size:12px;fill:var(--soft)}\
.ground{fill:var(--ground)}.peer{fill:var(--peer)}.zone{fill:var(--zone)}.ours{fill:var(--ours)}\
.echo{fill:var(--echo)}.strong{font-weight:600}\
.whisker{stroke:var(--text);stroke-width:1.5;fill:none}\
.mark{stroke:var(--echo);stroke-width:1.5;stroke-dasharray:4 3;fill:none}\
.axis{stroke:var(--rule);fill:none}";

/// What a bar is painted as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colour {
    /// What others are compared with.
    Echo,
    /// Ours.
    Ours,
    /// A server of its own kind.
    Peer,
    /// One that answers from a zone.
    Zone,
}

/// One bar.
pub(super) struct Bar {
    pub(super) name: String,
    pub(super) colour: Colour,
    pub(super) value: f64,
    /// Where the true median lies.
    pub(super) whisker: Option<(f64, f64)>,
    pub(super) label: String,
}

/// The chart as a file of its own. Servers without figures are left out.
#[must_use]
pub fn draw(outcome: &Outcome) -> String {
    let drawn: Vec<Bar> = outcome.rows.iter().filter_map(bar).collect();
    let title = outcome.workload.title();
    let (unit, subtitle) = match outcome.workload {
        Workload::Memory => {
            ("bytes", "growth of resident memory in bytes per cached name; less is better")
        }
        _ => ("µs", "server CPU per answer in µs, median and 95 % interval; less is better"),
    };
    let echo = outcome.rows.iter().find(|row| row.kind == Kind::Echo).and_then(bar);
    let echo = echo.map(|bar| bar.value);
    bars(title, subtitle, &drawn, echo, &notes(outcome, unit))
}

/// Bars, the first on top, with a dashed line at `mark`, and two lines of notes below.
pub(super) fn bars(
    title: &str,
    subtitle: &str,
    bars: &[Bar],
    mark: Option<f64>,
    notes: &[String; 2],
) -> String {
    let reach = |bar: &Bar| bar.whisker.map_or(bar.value, |(_, high)| high.max(bar.value));
    let longest = bars.iter().map(reach).fold(f64::MIN_POSITIVE, f64::max);
    let scale = (WIDTH - LEFT - RIGHT) / longest;
    let floor = TOP + ROW * bars.len() as f64;
    let height = floor + BOTTOM;

    let mut svg = String::new();
    // Writing to a string cannot fail.
    let _ = write!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\" role=\"img\" aria-label=\"{title}\">\n\
         <title>{title}: {subtitle}</title>\n<style>{STYLE}</style>\n\
         <rect class=\"ground\" width=\"100%\" height=\"100%\" rx=\"6\"/>\n\
         <text class=\"title\" x=\"16\" y=\"28\">{title}</text>\n\
         <text class=\"soft\" x=\"16\" y=\"47\">{subtitle}</text>\n"
    );
    for (index, bar) in bars.iter().enumerate() {
        draw_bar(&mut svg, bar, TOP + ROW * index as f64, scale);
    }
    let _ = writeln!(svg, "<path class=\"axis\" d=\"M{LEFT} {TOP}V{floor}\"/>");
    if let Some(mark) = mark {
        let at = LEFT + mark * scale;
        let _ = writeln!(svg, "<path class=\"mark\" d=\"M{at:.1} {TOP}V{floor}\"/>");
    }
    for (line, note) in notes.iter().enumerate() {
        let down = floor + 22.0 + 16.0 * line as f64;
        let note = escaped(note);
        let _ = writeln!(svg, "<text class=\"soft\" x=\"16\" y=\"{down}\">{note}</text>");
    }
    svg.push_str("</svg>\n");
    svg
}

fn draw_bar(svg: &mut String, bar: &Bar, top: f64, scale: f64) {
    let (class, strong) = match bar.colour {
        Colour::Echo => ("echo", ""),
        Colour::Ours => ("ours", " class=\"strong\""),
        Colour::Peer => ("peer", ""),
        Colour::Zone => ("zone", ""),
    };
    let (width, middle) = (bar.value * scale, top + ROW / 2.0);
    let name = escaped(&bar.name);
    let _ = write!(
        svg,
        "<text{strong} x=\"{}\" y=\"{}\" text-anchor=\"end\">{name}</text>\
         <rect class=\"{class}\" x=\"{LEFT}\" y=\"{}\" width=\"{width:.2}\" height=\"{BAR}\" rx=\"2\"/>",
        LEFT - 8.0,
        middle + 5.0,
        middle - BAR / 2.0,
    );
    let mut end = LEFT + width;
    if let Some((low, high)) = bar.whisker {
        let (low, high) = (LEFT + low * scale, LEFT + high * scale);
        end = end.max(high);
        let (above, below) = (middle - 4.0, middle + 4.0);
        let _ = write!(
            svg,
            "<path class=\"whisker\" d=\"M{low:.1} {middle}H{high:.1}\
             M{low:.1} {above}V{below}M{high:.1} {above}V{below}\"/>"
        );
    }
    let label = escaped(&bar.label);
    let _ =
        writeln!(svg, "<text{strong} x=\"{:.1}\" y=\"{}\">{label}</text>", end + 8.0, middle + 5.0);
}

fn bar(row: &Row) -> Option<Bar> {
    let colour = match row.kind {
        Kind::Echo | Kind::Twin => Colour::Echo,
        Kind::Ours => Colour::Ours,
        Kind::Resolver => Colour::Peer,
        Kind::Authoritative => Colour::Zone,
    };
    let name = row.name.to_owned();
    match &row.finding {
        Finding::Rounds(measured) => {
            let value = row.cost()? / 1000.0;
            let label = match measured.ratio {
                Some(ratio) => format!("{value:.2} µs · {:.2} × echo", ratio.median),
                None => format!("{value:.2} µs"),
            };
            let whisker = measured.cpu_ns.map(|cpu| (cpu.low / 1000.0, cpu.high / 1000.0));
            Some(Bar { name, colour, value, whisker, label })
        }
        Finding::Memory(held) => {
            let value = row.cost()?;
            let label = format!("{value:.0} bytes · {:.0} % kept", 100.0 * held.share_kept());
            Some(Bar { name, colour, value, whisker: None, label })
        }
        Finding::Failed(_) => None,
    }
}

/// What the picture says of itself where its table isn't near, in two lines.
fn notes(outcome: &Outcome, unit: &str) -> [String; 2] {
    let date = outcome.conditions.date.split('T').next().unwrap_or_default();
    let claim = if outcome.is_claim { "" } else { "NO CLAIM: too few pairs. " };
    let mut key = Vec::new();
    if unit == "µs" {
        key.push("Dashed: the bare echo.");
    }
    if outcome.rows.iter().any(|row| row.kind == Kind::Authoritative) {
        key.push("Pale: authoritative servers, which cache nothing.");
    }
    let conditions = &outcome.conditions;
    [format!("{claim}{date}, {}, one core, loopback.", conditions.processor), key.join(" ")]
}

pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::tests::{held, outcome};

    fn widths(svg: &str) -> Vec<f64> {
        let document = roxmltree::Document::parse(svg).expect("well-formed");
        let bars = document
            .descendants()
            .filter(|node| node.has_tag_name("rect") && node.attribute("class") != Some("ground"));
        bars.map(|bar| bar.attribute("width").expect("given").parse().expect("a number")).collect()
    }

    #[test]
    fn bars_are_as_long_as_their_values() {
        let servers = [
            ("echo", Kind::Echo, 1000),
            ("a<b&\"c\"", Kind::Ours, 2000),
            ("zone", Kind::Authoritative, 4000),
        ];
        let svg = draw(&outcome(Workload::Hit, &servers));
        let widths = widths(&svg);
        assert_eq!(widths.len(), 3);
        // The values are the medians of what the samples add: 7 ns.
        assert!((widths[1] / widths[0] - 2007.0 / 1007.0).abs() < 0.01, "{widths:?}");
        assert!((widths[2] / widths[0] - 4007.0 / 1007.0).abs() < 0.01, "{widths:?}");
        assert!(svg.contains("prefers-color-scheme:dark") && svg.contains("class=\"mark\""));
        assert!(svg.contains("2.01 µs · 2.01 × echo"), "{svg}");
        let end = LEFT + widths[2];
        assert!(end <= WIDTH - RIGHT + 1.0, "{end}");
    }

    #[test]
    fn memory_has_bars_too_and_who_failed_has_none() {
        let mut outcome = outcome(Workload::Memory, &[]);
        let failed = Finding::Failed("why".to_owned());
        for (name, finding) in [("slim", held(100)), ("fat", held(300)), ("dead", failed)] {
            outcome.rows.push(Row { name, kind: Kind::Resolver, version: None, finding });
        }
        let svg = draw(&outcome);
        let widths = widths(&svg);
        assert_eq!(widths.len(), 2);
        assert!((widths[1] / widths[0] - 3.0).abs() < 0.01);
        assert!(svg.contains("100 bytes · 80 % kept") && !svg.contains("class=\"mark\""), "{svg}");
    }
}
