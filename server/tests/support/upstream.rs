//! A small upstream that misbehaves as told, over UDP and TCP.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, SOA, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// An upstream whose behaviour is a closure. Its threads end with the process.
pub struct Upstream {
    pub address: SocketAddr,
    asked: Arc<AtomicUsize>,
    asked_over_tcp: Arc<AtomicUsize>,
}

/// One question over UDP, and the means to answer it.
pub struct Asked<'a> {
    /// The query as it came.
    pub message: Message,
    /// Who asked.
    pub from: SocketAddr,
    /// The socket that was asked.
    pub socket: &'a UdpSocket,
}

impl Asked<'_> {
    /// Sends a message back.
    pub fn reply(&self, message: &Message) {
        let _ = self.socket.send_to(&message.to_vec().expect("a response"), self.from);
    }

    /// A right answer: one A record with this TTL.
    pub fn answer(&self, ttl: u32) -> Message {
        answer_to(&self.message, ttl)
    }
}

/// The name that a query asks for, in lower case: upstreams are asked in random case.
pub fn name_of(query: &Message) -> String {
    query.queries[0].name().to_lowercase().to_ascii()
}

/// The response to a query with one A record, or one TXT record if that is asked for.
pub fn answer_to(query: &Message, ttl: u32) -> Message {
    let mut answer = failure(query, ResponseCode::NoError);
    answer.metadata.recursion_available = true;
    let name = query.queries[0].name().clone();
    let rdata = match query.queries[0].query_type() {
        RecordType::TXT => RData::TXT(TXT::new(vec!["text".into()])),
        _ => RData::A(A::new(192, 0, 2, 1)),
    };
    answer.add_answer(Record::from_rdata(name, ttl, rdata));
    answer
}

/// The response to a query without data: NXDOMAIN, or NOERROR when only the type is absent, with the SOA
/// of `example.` and this TTL.
pub fn absence(query: &Message, code: ResponseCode, ttl: u32) -> Message {
    let mut answer = failure(query, code);
    let name = |text| Name::from_ascii(text).expect("a name");
    let soa = SOA::new(name("ns.example."), name("admin.example."), 1, 2, 3, 4, ttl);
    answer.add_authority(Record::from_rdata(name("example."), ttl, RData::SOA(soa)));
    answer
}

/// The response to a query with nothing but a code.
pub fn failure(query: &Message, code: ResponseCode) -> Message {
    let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
    answer.metadata.response_code = code;
    answer.add_query(query.queries[0].clone());
    answer
}

impl Upstream {
    /// Starts an upstream that does this for each datagram, and refuses TCP.
    pub fn start(serve: impl FnMut(Asked<'_>) + Send + 'static) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        Self::serve_udp(socket, serve)
    }

    /// As [`start`](Self::start), and answers over TCP what `stream` makes of the query; nothing closes
    /// the connection.
    pub fn with_tcp(
        serve: impl FnMut(Asked<'_>) + Send + 'static,
        stream: impl Fn(Message) -> Option<Vec<u8>> + Send + 'static,
    ) -> Self {
        let (socket, listener) = loop {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
            if let Ok(listener) = TcpListener::bind(socket.local_addr().expect("an address")) {
                break (socket, listener);
            }
        };
        let upstream = Self::serve_udp(socket, serve);
        let asked = Arc::clone(&upstream.asked_over_tcp);
        std::thread::spawn(move || {
            for mut connection in listener.incoming().flatten() {
                asked.fetch_add(1, Ordering::Relaxed);
                let _ = serve_stream(&mut connection, &stream);
            }
        });
        upstream
    }

    fn serve_udp(socket: UdpSocket, mut serve: impl FnMut(Asked<'_>) + Send + 'static) -> Self {
        let address = socket.local_addr().expect("a bound socket has an address");
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        std::thread::spawn(move || {
            let mut packet = [0; 4096];
            while let Ok((len, from)) = socket.recv_from(&mut packet) {
                counter.fetch_add(1, Ordering::Relaxed);
                let message =
                    Message::from_vec(&packet[..len]).expect("our queries are well-formed");
                serve(Asked { message, from, socket: &socket });
            }
        });
        Self { address, asked, asked_over_tcp: Arc::default() }
    }

    /// Datagrams so far.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// TCP connections so far.
    pub fn asked_over_tcp(&self) -> usize {
        self.asked_over_tcp.load(Ordering::Relaxed)
    }
}

fn serve_stream(
    connection: &mut TcpStream,
    answer: &impl Fn(Message) -> Option<Vec<u8>>,
) -> std::io::Result<()> {
    let mut length = [0; 2];
    connection.read_exact(&mut length)?;
    let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
    connection.read_exact(&mut query)?;
    let message = Message::from_vec(&query).expect("our queries are well-formed");
    if let Some(bytes) = answer(message) {
        connection.write_all(&(bytes.len() as u16).to_be_bytes())?;
        connection.write_all(&bytes)?;
    }
    Ok(())
}

/// An address on which nobody answers and nobody refuses: a bound socket that is never read.
pub fn silent() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let address = socket.local_addr().expect("a bound socket has an address");
    (socket, address)
}
