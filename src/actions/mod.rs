//! What ends a request, a file per action.
//!
//! An action is its file and one row in [`actions!`]. It says what is to be done with a request; the edge does it.

mod forward;
mod redirect;
mod respond;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use pingora::http::RequestHeader;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::exchange::{Exchange, Reason, Rejection};
use crate::notation::{Mistakes, Place, Template};
use crate::rules::routing::{PathPattern, RouteEntry};
use crate::upstreams::Upstream;

pub use forward::{Forward, Host, Mirror, PathEdit};

/// The table of actions: variant, key in the YAML, module.
macro_rules! actions {
    ($($(#[$doc:meta])* $variant:ident = $key:literal: $module:ident;)*) => {
        /// An action as it is configured.
        #[derive(Clone, Debug, Deserialize, JsonSchema)]
        #[schemars(description = "What ends a request.")]
        pub enum ActionConfig {
            $($(#[$doc])* #[serde(rename = $key)] $variant($module::Config),)*
        }

        /// An action that is compiled.
        #[derive(Debug)]
        pub enum Action {
            $($(#[$doc])* $variant($module::$variant),)*
        }

        impl ActionConfig {
            /// Compiles it. Where errors were noted, what it returns serves nobody.
            pub fn compile(&self, context: &mut ActionContext<'_>) -> Action {
                let place = context.place.clone();
                context.place = place.key($crate::actions::key_of(self));
                let action = match self { $(Self::$variant(config) => Action::$variant(HttpAction::compile(config, context)),)* };
                context.place = place;
                action
            }

            /// Returns the headers of a request that it reads, each with the keys that lead to its name.
            pub fn headers_read(&self) -> Vec<(HeaderName, Vec<String>)> {
                match self { $(Self::$variant(config) => <$module::$variant as HttpAction>::headers_read(config),)* }
            }
        }

        impl Action {
            /// Returns what is to be done with a request.
            pub fn on_request<'a>(&'a self, matched: &Matched<'_>) -> Outcome<'a> {
                match self { $(Self::$variant(action) => action.on_request(matched),)* }
            }

            /// Returns lines that describe it to an operator.
            pub fn describe(&self) -> Vec<String> {
                match self { $(Self::$variant(action) => action.describe(),)* }
            }
        }

        /// Returns the key of an action in the YAML.
        fn key_of(config: &ActionConfig) -> &'static str {
            match config { $(ActionConfig::$variant(_) => $key,)* }
        }
    };
}

actions! {
    /// It is sent to an upstream.
    Forward = "forward": forward;
    /// The client is sent elsewhere.
    Redirect = "redirect": redirect;
    /// A fixed response.
    Respond = "respond": respond;
}

impl Action {
    /// Returns how it forwards, if it does.
    pub fn forward(&self) -> Option<&Forward> {
        match self {
            Self::Forward(forward) => Some(forward),
            _ => None,
        }
    }
}

impl ActionConfig {
    /// Returns its key in the YAML.
    pub fn key(&self) -> &'static str {
        key_of(self)
    }
}

/// An action.
trait HttpAction: Sized {
    /// Its settings.
    type Config;

    /// Compiles it, and notes errors.
    fn compile(config: &Self::Config, context: &mut ActionContext<'_>) -> Self;

    /// Returns the headers of a request that it reads, each with the keys that lead to its name.
    fn headers_read(_config: &Self::Config) -> Vec<(HeaderName, Vec<String>)> {
        Vec::new()
    }

    /// Returns what is to be done with a request.
    fn on_request(&self, matched: &Matched<'_>) -> Outcome<'_>;

    /// Returns lines that describe it to an operator.
    fn describe(&self) -> Vec<String>;
}

/// What is to be done with a request.
#[derive(Debug)]
pub enum Outcome<'a> {
    /// It is forwarded.
    Forward(&'a Forward),
    /// This is the response.
    Respond(OwnResponse<'a>),
    /// It is rejected.
    Reject(Box<Rejection>),
}

/// A response of the gateway's own.
#[derive(Debug)]
pub struct OwnResponse<'a> {
    /// Why.
    pub reason: Reason,
    /// The status.
    pub status: u16,
    /// The headers, without those of the framing.
    pub headers: Cow<'a, [(HeaderName, HeaderValue)]>,
    /// The body.
    pub body: Bytes,
}

/// A request that a route has taken.
#[derive(Debug)]
pub struct Matched<'m> {
    /// Its head.
    pub request: &'m RequestHeader,
    /// What is known of it.
    pub exchange: &'m Exchange,
    /// The pattern of the path that took it.
    pub pattern: &'m PathPattern,
}

impl Matched<'_> {
    /// Returns the parameters of the path.
    pub fn params(&self) -> Vec<(&str, &str)> {
        self.pattern.params(self.request.uri.path()).collect()
    }
}

/// What an action is compiled with, and where it notes errors.
pub struct ActionContext<'c> {
    /// Its place in the configuration.
    pub place: Place,
    /// The router's entries of its route.
    pub entries: &'c [RouteEntry],
    /// The upstreams, by name.
    pub upstreams: &'c BTreeMap<String, Arc<Upstream>>,
    /// Whether there is an upstream of that name, or there may be, that was not compiled because of errors of its own.
    pub is_unread: &'c dyn Fn(&str) -> bool,
    /// Splits by a key so far.
    pub keyed_splits: &'c mut usize,
    /// Errors so far.
    pub mistakes: &'c mut Mistakes,
    /// What is no error and most likely not meant.
    pub warnings: &'c mut Mistakes,
}

impl ActionContext<'_> {
    /// Compiles a text in which these names may stand in braces.
    fn template(&mut self, text: &str, known: &[&str], key: &'static str) -> Template {
        let compiled = Template::new(text, known);
        self.mistakes.take(&self.place.key(key), compiled).unwrap_or_else(Template::empty)
    }
}

/// Returns the names of parameters that every path of a route has.
fn params(entries: &[RouteEntry]) -> Vec<&str> {
    let named = |entry: &RouteEntry, name: &str| entry.path.param_names().any(|other| other == name);
    let Some(first) = entries.first() else { return Vec::new() };
    first.path.param_names().filter(|name| entries.iter().all(|entry| named(entry, name))).collect()
}
