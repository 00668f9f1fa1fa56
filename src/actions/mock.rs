//! `mock`: the examples of the route's OpenAPI document.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{ActionContext, ActionOutcome, HttpAction};
use crate::exchange::{Reason, Rejection, RequestView};

/// Responses from the examples of the route's OpenAPI document, or generated from its schemas. They have
/// `x-mock: true`. A client chooses by `Prefer: code=404` and `Prefer: example=NAME`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Mock")]
pub struct Config {}

/// The compiled action. The requests of operations have their response from the filter that validates them.
#[derive(Debug)]
pub struct Mock;

impl HttpAction for Mock {
    type Config = Config;

    fn compile(_config: &Config, _context: &mut ActionContext<'_>) -> Self {
        Self
    }

    fn on_request(&self, _view: &RequestView<'_>) -> ActionOutcome<'_> {
        // A path that the document does not have.
        ActionOutcome::Reject(Rejection::new(Reason::RouteNotFound, ""))
    }

    fn describe(&self) -> Vec<String> {
        vec!["mock: the examples of the OpenAPI document".to_owned()]
    }
}
