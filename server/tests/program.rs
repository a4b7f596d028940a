//! The program as an operator meets it: settings, errors, start, stop, HTTP.

mod support;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Output;
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use support::upstream::{Upstream, name_of, silent};
use support::{PATIENCE, Swiftlet, ask, client, exchange, free_port, program, query, test_cache};
use swiftlet::cache::Kind;

fn run(arguments: &[&str], settings: &[(&str, &str)]) -> Output {
    let mut command = program();
    command.env_remove("SWIFTLET_BACKEND").args(arguments).envs(settings.iter().copied());
    command.output().expect("the program can be run")
}

fn good_upstream() -> Upstream {
    Upstream::start(|asked| asked.reply(&asked.answer(3600)))
}

/// Each wrong setting stops the start before anything is opened, and says what is wrong and expected.
#[test]
fn wrong_settings_are_named_with_what_is_expected() {
    let rows: [(&str, &str, &[&str]); 29] = [
        ("SWIFTLET_BATCH", "0", &["SWIFTLET_BATCH", "--batch", "'0'", "from 1 to 1024"]),
        ("SWIFTLET_BATCH", "many", &["SWIFTLET_BATCH", "'many'", "from 1 to 1024"]),
        ("SWIFTLET_WORKERS", "-1", &["SWIFTLET_WORKERS", "'-1'", "from 1 to 1024"]),
        ("SWIFTLET_UDP_SIZE", "511", &["SWIFTLET_UDP_SIZE", "from 512 to 4096"]),
        ("SWIFTLET_CACHE_SIZE", "12X", &["SWIFTLET_CACHE_SIZE", "1M to 1024G", "64M"]),
        ("SWIFTLET_CACHE_SIZE", "1K", &["SWIFTLET_CACHE_SIZE", "1M to 1024G"]),
        ("SWIFTLET_LISTEN", "localhost:53", &["SWIFTLET_LISTEN", "address:port"]),
        ("SWIFTLET_LISTEN", "127.0.0.1", &["SWIFTLET_LISTEN", "127.0.0.1:53"]),
        ("SWIFTLET_LISTEN", "127.0.0.1:53,127.0.0.1:53", &["127.0.0.1:53 twice"]),
        ("SWIFTLET_FORWARD", "dns.example", &["SWIFTLET_FORWARD", "192.0.2.1:5353"]),
        ("SWIFTLET_FORWARD", "192.0.2.1,192.0.2.1:53", &["192.0.2.1:53 twice"]),
        ("SWIFTLET_ALLOW", "10.0.0.0/33", &["SWIFTLET_ALLOW", "'10.0.0.0/33'", "192.0.2.0/24"]),
        ("SWIFTLET_PIN", "maybe", &["SWIFTLET_PIN", "true or false"]),
        ("SWIFTLET_BACKEND", "dpdk", &["SWIFTLET_BACKEND", "'dpdk'", "auto, epoll, io-uring"]),
        ("SWIFTLET_BACKEND", "xdp", &["SWIFTLET_BACKEND", "'xdp'", "io-uring, af-xdp"]),
        ("SWIFTLET_XDP_INTERFACE", "eth0,", &["SWIFTLET_XDP_INTERFACE", "''", "such as eth0"]),
        ("SWIFTLET_XDP_QUEUES", "0-3,a", &["SWIFTLET_XDP_QUEUES", "'a'", "0 to 4095", "0-3,5"]),
        ("SWIFTLET_XDP_MODE", "native", &["SWIFTLET_XDP_MODE", "auto, zero-copy, copy, generic"]),
        ("SWIFTLET_XDP_FALLBACK", "2", &["SWIFTLET_XDP_FALLBACK", "true or false"]),
        ("SWIFTLET_BUSY_POLL_US", "10001", &["SWIFTLET_BUSY_POLL_US", "from 0 to 10000"]),
        ("SWIFTLET_LOOK_AHEAD", "perhaps", &["SWIFTLET_LOOK_AHEAD", "true or false"]),
        ("SWIFTLET_HUGE_PAGES", "2M", &["SWIFTLET_HUGE_PAGES", "true or false"]),
        ("SWIFTLET_LOG", "loud", &["SWIFTLET_LOG", "error, warn, info, debug, trace"]),
        ("SWIFTLET_HTTP", "8053", &["SWIFTLET_HTTP", "127.0.0.1:8053, or off"]),
        ("SWIFTLET_MIN_TTL", "86401", &["SWIFTLET_MIN_TTL", "from 0 to 86400"]),
        (
            "SWIFTLET_UPSTREAM_TIMEOUT_MS",
            "5",
            &["SWIFTLET_UPSTREAM_TIMEOUT_MS", "from 10 to 60000"],
        ),
        ("SWIFTLET_CACHESIZE", "1G", &["SWIFTLET_CACHESIZE is no setting", "SWIFTLET_CACHE_SIZE?"]),
        ("SWIFTLET_LISTEN_ADDR", "x", &["SWIFTLET_LISTEN_ADDR is no setting", "SWIFTLET_LISTEN?"]),
        ("SWIFTLET_XYZZY", "x", &["SWIFTLET_XYZZY is no setting", "--help"]),
    ];
    for (variable, value, expected) in rows {
        let output = run(&[], &[(variable, value)]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{variable}={value}: {error}");
        assert_eq!(error.lines().count(), 1, "{variable}={value}: {error}");
        for text in expected {
            assert!(error.contains(text), "{variable}={value}: '{text}' is not in: {error}");
        }
    }
    let output = run(&[], &[("SWIFTLET_MIN_TTL", "100"), ("SWIFTLET_MAX_TTL", "99")]);
    assert_eq!(output.status.code(), Some(2));
    let output = run(&["--batch", "1025"], &[]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("SWIFTLET_BATCH (--batch): '1025'"));
}

/// A switch that would change nothing, for another setting or this build contradicts it, stops the start with
/// what to change.
#[test]
fn contradicting_switches_are_named_with_what_to_change() {
    let refused = |settings: &[(&str, &str)], expected: &[&str]| {
        let settings = [settings, &[("SWIFTLET_FORWARD", "192.0.2.1")]].concat();
        let output = run(&[], &settings);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{settings:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{settings:?}: {error}");
        for text in expected {
            assert!(error.contains(text), "{settings:?}: '{text}' is not in: {error}");
        }
    };
    let busy = ("SWIFTLET_BUSY_POLL_US", "50");
    refused(
        &[busy, ("SWIFTLET_PIN", "false")],
        &["SWIFTLET_BUSY_POLL_US (50)", "SWIFTLET_PIN=true"],
    );
    // With a quota, that is the reason.
    refused(&[busy, ("SWIFTLET_WORKERS", "1024")], &["SWIFTLET_BUSY_POLL_US (50)", "core"]);
    refused(
        &[("SWIFTLET_LOOK_AHEAD", "true"), ("SWIFTLET_BATCH", "1")],
        &["SWIFTLET_LOOK_AHEAD", "set it to false"],
    );
    let moka = ("SWIFTLET_CACHE", "moka");
    if cfg!(feature = "moka-cache") {
        refused(&[moka, ("SWIFTLET_LOOK_AHEAD", "true")], &["SWIFTLET_LOOK_AHEAD", "moka"]);
        refused(&[moka, ("SWIFTLET_HUGE_PAGES", "true")], &["SWIFTLET_HUGE_PAGES", "segmented"]);
    } else {
        let expected = "this binary was built without moka: build with --features moka-cache, \
                        or set SWIFTLET_CACHE=segmented";
        refused(&[moka], &[expected]);
    }
    if cfg!(not(feature = "io-uring")) {
        let expected = "this binary was built without io-uring: build with --features io-uring, \
                        or set SWIFTLET_BACKEND=auto";
        refused(&[("SWIFTLET_BACKEND", "io-uring")], &[expected]);
    }
    for setting in [
        ("SWIFTLET_XDP_INTERFACE", "eth0"),
        ("SWIFTLET_XDP_QUEUES", "0-3,5"),
        ("SWIFTLET_XDP_MODE", "copy"),
        ("SWIFTLET_XDP_FALLBACK", "0"),
    ] {
        refused(&[setting], &[setting.0, "SWIFTLET_BACKEND=af-xdp", "leave it out"]);
    }
    if cfg!(not(feature = "af-xdp")) {
        let expected = "this binary was built without af-xdp: build with --features af-xdp, \
                        or set SWIFTLET_BACKEND=auto";
        refused(&[("SWIFTLET_BACKEND", "af-xdp"), ("SWIFTLET_XDP_MODE", "copy")], &[expected]);
    }
}

/// A zone that is not forwarded as it was meant would leak internal names: nothing is guessed or left out.
#[test]
fn wrong_forward_zones_are_named_with_the_entry_and_the_reason() {
    let many: Vec<_> = (0..=1024).map(|number| format!("z{number}=10.0.0.1")).collect();
    let crowd: Vec<_> = (1..=17).map(|host| format!("10.0.0.{host}")).collect();
    let rows: [(&str, &[&str]); 13] = [
        ("corp.example", &["--forward-zones", "'corp.example'", "there is no =", "corp.example="]),
        ("a.example=10.0.0.1;;b.example=10.0.0.1", &["''", "there is no ="]),
        ("corp..example=10.0.0.1", &["'corp..example=10.0.0.1'", "empty label", "expected"]),
        ("a.example=10.0.0.1;b.example=dns", &["'b.example=dns'", "'dns'", "192.0.2.1:5353"]),
        ("corp.example=", &["'corp.example='", "no servers", "expected"]),
        ("corp.example=10.0.0.1++10.0.0.2", &["'':", "expected"]),
        (".=10.0.0.1", &["'.=10.0.0.1'", "SWIFTLET_FORWARD"]),
        ("db.localhost=10.0.0.1", &["localhost and what is below is always answered here"]),
        ("a.example=10.0.0.1;A.Example.=10.0.0.2", &["names A.Example. twice", "zone=address"]),
        ("a.example=10.0.0.1+10.0.0.1:53", &["10.0.0.1:53 twice for a.example.", "leave one out"]),
        ("a.example=10.0.0.1+127.0.0.1:5300", &["sends a.example. to 127.0.0.1:5300", "another"]),
        (&many.join(";"), &["has 1025 zones", "at most 1024"]),
        (&format!("a.example={}", crowd.join("+")), &["17 servers", "at most 16"]),
    ];
    for (value, expected) in rows {
        let settings = [("SWIFTLET_FORWARD", "192.0.2.1"), ("SWIFTLET_FORWARD_ZONES", value)];
        let output = run(&["config"], &settings);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{value}: {error}");
        assert_eq!(error.lines().count(), 1, "{value}: {error}");
        for text in expected.iter().chain(&["SWIFTLET_FORWARD_ZONES"]) {
            assert!(error.contains(text), "{value}: '{text}' is not in: {error}");
        }
    }
    for (listen, own) in [("0.0.0.0:5399", "127.0.0.99:5399"), ("[::]:5399", "[::1]:5399")] {
        let zones = format!("corp.example=192.0.2.1+{own}");
        let settings = [
            ("SWIFTLET_LISTEN", listen),
            ("SWIFTLET_FORWARD", "192.0.2.1"),
            ("SWIFTLET_FORWARD_ZONES", &zones),
        ];
        let output = run(&["config"], &settings);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{listen} {own}: {error}");
        assert!(error.contains(own), "{error}");
    }
}

#[test]
fn config_shows_the_forward_zones_and_what_they_switch_off() {
    let zones = "corp.example=10.0.0.1+[2001:db8::1]:5353;10.in-addr.arpa=10.0.0.1";
    let settings = [("SWIFTLET_FORWARD", "192.0.2.1"), ("SWIFTLET_FORWARD_ZONES", zones)];
    let output = run(&["config"], &settings);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains(&format!("SWIFTLET_FORWARD_ZONES={zones}  # environment\n")), "{text}");
    assert!(text.contains("# 10.in-addr.arpa. is forwarded: its special-use names"), "{text}");
    assert!(!text.contains("# corp.example"), "{text}");
    let none = run(&["config"], &settings[..1]);
    let text = String::from_utf8_lossy(&none.stdout);
    let line = text.lines().find(|line| line.starts_with("SWIFTLET_FORWARD_ZONES= "));
    assert!(
        line.is_some_and(|line| line.contains("every name goes to SWIFTLET_FORWARD")),
        "{text}"
    );
}

#[test]
fn config_shows_every_setting_with_its_source() {
    let settings = [("SWIFTLET_BATCH", "32"), ("SWIFTLET_FORWARD", "192.0.2.1,[2001:db8::1]:5353")];
    let output = run(&["config", "--udp-size", "1400"], &settings);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    for (setting, source) in [
        ("SWIFTLET_BATCH=32 ", "# environment"),
        ("SWIFTLET_UDP_SIZE=1400 ", "# flag"),
        ("SWIFTLET_MAX_TTL=86400 ", "# default"),
        ("SWIFTLET_WORKERS=", "# automatic: "),
        ("SWIFTLET_CACHE_SIZE=", "# automatic: a quarter of the memory limit"),
    ] {
        let line = text.lines().find(|line| line.starts_with(setting)).unwrap_or_default();
        assert!(line.contains(source), "{setting} {source}: {text}");
    }
    for (part, name) in [
        ("features", &*swiftlet::features::compiled()),
        ("allocator", swiftlet::features::ALLOCATOR),
        ("answer cache", test_cache().name()),
    ] {
        assert!(text.contains(&format!("\n# {part}: {name}\n")), "{part}: {text}");
    }
    assert!(text.contains("\n# backend: epoll (auto: first in order of merit; io-uring"), "{text}");
    let help = run(&["--help"], &[]);
    let help = String::from_utf8_lossy(&help.stdout);
    let readme = include_str!("../../README.md");
    for line in text.lines().filter(|line| line.starts_with("SWIFTLET_")) {
        let variable = line.split('=').next().unwrap();
        assert!(help.contains(&format!("[env: {variable}=")), "{variable} is missing in --help");
        assert!(
            readme.contains(&format!("`{}`", &variable["SWIFTLET_".len()..])),
            "{variable} is missing in README"
        );
    }
}

/// A Service named like this server makes Kubernetes set variables that look like settings.
#[test]
fn service_links_of_kubernetes_are_no_settings() {
    let settings = [
        ("SWIFTLET_SERVICE_HOST", "10.0.0.10"),
        ("SWIFTLET_SERVICE_PORT_DNS", "53"),
        ("SWIFTLET_PORT", "udp://10.0.0.10:53"),
        ("SWIFTLET_PORT_53_UDP_ADDR", "10.0.0.10"),
        ("SWIFTLET_FORWARD", "192.0.2.1"),
    ];
    assert!(run(&["config"], &settings).status.success());
}

#[test]
fn health_asks_the_server_over_dns() {
    let upstream = good_upstream();
    let mut server = Swiftlet::start(&[("FORWARD", &upstream.address.to_string())]);
    let listen = server.dns.to_string();
    let settings = [("SWIFTLET_LISTEN", &*listen), ("SWIFTLET_FORWARD", "192.0.2.1")];
    assert!(run(&["health"], &settings).status.success());
    server.signal("TERM");
    server.wait();
    let output = run(&["health"], &settings);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains(&format!("no answer from {listen}")), "{error}");
}

#[test]
fn asking_oneself_is_refused_and_an_own_address_among_others_left_out() {
    let port = free_port();
    for (listen, own) in [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.99"),
        ("127.0.0.1", "[::ffff:127.0.0.1]"),
    ] {
        let (listen, own) = (format!("{listen}:{port}"), format!("{own}:{port}"));
        let output = run(&[], &[("SWIFTLET_LISTEN", &listen), ("SWIFTLET_FORWARD", &own)]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(&own) && error.contains("SWIFTLET_FORWARD"), "{error}");
        let both = format!("{own},192.0.2.1");
        let output = run(&["config"], &[("SWIFTLET_LISTEN", &listen), ("SWIFTLET_FORWARD", &both)]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("is this server itself"), "{text}");
        assert!(text.contains("SWIFTLET_FORWARD=192.0.2.1:53 "), "{text}");
    }
}

#[test]
fn a_second_instance_is_told_that_the_address_is_taken() {
    let upstream = good_upstream();
    let server = Swiftlet::start(&[("FORWARD", &upstream.address.to_string())]);
    let settings = [
        ("SWIFTLET_LISTEN", &*server.dns.to_string()),
        ("SWIFTLET_FORWARD", "192.0.2.1"),
        ("SWIFTLET_HTTP", "off"),
    ];
    let output = run(&[], &settings);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    let holder = format!("process {} (swiftlet)", server.pid());
    let expected = format!("address {} is already in use by {holder}", server.dns);
    assert!(error.contains(&expected), "{error}");
}

#[test]
fn the_start_says_what_it_does_in_at_most_20_lines() {
    let upstream = good_upstream();
    let server = Swiftlet::start(&[("FORWARD", &upstream.address.to_string())]);
    let log = server.logged.join("\n");
    assert!(server.logged.len() <= 20, "{log}");
    for text in [
        &format!("listening on {}", server.dns),
        "worker",
        "allocator",
        "backend ",
        "batches of 64",
        "answer cache of",
        test_cache().name(),
        &format!("forwarding to {}", upstream.address),
        &format!("http://{}/", server.http),
        "ready",
    ] {
        assert!(log.contains(text), "'{text}' is not in:\n{log}");
    }
}

#[test]
fn http_shows_health_readiness_and_metrics() {
    let upstream = good_upstream();
    let server = Swiftlet::start(&[("FORWARD", &upstream.address.to_string())]);
    assert_eq!(server.get("/health"), (200, "healthy\n".into()));
    assert_eq!(server.get("/ready"), (200, "ready\n".into()));
    assert_eq!(server.get("/").0, 200);
    assert_eq!(server.get("/nowhere").0, 404);
    // Clients that say nothing take places, but not all of them for long.
    let idle: Vec<_> = (0..100).map(|_| std::net::TcpStream::connect(server.http)).collect();
    assert_eq!(server.get("/ready").0, 200);
    drop(idle);
    ask(server.dns, &query("www.example.", RecordType::A));
    let metrics = server.settled();
    assert_eq!((metrics.get("queries_received"), metrics.get("queries_answered")), (1, 1));
    assert_eq!((metrics.get("ready"), metrics.get("cache_inserts")), (1, 1));
    assert_eq!(metrics.sum("worker_queries_received"), 1);
    assert_eq!(metrics.sum("kernel_dropped"), 0);
}

/// What an alert reads where another backend serves than was asked for.
#[test]
fn metrics_tell_the_backend_asked_for_and_the_one_in_use() {
    let upstream = good_upstream();
    for asked in ["auto", "epoll"] {
        let forward = upstream.address.to_string();
        let server = Swiftlet::start(&[("FORWARD", &*forward), ("BACKEND", asked)]);
        let (_, text) = server.get("/metrics");
        for line in [
            "# TYPE swiftlet_backend gauge",
            &format!("swiftlet_backend{{asked=\"{asked}\",in_use=\"epoll\"}} 1"),
        ] {
            assert!(text.lines().any(|shown| shown == line), "'{line}' is not in:\n{text}");
        }
    }
}

/// What Prometheus is told of the cache: what only grows is a counter, and all parts add up to the budget's
/// use.
#[test]
fn the_cache_gives_an_account_of_itself() {
    let upstream = good_upstream();
    let server = Swiftlet::start(&[("FORWARD", &upstream.address.to_string())]);
    for name in ["a.example.", "b.example.", "c.example."] {
        ask(server.dns, &query(name, RecordType::A));
    }
    let (_, text) = server.get("/metrics");
    for (name, kind) in [
        ("cache_hits", "counter"),
        ("cache_inserts", "counter"),
        ("cache_entries", "gauge"),
        ("cache_bytes", "gauge"),
        ("cache_slots", "gauge"),
        ("cache_evictions", "counter"),
        ("cache_expired", "counter"),
        ("cache_refused", "counter"),
    ] {
        assert!(text.contains(&format!("# TYPE swiftlet_{name} {kind}\n")), "{name}: {text}");
    }
    let metrics = server.settled();
    if test_cache() == Kind::Moka {
        assert_eq!(metrics.get("cache_slots"), 0);
        assert_eq!(metrics.get("cache_evictions{segment=\"all\",reason=\"room\"}"), 0);
        return;
    }
    assert_eq!(metrics.get("cache_entries{segment=\"probation\"}"), 3);
    let entries = metrics.get("cache_bytes{part=\"probation\"}");
    assert!((3 * 64..3 * 256).contains(&entries), "{entries} bytes");
    assert!(metrics.get("cache_slots") * 8 <= metrics.get("cache_bytes{part=\"table\"}"));
    assert_eq!(metrics.get("cache_bytes{part=\"retired\"}"), 0);
    for segment in swiftlet_cache::SEGMENT_NAMES {
        for reason in ["room", "crowded"] {
            let name = format!("cache_evictions{{segment=\"{segment}\",reason=\"{reason}\"}}");
            assert_eq!(metrics.get(&name), 0);
        }
        assert_eq!(metrics.get(&format!("cache_expired{{segment=\"{segment}\"}}")), 0);
    }
    for reason in ["too_large", "choked"] {
        assert_eq!(metrics.get(&format!("cache_refused{{reason=\"{reason}\"}}")), 0);
    }
}

/// A backend that was asked for is had, with every batch that may be asked for, or the start says why not.
#[cfg(feature = "io-uring")]
#[test]
fn io_uring_is_had_on_demand_or_refused_with_the_reason() {
    if let Err(unavailable) = swiftlet_net::backend::uring::probe() {
        let required = std::env::var("SWIFTLET_REQUIRE_IO_URING").is_ok_and(|value| value == "1");
        assert!(!required, "{unavailable}");
        let output =
            run(&[], &[("SWIFTLET_BACKEND", "io-uring"), ("SWIFTLET_FORWARD", "192.0.2.1")]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains("SWIFTLET_BACKEND"), "{error}");
        assert!(error.contains(&unavailable.to_string()), "{error}");
        return;
    }
    let upstream = good_upstream();
    for batch in ["1", "64", "1024"] {
        let forward = upstream.address.to_string();
        let settings = [("FORWARD", &*forward), ("BACKEND", "io-uring"), ("BATCH", batch)];
        let server = Swiftlet::start(&settings);
        let line = format!("backend io-uring (as asked for), batches of {batch}");
        assert!(server.logged.iter().any(|logged| logged.contains(&line)), "{:?}", server.logged);
        for _ in 0..2 {
            let answer = ask(server.dns, &query("www.example.", RecordType::A));
            assert_eq!(answer.answers.len(), 1, "batches of {batch}");
        }
    }
}

/// What af-xdp is asked for with is shown as the server will use it, and nothing is attached for that.
#[cfg(feature = "af-xdp")]
#[test]
fn config_shows_what_is_asked_of_af_xdp() {
    let asked = [("SWIFTLET_BACKEND", "af-xdp"), ("SWIFTLET_FORWARD", "192.0.2.1")];
    let given = [
        ("SWIFTLET_XDP_INTERFACE", "eth0,eth1.100"),
        ("SWIFTLET_XDP_QUEUES", "0-3,5"),
        ("SWIFTLET_XDP_MODE", "ZERO-COPY"),
        ("SWIFTLET_XDP_FALLBACK", "0"),
    ];
    for (settings, lines) in [
        (
            asked.to_vec(),
            [
                "SWIFTLET_XDP_INTERFACE= # automatic: those that carry the addresses of",
                "SWIFTLET_XDP_QUEUES= # automatic: all",
                "SWIFTLET_XDP_MODE=auto # default",
                "SWIFTLET_XDP_FALLBACK=true # default",
            ],
        ),
        (
            [&asked[..], &given].concat(),
            [
                "SWIFTLET_XDP_INTERFACE=eth0,eth1.100 # environment",
                "SWIFTLET_XDP_QUEUES=0-3,5 # environment",
                "SWIFTLET_XDP_MODE=ZERO-COPY # environment",
                "SWIFTLET_XDP_FALLBACK=0 # environment",
            ],
        ),
    ] {
        let output = run(&["config"], &settings);
        let text = String::from_utf8_lossy(&output.stdout);
        let text = text.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
        for line in lines {
            assert!(text.contains(line), "{line}: {text}");
        }
        let backend = "as asked for; whether it works here is found out at the start";
        assert!(text.contains(&format!("\n# backend: af-xdp ({backend})\n")), "{text}");
    }
}

/// Where af-xdp does not work, sockets serve instead and the log says why, unless that is not wanted.
#[cfg(feature = "af-xdp")]
#[test]
fn without_af_xdp_sockets_serve_or_the_start_is_refused_as_asked() {
    let upstream = good_upstream();
    let forward = upstream.address.to_string();
    let missing = [("BACKEND", "af-xdp"), ("XDP_INTERFACE", "nonesuch0")];
    let server = Swiftlet::start(&[("FORWARD", &*forward), missing[0], missing[1]]);
    let log = server.logged.join("\n");
    let told = log.matches("nonesuch0").count();
    assert_eq!(told, 1, "{log}");
    assert!(log.contains("WARN af-xdp does not work here, so sockets serve: "), "{log}");
    assert!(
        log.contains("backend epoll (af-xdp does not work here; auto: first in order"),
        "{log}"
    );
    let answer = ask(server.dns, &query("www.example.", RecordType::A));
    assert_eq!(answer.answers.len(), 1);
    let (_, metrics) = server.get("/metrics");
    assert!(!metrics.contains("swiftlet_xdp_"), "{metrics}");
    let backend = "\nswiftlet_backend{asked=\"af-xdp\",in_use=\"epoll\"} 1\n";
    assert!(metrics.contains(backend), "{metrics}");

    let port = free_port();
    let settings = [
        ("SWIFTLET_BACKEND", "af-xdp"),
        ("SWIFTLET_XDP_INTERFACE", "nonesuch0"),
        ("SWIFTLET_XDP_FALLBACK", "false"),
        ("SWIFTLET_LISTEN", &*format!("127.0.0.1:{port}")),
        ("SWIFTLET_HTTP", "off"),
        ("SWIFTLET_FORWARD", "192.0.2.1"),
    ];
    let output = run(&[], &settings);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    for text in ["SWIFTLET_BACKEND=af-xdp", "SWIFTLET_XDP_FALLBACK=true", "nonesuch0"] {
        assert!(error.contains(text), "{text}: {error}");
    }
}

/// Busy workers serve what comes any other way as well.
#[test]
fn a_busy_worker_serves_hits_misses_connections_and_http() {
    if !swiftlet_net::cores::usable().pin {
        eprintln!("skipped: workers cannot be pinned here");
        return;
    }
    let upstream = good_upstream();
    let settings =
        [("FORWARD", &*upstream.address.to_string()), ("WORKERS", "1"), ("BUSY_POLL_US", "10000")];
    let mut server = Swiftlet::start(&settings);
    assert!(server.logged.join("\n").contains("busy polling"), "{:?}", server.logged);
    for name in ["a.example.", "b.example.", "a.example."] {
        let answer = ask(server.dns, &query(name, RecordType::A));
        assert_eq!(answer.answers.len(), 1, "{name}");
    }
    let output = std::process::Command::new("dig")
        .args(["@127.0.0.1", "-p", &server.dns.port().to_string(), "+tcp", "+short", "c.example"])
        .output()
        .expect("dig runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "192.0.2.1\n");
    assert_eq!(server.settled().get("queries_answered"), 4);
    server.signal("TERM");
    assert_eq!(server.wait().0.code(), Some(0));
}

#[test]
fn a_stop_is_announced_then_served_through_then_quick() {
    let upstream = good_upstream();
    let settings = [("FORWARD", &*upstream.address.to_string()), ("LAMEDUCK_MS", "700")];
    let mut server = Swiftlet::start(&settings);
    ask(server.dns, &query("www.example.", RecordType::A));
    let begun = Instant::now();
    server.signal("TERM");
    assert!(server.wait_for_log("then stopping"), "{:?}", server.logged);
    assert_eq!(server.get("/ready").0, 503);
    assert_eq!(server.get("/health").0, 200);
    ask(server.dns, &query("www.example.", RecordType::A));
    ask(server.dns, &query("new.example.", RecordType::A));
    let (status, _) = server.wait();
    assert_eq!(status.code(), Some(0));
    let took = begun.elapsed();
    assert!((700..2700).contains(&took.as_millis()), "{took:?}");
}

#[test]
fn a_stop_finishes_what_is_in_flight() {
    let slow = Upstream::start(|asked| {
        // Held back until the stop has begun: the test sends a second datagram then.
        if name_of(&asked.message).starts_with("slow") {
            let mut wake = [0; 16];
            let _ = asked.socket.recv(&mut wake);
        }
        asked.reply(&asked.answer(60));
    });
    let mut server = Swiftlet::start(&[("FORWARD", &slow.address.to_string())]);
    let waiting = client(server.dns, PATIENCE);
    waiting.send(&query("slow.example.", RecordType::A).to_vec().unwrap()).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while slow.asked() == 0 {
        assert!(Instant::now() < deadline);
    }
    let begun = Instant::now();
    server.signal("INT");
    assert!(server.wait_for_log("then stopping"), "{:?}", server.logged);
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"go", slow.address).unwrap();
    let mut answer = [0; 512];
    assert!(waiting.recv(&mut answer).is_ok(), "the query in flight is answered");
    let (status, _) = server.wait();
    assert_eq!(status.code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[test]
fn a_silent_upstream_does_not_hold_up_the_stop() {
    let (_socket, address) = silent();
    let mut server = Swiftlet::start(&[("FORWARD", &address.to_string())]);
    let waiting = client(server.dns, PATIENCE);
    waiting.send(&query("www.example.", RecordType::A).to_vec().unwrap()).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while server.metrics().get("queries_pending") == 0 {
        assert!(Instant::now() < deadline);
    }
    let begun = Instant::now();
    server.signal("TERM");
    let (status, _) = server.wait();
    assert_eq!(status.code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[test]
fn a_large_cache_does_not_hold_up_the_stop() {
    let settings = [("FORWARD", "192.0.2.1"), ("CACHE_SIZE", "8G")];
    let mut server = Swiftlet::start(&settings);
    server.signal("TERM");
    let (status, took) = server.wait();
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(2), "{took:?}");
}

/// A wildcard answers from the address that was asked, else the client's kernel drops the answer.
#[test]
fn wildcards_answer_from_the_address_asked() {
    let upstream = good_upstream();
    let port = free_port();
    let listen = format!("0.0.0.0:{port},[::]:{port}");
    let settings = [("FORWARD", &*upstream.address.to_string()), ("LISTEN", &listen)];
    let _server = Swiftlet::start(&settings);
    for last in 1..=5 {
        let address = SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), port));
        for name in ["hit.example.".into(), format!("miss-{last}.example.")] {
            // `ask` connects its socket, so an answer from elsewhere never arrives.
            let answer = ask(address, &query(&name, RecordType::A));
            assert_eq!(answer.metadata.response_code, ResponseCode::NoError, "{address} {name}");
        }
    }
    if UdpSocket::bind("[::1]:0").is_ok() {
        ask(
            SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, port)),
            &query("six.example.", RecordType::A),
        );
    }
}

#[test]
fn several_addresses_are_served_each_for_itself() {
    let upstream = good_upstream();
    let addresses: Vec<SocketAddr> =
        (1..=3).map(|last| SocketAddr::from(([127, 0, 0, last], free_port()))).collect();
    let listen = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let _server =
        Swiftlet::start(&[("FORWARD", &upstream.address.to_string()), ("LISTEN", &listen)]);
    for (number, &address) in addresses.iter().enumerate() {
        for name in ["same.example.".into(), format!("own{number}.example.")] {
            let answer = ask(address, &query(&name, RecordType::A));
            assert_eq!(answer.answers.len(), 1, "{address} {name}");
        }
        let elsewhere = SocketAddr::from(([127, 0, 0, 9], address.port()));
        let question = query("same.example.", RecordType::A).to_vec().unwrap();
        assert_eq!(exchange(elsewhere, &question, Duration::from_millis(50)), None);
    }
}

/// A link-local address of this host with its interface, where there is one.
fn link_local() -> Option<String> {
    let table = std::fs::read_to_string("/proc/net/if_inet6").ok()?;
    table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (hex, scope, interface) = (fields.first()?, fields.get(3)?, fields.get(5)?);
        let bits = u128::from_str_radix(hex, 16).ok()?;
        (*scope == "20").then(|| format!("{}%{interface}", std::net::Ipv6Addr::from_bits(bits)))
    })
}

#[test]
fn a_link_local_address_is_served_with_its_scope() {
    let Some(address) = link_local() else {
        eprintln!("skipped: this host has no link-local address");
        return;
    };
    let upstream = good_upstream();
    let port = free_port();
    let listen = format!("[{address}]:{port}");
    let _server =
        Swiftlet::start(&[("FORWARD", &upstream.address.to_string()), ("LISTEN", &listen)]);
    let output = std::process::Command::new("dig")
        .args([&format!("@{address}"), "-p", &port.to_string(), "+short", "www.example", "A"])
        .output()
        .expect("dig runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "192.0.2.1\n", "{listen}");
}
