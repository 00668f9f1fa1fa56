//! The values of `${env:…}` and `${file:…}`, so that no message repeats them: messages name the reference.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::tree::{Node, Value};
use crate::notation::Place;

/// Values shorter than this are replaced only where nothing else can be meant: `a` is in every message.
const SHORT_VALUE: usize = 4;

/// Resolved values, each with the text that stands for it in the file.
#[derive(Default)]
pub struct Redactor(BTreeMap<Longest, String>);

/// A value in lower case. The longest comes first: what is a part of another is replaced with that.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Longest(Reverse<usize>, String);

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Redactor(secret)")
    }
}

impl Redactor {
    /// Notes a value of a reference, and the parts of it that messages show by themselves: the names of parameters,
    /// which they list, and what some kinds of values begin or end with.
    pub fn note(&mut self, value: &str, written: &str) {
        let names = value.split('{').skip(1).filter_map(|rest| Some(rest.split_once('}')?.0));
        // The rest of `file:PATH`, and of a URL without its query.
        let parts = [value.strip_prefix("file:").unwrap_or_default(), value.split('?').next().unwrap_or_default()];
        for value in names.chain(parts).chain([value]).filter(|value| !value.is_empty()) {
            let value = value.to_ascii_lowercase();
            // The value as `{:?}` shows it.
            let shown = format!("{value:?}");
            for form in [&shown[1..shown.len() - 1], &value] {
                self.0.entry(Longest(Reverse(form.len()), form.to_owned())).or_insert_with(|| written.to_owned());
            }
        }
    }

    /// Returns the text with every resolved value replaced by its reference.
    pub fn redact(&self, text: &str) -> String {
        let (mut text, mut lower) = (text.to_owned(), text.to_ascii_lowercase());
        for (Longest(_, value), written) in &self.0 {
            // There may be 100,000 of them, of which a message has one.
            if lower.contains(value.as_str()) {
                text = replace(&text, value, written, value.len() < SHORT_VALUE);
                lower = text.to_ascii_lowercase();
            }
        }
        text
    }

    /// Returns the text of a message about the value at `place`. No part of a value that came by a reference is
    /// quoted either.
    pub fn redact_at(&self, tree: &Node, place: &Place, text: &str) -> String {
        let text = if self.0.is_empty() { return text.to_owned() } else { self.redact(text) };
        let Some(Node { value: Value::Text(value), written: Some(written), .. }) = tree.at(place) else { return text };
        quoted(&text, |part| {
            let (part, value) = (part.to_ascii_lowercase(), value.to_ascii_lowercase());
            (!part.is_empty() && value.contains(&part)).then_some(&**written)
        })
    }
}

/// Replaces `value`, which is in lower case, in any case; if it is `whole`, only where neither a letter nor a digit is
/// beside it.
fn replace(text: &str, value: &str, by: &str, whole: bool) -> String {
    let lower = text.to_ascii_lowercase();
    let is_word = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    let (mut out, mut at) = (String::with_capacity(text.len()), 0);
    while let Some(found) = lower[at..].find(value).map(|found| at + found) {
        let end = found + value.len();
        let inside = whole && !(text[..found].ends_with('"') && text[end..].starts_with('"'));
        let beside = is_word(text[..found].chars().next_back()) || is_word(text[end..].chars().next());
        out.push_str(&text[at..found]);
        out.push_str(if inside || whole && beside { &text[found..end] } else { by });
        at = end;
    }
    out.push_str(&text[at..]);
    out
}

/// Replaces what stands between quotes or braces by the result of `by`.
fn quoted<'b>(text: &str, by: impl Fn(&str) -> Option<&'b str>) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(start) = rest.find(['"', '{']) {
        let close = if rest.as_bytes()[start] == b'"' { '"' } else { '}' };
        let (before, behind) = rest.split_at(start + 1);
        out.push_str(before);
        let Some(end) = behind.find(close) else {
            rest = behind;
            break;
        };
        out.push_str(by(&behind[..end]).unwrap_or(&behind[..end]));
        out.push(close);
        rest = &behind[end + 1..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_become_references_in_any_case_and_form() {
        let mut redactor = Redactor::default();
        for (value, written) in
            [("S3cret", "${env:A}"), ("x", "${env:B}"), ("two\nlines", "${file:c}"), ("", "${env:D}")]
        {
            redactor.note(value, written);
        }
        let shown = |text: &str| redactor.redact(text);
        assert_eq!(shown("found \"S3cret\", or s3CRET"), "found \"${env:A}\", or ${env:A}");
        assert_eq!(shown("expected x, found \"x\""), "expected x, found \"${env:B}\"");
        assert_eq!(shown("two\\nlines or two\nlines"), "${file:c} or ${file:c}");
        assert_eq!(shown("öS3cretö"), "ö${env:A}ö");
    }

    #[test]
    fn no_part_of_a_value_is_quoted_at_its_place() {
        let mut tree = super::super::tree::parse("a: x", 0).expect("YAML");
        let Value::Map(members) = &mut tree.value else { panic!("a mapping") };
        members[0].1.value = Value::Text("/p/{S3cret}".to_owned());
        members[0].1.written = Some("${env:A}".into());
        let mut redactor = Redactor::default();
        redactor.note("/p/{S3cret}", "${env:A}");
        let shown = |place: &Place, text: &str| redactor.redact_at(&tree, place, text);
        let place = Place::default().key("a");
        assert_eq!(
            shown(&place, "nothing is called {s3cret}; \"b\", \"S3c"),
            "nothing is called {${env:A}}; \"b\", \"S3c"
        );
        assert_eq!(shown(&Place::default(), "{id} of \"/p/{S3cret}\""), "{id} of \"${env:A}\"");
    }
}
