//! From the configuration to serving: limits, sockets, workers, and the lines that say so.

mod announce;
mod carriers;
mod privileges;

use std::net::TcpListener;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, bail};
use socket2::Socket;
#[cfg(feature = "af-xdp")]
use swiftlet_net::backend::Xdp;
use swiftlet_net::backend::{Backend, Epoll, Options};
#[cfg(feature = "io-uring")]
use swiftlet_net::backend::{IoUring, uring};
use swiftlet_net::clock::Clock;
use swiftlet_net::socket::{Granted, Listener, OpenError, busy_poll, open_stream_listener, probe};
use swiftlet_net::{cores, limits};
use swiftlet_parser::key::Seed;
use tokio::runtime::Builder;
use tokio::task::LocalSet;

use self::announce::announce;
use self::carriers::{Carrier, Carriers};
use self::privileges::Privileges;
use crate::backend::Choice;
use crate::cache;
use crate::clients::Clients;
use crate::config::{self, Config, Http, TtlClock};
use crate::control;
use crate::desk::{Desk, Scratch};
use crate::edns;
use crate::flush::Flushes;
use crate::lifecycle::Lifecycle;
use crate::mailbox::Post;
use crate::pipeline::Service;
use crate::policy::{Acl, Identity, Policies, special_use};
use crate::resolver::{Resolver, store};
use crate::stream::Streams;
use crate::stream::bounds::Bounds;
use crate::telemetry::Board;
use crate::telemetry::http::Observed;
use crate::telemetry::sightings::Gateway;
use crate::upstream::{Means, Routes, Servers, Upstreams};
use crate::worker::{Tuning, Worker};

/// Connections that may wait to be accepted at each listener.
const TCP_BACKLOG: u16 = 1024;

/// Serves until a signal ends it. Every error names what could not be done and how to mend it.
pub fn run(config: &Config) -> anyhow::Result<()> {
    let privileges = Privileges::take_up(config.settings.backend == config::Backend::AfXdp);
    limits::raise_open_files().context("cannot read the limit of open files")?;
    probe(&config.listen)?;
    let http = open_http(config.settings.http)?;
    let Carriers { choice, of_workers, filters } = Carriers::open(config)?;
    let plan = Plan::new(config, choice, privileges);
    // The process's end gives the cache back at once; freeing it entry by entry would hold up the stop.
    std::mem::forget(Arc::clone(&plan.service));

    let (reports, started) = mpsc::channel();
    let workers: Vec<JoinHandle<()>> = (of_workers.into_iter().enumerate())
        .map(|(number, carrier)| plan.spawn(number, carrier, reports.clone()))
        .collect::<Result<_, _>>()
        .context("cannot start a worker thread")?;
    drop(reports);
    privileges.give_up();
    let mut opened = Vec::new();
    for report in started {
        opened.push(report?);
    }
    if opened.len() < config.workers {
        bail!("a worker ended while it was starting");
    }
    opened.sort_by_key(|opened: &Opened| opened.number);
    if !plan.tuning.busy_poll.is_zero() && opened.iter().any(|opened| !opened.pinned) {
        bail!(
            "SWIFTLET_BUSY_POLL_US needs a core of its own for each worker, but the kernel refuses to \
             pin them; set SWIFTLET_BUSY_POLL_US=0"
        );
    }
    announce(config, &plan, &filters, &opened);

    let observed = Arc::new(Observed {
        board: plan.board,
        service: plan.service,
        servers: plan.servers,
        clock: plan.clock,
        routes: plan.routes,
        lifecycle: plan.lifecycle,
        post: plan.post,
        backends: (config.settings.backend, plan.backend.kind),
        filters,
        sockets: opened.into_iter().map(|opened| opened.sockets).collect(),
    });
    let lameduck = Duration::from_millis(config.settings.lameduck_ms.into());
    control::run(&observed, http, lameduck, plan.gateway)?;
    for worker in workers {
        // A worker that panics aborts the process, so there is no panic to find here.
        let _ = worker.join();
    }
    tracing::info!("stopped");
    Ok(())
}

fn open_http(http: Http) -> anyhow::Result<Option<TcpListener>> {
    let Http::On(address) = http else {
        return Ok(None);
    };
    let advice = "choose another SWIFTLET_HTTP, or off";
    let listener = TcpListener::bind(address)
        .with_context(|| format!("cannot serve HTTP on {address} ({advice})"))?;
    listener.set_nonblocking(true).context("cannot make the HTTP socket non-blocking")?;
    Ok(Some(listener))
}

/// What every worker is built from.
struct Plan {
    service: Arc<Service>,
    servers: Servers,
    routes: Arc<Routes>,
    limits: store::Limits,
    options: Options,
    backend: Choice,
    privileges: Privileges,
    clock: Clock,
    board: Board,
    post: Post,
    lifecycle: Lifecycle,
    clients: Clients,
    bounds: Bounds,
    gateway: Gateway,
    cores: Vec<usize>,
    max_flights: usize,
    means: Means,
    timeout: Duration,
    tcp_idle: Duration,
    /// Between two looks for forwarding loops.
    loop_probe: Option<Duration>,
    tuning: Tuning,
}

/// What a worker reports when its sockets are open.
struct Opened {
    number: usize,
    granted: Vec<Granted>,
    sockets: Vec<Socket>,
    pinned: bool,
    /// Whether the kernel polls the devices for all of the sockets.
    polls_devices: bool,
}

impl Plan {
    fn new(config: &Config, backend: Choice, privileges: Privileges) -> Self {
        let (settings, files) = (&config.settings, &config.files);
        let zones = settings.forward_zones.iter().map(|zone| (zone.name, zone.servers.as_slice()));
        let routes = Arc::new(Routes::new(&config.upstreams, zones));
        Self {
            service: Arc::new(service(config)),
            servers: Servers::new(routes.addresses()),
            routes,
            limits: store::Limits {
                min_ttl_s: settings.min_ttl,
                max_ttl_s: settings.max_ttl,
                max_negative_ttl_s: settings.max_negative_ttl,
                stale_ttl_s: settings.stale_ttl,
            },
            options: Options {
                listeners: config.listen.iter().map(|&address| Listener { address }).collect(),
                batch: settings.batch,
                recv_buffer: Some(settings.recv_buffer as usize),
                send_buffer: Some(settings.send_buffer as usize),
            },
            backend,
            privileges,
            clock: Clock::System { follow_wall: settings.ttl_clock == TtlClock::Wall },
            board: Board::new(config.workers),
            post: Post::new(config.workers),
            lifecycle: Lifecycle::new(config.workers),
            clients: Clients::new(files.client_misses),
            bounds: Bounds::new(files.tcp_clients, settings.tcp_max_per_client as usize),
            gateway: Gateway::find(),
            cores: config.cores.clone(),
            max_flights: files.flights,
            means: Means {
                workers: config.workers,
                sockets: files.ports,
                random_case: settings.case_randomization,
            },
            timeout: Duration::from_millis(settings.upstream_timeout_ms.into()),
            tcp_idle: Duration::from_millis(settings.tcp_idle_ms.into()),
            loop_probe: (settings.loop_probe_s > 0)
                .then(|| Duration::from_secs(settings.loop_probe_s.into())),
            tuning: Tuning {
                look_ahead: config.look_ahead,
                busy_poll: Duration::from_micros(settings.busy_poll_us.into()),
            },
        }
    }

    /// Starts a worker thread, which reports once whether its sockets are open.
    fn spawn(
        &self,
        number: usize,
        carrier: Carrier,
        reports: mpsc::Sender<anyhow::Result<Opened>>,
    ) -> std::io::Result<JoinHandle<()>> {
        let (options, privileges, lifecycle) =
            (self.options.clone(), self.privileges, self.lifecycle.clone());
        let (bounds, tcp_idle, loop_probe) = (self.bounds.clone(), self.tcp_idle, self.loop_probe);
        let tuning = self.tuning;
        let core = self.cores.get(number).copied();
        let desk = self.desk(number);
        std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
            // A half-dead server would go on taking its share of the queries: better none at all.
            let _abort = AbortOnPanic;
            let pinned = core.is_some_and(cores::pin);
            let worker = Starting {
                number,
                pinned,
                options,
                privileges,
                lifecycle,
                bounds,
                tcp_idle,
                loop_probe,
                tuning,
            };
            match carrier {
                Carrier::Epoll => {
                    on_tokio(reports.clone(), worker.run(Epoll::open, desk, reports));
                }
                #[cfg(feature = "io-uring")]
                Carrier::IoUring => match uring::runtime() {
                    Ok(runtime) => runtime.block_on(worker.run(IoUring::open, desk, reports)),
                    Err(error) => report_failure(&reports, error),
                },
                #[cfg(feature = "af-xdp")]
                Carrier::AfXdp(share) => {
                    let open = |sockets, batch| Xdp::open(sockets, batch, share);
                    on_tokio(reports.clone(), worker.run(open, desk, reports));
                }
            }
        })
    }

    /// Builds what a worker answers with; to be called on its thread, which it must not leave.
    fn desk(&self, number: usize) -> impl FnOnce() -> Desk + Send + 'static {
        let (service, servers) = (Arc::clone(&self.service), self.servers.clone());
        let routes = Arc::clone(&self.routes);
        let (clock, tally) = (self.clock.clone(), self.board.tally(number));
        let (post, clients, gateway) = (self.post.clone(), self.clients.clone(), self.gateway);
        let (limits, timeout, max_flights) = (self.limits, self.timeout, self.max_flights);
        let means = self.means;
        move || {
            let udp_size = service.edns.udp_size;
            let upstreams =
                Upstreams::new(servers, timeout, udp_size, clock.clone(), tally.clone())
                    .with_means(means)
                    .routed(routes);
            let resolver = Resolver::new(
                Arc::clone(&service),
                upstreams,
                limits,
                clock.clone(),
                tally.clone(),
                max_flights,
            );
            Desk {
                number,
                service,
                resolver: Rc::new(resolver),
                post,
                clients,
                clock,
                tally,
                gateway,
                scratch: Scratch::default().into(),
            }
        }
    }
}

/// Runs a worker in a runtime of tokio's, or reports that there is none.
fn on_tokio(reports: mpsc::Sender<anyhow::Result<Opened>>, worker: impl Future<Output = ()>) {
    match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            // Whoever waits for reports waits until nobody can send one.
            drop(reports);
            LocalSet::new().block_on(&runtime, worker);
        }
        Err(error) => report_failure(&reports, error),
    }
}

/// What a worker's thread needs beside its desk.
struct Starting {
    number: usize,
    pinned: bool,
    options: Options,
    privileges: Privileges,
    lifecycle: Lifecycle,
    bounds: Bounds,
    tcp_idle: Duration,
    loop_probe: Option<Duration>,
    tuning: Tuning,
}

impl Starting {
    /// Opens the worker's sockets, reports that once, and serves. Must run inside a `LocalSet`.
    async fn run<B: Backend>(
        self,
        backend: impl FnOnce(Vec<Socket>, usize) -> Result<B, OpenError>,
        desk: impl FnOnce() -> Desk,
        reports: mpsc::Sender<anyhow::Result<Opened>>,
    ) {
        match self.open(backend, desk) {
            Ok((worker, opened)) => {
                let _ = reports.send(Ok(opened));
                drop(reports);
                worker.run().await;
            }
            Err(error) => report_failure(&reports, error),
        }
    }

    fn open<B: Backend>(
        self,
        backend: impl FnOnce(Vec<Socket>, usize) -> Result<B, OpenError>,
        desk: impl FnOnce() -> Desk,
    ) -> anyhow::Result<(Worker<B>, Opened)> {
        let Self { number, pinned, options, bounds, tcp_idle, tuning, .. } = self;
        let (sockets, granted): (Vec<_>, _) = options.bind()?.into_iter().unzip();
        let busy_poll_us = tuning.busy_poll.as_micros() as u32;
        let polls_devices = busy_poll_us > 0
            && sockets.iter().all(|socket| busy_poll(socket, busy_poll_us).is_ok());
        let handles = sockets.iter().map(Socket::try_clone).collect::<Result<_, _>>()?;
        let backend = backend(sockets, options.batch)?;
        let desk = Rc::new(desk());
        let streams = Rc::new(Streams::new(number, tcp_idle));
        accept(&options.listeners, &streams, &bounds, &desk)?;
        // One worker looks for all.
        if let (0, Some(every)) = (number, self.loop_probe) {
            tokio::task::spawn_local(Rc::clone(&desk.resolver).watch_for_loops(every));
        }
        self.privileges.give_up();
        let worker = Worker { backend, desk, streams, lifecycle: self.lifecycle, tuning };
        Ok((worker, Opened { number, granted, sockets: handles, pinned, polls_devices }))
    }
}

/// Opens a worker's TCP listeners and begins to accept.
fn accept(
    listeners: &[Listener],
    streams: &Rc<Streams>,
    bounds: &Bounds,
    desk: &Rc<Desk>,
) -> anyhow::Result<()> {
    for listener in listeners {
        let socket = open_stream_listener(listener.address, TCP_BACKLOG)?;
        let socket = tokio::net::TcpListener::from_std(socket)?;
        let accepting = Rc::clone(streams).accept(socket, bounds.clone(), Rc::clone(desk));
        tokio::task::spawn_local(accepting);
    }
    Ok(())
}

fn report_failure(reports: &mpsc::Sender<anyhow::Result<Opened>>, error: impl Into<anyhow::Error>) {
    // The receiver is gone only when another worker failed first, which is then what is told.
    let _ = reports.send(Err(error.into()));
}

struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

fn service(config: &Config) -> Service {
    let version = concat!("swiftlet ", env!("CARGO_PKG_VERSION"));
    let identity = Identity::new(version, config.identity.as_deref());
    let nsid = identity.name().map(Into::into);
    let zones: Vec<_> = config.settings.forward_zones.iter().map(|zone| zone.name).collect();
    Service {
        policies: Policies {
            acl: Acl::new(&config.settings.allow),
            identity,
            special_use: special_use::Zones::new(&zones),
        },
        edns: edns::Settings {
            udp_size: config.settings.udp_size,
            nsid,
            keepalive_100ms: (config.settings.tcp_idle_ms / 100) as u16,
        },
        cache: cache::open(
            config.settings.cache,
            swiftlet_cache::Config {
                max_bytes: config.cache_size,
                huge_pages: config.settings.huge_pages,
            },
        ),
        flushes: Flushes::default(),
        seed: Seed::new(rand::random()),
    }
}
