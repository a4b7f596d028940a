//! Workers inside the test's own process, over real sockets: what they share is at hand, and their time
//! stands still until it is moved.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use socket2::Socket;
use swiftlet::clients::Clients;
use swiftlet::desk::{Desk, Scratch};
use swiftlet::lifecycle::{Lifecycle, Phase};
use swiftlet::mailbox::Post;
use swiftlet::pipeline::Service;
use swiftlet::resolver::{Resolver, store};
use swiftlet::stream::Streams;
use swiftlet::telemetry::Board;
use swiftlet::telemetry::sightings::Gateway;
use swiftlet::upstream::{Servers, Upstreams};
use swiftlet::worker::{Tuning, Worker};
use swiftlet_net::backend::{Backend, Epoll, Options};
#[cfg(feature = "io-uring")]
use swiftlet_net::backend::{IoUring, uring};
use swiftlet_net::clock::{Clock, Manual, Now};
use swiftlet_net::socket::{Listener, OpenError};

use super::{PATIENCE, TEST_BACKEND, free_port, service};

/// What is kept for how long unless a test says otherwise.
pub const LIMITS: store::Limits = store::Limits {
    min_ttl_s: 0,
    max_ttl_s: 86_400,
    max_negative_ttl_s: 3600,
    stale_ttl_s: 86_400,
};

/// Running workers, stopped when dropped.
pub struct Inside {
    pub dns: SocketAddr,
    pub service: Arc<Service>,
    pub board: Board,
    pub clock: Manual,
    lifecycle: Lifecycle,
    post: Post,
    workers: Vec<JoinHandle<()>>,
}

impl Inside {
    /// Starts so many workers over one upstream, and waits until their sockets are open.
    pub fn start(workers: usize, upstream: SocketAddr) -> Self {
        Self::start_with(workers, upstream, LIMITS)
    }

    /// The same with other bounds of what is kept.
    pub fn start_with(workers: usize, upstream: SocketAddr, limits: store::Limits) -> Self {
        let mut inside = Self {
            dns: SocketAddr::from(([127, 0, 0, 1], free_port())),
            service: Arc::new(service()),
            board: Board::new(workers),
            clock: Manual::new(Now { boot_ms: 1_000_000, wall_s: 1_700_000_000 }),
            lifecycle: Lifecycle::new(workers),
            post: Post::new(workers),
            workers: Vec::new(),
        };
        let (opened, all_open) = channel();
        let clients = Clients::new(u32::MAX);
        for number in 0..workers {
            let desk = inside.desk(number, clients.clone(), upstream, limits);
            let (dns, lifecycle, opened) = (inside.dns, inside.lifecycle.clone(), opened.clone());
            inside.workers.push(std::thread::spawn(move || {
                let listeners = vec![Listener { address: dns }];
                let options =
                    Options { listeners, batch: 64, recv_buffer: None, send_buffer: None };
                let start = Start { number, options, lifecycle, opened };
                match std::env::var(TEST_BACKEND).as_deref() {
                    #[cfg(feature = "io-uring")]
                    Ok("io-uring") => {
                        let runtime = uring::runtime().expect("io_uring works here");
                        runtime.block_on(start.run(IoUring::open, desk));
                    }
                    Ok(other) if other != "epoll" => panic!("there is no backend {other} here"),
                    _ => {
                        let runtime =
                            tokio::runtime::Builder::new_current_thread().enable_all().build();
                        let local = tokio::task::LocalSet::new();
                        local.block_on(&runtime.expect("a runtime"), start.run(Epoll::open, desk));
                    }
                }
            }));
        }
        drop(opened);
        assert_eq!(all_open.iter().count(), workers);
        inside
    }

    fn desk(
        &self,
        number: usize,
        clients: Clients,
        upstream: SocketAddr,
        limits: store::Limits,
    ) -> impl FnOnce() -> Desk + Send + 'static {
        let (service, tally) = (Arc::clone(&self.service), self.board.tally(number));
        let (clock, post) = (Clock::Manual(self.clock.clone()), self.post.clone());
        move || {
            let servers = Servers::new(&[upstream]);
            let upstreams = Upstreams::new(servers, PATIENCE, 1232, clock.clone(), tally.clone());
            let resolver = Rc::new(Resolver::new(
                Arc::clone(&service),
                upstreams,
                limits,
                clock.clone(),
                tally.clone(),
                1024,
            ));
            Desk {
                number,
                service,
                resolver,
                post,
                clients,
                clock,
                tally,
                gateway: Gateway::default(),
                scratch: Scratch::default().into(),
            }
        }
    }
}

/// What a worker's thread begins with.
struct Start {
    number: usize,
    options: Options,
    lifecycle: Lifecycle,
    opened: Sender<()>,
}

impl Start {
    async fn run<B: Backend>(
        self,
        open: impl FnOnce(Vec<Socket>, usize) -> Result<B, OpenError>,
        desk: impl FnOnce() -> Desk,
    ) {
        let Self { number, options, lifecycle, opened } = self;
        let bound = options.bind().expect("a free port").into_iter();
        let sockets = bound.map(|(socket, _)| socket).collect();
        let backend = open(sockets, options.batch).expect("a backend");
        let streams = Rc::new(Streams::new(number, PATIENCE));
        opened.send(()).expect("the test waits");
        drop(opened);
        let (desk, tuning) = (Rc::new(desk()), Tuning::default());
        Worker { backend, desk, streams, lifecycle, tuning }.run().await;
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.lifecycle.enter(Phase::Stopping);
        self.post.ring_all();
        for worker in self.workers.drain(..) {
            let ended = worker.join();
            assert!(std::thread::panicking() || ended.is_ok(), "a worker panicked");
        }
    }
}
