//! A socket whose readiness tokio watches, but only while it is idle.
//!
//! A socket in an epoll set pays for it with every datagram, ready or not, slept on or not: each
//! one that arrives and, where the device frees it at once (loopback, veth), each one that leaves
//! walks the socket's wait queue into epoll. That is a tenth of the cost of a whole answer. So the
//! runtime watches a gate, an epoll set of its own that holds the socket while it is idle and
//! nothing while it is busy. Entering the gate reports what has arrived before, so nothing is
//! missed in between.
#![expect(
    unsafe_code,
    reason = "epoll_create1(2), epoll_ctl(2), and tokio's promise that a descriptor stays what it was"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::pin::Pin;
use std::ptr::null_mut;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::Socket;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Sleep, sleep};

/// How often a socket that could not enter its gate is looked at. Its task must wait for something:
/// one that is ready whenever it is asked never lets the runtime run a timer or another task.
/// Tokio's timers have steps of 1 ms, so a receive buffer must hold what comes in 2 ms.
const LOOK: Duration = Duration::from_millis(1);

/// A socket and its gate.
///
/// Invariant: the gate's descriptor is never replaced or taken out. An unwatched socket counts as
/// ready, except when it was seen empty and could not enter its gate: then it is ready every
/// [`LOOK`].
pub(crate) struct Watched {
    socket: Socket,
    gate: AsyncFd<OwnedFd>,
    watched: bool,
    /// Runs while the socket, empty, is kept out of its gate.
    look: Option<Pin<Box<Sleep>>>,
}

impl Watched {
    /// Registers a socket with the current tokio runtime, watched.
    pub(crate) fn new(socket: Socket) -> io::Result<Self> {
        let gate = readable(new_epoll()?)?;
        let mut watched = Self { socket, gate, watched: false, look: None };
        watched.watch()?;
        Ok(watched)
    }

    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Ready when the socket may be readable; else the task is woken when it becomes so.
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.look {
            _ if self.watched => self.gate.poll_read_ready(cx).map_ok(drop),
            Some(look) => look.as_mut().poll(cx).map(Ok),
            None => Poll::Ready(Ok(())),
        }
    }

    /// Runs `read` if the socket may be readable. When that returns `WouldBlock`, it isn't ready
    /// any more until the kernel reports a new datagram. Returns `WouldBlock` without running it on
    /// a socket that isn't ready.
    pub(crate) fn try_read<R>(
        &mut self,
        read: impl FnOnce(&Socket) -> io::Result<R>,
    ) -> io::Result<R> {
        if self.watched {
            return self.gate.try_io(Interest::READABLE, |_| read(&self.socket));
        }
        let result = read(&self.socket);
        let is_empty =
            result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        // No memory, or no watch left to this user (fs.epoll.max_user_watches).
        let kept_out = is_empty && self.watch().is_err();
        self.look = kept_out.then(|| Box::pin(sleep(LOOK)));
        result
    }

    /// Whether `try_read` would read now.
    #[cfg(feature = "io-uring")]
    pub(crate) fn is_ready(&self) -> bool {
        !self.watched || self.gate.try_io(Interest::READABLE, |_| Ok(())).is_ok()
    }

    /// As after a `try_read` that returned `WouldBlock`.
    #[cfg(feature = "io-uring")]
    pub(crate) fn set_empty(&mut self) {
        let _ = self.try_read(|_| Err::<(), _>(io::ErrorKind::WouldBlock.into()));
    }

    /// Takes a busy socket out of the gate, until `try_read` finds it empty.
    pub(crate) fn unwatch(&mut self) {
        if self.watched {
            self.watched =
                control(self.gate.get_ref().as_fd(), libc::EPOLL_CTL_DEL, &self.socket).is_err();
        }
    }

    fn watch(&mut self) -> io::Result<()> {
        // What tokio knows is from the time before. Nothing is lost: the runtime looks at the gate
        // only when this task yields, and entering it is what reports datagrams.
        let _ = self
            .gate
            .try_io(Interest::READABLE, |_| Err::<(), _>(io::ErrorKind::WouldBlock.into()));
        control(self.gate.get_ref().as_fd(), libc::EPOLL_CTL_ADD, &self.socket)?;
        self.watched = true;
        Ok(())
    }
}

/// Registers a descriptor with the current tokio runtime, which tells when it becomes readable.
pub(crate) fn readable(file: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the value owns its descriptor and returns the same one for as long as it lives; whoever
    // has the registration must neither lend it mutably nor give it away before that ends.
    let registered = unsafe { AsyncFd::register_with_interest(file, Interest::READABLE) };
    Ok(registered?)
}

fn new_epoll() -> io::Result<OwnedFd> {
    // SAFETY: no pointers are passed.
    let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn control(epoll: BorrowedFd<'_>, operation: libc::c_int, socket: &Socket) -> io::Result<()> {
    let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 };
    let event = if operation == libc::EPOLL_CTL_DEL { null_mut() } else { &raw mut event };
    // SAFETY: `event` is null, which EPOLL_CTL_DEL allows, or valid for the time of the call.
    let result =
        unsafe { libc::epoll_ctl(epoll.as_raw_fd(), operation, socket.as_raw_fd(), event) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::future::poll_fn;
    use std::net::{SocketAddr, UdpSocket};
    use std::task::Waker;

    use tokio::runtime::{Builder, Runtime};

    use super::*;

    fn drained(watched: &mut Watched) -> bool {
        let result: io::Result<()> = watched.try_read(|socket| {
            let mut buf = [std::mem::MaybeUninit::uninit(); 1];
            while socket.recv(&mut buf)? > 0 {}
            Ok(())
        });
        result.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// A bound socket, watched, and its address.
    fn watched(runtime: &Runtime) -> (Watched, SocketAddr) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        (runtime.block_on(async { Watched::new(socket.into()) }).unwrap(), address)
    }

    fn ready(runtime: &Runtime, watched: &mut Watched) {
        let ready = poll_fn(|cx| watched.poll_ready(cx));
        let patience = Duration::from_secs(10);
        runtime.block_on(async { tokio::time::timeout(patience, ready).await.unwrap() }).unwrap();
    }

    fn idle(watched: &mut Watched) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        watched.poll_ready(&mut cx).is_pending()
    }

    #[test]
    fn a_socket_kept_out_of_its_gate_lets_the_runtime_run() {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (mut watched, address) = watched(&runtime);
        watched.unwatch();
        // What epoll refuses: a regular file (EPERM).
        let file = File::open("/proc/self/exe").unwrap();
        let socket = std::mem::replace(&mut watched.socket, OwnedFd::from(file).into());
        let turns = runtime.block_on(async {
            let other = tokio::spawn(sleep(Duration::from_millis(20)));
            let mut turns = 0;
            while !other.is_finished() && turns < 10_000 {
                let empty = watched.try_read(|_| Err::<(), _>(io::ErrorKind::WouldBlock.into()));
                assert!(empty.is_err() && !watched.watched);
                poll_fn(|cx| watched.poll_ready(cx)).await.unwrap();
                turns += 1;
            }
            turns
        });
        assert!((1..=20).contains(&turns), "{turns} turns in 20 ms");

        // What comes in is found meanwhile, and the gate is tried again.
        watched.socket = socket;
        client.send_to(b"x", address).unwrap();
        ready(&runtime, &mut watched);
        assert!(watched.try_read(|_| Ok(())).is_ok());
        assert!(!idle(&mut watched), "not seen empty");
        runtime.block_on(async { assert!(drained(&mut watched)) });
        assert!(watched.watched && idle(&mut watched));
        client.send_to(b"x", address).unwrap();
        ready(&runtime, &mut watched);
    }

    #[test]
    fn what_arrives_on_either_side_of_the_gate_is_reported() {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (mut watched, address) = watched(&runtime);
        assert!(idle(&mut watched));
        for _ in 0..3 {
            client.send_to(b"x", address).unwrap();
            ready(&runtime, &mut watched);
            watched.unwatch();
            assert!(!idle(&mut watched), "an unwatched socket counts as ready");
            assert!(drained(&mut watched) && idle(&mut watched));

            // Between the last look at the socket and its return to the gate.
            watched.unwatch();
            let result: io::Result<()> = watched.try_read(|_| {
                client.send_to(b"x", address)?;
                Err(io::ErrorKind::WouldBlock.into())
            });
            assert!(result.is_err());
            ready(&runtime, &mut watched);
            assert!(drained(&mut watched) && idle(&mut watched));
        }
    }
}
