//! Names of headers with `_`.
//!
//! Many targets take `x_user` and `x-user` for one header, so names with `_` are dropped, unless the configuration
//! reads one under that name; then its twin is dropped.

use ahash::AHashMap;
use http::HeaderName;

use crate::config::{BalanceConfig, Loaded, StickyConfig, all_filters};
use crate::filters::FilterConfig;
use crate::notation::{KeyBy, Mistakes, Place};

/// Names that frame a message or that the gateway itself writes: no client may send a variant of one.
pub(super) const RESERVED: &[&str] = &[
    "content-length",
    "content-type",
    "content-encoding",
    "transfer-encoding",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "grpc-timeout",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-real-ip",
    "x-request-id",
];

/// Names that the configuration mentions.
#[derive(Default)]
struct Mentioned {
    /// The names in requests, as clients send them, each with its place.
    read: Vec<(HeaderName, Place)>,
    /// The names that are set or removed for targets, whatever the client sends.
    written: Vec<HeaderName>,
}

/// Returns the names with `_` that requests may have, each with its twin. `documented` are those of OpenAPI documents.
pub fn compile(
    loaded: &Loaded,
    documented: Vec<(HeaderName, Place)>,
    mistakes: &mut Mistakes,
) -> Vec<(HeaderName, HeaderName)> {
    let mut mentioned = Mentioned::of(loaded);
    mentioned.read.extend(documented);
    if let Some(identity) = loaded.config.identity_headers.consumer() {
        for (_, place) in mentioned.read.iter().filter(|(name, _)| *name == identity) {
            mistakes
                .add(place, format!("clients cannot send {identity}: it is the header of identity_headers.consumer"));
        }
        mentioned.written.push(identity);
    }
    let mut let_in: Vec<(HeaderName, HeaderName)> = Vec::new();
    let mut twins: AHashMap<String, Vec<&HeaderName>> = AHashMap::new();
    for name in &mentioned.written {
        let twins = twins.entry(dashed(name)).or_default();
        if !twins.contains(&name) {
            twins.push(name);
        }
    }
    for (name, place) in mentioned.read.iter().filter(|(name, _)| name.as_str().contains('_')) {
        let twin = dashed(name);
        if RESERVED.contains(&twin.as_str()) {
            mistakes.add(place, format!("{name} is {twin} to many targets, so that it is never taken from a client"));
        } else if let Some(other) = twins.get(&twin).and_then(|all| all.iter().find(|other| **other != name)) {
            mistakes.add(
                place,
                format!("{name} and {other}, which targets are sent, are one header to many of them: use one name"),
            );
        } else if let Ok(twin) = twin.parse()
            && !let_in.iter().any(|(known, _)| known == name)
        {
            let_in.push((name.clone(), twin));
        }
    }
    let_in
}

fn dashed(name: &HeaderName) -> String {
    name.as_str().replace('_', "-")
}

impl Mentioned {
    fn of(loaded: &Loaded) -> Self {
        let mut all = Self::default();
        let root = Place::default();
        for (name, upstream) in &loaded.config.upstreams {
            let place = root.key("upstreams").key(name.clone());
            if let BalanceConfig::Hash(hash) = &upstream.balance {
                all.key_by(&hash.by, &place.key("balance").key("hash").key("by"));
            }
            if let Some(StickyConfig::Header(header)) = &upstream.sticky {
                all.read.push((header.name.0.clone(), place.key("sticky").key("header").key("name")));
            }
        }
        for (index, route) in loaded.config.routes.iter().enumerate() {
            let place = loaded.route_place(index);
            for name in route.matches.headers.keys() {
                if let Ok(parsed) = name.parse() {
                    all.read.push((parsed, place.key("match").key("headers").key(name.clone())));
                }
            }
            read(&mut all.read, route.action.headers_read(), &place.key("action").key(route.action.key()));
        }
        for (filter, place) in all_filters(loaded) {
            all.filter(filter, &place);
        }
        all
    }

    fn key_by(&mut self, by: &KeyBy, place: &Place) {
        if let KeyBy::Header(name) = by {
            self.read.push((name.0.clone(), place.key("header")));
        }
    }

    fn filter(&mut self, filter: &FilterConfig, place: &Place) {
        read(&mut self.read, filter.headers_read(), place);
        self.written.extend(filter.headers_written());
    }
}

/// Adds names, each with the keys below `place` that lead to it.
fn read(all: &mut Vec<(HeaderName, Place)>, names: Vec<(HeaderName, Vec<String>)>, place: &Place) {
    let at = |keys: Vec<String>| keys.into_iter().fold(place.clone(), |place, key| place.key(key));
    all.extend(names.into_iter().map(|(name, keys)| (name, at(keys))));
}
