//! A service that knows some names, and batches of packets for it.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use swiftlet::cache::AnswerCache;
use swiftlet::edns::Settings;
use swiftlet::flush::Flushes;
use swiftlet::pipeline::{Batch, Service, Shaper, Transport, Verdict, serve};
use swiftlet::policy::{Acl, Identity, Policies, special_use};
use swiftlet::telemetry::Board;
use swiftlet_cache::{Config, Kind, NewEntry, Store as _};
use swiftlet_net::clock::Now;
use swiftlet_parser::key::KeyBuf;

use super::stored::{self, Keys};
use super::{answers, names};

/// Packets in a batch, as the worker's backend receives them.
pub(crate) const BATCH: usize = 64;

/// A client that is served.
pub(crate) const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A client that is refused.
pub(crate) const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// Bytes of a packet's buffer.
const SLOT_LEN: usize = 4096;

const STORED_AT: Now = Now { boot_ms: 1_000_000, wall_s: 1_700_000_000 };
const SERVED_AT: Now = Now { boot_ms: 1_060_000, wall_s: 1_700_000_060 };

/// A service and what its worker counts.
pub(crate) struct Served {
    service: Service,
    board: Board,
}

impl Served {
    /// Knows one A record of each of the first `names` usual names.
    pub(crate) fn new(names: u64) -> Self {
        let networks: [IpNet; 1] = [IpNet::new(CLIENT, 8).expect("a network")];
        let service = Service {
            policies: Policies {
                acl: Acl::new(&networks),
                identity: Identity::new("bench", None),
                special_use: special_use::Zones::default(),
            },
            edns: Settings { udp_size: 1232, nsid: None, keepalive_100ms: 100 },
            cache: AnswerCache::new(Config::new(1 << 26)),
            flushes: Flushes::default(),
            seed: stored::seed(),
        };
        let keys = Keys::of(0..names);
        for (number, key) in (0..names).zip(keys.iter()) {
            let answer = answers::template(&answers::address(&names::usual(number)));
            let entry =
                NewEntry { answer: &answer, ttl_s: answers::TTL_S, stale_s: 0, kind: Kind::Data };
            service.cache.insert(key, entry, STORED_AT.boot_ms);
        }
        service.cache.settle();
        Self { service, board: Board::new(1) }
    }

    /// Serves all packets as one batch; returns the bytes of their replies.
    #[inline(always)]
    pub(crate) fn serve(&self, packets: &mut Packets, client: IpAddr) -> usize {
        let counters = &self.board.workers()[0];
        let shaper = Shaper { service: &self.service, counters, transport: Transport::Udp };
        let batch = Batch { shaper, pin: self.service.cache.pin(), now: SERVED_AT };
        let mut bytes = 0;
        for (buf, &len) in packets.bytes.chunks_exact_mut(SLOT_LEN).zip(&packets.lens) {
            if let Verdict::Reply(len) = serve(&batch, &mut packets.keys, buf, len, client) {
                bytes += len;
            }
        }
        bytes
    }
}

/// Packets, each in its own buffer, and where their keys are built.
pub(crate) struct Packets {
    bytes: Vec<u8>,
    lens: Vec<usize>,
    keys: KeyBuf,
}

impl Packets {
    /// Buffers for one batch.
    pub(crate) fn new() -> Self {
        Self { bytes: vec![0; BATCH * SLOT_LEN], lens: Vec::new(), keys: KeyBuf::default() }
    }

    /// Receives packets, as many as a batch has at most.
    pub(crate) fn fill<'p>(&mut self, packets: impl Iterator<Item = &'p [u8]>) {
        self.lens.clear();
        for (buf, packet) in self.bytes.chunks_exact_mut(SLOT_LEN).zip(packets) {
            buf[..packet.len()].copy_from_slice(packet);
            self.lens.push(packet.len());
        }
    }
}
