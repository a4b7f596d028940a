//! A measurement as one page of HTML: charts in SVG, a table, no scripts, nothing from elsewhere.
//!
//! Colours follow the reader's light or dark mode, and the charts scale down to a phone.

mod chart;

use std::fmt::Write as _;

use crate::{Outcome, Verdict};
use chart::{Chart, Line, Scale};

const STYLE: &str = "\
:root{color-scheme:light dark;--bg:#fff;--fg:#1a1c20;--dim:#646b76;--grid:#dfe3e8;--a:#0b62c4;--b:#c2410c;--c:#15803d}\
@media(prefers-color-scheme:dark){:root{--bg:#14161a;--fg:#e8eaee;--dim:#9aa3b0;--grid:#30353d;--a:#6cb2ff;--b:#ff9a5c;--c:#5fd38a}}\
body{margin:0 auto;padding:1rem;max-width:64rem;background:var(--bg);color:var(--fg);font:16px/1.5 system-ui,sans-serif}\
h1{font-size:1.4rem}h2{font-size:1.1rem;margin:1.6rem 0 .3rem}\
code{overflow-wrap:anywhere;color:var(--dim)}\
table{border-collapse:collapse}td{padding:.15rem .9rem .15rem 0;border-bottom:1px solid var(--grid)}td+td{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}\
.warn{color:var(--b);font-weight:600}.key span{margin-right:1rem;white-space:nowrap}\
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,24rem),1fr));gap:0 2rem}section{min-width:0}\
svg{width:100%;height:auto;display:block}svg text{fill:var(--dim);font-size:15px}\
.grid{stroke:var(--grid);stroke-width:1}.a{stroke:var(--a)}.b{stroke:var(--b)}.c{stroke:var(--c)}\
.line{fill:none;stroke-width:2.5;stroke-linejoin:round}.wide{stroke-width:7;opacity:.35}.dot{stroke-width:8;stroke-linecap:round}\
.key .wide{opacity:1}.key .a{color:var(--a)}.key .b{color:var(--b)}.key .c{color:var(--c)}";

/// The page.
#[must_use]
pub fn page(outcome: &Outcome) -> String {
    let mut page = String::from(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>swiftlet-loadtest</title><style>",
    );
    page.push_str(STYLE);
    page.push_str("</style></head><body>\n<h1>swiftlet-loadtest</h1>\n");
    // Writing to a string cannot fail.
    let _ = writeln!(page, "<p><code>{}</code></p>", escaped(&outcome.command));
    let verdict = outcome.generator.verdict;
    let class = if verdict == Verdict::Server { "" } else { " class=\"warn\"" };
    let _ = writeln!(page, "<p{class}>{verdict}</p>");
    if let Some(rate) = outcome.max_rate {
        let _ = writeln!(page, "<p>Highest rate within the bounds: <b>{rate:.0}</b> queries/s</p>");
    }
    page.push_str("<div class=\"charts\">\n");
    if !outcome.curve.is_empty() {
        curve(&mut page, outcome);
    }
    over_time(&mut page, outcome);
    distribution(&mut page, outcome);
    page.push_str("</div>\n");
    table(&mut page, outcome);
    page.push_str("</body></html>\n");
    page
}

fn curve(page: &mut String, outcome: &Outcome) {
    let mut steps = outcome.curve.clone();
    steps.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    // Of two tries of a rate the later one counts.
    steps.dedup_by(|later, earlier| {
        let is_same = later.rate == earlier.rate;
        if is_same {
            *earlier = *later;
        }
        is_same
    });
    let of = |pick: fn(&crate::Step) -> f64| -> Vec<(f64, f64)> {
        steps.iter().map(|step| (step.rate, pick(step))).collect()
    };
    let latency = Chart {
        x: Scale::Linear,
        y: Scale::Log,
        x_label: "queries/s",
        y_label: "us",
        lines: vec![
            Line { class: "a", name: "p50", points: of(|step| step.p50_us) },
            Line { class: "b", name: "p99", points: of(|step| step.p99_us) },
        ],
    };
    latency.draw(page, "Latency by rate");
    let loss = Line { class: "b", name: "loss", points: of(|step| 100.0 * step.loss) };
    Chart {
        x: Scale::Linear,
        y: Scale::Linear,
        x_label: "queries/s",
        y_label: "%",
        lines: vec![loss],
    }
    .draw(page, "Loss by rate");
}

/// A rate over less than this, as the last second of a run mostly is, says little.
const LENGTH_MIN_S: f64 = 0.5;

fn over_time(page: &mut String, outcome: &Outcome) {
    // At the end nothing is sent, and what is outstanding is waited for.
    let sent = outcome.seconds.iter().rposition(|second| second.sent > 0).map_or(0, |at| at + 1);
    let seconds = outcome.seconds[..sent].iter().filter(|second| second.length_s >= LENGTH_MIN_S);
    if seconds.clone().count() < 2 {
        page.push_str("<section><h2>Rate over time</h2><p>too short for a chart</p></section>\n");
        return;
    }
    let of = |pick: fn(&crate::Second) -> f64| -> Vec<(f64, f64)> {
        seconds.clone().map(|second| (second.at_s as f64, pick(second))).collect()
    };
    let rate = Chart {
        x: Scale::Linear,
        y: Scale::Linear,
        x_label: "s",
        y_label: "per second",
        lines: vec![
            // Wide, because the answers lie on top of it when all is well.
            Line { class: "c wide", name: "sent", points: of(|s| s.sent as f64 / s.length_s) },
            Line { class: "a", name: "answered", points: of(|s| s.answered as f64 / s.length_s) },
            Line { class: "b", name: "lost", points: of(|s| s.lost as f64 / s.length_s) },
        ],
    };
    rate.draw(page, "Rate over time");
    let answered = |points: Vec<(f64, f64)>| points.into_iter().filter(|&(_, y)| y > 0.0).collect();
    let latency = Chart {
        x: Scale::Linear,
        y: Scale::Log,
        x_label: "s",
        y_label: "us",
        lines: vec![
            Line { class: "a", name: "p50", points: answered(of(|second| second.p50_us)) },
            Line { class: "b", name: "p99", points: answered(of(|second| second.p99_us)) },
            Line { class: "c", name: "max", points: answered(of(|second| second.max_us)) },
        ],
    };
    latency.draw(page, "Latency over time");
}

/// Latency by the share of slower answers: each nine takes the same room.
fn distribution(page: &mut String, outcome: &Outcome) {
    let points = outcome.distribution.iter().filter(|&&(_, share)| share < 1.0);
    let points = points.map(|&(latency_us, share)| (1.0 / (1.0 - share), latency_us)).collect();
    let chart = Chart {
        x: Scale::Nines,
        y: Scale::Log,
        x_label: "share of answers that took no longer",
        y_label: "us",
        lines: vec![Line { class: "a", name: "latency", points }],
    };
    chart.draw(page, "Latency distribution");
}

fn table(page: &mut String, outcome: &Outcome) {
    page.push_str("<h2>Figures</h2>\n<table>\n");
    let mut row = |label: &str, value: String| {
        let _ = writeln!(page, "<tr><td>{}</td><td>{value}</td></tr>", escaped(label));
    };
    row("sent", outcome.sent.to_string());
    row("answered", outcome.answered.to_string());
    row("lost", format!("{} ({:.4} %)", outcome.lost, 100.0 * outcome.loss));
    row("mismatched", outcome.mismatched.to_string());
    row("truncated", outcome.truncated.to_string());
    row("answers/s", format!("{:.0}", outcome.rate));
    for (rcode, count) in &outcome.rcodes {
        row(rcode, count.to_string());
    }
    for (name, _) in crate::report::QUANTILES {
        if let Some(latency_us) = outcome.latency_us.get(name) {
            row(name, format!("{latency_us:.1} us"));
        }
    }
    let generator = &outcome.generator;
    row("generator busy", format!("{:.1} %", 100.0 * generator.busy));
    row("generator CPU per answer", format!("{:.3} us", generator.cpu_us_per_answer));
    if let Some(server) = &outcome.server {
        row("server CPU per answer", format!("{:.3} us", server.cpu_us_per_query));
        row("server memory", format!("{:.1} MiB", server.resident as f64 / f64::from(1 << 20)));
    }
    page.push_str("</table>\n");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Report, Second, Step};

    #[test]
    fn the_page_stands_alone_and_shows_what_was_measured() {
        let mut report = Report::new(1);
        for latency_ns in 1..10_000u64 {
            report.latency.saturating_record(latency_ns * 1000);
        }
        report.answered = 9_999;
        let second = Second {
            sent: 10,
            answered: 9,
            p50_us: 5.0,
            p99_us: 9.0,
            length_s: 1.0,
            ..Second::default()
        };
        report.seconds = (1..=5).map(|at_s| Second { at_s, ..second }).collect();
        let mut outcome = Outcome::new("run --queries <script>&".to_owned(), &report);
        outcome.curve = [1000.0, 2000.0, 1500.0]
            .map(|rate| Step {
                rate,
                answered: rate,
                loss: 0.0,
                p50_us: 50.0,
                p99_us: 90.0,
                passed: true,
                verdict: Verdict::Server,
            })
            .to_vec();
        let page = page(&outcome);
        assert_eq!(page.matches("<svg").count(), 5);
        assert!(page.matches("<polyline").count() >= 8);
        assert!(page.contains("&lt;script&gt;&amp;") && page.contains("<td>9999</td>"));
        for absent in ["<script", "http:", "https:", "NaN", "inf"] {
            assert!(!page.contains(absent), "{absent}");
        }
    }

    #[test]
    fn nothing_measured_is_a_page_too() {
        let page = page(&Outcome::new(String::new(), &Report::new(1)));
        assert!(
            page.contains("nothing to draw") && page.contains("too short") && !page.contains("NaN")
        );
    }
}
