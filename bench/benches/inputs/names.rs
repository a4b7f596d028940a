//! Names in wire format.

use swiftlet_parser::name::{MAX_LABEL_LEN, MAX_NAME_LEN};

use super::scattered;

/// The `number`th name: four to six labels and 20 to 62 bytes, no two beginning alike, so that what
/// has seen one name doesn't know the next. None has the 64 bytes from which on the AVX2 arm is
/// chosen: what is done with these names takes the same instructions on every x86-64 processor.
pub(crate) fn usual(number: u64) -> Vec<u8> {
    let random = scattered(number);
    let mut wire = Vec::with_capacity(64);
    for place in 0..1 + random % 3 {
        label(&mut wire, 2 + (random >> (8 + 8 * place)) % 11, random.rotate_left(place as u32));
    }
    // The number itself, so that no two are alike.
    let digits = format!("n{number}");
    wire.push(digits.len() as u8);
    wire.extend(digits.bytes());
    wire.extend(b"\x05bench\x07example\0");
    wire
}

/// The `number`th name of exactly `len` bytes, 3 to 255, in labels as long as they can be.
pub(crate) fn of_length(len: usize, number: u64) -> Vec<u8> {
    assert!((3..=MAX_NAME_LEN).contains(&len), "no name with a label has {len} bytes");
    let mut wire = Vec::with_capacity(len);
    while wire.len() + 1 < len {
        let rest = len - 1 - wire.len();
        // A single byte would be left, which is no label.
        let longest = if rest == MAX_LABEL_LEN + 2 { MAX_LABEL_LEN } else { MAX_LABEL_LEN + 1 };
        label(&mut wire, rest.min(longest) as u64 - 1, scattered(number) ^ rest as u64);
    }
    wire.push(0);
    wire
}

/// The name in another letter case.
pub(crate) fn recased(wire: &[u8], number: u64) -> Vec<u8> {
    let bits = scattered(!number);
    let recase = |(at, byte): (u32, &u8)| match bits.rotate_left(at) & 1 {
        0 => byte.to_ascii_lowercase(),
        _ => byte.to_ascii_uppercase(),
    };
    (0..).zip(wire).map(recase).collect()
}

fn label(wire: &mut Vec<u8>, len: u64, random: u64) {
    wire.push(len as u8);
    wire.extend((0..len).map(|at| b'a' + (scattered(random ^ at) % 26) as u8));
}
