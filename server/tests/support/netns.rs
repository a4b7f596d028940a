//! Network namespaces: real upstreams behind links of their own, which can be cut.
//!
//! A test that needs them runs itself again in fresh namespaces ([`isolated`]) for network and processes:
//! whatever it makes there, links and servers, is gone when it ends, however it ends, and nothing outside
//! sees it. There each upstream gets a namespace, and a link to the one of the test:
//!
//! ```text
//!    the test, the server under test ── up1 10.77.1.1 ── 10.77.1.2 knotd
//!                                    └─ up2 10.77.2.1 ── 10.77.2.2 knotd
//! ```

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use super::knot::Knot;

/// Set for a test that runs in its namespaces.
const INSIDE: &str = "SWIFTLET_TEST_INSIDE";

/// Upstreams of a [`Network`].
const UPSTREAMS: usize = 2;

/// Runs the body of the test of this name in namespaces of its own. Where the system does not allow that
/// the test is skipped, and says so.
pub fn isolated(test: &str, body: impl FnOnce(&mut Network)) {
    in_namespaces(test, false, || body(&mut Network::build()));
}

/// The same without upstreams. A test that is `required` fails where another would be skipped.
pub fn in_namespaces(test: &str, required: bool, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        run(&["ip", "link", "set", "lo", "up"]);
        body();
        return;
    }
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount-proc", "--pid", "--fork", "--kill-child"]);
        if !is_root() {
            command.arg("--map-root-user");
        }
        command
    };
    match unshare().args(["ip", "link", "set", "lo", "up"]).output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            assert!(!required, "network namespaces need root or user namespaces here: {why}");
            eprintln!("skipped: network namespaces need root or user namespaces here: {why}");
            return;
        }
        Err(error) => {
            assert!(!required, "`unshare` of Debian's package util-linux does not run: {error}");
            eprintln!("skipped: `unshare` of Debian's package util-linux does not run: {error}");
            return;
        }
    }
    let program = std::env::current_exe().expect("a test program has a path");
    let output = unshare()
        .arg(program)
        .args(["--exact", test, "--nocapture", "--test-threads", "1"])
        .env(INSIDE, "1")
        .output()
        .expect("`unshare` ran before");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(
        out.contains("1 passed") || !output.status.success(),
        "no test is called {test}: {out}"
    );
    assert!(output.status.success(), "in its namespaces:\n{out}{err}");
    eprint!("{err}");
}

/// What can happen to the way to an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The link is down: there is no route any more.
    Cut,
    /// What the upstream answers gets lost.
    BlackHole,
    /// A router says that the host cannot be reached.
    Unreachable,
    /// A packet filter forbids it, and says so.
    Rejected,
    /// The upstream's process has ended: its port is closed.
    Stopped,
    /// So many of a hundred questions get lost.
    Loss(u8),
}

/// The upstreams and the ways to them.
pub struct Network {
    sites: Vec<Site>,
}

/// One upstream.
struct Site {
    number: usize,
    /// Ends before its namespace, by the order of the fields.
    knot: Option<Knot>,
    namespace: Namespace,
}

/// A network namespace, gone when this is dropped.
pub struct Namespace {
    /// Holds it open; ends when its standard input does.
    holder: Child,
}

impl Network {
    fn build() -> Self {
        Self { sites: (1..=UPSTREAMS).map(Site::build).collect() }
    }

    /// The upstreams' addresses.
    pub fn addresses(&self) -> [SocketAddr; UPSTREAMS] {
        std::array::from_fn(|upstream| self.sites[upstream].address())
    }

    /// The same, as SWIFTLET_FORWARD takes them.
    pub fn forward(&self) -> String {
        self.addresses().map(|address| address.to_string()).join(",")
    }

    /// Lets a fault happen to an upstream, by its place.
    pub fn fail(&mut self, upstream: usize, fault: Fault) {
        let site = &mut self.sites[upstream];
        match fault {
            Fault::Cut => run(&["ip", "link", "set", &site.link(), "down"]),
            Fault::BlackHole => site.run(&["ip", "route", "add", "blackhole", &site.near()]),
            Fault::Unreachable => run(&["ip", "route", "add", "unreachable", &site.far()]),
            Fault::Rejected => site.filter("reject with icmp type admin-prohibited"),
            Fault::Stopped => site.knot = None,
            Fault::Loss(percent) => site.filter(&format!("numgen random mod 100 < {percent} drop")),
        }
    }

    /// Mends what [`fail`](Self::fail) did.
    pub fn mend(&mut self, upstream: usize, fault: Fault) {
        let site = &mut self.sites[upstream];
        match fault {
            Fault::Cut => run(&["ip", "link", "set", &site.link(), "up"]),
            Fault::BlackHole => site.run(&["ip", "route", "del", "blackhole", &site.near()]),
            Fault::Unreachable => run(&["ip", "route", "del", "unreachable", &site.far()]),
            Fault::Rejected | Fault::Loss(_) => site.run(&["nft", "delete table ip fault"]),
            Fault::Stopped => site.start(),
        }
    }
}

impl Site {
    fn build(number: usize) -> Self {
        let mut site = Self { number, knot: None, namespace: Namespace::new() };
        let (link, pid) = (site.link(), site.namespace.pid().to_string());
        run(&["ip", "link", "add", &link, "type", "veth", "peer", "eth0", "netns", &pid]);
        run(&["ip", "address", "add", &format!("{}/24", site.near()), "dev", &link]);
        run(&["ip", "link", "set", &link, "up"]);
        site.run(&["ip", "address", "add", &format!("{}/24", site.far()), "dev", "eth0"]);
        site.run(&["ip", "link", "set", "eth0", "up"]);
        site.start();
        site
    }

    fn start(&mut self) {
        let knotd = self.namespace.command("knotd");
        self.knot = Some(Knot::start_by(knotd, self.address()));
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from(([10, 77, self.number as u8, 2], 53))
    }

    /// The link's name at the near end.
    fn link(&self) -> String {
        format!("up{}", self.number)
    }

    /// The addresses of the two ends.
    fn near(&self) -> String {
        format!("10.77.{}.1", self.number)
    }

    fn far(&self) -> String {
        format!("10.77.{}.2", self.number)
    }

    /// What becomes of the questions that come in at the upstream.
    fn filter(&self, verdict: &str) {
        self.run(&["nft", "add table ip fault"]);
        self.run(&["nft", "add chain ip fault in { type filter hook input priority 0; }"]);
        self.run(&["nft", &format!("add rule ip fault in {verdict}")]);
    }

    fn run(&self, command: &[&str]) {
        self.namespace.run(command);
    }
}

impl Namespace {
    /// Makes one, with its loopback up.
    pub fn new() -> Self {
        let holder = Command::new("unshare")
            .args(["--net", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("`unshare` ran before");
        let namespace = Self { holder };
        namespace.wait();
        namespace.run(&["ip", "link", "set", "lo", "up"]);
        namespace
    }

    /// The process that holds it open; by this `ip` finds it.
    pub fn pid(&self) -> u32 {
        self.holder.id()
    }

    /// A command that runs inside.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &self.pid().to_string(), "--", program]);
        command
    }

    /// Runs a command inside, which must succeed.
    pub fn run(&self, command: &[&str]) {
        let mut inside = self.command(command[0]);
        inside.args(&command[1..]);
        finish(inside);
    }

    /// Waits until the holder has left our namespace.
    fn wait(&self) {
        let of = |who: &str| std::fs::read_link(format!("/proc/{who}/ns/net")).ok();
        let (ours, deadline) = (of("self"), std::time::Instant::now() + super::PATIENCE);
        loop {
            let theirs = of(&self.pid().to_string());
            if theirs.is_some() && theirs != ours {
                return;
            }
            assert!(std::time::Instant::now() < deadline, "`unshare` makes no namespace");
            std::thread::yield_now();
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Runs a command in the test's own namespace, which must succeed.
pub fn run(command: &[&str]) {
    let mut program = Command::new(command[0]);
    program.args(&command[1..]);
    finish(program);
}

fn finish(mut command: Command) {
    let output = command.output().expect("`make test` installs what the tests run");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
}

/// Whether the test runs as root.
pub fn is_root() -> bool {
    // The owner of a process's own directory is its effective user.
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}
