//! `mock`: a fixed response.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use serde_json::{Map, Value};

use super::MockResponse;
use super::compile::Reading;
use crate::actions::ActionContext;

/// Returns the response: that of `responses` for the status in the request template.
pub fn response(reading: &Reading<'_>, context: &mut ActionContext<'_>) -> Option<MockResponse> {
    let wanted = wanted_status(reading, context)?;
    let responses = reading.members.get("responses").and_then(Value::as_object);
    let found = responses.and_then(|all| all.get(&wanted.to_string()).or_else(|| all.get("default")));
    let Some(found) = found.and_then(Value::as_object) else {
        let text = format!("expected a response for {wanted}, or default");
        reading.fault("responses", &text, context);
        return None;
    };
    let status = match found.get("statusCode") {
        None => Some(wanted),
        Some(Value::String(text)) => text.parse().ok(),
        Some(other) => other.as_u64().and_then(|status| u16::try_from(status).ok()),
    };
    let Some(status) = status.filter(|status| (200..=599).contains(status)) else {
        reading.fault("responses", "expected a statusCode of 200 to 599", context);
        return None;
    };
    let mut headers = headers(found, reading, context)?;
    let templates = found.get("responseTemplates").and_then(Value::as_object);
    let template = templates.and_then(|all| all.get_key_value("application/json").or_else(|| all.iter().next()));
    let body = match template.map(|(kind, text)| (kind, text.as_str().unwrap_or_default())) {
        Some((kind, text)) if !text.is_empty() && !matches!(status, 204 | 304) => {
            if text.contains(['$', '#']) {
                reading.fault(
                    "responses",
                    "the templates of responses (VTL) are not supported: only texts are",
                    context,
                );
                return None;
            }
            if !headers.iter().any(|(name, _)| *name == CONTENT_TYPE) {
                headers.push((CONTENT_TYPE, HeaderValue::from_str(kind).ok()?));
            }
            Bytes::copy_from_slice(text.as_bytes())
        }
        _ => Bytes::new(),
    };
    Some(MockResponse { status, headers, body })
}

/// Returns the status that the request template gives: `{"statusCode": 200}`.
fn wanted_status(reading: &Reading<'_>, context: &mut ActionContext<'_>) -> Option<u16> {
    let templates = reading.members.get("requestTemplates").and_then(Value::as_object);
    let Some(template) = templates.and_then(|all| all.values().next()) else { return Some(200) };
    let parsed: Option<Value> = template.as_str().and_then(|text| serde_json::from_str(text).ok());
    let status = parsed.as_ref().and_then(|value| value.get("statusCode")).and_then(Value::as_u64);
    let status = status.and_then(|status| u16::try_from(status).ok()).filter(|status| (200..=599).contains(status));
    if status.is_none() {
        let text = "expected a template such as {\"statusCode\": 200}: other templates (VTL) are not supported";
        reading.fault("requestTemplates", text, context);
    }
    status
}

/// Returns the headers of `responseParameters`: `method.response.header.NAME: "'value'"`.
fn headers(
    response: &Map<String, Value>,
    reading: &Reading<'_>,
    context: &mut ActionContext<'_>,
) -> Option<Vec<(HeaderName, HeaderValue)>> {
    let mut headers = Vec::new();
    let parameters = response.get("responseParameters").and_then(Value::as_object);
    for (to, from) in parameters.into_iter().flatten() {
        let name = to.strip_prefix("method.response.header.").and_then(|name| name.parse::<HeaderName>().ok());
        let value = from.as_str().and_then(|text| text.strip_prefix('\'')?.strip_suffix('\''));
        let value = value.and_then(|text| HeaderValue::from_str(text).ok());
        let (Some(name), Some(value)) = (name, value) else {
            let text = format!("expected method.response.header.NAME with a text in single quotes, found {to}: {from}");
            reading.fault("responses", &text, context);
            return None;
        };
        headers.push((name, value));
    }
    Some(headers)
}
