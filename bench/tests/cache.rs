//! `cache` and `flood` from end to end, on far too little to mean anything.

use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

/// Runs a subcommand; the tables as they are written to both files.
fn run(args: &[&str]) -> (String, Value) {
    let home = TempDir::new().expect("a directory");
    let (markdown, json) = (home.path().join("out.md"), home.path().join("out.json"));
    let output = Command::new(env!("CARGO_BIN_EXE_swiftlet-bench"))
        .args(args)
        .arg("--markdown")
        .arg(&markdown)
        .arg("--json")
        .arg(&json)
        .output()
        .expect("it runs");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    let read = |file| std::fs::read_to_string(file).expect("it was written");
    (read(markdown), serde_json::from_str(&read(json)).expect("JSON"))
}

/// The verdicts of all tables: of each row with a bar.
fn verdicts(json: &Value) -> usize {
    let tables = json["tables"].as_array().expect("tables");
    let rows = tables.iter().flat_map(|table| table["rows"].as_array().expect("rows"));
    rows.filter(|row| row["verdict"].is_string()).count()
}

#[test]
fn the_cache_is_measured() {
    let tiny = ["--rounds", "15", "--lookups", "256", "--few", "500", "--many", "2000"];
    let (markdown, json) =
        run(&[&["cache", "--queries", "6000", "--side-by-side-ms", "1"], &tiny[..]].concat());
    // Two of the hit, one of many names, one of two threads, nine of the ratio, one of memory.
    assert_eq!(verdicts(&json), 14, "{markdown}");
    for row in [
        "| segmented / moka |",
        "| Zipf 1.1: segmented − moka by entries |",
        "| plain LRU in a mutex |",
    ] {
        assert!(markdown.contains(row), "no {row} in {markdown}");
    }
    assert!(markdown.contains("## Memory per cached A answer"), "{markdown}");
}

#[test]
fn a_flood_is_measured() {
    let (markdown, json) = run(&["flood", "--names", "1000", "--queries", "4000"]);
    assert_eq!(verdicts(&json), 4, "{markdown}");
    assert!(markdown.contains("| negative answers, 10:1: segmented |"), "{markdown}");
}
