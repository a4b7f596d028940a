//! Who is served: clients inside `SWIFTLET_ALLOW`; the others get REFUSED with EDE 18 (Prohibited).
//!
//! Cost: one binary search over merged address ranges, whatever the length of the list.

use std::net::IpAddr;

use ipnet::IpNet;
use swiftlet_parser::edns::ExtendedError;
use swiftlet_parser::rr::Rcode;

use super::{Action, Answer, Policies, Request};

/// The set of client addresses that are served.
#[derive(Debug, Default)]
pub struct Acl {
    /// Disjoint, ascending, inclusive ranges.
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl Acl {
    /// The union of the given networks.
    #[must_use]
    pub fn new(networks: &[IpNet]) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            match network {
                IpNet::V4(net) => v4.push((net.network().to_bits(), net.broadcast().to_bits())),
                IpNet::V6(net) => v6.push((net.network().to_bits(), net.broadcast().to_bits())),
            }
        }
        Self { v4: merge(v4), v6: merge(v6) }
    }

    /// Whether a client is served. An IPv4 address mapped into IPv6 counts as the IPv4 address.
    #[must_use]
    pub fn allows(&self, client: IpAddr) -> bool {
        match client.to_canonical() {
            IpAddr::V4(address) => contains(&self.v4, address.to_bits()),
            IpAddr::V6(address) => contains(&self.v6, address.to_bits()),
        }
    }
}

pub(super) fn query<'a>(policies: &'a Policies, request: &Request<'_>) -> Action<'a> {
    if policies.acl.allows(request.client) {
        return Action::Continue;
    }
    let why = (ExtendedError::PROHIBITED, "this server is not open to your address");
    Action::Answer(Answer::code(Rcode::REFUSED, Some(why)))
}

fn merge<T: Ord + Copy>(mut ranges: Vec<(T, T)>) -> Vec<(T, T)> {
    ranges.sort_unstable();
    let mut merged: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some(previous) if first <= previous.1 => previous.1 = previous.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    merged
}

fn contains<T: Ord + Copy>(ranges: &[(T, T)], address: T) -> bool {
    let after = ranges.partition_point(|&(first, _)| first <= address);
    after.checked_sub(1).and_then(|at| ranges.get(at)).is_some_and(|&(_, last)| address <= last)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn acl(networks: &[&str]) -> Acl {
        Acl::new(&networks.iter().map(|net| net.parse().unwrap()).collect::<Vec<_>>())
    }

    #[test]
    fn an_empty_list_serves_nobody() {
        assert!(!acl(&[]).allows("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn both_ends_of_a_network_belong_to_it() {
        let acl = acl(&["192.0.2.128/25", "2001:db8::/32"]);
        for (address, allowed) in [
            ("192.0.2.127", false),
            ("192.0.2.128", true),
            ("192.0.2.255", true),
            ("192.0.3.0", false),
            ("2001:db7:ffff::", false),
            ("2001:db8::", true),
            ("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", true),
            ("2001:db9::", false),
            ("::ffff:192.0.2.200", true),
        ] {
            assert_eq!(acl.allows(address.parse().unwrap()), allowed, "{address}");
        }
    }

    proptest! {
        #[test]
        fn ranges_agree_with_asking_each_network(
            networks in prop::collection::vec((any::<u32>(), 0u8..=32), 0..20),
            address in any::<u32>(),
        ) {
            let networks: Vec<IpNet> = networks
                .into_iter()
                .map(|(bits, len)| IpNet::new(std::net::Ipv4Addr::from_bits(bits).into(), len).unwrap())
                .collect();
            let address = IpAddr::from(std::net::Ipv4Addr::from_bits(address));
            let naive = networks.iter().any(|network| network.contains(&address));
            prop_assert_eq!(Acl::new(&networks).allows(address), naive);
            for network in &networks {
                prop_assert!(Acl::new(&networks).allows(network.addr()));
            }
        }
    }
}
