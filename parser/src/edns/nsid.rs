//! NSID, option 3: which instance of a server gave the answer (RFC 5001).
//!
//! A query asks with an empty option, and data in it is ignored (RFC 5001 §2.2). The answer has
//! bytes of the operator's choice.

use super::OptWriter;

/// Number of the option.
pub const CODE: u16 = 3;

/// Writes the server's identifier; false and nothing written when there is no room.
pub fn write(opt: &mut OptWriter<'_>, id: &[u8]) -> bool {
    opt.option(CODE, id)
}
