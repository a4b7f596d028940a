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
///
/// A sweep moves them from `unswept` to `swept`, a few at a time, and drops those that no longer
/// hold: the order stays, and no step of it takes long.
#[derive(Debug, Default)]
pub(super) struct Queue {
    swept: Fifo,
    unswept: Fifo,
    is_sweeping: bool,
}

impl Queue {
    pub(super) fn push(&mut self, queued: Queued) {
        self.unswept.push(queued);
    }

    pub(super) fn pop(&mut self) -> Option<Queued> {
        self.swept.pop().or_else(|| self.unswept.pop())
    }

    pub(super) fn len(&self) -> usize {
        self.swept.len + self.unswept.len
    }

    /// Begins a sweep, if none is under way.
    pub(super) fn begin_sweep(&mut self) {
        self.is_sweeping = true;
    }

    /// Looks at the next `places` of the sweep that is under way, if one is, and keeps those that
    /// hold.
    pub(super) fn sweep(&mut self, places: usize, holds: impl Fn(Queued) -> bool) {
        for _ in 0..if self.is_sweeping { places } else { 0 } {
            let Some(queued) = self.unswept.pop() else {
                std::mem::swap(&mut self.swept, &mut self.unswept);
                self.is_sweeping = false;
                return;
            };
            if holds(queued) {
                self.swept.push(queued);
            }
        }
    }

    /// Bytes that it occupies.
    pub(super) fn len_bytes(&self) -> u64 {
        let blocks = self.swept.blocks.len() + self.unswept.blocks.len();
        (blocks * BLOCK * size_of::<Queued>()) as u64
    }
}

#[derive(Debug, Default)]
struct Fifo {
    /// All but the last are full. Each has the capacity of a block.
    blocks: VecDeque<Vec<Queued>>,
    /// Places that have been taken out of the first block.
    taken: usize,
    len: usize,
}

impl Fifo {
    fn push(&mut self, queued: Queued) {
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

    fn pop(&mut self) -> Option<Queued> {
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
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 256 })
        })]

        /// Against the queue of the standard library. Places with a slot that 3 divides hold.
        #[test]
        fn it_is_a_queue(steps in prop::collection::vec((0..5u8, 0..700u32), 0..40)) {
            let (mut queue, mut model) = (Queue::default(), VecDeque::new());
            let holds = |queued: Queued| queued.slot.is_multiple_of(3);
            for (step, count) in steps {
                let before = queue.len();
                for number in 0..count {
                    let queued = Queued { slot: number, sequence: count };
                    match step {
                        0 | 1 => {
                            queue.push(queued);
                            model.push_back(queued);
                        }
                        2 | 3 => prop_assert_eq!(queue.pop(), model.pop_front()),
                        _ => {
                            queue.begin_sweep();
                            queue.sweep(1, holds);
                        }
                    }
                }
                if step == 4 {
                    // What of it doesn't hold may have gone or not; what holds is as it was.
                    let places = std::iter::from_fn(|| queue.pop()).collect::<Vec<_>>();
                    let looked_at_all = count as usize > before;
                    prop_assert!(!looked_at_all || places.iter().all(|&queued| holds(queued)));
                    model.retain(|&queued| holds(queued));
                    let kept = places.into_iter().filter(|&queued| holds(queued));
                    kept.for_each(|queued| queue.push(queued));
                }
                prop_assert_eq!(queue.len(), model.len());
                prop_assert!(queue.len_bytes() <= (model.len() as u64 / 256 + 4) * 2048);
            }
            while let Some(queued) = model.pop_front() {
                prop_assert_eq!(queue.pop(), Some(queued));
            }
            prop_assert_eq!((queue.pop(), queue.len_bytes()), (None, 0));
        }
    }
}
