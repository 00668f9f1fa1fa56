//! `strip_fields`: removes members from JSON responses, at any depth, while they stream.
//!
//! The document is never held, so its size does not matter. A response that cannot be read (a content coding that
//! the gateway does not know, another character set than UTF-8, nesting beyond 2048 levels) is rejected rather than
//! passed on with the field still in it. Validity is not checked: text that is not JSON passes unchanged.

use std::sync::Arc;

use pingora::http::ResponseHeader;
use schemars::JsonSchema;
use serde::Deserialize;

use super::json::{Other, is_editable, whole_document_edits};
use super::{BodyStep, CompileContext, HttpFilter, Needs, ResponseView, Stage};
use crate::exchange::Edit;
use crate::notation::Field;
use crate::rules::payload::{Fields, Stripper};

/// What is removed.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Members of JSON responses: `ssn` (of the document, or of each in a list), `user.address.street`,
    /// `items.*.cost` (`*` is one name, or any element of a list), `**.internal` (at any depth).
    #[schemars(length(min = 1))]
    pub response: Vec<Field>,
    /// What happens to responses in another form than JSON, which may have the members too: for routes whose clients
    /// can choose the form (`Accept`, a suffix, a parameter). Default `keep`.
    #[serde(default)]
    pub other: Other,
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
        Some(Self { fields: Arc::new(fields), other: config.other, edits: whole_document_edits() })
    }

    fn needs(&self) -> Needs {
        Needs::ResponseBody
    }

    fn edits(&self) -> Option<&Arc<[Edit]>> {
        Some(&self.edits)
    }

    fn on_response_body(&self, response: &mut ResponseHeader, _view: &ResponseView<'_>) -> BodyStep {
        let is_edited = is_editable(response, self.other, self.fields.is_ascii())?;
        Ok(is_edited.then(|| Box::new(Stripper::new(Arc::clone(&self.fields))) as _))
    }
}
