//! Which cores the process may use, and pinning a worker to one of them.
//!
//! Two limits count: the affinity mask (taskset, cpusets of containers), which names cores, and the
//! CPU quota of the control group, which only says how much. A worker beyond the quota
//! would make all of them stall at the end of each period, so their number is the quota rounded up.

use std::fs;
use std::path::Path;

use core_affinity::CoreId;

use crate::cgroup;

/// The cores to run workers on.
#[derive(Clone, Debug, PartialEq)]
pub struct Cores {
    /// One core per worker; never empty.
    pub ids: Vec<usize>,
    /// Whether to pin workers to `ids`. False if a quota cut the list: it doesn't say which cores,
    /// and every container of the host that pinned itself to the first ones would share them.
    pub pin: bool,
    /// The CPU quota, in cores.
    pub quota: Option<f64>,
    /// Where the number comes from, for the log.
    pub why: String,
}

/// The cores that this process may use.
pub fn usable() -> Cores {
    let ids = core_affinity::get_core_ids().unwrap_or_default();
    usable_under(Path::new("/"), ids.into_iter().map(|core| core.id).collect())
}

/// As [`usable`], with the cores of the affinity mask given and control groups looked up under
/// `root`.
pub fn usable_under(root: &Path, mut ids: Vec<usize>) -> Cores {
    if ids.is_empty() {
        // The mask is larger than the 1024 cores that can be read; the standard library may still
        // know the number.
        ids = (0..std::thread::available_parallelism().map_or(1, usize::from)).collect();
    }
    let mut why = format!("{} in the affinity mask", plural(ids.len()));
    let quota = quota_under(root);
    let mut pin = true;
    if let Some((cores, ref file)) = quota {
        why += &format!(", quota {cores:.2} ({file})");
        let whole = cores.ceil().max(1.0) as usize;
        if whole < ids.len() {
            ids.truncate(whole);
            pin = false;
        }
    }
    Cores { ids, pin, quota: quota.map(|(cores, _)| cores), why }
}

/// Pins the current thread to a core. False if the kernel refuses, for instance because the mask
/// has changed since.
pub fn pin(core: usize) -> bool {
    // Larger numbers don't fit the mask that the library passes.
    core < libc::CPU_SETSIZE as usize && core_affinity::set_for_current(CoreId { id: core })
}

/// The smallest quota among the process's group and its ancestors, in cores, and the file that sets
/// it.
fn quota_under(root: &Path) -> Option<(f64, String)> {
    let groups = cgroup::directories(root, "cpu").into_iter();
    let quotas = groups.flat_map(|group| [quota_v2(&group), quota_v1(&group)]).flatten();
    quotas.min_by(|a, b| a.0.total_cmp(&b.0))
}

fn quota_v2(group: &Path) -> Option<(f64, String)> {
    let file = group.join("cpu.max");
    let quota = parse_quota(&fs::read_to_string(&file).ok()?)?;
    Some((quota, file.display().to_string()))
}

/// In cgroup v1 the two numbers are in two files, and -1 stands for no quota.
fn quota_v1(group: &Path) -> Option<(f64, String)> {
    let file = group.join("cpu.cfs_quota_us");
    let period = fs::read_to_string(group.join("cpu.cfs_period_us")).ok()?;
    let quota = parse_quota(&format!("{} {period}", fs::read_to_string(&file).ok()?))?;
    Some((quota, file.display().to_string()))
}

/// `<microseconds> <period>`, or `max <period>` for no quota.
fn parse_quota(text: &str) -> Option<f64> {
    let mut fields = text.split_whitespace().map(str::parse::<u64>);
    let quota = fields.next()?.ok()?;
    let period = fields.next()?.ok().filter(|&period| period > 0)?;
    Some(quota as f64 / period as f64)
}

fn plural(cores: usize) -> String {
    if cores == 1 { "1 core".into() } else { format!("{cores} cores") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::tests::{MOUNTINFO, Tree};

    const OWN: (&str, &str) = ("proc/self/cgroup", "0::/pod/c\n");

    fn with(files: &[(&str, &str)], ids: &[usize]) -> Cores {
        let tree = Tree::new(&[&[OWN, MOUNTINFO], files].concat());
        usable_under(tree.root(), ids.to_vec())
    }

    #[test]
    fn without_a_quota_the_mask_decides_and_workers_are_pinned() {
        let cores = with(&[("sys/fs/cgroup/pod/c/cpu.max", "max 100000\n")], &[2, 5]);
        assert_eq!((cores.ids, cores.pin, cores.quota), (vec![2, 5], true, None));
        assert_eq!(cores.why, "2 cores in the affinity mask");
    }

    #[test]
    fn a_quota_is_rounded_up_and_unpins() {
        let cores = with(&[("sys/fs/cgroup/pod/c/cpu.max", "150000 100000\n")], &[0, 1, 2, 3]);
        assert_eq!((cores.ids, cores.pin, cores.quota), (vec![0, 1], false, Some(1.5)));
        assert!(
            cores.why.contains("quota 1.50") && cores.why.contains("pod/c/cpu.max"),
            "{}",
            cores.why
        );
    }

    #[test]
    fn the_tightest_ancestor_counts() {
        let files = [
            ("sys/fs/cgroup/pod/c/cpu.max", "max 100000\n"),
            ("sys/fs/cgroup/pod/cpu.max", "20000 100000\n"),
        ];
        let cores = with(&files, &[0, 1, 2, 3]);
        assert_eq!((cores.ids, cores.quota), (vec![0], Some(0.2)));
    }

    #[test]
    fn cgroup_v1_has_quotas_too() {
        let mountinfo =
            ("proc/self/mountinfo", "32 30 0:28 /c /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu\n");
        let own = ("proc/self/cgroup", "4:cpu:/c\n");
        let period = ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
        for (quota, cores) in [("150000\n", Some(1.5)), ("-1\n", None)] {
            let quota = ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", quota);
            let tree = Tree::new(&[own, mountinfo, period, quota]);
            assert_eq!(usable_under(tree.root(), vec![0, 1, 2]).quota, cores);
        }
    }

    #[test]
    fn a_quota_above_the_mask_changes_nothing() {
        let cores = with(&[("sys/fs/cgroup/pod/cpu.max", "800000 100000\n")], &[6, 7]);
        assert_eq!((cores.ids, cores.pin), (vec![6, 7], true));
    }

    #[test]
    fn nonsense_is_no_quota() {
        for text in ["", "x y", "100000", "100000 0", "-1 100000"] {
            assert_eq!(parse_quota(text), None, "{text:?}");
        }
    }

    #[test]
    fn this_thread_can_be_pinned_to_a_usable_core_and_to_no_other() {
        let cores = usable();
        let id = cores.ids[0];
        // In a thread of its own: the mask is inherited by threads started later.
        assert!(std::thread::spawn(move || pin(id)).join().unwrap());
        assert!(!pin(usize::MAX));
    }
}
