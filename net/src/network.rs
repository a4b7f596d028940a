//! Changes of the machine's links, addresses and routes, as the kernel announces them.
//!
//! What changed is not looked at: whoever listens has to find out anew whom it can reach. Links that
//! come and go in a burst are one change ([`DEBOUNCE`]).

use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::time::Duration;

use socket2::Socket;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::sys::netlink;

/// How long a change waits for those that come with it: an address brings routes.
pub const DEBOUNCE: Duration = Duration::from_millis(50);

/// Announcements read at a time; what they say is not needed.
const BUFFER_LEN: usize = 8192;

/// The kernel's announcements.
#[derive(Debug)]
pub struct Changes(AsyncFd<Socket>);

impl Changes {
    /// Listens from now on; must be called inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// When this kernel or sandbox has no such socket.
    pub fn listen() -> io::Result<Self> {
        netlink::open().map(Self)
    }

    /// Waits for a change, and [`DEBOUNCE`] more.
    ///
    /// # Errors
    ///
    /// When the socket fails for good.
    pub async fn next(&mut self) -> io::Result<()> {
        let mut changed = false;
        while !changed {
            self.0.readable().await?.retain_ready();
            changed = self.drain()?;
        }
        tokio::time::sleep(DEBOUNCE).await;
        self.drain()?;
        Ok(())
    }

    /// Reads all that is there, and says whether there was something.
    fn drain(&self) -> io::Result<bool> {
        let mut changed = false;
        let mut buffer = [const { MaybeUninit::uninit() }; BUFFER_LEN];
        loop {
            match self.0.try_io(Interest::READABLE, |socket| socket.recv(&mut buffer)) {
                Ok(_) => changed = true,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(changed),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // There were more than the socket could hold (ENOBUFS): a change all the same.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => changed = true,
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_kernel_lets_anybody_listen() {
        let changes = Changes::listen().unwrap();
        assert!(changes.drain().is_ok());
    }
}
