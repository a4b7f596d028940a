//! The loop of one core. Read this first.
//!
//! A worker owns its sockets, buffers, counters and miss tasks, and shares with the others only what
//! is read-mostly (the service) or made for it (the mailboxes). Its life is a row of turns:
//!
//! 1. answers to those who waited; while some are left, nothing new is taken in;
//! 2. letters from the other workers: misses of which this one owns the key, answers for its streams;
//! 3. batches from the clients: receive, look ahead, serve each packet, send;
//! 4. then it yields to its miss tasks, TCP connections and timers, or sleeps until something happens
//!    (on demand it goes on looking for a while first).
//!
//! A turn is bounded ([`MAX_BATCHES`], [`MAX_TURN`], [`MAX_LETTERS`], [`MAX_ANSWERS`]) even if packets are
//! still there: a socket that is always ready must not starve the replies of the upstreams.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use swiftlet_cache::Store as _;
use swiftlet_net::backend::{Backend, Sent};
use swiftlet_parser::key::{Key, KeyBuf};

use crate::cache::EXPIRE_BUCKETS;
use crate::desk::Desk;
use crate::lifecycle::{Lifecycle, Phase};
use crate::mailbox::{Letter, StreamAnswer};
use crate::pipeline::miss::{Miss, ReplyTo, Waiter};
use crate::pipeline::{self, Batch, MAX_MESSAGE_LEN, Transport, Verdict, serve};
use crate::resolver::Finished;
use crate::stream::{StreamId, Streams};
use crate::telemetry::Counter;

/// Batches in one turn.
const MAX_BATCHES: usize = 8;

/// Time that the batches of one turn may take; the last one begun is finished.
const MAX_TURN: Duration = Duration::from_micros(500);

/// Letters taken in one turn.
const MAX_LETTERS: usize = 256;

/// Answers of one batch that are asked for anew before their time is over.
const MAX_REFRESHES: usize = 8;

/// Waiters answered in one turn, give or take those of one key.
const MAX_ANSWERS: usize = 256;

/// Batches taken off the sockets after the order to stop, for what had come before it.
const MAX_LAST_BATCHES: usize = 64;

/// How long queries in flight may keep a stopping worker.
const STOP_GRACE: Duration = Duration::from_millis(1500);

/// How often a stopping worker looks whether its connections have ended.
const STOP_LOOK: Duration = Duration::from_millis(5);

/// One worker; `B` carries its clients' datagrams.
pub struct Worker<B> {
    /// Its sockets.
    pub backend: B,
    /// What it answers with.
    pub desk: Rc<Desk>,
    /// Its TCP connections.
    pub streams: Rc<Streams>,
    /// When to stop.
    pub lifecycle: Lifecycle,
    /// What can be switched on and off.
    pub tuning: Tuning,
}

/// What of a worker's loop can be switched on and off, to see what each is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Whether to load what a batch will read for all of its packets at once.
    pub look_ahead: bool,
    /// How long to go on looking for work before sleeping; at most 10 ms (SWIFTLET_BUSY_POLL_US).
    pub busy_poll: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Self { look_ahead: true, busy_poll: Duration::ZERO }
    }
}

impl<B: Backend> Worker<B> {
    /// Serves until the process stops. Must run inside a `LocalSet`.
    pub async fn run(self) {
        let mut turns = Turns {
            worker: self,
            keys: KeyBuf::default(),
            hashes: Vec::new(),
            misses: Vec::new(),
            answer: vec![0; MAX_MESSAGE_LEN],
        };
        while turns.worker.lifecycle.phase() < Phase::Stopping {
            match turns.turn() {
                true => tokio::task::yield_now().await,
                false => turns.wait().await,
            }
        }
        turns.stop().await;
    }
}

/// A worker with what it uses from turn to turn.
struct Turns<B> {
    worker: Worker<B>,
    keys: KeyBuf,
    /// Hashes of the keys that the batch will ask the cache for.
    hashes: Vec<u64>,
    /// Misses of the batch being served.
    misses: Vec<Miss>,
    /// Where answers to those who waited are composed.
    answer: Vec<u8>,
}

impl<B: Backend> Turns<B> {
    /// One turn. Returns whether there is more to do at once.
    fn turn(&mut self) -> bool {
        let desk = &self.worker.desk;
        desk.tally.inc(Counter::Turns);
        desk.service.cache.expire(desk.clock.now().boot_ms, EXPIRE_BUCKETS);
        // While finished answers are left nothing new is taken in, or they would pile up without bound
        // when queries come that can only be turned away. The kernel's buffers push back meanwhile.
        if self.answer_waiters() {
            return true;
        }
        let letters_left = self.take_letters();
        let packets_left = self.batches();
        let answers_left = self.answer_waiters();
        packets_left || letters_left || answers_left
    }

    /// As many batches as a turn may have. Returns whether packets may be left.
    fn batches(&mut self) -> bool {
        let begun = Instant::now();
        for _ in 0..MAX_BATCHES {
            if !self.batch() {
                return false;
            }
            if begun.elapsed() > MAX_TURN {
                break;
            }
        }
        true
    }

    /// Receives one batch, serves it and sends the replies. Returns whether there was one.
    fn batch(&mut self) -> bool {
        let Worker { backend, desk, .. } = &mut self.worker;
        let received = backend.receive();
        desk.tally.add(Counter::SocketErrors, received.errors as u64);
        tally_sent(desk, received.sent);
        let taken = received.taken();
        if taken == 0 {
            return false;
        }
        desk.tally.add(Counter::Received, taken as u64);
        desk.tally.add(Counter::DroppedPortZero, received.dropped as u64);
        desk.tally.add(Counter::DroppedOversize, received.oversize as u64);
        desk.tally.add(Counter::DroppedMalformed, received.malformed as u64);
        desk.tally.add(Counter::DroppedChecksum, received.corrupt as u64);
        self.serve_batch();
        self.send();
        for miss in self.misses.drain(..) {
            self.worker.desk.hand_over(miss);
        }
        true
    }

    /// Serves the packets received. The cache is pinned for just that long.
    fn serve_batch(&mut self) {
        let Self { worker: Worker { backend, desk, tuning, .. }, keys, misses, hashes, .. } = self;
        let batch = desk.batch(Transport::Udp);
        if tuning.look_ahead {
            look_ahead(backend, &batch, keys, hashes);
        }
        let (mut first, mut refreshes) = (true, 0);
        while let Some(packet) = backend.next() {
            let client = packet.route.peer_ip();
            if std::mem::take(&mut first) {
                desk.gateway.sight(client, &desk.tally);
            }
            match serve(&batch, keys, packet.buf, packet.len, client) {
                Verdict::Reply(len) => packet.reply(len),
                Verdict::ReplyAndRefresh { len, key } => {
                    packet.reply(len);
                    if refreshes == MAX_REFRESHES {
                        desk.tally.inc(Counter::PrefetchesSkipped);
                    } else if desk.resolver.begin_refresh(key.hash, batch.now.boot_ms) {
                        refreshes += 1;
                        misses.push(Miss::refresh(key));
                    }
                }
                Verdict::Drop(reason) => desk.tally.inc(reason),
                Verdict::Wait { query, key } => {
                    let (place, reply_to) =
                        (desk.clients.admit(client), ReplyTo::Udp(packet.route));
                    misses.push(Miss::capture(query, key, packet.buf, reply_to, place));
                }
            }
        }
    }

    /// Takes what the other workers sent. Returns whether letters are left.
    fn take_letters(&mut self) -> bool {
        let Worker { desk, streams, .. } = &self.worker;
        for _ in 0..MAX_LETTERS {
            match desk.post.take(desk.number) {
                Some(Letter::Miss(miss)) => desk.resolver.admit(miss),
                Some(Letter::Answer(StreamAnswer { connection, message })) => {
                    streams.deliver(connection, message.as_deref(), desk);
                }
                Some(Letter::Asked(asked)) => desk.resolver.explain(asked),
                None => return false,
            }
        }
        true
    }

    /// Answers those whose question is finished. Returns whether some are left.
    fn answer_waiters(&mut self) -> bool {
        let mut answered = 0;
        let mut left = true;
        while answered < MAX_ANSWERS {
            let Some(finished) = self.worker.desk.resolver.take_finished() else {
                left = false;
                break;
            };
            answered += finished.waiters.len();
            for waiter in &finished.waiters {
                self.answer(waiter, &finished);
            }
        }
        if answered > 0 {
            self.send();
        }
        left
    }

    fn answer(&mut self, waiter: &Waiter, finished: &Finished) {
        let Self { worker: Worker { backend, desk, streams, .. }, answer, .. } = self;
        let Some(key) = Key::from_bytes(finished.hash, &finished.key) else {
            return self.dismiss(waiter, Counter::DroppedUnrenderable);
        };
        let shaper = desk.shaper(waiter.reply_to.transport());
        let len = match shaper.waited(answer, waiter, &key, &finished.outcome) {
            Verdict::Reply(len) => len,
            Verdict::Drop(reason) => return self.dismiss(waiter, reason),
            Verdict::ReplyAndRefresh { .. } | Verdict::Wait { .. } => {
                return self.dismiss(waiter, Counter::DroppedUnrenderable);
            }
        };
        desk.tally.inc(finished.outcome.counter());
        desk.tally.inc(Counter::WaitsEnded);
        desk.clients.release(waiter.place);
        let message = &answer[..len];
        match waiter.reply_to {
            ReplyTo::Udp(route) => {
                if !backend.send_to(&route, message) {
                    desk.tally.inc(Counter::DroppedSendRefused);
                }
            }
            ReplyTo::Stream(id) => pass_on(id, Some(message), desk, streams),
        }
    }

    /// Ends a wait without an answer.
    fn dismiss(&self, waiter: &Waiter, reason: Counter) {
        let Worker { desk, streams, .. } = &self.worker;
        desk.tally.inc(Counter::WaitsDropped);
        desk.tally.inc(Counter::WaitsEnded);
        desk.tally.inc(reason);
        desk.clients.release(waiter.place);
        if let ReplyTo::Stream(id) = waiter.reply_to {
            pass_on(id, None, desk, streams);
        }
    }

    fn send(&mut self) {
        let Worker { backend, desk, .. } = &mut self.worker;
        tally_sent(desk, backend.send());
    }

    /// Sleeps until a client, another worker, a miss task or the control thread needs this worker; or looks
    /// for that again and again, as long as it polls busily.
    async fn wait(&mut self) {
        let Worker { backend, desk, tuning, .. } = &mut self.worker;
        let mut needed = pin!(async {
            tokio::select! {
                biased;
                // A socket error comes out of the next receive, which skips or counts it.
                _ = poll_fn(|cx| backend.poll_ready(cx)) => {}
                () = desk.resolver.rung() => {}
                () = desk.post.rung(desk.number) => {}
            }
        });
        if !tuning.busy_poll.is_zero() {
            let begun = Instant::now();
            while begun.elapsed() < tuning.busy_poll {
                if poll_fn(|cx| Poll::Ready(needed.as_mut().poll(cx).is_ready())).await {
                    return;
                }
                // The runtime runs what is ready and asks the kernel what has come, without sleeping.
                tokio::task::yield_now().await;
            }
        }
        needed.await;
    }

    /// Answers what is in flight, for at most [`STOP_GRACE`]; what is left then is counted as dropped.
    async fn stop(&mut self) {
        for _ in 0..MAX_LAST_BATCHES {
            if !self.batch() {
                break;
            }
        }
        let desk = Rc::clone(&self.worker.desk);
        let lifecycle = self.worker.lifecycle.clone();
        self.worker.streams.close();
        if lifecycle.stop_receiving() {
            desk.post.ring_all();
        }
        let finish = async {
            loop {
                // Asked before the mail is looked at: what the last one sent must not be left behind.
                let letters_may_come = lifecycle.anyone_receiving();
                let more = self.take_letters() | self.answer_waiters();
                let done =
                    desk.resolver.is_idle() && self.worker.streams.is_empty() && !letters_may_come;
                if more {
                    tokio::task::yield_now().await;
                } else if done {
                    break;
                } else {
                    tokio::select! {
                        () = desk.resolver.rung() => {}
                        () = desk.post.rung(desk.number) => {}
                        () = tokio::time::sleep(STOP_LOOK) => {}
                    }
                }
            }
        };
        if tokio::time::timeout(STOP_GRACE, finish).await.is_err() {
            self.abandon();
        }
        // What the kernel had no room for is tried once more.
        self.send();
    }

    /// Gives up everyone who still waits.
    fn abandon(&mut self) {
        let desk = Rc::clone(&self.worker.desk);
        while let Some(letter) = desk.post.take(desk.number) {
            if let Letter::Miss(Miss { waiter: Some(waiter), .. }) = letter {
                self.dismiss(&waiter, Counter::DroppedShutdown);
            }
        }
        let finished = std::iter::from_fn(|| desk.resolver.take_finished());
        let waiters = finished.flat_map(|finished| finished.waiters).chain(desk.resolver.abandon());
        for waiter in waiters {
            self.dismiss(&waiter, Counter::DroppedShutdown);
        }
    }
}

fn tally_sent(desk: &Desk, Sent { accepted, refused }: Sent) {
    desk.tally.add(Counter::Answered, accepted as u64);
    desk.tally.add(Counter::DroppedSendRefused, refused as u64);
}

/// Has the memory that the packets of a batch will read loaded for all of them at once, where each by
/// itself would wait for it: first their places in the table, then the entries found there.
fn look_ahead(
    backend: &mut impl Backend,
    batch: &Batch<'_>,
    keys: &mut KeyBuf,
    hashes: &mut Vec<u64>,
) {
    // A packet alone has nothing to overlap with.
    if backend.peek(1).is_none() {
        return;
    }
    let cache = &batch.shaper.service.cache;
    hashes.clear();
    let mut at = 0;
    while let Some(packet) = backend.peek(at) {
        if let Some(hash) = pipeline::foresee(batch, keys, packet) {
            cache.prefetch(hash);
            hashes.push(hash);
        }
        at += 1;
    }
    for &hash in hashes.iter() {
        cache.prefetch_entry(&batch.pin, hash);
    }
}

/// Gives the answer to a query that came over TCP, or the word that there is none, to the worker that has
/// the connection.
fn pass_on(id: StreamId, message: Option<&[u8]>, desk: &Desk, streams: &Streams) {
    if usize::from(id.worker) == desk.number {
        streams.deliver(id.connection, message, desk);
    } else {
        let answer = StreamAnswer { connection: id.connection, message: message.map(Into::into) };
        desk.post.send_answer(id.worker.into(), answer);
    }
}
