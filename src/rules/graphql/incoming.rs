//! Requests of GraphQL over HTTP (draft of the GraphQL Foundation, sections 5 and 6).

use serde::Deserialize;
use serde_json::{Map, Value};

/// One request.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct OperationRequest {
    /// The document; none where a persisted one is meant.
    pub query: Option<String>,
    /// The operation of several.
    pub operation_name: Option<String>,
    /// The values of its variables.
    #[serde(deserialize_with = "or_empty")]
    pub variables: Map<String, Value>,
    /// Extensions, such as the hash of a persisted document.
    #[serde(deserialize_with = "or_empty")]
    pub extensions: Map<String, Value>,
    /// The id of a persisted document.
    pub document_id: Option<String>,
}

fn or_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Map<String, Value>, D::Error> {
    Ok(Option::<Map<String, Value>>::deserialize(deserializer)?.unwrap_or_default())
}

/// The requests of one HTTP request.
#[derive(Clone, Debug, PartialEq)]
pub struct OperationBatch {
    /// The requests.
    pub requests: Vec<OperationRequest>,
    /// Whether they came as a list, so that the response is one.
    pub is_list: bool,
}

/// Why a request is none of GraphQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncomingFault(pub &'static str);

/// Returns the requests of a JSON body.
///
/// # Errors
/// Fails where it is no request, or a list of none.
pub fn parse_body(body: &[u8]) -> Result<OperationBatch, IncomingFault> {
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    let is_list = first == Some(&b'[');
    let requests = match is_list {
        true => serde_json::from_slice(body).map_err(|_| IncomingFault("the body is no list of GraphQL requests"))?,
        false => vec![serde_json::from_slice(body).map_err(|_| IncomingFault("the body is no GraphQL request"))?],
    };
    if requests.is_empty() {
        return Err(IncomingFault("the list of requests is empty"));
    }
    Ok(OperationBatch { requests, is_list })
}

/// Returns the request of a query string.
///
/// # Errors
/// Fails where a parameter is no JSON.
pub fn parse_query(query: &str) -> Result<OperationRequest, IncomingFault> {
    let mut request = OperationRequest::default();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let object = || -> Result<Map<String, Value>, IncomingFault> {
            let parsed: Option<Map<String, Value>> =
                serde_json::from_str(&value).map_err(|_| IncomingFault("variables and extensions have to be JSON"))?;
            Ok(parsed.unwrap_or_default())
        };
        match &*name {
            "query" => request.query = Some(value.into_owned()),
            "operationName" => request.operation_name = Some(value.into_owned()).filter(|name| !name.is_empty()),
            "documentId" => request.document_id = Some(value.into_owned()),
            "variables" => request.variables = object()?,
            "extensions" => request.extensions = object()?,
            _ => {}
        }
    }
    Ok(request)
}

impl OperationRequest {
    /// Returns the id of a persisted document that the request names: its `documentId`, or the hash of `persistedQuery`
    /// (Apollo's automatic persisted queries).
    pub fn persisted_id(&self) -> Option<&str> {
        let hash = || self.extensions.get("persistedQuery")?.get("sha256Hash")?.as_str();
        self.document_id.as_deref().or_else(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_and_queries() {
        let one = parse_body(br#" {"query":"{a}","variables":null,"operationName":"x"}"#).expect("one");
        assert_eq!((one.is_list, one.requests[0].operation_name.as_deref()), (false, Some("x")));
        assert_eq!(parse_body(b"[{\"query\":\"{a}\"},{}]").expect("two").requests.len(), 2);
        for bad in ["", "[]", "7", "{\"query\":7}", "{\"variables\":[]}", "[1]"] {
            assert!(parse_body(bad.as_bytes()).is_err(), "{bad}");
        }
        let request = parse_query("query=%7Ba%7D&variables=%7B%22x%22%3A1%7D&operationName=").expect("a request");
        assert_eq!((request.query.as_deref(), &request.variables["x"]), (Some("{a}"), &1.into()));
        assert!(request.operation_name.is_none() && parse_query("variables=7").is_err());
        let hashed = r#"{"extensions":{"persistedQuery":{"version":1,"sha256Hash":"abc"}}}"#;
        assert_eq!(parse_body(hashed.as_bytes()).expect("one").requests[0].persisted_id(), Some("abc"));
    }
}
