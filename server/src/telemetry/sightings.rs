//! Whether clients can be told apart. Some container engines pass queries on through a proxy, so that
//! every client seems to be the container's default gateway: then `SWIFTLET_ALLOW` admits all or none.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use super::{Board, Counter, Counters};

/// Sightings of the gateway alone after which something is said.
const ENOUGH: u64 = 10;

/// Files by which container engines mark the inside of a container.
const MARKS: [&str; 2] = [".dockerenv", "run/.containerenv"];

/// The address behind which clients may hide; none outside of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gateway(Option<IpAddr>);

impl Gateway {
    /// Looks where this process runs.
    #[must_use]
    pub fn find() -> Self {
        Self::find_under(Path::new("/"))
    }

    fn find_under(root: &Path) -> Self {
        if !MARKS.iter().any(|mark| root.join(mark).exists()) {
            return Self(None);
        }
        let routes = std::fs::read_to_string(root.join("proc/net/route")).unwrap_or_default();
        let gateway = routes.lines().find_map(|line| {
            let interface = root.join("sys/class/net").join(line.split_whitespace().next()?);
            let number = |file| std::fs::read_to_string(interface.join(file)).ok();
            // The other end of a container's own interface is outside; on the host's network the
            // gateway is a router, and a client like others.
            (number("iflink") != number("ifindex")).then(|| default_gateway(line))?
        });
        Self(gateway.map(IpAddr::V4))
    }

    /// The address, in a container.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.0
    }

    /// Counts a client, one of each batch: enough to tell, and next to nothing to do.
    pub fn sight(&self, client: IpAddr, counters: &Counters) {
        if let Some(gateway) = self.0 {
            let client = client.to_canonical();
            if client == gateway {
                counters.inc(Counter::SightedGateway);
            } else if !client.is_loopback() {
                counters.inc(Counter::SightedOther);
            }
        }
    }
}

/// Whether all clients so far came from the gateway.
#[must_use]
pub fn are_indistinct(board: &Board) -> bool {
    board.sum(Counter::SightedGateway) >= ENOUGH && board.sum(Counter::SightedOther) == 0
}

/// The gateway of a line of `/proc/net/route` that is the default route.
fn default_gateway(line: &str) -> Option<Ipv4Addr> {
    /// RTF_GATEWAY of `linux/route.h`.
    const GATEWAY: u32 = 2;
    let mut fields = line.split_whitespace().skip(1);
    let (destination, gateway, flags) = (fields.next()?, fields.next()?, fields.next()?);
    let number = |hex| u32::from_str_radix(hex, 16).ok();
    (number(destination)? == 0 && number(flags)? & GATEWAY != 0)
        .then(|| Some(Ipv4Addr::from(number(gateway)?.to_ne_bytes())))?
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTES: &str = "Iface\tDestination\tGateway\tFlags\tRefCnt\n\
        eth0\t000011AC\t00000000\t0001\t0\n\
        eth0\t00000000\t010011AC\t0003\t0\n";

    fn inside() -> Gateway {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("proc/net")).unwrap();
        std::fs::write(root.path().join("proc/net/route"), ROUTES).unwrap();
        assert_eq!(Gateway::find_under(root.path()), Gateway(None), "not a container");
        std::fs::write(root.path().join(".dockerenv"), "").unwrap();
        let interface = root.path().join("sys/class/net/eth0");
        std::fs::create_dir_all(&interface).unwrap();
        std::fs::write(interface.join("ifindex"), "2\n").unwrap();
        std::fs::write(interface.join("iflink"), "2\n").unwrap();
        assert_eq!(Gateway::find_under(root.path()), Gateway(None), "the host's network");
        std::fs::write(interface.join("iflink"), "7\n").unwrap();
        Gateway::find_under(root.path())
    }

    #[test]
    fn the_gateway_of_a_container_is_found() {
        assert_eq!(inside().address(), Some("172.17.0.1".parse().unwrap()));
    }

    #[test]
    fn clients_are_indistinct_until_another_is_seen() {
        let (gateway, board) = (inside(), Board::new(1));
        let counters = &board.workers()[0];
        for _ in 0..ENOUGH {
            gateway.sight("127.0.0.1".parse().unwrap(), counters);
            assert!(!are_indistinct(&board));
            gateway.sight("::ffff:172.17.0.1".parse().unwrap(), counters);
        }
        assert!(are_indistinct(&board));
        gateway.sight("172.17.0.9".parse().unwrap(), counters);
        assert!(!are_indistinct(&board));
    }
}
