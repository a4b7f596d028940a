//! `SWIFTLET_FORWARD_ZONES`: names whose questions go to resolvers of their own, and what is refused of it
//! at start. A zone that is not forwarded as its operator meant leaks internal names or answers them wrong,
//! so nothing here is left out silently.
//!
//! Bounds: [`MAX_ZONES`] zones, [`MAX_SERVERS`] servers of one.

use std::collections::HashSet;
use std::net::SocketAddr;

use swiftlet_parser::name::Name;

use super::ConfigError;
use super::values::upstream_address;
use crate::policy::special_use::ALWAYS_OURS;

/// Zones that may be forwarded.
pub(super) const MAX_ZONES: usize = 1024;

/// Servers that one zone may have.
pub(super) const MAX_SERVERS: usize = 16;

/// A name and the servers that are asked for it and everything below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardZone {
    /// The zone's name.
    pub name: Name,
    /// Its servers in order of preference.
    pub servers: Vec<SocketAddr>,
}

const EXPECTED: &str = "zone=address[:port], more addresses behind +, more zones behind ; are expected, \
     such as corp.example=10.0.0.1+10.0.0.2:5353;10.in-addr.arpa=10.0.0.1";

/// One zone as operators write it: `corp.example=10.0.0.1+10.0.0.2:5353`.
pub(super) fn forward_zone(text: &str) -> Result<ForwardZone, String> {
    let refused = |why: &str| Err(format!("{why}; {EXPECTED}"));
    let Some((name, servers)) = text.split_once('=') else {
        return refused("there is no =");
    };
    let name = match Name::from_text(name.trim()) {
        Ok(name) => name,
        Err(error) => return refused(&error.to_string()),
    };
    if name.is_root() {
        return Err(
            "the root is no zone of its own; set SWIFTLET_FORWARD for all other names".into()
        );
    }
    let is_below =
        |ours: &&str| Name::from_text(ours).is_ok_and(|at| name.is_at_or_below(at.as_wire()));
    if let Some(ours) = ALWAYS_OURS.into_iter().find(is_below) {
        return Err(format!(
            "{ours} and what is below is always answered here (RFC 6761, RFC 7686); \
             a zone outside of {} is expected",
            ALWAYS_OURS.join(", ")
        ));
    }
    if servers.trim().is_empty() {
        return refused("the zone has no servers");
    }
    let servers: Vec<_> = servers.split('+').collect();
    if servers.len() > MAX_SERVERS {
        return Err(format!("{} servers; at most {MAX_SERVERS} are expected", servers.len()));
    }
    let address = |text: &&str| {
        upstream_address(text).map_err(|expected| format!("'{}': {expected}", text.trim()))
    };
    Ok(ForwardZone { name, servers: servers.iter().map(address).collect::<Result<_, _>>()? })
}

/// Checks the zones against each other and against the server's own addresses, of which
/// `is_own` knows.
pub(super) fn check(
    zones: &[ForwardZone],
    is_own: impl Fn(SocketAddr) -> bool,
) -> Result<(), ConfigError> {
    if zones.len() > MAX_ZONES {
        return Err(ConfigError::TooManyZones { given: zones.len() });
    }
    let mut names = HashSet::new();
    for ForwardZone { name, servers } in zones {
        let zone = || name.to_string();
        if !names.insert(*name) {
            return Err(ConfigError::ZoneRepeated { zone: zone() });
        }
        let mut seen = HashSet::new();
        for &address in servers {
            if !seen.insert((address.ip().to_canonical(), address.port())) {
                return Err(ConfigError::ZoneServerRepeated { zone: zone(), address });
            }
            if is_own(address) {
                return Err(ConfigError::ZoneSelf { zone: zone(), address });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn zone(name: &str, servers: &[&str]) -> ForwardZone {
        let servers = servers.iter().map(|text| text.parse().unwrap()).collect();
        ForwardZone { name: Name::from_text(name).unwrap(), servers }
    }

    #[test]
    fn a_zone_is_read_with_its_servers() {
        for (text, name, servers) in [
            ("corp.example=10.0.0.1", "corp.example.", &["10.0.0.1:53"][..]),
            (
                " Corp.Example. = 10.0.0.1 + 10.0.0.2:5353 ",
                "corp.example",
                &["10.0.0.1:53", "10.0.0.2:5353"],
            ),
            (
                "v6.example=::1+[::2]:5353+[2001:db8::3]",
                "v6.example",
                &["[::1]:53", "[::2]:5353", "[2001:db8::3]:53"],
            ),
            ("10.in-addr.arpa=[fe80::1%1]:53", "10.in-addr.arpa", &["[fe80::1%1]:53"]),
            ("arpa=10.0.0.1", "arpa", &["10.0.0.1:53"]),
            (r"od\.d.example=10.0.0.1", r"od\.d.example", &["10.0.0.1:53"]),
        ] {
            assert_eq!(forward_zone(text), Ok(zone(name, servers)), "{text}");
        }
    }

    #[test]
    fn what_is_refused_says_why_and_what_is_expected() {
        let crowd = format!("corp.example={}", vec!["10.0.0.1"; MAX_SERVERS + 1].join("+"));
        for (text, why) in [
            ("", "there is no ="),
            ("corp.example", "there is no ="),
            ("=10.0.0.1", "the name is empty"),
            ("corp..example=10.0.0.1", "empty label"),
            ("corp.example=", "no servers"),
            ("corp.example=10.0.0.1+", "''"),
            ("corp.example=dns.example", "'dns.example'"),
            ("corp.example=10.0.0.1,10.0.0.2", "'10.0.0.1,10.0.0.2'"),
            ("corp.example=0.0.0.0", "'0.0.0.0'"),
            (".=10.0.0.1", "SWIFTLET_FORWARD"),
            ("localhost=10.0.0.1", "localhost and what is below"),
            ("a.b.Invalid.=10.0.0.1", "invalid and what is below"),
            ("x.onion=10.0.0.1", "onion and what is below"),
            (&crowd, "17 servers; at most 16"),
        ] {
            let error = forward_zone(text).unwrap_err();
            assert!(error.contains(why), "{text}: '{why}' is not in: {error}");
            assert!(error.contains("expected") || why.contains("FORWARD"), "{text}: {error}");
        }
    }

    proptest! {
        /// Whatever is written there, it is read or refused with a reason.
        #[test]
        fn anything_is_read_or_refused(text in r"[ a-z0-9.=+;:%\\\[\]]{0,40}", any in ".{0,40}") {
            for text in [text, any] {
                match forward_zone(&text) {
                    Ok(zone) => prop_assert!(!zone.servers.is_empty() && !zone.name.is_root()),
                    Err(why) => prop_assert!(!why.is_empty()),
                }
            }
        }
    }

    #[test]
    fn zones_are_checked_against_each_other_and_against_ourselves() {
        let own: SocketAddr = "127.0.0.1:53".parse().unwrap();
        let check = |zones: &[ForwardZone]| check(zones, |address| address == own);
        assert!(
            check(&[zone("a.example", &["10.0.0.1:53"]), zone("example", &["10.0.0.1:53"])])
                .is_ok()
        );
        let twice = [zone("a.example", &["10.0.0.1:53"]), zone("A.EXAMPLE", &["10.0.0.2:53"])];
        assert!(matches!(check(&twice), Err(ConfigError::ZoneRepeated { .. })));
        for again in ["10.0.0.1:53", "[::ffff:10.0.0.1]:53"] {
            let twice = [zone("a.example", &["10.0.0.1:53", again])];
            assert!(
                matches!(check(&twice), Err(ConfigError::ZoneServerRepeated { .. })),
                "{again}"
            );
        }
        let ports = [zone("a.example", &["10.0.0.1:53", "10.0.0.1:5353"])];
        assert!(check(&ports).is_ok());
        let itself = [zone("a.example", &["10.0.0.1:53", "127.0.0.1:53"])];
        assert!(matches!(check(&itself), Err(ConfigError::ZoneSelf { .. })));
        let many: Vec<_> =
            (0..=MAX_ZONES).map(|n| zone(&format!("z{n}"), &["10.0.0.1:53"])).collect();
        assert!(matches!(check(&many), Err(ConfigError::TooManyZones { given: 1025 })));
        assert!(check(&many[1..]).is_ok());
    }
}
