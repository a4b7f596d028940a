//! How much memory the process may use: what the sizes of caches are derived from.

use std::fs;
use std::path::Path;

use crate::cgroup;

/// What is assumed where nothing can be read, in bytes.
const ASSUMED: u64 = 512 << 20;

/// The limit of a control group, in cgroup v2 and v1.
const FILES: [&str; 2] = ["memory.max", "memory.limit_in_bytes"];

/// The memory limit in bytes, and where it comes from, for the log: the tightest one of the
/// process's control groups and their ancestors, or the machine's memory if that is less.
pub fn limit() -> (u64, String) {
    limit_under(Path::new("/"))
}

/// As [`limit`], with all files looked up under `root`.
pub fn limit_under(root: &Path) -> (u64, String) {
    let groups = cgroup::directories(root, "memory").into_iter();
    let groups = groups.flat_map(|group| FILES.map(|file| group.join(file))).filter_map(|file| {
        // "max" stands for no limit, in cgroup v1 a number beyond every machine's memory.
        let bytes = fs::read_to_string(&file).ok()?.trim().parse().ok()?;
        Some((bytes, file.display().to_string()))
    });
    let machine = total(root).map(|bytes| (bytes, "MemTotal of /proc/meminfo".to_owned()));
    let assumed = || (ASSUMED, "an assumption, as /proc/meminfo cannot be read".to_owned());
    groups.chain(machine).min_by_key(|&(bytes, _)| bytes).unwrap_or_else(assumed)
}

fn total(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::tests::{MOUNTINFO, Tree};

    const OWN: (&str, &str) = ("proc/self/cgroup", "0::/pod/c\n");
    const MACHINE: (&str, &str) = ("proc/meminfo", "MemTotal:        2048000 kB\nMemFree: 5 kB\n");

    fn with(files: &[(&str, &str)]) -> (u64, String) {
        let tree = Tree::new(files);
        limit_under(tree.root())
    }

    #[test]
    fn the_tightest_group_counts() {
        let own = ("sys/fs/cgroup/pod/c/memory.max", "max\n");
        let pod = ("sys/fs/cgroup/pod/memory.max", "268435456\n");
        let (bytes, source) = with(&[OWN, MOUNTINFO, MACHINE, own, pod]);
        assert_eq!(bytes, 256 << 20);
        assert!(source.ends_with("pod/memory.max"), "{source}");
    }

    #[test]
    fn a_limit_above_the_machines_memory_means_the_machines() {
        let own = ("sys/fs/cgroup/pod/c/memory.max", "9223372036854771712\n");
        assert_eq!(
            with(&[OWN, MOUNTINFO, MACHINE, own]),
            (2_048_000 * 1024, "MemTotal of /proc/meminfo".into())
        );
    }

    #[test]
    fn cgroup_v1_counts() {
        let mountinfo = (
            "proc/self/mountinfo",
            "33 30 0:29 /c /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n",
        );
        let own = ("proc/self/cgroup", "5:memory:/c\n");
        let limit = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "268435456\n");
        assert_eq!(with(&[own, mountinfo, MACHINE, limit]).0, 256 << 20);
        let limit = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(with(&[own, mountinfo, MACHINE, limit]).0, 2_048_000 * 1024);
    }

    #[test]
    fn where_nothing_can_be_read_little_is_assumed() {
        assert_eq!(with(&[]).0, ASSUMED);
        assert!(limit().0 > 0);
    }
}
