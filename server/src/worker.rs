//! The loop of one core. Read this first.
//!
//! A worker owns its sockets, buffers, counters and miss tasks, and shares with the others only what
//! is read-mostly (the service) or made for it (the mailboxes). Its life is a row of turns:
//!
//! 1. batches from the clients: receive, serve each packet, send ([`Worker::batch`]);
//! 2. letters from the other workers: misses of which this one owns the key;
//! 3. answers to those who waited;
//! 4. then it yields to its miss tasks and the timers, or sleeps until something happens.
//!
//! A turn is bounded ([`MAX_BATCHES`], [`MAX_TURN`], [`MAX_LETTERS`], [`MAX_ANSWERS`]) even if packets are
//! still there: a socket that is always ready must not starve the replies of the upstreams.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use swiftlet_net::backend::{Backend, SLOT_LEN, Sent};
use swiftlet_net::clock::Clock;
use swiftlet_parser::key::{Key, KeyBuf};

use crate::lifecycle::{Lifecycle, Phase};
use crate::mailbox::Post;
use crate::pipeline::miss::{Miss, ReplyTo};
use crate::pipeline::{Batch, Service, Verdict, answer, serve};
use crate::resolver::{Finished, Resolver};
use crate::telemetry::{Counter, Tally};

/// Batches in one turn.
const MAX_BATCHES: usize = 8;

/// Time that the batches of one turn may take; the last one begun is finished.
const MAX_TURN: Duration = Duration::from_micros(500);

/// Letters taken in one turn.
const MAX_LETTERS: usize = 256;

/// Waiters answered in one turn, give or take those of one key.
const MAX_ANSWERS: usize = 256;

/// Batches taken off the sockets after the order to stop, for what had come before it.
const MAX_LAST_BATCHES: usize = 64;

/// How long queries in flight may keep a stopping worker.
const STOP_GRACE: Duration = Duration::from_millis(1500);

/// One worker; `B` carries its clients' datagrams.
pub struct Worker<B> {
    /// Its number, from 0.
    pub number: usize,
    /// The sockets.
    pub backend: B,
    /// What answering needs.
    pub service: Arc<Service>,
    /// The questions of which it owns the key.
    pub resolver: Rc<Resolver>,
    /// The way to the other workers.
    pub post: Post,
    /// When to stop.
    pub lifecycle: Lifecycle,
    /// The time.
    pub clock: Clock,
    /// Its own counters.
    pub tally: Tally,
}

impl<B: Backend> Worker<B> {
    /// Serves until the process stops. Must run inside a `LocalSet`.
    pub async fn run(self) {
        let mut turns = Turns {
            worker: self,
            keys: KeyBuf::default(),
            misses: Vec::new(),
            answer: vec![0; SLOT_LEN],
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
    /// Misses of the batch being served.
    misses: Vec<Miss>,
    /// Where answers to those who waited are composed.
    answer: Vec<u8>,
}

impl<B: Backend> Turns<B> {
    /// One turn. Returns whether there is more to do at once.
    fn turn(&mut self) -> bool {
        self.worker.tally.inc(Counter::Turns);
        let begun = Instant::now();
        let mut packets_left = true;
        for _ in 0..MAX_BATCHES {
            packets_left = self.batch();
            if !packets_left || begun.elapsed() > MAX_TURN {
                break;
            }
        }
        let letters_left = self.take_letters();
        let answers_left = self.answer_waiters();
        packets_left || letters_left || answers_left
    }

    /// Receives one batch, serves it and sends the replies. Returns whether there was one.
    fn batch(&mut self) -> bool {
        let Worker { backend, tally, .. } = &mut self.worker;
        let received = backend.receive();
        let taken = received.packets + received.dropped + received.oversize;
        if taken == 0 {
            return false;
        }
        tally.add(Counter::Received, taken as u64);
        tally.add(Counter::DroppedPortZero, received.dropped as u64);
        tally.add(Counter::DroppedOversize, received.oversize as u64);
        self.serve_batch();
        self.send();
        self.hand_over_misses();
        true
    }

    /// Serves the packets received. The cache is pinned for just that long.
    fn serve_batch(&mut self) {
        let Self { worker: Worker { backend, service, tally, clock, .. }, keys, misses, .. } = self;
        let pin = service.cache.pin();
        let batch = Batch { service, counters: tally, pin, now: clock.now() };
        while let Some(packet) = backend.next() {
            match serve(&batch, keys, packet.buf, packet.len, packet.route.peer_ip()) {
                Verdict::Reply(len) => packet.reply(len),
                Verdict::Drop(reason) => tally.inc(reason),
                Verdict::Wait { query, key } => {
                    misses.push(Miss::capture(query, key, packet.buf, packet.route));
                }
            }
        }
    }

    /// Gives each miss of the batch to the worker that owns its key.
    fn hand_over_misses(&mut self) {
        let Worker { number, post, resolver, tally, .. } = &self.worker;
        for miss in self.misses.drain(..) {
            tally.inc(Counter::WaitsBegun);
            let owner = post.owner(miss.hash);
            if owner == *number {
                resolver.admit(miss);
            } else if let Err(miss) = post.send(owner, miss) {
                resolver.turn_away(Counter::MailboxFull, miss);
            }
        }
    }

    /// Admits what the other workers sent. Returns whether letters are left.
    fn take_letters(&mut self) -> bool {
        for _ in 0..MAX_LETTERS {
            match self.worker.post.take(self.worker.number) {
                Some(miss) => self.worker.resolver.admit(miss),
                None => return false,
            }
        }
        true
    }

    /// Answers those whose question is finished. Returns whether some are left.
    fn answer_waiters(&mut self) -> bool {
        let mut answered = 0;
        while answered < MAX_ANSWERS {
            let Some(finished) = self.worker.resolver.take_finished() else {
                break;
            };
            answered += finished.waiters.len();
            self.answer_all(&finished);
        }
        if answered > 0 {
            self.send();
        }
        answered >= MAX_ANSWERS
    }

    fn answer_all(&mut self, finished: &Finished) {
        let Self { worker: Worker { backend, service, tally, .. }, answer, .. } = self;
        tally.add(Counter::WaitsEnded, finished.waiters.len() as u64);
        let Some(key) = Key::from_bytes(finished.hash, &finished.key) else {
            return tally.add(Counter::DroppedUnrenderable, finished.waiters.len() as u64);
        };
        for waiter in &finished.waiters {
            match answer::compose(service, tally, waiter, &key, &finished.outcome, answer) {
                Verdict::Reply(len) => match &waiter.reply_to {
                    ReplyTo::Udp(route) => {
                        if !backend.send_to(route, &answer[..len]) {
                            tally.inc(Counter::DroppedSendRefused);
                        }
                    }
                },
                Verdict::Drop(reason) => tally.inc(reason),
                Verdict::Wait { .. } => tally.inc(Counter::DroppedUnrenderable),
            }
        }
    }

    fn send(&mut self) {
        let Sent { accepted, refused } = self.worker.backend.send();
        self.worker.tally.add(Counter::Answered, accepted as u64);
        self.worker.tally.add(Counter::DroppedSendRefused, refused as u64);
    }

    /// Sleeps until a client, another worker, a miss task or the control thread needs this worker.
    async fn wait(&mut self) {
        let Worker { backend, post, number, resolver, .. } = &mut self.worker;
        tokio::select! {
            biased;
            // A socket error comes out of the next receive, which skips or counts it.
            _ = poll_fn(|cx| backend.poll_ready(cx)) => {}
            () = resolver.rung() => {}
            () = post.rung(*number) => {}
        }
    }

    /// Answers what is in flight, for at most [`STOP_GRACE`]; what is left then is counted as dropped.
    async fn stop(&mut self) {
        for _ in 0..MAX_LAST_BATCHES {
            if !self.batch() {
                break;
            }
        }
        let Worker { lifecycle, post, number, .. } = &self.worker;
        if lifecycle.stop_receiving() {
            post.ring_all();
        }
        let (lifecycle, post, number) = (lifecycle.clone(), post.clone(), *number);
        let resolver = Rc::clone(&self.worker.resolver);
        let finish = async {
            loop {
                let more = self.take_letters() | self.answer_waiters();
                if more {
                    tokio::task::yield_now().await;
                } else if resolver.is_idle() && !lifecycle.anyone_receiving() {
                    break;
                } else {
                    tokio::select! {
                        () = resolver.rung() => {}
                        () = post.rung(number) => {}
                    }
                }
            }
        };
        if tokio::time::timeout(STOP_GRACE, finish).await.is_err() {
            let abandoned = self.worker.resolver.abandon() as u64;
            self.worker.tally.add(Counter::WaitsEnded, abandoned);
            self.worker.tally.add(Counter::DroppedShutdown, abandoned);
        }
    }
}
