//! Which partition a run belongs to.
//!
//! A pure function of the run's id and the number of partitions, so that whoever has an id knows where to ask. An id that ends
//! in `.pN` names its partition itself: that is how a run is placed beside the one that started it. Every other id is hashed,
//! by a hash that is the same for ever, on every machine.

use sha2::{Digest as _, Sha256};

use crate::run::RunId;

/// Partitions of a store, unless it was made with another number.
pub const DEFAULT_COUNT: u16 = 64;

/// The most partitions a store may have.
pub const MOST: u16 = 1024;

/// The partition of a run among `count`.
#[must_use]
pub fn of(run: &RunId, count: u16) -> u16 {
    let count = count.max(1);
    named(run.as_str())
        .filter(|partition| *partition < count)
        .unwrap_or_else(|| hashed(run.as_str(), count))
}

/// The partition of what belongs to the workflow with this name, beside its runs.
#[must_use]
pub fn of_name(namespace: &str, name: &str, count: u16) -> u16 {
    hashed(&format!("{namespace}/{name}"), count.max(1))
}

/// The id with the name of its partition.
#[must_use]
pub fn placed(id: RunId, partition: u16) -> RunId {
    format!("{id}.p{partition}").parse().unwrap_or(id)
}

/// What an id says itself: decimal, without leading zeros.
fn named(id: &str) -> Option<u16> {
    let (before, digits) = id.rsplit_once(".p")?;
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let canonical = digits == "0" || !digits.starts_with('0');
    if before.is_empty() || !plain || !canonical {
        return None;
    }
    digits.parse().ok()
}

fn hashed(id: &str, count: u16) -> u16 {
    let digest = Sha256::digest(id.as_bytes());
    let first = digest.first_chunk::<8>().copied().unwrap_or_default();
    let partition = u64::from_be_bytes(first) % u64::from(count);
    u16::try_from(partition).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(text: &str) -> RunId {
        text.parse().unwrap()
    }

    #[test]
    fn the_hash_is_the_same_for_ever() {
        // `printf %s order-17 | sha256sum`, its first eight bytes modulo 64 and 1000.
        for (text, count, partition) in [("order-17", 64, 16), ("order-17", 1000, 288)] {
            assert_eq!(of(&id(text), count), partition, "{text} of {count}");
        }
    }

    #[test]
    fn an_id_may_name_its_partition() {
        assert_eq!(of(&id("order-17.p0"), 64), 0);
        assert_eq!(of(&id("order-17.p63"), 64), 63);
        assert_eq!(of(&id("a.p1.p2"), 64), 2);
        for text in ["a.p64", "a.p07", "a.p", "a.p-1", "a.p1x", ".p5", "a.p99999999"] {
            assert_eq!(of(&id(text), 64), hashed(text, 64), "{text} is hashed");
        }
    }

    proptest! {
        #[test]
        fn every_run_has_a_partition_that_is_there(text in "[a-zA-Z0-9._-]{0,19}[a-zA-Z0-9_-]", count in 1_u16..=MOST) {
            prop_assert!(of(&id(&text), count) < count);
        }

        #[test]
        fn a_named_partition_is_kept(text in "[a-z]{1,9}", count in 1_u16..=MOST, partition in 0_u16..MOST) {
            prop_assume!(partition < count);
            prop_assert_eq!(of(&placed(id(&text), partition), count), partition);
        }
    }
}
