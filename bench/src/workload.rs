//! The workloads of a comparison, and what each asks of whom.

use clap::ValueEnum;
use serde::Serialize;
use swiftlet_loadtest::{Builder, Queries, Shape, Transport};

use crate::rounds::{queries_for, synthetic_names};

/// Names that are warmed where all is to come from the cache.
const WARM_NAMES: usize = 10_000;

/// Names that Zipf's law is drawn over.
const ZIPF_NAMES: usize = 1_000_000;

/// Names that a cache is made for, except where memory is measured: more than are warmed, so that
/// nobody loses one to an uneven hash, and a tenth of what Zipf's law is drawn over.
const CACHE_NAMES: usize = 100_000;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Workload {
    /// 10,000 names that are all in the cache.
    Hit,
    /// 1,000,000 names by Zipf's law, and a cache for 100,000 of them.
    Zipf,
    /// Names that were never asked before, forwarded.
    Miss,
    /// The 10,000 names pipelined over TCP.
    Tcp,
    /// What a cached name takes of memory.
    Memory,
}

/// How a workload is put on a server.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Shaping {
    /// Sockets of the generator, or connections.
    pub sockets: usize,
    /// Queries outstanding.
    pub window: usize,
    /// Names that the caches are made for.
    pub cache_names: usize,
    /// Names that are asked; `None` if each is asked once only.
    pub names: Option<usize>,
}

impl Workload {
    /// As on the command line, and in the names of files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Zipf => "zipf",
            Self::Miss => "miss",
            Self::Tcp => "tcp",
            Self::Memory => "memory",
        }
    }

    /// The heading of its table.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Hit => "Cache hits over UDP",
            Self::Zipf => "Zipf's law over ten times the cache",
            Self::Miss => "Cache misses over UDP, forwarded",
            Self::Tcp => "Cache hits over TCP",
            Self::Memory => "Memory per cached name",
        }
    }

    /// What is done, in a sentence or two.
    #[must_use]
    pub fn explanation(self) -> &'static str {
        match self {
            Self::Hit => {
                "10,000 names, all warmed, asked in turn in a closed loop. The yardstick is an echo \
                 that sends each datagram back as it came, over recvmmsg and sendmmsg."
            }
            Self::Zipf => {
                "1,000,000 names drawn by Zipf's law (exponent 1.0), and caches for 100,000 of them; \
                 what isn't cached is forwarded to an authority on the generator's core, which \
                 answers at once. The hit ratio is the share of the answers for which nothing was \
                 asked upstream. The yardstick is the bare echo, which asks nobody."
            }
            Self::Miss => {
                "Names that were never asked before, each forwarded to an authority on the \
                 generator's core, which answers at once. The yardstick is the bare echo, which asks \
                 nobody: four datagrams pass a forwarder for two that pass the echo."
            }
            Self::Tcp => {
                "10,000 names, all warmed, asked in turn in a closed loop, pipelined over 32 \
                 connections. The yardstick is an echo that sends back what it reads from each \
                 connection as it came."
            }
            Self::Memory => {
                "Each server gets a cache for as many names as are asked and is asked for all of \
                 them. Its resident memory (all its processes, mapped files included) is compared \
                 with that of the same server with a cache for 1,000 names, so that what is taken at \
                 the start counts too, and the growth is divided by the number of names that are \
                 really cached then, by a sample asked again."
            }
        }
    }

    /// Whether servers that only answer from a zone take part.
    #[must_use]
    pub fn is_for_authoritative(self) -> bool {
        matches!(self, Self::Hit | Self::Tcp)
    }

    /// What carries the queries.
    #[must_use]
    pub fn transport(self) -> Transport {
        match self {
            Self::Tcp => Transport::Tcp { per_connection: u64::MAX },
            _ => Transport::Udp,
        }
    }

    /// Sockets, window and numbers of names; `memory_names` is how many [`Workload::Memory`] takes.
    #[must_use]
    pub fn shaping(self, memory_names: usize) -> Shaping {
        let udp =
            Shaping { sockets: 8, window: 512, cache_names: CACHE_NAMES, names: Some(WARM_NAMES) };
        match self {
            Self::Hit => udp,
            Self::Zipf => Shaping { names: Some(ZIPF_NAMES), ..udp },
            Self::Miss => Shaping { names: None, ..udp },
            Self::Tcp => Shaping { sockets: 32, window: 256, ..udp },
            Self::Memory => Shaping { cache_names: memory_names, names: Some(memory_names), ..udp },
        }
    }

    /// The names of [`Workload::is_for_authoritative`], for a zone of them.
    #[must_use]
    pub fn zone(self) -> Vec<String> {
        if self.is_for_authoritative() { synthetic_names(WARM_NAMES) } else { Vec::new() }
    }

    /// What is asked.
    pub fn queries(self, memory_names: usize) -> anyhow::Result<Queries> {
        let mut builder = Builder::new(Shape::default());
        match self {
            Self::Hit | Self::Tcp => return queries_for(&self.zone()),
            Self::Memory => return queries_for(&synthetic_names(memory_names)),
            Self::Zipf => builder.add_names(ZIPF_NAMES, 1.0, "bench.example.", 1.0)?,
            Self::Miss => builder.add_fresh_names("bench.example.", 1.0)?,
        }
        Ok(builder.build())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_asks_what_its_shaping_says() {
        for &workload in Workload::value_variants() {
            let shaping = workload.shaping(500);
            let queries = workload.queries(500).expect("valid names");
            assert_eq!(queries.len(), shaping.names.unwrap_or(1), "{workload:?}");
            assert!(shaping.window >= shaping.sockets);
            let spelled = workload.to_possible_value().expect("not hidden");
            assert_eq!(spelled.get_name(), workload.name());
            assert_eq!(serde_json::to_value(workload).expect("a name"), workload.name());
        }
    }
}
