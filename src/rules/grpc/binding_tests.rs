//! Requests, and the messages that they become.

use http::Method;
use serde_json::{Value, json};

use super::sample_tests::{KINDS, kinds, oracle, pool};
use super::{BadCall, BindLimits, FrameReader, Matched, RequestParts};
use crate::rules::grpc::Api;

const LIMITS: BindLimits = BindLimits { ignores_unknown: false, max_message: 4 << 20 };
const JSON: Option<&str> = Some("application/json");

/// Returns the JSON of the messages of a request, or the place and the kind of the first error.
fn bind(api: &Api, request: (&str, &str, Option<&str>, &str), limits: &BindLimits) -> Result<Vec<Value>, String> {
    let (method, target, content_type, body) = request;
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let method: Method = method.parse().expect("a method");
    let Matched::Rule { rule, has_verb } = api.find(&method, path) else { return Err("no rule".to_owned()) };
    let plan = &api.rules[rule];
    let parts = RequestParts { path, query, content_type, body: body.as_bytes() };
    let frames = api.bind((plan, has_verb), &parts, limits).map_err(|bad| match bad {
        BadCall::Invalid(violation) => {
            format!("{} {} {}", violation.place.word(), violation.pointer, violation.keyword)
        }
        BadCall::MediaType(_) => "media type".to_owned(),
        BadCall::TooLong => "too long".to_owned(),
    })?;
    let input = api.types.message(api.methods[plan.method].input).name.clone();
    let pool = pool(KINDS);
    let mut reader = FrameReader::new(u32::MAX);
    reader.push(&frames.freeze());
    let mut messages = Vec::new();
    while let Some(frame) = reader.frame().expect("frames") {
        messages.push(oracle(&pool, &input, &frame.message));
    }
    Ok(messages)
}

fn get(target: &str) -> (&str, &str, Option<&str>, &str) {
    ("GET", target, None, "")
}

/// Checks each request of a table.
fn check(table: Vec<((&str, &str, Option<&str>, &str), Result<Value, &str>)>) {
    let api = kinds();
    for (request, expected) in table {
        let found = bind(&api, request, &LIMITS).map(|mut messages| match messages.len() {
            1 => messages.remove(0),
            _ => Value::Array(messages),
        });
        assert_eq!(found, expected.map_err(str::to_owned), "{request:?}");
    }
}

#[test]
fn paths() {
    check(vec![
        (get("/v1/all/a"), Ok(json!({"name": "a"}))),
        (get("/v1/all/a%20b%2Fc%3A"), Ok(json!({"name": "a b/c:"}))),
        (get("/v1/all/a%3Astop"), Ok(json!({"name": "a:stop"}))),
        (get("/v1/all/caf%C3%A9"), Ok(json!({"name": "café"}))),
        (get("/v1/all/a+b"), Ok(json!({"name": "a+b"}))),
        (get("/v1/all/%FF"), Err("path /name encoding")),
        (get("/v1/all/a:unknown"), Ok(json!({"name": "a:unknown"}))),
        (get("/v1/all/"), Err("no rule")),
        (get("/v1/all/a/"), Err("no rule")),
        (get("/v1/deep"), Ok(json!({}))),
        (get("/v1/deep/a/b"), Ok(json!({"name": "a/b"}))),
        (get("/v1/deep/a%2Fb/c%20d/e%3Fx"), Ok(json!({"name": "a%2Fb/c d/e%3Fx"}))),
        (get("/v1/deep/a/"), Ok(json!({"name": "a/"}))),
        (get("/v1/deep/%FF"), Err("path /name encoding")),
        (get("/v1/shelves/1/books/2"), Ok(json!({"name": "shelves/1/books/2"}))),
        (get("/v1/shelves/1/books/a%2Fb"), Ok(json!({"name": "shelves/1/books/a%2Fb"}))),
        (get("/v1/shelves/1"), Err("no rule")),
        (get("/v1/numbers/9007199254740993/RED"), Ok(json!({"i64": "9007199254740993", "color": "RED"}))),
        (get("/v1/numbers/-1/2"), Ok(json!({"i64": "-1", "color": "BLUE"}))),
        (
            get("/v1/numbers/0/77"),
            Ok(json!({"i64": "0", "color": 77}).as_object().map(|_| json!({"color": 77})).unwrap()),
        ),
        (get("/v1/numbers/9223372036854775808/RED"), Err("path /i64 type")),
        (get("/v1/numbers/x/RED"), Err("path /i64 type")),
        (get("/v1/numbers/1.5/RED"), Err("path /i64 type")),
        (get("/v1/numbers/1/GREEN"), Err("path /color type")),
        (
            get("/v1/inner/x/times/1970-01-01T00:00:01Z"),
            Ok(json!({"inner": {"text": "x"}, "madeAt": "1970-01-01T00:00:01Z"})),
        ),
        (get("/v1/inner/x/times/now"), Err("path /made_at type")),
        (get("/v1/choice/x"), Ok(json!({"aText": "x"}))),
        (get("/v1/data/-_8/5/true"), Ok(json!({"data": "+/8=", "wI64": "5", "flag": true}))),
        (get("/v1/data/*/5/true"), Err("path /data type")),
        (get("/v1/data/-_8/5/1"), Err("path /flag type")),
        (("HEAD", "/v1/all/a", None, ""), Ok(json!({"name": "a"}))),
        (("POST", "/v1/all/a:stop", None, ""), Ok(json!({"name": "a"}))),
        (("POST", "/v1/all/a:b:stop", None, ""), Ok(json!({"name": "a:b"}))),
        (("PURGE", "/v1/all/a", None, ""), Ok(json!({"name": "a"}))),
        (("LINK", "/v1/anything", None, ""), Ok(json!({}))),
        (("GET", "/v1/all/a:stop", None, ""), Err("no rule")),
    ]);
}

#[test]
fn queries() {
    check(vec![
        (
            get("/v1/deep?i32=-5&i64=-5&u32=5&u64=18446744073709551615"),
            Ok(json!({
                "i32": -5, "i64": "-5", "u32": 5, "u64": "18446744073709551615",
            })),
        ),
        (
            get("/v1/deep?s32=-1&s64=-2&x32=3&x64=4&sx32=-5&sx64=-6"),
            Ok(json!({
                "s32": -1, "s64": "-2", "x32": 3, "x64": "4", "sx32": -5, "sx64": "-6",
            })),
        ),
        (
            get("/v1/deep?flag=true&real=1.5&wide=-1e300&data=-_8"),
            Ok(json!({
                "flag": true, "real": 1.5, "wide": -1e300, "data": "+/8=",
            })),
        ),
        (get("/v1/deep?data=%2B/8%3D"), Ok(json!({"data": "+/8="}))),
        (get("/v1/deep?wide=NaN"), Ok(json!({"wide": "NaN"}))),
        (get("/v1/deep?wide=-Infinity"), Ok(json!({"wide": "-Infinity"}))),
        (get("/v1/deep?color=BLUE"), Ok(json!({"color": "BLUE"}))),
        (get("/v1/deep?color=-1"), Ok(json!({"color": "NEGATIVE"}))),
        (get("/v1/deep?madeAt=1970-01-01T00:00:00.5Z"), Ok(json!({"madeAt": "1970-01-01T00:00:00.500Z"}))),
        (get("/v1/deep?made_at=1970-01-01T01:00:00%2B01:00"), Ok(json!({"madeAt": "1970-01-01T00:00:00Z"}))),
        (get("/v1/deep?wait=1.5s"), Ok(json!({"wait": "1.500s"}))),
        (get("/v1/deep?mask=displayName,a.b"), Ok(json!({"mask": "displayName,a.b"}))),
        (get("/v1/deep?mask=display_name"), Ok(json!({"mask": "displayName"}))),
        (
            get("/v1/deep?wText=&wI64=7&wFlag=false&wData=AA&wWide=1"),
            Ok(json!({
                "wText": "", "wI64": "7", "wFlag": false, "wData": "AA==", "wWide": 1.0,
            })),
        ),
        (get("/v1/deep?w_text=a+b%26"), Ok(json!({"wText": "a b&"}))),
        (get("/v1/deep?texts=a&texts=b,c&texts="), Ok(json!({"texts": ["a", "b,c", ""]}))),
        (
            get("/v1/deep?numbers=1&colors=RED&numbers=-2&colors=2"),
            Ok(json!({
                "numbers": [1, -2], "colors": ["RED", "BLUE"],
            })),
        ),
        (
            get("/v1/deep?times=1970-01-01T00:00:00Z&times=1970-01-01T00:00:01Z&wraps=5"),
            Ok(json!({
                "times": ["1970-01-01T00:00:00Z", "1970-01-01T00:00:01Z"], "wraps": [5],
            })),
        ),
        (
            get("/v1/deep?inner.text=a&inner.number=2&inner.inner.list=x&inner.inner.list=y"),
            Ok(json!({
                "inner": {"text": "a", "number": 2, "inner": {"list": ["x", "y"]}},
            })),
        ),
        (get("/v1/deep?inner.at_time=1970-01-01T00:00:00Z"), Ok(json!({"inner": {"atTime": "1970-01-01T00:00:00Z"}}))),
        (get("/v1/deep?maybe=0"), Ok(json!({"maybe": 0}))),
        (get("/v1/deep?aText=x"), Ok(json!({"aText": "x"}))),
        (get("/v1/deep?anInner.number=5&anInner.text=x"), Ok(json!({"anInner": {"number": 5, "text": "x"}}))),
        (get("/v1/deep?i32=1e2"), Ok(json!({"i32": 100}))),
        (get("/v1/deep?"), Ok(json!({}))),
        (
            get("/v1/inner/x/times/1970-01-01T00:00:00Z?inner.number=4"),
            Ok(json!({
                "inner": {"text": "x", "number": 4}, "madeAt": "1970-01-01T00:00:00Z",
            })),
        ),
    ]);
}

#[test]
fn queries_that_are_rejected() {
    check(vec![
        (get("/v1/deep?a_text=%FF"), Err("query  encoding")),
        (get("/v1/deep?unknown=1"), Err("query /unknown unknown")),
        (get("/v1/deep?inner.unknown=1"), Err("query /inner.unknown unknown")),
        (get("/v1/deep?=1"), Err("query / unknown")),
        (get("/v1/deep?a~b/c=1"), Err("query /a~0b~1c unknown")),
        (get("/v1/deep?name.x=1"), Err("query /name.x unknown")),
        (get("/v1/deep?madeAt.seconds=1"), Err("query /madeAt.seconds unknown")),
        (get("/v1/deep?inners.text=1"), Err("query /inners.text unknown")),
        (get("/v1/deep?byNumber.key=1"), Err("query /byNumber.key unknown")),
        (get("/v1/deep?labels=1"), Err("query /labels type")),
        (get("/v1/deep?labels[a]=1"), Err("query /labels[a] unknown")),
        (get("/v1/deep?inner=%7B%7D"), Err("query /inner type")),
        (get("/v1/deep?inners=%7B%7D"), Err("query /inners type")),
        (get("/v1/deep?object=%7B%7D"), Err("query /object type")),
        (get("/v1/deep?value=1"), Err("query /value type")),
        (get("/v1/deep?any=1"), Err("query /any type")),
        (get("/v1/deep?i32=1&i32=2"), Err("query /i32 duplicate")),
        (get("/v1/deep?made_at=1970-01-01T00:00:00Z&madeAt=1970-01-01T00:00:00Z"), Err("query /madeAt duplicate")),
        (get("/v1/deep?i32=2147483648"), Err("query /i32 type")),
        (get("/v1/deep?i32=1.5"), Err("query /i32 type")),
        (get("/v1/deep?i32="), Err("query /i32 type")),
        (get("/v1/deep?u32=-1"), Err("query /u32 type")),
        (get("/v1/deep?u64=18446744073709551616"), Err("query /u64 type")),
        (get("/v1/deep?real=1e39"), Err("query /real type")),
        (get("/v1/deep?wide=inf"), Err("query /wide type")),
        (get("/v1/deep?flag=1"), Err("query /flag type")),
        (get("/v1/deep?flag=TRUE"), Err("query /flag type")),
        (get("/v1/deep?color=red"), Err("query /color type")),
        (get("/v1/deep?data=a"), Err("query /data type")),
        (get("/v1/deep?madeAt=yesterday"), Err("query /madeAt type")),
        (get("/v1/deep?wait=1"), Err("query /wait type")),
        (get("/v1/deep?mask=a,,b"), Err("query /mask type")),
        (get("/v1/deep?numbers=1,2"), Err("query /numbers type")),
        (get("/v1/deep?aText=x&aNumber=1"), Err("query /aNumber oneof")),
        (get("/v1/choice/x?aNumber=1"), Err("query /aNumber oneof")),
        (get("/v1/choice/x?anInner.text=1"), Err("query /anInner.text oneof")),
        (get("/v1/all/a?name=b"), Err("query /name bound")),
        (get("/v1/inner/x/times/1970-01-01T00:00:00Z?inner.text=y"), Err("query /inner.text bound")),
        (("POST", "/v1/all?i32=1", JSON, "{}"), Err("query /i32 bound")),
        (("POST", "/v1/texts?texts=1", JSON, "[]"), Err("query /texts bound")),
        (("PATCH", "/v2/things/1?inner.number=1", JSON, "{}"), Err("query /inner.number bound")),
        (("POST", "/v1/choices?aNumber=1", JSON, "\"x\""), Err("query /aNumber bound")),
    ]);
    let api = kinds();
    let lenient = BindLimits { ignores_unknown: true, ..LIMITS };
    let ignored = bind(&api, get("/v1/deep?unknown=1&i32=1&inner.unknown=2"), &lenient);
    assert_eq!(ignored, Ok(vec![json!({"i32": 1})]));
    assert_eq!(bind(&api, get("/v1/deep?i32=x"), &lenient), Err("query /i32 type".to_owned()));
}

#[test]
fn bodies() {
    let post = |body| ("POST", "/v1/all", JSON, body);
    check(vec![
        (post("{}"), Ok(json!({}))),
        (post(""), Ok(json!({}))),
        (post("  "), Ok(json!({}))),
        (("POST", "/v1/all", None, "{\"i32\":1}"), Ok(json!({"i32": 1}))),
        (("POST", "/v1/all", Some("application/json; charset=utf-8"), "{}"), Ok(json!({}))),
        (("POST", "/v1/all", Some("application/vnd.x+json"), "{}"), Ok(json!({}))),
        (("POST", "/v1/all", Some("text/plain"), "{}"), Err("media type")),
        (("POST", "/v1/all", Some("application/x-www-form-urlencoded"), "a=b"), Err("media type")),
        (("POST", "/v1/all", Some("application/x-ndjson"), "{}"), Err("media type")),
        (("PUT", "/v1/all/x", JSON, r#"{"name":"y","i32":1}"#), Ok(json!({"name": "x", "i32": 1}))),
        (
            ("PATCH", "/v1/things/1", JSON, r#"{"inner":{"number":5,"text":"other"},"i32":1}"#),
            Ok(json!({"inner": {"text": "things/1", "number": 5}, "i32": 1})),
        ),
        (("PATCH", "/v1/things/1", JSON, r#"{"inner":null}"#), Ok(json!({"inner": {"text": "things/1"}}))),
        (("PATCH", "/v1/things/1", JSON, ""), Ok(json!({"inner": {"text": "things/1"}}))),
        (
            ("PATCH", "/v2/things/1?i32=4", JSON, r#"{"number":5}"#),
            Ok(json!({"inner": {"text": "things/1", "number": 5}, "i32": 4})),
        ),
        (("PATCH", "/v2/things/1", JSON, ""), Ok(json!({"inner": {"text": "things/1"}}))),
        (("PATCH", "/v2/things/1", JSON, "null"), Ok(json!({"inner": {"text": "things/1"}}))),
        (("POST", "/v1/texts", JSON, r#"["a","b"]"#), Ok(json!({"texts": ["a", "b"]}))),
        (("POST", "/v1/texts", JSON, "[]"), Ok(json!({}))),
        (("POST", "/v1/texts?i32=3", JSON, ""), Ok(json!({"i32": 3}))),
        (("POST", "/v1/texts", JSON, "{}"), Err("body  type")),
        (("POST", "/v1/labels", JSON, r#"{"a":"b"}"#), Ok(json!({"labels": {"a": "b"}}))),
        (("POST", "/v1/i64/n", JSON, "\"5\""), Ok(json!({"name": "n", "i64": "5"}))),
        (("POST", "/v1/i64/n", JSON, "5 6"), Err("body  json")),
        (("POST", "/v1/inners", JSON, r#"[{"text":"a"},{}]"#), Ok(json!({"inners": [{"text": "a"}, {}]}))),
        (("POST", "/v1/all/a:stop", JSON, "{}"), Err("body  unknown")),
        (("GET", "/v1/all/a", JSON, "{}"), Err("body  unknown")),
        (("POST", "/v1/all", JSON, "{\"name\":\"\u{fffd}\"}"), Ok(json!({"name": "\u{fffd}"}))),
        (post("{} {}"), Err("body  json")),
        (post("[]"), Err("body  type")),
        (post("null"), Err("body  type")),
        (post("{"), Err("body  json")),
    ]);
}

#[test]
fn data_and_streams() {
    let collect = |body| ("POST", "/v1/collect/x", JSON, body);
    check(vec![
        (("POST", "/v1/raw", Some("image/png"), "\u{1}x"), Ok(json!({"contentType": "image/png", "data": "AXg="}))),
        (("POST", "/v1/raw", None, ""), Ok(json!({}))),
        (
            ("PUT", "/v1/files/a", Some("text/plain"), "hi"),
            Ok(json!({"name": "a", "file": {"contentType": "text/plain", "data": "aGk="}})),
        ),
        (("POST", "/v1/send", Some("text/plain"), "hi"), Ok(json!({"contentType": "text/plain", "data": "aGk="}))),
        (collect(r#"[{"i32":1},{"i32":2}]"#), Ok(json!([{"name": "x", "i32": 1}, {"i32": 2}]))),
        (collect("[]"), Ok(json!({"name": "x"}))),
        (collect(""), Ok(json!({"name": "x"}))),
        (collect("{}"), Err("body  type")),
        (collect("[{}"), Err("body  json")),
        (collect("[{},]"), Err("body  type")),
        (collect("[{}] 1"), Err("body  json")),
        (
            ("POST", "/v1/collect/x", Some("application/x-ndjson"), "{\"i32\":1}\n{}\n"),
            Ok(json!([{"name": "x", "i32": 1}, {}])),
        ),
        (("POST", "/v1/collect/x", Some("application/jsonl"), "{\"i32\":1}\n["), Err("body  type")),
    ]);
    let api = kinds();
    let tight = BindLimits { max_message: 10, ..LIMITS };
    assert_eq!(bind(&api, ("POST", "/v1/all", JSON, r#"{"name":"0123456789"}"#), &tight), Err("too long".to_owned()));
    let large = "x".repeat(200_000);
    let parts = bind(&api, ("POST", "/v1/send", Some("text/plain"), &large), &LIMITS).expect("parts");
    assert_eq!(parts.len(), 4);
    assert!(parts[0]["contentType"] == "text/plain" && parts[1].get("contentType").is_none());
}

#[test]
fn bodies_that_are_not_json_of_the_message() {
    check_bodies(&[
        (r#"{"unknown":1}"#, "/unknown unknown"),
        (r#"{"inner":{"unknown":1}}"#, "/inner/unknown unknown"),
        (r#"{"inners":[{},{"text":1}]}"#, "/inners/1/text type"),
        (r#"{"i32":1,"i32":1}"#, "/i32 duplicate"),
        (r#"{"madeAt":null,"made_at":null}"#, "/made_at duplicate"),
        (r#"{"inner":{"inner":{"text":"","text":""}}}"#, "/inner/inner/text duplicate"),
        (r#"{"labels":{"a":"","b":"","a":""}}"#, "/labels/a duplicate"),
        (r#"{"labels":{"a":"","\u0061":""}}"#, "/labels/a duplicate"),
        (r#"{"byNumber":{"1":{},"01":{}}}"#, "/byNumber/1 duplicate"),
        (r#"{"object":{"a":{"b":1,"b":2}}}"#, "/object/a/b duplicate"),
        (r#"{"value":[{"b":1,"b":2}]}"#, "/value/0/b duplicate"),
        (r#"{"aText":"x","aNumber":1}"#, "/aNumber oneof"),
        (r#"{"i32":2147483648}"#, "/i32 type"),
        (r#"{"i32":1.5}"#, "/i32 type"),
        (r#"{"i32":true}"#, "/i32 type"),
        (r#"{"i32":""}"#, "/i32 type"),
        (r#"{"i32":" 1"}"#, "/i32 type"),
        (r#"{"i64":9223372036854775808}"#, "/i64 type"),
        (r#"{"u64":-1}"#, "/u64 type"),
        (r#"{"flag":"true"}"#, "/flag type"),
        (r#"{"flag":1}"#, "/flag type"),
        (r#"{"real":3.5e38}"#, "/real type"),
        (r#"{"wide":1e309}"#, "/wide type"),
        (r#"{"wide":"x"}"#, "/wide type"),
        (r#"{"name":1}"#, "/name type"),
        (r#"{"name":["a"]}"#, "/name type"),
        (r#"{"data":"?"}"#, "/data type"),
        (r#"{"data":1}"#, "/data type"),
        (r#"{"color":"red"}"#, "/color type"),
        (r#"{"color":"1"}"#, "/color type"),
        (r#"{"color":1.5}"#, "/color type"),
        (r#"{"color":2147483648}"#, "/color type"),
    ]);
}

#[test]
fn bodies_with_lists_maps_and_texts_that_are_wrong() {
    let deep_value = format!("{{\"value\":{}{}}}", "[".repeat(200), "]".repeat(200));
    check_bodies(&[
        (r#"{"texts":"a"}"#, "/texts type"),
        (r#"{"texts":[null]}"#, "/texts/0 type"),
        (r#"{"texts":["a",1]}"#, "/texts/1 type"),
        (r#"{"inners":[null]}"#, "/inners/0 type"),
        (r#"{"inner":[]}"#, "/inner type"),
        (r#"{"labels":[]}"#, "/labels type"),
        (r#"{"labels":{"a":null}}"#, "/labels/a type"),
        (r#"{"byNumber":{"x":{}}}"#, "/byNumber/x key"),
        (r#"{"byFlag":{"1":"1"}}"#, "/byFlag/1 key"),
        (r#"{"madeAt":1}"#, "/madeAt type"),
        (r#"{"madeAt":"1970-01-01"}"#, "/madeAt type"),
        (r#"{"wait":"1"}"#, "/wait type"),
        (r#"{"mask":"display_name"}"#, "/mask type"),
        (r#"{"mask":["a"]}"#, "/mask type"),
        (r#"{"wText":1}"#, "/wText type"),
        (r#"{"wI64":1.5}"#, "/wI64 type"),
        (r#"{"object":[]}"#, "/object type"),
        (r#"{"values":{}}"#, "/values type"),
        (r#"{"any":{"a":1}}"#, "/any/@type type"),
        (r#"{"any":{"@type":1}}"#, "/any/@type type"),
        (r#"{"any":{"@type":"type.googleapis.com/no.Such"}}"#, "/any/@type unknown"),
        (r#"{"any":{"@type":"type.googleapis.com/t.Inner","x":1}}"#, "/any/x unknown"),
        (r#"{"any":{"@type":"a/t.Inner","@type":"a/t.Inner"}}"#, "/any/@type duplicate"),
        (r#"{"empty":{"a":1}}"#, "/empty/a unknown"),
        (r#"{"name":"a"#, "/name json"),
        (r#"{"name":"a","#, " json"),
        (r#"{'name':1}"#, " json"),
        (r#"{"i32":01}"#, "/i32 json"),
        (&deep_value, "depth"),
    ]);
    let deep = |count: usize| format!("{}{}", r#"{"inner":"#.repeat(count), "}".repeat(count));
    let api = kinds();
    assert!(bind(&api, ("POST", "/v1/all", JSON, &deep(90)), &LIMITS).is_err(), "an object is missing within");
    assert!(bind(&api, ("POST", "/v1/all", JSON, &deep(2000)), &LIMITS).is_err());
}

/// Checks the place and the kind of the error of each body.
fn check_bodies(table: &[(&str, &str)]) {
    let api = kinds();
    for (body, expected) in table {
        let found = bind(&api, ("POST", "/v1/all", JSON, body), &LIMITS);
        let Err(found) = found else { panic!("{body} is accepted") };
        if *expected == "depth" {
            assert!(found.ends_with("json") && found.starts_with("body /value/0/0"), "{found}");
        } else {
            assert_eq!(found, format!("body {expected}"), "{body}");
        }
    }
}
