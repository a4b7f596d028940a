//! The loop of one thread.
//!
//! ```text
//! closed loop     sleep for a small part of the usual latency, so that replies come in batches
//! per turn        wait in ppoll(2): until a reply comes, or the next query of the schedule is due
//!   per channel   read a batch, match each reply (ID -> slot, generation, question), note its latency
//!   closed loop   each freed slot lets the next query go
//!   open loop     what is due by now goes out, a batch on each channel in turn
//! now and then    what is older than the time-out counts as lost
//! each second     the counts so far go to the thread that waits for them
//! ```
//!
//! In the open loop a query is late, never left out: its latency counts from when it was due.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use swiftlet_net::client::{sharpen_timers, thread_cpu_ns};

use crate::carrier::{BATCH, Carrier, Received};
use crate::content;
use crate::lane::{Asked, Lane};
use crate::order::Cursor;
use crate::{Queries, Report};

/// The longest wait in ppoll(2), and the time between two searches for lost queries.
const WAIT: Duration = Duration::from_millis(20);

/// The shortest wait in the open loop: what is due within it goes out together, which costs less
/// than to be woken for each.
const NAP: Duration = Duration::from_micros(50);

/// Share of the usual latency that the closed loop sleeps before it reads, so that replies come in
/// batches: `1 / NAP_PART`. A server that is the bottleneck has the rest of the window to work on
/// and doesn't notice; where the window is the bottleneck, the rate is lower by this share at most.
const NAP_PART: u64 = 8;

/// The longest such sleep.
const NAP_MAX: Duration = Duration::from_micros(200);

/// A query that is sent later than this after it was due was held up by the generator. Shorter
/// delays, as when the scheduler lets something else run, are in the latency but prove nothing.
const LATE_NS: u64 = 10_000_000;

/// How long after the end the open loop still sends what was due before it.
const GRACE_NS: u64 = 100_000_000;

/// One answer in so many is looked into.
const SAMPLE: u64 = 64;

/// What a thread has to do.
pub(crate) struct Task<'q> {
    pub(crate) queries: &'q Queries,
    pub(crate) cursor: Cursor<'q>,
    pub(crate) schedule: Option<Schedule>,
    /// Queries to send; `None` if time is the limit.
    pub(crate) left: Option<usize>,
    pub(crate) end_ns: u64,
    pub(crate) timeout_ns: u64,
    pub(crate) start: Instant,
    pub(crate) stop: &'q AtomicBool,
    /// The first serial of this thread.
    pub(crate) serial: u64,
}

/// When queries are due in the open loop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    interval_ns: f64,
    offset_ns: f64,
    count: u64,
}

impl Schedule {
    /// At this rate, the first one `phase` intervals after the start.
    pub(crate) fn new(rate: f64, phase: f64) -> Self {
        let interval_ns = 1e9 / rate;
        Self { interval_ns, offset_ns: phase * interval_ns, count: 0 }
    }

    fn due_ns(&self) -> u64 {
        (self.offset_ns + self.count as f64 * self.interval_ns) as u64
    }

    /// Queries that are due from now on before `end_ns`.
    fn remaining(&self, end_ns: u64) -> u64 {
        let left_ns = end_ns.saturating_sub(self.due_ns());
        (left_ns as f64 / self.interval_ns).ceil() as u64
    }
}

/// The loop of one thread.
pub(crate) struct Generator<'q, C> {
    task: Task<'q>,
    carrier: C,
    lanes: Vec<Lane>,
    /// Queries that were taken but could not be sent.
    returned: Vec<usize>,
    /// The channel whose turn it is in the open loop.
    turn: usize,
    /// The usual latency: a moving mean over the last reads.
    usual_ns: u64,
    report: Report,
}

impl<'q, C: Carrier> Generator<'q, C> {
    /// One lane for each of the carrier's channels.
    pub(crate) fn new(task: Task<'q>, carrier: C, lanes: Vec<Lane>) -> Self {
        let report = Report::new(1);
        Self { task, carrier, lanes, returned: Vec::new(), turn: 0, usual_ns: 0, report }
    }

    /// Runs to the end and sends the report of each second, with its number.
    pub(crate) fn run(mut self, ticks: &Sender<(u64, Report)>) -> io::Result<()> {
        sharpen_timers();
        let mut cpu_ns = thread_cpu_ns();
        let (mut expired_ns, mut second, mut second_ns) = (0, 0, 0);
        self.refill_all(self.now_ns())?;
        loop {
            self.nap();
            self.carrier.wait(self.wait_time())?;
            for channel in 0..self.carrier.channels() {
                if self.carrier.is_ready(channel) {
                    self.collect(channel)?;
                    if self.task.schedule.is_none() {
                        self.refill(channel, self.now_ns())?;
                    }
                }
            }
            let now_ns = self.now_ns();
            if self.task.schedule.is_some() {
                self.send_due(now_ns)?;
            }
            if now_ns >= expired_ns + WAIT.as_nanos() as u64 {
                expired_ns = now_ns;
                self.expire(now_ns);
                self.refill_all(now_ns)?;
            }
            let is_end = self.is_over(now_ns) && self.outstanding() == 0;
            if now_ns / 1_000_000_000 > second || is_end {
                let used_ns = thread_cpu_ns();
                self.report.cpu = Duration::from_nanos(used_ns - cpu_ns);
                self.report.length = Duration::from_nanos(now_ns - second_ns);
                second_ns = now_ns;
                cpu_ns = used_ns;
                if is_end {
                    self.count_unsent();
                    self.report.overruns = self.carrier.overruns();
                }
                // The receiver lives until all threads have ended, or nobody waits any more.
                let _ = ticks.send((second, std::mem::replace(&mut self.report, Report::new(1))));
                second = now_ns / 1_000_000_000;
            }
            if is_end {
                return Ok(());
            }
        }
    }

    fn now_ns(&self) -> u64 {
        self.task.start.elapsed().as_nanos() as u64
    }

    fn outstanding(&self) -> usize {
        self.lanes.iter().map(Lane::outstanding).sum()
    }

    /// Whether nothing more is to be sent.
    fn is_over(&self, now_ns: u64) -> bool {
        let Task { end_ns, left, ref schedule, stop, .. } = self.task;
        let time_is_up = match schedule {
            Some(schedule) => {
                schedule.due_ns() >= end_ns || now_ns >= end_ns.saturating_add(GRACE_NS)
            }
            None => now_ns >= end_ns,
        };
        time_is_up || left == Some(0) || stop.load(Ordering::Relaxed)
    }

    /// In the closed loop: lets some replies come in, when that is worth a system call.
    fn nap(&self) {
        let nap = Duration::from_nanos(self.usual_ns / NAP_PART).min(NAP_MAX);
        if self.task.schedule.is_none() && nap >= NAP {
            thread::sleep(nap);
        }
    }

    fn wait_time(&self) -> Duration {
        let Some(schedule) = &self.task.schedule else {
            return WAIT;
        };
        let now_ns = self.now_ns();
        if self.is_over(now_ns) || self.lanes.iter().all(|lane| lane.room() == 0) {
            return WAIT;
        }
        Duration::from_nanos(schedule.due_ns().saturating_sub(now_ns)).clamp(NAP, WAIT)
    }

    /// Reads one batch of replies.
    fn collect(&mut self, channel: usize) -> io::Result<()> {
        let (report, lane) = (&mut self.report, &mut self.lanes[channel]);
        let mut latest_ns = None;
        let (queries, start) = (self.task.queries, self.task.start);
        let is_open_loop = self.task.schedule.is_some();
        let mut now = None;
        let received = self.carrier.receive(channel, &mut |reply| {
            let now = *now.get_or_insert_with(|| start.elapsed());
            let Some(asked) = lane.settle(reply, queries) else {
                report.mismatched += 1;
                return;
            };
            let now_ns = now.as_nanos() as u64;
            if report.answered.is_multiple_of(SAMPLE) {
                report.content.add(content::check(reply));
            }
            report.answered += 1;
            report.elapsed = now;
            report.bytes_received += reply.len() as u64;
            let latency_ns = now_ns.saturating_sub(asked.due_ns);
            report.latency.saturating_record(latency_ns);
            latest_ns = Some(latency_ns);
            if is_open_loop {
                report.service.saturating_record(now_ns.saturating_sub(asked.sent_ns));
            }
            // The header is there: the question after it has matched.
            report.truncated += u64::from(reply[2] >> 1 & 1);
            report.rcodes[usize::from(reply[3] & 15)] += 1;
        })?;
        if let Some(latest_ns) = latest_ns {
            self.usual_ns = (7 * self.usual_ns + latest_ns) / 8;
        }
        match received {
            Received::Replies => {}
            Received::Refused => report.unreachable += 1,
            Received::Closed => {
                report.closed += 1;
                report.lost += lane.expire(u64::MAX);
            }
        }
        Ok(())
    }

    /// Lets as many queries go as the windows have room for. Nothing in the open loop.
    fn refill_all(&mut self, now_ns: u64) -> io::Result<()> {
        if self.task.schedule.is_none() {
            for channel in 0..self.lanes.len() {
                self.refill(channel, now_ns)?;
            }
        }
        Ok(())
    }

    fn refill(&mut self, channel: usize, now_ns: u64) -> io::Result<()> {
        loop {
            let mut room = self.room(channel);
            let asked = room;
            while room > 0 && !self.is_over(now_ns) {
                self.ask(channel, now_ns, now_ns);
                room -= 1;
            }
            let is_whole = self.flush(channel)?;
            if room > 0 || asked < BATCH || !is_whole {
                return Ok(());
            }
        }
    }

    /// Sends what the schedule wanted sent by now, a batch on each channel in turn.
    fn send_due(&mut self, now_ns: u64) -> io::Result<()> {
        let mut full = 0;
        while full < self.lanes.len() && !self.is_over(now_ns) {
            let channel = self.turn;
            self.turn = (channel + 1) % self.lanes.len();
            let room = self.room(channel);
            let mut asked = 0;
            while asked < room && !self.is_over(now_ns) {
                let Some(due_ns) = self
                    .task
                    .schedule
                    .map(|schedule| schedule.due_ns())
                    .filter(|&due| due <= now_ns)
                else {
                    self.flush(channel)?;
                    return Ok(());
                };
                if let Some(schedule) = &mut self.task.schedule {
                    schedule.count += 1;
                }
                self.report.late += u64::from(now_ns - due_ns > LATE_NS);
                self.ask(channel, due_ns, now_ns);
                asked += 1;
            }
            full = if asked == 0 { full + 1 } else { 0 };
            if !self.flush(channel)? {
                return Ok(());
            }
        }
        Ok(())
    }

    fn room(&mut self, channel: usize) -> usize {
        let lane = &self.lanes[channel];
        lane.room().min(self.carrier.room(channel, lane.outstanding()))
    }

    /// Pushes the next query for a channel that has room.
    fn ask(&mut self, channel: usize, due_ns: u64, sent_ns: u64) {
        let query = self.returned.pop().unwrap_or_else(|| self.task.cursor.take());
        let serial = self.task.serial;
        let Some(id) = self.lanes[channel].ask(Asked { query, serial, due_ns, sent_ns }) else {
            self.returned.push(query);
            return;
        };
        self.task.serial += 1;
        self.task.left = self.task.left.map(|left| left - 1);
        let (queries, report) = (self.task.queries, &mut self.report);
        self.carrier.push(channel, |buf| {
            let len = queries.write(query, serial, id, buf);
            report.bytes_sent += len as u64;
            len
        });
    }

    /// Sends what was pushed. False if the kernel did not take all of it; the rest goes later, but
    /// what the open loop wanted sent now was never sent.
    fn flush(&mut self, channel: usize) -> io::Result<bool> {
        let (lane, returned) = (&mut self.lanes[channel], &mut self.returned);
        let (report, left) = (&mut self.report, &mut self.task.left);
        let is_open_loop = self.task.schedule.is_some();
        let mut is_whole = true;
        let flushed = self.carrier.flush(channel, &mut |id| {
            is_whole = false;
            if let Some(asked) = lane.take_back(id) {
                returned.push(asked.query);
                *left = left.map(|left| left + 1);
                report.unsent += u64::from(is_open_loop);
            }
        })?;
        report.sent += flushed.sent as u64;
        report.unreachable += flushed.refusals;
        Ok(is_whole)
    }

    /// Counts what has waited for longer than the time-out as lost.
    fn expire(&mut self, now_ns: u64) {
        let before_ns = now_ns.saturating_sub(self.task.timeout_ns);
        for lane in &mut self.lanes {
            self.report.lost += lane.expire(before_ns);
        }
    }

    /// At the end: what was due and never went out. Not what came after an interruption.
    fn count_unsent(&mut self) {
        if let Some(schedule) = self.task.schedule
            && self.task.left.is_none()
            && !self.task.stop.load(Ordering::Relaxed)
        {
            self.report.unsent += schedule.remaining(self.task.end_ns);
        }
    }
}
