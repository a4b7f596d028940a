//! A server for the tests of the transport: sockets in the test's own hands, and what to say through them.

use std::net::SocketAddr;

use swiftlet_parser::key::{Key, KeyBuf, Seed, Variant};
use swiftlet_parser::name::Name;
use swiftlet_parser::rr::{Class, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

/// Bytes of the OPT record that ends each query.
const OPT_LEN: usize = 11;

/// A question for addresses, as the transport is given it.
pub(super) struct Question(Vec<u8>);

impl Question {
    pub(super) fn new(name: &str) -> Self {
        Self::with(name, false)
    }

    pub(super) fn with(name: &str, dnssec_ok: bool) -> Self {
        let name = Name::from_text(name).expect("a name");
        let variant = Variant::new(dnssec_ok, false, 0);
        let mut keys = KeyBuf::default();
        let key = keys.build(&Seed::new(1), name.as_wire(), Type::A, Class::IN, variant);
        Self(key.bytes.to_vec())
    }

    pub(super) fn key(&self) -> Key<'_> {
        Key::from_bytes(1, &self.0).expect("the bytes of a key")
    }
}

/// A bound socket, and its address.
pub(super) async fn udp() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
    let address = socket.local_addr().expect("an address");
    (socket, address)
}

/// A listener, and its address.
pub(super) async fn tcp() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

/// The next query that comes in a datagram, and from where.
pub(super) async fn query(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut packet = vec![0; 512];
    let (len, from) = socket.recv_from(&mut packet).await.expect("a query");
    packet.truncate(len);
    (packet, from)
}

/// The next query that comes over a connection; `None` at its end.
pub(super) async fn framed_query(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let len = stream.read_u16().await.ok()?;
    let mut message = vec![0; len.into()];
    stream.read_exact(&mut message).await.ok()?;
    Some(message)
}

/// Writes a message with its length.
pub(super) async fn write_framed(stream: &mut TcpStream, message: &[u8]) {
    let mut frame = (message.len() as u16).to_be_bytes().to_vec();
    frame.extend_from_slice(message);
    stream.write_all(&frame).await.expect("the other side reads");
}

/// The response to a query: no records, but an OPT record if the query has one.
pub(super) fn answer(query: &[u8]) -> Vec<u8> {
    let mut answer = query.to_vec();
    answer[2] |= 0x80;
    answer
}

/// The same with an RCODE and without an OPT record.
pub(super) fn refusal(query: &[u8], rcode: u8) -> Vec<u8> {
    let mut answer = answer(query);
    if has_opt(query) {
        answer.truncate(answer.len() - OPT_LEN);
    }
    answer[3] = answer[3] & 0xf0 | rcode;
    answer[11] = 0;
    answer
}

/// The same with the name in lower case.
pub(super) fn in_lower_case(mut message: Vec<u8>) -> Vec<u8> {
    message[12..].make_ascii_lowercase();
    message
}

pub(super) fn has_opt(query: &[u8]) -> bool {
    query[11] == 1
}
