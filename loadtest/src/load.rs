//! A load, and how it is shared among threads.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::ops::Range;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use swiftlet_net::client::connect_from;
use swiftlet_net::cores;

use crate::carrier::{TcpConnections, UdpSockets};
use crate::generator::{Generator, Schedule, Task};
use crate::lane::{Lane, MAX_WINDOW_PER_SOCKET};
use crate::report::Second;
use crate::{Queries, Report};

/// A load to put on a server.
#[derive(Clone, Debug)]
pub struct Load<'q> {
    /// Where the queries go.
    pub server: SocketAddr,
    /// What is asked, in this order and round and round.
    pub queries: &'q Queries,
    /// Connected UDP sockets over all threads; each has a source port of its own.
    pub sockets: usize,
    /// Queries outstanding over all sockets; from one to [`MAX_WINDOW_PER_SOCKET`] each.
    pub window: usize,
    /// When to stop sending.
    pub limit: Limit,
    /// After this time a query counts as lost.
    pub timeout: Duration,
    /// Threads that share the sockets.
    pub threads: usize,
    /// The cores they are pinned to, in turn. Empty: not pinned.
    pub cores: &'q [usize],
}

/// How a load is put on, where that isn't a closed loop over UDP.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'o> {
    /// Queries per second over all threads, sent on schedule whatever comes back (an open loop).
    /// The window is then only the bound of what may be outstanding.
    pub rate: Option<f64>,
    /// What carries the queries.
    pub transport: Transport,
    /// Sends each datagram as a message to the kernel of its own. By default those of one length that
    /// go to the server at once are one message, which the kernel cuts up (UDP_SEGMENT).
    pub datagrams_apart: bool,
    /// Local addresses, taken in turn by the sockets. Empty: the system chooses.
    pub sources: &'o [IpAddr],
    /// Set to end the run early; what is outstanding is still waited for.
    pub stop: Option<&'o AtomicBool>,
    /// Where the numbers of names that are never asked twice begin, so that the runs of one program
    /// don't repeat each other's. What is drawn at random follows from it too, for the same reason:
    /// a run that drew the names of the run before would find them all in the cache.
    pub first_serial: u64,
}

/// What carries the queries.
#[derive(Clone, Copy, Debug, Default)]
pub enum Transport {
    /// Datagrams on connected sockets.
    #[default]
    Udp,
    /// Pipelined on connections; a socket of the [`Load`] is a connection.
    Tcp {
        /// Queries after which a connection is renewed.
        per_connection: u64,
    },
}

/// When a run stops sending. It then waits for what is outstanding, at most the time-out.
#[derive(Clone, Copy, Debug)]
pub enum Limit {
    /// After this time.
    For(Duration),
    /// When every query has been sent once.
    Each,
}

/// Why a load cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The numbers don't fit each other.
    #[error(
        "{threads} threads, {sockets} sockets and a window of {window}: every thread needs a \
         socket, and every socket 1 to {MAX_WINDOW_PER_SOCKET} queries of the window"
    )]
    Shape {
        /// As in [`Load`].
        threads: usize,
        /// As in [`Load`].
        sockets: usize,
        /// As in [`Load`].
        window: usize,
    },
    /// The core isn't there or not ours.
    #[error("cannot pin a thread to core {core}: it doesn't exist or isn't ours to use")]
    Pin {
        /// The core asked for.
        core: usize,
    },
    /// A socket cannot be opened or used.
    #[error("cannot reach {server}: {source}")]
    Socket {
        /// Whom the load was for.
        server: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// Runs the load as a closed loop over UDP and returns what came of it.
pub fn run(load: &Load<'_>) -> Result<Report, LoadError> {
    run_with(load, &Options::default(), &mut |_| {})
}

/// Runs the load on threads of its own and returns what came of it. `progress` is called after each
/// second.
pub fn run_with(
    load: &Load<'_>,
    options: &Options<'_>,
    progress: &mut dyn FnMut(&Second),
) -> Result<Report, LoadError> {
    let Load { threads, sockets, window, .. } = *load;
    let fits = (1..=sockets).contains(&threads)
        && window >= sockets
        && window.div_ceil(sockets) <= MAX_WINDOW_PER_SOCKET;
    if !fits {
        return Err(LoadError::Shape { threads, sockets, window });
    }
    let carriers = (0..threads)
        .map(|thread| Channels::open(load, options, thread))
        .collect::<io::Result<Vec<_>>>()
        .map_err(|source| LoadError::Socket { server: load.server, source })?;
    let (sender, ticks) = mpsc::channel();
    let never = AtomicBool::new(false);
    let start = Instant::now();
    thread::scope(|scope| {
        let spawn = |(thread, channels): (usize, Channels)| {
            let sender = sender.clone();
            let stop = options.stop.unwrap_or(&never);
            let task = task(load, options, thread, start, stop);
            scope.spawn(move || run_thread(load, task, channels, thread, &sender))
        };
        let running: Vec<_> = carriers.into_iter().enumerate().map(spawn).collect();
        drop(sender);
        let total = gather(&ticks, threads, progress);
        for thread in running {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok(total)
    })
}

/// Adds up the reports of all threads. A second is over when every thread that still runs has told
/// of a later one.
fn gather(
    ticks: &mpsc::Receiver<(u64, Report)>,
    threads: usize,
    progress: &mut dyn FnMut(&Second),
) -> Report {
    let mut total = Report::new(threads);
    let mut open: BTreeMap<u64, (usize, Report)> = BTreeMap::new();
    while let Ok((second, report)) = ticks.recv() {
        let (count, sum) = open.entry(second).or_insert_with(|| (0, Report::new(threads)));
        sum.add(&report);
        *count += 1;
        if *count == threads
            && let Some((_, sum)) = open.remove(&second)
        {
            progress(total.end_second(second, &sum));
        }
    }
    for (second, (_, sum)) in open {
        total.end_second(second, &sum);
    }
    total
}

/// The carrier of one thread.
enum Channels {
    Udp(UdpSockets),
    Tcp(TcpConnections),
}

impl Channels {
    fn open(load: &Load<'_>, options: &Options<'_>, thread: usize) -> io::Result<Self> {
        let channels = share(load.sockets, load.threads, thread);
        let source = |channel: usize| {
            let sources = options.sources;
            (!sources.is_empty()).then(|| sources[channel % sources.len()])
        };
        match options.transport {
            Transport::Udp => {
                let sockets: Vec<UdpSocket> = channels
                    .map(|channel| connect_from(source(channel), load.server))
                    .collect::<io::Result<_>>()?;
                Ok(Self::Udp(UdpSockets::new(
                    sockets,
                    load.queries.longest(),
                    options.datagrams_apart,
                )))
            }
            Transport::Tcp { per_connection } => {
                let sources: Vec<_> = channels.map(source).collect();
                TcpConnections::open(load.server, &sources, per_connection).map(Self::Tcp)
            }
        }
    }
}

fn task<'q>(
    load: &Load<'q>,
    options: &Options<'q>,
    thread: usize,
    start: Instant,
    stop: &'q AtomicBool,
) -> Task<'q> {
    let Load { queries, threads, .. } = *load;
    let (left, end_ns) = match load.limit {
        Limit::For(duration) => (None, duration.as_nanos() as u64),
        Limit::Each => (Some(share(queries.len(), threads, thread).len()), u64::MAX),
    };
    let schedule = options.rate.map(|rate| {
        let threads = threads as f64;
        Schedule::new(rate / threads, thread as f64 / threads)
    });
    Task {
        queries,
        cursor: queries.cursor(thread, threads, options.first_serial),
        schedule,
        left,
        end_ns,
        timeout_ns: load.timeout.as_nanos() as u64,
        start,
        stop,
        serial: options.first_serial | (thread as u64) << 48,
    }
}

fn run_thread(
    load: &Load<'_>,
    task: Task<'_>,
    channels: Channels,
    thread: usize,
    ticks: &mpsc::Sender<(u64, Report)>,
) -> Result<(), LoadError> {
    if !load.cores.is_empty() {
        let core = load.cores[thread % load.cores.len()];
        if !cores::pin(core) {
            return Err(LoadError::Pin { core });
        }
    }
    let lanes: Vec<Lane> = share(load.sockets, load.threads, thread)
        .map(|lane| Lane::new(share(load.window, load.sockets, lane).len()))
        .collect();
    let ended = match channels {
        Channels::Udp(sockets) => Generator::new(task, sockets, lanes).run(ticks),
        Channels::Tcp(connections) => Generator::new(task, connections, lanes).run(ticks),
    };
    ended.map_err(|source| LoadError::Socket { server: load.server, source })
}

/// The `part`th of `parts` nearly equal parts of `0..total`.
fn share(total: usize, parts: usize, part: usize) -> Range<usize> {
    total * part / parts..total * (part + 1) / parts
}

#[cfg(test)]
mod tests;
