//! What tests of AF_XDP need: the privilege for it, and a network namespace of their own.
//!
//! A namespace belongs to a thread of the test and to the programs that it runs, and vanishes with them,
//! with all interfaces in it. `/sys` shows another one there.

use std::io;
use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, unshare};
use socket2::{Domain, Socket, Type};

use crate::sys::bpf::{Counters, SocketMap};

/// Why AF_XDP, or a network of the test's own, is refused here, if it is.
pub(in crate::backend) fn refusal() -> Option<String> {
    let error = try_all().err()?;
    Some(format!("the tests of AF_XDP need root: {error}"))
}

/// Whatever takes a privilege: maps of programs and of sockets, sockets, a network namespace.
fn try_all() -> io::Result<()> {
    Counters::create("probe", 1)?;
    SocketMap::create("probe", 1)?;
    Socket::new(Domain::from(libc::AF_XDP), Type::RAW, None)?;
    let namespace = || unshare(CloneFlags::CLONE_NEWNET);
    Ok(thread::scope(|scope| scope.spawn(namespace).join().expect("a system call"))?)
}

/// Runs `body` in a thread with a network namespace of its own, whose loopback is up.
pub(in crate::backend) fn isolated(body: impl FnOnce() + Send) {
    let inside = || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        run("ip link set lo up");
        body();
    };
    let result = thread::scope(|scope| scope.spawn(inside).join());
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

/// Runs a program, of words without blanks, to its good end, and returns what it said.
pub(in crate::backend) fn run(command: &str) -> String {
    let mut words = command.split_whitespace();
    let program = words.next().unwrap();
    let output = Command::new(program).args(words).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {error}");
    String::from_utf8(output.stdout).unwrap()
}
