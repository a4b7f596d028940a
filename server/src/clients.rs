//! How many queries of one client may wait at once, in the whole process. Hits are never counted.
//!
//! A client is an IPv4 address or an IPv6 /64. Counts stand in a fixed table of atomics, found by a
//! seeded hash: two clients that fall into one place share its bound, which costs them nothing until
//! both together are at it. Bound: [`PLACES`] counters, whatever the number of clients.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Counters in the table.
pub const PLACES: usize = 1 << 16;

/// The table, shared by all workers.
#[derive(Clone, Debug)]
pub struct Clients {
    table: Arc<Table>,
}

#[derive(Debug)]
struct Table {
    waiting: Box<[AtomicU32]>,
    hasher: RandomState,
    max: u32,
}

/// Where a query that waits is counted; to be given back with [`Clients::release`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(u32);

impl Clients {
    /// Lets each client have at most `max` queries waiting.
    #[must_use]
    pub fn new(max: u32) -> Self {
        let waiting = (0..PLACES).map(|_| AtomicU32::new(0)).collect();
        Self { table: Arc::new(Table { waiting, hasher: RandomState::new(), max }) }
    }

    /// Counts one more query of a client; `None` when it has as many as it may.
    #[must_use]
    pub fn admit(&self, client: IpAddr) -> Option<Place> {
        let place = self.place(client);
        let counter = self.counter(place);
        if counter.fetch_add(1, Relaxed) < self.table.max {
            return Some(place);
        }
        counter.fetch_sub(1, Relaxed);
        None
    }

    /// One query less.
    pub fn release(&self, place: Option<Place>) {
        if let Some(place) = place {
            self.counter(place).fetch_sub(1, Relaxed);
        }
    }

    /// Queries of all clients that are counted now.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.table.waiting.iter().map(|counter| u64::from(counter.load(Relaxed))).sum()
    }

    fn place(&self, client: IpAddr) -> Place {
        let network = match client.to_canonical() {
            IpAddr::V4(address) => u64::from(address.to_bits()),
            // One host usually has a /64 to choose its addresses from.
            IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
        };
        Place(self.table.hasher.hash_one(network) as u32 % PLACES as u32)
    }

    fn counter(&self, place: Place) -> &AtomicU32 {
        &self.table.waiting[place.0 as usize % PLACES]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_at_its_bound_is_told_and_may_again_after_a_release() {
        let clients = Clients::new(2);
        let client = "192.0.2.1".parse().unwrap();
        let first = clients.admit(client);
        assert!(first.is_some() && clients.admit(client).is_some());
        assert_eq!(clients.admit(client), None);
        clients.release(first);
        assert_eq!(clients.waiting(), 1);
        assert!(clients.admit(client).is_some());
    }

    #[test]
    fn addresses_of_one_64_are_one_client() {
        let clients = Clients::new(1);
        assert!(clients.admit("2001:db8::1".parse().unwrap()).is_some());
        assert_eq!(clients.admit("2001:db8::2".parse().unwrap()), None);
        assert_eq!(clients.waiting(), 1);
    }
}
