//! A name server that answers anything, for a resolver under test to ask.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use swiftlet_net::client::{Datagrams, listen};
use swiftlet_parser::edns::OptWriter;
use swiftlet_parser::message::ReplyWriter;
use swiftlet_parser::query;
use swiftlet_parser::rr::{Class, Rcode, Type};

/// TTL of every record, in seconds.
const TTL_S: u32 = 3600;

/// Largest query that is read and largest reply that is written.
const MESSAGE_LEN: usize = 1232;

/// Datagrams per system call.
const BATCH: usize = 64;

/// How often the thread looks whether it should end.
const STOP_WAIT: Duration = Duration::from_millis(50);

/// SOA RDATA of an empty answer: root as both names, serial 1, and an hour for every time.
const SOA: [u8; 22] = [0, 0, 0, 0, 0, 1, 0, 0, 14, 16, 0, 0, 14, 16, 0, 0, 14, 16, 0, 0, 14, 16];

/// A thread that answers every query of class IN over UDP: for type A with one address, which is
/// made from the name, for every other type with an empty answer and a SOA.
///
/// What is no query, or of another class, gets no reply. Dropping it ends the thread.
#[derive(Debug)]
pub struct Authority {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    answered: AtomicU64,
}

impl Authority {
    /// Starts it on this address; with port 0, on a free port.
    pub fn start(address: SocketAddr) -> io::Result<Self> {
        let socket = listen(address, 1 << 20)?;
        socket.set_read_timeout(Some(STOP_WAIT))?;
        let address = socket.local_addr()?;
        let shared = Arc::<Shared>::default();
        let serve = {
            let shared = Arc::clone(&shared);
            move || serve(&socket, &shared)
        };
        let thread = thread::Builder::new().name("authority".to_owned()).spawn(serve)?;
        Ok(Self { address, shared, thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Replies sent so far.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// Waits for the thread, which ends by itself only when its socket fails.
    pub fn wait(mut self) {
        if let Some(thread) = self.thread.take() {
            // A panic has been reported by its hook already.
            let _ = thread.join();
        }
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic has been reported by its hook already.
            let _ = thread.join();
        }
    }
}

fn serve(socket: &UdpSocket, shared: &Shared) {
    let mut batch = Datagrams::addressed(BATCH, MESSAGE_LEN);
    while !shared.stop.load(Ordering::Relaxed) {
        match batch.receive_waiting(socket) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                eprintln!("the authority ends: {error}");
                return;
            }
        }
        batch.rewrite(answer);
        let mut sent = 0;
        while sent < batch.len() {
            // A datagram that the kernel refuses is skipped, as lost ones are.
            let accepted = batch.send(socket, sent).unwrap_or(0);
            shared.answered.fetch_add(accepted as u64, Ordering::Relaxed);
            sent += accepted.max(1);
        }
    }
}

/// Turns the query in `buf[..len]` into its reply.
fn answer(buf: &mut [u8], len: usize) -> Option<usize> {
    let packet = buf.get(..len)?;
    let query = query::parse(packet).ok()?;
    if query.qclass != Class::IN {
        return None;
    }
    let address = address_of(query.qname(packet));
    let mut reply = ReplyWriter::start(buf, &query, Rcode::NOERROR)?.authoritative();
    if query.qtype == Type::A {
        reply.answer(Type::A, Class::IN, TTL_S, &address);
    } else {
        reply.authority(0, Type::SOA, Class::IN, TTL_S, &SOA);
    }
    let end = reply.finish();
    let Some(edns) = query.edns else {
        return Some(end);
    };
    OptWriter::start(buf, end, MESSAGE_LEN as u16, Rcode::NOERROR, edns.dnssec_ok)
        .map(OptWriter::finish)
}

/// An address in 198.18.0.0/15 (RFC 2544, for benchmarks), the same for every letter case.
fn address_of(qname: &[u8]) -> [u8; 4] {
    let hash = qname.iter().fold(0u32, |hash, byte| {
        (hash ^ u32::from(byte.to_ascii_lowercase())).wrapping_mul(0x0100_0193)
    });
    let [high, low, ..] = hash.to_be_bytes();
    [198, 18 + (hash as u8 & 1), high, low]
}

#[cfg(test)]
mod tests {
    use swiftlet_parser::name::Name;
    use swiftlet_parser::response::{Response, Section};

    use super::*;
    use crate::{Limit, Load, Queries, run};

    fn reply_to(name: &str, qtype: Type, opt: bool) -> Vec<u8> {
        let mut query = vec![7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(opt)];
        query.extend_from_slice(Name::from_text(name).expect("a name").as_wire());
        query.extend_from_slice(&qtype.0.to_be_bytes());
        query.extend_from_slice(&Class::IN.0.to_be_bytes());
        if opt {
            query.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0x80, 0, 0, 0]);
        }
        let len = query.len();
        query.resize(MESSAGE_LEN, 0);
        let len = answer(&mut query, len).expect("a reply");
        query.truncate(len);
        query
    }

    #[test]
    fn an_address_or_an_empty_answer() {
        for opt in [false, true] {
            let message = reply_to("www.Example.com", Type::A, opt);
            let response = Response::parse(&message).expect("a response");
            assert_eq!(response.has_edns(), opt);
            let answers: Vec<_> = response.section(Section::Answer).collect();
            assert_eq!((answers.len(), answers[0].ttl), (1, TTL_S));
            assert_eq!(answers[0].rdata(), address_of(b"\x03www\x07example\x03com\0"));

            let message = reply_to("www.example.com", Type::AAAA, opt);
            let response = Response::parse(&message).expect("a response");
            assert_eq!(response.section(Section::Answer).count(), 0);
            let soa = response.section(Section::Authority).next().expect("a SOA");
            assert_eq!(soa.soa_minimum(), Some(TTL_S));
        }
    }

    #[test]
    fn it_serves_a_load_and_ends() {
        let authority = Authority::start(([127, 0, 0, 1], 0).into()).expect("started");
        let queries = Queries::for_names(["a.example", "b.example", "c.example"]).expect("names");
        let report = run(&Load {
            server: authority.address(),
            queries: &queries,
            sockets: 1,
            window: 2,
            limit: Limit::Each,
            timeout: Duration::from_secs(5),
            threads: 1,
            cores: &[],
        });
        assert_eq!(report.expect("runs").rcodes[0], 3);
        assert_eq!(authority.answered(), 3);
    }
}
