//! Everything at once: what happens at the bounds, and that nothing is left behind after it.

mod support;

use std::collections::HashMap;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use support::knot::Knot;
use support::upstream::{Upstream, failure, silent};
use support::{PATIENCE, Swiftlet, ask, client, exchange, free_port, query};
use swiftlet_net::socket::{drops, open_listener};

/// What a server holds, to be compared before and after.
#[derive(Debug)]
struct Holdings {
    files: usize,
    resident_kib: u64,
}

impl Holdings {
    fn of(server: &Swiftlet) -> Self {
        let process = format!("/proc/{}", server.pid());
        let files = std::fs::read_dir(format!("{process}/fd")).unwrap().count();
        let status = std::fs::read_to_string(format!("{process}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        let resident_kib = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        Self { files, resident_kib }
    }
}

/// Waits until the server holds no more than before, but for memory that its allocator keeps.
fn back_at(before: &Holdings, server: &Swiftlet) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = Holdings::of(server);
        if now.files <= before.files && now.resident_kib < before.resident_kib + 128 * 1024 {
            return;
        }
        assert!(Instant::now() < deadline, "{before:?} before, {now:?} after");
        std::thread::yield_now();
    }
}

fn over(upstream: SocketAddr, settings: &[(&str, &str)]) -> Swiftlet {
    let forward = upstream.to_string();
    // Failures are remembered in the cache, whose memory is not what is looked for here.
    let mut all = vec![("FORWARD", forward.as_str()), ("CACHE_SIZE", "64M")];
    all.extend_from_slice(settings);
    let server = Swiftlet::start(&all);
    // What is opened and allocated at the first use is there then.
    ask(server.dns, &query("localhost.", RecordType::A));
    server.settled();
    server
}

/// Sends `count` queries from one socket as fast as it can and collects the answers' codes until as
/// many have come as the server received.
fn storm(server: &Swiftlet, count: usize, packet: impl Fn(usize) -> Vec<u8>) -> HashMap<u8, usize> {
    let before = server.metrics().get("queries_received");
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let (socket, _) = open_listener(any, Some(256 << 20), None).unwrap();
    let socket = UdpSocket::from(socket);
    socket.connect(server.dns).unwrap();
    let mut codes: HashMap<u8, usize> = HashMap::new();
    let mut answer = [0; 4096];
    let mut collect = |codes: &mut HashMap<u8, usize>| {
        while let Ok(len) = socket.recv(&mut answer) {
            assert!(len >= 12);
            *codes.entry(answer[3] & 15).or_default() += 1;
        }
    };
    for number in 0..count {
        while socket.send(&packet(number)).is_err() {
            collect(&mut codes);
        }
        if number.is_multiple_of(64) {
            collect(&mut codes);
        }
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        collect(&mut codes);
        let metrics = server.metrics();
        let arrived = metrics.get("queries_received") - before;
        // What this process was too slow to take has left the server all the same.
        let lost = drops(&socket).unwrap_or(0) as usize;
        let answered = codes.values().sum::<usize>() + lost;
        let all_came = arrived + metrics.sum("kernel_dropped") == count as u64;
        if all_came && metrics.get("queries_pending") == 0 && answered as u64 >= arrived {
            return codes;
        }
        assert!(Instant::now() < deadline, "{answered} answers of {arrived} of {count}");
    }
}

fn numbered(id: usize, name: &str) -> Vec<u8> {
    let mut message = query(name, RecordType::A);
    message.metadata.id = id as u16;
    message.to_vec().unwrap()
}

const NOERROR: u8 = 0;
const SERVFAIL: u8 = 2;

#[test]
fn fifty_thousand_identical_misses_are_one_question() {
    let go = Arc::new(AtomicBool::new(false));
    let gate = Arc::clone(&go);
    let upstream = Upstream::start(move |asked| {
        while !gate.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        asked.reply(&asked.answer(3600));
    });
    let settings =
        [("RECV_BUFFER", "256M"), ("CLIENT_MISSES", "1000000"), ("UPSTREAM_TIMEOUT_MS", "20000")];
    let server = over(upstream.address, &settings);
    let before = Holdings::of(&server);
    let opener = {
        let (server, go) = (server.http, Arc::clone(&go));
        std::thread::spawn(move || {
            let deadline = Instant::now() + PATIENCE;
            loop {
                // As many wait as may, and the rest has been turned away: now the answer may come.
                let (_, text) = support::http_get(server, "/metrics").unwrap();
                let turned_away = "swiftlet_overload_total{limit=\"waiters\"} 0";
                if !text.contains(turned_away) || Instant::now() > deadline {
                    return go.store(true, Ordering::Release);
                }
            }
        })
    };
    let codes = storm(&server, 50_000, |number| numbered(number, "popular.example."));
    opener.join().unwrap();
    assert_eq!(upstream.asked(), 1, "{codes:?}");
    assert!(codes[&NOERROR] >= 1024, "{codes:?}");
    server.settled();
    back_at(&before, &server);
}

#[test]
fn fifty_thousand_different_misses_are_answered_or_turned_away() {
    let (_socket, address) = silent();
    let settings =
        [("RECV_BUFFER", "256M"), ("CLIENT_MISSES", "1000000"), ("UPSTREAM_TIMEOUT_MS", "1000")];
    let server = over(address, &settings);
    let before = Holdings::of(&server);
    let codes = storm(&server, 50_000, |number| numbered(number, &format!("n{number}.example.")));
    assert_eq!(codes.keys().collect::<Vec<_>>(), [&SERVFAIL]);
    let metrics = server.settled();
    assert!(metrics.get("overload{limit=\"flights\"}") > 0, "more than may be in flight");
    back_at(&before, &server);
}

#[test]
fn a_hundred_thousand_failures_leave_nothing_behind() {
    let upstream = Upstream::start(|asked| {
        asked.reply(&failure(&asked.message, ResponseCode::ServFail));
    });
    let server = over(upstream.address, &[("CLIENT_MISSES", "1000000")]);
    let before = Holdings::of(&server);
    let socket = client(server.dns, PATIENCE);
    const WINDOW: usize = 200;
    let send =
        |number: usize| socket.send(&numbered(number, &format!("n{number}.example."))).unwrap();
    (0..WINDOW).for_each(|number| {
        send(number);
    });
    let mut answer = [0; 512];
    for number in 0..100_000 {
        if let Err(error) = socket.recv(&mut answer) {
            panic!("failure {number} is not told: {error}; {:?}", server.get("/metrics"));
        }
        assert_eq!(answer[3] & 15, SERVFAIL);
        if number + WINDOW < 100_000 {
            send(number + WINDOW);
        }
    }
    let metrics = server.settled();
    assert_eq!(metrics.get("answers{rcode=\"SERVFAIL\"}"), 100_000);
    back_at(&before, &server);
}

#[test]
fn a_full_flood_does_not_hold_up_the_stop() {
    let upstream = Upstream::start(|asked| asked.reply(&asked.answer(3600)));
    let mut server = over(upstream.address, &[]);
    ask(server.dns, &query("hot.example.", RecordType::A));
    let flooding = Arc::new(AtomicBool::new(true));
    let flood = {
        let (on, address) = (Arc::clone(&flooding), server.dns);
        std::thread::spawn(move || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            let (hit, miss) = (numbered(1, "hot.example."), numbered(2, "cold.example."));
            while on.load(Ordering::Relaxed) {
                let _ = socket.send_to(&hit, address);
                let _ = socket.send_to(&miss, address);
            }
        })
    };
    let deadline = Instant::now() + PATIENCE;
    while server.metrics().get("cache_hits") < 20_000 {
        assert!(Instant::now() < deadline);
    }
    let begun = Instant::now();
    server.signal("TERM");
    let (status, _) = server.wait();
    let took = begun.elapsed();
    flooding.store(false, Ordering::Relaxed);
    flood.join().unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(2), "{took:?}");
}

/// With hardly any open files the bounds shrink with them: known names and metrics go on.
#[test]
fn few_open_files_bound_what_is_in_flight_and_connected() {
    let upstream = Upstream::start(|asked| asked.reply(&asked.answer(3600)));
    let forward = upstream.address.to_string();
    let (dns, http) = (free_port(), free_port());
    let mut child = support::cleaned(Command::new("sh"))
        .args(["-c", "ulimit -n 120; exec \"$0\"", env!("CARGO_BIN_EXE_swiftlet")])
        .env("SWIFTLET_LISTEN", format!("127.0.0.1:{dns}"))
        .env("SWIFTLET_HTTP", format!("127.0.0.1:{http}"))
        .env("SWIFTLET_FORWARD", forward)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let dns = SocketAddr::from(([127, 0, 0, 1], dns));
    let deadline = Instant::now() + PATIENCE;
    let known = numbered(1, "known.example.");
    while exchange(dns, &known, Duration::from_millis(100)).is_none() {
        assert!(Instant::now() < deadline, "it starts with 120 open files");
    }
    // Connections take their share and no more.
    let connections: Vec<_> = (0..200).map(|_| TcpStream::connect(dns)).collect();
    for number in 0..200 {
        let name = format!("n{number}.example.");
        let answer = exchange(dns, &numbered(number, &name), PATIENCE).expect("an answer");
        assert_eq!(answer[3] & 15, NOERROR, "a miss finds a file");
        let answer = exchange(dns, &known, PATIENCE).expect("an answer");
        assert_eq!(answer[3] & 15, NOERROR, "a hit needs none");
    }
    let http = SocketAddr::from(([127, 0, 0, 1], http));
    let (status, text) = support::http_get(http, "/metrics").unwrap();
    assert_eq!(status, 200);
    let refused = text.lines().find(|line| line.starts_with("swiftlet_streams_refused_total"));
    assert!(refused.is_some_and(|line| !line.ends_with(" 0")), "{refused:?}");
    drop(connections);
    child.kill().unwrap();
    let output = child.wait_with_output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(log.contains("open files"), "the start says so: {log}");
}

#[test]
fn an_upstream_that_is_killed_and_comes_back_is_used_again() {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let knot = Knot::start_at(address);
    let server = over(address, &[("UPSTREAM_TIMEOUT_MS", "500")]);
    let ask = |name: &str| ask(server.dns, &query(name, RecordType::A)).metadata.response_code;
    assert_eq!(ask("n1.many.example."), ResponseCode::NoError);
    drop(knot);
    assert_eq!(ask("n2.many.example."), ResponseCode::ServFail);
    assert_eq!(ask("n1.many.example."), ResponseCode::NoError, "known names are");
    let knot = Knot::start_at(address);
    let back = Instant::now();
    assert_eq!(ask("n3.many.example."), ResponseCode::NoError, "at the first question");
    // That this one failed is remembered for a second (RFC 9520 §3.2).
    while ask("n2.many.example.") != ResponseCode::NoError {
        assert!(back.elapsed() < Duration::from_secs(2), "{:?}", back.elapsed());
    }
    drop(knot);
    server.settled();
}

#[test]
fn an_answer_after_the_time_out_is_too_late_and_harmless() {
    let (late, told) = std::sync::mpsc::channel();
    let upstream = Upstream::start(move |asked| {
        late.send((asked.message.clone(), asked.from)).unwrap();
    });
    let server = over(upstream.address, &[("UPSTREAM_TIMEOUT_MS", "300")]);
    let before = Holdings::of(&server);
    let begun = Instant::now();
    let answer = ask(server.dns, &query("slow.example.", RecordType::A));
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert!((250..1500).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    let socket = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    for (message, from) in told.try_iter() {
        let late = support::upstream::answer_to(&message, 60).to_vec().unwrap();
        let _ = socket.send_to(&late, from);
    }
    assert_eq!(server.settled().get("cache_inserts"), 0);
    back_at(&before, &server);
}

/// Replies that cannot be read at all: the client has its answer when the time is over.
#[test]
fn unreadable_replies_end_in_servfail_in_time() {
    type Lie = fn(&[u8]) -> Vec<u8>;
    let lies: [(&str, Lie); 5] = [
        ("longer than was asked for", |answer| [answer, &[0; 5000]].concat()),
        ("an owner that points at itself", |answer| {
            let mut loops = answer.to_vec();
            let owner = loops.len() - 16;
            loops[owner] = 0xc0 | (owner >> 8) as u8;
            loops[owner + 1] = owner as u8;
            loops
        }),
        ("cut in the record", |answer| answer[..answer.len() - 3].to_vec()),
        ("RDATA beyond the end", |answer| {
            let mut long = answer.to_vec();
            let length = long.len() - 5;
            long[length] = 200;
            long
        }),
        ("more records promised than there are", |answer| {
            let mut more = answer.to_vec();
            more[7] = 9;
            more
        }),
    ];
    for (what, lie) in lies {
        let upstream = Upstream::start(move |asked| {
            let mut answer = asked.answer(60);
            answer.queries[0] = asked.message.queries[0].clone();
            let _ = asked.socket.send_to(&lie(&answer.to_vec().unwrap()), asked.from);
        });
        let server = over(upstream.address, &[("UPSTREAM_TIMEOUT_MS", "600")]);
        let begun = Instant::now();
        let answer = ask(server.dns, &query("www.example.", RecordType::A));
        assert_eq!(answer.metadata.response_code, ResponseCode::ServFail, "{what}");
        assert!(begun.elapsed() < Duration::from_secs(2), "{what}: {:?}", begun.elapsed());
        let metrics = server.settled();
        assert!(metrics.get("upstream_wrong_replies") >= 2, "{what}");
    }
}
