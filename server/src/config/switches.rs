//! Switches of optimizations: what of them contradicts another setting, this program or this host. Such a
//! switch would change nothing, so it stops the start or is noted, and is never ignored silently.

use std::path::Path;

use super::values::format_bytes;
use super::{Backend, ConfigError, Given, MIB, Settings};
use crate::cache::Kind as Cache;

/// Where the kernel says whether it gives out huge pages.
const HUGE_PAGES_FILE: &str = "sys/kernel/mm/transparent_hugepage/enabled";

/// Less than this of the cache has room for no huge page, or hardly for one.
const HUGE_PAGES_MIN: u64 = 4 * MIB;

/// Why no worker is pinned to a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unpinned {
    /// SWIFTLET_PIN is false.
    AsAsked,
    /// There are more workers than cores.
    TooMany { workers: usize, cores: usize },
    /// A quota says how much of the processor's time there is, and not on which cores.
    Quota,
}

impl Unpinned {
    /// The note for the operator, unless this is what was asked for.
    pub(super) fn note(self) -> Option<String> {
        match self {
            Self::AsAsked => None,
            Self::TooMany { workers, .. } => {
                Some(format!("{workers} workers are more than the cores, so none is pinned"))
            }
            Self::Quota => Some("a CPU quota names no cores, so no worker is pinned".into()),
        }
    }
}

/// A backend must be compiled in. Whether it works here is found out at start.
pub(super) fn backend(asked: Backend) -> Result<(), ConfigError> {
    match asked {
        Backend::IoUring if !cfg!(feature = "io-uring") => Err(ConfigError::NoIoUring),
        Backend::AfXdp if !cfg!(feature = "af-xdp") => Err(ConfigError::NoAfXdp),
        _ => Ok(()),
    }
}

/// What says how af-xdp is to work needs af-xdp.
pub(super) fn xdp(asked: Backend, given: &[Given]) -> Result<(), ConfigError> {
    let is_of_xdp = |given: &&Given| given.variable.starts_with("SWIFTLET_XDP_");
    match given.iter().filter(is_of_xdp).find(|given| given.is_given()) {
        Some(Given { variable, .. }) if asked != Backend::AfXdp => {
            Err(ConfigError::NotAfXdp { variable: variable.clone() })
        }
        _ => Ok(()),
    }
}

/// A cache must be compiled in.
pub(super) fn cache(asked: Cache) -> Result<(), ConfigError> {
    if asked.is_compiled_in() { Ok(()) } else { Err(ConfigError::NoMoka) }
}

/// A worker that never sleeps on a core that is not its own takes time from the others.
pub(super) fn busy_poll(settings: &Settings, unpinned: Unpinned) -> Result<(), ConfigError> {
    let (why, fix) = match unpinned {
        _ if settings.busy_poll_us == 0 => return Ok(()),
        Unpinned::AsAsked => ("SWIFTLET_PIN is false".into(), "set SWIFTLET_PIN=true".into()),
        Unpinned::TooMany { workers, cores } => (
            format!("{workers} workers are more than the {cores} cores"),
            format!("set SWIFTLET_WORKERS={cores} or less"),
        ),
        Unpinned::Quota => (
            "the CPU quota names no cores".into(),
            "give this process cores (cpuset, taskset) in place of the quota".into(),
        ),
    };
    Err(ConfigError::BusyPollUnpinned { us: settings.busy_poll_us, why, fix })
}

/// Whether to look ahead, and why not if the operator did not say so.
pub(super) fn look_ahead(
    settings: &Settings,
    given: &[Given],
) -> Result<(bool, Option<&'static str>), ConfigError> {
    let why = match settings.batch {
        _ if settings.cache == Cache::Moka => "moka cannot be looked ahead in (SWIFTLET_CACHE)",
        1 => "a batch of 1 has nothing ahead",
        _ => return Ok((settings.look_ahead, None)),
    };
    let is_given = |given: &Given| given.variable == "SWIFTLET_LOOK_AHEAD" && given.is_given();
    match (settings.look_ahead, given.iter().any(is_given)) {
        (true, true) => Err(ConfigError::NothingAhead { why }),
        (true, false) => Ok((false, Some(why))),
        (false, _) => Ok((false, None)),
    }
}

/// Whether huge pages can be had if they are asked for, or what the operator should know; files are looked
/// up under `root`.
pub(super) fn huge_pages(
    settings: &Settings,
    cache_size: u64,
    root: &Path,
) -> Result<Option<String>, ConfigError> {
    match settings.huge_pages {
        Some(_) if settings.cache == Cache::Moka => return Err(ConfigError::NoHugePages),
        Some(false) if cache_size >= HUGE_PAGES_MIN => return Ok(None),
        Some(_) => {}
        None => return Ok(None),
    }
    let file = root.join(HUGE_PAGES_FILE);
    // `always [madvise] never`: the mode in brackets is the one in force.
    let why = match std::fs::read_to_string(&file) {
        Err(_) => format!("this kernel has none ({} cannot be read)", file.display()),
        Ok(mode) if mode.contains("[never]") => {
            format!("they are off in this kernel; as root: echo madvise > {}", file.display())
        }
        Ok(_) if cache_size < HUGE_PAGES_MIN => {
            format!("the answer cache is too small; set SWIFTLET_CACHE_SIZE={} at least", {
                format_bytes(HUGE_PAGES_MIN)
            })
        }
        Ok(_) => return Ok(None),
    };
    Ok(Some(format!("SWIFTLET_HUGE_PAGES changes nothing: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(args: &[&str]) -> (Settings, Vec<Given>) {
        let args = ["swiftlet"].iter().chain(args).map(Into::into);
        Settings::read(args, []).expect("valid settings")
    }

    #[test]
    fn busy_polling_without_a_core_says_what_to_change() {
        let (settings, _) = read(&["--busy-poll-us", "50"]);
        for (unpinned, texts) in [
            (Unpinned::AsAsked, ["SWIFTLET_PIN is false", "SWIFTLET_PIN=true"]),
            (
                Unpinned::TooMany { workers: 4, cores: 2 },
                ["4 workers are more than the 2 cores", "SWIFTLET_WORKERS=2"],
            ),
            (Unpinned::Quota, ["quota", "cpuset"]),
        ] {
            let error = busy_poll(&settings, unpinned).unwrap_err().to_string();
            for text in texts.iter().chain(&["SWIFTLET_BUSY_POLL_US (50)", "BUSY_POLL_US=0"]) {
                assert!(error.contains(text), "{text}: {error}");
            }
            assert!(busy_poll(&read(&[]).0, unpinned).is_ok());
        }
    }

    #[test]
    fn looking_ahead_is_on_where_there_is_something_ahead() {
        let ahead = |args: &[&str]| {
            let (settings, given) = read(args);
            look_ahead(&settings, &given)
        };
        let (by_default, why) = ahead(&[]).unwrap();
        assert_eq!((by_default, why), (true, None));
        assert_eq!(ahead(&["--look-ahead", "off"]).unwrap(), (false, None));
        assert_eq!(ahead(&["--look-ahead", "on"]).unwrap(), (true, None));
        for nothing_ahead in [["--batch", "1"], ["--cache", "moka"]] {
            assert!(matches!(ahead(&nothing_ahead).unwrap(), (false, Some(_))));
            let asked = [&nothing_ahead[..], &["--look-ahead", "on"]].concat();
            let error = ahead(&asked).unwrap_err().to_string();
            assert!(error.contains("SWIFTLET_LOOK_AHEAD"), "{error}");
        }
    }

    #[test]
    fn huge_pages_that_cannot_be_had_are_noted() {
        let root = tempfile::tempdir().expect("a directory");
        let (settings, _) = read(&["--huge-pages", "true"]);
        let (forbidding, _) = read(&["--huge-pages", "false"]);
        let note = |cache_size| huge_pages(&settings, cache_size, root.path());
        let (on_moka, _) = read(&["--huge-pages", "true", "--cache", "moka"]);
        let refused = huge_pages(&on_moka, 64 * MIB, root.path());
        assert!(matches!(refused, Err(ConfigError::NoHugePages)));
        let says = |cache_size, text: &str| {
            let note = note(cache_size).unwrap().expect("a note");
            assert!(note.contains(text) && note.contains("SWIFTLET_HUGE_PAGES"), "{text}: {note}");
        };
        says(64 * MIB, "this kernel has none");
        let file = root.path().join(HUGE_PAGES_FILE);
        std::fs::create_dir_all(file.parent().expect("a path")).expect("a directory");
        std::fs::write(&file, "always madvise [never]\n").expect("a file");
        says(64 * MIB, "echo madvise > ");
        std::fs::write(&file, "always [madvise] never\n").expect("a file");
        says(MIB, "SWIFTLET_CACHE_SIZE=4M");
        assert_eq!(note(64 * MIB).unwrap(), None);
        assert_eq!(huge_pages(&forbidding, 64 * MIB, root.path()).unwrap(), None);
        assert!(huge_pages(&forbidding, MIB, root.path()).unwrap().is_some());
        assert_eq!(huge_pages(&read(&[]).0, 1, root.path()).unwrap(), None);
    }

    #[test]
    fn what_is_not_compiled_in_is_refused() {
        assert!(cache(Cache::Segmented).is_ok());
        assert_eq!(cache(Cache::Moka).is_err(), !cfg!(feature = "moka-cache"));
        assert!(backend(Backend::Auto).is_ok() && backend(Backend::Epoll).is_ok());
        assert_eq!(backend(Backend::IoUring).is_err(), !cfg!(feature = "io-uring"));
        assert_eq!(backend(Backend::AfXdp).is_err(), !cfg!(feature = "af-xdp"));
    }

    #[test]
    fn settings_of_af_xdp_are_refused_where_another_backend_serves() {
        assert!(xdp(Backend::Auto, &read(&[]).1).is_ok());
        for (flag, value) in [
            ("--xdp-interface", "eth0"),
            ("--xdp-queues", "0"),
            ("--xdp-mode", "auto"),
            ("--xdp-fallback", "1"),
        ] {
            let (_, given) = read(&[flag, value]);
            let variable = flag.trim_start_matches("--").replace('-', "_").to_uppercase();
            for asked in [Backend::Auto, Backend::Epoll, Backend::IoUring] {
                let error = xdp(asked, &given).unwrap_err().to_string();
                for text in [&*format!("SWIFTLET_{variable} "), "SWIFTLET_BACKEND=af-xdp"] {
                    assert!(error.contains(text), "{text}: {error}");
                }
            }
            assert!(xdp(Backend::AfXdp, &given).is_ok());
        }
    }
}
