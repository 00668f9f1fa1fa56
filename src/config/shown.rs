//! What operators see of a configuration: its values as they are written, without secrets.

use std::sync::{Arc, LazyLock};

use serde_json::{Map, Value as Json};

use super::Flat;
use super::facts::Type;
use super::redact::with_defaults;
use super::tree::{Node, Value, is_true};

/// What operators see of a configuration.
#[derive(Debug)]
pub struct Shown {
    /// Every value by its path, for comparisons.
    pub flat: Flat,
    /// The configuration as JSON, compressed: it is seldom read.
    pub(super) document: Vec<u8>,
}

/// What operators see of a configuration, computed on first use.
pub type ShownLater = Arc<LazyLock<Shown, Box<dyn FnOnce() -> Shown + Send>>>;

/// The text that stands for a secret.
const SECRET: &str = "(secret)";

impl Shown {
    /// Returns the configuration as it is written, with all its files as one, and with `(secret)` for each secret.
    pub fn document(&self) -> Json {
        let text = zstd::decode_all(self.document.as_slice()).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }
}

/// Returns a tree as compressed JSON without secrets.
pub(super) fn packed(tree: &Node) -> Vec<u8> {
    let text = redacted(tree, &Type::root()).to_string();
    zstd::encode_all(text.as_bytes(), 1).unwrap_or_default()
}

/// Returns a value without secrets. What came by a reference is shown as the reference.
fn redacted(node: &Node, at: &Type) -> Json {
    match &node.value {
        Value::Map(members) => {
            let members = members.iter().map(|(key, below)| (key.text.clone(), redacted(below, &at.key(&key.text))));
            Json::Object(members.collect::<Map<_, _>>())
        }
        Value::List(items) => {
            let item = at.item();
            items.iter().map(|below| redacted(below, &item)).collect()
        }
        Value::Null => Json::Null,
        scalar => {
            let text = scalar.text();
            match (&node.written, scalar) {
                (Some(written), _) if !at.is_secret(&text) && !has_secret_default(written, at) => {
                    Json::from(&**written)
                }
                // The default of a reference may be the secret.
                (Some(written), _) if is_reference(written) => {
                    Json::from(with_defaults(written, |name, _| format!("${{env:{name}:-{SECRET}}}")))
                }
                // Beside a reference there may be a part of the secret itself.
                (Some(_), _) => Json::from(SECRET),
                (None, _) if at.is_secret(&text) => Json::from(SECRET),
                (None, Value::Bool(word)) => Json::from(is_true(word)),
                (None, Value::Integer(value)) => Json::from(*value),
                (None, Value::Float(value)) => Json::from(value.number),
                (None, _) => Json::from(text),
            }
        }
    }
}

/// Returns whether a text is one reference and nothing else.
fn is_reference(written: &str) -> bool {
    written.strip_prefix("${").and_then(|rest| rest.find('}')).is_some_and(|end| end + 3 == written.len())
}

/// Returns whether a text with the defaults of its references is a secret, even where the variables are set.
fn has_secret_default(written: &str, at: &Type) -> bool {
    written.contains(":-") && at.is_secret(&with_defaults(written, |_, default| default.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_that_are_secrets_are_not_shown() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("secret"), "zq9x7-from-a-file").expect("written");
        let text = r#"
routes:
  - name: "${env:SURELY_NOT_SET:-a}"
    filters:
      - jwt: {secret: "${env:SURELY_NOT_SET:-zq9x7-zq9x7-zq9x7-zq9x7-zq9x7-zq9x7}"}
    action: {respond: {status: "${env:SURELY_NOT_SET:-200}"}}
  - name: b
    filters: [{jwt: {jwks: "https://${env:PATH:-u:zq9x7@}x.test/keys"}}]
    action: {respond: {body: "${env:SURELY_NOT_SET:-text}"}}
admin: {token: "${file:secret}"}
consumers: {app: {credentials: [api_key: {value: "${env:SURELY_NOT_SET:-zq9x7}-behind"}]}}
"#;
        let loaded = super::super::load_text(text, "c.yaml", folder.path()).expect("a configuration");
        let document = loaded.shown_later().document();
        let routes = &document["routes"];
        assert_eq!(routes[0]["filters"][0]["jwt"]["secret"], "${env:SURELY_NOT_SET:-(secret)}");
        assert_eq!(routes[1]["filters"][0]["jwt"]["jwks"], SECRET);
        assert_eq!(document["admin"]["token"], "${file:secret}");
        assert_eq!(document["consumers"]["app"]["credentials"][0]["api_key"]["value"], SECRET);
        assert!(!document.to_string().contains("zq9x7"), "{document}");
        // What is no secret is shown as it is written.
        assert_eq!(routes[0]["name"], "${env:SURELY_NOT_SET:-a}");
        assert_eq!(routes[0]["action"]["respond"]["status"], "${env:SURELY_NOT_SET:-200}");
        assert_eq!(routes[1]["action"]["respond"]["body"], "${env:SURELY_NOT_SET:-text}");
    }

    #[test]
    fn secrets_and_the_values_of_references_are_not_shown() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("host"), "internal-name").expect("written");
        let text = "routes: [{name: a, match: {host: \"${file:host}\"}, action: {respond: {status: 200}}}]
admin: {token: literal-token}
upstreams: {u: {targets: [\"${file:host}:80\"]}}";
        let loaded = super::super::load_text(text, "c.yaml", folder.path()).expect("a configuration");
        let document = loaded.shown_later().document();
        assert_eq!(document["routes"][0]["match"]["host"], "${file:host}");
        assert_eq!(document["routes"][0]["action"]["respond"]["status"], 200);
        assert_eq!(document["admin"]["token"], SECRET);
        assert_eq!(document["upstreams"]["u"]["targets"][0], "${file:host}:80");
        assert!(!document.to_string().contains("internal-name"));
    }
}
