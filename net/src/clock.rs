//! The time, read once per batch and handed down as an argument, so that nothing below has a clock
//! of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::sys::time;

/// One reading of a [`Clock`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since boot, sleep included: drives TTLs and timers, and never jumps.
    pub boot_ms: u64,
    /// Seconds since 1970: for files and signatures. Jumps when somebody sets the time.
    pub wall_s: u64,
}

/// Where the time comes from. Cloning a manual clock gives a second handle on the same hands.
#[derive(Clone, Debug)]
pub enum Clock {
    /// The system's clocks; a reading costs two vDSO calls, some 50 ns.
    System {
        /// `boot_ms` follows the wall clock instead, for conformance suites that shift that one to
        /// make TTLs run out.
        follow_wall: bool,
    },
    /// Stands still until it is told otherwise.
    Manual(Manual),
    /// Runs with tokio's timers, from 1 ms at that instant on: where a test pauses those, it sees one
    /// time.
    Timers {
        /// When it began.
        since: tokio::time::Instant,
    },
}

impl Clock {
    /// Reads the clock.
    pub fn now(&self) -> Now {
        match self {
            Self::System { follow_wall } => {
                let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let boot_ms = if *follow_wall { wall.as_millis() as u64 } else { time::boot_ms() };
                Now { boot_ms, wall_s: wall.as_secs() }
            }
            Self::Manual(manual) => manual.now(),
            Self::Timers { since } => {
                let boot_ms = 1 + since.elapsed().as_millis() as u64;
                Now { boot_ms, wall_s: boot_ms / 1000 }
            }
        }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::System { follow_wall: false }
    }
}

/// The hands of a manual clock, shared between its clones; for tests.
#[derive(Clone, Debug, Default)]
pub struct Manual(Arc<Hands>);

#[derive(Debug, Default)]
struct Hands {
    boot_ms: AtomicU64,
    wall_ms: AtomicU64,
}

impl Manual {
    /// A clock that shows `now`.
    pub fn new(now: Now) -> Self {
        let manual = Self::default();
        manual.set(now);
        manual
    }

    /// Sets both hands.
    pub fn set(&self, now: Now) {
        self.0.boot_ms.store(now.boot_ms, Ordering::Relaxed);
        self.0.wall_ms.store(now.wall_s * 1000, Ordering::Relaxed);
    }

    /// Moves both hands on by that many milliseconds.
    pub fn advance_ms(&self, ms: u64) {
        self.0.boot_ms.fetch_add(ms, Ordering::Relaxed);
        self.0.wall_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// What it shows.
    pub fn now(&self) -> Now {
        Now {
            boot_ms: self.0.boot_ms.load(Ordering::Relaxed),
            wall_s: self.0.wall_ms.load(Ordering::Relaxed) / 1000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_time_never_runs_backwards() {
        let clock = Clock::default();
        let readings: Vec<u64> = (0..1000).map(|_| clock.now().boot_ms).collect();
        assert!(readings.is_sorted());
        assert!(readings[0] > 0);
    }

    #[test]
    fn boot_time_follows_the_wall_when_told_to() {
        let now = Clock::System { follow_wall: true }.now();
        assert_eq!(now.boot_ms / 1000, now.wall_s);
    }

    #[test]
    fn clones_of_a_manual_clock_share_their_hands() {
        let manual = Manual::new(Now { boot_ms: 5, wall_s: 1_700_000_000 });
        let clock = Clock::Manual(manual.clone());
        manual.advance_ms(2_500);
        assert_eq!(clock.now(), Now { boot_ms: 2_505, wall_s: 1_700_000_002 });
    }
}
