//! Templates: what values become, what is rejected, and that any value stays what it is.

use minijinja::context;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;

const KNOWN: &[&str] = &["body", "name", "items"];

fn render(source: &str, form: OutputForm, values: Value) -> Result<String, String> {
    BodyTemplate::new(source, form, KNOWN)?.render(values)
}

#[track_caller]
fn json_of(source: &str, values: Value) -> Json {
    let text = render(source, OutputForm::Json, values).expect("a document");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn values_become_json_and_never_structure() {
    let evil = "x\", \"admin\": true, \"y\": \"\\\n\u{fdd0}";
    let values = || context! { name => evil, items => [1, 2], body => of_json(&json!({"n": null, "b": true})) };
    assert_eq!(json_of(r#"{"name": {{ name }}}"#, values()), json!({"name": evil}));
    assert_eq!(
        json_of(r#"{"text": "Hello {{ name }}, \"{{ items }}\""}"#, values()),
        json!({"text": format!("Hello {evil}, \"[1,2]\"")})
    );
    assert_eq!(json_of(r#"{"{{ name }}": {{ items }}}"#, values()), json!({evil: [1, 2]}));
    assert_eq!(json_of("{{ body }}", values()), json!({"n": null, "b": true}));
    assert_eq!(
        json_of("[{{ body.n }}, {{ body.b }}, {{ name ~ 1 }}]", values()),
        json!([null, true, format!("{evil}1")])
    );
    // Captured blocks and macros are parts of the document; joined with a value that is escaped as everywhere.
    let block = r#"{% set part %}"{{ name }}": 1{% endset %}{ {{ part }} }"#;
    assert_eq!(json_of(block, values()), json!({evil: 1}));
    let call = r#"{% macro pair(x) %}[{{ x }}, "{{ x }}"]{% endmacro %}[{{ pair(name) }}]"#;
    assert_eq!(json_of(call, values()), json!([[evil, evil]]));
    let list = r#"[{% for i in items %}{{ i }}{% if not loop.last %},{% endif %}{% endfor %}]"#;
    assert_eq!(json_of(list, values()), json!([1, 2]));
}

#[test]
fn other_forms() {
    let values = || context! { name => "a<b>&\"c d", items => [1, 2], body => () };
    assert_eq!(render("<n>{{ name }}</n>", OutputForm::Xml, values()).expect("XML"), "<n>a&lt;b&gt;&amp;&quot;c d</n>");
    assert_eq!(render("/x/{{ name }}", OutputForm::Url, values()).expect("a path"), "/x/a%3Cb%3E%26%22c%20d");
    assert_eq!(
        render("{{ name }} {{ items }}{{ body }}", OutputForm::Text, values()).expect("text"),
        "a<b>&\"c d [1,2]"
    );
}

#[test]
fn errors_have_a_place() {
    for (source, wanted) in [
        ("{\n  \"a\": {{ nome }}\n}", "line 2, column 11: there is no value nome"),
        ("{{ name | nofilter }}", "line 1, column 11: there is no filter nofilter"),
        ("a\n{% if name %}", "line 2"),
        ("{% include 'x' %}", "line 1, column"),
        ("{% import 'x' as y %}", "line 1, column"),
        ("{{ name | safe }}", "there is no filter safe"),
        ("{{ namespace() }}", "there is no value namespace"),
        ("\u{fdd0}", "line 1, column 1"),
    ] {
        let error = BodyTemplate::new(source, OutputForm::Json, KNOWN).expect_err(source);
        assert!(error.contains(wanted), "{source}: {error}");
    }
    assert!(BodyTemplate::new(&"x".repeat(MAX_SOURCE + 1), OutputForm::Text, KNOWN).is_err());
    let known = ["request.method", "request.headers"];
    assert!(BodyTemplate::new("{{ request.method }}{{ request.headers['x'] }}", OutputForm::Text, &known).is_ok());
    assert!(BodyTemplate::new("{{ request.metod }}", OutputForm::Text, &known).is_err());
    assert!(
        BodyTemplate::new("{# {{ x }} #}{% raw %}{{ x|y }}{% endraw %}{{ 'a|b }}' }}", OutputForm::Text, &known)
            .is_ok()
    );
}

#[test]
fn what_is_missing_or_malformed_is_an_error() {
    let missing = render(r#"{"a": {{ body.a.b }}}"#, OutputForm::Json, context! { body => of_json(&json!({"a": {}})) });
    let missing = missing.expect_err("missing");
    assert!(missing.contains("line 1, column 10") && missing.contains("undefined"), "{missing}");
    assert!(render(r#"{"a": }"#, OutputForm::Json, context! {}).expect_err("no JSON").contains("not JSON"));
    assert_eq!(
        render("{{ body.a | default('x') }}", OutputForm::Text, context! { body => of_json(&json!({})) })
            .expect("a default"),
        "x"
    );
}

#[test]
fn work_and_output_are_bounded() {
    for source in [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 'x' * 99999999 }}",
        "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
        "{% for a in range(99999) %}{{ \
            'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx' }}{% endfor %}",
        "{% set x = 'x' * 9999 %}{% set x = x ~ x ~ x ~ x ~ x ~ x ~ x %}{% set x = x ~ x ~ x ~ x ~ x ~ x ~ x \
            %}{% set x = x ~ x ~ x ~ x ~ x ~ x ~ x %}{{ x }}{{ x }}",
    ] {
        assert!(render(source, OutputForm::Text, context! {}).is_err(), "{source}");
    }
    let template = BodyTemplate::new("{{ name }}", OutputForm::Text, KNOWN).expect("a template").with_max_output(3);
    assert!(template.render(context! { name => "abc" }).is_ok());
    assert!(template.render(context! { name => "abcd" }).is_err());
}

#[test]
fn documents_keep_order_and_digits() {
    let text = r#"{"z":1.10,"a":[12345678901234567890123,1e400,-0,0.5,"\ud83d\ude00\n"],"k":{"n":null,"t":true}}"#;
    let value = json_value(text.as_bytes()).expect("JSON");
    let written = render("{{ body }}", OutputForm::Json, context! { body => value.clone() }).expect("JSON");
    assert_eq!(written, text.replace("\\ud83d\\ude00", "\u{1f600}"));
    let many: Vec<String> = (0..40).map(|n| format!("\"k{n}\":{n}")).collect();
    let value = json_value(format!("{{{}}}", many.join(",")).as_bytes()).expect("JSON");
    assert_eq!(render("{{ body.k39 + body.k1 }}", OutputForm::Text, context! { body => value }).expect("a sum"), "40");
    for wrong in ["", "{", "[1,]", "{\"a\":1}x", "nul"] {
        assert!(json_value(wrong.as_bytes()).is_err(), "{wrong}");
    }
    assert!(json_value(b"\"\xff\"").is_err());
    for (deep, fine) in [(128, true), (129, false), (200_000, false)] {
        let text = "[".repeat(deep) + &"]".repeat(deep);
        assert_eq!(json_value(text.as_bytes()).is_ok(), fine, "{deep} levels");
    }
}

#[test]
fn what_is_read_is_known() {
    let template = BodyTemplate::new("{{ body.a.b }}{% for i in items %}{{ i }}{% endfor %}", OutputForm::Text, KNOWN)
        .expect("a template");
    assert!(
        template.reads("body") && template.reads("body.a") && template.reads("body.a.b.c") && template.reads("items")
    );
    assert!(!template.reads("name") && !template.reads("body.c") && !template.reads("bod"));
}

fn document() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        any::<String>().prop_map(Json::from),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            proptest::collection::vec((any::<String>(), inner), 0..20).prop_map(Json::from_iter),
        ]
    })
}

proptest! {
    #[test]
    fn any_value_stays_what_it_is(value in document(), text: String) {
        let values = context! { body => json_value(value.to_string().as_bytes()).expect("JSON"), name => text.clone() };
        let written = json_of(r#"{"a": {{ body }}, "b": "<{{ name }}>", "c": {{ name }}, "d": "{{ body }}"}"#, values);
        let (shown, plain) = (&written["d"], written["d"].as_str().expect("a text").to_owned());
        let parsed = || serde_json::from_str(&plain).unwrap_or(shown.clone());
        let plain = if value.is_string() { Json::from(plain.as_str()) } else { parsed() };
        prop_assert_eq!(plain, value.clone());
        prop_assert_eq!(written["a"].clone(), value);
        prop_assert_eq!(written["b"].clone(), json!(format!("<{text}>")));
        prop_assert_eq!(written["c"].clone(), json!(text));
    }
}
