//! Forwarding: one question, put to the upstreams until one of them gives an answer that can be stored.
//!
//! The tries and their time are [`race`]'s. What comes beside an answer is asked apart from it
//! ([`probe`]), so that nobody waits for it.

use std::rc::Rc;

use swiftlet_parser::edns::ExtendedError;
use swiftlet_parser::key::Key;
use swiftlet_parser::rr::Rcode;

use super::{Outcome, Resolver, store, timeline};
use crate::telemetry::Counter;
use crate::upstream::Failure;
use crate::upstream::race::race;

/// Asks the upstreams, best first, and stores what it gets.
pub(super) async fn forward(resolver: &Rc<Resolver>, key: &Key<'_>) -> Outcome {
    let upstreams = &resolver.upstreams;
    if upstreams.is_own_probe(key) {
        let text = "this server asked that itself: a forwarding loop";
        return Outcome::failure(Rcode::REFUSED, ExtendedError::OTHER, text);
    }
    let candidates = upstreams.candidates(key);
    if candidates.is_empty() {
        resolver.tally.inc(Counter::ServfailLoop);
        let text = "every upstream for this name forwards back to this server";
        return Outcome::servfail(ExtendedError::OTHER, text);
    }
    let flushes = resolver.service.flushes.count();
    let ask = async |server, within| {
        timeline::note(|| format!("asking {}", upstreams.address(server)));
        let reply = upstreams.ask(server, key, within).await;
        let stored = reply.and_then(|reply| store::store(resolver, key, reply.message(), flushes));
        if let Err(failure) = &stored {
            timeline::note(|| format!("failed: {failure:?}"));
        }
        stored
    };
    let beside = |server| probe(resolver, server, key);
    match race(upstreams, &candidates, ask, beside).await {
        Ok(stored) => Outcome::Answer { stored, age_s: 0 },
        Err(failure) => {
            let (counter, error, text) = explain(failure);
            resolver.tally.inc(counter);
            match failure {
                // It is this process that is at its limit: nothing to hold against the name.
                Failure::NoSocket => Outcome::Shed { text },
                _ => Outcome::servfail(error, text),
            }
        }
    }
}

/// Puts the question to one more server in a task of its own, to know how that one is.
fn probe(resolver: &Rc<Resolver>, server: usize, key: &Key<'_>) {
    let (resolver, hash, bytes) = (Rc::clone(resolver), key.hash, key.bytes.to_vec());
    tokio::task::spawn_local(async move {
        if let Some(key) = Key::from_bytes(hash, &bytes) {
            resolver.upstreams.probe(server, &key).await;
        }
    });
}

/// What is counted of the failure, and what the client is told of it (RFC 8914 §4).
fn explain(failure: Failure) -> (Counter, ExtendedError, &'static str) {
    match failure {
        Failure::Timeout => (
            Counter::ServfailTimeout,
            ExtendedError::NO_REACHABLE_AUTHORITY,
            "no upstream answered in time",
        ),
        Failure::Network => {
            (Counter::ServfailNetwork, ExtendedError::NETWORK_ERROR, "no upstream could be reached")
        }
        Failure::Rcode(_) => {
            (Counter::ServfailRcode, ExtendedError::OTHER, "the upstreams could not answer")
        }
        Failure::Malformed => (
            Counter::ServfailMalformed,
            ExtendedError::INVALID_DATA,
            "an upstream's answer made no sense",
        ),
        Failure::WrongReplies => (
            Counter::ServfailWrongReplies,
            ExtendedError::INVALID_DATA,
            "an upstream answered other questions only",
        ),
        Failure::Stream => {
            (Counter::ServfailStream, ExtendedError::NETWORK_ERROR, "the upstreams' TCP failed")
        }
        Failure::NoSocket => {
            (Counter::ServfailNoSocket, ExtendedError::OTHER, "no socket could be opened")
        }
    }
}
