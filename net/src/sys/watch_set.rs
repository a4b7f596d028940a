//! Many descriptors watched as one: an epoll set of our own inside of tokio's.
//!
//! Tokio gives each descriptor a registration and a task's waker of its own; here one task serves
//! them all, told by a number which of them has something. A wake of that task costs one
//! epoll_wait(2) for up to [`MAX_EVENTS`] descriptors.
//!
//! The set is level-triggered, tokio's watch on it edge-triggered. What the task leaves unread
//! therefore comes again with the next [`take`](WatchSet::take), but only something new wakes the
//! task: whoever leaves something that is waited for takes again before it sleeps.
//!
//! Invariant: a descriptor leaves the set by being closed, so it must never be duplicated.
#![expect(
    unsafe_code,
    reason = "epoll_create1(2), epoll_ctl(2), epoll_wait(2), and tokio's promise that a descriptor stays what it was"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Descriptors reported at a time.
pub const MAX_EVENTS: usize = 64;

/// The set. Nothing is allocated after its creation.
#[derive(Debug)]
pub struct WatchSet {
    epoll: Arc<OwnedFd>,
}

/// Tokio's watch on a set, for the one task that serves it.
#[derive(Debug)]
pub struct Watch {
    registered: AsyncFd<Arc<OwnedFd>>,
}

impl WatchSet {
    /// An empty set.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers are passed.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and belongs to nobody else.
        let epoll = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { epoll: Arc::new(epoll) })
    }

    /// Watches a descriptor for something to read and for errors, until it is closed. `token` is
    /// what it is called from now on.
    pub fn add(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: token };
        let (epoll, fd) = (self.epoll.as_raw_fd(), fd.as_fd().as_raw_fd());
        // SAFETY: `event` is valid for the time of the call.
        let result = unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &raw mut event) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// The tokens of descriptors that have something to read or an error, without waiting. Returns
    /// how many there are; if they fill the array there may be more.
    pub fn take(&self, tokens: &mut [u64; MAX_EVENTS]) -> usize {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; MAX_EVENTS];
        // SAFETY: the pointer and the count describe `events`, which outlives the call.
        let count = unsafe {
            libc::epoll_wait(
                self.epoll.as_raw_fd(),
                events.as_mut_ptr(),
                MAX_EVENTS as libc::c_int,
                0,
            )
        };
        // It fails only when a signal interrupts it, and is called again then.
        let count = usize::try_from(count).unwrap_or(0);
        for (token, event) in tokens.iter_mut().zip(&events[..count]) {
            *token = event.u64;
        }
        count
    }

    /// Registers the set with the current tokio runtime.
    pub fn watch(&self) -> io::Result<Watch> {
        let epoll = Arc::clone(&self.epoll);
        // SAFETY: the shared descriptor stays the same for as long as any of its owners lives, and
        // the registration is one of them.
        let registered = unsafe { AsyncFd::register_with_interest(epoll, Interest::READABLE) };
        Ok(Watch { registered: registered? })
    }
}

impl Watch {
    /// Waits until a descriptor of the set may have something, and runs `serve`. If that returns
    /// false, the next wait is for something new. Returns what `serve` did.
    pub async fn serve(&self, serve: impl FnOnce() -> bool) -> io::Result<bool> {
        let mut ready = self.registered.readable().await?;
        let more = serve();
        match more {
            true => ready.retain_ready(),
            false => ready.clear_ready(),
        }
        Ok(more)
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use tokio::runtime::{Builder, Runtime};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn runtime() -> Runtime {
        Builder::new_current_thread().enable_all().build().unwrap()
    }

    /// So many sockets in a set, each called by its place, and one that sends to them.
    fn sockets(count: usize) -> (WatchSet, Vec<UdpSocket>, UdpSocket) {
        let set = WatchSet::new().unwrap();
        let bound = |at| {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            set.add(&socket, at as u64).unwrap();
            socket
        };
        let sockets = (0..count).map(bound).collect();
        (set, sockets, UdpSocket::bind("127.0.0.1:0").unwrap())
    }

    fn taken(set: &WatchSet) -> Vec<u64> {
        let mut tokens = [0; MAX_EVENTS];
        let count = set.take(&mut tokens);
        let mut tokens = tokens[..count].to_vec();
        tokens.sort_unstable();
        tokens
    }

    #[test]
    fn the_descriptors_that_have_something_are_told_by_their_tokens() {
        let (set, mut sockets, sender) = sockets(5);
        assert!(taken(&set).is_empty());
        for at in [1, 3, 4] {
            sender.send_to(b"x", sockets[at].local_addr().unwrap()).unwrap();
        }
        assert_eq!(taken(&set), [1, 3, 4]);
        sockets[3].recv(&mut [0; 1]).unwrap();
        assert_eq!(taken(&set), [1, 4], "what is left comes again");
        sockets.pop();
        assert_eq!(taken(&set), [1], "what is closed does not");
    }

    #[test]
    fn more_than_fit_are_told_in_turns() {
        let (set, sockets, sender) = sockets(MAX_EVENTS + 10);
        for socket in &sockets {
            sender.send_to(b"x", socket.local_addr().unwrap()).unwrap();
        }
        let mut all = Vec::new();
        while all.len() < sockets.len() {
            let tokens = taken(&set);
            assert!(!tokens.is_empty());
            for &token in &tokens {
                sockets[token as usize].recv(&mut [0; 1]).unwrap();
            }
            all.extend(tokens);
        }
        all.sort_unstable();
        assert!(all.into_iter().eq(0..sockets.len() as u64));
    }

    #[test]
    fn the_task_sleeps_until_something_new_comes() {
        // To another socket than the one that is left unread, and to the same.
        for at in [1, 0] {
            let (set, sockets, sender) = sockets(2);
            let send = |at: usize| sender.send_to(b"x", sockets[at].local_addr().unwrap()).unwrap();
            runtime().block_on(async {
                let watch = set.watch().unwrap();
                send(0);
                for more in [false, true, false] {
                    let served = watch.serve(|| {
                        assert_eq!(taken(&set)[0], 0);
                        more
                    });
                    tokio::time::timeout(PATIENCE, served).await.unwrap().unwrap();
                    if !more {
                        let idle = watch.serve(|| panic!("nothing came"));
                        let waited = tokio::time::timeout(Duration::from_millis(5), idle).await;
                        assert!(waited.is_err());
                        send(at);
                    }
                }
            });
        }
    }

    #[test]
    fn an_error_is_something() {
        let (set, _, sender) = sockets(0);
        let address = sender.local_addr().unwrap();
        drop(sender);
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(address).unwrap();
        set.add(&socket, 7).unwrap();
        socket.send(b"x").unwrap();
        assert_eq!(taken(&set), [7]);
        assert!(socket.recv(&mut [0; 1]).is_err());
        assert!(taken(&set).is_empty());
    }
}
