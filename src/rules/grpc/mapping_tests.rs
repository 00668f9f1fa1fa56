//! JSON of messages, compared with another library.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use prost_reflect::prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::{Value, json};

use super::read::JsonReader;
use super::sample_tests::{KINDS, SPARSE, kinds, oracle, pool};
use super::{JsonStyle, JsonWriter};
use crate::rules::grpc::Api;

fn read(api: &Api, text: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let mut reader = JsonReader::new(&api.types, text);
    let id = api.types.id("t.All").expect("a message");
    let read = reader.message(id, None, &mut out).and_then(|()| reader.end());
    read.map(|()| out).map_err(|bad| format!("{} {}", bad.pointer(), bad.text))
}

fn write(api: &Api, name: &str, bytes: &[u8], style: JsonStyle) -> Result<String, String> {
    let mut out = Vec::new();
    let id = api.types.id(name).expect("a message");
    JsonWriter::new(&api.types, style, 1 << 20).message(id, bytes, &mut out).map_err(|why| why.0.into_owned())?;
    Ok(String::from_utf8(out).expect("UTF-8"))
}

fn dynamic(pool: &DescriptorPool, text: &str) -> DynamicMessage {
    let message = pool.get_message_by_name("t.All").expect("a message");
    let mut deserializer = serde_json::Deserializer::from_str(text);
    DynamicMessage::deserialize(message, &mut deserializer).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Returns whether two messages are equal: an explicit default is none. (The descriptors in their debug form are
/// endless, so they are not compared by assert_eq.)
fn is_same(one: &DynamicMessage, other: &DynamicMessage) -> bool {
    let canonical = |message: &DynamicMessage| {
        let descriptor = prost_reflect::ReflectMessage::descriptor(message);
        let decoded = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice()).expect("an encoding");
        // As JSON, since the bytes of an Any may have their fields in any order.
        serde_json::to_value(decoded).expect("JSON")
    };
    canonical(one) == canonical(other)
}

/// Texts that the mapping accepts in several forms, and the form in which it writes them.
#[test]
fn forms() {
    let (api, pool) = (kinds(), pool(KINDS));
    for (text, expected) in [
        (
            r#"{"i32":"5","i64":5,"u64":"18446744073709551615"}"#,
            json!({"i32": 5, "i64": "5", "u64": "18446744073709551615"}),
        ),
        (
            r#"{"i32":1.0,"i64":9007199254740993.0,"numbers":[1e2]}"#,
            json!({"i32": 1, "i64": "9007199254740993", "numbers": [100]}),
        ),
        (
            r#"{"real":"1.5","wide":"NaN","wides":["Infinity","-Infinity",-0.0]}"#,
            json!({"real": 1.5, "wide": "NaN", "wides": ["Infinity", "-Infinity", -0.0]}),
        ),
        (r#"{"data":"-_8","wData":"AA"}"#, json!({"data": "+/8=", "wData": "AA=="})),
        (r#"{"color":2,"colors":["RED",7,-1]}"#, json!({"color": "BLUE", "colors": ["RED", 7, "NEGATIVE"]})),
        (
            r#"{"made_at":"1970-01-01T00:00:00.000001+00:00","wait":"-1.5s"}"#,
            json!({"madeAt": "1970-01-01T00:00:00.000001Z", "wait": "-1.500s"}),
        ),
        (r#"{"name":null,"inner":null,"texts":null,"labels":null,"wText":null,"madeAt":null}"#, json!({})),
        (r#"{"value":null}"#, json!({"value": null})),
        (r#"{"aText":null,"aNumber":0}"#, json!({"aNumber": 0})),
        (r#"{"maybe":0}"#, json!({"maybe": 0})),
        (
            r#"{"byNumber":{"-1":{"text":"a"}},"byFlag":{"true":"1","false":0}}"#,
            json!({"byNumber": {"-1": {"text": "a"}}, "byFlag": {"true": "1", "false": "0"}}),
        ),
        (
            r#"{"object":{"a":[1,"x",true,null,{}]},"values":[[],{"b":-1.5}]}"#,
            json!({"object": {"a": [1, "x", true, null, {}]}, "values": [[], {"b": -1.5}]}),
        ),
        (
            r#"{"any":{"text":"x","@type":"type.googleapis.com/t.Inner","number":1}}"#,
            json!({"any": {"@type": "type.googleapis.com/t.Inner", "text": "x", "number": 1}}),
        ),
        (
            r#"{"any":{"@type":"a/google.protobuf.Duration","value":"1s"}}"#,
            json!({"any": {"@type": "a/google.protobuf.Duration", "value": "1s"}}),
        ),
        (
            r#"{"any":{"@type":"a/google.protobuf.Any","value":{"@type":"a/t.Inner"}}}"#,
            json!({"any": {"@type": "a/google.protobuf.Any", "value": {"@type": "a/t.Inner"}}}),
        ),
        (r#"{"any":{}}"#, json!({"any": {}})),
        (r#"{"mask":"a.bC,d"}"#, json!({"mask": "a.bC,d"})),
        (r#"{"empty":{},"inner":{}}"#, json!({"inner": {}, "empty": {}})),
        (r#"{"name":"\ud83d\ude08\"\\\u0000"}"#, json!({"name": "😈\"\\\u{0}"})),
        (
            r#"{"wraps":[1,0],"times":["1970-01-01T00:00:00Z"]}"#,
            json!({"times": ["1970-01-01T00:00:00Z"], "wraps": [1, 0]}),
        ),
    ] {
        let bytes = read(&api, text).unwrap_or_else(|why| panic!("{text}: {why}"));
        let written = write(&api, "t.All", &bytes, SPARSE).expect("JSON");
        let value: Value = serde_json::from_str(&written).expect("JSON");
        // As numbers of one kind.
        let same = |one: &Value| one.to_string().replace(".0", "");
        assert_eq!(same(&value), same(&expected), "{text}");
        if !text.contains("any") && !text.contains("value") && !text.contains("NaN") {
            let other = oracle(&pool, "t.All", &bytes);
            let again = dynamic(&pool, &written);
            assert!(is_same(&again, &dynamic(&pool, &other.to_string())), "{text}");
        }
    }
}

#[test]
fn styles() {
    let api = kinds();
    let bytes =
        read(&api, r#"{"color":"RED","madeAt":"1970-01-01T00:00:00Z","inner":{"number":1}}"#).expect("a message");
    let style = |defaults, proto_names, enum_numbers| JsonStyle { defaults, proto_names, enum_numbers };
    let written = write(&api, "t.All", &bytes, style(true, true, true)).expect("JSON");
    let value: Value = serde_json::from_str(&written).expect("JSON");
    assert_eq!((&value["color"], &value["i64"], &value["flag"]), (&json!(1), &json!("0"), &json!(false)));
    assert_eq!((&value["texts"], &value["labels"], &value["by_number"]), (&json!([]), &json!({}), &json!({})));
    assert_eq!(value["inner"], json!({"text": "", "number": 1, "list": []}));
    // A field whose absence is distinct is not written.
    for absent in ["maybe", "a_text", "w_text", "wait", "any"] {
        assert!(value.get(absent).is_none(), "{absent}");
    }
    assert_eq!(write(&api, "t.All", &[], SPARSE).as_deref(), Ok("{}"));
    // The order is that of the numbers, so that equal messages have equal texts.
    assert!(written.starts_with(r#"{"name":"","i32":0,"i64":"0","u32":0"#), "{written}");
}

/// What a message may be on the wire without being what the gateway itself would write.
#[test]
fn encodings_of_others() {
    let api = kinds();
    let all = |bytes: &[u8]| write(&api, "t.All", bytes, SPARSE);
    let json = |text: &str| Ok(text.to_owned());
    // Not packed, and in two records that are; the last of two values; unknown fields; fields out of order.
    assert_eq!(all(&[0x98, 1, 5, 0x9a, 1, 2, 6, 7]), json(r#"{"numbers":[5,6,7]}"#));
    assert_eq!(all(&[0x10, 1, 0x10, 2]), json(r#"{"i32":2}"#));
    assert_eq!(all(&[0xf8, 0x7f, 1, 0x10, 2]), json(r#"{"i32":2}"#));
    assert_eq!(all(&[0x18, 1, 0x10, 2]), json(r#"{"i32":2,"i64":"1"}"#));
    // A message in two records is merged.
    assert_eq!(all(&[0x8a, 1, 3, 0x0a, 1, b'a', 0x8a, 1, 2, 0x10, 5]), json(r#"{"inner":{"text":"a","number":5}}"#));
    // The last field of a oneof counts.
    assert_eq!(all(&[0xc2, 1, 1, b'a', 0xc8, 1, 5]), json(r#"{"aNumber":5}"#));
    assert_eq!(all(&[0xc8, 1, 5, 0xc2, 1, 1, b'a']), json(r#"{"aText":"a"}"#));
    // An explicit default is none.
    assert_eq!(all(&[0x10, 0]), json("{}"));
    // The entries of a map: without a key, without a value, the same key twice.
    assert_eq!(all(&[0xb2, 1, 0]), json(r#"{"labels":{"":""}}"#));
    assert_eq!(
        all(&[0xb2, 1, 6, 0x0a, 1, b'k', 0x12, 1, b'a', 0xb2, 1, 6, 0x0a, 1, b'k', 0x12, 1, b'b']),
        json(r#"{"labels":{"k":"b"}}"#)
    );
    assert_eq!(all(&[0xba, 1, 2, 8, 3]), json(r#"{"byNumber":{"3":{}}}"#));
    // A message of Any whose type is not known stays as it is.
    assert_eq!(
        all(&[0xb2, 2, 8, 0x0a, 3, b'a', b'/', b'b', 0x12, 1, 7]),
        json(r#"{"any":{"@type":"a/b","value":"Bw=="}}"#)
    );
    assert!(all(&[0x0a, 1, 0xff]).is_err(), "a text that is not UTF-8");
    assert!(all(&[0x0a, 5, b'a']).is_err(), "a record that ends early");
    assert!(all(&[0x08, 1]).is_err(), "a number in place of a text");
    assert!(all(&[0xda, 1, 6, 8, 0xff, 0xff, 0xff, 0xff, 0x7f]).is_ok(), "a time of far away, in seconds");
    let mut deep = vec![];
    for _ in 0..200 {
        let mut outer = vec![0x1a];
        super::wire::put_varint(deep.len() as u64, &mut outer);
        outer.extend_from_slice(&deep);
        deep = outer;
    }
    assert!(write(&api, "t.Inner", &deep, SPARSE).is_err());
    // Two bytes for each message, which are many more with their defaults.
    let style = JsonStyle { defaults: true, ..SPARSE };
    let wide = [0xaa, 1, 0].repeat(100_000);
    assert_eq!(write(&api, "t.All", &wide, style), Err("its JSON is too long".to_owned()));
}

fn text() -> BoxedStrategy<Value> {
    "\\PC{0,12}".prop_map(Value::from).boxed()
}

fn time() -> BoxedStrategy<Value> {
    let time = (-62_135_596_800_i64..253_402_300_799, select(vec![0_u32, 500_000_000, 1_000, 7]));
    let time = time.prop_map(|(seconds, nanos)| {
        let time = chrono::DateTime::from_timestamp(seconds, nanos).expect("a time");
        json!(time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true))
    });
    time.boxed()
}

fn inner() -> BoxedStrategy<Value> {
    let inner = (text(), any::<i32>(), list(text()));
    inner.prop_map(|(text, number, list)| json!({"text": text, "number": number, "inner": {"list": list}})).boxed()
}

fn list(values: BoxedStrategy<Value>) -> BoxedStrategy<Value> {
    proptest::collection::vec(values, 0..4).prop_map(Value::from).boxed()
}

fn object(values: BoxedStrategy<Value>) -> BoxedStrategy<Value> {
    let map = proptest::collection::btree_map("\\PC{0,12}", values, 0..4);
    map.prop_map(|map| map.into_iter().collect::<Value>()).boxed()
}

/// Values of any kind, two deep.
fn tree() -> BoxedStrategy<Value> {
    let leaf = select(vec![json!(null), json!(true), json!("a"), json!(""), json!(-1.5), json!([]), json!({})]).boxed();
    let branch = prop_oneof![leaf.clone(), list(leaf.clone()), object(leaf)].boxed();
    prop_oneof![list(branch.clone()), object(branch)].boxed()
}

fn number() -> BoxedStrategy<Value> {
    any::<f64>().prop_filter("finite", |value| value.is_finite()).prop_map(Value::from).boxed()
}

/// Returns values of a field.
fn values(name: &'static str) -> BoxedStrategy<Value> {
    match name {
        "i32" | "s32" | "sx32" | "aNumber" | "maybe" => any::<i32>().prop_map(Value::from).boxed(),
        "i64" | "s64" | "sx64" | "wI64" => any::<i64>().prop_map(|value| json!(value.to_string())).boxed(),
        "u32" | "x32" => any::<u32>().prop_map(Value::from).boxed(),
        "u64" | "x64" => any::<u64>().prop_map(|value| json!(value.to_string())).boxed(),
        "flag" | "wFlag" => any::<bool>().prop_map(Value::from).boxed(),
        "real" => any::<f32>().prop_filter("finite", |value| value.is_finite()).prop_map(Value::from).boxed(),
        "wide" | "wWide" => number(),
        "wides" => list(number()),
        "data" | "wData" => proptest::collection::vec(any::<u8>(), 0..9)
            .prop_map(|bytes| json!(base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes)))
            .boxed(),
        "color" => select(vec![json!("RED"), json!("BLUE"), json!(77), json!("NEGATIVE")]).boxed(),
        "colors" => list(select(vec![json!("RED"), json!("COLOR_UNKNOWN"), json!(-7)]).boxed()),
        "inner" => inner(),
        "inners" => list(inner()),
        "texts" => list(text()),
        "numbers" | "wraps" => list(any::<i32>().prop_map(Value::from).boxed()),
        "labels" => object(text()),
        "byNumber" => proptest::collection::btree_map(any::<i32>(), inner(), 0..3)
            .prop_map(|map| map.into_iter().map(|(key, value)| (key.to_string(), value)).collect::<Value>())
            .boxed(),
        "madeAt" => time(),
        "times" => list(time()),
        "wait" => {
            select(vec!["0s", "1.5s", "-0.000000001s", "-315576000000s", "12.000123s"]).prop_map(Value::from).boxed()
        }
        "mask" => select(vec!["a", "fooBar,b", "a.b,cD.eF", ""]).prop_map(Value::from).boxed(),
        "object" => object(tree()),
        "values" => list(tree()),
        "any" => inner()
            .prop_map(|mut inner| {
                inner["@type"] = json!("type.googleapis.com/t.Inner");
                inner
            })
            .boxed(),
        _ => text(),
    }
}

const NAMES: [&str; 37] = [
    "name", "i32", "i64", "u32", "u64", "s32", "s64", "x32", "x64", "sx32", "sx64", "flag", "real", "wide", "data",
    "color", "inner", "texts", "numbers", "colors", "inners", "labels", "byNumber", "madeAt", "wait", "mask", "wText",
    "wI64", "wFlag", "wData", "wWide", "object", "values", "maybe", "times", "aNumber", "any",
];

static SHARED: std::sync::LazyLock<(Api, DescriptorPool)> = std::sync::LazyLock::new(|| (kinds(), pool(KINDS)));

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn messages_come_back(
        members in subsequence(NAMES.to_vec(), 1..8)
            .prop_flat_map(|names| names.into_iter().map(|name| (Just(name), values(name))).collect::<Vec<_>>()),
        defaults: bool,
        proto_names: bool,
        enum_numbers: bool,
    ) {
        let (api, pool) = (&SHARED.0, &SHARED.1);
        let object: Value = members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let text = object.to_string();
        let message = dynamic(pool, &text);
        // What this reads, another library decodes to the message that it reads itself.
        let bytes = read(api, &text).map_err(|why| TestCaseError::fail(format!("{text}: {why}")))?;
        let descriptor = pool.get_message_by_name("t.All").expect("a message");
        let decoded = DynamicMessage::decode(descriptor, bytes.as_slice()).expect("an encoding");
        prop_assert!(is_same(&decoded, &message), "{}", text);
        // What another library encodes, this writes as a text that that library reads back.
        let style = JsonStyle { defaults, proto_names, enum_numbers };
        let written = write(api, "t.All", &message.encode_to_vec(), style).map_err(TestCaseError::fail)?;
        let again = dynamic(pool, &written);
        prop_assert!(is_same(&again, &message), "{}", written);
        // And so does this.
        let bytes = read(api, &written).map_err(|why| TestCaseError::fail(format!("{written}: {why}")))?;
        let rewritten = write(api, "t.All", &bytes, style).map_err(TestCaseError::fail)?;
        prop_assert_eq!(rewritten.len(), written.len(), "{}", written);
    }

    #[test]
    fn no_bytes_are_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let api = &SHARED.0;
        let _ = write(api, "t.All", &bytes, SPARSE);
        let _ = read(api, &String::from_utf8_lossy(&bytes));
    }
}
