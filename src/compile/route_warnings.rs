//! Routes that are valid and most likely not what was intended.

use http::{HeaderMap, Method};

use super::work::RouteCompiler;
use crate::filters::{ConsumerUse, Stage};
use crate::notation::Place;
use crate::rules::identity::RequestKey;
use crate::rules::routing::{HostPattern, PathPattern, RequestFacts, RouteEntry, RouteMatch, Router, Segment};
use crate::snapshot::Route;

/// The most routes with a host that are compared with one without.
const MAX_COMPARED: usize = 64;

/// The most routes with a host that are looked at for one without.
const MAX_VISITED: usize = 1_000;

impl RouteCompiler<'_> {
    /// Warns of listeners without routes, paths that end with a slash, routes that others hide, and keys that no
    /// request has.
    pub fn warn_of_routes(&mut self, routes: &[Route], routers: &[Router]) {
        let serves_http = |index: usize| self.listeners.get(index).is_some_and(|listener| listener.http().is_some());
        let empty = routers.iter().enumerate().filter(|(_, router)| router.entries().is_empty());
        for (index, _) in empty.filter(|(index, _)| serves_http(*index)) {
            let text = "no route is for this listener: all requests are rejected with 404 (route_not_found)";
            self.warnings.add(&self.loaded.listener_place(index), text);
        }
        for index in 0..routes.len() {
            self.warn_of_slashes(index);
        }
        for (index, route) in routes.iter().enumerate() {
            self.warn_of_consumer_keys(route, &self.loaded.route_place(index).key("action"));
        }
        let mut hidden: Vec<HiddenRoute> = routers.iter().flat_map(hidden_routes).collect();
        hidden.sort_by_key(|one| (one.route, one.by));
        hidden.dedup_by_key(|one| one.route);
        for HiddenRoute { route, by, host, path } in hidden {
            let by = &routes[by].name;
            let text = format!(
                "requests of the host {host} for {path} take the route \"{by}\", which names the host: a host has \
                 precedence over a path. If this route is for them too, name the host here as well"
            );
            self.warnings.add(&self.loaded.route_place(route).key("match"), text);
        }
    }

    /// Warns of paths such as `/a/`, which match that path alone.
    fn warn_of_slashes(&mut self, index: usize) {
        let Some(paths) = self.loaded.config.routes[index].matches.path.as_ref() else { return };
        let paths = paths.as_slice();
        let covers = |segments: &[Segment]| {
            paths.iter().any(|path| match &path.0 {
                PathPattern::Segments { segments: above, rest: true } => segments.starts_with(above),
                _ => false,
            })
        };
        for (number, path) in paths.iter().enumerate() {
            let PathPattern::Segments { segments, rest: false } = &path.0 else { continue };
            let [above @ .., Segment::Literal(last)] = segments.as_slice() else { continue };
            if last.is_empty() && !above.is_empty() && !covers(above) {
                let place = self.loaded.route_place(index).key("match").key("path");
                let place = if paths.len() > 1 { place.index(number) } else { place };
                let text = format!("matches {} and nothing below it: {}* is a prefix", path.0, path.0);
                self.warnings.add(&place, text);
            }
        }
    }

    /// Warns of targets and shares that are selected by the consumer, on a route that does not authenticate.
    fn warn_of_consumer_keys(&mut self, route: &Route, place: &Place) {
        if route.chains.all().any(|chain| chain.has(Stage::Authenticate)) {
            return;
        }
        let add = "add jwt, api_key or basic, or select another key";
        if route
            .action
            .forwards()
            .any(|forward| forward.split.as_ref().is_some_and(|split| split.key == Some(RequestKey::Consumer)))
        {
            let place = place.key("forward").key("split_by");
            self.warnings
                .add(&place, format!("the route does not authenticate, so that no request has a consumer: {add}"));
        }
        let upstreams = route.action.forwards().flat_map(|forward| &forward.upstreams);
        for upstream in upstreams.filter(|upstream| upstream.key == Some(RequestKey::Consumer)) {
            let text = format!(
                "the upstream \"{}\" hashes by consumer, and this route does not authenticate: {add}",
                upstream.name
            );
            self.warnings.add(place, text);
        }
    }

    /// Notes limits by consumer that count by address, and headers of which nothing is left, since none of their routes
    /// authenticates.
    pub fn check_consumer_uses(&mut self) {
        for found in std::mem::take(&mut self.consumer_uses).into_values().filter(|found| !found.is_authenticated) {
            if found.what == ConsumerUse::Header {
                let text = "no route with this filter authenticates, so that {consumer} and {claim.x} are empty";
                self.warnings.add(&found.place, text);
                continue;
            }
            if found.what == ConsumerUse::Authorize {
                let text = "the route does not authenticate, so that nobody would be allowed: add an authenticator";
                let notes = if found.is_own { &mut *self.mistakes } else { &mut *self.warnings };
                notes.add(&found.place, text);
                continue;
            }
            if found.what == ConsumerUse::Cache {
                let text = "no route with this cache authenticates, so that no request has a consumer: add an \
                            authenticator";
                let notes = if found.is_own { &mut *self.mistakes } else { &mut *self.warnings };
                notes.add(&found.place.key("key").key("consumer"), text);
                continue;
            }
            if found.what == ConsumerUse::Plan {
                let text =
                    "no route with this limit authenticates, so that no request has a plan: add an authenticator";
                let notes = if found.is_own { &mut *self.mistakes } else { &mut *self.warnings };
                notes.add(&found.place.key("from_plan"), text);
                continue;
            }
            let place = found.place.key("by");
            if found.is_own {
                let text = "the route does not authenticate, so that no request has a consumer: add jwt, api_key or \
                            basic, or write by: address";
                self.mistakes.add(&place, text);
            } else {
                let text = "no route with this limit authenticates, so that it counts by address: add jwt, api_key or \
                            basic, or write by: address";
                self.warnings.add(&place, text);
            }
        }
    }
}

/// A route without a host, which another one hides for a host.
struct HiddenRoute {
    route: usize,
    by: usize,
    host: HostPattern,
    path: PathPattern,
}

/// Returns the routes without a host whose path is more specific than that of a route with one, which is nevertheless
/// selected for requests of that host.
///
/// All entries with a host are put into one table of paths, so that the cost grows with the number of entries and not
/// with that of pairs.
fn hidden_routes(router: &Router) -> Vec<HiddenRoute> {
    let entries = router.entries();
    let takes_all = |entry: &RouteEntry| {
        let conditions = &entry.predicates;
        conditions.headers.is_empty()
            && conditions.cookies.is_empty()
            && conditions.query.is_empty()
            && conditions.clients.is_empty()
    };
    let named: Vec<usize> =
        (0..entries.len()).filter(|at| entries[*at].host != HostPattern::Any && takes_all(&entries[*at])).collect();
    if named.is_empty() || named.len() == entries.len() {
        return Vec::new();
    }
    let any_host = |at: &usize| RouteEntry { host: HostPattern::Any, ..entries[*at].clone() };
    let by_path = Router::new(named.iter().map(any_host).collect());
    let open = entries.iter().filter(|entry| entry.host == HostPattern::Any);
    open.filter_map(|entry| {
        let at = hiding_entry(router, &by_path, &named, entry)?;
        let (by, host) = (entries[at].route, entries[at].host.clone());
        Some(HiddenRoute { route: entry.route, by, host, path: entry.path.clone() })
    })
    .collect()
}

/// Returns the number of the entry that hides one without a host. `by_path` has those of the numbers `named`.
fn hiding_entry(router: &Router, by_path: &Router, named: &[usize], entry: &RouteEntry) -> Option<usize> {
    let (path, headers) = (entry.path.sample()?, HeaderMap::new());
    let (mut found, mut visited, mut compared) = (None, 0, 0);
    by_path.candidates(&facts("", &path, &Method::GET, &headers), &mut |index, other| {
        visited += 1;
        if other.path < entry.path
            && let Some(method) = common_method(&other.predicates.methods, &entry.predicates.methods)
        {
            compared += 1;
            let at = named[index];
            let host = match &router.entries()[at].host {
                HostPattern::Exact(name) => name.clone(),
                HostPattern::Below(suffix) => format!("{{}}.{suffix}"),
                HostPattern::Any => String::new(),
            };
            // Another route may be selected for that host, which has the same path.
            if router.find(&facts(&host, &path, &method, &headers)) == RouteMatch::Found(at) {
                found = Some(at);
            }
        }
        match found.is_some() || visited >= MAX_VISITED || compared >= MAX_COMPARED {
            true => std::ops::ControlFlow::Break(()),
            false => std::ops::ControlFlow::Continue(()),
        }
    });
    found
}

fn facts<'a>(host: &'a str, path: &'a str, method: &'a Method, headers: &'a HeaderMap) -> RequestFacts<'a> {
    RequestFacts { host, path, query: None, method, headers, client: std::net::Ipv4Addr::LOCALHOST.into() }
}

/// Returns a method that both lists allow; an empty one allows all.
fn common_method(one: &[Method], other: &[Method]) -> Option<Method> {
    match (one, other) {
        ([], []) => Some(Method::GET),
        ([], [first, ..]) | ([first, ..], []) => Some(first.clone()),
        _ => one.iter().find(|method| other.contains(method)).cloned(),
    }
}
