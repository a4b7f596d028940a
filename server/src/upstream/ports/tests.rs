use std::collections::HashSet;

use proptest::prelude::*;
use rand::SeedableRng;

use super::*;
use crate::telemetry::Board;

/// A pool of ports to a server that says nothing.
struct Pool {
    ports: Ports,
    budget: Rc<Budget>,
    set: WatchSet,
    random: StdRng,
    board: Board,
    now: Instant,
    address: SocketAddr,
    _server: UdpSocket,
}

impl Pool {
    fn new(slots: usize, max_open: usize) -> Self {
        let (board, budget) = (Board::new(1), Budget::new(max_open));
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        Self {
            ports: Ports::new(slots, Rc::clone(&budget), board.tally(0)),
            budget,
            set: WatchSet::new().unwrap(),
            random: StdRng::seed_from_u64(7),
            board,
            now: Instant::now(),
            address: server.local_addr().unwrap(),
            _server: server,
        }
    }

    fn pick_at_renewal(&mut self, renewals: u32) -> Result<usize, Failure> {
        let Self { ports, set, random, now, address, .. } = self;
        ports.pick((0, *address), renewals, *now, random, set)
    }

    fn pick(&mut self) -> Result<usize, Failure> {
        self.pick_at_renewal(0)
    }

    fn number(&mut self, port: usize) -> u16 {
        self.ports.get_mut(port).expect("an open port").number
    }

    /// Puts a question on a port and returns its ID.
    fn enter(&mut self, port: usize, question: usize) -> u16 {
        let held = self.ports.get_mut(port).expect("an open port");
        let id = held.draw_id(&mut self.random);
        held.enter(id, question);
        id
    }

    /// Has a port carry a question that is answered.
    fn carry(&mut self, port: usize) {
        let id = self.enter(port, 1);
        self.ports.leave(port, id, true);
    }
}

#[test]
fn ports_are_drawn_evenly_from_the_full_range() {
    const BINS: usize = 16;
    const DRAWS: u32 = 4000;
    let mut pool = Pool::new(16, 64);
    let mut bins = [0_u32; BINS];
    for renewal in 0..DRAWS {
        // Each is made anew.
        let port = pool.pick_at_renewal(renewal).unwrap();
        let number = pool.number(port);
        assert!(PORTS.contains(&number));
        bins[usize::from(number - PORTS.start()) * BINS / PORTS.len()] += 1;
    }
    assert_eq!(pool.board.sum(Counter::UpstreamPorts), u64::from(DRAWS));
    let expected = f64::from(DRAWS) / BINS as f64;
    let chi_square: f64 =
        bins.iter().map(|&bin| (f64::from(bin) - expected).powi(2) / expected).sum();
    // 15 degrees of freedom: above 50 in one case of 80,000.
    assert!(chi_square < 50.0, "{chi_square}: {bins:?}");
}

#[test]
fn a_question_takes_any_slot_and_a_slot_keeps_its_port() {
    let mut pool = Pool::new(32, 64);
    let mut numbers = HashSet::new();
    for _ in 0..32 * MAX_CARRIED / 4 {
        let port = pool.pick().unwrap();
        pool.carry(port);
        numbers.insert(pool.number(port));
    }
    assert_eq!(pool.board.sum(Counter::UpstreamPorts) as usize, numbers.len());
    assert!((28..=32).contains(&numbers.len()), "{} ports", numbers.len());
    assert_eq!(pool.budget.open(), numbers.len());
}

#[test]
fn a_port_is_retired_after_sixteen_questions() {
    let mut pool = Pool::new(1, 10);
    let first = pool.pick().unwrap();
    for _ in 0..MAX_CARRIED {
        assert_eq!(pool.pick(), Ok(first));
        pool.carry(first);
    }
    let number = pool.number(first);
    let second = pool.pick().unwrap();
    assert_ne!(pool.number(second), number);
    assert_eq!(pool.budget.open(), 1, "nothing waited on the first");
}

#[test]
fn a_retired_port_stays_open_until_its_last_question_ends() {
    let mut pool = Pool::new(1, 10);
    let first = pool.pick().unwrap();
    let ids: Vec<u16> = (0..MAX_CARRIED).map(|question| pool.enter(first, question)).collect();
    let second = pool.pick().unwrap();
    assert_ne!(first, second);
    for (at, &id) in ids.iter().enumerate() {
        assert_eq!(pool.budget.open(), 2, "{at} of 16 ended");
        pool.ports.leave(first, id, true);
    }
    assert_eq!(pool.budget.open(), 1);
    assert_eq!(pool.pick(), Ok(second), "its place is the second one's");
}

#[test]
fn a_port_is_retired_after_ten_seconds() {
    let mut pool = Pool::new(1, 10);
    let first = pool.pick().unwrap();
    let number = pool.number(first);
    pool.now += MAX_AGE - Duration::from_millis(1);
    assert_eq!(pool.pick(), Ok(first));
    pool.now += Duration::from_millis(1);
    let second = pool.pick().unwrap();
    assert_ne!(pool.number(second), number);
}

#[test]
fn a_port_is_retired_when_the_ways_are_made_anew_or_a_question_went_unanswered() {
    let mut pool = Pool::new(1, 10);
    let first = pool.pick().unwrap();
    let number = pool.number(first);
    let second = pool.pick_at_renewal(1).unwrap();
    let second_number = pool.number(second);
    assert_ne!(second_number, number);

    let id = pool.enter(second, 1);
    pool.ports.leave(second, id, false);
    let third = pool.pick_at_renewal(1).unwrap();
    assert_ne!(pool.number(third), second_number);
}

#[test]
fn the_ids_of_a_port_are_distinct_and_say_whose_a_reply_is() {
    let mut pool = Pool::new(1, 10);
    for _ in 0..500 {
        let port = pool.pick().unwrap();
        let ids: Vec<u16> = (0..MAX_CARRIED).map(|question| pool.enter(port, question)).collect();
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), MAX_CARRIED);
        let held = pool.ports.get_mut(port).unwrap();
        assert_eq!(held.whose(ids[7]), Whose::Waiting(7));
        assert!(held.waiting().eq(0..MAX_CARRIED));
        let unknown = (0..=u16::MAX).find(|id| !ids.contains(id)).unwrap();
        assert_eq!(held.whose(unknown), Whose::Nobody);
        pool.ports.leave(port, ids[7], true);
        let held = pool.ports.get_mut(port).unwrap();
        assert_eq!(held.whose(ids[7]), Whose::Late);
        ids.iter().for_each(|&id| pool.ports.leave(port, id, true));
    }
}

#[test]
fn an_id_is_random_over_its_whole_range() {
    let mut pool = Pool::new(1, 10);
    let mut bins = [0; 16];
    for _ in 0..4000 {
        let port = pool.pick().unwrap();
        let id = pool.enter(port, 1);
        pool.ports.leave(port, id, true);
        bins[usize::from(id >> 12)] += 1;
    }
    assert!(bins.iter().all(|bin| (170..330).contains(bin)), "250 each on average: {bins:?}");
}

#[test]
fn sockets_stay_within_the_budget() {
    let mut pool = Pool::new(64, 4);
    for _ in 0..200 {
        let port = pool.pick().unwrap();
        pool.carry(port);
        assert!(pool.budget.open() <= 4, "idle ones are closed for others");
    }
    // Four that each keep a socket open, and have room for no more.
    let mut held = Vec::new();
    let full = loop {
        match pool.pick() {
            Ok(port) => held.push((port, pool.enter(port, 1))),
            Err(full) => break full,
        }
        assert!(held.len() <= 4 * MAX_CARRIED);
    };
    assert_eq!((full, pool.budget.open()), (Failure::NoSocket, 4));
    assert_eq!(pool.board.sum(Counter::UpstreamPortsFull), 1);
    for (port, id) in held {
        pool.ports.leave(port, id, true);
    }
    assert!(pool.pick().is_ok());
    assert!(pool.budget.open() <= 4);
}

#[test]
fn the_sweep_closes_what_is_old_and_idle() {
    let mut pool = Pool::new(64, 64);
    let waiting = pool.pick().unwrap();
    let id = pool.enter(waiting, 1);
    for _ in 0..50 {
        let port = pool.pick().unwrap();
        pool.carry(port);
    }
    let open = pool.budget.open();
    assert!(open > 10);
    assert!(pool.ports.sweep(pool.now + MAX_AGE - Duration::from_millis(1)));
    assert_eq!(pool.budget.open(), open, "all are young");
    assert!(pool.ports.sweep(pool.now + MAX_AGE), "one waits");
    assert_eq!(pool.budget.open(), 1);
    pool.ports.leave(waiting, id, false);
    assert!(!pool.ports.sweep(pool.now + MAX_AGE));
    assert_eq!(pool.budget.open(), 0);
}

/// What may happen to the ports.
#[derive(Clone, Copy, Debug)]
enum Event {
    Ask,
    /// One of those who wait gets an answer, or gives up.
    End(usize, bool),
    Pass(u16),
    Sweep,
    Renew,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => Just(Event::Ask),
        5 => (any::<usize>(), prop::bool::weighted(0.9)).prop_map(|(at, good)| Event::End(at, good)),
        1 => (0_u16..4000).prop_map(Event::Pass),
        1 => Just(Event::Sweep),
        1 => Just(Event::Renew),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The model is what each question knows of its own: port, ID, and when its port was first used.
    #[test]
    fn whatever_happens_each_question_is_found_and_no_port_is_left(
        slots in 1_usize..20,
        max_open in 1_usize..12,
        events in prop::collection::vec(event(), 1..300),
    ) {
        let mut pool = Pool::new(slots, max_open);
        let (mut waiting, mut asked, mut renewals) = (Vec::new(), 0, 0);
        // By port's own key and number: when it was first used, how often, and by whom.
        let mut used: std::collections::HashMap<(usize, u16), (Instant, u32, HashSet<u16>)> =
            std::collections::HashMap::new();
        for event in events {
            match event {
                Event::Ask => {
                    let Ok(port) = pool.pick_at_renewal(renewals) else { continue };
                    let id = pool.enter(port, asked);
                    let number = pool.number(port);
                    let entry = used.entry((port, number));
                    let (first, since, ids) =
                        entry.or_insert_with(|| (pool.now, renewals, HashSet::new()));
                    prop_assert!(ids.insert(id) && ids.len() <= MAX_CARRIED);
                    prop_assert!(pool.now.duration_since(*first) < MAX_AGE);
                    prop_assert_eq!(*since, renewals);
                    waiting.push((port, id, asked));
                    asked += 1;
                }
                Event::End(at, answered) if !waiting.is_empty() => {
                    let (port, id, _) = waiting.swap_remove(at % waiting.len());
                    pool.ports.leave(port, id, answered);
                }
                Event::End(..) => {}
                Event::Pass(ms) => pool.now += Duration::from_millis(ms.into()),
                Event::Sweep => _ = pool.ports.sweep(pool.now),
                Event::Renew => renewals += 1,
            }
            prop_assert!(pool.budget.open() <= max_open);
            prop_assert_eq!(pool.budget.open(), pool.ports.open.len());
            for &(port, id, question) in &waiting {
                let held = pool.ports.get_mut(port);
                prop_assert_eq!(held.map(|held| held.whose(id)), Some(Whose::Waiting(question)));
            }
            // A port that was closed may be drawn again, as another one.
            let open = &pool.ports.open;
            used.retain(|(port, number), _| open.get(*port).is_some_and(|held| held.number == *number));
        }
        for (port, id, _) in waiting {
            pool.ports.leave(port, id, true);
        }
        prop_assert!(!pool.ports.sweep(pool.now + MAX_AGE));
        prop_assert_eq!(pool.budget.open(), 0);
        prop_assert!(pool.ports.pools.iter().flatten().all(|&slot| slot == NONE));
    }
}
