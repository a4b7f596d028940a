//! The authority through the eyes of other programs: dig, drill and delv, and its delay and loss
//! through a load.

mod support;

use std::process::Command;

use serde_json::Value;
use support::{authority, run};

/// Runs a client and returns what it printed.
fn client(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap_or_else(|error| {
        panic!("{program}: {error}; `make test` installs the packages of the tests")
    });
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(output.status.success(), "{program} {args:?}: {text}");
    text
}

/// dig without its defaults: neither EDNS nor cookies nor a second try over TCP unless asked for.
fn dig(server: &str, args: &[&str]) -> String {
    let (ip, port) = server.rsplit_once(':').expect("an address and a port");
    let at = format!("@{ip}");
    let base = [&at, "-p", port, "+noedns", "+ignore", "+norecurse", "+time=20", "+tries=1"];
    client("dig", &[&base[..], args].concat())
}

/// The records of a section of dig's, each with single spaces.
fn section(text: &str, name: &str) -> Vec<String> {
    let head = format!(";; {name} SECTION:");
    let after = text.split_once(&head).map_or("", |(_, after)| after);
    let records = after.lines().skip(1).take_while(|line| !line.is_empty());
    records.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

fn has(text: &str, wanted: &[&str]) {
    for part in wanted {
        assert!(text.contains(part), "no \"{part}\" in {text}");
    }
}

#[test]
fn dig_reads_every_kind_of_answer() {
    let (_authority, server) = authority(&["--suffix", "example.com", "--ttl", "77"]);
    for transport in ["+notcp", "+tcp"] {
        let ask = |args: &[&str]| dig(&server, &[&[transport], args].concat());
        let a = ask(&["www.Example.com", "A"]);
        has(&a, &["status: NOERROR", "flags: qr aa; ", "ANSWER: 1, AUTHORITY: 0, ADDITIONAL: 0"]);
        let [record] = &section(&a, "ANSWER")[..] else { panic!("{a}") };
        assert!(record.starts_with("www.Example.com. 77 IN A 198.1"), "{record}");
        let again = ask(&["www.example.com", "A", "+short"]);
        assert!(record.ends_with(again.trim()), "{record} and {again}");

        let aaaa = section(&ask(&["www.example.com", "AAAA"]), "ANSWER");
        assert!(aaaa[0].starts_with("www.example.com. 77 IN AAAA 2001:2:"), "{aaaa:?}");
        let text = section(&ask(&["www.example.com", "TXT"]), "ANSWER");
        assert_eq!(text, [format!("www.example.com. 77 IN TXT \"{}\"", "x".repeat(64))]);

        let nothing = ask(&["www.example.com", "TLSA"]);
        has(&nothing, &["status: NOERROR", "ANSWER: 0, AUTHORITY: 1"]);
        assert!(section(&nothing, "AUTHORITY")[0].starts_with("example.com. 77 IN SOA "));
        for other in ["example.org", "com", "."] {
            has(&ask(&[other, "A"]), &["status: REFUSED", "ANSWER: 0, AUTHORITY: 0"]);
        }
        let apex = section(&ask(&["example.com", "SOA"]), "ANSWER");
        assert_eq!(apex, ["example.com. 77 IN SOA . . 1 3600 3600 3600 77"]);
        assert_eq!(
            section(&ask(&["example.com", "NS"]), "ANSWER")[0],
            "example.com. 77 IN NS ns.example.com."
        );

        has(&ask(&["version.bind", "CH", "TXT"]), &["status: REFUSED", "ANSWER: 0"]);
        has(&ask(&["www.example.com", "HS", "A"]), &["status: REFUSED", "ANSWER: 0"]);
        assert!(!a.contains("EDNS: version"), "{a}");
        let edns = ask(&["www.example.com", "A", "+edns=0", "+dnssec", "+nocookie"]);
        has(&edns, &["EDNS: version: 0, flags: do; udp: 1232", "status: NOERROR"]);
        let version = ask(&["www.example.com", "A", "+edns=1", "+noednsnegotiation"]);
        has(&version, &["status: BADVERS", "ANSWER: 0"]);
    }
}

#[test]
fn long_text_is_cut_over_udp_and_whole_over_tcp() {
    let (_authority, server) = authority(&["--txt-size", "3000"]);
    let cut = dig(&server, &["t.example", "TXT", "+edns=0"]);
    has(&cut, &["flags: qr aa tc", "ANSWER: 0"]);
    let whole = |text: &str| {
        let text: String = section(text, "ANSWER").concat();
        text.bytes().filter(|&byte| byte == b'x').count()
    };
    // "example" and "TXT" have one x in lower case between them.
    assert_eq!(whole(&dig(&server, &["t.example", "TXT", "+tcp"])), 3001);
    let retried = dig(&server, &["t.example", "TXT", "+noignore"]);
    has(&retried, &["Truncated, retrying in TCP mode", "(TCP)"]);
    assert_eq!(whole(&retried), 3001);
}

#[test]
fn chains_and_names_that_do_not_exist() {
    let (_chain, server) = authority(&["--cname-chain", "3"]);
    let records = section(&dig(&server, &["a.example", "A"]), "ANSWER");
    assert_eq!(records.len(), 4);
    let mut owner = "a.example.";
    for record in &records[..3] {
        let words: Vec<&str> = record.split(' ').collect();
        assert_eq!((words[0], words[3]), (owner, "CNAME"), "{records:?}");
        owner = words[4];
    }
    assert!(records[3].starts_with(&format!("{owner} 3600 IN A ")), "{records:?}");

    let (_missing, server) =
        authority(&["--nxdomain", "100%", "--suffix", "example", "--ttl", "9"]);
    let missing = dig(&server, &["a.example", "A"]);
    has(&missing, &["status: NXDOMAIN", "flags: qr aa;"]);
    assert_eq!(section(&missing, "AUTHORITY"), ["example. 9 IN SOA . . 1 3600 3600 3600 9"]);
}

#[test]
fn drill_and_delv_understand_it_too() {
    let (_authority, server) = authority(&["--cname-chain", "2", "--txt-size", "2000"]);
    let (ip, port) = server.rsplit_once(':').expect("an address and a port");
    let at = format!("@{ip}");
    for more in [&[][..], &["-t"]] {
        let args = [&["-p", port][..], more, &["a.example", &at, "A"]].concat();
        let text = client("drill", &args);
        has(&text, &["rcode: NOERROR", "CNAME\tchain1.a.example.", "IN\tA\t198."]);
    }
    // -a tries again with EDNS, and then over TCP, when the answer was cut.
    let text = client("drill", &["-a", "-p", port, "a.example", &at, "TXT"]);
    has(&text, &["IN\tTXT\t\"xxx"]);

    // Nothing here is signed: -i asks without validating.
    for (rtype, expected) in [("A", "IN\tA\t198."), ("AAAA", "AAAA\t2001:2:"), ("TXT", "\"xxx")] {
        let text = client("delv", &[&at, "-p", port, "-i", "a.example", rtype]);
        has(&text, &["; authoritative", "CNAME\tchain1.a.example.", expected]);
    }
    let (_missing, server) = authority(&["--nxdomain", "100%"]);
    let (ip, port) = server.rsplit_once(':').expect("an address and a port");
    let output = Command::new("delv")
        .args([&format!("@{ip}"), "-p", port, "-i", "a.example"])
        .output()
        .expect("delv runs");
    let text = String::from_utf8([output.stdout, output.stderr].concat()).expect("UTF-8");
    has(&text, &["ncache nxdomain"]);
}

/// The median latency in ms, and the share that was lost, under a light load.
fn light_load(behaviour: &[&str], transport: &[&str]) -> (f64, f64) {
    let (_authority, server) = authority(behaviour);
    let home = tempfile::tempdir().expect("a temporary directory");
    let file = home.path().join("json");
    let path = file.to_str().expect("UTF-8");
    let base = ["run", "--server", &server, "--uniform", "1000", "--rate", "1000", "--duration"];
    let output = ["1s", "--timeout", "500ms", "--json", path];
    let run = run(&[&base[..], &output, transport].concat());
    assert_eq!(run.status, Some(0), "{}{}", run.stdout, run.stderr);
    let outcome: Value =
        serde_json::from_slice(&std::fs::read(&file).expect("a file")).expect("JSON");
    let number = |value: &Value| value.as_f64().expect("a number");
    (number(&outcome["latency_us"]["p50"]) / 1000.0, number(&outcome["loss"]))
}

#[test]
fn delay_and_loss_are_near_what_was_set() {
    // The median of an exponential distribution is ln 2 times its mean.
    for (delay, median_ms) in [("30ms", 30.0), ("uniform:20ms,60ms", 40.0), ("exp:40ms", 27.7)] {
        let (median, loss) = light_load(&["--delay", delay], &[]);
        // Never early; late by what a busy machine takes.
        assert!((0.85..1.5).contains(&(median / median_ms)), "{delay}: {median} ms");
        assert!(loss < 0.02, "{delay}: {loss}");
    }
    let (_, loss) = light_load(&["--loss", "20%"], &[]);
    // Six standard deviations.
    assert!((loss - 0.2).abs() < 0.08, "{loss}");
}

#[test]
fn over_tcp_delay_holds_and_nothing_is_lost() {
    let tcp = ["--transport", "tcp", "--connections", "100"];
    let (median, loss) = light_load(&["--delay", "30ms", "--loss", "50%"], &tcp);
    // A query that comes while an answer of the same connection is held back waits for that one too.
    assert!((30.0..75.0).contains(&median), "{median} ms");
    assert!(loss < 0.02, "{loss}");
}
