//! The switches: one row each, and all that the ablation knows of them.

use serde::Serialize;

use super::build::Build;

/// What turning a switch does to the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Turn {
    /// Takes an optimization away: it is worth what the variant costs more.
    Without,
    /// Puts something else in its place, or adds it: it would be worth what the variant costs less.
    With,
}

/// One switch, turned alone.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Switch {
    /// What the table calls the server with it turned.
    pub name: &'static str,
    /// What is other there, in a few words.
    pub what: &'static str,
    /// What that means.
    pub turn: Turn,
    /// How that server is built.
    #[serde(skip)]
    pub build: Build,
    /// What it is told in its environment.
    #[serde(skip)]
    pub settings: &'static [(&'static str, &'static str)],
    /// Why the switch stays where no workload shows a gain.
    #[serde(skip)]
    pub stays: &'static str,
}

/// All switches, those that take something away first.
pub const SWITCHES: &[Switch] = &[
    Switch {
        name: "no-simd",
        what: "names are folded and compared byte by byte (feature `simd` off)",
        turn: Turn::Without,
        build: Build::only(&["mimalloc"]),
        settings: &[],
        stays: "names here are short (21 bytes); it is for long ones, and costs nothing where there is no gain",
    },
    Switch {
        name: "no-mimalloc",
        what: "the system's allocator (feature `mimalloc` off)",
        turn: Turn::Without,
        build: Build::only(&["simd"]),
        settings: &[],
        stays: "hits allocate nothing; it is for misses with many names, TCP and the control thread, and makes memory \
                the same with every libc",
    },
    Switch {
        name: "no-pin",
        what: "workers unpinned (`SWIFTLET_PIN=false`)",
        turn: Turn::Without,
        build: Build::DEFAULT,
        settings: &[("SWIFTLET_PIN", "false")],
        stays: "the measured server is confined to one core from outside, so this shows only that asking for it costs \
                nothing; pinning is for many cores and NUMA, where a worker that moves leaves its cache and its memory \
                behind",
    },
    Switch {
        name: "no-look-ahead",
        what: "a batch's cache lines are not fetched ahead (`SWIFTLET_LOOK_AHEAD=false`)",
        turn: Turn::Without,
        build: Build::DEFAULT,
        settings: &[("SWIFTLET_LOOK_AHEAD", "false")],
        stays: "it pays when the cache is larger than the processor's, which 10,000 and 100,000 names may not be",
    },
    Switch {
        name: "no-huge-pages",
        what: "the cache in usual pages, where mimalloc asks for huge ones (`SWIFTLET_HUGE_PAGES=false`)",
        turn: Turn::Without,
        build: Build::DEFAULT,
        settings: &[("SWIFTLET_HUGE_PAGES", "false")],
        stays: "huge pages are for caches of gigabytes, far beyond what the processor's tables of pages (TLB) reach; \
                those here have 12 MiB",
    },
    Switch {
        name: "batch-1",
        what: "one datagram a system call (`SWIFTLET_BATCH=1`)",
        turn: Turn::Without,
        build: Build::DEFAULT,
        settings: &[("SWIFTLET_BATCH", "1")],
        stays: "the cost of a system call depends on the processor and its mitigations",
    },
    Switch {
        name: "batch-16",
        what: "16 datagrams a system call in place of 64 (`SWIFTLET_BATCH=16`)",
        turn: Turn::With,
        build: Build::DEFAULT,
        settings: &[("SWIFTLET_BATCH", "16")],
        stays: "fewer buffers, for small machines and short queues",
    },
    Switch {
        name: "batch-256",
        what: "256 datagrams a system call in place of 64 (`SWIFTLET_BATCH=256`)",
        turn: Turn::With,
        build: Build::DEFAULT,
        settings: &[("SWIFTLET_BATCH", "256")],
        stays: "for machines whose queues are longer than the windows asked here",
    },
    Switch {
        name: "jemalloc",
        what: "jemalloc in place of mimalloc (feature `jemalloc`)",
        turn: Turn::With,
        build: Build::only(&["simd", "jemalloc"]),
        settings: &[],
        stays: "for those who know and watch it; hits allocate nothing",
    },
    Switch {
        name: "moka-cache",
        what: "the answer cache on `moka`, for as many bytes (feature `moka-cache`, `SWIFTLET_CACHE=moka`)",
        turn: Turn::With,
        build: Build::with(&["moka-cache"]),
        settings: &[("SWIFTLET_CACHE", "moka")],
        stays: "it is the yardstick of our own cache, in every suite and measurement",
    },
    Switch {
        name: "io-uring",
        what: "datagrams over io_uring (feature `io-uring`, `SWIFTLET_BACKEND=io-uring`)",
        turn: Turn::With,
        build: Build::with(&["io-uring"]),
        settings: &[("SWIFTLET_BACKEND", "io-uring")],
        stays: "what it costs depends on kernel and network card; `auto` takes it only where it is first in order of \
                merit, see backends.md",
    },
    Switch {
        name: "busy-poll-50",
        what: "a worker looks for packets 50 µs longer before it sleeps (`SWIFTLET_BUSY_POLL_US=50`)",
        turn: Turn::With,
        build: Build::DEFAULT,
        settings: &[("SWIFTLET_BUSY_POLL_US", "50")],
        stays: "loopback has no network card to poll, and a worker that is always busy never sleeps; it trades CPU for \
                latency where packets come one by one",
    },
    Switch {
        name: "huge-pages",
        what: "the cache aligned to huge pages, and asked for in them (`SWIFTLET_HUGE_PAGES=true`)",
        turn: Turn::With,
        build: Build::DEFAULT,
        settings: &[("SWIFTLET_HUGE_PAGES", "true")],
        stays: "with mimalloc the default has them as well; it is for the other allocators",
    },
];

/// The switches of these names, in the table's order; all of them if none is named.
///
/// # Errors
/// If one isn't known.
pub fn find(names: &[String]) -> anyhow::Result<Vec<&'static Switch>> {
    for name in names {
        let known: Vec<&str> = SWITCHES.iter().map(|switch| switch.name).collect();
        let known_names = known.join(", ");
        anyhow::ensure!(
            known.contains(&name.as_str()),
            "no switch {name}; there are {known_names}"
        );
    }
    let wanted =
        |switch: &&Switch| names.is_empty() || names.iter().any(|name| name == switch.name);
    Ok(SWITCHES.iter().filter(wanted).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_switch_turns_something_and_says_what() {
        let names: BTreeSet<&str> = SWITCHES.iter().map(|switch| switch.name).collect();
        assert_eq!(names.len(), SWITCHES.len(), "names are unique");
        for switch in SWITCHES {
            assert!(
                switch.build != Build::DEFAULT || !switch.settings.is_empty(),
                "{}",
                switch.name
            );
            assert!(!switch.stays.is_empty() && !switch.stays.ends_with('.'), "{}", switch.name);
            for (variable, value) in switch.settings {
                assert!(variable.starts_with("SWIFTLET_"), "{}", switch.name);
                let assignment = format!("{variable}={value}");
                assert!(switch.what.contains(&assignment), "{assignment} is to be told");
            }
            assert!(!switch.what.contains('|') && !switch.stays.contains('|'), "{}", switch.name);
        }
    }

    #[test]
    fn switches_are_found_by_name() {
        assert_eq!(find(&[]).expect("all").len(), SWITCHES.len());
        let found = find(&["moka-cache".to_owned(), "no-simd".to_owned()]).expect("known");
        let names: Vec<&str> = found.iter().map(|switch| switch.name).collect();
        assert_eq!(names, ["no-simd", "moka-cache"]);
        let error = find(&["simd".to_owned()]).expect_err("unknown").to_string();
        assert!(
            error.contains("no switch simd") && error.contains("no-simd, no-mimalloc"),
            "{error}"
        );
    }
}
