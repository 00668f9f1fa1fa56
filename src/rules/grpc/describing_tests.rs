//! What is wrong with rules, and the document of an API.

use super::sample_tests::{KINDS, SPARSE, api_of, kinds, pool};
use super::{Api, ApiScope, openapi_document};

/// Returns the errors of a file whose only method has this rule.
macro_rules! errors {
    ($rule:literal) => {
        api_of(concat!(
            "syntax = \"proto3\"; package t; import \"google/api/annotations.proto\";\n",
            "message M { string a = 1; M m = 2; repeated string l = 3; map<string, string> p = 4; }\n",
            "service S {\n  rpc One(M) returns (M) { option (google.api.http) = ",
            $rule,
            "; }\n}"
        ))
        .err()
        .unwrap_or_default()
        .join("\n")
    };
}

#[test]
fn rules_that_are_wrong() {
    for (errors, text) in [
        (errors!("{ get: \"v1\" }"), "does not begin with /"),
        (errors!("{ get: \"/{b}\" }"), "t.M has no field b"),
        (errors!("{ get: \"/{l}\" }"), "{l} of the path is no field with one value"),
        (errors!("{ get: \"/{m}\" }"), "{m} of the path is no field with one value"),
        (errors!("{ get: \"/{a.b}\" }"), "a is no message"),
        (errors!("{ get: \"/{p.key}\" }"), "p is repeated"),
        (errors!("{ post: \"/\" body: \"b\" }"), "body: t.M has no field b"),
        (errors!("{ post: \"/{a}\" body: \"a\" }"), "a is in the path and is the body"),
        (errors!("{ get: \"/\" response_body: \"b\" }"), "response_body: t.M has no field b"),
        (errors!("{ body: \"*\" }"), "no method and path"),
        (errors!("{ custom { kind: \"A B\" path: \"/\" } }"), "is no method"),
        (
            errors!("{ get: \"/{a}\" additional_bindings { get: \"/{m.a}\" } }"),
            "matches the same requests as /{a} of t.S/One",
        ),
        (
            errors!("{ get: \"/a\" additional_bindings { get: \"/b\" additional_bindings { get: \"/c\" } } }"),
            "have no additional_bindings",
        ),
    ] {
        assert!(errors.contains(text), "{errors}");
        assert!(errors.starts_with("sample.proto:4: t.S.One: "), "{errors}");
    }
    let none = api_of("syntax = \"proto3\"; package t; message M {} service S { rpc One(M) returns (M); }");
    assert!(none.is_err_and(|errors| errors[0].contains("no method has a rule")));
    let stream = api_of(
        "syntax = \"proto3\"; package t; import \"google/api/annotations.proto\"; message M { string a = 1; }
         service S { rpc One(stream M) returns (M) { option (google.api.http) = { post: \"/\" body: \"a\" }; } }",
    );
    assert!(stream.is_err_and(|errors| errors[0].contains("needs body: \"*\"")));
}

#[test]
fn services_are_chosen() {
    let scope = |services: &'static [String], unruled| ApiScope { files: &[], services, unruled };
    assert!(Api::new(&pool(KINDS), &scope(&[], false)).is_err(), "no file is named");
    let names: &'static [String] = Box::leak(Box::new(["t.Other".to_owned()]));
    let errors = Api::new(&pool(KINDS), &scope(names, false)).expect_err("errors");
    assert!(errors[0].contains("there is no service t.Other; there are t.Kinds"), "{errors:?}");
    let names: &'static [String] = Box::leak(Box::new(["t.Kinds".to_owned()]));
    assert!(Api::new(&pool(KINDS), &scope(names, false)).is_ok());
    let plain = pool("syntax = \"proto3\"; package t; message M {} service S { rpc One(M) returns (M); }");
    let names: &'static [String] = Box::leak(Box::new(["t.S".to_owned()]));
    let api = Api::new(&plain, &scope(names, true)).expect("an API");
    assert_eq!(&*api.rules[0].text, "/t.S/One");
}

#[test]
fn the_document_has_all_paths_and_messages() {
    let document = openapi_document(&kinds(), SPARSE);
    let paths = document["paths"].as_object().expect("paths");
    for path in [
        "/v1/all/{name}",
        "/v1/all/{name}:stop",
        "/v1/numbers/{i64}/{color}",
        "/v1/shelves/{name_1}/books/{name_2}",
        "/v1/deep/{name}",
        "/v1/raw",
    ] {
        assert!(paths.contains_key(path), "{path} of {:?}", paths.keys());
    }
    let get = &document["paths"]["/v1/all/{name}"]["get"];
    assert_eq!((&get["operationId"], &get["description"]), (&"Kinds_Get".into(), &"Gets one.".into()));
    let names: Vec<&str> =
        get["parameters"].as_array().expect("parameters").iter().filter_map(|p| p["name"].as_str()).collect();
    for name in ["name", "i64", "inner.text", "inner.inner.text", "madeAt", "wText", "texts"] {
        assert!(names.contains(&name), "{name} of {names:?}");
    }
    assert!(!names.contains(&"labels") && !names.contains(&"inners") && !names.contains(&"any"), "{names:?}");
    let schemas = &document["components"]["schemas"];
    assert_eq!(schemas["t.All"]["properties"]["i64"], serde_json::json!({"type": "string", "format": "int64"}));
    assert_eq!(schemas["t.All"]["properties"]["labels"]["additionalProperties"]["type"], "string");
    assert!(schemas["google.rpc.Status"].is_object() && schemas["t.Inner"].is_object());
    assert_eq!(
        document["paths"]["/v1/texts"]["post"]["requestBody"]["content"]["application/json"]["schema"]["type"],
        "array"
    );
    // The document is one that the gateway itself reads.
    let text = document.to_string();
    assert!(!text.contains("t.All.LabelsEntry"), "an entry of a map is no message of the document");
}
