//! Tests of compiled schemas.

use std::path::Path;

use super::super::document::FileReader;
use super::*;

fn compiled(schema: &str) -> Result<CompiledSchema, SchemaFault> {
    let schema = schema.to_owned();
    let read: FileReader = Arc::new(move |path| match path.to_str() {
        Some("/s/a.yaml") => Ok(schema.clone()),
        Some("/s/sub/b.json") => Ok(r#"{"$defs": {"c": {"type": "string", "maxLength": 3}}}"#.to_owned()),
        _ => Err("there is no such file".to_owned()),
    });
    let mut reader = DocumentReader::new(read, Vec::new());
    let file = reader.open_first(Path::new("/s/a.yaml"))?;
    CompiledSchema::standalone(reader, file).map(|(schema, _)| schema)
}

fn violations(schema: &str, value: &str) -> Vec<String> {
    let schema = compiled(schema).expect("a schema");
    let value = serde_json::from_str(value).expect("JSON");
    let mut all = Vec::new();
    schema.collect(&value, ViolationPlace::Body, "", &mut all);
    assert_eq!(all.is_empty(), schema.is_valid(&value));
    all.iter().map(|one| format!("{} [{}]", one, one.keyword)).collect()
}

#[test]
fn violations_name_the_place_and_repeat_no_value() {
    let schema = "
type: object
required: [name]
additionalProperties: false
properties:
  name: {type: string, minLength: 2, pattern: '^[a-z]+$'}
  mail: {type: string, format: email}
  tags: {type: array, items: {enum: [a, b]}, maxItems: 2}
  a/b: {$ref: 'sub/b.json#/$defs/c'}
";
    assert!(violations(schema, r#"{"name": "ada", "mail": "a@b.example", "a/b": "xyz"}"#).is_empty());
    let all =
        violations(schema, r#"{"name": "S3", "mail": "S3CRET", "tags": ["a", "S3", "b"], "a/b": "S3CRET", "more": 1}"#);
    assert!(all.iter().all(|one| !one.contains("S3")), "{all:?}");
    for wanted in [
        "body/name: does not match the pattern ^[a-z]+$ [pattern]",
        "body/mail: does not have the format email [format]",
        "body/tags/1: expected one of \"a\", \"b\" [enum]",
        "body/tags: expected at most 2 items [maxItems]",
        "body/a~1b: expected at most 3 characters [maxLength]",
        "body/more: is not declared [additionalProperties]",
    ] {
        assert!(all.iter().any(|one| one == wanted), "{wanted} in {all:#?}");
    }
    assert_eq!(violations(schema, "{}"), ["body: the member name is missing [required]"]);
    assert_eq!(violations(schema, "[]"), ["body: expected a value of the type object [type]"]);
}

#[test]
fn the_list_is_bounded() {
    let list = format!("[{}]", vec!["1"; 100].join(","));
    assert_eq!(violations("items: {type: string}", &list).len(), MAX_VIOLATIONS);
    let names: Vec<String> = (0..100).map(|n| format!("\"a{n}\": 1")).collect();
    let object = format!("{{{}}}", names.join(","));
    let all = violations("{properties: {x: {}}, additionalProperties: false}", &object);
    assert_eq!(all.len(), MAX_VIOLATIONS, "{all:?}");
}

#[test]
fn errors_of_a_schema_have_their_line() {
    let fault = |schema: &str| {
        let fault = compiled(schema).expect_err(schema);
        (fault.location.unwrap_or_default(), fault.text)
    };
    let (location, text) = fault("type: object\nproperties:\n  a:\n    type: strin\n");
    assert!(location == "/s/a.yaml:4:11", "{location} {text}");
    let (location, text) = fault("properties:\n  a: {pattern: '(?=x)'}\n");
    assert!(location.starts_with("/s/a.yaml:2:"), "{location} {text}");
    let (_, text) = fault("properties:\n  a: {$ref: 'https://x.example/s.json'}\n");
    assert!(text.contains("only files are read"), "{text}");
    let (_, text) = fault("$ref: ../../etc/passwd\n");
    assert!(text.contains("leads out of"), "{text}");
    let (location, _) = fault("type: [\n");
    assert!(location.starts_with("/s/a.yaml:"), "{location}");
}

/// A filter of a search: alternatives that overlap, and contain themselves.
const TREE: &str = "
$ref: '#/$defs/node'
$defs:
  node:
    oneOf:
      - type: object
        required: [op]
        properties: {op: {type: string}, args: {type: array, items: {$ref: '#/$defs/node'}}}
      - type: object
        required: [op]
        properties: {op: {type: string}, args: {type: array, items: {$ref: '#/$defs/node'}}, x: {}}
      - anyOf:
          - {type: object, required: [args], properties: {args: {type: array, items: {$ref: '#/$defs/node'}}}}
          - {type: object, required: [field], properties: {field: {type: string}}}
";

#[test]
fn overlapping_alternatives_take_bounded_time_and_memory() {
    let schema = compiled(TREE).expect("a schema");
    for depth in [12, 16, 60, 120] {
        for leaf in ["{}", "1", r#"{"field": 1}"#] {
            let text = format!("{}{leaf}{}", r#"{"op":"and","args":["#.repeat(depth / 2), "]}".repeat(depth / 2));
            let value: Value = serde_json::from_str(&text).expect("JSON");
            let begun = std::time::Instant::now();
            assert!(!schema.is_valid(&value), "{depth} {leaf}");
            let mut all = Vec::new();
            schema.collect(&value, ViolationPlace::Body, "", &mut all);
            assert!((1..=MAX_VIOLATIONS).contains(&all.len()), "{depth} {leaf}: {all:?}");
            assert!(all[0].to_string().contains("of the alternatives"), "{all:?}");
            assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{depth} {leaf}: {:?}", begun.elapsed());
        }
    }
}

#[test]
fn a_long_list_of_wrong_items_has_the_first() {
    let list = format!("[{}]", vec!["1"; 100_000].join(","));
    assert_eq!(violations("items: {type: string}", &list), ["body/0: expected a value of the type string [type]"]);
}

#[test]
fn alternatives_that_several_match_are_named() {
    assert_eq!(
        violations("oneOf: [{type: integer}, {minimum: 1}]", "2"),
        ["body: matches more than one of the alternatives [oneOf]"]
    );
    assert_eq!(
        violations("oneOf: [{type: string}, {minimum: 3}]", "2"),
        ["body: matches none of the alternatives [oneOf]"]
    );
    assert_eq!(
        violations("properties: {a: {anyOf: [{type: string}]}}", r#"{"a": 2}"#),
        ["body/a: matches none of the alternatives [anyOf]"]
    );
}
