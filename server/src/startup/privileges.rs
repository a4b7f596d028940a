//! The capabilities of the process: taken up for what the start opens, and given up when that is done.
//!
//! A program file may grant them as permitted only, so that it starts even where a container must not have
//! them. Threads have capabilities each for itself and inherit them when they are made: all of this is about
//! the calling thread.

use caps::{CapSet, Capability, errors::CapsError};

/// For ports below 1024.
const BIND: Capability = Capability::CAP_NET_BIND_SERVICE;

/// For af-xdp: filter and interface, the filter's program and what stands in for that where an engine does
/// not know it, sockets, memory beyond RLIMIT_MEMLOCK.
const AF_XDP: [Capability; 5] = [
    Capability::CAP_NET_ADMIN,
    Capability::CAP_BPF,
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_NET_RAW,
    Capability::CAP_IPC_LOCK,
];

/// What was taken up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Privileges {
    af_xdp: bool,
}

impl Privileges {
    /// Raises what the file grants and the start needs, and drops the rest of what it grants; to be called
    /// before other threads are made.
    ///
    /// What the process had in effect already (root, systemd) stays: SO_RCVBUFFORCE is the better for it.
    pub(super) fn take_up(af_xdp: bool) -> Self {
        // What cannot be raised is refused later, by a message that says what it was for.
        if is_in(CapSet::Permitted, BIND) {
            let _ = caps::raise(None, CapSet::Effective, BIND);
        }
        for granted in AF_XDP.into_iter().filter(|&one| is_in(CapSet::Permitted, one)) {
            if af_xdp {
                let _ = caps::raise(None, CapSet::Effective, granted);
            } else if !is_in(CapSet::Effective, granted) {
                warn(granted, caps::drop(None, CapSet::Permitted, granted));
            }
        }
        Self { af_xdp }
    }

    /// Drops for good what af-xdp alone needed; to be called by each thread when its sockets are open.
    pub(super) fn give_up(self) {
        let is_held = |one: &Capability| self.af_xdp && is_in(CapSet::Permitted, *one);
        for granted in AF_XDP.into_iter().filter(is_held) {
            // In this order: what is in effect must be permitted.
            let dropped = caps::drop(None, CapSet::Effective, granted)
                .and_then(|()| caps::drop(None, CapSet::Permitted, granted));
            warn(granted, dropped);
        }
    }
}

fn warn(granted: Capability, dropped: Result<(), CapsError>) {
    if let Err(error) = dropped {
        tracing::warn!("{granted} is not needed any more, and cannot be dropped: {error}");
    }
}

fn is_in(set: CapSet, capability: Capability) -> bool {
    caps::has_cap(None, set, capability).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs on a thread of its own, whose capabilities are nobody else's.
    fn alone(test: impl FnOnce() + Send + 'static) {
        std::thread::spawn(test).join().expect("the test's thread ends");
    }

    /// Whether this thread has all of them in this set. If SWIFTLET_REQUIRE_AF_XDP is 1 it must.
    fn has_all(set: CapSet) -> bool {
        let required = std::env::var("SWIFTLET_REQUIRE_AF_XDP").is_ok_and(|value| value == "1");
        let missing: Vec<_> = AF_XDP.into_iter().filter(|&one| !is_in(set, one)).collect();
        assert!(missing.is_empty() || !required, "not in the {set:?} set: {missing:?}");
        if !missing.is_empty() {
            eprintln!("skipped: not in the {set:?} set: {missing:?}");
        }
        missing.is_empty()
    }

    fn as_granted_by_a_file() -> bool {
        let has_all = has_all(CapSet::Permitted);
        if has_all {
            for one in AF_XDP {
                caps::drop(None, CapSet::Effective, one).expect("a thread may drop what it has");
            }
        }
        has_all
    }

    fn held(set: CapSet) -> usize {
        AF_XDP.into_iter().filter(|&one| is_in(set, one)).count()
    }

    #[test]
    fn what_the_file_grants_is_dropped_where_it_is_not_needed() {
        alone(|| {
            if as_granted_by_a_file() {
                Privileges::take_up(false);
                assert_eq!((held(CapSet::Effective), held(CapSet::Permitted)), (0, 0));
            }
        });
    }

    #[test]
    fn what_is_in_effect_already_stays_where_af_xdp_is_not_asked_for() {
        alone(|| {
            if has_all(CapSet::Effective) {
                Privileges::take_up(false);
                let all = AF_XDP.len();
                assert_eq!((held(CapSet::Effective), held(CapSet::Permitted)), (all, all));
            }
        });
    }

    #[test]
    fn what_af_xdp_needs_is_raised_and_given_up_for_good() {
        alone(|| {
            if as_granted_by_a_file() {
                let privileges = Privileges::take_up(true);
                assert_eq!(held(CapSet::Effective), AF_XDP.len());
                privileges.give_up();
                assert_eq!((held(CapSet::Effective), held(CapSet::Permitted)), (0, 0));
            }
        });
    }
}
