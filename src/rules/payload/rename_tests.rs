//! The renames, compared with a model that parses the whole document, and with input cut at every byte.

use super::super::scan::Editor;
use super::super::step::Step;
use super::*;
use proptest::prelude::*;
use serde_json::Value;

fn renames(pairs: &[(&str, &str)]) -> Result<Renames, String> {
    let pairs: Vec<_> = pairs.iter().map(|(path, name)| (path.parse().expect("a path"), *name)).collect();
    Renames::new(&pairs)
}

fn rename(renames: &Renames, text: &[u8], cut: usize) -> Vec<u8> {
    let (mut editor, mut out) = (Editor::new(renames), Vec::new());
    for part in text.chunks(cut) {
        editor.push(part, false, &mut out).expect("shallow");
    }
    editor.push(b"", true, &mut out).expect("nothing more");
    out
}

#[track_caller]
fn becomes(pairs: &[(&str, &str)], given: &str, wanted: &str) {
    let renames = renames(pairs).expect("renames");
    for cut in 1..=given.len() {
        let out = rename(&renames, given.as_bytes(), cut);
        assert_eq!(String::from_utf8_lossy(&out), wanted, "{given} cut at {cut}");
    }
}

#[test]
fn by_example() {
    becomes(&[("a", "b")], r#"{"a":1,"c":{"a":2}}"#, r#"{"b":1,"c":{"a":2}}"#);
    becomes(&[("**.a", "b")], r#"{"a":{"a":[{"x":1,"a":2}]},"ab":3}"#, r#"{"b":{"b":[{"x":1,"b":2}]},"ab":3}"#);
    becomes(&[("a.b", "c")], r#"{"a":{"b":1},"b":2}"#, r#"{"a":{"c":1},"b":2}"#);
    becomes(&[("a", "x"), ("a.b", "y")], r#"{"a":{"b":1}}"#, r#"{"x":{"y":1}}"#);
    becomes(
        &[("items.*.id", "key")],
        r#"{"items":[{"id":1},{"id":2}],"id":3}"#,
        r#"{"items":[{"key":1},{"key":2}],"id":3}"#,
    );
    becomes(&[("a", "b"), ("**.a", "c")], r#"{"a":{"a":1}}"#, r#"{"b":{"c":1}}"#);
    becomes(&[("a", "b"), ("b", "a")], r#"{"a":1,"b":2}"#, r#"{"b":1,"a":2}"#);
    becomes(&[("a", "b")], "{ \"a\" : 1e2 ,\r\n\t\"z\":[ ] }", "{ \"b\" : 1e2 ,\r\n\t\"z\":[ ] }");
}

#[test]
fn names_as_they_are_written() {
    becomes(&[("ssn", "n")], r#"{"s\u0073n":1,"\u0073\u0073\u006e":2,"ssn":3}"#, r#"{"n":1,"n":2,"n":3}"#);
    becomes(&[("a", "say \"\\hi\"\n")], r#"{"a":1}"#, r#"{"say \"\\hi\"\u000a":1}"#);
    becomes(&[("a", "\u{e9}\u{1f600}")], r#"{"a":1}"#, r#"{"\u00e9\ud83d\ude00":1}"#);
    becomes(&[("\u{e9}", "e")], "{\"\u{e9}\":1,\"\\u00e9\":2}", r#"{"e":1,"e":2}"#);
    let long = format!(r#"{{"{}":{{"a":1}}}}"#, "n".repeat(400));
    becomes(&[("a", "b")], &long, &long);
    becomes(&[("**.a", "b")], &long, &long.replace("\"a\"", "\"b\""));
    becomes(&[("a", "")], r#"{"a":1}"#, r#"{"":1}"#);
}

#[test]
fn what_is_no_json() {
    for text in ["", "a, \"a\"", "<a href=\"a\">", "\"a\":1", "{\"ab"] {
        becomes(&[("a", "b")], text, text);
    }
    becomes(&[("a", "b")], r#"{"a" "x","a"}"#, r#"{"b" "x","b"}"#);
    becomes(&[("a", "b")], r#"{"x":1 "a":2,,"a":3}"#, r#"{"x":1 "a":2,,"b":3}"#);
}

#[test]
fn one_name_for_many_is_rejected() {
    assert!(renames(&[("a.*", "b")]).is_err());
    assert!(renames(&[("a.*.c", "b")]).is_ok());
    let long = vec!["a"; 32].join(".");
    let five = [(long.as_str(), "b"); 5];
    assert!(renames(&five[..4]).is_ok());
    assert!(renames(&five).is_err());
}

/// Renames `a` to `z` at any depth and `b.c` to `y` from the root, on the parsed document, member by member, so that
/// the order is kept.
fn model(value: &Value, at_root: bool, in_b: bool, out: &mut String) {
    match value {
        Value::Array(items) => {
            out.push('[');
            for (place, item) in items.iter().enumerate() {
                out.push_str(if place > 0 { "," } else { "" });
                model(item, at_root, in_b, out);
            }
            out.push(']');
        }
        Value::Object(members) => {
            out.push('{');
            for (place, (name, member)) in members.iter().enumerate() {
                let renamed = match name.as_str() {
                    "a" => "z",
                    "c" if in_b => "y",
                    other => other,
                };
                out.push_str(if place > 0 { "," } else { "" });
                out.push_str(&Value::from(renamed).to_string());
                out.push(':');
                model(member, false, at_root && name == "b", out);
            }
            out.push('}');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

fn document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<i32>().prop_map(Value::from),
        "[a-c\"\\\\{},:]{0,12}".prop_map(Value::from)
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn agrees_with_the_model(value in document(), cut in 1_usize..40) {
        let mut wanted = String::new();
        model(&value, true, false, &mut wanted);
        let out = rename(&renames(&[("**.a", "z"), ("b.c", "y")]).expect("renames"), value.to_string().as_bytes(), cut);
        prop_assert_eq!(String::from_utf8_lossy(&out), wanted);
    }

    #[test]
    fn cutting_changes_nothing(text in "([acz{}\\[\\],:\" \\\\]|\"a\"|\"b\":){0,60}", cut in 1_usize..40) {
        let renames = renames(&[("**.a", "zz"), ("b", "")]).expect("renames");
        prop_assert_eq!(rename(&renames, text.as_bytes(), cut), rename(&renames, text.as_bytes(), text.len().max(1)));
    }

    /// Renames back and forth, which restores every byte, white space and number formats included.
    #[test]
    fn back_and_forth(value in document(), pretty: bool, cut in 1_usize..40) {
        let write = if pretty { serde_json::to_string_pretty } else { serde_json::to_string };
        let text = write(&value).expect("json");
        let there = rename(&renames(&[("**.a", "q")]).expect("renames"), text.as_bytes(), cut);
        let back = rename(&renames(&[("**.q", "a")]).expect("renames"), &there, cut);
        prop_assert_eq!(String::from_utf8_lossy(&back), text);
    }
}
