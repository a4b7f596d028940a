//! What the suite must know of an implementation beyond the trait: the runtime that it lives in, and
//! whether it runs here at all.

use std::future::Future;

use socket2::Socket;
use tokio::runtime::{Builder, Runtime};

use crate::backend::{Backend, Epoll, SLOT_LEN};
use crate::socket::OpenError;

pub(in crate::backend) trait Subject: Backend {
    type Runtime;

    /// The longest reply that each query has room for, in bytes.
    const REPLY_MAX: usize = SLOT_LEN;

    /// Turns until each of three listeners was served, with 36 datagrams in front of one.
    const TURNS_UNTIL_SERVED: usize = 4;

    /// What makes its tests fail rather than skip where it doesn't run.
    const REQUIRED_BY: &str = "";

    /// Runs a test in the network that it needs.
    fn in_its_network(test: fn()) {
        test();
    }

    fn open(sockets: Vec<Socket>, batch: usize) -> Result<Self, OpenError>;

    /// Why it cannot run here.
    fn refusal() -> Option<String> {
        None
    }

    fn runtime() -> Self::Runtime;

    fn block_on<F: Future>(runtime: &Self::Runtime, future: F) -> F::Output;

    /// Slots that are lost.
    fn outstanding(&self) -> usize {
        0
    }
}

/// Says so where an implementation doesn't run, which is a failure only where it must.
pub(in crate::backend) fn runs_here<B: Subject>() -> bool {
    let Some(reason) = B::refusal() else { return true };
    let required = std::env::var_os(B::REQUIRED_BY).is_some_and(|set| set == "1");
    assert!(!required, "{} is set: {reason}", B::REQUIRED_BY);
    eprintln!("skipped: {reason}");
    false
}

impl Subject for Epoll {
    type Runtime = Runtime;

    fn open(sockets: Vec<Socket>, batch: usize) -> Result<Self, OpenError> {
        Self::open(sockets, batch)
    }

    fn runtime() -> Runtime {
        Builder::new_current_thread().enable_all().build().unwrap()
    }

    fn block_on<F: Future>(runtime: &Runtime, future: F) -> F::Output {
        runtime.block_on(future)
    }
}

#[cfg(feature = "io-uring")]
impl Subject for crate::backend::IoUring {
    type Runtime = crate::backend::uring::Runtime;

    const REQUIRED_BY: &str = "SWIFTLET_REQUIRE_IO_URING";

    fn open(sockets: Vec<Socket>, batch: usize) -> Result<Self, OpenError> {
        Self::open(sockets, batch)
    }

    fn refusal() -> Option<String> {
        static REFUSAL: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
        let probe = || crate::backend::uring::probe().err().map(|reason| reason.to_string());
        REFUSAL.get_or_init(probe).clone()
    }

    fn runtime() -> Self::Runtime {
        crate::backend::uring::runtime().unwrap()
    }

    fn block_on<F: Future>(runtime: &Self::Runtime, future: F) -> F::Output {
        runtime.block_on(future)
    }

    fn outstanding(&self) -> usize {
        self.outstanding()
    }
}

#[cfg(feature = "af-xdp")]
mod xdp {
    use std::cell::RefCell;
    use std::fs;

    use super::*;
    use crate::backend::Xdp;
    use crate::backend::xdp::rig::{isolated, refusal};
    use crate::backend::xdp::{Attachment, Mode, Request, open};

    thread_local! {
        /// Of this test's thread, which has the network for itself.
        static ATTACHMENT: RefCell<Option<Attachment>> = const { RefCell::new(None) };
    }

    /// Over loopback in a network of the test's own: the generic mode, as loopback has no driver.
    impl Subject for Xdp {
        type Runtime = Runtime;

        /// A frame of 4096 bytes without the kernel's 256 and the longest headers.
        const REPLY_MAX: usize = 4096 - 256 - 66;

        /// A queue has the datagrams of all listeners in their order.
        const TURNS_UNTIL_SERVED: usize = 10;

        const REQUIRED_BY: &str = "SWIFTLET_REQUIRE_AF_XDP";

        fn refusal() -> Option<String> {
            refusal()
        }

        fn in_its_network(test: fn()) {
            isolated(|| {
                // What comes back over loopback by itself looks forged otherwise.
                for setting in ["route_localnet", "accept_local"] {
                    fs::write(format!("/proc/sys/net/ipv4/conf/all/{setting}"), "1").unwrap();
                }
                test();
            });
        }

        fn open(sockets: Vec<Socket>, batch: usize) -> Result<Self, OpenError> {
            let address = |socket: &Socket| socket.local_addr().unwrap().as_socket().unwrap();
            let request = Request {
                listeners: sockets.iter().map(address).collect(),
                interfaces: vec!["lo".into()],
                queues: None,
                mode: Mode::Auto,
                workers: 1,
                batch,
                busy_poll_us: 0,
            };
            ATTACHMENT.take();
            let (attachment, mut shares) = open(&request)?;
            ATTACHMENT.set(Some(attachment));
            Self::open(sockets, batch, shares.remove(0))
        }

        fn runtime() -> Runtime {
            Epoll::runtime()
        }

        fn block_on<F: Future>(runtime: &Runtime, future: F) -> F::Output {
            runtime.block_on(future)
        }

        fn outstanding(&self) -> usize {
            self.outstanding()
        }
    }
}
