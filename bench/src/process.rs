//! The processes under test: started on one core, waited for, and always ended.

use std::ffi::OsStr;
use std::fs::{DirEntry, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use rustix::thread::{CpuSet, sched_setaffinity};
use socket2::{SockRef, Type};
use swiftlet_net::client::confine;
use tempfile::TempDir;

use crate::accounting::Group;
use crate::echo::Over;
use crate::peers::Setup;

/// How long a process may take until it answers: one with a large zone reads it first.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// How long one query of that time waits for its answer.
const TRY_TIMEOUT: Duration = Duration::from_millis(50);

/// How long processes may take to stop or to end once they are told to.
const SIGNAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Receive buffer of every server's socket, in bytes, as far as `net.core.rmem_max` allows.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Connections that may wait for a server to accept them, as far as `net.core.somaxconn` allows:
/// knotd has 10 without a setting, and a client waits a second after a refusal.
const CONNECTIONS_WAITING: i32 = 1024;

/// What a process says goes to this file in its directory.
const LOG: &str = "log";

/// Bytes of that file that an error repeats.
const LOG_TAIL: usize = 1000;

/// Bytes of our cache for each name as `n123456.bench.example`, type A, so that it keeps as many as
/// are asked for: 96 of an entry, an eighth of the budget for the table, a fiftieth for what readers
/// still hold, and some for blocks that are not full and the unevenness of the shards.
const CACHE_BYTES_PER_NAME: usize = 124;

/// The smallest cache that the server takes, in bytes.
const CACHE_BYTES_MIN: usize = 1 << 20;

/// A server process under test with its descendants, which are a process group. They are killed when
/// this is dropped, and the process itself by the kernel if the thread that started it ends without
/// that.
#[derive(Debug)]
pub struct Process {
    /// What the report calls it.
    pub name: String,
    /// Where it listens, over UDP and TCP.
    pub address: SocketAddr,
    core: usize,
    child: Child,
    companion: Option<Child>,
    directory: Option<TempDir>,
}

impl Process {
    /// The bare echo: `bench` is this program, on a free port.
    pub fn echo(name: &str, bench: &Path, core: usize, pad: usize) -> anyhow::Result<Self> {
        Self::echo_over(Over::Recvmmsg, name, bench, core, pad)
    }

    /// An echo over these system calls.
    pub fn echo_over(
        over: Over,
        name: &str,
        bench: &Path,
        core: usize,
        pad: usize,
    ) -> anyhow::Result<Self> {
        Self::echo_at(free_address()?, over, name, bench, core, pad)
    }

    /// The same on this address.
    pub fn echo_at(
        address: SocketAddr,
        over: Over,
        name: &str,
        bench: &Path,
        core: usize,
        pad: usize,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(bench);
        command
            .args(["echo", "--listen", &address.to_string(), "--core", &core.to_string()])
            .args(["--pad", &pad.to_string(), "--over", over.name()]);
        // Where the kernel refuses, it says why.
        let directory = (over != Over::Recvmmsg).then(TempDir::new).transpose()?;
        Self::start(name, address, command, core, directory)
    }

    /// The server, one worker, which forwards what it doesn't know.
    pub fn server(name: &str, program: &Path, setup: &Setup<'_>) -> anyhow::Result<Self> {
        let address = free_address()?;
        Self::start(name, address, server(program, address, setup), setup.core, None)
    }

    /// The same with other settings; what it says is told only if it fails.
    pub fn variant(
        name: &str,
        program: &Path,
        setup: &Setup<'_>,
        settings: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        Self::variant_at(free_address()?, name, program, setup, settings)
    }

    /// The same on this address.
    pub fn variant_at(
        address: SocketAddr,
        name: &str,
        program: &Path,
        setup: &Setup<'_>,
        settings: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        // It runs in a directory of its own.
        let program = std::path::absolute(program)?;
        let mut command = server(&program, address, setup);
        command.envs(settings.iter().copied());
        Self::start(name, address, command, setup.core, Some(TempDir::new()?))
    }

    /// Starts any server. With a directory, that is where it runs and where what it says goes; it is
    /// removed at the end.
    pub(crate) fn start(
        name: &str,
        address: SocketAddr,
        mut command: Command,
        core: usize,
        directory: Option<TempDir>,
    ) -> anyhow::Result<Self> {
        let child = spawn(&mut command, core, directory.as_ref(), 0)?;
        Ok(Self { name: name.to_owned(), address, core, child, companion: None, directory })
    }

    /// Starts a program that belongs to the server: what it uses counts for it.
    pub(crate) fn add_companion(
        &mut self,
        mut command: Command,
        core: usize,
    ) -> anyhow::Result<()> {
        let group = self.group_id().as_raw();
        self.companion = Some(spawn(&mut command, core, self.directory.as_ref(), group)?);
        Ok(())
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where its files are; it goes with it.
    #[must_use]
    pub fn directory(&self) -> Option<&Path> {
        self.directory.as_ref().map(TempDir::path)
    }

    /// CPU time that it has used so far, in ns: all threads and descendants, those that have ended
    /// included. How exact that is stands in [`crate::accounting`].
    pub fn cpu_ns(&self) -> anyhow::Result<u64> {
        self.group().cpu_ns().with_context(|| format!("{} is gone", self.name))
    }

    /// Memory resident now, in bytes, of all its processes.
    pub fn resident_bytes(&self) -> anyhow::Result<u64> {
        self.group().resident_bytes().with_context(|| format!("{} is gone", self.name))
    }

    /// Stops all its processes (SIGSTOP) and waits until they have, so that they use nothing.
    /// Queries that come meanwhile wait in its sockets.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.signal(Signal::SIGSTOP)?;
        self.wait_for_states(|state| matches!(state, 'T' | 'Z'))
    }

    /// Lets them go on (SIGCONT).
    pub fn resume(&self) -> anyhow::Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Asks `query`, a whole message, again and again until anything comes back with its ID: over
    /// UDP, then over TCP.
    pub fn wait_until_it_answers(&mut self, query: &[u8]) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        for (transport, ask) in [("UDP", ask_datagram as Ask), ("TCP", ask_stream)] {
            loop {
                match ask(self.address, query) {
                    Ok(()) => break,
                    // Nobody listens yet, which the kernel says at once: no use in asking faster.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                        thread::sleep(TRY_TIMEOUT / 10);
                    }
                    Err(_) => {}
                }
                if let Some(status) = self.child.try_wait()? {
                    anyhow::bail!(
                        "{} ended at its start: {status}{}",
                        self.name,
                        self.last_words()
                    );
                }
                anyhow::ensure!(
                    Instant::now() < deadline,
                    "{} did not answer on {} over {transport} within {START_TIMEOUT:?}{}",
                    self.name,
                    self.address,
                    self.last_words()
                );
            }
        }
        self.widen_queues();
        self.confine_threads()
    }

    /// Brings all threads back to the core. Some place themselves, whatever they were started on:
    /// knotd puts its first UDP worker on the first core, which is the generator's.
    fn confine_threads(&self) -> anyhow::Result<()> {
        let mut cores = CpuSet::new();
        cores.set(self.core);
        for pid in self.group().pids()? {
            for thread in threads_of(pid) {
                match sched_setaffinity(Some(thread), &cores) {
                    // It has ended since.
                    Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                    Err(error) => {
                        return Err(error).with_context(|| {
                            format!("cannot bring {} to core {}", self.name, self.core)
                        });
                    }
                }
            }
        }
        Ok(())
    }

    /// Lets a whole window wait in its UDP socket, and connections at its TCP socket, as with the
    /// echo and ours. For servers without a setting for the one, their guides change
    /// `net.core.rmem_default`, which would change the machine; this reaches only the sockets that are
    /// measured. Where the kernel doesn't allow it, a burst shows as queries lost.
    fn widen_queues(&self) {
        for pid in self.group().pids().unwrap_or_default() {
            for socket in sockets_of(pid) {
                let socket = SockRef::from(&socket);
                if socket.local_addr().ok().and_then(|local| local.as_socket())
                    != Some(self.address)
                {
                    continue;
                }
                // As said above: not every one can be changed.
                let _ = match socket.r#type() {
                    Ok(Type::DGRAM) if socket.recv_buffer_size().unwrap_or(0) < RECEIVE_BUFFER => {
                        socket.set_recv_buffer_size(RECEIVE_BUFFER)
                    }
                    // On a socket that listens already this changes the length of its queue alone.
                    Ok(Type::STREAM) if socket.is_listener().unwrap_or(false) => {
                        socket.listen(CONNECTIONS_WAITING)
                    }
                    _ => Ok(()),
                };
            }
        }
    }

    fn group_id(&self) -> Pid {
        // The kernel's ids are far below.
        Pid::from_raw(self.child.id().cast_signed())
    }

    fn group(&self) -> Group {
        Group::of(self.child.id())
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        killpg(self.group_id(), signal).with_context(|| format!("cannot signal {}", self.name))
    }

    fn wait_for_states(&self, is_right: impl Fn(char) -> bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + SIGNAL_TIMEOUT;
        while !self.group().states()?.into_iter().all(&is_right) {
            anyhow::ensure!(Instant::now() < deadline, "{} ignores a signal", self.name);
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// The end of what it said, for an error.
    fn last_words(&self) -> String {
        let Some(directory) = &self.directory else {
            return String::new();
        };
        let said = std::fs::read(directory.path().join(LOG)).unwrap_or_default();
        let tail = &said[said.len().saturating_sub(LOG_TAIL)..];
        format!("; it said: {}", String::from_utf8_lossy(tail).trim())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // All of these fail only if it has ended already.
        let _ = self.signal(Signal::SIGKILL);
        let _ = self.child.wait();
        if let Some(companion) = &mut self.companion {
            let _ = companion.wait();
        }
        // Whoever still writes would keep the directory from being removed.
        let _ = self.wait_for_states(|state| state == 'Z');
    }
}

/// The server, to be started with one worker and nothing of the caller's settings.
fn server(program: &Path, address: SocketAddr, setup: &Setup<'_>) -> Command {
    let cache_bytes = (setup.cache_names * CACHE_BYTES_PER_NAME).max(CACHE_BYTES_MIN);
    let mut command = Command::new(program);
    for (variable, _) in std::env::vars_os() {
        if is_setting(&variable) {
            command.env_remove(variable);
        }
    }
    command
        .env("SWIFTLET_LISTEN", address.to_string())
        .env("SWIFTLET_FORWARD", setup.upstream.to_string())
        .env("SWIFTLET_CACHE_SIZE", cache_bytes.to_string())
        .env("SWIFTLET_WORKERS", "1")
        .env("SWIFTLET_PIN", "true")
        // What it says of its start would stand in the midst of the report.
        .env("SWIFTLET_LOG", "warn")
        .env("SWIFTLET_HTTP", "off")
        // What goes upstream is counted, and is to be what was asked.
        .env("SWIFTLET_LOOP_PROBE_S", "0");
    command
}

fn spawn(
    command: &mut Command,
    core: usize,
    directory: Option<&TempDir>,
    group: i32,
) -> anyhow::Result<Child> {
    confine(command, core);
    command.process_group(group).stdin(Stdio::null()).stdout(Stdio::null());
    if let Some(directory) = directory {
        let path = directory.path().join(LOG);
        let log = File::options().create(true).append(true).open(&path);
        let log = log.with_context(|| format!("cannot write {}", path.display()))?;
        command.current_dir(directory.path()).stdout(log.try_clone()?).stderr(log);
    }
    command
        .spawn()
        .with_context(|| format!("cannot start {} on core {core}", command.get_program().display()))
}

/// Descriptors for the same sockets as those of the process, as far as the kernel gives them to us
/// (pidfd_getfd(2), Linux 5.6).
fn sockets_of(pid: u32) -> Vec<OwnedFd> {
    let handle = rustix::process::Pid::from_raw(pid.cast_signed())
        .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    let (Some(handle), Ok(entries)) = (handle, std::fs::read_dir(format!("/proc/{pid}/fd"))) else {
        return Vec::new();
    };
    let is_socket = |entry: &DirEntry| {
        let target = std::fs::read_link(entry.path());
        target.is_ok_and(|target| target.as_os_str().as_encoded_bytes().starts_with(b"socket:"))
    };
    entries
        .flatten()
        .filter(is_socket)
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|fd| pidfd_getfd(&handle, fd, PidfdGetfdFlags::empty()).ok())
        .collect()
}

type Ask = fn(SocketAddr, &[u8]) -> io::Result<()>;

fn ask_datagram(address: SocketAddr, query: &[u8]) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(TRY_TIMEOUT))?;
    socket.send(query)?;
    let mut reply = [0; 2];
    let len = socket.recv(&mut reply)?;
    check_id(&reply[..len], query)
}

fn ask_stream(address: SocketAddr, query: &[u8]) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, TRY_TIMEOUT)?;
    stream.set_read_timeout(Some(TRY_TIMEOUT))?;
    let len = u16::try_from(query.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    stream.write_all(&[&len.to_be_bytes()[..], query].concat())?;
    let mut reply = [0; 4];
    stream.read_exact(&mut reply)?;
    check_id(&reply[2..], query)
}

fn check_id(reply: &[u8], query: &[u8]) -> io::Result<()> {
    if query.starts_with(reply) { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// The ids of a process's threads; none if it has ended.
fn threads_of(pid: u32) -> Vec<rustix::process::Pid> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let number = |entry: DirEntry| entry.file_name().to_str()?.parse().ok();
    entries.filter_map(number).filter_map(rustix::process::Pid::from_raw).collect()
}

/// Whether this is a setting of the server: one from the caller's environment would change what is
/// measured without a trace in the report.
fn is_setting(variable: &OsStr) -> bool {
    variable.as_encoded_bytes().starts_with(b"SWIFTLET_")
}

/// An address on loopback whose port is free for UDP and TCP now.
///
/// Not one of those that the kernel gives to sockets without a port of their own: it may give a port
/// that servers share (SO_REUSEPORT) to a client that asks for the same sharing.
pub(crate) fn free_address() -> io::Result<SocketAddr> {
    const BELOW_THE_KERNELS: std::ops::Range<u16> = 10_000..30_000;
    const TRIES: usize = 1000;
    let candidates = std::iter::repeat_with(|| rand::random_range(BELOW_THE_KERNELS))
        .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let is_free = |address: &SocketAddr| {
        UdpSocket::bind(address).is_ok() && TcpListener::bind(address).is_ok()
    };
    candidates.take(TRIES).find(is_free).ok_or_else(|| io::ErrorKind::AddrInUse.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETUP: Setup<'_> = Setup {
        core: 0,
        upstream: SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9),
        cache_names: 10_000,
        names: &[],
    };

    #[test]
    fn a_process_that_ends_at_its_start_is_an_error_at_once() {
        let start = Instant::now();
        let mut process =
            Process::server("false", Path::new("/bin/false"), &SETUP).expect("starts");
        let error = process.wait_until_it_answers(&[0; 12]).expect_err("cannot answer");
        assert!(error.to_string().contains("false ended at its start"), "{error}");
        assert!(start.elapsed() < START_TIMEOUT);
    }

    #[test]
    fn what_it_said_is_in_the_error_and_its_directory_goes() {
        let directory = TempDir::new().expect("made");
        let path = directory.path().to_owned();
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such setting; exit 3"]);
        let address = free_address().expect("free");
        let mut process =
            Process::start("a server", address, command, 0, Some(directory)).expect("starts");
        let error = process.wait_until_it_answers(&[0; 12]).expect_err("cannot answer");
        assert!(error.to_string().ends_with("it said: no such setting"), "{error}");
        drop(process);
        assert!(!path.exists());
    }

    #[test]
    fn descendants_are_stopped_counted_and_ended_with_it() {
        let mut command = Command::new("sh");
        command.args(["-c", "while :; do :; done & while :; do :; done"]);
        let address = free_address().expect("free");
        let mut process = Process::start("two", address, command, 0, None).expect("starts");
        let group = process.group();
        let deadline = Instant::now() + START_TIMEOUT;
        let wait_until = |what: &str, holds: &dyn Fn() -> bool| {
            while !holds() {
                assert!(Instant::now() < deadline, "{what}");
                thread::sleep(Duration::from_millis(1));
            }
        };
        wait_until("it has a child", &|| group.states().is_ok_and(|states| states.len() == 2));
        let mut companion = Command::new("sleep");
        companion.arg("1000");
        process.add_companion(companion, 0).expect("starts");

        let used_ns = || process.cpu_ns().expect("alive");
        wait_until("it works", &|| used_ns() > 20_000_000);
        process.pause().expect("paused");
        let before_ns = used_ns();
        assert_eq!(group.states().expect("readable"), ['T'; 3]);
        thread::sleep(Duration::from_millis(20));
        assert_eq!(used_ns(), before_ns, "what is stopped uses nothing");
        process.resume().expect("resumed");
        wait_until("it goes on", &|| used_ns() > before_ns);
        assert!(process.resident_bytes().expect("alive") > 100_000);
        drop(process);
        assert!(group.states().expect("readable").iter().all(|&state| state == 'Z'));
    }

    #[test]
    fn a_variant_gets_its_settings_and_says_what_it_complains_of() {
        let script = "#!/bin/sh\necho \"no such setting: $SWIFTLET_BATCH\" >&2\nexit 2\n";
        let directory = TempDir::new().expect("made");
        let program = directory.path().join("server");
        std::fs::write(&program, script).expect("written");
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .expect("executable");
        let settings = [("SWIFTLET_BATCH", "16")];
        let mut process =
            Process::variant("batch-16", &program, &SETUP, &settings).expect("starts");
        let error = process.wait_until_it_answers(&[0; 12]).expect_err("cannot answer");
        assert!(error.to_string().ends_with("it said: no such setting: 16"), "{error}");
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = Process::server("server", Path::new("/nonexistent/server"), &SETUP)
            .expect_err("no such program");
        assert!(error.to_string().contains("/nonexistent/server"), "{error}");
    }

    #[test]
    fn the_server_says_nothing_of_a_good_start() {
        let process = Process::server("yes", Path::new("/usr/bin/yes"), &SETUP);
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
