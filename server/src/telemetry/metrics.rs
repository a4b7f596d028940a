//! The counters as OpenMetrics text, which Prometheus reads. Names begin with `swiftlet_`.

use std::fmt::Error;

use clap::ValueEnum as _;
use clap::builder::PossibleValue;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeMetric, MetricEncoder, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use swiftlet_cache::{SEGMENT_NAMES, SegmentStats, Stats, Store as _};

use super::counters::{ALL, ROWS, Row};
use super::http::Observed;
use super::{Counter, sightings};
use crate::lifecycle::Phase;

/// Everything as text.
pub(super) fn encode(observed: &std::sync::Arc<Observed>) -> Result<String, Error> {
    let mut registry = Registry::with_prefix("swiftlet");
    registry.register_collector(Box::new(Shown(std::sync::Arc::clone(observed))));
    let mut encoded = String::with_capacity(8 * 1024);
    text::encode(&mut encoded, &registry)?;
    Ok(encoded)
}

struct Shown(std::sync::Arc<Observed>);

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shown")
    }
}

impl Collector for Shown {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        self.encode_counters(&mut encoder)?;
        self.encode_workers(&mut encoder)?;
        #[cfg(feature = "af-xdp")]
        super::xdp::encode(&mut encoder, &self.0.filters)?;
        self.encode_upstreams(&mut encoder)?;
        encode_cache(&mut encoder, &self.0.service.cache.stats())?;
        self.encode_gauges(&mut encoder)
    }
}

impl Shown {
    /// The table, summed over the workers.
    fn encode_counters(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let rows: Vec<_> = ROWS.iter().zip(ALL).collect();
        for rows in rows.chunk_by(|(a, _), (b, _)| a.name == b.name) {
            let [(first, counter), ..] = rows else { continue };
            if first.label.is_none() {
                single(encoder, first, MetricType::Counter, &self.sum(**counter))?;
                continue;
            }
            let values = rows.iter().filter_map(|(row, counter)| {
                let (key, value) = row.label?;
                Some(([(key, value)], self.sum(**counter)))
            });
            family(encoder, first, MetricType::Counter, values)?;
        }
        Ok(())
    }

    fn sum(&self, counter: Counter) -> ConstCounter<u64> {
        ConstCounter::new(self.0.board.sum(counter))
    }

    /// What shows how evenly the kernel spreads clients over workers, and what it dropped before they
    /// could see it.
    fn encode_workers(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let worker = |number: usize| [("worker", number.to_string())];
        let received = self.0.board.workers().iter().enumerate().map(|(number, counters)| {
            (worker(number), ConstCounter::<u64>::new(counters.get(Counter::Received)))
        });
        family(encoder, &RECEIVED_BY_WORKER, MetricType::Counter, received)?;
        let dropped = self.0.sockets.iter().enumerate().map(|(number, sockets)| {
            let drops = sockets.iter().filter_map(swiftlet_net::socket::drops).map(u64::from).sum();
            (worker(number), ConstCounter::<u64>::new(drops))
        });
        family(encoder, &DROPPED_BY_KERNEL, MetricType::Counter, dropped)
    }

    /// What all workers found out together, so that no worker's counter has it.
    fn encode_upstreams(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let (opened, closed, network_changes) = self.0.servers.changes();
        let breakers = [("open", opened), ("closed", closed)]
            .map(|(to, count)| ([("to", to)], ConstCounter::<u64>::new(count)));
        family(encoder, &UPSTREAM_BREAKERS, MetricType::Counter, breakers.into_iter())?;
        let changes = ConstCounter::<u64>::new(network_changes);
        single(encoder, &NETWORK_CHANGES, MetricType::Counter, &changes)
    }

    fn encode_gauges(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let ready = u64::from(self.0.lifecycle.phase() == Phase::Ready);
        let gauges = [
            ("queries_pending", "Queries whose answer is outstanding", self.0.board.pending()),
            ("workers", "Worker threads", self.0.board.workers().len() as u64),
            (
                "clients_indistinct",
                "1 when every client seems to be the container's gateway, so that ALLOW cannot tell them apart",
                u64::from(sightings::are_indistinct(&self.0.board)),
            ),
            (
                "upstreams_looping",
                "Upstreams that forward back to this server and are left out, once for each zone",
                self.0.routes.looping().count() as u64,
            ),
            ("ready", "1 while new clients should come here", ready),
        ];
        for (name, help, value) in gauges {
            let row = Row { name, label: None, help };
            single(encoder, &row, MetricType::Gauge, &ConstGauge::new(value as i64))?;
        }
        self.encode_backend(encoder)?;
        let build = Row { name: "build", label: None, help: "The program" };
        let mut metric = descriptor(encoder, &build, MetricType::Info)?;
        metric.encode_info(&[("version", env!("CARGO_PKG_VERSION"))])
    }

    /// What an alert needs where another backend serves than the one that was asked for: rows that are
    /// missing raise none.
    fn encode_backend(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let (asked, in_use) = self.0.backends;
        let asked = asked.to_possible_value();
        let asked = asked.as_ref().map_or("", PossibleValue::get_name);
        let labels = [("asked", asked), ("in_use", in_use.name())];
        family(encoder, &BACKEND, MetricType::Gauge, [(labels, ConstGauge::new(1_i64))].into_iter())
    }
}

/// The cache's own account, by segment if it has any.
fn encode_cache(encoder: &mut DescriptorEncoder<'_>, cache: &Stats) -> Result<(), Error> {
    let Stats { entries, bytes, evicted, expired, .. } = *cache;
    let (names, segments) = match cache.slots {
        0 => {
            let all = SegmentStats { entries, bytes, evicted, expired, crowded: 0 };
            (&["all"][..], &[all][..])
        }
        _ => (&SEGMENT_NAMES[..], &cache.segments[..]),
    };
    let rows = || names.iter().copied().zip(segments);
    let gauge = |value: u64| ConstGauge::new(value as i64);

    let held = rows().map(|(name, of)| ([("segment", name)], gauge(of.entries)));
    family(encoder, &CACHE_ENTRIES, MetricType::Gauge, held)?;
    let beside = [("retired", cache.retired_bytes), ("table", cache.table_bytes)];
    let parts = rows().map(|(name, of)| (name, of.bytes)).chain(beside);
    let parts = parts.map(|(name, bytes)| ([("part", name)], gauge(bytes)));
    family(encoder, &CACHE_BYTES, MetricType::Gauge, parts)?;
    single(encoder, &CACHE_SLOTS, MetricType::Gauge, &gauge(cache.slots))?;

    let reasons = |(name, of): (_, &SegmentStats)| {
        [("room", of.evicted), ("crowded", of.crowded)].map(|(reason, count)| {
            ([("segment", name), ("reason", reason)], ConstCounter::<u64>::new(count))
        })
    };
    family(encoder, &CACHE_EVICTIONS, MetricType::Counter, rows().flat_map(reasons))?;
    let expired = rows().map(|(name, of)| ([("segment", name)], ConstCounter::new(of.expired)));
    family(encoder, &CACHE_EXPIRED, MetricType::Counter, expired)?;
    let refused = [("too_large", cache.too_large), ("choked", cache.refused)];
    let refused = refused.map(|(reason, count)| ([("reason", reason)], ConstCounter::new(count)));
    family(encoder, &CACHE_REFUSED, MetricType::Counter, refused.into_iter())
}

const BACKEND: Row = Row {
    name: "backend",
    label: None,
    help: "1 for the backend that was asked for and the one in use, which the start decided",
};

const CACHE_ENTRIES: Row =
    Row { name: "cache_entries", label: None, help: "Answers in the cache, by segment" };

const CACHE_BYTES: Row = Row {
    name: "cache_bytes",
    label: None,
    help: "Bytes of the cache by what they hold; all of them together stay below SWIFTLET_CACHE_SIZE",
};

const CACHE_SLOTS: Row = Row {
    name: "cache_slots",
    label: None,
    help: "Answers that the cache's table can hold; 0 if it has no bound of its own",
};

const CACHE_EVICTIONS: Row = Row {
    name: "cache_evictions",
    label: None,
    help: "Answers that left the cache before their time: for lack of room, or of a slot in the table",
};

const CACHE_EXPIRED: Row =
    Row { name: "cache_expired", label: None, help: "Answers reclaimed after their time" };

const CACHE_REFUSED: Row = Row {
    name: "cache_refused",
    label: None,
    help: "Answers not stored: too large, or too much that had left was still being read",
};

const UPSTREAM_BREAKERS: Row = Row {
    name: "upstream_breaker_changes",
    label: None,
    help: "Upstreams that were given up for a while (open), and taken up again (closed)",
};

const NETWORK_CHANGES: Row = Row {
    name: "network_changes",
    label: None,
    help: "Changes of this machine's addresses and routes, each of which ends all back-offs",
};

const RECEIVED_BY_WORKER: Row = Row {
    name: "worker_queries_received",
    label: None,
    help: "Datagrams that came from clients, by worker",
};

const DROPPED_BY_KERNEL: Row = Row {
    name: "kernel_dropped",
    label: None,
    help: "Datagrams that the kernel dropped at the workers' sockets, unseen by the server",
};

fn descriptor<'e>(
    encoder: &'e mut DescriptorEncoder<'_>,
    row: &'e Row,
    kind: MetricType,
) -> Result<MetricEncoder<'e>, Error> {
    encoder.encode_descriptor(row.name, row.help, None, kind)
}

fn single(
    encoder: &mut DescriptorEncoder<'_>,
    row: &Row,
    kind: MetricType,
    value: &impl EncodeMetric,
) -> Result<(), Error> {
    value.encode(descriptor(encoder, row, kind)?)
}

pub(super) fn family<L: EncodeLabelSet, V: EncodeMetric>(
    encoder: &mut DescriptorEncoder<'_>,
    row: &Row,
    kind: MetricType,
    values: impl Iterator<Item = (L, V)>,
) -> Result<(), Error> {
    let mut metric = descriptor(encoder, row, kind)?;
    for (labels, value) in values {
        value.encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}
