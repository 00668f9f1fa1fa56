//! The filters of requests and responses, one file per filter.
//!
//! A filter is its file and one row in [`filters!`]. The stages run in the order of [`Stage`]; inside a stage filters
//! run in the order of the configuration. On responses they run in reverse.

mod authenticate;
mod authorize;
mod bandwidth;
mod cache;
mod caches;
mod chain;
mod claim_value;
mod compress;
mod concurrency;
mod condition;
mod consumers;
mod context;
mod cors;
mod csrf;
mod decompress;
mod fault;
mod graphql_limits;
mod guard;
mod header_edits;
mod headers;
mod hooks;
mod json;
mod json_limits;
mod limit_keys;
mod mask_fields;
mod quota;
mod rate_limit;
mod rename_fields;
mod security_headers;
mod select_fields;
mod strip_fields;
mod target_token;
#[cfg(test)]
mod test_kit;
mod throttle;
mod transform;
mod validate;

use bytes::Bytes;
use http::HeaderName;
use pingora::http::{RequestHeader, ResponseHeader};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::exchange::{Exchange, Rejection};

pub use authenticate::{Authenticated, Unauthenticated};
pub(crate) use authorize::facts::{COUNTRY, KNOWN_FACTS, RequestFacts};
pub use cache::CachePolicy;
pub use caches::{CacheTable, UsedCache};
pub use chain::{Chain, ChainLink, Memories};
pub use compress::CodingName;
pub use condition::Condition;
pub use consumers::Consumers;
pub use context::{CertificateSources, CompileContext, Identities, RouteFacts, SharedValues};
pub use cors::announced_method;
pub use header_edits::HeaderEdits;
pub(crate) use header_edits::parse_editable_name;
pub use hooks::{BodyStep, HttpFilter, Needs, ResponseView, Stage, Verdict};
pub use validate::{ApiRules, OpenApiConfig, UnknownPaths};

use chain::Slot;
use hooks::wrong_memory;

/// The table of filters: variant, key in the YAML, module. It writes every hook for every variant, so that none can be
/// forgotten, and dispatches statically: no allocation and no indirect call on a request.
macro_rules! filters {
    ($($(#[$doc:meta])* $variant:ident = $key:literal: $($module:ident)::+;)*) => {
        /// A filter as it is configured.
        #[derive(Clone, Debug, Deserialize, JsonSchema)]
        pub enum FilterConfig {
            $($(#[$doc])* #[serde(rename = $key)] $variant($($module)::+::Config),)*
        }

        /// A compiled filter.
        #[derive(Debug)]
        pub enum Filter {
            $($(#[$doc])* $variant($($module)::+::Filter),)*
        }

        /// The memory of a filter for one request.
        #[derive(Debug)]
        enum Memory {
            $($variant(<$($module)::+::Filter as HttpFilter>::Memory),)*
        }

        impl FilterConfig {
            /// The keys of all filters in the YAML.
            pub const KEYS: &[&str] = &[$($key),*];

            /// Returns the filter's key in the YAML.
            pub fn key(&self) -> &'static str {
                match self { $(Self::$variant(_) => $key,)* }
            }

            /// Returns the stage in which the filter runs.
            pub fn stage(&self) -> Stage {
                match self { $(Self::$variant(_) => <$($module)::+::Filter as HttpFilter>::STAGE,)* }
            }

            /// Compiles the filter; returns `None` when errors were noted.
            pub fn compile(&self, context: &mut CompileContext<'_>) -> Option<Filter> {
                match self { $(Self::$variant(config) => HttpFilter::compile(config, context).map(Filter::$variant),)* }
            }

            /// Returns the headers of a request that the filter reads, each with the keys that lead to its name.
            pub fn headers_read(&self) -> Vec<(HeaderName, Vec<String>)> {
                match self { $(Self::$variant(config) => <$($module)::+::Filter as
                HttpFilter>::headers_read(config),)* }
            }

            /// Returns the headers of a request that the filter sets or removes for the target.
            pub fn headers_written(&self) -> Vec<HeaderName> {
                match self { $(Self::$variant(config) => <$($module)::+::Filter as
                HttpFilter>::headers_written(config),)* }
            }
        }

        impl Filter {
            /// Returns the stage in which the filter runs.
            pub fn stage(&self) -> Stage {
                match self { $(Self::$variant(_) => <$($module)::+::Filter as HttpFilter>::STAGE,)* }
            }

            /// Returns the filter's key in the YAML.
            pub fn key(&self) -> &'static str {
                match self { $(Self::$variant(_) => $key,)* }
            }

            /// Returns what the filter needs besides the heads.
            pub fn needs(&self) -> Needs {
                match self { $(Self::$variant(filter) => filter.needs(),)* }
            }

            /// Returns whether the filter may replace a response once it has seen the body.
            pub fn judges_responses(&self) -> bool {
                match self { $(Self::$variant(filter) => filter.judges_responses(),)* }
            }

            /// Returns whether the filter is given whole responses only.
            pub fn needs_whole_responses(&self) -> bool {
                match self { $(Self::$variant(filter) => filter.needs_whole_responses(),)* }
            }

            /// Returns whether the filter runs where its condition cannot be evaluated.
            fn runs_in_doubt(&self) -> bool {
                match self { $(Self::$variant(filter) => filter.runs_in_doubt(),)* }
            }

            /// Returns whether the filter needs the body of this request.
            fn wants_body(&self, request: &RequestHeader, exchange: &Exchange) -> bool {
                match self { $(Self::$variant(filter) => filter.wants_body(request, exchange),)* }
            }

            /// Returns whether the filter may wait for a long time.
            pub fn may_wait(&self) -> bool {
                match self { $(Self::$variant(filter) => filter.may_wait(),)* }
            }

            /// Returns the edits that remove every credential that the filter reads.
            pub fn credentials(&self) -> Vec<crate::exchange::Edit> {
                match self { $(Self::$variant(filter) => filter.credentials(),)* }
            }

            /// Returns the challenges of the filter, if it authenticates.
            pub fn challenges(&self) -> Vec<http::HeaderValue> {
                match self { $(Self::$variant(filter) => filter.challenges(),)* }
            }

            /// Returns whether the filter reads the parameters of the path.
            pub fn reads_params(&self) -> bool {
                match self { $(Self::$variant(filter) => filter.reads_params(),)* }
            }

            fn edits(&self) -> Option<&std::sync::Arc<[crate::exchange::Edit]>> {
                match self { $(Self::$variant(filter) => filter.edits(),)* }
            }

            async fn authenticate(&self, request: &RequestHeader, exchange: &Exchange) -> Result<Authenticated,
            Unauthenticated> {
                match self { $(Self::$variant(filter) => filter.authenticate(request, exchange).await,)* }
            }

            async fn on_request(&self, request: &RequestHeader, exchange: &mut Exchange, memory: Slot<'_>) -> Verdict {
                match self {
                    $(Self::$variant(filter) => {
                        let remembers = size_of::<<$($module)::+::Filter as HttpFilter>::Memory>() > 0;
                        if !remembers {
                            return filter.on_request(request, exchange, &mut Default::default()).await;
                        }
                        match memory.get(|| Memory::$variant(Default::default())) {
                            Memory::$variant(memory) => filter.on_request(request, exchange, memory).await,
                            _ => Err(wrong_memory()),
                        }
                    })*
                }
            }

            fn on_request_body(&self, body: &[u8], request: &RequestHeader, exchange: &mut Exchange) -> Verdict {
                match self { $(Self::$variant(filter) => filter.on_request_body(body, request, exchange),)* }
            }

            fn edit_request_body(&self, body: &Bytes, request: &RequestHeader, exchange: &mut Exchange) ->
            Result<Option<Bytes>, Box<Rejection>> {
                match self { $(Self::$variant(filter) => filter.edit_request_body(body, request, exchange),)* }
            }

            fn on_response(&self, response: &mut ResponseHeader, view: &ResponseView<'_>, memory: Slot<'_>) {
                match self {
                    $(Self::$variant(filter) => {
                        let remembers = size_of::<<$($module)::+::Filter as HttpFilter>::Memory>() > 0;
                        if !remembers {
                            filter.on_response(response, view, &Default::default());
                        } else if let Memory::$variant(memory) = memory.get(|| Memory::$variant(Default::default())) {
                            filter.on_response(response, view, memory);
                        }
                    })*
                }
            }

            fn on_response_body(&self, response: &mut ResponseHeader, view: &ResponseView<'_>) -> BodyStep {
                match self { $(Self::$variant(filter) => filter.on_response_body(response, view),)* }
            }
        }
    };
}

filters! {
    /// Lets pages of other origins read responses.
    Cors = "cors": cors;
    /// Decodes the content coding of request bodies.
    Decompress = "decompress": decompress;
    /// Rejects what looks like an attack.
    Guard = "guard": guard;
    /// Rejects requests that pages of other sites make browsers send.
    Csrf = "csrf": csrf;
    /// Requires a JSON Web Token.
    Jwt = "jwt": authenticate::jwt;
    /// Requires a token that its authorization server knows.
    Introspection = "introspection": authenticate::introspection;
    /// Requires a session, which begins with a login at an OpenID provider.
    Oidc = "oidc": authenticate::oidc;
    /// Requires that another server accepts the request.
    ForwardAuth = "forward_auth": authenticate::forward_auth;
    /// Requires an API key.
    ApiKey = "api_key": authenticate::api_key;
    /// Requires a name and a password.
    Basic = "basic": authenticate::basic;
    /// Requires a signature of AWS's form.
    Hmac = "hmac": authenticate::hmac;
    /// Requires an HTTP message signature.
    HttpSignature = "http_signature": authenticate::http_signature;
    /// Requires a client certificate.
    Mtls = "mtls": authenticate::mtls;
    /// Requires the credentials of any one of several authenticators.
    AnyOf = "any_of": authenticate::any_of;
    /// Requires the credentials of every one of several authenticators.
    AllOf = "all_of": authenticate::all_of;
    /// Decides what a caller may do.
    Authorize = "authorize": authorize;
    /// Limits requests, exactly.
    RateLimit = "rate_limit": rate_limit;
    /// Limits requests in windows of the calendar, durably.
    Quota = "quota": quota;
    /// Limits the requests that are under way at a time.
    Concurrency = "concurrency": concurrency;
    /// Delays requests beyond a rate.
    Throttle = "throttle": throttle;
    /// Limits the bytes per second of bodies.
    Bandwidth = "bandwidth": bandwidth;
    /// Delays or rejects requests on purpose.
    Fault = "fault": fault;
    /// Limits the shape of JSON request bodies.
    JsonLimits = "json_limits": json_limits;
    /// Limits requests to a GraphQL service.
    GraphqlLimits = "graphql_limits": graphql_limits;
    /// Caches responses of targets.
    Cache = "cache": cache;
    /// Validates requests and responses by JSON Schema.
    Validate = "validate": validate;
    /// Sets, adds and removes headers.
    Headers = "headers": headers;
    /// Sends targets a token that identifies the gateway.
    TargetToken = "target_token": target_token;
    /// Sets headers by which browsers protect pages.
    SecurityHeaders = "security_headers": security_headers;
    /// Removes members from JSON responses.
    StripFields = "strip_fields": strip_fields;
    /// Renames members of JSON responses.
    RenameFields = "rename_fields": rename_fields;
    /// Replaces values in JSON responses by a mask.
    MaskFields = "mask_fields": mask_fields;
    /// Lets clients select the members of JSON responses.
    SelectFields = "select_fields": select_fields;
    /// Changes requests and responses.
    Transform = "transform": transform;
    /// Encodes responses in content codings.
    Compress = "compress": compress;
}

impl Filter {
    /// Returns the filter that validates by the OpenAPI document of a route.
    pub fn of_api(api: std::sync::Arc<ApiRules>) -> Self {
        Self::Validate(validate::Filter::of_api(api))
    }

    /// Returns whether the filter validates by the OpenAPI document of a route, so that no list has it.
    pub fn is_of_api(&self) -> bool {
        matches!(self, Self::Validate(filter) if filter.is_of_api())
    }
}

/// What a filter uses the request's consumer for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsumerUse {
    /// It counts by it.
    Limit,
    /// It takes the limits of its plan.
    Plan,
    /// It writes it, or a claim, into a header.
    Header,
    /// It decides by it.
    Authorize,
    /// It keeps what is cached apart by it.
    Cache,
}

impl Filter {
    /// Returns the policy of the cache, if the filter is that.
    fn cache_policy(&self) -> Option<&std::sync::Arc<CachePolicy>> {
        if let Self::Cache(filter) = self { Some(&filter.policy) } else { None }
    }
}

impl FilterConfig {
    /// Returns the limit of requests as a text, if the filter is one.
    pub fn limit(&self) -> Option<String> {
        match self {
            Self::RateLimit(limit) => Some(limit.to_string()),
            Self::Quota(limit) => Some(limit.to_string()),
            Self::Concurrency(limit) => Some(limit.to_string()),
            Self::Throttle(limit) => Some(limit.to_string()),
            Self::Bandwidth(limit) => Some(limit.to_string()),
            _ => None,
        }
    }

    /// Returns what the filter counts by, if it is a limit.
    fn counts_by(&self) -> Option<&limit_keys::LimitBy> {
        match self {
            Self::RateLimit(limit) => Some(&limit.by),
            Self::Quota(limit) => Some(&limit.by),
            Self::Concurrency(limit) => Some(&limit.by),
            Self::Throttle(limit) => Some(&limit.by),
            Self::Bandwidth(limit) => limit.by.as_ref(),
            _ => None,
        }
    }

    /// Returns whether the filter is a limit that takes its number from the consumer or its plan.
    fn is_from_plan(&self) -> bool {
        match self {
            Self::RateLimit(limit) => limit.from_plan,
            Self::Quota(limit) => limit.from_plan,
            Self::Concurrency(limit) => limit.from_plan,
            _ => false,
        }
    }

    /// Returns whether the filter may identify a client before its credential is verified: after the limits, with the
    /// body.
    pub fn is_verified_late(&self) -> bool {
        match self {
            Self::Hmac(hmac) => hmac.is_verified_late(),
            Self::AnyOf(any) => any.members().iter().any(Self::is_verified_late),
            Self::AllOf(all) => all.members().iter().any(Self::is_verified_late),
            _ => false,
        }
    }

    /// Returns whether the filter is a cache of which it is not said whether consumers share its responses.
    pub fn is_cache_shared_by_default(&self) -> bool {
        matches!(self, Self::Cache(cache) if cache.key.consumer.is_none())
    }

    /// Returns what the filter uses the request's consumer for, if it does.
    pub fn consumer_use(&self) -> Option<ConsumerUse> {
        match self {
            Self::Authorize(rules) if rules.needs_identity() => Some(ConsumerUse::Authorize),
            limit if limit.counts_by().is_some_and(limit_keys::needs_identity) => Some(ConsumerUse::Limit),
            limit if limit.is_from_plan() => Some(ConsumerUse::Plan),
            Self::Headers(headers) if headers.names_caller() => Some(ConsumerUse::Header),
            Self::Cache(cache) if cache.key.consumer == Some(true) => Some(ConsumerUse::Cache),
            _ => None,
        }
    }
}
