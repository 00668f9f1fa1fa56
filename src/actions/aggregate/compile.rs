//! The compilation of an `aggregate`, with every check of what could have no effect.

use std::sync::OnceLock;
use std::time::Duration;

use http::Method;
use http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};

use super::condition::CallCondition;
use super::config::{CallConfig, Config, FailureStatus, MergeConfig};
use super::reads::ReadValues;
use super::text::{CallScope, CallText, CallValue};
use super::{Aggregate, Call, CallBody, CallTextBody, MergeForm};
use crate::actions::ActionContext;
use crate::actions::forward::find;
use crate::exchange::{RequestValue, TextForm, form_of_type};
use crate::filters::parse_editable_name;
use crate::notation::{Header, Place, Statuses, nearest};
use crate::rules::aggregation::{Conflicts, find_cycle};
use crate::rules::routing::common_params;
use crate::rules::templating::{BodyTemplate, OutputForm};

/// The time of all calls, where none is configured.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest request body that calls send on, where none is configured.
const DEFAULT_REQUEST_BODY: u64 = 1 << 20;

/// The most elements of a list that calls are made for, where no number is configured.
const DEFAULT_ITEMS: usize = 100;

/// The most calls.
const MAX_CALLS: usize = 32;

/// The word for the body of the client.
const CLIENT_BODY: &str = "client";

/// Headers that describe the body of one response, and would be wrong for another.
static OF_ONE_BODY: [HeaderName; 11] = [
    CONTENT_TYPE,
    CONTENT_LENGTH,
    http::header::CONTENT_ENCODING,
    http::header::CONTENT_RANGE,
    http::header::ACCEPT_RANGES,
    http::header::ETAG,
    http::header::LAST_MODIFIED,
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
];

/// Compiles the action.
pub fn compile(config: &Config, context: &mut ActionContext<'_>) -> Aggregate {
    let place = context.place.clone();
    let names: Vec<&str> = config.calls.iter().map(|call| call.name.as_str()).collect();
    check_names(config, &names, context);
    check_limits(config, context);
    check_results(config, context);
    let timeout = config.timeout.as_ref().map_or(DEFAULT_TIMEOUT, |timeout| timeout.0);
    let all_headers = match &config.forward_headers {
        Some(list) => header_names(list, &place.key("forward_headers"), context),
        None => vec![http::header::ACCEPT_LANGUAGE],
    };
    let mut calls = Vec::with_capacity(config.calls.len());
    for (index, call) in config.calls.iter().enumerate() {
        let place = place.key("calls").index(index);
        let mut compiler = CallCompiler { call, place, names: &names, context, needs: Vec::new() };
        calls.extend(compiler.compile(&all_headers, timeout));
    }
    let mut aggregate = Aggregate {
        timeout,
        concurrency: config.concurrency.max(1),
        max_part: usize::try_from(config.max_part.0).unwrap_or(usize::MAX),
        max_size: usize::try_from(config.max_size.0).unwrap_or(usize::MAX),
        request_body: config
            .calls
            .iter()
            .any(|call| call.body.as_deref() == Some(CLIENT_BODY))
            .then(|| config.max_request_body.as_ref().map_or(DEFAULT_REQUEST_BODY, |size| size.0)),
        response_headers: response_headers(config, &names, context),
        errors_member: config.errors.member.clone(),
        errors_header: config.errors.header.0.clone(),
        failure_status: config.failure_status,
        merge: merge_form(config, &names, context),
        vary: None,
        is_private: false,
        calls,
    };
    if aggregate.calls.len() == config.calls.len() {
        check_cycles(&aggregate.calls, context);
        keep_headers(&mut aggregate);
    }
    let reads = ReadValues::of(config, &aggregate.calls);
    aggregate.vary = reads.vary();
    aggregate.is_private = reads.is_private;
    aggregate
}

/// Checks the names of the calls, which stand in paths and in the result.
fn check_names(config: &Config, names: &[&str], context: &mut ActionContext<'_>) {
    let place = context.place.key("calls");
    if names.is_empty() || names.len() > MAX_CALLS {
        context.mistakes.add(&place, format!("expected 1 to {MAX_CALLS} calls, found {}", names.len()));
    }
    let is_name = |name: &str| {
        let fine = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        fine && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && name.len() <= 64
    };
    for (index, name) in names.iter().enumerate() {
        let place = place.index(index).key("name");
        if !is_name(name) {
            let text = format!("expected a name of at most 64 letters, digits and _, found \"{name}\"");
            context.mistakes.add(&place, text);
        } else if names[..index].contains(name) {
            context.mistakes.add(&place, format!("another call has the name \"{name}\""));
        } else if config.template.is_none()
            && config.merge.unwrap_or_default() == MergeConfig::Named
            && *name == config.errors.member
        {
            let text = format!("failed calls are marked in \"{name}\": choose another name, or another errors.member");
            context.mistakes.add(&place, text);
        }
    }
    if !is_name(&config.errors.member) {
        let text = format!("expected a name of letters, digits and _, found \"{}\"", config.errors.member);
        context.mistakes.add(&context.place.key("errors").key("member"), text);
    }
    let header = context.place.key("errors").key("header");
    parse_editable_name(config.errors.header.0.as_str(), &header, context.mistakes);
}

/// Checks limits that would have no effect.
fn check_limits(config: &Config, context: &mut ActionContext<'_>) {
    let place = context.place.clone();
    let mut note = |key: &'static str, text: String| context.mistakes.add(&place.key(key), text);
    if config.timeout.as_ref().is_some_and(|timeout| timeout.0.is_zero()) {
        note("timeout", "expected a time longer than nothing".to_owned());
    }
    if config.concurrency == 0 || config.concurrency > 256 {
        note("concurrency", format!("expected 1 to 256, found {}", config.concurrency));
    }
    if config.max_part.0 == 0 {
        note("max_part", "expected a size above nothing".to_owned());
    }
    if config.max_part.0 > config.max_size.0 {
        note("max_part", "is larger than max_size, which holds for all results together".to_owned());
    }
    let sends_body = config.calls.iter().any(|call| call.body.as_deref() == Some(CLIENT_BODY));
    if config.max_request_body.is_some() && !sends_body {
        note("max_request_body", "has no effect: no call has body: client".to_owned());
    }
    let is_required = |call: &CallConfig| call.required.unwrap_or(call.fallback.is_none());
    if config.failure_status == FailureStatus::Call && !config.calls.iter().any(is_required) {
        note("failure_status", "has no effect: no call is required".to_owned());
    }
}

/// Checks that results can be merged as the configuration says.
fn check_results(config: &Config, context: &mut ActionContext<'_>) {
    let place = context.place.key("calls");
    let is_flat = config.template.is_none() && config.merge.is_some_and(|merge| merge != MergeConfig::Named);
    for (index, call) in config.calls.iter().enumerate() {
        let place = place.index(index);
        if call.in_result.is_some() && config.template.is_some() {
            context.mistakes.add(&place.key("in_result"), "has no effect: the template makes the result");
        }
        if !is_flat || call.in_result == Some(false) {
            continue;
        }
        if call.for_each.is_some() {
            let text = "makes a list, and only objects can be merged flat: merge by name, or write in_result: false";
            context.mistakes.add(&place.key("for_each"), text);
        }
        if call.fallback.as_ref().is_some_and(|fallback| !fallback.0.is_object()) {
            context.mistakes.add(&place.key("fallback"), "expected an object: only those can be merged flat");
        }
    }
    if !config.calls.is_empty() && config.calls.iter().all(|call| call.in_result == Some(false)) {
        context.mistakes.add(&place, "no call is in the result: it would always be empty");
    }
}

/// Compiles the form of the result.
fn merge_form(config: &Config, names: &[&str], context: &mut ActionContext<'_>) -> MergeForm {
    if let Some(source) = &config.template {
        let place = context.place.key("template");
        if config.merge.is_some() {
            context.mistakes.add(&context.place.key("merge"), "has no effect: the template makes the result");
        }
        let known: Vec<String> = names.iter().map(|name| format!("calls.{name}")).collect();
        let known: Vec<&str> = known.iter().map(String::as_str).chain(["errors"]).collect();
        let most = usize::try_from(config.max_size.0).unwrap_or(usize::MAX);
        let compiled = BodyTemplate::new(source, OutputForm::Json, &known);
        return context
            .mistakes
            .take(&place, compiled)
            .map_or(MergeForm::Named, |template| MergeForm::Template(Box::new(template.with_max_output(most))));
    }
    match config.merge.unwrap_or_default() {
        MergeConfig::Named => MergeForm::Named,
        MergeConfig::FlatFirst => MergeForm::Flat(Conflicts::First),
        MergeConfig::FlatLast => MergeForm::Flat(Conflicts::Last),
        MergeConfig::FlatDistinct => MergeForm::Flat(Conflicts::Reject),
    }
}

/// Compiles the headers of the response that come from calls.
fn response_headers(
    config: &Config,
    names: &[&str],
    context: &mut ActionContext<'_>,
) -> Vec<(usize, HeaderName, HeaderName)> {
    let mut headers = Vec::new();
    for (index, header) in config.response_headers.iter().enumerate() {
        let place = context.place.key("response_headers").index(index);
        let call = names.iter().position(|name| *name == header.call);
        if call.is_none() {
            let near = nearest(&header.call, names.iter().copied());
            context.mistakes.add(&place.key("call"), format!("no call has the name \"{}\"{near}", header.call));
        }
        let name = header.name.as_ref().unwrap_or(&header.header);
        if OF_ONE_BODY.contains(&name.0) {
            let text =
                format!("{} describes the body of the call, and the result is another: give it a `name`", name.0);
            context.mistakes.add(&place.key("header"), text);
        }
        let name = parse_editable_name(name.0.as_str(), &place.key("header"), context.mistakes);
        if config.calls.get(call.unwrap_or(usize::MAX)).is_some_and(|call| call.for_each.is_some()) {
            context.mistakes.add(&place.key("call"), "the call is made for each element of a list: it has no headers");
        }
        headers.extend(call.zip(name).map(|(call, name)| (call, header.header.0.clone(), name)));
    }
    headers
}

/// Notes calls that need each other.
fn check_cycles(calls: &[Call], context: &mut ActionContext<'_>) {
    let needs: Vec<Vec<usize>> = calls.iter().map(|call| call.needs.clone()).collect();
    let Some(cycle) = find_cycle(&needs) else { return };
    let names: Vec<&str> = cycle.iter().chain(cycle.first()).map(|at| calls[*at].name.as_str()).collect();
    let place = context.place.key("calls").index(cycle[0]);
    context.mistakes.add(&place, format!("the calls need each other's results: {}", names.join(" needs ")));
}

/// Has the calls keep the headers that others use.
fn keep_headers(aggregate: &mut Aggregate) {
    let texts = aggregate.calls.iter().flat_map(Call::texts);
    let of_texts = texts.flat_map(CallText::headers).map(|(call, name)| (call, name.clone()));
    let of_response = aggregate.response_headers.iter().map(|(call, name, _)| (*call, name.clone()));
    let of_caching = (0..aggregate.calls.len()).map(|call| (call, CACHE_CONTROL));
    for (call, name) in of_texts.chain(of_response).chain(of_caching).collect::<Vec<_>>() {
        if !aggregate.calls[call].kept_headers.contains(&name) {
            aggregate.calls[call].kept_headers.push(name);
        }
    }
}

impl Call {
    /// Returns all texts.
    pub(super) fn texts(&self) -> impl Iterator<Item = &CallText> {
        let query = self.query.iter().map(|(_, text)| text);
        let headers = self.headers.iter().map(|(_, text)| text);
        let body = match &self.body {
            CallBody::Text(body) => Some(&body.text),
            CallBody::None | CallBody::Client => None,
        };
        std::iter::once(&self.path).chain(query).chain(headers).chain(body)
    }
}

fn header_names(list: &[Header], place: &Place, context: &mut ActionContext<'_>) -> Vec<HeaderName> {
    let names = list.iter().enumerate().filter_map(|(index, header)| {
        let place = place.index(index);
        if header.0 == ACCEPT_ENCODING {
            context.mistakes.add(&place, "results are decoded here: leave it out");
            return None;
        }
        parse_editable_name(header.0.as_str(), &place, context.mistakes)
    });
    names.collect()
}

/// The compiler of one call.
struct CallCompiler<'c, 'a> {
    call: &'c CallConfig,
    place: Place,
    names: &'c [&'c str],
    context: &'c mut ActionContext<'a>,
    needs: Vec<usize>,
}

impl CallCompiler<'_, '_> {
    fn compile(&mut self, all_headers: &[HeaderName], timeout: Duration) -> Option<Call> {
        let call = self.call;
        self.check(timeout);
        let upstream = find(&call.upstream, &self.place.key("upstream"), self.context);
        let for_each = self.for_each();
        let path = self.path();
        let query = call.query.iter().map(|(name, text)| {
            (name.clone(), self.text(text, TextForm::Plain, &self.place.key("query").key(name.clone())))
        });
        let query: Vec<(String, CallText)> = query.collect();
        let headers = self.headers();
        let body = self.body();
        let condition = call.when.as_ref().and_then(|source| {
            let compiled = CallCondition::new(source, self.names);
            self.context.mistakes.take(&self.place.key("when"), compiled)
        });
        let take =
            call.take.as_ref().and_then(|path| self.context.mistakes.take(&self.place.key("take"), path.parse()));
        let forward_headers = match &call.forward_headers {
            Some(list) => header_names(list, &self.place.key("forward_headers"), self.context),
            None => all_headers.to_vec(),
        };
        let mut compiled = Call {
            name: call.name.clone(),
            upstream: upstream?,
            method: call.method.0.clone(),
            forward_headers,
            forward_query: call.forward_query.clone(),
            body,
            timeout: call.timeout.as_ref().map(|timeout| timeout.0),
            required: call.required.unwrap_or(call.fallback.is_none()),
            fallback: call.fallback.as_ref().map(|json| json.0.to_string().into()),
            accept: call.accept.clone().unwrap_or_else(|| Statuses(vec![(200, 299)])),
            take,
            in_result: call.in_result.unwrap_or(true),
            for_each,
            max_items: call.max_items.unwrap_or(DEFAULT_ITEMS),
            needs: Vec::new(),
            kept_headers: Vec::new(),
            path,
            query,
            headers,
            condition,
            written_path: call.path.clone(),
            metrics: OnceLock::new(),
        };
        self.check_items(&compiled);
        self.needs.extend(compiled.texts().flat_map(CallText::calls).map(|value| value.call));
        self.needs.extend(compiled.for_each.iter().map(|value| value.call));
        self.needs.extend(compiled.condition.iter().flat_map(CallCondition::calls));
        self.needs.sort_unstable();
        self.needs.dedup();
        compiled.needs = std::mem::take(&mut self.needs);
        Some(compiled)
    }

    fn note(&mut self, key: &'static str, text: impl Into<String>) {
        self.context.mistakes.add(&self.place.key(key), text);
    }

    /// Notes settings that would have no effect, or contradict each other.
    fn check(&mut self, timeout: Duration) {
        let call = self.call;
        if call.required == Some(true) && call.fallback.is_some() {
            self.note("fallback", "is never used: the call is required");
        }
        match &call.timeout {
            Some(own) if own.0.is_zero() => self.note("timeout", "expected a time longer than nothing"),
            Some(own) if own.0 > timeout => {
                self.note("timeout", format!("has no effect: all calls together have {timeout:?}"));
            }
            _ => {}
        }
        if matches!(call.method.0, Method::GET | Method::HEAD) && call.body.is_some() {
            self.note("body", format!("{} has no body: name another method", call.method.0));
        }
        if call.method.0 == Method::HEAD {
            self.note("method", "the response to HEAD has no body, and so no result");
        }
        if call.content_type.is_some() && call.body.as_deref().is_none_or(|body| body == CLIENT_BODY) {
            self.note("content_type", "is for a body that is a text");
        }
        if call.max_items.is_some() && call.for_each.is_none() {
            self.note("max_items", "is for for_each");
        }
        if call.max_items.is_some_and(|most| most == 0 || most > 1_000) {
            self.note("max_items", "expected 1 to 1000");
        }
    }

    /// Notes a call for each element that uses none.
    fn check_items(&mut self, call: &Call) {
        let sends_item = call.texts().any(CallText::has_item);
        if call.for_each.is_some() && !sends_item {
            self.note("for_each", "no text of the call has {item}: all of its calls would be the same");
        }
    }

    fn for_each(&mut self) -> Option<CallValue> {
        let text = self.call.for_each.as_ref()?;
        let text = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or(text);
        let parsed = CallValue::parse(text, self.names);
        self.context.mistakes.take(&self.place.key("for_each"), parsed)
    }

    fn text(&mut self, text: &str, form: TextForm, place: &Place) -> CallText {
        let entries = self.context.entries;
        let has_items = self.call.for_each.is_some();
        let scope = CallScope { calls: self.names, has_items, params: &|| common_params(entries) };
        let compiled = CallText::new(text, form, &scope);
        self.context.mistakes.take(place, compiled).unwrap_or_else(CallText::empty)
    }

    fn path(&mut self) -> CallText {
        let text = self.call.path.as_str();
        let place = self.place.key("path");
        if !text.starts_with('/') {
            self.note("path", format!("expected a path that starts with /, found \"{text}\""));
        } else if text.contains(['?', '#']) {
            self.note("path", "expected a path alone: parameters are below `query`");
        }
        let path = self.text(text, TextForm::Target, &place);
        if path.request_values().any(|value| matches!(value, RequestValue::Query | RequestValue::Scheme)) {
            self.note("path", "leave {query} and {scheme} out: parameters of the client are named in forward_query");
        }
        path
    }

    fn headers(&mut self) -> Vec<(HeaderName, CallText)> {
        let call = self.call;
        let mut headers = Vec::new();
        for (name, text) in &call.headers {
            let place = self.place.key("headers").key(name.clone());
            if name.eq_ignore_ascii_case("content-type") {
                self.context.mistakes.add(&place, "write `content_type` beside `body`");
            }
            let Some(name) = parse_editable_name(name, &place, self.context.mistakes) else { continue };
            headers.push((name, self.text(text, TextForm::Header, &place)));
        }
        headers
    }

    fn body(&mut self) -> CallBody {
        let call = self.call;
        let text = match call.body.as_deref() {
            None => return CallBody::None,
            Some(CLIENT_BODY) => return CallBody::Client,
            Some(text) => text,
        };
        let kind = call.content_type.as_deref().unwrap_or("application/json");
        let place = self.place.key("body");
        let Ok(content_type) = HeaderValue::from_str(kind) else {
            self.note("content_type", "expected a media type such as application/json");
            return CallBody::None;
        };
        let text = self.text(text, form_of_type(kind.as_bytes()), &place);
        CallBody::Text(CallTextBody { text, content_type })
    }
}
