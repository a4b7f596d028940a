use std::sync::atomic::Ordering;

use swiftlet_net::client::listen;

use super::*;
use crate::Verdict;

fn names(count: usize) -> Queries {
    let names: Vec<String> = (0..count).map(|n| format!("n{n}.test.example")).collect();
    Queries::for_names(names.iter().map(String::as_str)).expect("valid names")
}

/// Runs `load` against a server that sends back what `reply` makes of each datagram.
fn against(
    reply: impl Fn(usize, &[u8]) -> Vec<Vec<u8>> + Sync,
    load: impl FnOnce(SocketAddr) -> Report,
) -> Report {
    let server = listen(([127, 0, 0, 1], 0).into(), 1 << 20).expect("a loopback socket");
    server.set_read_timeout(Some(Duration::from_millis(10))).expect("a positive time");
    let address = server.local_addr().expect("bound");
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let (mut buf, mut count) = ([0; 512], 0);
            while !done.load(Ordering::Relaxed) {
                if let Ok((len, from)) = server.recv_from(&mut buf) {
                    for packet in reply(count, &buf[..len]) {
                        server.send_to(&packet, from).expect("sent");
                    }
                    count += 1;
                }
            }
        });
        let report = load(address);
        done.store(true, Ordering::Relaxed);
        report
    })
}

fn load(server: SocketAddr, queries: &Queries, limit: Limit) -> Load<'_> {
    Load {
        server,
        queries,
        sockets: 3,
        window: 40,
        limit,
        timeout: Duration::from_secs(5),
        threads: 1,
        cores: &[],
    }
}

#[test]
fn each_query_is_sent_once_and_an_echo_answers_it() {
    let queries = names(1000);
    for threads in [1, 2] {
        let report = against(
            |_, packet| vec![packet.to_vec()],
            |server| {
                let load = Load { threads, ..load(server, &queries, Limit::Each) };
                run(&load).expect("runs")
            },
        );
        assert_eq!((report.sent, report.answered, report.lost), (1000, 1000, 0));
        assert_eq!((report.mismatched, report.truncated, report.rcodes[0]), (0, 0, 1000));
        assert_eq!(report.latency.len(), 1000);
        assert!(report.cpu > Duration::ZERO);
    }
}

#[test]
fn time_is_a_limit_and_the_queries_go_round() {
    let queries = names(7);
    let report = against(
        |_, packet| vec![packet.to_vec()],
        |server| {
            let limit = Limit::For(Duration::from_millis(50));
            run(&load(server, &queries, limit)).expect("runs")
        },
    );
    assert!(report.answered > 40, "more than one window: {report:?}");
    assert_eq!(report.sent, report.answered + report.lost);
}

#[test]
fn silence_is_lost_and_strange_replies_match_nothing() {
    let queries = names(200);
    let report = against(
        |count, packet| match count % 4 {
            0 => Vec::new(),
            // Doubled, and with TC and REFUSED.
            1 => {
                let mut answer = packet.to_vec();
                (answer[2], answer[3]) = (0x82, 0x05);
                vec![answer.clone(), answer]
            }
            // Another question, another ID, too short; then the right one.
            2 => {
                let (mut question, mut id) = (packet.to_vec(), packet.to_vec());
                question[14] ^= 0x20;
                id[0] ^= 0x80;
                vec![question, id, packet[..14].to_vec(), Vec::new(), packet.to_vec()]
            }
            _ => vec![packet.to_vec()],
        },
        |server| {
            // Far longer than an answer takes here, however busy the machine.
            let timeout = Duration::from_millis(400);
            run(&Load { timeout, ..load(server, &queries, Limit::Each) }).expect("runs")
        },
    );
    assert_eq!((report.sent, report.answered, report.lost), (200, 150, 50));
    assert_eq!((report.truncated, report.rcodes[5], report.rcodes[0]), (50, 50, 100));
    assert!(
        (249..=250).contains(&report.mismatched),
        "the last may come after the end: {report:?}"
    );
}

#[test]
fn nobody_listening_is_reported_and_ends() {
    let queries = names(50);
    let closed = listen(([127, 0, 0, 1], 0).into(), 1 << 16).expect("a loopback socket");
    let server = closed.local_addr().expect("bound");
    drop(closed);
    let timeout = Duration::from_millis(30);
    let report = run(&Load { timeout, ..load(server, &queries, Limit::Each) }).expect("runs");
    assert_eq!((report.sent, report.answered, report.lost), (50, 0, 50));
    assert!(report.unreachable > 0);
}

#[test]
fn shapes_that_cannot_be_are_refused() {
    let queries = names(1);
    let server = ([127, 0, 0, 1], 9).into();
    for (threads, sockets, window) in [(0, 1, 1), (2, 1, 8), (1, 2, 1), (1, 1, 4097), (1, 0, 0)] {
        let load = Load { threads, sockets, window, ..load(server, &queries, Limit::Each) };
        assert!(matches!(run(&load), Err(LoadError::Shape { .. })));
    }
    let load = Load { cores: &[1000], ..load(server, &queries, Limit::Each) };
    assert!(matches!(run(&load), Err(LoadError::Pin { core: 1000 })));
}

#[test]
fn an_open_loop_counts_from_when_a_query_was_due() {
    let queries = names(100);
    let report = against(
        |_, packet| {
            // A slow server, with one query at a time allowed.
            thread::sleep(Duration::from_millis(10));
            vec![packet.to_vec()]
        },
        |server| {
            let limit = Limit::For(Duration::from_millis(300));
            let load = Load { sockets: 1, window: 1, ..load(server, &queries, limit) };
            let options = Options { rate: Some(1000.0), ..Options::default() };
            run_with(&load, &options, &mut |_| {}).expect("runs")
        },
    );
    assert!(report.unsent > 100, "{report}");
    assert!(report.sent + report.unsent >= 300, "{report}");
    assert!(report.service.value_at_quantile(0.5) < report.latency.value_at_quantile(0.5));
    assert!(report.latency.max() > 150_000_000, "they were due long before: {report}");
    assert_ne!(report.verdict(), Verdict::Server);
}

#[test]
fn a_rate_is_kept_and_the_seconds_add_up() {
    let queries = names(100);
    let mut shown = 0;
    let report = against(
        |_, packet| vec![packet.to_vec()],
        |server| {
            let limit = Limit::For(Duration::from_millis(1500));
            let load = Load { threads: 2, ..load(server, &queries, limit) };
            let options = Options { rate: Some(1000.0), ..Options::default() };
            run_with(&load, &options, &mut |second| shown += second.sent).expect("runs")
        },
    );
    assert_eq!(report.sent + report.unsent, 1500);
    assert_eq!((report.seconds.len(), shown), (2, report.sent));
    let answered: u64 = report.seconds.iter().map(|second| second.answered).sum();
    assert_eq!(answered, report.answered);
    assert_eq!(report.service.len(), report.answered);
}

#[test]
fn a_stop_ends_a_run_that_would_go_on() {
    let (queries, stop) = (names(10), AtomicBool::new(false));
    let report = against(
        |_, packet| vec![packet.to_vec()],
        |server| {
            let load = load(server, &queries, Limit::For(Duration::from_secs(3600)));
            let options = Options { stop: Some(&stop), ..Options::default() };
            let mut end = |_: &Second| stop.store(true, Ordering::Relaxed);
            run_with(&load, &options, &mut end).expect("runs")
        },
    );
    assert!(report.answered > 0 && report.elapsed < Duration::from_secs(60));
}
