//! Execution in rounds: what can be resolved is, by apollo-compiler's executor, and what is missing is a list of calls.
//!
//! Each round executes the whole operation over the results so far. A field whose call has no result yet is skipped,
//! and its call is noted once, however many fields need it. So calls that depend on nothing run at the same time, equal
//! ones are made once, and the result is what the specification says. The fields at the root of a mutation run one
//! after the other (section 6.2.2), and their calls are never shared.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};

use apollo_compiler::ast::Type;
use apollo_compiler::introspection::check_max_depth;
use apollo_compiler::request::coerce_variable_values;
use apollo_compiler::resolvers::{Execution, FieldError, ObjectValue, ResolveInfo, ResolvedValue};
use apollo_compiler::response::{JsonMap, JsonValue};
use apollo_compiler::schema::ExtendedType;
use apollo_compiler::validation::Valid;
use apollo_compiler::{ExecutableDocument, Schema};
use serde_json::{Value, json};

use super::text::{ResolverText, TextUse};

/// Where the value of a field comes from.
#[derive(Clone, Debug)]
pub enum FieldSource {
    /// A member of the object around it, of another name.
    Member(String),
    /// A call.
    Call(Box<FieldResolver>),
}

/// A call for the value of a field.
#[derive(Clone, Debug)]
pub struct FieldResolver {
    /// The number by which the caller knows where it goes; calls of one number that are equal otherwise are shared.
    pub number: usize,
    /// The method.
    pub method: http::Method,
    /// The path.
    pub path: ResolverText,
    /// The query; a parameter of which nothing is left is not sent.
    pub query: Vec<(String, ResolverText)>,
    /// The body, which is JSON.
    pub body: Option<ResolverText>,
    /// The members that lead to the value within the document of the response.
    pub take: Vec<String>,
}

/// What distinguishes a call from others of a request.
pub type CallKey = String;

/// A call that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldCall {
    /// The number of its resolver.
    pub number: usize,
    /// What distinguishes it.
    pub key: CallKey,
    /// The method.
    pub method: http::Method,
    /// The path and the query.
    pub target: String,
    /// The body.
    pub body: Option<String>,
}

/// The result of a call: its document, or the error for the client.
pub type ResolvedCall = Result<JsonValue, String>;

/// An error of a request that is not executed, as the client gets it.
#[derive(Clone, Debug, PartialEq)]
pub struct GraphqlError(pub Vec<Value>);

impl GraphqlError {
    /// Returns an error with a message.
    pub fn new(message: impl Into<String>) -> Self {
        Self(vec![json!({"message": message.into()})])
    }

    /// Returns the response to a request that is not executed.
    pub fn response(&self) -> Value {
        json!({"errors": self.0})
    }
}

/// The schema with its resolvers.
#[derive(Debug)]
pub struct Engine {
    /// The schema.
    pub schema: Valid<Schema>,
    /// The sources of fields that are no member of the same name, by type and field.
    pub sources: BTreeMap<(String, String), FieldSource>,
    /// Whether clients may read the schema.
    pub introspection: bool,
    /// The most calls of one operation.
    pub max_calls: usize,
    /// The most values of a result.
    pub max_values: usize,
    /// The most bytes of texts of a result.
    pub max_bytes: usize,
}

/// A valid operation, with its variables.
#[derive(Debug)]
pub struct Prepared {
    document: Valid<ExecutableDocument>,
    operation: Option<String>,
    variables: Valid<JsonMap>,
    is_mutation: bool,
}

impl Prepared {
    /// Returns whether the operation may change anything.
    pub fn is_mutation(&self) -> bool {
        self.is_mutation
    }
}

/// What a round has led to.
#[derive(Debug)]
pub enum Round {
    /// The response.
    Done(Value),
    /// These calls are needed first.
    Calls(Vec<FieldCall>),
}

impl Engine {
    /// Returns an operation that is valid for the schema.
    ///
    /// # Errors
    /// Returns the errors for the client.
    pub fn prepare(
        &self,
        document: &apollo_compiler::ast::Document,
        operation: Option<&str>,
        variables: &serde_json::Map<String, Value>,
    ) -> Result<Prepared, GraphqlError> {
        let document = document.to_executable_validate(&self.schema).map_err(|invalid| {
            let all = invalid.errors.iter().take(MAX_ERRORS).map(|error| {
                serde_json::to_value(error.to_json())
                    .unwrap_or_else(|_| json!({"message": "the document is not valid"}))
            });
            GraphqlError(all.collect())
        })?;
        let found = document.operations.get(operation).map_err(|_| match operation {
            Some(name) => GraphqlError::new(format!("there is no operation {name:?}")),
            None => GraphqlError::new("the document has several operations: say which one by operationName"),
        })?;
        if found.is_subscription() {
            return Err(GraphqlError::new("subscriptions are not supported"));
        }
        let text = serde_json::to_vec(variables).unwrap_or_default();
        let raw: JsonMap = serde_json::from_slice(&text).unwrap_or_default();
        check_max_depth(&document, found).map_err(|_| GraphqlError::new("the schema is read too deep"))?;
        let is_mutation = found.is_mutation();
        let variables = coerce_variable_values(&self.schema, found, &raw).map_err(|error| {
            let error = serde_json::to_value(error.to_graphql_error(&document.sources));
            GraphqlError(
                error.map_or_else(|_| vec![json!({"message": "the variables are not valid"})], |one| vec![one]),
            )
        })?;
        Ok(Prepared { operation: operation.map(str::to_owned), variables, is_mutation, document })
    }

    /// Executes an operation as far as the results of its calls allow it.
    ///
    /// # Errors
    /// Returns the errors for the client.
    pub fn round(&self, prepared: &Prepared, results: &HashMap<CallKey, ResolvedCall>) -> Result<Round, GraphqlError> {
        let execution = Execution::new(&self.schema, &prepared.document)
            .operation_name(prepared.operation.as_deref())
            .map_err(|_| GraphqlError::new("there is no such operation"))?
            .coerced_variable_values(&prepared.variables)
            .enable_schema_introspection(self.introspection);
        let operation = prepared.document.operations.get(prepared.operation.as_deref());
        let root = operation.map_or("Query", |operation| operation.object_type().as_str());
        let wanted = RefCell::new(Vec::new());
        let (values, bytes) = (Cell::new(0), Cell::new(0));
        let scene = RoundScene {
            engine: self,
            results,
            wanted: &wanted,
            is_mutation: prepared.is_mutation,
            values: &values,
            bytes: &bytes,
        };
        let node = ObjectNode { scene: &scene, kind: root.to_owned(), value: None };
        let response = execution.execute_sync(&node).map_err(|error| {
            let error = serde_json::to_value(error.to_graphql_error(&prepared.document.sources)).unwrap_or_default();
            GraphqlError(vec![error])
        })?;
        if scene.is_too_large() {
            return Err(GraphqlError::new("the result is too large"));
        }
        let wanted = wanted.into_inner();
        if !wanted.is_empty() {
            return Ok(Round::Calls(wanted));
        }
        let mut response = serde_json::to_value(&response).unwrap_or_else(|_| json!({"data": null}));
        for error in response.get_mut("errors").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(Value::String(message)) = error.get_mut("message")
                && let Some(own) = message.strip_prefix("resolver error: ")
            {
                *message = own.to_owned();
            }
        }
        Ok(Round::Done(response))
    }
}

/// The most errors of a document that the client is told.
const MAX_ERRORS: usize = 20;

/// The facts of one round.
struct RoundScene<'r> {
    engine: &'r Engine,
    results: &'r HashMap<CallKey, ResolvedCall>,
    wanted: &'r RefCell<Vec<FieldCall>>,
    is_mutation: bool,
    /// The values of the result so far.
    values: &'r Cell<usize>,
    /// The bytes of its texts.
    bytes: &'r Cell<usize>,
}

/// An object of the result.
struct ObjectNode<'r> {
    scene: &'r RoundScene<'r>,
    kind: String,
    /// What the field around it has; `None` at the root.
    value: Option<&'r JsonValue>,
}

impl ObjectValue for ObjectNode<'_> {
    fn type_name(&self) -> &str {
        &self.kind
    }

    fn resolve_field<'a>(&'a self, info: &'a ResolveInfo<'a>) -> Result<ResolvedValue<'a>, FieldError> {
        if self.scene.is_too_large() {
            // Nothing of it is sent.
            return Ok(ResolvedValue::SkipForPartialExecution);
        }
        let name = info.field_name();
        let kind = &info.field_definition().ty;
        let source = self.scene.engine.sources.get(&(self.kind.clone(), name.to_owned()));
        let member = match source {
            Some(FieldSource::Call(resolver)) => return self.call(resolver, info, kind),
            Some(FieldSource::Member(member)) => member.as_str(),
            None => name,
        };
        match self.value.and_then(|value| value.get(member)) {
            Some(value) => self.scene.shape(value, kind),
            None => Ok(ResolvedValue::null()),
        }
    }
}

impl<'r> ObjectNode<'r> {
    fn call<'a>(
        &'a self,
        resolver: &FieldResolver,
        info: &'a ResolveInfo<'a>,
        kind: &Type,
    ) -> Result<ResolvedValue<'a>, FieldError> {
        let is_root_of_mutation = self.scene.is_mutation && self.value.is_none();
        if is_root_of_mutation && !self.scene.wanted.borrow().is_empty() {
            // It waits for the field before it.
            return Ok(ResolvedValue::SkipForPartialExecution);
        }
        let Some(mut call) = call_of(resolver, info.arguments(), self.value) else {
            return Ok(ResolvedValue::null());
        };
        if is_root_of_mutation {
            call.key.push_str(&format!(" as {}", info.field_selections()[0].response_key()));
        }
        match self.scene.results.get(&call.key) {
            Some(Ok(document)) => {
                let taken = resolver.take.iter().try_fold(document, |value, step| value.get(step.as_str()));
                taken.map_or_else(|| Ok(ResolvedValue::null()), |value| self.scene.shape(value, kind))
            }
            Some(Err(message)) => Err(FieldError { message: message.clone() }),
            None => {
                let mut wanted = self.scene.wanted.borrow_mut();
                if wanted.iter().any(|known| known.key == call.key) {
                    return Ok(ResolvedValue::SkipForPartialExecution);
                }
                if self.scene.results.len() + wanted.len() >= self.scene.engine.max_calls {
                    return Err(FieldError { message: "the operation needs too many calls".to_owned() });
                }
                wanted.push(call);
                Ok(ResolvedValue::SkipForPartialExecution)
            }
        }
    }
}

impl<'r> RoundScene<'r> {
    /// Returns whether the result exceeds a limit: a shared call may stand in it any number of times.
    fn is_too_large(&self) -> bool {
        self.values.get() > self.engine.max_values || self.bytes.get() > self.engine.max_bytes
    }

    /// Returns a value in the form that its type has.
    fn shape<'a>(&'a self, value: &'a JsonValue, kind: &Type) -> Result<ResolvedValue<'a>, FieldError> {
        self.values.set(self.values.get() + 1);
        if value.is_null() || self.is_too_large() {
            return Ok(ResolvedValue::null());
        }
        match kind {
            Type::List(item) | Type::NonNullList(item) => {
                let JsonValue::Array(items) = value else {
                    return Err(FieldError { message: "the value is no list".to_owned() });
                };
                let item: Type = (**item).clone();
                Ok(ResolvedValue::List(Box::new(items.iter().map(move |value| self.shape(value, &item)))))
            }
            Type::Named(name) | Type::NonNullNamed(name) => {
                let schema = &self.engine.schema;
                let kind = match schema.types.get(name) {
                    Some(ExtendedType::Object(object)) => object.name.to_string(),
                    Some(ExtendedType::Interface(_) | ExtendedType::Union(_)) => self.concrete(value, name)?,
                    _ => {
                        self.bytes.set(self.bytes.get().saturating_add(size_of(value)));
                        return Ok(if self.is_too_large() {
                            ResolvedValue::null()
                        } else {
                            ResolvedValue::leaf(value.clone())
                        });
                    }
                };
                if !value.is_object() {
                    return Err(FieldError { message: "the value is no object".to_owned() });
                }
                Ok(ResolvedValue::object(ObjectNode { scene: self, kind, value: Some(value) }))
            }
        }
    }

    /// Returns the type of an object by its member `__typename`.
    fn concrete(&self, value: &JsonValue, of: &str) -> Result<String, FieldError> {
        let named = value.get("__typename").and_then(JsonValue::as_str);
        let is_known = |name: &str| self.engine.schema.is_subtype(of, name);
        named
            .filter(|name| is_known(name))
            .map(str::to_owned)
            .ok_or_else(|| FieldError { message: format!("the value has no __typename of {of}") })
    }
}

/// Returns about how many bytes a value has.
fn size_of(value: &JsonValue) -> usize {
    match value {
        JsonValue::String(text) => text.as_str().len(),
        JsonValue::Array(items) => items.iter().map(size_of).sum::<usize>() + 8,
        JsonValue::Object(members) => {
            members.iter().map(|(name, value)| name.as_str().len() + size_of(value)).sum::<usize>() + 8
        }
        _ => 8,
    }
}

/// Returns the call of a resolver; `None` where a value of its path is missing, since there is nothing to ask for.
fn call_of(resolver: &FieldResolver, args: &JsonMap, parent: Option<&JsonValue>) -> Option<FieldCall> {
    let mut target = resolver.path.fill(args, parent, TextUse::Path)?;
    let mut query = form_urlencoded::Serializer::new(String::new());
    let mut has_query = false;
    for (name, text) in &resolver.query {
        if let Some(value) = text.fill(args, parent, TextUse::Plain) {
            query.append_pair(name, &value);
            has_query = true;
        }
    }
    if has_query {
        target.push(if target.contains('?') { '&' } else { '?' });
        target.push_str(&query.finish());
    }
    let body = resolver.body.as_ref().and_then(|text| text.fill(args, parent, TextUse::Json));
    let key = format!("{} {} {target} {}", resolver.number, resolver.method, body.as_deref().unwrap_or_default());
    Some(FieldCall { number: resolver.number, key, method: resolver.method.clone(), target, body })
}

#[cfg(test)]
#[path = "execution_tests.rs"]
mod tests;
