//! The processes under test: started on one core, waited for, and always ended.

use std::ffi::OsStr;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use swiftlet_net::client::confine;

/// How long a process may take until it answers.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one query of that time waits for its answer.
const TRY_TIMEOUT: Duration = Duration::from_millis(50);

/// A server process under test. It is killed when this is dropped, and by the kernel if this
/// process ends without that.
#[derive(Debug)]
pub struct Process {
    /// What the report calls it.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    child: Child,
}

impl Process {
    /// The bare echo: `bench` is this program, on a free port.
    pub fn echo(name: &str, bench: &Path, core: usize, pad: usize) -> anyhow::Result<Self> {
        let address = free_address()?;
        let mut command = Command::new(bench);
        command
            .args(["echo", "--listen", &address.to_string(), "--core", &core.to_string()])
            .args(["--pad", &pad.to_string()]);
        Self::start(name, address, command, core)
    }

    /// The server, one worker, which forwards what it doesn't know to `upstream`.
    pub fn server(
        name: &str,
        program: &Path,
        core: usize,
        upstream: SocketAddr,
    ) -> anyhow::Result<Self> {
        let address = free_address()?;
        let mut command = Command::new(program);
        for (variable, _) in std::env::vars_os() {
            if is_setting(&variable) {
                command.env_remove(variable);
            }
        }
        command
            .env("SWIFTLET_LISTEN", address.to_string())
            .env("SWIFTLET_FORWARD", upstream.to_string())
            .env("SWIFTLET_WORKERS", "1")
            .env("SWIFTLET_PIN", "true")
            // What it says of its start would stand in the midst of the report.
            .env("SWIFTLET_LOG", "warn")
            .env("SWIFTLET_HTTP", "off");
        Self::start(name, address, command, core)
    }

    /// Any other program, on this core; what it prints is thrown away.
    pub(crate) fn start(
        name: &str,
        address: SocketAddr,
        mut command: Command,
        core: usize,
    ) -> anyhow::Result<Self> {
        confine(&mut command, core);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().with_context(|| {
            format!("cannot start {} on core {core}", command.get_program().display())
        })?;
        Ok(Self { name: name.to_owned(), address, child })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks `query` again and again until anything comes back with its ID.
    pub fn wait_until_it_answers(&mut self, query: &[u8]) -> anyhow::Result<()> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.connect(self.address)?;
        socket.set_read_timeout(Some(TRY_TIMEOUT))?;
        let deadline = Instant::now() + START_TIMEOUT;
        let mut reply = [0; 4096];
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                anyhow::bail!("{} ended at its start: {status}", self.name);
            }
            match socket.send(query).and_then(|_| socket.recv(&mut reply)) {
                Ok(len) if reply[..len].get(..2) == query.get(..2) => return Ok(()),
                // Nobody listens yet, which the kernel says at once: no use in asking faster.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    thread::sleep(TRY_TIMEOUT / 10);
                }
                Ok(_) | Err(_) => {}
            }
        }
        anyhow::bail!("{} did not answer on {} within {START_TIMEOUT:?}", self.name, self.address)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether this is a setting of the server: one from the caller's environment would change what is
/// measured without a trace in the report.
fn is_setting(variable: &OsStr) -> bool {
    variable.as_encoded_bytes().starts_with(b"SWIFTLET_")
}

/// An address on loopback whose port is free for UDP and TCP now.
pub(crate) fn free_address() -> io::Result<SocketAddr> {
    let mut last = io::ErrorKind::AddrInUse.into();
    for _ in 0..16 {
        let address = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        match TcpListener::bind(address) {
            Ok(_) => return Ok(address),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_ends_at_its_start_is_an_error_at_once() {
        let start = Instant::now();
        let upstream = (Ipv4Addr::LOCALHOST, 9).into();
        let mut process =
            Process::server("false", Path::new("/bin/false"), 0, upstream).expect("starts");
        let error = process.wait_until_it_answers(&[0; 12]).expect_err("cannot answer");
        assert!(error.to_string().contains("false ended at its start"), "{error}");
        assert!(start.elapsed() < START_TIMEOUT);
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let upstream = (Ipv4Addr::LOCALHOST, 9).into();
        let error = Process::server("server", Path::new("/nonexistent/server"), 0, upstream)
            .expect_err("no such program");
        assert!(error.to_string().contains("/nonexistent/server"), "{error}");
    }

    #[test]
    fn the_server_says_nothing_of_a_good_start() {
        let upstream = (Ipv4Addr::LOCALHOST, 9).into();
        let process = Process::server("yes", Path::new("/usr/bin/yes"), 0, upstream);
        let process = process.expect("starts");
        let settings = std::fs::read(format!("/proc/{}/environ", process.pid())).expect("readable");
        let mut settings = settings.split(|byte| *byte == 0);
        assert!(settings.any(|setting| setting == b"SWIFTLET_LOG=warn"));
    }

    #[test]
    fn settings_are_told_from_other_variables() {
        assert!(is_setting(OsStr::new("SWIFTLET_WORKERS")));
        assert!(!is_setting(OsStr::new("PATH")));
    }
}
