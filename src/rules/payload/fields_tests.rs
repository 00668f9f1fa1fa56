//! The notations of paths, by the members and elements that they remove.

use super::super::{Step, Stripper};
use super::*;

fn path(text: &str) -> FieldPath {
    text.parse().expect("a path")
}

#[track_caller]
fn becomes(paths: &[&str], given: &str, wanted: &str) {
    let paths: Vec<_> = paths.iter().map(|text| path(text)).collect();
    let fields = Fields::new(&paths).expect("few steps");
    for cut in 1..=given.len() {
        let (mut stripper, mut out) = (Stripper::new(&fields), Vec::new());
        for part in given.as_bytes().chunks(cut) {
            stripper.push(part, false, &mut out).expect("shallow");
        }
        stripper.push(b"", true, &mut out).expect("nothing more");
        assert_eq!(String::from_utf8_lossy(&out), wanted, "{given} cut at {cut}");
    }
}

#[test]
fn pointers_name_one_place() {
    becomes(&["/a/b"], r#"{"a":{"b":1,"c":[{"b":2}]},"b":3}"#, r#"{"a":{"c":[{"b":2}]},"b":3}"#);
    becomes(&["/a/b"], r#"{"a":[{"b":1}]}"#, r#"{"a":[{"b":1}]}"#);
    becomes(&["/a/0"], r#"{"a":[1,[2],3],"b":[4]}"#, r#"{"a":[[2],3],"b":[4]}"#);
    becomes(&["/a/1"], r#"{"a":[1, [2,5] ,3]}"#, r#"{"a":[1,3]}"#);
    becomes(&["/a/2"], r#"{"a":[1,{"x":[2]}, 3 ]}"#, r#"{"a":[1,{"x":[2]}]}"#);
    becomes(&["/a/0", "/a/1", "/a/2"], r#"{"a":[1,2,3]}"#, r#"{"a":[]}"#);
    becomes(&["/a/0"], r#"{"a":{"0":1,"1":2}}"#, r#"{"a":{"1":2}}"#);
    becomes(&["/a/01"], r#"{"a":[1,2],"b":{"01":1}}"#, r#"{"a":[1,2],"b":{"01":1}}"#);
    becomes(&["/0/x"], r#"[{"x":1,"y":2},{"x":3}]"#, r#"[{"y":2},{"x":3}]"#);
    becomes(&["/a~1b/c~0d"], r#"{"a/b":{"c~d":1,"e":2}}"#, r#"{"a/b":{"e":2}}"#);
    becomes(&["/a/"], r#"{"a":{"":1,"b":2}}"#, r#"{"a":{"b":2}}"#);
    becomes(&["/a/0/b"], r#"{"a":[[{"b":1}],{"b":2}]}"#, r#"{"a":[[{"b":1}],{"b":2}]}"#);
}

#[test]
fn json_paths_name_arrays_explicitly() {
    becomes(&["$.a.b"], r#"{"a":{"b":1},"x":[{"a":{"b":2}}]}"#, r#"{"a":{},"x":[{"a":{"b":2}}]}"#);
    becomes(&["$..b"], r#"{"b":0,"a":[{"b":1,"c":[[{"b":2}]]}]}"#, r#"{"a":[{"c":[[{}]]}]}"#);
    becomes(&["$.a[*].b"], r#"{"a":[{"b":1},{"b":2,"c":3},[{"b":4}]]}"#, r#"{"a":[{},{"c":3},[{"b":4}]]}"#);
    becomes(&["$.a[1]"], r#"{"a":["]",{"x":"}"},3]}"#, r#"{"a":["]",3]}"#);
    becomes(&["$['a.b']['c']"], r#"{"a.b":{"c":1}}"#, r#"{"a.b":{}}"#);
    becomes(&["$.a.*"], r#"{"a":[1,2],"b":{"a":1}}"#, r#"{"a":[],"b":{"a":1}}"#);
    becomes(&["$..a[0]"], r#"{"a":[1,{"a":[2,3]}]}"#, r#"{"a":[{"a":[3]}]}"#);
    becomes(&["$[0].a"], r#"[{"a":1},{"a":2}]"#, r#"[{},{"a":2}]"#);
    becomes(&["$..[0]"], r#"[[1,2],{"x":[3,4]}]"#, r#"[{"x":[4]}]"#);
}

#[test]
fn brackets_in_names_with_dots() {
    becomes(&["a[].b"], r#"{"a":[{"b":1,"c":2},{"b":3}],"b":4}"#, r#"{"a":[{"c":2},{}],"b":4}"#);
    becomes(&["a[].b"], r#"{"a":{"b":1}}"#, r#"{"a":{"b":1}}"#);
    becomes(&["a[0]"], r#"{"a":[1,2]}"#, r#"{"a":[2]}"#);
    becomes(&["a[]"], r#"{"a":[ 1 , {"b":[2]} ]}"#, r#"{"a":[]}"#);
    becomes(&["**.a[1].b", "c"], r#"{"x":{"a":[{"b":1},{"b":2}]},"c":1}"#, r#"{"x":{"a":[{"b":1},{}]}}"#);
    becomes(&["a[1]"], "[{\"a\":[1,2]},{\"a\":[3]}]", "[{\"a\":[1]},{\"a\":[3]}]");
}

#[test]
fn what_is_no_path_is_rejected() {
    for wrong in [
        "", ".", "a.", ".a", "a..b", "a.**", "**", "$", "$.", "$a", "$..", "a[", "a[x]", "a[0", "a]b", "a[0]b", "/a~2",
        "$.a..", "a.[0]", "a['b]", "a[-1]",
    ] {
        assert!(wrong.parse::<FieldPath>().is_err(), "{wrong}");
    }
    assert!(
        path("/a/0").is_single() && !path("a.*").is_single() && !path("a[]").is_single() && path("a[0]").is_single()
    );
    assert!(path("/a/0").may_end_at_element() && !path("a.b").may_end_at_element());
    assert!(path("/a/b").explicit().is_within(&path("a").explicit()));
}

#[test]
fn values_at_a_place() {
    let text = r#"{"a":[1,{"b":1.50}],"c":{"d":"x","d":"y"},"0":2}"#;
    let document: &RawValue = serde_json::from_str(text).expect("JSON");
    let value = |at: &str| path(at).value_in(document).map(RawValue::get);
    for (at, wanted) in [
        ("/a/1/b", Some("1.50")),
        ("a[1].b", Some("1.50")),
        ("$.c['d']", Some("\"y\"")),
        ("/0", Some("2")),
        ("/a/2", None),
        ("/a/b", None),
        ("/c/d/e", None),
        ("a.*", None),
    ] {
        assert_eq!(value(at), wanted, "{at}");
    }
}
