//! The steps that change requests.

use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};
use pingora::http::RequestHeader;

use super::compile::{Compiler, HeadChanges, HeadTarget};
use super::config::RequestStep;
use super::facts::{HeadValues, REQUEST_BODY, REQUEST_JSON};
use super::ops::{BodyChange, Convert, Values};
use super::{Filter, path_values};
use crate::exchange::{Edit, Exchange, Reason, Rejection, Template, TextForm};
use crate::filters::json::{Other, is_json, is_other_charset};
use crate::filters::{Condition, Stage, Verdict};
use crate::notation::Place;
use crate::rules::path::{Ambiguity, hides_dot_segments};
use crate::rules::payload::{Decoder, Opaque, Step, check_json_texts};
use crate::rules::templating::BodyTemplate;

/// A compiled step.
#[derive(Debug)]
pub(super) struct RequestPart {
    when: Option<Condition>,
    /// The edits of the head that need no template.
    edits: Arc<[Edit]>,
    /// Those that templates make.
    pub rendered: Vec<(HeadTarget, BodyTemplate)>,
    /// The changes of the body.
    pub body: Vec<Arc<BodyChange>>,
}

impl RequestPart {
    /// Compiles a step, and notes errors.
    pub fn compile(config: &RequestStep, place: &Place, compiler: &mut Compiler<'_, '_>) -> Self {
        let when = config.when.as_ref().and_then(|source| {
            let condition = Condition::compile(source, Stage::Edit);
            compiler.mistakes().take(&place.key("when"), condition)
        });
        let mut head = HeadChanges::default();
        compiler.headers(&mut head, &config.headers, &place.key("headers"));
        let query = &config.query;
        head.edits.extend(query.remove.iter().map(|name| Edit::RemoveParameter(name.as_str().into())));
        let rename = |(from, to): (&String, &String)| Edit::RenameParameter(from.as_str().into(), to.as_str().into());
        head.edits.extend(query.rename.iter().map(rename));
        type Target = fn(Box<str>) -> HeadTarget;
        let lists: [(&str, _, Target); 2] =
            [("set", &query.set, HeadTarget::SetParameter), ("add", &query.add, HeadTarget::AddParameter)];
        for (key, list, target) in lists {
            for (name, text) in list {
                let place = place.key("query").key(key).key(name.clone());
                compiler.head_value(&mut head, text, (TextForm::Plain, target(name.as_str().into())), &place);
            }
        }
        let cookies = &config.cookies;
        head.edits.extend(cookies.remove.iter().map(|name| Edit::RemoveCookie(name.as_str().into())));
        for (name, text) in &cookies.set {
            let place = place.key("cookies").key("set").key(name.clone());
            if !is_token(name) {
                compiler.mistakes().add(&place, "expected the name of a cookie (RFC 6265, section 4.1.1)");
            }
            compiler.head_value(
                &mut head,
                text,
                (TextForm::Plain, HeadTarget::SetCookie(name.as_str().into())),
                &place,
            );
        }
        if let Some(method) = &config.method {
            if method.0 == Method::HEAD {
                let text =
                    "the response to HEAD has no content, which a client that sent another method would wait for";
                compiler.mistakes().add(&place.key("method"), text);
            }
            head.edits.push(Edit::Method(method.0.clone()));
        }
        if let Some(path) = &config.path {
            let place = place.key("path");
            if !path.starts_with('/') || path.contains(['?', '#']) {
                compiler.mistakes().add(&place, "expected a path that begins with /, without a query");
            }
            compiler.head_value(&mut head, path, (TextForm::Target, HeadTarget::Path), &place);
        }
        let body = compiler.body(config.convert.as_ref(), &config.json, config.body.as_ref(), place);
        let is_empty = head.edits.is_empty() && head.rendered.is_empty() && body.is_empty();
        if is_empty && compiler.mistakes().is_empty() {
            compiler.mistakes().add(place, "a step that changes nothing");
        }
        Self { when, edits: head.edits.into(), rendered: head.rendered, body }
    }

    /// Returns whether the step needs the body of requests.
    pub fn needs_body(&self) -> bool {
        !self.body.is_empty() || self.rendered.iter().any(|(_, template)| reads_body(template))
    }

    /// Returns whether a parameter of the path is filled into the new path.
    pub fn fills_path(&self) -> bool {
        self.edits.iter().any(|edit| path_values(edit).next().is_some())
    }

    fn holds(&self, request: &RequestHeader, exchange: &Exchange) -> bool {
        self.when.as_ref().is_none_or(|when| when.holds(request, exchange, true))
    }
}

/// Returns whether a text is a token (RFC 9110, section 5.6.2).
fn is_token(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_part)
}

fn reads_body(template: &BodyTemplate) -> bool {
    template.reads(REQUEST_BODY) || template.reads(REQUEST_JSON)
}

impl Filter {
    fn head_values(&self, request: &RequestHeader, exchange: &Exchange) -> HeadValues {
        HeadValues::new(request, exchange, None, &|path| self.reads(path))
    }

    /// Returns whether a step may need the body of a request, by its `Content-Type`: what is not changed is not held.
    pub(super) fn wants_body_of(&self, request: &RequestHeader, exchange: &Exchange) -> bool {
        // An edit of what a conversion makes needs no look: the conversion does.
        let is_json = is_json(&request.headers);
        let mut parts = self.request.iter().filter(|part| part.needs_body() && part.holds(request, exchange));
        parts.any(|part| {
            part.rendered.iter().any(|(_, template)| reads_body(template))
                || part.body.iter().any(|change| match &**change {
                    BodyChange::New(_) => true,
                    BodyChange::Json(_) => is_json || self.other == Other::Reject,
                    BodyChange::Convert(convert) => is_of_format(&request.headers, convert),
                })
        })
    }

    /// Notes the edits of the head that do not depend on the body.
    pub(super) fn edit_head(&self, request: &RequestHeader, exchange: &mut Exchange) -> Verdict {
        let mut values = None;
        for part in self.request.iter().filter(|part| part.holds(request, exchange)).collect::<Vec<_>>() {
            check_path_values(&part.edits, exchange)?;
            exchange.edits.push(&part.edits);
            let rendered = part.rendered.iter().filter(|(_, template)| !reads_body(template));
            let mut edits = Vec::new();
            for (target, template) in rendered {
                let heads = values.get_or_insert_with(|| self.head_values(request, exchange));
                edits.push(rendered_edit(target, template.render(heads.of_heads()), Reason::BadRequest)?);
            }
            exchange.edits.push(&edits.into());
        }
        Ok(())
    }

    /// Returns the body for the target, and notes the edits of the head that depend on it.
    pub(super) fn edit_body(
        &self,
        body: &Bytes,
        request: &RequestHeader,
        exchange: &mut Exchange,
    ) -> Result<Option<Bytes>, Box<Rejection>> {
        let parts = self.request.iter().filter(|part| part.needs_body() && part.holds(request, exchange));
        let parts: Vec<&RequestPart> = parts.collect();
        if parts.is_empty() {
            return Ok(None);
        }
        let heads = Arc::new(self.head_values(request, exchange));
        let values = Values { heads, of_request: true };
        let mut editing = BodyEditing::new(self, body, request, exchange);
        for part in parts {
            for change in &part.body {
                editing.change(change, &values)?;
            }
            let rendered = part.rendered.iter().filter(|(_, template)| reads_body(template));
            for (target, template) in rendered {
                editing.decode()?;
                let filled = values.heads.with_body(template, true, &editing.body);
                let text = filled.and_then(|values| template.render(values));
                editing.edits.push(rendered_edit(target, text, Reason::BodyInvalid)?);
            }
        }
        let BodyEditing { body, edits, is_changed, .. } = editing;
        if is_changed {
            exchange.edits.push(&self.body_edits);
        }
        exchange.edits.push(&edits.into());
        Ok(is_changed.then_some(body))
    }
}

/// Rejects a path whose parameters, filled into another path, would lead elsewhere.
fn check_path_values(edits: &[Edit], exchange: &Exchange) -> Verdict {
    for name in edits.iter().flat_map(path_values) {
        let value = exchange.params.iter().find(|(known, _)| **known == *name).map_or("", |(_, value)| value);
        let hides_slash = name != "*" && Ambiguity::of(value).encoded_slash;
        if hides_slash || hides_dot_segments(value) {
            return Err(Rejection::new(Reason::BadPath, "a part of the path has an encoded slash or dot segment"));
        }
    }
    Ok(())
}

/// Returns the edit of a head that a template makes.
fn rendered_edit(
    target: &HeadTarget,
    rendered: Result<String, String>,
    reason: Reason,
) -> Result<Edit, Box<Rejection>> {
    let text = rendered.map_err(|why| Rejection::new(reason, "a value that is needed is missing").log(why))?;
    let header = |text: &str| {
        let value = HeaderValue::from_str(text.trim());
        value.map_err(|_| Rejection::new(reason, "a value cannot be the value of a header"))
    };
    Ok(match target {
        HeadTarget::SetHeader(name) if text.trim().is_empty() => Edit::Remove(name.clone()),
        HeadTarget::SetHeader(name) => Edit::Set(name.clone(), header(&text)?),
        HeadTarget::AddHeader(name) => Edit::Add(name.clone(), header(&text)?),
        HeadTarget::SetParameter(name) => Edit::SetParameter(name.clone(), Template::literal(text)),
        HeadTarget::AddParameter(name) => Edit::AddParameter(name.clone(), Template::literal(text)),
        HeadTarget::SetCookie(name) => Edit::SetCookie(name.clone(), Template::literal(text)),
        HeadTarget::Path if hides_dot_segments(&text) || !text.starts_with('/') => {
            return Err(Rejection::new(Reason::BadPath, "a part of the path has a dot segment"));
        }
        HeadTarget::Path => Edit::Path(Template::literal(text)),
    })
}

/// A body that is being changed.
struct BodyEditing<'r> {
    filter: &'r Filter,
    body: Bytes,
    /// The content coding that the body still has.
    coding: Option<HeaderValue>,
    /// Its `Content-Type`, alone.
    kind: HeaderMap,
    edits: Vec<Edit>,
    is_changed: bool,
    /// Whether the body is known to be JSON.
    is_checked: bool,
}

impl<'r> BodyEditing<'r> {
    fn new(filter: &'r Filter, body: &Bytes, request: &RequestHeader, exchange: &Exchange) -> Self {
        let mut kind = HeaderMap::new();
        match exchange.edits.value_of(&CONTENT_TYPE) {
            Some(value) => kind.extend(value.map(|value| (CONTENT_TYPE, value.clone()))),
            None => {
                for value in request.headers.get_all(CONTENT_TYPE) {
                    kind.append(CONTENT_TYPE, value.clone());
                }
            }
        }
        let coding = match exchange.edits.value_of(&CONTENT_ENCODING) {
            Some(value) => value.cloned(),
            None => coding(request),
        };
        let coding = coding.filter(|coding| !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity"));
        let body = body.clone();
        Self { filter, body, coding, kind, edits: Vec::new(), is_changed: false, is_checked: false }
    }

    /// Makes a change, if it is for a body of this kind.
    fn change(&mut self, change: &BodyChange, values: &Values) -> Result<(), Box<Rejection>> {
        if !self.applies(change)? {
            return Ok(());
        }
        self.decode()?;
        if let BodyChange::Json(_) = change {
            self.check_json(change.is_ascii())?;
        }
        let changed = change.change(&self.body, values).map_err(rejection)?;
        if changed.len() as u64 > self.filter.most {
            return Err(too_large(self.filter.most));
        }
        self.body = changed.into();
        self.is_changed = true;
        let content_type = match change {
            BodyChange::Convert(convert) => convert.content_type(),
            BodyChange::New(new) => new.content_type.clone(),
            BodyChange::Json(_) => return Ok(()),
        };
        self.is_checked = false;
        self.kind.insert(CONTENT_TYPE, content_type.clone());
        self.edits.push(Edit::Set(CONTENT_TYPE, content_type));
        Ok(())
    }

    /// Returns whether a change is for a body of this kind.
    fn applies(&self, change: &BodyChange) -> Result<bool, Box<Rejection>> {
        let is_json = || is_json(&self.kind);
        Ok(match change {
            BodyChange::New(_) => true,
            _ if self.body.is_empty() => false,
            BodyChange::Json(_) if !is_json() && self.filter.other == Other::Reject => {
                return Err(Rejection::new(Reason::MediaType, "send JSON, as application/json"));
            }
            BodyChange::Json(_) => is_json(),
            BodyChange::Convert(convert) => is_of_format(&self.kind, convert),
        })
    }

    fn check_json(&mut self, is_ascii: bool) -> Result<(), Box<Rejection>> {
        if is_other_charset(&self.kind, is_ascii) {
            return Err(Rejection::new(Reason::MediaType, "send JSON in UTF-8"));
        }
        if !self.is_checked {
            check_json_texts(&self.body).map_err(rejection)?;
            self.is_checked = true;
        }
        Ok(())
    }

    /// Decodes the content coding (RFC 9110, section 8.4).
    fn decode(&mut self) -> Result<(), Box<Rejection>> {
        let Some(coding) = self.coding.take().filter(|_| !self.body.is_empty()) else { return Ok(()) };
        let decoder = coding.to_str().ok().and_then(|coding| Decoder::of(coding.trim()));
        let mut decoder = decoder.ok_or_else(|| {
            let rejection = Rejection::new(Reason::MediaType, "send the body without a content coding");
            rejection.header(ACCEPT_ENCODING, HeaderValue::from_static("zstd, br, gzip"))
        })?;
        let mut decoded = Vec::new();
        let mut parts = self.body.chunks(DECODED_AT_ONCE).peekable();
        while let Some(part) = parts.next() {
            let end = parts.peek().is_none();
            decoder.push(part, end, &mut decoded).map_err(rejection)?;
            if decoded.len() as u64 > self.filter.most {
                return Err(too_large(self.filter.most));
            }
        }
        self.body = decoded.into();
        self.is_changed = true;
        Ok(())
    }
}

/// The bytes that are decoded at a time: little more than the limit is decoded of a body that exceeds it.
const DECODED_AT_ONCE: usize = 4 << 10;

/// Returns the content coding of a request, which may be a list of several.
fn coding(request: &RequestHeader) -> Option<HeaderValue> {
    let mut values = request.headers.get_all(CONTENT_ENCODING).iter();
    let first = values.next()?;
    if values.next().is_some() {
        return Some(HeaderValue::from_static(","));
    }
    Some(first.clone()).filter(|value| !value.as_bytes().trim_ascii().is_empty())
}

/// Returns whether the `Content-Type` is that of the format from which is converted.
pub(super) fn is_of_format(kind: &HeaderMap, convert: &Convert) -> bool {
    let Some(value) = kind.get(CONTENT_TYPE) else { return false };
    let text = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
    let kind = text.split(';').next().unwrap_or_default().trim();
    match convert {
        Convert::XmlToJson(_) => matches!(kind, "application/xml" | "text/xml") || kind.ends_with("+xml"),
        Convert::JsonToXml(_) | Convert::JsonToForm => kind == "application/json" || kind.ends_with("+json"),
        Convert::FormToJson => kind == "application/x-www-form-urlencoded",
    }
}

fn too_large(most: u64) -> Box<Rejection> {
    Rejection::new(Reason::BodyTooLarge, format!("at most {most} bytes are accepted"))
}

/// Returns the rejection of a request whose body cannot be changed.
fn rejection(why: Opaque) -> Box<Rejection> {
    match why {
        Opaque::TooLarge | Opaque::TooDense => Rejection::new(Reason::BodyTooLarge, why.to_string()),
        Opaque::Template(why) => {
            Rejection::new(Reason::BodyInvalid, "a value that is needed is missing").log(why.into_string())
        }
        why => Rejection::new(Reason::BodyInvalid, why.to_string()),
    }
}
