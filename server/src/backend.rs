//! Which backend carries the clients' datagrams: the one that was asked for, or the best that works here.

use crate::config;

/// The backends compiled in.
///
/// By this crate's features: another user of `swiftlet-net` may have more compiled into that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `swiftlet_net::backend::Epoll`.
    Epoll,
    /// `swiftlet_net::backend::IoUring`.
    #[cfg(feature = "io-uring")]
    IoUring,
    /// `swiftlet_net::backend::Xdp`.
    #[cfg(feature = "af-xdp")]
    AfXdp,
}

impl Kind {
    /// Its name in log lines and settings.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Epoll => "epoll",
            #[cfg(feature = "io-uring")]
            Self::IoUring => "io-uring",
            #[cfg(feature = "af-xdp")]
            Self::AfXdp => "af-xdp",
        }
    }
}

/// Why a backend is taken that was named, and works here.
const AS_ASKED: &str = "as asked for";

/// The same of one that is found out about when it is opened, which takes privileges.
const UNTRIED: &str = "as asked for; whether it works here is found out at the start";

/// In order of merit as measured: bench/results/backends.md. Over UDP sockets io_uring saves few system
/// calls and no work behind them. af-xdp is not among them: it goes around the host's firewall, so it is only
/// for the asking.
const BY_MERIT: [Candidate; 2] = [
    Candidate { name: "epoll", probe: || Ok(Kind::Epoll) },
    Candidate { name: "io-uring", probe: probe_io_uring },
];

/// A backend that the server may have, and how to find out whether it works here.
#[derive(Clone, Copy)]
struct Candidate {
    name: &'static str,
    probe: fn() -> Result<Kind, Absent>,
}

/// Why a backend is not to be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Absent {
    /// The program lacks it.
    #[error("not compiled in")]
    NotCompiledIn,
    /// The host refuses it: the reason and how to mend it.
    #[error("{0}")]
    Refused(String),
}

/// The backend taken, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The backend.
    pub kind: Kind,
    /// Whether it was asked for; for `auto`, what became of the others.
    pub why: String,
}

/// Chooses the backend, and tries whether it works here; af-xdp is found out about when it is opened.
///
/// # Errors
///
/// What was asked for does not work here.
pub fn choose(asked: config::Backend) -> Result<Choice, Absent> {
    let (kind, why) = match asked {
        config::Backend::Auto => return best_of(&BY_MERIT),
        config::Backend::Epoll => (Kind::Epoll, AS_ASKED),
        config::Backend::IoUring => (probe_io_uring()?, AS_ASKED),
        config::Backend::AfXdp => (af_xdp()?, UNTRIED),
    };
    Ok(Choice { kind, why: why.into() })
}

/// The first that works, with a word on each of the others.
fn best_of(candidates: &[Candidate]) -> Result<Choice, Absent> {
    let tried: Vec<_> = candidates.iter().map(|tried| (tried.name, (tried.probe)())).collect();
    let works = |(_, result): &(_, Result<Kind, Absent>)| result.is_ok();
    let taken = tried.iter().position(works).unwrap_or_default();
    let kind = tried[taken].1.clone()?;
    let rank = if taken == 0 { "first" } else { "best that works" };
    let mut why = format!("auto: {rank} in order of merit");
    for (_, (name, result)) in tried.iter().enumerate().filter(|(at, _)| *at != taken) {
        why += &match result {
            Ok(_) => format!("; {name} works here"),
            Err(Absent::NotCompiledIn) => format!("; {name} not compiled in"),
            Err(Absent::Refused(reason)) => format!("; {name}: {reason}"),
        };
    }
    Ok(Choice { kind, why })
}

#[cfg(feature = "io-uring")]
fn probe_io_uring() -> Result<Kind, Absent> {
    match swiftlet_net::backend::uring::probe() {
        Ok(()) => Ok(Kind::IoUring),
        Err(unavailable) => Err(Absent::Refused(unavailable.to_string())),
    }
}

#[cfg(not(feature = "io-uring"))]
fn probe_io_uring() -> Result<Kind, Absent> {
    Err(Absent::NotCompiledIn)
}

#[cfg(feature = "af-xdp")]
fn af_xdp() -> Result<Kind, Absent> {
    Ok(Kind::AfXdp)
}

#[cfg(not(feature = "af-xdp"))]
fn af_xdp() -> Result<Kind, Absent> {
    Err(Absent::NotCompiledIn)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKS: Candidate = Candidate { name: "a", probe: || Ok(Kind::Epoll) };
    const REFUSED: Candidate =
        Candidate { name: "b", probe: || Err(Absent::Refused("too old".into())) };
    const LACKING: Candidate = Candidate { name: "c", probe: || Err(Absent::NotCompiledIn) };

    #[test]
    fn the_best_that_works_is_taken_and_each_other_has_its_reason() {
        for (candidates, why) in [
            (&[WORKS][..], "auto: first in order of merit"),
            (&[WORKS, WORKS], "auto: first in order of merit; a works here"),
            (
                &[REFUSED, WORKS, LACKING],
                "auto: best that works in order of merit; b: too old; c not compiled in",
            ),
        ] {
            assert_eq!(best_of(candidates).unwrap(), Choice { kind: Kind::Epoll, why: why.into() });
        }
        assert_eq!(best_of(&[REFUSED, LACKING]).unwrap_err(), Absent::Refused("too old".into()));
    }

    #[test]
    fn epoll_is_always_to_be_had() {
        assert_eq!(choose(config::Backend::Epoll).unwrap().kind, Kind::Epoll);
        let auto = choose(config::Backend::Auto).unwrap();
        assert!(auto.why.contains("; io-uring"), "{}", auto.why);
    }

    #[test]
    fn af_xdp_is_only_for_the_asking() {
        assert!(BY_MERIT.iter().all(|candidate| candidate.name != "af-xdp"));
        assert_eq!(choose(config::Backend::AfXdp).is_ok(), cfg!(feature = "af-xdp"));
    }
}
