//! The rig: two network namespaces, and a veth pair between them for each server.
//!
//! ```text
//! the server's namespace                       the generator's namespace
//!   server n ── 10.78.n.1  swbPIDsN ══ swbPIDgN  10.78.n.2 ── kxdpgun
//!   its interface's NAPI thread                  its interface's NAPI thread
//! on the server's core                         on the generator's core
//! ```
//!
//! **Who is charged.** A veth interface receives by NAPI when a program is attached to it or when it does
//! GRO; otherwise the kernel receives in a softirq on top of whoever sent. So both ends do GRO, and neither
//! does TSO: of a sender that does, the kernel takes single datagrams past NAPI, for there would be nothing
//! to put together. NAPI of both ends is threaded, so that what an end receives is charged to a kernel
//! thread of its own, which is pinned to that end's core. A server costs what its threads and its
//! interface's NAPI thread use.
//!
//! One queue each way, as one worker serves it. Addresses and neighbours are set by hand and IPv6 is
//! silent, so that nothing but the measurement is on a link and its packets can be counted one by one.
//!
//! The namespaces have no names: they go with the last process in them, and the links with them, however
//! this program ends.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::process::{self, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use anyhow::Context;
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::geteuid;
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::accounting::run_ns;

use super::counters::{self, Interface};

/// Where servers listen.
pub const PORT: u16 = 53;

/// Links that a rig can have: their numbers are a byte of their addresses.
const LINKS_MAX: u8 = 250;

/// Links of all rigs of this program so far; their names are unique on the machine, for a NAPI thread is
/// known by nothing else.
static LINKS: AtomicU32 = AtomicU32::new(0);

/// Both namespaces. The thread that built it is in the server's.
#[derive(Debug)]
pub struct Rig {
    generator: File,
    links: u8,
    server_core: usize,
    generator_core: usize,
}

impl Rig {
    /// Makes the namespaces, and moves the calling thread into that of the servers for good: what it
    /// starts from here on, threads too, is there.
    ///
    /// # Errors
    /// Without root, or if the system refuses.
    pub fn build(server_core: usize, generator_core: usize) -> anyhow::Result<Self> {
        anyhow::ensure!(
            geteuid().is_root(),
            "network namespaces and AF_XDP need root: run this as root",
        );
        enter_new()?;
        let generator = File::open("/proc/thread-self/ns/net")
            .context("cannot hold on to the generator's namespace")?;
        enter_new()?;
        Ok(Self { generator, links: 0, server_core, generator_core })
    }

    /// Runs this in a thread that is in the generator's namespace.
    ///
    /// # Errors
    /// If the kernel doesn't let it in.
    ///
    /// # Panics
    /// As `work` does.
    pub fn in_generator<T: Send>(&self, work: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
        let entered = || {
            setns(&self.generator, CloneFlags::CLONE_NEWNET)
                .context("cannot enter the generator's namespace")?;
            Ok(work())
        };
        thread::scope(|scope| scope.spawn(entered).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Makes one more link.
    ///
    /// # Errors
    /// If a command fails, if the kernel has no NAPI threads for it, or beyond [`LINKS_MAX`].
    pub fn link(&mut self) -> anyhow::Result<Link> {
        anyhow::ensure!(self.links < LINKS_MAX, "a rig has no more than {LINKS_MAX} links");
        self.links += 1;
        let serial = LINKS.fetch_add(1, Ordering::Relaxed);
        let name = |end| format!("swb{}{end}{serial}", process::id());
        let (server, generator) = (name('s'), name('g'));
        let mut link = Link { number: self.links, server, generator, napi: [0; 2] };
        link.make(&format!("/proc/{}/fd/{}", process::id(), self.generator.as_raw_fd()))?;
        set_up(&link.server, link.address(1), link.address(2), &link.mac(2))?;
        self.in_generator(|| {
            set_up(&link.generator, link.address(2), link.address(1), &link.mac(1))
        })??;
        link.napi = [
            pin_napi(&link.server, self.server_core)?,
            pin_napi(&link.generator, self.generator_core)?,
        ];
        Ok(link)
    }

    /// The counters of a link's ends: the server's and the generator's.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn counters(&self, link: &Link) -> anyhow::Result<[Interface; 2]> {
        let generator = self.in_generator(|| counters::read(&link.generator))??;
        Ok([counters::read(&link.server)?, generator])
    }
}

/// One veth pair.
#[derive(Clone, Debug)]
pub struct Link {
    number: u8,
    /// The server's interface.
    pub server: String,
    /// The generator's.
    pub generator: String,
    /// The process ids of their NAPI threads, in this order.
    napi: [u32; 2],
}

impl Link {
    /// Where the server listens.
    #[must_use]
    pub fn target(&self) -> SocketAddr {
        (self.address(1), PORT).into()
    }

    /// The MAC address of the server's interface.
    #[must_use]
    pub fn target_mac(&self) -> String {
        self.mac(1)
    }

    /// CPU time of the NAPI threads of the server's interface and of the generator's, in ns.
    ///
    /// # Errors
    /// If one is not there any more.
    pub fn napi_ns(&self) -> anyhow::Result<[u64; 2]> {
        let [server, generator] = self.napi.map(|pid| {
            run_ns(pid).with_context(|| format!("a NAPI thread of {} is gone", self.server))
        });
        Ok([server?, generator?])
    }

    fn make(&self, generator: &str) -> anyhow::Result<()> {
        let (server, near, far) = (&*self.server, self.mac(1), self.mac(2));
        let queues = ["numtxqueues", "1", "numrxqueues", "1"];
        let ends = [
            ["ip", "link", "add", server, "address", &near],
            ["type", "veth", "peer", "name", &self.generator, "address"],
        ];
        let command: Vec<&str> =
            [&ends[0][..], &queues, &ends[1], &[&far], &queues, &["netns", generator]].concat();
        run(&command)
    }

    fn address(&self, end: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 78, self.number, end)
    }

    fn mac(&self, end: u8) -> String {
        format!("02:00:0a:4e:{:02x}:{end:02x}", self.number)
    }
}

/// A namespace of its own for the calling thread.
fn enter_new() -> anyhow::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("the kernel gives no network namespace")?;
    run(&["ip", "link", "set", "lo", "up"])
}

/// Sets up one end, in its namespace.
fn set_up(name: &str, address: Ipv4Addr, peer: Ipv4Addr, peer_mac: &str) -> anyhow::Result<()> {
    let (address, peer) = (format!("{address}/24"), peer.to_string());
    // Nobody asks for routers or neighbours.
    run(&["ip", "link", "set", name, "addrgenmode", "none"])?;
    run(&["ip", "address", "add", &address, "dev", name])?;
    run(&["ip", "link", "set", name, "up"])?;
    run(&[
        "ip",
        "neighbour",
        "replace",
        &peer,
        "lladdr",
        peer_mac,
        "dev",
        name,
        "nud",
        "permanent",
    ])?;
    run(&["ethtool", "-K", name, "gro", "on", "tso", "off"])?;
    // The setting is in sysfs alone, which shows the namespace of who mounted it.
    let threaded = format!("mount -t sysfs sysfs /sys && echo 1 >/sys/class/net/{name}/threaded");
    run(&["unshare", "--mount", "sh", "-c", &threaded])
}

/// Brings the NAPI thread of an interface to a core, and returns its process id.
fn pin_napi(interface: &str, core: usize) -> anyhow::Result<u32> {
    let prefix = format!("napi/{interface}-");
    let pid = find_thread(&prefix)
        .with_context(|| format!("{interface} has no NAPI thread: none is called {prefix}*"))?;
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(Pid::from_raw(pid.cast_signed()), &cores)
        .with_context(|| format!("cannot bring the NAPI thread of {interface} to core {core}"))?;
    Ok(pid)
}

/// The kernel's threads are processes of their own there.
fn find_thread(prefix: &str) -> Option<u32> {
    let pids = std::fs::read_dir("/proc").ok()?.flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(|pid| {
        std::fs::read_to_string(format!("/proc/{pid}/comm"))
            .is_ok_and(|name| name.starts_with(prefix))
    })
}

pub(super) fn run(command: &[&str]) -> anyhow::Result<()> {
    output(command).map(drop)
}

/// What a command says; an error with what it complains of if it fails.
pub(super) fn output(command: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(command[0])
        .args(&command[1..])
        .output()
        .with_context(|| format!("cannot run {}", command[0]))?;
    anyhow::ensure!(
        output.status.success(),
        "{} failed: {}",
        command.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    String::from_utf8(output.stdout).with_context(|| format!("{} said no text", command[0]))
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use super::*;

    const SENT: u64 = 100;

    #[test]
    fn what_crosses_a_link_is_charged_to_its_ends_napi_thread_and_counted() {
        if !geteuid().is_root() {
            assert!(std::env::var_os("SWIFTLET_REQUIRE_AF_XDP").is_none(), "this needs root");
            eprintln!("skipped: network namespaces need root");
            return;
        }
        let mut rig = Rig::build(0, 0).expect("built");
        let (first, link) = (rig.link().expect("made"), rig.link().expect("made"));
        assert_ne!(first.napi, link.napi);
        let server = UdpSocket::bind(link.target()).expect("bound");
        server.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
        let before = rig.counters(&link).expect("read");
        let idle_ns = link.napi_ns().expect("there")[0];
        let target = link.target();
        rig.in_generator(|| {
            let client = UdpSocket::bind("0.0.0.0:0").expect("bound");
            for _ in 0..SENT {
                client.send_to(b"query", target).expect("sent");
            }
        })
        .expect("entered");
        for _ in 0..SENT {
            server.recv_from(&mut [0; 8]).expect("received");
        }
        assert!(link.napi_ns().expect("there")[0] > idle_ns, "received by NAPI");
        let [at_server, at_generator] = rig.counters(&link).expect("read");
        assert_eq!(at_server.received - before[0].received, SENT);
        assert_eq!(at_generator.sent - before[1].sent, SENT);
        assert_eq!(rig.counters(&first).expect("read")[0].received, 0, "nothing on the other");
    }
}
