//! What this program was built with, and what of it is in use: for `swiftlet config` and the first lines of
//! the log.

use swiftlet_parser::name::fold;

/// The features of Cargo.toml in the order of the alphabet, and whether each is compiled in.
pub const FEATURES: [(&str, bool); 6] = [
    ("af-xdp", cfg!(feature = "af-xdp")),
    ("io-uring", cfg!(feature = "io-uring")),
    ("jemalloc", cfg!(feature = "jemalloc")),
    ("mimalloc", cfg!(feature = "mimalloc")),
    ("moka-cache", cfg!(feature = "moka-cache")),
    ("simd", cfg!(feature = "simd")),
];

/// The allocator that `main.rs` sets.
pub const ALLOCATOR: &str = if cfg!(feature = "mimalloc") {
    "mimalloc"
} else if cfg!(feature = "jemalloc") {
    "jemalloc"
} else {
    "system"
};

/// The features that are compiled in, and those that are not.
#[must_use]
pub fn compiled() -> String {
    let names = |compiled_in: bool| {
        let names =
            FEATURES.iter().filter(|(_, is_in)| *is_in == compiled_in).map(|(name, _)| *name);
        names.collect::<Vec<_>>().join(", ")
    };
    match (names(true), names(false)) {
        (all, none) if none.is_empty() => all,
        (none, all) if none.is_empty() => format!("none; not compiled in: {all}"),
        (some, others) => format!("{some}; not compiled in: {others}"),
    }
}

/// What is in use of what features and the processor leave to choose: the part and its name.
#[must_use]
pub fn active() -> [(&'static str, &'static str); 2] {
    [("allocator", ALLOCATOR), ("names folded by", fold::widest_arm())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_that_of_the_manifest() {
        let manifest = include_str!("../Cargo.toml");
        let section = manifest.split("[features]").nth(1).and_then(|rest| rest.split("\n[").next());
        let lines = section.expect("features").lines().filter(|line| !line.starts_with('#'));
        let mut names: Vec<_> = lines.filter_map(|line| Some(line.split_once(" = ")?.0)).collect();
        names.retain(|&name| name != "default");
        names.sort_unstable();
        assert_eq!(names, FEATURES.map(|(name, _)| name));
    }

    #[test]
    fn every_feature_is_in_one_of_the_two_lists() {
        let text = compiled();
        for (name, _) in FEATURES {
            assert_eq!(text.matches(name).count(), 1, "{name}: {text}");
        }
    }
}
