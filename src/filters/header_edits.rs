//! Edits of headers as they are configured, wherever that is.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::header::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::exchange::{Edit, Template, TextForm, TextScope};
use crate::notation::{Header, HeaderText, Mistakes, Place};

/// The headers that frame a message or belong to a connection, which an edit would break.
const FRAMING: &[&str] =
    &["content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "keep-alive", "host"];

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

/// The two edits that give a header a value: a fixed one, or one with values of the request.
type Pair = (fn(HeaderName, HeaderValue) -> Edit, fn(HeaderName, Template) -> Edit);

/// The values that texts may name, and the errors in them.
struct Scope<'s> {
    params: &'s dyn Fn() -> Vec<String>,
    mistakes: &'s mut Mistakes,
}

impl HeaderEdits {
    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }

    /// Compiles the edits, whose values may name `params` of the match, and notes errors.
    pub fn compile(&self, place: &Place, params: &dyn Fn() -> Vec<String>, mistakes: &mut Mistakes) -> Arc<[Edit]> {
        let removed = self.remove.iter().enumerate();
        let place_of = |i| place.key("remove").index(i);
        let names = removed.filter_map(|(i, h)| parse_editable_name(h.0.as_str(), &place_of(i), mistakes));
        let mut list: Vec<Edit> = names.map(Edit::Remove).collect();
        let mut scope = Scope { params, mistakes };
        list.extend(scope.pairs(&self.set, &place.key("set"), (Edit::Set, Edit::SetText)));
        list.extend(scope.pairs(&self.add, &place.key("add"), (Edit::Add, Edit::AddText)));
        list.into()
    }

    /// Returns the headers of a request that values name, each with the keys that lead to its name, behind `keys`.
    pub fn headers_read(&self, keys: &[&str]) -> Vec<(HeaderName, Vec<String>)> {
        let set = self.set.iter().map(|pair| ("set", pair));
        let read = |(way, (name, value)): (&str, (&String, &HeaderText))| {
            let way = [way, name.as_str()];
            let keys: Vec<String> = keys.iter().chain(way.iter()).map(|key| (*key).to_owned()).collect();
            let named = Template::headers_in(&String::from_utf8_lossy(value.0.as_bytes()));
            named.into_iter().map(move |name| (name, keys.clone()))
        };
        set.chain(self.add.iter().map(|pair| ("add", pair))).flat_map(read).collect()
    }
}

impl Scope<'_> {
    fn pairs(&mut self, edits: &BTreeMap<String, HeaderText>, place: &Place, (fixed, filled): Pair) -> Vec<Edit> {
        let pair = |(name, value): (&String, &HeaderText)| {
            let place = place.key(name.clone());
            let name = parse_editable_name(name, &place, self.mistakes)?;
            let scope = TextScope { form: TextForm::Header, errors: false, params: self.params };
            let text = String::from_utf8_lossy(value.0.as_bytes());
            let template = self.mistakes.take(&place, Template::new(&text, &scope))?;
            match template.as_text() {
                Some(text) => Some(fixed(name, HeaderValue::from_bytes(text.as_bytes()).ok()?)),
                None => Some(filled(name, template)),
            }
        };
        edits.iter().filter_map(pair).collect()
    }
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
