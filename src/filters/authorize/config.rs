//! The settings of `authorize`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::filters::claim_value::ClaimValue;
use crate::notation::{FollowedFile, MethodName, Networks, OneOrMany};

/// The rules for what a caller may do. All that are given have to hold.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Scopes of which the caller needs one.
    pub scopes: Vec<String>,
    /// Scopes of which the caller needs every one.
    pub all_scopes: Vec<String>,
    /// Groups of which the caller has to be in one.
    pub groups: Vec<String>,
    /// The consumers that are allowed.
    pub consumers: Vec<String>,
    /// Claims that the caller's token has to have, each with a value or with a list of which it has one. A dot leads
    /// into an object. Where the claim is a list, one of its elements has to be the value.
    pub claims: BTreeMap<String, OneOrMany<ClaimValue>>,
    /// Roles that the caller's token has to have.
    pub roles: Option<RoleRules>,
    /// The methods that are allowed; GET includes HEAD. Default: all.
    pub methods: Vec<MethodName>,
    /// The addresses that are allowed: networks, addresses, and files that list them. Default: all.
    pub allow_addresses: Vec<Networks>,
    /// The addresses that are not, even if they are in `allow_addresses`.
    pub deny_addresses: Vec<Networks>,
    /// The countries that are allowed or not.
    pub countries: Option<CountryConfig>,
    /// An expression (CEL) that has to be true; one that cannot be evaluated for a request counts as false.
    pub condition: Option<String>,
}

impl Config {
    /// Returns whether there is no rule.
    pub fn is_empty(&self) -> bool {
        !self.needs_identity()
            && self.methods.is_empty()
            && self.allow_addresses.is_empty()
            && self.deny_addresses.is_empty()
            && self.countries.is_none()
            && self.condition.is_none()
    }

    /// Returns whether a rule can only hold for a caller with an identity.
    pub fn needs_identity(&self) -> bool {
        !self.scopes.is_empty()
            || !self.all_scopes.is_empty()
            || !self.groups.is_empty()
            || !self.consumers.is_empty()
            || !self.claims.is_empty()
            || self.roles.is_some()
    }
}

/// Roles in a claim.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RoleRules {
    /// The claim that holds them, as a list or as a text with blanks; a dot leads into an object:
    /// `realm_access.roles`. Default `roles`.
    #[serde(default = "roles")]
    pub claim: String,
    /// Roles of which one is needed.
    #[serde(default)]
    pub any: Vec<String>,
    /// Roles of which every one is needed.
    #[serde(default)]
    pub all: Vec<String>,
}

fn roles() -> String {
    "roles".to_owned()
}

/// Rules by country.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CountryConfig {
    /// The database, a file in MaxMind's format such as GeoLite2-Country.mmdb. It is read again when it changes.
    pub database: FollowedFile,
    /// The countries that are allowed, by their codes (ISO 3166-1): `[DE, AT]`. Default: all.
    #[serde(default)]
    pub allow: Vec<String>,
    /// The countries that are not.
    #[serde(default)]
    pub deny: Vec<String>,
    /// Whether addresses whose country is not known are allowed, as private ones. Needed beside `allow` and `deny`.
    pub unknown: Option<UnknownCountry>,
}

/// What happens to addresses whose country is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UnknownCountry {
    /// They are allowed.
    Allow,
    /// They are rejected.
    Deny,
}
