//! `zones` of an upstream, and what `process` says about the zones of gateways.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::{Loaded, UpstreamConfig, ZonesConfig};
use crate::notation::{Mistakes, Place, nearest};
use crate::rules::balance::ZoneRule;

/// Returns the rule by which the zones of an upstream share its load.
pub fn zone_rule(loaded: &Loaded, upstream: &UpstreamConfig, place: &Place, mistakes: &mut Mistakes) -> ZoneRule {
    let place = place.key("zones");
    match &upstream.zones {
        ZonesConfig::Ignore => ZoneRule::Ignore,
        ZonesConfig::SpillOver(order) => {
            let mut seen = BTreeSet::new();
            for (index, zone) in order.iter().enumerate() {
                let place = place.key("spill_over").index(index);
                if !seen.insert(zone) {
                    mistakes.add(&place, format!("the zone \"{zone}\" is there twice"));
                }
                check_zone(zone, upstream, &place, mistakes);
            }
            ZoneRule::SpillOver(order.clone())
        }
        ZonesConfig::Aware(aware) => {
            check_own_zone(loaded, &place.key("aware"), mistakes);
            let gateways = loaded.config.process.gateways.clone();
            ZoneRule::Aware { gateways, min_targets: aware.min_targets as usize }
        }
        ZonesConfig::Weights(weights) => {
            let place = place.key("weights");
            if weights.values().all(|weight| *weight == 0) {
                mistakes.add(&place, "expected a zone with a weight above 0");
            }
            weights.keys().for_each(|zone| check_zone(zone, upstream, &place.key(zone.clone()), mistakes));
            check_weighted(weights, upstream, &place, mistakes);
            ZoneRule::Weights(weights.clone())
        }
    }
}

/// Notes that no target is in a zone, where all targets are known beforehand.
fn check_zone(zone: &str, upstream: &UpstreamConfig, place: &Place, mistakes: &mut Mistakes) {
    let known: BTreeSet<String> = upstream.targets.iter().filter_map(|target| target.spec().zone).collect();
    if upstream.discovery.is_none() && !known.contains(zone) {
        let near = nearest(zone, known.iter().map(String::as_str));
        mistakes.add(place, format!("no target is in the zone \"{zone}\"{near}"));
    }
}

/// Notes targets that are in no zone with a weight: they would only be the last resort.
fn check_weighted(weights: &BTreeMap<String, u32>, upstream: &UpstreamConfig, place: &Place, mistakes: &mut Mistakes) {
    for target in &upstream.targets {
        let spec = target.spec();
        let text = match &spec.zone {
            Some(zone) if weights.contains_key(zone) => continue,
            Some(zone) => format!("the zone \"{zone}\" of a target has no weight; 0 makes it the last resort"),
            None => format!("the target {}:{} is in no zone", spec.host, spec.port),
        };
        return mistakes.add(place, text);
    }
}

/// Notes what the zone-aware rule lacks to know the part of the gateways that is in the own zone.
fn check_own_zone(loaded: &Loaded, place: &Place, mistakes: &mut Mistakes) {
    let process = &loaded.config.process;
    match &process.zone {
        None if loaded.is_left_out("process", "zone") => {}
        None => mistakes.add(place, "needs the gateway's own zone: set process.zone"),
        Some(_) if process.gateways.is_empty() => {
            mistakes.add(place, "needs the number of gateways in each zone: set process.gateways");
        }
        Some(_) => {}
    }
}

/// Notes contradictions in the zones of gateways.
pub fn check_gateways(loaded: &Loaded, place: &Place, mistakes: &mut Mistakes) {
    let process = &loaded.config.process;
    if process.gateways.is_empty() {
        return;
    }
    let place = place.key("gateways");
    let is_aware = |upstream: &UpstreamConfig| matches!(upstream.zones, ZonesConfig::Aware(_));
    if !loaded.config.upstreams.values().any(is_aware) {
        mistakes.add(&place, "has no effect: no upstream has `zones: {aware: {}}`");
    }
    if let Some(own) = &process.zone
        && process.gateways.get(&own.0).copied().unwrap_or(0) == 0
    {
        mistakes.add(&place, format!("expected at least one gateway in \"{}\", which is the own zone", own.0));
    }
}
