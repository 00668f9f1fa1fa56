//! `amazon_integrations`: does for each operation of the route's OpenAPI document what its
//! `x-amazon-apigateway-integration` says ("Working with API Gateway extensions to OpenAPI").

mod compile;
mod http_proxy;
mod mock;

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::Deserialize;

use super::lambda::{CredentialsConfig, Lambda, Payload};
use super::{ActionContext, ActionOutcome, Forward, HttpAction, OwnResponse};
use crate::exchange::{Reason, Rejection, RequestView};
use crate::notation::{Duration, HeaderText};
use crate::rules::routing::PathPattern;

/// Where the integrations of the document lead.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "AmazonIntegrations")]
pub struct Config {
    /// The upstream that functions are called at (`aws_proxy`).
    pub lambda: Option<String>,
    /// The upstreams of `http_proxy`, by scheme, host and port: `{"https://api.example.com": orders}`.
    pub http: BTreeMap<String, String>,
    /// The credentials with which calls of functions are signed; those of an integration are not assumed. Default
    /// `environment`.
    pub credentials: CredentialsConfig,
    /// How requests are written for functions where `payloadFormatVersion` does not say it. Default `v1`, as API
    /// Gateway has it.
    pub payload: Option<Payload>,
    /// The name of the stage. Default `$default`.
    pub stage: Option<String>,
    /// The variables of the stage: `${stageVariables.NAME}` in integrations, and `stageVariables` of events.
    pub stage_variables: BTreeMap<String, String>,
    /// The time to the end of a response where `timeoutInMillis` does not say it. Default 29s, as API Gateway has it.
    pub timeout: Option<Duration>,
    /// The `Host` that calls of functions are sent and signed with. Default: `lambda.REGION.amazonaws.com`.
    pub host: Option<HeaderText>,
}

/// The compiled action: what is done for each operation, by its number.
#[derive(Debug)]
pub struct AmazonIntegrations {
    operations: Vec<Integration>,
}

/// What is done for an operation.
#[derive(Debug)]
enum Integration {
    /// A function is called.
    Function(Box<Lambda>),
    /// It is forwarded.
    Http(Box<Forward>),
    /// It has a fixed response.
    Mock(MockResponse),
    /// It has errors, so that the configuration is never used.
    None,
}

/// A fixed response.
#[derive(Debug)]
struct MockResponse {
    status: u16,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
}

impl AmazonIntegrations {
    /// Returns how an operation is forwarded, if it is.
    pub fn forward(&self, operation: Option<u32>) -> Option<&Forward> {
        let number = usize::try_from(operation?).ok()?;
        self.operations.get(number)?.forward()
    }

    /// Returns all ways by which operations are forwarded.
    pub fn forwards(&self) -> impl Iterator<Item = &Forward> {
        self.operations.iter().filter_map(Integration::forward)
    }
}

impl Integration {
    fn forward(&self) -> Option<&Forward> {
        match self {
            Self::Function(lambda) => Some(lambda.forward()),
            Self::Http(forward) => Some(forward),
            Self::Mock(_) | Self::None => None,
        }
    }
}

impl HttpAction for AmazonIntegrations {
    type Config = Config;

    fn compile(config: &Config, context: &mut ActionContext<'_>) -> Self {
        Self { operations: compile::operations(config, context) }
    }

    fn on_request(&self, view: &RequestView<'_>) -> ActionOutcome<'_> {
        let unknown = || ActionOutcome::Reject(Rejection::new(Reason::RouteNotFound, ""));
        let number = view.exchange.operation.and_then(|number| usize::try_from(number).ok());
        let Some(integration) = number.and_then(|number| self.operations.get(number)) else { return unknown() };
        // `{proxy+}` is one segment at least.
        if let Some(pattern @ PathPattern::Segments { rest: true, .. }) = view.pattern
            && pattern.rest(view.request.uri.path()).is_empty()
        {
            return unknown();
        }
        match integration {
            Integration::Function(lambda) => lambda.on_request(view),
            Integration::Http(forward) => forward.on_request(view),
            Integration::Mock(mock) => ActionOutcome::Respond(OwnResponse {
                reason: Reason::Responded,
                status: mock.status,
                headers: mock.headers.as_slice().into(),
                body: mock.body.clone(),
            }),
            Integration::None => unknown(),
        }
    }

    fn describe(&self) -> Vec<String> {
        let count = |test: fn(&Integration) -> bool| self.operations.iter().filter(|one| test(one)).count();
        let functions = count(|one| matches!(one, Integration::Function(_)));
        let http = count(|one| matches!(one, Integration::Http(_)));
        let mocks = count(|one| matches!(one, Integration::Mock(_)));
        vec![format!(
            "amazon_integrations: {functions} operations call functions, {http} are forwarded, {mocks} are mocks"
        )]
    }
}
