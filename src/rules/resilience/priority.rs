//! Failover by priority and locality, and slow start.

/// The overprovisioning factor of Envoy, in percent: a priority passes load to the next one only when less than 1 in
/// 1.4 of it is healthy.
const OVERPROVISIONING: u64 = 140;

/// Returns the share of the load for each priority, in percent, from its healthy and its total weight
/// (<https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/load_balancing/priority>). All shares
/// are 0 when nothing is healthy.
pub fn shares(groups: &[(u64, u64)]) -> Vec<u32> {
    let health: Vec<u64> = groups.iter().map(|(healthy, total)| health(*healthy, *total)).collect();
    let sum: u64 = health.iter().sum();
    if sum == 0 {
        return vec![0; groups.len()];
    }
    let mut left = 100;
    let mut shares: Vec<u32> = health
        .iter()
        .map(|health| {
            let share = if sum < 100 { health * 100 / sum } else { (*health).min(left) };
            left -= share.min(left);
            share as u32
        })
        .collect();
    // The rounding remainder goes to the first priority with a share.
    if let Some(first) = shares.iter_mut().find(|s| **s > 0) {
        *first += left as u32;
    }
    shares
}

fn health(healthy: u64, total: u64) -> u64 {
    overprovisioned(healthy, total, 100)
}

/// Returns min(1, 1.4 × healthy / total) in units of 1 / `whole`; it is 0 only where nothing is healthy.
pub fn overprovisioned(healthy: u64, total: u64, whole: u64) -> u64 {
    let health = (OVERPROVISIONING * healthy * whole / 100).checked_div(total);
    health.map_or(0, |h| if healthy > 0 { h.clamp(1, whole) } else { 0 })
}

/// Returns the fraction of its weight that a target has `passed` into a slow start of `window`, both in the same
/// unit: it grows as (t/w)^(1/aggression), from a tenth (Envoy's `slow_start_config`).
pub fn slow_start(passed: u64, window: u64, aggression: f64) -> f64 {
    if passed >= window {
        return 1.0;
    }
    (passed as f64 / window as f64).powf(1.0 / aggression.max(0.01)).clamp(0.1, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn envoys_own_table() {
        // The percentage of healthy targets of each priority, and the shares, from the page cited above.
        let table: [(&[u64], &[u32]); 7] = [
            (&[100, 100, 100], &[100, 0, 0]),
            (&[72, 72], &[100, 0]),
            (&[71, 71], &[99, 1]),
            (&[50, 50], &[70, 30]),
            (&[25, 100], &[35, 65]),
            (&[25, 25], &[50, 50]),
            (&[0, 0, 0], &[0, 0, 0]),
        ];
        for (healthy, wanted) in table {
            let groups: Vec<(u64, u64)> = healthy.iter().map(|h| (*h, 100)).collect();
            assert_eq!(shares(&groups), wanted, "{healthy:?}");
        }
    }

    #[test]
    fn slow_start_grows_from_a_tenth() {
        assert!((slow_start(0, 100, 1.0) - 0.1).abs() < 1e-9);
        assert!((slow_start(50, 100, 1.0) - 0.5).abs() < 1e-9);
        assert!(slow_start(50, 100, 2.0) > 0.7);
        assert!((slow_start(100, 100, 1.0) - 1.0).abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn the_shares_are_whole_and_only_of_the_living(groups in proptest::collection::vec((0_u64..20,
        0_u64..20), 1..6)) {
            let groups: Vec<(u64, u64)> = groups.into_iter().map(|(a, b)| (a.min(b), a.max(b))).collect();
            let shares = shares(&groups);
            let living = groups.iter().any(|(healthy, _)| *healthy > 0);
            prop_assert_eq!(shares.iter().sum::<u32>(), if living { 100 } else { 0 });
            prop_assert!(shares.iter().zip(&groups).all(|(share, (healthy, _))| *share == 0 || *healthy > 0));
        }
    }
}
