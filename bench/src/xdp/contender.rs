//! Who takes part.

use std::net::SocketAddr;
use std::path::Path;

use clap::ValueEnum;
use serde::Serialize;

use crate::echo::Over;
use crate::peers::{KNOTD_XDP, PEERS, Peer, Setup};
use crate::process::{Process, free_address};

use super::rig::Link;

/// One who takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Contender {
    /// Our server on AF_XDP, which all others are compared with.
    #[value(skip)]
    Ours,
    /// The same once more.
    Again,
    /// A bare echo on AF_XDP: the least that our backend can cost.
    Echo,
    /// Knot DNS on AF_XDP.
    Knot,
    /// Our server over sockets.
    Epoll,
    /// Unbound, which has sockets alone.
    Unbound,
    /// Knot DNS over sockets.
    KnotSockets,
}

/// A server on its link.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) contender: Contender,
    pub(super) link: Link,
    pub(super) process: Process,
    /// Where ours tells its counters.
    pub(super) http: SocketAddr,
    pub(super) version: Option<String>,
}

impl Contender {
    /// What the table calls it.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Ours => "**swiftlet**, AF_XDP",
            Self::Again => "**swiftlet**, AF_XDP again (A/A)",
            Self::Echo => "bare echo, AF_XDP",
            Self::Knot => "knotd, AF_XDP",
            Self::Epoll => "**swiftlet**, sockets (epoll)",
            Self::Unbound => "unbound, sockets",
            Self::KnotSockets => "knotd, sockets",
        }
        .to_owned()
    }

    /// Whether its queries come over AF_XDP.
    #[must_use]
    pub fn is_xdp(self) -> bool {
        matches!(self, Self::Ours | Self::Again | Self::Echo | Self::Knot)
    }

    /// Starts it on this link; `bench` is this program.
    pub(super) fn start(
        self,
        link: Link,
        bench: &Path,
        server: &Path,
        setup: &Setup<'_>,
    ) -> anyhow::Result<Stage> {
        let (name, address, http) = (self.name(), link.target(), free_address()?);
        let ours = |backend: &str| {
            let http = http.to_string();
            let settings: [(&str, &str); 3] = [
                ("SWIFTLET_BACKEND", backend),
                ("SWIFTLET_HTTP", &*http),
                // Sockets in its place would be another measurement.
                ("SWIFTLET_XDP_FALLBACK", "false"),
            ];
            let settings = if self == Self::Epoll { &settings[..2] } else { &settings };
            Process::variant_at(address, &name, server, setup, settings)
        };
        let peer = |peer: &Peer| {
            let Some(program) = peer.find() else { anyhow::bail!("it is not installed") };
            let process = peer.start_at(address, &link.server, &program, setup)?;
            Ok((process, Some(peer.version(&program))))
        };
        let (process, version) = match self {
            Self::Ours | Self::Again => (ours("af-xdp")?, None),
            Self::Epoll => (ours("epoll")?, None),
            Self::Echo => {
                (Process::echo_at(address, Over::AfXdp, &name, bench, setup.core, 0)?, None)
            }
            Self::Knot => peer(&KNOTD_XDP)?,
            Self::KnotSockets => peer(known("knotd"))?,
            Self::Unbound => peer(known("unbound"))?,
        };
        Ok(Stage { contender: self, link, process, http, version })
    }
}

fn known(name: &str) -> &'static Peer {
    PEERS.iter().find(|peer| peer.name == name).expect("it has a row there")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_peers_known() {
        let mut names: Vec<String> =
            Contender::value_variants().iter().map(|one| one.name()).collect();
        names.push(Contender::Ours.name());
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 7);
        assert_eq!([known("knotd").name, known("unbound").name], ["knotd", "unbound"]);
    }
}
