//! When to try again. Pure but for the dice.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

/// The pause after a first failure.
const FIRST: Duration = Duration::from_millis(100);

/// How long to wait after this many failures in a row: doubling up to `limit`, half of it by chance.
/// `random` is between 0 and 1.
pub(super) fn pause(failures: u32, limit: Duration, random: f64) -> Duration {
    let ceiling = FIRST.saturating_mul(1 << failures.min(16)).min(limit);
    ceiling.mul_f64(0.5 + 0.5 * random)
}

/// A number between 0 and 1, good enough to scatter requests.
pub(super) fn random() -> f64 {
    let bits = u32::try_from(random_bits() >> 32).unwrap_or_default();
    f64::from(bits) / f64::from(u32::MAX)
}

/// Bits that nobody can guess: each `RandomState` has new keys.
pub(super) fn random_bits() -> u64 {
    RandomState::new().hash_one(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_soon_then_seldom() {
        let limit = Duration::from_secs(15);
        assert_eq!(pause(0, limit, 1.0), FIRST);
        assert_eq!(pause(0, limit, 0.0), FIRST / 2);
        assert_eq!(pause(3, limit, 1.0), FIRST * 8);
        assert_eq!(pause(u32::MAX, limit, 1.0), limit);
        assert!((0.0..=1.0).contains(&random()));
    }
}
