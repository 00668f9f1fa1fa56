//! `respond`: a response of the gateway's own, fixed or with values of the request.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::Deserialize;

use super::media_type::media_type_of;
use super::{ActionContext, ActionOutcome, HttpAction, OwnResponse};
use crate::exchange::{Reason, RequestView, Template, TextForm, form_of_type};
use crate::filters::parse_editable_name;
use crate::notation::{File, HeaderText};
use crate::tls::read_file;

/// The largest file that is sent as a body.
const MAX_FILE: u64 = 1 << 20;

/// A response of the gateway's own.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Respond")]
pub struct Config {
    /// The status. Default 200.
    #[serde(default = "ok")]
    #[schemars(range(min = 200, max = 599))]
    pub status: u16,
    /// Its headers, which may name values of the request.
    #[serde(default)]
    pub headers: BTreeMap<String, HeaderText>,
    /// Its body, which may name values of the request; in HTML and JSON they are escaped, by the `content-type`.
    /// Without that it is `text/plain`.
    #[serde(default)]
    pub body: String,
    /// A file of at most 1 MiB with the body as it is, read with the configuration; its name decides on the
    /// `content-type` where `headers` has none.
    pub file: Option<File>,
}

fn ok() -> u16 {
    200
}

/// The compiled action.
#[derive(Debug)]
pub struct Respond {
    status: u16,
    headers: Vec<(HeaderName, Text<HeaderValue>)>,
    body: Text<Bytes>,
    /// The headers, if none of them names a value.
    fixed: Option<Vec<(HeaderName, HeaderValue)>>,
}

/// A text that is fixed, or has values of the request.
#[derive(Debug)]
enum Text<T> {
    Fixed(T),
    Filled(Template),
}

impl HttpAction for Respond {
    type Config = Config;

    fn compile(config: &Config, context: &mut ActionContext<'_>) -> Self {
        let mut headers = headers(config, context);
        let body = match &config.file {
            Some(file) => {
                if !headers.iter().any(|(name, _)| name == CONTENT_TYPE) {
                    let media_type = media_type_of(file.as_ref());
                    headers.push((CONTENT_TYPE, Text::Fixed(media_type)));
                }
                Text::Fixed(read_body(config, file, context))
            }
            None => {
                let body = text_body(config, &headers, context);
                if !config.body.is_empty() && !headers.iter().any(|(name, _)| name == CONTENT_TYPE) {
                    headers.push((CONTENT_TYPE, Text::Fixed(HeaderValue::from_static("text/plain; charset=utf-8"))));
                }
                body
            }
        };
        let fixed = headers.iter().map(|(name, value)| match value {
            Text::Fixed(value) => Some((name.clone(), value.clone())),
            Text::Filled(_) => None,
        });
        Self { status: config.status, fixed: fixed.collect(), headers, body }
    }

    fn headers_read(config: &Config) -> Vec<(HeaderName, Vec<String>)> {
        let in_body = Template::headers_in(&config.body).into_iter().map(|name| (name, vec!["body".to_owned()]));
        let in_headers = config.headers.iter().flat_map(|(key, value)| {
            let named = Template::headers_in(&String::from_utf8_lossy(value.0.as_bytes())).into_iter();
            named.map(move |name| (name, vec!["headers".to_owned(), key.clone()]))
        });
        in_body.chain(in_headers).collect()
    }

    fn on_request(&self, view: &RequestView<'_>) -> ActionOutcome<'_> {
        let headers = match &self.fixed {
            Some(fixed) => Cow::Borrowed(fixed.as_slice()),
            None => Cow::Owned(
                self.headers
                    .iter()
                    .filter_map(|(name, value)| {
                        Some((
                            name.clone(),
                            match value {
                                Text::Fixed(value) => value.clone(),
                                Text::Filled(text) => text.fill_header(view)?,
                            },
                        ))
                    })
                    .collect(),
            ),
        };
        let body = match &self.body {
            Text::Fixed(body) => body.clone(),
            Text::Filled(text) => text.fill(view).into(),
        };
        ActionOutcome::Respond(OwnResponse { reason: Reason::Responded, status: self.status, headers, body })
    }

    fn describe(&self) -> Vec<String> {
        vec![format!("respond: {}", self.status)]
    }
}

/// Compiles the headers.
fn headers(config: &Config, context: &mut ActionContext<'_>) -> Vec<(HeaderName, Text<HeaderValue>)> {
    let place = context.place.key("headers");
    let compile = |(text, value): (&String, &HeaderText)| {
        let place = place.key(text.clone());
        let name = parse_editable_name(text, &place, context.mistakes)?;
        let template = context.template(&String::from_utf8_lossy(value.0.as_bytes()), TextForm::Header, &place);
        let value = match template.as_text() {
            Some(text) => Text::Fixed(HeaderValue::from_bytes(text.as_bytes()).ok()?),
            None => Text::Filled(template),
        };
        Some((name, value))
    };
    config.headers.iter().filter_map(compile).collect()
}

/// Compiles the body of `body`.
fn text_body(
    config: &Config,
    headers: &[(HeaderName, Text<HeaderValue>)],
    context: &mut ActionContext<'_>,
) -> Text<Bytes> {
    let given = headers.iter().find(|(name, _)| name == CONTENT_TYPE);
    let form = match given {
        Some((_, Text::Fixed(value))) => form_of_type(value.as_bytes()),
        _ => TextForm::Plain,
    };
    let place = context.place.key("body");
    let template = context.template(&config.body, form, &place);
    if template.as_text().is_none() {
        let kind = match given {
            Some((_, Text::Fixed(value))) => String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase(),
            Some((_, Text::Filled(_))) => {
                context.mistakes.add(&place, "a body with values of the request needs a fixed content-type");
                String::new()
            }
            None => String::new(),
        };
        if kind.contains("javascript") || kind.contains("ecmascript") || kind.contains("css") {
            context.mistakes.add(&place, "values of the request cannot be escaped in scripts and styles: use JSON");
        }
    }
    match template.as_text() {
        Some(text) => Text::Fixed(Bytes::copy_from_slice(text.as_bytes())),
        None => Text::Filled(template),
    }
}

/// Reads the body of `file`.
fn read_body(config: &Config, file: &File, context: &mut ActionContext<'_>) -> Bytes {
    if !config.body.is_empty() {
        context.mistakes.add(&context.place.clone(), "expected at most one of body and file");
    }
    let path = context.base.join(file);
    let read = read_file(&path, MAX_FILE).map_err(|error| format!("cannot read {}: {error}", path.display()));
    context.mistakes.take(&context.place.key("file"), read).unwrap_or_default().into()
}
