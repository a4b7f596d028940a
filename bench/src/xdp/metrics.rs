//! What our server tells of itself over HTTP, and the names under which it does.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Context;

/// Queries that the filter gave to the server.
pub(super) const REDIRECTED: &str = "swiftlet_xdp_redirected_total";
/// Queries that it left to the kernel, as they came by a queue without a socket.
pub(super) const UNSERVED: &str = "swiftlet_xdp_unserved_total";
/// Everything else.
pub(super) const PASSED: &str = "swiftlet_xdp_passed_total";
/// Frames that the server took from its rings.
pub(super) const RECEIVED: &str = "swiftlet_xdp_received_total";
/// Frames redirected that the kernel dropped, by reason.
pub(super) const DROPPED: &str = "swiftlet_xdp_dropped_total";
/// Replies that left in the frame of their query.
pub(super) const ANSWERED: &str = "swiftlet_xdp_answered_total";
/// Queries that got no answer, by reason.
pub(super) const QUERIES_DROPPED: &str = "swiftlet_queries_dropped_total";
/// The reason of those whose answer the kernel did not take.
pub(super) const SEND_REFUSED: &str = "reason=\"send_refused\"";

/// How long the server may take to tell.
const TIMEOUT: Duration = Duration::from_secs(5);

/// All metrics as they were at one time.
#[derive(Clone, Debug)]
pub(super) struct Metrics(String);

impl Metrics {
    /// Asks the server.
    pub(super) fn fetch(address: SocketAddr) -> anyhow::Result<Self> {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        };
        ask().map(Self).with_context(|| format!("cannot read the server's metrics at {address}"))
    }

    /// The sum over all labels of a metric.
    pub(super) fn sum(&self, name: &str) -> anyhow::Result<u64> {
        self.sum_with(name, "")
    }

    /// The sum over those with this label, as `reason="short"`.
    pub(super) fn sum_with(&self, name: &str, label: &str) -> anyhow::Result<u64> {
        let of = |line: &str| {
            let rest = line.strip_prefix(name)?;
            if !rest.starts_with(['{', ' ']) || !rest.contains(label) {
                return None;
            }
            rest.rsplit(' ').next()?.parse::<u64>().ok()
        };
        let values: Vec<u64> = self.0.lines().filter_map(of).collect();
        anyhow::ensure!(
            !values.is_empty(),
            "the server doesn't tell {name}: does it run on AF_XDP?"
        );
        Ok(values.iter().sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_the_sum_over_its_labels_and_never_missing() {
        let text = "HTTP/1.0 200 OK\r\n\r\n# HELP swiftlet_xdp_dropped x\n\
                    swiftlet_xdp_dropped_total{interface=\"a b\",reason=\"ring_full\"} 3\n\
                    swiftlet_xdp_dropped_total{interface=\"a b\",reason=\"no_frame\"} 4\n\
                    swiftlet_xdp_dropped_total_created 9\nswiftlet_plain 5\n";
        let metrics = Metrics(text.to_owned());
        assert_eq!(metrics.sum(DROPPED).expect("there"), 7);
        assert_eq!(metrics.sum_with(DROPPED, "reason=\"no_frame\"").expect("there"), 4);
        assert_eq!(metrics.sum("swiftlet_plain").expect("there"), 5);
        let error = metrics.sum(RECEIVED).expect_err("not there");
        assert!(error.to_string().contains(RECEIVED), "{error}");
    }
}
