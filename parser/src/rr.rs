//! The numbers of the DNS registries: types, classes, opcodes, response codes and header flags.
//!
//! Each is a newtype over the number on the wire, so that a value which has no name here passes
//! through unharmed (RFC 3597). The names are those of the IANA registry "Domain Name System
//! Parameters".

use std::fmt;

/// Length of the fixed header of every message, in bytes (RFC 1035 §4.1.1).
pub const HEADER_LEN: usize = 12;

/// Declares the registered values of a newtype: the constants, the mnemonic of each, and how it is
/// read and shown. A value without a name is `$prefix` and the number (RFC 3597 §5).
macro_rules! registry {
    ($name:ident($number:ty) or $prefix:literal {
        $($(#[$doc:meta])* $mnemonic:ident = $value:literal,)+
    }) => {
        impl $name {
            $($(#[$doc])* pub const $mnemonic: Self = Self($value);)+

            /// Every value that has a name here, with its mnemonic.
            const REGISTERED: &'static [(Self, &'static str)] =
                &[$((Self($value), stringify!($mnemonic)),)+];

            /// The mnemonic of the registry, if the value has a name here.
            #[must_use]
            pub fn mnemonic(self) -> Option<&'static str> {
                Self::REGISTERED.iter().find(|(value, _)| *value == self).map(|(_, name)| *name)
            }

            #[doc = concat!("Reads a mnemonic in any letter case, or the likes of `", $prefix, "7`.")]
            #[must_use]
            pub fn from_text(text: &str) -> Option<Self> {
                let named = |(_, name): &&(Self, &str)| name.eq_ignore_ascii_case(text);
                match Self::REGISTERED.iter().find(named) {
                    Some((value, _)) => Some(*value),
                    None => after_prefix(text, $prefix)?.parse().ok().map(Self),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.mnemonic() {
                    Some(name) => f.pad(name),
                    None => write!(f, concat!($prefix, "{}"), self.0),
                }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

//----------- Type -----------------------------------------------------------

/// The type of a record or of a question (RFC 1035 §3.2.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Type(pub u16);

registry! { Type(u16) or "TYPE" {
    /// IPv4 address (RFC 1035).
    A = 1,
    /// Authoritative name server (RFC 1035).
    NS = 2,
    /// Mail destination, obsolete (RFC 1035).
    MD = 3,
    /// Mail forwarder, obsolete (RFC 1035).
    MF = 4,
    /// Canonical name of an alias (RFC 1035).
    CNAME = 5,
    /// Start of a zone of authority (RFC 1035).
    SOA = 6,
    /// Mailbox, experimental (RFC 1035).
    MB = 7,
    /// Mail group member, experimental (RFC 1035).
    MG = 8,
    /// Mail rename, experimental (RFC 1035).
    MR = 9,
    /// Anything at all, experimental (RFC 1035).
    NULL = 10,
    /// Well-known services (RFC 1035).
    WKS = 11,
    /// Pointer to a name, as in reverse zones (RFC 1035).
    PTR = 12,
    /// Host information; also the answer to ANY (RFC 1035, RFC 8482).
    HINFO = 13,
    /// Mailbox information (RFC 1035).
    MINFO = 14,
    /// Mail exchange (RFC 1035).
    MX = 15,
    /// Text (RFC 1035).
    TXT = 16,
    /// Responsible person (RFC 1183).
    RP = 17,
    /// AFS database location (RFC 1183, RFC 5864).
    AFSDB = 18,
    /// X.25 address (RFC 1183).
    X25 = 19,
    /// ISDN address (RFC 1183).
    ISDN = 20,
    /// Route through (RFC 1183).
    RT = 21,
    /// NSAP address (RFC 1706).
    NSAP = 22,
    /// Security signature, as in SIG(0) (RFC 2536, RFC 2931).
    SIG = 24,
    /// Security key (RFC 2536, RFC 2930).
    KEY = 25,
    /// X.400 mail mapping (RFC 2163).
    PX = 26,
    /// IPv6 address (RFC 3596).
    AAAA = 28,
    /// Location (RFC 1876).
    LOC = 29,
    /// Next domain, obsolete (RFC 2535, RFC 3755).
    NXT = 30,
    /// Server selection (RFC 2782).
    SRV = 33,
    /// Naming authority pointer (RFC 3403).
    NAPTR = 35,
    /// Key exchanger (RFC 2230).
    KX = 36,
    /// Certificate (RFC 4398).
    CERT = 37,
    /// IPv6 address in pieces, historic (RFC 2874, RFC 6563).
    A6 = 38,
    /// Alias of a whole subtree (RFC 6672).
    DNAME = 39,
    /// EDNS pseudo-record, never data (RFC 6891).
    OPT = 41,
    /// Address prefix list (RFC 3123).
    APL = 42,
    /// Delegation signer (RFC 4034).
    DS = 43,
    /// SSH key fingerprint (RFC 4255).
    SSHFP = 44,
    /// IPsec key (RFC 4025).
    IPSECKEY = 45,
    /// Signature over a record set (RFC 4034).
    RRSIG = 46,
    /// Next secure name (RFC 4034).
    NSEC = 47,
    /// Public key of a zone (RFC 4034).
    DNSKEY = 48,
    /// DHCP identifier (RFC 4701).
    DHCID = 49,
    /// Next secure name, hashed (RFC 5155).
    NSEC3 = 50,
    /// Parameters of NSEC3 (RFC 5155).
    NSEC3PARAM = 51,
    /// Certificate association for TLS (RFC 6698).
    TLSA = 52,
    /// Certificate association for S/MIME (RFC 8162).
    SMIMEA = 53,
    /// Host identity (RFC 8005).
    HIP = 55,
    /// DS that a child asks its parent for (RFC 7344).
    CDS = 59,
    /// DNSKEY that a child asks its parent for (RFC 7344).
    CDNSKEY = 60,
    /// OpenPGP key (RFC 7929).
    OPENPGPKEY = 61,
    /// Child to parent synchronisation (RFC 7477).
    CSYNC = 62,
    /// Digest over a zone (RFC 8976).
    ZONEMD = 63,
    /// Service binding (RFC 9460).
    SVCB = 64,
    /// Service binding of HTTPS (RFC 9460).
    HTTPS = 65,
    /// Sender policy, obsolete (RFC 7208).
    SPF = 99,
    /// 48-bit Ethernet address (RFC 7043).
    EUI48 = 108,
    /// 64-bit Ethernet address (RFC 7043).
    EUI64 = 109,
    /// Question for a type that stands for NXDOMAIN in compact denial (RFC 9824).
    NXNAME = 128,
    /// Transaction key (RFC 2930).
    TKEY = 249,
    /// Transaction signature (RFC 8945).
    TSIG = 250,
    /// Incremental zone transfer (RFC 1995).
    IXFR = 251,
    /// Zone transfer (RFC 5936).
    AXFR = 252,
    /// Question for any mailbox type (RFC 1035).
    MAILB = 253,
    /// Question for mail agents, obsolete (RFC 1035).
    MAILA = 254,
    /// Question for any type (RFC 1035, RFC 8482).
    ANY = 255,
    /// Resource identifier (RFC 7553).
    URI = 256,
    /// Permission for certificate authorities (RFC 8659).
    CAA = 257,
    /// Trust anchor in no parent, historic (RFC 4431).
    DLV = 32769,
} }

impl Type {
    /// Whether the type is a question type or a meta type and so never the type of data in a zone:
    /// 128 to 255, and OPT (RFC 6895 §3.1).
    #[must_use]
    pub const fn is_meta(self) -> bool {
        matches!(self.0, 128..=255) || self.0 == Self::OPT.0
    }
}

//----------- Class ----------------------------------------------------------

/// The class of a record or of a question (RFC 1035 §3.2.4).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class(pub u16);

registry! { Class(u16) or "CLASS" {
    /// The Internet (RFC 1035).
    IN = 1,
    /// Chaos; today the home of server identification (RFC 4892).
    CH = 3,
    /// Hesiod (RFC 1035).
    HS = 4,
    /// No class, in updates (RFC 2136).
    NONE = 254,
    /// Question for any class (RFC 1035).
    ANY = 255,
} }

//----------- Opcode ---------------------------------------------------------

/// What kind of request a message is: four bits of the header (RFC 1035 §4.1.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Opcode(pub u8);

registry! { Opcode(u8) or "OPCODE" {
    /// A question (RFC 1035).
    QUERY = 0,
    /// An inverse question, obsolete (RFC 3425).
    IQUERY = 1,
    /// The status of a server (RFC 1035).
    STATUS = 2,
    /// A zone has changed (RFC 1996).
    NOTIFY = 4,
    /// Dynamic update (RFC 2136).
    UPDATE = 5,
    /// Stateful operations (RFC 8490).
    DSO = 6,
} }

//----------- Rcode ----------------------------------------------------------

/// A response code: four bits in the header and eight more in the OPT record (RFC 6891 §6.1.3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rcode(pub u16);

registry! { Rcode(u16) or "RCODE" {
    /// No error (RFC 1035).
    NOERROR = 0,
    /// The query could not be understood (RFC 1035).
    FORMERR = 1,
    /// The server failed (RFC 1035).
    SERVFAIL = 2,
    /// The name does not exist (RFC 1035, RFC 8020).
    NXDOMAIN = 3,
    /// Not implemented (RFC 1035).
    NOTIMP = 4,
    /// Refused for reasons of policy (RFC 1035).
    REFUSED = 5,
    /// A name exists that should not (RFC 2136).
    YXDOMAIN = 6,
    /// A record set exists that should not (RFC 2136).
    YXRRSET = 7,
    /// A record set is missing (RFC 2136).
    NXRRSET = 8,
    /// Not authoritative, or not authorised (RFC 2136, RFC 8945).
    NOTAUTH = 9,
    /// A name is outside of the zone (RFC 2136).
    NOTZONE = 10,
    /// The stateful operation is not implemented (RFC 8490).
    DSOTYPENI = 11,
    /// The EDNS version is not known here (RFC 6891 §6.1.3).
    BADVERS = 16,
    /// The server cookie is missing or wrong (RFC 7873 §5.4).
    BADCOOKIE = 23,
} }

impl Rcode {
    /// The four bits that stand in the header.
    #[must_use]
    pub const fn header_bits(self) -> u8 {
        (self.0 & 0x000f) as u8
    }

    /// The eight bits that stand in the OPT record.
    #[must_use]
    pub const fn extended_bits(self) -> u8 {
        (self.0 >> 4) as u8
    }
}

//----------- Flags ----------------------------------------------------------

/// The second 16 bits of the header: opcode, response code and the one-bit flags (RFC 1035 §4.1.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(pub u16);

impl Flags {
    /// The message is a response.
    pub const QR: u16 = 0x8000;
    /// The four bits of the opcode.
    pub const OPCODE_MASK: u16 = 0x7800;
    /// Authoritative answer.
    pub const AA: u16 = 0x0400;
    /// Truncated.
    pub const TC: u16 = 0x0200;
    /// Recursion desired.
    pub const RD: u16 = 0x0100;
    /// Recursion available.
    pub const RA: u16 = 0x0080;
    /// Reserved, must be zero.
    pub const Z: u16 = 0x0040;
    /// Authentic data (RFC 4035 §3.1.6; in a query RFC 6840 §5.7).
    pub const AD: u16 = 0x0020;
    /// Checking disabled (RFC 4035 §3.2.2).
    pub const CD: u16 = 0x0010;
    /// The four bits of the response code.
    pub const RCODE_MASK: u16 = 0x000f;

    /// Whether the message is a response.
    #[must_use]
    pub const fn qr(self) -> bool {
        self.0 & Self::QR != 0
    }

    /// The kind of request.
    #[must_use]
    pub const fn opcode(self) -> Opcode {
        Opcode(((self.0 & Self::OPCODE_MASK) >> 11) as u8)
    }

    /// Whether the answer is authoritative.
    #[must_use]
    pub const fn aa(self) -> bool {
        self.0 & Self::AA != 0
    }

    /// Whether the message was cut to fit.
    #[must_use]
    pub const fn tc(self) -> bool {
        self.0 & Self::TC != 0
    }

    /// Whether recursion is desired.
    #[must_use]
    pub const fn rd(self) -> bool {
        self.0 & Self::RD != 0
    }

    /// Whether recursion is available.
    #[must_use]
    pub const fn ra(self) -> bool {
        self.0 & Self::RA != 0
    }

    /// Whether the data was validated; in a query, whether the client cares.
    #[must_use]
    pub const fn ad(self) -> bool {
        self.0 & Self::AD != 0
    }

    /// Whether the client wants the data unvalidated.
    #[must_use]
    pub const fn cd(self) -> bool {
        self.0 & Self::CD != 0
    }

    /// The lower four bits of the response code; the upper eight are in the OPT record.
    #[must_use]
    pub const fn rcode(self) -> u8 {
        (self.0 & Self::RCODE_MASK) as u8
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Flags({:#06x})", self.0)
    }
}

/// The decimal digits after `prefix` in any letter case, as in `TYPE123`.
fn after_prefix<'t>(text: &'t str, prefix: &str) -> Option<&'t str> {
    let (head, digits) = text.split_at_checked(prefix.len())?;
    let are_digits = digits.bytes().all(|digit| digit.is_ascii_digit());
    (head.eq_ignore_ascii_case(prefix) && are_digits).then_some(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_reads_back_from_what_it_displays() {
        for number in 0..=u16::MAX {
            let shown = Type(number).to_string();
            assert_eq!(Type::from_text(&shown), Some(Type(number)), "{shown}");
            let shown = Class(number).to_string();
            assert_eq!(Class::from_text(&shown), Some(Class(number)), "{shown}");
        }
    }

    #[test]
    fn type_text_is_read_in_any_case_and_nothing_else_is_read() {
        assert_eq!(Type::from_text("aAaA"), Some(Type::AAAA));
        assert_eq!(Type::from_text("type65280"), Some(Type(65280)));
        for wrong in ["", "TYPE", "TYPE65536", "TYPE+1", "TYPE-1", "TYPE1 ", "AA", "é", "TYPÉ1"] {
            assert_eq!(Type::from_text(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn meta_types_are_those_that_never_are_data() {
        assert!(
            Type::OPT.is_meta()
                && Type::ANY.is_meta()
                && Type::TSIG.is_meta()
                && Type(128).is_meta()
        );
        assert!(
            !Type::A.is_meta()
                && !Type(127).is_meta()
                && !Type(256).is_meta()
                && !Type(0).is_meta()
        );
    }

    #[test]
    fn flags_are_where_the_header_has_them() {
        let flags = Flags(0x8583 | 0x0030 | 0x2000);
        assert!(
            flags.qr()
                && flags.aa()
                && flags.rd()
                && flags.ra()
                && flags.ad()
                && flags.cd()
                && !flags.tc()
        );
        assert_eq!(flags.opcode(), Opcode::NOTIFY);
        assert_eq!(flags.rcode(), 3);
        assert_eq!(Rcode::BADVERS.header_bits(), 0);
        assert_eq!(Rcode::BADVERS.extended_bits(), 1);
        assert_eq!(Rcode::NXDOMAIN.to_string(), "NXDOMAIN");
        assert_eq!(Rcode(4000).to_string(), "RCODE4000");
        assert_eq!(Rcode::from_text("servfail"), Some(Rcode::SERVFAIL));
        assert_eq!(Opcode::from_text("OPCODE15"), Some(Opcode(15)));
        assert_eq!(Opcode::from_text("OPCODE256"), None);
    }
}
