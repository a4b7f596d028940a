//! The OPT record of a reply (RFC 6891 §6.1.1): always made afresh, never the client's or the
//! upstream's. Options that the server acts on each have a place in [`Settings::room`] and
//! [`Settings::finish`]; the room is set aside before an answer is rendered, so an answer is cut
//! rather than its OPT record left out.

use swiftlet_parser::edns::{OPT_LEN, OptWriter, keepalive, nsid};
use swiftlet_parser::query::Query;
use swiftlet_parser::rr::Rcode;

use crate::pipeline::{Explanation, Transport};

/// An option's code and length fields (RFC 6891 §6.1.2).
const OPTION_HEAD_LEN: usize = 4;

/// What the OPT record of every reply says.
#[derive(Debug)]
pub struct Settings {
    /// The largest UDP payload this server sends and asks for, in bytes: 512 to 4,096.
    pub udp_size: u16,
    /// This instance's name, for clients that ask with NSID (RFC 5001); 255 bytes at most.
    pub nsid: Option<Box<[u8]>>,
    /// How long an idle TCP connection stays open, in units of 100 ms, for clients that ask (RFC 7828).
    pub keepalive_100ms: u16,
}

impl Settings {
    /// Bytes that the OPT record of the reply to this query takes; 0 when the query had none.
    #[must_use]
    pub fn room(&self, query: &Query, transport: Transport, explanation: Explanation<'_>) -> usize {
        if query.edns.is_none() {
            return 0;
        }
        let nsid = self.nsid_for(query).map_or(0, |nsid| OPTION_HEAD_LEN + nsid.len());
        // The info code is 2 bytes, the text follows (RFC 8914 §2).
        let error = explanation.map_or(0, |(_, text)| OPTION_HEAD_LEN + 2 + text.len());
        let keepalive = if wants_keepalive(query, transport) { OPTION_HEAD_LEN + 2 } else { 0 };
        OPT_LEN + nsid + keepalive + error
    }

    /// Appends the OPT record to a reply of `len` bytes and returns its new length; `None` when even
    /// an empty one does not fit into `buf`. A query without EDNS gets none (RFC 6891 §6.1.1).
    #[must_use]
    pub fn finish(
        &self,
        buf: &mut [u8],
        len: usize,
        query: &Query,
        transport: Transport,
        rcode: Rcode,
        explanation: Explanation<'_>,
    ) -> Option<usize> {
        if query.edns.is_none() {
            return Some(len);
        }
        let mut opt = OptWriter::start(buf, len, self.udp_size, rcode, query.dnssec_ok())?;
        if let Some(name) = self.nsid_for(query) {
            nsid::write(&mut opt, name);
        }
        if wants_keepalive(query, transport) {
            keepalive::write(&mut opt, self.keepalive_100ms);
        }
        if let Some((error, text)) = explanation {
            opt.extended_error(error, text);
        }
        Some(opt.finish())
    }

    fn nsid_for(&self, query: &Query) -> Option<&[u8]> {
        query.edns.filter(|edns| edns.options.has_nsid()).and(self.nsid.as_deref())
    }
}

/// Over UDP the option has no meaning and is ignored (RFC 7828 §3.2.2).
fn wants_keepalive(query: &Query, transport: Transport) -> bool {
    transport == Transport::Stream && query.edns.is_some_and(|edns| edns.options.has_keepalive())
}
