//! Values that are set and added, by example and compared with a model on parsed documents.

use super::super::document::tests::{Tree, edited, json_text, tree};
use super::*;
use proptest::prelude::*;

fn set(pairs: &[(&str, &str)], only_missing: bool) -> SetValues {
    let paths: Vec<_> = pairs.iter().map(|(path, _)| path.parse().expect("a path")).collect();
    let values = pairs.iter().map(|(_, value)| Some(Bytes::copy_from_slice(value.as_bytes()))).collect();
    SetValues::new(Arc::new(SetPaths::new(&paths, only_missing).expect("few steps")), values)
}

#[track_caller]
fn becomes(pairs: &[(&str, &str)], only_missing: bool, given: &str, wanted: &str) {
    let values = set(pairs, only_missing);
    for cut in 1..=given.len() {
        let out = edited(&values, given.as_bytes(), cut);
        assert_eq!(String::from_utf8_lossy(&out), wanted, "{given} cut at {cut}");
    }
}

#[test]
fn members_are_replaced_or_added_at_the_end() {
    becomes(&[("a", "1")], false, r#"{"a": [2,{"a":3}] ,"b":4}"#, r#"{"a": 1 ,"b":4}"#);
    becomes(&[("a", "1")], false, r#"{"b":4}"#, r#"{"b":4,"a":1}"#);
    becomes(&[("a", "1")], false, "{ }", r#"{ "a":1}"#);
    becomes(&[("/a/b", "1"), ("/a/c", "2")], false, "{}", r#"{"a":{"b":1,"c":2}}"#);
    becomes(&[("/a/b", "1"), ("/a/c", "2")], false, r#"{"a":{"c":0},"x":1}"#, r#"{"a":{"c":2,"b":1},"x":1}"#);
    becomes(&[("/a/b", "1")], false, r#"{"a":3}"#, r#"{"a":3}"#);
    becomes(&[("a.b", "1")], false, r#"[{"a":{}},{"x":2}]"#, r#"[{"a":{"b":1}},{"x":2,"a":{"b":1}}]"#);
    becomes(&[("/a", "1")], false, r#"[{"a":2}]"#, r#"[{"a":2}]"#);
    becomes(&[("items[].x", "1")], false, r#"{"items":[{},{"x":2},3]}"#, r#"{"items":[{"x":1},{"x":1},3]}"#);
    becomes(&[("$..x", "1")], false, r#"{"x":{"x":2},"y":[{"x":3}],"z":{}}"#, r#"{"x":1,"y":[{"x":1}],"z":{}}"#);
    becomes(&[("/a/0", "9")], false, r#"{"a":[1,2]}"#, r#"{"a":[9,2]}"#);
    becomes(&[("/a/0", "9")], false, r#"{"a":[ ]}"#, r#"{"a":[ ]}"#);
    becomes(&[("/a/5", "9")], false, r#"{"a":[1]}"#, r#"{"a":[1]}"#);
    becomes(&[("a", "1")], false, r#"{"\u0061":2,"a":3}"#, r#"{"\u0061":1,"a":1}"#);
    becomes(&[("a\"\u{e9}", "1")], false, "{}", r#"{"a\"\u00e9":1}"#);
    becomes(&[("a", "1")], false, r#""text""#, r#""text""#);
    becomes(&[("a", "1")], false, r#"{"x":{}}"#, r#"{"x":{},"a":1}"#);
    becomes(&[("x.*.a", "1")], false, r#"{"x":{"p":{},"q":2}}"#, r#"{"x":{"p":{"a":1},"q":2}}"#);
}

#[test]
fn members_that_are_there_stay() {
    becomes(&[("a", "1"), ("b", "2")], true, r#"{"a":[0]}"#, r#"{"a":[0],"b":2}"#);
    becomes(&[("/a/b", "1")], true, r#"{"a":{"b":null}}"#, r#"{"a":{"b":null}}"#);
    becomes(&[("/a/b", "1")], true, r#"{"a":{}}"#, r#"{"a":{"b":1}}"#);
}

#[test]
fn a_path_without_a_value_changes_nothing() {
    let paths = ["/a/b".parse().expect("a path"), "/c".parse().expect("a path")];
    let paths = Arc::new(SetPaths::new(&paths, false).expect("few steps"));
    let values = SetValues::new(paths, vec![None, Some(Bytes::from_static(b"1"))]);
    assert_eq!(edited(&values, br#"{"x":1}"#, 3), br#"{"x":1,"c":1}"#);
    assert_eq!(edited(&values, br#"{"a":{"b":2}}"#, 3), br#"{"a":{"b":2},"c":1}"#);
}

/// Sets `/a/b` and adds what is missing, on a tree.
fn model(document: &Tree, only_missing: bool) -> Tree {
    let value = Tree::Scalar("[7]".to_owned());
    let Tree::Members(mut members) = document.clone() else { return document.clone() };
    let is = |name: &'static str| move |(known, _): &&mut (String, Tree)| known == name;
    let mut found = false;
    for (_, inner) in members.iter_mut().filter(is("a")) {
        found = true;
        let Tree::Members(inner) = inner else { continue };
        let mut known = inner.iter_mut().filter(is("b")).peekable();
        if known.peek().is_none() {
            drop(known);
            inner.push(("b".to_owned(), value.clone()));
        } else if !only_missing {
            known.for_each(|(_, old)| *old = value.clone());
        }
    }
    if !found {
        members.push(("a".to_owned(), Tree::Members(vec![("b".to_owned(), value)])));
    }
    Tree::Members(members)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]
    #[test]
    fn agrees_with_the_model(text in json_text(), only_missing: bool, cut in 1_usize..60) {
        let values = set(&[("/a/b", "[7]")], only_missing);
        let once = edited(&values, text.as_bytes(), cut);
        let shown = String::from_utf8(once.clone()).expect("UTF-8");
        let wanted = tree(&super::super::document::tests::written(&model(&tree(&text), only_missing)));
        prop_assert_eq!(tree(&shown), wanted, "{} becomes {}", text, shown);
        prop_assert_eq!(edited(&values, &once, cut), once);
    }
}
