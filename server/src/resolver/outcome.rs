//! What came of a question, and who is told.

use std::borrow::Cow;
use std::rc::Rc;

use swiftlet_parser::edns::ExtendedError;
use swiftlet_parser::rr::Rcode;

use crate::pipeline::miss::Waiter;
use crate::telemetry::Counter;

/// What came of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There is an answer.
    Answer {
        /// Its stored form (`swiftlet_parser::template`).
        stored: Vec<u8>,
        /// Seconds since it came.
        age_s: u32,
    },
    /// There is one whose time is over, and no other to be had now (RFC 8767).
    Stale {
        /// Its stored form.
        stored: Vec<u8>,
        /// Why it had to do.
        why: Staleness,
    },
    /// There is none.
    Failure {
        /// The code that the clients get.
        rcode: Rcode,
        /// The reason that goes with it (RFC 8914).
        error: ExtendedError,
        /// The same in words.
        text: Cow<'static, str>,
    },
    /// This server had no room for the question: says nothing about the name, so it is never remembered.
    Shed {
        /// What there was no room for.
        text: &'static str,
    },
    /// The same client waits already: it gets no second answer.
    Duplicate,
}

/// Why a stale answer was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Staleness {
    /// No upstream answered within the time that a client can be expected to wait.
    Timeout,
    /// The question was asked and failed.
    Failure,
    /// It failed a moment ago and is not asked again yet.
    Held,
    /// Too much was in flight to ask.
    Overload,
}

impl Staleness {
    /// The counter that moves with each such answer.
    #[must_use]
    pub fn counter(self) -> Counter {
        match self {
            Self::Timeout => Counter::StaleTimeout,
            Self::Failure => Counter::StaleFailure,
            Self::Held => Counter::StaleHeld,
            Self::Overload => Counter::StaleOverload,
        }
    }

    /// What the client is told beside the extended error's number.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Timeout => "no upstream has answered yet",
            Self::Failure => "asking upstream failed",
            Self::Held => "asking upstream failed a moment ago",
            Self::Overload => Outcome::TOO_MANY,
        }
    }
}

impl Outcome {
    /// What is said of a bound on questions and waiters.
    pub(super) const TOO_MANY: &'static str = "too many questions are in flight";

    /// A failure of the question, which may be remembered.
    #[must_use]
    pub fn servfail(error: ExtendedError, text: &'static str) -> Self {
        Self::failure(Rcode::SERVFAIL, error, text)
    }

    /// The same with another response code.
    #[must_use]
    pub fn failure(rcode: Rcode, error: ExtendedError, text: &'static str) -> Self {
        Self::Failure { rcode, error, text: text.into() }
    }

    /// What a question gets that there was no room for.
    pub(super) fn overload() -> Self {
        Self::Shed { text: Self::TOO_MANY }
    }

    /// The counter that moves for each one whose wait ends with this.
    #[must_use]
    pub fn counter(&self) -> Counter {
        match self {
            Self::Answer { .. } => Counter::WaitsAnswered,
            Self::Stale { .. } => Counter::WaitsStale,
            Self::Failure { .. } => Counter::WaitsFailed,
            Self::Shed { .. } => Counter::WaitsShed,
            Self::Duplicate => Counter::WaitsDropped,
        }
    }

    /// Whether it says that no upstream could be reached, rather than that one had no answer.
    pub(super) fn is_unreachable(&self) -> bool {
        let unreachable = [ExtendedError::NO_REACHABLE_AUTHORITY, ExtendedError::NETWORK_ERROR];
        matches!(self, Self::Failure { error, .. } if unreachable.contains(error))
    }
}

/// A question with an outcome, and who waits for it.
#[derive(Debug)]
pub struct Finished {
    /// The key's hash.
    pub hash: u64,
    /// The key's bytes.
    pub key: Rc<[u8]>,
    /// Those to be answered, in the order in which they asked.
    pub waiters: Vec<Waiter>,
    /// What they are told.
    pub outcome: Outcome,
}
