//! Whether io_uring can be used here, and if not, why not and what to change.

use std::fs;
use std::future::poll_fn;
use std::io;
use std::net::UdpSocket;
use std::thread;
use std::time::Duration;

pub use tokio_uring::Runtime;

use super::IoUring;
use crate::backend::Backend;
use crate::socket::OpenError;

/// The kernel from which on all that the backend uses exists: IORING_SETUP_NO_SQARRAY.
const KERNEL_NEEDED: &str = "6.6";
const VERSION_NEEDED: (u32, u32) = (6, 6);

/// Room in the queue of the runtime's own ring, to which nothing is submitted.
const RUNTIME_ENTRIES: u32 = 8;

/// How long the probe's datagram may take, over loopback.
const PATIENCE: Duration = Duration::from_secs(1);

/// Why io_uring cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    /// ENOSYS.
    #[error(
        "this kernel ({release}) was built without io_uring, or a seccomp profile hides it; run a kernel built \
         with CONFIG_IO_URING, or a profile that allows io_uring_setup, io_uring_enter and io_uring_register"
    )]
    Missing {
        /// The kernel's release.
        release: String,
    },
    /// EINVAL.
    #[error(
        "this kernel ({release}) is too old: it cannot {step}; Linux {KERNEL_NEEDED} or newer is needed"
    )]
    TooOld {
        /// The kernel's release.
        release: String,
        /// What was tried.
        step: &'static str,
    },
    /// EPERM by kernel.io_uring_disabled.
    #[error(
        "kernel.io_uring_disabled is {value}; set it to 0 (sysctl -w kernel.io_uring_disabled=0){}",
        if *.value == 1 {
            ", or let the server run in the group kernel.io_uring_group or with CAP_SYS_ADMIN"
        } else {
            ""
        }
    )]
    Disabled {
        /// Its value: 1 for unprivileged processes, 2 for all.
        value: u32,
    },
    /// EPERM or EACCES for another reason.
    #[error(
        "a seccomp profile or security module forbids it; run the container with a profile that allows \
         io_uring_setup, io_uring_enter and io_uring_register (docker run --security-opt seccomp=profile.json)"
    )]
    Forbidden,
    /// ENOMEM.
    #[error(
        "there is no memory for its rings: {source}; raise the limit on locked memory (ulimit -l, LimitMEMLOCK=) \
         or the container's memory limit"
    )]
    Memory {
        /// What the kernel said.
        source: io::Error,
    },
    /// EMFILE or ENFILE.
    #[error(
        "no file descriptor is left to {step} (limit of this process: {limit}); raise the limit on open files \
         (ulimit -n, LimitNOFILE=) or run fewer workers"
    )]
    NoDescriptor {
        /// What was tried.
        step: &'static str,
        /// The soft limit on open files.
        limit: u64,
    },
    /// Anything else.
    #[error("this kernel ({release}) cannot {step}: {source}")]
    Refused {
        /// The kernel's release.
        release: String,
        /// What was tried.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Unavailable {
    pub(super) fn at(step: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::new(step, source, &kernel("io_uring_disabled"), kernel("osrelease"))
    }

    /// Reads an error, with the text of /proc/sys/kernel/io_uring_disabled and osrelease.
    fn new(step: &'static str, source: io::Error, disabled: &str, release: String) -> Self {
        match source.raw_os_error() {
            Some(libc::ENOSYS) => Self::Missing { release },
            Some(libc::EINVAL) if is_too_old(&release) => Self::TooOld { release, step },
            Some(libc::EPERM | libc::EACCES) => match disabled.parse() {
                Ok(value @ 1..) => Self::Disabled { value },
                _ => Self::Forbidden,
            },
            Some(libc::ENOMEM) => Self::Memory { source },
            Some(libc::EMFILE | libc::ENFILE) => {
                let limit = crate::limits::open_files().map_or(0, |files| files.soft);
                Self::NoDescriptor { step, limit }
            }
            _ => Self::Refused { release, step, source },
        }
    }
}

/// Whether a kernel of this release (`6.1.0-31-amd64`) lacks what is needed, or may lack it.
fn is_too_old(release: &str) -> bool {
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse().ok());
    let version = numbers.next().zip(numbers.next());
    version.is_none_or(|version: (u32, u32)| version < VERSION_NEEDED)
}

/// Tries all that a worker needs, down to a datagram over loopback, on a thread of its own.
pub fn probe() -> Result<(), Unavailable> {
    let probing = thread::Builder::new()
        .name("probe-io-uring".to_owned())
        .spawn(|| runtime()?.block_on(answer_one()));
    let probing = probing.map_err(Unavailable::at("start a thread"))?;
    probing
        .join()
        .unwrap_or_else(|_| Err(Unavailable::at("take requests")(io::ErrorKind::Other.into())))
}

/// The runtime in which a worker on io_uring lives: tokio's, which serves everything else, and a
/// ring of tokio-uring's for operations on files.
pub fn runtime() -> Result<Runtime, Unavailable> {
    Runtime::new(tokio_uring::builder().entries(RUNTIME_ENTRIES))
        .map_err(Unavailable::at("open a runtime"))
}

async fn answer_one() -> Result<(), Unavailable> {
    let open = || UdpSocket::bind("127.0.0.1:0");
    let (Ok(client), Ok(server)) = (open(), open()) else {
        // No loopback here: what it is about works.
        return Ok(());
    };
    let server_address = server.local_addr().map_err(Unavailable::at("ask for an address"))?;
    let mut backend = IoUring::open(vec![server.into()], 2).map_err(|error| match error {
        OpenError::IoUring(unavailable) => unavailable,
        other => Unavailable::at("open a ring")(io::Error::other(other)),
    })?;
    if client.send_to(b"probe", server_address).is_err() {
        return Ok(());
    }
    let received = async {
        while backend.receive().packets == 0 {
            poll_fn(|cx| backend.poll_ready(cx)).await?;
        }
        Ok(())
    };
    let received = tokio::time::timeout(PATIENCE, received).await;
    received
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(Unavailable::at("receive a datagram"))?;
    backend.next().into_iter().for_each(|packet| packet.reply(1));
    // The reply takes a look at the socket along, which is empty now: that must end.
    let sent = backend.send();
    if sent.accepted == 1 && backend.ring.is_settled() {
        return Ok(());
    }
    Err(Unavailable::at("answer a datagram")(io::Error::from_raw_os_error(libc::EINVAL)))
}

/// A file of /proc/sys/kernel, or nothing.
fn kernel(name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap_or_default();
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::contract::runs_here;

    fn read(errno: i32, disabled: &str) -> String {
        let source = io::Error::from_raw_os_error(errno);
        Unavailable::new("open a ring", source, disabled, "5.4.0".to_owned()).to_string()
    }

    #[test]
    fn each_reason_names_what_to_change() {
        for (errno, disabled, words) in [
            (libc::ENOSYS, "0", "CONFIG_IO_URING"),
            (libc::EINVAL, "0", "this kernel (5.4.0) is too old: it cannot open a ring; Linux 6.6"),
            (libc::EPERM, "2", "kernel.io_uring_disabled is 2; set it to 0"),
            (libc::EPERM, "1", "kernel.io_uring_group"),
            (libc::EPERM, "0", "--security-opt seccomp="),
            (libc::EACCES, "", "--security-opt seccomp="),
            (libc::ENOMEM, "0", "ulimit -l"),
            (libc::EMFILE, "0", "ulimit -n"),
            (libc::EIO, "0", "cannot open a ring"),
        ] {
            let text = read(errno, disabled);
            assert!(text.contains(words), "{text}");
        }
    }

    #[test]
    fn only_an_old_kernel_is_told_so() {
        for (release, too_old) in [
            ("5.4.0", true),
            ("6.5.9-rc1", true),
            ("6.6.0", false),
            ("6.18.44-fc", false),
            ("?", true),
        ] {
            assert_eq!(is_too_old(release), too_old, "{release}");
        }
    }

    #[test]
    fn the_probe_may_run_inside_a_runtime() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        if runs_here::<IoUring>() {
            runtime.block_on(async { probe() }).unwrap();
        }
    }
}
