//! The filters of a route: those of `defaults`, of its listeners, of sets, and its own.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use ahash::{AHashMap, AHashSet};

use super::{FilterEntry, ListedFilter, Loaded, RouteConfig};
use crate::filters::{FilterConfig, Stage};
use crate::notation::{Mistakes, Place, nearest};

/// The level of the list that has a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterLevel<'c> {
    /// In `defaults`.
    Defaults,
    /// On the listener of that name.
    Listener(&'c str),
    /// On the route itself.
    Route,
}

/// A filter of a route, and its place in the configuration.
#[derive(Clone, Debug)]
pub struct Selected<'c> {
    /// The filter's settings.
    pub config: &'c FilterConfig,
    /// The place.
    pub place: Arc<Place>,
    /// The level of the list that has it.
    pub level: FilterLevel<'c>,
    /// The set by which the list has it.
    pub set: Option<&'c str>,
    /// Whether requests that it rejects are rejected, and not only counted.
    pub enforce: bool,
    /// The condition under which it runs.
    pub when: Option<&'c str>,
    /// Its number among the filters of the same key in its list.
    number: usize,
}

/// Writes where a filter comes from, if it is not the route's own.
impl fmt::Display for Selected<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.level {
            FilterLevel::Defaults => f.write_str(", from defaults")?,
            FilterLevel::Listener(name) => write!(f, ", from the listener {name}")?,
            FilterLevel::Route => {}
        }
        self.set.map_or(Ok(()), |set| write!(f, ", from the set {set}"))
    }
}

impl Selected<'_> {
    /// Returns whether the route has it itself, and not by a set.
    pub fn is_own(&self) -> bool {
        self.level == FilterLevel::Route && self.set.is_none()
    }

    /// Returns the rank among filters of a stage of which a request has one.
    fn rank(&self) -> (u8, bool) {
        let level = match self.level {
            FilterLevel::Defaults => 0,
            FilterLevel::Listener(_) => 1,
            FilterLevel::Route => 2,
        };
        (level, self.set.is_none())
    }

    /// Returns the name of the place where the filter is written: its counts outlive a configuration under that name.
    /// The number is that among the filters of its key, so that filters of other keys may come and go.
    pub fn written(&self, route: &str) -> String {
        let (key, number) = (self.config.key(), self.number);
        match (self.set, self.level) {
            (Some(set), _) => format!("set:{set}:{key}:{number}"),
            (None, FilterLevel::Defaults) => format!("defaults:{key}:{number}"),
            (None, FilterLevel::Listener(name)) => format!("listener:{name}:{key}:{number}"),
            (None, FilterLevel::Route) => format!("route:{route}:{key}:{number}"),
        }
    }
}

/// Counts the filters of each key in one list.
#[derive(Default)]
struct KeyNumbers(AHashMap<&'static str, usize>);

impl KeyNumbers {
    /// Returns the number of the next filter among those of its key.
    fn next(&mut self, config: &FilterConfig) -> usize {
        let next = self.0.entry(config.key()).or_default();
        *next += 1;
        *next - 1
    }
}

/// The filters that routes have besides their own.
#[derive(Debug)]
pub struct Inherited<'c> {
    loaded: &'c Loaded,
    /// The filters of all routes.
    pub defaults: Vec<Selected<'c>>,
    /// The filters of listeners by the listener's place.
    listeners: Vec<Vec<Selected<'c>>>,
    /// The sets that are used.
    used: RefCell<AHashSet<&'c str>>,
}

impl<'c> Inherited<'c> {
    /// Returns the filters of a configuration, and notes the errors in them.
    pub fn new(loaded: &'c Loaded, mistakes: &mut Mistakes) -> Self {
        let mut inherited = Self { loaded, defaults: Vec::new(), listeners: Vec::new(), used: RefCell::default() };
        let root = Place::default();
        for (name, set) in &loaded.config.filter_sets {
            let place = root.key("filter_sets").key(name.clone());
            mistakes.take(&place, super::is_name(name).map_err(|e| format!("expected {e}")));
            if FilterConfig::KEYS.contains(&name.as_str()) {
                mistakes.add(&place, format!("a filter is called {name}: a set needs another name"));
            }
            if set.is_empty() {
                mistakes.add(&place, "expected at least one filter");
            }
        }
        let defaults = root.key("defaults").key("filters");
        inherited.defaults =
            inherited.expand(&loaded.config.defaults.filters, FilterLevel::Defaults, &defaults, mistakes);
        for (index, listener) in loaded.config.listeners.iter().enumerate() {
            let place = loaded.listener_place(index).key("filters");
            let expanded =
                inherited.expand(&listener.filters, FilterLevel::Listener(&listener.name.0), &place, mistakes);
            inherited.listeners.push(expanded);
        }
        inherited
    }

    /// Returns a list with its sets expanded.
    pub fn expand(
        &self,
        list: &'c [FilterEntry],
        level: FilterLevel<'c>,
        place: &Place,
        mistakes: &mut Mistakes,
    ) -> Vec<Selected<'c>> {
        let mut expanded = Vec::with_capacity(list.len());
        let mut named = Vec::new();
        let mut numbers = KeyNumbers::default();
        for (index, entry) in list.iter().enumerate() {
            let place = place.index(index);
            match entry {
                FilterEntry::Filter(listed) => {
                    let ListedFilter { config, enforce, when } = &**listed;
                    let (place, number) = (Arc::new(place.key(config.key())), numbers.next(config));
                    let when = when.as_deref();
                    expanded.push(Selected { config, place, level, set: None, enforce: *enforce, when, number });
                }
                FilterEntry::Set(entry) => {
                    let name = entry.set.0.as_str();
                    let place = place.key("set");
                    if named.contains(&name) {
                        mistakes.add(&place, format!("the set \"{name}\" is in this list already"));
                    } else if level != FilterLevel::Defaults
                        && self.defaults.iter().any(|default| default.set == Some(name))
                    {
                        mistakes
                            .add(&place, format!("the set \"{name}\" is in defaults already, which all routes have"));
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
    fn set(&self, name: &str, level: FilterLevel<'c>, place: &Place, mistakes: &mut Mistakes) -> Vec<Selected<'c>> {
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
        let mut numbers = KeyNumbers::default();
        filters
            .map(|(index, ListedFilter { config, enforce, when })| Selected {
                config,
                enforce: *enforce,
                when: when.as_deref(),
                place: Arc::new(at.index(index).key(config.key())),
                level,
                set: Some(name),
                number: numbers.next(config),
            })
            .collect()
    }

    /// Returns the filters of the route of that number for requests of a listener, in the order in which they run.
    pub fn effective(&self, route: usize, listener: usize) -> Vec<Selected<'c>> {
        let Some(route) = self.loaded.config.routes.get(route) else { return Vec::new() };
        let own = self.expand(&route.filters, FilterLevel::Route, &Place::default(), &mut Mistakes::default());
        let mut selected = self.select(route, &own, Some(listener), &mut AHashSet::new());
        selected.sort_by_key(|one| one.config.stage());
        selected
    }

    /// Returns the listeners of a route by name, each with the filters that run there, where any other than its own do;
    /// one entry without a name where they are the same on all.
    fn running(&self, route: usize) -> Vec<(Option<&'c str>, Vec<Selected<'c>>)> {
        let Some(config) = self.loaded.config.routes.get(route) else { return Vec::new() };
        let listeners = self.loaded.config.listeners.iter().enumerate();
        let bound = listeners.filter(|(_, l)| config.listeners.is_empty() || config.listeners.contains(&l.name.0));
        let mut lists: Vec<_> =
            bound.map(|(place, l)| (Some(l.name.0.as_str()), self.effective(route, place))).collect();
        let same = |a: &[Selected<'_>], b: &[Selected<'_>]| {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| std::ptr::eq(a.config, b.config))
        };
        if lists.windows(2).all(|pair| same(&pair[0].1, &pair[1].1)) {
            lists.truncate(1);
            lists.iter_mut().for_each(|(name, _)| *name = None);
        }
        let is_inherited = lists.iter().any(|(_, list)| list.iter().any(|one| !one.is_own()));
        if is_inherited { lists } else { Vec::new() }
    }

    /// Returns the filters that run in each route that has more than its own: a text for the place, and the filters.
    pub(super) fn lists(&self) -> impl Iterator<Item = (String, Vec<String>)> {
        let is_any = !self.defaults.is_empty()
            || !self.loaded.config.filter_sets.is_empty()
            || self.listeners.iter().any(|l| !l.is_empty());
        let routes = if is_any { self.loaded.config.routes.as_slice() } else { &[] };
        routes.iter().enumerate().flat_map(|(index, route)| {
            self.running(index).into_iter().map(move |(listener, list)| {
                let on = listener.map(|name| format!(" on the listener {name}")).unwrap_or_default();
                let words = list
                    .iter()
                    .map(|one| format!("{}{}", one.config.key(), one.to_string().replace(", from", " from")));
                (format!("filters of the route {}{on}", route.name.0), words.collect())
            })
        })
    }

    /// Warns of sets that are not used.
    pub fn warn_of_unused(&self, warnings: &mut Mistakes) {
        let used = self.used.borrow();
        for name in self.loaded.config.filter_sets.keys().filter(|name| !used.contains(name.as_str())) {
            warnings.add(&Place::default().key("filter_sets").key(name.clone()), "nothing uses this filter set");
        }
    }

    /// Returns whether routes have other filters on that listener than elsewhere.
    pub fn has_own(&self, listener: usize) -> bool {
        self.listeners.get(listener).is_some_and(|own| !own.is_empty())
    }

    /// Returns the filters of a route for requests of a listener, in the order of the text; those that the route leaves
    /// out are added to `left_out`.
    pub fn select(
        &self,
        route: &RouteConfig,
        own: &[Selected<'c>],
        listener: Option<usize>,
        left_out: &mut AHashSet<String>,
    ) -> Vec<Selected<'c>> {
        let of_listener = listener.and_then(|listener| self.listeners.get(listener)).map_or(&[][..], Vec::as_slice);
        let mut selected: Vec<Selected<'c>> = Vec::new();
        for one in self.defaults.iter().chain(of_listener).chain(own) {
            let words = [Some(one.config.key()), one.set];
            let without = words
                .into_iter()
                .flatten()
                .find(|word| one.level != FilterLevel::Route && route.without.iter().any(|w| w == word));
            if let Some(word) = without {
                left_out.insert(word.to_owned());
            } else if !selected.iter().any(|known| std::ptr::eq(known.config, one.config)) {
                // A filter that a route has twice by a set runs once.
                selected.push(one.clone());
            }
        }
        // Of a stage with at most one filter the nearest counts.
        let mut ranks: Vec<(Stage, (u8, bool))> = selected.iter().map(|one| (one.config.stage(), one.rank())).collect();
        ranks.retain(|(stage, _)| stage.is_single());
        selected.retain(|one| !ranks.iter().any(|(stage, rank)| *stage == one.config.stage() && *rank > one.rank()));
        selected
    }
}

/// Returns every filter in the configuration with its place.
pub fn all_filters(loaded: &Loaded) -> impl Iterator<Item = (&FilterConfig, Place)> {
    let root = Place::default();
    let defaults = (loaded.config.defaults.filters.as_slice(), root.key("defaults"));
    let listeners =
        loaded.config.listeners.iter().enumerate().map(|(i, l)| (l.filters.as_slice(), loaded.listener_place(i)));
    let routes = loaded.config.routes.iter().enumerate().map(|(i, r)| (r.filters.as_slice(), loaded.route_place(i)));
    let lists = std::iter::once(defaults).chain(listeners).chain(routes);
    let entries = lists.flat_map(|(list, place)| {
        list.iter().enumerate().map(move |(i, entry)| (entry, place.key("filters").index(i)))
    });
    let direct = entries.filter_map(|(entry, place)| match entry {
        FilterEntry::Filter(listed) => Some((&listed.config, place)),
        FilterEntry::Set(_) => None,
    });
    let sets = loaded.config.filter_sets.iter();
    let in_sets = sets.flat_map(move |(name, set)| {
        let place = root.key("filter_sets").key(name.clone());
        set.iter().enumerate().map(move |(i, listed)| (&listed.config, place.index(i)))
    });
    direct.chain(in_sets).map(|(config, place)| (config, place.key(config.key())))
}
