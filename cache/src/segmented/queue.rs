//! A FIFO queue that grows and shrinks by small blocks: a ring that doubles would take from the
//! entries, at one stroke, as much as all of it.

use std::collections::VecDeque;

use super::table::Slot;

/// Places in a block: 2 KiB.
const BLOCK: usize = 256;

/// Where an entry was when it was queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Queued {
    pub(super) slot: Slot,
    /// Tells the entry from others that come into its slot.
    pub(super) sequence: u32,
}

/// Places in the order in which they were queued.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// All but the last are full. Each has the capacity of a block.
    blocks: VecDeque<Vec<Queued>>,
    /// Places that have been taken out of the first block.
    taken: usize,
    len: usize,
}

impl Queue {
    pub(super) fn push(&mut self, queued: Queued) {
        match self.blocks.back_mut() {
            Some(block) if block.len() < BLOCK => block.push(queued),
            _ => {
                let mut block = Vec::with_capacity(BLOCK);
                block.push(queued);
                self.blocks.push_back(block);
            }
        }
        self.len += 1;
    }

    pub(super) fn pop(&mut self) -> Option<Queued> {
        let first = self.blocks.front()?;
        let queued = *first.get(self.taken)?;
        self.taken += 1;
        self.len -= 1;
        if self.taken == first.len() {
            self.blocks.pop_front();
            self.taken = 0;
        }
        Some(queued)
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Keeps those for which the condition holds, in their order.
    pub(super) fn retain(&mut self, condition: impl Fn(Queued) -> bool) {
        let mut kept = Self::default();
        while let Some(queued) = self.pop() {
            if condition(queued) {
                kept.push(queued);
            }
        }
        *self = kept;
    }

    /// Bytes that it occupies.
    pub(super) fn len_bytes(&self) -> u64 {
        (self.blocks.len() * BLOCK * size_of::<Queued>()) as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against the queue of the standard library.
        #[test]
        fn it_is_a_queue(steps in prop::collection::vec((0..4u8, 0..700u32), 0..40)) {
            let (mut queue, mut model) = (Queue::default(), VecDeque::new());
            for (step, count) in steps {
                for number in 0..count {
                    let queued = Queued { slot: number, sequence: count };
                    match step {
                        0 | 1 => {
                            queue.push(queued);
                            model.push_back(queued);
                        }
                        _ => prop_assert_eq!(queue.pop(), model.pop_front()),
                    }
                }
                if step == 3 {
                    queue.retain(|queued| queued.slot % 3 == 0);
                    model.retain(|queued| queued.slot % 3 == 0);
                }
                prop_assert_eq!(queue.len(), model.len());
                prop_assert!(queue.len_bytes() <= (model.len() as u64 / 256 + 2) * 2048);
            }
            while let Some(queued) = model.pop_front() {
                prop_assert_eq!(queue.pop(), Some(queued));
            }
            prop_assert_eq!((queue.pop(), queue.len_bytes()), (None, 0));
        }
    }
}
