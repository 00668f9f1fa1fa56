//! JSON values in which texts are templates.

use serde_json::Value;

use super::check::end_of_tag;
use super::format::escape_json;

/// Returns whether a text is a template: `{{` or `{%` stands in it.
pub fn is_template(text: &str) -> bool {
    text.contains("{{") || text.contains("{%")
}

/// Returns whether a text within the value is a template.
pub fn has_template(value: &Value) -> bool {
    match value {
        Value::String(text) => is_template(text),
        Value::Array(items) => items.iter().any(has_template),
        Value::Object(members) => members.iter().any(|(name, value)| is_template(name) || has_template(value)),
        _ => false,
    }
}

/// Returns the template of a JSON document that makes the value. A text that is one `{{ … }}` becomes the value of
/// that expression, and any other a text.
pub fn template_of(value: &Value) -> String {
    let mut source = String::new();
    write(value, &mut source);
    source
}

fn write(value: &Value, source: &mut String) {
    match value {
        Value::String(text) => write_text(text, source),
        Value::Array(items) => {
            source.push('[');
            for (place, item) in items.iter().enumerate() {
                source.push_str(if place > 0 { "," } else { "" });
                write(item, source);
            }
            source.push(']');
        }
        Value::Object(members) => {
            source.push('{');
            for (place, (name, value)) in members.iter().enumerate() {
                source.push_str(if place > 0 { "," } else { "" });
                write_parts(name, source);
                source.push(':');
                write(value, source);
            }
            source.push('}');
        }
        other => source.push_str(&other.to_string()),
    }
}

fn write_text(text: &str, source: &mut String) {
    let trimmed = text.trim();
    let is_one = trimmed.strip_prefix("{{").and_then(|rest| end_of_tag(rest, "}}")).map(|end| end + 4);
    if is_one == Some(trimmed.len()) {
        return source.push_str(trimmed);
    }
    write_parts(text, source);
}

/// Writes a text in quotes, its tags as they are.
fn write_parts(text: &str, source: &mut String) {
    source.push('"');
    let mut rest = text;
    while let Some(open) = next_tag(rest) {
        escape_json(&rest[..open], source);
        let end = match &rest[open..open + 2] {
            "{{" => "}}",
            "{%" => "%}",
            _ => "#}",
        };
        let behind = &rest[open + 2..];
        let close = end_of_tag(behind, end).map_or(behind.len(), |at| at + 2);
        source.push_str(&rest[open..open + 2 + close]);
        rest = &behind[close..];
    }
    escape_json(rest, source);
    source.push('"');
}

fn next_tag(text: &str) -> Option<usize> {
    ["{{", "{%", "{#"].iter().filter_map(|open| text.find(open)).min()
}

#[cfg(test)]
mod tests {
    use minijinja::context;
    use serde_json::json;

    use super::super::{BodyTemplate, OutputForm};
    use super::*;

    #[test]
    fn expressions_keep_their_type_and_texts_are_texts() {
        let value = json!({
            "plain": "a \"b\"\n", "number": "{{ n + 1 }}", "text": "n is {{ n }}, \"{{ s['k'] }}\"",
            "list": ["{{ s }}", 1.5, null],
            "name {{ n }}": true, "both": "{{ n }}{{ n }}", "quoted": "{{ \"x}}\" }}",
            "if": "{% if n > 1 %}many{% else %}one{% endif %}",
        });
        let template = BodyTemplate::new(&template_of(&value), OutputForm::Json, &["n", "s"]).expect("a template");
        let written = template.render(context! { n => 2, s => context! { k => "\"" } }).expect("JSON");
        assert_eq!(
            serde_json::from_str::<Value>(&written).expect("JSON"),
            json!({
                "plain": "a \"b\"\n", "number": 3, "text": "n is 2, \"\"\"", "list": [{"k": "\""}, 1.5, null],
                "name 2": true, "both": "22", "quoted": "x}}", "if": "many",
            })
        );
        assert!(has_template(&value) && !has_template(&json!(["{a}", {"b": "}}"}])));
    }
}
