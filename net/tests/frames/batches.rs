//! What the files under `fuzz/corpus/batch/` hold: the steps of a queue and its worker, as
//! `backend::xdp::fuzz::batch` reads them.

#![allow(dead_code, reason = "each test program uses its own part")]

use super::build::Frame;

/// Steps by the name of their file.
pub(crate) type Named = (&'static str, Vec<u8>);

/// A step without more to it.
const TAKE: u8 = 2;
const PEEK: u8 = 5;
const FINISH: u8 = 6;
const FORGET: u8 = 7;

/// All of them.
pub(crate) fn named() -> Vec<Named> {
    let (v4, v6) = (arrive(&Frame::v4().bytes()), arrive(&Frame::v6().bytes()));
    let vlan = arrive(&Frame::v4().tagged(7).bytes());
    let elsewhere = arrive(&Frame::v4().tagged(8).bytes());
    let forged = arrive(&Frame::v4().source("127.0.0.1").bytes());
    let runt = arrive(&[0; 20]);
    let [longer, outside] = [(256, 200, 71), (2040, 0, 71)]
        .map(|(start, lie, len)| arrive_at(start, lie, &vec![8; len]));
    let full = arrive(&Frame::v4().payload(&[1; 1472]).bytes());
    let all = [&v4[..], &v6, &vlan].concat();
    vec![
        ("one-answered", steps(&[&v4, &[TAKE], &reply(45), &[FINISH]])),
        (
            "all-answered",
            steps(&[&all, &[TAKE, PEEK], &reply(1), &reply(1400), &reply(60), &[FINISH]]),
        ),
        ("one-of-three-answered", steps(&[&all, &[TAKE], &reply(0), &reply(60), &[PEEK, FINISH]])),
        ("none-handed-on", steps(&[&all, &[TAKE, FINISH]])),
        ("none-answered", steps(&[&all, &[TAKE], &reply(0), &reply(0), &reply(0), &[FINISH]])),
        ("answered-then-forgotten", steps(&[&all, &[TAKE], &reply(60), &[FORGET, FINISH]])),
        ("taken-while-taken", steps(&[&v4, &[TAKE], &reply(60), &all, &[TAKE, FINISH]])),
        ("arrived-while-taken", steps(&[&v4, &[TAKE], &all, &reply(60), &[FINISH, TAKE, FINISH]])),
        ("nothing-arrived", vec![TAKE, PEEK, 3, 0, 60, FINISH]),
        ("more-asked-for-than-there", steps(&[&v4, &[TAKE], &reply(60), &reply(60), &[FINISH]])),
        ("no-good", steps(&[&elsewhere, &forged, &runt, &longer, &outside, &[TAKE, FINISH]])),
        (
            "good-among-no-good",
            steps(&[&runt, &v4, &forged, &v6, &[TAKE], &reply(60), &reply(60), &[FINISH]]),
        ),
        (
            "reply-beyond-room",
            steps(&[&v4, &v6, &[TAKE], &reply(u16::MAX), &reply(1453), &[FINISH]]),
        ),
        ("at-the-mtu", steps(&[&full, &[TAKE], &reply(1472), &[FINISH]])),
        ("at-the-end-of-the-chunk", steps(&[&at_the_end(), &[TAKE], &reply(1472), &[FINISH]])),
        (
            "more-than-free",
            steps(&[&all, &all, &[TAKE], &all, &all, &[TAKE, FINISH, TAKE, FINISH]]),
        ),
    ]
}

fn steps(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// A frame that comes in where frames do.
fn arrive(bytes: &[u8]) -> Vec<u8> {
    arrive_at(256, 0, bytes)
}

/// A frame whose descriptor claims `lie` bytes too many.
fn arrive_at(start: u16, lie: u8, bytes: &[u8]) -> Vec<u8> {
    let (start, len) = (start.to_be_bytes(), (bytes.len() as u16).to_be_bytes());
    [&[0, start[0], start[1], lie, len[0], len[1]], bytes].concat()
}

/// A frame behind which no byte of its chunk is left.
fn at_the_end() -> Vec<u8> {
    let bytes = Frame::v4().bytes();
    arrive_at(2048 - bytes.len() as u16, 0, &bytes)
}

/// The next packet is handed on, and answered with so many bytes; 0 for no answer.
fn reply(len: u16) -> Vec<u8> {
    let [high, low] = len.to_be_bytes();
    vec![3, high, low]
}
