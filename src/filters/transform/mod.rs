//! `transform`: changes requests on their way to the target, and responses on their way back.
//!
//! Each direction is a list of steps; a step changes the head, and then the body, and sees what those before it have
//! made. Bodies are decoded first where they have a content coding. Edits of JSON that need no more than the part that
//! they change work as the document streams; the others hold it whole, up to a limit.

mod compile;
mod config;
mod cookies;
mod facts;
mod ops;
mod request;
mod response;
mod when;

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderName;
use http::header::CONTENT_ENCODING;
use pingora::http::{RequestHeader, ResponseHeader};

use super::json::{Other, whole_document_edits};
use super::{BodyStep, CompileContext, HttpFilter, Needs, ResponseView, Stage, Verdict};
use crate::exchange::{Edit, Exchange, Rejection, RequestValue, Template};
use crate::rules::templating::BodyTemplate;

use compile::Compiler;
use ops::{BodyChange, JsonChange, SetValue};
use request::RequestPart;
use response::ResponsePart;

pub use config::Config;

/// The compiled filter.
#[derive(Debug)]
pub struct Filter {
    request: Vec<RequestPart>,
    response: Vec<ResponsePart>,
    most: u64,
    other: Other,
    /// The edits by which the target sends the whole document without a coding, where it is changed.
    edits: Arc<[Edit]>,
    /// The edits of a request whose body is decoded, or changed.
    body_edits: Arc<[Edit]>,
    needs: Needs,
    reads_params: bool,
}

impl HttpFilter for Filter {
    type Config = Config;
    type Memory = ();
    const STAGE: Stage = Stage::Edit;

    fn compile(config: &Config, context: &mut CompileContext<'_>) -> Option<Self> {
        let place = context.place.clone();
        if config.request.as_slice().is_empty() && config.response.as_slice().is_empty() {
            context.mistakes.add(&place, "changes nothing: write request: or response: with at least one step");
            return None;
        }
        let before = context.mistakes.count();
        let mut compiler = Compiler { context, of_request: true, max_size: config.max_size.0 };
        let steps = config.request.placed(&place.key("request"));
        let request: Vec<RequestPart> =
            steps.into_iter().map(|(step, place)| RequestPart::compile(step, &place, &mut compiler)).collect();
        compiler.of_request = false;
        let steps = config.response.placed(&place.key("response"));
        let response: Vec<ResponsePart> =
            steps.into_iter().map(|(step, place)| ResponsePart::compile(step, &place, &mut compiler)).collect();
        if context.mistakes.count() > before {
            return None;
        }
        let changes_responses = response.iter().any(|part| !part.body.is_empty());
        let needs = match (request.iter().any(RequestPart::needs_body), changes_responses) {
            (true, true) => Needs::Bodies(config.max_size.0),
            (true, false) => Needs::RequestBody(config.max_size.0),
            (false, true) => Needs::ResponseBody,
            (false, false) if !response.is_empty() && request.is_empty() => Needs::ResponseBody,
            (false, false) => Needs::Heads,
        };
        let described = ["content-md5", "digest", "content-digest", "repr-digest"].map(HeaderName::from_static);
        let mut filter = Self {
            request,
            response,
            most: config.max_size.0,
            other: config.other,
            edits: if changes_responses { whole_document_edits() } else { Arc::from([]) },
            body_edits: [CONTENT_ENCODING].into_iter().chain(described).map(Edit::Remove).collect(),
            needs,
            reads_params: false,
        };
        filter.reads_params = filter.reads("request.params") || filter.request.iter().any(RequestPart::fills_path);
        Some(filter)
    }

    fn needs(&self) -> Needs {
        self.needs
    }

    fn judges_responses(&self) -> bool {
        self.response.iter().flat_map(|part| &part.body).any(|change| change.needs_whole())
    }

    fn wants_body(&self, request: &RequestHeader, exchange: &Exchange) -> bool {
        self.wants_body_of(request, exchange)
    }

    fn reads_params(&self) -> bool {
        self.reads_params
    }

    fn edits(&self) -> Option<&Arc<[Edit]>> {
        Some(&self.edits)
    }

    fn needs_whole_responses(&self) -> bool {
        self.response.iter().any(ResponsePart::needs_whole)
    }

    async fn on_request(&self, request: &RequestHeader, exchange: &mut Exchange, (): &mut ()) -> Verdict {
        self.edit_head(request, exchange)
    }

    fn edit_request_body(
        &self,
        body: &Bytes,
        request: &RequestHeader,
        exchange: &mut Exchange,
    ) -> Result<Option<Bytes>, Box<Rejection>> {
        self.edit_body(body, request, exchange)
    }

    fn on_response_body(&self, response: &mut ResponseHeader, view: &ResponseView<'_>) -> BodyStep {
        self.edit_response(response, view)
    }
}

impl Filter {
    /// Returns all templates.
    fn templates(&self) -> impl Iterator<Item = &BodyTemplate> {
        let of_requests = self.request.iter().flat_map(|part| part.rendered.iter().map(|(_, template)| template));
        let of_responses = self.response.iter().flat_map(|part| part.rendered.iter().map(|(_, template)| template));
        let requests = self.request.iter().flat_map(|part| &part.body);
        let bodies = requests.chain(self.response.iter().flat_map(|part| &part.body));
        of_requests.chain(of_responses).chain(bodies.flat_map(|change| templates_of(change)))
    }

    /// Returns whether a template reads the value of that path.
    fn reads(&self, path: &str) -> bool {
        self.templates().any(|template| template.reads(path))
    }
}

/// Returns the templates of a change.
fn templates_of(change: &BodyChange) -> Vec<&BodyTemplate> {
    match change {
        BodyChange::New(new) => vec![&new.template],
        BodyChange::Json(JsonChange::Set(set)) => set.values.iter().filter_map(SetValue::template).collect(),
        BodyChange::Json(_) | BodyChange::Convert(_) => Vec::new(),
    }
}

/// Returns the names of path parameters that an edit of the path fills in.
fn path_values(edit: &Edit) -> impl Iterator<Item = &str> {
    let template = match edit {
        Edit::Path(template) => Some(template),
        _ => None,
    };
    template.into_iter().flat_map(Template::values).filter_map(|value| match value {
        RequestValue::Param(name) => Some(name.as_str()),
        RequestValue::Rest => Some("*"),
        _ => None,
    })
}

#[cfg(test)]
mod tests;
