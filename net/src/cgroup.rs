//! The process's own control groups and their ancestors: every one of them limits the process.
//!
//! /proc/self/cgroup names the group of each hierarchy, seen from its root: `0::<path>` for cgroup v2,
//! `<id>:<controllers>:<path>` for those of cgroup v1, which many hosts still run. What is mounted may
//! be a part of a hierarchy only (a container's): /proc/self/mountinfo tells which.
//!
//! All paths are looked up under a root directory, "/" in earnest, so that tests can build trees.

use std::fs;
use std::path::{Path, PathBuf};

/// The most levels of a hierarchy looked at; deeper ones are ignored.
const MAX_DEPTH: usize = 64;

/// The directories of the process's own groups and of their ancestors, innermost first: those of cgroup
/// v2, then those of the hierarchy of cgroup v1 that has the controller. A machine may have both.
pub(crate) fn directories(root: &Path, controller: &str) -> Vec<PathBuf> {
    let read = |file| fs::read_to_string(root.join(file)).unwrap_or_default();
    let (groups, mounts) = (read("proc/self/cgroup"), read("proc/self/mountinfo"));
    let v2 = groups.lines().find_map(|line| line.strip_prefix("0::"));
    let v1 = groups.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        controllers.split(',').any(|one| one == controller).then_some(path)
    });
    let v2_mount = |mount: &Mount| mount.filesystem == "cgroup2";
    let v1_mount = |mount: &Mount| {
        mount.filesystem == "cgroup" && mount.options.split(',').any(|one| one == controller)
    };
    let mut found = below(root, v2, mounts.lines().filter_map(Mount::read).find(v2_mount));
    found.extend(below(root, v1, mounts.lines().filter_map(Mount::read).find(v1_mount)));
    found
}

/// The directories from a group up to what is mounted of its hierarchy.
fn below(root: &Path, group: Option<&str>, mount: Option<Mount>) -> Vec<PathBuf> {
    let (Some(group), Some(mount)) = (group, mount) else {
        return Vec::new();
    };
    let point = root.join(relative(mount.point));
    // A path outside of what is mounted (it begins with "/.." in a foreign namespace) leaves only
    // the mount itself.
    let below = Path::new(group).strip_prefix(mount.root).ok();
    let below = below.filter(|path| !path.components().any(|part| part.as_os_str() == ".."));
    let below = below.unwrap_or_else(|| Path::new(""));
    below.ancestors().take(MAX_DEPTH).map(|group| point.join(group)).collect()
}

/// A line of mountinfo (proc_pid_mountinfo(5)).
struct Mount<'a> {
    /// What is mounted, seen from the root of its hierarchy.
    root: &'a str,
    /// Where.
    point: &'a str,
    filesystem: &'a str,
    /// Those of the filesystem, among them the controllers of cgroup v1.
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let mut fields = filesystem.split(' ');
        Some(Self { root, point, filesystem: fields.next()?, options: fields.nth(1)? })
    }
}

fn relative(path: &str) -> &str {
    path.trim_start_matches('/')
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// A file tree that is removed at the end of a test.
    pub(crate) struct Tree(PathBuf);

    impl Tree {
        pub(crate) fn new(files: &[(&str, &str)]) -> Self {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let name = format!(
                "swiftlet-net-{}-{}",
                std::process::id(),
                COUNT.fetch_add(1, Ordering::Relaxed)
            );
            let tree = Self(std::env::temp_dir().join(name));
            for (path, content) in files {
                let path = tree.0.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, content).unwrap();
            }
            tree
        }

        pub(crate) fn root(&self) -> &Path {
            &self.0
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    pub(crate) const MOUNTINFO: (&str, &str) = (
        "proc/self/mountinfo",
        "22 1 0:20 / /proc rw - proc proc rw\n\
         30 1 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n",
    );

    fn groups(files: &[(&str, &str)]) -> Vec<String> {
        let tree = Tree::new(files);
        let groups = directories(tree.root(), "memory");
        groups
            .iter()
            .map(|path| path.strip_prefix(tree.root()).unwrap().display().to_string())
            .collect()
    }

    #[test]
    fn every_ancestor_is_listed_innermost_first() {
        let found = groups(&[("proc/self/cgroup", "1:cpu:/x\n0::/a.slice/b.service\n"), MOUNTINFO]);
        assert_eq!(
            found,
            ["sys/fs/cgroup/a.slice/b.service", "sys/fs/cgroup/a.slice", "sys/fs/cgroup"]
        );
    }

    #[test]
    fn a_part_of_the_hierarchy_may_be_mounted() {
        let mountinfo =
            ("proc/self/mountinfo", "30 1 0:26 /docker/c1 /sys/fs/cgroup ro - cgroup2 cgroup ro\n");
        let found = groups(&[("proc/self/cgroup", "0::/docker/c1/inner\n"), mountinfo]);
        assert_eq!(found, ["sys/fs/cgroup/inner", "sys/fs/cgroup"]);
    }

    #[test]
    fn a_path_outside_of_the_mount_leaves_the_mount() {
        let found = groups(&[("proc/self/cgroup", "0::/../other\n"), MOUNTINFO]);
        assert_eq!(found, ["sys/fs/cgroup"]);
    }

    #[test]
    fn cgroup_v1_has_a_hierarchy_for_each_controller() {
        let mountinfo = (
            "proc/self/mountinfo",
            "31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
             32 30 0:28 /docker/c1 /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n\
             33 30 0:29 /docker/c1 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n",
        );
        let own = "5:memory:/docker/c1/inner\n4:cpu,cpuacct:/docker/c1\n0::/\n";
        let found = groups(&[("proc/self/cgroup", own), mountinfo]);
        assert_eq!(
            found,
            ["sys/fs/cgroup/unified", "sys/fs/cgroup/memory/inner", "sys/fs/cgroup/memory"]
        );
    }

    #[test]
    fn without_control_groups_there_are_none() {
        assert!(groups(&[("proc/self/cgroup", "4:memory:/x\n"), MOUNTINFO]).is_empty());
        assert!(groups(&[("proc/self/cgroup", "0::/\n"), ("proc/self/mountinfo", "")]).is_empty());
        assert!(groups(&[]).is_empty());
    }
}
