//! Random numbers that need not be secret: ids of connections, jitter.

use uuid::Uuid;

/// 64 random bits, from the operating system's generator.
pub(crate) fn bits() -> u64 {
    // 122 bits of a version 4 UUID are random; the upper half holds the 4 bits of the version.
    let (high, low) = Uuid::new_v4().as_u64_pair();
    high.rotate_left(32) ^ low
}

/// A number from 0 to 1, evenly.
pub(crate) fn fraction() -> f64 {
    f64::from(u32::try_from(bits() >> 32).expect("32 bits are left")) / f64::from(u32::MAX)
}
