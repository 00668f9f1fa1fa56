//! `lambda`: calls a function of AWS Lambda (the API operations `Invoke` and `InvokeWithResponseStream`).

mod call;
mod config;
mod credentials;
mod response;

use http::{HeaderName, HeaderValue};

use super::forward::{Forward, Host, find};
use super::{ActionContext, ActionOutcome, HttpAction};
use crate::exchange::RequestView;
use crate::rules::aws::{EventFormat, FunctionName};
use crate::rules::schema::openapi::MediaRange;

pub use call::{LambdaCall, path, shown};
pub use config::{Config, CredentialsConfig, Invocation, Payload};
pub use credentials::AwsCredentials;

/// The media types of bodies that are sent as base64.
pub const BINARY_TYPES: [&str; 10] = [
    "image/*",
    "audio/*",
    "video/*",
    "font/*",
    "application/octet-stream",
    "application/pdf",
    "application/zip",
    "application/gzip",
    "application/protobuf",
    "multipart/form-data",
];

/// The compiled action: a forward with a translation that takes every request.
#[derive(Debug)]
pub struct Lambda {
    forward: Forward,
}

impl Lambda {
    /// Returns the action that sends calls to an upstream.
    pub fn new(call: LambdaCall, forward: Forward) -> Self {
        let host = Host::Text(call.host().clone());
        Self { forward: Forward { host, translations: vec![Box::new(call)], ..forward } }
    }

    /// Returns how it forwards.
    pub fn forward(&self) -> &Forward {
        &self.forward
    }
}

impl HttpAction for Lambda {
    type Config = Config;

    fn compile(config: &Config, context: &mut ActionContext<'_>) -> Self {
        let place = context.place.clone();
        let upstream = find(&config.upstream, &place.key("upstream"), context);
        if config.timeout.as_ref().is_some_and(|timeout| timeout.0.is_zero()) {
            context.mistakes.add(&place.key("timeout"), "expected a time longer than nothing");
        }
        if config.streaming && (config.invocation != Invocation::RequestResponse || config.payload == Payload::Raw) {
            let text = "has no effect: only responses of payload v1 or v2 that are waited for are streamed";
            context.mistakes.add(&place.key("streaming"), text);
        }
        let function = context.mistakes.take(&place.key("function"), FunctionName::parse(&config.function));
        let mut function = function.unwrap_or_else(|| FunctionName {
            name: String::new(),
            region: None,
            account: None,
            qualifier: None,
        });
        if config.qualifier.is_some() && function.qualifier.is_some() {
            context.mistakes.add(&place.key("qualifier"), "function names one already: leave one of both out");
        }
        function.qualifier = function.qualifier.or_else(|| config.qualifier.clone());
        let region = region(&function, config.region.as_deref(), context);
        let binary_types = binary_types(config, context);
        let host = config.host.as_ref().map(|host| host.0.clone());
        let call = LambdaCall {
            path: call::path(&function, config.streaming),
            name: call::shown(&function),
            account: function.account.unwrap_or_default(),
            host: host.unwrap_or_else(|| default_host(&region)),
            credentials: AwsCredentials::compile(&config.credentials, &region, &place.key("credentials"), context),
            region,
            format: config.payload.format(),
            invocation: config.invocation,
            streaming: config.streaming,
            binary_types,
            stage: config.stage.clone().unwrap_or_else(|| "$default".to_owned()),
            stage_variables: Vec::new(),
            resource: None,
        };
        let timeout = config.timeout.as_ref().map(|timeout| timeout.0);
        Self::new(call, Forward { timeout, ..Forward::to(upstream) })
    }

    fn headers_read(_config: &Config) -> Vec<(HeaderName, Vec<String>)> {
        Vec::new()
    }

    fn on_request(&self, _view: &RequestView<'_>) -> ActionOutcome<'_> {
        ActionOutcome::Forward(&self.forward)
    }

    fn describe(&self) -> Vec<String> {
        self.forward.describe()
    }
}

impl Payload {
    /// Returns the form of events.
    pub fn format(self) -> EventFormat {
        match self {
            Self::V1 => EventFormat::V1,
            Self::V2 => EventFormat::V2,
            Self::Raw => EventFormat::Raw,
        }
    }
}

/// Returns the region, and notes if there is none, or two.
fn region(function: &FunctionName, named: Option<&str>, context: &mut ActionContext<'_>) -> String {
    let place = context.place.key("region");
    let fine = |region: &str| {
        !region.is_empty()
            && region.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    match (named, function.region.as_deref()) {
        (Some(named), Some(known)) if named != known => {
            context.mistakes.add(&place, format!("the ARN of the function is one of {known}: leave one of both out"));
        }
        (Some(named), _) if !fine(named) => {
            context.mistakes.add(&place, format!("expected a region such as us-east-1, found \"{named}\""));
        }
        (None, None) => {
            let text = "set region: the name of the function does not say it, as an ARN does";
            context.mistakes.add(&context.place.key("function"), text);
        }
        _ => {}
    }
    named.or(function.region.as_deref()).unwrap_or_default().to_owned()
}

/// Returns the domain of AWS's services in a region.
fn domain(region: &str) -> &'static str {
    if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" }
}

/// Returns the host of AWS Lambda in a region.
pub fn default_host(region: &str) -> HeaderValue {
    let text = format!("lambda.{region}.{}", domain(region));
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("lambda"))
}

fn binary_types(config: &Config, context: &mut ActionContext<'_>) -> Vec<MediaRange> {
    let Some(list) = &config.binary_types else { return default_binary_types() };
    for (index, text) in list.iter().enumerate() {
        let fine = text.split('/').count() == 2 && !text.contains([';', ',', ' ']) && !text.starts_with('/');
        if !fine {
            let place = context.place.key("binary_types").index(index);
            context.mistakes.add(&place, format!("expected a media type such as image/*, found \"{text}\""));
        }
    }
    list.iter().map(|text| MediaRange::new(text)).collect()
}

/// Returns the media types of bodies that are sent as base64 by default.
pub fn default_binary_types() -> Vec<MediaRange> {
    BINARY_TYPES.iter().map(|text| MediaRange::new(text)).collect()
}
