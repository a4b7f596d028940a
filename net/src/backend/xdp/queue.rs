//! One receive queue of an interface: its AF_XDP socket and memory.

/// The queues of one worker.
#[derive(Debug, Default)]
pub struct Share {}

/// What became of the frames of one queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueCounts {
    /// The interface's name.
    pub interface: String,
    /// The queue's number.
    pub queue: u32,
    /// Frames that the worker took from the ring, whatever became of them.
    pub received: u64,
    /// Replies given to the kernel.
    pub answered: u64,
    /// Frames that the kernel dropped for want of a free frame of ours (`rx_dropped`).
    pub dropped: u64,
    /// Frames that the kernel dropped because the receive ring was full (`rx_ring_full`).
    pub ring_full: u64,
    /// How often the kernel found the fill ring empty; each is counted as dropped too in copy mode.
    pub fill_empty: u64,
    /// Descriptors of ours that the kernel found invalid: always 0, or a defect.
    pub invalid: u64,
}
