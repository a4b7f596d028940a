//! What `/debug/upstreams` shows of each server, and `swiftlet upstreams` prints.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};

use super::Servers;
use super::backoff::Class;
use super::server::{Server, State};
use crate::config::Http;

/// How long the running server may take to say what it knows.
const PATIENCE: Duration = Duration::from_secs(3);

/// The longest answer: a thousand servers take some 700 KB.
const MAX_ANSWER_LEN: u64 = 16 << 20;

/// One server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shown {
    /// Address and port.
    pub address: String,
    /// The breaker: `closed`, `open` or `half-open`.
    pub state: String,
    /// Smoothed round trip; null while unknown.
    pub srtt_ms: Option<f64>,
    /// Its deviation.
    pub rttvar_ms: Option<f64>,
    /// Its 95th percentile, once there are samples enough.
    pub p95_ms: Option<f64>,
    /// Whether the machine's network changed since the last answer.
    pub old: bool,
    /// The share of tries without answer, lately.
    pub loss: f64,
    /// Tries, probes included.
    pub asked: u64,
    /// Good answers.
    pub answered: u64,
    /// Failures by class.
    pub failures: BTreeMap<String, u64>,
    /// Those of each class since the last good answer.
    pub failures_in_a_row: BTreeMap<String, u64>,
    /// Milliseconds from now until it may be asked again.
    pub backoff_until_ms: u64,
    /// The last failure.
    pub last_error: Option<LastError>,
}

/// The last failure of a server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastError {
    /// Its class.
    pub class: String,
    /// How long ago it was.
    pub seconds_ago: f64,
}

impl Servers {
    /// What is known of each, in the order of preference.
    #[must_use]
    pub fn shown(&self, now_ms: u64) -> Vec<Shown> {
        self.0.servers.iter().map(|server| Shown::of(server, now_ms)).collect()
    }
}

impl Shown {
    fn of(server: &Server, now_ms: u64) -> Self {
        let round_trip = server.round_trip();
        let smoothed = round_trip.smoothed();
        let (asked, answered) = server.counts();
        let by_class = |count: fn((u64, u32)) -> u64| {
            Class::ALL.map(|class| (class.name().to_owned(), count(server.failures(class)))).into()
        };
        Self {
            address: server.address.to_string(),
            state: match server.state(now_ms) {
                State::Closed => "closed",
                State::Open => "open",
                State::HalfOpen => "half-open",
            }
            .into(),
            srtt_ms: smoothed.map(|(srtt, _)| f64::from(srtt) / 1_000.0),
            rttvar_ms: smoothed.map(|(_, rttvar)| f64::from(rttvar) / 1_000.0),
            p95_ms: round_trip.p95().map(|p95: Duration| p95.as_secs_f64() * 1_000.0),
            old: smoothed.is_some() && round_trip.is_old(),
            loss: (server.loss(now_ms) * 1_000.0).round() / 1_000.0,
            asked,
            answered,
            failures: by_class(|(total, _)| total),
            failures_in_a_row: by_class(|(_, in_a_row)| in_a_row.into()),
            backoff_until_ms: server.backoff_until_ms(false).saturating_sub(now_ms),
            last_error: server.last_error().map(|last| LastError {
                class: last.class.name().into(),
                seconds_ago: now_ms.saturating_sub(last.at_ms) as f64 / 1_000.0,
            }),
        }
    }
}

/// Asks the running server, at the address where its settings have HTTP.
///
/// # Errors
///
/// When HTTP is off or no server answers there.
pub fn fetch(http: Http) -> anyhow::Result<Vec<Shown>> {
    let Http::On(address) = http else {
        bail!("SWIFTLET_HTTP is off, so a running server cannot be asked");
    };
    let answer = get(reachable(address), "/debug/upstreams").with_context(|| {
        format!("no server answers on http://{address}/ (is it running with this SWIFTLET_HTTP?)")
    })?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer is not HTTP")?;
    let status = head.lines().next().unwrap_or_default();
    ensure!(status.contains(" 200 "), "http://{address}/debug/upstreams answers '{status}'");
    serde_json::from_str(body).context("the answer makes no sense: is that server a swiftlet?")
}

/// Where a server that listens on an address is asked: on loopback if it listens everywhere.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// One GET of HTTP/1.0, which has no parts to put together.
fn get(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER_LEN).read_to_string(&mut answer)?;
    Ok(answer)
}

/// The servers as a table for people.
#[must_use]
pub fn table(servers: &[Shown]) -> String {
    let header = [
        "upstream",
        "state",
        "srtt",
        "p95",
        "loss",
        "asked",
        "answered",
        "failed",
        "back-off",
        "last error",
    ];
    let rows = servers.iter().map(Shown::cells);
    let rows: Vec<[String; 10]> = [header.map(str::to_owned)].into_iter().chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |row: &[String; 10]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

impl Shown {
    fn cells(&self) -> [String; 10] {
        let ms = |ms: Option<f64>| ms.map_or_else(|| "-".into(), |ms| format!("{ms:.1} ms"));
        let failed: Vec<String> = self
            .failures
            .iter()
            .filter(|&(_, &count)| count > 0)
            .map(|(class, count)| format!("{class} {count}"))
            .collect();
        let last = self.last_error.as_ref();
        let old = if self.old { " (old)" } else { "" };
        [
            self.address.clone(),
            self.state.clone(),
            ms(self.srtt_ms) + old,
            ms(self.p95_ms),
            format!("{:.1} %", self.loss * 100.0),
            self.asked.to_string(),
            self.answered.to_string(),
            if failed.is_empty() { "-".into() } else { failed.join(", ") },
            match self.backoff_until_ms {
                0 => "-".into(),
                ms => format!("{ms} ms"),
            },
            last.map_or_else(
                || "-".into(),
                |last| format!("{} {:.0} s ago", last.class, last.seconds_ago),
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn a_server_is_shown_as_json_and_as_a_row() {
        let servers =
            Servers::new(&["192.0.2.1:53".parse().unwrap(), "[2001:db8::1]:53".parse().unwrap()]);
        let first = &servers.0.servers[0];
        let mut random = StdRng::seed_from_u64(1);
        let took = Duration::from_millis(8);
        first.asks();
        first.answered(took, 1_000);
        (0..3).for_each(|_| {
            first.failed(Class::Timeout, took, (2_000, 2_000), &mut random);
        });
        let shown = servers.shown(4_000);
        let text = serde_json::to_string(&shown).unwrap();
        assert_eq!(serde_json::from_str::<Vec<Shown>>(&text).unwrap(), shown);
        assert_eq!((shown[0].state.as_str(), shown[0].srtt_ms), ("open", Some(8.0)));
        assert_eq!((shown[0].asked, shown[0].answered), (1, 1));
        assert_eq!((shown[0].failures["timeout"], shown[0].failures_in_a_row["timeout"]), (3, 3));
        let last = LastError { class: "timeout".into(), seconds_ago: 2.0 };
        assert_eq!(shown[0].last_error, Some(last));
        assert_eq!((shown[1].srtt_ms, &shown[1].last_error), (None, &None));

        let table = table(&shown);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 3, "{table}");
        assert!(lines[1].starts_with("192.0.2.1:53      open    8.0 ms"), "{table}");
        assert!(lines[1].ends_with("timeout 2 s ago"), "{table}");
    }
}
