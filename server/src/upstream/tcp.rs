//! Questions over TCP (RFC 7766): for answers that UDP could not carry. Connections are kept and pipelined.
//!
//! A connection carries up to [`MAX_PIPELINED`] questions at a time, which it tells apart by their IDs and whose
//! answers may come in any order. When it is full a second one is opened, at most [`MAX_CONNECTIONS`] for a server
//! on each worker. It is closed by the server, after [`MAX_IDLE`] without a question, or when a question ran
//! out of time on it while nothing came at all: then it is most likely dead, and takes no more.
//!
//! A server may close a connection at any moment, so a question that it left open on one that had been good
//! is asked once more over another (RFC 7766 §6.2.1).

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use swiftlet_net::pool::PooledBuf;
use swiftlet_parser::key::Key;
use swiftlet_parser::response::{Echo, Response, bare_error};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until};

use super::habits::Sign;
use super::ports::{Budget, Share, is_exhausted};
use super::question::{Answered, Form, Query, has_additional, is_not_understood};
use super::udp::Udp;
use super::{Failure, Reply, Servers};
use crate::telemetry::{Counter, Tally};

/// Questions that a connection carries at a time.
pub(super) const MAX_PIPELINED: usize = 64;

/// Connections of one worker to one server.
pub(super) const MAX_CONNECTIONS: usize = 4;

/// How long a connection is kept without questions.
pub(super) const MAX_IDLE: Duration = Duration::from_secs(10);

/// The length field before each message (RFC 1035 §4.2.2).
const LENGTH_LEN: usize = 2;

/// Bytes read at a time; a longer message is read into a buffer of its own.
const READ_LEN: usize = 4096;

/// One worker's connections to all servers.
#[derive(Debug)]
pub(super) struct Connections {
    servers: Servers,
    /// By server; those that ended are taken out when another is looked for.
    kept: RefCell<HashMap<usize, Vec<Rc<Connection>>>>,
    random: RefCell<StdRng>,
    budget: Rc<Budget>,
    tally: Tally,
}

/// One connection, from the order to connect to its end.
#[derive(Debug)]
struct Connection {
    state: RefCell<State>,
    /// Rung when there is something to write.
    outbox: Notify,
    /// Rung when the last question left, or when it takes no more.
    left: Notify,
    renewals: u32,
}

#[derive(Debug)]
struct State {
    waiting: HashMap<u16, Waiting>,
    /// Questions so far.
    carried: u64,
    /// Frames not yet given to the kernel.
    outgoing: Vec<u8>,
    /// Why it ended, once it has.
    ended: Option<Ending>,
    /// It takes no more questions.
    worn: bool,
    /// When something came last, and when the last question left.
    heard: Option<Instant>,
    idle_since: Instant,
}

/// A question that waits for its answer.
#[derive(Debug)]
struct Waiting {
    /// How many questions the connection carried before.
    number: u64,
    query: Query,
    form: Form,
    sent: Instant,
    told: oneshot::Sender<Result<Answered, Ending>>,
}

/// How a connection ended, to those who waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// It broke or could not be made.
    Broken,
    /// It broke after answers had come over it.
    Closed,
    /// What came is no DNS.
    Malformed,
    /// An answer to another question under this one's ID.
    WrongReply,
    /// This process has no socket left.
    Exhausted,
}

impl Ending {
    fn failure(self) -> Failure {
        match self {
            Self::Broken | Self::Closed => Failure::Stream,
            Self::Malformed => Failure::Malformed,
            Self::WrongReply => Failure::WrongReplies,
            Self::Exhausted => Failure::NoSocket,
        }
    }
}

impl Connections {
    pub(super) fn new(servers: Servers, budget: Rc<Budget>, tally: Tally) -> Self {
        let (kept, random) = (RefCell::default(), RefCell::new(rand::make_rng()));
        Self { servers, kept, random, budget, tally }
    }

    /// Asks over a connection and waits for the answer; the caller bounds the time. Must be called inside a
    /// `LocalSet`.
    pub(super) async fn exchange(
        &self,
        server: usize,
        key: &Key<'_>,
        form: Form,
        udp: &Udp,
    ) -> Result<Answered, Failure> {
        let connection = self.pick(server, udp, false)?;
        match self.ask(server, &connection, key, form).await {
            Err(Ending::Closed) => {}
            end => return end.map_err(Ending::failure),
        }
        let connection = self.pick(server, udp, true)?;
        self.ask(server, &connection, key, form).await.map_err(Ending::failure)
    }

    async fn ask(
        &self,
        server: usize,
        connection: &Rc<Connection>,
        key: &Key<'_>,
        form: Form,
    ) -> Result<Answered, Ending> {
        self.tally.inc(Counter::UpstreamTcpQueries);
        let (_asking, answer) = {
            let random = &mut *self.random.borrow_mut();
            connection.enter(key, form, random).ok_or(Ending::Broken)?
        };
        let answered = answer.await.unwrap_or(Err(Ending::Broken));
        match &answered {
            Ok(Answered::Whole(reply)) => self.learn(server, reply),
            Err(Ending::WrongReply) => self.tally.inc(Counter::UpstreamWrongReplies),
            _ => {}
        }
        answered
    }

    /// Over TCP it is the server itself that speaks: if it changes the letter case, it does not keep it.
    fn learn(&self, server: usize, reply: &Reply) {
        if reply.other_case {
            self.servers.habits(server).note_case(false);
        }
    }

    /// A connection that takes one more question; if `anew`, one over which nothing has come yet.
    fn pick(&self, server: usize, udp: &Udp, anew: bool) -> Result<Rc<Connection>, Failure> {
        let renewals = self.servers.habits(server).renewals();
        let mut kept = self.kept.borrow_mut();
        let kept = kept.entry(server).or_default();
        // Those from before the ways were made anew end by themselves.
        kept.retain(|connection| {
            let is_old = connection.renewals != renewals;
            if is_old {
                connection.wear_out();
            }
            !is_old && connection.state.borrow().ended.is_none()
        });
        let is_new = |connection: &Connection| connection.state.borrow().heard.is_none();
        let usable = || kept.iter().filter(|connection| connection.takes_more());
        let is_full = kept.len() >= MAX_CONNECTIONS;
        if let Some(connection) = usable().find(|kept| !anew || is_full || is_new(kept)) {
            return Ok(Rc::clone(connection));
        }
        if is_full {
            return Err(Failure::Stream);
        }
        if !self.budget.has_room() && !udp.make_room() {
            return Err(Failure::NoSocket);
        }
        let connection = Rc::new(Connection::new(renewals));
        kept.push(Rc::clone(&connection));
        self.tally.inc(Counter::UpstreamConnections);
        let (address, share) = (self.servers.address(server), self.budget.take());
        let (running, tally) = (Rc::clone(&connection), self.tally.clone());
        tokio::task::spawn_local(running.run(address, share, tally));
        Ok(connection)
    }
}

impl Connection {
    fn new(renewals: u32) -> Self {
        let state = State {
            waiting: HashMap::new(),
            carried: 0,
            outgoing: Vec::new(),
            ended: None,
            worn: false,
            heard: None,
            idle_since: Instant::now(),
        };
        Self { state: state.into(), outbox: Notify::new(), left: Notify::new(), renewals }
    }

    fn takes_more(&self) -> bool {
        let state = self.state.borrow();
        state.ended.is_none() && !state.worn && state.waiting.len() < MAX_PIPELINED
    }

    /// Has it take no more questions, and end with its last one.
    fn wear_out(&self) {
        self.state.borrow_mut().worn = true;
        self.left.notify_one();
    }

    /// Puts a question on its way. `None` if the connection has ended or the key is none.
    fn enter(
        &self,
        key: &Key<'_>,
        form: Form,
        random: &mut StdRng,
    ) -> Option<(Asking<'_>, Answer)> {
        let state = &mut *self.state.borrow_mut();
        if state.ended.is_some() {
            return None;
        }
        // At most a few of 65,536 are taken.
        let mut id = random.random();
        while state.waiting.contains_key(&id) {
            id = random.random();
        }
        let query = Query::write(id, key, form, random)?;
        state.outgoing.extend((query.as_bytes().len() as u16).to_be_bytes());
        state.outgoing.extend(query.as_bytes());
        let (told, answer) = oneshot::channel();
        let (number, sent) = (state.carried, Instant::now());
        state.carried += 1;
        state.waiting.insert(id, Waiting { number, query, form, sent, told });
        self.outbox.notify_one();
        Some((Asking { connection: self, id, number }, answer))
    }

    /// Takes back a question that nobody waits for any more.
    fn leave(&self, id: u16, number: u64) {
        let state = &mut *self.state.borrow_mut();
        // If it was answered, another one may have its ID by now.
        let is_it = state.waiting.get(&id).is_some_and(|waiting| waiting.number == number);
        if let Some(waiting) = is_it.then(|| state.waiting.remove(&id)).flatten() {
            // Nothing came in all that time: no question should wait for this connection again.
            state.worn |= state.heard.is_none_or(|heard| heard < waiting.sent);
        }
        if state.waiting.is_empty() {
            state.idle_since = Instant::now();
            self.left.notify_one();
        }
    }

    /// The life of the connection.
    async fn run(self: Rc<Self>, address: SocketAddr, _share: Share, tally: Tally) {
        let ending = tokio::select! {
            ending = self.carry(address, &tally) => ending,
            () = self.idle() => Ending::Broken,
        };
        let state = &mut *self.state.borrow_mut();
        let ending = match ending {
            Ending::Broken if state.heard.is_some() => Ending::Closed,
            ending => ending,
        };
        state.ended = Some(ending);
        for (_, waiting) in state.waiting.drain() {
            let _ = waiting.told.send(Err(ending));
        }
    }

    /// Connects, and carries questions and answers until something breaks.
    async fn carry(&self, address: SocketAddr, tally: &Tally) -> Ending {
        let mut stream = match TcpStream::connect(address).await {
            Ok(stream) => stream,
            Err(error) if is_exhausted(&error) => return Ending::Exhausted,
            Err(_) => return Ending::Broken,
        };
        // Frames are written whole: there is nothing to wait for before one is sent.
        let _ = stream.set_nodelay(true);
        let (reader, writer) = stream.split();
        tokio::select! {
            _ = self.write(writer) => Ending::Broken,
            ending = self.read(BufReader::with_capacity(READ_LEN, reader), tally) => {
                ending.unwrap_or(Ending::Broken)
            }
        }
    }

    async fn write(&self, mut writer: WriteHalf<'_>) -> io::Result<()> {
        loop {
            let frames = std::mem::take(&mut self.state.borrow_mut().outgoing);
            match frames.is_empty() {
                true => self.outbox.notified().await,
                false => writer.write_all(&frames).await?,
            }
        }
    }

    async fn read(&self, mut reader: BufReader<ReadHalf<'_>>, tally: &Tally) -> io::Result<Ending> {
        loop {
            let mut length = [0; LENGTH_LEN];
            reader.read_exact(&mut length).await?;
            let len = usize::from(u16::from_be_bytes(length));
            let mut message = PooledBuf::new(len);
            reader.read_exact(&mut message).await?;
            if !self.arrived(message, tally) {
                return Ok(Ending::Malformed);
            }
        }
    }

    /// Gives a message to the question that it answers. Returns whether it was one at all.
    fn arrived(&self, message: PooledBuf, tally: &Tally) -> bool {
        let state = &mut *self.state.borrow_mut();
        let now = Instant::now();
        let (id, rcode, answer) = match (Response::parse(&message), bare_error(&message)) {
            (Ok(response), _) => (response.id(), response.rcode(), Some(response)),
            (Err(_), Some((id, rcode))) => (id, rcode, None),
            (Err(_), None) => return false,
        };
        state.heard = Some(now);
        let Some(waiting) = state.waiting.remove(&id) else {
            tally.inc(Counter::UpstreamLateReplies);
            return true;
        };
        let has_edns = match answer {
            Some(response) => response.has_edns(),
            None => has_additional(&message),
        };
        let not_understood = waiting.form.may_fall_back && !has_edns && is_not_understood(rcode);
        let echo = answer.map(|response| response.echo_of(waiting.query.as_bytes()));
        let end = match echo {
            Some(None) => Err(Ending::WrongReply),
            _ if not_understood => Ok(Answered::NotUnderstood(rcode, Sign::Stream)),
            None => Ok(Answered::Refused(rcode)),
            Some(Some(echo)) => Ok(Answered::Whole(Reply {
                len: message.len(),
                buffer: message,
                took: now.saturating_duration_since(waiting.sent),
                over_tcp: true,
                other_case: echo == Echo::OtherCase,
            })),
        };
        let _ = waiting.told.send(end);
        if state.waiting.is_empty() {
            state.idle_since = now;
            self.left.notify_one();
        }
        true
    }

    /// Waits until the connection is of no more use.
    async fn idle(&self) {
        loop {
            let idle_since = {
                let state = self.state.borrow();
                match (state.waiting.is_empty(), state.worn) {
                    (true, true) => return,
                    (true, false) => Some(state.idle_since),
                    (false, _) => None,
                }
            };
            match idle_since {
                None => self.left.notified().await,
                Some(since) => {
                    let over = since + MAX_IDLE;
                    if Instant::now() >= over {
                        return;
                    }
                    tokio::select! {
                        () = self.left.notified() => {}
                        () = sleep_until(over) => {}
                    }
                }
            }
        }
    }
}

/// Somebody's wait for an answer over a connection. Dropped, it takes the question back.
struct Asking<'c> {
    connection: &'c Connection,
    id: u16,
    number: u64,
}

/// Where its answer comes.
type Answer = oneshot::Receiver<Result<Answered, Ending>>;

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.connection.leave(self.id, self.number);
    }
}

#[cfg(test)]
mod tests;
