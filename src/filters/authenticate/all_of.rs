//! `all_of`: requires the credentials of every one of several authenticators.

use std::sync::Arc;

use futures::FutureExt;
use http::{HeaderName, HeaderValue};
use pingora::http::RequestHeader;
use schemars::JsonSchema;
use serde::Deserialize;

use super::Authenticated;
use super::members::{Authenticating, Authenticators};
use crate::exchange::{Edit, Exchange, Identity};
use crate::filters::{CompileContext, FilterConfig, HttpFilter, Needs, Stage, Verdict};

/// Authenticators; the first that knows a consumer determines the identity, or else the first that identifies anyone.
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
        let members = Authenticators::compile(&config.0, context)?;
        if let Some((place, name)) = members.shared_header(&config.0) {
            let text = format!("reads {name} as another one does, and a request has one: this would reject everyone");
            context.mistakes.add(&context.place.index(place), text);
        }
        Some(Self { members })
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
            let mut all = Authenticated::default();
            for filter in self.members.filters() {
                let authenticated = filter.authenticate(request, exchange).await?;
                all.identity = nearest(all.identity, authenticated.identity);
                all.edits.extend(authenticated.edits);
                all.set_cookies.extend(authenticated.set_cookies);
            }
            Ok(all)
        }
        .boxed()
    }
}

/// Returns the identity that counts: the first with a consumer, or else the first.
fn nearest(first: Option<Identity>, next: Option<Identity>) -> Option<Identity> {
    let is_known = |identity: &Option<Identity>| identity.as_ref().is_some_and(|one| one.consumer.is_some());
    if is_known(&next) && !is_known(&first) { next } else { first.or(next) }
}
