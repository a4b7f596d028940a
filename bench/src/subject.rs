//! Who takes part in a comparison.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Serialize;

use crate::peers::{PEERS, Peer, Role, Setup};
use crate::process::Process;
use crate::workload::Workload;

/// What a subject is, in the order of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The yardstick.
    Echo,
    /// The yardstick once more.
    Twin,
    /// Ours.
    Ours,
    /// A peer that caches and forwards.
    Resolver,
    /// A peer that only answers from a zone.
    Authoritative,
}

impl Kind {
    /// Whether it is only there to compare with.
    #[must_use]
    pub fn is_yardstick(self) -> bool {
        matches!(self, Self::Echo | Self::Twin)
    }
}

/// One who takes part.
#[derive(Clone, Debug)]
pub struct Subject {
    /// What the report calls it.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Its program.
    pub program: PathBuf,
    /// The program's version; `None` for an echo, which is this program.
    pub version: Option<String>,
    peer: Option<&'static Peer>,
}

impl Subject {
    /// The bare echo: `bench` is this program.
    #[must_use]
    pub fn echo(bench: &Path) -> Self {
        let program = bench.to_owned();
        Self { name: "echo", kind: Kind::Echo, program, version: None, peer: None }
    }

    /// The bare echo once more.
    #[must_use]
    pub fn twin(bench: &Path) -> Self {
        Self { name: "echo again", kind: Kind::Twin, ..Self::echo(bench) }
    }

    /// Our server.
    #[must_use]
    pub fn ours(program: &Path) -> Self {
        let version = Command::new(program).arg("--version").output().ok();
        let version = version.and_then(|output| String::from_utf8(output.stdout).ok());
        let version = version.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        let program = program.to_owned();
        Self { name: "swiftlet", kind: Kind::Ours, program, version, peer: None }
    }

    /// A peer that was found there.
    #[must_use]
    pub fn peer(peer: &'static Peer, program: PathBuf) -> Self {
        let kind = match peer.role {
            Role::Resolver => Kind::Resolver,
            Role::Authoritative => Kind::Authoritative,
        };
        let version = Some(peer.version(&program));
        Self { name: peer.name, kind, program, version, peer: Some(peer) }
    }

    /// Whether it has a part in this workload.
    #[must_use]
    pub fn takes_part_in(&self, workload: Workload) -> bool {
        match self.kind {
            Kind::Echo | Kind::Twin => workload != Workload::Memory,
            Kind::Ours | Kind::Resolver => true,
            Kind::Authoritative => workload.is_for_authoritative(),
        }
    }

    /// Starts it on a port of its own.
    pub fn start(&self, setup: &Setup<'_>) -> anyhow::Result<Process> {
        match (self.kind, self.peer) {
            (_, Some(peer)) => peer.start(&self.program, setup),
            (Kind::Ours, None) => Process::server(self.name, &self.program, setup),
            (_, None) => Process::echo(self.name, &self.program, setup.core, 0),
        }
    }
}

/// The peers that were found, and the names of those that were not. If any are named, only those.
///
/// # Errors
/// If a named one isn't known or isn't there.
pub fn find_peers(named: &[String]) -> anyhow::Result<(Vec<Subject>, Vec<&'static str>)> {
    for name in named {
        let known: Vec<&str> = PEERS.iter().map(|peer| peer.name).collect();
        let peer = PEERS.iter().find(|peer| peer.name == name);
        let known = known.join(", ");
        let peer = peer.ok_or_else(|| anyhow::anyhow!("no peer {name}; there are {known}"))?;
        anyhow::ensure!(
            peer.find().is_some(),
            "{name} is neither in PATH nor where daemons are: install it, or leave --peer {name} out",
        );
    }
    let wanted = |peer: &&Peer| named.is_empty() || named.iter().any(|name| peer.name == name);
    let (mut found, mut absent) = (Vec::new(), Vec::new());
    for peer in PEERS.iter().filter(wanted) {
        match peer.find() {
            Some(program) => found.push(Subject::peer(peer, program)),
            None => absent.push(peer.name),
        }
    }
    Ok((found, absent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_nobody_knows_is_an_error_that_lists_them() {
        let error = find_peers(&["nobody".to_owned()]).expect_err("unknown");
        let text = error.to_string();
        assert!(text.contains("no peer nobody") && text.contains("unbound"), "{text}");
    }

    #[test]
    fn only_who_can_takes_part() {
        let bench = Path::new("/nonexistent");
        let (echo, ours) = (Subject::echo(bench), Subject::ours(bench));
        assert_eq!(ours.version, None);
        assert!(!echo.takes_part_in(Workload::Memory) && ours.takes_part_in(Workload::Memory));
        let zone = Subject { kind: Kind::Authoritative, ..ours };
        assert!(zone.takes_part_in(Workload::Tcp) && !zone.takes_part_in(Workload::Miss));
    }
}
