//! `swiftlet health`: asks the running server over DNS whether it answers. Needs neither the Internet nor
//! HTTP, so a container without a shell can check itself.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use swiftlet_parser::key::{KeyBuf, Seed, Variant};
use swiftlet_parser::message::write_query;
use swiftlet_parser::name::Name;
use swiftlet_parser::response::Response;
use swiftlet_parser::rr::{Class, Type};

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_millis(700);

/// Datagrams sent before giving up: under load one may be dropped.
const TRIES: usize = 3;

/// Asks every address that the server listens on for its version. Any answer is a good one, REFUSED
/// included: it shows that the server turns.
///
/// # Errors
///
/// When one of them does not answer.
pub fn check(listen: &[SocketAddr]) -> anyhow::Result<()> {
    let mut asked = 0;
    for &address in listen {
        let Some(server) = reachable(address) else { continue };
        ask(server).with_context(|| format!("no answer from {address}"))?;
        asked += 1;
    }
    ensure!(asked > 0, "the server listens on no address that can be asked");
    Ok(())
}

/// The address to ask a listener at: loopback for a wildcard, if there is one. A container without IPv6 can
/// bind `[::]`, but has no address that reaches it.
fn reachable(address: SocketAddr) -> Option<SocketAddr> {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    if address.ip().is_unspecified() && UdpSocket::bind((ip, 0)).is_err() {
        return None;
    }
    Some(match address {
        SocketAddr::V6(v6) if v6.scope_id() != 0 => address,
        _ => SocketAddr::new(ip, address.port()),
    })
}

fn ask(server: SocketAddr) -> anyhow::Result<()> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).context("cannot open a socket")?;
    socket.connect(server).context("cannot reach it")?;
    socket.set_read_timeout(Some(PATIENCE)).context("cannot set a time-out")?;

    let name = Name::from_text("version.bind").context("a valid name")?;
    let mut keys = KeyBuf::default();
    let variant = Variant::new(false, false, 0);
    let key = keys.build(&Seed::new(0), name.as_wire(), Type::TXT, Class::CH, variant);
    let id = rand::random();
    let mut packet = [0; 512];
    let len = write_query(&mut packet, id, &key, 512).context("a query")?;
    for _ in 0..TRIES {
        socket.send(&packet[..len])?;
        let mut answer = [0; 512];
        match socket.recv(&mut answer) {
            Ok(len) => match Response::parse(&answer[..len]) {
                Ok(response) if response.id() == id && response.is_answer_to(&key) => return Ok(()),
                _ => bail!("it answers with something else"),
            },
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error.into()),
        }
    }
    bail!("it is silent")
}
