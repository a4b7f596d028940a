//! Reads the summaries that gungraun leaves, one JSON file for each case.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

/// The version of the summaries' layout that is understood.
const LAYOUT: &str = "7";

/// How many directories below the one that is named a summary may be.
const DEPTH_MAX: usize = 8;

/// The counts in all summaries under a directory, by `group::function::case`.
///
/// # Errors
/// There is no summary, or one cannot be read, has another layout or a name that was there already.
pub(super) fn read(directory: &Path) -> anyhow::Result<BTreeMap<String, u64>> {
    let mut files = Vec::new();
    find(directory, DEPTH_MAX, &mut files)
        .with_context(|| format!("cannot look through {}", directory.display()))?;
    let mut counts = BTreeMap::new();
    for file in files {
        let text = fs::read_to_string(&file)
            .with_context(|| format!("cannot read the summary {}", file.display()))?;
        let (name, count) = parse(&text)
            .with_context(|| format!("{} is not the summary of a count", file.display()))?;
        if counts.insert(name.clone(), count).is_some() {
            bail!("there are two counts of {name} in {}", directory.display());
        }
    }
    ensure!(!counts.is_empty(), "there is no summary.json in {}", directory.display());
    Ok(counts)
}

fn find(directory: &Path, depth: usize, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            if depth > 0 {
                find(&entry.path(), depth - 1, files)?;
            }
        } else if entry.file_name() == "summary.json" {
            files.push(entry.path());
        }
    }
    Ok(())
}

/// The name of one case, and its count.
fn parse(text: &str) -> anyhow::Result<(String, u64)> {
    let summary: Value = serde_json::from_str(text)?;
    let layout = &summary["version"];
    ensure!(layout == LAYOUT, "its layout has the version {layout}, not \"{LAYOUT}\"");
    let path = summary["module_path"].as_str().context("it has no module_path")?;
    // The first part is the benchmark's file.
    let (_, function) = path.split_once("::").context("its module_path has one part only")?;
    let name = match summary["id"].as_str() {
        Some(case) => format!("{function}::{case}"),
        None => function.to_owned(),
    };
    let profiles = summary["profiles"].as_array().context("it has no profiles")?;
    let callgrind = profiles.iter().find(|profile| profile["tool"] == "Callgrind");
    let count = callgrind
        .and_then(|profile| profile.pointer("/data/total/metrics/Ir/values/new")?.as_u64())
        .context("it has no count of instructions (Ir)")?;
    Ok((name, count))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn summary(version: &str, count: u64) -> Value {
        json!({
            "version": version,
            "module_path": "instructions::steps::parse",
            "id": "plain",
            "profiles": [{
                "tool": "Callgrind",
                "data": { "total": { "metrics": { "Ir": { "values": { "new": count } } } } },
            }],
        })
    }

    #[test]
    fn a_summary_gives_its_name_and_count() {
        let mut one = summary(LAYOUT, 42);
        assert_eq!(parse(&one.to_string()).unwrap(), ("steps::parse::plain".into(), 42));
        one["id"] = Value::Null;
        assert_eq!(parse(&one.to_string()).unwrap(), ("steps::parse".into(), 42));
    }

    #[test]
    fn what_is_no_summary_is_an_error() {
        let error = |value: &Value| parse(&value.to_string()).unwrap_err().to_string();
        assert!(error(&summary("8", 42)).contains("\"8\", not \"7\""));
        let mut without = summary(LAYOUT, 42);
        without["profiles"][0]["tool"] = "DHAT".into();
        assert!(error(&without).contains("no count"));
        assert!(error(&json!({})).contains("version null"));
        assert!(parse("").is_err());
    }

    #[test]
    fn summaries_are_found_below_and_must_differ_in_name() {
        let directory = tempfile::tempdir().unwrap();
        let place = |at: &str, value: &Value| {
            let place = directory.path().join(at);
            fs::create_dir_all(&place).unwrap();
            fs::write(place.join("summary.json"), value.to_string()).unwrap();
        };
        assert!(read(directory.path()).unwrap_err().to_string().contains("no summary.json"));
        place("swiftlet-bench/instructions/steps/parse.plain", &summary(LAYOUT, 42));
        fs::write(directory.path().join("log"), "anything").unwrap();
        assert_eq!(read(directory.path()).unwrap(), [("steps::parse::plain".into(), 42)].into());
        place("elsewhere", &summary(LAYOUT, 43));
        assert!(read(directory.path()).unwrap_err().to_string().contains("two counts of"));
    }
}
