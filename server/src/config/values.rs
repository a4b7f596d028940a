//! Values as operators write them. Each parser's error says what is expected, with the range.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use ipnet::IpNet;

use crate::policy::Identity;

/// Who is served unless told otherwise: loopback, private and link-local addresses, ULA.
pub(super) const PRIVATE_NETWORKS: &str =
    "127.0.0.0/8,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,169.254.0.0/16,::1/128,fc00::/7,fe80::/10";

/// A receive queue's number at most; no network card has as many.
const MAX_QUEUE: u32 = 4095;

/// Bytes of an interface's name at most (IFNAMSIZ, without the zero at its end).
const MAX_INTERFACE_LEN: usize = 15;

/// The port of DNS.
const DNS_PORT: u16 = 53;

/// Where the control thread's HTTP listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Http {
    /// Nowhere.
    Off,
    /// On this address.
    On(SocketAddr),
}

/// A whole number within bounds.
pub(super) fn number<T>(
    range: RangeInclusive<T>,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static
where
    T: FromStr + PartialOrd + Display + Clone + Send + Sync + 'static,
{
    move |text| match text.trim().parse() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(format!("a whole number from {} to {} is expected", range.start(), range.end())),
    }
}

/// A number of bytes within bounds, with an optional suffix K, M or G (powers of 1,024).
pub(super) fn bytes_of(
    range: RangeInclusive<u64>,
) -> impl Fn(&str) -> Result<u64, String> + Clone + Send + Sync + 'static {
    move |text| match bytes(text.trim()) {
        Some(number) if range.contains(&number) => Ok(number),
        _ => Err(format!(
            "bytes from {} to {} are expected, such as 64M (suffixes K, M, G)",
            format_bytes(*range.start()),
            format_bytes(*range.end()),
        )),
    }
}

fn bytes(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let shift = match suffix.trim().to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Bytes in the largest unit that leaves no fraction, as operators write them.
#[must_use]
pub fn format_bytes(bytes: u64) -> String {
    for (suffix, shift) in [("G", 30), ("M", 20), ("K", 10)] {
        if bytes >= 1 << shift && bytes.is_multiple_of(1 << shift) {
            return format!("{}{suffix}", bytes >> shift);
        }
    }
    bytes.to_string()
}

pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err("true or false is expected".into()),
    }
}

pub(super) fn socket_address(text: &str) -> Result<SocketAddr, String> {
    let address: Option<SocketAddr> = text.trim().parse().ok().or_else(|| scoped(text.trim()));
    match address {
        Some(address) if address.port() != 0 => Ok(address),
        _ => Err("address:port is expected, such as 127.0.0.1:53 or [::1]:53".into()),
    }
}

/// `address`, `address:port` or `[address]:port`.
pub(super) fn upstream_address(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    if let Ok(ip) = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        return usable(SocketAddr::new(ip, DNS_PORT));
    }
    if let Some(address) = scoped(&format!("[{text}]:{DNS_PORT}")) {
        return usable(address);
    }
    match text.parse().ok().or_else(|| scoped(text)) {
        Some(address) => usable(address),
        None => Err(UPSTREAM_EXPECTED.into()),
    }
}

const UPSTREAM_EXPECTED: &str = "address[:port] of a resolver is expected, such as 192.0.2.1, 192.0.2.1:5353 or [2001:db8::1]:53";

fn usable(address: SocketAddr) -> Result<SocketAddr, String> {
    match address.ip().is_unspecified() || address.ip().is_multicast() || address.port() == 0 {
        true => Err(UPSTREAM_EXPECTED.into()),
        false => Ok(address),
    }
}

/// `[fe80::1%eth0]:53`: a link-local address with the name of its interface.
fn scoped(text: &str) -> Option<SocketAddr> {
    let (address, rest) = text.strip_prefix('[')?.split_once('%')?;
    let (zone, port) = rest.split_once("]:")?;
    let scope = zone.parse().ok().or_else(|| interface_index(zone))?;
    let ip = address.parse().ok()?;
    Some(SocketAddr::V6(std::net::SocketAddrV6::new(ip, port.parse().ok()?, 0, scope)))
}

fn interface_index(name: &str) -> Option<u32> {
    // A name is one path component, so that nothing else can be read through it.
    let name = std::path::Path::new(name).file_name().filter(|file| *file == name)?;
    let path = std::path::Path::new("/sys/class/net").join(name).join("ifindex");
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

pub(super) fn network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    let single = |ip: IpAddr| IpNet::from(ip);
    text.parse().or_else(|_| text.parse().map(single)).map_err(|_| {
        "a network or an address is expected, such as 192.0.2.0/24 or 2001:db8::1".into()
    })
}

pub(super) fn http_address(text: &str) -> Result<Http, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "off" | "none" => Ok(Http::Off),
        text => socket_address(text)
            .map(Http::On)
            .map_err(|_| "address:port is expected, such as 127.0.0.1:8053, or off".into()),
    }
}

pub(super) fn interface(text: &str) -> Result<String, String> {
    let name = text.trim();
    let is_name = |c: char| !c.is_whitespace() && !c.is_control() && c != '/';
    match name.len() {
        1..=MAX_INTERFACE_LEN if name.chars().all(is_name) => Ok(name.into()),
        _ => Err("the name of a network interface is expected, such as eth0".into()),
    }
}

/// The number of a receive queue, or a range of them: `5`, `0-3`.
pub(super) fn queues(text: &str) -> Result<RangeInclusive<u32>, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.trim().parse(), last.trim().parse()) {
        (Ok(first), Ok(last)) if first <= last && last <= MAX_QUEUE => Ok(first..=last),
        _ => Err(format!(
            "numbers of receive queues from 0 to {MAX_QUEUE} are expected, such as 0-3,5"
        )),
    }
}

pub(super) fn identity(text: &str) -> Result<String, String> {
    match text.len() {
        1..=Identity::MAX_NAME_LEN => Ok(text.into()),
        _ => Err(format!("1 to {} bytes are expected, or off", Identity::MAX_NAME_LEN)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_take_suffixes_and_come_back_as_written() {
        for (text, number) in [("4096", 4096), ("4k", 4096), ("64M", 64 << 20), ("1GiB", 1 << 30)] {
            assert_eq!(bytes(text), Some(number), "{text}");
        }
        for text in ["", "M", "1T", "1.5G", "-1", "99999999999999G"] {
            assert_eq!(bytes(text), None, "{text}");
        }
        assert_eq!(format_bytes(1 << 30), "1G");
        assert_eq!(format_bytes(1500), "1500");
    }

    #[test]
    fn upstreams_need_no_port() {
        for (text, address) in [
            ("192.0.2.1", "192.0.2.1:53"),
            ("192.0.2.1:5353", "192.0.2.1:5353"),
            ("2001:db8::1", "[2001:db8::1]:53"),
            ("[2001:db8::1]", "[2001:db8::1]:53"),
            ("[2001:db8::1]:5353", "[2001:db8::1]:5353"),
        ] {
            assert_eq!(upstream_address(text), Ok(address.parse().unwrap()), "{text}");
        }
        for text in ["", "dns.example", "192.0.2.1:0", "0.0.0.0", "192.0.2.1:70000", "224.0.0.1"] {
            assert!(upstream_address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_scope_may_be_a_number_or_an_interface() {
        for text in ["[fe80::1%1]:53", "[fe80::1%lo]:53"] {
            let address = socket_address(text).unwrap();
            assert!(matches!(address, SocketAddr::V6(v6) if v6.scope_id() == 1), "{text}");
        }
        assert_eq!(upstream_address("fe80::1%lo"), socket_address("[fe80::1%1]:53"));
        assert!(socket_address("[fe80::1%nonesuch]:53").is_err());
    }

    #[test]
    fn interfaces_and_queues_are_read_as_operators_write_them() {
        for (text, expected) in [("0", 0..=0), ("0-3", 0..=3), (" 2 - 2 ", 2..=2)] {
            assert_eq!(queues(text), Ok(expected), "{text}");
        }
        for text in ["", "a", "-1", "3-1", "1-", "0-4096", "0-4294967296", "0..3"] {
            assert!(queues(text).unwrap_err().contains("from 0 to 4095"), "{text}");
        }
        for text in ["eth0", "enp1s0f0np0", "br-lan", "eth0.100"] {
            assert_eq!(interface(text).as_deref(), Ok(text));
        }
        for text in ["", "a/b", "eth 0", "a-name-too-long-for-linux"] {
            assert!(interface(text).is_err(), "{text}");
        }
    }

    #[test]
    fn bounds_are_named_in_the_error() {
        let error = number::<u32>(1..=7)("8").unwrap_err();
        assert_eq!(error, "a whole number from 1 to 7 is expected");
        assert!(bytes_of(1 << 20..=1 << 30)("5").unwrap_err().contains("1M to 1G"));
    }
}
