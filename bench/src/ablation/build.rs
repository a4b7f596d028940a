//! The servers of an ablation, built by cargo with the features of each.
//!
//! All are built in one target directory, apart from everyone else's: dependencies are built once, and
//! `target/release/swiftlet` stays the default. Each program is copied before the next one takes its
//! place.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::Context;

/// Which features a server is built with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Build {
    /// Whether the default ones are among them.
    defaults: bool,
    features: &'static [&'static str],
}

impl Build {
    /// As it is unless told otherwise.
    pub const DEFAULT: Self = Self::with(&[]);

    /// The default with these features.
    #[must_use]
    pub const fn with(features: &'static [&'static str]) -> Self {
        Self { defaults: true, features }
    }

    /// These features and no others.
    #[must_use]
    pub const fn only(features: &'static [&'static str]) -> Self {
        Self { defaults: false, features }
    }

    fn arguments(self) -> Vec<String> {
        let mut arguments = Vec::new();
        if !self.defaults {
            arguments.push("--no-default-features".to_owned());
        }
        if !self.features.is_empty() {
            arguments.extend(["--features".to_owned(), self.features.join(",")]);
        }
        arguments
    }

    /// The name of its copy.
    fn file_name(self) -> String {
        let mark = if self.defaults { "" } else { "-only" };
        let features: String = self.features.iter().map(|feature| format!("-{feature}")).collect();
        format!("swiftlet{mark}{features}")
    }
}

/// Builds servers from the sources in the current directory.
#[derive(Clone, Debug)]
pub struct Builder {
    /// Where cargo builds, and where the copies are.
    pub target: PathBuf,
}

impl Builder {
    /// Builds one, and says where it is.
    ///
    /// # Errors
    /// What cargo complained of first.
    pub fn build(&self, build: Build) -> anyhow::Result<PathBuf> {
        let output = Command::new("cargo")
            .args(["build", "--release", "--package", "swiftlet", "--target-dir"])
            .arg(&self.target)
            .args(build.arguments())
            .stdin(Stdio::null())
            .output()
            .context("cannot run cargo")?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        let features = build.arguments().join(" ");
        let why = first_error(&complaint);
        anyhow::ensure!(output.status.success(), "it cannot be built ({features}): {why}");
        let built = self.target.join("release/swiftlet");
        let copy = self.target.join(build.file_name());
        fs::copy(&built, &copy)
            .with_context(|| format!("cannot copy {} to {}", built.display(), copy.display()))?;
        Ok(copy)
    }
}

/// The first line that says what is wrong.
fn first_error(complaint: &str) -> &str {
    let mut lines = complaint.lines().map(str::trim);
    lines.find(|line| line.starts_with("error")).unwrap_or("cargo said nothing")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::ablation::switches::SWITCHES;

    #[test]
    fn features_are_passed_on() {
        assert!(Build::DEFAULT.arguments().is_empty());
        assert_eq!(Build::with(&["io-uring"]).arguments(), ["--features", "io-uring"]);
        let only = Build::only(&["simd", "jemalloc"]);
        assert_eq!(only.arguments(), ["--no-default-features", "--features", "simd,jemalloc"]);
        assert_eq!(Build::only(&[]).arguments(), ["--no-default-features"]);
    }

    #[test]
    fn no_two_builds_share_a_file() {
        let builds: Vec<Build> = SWITCHES.iter().map(|switch| switch.build).collect();
        let files: BTreeSet<String> = builds.iter().map(|build| build.file_name()).collect();
        let features: BTreeSet<_> = builds.iter().map(|build| build.arguments()).collect();
        assert_eq!(files.len(), features.len());
        assert_eq!(Build::DEFAULT.file_name(), "swiftlet");
    }

    #[test]
    fn the_first_error_is_told() {
        let complaint =
            "   Compiling swiftlet\nwarning: unused\nerror: no such feature: `x`\nerror: more\n";
        assert_eq!(first_error(complaint), "error: no such feature: `x`");
        assert_eq!(first_error(""), "cargo said nothing");
    }
}
