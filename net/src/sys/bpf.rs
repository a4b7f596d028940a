//! BPF: maps, a program for XDP and its link to an interface (bpf(2)).
//!
//! Each request is a structure of the kernel's union `bpf_attr` (linux/bpf.h), up to the last field
//! that is used: the kernel takes the rest as zero. Descriptors are closed on exec.
#![expect(unsafe_code, reason = "bpf(2) takes addresses in its structures")]

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Commands.
const MAP_CREATE: u32 = 0;
const MAP_LOOKUP_ELEM: u32 = 1;
const MAP_UPDATE_ELEM: u32 = 2;
const PROG_LOAD: u32 = 5;
#[cfg(test)]
const PROG_TEST_RUN: u32 = 10;
const PROG_GET_FD_BY_ID: u32 = 13;
const OBJ_GET_INFO_BY_FD: u32 = 15;
const LINK_CREATE: u32 = 28;

/// Types.
const MAP_TYPE_PERCPU_ARRAY: u32 = 6;
const MAP_TYPE_XSKMAP: u32 = 17;
const PROG_TYPE_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;

/// XDP_FLAGS_SKB_MODE and XDP_FLAGS_DRV_MODE (linux/if_link.h).
const FLAG_GENERIC: u32 = 1 << 1;
const FLAG_NATIVE: u32 = 1 << 2;

/// How often a load is tried again that was interrupted by a signal (EAGAIN from the verifier).
const LOAD_TRIES: usize = 5;

/// Bytes for what the verifier says about a program that it refuses.
const LOG_LEN: usize = 64 * 1024;

/// Bytes of a name (BPF_OBJ_NAME_LEN), the last of which is 0.
const NAME_LEN: usize = 16;

/// What is said of the program's licence; `bpf_redirect_map` asks for none.
const LICENSE: &[u8] = b"MIT\0";

/// One instruction (`struct bpf_insn`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Insn {
    pub(crate) code: u8,
    /// Destination in the low four bits, source in the high ones; the other way round on a
    /// big-endian machine.
    pub(crate) registers: u8,
    pub(crate) offset: i16,
    pub(crate) immediate: i32,
}

/// AF_XDP sockets by queue (an XSKMAP).
#[derive(Debug)]
pub(crate) struct SocketMap(OwnedFd);

/// `N` counters, of which each CPU has its own (a per-CPU array with one entry).
#[derive(Debug)]
pub(crate) struct Counters<const N: usize> {
    map: OwnedFd,
    cpus: usize,
}

/// A program in the kernel, for XDP.
#[derive(Debug)]
pub(crate) struct Program(OwnedFd);

/// A program's place on an interface. Dropped by the last process that has it, the program is off.
#[derive(Debug)]
pub(crate) struct Link(#[expect(dead_code, reason = "held open")] OwnedFd);

/// Why a program wasn't loaded.
#[derive(Debug)]
pub(crate) struct LoadError {
    pub(crate) source: io::Error,
    /// What the verifier said; empty if it wasn't asked.
    pub(crate) log: String,
}

impl SocketMap {
    /// A map for queues below `queues`.
    pub(crate) fn create(name: &str, queues: u32) -> io::Result<Self> {
        create_map(MAP_TYPE_XSKMAP, size_of::<u32>(), queues, name).map(Self)
    }

    /// The socket of a queue; it needs its rings and memory, not its address.
    pub(crate) fn set(&self, queue: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
        let value = socket.as_raw_fd();
        let mut attr = Element {
            map: self.0.as_raw_fd(),
            pad: 0,
            key: address(&raw const queue),
            value: address(&raw const value),
            flags: 0,
        };
        // SAFETY: the key and the value are four bytes each, as the map was made, and outlive the
        // call.
        unsafe { bpf(MAP_UPDATE_ELEM, &mut attr) }.map(drop)
    }

    pub(crate) fn as_raw_fd(&self) -> i32 {
        self.0.as_raw_fd()
    }
}

impl<const N: usize> Counters<N> {
    pub(crate) fn create(name: &str) -> io::Result<Self> {
        let cpus = possible_cpus()?;
        let map = create_map(MAP_TYPE_PERCPU_ARRAY, size_of::<[u64; N]>(), 1, name)?;
        Ok(Self { map, cpus })
    }

    /// The sums over all CPUs.
    pub(crate) fn read(&self) -> io::Result<[u64; N]> {
        let key = 0u32;
        let mut values = vec![[0u64; N]; self.cpus];
        let mut attr = Element {
            map: self.map.as_raw_fd(),
            pad: 0,
            key: address(&raw const key),
            value: address(values.as_mut_ptr()),
            flags: 0,
        };
        // SAFETY: the kernel writes a value for each possible CPU, and there is room for as many;
        // both buffers outlive the call.
        unsafe { bpf(MAP_LOOKUP_ELEM, &mut attr) }?;
        let sum = |at: usize| values.iter().map(|value| value[at]).sum();
        Ok(std::array::from_fn(sum))
    }

    pub(crate) fn as_raw_fd(&self) -> i32 {
        self.map.as_raw_fd()
    }
}

impl Program {
    /// Has the kernel verify and load a program. If it doesn't, it is asked once more for what is
    /// wrong.
    pub(crate) fn load_xdp(name: &str, instructions: &[Insn]) -> Result<Self, LoadError> {
        let source = match load(name, instructions, &mut []) {
            Ok(program) => return Ok(program),
            Err(error) => error,
        };
        let mut log = Vec::new();
        if matches!(source.raw_os_error(), Some(libc::EACCES | libc::EINVAL | libc::E2BIG)) {
            log = vec![0; LOG_LEN];
            if let Ok(program) = load(name, instructions, &mut log) {
                return Ok(program);
            }
        }
        let end = log.iter().position(|&byte| byte == 0).unwrap_or(log.len());
        Err(LoadError { source, log: String::from_utf8_lossy(&log[..end]).into_owned() })
    }

    /// Attaches it in the driver, or behind it, where nothing is yet.
    pub(crate) fn attach_xdp(&self, interface: u32, generic: bool) -> io::Result<Link> {
        let mut attr = LinkCreate {
            program: self.0.as_raw_fd(),
            interface,
            attach_type: ATTACH_XDP,
            flags: if generic { FLAG_GENERIC } else { FLAG_NATIVE },
        };
        // SAFETY: there are no addresses in it.
        let fd = unsafe { bpf(LINK_CREATE, &mut attr) }?;
        Ok(Link(owned(fd)))
    }

    /// Runs it `repeat` times on a frame: what it returned, and nanoseconds a run.
    #[cfg(test)]
    pub(crate) fn test_run(&self, frame: &[u8], repeat: u32) -> io::Result<(u32, u32)> {
        let mut attr = TestRun {
            program: self.0.as_raw_fd(),
            returned: 0,
            len_in: frame.len() as u32,
            len_out: 0,
            data_in: address(frame.as_ptr()),
            data_out: 0,
            repeat,
            duration: 0,
        };
        // SAFETY: the address and the length describe `frame`; no output is asked for.
        unsafe { bpf(PROG_TEST_RUN, &mut attr) }?;
        Ok((attr.returned, attr.duration))
    }
}

/// The name of any program; `None` without CAP_SYS_ADMIN, or if it has gone or has none.
pub(crate) fn program_name(id: u32) -> Option<String> {
    let mut attr = ById { id, next: 0, flags: 0 };
    // SAFETY: there are no addresses in it.
    let program = owned(unsafe { bpf(PROG_GET_FD_BY_ID, &mut attr) }.ok()?);
    let mut info = ProgramInfo { before: [0; 8], name: [0; NAME_LEN] };
    let mut attr = InfoByFd {
        fd: program.as_raw_fd(),
        len: size_of::<ProgramInfo>() as u32,
        info: address(&raw mut info),
    };
    // SAFETY: the address and the length describe `info`, which outlives the call. All addresses in
    // it are zero, so that the kernel writes to no others.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attr) }.ok()?;
    let end = info.name.iter().position(|&byte| byte == 0).unwrap_or(NAME_LEN);
    let name = String::from_utf8_lossy(&info.name[..end]).into_owned();
    (!name.is_empty()).then_some(name)
}

fn load(name: &str, instructions: &[Insn], log: &mut [u8]) -> io::Result<Program> {
    let mut attr = ProgramLoad {
        kind: PROG_TYPE_XDP,
        count: instructions.len() as u32,
        instructions: address(instructions.as_ptr()),
        license: address(LICENSE.as_ptr()),
        log_level: u32::from(!log.is_empty()),
        log_len: log.len() as u32,
        log: if log.is_empty() { 0 } else { address(log.as_mut_ptr()) },
        kernel_version: 0,
        flags: 0,
        name: padded(name),
        interface: 0,
        attach_type: ATTACH_XDP,
    };
    let mut tries = 0;
    loop {
        // SAFETY: the addresses and the lengths describe the instructions, the log and the licence,
        // which ends with a zero; all outlive the call.
        match unsafe { bpf(PROG_LOAD, &mut attr) } {
            Ok(fd) => return Ok(Program(owned(fd))),
            Err(error) if is_interruption(&error) && tries < LOAD_TRIES => tries += 1,
            Err(error) => return Err(error),
        }
    }
}

fn create_map(kind: u32, value_len: usize, entries: u32, name: &str) -> io::Result<OwnedFd> {
    let mut attr = MapCreate {
        kind,
        key_len: size_of::<u32>() as u32,
        value_len: value_len as u32,
        entries,
        flags: 0,
        inner: 0,
        node: 0,
        name: padded(name),
    };
    // SAFETY: there are no addresses in it.
    unsafe { bpf(MAP_CREATE, &mut attr) }.map(owned)
}

/// How many values the kernel has for each entry of a per-CPU map: all CPUs that may ever be there.
fn possible_cpus() -> io::Result<usize> {
    let list = fs::read_to_string("/sys/devices/system/cpu/possible")?;
    // Ranges in ascending order, `0-3` or `0-1,4-7`; the kernel copies as many as are set, which is
    // at most the last one's number and one.
    let last = list.trim().rsplit([',', '-']).next().and_then(|last| last.parse::<usize>().ok());
    last.map(|last| last + 1).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn is_interruption(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR))
}

fn padded(name: &str) -> [u8; NAME_LEN] {
    let mut padded = [0; NAME_LEN];
    for (to, from) in padded[..NAME_LEN - 1].iter_mut().zip(name.bytes()) {
        *to = from;
    }
    padded
}

fn address<T>(pointer: *const T) -> u64 {
    pointer.expose_provenance() as u64
}

/// Takes over what a command returned that makes a descriptor.
fn owned(fd: i32) -> OwnedFd {
    // SAFETY: the kernel made it for this call, and nobody else has it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// One command.
///
/// # Safety
/// The addresses in `attr` must be valid for what the command reads and writes there.
unsafe fn bpf<A: Attr>(command: u32, attr: &mut A) -> io::Result<i32> {
    // SAFETY: the pointer and the length describe `attr`; the rest is the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<A>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

/// A part of `union bpf_attr`: C structures of integers without padding.
trait Attr {}

#[repr(C)]
struct MapCreate {
    kind: u32,
    key_len: u32,
    value_len: u32,
    entries: u32,
    flags: u32,
    inner: u32,
    node: u32,
    name: [u8; NAME_LEN],
}

#[repr(C)]
struct Element {
    map: i32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct ProgramLoad {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_len: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; NAME_LEN],
    interface: u32,
    attach_type: u32,
}

#[repr(C)]
struct LinkCreate {
    program: i32,
    interface: u32,
    attach_type: u32,
    flags: u32,
}

#[cfg(test)]
#[repr(C)]
struct TestRun {
    program: i32,
    returned: u32,
    len_in: u32,
    len_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
}

#[repr(C)]
struct ById {
    id: u32,
    next: u32,
    flags: u32,
}

#[repr(C)]
struct InfoByFd {
    fd: i32,
    len: u32,
    info: u64,
}

/// `struct bpf_prog_info` up to the name.
#[repr(C)]
struct ProgramInfo {
    before: [u64; 8],
    name: [u8; NAME_LEN],
}

impl Attr for MapCreate {}
impl Attr for Element {}
impl Attr for ProgramLoad {}
impl Attr for LinkCreate {}
#[cfg(test)]
impl Attr for TestRun {}
impl Attr for ById {}
impl Attr for InfoByFd {}
