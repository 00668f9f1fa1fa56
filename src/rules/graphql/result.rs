//! The part of a GraphQL response that is the response to a request of another protocol.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// What a response has.
#[derive(Debug)]
pub enum FoundResult<'b> {
    /// A result, as it is written, and whether errors are beside it.
    Data {
        /// The bytes of the value.
        value: &'b str,
        /// Whether a part of it is missing.
        is_partial: bool,
    },
    /// Null, without an error.
    Nothing,
    /// Errors, and no result.
    Failed(GraphqlFault),
}

/// The first error of a response.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct GraphqlFault {
    /// `extensions.code`.
    pub code: Option<String>,
    /// The message.
    pub message: Option<String>,
}

#[derive(Deserialize)]
struct ResponseBody<'b> {
    #[serde(borrow, default)]
    data: Option<&'b RawValue>,
    #[serde(default)]
    errors: Option<Vec<ResponseError>>,
}

#[derive(Deserialize)]
struct ResponseError {
    #[serde(default)]
    message: Value,
    #[serde(default)]
    extensions: Value,
}

/// Finds the result in the body of a response, at a path below `data`. The value is not changed: numbers keep all their
/// digits.
///
/// # Errors
/// Returns why the body is no GraphQL response.
pub fn find_result<'b>(body: &'b [u8], path: &[String]) -> Result<FoundResult<'b>, &'static str> {
    let body: ResponseBody<'b> = serde_json::from_slice(body).map_err(|_| "it is not a GraphQL response in JSON")?;
    if body.data.is_none() && body.errors.is_none() {
        return Err("it has neither data nor errors");
    }
    let mut found = body.data;
    for step in path {
        let Some(value) = found.filter(|value| value.get() != "null") else { break };
        let members: HashMap<Cow<'b, str>, &'b RawValue> =
            serde_json::from_str(value.get()).map_err(|_| "its data is not an object")?;
        found = members.get(step.as_str()).copied();
    }
    let first = body.errors.and_then(|errors| errors.into_iter().next());
    match (found.map(RawValue::get).filter(|value| *value != "null"), first) {
        (Some(value), first) => Ok(FoundResult::Data { value, is_partial: first.is_some() }),
        (None, None) => Ok(FoundResult::Nothing),
        (None, Some(first)) => {
            let text = |value: &Value| value.as_str().map(str::to_owned);
            let code = first.extensions.get("code").and_then(text);
            Ok(FoundResult::Failed(GraphqlFault { code, message: text(&first.message) }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(body: &str, path: &[&str]) -> String {
        let path: Vec<String> = path.iter().map(|step| (*step).to_owned()).collect();
        match find_result(body.as_bytes(), &path) {
            Ok(FoundResult::Data { value, is_partial }) => format!("{value} {is_partial}"),
            Ok(FoundResult::Nothing) => "nothing".to_owned(),
            Ok(FoundResult::Failed(GraphqlFault { code, message })) => {
                format!("{} {}", code.unwrap_or_default(), message.unwrap_or_default())
            }
            Err(why) => why.to_owned(),
        }
    }

    #[test]
    fn results_are_found_where_they_are() {
        for (body, path, wanted) in [
            (
                r#"{"data":{"user":{"n":12345678901234567890123.10}}}"#,
                &["user"][..],
                r#"{"n":12345678901234567890123.10} false"#,
            ),
            (r#"{"data":{"a":{"b":[1]}},"errors":[]}"#, &["a", "b"], "[1] false"),
            (r#"{"data":{"a":1}}"#, &[], r#"{"a":1} false"#),
            (r#"{"data":{"user":null}}"#, &["user"], "nothing"),
            (r#"{"data":{"user":null}}"#, &["user", "name"], "nothing"),
            (r#"{"data":{}}"#, &["user"], "nothing"),
            (r#"{"data":{"user":null},"errors":[{"message":"m","extensions":{"code":"C"}}]}"#, &["user"], "C m"),
            (r#"{"errors":[{"message":"m"}]}"#, &[], " m"),
            (r#"{"errors":[{}],"data":null}"#, &[], " "),
            (r#"{"data":{"a":1},"errors":[{"message":"m"}]}"#, &["a"], "1 true"),
            (r#"{"data":{"a":1}}"#, &["a", "b"], "its data is not an object"),
            (r#"{"ok":true}"#, &[], "it has neither data nor errors"),
            ("<html>", &[], "it is not a GraphQL response in JSON"),
            ("[]", &[], "it has neither data nor errors"),
        ] {
            assert_eq!(found(body, path), wanted, "{body} {path:?}");
        }
    }
}
