//! Requests of GraphQL over HTTP (draft of the GraphQL Foundation, sections 5 and 6).

use serde_json::{Map, Value};

use super::request::GraphqlRequest;

/// The requests of one HTTP request.
#[derive(Debug)]
pub struct OperationBatch {
    /// The requests.
    pub requests: Vec<GraphqlRequest>,
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
pub fn parse_query(query: &str) -> Result<GraphqlRequest, IncomingFault> {
    let mut request = GraphqlRequest::default();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let malformed = |_| IncomingFault("variables and extensions have to be JSON");
        let object = || serde_json::from_str::<Option<Map<String, Value>>>(&value).map_err(malformed);
        match &*name {
            "query" => request.query = Some(value.into_owned()),
            "operationName" => request.operation_name = Some(value.into_owned()).filter(|name| !name.is_empty()),
            "documentId" => request.document_id = Some(value.into_owned()),
            "variables" => request.variables = object()?,
            "extensions" => request.extensions = object()?.map(Value::Object),
            _ => {}
        }
    }
    Ok(request)
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
        let variables = request.variables.expect("variables");
        assert_eq!((request.query.as_deref(), &variables["x"]), (Some("{a}"), &1.into()));
        assert!(request.operation_name.is_none() && parse_query("variables=7").is_err());
    }
}
