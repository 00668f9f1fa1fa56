//! `validate`: validates requests and responses by JSON Schema; and the same by the OpenAPI document of a route.

mod api;
mod config;
mod own;
mod reject;
mod response;

use std::sync::Arc;

use pingora::http::{RequestHeader, ResponseHeader};

use super::json::whole_document_edits;
use super::{BodyStep, CompileContext, HttpFilter, Needs, ResponseView, Stage, Verdict};
use crate::exchange::{Edit, Exchange};

pub use api::ApiRules;
pub use config::{Config, OpenApiConfig, ResponseMode, UnknownPaths};
use own::OwnRules;
use response::ResponseStep;

/// The compiled filter.
#[derive(Debug)]
pub struct Filter {
    rules: Rules,
    edits: Option<Arc<[Edit]>>,
}

/// The rules by which messages are validated.
#[derive(Clone, Debug)]
enum Rules {
    /// Those of the filter itself.
    Own(Arc<OwnRules>),
    /// Those of the route's OpenAPI document.
    Api(Arc<ApiRules>),
}

impl Filter {
    fn new(rules: Rules) -> Self {
        let mode = match &rules {
            Rules::Own(own) => own.response_mode(),
            Rules::Api(api) => api.responses,
        };
        let edits = matches!(mode, ResponseMode::Enforce | ResponseMode::Filter).then(whole_document_edits);
        Self { rules, edits }
    }

    /// Returns the filter that validates by the OpenAPI document of a route.
    pub fn of_api(api: Arc<ApiRules>) -> Self {
        Self::new(Rules::Api(api))
    }

    /// Returns whether it validates by the OpenAPI document of a route.
    pub fn is_of_api(&self) -> bool {
        matches!(self.rules, Rules::Api(_))
    }

    fn response_mode(&self) -> ResponseMode {
        match &self.rules {
            Rules::Own(own) => own.response_mode(),
            Rules::Api(api) => api.responses,
        }
    }
}

impl HttpFilter for Filter {
    type Config = Config;
    type Memory = ();
    const STAGE: Stage = Stage::Validate;

    fn compile(config: &Config, context: &mut CompileContext<'_>) -> Option<Self> {
        OwnRules::compile(config, context).map(|own| Self::new(Rules::Own(Arc::new(own))))
    }

    fn needs(&self) -> Needs {
        let most = match &self.rules {
            Rules::Own(own) => own.max_body(),
            Rules::Api(api) => api.max_body(),
        };
        match most {
            Some(most) => Needs::RequestBody(most),
            None if self.response_mode() != ResponseMode::Ignore => Needs::ResponseBody,
            None => Needs::Heads,
        }
    }

    fn edits(&self) -> Option<&Arc<[Edit]>> {
        self.edits.as_ref()
    }

    fn wants_body(&self, request: &RequestHeader, exchange: &Exchange) -> bool {
        match &self.rules {
            Rules::Own(_) => true,
            Rules::Api(api) => !api.skips_body(request, exchange),
        }
    }

    fn judges_responses(&self) -> bool {
        matches!(self.response_mode(), ResponseMode::Enforce | ResponseMode::Filter)
    }

    fn needs_whole_responses(&self) -> bool {
        self.judges_responses()
    }

    async fn on_request(&self, request: &RequestHeader, exchange: &mut Exchange, _: &mut ()) -> Verdict {
        match &self.rules {
            Rules::Own(own) => own.on_request(request, exchange),
            Rules::Api(api) => api.on_request(request, exchange),
        }
    }

    fn on_request_body(&self, body: &[u8], request: &RequestHeader, exchange: &mut Exchange) -> Verdict {
        match &self.rules {
            Rules::Own(own) => own.on_request_body(body, request, exchange),
            Rules::Api(api) => api.on_request_body(body, request, exchange),
        }
    }

    fn on_response_body(&self, response: &mut ResponseHeader, view: &ResponseView<'_>) -> BodyStep {
        if view.own || self.response_mode() == ResponseMode::Ignore {
            return Ok(None);
        }
        ResponseStep::of(&self.rules, response, view)
    }
}

#[cfg(test)]
mod tests;
