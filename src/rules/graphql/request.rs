//! Requests to a GraphQL service (GraphQL over HTTP), and whether they are within limits.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::measure::{CostRules, MeasuredOperation, Measures, OperationKind, measure};

/// One operation as it is requested.
#[derive(Debug, Default, Deserialize)]
pub struct GraphqlRequest {
    /// The document.
    #[serde(default)]
    pub query: Option<String>,
    /// Which of its operations is executed.
    #[serde(default, rename = "operationName")]
    pub operation_name: Option<String>,
    /// The values of variables.
    #[serde(default)]
    pub variables: Option<Map<String, Value>>,
    /// The id of a document that is known, by one convention.
    #[serde(default, rename = "documentId")]
    pub document_id: Option<String>,
    /// The same by another.
    #[serde(default)]
    pub id: Option<String>,
    /// The hash of a document that is known, by a third.
    #[serde(default)]
    pub extensions: Option<Value>,
}

impl GraphqlRequest {
    /// Returns the id of a known document, if the request names one.
    fn document_id(&self) -> Option<&str> {
        let hash = || self.extensions.as_ref()?.get("persistedQuery")?.get("sha256Hash")?.as_str();
        self.document_id.as_deref().or(self.id.as_deref()).or_else(hash)
    }
}

/// Why a request is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GraphqlFailure {
    /// It is malformed.
    Invalid(String),
    /// It exceeds a limit.
    Limit(String),
    /// A mutation has an effect, and GET has none.
    MutationByGet,
    /// Its document is not known, and none is in the request. Clients send it once more with the document.
    UnknownDocument,
    /// Only known documents are accepted.
    NotKnown,
}

/// Documents that are known by an id.
#[derive(Clone, Debug, Default)]
pub struct KnownDocuments {
    by_id: HashMap<String, String>,
    texts: HashSet<String>,
}

impl KnownDocuments {
    /// Returns the documents of a JSON object from ids to texts.
    ///
    /// # Errors
    /// Returns why the text is none.
    pub fn new(text: &[u8]) -> Result<Self, String> {
        let by_id: HashMap<String, String> = serde_json::from_slice(text)
            .map_err(|error| format!("expected a JSON object from ids to documents: {error}"))?;
        Ok(Self { texts: by_id.values().cloned().collect(), by_id })
    }
}

/// The limits of requests.
#[derive(Clone, Debug)]
pub struct GraphqlLimits {
    /// The most levels of fields.
    pub depth: u32,
    /// The most fields, fragments in place of their spreads.
    pub fields: u32,
    /// The most aliases, counted likewise.
    pub aliases: u32,
    /// The most tokens of a document.
    pub tokens: usize,
    /// The highest cost.
    pub cost: Option<u64>,
    /// How costs are counted.
    pub costs: CostRules,
    /// Whether the schema may be read.
    pub introspection: bool,
    /// The documents that are known.
    pub known: Option<KnownDocuments>,
    /// Whether only known documents are accepted.
    pub only_known: bool,
}

/// An operation that is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptedOperation {
    /// Its kind.
    pub kind: OperationKind,
    /// Its name.
    pub name: Option<String>,
    /// The document that the request has named by its id.
    pub document: Option<String>,
}

impl GraphqlLimits {
    /// Decides on a request.
    ///
    /// # Errors
    /// Returns why it is not accepted.
    pub fn check(&self, request: &GraphqlRequest, by_get: bool) -> Result<AcceptedOperation, GraphqlFailure> {
        let known = self.known.as_ref();
        let by_id = request.document_id().and_then(|id| known?.by_id.get(id));
        let text = match (&request.query, by_id) {
            // A document beside a hash is the one that is executed.
            (Some(text), _) if !text.is_empty() => text,
            (_, Some(text)) => text,
            _ if request.document_id().is_some() => return Err(GraphqlFailure::UnknownDocument),
            _ => return Err(GraphqlFailure::Invalid("the request has no query".to_owned())),
        };
        if self.only_known && !known.is_some_and(|known| known.texts.contains(text)) {
            return Err(GraphqlFailure::NotKnown);
        }
        let none = Map::new();
        let variables = request.variables.as_ref().unwrap_or(&none);
        let operations = measure(text, self.tokens, &self.costs, variables).map_err(GraphqlFailure::Invalid)?;
        let operation = chosen(&operations, request.operation_name.as_deref().filter(|name| !name.is_empty()))?;
        if by_get && operation.kind == OperationKind::Mutation {
            return Err(GraphqlFailure::MutationByGet);
        }
        self.check_measures(&operation.measures)?;
        let document = request.query.as_deref().is_none_or(str::is_empty).then(|| text.clone());
        Ok(AcceptedOperation { kind: operation.kind, name: operation.name.clone(), document })
    }

    fn check_measures(&self, measures: &Measures) -> Result<(), GraphqlFailure> {
        let within = |what: &str, has: u64, most: u64| {
            if has <= most {
                return Ok(());
            }
            Err(GraphqlFailure::Limit(format!("the operation has {what} {has}, and {most} is the most")))
        };
        within("the depth", measures.depth.into(), self.depth.into())?;
        within("the number of fields", measures.fields.into(), self.fields.into())?;
        within("the number of aliases", measures.aliases.into(), self.aliases.into())?;
        within("the cost", measures.cost, self.cost.unwrap_or(u64::MAX))?;
        if measures.introspects && !self.introspection {
            return Err(GraphqlFailure::Limit("the schema may not be read here".to_owned()));
        }
        Ok(())
    }
}

fn chosen<'o>(
    operations: &'o [MeasuredOperation],
    name: Option<&str>,
) -> Result<&'o MeasuredOperation, GraphqlFailure> {
    let invalid = |why: String| Err(GraphqlFailure::Invalid(why));
    match (name, operations) {
        (Some(name), _) => {
            let mut named = operations.iter().filter(|operation| operation.name.as_deref() == Some(name));
            match (named.next(), named.next()) {
                (Some(operation), None) => Ok(operation),
                (Some(_), Some(_)) => invalid(format!("there are two operations {name}")),
                _ => invalid(format!("there is no operation {name}")),
            }
        }
        (None, [only]) => Ok(only),
        (None, _) => invalid("there are several operations, and operationName names none".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> GraphqlLimits {
        GraphqlLimits {
            depth: 3,
            fields: 5,
            aliases: 1,
            tokens: 100,
            cost: Some(20),
            costs: CostRules { fields: HashMap::new(), sizes: vec!["first".to_owned()] },
            introspection: false,
            known: Some(KnownDocuments::new(br#"{"k1": "{ known }"}"#).expect("documents")),
            only_known: false,
        }
    }

    fn check(body: &str, by_get: bool) -> Result<String, GraphqlFailure> {
        let request: GraphqlRequest = serde_json::from_str(body).expect("a request");
        let accepted = limits().check(&request, by_get)?;
        Ok(format!("{} {:?} {:?}", accepted.kind.word(), accepted.name.as_deref(), accepted.document.as_deref()))
    }

    #[test]
    fn requests_within_the_limits_are_accepted() {
        for (body, wanted) in [
            (r#"{"query": "{ a { b { c } } }"}"#, r"query None None"),
            (r#"{"query": "query A { a } mutation B { b }", "operationName": "B"}"#, r#"mutation Some("B") None"#),
            (r#"{"query": "subscription { s }", "operationName": ""}"#, "subscription None None"),
            (r#"{"documentId": "k1"}"#, r#"query None Some("{ known }")"#),
            (
                r#"{"query": "", "extensions": {"persistedQuery": {"sha256Hash": "k1"}}}"#,
                r#"query None Some("{ known }")"#,
            ),
            (r#"{"query": "query Q($n: Int) { a(first: $n) }", "variables": {"n": 20}}"#, r#"query Some("Q") None"#),
        ] {
            assert_eq!(check(body, false), Ok(wanted.to_owned()), "{body}");
        }
    }

    #[test]
    fn requests_over_a_limit_are_not() {
        let limit = |text: &str| GraphqlFailure::Limit(text.to_owned());
        let invalid = |text: &str| GraphqlFailure::Invalid(text.to_owned());
        for (body, wanted) in [
            (r#"{"query": "{ a { b { c { d } } } }"}"#, limit("the operation has the depth 4, and 3 is the most")),
            (r#"{"query": "{ a b c d e f }"}"#, limit("the operation has the number of fields 6, and 5 is the most")),
            (r#"{"query": "{ x: a y: b }"}"#, limit("the operation has the number of aliases 2, and 1 is the most")),
            (r#"{"query": "{ a(first: 21) }"}"#, limit("the operation has the cost 21, and 20 is the most")),
            (
                r#"{"query": "query Q($n: Int) { a(first: $n) }", "variables": {"n": 21}}"#,
                limit("the operation has the cost 21, and 20 is the most"),
            ),
            (r#"{"query": "{ __schema { types } }"}"#, limit("the schema may not be read here")),
            (r#"{}"#, invalid("the request has no query")),
            (r#"{"id": "k2"}"#, GraphqlFailure::UnknownDocument),
            (r#"{"query": "{ a } { b }"}"#, invalid("there are several operations, and operationName names none")),
            (r#"{"query": "query A { a }", "operationName": "B"}"#, invalid("there is no operation B")),
            (
                r#"{"query": "query A { a } query A { b }", "operationName": "A"}"#,
                invalid("there are two operations A"),
            ),
        ] {
            assert_eq!(check(body, false), Err(wanted), "{body}");
        }
        assert_eq!(check(r#"{"query": "mutation { a }"}"#, true), Err(GraphqlFailure::MutationByGet));
        assert!(serde_json::from_str::<GraphqlRequest>(r#"{"query": "{ a }", "query": "{ b }"}"#).is_err());
    }

    #[test]
    fn only_known_documents_can_be_accepted() {
        let limits = GraphqlLimits { only_known: true, ..limits() };
        let check = |body: &str| limits.check(&serde_json::from_str(body).expect("a request"), false).map(|_| ());
        assert_eq!(check(r#"{"query": "{ known }"}"#), Ok(()));
        assert_eq!(check(r#"{"id": "k1"}"#), Ok(()));
        assert_eq!(check(r#"{"query": "{ other }", "id": "k1"}"#), Err(GraphqlFailure::NotKnown));
    }
}
