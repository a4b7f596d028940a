//! The generator: kxdpgun of Knot DNS, which sends and receives over an AF_XDP socket.
//!
//! An open loop: it sends in batches of ten, on schedule, whatever comes back, and counts the replies until
//! a second after the last query. It doesn't compare them with its queries; their RCODEs it tells.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use swiftlet_net::client::{children_cpu, confine};
use tempfile::TempDir;

use super::rig::{Link, PORT, Rig};

const PROGRAM: &str = "kxdpgun";

/// What it says while its interface's queue still belongs to the run before: the kernel gives it back a
/// little after that has ended.
const BUSY: &str = "resource is busy";

/// How often it is tried again then, and after how long.
const TRIES: usize = 20;
const TRY_AGAIN: Duration = Duration::from_millis(50);

/// The generator and what it asks.
#[derive(Debug)]
pub struct Gun {
    directory: TempDir,
    core: usize,
}

/// What one run came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Volley {
    /// Queries sent.
    pub sent: u64,
    /// Replies.
    pub received: u64,
    /// Replies with NOERROR.
    pub good: u64,
    /// CPU time of the generator's process.
    pub cpu: Duration,
}

impl Gun {
    /// One that asks for the A records of these names in turn, on this core.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn new(names: &[String], core: usize) -> anyhow::Result<Self> {
        let directory = TempDir::new().context("cannot make a temporary directory")?;
        let gun = Self { directory, core };
        let queries: String = names.iter().map(|name| format!("{name} A\n")).collect();
        fs::write(gun.queries(), queries).context("cannot write the generator's queries")?;
        Ok(gun)
    }

    /// Asks the server of a link, so many queries a second. It takes two seconds more than `duration`.
    ///
    /// # Errors
    /// If it isn't installed, or cannot send.
    pub fn fire(
        &self,
        rig: &Rig,
        link: &Link,
        rate: u64,
        duration: Duration,
    ) -> anyhow::Result<Volley> {
        for _ in 1..TRIES {
            match self.try_to_fire(rig, link, rate, duration) {
                Err(error) if format!("{error:#}").contains(BUSY) => thread::sleep(TRY_AGAIN),
                outcome => return outcome,
            }
        }
        self.try_to_fire(rig, link, rate, duration)
    }

    fn try_to_fire(
        &self,
        rig: &Rig,
        link: &Link,
        rate: u64,
        duration: Duration,
    ) -> anyhow::Result<Volley> {
        let target = link.target().ip().to_string();
        let mut command = Command::new(PROGRAM);
        command
            .args(["-t", &duration.as_secs_f64().to_string(), "-Q", &rate.to_string()])
            .args(["-I", &link.generator, "-R", &link.target_mac(), "-p", &PORT.to_string()])
            .args(["-F", &self.core.to_string()])
            .arg("-i")
            .arg(self.queries())
            .arg(target);
        confine(&mut command, self.core);
        let before = children_cpu();
        let output = rig.in_generator(|| command.output())?.with_context(|| {
            format!("cannot run {PROGRAM}: install Debian's package knot-dnsutils")
        })?;
        let cpu = children_cpu() - before;
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        Volley::parse(&said, cpu)
            .filter(|_| output.status.success())
            .with_context(|| format!("{PROGRAM} failed ({}): {}", output.status, said.trim()))
    }

    fn queries(&self) -> PathBuf {
        self.directory.path().join("queries")
    }
}

impl Volley {
    /// Lines as `total queries:     200010 (100005 pps)`. RCODEs that did not occur have no line.
    fn parse(said: &str, cpu: Duration) -> Option<Self> {
        let count = |label: &str| {
            let value = said.lines().find_map(|line| line.trim().strip_prefix(label))?;
            value.split_ascii_whitespace().next()?.parse::<u64>().ok()
        };
        Some(Self {
            sent: count("total queries:")?,
            received: count("total replies:")?,
            good: count("responded NOERROR:").unwrap_or(0),
            cpu,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "\
using interface swxbg, XDP threads 1, UDP, native mode
thread#00: sent 599990, received 596268
total queries:     599990 (299995 pps)
total replies:     596268 (298134 pps) (99%)
average DNS reply size: 53 B
average Ethernet reply rate: 226581840 bps (226.58 Mbps)
responded NOERROR:   596267
responded SERVFAIL:  1
duration: 2 s
";

    #[test]
    fn its_counts_are_found_in_what_it_says() {
        let volley = Volley::parse(SAID, Duration::ZERO).expect("complete");
        assert_eq!((volley.sent, volley.received, volley.good), (599_990, 596_268, 596_267));
        let silence = "total queries:     510 (1020 pps)\ntotal replies:     0 (0 pps) (0%)\n";
        let volley = Volley::parse(silence, Duration::ZERO).expect("complete");
        assert_eq!((volley.sent, volley.received, volley.good), (510, 0, 0));
        assert_eq!(Volley::parse("cannot get remote MAC", Duration::ZERO), None);
    }
}
