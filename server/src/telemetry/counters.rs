//! The counters of one worker, and the table that names them.
//!
//! Invariant, checked by the tests under every fault (ARCHITECTURE.md, "Counters"):
//! `received = answered + Σ dropped{reason} + pending`, where `answered` is what the kernel accepted
//! and `pending` is `waits_begun - waits_ended`. Of those who waited,
//! `asked = answered + failed + stale + shed + dropped + pending`, where `asked` is `waits_begun` and the
//! others but `pending` are `waits{outcome}`, whose sum is `waits_ended`.
//!
//! A counter has one writer, its worker, so an increment is a plain load and store; readers see a
//! value that is at most a batch old. To add a metric, add one row to the table.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crossbeam::utils::CachePadded;
use swiftlet_parser::rr::Rcode;

/// What one row of the table says about its counter.
#[derive(Debug)]
pub struct Row {
    /// Metric name, without the prefix `swiftlet_` and the suffix `_total`.
    pub name: &'static str,
    /// The label that tells rows of one name apart: `(key, value)`.
    pub label: Option<(&'static str, &'static str)>,
    /// The help text; rows of one name share the first one's.
    pub help: &'static str,
}

macro_rules! counters {
    ($($variant:ident: $name:literal $({$key:literal = $value:literal})?, $help:literal;)*) => {
        /// One counter of a worker. The help text of each is what `/metrics` shows.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Counter { $(#[doc = $help] $variant,)* }

        /// The table, in the order of [`Counter`].
        pub const ROWS: &[Row] = &[$(
            Row { name: $name, label: counters!(@label $($key, $value)?), help: $help },
        )*];

        /// Every counter, in the order of [`ROWS`].
        pub const ALL: &[Counter] = &[$(Counter::$variant,)*];
    };
    (@label) => { None };
    (@label $key:literal, $value:literal) => { Some(($key, $value)) };
}

counters! {
    Received: "queries_received", "Datagrams that came from clients, whatever became of them";
    ReceivedStream: "stream_queries_received", "Those of the queries received that came over TCP";
    Answered: "queries_answered", "Answers that the kernel accepted";
    DroppedShort: "queries_dropped" {"reason" = "short"}, "Datagrams that got no answer";
    DroppedResponse: "queries_dropped" {"reason" = "response"}, "Responses sent to us as if they were queries";
    DroppedPortZero: "queries_dropped" {"reason" = "port_zero"}, "Datagrams from where no answer can reach: port 0; over AF_XDP martians too";
    DroppedOversize: "queries_dropped" {"reason" = "oversize"}, "Datagrams longer than any query";
    DroppedMalformed: "queries_dropped" {"reason" = "malformed_frame"}, "Frames whose lengths contradict each other (af-xdp)";
    DroppedChecksum: "queries_dropped" {"reason" = "checksum"}, "Frames with a wrong checksum (af-xdp)";
    DroppedSendRefused: "queries_dropped" {"reason" = "send_refused"}, "Answers that the kernel did not accept";
    DroppedUnrenderable: "queries_dropped" {"reason" = "unrenderable"}, "Answers that did not fit into the buffer at all";
    DroppedDuplicate: "queries_dropped" {"reason" = "duplicate"}, "Queries that their client had asked already and waits for";
    DroppedStreamGone: "queries_dropped" {"reason" = "stream_gone"}, "Answers whose TCP connection had ended";
    DroppedShutdown: "queries_dropped" {"reason" = "shutdown"}, "Queries still waiting when the grace of a stop was over";
    AnswersNoError: "answers" {"rcode" = "NOERROR"}, "Answers by response code, before the kernel had its say";
    AnswersFormErr: "answers" {"rcode" = "FORMERR"}, "Answers that said FORMERR";
    AnswersServFail: "answers" {"rcode" = "SERVFAIL"}, "Answers that said SERVFAIL";
    AnswersNxDomain: "answers" {"rcode" = "NXDOMAIN"}, "Answers that said NXDOMAIN";
    AnswersNotImp: "answers" {"rcode" = "NOTIMP"}, "Answers that said NOTIMP";
    AnswersRefused: "answers" {"rcode" = "REFUSED"}, "Answers that said REFUSED";
    AnswersBadVers: "answers" {"rcode" = "BADVERS"}, "Answers that said BADVERS";
    AnswersOther: "answers" {"rcode" = "other"}, "Answers with any other response code";
    Truncated: "answers_truncated", "Answers cut at the client's size, with TC set";
    CacheHits: "cache_hits", "Queries answered from the cache";
    CacheMisses: "cache_misses", "Queries that the cache could not answer";
    CacheInserts: "cache_inserts", "Answers stored";
    StaleTimeout: "stale_answers" {"why" = "timeout"}, "Answers past their TTL, given because there was no other";
    StaleFailure: "stale_answers" {"why" = "failure"}, "Stale answers because asking upstream failed";
    StaleHeld: "stale_answers" {"why" = "held"}, "Stale answers because asking upstream failed a moment ago";
    StaleOverload: "stale_answers" {"why" = "overload"}, "Stale answers because a bound was reached";
    FailuresKept: "failures_kept", "Failures remembered, so that the same is not asked again at once";
    FailuresGiven: "failures_given", "Queries answered SERVFAIL on the packet path by a failure remembered";
    Questions: "questions", "Questions put to upstreams, each in one or more tries";
    Prefetches: "prefetches", "Those put for nobody in particular: the answer's time was almost over, or an outage may be";
    PrefetchesSkipped: "prefetches_skipped", "Those not asked again for lack of room";
    LocalAnswers: "answers_local", "Queries answered by a policy, without cache or upstream";
    AclRefused: "acl_refused", "Queries from clients outside SWIFTLET_ALLOW";
    WaitsBegun: "waits_begun", "Queries that began to wait for an upstream";
    WaitsEnded: "waits_ended", "Queries that waited and got their answer or were dropped";
    WaitsAnswered: "waits" {"outcome" = "answered"}, "Queries that waited, by what came of it";
    WaitsFailed: "waits" {"outcome" = "failed"}, "Waits that ended with SERVFAIL because no upstream had an answer";
    WaitsStale: "waits" {"outcome" = "stale"}, "Waits that ended with a stale answer";
    WaitsShed: "waits" {"outcome" = "shed"}, "Waits that ended with SERVFAIL because a bound was reached";
    WaitsDropped: "waits" {"outcome" = "dropped"}, "Waits that ended without an answer";
    Coalesced: "waits_coalesced", "Queries that joined a question already asked";
    MailboxFull: "overload" {"limit" = "mailbox"}, "Queries answered SERVFAIL because a bound was reached";
    WaitersFullInAll: "overload" {"limit" = "all_waiters"}, "Queries over the bound of waiters in all";
    WaitersFull: "overload" {"limit" = "waiters"}, "Queries over the bound of waiters for one key";
    FlightsFull: "overload" {"limit" = "flights"}, "Queries over the bound of questions in flight";
    ClientFull: "overload" {"limit" = "client"}, "Queries over the bound of one client's in flight";
    FlightsShed: "flights_shed", "Questions in flight given up for newer ones because there were too many";
    StreamsAccepted: "streams_accepted", "TCP connections accepted";
    StreamsClosed: "streams_closed", "TCP connections that ended";
    StreamsRefused: "streams_refused", "TCP connections closed at once because a bound was reached";
    StreamsTimedOut: "streams_timed_out", "TCP connections closed because the client was idle or did not read";
    StreamsFailed: "streams_failed", "TCP connections that could not be accepted";
    SocketErrors: "socket_errors", "Errors that the kernel reported on a client socket in place of datagrams";
    SightedGateway: "clients_sighted" {"as" = "gateway"}, "In a container: clients seen, one of each batch";
    SightedOther: "clients_sighted" {"as" = "other"}, "Clients with an address of their own";
    TaskPanics: "task_panics", "Tasks that ended in a panic; their clients got SERVFAIL";
    UpstreamQueries: "upstream_queries" {"transport" = "udp"}, "Questions sent to upstreams";
    UpstreamTcpQueries: "upstream_queries" {"transport" = "tcp"}, "Questions sent to upstreams over TCP";
    UpstreamTimeouts: "upstream_failures" {"cause" = "timeout"}, "Tries at an upstream that failed";
    UpstreamUnreachable: "upstream_failures" {"cause" = "network"}, "Tries that the network refused";
    UpstreamNoSocket: "upstream_failures" {"cause" = "local"}, "Tries for which this process had no socket or port";
    UpstreamRefusals: "upstream_failures" {"cause" = "rcode"}, "Tries answered with SERVFAIL, REFUSED and the like";
    UpstreamMalformed: "upstream_failures" {"cause" = "malformed"}, "Tries answered with something that is no answer";
    UpstreamMismatches: "upstream_failures" {"cause" = "wrong_replies"}, "Tries answered with answers to other questions only";
    UpstreamStreams: "upstream_failures" {"cause" = "stream"}, "Tries whose TCP connection was refused, closed or broken";
    UpstreamRetries: "upstream_retries", "Tries at an upstream after one that failed";
    UpstreamLate: "upstream_late_answers", "Answers that came after their try's time-out and were used";
    UpstreamHedged: "upstream_hedged", "Second upstreams asked because the first was slower than usual";
    UpstreamHedgesRefused: "upstream_hedges_refused", "Second upstreams not asked because the budget of 3 % was spent";
    UpstreamExplored: "upstream_explored", "Extra questions to upstreams that are not among the best, to know how they are";
    UpstreamProbes: "upstream_probes", "Questions to upstreams whose breaker was open or of which nothing was known";
    UpstreamProbesLeftOut: "upstream_probes_left_out", "Probes not sent because too many were under way";
    ServfailTimeout: "servfail" {"cause" = "timeout"}, "Questions that ended in SERVFAIL, by the last cause";
    ServfailNetwork: "servfail" {"cause" = "network"}, "Questions for which the network refused";
    ServfailRcode: "servfail" {"cause" = "rcode"}, "Questions that the upstreams could not answer";
    ServfailMalformed: "servfail" {"cause" = "malformed"}, "Questions whose answers made no sense";
    ServfailWrongReplies: "servfail" {"cause" = "wrong_replies"}, "Questions that drew answers to others";
    ServfailStream: "servfail" {"cause" = "stream"}, "Questions for which TCP was refused, closed or broken";
    ServfailNoSocket: "servfail" {"cause" = "no_socket"}, "Questions for which this process had no socket or port";
    ServfailLoop: "servfail" {"cause" = "loop"}, "Questions all of whose upstreams forward back to this server";
    ServfailOverload: "servfail" {"cause" = "overload"}, "Questions over a bound of this process";
    ServfailInternal: "servfail" {"cause" = "internal"}, "Questions whose task ended in a panic";
    UpstreamLateReplies: "upstream_late_replies", "Replies from upstreams to questions that nobody waited for any more";
    UpstreamEdnsFallbacks: "upstream_edns_fallbacks", "Questions asked again without EDNS because the upstream did not understand it";
    UpstreamConnections: "upstream_connections", "TCP connections to upstreams begun";
    UpstreamPorts: "upstream_ports", "UDP ports opened for questions to upstreams";
    UpstreamPortsFull: "upstream_ports_full", "Questions to upstreams that found no socket within the limit of open files";
    UpstreamWrongReplies: "upstream_wrong_replies", "Datagrams on an upstream socket that did not answer its question";
    LoopProbes: "loop_probes", "Questions asked to find upstreams that forward back to this server";
    LoopProbesReturned: "loop_probes_returned", "Those of them that came back";
    Turns: "worker_turns", "Turns of the worker's loop";
}

/// The counters of one worker.
#[derive(Debug)]
pub struct Counters([AtomicU64; ALL.len()]);

impl Default for Counters {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; ALL.len()])
    }
}

impl Counters {
    /// Adds `n`; only the worker that owns these counters may call it.
    pub fn add(&self, counter: Counter, n: u64) {
        let cell = &self.0[counter as usize];
        cell.store(cell.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Adds one.
    pub fn inc(&self, counter: Counter) {
        self.add(counter, 1);
    }

    /// The value now; may be called from any thread.
    #[must_use]
    pub fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize].load(Relaxed)
    }

    /// Counts an answer by its response code.
    pub fn answer(&self, rcode: Rcode) {
        self.inc(match rcode {
            Rcode::NOERROR => Counter::AnswersNoError,
            Rcode::FORMERR => Counter::AnswersFormErr,
            Rcode::SERVFAIL => Counter::AnswersServFail,
            Rcode::NXDOMAIN => Counter::AnswersNxDomain,
            Rcode::NOTIMP => Counter::AnswersNotImp,
            Rcode::REFUSED => Counter::AnswersRefused,
            Rcode::BADVERS => Counter::AnswersBadVers,
            _ => Counter::AnswersOther,
        });
    }
}

/// The counters of all workers; each worker writes its own, the control thread reads them all.
#[derive(Clone, Debug)]
pub struct Board(Arc<[CachePadded<Counters>]>);

impl Board {
    /// Zeroed counters for `workers` workers.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| CachePadded::default()).collect())
    }

    /// The counters of each worker, by its number.
    #[must_use]
    pub fn workers(&self) -> &[CachePadded<Counters>] {
        &self.0
    }

    /// The counters of one worker, to be written by that worker alone.
    #[must_use]
    pub fn tally(&self, worker: usize) -> Tally {
        Tally { board: self.clone(), worker }
    }

    /// A counter summed over the workers.
    #[must_use]
    pub fn sum(&self, counter: Counter) -> u64 {
        self.0.iter().map(|counters| counters.get(counter)).sum()
    }

    /// Queries whose answer is still outstanding.
    #[must_use]
    pub fn pending(&self) -> u64 {
        // Ended first: a wait that ends between the two reads must not make the difference negative.
        let ended = self.sum(Counter::WaitsEnded);
        self.sum(Counter::WaitsBegun).saturating_sub(ended)
    }
}

/// One worker's own counters.
#[derive(Clone, Debug)]
pub struct Tally {
    board: Board,
    worker: usize,
}

impl Deref for Tally {
    type Target = Counters;

    fn deref(&self) -> &Counters {
        &self.board.0[self.worker]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_row_for_every_counter_in_its_order() {
        assert_eq!(ROWS.len(), ALL.len());
        for (at, counter) in ALL.iter().enumerate() {
            assert_eq!(*counter as usize, at);
        }
    }

    #[test]
    fn rows_of_one_name_stand_together_and_differ_in_their_label() {
        for pair in ROWS.windows(2) {
            if pair[0].name == pair[1].name {
                assert_ne!(pair[0].label, pair[1].label, "{}", pair[0].name);
            }
        }
        let mut names: Vec<_> = ROWS.iter().map(|row| row.name).collect();
        names.dedup();
        let families = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), families, "rows of one name are apart");
    }

    #[test]
    fn sums_run_over_the_workers() {
        let board = Board::new(2);
        board.workers()[0].add(Counter::WaitsBegun, 5);
        board.workers()[1].add(Counter::WaitsEnded, 3);
        assert_eq!(board.pending(), 2);
    }
}
