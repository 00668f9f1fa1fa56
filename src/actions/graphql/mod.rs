//! `graphql`: executes GraphQL operations over calls to upstreams.

mod compile;
mod config;

use std::sync::Arc;
use std::time::Duration;

use apollo_compiler::parser::Parser;
use http::HeaderName;
use serde_json::{Value, json};

use super::{ActionContext, ActionOutcome, HttpAction};
use crate::exchange::RequestView;
use crate::rules::graphql::{
    Engine, FieldSource, GraphqlError, GraphqlFailure, GraphqlLimits, GraphqlRequest, Prepared,
};
use crate::upstreams::Upstream;

pub use config::Config;

/// The most tokens of a document, and the deepest nesting that is parsed.
const MAX_TOKENS: usize = 20_000;
const MAX_NESTING: usize = 100;

/// A GraphQL API.
#[derive(Debug)]
pub struct Graphql {
    /// The schema with its resolvers.
    pub engine: Engine,
    /// Where calls go, by the number of each, and whether a response of 404 is null there.
    pub upstreams: Vec<(Arc<Upstream>, bool)>,
    /// The time of all calls.
    pub timeout: Duration,
    /// The most operations in one request.
    pub batch: usize,
    /// The most calls at a time.
    pub concurrency: usize,
    /// The longest request body.
    pub request_body: u64,
    /// The largest response of one call.
    pub call_size: usize,
    /// The largest sum of them.
    pub size: usize,
    /// The headers of the client that calls send on.
    pub forward_headers: Vec<HeaderName>,
    limits: GraphqlLimits,
}

impl HttpAction for Graphql {
    type Config = Config;

    fn compile(config: &Config, context: &mut ActionContext<'_>) -> Self {
        compile::compile(config, context)
    }

    fn on_request(&self, _view: &RequestView<'_>) -> ActionOutcome<'_> {
        ActionOutcome::Graphql(self)
    }

    fn describe(&self) -> Vec<String> {
        let types = self.engine.schema.types.values().filter(|kind| !kind.is_built_in()).count();
        let calls = self.engine.sources.values().filter(|source| matches!(source, FieldSource::Call(_))).count();
        vec![format!("graphql: {types} types, {calls} calls")]
    }
}

impl Graphql {
    /// Returns the operation of a request, if it may be executed; `is_get` is one that must not change anything.
    ///
    /// # Errors
    /// Returns the errors for the client.
    pub fn prepare(&self, request: &GraphqlRequest, is_get: bool) -> Result<Prepared, GraphqlError> {
        let accepted = self.limits.check(request, is_get).map_err(failure)?;
        let text = accepted.document.as_deref().or(request.query.as_deref()).unwrap_or_default();
        let parsed = Parser::new().token_limit(MAX_TOKENS).recursion_limit(MAX_NESTING).parse_ast(text, "query");
        let document = parsed.map_err(|_| GraphqlError::new("the document cannot be parsed"))?;
        let name = request.operation_name.as_deref().filter(|name| !name.is_empty());
        let none = serde_json::Map::new();
        self.engine.prepare(&document, name, request.variables.as_ref().unwrap_or(&none))
    }
}

/// Returns the error for the client of a request that is not executed.
fn failure(failure: GraphqlFailure) -> GraphqlError {
    let coded =
        |message: &str, code: &str| GraphqlError(vec![json!({"message": message, "extensions": {"code": code}})]);
    match failure {
        GraphqlFailure::Invalid(why) => GraphqlError::new(why),
        GraphqlFailure::Limit(why) => coded(&why, "OPERATION_TOO_LARGE"),
        GraphqlFailure::MutationByGet => GraphqlError::new("only queries may come by GET"),
        // Apollo's clients send the document after this message.
        GraphqlFailure::UnknownDocument => coded("PersistedQueryNotFound", "PERSISTED_QUERY_NOT_FOUND"),
        GraphqlFailure::NotKnown => coded("only persisted documents are executed", "PERSISTED_QUERY_NOT_FOUND"),
    }
}

/// Returns the response to several operations, or to one.
pub fn graphql_response(mut responses: Vec<Value>, is_list: bool) -> Value {
    match responses.pop() {
        Some(only) if !is_list => only,
        last => Value::from_iter(responses.into_iter().chain(last)),
    }
}
