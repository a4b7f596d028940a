//! Clocks that the standard library doesn't offer.
#![expect(unsafe_code, reason = "clock_gettime(2) writes through a raw pointer")]

/// Milliseconds since the system was booted, time asleep included (CLOCK_BOOTTIME, served by the
/// vDSO).
pub(crate) fn boot_ms() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for writes. The call cannot fail: every kernel since 2.6.39 has this
    // clock.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    (time.tv_sec as u64) * 1000 + (time.tv_nsec as u64) / 1_000_000
}
