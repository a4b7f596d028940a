//! The program from the outside: against its own authority and knotd, and what it says to bad
//! input.

mod support;

use std::path::Path;

use serde_json::Value;
use support::{Knot, authority, free_address, interrupt, program, run};

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("a file")).expect("JSON")
}

#[test]
fn an_open_loop_keeps_its_rate_and_tells_all() {
    let (_authority, server) = authority(&[]);
    let home = tempfile::tempdir().expect("a temporary directory");
    let (file, html) = (home.path().join("a.json"), home.path().join("a.html"));
    let (file_arg, html_arg) = (file.to_str().expect("UTF-8"), html.to_str().expect("UTF-8"));
    let run = run(&[
        "run",
        "--server",
        &server,
        "--zipf",
        "1000,1.0",
        "--duration",
        "2s",
        "--rate",
        "2k",
        "--json",
        file_arg,
        "--html",
        html_arg,
        "--edns",
        "--do",
        "--case-share",
        "50%",
    ]);
    assert_eq!(run.status, Some(0), "{}", run.stderr);
    let outcome = json(&file);
    let number = |key: &str| outcome[key].as_u64().expect("a number");
    assert_eq!(number("sent"), 4000, "{}", run.stdout);
    assert_eq!(number("answered") + number("lost"), 4000);
    assert_eq!(number("mismatched"), 0);
    assert!(number("answered") > 3900, "{}", run.stdout);
    for quantile in ["p50", "p90", "p95", "p99", "p99.9", "p99.99", "max"] {
        assert!(outcome["latency_us"][quantile].as_f64().expect("a number") > 0.0);
        assert!(outcome["uncorrected_us"][quantile].as_f64().expect("a number") > 0.0);
    }
    assert!(outcome["seconds"].as_array().expect("a series").len() >= 2);
    assert!(run.stderr.lines().count() >= 2, "a plain line a second: {}", run.stderr);
    let page = std::fs::read_to_string(&html).expect("a page");
    assert!(page.matches("<svg").count() >= 3);
}

/// At 20,000 queries per second both send the same number, and the server has answered what they
/// say it has.
#[test]
fn it_counts_as_dnsperf_and_the_server_do() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let (queries, result) = (home.path().join("queries"), home.path().join("json"));
    let names: String = (0..1000).map(|n| format!("n{n}.example A\n")).collect();
    std::fs::write(&queries, names).expect("written");
    let queries = queries.to_str().expect("UTF-8");

    let (ours, server) = authority(&[]);
    let measured = run(&[
        "run",
        "--server",
        &server,
        "--queries",
        queries,
        "--rate",
        "20k",
        "--duration",
        "2s",
        "--json",
        result.to_str().expect("UTF-8"),
    ]);
    assert_eq!(measured.status, Some(0), "{}", measured.stderr);
    let outcome = json(&result);
    let number = |value: &Value| value.as_u64().expect("a number");
    let answered = number(&outcome["answered"]);
    assert_eq!(
        ours.end(),
        answered + number(&outcome["generator"]["overruns"]),
        "{}",
        measured.stdout
    );

    let (theirs, server) = authority(&[]);
    let (ip, port) = server.rsplit_once(':').expect("an address and a port");
    let output = std::process::Command::new("dnsperf")
        .args(["-s", ip, "-p", port, "-d", queries, "-l", "2", "-Q", "20000", "-q", "2000"])
        .output()
        .expect("dnsperf runs: `make test` installs Debian's package dnsperf");
    let stdout = String::from_utf8(output.stdout).expect("UTF-8");
    let completed = stdout.lines().find_map(|line| line.trim().strip_prefix("Queries completed:"));
    let words = completed.expect("a count").split_whitespace().next();
    let completed: u64 = words.and_then(|word| word.parse().ok()).expect("a number");
    // dnsperf may lose answers in its own receive buffer.
    let theirs = theirs.end();
    assert!(theirs >= completed, "{stdout}");
    let ratio = answered as f64 / theirs as f64;
    assert!((0.95..=1.05).contains(&ratio), "{answered} and {theirs}");
}

#[test]
fn knotd_answers_over_both_and_its_cost_is_told() {
    let knot = Knot::start();
    let (server, pid) = (knot.address.to_string(), knot.child.0.id().to_string());
    for transport in [
        &["--sockets", "2"][..],
        &["--source-range", "127.0.0.2-127.0.0.5"],
        &["--transport", "tcp", "--connections", "3", "--queries-per-connection", "40"],
    ] {
        let mut args = vec![
            "run",
            "--server",
            &server,
            "--uniform",
            "1000",
            "--names-under",
            "many.example",
            "--duration",
            "500ms",
            "--window",
            "64",
            "--pid",
            &pid,
            "--max-loss",
            "1%",
        ];
        args.extend_from_slice(transport);
        let run = run(&args);
        assert_eq!(run.status, Some(0), "{}{}", run.stdout, run.stderr);
        assert!(
            run.stdout.contains("NOERROR") && !run.stdout.contains("NXDOMAIN"),
            "{}",
            run.stdout
        );
        assert!(run.stdout.contains("us of CPU per answer"));
        assert!(run.stdout.contains(": 0 malformed, 0 empty"), "{}", run.stdout);
    }
}

#[test]
fn bounds_that_are_missed_are_status_1() {
    let (_authority, server) = authority(&["--loss", "50%", "--delay", "5ms"]);
    let base = ["run", "--server", &server, "--random-subdomains", "x", "--duration", "300ms"];
    let with =
        |more: &[&str]| run(&[&base[..], &["--rate", "500", "--timeout", "100ms"], more].concat());
    let loss = with(&["--max-loss", "1%"]);
    assert_eq!(loss.status, Some(1), "{}", loss.stderr);
    assert!(loss.stdout.contains("MISSED: loss"), "{}", loss.stdout);
    let p99 = with(&["--max-p99", "1ms"]);
    assert_eq!(p99.status, Some(1));
    assert!(p99.stdout.contains("MISSED: p99"), "{}", p99.stdout);
    assert_eq!(with(&[]).status, Some(0));
}

#[test]
fn the_search_ends_at_its_limit_and_draws_its_curve() {
    let (_authority, server) = authority(&[]);
    let home = tempfile::tempdir().expect("a temporary directory");
    let html = home.path().join("a.html");
    let found = run(&[
        "find-max",
        "--server",
        &server,
        "--uniform",
        "100",
        "--step",
        "300ms",
        "--start-rate",
        "500",
        "--limit-rate",
        "1k",
        "--max-p99",
        "900ms",
        "--max-loss",
        "5%",
        "--html",
        html.to_str().expect("UTF-8"),
    ]);
    assert_eq!(found.status, Some(0), "{}{}", found.stdout, found.stderr);
    assert!(found.stdout.contains("highest rate within the bounds"), "{}", found.stdout);
    let page = std::fs::read_to_string(&html).expect("a page");
    assert!(page.contains("Latency by rate"));
    let (_slow, server) = authority(&["--delay", "30ms"]);
    let missed = run(&[
        "find-max",
        "--server",
        &server,
        "--uniform",
        "100",
        "--step",
        "100ms",
        "--start-rate",
        "20",
    ]);
    assert_eq!(missed.status, Some(1), "{}{}", missed.stdout, missed.stderr);
}

#[test]
fn repeated_runs_are_compared() {
    let (_authority, server) = authority(&[]);
    let home = tempfile::tempdir().expect("a temporary directory");
    let file = home.path().join("a.json");
    let file = file.to_str().expect("UTF-8");
    let measured = run(&[
        "run",
        "--server",
        &server,
        "--uniform",
        "100",
        "--duration",
        "100ms",
        "--repeat",
        "5",
        "--json",
        file,
    ]);
    assert_eq!(measured.status, Some(0), "{}", measured.stderr);
    let compared = run(&["compare", file, file]);
    assert_eq!(compared.status, Some(0), "{}", compared.stderr);
    let row = compared.stdout.lines().find(|line| line.starts_with("answers/s")).expect("a row");
    assert!(row.contains("1.000") && row.contains("no difference shown"), "{row}");
}

#[test]
fn an_interruption_still_reports() {
    let (_authority, server) = authority(&[]);
    let mut command = program(&["run", "--server", &server, "--uniform", "9", "--duration", "1h"]);
    let piped = std::process::Stdio::piped;
    let mut child = command.stdout(piped()).stderr(piped()).spawn().expect("starts");
    // The first line of progress says that it runs.
    let mut line = String::new();
    let mut stderr = std::io::BufReader::new(child.stderr.take().expect("piped"));
    std::io::BufRead::read_line(&mut stderr, &mut line).expect("a line");
    interrupt(&child);
    let output = child.wait_with_output().expect("ends");
    assert_eq!(output.status.code(), Some(0));
    let stdout = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(stdout.contains("answered") && stdout.contains("p99.99"), "{stdout}");
}

#[test]
fn an_interrupted_search_keeps_its_files() {
    let (_authority, server) = authority(&[]);
    let home = tempfile::tempdir().expect("a temporary directory");
    let (file, page) = (home.path().join("json"), home.path().join("html"));
    let paths = [&file, &page].map(|path| path.to_str().expect("UTF-8"));
    let mut command = program(&[
        "find-max",
        "--server",
        &server,
        "--uniform",
        "9",
        "--start-rate",
        "100",
        "--step",
        "500ms",
        "--max-p99",
        "2s",
        "--max-loss",
        "50%",
        "--json",
        paths[0],
        "--html",
        paths[1],
    ]);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().expect("starts");
    let mut stdout = std::io::BufReader::new(child.stdout.take().expect("piped"));
    // The head of the table, and the first rate.
    for _ in 0..2 {
        std::io::BufRead::read_line(&mut stdout, &mut String::new()).expect("a line");
    }
    interrupt(&child);
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut stdout, &mut rest).expect("text");
    let status = child.wait().expect("ends").code();
    let outcome = json(&file);
    // On a busy machine even the first rate may have failed; either is a result.
    match outcome["max_rate"].as_f64() {
        Some(rate) => assert!(status == Some(0) && rate >= 1.0, "{rate}: {rest}"),
        None => assert!(status == Some(1) && rest.contains("no rate held"), "{rest}"),
    }
    assert!(!outcome["curve"].as_array().expect("a curve").is_empty());
    assert!(page.exists());
}

#[test]
fn a_mix_asks_of_all_its_sources() {
    let knot = Knot::start();
    let home = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| home.path().join(name).to_str().expect("UTF-8").to_owned();
    let (file, recording, result) = (path("queries"), path("pcap"), path("json"));
    // Another type, an error, and a recorded query with EDNS.
    std::fs::write(&file, "nothing.example A\n").expect("written");
    std::fs::write(&recording, pcap_of(b"\0\x09\x01\0\0\x01\0\0\0\0\0\0\x07unknown\0\0\x01\0\x01"))
        .expect("written");
    let server = knot.address.to_string();
    let (from_file, from_pcap) = (format!("20=queries:{file}"), format!("10=pcap:{recording}"));
    let measured = run(&[
        "run",
        "--server",
        &server,
        "--mix",
        "70=zipf:1000,1.0",
        "--mix",
        &from_file,
        "--mix",
        &from_pcap,
        "--names-under",
        "many.example",
        "--rate",
        "5000",
        "--duration",
        "1s",
        "--seed",
        "7",
        "--json",
        &result,
    ]);
    assert_eq!(measured.status, Some(0), "{}", measured.stderr);
    let rcodes = &json(Path::new(&result))["rcodes"];
    for (rcode, share) in [("NOERROR", 0.7), ("NXDOMAIN", 0.2), ("REFUSED", 0.1)] {
        let count = rcodes[rcode].as_f64().expect("a number");
        assert!((count / 5000.0 - share).abs() < 0.05, "{rcode}: {rcodes}");
    }
}

/// A recording of one query to port 53, over IPv4 without a link header.
fn pcap_of(message: &[u8]) -> Vec<u8> {
    let udp_len = 8 + message.len() as u16;
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17];
    packet.resize(20, 0);
    packet.extend_from_slice(&[4, 0, 0, 53]);
    packet.extend_from_slice(&udp_len.to_be_bytes());
    packet.extend_from_slice(&[0, 0]);
    packet.extend_from_slice(message);
    let len = (packet.len() as u32).to_le_bytes();
    let header = [0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0];
    [&header[..], &101u32.to_le_bytes(), &[0; 8], &len, &len, &packet].concat()
}

#[test]
fn bad_input_is_status_2_and_says_what_is_expected() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str, bytes: &[u8]| {
        let path = home.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        path.to_str().expect("UTF-8").to_owned()
    };
    let empty = path("empty", b"# nothing\n");
    let malformed = path("malformed", b"good.example A\n\nbad..name A\n");
    let pcap = path("pcap", b"no pcap file at all, whatever its name says");
    let pcapng = path("pcapng", &[&[0x0a, 0x0d, 0x0d, 0x0a][..], &[0; 60]].concat());
    let whole = pcap_of(b"\0\x09\x01\0\0\x01\0\0\0\0\0\0\x07unknown\0\0\x01\0\x01");
    let cut = path("cut", &whole[..whole.len() - 1]);
    // The protocol in the IP header, after the headers of the file and the packet.
    let mut tcp = whole;
    tcp[24 + 16 + 9] = 6;
    let tcp = path("tcp", &tcp);
    let malformed_type = path("type", b"good.example A\nx.example QQQ\n");
    let refused = free_address().to_string();
    let local = ["--server", refused.as_str()];
    let table: &[(&[&str], &str)] = &[
        (&["--uniform", "9", "--duration", "1500ms"], "nobody listens"),
        (&["--uniform", "9", "--transport", "tcp"], "cannot reach"),
        (&["--queries", "/nonexistent/file"], "/nonexistent/file"),
        (&["--queries", &empty], "no query in it"),
        (&["--queries", &malformed], "malformed:3:"),
        (&["--pcap", &pcap], "not a pcap file"),
        (&["--pcap", &pcapng], "this is pcapng: `editcap -F pcap`"),
        (&["--pcap", &cut], "the packet at byte 24 is cut"),
        (&["--pcap", &tcp], "no query in it"),
        (&["--pcap", "/nonexistent/pcap"], "/nonexistent/pcap"),
        (&["--pcap", "/"], "Is a directory"),
        (&["--queries", &malformed_type], "type:2: unknown type QQQ"),
        (&["--uniform", "9", "--rate", "0"], "1 to 100M"),
        (&["--uniform", "9", "--rate", "101M"], "1 to 100M"),
        (&["--uniform", "9", "--rate=-5"], "1 to 100M"),
        (&["--uniform", "9", "--rate", "fast"], "1 to 100M"),
        (&["--uniform", "9", "--duration", "5 parsecs"], "unknown unit"),
        (&["--uniform", "9", "--window", "3"], "every socket 1 to"),
        (&["--uniform", "9", "--cores", "1000"], "core 1000"),
        (&["--uniform", "9", "--source-range", "::1-::4"], "one family"),
        (&["--uniform", "9", "--pid", "4194304"], "--pid"),
        (&["--uniform", "9", "--zipf", "5"], "cannot be used with"),
        (&["--mix", "5=zipf"], "SHARE=KIND:VALUE"),
        (&[], "required"),
    ];
    for (args, expected) in table {
        let run = run(&[&["run"], &local[..], args].concat());
        assert_eq!(run.status, Some(2), "{args:?}: {}{}", run.stdout, run.stderr);
        assert!(run.stderr.contains(expected), "{args:?}: {}", run.stderr);
    }
    // The system refuses to connect to the broadcast address, before anything is sent.
    let unreachable = run(&["run", "--server", "255.255.255.255:53", "--uniform", "9"]);
    assert_eq!(unreachable.status, Some(2), "{}", unreachable.stderr);
    assert!(
        unreachable.stderr.contains("cannot reach 255.255.255.255:53: "),
        "{}",
        unreachable.stderr
    );
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let address = silent.local_addr().expect("bound").to_string();
    let run = run(&[
        "run",
        "--server",
        &address,
        "--uniform",
        "9",
        "--duration",
        "1h",
        "--timeout",
        "100ms",
    ]);
    assert_eq!(run.status, Some(2), "{}", run.stderr);
    assert!(run.stderr.contains("answered none of"), "{}", run.stderr);
    assert!(run.stdout.contains("lost"), "what was measured is told: {}", run.stdout);
}
