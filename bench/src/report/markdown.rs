//! A comparison as a Markdown page: what was done, the table, what it doesn't say, the conditions.

use std::fmt::{self, Display};

use swiftlet_loadtest::Verdict;

use crate::interval::Interval;
use crate::latency::{RATE_SHARE, ROUNDS};
use crate::memory::Held;
use crate::outcome::{Finding, Measured, Outcome, Row};
use crate::report::Conditions;
use crate::subject::Kind;
use crate::workload::Workload;

/// The page.
#[derive(Clone, Copy, Debug)]
pub struct Page<'o>(pub &'o Outcome);

impl Display for Page<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(outcome) = self;
        writeln!(f, "# {}\n", outcome.workload.title())?;
        let Outcome { is_claim, pairs, ref conditions, .. } = **outcome;
        write!(f, "{}", Warning { is_claim, pairs, conditions })?;
        writeln!(f, "{}\n", outcome.workload.explanation())?;
        writeln!(f, "![{0}]({1}.svg)\n", outcome.workload.title(), outcome.workload.name())?;
        let table = match outcome.workload {
            Workload::Memory => memory_table(outcome),
            _ => rounds_table(outcome),
        };
        write!(f, "{table}")?;
        self.write_notes(f)?;
        self.write_conditions(f)
    }
}

/// The heading of the conditions and what they begin with: when, of what, where, and over what.
pub(super) struct Machine<'c>(pub(super) &'c Conditions, pub(super) &'static str);

impl Display for Machine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(conditions, link) = self;
        writeln!(f, "## Conditions\n")?;
        let revision = conditions.revision.as_deref().unwrap_or("unknown");
        writeln!(f, "- {}, revision {revision}", conditions.date)?;
        writeln!(
            f,
            "- {}, {} cores, Linux {}; one thread on core {}, generator and authority on core {}, \
             {link}",
            conditions.processor,
            conditions.cores,
            conditions.kernel,
            conditions.server_core,
            conditions.generator_core,
        )
    }
}

/// What else ran.
pub(super) struct LoadAverage<'c>(pub(super) &'c Conditions);

impl Display for LoadAverage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Conditions { load_before, load_after, .. } = self.0;
        writeln!(f, "- load average {load_before} before, {load_after} after")
    }
}

/// What must stand above figures that nobody may rely on.
pub(super) struct Warning<'c> {
    pub(super) is_claim: bool,
    pub(super) pairs: usize,
    pub(super) conditions: &'c Conditions,
}

impl Display for Warning<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_claim {
            write!(f, "**NO CLAIM: {} pairs of rounds are too few. ", self.pairs)?;
            writeln!(f, "This shows that the measuring works, and nothing else.**\n")?;
        }
        if self.conditions.debug_build {
            writeln!(f, "**DEBUG BUILD: the echo and the generator were not optimized.**\n")?;
        }
        Ok(())
    }
}

/// Cells, the heads first; the first column is of words, the others of numbers.
pub(super) struct Table {
    pub(super) heads: Vec<&'static str>,
    pub(super) rows: Vec<Vec<String>>,
}

impl Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| {} |", self.heads.join(" | "))?;
        writeln!(f, "|---|{}", "--:|".repeat(self.heads.len() - 1))?;
        for row in &self.rows {
            writeln!(f, "| {} |", row.join(" | "))?;
        }
        writeln!(f)
    }
}

fn rounds_table(outcome: &Outcome) -> Table {
    let by_cost = outcome.ranks(|row| row.cost().map(|cost| -cost));
    let by_rate = outcome.ranks(|row| row.measured().map(|measured| measured.summary.rate));
    let upstream = match outcome.workload {
        Workload::Zipf => Some("hit ratio"),
        Workload::Miss => Some("upstream per answer"),
        _ => None,
    };
    let mut heads =
        vec!["server", "CPU per answer", "ratio to the echo", "rank", "answers/s", "rank"];
    heads.extend(upstream);
    heads.extend([
        "server busy",
        "generator busy",
        "lost",
        "failed",
        "p50",
        "p99",
        "p99.9",
        "lost at 70 %",
    ]);
    let cells = |row: &Row| {
        let measured = row.measured()?;
        let summary = &measured.summary;
        let rank = |ranks: &std::collections::BTreeMap<&'static str, usize>| {
            ranks.get(row.name).map_or_else(|| "–".to_owned(), ToString::to_string)
        };
        let bound = if measured.is_lower_bound() { " †" } else { "" };
        let mut cells = vec![
            title(row),
            format!("{:.3} µs", summary.per_answer_ns / 1000.0),
            measured.ratio.map_or_else(|| "1".to_owned(), interval),
            rank(&by_cost),
            format!("{}{bound}", grouped(summary.rate)),
            rank(&by_rate),
        ];
        if upstream.is_some() {
            let per_answer = summary.upstream_per_answer();
            cells.push(match (outcome.workload, row.kind.is_yardstick()) {
                (_, true) => "–".to_owned(),
                (Workload::Zipf, _) => per_cent(1.0 - per_answer, 1),
                _ => format!("{per_answer:.3}"),
            });
        }
        cells.push(per_cent(summary.busy, 0));
        cells.push(per_cent(summary.generator_busy, 0));
        cells.push(grouped(summary.lost as f64));
        // An echo's replies are the queries: what stands where the RCODE would be is no RCODE.
        cells.push(if row.kind.is_yardstick() {
            "–".to_owned()
        } else {
            grouped(summary.failed as f64)
        });
        cells.extend(latency(measured));
        Some(cells)
    };
    Table { heads, rows: outcome.rows.iter().filter_map(cells).collect() }
}

/// p50, p99 and p99.9, each marked if it is the generator's, and the share that was lost.
pub(super) fn latency(measured: &Measured) -> [String; 4] {
    let Some(latency) = &measured.latency else {
        return ["–"; 4].map(str::to_owned);
    };
    let mark = if latency.verdict == Verdict::Server { "" } else { " ‡" };
    let micros = |value: f64| format!("{} µs{mark}", grouped(value));
    let lost = per_cent(latency.loss(), if latency.lost == 0 { 0 } else { 3 });
    [micros(latency.p50_us), micros(latency.p99_us), micros(latency.p999_us), lost]
}

fn memory_table(outcome: &Outcome) -> Table {
    let ranks = outcome.ranks(|row| row.cost().map(|cost| -cost));
    let heads = [
        "server",
        "bytes per name",
        "rank",
        "names kept",
        "small cache",
        "full cache",
        "lost",
        "failed",
    ];
    let cells = |row: &Row| {
        let Finding::Memory(held) = row.finding else { return None };
        let Held { before, after, lost, failed, .. } = held;
        let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
        let rank = ranks.get(row.name).map_or_else(|| "–".to_owned(), ToString::to_string);
        let cost = row.cost().map_or_else(|| "–".to_owned(), grouped);
        let kept = format!("{} ({})", grouped(held.kept), per_cent(held.share_kept(), 1));
        let (lost, failed) = (grouped(lost as f64), grouped(failed as f64));
        Some(vec![title(row), cost, rank, kept, mib(before), mib(after), lost, failed])
    };
    Table { heads: heads.to_vec(), rows: outcome.rows.iter().filter_map(cells).collect() }
}

fn title(row: &Row) -> String {
    match row.kind {
        Kind::Ours => format!("**{}**", row.name),
        Kind::Twin => format!("{} (A/A)", row.name),
        Kind::Authoritative => format!("{} (authoritative)", row.name),
        Kind::Echo | Kind::Resolver => row.name.to_owned(),
    }
}

impl Page<'_> {
    /// What the table leaves out, or must not be taken for.
    fn write_notes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(outcome) = self;
        let measured = || outcome.rows.iter().filter_map(Row::measured);
        if measured().any(Measured::is_lower_bound) {
            write!(
                f,
                "† The server was less than 90 % busy: what else ran, on its own core or the "
            )?;
            write!(f, "generator's, set the rate. ")?;
            writeln!(f, "It is a lower bound; the CPU per answer is what counts.\n")?;
        }
        let latencies = outcome.rows.iter().filter_map(|row| Some((row.name, row.measured()?)));
        write!(f, "{}", latency_notes(latencies))?;
        for row in &outcome.rows {
            if let Finding::Failed(reason) = &row.finding {
                writeln!(f, "- **{}** could not be measured: {}", row.name, one_line(reason))?;
            }
        }
        if outcome.rows.iter().any(|row| matches!(row.finding, Finding::Failed(_))) {
            writeln!(f)?;
        }
        if outcome.workload != Workload::Memory {
            write!(f, "Ratios are medians over pairs of rounds that follow each other, with the ")?;
            write!(
                f,
                "interval that covers the true median with at least 95 %. The A/A row is a second "
            )?;
            write!(
                f,
                "echo, measured in the same way: a difference smaller than its own says nothing. "
            )?;
            write!(f, "Latency is that of an open loop at {:.0} % of ", 100.0 * RATE_SHARE)?;
            writeln!(f, "each server's own answers/s, from when each query was due.\n")?;
        }
        Ok(())
    }

    fn write_conditions(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(outcome) = self;
        let shaping = &outcome.shaping;
        write!(f, "{}", Machine(&outcome.conditions, "loopback"))?;
        let names =
            shaping.names.map_or_else(|| "never repeated".to_owned(), |n| grouped(n as f64));
        writeln!(
            f,
            "- names: {names}; caches for {}; {} sockets, window {}",
            grouped(shaping.cache_names as f64),
            shaping.sockets,
            shaping.window,
        )?;
        if outcome.workload != Workload::Memory {
            writeln!(
                f,
                "- {} pairs of rounds of {} s, order alternating; latency: {ROUNDS} rounds of {} s each",
                outcome.pairs, outcome.round_s, outcome.latency_round_s,
            )?;
        }
        write!(f, "{}", LoadAverage(&outcome.conditions))?;
        for row in &outcome.rows {
            if let Some(version) = &row.version {
                writeln!(f, "- {}: {}", row.name, one_line(version))?;
            }
        }
        if !outcome.absent.is_empty() {
            writeln!(f, "- not installed, and so not measured: {}", outcome.absent.join(", "))?;
        }
        Ok(())
    }
}

/// Whose latency is the generator's, or is missing.
pub(super) fn latency_notes<'r>(
    rows: impl Iterator<Item = (&'r str, &'r Measured)> + Clone,
) -> String {
    let verdict = |measured: &Measured| measured.latency.map(|latency| latency.verdict);
    let bound = rows.clone().filter_map(|(name, measured)| {
        let verdict = verdict(measured).filter(|&verdict| verdict != Verdict::Server)?;
        Some(format!("- {name}: {verdict}\n"))
    });
    let bound: String = bound.collect();
    let missing = rows.filter_map(|(name, measured)| {
        let reason = one_line(measured.latency_failure.as_ref()?);
        Some(format!("- {name}: no latency: {reason}\n"))
    });
    let missing: String = missing.collect();
    let mut notes = String::new();
    if !bound.is_empty() {
        notes += &format!("‡ The generator could not keep its schedule:\n\n{bound}\n");
    }
    if !missing.is_empty() {
        notes += &format!("{missing}\n");
    }
    notes
}

/// The median, and its interval behind it.
pub(super) fn interval(ratio: Interval) -> String {
    format!("{:.3} ({:.3}–{:.3})", ratio.median, ratio.low, ratio.high)
}

fn per_cent(share: f64, digits: usize) -> String {
    format!("{:.digits$} %", 100.0 * share)
}

/// A whole number with commas between its thousands.
pub(crate) fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A table cell or an item of a list ends with its line.
pub(super) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::Latency;
    use crate::outcome::tests::{held, outcome};

    const SERVERS: [(&str, Kind, u64); 4] = [
        ("echo", Kind::Echo, 1000),
        ("echo again", Kind::Twin, 1000),
        ("swiftlet", Kind::Ours, 1250),
        ("knotd", Kind::Authoritative, 1100),
    ];

    fn line<'p>(page: &'p str, of: &str) -> &'p str {
        page.lines().find(|line| line.starts_with(&format!("| {of}"))).unwrap_or_default()
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(["0", "999", "1,000", "1,234,568"], [0.0, 999.0, 1e3, 1_234_567.8].map(grouped));
    }

    #[test]
    fn every_row_has_as_many_cells_as_the_head() {
        for workload in [Workload::Hit, Workload::Zipf, Workload::Miss, Workload::Tcp] {
            let page = Page(&outcome(workload, &SERVERS)).to_string();
            let rows = page.lines().filter(|line| line.starts_with('|'));
            let counts: Vec<usize> = rows.map(|row| row.matches('|').count()).collect();
            assert_eq!(counts.len(), 6);
            assert!(counts.iter().all(|&count| count == counts[0]), "{page}");
        }
    }

    #[test]
    fn the_table_ranks_and_quotes_the_interval() {
        let page = Page(&outcome(Workload::Hit, &SERVERS)).to_string();
        let ours = line(&page, "**swiftlet**");
        assert!(ours.contains("| 1.257 µs | 1.257 (1.253–1.261) | 2 | 795,545 | 2 |"), "{ours}");
        assert!(line(&page, "echo again (A/A)").contains("| – |"), "{page}");
        assert!(page.contains("- swiftlet: swiftlet 1.2.3") && page.contains("not measured: nsd"));
        assert!(!page.contains('†') && !page.contains('‡') && !page.contains("NO CLAIM"), "{page}");
    }

    #[test]
    fn what_it_must_not_be_taken_for_is_told() {
        let mut outcome = outcome(Workload::Miss, &SERVERS);
        outcome.is_claim = false;
        for row in &mut outcome.rows {
            let Finding::Rounds(measured) = &mut row.finding else { continue };
            measured.summary.busy = 0.5;
            measured.latency = Some(Latency {
                rate: 1000.0,
                answered: 999,
                lost: 1,
                p50_us: 20.0,
                p99_us: 50.0,
                p999_us: 1234.0,
                verdict: Verdict::Unsent,
            });
        }
        let finding = Finding::Failed("it ended\nat its start".to_owned());
        outcome.rows.push(Row { name: "named", kind: Kind::Resolver, version: None, finding });
        let page = Page(&outcome).to_string();
        assert!(page.contains("NO CLAIM") && page.contains("† The server"), "{page}");
        assert!(page.contains("- swiftlet: BOUND BY THE GENERATOR"), "{page}");
        assert!(page.contains("**named** could not be measured: it ended at its start"), "{page}");
        let ours = line(&page, "**swiftlet**");
        assert!(ours.contains("795,545 † | 2 | 0.200 | 50 %"), "{ours}");
        assert!(ours.contains("1,234 µs ‡ | 0.100 % |"), "{ours}");
    }

    #[test]
    fn memory_has_its_own_table() {
        let mut outcome = outcome(Workload::Memory, &[]);
        let (name, kind) = ("swiftlet", Kind::Ours);
        outcome.rows.push(Row { name, kind, version: None, finding: held(128) });
        let page = Page(&outcome).to_string();
        let ours = line(&page, "**swiftlet**");
        assert!(ours.contains("| 128 | 1 | 800 (80.0 %) | 1.0 MiB | 1.1 MiB | 0 | 0 |"), "{ours}");
    }
}
