//! Tests of the filter by itself.

use crate::filters::test_kit::{compile, request, response};

const JSON: (&str, &str) = ("content-type", "application/json");

fn violations(rejection: &crate::exchange::Rejection) -> Vec<String> {
    rejection.violations.iter().map(ToString::to_string).collect()
}

#[test]
fn each_part_of_a_request_is_validated() {
    let yaml = "
- validate:
    query: {schema: {properties: {limit: {type: integer, maximum: 9}, tag: {type: array, items: {enum: [a, b]}}}}}
    headers: {schema: {required: [x-tenant], properties: {x-tenant: {type: string, maxLength: 3}}}}
    body: {schema: {type: object, required: [name], properties: {name: {type: string}}}}
";
    let head = |line: &str, headers: &[(&str, &str)]| {
        let mut kit = compile(yaml).expect("a filter");
        kit.on_request(request(line, headers)).err().map(|rejection| violations(&rejection)).unwrap_or_default()
    };
    assert!(head("POST /?limit=3&tag=a&tag=b&more=x", &[("x-tenant", "abc")]).is_empty());
    assert_eq!(
        head("POST /?limit=10&tag=c", &[]),
        [
            "query/limit: expected at most 9",
            "query/tag/0: expected one of \"a\", \"b\"",
            "header: the member x-tenant is missing",
        ]
    );
    assert_eq!(head("POST /?limit=x", &[("x-tenant", "abcd")]).len(), 2);
    assert_eq!(head("POST /?limit=1&limit=2", &[("x-tenant", "a")]), ["query/limit: is there more than once"]);
    let body = |headers: &[(&str, &str)], body: &str| {
        let mut kit = compile(yaml).expect("a filter");
        kit.on_request(request("POST /", &[headers, &[("x-tenant", "a")]].concat())).expect("a valid head");
        kit.on_request_body(body.as_bytes())
            .err()
            .map(|rejection| format!("{} {} {:?}", rejection.reason.code(), rejection.detail, violations(&rejection)))
            .unwrap_or_default()
    };
    assert_eq!(body(&[JSON], r#"{"name": "ada"}"#), "");
    assert!(
        body(&[JSON], r#"{"name": 1}"#).starts_with("request_invalid body/name: expected a value of the type string")
    );
    assert!(body(&[JSON], "").starts_with("request_invalid body: is missing"));
    assert!(body(&[JSON], "{\n]").starts_with("body_invalid the document is not JSON at line 2 column 1"));
    assert!(body(&[JSON], r#"{"name": "a", "name": "b"}"#).starts_with("body_invalid an object has two members"));
    assert!(body(&[("content-type", "text/plain")], "x").starts_with("media_type accepted here: application/json"));
    assert!(body(&[JSON, ("content-encoding", "gzip")], "x").starts_with("media_type"));
}

#[test]
fn responses_are_filtered_or_observed() {
    let schema = "{type: object, properties: {id: {type: integer}, sub: {properties: {a: {}}}}}";
    let changed = |mode: &str, body: &str, cut: usize| {
        let mut kit =
            compile(&format!("[{{validate: {{response: {{schema: {schema}, mode: {mode}}}}}}}]")).expect("a filter");
        kit.on_request(request("GET /", &[])).expect("valid");
        let length = body.len().to_string();
        let changed = kit
            .on_response(response(200, &[JSON, ("content-length", length.as_str())]), body.as_bytes(), cut)
            .expect("a response");
        (String::from_utf8_lossy(&changed.body).into_owned(), changed.header("content-length").to_owned())
    };
    let body = r#"{"id": 1, "secret": "x", "sub": {"a": [1], "b": 2}}"#;
    for cut in [1, 7, 100] {
        assert_eq!(changed("filter", body, cut), (r#"{"id":1,"sub":{"a":[1]}}"#.to_owned(), "-".to_owned()));
        assert_eq!(changed("observe", body, cut), (body.to_owned(), body.len().to_string()));
        assert_eq!(changed("enforce", body, cut).0, body);
    }
    let mut kit = compile(&format!("[{{validate: {{response: {{schema: {schema}}}}}}}]")).expect("a filter");
    kit.on_request(request("GET /", &[])).expect("valid");
    let html = response(200, &[("content-type", "text/html")]);
    assert_eq!(kit.on_response(html, b"x", 1).err().map(|r| r.reason.code()), Some("response_invalid"));
}

#[test]
fn what_cannot_work_is_an_error() {
    let error = |yaml: &str| compile(yaml).err().unwrap_or_default();
    assert!(error("[{validate: {}}]").contains("at least one of"));
    assert!(error("[{validate: {body: {}}}]").contains("one of schema and file"));
    assert!(error("[{validate: {body: {schema: {type: strin}}}}]").contains("body.schema.type: "));
    assert!(error("[{validate: {body: {file: nowhere.json}}}]").contains("cannot read"));
    assert!(error("[{validate: {body: {schema: {pattern: '(?=x)'}}}}]").contains("body.schema.pattern"));
    assert!(error("[{validate: {body: {schema: {}, content_types: [json]}}}]").contains("content_types[0]"));
}
