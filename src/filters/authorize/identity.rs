//! The rules by the caller's identity.

use http::header::HeaderValue;
use serde_json::Value as Json;

use super::Denial;
use super::config::{Config, RoleRules};
use crate::exchange::{Identity, claim};
use crate::filters::CompileContext;
use crate::filters::claim_value::ClaimValue;
use crate::notation::{OneOrMany, Place, nearest};

/// The rules by the caller's identity.
#[derive(Debug)]
pub struct IdentityRules {
    needed: bool,
    scopes: Vec<String>,
    all_scopes: Vec<String>,
    /// The challenge that names the scopes.
    challenge: HeaderValue,
    groups: Vec<String>,
    consumers: Vec<String>,
    claims: Vec<(String, OneOrMany<ClaimValue>)>,
    roles: Option<RoleRules>,
}

/// Returns whether a text is a scope (RFC 6749, section 3.3).
fn is_scope(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'!' | b'#'..=b'[' | b']'..=b'~'))
}

impl IdentityRules {
    /// Compiles the rules; returns `None` when errors were noted.
    pub fn compile(config: &Config, context: &mut CompileContext<'_>) -> Option<Self> {
        let place = context.place.clone();
        for (key, scopes) in [("scopes", &config.scopes), ("all_scopes", &config.all_scopes)] {
            for (index, _) in scopes.iter().enumerate().filter(|(_, scope)| !is_scope(scope)) {
                let text =
                    "expected one scope, without blanks, quotation marks and backslashes (RFC 6749, section 3.3)";
                context.mistakes.add(&place.key(key).index(index), text);
            }
        }
        for (index, name) in config.consumers.iter().enumerate() {
            // The file may have any.
            let known = context.consumers.file().is_some() || context.is_partial;
            if !known && context.consumers.by_name(name).is_none() {
                let near = nearest(name, context.consumers.configured().names().map(|name| &**name));
                let text = format!("there is no consumer \"{name}\"{near}");
                context.mistakes.add(&place.key("consumers").index(index), text);
            }
        }
        if let Some(roles) = config.roles.as_ref().filter(|roles| roles.any.is_empty() && roles.all.is_empty()) {
            context.mistakes.add(&place.key("roles"), format!("expected any or all: roles in {}", roles.claim));
        }
        for (name, values) in &config.claims {
            check_values(values, &place.key("claims").key(name.clone()), context);
        }
        let named: Vec<&str> = config.all_scopes.iter().chain(&config.scopes).map(String::as_str).collect();
        let challenge =
            format!("Bearer realm=\"portcullis\", error=\"insufficient_scope\", scope=\"{}\"", named.join(" "));
        Some(Self {
            needed: config.needs_identity(),
            scopes: config.scopes.clone(),
            all_scopes: config.all_scopes.clone(),
            challenge: HeaderValue::try_from(challenge).ok()?,
            groups: config.groups.clone(),
            consumers: config.consumers.clone(),
            claims: config.claims.iter().map(|(name, values)| (name.clone(), values.clone())).collect(),
            roles: config.roles.clone(),
        })
    }

    /// Decides on a caller.
    pub fn decide(&self, identity: Option<&Identity>) -> Result<(), Denial> {
        if !self.needed {
            return Ok(());
        }
        let Some(identity) = identity else { return Err(Denial::Anonymous) };
        let missing = self.all_scopes.iter().find(|scope| !identity.has_scope(scope));
        if let Some(missing) = missing {
            return Err(self.scopes(format!("the scope {missing} is missing")));
        }
        if !self.scopes.is_empty() && !self.scopes.iter().any(|scope| identity.has_scope(scope)) {
            return Err(self.scopes(format!("none of the scopes {} is there", self.scopes.join(", "))));
        }
        let is_in = |group: &String| identity.groups().iter().any(|known| **known == **group);
        if !self.groups.is_empty() && !self.groups.iter().any(is_in) {
            return Err(Denial::Other(format!("the caller is in none of the groups {}", self.groups.join(", "))));
        }
        // A subject that no consumer has may have the name of one.
        if !self.consumers.is_empty()
            && !identity.consumer_name().is_some_and(|name| self.consumers.iter().any(|known| known == name))
        {
            return Err(Denial::Other(format!("{} is none of the consumers that are allowed", identity.name)));
        }
        for (name, values) in &self.claims {
            if !find(identity, name).is_some_and(|claim| values.as_slice().iter().any(|value| value.is_in(claim))) {
                return Err(Denial::Other(format!("the claim {name} does not have a value that is allowed")));
            }
        }
        let Some(roles) = &self.roles else { return Ok(()) };
        let has = |role: &String| find(identity, &roles.claim).is_some_and(|claim| has_word(claim, role));
        if let Some(missing) = roles.all.iter().find(|role| !has(role)) {
            return Err(Denial::Other(format!("the role {missing} is missing")));
        }
        if !roles.any.is_empty() && !roles.any.iter().any(has) {
            return Err(Denial::Other(format!("none of the roles {} is there", roles.any.join(", "))));
        }
        Ok(())
    }

    fn scopes(&self, why: String) -> Denial {
        Denial::Scopes(why, Box::new(self.challenge.clone()))
    }
}

fn check_values(values: &OneOrMany<ClaimValue>, place: &Place, context: &mut CompileContext<'_>) {
    if values.as_slice().is_empty() {
        context.mistakes.add(place, "expected a value, or a list of values of which the claim has one");
    }
}

fn find<'i>(identity: &'i Identity, name: &str) -> Option<&'i Json> {
    claim(identity.claims.as_deref()?, name)
}

/// Returns whether a list of texts, or a text with blanks between words, has that word.
fn has_word(claim: &Json, word: &str) -> bool {
    match claim {
        Json::Array(items) => items.iter().any(|item| item.as_str() == Some(word)),
        Json::String(text) => text.split(' ').any(|known| known == word),
        _ => false,
    }
}
