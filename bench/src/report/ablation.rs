//! An ablation as a Markdown page: a row for each switch, a column for each workload and number of
//! ports, and what the figures say.

use std::fmt::{self, Display};

use super::markdown::{LoadAverage, Machine, Warning, grouped, interval, one_line};
use crate::ablation::outcome::{Outcome, Scene, Verdict};
use crate::ablation::switches::{Switch, Turn};

/// The heading, and of the chart too.
pub const TITLE: &str = "What each optimization buys";

/// The page.
#[derive(Clone, Copy, Debug)]
pub struct Page<'o>(pub &'o Outcome);

impl Display for Page<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(outcome) = self;
        writeln!(f, "# {TITLE}\n")?;
        let Outcome { is_claim, pairs, ref conditions, .. } = **outcome;
        write!(f, "{}", Warning { is_claim, pairs, conditions })?;
        writeln!(
            f,
            "Each row is the server with one switch turned; each figure is its CPU per answer, divided by \
             that of the default server, in pairs of rounds that follow each other. Above 1 the default is \
             cheaper. Rows of the first half take an optimization away, so what lies above 1 is what it is \
             worth; the others put something in place of the default or add it, so what lies below 1 is what \
             it would bring.\n\n![{TITLE}](ablation.svg)\n"
        )?;
        self.write_table(f)?;
        writeln!(
            f,
            "▲ dearer than the default, ▼ cheaper, ≈ no difference: the interval (95 %, of the median) holds 1, \
             or the median is no farther from 1 than a bound of the A/A interval, which is that of a second \
             default server. Of twenty intervals one misses the true median by chance, and runs differ more \
             than pairs of one run.\n"
        )?;
        self.write_judgement(f)?;
        self.write_gaps(f)?;
        self.write_conditions(f)
    }
}

impl Page<'_> {
    fn write_table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(outcome) = self;
        write!(f, "| switch | what it does |")?;
        for scene in &outcome.scenes {
            write!(f, " {} |", scene.title())?;
        }
        writeln!(f, "\n|---|---|{}", "--:|".repeat(outcome.scenes.len()))?;
        write!(f, "| default | CPU per answer |")?;
        for scene in &outcome.scenes {
            write!(f, " {:.3} µs |", scene.default.per_answer_ns / 1000.0)?;
        }
        write!(f, "\n| default again (A/A) | what the measuring itself does |")?;
        for scene in &outcome.scenes {
            write!(f, " {} |", scene.twin.ratio.map_or_else(|| "–".to_owned(), interval))?;
        }
        writeln!(f)?;
        for switch in &outcome.switches {
            write!(f, "| {} | {} |", switch.name, switch.what)?;
            for scene in &outcome.scenes {
                write!(f, " {} |", cell(scene, switch, outcome.is_claim))?;
            }
            writeln!(f)?;
        }
        writeln!(f)
    }

    /// Where there is a gain, and why the others stay.
    fn write_judgement(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(outcome) = self;
        let of = |gain| move |switch: &&&'static Switch| outcome.shows_gain(switch) == Some(gain);
        if outcome.switches.iter().any(|switch| of(true)(&switch)) {
            writeln!(f, "## Gains\n")?;
        }
        for switch in outcome.switches.iter().filter(of(true)) {
            let (gain, loss, is) = match switch.turn {
                Turn::Without => (Verdict::Dearer, Verdict::Cheaper, "the default is cheaper"),
                Turn::With => (Verdict::Cheaper, Verdict::Dearer, "it is cheaper than the default"),
            };
            let places = |verdict| {
                let scenes = outcome.where_it_is(switch, verdict);
                scenes.map(Scene::title).collect::<Vec<_>>().join("; ")
            };
            write!(f, "- **{}**: {is} in {}", switch.name, places(gain))?;
            let elsewhere = places(loss);
            if !elsewhere.is_empty() {
                write!(f, "; the other way round in {elsewhere}")?;
            }
            writeln!(f)?;
        }
        if outcome.switches.iter().any(|switch| of(false)(&switch)) {
            writeln!(f, "\n## No gain in any of these workloads, and why it stays\n")?;
        }
        for switch in outcome.switches.iter().filter(of(false)) {
            writeln!(f, "- **{}**: {}", switch.name, switch.stays)?;
        }
        writeln!(f)
    }

    /// What is missing, and which figures are worth less.
    fn write_gaps(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(outcome) = self;
        let mut lines = Vec::new();
        for switch in &outcome.switches {
            let left_out = outcome.scenes.iter().flat_map(|scene| {
                let of_switch = scene.left_out.iter().filter(|one| one.name == switch.name);
                of_switch.map(|one| (scene.title(), one_line(&one.reason)))
            });
            // The reason is the same everywhere if it cannot be built or started.
            let mut reasons: Vec<(String, Vec<String>)> = Vec::new();
            for (title, reason) in left_out {
                match reasons.iter_mut().find(|(known, _)| *known == reason) {
                    Some((_, titles)) => titles.push(title),
                    None => reasons.push((reason, vec![title])),
                }
            }
            for (reason, titles) in reasons {
                let everywhere = titles.len() == outcome.scenes.len();
                let places = if everywhere { "anything".to_owned() } else { titles.join("; ") };
                lines.push(format!("{} with {places}: {reason}", switch.name));
            }
        }
        write_list(f, "Not measured", &lines)?;
        let doubts: Vec<String> = outcome.scenes.iter().flat_map(Scene::doubts).collect();
        write_list(f, "Figures to doubt", &doubts)
    }

    fn write_conditions(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(outcome) = self;
        write!(f, "{}", Machine(&outcome.conditions, "loopback"))?;
        let Outcome { pairs, round_s, .. } = outcome;
        writeln!(f, "- {pairs} pairs of rounds of {round_s} s each, order alternating (ABBA)")?;
        writeln!(
            f,
            "- hit: 10,000 names, all cached; zipf: 1,000,000 names by Zipf's law over a cache for 100,000; \
             miss: names never asked before, forwarded; one worker"
        )?;
        let mut windows: Vec<(usize, usize)> =
            outcome.scenes.iter().map(|scene| (scene.ports, scene.window)).collect();
        windows.sort_unstable();
        windows.dedup();
        for (ports, window) in windows {
            let (ports, window) = (grouped(ports as f64), grouped(window as f64));
            writeln!(f, "- {ports} ports: {window} queries outstanding")?;
        }
        write!(f, "{}", LoadAverage(&outcome.conditions))
    }
}

/// The ratio and what it says; figures of too few pairs say nothing.
fn cell(scene: &Scene, switch: &Switch, is_claim: bool) -> String {
    let Some(ratio) = scene.cell(switch.name).and_then(|cell| cell.ratio) else {
        return "–".to_owned();
    };
    let figure = interval(ratio);
    match scene.verdict(switch.name).filter(|_| is_claim) {
        Some(Verdict::Dearer) => format!("**{figure}** ▲"),
        Some(Verdict::Cheaper) => format!("**{figure}** ▼"),
        Some(Verdict::Same) => format!("{figure} ≈"),
        None => figure,
    }
}

fn write_list(f: &mut fmt::Formatter<'_>, heading: &str, lines: &[String]) -> fmt::Result {
    if lines.is_empty() {
        return Ok(());
    }
    writeln!(f, "## {heading}\n")?;
    for line in lines {
        writeln!(f, "- {line}")?;
    }
    writeln!(f)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ablation::outcome::LeftOut;
    use crate::ablation::outcome::tests::outcome;

    #[test]
    fn every_row_has_as_many_cells_as_the_head() {
        let page = Page(&outcome(&[("no-simd", 1.1), ("huge-pages", 1.0)])).to_string();
        let rows = page.lines().filter(|line| line.starts_with('|'));
        let counts: Vec<usize> = rows.map(|row| row.matches('|').count()).collect();
        assert_eq!(counts, [5; 6], "{page}");
    }

    #[test]
    fn gains_are_told_and_who_has_none_says_why_it_stays() {
        let all = [("no-simd", 1.1), ("no-pin", 1.0), ("jemalloc", 0.9), ("moka-cache", 1.5)];
        let page = Page(&outcome(&all)).to_string();
        for line in [
            "- **no-simd**: the default is cheaper in hit, 8 ports; hit, 1,000 ports\n",
            "- **jemalloc**: it is cheaper than the default in hit, 8 ports; hit, 1,000 ports\n",
            "- **no-pin**: the measured server is confined",
            "- **moka-cache**: it is the yardstick",
            "| **1.100 (1.094–1.106)** ▲ | **1.100",
            "| 1.000 (0.994–1.006) ≈ |",
            "| **0.900 (0.895–0.905)** ▼ |",
            "- 1,000 ports: 1,000 queries outstanding",
        ] {
            assert!(page.contains(line), "{line}: {page}");
        }
        assert!(!page.contains("NO CLAIM") && !page.contains("## Not measured"), "{page}");
    }

    #[test]
    fn too_few_pairs_support_no_claim() {
        let mut outcome = outcome(&[("no-simd", 1.1), ("no-pin", 1.0)]);
        outcome.is_claim = false;
        let page = Page(&outcome).to_string();
        assert!(page.contains("NO CLAIM") && !page.contains("stays"), "{page}");
        assert!(!page.contains("## Gains") && !page.contains("** ▲"), "{page}");
    }

    #[test]
    fn what_is_missing_is_told_once_for_each_reason() {
        let mut outcome = outcome(&[("no-simd", 1.1), ("huge-pages", 1.0)]);
        for scene in &mut outcome.scenes {
            scene.cells.pop();
            scene.left_out.push(LeftOut::new("huge-pages", "unknown\nsetting | here"));
            scene.default.failed = 1;
        }
        let page = Page(&outcome).to_string();
        let line = "- huge-pages with anything: unknown setting \\| here";
        assert!(page.contains(line), "{page}");
        assert!(page.contains("- hit, 8 ports, default: 1 answers not NOERROR"), "{page}");
        assert!(page.contains(" | – | – |"), "{page}");
    }
}
