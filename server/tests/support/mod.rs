//! What the end-to-end tests stand on: the server as a process, its metrics, and packets over sockets.

#![allow(dead_code, unreachable_pub, reason = "each test program uses its own part")]

pub mod allocations;
pub mod inside;
pub mod knot;
pub mod netns;
pub mod upstream;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use ipnet::IpNet;
use swiftlet::cache::{self, Kind};
use swiftlet::flush::Flushes;
use swiftlet::pipeline::Service;
use swiftlet::policy::{Acl, Identity, Policies, special_use};
use swiftlet_parser::key::Seed;

/// Longer than anything here should take; reaching it is a failure.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The variable that says over which backend the tests run; it goes into SWIFTLET_BACKEND of each server.
pub const TEST_BACKEND: &str = "SWIFTLET_TEST_BACKEND";

/// The same for the answer cache, and SWIFTLET_CACHE.
pub const TEST_CACHE: &str = "SWIFTLET_TEST_CACHE";

/// The answer cache that the tests run with.
pub fn test_cache() -> Kind {
    match std::env::var(TEST_CACHE).as_deref() {
        Ok("moka") => Kind::Moka,
        Ok("segmented") | Err(_) => Kind::Segmented,
        Ok(other) => panic!("there is no cache {other}"),
    }
}

/// A running server, ended when dropped.
pub struct Swiftlet {
    pub dns: SocketAddr,
    pub http: SocketAddr,
    child: Child,
    log: Receiver<String>,
    /// The lines that it has logged so far.
    pub logged: Vec<String>,
}

/// The program with a clean environment but for backend and cache, to which settings are added.
pub fn program() -> Command {
    cleaned(Command::new(env!("CARGO_BIN_EXE_swiftlet")))
}

/// A command without the settings that are meant for the tests, or for another server.
pub fn cleaned(mut command: Command) -> Command {
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SWIFTLET_")) {
        command.env_remove(name);
    }
    for (variable, setting) in [(TEST_BACKEND, "SWIFTLET_BACKEND"), (TEST_CACHE, "SWIFTLET_CACHE")]
    {
        if let Ok(value) = std::env::var(variable) {
            command.env(setting, value);
        }
    }
    command
}

/// A port that is free for UDP and TCP on loopback now.
///
/// Not one of those that the kernel gives to sockets without a port of their own: it may give a port that
/// servers share (SO_REUSEPORT) to a client that asks for the same sharing, as dig does, which then talks
/// to itself.
pub fn free_port() -> u16 {
    const BELOW_THE_KERNELS: std::ops::Range<u16> = 10_000..30_000;
    let candidates = std::iter::repeat_with(|| rand::random_range(BELOW_THE_KERNELS));
    let is_free = |&port: &u16| {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        UdpSocket::bind(address).is_ok() && std::net::TcpListener::bind(address).is_ok()
    };
    candidates.take(1000).find(is_free).expect("loopback has a free port")
}

impl Swiftlet {
    /// Starts a server with these settings (names without prefix) on free ports, and waits until it is
    /// ready.
    pub fn start(settings: &[(&str, &str)]) -> Self {
        Self::start_by(program, settings)
    }

    /// The same by a command that runs the program.
    pub fn start_by(program: impl Fn() -> Command, settings: &[(&str, &str)]) -> Self {
        // Between finding a port and using it another test may take it; that is not what is tested.
        for _ in 0..5 {
            if let Ok(server) = Self::try_start(program(), settings) {
                return server;
            }
        }
        let error = Self::try_start(program(), settings).err();
        panic!("the server does not start: {error:?}");
    }

    fn try_start(mut command: Command, settings: &[(&str, &str)]) -> Result<Self, Vec<String>> {
        let dns = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let http = SocketAddr::from(([127, 0, 0, 1], free_port()));
        command.env("SWIFTLET_LISTEN", dns.to_string()).env("SWIFTLET_HTTP", http.to_string());
        // Questions of its own would be counted among those of the tests.
        command.env("SWIFTLET_LOOP_PROBE_S", "0");
        for (name, value) in settings {
            command.env(format!("SWIFTLET_{name}"), value);
        }
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the program can be run");
        let stderr = child.stderr.take().expect("stderr is piped");
        let (lines, log) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if lines.send(line).is_err() {
                    break;
                }
            }
        });
        let mut server = Self { dns, http, child, log, logged: Vec::new() };
        match server.wait_for_log("INFO ready") {
            true => Ok(server),
            false => Err(std::mem::take(&mut server.logged)),
        }
    }

    /// Waits for a line that ends with `text`; false if the program ends first.
    pub fn wait_for_log(&mut self, text: &str) -> bool {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.log.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.logged.push(line.clone());
                    if line.trim_end().ends_with(text) {
                        return true;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => panic!("no log line '{text}': {:?}", self.logged),
            }
        }
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, by its name without SIG.
    pub fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(status.is_ok_and(|status| status.success()), "kill -s {name} {pid}");
    }

    /// Waits for the end and says how it ended and how long that took.
    pub fn wait(&mut self) -> (ExitStatus, Duration) {
        let begun = Instant::now();
        // The log ends when the process does.
        let ended = !self.wait_for_log("\u{0}");
        assert!(ended);
        (self.child.wait().expect("the child can be waited for"), begun.elapsed())
    }

    /// What one path of the HTTP endpoint answers: the status and the body.
    pub fn get(&self, path: &str) -> (u16, String) {
        http_get(self.http, path).expect("the HTTP endpoint answers")
    }

    /// The metrics by name with labels, such as `swiftlet_queries_dropped_total{reason="short"}`.
    pub fn metrics(&self) -> Metrics {
        let (status, text) = self.get("/metrics");
        assert_eq!(status, 200, "{text}");
        Metrics::parse(&text)
    }

    /// Waits until nothing is pending, checks the counter law and returns the metrics.
    pub fn settled(&self) -> Metrics {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let metrics = self.metrics();
            let (received, answered) =
                (metrics.get("queries_received"), metrics.get("queries_answered"));
            let dropped = metrics.sum("queries_dropped");
            if metrics.get("queries_pending") == 0 && received == answered + dropped {
                return metrics;
            }
            assert!(
                Instant::now() < deadline,
                "received {received} = answered {answered} + dropped {dropped} + pending {}",
                metrics.get("queries_pending")
            );
            std::thread::yield_now();
        }
    }
}

impl Drop for Swiftlet {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One GET, over a connection of its own.
pub fn http_get(address: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or((&response, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Ok((status, body.to_owned()))
}

/// A reading of all metrics.
pub struct Metrics(HashMap<String, u64>);

impl Metrics {
    fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let values = lines.filter_map(|line| line.rsplit_once(' '));
        Self(
            values
                .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
                .collect(),
        )
    }

    /// One value; the prefix and a counter's suffix may be left out, labels not.
    pub fn get(&self, name: &str) -> u64 {
        let (bare, labels) = name
            .split_once('{')
            .map_or((name, String::new()), |(bare, rest)| (bare, format!("{{{rest}")));
        let value = ["", "_total"]
            .iter()
            .find_map(|suffix| self.0.get(&format!("swiftlet_{bare}{suffix}{labels}")));
        *value.unwrap_or_else(|| panic!("no metric {name}"))
    }

    /// All values of one family.
    pub fn sum(&self, family: &str) -> u64 {
        let prefix = format!("swiftlet_{family}_total{{");
        self.0.iter().filter(|(name, _)| name.starts_with(&prefix)).map(|(_, value)| value).sum()
    }
}

/// What answering needs, with an empty cache, serving loopback.
pub fn service() -> Service {
    let networks: [IpNet; 1] = ["127.0.0.0/8".parse().expect("a network")];
    Service {
        policies: Policies {
            acl: Acl::new(&networks),
            identity: Identity::new("test", None),
            special_use: special_use::Zones::default(),
        },
        edns: swiftlet::edns::Settings { udp_size: 1232, nsid: None, keepalive_100ms: 100 },
        cache: cache::open(test_cache(), swiftlet_cache::Config::new(1 << 26)),
        flushes: Flushes::default(),
        seed: Seed::new(7),
    }
}

/// A query without EDNS, RD set.
pub fn query(name: &str, rtype: RecordType) -> Message {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    let name = Name::from_ascii(name).expect("a valid name");
    let mut question = Query::query(name, rtype);
    question.set_query_class(DNSClass::IN);
    message.add_query(question);
    message
}

/// A client's socket, which waits for an answer at most `patience`.
pub fn client(server: SocketAddr, patience: Duration) -> UdpSocket {
    let any = match (server.ip().is_loopback(), server.is_ipv4()) {
        (true, true) => "127.0.0.1:0",
        (true, false) => "[::1]:0",
        (false, true) => "0.0.0.0:0",
        (false, false) => "[::]:0",
    };
    let socket = UdpSocket::bind(any).expect("a free port");
    socket.connect(server).expect("loopback is reachable");
    socket.set_read_timeout(Some(patience)).expect("a time-out can be set");
    socket
}

/// Sends a packet and returns the answer, or nothing after `patience`.
pub fn exchange(server: SocketAddr, packet: &[u8], patience: Duration) -> Option<Vec<u8>> {
    let socket = client(server, patience);
    socket.send(packet).expect("loopback takes a packet");
    let mut answer = vec![0; 65_535];
    let len = socket.recv(&mut answer).ok()?;
    answer.truncate(len);
    Some(answer)
}

/// Asks and returns the answer as an independent parser reads it.
pub fn ask(server: SocketAddr, question: &Message) -> Message {
    let packet = question.to_vec().expect("hickory can write its query");
    let answer = exchange(server, &packet, PATIENCE).expect("an answer");
    let answer = Message::from_vec(&answer).expect("an answer that hickory can read");
    assert_eq!(answer.metadata.id, question.metadata.id);
    assert_eq!(answer.metadata.message_type, MessageType::Response);
    answer
}
