//! One client's connection: frames in, answers out as they become known (RFC 7766 §6.2.1.1).
//!
//! ```text
//! socket -> input -> whole frames -> serve -> outbox -> socket
//!                                      \-> waits .. deliver -/
//! ```
//!
//! Bounds: [`MAX_IN_FLIGHT`] queries that wait and [`MAX_UNSENT`] bytes of answers, beyond which no more
//! frames are taken, so that TCP itself slows the client down; [`MAX_QUERY_LEN`] bytes of a query;
//! [`FRAMES_PER_TURN`] frames before other tasks run; the idle time between whole queries; and
//! [`WRITE_TIMEOUT`] for a client that does not read.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::bounds::Admitted;
use super::{StreamId, Streams};
use crate::desk::Desk;
use crate::pipeline::miss::ReplyTo;
use crate::pipeline::{Transport, Verdict, serve};
use crate::telemetry::Counter;

/// Queries of a connection that may wait for their answer.
const MAX_IN_FLIGHT: usize = 128;

/// Bytes of answers that may wait for the client to read.
const MAX_UNSENT: usize = 128 * 1024;

/// The longest query, as over UDP.
const MAX_QUERY_LEN: usize = 4096;

/// Frames served before other tasks get their turn.
const FRAMES_PER_TURN: usize = 32;

/// How long a client may read nothing while answers wait for it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client that is refused may take its time.
const STRANGER_IDLE: Duration = Duration::from_secs(2);

/// The length field before each message (RFC 1035 §4.2.2).
const LENGTH_LEN: usize = 2;

/// Answers on their way to the client, and how many are still to come.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    frames: RefCell<Frames>,
    in_flight: Cell<usize>,
    bell: Notify,
}

#[derive(Debug, Default)]
struct Frames {
    /// Answers with their length fields; those before `sent` are with the kernel.
    bytes: Vec<u8>,
    sent: usize,
    /// Where each answer that is not sent whole ends.
    ends: VecDeque<usize>,
}

impl Outbox {
    /// Takes the answer to a query that waited, or the word that there is none.
    pub(super) fn deliver(&self, message: Option<&[u8]>) {
        if let Some(message) = message {
            self.push(message);
        }
        self.in_flight.set(self.in_flight.get().saturating_sub(1));
        self.ring();
    }

    /// Makes the connection look at its state.
    pub(super) fn ring(&self) {
        self.bell.notify_one();
    }

    fn push(&self, answer: &[u8]) {
        let mut frames = self.frames.borrow_mut();
        frames.bytes.extend_from_slice(&(answer.len() as u16).to_be_bytes());
        frames.bytes.extend_from_slice(answer);
        let end = frames.bytes.len();
        frames.ends.push_back(end);
    }

    fn unsent(&self) -> usize {
        let frames = self.frames.borrow();
        frames.bytes.len() - frames.sent
    }

    /// Whether another query may be taken.
    fn has_room(&self) -> bool {
        self.in_flight.get() < MAX_IN_FLIGHT && self.unsent() < MAX_UNSENT
    }

    /// Writes what the kernel takes. Returns how many answers that completed.
    fn flush(&self, stream: &TcpStream) -> io::Result<usize> {
        let mut frames = self.frames.borrow_mut();
        let taken = match stream.try_write(&frames.bytes[frames.sent..]) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(taken) => taken,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        frames.sent += taken;
        let sent = frames.sent;
        let complete = frames.ends.iter().take_while(|&&end| end <= sent).count();
        frames.ends.drain(..complete);
        if frames.ends.is_empty() {
            frames.bytes.clear();
            frames.sent = 0;
        }
        Ok(complete)
    }
}

/// A connection with its task's state.
pub(super) struct Connection {
    streams: Rc<Streams>,
    desk: Rc<Desk>,
    stream: TcpStream,
    peer: SocketAddr,
    id: StreamId,
    outbox: Rc<Outbox>,
    /// Bytes received that are not served yet.
    input: Vec<u8>,
    /// The client has sent all that it will.
    ended: bool,
    /// The last time that a whole query came or an answer left.
    active: Instant,
    /// Outside the ACL: gets one answer, which says so.
    stranger: bool,
    _admitted: Admitted,
}

impl Connection {
    pub(super) fn new(
        streams: Rc<Streams>,
        desk: Rc<Desk>,
        stream: TcpStream,
        peer: SocketAddr,
        admitted: Admitted,
    ) -> Self {
        let (id, outbox) = streams.register();
        let stranger = !desk.service.policies.acl.allows(peer.ip());
        Self {
            streams,
            desk,
            stream,
            peer,
            id,
            outbox,
            input: Vec::new(),
            ended: false,
            active: Instant::now(),
            stranger,
            _admitted: admitted,
        }
    }

    /// Serves until the client ends, fails or idles, or the server stops.
    pub(super) async fn run(mut self) {
        // Small answers must not wait for the acknowledgement of earlier ones. If the socket is broken
        // already, the first read says so.
        let _ = self.stream.set_nodelay(true);
        while self.turn() {
            if self.has_frame() && self.may_take() {
                tokio::task::yield_now().await;
            } else if !self.wait().await {
                break;
            }
        }
    }

    /// Serves what has come and writes what is ready. Returns whether the connection goes on.
    fn turn(&mut self) -> bool {
        if !self.serve_frames() {
            return false;
        }
        if self.outbox.unsent() > 0 {
            match self.outbox.flush(&self.stream) {
                Ok(0) => {}
                Ok(answers) => {
                    self.desk.tally.add(Counter::Answered, answers as u64);
                    self.active = Instant::now();
                }
                Err(_) => return false,
            }
        }
        let owes = self.outbox.unsent() > 0 || self.outbox.in_flight.get() > 0;
        let over = self.streams.closing.get() || (self.ended && !self.has_frame());
        owes || !over
    }

    fn may_take(&self) -> bool {
        !self.streams.closing.get() && self.outbox.has_room()
    }

    /// The length of the first frame's message, if its length field has come.
    fn frame_len(&self) -> Option<usize> {
        let length = self.input.first_chunk::<LENGTH_LEN>()?;
        Some(usize::from(u16::from_be_bytes(*length)))
    }

    fn has_frame(&self) -> bool {
        self.frame_len().is_some_and(|len| self.input.len() >= LENGTH_LEN + len)
    }

    /// Serves whole frames as far as the bounds allow. False when the connection cannot go on.
    fn serve_frames(&mut self) -> bool {
        let mut served = 0;
        let mut at = 0;
        while served < FRAMES_PER_TURN && self.may_take() {
            let Some(length) = self.input.get(at..).and_then(|rest| rest.first_chunk()) else {
                break;
            };
            let len = usize::from(u16::from_be_bytes(*length));
            if len > MAX_QUERY_LEN {
                self.desk.tally.inc(Counter::Received);
                self.desk.tally.inc(Counter::DroppedOversize);
                return false;
            }
            let begin = at + LENGTH_LEN;
            if self.input.len() < begin + len {
                break;
            }
            self.serve_frame(begin, len);
            at = begin + len;
            served += 1;
            if self.stranger {
                self.ended = true;
                at = self.input.len();
            }
        }
        self.input.drain(..at);
        if served > 0 {
            self.active = Instant::now();
        }
        true
    }

    fn serve_frame(&self, begin: usize, len: usize) {
        let desk = &self.desk;
        desk.tally.inc(Counter::Received);
        desk.tally.inc(Counter::ReceivedStream);
        let batch = desk.batch(Transport::Stream);
        let mut scratch = desk.scratch.borrow_mut();
        let (keys, buf) = scratch.parts();
        buf[..len].copy_from_slice(&self.input[begin..begin + len]);
        match serve(&batch, keys, buf, len, self.peer.ip()) {
            Verdict::Reply(len) => self.outbox.push(&buf[..len]),
            Verdict::ReplyAndRefresh { len, key } => {
                self.outbox.push(&buf[..len]);
                desk.refresh(key, batch.now);
            }
            Verdict::Drop(reason) => desk.tally.inc(reason),
            Verdict::Wait { query, key } => {
                self.outbox.in_flight.set(self.outbox.in_flight.get() + 1);
                let reply_to = ReplyTo::Stream(self.id);
                desk.wait(query, key, buf, reply_to, self.peer.ip());
            }
        }
    }

    /// Waits until there is something to do. False when the client took too long or is gone.
    async fn wait(&mut self) -> bool {
        let unsent = self.outbox.unsent() > 0;
        let patience = match (unsent, self.outbox.in_flight.get() > 0, self.stranger) {
            (true, ..) => Some(WRITE_TIMEOUT),
            // What is in flight has a time-out of its own.
            (false, true, _) => None,
            (false, false, true) => Some(STRANGER_IDLE.min(self.streams.idle)),
            (false, false, false) => Some(self.streams.idle),
        };
        let deadline = self.active + patience.unwrap_or_default();
        let may_read = !self.ended && self.may_take() && !self.has_frame();
        tokio::select! {
            biased;
            _ = self.stream.writable(), if unsent => true,
            () = self.outbox.bell.notified() => true,
            readable = self.stream.readable(), if may_read => readable.is_ok() && self.read(),
            () = sleep_until(deadline), if patience.is_some() => {
                self.desk.tally.inc(Counter::StreamsTimedOut);
                false
            }
        }
    }

    /// Reads what is there, at most up to the end of the longest frame. False when the client is gone.
    fn read(&mut self) -> bool {
        let have = self.input.len();
        self.input.resize(LENGTH_LEN + MAX_QUERY_LEN, 0);
        let read = self.stream.try_read(&mut self.input[have..]);
        self.input.truncate(have + read.as_ref().map_or(0, |&read| read));
        match read {
            Ok(0) => {
                self.ended = true;
                true
            }
            Ok(_) => true,
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.streams.forget(self.id);
        let unsent = self.outbox.frames.borrow().ends.len() as u64;
        self.desk.tally.add(Counter::DroppedStreamGone, unsent);
        self.desk.tally.inc(Counter::StreamsClosed);
    }
}
