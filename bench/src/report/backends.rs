//! The backends as a Markdown page: a table and the derived figures for each number of ports.

use std::fmt::{self, Display};

use super::markdown::{
    LoadAverage, Machine, Table, Warning, grouped, interval, latency, latency_notes, one_line,
};
use crate::backends::{COST_BAR, Outcome, Row, Scene, TAIL_BAR};
use crate::interval::Interval;
use crate::latency::{RATE_SHARE, ROUNDS};

/// The page.
#[derive(Clone, Copy, Debug)]
pub struct Page<'o>(pub &'o Outcome);

impl Display for Page<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(outcome) = self;
        writeln!(f, "# io_uring beside recvmmsg\n")?;
        let Outcome { is_claim, pairs, ref conditions, .. } = **outcome;
        write!(f, "{}", Warning { is_claim, pairs, conditions })?;
        writeln!(
            f,
            "Bare echoes and the server on each backend, 10,000 names, all cached, asked in turn in a closed \
             loop. The yardstick is the echo over recvmmsg and sendmmsg. The echo on our io_uring is the \
             least that the backend can cost; that on tokio-uring has one operation for each datagram and \
             direction. Latency is that of an open loop at {:.0} % of each one's own answers/s.\n",
            100.0 * RATE_SHARE
        )?;
        for scene in &outcome.scenes {
            write_scene(f, scene, is_claim)?;
        }
        write!(f, "{}", Machine(conditions, "loopback"))?;
        let Outcome { round_s, latency_round_s, .. } = outcome;
        writeln!(
            f,
            "- {pairs} pairs of rounds of {round_s} s, order alternating (ABBA); latency: {ROUNDS} rounds of \
             {latency_round_s} s each, and at one rate {pairs} of each"
        )?;
        write!(f, "{}", LoadAverage(conditions))
    }
}

fn write_scene(f: &mut fmt::Formatter<'_>, scene: &Scene, is_claim: bool) -> fmt::Result {
    writeln!(f, "## {} client ports\n", grouped(scene.ports as f64))?;
    let heads = vec![
        "who",
        "CPU per answer",
        "ratio to the echo",
        "answers/s",
        "p50",
        "p99",
        "p99.9",
        "lost at 70 %",
    ];
    let cells = |row: &Row| {
        let summary = &row.measured.summary;
        let mut cells = vec![
            row.name.clone(),
            format!("{:.3} µs", summary.per_answer_ns / 1000.0),
            row.measured.ratio.map_or_else(|| "1".to_owned(), interval),
            grouped(summary.rate),
        ];
        cells.extend(latency(&row.measured));
        cells
    };
    write!(f, "{}", Table { heads, rows: scene.rows.iter().map(cells).collect() })?;
    let rows = scene.rows.iter().map(|row| (&*row.name, &row.measured));
    write!(f, "{}", latency_notes(rows))?;
    let figures = [
        (
            "CPU per answer, io-uring / epoll, divided by what the echoes pay",
            scene.overhead(),
            Some(COST_BAR),
        ),
        ("p99.9, io-uring / epoll, both at one rate", scene.tail(), Some(TAIL_BAR)),
        ("p99.9, epoll again / epoll (A/A)", scene.tail_twin(), None),
    ];
    let rows = figures.map(|(what, figure, bar)| {
        let bar_text = bar.map_or_else(|| "–".to_owned(), |bar| format!("at most {bar}"));
        let figure_text = figure.map_or_else(|| "not measured".to_owned(), interval);
        vec![what.to_owned(), figure_text, bar_text, verdict(figure, bar.filter(|_| is_claim))]
    });
    let heads = vec!["derived figure", "median and 95 % interval", "bar", ""];
    write!(f, "{}", Table { heads, rows: rows.into() })?;
    if let Some([epoll, ..]) = scene.tails.first() {
        let kept = scene.tails.iter().flatten().map(|one| one.lost).sum::<u64>();
        writeln!(
            f,
            "Both at {}/s, {:.0} % of what the server does on epoll; {kept} queries lost. {} queries \
             outstanding in the closed loop.\n",
            grouped(epoll.rate),
            100.0 * RATE_SHARE,
            grouped(scene.window as f64),
        )?;
    }
    for one in &scene.left_out {
        writeln!(f, "- {} was not measured: {}", one.name, one_line(&one.reason))?;
    }
    if scene.left_out.is_empty() { Ok(()) } else { writeln!(f) }
}

/// A bar is met when the interval's lower end is below it.
fn verdict(figure: Option<Interval>, bar: Option<f64>) -> String {
    match (figure, bar) {
        (Some(figure), Some(bar)) if figure.low <= bar => "met".to_owned(),
        (Some(_), Some(_)) => "MISSED".to_owned(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ablation::outcome::LeftOut;
    use crate::backends::tests::scene;
    use crate::report::Conditions;

    fn page(is_claim: bool, scene: Scene) -> String {
        let outcome = Outcome {
            is_claim,
            pairs: 15,
            round_s: 0.5,
            latency_round_s: 1.0,
            conditions: Conditions::read(1, 0),
            scenes: vec![scene],
        };
        Page(&outcome).to_string()
    }

    #[test]
    fn bars_are_met_or_missed() {
        let text = page(true, scene(1.1, 1.2, 1.452));
        for line in [
            "| echo, our io_uring | 1.870 µs | 1.100 (1.100–1.100) |",
            "divided by what the echoes pay | 1.100 (1.100–1.100) | at most 1.03 | MISSED |",
            "both at one rate | 1.500 (1.500–1.500) | at most 1.1 | MISSED |",
            "epoll again / epoll (A/A) | 1.100 (1.100–1.100) | – |  |",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
        let text = page(true, scene(1.1, 1.2, 1.33));
        assert!(text.contains("(1.008–1.008) | at most 1.03 | met |"), "{text}");
        assert!(!text.contains("NO CLAIM"), "{text}");
    }

    #[test]
    fn too_few_pairs_meet_nothing_and_who_is_missing_is_told() {
        let mut scene = scene(1.1, 1.2, 1.3);
        scene.rows.pop();
        scene.tails.clear();
        scene.left_out.push(LeftOut::new("swiftlet on io-uring", "the kernel\nrefuses"));
        let text = page(false, scene);
        assert!(text.contains("NO CLAIM") && !text.contains("MISSED"), "{text}");
        assert!(text.contains("| not measured | at most 1.03 |  |"), "{text}");
        assert!(
            text.contains("- swiftlet on io-uring was not measured: the kernel refuses"),
            "{text}"
        );
    }
}
