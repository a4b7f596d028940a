//! What the suite must know of an implementation beyond the trait: the runtime that it lives in, and
//! whether it runs here at all.

use std::future::Future;

use socket2::Socket;
use tokio::runtime::{Builder, Runtime};

use crate::backend::{Backend, Epoll};
use crate::socket::OpenError;

pub(in crate::backend) trait Subject: Backend {
    type Runtime;

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
    let required = std::env::var_os("SWIFTLET_REQUIRE_IO_URING").is_some_and(|set| set == "1");
    assert!(!required, "SWIFTLET_REQUIRE_IO_URING is set: {reason}");
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
