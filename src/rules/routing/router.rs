//! The routing table, which finds the first match in the order of precedence.

use std::cmp::Ordering;
use std::net::IpAddr;
use std::ops::ControlFlow;

use ahash::AHashMap;
use http::{HeaderMap, Method};

use super::pattern::{HostPattern, PathPattern, Segment};
use super::predicate::{PredicateResult, Predicates, VERSION};

/// The properties of a request that routing uses; its host and path are normalised.
#[derive(Clone, Copy, Debug)]
pub struct RequestFacts<'a> {
    /// The host in lower case, without a port; empty when the request has none.
    pub host: &'a str,
    /// The path as [`crate::rules::path::normalise`] returns it.
    pub path: &'a str,
    /// The query, without the `?`.
    pub query: Option<&'a str>,
    /// The method.
    pub method: &'a Method,
    /// The request's headers.
    pub headers: &'a HeaderMap,
    /// The client's address, behind trusted proxies.
    pub client: IpAddr,
}

/// One combination of host and path of a route, with its conditions.
#[derive(Clone, Debug)]
pub struct RouteEntry {
    /// The host.
    pub host: HostPattern,
    /// The path.
    pub path: PathPattern,
    /// The conditions, shared by all entries of a route.
    pub predicates: std::sync::Arc<Predicates>,
    /// The caller's index of the route, which is also its place in the configuration.
    pub route: usize,
    /// What the entry is in the OpenAPI document of its route.
    pub operation: EntryOperation,
}

/// What an entry is in the OpenAPI document of its route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EntryOperation {
    /// The route has none.
    #[default]
    None,
    /// The operation of that number.
    Known(u32),
    /// All paths that the document does not have, which are passed on, or rejected.
    Unknown {
        /// Whether they are passed on.
        passes: bool,
    },
}

/// The precedence of an entry; the greater wins.
#[derive(Clone, Copy, Debug)]
pub struct Rank<'a>(&'a RouteEntry);

impl Ord for Rank<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let (a, b) = (self.0, other.0);
        a.host
            .cmp(&b.host)
            .then_with(|| a.path.cmp(&b.path))
            .then_with(|| a.predicates.weight().cmp(&b.predicates.weight()))
            .then_with(|| b.route.cmp(&a.route))
    }
}

impl PartialOrd for Rank<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Rank<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Rank<'_> {}

impl RouteEntry {
    /// Returns its precedence.
    pub fn rank(&self) -> Rank<'_> {
        Rank(self)
    }

    /// Returns the criterion by which one of two entries that match a request precedes the other.
    pub fn criterion(&self, other: &Self) -> &'static str {
        let (own, others) = (self.predicates.weight(), other.predicates.weight());
        if self.host != other.host {
            "host: an exact one before *.suffix before any"
        } else if self.path != other.path {
            "path: a whole one before an expression before a prefix, and the longer before the shorter"
        } else if own.0 != others.0 {
            "methods: a route that names some before one that names none"
        } else if own.1 != others.1 {
            "headers: the route with more conditions"
        } else if own.2 != others.2 {
            "cookies: the route with more conditions"
        } else if own.3 != others.3 {
            "query: the route with more conditions"
        } else if own.4 != others.4 {
            "client: the narrower network"
        } else {
            "order: the earlier place in the configuration"
        }
    }

    /// Returns whether a request could match both entries with only their order to decide between them.
    pub fn conflicts(&self, other: &Self) -> bool {
        self.host == other.host && self.path == other.path && self.predicates.conflicts(&other.predicates)
    }
}

/// The result of a look-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteMatch {
    /// This entry matches.
    Found(usize),
    /// Host and path match, but only with these methods.
    MethodNotAllowed(Vec<Method>),
    /// This entry matches but for the version of its API.
    OtherVersion(usize),
    /// Nothing matches.
    NotFound,
}

/// Returns the value of `Allow` for these methods; GET includes HEAD (RFC 9110, section 9.3.2).
pub fn allow(methods: &[Method]) -> String {
    let mut names: Vec<&str> = methods.iter().map(Method::as_str).collect();
    if names.contains(&"GET") && !names.contains(&"HEAD") {
        names.push("HEAD");
    }
    names.join(", ")
}

/// Returns the names of the parameters that every path of a route has, and `*` where each has a rest.
pub fn common_params(entries: &[RouteEntry]) -> Vec<String> {
    let Some(first) = entries.first() else { return Vec::new() };
    let named = |entry: &RouteEntry, name: &str| entry.path.param_names().iter().any(|other| other == name);
    let everywhere = |name: &str| entries.iter().all(|entry| named(entry, name));
    let mut names: Vec<String> = first.path.param_names().into_iter().map(Into::into).collect();
    names.retain(|name| everywhere(name));
    if entries.iter().all(|entry| matches!(entry.path, PathPattern::Segments { rest: true, .. })) {
        names.push("*".to_owned());
    }
    names
}

#[derive(Debug, Default)]
struct PathNode {
    literals: AHashMap<Box<str>, usize>,
    param: Option<usize>,
    /// Entries whose path ends here, by precedence.
    whole: Vec<usize>,
    /// Entries that match this path and all below it, by precedence.
    rest: Vec<usize>,
}

/// The paths of one host.
#[derive(Debug)]
struct PathTree {
    nodes: Vec<PathNode>,
    /// Entries with an expression, by precedence, each with its place in `set`.
    regexes: Vec<(usize, usize)>,
    set: regex::RegexSet,
}

/// All routes, by host and then by path.
#[derive(Debug)]
pub struct Router {
    entries: Vec<RouteEntry>,
    exact: AHashMap<Box<str>, PathTree>,
    below: AHashMap<Box<str>, PathTree>,
    any: Option<PathTree>,
}

type Visitor<'v> = dyn FnMut(usize, &RouteEntry) -> ControlFlow<()> + 'v;

impl Router {
    /// Builds the table.
    pub fn new(entries: Vec<RouteEntry>) -> Self {
        let mut hosts: AHashMap<&HostPattern, Vec<usize>> = AHashMap::new();
        for (index, entry) in entries.iter().enumerate() {
            hosts.entry(&entry.host).or_default().push(index);
        }
        let (mut exact, mut below, mut any) = (AHashMap::new(), AHashMap::new(), None);
        for (host, mut indexes) in hosts {
            indexes.sort_by(|a, b| entries[*b].rank().cmp(&entries[*a].rank()));
            let tree = PathTree::new(&entries, &indexes);
            match host {
                HostPattern::Any => any = Some(tree),
                HostPattern::Below(suffix) => _ = below.insert(suffix.as_str().into(), tree),
                HostPattern::Exact(name) => _ = exact.insert(name.as_str().into(), tree),
            }
        }
        Self { entries, exact, below, any }
    }

    /// Returns the entry of an index that [`Router::find`] returned.
    pub fn entry(&self, index: usize) -> &RouteEntry {
        &self.entries[index]
    }

    /// Returns all entries.
    pub fn entries(&self) -> &[RouteEntry] {
        &self.entries
    }

    /// Finds the first match in the order of precedence.
    pub fn find(&self, facts: &RequestFacts<'_>) -> RouteMatch {
        let mut found = None;
        let mut allowed: Vec<Method> = Vec::new();
        let mut other_version = None;
        let mut known: Vec<usize> = Vec::new();
        self.candidates(facts, &mut |index, entry| match entry.predicates.evaluate(facts) {
            PredicateResult::Match => {
                found = match entry.operation {
                    // A path of the document with another method is none of the unknown ones.
                    EntryOperation::Unknown { passes } if !passes || known.contains(&entry.route) => None,
                    _ => Some(index),
                };
                ControlFlow::Break(())
            }
            PredicateResult::Method => {
                if matches!(entry.operation, EntryOperation::Known(_)) {
                    known.push(entry.route);
                }
                for method in &entry.predicates.methods {
                    if !allowed.contains(method) {
                        allowed.push(method.clone());
                    }
                }
                ControlFlow::Continue(())
            }
            PredicateResult::No(VERSION) if entry.predicates.holds_for_any_version(facts) => {
                other_version.get_or_insert(index);
                match &entry.predicates.version {
                    Some(rule) if rule.is_final(facts) => ControlFlow::Break(()),
                    _ => ControlFlow::Continue(()),
                }
            }
            PredicateResult::No(_) => ControlFlow::Continue(()),
        });
        match (found, other_version) {
            (Some(index), _) => RouteMatch::Found(index),
            (None, Some(index)) if allowed.is_empty() => RouteMatch::OtherVersion(index),
            (None, None) if allowed.is_empty() => RouteMatch::NotFound,
            _ => RouteMatch::MethodNotAllowed(allowed),
        }
    }

    /// Visits the entries whose host and path match, by precedence, until the visitor breaks.
    pub fn candidates(&self, facts: &RequestFacts<'_>, visit: &mut Visitor<'_>) {
        let _ = self.walk(facts, visit);
    }

    fn walk(&self, facts: &RequestFacts<'_>, visit: &mut Visitor<'_>) -> ControlFlow<()> {
        if !self.exact.is_empty()
            && let Some(tree) = self.exact.get(facts.host)
        {
            tree.walk(&self.entries, facts.path, visit)?;
        }
        if !self.below.is_empty() {
            let mut name = facts.host;
            while let Some((_, suffix)) = name.split_once('.') {
                if let Some(tree) = self.below.get(suffix) {
                    tree.walk(&self.entries, facts.path, visit)?;
                }
                name = suffix;
            }
        }
        match &self.any {
            Some(tree) => tree.walk(&self.entries, facts.path, visit),
            None => ControlFlow::Continue(()),
        }
    }
}

impl PathTree {
    /// Builds the tree. `indexes` are ordered by precedence, and each list keeps that order.
    fn new(entries: &[RouteEntry], indexes: &[usize]) -> Self {
        let mut tree = Self { nodes: vec![PathNode::default()], regexes: Vec::new(), set: regex::RegexSet::empty() };
        let mut expressions = Vec::new();
        for &index in indexes {
            match &entries[index].path {
                PathPattern::Regex(expression) => {
                    tree.regexes.push((index, expressions.len()));
                    expressions.push(expression.as_str());
                }
                PathPattern::Segments { segments, rest } => {
                    let node = tree.insert(segments);
                    let list = if *rest { &mut tree.nodes[node].rest } else { &mut tree.nodes[node].whole };
                    list.push(index);
                }
            }
        }
        // Each expression was compiled on its own before, so the set can only fail by its size: then the entries are
        // matched one by one, which is slower and equivalent.
        tree.set = regex::RegexSetBuilder::new(expressions).size_limit(64 << 20).build().unwrap_or_default();
        tree
    }

    fn insert(&mut self, segments: &[Segment]) -> usize {
        let mut node = 0;
        for segment in segments {
            let fresh = self.nodes.len();
            let next = match segment {
                Segment::Literal(text) => *self.nodes[node].literals.entry(text.as_str().into()).or_insert(fresh),
                Segment::Param(_) => *self.nodes[node].param.get_or_insert(fresh),
            };
            if next == fresh {
                self.nodes.push(PathNode::default());
            }
            node = next;
        }
        node
    }

    fn walk(&self, entries: &[RouteEntry], path: &str, visit: &mut Visitor<'_>) -> ControlFlow<()> {
        let tail = path.get(1..).unwrap_or_default();
        self.whole(0, Some(tail), entries, visit)?;
        if !self.regexes.is_empty() {
            self.by_regex(entries, path, visit)?;
        }
        self.rest(0, Some(tail), entries, visit)
    }

    /// Visits the patterns for the whole path; a literal segment is tried before a parameter.
    fn whole(
        &self,
        node: usize,
        tail: Option<&str>,
        entries: &[RouteEntry],
        visit: &mut Visitor<'_>,
    ) -> ControlFlow<()> {
        let node = &self.nodes[node];
        let Some(tail) = tail else {
            return node.whole.iter().try_for_each(|index| visit(*index, &entries[*index]));
        };
        let (step, next) = split_step(tail);
        if let Some(child) = node.literals.get(step) {
            self.whole(*child, next, entries, visit)?;
        }
        match node.param {
            Some(child) if !step.is_empty() => self.whole(child, next, entries, visit),
            _ => ControlFlow::Continue(()),
        }
    }

    /// Visits the prefixes: the deepest first, and a literal segment before a parameter.
    fn rest(
        &self,
        node: usize,
        tail: Option<&str>,
        entries: &[RouteEntry],
        visit: &mut Visitor<'_>,
    ) -> ControlFlow<()> {
        let node = &self.nodes[node];
        if let Some(tail) = tail {
            let (step, next) = split_step(tail);
            if let Some(child) = node.literals.get(step) {
                self.rest(*child, next, entries, visit)?;
            }
            if let Some(child) = node.param.filter(|_| !step.is_empty()) {
                self.rest(child, next, entries, visit)?;
            }
        }
        node.rest.iter().try_for_each(|index| visit(*index, &entries[*index]))
    }

    fn by_regex(&self, entries: &[RouteEntry], path: &str, visit: &mut Visitor<'_>) -> ControlFlow<()> {
        let whole_set = self.set.len() == self.regexes.len();
        let hits = whole_set.then(|| self.set.matches(path));
        self.regexes.iter().try_for_each(|(index, place)| {
            let hit = match (&hits, &entries[*index].path) {
                (Some(hits), _) => hits.matched(*place),
                (None, PathPattern::Regex(expression)) => expression.is_match(path),
                (None, PathPattern::Segments { .. }) => false,
            };
            if hit { visit(*index, &entries[*index]) } else { ControlFlow::Continue(()) }
        })
    }
}

/// Returns the first segment and what follows its slash, if there is one.
fn split_step(tail: &str) -> (&str, Option<&str>) {
    match memchr::memchr(b'/', tail.as_bytes()) {
        Some(at) => (&tail[..at], Some(&tail[at + 1..])),
        None => (tail, None),
    }
}

#[cfg(test)]
#[path = "router_tests.rs"]
mod tests;
