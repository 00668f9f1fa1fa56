//! The actions that end a request, one file per action.
//!
//! An action is its file and one row in [`actions!`]. It decides what is to be done with a request; the edge does it.

mod aggregate;
mod amazon_integrations;
mod files;
mod forward;
mod graphql;
mod lambda;
mod media_type;
mod mock;
mod redirect;
mod respond;
mod translate;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::exchange::{Reason, Rejection, RequestView, Template, TextForm, TextScope};
use crate::filters::{ApiRules, SharedValues};
use crate::live::Live;
use crate::notation::{Mistakes, Place};
use crate::rules::routing::{PathPattern, RouteEntry, common_params};
use crate::upstreams::Upstream;

pub use aggregate::{
    Aggregate, Call, CallBody, CallFault, CallInputs, CallPart, CallRequest, CallResult, FailureStatus, FaultKind,
};
pub use files::{FileRequest, Files, Found, OpenedFile};
pub use forward::{Forward, Host, Mirror, PathEdit};
pub use graphql::{Graphql, graphql_response};
pub use translate::{
    ClientResponse, IncomingRequest, MessageRequests, SocketKind, SocketTranslation, Translate, TranslateResponse,
    TranslatedRequest,
};

/// The table of actions: variant, key in the YAML, module.
macro_rules! actions {
    ($($(#[$doc:meta])* $variant:ident = $key:literal: $module:ident;)*) => {
        /// An action as it is configured.
        #[derive(Clone, Debug, Deserialize, JsonSchema)]
        #[schemars(description = "What ends a request.")]
        pub enum ActionConfig {
            $($(#[$doc])* #[serde(rename = $key)] $variant($module::Config),)*
        }

        /// A compiled action.
        #[derive(Debug)]
        pub enum Action {
            $($(#[$doc])* $variant($module::$variant),)*
        }

        impl ActionConfig {
            /// Compiles the action. Where errors were noted, the result is never used.
            pub fn compile(&self, context: &mut ActionContext<'_>) -> Action {
                let place = context.place.clone();
                context.place = place.key($crate::actions::key_of(self));
                let action = match self { $(Self::$variant(config) =>
                Action::$variant(HttpAction::compile(config, context)),)* };
                context.place = place;
                action
            }

            /// Returns the headers of a request that the action reads, each with the keys that lead to its name.
            pub fn headers_read(&self) -> Vec<(HeaderName, Vec<String>)> {
                match self { $(Self::$variant(config) => <$module::$variant as HttpAction>::headers_read(config),)* }
            }
        }

        impl Action {
            /// Returns what is to be done with a request.
            pub fn on_request<'a>(&'a self, view: &RequestView<'_>) -> ActionOutcome<'a> {
                match self { $(Self::$variant(action) => action.on_request(view),)* }
            }

            /// Returns lines that describe the action to an operator.
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
    /// The request is sent to an upstream.
    Forward = "forward": forward;
    /// A function of AWS Lambda is called.
    Lambda = "lambda": lambda;
    /// What the integrations of the route's OpenAPI document say.
    AmazonIntegrations = "amazon_integrations": amazon_integrations;
    /// The merged results of several calls to upstreams.
    Aggregate = "aggregate": aggregate;
    /// A GraphQL API over calls to upstreams.
    Graphql = "graphql": graphql;
    /// A file below a folder.
    Files = "files": files;
    /// The client is redirected.
    Redirect = "redirect": redirect;
    /// A fixed response.
    Respond = "respond": respond;
    /// An example of the route's OpenAPI document.
    Mock = "mock": mock;
}

impl Action {
    /// Returns how the action forwards requests of an operation, if it does.
    pub fn forward(&self, operation: Option<u32>) -> Option<&Forward> {
        match self {
            Self::Forward(forward) => Some(forward),
            Self::Lambda(lambda) => Some(lambda.forward()),
            Self::AmazonIntegrations(integrations) => integrations.forward(operation),
            _ => None,
        }
    }

    /// Returns all ways by which the action forwards.
    pub fn forwards(&self) -> impl Iterator<Item = &Forward> {
        let integrations = match self {
            Self::AmazonIntegrations(integrations) => Some(integrations.forwards()),
            _ => None,
        };
        self.forward(None).into_iter().chain(integrations.into_iter().flatten())
    }
}

impl ActionConfig {
    /// Returns whether its responses pass the filters that change responses of targets.
    pub fn has_filtered_responses(&self) -> bool {
        matches!(
            self,
            Self::Forward(_)
                | Self::Lambda(_)
                | Self::AmazonIntegrations(_)
                | Self::Files(_)
                | Self::Aggregate(_)
                | Self::Graphql(_)
        )
    }

    /// Returns whether its responses may be cached.
    pub fn is_cacheable(&self) -> bool {
        let makes_one =
            matches!(self, Self::Lambda(_) | Self::AmazonIntegrations(_) | Self::Aggregate(_) | Self::Graphql(_));
        makes_one || matches!(self, Self::Forward(_))
    }

    /// Returns an empty response, which stands for no action.
    pub fn nothing() -> Self {
        Self::Respond(respond::Config::default())
    }

    /// Returns the action's key in the YAML.
    pub fn key(&self) -> &'static str {
        key_of(self)
    }
}

/// An action.
trait HttpAction: Sized {
    /// The settings.
    type Config;

    /// Compiles the action, and notes errors.
    fn compile(config: &Self::Config, context: &mut ActionContext<'_>) -> Self;

    /// Returns the headers of a request that the action reads, each with the keys that lead to its name.
    fn headers_read(_config: &Self::Config) -> Vec<(HeaderName, Vec<String>)> {
        Vec::new()
    }

    /// Returns what is to be done with a request.
    fn on_request(&self, view: &RequestView<'_>) -> ActionOutcome<'_>;

    /// Returns lines that describe the action to an operator.
    fn describe(&self) -> Vec<String>;
}

/// What is to be done with a request.
#[derive(Debug)]
pub enum ActionOutcome<'a> {
    /// It is forwarded.
    Forward(&'a Forward),
    /// The results of calls are merged.
    Aggregate(&'a Aggregate),
    /// Operations of GraphQL are executed.
    Graphql(&'a Graphql),
    /// A file is sent.
    File(FileRequest<'a>),
    /// This is the response.
    Respond(OwnResponse<'a>),
    /// It is rejected.
    Reject(Box<Rejection>),
}

/// The gateway's own response.
#[derive(Debug)]
pub struct OwnResponse<'a> {
    /// The reason, for the log.
    pub reason: Reason,
    /// The status.
    pub status: u16,
    /// The headers, without those of the framing.
    pub headers: Cow<'a, [(HeaderName, HeaderValue)]>,
    /// The body.
    pub body: Bytes,
}

/// The context in which an action is compiled, and its errors.
pub struct ActionContext<'c> {
    /// The action's place in the configuration.
    pub place: Place,
    /// The directory in which relative paths begin.
    pub base: &'c Path,
    /// The OpenAPI document of the route.
    pub api: Option<&'c ApiRules>,
    /// The router's entries of the route.
    pub entries: &'c [RouteEntry],
    /// The state that outlives configurations.
    pub live: &'c Live,
    /// The values that are kept up to date in the background, among others.
    pub shared: &'c mut SharedValues,
    /// The upstreams, by name.
    pub upstreams: &'c BTreeMap<String, Arc<Upstream>>,
    /// Returns whether an upstream of that name exists, or may exist, that was not compiled because of its own
    /// errors.
    pub is_unread: &'c dyn Fn(&str) -> bool,
    /// The number of splits by a key so far.
    pub keyed_splits: &'c mut usize,
    /// The first upstream that requests are forwarded to, for translations.
    pub upstream: Option<Arc<Upstream>>,
    /// The errors so far.
    pub mistakes: &'c mut Mistakes,
    /// The warnings: what is valid and most likely not intended.
    pub warnings: &'c mut Mistakes,
}

impl ActionContext<'_> {
    /// Checks a prefix that is stripped from paths.
    fn check_strip_prefix(&mut self, prefix: &str) {
        let place = self.place.key("strip_prefix");
        let fine = prefix.starts_with('/') && !prefix.ends_with('/') && prefix.parse::<PathPattern>().is_ok();
        if !fine || prefix.contains(['*', '{', '~']) {
            self.mistakes.add(&place, format!("expected a prefix such as /api, found \"{prefix}\""));
        } else if !self.entries.iter().any(|entry| entry.path.may_begin_with(prefix)) {
            self.warnings.add(&place, "no path of this route begins with it: nothing is stripped");
        }
    }

    /// Compiles a text that may name values of the request.
    fn template(&mut self, text: &str, form: TextForm, place: &Place) -> Template {
        let scope = TextScope { form, errors: false, params: &|| common_params(self.entries) };
        let compiled = Template::new(text, &scope);
        self.mistakes.take(place, compiled).unwrap_or_else(Template::empty)
    }
}
