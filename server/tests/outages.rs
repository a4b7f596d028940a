//! Outages of real upstreams on real links, in network namespaces: what clients get and by when, and that
//! everything returns to where it was.

mod support;

use std::time::{Duration, Instant};

use hickory_proto::op::{Edns, Message, ResponseCode};
use hickory_proto::rr::RecordType;
use support::netns::{Fault, Network, isolated};
use support::{PATIENCE, Swiftlet, ask, query};

/// The time-out of a question, and by when its SERVFAIL has to be there.
const TIMEOUT_MS: &str = "1000";
const IN_TIME: Duration = Duration::from_millis(1600);

/// The same for the last of hundreds that ask at once.
const CROWD_IN_TIME: Duration = Duration::from_secs(3);

/// After an outage answers flow again within this time.
const RECOVERY: Duration = Duration::from_secs(2);

/// Names that were not asked for yet.
struct Names(u32);

impl Names {
    fn next(&mut self) -> String {
        self.0 += 1;
        format!("n{}.many.example.", self.0)
    }
}

fn server_over(network: &Network) -> Swiftlet {
    Swiftlet::start(&[("FORWARD", &network.forward()), ("UPSTREAM_TIMEOUT_MS", TIMEOUT_MS)])
}

fn asked(server: &Swiftlet, name: &str) -> Message {
    let mut question = query(name, RecordType::A);
    question.edns = Some(Edns::new());
    ask(server.dns, &question)
}

/// So many new names, of which each must be answered.
fn all_answered(server: &Swiftlet, names: &mut Names, many: usize, when: &str) {
    for _ in 0..many {
        let name = names.next();
        let begun = Instant::now();
        let answer = asked(server, &name);
        let took = begun.elapsed();
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError, "{when}: {name} {took:?}");
        assert_eq!(answer.answers.len(), 1, "{when}: {name}");
    }
}

fn has_reason(answer: &Message) -> bool {
    let options = answer.edns.as_ref().map(|edns| edns.options().as_ref());
    options.is_some_and(|options| options.iter().any(|(code, _)| u16::from(*code) == 15))
}

fn open_files(server: &Swiftlet) -> usize {
    let path = format!("/proc/{}/fd", server.pid());
    std::fs::read_dir(path).expect("a process has files").count()
}

/// The same once all that a start opens is open: what is told over HTTP comes after that.
fn files_at_rest(server: &Swiftlet) -> usize {
    assert_eq!(server.get("/ready").0, 200);
    open_files(server)
}

/// Waits until the server has no more files open than before, and nothing in flight.
fn back_at(files: usize, server: &Swiftlet) {
    server.settled();
    let deadline = Instant::now() + PATIENCE;
    while open_files(server) > files {
        let open = open_files(server);
        assert!(Instant::now() < deadline, "{open} files are open, of which {files} at first");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(server.metrics().get("queries_pending"), 0);
}

/// One of two fails: nobody notices. Both fail: each question ends with a reason in time, and known names
/// are answered. One comes back: so do the answers.
fn outage(network: &mut Network, fault: Fault) {
    let server = server_over(network);
    let names = &mut Names(0);
    let files = files_at_rest(&server);
    all_answered(&server, names, 20, "before");
    let known = "n1.many.example.";

    for place in [0, 1] {
        network.fail(place, fault);
        all_answered(&server, names, 20, "one of two fails");
        network.mend(place, fault);
        all_answered(&server, names, 20, "after it is mended");
    }

    network.fail(0, fault);
    network.fail(1, fault);
    for _ in 0..5 {
        let (name, begun) = (names.next(), Instant::now());
        let answer = asked(&server, &name);
        assert_eq!(answer.metadata.response_code, ResponseCode::ServFail, "{name}");
        assert!(has_reason(&answer), "{name}");
        assert!(begun.elapsed() < IN_TIME, "{:?}", begun.elapsed());
        assert_eq!(asked(&server, known).metadata.response_code, ResponseCode::NoError);
    }

    // The worse case: the one that was asked first stays away.
    network.mend(1, fault);
    recovers(&server, names);
    all_answered(&server, names, 20, "after the outage");
    network.mend(0, fault);
    all_answered(&server, names, 20, "after all is mended");

    let metrics = server.settled();
    assert!(metrics.sum("upstream_failures") > 0);
    let told =
        metrics.get("answers{rcode=\"NOERROR\"}") + metrics.get("answers{rcode=\"SERVFAIL\"}");
    assert_eq!(told, metrics.get("queries_answered"));
    back_at(files, &server);
}

#[test]
fn links_are_cut() {
    isolated("links_are_cut", |network| outage(network, Fault::Cut));
}

#[test]
fn answers_get_lost() {
    isolated("answers_get_lost", |network| outage(network, Fault::BlackHole));
}

#[test]
fn hosts_are_unreachable() {
    isolated("hosts_are_unreachable", |network| outage(network, Fault::Unreachable));
}

#[test]
fn packet_filters_reject() {
    isolated("packet_filters_reject", |network| outage(network, Fault::Rejected));
}

#[test]
fn upstreams_are_stopped() {
    isolated("upstreams_are_stopped", |network| outage(network, Fault::Stopped));
}

/// Long enough that whatever is backed off is backed off as far as it goes.
fn long_outage(network: &mut Network, fault: Fault) {
    let server = server_over(network);
    let names = &mut Names(0);
    all_answered(&server, names, 5, "before");
    network.fail(0, fault);
    network.fail(1, fault);
    let cut = Instant::now();
    while cut.elapsed() < Duration::from_secs(10) {
        let code = asked(&server, &names.next()).metadata.response_code;
        assert_eq!(code, ResponseCode::ServFail);
        // As many names as the zone has must last that long.
        std::thread::sleep(Duration::from_millis(10));
    }
    network.mend(0, fault);
    network.mend(1, fault);
    recovers(&server, names);
    all_answered(&server, names, 50, "after the outage");
    server.settled();
}

/// Waits for the first answer, which must come in time.
fn recovers(server: &Swiftlet, names: &mut Names) {
    let mended = Instant::now();
    while asked(server, &names.next()).metadata.response_code != ResponseCode::NoError {
        assert!(mended.elapsed() < RECOVERY, "no answer {:?} after the outage", mended.elapsed());
    }
    let took = mended.elapsed();
    assert!(took < RECOVERY, "{took:?} until the first answer");
    eprintln!("first answer {took:?} after the outage");
}

#[test]
fn links_that_were_cut_for_long_are_used_at_once() {
    isolated("links_that_were_cut_for_long_are_used_at_once", |network| {
        long_outage(network, Fault::Cut);
    });
}

#[test]
fn upstreams_that_were_silent_for_long_are_used_at_once() {
    isolated("upstreams_that_were_silent_for_long_are_used_at_once", |network| {
        long_outage(network, Fault::BlackHole);
    });
}

/// What is forwarded elsewhere does not feel it when a zone's server is away.
#[test]
fn an_outage_stays_within_its_zone() {
    isolated("an_outage_stays_within_its_zone", |network| {
        let [all, zone] = network.addresses();
        let zones = format!("signed.example={zone}");
        let server = Swiftlet::start(&[
            ("FORWARD", &all.to_string()),
            ("FORWARD_ZONES", &zones),
            ("UPSTREAM_TIMEOUT_MS", TIMEOUT_MS),
        ]);
        let code = |name: &str| asked(&server, name).metadata.response_code;
        let names = &mut Names(0);
        assert_eq!(code("www.signed.example."), ResponseCode::NoError);
        for fault in [Fault::BlackHole, Fault::Cut] {
            network.fail(1, fault);
            let begun = Instant::now();
            assert_eq!(code(&format!("{fault:?}.wild.signed.example.")), ResponseCode::ServFail);
            assert!(begun.elapsed() < IN_TIME, "{:?}", begun.elapsed());
            all_answered(&server, names, 20, "another zone's server is away");
            network.mend(1, fault);
            network.fail(0, fault);
            let mended = Instant::now();
            let mut number = 0;
            while code(&format!("{number}.{fault:?}.wild.signed.example.")) != ResponseCode::NoError
            {
                number += 1;
                assert!(mended.elapsed() < RECOVERY, "{fault:?}: {:?}", mended.elapsed());
            }
            network.mend(0, fault);
            recovers(&server, names);
        }
        server.settled();
    });
}

/// One of the two is always there: no client ever hears of the other.
#[test]
fn flapping_links_are_not_felt() {
    isolated("flapping_links_are_not_felt", |network| {
        let server = server_over(network);
        let names = &mut Names(0);
        let files = files_at_rest(&server);
        for round in 0..10 {
            let place = round % 2;
            network.fail(place, Fault::Cut);
            all_answered(&server, names, 10, "one is cut");
            network.mend(place, Fault::Cut);
            all_answered(&server, names, 10, "both are there");
        }
        assert!(server.metrics().sum("upstream_failures") > 0, "the server has felt it");
        back_at(files, &server);
    });
}

/// Sends so many new names at once, and counts the answers that are none.
fn crowd(server: &Swiftlet, names: &mut Names, many: usize) -> usize {
    let clients: Vec<_> = (0..many)
        .map(|_| {
            let socket = support::client(server.dns, PATIENCE);
            socket.send(&query(&names.next(), RecordType::A).to_vec().unwrap()).unwrap();
            socket
        })
        .collect();
    let begun = Instant::now();
    let code = |client: std::net::UdpSocket| {
        let mut packet = [0; 512];
        let len = client.recv(&mut packet).expect("everybody gets an answer");
        Message::from_vec(&packet[..len]).unwrap().metadata.response_code
    };
    let failed = clients.into_iter().map(code).filter(|code| *code == ResponseCode::ServFail);
    let failed = failed.count();
    assert!(begun.elapsed() < CROWD_IN_TIME, "{:?}", begun.elapsed());
    failed
}

#[test]
fn lost_questions_are_asked_again() {
    isolated("lost_questions_are_asked_again", |network| {
        let server = server_over(network);
        let names = &mut Names(0);
        let files = files_at_rest(&server);
        network.fail(0, Fault::Loss(20));
        assert_eq!(crowd(&server, names, 200), 0, "the other one has them");
        network.fail(1, Fault::Loss(10));
        let failed = crowd(&server, names, 200);
        assert!(failed <= 12, "{failed} of 200 fail at 20 and 10 % of loss");
        assert!(server.metrics().get("upstream_failures{cause=\"timeout\"}") > 0);
        back_at(files, &server);
    });
}

/// 500 clients at once while both are away, and when they are back.
#[test]
fn a_crowd_that_waits_through_an_outage_leaves_nothing_behind() {
    isolated("a_crowd_that_waits_through_an_outage_leaves_nothing_behind", |network| {
        let server = server_over(network);
        let names = &mut Names(0);
        let files = files_at_rest(&server);
        for fault in [Fault::BlackHole, Fault::Cut] {
            network.fail(0, fault);
            network.fail(1, fault);
            assert_eq!(crowd(&server, names, 500), 500, "{fault:?}");
            network.mend(0, fault);
            network.mend(1, fault);
            recovers(&server, names);
            assert_eq!(crowd(&server, names, 500), 0, "{fault:?} is over");
        }
        let metrics = server.settled();
        assert_eq!(metrics.sum("queries_dropped"), 0);
        assert!(metrics.get("answers{rcode=\"SERVFAIL\"}") >= 1000);
        back_at(files, &server);
    });
}
