//! Upstreams that fail, lie or stay silent: what the client gets and by when, and that nothing is left
//! waiting (the counter law holds with nothing pending after each fault).

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use support::upstream::{Asked, Upstream, answer_to, failure, name_of, silent};
use support::{PATIENCE, Swiftlet, ask, client, query};

fn over(upstreams: &[&str], settings: &[(&str, &str)]) -> Swiftlet {
    let forward = upstreams.join(",");
    let mut all = vec![("FORWARD", forward.as_str())];
    all.extend_from_slice(settings);
    Swiftlet::start(&all)
}

/// The Extended DNS Error of an answer, by its number.
fn extended_error(answer: &Message) -> Option<u16> {
    let edns = answer.edns.as_ref()?;
    let (_, option) = edns.options().as_ref().iter().find(|(code, _)| u16::from(*code) == 15)?;
    let bytes = Vec::<u8>::try_from(option).ok()?;
    Some(u16::from_be_bytes([*bytes.first()?, *bytes.get(1)?]))
}

fn with_edns(name: &str) -> Message {
    let mut question = query(name, RecordType::A);
    question.edns = Some(hickory_proto::op::Edns::new());
    question
}

fn answered(server: &Swiftlet, name: &str) {
    let answer = ask(server.dns, &query(name, RecordType::A));
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError, "{name}");
    assert_eq!(answer.answers.len(), 1, "{name}");
}

#[test]
fn a_dead_upstream_gives_servfail_with_the_reason_while_known_names_are_answered() {
    let alive = Arc::new(AtomicBool::new(true));
    let switch = Arc::clone(&alive);
    let upstream = Upstream::start(move |asked| {
        if switch.load(Ordering::Relaxed) {
            asked.reply(&asked.answer(3600));
        }
    });
    let server = over(&[&upstream.address.to_string()], &[("UPSTREAM_TIMEOUT_MS", "600")]);
    answered(&server, "known.example.");
    alive.store(false, Ordering::Relaxed);

    let unknown = client(server.dns, PATIENCE);
    let begun = Instant::now();
    unknown.send(&with_edns("unknown.example.").to_vec().unwrap()).unwrap();
    let mut hits = 0;
    while begun.elapsed() < Duration::from_millis(300) {
        answered(&server, "known.example.");
        hits += 1;
    }
    assert!(hits > 10, "{hits} hits while the upstream was dead");
    let mut packet = [0; 512];
    let len = unknown.recv(&mut packet).expect("SERVFAIL comes");
    let took = begun.elapsed();
    let answer = Message::from_vec(&packet[..len]).unwrap();
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(extended_error(&answer), Some(22), "No Reachable Authority");
    assert!((400..1500).contains(&took.as_millis()), "{took:?} with a time-out of 600 ms");
    let metrics = server.settled();
    assert!(metrics.get("upstream_failures{cause=\"timeout\"}") >= 2);
    assert_eq!(metrics.get("servfail{cause=\"timeout\"}"), 1);
}

#[test]
fn an_upstream_whose_port_is_closed_fails_at_once() {
    let (socket, address) = silent();
    drop(socket);
    let server = over(&[&address.to_string()], &[("UPSTREAM_TIMEOUT_MS", "10000")]);
    let begun = Instant::now();
    let answer = ask(server.dns, &with_edns("www.example."));
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(extended_error(&answer), Some(23), "Network Error");
    assert!(begun.elapsed() < Duration::from_secs(5));
    server.settled();
}

#[test]
fn the_second_upstream_is_tried_when_the_first_fails() {
    let (_socket, first) = silent();
    let good = Upstream::start(|asked| asked.reply(&asked.answer(60)));
    let refusing = Upstream::start(|asked| {
        asked.reply(&failure(&asked.message, ResponseCode::Refused));
    });
    let failing = Upstream::start(|asked| {
        asked.reply(&failure(&asked.message, ResponseCode::ServFail));
    });
    for bad in [first, refusing.address, failing.address] {
        let upstreams = [bad.to_string(), good.address.to_string()];
        let server = over(&[&upstreams[0], &upstreams[1]], &[("UPSTREAM_TIMEOUT_MS", "400")]);
        answered(&server, "www.example.");
        // A silent one is not asked first any more for now.
        answered(&server, "other.example.");
        let metrics = server.settled();
        let failed = metrics.sum("upstream_failures");
        // One that answers, if badly, may do better on the next question, unless it was slow.
        let most = if bad == first { 1 } else { 2 };
        assert!((1..=most).contains(&failed), "{bad}: {failed}");
        assert_eq!(metrics.get("upstream_queries{transport=\"udp\"}"), 2 + failed, "{bad}");
    }
}

/// Replies that are not the answer, each sent before the true one: the client gets the true one.
#[test]
fn wrong_replies_are_counted_and_waited_past() {
    type Lie = fn(&Asked<'_>);
    let lies: [(&str, Lie); 7] = [
        ("another ID", |asked| {
            let mut lie = asked.answer(60);
            lie.metadata.id = lie.metadata.id.wrapping_add(1);
            asked.reply(&lie);
        }),
        ("another name", |asked| {
            let mut lie = asked.answer(60);
            lie.queries[0].set_name(Name::from_ascii("evil.example.").unwrap());
            asked.reply(&lie);
        }),
        ("another type", |asked| {
            let mut lie = asked.answer(60);
            lie.queries[0].set_query_type(RecordType::AAAA);
            asked.reply(&lie);
        }),
        ("another class", |asked| {
            let mut lie = asked.answer(60);
            lie.queries[0].set_query_class(DNSClass::CH);
            asked.reply(&lie);
        }),
        ("the query itself", |asked| asked.reply(&asked.message)),
        ("garbage", |asked| {
            let _ = asked.socket.send_to(&[0xff; 64], asked.from);
        }),
        ("half a header", |asked| {
            let _ = asked.socket.send_to(&[0; 6], asked.from);
        }),
    ];
    for (what, lie) in lies {
        let upstream = Upstream::start(move |asked| {
            lie(&asked);
            asked.reply(&asked.answer(60));
        });
        let server = over(&[&upstream.address.to_string()], &[]);
        answered(&server, "www.example.");
        let metrics = server.settled();
        assert_eq!(metrics.get("upstream_wrong_replies"), 1, "{what}");
        assert_eq!(metrics.sum("upstream_failures"), 0, "{what}");
    }
}

#[test]
fn a_reply_from_another_port_is_never_seen() {
    let stranger = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let upstream = Upstream::start(move |asked| {
        let mut lie = asked.answer(60);
        lie.answers[0].data = RData::A(A::new(203, 0, 113, 66));
        stranger.send_to(&lie.to_vec().unwrap(), asked.from).unwrap();
        asked.reply(&asked.answer(60));
    });
    let server = over(&[&upstream.address.to_string()], &[]);
    let answer = ask(server.dns, &query("www.example.", RecordType::A));
    assert_eq!(answer.answers[0].data, RData::A(A::new(192, 0, 2, 1)));
    assert_eq!(server.settled().get("upstream_wrong_replies"), 0, "the kernel keeps it away");
}

#[test]
fn too_many_wrong_replies_move_the_question_to_tcp() {
    let forger = |asked: Asked<'_>| {
        for offset in 1..=20 {
            let mut lie = asked.answer(60);
            lie.metadata.id = lie.metadata.id.wrapping_add(offset);
            asked.reply(&lie);
        }
    };
    let upstream =
        Upstream::with_tcp(forger, |query| Some(answer_to(&query, 60).to_vec().unwrap()));
    let server = over(&[&upstream.address.to_string()], &[]);
    answered(&server, "www.example.");
    assert_eq!(upstream.asked_over_tcp(), 1);
    server.settled();
}

#[test]
fn truncation_without_a_working_tcp_is_a_failure_not_a_hang() {
    let truncated = |asked: Asked<'_>| {
        let mut answer = asked.answer(60);
        answer.metadata.truncation = true;
        asked.reply(&answer);
    };
    type Stream = fn(Message) -> Option<Vec<u8>>;
    let streams: [(&str, Option<Stream>); 5] = [
        ("refused", None),
        ("closed without an answer", Some(|_| None)),
        ("garbage", Some(|_| Some(vec![0xff; 100]))),
        ("an empty message", Some(|_| Some(Vec::new()))),
        (
            "half of an answer",
            Some(|query| {
                let whole = answer_to(&query, 60).to_vec().unwrap();
                Some(whole[..whole.len() / 2].to_vec())
            }),
        ),
    ];
    for (what, stream) in streams {
        let upstream = match stream {
            None => Upstream::start(truncated),
            Some(stream) => Upstream::with_tcp(truncated, stream),
        };
        let server = over(&[&upstream.address.to_string()], &[("UPSTREAM_TIMEOUT_MS", "800")]);
        let begun = Instant::now();
        let answer = ask(server.dns, &query("www.example.", RecordType::A));
        assert_eq!(answer.metadata.response_code, ResponseCode::ServFail, "{what}");
        assert!(begun.elapsed() < Duration::from_secs(3), "{what}");
        server.settled();
    }
}

/// Records that the question does not lead to are left out of the answer and of the cache.
#[test]
fn records_outside_the_chain_are_scrubbed() {
    let upstream = Upstream::start(|asked| {
        let mut answer = asked.answer(60);
        let victim = Name::from_ascii("bank.example.").unwrap();
        let forged = Record::from_rdata(victim, 3600, RData::A(A::new(203, 0, 113, 66)));
        answer.add_answer(forged.clone());
        answer.add_authority(forged.clone());
        answer.add_additional(forged);
        asked.reply(&answer);
    });
    let server = over(&[&upstream.address.to_string()], &[]);
    for _ in 0..2 {
        let answer = ask(server.dns, &query("www.example.", RecordType::A));
        assert_eq!((answer.answers.len(), answer.authorities.len()), (1, 0));
        assert!(answer.additionals.is_empty());
    }
    let answer = ask(server.dns, &query("bank.example.", RecordType::A));
    assert_eq!(answer.answers[0].data, RData::A(A::new(192, 0, 2, 1)));
}

#[test]
fn chains_come_in_order_and_loops_are_failures() {
    let link = |from: &str, to: &str| {
        let target = RData::CNAME(CNAME(Name::from_ascii(to).unwrap()));
        Record::from_rdata(Name::from_ascii(from).unwrap(), 60, target)
    };
    let upstream = Upstream::start(move |asked| {
        let name = name_of(&asked.message);
        let mut answer = asked.answer(60);
        answer.answers.clear();
        match name.as_str() {
            "backwards.example." => {
                let target = Name::from_ascii("c.example.").unwrap();
                answer.add_answer(Record::from_rdata(target, 60, RData::A(A::new(192, 0, 2, 3))));
                answer.add_answer(link("b.example.", "c.example."));
                answer.add_answer(link("backwards.example.", "b.example."));
            }
            "loop.example." => {
                answer.add_answer(link("loop.example.", "b.example."));
                answer.add_answer(link("b.example.", "loop.example."));
            }
            _ => {
                answer.add_answer(link("self.example.", "self.example."));
            }
        }
        asked.reply(&answer);
    });
    let server = over(&[&upstream.address.to_string()], &[]);
    let answer = ask(server.dns, &query("backwards.example.", RecordType::A));
    let owners: Vec<_> = answer.answers.iter().map(|record| record.name.to_ascii()).collect();
    assert_eq!(owners, ["backwards.example.", "b.example.", "c.example."]);
    for name in ["loop.example.", "self.example."] {
        let answer = ask(server.dns, &query(name, RecordType::A));
        assert_eq!(answer.metadata.response_code, ResponseCode::ServFail, "{name}");
    }
    server.settled();
}

#[test]
fn identical_misses_are_one_question_to_the_upstream() {
    const CLIENTS: usize = 500;
    let held: Arc<Mutex<Vec<(Message, std::net::SocketAddr)>>> = Arc::default();
    let release = Arc::new(AtomicBool::new(false));
    let (questions, gate) = (Arc::clone(&held), Arc::clone(&release));
    let upstream = Upstream::start(move |asked| {
        questions.lock().unwrap().push((asked.message.clone(), asked.from));
        while !gate.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        asked.reply(&asked.answer(3600));
    });
    let server = over(&[&upstream.address.to_string()], &[("UPSTREAM_TIMEOUT_MS", "20000")]);
    let question = query("popular.example.", RecordType::A).to_vec().unwrap();
    let clients: Vec<_> = (0..CLIENTS).map(|_| client(server.dns, PATIENCE)).collect();
    for client in &clients {
        client.send(&question).unwrap();
    }
    let deadline = Instant::now() + PATIENCE;
    while server.metrics().get("queries_pending") < CLIENTS as u64 {
        assert!(Instant::now() < deadline, "all of them wait");
    }
    release.store(true, Ordering::Release);
    for client in &clients {
        let mut packet = [0; 512];
        let len = client.recv(&mut packet).expect("each is answered");
        let answer = Message::from_vec(&packet[..len]).unwrap();
        assert_eq!(answer.answers.len(), 1);
    }
    assert_eq!(upstream.asked(), 1);
    assert_eq!(server.settled().get("waits_coalesced"), CLIENTS as u64 - 1);
}

#[test]
fn sockets_go_back_after_a_hundred_thousand_time_outs() {
    let (_socket, address) = silent();
    let server = over(&[&address.to_string()], &[("UPSTREAM_TIMEOUT_MS", "20")]);
    let open = || std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count();
    // What is opened at the first use only is open then.
    ask(server.dns, &query("first.example.", RecordType::A));
    let before = open();
    // As many at a time from each client as its socket can hold answers for.
    const QUERIES: usize = 100_000;
    const BATCH: usize = 200;
    let clients: Vec<_> = (0..5).map(|_| client(server.dns, PATIENCE)).collect();
    let numbers: Vec<_> = (0..QUERIES).collect();
    for round in numbers.chunks(BATCH * clients.len()) {
        for (client, numbers) in clients.iter().zip(round.chunks(BATCH)) {
            for number in numbers {
                let query = query(&format!("n{number}.example."), RecordType::A);
                client.send(&query.to_vec().unwrap()).unwrap();
            }
        }
        for client in &clients {
            for _ in 0..BATCH {
                client.recv(&mut [0; 512]).expect("each fails in time");
            }
        }
    }
    assert_eq!(server.settled().get("answers{rcode=\"SERVFAIL\"}"), QUERIES as u64 + 1);
    let deadline = Instant::now() + PATIENCE;
    while open() > before {
        assert!(Instant::now() < deadline, "{} files open, {before} before", open());
    }
}

#[test]
fn a_lost_datagram_does_not_move_the_preference_for_good() {
    let lost = Arc::new(AtomicBool::new(false));
    let once = Arc::clone(&lost);
    let first = Upstream::start(move |asked| {
        if once.swap(true, Ordering::Relaxed) {
            asked.reply(&asked.answer(60));
        }
    });
    let second = Upstream::start(|asked| asked.reply(&asked.answer(60)));
    let upstreams = [first.address.to_string(), second.address.to_string()];
    let server = over(&[&upstreams[0], &upstreams[1]], &[("UPSTREAM_TIMEOUT_MS", "400")]);
    answered(&server, "lost.example.");
    assert_eq!(second.asked(), 1);
    let deadline = Instant::now() + PATIENCE;
    let mut asked = usize::MAX;
    let mut number = 0;
    while second.asked() != asked {
        assert!(Instant::now() < deadline, "the first is preferred again, as configured");
        asked = second.asked();
        for _ in 0..10 {
            number += 1;
            answered(&server, &format!("n{number}.example."));
        }
    }
}

#[test]
fn an_error_without_the_question_ends_the_try_at_once() {
    let upstream = Upstream::start(|asked| {
        let mut refusal = failure(&asked.message, ResponseCode::Refused);
        refusal.queries.clear();
        asked.reply(&refusal);
    });
    let server = over(&[&upstream.address.to_string()], &[("UPSTREAM_TIMEOUT_MS", "10000")]);
    let begun = Instant::now();
    let answer = ask(server.dns, &query("www.example.", RecordType::A));
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    assert_eq!(server.settled().get("upstream_failures{cause=\"rcode\"}"), 2);
}

#[test]
fn one_client_may_have_so_many_misses_and_hits_are_not_among_them() {
    let (_socket, address) = silent();
    let server = over(&[&address.to_string()], &[("CLIENT_MISSES", "50"), ("WORKERS", "2")]);
    let socket = client(server.dns, PATIENCE);
    for number in 0..200 {
        let name = format!("n{number}.example.");
        socket.send(&query(&name, RecordType::A).to_vec().unwrap()).unwrap();
    }
    let mut packet = [0; 512];
    for _ in 0..150 {
        let len = socket.recv(&mut packet).expect("those over the bound are told at once");
        let answer = Message::from_vec(&packet[..len]).unwrap();
        assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    }
    let metrics = server.metrics();
    assert_eq!(metrics.get("overload{limit=\"client\"}"), 150);
    assert_eq!(metrics.get("queries_pending"), 50);
    answered(&server, "localhost.");
    server.settled();
}

#[test]
fn a_client_that_repeats_itself_waits_once() {
    let (release, gate) = std::sync::mpsc::channel::<()>();
    let upstream = Upstream::start(move |asked| {
        let _ = gate.recv_timeout(PATIENCE);
        asked.reply(&asked.answer(60));
    });
    let server = over(&[&upstream.address.to_string()], &[("UPSTREAM_TIMEOUT_MS", "20000")]);
    let socket = client(server.dns, PATIENCE);
    let question = query("www.example.", RecordType::A).to_vec().unwrap();
    for _ in 0..5 {
        socket.send(&question).unwrap();
    }
    let duplicates = "queries_dropped{reason=\"duplicate\"}";
    let deadline = Instant::now() + PATIENCE;
    while server.metrics().get(duplicates) < 4 {
        assert!(Instant::now() < deadline);
    }
    release.send(()).unwrap();
    let mut packet = [0; 512];
    socket.recv(&mut packet).expect("one answer");
    assert_eq!(server.settled().get("queries_answered"), 1);
}

/// An upstream from before EDNS: it is asked without after two questions, as one refusal may be forged.
#[test]
fn an_upstream_that_does_not_understand_edns_is_asked_without() {
    let upstream = Upstream::start(|asked| {
        let refused = failure(&asked.message, ResponseCode::FormErr);
        asked.reply(&if asked.message.edns.is_some() { refused } else { asked.answer(60) });
    });
    let server = over(&[&upstream.address.to_string()], &[]);
    for (name, asked) in [("a.example.", 2), ("b.example.", 4), ("c.example.", 5)] {
        answered(&server, name);
        assert_eq!(upstream.asked(), asked, "{name}");
    }
    let metrics = server.settled();
    assert_eq!(metrics.get("upstream_edns_fallbacks"), 2);
    assert_eq!(metrics.sum("upstream_failures"), 0);
}

/// An upstream that is silent towards EDNS is slow, and nothing else follows from it.
#[test]
fn silence_does_not_switch_edns_off() {
    let upstream = Upstream::start(|asked| {
        assert!(asked.message.edns.is_some());
        if name_of(&asked.message).starts_with("known") {
            asked.reply(&asked.answer(60));
        }
    });
    let server = over(&[&upstream.address.to_string()], &[("UPSTREAM_TIMEOUT_MS", "200")]);
    for name in ["a.example.", "b.example.", "c.example."] {
        let answer = ask(server.dns, &query(name, RecordType::A));
        assert_eq!(answer.metadata.response_code, ResponseCode::ServFail, "{name}");
    }
    assert_eq!(server.settled().get("upstream_edns_fallbacks"), 0);
}

#[test]
fn a_reply_in_another_letter_case_is_wrong_once_the_upstream_kept_it() {
    const NAME: &str =
        "a-name-with-a-great-many-letters-in-it.of-which-some-are-upper-case.example.";
    let upstream = Upstream::start(|asked| {
        let sent = asked.message.queries[0].name().to_ascii();
        assert_ne!(sent, name_of(&asked.message), "the letters are in random case");
        if sent.to_ascii_lowercase().starts_with("b-") {
            let mut lie = asked.answer(60);
            let lower = lie.queries[0].name().to_lowercase();
            lie.queries[0].set_name(lower);
            lie.answers[0].data = RData::A(A::new(203, 0, 113, 66));
            asked.reply(&lie);
        }
        asked.reply(&asked.answer(60));
    });
    let server = over(&[&upstream.address.to_string()], &[("WORKERS", "1")]);
    answered(&server, NAME);
    let answer = ask(server.dns, &query(&NAME.replacen("a-", "b-", 1), RecordType::A));
    assert_eq!(answer.answers[0].data, RData::A(A::new(192, 0, 2, 1)));
    assert_eq!(server.settled().get("upstream_wrong_replies"), 1);
}

/// The kernel tells a closed port at once, also of ports that were used before.
#[test]
fn an_upstream_that_closes_its_port_is_told_at_once() {
    let (socket, address) = silent();
    socket.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    let closing = Arc::new(AtomicBool::new(false));
    let close = Arc::clone(&closing);
    let upstream = std::thread::spawn(move || {
        let mut packet = [0; 512];
        while !close.load(Ordering::Relaxed) {
            if let Ok((len, from)) = socket.recv_from(&mut packet) {
                let answer = answer_to(&Message::from_vec(&packet[..len]).unwrap(), 60);
                socket.send_to(&answer.to_vec().unwrap(), from).unwrap();
            }
        }
    });
    let server = over(&[&address.to_string()], &[("UPSTREAM_TIMEOUT_MS", "10000")]);
    for number in 0..50 {
        answered(&server, &format!("n{number}.example."));
    }
    closing.store(true, Ordering::Relaxed);
    upstream.join().unwrap();
    for number in 0..50 {
        let begun = Instant::now();
        let answer = ask(server.dns, &query(&format!("after{number}.example."), RecordType::A));
        assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }
    let metrics = server.settled();
    assert_eq!(metrics.get("upstream_failures{cause=\"timeout\"}"), 0);
}
