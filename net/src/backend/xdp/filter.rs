//! The filter: a BPF program on an interface that gives queries to AF_XDP sockets and leaves
//! everything else to the kernel.
//!
//! A frame is a query when it fits a chunk, is addressed to the interface's MAC address, has no tag
//! or one 802.1Q tag, is IPv4 without options and no fragment, or IPv6 without extension headers,
//! and is UDP to one of the [`Target`]s. Nothing is said of lengths and checksums: whoever has the
//! frame then looks at them. A priority tag (id 0) belongs to no VLAN; the kernel takes it off.
//!
//! ```text
//!   offset 0       6      12         14                              30       36
//!   IPv4   | dst MAC | src | 08 00    | 45 .. | .. frag, ttl, 11 | ..  | dst    | dst port
//!   IPv6   | dst MAC | src | 86 dd    | 6. .. | .. 11 (at 20)  | dst at 38      | dst port at 56
//!   tagged | dst MAC | src | 81 00 id | the same from here on, four bytes further
//! ```
//!
//! Addresses, ports, ids and MAC are constants in the program, so that a query over IPv4 without a
//! tag takes some 40 instructions and reads nothing but the frame, its queue's entry in the map of
//! sockets, and a counter. A target more costs one comparison for each frame to its port that is
//! none of those before it.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::BorrowedFd;

use super::FilterCounts;
use super::assembler::{Assembler, Label, Reg, Size};
use super::error::{Step, XdpError};
use super::interface::{self, Interface};
use crate::sys::bpf::{self, Counters, Insn, LoadError, Program, SocketMap};

/// The most targets of one filter: each is compared with in its turn.
pub const MAX_TARGETS: usize = 256;

/// As tools show the program and its maps.
const NAME: &str = "swiftlet";

/// What the verifier says is long; what is wrong comes last.
const LOG_SHOWN: usize = 1024;

/// `enum xdp_action` and helpers (linux/bpf.h).
const XDP_PASS: i32 = 2;
const XDP_REDIRECT: i32 = 4;
const MAP_LOOKUP_ELEM: i32 = 1;
const REDIRECT_MAP: i32 = 51;

/// Offsets in `struct xdp_md`.
const DATA: i16 = 0;
const DATA_END: i16 = 4;
const RX_QUEUE: i16 = 16;

/// The counters' places.
const REDIRECTED: i32 = 0;
const UNSERVED: i32 = 1;
const PASSED: i32 = 2;

/// Bytes of the headers up to the end of UDP's, without a tag.
const IPV4_LEN: i32 = 14 + 20 + 8;
const IPV6_LEN: i32 = 14 + 40 + 8;
const TAG_LEN: i16 = 4;

const UDP: u8 = 17;

/// What a frame must be addressed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// The id of its 802.1Q tag, 1..=4094; `None` for frames without a tag.
    pub vlan: Option<u16>,
    /// Destination address.
    pub address: IpAddr,
    /// Destination port.
    pub port: u16,
    /// Index of the interface that has the address: for a VLAN not the one that the filter is on.
    pub interface: u32,
    /// Bytes of the longest IP packet on its link: a VLAN's may be smaller than that of the interface.
    pub mtu: u32,
}

/// A filter in the kernel: the program, the sockets that it gives frames to, what it counts.
#[derive(Debug)]
pub struct Filter {
    program: Program,
    sockets: SocketMap,
    counters: Counters,
}

/// A filter on an interface; dropped, or at the end of the process, it is off.
#[derive(Debug)]
pub struct Link {
    _link: bpf::Link,
}

impl Filter {
    /// Loads the program for frames to this MAC address and these targets, of at most `max_frame`
    /// bytes (from the MAC addresses on), that come by queues below `queues`.
    pub fn load(
        mac: [u8; 6],
        targets: &[Target],
        queues: u32,
        max_frame: u32,
    ) -> Result<Self, XdpError> {
        let create = |what| XdpError::at(what, "", None);
        let sockets = SocketMap::create(NAME, queues).map_err(create(Step::CreateMap))?;
        let counters = Counters::create(NAME, 3).map_err(create(Step::CreateMap))?;
        let code = Code { sockets: sockets.as_raw_fd(), counters: counters.as_raw_fd() };
        let max_frame = u16::try_from(max_frame).unwrap_or(u16::MAX);
        let instructions = code.assemble(mac, targets, max_frame);
        let program = Program::load_xdp(NAME, &instructions).map_err(refused)?;
        Ok(Self { program, sockets, counters })
    }

    /// Gives the frames of a queue to an AF_XDP socket, which must have its memory and rings.
    pub fn serve(&self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), XdpError> {
        self.sockets.set(queue, socket).map_err(XdpError::at(Step::Serve, "", queue))
    }

    /// Attaches it in the driver, or behind it. A program that is there is left alone and named.
    pub fn attach(&self, interface: &Interface, generic: bool) -> Result<Link, XdpError> {
        let step = Step::Attach { generic, mtu: interface.mtu };
        match self.program.attach_xdp(interface.index, generic) {
            Ok(link) => Ok(Link { _link: link }),
            Err(error) => Err(conflict(interface, &error)
                .unwrap_or_else(|| XdpError::at(step, &interface.name, None)(error))),
        }
    }

    /// What it did since it was loaded. `None` if the kernel doesn't say: below Linux 5.19 it asks for
    /// CAP_BPF where `kernel.unprivileged_bpf_disabled` is set.
    #[must_use]
    pub fn counts(&self) -> Option<FilterCounts> {
        let count = |key: i32| self.counters.read(key as u32).ok();
        Some(FilterCounts {
            redirected: count(REDIRECTED)?,
            unserved: count(UNSERVED)?,
            passed: count(PASSED)?,
        })
    }
}

/// Who else is on the interface, if that is what the kernel says.
fn conflict(interface: &Interface, error: &io::Error) -> Option<XdpError> {
    let name = interface.name.clone();
    match (error.raw_os_error(), interface::attached(interface.index)) {
        (Some(libc::EBUSY | libc::EEXIST), Ok(Some(program))) => {
            Some(XdpError::Attached { interface: name, program })
        }
        (Some(libc::EEXIST), _) => Some(XdpError::AttachedAbove { interface: name }),
        _ => None,
    }
}

fn refused(error: LoadError) -> XdpError {
    match error.source.raw_os_error() {
        Some(libc::EINVAL | libc::EACCES | libc::E2BIG) if !error.log.is_empty() => {
            let mut start = error.log.len().saturating_sub(LOG_SHOWN);
            while !error.log.is_char_boundary(start) {
                start += 1;
            }
            XdpError::Filter { source: error.source, log: error.log[start..].trim().to_owned() }
        }
        _ => XdpError::at(Step::LoadFilter, "", None)(error.source),
    }
}

/// The addresses by port of one family in one VLAN, in an order of their own.
type Ports<A> = BTreeMap<u16, Vec<A>>;

/// The targets of frames that have the same tag.
#[derive(Default)]
struct Group {
    v4: Ports<Ipv4Addr>,
    v6: Ports<Ipv6Addr>,
}

/// What the program needs beside its constants: the descriptors of its maps.
struct Code {
    sockets: i32,
    counters: i32,
}

impl Code {
    /// The whole program. `R1` is the context until a frame is redirected, `R2` the frame's start,
    /// `R3` its end and then the destination port, `R0` for what is looked at.
    fn assemble(&self, mac: [u8; 6], targets: &[Target], max_frame: u16) -> Vec<Insn> {
        let mut asm = Assembler::default();
        let (tagged, pass, redirect) = (asm.label(), asm.label(), asm.label());
        let mut groups = group(targets);
        let untagged = groups.remove(&None).unwrap_or_default();
        let exits = Exits { redirect, pass };

        asm.load(Size::Word, Reg::R2, Reg::R1, DATA);
        asm.load(Size::Word, Reg::R3, Reg::R1, DATA_END);
        bound(&mut asm, IPV4_LEN, pass);
        // By comparing addresses: their difference would take CAP_PERFMON.
        asm.copy(Reg::R0, Reg::R2);
        asm.add(Reg::R0, max_frame.into());
        asm.jump_above(Reg::R3, Reg::R0, pass);
        let [a, b, c, d, e, f] = mac;
        asm.load(Size::Word, Reg::R0, Reg::R2, 0);
        asm.jump_unequal_w(Reg::R0, word([a, b, c, d]), pass);
        asm.load(Size::Half, Reg::R0, Reg::R2, 4);
        asm.jump_unequal_w(Reg::R0, half([e, f]), pass);
        network(&mut asm, 0, &untagged, tagged, exits);

        asm.place(tagged);
        vlans(&mut asm, &groups, exits);

        asm.place(redirect);
        self.redirect(&mut asm, pass);
        asm.finish()
    }

    /// Gives the frame to the socket of its queue, or else leaves it to the kernel, as at `pass`; and
    /// counts it.
    fn redirect(&self, asm: &mut Assembler, pass: Label) {
        let (count, out) = (asm.label(), asm.label());
        let key = -4;
        asm.load(Size::Word, Reg::R2, Reg::R1, RX_QUEUE);
        asm.set_map(Reg::R1, self.sockets);
        // What to return for a queue without a socket (Linux 5.3).
        asm.set(Reg::R3, XDP_PASS);
        asm.call(REDIRECT_MAP);
        asm.copy(Reg::R6, Reg::R0);
        asm.store_value(Size::Word, Reg::Frame, key, REDIRECTED);
        asm.jump_equal_w(Reg::R0, XDP_REDIRECT, count);
        asm.store_value(Size::Word, Reg::Frame, key, UNSERVED);
        asm.jump(count);

        asm.place(pass);
        asm.set(Reg::R6, XDP_PASS);
        asm.store_value(Size::Word, Reg::Frame, key, PASSED);

        // Nothing else runs on this CPU's counters meanwhile.
        asm.place(count);
        asm.copy(Reg::R2, Reg::Frame);
        asm.add(Reg::R2, key.into());
        asm.set_map(Reg::R1, self.counters);
        asm.call(MAP_LOOKUP_ELEM);
        asm.jump_zero(Reg::R0, out);
        asm.load(Size::Double, Reg::R1, Reg::R0, 0);
        asm.add(Reg::R1, 1);
        asm.store(Size::Double, Reg::R0, 0, Reg::R1);
        asm.place(out);
        asm.copy(Reg::R0, Reg::R6);
        asm.exit();
    }
}

/// Where a frame goes whose way is known.
#[derive(Clone, Copy)]
struct Exits {
    redirect: Label,
    pass: Label,
}

/// Frames with a tag, by its id.
fn vlans(asm: &mut Assembler, groups: &BTreeMap<Option<u16>, Group>, exits: Exits) {
    if groups.is_empty() {
        return asm.jump(exits.pass);
    }
    asm.load(Size::Half, Reg::R0, Reg::R2, 12);
    asm.jump_unequal_w(Reg::R0, half([0x81, 0x00]), exits.pass);
    asm.load(Size::Half, Reg::R0, Reg::R2, 14);
    asm.and_w(Reg::R0, half([0x0f, 0xff]));
    let mut places = Vec::new();
    for (id, group) in groups {
        let place = asm.label();
        asm.jump_equal_w(Reg::R0, half(id.unwrap_or_default().to_be_bytes()), place);
        places.push((place, group));
    }
    asm.jump(exits.pass);
    for (place, group) in places {
        asm.place(place);
        if !group.v4.is_empty() {
            bound(asm, IPV4_LEN + i32::from(TAG_LEN), exits.pass);
        }
        network(asm, TAG_LEN, group, exits.pass, exits);
    }
}

/// Packets whose headers begin `shift` bytes later than without a tag. Those of neither family go to
/// `other`. The frame is known to be long enough for IPv4.
fn network(asm: &mut Assembler, shift: i16, group: &Group, other: Label, exits: Exits) {
    if !group.v4.is_empty() {
        let not_v4 = asm.label();
        // Ethertype, version and header length; not the type of service.
        asm.load(Size::Word, Reg::R0, Reg::R2, 12 + shift);
        asm.and_w(Reg::R0, word([0xff, 0xff, 0xff, 0]));
        asm.jump_unequal_w(Reg::R0, word([0x08, 0x00, 0x45, 0]), not_v4);
        // More fragments and offset, neither "don't fragment" nor the time to live; the protocol.
        asm.load(Size::Word, Reg::R0, Reg::R2, 20 + shift);
        asm.and_w(Reg::R0, word([0x3f, 0xff, 0, 0xff]));
        asm.jump_unequal_w(Reg::R0, word([0, 0, 0, UDP]), exits.pass);
        asm.load(Size::Half, Reg::R3, Reg::R2, 36 + shift);
        asm.load(Size::Word, Reg::R4, Reg::R2, 30 + shift);
        addressed(asm, &group.v4, exits.pass, |asm, address, _| {
            asm.jump_equal_w(Reg::R4, word(address.octets()), exits.redirect);
        });
        asm.place(not_v4);
    }
    if group.v6.is_empty() {
        return asm.jump(other);
    }
    asm.load(Size::Word, Reg::R0, Reg::R2, 12 + shift);
    asm.and_w(Reg::R0, word([0xff, 0xff, 0xf0, 0]));
    asm.jump_unequal_w(Reg::R0, word([0x86, 0xdd, 0x60, 0]), other);
    bound(asm, IPV6_LEN + i32::from(shift), exits.pass);
    asm.load(Size::Byte, Reg::R0, Reg::R2, 20 + shift);
    asm.jump_unequal_w(Reg::R0, UDP.into(), exits.pass);
    asm.load(Size::Half, Reg::R3, Reg::R2, 56 + shift);
    asm.load(Size::Double, Reg::R4, Reg::R2, 38 + shift);
    asm.load(Size::Double, Reg::R5, Reg::R2, 46 + shift);
    addressed(asm, &group.v6, exits.pass, |asm, address, next| {
        let [upper, lower] = halves(address);
        asm.set_double(Reg::R0, upper);
        asm.jump_unequal(Reg::R4, Reg::R0, next);
        asm.set_double(Reg::R0, lower);
        asm.jump_equal(Reg::R5, Reg::R0, exits.redirect);
    });
}

/// Goes through the ports and the addresses of each; `compare` leads away if the address is the one
/// given, else to its label.
fn addressed<A: Copy>(
    asm: &mut Assembler,
    ports: &Ports<A>,
    pass: Label,
    compare: impl Fn(&mut Assembler, A, Label),
) {
    for (&port, addresses) in ports {
        let other_port = asm.label();
        asm.jump_unequal_w(Reg::R3, half(port.to_be_bytes()), other_port);
        for &address in addresses {
            let next = asm.label();
            compare(asm, address, next);
            asm.place(next);
        }
        asm.jump(pass);
        asm.place(other_port);
    }
    asm.jump(pass);
}

/// Frames shorter than `len` leave; the verifier then allows loads up to there.
fn bound(asm: &mut Assembler, len: i32, shorter: Label) {
    asm.copy(Reg::R0, Reg::R2);
    asm.add(Reg::R0, len);
    asm.jump_above(Reg::R0, Reg::R3, shorter);
}

fn group(targets: &[Target]) -> BTreeMap<Option<u16>, Group> {
    let mut groups = BTreeMap::<_, Group>::new();
    for target in targets {
        let group = groups.entry(target.vlan).or_default();
        match target.address {
            IpAddr::V4(address) => group.v4.entry(target.port).or_default().push(address),
            IpAddr::V6(address) => group.v6.entry(target.port).or_default().push(address),
        }
    }
    groups
}

/// What a load of two bytes of a frame brings.
fn half(bytes: [u8; 2]) -> i32 {
    u16::from_ne_bytes(bytes).into()
}

/// What a load of four bytes of a frame brings.
fn word(bytes: [u8; 4]) -> i32 {
    i32::from_ne_bytes(bytes)
}

/// What two loads of eight bytes of a frame bring.
fn halves(address: Ipv6Addr) -> [u64; 2] {
    let bits = address.to_bits();
    [(bits >> 64) as u64, bits as u64].map(u64::to_be)
}

#[cfg(test)]
mod tests;
