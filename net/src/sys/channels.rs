//! Queues of an interface (ETHTOOL_GCHANNELS). Unlike sysfs it asks in the network namespace of
//! the calling thread.
#![expect(unsafe_code, reason = "ioctl(2) with a structure that leads to another one")]

use std::io;
use std::mem;
use std::os::fd::AsRawFd;

use socket2::{Domain, Socket, Type};

/// `struct ethtool_channels` (linux/ethtool.h).
#[repr(C)]
#[derive(Default)]
struct Channels {
    command: u32,
    max: [u32; 4],
    receive: u32,
    transmit: u32,
    other: u32,
    combined: u32,
}

const ETHTOOL_GCHANNELS: u32 = 0x3c;

/// How many there are that both receive and send; 1 where the driver doesn't say. What comes by a
/// queue leaves by the one of its number.
pub(crate) fn queues(interface: &str) -> io::Result<u32> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    let mut channels = Channels { command: ETHTOOL_GCHANNELS, ..Channels::default() };
    // SAFETY: a structure of integers and addresses, for which zeroes are valid.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    // The last byte stays 0.
    let room = request.ifr_name.len() - 1;
    if interface.len() > room {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut channels).cast();
    // SAFETY: the kernel reads the request, which leads to `channels`, and writes as many bytes there
    // as this command's structure has.
    let result =
        unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) };
    if result == 0 {
        let pairs = channels.receive.min(channels.transmit);
        return Ok(pairs.saturating_add(channels.combined).max(1));
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::EOPNOTSUPP) { Ok(1) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_one_and_nobody_has_none() {
        assert_eq!(queues("lo").unwrap(), 1);
        let error = queues("swf-none").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
        assert!(queues("a-name-that-is-too-long").is_err());
    }
}
