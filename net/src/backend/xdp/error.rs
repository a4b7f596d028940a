//! Why AF_XDP cannot be used: each error names the object, what the kernel wants and what an
//! operator can do about it.

use std::fmt;
use std::fs;
use std::io;

use super::interface::Attached;
use crate::sys::resource;

/// A capability: its bit, and its name as systemd and setcap spell it.
type Capability = (u32, &'static str);

const NET_ADMIN: Capability = (12, "CAP_NET_ADMIN");
const NET_RAW: Capability = (13, "CAP_NET_RAW");
const BPF: Capability = (39, "CAP_BPF");
/// Stands in for CAP_BPF.
const SYS_ADMIN: u32 = 21;

/// Why AF_XDP cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum XdpError {
    /// EPERM or EACCES.
    #[error(
        "no permission to {step}{place}: {}; all that AF_XDP needs is given by `--cap-add NET_ADMIN --cap-add BPF \
         --cap-add NET_RAW --cap-add IPC_LOCK` to a container, `AmbientCapabilities=CAP_NET_ADMIN CAP_BPF CAP_NET_RAW \
         CAP_IPC_LOCK`, the same in CapabilityBoundingSet=, `RestrictAddressFamilies=AF_XDP AF_NETLINK` and \
         `SystemCallFilter=bpf capset` to a systemd unit (README, AF_XDP), or `setcap \
         cap_net_admin,cap_bpf,cap_net_raw,cap_ipc_lock,cap_net_bind_service+ep` on the program",
        Missing(missing)
    )]
    NotPermitted {
        /// What was tried.
        step: Step,
        /// Where.
        place: Place,
        /// Capabilities that this step needs and this process doesn't have.
        missing: Vec<&'static str>,
    },
    /// ENOBUFS: memory of sockets is locked.
    #[error(
        "cannot lock {bytes} bytes of memory{place}: the limit on locked memory is {limit} bytes for all of this user's; grant \
         CAP_IPC_LOCK (`--cap-add IPC_LOCK` to a container, in AmbientCapabilities= and CapabilityBoundingSet= of a systemd unit) \
         or raise the limit (`--ulimit memlock=-1`, LimitMEMLOCK=infinity, `ulimit -l`)"
    )]
    LockedMemory {
        /// Where.
        place: Place,
        /// What was asked for.
        bytes: u64,
        /// RLIMIT_MEMLOCK.
        limit: u64,
    },
    /// EBUSY at bind.
    #[error(
        "another AF_XDP socket has taken frames{place} (`ss --xdp -p -e` says whose): a second instance, Knot DNS or a \
         virtual switch; stop it or choose other queues by SWIFTLET_XDP_QUEUES"
    )]
    QueueInUse {
        /// Which queue.
        place: Place,
    },
    /// The driver has no XDP.
    #[error(
        "the driver cannot run an XDP program{place}, or not as it is set up (`dmesg` may say); SWIFTLET_XDP_MODE=generic \
         works with each driver, and gains least"
    )]
    NoNative {
        /// Which interface.
        place: Place,
    },
    /// The driver has no zero-copy.
    #[error(
        "the driver cannot receive into a program's memory{place} (zero-copy); SWIFTLET_XDP_MODE=copy works with each \
         driver that can run XDP programs"
    )]
    NoZeroCopy {
        /// Which queue.
        place: Place,
    },
    /// Somebody else's program.
    #[error(
        "another XDP program is on {interface} ({program}) and is left alone; end its owner, or take it off by `ip link set dev \
         {interface} xdp{} off` (`bpftool link` lists those held by a process)",
        program.mode.suffix()
    )]
    Attached {
        /// The interface.
        interface: String,
        /// What is there.
        program: Attached,
    },
    /// A program on a device on top of this one (EEXIST).
    #[error(
        "another XDP program is on a device on top of {interface} (a VLAN, a bond or a bridge; `bpftool net` says which) and is \
         left alone; take it off or choose that device by SWIFTLET_XDP_INTERFACE"
    )]
    AttachedAbove {
        /// The interface.
        interface: String,
    },
    /// The driver's refusal at attach of what may be changed: drivers differ in the error that they give for
    /// an MTU, for offloads and for the queues that a program needs beside the others.
    #[error(
        "the driver of {interface} refuses XDP ({source}) at an MTU of {mtu} bytes (a frame has to fit into a page, of a veth \
         the other end's too), with its offloads, or for too few free queues; set a lower MTU (`ip link set dev {interface} mtu \
         1500`), turn receive offloads off (`ethtool -K {interface} lro off rx-gro-hw off`), use fewer queues (`ethtool -L \
         {interface} combined N`, at most half of what it has) or use SWIFTLET_XDP_MODE=generic; `dmesg` may say more"
    )]
    Setup {
        /// The interface.
        interface: String,
        /// Its MTU in bytes.
        mtu: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// A named interface is missing.
    #[error("there is no interface {name}; there are: {there}")]
    NoInterface {
        /// The name asked for.
        name: String,
        /// The interfaces that could be named.
        there: String,
    },
    /// A named interface that has no Ethernet frames, or not of its own.
    #[error("interface {name} {why}; name another one, or serve its addresses over sockets alone")]
    Unsuitable {
        /// The interface.
        name: String,
        /// What it lacks.
        why: &'static str,
    },
    /// An interface is down.
    #[error("interface {name} is down; set it up (`ip link set dev {name} up`)")]
    Down {
        /// The interface.
        name: String,
    },
    /// A named interface serves nothing.
    #[error("interface {name} carries none of the addresses listened on; it has: {there}")]
    NoAddress {
        /// The interface.
        name: String,
        /// Its addresses.
        there: String,
    },
    /// No interface serves anything.
    #[error(
        "no interface that is up, has Ethernet frames and is not made of others (a bond) carries an address listened on, apart \
         from loopback, which must be named (SWIFTLET_XDP_INTERFACE=lo); there are: {there}"
    )]
    Nothing {
        /// The interfaces and their addresses.
        there: String,
    },
    /// A loopback device that drops what it sent itself.
    #[error(
        "answers over IPv4 that leave by {interface} come back to this host as martians, which it drops; allow them (`sysctl -w \
         net.ipv4.conf.{interface}.accept_local=1 net.ipv4.conf.{interface}.route_localnet=1`) or serve {interface} over sockets"
    )]
    Martians {
        /// The interface.
        interface: String,
    },
    /// More than a filter holds.
    #[error(
        "{count} addresses to serve on {interface} are more than a filter holds ({max}); listen on fewer addresses or name \
         another interface"
    )]
    Targets {
        /// The interface.
        interface: String,
        /// How many there are.
        count: usize,
        /// How many there may be.
        max: usize,
    },
    /// A queue that the interface doesn't have.
    #[error(
        "interface {interface} has no receive queue {queue}: it has {queues}, from 0 (`ethtool -l {interface}`)"
    )]
    NoQueue {
        /// The interface.
        interface: String,
        /// The queue asked for.
        queue: u32,
        /// How many it has.
        queues: u32,
    },
    /// EAFNOSUPPORT.
    #[error(
        "there are no AF_XDP sockets here: the kernel has none (CONFIG_XDP_SOCKETS, Linux 5.11), or RestrictAddressFamilies= of \
         the systemd unit forbids them, which must allow AF_NETLINK and AF_XDP beside others; else serve over sockets"
    )]
    NoFamily,
    /// The same for what each kernel has.
    #[error(
        "cannot list the interfaces, for sockets of the family AF_NETLINK are forbidden: RestrictAddressFamilies= of the systemd \
         unit must allow AF_NETLINK and AF_XDP beside others (README, AF_XDP)"
    )]
    NoNetlink,
    /// The verifier or the kernel's age.
    #[error("the kernel refuses the filter ({source}; Linux 5.11 is needed): {log}")]
    Filter {
        /// What the kernel said.
        source: io::Error,
        /// The end of what the verifier wrote; may be empty.
        log: String,
    },
    /// Any other refusal.
    #[error("cannot {step}{place}: {source}")]
    Refused {
        /// What was tried.
        step: Step,
        /// Where.
        place: Place,
        /// What the kernel said.
        source: io::Error,
    },
}

/// What is done to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// RTM_GETLINK, RTM_GETADDR, ETHTOOL_GCHANNELS.
    ListInterfaces,
    /// BPF_MAP_CREATE.
    CreateMap,
    /// BPF_PROG_LOAD.
    LoadFilter,
    /// BPF_LINK_CREATE.
    Attach {
        /// In the driver, or behind it.
        generic: bool,
        /// The interface's, in bytes.
        mtu: u32,
    },
    /// socket(2).
    OpenSocket,
    /// XDP_UMEM_REG.
    RegisterMemory {
        /// Of all frames.
        bytes: u64,
    },
    /// XDP_RX_RING and the like, and their mmap(2).
    SetUpRings,
    /// bind(2).
    Bind {
        /// Without falling back to copies.
        zero_copy: bool,
    },
    /// Socket options after that.
    Tune,
    /// Those of busy polling.
    PollBusily,
    /// BPF_MAP_UPDATE_ELEM.
    Serve,
}

/// An interface, or one of its queues. Displayed with ` on ` before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Empty where it isn't known.
    pub interface: String,
    /// `None` for the whole interface.
    pub queue: Option<u32>,
}

impl XdpError {
    /// Whether somebody else's program is on the interface: then serving over sockets instead would
    /// hide a conflict that the operator must settle.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Attached { .. } | Self::AttachedAbove { .. })
    }

    /// Whether the driver is what refuses, so that the mode that does without it may still do.
    pub(super) fn is_for_native(&self) -> bool {
        matches!(self, Self::NoNative { .. } | Self::Setup { .. })
    }

    /// Says what a refusal of this step means.
    pub(crate) fn at(
        step: Step,
        interface: &str,
        queue: impl Into<Option<u32>>,
    ) -> impl FnOnce(io::Error) -> Self {
        let place = Place { interface: interface.to_owned(), queue: queue.into() };
        move |source| match (step, source.raw_os_error()) {
            (_, Some(libc::EPERM | libc::EACCES)) => {
                Self::NotPermitted { step, place, missing: missing(step.needs()) }
            }
            (Step::OpenSocket, Some(libc::EAFNOSUPPORT)) => Self::NoFamily,
            (Step::ListInterfaces, Some(libc::EAFNOSUPPORT)) => Self::NoNetlink,
            (Step::RegisterMemory { bytes }, Some(libc::ENOBUFS)) => Self::LockedMemory {
                place,
                bytes,
                limit: resource::locked_memory().unwrap_or_default(),
            },
            (Step::Bind { .. }, Some(libc::EBUSY)) => Self::QueueInUse { place },
            (Step::Bind { zero_copy: true }, Some(libc::EOPNOTSUPP | libc::EINVAL)) => {
                Self::NoZeroCopy { place }
            }
            (Step::Attach { generic: false, .. }, Some(libc::EOPNOTSUPP)) => {
                Self::NoNative { place }
            }
            // EBUSY: a foreign program has been looked for already.
            (
                Step::Attach { mtu, generic: false },
                Some(libc::ERANGE | libc::EINVAL | libc::ENOMEM | libc::ENOSPC | libc::EBUSY),
            ) => Self::Setup { interface: place.interface, mtu, source },
            (Step::Bind { .. } | Step::Attach { .. }, Some(libc::ENETDOWN)) => {
                Self::Down { name: place.interface }
            }
            _ => Self::Refused { step, place, source },
        }
    }
}

impl Step {
    /// Capabilities without which the kernel refuses it.
    fn needs(self) -> &'static [Capability] {
        match self {
            Self::CreateMap | Self::LoadFilter | Self::Attach { .. } | Self::Serve => {
                &[NET_ADMIN, BPF]
            }
            Self::OpenSocket => &[NET_RAW],
            Self::Tune | Self::PollBusily => &[NET_ADMIN],
            _ => &[],
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ListInterfaces => "list the interfaces",
            Self::CreateMap => "create a BPF map",
            Self::LoadFilter => "load the filter",
            Self::Attach { generic: true, .. } => "attach the filter (generic)",
            Self::Attach { generic: false, .. } => "attach the filter (native)",
            Self::OpenSocket => "open an AF_XDP socket",
            Self::RegisterMemory { .. } => "register memory for frames",
            Self::SetUpRings => "set up the rings of an AF_XDP socket",
            Self::Bind { .. } => "bind an AF_XDP socket",
            Self::Tune => "set an option of an AF_XDP socket",
            Self::PollBusily => "have an AF_XDP socket poll busily (SWIFTLET_BUSY_POLL_US)",
            Self::Serve => "have the filter serve an AF_XDP socket",
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.interface, self.queue) {
            (interface, None) if interface.is_empty() => Ok(()),
            (interface, Some(queue)) if interface.is_empty() => write!(f, " on queue {queue}"),
            (interface, None) => write!(f, " on {interface}"),
            (interface, Some(queue)) => write!(f, " on queue {queue} of {interface}"),
        }
    }
}

/// Capabilities that are missing, as a reason.
struct Missing<'a>(&'a [&'static str]);

impl fmt::Display for Missing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => f.write_str(
                "the capabilities are there, so a seccomp profile, a user namespace or a security module forbids it",
            ),
            missing => write!(f, "this process lacks {}", missing.join(" and ")),
        }
    }
}

/// Those that this thread doesn't have in effect.
fn missing(needed: &[Capability]) -> Vec<&'static str> {
    let effective = fs::read_to_string("/proc/thread-self/status")
        .ok()
        .and_then(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
            u64::from_str_radix(line.trim(), 16).ok()
        })
        .unwrap_or_default();
    let has = |bit: u32| effective >> bit & 1 == 1;
    needed
        .iter()
        .filter(|&&capability| !(has(capability.0) || capability == BPF && has(SYS_ADMIN)))
        .map(|&(_, name)| name)
        .collect()
}

#[cfg(test)]
mod tests;
