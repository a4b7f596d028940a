//! A load, and how it is shared among threads.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::ops::Range;
use std::thread;
use std::time::Duration;

use swiftlet_net::client::connect;
use swiftlet_net::cores;

use crate::generator::Generator;
use crate::lane::{Lane, MAX_WINDOW_PER_SOCKET};
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
    #[error("cannot exchange datagrams with {server}: {source}")]
    Socket {
        /// Whom the load was for.
        server: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// Runs the load on threads of its own and returns what came of it.
pub fn run(load: &Load<'_>) -> Result<Report, LoadError> {
    let Load { threads, sockets, window, .. } = *load;
    let fits = (1..=sockets).contains(&threads)
        && window >= sockets
        && window.div_ceil(sockets) <= MAX_WINDOW_PER_SOCKET;
    if !fits {
        return Err(LoadError::Shape { threads, sockets, window });
    }
    let mut total = Report::new(threads);
    thread::scope(|scope| {
        let running: Vec<_> =
            (0..threads).map(|thread| scope.spawn(move || run_thread(load, thread))).collect();
        for thread in running {
            let report = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            total.add(&report);
        }
        Ok(total)
    })
}

fn run_thread(load: &Load<'_>, thread: usize) -> Result<Report, LoadError> {
    if !load.cores.is_empty() {
        let core = load.cores[thread % load.cores.len()];
        if !cores::pin(core) {
            return Err(LoadError::Pin { core });
        }
    }
    let socket_error = |source| LoadError::Socket { server: load.server, source };
    let lanes = share(load.sockets, load.threads, thread);
    let sockets: Vec<UdpSocket> = (0..lanes.len())
        .map(|_| connect(load.server))
        .collect::<io::Result<_>>()
        .map_err(socket_error)?;
    let lanes = lanes.map(|lane| Lane::new(share(load.window, load.sockets, lane).len())).collect();
    let part = share(load.queries.len(), load.threads, thread);
    let generator = Generator::new(load, lanes, part);
    generator.run(&sockets).map_err(socket_error)
}

/// The `part`th of `parts` nearly equal parts of `0..total`.
fn share(total: usize, parts: usize, part: usize) -> Range<usize> {
    total * part / parts..total * (part + 1) / parts
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use swiftlet_net::client::listen;

    use super::*;

    fn names(count: usize) -> Queries {
        let names: Vec<String> = (0..count).map(|n| format!("n{n}.test.example")).collect();
        Queries::for_names(names.iter().map(String::as_str)).expect("valid names")
    }

    /// Runs `load` against a server that sends back what `reply` makes of each datagram.
    fn against(
        reply: impl Fn(usize, &[u8]) -> Vec<Vec<u8>> + Sync,
        load: impl FnOnce(SocketAddr) -> Report,
    ) -> Report {
        let server = listen(([127, 0, 0, 1], 0).into(), 1 << 20).expect("a loopback socket");
        server.set_read_timeout(Some(Duration::from_millis(10))).expect("a positive time");
        let address = server.local_addr().expect("bound");
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let (mut buf, mut count) = ([0; 512], 0);
                while !done.load(Ordering::Relaxed) {
                    if let Ok((len, from)) = server.recv_from(&mut buf) {
                        for packet in reply(count, &buf[..len]) {
                            server.send_to(&packet, from).expect("sent");
                        }
                        count += 1;
                    }
                }
            });
            let report = load(address);
            done.store(true, Ordering::Relaxed);
            report
        })
    }

    fn load(server: SocketAddr, queries: &Queries, limit: Limit) -> Load<'_> {
        Load {
            server,
            queries,
            sockets: 3,
            window: 40,
            limit,
            timeout: Duration::from_secs(5),
            threads: 1,
            cores: &[],
        }
    }

    #[test]
    fn each_query_is_sent_once_and_an_echo_answers_it() {
        let queries = names(1000);
        for threads in [1, 2] {
            let report = against(
                |_, packet| vec![packet.to_vec()],
                |server| {
                    let load = Load { threads, ..load(server, &queries, Limit::Each) };
                    run(&load).expect("runs")
                },
            );
            assert_eq!((report.sent, report.answered, report.lost), (1000, 1000, 0));
            assert_eq!((report.mismatched, report.truncated, report.rcodes[0]), (0, 0, 1000));
            assert_eq!(report.latency.len(), 1000);
            assert!(report.cpu > Duration::ZERO);
        }
    }

    #[test]
    fn time_is_a_limit_and_the_queries_go_round() {
        let queries = names(7);
        let report = against(
            |_, packet| vec![packet.to_vec()],
            |server| {
                let limit = Limit::For(Duration::from_millis(50));
                run(&load(server, &queries, limit)).expect("runs")
            },
        );
        assert!(report.answered > 40, "more than one window: {report:?}");
        assert_eq!(report.sent, report.answered + report.lost);
    }

    #[test]
    fn silence_is_lost_and_strange_replies_match_nothing() {
        let queries = names(200);
        let report = against(
            |count, packet| match count % 4 {
                0 => Vec::new(),
                // Doubled, and with TC and REFUSED.
                1 => {
                    let mut answer = packet.to_vec();
                    (answer[2], answer[3]) = (0x82, 0x05);
                    vec![answer.clone(), answer]
                }
                // Another question, another ID, too short; then the right one.
                2 => {
                    let (mut question, mut id) = (packet.to_vec(), packet.to_vec());
                    question[14] ^= 0x20;
                    id[0] ^= 0x80;
                    vec![question, id, packet[..14].to_vec(), Vec::new(), packet.to_vec()]
                }
                _ => vec![packet.to_vec()],
            },
            |server| {
                // Far longer than an answer takes here, however busy the machine.
                let timeout = Duration::from_millis(400);
                run(&Load { timeout, ..load(server, &queries, Limit::Each) }).expect("runs")
            },
        );
        assert_eq!((report.sent, report.answered, report.lost), (200, 150, 50));
        assert_eq!((report.truncated, report.rcodes[5], report.rcodes[0]), (50, 50, 100));
        assert!(
            (249..=250).contains(&report.mismatched),
            "the last may come after the end: {report:?}"
        );
    }

    #[test]
    fn nobody_listening_is_reported_and_ends() {
        let queries = names(50);
        let closed = listen(([127, 0, 0, 1], 0).into(), 1 << 16).expect("a loopback socket");
        let server = closed.local_addr().expect("bound");
        drop(closed);
        let timeout = Duration::from_millis(30);
        let report = run(&Load { timeout, ..load(server, &queries, Limit::Each) }).expect("runs");
        assert_eq!((report.sent, report.answered, report.lost), (50, 0, 50));
        assert!(report.unreachable > 0);
    }

    #[test]
    fn shapes_that_cannot_be_are_refused() {
        let queries = names(1);
        let server = ([127, 0, 0, 1], 9).into();
        for (threads, sockets, window) in [(0, 1, 1), (2, 1, 8), (1, 2, 1), (1, 1, 4097), (1, 0, 0)]
        {
            let load = Load { threads, sockets, window, ..load(server, &queries, Limit::Each) };
            assert!(matches!(run(&load), Err(LoadError::Shape { .. })));
        }
        let load = Load { cores: &[1000], ..load(server, &queries, Limit::Each) };
        assert!(matches!(run(&load), Err(LoadError::Pin { core: 1000 })));
    }
}
