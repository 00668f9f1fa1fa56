//! `any_of`: requires the credentials of any one of several authenticators, in their order.

use std::sync::Arc;

use futures::FutureExt;
use http::{HeaderName, HeaderValue};
use pingora::http::RequestHeader;
use schemars::JsonSchema;
use serde::Deserialize;

use super::Unauthenticated;
use super::members::{Authenticating, Authenticators};
use crate::exchange::{Edit, Exchange};
use crate::filters::{CompileContext, FilterConfig, HttpFilter, Needs, Stage, Verdict};

/// Authenticators; the first that accepts the request determines the identity.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Config(#[schemars(length(min = 2))] Vec<FilterConfig>);

impl Config {
    /// Returns the authenticators.
    pub fn members(&self) -> &[FilterConfig] {
        &self.0
    }
}

/// The compiled filter.
#[derive(Debug)]
pub struct Filter {
    members: Authenticators,
}

impl HttpFilter for Filter {
    type Config = Config;
    type Memory = ();
    const STAGE: Stage = Stage::Authenticate;

    fn compile(config: &Config, context: &mut CompileContext<'_>) -> Option<Self> {
        Some(Self { members: Authenticators::compile(&config.0, context)? })
    }

    fn headers_read(config: &Config) -> Vec<(HeaderName, Vec<String>)> {
        Authenticators::headers_read(&config.0)
    }

    fn headers_written(config: &Config) -> Vec<HeaderName> {
        Authenticators::headers_written(&config.0)
    }

    fn credentials(&self) -> Vec<Edit> {
        self.members.credentials()
    }

    fn needs(&self) -> Needs {
        self.members.needs()
    }

    fn on_request_body(&self, body: &[u8], request: &RequestHeader, exchange: &mut Exchange) -> Verdict {
        self.members.filters().iter().try_for_each(|filter| filter.on_request_body(body, request, exchange))
    }

    fn challenges(&self) -> Vec<HeaderValue> {
        self.members.filters().iter().flat_map(crate::filters::Filter::challenges).collect()
    }

    fn edits(&self) -> Option<&Arc<[Edit]>> {
        Some(self.members.edits())
    }

    #[expect(
        refining_impl_trait,
        reason = "a member may be one of these itself: the type of its future has to have an end"
    )]
    fn authenticate<'a>(&'a self, request: &'a RequestHeader, exchange: &'a Exchange) -> Authenticating<'a> {
        async move {
            let mut failures = Vec::new();
            for (place, filter) in self.members.filters().iter().enumerate() {
                match filter.authenticate(request, exchange).await {
                    Ok(mut authenticated) => {
                        // Their credentials were not verified. They go before what this one sets in their place.
                        self.members.others(place).into_iter().for_each(|others| {
                            authenticated.edits.insert(0, Arc::clone(others));
                        });
                        return Ok(authenticated);
                    }
                    Err(failure) => failures.push(failure),
                }
            }
            Err(Unauthenticated::join(failures))
        }
        .boxed()
    }
}
