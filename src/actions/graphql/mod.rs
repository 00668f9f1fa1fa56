//! `graphql`: executes GraphQL operations over calls to upstreams.

mod compile;
mod config;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use apollo_compiler::ast::{Document, OperationType};
use apollo_compiler::parser::Parser;
use http::HeaderName;
use serde_json::{Value, json};

use super::{ActionContext, ActionOutcome, HttpAction};
use crate::exchange::RequestView;
use crate::rules::graphql::{
    Engine, FieldSource, GraphqlError, OperationRequest, Prepared, QueryLimits, QuerySize, operations,
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
    limits: QueryLimits,
    persisted: HashMap<String, String>,
    only_persisted: bool,
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
    pub fn prepare(&self, request: &OperationRequest, is_get: bool) -> Result<Prepared, GraphqlError> {
        let text = self.document(request)?;
        let parsed =
            Parser::new().token_limit(MAX_TOKENS).recursion_limit(MAX_NESTING).parse_ast(text, "query.graphql");
        let document = parsed.map_err(|invalid| {
            let first = invalid.errors.iter().next();
            let error = first.and_then(|error| serde_json::to_value(error.to_json()).ok());
            GraphqlError(vec![error.unwrap_or_else(|| json!({"message": "the document cannot be parsed"}))])
        })?;
        let name = request.operation_name.as_deref();
        if is_get && !is_query(&document, name) {
            return Err(GraphqlError::new("only queries may come by GET"));
        }
        let size = QuerySize::of(&document, name, &request.variables);
        if let Some((limit, size, most)) = self.limits.exceeded(&size) {
            let message = format!("the operation is too large: {limit} {size} exceeds {most}");
            return Err(GraphqlError(vec![json!({
                "message": message,
                "extensions": {"code": "OPERATION_TOO_LARGE"},
            })]));
        }
        self.engine.prepare(&document, name, &request.variables)
    }

    fn document<'r>(&'r self, request: &'r OperationRequest) -> Result<&'r str, GraphqlError> {
        let persisted = request.persisted_id().and_then(|id| self.persisted.get(id));
        if let Some(persisted) = persisted {
            return Ok(persisted);
        }
        let unknown =
            |message: &str, code: &str| GraphqlError(vec![json!({"message": message, "extensions": {"code": code}})]);
        match &request.query {
            _ if self.only_persisted => {
                Err(unknown("only persisted documents are executed", "PERSISTED_QUERY_NOT_FOUND"))
            }
            Some(query) => Ok(query),
            // Apollo's clients send the document after this message.
            None if request.persisted_id().is_some() => {
                Err(unknown("PersistedQueryNotFound", "PERSISTED_QUERY_NOT_FOUND"))
            }
            None => Err(GraphqlError::new("the request has no query")),
        }
    }
}

fn is_query(document: &Document, name: Option<&str>) -> bool {
    let mut of_name = operations(document).filter(|(_, known)| name.is_none() || *known == name);
    of_name.all(|(kind, _)| kind == OperationType::Query)
}

/// Returns the response to several operations, or to one.
pub fn graphql_response(mut responses: Vec<Value>, is_list: bool) -> Value {
    match responses.pop() {
        Some(only) if !is_list => only,
        last => Value::from_iter(responses.into_iter().chain(last)),
    }
}
