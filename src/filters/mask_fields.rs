//! `mask_fields`: replaces values in JSON responses by a mask, at any depth, while they stream.
//!
//! All other bytes are unchanged. What cannot be read is rejected, and text that is not JSON passes, as with
//! `strip_fields`.

use std::sync::Arc;

use pingora::http::ResponseHeader;
use schemars::JsonSchema;
use serde::Deserialize;

use super::json::{Other, is_editable, whole_document_edits};
use super::{BodyStep, CompileContext, HttpFilter, Needs, ResponseView, Stage};
use crate::exchange::Edit;
use crate::notation::{Field, Mistakes, Place};
use crate::rules::payload::{Editor, MaskText, Masks, MemberEdit};

/// What is masked.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Members of JSON responses, as in `strip_fields`. Where several match one member, the first counts. The mask
    /// replaces whole objects and arrays too.
    #[schemars(length(min = 1))]
    pub response: Vec<Masking>,
    /// What happens to responses in another form than JSON. Default `keep`.
    #[serde(default)]
    pub other: Other,
}

/// A member whose value is masked.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Masking {
    /// The whole value.
    Whole(Field),
    /// The value as these settings say.
    As(MaskedField),
}

/// A member, and how its value is masked.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MaskedField {
    /// The member.
    pub field: Field,
    /// How many characters of a string or number follow the mask, where they are at most half of it. Default 0.
    #[serde(default)]
    #[schemars(range(max = 32))]
    pub keep_last: usize,
    /// The mask. Default `***`.
    #[serde(default = "default_mask")]
    pub mask: String,
}

fn default_mask() -> String {
    "***".to_owned()
}

/// The longest mask, in bytes.
const MAX_MASK: usize = 256;

/// The compiled filter.
#[derive(Debug)]
pub struct Filter {
    masks: Arc<Masks>,
    other: Other,
    edits: Arc<[Edit]>,
}

impl HttpFilter for Filter {
    type Config = Config;
    type Memory = ();
    const STAGE: Stage = Stage::Edit;

    fn compile(config: &Config, context: &mut CompileContext<'_>) -> Option<Self> {
        let place = context.place.key("response");
        let masks = compile_masks(&config.response, &place, context.mistakes)?;
        Some(Self { masks: Arc::new(masks), other: config.other, edits: whole_document_edits() })
    }

    fn needs(&self) -> Needs {
        Needs::ResponseBody
    }

    fn edits(&self) -> Option<&Arc<[Edit]>> {
        Some(&self.edits)
    }

    fn on_response_body(&self, response: &mut ResponseHeader, _view: &ResponseView<'_>) -> BodyStep {
        let is_edited = is_editable(response, self.other, self.masks.fields().is_ascii())?;
        Ok(is_edited.then(|| Box::new(Editor::new(Arc::clone(&self.masks))) as _))
    }
}

/// Compiles masks, and notes errors.
pub(super) fn compile_masks(list: &[Masking], place: &Place, mistakes: &mut Mistakes) -> Option<Masks> {
    let mut masks = Vec::new();
    for (index, masking) in list.iter().enumerate() {
        let (field, keep_last, mask) = match masking {
            Masking::Whole(field) => (field, 0, default_mask()),
            Masking::As(masked) => (&masked.field, masked.keep_last, masked.mask.clone()),
        };
        let place = place.index(index);
        if mask.len() > MAX_MASK {
            mistakes.add(&place.key("mask"), format!("at most {MAX_MASK} bytes"));
        }
        let text = mistakes.take(&place.key("keep_last"), MaskText::of_text(&mask, keep_last))?;
        masks.push((field.0.clone(), text));
    }
    mistakes.take(place, Masks::new(&masks))
}

#[cfg(test)]
mod tests {
    use super::super::test_kit::{compile, request, response};

    #[test]
    fn wholly_or_but_for_the_last_characters() {
        let fields = "[password, {field: '**.card', keep_last: 4}, {field: '**.iban', mask: hidden}]";
        let yaml = format!("[{{mask_fields: {{response: {fields}}}}}]");
        let body = r#"{"password":"p", "card":4111111111111234,"in":[{"card":"12345","iban":{"a":1}, "password":2}]}"#;
        let wanted = r#"{"password":"***", "card":"***1234","in":[{"card":"***","iban":"hidden", "password":2}]}"#;
        for cut in 1..40 {
            let mut kit = compile(&yaml).expect("filters");
            kit.on_request(request("GET /", &[("accept-encoding", "gzip"), ("range", "bytes=0-9")])).expect("let in");
            assert!(kit.sent().headers.is_empty(), "the whole and plain document is asked for");
            let head =
                response(200, &[("content-type", "application/json"), ("content-length", "9"), ("etag", "\"1\"")]);
            let changed = kit.on_response(head, body.as_bytes(), cut).expect("JSON");
            assert_eq!(String::from_utf8_lossy(&changed.body), wanted, "cut at {cut}");
            assert_eq!([changed.header("content-length"), changed.header("etag")], ["-", "W/\"1\""]);
        }
    }

    #[test]
    fn what_is_not_json_passes_or_is_rejected() {
        for (other, passes) in [("keep", true), ("reject", false)] {
            let mut kit = compile(&format!("[{{mask_fields: {{response: [a], other: {other}}}}}]")).expect("filters");
            kit.on_request(request("GET /", &[])).expect("let in");
            let text = kit.on_response(response(200, &[("content-type", "text/csv")]), b"a,b", 9);
            assert_eq!(text.is_ok_and(|text| text.body == b"a,b"), passes, "{other}");
            let head = response(200, &[("content-type", "application/json; charset=utf-16")]);
            assert_eq!(kit.on_response(head, b"", 9).expect_err("opaque").reason.code(), "response_opaque");
        }
    }

    #[test]
    fn masks_have_bounds() {
        for (masked, why) in [
            ("{field: a, keep_last: 33}", "at most 32"),
            (&format!("{{field: a, mask: {}}}", "m".repeat(257)), "at most 256"),
        ] {
            let error = compile(&format!("[{{mask_fields: {{response: [{masked}]}}}}]")).err().expect("an error");
            assert!(error.contains(why), "{error}");
        }
    }
}
