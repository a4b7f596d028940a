//! The authority over TCP: a thread for each connection, one answer after the other.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use swiftlet_net::client::Poll;

use super::{STOP_WAIT, Shared};
use crate::random::Random;

/// The most connections at a time; further ones are closed at once.
const CONNECTIONS_MAX: usize = 1024;

/// Time after which an idle connection is closed.
const IDLE: Duration = Duration::from_secs(30);

/// Answers are gathered up to so many bytes before they are written.
const OUTBOX_LEN: usize = 1 << 16;

const FRAME_MAX: usize = 2 + u16::MAX as usize;

/// Accepts connections until it is told to stop.
pub(super) fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    if listener.set_nonblocking(true).is_err() {
        return;
    }
    let (open, mut number) = (Arc::new(AtomicUsize::new(0)), 0);
    let mut poll = Poll::default();
    while !shared.is_stopped() {
        // An error of the wait or of accept(2), as without free descriptors, passes.
        let _ = poll.wait([(Some(listener), false)], STOP_WAIT);
        while let Ok((stream, _)) = listener.accept() {
            if open.load(Ordering::Relaxed) == CONNECTIONS_MAX {
                continue;
            }
            open.fetch_add(1, Ordering::Relaxed);
            number += 1;
            let (shared, open, number) = (Arc::clone(shared), Arc::clone(&open), number);
            let serve = move || {
                // Whatever ended it, the connection is closed.
                let _ = serve(stream, &shared, number);
                open.fetch_sub(1, Ordering::Relaxed);
            };
            // Without a thread the connection is closed, as when there are too many.
            let _ = thread::Builder::new().spawn(serve);
        }
    }
}

fn serve(mut stream: TcpStream, shared: &Shared, number: u64) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(STOP_WAIT))?;
    stream.set_write_timeout(Some(IDLE))?;
    let mut random = Random::new(shared.behaviour.seed, number);
    let (mut inbox, mut outbox) = (Vec::new(), Vec::new());
    let (mut chunk, mut frame) = (vec![0; FRAME_MAX], vec![0; FRAME_MAX]);
    let mut active = Instant::now();
    while !shared.is_stopped() && active.elapsed() < IDLE {
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(len) => inbox.extend_from_slice(&chunk[..len]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        }
        active = Instant::now();
        let (mut at, mut answers) = (0, 0);
        while let Some(&prefix) = inbox.get(at..).and_then(<[u8]>::first_chunk) {
            let len = usize::from(u16::from_be_bytes(prefix));
            let Some(query) = inbox.get(at + 2..at + 2 + len) else {
                break;
            };
            frame[2..2 + len].copy_from_slice(query);
            at += 2 + len;
            let Some(len) = shared.behaviour.zone.answer(&mut frame[2..], len, true) else {
                return Ok(());
            };
            frame[..2].copy_from_slice(&(len as u16).to_be_bytes());
            outbox.extend_from_slice(&frame[..2 + len]);
            answers += 1;
            if outbox.len() > OUTBOX_LEN {
                flush(&mut stream, shared, &mut random, &mut outbox, &mut answers)?;
            }
        }
        inbox.drain(..at);
        flush(&mut stream, shared, &mut random, &mut outbox, &mut answers)?;
    }
    Ok(())
}

/// Writes what was gathered, after the delay of one answer.
fn flush(
    stream: &mut TcpStream,
    shared: &Shared,
    random: &mut Random,
    outbox: &mut Vec<u8>,
    answers: &mut u64,
) -> io::Result<()> {
    let delay = shared.behaviour.delay.draw(random);
    if !delay.is_zero() {
        thread::sleep(delay);
    }
    // Counted first, so that who has the answer finds it counted.
    shared.answered.fetch_add(std::mem::take(answers), Ordering::Relaxed);
    stream.write_all(outbox)?;
    outbox.clear();
    Ok(())
}
