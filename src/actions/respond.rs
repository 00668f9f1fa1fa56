//! `respond`: a fixed response.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{ActionContext, ActionOutcome, HttpAction, MatchedRequest, OwnResponse};
use crate::exchange::Reason;
use crate::filters::parse_editable_name;
use crate::notation::HeaderText;

/// A fixed response.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Respond")]
pub struct Config {
    /// The status. Default 200.
    #[serde(default = "ok")]
    #[schemars(range(min = 200, max = 599))]
    pub status: u16,
    /// Its headers.
    #[serde(default)]
    pub headers: BTreeMap<String, HeaderText>,
    /// Its body.
    #[serde(default)]
    pub body: String,
}

fn ok() -> u16 {
    200
}

/// The compiled action.
#[derive(Debug)]
pub struct Respond {
    status: u16,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
}

impl HttpAction for Respond {
    type Config = Config;

    fn compile(config: &Config, context: &mut ActionContext<'_>) -> Self {
        let place = context.place.key("headers");
        let given = config.headers.iter();
        let headers = given.filter_map(|(text, value)| {
            Some((parse_editable_name(text, &place.key(text.clone()), context.mistakes)?, value.0.clone()))
        });
        Self { status: config.status, headers: headers.collect(), body: config.body.clone().into() }
    }

    fn on_request(&self, _matched: &MatchedRequest<'_>) -> ActionOutcome<'_> {
        let (headers, body) = (Cow::Borrowed(self.headers.as_slice()), self.body.clone());
        ActionOutcome::Respond(OwnResponse { reason: Reason::Responded, status: self.status, headers, body })
    }

    fn describe(&self) -> Vec<String> {
        vec![format!("respond: {}", self.status)]
    }
}
