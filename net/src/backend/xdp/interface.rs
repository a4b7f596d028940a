//! Interfaces.

/// Why AF_XDP cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum XdpError {
    /// Not there yet.
    #[error("not finished")]
    Unfinished,
}

impl XdpError {
    /// Whether somebody else's program is on the interface: then serving over sockets instead would
    /// hide a conflict that the operator must settle.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        false
    }
}
