//! `headers`: sets, adds and removes headers of requests and responses.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::header::{HeaderName, HeaderValue};
use pingora::http::ResponseHeader;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{CompileContext, HttpFilter, ResponseView, Stage};
use crate::exchange::Edit;
use crate::notation::{Header, HeaderText, Mistakes, Place};

/// The headers that frame a message or belong to a connection, which an edit would break.
const FRAMING: &[&str] =
    &["content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "keep-alive", "host"];

/// The edits of headers.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Edits of what the target is sent.
    pub request: HeaderEdits,
    /// Edits of what the client is sent.
    pub response: HeaderEdits,
}

/// Edits, in the order remove, set, add.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HeaderEdits {
    /// Headers that are removed, every occurrence of them.
    pub remove: Vec<Header>,
    /// Headers that are set to a value, which replaces the present ones.
    pub set: BTreeMap<String, HeaderText>,
    /// Headers that are added to the present ones.
    pub add: BTreeMap<String, HeaderText>,
}

/// The compiled filter.
#[derive(Debug)]
pub struct Filter {
    request: Arc<[Edit]>,
    response: Arc<[Edit]>,
}

/// Parses the name of a header that a configuration may set.
pub fn parse_editable_name(text: &str, place: &Place, mistakes: &mut Mistakes) -> Option<HeaderName> {
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

fn compile_pairs(
    edits: Pairs<'_>,
    place: &Place,
    edit: fn(HeaderName, HeaderValue) -> Edit,
    mistakes: &mut Mistakes,
) -> Vec<Edit> {
    let pair = |(text, value): (&String, &HeaderText)| {
        Some(edit(parse_editable_name(text, &place.key(text.clone()), mistakes)?, value.0.clone()))
    };
    edits.iter().filter_map(pair).collect()
}

fn compile(edits: &HeaderEdits, place: &Place, mistakes: &mut Mistakes) -> Arc<[Edit]> {
    let removed = edits.remove.iter().enumerate();
    let names = removed.filter_map(|(i, h)| parse_editable_name(h.0.as_str(), &place.key("remove").index(i), mistakes));
    let mut list: Vec<Edit> = names.map(Edit::Remove).collect();
    list.extend(compile_pairs(&edits.set, &place.key("set"), Edit::Set, mistakes));
    list.extend(compile_pairs(&edits.add, &place.key("add"), Edit::Add, mistakes));
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
        let HeaderEdits { remove, set, add } = &config.request;
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
            // The names are valid and few, so nothing here can fail.
            match edit {
                Edit::Set(name, value) => _ = response.insert_header(name.clone(), value.clone()),
                Edit::Add(name, value) => _ = response.append_header(name.clone(), value.clone()),
                Edit::Remove(name) => _ = response.remove_header(name),
                Edit::RemoveScheme(..) | Edit::RemoveCookie(_) | Edit::RemoveParameter(_) => {}
            }
        }
    }
}
