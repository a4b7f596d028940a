//! The frames of the fuzz corpus, by name: what each file under `fuzz/corpus/frame/` holds, and what
//! is to be made of it.

pub(crate) mod batches;
pub(crate) mod build;

use swiftlet_net::backend::xdp::frame::Reject::{self, Corrupt, Malformed, Unanswerable};

use self::build::{ETHERNET, Frame, set, set_v4_checksum};

/// A frame by the name of its file, and the bytes of its payload if it is a query.
pub(crate) type Named = (&'static str, Vec<u8>, Result<usize, Reject>);

/// Where the IP header of a frame without a tag is, and the UDP header behind each kind.
const IP: usize = ETHERNET;
const UDP_V4: usize = IP + 20;
const UDP_V6: usize = IP + 40;

/// All of them.
pub(crate) fn named() -> Vec<Named> {
    [queries(), lengths(), checksums(), headers(), sources()].concat()
}

/// What is answered.
fn queries() -> Vec<Named> {
    let good = |name, frame: &Frame| (name, frame.bytes(), Ok(frame.payload.len()));
    let mut padded = Frame::v4().payload(&[9; 12]).bytes();
    padded.resize(60, 0xa5);
    let mut loopback =
        Frame::between("127.0.0.1:9".parse().unwrap(), "127.0.0.1:53".parse().unwrap());
    (loopback.to_mac, loopback.from_mac) = ([0; 6], [0; 6]);
    vec![
        good("v4", &Frame::v4()),
        good("v6", &Frame::v6()),
        good("v4-vlan", &Frame::v4().tagged(7)),
        good("v6-vlan-priority", &Frame::v6().tagged(0xe007)),
        good("v4-vlan-0", &Frame::v4().tagged(0x6000)),
        good("v4-odd-payload", &Frame::v4().payload(&[1; 33])),
        good("v6-odd-payload", &Frame::v6().payload(&[0xff; 1])),
        good("v4-no-payload", &Frame::v4().payload(&[])),
        good("v6-no-payload", &Frame::v6().payload(&[])),
        good("v4-mtu-1500", &Frame::v4().payload(&[7; 1472])),
        good("v6-link-local", &Frame::v6().source("fe80::7")),
        good("v4-loopback", &loopback),
        ("v4-padded", padded, Ok(12)),
    ]
}

/// Lengths that lie, and those that only look like it.
fn lengths() -> Vec<Named> {
    let (v4, v6) = (Frame::v4().bytes(), Frame::v6().bytes());
    let (total, payload) = ((v4.len() - IP) as u16, Frame::v4().payload.len());
    let udp = 8 + payload as u16;
    // No UDP checksum, so that over IPv4 nothing but the length is wrong.
    let v4_with = |ip: u16, udp: u16| {
        let mut bytes = v4.clone();
        set(&mut bytes, IP + 2, ip);
        set_v4_checksum(&mut bytes, IP);
        set(&mut bytes, UDP_V4 + 4, udp);
        set(&mut bytes, UDP_V4 + 6, 0);
        bytes
    };
    let v6_with = |ip: u16, udp: u16| {
        let mut bytes = v6.clone();
        set(&mut bytes, IP + 4, ip);
        set(&mut bytes, UDP_V6 + 4, udp);
        bytes
    };
    vec![
        ("empty", Vec::new(), Err(Malformed)),
        ("ethernet-only", v4[..14].to_vec(), Err(Malformed)),
        ("v4-total-beyond-frame", v4_with(total + 1, udp), Err(Malformed)),
        ("v4-total-65535", v4_with(65535, udp), Err(Malformed)),
        ("v4-total-below-header", v4_with(19, udp), Err(Malformed)),
        ("v4-total-0", v4_with(0, udp), Err(Malformed)),
        ("v4-total-without-udp", v4_with(27, 8), Err(Malformed)),
        ("v4-udp-beyond-packet", v4_with(total, udp + 1), Err(Malformed)),
        ("v4-udp-within-padding", v4_with(total - 1, udp), Err(Malformed)),
        ("v4-udp-65535", v4_with(total, 65535), Err(Malformed)),
        ("v4-udp-7", v4_with(total, 7), Err(Malformed)),
        ("v4-udp-0", v4_with(total, 0), Err(Malformed)),
        ("v4-udp-shorter-than-packet", v4_with(total, udp - 4), Ok(payload - 4)),
        ("v6-length-beyond-frame", v6_with(udp + 1, udp), Err(Malformed)),
        ("v6-length-0-jumbogram", v6_with(0, 0), Err(Malformed)),
        ("v6-length-below-udp", v6_with(7, 8), Err(Malformed)),
        ("v6-udp-beyond-packet", v6_with(udp, udp + 1), Err(Malformed)),
        ("v6-udp-0", v6_with(udp, 0), Err(Malformed)),
        ("v6-udp-shorter-than-packet", v6_with(udp, udp - 4), Err(Corrupt)),
    ]
}

fn checksums() -> Vec<Named> {
    let with = |frame: &Frame, at: usize, word: u16| {
        let mut bytes = frame.bytes();
        set(&mut bytes, at, word);
        bytes
    };
    let flipped = |frame: &Frame, at: usize| {
        let mut bytes = frame.bytes();
        bytes[at] ^= 0x10;
        bytes
    };
    // The payload's last word makes the sum 0xffff, so that the checksum would be 0.
    let all_ones = |frame: Frame| {
        let odd = frame.clone().payload(&[0; 4]).bytes();
        let checksum = [odd[odd.len() - 6], odd[odd.len() - 5]];
        let frame = frame.payload(&[0, 0, checksum[0], checksum[1]]);
        assert_eq!(frame.bytes()[frame.udp() + 6..frame.udp() + 8], [0xff, 0xff]);
        frame.bytes()
    };
    let (v4, v6, tagged) = (Frame::v4(), Frame::v6(), Frame::v4().tagged(7));
    let len = v4.payload.len();
    vec![
        ("v4-header-checksum-wrong", flipped(&v4, IP + 10), Err(Corrupt)),
        ("v4-header-checksum-0", with(&v4, IP + 10, 0), Err(Corrupt)),
        ("v4-ttl-flipped", flipped(&v4, IP + 8), Err(Corrupt)),
        ("v4-payload-flipped", flipped(&v4, UDP_V4 + 9), Err(Corrupt)),
        ("v4-vlan-payload-flipped", flipped(&tagged, tagged.udp() + 9), Err(Corrupt)),
        ("v4-source-port-flipped", flipped(&v4, UDP_V4), Err(Corrupt)),
        ("v6-payload-flipped", flipped(&v6, UDP_V6 + 9), Err(Corrupt)),
        ("v6-address-flipped", flipped(&v6, IP + 20), Err(Corrupt)),
        ("v4-udp-checksum-0", with(&v4, UDP_V4 + 6, 0), Ok(len)),
        ("v6-udp-checksum-0", with(&v6, UDP_V6 + 6, 0), Err(Corrupt)),
        ("v4-udp-checksum-ffff", all_ones(Frame::v4()), Ok(4)),
        ("v6-udp-checksum-ffff", all_ones(Frame::v6()), Ok(4)),
        ("v4-udp-checksum-partial", v4.with_partial_checksum(), Ok(len)),
        ("v6-udp-checksum-partial", v6.with_partial_checksum(), Ok(len)),
        ("v4-vlan-udp-checksum-partial", tagged.with_partial_checksum(), Ok(len)),
    ]
}

/// What the filter leaves to the kernel.
fn headers() -> Vec<Named> {
    let with = |frame: &Frame, at: usize, word: u16| {
        let mut bytes = frame.bytes();
        set(&mut bytes, at, word);
        if frame.from.is_ipv4() {
            set_v4_checksum(&mut bytes, frame.packet());
        }
        (bytes, Err(Malformed))
    };
    let (v4, v6) = (Frame::v4(), Frame::v6());
    let options = Frame { options: vec![1, 1, 1, 0], ..Frame::v4() };
    let mut double = Frame::v4().tagged(7).bytes();
    double.splice(12..12, [0x81, 0, 0, 9]);
    let named = |name, (bytes, verdict)| (name, bytes, verdict);
    vec![
        named("arp", with(&v4, 12, 0x0806)),
        named("length-for-a-type", with(&v4, 12, 0x0100)),
        named("service-tag", with(&Frame::v4().tagged(7), 12, 0x88a8)),
        named("two-tags", (double, Err(Malformed))),
        named("v4-behind-the-type-of-v6", with(&v4, 12, 0x86dd)),
        named("v6-behind-the-type-of-v4", with(&v6, 12, 0x0800)),
        named("v4-version-6", with(&v4, IP, 0x6500)),
        named("v4-header-of-4-words", with(&v4, IP, 0x4400)),
        named("v4-options", (options.bytes(), Err(Malformed))),
        named("v4-first-fragment", with(&v4, IP + 6, 0x2000)),
        named("v4-later-fragment", with(&v4, IP + 6, 0x0001)),
        named("v4-last-fragment", with(&v4, IP + 6, 0x1fff)),
        named("v4-tcp", with(&v4, IP + 8, 0x4006)),
        named("v6-version-4", with(&v6, IP, 0x4000)),
        named("v6-hop-by-hop", with(&v6, IP + 6, 0x0040)),
        named("v6-fragment", with(&v6, IP + 6, 0x2c40)),
        named("v6-tcp", with(&v6, IP + 6, 0x0640)),
    ]
}

/// Where no answer can go.
fn sources() -> Vec<Named> {
    let from = |name, frame: Frame, source| (name, frame.source(source).bytes(), Err(Unanswerable));
    let unanswerable = |name, frame: Frame| (name, frame.bytes(), Err(Unanswerable));
    let port_0 = |mut frame: Frame| {
        frame.from.set_port(0);
        frame
    };
    let group = [0xff; 6];
    vec![
        unanswerable("v4-port-0", port_0(Frame::v4())),
        unanswerable("v6-port-0", port_0(Frame::v6())),
        unanswerable("mac-of-a-group", Frame { from_mac: group, ..Frame::v4() }),
        from("v4-from-unspecified", Frame::v4(), "0.0.0.0"),
        from("v4-from-broadcast", Frame::v4(), "255.255.255.255"),
        from("v4-from-multicast", Frame::v4(), "239.1.2.3"),
        from("v4-from-loopback", Frame::v4(), "127.0.0.1"),
        from("v4-from-ourselves", Frame::v4(), "192.0.2.1"),
        from("v4-to-no-mac-from-ourselves", Frame { to_mac: [0; 6], ..Frame::v4() }, "192.0.2.1"),
        from("v6-from-unspecified", Frame::v6(), "::"),
        from("v6-from-multicast", Frame::v6(), "ff02::1"),
        from("v6-from-loopback", Frame::v6(), "::1"),
        from("v6-from-mapped-loopback", Frame::v6(), "::ffff:127.0.0.1"),
        from("v6-from-ourselves", Frame::v6(), "2001:db8::1"),
    ]
}
