//! Which engine should work on which partition: a pure function of who is alive, so that all who see the same agree without
//! talking to each other.
//!
//! Each partition goes to the member with the highest weight for it that is not full. Weights are hashes, so that a member that
//! comes or goes moves little more than its share; nobody has more than his share, rounded up.

use sha2::{Digest as _, Sha256};

/// For each partition, which of the members should have it; empty where there is none. Members are told apart by their names,
/// and given in the same order by all.
pub(super) fn assign(members: &[&str], partitions: u16) -> Vec<usize> {
    if members.is_empty() {
        return Vec::new();
    }
    let most = usize::from(partitions).div_ceil(members.len());
    let mut counts = vec![0_usize; members.len()];
    let best = |partition: u16, counts: &[usize]| {
        let free = (0..members.len()).filter(|member| counts.get(*member).is_some_and(|count| *count < most));
        free.max_by_key(|member| members.get(*member).map(|name| weight(name, partition)))
    };
    (0..partitions)
        .map(|partition| {
            let member = best(partition, &counts).unwrap_or_default();
            if let Some(count) = counts.get_mut(member) {
                *count += 1;
            }
            member
        })
        .collect()
}

fn weight(member: &str, partition: u16) -> u64 {
    let digest = Sha256::new()
        .chain_update(partition.to_be_bytes())
        .chain_update(member)
        .finalize();
    u64::from_be_bytes(digest.first_chunk::<8>().copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("engine-{number}")).collect()
    }

    fn assigned(names: &[String], partitions: u16) -> Vec<usize> {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assign(&names, partitions)
    }

    #[test]
    fn nobody_has_nothing() {
        assert_eq!(assign(&[], 64), Vec::<usize>::new());
        assert_eq!(assign(&["one"], 3), [0, 0, 0]);
    }

    proptest! {
        #[test]
        fn every_partition_has_a_member_and_nobody_more_than_his_share(count in 1_usize..20, partitions in 1_u16..200) {
            let all = assigned(&names(count), partitions);
            prop_assert_eq!(all.len(), usize::from(partitions));
            for member in 0..count {
                let has = all.iter().filter(|other| **other == member).count();
                prop_assert!(has <= usize::from(partitions).div_ceil(count));
            }
        }

        #[test]
        fn who_goes_moves_little_more_than_what_was_his(count in 2_usize..8, goes in any::<prop::sample::Index>()) {
            let before = names(count);
            let mut after = before.clone();
            let gone = after.remove(goes.index(count));
            let (old, new) = (assigned(&before, 64), assigned(&after, 64));
            let moved = old.iter().zip(&new).filter(|(old, new)| before[**old] != after[**new]);
            let lost = old.iter().filter(|member| before[**member] == gone).count();
            prop_assert!(moved.count() <= lost + 64 / 3, "of 64, {lost} were his");
        }
    }
}
