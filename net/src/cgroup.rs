//! The process's own control group (cgroup v2) and its ancestors: every one of them limits the
//! process.
//!
//! The group is named by the line `0::<path>` of /proc/self/cgroup, seen from the root of the
//! hierarchy. What is mounted may be a part of it only (a container's): /proc/self/mountinfo tells
//! which.
//!
//! All paths are looked up under a root directory, "/" in earnest, so that tests can build trees.

use std::fs;
use std::path::{Path, PathBuf};

/// The most levels looked at; deeper ones are ignored.
const MAX_DEPTH: usize = 64;

/// The directories of the process's own group and of its ancestors, innermost first; empty without
/// cgroup v2.
pub(crate) fn directories(root: &Path) -> Vec<PathBuf> {
    own(root).unwrap_or_default()
}

fn own(root: &Path) -> Option<Vec<PathBuf>> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let mounts = fs::read_to_string(root.join("proc/self/mountinfo")).ok()?;
    let (mounted, mount_point) = mounts.lines().find_map(cgroup2_mount)?;
    let mount = root.join(relative(mount_point));
    // A path outside of what is mounted (it begins with "/.." in a foreign namespace) leaves only
    // the mount itself.
    let below = Path::new(path).strip_prefix(mounted).ok();
    let below = below.filter(|path| !path.components().any(|part| part.as_os_str() == ".."));
    Some(
        below
            .unwrap_or_else(|| Path::new(""))
            .ancestors()
            .take(MAX_DEPTH)
            .map(|group| mount.join(group))
            .collect(),
    )
}

/// The root within the hierarchy and the mount point, if a line of mountinfo is a cgroup2 mount
/// (proc_pid_mountinfo(5)).
fn cgroup2_mount(line: &str) -> Option<(&str, &str)> {
    let (mount, filesystem) = line.split_once(" - ")?;
    if filesystem.split(' ').next() != Some("cgroup2") {
        return None;
    }
    let mut fields = mount.split(' ').skip(3);
    Some((fields.next()?, fields.next()?))
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
        let groups = directories(tree.root());
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
    fn without_cgroup_v2_there_are_none() {
        assert!(groups(&[("proc/self/cgroup", "4:memory:/x\n"), MOUNTINFO]).is_empty());
        assert!(groups(&[("proc/self/cgroup", "0::/\n"), ("proc/self/mountinfo", "")]).is_empty());
        assert!(groups(&[]).is_empty());
    }
}
