//! Which memory the system is asked to have in huge pages: that of a cache which wants them, and no other.
//!
//! In a process of its own, whose mappings it reads.

use swiftlet_cache::{Config, SegmentedCache, Store};

const MAX_BYTES: u64 = 256 << 20;

#[test]
fn the_memory_of_a_cache_is_in_huge_pages_on_demand() {
    let usual = SegmentedCache::new(Config::new(MAX_BYTES));
    let Some(before) = advised_bytes() else {
        eprintln!("skipped: this kernel does not tell how it was advised");
        return;
    };
    assert_eq!(before, 0);
    let huge = SegmentedCache::new(Config { max_bytes: MAX_BYTES, huge_pages: true });
    let advised = advised_bytes().expect("as before");
    // Whole pages of 2 MiB of the table and of the blocks.
    assert!((MAX_BYTES - (8 << 20)..=MAX_BYTES).contains(&advised), "{advised} of {MAX_BYTES}");
    // Too small for a page, and as good.
    let small = SegmentedCache::new(Config { max_bytes: 1 << 20, huge_pages: true });
    assert_eq!(advised_bytes(), Some(advised));
    drop((usual, huge, small));
}

/// Bytes of the mappings with the flag `hg`; none at all if the kernel has no huge pages.
fn advised_bytes() -> Option<u64> {
    std::fs::metadata("/sys/kernel/mm/transparent_hugepage").ok()?;
    let smaps = std::fs::read_to_string("/proc/self/smaps").ok()?;
    let (mut size, mut advised, mut known) = (0, 0, false);
    for line in smaps.lines() {
        if let Some(text) = line.strip_prefix("Size:") {
            size = text.split_whitespace().next()?.parse::<u64>().ok()? << 10;
        } else if let Some(flags) = line.strip_prefix("VmFlags:") {
            known = true;
            advised += if flags.split_whitespace().any(|flag| flag == "hg") { size } else { 0 };
        }
    }
    known.then_some(advised)
}
