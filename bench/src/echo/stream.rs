//! The bare echo over TCP: one thread, one epoll set, level-triggered. For each connection that has
//! something to read, one read(2) of all that is there and one write(2) of the same.
//!
//! Frames are neither found nor checked, so a pipelined window comes back in as few calls as it
//! came. What a client doesn't read is waited for, with all others: it is a yardstick, not a server.

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use anyhow::Context;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// Events per system call.
const EVENTS: usize = 64;

/// Read at once.
const CHUNK_LEN: usize = 1 << 16;

/// Echoes what comes over connections to `listener` until the process is ended.
pub(super) fn serve(listener: &TcpListener) -> anyhow::Result<Infallible> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("cannot make an epoll set")?;
    let door = listener.as_raw_fd() as u64;
    epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN, door)).context("cannot watch")?;
    // By descriptor.
    let mut streams: Vec<Option<TcpStream>> = Vec::new();
    let mut events = [EpollEvent::empty(); EVENTS];
    let mut chunk = vec![0; CHUNK_LEN];
    loop {
        let ready = match epoll.wait(&mut events, EpollTimeout::NONE) {
            Ok(ready) => ready,
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error).context("cannot wait"),
        };
        for event in &events[..ready] {
            if event.data() == door {
                // One that has gone already is none.
                let Ok((stream, _)) = listener.accept() else {
                    continue;
                };
                let fd = stream.as_raw_fd() as usize;
                stream.set_nodelay(true).context("cannot set TCP_NODELAY")?;
                epoll
                    .add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, fd as u64))
                    .context("cannot watch a connection")?;
                streams.resize_with(streams.len().max(fd + 1), || None);
                streams[fd] = Some(stream);
                continue;
            }
            let place = &mut streams[event.data() as usize];
            let is_open = place.as_mut().is_some_and(|stream| echo(stream, &mut chunk));
            if !is_open {
                // Closing it takes it out of the set.
                *place = None;
            }
        }
    }
}

/// False when the connection has ended.
fn echo(stream: &mut TcpStream, chunk: &mut [u8]) -> bool {
    match stream.read(chunk) {
        Ok(0) | Err(_) => false,
        Ok(len) => stream.write_all(&chunk[..len]).is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::thread;

    use super::*;

    #[test]
    fn connections_get_their_own_back_and_may_go() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback socket");
        let address = listener.local_addr().expect("bound");
        // It lives as long as the test program.
        thread::spawn(move || serve(&listener));
        let connect = || TcpStream::connect(address).expect("connected");
        let mut first = connect();
        for round in 0..3u8 {
            let mut second = connect();
            for (stream, byte) in [(&mut first, round), (&mut second, 100 + round)] {
                stream.write_all(&[byte; 3000]).expect("written");
            }
            for (stream, byte) in [(&mut second, 100 + round), (&mut first, round)] {
                let mut echoed = [0; 3000];
                stream.read_exact(&mut echoed).expect("echoed");
                assert_eq!(echoed, [byte; 3000]);
            }
        }
    }
}
