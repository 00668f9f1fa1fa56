//! Reads the integrations of a document, and notes what is not supported.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

use super::{Config, Integration, http_proxy, mock};
use crate::actions::forward::{Forward, find};
use crate::actions::lambda::{AwsCredentials, Lambda, LambdaCall, Payload, default_binary_types, default_host};
use crate::actions::{ActionContext, lambda};
use crate::notation::{Mistake, nearest};
use crate::rules::aws::{EventFormat, integration_function};
use crate::rules::schema::SchemaFault;
use crate::rules::schema::openapi::Operation;

/// The time of an integration that has none.
const TIMEOUT: Duration = Duration::from_secs(29);

/// The keys of an integration.
const KEYS: &[&str] = &[
    "type",
    "uri",
    "httpMethod",
    "payloadFormatVersion",
    "timeoutInMillis",
    "passthroughBehavior",
    "contentHandling",
    "cacheNamespace",
    "cacheKeyParameters",
    "connectionType",
    "connectionId",
    "credentials",
    "requestParameters",
    "requestTemplates",
    "responses",
    "responseTransferMode",
    "tlsConfig",
    "integrationSubtype",
];

/// An integration that is read, and the errors in it.
pub struct Reading<'r> {
    /// Its settings.
    pub members: &'r Map<String, Value>,
    /// Its operation.
    pub operation: &'r Operation,
    /// The variables of the stage.
    pub variables: &'r BTreeMap<String, String>,
    at: &'r SchemaFault,
}

impl Reading<'_> {
    /// Notes an error in it, at `key` if that is given.
    pub fn fault(&self, key: &str, text: &str, context: &mut ActionContext<'_>) {
        let place = if key.is_empty() { String::new() } else { format!("/{key}") };
        fault(self.at, &format!("{place}: {text}"), context);
    }

    /// Returns a text with its stage variables, and notes those that there are not.
    pub fn text(&self, key: &str, context: &mut ActionContext<'_>) -> Option<String> {
        let mut text = self.members.get(key).and_then(Value::as_str)?.to_owned();
        while let Some(at) = text.find("${stageVariables.") {
            let end = text[at..].find('}').map(|end| at + end)?;
            let name = text[at + "${stageVariables.".len()..end].to_owned();
            let Some(value) = self.variables.get(&name) else {
                let near = nearest(&name, self.variables.keys().map(String::as_str));
                self.fault(key, &format!("there is no stage variable \"{name}\" in stage_variables{near}"), context);
                return None;
            };
            if value.contains("${") {
                self.fault(key, "the value of a stage variable names another", context);
                return None;
            }
            text.replace_range(at..=end, value);
        }
        Some(text)
    }
}

fn fault(at: &SchemaFault, text: &str, context: &mut ActionContext<'_>) {
    context.mistakes.0.push(Mistake {
        place: context.place.clone(),
        text: format!("{}{text}", at.pointer),
        location: at.location.clone(),
    });
}

/// Returns what is done for each operation.
pub fn operations(config: &Config, context: &mut ActionContext<'_>) -> Vec<Integration> {
    // Without a document there is an error already.
    let Some(api) = context.api else { return Vec::new() };
    let mut used = Used::default();
    if config.payload == Some(Payload::Raw) {
        context.mistakes.add(&context.place.key("payload"), "expected v1 or v2, which API Gateway knows");
    }
    let all = api.operations().iter().map(|operation| one(operation, config, &mut used, context)).collect();
    if config.lambda.is_some() && !used.lambda {
        context.mistakes.add(&context.place.key("lambda"), "has no effect: no operation calls a function");
    }
    for url in config.http.keys().filter(|url| !used.http.contains(*url)) {
        context
            .mistakes
            .add(&context.place.key("http").key(url.clone()), "has no effect: no operation is forwarded there");
    }
    all
}

/// The settings that integrations have used.
#[derive(Default)]
struct Used {
    lambda: bool,
    http: Vec<String>,
}

fn one(operation: &Operation, config: &Config, used: &mut Used, context: &mut ActionContext<'_>) -> Integration {
    let Some(integration) = &operation.integration else {
        fault(&operation.at, ": the operation has no x-amazon-apigateway-integration", context);
        return Integration::None;
    };
    let Value::Object(members) = &integration.value else {
        fault(&integration.at, ": expected a mapping", context);
        return Integration::None;
    };
    let reading = Reading { members, operation, variables: &config.stage_variables, at: &integration.at };
    for key in members.keys().filter(|key| !KEYS.contains(&key.as_str())) {
        let near = nearest(key, KEYS.iter().copied());
        reading.fault(key, &format!("an integration has no such key{near}"), context);
    }
    if members.contains_key("integrationSubtype") {
        reading.fault("integrationSubtype", "integrations with other services of AWS are not supported", context);
        return Integration::None;
    }
    let kind = members.get("type").and_then(Value::as_str).unwrap_or_default();
    match kind.to_ascii_lowercase().as_str() {
        "aws_proxy" => {
            used.lambda = true;
            function(&reading, config, context)
        }
        "http_proxy" => match http_proxy::forward(&reading, config, timeout(&reading, config, context), context) {
            Some((url, forward)) => {
                used.http.push(url);
                Integration::Http(Box::new(forward))
            }
            None => Integration::None,
        },
        "mock" => mock::response(&reading, context).map_or(Integration::None, Integration::Mock),
        known @ ("aws" | "http") => {
            let text = format!(
                "the type {kind} is not supported, since its templates (VTL) are not: use {known}_proxy, or transform"
            );
            reading.fault("type", &text, context);
            Integration::None
        }
        other => {
            let near = nearest(other, ["aws_proxy", "http_proxy", "mock"]);
            reading.fault("type", &format!("expected aws_proxy, http_proxy or mock, found \"{kind}\"{near}"), context);
            Integration::None
        }
    }
}

/// Returns the call of the function that an integration names.
fn function(reading: &Reading<'_>, config: &Config, context: &mut ActionContext<'_>) -> Integration {
    let method = reading.members.get("httpMethod").and_then(Value::as_str).unwrap_or_default();
    if method != "POST" {
        reading.fault(
            "httpMethod",
            &format!("expected POST, with which functions are called, found \"{method}\""),
            context,
        );
    }
    if reading.members.contains_key("requestParameters") {
        reading.fault("requestParameters", "has no effect: a function gets the request as it is", context);
    }
    let uri = reading.text("uri", context).unwrap_or_default();
    let streamed =
        uri.replace("/2021-11-15/", "/2015-03-31/").replace("/response-streaming-invocations", "/invocations");
    let streaming = streamed != uri;
    let function = match integration_function(&streamed) {
        Ok(function) => function,
        Err(text) => {
            reading.fault("uri", &text, context);
            return Integration::None;
        }
    };
    let Some(upstream) = &config.lambda else {
        let text = "set lambda to the upstream that functions are called at";
        context.mistakes.add(&context.place.clone(), text);
        return Integration::None;
    };
    let upstream = find(upstream, &context.place.key("lambda"), context);
    let region = function.region.clone().unwrap_or_default();
    let credentials = AwsCredentials::compile(&config.credentials, &region, &context.place.key("credentials"), context);
    let call = LambdaCall {
        path: lambda::path(&function, streaming),
        name: lambda::shown(&function),
        account: function.account.unwrap_or_default(),
        host: config.host.as_ref().map_or_else(|| default_host(&region), |host| host.0.clone()),
        credentials,
        region,
        format: format(reading, config, context),
        invocation: lambda::Invocation::RequestResponse,
        streaming,
        binary_types: default_binary_types(),
        stage: config.stage.clone().unwrap_or_else(|| "$default".to_owned()),
        stage_variables: config.stage_variables.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
        resource: Some(reading.operation.template.clone()),
    };
    let timeout = timeout(reading, config, context);
    Integration::Function(Box::new(Lambda::new(call, Forward { timeout: Some(timeout), ..Forward::to(upstream) })))
}

fn format(reading: &Reading<'_>, config: &Config, context: &mut ActionContext<'_>) -> EventFormat {
    let named = match reading.members.get("payloadFormatVersion") {
        None => None,
        Some(Value::String(text)) => Some(text.clone()),
        // Without quotes in YAML.
        Some(other) => Some(other.to_string()),
    };
    match named.as_deref() {
        None => config.payload.unwrap_or(Payload::V1).format(),
        Some("1.0" | "1") => EventFormat::V1,
        Some("2.0" | "2") => EventFormat::V2,
        Some(other) => {
            reading.fault("payloadFormatVersion", &format!("expected \"1.0\" or \"2.0\", found {other}"), context);
            EventFormat::V1
        }
    }
}

fn timeout(reading: &Reading<'_>, config: &Config, context: &mut ActionContext<'_>) -> Duration {
    match reading.members.get("timeoutInMillis") {
        None => config.timeout.as_ref().map_or(TIMEOUT, |timeout| timeout.0),
        Some(value) => match value.as_u64().filter(|millis| (50..=900_000).contains(millis)) {
            Some(millis) => Duration::from_millis(millis),
            None => {
                reading.fault("timeoutInMillis", "expected 50 to 900000", context);
                TIMEOUT
            }
        },
    }
}
