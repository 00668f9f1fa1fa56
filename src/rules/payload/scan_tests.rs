//! The scanner, removing members, compared with a model that parses the whole document, and on arbitrary input.

use super::super::{Fields, Stripper};
use super::*;
use proptest::prelude::*;
use serde_json::Value;

fn fields(paths: &[&str]) -> Fields {
    let paths: Vec<_> = paths.iter().map(|p| p.parse().expect("a path")).collect();
    Fields::new(&paths).expect("few steps")
}

fn strip(fields: &Fields, text: &[u8], cut: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut stripper = Stripper::new(fields);
    for part in text.chunks(cut.max(1)) {
        stripper.push(part, false, &mut out).expect("shallow");
    }
    stripper.push(b"", true, &mut out).expect("nothing more");
    out
}

#[track_caller]
fn becomes(paths: &[&str], given: &str, wanted: &str) {
    let fields = fields(paths);
    for cut in 1..=given.len() {
        let out = strip(&fields, given.as_bytes(), cut);
        assert_eq!(String::from_utf8_lossy(&out), wanted, "{given} cut at {cut}");
    }
}

#[test]
fn by_example() {
    becomes(&["ssn"], r#"{"a":1,"ssn":"x","b":2}"#, r#"{"a":1,"b":2}"#);
    becomes(&["ssn"], r#"{"ssn":"x","b":2}"#, r#"{"b":2}"#);
    becomes(&["ssn"], r#"{"a":1,"ssn":{"x":[1,2]}}"#, r#"{"a":1}"#);
    becomes(&["ssn"], r#"{"ssn":null}"#, "{}");
    becomes(&["a", "b"], r#"{"a":1,"b":2,"c":3}"#, r#"{"c":3}"#);
    becomes(&["ssn"], r#"{ "a" : 1 , "ssn" : "," , "b" : 2 }"#, r#"{ "a" : 1 , "b" : 2 }"#);
    becomes(&["ssn"], r#"{"a":{"ssn":1}}"#, r#"{"a":{"ssn":1}}"#);
    becomes(&["**.ssn"], r#"{"a":{"ssn":1,"b":[{"ssn":2},{"c":3,"ssn":4}]}}"#, r#"{"a":{"b":[{},{"c":3}]}}"#);
    becomes(&["a.b"], r#"{"a":{"b":1,"c":2},"b":3}"#, r#"{"a":{"c":2},"b":3}"#);
    becomes(&["a.*.x"], r#"{"a":{"p":{"x":1},"x":2}}"#, r#"{"a":{"p":{},"x":2}}"#);
    becomes(
        &["items.*.x"],
        r#"{"items":[{"x":1,"y":2},{"z":{"x":3}}],"x":4}"#,
        r#"{"items":[{"y":2},{"z":{}}],"x":4}"#,
    );
    becomes(&["a.*.*.x"], r#"{"a":[[{"x":1}],{"b":{"x":2}}]}"#, r#"{"a":[[{}],{"b":{}}]}"#);
    becomes(&["a.*"], r#"{"a":[{"x":1},2]}"#, r#"{"a":[{},2]}"#);
    becomes(&["ssn"], r#"[{"ssn":1},{"ssn":2,"a":3}]"#, r#"[{},{"a":3}]"#);
    let long = format!(r#"{{"s":{{"short":1,"{}":"SECRET"}},"k":1}}"#, "n".repeat(60));
    becomes(&["s.*"], &long, r#"{"s":{},"k":1}"#);
    for length in 6..40 {
        // Around the lengths at which names and strings are read in another way.
        let (name, text) = ("n".repeat(length), "t".repeat(length));
        let given =
            format!(r#"{{"{name}":"{text}","x":{{"{text}":"}}]"}},"y":[{{"{name}":"{text}"}}],"{name}x":"\\""}}"#);
        let wanted = format!(r#"{{"y":[{{}}],"{name}x":"\\""}}"#);
        becomes(&[&format!("**.{name}"), "x"], &given, &wanted);
    }
    becomes(&["a.**.x"], r#"{"x":0,"a":{"x":1,"b":{"c":{"x":2,"y":3}}}}"#, r#"{"x":0,"a":{"b":{"c":{"y":3}}}}"#);
}

#[test]
fn escapes_and_tricks() {
    becomes(&["ssn"], r#"{"ssn":{"a":"}\"]","b":[{"c":"{"}]},"k":1}"#, r#"{"k":1}"#);
    becomes(&["ssn"], r#"{"ssn" : [1,{"ssn":"\\"}] , "k":1}"#, r#"{ "k":1}"#);
    becomes(&["ssn"], r#"{"ssn":{"a":[1,2},"k":3},"l":4}"#, r#"{"l":4}"#);
    becomes(&["ssn"], r#"{"ssn"}"#, "{}");
    becomes(&["ssn"], r#"{"ssn","k":1}"#, r#"{"k":1}"#);
    becomes(&["ssn"], r#"{"s\u0073n":1,"a":2}"#, r#"{"a":2}"#);
    becomes(&["ssn"], r#"{"a":"\"ssn\":1","b":"\\"}"#, r#"{"a":"\"ssn\":1","b":"\\"}"#);
    becomes(&["a\"b"], r#"{"a\"b":1,"c":2}"#, r#"{"c":2}"#);
    becomes(&["ssn"], r#"{"ssn":1,"ssn":2,"a":3}"#, r#"{"a":3}"#);
    becomes(&["ssn"], r#"{"a":1,,"ssn":2}"#, r#"{"a":1,}"#);
    becomes(&["ssn"], r#"{"ssn":1"#, "{");
    becomes(&["ssn"], &format!(r#"{{"{}":1,"ssn":2}}"#, "n".repeat(200)), &format!(r#"{{"{}":1}}"#, "n".repeat(200)));
}

#[test]
fn what_is_not_json_is_unharmed() {
    for text in ["", "plain, text: \"ssn\"", "<a href=\"x\">ssn</a>", "ssn=1,2", "\"", "]]}}", "\u{1}\u{2}"] {
        becomes(&["ssn", "**.x"], text, text);
    }
}

#[test]
fn other_encodings_are_rejected() {
    let fields = fields(&["ssn"]);
    let text = r#"{"ssn":1}"#;
    let wide: Vec<u16> = text.encode_utf16().collect();
    let little: Vec<u8> = wide.iter().flat_map(|unit| unit.to_le_bytes()).collect();
    let big: Vec<u8> = wide.iter().flat_map(|unit| unit.to_be_bytes()).collect();
    let marked = [&[0xff, 0xfe], little.as_slice()].concat();
    let widest: Vec<u8> = text.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect();
    for bytes in [little, big, marked, widest] {
        for cut in 1..5 {
            let mut stripper = Stripper::new(&fields);
            let rejected =
                bytes.chunks(cut).any(|part| stripper.push(part, false, &mut Vec::new()) == Err(Opaque::NotUtf8));
            assert!(rejected, "{bytes:?} cut at {cut}");
        }
    }
}

#[test]
fn depth_is_bounded() {
    let fields = fields(&["**.x"]);
    let mut stripper = Stripper::new(&fields);
    let deep = "[".repeat(MAX_DEPTH);
    assert_eq!(stripper.push(deep.as_bytes(), false, &mut Vec::new()), Ok(()));
    assert_eq!(stripper.push(b"[", false, &mut Vec::new()), Err(Opaque::TooDeep));
    for (inner, wanted) in [(MAX_DEPTH - 1, Ok(())), (MAX_DEPTH, Err(Opaque::TooDeep))] {
        let dropped = format!(r#"{{"x":{}}}"#, "[".repeat(inner) + &"]".repeat(inner));
        assert_eq!(
            Stripper::new(&fields).push(dropped.as_bytes(), false, &mut Vec::new()),
            wanted,
            "{inner} levels that are dropped"
        );
    }
}

/// Removes `ssn` at any depth and `a.b` from the root, on the parsed document.
fn model(value: &mut Value, from_root: &[&str]) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| model(item, from_root)),
        Value::Object(members) => {
            members.remove("ssn");
            if let [last] = from_root {
                members.remove(*last);
            }
            for (name, member) in members.iter_mut() {
                match from_root {
                    [first, rest @ ..] if first == name && !rest.is_empty() => model(member, rest),
                    _ => model(member, &[]),
                }
            }
        }
        _ => {}
    }
}

fn document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-z\"\\\\{},:\u{e9}]{0,24}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        let name = prop_oneof![
            Just("a"),
            Just("b"),
            Just("ssn"),
            Just("s\"n"),
            Just("fifteen letters"),
            Just("seventeen letters")
        ];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((name, inner), 0..4)
                .prop_map(|m| Value::from_iter(m.into_iter().map(|(n, v)| (n.to_owned(), v)))),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn agrees_with_the_model(value in document(), pretty: bool, cut in 1_usize..40) {
        let text = if pretty { serde_json::to_vec_pretty(&value) } else { serde_json::to_vec(&value) }.expect("json");
        let out = strip(&fields(&["**.ssn", "a.b"]), &text, cut);
        let mut wanted = value;
        model(&mut wanted, &["a", "b"]);
        let got: Value = serde_json::from_slice(&out)
            .map_err(|e| TestCaseError::fail(format!("{e}: {}", String::from_utf8_lossy(&out))))?;
        prop_assert_eq!(got, wanted);
    }

    #[test]
    fn where_nothing_is_meant_nothing_changes(text in "[a-z{}\\[\\],:\" \\\\]{0,120}", cut in 1_usize..40) {
        prop_assert_eq!(strip(&fields(&["zz.zz"]), text.as_bytes(), cut), text.into_bytes());
    }

    #[test]
    fn cutting_changes_nothing(text in "([asn{}\\[\\],:\" \\\\]|\"ssn\"|\"a\":){0,60}", cut in 1_usize..40) {
        let fields = fields(&["**.ssn", "a"]);
        prop_assert_eq!(strip(&fields, text.as_bytes(), cut), strip(&fields, text.as_bytes(), text.len()));
    }
}
