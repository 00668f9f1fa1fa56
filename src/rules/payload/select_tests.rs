//! The selector, compared with a model that has the whole document, and with input cut at every byte.

use proptest::prelude::*;
use serde_json::Value;

use super::super::selection::SelectionLimits;
use super::*;

fn selection(text: &str) -> Arc<Selection> {
    Arc::new(Selection::parse(text, SelectionLimits::MOST).expect("an expression"))
}

fn select(selection: &Arc<Selection>, text: &[u8], cut: usize) -> Result<String, Opaque> {
    let (mut selector, mut out) = (Selector::new(Arc::clone(selection)), Vec::new());
    for part in text.chunks(cut.max(1)) {
        selector.push(part, false, &mut out)?;
    }
    selector.push(b"", true, &mut out)?;
    Ok(String::from_utf8(out).expect("UTF-8"))
}

#[track_caller]
fn becomes(fields: &str, given: &str, wanted: &str) {
    let selection = selection(fields);
    for cut in 1..=given.len() {
        assert_eq!(select(&selection, given.as_bytes(), cut).as_deref(), Ok(wanted), "{given} cut at {cut}");
    }
}

#[test]
fn by_example() {
    becomes("id", r#"{"id":1,"ssn":"x"}"#, r#"{"id":1}"#);
    becomes("id", r#"{"ssn":"x","id":1,"b":2}"#, r#"{"id":1}"#);
    becomes("id", r#"[{"id":1,"a":2},{"a":3},{"a":4,"id":{"x":[]}}]"#, r#"[{"id":1},{},{"id":{"x":[]}}]"#);
    becomes("a(b,c)", r#"{"a":{"b":1,"x":2,"c":3},"b":4}"#, r#"{"a":{"b":1,"c":3}}"#);
    becomes("a.b", r#"{"a":[{"b":1,"c":2},{"b":[{"c":3}]}]}"#, r#"{"a":[{"b":1},{"b":[{"c":3}]}]}"#);
    becomes("items.*.id", r#"{"items":[{"id":1,"x":2}],"id":3}"#, r#"{"items":[{"id":1}]}"#);
    becomes("items.*.id", r#"{"items":{"k":{"id":1,"x":2}}}"#, r#"{"items":{"k":{"id":1}}}"#);
    becomes("*.id", r#"{"a":{"id":1,"x":2},"b":{"id":3}}"#, r#"{"a":{"id":1},"b":{"id":3}}"#);
    becomes("*.id,a.x", r#"{"a":{"id":1,"x":2},"b":{"x":3}}"#, r#"{"a":{"id":1,"x":2},"b":{}}"#);
    becomes("*", r#"{"a":1} "#, r#"{"a":1} "#);
    becomes("x", r#"{"a":1,"b":[{"x":1}]}"#, "{}");
    becomes("a", "[]", "[]");
    becomes("a", "[[],[[{\"b\":1}]]]", "[[],[[{}]]]");
}

#[test]
fn every_byte_of_what_is_kept_stays() {
    becomes("a,b", r#"{"a":1.00e+07,"x":0,"b":-0}"#, r#"{"a":1.00e+07,"b":-0}"#);
    becomes("a", r#"{"a":1,"\u0061":2,"a":3}"#, r#"{"a":1,"\u0061":2,"a":3}"#);
    becomes("a", r#"{"x":"\"}]","a":"\\\"","y":["{",{"a":1}]}"#, r#"{"a":"\\\""}"#);
    becomes("a.b", "{ \"x\" : 1 ,\n \"a\" : { \"b\" : [ ] } }", "{\n \"a\" : { \"b\" : [ ] } }");
    becomes("a", "{\"x\":1}\n{\"a\":1}\n", "{}\n{\"a\":1}\n");
    becomes("é", "{\"\u{e9}\":1,\"\\u00e9\":2,\"e\":3}", "{\"\u{e9}\":1,\"\\u00e9\":2}");
}

#[test]
fn values_without_members() {
    becomes("a.b", r#"{"a":"secret","c":1}"#, "{}");
    becomes("a.b", r#"{"a":null}"#, r#"{"a":null}"#);
    becomes("a.b", r#"{"a":[1,null,"x",{"b":2},true]}"#, r#"{"a":[null,{"b":2}]}"#);
    for (scalar, wanted) in [("\"text \\\" \"", "null"), ("12e3", "null"), ("true ", "null "), ("null", "null")] {
        becomes("a", scalar, wanted);
    }
    becomes("a", "1 \"a\" {\"a\":1}", "null null {\"a\":1}");
}

#[test]
fn long_names() {
    let long = "n".repeat(MAX_NAME);
    becomes_once("*.a", &format!(r#"{{"{long}":{{"a":1}},"b":{{"a":2}}}}"#), r#"{"b":{"a":2}}"#);
    becomes_once("a", &format!(r#"{{"{long}\"":{{"a":1}},"a":2}}"#), r#"{"a":2}"#);
    let space = " ".repeat(3 * MAX_HELD);
    let given = format!(r#"{{{space}"k  k"{space}:{space}{{{space}"a"{space}:1}}}}"#);
    let out = select(&selection("*.a"), given.as_bytes(), 1_000).expect("JSON");
    assert!(out.len() < given.len() && out.contains(r#""k  k""#), "excessive white space is dropped");
    assert_eq!(
        serde_json::from_str::<Value>(&out).expect("JSON"),
        serde_json::from_str::<Value>(&given).expect("JSON")
    );
    let mut selector = Selector::new(selection("*.a"));
    selector.push(b"{", false, &mut Vec::new()).expect("JSON");
    for _ in 0..1_000 {
        selector.push(space.as_bytes(), false, &mut Vec::new()).expect("JSON");
        assert!(selector.held.len() <= MAX_HELD);
    }
}

#[track_caller]
fn becomes_once(fields: &str, given: &str, wanted: &str) {
    for cut in [1, 2, 3, 1_000, given.len()] {
        assert_eq!(select(&selection(fields), given.as_bytes(), cut).as_deref(), Ok(wanted), "cut at {cut}");
    }
}

#[test]
fn what_is_not_json_is_rejected() {
    for text in ["<a>", "{a:1}", "{\"a\" 1}", "{\"a\":{} {}", "{\"a\":[}", "[,]", "}", "{\"a\":{\"b\":1}]", "{'a':1}"] {
        let outcome = select(&selection("a.b,c"), text.as_bytes(), 1);
        assert!(outcome == Err(Opaque::NotJson), "{text}: {outcome:?}");
    }
    let wide: Vec<u8> = r#"{"a":1}"#.encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(select(&selection("a"), &wide, 1), Err(Opaque::NotJson));
    // What is not kept never comes through, whatever follows.
    becomes("a", r#"{"a":1,"secr"#, r#"{"a":1"#);
}

#[test]
fn depth_is_bounded() {
    let list = "[".repeat(MAX_DEPTH);
    assert!(select(&selection("a"), list.as_bytes(), 100).is_ok());
    for text in [format!("{list}["), format!("{{\"a\":{list}"), format!("{{\"x\":{list}")] {
        assert_eq!(select(&selection("a"), text.as_bytes(), 100), Err(Opaque::TooDeep));
    }
}

/// A document as it is written.
#[derive(Clone, Debug)]
enum Document {
    Scalar(String),
    List(Vec<Self>),
    /// Names as they are written, and as they are meant.
    Object(Vec<(&'static str, &'static str, Self)>),
}

impl Document {
    fn write(&self, out: &mut String) {
        match self {
            Self::Scalar(text) => out.push_str(text),
            Self::List(items) => {
                out.push('[');
                for (at, item) in items.iter().enumerate() {
                    out.push_str(if at > 0 { "," } else { "" });
                    item.write(out);
                }
                out.push(']');
            }
            Self::Object(members) => {
                out.push('{');
                for (at, (raw, _, member)) in members.iter().enumerate() {
                    out.push_str(if at > 0 { "," } else { "" });
                    out.push_str(&format!("\"{raw}\":"));
                    member.write(out);
                }
                out.push('}');
            }
        }
    }

    fn text(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    /// Returns what is kept of the value by paths of names, an empty one of which keeps all.
    fn kept(&self, paths: &[&[&str]]) -> Option<Self> {
        if paths.iter().any(|path| path.iter().all(|name| *name == "*")) {
            return Some(self.clone());
        }
        match self {
            Self::Scalar(text) => (text == "null").then(|| self.clone()),
            Self::List(items) => {
                let beyond = paths.iter().filter(|path| path[0] == "*").map(|path| &path[1..]);
                let paths: Vec<&[&str]> = paths.iter().copied().chain(beyond).collect();
                Some(Self::List(items.iter().filter_map(|item| item.kept(&paths)).collect()))
            }
            Self::Object(members) => {
                let kept = members.iter().filter_map(|(raw, name, member)| {
                    let is_here = |path: &&&[&str]| path[0] == "*" || path[0] == *name;
                    let below: Vec<&[&str]> = paths.iter().filter(is_here).map(|path| &path[1..]).collect();
                    (!below.is_empty()).then(|| member.kept(&below)).flatten().map(|member| (*raw, *name, member))
                });
                Some(Self::Object(kept.collect()))
            }
        }
    }
}

fn document() -> impl Strategy<Value = Document> {
    let scalar = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        "-?(0|[1-9][0-9]{0,25})(\\.[0-9]{1,3})?([eE][+-]?[0-9]{1,3})?",
        "\"([a-z{}\\[\\],: é]|\\\\[\"\\\\nu/]|\\\\u00e9){0,12}\"".prop_map(|text| text.replace("\\u", "\\u0041")),
    ];
    scalar.prop_map(Document::Scalar).prop_recursive(5, 60, 6, |inner| {
        let name = prop_oneof![
            Just(("a", "a")),
            Just(("b", "b")),
            Just(("\\u0061", "a")),
            Just(("c\\\"", "c\"")),
            Just(("a name of some length", "a name of some length"))
        ];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Document::List),
            proptest::collection::vec((name, inner), 0..5)
                .prop_map(|list| Document::Object(list.into_iter().map(|((raw, name), v)| (raw, name, v)).collect())),
        ]
    })
}

/// Returns the paths that end here, each of names from the root.
fn paths() -> impl Strategy<Value = Vec<Vec<&'static str>>> {
    let rare = prop_oneof![Just("c\""), Just("a name of some length")];
    let name = prop_oneof![4 => Just("a"), 4 => Just("b"), 2 => rare, 2 => Just("*")];
    proptest::collection::vec(proptest::collection::vec(name, 1..5), 1..5)
}

/// Removes the white space outside of texts.
fn dense(text: &str) -> String {
    let (mut inside, mut escaped) = (false, false);
    text.chars()
        .filter(|c| {
            let was_inside = inside;
            inside ^= *c == '"' && !escaped;
            escaped = was_inside && *c == '\\' && !escaped;
            was_inside || !c.is_whitespace()
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]
    #[test]
    fn agrees_with_the_model(document in document(), paths in paths(), cut in 1_usize..40) {
        let text = document.text();
        let expression: Vec<String> = paths.iter().map(|path| path.join(".")).collect();
        let out = select(&selection(&expression.join(",")), text.as_bytes(), cut).expect("JSON");
        let paths: Vec<&[&str]> = paths.iter().map(Vec::as_slice).collect();
        let wanted = document.kept(&paths).map_or_else(|| "null".to_owned(), |kept| kept.text());
        prop_assert_eq!(out, wanted);
    }

    #[test]
    fn white_space_changes_nothing(document in document(), paths in paths(), cut in 1_usize..40) {
        let text = document.text();
        let mut spaced = String::new();
        let (mut inside, mut escaped) = (false, false);
        for c in text.chars() {
            let structural = !inside && "{}[],:".contains(c);
            inside ^= c == '"' && !escaped;
            escaped = inside && c == '\\' && !escaped;
            spaced.push_str(if structural { " \t" } else { "" });
            spaced.push(c);
            spaced.push_str(if structural { "\n " } else { "" });
        }
        let expression: Vec<String> = paths.iter().map(|path| path.join(".")).collect();
        let selection = selection(&expression.join(","));
        let out = select(&selection, spaced.as_bytes(), cut).expect("JSON");
        prop_assert_eq!(dense(&out), select(&selection, text.as_bytes(), cut).expect("JSON"));
    }

    #[test]
    fn parts_of_any_size_give_the_same(
        text in "([abn1{}\\[\\],:\" \\\\]|\"a\"|\"b\":|null|\\{\"a\":){0,60}",
        cut in 1_usize..40,
    ) {
        let selection = selection("a.b,b");
        prop_assert_eq!(select(&selection, text.as_bytes(), cut), select(&selection, text.as_bytes(), text.len()));
    }

    #[test]
    fn selecting_twice_changes_nothing(document in document(), paths in paths()) {
        let expression: Vec<String> = paths.iter().map(|path| path.join(".")).collect();
        let selection = selection(&expression.join(","));
        let once = select(&selection, document.text().as_bytes(), 7).expect("JSON");
        prop_assert_eq!(select(&selection, once.as_bytes(), 7), Ok(once));
    }
}
