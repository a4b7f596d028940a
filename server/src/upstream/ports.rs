//! The ports that questions leave from: a pool of connected sockets for each server, on one worker.
//!
//! Each server has [`SLOTS_IN_ALL`] slots, shared out evenly over the workers, and a question goes to one of
//! its worker's at random. The slot holds a port, drawn at random from [`PORTS`] for each socket, that
//! carries at most [`MAX_CARRIED`] questions in [`MAX_AGE`]; then the slot gets a new one, and the old one
//! stays open until its last question has ended. A port whose question went unanswered or whose socket told of
//! an error takes no more: what is between it and the server may have failed. Idle ports are closed by
//! [`Ports::sweep`], so that without questions none is open.
//!
//! The trade (RFC 5452 §9): an attacker who cannot see the questions has to guess ID and port, and a port that
//! is used again is worth finding out: once it is known, the ID is left to guess for up to 16 questions instead
//! of one. That gives back 4 bits (log2 of 16) of some 32 in the worst case; the letter case of names adds
//! more than that. It saves five system calls of seven: socket, options, bind, connect and close are made
//! once for up to 16 questions.
//!
//! Invariants: the IDs that a port ever carried are distinct, so a late reply is known as such; all sockets
//! together are within the [`Budget`], which connections share. Bounds: those above, [`MAX_PORT_DRAWS`] and
//! [`MAX_SLOT_DRAWS`].

use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use slab::Slab;
use swiftlet_net::socket::open_upstream;
use swiftlet_net::watch_set::WatchSet;
use tokio::time::Instant;

use super::Failure;
use crate::telemetry::{Counter, Tally};

/// Source ports: all that need no privilege.
pub(super) const PORTS: RangeInclusive<u16> = 1024..=65535;

/// Ports that a server is asked from under load, by all workers together.
pub(super) const SLOTS_IN_ALL: usize = 1024;

/// Questions that leave from one port.
pub(super) const MAX_CARRIED: usize = 16;

/// How long questions leave from one port.
pub(super) const MAX_AGE: Duration = Duration::from_secs(10);

/// Ports drawn before giving up, when each is taken.
const MAX_PORT_DRAWS: usize = 16;

/// Slots drawn before giving up, when no socket may be opened for any.
const MAX_SLOT_DRAWS: usize = 8;

/// Ports looked at for one that can be closed, when another socket is needed.
const MAX_CLOSE_LOOKS: usize = 64;

/// Stands for no slot, port or question.
const NONE: u32 = u32::MAX;

/// Sockets that a worker may have open to the servers: ports and connections.
#[derive(Debug)]
pub(super) struct Budget {
    open: Cell<usize>,
    max: usize,
}

impl Budget {
    pub(super) fn new(max: usize) -> Rc<Self> {
        Rc::new(Self { open: Cell::new(0), max: max.max(1) })
    }

    /// Whether another socket may be opened.
    pub(super) fn has_room(&self) -> bool {
        self.open.get() < self.max
    }

    /// Counts a socket until it is dropped.
    pub(super) fn take(self: &Rc<Self>) -> Share {
        self.open.set(self.open.get() + 1);
        Share(Rc::clone(self))
    }

    #[cfg(test)]
    pub(super) fn open(&self) -> usize {
        self.open.get()
    }
}

/// One socket's share of the [`Budget`].
#[derive(Debug)]
pub(super) struct Share(Rc<Budget>);

impl Drop for Share {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
    }
}

/// One port: a socket bound to it and connected to its server.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) socket: UdpSocket,
    /// Its number.
    pub(super) number: u16,
    server: u32,
    /// Where it stands in the pool, until another one does.
    slot: u32,
    opened: Instant,
    renewals: u32,
    /// It takes no more questions.
    worn: bool,
    carried: u8,
    waiting: u8,
    /// The IDs carried, and the questions that still wait for a reply to them.
    ids: [u16; MAX_CARRIED],
    questions: [u32; MAX_CARRIED],
    _share: Share,
}

/// Whose a reply with some ID is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// This question waits for it.
    Waiting(usize),
    /// One that waits no more.
    Late,
    /// Nobody asked under this ID.
    Nobody,
}

impl Port {
    fn takes_more(&self, now: Instant, renewals: u32) -> bool {
        let is_young = now.duration_since(self.opened) < MAX_AGE;
        let is_worn = self.worn || usize::from(self.carried) >= MAX_CARRIED;
        is_young && !is_worn && self.renewals == renewals
    }

    /// An ID that this port never carried; there are 65,536, of which at most 15 are taken.
    pub(super) fn draw_id(&self, random: &mut StdRng) -> u16 {
        loop {
            let id = random.random();
            if !self.ids[..usize::from(self.carried)].contains(&id) {
                return id;
            }
        }
    }

    /// Takes a question, which must be after [`Ports::pick`] with an ID of [`draw_id`](Self::draw_id).
    pub(super) fn enter(&mut self, id: u16, question: usize) {
        let at = usize::from(self.carried);
        self.ids[at] = id;
        self.questions[at] = question as u32;
        self.carried += 1;
        self.waiting += 1;
    }

    pub(super) fn whose(&self, id: u16) -> Whose {
        let carried = usize::from(self.carried);
        match self.ids[..carried].iter().position(|&carried| carried == id) {
            Some(at) if self.questions[at] != NONE => Whose::Waiting(self.questions[at] as usize),
            Some(_) => Whose::Late,
            None => Whose::Nobody,
        }
    }

    /// The questions that wait.
    pub(super) fn waiting(&self) -> impl Iterator<Item = usize> + use<> {
        let (questions, carried) = (self.questions, usize::from(self.carried));
        questions.into_iter().take(carried).filter(|&at| at != NONE).map(|at| at as usize)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.waiting == 0
    }

    /// Has it take no more questions.
    pub(super) fn wear_out(&mut self) {
        self.worn = true;
    }
}

/// All ports of one worker, called by numbers of their own.
#[derive(Debug)]
pub(super) struct Ports {
    open: Slab<Port>,
    /// For each server its slots, once it was asked: the port in each, or [`NONE`].
    pools: Vec<Box<[u32]>>,
    slots: usize,
    /// Where the search for a port to close goes on.
    hand: usize,
    budget: Rc<Budget>,
    tally: Tally,
}

impl Ports {
    /// No ports yet; `slots` for each server.
    pub(super) fn new(slots: usize, budget: Rc<Budget>, tally: Tally) -> Self {
        let (open, pools) = (Slab::new(), Vec::new());
        Self { open, pools, slots: slots.max(1), hand: 0, budget, tally }
    }

    pub(super) fn get_mut(&mut self, port: usize) -> Option<&mut Port> {
        self.open.get_mut(port)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// A port to a server that takes one more question. `renewals` is how often the ways to the server were
    /// made anew.
    pub(super) fn pick(
        &mut self,
        (server, address): (usize, SocketAddr),
        renewals: u32,
        now: Instant,
        random: &mut StdRng,
        set: &WatchSet,
    ) -> Result<usize, Failure> {
        if self.pools.len() <= server {
            self.pools.resize_with(server + 1, Box::default);
        }
        if self.pools[server].is_empty() {
            self.pools[server] = vec![NONE; self.slots].into();
        }
        for _ in 0..MAX_SLOT_DRAWS {
            let slot = random.random_range(0..self.slots);
            let held = self.pools[server][slot] as usize;
            if let Some(port) = self.open.get(held) {
                if port.takes_more(now, renewals) {
                    return Ok(held);
                }
                self.retire(held);
            }
            if !self.make_room() {
                continue;
            }
            let port = self.open(server, slot, address, renewals, now, random)?;
            // Without being watched its replies would not be seen.
            if set.add(&self.open[port].socket, port as u64).is_err() {
                self.close(port);
                return Err(Failure::NoSocket);
            }
            return Ok(port);
        }
        self.tally.inc(Counter::UpstreamPortsFull);
        Err(Failure::NoSocket)
    }

    /// Ends the wait of the question under an ID. One that was not answered wears its port out.
    pub(super) fn leave(&mut self, port: usize, id: u16, answered: bool) {
        let Some(held) = self.open.get_mut(port) else { return };
        let carried = usize::from(held.carried);
        let Some(at) = held.ids[..carried].iter().position(|&carried| carried == id) else {
            return;
        };
        if held.questions[at] == NONE {
            return;
        }
        held.questions[at] = NONE;
        held.waiting -= 1;
        held.worn |= !answered;
        if held.slot == NONE && held.is_idle() {
            self.close(port);
        }
    }

    /// Closes ports that are over their age and carry nothing. Returns whether any is left open.
    pub(super) fn sweep(&mut self, now: Instant) -> bool {
        let is_over = |port: &Port| port.is_idle() && now.duration_since(port.opened) >= MAX_AGE;
        let over: Vec<usize> =
            self.open.iter().filter(|(_, port)| is_over(port)).map(|(at, _)| at).collect();
        over.into_iter().for_each(|port| self.close(port));
        !self.is_empty()
    }

    /// Sees to it that another socket may be opened, if need be by closing an idle port. Returns whether
    /// there is room.
    pub(super) fn make_room(&mut self) -> bool {
        if self.budget.has_room() {
            return true;
        }
        let places = self.open.capacity().max(1);
        for _ in 0..MAX_CLOSE_LOOKS.min(places) {
            self.hand = (self.hand + 1) % places;
            if self.open.get(self.hand).is_some_and(Port::is_idle) {
                self.close(self.hand);
                return true;
            }
        }
        false
    }

    /// Takes a port out of its slot; it closes as soon as nothing waits on it.
    fn retire(&mut self, port: usize) {
        let Some(held) = self.open.get_mut(port) else { return };
        let (server, slot) = (held.server as usize, held.slot as usize);
        held.slot = NONE;
        let is_idle = held.is_idle();
        if let Some(place) = self.pools.get_mut(server).and_then(|pool| pool.get_mut(slot)) {
            *place = NONE;
        }
        if is_idle {
            self.open.try_remove(port);
        }
    }

    fn close(&mut self, port: usize) {
        self.retire(port);
        self.open.try_remove(port);
    }

    fn open(
        &mut self,
        server: usize,
        slot: usize,
        address: SocketAddr,
        renewals: u32,
        now: Instant,
        random: &mut StdRng,
    ) -> Result<usize, Failure> {
        let (socket, number) = bind(address, random)?;
        self.tally.inc(Counter::UpstreamPorts);
        let port = self.open.insert(Port {
            socket,
            number,
            server: server as u32,
            slot: slot as u32,
            opened: now,
            renewals,
            worn: false,
            carried: 0,
            waiting: 0,
            ids: [0; MAX_CARRIED],
            questions: [NONE; MAX_CARRIED],
            _share: self.budget.take(),
        });
        self.pools[server][slot] = port as u32;
        Ok(port)
    }
}

/// A socket at a random free port, connected to the server.
fn bind(server: SocketAddr, random: &mut StdRng) -> Result<(UdpSocket, u16), Failure> {
    for _ in 0..MAX_PORT_DRAWS {
        let number = random.random_range(PORTS);
        match open_upstream(server, number) {
            Ok(socket) => return Ok((socket, number)),
            // Another socket has this port, or the system keeps it for somebody.
            Err(error) if is_taken(&error) => {}
            Err(error) => return Err(refusal(&error)),
        }
    }
    Err(Failure::NoSocket)
}

fn is_taken(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::AddrInUse | ErrorKind::PermissionDenied)
}

/// Whether it was the network or this process that could not open a socket.
fn refusal(error: &io::Error) -> Failure {
    if is_exhausted(error) { Failure::NoSocket } else { Failure::Network }
}

/// Whether this process, and not the network, is what could not open a socket.
pub(super) fn is_exhausted(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    const ENOBUFS: i32 = 105;
    let exhausted = [ENFILE, EMFILE, ENOBUFS];
    error.raw_os_error().is_some_and(|code| exhausted.contains(&code))
        || error.kind() == ErrorKind::OutOfMemory
}

#[cfg(test)]
mod tests;
