//! `select_fields`: keeps of JSON responses only the members that the client asks for: `?fields=id,user(name,mail)`.
//!
//! The document is never held, and of what is kept every byte stays. Only responses of 2xx are edited: the fields are
//! those of what was requested, and not of an error.

use std::sync::Arc;

use pingora::http::{RequestHeader, ResponseHeader};
use schemars::JsonSchema;
use serde::Deserialize;

use super::json::{Other, is_editable, whole_document_edits};
use super::{BodyStep, CompileContext, HttpFilter, Needs, ResponseView, Stage, Verdict};
use crate::exchange::{Edit, Exchange, Reason, Rejection};
use crate::rules::payload::{Selection, SelectionLimits, Selector};
use crate::rules::routing::{form_decode, raw_parameters};

/// How clients select what they get.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The query parameter with the fields: `id,user(name,address.city),items.*.sku`. A name without further ones
    /// selects all below it; lists are transparent, `*` is any name, and a backslash takes the meaning from a
    /// character. Default `fields`.
    #[schemars(length(min = 1))]
    pub parameter: String,
    /// The fields that may be selected, written as the parameter is. Default: all.
    #[schemars(length(min = 1))]
    pub allow: Option<Vec<String>>,
    /// The fields that a request without the parameter gets. Default: all.
    pub default: Option<String>,
    /// The most names in the parameter. Default 64.
    #[schemars(range(min = 1, max = 1024))]
    pub max_names: usize,
    /// The most names within each other. Default 8.
    #[schemars(range(min = 1, max = 32))]
    pub max_depth: usize,
    /// Whether targets get no such parameter. Default false.
    pub remove_parameter: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            parameter: "fields".to_owned(),
            allow: None,
            default: None,
            max_names: 64,
            max_depth: 8,
            remove_parameter: false,
        }
    }
}

/// The compiled filter.
#[derive(Debug)]
pub struct Filter {
    parameter: String,
    allow: Option<Selection>,
    default: Option<Arc<Selection>>,
    limits: SelectionLimits,
    /// The edits of a request that selects.
    edits: Arc<[Edit]>,
}

impl HttpFilter for Filter {
    type Config = Config;
    type Memory = ();
    const STAGE: Stage = Stage::Edit;

    fn compile(config: &Config, context: &mut CompileContext<'_>) -> Option<Self> {
        let most = SelectionLimits::MOST;
        let place = context.place.clone();
        let allow = config.allow.as_ref().and_then(|texts| {
            let parsed = Selection::of_all(texts.iter().map(String::as_str), most);
            parsed.map_err(|(at, error)| context.mistakes.add(&place.key("allow").index(at), error.to_string())).ok()
        });
        let default = config.default.as_ref().and_then(|text| {
            let parsed = Selection::parse(text, most).map_err(|error| error.to_string());
            context.mistakes.take(&place.key("default"), parsed).map(Arc::new)
        });
        if config.parameter.is_empty() {
            context.mistakes.add(&place.key("parameter"), "expected the name of a query parameter".to_owned());
        }
        for (key, value, most) in
            [("max_names", config.max_names, most.names), ("max_depth", config.max_depth, most.depth)]
        {
            if value == 0 || value > most {
                context.mistakes.add(&place.key(key), format!("expected 1 to {most}, found {value}"));
            }
        }
        let removed = config.remove_parameter.then(|| Edit::RemoveParameter(config.parameter.as_str().into()));
        Some(Self {
            parameter: config.parameter.clone(),
            allow,
            default,
            limits: SelectionLimits { names: config.max_names, depth: config.max_depth },
            edits: whole_document_edits().iter().cloned().chain(removed).collect(),
        })
    }

    fn needs(&self) -> Needs {
        Needs::ResponseBody
    }

    async fn on_request(&self, request: &RequestHeader, exchange: &mut Exchange, _memory: &mut ()) -> Verdict {
        let selected = self
            .selected(request)
            .map_err(|why| Rejection::new(Reason::FieldsInvalid, format!("{}: {why}", self.parameter)).log(why))?;
        if selected.is_some() {
            exchange.edits.push(&self.edits);
        }
        Ok(())
    }

    fn on_response_body(&self, response: &mut ResponseHeader, view: &ResponseView<'_>) -> BodyStep {
        if !response.status.is_success() {
            return Ok(None);
        }
        let Ok(Some(selection)) = self.selected(view.request) else { return Ok(None) };
        let is_edited = !selection.is_whole() && is_editable(response, Other::Keep, selection.is_ascii())?;
        Ok(is_edited.then(|| Box::new(Selector::new(selection)) as _))
    }
}

impl Filter {
    /// Returns what a request selects, if it selects; several parameters select together.
    ///
    /// # Errors
    /// Returns what is wrong with the parameter, and where.
    fn selected(&self, request: &RequestHeader) -> Result<Option<Arc<Selection>>, String> {
        let mut values = raw_parameters(request.uri.query(), &self.parameter).map(form_decode).peekable();
        if values.peek().is_none() {
            return Ok(self.default.clone());
        }
        let texts: Result<Vec<String>, _> = values.map(|value| String::from_utf8(value.into_owned())).collect();
        let texts = texts.map_err(|_| "it is not UTF-8".to_owned())?;
        let selection = Selection::of_all(texts.iter().map(String::as_str), self.limits);
        let selection = selection.map_err(|(_, error)| error.to_string())?;
        if let Some(allowed) = &self.allow {
            selection.check_within(allowed).map_err(|error| error.to_string())?;
        }
        Ok(Some(Arc::new(selection)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_kit::{compile, request, response};

    const USER: &str = r#"{ "id":1.0,"ssn":"x","user":{"name":"A","mail":"a@b","x":[]},"list":[{"id":2,"y":3}] }"#;

    fn selected(filters: &str, path: &str, body: &str) -> Result<String, String> {
        let mut kit = compile(filters).expect("filters");
        kit.on_request(request(&format!("GET {path}"), &[("accept-encoding", "gzip"), ("range", "bytes=0-1")]))
            .map_err(|rejection| format!("{} {}", rejection.reason.status(), rejection.detail))?;
        let sent = kit.sent();
        let head = response(200, &[("content-type", "application/json"), ("content-length", "9"), ("etag", "\"1\"")]);
        let changed = kit.on_response(head, body.as_bytes(), 5).expect("JSON");
        let is_whole = changed.header("content-length") == "9";
        assert_eq!(changed.header("etag"), if is_whole { "\"1\"" } else { "W/\"1\"" });
        assert!(is_whole || sent.headers.is_empty(), "the target is asked for the whole document, without a coding");
        Ok(String::from_utf8(changed.body).expect("UTF-8"))
    }

    #[test]
    fn clients_select() {
        let filters = "[select_fields: {}]";
        for (query, wanted) in [
            ("?fields=id", r#"{ "id":1.0}"#),
            ("?fields=user(name),list.id", r#"{"user":{"name":"A"},"list":[{"id":2}] }"#),
            ("?fields=user%28name%29&a=b&fields=id", r#"{ "id":1.0,"user":{"name":"A"}}"#),
            ("?fields=none", "{}"),
            ("?fields=*", USER),
            ("?field=id", USER),
            ("", USER),
        ] {
            let got = selected(filters, &format!("/{query}"), USER).expect("JSON");
            assert_eq!(got.replace(' ', ""), wanted.replace(' ', ""), "{query}");
        }
    }

    #[test]
    fn what_may_be_selected_has_limits() {
        let filters = "[select_fields: {parameter: show, allow: [id, user.name, list], max_names: 3, max_depth: 2}]";
        assert_eq!(
            selected(filters, "/?show=list.y,id", "{\"list\":[{\"y\":1}]}").as_deref(),
            Ok("{\"list\":[{\"y\":1}]}")
        );
        for (query, why) in [
            ("show=id,ssn", "400 show: a field that may not be selected at character 4"),
            ("show=user", "400 show: a field that may not be selected at character 1"),
            ("show=user(", "400 show: expected a name at character 6"),
            ("show=", "400 show: expected a name at character 1"),
            ("show=a,b,c,d", "400 show: more than 3 names at character 7"),
            ("show=list.a.b", "400 show: more than 2 levels at character 8"),
            ("show=%ff", "400 show: it is not UTF-8"),
        ] {
            assert_eq!(selected(filters, &format!("/?{query}"), USER), Err(why.to_owned()), "{query}");
        }
    }

    #[test]
    fn a_request_that_selects_nothing_gets_the_default() {
        let filters = "[select_fields: {default: id, allow: [user], remove_parameter: true}]";
        assert_eq!(selected(filters, "/", r#"{"id":1,"a":2}"#).as_deref(), Ok(r#"{"id":1}"#));
        assert_eq!(selected(filters, "/?fields=user", r#"{"id":1,"user":2}"#).as_deref(), Ok(r#"{"user":2}"#));
        let mut kit = compile(filters).expect("filters");
        kit.on_request(request("GET /p?a=1&fields=user", &[])).expect("a selection");
        assert_eq!(kit.sent().uri, "/p?a=1");
    }

    #[test]
    fn what_is_not_json_or_failed_is_unchanged() {
        for (status, kind) in [(404, "application/json"), (200, "text/html"), (304, "application/json")] {
            let mut kit = compile("[select_fields: {}]").expect("filters");
            kit.on_request(request("GET /?fields=id", &[])).expect("a selection");
            let changed =
                kit.on_response(response(status, &[("content-type", kind)]), USER.as_bytes(), 9).expect("a body");
            assert_eq!(changed.body, USER.as_bytes());
        }
    }

    #[test]
    fn errors_have_their_place() {
        for (settings, why) in [
            ("allow: [id, 'a(']", "allow[1]: expected a name at character 3"),
            ("default: 'a)'", "default: expected a comma or the end at character 2"),
            ("max_names: 0", "max_names: expected 1 to 1024"),
            ("max_depth: 33", "max_depth: expected 1 to 32"),
            ("parameter: ''", "parameter: expected the name"),
        ] {
            let error = compile(&format!("[select_fields: {{{settings}}}]")).err().expect("an error");
            assert!(error.contains(why), "{settings}: {error}");
        }
    }
}
