//! The closed loop: a fixed number of queries is outstanding, and each answer lets the next one go.
//!
//! ```text
//! per turn      poll(2) over the sockets, at most WAIT
//!   per socket  recvmmsg, match each reply (ID -> slot, generation, question), note its latency,
//!               refill the freed slots with the next queries, sendmmsg
//! now and then  what is older than the time-out counts as lost
//! ```

use std::io;
use std::net::UdpSocket;
use std::ops::Range;
use std::time::{Duration, Instant};

use swiftlet_net::client::{Datagrams, Readable, thread_cpu_ns};
use swiftlet_parser::name::MAX_NAME_LEN;
use swiftlet_parser::rr::HEADER_LEN;

use crate::lane::Lane;
use crate::{Limit, Load, Queries, Report};

/// Datagrams per system call.
const BATCH: usize = 64;

/// Room for a reply. What is longer is cut, which matters to none of the checks.
const REPLY_LEN: usize = 2048;

/// The longest wait in poll(2), and the time between two searches for lost queries.
const WAIT: Duration = Duration::from_millis(20);

/// The loop of one thread.
pub(crate) struct Generator<'q> {
    queries: &'q Queries,
    supply: Supply,
    timeout_ns: u64,
    start: Instant,
    lanes: Vec<Lane>,
    outbox: Datagrams,
    inbox: Datagrams,
    report: Report,
}

impl<'q> Generator<'q> {
    /// For these sockets' `lanes`; this thread begins at its own `part` of the queries.
    pub(crate) fn new(load: &Load<'q>, lanes: Vec<Lane>, part: Range<usize>) -> Self {
        Self {
            queries: load.queries,
            supply: Supply::new(load, part),
            timeout_ns: load.timeout.as_nanos() as u64,
            start: Instant::now(),
            lanes,
            outbox: Datagrams::connected(BATCH, HEADER_LEN + MAX_NAME_LEN + 4),
            inbox: Datagrams::connected(BATCH, REPLY_LEN),
            report: Report::new(1),
        }
    }

    /// Runs to the end, lane by lane on the socket of the same index.
    pub(crate) fn run(mut self, sockets: &[UdpSocket]) -> io::Result<Report> {
        let cpu_before_ns = thread_cpu_ns();
        let mut readable = Readable::new(sockets);
        let mut expired_ns = 0;
        for (index, socket) in sockets.iter().enumerate() {
            self.refill(index, socket)?;
        }
        loop {
            readable.wait(WAIT)?;
            for (index, socket) in sockets.iter().enumerate() {
                if readable.contains(index) {
                    self.collect(index, socket)?;
                    self.refill(index, socket)?;
                }
            }
            let now_ns = self.now_ns();
            if now_ns >= expired_ns + WAIT.as_nanos() as u64 {
                expired_ns = now_ns;
                self.expire(now_ns);
                for (index, socket) in sockets.iter().enumerate() {
                    self.refill(index, socket)?;
                }
            }
            let idle = self.lanes.iter().all(|lane| lane.outstanding() == 0);
            if idle && self.supply.is_over(now_ns) {
                break;
            }
        }
        self.report.cpu = Duration::from_nanos(thread_cpu_ns() - cpu_before_ns);
        Ok(self.report)
    }

    fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// Reads one batch of replies.
    fn collect(&mut self, index: usize, socket: &UdpSocket) -> io::Result<()> {
        match self.inbox.receive(socket) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                self.report.unreachable += 1;
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        let now = self.start.elapsed();
        let now_ns = now.as_nanos() as u64;
        let report = &mut self.report;
        for reply in self.inbox.iter() {
            let Some(sent_ns) = self.lanes[index].settle(reply, self.queries) else {
                report.mismatched += 1;
                continue;
            };
            report.answered += 1;
            report.elapsed = now;
            report.latency.saturating_record(now_ns - sent_ns);
            // The header is there: the question after it has matched.
            report.truncated += u64::from(reply[2] >> 1 & 1);
            report.rcodes[usize::from(reply[3] & 15)] += 1;
        }
        Ok(())
    }

    /// Sends as many queries as the socket's share of the window has room for.
    fn refill(&mut self, index: usize, socket: &UdpSocket) -> io::Result<()> {
        let now_ns = self.now_ns();
        let lane = &mut self.lanes[index];
        loop {
            self.outbox.clear();
            while !self.outbox.is_full() && !self.supply.is_over(now_ns) {
                let Some((id, query)) = lane.ask(now_ns, || self.supply.take()) else {
                    break;
                };
                let packet = self.queries.get(query);
                self.outbox.push(|buf| {
                    buf[..packet.len()].copy_from_slice(packet);
                    buf[..2].copy_from_slice(&id.to_be_bytes());
                    packet.len()
                });
            }
            let (filled, sent) =
                (self.outbox.len(), send(&mut self.outbox, socket, &mut self.report)?);
            self.report.sent += sent as u64;
            // What the kernel didn't take was never asked.
            for packet in self.outbox.iter().skip(sent) {
                lane.take_back(u16::from_be_bytes([packet[0], packet[1]]));
                self.supply.put_back();
            }
            if filled < BATCH || sent < filled {
                return Ok(());
            }
        }
    }

    /// Counts what has waited for longer than the time-out as lost.
    fn expire(&mut self, now_ns: u64) {
        let before_ns = now_ns.saturating_sub(self.timeout_ns);
        for lane in &mut self.lanes {
            self.report.lost += lane.expire(before_ns);
        }
    }
}

/// Which query goes next, and until when.
struct Supply {
    next: usize,
    /// Queries yet to be sent; `None` if time is the limit.
    left: Option<usize>,
    end_ns: u64,
    total: usize,
}

impl Supply {
    fn new(load: &Load<'_>, part: Range<usize>) -> Self {
        let (left, end_ns) = match load.limit {
            Limit::For(duration) => (None, duration.as_nanos() as u64),
            Limit::Each => (Some(part.len()), u64::MAX),
        };
        Self { next: part.start, left, end_ns, total: load.queries.len() }
    }

    fn is_over(&self, now_ns: u64) -> bool {
        now_ns >= self.end_ns || self.left == Some(0)
    }

    fn take(&mut self) -> usize {
        let taken = self.next;
        self.next = if taken + 1 == self.total { 0 } else { taken + 1 };
        self.left = self.left.map(|left| left - 1);
        taken
    }

    /// Takes back the last one taken.
    fn put_back(&mut self) {
        self.next = self.next.checked_sub(1).unwrap_or(self.total - 1);
        self.left = self.left.map(|left| left + 1);
    }
}

/// Sends the batch and returns how many datagrams the kernel took. An ICMP error that has come in
/// since the last call is reported in place of sending, so that one is tried again once.
fn send(outbox: &mut Datagrams, socket: &UdpSocket, report: &mut Report) -> io::Result<usize> {
    let (mut sent, mut refusals) = (0, 0);
    while sent < outbox.len() && refusals < 2 {
        match outbox.send(socket, sent) {
            Ok(accepted) => sent += accepted,
            Err(error) => match error.kind() {
                io::ErrorKind::ConnectionRefused => {
                    report.unreachable += 1;
                    refusals += 1;
                }
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => break,
                _ => return Err(error),
            },
        }
    }
    Ok(sent)
}
