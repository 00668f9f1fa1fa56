//! The masks, compared with a model that parses the whole document, and with input cut at every byte.

use super::super::scan::{Editor, MAX_DEPTH};
use super::super::step::{Opaque, Step};
use super::*;
use proptest::prelude::*;
use serde_json::Value;

fn masks(pairs: &[(&str, usize)]) -> Masks {
    let mask = |keep| MaskText::of_text("***", keep).expect("a mask");
    let pairs: Vec<_> = pairs.iter().map(|(path, keep)| (path.parse().expect("a path"), mask(*keep))).collect();
    Masks::new(&pairs).expect("few steps")
}

fn mask(masks: &Masks, text: &[u8], cut: usize) -> Vec<u8> {
    let (mut editor, mut out) = (Editor::new(masks), Vec::new());
    for part in text.chunks(cut) {
        editor.push(part, false, &mut out).expect("shallow");
    }
    editor.push(b"", true, &mut out).expect("nothing more");
    out
}

#[track_caller]
fn becomes(pairs: &[(&str, usize)], given: &str, wanted: &str) {
    let masks = masks(pairs);
    for cut in 1..=given.len() {
        let out = mask(&masks, given.as_bytes(), cut);
        assert_eq!(String::from_utf8_lossy(&out), wanted, "{given} cut at {cut}");
    }
}

#[test]
fn values_of_all_kinds() {
    becomes(&[("a", 0)], r#"{"a":"secret","b":"x"}"#, r#"{"a":"***","b":"x"}"#);
    for value in ["1", "-1.5e7", "true", "null", "[1,[2,\"]\"],{}]", r#"{"a":{"b":"}"}}"#, "\"\"", r#""\"""#] {
        becomes(&[("a", 0)], &format!(r#"{{"a":{value}}}"#), r#"{"a":"***"}"#);
        becomes(
            &[("a", 0)],
            &format!("{{\"x\":1, \"a\" : {value} \n, \"b\":2 }}"),
            "{\"x\":1, \"a\" : \"***\" \n, \"b\":2 }",
        );
    }
    becomes(&[("**.a", 0)], r#"{"a":{"a":1},"b":[{"a":2,"c":3}]}"#, r#"{"a":"***","b":[{"a":"***","c":3}]}"#);
    becomes(&[("a.*", 0)], r#"{"a":{"x":1,"y":[2]},"x":3}"#, r#"{"a":{"x":"***","y":"***"},"x":3}"#);
    becomes(&[("a", 0)], r#"{"a":1,"a":2}"#, r#"{"a":"***","a":"***"}"#);
    becomes(&[("ssn", 0)], r#"{"s\u0073n":1}"#, r#"{"s\u0073n":"***"}"#);
    let long = format!(r#"{{"s":{{"{}":"SECRET" ,"x":2}},"k":1}}"#, "n".repeat(60));
    becomes(&[("s.*", 0)], &long, &long.replace("\"SECRET\"", "\"***\"").replace('2', "\"***\""));
}

#[test]
fn the_last_characters_are_kept() {
    becomes(&[("a", 4)], r#"{"a":"4111111111111234"}"#, r#"{"a":"***1234"}"#);
    becomes(&[("a", 4)], r#"{"a": 4111111111111234 , "b":1}"#, r#"{"a": "***1234" , "b":1}"#);
    becomes(&[("a", 4)], r#"{"a":"12345678"}"#, r#"{"a":"***5678"}"#);
    becomes(&[("a", 4)], r#"{"a":"1234567","b":1}"#, r#"{"a":"***","b":1}"#);
    becomes(&[("a", 4)], r#"{"a":"1234"}"#, r#"{"a":"***"}"#);
    becomes(
        &[("a", 1)],
        r#"{"a":true,"a":null,"a":[12345],"a":{"x":"12345"}}"#,
        r#"{"a":"***","a":"***","a":"***","a":"***"}"#,
    );
    becomes(
        &[("a", 0), ("**.a", 4)],
        r#"{"a":"1234567890","b":{"a":"1234567890"}}"#,
        r#"{"a":"***","b":{"a":"***7890"}}"#,
    );
}

#[test]
fn a_character_is_kept_whole() {
    becomes(&[("a", 2)], "{\"a\":\"xxxx\u{e9}\u{1f600}\"}", "{\"a\":\"***\u{e9}\u{1f600}\"}");
    becomes(&[("a", 2)], r#"{"a":"xxxx\u00e9\""}"#, r#"{"a":"***\u00e9\""}"#);
    becomes(&[("a", 2)], r#"{"a":"xxxx\ud83d\ude00\uD83D\uDE00"}"#, r#"{"a":"***\ud83d\ude00\uD83D\uDE00"}"#);
    becomes(&[("a", 2)], r#"{"a":"xxxx\ud83d\ude00y"}"#, r#"{"a":"***\ud83d\ude00y"}"#);
    // Three characters are too few.
    becomes(&[("a", 2)], r#"{"a":"x\ud83d\ude00y"}"#, r#"{"a":"***"}"#);
    // Halves without their other half, and a truncated escape, are characters of their own.
    becomes(&[("a", 2)], r#"{"a":"xxxx\ude00\ud83d"}"#, r#"{"a":"***\ude00\ud83d"}"#);
    becomes(&[("a", 2)], r#"{"a":"xxxx\\\\"}"#, r#"{"a":"***\\\\"}"#);
    becomes(&[("a", 3)], r#"{"a":"xxxxx\u12"}"#, r#"{"a":"***xx\u12"}"#);
    let latin = b"{\"a\":\"xxxx\xe9\xe8\"}";
    for cut in 1..=latin.len() {
        assert_eq!(mask(&masks(&[("a", 2)]), latin, cut), b"{\"a\":\"***\xe9\xe8\"}");
        assert_eq!(mask(&masks(&[("a", 1)]), b"{\"a\":\"\x80\x80\x80\x80\"}", cut), b"{\"a\":\"***\x80\"}");
    }
}

#[test]
fn what_is_no_value_is_masked_whole() {
    becomes(&[("a", 2)], r#"{"a" "secret","b":1}"#, r#"{"a" "***et","b":1}"#);
    becomes(&[("a", 2)], r#"{"a":"secret" "more","b":1}"#, r#"{"a":"***","b":1}"#);
    becomes(&[("a", 2)], r#"{"a":12345 "more" ,"b":1}"#, r#"{"a":"***" ,"b":1}"#);
    becomes(&[("a", 2)], r#"{"a":secret,"b":1}"#, r#"{"a":"***","b":1}"#);
    becomes(&[("a", 2)], r#"{"a":12345:"secret"}"#, r#"{"a":"***"}"#);
    becomes(&[("a", 2)], r#"{"a","b":1}"#, r#"{"a","b":1}"#);
    becomes(&[("a", 2)], r#"{"a": ,"b":1}"#, r#"{"a": ,"b":1}"#);
    becomes(&[("a", 2)], r#"{"a":"secret"#, r#"{"a":"#);
    becomes(&[("a", 2)], r#"{"a":{"x":[1,2},"k":3},"l":4}"#, r#"{"a":"***","l":4}"#);
    for text in ["", "a, \"a\"", "<a href=\"a\">", "\"a\":1", "{\"ab"] {
        becomes(&[("a", 2)], text, text);
    }
}

#[test]
fn masks_of_other_texts() {
    let text = MaskText::of_text("\u{2022}\"", 2).expect("a mask");
    let odd = Masks::new(&[("a".parse().expect("a path"), text)]).expect("few steps");
    assert_eq!(mask(&odd, br#"{"a":1234567}"#, 3), br#"{"a":"\u2022\"67"}"#);
    assert!(MaskText::of_text("*", MaskText::MAX_KEPT).is_ok());
    assert!(MaskText::of_text("*", MaskText::MAX_KEPT + 1).is_err());
}

#[test]
fn depth_and_space_are_bounded() {
    for (inner, wanted) in [(MAX_DEPTH - 1, Ok(())), (MAX_DEPTH, Err(Opaque::TooDeep))] {
        let deep = format!(r#"{{"a":{}}}"#, "[".repeat(inner) + &"]".repeat(inner));
        assert_eq!(Editor::new(&masks(&[("a", 2)])).push(deep.as_bytes(), true, &mut Vec::new()), wanted, "{inner}");
    }
    let wide = format!(r#"{{"a":1{}}}"#, " ".repeat(3 * MAX_MASKED_SPACE));
    for cut in [100, MAX_MASKED_SPACE - 1, 2 * MAX_MASKED_SPACE, wide.len()] {
        let out = mask(&masks(&[("a", 2)]), wide.as_bytes(), cut);
        assert_eq!(out.len(), r#"{"a":"***"}"#.len() + MAX_MASKED_SPACE, "cut at {cut}");
    }
}

/// Masks `a` at any depth, and `b.c` except for its last two characters, on the parsed document.
fn model(value: &mut Value, at_root: bool, in_b: bool) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| model(item, at_root, in_b)),
        Value::Object(members) => {
            for (name, member) in members.iter_mut() {
                if name == "a" {
                    *member = Value::from("***");
                } else if name == "c" && in_b {
                    let text = match &*member {
                        Value::String(text) => text.clone(),
                        Value::Number(number) => number.to_string(),
                        _ => String::new(),
                    };
                    let length = text.chars().count();
                    let kept: String = if length < 4 { String::new() } else { text.chars().skip(length - 2).collect() };
                    *member = Value::from(format!("***{kept}"));
                } else {
                    model(member, false, at_root && name == "b");
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
        "[a-c\"\\\\{},:\n\u{e9}\u{1f600}]{0,12}".prop_map(Value::from)
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        let name = prop_oneof![Just("a"), Just("b"), Just("c"), Just("a\"b"), Just("eighteen letters..")];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((name, inner), 0..4)
                .prop_map(|m| Value::from_iter(m.into_iter().map(|(n, v)| (n.to_owned(), v)))),
        ]
    })
}

/// Returns the document with every character of a string escaped, which JSON allows.
fn in_escapes(value: &Value) -> String {
    match value {
        Value::String(text) => {
            format!("\"{}\"", text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect::<String>())
        }
        Value::Array(items) => format!("[{}]", items.iter().map(in_escapes).collect::<Vec<_>>().join(",")),
        Value::Object(members) => {
            let members: Vec<_> = members
                .iter()
                .map(|(n, v)| format!("{}:{}", in_escapes(&Value::from(n.as_str())), in_escapes(v)))
                .collect();
            format!("{{{}}}", members.join(","))
        }
        other => other.to_string(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn agrees_with_the_model(value in document(), form in 0..3, cut in 1_usize..40) {
        let text = match form {
            0 => serde_json::to_string(&value).expect("json"),
            1 => serde_json::to_string_pretty(&value).expect("json"),
            _ => in_escapes(&value),
        };
        let out = mask(&masks(&[("**.a", 0), ("b.c", 2)]), text.as_bytes(), cut);
        let mut wanted = value;
        model(&mut wanted, true, false);
        let got: Value = serde_json::from_slice(&out)
            .map_err(|e| TestCaseError::fail(format!("{e}: {}", String::from_utf8_lossy(&out))))?;
        prop_assert_eq!(&got, &wanted);
        if form == 1 {
            // Every byte outside of the masks is unchanged.
            prop_assert_eq!(String::from_utf8_lossy(&out), serde_json::to_string_pretty(&wanted).expect("json"));
        }
    }

    #[test]
    fn cutting_changes_nothing(text in "([ac1{}\\[\\],:\" \\\\]|\"a\":|\"b\"){0,60}", cut in 1_usize..40) {
        let masks = masks(&[("**.a", 1), ("b", 0)]);
        prop_assert_eq!(mask(&masks, text.as_bytes(), cut), mask(&masks, text.as_bytes(), text.len().max(1)));
    }

    /// Masks a value in malformed text, of which nothing may pass.
    #[test]
    fn nothing_of_the_value_passes(lead in "[: \n1x]{0,6}", behind in "[{}\\[\\]:, \"x]{0,12}", cut in 1_usize..40) {
        let text = format!("{{\"k\":1,\"a\"{lead}\"SECRET\"{behind}");
        let out = mask(&masks(&[("a", 3)]), text.as_bytes(), cut);
        let leaked = String::from_utf8_lossy(&out).contains("SECR");
        prop_assert!(!leaked, "{}", String::from_utf8_lossy(&out));
    }
}
