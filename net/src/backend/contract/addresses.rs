//! Answers leave from the address asked and reach whoever asked.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};

use super::*;

fn echoes<B: Subject>(address: &str) {
    for batch in [1, 7, 64, MAX_BATCH] {
        let mut rig = Rig::<B>::new(&[address], batch);
        let client = client(address);
        let sent = (0..100usize).map(|i| vec![i as u8; (i * 41) % 1500 + 1]);
        for datagram in sent.clone() {
            client.send_to(&datagram, rig.addresses[0]).unwrap();
        }
        let routes = rig.echo(100);
        let local = client.local_addr().unwrap();
        assert!(
            routes
                .iter()
                .all(|route| (route.peer(), route.local(), route.listener) == (local, None, 0))
        );
        assert_eq!(multiset((0..100).map(|_| take(&client).0)), multiset(sent));
        assert_eq!(rig.sent, Sent { accepted: 100, refused: 0 });
    }
}

pub(super) fn echoes_over_v4<B: Subject>() {
    echoes::<B>("127.0.0.1:0");
}

pub(super) fn echoes_over_v6<B: Subject>() {
    if UdpSocket::bind("[::1]:0").is_err() {
        return eprintln!("skipped: no IPv6 on this host");
    }
    echoes::<B>("[::1]:0");
}

pub(super) fn wildcard_v4_answers_from_the_address_asked<B: Subject>() {
    let mut rig = Rig::<B>::new(&["0.0.0.0:0"], 8);
    let client = client("127.0.0.1:0");
    for last in 1..=3 {
        let asked = SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), rig.addresses[0].port()));
        client.send_to(b"who?", asked).unwrap();
        let routes = rig.turn(|_, len| len);
        assert_eq!(routes[0].local(), Some(asked.ip()));
        assert!(routes[0].interface() > 0);
        assert_eq!(take(&client), (b"who?".to_vec(), asked));
    }
}

pub(super) fn wildcard_v6_answers_from_the_address_asked<B: Subject>() {
    let client = match UdpSocket::bind("[::1]:0") {
        Ok(_) => client("[::1]:0"),
        Err(_) => return eprintln!("skipped: no IPv6 on this host"),
    };
    // A listener with and one without control messages share the same headers.
    let mut rig = Rig::<B>::new(&["[::]:0", "127.0.0.1:0"], 8);
    let asked = SocketAddr::from((Ipv6Addr::LOCALHOST, rig.addresses[0].port()));
    for _ in 0..3 {
        client.send_to(b"who?", asked).unwrap();
        let routes = rig.turn(|_, len| len);
        assert_eq!((routes[0].local(), routes[0].listener), (Some(asked.ip()), 0));
        assert_eq!(take(&client), (b"who?".to_vec(), asked));
        let other = self::client("127.0.0.1:0");
        other.send_to(b"and v4?", rig.addresses[1]).unwrap();
        let routes = rig.turn(|_, len| len);
        assert_eq!((routes[0].local(), routes[0].listener), (None, 1));
        assert_eq!(take(&other), (b"and v4?".to_vec(), rig.addresses[1]));
    }
}

pub(super) fn link_local_clients_are_answered_on_their_link<B: Subject>() {
    let Some(own) = link_local() else {
        return eprintln!("skipped: no interface with a link-local address");
    };
    let client = client(&SocketAddr::from(own).to_string());
    let mut rig = Rig::<B>::new(&["[::]:0"], 8);
    let asked =
        SocketAddr::V6(SocketAddrV6::new(*own.ip(), rig.addresses[0].port(), 0, own.scope_id()));
    client.send_to(b"who?", asked).unwrap();
    let route = rig.turn(|_, len| len)[0];
    assert_eq!((route.peer(), route.local()), (client.local_addr().unwrap(), Some(asked.ip())));
    assert_eq!(take(&client), (b"who?".to_vec(), asked));
    assert!(rig.backend.send_to(&route, b"late"));
    rig.send();
    assert_eq!(take(&client), (b"late".to_vec(), asked));
}

/// A link-local address of this host with its scope, from /proc/net/if_inet6, that can be bound.
fn link_local() -> Option<SocketAddrV6> {
    let text = std::fs::read_to_string("/proc/net/if_inet6").ok()?;
    text.lines().find_map(|line| {
        let (address, rest) = line.split_once(' ')?;
        let address = Ipv6Addr::from(u128::from_str_radix(address, 16).ok()?);
        let scope = u32::from_str_radix(rest.split(' ').next()?, 16).ok()?;
        let own = SocketAddrV6::new(address, 0, 0, scope);
        (address.is_unicast_link_local() && UdpSocket::bind(own).is_ok()).then_some(own)
    })
}

pub(super) fn deferred_answers_leave_from_the_address_asked<B: Subject>() {
    let mut rig = Rig::<B>::new(&["0.0.0.0:0"], 8);
    let client = client("127.0.0.1:0");
    let asked = [2, 3]
        .map(|last| SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), rig.addresses[0].port())));
    for asked in asked {
        client.send_to(b"q", asked).unwrap();
    }
    let routes = rig.turn(|_, _| 0);
    for route in routes.iter().rev() {
        assert!(rig.backend.send_to(route, b"late"));
    }
    rig.send();
    let mut from = [take(&client).1, take(&client).1];
    from.sort();
    assert_eq!(from, asked);
}
