//! Forward zones end to end: which upstream is asked for which question, and what is no longer answered by
//! the server itself.

mod support;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, Record, RecordType};
use support::upstream::{Upstream, absence, failure, silent};
use support::{Swiftlet, ask, query};

/// An upstream whose A records end in its number, and that knows no names under `gone.`
fn numbered(number: u8) -> Upstream {
    Upstream::start(move |asked| {
        let name = asked.message.queries[0].name().clone();
        if name.to_ascii().contains("gone.") {
            return asked.reply(&absence(&asked.message, ResponseCode::NXDomain, 300));
        }
        let mut answer = failure(&asked.message, ResponseCode::NoError);
        answer.metadata.recursion_available = true;
        if asked.message.queries[0].query_type() == RecordType::A {
            let address = RData::A(A::new(192, 0, 2, number));
            answer.add_answer(Record::from_rdata(name, 300, address));
        }
        asked.reply(&answer);
    })
}

/// The number of the upstream that an answer came from.
fn origin(answer: &Message) -> Option<u8> {
    match answer.answers.first()?.data {
        RData::A(A(address)) => Some(address.octets()[3]),
        _ => None,
    }
}

#[test]
fn questions_go_to_the_servers_of_their_zone_alone() {
    let [all, corp, lab] = [1, 2, 3].map(numbered);
    let zones = format!(
        "corp.example={};LAB.corp.example.={};10.in-addr.arpa={};local={}",
        corp.address, lab.address, corp.address, lab.address
    );
    let settings = [("FORWARD", &*all.address.to_string()), ("FORWARD_ZONES", &zones)];
    let server = Swiftlet::start(&settings);
    for (name, number) in [
        ("example.", 1),
        ("www.example.", 1),
        ("notcorp.example.", 1),
        ("corp.example.", 2),
        ("WWW.Corp.Example.", 2),
        ("lab.corp.example.", 3),
        ("a.b.lab.corp.example.", 3),
        ("4.3.2.10.in-addr.arpa.", 2),
        ("printer.local.", 3),
    ] {
        let answer = ask(server.dns, &query(name, RecordType::A));
        assert_eq!(origin(&answer), Some(number), "{name}");
    }
    // What is special and not forwarded is still answered here.
    for name in ["x.test.", "1.168.192.in-addr.arpa.", "x.invalid."] {
        let answer = ask(server.dns, &query(name, RecordType::A));
        assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain, "{name}");
    }
    assert_eq!((all.asked(), corp.asked(), lab.asked()), (3, 3, 3));
    let log = server.logged.join("\n");
    for line in [
        format!("forwarding corp.example. to {}", corp.address),
        format!("forwarding LAB.corp.example. to {}", lab.address),
        "local. is forwarded".into(),
    ] {
        assert!(log.contains(&line), "'{line}' is not in:\n{log}");
    }
    server.settled();
}

#[test]
fn the_name_of_a_zone_is_asked_for_ds_above_it() {
    let [all, corp, lab] = [1, 2, 3].map(numbered);
    let zones = format!("corp.example={};lab.corp.example={}", corp.address, lab.address);
    let settings = [("FORWARD", &*all.address.to_string()), ("FORWARD_ZONES", &zones)];
    let server = Swiftlet::start(&settings);
    let asked = |name, rtype| {
        let before = [all.asked(), corp.asked(), lab.asked()];
        ask(server.dns, &query(name, rtype));
        let after = [all.asked(), corp.asked(), lab.asked()];
        (0..3).find(|&at| after[at] > before[at]).map(|at| at + 1)
    };
    assert_eq!(asked("corp.example.", RecordType::DS), Some(1));
    assert_eq!(asked("lab.corp.example.", RecordType::DS), Some(2));
    assert_eq!(asked("www.lab.corp.example.", RecordType::DS), Some(3));
    assert_eq!(asked("lab.corp.example.", RecordType::DNSKEY), Some(3));
}

/// NXDOMAIN answers for all types of a name, but the parent's does not speak for the zone.
#[test]
fn nxdomain_from_the_parent_says_nothing_about_the_zone() {
    let [all, corp] = [1, 2].map(|number| {
        Upstream::start(move |asked| {
            let is_ds = asked.message.queries[0].query_type() == RecordType::DS;
            if number == 1 || is_ds {
                return asked.reply(&absence(&asked.message, ResponseCode::NXDomain, 300));
            }
            asked.reply(&asked.answer(300));
        })
    });
    let zones = format!("corp.example={}", corp.address);
    let settings = [("FORWARD", &*all.address.to_string()), ("FORWARD_ZONES", &zones)];
    let server = Swiftlet::start(&settings);
    let code = |rtype| ask(server.dns, &query("corp.example.", rtype)).metadata.response_code;
    assert_eq!(code(RecordType::DS), ResponseCode::NXDomain);
    assert_eq!(code(RecordType::A), ResponseCode::NoError);
    assert_eq!((all.asked(), corp.asked()), (1, 1));
}

/// Names of a zone stay within it, also when none of its servers answers.
#[test]
fn a_zone_whose_servers_fail_is_not_asked_for_elsewhere() {
    let all = numbered(1);
    let (_socket, dead) = silent();
    let zones = format!("corp.example={dead}");
    let settings = [
        ("FORWARD", &*all.address.to_string()),
        ("FORWARD_ZONES", &zones),
        ("UPSTREAM_TIMEOUT_MS", "300"),
    ];
    let server = Swiftlet::start(&settings);
    let answer = ask(server.dns, &query("www.corp.example.", RecordType::A));
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(origin(&ask(server.dns, &query("www.example.", RecordType::A))), Some(1));
    assert_eq!(all.asked(), 1);
    server.settled();
}

#[test]
fn the_second_server_of_a_zone_steps_in() {
    let [all, corp] = [1, 2].map(numbered);
    let (socket, dead) = silent();
    drop(socket);
    let zones = format!("corp.example={dead}+{}", corp.address);
    let settings = [("FORWARD", &*all.address.to_string()), ("FORWARD_ZONES", &zones)];
    let server = Swiftlet::start(&settings);
    for name in ["a.corp.example.", "b.corp.example."] {
        assert_eq!(origin(&ask(server.dns, &query(name, RecordType::A))), Some(2), "{name}");
    }
    assert_eq!(all.asked(), 0);
}
