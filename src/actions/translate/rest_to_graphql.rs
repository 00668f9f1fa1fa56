//! `rest_to_graphql`: Paths and methods, to targets that speak GraphQL.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{IncomingRequest, Protocols, Translate, TranslatedRequest};
use crate::actions::ActionContext;
use crate::exchange::{Reason, Rejection, RequestView};

/// Paths and methods, to targets that speak GraphQL.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "RestToGraphql")]
pub struct Config {}

/// The compiled translation.
#[derive(Debug)]
pub struct RestToGraphql;

/// Compiles the translation, and notes errors.
pub fn compile(_config: &Config, _context: &mut ActionContext<'_>) -> RestToGraphql {
    RestToGraphql
}

impl Translate for RestToGraphql {
    fn protocols(&self) -> Protocols {
        Protocols { from: "rest", to: "graphql" }
    }

    fn takes(&self, _view: &RequestView<'_>) -> bool {
        false
    }

    fn max_request_body(&self) -> u64 {
        0
    }

    fn translate(&self, _request: &IncomingRequest<'_>) -> Result<TranslatedRequest, Box<Rejection>> {
        Err(Rejection::new(Reason::RequestUntranslatable, ""))
    }

    fn describe(&self) -> Vec<String> {
        Vec::new()
    }
}
