//! `redirect`: redirects the client (RFC 9110, section 15.4).

use std::borrow::Cow;

use http::header::{HeaderName, HeaderValue, LOCATION};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{ActionContext, ActionOutcome, HttpAction, OwnResponse};
use crate::exchange::{Reason, Rejection, RequestValue, RequestView, Template, TextForm};

/// Where the client is redirected to.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Redirect")]
pub struct Config {
    /// The `Location`, with `{host}`, `{path}`, `{query}` (with its `?`), the `{params}` of the match and other values
    /// of the request.
    pub to: String,
    /// 301, 302, 303, 307 or 308. Default 308.
    #[serde(default = "permanent")]
    pub status: u16,
}

fn permanent() -> u16 {
    308
}

/// The compiled action.
#[derive(Debug)]
pub struct Redirect {
    to: Template,
    status: u16,
}

impl HttpAction for Redirect {
    type Config = Config;

    fn compile(config: &Config, context: &mut ActionContext<'_>) -> Self {
        if !matches!(config.status, 301 | 302 | 303 | 307 | 308) {
            let text = format!("expected 301, 302, 303, 307 or 308, found {}", config.status);
            context.mistakes.add(&context.place.key("status"), text);
        }
        let to = context.template(&config.to, TextForm::Target, &context.place.key("to"));
        Self { to, status: config.status }
    }

    fn headers_read(config: &Config) -> Vec<(HeaderName, Vec<String>)> {
        let named = Template::headers_in(&config.to).into_iter();
        named.map(|name| (name, vec!["to".to_owned()])).collect()
    }

    fn on_request(&self, view: &RequestView<'_>) -> ActionOutcome<'_> {
        if view.exchange.host.is_empty() && self.to.values().any(|value| *value == RequestValue::Host) {
            return ActionOutcome::Reject(Rejection::new(Reason::BadRequest, "the Host header is missing"));
        }
        let headers = Cow::Owned(vec![(LOCATION, location(view, &self.to))]);
        ActionOutcome::Respond(OwnResponse {
            reason: Reason::Redirected,
            status: self.status,
            headers,
            body: bytes::Bytes::new(),
        })
    }

    fn describe(&self) -> Vec<String> {
        vec![format!("redirect: {}", self.status)]
    }
}

/// Returns the `Location`. Parts of the client's own target are in their normal form.
fn location(view: &RequestView<'_>, to: &Template) -> HeaderValue {
    to.fill_header(view).unwrap_or_else(|| HeaderValue::from_static("/"))
}
