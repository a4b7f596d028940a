//! Rows of figures with their bars, as Markdown and as JSON.

use serde::Serialize;

use crate::interval::Interval;
use crate::report::Conditions;

/// What a figure must reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bar {
    /// It must be no more than this.
    AtMost(f64),
    /// It must be no less than this.
    AtLeast(f64),
}

/// How a figure stands to its bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// All of its interval reaches the bar.
    Met,
    /// Its interval holds the bar, and the median is on the right side.
    MetByMedian,
    /// Its interval holds the bar, and the median is on the wrong side.
    MetByInterval,
    /// None of its interval reaches the bar.
    Missed,
}

impl Bar {
    fn judge(self, interval: Interval) -> Verdict {
        let Interval { median, low, high, .. } = interval;
        let (holds, best, worst): (fn(f64, f64) -> bool, f64, f64) = match self {
            Self::AtMost(_) => (|value, bar| value <= bar, low, high),
            Self::AtLeast(_) => (|value, bar| value >= bar, high, low),
        };
        let (Self::AtMost(bar) | Self::AtLeast(bar)) = self;
        match (holds(best, bar), holds(median, bar), holds(worst, bar)) {
            (_, _, true) => Verdict::Met,
            (_, true, _) => Verdict::MetByMedian,
            (true, ..) => Verdict::MetByInterval,
            _ => Verdict::Missed,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtMost(bar) => format!("≤ {bar}"),
            Self::AtLeast(bar) => format!("≥ {bar}"),
        }
    }
}

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    what: String,
    unit: &'static str,
    #[serde(flatten)]
    interval: Option<Interval>,
    bar: Option<String>,
    verdict: Option<Verdict>,
    /// Every single value, in the order in which they were measured.
    values: Vec<f64>,
}

/// Figures under one heading.
#[derive(Clone, Debug, Serialize)]
pub struct Table {
    title: &'static str,
    rows: Vec<Row>,
    /// What is to be known to read them.
    notes: Vec<String>,
}

impl Table {
    /// An empty one.
    #[must_use]
    pub fn new(title: &'static str) -> Self {
        Self { title, rows: Vec::new(), notes: Vec::new() }
    }

    /// Adds a figure: the median of these values. Nothing if there are none.
    pub fn add(
        &mut self,
        what: impl Into<String>,
        unit: &'static str,
        bar: Option<Bar>,
        values: Vec<f64>,
    ) {
        let Some(interval) = Interval::of(&values) else { return };
        self.rows.push(Row {
            what: what.into(),
            unit,
            bar: bar.map(Bar::text),
            verdict: bar.map(|bar| bar.judge(interval)),
            interval: Some(interval),
            values,
        });
    }

    /// Adds a note.
    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// For people.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = format!("## {}\n\n", self.title);
        text += "| what | median | 95 % interval | bar | |\n|---|---:|---:|---:|---|\n";
        for Row { what, unit, interval, bar, verdict, values } in &self.rows {
            let Some(Interval { median, low, high, .. }) = *interval else { continue };
            let space = if unit.is_empty() { "" } else { " " };
            let digits = digits(median);
            let range = match values.len() {
                1 => String::new(),
                _ => format!("{low:.digits$} .. {high:.digits$}"),
            };
            let bar = bar.as_ref().map_or_else(String::new, |bar| format!("{bar}{space}{unit}"));
            let verdict = match verdict {
                Some(Verdict::Met) => "met",
                Some(Verdict::MetByMedian) => "met by the median",
                Some(Verdict::MetByInterval) => "met by the interval's end alone",
                Some(Verdict::Missed) => "MISSED",
                None => "",
            };
            text += &format!(
                "| {what} | {median:.digits$}{space}{unit} | {range} | {bar} | {verdict} |\n"
            );
        }
        for note in &self.notes {
            text += &format!("\n- {note}");
        }
        text + "\n"
    }
}

/// Digits behind the point that are worth showing.
fn digits(value: f64) -> usize {
    if value.abs() < 10.0 {
        3
    } else if value.abs() < 1000.0 {
        1
    } else {
        0
    }
}

/// All tables of a run.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    /// The subcommand.
    pub benchmark: &'static str,
    /// What was measured.
    pub tables: &'a [Table],
    /// When and where.
    pub conditions: &'a Conditions,
}

impl Report<'_> {
    /// For people.
    #[must_use]
    pub fn markdown(&self) -> String {
        let tables: Vec<String> = self.tables.iter().map(Table::markdown).collect();
        format!("# {}\n\n{}\n{}\n", self.benchmark, tables.join("\n"), self.circumstances())
    }

    /// When, where and of what it was measured.
    #[must_use]
    pub fn circumstances(&self) -> String {
        let Conditions { date, revision, kernel, processor, cores, .. } = self.conditions;
        let Conditions { load_before, load_after, server_core, debug_build, .. } = self.conditions;
        let revision = revision.as_deref().unwrap_or("unknown");
        let build = if *debug_build { ", **DEBUG BUILD**" } else { "" };
        format!(
            "{date}, revision {revision}{build}. {processor}, {cores} cores, Linux {kernel}; on core \
             {server_core}. Load average {load_before} before, {load_after} after. Allocator: \
             mimalloc."
        )
    }

    /// For programs.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("numbers and texts can be written") + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(low: f64, median: f64, high: f64) -> Interval {
        Interval { median, low, high, coverage: 0.95 }
    }

    #[test]
    fn a_bar_is_judged_by_the_interval_and_its_median() {
        let figure = interval(38.0, 40.0, 44.0);
        for (bar, verdict) in [
            (Bar::AtMost(44.0), Verdict::Met),
            (Bar::AtMost(40.0), Verdict::MetByMedian),
            (Bar::AtMost(39.0), Verdict::MetByInterval),
            (Bar::AtMost(37.9), Verdict::Missed),
            (Bar::AtLeast(38.0), Verdict::Met),
            (Bar::AtLeast(40.0), Verdict::MetByMedian),
            (Bar::AtLeast(43.0), Verdict::MetByInterval),
            (Bar::AtLeast(44.1), Verdict::Missed),
        ] {
            assert_eq!(bar.judge(figure), verdict, "{bar:?}");
        }
    }

    #[test]
    fn a_table_shows_figures_bars_and_notes() {
        let mut table = Table::new("Hit");
        table.add("one", "ns", Some(Bar::AtMost(40.0)), vec![30.04, 30.0, 31.0]);
        table.add("ratio", "", None, vec![0.25]);
        table.add("nothing", "", None, vec![]);
        table.note("Measured.");
        let text = table.markdown();
        assert!(text.contains("| one | 30.0 ns | 30.0 .. 31.0 | ≤ 40 ns | met |"), "{text}");
        assert!(text.contains("| ratio | 0.250 |  |  |  |"), "{text}");
        assert!(text.contains("\n- Measured.") && !text.contains("nothing"), "{text}");
    }
}
