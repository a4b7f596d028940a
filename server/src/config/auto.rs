//! The configuration that the server runs with: automatic values filled in, each with its reason.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;

use swiftlet_net::{cores, memory};

use super::values::{format_bytes, upstream_address};
use super::{ConfigError, Given, MIB, Settings};

/// The cache's share of the memory limit, and its ceiling when it is automatic.
const CACHE_SHARE: u64 = 4;
const CACHE_AUTO_MAX: u64 = 1024 * MIB;
const CACHE_AUTO_MIN: u64 = MIB;

/// What the server runs with. What is not here is taken from [`Settings`] as it was given.
#[derive(Clone, Debug)]
pub struct Config {
    /// The settings as given.
    pub settings: Settings,
    /// Addresses to listen on; an address of the default that this host lacks is left out.
    pub listen: Vec<SocketAddr>,
    /// Upstreams, without the server's own addresses.
    pub upstreams: Vec<SocketAddr>,
    /// Worker threads.
    pub workers: usize,
    /// Cores to pin them to, as many as there are; empty when nothing is pinned.
    pub cores: Vec<usize>,
    /// Bytes of the answer cache.
    pub cache_size: u64,
    /// This instance's name, unless it keeps it to itself.
    pub identity: Option<String>,
    /// Every setting in the order of `--help`, as the server uses it.
    pub effective: Vec<Source>,
    /// What the operator should know about how the values came about.
    pub notes: Vec<String>,
}

/// One line of `swiftlet config`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Environment variable.
    pub variable: String,
    /// Effective value.
    pub value: String,
    /// Where it comes from, or why it is what it is.
    pub why: String,
}

pub(super) fn resolve(
    settings: &Settings,
    given: &[Given],
    resolv_conf: &Path,
) -> Result<Config, ConfigError> {
    let mut notes = Vec::new();
    let mut automatic: Vec<(&str, String, String)> = Vec::new();
    let listen_is_default =
        given.iter().any(|given| given.variable == "SWIFTLET_LISTEN" && given.source == "default");
    let listen = listen(settings, listen_is_default, &mut notes)?;

    let (asked, why) = match &settings.forward {
        Some(addresses) => (addresses.clone(), None),
        None => (
            system_resolvers(resolv_conf)?,
            Some(format!("nameservers of {}", resolv_conf.display())),
        ),
    };
    let upstreams = without_self(asked, &listen, &mut notes)?;
    if let Some(why) = why {
        automatic.push(("SWIFTLET_FORWARD", join(&upstreams), why));
    }

    let usable = cores::usable();
    let workers = settings.workers.unwrap_or(usable.ids.len());
    if settings.workers.is_none() {
        automatic.push(("SWIFTLET_WORKERS", workers.to_string(), usable.why.clone()));
    }
    let cores = match settings.pin && usable.pin && workers <= usable.ids.len() {
        true => usable.ids[..workers].to_vec(),
        false => Vec::new(),
    };
    if settings.pin && cores.is_empty() {
        notes.push(match usable.pin {
            true => format!("{workers} workers are more than the cores, so none is pinned"),
            false => "a CPU quota names no cores, so no worker is pinned".into(),
        });
    }

    let (memory_limit, memory_source) = memory::limit();
    let cache_size = settings.cache_size.unwrap_or_else(|| {
        (memory_limit / CACHE_SHARE).clamp(CACHE_AUTO_MIN, CACHE_AUTO_MAX) / MIB * MIB
    });
    if settings.cache_size.is_none() {
        let why = format!(
            "a quarter of the memory limit of {} ({}), at most {}",
            format_bytes(memory_limit / MIB * MIB),
            memory_source,
            format_bytes(CACHE_AUTO_MAX)
        );
        automatic.push(("SWIFTLET_CACHE_SIZE", format_bytes(cache_size), why));
    }

    let identity = match settings.identity.as_deref() {
        Some("off") => None,
        Some(name) => Some(name.to_owned()),
        None => host_name(),
    };
    if settings.identity.is_none() {
        let value = identity.clone().unwrap_or_else(|| "off".into());
        automatic.push(("SWIFTLET_IDENTITY", value, "the host's name".into()));
    }

    let effective = given.iter().map(|given| effective(given, &automatic)).collect();
    Ok(Config {
        settings: settings.clone(),
        listen,
        upstreams,
        workers,
        cores,
        cache_size,
        identity,
        effective,
        notes,
    })
}

fn effective(given: &Given, automatic: &[(&str, String, String)]) -> Source {
    let variable = given.variable.clone();
    match automatic.iter().find(|(name, ..)| *name == given.variable) {
        Some((_, value, why)) => {
            Source { variable, value: value.clone(), why: format!("automatic: {why}") }
        }
        None => Source {
            variable,
            value: given.value.clone().unwrap_or_default(),
            why: given.source.into(),
        },
    }
}

fn listen(
    settings: &Settings,
    is_default: bool,
    notes: &mut Vec<String>,
) -> Result<Vec<SocketAddr>, ConfigError> {
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for &address in &settings.listen {
        if addresses.contains(&address) {
            return Err(ConfigError::ListenRepeated { address });
        }
        // IPv6 may be off, which is no reason not to serve IPv4.
        let optional = is_default || (address.is_ipv6() && address.ip().is_unspecified());
        if optional && !is_own_address(address.ip()) {
            notes.push(format!("this host has no {}, so it is not listened on", address.ip()));
            continue;
        }
        addresses.push(address);
    }
    match addresses.is_empty() {
        // Whoever asked for nothing else is told why it cannot be had.
        true => Ok(settings.listen.clone()),
        false => Ok(addresses),
    }
}

/// Drops the upstreams that are this server itself: asking them would never end.
fn without_self(
    asked: Vec<SocketAddr>,
    listen: &[SocketAddr],
    notes: &mut Vec<String>,
) -> Result<Vec<SocketAddr>, ConfigError> {
    let mut upstreams: Vec<SocketAddr> = Vec::new();
    for &address in &asked {
        if upstreams.contains(&address) {
            return Err(ConfigError::Repeated { address });
        }
        if listen.iter().any(|own| is_served_by(address, *own)) {
            notes.push(format!("upstream {address} is this server itself, so it is left out"));
        } else {
            upstreams.push(address);
        }
    }
    match upstreams.is_empty() {
        true => Err(ConfigError::OnlySelf { upstreams: join(&asked) }),
        false => Ok(upstreams),
    }
}

/// Whether datagrams to `address` reach a socket bound to `own`.
fn is_served_by(address: SocketAddr, own: SocketAddr) -> bool {
    if address.port() != own.port() || address.is_ipv4() != own.is_ipv4() {
        return false;
    }
    address.ip() == own.ip() || (own.ip().is_unspecified() && is_own_address(address.ip()))
}

/// Whether an address belongs to this host: only then can a socket be bound to it.
fn is_own_address(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

/// The nameservers of a resolv.conf(5).
fn system_resolvers(path: &Path) -> Result<Vec<SocketAddr>, ConfigError> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next() == Some("nameserver")
            && let Some(Ok(address)) = words.next().map(upstream_address)
            && !addresses.contains(&address)
        {
            addresses.push(address);
        }
    }
    match addresses.is_empty() {
        true => Err(ConfigError::NoUpstream { path: path.display().to_string() }),
        false => Ok(addresses),
    }
}

fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

fn join(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
