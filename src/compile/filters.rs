//! The filters of routes: what is written for all routes, for a listener, in a set or on the route itself, as one chain for
//! each listener.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use ahash::AHashSet;

use super::work::Work;
use crate::actions::ActionConfig;
use crate::config::{self, FilterEntry, Loaded};
use crate::filters::{Chain, CompileContext, Filter, FilterConfig, Identities, Needs, RouteFacts, Stage};
use crate::notation::{Mistakes, Place, nearest};
use crate::snapshot::{Chains, Listener};

/// Where the list is that has a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level<'c> {
    Defaults,
    Listener(&'c str),
    Route,
}

/// A filter of a route, and where it is written.
#[derive(Clone, Debug)]
pub struct Selected<'c> {
    /// What is written.
    pub config: &'c FilterConfig,
    place: Arc<Place>,
    level: Level<'c>,
    set: Option<&'c str>,
    index: usize,
}

/// Says where a filter comes from, if it is not the route's own.
impl fmt::Display for Selected<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.level {
            Level::Defaults => f.write_str(", from defaults")?,
            Level::Listener(name) => write!(f, ", from the listener {name}")?,
            Level::Route => {}
        }
        self.set.map_or(Ok(()), |set| write!(f, ", from the set {set}"))
    }
}

impl Selected<'_> {
    fn is_own(&self) -> bool {
        self.level == Level::Route && self.set.is_none()
    }

    /// Returns the rank among filters of a stage of which a request has one.
    fn rank(&self) -> (u8, bool) {
        let level = match self.level {
            Level::Defaults => 0,
            Level::Listener(_) => 1,
            Level::Route => 2,
        };
        (level, self.set.is_none())
    }

    /// Returns the name of the place where it is written: under it what the filter counts outlives a configuration.
    fn written(&self, route: &str) -> String {
        let index = self.index;
        match (self.set, self.level) {
            (Some(set), _) => format!("set:{set}:{index}"),
            (None, Level::Defaults) => format!("defaults:{index}"),
            (None, Level::Listener(name)) => format!("listener:{name}:{index}"),
            (None, Level::Route) => format!("route:{route}:{index}"),
        }
    }
}

/// The filters that routes have besides their own.
#[derive(Debug)]
pub struct Inherited<'c> {
    loaded: &'c Loaded,
    defaults: Vec<Selected<'c>>,
    /// Those of listeners by the listener's place.
    listeners: Vec<Vec<Selected<'c>>>,
    /// The sets that something names.
    used: RefCell<AHashSet<&'c str>>,
    /// Filters that all their routes share, by the address of what is written; `None` for one with errors.
    compiled: HashMap<*const FilterConfig, Option<Arc<Filter>>>,
}

impl<'c> Inherited<'c> {
    /// Returns those of a configuration, and notes what is wrong with them.
    pub fn new(loaded: &'c Loaded, listeners: &[Listener], mistakes: &mut Mistakes) -> Self {
        let mut inherited =
            Self { loaded, defaults: Vec::new(), listeners: Vec::new(), used: RefCell::default(), compiled: HashMap::new() };
        let root = Place::default();
        for (name, set) in &loaded.config.filter_sets {
            let place = root.key("filter_sets").key(name.clone());
            mistakes.take(&place, config::is_name(name).map_err(|e| format!("expected {e}")));
            if FilterConfig::KEYS.contains(&name.as_str()) {
                mistakes.add(&place, format!("a filter is called {name}: a set needs another name"));
            }
            if set.is_empty() {
                mistakes.add(&place, "expected at least one filter");
            }
        }
        let defaults = root.key("defaults").key("filters");
        inherited.defaults = inherited.expand(&loaded.config.defaults.filters, Level::Defaults, &defaults, mistakes);
        for (index, listener) in loaded.config.listeners.iter().enumerate() {
            let place = loaded.listener_place(index).key("filters");
            let expanded = inherited.expand(&listener.filters, Level::Listener(&listener.name.0), &place, mistakes);
            // Listeners that are wrong are not compiled, and neither are routes then.
            if listeners.get(index).is_some() {
                inherited.listeners.push(expanded);
            }
        }
        inherited
    }

    /// Returns a list with its sets in their places.
    fn expand(&self, list: &'c [FilterEntry], level: Level<'c>, place: &Place, mistakes: &mut Mistakes) -> Vec<Selected<'c>> {
        let mut expanded = Vec::with_capacity(list.len());
        let mut named = Vec::new();
        for (index, entry) in list.iter().enumerate() {
            let place = place.index(index);
            match entry {
                FilterEntry::Filter(config) => {
                    let place = Arc::new(place.key(config.key()));
                    expanded.push(Selected { config, place, level, set: None, index });
                }
                FilterEntry::Set(entry) => {
                    let name = entry.set.0.as_str();
                    let place = place.key("set");
                    if named.contains(&name) {
                        mistakes.add(&place, format!("the set \"{name}\" is in this list already"));
                    } else if level != Level::Defaults && self.defaults.iter().any(|default| default.set == Some(name)) {
                        mistakes.add(&place, format!("the set \"{name}\" is in defaults already, which all routes have"));
                    } else {
                        expanded.extend(self.set(name, level, &place, mistakes));
                    }
                    named.push(name);
                }
            }
        }
        expanded
    }

    /// Returns the filters of a set.
    fn set(&self, name: &str, level: Level<'c>, place: &Place, mistakes: &mut Mistakes) -> Vec<Selected<'c>> {
        let sets = &self.loaded.config.filter_sets;
        let Some((name, set)) = sets.get_key_value(name) else {
            if !self.loaded.is_left_out("filter_sets", name) {
                let near = nearest(name, sets.keys().map(String::as_str));
                mistakes.add(place, format!("there is no filter set \"{name}\"{near}"));
            }
            return Vec::new();
        };
        self.used.borrow_mut().insert(name);
        let at = Place::default().key("filter_sets").key(name.clone());
        let filters = set.iter().enumerate();
        filters
            .map(|(index, config)| Selected { config, place: Arc::new(at.index(index).key(config.key())), level, set: Some(name), index })
            .collect()
    }

    /// Returns the filters of the route of that number for requests of a listener, in the order in which they run.
    pub fn effective(&self, route: usize, listener: usize) -> Vec<Selected<'c>> {
        let Some(route) = self.loaded.config.routes.get(route) else { return Vec::new() };
        let own = self.expand(&route.filters, Level::Route, &Place::default(), &mut Mistakes::default());
        let mut selected = self.select(route, &own, Some(listener), &mut AHashSet::new());
        selected.sort_by_key(|one| one.config.stage());
        selected
    }

    /// Warns of sets that nothing names.
    pub fn warn_of_unused(&self, warnings: &mut Mistakes) {
        let used = self.used.borrow();
        for name in self.loaded.config.filter_sets.keys().filter(|name| !used.contains(name.as_str())) {
            warnings.add(&Place::default().key("filter_sets").key(name.clone()), "nothing uses this filter set");
        }
    }

    /// Whether routes have others on that listener than elsewhere.
    fn has_own(&self, listener: usize) -> bool {
        self.listeners.get(listener).is_some_and(|own| !own.is_empty())
    }

    /// Returns the filters of a route for requests of a listener, in the order of the text; those that the route does
    /// without are added to `left_out`.
    fn select(
        &self,
        route: &config::Route,
        own: &[Selected<'c>],
        listener: Option<usize>,
        left_out: &mut AHashSet<String>,
    ) -> Vec<Selected<'c>> {
        let of_listener = listener.and_then(|listener| self.listeners.get(listener)).map_or(&[][..], Vec::as_slice);
        let mut selected: Vec<Selected<'c>> = Vec::new();
        for one in self.defaults.iter().chain(of_listener).chain(own) {
            let words = [Some(one.config.key()), one.set];
            let without = words.into_iter().flatten().find(|word| one.level != Level::Route && route.without.iter().any(|w| w == word));
            if let Some(word) = without {
                left_out.insert(word.to_owned());
            } else if !selected.iter().any(|known| std::ptr::eq(known.config, one.config)) {
                // What a route has twice, by a set, runs once.
                selected.push(one.clone());
            }
        }
        // Of a stage with one filter at most the nearest counts.
        let mut ranks: Vec<(Stage, (u8, bool))> = selected.iter().map(|one| (one.config.stage(), one.rank())).collect();
        ranks.retain(|(stage, _)| stage.is_single());
        selected.retain(|one| !ranks.iter().any(|(stage, rank)| *stage == one.config.stage() && *rank > one.rank()));
        selected
    }
}

/// Every filter that is written, and where.
pub fn written(loaded: &Loaded) -> impl Iterator<Item = (&FilterConfig, Place)> {
    let root = Place::default();
    let defaults = (loaded.config.defaults.filters.as_slice(), root.key("defaults"));
    let listeners = loaded.config.listeners.iter().enumerate().map(|(i, l)| (l.filters.as_slice(), loaded.listener_place(i)));
    let routes = loaded.config.routes.iter().enumerate().map(|(i, r)| (r.filters.as_slice(), loaded.route_place(i)));
    let lists = std::iter::once(defaults).chain(listeners).chain(routes);
    let entries = lists.flat_map(|(list, place)| list.iter().enumerate().map(move |(i, entry)| (entry, place.key("filters").index(i))));
    let direct = entries.filter_map(|(entry, place)| match entry {
        FilterEntry::Filter(config) => Some((&**config, place)),
        FilterEntry::Set(_) => None,
    });
    let sets = loaded.config.filter_sets.iter();
    let in_sets = sets.flat_map(move |(name, set)| {
        let place = root.key("filter_sets").key(name.clone());
        set.iter().enumerate().map(move |(i, config)| (config, place.index(i)))
    });
    direct.chain(in_sets).map(|(config, place)| (config, place.key(config.key())))
}

impl<'w> Work<'w> {
    /// Compiles the filters of a route for each of its listeners.
    pub fn chains(&mut self, inherited: &mut Inherited<'w>, route: &'w config::Route, place: &Place, bound: &[usize]) -> Chains {
        let own = inherited.expand(&route.filters, Level::Route, &place.key("filters"), self.mistakes);
        let mut left_out = AHashSet::new();
        let mut compiled = HashMap::new();
        let mut chains = Chains::default();
        let elsewhere = bound.is_empty() || bound.iter().any(|listener| !inherited.has_own(*listener));
        let differing = bound.iter().copied().filter(|listener| inherited.has_own(*listener)).map(Some);
        let all: Vec<Option<usize>> = elsewhere.then_some(None).into_iter().chain(differing).collect();
        for listener in all {
            let selected = inherited.select(route, &own, listener, &mut left_out);
            let chain = self.chain(inherited, &mut compiled, route, &selected);
            match listener {
                Some(listener) => chains.of_listeners.push((listener, chain)),
                None => chains.usual = chain,
            }
        }
        self.without(inherited, route, place, &left_out);
        chains
    }

    /// Notes what a route does without and would not have.
    fn without(&mut self, inherited: &Inherited<'w>, route: &config::Route, place: &Place, left_out: &AHashSet<String>) {
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
                let known = inherited.defaults.iter().map(|one| one.config.key()).collect::<std::collections::BTreeSet<_>>();
                let known: Vec<&str> = known.into_iter().collect();
                let defaults = if known.is_empty() { String::new() } else { format!("; defaults have {}", known.join(", ")) };
                self.mistakes
                    .add(&place, format!("leaves nothing out: neither defaults nor a listener of this route has \"{word}\"{defaults}"));
            }
        }
    }

    fn chain(
        &mut self,
        inherited: &mut Inherited<'w>,
        compiled: &mut HashMap<*const FilterConfig, Option<Arc<Filter>>>,
        route: &config::Route,
        selected: &[Selected<'w>],
    ) -> Chain {
        let mut filters = Vec::with_capacity(selected.len());
        let authenticator = selected.iter().find(|one| one.config.stage() == Stage::Authenticate);
        for (index, one) in selected.iter().enumerate() {
            let key = std::ptr::from_ref(one.config);
            let filter = match inherited.compiled.get(&key).or_else(|| compiled.get(&key)) {
                Some(known) => known.clone(),
                None => {
                    let (filter, is_of_route) = self.filter(route, one);
                    let known = if is_of_route { &mut *compiled } else { &mut inherited.compiled };
                    known.entry(key).or_insert(filter).clone()
                }
            };
            let Some(filter) = filter else { continue };
            if one.config.stage().is_single()
                && let Some(first) = selected[..index].iter().find(|first| first.config.stage() == one.config.stage())
            {
                self.second(route, first, one);
            }
            if self.fits(&filter, route, one) {
                self.reads_claims(one, authenticator.map(|one| one.config));
                filters.push(filter);
            }
        }
        Chain::new(filters)
    }

    /// Compiles a filter. True when it is for this route alone.
    fn filter(&mut self, route: &config::Route, one: &Selected<'_>) -> (Option<Arc<Filter>>, bool) {
        let loaded = self.loaded;
        let identity = |place: &Place| loaded.identity(place);
        let written = one.written(&route.name.0);
        let mut context = CompileContext {
            route: RouteFacts::new(&route.name.0, &route.matches.methods, &written, one.is_own()),
            place: (*one.place).clone(),
            base: &self.loaded.base,
            live: self.live,
            consumers: self.consumers,
            is_partial: self.loaded.is_partial("consumers"),
            identities: Identities(&identity),
            shared: &mut self.shared,
            mistakes: self.mistakes,
        };
        let filter = one.config.compile(&mut context).map(Arc::new);
        (filter, one.is_own() || context.route.is_asked())
    }

    /// Notes an error of a filter, which another chain may have as well.
    fn note(&mut self, place: &Place, text: String) {
        if !self.mistakes.0.iter().any(|known| known.place == *place && known.text == text) {
            self.mistakes.add(place, text);
        }
    }

    /// Notes a filter of a stage of which the same list has one already.
    fn second(&mut self, route: &config::Route, first: &Selected<'_>, second: &Selected<'_>) {
        let one = first.config.key();
        let way = match second.config.stage() {
            Stage::Authenticate => ": put both below any_of if either is enough, or below all_of".to_owned(),
            _ => String::new(),
        };
        let whose = match second.level {
            Level::Route => format!("the route {}", route.name.0),
            Level::Listener(name) => format!("the listener {name}"),
            Level::Defaults => "defaults".to_owned(),
        };
        let of = first.set.map(|set| format!(" of the set {set}")).unwrap_or_default();
        self.note(&second.place, format!("{whose} already has {one}{of}{way}"));
    }

    /// Whether a filter has something to work on; noted where the route has it itself, and does not forward.
    fn fits(&mut self, filter: &Filter, route: &config::Route, one: &Selected<'_>) -> bool {
        let fits = matches!(route.action, ActionConfig::Forward(_)) || filter.needs() != Needs::ResponseBody;
        if !fits && one.is_own() {
            let text = format!("{} changes responses of targets, and this route does not forward", one.config.key());
            self.note(&one.place, text);
        }
        fits
    }

    /// Notes a filter that reads a header which authentication sets for the target: the filter sees what the client sends
    /// under that name, which may be anything.
    fn reads_claims(&mut self, one: &Selected<'_>, authenticator: Option<&FilterConfig>) {
        let Some(authenticator) = authenticator.filter(|_| one.config.stage() > Stage::Authenticate) else { return };
        let written = authenticator.headers_written();
        for (name, keys) in one.config.headers_read().into_iter().filter(|(name, _)| written.contains(name)) {
            let place = keys.into_iter().fold((*one.place).clone(), |place, key| place.key(key));
            let text =
                format!("{} sets {name} for the target only; here it is what the client sends: use by: consumer", authenticator.key());
            self.note(&place, text);
        }
    }
}
