//! What a process has used of the CPU, by the kernel's own account.
//!
//! The time of a round is the growth of the first number in `/proc/PID/task/*/schedstat`, the run
//! time of each thread in ns. It is what the kernel scales utime + stime from
//! (kernel/sched/cputime.c, `cputime_adjust`), without their step of 10 ms, so one second is enough
//! for a round. It lags for a thread that is running, by up to a tick, and is exact for one that
//! sleeps, as a server does when it is read between rounds. A thread that ends takes its number
//! with it; utime + stime over the whole run, which keep it, are there to check.
//!
//! Both hold the softirqs that ran on top of the thread, unless the kernel accounts them apart
//! (CONFIG_IRQ_TIME_ACCOUNTING): on loopback, delivering a datagram to the receiver's socket is
//! paid for by its sender.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::Context;

/// One tick of utime and stime in ns: USER_HZ is 100 on every architecture that runs this
/// (proc(5)).
const TICK_NS: u64 = 10_000_000;

/// Run time of all threads that the process has now, in ns.
pub fn run_ns(pid: u32) -> anyhow::Result<u64> {
    let tasks = Path::new("/proc").join(pid.to_string()).join("task");
    let mut total_ns = 0;
    let entries = fs::read_dir(&tasks).with_context(|| format!("process {pid} has ended"))?;
    for entry in entries {
        let file = entry?.path().join("schedstat");
        match fs::read_to_string(&file) {
            Ok(text) => {
                total_ns += first_number(&text)
                    .with_context(|| format!("{} is not as proc(5) says", file.display()))?;
            }
            // It ended after the directory was read.
            Err(error) if is_gone(&error) => {}
            Err(error) => {
                return Err(error).with_context(|| {
                    format!("cannot read {} (CONFIG_SCHED_INFO)", file.display())
                });
            }
        }
    }
    Ok(total_ns)
}

/// User and system time of the process, ended threads included, in ns but by the tick.
pub fn ticks_ns(pid: u32) -> anyhow::Result<u64> {
    let file = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&file).with_context(|| format!("process {pid} has ended"))?;
    parse_ticks(&text)
        .map(|ticks| ticks * TICK_NS)
        .with_context(|| format!("{file} is not as proc(5) says"))
}

/// utime and stime are fields 14 and 15; the name in field 2 may hold anything, parentheses too.
fn parse_ticks(stat: &str) -> Option<u64> {
    const FIRST_AFTER_NAME: usize = 3;
    let after_name = &stat[stat.rfind(')')? + 1..];
    let mut fields = after_name.split_ascii_whitespace().skip(14 - FIRST_AFTER_NAME);
    let utime: u64 = fields.next()?.parse().ok()?;
    let stime: u64 = fields.next()?.parse().ok()?;
    Some(utime + stime)
}

fn first_number(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().next()?.parse().ok()
}

fn is_gone(error: &io::Error) -> bool {
    /// What reading an open file of an ended thread gives (errno(3)).
    const ESRCH: i32 = 3;
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(ESRCH)
}

#[cfg(test)]
mod tests {
    use std::process;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn ticks_are_found_behind_any_name() {
        let stat = "42 (a) b) S 1 42 42 0 -1 4194560 100 0 0 0 17 5 0 0 20 0 1 0 900 1 1";
        assert_eq!(parse_ticks(stat), Some(22));
        assert_eq!(parse_ticks("42 (a) S 1"), None);
        assert_eq!(parse_ticks(""), None);
    }

    #[test]
    fn both_accounts_grow_with_work_and_agree() {
        let pid = process::id();
        let start = Instant::now();
        while run_ns(pid).expect("readable") < 200_000_000 {
            assert!(start.elapsed() < Duration::from_secs(60), "the account stands still");
        }
        // Other tests end threads meanwhile, so ticks may only be more.
        let (ticks_ns, run_ns) = (ticks_ns(pid).expect("readable"), run_ns(pid).expect("readable"));
        assert!(ticks_ns + 50_000_000 > run_ns, "{ticks_ns} {run_ns}");
    }

    #[test]
    fn a_process_that_is_not_there_is_named() {
        let error = run_ns(u32::MAX).expect_err("no such process");
        assert!(format!("{error:#}").contains("4294967295"));
        assert!(ticks_ns(u32::MAX).is_err());
    }
}
