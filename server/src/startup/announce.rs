//! The first lines of the log: what was made of the configuration, and which limits of the host hurt.

use super::{Opened, Plan};
use crate::backend::Choice;
use crate::config::{Config, Http, format_bytes};
use crate::features;
use crate::filters::Filters;
#[cfg(feature = "af-xdp")]
use {
    std::time::Duration,
    swiftlet_net::backend::xdp::{Attachment, Served},
};

/// Fewer questions in flight than this will be felt.
const COMFORTABLE_FLIGHTS: u64 = 1024;

/// A start that takes as long as this for others is explained.
#[cfg(feature = "af-xdp")]
const LONG_WAIT: Duration = Duration::from_secs(1);

/// Says in a few lines what was made of the configuration, and which limits of the host hurt.
pub(super) fn announce(config: &Config, plan: &Plan, filters: &Filters, opened: &[Opened]) {
    let settings = &config.settings;
    let why = |variable: &str| {
        let source = config.effective.iter().find(|source| source.variable == variable);
        source.map(|source| source.why.as_str()).unwrap_or_default()
    };
    tracing::info!("swiftlet {}", env!("CARGO_PKG_VERSION"));
    let active = features::active().map(|(part, name)| format!("{part} {name}"));
    tracing::info!("{} (features {})", active.join(", "), features::compiled());
    tracing::info!("listening on {} (udp and tcp)", list(&config.listen));
    let pinned: Vec<_> = opened.iter().filter(|opened| opened.pinned).collect();
    let cores = match pinned.len() == config.workers {
        true => format!("pinned to core {}", list(&config.cores)),
        false => "not pinned".into(),
    };
    let workers = match config.workers {
        1 => "1 worker".into(),
        many => format!("{many} workers"),
    };
    tracing::info!("{workers}, {cores} ({})", why("SWIFTLET_WORKERS"));
    announce_backend(config, plan, filters);
    if settings.busy_poll_us > 0 {
        let devices = match opened.iter().all(|opened| opened.polls_devices) {
            true => "and the kernel polls the devices",
            false => "the devices are not polled, for SO_BUSY_POLL needs CAP_NET_ADMIN",
        };
        let us = settings.busy_poll_us;
        tracing::info!("busy polling: workers look for {us} µs before they sleep, {devices}");
    }
    let (size, kind) = (format_bytes(config.cache_size), settings.cache.name());
    let pages = match settings.huge_pages {
        Some(true) => ", huge pages asked for",
        Some(false) => ", huge pages forbidden",
        None => "",
    };
    tracing::info!("answer cache of {size} bytes, {kind}{pages} ({})", why("SWIFTLET_CACHE_SIZE"));
    tracing::info!("forwarding to {} ({})", list(&config.upstreams), why("SWIFTLET_FORWARD"));
    for zone in &settings.forward_zones {
        tracing::info!("forwarding {} to {}", zone.name, list(&zone.servers));
    }
    tracing::info!("serving clients in {}", list(&settings.allow));
    if let Http::On(address) = settings.http {
        tracing::info!("http://{address}/ has metrics, health, ready and debug/upstreams");
    }
    for note in &config.notes {
        tracing::info!("{note}");
    }
    let granted =
        opened.iter().flat_map(|opened| &opened.granted).map(|granted| granted.recv).min();
    let asked = settings.recv_buffer as usize;
    if let Some(granted) = granted.filter(|&granted| granted < asked) {
        tracing::warn!(
            "receive buffers are {} bytes instead of {}: bursts may be dropped; \
             run `sysctl -w net.core.rmem_max={asked}` or grant CAP_NET_ADMIN",
            format_bytes(granted as u64),
            format_bytes(settings.recv_buffer),
        );
    }
    if (config.files.flights as u64) < COMFORTABLE_FLIGHTS {
        tracing::warn!(
            "only {} open files: at most {} questions in flight a worker; raise `ulimit -n` or LimitNOFILE=",
            config.files.limit,
            config.files.flights,
        );
    }
}

/// Which backend it is and why; of af-xdp where it is, what it goes around, and whom it leaves out.
fn announce_backend(config: &Config, plan: &Plan, filters: &Filters) {
    let (Choice { kind, why }, batch) = (&plan.backend, config.settings.batch);
    let Some(interfaces) = filters.interfaces() else {
        tracing::info!("backend {} ({why}), batches of {batch}", kind.name());
        return;
    };
    tracing::info!("backend {} on {interfaces}, batches of {batch}", kind.name());
    tracing::info!("nftables, conntrack and rp_filter do not see the queries that come this way");
    #[cfg(feature = "af-xdp")]
    announce_interfaces(filters);
    let (workers, without) = (config.workers, filters.workers_without_queue(config.workers));
    if without > 0 {
        tracing::info!(
            "workers without a receive queue, which serve sockets alone: {without} of {workers} \
             (`ethtool -L eth0 combined {workers}` makes more queues where the card can)"
        );
    }
}

/// What an operator may want to change on the interfaces.
#[cfg(feature = "af-xdp")]
fn announce_interfaces(filters: &Filters) {
    for served in filters.attached().map(Attachment::interfaces).unwrap_or_default() {
        let name = &served.name;
        if let Some(why) = &served.why_generic {
            tracing::warn!("af-xdp on {name} runs in generic mode, which gains little: {why}");
        }
        if let Some(wait) = long_wait(served) {
            tracing::info!("{wait}");
        }
    }
}

/// What kept the start, if it was long.
#[cfg(feature = "af-xdp")]
fn long_wait(Served { name, waited, .. }: &Served) -> Option<String> {
    let wait = || {
        let seconds = waited.as_secs_f64();
        format!("af-xdp waited {seconds:.1} s until who served {name} before had left its queues")
    };
    (*waited >= LONG_WAIT).then(wait)
}

fn list<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(all(test, feature = "af-xdp"))]
mod tests {
    use super::*;

    #[test]
    fn a_long_wait_for_queues_is_told() {
        let waited = |milliseconds| {
            let (name, mode, waited) =
                ("eth0".into(), "native, copy", Duration::from_millis(milliseconds));
            long_wait(&Served { name, mode, queues: vec![0], why_generic: None, waited })
        };
        assert_eq!(waited(999), None);
        let told = "af-xdp waited 1.5 s until who served eth0 before had left its queues";
        assert_eq!(waited(1500).as_deref(), Some(told));
    }
}
