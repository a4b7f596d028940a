//! How many TCP connections may be open, in the whole process and per client.
//!
//! Shared by all workers, so that their number multiplies nothing. The lock is taken when a connection
//! begins and ends, never for a query.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// The bounds, and what is open under them.
#[derive(Clone, Debug)]
pub struct Bounds {
    open: Arc<Mutex<Open>>,
    max: usize,
    max_per_client: usize,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    by_client: HashMap<IpAddr, usize>,
}

/// An open connection's place; given back when dropped.
#[derive(Debug)]
pub struct Admitted {
    bounds: Bounds,
    client: IpAddr,
}

impl Bounds {
    /// At most `max` connections, and at most `max_per_client` from one address.
    #[must_use]
    pub fn new(max: usize, max_per_client: usize) -> Self {
        Self { open: Arc::default(), max, max_per_client }
    }

    /// A place for a connection of this client, if there is one.
    #[must_use]
    pub fn admit(&self, client: IpAddr) -> Option<Admitted> {
        let client = client.to_canonical();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.total >= self.max {
            return None;
        }
        let of_client = open.by_client.entry(client).or_insert(0);
        if *of_client >= self.max_per_client {
            return None;
        }
        *of_client += 1;
        open.total += 1;
        Some(Admitted { bounds: self.clone(), client })
    }

    /// Connections that are open now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).total
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut open = self.bounds.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.total -= 1;
        if let Some(of_client) = open.by_client.get_mut(&self.client) {
            *of_client -= 1;
            if *of_client == 0 {
                open.by_client.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_come_back() {
        let bounds = Bounds::new(3, 2);
        let (one, other) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let first = bounds.admit(one);
        let second = bounds.admit("::ffff:192.0.2.1".parse().unwrap());
        assert!(first.is_some() && second.is_some());
        assert!(bounds.admit(one).is_none(), "two of one client");
        let third = bounds.admit(other);
        assert!(third.is_some());
        assert!(bounds.admit(other).is_none(), "three in all");
        drop(first);
        assert_eq!(bounds.open(), 2);
        assert!(bounds.admit(one).is_some());
        drop((second, third));
        assert_eq!(bounds.open(), 0);
        assert!(bounds.open.lock().unwrap().by_client.is_empty());
    }
}
