//! `redirect`: redirects the client (RFC 9110, section 15.4).

use std::borrow::Cow;

use http::header::{HeaderValue, LOCATION};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{ActionContext, ActionOutcome, HttpAction, MatchedRequest, OwnResponse};
use crate::exchange::{Reason, Rejection};
use crate::notation::Template;

/// Where the client is redirected to.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Redirect")]
pub struct Config {
    /// The `Location`, with `{host}`, `{path}`, `{query}` (with its `?`) and the `{params}` of the match.
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
        let entries = context.entries;
        let mut known = vec!["host", "path", "query"];
        known.extend(super::params(entries));
        Self { to: context.template(&config.to, &known, "to"), status: config.status }
    }

    fn on_request(&self, matched: &MatchedRequest<'_>) -> ActionOutcome<'_> {
        if matched.exchange.host.is_empty() && self.to.names("host") {
            return ActionOutcome::Reject(Rejection::new(Reason::BadRequest, "the Host header is missing"));
        }
        let headers = Cow::Owned(vec![(LOCATION, location(matched, &self.to))]);
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
fn location(matched: &MatchedRequest<'_>, to: &Template) -> HeaderValue {
    let query = matched.request.uri.query().map(|q| format!("?{q}")).unwrap_or_default();
    let params = matched.params();
    let text = to.fill(|name| match name {
        "host" => Some(matched.exchange.host.as_str()),
        "path" => Some(matched.request.uri.path()),
        "query" => Some(query.as_str()),
        name => params.iter().find(|(n, _)| *n == name).map(|(_, v)| *v),
    });
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("/"))
}
