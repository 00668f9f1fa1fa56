//! The filters of routes, compiled: for each route a chain for each listener that has filters of its own, and one for
//! all others.

use std::collections::HashMap;
use std::sync::Arc;

use ahash::AHashSet;

use super::work::{RouteCompiler, UseOfConsumer};
use crate::config::{self, FilterLevel, Inherited, Selected};
use crate::filters::{
    ApiRules, CertificateSources, Chain, ChainLink, CompileContext, Condition, ConsumerUse, Filter, FilterConfig,
    Identities, Needs, RouteFacts, Stage,
};
use crate::notation::{Place, nearest};
use crate::rules::routing::RouteEntry;
use crate::snapshot::Chains;

impl<'w> RouteCompiler<'w> {
    /// Compiles the filters of a route for each of its listeners.
    pub fn chains(
        &mut self,
        inherited: &Inherited<'w>,
        route: &'w config::RouteConfig,
        place: &Place,
        bound: &[usize],
        (entries, api): (&[RouteEntry], Option<&Arc<ApiRules>>),
    ) -> Chains {
        let own = inherited.expand(&route.filters, FilterLevel::Route, &place.key("filters"), self.mistakes);
        let mut left_out = AHashSet::new();
        let mut compiled = HashMap::new();
        let mut chains = Chains::default();
        let elsewhere = bound.is_empty() || bound.iter().any(|listener| !inherited.has_own(*listener));
        let differing = bound.iter().copied().filter(|listener| inherited.has_own(*listener)).map(Some);
        let all: Vec<Option<usize>> = elsewhere.then_some(None).into_iter().chain(differing).collect();
        for listener in all {
            let selected = inherited.select(route, &own, listener, &mut left_out);
            let chain = self.chain(&mut compiled, route, (entries, bound, api), &selected);
            match listener {
                Some(listener) => chains.of_listeners.push((listener, chain)),
                None => chains.usual = chain,
            }
        }
        self.check_without(inherited, route, place, &left_out);
        chains
    }

    /// Compiles for each listener the filters that edit responses to requests without a route: `headers` of defaults
    /// and of the listener.
    pub fn unrouted(&mut self, inherited: &Inherited<'w>) -> Vec<Chain> {
        let route = config::RouteConfig::unrouted();
        let listeners = 0..self.listeners.len();
        let chain = |listener| {
            let mut selected = inherited.select(&route, &[], Some(listener), &mut AHashSet::new());
            selected.retain(|one| matches!(one.config, FilterConfig::Headers(_)));
            self.chain(&mut HashMap::new(), &route, (&[], &[], None), &selected)
        };
        listeners.map(chain).collect()
    }

    /// Notes entries of `without` that leave nothing out.
    fn check_without(
        &mut self,
        inherited: &Inherited<'w>,
        route: &config::RouteConfig,
        place: &Place,
        left_out: &AHashSet<String>,
    ) {
        let sets = &self.loaded.config.filter_sets;
        let is_partial = ["filter_sets", "defaults", "listeners"].iter().any(|section| self.loaded.is_partial(section));
        for (index, word) in route.without.iter().enumerate() {
            let place = place.key("without").index(index);
            if !FilterConfig::KEYS.contains(&word.as_str()) && !sets.contains_key(word) {
                if !self.loaded.is_left_out("filter_sets", word) {
                    let near = nearest(word, FilterConfig::KEYS.iter().copied().chain(sets.keys().map(String::as_str)));
                    self.mistakes.add(&place, format!("neither a filter nor a filter set is called \"{word}\"{near}"));
                }
            } else if !left_out.contains(word) && !is_partial {
                let known =
                    inherited.defaults.iter().map(|one| one.config.key()).collect::<std::collections::BTreeSet<_>>();
                let known: Vec<&str> = known.into_iter().collect();
                let defaults =
                    if known.is_empty() { String::new() } else { format!("; defaults have {}", known.join(", ")) };
                self.mistakes.add(
                    &place,
                    format!(
                        "leaves nothing out: neither defaults nor a listener of this route has \"{word}\"{defaults}"
                    ),
                );
            }
        }
    }

    fn chain(
        &mut self,
        compiled: &mut HashMap<*const FilterConfig, Option<Arc<Filter>>>,
        route: &config::RouteConfig,
        (entries, bound, api): (&[RouteEntry], &[usize], Option<&Arc<ApiRules>>),
        selected: &[Selected<'w>],
    ) -> Chain {
        let mut filters = Vec::with_capacity(selected.len());
        let authenticator = selected.iter().find(|one| one.config.stage() == Stage::Authenticate);
        for (index, one) in selected.iter().enumerate() {
            let key = std::ptr::from_ref(one.config);
            let filter = match self.filters.get(&key).or_else(|| compiled.get(&key)) {
                Some(known) => known.clone(),
                None => {
                    let (filter, is_of_route) = self.filter(route, (entries, bound), one);
                    let known = if is_of_route { &mut *compiled } else { &mut self.filters };
                    known.entry(key).or_insert(filter).clone()
                }
            };
            let Some(filter) = filter else { continue };
            if one.config.stage().is_single()
                && let Some(first) = selected[..index].iter().find(|first| first.config.stage() == one.config.stage())
            {
                self.note_second(route, first, one);
            }
            if !one.enforce && !one.config.stage().rejects() {
                self.note(
                    &one.place,
                    format!("{} rejects no request: enforce has no meaning for it", one.config.key()),
                );
            }
            if self.has_effect(&filter, route, one) {
                self.check_claims_read(one, authenticator.map(|one| one.config));
                self.note_consumer_use(one, authenticator.is_some());
                self.check_verified(one, authenticator);
                self.warn_of_shared_cache(one, authenticator.is_some());
                let condition = one.when.and_then(|source| self.condition(source, one));
                filters.push(ChainLink { filter, enforced: one.enforce, condition });
            }
        }
        filters.extend(api.map(|api| ChainLink {
            filter: Arc::new(Filter::of_api(Arc::clone(api))),
            enforced: api.is_enforced(),
            condition: None,
        }));
        if filters.len() > Chain::MAX_WITH_CONDITIONS
            && let Some(one) = selected.iter().find(|one| one.when.is_some())
        {
            let most = Chain::MAX_WITH_CONDITIONS;
            self.note(&one.place, format!("a route with a filter that has `when` has at most {most} filters"));
        }
        Chain::new(filters)
    }

    /// Returns the condition under which a filter runs; each is compiled once.
    fn condition(&mut self, source: &'w str, one: &Selected<'w>) -> Option<Arc<Condition>> {
        let key = std::ptr::from_ref(source);
        if let Some(known) = self.conditions.get(&key) {
            return known.clone();
        }
        let compiled = match Condition::compile(source, one.config.stage()) {
            Ok(condition) => Some(Arc::new(condition)),
            Err(why) => {
                let text = format!("when: {why}");
                self.note(&one.place, text);
                None
            }
        };
        self.conditions.insert(key, compiled.clone());
        compiled
    }

    /// Compiles a filter. Returns true when it is for this route alone.
    fn filter(
        &mut self,
        route: &config::RouteConfig,
        (entries, bound): (&[RouteEntry], &[usize]),
        one: &Selected<'_>,
    ) -> (Option<Arc<Filter>>, bool) {
        let loaded = self.loaded;
        let identity = |place: &Place| loaded.identity(place);
        let written = one.written(&route.name.0);
        let certificates = self.certificate_sources(bound, one);
        let mut context = CompileContext {
            route: RouteFacts::new(
                &route.name.0,
                &route.matches.methods,
                entries,
                certificates,
                &written,
                one.is_own(),
            ),
            place: (*one.place).clone(),
            base: &self.loaded.base,
            state: self.loaded.config.process.state.as_ref().map(|path| self.loaded.base.join(path)),
            live: self.live,
            consumers: self.consumers,
            is_partial: ["consumers", "consumers_file"].iter().any(|section| self.loaded.is_partial(section)),
            identities: Identities(&identity),
            shared: &mut self.shared,
            mistakes: self.mistakes,
        };
        let filter = one.config.compile(&mut context).map(Arc::new);
        (filter, one.is_own() || context.route.is_used())
    }

    /// Returns the ways by which certificates of clients may come to a filter: by the listeners of its route, by the
    /// one that has it, or by all.
    fn certificate_sources(&self, bound: &[usize], one: &Selected<'_>) -> CertificateSources {
        let may_run_on = |(index, listener): (usize, &config::ListenerConfig)| match one.level {
            FilterLevel::Route if one.is_own() => bound.contains(&index),
            FilterLevel::Listener(name) if one.set.is_none() => listener.name.0 == name,
            _ => true,
        };
        // Errors in listeners have their own message.
        let is_unknown = self.loaded.is_partial("listeners") || (one.is_own() && bound.is_empty());
        let listeners = self.loaded.config.listeners.iter().enumerate().filter(|entry| may_run_on(*entry));
        let mut sources = CertificateSources { connections: is_unknown, trusted_proxies: is_unknown };
        for (_, listener) in listeners {
            sources.connections |= listener.tls.as_ref().is_some_and(config::Tls::requests_certificates);
            sources.trusted_proxies |= !listener.trusted_proxies.is_empty();
        }
        sources
    }

    /// Notes an error of a filter, which another chain may have as well.
    fn note(&mut self, place: &Place, text: String) {
        if !self.mistakes.0.iter().any(|known| known.place == *place && known.text == text) {
            self.mistakes.add(place, text);
        }
    }

    /// Notes a second filter of a stage that allows one per list.
    fn note_second(&mut self, route: &config::RouteConfig, first: &Selected<'_>, second: &Selected<'_>) {
        let one = first.config.key();
        let way = match second.config.stage() {
            Stage::Authenticate => ": put both below any_of if either is enough, or below all_of".to_owned(),
            _ => String::new(),
        };
        let whose = match second.level {
            FilterLevel::Route => format!("the route {}", route.name.0),
            FilterLevel::Listener(name) => format!("the listener {name}"),
            FilterLevel::Defaults => "defaults".to_owned(),
        };
        let of = first.set.map(|set| format!(" of the set {set}")).unwrap_or_default();
        self.note(&second.place, format!("{whose} already has {one}{of}{way}"));
    }

    /// Returns whether a filter has an effect; notes it where the route has it itself, and does not forward.
    fn has_effect(&mut self, filter: &Filter, route: &config::RouteConfig, one: &Selected<'_>) -> bool {
        if filter.stage() == Stage::Cache && !route.action.is_cacheable() {
            if one.is_own() {
                self.note(&one.place, "responses of targets are cached, and this route has none".to_owned());
            }
            return false;
        }
        let fits = route.action.has_filtered_responses() || filter.needs() != Needs::ResponseBody;
        if !fits && one.is_own() {
            let text =
                format!("{} changes responses of targets and files, and this route sends neither", one.config.key());
            self.note(&one.place, text);
        }
        fits
    }

    /// Remembers a filter that uses the consumer, and whether a route that has it authenticates.
    fn note_consumer_use(&mut self, one: &Selected<'_>, is_authenticated: bool) {
        if let Some(what) = one.config.consumer_use() {
            let found = self.consumer_uses.entry(std::ptr::from_ref(one.config)).or_insert_with(|| UseOfConsumer {
                place: (*one.place).clone(),
                what,
                is_own: one.is_own(),
                is_authenticated: false,
            });
            found.is_authenticated |= is_authenticated;
        }
    }

    /// Warns of a cache that does not know whether all consumers share its responses, where the route knows who calls.
    fn warn_of_shared_cache(&mut self, one: &Selected<'_>, is_authenticated: bool) {
        if !is_authenticated || !one.config.is_cache_shared_by_default() {
            return;
        }
        let text = "the route authenticates, so that only responses that say `public` are cached: set key: {consumer: \
                    true} if targets respond to each consumer differently, or consumer: false if they do not";
        if !self.warnings.0.iter().any(|known| known.place == *one.place && known.text == text) {
            self.warnings.add(&one.place, text);
        }
    }

    /// Notes a limit that would count by a consumer whom anybody may have named: forged requests would use up what
    /// another may send.
    fn check_verified(&mut self, one: &Selected<'_>, authenticator: Option<&Selected<'_>>) {
        let key = match one.config.consumer_use() {
            Some(ConsumerUse::Limit) => "by",
            Some(ConsumerUse::Plan) => "from_plan",
            _ => return,
        };
        let Some(authenticator) = authenticator.filter(|one| one.config.is_verified_late()) else { return };
        let text = format!(
            "with body_hash: computed at {} a signature is verified only after the limits, so that forged requests \
             would count as the consumer's: write body_hash: header, or limit by: address",
            authenticator.place
        );
        self.note(&one.place.key(key), text);
    }

    /// Notes a filter that reads a header which authentication sets for the target: the filter sees what the client
    /// sends under that name, which may be anything.
    fn check_claims_read(&mut self, one: &Selected<'_>, authenticator: Option<&FilterConfig>) {
        let Some(authenticator) = authenticator.filter(|_| one.config.stage() > Stage::Authenticate) else { return };
        let written = authenticator.headers_written();
        for (name, keys) in one.config.headers_read().into_iter().filter(|(name, _)| written.contains(name)) {
            let place = keys.into_iter().fold((*one.place).clone(), |place, key| place.key(key));
            let text = format!(
                "{} sets {name} for the target only; here it is what the client sends: use by: consumer",
                authenticator.key()
            );
            self.note(&place, text);
        }
    }
}
