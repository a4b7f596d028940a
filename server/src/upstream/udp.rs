//! Questions over UDP: one send each, and one task that receives for all of them.
//!
//! A question leaves from a port of the pool ([`super::ports`]), whose socket is connected, so the kernel passes
//! on only what comes from the address and port that were asked. The receiving task finds the question by
//! port and ID, checks what came against what was sent (RFC 5452 §9.1), and wakes who waits. What does not
//! fit is counted and waited past, for the true answer may still come. Who waits holds an [`Asking`]: dropped at
//! any moment it takes its question back, and a reply that comes later is counted as late.
//!
//! Cost of a question: one send, one recv, and a share of one epoll_wait for all that came at once. Bounds:
//! [`MAX_WRONG_REPLIES`] for a question; the task yields after each 64 datagrams, well within 200 µs. Nothing
//! is allocated for a question but the buffer of its reply, which comes from the pool of this thread; while it
//! waits it takes some 450 bytes, and as many questions wait as the resolver lets ask.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use rand::rngs::StdRng;
use slab::Slab;
use swiftlet_net::watch_set::{MAX_EVENTS, WatchSet};
use swiftlet_parser::key::Key;
use swiftlet_parser::rr::HEADER_LEN;
use tokio::time::{Instant, sleep, timeout};

use super::habits::Habits;
use super::ports::{Budget, Ports, Whose};
use super::question::{Answered, Form, Query, Question, State, Verdict};
use super::{Failure, Servers};
use crate::telemetry::{Counter, Tally};

/// Wrong replies to one question after which it is asked over TCP, where nobody can guess along.
const MAX_WRONG_REPLIES: u8 = 8;

/// The longest reply: what the largest UDP size asks for. A longer one is cut, and no answer then.
const MAX_REPLY_LEN: usize = 4096;

/// How long a reply is waited for after one that was wrong in nothing but its letter case.
const CASE_PATIENCE: Duration = Duration::from_millis(100);

/// How often idle ports are looked for while some are open.
const SWEEP: Duration = Duration::from_secs(1);

/// One worker's questions over UDP.
#[derive(Debug)]
pub(super) struct Udp {
    set: io::Result<WatchSet>,
    table: RefCell<Table>,
    servers: Servers,
    tally: Tally,
    /// Whether the receiving task was started.
    receiving: Cell<bool>,
    /// Whether the sweeping task runs.
    sweeping: Cell<bool>,
}

#[derive(Debug)]
struct Table {
    ports: Ports,
    questions: Slab<Question>,
    random: StdRng,
    /// Where datagrams are received.
    scratch: Box<[u8; MAX_REPLY_LEN]>,
}

impl Udp {
    pub(super) fn new(
        servers: Servers,
        slots: usize,
        budget: Rc<Budget>,
        tally: Tally,
    ) -> Rc<Self> {
        let table = Table {
            ports: Ports::new(slots, budget, tally.clone()),
            questions: Slab::new(),
            random: rand::make_rng(),
            scratch: Box::new([0; MAX_REPLY_LEN]),
        };
        Rc::new(Self {
            set: WatchSet::new(),
            table: table.into(),
            servers,
            tally,
            receiving: Cell::new(false),
            sweeping: Cell::new(false),
        })
    }

    /// Sends the question and waits for its answer; the caller bounds the time. Must be called inside a
    /// `LocalSet`.
    pub(super) async fn exchange(
        self: &Rc<Self>,
        server: usize,
        key: &Key<'_>,
        form: Form,
    ) -> Result<Answered, Failure> {
        let asking = self.begin(server, key, form)?;
        if let Some(end) = poll_fn(|cx| asking.poll(cx, State::is_waiting)).await {
            return end;
        }
        // Most likely it was the server after all, which does not always keep the case, and nothing more
        // will come: TCP tells.
        let ended = poll_fn(|cx| asking.poll(cx, State::is_open));
        match timeout(CASE_PATIENCE, ended).await {
            Ok(Some(end)) => end,
            _ => Ok(Answered::Suspicious),
        }
    }

    /// Closes an idle port if another socket may not be opened otherwise. Returns whether there is room.
    pub(super) fn make_room(&self) -> bool {
        self.table.borrow_mut().ports.make_room()
    }

    /// Sends a question.
    fn begin(
        self: &Rc<Self>,
        server: usize,
        key: &Key<'_>,
        form: Form,
    ) -> Result<Asking<'_>, Failure> {
        let set = self.start()?;
        // Whatever comes of it, a port may be opened.
        self.start_sweeping();
        let address = self.servers.address(server);
        let renewals = self.habits(server).renewals();
        let mut table = self.table.borrow_mut();
        let table = &mut *table;
        let sent = Instant::now();
        // What a socket tells when it is sent to may be of an earlier question: that is worth one more try.
        for _ in 0..2 {
            let random = &mut table.random;
            let port = table.ports.pick((server, address), renewals, sent, random, set)?;
            let Some(held) = table.ports.get_mut(port) else { break };
            let id = held.draw_id(random);
            let query = Query::write(id, key, form, random).ok_or(Failure::Malformed)?;
            self.tally.inc(Counter::UpstreamQueries);
            if held.socket.send(query.as_bytes()).is_err() {
                table.fail(port);
                continue;
            }
            let question =
                table.questions.insert(Question::new(server, port, id, query, form, sent));
            if let Some(held) = table.ports.get_mut(port) {
                held.enter(id, question);
            }
            return Ok(Asking { udp: self, question });
        }
        Err(Failure::Network)
    }

    fn habits(&self, server: usize) -> &Habits {
        self.servers.habits(server)
    }

    /// Starts the receiving task at the first question.
    fn start(self: &Rc<Self>) -> Result<&WatchSet, Failure> {
        let set = self.set.as_ref().map_err(|_| Failure::NoSocket)?;
        if !self.receiving.get() {
            let watch = set.watch().map_err(|_| Failure::NoSocket)?;
            let udp = Rc::downgrade(self);
            self.receiving.set(true);
            tokio::task::spawn_local(async move {
                let receive = || udp.upgrade().is_some_and(|udp| udp.receive());
                // It ends with the worker's runtime.
                while let Ok(more) = watch.serve(receive).await {
                    if more {
                        tokio::task::yield_now().await;
                    }
                }
            });
        }
        Ok(set)
    }

    /// Closes idle ports from time to time, as long as any is open.
    fn start_sweeping(self: &Rc<Self>) {
        if self.sweeping.replace(true) {
            return;
        }
        let udp = Rc::downgrade(self);
        tokio::task::spawn_local(async move {
            loop {
                sleep(SWEEP).await;
                let Some(udp) = udp.upgrade() else { return };
                if !udp.table.borrow_mut().ports.sweep(Instant::now()) {
                    return udp.sweeping.set(false);
                }
            }
        });
    }

    /// Receives from each port that has something, once. Returns whether more may be there that somebody
    /// waits for.
    fn receive(&self) -> bool {
        let Ok(set) = &self.set else { return false };
        let mut tokens = [0; MAX_EVENTS];
        let count = set.take(&mut tokens);
        let mut more = count == tokens.len();
        let table = &mut *self.table.borrow_mut();
        let now = Instant::now();
        for &token in &tokens[..count] {
            let port = token as usize;
            self.receive_from(table, port, now);
            // What comes to a port where nobody waits can stay until somebody does.
            more |= table.ports.get_mut(port).is_some_and(|port| !port.is_idle());
        }
        more
    }

    fn receive_from(&self, table: &mut Table, port: usize, now: Instant) {
        // It may have been closed since, and another one opened under its number.
        let Some(held) = table.ports.get_mut(port) else { return };
        match held.socket.recv(&mut *table.scratch) {
            Ok(len) => self.received(table, port, len, now),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            // The network or the server's host refused: it does not say which question.
            Err(_) => table.fail(port),
        }
    }

    /// Gives a datagram to the question that it answers.
    fn received(&self, table: &mut Table, port: usize, len: usize, now: Instant) {
        let Table { ports, questions, scratch, .. } = table;
        let message = scratch.get(..len).unwrap_or_default();
        let Some(held) = ports.get_mut(port) else { return };
        let id = message.first_chunk().map_or(0, |id| u16::from_be_bytes(*id));
        let whose = if len < HEADER_LEN { Whose::Nobody } else { held.whose(id) };
        let verdict = match whose {
            Whose::Late => return self.tally.inc(Counter::UpstreamLateReplies),
            Whose::Nobody => Verdict::Wrong,
            Whose::Waiting(at) => match questions.get_mut(at) {
                Some(question) => {
                    let habits = self.habits(question.server as usize);
                    question.judge(message, held.number, habits, now)
                }
                None => Verdict::Wrong,
            },
        };
        match verdict {
            Verdict::Answer => return ports.leave(port, id, true),
            Verdict::OtherCase => {}
            Verdict::Wrong => table.suspect(port),
        }
        self.tally.inc(Counter::UpstreamWrongReplies);
    }
}

impl Table {
    /// Ends all questions on a port, whose socket told of an error.
    fn fail(&mut self, port: usize) {
        let Some(held) = self.ports.get_mut(port) else { return };
        held.wear_out();
        for at in held.waiting() {
            self.end(at, Err(Failure::Network));
        }
    }

    /// Holds a datagram that nobody asked for against the questions of its port: whoever sent it may be
    /// guessing at any of them.
    fn suspect(&mut self, port: usize) {
        let waiting = self.ports.get_mut(port).map(|port| port.waiting());
        for at in waiting.into_iter().flatten() {
            let Some(question) = self.questions.get_mut(at) else { continue };
            question.wrong += 1;
            if question.wrong >= MAX_WRONG_REPLIES {
                self.end(at, Ok(Answered::Suspicious));
            }
        }
    }

    fn end(&mut self, at: usize, end: Result<Answered, Failure>) {
        let Some(question) = self.questions.get_mut(at) else { return };
        question.end(end);
        let (port, id) = (question.port as usize, question.id);
        self.ports.leave(port, id, false);
    }
}

/// Somebody's wait for a question. Dropped, it takes the question back.
#[derive(Debug)]
struct Asking<'u> {
    udp: &'u Udp,
    question: usize,
}

impl Asking<'_> {
    /// The question's end, or `None` if it left the states to be waited in otherwise.
    fn poll(
        &self,
        cx: &mut Context<'_>,
        waits: fn(&State) -> bool,
    ) -> Poll<Option<Result<Answered, Failure>>> {
        let table = &mut *self.udp.table.borrow_mut();
        let Some(question) = table.questions.get_mut(self.question) else {
            return Poll::Ready(None);
        };
        if waits(&question.state) {
            match &mut question.waker {
                Some(waker) => waker.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        }
        if question.state.is_open() {
            return Poll::Ready(None);
        }
        match std::mem::replace(&mut question.state, State::Taken) {
            State::Ended(end) => Poll::Ready(Some(end)),
            _ => Poll::Ready(None),
        }
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let table = &mut *self.udp.table.borrow_mut();
        if let Some(question) = table.questions.try_remove(self.question) {
            // If it was answered it has left already.
            table.ports.leave(question.port as usize, question.id, false);
        }
    }
}

#[cfg(test)]
mod tests;
