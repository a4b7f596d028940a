//! Queues over a veth pair, natively: an interface that goes down, comes up and goes away, and tags.

use std::future::poll_fn;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Instant;

use super::filter::{Filter, Link, Target};
use super::interface::plan;
use super::queue::RING_LEN;
use super::rig::{isolated, run};
use super::*;
use crate::backend::Options;
use crate::backend::contract::{PATIENCE, bind_free, on_free_port, runs_here};
use crate::socket::Listener;
use crate::sys::umem::{Frame, Umem};
use crate::sys::xsk::{Copying, Kick, Segment, Xsk};

/// Frames that are sent and received at once over a [`Cable`].
const BATCH: usize = 64;

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
        let runtime = runtime();
        let options = Options { listeners: vec![Listener { address }], ..Options::default() };
        let sockets = bind_free(&options).unwrap();
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
            assert_eq!(server.echo(), Sent::default());
            assert!(server.xdp.ports[0].queue.is_stuck());
            run("ip link set swq0 up");
            let (begun, mut settled) = (Instant::now(), Sent::default());
            while server.xdp.ports[0].queue.is_stuck() {
                assert!(begun.elapsed() < PATIENCE);
                let ready = poll_fn(|cx| server.xdp.poll_ready(cx));
                server.runtime.block_on(ready).unwrap();
                let _inside = server.runtime.enter();
                settled = server.xdp.receive().sent;
            }
            // Its device may still have no carrier. Nothing but the timer told of it.
            assert_eq!(settled.accepted + settled.refused, 1);
            assert_eq!((server.echo(), server.xdp.outstanding()), (Sent::default(), 0));

            ask.send(server.address).unwrap();
            // It goes away between question and answer, which nobody waits for any more.
            assert_eq!(server.receive().packets, 1);
            run("ip link delete swq0");
            assert_eq!(server.echo(), Sent { accepted: 0, refused: 1 });
            assert_eq!(server.echo(), Sent::default());
            assert!(!server.xdp.ports[0].queue.is_stuck());
            assert_eq!(server.xdp.outstanding(), 0);
            let mut cx = Context::from_waker(std::task::Waker::noop());
            assert_eq!(server.xdp.receive(), Received::default());
            assert!(server.xdp.poll_ready(&mut cx).is_pending());
        });
        client.join().unwrap();
    });
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Waits for what a device delivers in its own time.
fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(begun.elapsed() < PATIENCE, "nothing came within the time");
        thread::yield_now();
    }
}

/// A veth pair with both ends in one network: a server's at 198.51.100.1:53, and a socket of a client at
/// 198.51.100.2:1234.
struct Cable {
    attachment: Attachment,
    client: Xsk,
    /// Frames of the client.
    free: Vec<Frame>,
    macs: [[u8; 6]; 2],
    _filters: (Filter, Link),
}

impl Cable {
    /// Lays it, and opens the server's queue; frames have the tag of this VLAN.
    fn lay(vlan: Option<u16>) -> (Self, Queue) {
        run("ip link add swv0 type veth peer name swv1");
        let ends = [("swv0", "198.51.100.1:53"), ("swv1", "198.51.100.2:1234")];
        let [(near, near_targets), (far, far_targets)] = ends.map(|(name, address)| {
            let address: SocketAddr = address.parse().unwrap();
            run(&format!("ip address add {}/24 dev {name}", address.ip()));
            run(&format!("ip link set {name} up"));
            let (interface, targets) = plan(&[address], &[name.into()]).unwrap().remove(0);
            let tagged = |target| Target { vlan, ..target };
            (interface, targets.into_iter().map(tagged).collect::<Vec<_>>())
        });
        let request = Request {
            listeners: vec!["198.51.100.1:53".parse().unwrap()],
            interfaces: Vec::new(),
            queues: None,
            mode: Mode::Copy,
            workers: 1,
            batch: BATCH,
            busy_poll_us: 0,
        };
        let mut attachment = Attachment::default();
        let (queue, _) = attachment.add(&request, &near, &near_targets).unwrap().remove(0);
        attachment.begin().unwrap();

        let (umem, mut free) = Umem::new(2048, 2 * BATCH as u32).unwrap();
        let mut client = Xsk::open(umem, BATCH as u32).unwrap();
        let filter = Filter::load(far.mac, &far_targets, 1, 1518).unwrap();
        let link = filter.attach(&far, false).unwrap();
        let mut to_fill = free.split_off(BATCH);
        client.fill(&mut to_fill);
        client.bind(far.index, 0, Copying::Always).unwrap();
        filter.serve(0, client.as_fd()).unwrap();
        let macs = [near.mac, far.mac];
        (Self { attachment, client, free, macs, _filters: (filter, link) }, queue)
    }

    /// A query from end to end, without a tag.
    fn query(&self, payload: &[u8]) -> Vec<u8> {
        let mut query = batch::tests::query(payload);
        query[..6].copy_from_slice(&self.macs[0]);
        query[6..12].copy_from_slice(&self.macs[1]);
        query[26..34].copy_from_slice(&[198, 51, 100, 2, 198, 51, 100, 1]);
        batch::tests::set_checksum(&mut query[14..34]);
        query
    }

    /// Sends a frame so many times, at most a batch. The device may drop some.
    fn send(&mut self, bytes: &[u8], times: usize) {
        for _ in 0..times {
            let mut frame = self.free.pop().unwrap();
            self.client.umem_mut().bytes_mut(&mut frame)[..bytes.len()].copy_from_slice(bytes);
            let len = bytes.len() as u16;
            self.client.transmit(Segment { frame, start: 0, len }).unwrap();
        }
        until(|| (self.client.kick() == Kick::Done && self.client.unsent() == 0).then_some(()));
        until(|| {
            self.client.complete(&mut self.free);
            (self.free.len() == BATCH).then_some(())
        });
    }
}

/// The whole way of a tagged query, which takes no VLAN device.
#[test]
fn a_tagged_query_is_answered_with_its_tag() {
    const QUERY_TO: usize = 12;
    if !runs_here::<Xdp>() {
        return;
    }
    isolated(|| {
        let (mut cable, mut queue) = Cable::lay(Some(7));
        let mut query = cable.query(b"tagged");
        query.splice(QUERY_TO..QUERY_TO, [0x81, 0, 0x60, 7]);
        cable.send(&query, 1);

        let Cable { client, macs: [near, far], .. } = &mut cable;
        let mut batch = Batch::new(BATCH);
        let received = until(|| queue.receive(BATCH, &mut batch));
        assert_eq!(received, Received { packets: 1, ..Received::default() });
        let packet = queue.next(&mut batch).unwrap();
        assert_eq!(packet.buf[..packet.len], *b"tagged");
        packet.reply(6);
        assert_eq!(queue.send(&mut batch), Sent { accepted: 1, refused: 0 });

        let mut arrivals = Vec::new();
        let reply = until(|| {
            client.receive(1, &mut arrivals);
            arrivals.pop()
        });
        let start = usize::from(reply.start);
        let bytes = &client.umem().bytes(&reply.frame)[start..start + query.len()];
        assert_eq!((&bytes[..6], &bytes[6..12]), (&far[..], &near[..]));
        assert_eq!((&bytes[12..18], &bytes[46..]), (&query[12..18], &b"tagged"[..]));
    });
}

/// A worker that does not look for a while loses frames, each of which is counted once.
#[test]
fn each_frame_that_is_dropped_is_counted_by_its_reason() {
    const ROOM: u64 = RING_LEN as u64;
    if !runs_here::<Xdp>() {
        return;
    }
    isolated(|| {
        let (mut cable, mut queue) = Cable::lay(None);
        // Once that many wait in the ring: frames redirected, received, and what the kernel says.
        let counts = |cable: &Cable, waiting: u64| {
            until(|| {
                let redirected = cable.attachment.filter_counts()[0].unwrap().redirected;
                let queue = cable.attachment.queue_counts().remove(0);
                let kernel = queue.kernel.unwrap();
                let gone = queue.received + kernel.dropped + kernel.ring_full;
                (redirected == gone + waiting).then_some((redirected, queue.received, kernel))
            })
        };
        let query = cable.query(b"many");
        let send_until = |cable: &mut Cable, redirected: u64| {
            until(|| {
                cable.send(&query, BATCH);
                let sent = cable.attachment.filter_counts()[0].unwrap().redirected;
                (sent >= redirected).then_some(())
            });
        };
        // As many as the ring has room for are there for the kernel to receive into.
        send_until(&mut cable, ROOM + 100);
        let (redirected, received, kernel) = counts(&cable, ROOM);
        let dropped = redirected - ROOM;
        let expected = KernelCounts { dropped, fill_empty: dropped, ..KernelCounts::default() };
        assert_eq!((received, kernel), (0, expected));

        // Now it is given as many again, and the ring has room for a batch.
        let mut batch = Batch::new(BATCH);
        assert_eq!(queue.receive(BATCH, &mut batch).unwrap().packets, BATCH);
        send_until(&mut cable, redirected + ROOM);
        let (redirected, received, kernel) = counts(&cable, ROOM);
        let ring_full = redirected - dropped - ROOM - BATCH as u64;
        assert!(ring_full > dropped);
        assert_eq!((received, kernel), (BATCH as u64, KernelCounts { ring_full, ..expected }));

        queue.forget(&mut batch);
        while queue.receive(BATCH, &mut batch).is_some() {
            queue.forget(&mut batch);
        }
        assert_eq!(counts(&cable, 0), (redirected, ROOM + BATCH as u64, kernel));
        assert_eq!(queue.outstanding(), 0);
    });
}

/// It looks itself; another worker waits for the runtime to tell.
#[test]
fn a_busy_worker_need_not_be_told_of_arrivals() {
    if !runs_here::<Xdp>() {
        return;
    }
    for busy_poll in [false, true] {
        isolated(|| {
            let (mut cable, queue) = Cable::lay(None);
            let runtime = runtime();
            let _inside = runtime.enter();
            let share = Share { queues: vec![queue], busy_poll };
            let mut xdp = Xdp::open(Vec::new(), BATCH, share).unwrap();
            assert_eq!(xdp.receive(), Received::default());
            let mut cx = Context::from_waker(std::task::Waker::noop());
            assert!(xdp.poll_ready(&mut cx).is_pending());

            let query = cable.query(b"one");
            cable.send(&query, 1);
            until(|| xdp.ports[0].queue.poll_device().then_some(()));
            assert_eq!(xdp.poll_ready(&mut cx).is_ready(), busy_poll);
            assert_eq!(xdp.receive().packets, 1);
        });
    }
}
