//! `headers`: sets, adds and removes headers of requests and responses.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::header::{HeaderName, HeaderValue};
use pingora::http::ResponseHeader;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{CompileContext, HttpFilter, ResponseView, Stage};
use crate::exchange::{Edit, Reason, Template, TextForm, TextScope};
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
    /// Edits of the responses of targets, and of those that the route gives itself (`respond`, `redirect`, `files`).
    pub response: HeaderEdits,
    /// Edits of all responses, rejections (401, 404, 429) among them.
    pub always: HeaderEdits,
}

/// Edits, in the order remove, set, add.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HeaderEdits {
    /// Headers that are removed, every occurrence of them.
    pub remove: Vec<Header>,
    /// Headers that are set to a value, which replaces the present ones. It may name values of the request, as
    /// `{client}` or `{header.x-tenant|none}`; where nothing is left of it the header is removed.
    pub set: BTreeMap<String, HeaderText>,
    /// Headers that are added to the present ones.
    pub add: BTreeMap<String, HeaderText>,
}

impl Config {
    /// Returns whether a value names the consumer or a claim of the token.
    pub fn names_caller(&self) -> bool {
        let lists = [&self.request, &self.response, &self.always].into_iter();
        let mut values = lists.flat_map(|edits| edits.set.values().chain(edits.add.values()));
        values.any(|value| {
            let text = String::from_utf8_lossy(value.0.as_bytes());
            // With a default it is written for routes without a caller too.
            text.contains("{consumer}")
                || text
                    .split("{claim.")
                    .skip(1)
                    .any(|rest| rest.find(['}', '|']).is_some_and(|end| rest[end..].starts_with('}')))
        })
    }
}

/// The compiled filter.
#[derive(Debug)]
pub struct Filter {
    request: Arc<[Edit]>,
    response: Arc<[Edit]>,
    always: Arc<[Edit]>,
}

/// Parses the name of a header that a configuration may set.
pub fn parse_editable_name(text: &str, place: &Place, mistakes: &mut Mistakes) -> Option<HeaderName> {
    let parsed: Result<Header, String> = text.parse();
    let name = mistakes.take(place, parsed.map_err(|e| format!("expected {e}")))?.0;
    if name == "date" {
        mistakes.add(place, "date says when the response was made, and cannot be edited");
        return None;
    }
    if FRAMING.contains(&name.as_str()) {
        let hint = if name == "host" { "; `forward: {host: …}` sets it" } else { "" };
        mistakes.add(place, format!("{name} belongs to the message's framing and cannot be edited{hint}"));
        return None;
    }
    Some(name)
}

/// The two edits that give a header a value: a fixed one, or one with values of the request.
type Edits = (fn(HeaderName, HeaderValue) -> Edit, fn(HeaderName, Template) -> Edit);

/// Compiles the value of a header that may name values of the request.
fn compile_value(value: &HeaderText, place: &Place, context: &mut CompileContext<'_>) -> Option<Template> {
    let route = &context.route;
    let scope = TextScope { form: TextForm::Header, errors: false, params: &|| route.params() };
    let text = String::from_utf8_lossy(value.0.as_bytes());
    context.mistakes.take(place, Template::new(&text, &scope))
}

fn compile_pairs(
    edits: &BTreeMap<String, HeaderText>,
    place: &Place,
    (fixed, filled): Edits,
    context: &mut CompileContext<'_>,
) -> Vec<Edit> {
    let pair = |(name, value): (&String, &HeaderText)| {
        let place = place.key(name.clone());
        let name = parse_editable_name(name, &place, context.mistakes)?;
        let template = compile_value(value, &place, context)?;
        match template.as_text() {
            Some(text) => Some(fixed(name, HeaderValue::from_bytes(text.as_bytes()).ok()?)),
            None => Some(filled(name, template)),
        }
    };
    edits.iter().filter_map(pair).collect()
}

fn compile(edits: &HeaderEdits, place: &Place, context: &mut CompileContext<'_>) -> Arc<[Edit]> {
    let removed = edits.remove.iter().enumerate();
    let place_of = |i| place.key("remove").index(i);
    let names = removed.filter_map(|(i, h)| parse_editable_name(h.0.as_str(), &place_of(i), context.mistakes));
    let mut list: Vec<Edit> = names.map(Edit::Remove).collect();
    list.extend(compile_pairs(&edits.set, &place.key("set"), (Edit::Set, Edit::SetText), context));
    list.extend(compile_pairs(&edits.add, &place.key("add"), (Edit::Add, Edit::AddText), context));
    list.into()
}

/// Applies edits to the head of a response.
pub(super) fn apply(edits: &[Edit], response: &mut ResponseHeader, view: &ResponseView<'_>) {
    for edit in edits {
        // The names are valid and few, so nothing here can fail.
        match edit {
            Edit::Set(name, value) => _ = response.insert_header(name.clone(), value.clone()),
            Edit::Add(name, value) => _ = response.append_header(name.clone(), value.clone()),
            Edit::SetText(name, text) => match text.fill_header(&view.request_view()) {
                Some(value) => _ = response.insert_header(name.clone(), value),
                None => _ = response.remove_header(name),
            },
            Edit::AddText(name, text) => {
                let value = text.fill_header(&view.request_view());
                value.into_iter().for_each(|value| _ = response.append_header(name.clone(), value));
            }
            Edit::Remove(name) => _ = response.remove_header(name),
            _ => {}
        }
    }
}

impl HttpFilter for Filter {
    type Config = Config;
    type Memory = ();
    const STAGE: Stage = Stage::Edit;

    fn compile(config: &Config, context: &mut CompileContext<'_>) -> Option<Self> {
        Some(Self {
            request: compile(&config.request, &context.place.key("request"), context),
            response: compile(&config.response, &context.place.key("response"), context),
            always: compile(&config.always, &context.place.key("always"), context),
        })
    }

    fn headers_read(config: &Config) -> Vec<(HeaderName, Vec<String>)> {
        let lists = [("request", &config.request), ("response", &config.response), ("always", &config.always)];
        let pairs = lists.iter().flat_map(|(list, edits)| {
            let set = edits.set.iter().map(|pair| ("set", pair));
            set.chain(edits.add.iter().map(|pair| ("add", pair))).map(move |pair| (*list, pair))
        });
        let read = |(list, (way, (name, value))): (&str, (&str, (&String, &HeaderText)))| {
            let keys = vec![list.to_owned(), way.to_owned(), name.clone()];
            let named = Template::headers_in(&String::from_utf8_lossy(value.0.as_bytes()));
            named.into_iter().map(move |name| (name, keys.clone()))
        };
        pairs.flat_map(read).collect()
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
        // The route's own response is a response, and a rejection is none.
        let is_rejection = view.own && !matches!(view.exchange.reason, Reason::Responded | Reason::Redirected);
        if !is_rejection {
            apply(&self.response, response, view);
        }
        apply(&self.always, response, view);
    }
}
