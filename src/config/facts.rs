//! The facts about a value that follow from its type: that it is a secret, that it names a file, that it is read only
//! at the start.
//!
//! Types put them into their schemas: a type of [`crate::notation`] by its format, a field by `x-read-at-start`. So
//! the facts about a new key follow from its type, and from nothing else.

use std::path::PathBuf;
use std::sync::LazyLock;

use aws_lc_rs::digest::{Context, SHA256};
use serde_json::Value as Json;

use super::tree::{Node, Value, is_true};
use crate::notation::{
    Fact, HeaderText, Place, PlaceStep, carries_credentials, fact_of, is_named_like_secret, normal_form,
};
use crate::tls::{MAX_MATERIAL, read_file};

/// The schema of a configuration.
pub static SCHEMA: LazyLock<Json> = LazyLock::new(super::schema);

/// The key of a field's schema that says at which event a new value takes effect.
const AT_START: &str = "x-read-at-start";

/// The depth of settings that are read at the start: `process.threads`.
const MAX_SETTING_DEPTH: usize = 4;

/// The type of a value: all forms that it may have at its place, of which a value has one.
///
/// What any of them says of a value is assumed, since the forms of an untagged enum cannot always be told apart: what
/// may be a secret is one.
#[derive(Clone, Debug)]
pub struct Type {
    /// The whole schema.
    schema: &'static Json,
    forms: Vec<&'static Json>,
    /// Whether it stands under the name of a header field whose values are credentials.
    credential: bool,
}

impl Type {
    /// Returns the type of a whole configuration.
    pub fn root() -> Self {
        Self::of(&SCHEMA)
    }

    /// Returns the type of a whole schema.
    pub fn of(schema: &'static Json) -> Self {
        let mut root = Self { schema, forms: Vec::new(), credential: false };
        root.add(schema);
        root
    }

    fn below(&self) -> Self {
        Self { schema: self.schema, forms: Vec::new(), credential: self.credential }
    }

    /// Returns the type of the value of `key`.
    pub fn key(&self, key: &str) -> Self {
        let mut below = self.below();
        for form in &self.forms {
            if let Some(schema) = form.get("properties").and_then(|properties| properties.get(key)) {
                below.add(schema);
            } else if let Some(schema) = form.get("additionalProperties").filter(|schema| schema.is_object()) {
                below.add(schema);
                // The author chose the key: where its value can be a text, it may be the name of a header field.
                below.credential |= carries_credentials(key) && below.forms.iter().any(|form| is_text(form));
                below.credential |= is_named_like_secret(key) && below.formats().any(|f| f == HeaderText::FORMAT);
            }
        }
        below
    }

    /// Returns the type of an element of the list.
    pub fn item(&self) -> Self {
        let mut below = self.below();
        self.forms.iter().filter_map(|form| form.get("items")).for_each(|schema| below.add(schema));
        below
    }

    /// Returns the type of the value at a place.
    pub fn at(&self, place: &Place) -> Self {
        place.0.iter().fold(self.clone(), |at, step| match step {
            PlaceStep::Key(key) | PlaceStep::Name(key) => at.key(key),
            PlaceStep::Index(_) => at.item(),
        })
    }

    fn add(&mut self, schema: &'static Json) {
        self.forms.push(schema);
        if let Some(reference) = schema.get("$ref").and_then(Json::as_str) {
            let name = reference.trim_start_matches("#/$defs/");
            self.add(self.schema.get("$defs").and_then(|all| all.get(name)).unwrap_or(&Json::Null));
        }
        for several in ["oneOf", "anyOf", "allOf"] {
            schema.get(several).and_then(Json::as_array).into_iter().flatten().for_each(|form| self.add(form));
        }
    }

    /// Returns whether a value of that text is a secret. One of an unknown type is.
    pub fn is_secret(&self, text: &str) -> bool {
        self.forms.is_empty() || self.credential || self.facts(text).any(|fact| fact == Fact::Secret)
    }

    /// Returns the facts that its formats give for a text.
    pub fn facts<'t>(&self, text: &'t str) -> impl Iterator<Item = Fact<'t>> {
        self.formats().filter_map(move |format| fact_of(format, text))
    }

    fn formats(&self) -> impl Iterator<Item = &'static str> {
        self.forms.iter().filter_map(|form| form.get("format").and_then(Json::as_str))
    }
}

fn is_text(form: &Json) -> bool {
    form.get("type").is_some_and(|kind| {
        kind == "string" || kind.as_array().is_some_and(|all| all.iter().any(|one| one == "string"))
    })
}

/// A setting that is read only at the start.
#[derive(Debug)]
pub struct AtStart {
    /// Its path: `process.threads`.
    pub path: String,
    /// The event at which a new value takes effect.
    pub when: &'static str,
    default: Option<String>,
    place: Place,
}

/// The settings that are read only at the start, from the schema.
static SETTINGS: LazyLock<Vec<AtStart>> = LazyLock::new(|| {
    let mut found = Vec::new();
    settings(&Type::root(), &Place::default(), &mut found);
    found
});

/// Returns the settings that are read only at the start.
pub fn at_start() -> &'static [AtStart] {
    &SETTINGS
}

/// Returns the event at which a new value of a key takes effect that a running gateway does not read again.
pub fn read_at_start(path: &str) -> Option<&'static str> {
    SETTINGS.iter().find(|setting| setting.path == path).map(|setting| setting.when)
}

fn settings(at: &Type, place: &Place, found: &mut Vec<AtStart>) {
    let keys =
        at.forms.iter().filter_map(|form| form.get("properties").and_then(Json::as_object)).flat_map(|all| all.keys());
    for key in keys.collect::<std::collections::BTreeSet<_>>() {
        let (below, place) = (at.key(key), place.key(key.as_str()));
        if let Some(when) = below.forms.iter().find_map(|form| form.get(AT_START).and_then(Json::as_str)) {
            let default = below.forms.iter().find_map(|form| form.get("default")).filter(|default| !default.is_null());
            let default = default.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
            found.push(AtStart { path: place.to_string(), when, default, place });
        } else if place.0.len() < MAX_SETTING_DEPTH {
            settings(&below, &place, found);
        }
    }
}

impl AtStart {
    /// Returns the value in a configuration, normalised so that equal settings are equal texts, and whether it is a
    /// secret.
    pub fn value(&self, tree: &Node, base: &std::path::Path) -> Option<(String, bool)> {
        let node = tree.at(&self.place);
        let text = node.map(|node| node.value.text()).or_else(|| self.default.clone())?;
        let at = Type::root().at(&self.place);
        let hidden = at.is_secret(&text) || node.is_some_and(|node| node.written.is_some());
        let path = at
            .facts(&text)
            .find_map(|fact| if let Fact::Path(path) | Fact::File(path) = fact { Some(base.join(path)) } else { None });
        let absolute = path.map(|path| std::path::absolute(&path).unwrap_or(path).display().to_string());
        let normal = absolute.or_else(|| at.formats().find_map(|format| normal_form(format, &text)));
        Some((normal.unwrap_or(text), hidden))
    }
}

/// The files and parameters that a configuration names.
#[derive(Debug, Default)]
pub struct NamedResources {
    /// Files that are read when it is loaded.
    pub files: Vec<PathBuf>,
    /// Query parameters whose values are credentials.
    pub secret_parameters: Vec<String>,
}

impl NamedResources {
    /// Returns the files and parameters that a tree names, in the order of the text, each once.
    pub fn of(tree: &Node) -> Self {
        let mut named = Self::default();
        named.add(tree, &Type::root());
        let mut seen = ahash::AHashSet::new();
        named.files.retain(|path| seen.insert(path.clone()));
        named.secret_parameters.sort_unstable();
        named.secret_parameters.dedup();
        named
    }

    fn add(&mut self, node: &Node, at: &Type) {
        if !at.forms.iter().any(|form| NAMING.contains(&address(form))) {
            return;
        }
        match &node.value {
            Value::Map(members) => members.iter().for_each(|(key, below)| self.add(below, &at.key(&key.text))),
            Value::List(items) if !items.is_empty() => {
                let below = at.item();
                items.iter().for_each(|item| self.add(item, &below));
            }
            Value::Text(text) => {
                for fact in at.facts(text) {
                    match fact {
                        Fact::File(path) => self.files.push(path.into()),
                        Fact::SecretParameter(name) => self.secret_parameters.push(name.to_owned()),
                        Fact::Secret | Fact::FollowedFile(_) | Fact::Path(_) => {}
                    }
                }
            }
            _ => {}
        }
    }
}

/// The parts of the schema, by their addresses, below which a type names something: in most of a large configuration
/// none does.
static NAMING: LazyLock<ahash::AHashSet<usize>> = LazyLock::new(|| {
    let (mut naming, mut known) = (ahash::AHashSet::new(), usize::MAX);
    // Repeated until nothing is added: a type may contain itself.
    while naming.len() != known {
        known = naming.len();
        names(&SCHEMA, &mut naming);
    }
    naming
});

fn address(schema: &Json) -> usize {
    std::ptr::from_ref(schema).addr()
}

/// Returns whether a type below names something, as far as that is known of what it refers to.
fn names(schema: &'static Json, naming: &mut ahash::AHashSet<usize>) -> bool {
    let names = match schema {
        Json::Object(members) => {
            let format = members.get("format").and_then(Json::as_str);
            let own = format
                .is_some_and(|format| matches!(fact_of(format, ""), Some(Fact::File(_) | Fact::SecretParameter(_))));
            let reference =
                members.get("$ref").and_then(Json::as_str).map(|reference| reference.trim_start_matches("#/$defs/"));
            let other = reference
                .and_then(|name| SCHEMA.get("$defs")?.get(name))
                .is_some_and(|other| naming.contains(&address(other)));
            members.values().fold(own || other, |found, below| names(below, naming) || found)
        }
        Json::Array(items) => items.iter().filter(|below| names(below, naming)).count() > 0,
        _ => false,
    };
    if names {
        naming.insert(address(schema));
    }
    names
}

/// Returns a digest of all values of a part of a configuration, with the contents of the files that it names: two
/// parts with the same digest are equal.
pub fn identity(tree: &Node, place: &Place, base: &std::path::Path) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    if let Some(node) = tree.at(place) {
        digest(node, &Type::root().at(place), base, &mut context);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

/// Adds a node to the digest. Every part has a tag and its length before it, so that no two trees have the same
/// bytes.
fn digest(node: &Node, at: &Type, base: &std::path::Path, context: &mut Context) {
    let mut part = |tag: u8, bytes: &[u8]| {
        context.update(&[tag]);
        context.update(&(bytes.len() as u64).to_be_bytes());
        context.update(bytes);
    };
    match &node.value {
        Value::Null => part(b'n', &[]),
        Value::Bool(word) => part(b'b', &[u8::from(is_true(word))]),
        Value::Integer(value) => part(b'i', &value.to_be_bytes()),
        Value::Float(value) => part(b'f', &value.number.to_bits().to_be_bytes()),
        Value::Text(text) => {
            part(b't', text.as_bytes());
            let files = at
                .facts(text)
                .filter_map(|fact| if let Fact::File(path) = fact { Some(base.join(path)) } else { None });
            files.for_each(|path| part(b'c', &read_file(&path, MAX_MATERIAL).unwrap_or_default()));
        }
        Value::List(items) => {
            part(b'l', &(items.len() as u64).to_be_bytes());
            let below = at.item();
            items.iter().for_each(|item| digest(item, &below, base, context));
        }
        Value::Map(members) => {
            part(b'm', &(members.len() as u64).to_be_bytes());
            let mut members: Vec<_> = members.iter().map(|(key, node)| (key.text.as_str(), node)).collect();
            members.sort_unstable_by_key(|(key, _)| *key);
            for (key, below) in members {
                context.update(&(key.len() as u64).to_be_bytes());
                context.update(key.as_bytes());
                digest(below, &at.key(key), base, context);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tree::{MapKey, Spot, parse};

    fn at(path: &str) -> Type {
        path.split('.')
            .fold(Type::root(), |at, step| if step.parse::<usize>().is_ok() { at.item() } else { at.key(step) })
    }

    /// Every type that keeps something to itself, wherever a configuration has it.
    #[test]
    fn facts_are_those_of_the_types() {
        for secret in [
            "admin.token",
            "consumers.ada.credentials.0.api_key.value",
            // Where the digest belongs, the key itself may stand.
            "consumers.ada.credentials.0.api_key.sha256",
            "upstreams.u.sticky.cookie.secret",
            "routes.0.filters.0.jwt.secret",
            "routes.0.filters.0.headers.request.set.Authorization",
            "routes.0.match.headers.x-api-key",
            "routes.0.match.headers.Cookie.regex",
            "upstreams.u.health.active.headers.authorization",
            "routes.0.action.respond.headers.set-cookie",
            "routes.0.filters.0.headers.request.set.x-shared-secret",
            "there.is.no.such.key",
        ] {
            assert!(at(secret).is_secret("x"), "{secret}");
        }
        for plain in [
            "admin.address",
            "routes.0.filters.0.jwt.issuer",
            "routes.0.filters.0.headers.request.set.x-a",
            "routes.0.match.headers.x-a",
            "upstreams.cookie.balance",
            "routes.0.name",
        ] {
            assert!(!at(plain).is_secret("x"), "{plain}");
        }
        for file in [
            "listeners.0.tls.certificates.0.cert",
            "listeners.0.tls.certificates.0.key",
            "upstreams.u.tls.ca",
            "routes.0.filters.0.jwt.ca",
        ] {
            assert_eq!(at(file).facts("x").collect::<Vec<_>>(), [Fact::File("x")], "{file}");
        }
        let jwks = at("routes.0.filters.0.jwt.jwks");
        assert_eq!(jwks.facts("file:keys.json").collect::<Vec<_>>(), [Fact::FollowedFile("keys.json")]);
        assert!(!jwks.is_secret("https://id.test/keys"));
        assert!(jwks.is_secret("https://id.test/keys?key=x") && jwks.is_secret("https://u:p@id.test/keys"));
        assert_eq!(at("upstreams.u.discovery.file").facts("x").collect::<Vec<_>>(), [Fact::FollowedFile("x")]);
        assert_eq!(at("routes.0.filters.0.api_key.query").facts("x").collect::<Vec<_>>(), [Fact::SecretParameter("x")]);
    }

    #[test]
    fn settings_of_the_start_have_their_defaults() {
        let all: Vec<_> =
            at_start().iter().map(|setting| (setting.path.as_str(), setting.default.as_deref())).collect();
        assert_eq!(
            all,
            [
                ("admin.address", Some("127.0.0.1:9901")),
                ("process.threads", Some("0")),
                ("process.upgrade_socket", None)
            ]
        );
        assert_eq!(read_at_start("process.drain_time"), None);
    }

    /// The trees of all secrets that a type can have, each under its path.
    fn secrets(at: &Type, depth: usize, wrap: &dyn Fn(Node) -> Node, found: &mut Vec<Node>) {
        let node = |value| Node::new(Default::default(), value);
        if at.formats().any(|format| fact_of(format, "") == Some(Fact::Secret)) {
            found.push(wrap(node(Value::Text("s3cret".to_owned()))));
        }
        if depth == 0 {
            return;
        }
        let mut keys: Vec<String> = Vec::new();
        for form in &at.forms {
            keys.extend(
                form.get("properties").and_then(Json::as_object).into_iter().flatten().map(|(key, _)| key.clone()),
            );
            keys.extend(
                form.get("additionalProperties").filter(|schema| schema.is_object()).map(|_| "x-any".to_owned()),
            );
        }
        for key in keys {
            let member = |below| node(Value::Map(vec![(MapKey { spot: Spot::default(), text: key.clone() }, below)]));
            secrets(&at.key(&key), depth - 1, &|below| wrap(member(below)), found);
        }
        if at.forms.iter().any(|form| form.get("items").is_some()) {
            secrets(&at.item(), depth - 1, &|below| wrap(node(Value::List(vec![below]))), found);
        }
    }

    #[test]
    fn every_secret_of_every_type_is_hidden() {
        let mut found = Vec::new();
        secrets(&Type::root(), 12, &|node| node, &mut found);
        assert!(found.len() >= 4, "{}", found.len());
        for tree in found {
            let text = format!("{:?}", crate::config::Flat::of(&tree));
            assert!(text.contains("Hidden") && !text.contains("s3cret"), "{text}");
        }
    }

    /// A key that comes later is hidden for its type alone, also where the type is within others.
    #[test]
    fn a_new_key_brings_its_facts() {
        #[derive(schemars::JsonSchema)]
        #[schemars(rename_all = "snake_case")]
        #[allow(dead_code, reason = "only its schema counts")]
        enum Later {
            Hmac { secret: crate::notation::Secret, name: String },
            Either(Vec<Self>),
            Keys(crate::notation::OneOrMany<crate::notation::Secret>),
        }
        let later = Type::of(Box::leak(Box::new(schemars::schema_for!(Later).to_value())));
        assert!(later.key("hmac").key("secret").is_secret("x") && !later.key("hmac").key("name").is_secret("x"));
        assert!(later.key("keys").is_secret("x") && later.key("keys").item().is_secret("x"));
        assert!(later.key("either").item().key("hmac").key("secret").is_secret("x"));
    }

    /// No key of such a name may take a bare text.
    #[test]
    fn no_key_that_sounds_like_a_secret_or_a_file_is_a_bare_text() {
        fn look(schema: &Json, wrong: &mut Vec<String>) {
            for (key, schema) in schema.get("properties").and_then(Json::as_object).into_iter().flatten() {
                let is_bare = is_text(schema) && schema.get("format").is_none() && schema.get("enum").is_none();
                let words = [
                    "secret",
                    "password",
                    "passphrase",
                    "token",
                    "private_key",
                    "cert",
                    "ca",
                    "file",
                    "key_file",
                    "socket",
                ];
                if is_bare && words.contains(&key.as_str()) {
                    wrong.push(key.clone());
                }
            }
            match schema {
                Json::Object(members) => members.values().for_each(|below| look(below, wrong)),
                Json::Array(items) => items.iter().for_each(|below| look(below, wrong)),
                _ => {}
            }
        }
        let mut wrong = Vec::new();
        look(&SCHEMA, &mut wrong);
        assert!(wrong.is_empty(), "give these keys a type of notation: {wrong:?}");
    }

    #[test]
    fn an_identity_is_that_of_values_and_contents() {
        let folder = tempfile::tempdir().expect("a folder");
        let of = |text: &str| {
            let tree = parse(text, 0).expect("YAML");
            identity(&tree, &Place::default().key("upstreams").key("u").key("tls"), folder.path())
        };
        std::fs::write(folder.path().join("a.pem"), "one").expect("written");
        let one = of("upstreams: {u: {tls: {ca: a.pem, name: x}}}");
        assert_eq!(one, of("upstreams: {u: {targets: [], tls: {name: 'x', ca: a.pem}}}"));
        assert_ne!(one, of("upstreams: {u: {tls: {ca: a.pem, name: y}}}"));
        std::fs::write(folder.path().join("a.pem"), "two").expect("written");
        assert_ne!(one, of("upstreams: {u: {tls: {ca: a.pem, name: x}}}"));
    }
}
