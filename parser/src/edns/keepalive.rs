//! TCP keepalive, option 11: how long an idle connection may stay open (RFC 7828).
//!
//! A client that has the option in a query understands it; the server answers with a time-out. It
//! has no meaning over UDP, where a server must ignore it (RFC 7828 §3.3.1).

use super::OptWriter;

/// Number of the option.
pub const CODE: u16 = 11;

/// Writes the idle time-out in units of 100 ms (RFC 7828 §3.1); false and nothing written when there
/// is no room.
pub fn write(opt: &mut OptWriter<'_>, timeout_100ms: u16) -> bool {
    opt.option(CODE, &timeout_100ms.to_be_bytes())
}
