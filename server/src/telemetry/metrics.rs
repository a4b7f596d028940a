//! The counters as OpenMetrics text, which Prometheus reads. Names begin with `swiftlet_`.

use std::fmt::Error;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use swiftlet_cache::Store as _;

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
                Some(((key, value.to_owned()), self.sum(**counter)))
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
        let worker = |number: usize| ("worker", number.to_string());
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

    fn encode_gauges(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let cache = self.0.service.cache.stats();
        let ready = u64::from(self.0.lifecycle.phase() == Phase::Ready);
        let gauges = [
            ("queries_pending", "Queries whose answer is outstanding", self.0.board.pending()),
            ("cache_entries", "Answers in the cache", cache.entries),
            ("cache_bytes", "Bytes that the answers in the cache occupy", cache.bytes),
            ("cache_evicted", "Answers that left the cache for lack of room", cache.evicted),
            ("cache_expired", "Answers reclaimed after their time", cache.expired),
            ("cache_too_large", "Answers too large to be kept", cache.too_large),
            ("workers", "Worker threads", self.0.board.workers().len() as u64),
            (
                "clients_indistinct",
                "1 when every client seems to be the container's gateway, so that ALLOW cannot tell them apart",
                u64::from(sightings::are_indistinct(&self.0.board)),
            ),
            ("ready", "1 while new clients should come here", ready),
        ];
        for (name, help, value) in gauges {
            let row = Row { name, label: None, help };
            single(encoder, &row, MetricType::Gauge, &ConstGauge::new(value as i64))?;
        }
        let build = Row { name: "build", label: None, help: "The program" };
        let mut metric = descriptor(encoder, &build, MetricType::Info)?;
        metric.encode_info(&[("version", env!("CARGO_PKG_VERSION"))])
    }
}

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

fn family<V: EncodeMetric>(
    encoder: &mut DescriptorEncoder<'_>,
    row: &Row,
    kind: MetricType,
    values: impl Iterator<Item = ((&'static str, String), V)>,
) -> Result<(), Error> {
    let mut metric = descriptor(encoder, row, kind)?;
    for (label, value) in values {
        value.encode(metric.encode_family(&[label])?)?;
    }
    Ok(())
}
