//! The division of load among zones: how much of the requests for one priority is sent to the targets of which zone.
//!
//! Shares are computed when targets or their health change, and never for a request. They are continuous: a target
//! that is lost or comes back changes them by no more than its part of the capacity.

use std::collections::BTreeMap;

use crate::rules::resilience::{overprovisioned, shares};

/// The whole load of a priority, in the unit of shares.
pub const WHOLE_LOAD: u32 = 10_000;

/// The rule by which zones share the load of an upstream.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ZoneRule {
    /// Zones are ignored.
    Ignore,
    /// The own zone receives what it can handle, then those of the list in their order, and the others the rest.
    SpillOver(Vec<String>),
    /// Every target of all zones receives the same load, with as little traffic between zones as possible.
    Aware {
        /// The number of gateways in each zone.
        gateways: BTreeMap<String, u32>,
        /// The number of targets below which zones are ignored.
        min_targets: usize,
    },
    /// Zones receive load in proportion to these weights and to their health. A zone of weight 0, or without a
    /// weight, receives load only when no other zone has an eligible target.
    Weights(BTreeMap<String, u32>),
}

impl Default for ZoneRule {
    fn default() -> Self {
        Self::SpillOver(Vec::new())
    }
}

/// The capacity of the targets of one zone in one priority, as sums of weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ZoneCapacity<'z> {
    /// The zone; `None` for targets without one.
    pub zone: Option<&'z str>,
    /// The weight of the eligible targets.
    pub available: u64,
    /// The weight of all targets.
    pub total: u64,
    /// The number of all targets.
    pub targets: usize,
}

/// The zones that are balanced together, and their share of the load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneShare {
    /// The share, in units of 1 / [`WHOLE_LOAD`].
    pub share: u32,
    /// The indices of the zones.
    pub zones: Vec<usize>,
}

impl ZoneRule {
    /// Returns the shares of the zones in one priority, in the order in which they are tried when a request is not
    /// accepted where it was sent first. Every zone is in exactly one of them. The shares add up to [`WHOLE_LOAD`],
    /// unless nothing is available; then they are 0.
    pub fn divide(&self, own: Option<&str>, priority: u32, zones: &[ZoneCapacity<'_>]) -> Vec<ZoneShare> {
        match self {
            Self::SpillOver(order) => spill_over(own, order, zones),
            // The gateways' own traffic arrives at the first priority; what spills over to another one does so from
            // all zones alike.
            Self::Aware { gateways, min_targets } if priority == 0 => {
                let targets: usize = zones.iter().map(|zone| zone.targets).sum();
                let own = own.filter(|_| targets >= *min_targets);
                own.map_or_else(|| together(zones), |own| zone_aware(own, gateways, zones))
            }
            Self::Weights(weights) => weighted(weights, zones),
            Self::Ignore | Self::Aware { .. } => together(zones),
        }
    }
}

/// Returns one share for all zones.
pub fn together(zones: &[ZoneCapacity<'_>]) -> Vec<ZoneShare> {
    let available = zones.iter().any(|zone| zone.available > 0);
    vec![ZoneShare { share: if available { WHOLE_LOAD } else { 0 }, zones: (0..zones.len()).collect() }]
}

/// Applies the rule of priorities to the own zone, the zones of `order`, and all others together.
fn spill_over(own: Option<&str>, order: &[String], zones: &[ZoneCapacity<'_>]) -> Vec<ZoneShare> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut rest: Vec<usize> = (0..zones.len()).collect();
    for name in own.into_iter().chain(order.iter().map(String::as_str)) {
        if let Some(at) = rest.iter().position(|index| zones[*index].zone == Some(name)) {
            groups.push(vec![rest.remove(at)]);
        }
    }
    if !rest.is_empty() {
        groups.push(rest);
    }
    let sum = |group: &[usize], of: fn(&ZoneCapacity<'_>) -> u64| group.iter().map(|i| of(&zones[*i])).sum::<u64>();
    let health: Vec<(u64, u64)> = groups.iter().map(|g| (sum(g, |z| z.available), sum(g, |z| z.total))).collect();
    let percent = WHOLE_LOAD / 100;
    let shares = shares(&health);
    groups.into_iter().zip(shares).map(|(zones, share)| ZoneShare { share: share * percent, zones }).collect()
}

/// Applies Envoy's rule
/// (<https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/load_balancing/zone_aware>): with U the
/// zone's part of the available capacity and G its part of the gateways, the own zone receives min(1, U/G) of the
/// load, and each other zone a part of the rest in proportion to its residual capacity, max(0, U - G).
///
/// Where each gateway receives the same number of requests, every target of equal weight then receives the same load,
/// and no rule that achieves this sends fewer requests to other zones. Unlike Envoy, a zone without an available
/// target divides by residual capacity too, so that the load of the other zones stays even.
fn zone_aware(own: &str, gateways: &BTreeMap<String, u32>, zones: &[ZoneCapacity<'_>]) -> Vec<ZoneShare> {
    let capacity: u128 = zones.iter().map(|zone| u128::from(zone.available)).sum();
    let fleet: u128 = gateways.values().map(|count| u128::from(*count)).sum();
    let own_gateways = gateways.get(own).copied().unwrap_or(0);
    if capacity == 0 || own_gateways == 0 {
        return together(zones);
    }
    let count = |zone: &ZoneCapacity<'_>| u128::from(zone.zone.and_then(|z| gateways.get(z)).copied().unwrap_or(0));
    // Both parts over the common denominator capacity × fleet.
    let upstream_part = |zone: &ZoneCapacity<'_>| u128::from(zone.available) * fleet;
    let gateway_part = |zone: &ZoneCapacity<'_>| count(zone) * capacity;
    let is_own = |zone: &ZoneCapacity<'_>| zone.zone == Some(own);
    let whole = u128::from(WHOLE_LOAD);
    let own_part: u128 = zones.iter().filter(|z| is_own(z)).map(upstream_part).sum();
    let local = (own_part * whole / (u128::from(own_gateways) * capacity)).min(whole);
    let residual =
        |zone: &ZoneCapacity<'_>| if is_own(zone) { 0 } else { upstream_part(zone).saturating_sub(gateway_part(zone)) };
    let parts: Vec<u128> = zones.iter().map(residual).collect();
    let others = proportional(&parts, (whole - local) as u32);
    let first = zones.iter().position(is_own);
    let mut order: Vec<usize> = (0..zones.len()).collect();
    order.sort_by_key(|index| (Some(*index) != first, std::cmp::Reverse(parts[*index])));
    let share = |index: usize| if Some(index) == first { local as u32 } else { others[index] };
    order.into_iter().map(|index| ZoneShare { share: share(index), zones: vec![index] }).collect()
}

/// Applies Envoy's rule of locality weights
/// (<https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/load_balancing/locality_weight>): the
/// load of a zone is in proportion to its weight × min(1, 1.4 × available / total).
fn weighted(weights: &BTreeMap<String, u32>, zones: &[ZoneCapacity<'_>]) -> Vec<ZoneShare> {
    let weight = |zone: &ZoneCapacity<'_>| zone.zone.and_then(|z| weights.get(z)).copied().unwrap_or(0);
    let part = |zone: &ZoneCapacity<'_>| {
        u128::from(weight(zone)) * u128::from(overprovisioned(zone.available, zone.total, u64::from(WHOLE_LOAD)))
    };
    let mut parts: Vec<u128> = zones.iter().map(part).collect();
    if parts.iter().all(|part| *part == 0) {
        parts = zones.iter().map(|zone| u128::from(zone.available)).collect();
    }
    let shares = proportional(&parts, WHOLE_LOAD);
    let mut order: Vec<usize> = (0..zones.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(parts[*index]));
    order.into_iter().map(|index| ZoneShare { share: shares[index], zones: vec![index] }).collect()
}

/// Divides `load` in proportion to `parts`; the remainders of the division go to the largest fractions.
fn proportional(parts: &[u128], load: u32) -> Vec<u32> {
    let sum: u128 = parts.iter().sum();
    if sum == 0 {
        return vec![0; parts.len()];
    }
    let scaled = |part: &u128| part * u128::from(load);
    let mut shares: Vec<u32> = parts.iter().map(|part| (scaled(part) / sum) as u32).collect();
    let left = load - shares.iter().sum::<u32>();
    let mut order: Vec<usize> = (0..parts.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(scaled(&parts[*index]) % sum));
    order.into_iter().take(left as usize).for_each(|index| shares[index] += 1);
    shares
}
