//! `strip_fields`: removes members from JSON responses, at any depth, while they stream by.
//!
//! The document is never held, so there is no size beyond which anything changes. What cannot be
//! looked into (an encoding that the gateway does not know, another character set than UTF-8, nesting
//! beyond 2048 levels) is
//! rejected rather than passed on with the field still in it.

use std::sync::Arc;

use http::header::CONTENT_LENGTH;
use pingora::http::ResponseHeader;
use schemars::JsonSchema;
use serde::Deserialize;

use super::json::{is_json, is_other_charset, whole_and_plain};
use super::{BodyStep, CompileContext, HttpFilter, Needs, ResponseView, Stage};
use crate::exchange::{Edit, Reason, Rejection};
use crate::notation::Field;
use crate::rules::payload::{Fields, Stripper};

/// What is removed.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Members of JSON answers: `ssn` (of the document, or of each in a list), `user.address.street`,
    /// `items.*.cost` (`*` is one name, or any element of a list), `**.internal` (at any depth).
    #[schemars(length(min = 1))]
    pub response: Vec<Field>,
    /// What becomes of answers in another form than JSON, in which the members may stand as well: for routes whose
    /// clients can choose the form (`Accept`, a suffix, a parameter). Default `keep`.
    #[serde(default)]
    pub other: Other,
}

/// What becomes of an answer that is not JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Other {
    /// It passes as it is.
    #[default]
    Keep,
    /// 502 in its place.
    Reject,
}

/// The compiled filter.
#[derive(Debug)]
pub struct Filter {
    fields: Arc<Fields>,
    other: Other,
    edits: Arc<[Edit]>,
}

impl HttpFilter for Filter {
    type Config = Config;
    type Memory = ();
    const STAGE: Stage = Stage::Edit;

    fn compile(config: &Config, context: &mut CompileContext<'_>) -> Option<Self> {
        let paths: Vec<_> = config.response.iter().map(|f| f.0.clone()).collect();
        let place = context.place.key("response");
        let fields = context.mistakes.take(&place, Fields::new(&paths))?;
        Some(Self { fields: Arc::new(fields), other: config.other, edits: whole_and_plain() })
    }

    fn needs(&self) -> Needs {
        Needs::ResponseBody
    }

    fn edits(&self) -> Option<&Arc<[Edit]>> {
        Some(&self.edits)
    }

    fn on_response_body(&self, response: &mut ResponseHeader, _view: &ResponseView<'_>) -> BodyStep {
        let opaque = |why| Err(Rejection::new(Reason::AnswerOpaque, "").log(why));
        let empty = response.headers.get(CONTENT_LENGTH).is_some_and(|length| length == "0");
        if empty {
            return Ok(None);
        }
        if !is_json(response) {
            return match self.other {
                Other::Keep => Ok(None),
                Other::Reject => opaque("the response is not JSON"),
            };
        }
        if is_other_charset(response, self.fields.is_ascii()) {
            return opaque("the response is JSON that is not UTF-8");
        }
        if response.status == http::StatusCode::PARTIAL_CONTENT {
            return opaque("the response is partial although the whole was asked for");
        }
        Ok(Some(Box::new(Stripper::new(Arc::clone(&self.fields)))))
    }
}
