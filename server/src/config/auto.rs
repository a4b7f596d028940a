//! The configuration that the server runs with: automatic values filled in, each with its reason.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;

use swiftlet_net::{cores, limits, memory};

use super::switches::{self, Unpinned};
use super::values::{format_bytes, upstream_address};
use super::{Backend, ConfigError, Given, MIB, Settings, zones};
use crate::features;
use crate::policy::special_use;

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
    /// Whether to look ahead over a batch.
    pub look_ahead: bool,
    /// Bytes of the answer cache.
    pub cache_size: u64,
    /// This instance's name, unless it keeps it to itself.
    pub identity: Option<String>,
    /// What the open files are for.
    pub files: Files,
    /// Every setting in the order of `--help`, as the server uses it.
    pub effective: Vec<Source>,
    /// What the operator should know about how the values came about.
    pub notes: Vec<String>,
}

/// How the open files that the process may have are shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Files {
    /// All of them.
    pub limit: u64,
    /// TCP connections from clients.
    pub tcp_clients: usize,
    /// Questions that one worker may have in flight.
    pub flights: usize,
    /// Sockets that one worker may have open to upstreams: UDP ports and TCP connections.
    pub ports: usize,
    /// Queries that one client may have waiting.
    pub client_misses: u32,
}

/// Questions that one worker may have in flight, and sockets for them, if the limit of open files allows.
const MAX_FLIGHTS: usize = 8192;
const MAX_PORTS: usize = 8192;

/// Questions that may wait for each socket. It carries up to 16, but one that waits long keeps a socket open
/// whose others have been answered.
const FLIGHTS_OF_PORT: usize = 4;

/// Open files of the process as a whole: HTTP and its clients, the control thread's runtime, the log.
const PROCESS_FILES: u64 = 96;

/// Open files of a worker's runtime with the watch on its ports and two rings and an eventfd if it is on
/// io_uring, and of each of its listeners: UDP socket, gate and handle, TCP.
const RUNTIME_FILES: u64 = 12;
const LISTENER_FILES: u64 = 4;

/// Open files of af-xdp in all: link, program and two maps of each interface, and four for each of its queues
/// (socket, gate and two handles); so many are enough for sixty queues.
const XDP_FILES: u64 = 256;

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
    let mut found = Found::default();
    switches::backend(settings.backend)?;
    switches::xdp(settings.backend, given)?;
    switches::cache(settings.cache)?;
    let listen = found.listen(settings, given)?;
    let upstreams = found.upstreams(settings, &listen, resolv_conf)?;
    let is_own = |address| listen.iter().any(|own| is_served_by(address, *own));
    zones::check(&settings.forward_zones, is_own)?;
    found.zones(settings);
    let (workers, cores) = found.workers(settings)?;
    let look_ahead = found.look_ahead(settings, given)?;
    found.xdp(settings);
    let cache_size = found.cache_size(settings);
    found.huge_pages(settings, cache_size)?;
    let identity = found.identity(settings);
    let files = found.files(settings, workers, listen.len());
    let effective = given.iter().map(|given| effective(given, &found.automatic)).collect();
    Ok(Config {
        settings: settings.clone(),
        listen,
        upstreams,
        workers,
        cores,
        look_ahead,
        cache_size,
        identity,
        files,
        effective,
        notes: found.notes,
    })
}

/// What is found out on the way: automatic values with their reasons, and notes for the operator.
#[derive(Default)]
struct Found {
    automatic: Vec<(&'static str, String, String)>,
    notes: Vec<String>,
}

impl Found {
    fn listen(
        &mut self,
        settings: &Settings,
        given: &[Given],
    ) -> Result<Vec<SocketAddr>, ConfigError> {
        let is_default = given
            .iter()
            .any(|given| given.variable == "SWIFTLET_LISTEN" && given.source == "default");
        let mut addresses: Vec<SocketAddr> = Vec::new();
        let mut left_out = Vec::new();
        for &address in &settings.listen {
            if addresses.contains(&address) {
                return Err(ConfigError::ListenRepeated { address });
            }
            // IPv6 may be off, which is no reason not to serve IPv4.
            let optional = is_default || (address.is_ipv6() && address.ip().is_unspecified());
            match optional && !can_bind(address.ip()) {
                true => left_out.push(address),
                false => addresses.push(address),
            }
        }
        if addresses.is_empty() {
            // Whoever asked for nothing else is told why it cannot be had.
            return Ok(settings.listen.clone());
        }
        if !left_out.is_empty() {
            let why = format!("this host has no {}", join(&left_out));
            self.notes.push(format!("not listening on {}: {why}", join(&left_out)));
            self.automatic.push(("SWIFTLET_LISTEN", join(&addresses), why));
        }
        Ok(addresses)
    }

    /// The upstreams without this server itself: asking it would never end.
    fn upstreams(
        &mut self,
        settings: &Settings,
        listen: &[SocketAddr],
        resolv_conf: &Path,
    ) -> Result<Vec<SocketAddr>, ConfigError> {
        let (asked, mut why) = match &settings.forward {
            Some(addresses) => (addresses.clone(), Vec::new()),
            None => {
                let why = format!("nameservers of {}", resolv_conf.display());
                (system_resolvers(resolv_conf)?, vec![why])
            }
        };
        let mut upstreams: Vec<SocketAddr> = Vec::new();
        for &address in &asked {
            if upstreams.contains(&address) {
                return Err(ConfigError::Repeated { address });
            }
            if listen.iter().any(|own| is_served_by(address, *own)) {
                why.push(format!("{address} is this server itself"));
                self.notes.push(format!("upstream {address} is this server itself: left out"));
            } else {
                upstreams.push(address);
            }
        }
        if upstreams.is_empty() {
            return Err(ConfigError::OnlySelf { upstreams: join(&asked) });
        }
        if !why.is_empty() {
            self.automatic.push(("SWIFTLET_FORWARD", join(&upstreams), why.join("; ")));
        }
        Ok(upstreams)
    }

    /// What the operator should know of the forward zones.
    fn zones(&mut self, settings: &Settings) {
        if settings.forward_zones.is_empty() {
            let why = "every name goes to SWIFTLET_FORWARD";
            self.automatic.push(("SWIFTLET_FORWARD_ZONES", String::new(), why.into()));
        }
        let names = settings.forward_zones.iter().map(|zone| zone.name);
        for name in names.filter(special_use::Zones::overlaps) {
            self.notes
                .push(format!("{name} is forwarded: its special-use names are not answered here"));
        }
    }

    /// How many workers, and the cores to pin them to.
    fn workers(&mut self, settings: &Settings) -> Result<(usize, Vec<usize>), ConfigError> {
        let usable = cores::usable();
        let cores = usable.ids.len();
        let workers = settings.workers.unwrap_or(cores);
        if settings.workers.is_none() {
            self.automatic.push(("SWIFTLET_WORKERS", workers.to_string(), usable.why));
        }
        let unpinned = match usable.ids.get(..workers) {
            _ if !settings.pin => Unpinned::AsAsked,
            _ if !usable.pin => Unpinned::Quota,
            None => Unpinned::TooMany { workers, cores },
            Some(cores) => return Ok((workers, cores.to_vec())),
        };
        switches::busy_poll(settings, unpinned)?;
        self.notes.extend(unpinned.note());
        Ok((workers, Vec::new()))
    }

    fn look_ahead(&mut self, settings: &Settings, given: &[Given]) -> Result<bool, ConfigError> {
        let (look_ahead, why) = switches::look_ahead(settings, given)?;
        if let Some(why) = why {
            self.automatic.push(("SWIFTLET_LOOK_AHEAD", look_ahead.to_string(), why.into()));
        }
        Ok(look_ahead)
    }

    fn xdp(&mut self, settings: &Settings) {
        if settings.xdp_interface.is_empty() {
            let why = "those that carry the addresses of SWIFTLET_LISTEN";
            self.automatic.push(("SWIFTLET_XDP_INTERFACE", String::new(), why.into()));
        }
        if settings.xdp_queues.is_empty() {
            self.automatic.push(("SWIFTLET_XDP_QUEUES", String::new(), "all".into()));
        }
    }

    fn cache_size(&mut self, settings: &Settings) -> u64 {
        if let Some(bytes) = settings.cache_size {
            return bytes;
        }
        let (limit, source) = memory::limit();
        let share = (limit / CACHE_SHARE).clamp(CACHE_AUTO_MIN, CACHE_AUTO_MAX) / MIB * MIB;
        let why = format!(
            "a quarter of the memory limit of {} ({source}), at most {}",
            format_bytes(limit / MIB * MIB),
            format_bytes(CACHE_AUTO_MAX)
        );
        self.automatic.push(("SWIFTLET_CACHE_SIZE", format_bytes(share), why));
        share
    }

    fn huge_pages(&mut self, settings: &Settings, cache_size: u64) -> Result<(), ConfigError> {
        if settings.huge_pages.is_none() {
            let why = match features::ALLOCATOR {
                "mimalloc" => "left to the kernel, and mimalloc asks it for them",
                _ => "left to the kernel",
            };
            self.automatic.push(("SWIFTLET_HUGE_PAGES", String::new(), why.into()));
        }
        self.notes.extend(switches::huge_pages(settings, cache_size, Path::new("/"))?);
        Ok(())
    }

    /// Of the open files that are left, TCP clients may have half, and sockets to upstreams the rest.
    fn files(&mut self, settings: &Settings, workers: usize, listeners: usize) -> Files {
        // The start raises the limit to the hard one.
        let limit = limits::open_files().map_or(0, |files| files.hard);
        let of_worker = RUNTIME_FILES + listeners as u64 * LISTENER_FILES;
        let of_xdp = if settings.backend == Backend::AfXdp { XDP_FILES } else { 0 };
        let left = limit.saturating_sub(PROCESS_FILES + of_xdp + workers as u64 * of_worker);
        let tcp_clients = u64::from(settings.tcp_max_clients).min(left / 2);
        let for_ports = (left - tcp_clients) / workers as u64;
        let ports = MAX_PORTS.min(for_ports.max(1) as usize);
        let flights = MAX_FLIGHTS.min(ports * FLIGHTS_OF_PORT);
        let half = (flights * workers / 2).max(1) as u32;
        if settings.client_misses.is_none() {
            let why = format!("half of the {} questions that may be in flight", flights * workers);
            self.automatic.push(("SWIFTLET_CLIENT_MISSES", half.to_string(), why));
        }
        if tcp_clients < u64::from(settings.tcp_max_clients) {
            let why = format!("half of what is left of {limit} open files");
            self.automatic.push(("SWIFTLET_TCP_MAX_CLIENTS", tcp_clients.to_string(), why));
        }
        let client_misses = settings.client_misses.unwrap_or(half);
        Files { limit, tcp_clients: tcp_clients as usize, flights, ports, client_misses }
    }

    fn identity(&mut self, settings: &Settings) -> Option<String> {
        match settings.identity.as_deref() {
            Some("off") => None,
            Some(name) => Some(name.to_owned()),
            None => {
                let name = host_name();
                let value = name.clone().unwrap_or_else(|| "off".into());
                self.automatic.push(("SWIFTLET_IDENTITY", value, "the host's name".into()));
                name
            }
        }
    }
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

/// Where containers on a network of their own find their engine's resolver. The engine redirects what goes
/// there before a socket sees it, so it is not ours although it is on loopback.
const ENGINE_RESOLVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11)), 53);

/// Whether datagrams to `address` reach a socket bound to `own`.
fn is_served_by(address: SocketAddr, own: SocketAddr) -> bool {
    if address == ENGINE_RESOLVER && own.ip().is_unspecified() {
        return false;
    }
    let (ip, own_ip) = (address.ip().to_canonical(), own.ip().to_canonical());
    let same_family = ip.is_ipv4() == own_ip.is_ipv4();
    let reached = ip == own_ip || (own_ip.is_unspecified() && is_own_address(address));
    address.port() == own.port() && same_family && reached
}

/// Whether this host has an address: only then would the kernel use it to talk to itself.
fn is_own_address(address: SocketAddr) -> bool {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let source = || {
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect(address).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    address.ip().to_canonical().is_loopback() || source() == Some(address.ip())
}

/// Whether a socket can be bound to an address: not when its family is off.
fn can_bind(ip: IpAddr) -> bool {
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
