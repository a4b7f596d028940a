//! Upstreams that go and come back, or are slow: how soon answers flow again, that clients see nothing of
//! it while another upstream is up, and that the operator can see what is going on.

mod support;

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use support::upstream::{Upstream, silent};
use support::{PATIENCE, Swiftlet, ask, cleaned, free_port, program, query};
use swiftlet::upstream::report::Shown;

fn over(upstreams: &[SocketAddr], settings: &[(&str, &str)]) -> Swiftlet {
    let forward: Vec<String> = upstreams.iter().map(ToString::to_string).collect();
    let forward = forward.join(",");
    let mut all = vec![("FORWARD", forward.as_str())];
    all.extend_from_slice(settings);
    Swiftlet::start(&all)
}

/// An upstream that answers while its switch is on and is silent else.
fn switched() -> (Upstream, Arc<AtomicBool>) {
    let on = Arc::new(AtomicBool::new(true));
    let switch = Arc::clone(&on);
    let upstream = Upstream::start(move |asked| {
        if switch.load(Ordering::Relaxed) {
            asked.reply(&asked.answer(3600));
        }
    });
    (upstream, on)
}

/// An upstream that takes so many milliseconds for each answer, many at a time.
fn delayed(after_ms: u64) -> (Upstream, Arc<AtomicU64>) {
    let delay_ms = Arc::new(AtomicU64::new(after_ms));
    let delay = Arc::clone(&delay_ms);
    let upstream = Upstream::start(move |asked| match delay.load(Ordering::Relaxed) {
        0 => asked.reply(&asked.answer(3600)),
        ms => {
            let socket = asked.socket.try_clone().expect("another handle");
            let (answer, from) = (asked.answer(3600).to_vec().expect("an answer"), asked.from);
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(ms));
                let _ = socket.send_to(&answer, from);
            });
        }
    });
    (upstream, delay_ms)
}

/// Asks for a name that nobody asked for before: the code and how long it took.
fn ask_new(server: &Swiftlet, number: &mut usize) -> (ResponseCode, Duration) {
    *number += 1;
    let begun = Instant::now();
    let answer = ask(server.dns, &query(&format!("n{number}.example."), RecordType::A));
    (answer.metadata.response_code, begun.elapsed())
}

fn shown(server: &Swiftlet) -> Vec<Shown> {
    let (status, text) = server.get("/debug/upstreams");
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn after_an_outage_of_all_upstreams_answers_flow_within_two_seconds() {
    let (first, first_on) = switched();
    let (second, second_on) = switched();
    let server = over(&[first.address, second.address], &[("UPSTREAM_TIMEOUT_MS", "1000")]);
    let mut number = 0;
    for _ in 0..20 {
        assert_eq!(ask_new(&server, &mut number).0, ResponseCode::NoError);
    }
    for outage in [&[&first_on, &second_on][..], &[&second_on, &first_on][..]] {
        outage.iter().for_each(|on| on.store(false, Ordering::Relaxed));
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(3) {
            let (code, took) = ask_new(&server, &mut number);
            assert_eq!(code, ResponseCode::ServFail);
            assert!(took < Duration::from_secs(2), "{took:?}");
        }
        assert!(shown(&server).iter().all(|upstream| upstream.state != "closed"));
        // Only one of them comes back.
        outage[0].store(true, Ordering::Relaxed);
        let back = Instant::now();
        while ask_new(&server, &mut number).0 != ResponseCode::NoError {
            assert!(back.elapsed() < Duration::from_secs(2), "{:?}", shown(&server));
        }
        assert!(back.elapsed() < Duration::from_secs(2), "{:?}", back.elapsed());
        outage[1].store(true, Ordering::Relaxed);
    }
    let metrics = server.settled();
    assert!(metrics.get("servfail{cause=\"timeout\"}") >= 4);
    assert!(metrics.get("upstream_breaker_changes{to=\"open\"}") >= 2);
    assert!(metrics.get("upstream_probes") > 0);
}

#[test]
fn clients_see_nothing_of_it_while_one_of_two_is_down() {
    let (first, on) = switched();
    let (second, _) = switched();
    let server = over(&[first.address, second.address], &[]);
    let mut number = 0;
    for _ in 0..50 {
        assert_eq!(ask_new(&server, &mut number).0, ResponseCode::NoError);
    }
    assert!(second.asked() <= 10, "the first is preferred: {}", second.asked());
    on.store(false, Ordering::Relaxed);
    let begun = Instant::now();
    let mut slow = 0;
    while begun.elapsed() < Duration::from_secs(3) {
        let (code, took) = ask_new(&server, &mut number);
        assert_eq!(code, ResponseCode::NoError);
        assert!(took < Duration::from_secs(1), "{took:?}");
        slow += usize::from(took > Duration::from_millis(15));
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(slow < 100, "{slow} of {number} waited for the dead one");
    on.store(true, Ordering::Relaxed);
    let (before, deadline) = (first.asked(), Instant::now() + PATIENCE);
    while first.asked() < before + 50 {
        assert_eq!(ask_new(&server, &mut number).0, ResponseCode::NoError);
        assert!(Instant::now() < deadline, "the first is preferred again");
    }
    server.settled();
}

#[test]
fn flapping_upstreams_are_no_failures() {
    let (first, first_on) = switched();
    let (second, second_on) = switched();
    let server = over(&[first.address, second.address], &[]);
    let begun = Instant::now();
    let mut number = 0;
    while begun.elapsed() < Duration::from_secs(4) {
        // One of them is always up, never for long.
        let even = (begun.elapsed().as_millis() / 300).is_multiple_of(2);
        first_on.store(even, Ordering::Relaxed);
        second_on.store(!even, Ordering::Relaxed);
        assert_eq!(ask_new(&server, &mut number).0, ResponseCode::NoError);
    }
    assert_eq!(server.settled().sum("servfail"), 0);
}

#[test]
fn questions_move_from_a_slow_upstream_to_a_fast_one() {
    let (slow, _) = delayed(300);
    let (fast, _) = delayed(0);
    let server = over(&[slow.address, fast.address], &[]);
    let mut number = 0;
    for _ in 0..5 {
        assert_eq!(ask_new(&server, &mut number).0, ResponseCode::NoError);
    }
    // On a busy machine the fast one may lose a question now and then.
    let mut late = 0;
    for _ in 0..50 {
        let (code, took) = ask_new(&server, &mut number);
        assert_eq!(code, ResponseCode::NoError);
        late += usize::from(took > Duration::from_millis(200));
    }
    assert!(late <= 10, "{late} of 50 waited for the slow one: {:?}", shown(&server));
    assert!(fast.asked() >= 40 && slow.asked() < 25);
}

#[test]
fn a_hedge_rescues_a_question_from_a_slow_first() {
    let (first, delay_ms) = delayed(0);
    let (second, _) = delayed(0);
    let server = over(&[first.address, second.address], &[]);
    let mut number = 0;
    let deadline = Instant::now() + PATIENCE;
    // On a busy machine the first may be slow by itself, and answers as late as that expected.
    let (mut before, mut after) = (0, 0);
    while after == before {
        assert!(Instant::now() < deadline, "nothing is hedged: {:?}", shown(&server));
        delay_ms.store(0, Ordering::Relaxed);
        for _ in 0..100 {
            assert_eq!(ask_new(&server, &mut number).0, ResponseCode::NoError);
        }
        before = server.metrics().get("upstream_hedged");
        delay_ms.store(2_000, Ordering::Relaxed);
        let (code, took) = ask_new(&server, &mut number);
        assert_eq!(code, ResponseCode::NoError);
        assert!(took < Duration::from_secs(1), "{took:?}");
        after = server.metrics().get("upstream_hedged");
    }
    let metrics = server.settled();
    assert!(metrics.get("upstream_hedged") * 100 <= 3 * number as u64, "the budget");
}

#[test]
fn the_state_of_each_upstream_is_shown() {
    let upstream = Upstream::start(|asked| asked.reply(&asked.answer(3600)));
    let (_socket, dead) = silent();
    let server = over(&[dead, upstream.address], &[("UPSTREAM_TIMEOUT_MS", "400")]);
    let mut number = 0;
    let deadline = Instant::now() + PATIENCE;
    while shown(&server)[0].state == "closed" {
        assert_eq!(ask_new(&server, &mut number).0, ResponseCode::NoError);
        assert!(Instant::now() < deadline, "the dead one is given up: {:?}", shown(&server));
    }
    let states = shown(&server);
    assert_eq!(states[0].address, dead.to_string());
    assert!(states[0].failures["timeout"] >= 3 && states[0].loss > 0.0, "{states:?}");
    assert_eq!(states[0].last_error.as_ref().map(|last| last.class.as_str()), Some("timeout"));
    assert_eq!((states[0].answered, states[0].srtt_ms), (0, None));
    assert_eq!((states[1].state.as_str(), states[1].answered), ("closed", number as u64));
    assert!(states[1].srtt_ms.is_some_and(|ms| ms < 100.0), "{states:?}");

    let table = |http: SocketAddr| {
        let mut command = program();
        command.env("SWIFTLET_HTTP", http.to_string()).env("SWIFTLET_FORWARD", "192.0.2.1");
        command.arg("upstreams").output().expect("the program can be run")
    };
    let output = table(server.http);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.lines().nth(1).is_some_and(|line| line.contains("timeout")), "{text}");
    drop(server);
    let nobody = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let output = table(nobody);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains(&format!("no server answers on http://{nobody}/")), "{error}");
}

/// In a network namespace of its own, so that nothing else changes there.
#[test]
fn a_change_of_addresses_is_seen() {
    let inside = |pid: u32, command: &str| {
        let status = Command::new("nsenter")
            .args(["-t", &pid.to_string(), "-n", "sh", "-c", command])
            .stderr(Stdio::null())
            .status();
        status.is_ok_and(|status| status.success())
    };
    let able = Command::new("unshare")
        .args(["--net", "ip", "link", "set", "lo", "up"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !able {
        eprintln!("skipped: a network namespace needs root, unshare(1) and ip(8)");
        return;
    }
    let mut command = cleaned(Command::new("unshare"));
    command.args(["--net", "sh", "-c", "ip link set lo up && exec \"$0\""]);
    command.arg(program().get_program());
    command.env("SWIFTLET_LISTEN", "127.0.0.1:5300").env("SWIFTLET_FORWARD", "192.0.2.1");
    command.env("SWIFTLET_HTTP", "127.0.0.1:8053").env("SWIFTLET_LOG", "debug");
    let mut child = command.stderr(Stdio::piped()).spawn().expect("unshare can be run");
    let stderr = child.stderr.take().expect("stderr is piped");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(stderr)).map_while(Result::ok);
    let mut wait_for = |text: &str| lines.any(|line| line.contains(text));
    assert!(wait_for("INFO ready"));
    assert!(inside(child.id(), "ip address add 192.0.2.7/32 dev lo"));
    assert!(wait_for("addresses or routes changed"));
    child.kill().expect("it runs");
    let _ = child.wait();
}
