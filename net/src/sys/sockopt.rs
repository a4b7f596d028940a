//! Socket options that `socket2` doesn't name.
#![expect(unsafe_code, reason = "setsockopt(2) and getsockopt(2) take raw pointers")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{c_int, socklen_t};

/// SO_MEMINFO (linux/socket.h, Linux 4.12) and its fields (linux/sock_diag.h), which libc doesn't
/// define.
const SO_MEMINFO: c_int = 55;
const SK_MEMINFO_VARS: usize = 9;
const SK_MEMINFO_DROPS: usize = 8;

/// Sets an option whose value is an int.
pub(crate) fn set(
    socket: BorrowedFd<'_>,
    level: c_int,
    name: c_int,
    value: c_int,
) -> io::Result<()> {
    // SAFETY: the pointer and the length describe `value`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<c_int>() as socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The socket's count of dropped datagrams.
pub(crate) fn drops(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut values = [0u32; SK_MEMINFO_VARS];
    let mut len = size_of_val(&values) as socklen_t;
    // SAFETY: the pointer and the length describe `values`; the kernel writes at most `len` bytes,
    // and any bytes are u32s.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_MEMINFO,
            values.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    if (len as usize) < size_of_val(&values) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    Ok(values[SK_MEMINFO_DROPS])
}
