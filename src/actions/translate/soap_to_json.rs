//! `soap_to_json`: SOAP, to targets that speak JSON.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{IncomingRequest, Protocols, Translate, TranslatedRequest};
use crate::actions::ActionContext;
use crate::exchange::{Reason, Rejection, RequestView};

/// SOAP, to targets that speak JSON.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "SoapToJson")]
pub struct Config {}

/// The compiled translation.
#[derive(Debug)]
pub struct SoapToJson;

/// Compiles the translation, and notes errors.
pub fn compile(_config: &Config, _context: &mut ActionContext<'_>) -> SoapToJson {
    SoapToJson
}

impl Translate for SoapToJson {
    fn protocols(&self) -> Protocols {
        Protocols { from: "soap", to: "json" }
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
