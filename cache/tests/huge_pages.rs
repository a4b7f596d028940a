//! Which memory the system is asked to have in huge pages: that of a cache which wants them,
//! and no other.
//!
//! In a process of its own, whose mappings it reads.

use swiftlet_cache::{Config, SegmentedCache, Store};

const MAX_BYTES: u64 = 256 << 20;

#[test]
fn the_memory_of_a_cache_is_in_the_pages_that_it_asks_for() {
    let usual = SegmentedCache::new(Config::new(MAX_BYTES));
    let Some(before) = advised_bytes() else {
        eprintln!("skipped: this kernel does not tell how it was advised");
        return;
    };
    assert_eq!(before[0], 0);
    let with = |huge_pages, max_bytes| {
        SegmentedCache::new(Config { max_bytes, huge_pages: Some(huge_pages) })
    };
    // Whole pages of 2 MiB of the table and of the blocks.
    let all = MAX_BYTES - (8 << 20)..=MAX_BYTES;
    let huge = with(true, MAX_BYTES);
    let [asked, forbidden] = advised_bytes().expect("as before");
    // The kernel forbids them for stacks.
    assert!(all.contains(&asked) && forbidden == before[1], "{asked}, {forbidden} of {MAX_BYTES}");
    let small = with(false, MAX_BYTES);
    let advised = advised_bytes().expect("as before");
    let newly = advised[1] - forbidden;
    assert!(advised[0] == asked && all.contains(&newly), "{advised:?} of {MAX_BYTES}");
    // Too small for a page, and as good.
    let tiny = with(true, 1 << 20);
    assert_eq!(advised_bytes(), Some(advised));
    drop((usual, huge, small, tiny));
}

/// Bytes of the mappings for which huge pages are asked for (flag `hg`) and forbidden (`nh`); none at all if
/// the kernel has no huge pages.
fn advised_bytes() -> Option<[u64; 2]> {
    std::fs::metadata("/sys/kernel/mm/transparent_hugepage").ok()?;
    let smaps = std::fs::read_to_string("/proc/self/smaps").ok()?;
    let (mut size, mut advised, mut known) = (0, [0, 0], false);
    for line in smaps.lines() {
        if let Some(text) = line.strip_prefix("Size:") {
            size = text.split_whitespace().next()?.parse::<u64>().ok()? << 10;
        } else if let Some(flags) = line.strip_prefix("VmFlags:") {
            known = true;
            for (at, wanted) in ["hg", "nh"].into_iter().enumerate() {
                let is_advised = flags.split_whitespace().any(|flag| flag == wanted);
                advised[at] += if is_advised { size } else { 0 };
            }
        }
    }
    known.then_some(advised)
}
