//! `headers`: sets, adds and removes headers, both ways.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::header::{HeaderName, HeaderValue};
use pingora::http::ResponseHeader;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{CompileContext, HttpFilter, ResponseView, Stage};
use crate::exchange::Edit;
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

/// The compiled filter.
#[derive(Debug)]
pub struct Filter {
    request: Arc<[Edit]>,
    response: Arc<[Edit]>,
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

type Pairs<'e> = &'e BTreeMap<String, HeaderText>;

fn pairs(edits: Pairs<'_>, place: &Place, edit: fn(HeaderName, HeaderValue) -> Edit, mistakes: &mut Mistakes) -> Vec<Edit> {
    let pair = |(text, value): (&String, &HeaderText)| Some(edit(editable(text, &place.key(text.clone()), mistakes)?, value.0.clone()));
    edits.iter().filter_map(pair).collect()
}

fn compile(edits: &Edits, place: &Place, mistakes: &mut Mistakes) -> Arc<[Edit]> {
    let removed = edits.remove.iter().enumerate();
    let names = removed.filter_map(|(i, h)| editable(h.0.as_str(), &place.key("remove").index(i), mistakes));
    let mut list: Vec<Edit> = names.map(Edit::Remove).collect();
    list.extend(pairs(&edits.set, &place.key("set"), Edit::Set, mistakes));
    list.extend(pairs(&edits.add, &place.key("add"), Edit::Add, mistakes));
    list.into()
}

impl HttpFilter for Filter {
    type Config = Config;
    type Memory = ();
    const STAGE: Stage = Stage::Edit;

    fn compile(config: &Config, context: &mut CompileContext<'_>) -> Option<Self> {
        Some(Self {
            request: compile(&config.request, &context.place.key("request"), context.mistakes),
            response: compile(&config.response, &context.place.key("response"), context.mistakes),
        })
    }

    fn headers_written(config: &Config) -> Vec<HeaderName> {
        let Edits { remove, set, add } = &config.request;
        let edited = set.keys().chain(add.keys()).filter_map(|name| name.parse().ok());
        remove.iter().map(|name| name.0.clone()).chain(edited).collect()
    }

    fn edits(&self) -> Option<&Arc<[Edit]>> {
        Some(&self.request)
    }

    fn on_response(&self, response: &mut ResponseHeader, view: &ResponseView<'_>, (): &()) {
        if view.own {
            return;
        }
        for edit in self.response.iter() {
            // The names are valid and few, so that nothing here can fail.
            match edit {
                Edit::Set(name, value) => _ = response.insert_header(name.clone(), value.clone()),
                Edit::Add(name, value) => _ = response.append_header(name.clone(), value.clone()),
                Edit::Remove(name) => _ = response.remove_header(name),
                Edit::RemoveScheme(..) | Edit::RemoveCookie(_) | Edit::RemoveParameter(_) => {}
            }
        }
    }
}
