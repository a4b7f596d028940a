//! What the cache is asked for: the folded question name, type, class and variant in one run of
//! bytes, with a hash.
//!
//! ```text
//!   qname, wire format, lower case     qtype    qclass   variant        1..=255 + 6 bytes
//!   03 w w w 07 e x a m p l e ... 00   00 01    00 01    00 00          integers big-endian
//! ```
//!
//! Two questions have equal bytes exactly if they ask the same: names are folded as RFC 4343 has
//! it, and a wire name says itself where it ends. The hash is rapidhash over all of these bytes
//! (the six after the name go into its seed), with a seed and secrets drawn anew for each process,
//! so that nobody outside can aim at one bucket or one worker. Everything that needs a hash of a
//! question (the cache's shard and bucket, the owning worker) uses this one.
//!
//! That rests on 64 secret bits, of which no hash is ever shown, and on nothing that was proven or
//! long attacked: rapidhash is no keyed function like SipHash, and whoever learns the bits, or finds
//! names that collide under many seeds, can make one bucket or one worker slow. More is not to be
//! had: keys are compared byte by byte, so no collision brings another's answer. What it buys:
//! SipHash-1-3 of the key would cost as much again as all of [`KeyBuf::build`] (13 to 16 ns against
//! 11 to 14 in one run, names of 17 to 35 bytes, 2-core Xeon VM).
//!
//! Cost budget of [`KeyBuf::build`], for a name of 16 to 40 bytes in a warm cache on a Sapphire
//! Rapids core: 9 ns. One fold (a load and a store per 16 bytes), the six bytes after it, and one
//! hash (a multiplication per 16 bytes and three more). No allocation.
//!
//! The hash does not read the key that has just been written: words of eight bytes that straddle
//! stores still on their way to the cache wait for all of them, which cost as much as all the rest.
//! It reads the question's own bytes and folds each word in a register.

use std::fmt;

use rapidhash::v3::{RapidSecrets, rapidhash_v3_nano_inline};

use crate::name::fold::{fold, fold_word};
use crate::name::{MAX_NAME_LEN, Name};
use crate::rr::{Class, Type};

/// Bytes of a key after the name: type, class and variant.
const SUFFIX_LEN: usize = 6;

/// Stands in a key for no type in particular; no record has it (RFC 6895 §3.1: reserved).
pub const NO_TYPE: Type = Type(0);

/// The most bytes that a key may have.
pub const MAX_KEY_LEN: usize = MAX_NAME_LEN + SUFFIX_LEN;

/// A question as the cache knows it.
#[derive(Clone, Copy)]
pub struct Key<'k> {
    /// Hash of `bytes` under the process's [`Seed`].
    pub hash: u64,
    /// Folded name in wire format, type, class, variant: 7 to [`MAX_KEY_LEN`] bytes.
    pub bytes: &'k [u8],
}

impl<'k> Key<'k> {
    /// Takes bytes that [`KeyBuf::build`] made, with their hash; `None` if they are too short or
    /// too long for a key.
    #[inline]
    #[must_use]
    pub fn from_bytes(hash: u64, bytes: &'k [u8]) -> Option<Self> {
        (1 + SUFFIX_LEN..=MAX_KEY_LEN).contains(&bytes.len()).then_some(Self { hash, bytes })
    }

    /// The name of the question, wire format, in lower case.
    #[inline]
    #[must_use]
    pub fn qname(&self) -> &'k [u8] {
        self.bytes.split_last_chunk::<SUFFIX_LEN>().map_or(&[], |(qname, _)| qname)
    }

    /// The type of the question.
    #[inline]
    #[must_use]
    pub fn qtype(&self) -> Type {
        Type(self.suffix().0)
    }

    /// The class of the question.
    #[inline]
    #[must_use]
    pub fn qclass(&self) -> Class {
        Class(self.suffix().1)
    }

    /// What else the answer depends on.
    #[inline]
    #[must_use]
    pub fn variant(&self) -> Variant {
        Variant(self.suffix().2)
    }

    /// The three numbers after the name.
    #[inline]
    fn suffix(&self) -> (u16, u16, u16) {
        let [t0, t1, c0, c1, v0, v1] =
            self.bytes.last_chunk::<SUFFIX_LEN>().copied().unwrap_or_default();
        (u16::from_be_bytes([t0, t1]), u16::from_be_bytes([c0, c1]), u16::from_be_bytes([v0, v1]))
    }
}

/// Equal if the same is asked: the hash follows from the bytes.
impl PartialEq for Key<'_> {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.bytes == other.bytes
    }
}

impl Eq for Key<'_> {}

/// `example.com. IN A +do view 3`
impl fmt::Debug for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Name::from_wire(self.qname()) {
            Some(name) => write!(f, "{name} ")?,
            None => write!(f, "{:02x?} ", self.qname())?,
        }
        let variant = self.variant();
        write!(f, "{} {}", self.qclass(), self.qtype())?;
        write!(f, "{}", if variant.dnssec_ok() { " +do" } else { "" })?;
        write!(f, "{}", if variant.checking_disabled() { " +cd" } else { "" })?;
        write!(f, " view {}", variant.view())
    }
}

//----------- KeyBuf ---------------------------------------------------------

/// Where a key is built; reused from packet to packet.
pub struct KeyBuf {
    bytes: [u8; MAX_KEY_LEN],
}

impl Default for KeyBuf {
    fn default() -> Self {
        Self { bytes: [0; MAX_KEY_LEN] }
    }
}

impl KeyBuf {
    /// Builds the key of a question whose name is given in wire format in any letter case. The name
    /// must be 1 to 255 bytes long, as every name that [`parse`](crate::query::parse) accepts is;
    /// more than that is cut off.
    #[inline]
    pub fn build<'k>(
        &'k mut self,
        seed: &Seed,
        qname: &[u8],
        qtype: Type,
        qclass: Class,
        variant: Variant,
    ) -> Key<'k> {
        debug_assert!((1..=MAX_NAME_LEN).contains(&qname.len()), "a name has 1 to 255 bytes");
        let qname = qname.get(..MAX_NAME_LEN).unwrap_or(qname);
        let len = qname.len() + SUFFIX_LEN;
        let bytes = self.bytes.get_mut(..len).unwrap_or_default();
        let Some((folded, suffix)) = bytes.split_last_chunk_mut::<SUFFIX_LEN>() else {
            return Key { hash: 0, bytes };
        };
        fold(qname, folded);
        let ([t0, t1], [c0, c1], [v0, v1]) =
            (qtype.0.to_be_bytes(), qclass.0.to_be_bytes(), variant.0.to_be_bytes());
        *suffix = [t0, t1, c0, c1, v0, v1];
        let hash = seed.hash(qname, folded, *suffix);
        Key { hash, bytes }
    }
}

//----------- Variant --------------------------------------------------------

/// What an answer depends on beside the question: bit 0 is DO, bit 1 is CD, bits 2 to 15 are the id
/// of the view.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Variant(pub u16);

impl Variant {
    const DNSSEC_OK: u16 = 1;
    const CHECKING_DISABLED: u16 = 2;
    const VIEW_SHIFT: u32 = 2;

    /// The largest id of a view.
    pub const VIEW_MAX: u16 = u16::MAX >> Self::VIEW_SHIFT;

    /// `view` must be at most [`Variant::VIEW_MAX`]; its upper two bits are lost otherwise.
    #[inline]
    #[must_use]
    pub fn new(dnssec_ok: bool, checking_disabled: bool, view: u16) -> Self {
        debug_assert!(view <= Self::VIEW_MAX, "an id of a view has 14 bits");
        Self(u16::from(dnssec_ok) | u16::from(checking_disabled) << 1 | view << Self::VIEW_SHIFT)
    }

    /// The client asked for DNSSEC records (RFC 3225).
    #[inline]
    #[must_use]
    pub const fn dnssec_ok(self) -> bool {
        self.0 & Self::DNSSEC_OK != 0
    }

    /// The client does its own validation (RFC 4035 §3.2.2).
    #[inline]
    #[must_use]
    pub const fn checking_disabled(self) -> bool {
        self.0 & Self::CHECKING_DISABLED != 0
    }

    /// The id of the view, 0 to [`Variant::VIEW_MAX`].
    #[inline]
    #[must_use]
    pub const fn view(self) -> u16 {
        self.0 >> Self::VIEW_SHIFT
    }
}

//----------- Seed -----------------------------------------------------------

/// Seed and secrets of the hash: one per process, the same for all workers. Not shown in any form,
/// because who knows it can make questions that collide.
#[derive(Clone)]
pub struct Seed(RapidSecrets);

impl Seed {
    /// Derives the seed and all secrets from 64 bits that must come from a CSPRNG.
    #[must_use]
    pub fn new(random: u64) -> Self {
        Self(RapidSecrets::seed(random))
    }

    /// Hashes a name, given as it came and folded, and the numbers after it in the key.
    ///
    /// This is rapidhash v3 nano of the folded name under a seed that depends on the numbers. For
    /// the lengths that nearly all names have, 8 to 48 bytes, its words are read from `qname` and
    /// folded on the way; all other lengths are the crate's, from `folded`.
    #[inline]
    fn hash(&self, qname: &[u8], folded: &[u8], suffix: [u8; SUFFIX_LEN]) -> u64 {
        let [_, tail_secret, head_secret, ..] = self.0.secrets;
        let mut seed = self.seed_for(suffix);
        let len = qname.len();
        if !(8..=48).contains(&len) {
            return self.hash_folded(seed, folded);
        }
        let word = |at: usize| {
            let bytes = qname.get(at..).and_then(<[u8]>::first_chunk);
            fold_word(u64::from_le_bytes(bytes.copied().unwrap_or_default()))
        };
        let before_last = if len <= 16 {
            seed ^= len as u64;
            word(0)
        } else {
            seed = mix(word(0) ^ head_secret, word(8) ^ seed);
            if len > 32 {
                seed = mix(word(16) ^ head_secret, word(24) ^ seed);
            }
            word(len - 16) ^ len as u64
        };
        let (a, b) = multiply(before_last ^ tail_secret, word(len - 8) ^ seed);
        // The constant is rapidhash's own.
        mix(a ^ 0xaaaa_aaaa_aaaa_aaaa, b ^ tail_secret ^ len as u64)
    }

    /// The numbers are multiplied into the seed: a plain XOR would cancel against a name that
    /// differs in the same bits, and anyone could make questions that collide.
    #[inline]
    fn seed_for(&self, [t0, t1, c0, c1, v0, v1]: [u8; SUFFIX_LEN]) -> u64 {
        let [.., secret] = self.0.secrets;
        mix(u64::from_le_bytes([t0, t1, c0, c1, v0, v1, 0, 0]) ^ self.0.seed, secret)
    }

    #[inline(never)]
    fn hash_folded(&self, seed: u64, folded: &[u8]) -> u64 {
        const AVALANCHE: bool = true;
        const PROTECTED: bool = true;
        rapidhash_v3_nano_inline::<AVALANCHE, PROTECTED>(folded, &RapidSecrets { seed, ..self.0 })
    }
}

/// The two halves of the product, each with a factor folded back in ("protected"): no factor can
/// make it zero.
#[inline(always)]
fn multiply(a: u64, b: u64) -> (u64, u64) {
    let product = u128::from(a) * u128::from(b);
    (a ^ product as u64, b ^ (product >> 64) as u64)
}

#[inline(always)]
fn mix(a: u64, b: u64) -> u64 {
    let (low, high) = multiply(a, b);
    low ^ high
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(..)")
    }
}

//----------- CaseBits -------------------------------------------------------

/// Which bytes of a client's question name were upper-case letters, so that the name can be rebuilt
/// from the folded one: bit `i % 64` of word `i / 64` is for byte `i`. Clients put a nonce there
/// ("0x20", draft-vixie-dnsext-dns0x20-00). Only used when a query has to wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CaseBits([u64; 4]);

impl CaseBits {
    /// A case for a name: the letters whose bit is set become upper case. For a nonce in a question,
    /// the bits come from a CSPRNG.
    #[must_use]
    pub const fn new(bits: [u64; 4]) -> Self {
        Self(bits)
    }

    /// Notes the case of a name in wire format; bytes after the 256th are not looked at.
    #[must_use]
    pub fn of(qname: &[u8]) -> Self {
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(qname.chunks(64)) {
            for (bit, byte) in bytes.iter().enumerate() {
                *word |= u64::from(byte.is_ascii_uppercase()) << bit;
            }
        }
        Self(words)
    }

    /// Makes the noted letters of a folded name upper case again; no other byte changes.
    pub fn apply(&self, folded: &mut [u8]) {
        for (word, bytes) in self.0.iter().zip(folded.chunks_mut(64)) {
            for (bit, byte) in bytes.iter_mut().enumerate() {
                if word >> bit & 1 != 0 {
                    byte.make_ascii_uppercase();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SEED: u64 = 0x5eed;

    fn owned(qname: &[u8], qtype: u16, qclass: u16, variant: u16) -> (u64, Vec<u8>) {
        let mut buf = KeyBuf::default();
        let key = buf.build(&Seed::new(SEED), qname, Type(qtype), Class(qclass), Variant(variant));
        (key.hash, key.bytes.to_vec())
    }

    #[test]
    fn a_key_gives_back_what_it_was_built_from() {
        let mut buf = KeyBuf::default();
        let variant = Variant::new(true, false, 9);
        let key = buf.build(&Seed::new(SEED), b"\x03WwW\x02eX\0", Type::HTTPS, Class::CH, variant);
        assert_eq!(key.bytes, b"\x03www\x02ex\0\x00\x41\x00\x03\x00\x25");
        assert_eq!(
            (key.qname(), key.qtype(), key.qclass()),
            (&b"\x03www\x02ex\0"[..], Type::HTTPS, Class::CH)
        );
        assert_eq!(key.variant(), variant);
        assert_eq!(format!("{key:?}"), "www.ex. CH HTTPS +do view 9");
        assert_eq!(Key::from_bytes(key.hash, key.bytes), Some(key));
    }

    #[test]
    fn the_root_and_the_longest_name_have_keys() {
        assert_eq!(owned(b"\0", 2, 1, 0).1, b"\0\x00\x02\x00\x01\x00\x00");
        let longest = [b'A'; MAX_NAME_LEN];
        assert_eq!(owned(&longest, 1, 1, 0).1.len(), MAX_KEY_LEN);
    }

    #[test]
    fn bytes_that_cannot_be_a_key_are_refused_and_never_panic() {
        assert!(Key::from_bytes(0, &[0; 6]).is_none());
        assert!(Key::from_bytes(0, &[0; 7]).is_some());
        assert!(Key::from_bytes(0, &[0; MAX_KEY_LEN]).is_some());
        assert!(Key::from_bytes(0, &[0; MAX_KEY_LEN + 1]).is_none());
        let short = Key { hash: 0, bytes: b"abc" };
        assert_eq!((short.qname(), short.qtype()), (&b""[..], Type(0)));
        assert_eq!(format!("{short:?}"), "[] CLASS0 TYPE0 view 0");
    }

    #[test]
    fn a_variant_keeps_its_parts_apart() {
        for (dnssec_ok, checking_disabled) in
            [(false, false), (false, true), (true, false), (true, true)]
        {
            for view in [0, 1, 4096, Variant::VIEW_MAX] {
                let variant = Variant::new(dnssec_ok, checking_disabled, view);
                assert_eq!(variant.dnssec_ok(), dnssec_ok);
                assert_eq!(variant.checking_disabled(), checking_disabled);
                assert_eq!(variant.view(), view);
            }
        }
    }

    #[test]
    fn the_hash_is_the_crates_own_for_every_length() {
        let seed = Seed::new(SEED);
        let mut buf = KeyBuf::default();
        for len in 1..=MAX_NAME_LEN {
            let qname: Vec<u8> = (0..len).map(|at| (at * 37 + len) as u8).collect();
            let key = buf.build(&seed, &qname, Type::MX, Class::IN, Variant(7));
            let expected =
                seed.hash_folded(seed.seed_for([0, 15, 0, 1, 0, 7]), &qname.to_ascii_lowercase());
            assert_eq!(key.hash, expected, "{len} bytes");
        }
    }

    #[test]
    fn a_name_and_a_type_that_differ_in_the_same_bits_do_not_collide() {
        let hash = |byte: u8, qtype: u16| {
            owned(&[&b"\x0fsamesame"[..], &[byte], b"xxxxxxxx\x03com\0"].concat(), qtype, 1, 0).0
        };
        assert_ne!(hash(b'a', 1), hash(b'a' ^ 1, 0));
        assert_ne!(hash(b'a', 0x0100), hash(b'a' ^ 1, 0));
    }

    #[test]
    fn another_seed_gives_another_hash_and_leaks_nothing() {
        let hash = |seed: u64| {
            KeyBuf::default()
                .build(&Seed::new(seed), b"\x01a\0", Type::A, Class::IN, Variant(0))
                .hash
        };
        assert_eq!(hash(1), hash(1));
        assert_ne!(hash(1), hash(2));
        assert_eq!(format!("{:?}", Seed::new(42)), "Seed(..)");
    }

    #[test]
    fn the_low_bits_and_the_high_bits_of_the_hash_spread() {
        // Neighbouring names, as in a zone of numbered hosts: 65,536 keys into 64 bins from either
        // end.
        let (mut low, mut high) = ([0u32; 64], [0u32; 64]);
        for number in 0..=u16::MAX {
            let qname =
                [&b"\x05h"[..], format!("{number:04x}").as_bytes(), b"\x07example\x03com\0"]
                    .concat();
            let (hash, _) = owned(&qname, 1, 1, 0);
            low[(hash & 63) as usize] += 1;
            high[(hash >> 58) as usize] += 1;
        }
        // 1,024 each on average; the standard deviation is 32.
        assert!(
            low.iter().chain(&high).all(|count| (832..1216).contains(count)),
            "{low:?} {high:?}"
        );
    }

    /// A name in wire format, with labels that often differ only in case.
    fn any_qname() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![prop::sample::select(&b"aAbB@`Z[z{"[..]), any::<u8>()];
        prop::collection::vec(prop::collection::vec(byte, 1..20), 0..6).prop_map(|labels| {
            let mut wire = Vec::new();
            for label in labels {
                wire.push(u8::try_from(label.len()).unwrap());
                wire.extend(label);
            }
            wire.push(0);
            wire
        })
    }

    fn small() -> impl Strategy<Value = u16> {
        prop_oneof![0u16..3, any::<u16>()]
    }

    proptest! {
        #[test]
        fn keys_are_equal_exactly_if_the_questions_are(
            a in (any_qname(), small(), small(), small()),
            b in (any_qname(), small(), small(), small()),
            same_name in any::<bool>(),
        ) {
            let b_name = if same_name { a.0.to_ascii_uppercase() } else { b.0 };
            let (a_key, b_key) = (owned(&a.0, a.1, a.2, a.3), owned(&b_name, b.1, b.2, b.3));
            let same = a.0.eq_ignore_ascii_case(&b_name) && (a.1, a.2, a.3) == (b.1, b.2, b.3);
            prop_assert_eq!(a_key.1 == b_key.1, same);
            prop_assert_eq!(a_key.0 == b_key.0, same, "64 bits do not collide by accident");
        }

        #[test]
        fn a_buffer_keeps_nothing_from_the_question_before(
            first in any_qname(),
            second in any_qname(),
        ) {
            let (seed, mut buf) = (Seed::new(SEED), KeyBuf::default());
            buf.build(&seed, &first, Type::ANY, Class::ANY, Variant(u16::MAX));
            let again = buf.build(&seed, &second, Type::A, Class::IN, Variant(0));
            prop_assert_eq!((again.hash, again.bytes.to_vec()), owned(&second, 1, 1, 0));
        }

        #[test]
        fn case_bits_rebuild_the_name(qname in prop::collection::vec(any::<u8>(), 0..=255)) {
            let mut rebuilt = qname.to_ascii_lowercase();
            CaseBits::of(&qname).apply(&mut rebuilt);
            prop_assert_eq!(rebuilt, qname);
        }

        #[test]
        fn case_bits_change_nothing_but_letters(
            noted in prop::collection::vec(any::<u8>(), 0..=300),
            other in prop::collection::vec(any::<u8>(), 0..=300),
        ) {
            let mut changed = other.clone();
            CaseBits::of(&noted).apply(&mut changed);
            prop_assert!(changed.eq_ignore_ascii_case(&other));
        }
    }
}
