//! Live progress: one line that is written over on a terminal, a line a second otherwise.

use std::io::{IsTerminal, Write, stderr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use swiftlet_loadtest::Second;

/// A server that has answered nothing for so many seconds isn't there.
const SILENCE_MAX_S: u64 = 3;

/// What is shown while a load runs. It ends a run that gets no answer at all.
pub(crate) struct Progress<'s> {
    is_terminal: bool,
    duration: Duration,
    answered: u64,
    stop: &'s AtomicBool,
}

impl<'s> Progress<'s> {
    /// For a run of this length.
    pub(crate) fn new(duration: Duration, stop: &'s AtomicBool) -> Self {
        Self { is_terminal: stderr().is_terminal(), duration, answered: 0, stop }
    }

    /// Shows a second.
    pub(crate) fn show(&mut self, second: &Second) {
        self.answered += second.answered;
        if self.answered == 0 && second.at_s >= SILENCE_MAX_S {
            self.stop.store(true, Ordering::Relaxed);
        }
        let loss = 100.0 * second.lost as f64 / second.sent.max(1) as f64;
        let left_s = self.duration.saturating_sub(Duration::from_secs(second.at_s)).as_secs();
        let line = format!(
            "{:>4} s  {:>9} answers/s  loss {loss:.3} %  p50 {:.0} us  p99 {:.0} us  {left_s} s left",
            second.at_s, second.answered, second.p50_us, second.p99_us
        );
        if self.is_terminal {
            eprint!("\r\x1b[K{line}");
            let _ = stderr().flush();
        } else {
            eprintln!("{line}");
        }
    }

    /// Clears the line on a terminal.
    pub(crate) fn end(&self) {
        if self.is_terminal {
            eprint!("\r\x1b[K");
        }
    }
}
