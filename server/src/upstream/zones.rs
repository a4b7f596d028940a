//! Which servers a question may go to: those of the longest forward zone that its name is at or below, or,
//! if there is none, those of `SWIFTLET_FORWARD`.
//!
//! Invariant: a server named by several zones is one server, so what is known of it is known once; routes
//! hold its index. Questions for DS at a zone's name go where its parent does, for the records that
//! delegate a zone are its parent's (RFC 4035 §3.1.4.1).
//!
//! Cost of a question without any zone: a comparison. Else one probe for each of its name's suffixes that
//! is no longer than the longest zone. Nothing is allocated unless an upstream was found to loop.
//!
//! Bounds: [`crate::config`] has those of zones and servers.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use swiftlet_parser::key::Key;
use swiftlet_parser::name::fold::fold;
use swiftlet_parser::name::{Name, suffixes};
use swiftlet_parser::rr::Type;

use super::loops::Probe;

/// The way from a question's name to its servers; one for all workers.
#[derive(Debug)]
pub struct Routes {
    /// Every server, each once; the indexes of all routes count in here.
    addresses: Vec<SocketAddr>,
    /// The first is for names in no zone.
    routes: Vec<Route>,
    /// Index of a route by its zone's name, wire format in lower case.
    by_name: HashMap<Box<[u8]>, usize>,
    /// Bytes of the longest zone's name: no longer suffix is worth a probe.
    longest: usize,
    /// What came of the looks for loops.
    pub(super) probe: Probe,
}

/// Where the questions of one zone go.
#[derive(Debug)]
pub(super) struct Route {
    /// The root for names in no zone.
    pub(super) zone: Name,
    servers: Vec<usize>,
    /// Which of them forward back to this server; they are left out.
    looping: Vec<AtomicBool>,
    /// How many of them do.
    loops: AtomicUsize,
}

impl Routes {
    /// Routes to `forward` for all names but those at or below the zones. Every name must be in `zones`
    /// once.
    pub fn new<'z>(
        forward: &[SocketAddr],
        zones: impl IntoIterator<Item = (Name, &'z [SocketAddr])>,
    ) -> Self {
        let (mut addresses, mut known) = (Vec::new(), HashMap::new());
        let mut route = |zone, servers: &[SocketAddr]| {
            let index_of = |&address: &SocketAddr| {
                *known.entry(address).or_insert_with(|| {
                    addresses.push(address);
                    addresses.len() - 1
                })
            };
            Route::new(zone, servers.iter().map(index_of).collect())
        };
        let mut routes = vec![route(Name::ROOT, forward)];
        let mut by_name = HashMap::new();
        for (zone, servers) in zones {
            let mut name: Box<[u8]> = zone.as_wire().into();
            fold(zone.as_wire(), &mut name);
            by_name.insert(name, routes.len());
            routes.push(route(zone, servers));
        }
        let longest = by_name.keys().map(|name| name.len()).max().unwrap_or(0);
        Self { addresses, routes, by_name, longest, probe: Probe::default() }
    }

    /// Every server once, in the order of the indexes.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Indexes of the servers that may be asked, in order of preference; none if all of them forward back
    /// to this server.
    pub(super) fn candidates(&self, key: &Key<'_>) -> Cow<'_, [usize]> {
        self.routes[self.find(key.qname(), key.qtype())].candidates()
    }

    /// Whether the question is one for the parent of a zone that has servers of its own: their answers
    /// must not be mixed up, and NXDOMAIN from one says nothing about the other.
    pub(super) fn is_of_a_parent(&self, key: &Key<'_>) -> bool {
        key.qtype() == Type::DS && self.by_name.contains_key(key.qname())
    }

    /// The servers that forward back to this server, with the zone for whose names they do; its name is
    /// the root for those of `SWIFTLET_FORWARD`.
    pub fn looping(&self) -> impl Iterator<Item = (&Name, SocketAddr)> {
        self.routes.iter().flat_map(|route| {
            let pairs = route.servers.iter().zip(&route.looping);
            let looping = pairs.filter(|(_, looping)| looping.load(Relaxed));
            looping.map(|(&server, _)| (&route.zone, self.addresses[server]))
        })
    }

    /// The route for a folded name.
    fn find(&self, qname: &[u8], qtype: Type) -> usize {
        if self.by_name.is_empty() {
            return 0;
        }
        let skip = usize::from(qtype == Type::DS);
        suffixes(qname)
            .skip(skip)
            .filter(|suffix| suffix.len() <= self.longest)
            .find_map(|suffix| self.by_name.get(suffix).copied())
            .unwrap_or(0)
    }

    pub(super) fn routes(&self) -> &[Route] {
        &self.routes
    }
}

impl Route {
    fn new(zone: Name, servers: Vec<usize>) -> Self {
        let looping = servers.iter().map(|_| AtomicBool::new(false)).collect();
        Self { zone, servers, looping, loops: AtomicUsize::new(0) }
    }

    pub(super) fn servers(&self) -> &[usize] {
        &self.servers
    }

    /// Notes whether the server at this place of [`servers`](Self::servers) forwards back to this
    /// server; returns whether that is news.
    pub(super) fn set_looping(&self, place: usize, loops: bool) -> bool {
        let news = self.looping[place].swap(loops, Relaxed) != loops;
        match (news, loops) {
            (true, true) => drop(self.loops.fetch_add(1, Relaxed)),
            (true, false) => drop(self.loops.fetch_sub(1, Relaxed)),
            (false, _) => {}
        }
        news
    }

    fn candidates(&self) -> Cow<'_, [usize]> {
        if self.loops.load(Relaxed) == 0 {
            return Cow::Borrowed(&self.servers);
        }
        let pairs = self.servers.iter().zip(&self.looping);
        pairs.filter(|(_, looping)| !looping.load(Relaxed)).map(|(&server, _)| server).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use swiftlet_parser::key::{KeyBuf, Seed, Variant};
    use swiftlet_parser::rr::Class;

    use super::*;

    fn address(number: usize) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, number as u8], 53))
    }

    /// Routes to server 0, and for each zone to the servers with these numbers.
    fn routes(zones: &[(&str, &[usize])]) -> Routes {
        let zones: Vec<(Name, Vec<SocketAddr>)> = zones
            .iter()
            .map(|(zone, servers)| {
                let servers = servers.iter().map(|&number| address(number)).collect();
                (Name::from_text(zone).unwrap(), servers)
            })
            .collect();
        Routes::new(&[address(0)], zones.iter().map(|(zone, servers)| (*zone, servers.as_slice())))
    }

    fn with_key<T>(name: &str, qtype: Type, f: impl FnOnce(&Key<'_>) -> T) -> T {
        let (name, mut keys) = (Name::from_text(name).unwrap(), KeyBuf::default());
        let variant = Variant::new(false, false, 0);
        f(&keys.build(&Seed::new(1), name.as_wire(), qtype, Class::IN, variant))
    }

    /// The numbers of the servers that a question goes to.
    fn asked(routes: &Routes, name: &str, qtype: Type) -> Vec<u8> {
        let number = |&server: &usize| match routes.addresses()[server] {
            SocketAddr::V4(v4) => v4.ip().octets()[3],
            SocketAddr::V6(_) => unreachable!(),
        };
        with_key(name, qtype, |key| routes.candidates(key).iter().map(number).collect())
    }

    #[test]
    fn the_longest_suffix_wins_and_labels_are_whole() {
        let routes =
            routes(&[("example", &[1]), ("Corp.Example", &[2, 3]), ("10.in-addr.arpa", &[2])]);
        for (name, servers) in [
            (".", &[0][..]),
            ("com", &[0]),
            ("example", &[1]),
            ("www.EXAMPLE", &[1]),
            ("corp.example", &[2, 3]),
            ("a.b.corp.example", &[2, 3]),
            ("notcorp.example", &[1]),
            ("corp.example.com", &[0]),
            ("1.0.0.10.in-addr.arpa", &[2]),
            ("110.in-addr.arpa", &[0]),
        ] {
            assert_eq!(asked(&routes, name, Type::A), servers, "{name}");
        }
    }

    #[test]
    fn ds_at_a_zones_name_is_its_parents() {
        let routes = routes(&[("example", &[1]), ("corp.example", &[2]), ("a.b.test", &[3])]);
        for (name, servers) in [
            ("example", &[0][..]),
            ("corp.example", &[1]),
            ("www.corp.example", &[2]),
            ("a.b.test", &[0]),
            ("x.a.b.test", &[3]),
            (".", &[0]),
        ] {
            assert_eq!(asked(&routes, name, Type::DS), servers, "{name}");
        }
        let of_a_parent = |name, qtype| with_key(name, qtype, |key| routes.is_of_a_parent(key));
        assert!(of_a_parent("corp.example", Type::DS));
        assert!(!of_a_parent("corp.example", Type::A));
        assert!(!of_a_parent("www.corp.example", Type::DS));
    }

    #[test]
    fn a_server_of_several_zones_is_one() {
        let routes = routes(&[("a", &[1, 0]), ("b", &[2, 1])]);
        assert_eq!(routes.addresses(), [address(0), address(1), address(2)]);
        assert_eq!(asked(&routes, "x.b", Type::A), [2, 1]);
    }

    #[test]
    fn one_that_loops_is_left_out_of_that_zone_alone() {
        let routes = routes(&[("a", &[0, 1])]);
        let [all, a] = routes.routes() else { panic!("two routes") };
        assert!(a.set_looping(0, true));
        assert!(!a.set_looping(0, true), "no news");
        assert_eq!(asked(&routes, "x.a", Type::A), [1]);
        assert_eq!(asked(&routes, "x.b", Type::A), [0]);
        assert!(a.set_looping(1, true));
        assert_eq!(asked(&routes, "x.a", Type::A), [0; 0]);
        let zone = Name::from_text("a").unwrap();
        assert_eq!(
            routes.looping().collect::<Vec<_>>(),
            [(&zone, address(0)), (&zone, address(1))]
        );
        assert!(a.set_looping(0, false) && a.set_looping(1, false));
        assert!(!all.set_looping(0, false));
        assert_eq!(asked(&routes, "x.a", Type::A), [0, 1]);
        assert_eq!(routes.looping().count(), 0);
    }

    fn name() -> impl Strategy<Value = String> {
        proptest::collection::vec("[abAB]|aa|ab", 1..6).prop_map(|labels| labels.join("."))
    }

    proptest! {
        /// Against the naive model: the longest zone that the name, as text, ends with behind a dot.
        #[test]
        fn routes_are_those_of_the_model(
            zones in proptest::collection::hash_set(name().prop_map(|n| n.to_lowercase()), 0..12),
            names in proptest::collection::vec(name(), 1..20),
            ds in any::<bool>(),
        ) {
            let zones: Vec<String> = zones.into_iter().collect();
            let numbers: Vec<[usize; 1]> = (1..=zones.len()).map(|number| [number]).collect();
            let table: Vec<(&str, &[usize])> =
                zones.iter().zip(&numbers).map(|(zone, number)| (&**zone, &number[..])).collect();
            let routes = routes(&table);
            for name in names.iter().chain(&zones) {
                let text = name.to_lowercase();
                let covers = |zone: &&String| {
                    text.ends_with(&format!(".{zone}")) || (text == **zone && !ds)
                };
                let longest = zones.iter().filter(covers).max_by_key(|zone| zone.len());
                let number = longest.map_or(0, |longest| {
                    1 + zones.iter().position(|zone| zone == longest).unwrap()
                });
                let qtype = if ds { Type::DS } else { Type::A };
                prop_assert_eq!(asked(&routes, name, qtype), [number as u8], "{}", name);
            }
        }
    }
}
