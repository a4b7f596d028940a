//! The limit on open files: one per port to an upstream and per TCP client, so the usual soft limit
//! of 1024 is low.

use std::io;

use crate::sys::resource;

/// How many files the process may have open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFiles {
    /// The limit in force.
    pub soft: u64,
    /// How far it may be raised without privileges.
    pub hard: u64,
}

/// Reads the limit.
pub fn open_files() -> io::Result<OpenFiles> {
    resource::open_files().map(|(soft, hard)| OpenFiles { soft, hard })
}

/// Raises the soft limit to the hard one and returns what is in force then.
pub fn raise_open_files() -> io::Result<OpenFiles> {
    let files = open_files()?;
    if files.soft < files.hard {
        resource::set_open_files(files.hard, files.hard)?;
    }
    open_files()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_rises_to_the_hard_one() {
        let before = open_files().unwrap();
        let after = raise_open_files().unwrap();
        assert_eq!(after, OpenFiles { soft: before.hard, hard: before.hard });
    }
}
