//! More queries than can be answered: every frame is accounted for.

use std::io::Write;
use std::process::{Child, Stdio};

use tempfile::NamedTempFile;

use crate::rig::{
    Account, INTERFACE, Rig, V4, V6, account, is_filtered, until, with_link, with_link_alone,
    with_queues,
};
use crate::support::Swiftlet;

/// Names that are asked for.
pub(crate) fn names() -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a file");
    for number in 0..100 {
        writeln!(file, "n{number}.example A").expect("room");
    }
    file
}

/// dnsperf at the far end, which asks over IPv4 from sockets.
pub(crate) struct Clients {
    dnsperf: Child,
    _names: NamedTempFile,
}

impl Clients {
    pub(crate) fn start(rig: &Rig) -> Self {
        let names = names();
        let mut dnsperf = rig.far.command("dnsperf");
        // Longer than any test; what is lost is given up after a second.
        dnsperf.args(["-s", V4, "-l", "3600", "-t", "1", "-Q", "5000", "-d"]).arg(names.path());
        let dnsperf = dnsperf.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Self { dnsperf: dnsperf.expect("`make test` installs dnsperf"), _names: names }
    }

    /// Ends it, which must not have ended by itself.
    pub(crate) fn end(mut self) {
        let ended = self.dnsperf.try_wait().expect("the child can be waited for");
        assert!(ended.is_none(), "dnsperf gave up: {ended:?}");
        self.dnsperf.kill().and_then(|()| self.dnsperf.wait()).expect("it runs");
    }
}

/// Waits until so many more queries were answered in their frames.
pub(crate) fn until_answered(server: &Swiftlet, more: u64) {
    let answered = || server.metrics().sum("xdp_answered");
    let before = answered();
    until("answers under load", || answered() >= before + more);
}

/// kxdpgun at the far end, which sends frames of its own making through AF_XDP.
struct Gun(Child);

impl Gun {
    fn start(rig: &Rig, names: &NamedTempFile, rate: u32, seconds: u32, target: &str) -> Self {
        // It asks the kernel for the neighbour's MAC, which must be known.
        rig.ping(target);
        let mut kxdpgun = rig.far.command("kxdpgun");
        kxdpgun
            .args(["-t", &seconds.to_string(), "-Q", &rate.to_string(), "-i"])
            .arg(names.path())
            .arg(target);
        let child = kxdpgun.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        Self(child.expect("`make test` installs kxdpgun"))
    }

    /// Queries sent and replies seen, when it has ended.
    fn finish(self) -> (u64, u64) {
        let output = self.0.wait_with_output().expect("the child can be waited for");
        let [out, err] = [output.stdout, output.stderr]
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        assert!(output.status.success(), "{out}{err}");
        let count = |name: &str| -> u64 {
            let line = out.lines().find(|line| line.starts_with(name));
            let digits = line.and_then(|line| line[name.len()..].split_whitespace().next());
            digits
                .and_then(|digits| digits.parse().ok())
                .unwrap_or_else(|| panic!("{name} {out}{err}"))
        };
        (count("total queries:"), count("total replies:"))
    }
}

/// Frames redirected are those received and those the kernel dropped, beyond what can be answered too;
/// and what was received was answered or dropped for a reason.
#[test]
fn every_frame_of_an_overload_is_accounted_for() {
    with_link_alone("load::every_frame_of_an_overload_is_accounted_for", |rig| {
        let server = rig.serve(&[]);
        let names = names();
        for (target, rate) in [(V4, 20_000), (V4, 1_000_000), (V6, 1_000_000)] {
            let before = account(&server);
            let (sent, replies) = Gun::start(rig, &names, rate, 1, target).finish();
            let after = account(&server);
            let redirected = after.redirected - before.redirected;
            let answered = |account: &Account| account.metrics.get("queries_answered");
            let answered = answered(&after) - answered(&before);
            let told = format!(
                "{sent} sent, {redirected} redirected, {answered} answered, {replies} seen"
            );
            assert!(redirected <= sent && answered <= redirected && replies <= answered, "{told}");
            assert!(replies > 0, "{told}");
            eprintln!("{target} at {rate}/s: {told}");
        }
        rig.ask(V4, "n1.example");
        rig.ask(V6, "n1.example");
    });
}

/// The one after it takes over the queue, and answers go on.
#[test]
fn a_server_may_be_restarted_under_load() {
    with_link("load::a_server_may_be_restarted_under_load", |rig| {
        let names = names();
        let mut server = rig.serve(&[]);
        let mut gun = Gun::start(rig, &names, 20_000, 60, V4);
        until_answered(&server, 1000);
        server.signal("TERM");
        assert_eq!(server.wait().0.code(), Some(0));
        assert!(!is_filtered(INTERFACE));
        let server = rig.serve(&[]);
        until_answered(&server, 1000);
        let ended = gun.0.try_wait().expect("the child can be waited for");
        assert!(ended.is_none(), "kxdpgun gave up: {ended:?}");
        gun.0.kill().and_then(|()| gun.0.wait()).expect("it still runs");
        account(&server);
    });
}

/// dnsperf is answered everything it asks.
#[test]
fn sockets_at_the_far_end_miss_nothing() {
    with_link("load::sockets_at_the_far_end_miss_nothing", |rig| {
        let server = rig.serve(&[]);
        let names = names();
        for target in [V4, V6] {
            let path = names.path().display();
            let said = rig.output(&format!("dnsperf -s {target} -d {path} -c 20 -n 100 -q 50 -W"));
            assert!(said.contains("Queries completed:    10000 (100.00%)"), "{said}");
        }
        let account = account(&server);
        assert!(account.received >= 20_000 && account.answered >= 19_000, "{}", account.answered);
    });
}

/// Queues that were not asked for are the kernel's.
#[test]
fn a_queue_that_was_not_taken_is_served_by_sockets() {
    with_queues("load::a_queue_that_was_not_taken_is_served_by_sockets", 2, |rig| {
        let server = rig.serve(&[("XDP_QUEUES", "1")]);
        let line = format!("{INTERFACE} (native, copy; queue 1)");
        assert!(server.logged.iter().any(|logged| logged.contains(&line)), "{:?}", server.logged);
        let names = names();
        // Many ports, which the link spreads over its queues.
        let path = names.path().display();
        let line = format!("dnsperf -s {V4} -d {path} -c 50 -n 20 -q 50 -W");
        let said = rig.output(&line);
        assert!(said.contains("Queries completed:    2000 (100.00%)"), "{said}");
        let account = account(&server);
        let unserved = account.metrics.get(&format!("xdp_unserved{{interface=\"{INTERFACE}\"}}"));
        assert!(account.received > 100 && unserved > 100, "{} {unserved}", account.received);
        let queue = format!("xdp_received{{interface=\"{INTERFACE}\",queue=\"1\"}}");
        assert_eq!(account.metrics.get(&queue), account.received);
    });
}

/// A worker that looks at its queues all the time leaves time for misses and TCP, and loses no frame.
#[test]
fn a_busy_worker_answers_whatever_way_a_query_comes() {
    with_link("load::a_busy_worker_answers_whatever_way_a_query_comes", |rig| {
        if !swiftlet_net::cores::usable().pin {
            eprintln!("skipped: workers cannot be pinned here");
            return;
        }
        let server = rig.serve(&[("WORKERS", "1"), ("BUSY_POLL_US", "1000")]);
        let line = "busy polling: workers look for 1000 µs before they sleep";
        assert!(server.logged.iter().any(|logged| logged.contains(line)), "{:?}", server.logged);
        let names = names();
        let path = names.path().display();
        let line = format!("dnsperf -s {V4} -d {path} -c 20 -n 20 -q 50 -W");
        let said = rig.output(&line);
        assert!(said.contains("Queries completed:    2000 (100.00%)"), "{said}");
        assert_eq!(rig.dig(V4, "+tcp +short tcp.example A"), "192.0.2.1\n");
        let account = account(&server);
        assert!(account.received >= 2000 && account.answered >= 1000, "{}", account.answered);
    });
}
