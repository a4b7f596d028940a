//! What an interface counted: by `ip`, and by the driver's own account through `ethtool`.

use anyhow::Context;
use serde::Serialize;
use serde_json::Value;

use super::rig::output;

/// Counters of a veth interface since it was made.
///
/// What `sent_dropped` counts was given to the interface and never arrived at its peer, whose ring was
/// full; what `received_dropped` counts arrived, and was not passed on: by a program that redirects, because
/// the socket's ring was full or it had no free memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Interface {
    /// Packets that arrived, those of `received_dropped` included.
    pub received: u64,
    /// Packets that were dropped on arrival.
    pub received_dropped: u64,
    /// Packets that were given to the peer.
    pub sent: u64,
    /// Packets that could not be.
    pub sent_dropped: u64,
    /// Packets that a program gave to an AF_XDP socket.
    pub redirected: u64,
}

impl Interface {
    /// What was counted since then.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            received: self.received - before.received,
            received_dropped: self.received_dropped - before.received_dropped,
            sent: self.sent - before.sent,
            sent_dropped: self.sent_dropped - before.sent_dropped,
            redirected: self.redirected - before.redirected,
        }
    }

    /// Of `ip -s -j link show` and `ethtool -S`.
    fn parse(link: &str, statistics: &str) -> Option<Self> {
        let link: Value = serde_json::from_str(link).ok()?;
        let count =
            |way: &str, what: &str| link.get(0)?.get("stats64")?.get(way)?.get(what)?.as_u64();
        // As `     rx_queue_0_xdp_redirect: 123`, one for each queue.
        let redirects = statistics.lines().filter_map(|line| {
            let (name, value) = line.trim().split_once(": ")?;
            let of = name.strip_prefix("rx_queue_")?.strip_suffix("_xdp_redirect")?;
            of.parse::<u32>().ok()?;
            value.parse::<u64>().ok()
        });
        let redirects: Vec<u64> = redirects.collect();
        if redirects.is_empty() {
            return None;
        }
        Some(Self {
            received: count("rx", "packets")?,
            received_dropped: count("rx", "dropped")?,
            sent: count("tx", "packets")?,
            sent_dropped: count("tx", "dropped")?,
            redirected: redirects.iter().sum(),
        })
    }
}

/// Reads the counters of an interface in the namespace of the calling thread.
///
/// # Errors
/// If there is none, or it is no veth interface.
pub fn read(name: &str) -> anyhow::Result<Interface> {
    let link = output(&["ip", "-s", "-j", "link", "show", "dev", name])?;
    let statistics = output(&["ethtool", "-S", name])?;
    Interface::parse(&link, &statistics)
        .with_context(|| format!("the counters of {name} cannot be read: it is no veth interface"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: &str = r#"[{"ifindex":2,"ifname":"v","mtu":1500,"stats64":{
        "rx":{"bytes":90,"packets":7,"errors":0,"dropped":2,"over_errors":0,"multicast":0},
        "tx":{"bytes":9,"packets":5,"errors":0,"dropped":1,"carrier_errors":0,"collisions":0}}}]"#;

    const STATISTICS: &str = "NIC statistics:\n     peer_ifindex: 2\n     rx_queue_0_xdp_packets: 9\n     \
        rx_queue_0_drops: 2\n     rx_queue_0_xdp_redirect: 3\n     rx_queue_1_xdp_redirect: 1\n     \
        tx_queue_0_xdp_xmit: 8\n";

    #[test]
    fn counters_are_found_in_what_the_tools_say() {
        let counters = Interface::parse(LINK, STATISTICS).expect("complete");
        let expected =
            Interface { received: 7, received_dropped: 2, sent: 5, sent_dropped: 1, redirected: 4 };
        assert_eq!(counters, expected);
        let before = Interface { received: 6, redirected: 4, ..Interface::default() };
        let since = counters.since(before);
        assert_eq!((since.received, since.sent, since.redirected), (1, 5, 0));
    }

    #[test]
    fn what_is_missing_is_no_zero() {
        assert_eq!(Interface::parse(LINK, "NIC statistics:\n     peer_ifindex: 2\n"), None);
        for text in ["", "[]", r#"[{"ifname":"v"}]"#, "[{"] {
            assert_eq!(Interface::parse(text, STATISTICS), None, "{text}");
        }
    }
}
