//! Extended DNS Error, option 15: why an answer is what it is, for whoever has to find out (RFC
//! 8914).
//!
//! The data is a number of the registry and a text in UTF-8 that need not be there. It never
//! changes what a client does with the response code.

use std::fmt;

use super::OptWriter;

/// Number of the option.
pub const CODE: u16 = 15;

/// The number of an extended error (the IANA registry "Extended DNS Error Codes").
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ExtendedError(pub u16);

/// Declares the registered errors: constant, number and the registry's own words.
macro_rules! errors {
    ($($(#[$doc:meta])* $constant:ident = $code:literal, $purpose:literal;)+) => {
        impl ExtendedError {
            $($(#[$doc])* pub const $constant: Self = Self($code);)+

            /// The registry's words for it, if the number is registered.
            #[must_use]
            pub fn purpose(self) -> Option<&'static str> {
                match self.0 {
                    $($code => Some($purpose),)+
                    _ => None,
                }
            }
        }
    };
}

errors! {
    /// None of the others; the text says what (RFC 8914 §4.1).
    OTHER = 0, "Other Error";
    /// The algorithm of a DNSKEY is not supported (RFC 8914 §4.2).
    UNSUPPORTED_DNSKEY_ALGORITHM = 1, "Unsupported DNSKEY Algorithm";
    /// The digest type of a DS is not supported (RFC 8914 §4.3).
    UNSUPPORTED_DS_DIGEST_TYPE = 2, "Unsupported DS Digest Type";
    /// Answered from data past its TTL (RFC 8914 §4.4, RFC 8767).
    STALE_ANSWER = 3, "Stale Answer";
    /// Changed for reasons of policy (RFC 8914 §4.5).
    FORGED_ANSWER = 4, "Forged Answer";
    /// Validation could not come to a result (RFC 8914 §4.6).
    DNSSEC_INDETERMINATE = 5, "DNSSEC Indeterminate";
    /// Validation failed (RFC 8914 §4.7).
    DNSSEC_BOGUS = 6, "DNSSEC Bogus";
    /// A signature has expired (RFC 8914 §4.8).
    SIGNATURE_EXPIRED = 7, "Signature Expired";
    /// A signature is not valid yet (RFC 8914 §4.9).
    SIGNATURE_NOT_YET_VALID = 8, "Signature Not Yet Valid";
    /// No DNSKEY matches the DS (RFC 8914 §4.10).
    DNSKEY_MISSING = 9, "DNSKEY Missing";
    /// A signature is missing (RFC 8914 §4.11).
    RRSIGS_MISSING = 10, "RRSIGs Missing";
    /// The key is no zone key (RFC 8914 §4.12).
    NO_ZONE_KEY_BIT_SET = 11, "No Zone Key Bit Set";
    /// A proof of non-existence is missing (RFC 8914 §4.13).
    NSEC_MISSING = 12, "NSEC Missing";
    /// A failure that was remembered (RFC 8914 §4.14, RFC 9520).
    CACHED_ERROR = 13, "Cached Error";
    /// The server is not ready yet (RFC 8914 §4.15).
    NOT_READY = 14, "Not Ready";
    /// Blocked by the operator (RFC 8914 §4.16).
    BLOCKED = 15, "Blocked";
    /// Blocked on behalf of a third party (RFC 8914 §4.17).
    CENSORED = 16, "Censored";
    /// Blocked because the client asked for it (RFC 8914 §4.18).
    FILTERED = 17, "Filtered";
    /// The client may not ask (RFC 8914 §4.19).
    PROHIBITED = 18, "Prohibited";
    /// An NXDOMAIN past its TTL (RFC 8914 §4.20).
    STALE_NXDOMAIN = 19, "Stale NXDOMAIN Answer";
    /// The server is not authoritative and does not recurse (RFC 8914 §4.21).
    NOT_AUTHORITATIVE = 20, "Not Authoritative";
    /// The operation or query is not supported (RFC 8914 §4.22).
    NOT_SUPPORTED = 21, "Not Supported";
    /// No server of the zone, or no upstream, could be reached (RFC 8914 §4.23).
    NO_REACHABLE_AUTHORITY = 22, "No Reachable Authority";
    /// A network error towards another server (RFC 8914 §4.24).
    NETWORK_ERROR = 23, "Network Error";
    /// The data of the zone is invalid (RFC 8914 §4.25).
    INVALID_DATA = 24, "Invalid Data";
    /// A signature expired before it became valid (IANA registry).
    SIGNATURE_EXPIRED_BEFORE_VALID = 25, "Signature Expired before Valid";
    /// The question came too early in the handshake (RFC 9250 §4.5).
    TOO_EARLY = 26, "Too Early";
    /// More NSEC3 iterations than are supported (RFC 9276 §3.2).
    UNSUPPORTED_NSEC3_ITERATIONS = 27, "Unsupported NSEC3 Iterations Value";
    /// Unable to conform to a policy (IANA registry).
    UNABLE_TO_CONFORM_TO_POLICY = 28, "Unable to conform to policy";
    /// Synthesised, as from another name's proof of non-existence (IANA registry, RFC 8198).
    SYNTHESIZED = 29, "Synthesized";
    /// The type cannot be asked for (RFC 9824 §3.5).
    INVALID_QUERY_TYPE = 30, "Invalid Query Type";
}

impl ExtendedError {
    /// Writes the option; false and nothing written when there is no room.
    pub fn write(self, opt: &mut OptWriter<'_>, text: &str) -> bool {
        opt.option_of(CODE, [&self.0.to_be_bytes(), text.as_bytes()])
    }
}

/// `Stale Answer (3)`
impl fmt::Display for ExtendedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.purpose().unwrap_or("Unassigned"), self.0)
    }
}

impl fmt::Debug for ExtendedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_shown_with_purpose_and_number() {
        assert_eq!(ExtendedError::SYNTHESIZED.to_string(), "Synthesized (29)");
        assert_eq!(ExtendedError(4000).to_string(), "Unassigned (4000)");
    }
}
