//! What happened to one question, step by step, for whoever has to find out why it took so long or failed
//! (`/debug/query`).
//!
//! Whatever has something to say calls [`note`]; it is kept while the question is recorded ([`record`])
//! and costs a look at a thread-local else. Bounds: [`MAX_STEPS`] steps a question, [`MAX_AT_ONCE`]
//! questions waiting to be explained by a worker.

use std::cell::{Cell, RefCell};

use serde::Serialize;
use swiftlet_parser::template::Template;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Outcome;

/// Steps kept of one question; of what comes after them only the number.
const MAX_STEPS: usize = 64;

/// Questions that may wait to be explained by one worker.
pub const MAX_AT_ONCE: usize = 4;

/// A question to be explained, on its way to the owner of its key.
#[derive(Debug)]
pub struct Asked {
    /// The key's hash.
    pub hash: u64,
    /// The key's bytes.
    pub key: Box<[u8]>,
    /// Who wants to know.
    pub reply: oneshot::Sender<Explained>,
}

/// What happened to a question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explained {
    /// The steps in their order.
    pub steps: Vec<Step>,
    /// Steps that there was no room for.
    pub steps_left_out: usize,
    /// How it ended.
    pub outcome: Ending,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Microseconds since the question began.
    pub at_us: u64,
    /// What happened, in words.
    pub what: String,
}

/// How a question ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ending {
    /// The response code, as `NOERROR`.
    pub rcode: String,
    /// Records in the answer section.
    pub answers: u16,
    /// The smallest TTL in seconds; none without records.
    pub ttl_s: Option<u32>,
    /// The Extended DNS Error with its text (RFC 8914).
    pub error: Option<String>,
}

impl Ending {
    /// The same for a bare response code.
    #[must_use]
    pub fn code(rcode: impl ToString, error: Option<String>) -> Self {
        Self { rcode: rcode.to_string(), answers: 0, ttl_s: None, error }
    }
}

impl From<&Outcome> for Ending {
    fn from(outcome: &Outcome) -> Self {
        let error = match outcome {
            Outcome::Answer { .. } | Outcome::Duplicate => None,
            Outcome::Stale { why, .. } => Some(format!("stale: {}", why.text())),
            Outcome::Failure { error, text, .. } => Some(format!("{error}: {text}")),
            Outcome::Shed { text } => Some((*text).to_owned()),
        };
        let template = match outcome {
            Outcome::Answer { stored, .. } | Outcome::Stale { stored, .. } => {
                Template::from_bytes(stored)
            }
            _ => None,
        };
        match (outcome, template) {
            (_, Some(template)) => Self {
                rcode: template.rcode().to_string(),
                answers: template.answer_count(),
                ttl_s: Some(template.min_ttl()).filter(|&ttl| ttl != u32::MAX),
                error,
            },
            (Outcome::Failure { rcode, .. }, None) => Self::code(rcode, error),
            (_, None) => Self::code(swiftlet_parser::rr::Rcode::SERVFAIL, error),
        }
    }
}

struct Timeline {
    begun: Instant,
    steps: RefCell<Vec<Step>>,
    left_out: Cell<usize>,
}

tokio::task_local! {
    static RECORDED: Timeline;
}

/// Notes a step of the question that is being recorded, if any is.
pub fn note(what: impl FnOnce() -> String) {
    // Without a recording there is nothing to do.
    let _ = RECORDED.try_with(|timeline| {
        if timeline.steps.borrow().len() == MAX_STEPS {
            return timeline.left_out.set(timeline.left_out.get() + 1);
        }
        let at_us = u64::try_from(timeline.begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        let step = Step { at_us, what: what() };
        timeline.steps.borrow_mut().push(step);
    });
}

/// Records what is noted while a question is resolved.
pub(super) async fn record(question: impl Future<Output = Outcome>) -> Explained {
    let timeline =
        Timeline { begun: Instant::now(), steps: RefCell::default(), left_out: Cell::new(0) };
    let all = async {
        let outcome = question.await;
        // What is recorded cannot be taken out from outside.
        RECORDED.with(|timeline| Explained {
            steps: timeline.steps.take(),
            steps_left_out: timeline.left_out.get(),
            outcome: Ending::from(&outcome),
        })
    };
    RECORDED.scope(timeline, all).await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use swiftlet_parser::edns::ExtendedError;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn steps_are_kept_with_their_time_up_to_the_bound() {
        note(|| panic!("nothing is recorded"));
        let explained = record(async {
            note(|| "first".to_owned());
            tokio::time::sleep(Duration::from_millis(2)).await;
            for number in 0..MAX_STEPS {
                note(|| number.to_string());
            }
            Outcome::servfail(ExtendedError::NETWORK_ERROR, "no route")
        })
        .await;
        assert_eq!(explained.steps.len(), MAX_STEPS);
        assert_eq!(explained.steps[0], Step { at_us: 0, what: "first".to_owned() });
        assert!(explained.steps[1].at_us >= 2000);
        assert_eq!(explained.steps_left_out, 1);
        let error = Some("Network Error (23): no route".to_owned());
        assert_eq!(explained.outcome, Ending::code("SERVFAIL", error));
    }
}
