//! What a process has used of the CPU and of memory, by the kernel's own account.
//!
//! The time of a round is the growth of the process's CPU clock (clock_getcpuclockid(3)): the run
//! time in ns of all its threads, the ended ones and the current slice of a running one included.
//! It is what the kernel scales utime + stime from (kernel/sched/cputime.c, `cputime_adjust`),
//! without their step of 10 ms, so less than a second is enough for a round. utime + stime over the
//! whole run are there to check.
//!
//! A server may be several processes ([`Group`]). What a child used that has ended and was waited
//! for is only kept by the tick, twice (cutime, cstime): each reading is up to 20 ms too low then,
//! but never less than the one before by more. That concerns dnsmasq over TCP alone, which starts a
//! process for each connection. Of the others all processes live as long as the server.
//!
//! Both accounts hold the softirqs that ran on top of the thread, unless the kernel accounts them
//! apart (CONFIG_IRQ_TIME_ACCOUNTING): on loopback, delivering a datagram to the receiver's socket
//! is paid for by its sender.

use std::fs;

use anyhow::Context;
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

/// One tick of utime and stime in ns: USER_HZ is 100 on every architecture that runs this
/// (proc(5)).
const TICK_NS: u64 = 10_000_000;

/// Readings of a group in which processes come and go, before the last one is taken as it is.
const READINGS_MAX: usize = 5;

/// Run time of all threads that the process has or had, in ns.
pub fn run_ns(pid: u32) -> anyhow::Result<u64> {
    let clock = clock_getcpuclockid(pid_of(pid)?).and_then(nix::time::ClockId::now);
    let time = clock.with_context(|| format!("process {pid} has ended"))?;
    Ok(time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}

/// User and system time of the process, ended threads included, in ns but by the tick.
pub fn ticks_ns(pid: u32) -> anyhow::Result<u64> {
    Stat::read(pid)
        .map(|stat| stat.ticks * TICK_NS)
        .with_context(|| format!("process {pid} has ended"))
}

/// The processes of a process group, which is what a server and its descendants are.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    leader: u32,
}

impl Group {
    /// The group that this process leads.
    #[must_use]
    pub fn of(leader: u32) -> Self {
        Self { leader }
    }

    /// CPU time of its processes and of children that they waited for, in ns.
    pub fn cpu_ns(&self) -> anyhow::Result<u64> {
        let mut members = self.members()?;
        for _ in 1..READINGS_MAX {
            let total_ns = members.iter().map(Member::cpu_ns).sum();
            // A child that ended in between would be missed or counted twice.
            let again = self.members()?;
            if again == members {
                return Ok(total_ns);
            }
            members = again;
        }
        Ok(members.iter().map(Member::cpu_ns).sum())
    }

    /// Memory that its processes have resident (VmRSS), in bytes. Pages that several of them share
    /// count for each.
    pub fn resident_bytes(&self) -> anyhow::Result<u64> {
        let members = self.members()?;
        Ok(members.iter().filter_map(|member| resident_bytes(member.pid)).sum())
    }

    /// How its processes are, one letter each as in proc(5): `Z` has ended, `T` is stopped.
    pub fn states(&self) -> anyhow::Result<Vec<char>> {
        Ok(self.stats()?.iter().map(|(_, stat)| stat.state).collect())
    }

    /// The ids of its processes.
    pub fn pids(&self) -> anyhow::Result<Vec<u32>> {
        Ok(self.stats()?.into_iter().map(|(pid, _)| pid).collect())
    }

    fn members(&self) -> anyhow::Result<Vec<Member>> {
        let stats = self.stats()?.into_iter();
        let members: Vec<Member> =
            stats.map(|(pid, stat)| Member { pid, children_ticks: stat.children_ticks }).collect();
        anyhow::ensure!(
            members.iter().any(|member| member.pid == self.leader),
            "process {} has ended",
            self.leader
        );
        Ok(members)
    }

    /// In the order of their ids.
    fn stats(&self) -> anyhow::Result<Vec<(u32, Stat)>> {
        let mut stats = Vec::new();
        for entry in fs::read_dir("/proc").context("cannot read /proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // One that is gone ended after the directory was read.
            stats.extend(Stat::read(pid).map(|stat| (pid, stat)));
        }
        stats.retain(|(_, stat)| stat.group == self.leader);
        stats.sort_unstable_by_key(|&(pid, _)| pid);
        Ok(stats)
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Member {
    pid: u32,
    children_ticks: u64,
}

impl Member {
    fn cpu_ns(&self) -> u64 {
        run_ns(self.pid).unwrap_or_default() + self.children_ticks * TICK_NS
    }
}

/// What is read of `/proc/PID/stat`.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    state: char,
    group: u32,
    /// utime + stime.
    ticks: u64,
    /// cutime + cstime.
    children_ticks: u64,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The fields are numbered as in proc(5); the name in field 2 may hold anything, parentheses
    /// too.
    fn parse(stat: &str) -> Option<Self> {
        const FIRST_AFTER_NAME: usize = 3;
        let after_name = &stat[stat.rfind(')')? + 1..];
        let fields: Vec<&str> = after_name.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - FIRST_AFTER_NAME)?.parse::<u64>().ok();
        Some(Self {
            state: fields.first()?.chars().next()?,
            group: field(5)?.try_into().ok()?,
            ticks: field(14)? + field(15)?,
            children_ticks: field(16)? + field(17)?,
        })
    }
}

pub(crate) fn resident_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(resident.split_ascii_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

fn pid_of(pid: u32) -> anyhow::Result<Pid> {
    let pid = i32::try_from(pid).with_context(|| format!("{pid} is no process id"))?;
    Ok(Pid::from_raw(pid))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::{self, Command, Stdio};
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn ticks_are_found_behind_any_name() {
        let stat = "42 (a) b) S 1 42 42 0 -1 4194560 100 0 0 0 17 5 3 1 20 0 1 0 900 1 1";
        let expected = Stat { state: 'S', group: 42, ticks: 22, children_ticks: 4 };
        assert_eq!(Stat::parse(stat), Some(expected));
        assert_eq!(Stat::parse("42 (a) S 1"), None);
        assert_eq!(Stat::parse(""), None);
    }

    #[test]
    fn both_accounts_grow_with_work_and_agree() {
        let pid = process::id();
        let start = Instant::now();
        while run_ns(pid).expect("readable") < 200_000_000 {
            assert!(start.elapsed() < Duration::from_secs(60), "the account stands still");
        }
        let before_ns = run_ns(pid).expect("readable");
        let ticks_ns = ticks_ns(pid).expect("readable");
        let after_ns = run_ns(pid).expect("readable");
        assert!((before_ns..after_ns + 50_000_000).contains(&(ticks_ns + 50_000_000)));
    }

    #[test]
    fn an_ended_thread_still_counts() {
        let pid = process::id();
        let before_ns = run_ns(pid).expect("readable");
        let work = || {
            let start = Instant::now();
            while swiftlet_net::client::thread_cpu_ns() < 20_000_000 {
                assert!(start.elapsed() < Duration::from_secs(60));
            }
        };
        thread::spawn(work).join().expect("no panic");
        assert!(run_ns(pid).expect("readable") >= before_ns + 20_000_000);
    }

    #[test]
    fn children_count_while_they_live_and_after() {
        // A shell whose child works, is waited for, and then says so; it goes on when its input ends.
        let script = "sh -c 'i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done'; echo; read x";
        let mut shell = Command::new("sh")
            .args(["-c", script])
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let group = Group::of(shell.id());
        let (mut last_ns, mut is_seen) = (0, false);
        let mut reader = shell.stdout.take().expect("piped");
        let done = thread::spawn(move || std::io::Read::read(&mut reader, &mut [0; 1]));
        while !done.is_finished() {
            is_seen |= group.states().expect("readable").len() == 2;
            let now_ns = group.cpu_ns().expect("alive");
            // What was exact becomes ticks when the child ends.
            assert!(now_ns + 2 * TICK_NS >= last_ns, "{now_ns} after {last_ns}");
            last_ns = now_ns;
        }
        assert!(is_seen, "the child was alive for a while");
        assert!(group.cpu_ns().expect("alive") > 30_000_000, "the child's work is counted");
        assert!(group.resident_bytes().expect("alive") > 100_000);
        drop(shell.stdin.take());
        shell.wait().expect("ends");
        assert!(group.cpu_ns().is_err());
    }

    #[test]
    fn a_process_that_is_not_there_is_named() {
        let error = run_ns(u32::MAX).expect_err("no such process");
        assert!(format!("{error:#}").contains("4294967295"));
        assert!(ticks_ns(u32::MAX).is_err());
        assert!(Group::of(u32::MAX).cpu_ns().is_err());
    }
}
