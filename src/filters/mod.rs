//! What is done to requests and answers on their way, a file per filter.
//!
//! A filter is its file and one row in [`filters!`]. The stages run in the order of [`Stage`]; inside
//! a stage filters run in the order of the configuration. On answers they run in reverse.

mod api_key;
mod context;
mod cors;
mod edits;
mod headers;
mod jwt;
mod rate_limit;
mod strip_fields;

use std::fmt;

use http::HeaderName;
use pingora::http::{RequestHeader, ResponseHeader};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::exchange::{Exchange, Rejection};

pub use context::{CompileContext, Consumers, Identities, consumer_digest};
pub use cors::announced_method;
pub(crate) use headers::editable;
pub use jwt::Verifier;
pub use strip_fields::Strip;

/// The stages, in the order in which they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// CORS first: a preflight carries no credentials, so nothing that needs them may come before it.
    Cors,
    /// Who is it? Before all that depends on who it is.
    Authenticate,
    /// Within the limits? Behind authentication, because limits are by consumer, and because a
    /// stranger must not use up the quota of another.
    Limit,
    /// Edits last, so that whoever decides sees what the client sent.
    Edit,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cors => "cross-origin rules",
            Self::Authenticate => "who is it?",
            Self::Limit => "within the limits?",
            Self::Edit => "edits",
        })
    }
}

/// A filter's outcome: on, or the gateway's own answer.
pub type Verdict = Result<(), Box<Rejection>>;

/// The table of filters: variant, key in the YAML, module, stage.
macro_rules! filters {
    ($($(#[$doc:meta])* $variant:ident($module:ident), $stage:ident;)*) => {
        /// A filter as it is configured.
        #[derive(Clone, Debug, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum FilterConfig {
            $($(#[$doc])* $variant($module::Config),)*
        }

        /// A filter at work. An enum and not a boxed trait: no allocation and no indirect call on a request.
        #[derive(Debug)]
        pub enum Filter {
            $($(#[$doc])* $variant($module::Filter),)*
        }

        impl FilterConfig {
            /// The key in the YAML.
            pub fn key(&self) -> &'static str {
                match self { $(Self::$variant(_) => stringify!($module),)* }
            }

            /// Compiles it; `None` when mistakes were noted.
            pub fn compile(&self, context: &mut CompileContext<'_>) -> Option<Filter> {
                match self { $(Self::$variant(config) => $module::Filter::compile(config, context).map(Filter::$variant),)* }
            }
        }

        impl Filter {
            /// Where in the order it stands.
            pub fn stage(&self) -> Stage {
                match self { $(Self::$variant(_) => Stage::$stage,)* }
            }

            /// What it is called in the configuration.
            pub fn key(&self) -> &'static str {
                match self { $(Self::$variant(_) => stringify!($module),)* }
            }
        }
    };
}

impl FilterConfig {
    /// The headers of a request that it reads, each with the keys that lead to its name.
    pub fn headers_read(&self) -> Vec<(HeaderName, &'static [&'static str])> {
        match self {
            Self::Cors(cors) => {
                cors.headers.iter().flatten().map(|name| (name.0.clone(), &["headers"] as &'static [&'static str])).collect()
            }
            Self::Jwt(jwt) => vec![(jwt.header.0.clone(), &["header"])],
            Self::ApiKey(key) => vec![(key.header.0.clone(), &["header"])],
            Self::RateLimit(limit) => limit.header().map(|name| (name.clone(), &["by", "header"] as _)).into_iter().collect(),
            Self::Headers(_) | Self::StripFields(_) => Vec::new(),
        }
    }

    /// The headers of a request that it sets or removes for the target.
    pub fn headers_written(&self) -> Vec<HeaderName> {
        match self {
            Self::Jwt(jwt) => jwt.forward_claims.values().map(|name| name.0.clone()).collect(),
            Self::Headers(headers) => headers.of_requests(),
            Self::Cors(_) | Self::ApiKey(_) | Self::RateLimit(_) | Self::StripFields(_) => Vec::new(),
        }
    }
}

filters! {
    /// Lets pages of other origins read answers.
    Cors(cors), Cors;
    /// Requires a JSON Web Token.
    Jwt(jwt), Authenticate;
    /// Requires an API key.
    ApiKey(api_key), Authenticate;
    /// Limits requests, exactly.
    RateLimit(rate_limit), Limit;
    /// Sets, adds and removes headers.
    Headers(headers), Edit;
    /// Removes members from JSON answers.
    StripFields(strip_fields), Edit;
}

impl Filter {
    /// Decides on a request, and edits it.
    ///
    /// # Errors
    /// The answer to give instead of going on.
    pub async fn on_request(&self, request: &mut RequestHeader, exchange: &mut Exchange) -> Verdict {
        match self {
            Self::Cors(filter) => filter.on_request(request, exchange),
            Self::Jwt(filter) => filter.on_request(request, exchange).await,
            Self::ApiKey(filter) => filter.on_request(request, exchange),
            Self::RateLimit(filter) => filter.on_request(request, exchange),
            Self::Headers(filter) => {
                filter.on_request(request);
                Ok(())
            }
            Self::StripFields(filter) => {
                filter.on_request(request);
                Ok(())
            }
        }
    }

    /// Edits an answer's head; `own` when the answer is the gateway's own.
    pub fn on_response(&self, response: &mut ResponseHeader, exchange: &Exchange, own: bool) {
        match self {
            Self::Cors(filter) => filter.on_response(response, exchange),
            Self::RateLimit(filter) => filter.on_response(response, exchange),
            Self::Headers(filter) if !own => filter.on_response(response),
            _ => {}
        }
    }

    /// The fields that it wants removed from this answer's body.
    ///
    /// # Errors
    /// The answer to give instead, when the body cannot be looked into.
    pub fn on_body(&self, response: &mut ResponseHeader) -> Result<Option<Strip<'_>>, Box<Rejection>> {
        match self {
            Self::StripFields(filter) => filter.on_response(response),
            _ => Ok(None),
        }
    }
}
