//! The link that the tests stand on:
//!
//! ```text
//!    the test, the server ── swp0 10.78.0.1 fd78::1 ═══ 10.78.0.2 fd78::2 eth0 ── clients
//! ```

use std::process::{Command, Output};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use hickory_proto::rr::rdata::TXT;
use hickory_proto::rr::{RData, Record};
use nix::libc::AF_XDP;
use socket2::{Domain, Socket, Type};

use crate::support::netns::{self, Namespace, in_namespaces, is_root};
use crate::support::upstream::{Asked, Upstream, name_of};
use crate::support::{Metrics, PATIENCE, Swiftlet, cleaned, program};

/// The near end.
pub(crate) const INTERFACE: &str = "swp0";
pub(crate) const V4: &str = "10.78.0.1";
pub(crate) const V6: &str = "fd78::1";
pub(crate) const LINK_LOCAL: &str = "fe80::1";

/// The settings of a server on both addresses.
const LISTEN: (&str, &str) = ("LISTEN", "10.78.0.1:53,[fd78::1]:53");
const OVER_AF_XDP: [(&str, &str); 3] = [LISTEN, ("BACKEND", "af-xdp"), ("XDP_FALLBACK", "false")];

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// The MACs of both ends.
pub(crate) const NEAR_MAC: [u8; 6] = [2, 0, 0, 0, 0x78, 1];
pub(crate) const FAR_MAC: [u8; 6] = [2, 0, 0, 0, 0x78, 2];

/// A link with an upstream at the near end.
pub(crate) struct Rig {
    pub(crate) far: Namespace,
    upstream: Upstream,
}

/// Held by the tests that expect every answer, and for itself by one that leaves no time for others.
static CORES: RwLock<()> = RwLock::new(());

/// Runs the body of the test of this name with a link of its own, as root. Where AF_XDP is refused the
/// test is skipped, or fails if SWIFTLET_REQUIRE_AF_XDP is 1.
pub(crate) fn with_link(test: &str, body: impl FnOnce(&Rig)) {
    with_queues(test, 1, body);
}

/// The same over a link whose ends have so many queues.
pub(crate) fn with_queues(test: &str, queues: usize, body: impl FnOnce(&Rig)) {
    let _beside_others = CORES.read().unwrap_or_else(PoisonError::into_inner);
    run_test(test, || body(&Rig::build(queues)));
}

/// The same with one queue while none of the other tests runs, for one that sends all it can.
pub(crate) fn with_link_alone(test: &str, body: impl FnOnce(&Rig)) {
    let _alone = CORES.write().unwrap_or_else(PoisonError::into_inner);
    run_test(test, || body(&Rig::build(1)));
}

fn run_test(test: &str, body: impl FnOnce()) {
    let required = std::env::var("SWIFTLET_REQUIRE_AF_XDP").is_ok_and(|value| value == "1");
    if let Some(why) = refusal() {
        assert!(!required, "{why}");
        eprintln!("skipped: {why}");
        return;
    }
    in_namespaces(test, required, body);
}

/// Why the server would be refused AF_XDP whatever its settings, if it would.
fn refusal() -> Option<String> {
    if !is_root() {
        return Some("AF_XDP needs root here".into());
    }
    if let Err(error) = Socket::new(Domain::from(AF_XDP), Type::RAW, None) {
        return Some(format!(
            "this kernel or container has no AF_XDP (CONFIG_XDP_SOCKETS): {error}"
        ));
    }
    // It asks for the programs there are.
    let output = Command::new("bpftool").args(["prog", "show"]).output();
    let output = output.expect("`make test` installs bpftool");
    let why = String::from_utf8_lossy(&output.stderr);
    (!output.status.success()).then(|| format!("bpf(2) is refused: {}", why.trim()))
}

/// A right answer to everything; to names that begin with `big`, one of more than 1,000 bytes.
fn answer(asked: Asked<'_>) {
    let mut answer = asked.answer(300);
    if name_of(&asked.message).starts_with("big") {
        let record = answer.answers.remove(0);
        let texts = (0..5).map(|number| TXT::new(vec![number.to_string().repeat(200)]));
        answer.add_answers(
            texts.map(|text| Record::from_rdata(record.name.clone(), record.ttl, RData::TXT(text))),
        );
    }
    asked.reply(&answer);
}

impl Rig {
    fn build(queues: usize) -> Self {
        let rig = Self { far: Namespace::new(), upstream: Upstream::start(answer) };
        rig.add_link(INTERFACE, "eth0", 0, queues);
        rig
    }

    /// Another pair, of the networks 10.78.`number` and fd78:`number`.
    pub(crate) fn add_link(&self, near: &str, far: &str, number: u8, queues: usize) {
        let (pid, [near_mac, far_mac]) = (
            self.far.pid(),
            [NEAR_MAC, FAR_MAC].map(|mut mac| {
                mac[3] = number;
                mac.map(|byte| format!("{byte:02x}")).join(":")
            }),
        );
        let queues = format!("numrxqueues {queues} numtxqueues {queues}");
        run(&format!(
            "ip link add {near} address {near_mac} {queues} type veth \
             peer name {far} address {far_mac} {queues} netns {pid}"
        ));
        let v6 = if number == 0 { "fd78::".into() } else { format!("fd78:{number}::") };
        for (name, last, run) in
            [(near, 1, &run as &dyn Fn(&str)), (far, 2, &|line| self.run(line))]
        {
            run(&format!("ip address add 10.78.{number}.{last}/24 dev {name}"));
            // IPv6 addresses are there at once if nobody looks whether others have them.
            run(&format!("ip link set {name} addrgenmode none"));
            for v6 in [&*v6, "fe80::"] {
                run(&format!("ip address add {v6}{last}/64 dev {name} nodad"));
            }
            run(&format!("ip link set {name} up"));
        }
    }

    /// A VLAN of this number on both ends, 10.78.`number`; false if the kernel knows none.
    pub(crate) fn add_vlan(&self, number: u8) -> bool {
        let add = |lower: &str| {
            format!("link add link {lower} name {lower}.{number} type vlan id {number}")
        };
        let near = Command::new("ip").args(add(INTERFACE).split(' ')).output().expect("ip runs");
        if String::from_utf8_lossy(&near.stderr).contains("Unknown device type") {
            return false;
        }
        self.run(&format!("ip {}", add("eth0")));
        for (lower, last, run) in
            [(INTERFACE, 1, &run as &dyn Fn(&str)), ("eth0", 2, &|line| self.run(line))]
        {
            run(&format!("ip address add 10.78.{number}.{last}/24 dev {lower}.{number}"));
            run(&format!("ip link set {lower}.{number} up"));
        }
        true
    }

    /// Starts the server on both addresses over AF_XDP, without a way out.
    pub(crate) fn serve(&self, settings: &[(&str, &str)]) -> Swiftlet {
        self.serve_by(program, settings)
    }

    /// The same by a command that runs the program.
    pub(crate) fn serve_by(
        &self,
        program: impl Fn() -> Command,
        settings: &[(&str, &str)],
    ) -> Swiftlet {
        let settings = [&OVER_AF_XDP, settings].concat();
        Swiftlet::start_by(|| self.configured(program()), &settings)
    }

    /// Starts the server on the same addresses over sockets.
    pub(crate) fn serve_over_sockets(&self) -> Swiftlet {
        Swiftlet::start_by(|| self.configured(program()), &[LISTEN, ("BACKEND", "epoll")])
    }

    /// What a server over AF_XDP says that does not start.
    pub(crate) fn refusal(&self, program: Command, settings: &[(&str, &str)]) -> String {
        let mut program = self.configured(program);
        program.env("SWIFTLET_HTTP", "off");
        for (name, value) in [&OVER_AF_XDP, settings].concat() {
            program.env(format!("SWIFTLET_{name}"), value);
        }
        let output = program.output().expect("the program can be run");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{error}");
        error
    }

    fn configured(&self, mut program: Command) -> Command {
        program.env("SWIFTLET_FORWARD", self.upstream.address.to_string());
        program
    }

    /// Runs a command line at the far end, which must succeed.
    pub(crate) fn run(&self, line: &str) {
        self.far.run(&line.split_whitespace().collect::<Vec<_>>());
    }

    /// What a command line at the far end writes; it must succeed.
    pub(crate) fn output(&self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut command = self.far.command(words[0]);
        command.args(&words[1..]);
        text(command.output(), line)
    }

    /// What dig makes of a question for this name, asked once.
    pub(crate) fn dig(&self, server: &str, options: &str) -> String {
        self.output(&format!("dig @{server} +tries=1 +time=10 {options}"))
    }

    /// Asks for an A record, which must come.
    pub(crate) fn ask(&self, server: &str, name: &str) {
        assert_eq!(self.dig(server, &format!("+short {name} A")), "192.0.2.1\n", "{server} {name}");
    }

    /// Asks until the answer comes.
    pub(crate) fn ask_until_answered(&self, server: &str, name: &str) {
        let mut dig = self.far.command("dig");
        dig.args([&format!("@{server}"), "+tries=1", "+time=1", "+short", name, "A"]);
        until(&format!("an answer of {server}"), || {
            dig.output().is_ok_and(|output| output.stdout == b"192.0.2.1\n")
        });
    }

    /// Sends packets that must come back.
    pub(crate) fn ping(&self, address: &str) {
        self.run(&format!("ping -n -c 2 -i 0.05 -W 10 {address}"));
    }
}

/// What the tests read of the filter, the queues and the server, by the law that binds them.
pub(crate) struct Account {
    pub(crate) metrics: Metrics,
    pub(crate) redirected: u64,
    pub(crate) passed: u64,
    pub(crate) received: u64,
    pub(crate) answered: u64,
    pub(crate) dropped: u64,
}

/// Waits until nothing is on its way: everything redirected was received or dropped by the kernel, and
/// everything received answered or dropped for a reason.
pub(crate) fn account(server: &Swiftlet) -> Account {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let metrics = server.settled();
        let [redirected, passed, received, answered, dropped] =
            ["redirected", "passed", "received", "answered", "dropped"]
                .map(|name| metrics.sum(&format!("xdp_{name}")));
        assert_eq!(metrics.sum("xdp_invalid_descriptors"), 0);
        assert!(metrics.get("queries_received") >= received);
        if redirected == received + dropped {
            return Account { metrics, redirected, passed, received, answered, dropped };
        }
        let said = format!("redirected {redirected} = received {received} + dropped {dropped}");
        assert!(Instant::now() < deadline, "{said}");
        std::thread::sleep(LOOK);
    }
}

/// Waits for a condition.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(LOOK);
    }
}

/// Whether a filter is on this interface of the near end.
pub(crate) fn is_filtered(interface: &str) -> bool {
    let line = format!("ip -d link show dev {interface}");
    output(&line).contains("prog/xdp")
}

/// Runs a command line at the near end, which must succeed.
pub(crate) fn run(line: &str) {
    netns::run(&line.split_whitespace().collect::<Vec<_>>());
}

/// What a command line at the near end writes; it must succeed.
pub(crate) fn output(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    text(Command::new(words[0]).args(&words[1..]).output(), line)
}

fn text(output: std::io::Result<Output>, line: &str) -> String {
    let output = output.unwrap_or_else(|error| panic!("{line}: {error}"));
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    assert!(output.status.success(), "{line}: {out}{err}");
    out.into_owned()
}

/// The program, run by another that takes something away from it.
pub(crate) fn run_by(line: &str) -> Command {
    let words: Vec<&str> = line.split_whitespace().collect();
    let mut command = cleaned(Command::new(words[0]));
    command.args(&words[1..]).arg(env!("CARGO_BIN_EXE_swiftlet"));
    command
}
