//! Operations that are fixed in the configuration, parsed once.

use std::sync::Arc;

use apollo_compiler::ast::OperationType;
use apollo_compiler::parser::Parser;
use apollo_compiler::validation::Valid;
use apollo_compiler::{ExecutableDocument, Schema, request};
use serde_json::{Map, Value};

use super::variable::VariableType;

/// A schema by which operations and variables are validated.
#[derive(Clone, Debug)]
pub struct KnownSchema(Arc<Valid<Schema>>);

impl KnownSchema {
    /// Parses a schema in the schema definition language.
    ///
    /// # Errors
    /// Returns the errors in it.
    pub fn new(text: &str) -> Result<Self, String> {
        let parsed = Schema::parse_and_validate(text, "schema");
        parsed.map(|schema| Self(Arc::new(schema))).map_err(|error| first_error(&error.errors))
    }
}

/// Returns the first of several errors, on one line.
fn first_error(errors: &apollo_compiler::validation::DiagnosticList) -> String {
    let first = errors.iter().next().map(|error| {
        let place = error.line_column_range().map(|range| format!(" (line {})", range.start.line));
        format!("{}{}", error.error, place.unwrap_or_default())
    });
    first.unwrap_or_else(|| "it is not valid".to_owned())
}

/// An operation that is fixed in the configuration.
#[derive(Debug)]
pub struct FixedOperation {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Whether it is a query, which has no effect.
    pub is_query: bool,
    /// The variables, with whether each has to be there.
    pub variables: Vec<(String, VariableType, bool)>,
    /// The request's body up to the variables.
    prefix: String,
    checked: Option<(KnownSchema, Valid<ExecutableDocument>)>,
}

impl FixedOperation {
    /// Returns the operation of that name in a document, or its only one.
    ///
    /// # Errors
    /// Returns what is wrong with it.
    pub fn new(text: &str, name: Option<&str>, schema: Option<&KnownSchema>) -> Result<Self, String> {
        let document = Parser::new().parse_ast(text, "query").map_err(|error| first_error(&error.errors))?;
        document.validate_standalone_executable().map_err(|errors| first_error(&errors))?;
        let all: Vec<_> = document.definitions.iter().filter_map(|d| d.as_operation_definition()).collect();
        let named = |wanted: &str| all.iter().find(|o| o.name.as_ref().is_some_and(|name| name.as_str() == wanted));
        let operation = match (name, all.as_slice()) {
            (Some(name), _) => named(name).ok_or_else(|| format!("it has no operation {name}"))?,
            (None, [only]) => only,
            (None, []) => return Err("it has no operation".to_owned()),
            (None, _) => return Err("it has several operations: name one in `operation`".to_owned()),
        };
        if operation.operation_type == OperationType::Subscription {
            return Err("a subscription has no response".to_owned());
        }
        let checked = match schema {
            Some(schema) => {
                let valid = ExecutableDocument::parse_and_validate(&schema.0, text, "query");
                Some((schema.clone(), valid.map_err(|error| first_error(&error.errors))?))
            }
            None => None,
        };
        let types = schema.map(|schema| &**schema.0);
        let variable = |definition: &apollo_compiler::Node<apollo_compiler::ast::VariableDefinition>| {
            let declared = VariableType::of(&definition.ty, types);
            let required = declared.is_non_null() && definition.default_value.is_none();
            (definition.name.as_str().to_owned(), declared, required)
        };
        let name = operation.name.as_ref().map(|name| name.as_str().to_owned());
        let mut prefix = format!("{{\"query\":{}", Value::from(text));
        if let Some(name) = &name {
            prefix.push_str(&format!(",\"operationName\":{}", Value::from(name.as_str())));
        }
        prefix.push_str(",\"variables\":");
        Ok(Self {
            is_query: operation.operation_type == OperationType::Query,
            variables: operation.variables.iter().map(variable).collect(),
            name,
            prefix,
            checked,
        })
    }

    /// Returns the body of a request with those variables. Their types have been checked; with a schema, input objects
    /// are checked, too.
    ///
    /// # Errors
    /// Returns which value has not its type.
    pub fn body(&self, variables: Map<String, Value>) -> Result<String, String> {
        let text = Value::Object(variables).to_string();
        if let Some((schema, document)) = &self.checked {
            let values = serde_json::from_str(&text).map_err(|error| error.to_string())?;
            let operation = document.operations.get(self.name.as_deref()).map_err(|e| e.message().to_string())?;
            let coerced = request::coerce_variable_values(&schema.0, operation, &values);
            coerced.map_err(|error| error.message().to_string())?;
        }
        Ok([self.prefix.as_str(), &text, "}"].concat())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const QUERY: &str =
        "query User($id: ID!, $first: Int = 3, $at: Point) { user(id: $id, first: $first, at: $at) { name } }";
    const SCHEMA: &str = "type Query { user(id: ID!, first: Int, at: Point): User } type User { name: String } \
                          input Point { x: Int! }";

    #[test]
    fn an_operation_has_its_variables_and_its_body() {
        let operation = FixedOperation::new(QUERY, None, None).expect("an operation");
        let required: Vec<_> =
            operation.variables.iter().map(|(name, _, required)| (name.as_str(), *required)).collect();
        assert_eq!(required, [("id", true), ("first", false), ("at", false)]);
        assert!(operation.is_query);
        let values = json!({"id": "\"} evil"}).as_object().cloned().expect("an object");
        let body: Value = serde_json::from_str(&operation.body(values.clone()).expect("a body")).expect("JSON");
        assert_eq!(body, json!({"query": QUERY, "operationName": "User", "variables": values}));
    }

    #[test]
    fn documents_that_cannot_be_sent_are_rejected() {
        for (text, name, wanted) in [
            ("query {", None, "syntax error"),
            ("{ a } query B { b }", None, "anonymous operation"),
            ("query A { a } query B { b }", None, "name one in `operation`"),
            ("query A { a }", Some("B"), "it has no operation B"),
            ("fragment F on T { a }", None, "fragment"),
            ("type T { a: Int }", None, "type"),
            ("subscription S { s }", None, "a subscription has no response"),
            ("query A { a(b: $c) }", None, "variable"),
        ] {
            let error = FixedOperation::new(text, name, None).expect_err(text);
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }

    #[test]
    fn a_schema_validates_operations_and_values() {
        let schema = KnownSchema::new(SCHEMA).expect("a schema");
        let operation = FixedOperation::new(QUERY, None, Some(&schema)).expect("an operation");
        let body = |value: Value| operation.body(value.as_object().cloned().expect("an object")).map(|_| ());
        assert_eq!(body(json!({"id": "1", "at": {"x": 1}})), Ok(()));
        for wrong in [json!({"id": "1", "at": {"x": "1"}}), json!({"id": "1", "at": {}}), json!({"at": {"x": 1}})] {
            assert!(body(wrong.clone()).is_err(), "{wrong}");
        }
        let error = FixedOperation::new("query { nobody { name } }", None, Some(&schema)).expect_err("no field");
        assert!(error.contains("nobody") && error.contains("line 1"), "{error}");
        assert!(KnownSchema::new("type Query {").is_err());
    }
}
