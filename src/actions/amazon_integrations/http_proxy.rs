//! `http_proxy`: forwards to another URL, with values of the request in its path, query and headers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Uri};
use serde_json::Value;

use super::Config;
use super::compile::Reading;
use crate::actions::ActionContext;
use crate::actions::forward::{Forward, Host, PathEdit, ShareEdits, find};
use crate::exchange::{Template, TextForm, TextScope};
use crate::filters::HeaderEdits;
use crate::notation::{HeaderText, nearest};
use crate::rules::routing::PathPattern;

/// Returns the URL without its path, as the configuration names it, and how requests are forwarded.
pub fn forward(
    reading: &Reading<'_>,
    config: &Config,
    timeout: Duration,
    context: &mut ActionContext<'_>,
) -> Option<(String, Forward)> {
    check_method(reading, context);
    let uri = reading.text("uri", context)?;
    let path_at = uri.find("://").and_then(|at| uri[at + 3..].find('/').map(|path| at + 3 + path)).unwrap_or(uri.len());
    let (origin, path) = uri.split_at(path_at);
    let parsed = origin.parse::<Uri>().ok().filter(|url| matches!(url.scheme_str(), Some("http" | "https")));
    let Some(authority) = parsed.as_ref().and_then(Uri::authority) else {
        reading.fault("uri", &format!("expected an http(s) URL, found \"{uri}\""), context);
        return None;
    };
    let Some(upstream) = config.http.get(origin) else {
        let near = nearest(origin, config.http.keys().map(String::as_str));
        let text = format!("set http to the upstream of this URL: {{\"{origin}\": UPSTREAM}}{near}");
        reading.fault("uri", &text, context);
        return None;
    };
    let upstream = find(upstream, &context.place.key("http").key(origin.to_owned()), context);
    let mapping = Mapping::of(reading, context);
    let target = mapping.path(path, reading, context)?;
    let params = params(reading);
    let scope = TextScope { form: TextForm::Target, errors: false, params: &|| params.clone() };
    let mut template = |key: &str, text: &str| match Template::new(text, &scope) {
        Ok(template) => Some(template),
        Err(text) => {
            reading.fault(key, &text, context);
            None
        }
    };
    let parameter = |(name, value): (&String, &String)| {
        let encoded = percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC);
        Some((name.clone(), template("requestParameters", &format!("?{encoded}={value}"))?))
    };
    let parameters = mapping.query.iter().filter_map(parameter).collect();
    let template = template("uri", &target)?;
    let place = context.place.clone();
    let request = mapping.headers.compile(&place, &|| params.clone(), context.mistakes);
    let share_edits = vec![ShareEdits { request, response: Arc::new([]) }];
    let forward = Forward {
        path: PathEdit::Rewrite(template),
        parameters,
        host: Host::Text(HeaderValue::from_str(authority.as_str()).ok()?),
        timeout: Some(timeout),
        share_edits: if mapping.headers.is_empty() { Vec::new() } else { share_edits },
        ..Forward::to(upstream)
    };
    Some((origin.to_owned(), forward))
}

fn check_method(reading: &Reading<'_>, context: &mut ActionContext<'_>) {
    let method = reading.members.get("httpMethod").and_then(Value::as_str).unwrap_or_default();
    let own = reading.operation.method.as_str();
    if !method.eq_ignore_ascii_case("ANY") && !method.eq_ignore_ascii_case(own) {
        let text = format!("expected {own}, which is the operation's, or ANY, found \"{method}\"");
        reading.fault("httpMethod", &text, context);
    }
}

/// Returns the names of the parameters of the path.
fn params(reading: &Reading<'_>) -> Vec<String> {
    let path = &reading.operation.path;
    let is_rest = matches!(path.pattern, PathPattern::Segments { rest: true, .. });
    let mut names: Vec<String> = path.params.iter().map(|(name, _)| name.clone()).collect();
    if is_rest {
        names.pop();
        names.push("*".to_owned());
    }
    names
}

/// The values of a request for the path, the query and the headers of the target, as texts with names in braces.
#[derive(Default)]
struct Mapping {
    path: BTreeMap<String, String>,
    query: BTreeMap<String, String>,
    headers: HeaderEdits,
}

impl Mapping {
    fn of(reading: &Reading<'_>, context: &mut ActionContext<'_>) -> Self {
        let mut mapping = Self::default();
        let parameters = reading.members.get("requestParameters").and_then(Value::as_object);
        for (to, from) in parameters.into_iter().flatten() {
            let unsupported = |context: &mut ActionContext<'_>| {
                let text = format!(
                    "expected integration.request.path.NAME, .querystring.NAME or .header.NAME with \
                     method.request.… of the same kinds, a stage variable or a text in quotes, found {to}: {from}"
                );
                reading.fault("requestParameters", &text, context);
            };
            let Some(value) = from.as_str().and_then(|from| value_of(from, reading)) else {
                unsupported(context);
                continue;
            };
            match to.strip_prefix("integration.request.").and_then(|rest| rest.split_once('.')) {
                Some(("path", name)) => _ = mapping.path.insert(name.to_owned(), value),
                Some(("querystring", name)) => _ = mapping.query.insert(name.to_owned(), value),
                Some(("header", name)) => match HeaderValue::from_str(&value) {
                    Ok(value) => _ = mapping.headers.set.insert(name.to_ascii_lowercase(), HeaderText(value)),
                    Err(_) => unsupported(context),
                },
                _ => unsupported(context),
            }
        }
        mapping
    }

    /// Returns the path of the target, with the query of the URL.
    fn path(&self, path: &str, reading: &Reading<'_>, context: &mut ActionContext<'_>) -> Option<String> {
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        let mut out = String::new();
        let mut rest = if path.is_empty() { "/" } else { path };
        while let Some((before, behind)) = rest.split_once('{') {
            let (name, after) = behind.split_once('}')?;
            out.push_str(before);
            let name = name.trim_end_matches('+');
            match self.path.get(name).cloned().or_else(|| param(name, reading)) {
                Some(value) => out.push_str(&value),
                None => {
                    let text = format!("the parameter {{{name}}} has no value: set integration.request.path.{name}");
                    reading.fault("uri", &text, context);
                    return None;
                }
            }
            rest = after;
        }
        out.push_str(rest);
        out.extend(query.into_iter().flat_map(|query| ["?", query]));
        Some(out)
    }
}

/// Returns the text for a parameter of the operation's path.
fn param(name: &str, reading: &Reading<'_>) -> Option<String> {
    let path = &reading.operation.path;
    let at = path.params.iter().position(|(known, _)| known == name)?;
    let is_rest = matches!(path.pattern, PathPattern::Segments { rest: true, .. }) && at + 1 == path.params.len();
    Some(if is_rest { "{*}".to_owned() } else { format!("{{{name}}}") })
}

/// Returns the text for the source of a parameter.
fn value_of(from: &str, reading: &Reading<'_>) -> Option<String> {
    if let Some(text) = from.strip_prefix('\'').and_then(|text| text.strip_suffix('\'')) {
        return (!text.contains(['{', '}'])).then(|| text.to_owned());
    }
    if let Some(name) = from.strip_prefix("stageVariables.") {
        return reading.variables.get(name).cloned();
    }
    if let Some(fact) = from.strip_prefix("context.") {
        let named = [
            ("identity.sourceIp", "{client}"),
            ("requestId", "{request_id}"),
            ("httpMethod", "{method}"),
            ("path", "{path}"),
            ("domainName", "{host}"),
        ];
        return named.iter().find(|(known, _)| *known == fact).map(|(_, text)| (*text).to_owned());
    }
    match from.strip_prefix("method.request.")?.split_once('.')? {
        ("path", name) => param(name, reading),
        ("querystring", name) => Some(format!("{{query.{name}}}")),
        ("header", name) => Some(format!("{{header.{}}}", name.to_ascii_lowercase())),
        _ => None,
    }
}
