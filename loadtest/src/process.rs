//! What a server's process has used, by the kernel's account: CPU time and memory.
//!
//! The sum of `/proc/PID/task/*/schedstat`, which unlike utime and stime has no step of 10 ms. A
//! thread that ends between two readings takes its time with it.

use std::fs;
use std::io;

/// One reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// CPU time of all its threads, in ns.
    pub cpu_ns: u64,
    /// Resident memory, in bytes.
    pub resident: u64,
}

impl Usage {
    /// Reads it for this process.
    pub fn of(pid: u32) -> io::Result<Self> {
        let mut cpu_ns = 0;
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            // One that is gone ended after the directory was read.
            let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else {
                continue;
            };
            cpu_ns += first_number(&text).unwrap_or_default();
        }
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = resident.and_then(first_number).unwrap_or_default();
        Ok(Self { cpu_ns, resident: kib * 1024 })
    }
}

fn first_number(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_something() {
        let usage = Usage::of(std::process::id()).expect("readable");
        assert!(usage.cpu_ns > 0 && usage.resident > 1 << 16, "{usage:?}");
        assert!(Usage::of(u32::MAX).is_err());
    }
}
