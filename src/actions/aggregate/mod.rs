//! `aggregate`: responds with the merged results of several calls to upstreams.

mod compile;
mod condition;
mod config;
mod outcome;
mod reads;
mod text;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use minijinja::{Value, context};

use super::{ActionContext, ActionOutcome, HttpAction};
use crate::exchange::{Reason, Rejection, RequestValue, RequestView, Template};
use crate::notation::Statuses;
use crate::rules::aggregation::{Conflicts, JsonPath, merge_flat, merge_named};
use crate::rules::path::{Ambiguity, hides_dot_segments};
use crate::rules::templating::{BodyTemplate, json_value};
use crate::telemetry::metrics::{METRICS, PartMetrics};
use crate::upstreams::Upstream;

use condition::CallCondition;
use text::{CallText, CallValue};

pub use config::{Config, FailureStatus};
pub use outcome::{CallFault, CallPart, FaultKind};
pub use text::{CallInputs, CallResult, MissingValue};

/// Several calls, and the merge of their results.
#[derive(Debug)]
pub struct Aggregate {
    /// The calls.
    pub calls: Vec<Call>,
    /// The time from the request's arrival to the end of the last call.
    pub timeout: Duration,
    /// The most calls at a time.
    pub concurrency: usize,
    /// The largest result of one call, in bytes.
    pub max_part: usize,
    /// The largest sum of all results, in bytes.
    pub max_size: usize,
    /// The largest body of the request, where calls send it on.
    pub request_body: Option<u64>,
    /// The headers of the response that come from calls: the call, its header, and the name in the response.
    pub response_headers: Vec<(usize, HeaderName, HeaderName)>,
    /// The member in which failed calls are marked.
    pub errors_member: String,
    /// The header in which failed calls are marked.
    pub errors_header: HeaderName,
    /// The status when a required call fails.
    pub failure_status: FailureStatus,
    /// The `Vary` of the response.
    pub vary: Option<HeaderValue>,
    /// Whether the result depends on facts of the client that no header of its request has.
    pub is_private: bool,
    merge: MergeForm,
}

/// The form of the result.
#[derive(Debug)]
enum MergeForm {
    /// Each result under the name of its call.
    Named,
    /// The members of all.
    Flat(Conflicts),
    /// What a template writes.
    Template(Box<BodyTemplate>),
}

/// One call.
#[derive(Debug)]
pub struct Call {
    /// Its name.
    pub name: String,
    /// The upstream.
    pub upstream: Arc<Upstream>,
    /// The method.
    pub method: Method,
    /// The headers of the client that are sent on.
    pub forward_headers: Vec<HeaderName>,
    /// The parameters of the client that are sent on.
    pub forward_query: Vec<String>,
    /// The body.
    pub body: CallBody,
    /// Its time.
    pub timeout: Option<Duration>,
    /// Whether there is no result without it.
    pub required: bool,
    /// Its result when it fails.
    pub fallback: Option<Box<str>>,
    /// The statuses that are no failure.
    pub accept: Statuses,
    /// The value of its document that is its result.
    pub take: Option<JsonPath>,
    /// Whether its result is in the response.
    pub in_result: bool,
    /// The list for whose elements it is made.
    pub for_each: Option<CallValue>,
    /// The most elements of that list.
    pub max_items: usize,
    /// The places of the calls that it needs.
    pub needs: Vec<usize>,
    /// The headers of its response that others use.
    pub kept_headers: Vec<HeaderName>,
    path: CallText,
    query: Vec<(String, CallText)>,
    headers: Vec<(HeaderName, CallText)>,
    condition: Option<CallCondition>,
    written_path: String,
    metrics: OnceLock<Arc<PartMetrics>>,
}

/// The body of a call.
#[derive(Debug)]
pub enum CallBody {
    /// None.
    None,
    /// The client's, with its media type.
    Client,
    /// A text of that media type.
    Text(CallTextBody),
}

/// A body that is a text.
#[derive(Debug)]
pub struct CallTextBody {
    text: CallText,
    content_type: HeaderValue,
}

/// A request for one call, ready to be sent.
#[derive(Debug)]
pub struct CallRequest {
    /// The path, with the query of the configuration behind that of the client.
    pub path: String,
    /// The query of the configuration.
    pub query: String,
    /// The headers of the configuration, with the media type of a body that is a text.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body that is a text.
    pub body: Option<Bytes>,
}

impl HttpAction for Aggregate {
    type Config = Config;

    fn compile(config: &Config, context: &mut ActionContext<'_>) -> Self {
        compile::compile(config, context)
    }

    fn headers_read(config: &Config) -> Vec<(HeaderName, Vec<String>)> {
        let of_call = |(index, call): (usize, &config::CallConfig)| {
            let texts = [("path", &call.path)].into_iter().chain(call.body.iter().map(|body| ("body", body)));
            let texts = texts.chain(call.query.values().map(|text| ("query", text)));
            let texts = texts.chain(call.headers.values().map(|text| ("headers", text)));
            let place = |key: &str| vec!["calls".to_owned(), index.to_string(), key.to_owned()];
            let named = texts.flat_map(move |(key, text)| {
                Template::headers_in(text).into_iter().map(move |name| (name, place(key)))
            });
            named.collect::<Vec<_>>()
        };
        config.calls.iter().enumerate().flat_map(of_call).collect()
    }

    fn on_request(&self, view: &RequestView<'_>) -> ActionOutcome<'_> {
        if self.calls.iter().any(|call| call.leads_elsewhere(view)) {
            let detail = "a part of the path has an encoded slash or dot segment";
            return ActionOutcome::Reject(Rejection::new(Reason::BadPath, detail));
        }
        ActionOutcome::Aggregate(self)
    }

    fn describe(&self) -> Vec<String> {
        let merged = match self.merge {
            MergeForm::Named => "under their names",
            MergeForm::Flat(_) => "flat",
            MergeForm::Template(_) => "by a template",
        };
        let count = self.calls.len();
        let head = format!("aggregate: {count} calls within {:?}, merged {merged}", self.timeout);
        std::iter::once(head).chain(self.calls.iter().map(|call| call.describe(&self.calls))).collect()
    }
}

impl Aggregate {
    /// Returns the merged results of the calls, each with its status, in the order of the configuration; `None` is a
    /// call without a result. The list of failed calls, if there are any, is JSON.
    ///
    /// # Errors
    /// Returns why there is no result, for the log.
    pub fn merge(&self, parts: &[Option<(u16, &str)>], errors: Option<&str>) -> Result<String, String> {
        let own = errors.map(|errors| (self.errors_member.as_str(), errors));
        match &self.merge {
            MergeForm::Named => {
                let named = self.calls.iter().zip(parts).filter(|(call, _)| call.in_result);
                let named: Vec<(&str, &str)> =
                    named.filter_map(|(call, part)| Some((call.name.as_str(), part.as_ref()?.1))).collect();
                Ok(merge_named(&named, own))
            }
            MergeForm::Flat(conflicts) => {
                let in_result = self.calls.iter().zip(parts).filter(|(call, _)| call.in_result);
                let parts: Vec<&str> = in_result.filter_map(|(_, part)| Some(part.as_ref()?.1)).collect();
                merge_flat(&parts, *conflicts, own).map_err(|name| format!("several results have a member {name:?}"))
            }
            MergeForm::Template(template) => template.render(self.template_values(parts, errors)?),
        }
    }

    /// Returns the values that the template reads.
    fn template_values(&self, parts: &[Option<(u16, &str)>], errors: Option<&str>) -> Result<Value, String> {
        let mut calls: BTreeMap<&str, Value> = BTreeMap::new();
        for (call, part) in self.calls.iter().zip(parts) {
            let (status, json) = part.unwrap_or((0, "null"));
            let body = json_value(json.as_bytes())?;
            let value = context! { ok => part.is_some(), status => status, body => body };
            calls.insert(&call.name, value);
        }
        let errors = json_value(errors.unwrap_or("[]").as_bytes())?;
        Ok(context! { calls => Value::from(calls), errors => errors })
    }

    /// Returns whether the result of a call has to be an object, which is merged flat.
    pub fn needs_object(&self, call: &Call) -> bool {
        matches!(self.merge, MergeForm::Flat(_)) && call.in_result
    }
}

impl Call {
    /// Returns whether the call is made.
    ///
    /// # Errors
    /// Returns why that is not known.
    pub fn is_made(&self, inputs: &CallInputs<'_>) -> Result<bool, CallFault> {
        let Some(condition) = &self.condition else { return Ok(true) };
        let holds = condition.holds(inputs.view.request, inputs.view.exchange, inputs.result);
        holds.map_err(|why| CallFault::new(FaultKind::ConditionFailed).log(why))
    }

    /// Returns the request of the call.
    ///
    /// # Errors
    /// Returns the fault where a value is missing or cannot be used; with the call of a missing value.
    pub fn request(&self, inputs: &CallInputs<'_>) -> Result<CallRequest, (CallFault, Option<usize>)> {
        let invalid = |why: &str| (CallFault::new(FaultKind::InputInvalid).log(why), None);
        let path = self.path.fill(inputs).map_err(missing)?;
        let path = String::from_utf8(path).map_err(|_| invalid("the path is not UTF-8"))?;
        if hides_dot_segments(&path) {
            return Err(invalid("a value would lead to another path"));
        }
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, text) in &self.query {
            let value = text.fill(inputs).map_err(missing)?;
            if !value.is_empty() {
                query.append_pair(name, &String::from_utf8_lossy(&value));
            }
        }
        let mut headers = Vec::with_capacity(self.headers.len() + 1);
        for (name, text) in &self.headers {
            let value = text.fill(inputs).map_err(missing)?;
            let value = HeaderValue::from_bytes(&value).map_err(|_| invalid("a header cannot hold a value"))?;
            if !value.is_empty() {
                headers.push((name.clone(), value));
            }
        }
        let body = match &self.body {
            CallBody::Text(body) => {
                headers.push((http::header::CONTENT_TYPE, body.content_type.clone()));
                Some(Bytes::from(body.text.fill(inputs).map_err(missing)?))
            }
            CallBody::None | CallBody::Client => None,
        };
        Ok(CallRequest { path, query: query.finish(), headers, body })
    }

    /// Returns the metrics of the call in that route.
    pub fn metrics(&self, route: &str) -> &PartMetrics {
        self.metrics.get_or_init(|| METRICS.aggregate_call(route, &self.name))
    }

    /// Returns whether a part of the request's path would lead to another path than the configuration says.
    fn leads_elsewhere(&self, view: &RequestView<'_>) -> bool {
        let path = view.request.uri.path();
        if memchr::memchr2(b'%', b'.', path.as_bytes()).is_none() {
            return false;
        }
        let Some(pattern) = view.pattern else { return false };
        self.path.request_values().any(|value| match value {
            RequestValue::Param(name) => pattern
                .value(path, name)
                .is_some_and(|value| Ambiguity::of(value).encoded_slash || hides_dot_segments(value)),
            RequestValue::Rest => hides_dot_segments(pattern.rest(path)),
            _ => false,
        })
    }

    fn describe(&self, calls: &[Self]) -> String {
        let mut line = format!("call {}: {} {} of {}", self.name, self.method, self.written_path, self.upstream.name);
        if !self.needs.is_empty() {
            let names: Vec<&str> = self.needs.iter().map(|need| calls[*need].name.as_str()).collect();
            line.push_str(&format!(", after {}", names.join(" and ")));
        }
        line.push_str(if self.for_each.is_some() { ", for each element" } else { "" });
        line.push_str(if self.in_result { "" } else { ", for others" });
        line.push_str(match (self.required, &self.fallback) {
            (true, _) => "",
            (false, None) => ", optional",
            (false, Some(_)) => ", with a fallback",
        });
        line
    }
}

fn missing(MissingValue(of): MissingValue) -> (CallFault, Option<usize>) {
    (CallFault::new(FaultKind::InputMissing), of)
}
