//! `routes`: matches, filters, actions, and the routers of the listeners.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use ahash::AHashMap;
use http::HeaderName;

use super::openapi;
use super::paths::{bypasses, path_rules};
use super::work::RouteCompiler;
use crate::actions::{Action, ActionConfig, ActionContext};
use crate::config::{self, Inherited, TextRule, TextTest};
use crate::filters::{ApiRules, Chain, Stage};
use crate::notation::{Header, OneOrMany, Place};
use crate::rules::routing::{
    EntryOperation, HostPattern, PathPattern, Predicates, RouteEntry, Router, Segment, TextMatch, common_params,
};
use crate::snapshot::{Chains, Route};

/// The most routes of a configuration.
const MAX_ROUTES: usize = 100_000;

/// The most combinations of a host and a path of one route.
const MAX_COMBINATIONS: usize = 10_000;

/// The most of them on all listeners together: each is an entry of a table, of about 1 KiB with all that leads to it.
const MAX_ENTRIES: usize = 500_000;

impl<'w> RouteCompiler<'w> {
    /// Compiles all routes, and a router for each listener.
    pub fn compile(&mut self) -> (Vec<Route>, Vec<Router>, Vec<Chain>) {
        let config = &self.loaded.config;
        let mut entries: Vec<Vec<RouteEntry>> = self.listeners.iter().map(|_| Vec::new()).collect();
        let mut routes = Vec::with_capacity(config.routes.len());
        let mut names = AHashMap::new();
        if config.routes.len() > MAX_ROUTES {
            let text = format!("{} routes are too many: at most {MAX_ROUTES} are allowed", config.routes.len());
            self.mistakes.add(&Place::default().key("routes"), text);
            return (routes, Vec::new(), Vec::new());
        }
        let mut count = 0;
        let inherited = Inherited::new(self.loaded, self.mistakes);
        for (index, route) in config.routes.iter().enumerate() {
            let place = self.loaded.route_place(index);
            if let Some(first) = names.insert(route.name.0.as_str(), index) {
                self.mistakes.add(
                    &place.key("name"),
                    format!("the name \"{}\" is taken by {}", route.name.0, self.loaded.route_place(first)),
                );
            }
            let api = self.api(route, &place);
            let mut own = self.entries(route, index, &place, api.as_ref());
            let versions = self.restrict_to_versions(route, &mut own, &place);
            let bound = self.bound(route, &place);
            count += own.len() * bound.len();
            if count > MAX_ENTRIES {
                let text = format!(
                    "with this route there are more than {MAX_ENTRIES} combinations of listener, host and path: \
                    use a pattern, or \
                     name the listeners that a route is for"
                );
                self.mistakes.add(&place.key("match"), text);
                return (routes, Vec::new(), Vec::new());
            }
            for listener in &bound {
                entries[*listener].extend(own.iter().cloned());
            }
            let chains = self.chains(&inherited, route, &place, &bound, (&own, api.as_ref()));
            routes.push(Route { versions, ..self.route(route, (&own, api), &place, chains) });
        }
        let unrouted = self.unrouted(&inherited);
        inherited.warn_of_unused(self.warnings);
        self.warn_of_versions();
        for list in &entries {
            self.check_conflicts(list);
        }
        for (open, keyed) in bypasses(&entries, &routes) {
            let keyed = &routes[keyed].name;
            let text = format!(
                "takes paths such as /x%2Fy and /x;y, which a target may read as ones of the route \"{keyed}\", \
                to the same \
                 upstream without its authentication: set paths: {{encoded_slash: reject, parameters: reject}}"
            );
            self.warnings.add(&self.loaded.route_place(open), text);
        }
        let routers: Vec<Router> = entries.into_iter().map(Router::new).collect();
        self.check_consumer_uses();
        self.warn_of_routes(&routes, &routers);
        (routes, routers, unrouted)
    }

    /// Returns the places of the listeners that the route is for.
    fn bound(&mut self, route: &config::RouteConfig, place: &Place) -> Vec<usize> {
        if route.listeners.is_empty() {
            return (0..self.listeners.len()).filter(|place| self.listeners[*place].http().is_some()).collect();
        }
        let mut bound = Vec::new();
        for (index, name) in route.listeners.iter().enumerate() {
            match self.listeners.iter().position(|l| l.name == *name) {
                Some(listener) if self.listeners[listener].http().is_some() => bound.push(listener),
                Some(_) => {
                    let text = "is not of kind http: `streams` has the rules for its connections";
                    self.mistakes.add(&place.key("listeners").index(index), text);
                }
                None if self.loaded.is_partial("listeners")
                    || self.listeners.len() < self.loaded.config.listeners.len() => {}
                None => {
                    let known = self.listeners.iter().map(|l| l.name.as_str());
                    let text = super::unknown_name::there_is_no("listener", name, known);
                    self.mistakes.add(&place.key("listeners").index(index), text);
                }
            }
        }
        bound
    }

    /// Returns one entry for each combination of host and path.
    fn entries(
        &mut self,
        route: &config::RouteConfig,
        index: usize,
        place: &Place,
        api: Option<&Arc<ApiRules>>,
    ) -> Vec<RouteEntry> {
        let m = &route.matches;
        let place = &place.key("match");
        let predicates = Arc::new(Predicates {
            methods: m.methods.iter().map(|m| m.0.clone()).collect(),
            headers: self.header_tests(&m.headers, &place.key("headers")),
            cookies: self.tests(&m.cookies, &place.key("cookies")),
            query: self.tests(&m.query, &place.key("query")),
            clients: m.client.as_ref().map_or_else(Vec::new, |c| c.as_slice().iter().map(|n| n.0).collect()),
            version: None,
        });
        let listed_len = |list: Option<usize>| list.unwrap_or(1);
        let lengths = [
            listed_len(m.host.as_ref().map(|h| h.as_slice().len())),
            api.map_or(listed_len(m.path.as_ref().map(|p| p.as_slice().len())), |api| api.operations().len()),
        ];
        if lengths[0].saturating_mul(lengths[1]) > MAX_COMBINATIONS {
            let [hosts, paths] = lengths;
            let text = format!(
                "{hosts} hosts times {paths} paths are too many: at most {MAX_COMBINATIONS} combinations of one route"
            );
            self.mistakes.add(place, text);
            return Vec::new();
        }
        let hosts: Vec<HostPattern> =
            listed(m.host.as_ref(), |h| h.0.clone()).unwrap_or_else(|| vec![HostPattern::Any]);
        if let Some(config) = &route.openapi {
            let Some(api) = api else { return Vec::new() };
            return openapi::entries(api, config.unknown_paths, &hosts, &predicates, index);
        }
        let everything = PathPattern::Segments { segments: Vec::new(), rest: true };
        let paths: Vec<PathPattern> = listed(m.path.as_ref(), |p| p.0.clone()).unwrap_or_else(|| vec![everything]);
        for (name, empty) in [("host", hosts.is_empty()), ("path", paths.is_empty())] {
            if empty {
                self.mistakes.add(&place.key(name), "an empty list matches nothing: the route cannot be reached");
            }
        }
        let pairs = hosts.iter().flat_map(|host| paths.iter().map(move |path| (host, path)));
        pairs
            .map(|(host, path)| RouteEntry {
                host: host.clone(),
                path: path.clone(),
                predicates: Arc::clone(&predicates),
                route: index,
                operation: EntryOperation::None,
            })
            .collect()
    }

    fn tests(&mut self, tests: &BTreeMap<String, TextTest>, place: &Place) -> Vec<(String, TextMatch)> {
        let mut out = Vec::new();
        for (name, test) in tests {
            let test = match test {
                TextTest::Exact(text) => TextMatch::Exact(text.clone()),
                TextTest::Rule(TextRule::Regex(pattern)) => TextMatch::Regex(pattern.0.clone()),
                TextTest::Rule(TextRule::Present(true)) => TextMatch::Present,
                TextTest::Rule(TextRule::Present(false)) => {
                    self.mistakes.add(
                        &place.key(name.clone()),
                        "expected true: a route cannot ask for something not to be there",
                    );
                    continue;
                }
            };
            out.push((name.clone(), test));
        }
        out
    }

    fn header_tests(&mut self, tests: &BTreeMap<String, TextTest>, place: &Place) -> Vec<(HeaderName, TextMatch)> {
        let tests = self.tests(tests, place);
        let mut names = std::collections::HashSet::new();
        let named = tests.into_iter().filter_map(|(text, test)| {
            let name: Result<Header, String> = text.parse();
            let name = self.mistakes.take(&place.key(text.clone()), name.map_err(|e| format!("expected {e}")))?;
            if !names.insert(name.0.clone()) {
                self.mistakes.add(
                    &place.key(text.clone()),
                    "this header is there a second time: their names are the same in any case",
                );
            }
            Some((name.0, test))
        });
        named.collect()
    }

    /// Notes entries that differ in nothing but their order: the later one can never be reached.
    fn check_conflicts(&mut self, entries: &[RouteEntry]) {
        let mut by_key: AHashMap<(&HostPattern, String), Vec<&RouteEntry>> = AHashMap::new();
        for entry in entries {
            // Parameters match alike whatever their names are.
            let path = match &entry.path {
                PathPattern::Segments { segments, rest } => segments
                    .iter()
                    .map(|s| match s {
                        Segment::Literal(text) => format!("/{text}"),
                        Segment::Param(_) => "/*".to_owned(),
                    })
                    .chain(rest.then(|| "/**".to_owned()))
                    .collect(),
                PathPattern::Regex(_) => entry.path.to_string(),
            };
            by_key.entry((&entry.host, path)).or_default().push(entry);
        }
        let mut clashes = Vec::new();
        for same in by_key.values() {
            for (index, entry) in same.iter().enumerate() {
                let earlier = same[..index].iter().find(|other| other.route != entry.route && other.conflicts(entry));
                if let Some(earlier) = earlier {
                    clashes.push((entry.route, earlier.route));
                }
            }
        }
        clashes.sort_unstable();
        clashes.dedup_by_key(|(later, _)| *later);
        for (later, earlier) in clashes {
            let name = &self.loaded.config.routes[earlier].name.0;
            let place = self.loaded.route_place(later).key("match");
            self.mistakes.add(
                &place,
                format!(
                    "conflicts with the route \"{name}\": both match the same requests, so this one cannot be reached"
                ),
            );
        }
    }

    fn route(
        &mut self,
        route: &config::RouteConfig,
        (entries, api): (&[RouteEntry], Option<Arc<ApiRules>>),
        place: &Place,
        chains: Chains,
    ) -> Route {
        let authenticates = chains.all().any(|chain| chain.has(Stage::Authenticate));
        Route {
            name: route.name.0.clone(),
            versions: None,
            paths: path_rules(&route.paths, &self.loaded.config.paths, authenticates),
            action: self.action(&route.action, (entries, api.as_deref()), place.key("action")),
            operations: api.iter().flat_map(|api| api.operations()).map(|_| OnceLock::new()).collect(),
            api,
            errors: super::errors::compile(
                &route.errors,
                &place.key("errors"),
                &|| common_params(entries),
                self.mistakes,
            ),
            body: route.body.as_ref().map(|b| b.0),
            chains,
            metrics: OnceLock::new(),
        }
    }

    fn action(
        &mut self,
        action: &ActionConfig,
        (entries, api): (&[RouteEntry], Option<&ApiRules>),
        place: Place,
    ) -> Action {
        let loaded = self.loaded;
        // Those with errors of their own were noted there.
        let is_unread =
            |name: &str| loaded.is_left_out("upstreams", name) || loaded.config.upstreams.contains_key(name);
        action.compile(&mut ActionContext {
            place,
            base: &loaded.base,
            api,
            entries,
            live: self.live,
            shared: &mut self.shared,
            upstreams: self.upstreams,
            is_unread: &is_unread,
            keyed_splits: &mut self.keyed_splits,
            upstream: None,
            mistakes: self.mistakes,
            warnings: self.warnings,
        })
    }
}

fn listed<T, U>(given: Option<&OneOrMany<T>>, take: impl Fn(&T) -> U) -> Option<Vec<U>> {
    given.map(|list| list.as_slice().iter().map(take).collect())
}
