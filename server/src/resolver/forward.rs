//! Forwarding: one question, asked of upstreams until one of them gives an answer that can be stored.
//!
//! Bounds: [`MAX_TRIES`] tries and the time-out of the whole question, of which each try gets an
//! equal share of what is left. A single upstream is tried twice, for a datagram may get lost.

use std::time::Duration;

use swiftlet_parser::edns::ExtendedError;
use swiftlet_parser::key::Key;
use swiftlet_parser::rr::Rcode;
use tokio::time::Instant;

use super::{Outcome, Resolver, store, timeline};
use crate::upstream::Failure;

/// Tries for one question.
const MAX_TRIES: usize = 3;

/// A try is not begun with less time than this left.
const MIN_TRY: Duration = Duration::from_millis(5);

/// Asks the upstreams, best first, and stores what it gets.
pub(super) async fn forward(resolver: &Resolver, key: &Key<'_>) -> Outcome {
    let deadline = Instant::now() + resolver.upstreams.timeout();
    if resolver.upstreams.is_own_probe(key) {
        let text = "this server asked that itself: a forwarding loop";
        return Outcome::Failure { rcode: Rcode::REFUSED, error: ExtendedError::OTHER, text: text.into() };
    }
    let order = resolver.upstreams.order(key);
    if order.is_empty() {
        let text = "every upstream for this name forwards back to this server";
        return Outcome::servfail(ExtendedError::OTHER, text);
    }
    let tries = order.len().clamp(2, MAX_TRIES);
    let mut last = Failure::Timeout;
    let flushes = resolver.service.flushes.count();
    for (tried, &server) in order.iter().cycle().take(tries).enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left < MIN_TRY {
            break;
        }
        let share = left / (tries - tried) as u32;
        timeline::note(|| format!("asking {}", resolver.upstreams.address(server)));
        let result = match resolver.upstreams.ask(server, key, share).await {
            Ok(reply) => store::store(resolver, key, reply.message(), flushes),
            Err(failure) => Err(failure),
        };
        match result {
            Ok(stored) => {
                resolver.upstreams.succeeded(server);
                return Outcome::Answer { stored, age_s: 0 };
            }
            Err(failure) => {
                timeline::note(|| format!("failed: {failure:?}"));
                resolver.upstreams.failed(server, failure);
                last = failure;
            }
        }
    }
    if last == Failure::NoSocket {
        // It is this process that is at its limit: nothing to hold against the name.
        return Outcome::Shed { text: "no socket could be opened" };
    }
    let (error, text) = explain(last);
    Outcome::servfail(error, text)
}

/// What the client is told of the last failure (RFC 8914 §4).
fn explain(failure: Failure) -> (ExtendedError, &'static str) {
    match failure {
        Failure::Timeout => (ExtendedError::NO_REACHABLE_AUTHORITY, "no upstream answered in time"),
        Failure::Network => (ExtendedError::NETWORK_ERROR, "no upstream could be reached"),
        Failure::Rcode(_) => (ExtendedError::OTHER, "the upstreams could not answer"),
        Failure::WrongReplies => {
            (ExtendedError::INVALID_DATA, "an upstream answered another question")
        }
        Failure::Stream => (ExtendedError::NETWORK_ERROR, "an upstream's TCP does not work"),
        Failure::Malformed => (ExtendedError::INVALID_DATA, "an upstream's answer made no sense"),
        Failure::NoSocket => (ExtendedError::OTHER, "no socket could be opened"),
    }
}
