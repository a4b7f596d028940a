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
//! is allocated for a question but the buffer of its reply, which comes from the pool of this thread.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use slab::Slab;
use swiftlet_net::watch_set::{MAX_EVENTS, WatchSet};
use swiftlet_parser::key::{CaseBits, Key};
use swiftlet_parser::message::{write_plain_query, write_query};
use swiftlet_parser::response::{Echo, Response, bare_error};
use swiftlet_parser::rr::{HEADER_LEN, Rcode};
use tokio::time::{Instant, sleep, timeout};

use super::habits::{Habits, Sign};
use super::ports::{Budget, Ports, Whose};
use super::{Failure, Reply, Servers};
use crate::telemetry::{Counter, Tally};

/// Wrong replies to one question after which it is asked over TCP, where nobody can guess along.
const MAX_WRONG_REPLIES: u8 = 8;

/// The longest reply: what the largest UDP size asks for. A longer one is cut, and no answer then.
const MAX_REPLY_LEN: usize = 4096;

/// The longest query: header, question, OPT.
pub(super) const MAX_QUERY_LEN: usize = HEADER_LEN + 255 + 4 + 11;

/// How long a reply is waited for after one that was wrong in nothing but its letter case.
const CASE_PATIENCE: Duration = Duration::from_millis(100);

/// How often idle ports are looked for while some are open.
const SWEEP: Duration = Duration::from_secs(1);

/// What a server said.
#[derive(Debug)]
pub(super) enum Answered {
    /// A whole message.
    Whole(Reply),
    /// An answer with TC set.
    Truncated,
    /// Too many replies that did not fit.
    Suspicious,
    /// This code, without repeating the question.
    Refused(Rcode),
    /// FORMERR or NOTIMP to a question with EDNS (RFC 6891 §7).
    NotUnderstood(Rcode, Sign),
}

/// How a question is put.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    /// The UDP size offered in an OPT record, if there is one.
    pub(super) edns: Option<u16>,
    /// Whether a refusal may be for the OPT record.
    pub(super) may_fall_back: bool,
    /// Whether letters get a random case.
    pub(super) random_case: bool,
}

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

/// A question that somebody waits for.
#[derive(Debug)]
struct Question {
    server: u32,
    port: u32,
    id: u16,
    /// As it was sent.
    query: Query,
    may_fall_back: bool,
    wrong: u8,
    sent: Instant,
    state: State,
    waker: Option<Waker>,
}

#[derive(Debug)]
enum State {
    Waiting,
    /// A reply was wrong in its letter case alone.
    Doubtful,
    Ended(Result<Answered, Failure>),
    /// The end was taken.
    Taken,
}

/// A query as it was sent.
#[derive(Debug)]
pub(super) struct Query {
    bytes: [u8; MAX_QUERY_LEN],
    len: u16,
    /// Some letter of the name is upper case.
    has_upper: bool,
}

impl Query {
    /// The question of `key`; `None` if the key is none.
    pub(super) fn write(id: u16, key: &Key<'_>, form: Form, random: &mut StdRng) -> Option<Self> {
        let mut bytes = [0; MAX_QUERY_LEN];
        let len = match form.edns {
            Some(udp_size) => write_query(&mut bytes, id, key, udp_size)?,
            None => write_plain_query(&mut bytes, id, key)?,
        };
        let name = bytes.get_mut(HEADER_LEN..HEADER_LEN + key.qname().len())?;
        if form.random_case {
            let mut bits = [0; 4];
            for (word, _) in bits.iter_mut().zip(name.chunks(64)) {
                *word = random.random();
            }
            CaseBits::new(bits).apply(name);
        }
        let has_upper = name.iter().any(u8::is_ascii_uppercase);
        Some(Self { bytes, len: len as u16, has_upper })
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// Whether the name has letters in upper case, so that a reply shows whether it keeps them.
    pub(super) fn has_upper(&self) -> bool {
        self.has_upper
    }
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
            let question = table.questions.insert(Question {
                server: server as u32,
                port: port as u32,
                id,
                query,
                may_fall_back: form.may_fall_back,
                wrong: 0,
                sent,
                state: State::Waiting,
                waker: None,
            });
            if let Some(held) = table.ports.get_mut(port) {
                held.enter(id, question);
            }
            self.start_sweeping();
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

/// What a datagram is to the question whose ID it has.
enum Verdict {
    /// Its end.
    Answer,
    /// Wrong in the letter case of the name alone.
    OtherCase,
    /// None of its.
    Wrong,
}

impl Question {
    /// Holds a datagram against the question, and ends it with what fits.
    fn judge(&mut self, message: &[u8], port: u16, habits: &Habits, now: Instant) -> Verdict {
        // Some servers refuse without repeating the question (RFC 8906); that may end this try.
        if let Some((_, rcode)) = bare_error(message) {
            self.end(Ok(match self.may_fall_back && is_not_understood(rcode) {
                true => Answered::NotUnderstood(rcode, Sign::Port(port)),
                false => Answered::Refused(rcode),
            }));
            return Verdict::Answer;
        }
        let Ok(response) = Response::parse(message) else { return Verdict::Wrong };
        match response.echo_of(self.query.as_bytes()) {
            None => return Verdict::Wrong,
            Some(Echo::OtherCase) if habits.keeps_case() => {
                self.state = State::Doubtful;
                self.wake();
                return Verdict::OtherCase;
            }
            Some(Echo::Exact) if self.query.has_upper() => habits.note_case(true),
            Some(_) => {}
        }
        if response.has_edns() {
            habits.note_edns();
        }
        let rcode = response.rcode();
        self.end(Ok(if response.flags().tc() {
            Answered::Truncated
        } else if self.may_fall_back && !response.has_edns() && is_not_understood(rcode) {
            Answered::NotUnderstood(rcode, Sign::Port(port))
        } else {
            let took = now.saturating_duration_since(self.sent);
            Answered::Whole(Reply::copied(message, took))
        }));
        Verdict::Answer
    }

    fn end(&mut self, end: Result<Answered, Failure>) {
        if self.state.is_open() {
            self.state = State::Ended(end);
            self.wake();
        }
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// The codes by which a server without EDNS refuses a question with it (RFC 6891 §7).
pub(super) fn is_not_understood(rcode: Rcode) -> bool {
    matches!(rcode, Rcode::FORMERR | Rcode::NOTIMP)
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

impl State {
    fn is_waiting(&self) -> bool {
        matches!(self, Self::Waiting)
    }

    fn is_open(&self) -> bool {
        matches!(self, Self::Waiting | Self::Doubtful)
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
