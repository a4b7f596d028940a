//! The program under test, and servers for it.

#![allow(dead_code, reason = "each test program uses a part of this")]

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Far longer than anything takes here.
const PATIENCE: Duration = Duration::from_secs(20);

/// A run of the program to its end.
pub(crate) struct Run {
    /// Its exit status.
    pub(crate) status: Option<i32>,
    /// What it wrote.
    pub(crate) stdout: String,
    /// What it complained about.
    pub(crate) stderr: String,
}

/// The program with these arguments.
pub(crate) fn program(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_swiftlet-loadtest"));
    command.args(args);
    command
}

/// Runs it to its end.
pub(crate) fn run(args: &[&str]) -> Run {
    let output = program(args).stdin(Stdio::null()).output().expect("the program starts");
    Run::from(output)
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        Self {
            status: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

/// A process that ends with the test.
pub(crate) struct Ended(pub(crate) Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running `authority`.
pub(crate) struct Authority {
    child: Ended,
    stdout: BufReader<ChildStdout>,
}

impl Authority {
    /// Ends it as Ctrl-C does, and returns how many queries it says to have answered.
    pub(crate) fn end(mut self) -> u64 {
        interrupt(&self.child.0);
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("a line");
        line.trim().strip_prefix("answered ").and_then(|n| n.parse().ok()).expect("a number")
    }
}

/// Sends SIGINT.
pub(crate) fn interrupt(child: &Child) {
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(killed.expect("kill runs").success());
}

/// Starts `authority` on a free port with further arguments; returns its address too.
pub(crate) fn authority(args: &[&str]) -> (Authority, String) {
    let mut command = program(&["authority", "--listen", "127.0.0.1:0"]);
    let mut child = command.args(args).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
    stdout.read_line(&mut line).expect("a line");
    let address = line.trim().strip_prefix("answering on ").expect("the address").to_owned();
    (Authority { child: Ended(child), stdout }, address)
}

/// knotd with 1000 names `n0.many.example` and so on.
pub(crate) struct Knot {
    /// Where it answers.
    pub(crate) address: SocketAddr,
    /// The process.
    pub(crate) child: Ended,
    _home: TempDir,
}

impl Knot {
    /// Starts it and waits until it answers.
    pub(crate) fn start() -> Self {
        let address = free_address();
        let home = tempfile::tempdir().expect("a temporary directory");
        let path = home.path().display();
        let config = format!(
            "server:\n    listen: {}@{}\n    rundir: {path}\n    udp-workers: 1\n    tcp-workers: 1\n\
             database:\n    storage: {path}\nlog:\n  - target: stderr\n    any: error\n\
             zone:\n  - domain: example\n    file: {path}/zone\n",
            address.ip(),
            address.port()
        );
        let mut zone = String::from(
            "$ORIGIN example.\n$TTL 60\n@ SOA ns hostmaster 1 3600 600 86400 300\n@ NS ns\nns A 192.0.2.53\n",
        );
        for name in 0..1000 {
            zone += &format!("n{name}.many A 10.0.{}.{}\n", name / 256, name % 256);
        }
        std::fs::write(home.path().join("knot.conf"), config).expect("written");
        std::fs::write(home.path().join("zone"), zone).expect("written");
        let child = Command::new("knotd")
            .arg("-c")
            .arg(home.path().join("knot.conf"))
            .stdout(Stdio::null())
            .spawn()
            .expect("knotd runs: `make test` installs Debian's package knot");
        let knot = Self { address, child: Ended(child), _home: home };
        let probe = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        probe.set_read_timeout(Some(Duration::from_millis(50))).expect("a positive time");
        let query = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x02ns\x07example\0\0\x01\0\x01";
        let deadline = Instant::now() + PATIENCE;
        let mut buf = [0; 512];
        loop {
            let _ = probe.send_to(query, address);
            if probe.recv(&mut buf).is_ok_and(|len| len > query.len()) {
                return knot;
            }
            assert!(Instant::now() < deadline, "knotd does not answer on {address}");
        }
    }
}

/// An address on which nobody listens. Not on a port that the kernel gives to sockets without one of their
/// own: it may give one that servers share (SO_REUSEPORT) to a client that asks for the same sharing.
pub(crate) fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let of_process = std::process::id() as u16 % 16;
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed) % 1000;
        let address = SocketAddr::from(([127, 0, 0, 1], 10_000 + of_process * 1000 + number));
        if UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
}
