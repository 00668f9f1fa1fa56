//! `paths`: paths that a target may read differently from the gateway.

use ahash::AHashMap;

use crate::config::{PathRule, Paths};
use crate::filters::Stage;
use crate::rules::path::PathRules;
use crate::rules::routing::{HostPattern, PathPattern, RouteEntry, Segment};
use crate::snapshot::Route;

/// Returns what is rejected on a route: its own rule, or else that of the configuration, or else the safe one.
pub fn path_rules(own: &Paths, all: &Paths, authenticates: bool) -> PathRules {
    let rejects = |own: Option<PathRule>, all: Option<PathRule>| match own.or(all) {
        Some(rule) => rule == PathRule::Reject,
        None => authenticates,
    };
    PathRules {
        reject_encoded_slash: rejects(own.encoded_slash, all.encoded_slash),
        reject_parameters: rejects(own.parameters, all.parameters),
    }
}

/// Returns pairs of routes: one without authentication that sends everything below a path to an upstream, and one
/// that authenticates for a path below that to the same upstream. Each open route is listed once, in the order of the
/// text.
pub fn bypasses(listeners: &[Vec<RouteEntry>], routes: &[Route]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    for (listener, entries) in listeners.iter().enumerate() {
        let open = open_entries(listener, entries, routes);
        if open.is_empty() {
            continue;
        }
        for entry in entries.iter().filter(|entry| authenticates(&routes[entry.route], listener)) {
            let PathPattern::Segments { segments, .. } = &entry.path else { continue };
            for (upstream, depth) in
                upstreams(&routes[entry.route]).flat_map(|u| (0..segments.len()).map(move |d| (u, d)))
            {
                for host in [&entry.host, &HostPattern::Any] {
                    let above = open.get(&(upstream, host.clone(), steps(&segments[..depth])));
                    found.extend(above.map(|open| (*open, entry.route)));
                }
            }
        }
    }
    found.sort_unstable();
    found.dedup_by_key(|(open, _)| *open);
    found
}

type OpenEntryKey<'r> = (&'r str, HostPattern, Vec<Option<String>>);

/// Returns the open routes by upstream, host and path.
fn open_entries<'r>(listener: usize, entries: &[RouteEntry], routes: &'r [Route]) -> AHashMap<OpenEntryKey<'r>, usize> {
    let mut open = AHashMap::new();
    for entry in entries {
        let route = &routes[entry.route];
        let rejects = route.paths.reject_encoded_slash && route.paths.reject_parameters;
        if let (PathPattern::Segments { segments, rest: true }, false) =
            (&entry.path, rejects || authenticates(route, listener))
        {
            for upstream in upstreams(route) {
                open.entry((upstream, entry.host.clone(), steps(segments))).or_insert(entry.route);
            }
        }
    }
    open
}

/// Returns segments without the names of their parameters.
fn steps(segments: &[Segment]) -> Vec<Option<String>> {
    let step = |segment: &Segment| match segment {
        Segment::Literal(text) => Some(text.clone()),
        Segment::Param(_) => None,
    };
    segments.iter().map(step).collect()
}

fn authenticates(route: &Route, listener: usize) -> bool {
    route.filters(Some(listener)).has(Stage::Authenticate)
}

fn upstreams(route: &Route) -> impl Iterator<Item = &str> {
    route.action.forwards().flat_map(|forward| &forward.upstreams).map(|upstream| upstream.name.as_str())
}
