//! Which process holds an address: for the message when a second one wants it.
//!
//! The kernel lists sockets with their inode in `/proc/net`, and each process's open files name the
//! inodes of its sockets. Files of other users' processes can only be read by root, so the answer may
//! stay unknown.

use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

/// A process, as far as it could be found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its number.
    pub pid: u32,
    /// Its program's name, cut to 15 bytes by the kernel.
    pub name: String,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({})", self.pid, self.name)
    }
}

/// The process with a UDP socket or a listening TCP socket on that address, or on one that keeps others
/// from it.
pub fn owner(address: SocketAddr) -> Option<Owner> {
    owner_under(Path::new("/proc"), address)
}

fn owner_under(proc: &Path, address: SocketAddr) -> Option<Owner> {
    let lists = if address.is_ipv4() { ["udp", "tcp"] } else { ["udp6", "tcp6"] };
    let inodes: Vec<u64> = lists
        .iter()
        .filter_map(|list| fs::read_to_string(proc.join("net").join(list)).ok())
        .flat_map(|list| list.lines().filter_map(|line| held(line, address)).collect::<Vec<_>>())
        .collect();
    let processes = fs::read_dir(proc).ok()?.flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find_map(|pid: u32| {
        let process = proc.join(pid.to_string());
        let mut files = fs::read_dir(process.join("fd")).ok()?.flatten();
        files.find(|file| {
            let target = fs::read_link(file.path()).unwrap_or_default();
            let inode = target
                .to_str()
                .and_then(|name| name.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            inode.is_some_and(|inode| inodes.contains(&inode))
        })?;
        let name = fs::read_to_string(process.join("comm")).ok()?;
        Some(Owner { pid, name: name.trim().to_owned() })
    })
}

/// The inode of a line's socket, if that stands in the way of the address.
fn held(line: &str, address: SocketAddr) -> Option<u64> {
    /// TCP_CLOSE, which unconnected UDP sockets show, and TCP_LISTEN.
    const STATES: [&str; 2] = ["07", "0A"];
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
    let (ip, port) = local.split_once(':')?;
    if u16::from_str_radix(port, 16).ok()? != address.port() || !STATES.contains(state) {
        return None;
    }
    let ip = parse_ip(ip)?;
    let collide = ip == address.ip() || ip.is_unspecified() || address.ip().is_unspecified();
    collide.then(|| inode.parse().ok())?
}

/// Addresses stand as 32-bit words in the machine's byte order.
fn parse_ip(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let digits = hex.get(at * 8..at * 8 + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            Some(Ipv6Addr::from(<[u8; 16]>::try_from(words.concat()).ok()?).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn this_process_is_found_by_each_of_its_sockets() {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let six = UdpSocket::bind("[::1]:0");
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut addresses = vec![udp.local_addr().unwrap(), tcp.local_addr().unwrap()];
        addresses.extend(six.as_ref().ok().map(|six| six.local_addr().unwrap()));
        for address in addresses {
            let found = owner(address).unwrap();
            assert_eq!(found.pid, std::process::id(), "{address}");
            let wildcard = match address.ip() {
                IpAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
                IpAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
            };
            let found = owner(SocketAddr::new(wildcard, address.port())).unwrap();
            assert_eq!(found.pid, std::process::id(), "{address} as wildcard");
        }
    }

    #[test]
    fn another_address_or_port_is_not_held() {
        let line =
            "  5: 0100007F:14B4 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 77 2";
        assert_eq!(held(line, "127.0.0.1:5300".parse().unwrap()), Some(77));
        assert_eq!(held(line, "127.0.0.2:5300".parse().unwrap()), None);
        assert_eq!(held(line, "127.0.0.1:5301".parse().unwrap()), None);
        assert_eq!(held("  sl  local_address rem_address", "127.0.0.1:1".parse().unwrap()), None);
    }
}
