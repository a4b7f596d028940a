//! The queries that are outstanding on one socket, and how a reply finds its own.
//!
//! Every outstanding query has a slot. The ID is the slot's number in its low bits and the slot's
//! generation above, which moves with each use, so that a late or doubled reply is told from the
//! one that is waited for. The rest of the check is the question, byte for byte; QR doesn't count,
//! so a bare echo is a fine server.

use std::collections::VecDeque;

use swiftlet_parser::rr::HEADER_LEN;

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
    /// The query and when it was sent.
    asked: Option<(usize, u64)>,
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

    /// Takes a slot for the query that `next` names, sent at this moment. Returns its ID and the
    /// query; `None` if the window is full.
    pub(crate) fn ask(
        &mut self,
        sent_ns: u64,
        next: impl FnOnce() -> usize,
    ) -> Option<(u16, usize)> {
        let slot = self.free.pop_front()?;
        let query = next();
        self.slots[usize::from(slot)].asked = Some((query, sent_ns));
        Some((self.id(slot), query))
    }

    /// Undoes [`Lane::ask`] for a query that was never sent.
    pub(crate) fn take_back(&mut self, id: u16) {
        let slot = self.slot(id);
        self.slots[usize::from(slot)].asked = None;
        self.free.push_back(slot);
    }

    fn slot(&self, id: u16) -> u16 {
        id & ((1 << self.slot_bits) - 1)
    }

    /// The ID of the next query from this slot.
    fn id(&self, slot: u16) -> u16 {
        self.slots[usize::from(slot)].generation.unbounded_shl(self.slot_bits) | slot
    }

    /// When the query that this reply answers was sent, if it is outstanding. Frees its slot.
    pub(crate) fn settle(&mut self, reply: &[u8], queries: &Queries) -> Option<u64> {
        let id = u16::from_be_bytes(*reply.first_chunk()?);
        let slot = self.slot(id);
        let (query, sent_ns) = self.slots.get(usize::from(slot))?.asked?;
        let question = queries.get(query).get(HEADER_LEN..)?;
        let is_ours = id == self.id(slot) && reply.get(HEADER_LEN..)?.starts_with(question);
        is_ours.then(|| {
            self.release(slot);
            sent_ns
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
        let mut lost = 0;
        for slot in 0..self.slots.len() as u16 {
            let asked = self.slots[usize::from(slot)].asked;
            if asked.is_some_and(|(_, sent_ns)| sent_ns < before_ns) {
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

    #[test]
    fn a_slot_used_again_has_another_id() {
        let queries = Queries::for_names(["a.example"]).expect("a name");
        for window in [1, 3, MAX_WINDOW_PER_SOCKET] {
            let mut lane = Lane::new(window);
            let mut ids: Vec<u16> = Vec::new();
            for _ in 0..2 * window {
                let (id, query) = lane.ask(5, || 0).expect("a free slot");
                let mut reply = queries.get(query).to_vec();
                reply[..2].copy_from_slice(&id.to_be_bytes());
                assert_eq!(lane.settle(&reply, &queries), Some(5));
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
            (0..3).map(|query| lane.ask(query, || 0).expect("a free slot").0).collect();
        assert_eq!((lane.ask(9, || unreachable!()), lane.outstanding()), (None, 3));
        lane.take_back(ids[2]);
        assert_eq!(lane.outstanding(), 2);
        assert_eq!((lane.expire(1), lane.outstanding()), (1, 1));
        assert_eq!((lane.expire(100), lane.outstanding()), (1, 0));
    }
}
