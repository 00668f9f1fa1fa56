//! `json_to_soap`: JSON, to targets that speak SOAP.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{IncomingRequest, Protocols, Translate, TranslatedRequest};
use crate::actions::ActionContext;
use crate::exchange::{Reason, Rejection, RequestView};

/// JSON, to targets that speak SOAP.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "JsonToSoap")]
pub struct Config {}

/// The compiled translation.
#[derive(Debug)]
pub struct JsonToSoap;

/// Compiles the translation, and notes errors.
pub fn compile(_config: &Config, _context: &mut ActionContext<'_>) -> JsonToSoap {
    JsonToSoap
}

impl Translate for JsonToSoap {
    fn protocols(&self) -> Protocols {
        Protocols { from: "json", to: "soap" }
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
