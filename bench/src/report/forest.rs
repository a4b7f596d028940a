//! An ablation as a picture: for each workload a panel of ratios around 1, with few ports above and
//! many below in each row.

use std::fmt::Write as _;

use super::ablation::TITLE;
use super::chart::{STYLE, escaped};
use crate::ablation::outcome::{Outcome, Scene, Verdict};
use crate::ablation::{PORTS, WORKLOADS};
use crate::interval::Interval;
use crate::workload::Workload;

const LEFT: f64 = 136.0;
const PANEL: f64 = 216.0;
const GAP: f64 = 16.0;
const TOP: f64 = 92.0;
const BOTTOM: f64 = 90.0;
const ROW: f64 = 34.0;
/// Of few ports above the middle of a row, of many below it.
const LANE: f64 = 7.0;

/// The axis ends there: most differences are small, and those beyond get an arrow and their number.
const REACH: (f64, f64) = (0.88, 1.22);

/// Where it has lines.
const TICKS: [f64; 4] = [0.9, 1.0, 1.1, 1.2];

/// The chart as a file of its own.
#[must_use]
pub fn draw(outcome: &Outcome) -> String {
    let mut workloads: Vec<Workload> = Vec::new();
    for scene in &outcome.scenes {
        if !workloads.contains(&scene.workload) {
            workloads.push(scene.workload);
        }
    }
    let floor = TOP + ROW * outcome.switches.len() as f64;
    // The notes need the room of all panels.
    let width = LEFT + (PANEL + GAP) * WORKLOADS.len() as f64;
    let height = floor + BOTTOM;
    let subtitle = "server CPU per answer with one switch turned, ratio to the default; right of the line the \
                    default is cheaper";
    let mut svg = String::new();
    // Writing to a string cannot fail.
    let _ = write!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" role=\"img\" aria-label=\"{TITLE}\">\n<title>{TITLE}: {subtitle}</title>\n\
         <style>{STYLE}\
         .dearer{{fill:var(--peer);stroke:var(--peer)}}.cheaper{{fill:var(--ours);stroke:var(--ours)}}\
         .same{{fill:var(--echo);stroke:var(--echo)}}.hollow{{fill:var(--ground)}}\
         .line{{stroke-width:2;fill:none}}.noise{{fill:var(--rule);opacity:.6}}</style>\n\
         <rect class=\"ground\" width=\"100%\" height=\"100%\" rx=\"6\"/>\n\
         <text class=\"title\" x=\"16\" y=\"28\">{TITLE}</text>\n\
         <text class=\"soft\" x=\"16\" y=\"47\">{subtitle}</text>\n"
    );
    for (index, switch) in outcome.switches.iter().enumerate() {
        let (name, down) = (escaped(switch.name), TOP + ROW * (index as f64 + 0.5) + 5.0);
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{down}\" text-anchor=\"end\">{name}</text>",
            LEFT - 10.0
        );
    }
    for (index, &workload) in workloads.iter().enumerate() {
        let left = LEFT + (PANEL + GAP) * index as f64;
        draw_panel(&mut svg, outcome, workload, left, floor);
    }
    for (line, note) in notes(outcome).iter().enumerate() {
        let down = floor + 40.0 + 16.0 * line as f64;
        let _ =
            writeln!(svg, "<text class=\"soft\" x=\"16\" y=\"{down}\">{}</text>", escaped(note));
    }
    svg.push_str("</svg>\n");
    svg
}

fn draw_panel(svg: &mut String, outcome: &Outcome, workload: Workload, left: f64, floor: f64) {
    let _ = writeln!(
        svg,
        "<text class=\"strong\" x=\"{left}\" y=\"{}\">{}</text>",
        TOP - 12.0,
        workload.name()
    );
    for tick in TICKS {
        let at = place(left, tick);
        let class = if tick == 1.0 { "mark" } else { "axis" };
        let _ = write!(
            svg,
            "<path class=\"{class}\" d=\"M{at:.1} {TOP}V{floor}\"/>\
             <text class=\"soft\" x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{tick:.1}</text>",
            floor + 15.0
        );
    }
    for scene in outcome.scenes.iter().filter(|scene| scene.workload == workload) {
        let lane = if scene.ports == PORTS[0] { -LANE } else { LANE };
        for (index, switch) in outcome.switches.iter().enumerate() {
            let middle = TOP + ROW * (index as f64 + 0.5) + lane;
            let ratio = scene.cell(switch.name).and_then(|cell| cell.ratio);
            let Some(ratio) = ratio else { continue };
            draw_noise(svg, scene, left, middle);
            let verdict = scene.verdict(switch.name).filter(|_| outcome.is_claim);
            draw_ratio(svg, ratio, verdict, scene.ports == PORTS[0], left, middle);
        }
    }
}

/// How far the default lies from itself, behind the ratio.
fn draw_noise(svg: &mut String, scene: &Scene, left: f64, middle: f64) {
    let Some(twin) = scene.twin.ratio else { return };
    let noise = (twin.high - 1.0).max(1.0 - twin.low);
    let (low, high) = (place(left, 1.0 - noise), place(left, 1.0 + noise));
    let _ = write!(
        svg,
        "<rect class=\"noise\" x=\"{low:.1}\" y=\"{}\" width=\"{:.1}\" height=\"8\"/>",
        middle - 4.0,
        high - low
    );
}

fn draw_ratio(
    svg: &mut String,
    ratio: Interval,
    verdict: Option<Verdict>,
    is_solid: bool,
    left: f64,
    middle: f64,
) {
    let class = match verdict {
        Some(Verdict::Dearer) => "dearer",
        Some(Verdict::Cheaper) => "cheaper",
        Some(Verdict::Same) | None => "same",
    };
    let Interval { median, low, high, .. } = ratio;
    if median < REACH.0 || median > REACH.1 {
        // An arrow at the edge it lies beyond, and its number.
        let (at, tip, text, anchor) = if median > REACH.1 {
            let at = place(left, REACH.1) - 7.0;
            (at, 7, at - 4.0, "end")
        } else {
            let at = place(left, REACH.0) + 7.0;
            (at, -7, at + 4.0, "start")
        };
        let _ = writeln!(
            svg,
            "<path class=\"{class}\" d=\"M{at:.1} {}l{tip} 4l{} 4z\"/>\
             <text class=\"soft\" x=\"{:.1}\" y=\"{}\" text-anchor=\"{anchor}\">{median:.2}</text>",
            middle - 4.0,
            -tip,
            text,
            middle + 4.0,
        );
        return;
    }
    let (from, to, at) = (place(left, low), place(left, high), place(left, median));
    let hollow = if is_solid { "" } else { " hollow" };
    let _ = writeln!(
        svg,
        "<path class=\"line {class}\" d=\"M{from:.1} {middle}H{to:.1}\"/>\
         <circle class=\"{class}{hollow}\" cx=\"{at:.1}\" cy=\"{middle}\" r=\"3.5\" stroke-width=\"1.5\"/>"
    );
}

/// Where a ratio lies in the panel that begins there.
fn place(left: f64, ratio: f64) -> f64 {
    left + PANEL * (ratio.clamp(REACH.0, REACH.1) - REACH.0) / (REACH.1 - REACH.0)
}

fn notes(outcome: &Outcome) -> [String; 3] {
    let [few, many] = PORTS;
    let conditions = &outcome.conditions;
    let date = conditions.date.split('T').next().unwrap_or_default();
    let claim = if outcome.is_claim { "" } else { "NO CLAIM: too few pairs. " };
    [
        format!(
            "Full: {few} client ports, hollow: {many}; median and 95 % interval. Blue: dearer than the default, \
             orange: cheaper, grey: no difference."
        ),
        "The band is how far a second default server lies from the first (A/A).".to_owned(),
        format!("{claim}{date}, {}, one core, loopback.", conditions.processor),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ablation::outcome::tests::outcome;

    #[test]
    fn ratios_lie_where_they_belong_and_far_ones_get_an_arrow() {
        let svg = draw(&outcome(&[("no-simd", 1.05), ("jemalloc", 0.95), ("moka-cache", 1.5)]));
        let document = roxmltree::Document::parse(&svg).expect("well-formed");
        let circles: Vec<(String, f64)> = document
            .descendants()
            .filter(|node| node.has_tag_name("circle"))
            .map(|node| {
                let class = node.attribute("class").expect("given").to_owned();
                (class, node.attribute("cx").expect("given").parse().expect("a number"))
            })
            .collect();
        let classes: Vec<&str> = circles.iter().map(|(class, _)| &**class).collect();
        assert_eq!(classes, ["dearer", "cheaper", "dearer hollow", "cheaper hollow"]);
        let one = place(LEFT, 1.0);
        assert!(circles[0].1 > one && circles[1].1 < one, "{circles:?}");
        assert!((circles[0].1 - one - (one - circles[1].1)).abs() < 0.2, "{circles:?}");
        assert_eq!(svg.matches(">1.50</text>").count(), 2, "{svg}");
        assert_eq!(svg.matches("class=\"noise\"").count(), 6);
    }

    #[test]
    fn without_a_claim_all_is_grey() {
        let mut outcome = outcome(&[("no-simd", 1.05)]);
        outcome.is_claim = false;
        let svg = draw(&outcome);
        assert!(svg.contains("NO CLAIM") && !svg.contains("class=\"dearer\""), "{svg}");
    }
}
