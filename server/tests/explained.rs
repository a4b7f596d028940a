//! `/debug/query`: what an operator is told of one question.

mod support;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use serde_json::Value;
use support::upstream::{Upstream, failure, silent};
use support::{Swiftlet, ask, query};

fn explained(server: &Swiftlet, parameters: &str) -> (u16, Value) {
    let (status, text) =
        support::http_get(server.http, &format!("/debug/query?{parameters}")).expect("an answer");
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// The words of all steps in one string.
fn words(explained: &Value) -> String {
    let steps = explained["steps"].as_array().expect("steps");
    let times: Vec<_> = steps.iter().map(|step| step["at_us"].as_u64().expect("a time")).collect();
    assert!(times.is_sorted(), "{times:?}");
    let words = steps.iter().filter_map(|step| step["what"].as_str());
    words.collect::<Vec<_>>().join("; ")
}

#[test]
fn a_question_is_told_step_by_step() {
    let upstream = Upstream::start(|asked| {
        let bad = asked.message.queries[0].name().to_lowercase().to_ascii().starts_with("bad");
        match bad {
            true => asked.reply(&failure(&asked.message, ResponseCode::ServFail)),
            false => asked.reply(&asked.answer(60)),
        }
    });
    let server = Swiftlet::start(&[("FORWARD", &upstream.address.to_string())]);
    let (status, told) = explained(&server, "name=www.example&type=a");
    assert_eq!(status, 200, "{told}");
    assert_eq!(
        (&told["outcome"]["rcode"], &told["outcome"]["answers"]),
        (&"NOERROR".into(), &1.into())
    );
    assert_eq!(told["outcome"]["ttl_s"], 60);
    let said = words(&told);
    assert!(said.starts_with("cache: nothing"), "{said}");
    assert!(said.contains(&format!("asking {}", upstream.address)), "{said}");
    assert!(said.contains("cache: Stored"), "{said}");
    // It is asked again though it is known now; clients have it from the cache.
    let asked = upstream.asked();
    ask(server.dns, &query("www.example.", RecordType::A));
    assert_eq!(upstream.asked(), asked);
    let (_, told) = explained(&server, "name=www.example.");
    assert!(words(&told).starts_with("cache: fresh"), "{told}");
    assert_eq!(upstream.asked(), asked + 1);

    let (_, told) = explained(&server, "name=bad.example&type=MX&dnssec=true");
    assert_eq!(told["outcome"]["rcode"], "SERVFAIL");
    assert!(words(&told).contains("failed: "), "{told}");
    assert!(told["outcome"]["error"].is_string(), "{told}");
    server.settled();
}

#[test]
fn what_never_goes_upstream_does_not_do_so_here() {
    let (_socket, address) = silent();
    let server = Swiftlet::start(&[("FORWARD", &address.to_string())]);
    for (parameters, rcode) in
        [("name=localhost", "NOERROR"), ("name=www.example&type=TYPE0", "REFUSED")]
    {
        let (status, told) = explained(&server, parameters);
        assert_eq!((status, &told["outcome"]["rcode"]), (200, &rcode.into()), "{told}");
        assert!(words(&told).contains("a policy answers"), "{told}");
    }
    for parameters in ["", "type=A", "name=a..b", "name=www.example&type=NONE", "name=a&dnssec=7"] {
        let (status, told) = explained(&server, parameters);
        assert_eq!(status, 400, "{parameters}: {told}");
    }
    assert_eq!(server.metrics().get("upstream_queries{transport=\"udp\"}"), 0);
}
