//! `cache`: stores responses of targets, and serves requests from what is stored (RFC 9111).
//!
//! The filters that come before it (authentication, limits, validation) run for every request, hit or not; those that
//! change responses do, too: what is stored is what the target has sent. The edge does the work, by the [`CachePolicy`]
//! that is compiled here.

mod config;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderName;
use http::{HeaderMap, Method};
use pingora::http::RequestHeader;

use super::condition::Condition;
use super::{CompileContext, HttpFilter, Stage};
use crate::exchange::Exchange;
use crate::live::Cache;
use crate::notation::{Header, MethodName, Mistakes, OneOrMany, Place, Statuses};
use crate::rules::caching::{
    CookieRule, KeyRules, NamePattern, NotStored, QueryRule, StatusSet, StoreRules, TtlRules, has_cookie,
    is_of_each_request, vary_names,
};

use config::{QueryConfig, QueryList, QueryWord, SetCookie};

pub use config::Config;

/// The most parts of a key, and the most reasons for a bypass.
const MAX_PARTS: usize = 16;

/// The most tags of one response.
const MAX_TAGS: usize = 64;

/// The longest tag.
const MAX_TAG: usize = 256;

/// What is cached of a route's responses, and how.
#[derive(Debug)]
pub struct CachePolicy {
    /// The store.
    pub store: Arc<Cache>,
    /// What is stored, and for how long it is fresh.
    pub rules: StoreRules,
    /// The key.
    pub key: Arc<KeyRules>,
    max_object: u64,
    /// How long a request waits for another one for the same.
    pub lock_timeout: Duration,
    /// Whether the directives of requests hold.
    pub obeys_clients: bool,
    /// Whether responses get `Cache-Status`.
    pub has_status_header: bool,
    /// The headers with tags that clients do not get.
    pub removed: Vec<HeaderName>,
    methods: Vec<Method>,
    bypass: Bypass,
    tags: Vec<HeaderName>,
    ignored_vary: Vec<HeaderName>,
}

/// Writes the policy as `in the cache default, by URL, and the header x-tenant`.
impl fmt::Display for CachePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "in the cache {}, by URL", self.store.name())?;
        match &self.key.query {
            QueryRule::All => {}
            QueryRule::None => f.write_str(" without the query")?,
            QueryRule::Only(_) | QueryRule::Without(_) => f.write_str(" with some parameters of the query")?,
        }
        self.key.headers.iter().try_for_each(|name| write!(f, ", and the header {name}"))?;
        self.key.cookies.iter().try_for_each(|name| write!(f, ", and the cookie {name}"))?;
        f.write_str(if self.key.consumer { ", and the consumer" } else { "" })
    }
}

/// Which requests have nothing to do with the cache.
#[derive(Debug, Default)]
struct Bypass {
    condition: Option<Condition>,
    headers: Vec<HeaderName>,
    cookies: Vec<Box<str>>,
}

impl CachePolicy {
    /// Returns the largest body that is stored.
    pub fn max_object(&self) -> u64 {
        self.max_object.min(self.store.max_object())
    }

    /// Returns whether requests with that method are served from the cache.
    pub fn has_method(&self, method: &Method) -> bool {
        self.methods.contains(method)
    }

    /// Returns whether a request has nothing to do with the cache.
    pub fn is_bypassed(&self, request: &RequestHeader, exchange: &Exchange) -> bool {
        let bypass = &self.bypass;
        bypass.headers.iter().any(|name| request.headers.contains_key(name))
            || bypass.cookies.iter().any(|name| has_cookie(&request.headers, name))
            || bypass.condition.as_ref().is_some_and(|condition| condition.is_true(request, exchange))
    }

    /// Returns the names of the request's fields that a response varies with, as far as they are not ignored; `None`
    /// of one that varies with anything, or with what differs for every request.
    pub fn vary_names(&self, response: &HeaderMap) -> Option<Vec<HeaderName>> {
        let mut names = vary_names(response)?;
        names.retain(|name| !self.ignored_vary.contains(name));
        (!names.iter().any(is_of_each_request)).then_some(names)
    }

    /// Returns the tags of a response.
    ///
    /// # Errors
    /// When they are too many, too long or not UTF-8: what has tags by which it cannot be purged is not stored.
    pub fn tags(&self, response: &HeaderMap) -> Result<Vec<Box<str>>, NotStored> {
        let mut tags = Vec::new();
        for value in self.tags.iter().flat_map(|name| response.get_all(name)) {
            let list = std::str::from_utf8(value.as_bytes()).map_err(|_| NotStored::Tags)?;
            for tag in list.split([' ', ',', '\t']).filter(|tag| !tag.is_empty()) {
                if tag.len() > MAX_TAG || tags.len() == MAX_TAGS {
                    return Err(NotStored::Tags);
                }
                tags.push(Box::from(tag));
            }
        }
        Ok(tags)
    }
}

/// The compiled filter. The edge does its work.
#[derive(Debug)]
pub struct Filter {
    /// The policy.
    pub policy: Arc<CachePolicy>,
}

impl HttpFilter for Filter {
    type Config = Config;
    type Memory = ();
    const STAGE: Stage = Stage::Cache;

    fn compile(config: &Config, context: &mut CompileContext<'_>) -> Option<Self> {
        let place = context.place.clone();
        check_config(config, &place, context.mistakes);
        // All errors are noted before the first of them ends the work.
        let store = context.cache(&config.store);
        let key = key_rules(config, &place, context.mistakes);
        let ttl = ttl_rules(config, &place, context.mistakes);
        let condition = match &config.bypass.when {
            Some(source) => {
                let compiled = Condition::compile(source, Stage::Cache);
                Some(context.mistakes.take(&place.key("bypass").key("when"), compiled)?)
            }
            None => None,
        };
        let (store, key) = (store?, key?);
        let rules = StoreRules {
            ttl,
            cookies: match config.set_cookie {
                SetCookie::Skip => CookieRule::Skip,
                SetCookie::Remove => CookieRule::Remove,
                SetCookie::Keep => CookieRule::Keep,
            },
            is_personal: key.consumer,
            is_same_for_all: config.key.consumer == Some(false),
        };
        let max_object = config.max_object.as_ref().map_or(u64::MAX, |size| size.0);
        let most = context.shared.caches.max_object(&config.store).unwrap_or(u64::MAX);
        if config.max_object.is_some() && max_object > most {
            let text = format!("the cache {} stores no body over {most} bytes", config.store);
            context.mistakes.add(&place.key("max_object"), text);
        }
        let tags = names(&config.tags.headers);
        let key = Arc::new(key);
        if key.query != QueryRule::All || key.sorted {
            store.note_url_rules(&key);
        }
        let policy = CachePolicy {
            max_object,
            store,
            rules,
            key,
            lock_timeout: config.lock_timeout.0,
            obeys_clients: config.obey_clients,
            has_status_header: config.status_header,
            removed: if config.tags.remove { tags.clone() } else { Vec::new() },
            methods: config.methods.iter().map(|method| method.0.clone()).collect(),
            bypass: Bypass {
                condition,
                headers: names(&config.bypass.headers),
                cookies: config.bypass.cookies.iter().map(|name| name.as_str().into()).collect(),
            },
            tags,
            ignored_vary: names(&config.ignore_vary),
        };
        Some(Self { policy: Arc::new(policy) })
    }

    fn headers_read(config: &Config) -> Vec<(HeaderName, Vec<String>)> {
        let of = |list: &[Header], section: &str, key: &str| {
            let path = |index: usize| vec![section.to_owned(), key.to_owned(), index.to_string()];
            list.iter().enumerate().map(|(index, name)| (name.0.clone(), path(index))).collect::<Vec<_>>()
        };
        let mut read = of(&config.key.headers, "key", "headers");
        read.extend(of(&config.bypass.headers, "bypass", "headers"));
        read
    }
}

fn names(list: &[Header]) -> Vec<HeaderName> {
    list.iter().map(|name| name.0.clone()).collect()
}

/// Notes what has no effect, and what exceeds its bounds.
fn check_config(config: &Config, place: &Place, mistakes: &mut Mistakes) {
    for (index, MethodName(method)) in config.methods.iter().enumerate() {
        if *method != Method::GET && *method != Method::HEAD {
            mistakes.add(&place.key("methods").index(index), "only responses to GET and HEAD are cached");
        }
    }
    if !config.methods.iter().any(|method| method.0 == Method::GET) {
        mistakes.add(&place.key("methods"), "expected GET: responses to HEAD are those to GET without their body");
    }
    let lists = [
        ("key", "headers", config.key.headers.len()),
        ("key", "cookies", config.key.cookies.len()),
        ("bypass", "headers", config.bypass.headers.len()),
        ("bypass", "cookies", config.bypass.cookies.len()),
        ("tags", "headers", config.tags.headers.len()),
    ];
    for (section, key, _) in lists.iter().filter(|(_, _, length)| *length > MAX_PARTS) {
        mistakes.add(&place.key(*section).key(*key), format!("expected at most {MAX_PARTS} names"));
    }
    if config.lock_timeout.0.is_zero() {
        mistakes.add(&place.key("lock_timeout"), "expected a time longer than nothing");
    }
    let ttl = &config.ttl;
    if ttl.fixed.is_some() && ttl.default.is_some() {
        mistakes.add(&place.key("ttl").key("default"), "has no effect beside override");
    }
    for (key, time) in [("default", &ttl.default), ("override", &ttl.fixed)] {
        if let (Some(time), Some(most)) = (time, &ttl.most)
            && time.0 > most.0
        {
            mistakes.add(&place.key("ttl").key(key), "is longer than ttl.most");
        }
    }
    if config.key.sort_query && matches!(config.key.query, QueryConfig::Word(QueryWord::None)) {
        mistakes.add(&place.key("key").key("sort_query"), "has no effect with query: none");
    }
}

fn key_rules(config: &Config, place: &Place, mistakes: &mut Mistakes) -> Option<KeyRules> {
    let key = &config.key;
    let mut patterns = |list: &OneOrMany<String>, word: &'static str| {
        let place = place.key("key").key("query").key(word);
        if list.as_slice().is_empty() || list.as_slice().len() > MAX_PARTS {
            mistakes.add(&place, format!("expected 1 to {MAX_PARTS} names"));
        }
        let parsed = list.as_slice().iter().map(|text| mistakes.take(&place, NamePattern::parse(text)));
        parsed.collect::<Option<Vec<_>>>()
    };
    let query = match &key.query {
        QueryConfig::Word(QueryWord::All) => QueryRule::All,
        QueryConfig::Word(QueryWord::None) => QueryRule::None,
        QueryConfig::List(QueryList::Only(list)) => QueryRule::Only(patterns(list, "only")?),
        QueryConfig::List(QueryList::Without(list)) => QueryRule::Without(patterns(list, "without")?),
    };
    Some(KeyRules {
        query,
        sorted: key.sort_query,
        headers: names(&key.headers),
        cookies: key.cookies.iter().map(|name| name.as_str().into()).collect(),
        consumer: key.consumer.unwrap_or(false),
    })
}

fn ttl_rules(config: &Config, place: &Place, mistakes: &mut Mistakes) -> TtlRules {
    let seconds = |time: &crate::notation::Duration| time.0.as_secs();
    let mut statuses = Vec::new();
    for (text, time) in &config.ttl.statuses {
        let parsed = text.parse::<Statuses>().map_err(|wanted| format!("expected {wanted}"));
        let place = place.key("ttl").key("statuses").key(text.clone());
        let Some(Statuses(ranges)) = mistakes.take(&place, parsed) else { continue };
        if ranges.iter().any(|(from, to)| *from <= 206 && *to >= 206 || *from <= 304 && *to >= 304) {
            mistakes.add(&place, "206 and 304 are never stored by themselves");
        }
        statuses.extend(ranges.iter().map(|(from, to)| (StatusSet { from: *from, to: *to }, seconds(time))));
    }
    // The narrowest first, so that 404 counts before 400-499.
    statuses.sort_by_key(|(set, _)| set.to - set.from);
    let stale = &config.stale;
    TtlRules {
        default: config.ttl.default.as_ref().map(seconds),
        fixed: config.ttl.fixed.as_ref().map(seconds),
        statuses,
        most: config.ttl.most.as_ref().map(seconds),
        heuristic: config.ttl.heuristic,
        stale_while_revalidate: stale.while_revalidate.as_ref().map_or(0, seconds),
        stale_if_error: stale.if_error.as_ref().map_or(0, seconds),
    }
}
