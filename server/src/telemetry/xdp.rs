//! What became of the frames of af-xdp: rows of `/metrics` that only this backend has.
//!
//! Law: on each interface `redirected = received + Σ dropped{reason}` over its queues, once nothing is on its
//! way. What was received is among the queries received, and under the law of those from there on. A count that
//! the kernel does not tell is left out: a 0 in its place would look like a breach of the law.

use std::fmt::Error;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use swiftlet_net::backend::xdp::{FilterCounts, KernelCounts, QueueCounts};

use super::counters::Row;
use super::metrics::family;
use crate::filters::Filters;

/// A row, and where its values come from.
type Column<T> = (&'static Row, fn(&T) -> u64);

/// The rows, unless another backend serves.
pub(super) fn encode(encoder: &mut DescriptorEncoder<'_>, filters: &Filters) -> Result<(), Error> {
    let Some(attached) = filters.attached() else { return Ok(()) };
    // Filters first: a frame between the two readings shows as received too early, and never as lost.
    let counts = attached.filter_counts();
    let names = attached.interfaces().iter().map(|served| served.name.as_str());
    encode_filters(encoder, &names.zip(counts).collect::<Vec<_>>())?;
    encode_queues(encoder, &attached.queue_counts())
}

fn encode_filters(
    encoder: &mut DescriptorEncoder<'_>,
    interfaces: &[(&str, Option<FilterCounts>)],
) -> Result<(), Error> {
    let columns: [Column<FilterCounts>; 3] = [
        (&REDIRECTED, |counts| counts.redirected),
        (&UNSERVED, |counts| counts.unserved),
        (&PASSED, |counts| counts.passed),
    ];
    for (row, count) in columns {
        let values = interfaces.iter().filter_map(|(name, counts)| {
            Some(([("interface", *name)], ConstCounter::new(count(counts.as_ref()?))))
        });
        family(encoder, row, MetricType::Counter, values)?;
    }
    Ok(())
}

fn encode_queues(encoder: &mut DescriptorEncoder<'_>, queues: &[QueueCounts]) -> Result<(), Error> {
    let of = |queue: &QueueCounts| {
        [("interface", queue.interface.clone()), ("queue", queue.queue.to_string())]
    };
    let columns: [Column<QueueCounts>; 2] =
        [(&RECEIVED, |queue| queue.received), (&ANSWERED, |queue| queue.answered)];
    for (row, count) in columns {
        let values = queues.iter().map(|queue| (of(queue), ConstCounter::new(count(queue))));
        family(encoder, row, MetricType::Counter, values)?;
    }
    let told = || queues.iter().filter_map(|queue| Some((queue, queue.kernel.as_ref()?)));
    let columns: [Column<KernelCounts>; 2] =
        [(&FILL_RING_EMPTY, |kernel| kernel.fill_empty), (&INVALID, |kernel| kernel.invalid)];
    for (row, count) in columns {
        let values = told().map(|(queue, kernel)| (of(queue), ConstCounter::new(count(kernel))));
        family(encoder, row, MetricType::Counter, values)?;
    }
    let dropped = told().flat_map(|(queue, kernel)| {
        [("no_frame", kernel.dropped), ("ring_full", kernel.ring_full)].map(|(reason, count)| {
            let [interface, number] = of(queue);
            ([interface, number, ("reason", reason.into())], ConstCounter::<u64>::new(count))
        })
    });
    family(encoder, &DROPPED, MetricType::Counter, dropped)
}

const REDIRECTED: Row = Row {
    name: "xdp_redirected",
    label: None,
    help: "Frames that the filter gave to this server: xdp_received and xdp_dropped in all",
};

const UNSERVED: Row = Row {
    name: "xdp_unserved",
    label: None,
    help: "Queries that came by a queue without an AF_XDP socket, and went on to the kernel",
};

const PASSED: Row =
    Row { name: "xdp_passed", label: None, help: "Frames that the filter left to the kernel" };

const RECEIVED: Row = Row {
    name: "xdp_received",
    label: None,
    help: "Frames that came by AF_XDP; they are among the queries received",
};

const ANSWERED: Row = Row {
    name: "xdp_answered",
    label: None,
    help: "Answers that left in the frame of their query",
};

const DROPPED: Row = Row {
    name: "xdp_dropped",
    label: None,
    help: "Frames redirected that the kernel dropped: it had no free frame, or the receive ring was full",
};

const FILL_RING_EMPTY: Row = Row {
    name: "xdp_fill_ring_empty",
    label: None,
    help: "Times that the kernel found no free frame; where it copies, that is a frame dropped",
};

const INVALID: Row = Row {
    name: "xdp_invalid_descriptors",
    label: None,
    help: "Descriptors of ours that the kernel refused: always 0, or a defect",
};

#[cfg(test)]
mod tests {
    use prometheus_client::collector::Collector;
    use prometheus_client::encoding::text;
    use prometheus_client::registry::Registry;

    use super::*;

    /// Counts of eth0 and its queue 3 with what the kernel says, and of eth1 and its queue 1 without.
    #[derive(Debug)]
    struct Shown;

    impl Collector for Shown {
        fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
            let filter = FilterCounts { redirected: 10, unserved: 1, passed: 2 };
            encode_filters(&mut encoder, &[("eth0", Some(filter)), ("eth1", None)])?;
            let kernel = KernelCounts { dropped: 3, ring_full: 2, fill_empty: 6, invalid: 7 };
            let queue = QueueCounts {
                interface: "eth0".into(),
                queue: 3,
                received: 5,
                answered: 4,
                kernel: Some(kernel),
            };
            let untold =
                QueueCounts { interface: "eth1".into(), queue: 1, kernel: None, ..queue.clone() };
            encode_queues(&mut encoder, &[queue, untold])
        }
    }

    fn shown() -> String {
        let mut registry = Registry::with_prefix("swiftlet");
        registry.register_collector(Box::new(Shown));
        let mut shown = String::new();
        text::encode(&mut shown, &registry).expect("a string takes everything");
        shown
    }

    #[test]
    fn each_count_is_shown_under_its_interface_and_queue() {
        let shown = shown();
        let queue = "interface=\"eth0\",queue=\"3\"";
        for line in [
            "xdp_redirected_total{interface=\"eth0\"} 10",
            "xdp_unserved_total{interface=\"eth0\"} 1",
            "xdp_passed_total{interface=\"eth0\"} 2",
            &format!("xdp_received_total{{{queue}}} 5"),
            &format!("xdp_answered_total{{{queue}}} 4"),
            &format!("xdp_dropped_total{{{queue},reason=\"no_frame\"}} 3"),
            &format!("xdp_dropped_total{{{queue},reason=\"ring_full\"}} 2"),
            &format!("xdp_fill_ring_empty_total{{{queue}}} 6"),
            &format!("xdp_invalid_descriptors_total{{{queue}}} 7"),
        ] {
            assert!(shown.contains(&format!("\nswiftlet_{line}\n")), "{line}: {shown}");
        }
    }

    /// What the worker counts itself is there.
    #[test]
    fn what_the_kernel_does_not_say_is_left_out() {
        let shown = shown();
        let untold = shown.lines().filter(|line| line.contains("eth1")).collect::<Vec<_>>();
        let queue = "interface=\"eth1\",queue=\"1\"";
        let expected = [("received", 5), ("answered", 4)]
            .map(|(name, count)| format!("swiftlet_xdp_{name}_total{{{queue}}} {count}"));
        assert_eq!(untold, expected);
    }
}
