//! `rename_fields`: renames members of JSON responses, at any depth, while they stream.
//!
//! All other bytes are unchanged. What cannot be read is rejected, and text that is not JSON passes, as with
//! `strip_fields`.

use std::collections::BTreeMap;
use std::sync::Arc;

use pingora::http::ResponseHeader;
use schemars::JsonSchema;
use serde::Deserialize;

use super::json::{Other, is_editable, whole_document_edits};
use super::{BodyStep, CompileContext, HttpFilter, Needs, ResponseView, Stage};
use crate::exchange::Edit;
use crate::notation::{Field, Mistakes, Place, spelling};
use crate::rules::payload::{Editor, FieldPath, MemberEdit, Renames};

/// What is renamed.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Members of JSON responses, as in `strip_fields`, and the new name of each: `user.mail: email`. The paths are
    /// those of the document that the target sent. Where several match one member, the one without `*` counts. A
    /// member that has the new name already is unchanged.
    #[schemars(length(min = 1))]
    pub response: BTreeMap<String, String>,
    /// What happens to responses in another form than JSON. Default `keep`.
    #[serde(default)]
    pub other: Other,
}

/// The longest new name, in bytes.
const MAX_NEW_NAME: usize = 256;

/// The compiled filter.
#[derive(Debug)]
pub struct Filter {
    renames: Arc<Renames>,
    other: Other,
    edits: Arc<[Edit]>,
}

impl HttpFilter for Filter {
    type Config = Config;
    type Memory = ();
    const STAGE: Stage = Stage::Edit;

    fn compile(config: &Config, context: &mut CompileContext<'_>) -> Option<Self> {
        let place = context.place.key("response");
        let renames = compile_renames(&config.response, &place, context.mistakes)?;
        Some(Self { renames: Arc::new(renames), other: config.other, edits: whole_document_edits() })
    }

    fn needs(&self) -> Needs {
        Needs::ResponseBody
    }

    fn edits(&self) -> Option<&Arc<[Edit]>> {
        Some(&self.edits)
    }

    fn on_response_body(&self, response: &mut ResponseHeader, _view: &ResponseView<'_>) -> BodyStep {
        let is_edited = is_editable(response, self.other, self.renames.fields().is_ascii())?;
        Ok(is_edited.then(|| Box::new(Editor::new(Arc::clone(&self.renames))) as _))
    }
}

/// Compiles new names, and notes errors. Of several paths for one member the narrowest counts.
pub(super) fn compile_renames(
    renames: &BTreeMap<String, String>,
    place: &Place,
    mistakes: &mut Mistakes,
) -> Option<Renames> {
    let mut pairs: Vec<(FieldPath, &str)> = Vec::new();
    for (text, name) in renames {
        let field = parse_field(text).and_then(|path| check_pair(path, name));
        let path = mistakes.take(&place.key(text.clone()), field);
        pairs.extend(path.map(|path| (path, name.as_str())));
    }
    if pairs.len() < renames.len() {
        return None;
    }
    pairs.sort_by_key(|(path, _)| path.breadth());
    mistakes.take(place, Renames::new(&pairs))
}

/// Parses a field that is a key of the configuration.
///
/// # Errors
/// Returns what is wrong with it, and how it is written.
pub(super) fn parse_field(text: &str) -> Result<FieldPath, String> {
    text.parse::<Field>().map(|field| field.0).map_err(|wanted| {
        let right = spelling(Field::FORMAT, text).map(|right| format!("; write {right}")).unwrap_or_default();
        format!("expected {wanted}{right}")
    })
}

fn check_pair(path: FieldPath, name: &str) -> Result<FieldPath, String> {
    if path.ends_with_any_name() {
        return Err("a path that ends with * would give several members the same name".to_owned());
    }
    if path.may_end_at_element() {
        return Err("an element of an array has no name".to_owned());
    }
    if name.is_empty() || name.len() > MAX_NEW_NAME || name.contains(['.', '*']) {
        return Err(format!("expected a name without . and *, for a member stays where it is; found {name:?}"));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::super::test_kit::{compile, request, response};

    fn renamed(filters: &str, body: &str, cut: usize) -> String {
        let mut kit = compile(filters).expect("filters");
        kit.on_request(request("GET /", &[])).expect("let in");
        let head = response(200, &[("content-type", "application/json"), ("content-length", "9"), ("etag", "\"1\"")]);
        let changed = kit.on_response(head, body.as_bytes(), cut).expect("JSON");
        assert_eq!([changed.header("content-length"), changed.header("etag")], ["-", "W/\"1\""]);
        String::from_utf8(changed.body).expect("UTF-8")
    }

    #[test]
    fn the_narrowest_path_counts_and_the_rest_stays() {
        let filters =
            "[{rename_fields: {response: {'**.id': key, 'user.id': user_key, 'user.*.id': part_key, old: new}}}]";
        for cut in 1..40 {
            let body = r#"{ "id":1,"user":{"id":2,"x":{"id":3,"y":{"id":4}}},"old":[{"id":5}] }"#;
            let wanted = r#"{ "key":1,"user":{"user_key":2,"x":{"part_key":3,"y":{"key":4}}},"new":[{"key":5}] }"#;
            assert_eq!(renamed(filters, body, cut), wanted, "cut at {cut}");
        }
    }

    #[test]
    fn the_last_filter_runs_first_on_responses() {
        // A member that has the new name already is removed first, and then the other takes its place.
        let filters = "[{rename_fields: {response: {a: b}}}, {strip_fields: {response: [b]}}]";
        assert_eq!(renamed(filters, r#"{"b":1,"a":2}"#, 3), r#"{"b":2}"#);
    }

    #[test]
    fn what_cannot_be_a_name_is_rejected() {
        for (pair, why) in [
            ("a.*: b", "several members"),
            ("a: b.c", "without . and *"),
            ("a: ''", "without . and *"),
            ("a..b: c", "expected"),
        ] {
            let error = compile(&format!("[{{rename_fields: {{response: {{{pair}}}}}}}]")).err().expect(pair);
            assert!(error.contains(why), "{pair}: {error}");
        }
    }
}
