//! EDNS (RFC 6891): what the OPT record of a query says, and the OPT record of a reply.
//!
//! One file per option, and one row per option in `OptionSet::of`. The options of a query are
//! walked once, when it is parsed; only the cookie's bytes are kept, of the others that they were
//! there.

pub mod cookie;
pub mod ede;
pub mod keepalive;
pub mod nsid;

pub use self::cookie::Cookie;
pub use self::ede::ExtendedError;

use crate::rr::{HEADER_LEN, Rcode, Type};

/// Bytes of an OPT record without options: root owner, type, size, flags, length (RFC 6891 §6.1.2).
pub const OPT_LEN: usize = 11;

/// The DO bit among the flags of the OPT record (RFC 3225).
const DNSSEC_OK: u16 = 0x8000;

/// Offset of ARCOUNT in the header.
const ARCOUNT_AT: usize = 10;

/// What the OPT record of a query says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns {
    /// The largest UDP payload that the client can take, in bytes, as it said it; less than 512
    /// means 512 (RFC 6891 §6.2.3).
    pub udp_size: u16,
    /// The client wants DNSSEC records (RFC 3225).
    pub dnssec_ok: bool,
    /// Which of the options known here were present.
    pub options: OptionSet,
    /// The first COOKIE option (RFC 7873 §5.2: further ones are ignored).
    pub cookie: Option<Cookie>,
}

impl Edns {
    /// Reads the class, TTL and RDATA of an OPT record of version 0. `None` if an option runs over
    /// the end, or if the cookie's length is one that RFC 7873 §5.2.2 calls malformed. Other options
    /// may have any data.
    #[inline]
    pub(crate) fn read(udp_size: u16, ttl: u32, rdata: &[u8]) -> Option<Self> {
        let dnssec_ok = ttl as u16 & DNSSEC_OK != 0;
        if rdata.is_empty() {
            return Some(Self { udp_size, dnssec_ok, options: OptionSet(0), cookie: None });
        }
        Self::read_options(udp_size, dnssec_ok, rdata)
    }

    /// Walks the options. Kept out of the caller: what has no options then needs no room on the
    /// stack for a cookie.
    #[inline(never)]
    fn read_options(udp_size: u16, dnssec_ok: bool, rdata: &[u8]) -> Option<Self> {
        let mut options = OptionSet(0);
        let mut cookie = None;
        let mut rest = rdata;
        while let Some((&[c0, c1, l0, l1], after)) = rest.split_first_chunk::<4>() {
            let len = usize::from(u16::from_be_bytes([l0, l1]));
            let (data, after) = after.split_at_checked(len)?;
            rest = after;
            let option = OptionSet::of(u16::from_be_bytes([c0, c1]));
            if option == OptionSet::COOKIE && cookie.is_none() {
                cookie = Some(data);
            }
            options.0 |= option.0;
        }
        if !rest.is_empty() {
            return None;
        }
        // Its bytes are copied only here, straight to where they stay.
        let cookie = match cookie {
            Some(data) => Some(Cookie::read(data)?),
            None => None,
        };
        Some(Self { udp_size, dnssec_ok, options, cookie })
    }

    /// The version in the TTL of an OPT record (RFC 6891 §6.1.3).
    #[inline]
    pub(crate) const fn version(ttl: u32) -> u8 {
        (ttl >> 16) as u8
    }
}

/// The options known here, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OptionSet(u8);

impl OptionSet {
    const NSID: Self = Self(1);
    const COOKIE: Self = Self(2);
    const KEEPALIVE: Self = Self(4);

    /// The table: the number of an option, and its bit.
    #[inline]
    const fn of(code: u16) -> Self {
        match code {
            nsid::CODE => Self::NSID,
            cookie::CODE => Self::COOKIE,
            keepalive::CODE => Self::KEEPALIVE,
            _ => Self(0),
        }
    }

    /// The client asks for the server's identifier (RFC 5001).
    #[inline]
    #[must_use]
    pub const fn has_nsid(self) -> bool {
        self.0 & Self::NSID.0 != 0
    }

    /// The client sent a cookie (RFC 7873).
    #[inline]
    #[must_use]
    pub const fn has_cookie(self) -> bool {
        self.0 & Self::COOKIE.0 != 0
    }

    /// The client understands a time-out for its connection (RFC 7828).
    #[inline]
    #[must_use]
    pub const fn has_keepalive(self) -> bool {
        self.0 & Self::KEEPALIVE.0 != 0
    }
}

//----------- OptWriter ------------------------------------------------------

/// Writes an OPT record at the end of a reply and keeps ARCOUNT true.
///
/// Until [`finish`](Self::finish) the reply is as it was: its length has not grown and its counts
/// have not changed.
#[must_use = "the record counts only once it is finished"]
pub struct OptWriter<'b> {
    buf: &'b mut [u8],
    /// Where the record begins; `start + OPT_LEN <= end <= buf.len()`.
    start: usize,
    end: usize,
}

impl<'b> OptWriter<'b> {
    /// Begins the record at `at`, the length of the reply so far. `udp_size` is what this server
    /// can take, in bytes; the upper eight bits of `rcode` go into the record, the lower four are
    /// the header's. `None`, with nothing written, when there is no room for 11 bytes, or no header
    /// before them.
    #[inline]
    pub fn start(
        buf: &'b mut [u8],
        at: usize,
        udp_size: u16,
        rcode: Rcode,
        dnssec_ok: bool,
    ) -> Option<Self> {
        if at < HEADER_LEN {
            return None;
        }
        let record = buf.get_mut(at..)?.first_chunk_mut::<OPT_LEN>()?;
        let [t0, t1] = Type::OPT.0.to_be_bytes();
        let [s0, s1] = udp_size.to_be_bytes();
        let [f0, f1] = if dnssec_ok { DNSSEC_OK } else { 0 }.to_be_bytes();
        *record = [0, t0, t1, s0, s1, rcode.extended_bits(), 0, f0, f1, 0, 0];
        Some(Self { buf, start: at, end: at + OPT_LEN })
    }

    /// Adds an option; false and nothing written when there is no room.
    #[inline]
    pub fn option(&mut self, code: u16, data: &[u8]) -> bool {
        self.option_of(code, [data])
    }

    /// Adds an extended error with a text that may be empty (RFC 8914); false and nothing written
    /// when there is no room.
    pub fn extended_error(&mut self, code: ExtendedError, text: &str) -> bool {
        code.write(self, text)
    }

    /// Adds an option whose data is `parts`, one after the other.
    #[inline]
    fn option_of<const N: usize>(&mut self, code: u16, parts: [&[u8]; N]) -> bool {
        let data_len = parts.iter().map(|part| part.len()).sum::<usize>();
        let end = self.end + 4 + data_len;
        // RDLEN has 16 bits, and so the option's length fits as well.
        if end - self.start - OPT_LEN > usize::from(u16::MAX) {
            return false;
        }
        let Some(option) = self.buf.get_mut(self.end..end) else { return false };
        let Some((head, mut data)) = option.split_first_chunk_mut::<4>() else { return false };
        let ([c0, c1], [l0, l1]) = (code.to_be_bytes(), (data_len as u16).to_be_bytes());
        *head = [c0, c1, l0, l1];
        for part in parts {
            let Some((place, rest)) = data.split_at_mut_checked(part.len()) else { return false };
            place.copy_from_slice(part);
            data = rest;
        }
        self.end = end;
        true
    }

    /// Ends the record: writes RDLEN, adds one to ARCOUNT, and gives the new length of the reply in
    /// bytes.
    #[inline]
    pub fn finish(self) -> usize {
        let rdata_len = (self.end - self.start - OPT_LEN) as u16;
        if let Some(place) =
            self.buf.get_mut(self.start + OPT_LEN - 2..).and_then(<[u8]>::first_chunk_mut::<2>)
        {
            *place = rdata_len.to_be_bytes();
        }
        if let Some(place) = self.buf.get_mut(ARCOUNT_AT..).and_then(<[u8]>::first_chunk_mut::<2>) {
            *place = u16::from_be_bytes(*place).saturating_add(1).to_be_bytes();
        }
        self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn option(code: u16, data: &[u8]) -> Vec<u8> {
        let len = u16::try_from(data.len()).unwrap();
        [&code.to_be_bytes()[..], &len.to_be_bytes(), data].concat()
    }

    fn read(rdata: &[u8]) -> Option<Edns> {
        Edns::read(1232, 0x8000, rdata)
    }

    #[test]
    fn options_are_walked_to_the_end() {
        let rdata =
            [option(nsid::CODE, b""), option(65001, b"abc"), option(keepalive::CODE, b"")].concat();
        let edns = read(&rdata).unwrap();
        assert!(edns.dnssec_ok && edns.options.has_nsid() && edns.options.has_keepalive());
        assert!(!edns.options.has_cookie());
        assert_eq!((edns.udp_size, edns.cookie), (1232, None));
        assert_eq!(read(b""), Some(Edns { options: OptionSet::default(), ..edns }));
        for cut in 1..rdata.len() {
            let whole = [4, 11].contains(&cut);
            assert_eq!(read(&rdata[..cut]).is_some(), whole, "cut to {cut}");
        }
    }

    #[test]
    fn the_first_cookie_counts_and_must_have_a_length_that_cookies_have() {
        let (first, second) = (option(cookie::CODE, &[1; 8]), option(cookie::CODE, &[2; 24]));
        let edns = read(&[first.clone(), second].concat()).unwrap();
        assert_eq!(edns.cookie, Cookie::new([1; 8], b""));
        assert!(edns.options.has_cookie());
        assert_eq!(read(&option(cookie::CODE, &[1; 9])), None);
        assert_eq!(read(&option(cookie::CODE, &[])), None);
        assert!(
            read(&[first, option(cookie::CODE, &[2; 9])].concat()).is_some(),
            "ignored, RFC 7873 §5.2"
        );
    }

    #[test]
    fn a_record_is_written_and_counted() {
        let mut buf = [0xaau8; 80];
        buf[10..12].copy_from_slice(&[0, 0]);
        let mut opt = OptWriter::start(&mut buf, 12, 1400, Rcode::BADCOOKIE, true).unwrap();
        assert!(nsid::write(&mut opt, b"n1"));
        assert!(Cookie::new([7; 8], &[9; 16]).unwrap().write(&mut opt));
        assert!(opt.extended_error(ExtendedError::STALE_ANSWER, "old"));
        assert!(!opt.option(1, &[0; 20]), "no room");
        assert!(keepalive::write(&mut opt, 300));
        let len = opt.finish();
        let expected = [
            &b"\0\x00\x29\x05\x78\x01\x00\x80\x00\x00\x31"[..],
            &option(3, b"n1"),
            &option(10, &[[7u8; 8].as_slice(), &[9; 16]].concat()),
            &option(15, b"\x00\x03old"),
            &option(11, &[1, 44]),
        ]
        .concat();
        assert_eq!(&buf[12..len], expected);
        assert_eq!(&buf[10..12], [0, 1]);
        assert!(buf[len..].iter().all(|byte| *byte == 0xaa), "nothing is written after the end");
    }

    #[test]
    fn without_room_nothing_is_written() {
        for (len, at) in [(22, 12), (12, 12), (40, 41), (40, usize::MAX), (40, 11), (0, 0)] {
            let mut buf = vec![0xaa; len];
            assert!(
                OptWriter::start(&mut buf, at, 512, Rcode::NOERROR, false).is_none(),
                "{at} of {len}"
            );
            assert!(buf.iter().all(|byte| *byte == 0xaa));
        }
        let mut buf = [0u8; 23];
        let mut opt = OptWriter::start(&mut buf, 12, 512, Rcode::NOERROR, false).unwrap();
        assert!(!opt.option(3, b""));
        assert_eq!(opt.finish(), 23);
    }

    #[test]
    fn rdata_never_outgrows_its_length_field() {
        let mut buf = vec![0; 200_000];
        let mut opt = OptWriter::start(&mut buf, 12, 512, Rcode::NOERROR, false).unwrap();
        assert!(!opt.option(1, &[0; 65_532]));
        assert!(opt.option(1, &[0; 65_531]));
        assert!(!opt.option(1, b""));
        assert_eq!(opt.finish(), 12 + OPT_LEN + 65_535);
        assert_eq!(&buf[21..23], [0xff, 0xff]);
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            server in prop_oneof![Just(0usize), 8usize..=32],
            codes in prop::collection::vec(12u16..100, 0..5),
            dnssec_ok: bool,
        ) {
            let cookie = Cookie::new([5; 8], &vec![6; server]).unwrap();
            let mut buf = vec![0; 600];
            let mut opt = OptWriter::start(&mut buf, 30, 4096, Rcode::NOERROR, dnssec_ok).unwrap();
            for code in &codes {
                prop_assert!(opt.option(*code, &vec![1; usize::from(*code)]));
            }
            prop_assert!(cookie.write(&mut opt));
            let len = opt.finish();
            let ttl = u32::from_be_bytes(*buf[35..].first_chunk().unwrap());
            let edns = Edns::read(4096, ttl, &buf[30 + OPT_LEN..len]).unwrap();
            prop_assert_eq!((edns.dnssec_ok, edns.cookie), (dnssec_ok, Some(cookie)));
            prop_assert_eq!(edns.options, OptionSet::COOKIE);
        }

        #[test]
        fn any_rdata_is_read_without_a_panic(
            rdata in prop::collection::vec(prop_oneof![Just(0u8), 0u8..16, any::<u8>()], 0..120),
        ) {
            _ = read(&rdata);
        }
    }
}
