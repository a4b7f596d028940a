//! The filters of af-xdp on their interfaces. A program or a start without it has none.

#[cfg(feature = "af-xdp")]
use swiftlet_net::backend::xdp::{Attachment, Served};

/// The filters that give clients' frames to the workers; gone when this is dropped.
#[derive(Debug, Default)]
pub struct Filters {
    #[cfg(feature = "af-xdp")]
    attached: Option<Attachment>,
}

#[cfg(not(feature = "af-xdp"))]
impl Filters {
    /// Nothing to take off.
    pub fn detach(&self) {}

    /// None.
    #[must_use]
    pub fn interfaces(&self) -> Option<String> {
        None
    }

    /// None that should have one.
    #[must_use]
    pub fn workers_without_queue(&self, _workers: usize) -> usize {
        0
    }
}

#[cfg(feature = "af-xdp")]
impl Filters {
    /// What was attached.
    #[must_use]
    pub fn new(attached: Attachment) -> Self {
        Self { attached: Some(attached) }
    }

    /// The filters, unless another backend serves.
    #[must_use]
    pub fn attached(&self) -> Option<&Attachment> {
        self.attached.as_ref()
    }

    /// Takes them off: what comes from here on waits in the ordinary sockets.
    pub fn detach(&self) {
        if let Some(attached) = &self.attached {
            attached.detach();
        }
    }

    /// The interfaces with mode and queues, as the log says it.
    #[must_use]
    pub fn interfaces(&self) -> Option<String> {
        let shown: Vec<_> = self.attached()?.interfaces().iter().map(show).collect();
        Some(shown.join(", "))
    }

    /// How many of so many workers have none of the queues.
    #[must_use]
    pub fn workers_without_queue(&self, workers: usize) -> usize {
        self.attached().map_or(0, |attached| without_queue(attached.interfaces(), workers))
    }
}

#[cfg(feature = "af-xdp")]
fn without_queue(interfaces: &[Served], workers: usize) -> usize {
    let has_one = |worker: &usize| {
        let queues = &mut interfaces.iter().flat_map(|served| &served.queues);
        queues.any(|&queue| queue as usize % workers == *worker)
    };
    (0..workers).filter(|worker| !has_one(worker)).count()
}

/// `eth0 (native, copy; queues 0-3, 5)`.
#[cfg(feature = "af-xdp")]
fn show(served: &Served) -> String {
    let Served { name, mode, queues, .. } = served;
    let runs = queues.chunk_by(|&one, &next| next == one + 1);
    let runs: Vec<_> = runs
        .map(|run| match run {
            [first, .., last] => format!("{first}-{last}"),
            _ => run.iter().map(u32::to_string).collect(),
        })
        .collect();
    let noun = if queues.len() == 1 { "queue" } else { "queues" };
    format!("{name} ({mode}; {noun} {})", runs.join(", "))
}

#[cfg(all(test, feature = "af-xdp"))]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn queues_in_a_row_are_shown_as_a_range() {
        for (queues, shown) in [
            (&[0][..], "eth0 (native, copy; queue 0)"),
            (&[0, 1], "eth0 (native, copy; queues 0-1)"),
            (&[0, 1, 2, 5, 7, 8], "eth0 (native, copy; queues 0-2, 5, 7-8)"),
        ] {
            assert_eq!(show(&served(queues)), shown);
        }
    }

    #[test]
    fn workers_without_a_queue_are_counted() {
        let interfaces = [served(&[0, 1, 4]), served(&[0])];
        for (workers, without) in [(1, 0), (2, 0), (3, 1), (4, 2), (8, 5)] {
            assert_eq!(without_queue(&interfaces, workers), without, "{workers}");
        }
    }

    fn served(queues: &[u32]) -> Served {
        let (name, queues) = ("eth0".into(), queues.into());
        let waited = Duration::ZERO;
        Served { name, mode: "native, copy", queues, why_generic: None, waited }
    }
}
