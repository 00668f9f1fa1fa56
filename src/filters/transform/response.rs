//! The steps that change responses.

use std::sync::Arc;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use pingora::http::ResponseHeader;

use super::Filter;
use super::compile::{Compiler, HeadChanges, HeadTarget};
use super::config::{CookieAttributes, ResponseStep};
use super::cookies::edit_cookies;
use super::facts::HeadValues;
use super::ops::{BodyChange, StepList, Values};
use super::request::is_of_format;
use super::when::ResponseCondition;
use crate::exchange::{Edit, Reason, Rejection};
use crate::filters::json::{is_editable, is_other_charset};
use crate::filters::{BodyStep, ResponseView};
use crate::notation::{Place, Statuses};
use crate::rules::payload::Opaque;
use crate::rules::templating::BodyTemplate;

/// A compiled step.
#[derive(Debug)]
pub(super) struct ResponsePart {
    when: Option<ResponseCondition>,
    status: Vec<(Statuses, StatusCode)>,
    edits: Vec<Edit>,
    pub rendered: Vec<(HeadTarget, BodyTemplate)>,
    cookies: Vec<(String, CookieAttributes)>,
    /// The changes of the body.
    pub body: Vec<Arc<BodyChange>>,
}

impl ResponsePart {
    /// Returns whether the step changes the body, or depends on the status.
    pub fn needs_whole(&self) -> bool {
        let reads_response = || self.rendered.iter().any(|(_, template)| template.reads("response"));
        !self.body.is_empty() || self.when.is_some() || !self.status.is_empty() || reads_response()
    }

    /// Compiles a step, and notes errors.
    pub fn compile(config: &ResponseStep, place: &Place, compiler: &mut Compiler<'_, '_>) -> Self {
        let when = config.when.as_ref().and_then(|source| {
            let condition = ResponseCondition::compile(source);
            compiler.mistakes().take(&place.key("when"), condition)
        });
        let mut status = Vec::new();
        for (from, to) in &config.status {
            let place = place.key("status").key(from.clone());
            let from = from.parse::<Statuses>().map_err(|wanted| format!("expected {wanted}"));
            let to = match *to {
                204..=206 | 304 => Err("a status with content of its own kind cannot be set".to_owned()),
                200..=599 => StatusCode::from_u16(*to).map_err(|error| error.to_string()),
                _ => Err("expected a status from 200 to 599".to_owned()),
            };
            let from = compiler.mistakes().take(&place, from);
            status.extend(from.zip(compiler.mistakes().take(&place, to)));
        }
        let mut head = HeadChanges::default();
        compiler.headers(&mut head, &config.headers, &place.key("headers"));
        for (name, attributes) in &config.cookies {
            let place = place.key("cookies").key(name.clone());
            if *attributes == CookieAttributes::default() {
                compiler.mistakes().add(&place, "changes no attribute");
            }
            let is_text = |text: &String| !text.contains([';', '\r', '\n', '\0']);
            if ![&attributes.domain, &attributes.path].into_iter().flatten().all(is_text) {
                compiler.mistakes().add(&place, "an attribute has no semicolon and no line break");
            }
        }
        let cookies: Vec<_> = config.cookies.iter().map(|(name, one)| (name.clone(), one.clone())).collect();
        let body = compiler.body(config.convert.as_ref(), &config.json, config.body.as_ref(), place);
        let is_empty = status.is_empty() && cookies.is_empty() && head.edits.is_empty() && head.rendered.is_empty();
        if is_empty && body.is_empty() && compiler.mistakes().is_empty() {
            compiler.mistakes().add(place, "a step that changes nothing");
        }
        Self { when, status, edits: head.edits, rendered: head.rendered, cookies, body }
    }
}

impl Filter {
    /// Changes the head of a response, and returns the change of its body.
    pub(super) fn edit_response(&self, response: &mut ResponseHeader, view: &ResponseView<'_>) -> BodyStep {
        let mut steps = StepList::default();
        let mut is_changed = false;
        for part in &self.response {
            if part.when.as_ref().is_some_and(|when| !when.holds(response, view)) {
                continue;
            }
            edit_status(response, &part.status);
            Edit::apply_to_response(&part.edits, response, &view.request_view());
            self.edit_rendered(response, part, view)?;
            edit_cookies(response, &part.cookies);
            for change in &part.body {
                is_changed |= self.add_change(change, response, view, &mut steps)?;
            }
        }
        Ok(is_changed.then(|| Box::new(steps) as _))
    }

    fn edit_rendered(
        &self,
        response: &mut ResponseHeader,
        part: &ResponsePart,
        view: &ResponseView<'_>,
    ) -> Result<(), Box<Rejection>> {
        for (target, template) in &part.rendered {
            let heads = HeadValues::new(view.request, view.exchange, Some(response), &|path| template.reads(path));
            let text = template.render(heads.of_heads()).map_err(opaque)?;
            let value = HeaderValue::from_str(text.trim()).map_err(|_| opaque("a value cannot be that of a header"))?;
            match target {
                HeadTarget::SetHeader(name) if value.is_empty() => _ = response.remove_header(name),
                HeadTarget::SetHeader(name) => _ = response.insert_header(name.clone(), value),
                HeadTarget::AddHeader(name) => _ = response.append_header(name.clone(), value),
                _ => {}
            }
        }
        Ok(())
    }

    /// Adds the step of a change, if it is for a response of this kind. Returns whether it is.
    fn add_change(
        &self,
        change: &Arc<BodyChange>,
        response: &mut ResponseHeader,
        view: &ResponseView<'_>,
        steps: &mut StepList,
    ) -> Result<bool, Box<Rejection>> {
        let content_type = match &**change {
            BodyChange::Json(_) => {
                if !is_editable(response, self.other, change.is_ascii())? {
                    return Ok(false);
                }
                None
            }
            BodyChange::Convert(convert) => {
                if !is_of_format(&response.headers, convert) || is_empty(&response.headers) {
                    return Ok(false);
                }
                check_whole(response)?;
                Some(convert.content_type())
            }
            BodyChange::New(new) => {
                if is_empty(&response.headers) {
                    return Ok(false);
                }
                Some(new.content_type.clone())
            }
        };
        // A body that follows neither the head of the response nor the request has none to change.
        let has_content = view.request.method != Method::HEAD && !matches!(response.status.as_u16(), 204 | 304);
        if has_content {
            let most = usize::try_from(self.most).unwrap_or(usize::MAX);
            if change.needs_whole() && length(&response.headers).is_some_and(|length| length > self.most) {
                return Err(opaque(Opaque::TooLarge.to_string()));
            }
            let heads = HeadValues::new(view.request, view.exchange, Some(response), &|path| self.reads(path));
            let values = Values { heads: Arc::new(heads), of_request: false };
            steps.0.push(change.step(&values, most).map_err(|why| opaque(why.to_string()))?);
        }
        content_type.into_iter().for_each(|value| _ = response.insert_header(CONTENT_TYPE, value));
        Ok(true)
    }
}

fn opaque(why: impl Into<String>) -> Box<Rejection> {
    Rejection::new(Reason::ResponseOpaque, "").log(why)
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn is_empty(headers: &HeaderMap) -> bool {
    length(headers) == Some(0)
}

/// Rejects a part of a document, and one in another encoding than UTF-8.
fn check_whole(response: &ResponseHeader) -> Result<(), Box<Rejection>> {
    if response.status == StatusCode::PARTIAL_CONTENT {
        return Err(opaque("the response is partial although the whole was requested"));
    }
    if is_other_charset(&response.headers, false) {
        return Err(opaque("the response is not UTF-8"));
    }
    Ok(())
}

/// Sets the status that stands for that of the response. One that says what the content is stays.
fn edit_status(response: &mut ResponseHeader, map: &[(Statuses, StatusCode)]) {
    let status = response.status.as_u16();
    if matches!(status, 204 | 206 | 304) || status < 200 {
        return;
    }
    if let Some((_, to)) = map.iter().find(|(from, _)| from.contains(status)) {
        let _ = response.set_status(*to);
    }
}
