//! Tests of documents: operations, parameters, bodies, responses, samples.

use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use super::super::{DocumentReader, FileReader, SchemaFault};
use super::*;

fn load_with(text: &str, options: &DocumentOptions) -> Result<ApiDocument, Vec<SchemaFault>> {
    let text = text.to_owned();
    let read: FileReader = Arc::new(move |path| match path.to_str() {
        Some("/c/api.yaml") => Ok(text.clone()),
        Some("/c/parts.yaml") => {
            Ok("Id: {type: string, format: uuid}\nname:\n  type: string\n  minLength: 2\n".to_owned())
        }
        _ => Err("there is no such file".to_owned()),
    });
    let reader = DocumentReader::new(read, Vec::new());
    load(reader, Path::new("/c/api.yaml"), options).map(|(document, _)| document)
}

fn options() -> DocumentOptions {
    DocumentOptions {
        base_path: None,
        rejects_read_only: true,
        with_responses: true,
        with_shapes: true,
        with_samples: true,
        with_integrations: false,
    }
}

const SHOP: &str = "
openapi: 3.0.3
info: {title: Shop, version: '1'}
servers: [{url: 'https://{host}/v1/', variables: {host: {default: shop.example}}}]
paths:
  /items/{id}:
    parameters:
      - {name: id, in: path, required: true, schema: {type: integer, minimum: 1}}
    get:
      operationId: getItem
      parameters:
        - {name: fields, in: query, explode: false, schema: {type: array, items: {enum: [name, price]}}}
        - {name: x-tenant, in: header, required: true, schema: {type: string, maxLength: 4}}
      responses:
        '200':
          description: ok
          content:
            application/json:
              schema: {$ref: '#/components/schemas/Item'}
              examples:
                small: {value: {id: 1, name: ab}}
                large: {$ref: '#/components/examples/large'}
        4XX: {description: no, content: {application/problem+json: {schema: {type: object}}}}
        default: {description: other}
  /items/default:
    get: {responses: {'200': {description: ok}}}
  /items:
    post:
      operationId: addItem
      requestBody:
        required: true
        content:
          application/json: {schema: {$ref: '#/components/schemas/Item'}}
          application/x-www-form-urlencoded:
            schema:
              type: object
              required: [price]
              properties: {price: {type: number, exclusiveMinimum: true, minimum: 0}}
          image/*: {}
      responses:
        '201':
          description: made
          content: {application/json: {schema: {$ref: '#/components/schemas/Item'}}}
components:
  examples: {large: {value: {id: 2, name: abc}}}
  schemas:
    Base:
      type: object
      required: [id]
      properties:
        id: {type: integer, readOnly: true}
    Item:
      allOf:
        - $ref: '#/components/schemas/Base'
        - type: object
          required: [name, id]
          properties:
            name: {$ref: 'parts.yaml#/name'}
            size: {type: string, enum: [S, L], nullable: true}
            owner: {nullable: true, allOf: [{$ref: '#/components/schemas/Base'}]}
            secret: {type: string, writeOnly: true}
            parts: {type: array, items: {$ref: '#/components/schemas/Item'}}
            kind:
              oneOf:
                - {type: object, required: [a], properties: {a: {type: integer}}}
                - {type: object, required: [b], properties: {b: {type: integer}}}
            free: {type: object}
            map: {type: object, additionalProperties: {$ref: '#/components/schemas/Base'}}
";

fn operation<'d>(document: &'d ApiDocument, id: &str) -> &'d Operation {
    document.operations.iter().find(|one| one.id == id).expect("an operation")
}

fn shown(violations: &[Violation]) -> Vec<String> {
    violations.iter().map(|one| format!("{one} [{}]", one.keyword)).collect()
}

fn body(operation: &Operation, kind: &str, body: &str) -> Vec<String> {
    match operation.body_plan(Some(kind), body.is_empty()) {
        BodyPlan::Checked(content, form) => match content.check(form, body.as_bytes()) {
            Ok(_) => Vec::new(),
            Err(BadBody::Violations(all)) => shown(&all),
            Err(bad) => vec![format!("{bad:?}")],
        },
        other => vec![format!("{other:?}")],
    }
}

#[test]
fn operations_have_their_rules() {
    let document = load_with(SHOP, &options()).expect("a document");
    assert_eq!(document.base, "/v1");
    let all: Vec<String> =
        document.operations.iter().map(|one| format!("{} {} {}", one.method, one.path.pattern, one.id)).collect();
    assert_eq!(
        all,
        ["GET /v1/items/{id} getItem", "GET /v1/items/default GET /items/default", "POST /v1/items addItem"]
    );
    let get = operation(&document, "getItem");
    let check = |path: &str, query: &str, tenant: Option<&'static str>, strict: bool| {
        let mut headers = HeaderMap::new();
        tenant.into_iter().for_each(|value| _ = headers.insert("x-tenant", http::HeaderValue::from_static(value)));
        shown(&get.check_parameters(path, Some(query), &headers, strict))
    };
    assert!(check("/v1/items/7", "fields=name,price&more=1", Some("a"), false).is_empty());
    assert_eq!(
        check("/v1/items/0", "fields=name,zzz&more=1", None, true),
        [
            "query/fields/1: expected one of \"name\", \"price\" [enum]",
            "header/x-tenant: is missing [required]",
            "path/id: expected at least 1 [minimum]",
            "query/more: is not declared [additionalProperties]",
        ]
    );
    assert_eq!(check("/v1/items/x", "", Some("abcde"), false).len(), 2);
}

#[test]
fn bodies_are_validated_by_their_type() {
    let document = load_with(SHOP, &options()).expect("a document");
    let add = operation(&document, "addItem");
    let json = |text: &str| body(add, "application/json; charset=utf-8", text);
    assert!(json(r#"{"name": "ab", "size": null, "owner": null}"#).is_empty());
    assert_eq!(json(r#"{"name": "ab", "id": 1}"#), ["body/id: is read-only [readOnly]"]);
    assert_eq!(json(r#"{"name": "a", "size": "M"}"#).len(), 2);
    assert_eq!(json(r#"{}"#), ["body: the member name is missing [required]"]);
    assert_eq!(json(""), ["Missing"]);
    assert!(json(r#"{"name": "ab", "name": "cd"}"#)[0].contains("duplicate: true"));
    let form = |text: &str| body(add, "application/x-www-form-urlencoded", text);
    assert!(form("price=1.5").is_empty());
    assert_eq!(form("price=1&price=99"), ["body/price: is there more than once [style]"]);
    assert_eq!(form("price=0"), ["body/price: expected more than 0 [exclusiveMinimum]"]);
    assert_eq!(body(add, "image/png", "x"), ["Opaque"]);
    assert_eq!(body(add, "text/plain", "x"), ["OtherType"]);
    let keep = DocumentOptions { rejects_read_only: false, ..options() };
    let document = load_with(SHOP, &keep).expect("a document");
    assert!(body(operation(&document, "addItem"), "application/json", r#"{"name": "ab", "id": 1}"#).is_empty());
}

#[test]
fn responses_are_checked_and_filtered() {
    let document = load_with(SHOP, &options()).expect("a document");
    let get = operation(&document, "getItem");
    assert_eq!(get.response(200).map(|rules| rules.status), Some(StatusRange::Exact(200)));
    assert_eq!(get.response(404).map(|rules| rules.status), Some(StatusRange::Class(4)));
    assert_eq!(get.response(500).map(|rules| rules.status), Some(StatusRange::Default));
    let BodyPlan::Checked(content, form) = get.response(200).expect("rules").body_plan(Some("application/json")) else {
        panic!("no plan");
    };
    let filtered = |text: &str| {
        let value = content.check(form, text.as_bytes()).or_else(|_| read_body(form, &content.types, text.as_bytes()));
        let shape = content.shape.as_ref().expect("a shape");
        String::from_utf8(shape.filter(text.as_bytes(), &value.expect("JSON")).expect("filtered")).expect("text")
    };
    assert_eq!(
        filtered(
            r#"{ "id": 1.0, "hash": "x", "name" : "a\u0062", "secret": "s",
               "parts": [ 5, {"id": 2, "name": "cd", "z": 1}, [{"x": 1}] ], "size": {"x": 1},
               "kind": {"b": 1, "a": "x", "c": 2}, "free": {"any": [1 , 2]},
               "map": {"k": {"id": 3, "y": 1}}, "owner": null }"#
        ),
        [
            r#"{"id":1.0,"name":"a\u0062","parts":[{"id":2,"name":"cd"}],"kind":{"b":1},"free":{"any": [1 , 2]},"#,
            r#""map":{"k":{"id":3}},"owner":null}"#
        ]
        .concat()
    );
    for (text, wanted) in [
        (r#"[{"secret": 1}]"#, "null"),
        (r#""secret""#, "null"),
        (r#"{"name": {"x": 1}, "owner": [1], "map": [1], "id": 1, "size": null}"#, r#"{"id":1,"size":null}"#),
        (
            r#"{"name": 5, "parts": {"x": 1}, "free": "x", "map": {"k": [1], "l": {"id": 2}}}"#,
            r#"{"map":{"l":{"id":2}}}"#,
        ),
        (r#"{"kind": {"a": {"x": 1}, "b": 2}, "owner": {"id": {"x": 1}}}"#, r#"{"kind":{"b":2},"owner":{}}"#),
    ] {
        assert_eq!(filtered(text), wanted, "{text}");
    }
    assert!(content.check(form, br#"{"id": 1, "name": "ab", "more": 1}"#).is_ok(), "more members are valid");
    assert!(content.check(form, br#"{"name": "ab"}"#).is_err(), "read-only members are required in responses");
}

#[test]
fn mocks_come_from_examples_or_schemas() {
    let document = load_with(SHOP, &options()).expect("a document");
    let get = operation(&document, "getItem");
    let shown = |code: Option<u16>, example: Option<&str>| {
        mock(&get.samples, code, example, &|_| 0).map(|made| {
            format!("{} {} {}", made.status, made.kind.unwrap_or_default(), String::from_utf8_lossy(&made.body))
        })
    };
    assert_eq!(shown(None, None).as_deref(), Some(r#"200 application/json {"id":1,"name":"ab"}"#));
    assert_eq!(shown(None, Some("large")).as_deref(), Some(r#"200 application/json {"id":2,"name":"abc"}"#));
    assert_eq!(shown(Some(404), None).as_deref(), Some("404 application/problem+json {}"));
    assert_eq!(shown(Some(500), None).as_deref(), Some("500  "));
    assert_eq!(shown(None, Some("none")), None);
    let add = operation(&document, "addItem");
    let made = mock(&add.samples, None, None, &|_| 0).expect("a response");
    assert_eq!(made.status, 201);
    let value: Value = serde_json::from_slice(&made.body).expect("JSON");
    assert_eq!((&value["id"], &value["name"], &value["kind"]), (&json!(0), &json!("string"), &json!({"a": 0})));
    assert!(value.get("secret").is_none());
    let rules = add.response(201).expect("rules");
    let BodyPlan::Checked(content, form) = rules.body_plan(Some("application/json")) else { panic!("no plan") };
    assert_eq!(content.check(form, &made.body).err(), None, "what is generated is valid");
}

#[test]
fn errors_of_a_document_have_their_place() {
    let fault = |text: &str| {
        let faults = load_with(text, &options()).expect_err("an error");
        let shown: Vec<String> =
            faults.iter().map(|one| format!("{} {one}", one.location.as_deref().unwrap_or("-"))).collect();
        shown.join("\n")
    };
    let with = |rest: &str| format!("openapi: 3.1.0\npaths:\n  /a/{{b}}:\n{rest}");
    for (text, place, wanted) in [
        ("swagger: '1.2'\n".to_owned(), "/c/api.yaml:1:", "swagger: '2.0'"),
        ("openapi: 3.1.0\n".to_owned(), "/c/api.yaml:1:", "expected paths"),
        (with("    get: {requestBody: {$ref: '#/x'}}\n"), "/c/api.yaml:4:", "leads nowhere"),
        (with("    get:\n      parameters:\n        - {name: b}\n"), "/c/api.yaml:6:", "name and in"),
        (
            with(
                "    get:\n      parameters:\n        - name: b\n          in: path\n          schema: {type: strin}\n",
            ),
            "/c/api.yaml:8:",
            "",
        ),
        (
            with(
                "    get:\n      parameters:\n        - name: b\n          in: path\n\
                 \u{20}         schema: {$ref: 'missing.yaml'}\n",
            ),
            "/c/api.yaml:8:",
            "cannot read",
        ),
        (
            with("    get: {operationId: x}\n    put: {operationId: x}\n    parameters: [{name: b, in: path}]\n"),
            "/c/api.yaml:3:",
            "twice",
        ),
        (
            with(
                "    get: {}\n    parameters: [{name: b, in: path}]\n  /a/{c}:\n    get: {}\n    \
                 parameters: [{name: c, in: path}]\n",
            ),
            "/c/api.yaml:6:",
            "same requests",
        ),
        (with("    gte: {}\n"), "/c/api.yaml:4:", "no method or key \"gte\"; did you mean \"get\"?"),
        (with("    get: {}\n"), "/c/api.yaml:4:", "{b} of the path is not declared"),
        (
            with("    get:\n      parameters:\n        - {name: bb, in: path}\n"),
            "/c/api.yaml:6:",
            "the path has no parameter {bb}; did you mean \"b\"?",
        ),
        (with("    get: {responses: {'2': {}}}\n"), "/c/api.yaml:4:", "a status"),
        ("openapi: [\n".to_owned(), "/c/api.yaml:", "no YAML"),
    ] {
        let shown = fault(&text);
        assert!(shown.starts_with(place) && shown.contains(wanted), "{place} {wanted}: {shown}\n{text}");
    }
}

#[test]
fn schemas_of_both_versions_mean_what_they_say() {
    let check = |version: &str, schema: &str, value: &Value| {
        let text = format!(
            "openapi: {version}\npaths:\n  /a:\n    post:\n      requestBody:\n        content:\n\
             \u{20}         application/json:\n            schema: {schema}\n\
             components:\n  schemas:\n    S: {{type: string}}\n\
             \u{20}   O: {{properties: {{a: true, o: {{$ref: '#/components/schemas/O'}}}}}}\n"
        );
        let document = load_with(&text, &options()).unwrap_or_else(|faults| panic!("{faults:?} {text}"));
        body(&document.operations[0], "application/json", &value.to_string()).is_empty()
    };
    for (version, schema, value, wanted) in [
        ("3.0.3", "{type: string, nullable: true}", json!(null), true),
        ("3.0.3", "{type: string, enum: [a], nullable: true}", json!(null), true),
        ("3.0.3", "{nullable: true, allOf: [{$ref: '#/components/schemas/S'}]}", json!(null), true),
        ("3.0.3", "{$ref: '#/components/schemas/S', maxLength: 1}", json!("ab"), true),
        ("3.1.0", "{$ref: '#/components/schemas/S', maxLength: 1}", json!("ab"), false),
        ("3.1.0", "{type: [string, 'null']}", json!(null), true),
        ("3.1.0", "{type: string, nullable: true}", json!(null), false),
        ("3.0.3", "{type: integer, minimum: 1, exclusiveMinimum: true}", json!(1), false),
        ("3.0.3", "{type: integer, minimum: 1, exclusiveMinimum: false}", json!(1), true),
        ("3.1.0", "{type: integer, exclusiveMinimum: 1}", json!(1), false),
        ("3.0.3", "{type: integer, format: int32}", json!(3_000_000_000_u32), false),
        ("3.0.3", "{type: integer, example: x, description: y, x-any: 1}", json!(1), true),
        ("3.1.0", "{prefixItems: [{type: integer}], items: false}", json!([1, 2]), false),
        ("3.1.0", "{const: 5}", json!(5), true),
        ("3.1.0", "{allOf: [{$ref: '#/components/schemas/O'}], unevaluatedProperties: false}", json!({"a": 1}), true),
        ("3.1.0", "{allOf: [{$ref: '#/components/schemas/O'}], unevaluatedProperties: false}", json!({"b": 1}), false),
    ] {
        assert_eq!(check(version, schema, &value), wanted, "{version} {schema} {value}");
    }
}
