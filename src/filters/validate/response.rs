//! Responses, compared with what is declared of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use http::Method;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use pingora::http::ResponseHeader;

use super::config::ResponseMode;
use super::{ApiRules, OwnRules, Rules};
use crate::exchange::{Reason, Rejection};
use crate::filters::{BodyStep, ResponseView};
use crate::rules::payload::{Opaque, Step};
use crate::rules::schema::openapi::{BadBody, BodyForm, BodyPlan, Content, essence, form_of, read_body};
use crate::telemetry::metrics::METRICS;

/// Validates, or filters, the body of a response.
#[derive(Debug)]
pub struct ResponseStep {
    target: CheckTarget,
    mode: ResponseMode,
    form: BodyForm,
    /// The most bytes that are held.
    most: usize,
    held: Vec<u8>,
    /// Whether the body is longer, so that it is not looked into.
    is_too_long: bool,
}

/// The rules that a body is compared with.
#[derive(Debug)]
enum CheckTarget {
    /// Those of a filter.
    Own(Arc<OwnRules>),
    /// Those of an operation's response, by its number and the place of the rules in it.
    Api { rules: Arc<ApiRules>, operation: usize, status: u16, kind: String },
    /// Nothing is declared: nothing leaves.
    Nothing,
}

/// What is declared of a response.
enum Declared {
    /// The body is validated.
    Checked(CheckTarget, BodyForm),
    /// The body is not looked into.
    Opaque,
    /// The response is not declared; the text says what of it.
    Not(&'static str),
}

impl ResponseStep {
    /// Returns the step for a response, if there is something to validate.
    pub fn of(rules: &Rules, response: &mut ResponseHeader, view: &ResponseView<'_>) -> BodyStep {
        let status = response.status.as_u16();
        let is_bodiless = view.request.method == Method::HEAD
            || status == 204
            || response.headers.get(CONTENT_LENGTH).is_some_and(|length| length == "0");
        let (mode, most, key) = match rules {
            Rules::Own(own) => (own.response_mode(), own.max_response, "validate"),
            Rules::Api(api) => (api.responses, api.max_response, "openapi"),
        };
        if status < 200 || status == 304 {
            // It has no body, and is not declared where a client revalidates what it has.
            return Ok(None);
        }
        let declared = match rules {
            Rules::Own(own) if (200..300).contains(&status) => own_declared(own, response),
            Rules::Own(_) => Declared::Opaque,
            Rules::Api(api) => api_declared(api, response, view),
        };
        match declared {
            Declared::Opaque => Ok(None),
            Declared::Not(what) => match mode {
                ResponseMode::Enforce => Err(Rejection::new(Reason::ResponseInvalid, "").log(what)),
                ResponseMode::Filter if !is_bodiless => {
                    note(key, what);
                    let target = CheckTarget::Nothing;
                    Ok(Some(Self::boxed(target, mode, BodyForm::Opaque, most)))
                }
                _ => {
                    note(key, what);
                    Ok(None)
                }
            },
            // The length is that of the body before it is filtered.
            Declared::Checked(_, BodyForm::Json)
                if view.request.method == Method::HEAD && mode == ResponseMode::Filter =>
            {
                Ok(Some(Self::boxed(CheckTarget::Nothing, mode, BodyForm::Opaque, most)))
            }
            Declared::Checked(..) if is_bodiless => Ok(None),
            // A part of a document is no document.
            Declared::Checked(..) if status == 206 && mode == ResponseMode::Observe => Ok(None),
            Declared::Checked(..) if status == 206 => Err(Rejection::new(Reason::ResponseOpaque, "")
                .log("the response is partial although the whole was requested")),
            Declared::Checked(..)
                if mode == ResponseMode::Observe && response.headers.contains_key(http::header::CONTENT_ENCODING) =>
            {
                Ok(None)
            }
            Declared::Checked(target, form) => Ok(Some(Self::boxed(target, mode, form, most))),
        }
    }

    fn boxed(target: CheckTarget, mode: ResponseMode, form: BodyForm, most: usize) -> Box<dyn Step> {
        Box::new(Self { target, mode, form, most, held: Vec::new(), is_too_long: false })
    }

    fn content(&self) -> Option<&Content> {
        match &self.target {
            CheckTarget::Own(own) => own.response.as_ref().map(|(content, _)| content),
            CheckTarget::Api { rules, operation, status, kind } => {
                let rules = rules.operations().get(*operation)?.response(*status)?;
                match rules.body_plan(Some(kind)) {
                    BodyPlan::Checked(content, _) => Some(content),
                    _ => None,
                }
            }
            CheckTarget::Nothing => None,
        }
    }

    fn key(&self) -> &'static str {
        if matches!(self.target, CheckTarget::Own(_)) { "validate" } else { "openapi" }
    }

    /// Processes the whole body.
    fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), Opaque> {
        let body = std::mem::take(&mut self.held);
        let Some(content) = self.content() else { return Ok(()) };
        match self.mode {
            ResponseMode::Filter => {
                let value = read_body(self.form, &content.types, &body).map_err(|_| Opaque::Invalid)?;
                match (&content.shape, self.form) {
                    (Some(shape), BodyForm::Json) => {
                        out.extend(shape.filter(&body, &value).ok_or(Opaque::Invalid)?);
                    }
                    _ => out.extend_from_slice(&body),
                }
                Ok(())
            }
            ResponseMode::Enforce | ResponseMode::Observe | ResponseMode::Ignore => {
                let checked = content.check(self.form, &body);
                if let Err(bad) = &checked {
                    note(self.key(), &describe(bad));
                }
                if self.mode == ResponseMode::Enforce {
                    checked.map_err(|_| Opaque::Invalid)?;
                    out.extend_from_slice(&body);
                }
                Ok(())
            }
        }
    }
}

impl Step for ResponseStep {
    fn observes(&self) -> bool {
        self.mode == ResponseMode::Observe
    }

    fn holds_head(&self) -> bool {
        // Where nothing leaves, nothing can fail.
        let can_fail = !matches!(self.target, CheckTarget::Nothing);
        can_fail && matches!(self.mode, ResponseMode::Enforce | ResponseMode::Filter)
    }

    fn push(&mut self, part: &[u8], end: bool, out: &mut Vec<u8>) -> Result<(), Opaque> {
        if matches!(self.target, CheckTarget::Nothing) {
            return Ok(());
        }
        if self.observes() {
            out.extend_from_slice(part);
        }
        if self.held.len() + part.len() > self.most {
            if !self.observes() {
                return Err(Opaque::TooLong);
            }
            self.is_too_long = true;
            self.held = Vec::new();
        }
        if self.is_too_long {
            return Ok(());
        }
        self.held.extend_from_slice(part);
        if end { self.finish(out) } else { Ok(()) }
    }
}

fn kind_of(response: &ResponseHeader) -> &str {
    let kind = response.headers.get(CONTENT_TYPE).and_then(|kind: &HeaderValue| kind.to_str().ok());
    essence(kind.unwrap_or_default())
}

fn own_declared(own: &Arc<OwnRules>, response: &ResponseHeader) -> Declared {
    match form_of(kind_of(response)) {
        BodyForm::Json => Declared::Checked(CheckTarget::Own(Arc::clone(own)), BodyForm::Json),
        _ => Declared::Not("the response is not JSON"),
    }
}

fn api_declared(api: &Arc<ApiRules>, response: &ResponseHeader, view: &ResponseView<'_>) -> Declared {
    let Some(operation) = api.operation(view.exchange) else { return Declared::Opaque };
    let (status, kind) = (response.status.as_u16(), kind_of(response));
    let Some(rules) = operation.response(status) else {
        return Declared::Not("the document does not declare the status of the response");
    };
    match rules.body_plan(Some(kind)) {
        BodyPlan::Checked(_, form) => {
            let number = view.exchange.operation.and_then(|number| usize::try_from(number).ok()).unwrap_or(usize::MAX);
            let target = CheckTarget::Api { rules: Arc::clone(api), operation: number, status, kind: kind.to_owned() };
            Declared::Checked(target, form)
        }
        BodyPlan::OtherType if has_no_body(response, view) => Declared::Opaque,
        BodyPlan::OtherType => Declared::Not("the document does not declare the media type of the response"),
        BodyPlan::Opaque | BodyPlan::Nothing | BodyPlan::Missing => Declared::Opaque,
    }
}

fn has_no_body(response: &ResponseHeader, view: &ResponseView<'_>) -> bool {
    view.request.method == Method::HEAD
        || response.status.as_u16() == 204
        || response.headers.get(CONTENT_LENGTH).is_some_and(|length| length == "0")
}

fn describe(bad: &BadBody) -> String {
    match bad {
        BadBody::Json(bad) => bad.to_string(),
        BadBody::NotUtf8 => "the body is not UTF-8".to_owned(),
        BadBody::Violations(all) => all.first().map(ToString::to_string).unwrap_or_default(),
    }
}

/// Counts a response that is not as declared, and logs one of them per second.
fn note(key: &'static str, what: &str) {
    static LAST: AtomicU64 = AtomicU64::new(0);
    METRICS.would_reject(key, Reason::ResponseInvalid);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if LAST.swap(now, Ordering::Relaxed) != now {
        log::warn!("a response is not as it is declared: {what}");
    }
}
