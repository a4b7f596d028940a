//! Forwarding loops: two servers that forward to each other, and one that is reached again by another
//! address. Each question ends in time, nothing grows, and the upstream that loops is found and left out.

mod support;

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hickory_proto::op::{Edns, Message, ResponseCode};
use hickory_proto::rr::RecordType;
use support::upstream::Upstream;
use support::{PATIENCE, Swiftlet, ask, free_port, query};

/// Passes datagrams on to a server, and its answers back: another address of the same server.
struct Relay {
    address: SocketAddr,
    passed: Arc<AtomicUsize>,
}

impl Relay {
    fn start(to: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (address, passed) = (socket.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let counter = Arc::clone(&passed);
        std::thread::spawn(move || {
            let mut packet = [0; 4096];
            while let Ok((len, from)) = socket.recv_from(&mut packet) {
                counter.fetch_add(1, Ordering::Relaxed);
                let (query, back) = (packet[..len].to_vec(), socket.try_clone().unwrap());
                std::thread::spawn(move || {
                    let out = support::client(to, PATIENCE);
                    let mut answer = [0; 4096];
                    if out.send(&query).is_ok()
                        && let Ok(len) = out.recv(&mut answer)
                    {
                        let _ = back.send_to(&answer[..len], from);
                    }
                });
            }
        });
        Self { address, passed }
    }
}

fn with_edns(name: &str) -> Message {
    let mut question = query(name, RecordType::A);
    question.edns = Some(Edns::new());
    question
}

/// The code and text of an answer's Extended DNS Error.
fn extended_error(answer: &Message) -> (u16, String) {
    let edns = answer.edns.as_ref().expect("EDNS");
    let (_, option) =
        edns.options().as_ref().iter().find(|(code, _)| u16::from(*code) == 15).expect("EDE");
    let bytes = Vec::<u8>::try_from(option).unwrap();
    let text = String::from_utf8(bytes[2..].to_vec()).unwrap();
    (u16::from_be_bytes([bytes[0], bytes[1]]), text)
}

fn on_loopback(port: u16) -> String {
    SocketAddr::from(([127, 0, 0, 1], port)).to_string()
}

/// Two servers that forward to each other.
fn pair(probe_s: &str) -> (Swiftlet, Swiftlet) {
    let settings = |listen: &str, forward: &str| {
        let settings = [
            ("LISTEN", listen),
            ("FORWARD", forward),
            ("UPSTREAM_TIMEOUT_MS", "600"),
            ("LOOP_PROBE_S", probe_s),
        ];
        settings.map(|(name, value)| (name.to_owned(), value.to_owned()))
    };
    let (a, b) = (on_loopback(free_port()), on_loopback(free_port()));
    let start = |listen: &str, forward: &str| {
        let settings = settings(listen, forward);
        let settings = settings.each_ref().map(|(name, value)| (name.as_str(), value.as_str()));
        let mut server = Swiftlet::start(&settings);
        server.dns = listen.parse().unwrap();
        server
    };
    (start(&a, &b), start(&b, &a))
}

/// What stands at the end of the line that tells of a loop.
const FOUND: &str = "change its configuration or this server's";

#[test]
fn without_probes_a_loop_ends_in_time_and_does_not_grow() {
    let (a, b) = pair("0");
    for number in 0..5 {
        let begun = Instant::now();
        let answer = ask(a.dns, &with_edns(&format!("n{number}.example.")));
        assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
        let (_, text) = extended_error(&answer);
        assert!(!text.is_empty(), "says why");
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    }
    for server in [&a, &b] {
        let metrics = server.settled();
        let asked = metrics.sum("upstream_queries");
        assert!(asked <= 5 * 16, "{asked} upstream queries for 5 questions");
    }
}

/// It is enough that one of them leaves the other out.
#[test]
fn two_servers_that_forward_to_each_other_find_it_and_stop() {
    let (a, b) = pair("1");
    let deadline = Instant::now() + PATIENCE;
    let looping = |server: &Swiftlet| server.metrics().get("upstreams_looping");
    while looping(&a) + looping(&b) == 0 {
        assert!(Instant::now() < deadline, "nobody finds the loop");
    }
    for server in [&a, &b] {
        let begun = Instant::now();
        let answer = ask(server.dns, &with_edns("www.example."));
        assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
        assert!(begun.elapsed() < Duration::from_millis(400), "at once: {:?}", begun.elapsed());
        assert!(!extended_error(&answer).1.is_empty(), "says why");
    }
    let returned = [&a, &b].map(|server| server.settled().get("loop_probes_returned"));
    assert!(returned.iter().sum::<u64>() >= 1);
}

#[test]
fn a_server_that_reaches_itself_by_another_address_goes_on_with_the_others() {
    let good = Upstream::start(|asked| asked.reply(&asked.answer(60)));
    let port = free_port();
    let relay = Relay::start(SocketAddr::from(([127, 0, 0, 1], port)));
    let listen = on_loopback(port);
    let forward = format!("{},{}", relay.address, good.address);
    let zones = format!("corp.example={}", relay.address);
    let mut server = Swiftlet::start(&[
        ("LISTEN", &listen),
        ("FORWARD", &forward),
        ("FORWARD_ZONES", &zones),
        ("UPSTREAM_TIMEOUT_MS", "600"),
        ("LOOP_PROBE_S", "1"),
    ]);
    server.dns = listen.parse().unwrap();
    assert!(server.wait_for_log(FOUND));
    assert!(server.wait_for_log(FOUND));
    let log = server.logged.join("\n");
    assert!(log.contains(&format!("upstream {} forwards all names back", relay.address)), "{log}");
    assert!(log.contains("forwards names below corp.example. back"), "{log}");
    for number in 0..20 {
        let answer = ask(server.dns, &with_edns(&format!("n{number}.example.")));
        assert_eq!(answer.answers.len(), 1);
    }
    let answer = ask(server.dns, &with_edns("www.corp.example."));
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    let text = "every upstream for this name forwards back to this server".into();
    assert_eq!(extended_error(&answer), (0, text));
    let metrics = server.settled();
    assert_eq!(metrics.get("upstreams_looping"), 2);
    assert_eq!(metrics.sum("upstream_failures"), 0, "nobody was asked in vain");
    let probes = metrics.get("loop_probes");
    assert!(relay.passed.load(Ordering::Relaxed) as u64 <= probes, "it gets probes and no more");
}

/// A loop that was mended is used again.
#[test]
fn an_upstream_that_loops_no_more_is_asked_again() {
    let port = free_port();
    let own = SocketAddr::from(([127, 0, 0, 1], port));
    let mended = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let switch = Arc::clone(&mended);
    let upstream = Upstream::start(move |asked| {
        if switch.load(Ordering::Relaxed) {
            return asked.reply(&asked.answer(60));
        }
        let query = asked.message.to_vec().unwrap();
        let (back, from) = (asked.socket.try_clone().unwrap(), asked.from);
        std::thread::spawn(move || {
            if let Some(answer) = support::exchange(own, &query, PATIENCE) {
                let _ = back.send_to(&answer, from);
            }
        });
    });
    let mut server = Swiftlet::start(&[
        ("LISTEN", &own.to_string()),
        ("FORWARD", &upstream.address.to_string()),
        ("LOOP_PROBE_S", "1"),
    ]);
    server.dns = own;
    assert!(server.wait_for_log(FOUND));
    mended.store(true, Ordering::Relaxed);
    assert!(server.wait_for_log("here no more: asked again"));
    assert_eq!(ask(server.dns, &query("www.example.", RecordType::A)).answers.len(), 1);
}
