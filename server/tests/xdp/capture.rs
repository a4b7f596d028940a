//! What tcpdump makes of the frames that come to the far end.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};

use crate::rig::Rig;
use crate::support::PATIENCE;

/// tcpdump, which ends by itself after so many frames.
pub(crate) struct Capture(Child);

impl Capture {
    /// Starts it, and waits until it sees all that comes from now on.
    pub(crate) fn start(rig: &Rig, count: usize, filter: &str) -> Self {
        let mut child = rig
            .far
            .command("timeout")
            .arg(PATIENCE.as_secs().to_string())
            .args(["tcpdump", "-i", "eth0", "-e", "-n", "-vv", "--immediate-mode", "-c"])
            .arg(count.to_string())
            .args(filter.split_whitespace())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("`make test` installs tcpdump");
        let mut said = BufReader::new(child.stderr.take().expect("stderr is piped")).lines();
        let listens = said.any(|line| line.is_ok_and(|line| line.contains("listening on")));
        assert!(listens, "tcpdump does not listen");
        Self(child)
    }

    /// What it wrote, when it has seen enough.
    pub(crate) fn finish(mut self) -> String {
        let mut seen = String::new();
        let mut output = self.0.stdout.take().expect("stdout is piped");
        output.read_to_string(&mut seen).expect("tcpdump writes text");
        let status = self.0.wait().expect("the child can be waited for");
        assert!(status.success(), "too few frames came: {seen}");
        seen
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
