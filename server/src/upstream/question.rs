//! A question to a server: how it is put, what it waits for, and which reply is its answer.
//!
//! A reply has to repeat the question as it was sent, name, type and class (RFC 5452 §9.1), and the letter case
//! of the name from a server that is known to keep it (0x20). ID and port were compared before.

use std::task::Waker;

use rand::RngExt;
use rand::rngs::StdRng;
use swiftlet_parser::key::{CaseBits, Key};
use swiftlet_parser::message::{write_plain_query, write_query};
use swiftlet_parser::response::{Echo, Response, bare_error};
use swiftlet_parser::rr::{HEADER_LEN, Rcode};
use tokio::time::Instant;

use super::habits::{Habits, Sign};
use super::{Failure, Reply};

/// The longest query: header, question, OPT.
const MAX_QUERY_LEN: usize = HEADER_LEN + 255 + 4 + 11;

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

/// A question that somebody waits for.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) server: u32,
    pub(super) port: u32,
    pub(super) id: u16,
    /// As it was sent.
    query: Query,
    may_fall_back: bool,
    pub(super) wrong: u8,
    sent: Instant,
    pub(super) state: State,
    pub(super) waker: Option<Waker>,
}

#[derive(Debug)]
pub(super) enum State {
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

/// What a datagram is to the question whose ID it has.
pub(super) enum Verdict {
    /// Its end.
    Answer,
    /// Wrong in the letter case of the name alone.
    OtherCase,
    /// None of its.
    Wrong,
}

impl Question {
    /// A question that was just sent.
    pub(super) fn new(
        server: usize,
        port: usize,
        id: u16,
        query: Query,
        form: Form,
        sent: Instant,
    ) -> Self {
        Self {
            server: server as u32,
            port: port as u32,
            id,
            query,
            may_fall_back: form.may_fall_back,
            wrong: 0,
            sent,
            state: State::Waiting,
            waker: None,
        }
    }

    /// Holds a datagram against the question, and ends it with what fits.
    pub(super) fn judge(
        &mut self,
        message: &[u8],
        port: u16,
        habits: &Habits,
        now: Instant,
    ) -> Verdict {
        // Some servers refuse without repeating the question (RFC 8906); that may end this try.
        if let Some((_, rcode)) = bare_error(message) {
            let is_plain = !has_additional(message);
            self.end(Ok(match self.may_fall_back && is_plain && is_not_understood(rcode) {
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

    pub(super) fn end(&mut self, end: Result<Answered, Failure>) {
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

/// Whether a message announces additional records, among which an OPT record would be.
pub(super) fn has_additional(message: &[u8]) -> bool {
    message.get(HEADER_LEN - 2..HEADER_LEN).is_some_and(|count| count != [0, 0])
}

/// The codes by which a server without EDNS refuses a question with it (RFC 6891 §7).
pub(super) fn is_not_understood(rcode: Rcode) -> bool {
    matches!(rcode, Rcode::FORMERR | Rcode::NOTIMP)
}

impl State {
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self, Self::Waiting)
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Waiting | Self::Doubtful)
    }
}
