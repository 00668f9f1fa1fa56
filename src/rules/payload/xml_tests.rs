//! XML and JSON by example, and there and back.

use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

fn to_json(xml: &str) -> Result<Value, String> {
    let json = XmlToJson::default().convert(xml.as_bytes())?;
    Ok(serde_json::from_str(&json).expect("JSON"))
}

fn to_xml(value: &Value) -> Result<String, String> {
    JsonToXml::new(None)?.convert(value.to_string().as_bytes())
}

#[test]
fn documents_become_objects() {
    for (xml, wanted) in [
        ("<a/>", json!({"a": ""})),
        ("<a>x</a>", json!({"a": "x"})),
        ("<a> x </a>", json!({"a": " x "})),
        ("<a>1.50</a>", json!({"a": "1.50"})),
        ("<a b='1' c=\"&lt;&#65;\"/>", json!({"a": {"@b": "1", "@c": "<A"}})),
        ("<a b='1'>x</a>", json!({"a": {"@b": "1", "#text": "x"}})),
        ("<a>\n  <b>1</b>\n  <c/>\n  <b>2</b>\n</a>", json!({"a": {"b": ["1", "2"], "c": ""}})),
        ("<a>x<b/>y</a>", json!({"a": {"#text": "xy", "b": ""}})),
        ("<?xml version='1.0' encoding='UTF-8'?>\n<!-- c --><a><![CDATA[<&]]>&amp;&quot;</a>\n", json!({"a": "<&&\""})),
        ("<s:a xmlns:s='urn:s'><s:b/></s:a>", json!({"s:a": {"@xmlns:s": "urn:s", "s:b": ""}})),
        ("\u{feff}<a/>", json!({"a": ""})),
    ] {
        assert_eq!(to_json(xml), Ok(wanted), "{xml}");
    }
    let paths = ["a.b".parse().expect("a path"), "**.c".parse().expect("a path")];
    let arrays = XmlToJson::new(&paths, true, true).expect("few steps");
    let json = arrays.convert(b"<x:a xmlns:x='u'><b>1</b><d><x:c y='1'/></d><e/></x:a>").expect("XML");
    assert_eq!(json, r#"{"a":{"b":["1"],"d":{"c":[{"@y":"1"}]},"e":null}}"#);
}

#[test]
fn what_is_not_accepted() {
    let deep = format!("{}{}", "<a>".repeat(51), "</a>".repeat(51));
    let wide = format!("<a {}/>", (0..257).map(|n| format!("a{n}='1' ")).collect::<String>());
    for (xml, why) in [
        ("", "no element"),
        ("x", "text outside"),
        ("<a>", "ends within"),
        ("<a></b>", "at byte"),
        ("<a/><b/>", "second root"),
        ("<a/>x", "text outside"),
        ("<!DOCTYPE a [<!ENTITY x 'y'>]><a>&x;</a>", "document type"),
        ("<a>&x;</a>", "unknown entity"),
        ("<a b='1' b='2'/>", "at byte"),
        ("<a b=1/>", "at byte"),
        ("<a>\u{1}</a>", "forbids"),
        ("<a>&#1;</a>", "at byte"),
        ("<?xml version='1.0' encoding='latin1'?><a/>", "another encoding"),
        (deep.as_str(), "nested deeper"),
        (wide.as_str(), "attributes"),
    ] {
        let error = to_json(xml).expect_err(xml);
        assert!(error.contains(why), "{xml}: {error}");
    }
    assert!(XmlToJson::default().convert(b"<a>\xff</a>").is_err());
}

#[test]
fn objects_become_documents() {
    let declaration = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>";
    for (value, wanted) in [
        (
            json!({"a": {"@b": "<\"", "#text": "x&", "c": [1, true, null, {"d": "\n"}]}}),
            "<a b=\"&lt;&quot;\">x&amp;<c>1</c><c>true</c><c></c><c><d>&#10;</d></c></a>",
        ),
        (json!({"a": null}), "<a></a>"),
        (json!({"s:a": ""}), "<s:a></s:a>"),
    ] {
        assert_eq!(to_xml(&value), Ok(format!("{declaration}{wanted}")), "{value}");
    }
    for wrong in [
        json!([1]),
        json!("a"),
        json!({}),
        json!({"a": 1, "b": 2}),
        json!({"a": [1, 2]}),
        json!({"a b": 1}),
        json!({"": 1}),
        json!({"a": {"@b": {}}}),
        json!({"a": {"@": ""}}),
        json!({"a": {"b": [[1]]}}),
        json!({"a": "\u{1}"}),
        json!({"a:b:c": 1}),
        json!({"1a": 1}),
        json!({"a": {"#text": []}}),
        json!({"a><b": 1}),
    ] {
        assert!(to_xml(&wrong).is_err(), "{wrong}");
    }
    let root = JsonToXml::new(Some("r".to_owned())).expect("a name");
    assert_eq!(
        root.convert(b"{\"a\":[1.50,2],\"b\":\"x\"}"),
        Ok(format!("{declaration}<r><a>1.50</a><a>2</a><b>x</b></r>"))
    );
    assert!(root.convert(b"[1]").is_err());
    assert!(JsonToXml::new(Some("a b".to_owned())).is_err());
    let deep = format!("{}1{}", "{\"a\":".repeat(51), "}".repeat(51));
    assert!(JsonToXml::new(None).expect("no root").convert(deep.as_bytes()).is_err());
}

#[test]
fn many_names_take_no_longer_than_many_elements() {
    let xml: String = (0..40_000).map(|n| format!("<a{n}/>")).collect();
    let begun = std::time::Instant::now();
    assert!(XmlToJson::default().convert(format!("<r>{xml}</r>").as_bytes()).is_ok());
    assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
}

/// A value that XML can have: texts without layout, objects, and arrays of at least two.
fn element() -> impl Strategy<Value = Value> {
    let text = || "([ -~\t\n\r\u{e9}\u{1f600}]{0,8}[!-~])?";
    let leaf = text().prop_map(Value::from);
    leaf.prop_recursive(4, 30, 4, move |inner| {
        let attributes = proptest::collection::btree_map("@[a-c]{1,2}", text().prop_map(Value::from), 0..3);
        let children = proptest::collection::btree_map(
            "[a-c\u{e9}]{1,2}",
            prop_oneof![inner.clone(), proptest::collection::vec(inner, 2..4).prop_map(Value::from)],
            0..3,
        );
        (attributes, text(), children).prop_map(|(attributes, text, children)| {
            let mut all: serde_json::Map<String, Value> = attributes.into_iter().collect();
            if !(text.is_empty() || all.is_empty() && children.is_empty()) {
                all.insert("#text".to_owned(), Value::from(text));
            }
            all.extend(children);
            if all.is_empty() { Value::from("") } else { Value::Object(all) }
        })
    })
}

proptest! {
    #[test]
    fn there_and_back(value in element()) {
        let document = json!({"root": value});
        let xml = to_xml(&document).expect("XML");
        prop_assert_eq!(to_json(&xml).expect("JSON"), document, "{}", xml);
    }

    #[test]
    fn whatever_is_sent(text in "[<>/a!\\[\\]&;#x1='\" ?-]{0,60}") {
        if let Ok(json) = XmlToJson::default().convert(text.as_bytes()) {
            prop_assert!(serde_json::from_str::<Value>(&json).is_ok());
        }
        let _ = JsonToXml::new(None).expect("no root").convert(text.as_bytes());
    }
}
