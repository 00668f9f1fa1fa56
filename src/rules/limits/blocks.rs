//! The blocks in which a process is granted parts of a quota before it counts them.

/// The largest block.
const MAX_BLOCK: u64 = 500;

/// The part of what is left of a quota that a block is.
const PARTS: u64 = 32;

/// Returns the block of a quota of which so much is left: near its end it is 1, so that what one process holds is
/// never what another one rejects requests for.
pub fn quota_block(left: u64) -> u64 {
    (left / PARTS).clamp(1, MAX_BLOCK)
}

/// Returns how much is granted of what is left to requests that need so much: a block at least, and no more than is
/// left.
pub fn quota_grant(left: u64, needed: u64) -> u64 {
    quota_block(left).max(needed).min(left)
}

/// Returns whether the next block is to be asked for, so that no request waits for it.
pub fn is_block_low(available: u64, left: u64) -> bool {
    left > 0 && available <= quota_block(left) / 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Two processes count a quota by blocks, each loses what it holds now and then: no more than the quota is
        /// ever granted, and without a loss all of it.
        #[test]
        fn never_more_than_the_quota(
            limit in 1_u64..20_000, steps in proptest::collection::vec((any::<bool>(), 1_u64..40, any::<u8>()), 1..400),
            crashes in any::<bool>(),
        ) {
            let (mut stored, mut held, mut counted, mut lost) = (0_u64, [0_u64; 2], 0_u64, 0_u64);
            for (who, cost, chance) in steps.into_iter().chain(std::iter::repeat_n((true, 1, 255), limit as usize)) {
                let held = &mut held[usize::from(who)];
                if crashes && chance < 5 {
                    prop_assert!(*held <= 2 * MAX_BLOCK);
                    lost += *held;
                    *held = 0;
                }
                if *held < cost {
                    let granted = quota_grant(limit - stored, cost - *held);
                    stored += granted;
                    *held += granted;
                }
                if *held >= cost {
                    *held -= cost;
                    counted += cost;
                }
            }
            prop_assert_eq!(counted + lost + held.iter().sum::<u64>(), stored);
            prop_assert!(counted <= limit && stored <= limit);
            if !crashes {
                prop_assert_eq!(counted + held[0], limit);
            }
        }
    }
}
