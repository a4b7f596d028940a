//! From a request to filters on their interfaces and queues for the workers; and what they counted.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::batch::{Destination, Destinations};
use super::error::{Step, XdpError};
use super::filter::{Filter, Link, Target};
use super::frame::{ETHERNET_MAX, Local};
use super::interface::{Interface, attached, is_asked, plan};
use super::queue::{HEADROOM, Queue, RING_LEN, Tally};
use super::{Mode, Request, Share};
use crate::socket::is_wildcard;
use crate::sys::sockopt;
use crate::sys::umem::{Frame, Umem};
use crate::sys::xsk::{self, Copying, Failed, Xsk, statistics};

/// Lengths of a frame that the kernel allows: one half page, or a whole one for long packets.
const FRAME_LENS: [usize; 2] = [2048, 4096];

/// Bytes that the socket's replies may occupy in the kernel: the whole ring, some 1 KiB each.
const SEND_BUFFER: i32 = 4 << 20;

/// How long a queue may take to be free after the socket that had it was closed: the kernel lets go of
/// it in a work queue, after a grace period (up to 1.5 s was seen on a busy machine, mostly 0.1 s). And
/// how often that is looked at.
const RELEASE: Duration = Duration::from_secs(5);
const RELEASE_LOOK: Duration = Duration::from_millis(2);

/// SO_PREFER_BUSY_POLL and SO_BUSY_POLL_BUDGET (asm-generic/socket.h, Linux 5.11).
const SO_PREFER_BUSY_POLL: i32 = 69;
const SO_BUSY_POLL_BUDGET: i32 = 70;

/// The filters on their interfaces. They vanish when this is dropped or the process ends, in
/// whatever way; the frames then take the kernel's way to the ordinary sockets.
#[derive(Default)]
pub struct Attachment {
    filters: Vec<Filter>,
    links: Mutex<Vec<Link>>,
    interfaces: Vec<Served>,
    queues: Vec<Watcher>,
}

/// One interface whose frames are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// Its name.
    pub name: String,
    /// As the log says it: `native, zero-copy`, `native, copy`, `generic, copy`.
    pub mode: &'static str,
    /// The receive queues taken.
    pub queues: Vec<u32>,
    /// Why the filter is behind the driver, where [`Mode::Auto`] would have had it in the driver.
    pub why_generic: Option<String>,
    /// How long its queues took to be free: whoever had them before was still leaving.
    pub waited: Duration,
}

/// What the filter of one interface did since it was attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FilterCounts {
    /// Queries given to AF_XDP sockets.
    pub redirected: u64,
    /// Queries that came by a queue without a socket, and went on to the kernel.
    pub unserved: u64,
    /// Everything else: left to the kernel.
    pub passed: u64,
}

/// What became of the frames of one queue. Of those that the filter redirected to it, each was
/// received, dropped or found the ring full, or is on its way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueCounts {
    /// The interface's name.
    pub interface: String,
    /// The queue's number.
    pub queue: u32,
    /// Frames that the worker took from the ring, whatever became of them.
    pub received: u64,
    /// Replies given to the kernel.
    pub answered: u64,
    /// `None` if the kernel doesn't say.
    pub kernel: Option<KernelCounts>,
}

/// What the kernel counts at the socket of a queue (XDP_STATISTICS).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelCounts {
    /// Frames that the kernel dropped for want of a free frame of ours (`rx_dropped`).
    pub dropped: u64,
    /// Frames that the kernel dropped because the receive ring was full (`rx_ring_full`).
    pub ring_full: u64,
    /// How often the kernel found the fill ring empty; each is counted as dropped too in copy mode.
    pub fill_empty: u64,
    /// Replies of ours whose descriptors the kernel found invalid: always 0, or a defect.
    pub invalid: u64,
}

/// What is left with the attachment of a queue that a worker has.
struct Watcher {
    /// Index of its interface and filter.
    filter: usize,
    queue: u32,
    tally: Arc<Tally>,
    socket: OwnedFd,
}

/// Attaches a filter to each interface and opens a socket for each of its queues; one share of
/// them for each worker, some of which may be empty.
pub fn open(request: &Request) -> Result<(Attachment, Vec<Share>), XdpError> {
    let mut attachment = Attachment::default();
    let busy_poll = request.busy_poll_us > 0;
    let mut shares: Vec<Share> = Vec::new();
    shares.resize_with(request.workers.max(1), || Share { queues: Vec::new(), busy_poll });
    let plan = plan(&request.listeners, &request.interfaces)?;
    // A conflict ends the start, whatever else is wrong.
    for (Interface { name, index, .. }, _) in &plan {
        let program = attached(*index).map_err(XdpError::at(Step::ListInterfaces, name, None))?;
        if let Some(program) = program {
            return Err(XdpError::Attached { interface: name.clone(), program });
        }
    }
    for (interface, targets) in &plan {
        let (name, drops) = (&interface.name, interface.drops_its_own());
        let drops = drops.map_err(XdpError::at(Step::ListInterfaces, name, None))?;
        if drops && targets.iter().any(|target| target.address.is_ipv4()) {
            return Err(XdpError::Martians { interface: name.clone() });
        }
    }
    for (interface, targets) in plan {
        for (queue, number) in attachment.add(request, &interface, &targets)? {
            let worker = number as usize % shares.len();
            shares[worker].queues.push(queue);
        }
    }
    attachment.begin()?;
    Ok((attachment, shares))
}

impl Attachment {
    /// Attaches the filter, then binds a socket to each queue: some drivers only make room for
    /// sockets when they have a program. No frame comes yet.
    pub(super) fn add(
        &mut self,
        request: &Request,
        interface: &Interface,
        targets: &[Target],
    ) -> Result<Vec<(Queue, u32)>, XdpError> {
        let all = 0..interface.queues;
        let numbers = request.queues.clone().unwrap_or_else(|| all.clone().collect());
        if let Some(&queue) = numbers.iter().find(|queue| !all.contains(queue)) {
            let (interface, queues) = (interface.name.clone(), interface.queues);
            return Err(XdpError::NoQueue { interface, queue, queues });
        }
        // A tag may be in front of the longest packet.
        let longest = interface.mtu as usize + ETHERNET_MAX;
        let [short, long] = FRAME_LENS;
        let frame_len = if HEADROOM + longest <= short { short } else { long };
        let max_frame = longest.min(frame_len - HEADROOM) as u32;
        let filter = Filter::load(interface.mac, targets, interface.queues, max_frame)?;
        let (link, native, why_generic) = attach(&filter, interface, request.mode)?;
        self.links.get_mut().unwrap_or_else(PoisonError::into_inner).push(link);
        let copying = match request.mode {
            Mode::ZeroCopy => Copying::Never,
            Mode::Auto if native => Copying::AsNeeded,
            _ => Copying::Always,
        };
        let mut queues = Vec::new();
        let (mut zero_copy, mut waited) = (true, Duration::ZERO);
        for &number in &numbers {
            let at = |step| XdpError::at(step, &interface.name, number);
            let opened = open_socket(frame_len, request, at)?;
            let destinations = destinations(&request.listeners, targets);
            let mut queue = Queue::new(opened, destinations, request.batch, seed());
            let bind = Step::Bind { zero_copy: copying == Copying::Never };
            waited +=
                once_free(|| queue.bind(interface.index, number, copying)).map_err(at(bind))?;
            zero_copy &= queue.is_zero_copy();
            let socket = queue.socket().try_clone_to_owned().map_err(at(Step::Tune))?;
            let (filter, tally) = (self.filters.len(), Arc::clone(queue.tally()));
            self.queues.push(Watcher { filter, queue: number, tally, socket });
            queues.push((queue, number));
        }
        self.filters.push(filter);
        let mode = match (native, zero_copy) {
            (true, true) => "native, zero-copy",
            (true, false) => "native, copy",
            (false, _) => "generic, copy",
        };
        let (name, why_generic) = (interface.name.clone(), why_generic.map(|why| why.to_string()));
        self.interfaces.push(Served { name, mode, queues: numbers, why_generic, waited });
        Ok(queues)
    }

    /// Gives the frames to the sockets, all of which are there now.
    pub(super) fn begin(&self) -> Result<(), XdpError> {
        let mut queues = self.queues.iter();
        queues.try_for_each(|at| self.filters[at.filter].serve(at.queue, at.socket.as_fd()))
    }

    /// The interfaces, in the order of [`filter_counts`](Self::filter_counts).
    #[must_use]
    pub fn interfaces(&self) -> &[Served] {
        &self.interfaces
    }

    /// Takes the filters off: from here on the kernel has all frames. Called again, nothing happens.
    pub fn detach(&self) {
        self.links.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// What the filters did, as far as the kernel says.
    #[must_use]
    pub fn filter_counts(&self) -> Vec<Option<FilterCounts>> {
        self.filters.iter().map(Filter::counts).collect()
    }

    /// What became of the frames of each queue of all interfaces.
    #[must_use]
    pub fn queue_counts(&self) -> Vec<QueueCounts> {
        self.queues.iter().map(|at| at.counts(&self.interfaces[at.filter].name)).collect()
    }
}

/// Attaches natively if the mode and the driver allow. Returns whether it is native, or else what the
/// driver said if it was asked.
fn attach(
    filter: &Filter,
    interface: &Interface,
    mode: Mode,
) -> Result<(Link, bool, Option<XdpError>), XdpError> {
    let refusal = match mode {
        Mode::Generic => None,
        _ => match filter.attach(interface, false) {
            Ok(link) => return Ok((link, true, None)),
            Err(error) if mode != Mode::Auto || !error.is_for_native() => return Err(error),
            Err(error) => Some(error),
        },
    };
    Ok((filter.attach(interface, true)?, false, refusal))
}

/// Opens a socket over memory of its own.
fn open_socket<E>(
    frame_len: usize,
    request: &Request,
    at: impl Fn(Step) -> E,
) -> Result<(Xsk, Vec<Frame>), XdpError>
where
    E: FnOnce(io::Error) -> XdpError,
{
    let count = 2 * RING_LEN;
    let memory = Step::RegisterMemory { bytes: u64::from(count) * frame_len as u64 };
    let (umem, frames) = Umem::new(frame_len, count).map_err(at(memory))?;
    let xsk = Xsk::open(umem, RING_LEN).map_err(|Failed { step, source }| {
        at(match step {
            xsk::Step::Socket => Step::OpenSocket,
            xsk::Step::Memory => memory,
            xsk::Step::Rings => Step::SetUpRings,
        })(source)
    })?;
    set_send_buffer(xsk.as_fd()).map_err(at(Step::Tune))?;
    if request.busy_poll_us > 0 {
        poll_busily(xsk.as_fd(), request).map_err(at(Step::PollBusily))?;
    }
    Ok((xsk, frames))
}

/// Binds a queue that a predecessor may still be leaving. Returns how long that took.
fn once_free(mut bind: impl FnMut() -> io::Result<()>) -> io::Result<Duration> {
    let begun = Instant::now();
    loop {
        let (bound, waited) = (bind(), begun.elapsed());
        match bound {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && waited < RELEASE => {
                thread::sleep(RELEASE_LOOK);
            }
            bound => return bound.map(|()| waited),
        }
    }
}

/// Makes room for replies.
fn set_send_buffer(socket: BorrowedFd<'_>) -> io::Result<()> {
    let set = |name| sockopt::set(socket, libc::SOL_SOCKET, name, SEND_BUFFER);
    set(libc::SO_SNDBUFFORCE).or_else(|_| set(libc::SO_SNDBUF))
}

/// Has the kernel poll the device, a batch at most, when it is asked to look.
fn poll_busily(socket: BorrowedFd<'_>, request: &Request) -> io::Result<()> {
    let number = |value: usize| i32::try_from(value).unwrap_or(i32::MAX);
    let set = |name, value| sockopt::set(socket, libc::SOL_SOCKET, name, value);
    set(SO_PREFER_BUSY_POLL, 1)?;
    set(libc::SO_BUSY_POLL, number(request.busy_poll_us as usize))?;
    set(SO_BUSY_POLL_BUDGET, number(request.batch))
}

/// A number that nobody can foresee: the standard library's hash keys are random.
fn seed() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Where the queries to these targets belong: to the listener with that very address, or else to one
/// bound to a wildcard.
fn destinations(listeners: &[SocketAddr], targets: &[Target]) -> Destinations {
    let listener_of = |target: &Target| {
        let asks = |listener: &SocketAddr| {
            listener.port() == target.port && is_asked(listener, target.interface, target.address)
        };
        let of_kind = |wildcard| {
            let asks = |listener| is_wildcard(listener) == wildcard && asks(listener);
            listeners.iter().position(asks)
        };
        of_kind(false).or_else(|| of_kind(true))
    };
    let destination = |target: &Target| {
        let listener = listener_of(target)?;
        let wildcard = is_wildcard(&listeners[listener]);
        let Target { interface, mtu, .. } = *target;
        let local = Local::new(target.vlan, target.address, target.port);
        Some((local, Destination { listener: listener as u16, wildcard, interface, mtu }))
    };
    Destinations::new(targets.iter().filter_map(destination))
}

impl Watcher {
    fn counts(&self, interface: &str) -> QueueCounts {
        let kernel = statistics(self.socket.as_fd()).ok();
        QueueCounts {
            interface: interface.to_owned(),
            queue: self.queue,
            received: self.tally.received.load(Relaxed),
            answered: self.tally.answered.load(Relaxed),
            kernel: kernel.map(KernelCounts::from),
        }
    }
}

impl From<libc::xdp_statistics> for KernelCounts {
    fn from(counts: libc::xdp_statistics) -> Self {
        Self {
            dropped: counts.rx_dropped,
            ring_full: counts.rx_ring_full,
            fill_empty: counts.rx_fill_ring_empty_descs,
            invalid: counts.tx_invalid_descs,
        }
    }
}

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attachment").field("interfaces", &self.interfaces).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_is_taken_is_waited_for_and_nothing_else() {
        const LEAVING: Duration = Duration::from_millis(20);
        let mut first_try = None;
        let leaving = || match first_try.get_or_insert_with(Instant::now).elapsed() < LEAVING {
            true => Err(io::Error::from_raw_os_error(libc::EBUSY)),
            false => Ok(()),
        };
        assert!(once_free(leaving).unwrap() >= LEAVING);
        let mut tries = 0;
        let error = once_free(|| {
            tries += 1;
            Err(io::Error::from_raw_os_error(libc::EINVAL))
        });
        assert_eq!((error.unwrap_err().raw_os_error(), tries), (Some(libc::EINVAL), 1));
    }
}
