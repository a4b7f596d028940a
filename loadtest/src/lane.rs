//! The queries that are outstanding on one socket, and how a reply finds its own.
//!
//! Every outstanding query has a slot. The ID is the slot's number in its low bits and the slot's
//! generation above, which moves with each use, so that a late or doubled reply is told from the
//! one that is waited for. The rest of the check is the question, byte for byte; QR doesn't count,
//! so a bare echo is a fine server.

use std::collections::VecDeque;

use crate::Queries;

/// The most queries outstanding on one socket: four of the ID's bits remain for the generation.
pub const MAX_WINDOW_PER_SOCKET: usize = 1 << 12;

/// One socket's outstanding queries.
pub(crate) struct Lane {
    slots: Vec<Slot>,
    /// Slots without an outstanding query. The one that was free longest goes first, so that a
    /// generation comes round as late as it can.
    free: VecDeque<u16>,
    slot_bits: u32,
}

#[derive(Clone, Copy)]
struct Slot {
    generation: u16,
    asked: Option<Asked>,
}

/// A query that is outstanding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Asked {
    /// Its place in the set.
    pub(crate) query: usize,
    /// Its number among what this thread has sent, which a name that is never asked twice is made of.
    pub(crate) serial: u64,
    /// When the schedule wanted it sent.
    pub(crate) due_ns: u64,
    /// When it was sent.
    pub(crate) sent_ns: u64,
}

impl Lane {
    pub(crate) fn new(window: usize) -> Self {
        Self {
            slots: vec![Slot { generation: 0, asked: None }; window],
            free: (0..window as u16).collect(),
            slot_bits: window.next_power_of_two().trailing_zeros(),
        }
    }

    pub(crate) fn outstanding(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// How many more may be outstanding.
    pub(crate) fn room(&self) -> usize {
        self.free.len()
    }

    /// Takes a slot for this query and returns its ID; `None` if the window is full.
    pub(crate) fn ask(&mut self, asked: Asked) -> Option<u16> {
        let slot = self.free.pop_front()?;
        self.slots[usize::from(slot)].asked = Some(asked);
        Some(self.id(slot))
    }

    /// Undoes [`Lane::ask`] for a query that was never sent, and returns it.
    pub(crate) fn take_back(&mut self, id: u16) -> Option<Asked> {
        let slot = self.slot(id);
        let asked = self.slots[usize::from(slot)].asked.take()?;
        self.free.push_back(slot);
        Some(asked)
    }

    fn slot(&self, id: u16) -> u16 {
        id & ((1 << self.slot_bits) - 1)
    }

    /// The ID of the next query from this slot.
    fn id(&self, slot: u16) -> u16 {
        self.slots[usize::from(slot)].generation.unbounded_shl(self.slot_bits) | slot
    }

    /// The query that this reply answers, if it is outstanding. Frees its slot.
    pub(crate) fn settle(&mut self, reply: &[u8], queries: &Queries) -> Option<Asked> {
        let id = u16::from_be_bytes(*reply.first_chunk()?);
        let slot = self.slot(id);
        let asked = self.slots.get(usize::from(slot))?.asked?;
        let is_ours =
            id == self.id(slot) && queries.is_question_of(asked.query, asked.serial, reply);
        is_ours.then(|| {
            self.release(slot);
            asked
        })
    }

    fn release(&mut self, slot: u16) {
        let at = &mut self.slots[usize::from(slot)];
        at.asked = None;
        at.generation = at.generation.wrapping_add(1);
        self.free.push_back(slot);
    }

    /// Gives up on what was sent before this moment, and returns how many that were.
    pub(crate) fn expire(&mut self, before_ns: u64) -> u64 {
        if self.outstanding() == 0 {
            return 0;
        }
        let mut lost = 0;
        for slot in 0..self.slots.len() as u16 {
            let asked = self.slots[usize::from(slot)].asked;
            if asked.is_some_and(|asked| asked.sent_ns < before_ns) {
                self.release(slot);
                lost += 1;
            }
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(sent_ns: u64) -> Asked {
        Asked { query: 0, serial: 0, due_ns: sent_ns, sent_ns }
    }

    #[test]
    fn a_slot_used_again_has_another_id() {
        let queries = Queries::for_names(["a.example"]).expect("a name");
        for window in [1, 3, MAX_WINDOW_PER_SOCKET] {
            let mut lane = Lane::new(window);
            let mut ids: Vec<u16> = Vec::new();
            for _ in 0..2 * window {
                let id = lane.ask(asked(5)).expect("a free slot");
                let mut reply = queries.get(0).to_vec();
                reply[..2].copy_from_slice(&id.to_be_bytes());
                assert_eq!(lane.settle(&reply, &queries), Some(asked(5)));
                assert_eq!(lane.settle(&reply, &queries), None);
                ids.push(id);
            }
            ids.sort_unstable();
            ids.dedup();
            assert_eq!(ids.len(), 2 * window);
        }
    }

    #[test]
    fn the_window_is_a_bound_and_gives_back() {
        let mut lane = Lane::new(3);
        let ids: Vec<u16> =
            (0..3).map(|sent_ns| lane.ask(asked(sent_ns)).expect("a free slot")).collect();
        assert_eq!((lane.ask(asked(9)), lane.outstanding()), (None, 3));
        assert_eq!(lane.take_back(ids[2]), Some(asked(2)));
        assert_eq!(lane.outstanding(), 2);
        assert_eq!((lane.expire(1), lane.outstanding()), (1, 1));
        assert_eq!((lane.expire(100), lane.outstanding()), (1, 0));
    }
}
