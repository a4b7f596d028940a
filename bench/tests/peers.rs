//! Every peer that is installed here, over an authority of the load generator's.

use std::path::Path;
use std::time::{Duration, Instant};

use swiftlet_bench::peers::{PEERS, Peer, Role, Setup};
use swiftlet_bench::process::Process;
use swiftlet_loadtest::{
    Authority, Behaviour, Limit, Load, Options, Queries, Report, Transport, Zone, run_with,
};

/// dnsmasq closes a connection after 100.
const PER_CONNECTION: u64 = 100;

const FEW: usize = 200;
const MANY: usize = 10_000;

#[test]
fn unbound() {
    check("unbound");
}

#[test]
fn kresd() {
    check("kresd");
}

#[test]
fn pdns_recursor() {
    check("pdns_recursor");
}

#[test]
fn dnsdist() {
    check("dnsdist");
}

#[test]
fn named() {
    check("named");
}

#[test]
fn dnsmasq() {
    check("dnsmasq");
}

#[test]
fn knotd() {
    check("knotd");
}

#[test]
fn nsd() {
    check("nsd");
}

/// All that a comparison wants of a peer.
fn check(name: &str) {
    let peer = PEERS.iter().find(|peer| peer.name == name).expect("a peer");
    let Some(program) = peer.find() else {
        eprintln!("{name} isn't installed: skipped");
        return;
    };
    let version = peer.version(&program);
    assert!(version.starts_with(|letter: char| letter.is_ascii_digit()), "{version}");

    let zone = Zone { ttl_s: 86_400, ..Zone::default() };
    let behaviour = Behaviour { zone, ..Behaviour::default() };
    let authority =
        Authority::start_with(([127, 0, 0, 1], 0).into(), behaviour).expect("an authority");
    let names: Vec<String> = (0..MANY).map(|number| format!("n{number}.bench.example")).collect();
    let setup = Setup {
        core: swiftlet_net::cores::usable().ids[0],
        upstream: authority.address(),
        // Some keep what came over UDP and over TCP apart; misses are on top.
        cache_names: 4 * MANY,
        names: &names,
    };
    let mut process = peer.start(&program, &setup).expect("starts");
    let few = queries(&names[..FEW]);
    process.wait_until_it_answers(few.get(0)).expect("answers");

    let test = Test { peer, process, authority };
    test.all_are_answered(&few, Transport::Udp, 1, 1);
    test.all_are_answered(&few, Transport::Tcp { per_connection: PER_CONNECTION }, 1, 1);
    let many = queries(&names);
    for transport in [Transport::Udp, Transport::Tcp { per_connection: PER_CONNECTION }] {
        test.warm(&many, transport);
    }
    let asked = test.authority.answered();
    test.all_are_answered(&many, Transport::Udp, 8, 512);
    test.all_are_answered(&many, Transport::Tcp { per_connection: PER_CONNECTION }, 32, 256);
    assert_eq!(test.authority.answered(), asked, "{name} has all names in its cache");
    test.misses_are_answered();
    test.pauses_and_goes_on(&few);
    test.is_accounted(&many);
    test.leaves_nothing_behind();
}

struct Test {
    peer: &'static Peer,
    process: Process,
    authority: Authority,
}

impl Test {
    fn run(
        &self,
        queries: &Queries,
        transport: Transport,
        sockets: usize,
        window: usize,
    ) -> Report {
        let load = Load {
            server: self.process.address,
            queries,
            sockets,
            window,
            limit: Limit::Each,
            timeout: Duration::from_secs(5),
            threads: 1,
            cores: &[],
        };
        let options = Options { transport, ..Options::default() };
        run_with(&load, &options, &mut |_| {}).expect("runs")
    }

    fn all_are_answered(
        &self,
        queries: &Queries,
        transport: Transport,
        sockets: usize,
        window: usize,
    ) {
        let report = self.run(queries, transport, sockets, window);
        let answered = report.rcodes[0];
        assert_eq!(answered, queries.len() as u64, "{} {transport:?}: {report}", self.peer.name);
        assert_eq!((report.content.malformed, report.content.empty), (0, 0), "{report}");
    }

    /// Asks for all until nothing of a pass goes upstream.
    fn warm(&self, queries: &Queries, transport: Transport) {
        for _ in 0..5 {
            let asked = self.authority.answered();
            self.run(queries, transport, 8, 32);
            if self.authority.answered() == asked {
                return;
            }
        }
        panic!("{} does not keep {} names", self.peer.name, queries.len());
    }

    fn misses_are_answered(&self) {
        if self.peer.role == Role::Authoritative {
            return;
        }
        let names: Vec<String> =
            (0..MANY).map(|number| format!("m{number}.miss.example")).collect();
        let asked = self.authority.answered();
        self.all_are_answered(&queries(&names), Transport::Udp, 8, 512);
        let asked = self.authority.answered() - asked;
        assert!(asked >= MANY as u64, "{asked}");
        assert!(asked < MANY as u64 * 11 / 10, "{} asks {asked} times", self.peer.name);
    }

    fn pauses_and_goes_on(&self, queries: &Queries) {
        let ask = |timeout| {
            let load = Load {
                server: self.process.address,
                queries,
                sockets: 1,
                window: FEW,
                limit: Limit::Each,
                timeout,
                threads: 1,
                cores: &[],
            };
            swiftlet_loadtest::run(&load).expect("runs")
        };
        self.process.pause().expect("paused");
        assert_eq!(ask(Duration::from_millis(50)).answered, 0, "{}", self.peer.name);
        self.process.resume().expect("resumed");
        let report = ask(Duration::from_secs(5));
        assert_eq!(report.rcodes[0], FEW as u64, "{}: {report}", self.peer.name);
    }

    fn is_accounted(&self, queries: &Queries) {
        let before_ns = self.process.cpu_ns().expect("alive");
        let start = Instant::now();
        let report = self.run(queries, Transport::Udp, 8, 256);
        let used_ns = self.process.cpu_ns().expect("alive") - before_ns;
        let elapsed_ns = start.elapsed().as_nanos() as u64;
        assert!(used_ns > 500 * report.answered, "{}: {used_ns} ns", self.peer.name);
        assert!(used_ns <= elapsed_ns + 50_000_000, "{}: one core's time", self.peer.name);
        let resident = self.process.resident_bytes().expect("alive");
        assert!((1 << 20..1 << 30).contains(&resident), "{}: {resident} bytes", self.peer.name);
    }

    fn leaves_nothing_behind(self) {
        let Self { peer, process, .. } = self;
        let pid = process.pid();
        let directory = process.directory().expect("a peer has one").to_owned();
        assert!(directory.is_dir());
        drop(process);
        assert!(!directory.exists(), "{}: {}", peer.name, directory.display());
        let group = swiftlet_bench::accounting::Group::of(pid);
        let states = group.states().expect("readable");
        assert!(states.iter().all(|&state| state == 'Z'), "{}: {states:?}", peer.name);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
}

fn queries(names: &[String]) -> Queries {
    Queries::for_names(names.iter().map(String::as_str)).expect("names")
}
