//! Forgetting answers on an operator's order.
//!
//! When [`Service::flush`] returns, no lookup that begins finds what it was to remove, on any worker:
//! the cache is shared, so it is gone from there, and what upstream was asked for before is not
//! stored any more ([`Flushes::unless_since`]). A question that is in flight meanwhile still answers
//! those who wait for it, and who come to wait for it until its answer is there. Takes time with the
//! size of the cache, during which the workers go on; to be called from the control thread.

use std::sync::{PoisonError, RwLock};

use swiftlet_cache::Store as _;
use swiftlet_parser::key::{Key, NO_TYPE};
use swiftlet_parser::name::Name;
use swiftlet_parser::rr::Type;

use crate::pipeline::Service;

/// What to forget: everything that all of the given conditions hold for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scope {
    /// Only this name.
    pub name: Option<Name>,
    /// With the name everything below it. Without effect if no name is given.
    pub below: bool,
    /// Only this type. That a name doesn't exist at all is forgotten with any of its types.
    pub qtype: Option<Type>,
}

impl Scope {
    fn holds(&self, key: &Key<'_>) -> bool {
        let name_fits = self.name.as_ref().is_none_or(|name| match Name::from_wire(key.qname()) {
            Some(qname) if self.below => qname.is_at_or_below(name.as_wire()),
            Some(qname) => qname == *name,
            None => true,
        });
        let of_all_types = key.qtype() == NO_TYPE;
        name_fits && self.qtype.is_none_or(|qtype| key.qtype() == qtype || of_all_types)
    }
}

/// How often something was flushed.
///
/// Who stores an answer holds the lock shared for as long as that takes, a flush exclusively for as
/// long as it takes to count: what was asked for before is either in the cache when the flush begins
/// to look through it, or not stored. Hits never come here.
#[derive(Debug, Default)]
pub struct Flushes(RwLock<u64>);

impl Flushes {
    /// Their number now; to be asked for before upstream or the cache is.
    #[must_use]
    pub fn count(&self) -> u64 {
        *self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores by `store` what was asked for when the number was `count`; `None`, and nothing is done,
    /// if there was a flush since.
    pub fn unless_since<R>(&self, count: u64, store: impl FnOnce() -> R) -> Option<R> {
        let now = self.0.read().unwrap_or_else(PoisonError::into_inner);
        (*now == count).then(store)
    }

    fn add(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) += 1;
    }
}

impl Service {
    /// Forgets the answers in this scope and returns how many those were.
    pub fn flush(&self, scope: &Scope) -> u64 {
        self.flushes.add();
        self.cache.remove_if(|bytes| {
            // Whatever is no key of ours cannot be found by anyone, and goes as well.
            Key::from_bytes(0, bytes).is_none_or(|key| scope.holds(&key))
        })
    }
}

#[cfg(test)]
mod tests {
    use swiftlet_parser::key::{KeyBuf, Seed, Variant};
    use swiftlet_parser::rr::Class;

    use super::*;

    fn holds(scope: &Scope, name: &str, qtype: Type) -> bool {
        let name = Name::from_text(name).expect("a name");
        let mut keys = KeyBuf::default();
        let variant = Variant::new(false, false, 0);
        scope.holds(&keys.build(&Seed::new(1), name.as_wire(), qtype, Class::IN, variant))
    }

    #[test]
    fn a_scope_is_all_of_its_conditions() {
        let name = Some(Name::from_text("example.com").expect("a name"));
        let all = Scope::default();
        let one = Scope { name, ..all };
        let tree = Scope { below: true, ..one };
        let addresses = Scope { qtype: Some(Type::A), ..tree };
        for (scope, name, qtype, expected) in [
            (&all, "other.org", Type::NS, true),
            (&one, "EXAMPLE.com", Type::NS, true),
            (&one, "www.example.com", Type::NS, false),
            (&tree, "www.example.com", Type::NS, true),
            (&tree, "wwwexample.com", Type::NS, false),
            (&tree, "com", Type::NS, false),
            (&addresses, "www.example.com", Type::A, true),
            (&addresses, "www.example.com", Type::NS, false),
            (&addresses, "www.example.com", NO_TYPE, true),
            (&addresses, "www.example.org", Type::A, false),
        ] {
            assert_eq!(holds(scope, name, qtype), expected, "{scope:?} {name} {qtype}");
        }
    }
}
