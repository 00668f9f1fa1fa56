//! `rest_to_grpc`: JSON over HTTP, to targets that speak gRPC.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{IncomingRequest, Protocols, Translate, TranslatedRequest};
use crate::actions::ActionContext;
use crate::exchange::{Reason, Rejection, RequestView};

/// JSON over HTTP, to targets that speak gRPC.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "RestToGrpc")]
pub struct Config {}

/// The compiled translation.
#[derive(Debug)]
pub struct RestToGrpc;

/// Compiles the translation, and notes errors.
pub fn compile(_config: &Config, _context: &mut ActionContext<'_>) -> RestToGrpc {
    RestToGrpc
}

impl Translate for RestToGrpc {
    fn protocols(&self) -> Protocols {
        Protocols { from: "rest", to: "grpc" }
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
