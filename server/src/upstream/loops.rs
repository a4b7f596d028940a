//! Forwarding loops: an upstream that forwards back to this server, be it by way of others.
//!
//! DNS has no hop count, so a loop is found by asking: each upstream of each zone is asked in turn for a
//! name that only this process knows, `<16 random hex digits>.swiftlet-loop-probe.<zone>`, type HINFO. If
//! that question comes in from a client, the upstream that was asked forwards to us. It is then left out
//! for that zone, with one line in the log, until it answers a probe that does not come back.
//!
//! Of two servers that forward to each other it is enough that one leaves the other out; which does is
//! chance. What comes back is what the other really forwards, so one that has others to ask, and has left
//! this server out by itself, is used on.
//!
//! Until that is noticed a loop does no more than fail: the question that comes back has the key of the one
//! in flight, so it joins it as one more waiter, nobody asks anew, and all end when the time is over.
//!
//! Bounds: one probe at a time in the process, [`GAP`] between two, a round each `every`; a server that did
//! not answer is asked no more in that round, so a round of n servers takes at most n times [`PATIENCE`]
//! and the gaps. A probe is answered REFUSED, whoever it comes from, and neither forwarded nor stored.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use swiftlet_parser::key::{Key, KeyBuf, Seed, Variant};
use swiftlet_parser::name::Name;
use swiftlet_parser::rr::{Class, Type};
use tokio::time::sleep;

use super::zones::Route;
use super::{Failure, Upstreams};
use crate::telemetry::Counter;

/// Between two probes.
const GAP: Duration = Duration::from_millis(20);

/// How long the answer to a probe is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Before the first round, for servers that start together with this one do not answer at once; doubled
/// with each round until it is what the operator set.
const FIRST_REST: Duration = Duration::from_secs(1);

/// The digits of a probe's number, and the label behind them, as they stand in a name.
const DIGITS: usize = 16;
const LABEL: &[u8] = b"\x13swiftlet-loop-probe";

/// The probe that is under way, as all workers see it.
#[derive(Debug, Default)]
pub(super) struct Probe {
    /// Its number; drawn anew for each, so that nobody else can make one come back. 0 before the first.
    number: AtomicU64,
    /// The number of the last one that came back.
    returned: AtomicU64,
}

impl Probe {
    fn begin(&self, number: u64) {
        self.number.store(number, Relaxed);
    }

    /// Whether a question is the probe under way; notes that it came.
    fn sees(&self, qname: &[u8]) -> bool {
        let own = |number: &u64| *number != 0 && *number == self.number.load(Relaxed);
        match number_of(qname).filter(own) {
            Some(number) => {
                self.returned.store(number, Relaxed);
                true
            }
            None => false,
        }
    }

    fn has_returned(&self, number: u64) -> bool {
        self.returned.load(Relaxed) == number
    }
}

impl Upstreams {
    /// Whether a question that came in is one that this server asked itself to find loops. It must not be
    /// forwarded.
    #[must_use]
    pub fn is_own_probe(&self, key: &Key<'_>) -> bool {
        let own = self.routes.probe.sees(key.qname());
        if own {
            self.tally.inc(Counter::LoopProbesReturned);
        }
        own
    }

    /// Looks for loops soon after the start, and then each `every`. Never ends.
    pub async fn watch_for_loops(&self, seed: &Seed, every: Duration) {
        let mut rest = FIRST_REST.min(every);
        loop {
            sleep(rest).await;
            rest = (rest * 2).min(every);
            let mut silent = vec![false; self.routes.addresses().len()];
            for route in self.routes.routes() {
                for (place, &server) in route.servers().iter().enumerate() {
                    if !silent[server] {
                        silent[server] = !self.look_for_loop(seed, route, place).await;
                        sleep(GAP).await;
                    }
                }
            }
        }
    }

    /// Asks one server of a route, and notes whether the question comes back. Returns false if the server
    /// said nothing, from which nothing follows.
    async fn look_for_loop(&self, seed: &Seed, route: &Route, place: usize) -> bool {
        let number = rand::random_range(1..=u64::MAX);
        let Some(name) = name_of(number, &route.zone) else {
            return true;
        };
        let mut keys = KeyBuf::default();
        let variant = Variant::new(false, false, 0);
        let key = keys.build(seed, name.as_wire(), Type::HINFO, Class::IN, variant);
        let probe = &self.routes.probe;
        probe.begin(number);
        self.tally.inc(Counter::LoopProbes);
        let server = route.servers()[place];
        let answered =
            matches!(self.ask(server, &key, PATIENCE).await, Ok(_) | Err(Failure::Rcode(_)));
        let returned = probe.has_returned(number);
        if (returned || answered) && route.set_looping(place, returned) {
            self.tell(server, route, returned);
        }
        answered || returned
    }

    fn tell(&self, server: usize, route: &Route, loops: bool) {
        let address = self.routes.addresses()[server];
        let names = match route.zone.is_root() {
            true => "all names".into(),
            false => format!("names below {}", route.zone),
        };
        if loops {
            tracing::warn!(
                "upstream {address} forwards {names} back to this server: it is not asked for them \
                 any more; change its configuration or this server's"
            );
        } else {
            tracing::info!("upstream {address} forwards {names} here no more: asked again");
        }
    }
}

/// The name of a probe; `None` if the zone's name leaves no room for it.
fn name_of(number: u64, zone: &Name) -> Option<Name> {
    let mut wire = vec![DIGITS as u8];
    wire.extend_from_slice(format!("{number:016x}").as_bytes());
    wire.extend_from_slice(LABEL);
    wire.extend_from_slice(zone.as_wire());
    Name::from_wire(&wire)
}

/// The number in a probe's name, whoever asked it; the name is in lower case.
fn number_of(qname: &[u8]) -> Option<u64> {
    let (head, rest) = qname.split_at_checked(1 + DIGITS)?;
    let digits = head.strip_prefix(&[DIGITS as u8])?;
    if !rest.starts_with(LABEL) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_known_by_its_name() {
        for zone in [".", "corp.example"] {
            let zone = Name::from_text(zone).unwrap();
            let name = name_of(0x00ab_0000_0000_0001, &zone).unwrap();
            let text = format!("00ab000000000001.swiftlet-loop-probe.{zone}");
            assert_eq!(name.to_string().replace("..", "."), text.replace("..", "."));
            assert_eq!(number_of(name.as_wire()), Some(0x00ab_0000_0000_0001));
        }
        for other in [
            ".",
            "www.example.",
            "00ab000000000001.example.",
            "00ab00000000001.swiftlet-loop-probe.",
            "x0ab000000000001.swiftlet-loop-probe.",
            "00ab000000000001.swiftlet-loop-probes.",
            "a.00ab000000000001.swiftlet-loop-probe.",
        ] {
            let other = Name::from_text(other).unwrap();
            assert_eq!(number_of(other.as_wire()), None, "{other}");
        }
        let long = Name::from_text(&vec!["x".repeat(49); 5].join(".")).unwrap();
        assert_eq!(name_of(1, &long).map(|name| name.to_string()), None);
    }

    #[test]
    fn only_the_probe_under_way_is_seen() {
        let probe = Probe::default();
        let name = |number| name_of(number, &Name::ROOT).unwrap();
        assert!(!probe.sees(name(0).as_wire()), "none is under way");
        probe.begin(7);
        assert!(!probe.sees(name(6).as_wire()));
        assert!(!probe.has_returned(7));
        assert!(probe.sees(name(7).as_wire()));
        assert!(probe.has_returned(7));
        probe.begin(8);
        assert!(!probe.sees(name(7).as_wire()), "one that comes late");
        assert!(!probe.has_returned(8));
    }
}
