//! `openapi`: the paths and methods of a document as entries of the router.

use std::sync::Arc;

use ahash::AHashMap;
use http::{HeaderName, Method};

use super::work::RouteCompiler;
use crate::actions::ActionConfig;
use crate::config::{Loaded, RouteConfig};
use crate::filters::{ApiRules, UnknownPaths};
use crate::notation::Place;
use crate::rules::routing::{EntryOperation, HostPattern, PathPattern, Predicates, RouteEntry, Segment};
use crate::snapshot::Route;

impl RouteCompiler<'_> {
    /// Reads the document of a route, if it has one.
    pub fn api(&mut self, route: &RouteConfig, place: &Place) -> Option<Arc<ApiRules>> {
        let mocks_all = matches!(route.action, ActionConfig::Mock(_));
        let with_integrations = matches!(route.action, ActionConfig::AmazonIntegrations(_));
        let Some(config) = &route.openapi else {
            if mocks_all {
                let text = "the examples come from an OpenAPI document: set openapi on the route";
                self.mistakes.add(&place.key("action").key("mock"), text);
            }
            if with_integrations {
                let text = "the integrations stand in an OpenAPI document: set openapi on the route";
                self.mistakes.add(&place.key("action").key("amazon_integrations"), text);
            }
            return None;
        };
        let matches = place.key("match");
        if route.matches.path.is_some() {
            let text = "the paths are those of the document: set openapi.base_path to have them below another path";
            self.mistakes.add(&matches.key("path"), text);
        }
        if !route.matches.methods.is_empty() {
            self.mistakes.add(&matches.key("methods"), "the methods are those of the document: leave this out");
        }
        let base = &self.loaded.base;
        let loaded = ApiRules::load(config, (mocks_all, with_integrations), base, &place.key("openapi"), self.mistakes);
        let (rules, files) = loaded?;
        self.shared.files.extend(files);
        Some(Arc::new(rules))
    }
}

/// Returns the headers that are parameters of documents, each with the place of its document.
pub fn headers(loaded: &Loaded, routes: &[Route]) -> Vec<(HeaderName, Place)> {
    let with_api = routes.iter().enumerate().filter_map(|(index, route)| Some((index, route.api.as_ref()?)));
    let named = with_api.flat_map(|(index, api)| {
        let place = loaded.route_place(index).key("openapi").key("file");
        let parameters = api.operations().iter().flat_map(|operation| &operation.parameters);
        parameters.filter_map(|parameter| parameter.header()).map(move |name| (name.clone(), place.clone()))
    });
    named.collect()
}

/// Returns one entry for each combination of host and operation, and one for each host for all other paths.
pub fn entries(
    api: &ApiRules,
    unknown: UnknownPaths,
    hosts: &[HostPattern],
    shared: &Predicates,
    route: usize,
) -> Vec<RouteEntry> {
    let mut by_method: AHashMap<Method, Arc<Predicates>> = AHashMap::new();
    let mut all = Vec::new();
    for host in hosts {
        for (number, operation) in api.operations().iter().enumerate() {
            let predicates = by_method
                .entry(operation.method.clone())
                .or_insert_with(|| Arc::new(Predicates { methods: vec![operation.method.clone()], ..shared.clone() }));
            all.push(RouteEntry {
                host: host.clone(),
                path: operation.path.pattern.clone(),
                predicates: Arc::clone(predicates),
                route,
                operation: EntryOperation::Known(u32::try_from(number).unwrap_or(u32::MAX)),
            });
        }
        let passes = match unknown {
            UnknownPaths::OtherRoutes => continue,
            UnknownPaths::Pass => true,
            UnknownPaths::Reject => false,
        };
        let base = api.base_path().split('/').skip(1).filter(|step| !step.is_empty());
        let segments = base.map(|step| Segment::Literal(step.to_owned())).collect();
        all.push(RouteEntry {
            host: host.clone(),
            path: PathPattern::Segments { segments, rest: true },
            predicates: Arc::new(shared.clone()),
            route,
            operation: EntryOperation::Unknown { passes },
        });
    }
    all
}
