//! What the authority answers: a pure function from a query to its reply.
//!
//! Everything follows from the name, so that a resolver that asks twice hears the same twice.

use swiftlet_parser::edns::OptWriter;
use swiftlet_parser::message::ReplyWriter;
use swiftlet_parser::name::{MAX_LABEL_LEN, MAX_NAME_LEN, Name};
use swiftlet_parser::query::{self, Query, Reject};
use swiftlet_parser::rr::{Class, Flags, HEADER_LEN, Rcode, Type};

use crate::random::mix;

/// Largest payload of a UDP reply; what is longer gets TC.
pub(crate) const UDP_MAX: usize = 1232;

/// The longest chain of CNAMEs: its records fit [`UDP_MAX`] behind any question.
pub const CHAIN_MAX: u8 = 16;

/// The longest text in a TXT record.
pub const TEXT_MAX: u16 = 60_000;

/// SOA RDATA: root as both names, serial 1, and an hour for every time but the minimum, which is
/// the TTL.
const SOA_HEAD: [u8; 18] = [0, 0, 0, 0, 0, 1, 0, 0, 14, 16, 0, 0, 14, 16, 0, 0, 14, 16];

/// The first label of the `n`th name in a chain of CNAMEs is this and `n`.
const CHAIN_LABEL: &[u8] = b"chain";

/// What is answered.
#[derive(Clone, Debug)]
pub struct Zone {
    /// What lies under it is answered, the rest refused.
    pub suffix: Name,
    /// TTL of every record, in seconds.
    pub ttl_s: u32,
    /// Bytes of text in a TXT answer.
    pub text_len: u16,
    /// CNAMEs before the answer, at most [`CHAIN_MAX`].
    pub chain: u8,
    /// Share of the names that don't exist, from 0 to 1.
    pub nxdomain_share: f64,
}

impl Default for Zone {
    fn default() -> Self {
        Self { suffix: Name::ROOT, ttl_s: 3600, text_len: 64, chain: 0, nxdomain_share: 0.0 }
    }
}

impl Zone {
    /// Turns the query in `buf[..len]` into its reply and returns its length: for type A and AAAA
    /// with one address, for TXT with text, for others with nothing and a SOA. REFUSED for another
    /// class than IN, BADVERS for a later version of EDNS, `None` for what is no query.
    pub(crate) fn answer(&self, buf: &mut [u8], len: usize, is_stream: bool) -> Option<usize> {
        let (query, edns_rcode) = match query::parse(buf.get(..len)?) {
            Ok(query) => (query, Rcode::NOERROR),
            Err(Reject::BadVersion(query)) => (query, Rcode::BADVERS),
            Err(_) => return None,
        };
        let limit =
            if is_stream { usize::from(u16::MAX) } else { query.payload_limit(UDP_MAX as u16) };
        let reserve = if query.edns.is_some() { swiftlet_parser::edns::OPT_LEN } else { 0 };
        let end = buf.len().min(limit).checked_sub(reserve)?;
        let place = &mut buf[..end];
        let written = if edns_rcode != Rcode::NOERROR {
            self.start(place, &query, edns_rcode, 0)
        } else if query.qclass != Class::IN {
            self.start(place, &query, Rcode::REFUSED, 0)
        } else {
            self.write(place, &query)
        };
        let end = match written {
            Some(end) => end,
            None => self.start(&mut buf[..end], &query, Rcode::NOERROR, Flags::TC)?,
        };
        let Some(edns) = query.edns else {
            return Some(end);
        };
        OptWriter::start(buf, end, UDP_MAX as u16, edns_rcode, edns.dnssec_ok)
            .map(OptWriter::finish)
    }

    /// The header and the question. An authority offers no recursion, whatever the writer says.
    fn start(&self, buf: &mut [u8], query: &Query, rcode: Rcode, flags: u16) -> Option<usize> {
        let end = ReplyWriter::start(buf, query, rcode)?.authoritative().finish();
        buf[2] |= (flags >> 8) as u8;
        buf[3] &= !(Flags::RA as u8);
        Some(end)
    }

    /// `None` if the reply doesn't fit.
    fn write(&self, buf: &mut [u8], query: &Query) -> Option<usize> {
        let mut name = [0; MAX_NAME_LEN];
        let qname_len = usize::from(query.qname_len);
        let qname = &mut name[..qname_len];
        qname.copy_from_slice(buf.get(HEADER_LEN..HEADER_LEN + qname_len)?);
        // No length of a label is a letter.
        qname.make_ascii_lowercase();
        let suffix = self.suffix.as_wire();
        let Some(suffix_at) = suffix_at(qname, suffix) else {
            return self.start(buf, query, Rcode::REFUSED, 0);
        };
        let (link, base_at) = chain_link(qname);
        let hash = hash(&qname[base_at..]);
        let is_apex = qname_len == suffix.len();
        let exists =
            is_apex || (mix(hash) >> 11) as f64 / (1u64 << 53) as f64 >= self.nxdomain_share;
        let rcode = if exists { Rcode::NOERROR } else { Rcode::NXDOMAIN };
        let at = self.start(buf, query, rcode, 0)?;
        let mut writer = Writer { buf, at, ttl_s: self.ttl_s, answers: 0, authorities: 0 };
        let mut owner = HEADER_LEN;
        if exists && !is_apex {
            // Room for a label of the chain in front of the name.
            let chain = if qname_len - base_at + CHAIN_LABEL.len() + 3 > MAX_NAME_LEN {
                0
            } else {
                self.chain
            };
            for link in link..chain {
                owner = writer.cname(owner, link + 1, HEADER_LEN + base_at)?;
            }
        }
        let answered = exists && self.data(&mut writer, query.qtype, owner, hash, is_apex)?;
        if !answered {
            let mut soa = [0; SOA_HEAD.len() + 4];
            soa[..SOA_HEAD.len()].copy_from_slice(&SOA_HEAD);
            soa[SOA_HEAD.len()..].copy_from_slice(&self.ttl_s.to_be_bytes());
            writer.record(HEADER_LEN + suffix_at, Type::SOA, &soa)?;
            writer.authorities += 1;
        }
        Some(writer.finish())
    }

    /// Writes the record asked for. `Some(false)` if the name has none of this type.
    fn data(
        &self,
        writer: &mut Writer<'_>,
        qtype: Type,
        owner: usize,
        hash: u64,
        is_apex: bool,
    ) -> Option<bool> {
        let [a, b, c, d, e, f, g, h] = hash.to_be_bytes();
        match qtype {
            // In 198.18.0.0/15 and 2001:2::/48, which are for benchmarks (RFC 2544, RFC 5180).
            Type::A => writer.record(owner, Type::A, &[198, 18 + (a & 1), b, c])?,
            Type::AAAA => writer.record(
                owner,
                Type::AAAA,
                &[0x20, 1, 0, 2, 0, 0, 0, 0, a, b, c, d, e, f, g, h],
            )?,
            Type::TXT => {
                let text = text(usize::from(self.text_len));
                writer.record(owner, Type::TXT, &text)?;
            }
            Type::SOA if is_apex => {
                let soa = [&SOA_HEAD[..], &self.ttl_s.to_be_bytes()].concat();
                writer.record(owner, Type::SOA, &soa)?;
            }
            Type::NS if is_apex => {
                let [high, low] = pointer(HEADER_LEN);
                writer.record(owner, Type::NS, &[2, b'n', b's', high, low])?;
            }
            _ => return Some(false),
        }
        writer.answers += 1;
        Some(true)
    }
}

/// Records behind the question, and their counts in the header.
struct Writer<'b> {
    buf: &'b mut [u8],
    at: usize,
    ttl_s: u32,
    answers: u16,
    authorities: u16,
}

impl Writer<'_> {
    /// A record whose owner stands at `owner_at` in the message. `None` if it doesn't fit.
    fn record(&mut self, owner_at: usize, rtype: Type, rdata: &[u8]) -> Option<()> {
        const FIXED_LEN: usize = 12;
        let [o0, o1] = pointer(owner_at);
        let [t0, t1] = rtype.0.to_be_bytes();
        let [l0, l1, l2, l3] = self.ttl_s.to_be_bytes();
        let [d0, d1] = (rdata.len() as u16).to_be_bytes();
        let place = self.buf.get_mut(self.at..self.at + FIXED_LEN + rdata.len())?;
        place[..FIXED_LEN].copy_from_slice(&[o0, o1, t0, t1, 0, 1, l0, l1, l2, l3, d0, d1]);
        place[FIXED_LEN..].copy_from_slice(rdata);
        self.at += FIXED_LEN + rdata.len();
        Some(())
    }

    /// A CNAME to the `link`th name of the chain; returns where that name stands.
    fn cname(&mut self, owner_at: usize, link: u8, base_at: usize) -> Option<usize> {
        let mut target = Vec::with_capacity(CHAIN_LABEL.len() + 5);
        target.push(0);
        target.extend_from_slice(CHAIN_LABEL);
        if link >= 10 {
            target.push(b'0' + link / 10);
        }
        target.push(b'0' + link % 10);
        target[0] = (target.len() - 1) as u8;
        target.extend_from_slice(&pointer(base_at));
        self.record(owner_at, Type::CNAME, &target)?;
        self.answers += 1;
        Some(self.at - target.len())
    }

    fn finish(self) -> usize {
        self.buf[6..8].copy_from_slice(&self.answers.to_be_bytes());
        self.buf[8..10].copy_from_slice(&self.authorities.to_be_bytes());
        self.at
    }
}

fn pointer(at: usize) -> [u8; 2] {
    (0xc000 | at as u16).to_be_bytes()
}

/// Where the labels of `suffix` begin in the name, if it ends in them.
fn suffix_at(qname: &[u8], suffix: &[u8]) -> Option<usize> {
    let want = qname.len().checked_sub(suffix.len())?;
    let mut at = 0;
    while at < want {
        at += 1 + usize::from(qname[at]);
    }
    (at == want && qname[at..].eq_ignore_ascii_case(suffix)).then_some(at)
}

/// Which name of a chain this is, 0 for its head, and where the head's labels begin in it.
fn chain_link(qname: &[u8]) -> (u8, usize) {
    let label_end = 1 + usize::from(qname[0]).min(MAX_LABEL_LEN);
    let digits = qname.get(1..label_end).and_then(|label| label.strip_prefix(CHAIN_LABEL));
    let link = digits.and_then(|digits| str::from_utf8(digits).ok()?.parse().ok());
    match link {
        Some(link @ 1..=CHAIN_MAX) => (link, label_end),
        _ => (0, 0),
    }
}

/// FNV-1a of a name in lower case.
fn hash(qname: &[u8]) -> u64 {
    qname.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// TXT RDATA with so many bytes of text, in strings of at most 255.
fn text(len: usize) -> Vec<u8> {
    let mut rdata = Vec::with_capacity(len + len / 255 + 1);
    let mut left = len;
    loop {
        let part = left.min(255);
        rdata.push(part as u8);
        rdata.resize(rdata.len() + part, b'x');
        left -= part;
        if left == 0 {
            return rdata;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use swiftlet_parser::response::{Response, Section};

    use super::*;

    fn ask(zone: &Zone, name: &str, qtype: Type, opt: bool, is_stream: bool) -> Vec<u8> {
        let mut query = vec![7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(opt)];
        query.extend_from_slice(Name::from_text(name).expect("a name").as_wire());
        query.extend_from_slice(&qtype.0.to_be_bytes());
        query.extend_from_slice(&Class::IN.0.to_be_bytes());
        if opt {
            query.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0x80, 0, 0, 0]);
        }
        let len = query.len();
        query.resize(65_535, 0);
        let len = zone.answer(&mut query, len, is_stream).expect("a reply");
        query.truncate(len);
        query
    }

    fn zone() -> Zone {
        Zone { suffix: Name::from_text("Example.com").expect("a name"), ..Zone::default() }
    }

    #[test]
    fn addresses_text_and_nothing() {
        for opt in [false, true] {
            for (qtype, rdata_len) in [(Type::A, 4), (Type::AAAA, 16), (Type::TXT, 65)] {
                let message = ask(&zone(), "www.eXample.com", qtype, opt, false);
                let response = Response::parse(&message).expect("a response");
                assert_eq!(response.has_edns(), opt);
                assert!(response.flags().aa() && !response.flags().ra());
                let answers: Vec<_> = response.section(Section::Answer).collect();
                assert_eq!((answers.len(), answers[0].ttl), (1, 3600));
                assert_eq!(answers[0].rdata().len(), rdata_len);
                let other = ask(&zone(), "www.example.COM", qtype, opt, false);
                assert_eq!(message[40..], other[40..], "the case of the name doesn't matter");
            }
            let message = ask(&zone(), "www.example.com", Type::TLSA, opt, false);
            let response = Response::parse(&message).expect("a response");
            assert_eq!(response.section(Section::Answer).count(), 0);
            let soa = response.section(Section::Authority).next().expect("a SOA");
            assert_eq!(soa.soa_minimum(), Some(3600));
            assert_eq!(soa.owner().expect("a name").as_wire(), b"\x07example\x03com\0");
        }
    }

    #[test]
    fn other_names_are_refused_and_the_apex_has_its_records() {
        for name in ["example.org", "com", ".", "notexample.com"] {
            let message = ask(&zone(), name, Type::A, false, false);
            assert_eq!(Response::parse(&message).expect("a response").rcode(), Rcode::REFUSED);
        }
        for qtype in [Type::SOA, Type::NS] {
            let message = ask(&zone(), "example.com", qtype, false, false);
            let response = Response::parse(&message).expect("a response");
            assert_eq!(response.section(Section::Answer).next().expect("a record").rtype, qtype);
        }
    }

    #[test]
    fn a_chain_is_the_same_from_each_of_its_names() {
        for chain in [1, 3, CHAIN_MAX] {
            let zone = Zone { chain, ..zone() };
            let message = ask(&zone, "a.example.com", Type::A, true, false);
            let response = Response::parse(&message).expect("a response");
            let records: Vec<_> = response.section(Section::Answer).collect();
            assert_eq!(records.len(), usize::from(chain) + 1);
            for pair in records.windows(2) {
                assert_eq!(pair[0].rtype, Type::CNAME);
                let target = pair[0].rdata_name(0).expect("a name");
                assert_eq!(target.as_wire(), pair[1].owner().expect("a name").as_wire());
            }
            let link = format!("chain{chain}.a.example.com");
            let last = ask(&zone, &link, Type::A, true, false);
            let response = Response::parse(&last).expect("a response");
            let last: Vec<_> = response.section(Section::Answer).collect();
            assert_eq!(last.len(), 1);
            assert_eq!(last[0].rdata(), records[usize::from(chain)].rdata());
        }
    }

    #[test]
    fn a_share_of_the_names_does_not_exist() {
        let zone = Zone { nxdomain_share: 0.3, ..zone() };
        let mut missing = 0;
        for number in 0..10_000 {
            let message = ask(&zone, &format!("n{number}.example.com"), Type::A, false, false);
            let response = Response::parse(&message).expect("a response");
            missing += u32::from(response.rcode() == Rcode::NXDOMAIN);
        }
        assert!((2_700..3_300).contains(&missing), "{missing}");
    }

    #[test]
    fn long_text_is_cut_over_udp_and_whole_over_tcp() {
        let zone = Zone { text_len: 4000, ..zone() };
        let message = ask(&zone, "t.example.com", Type::TXT, true, false);
        let response = Response::parse(&message).expect("a response");
        assert!(response.flags().tc() && response.has_edns());
        let message = ask(&zone, "t.example.com", Type::TXT, true, true);
        let response = Response::parse(&message).expect("a response");
        let record = response.section(Section::Answer).next().expect("a record");
        assert_eq!(record.rdata().len(), 4000 + 16);
    }

    proptest! {
        #[test]
        fn no_input_panics_and_replies_are_responses(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            labels in prop::collection::vec("[a-z0-9]{1,12}", 0..20),
            qtype in 1u16..70,
            chain in 0..=CHAIN_MAX,
        ) {
            let zone = Zone { chain, nxdomain_share: 0.2, ..Zone::default() };
            let mut buf = bytes.clone();
            buf.resize(1500, 0);
            let _ = zone.answer(&mut buf, bytes.len(), false);
            let message = ask(&zone, &format!("{}.", labels.join(".")), Type(qtype), true, false);
            prop_assert!(message.len() <= UDP_MAX);
            prop_assert!(Response::parse(&message).is_ok());
        }
    }
}
