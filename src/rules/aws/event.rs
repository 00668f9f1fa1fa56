//! Events of Lambda functions for HTTP requests, as API Gateway makes them ("Working with AWS Lambda proxy integrations
//! for HTTP APIs": payload format versions 1.0 and 2.0).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::DateTime;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, COOKIE, HeaderName, HeaderValue, USER_AGENT};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};

use crate::rules::routing::form_decode;

/// The form of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventFormat {
    /// Payload format version 1.0.
    V1,
    /// Payload format version 2.0.
    V2,
    /// The body of the request itself.
    Raw,
}

/// The facts of a request that an event names.
#[derive(Debug)]
pub struct EventFacts<'r> {
    /// The method.
    pub method: &'r str,
    /// The path.
    pub path: &'r str,
    /// The query.
    pub query: Option<&'r str>,
    /// The headers.
    pub headers: &'r HeaderMap,
    /// The version of HTTP, as `HTTP/1.1`.
    pub protocol: &'r str,
    /// The requested host.
    pub host: &'r str,
    /// The address of the client.
    pub source: String,
    /// The id of the request.
    pub request_id: &'r str,
    /// The time, in milliseconds since 1970.
    pub time: u64,
    /// The path of the route as a template, as `/pets/{id}`.
    pub resource: String,
    /// The parameters of the path, undecoded.
    pub path_parameters: Vec<(String, &'r str)>,
    /// The name of the stage.
    pub stage: &'r str,
    /// The variables of the stage.
    pub stage_variables: &'r [(String, String)],
    /// The account of the function.
    pub account: &'r str,
    /// The verified caller.
    pub caller: Option<EventCaller<'r>>,
    /// The body.
    pub body: BodyText<'r>,
}

/// The verified caller of a request.
#[derive(Debug)]
pub struct EventCaller<'r> {
    /// Its name.
    pub name: &'r str,
    /// The claims of its token, if it has one.
    pub claims: Option<&'r Map<String, Value>>,
    /// Its scopes.
    pub scopes: Vec<String>,
}

/// A body as an event has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyText<'r> {
    /// There is none.
    None,
    /// It is a text.
    Text(&'r str),
    /// It is base64.
    Binary(&'r [u8]),
}

impl<'r> BodyText<'r> {
    /// Returns the body of a request: binary if `is_binary` says so of its media type, if it has a content coding, or
    /// if it is not UTF-8.
    pub fn of(body: &'r [u8], headers: &HeaderMap, is_binary: impl FnOnce(&str) -> bool) -> Self {
        if body.is_empty() {
            return Self::None;
        }
        let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        if headers.contains_key(CONTENT_ENCODING) || kind.is_some_and(is_binary) {
            return Self::Binary(body);
        }
        std::str::from_utf8(body).map_or(Self::Binary(body), Self::Text)
    }

    fn value(self) -> Value {
        match self {
            Self::None => Value::Null,
            Self::Text(text) => text.into(),
            Self::Binary(bytes) => STANDARD.encode(bytes).into(),
        }
    }

    fn is_base64(self) -> bool {
        matches!(self, Self::Binary(_))
    }
}

/// Returns the event of a request; `Raw` is not one.
pub fn event(facts: &EventFacts<'_>, format: EventFormat) -> Value {
    match format {
        EventFormat::V1 => v1(facts),
        EventFormat::V2 | EventFormat::Raw => v2(facts),
    }
}

fn v2(facts: &EventFacts<'_>) -> Value {
    let route = route_key(facts);
    let mut event = Map::new();
    event.insert("version".to_owned(), "2.0".into());
    event.insert("routeKey".to_owned(), route.clone().into());
    event.insert("rawPath".to_owned(), facts.path.into());
    event.insert("rawQueryString".to_owned(), facts.query.unwrap_or_default().into());
    let cookies: Vec<Value> = facts
        .headers
        .get_all(COOKIE)
        .iter()
        .flat_map(|value| text(value).split(';').map(|one| one.trim().to_owned()).collect::<Vec<_>>())
        .filter(|one| !one.is_empty())
        .map(Value::from)
        .collect();
    if !cookies.is_empty() {
        event.insert("cookies".to_owned(), cookies.into());
    }
    let named = facts.headers.keys().filter(|name| **name != COOKIE);
    event.insert("headers".to_owned(), joined(named.map(|name| (name.to_string(), values(facts.headers, name)))));
    let query = query_lists(facts.query);
    if !query.is_empty() {
        event.insert("queryStringParameters".to_owned(), joined(query.into_iter()));
    }
    event.insert("requestContext".to_owned(), context_v2(facts, route));
    if !facts.path_parameters.is_empty() {
        event.insert("pathParameters".to_owned(), path_parameters(facts));
    }
    if !facts.stage_variables.is_empty() {
        event.insert("stageVariables".to_owned(), stage_variables(facts));
    }
    if facts.body != BodyText::None {
        event.insert("body".to_owned(), facts.body.value());
    }
    event.insert("isBase64Encoded".to_owned(), facts.body.is_base64().into());
    event.into()
}

fn context_v2(facts: &EventFacts<'_>, route: String) -> Value {
    let mut context = Map::new();
    context.insert("accountId".to_owned(), facts.account.into());
    context.insert("apiId".to_owned(), first_label(facts.host).into());
    if let Some(caller) = &facts.caller {
        let scopes = if caller.scopes.is_empty() { Value::Null } else { caller.scopes.clone().into() };
        let authorizer = match caller.claims {
            Some(claims) => json!({"jwt": {"claims": claim_texts(claims), "scopes": scopes}}),
            None => json!({"lambda": {"principalId": caller.name}}),
        };
        context.insert("authorizer".to_owned(), authorizer);
    }
    context.insert("domainName".to_owned(), facts.host.into());
    context.insert("domainPrefix".to_owned(), first_label(facts.host).into());
    let http = json!({
        "method": facts.method,
        "path": facts.path,
        "protocol": facts.protocol,
        "sourceIp": facts.source,
        "userAgent": user_agent(facts),
    });
    context.insert("http".to_owned(), http);
    context.insert("requestId".to_owned(), facts.request_id.into());
    context.insert("routeKey".to_owned(), route.into());
    context.insert("stage".to_owned(), facts.stage.into());
    context.insert("time".to_owned(), time_text(facts.time).into());
    context.insert("timeEpoch".to_owned(), facts.time.into());
    context.into()
}

fn v1(facts: &EventFacts<'_>) -> Value {
    let headers: Vec<(String, Vec<String>)> =
        facts.headers.keys().map(|name| (name.to_string(), values(facts.headers, name))).collect();
    let query = query_lists(facts.query);
    let or_null = |is_empty: bool, value: Value| if is_empty { Value::Null } else { value };
    json!({
        "version": "1.0",
        "resource": facts.resource,
        "path": facts.path,
        "httpMethod": facts.method,
        "headers": last(&headers),
        "multiValueHeaders": lists(&headers),
        "queryStringParameters": or_null(query.is_empty(), last(&query)),
        "multiValueQueryStringParameters": or_null(query.is_empty(), lists(&query)),
        "pathParameters": or_null(facts.path_parameters.is_empty(), path_parameters(facts)),
        "stageVariables": or_null(facts.stage_variables.is_empty(), stage_variables(facts)),
        "requestContext": context_v1(facts),
        "body": facts.body.value(),
        "isBase64Encoded": facts.body.is_base64(),
    })
}

fn context_v1(facts: &EventFacts<'_>) -> Value {
    let authorizer = facts.caller.as_ref().map_or(Value::Null, |caller| match caller.claims {
        Some(claims) => json!({"principalId": caller.name, "claims": claim_texts(claims), "scopes": caller.scopes}),
        None => json!({"principalId": caller.name}),
    });
    json!({
        "accountId": facts.account,
        "apiId": first_label(facts.host),
        "authorizer": authorizer,
        "domainName": facts.host,
        "domainPrefix": first_label(facts.host),
        "extendedRequestId": facts.request_id,
        "httpMethod": facts.method,
        "identity": {
            "accessKey": null,
            "accountId": null,
            "caller": null,
            "cognitoAuthenticationProvider": null,
            "cognitoAuthenticationType": null,
            "cognitoIdentityId": null,
            "cognitoIdentityPoolId": null,
            "principalOrgId": null,
            "sourceIp": facts.source,
            "user": null,
            "userAgent": user_agent(facts),
            "userArn": null,
        },
        "path": facts.path,
        "protocol": facts.protocol,
        "requestId": facts.request_id,
        "requestTime": time_text(facts.time),
        "requestTimeEpoch": facts.time,
        "resourceId": null,
        "resourcePath": facts.resource,
        "stage": facts.stage,
    })
}

/// Returns the key of the route: `GET /pets/{id}`, or `$default` for a route that takes everything.
fn route_key(facts: &EventFacts<'_>) -> String {
    if facts.resource == "/{proxy+}" { "$default".to_owned() } else { format!("{} {}", facts.method, facts.resource) }
}

fn user_agent(facts: &EventFacts<'_>) -> Option<String> {
    facts.headers.get(USER_AGENT).map(text)
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

fn values(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    headers.get_all(name).iter().map(text).collect()
}

/// Returns the parameters of a query, decoded, each with all of its values, in the order of their first.
fn query_lists(query: Option<&str>) -> Vec<(String, Vec<String>)> {
    let mut all: Vec<(String, Vec<String>)> = Vec::new();
    let mut places = ahash::AHashMap::new();
    let decoded = |part: &str| String::from_utf8_lossy(&form_decode(part.as_bytes())).into_owned();
    for pair in query.into_iter().flat_map(|query| query.split('&')).filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decoded(name);
        let place = *places.entry(name.clone()).or_insert_with(|| {
            all.push((name, Vec::new()));
            all.len() - 1
        });
        all[place].1.push(decoded(value));
    }
    all
}

fn joined(lists: impl Iterator<Item = (String, Vec<String>)>) -> Value {
    lists.map(|(name, values)| (name, values.join(",").into())).collect::<Map<_, Value>>().into()
}

fn last(lists: &[(String, Vec<String>)]) -> Value {
    let one = |(name, values): &(String, Vec<String>)| (name.clone(), values.last().cloned().into());
    lists.iter().map(one).collect::<Map<_, Value>>().into()
}

fn lists(lists: &[(String, Vec<String>)]) -> Value {
    lists.iter().map(|(name, values)| (name.clone(), values.clone().into())).collect::<Map<_, Value>>().into()
}

fn path_parameters(facts: &EventFacts<'_>) -> Value {
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let pairs = facts.path_parameters.iter().map(|(name, value)| (name.clone(), decoded(value).into()));
    pairs.collect::<Map<_, Value>>().into()
}

fn stage_variables(facts: &EventFacts<'_>) -> Value {
    let pairs = facts.stage_variables.iter().map(|(name, value)| (name.clone(), value.clone().into()));
    pairs.collect::<Map<_, Value>>().into()
}

/// Returns claims as API Gateway writes them: each value as a text, a list as `[a b]`.
fn claim_texts(claims: &Map<String, Value>) -> Map<String, Value> {
    fn text(value: &Value) -> String {
        match value {
            Value::String(text) => text.clone(),
            Value::Array(items) => format!("[{}]", items.iter().map(text).collect::<Vec<_>>().join(" ")),
            other => other.to_string(),
        }
    }
    claims.iter().map(|(name, value)| (name.clone(), text(value).into())).collect()
}

fn first_label(host: &str) -> &str {
    host.split('.').next().unwrap_or_default()
}

/// Returns a time as `28/Nov/2026:13:53:19 +0000`.
fn time_text(millis: u64) -> String {
    let time = i64::try_from(millis).ok().and_then(DateTime::from_timestamp_millis).unwrap_or_default();
    time.format("%d/%b/%Y:%H:%M:%S +0000").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut all = HeaderMap::new();
        for (name, value) in pairs {
            all.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        all
    }

    fn facts<'r>(headers: &'r HeaderMap, body: BodyText<'r>) -> EventFacts<'r> {
        EventFacts {
            method: "POST",
            path: "/api/pets/a%20b",
            query: Some("tag=x%2Cy&tag=z&n=1+2&flag"),
            headers,
            protocol: "HTTP/1.1",
            host: "api.example.com",
            source: "192.0.2.7".to_owned(),
            request_id: "id-1",
            time: 1_795_874_000_123,
            resource: "/api/pets/{id}".to_owned(),
            path_parameters: vec![("id".to_owned(), "a%20b")],
            stage: "$default",
            stage_variables: &[],
            account: "123456789012",
            caller: None,
            body,
        }
    }

    #[test]
    fn version_2_joins_values_and_lists_cookies() {
        let headers =
            headers(&[("user-agent", "curl"), ("x-a", "1"), ("x-a", "2"), ("cookie", "a=1; b=2"), ("cookie", "c=3")]);
        let event = event(&facts(&headers, BodyText::Text("{}")), EventFormat::V2);
        assert_eq!(event["version"], "2.0");
        assert_eq!(event["routeKey"], "POST /api/pets/{id}");
        assert_eq!(event["rawQueryString"], "tag=x%2Cy&tag=z&n=1+2&flag");
        assert_eq!(event["cookies"], json!(["a=1", "b=2", "c=3"]));
        assert_eq!(event["headers"], json!({"user-agent": "curl", "x-a": "1,2"}));
        assert_eq!(event["queryStringParameters"], json!({"tag": "x,y,z", "n": "1 2", "flag": ""}));
        assert_eq!(event["pathParameters"], json!({"id": "a b"}));
        assert_eq!(event["requestContext"]["http"]["sourceIp"], "192.0.2.7");
        assert_eq!(event["requestContext"]["http"]["userAgent"], "curl");
        assert_eq!(event["requestContext"]["time"], "28/Nov/2026:13:53:20 +0000");
        assert_eq!(event["requestContext"]["timeEpoch"], 1_795_874_000_123_u64);
        assert_eq!((&event["body"], &event["isBase64Encoded"]), (&json!("{}"), &json!(false)));
        assert!(event.get("stageVariables").is_none() && event["requestContext"].get("authorizer").is_none());
    }

    #[test]
    fn version_1_has_the_last_value_and_all_values() {
        let headers = headers(&[("x-a", "1"), ("x-a", "2"), ("cookie", "a=1")]);
        let event = event(&facts(&headers, BodyText::Binary(&[0, 255])), EventFormat::V1);
        assert_eq!(event["version"], "1.0");
        assert_eq!(event["headers"], json!({"x-a": "2", "cookie": "a=1"}));
        assert_eq!(event["multiValueHeaders"], json!({"x-a": ["1", "2"], "cookie": ["a=1"]}));
        assert_eq!(event["queryStringParameters"], json!({"tag": "z", "n": "1 2", "flag": ""}));
        let all = json!({"tag": ["x,y", "z"], "n": ["1 2"], "flag": [""]});
        assert_eq!(event["multiValueQueryStringParameters"], all);
        assert_eq!(event["requestContext"]["identity"]["sourceIp"], "192.0.2.7");
        assert_eq!(event["requestContext"]["resourcePath"], "/api/pets/{id}");
        assert_eq!((&event["body"], &event["isBase64Encoded"]), (&json!("AP8="), &json!(true)));
        assert_eq!(event["stageVariables"], Value::Null);
    }

    #[test]
    fn claims_are_texts() {
        let claims = json!({"sub": "ada", "exp": 7, "groups": ["a", "b"], "ok": true});
        let headers = HeaderMap::new();
        let caller = || {
            let scopes = vec!["read".to_owned()];
            Some(EventCaller { name: "ada", claims: claims.as_object(), scopes })
        };
        let with = EventFacts { caller: caller(), ..facts(&headers, BodyText::None) };
        let jwt = &event(&with, EventFormat::V2)["requestContext"]["authorizer"]["jwt"];
        assert_eq!(jwt["claims"], json!({"sub": "ada", "exp": "7", "groups": "[a b]", "ok": "true"}));
        assert_eq!(jwt["scopes"], json!(["read"]));
        let event = event(&with, EventFormat::V1);
        assert_eq!(event["requestContext"]["authorizer"]["claims"]["groups"], "[a b]");
        assert_eq!(event["body"], Value::Null);
    }

    #[test]
    fn bodies_are_binary_by_type_coding_and_content() {
        let is_image = |kind: &str| kind.starts_with("image/");
        let of =
            |body: &'static [u8], pairs: &[(&'static str, &'static str)]| BodyText::of(body, &headers(pairs), is_image);
        assert_eq!(of(b"", &[("content-type", "image/png")]), BodyText::None);
        assert_eq!(of(b"a", &[("content-type", "image/png")]), BodyText::Binary(b"a"));
        assert_eq!(of(b"a", &[("content-type", "text/plain")]), BodyText::Text("a"));
        assert_eq!(of(b"a", &[("content-encoding", "gzip")]), BodyText::Binary(b"a"));
        assert_eq!(of(b"\xff", &[]), BodyText::Binary(b"\xff"));
    }
}
