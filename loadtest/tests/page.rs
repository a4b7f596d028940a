//! The reports in a browser: charts that are drawn, labels that can be read, on a desk, on a phone
//! and in the dark.
//!
//! What the browser has laid out is measured by a script in a page of our own, which holds the report
//! in a frame of the width in question; the report itself has no script.

mod support;

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::process::{Command, Stdio};

use serde::Deserialize;
use support::{authority, run};
use tempfile::TempDir;

/// Measures the report once it is laid out, and leaves the figures as JSON.
const SCRIPT: &str = r#"
const page = document.querySelector("iframe").contentDocument;
const rects = (element, what) => [...element.querySelectorAll(what)].map(e => e.getBoundingClientRect());
const overlap = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
const charts = [...page.querySelectorAll("svg")].map(svg => {
    const frame = svg.getBoundingClientRect();
    const texts = rects(svg, "text");
    const lines = [...svg.querySelectorAll(".line")];
    return {
        title: svg.getAttribute("aria-label"),
        lines: lines.map(line => line.getTotalLength()),
        points: lines.map(line => line.points.length),
        grid: svg.querySelectorAll(".grid").length,
        texts: texts.length,
        smallest: Math.min(...texts.map(text => text.height)),
        outside: texts.filter(text => text.left < frame.left - 1 || text.right > frame.right + 1
            || text.top < frame.top - 1 || text.bottom > frame.bottom + 1).length,
        overlaps: texts.filter((a, i) => texts.some((b, j) => j > i && overlap(a, b))).length,
    };
});
const root = page.documentElement;
document.getElementById("layout").textContent =
    JSON.stringify({ charts, width: root.clientWidth, needed: root.scrollWidth });
"#;

/// What the script tells.
#[derive(Debug, Deserialize)]
struct Layout {
    charts: Vec<Chart>,
    /// Of the frame, in pixels.
    width: f64,
    /// Of what is in it.
    needed: f64,
}

#[derive(Debug, Deserialize)]
struct Chart {
    title: String,
    /// Length of each line, in units of the drawing.
    lines: Vec<f64>,
    points: Vec<usize>,
    grid: usize,
    texts: usize,
    /// Height of the smallest text, in pixels.
    smallest: f64,
    /// Texts that are cut off.
    outside: usize,
    /// Texts that lie on others.
    overlaps: usize,
}

/// Runs the browser on a page, no longer than any machine needs for it.
fn browse(home: &TempDir, page: &Path, args: &[&str]) -> String {
    let profile = format!("--user-data-dir={}", home.path().join("profile").display());
    let output = Command::new("timeout")
        .args(["--kill-after=5", "90", "chromium", "--headless=new", "--no-sandbox"])
        .args(["--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage"])
        // It has no business on a network.
        .args(["--disable-background-networking", "--proxy-server=127.0.0.1:9", &profile])
        .args(args)
        .arg(format!("file://{}", page.display()))
        .stderr(Stdio::null())
        .output()
        .expect("timeout runs");
    assert!(
        output.status.success(),
        "chromium: {}; `make test` installs Debian's package chromium",
        output.status
    );
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The report's layout in a window of this width.
fn layout(home: &TempDir, report: &str, width: u32) -> Layout {
    let escaped = report.replace('&', "&amp;").replace('"', "&quot;");
    let page = home.path().join("frame.html");
    let html = format!(
        "<!doctype html><meta charset=utf-8><iframe width={width} height=900 srcdoc=\"{escaped}\">\
         </iframe><pre id=layout></pre><script>addEventListener('load', () => {{{SCRIPT}}})</script>"
    );
    std::fs::write(&page, html).expect("written");
    let dom = browse(home, &page, &["--window-size=1400,1000", "--dump-dom"]);
    let (_, after) = dom.split_once("<pre id=\"layout\">").expect("the frame's page");
    let (json, _) = after.split_once("</pre>").expect("its end");
    serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"))
}

/// What is to be seen on a page.
struct Picture {
    width: usize,
    /// RGB.
    pixels: Vec<[u8; 3]>,
}

impl Picture {
    fn take(home: &TempDir, report: &Path, args: &[&str]) -> Self {
        let file = home.path().join("picture.png");
        let to = format!("--screenshot={}", file.display());
        browse(home, report, &[&[to.as_str()][..], args].concat());
        let mut decoder = png::Decoder::new(BufReader::new(File::open(file).expect("a picture")));
        decoder.set_transformations(png::Transformations::normalize_to_color8());
        let mut reader = decoder.read_info().expect("PNG");
        let mut bytes = vec![0; reader.output_buffer_size().expect("it fits")];
        let info = reader.next_frame(&mut bytes).expect("an image");
        let samples = info.color_type.samples();
        assert!(samples >= 3, "{:?}", info.color_type);
        let pixels = bytes[..info.buffer_size()].chunks_exact(samples);
        let pixels = pixels.map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect();
        Self { width: info.width as usize, pixels }
    }

    fn background(&self) -> [u8; 3] {
        self.pixels[0]
    }

    /// The share of pixels that differ from the background.
    fn ink(&self) -> f64 {
        let inked = self.pixels.iter().filter(|&&pixel| pixel != self.background()).count();
        inked as f64 / self.pixels.len() as f64
    }

    fn colours(&self) -> usize {
        let mut colours = self.pixels.clone();
        colours.sort_unstable();
        colours.dedup();
        colours.len()
    }
}

/// Everything that is asked of a report with these charts.
fn check(home: &TempDir, file: &Path, titles: &[&str]) {
    let report = std::fs::read_to_string(file).expect("a report");
    for reference in ["http:", "https:", "src=", "href=", "url(", "@import", "<script", "<link"] {
        assert!(!report.contains(reference), "{reference} in a page that stands alone");
    }
    for width in [1280, 768, 390] {
        let layout = layout(home, &report, width);
        assert!(layout.needed <= layout.width, "scrolls sideways at {width}: {layout:?}");
        let drawn: Vec<&str> = layout.charts.iter().map(|chart| chart.title.as_str()).collect();
        assert_eq!(drawn, titles);
        for chart in &layout.charts {
            assert!(!chart.lines.is_empty() && chart.grid >= 6 && chart.texts >= 6, "{chart:?}");
            // A line crosses a good part of its chart, which is 300 units wide.
            assert!(chart.lines.iter().all(|&length| length > 75.0), "{width}: {chart:?}");
            assert!(chart.points.iter().all(|&points| points >= 2), "{chart:?}");
            assert!(chart.smallest >= 11.0, "too small to read at {width}: {chart:?}");
            assert_eq!((chart.outside, chart.overlaps), (0, 0), "at {width}: {chart:?}");
        }
        let distribution = layout.charts.last().expect("charts");
        assert!(distribution.points[0] > 20, "{distribution:?}");
    }
    let dark = "--blink-settings=preferredColorScheme=0";
    for (args, is_dark) in [
        (&["--window-size=1280,1400"][..], false),
        (&["--window-size=1280,1400", dark], true),
        (&["--window-size=390,1400"], false),
    ] {
        let picture = Picture::take(home, file, args);
        assert!(picture.width >= 390);
        assert!((0.01..0.5).contains(&picture.ink()), "{args:?}: {}", picture.ink());
        // Smoothed edges of text and lines of several colours.
        assert!(picture.colours() > 50, "{args:?}: {}", picture.colours());
        let [r, g, b] = picture.background().map(u32::from);
        assert_eq!(r + g + b < 200, is_dark, "{args:?}: background {r} {g} {b}");
        assert!(is_dark || r + g + b > 700, "{args:?}: background {r} {g} {b}");
    }
}

#[test]
fn the_report_of_a_run_is_drawn() {
    let (_authority, server) = authority(&["--nxdomain", "10%"]);
    let home = tempfile::tempdir().expect("a temporary directory");
    let file = home.path().join("run.html");
    let to = file.to_str().expect("UTF-8");
    let args = ["run", "--server", &server, "--zipf", "1000,1.0", "--rate", "2k", "--html", to];
    let run = run(&[&args[..], &["--duration", "3s"]].concat());
    assert_eq!(run.status, Some(0), "{}", run.stderr);
    check(&home, &file, &["Rate over time", "Latency over time", "Latency distribution"]);
}

#[test]
fn the_report_of_a_search_is_drawn() {
    let (_authority, server) = authority(&[]);
    let home = tempfile::tempdir().expect("a temporary directory");
    let file = home.path().join("find.html");
    let to = file.to_str().expect("UTF-8");
    let args = ["find-max", "--server", &server, "--uniform", "1000", "--html", to];
    // Bounds that a busy machine holds: what is found doesn't matter here.
    let bounds = ["--max-p99", "900ms", "--max-loss", "20%", "--timeout", "2s"];
    let rates = ["--step", "300ms", "--start-rate", "250", "--limit-rate", "2k"];
    let found = run(&[&args[..], &bounds, &rates].concat());
    assert!(found.status < Some(2), "{}", found.stderr);
    check(&home, &file, &["Latency by rate", "Loss by rate", "Latency distribution"]);
}
