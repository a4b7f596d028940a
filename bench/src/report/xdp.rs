//! AF_XDP as a Markdown page: the bars, what each one costs, and what became of the frames; and as bars.

use std::fmt::{self, Display};

use super::chart::{self, Bar as Drawn, Colour};
use super::markdown::{LoadAverage, Machine, Table, Warning, grouped, interval, one_line};
use crate::rounds::BUSY_MIN;
use crate::xdp::frames::{DURATION, Frames, RATE, ROUNDS};
use crate::xdp::outcome::{Bar, FIGURES, Figure, Outcome, Scene, Side, Verdict};
use crate::xdp::{CONFIRMING, Contender, LOSS_MAX, SHARE};

/// The title of the page and of the chart.
const TITLE: &str = "Cache hits over AF_XDP";

/// The page.
#[derive(Clone, Copy, Debug)]
pub struct Page<'o>(pub &'o Outcome);

impl Display for Page<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(outcome) = self;
        let Outcome { is_claim, pairs, ref conditions, .. } = **outcome;
        writeln!(f, "# {TITLE}\n")?;
        write!(f, "{}", Warning { is_claim, pairs, conditions })?;
        writeln!(
            f,
            "10,000 names, all cached, asked in turn by kxdpgun over a veth pair: native AF_XDP in copy mode, one \
             queue, one thread. **Real network cards, and so zero-copy, were not measured.** A server's CPU is that of \
             its threads and of its interface's NAPI thread.\n\n![{TITLE}](xdp.svg)\n"
        )?;
        write!(f, "{}", figures(outcome))?;
        writeln!(
            f,
            "kxdpgun is an open loop, and the more queries come at once, the less each costs. So there are two \
             answers. *At their own maximum* is what a core gives that has nothing else to do: each is asked the \
             highest rate at which most of {CONFIRMING} rounds lost less than {:.0} %. *At one rate* is what the same \
             work takes: {:.0} % of what the slower of the two can do, at which the faster one is woken for fewer \
             queries at a time and has less of what batches save. A bar is met when the 95 % interval reaches it; \
             where the median does not, that is said. What was lost is the median of the rounds, and in all of them.\n",
            100.0 * LOSS_MAX,
            100.0 * SHARE
        )?;
        writeln!(f, "## Each at its own maximum\n")?;
        write!(f, "{}", at_maximum(outcome))?;
        writeln!(
            f,
            "† It was less than {:.0} % busy: the generator, or what else ran on the machine, set the rate, which is \
             a lower bound.\n",
            100.0 * BUSY_MIN
        )?;
        writeln!(f, "## Both at one rate\n")?;
        write!(f, "{}", at_one_rate(outcome))?;
        write_frames(f, &outcome.frames)?;
        write!(f, "{}", Machine(conditions, "veth"))?;
        writeln!(
            f,
            "- each interface with one queue and threaded NAPI, pinned to its side's core; GRO on and TSO off, so that \
             datagrams to sockets come by NAPI too"
        )?;
        writeln!(
            f,
            "- {pairs} pairs of rounds of {} s, order alternating (ABBA)",
            outcome.round_s
        )?;
        write!(f, "{}", LoadAverage(conditions))?;
        for row in &outcome.rows {
            if let Some(version) = &row.version {
                writeln!(f, "- {}: {}", row.contender.name(), one_line(version))?;
            }
        }
        for one in &outcome.left_out {
            writeln!(f, "- {} was not measured: {}", one.name, one_line(&one.reason))?;
        }
        Ok(())
    }
}

/// The bars, and what was measured beside each.
fn figures(outcome: &Outcome) -> Table {
    let heads = vec!["figure", "bar", "at their own maximum", "", "at one rate", ""];
    let mut rows: Vec<Vec<String>> = Vec::new();
    for Figure { what, other, bar } in FIGURES {
        let bar_text = match bar {
            Bar::CostAtMost(bar) => format!("≤ {bar}"),
            Bar::YieldAtLeast(bar) => format!("≥ {bar}"),
        };
        let row = outcome.row(other);
        let scenes = [row.map(|row| &row.at_maximum), row.map(|row| &row.at_one_rate)];
        let mut cells = vec![what.to_owned(), bar_text];
        for figure in scenes.map(|scene| scene.and_then(|scene| scene.figure(bar))) {
            cells.push(figure.map_or_else(|| "not measured".to_owned(), interval));
            let verdict = figure.filter(|_| outcome.is_claim).map(|figure| bar.verdict(figure));
            cells.push(verdict.map_or("", word).to_owned());
        }
        rows.push(cells);
    }
    let frames = &outcome.frames;
    rows.push(vec![
        format!("frames at {} queries/s without explanation", grouped(RATE as f64)),
        "0".to_owned(),
        format!("{} of {}", grouped(frames.unexplained() as f64), grouped(frames.sent as f64)),
        word(if frames.unexplained() == 0 { Verdict::Met } else { Verdict::Missed }).to_owned(),
        "–".to_owned(),
        String::new(),
    ]);
    Table { heads, rows }
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Met => "met",
        Verdict::MetByInterval => "met by the interval",
        Verdict::Missed => "MISSED",
    }
}

/// Ours over all its rounds, and the others with theirs.
fn all(outcome: &Outcome) -> Vec<(Contender, Side, Option<&Scene>)> {
    let mut all = vec![(Contender::Ours, Side::of(outcome.ours()), None)];
    all.extend(outcome.rows.iter().map(|row| {
        let scene = &row.at_maximum;
        (row.contender, Side::of(scene.others()), Some(scene))
    }));
    all
}

fn at_maximum(outcome: &Outcome) -> Table {
    let heads = vec![
        "server",
        "CPU per answer",
        "of it NAPI",
        "ours, as a ratio",
        "answers/s",
        "answers per CPU s",
        "busy",
        "generator busy",
        "lost",
        "failed",
    ];
    let row = |(contender, side, scene): (Contender, Side, Option<&Scene>)| {
        let Side { summary, napi, lost, .. } = side;
        let bound = if summary.busy < BUSY_MIN { " †" } else { "" };
        vec![
            contender.name(),
            format!("{:.3} µs", summary.per_answer_ns / 1000.0),
            per_cent(napi, 0),
            scene.and_then(Scene::cost).map_or_else(|| "1".to_owned(), interval),
            format!("{}{bound}", grouped(summary.rate)),
            grouped(1e9 / summary.per_answer_ns),
            per_cent(summary.busy, 0),
            per_cent(summary.generator_busy, 0),
            losses(lost),
            grouped(summary.failed as f64),
        ]
    };
    Table { heads, rows: all(outcome).into_iter().map(row).collect() }
}

fn at_one_rate(outcome: &Outcome) -> Table {
    let heads = vec![
        "ours beside",
        "queries/s",
        "CPU per answer",
        "ours",
        "ours, as a ratio",
        "lost",
        "ours",
    ];
    let micros = |side: &Side| format!("{:.3} µs", side.summary.per_answer_ns / 1000.0);
    let rows = outcome.rows.iter().map(|row| {
        let scene = &row.at_one_rate;
        let [other, ours] = [Side::of(scene.others()), Side::of(scene.ours())];
        vec![
            row.contender.name(),
            grouped(scene.rates[0] as f64),
            micros(&other),
            micros(&ours),
            scene.cost().map_or_else(String::new, interval),
            losses(other.lost),
            losses(ours.lost),
        ]
    });
    Table { heads, rows: rows.collect() }
}

fn losses([median, all]: [f64; 2]) -> String {
    format!("{}; {}", per_cent(median, 2), per_cent(all, 2))
}

fn per_cent(share: f64, digits: usize) -> String {
    format!("{:.digits$} %", 100.0 * share)
}

fn write_frames(f: &mut fmt::Formatter<'_>, frames: &Frames) -> fmt::Result {
    writeln!(f, "## Every frame at {} queries/s\n", grouped(RATE as f64))?;
    let heads = vec!["what went in", "", "what it became", "unexplained"];
    let row = |step: crate::xdp::frames::Step| {
        let became =
            step.became.iter().map(|(what, count)| format!("{} {what}", grouped(*count as f64)));
        vec![
            step.entered.0.to_owned(),
            grouped(step.entered.1 as f64),
            became.collect::<Vec<_>>().join(", "),
            step.unexplained().to_string(),
        ]
    };
    write!(f, "{}", Table { heads, rows: frames.steps().into_iter().map(row).collect() })?;
    writeln!(
        f,
        "{ROUNDS} rounds of {} s. Sent {} = received by the AF_XDP socket {} + counted as dropped on the way {} + left \
         to the kernel {}{}.\n",
        DURATION.as_secs(),
        grouped(frames.sent as f64),
        grouped(frames.received as f64),
        grouped(frames.counted_drops() as f64),
        grouped(frames.passed as f64),
        match frames.unexplained_queries() {
            0 => String::new(),
            some => format!(", but for {some}"),
        },
    )
}

/// CPU per answer at each one's own maximum, as a file of its own.
#[must_use]
pub fn draw(outcome: &Outcome) -> String {
    let subtitle = "server CPU per answer in µs at each one's own maximum, median and 95 % interval; less is better";
    let bars = all(outcome).into_iter().map(|(contender, side, scene)| {
        let value = side.summary.per_answer_ns / 1000.0;
        let label = match scene.and_then(Scene::cost) {
            Some(cost) => format!("{value:.2} µs · {:.2} × ours", 1.0 / cost.median),
            None => format!("{value:.2} µs"),
        };
        let (name, colour) = match contender {
            Contender::Ours => ("swiftlet, AF_XDP", Colour::Ours),
            Contender::Again => ("again (A/A)", Colour::Ours),
            Contender::Echo => ("bare echo, AF_XDP", Colour::Echo),
            Contender::Knot => ("knotd, AF_XDP", Colour::Zone),
            Contender::Epoll => ("swiftlet, sockets", Colour::Ours),
            Contender::Unbound => ("unbound, sockets", Colour::Peer),
            Contender::KnotSockets => ("knotd, sockets", Colour::Zone),
        };
        let whisker = side.cost.map(|cost| (cost.low / 1000.0, cost.high / 1000.0));
        Drawn { name: name.to_owned(), colour, value, whisker, label }
    });
    let bars: Vec<Drawn> = bars.collect();
    let echo = outcome
        .row(Contender::Echo)
        .map(|row| Side::of(row.at_maximum.others()).summary.per_answer_ns / 1000.0);
    let conditions = &outcome.conditions;
    let date = conditions.date.split('T').next().unwrap_or_default();
    let claim = if outcome.is_claim { "" } else { "NO CLAIM: too few pairs. " };
    let notes = [
        format!("{claim}{date}, {}, one core, veth in copy mode.", conditions.processor),
        "Dashed: the bare echo. Pale: an authoritative server, which caches nothing.".to_owned(),
    ];
    chart::bars(TITLE, subtitle, &bars, echo, &notes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ablation::outcome::LeftOut;
    use crate::report::Conditions;
    use crate::xdp::frames::tests::frames;
    use crate::xdp::outcome::Row;
    use crate::xdp::outcome::tests::scene;

    fn outcome(is_claim: bool) -> Outcome {
        let row = |contender, cost| Row {
            contender,
            version: Some("1.2.3".to_owned()),
            at_maximum: scene(1000.0, cost),
            at_one_rate: scene(2000.0, cost),
        };
        Outcome {
            is_claim,
            pairs: 15,
            round_s: 1.0,
            conditions: Conditions::read(1, 0),
            maximum: 500_000,
            rows: vec![row(Contender::Echo, 900.0), row(Contender::Epoll, 2600.0)],
            frames: frames(),
            left_out: vec![LeftOut::new("knotd, AF_XDP", "it is\nnot installed")],
        }
    }

    #[test]
    fn each_figure_stands_beside_its_bar() {
        let page = Page(&outcome(true)).to_string();
        for line in [
            "| CPU per answer, af-xdp / Knot DNS on AF_XDP | ≤ 1 | not measured |  | not measured |  |",
            "| ≤ 1.15 | 1.111 (1.111–1.111) | met | 2.222 (2.222–2.222) | MISSED |",
            "| ≥ 2.5 | 2.600 (2.600–2.600) | met | 1.300 (1.300–1.300) | MISSED |",
            "queries/s without explanation | 0 | 0 of 1,000 | met |",
            "| bare echo, AF_XDP | 1.530 µs | 40 % | 1.111 (1.111–1.111) | 100,000 | 653,595 | 99 % | 50 % |",
            "| **swiftlet**, sockets (epoll) | 500,000 | 4.420 µs | 3.400 µs | 0.769 (0.769–0.769) |",
            "Sent 1,000 = received by the AF_XDP socket 968 + counted as dropped on the way 30 + left to the kernel 2.",
            "- knotd, AF_XDP was not measured: it is not installed",
        ] {
            assert!(page.contains(line), "{line}: {page}");
        }
        let tables = page.lines().filter(|line| line.starts_with("| ")).count();
        assert!(tables > 15 && !page.contains("NO CLAIM"), "{page}");
    }

    #[test]
    fn too_few_pairs_meet_nothing_and_a_lost_frame_is_told() {
        let mut outcome = outcome(false);
        outcome.frames.received -= 3;
        let page = Page(&outcome).to_string();
        assert!(page.contains("NO CLAIM") && page.contains("(2.600–2.600) |  |"), "{page}");
        assert!(page.contains("left to the kernel 2, but for 3."), "{page}");
        assert!(page.contains("| 6 of 1,000 | MISSED |"), "{page}");
    }

    #[test]
    fn the_chart_is_well_formed() {
        let svg = draw(&outcome(true));
        roxmltree::Document::parse(&svg).expect("well-formed");
        assert!(svg.contains("2.60 × ours") && svg.contains("class=\"mark\""), "{svg}");
    }
}
