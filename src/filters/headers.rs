//! `headers`: sets, adds and removes headers, both ways.

use std::collections::BTreeMap;

use http::header::{HeaderName, HeaderValue};
use pingora::http::{RequestHeader, ResponseHeader};
use schemars::JsonSchema;
use serde::Deserialize;

use super::CompileContext;
use crate::notation::{Header, HeaderText, Mistakes, Place};

/// Headers that frame a message or belong to a connection: edited, they would break it.
const FRAMING: &[&str] = &["content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "keep-alive", "host"];

/// What is done to headers.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// On the way to the target.
    pub request: Edits,
    /// On the way to the client.
    pub response: Edits,
}

impl Config {
    /// The headers of requests that it edits.
    pub fn of_requests(&self) -> Vec<HeaderName> {
        let Edits { remove, set, add } = &self.request;
        let edited = set.keys().chain(add.keys()).filter_map(|name| name.parse().ok());
        remove.iter().map(|name| name.0.clone()).chain(edited).collect()
    }
}

/// Edits, in the order remove, set, add.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Edits {
    /// Removed, however often they are there.
    pub remove: Vec<Header>,
    /// Set to this value, replacing what was there.
    pub set: BTreeMap<String, HeaderText>,
    /// Added to what was there.
    pub add: BTreeMap<String, HeaderText>,
}

#[derive(Debug)]
struct Compiled {
    remove: Vec<HeaderName>,
    set: Vec<(HeaderName, HeaderValue)>,
    add: Vec<(HeaderName, HeaderValue)>,
}

/// The filter at work.
#[derive(Debug)]
pub struct Filter {
    request: Compiled,
    response: Compiled,
}

/// A header that a configuration may set.
pub fn editable(text: &str, place: &Place, mistakes: &mut Mistakes) -> Option<HeaderName> {
    let parsed: Result<Header, String> = text.parse();
    let name = mistakes.take(place, parsed.map_err(|e| format!("expected {e}")))?.0;
    if FRAMING.contains(&name.as_str()) {
        let hint = if name == "host" { "; `forward: {host: …}` sets it" } else { "" };
        mistakes.add(place, format!("{name} belongs to the message's framing and cannot be edited{hint}"));
        return None;
    }
    Some(name)
}

fn pairs(edits: &BTreeMap<String, HeaderText>, place: &Place, mistakes: &mut Mistakes) -> Vec<(HeaderName, HeaderValue)> {
    let pair = |(text, value): (&String, &HeaderText)| Some((editable(text, &place.key(text.clone()), mistakes)?, value.0.clone()));
    edits.iter().filter_map(pair).collect()
}

fn compile(edits: &Edits, place: &Place, mistakes: &mut Mistakes) -> Compiled {
    let removed = edits.remove.iter().enumerate();
    let remove = removed.filter_map(|(i, h)| editable(h.0.as_str(), &place.key("remove").index(i), mistakes)).collect();
    Compiled { remove, set: pairs(&edits.set, &place.key("set"), mistakes), add: pairs(&edits.add, &place.key("add"), mistakes) }
}

impl Filter {
    /// Compiles it.
    pub fn compile(config: &Config, context: &mut CompileContext<'_>) -> Option<Self> {
        Some(Self {
            request: compile(&config.request, &context.place.key("request"), context.mistakes),
            response: compile(&config.response, &context.place.key("response"), context.mistakes),
        })
    }

    /// Edits the request. The names are valid and few, so nothing here can fail.
    pub fn on_request(&self, request: &mut RequestHeader) {
        for name in &self.request.remove {
            request.remove_header(name);
        }
        for (name, value) in &self.request.set {
            let _ = request.insert_header(name.clone(), value.clone());
        }
        for (name, value) in &self.request.add {
            let _ = request.append_header(name.clone(), value.clone());
        }
    }

    /// Edits the answer.
    pub fn on_response(&self, response: &mut ResponseHeader) {
        for name in &self.response.remove {
            response.remove_header(name);
        }
        for (name, value) in &self.response.set {
            let _ = response.insert_header(name.clone(), value.clone());
        }
        for (name, value) in &self.response.add {
            let _ = response.append_header(name.clone(), value.clone());
        }
    }
}
