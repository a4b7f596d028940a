//! A queue whose interface goes down, comes up and goes away; over a veth pair, natively.

use std::future::poll_fn;
use std::net::UdpSocket;
use std::sync::mpsc::channel;
use std::thread;

use super::rig::{isolated, run};
use super::*;
use crate::backend::Options;
use crate::backend::contract::{PATIENCE, on_free_port, runs_here};
use crate::socket::Listener;

/// A server with one queue, in the network of its thread.
struct Server {
    xdp: Xdp,
    runtime: tokio::runtime::Runtime,
    attachment: Attachment,
    address: SocketAddr,
}

impl Server {
    fn open(address: &str) -> Self {
        let address = on_free_port(address);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let options = Options { listeners: vec![Listener { address }], ..Options::default() };
        let sockets = options.bind().unwrap().into_iter().map(|(socket, _)| socket).collect();
        let request = Request {
            listeners: vec![address],
            interfaces: Vec::new(),
            queues: None,
            mode: Mode::Copy,
            workers: 1,
            batch: 64,
            busy_poll_us: 50,
        };
        let (attachment, mut shares) = open(&request).unwrap();
        let xdp = runtime.block_on(async { Xdp::open(sockets, 64, shares.remove(0)) }).unwrap();
        Self { xdp, runtime, attachment, address }
    }

    /// Waits for what the backend has to say of datagrams or errors.
    fn receive(&mut self) -> Received {
        loop {
            let ready = poll_fn(|cx| self.xdp.poll_ready(cx));
            let ready = async { tokio::time::timeout(PATIENCE, ready).await };
            self.runtime.block_on(ready).expect("readiness within the time").unwrap();
            let received = self.xdp.receive();
            if received != Received::default() {
                return received;
            }
        }
    }

    /// Replies with what was asked.
    fn echo(&mut self) -> Sent {
        let _inside = self.runtime.enter();
        while let Some(packet) = self.xdp.next() {
            let len = packet.len;
            packet.reply(len);
        }
        self.xdp.send()
    }
}

#[test]
fn replies_outlast_an_interface_that_is_down_and_frames_one_that_is_removed() {
    if !runs_here::<Xdp>() {
        return;
    }
    let (client_of, client_is) = channel();
    let (ask, asked) = channel::<SocketAddr>();
    thread::scope(|scope| {
        // The other end of the cable, in a network of its own.
        let client = scope.spawn(move || {
            isolated(move || {
                client_of.send(nix::unistd::gettid()).unwrap();
                let server = asked.recv().unwrap();
                let client = UdpSocket::bind("198.51.100.2:0").unwrap();
                client.set_read_timeout(Some(PATIENCE)).unwrap();
                client.send_to(b"one", server).unwrap();
                let mut buf = [0; 16];
                let (len, from) = client.recv_from(&mut buf).unwrap();
                assert_eq!((&buf[..len], from), (&b"one"[..], server));
                // The cable goes with the network, so this ends after the server.
                while let Ok(server) = asked.recv() {
                    client.send_to(b"another", server).unwrap();
                }
            });
        });
        isolated(move || {
            let client = client_is.recv().unwrap();
            run("ip link add swq0 type veth peer name swq1");
            run(&format!("ip link set swq1 netns {client}"));
            run("ip address add 198.51.100.1/24 dev swq0");
            run("ip link set swq0 up");
            let other = format!("nsenter --net=/proc/{client}/ns/net ip");
            run(&format!("{other} address add 198.51.100.2/24 dev swq1"));
            run(&format!("{other} link set swq1 up"));
            let mut server = Server::open("198.51.100.1:0");
            ask.send(server.address).unwrap();
            assert_eq!(server.receive().packets, 1);
            assert_eq!(server.echo(), Sent { accepted: 1, refused: 0 });
            assert_eq!(server.attachment.queue_counts()[0].received, 1);

            // It goes down between question and answer, which leaves when it is up again.
            ask.send(server.address).unwrap();
            assert_eq!(server.receive().packets, 1);
            run("ip link set swq0 down");
            server.echo();
            assert!(server.xdp.ports[0].queue.is_stuck());
            run("ip link set swq0 up");
            while server.xdp.ports[0].queue.is_stuck() {
                let ready = poll_fn(|cx| server.xdp.poll_ready(cx));
                server.runtime.block_on(ready).unwrap();
                let _inside = server.runtime.enter();
                server.xdp.receive();
            }
            assert_eq!(server.xdp.outstanding(), 0);

            ask.send(server.address).unwrap();
            // It goes away between question and answer, which nobody waits for any more.
            assert_eq!(server.receive().packets, 1);
            run("ip link delete swq0");
            assert_eq!(server.echo(), Sent { accepted: 0, refused: 1 });
            assert!(!server.xdp.ports[0].queue.is_stuck());
            assert_eq!(server.xdp.outstanding(), 0);
            let mut cx = Context::from_waker(std::task::Waker::noop());
            assert_eq!(server.xdp.receive(), Received::default());
            assert!(server.xdp.poll_ready(&mut cx).is_pending());
        });
        client.join().unwrap();
    });
}
