//! A real authoritative server, knotd of Debian's package knot, as the upstream.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hickory_proto::rr::RecordType;
use tempfile::TempDir;

use super::{PATIENCE, exchange, free_port, query};

/// Names `n0.many.example.` and so on in [`ZONE_HEAD`]'s zone.
pub const NAMES: u32 = 10_000;

/// The zone `example.`, besides its many names.
const ZONE_HEAD: &str = "$ORIGIN example.
$TTL 3600
@       SOA   ns hostmaster 1 3600 600 86400 300
@       NS    ns
ns      A     192.0.2.53
www     A     192.0.2.80
www     AAAA  2001:db8::80
*.wild  A     192.0.2.99
alias   CNAME www
chain   CNAME alias
outside CNAME www.elsewhere.test.
old     DNAME new
a.new   A     192.0.2.44
mail    MX    10 mx1
mail    MX    20 mx2
short   5 A   192.0.2.5
zero    0 A   192.0.2.6
srv     SRV   1 2 3 www
secret  TXT   \"one\" \"two\"
future  TYPE65280 \\# 4 0A000001
";

/// The zone `signed.example.`, which knotd signs by itself.
const SIGNED_ZONE: &str = "$ORIGIN signed.example.
$TTL 3600
@       SOA   ns hostmaster 1 3600 600 86400 300
@       NS    ns
ns      A     192.0.2.53
www     A     192.0.2.80
*.wild  A     192.0.2.99
alias   CNAME www
";

/// A running knotd, ended when dropped.
pub struct Knot {
    pub address: SocketAddr,
    child: Child,
    _home: TempDir,
}

impl Knot {
    /// Starts knotd with the zone and waits until it answers.
    pub fn start() -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], free_port())))
    }

    /// As [`start`](Self::start), on a given address.
    pub fn start_at(address: SocketAddr) -> Self {
        Self::start_by(Command::new("knotd"), address)
    }

    /// As [`start_at`](Self::start_at), by a command that ends with the program's name.
    pub fn start_by(mut knotd: Command, address: SocketAddr) -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        let path = home.path().display();
        let config = format!(
            "server:\n    listen: {}@{}\n    rundir: {path}\n    udp-workers: 1\n    tcp-workers: 1\n\
             database:\n    storage: {path}\nlog:\n  - target: stderr\n    any: error\n\
             zone:\n  - domain: example\n    file: {path}/zone\n  \
             - domain: signed.example\n    file: {path}/signed\n    dnssec-signing: on\n",
            address.ip(),
            address.port()
        );
        std::fs::write(home.path().join("knot.conf"), config).expect("a file can be written");
        std::fs::write(home.path().join("zone"), zone()).expect("a file can be written");
        std::fs::write(home.path().join("signed"), SIGNED_ZONE).expect("a file can be written");
        let child = knotd
            .arg("-c")
            .arg(home.path().join("knot.conf"))
            .stdout(Stdio::null())
            .spawn()
            .expect("knotd runs: `make test` installs Debian's package knot");
        let knot = Self { address, child, _home: home };
        let question = query("ns.example.", RecordType::A).to_vec().expect("a query");
        let deadline = Instant::now() + PATIENCE;
        while exchange(address, &question, Duration::from_millis(50)).is_none() {
            assert!(Instant::now() < deadline, "knotd does not answer on {address}");
        }
        knot
    }
}

impl Drop for Knot {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn zone() -> String {
    let mut zone = String::from(ZONE_HEAD);
    let strings = vec![format!("\"{}\"", "x".repeat(200)); 20].join(" ");
    let _ = writeln!(zone, "big TXT {strings}");
    for host in 1..=40 {
        let _ = writeln!(zone, "crowd A 192.0.2.{host}");
    }
    for name in 0..NAMES {
        let [_, b, c, d] = name.to_be_bytes();
        let _ = writeln!(zone, "n{name}.many A 10.{b}.{c}.{d}");
    }
    zone
}
