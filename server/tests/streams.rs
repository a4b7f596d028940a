//! DNS over TCP: what connections may do, what they get, and that none of them can hold the server up.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use hickory_proto::op::{Edns, Message, ResponseCode};
use hickory_proto::rr::RecordType;
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use support::knot::{Knot, NAMES};
use support::upstream::{Upstream, name_of, silent};
use support::{PATIENCE, Swiftlet, ask, query};

fn over(upstream: SocketAddr, settings: &[(&str, &str)]) -> Swiftlet {
    let forward = upstream.to_string();
    let mut all = vec![("FORWARD", forward.as_str())];
    all.extend_from_slice(settings);
    Swiftlet::start(&all)
}

fn good_upstream() -> Upstream {
    Upstream::start(|asked| asked.reply(&asked.answer(3600)))
}

fn connect(server: &Swiftlet) -> TcpStream {
    let stream = TcpStream::connect(server.dns).expect("the server accepts");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn frame(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes()[..], message].concat()
}

fn numbered(id: u16, name: &str) -> Vec<u8> {
    let mut message = query(name, RecordType::A);
    message.metadata.id = id;
    frame(&message.to_vec().unwrap())
}

fn read_message(stream: &mut TcpStream) -> std::io::Result<Message> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)?;
    Ok(Message::from_vec(&message).expect("an answer that hickory can read"))
}

/// Waits for the server to close the connection.
fn closed(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 16]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

#[test]
fn real_clients_get_over_tcp_what_udp_could_not_carry() {
    let knot = Knot::start();
    let server = over(knot.address, &[]);
    let port = server.dns.port().to_string();
    for (client, arguments) in [
        ("dig", vec!["@127.0.0.1", "-p", &port, "+short", "big.example", "TXT"]),
        ("kdig", vec!["@127.0.0.1", "-p", &port, "+short", "big.example", "TXT"]),
        ("drill", vec!["-a", "-p", &port, "-Q", "big.example", "@127.0.0.1", "TXT"]),
        ("dig", vec!["@127.0.0.1", "-p", &port, "+tcp", "+short", "big.example", "TXT"]),
    ] {
        let output = Command::new(client).args(&arguments).output().expect("the client runs");
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(text.matches(&"x".repeat(200)).count(), 20, "{client} {arguments:?}: {text}");
    }
    let metrics = server.settled();
    assert_eq!(metrics.get("streams_accepted"), 4);
    assert_eq!(metrics.get("stream_queries_received"), 4);
}

#[test]
fn dnsperf_over_tcp_loses_nothing() {
    let knot = Knot::start();
    let server = over(knot.address, &[]);
    let names: String = (0..NAMES).map(|name| format!("n{name}.many.example A\n")).collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), names).unwrap();
    let output = Command::new("dnsperf")
        .args(["-m", "tcp", "-s", "127.0.0.1", "-p", &server.dns.port().to_string()])
        .args(["-l", "3", "-c", "20", "-d"])
        .arg(file.path())
        .output()
        .expect("dnsperf runs");
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(report.contains("Queries lost:         0 ("), "{report}");
    assert!(report.contains("NOERROR") && report.contains("(100.00%)"), "{report}");
    server.settled();
}

#[test]
fn queries_are_pipelined_and_answered_as_they_become_known() {
    let (release, gate) = channel::<()>();
    let upstream = Upstream::start(move |asked| {
        if name_of(&asked.message).starts_with("slow") {
            let _ = gate.recv_timeout(PATIENCE);
        }
        asked.reply(&asked.answer(3600));
    });
    let server = over(upstream.address, &[]);
    ask(server.dns, &query("known.example.", RecordType::A));
    let mut stream = connect(&server);
    let mut frames = numbered(1, "slow.example.");
    frames.extend((2..102).flat_map(|id| numbered(id, "known.example.")));
    stream.write_all(&frames).unwrap();
    let ids: Vec<u16> = (2..102).map(|_| read_message(&mut stream).unwrap().metadata.id).collect();
    assert_eq!(ids, (2..102).collect::<Vec<_>>(), "hits pass the miss");
    release.send(()).unwrap();
    assert_eq!(read_message(&mut stream).unwrap().metadata.id, 1);
    server.settled();
}

#[test]
fn a_frame_may_come_in_pieces_and_a_half_closed_client_gets_its_answers() {
    let upstream = good_upstream();
    let server = over(upstream.address, &[]);
    let mut stream = connect(&server);
    for byte in numbered(7, "www.example.") {
        stream.write_all(&[byte]).unwrap();
    }
    assert_eq!(read_message(&mut stream).unwrap().metadata.id, 7);
    let frames: Vec<u8> = (0..50).flat_map(|id| numbered(id, &format!("n{id}.example."))).collect();
    stream.write_all(&frames).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut ids: Vec<u16> =
        (0..50).map(|_| read_message(&mut stream).unwrap().metadata.id).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..50).collect::<Vec<_>>());
    assert!(closed(&mut stream));
    server.settled();
}

#[test]
fn bad_frames_get_what_bad_packets_get() {
    let upstream = good_upstream();
    let server = over(upstream.address, &[]);
    let mut stream = connect(&server);
    // Nothing, too short, a response: silence; then FORMERR, then an answer, on the same connection.
    stream.write_all(&frame(&[])).unwrap();
    stream.write_all(&frame(&[1, 2, 3])).unwrap();
    stream.write_all(&frame(&[0, 1, 0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0])).unwrap();
    stream.write_all(&frame(&[0, 2, 1, 0, 0, 9, 0, 0, 0, 0, 0, 0])).unwrap();
    stream.write_all(&numbered(3, "www.example.")).unwrap();
    let answer = read_message(&mut stream).unwrap();
    assert_eq!((answer.metadata.id, answer.metadata.response_code), (2, ResponseCode::FormErr));
    assert_eq!(read_message(&mut stream).unwrap().metadata.id, 3);
    // More than any query has: the connection ends.
    stream.write_all(&frame(&[0; 5000])).unwrap();
    assert!(closed(&mut stream));
    let metrics = server.settled();
    assert_eq!(metrics.get("queries_dropped{reason=\"short\"}"), 2);
    assert_eq!(metrics.get("queries_dropped{reason=\"response\"}"), 1);
    assert_eq!(metrics.get("queries_dropped{reason=\"oversize\"}"), 1);
}

#[test]
fn idle_connections_are_closed_also_those_that_dribble() {
    let upstream = good_upstream();
    let server = over(upstream.address, &[("TCP_IDLE_MS", "300")]);
    let mut silent = connect(&server);
    let mut dribbling = connect(&server);
    let begun = Instant::now();
    assert!(closed(&mut silent));
    assert!((250..2000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    // One byte now and then is no query: the time runs on.
    let begun = Instant::now();
    dribbling.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut bytes = numbered(1, "www.example.").into_iter();
    while begun.elapsed() < PATIENCE {
        match bytes.next() {
            Some(byte) if dribbling.write_all(&[byte]).is_ok() => {}
            _ => break,
        }
        if closed(&mut dribbling) {
            break;
        }
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(server.settled().get("streams_timed_out"), 2);
}

#[test]
fn keepalive_tells_how_long_a_connection_may_idle() {
    let upstream = good_upstream();
    let server = over(upstream.address, &[("TCP_IDLE_MS", "4200")]);
    let mut question = query("www.example.", RecordType::A);
    let mut edns = Edns::new();
    edns.options_mut().insert(EdnsOption::Unknown(11, Vec::new()));
    question.edns = Some(edns);
    let option = |answer: &Message| {
        let options = answer.edns.as_ref()?.options().clone();
        let option = options.get(EdnsCode::from(11))?.clone();
        Vec::<u8>::try_from(&option).ok()
    };
    let mut stream = connect(&server);
    stream.write_all(&frame(&question.to_vec().unwrap())).unwrap();
    let answer = read_message(&mut stream).unwrap();
    assert_eq!(option(&answer), Some(vec![0, 42]), "in units of 100 ms");
    // Over UDP it means nothing.
    assert_eq!(option(&ask(server.dns, &question)), None);
    // Nobody asked.
    stream.write_all(&numbered(1, "www.example.")).unwrap();
    assert_eq!(option(&read_message(&mut stream).unwrap()), None);
}

#[test]
fn connections_are_bounded_per_client_and_come_back() {
    let upstream = good_upstream();
    let server = over(upstream.address, &[("TCP_MAX_PER_CLIENT", "3")]);
    let mut open: Vec<TcpStream> = (0..3).map(|_| connect(&server)).collect();
    for (id, stream) in open.iter_mut().enumerate() {
        stream.write_all(&numbered(id as u16, "www.example.")).unwrap();
        assert!(read_message(stream).is_ok());
    }
    assert!(closed(&mut connect(&server)), "one too many");
    drop(open.pop());
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut stream = connect(&server);
        stream.write_all(&numbered(9, "www.example.")).unwrap();
        if read_message(&mut stream).is_ok() {
            break;
        }
        assert!(Instant::now() < deadline, "a place that was given up can be had");
    }
    assert!(server.settled().get("streams_refused") >= 1);
}

#[test]
fn strangers_are_told_once_and_let_go() {
    let upstream = good_upstream();
    let server = over(upstream.address, &[("ALLOW", "192.0.2.0/24")]);
    let mut stream = connect(&server);
    let frames: Vec<u8> = (1..5).flat_map(|id| numbered(id, "www.example.")).collect();
    stream.write_all(&frames).unwrap();
    let answer = read_message(&mut stream).unwrap();
    assert_eq!((answer.metadata.id, answer.metadata.response_code), (1, ResponseCode::Refused));
    assert!(closed(&mut stream));
    server.settled();
}

/// TCP itself slows a client down that does not read; the others feel nothing of it.
#[test]
fn a_client_that_never_reads_is_held_back_and_hurts_nobody() {
    let knot = Knot::start();
    let server = over(knot.address, &[]);
    let mut warm = connect(&server);
    let mut question = query("big.example.", RecordType::TXT);
    warm.write_all(&frame(&question.to_vec().unwrap())).unwrap();
    assert_eq!(read_message(&mut warm).unwrap().answers.len(), 1);

    let mut greedy = connect(&server);
    greedy.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    question.metadata.id = 1;
    let frame = frame(&question.to_vec().unwrap());
    let many = frame.repeat(1000);
    // 4 KB of answer for each 30 bytes of question: the kernel's buffers and our bound are full soon.
    while greedy.write_all(&many).is_ok() {}
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    assert!(resident() < 200 * 1024, "{} KiB", resident());
    for _ in 0..100 {
        warm.write_all(&numbered(5, "www.example.")).unwrap();
        read_message(&mut warm).unwrap();
        ask(server.dns, &query("www.example.", RecordType::A));
    }
    drop(greedy);
    assert!(server.settled().get("queries_dropped{reason=\"stream_gone\"}") > 0);
}

#[test]
fn a_client_that_leaves_before_its_answer_is_counted() {
    let (release, gate) = channel::<()>();
    let upstream = Upstream::start(move |asked| {
        let _ = gate.recv_timeout(PATIENCE);
        asked.reply(&asked.answer(3600));
    });
    let server = over(upstream.address, &[("UPSTREAM_TIMEOUT_MS", "20000")]);
    let mut stream = connect(&server);
    stream.write_all(&numbered(1, "slow.example.")).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while server.metrics().get("queries_pending") == 0 {
        assert!(Instant::now() < deadline);
    }
    // A reset, so that the server learns of it at once.
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
    while server.metrics().get("streams_closed") == 0 {
        assert!(Instant::now() < deadline, "the connection ends");
    }
    release.send(()).unwrap();
    let metrics = server.settled();
    assert_eq!(metrics.get("queries_dropped{reason=\"stream_gone\"}"), 1);
}

#[test]
fn at_most_128_queries_of_a_connection_wait() {
    let (_socket, address) = silent();
    let server = over(address, &[("UPSTREAM_TIMEOUT_MS", "1000")]);
    let mut stream = connect(&server);
    let frames: Vec<u8> =
        (0..300).flat_map(|id| numbered(id, &format!("n{id}.example."))).collect();
    stream.write_all(&frames).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let mut most = 0;
    while server.metrics().get("queries_received") < 300 {
        most = most.max(server.metrics().get("queries_pending"));
        assert!(Instant::now() < deadline, "the rest is taken as answers leave");
    }
    assert!((100..=128).contains(&most), "{most} waited at once");
    for _ in 0..300 {
        let answer = read_message(&mut stream).unwrap();
        assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    }
    server.settled();
}

#[test]
fn a_stop_ends_idle_connections_and_finishes_the_others() {
    let (release, gate) = channel::<()>();
    let upstream = Upstream::start(move |asked| {
        let _ = gate.recv_timeout(PATIENCE);
        asked.reply(&asked.answer(3600));
    });
    let mut server = over(upstream.address, &[]);
    let mut idle = connect(&server);
    let mut waiting = connect(&server);
    waiting.write_all(&numbered(1, "slow.example.")).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while server.metrics().get("queries_pending") == 0 {
        assert!(Instant::now() < deadline);
    }
    let begun = Instant::now();
    server.signal("TERM");
    assert!(server.wait_for_log("then stopping"));
    assert!(closed(&mut idle));
    release.send(()).unwrap();
    assert_eq!(read_message(&mut waiting).unwrap().metadata.id, 1);
    assert!(closed(&mut waiting));
    let (status, _) = server.wait();
    assert_eq!(status.code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}
