//! The values of `${env:…}` and `${file:…}`, so that no message repeats them: messages name the reference.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::tree::{Node, Value};
use crate::notation::Place;

/// Values shorter than this are replaced only where nothing else can be meant: `a` is in every message.
const SHORT_VALUE: usize = 4;

/// The most bytes of a message. A reference may be longer than its value, and stand for many parts of a text.
const MAX_MESSAGE: usize = 4 << 10;

/// The most bytes of a text with references that are shown with what stands beside the references.
const MAX_BESIDE: usize = 100;

/// Resolved values, each with the text that stands for it in messages.
#[derive(Default)]
pub struct Redactor(BTreeMap<Longest, Arc<str>>);

/// A value in lower case. The longest comes first: what is a part of another is replaced with that.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Longest(Reverse<usize>, String);

/// The parts of a text that are replaced: by their start, their end and what stands there instead. None overlaps
/// another, and what is inserted is never searched: it may have the names of other parts in it.
type Replaced<'r> = BTreeMap<usize, (usize, &'r str)>;

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Redactor(secret)")
    }
}

impl Redactor {
    /// Notes a value of a reference, and the parts of it that messages show by themselves: the names of parameters,
    /// which they list, and what some kinds of values begin or end with.
    pub fn note(&mut self, value: &str, written: &str) {
        let shown: Arc<str> = shown(written).into();
        let names = value.split('{').skip(1).filter_map(|rest| Some(rest.split_once('}')?.0));
        // The rest of `file:PATH`, and of a URL without its query.
        let parts = [value.strip_prefix("file:").unwrap_or_default(), value.split('?').next().unwrap_or_default()];
        for value in names.chain(parts).chain([value, written]).filter(|value| !value.is_empty()) {
            let value = value.to_ascii_lowercase();
            // The value as `{:?}` shows it.
            let quoted = format!("{value:?}");
            for form in [&quoted[1..quoted.len() - 1], &value] {
                self.0.entry(Longest(Reverse(form.len()), form.to_owned())).or_insert_with(|| shown.clone());
            }
        }
    }

    /// Returns the text with every resolved value replaced by its reference, cut to the length of a message.
    pub fn redact(&self, text: &str) -> String {
        if self.0.is_empty() { text.to_owned() } else { message(text, &self.replaced(text)) }
    }

    /// Returns the text of a message about the value at `place`, cut to the length of a message. No part of a value
    /// that came by a reference is quoted either.
    pub fn redact_at(&self, tree: &Node, place: &Place, text: &str) -> String {
        let Some(Node { value: Value::Text(value), written: Some(written), .. }) = tree.at(place) else {
            return message(text, &self.replaced(text));
        };
        let (value, shown) = (value.to_ascii_lowercase(), shown(written));
        let mut replaced = self.replaced(text);
        for (start, end) in quoted(text, &replaced) {
            let is_replaced = replaced.get(&start).is_some_and(|(until, _)| *until == end);
            if !is_replaced && value.contains(&text[start..end].to_ascii_lowercase()) {
                replaced.retain(|at, _| !(start..end).contains(at));
                replaced.insert(start, (end, shown.as_str()));
            }
        }
        message(text, &replaced)
    }

    /// Returns the parts of a text that are values, in any case, as far as they begin within a message. Of several that
    /// overlap it is the longest. Short ones count only between quotes.
    fn replaced(&self, text: &str) -> Replaced<'_> {
        let (lower, mut replaced) = (text.to_ascii_lowercase(), Replaced::new());
        // There may be 100,000 values, of which a message has one.
        for (Longest(_, value), shown) in &self.0 {
            let searched = &lower[..lower.floor_char_boundary(MAX_MESSAGE + value.len())];
            let mut at = 0;
            while let Some(found) = searched.get(at..).and_then(|rest| rest.find(value.as_str())) {
                let (start, end) = (at + found, at + found + value.len());
                let before = replaced.range(..end).next_back().map(|(_, (until, _))| *until);
                at = before.filter(|until| *until > start).unwrap_or(end);
                let is_quoted = text[..start].ends_with('"') && text[end..].starts_with('"');
                if before.is_none_or(|until| until <= start) && (is_quoted || value.len() >= SHORT_VALUE) {
                    replaced.insert(start, (end, &**shown));
                }
            }
        }
        replaced
    }
}

/// Returns what stands in messages for a text that is written with references: the text without the defaults, which may
/// be secrets, and the references alone where it is long.
fn shown(written: &str) -> String {
    let shown = with_defaults(written, |name, _| format!("${{env:{name}}}"));
    if shown.len() <= MAX_BESIDE {
        return shown;
    }
    let (mut out, mut rest) = (String::new(), shown.as_str());
    while let Some((before, behind)) = rest.split_once("${")
        && let Some((inner, after)) = behind.split_once('}')
    {
        out.extend([if before.is_empty() { "" } else { "…" }, "${", inner, "}"]);
        rest = after;
    }
    out.push_str(if rest.is_empty() { "" } else { "…" });
    out
}

/// Returns a text that is written with references, with those that have a default as `by` writes them, from the name
/// and the default.
pub fn with_defaults(written: &str, by: impl Fn(&str, &str) -> String) -> String {
    let (mut out, mut rest) = (String::with_capacity(written.len()), written);
    while let Some((before, behind)) = rest.split_once("${")
        && let Some((inner, after)) = behind.split_once('}')
    {
        out.push_str(before);
        match inner.strip_prefix("env:").and_then(|inner| inner.split_once(":-")) {
            Some((name, default)) => out.push_str(&by(name, default)),
            None => out.extend(["${", inner, "}"]),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// Returns the text with its parts replaced, cut to the length of a message.
fn message(text: &str, replaced: &Replaced<'_>) -> String {
    let limit = text.floor_char_boundary(MAX_MESSAGE);
    let (mut out, mut at) = (String::new(), 0);
    for (start, (end, shown)) in replaced {
        if out.len() > MAX_MESSAGE || *start > limit {
            break;
        }
        out.push_str(&text[at..*start]);
        out.push_str(shown);
        at = *end;
    }
    let is_whole = limit.max(at) == text.len() && out.len() <= MAX_MESSAGE;
    out.push_str(text.get(at..limit).unwrap_or_default());
    if !is_whole || out.len() > MAX_MESSAGE {
        out.truncate(out.floor_char_boundary(MAX_MESSAGE - '…'.len_utf8()));
        out.push('…');
    }
    out
}

/// Returns what stands between quotes or braces and begins within a message: the start and the end of each. Those in
/// the parts that are replaced do not count.
fn quoted(text: &str, replaced: &Replaced<'_>) -> Vec<(usize, usize)> {
    let mut bytes = text.as_bytes().to_vec();
    replaced.iter().for_each(|(start, (end, _))| bytes[*start..*end].fill(0));
    let find = |from: usize, wanted: &[u8]| bytes[from..].iter().position(|b| wanted.contains(b)).map(|at| from + at);
    let (mut all, mut at) = (Vec::new(), 0);
    while let Some(open) = find(at, b"\"{").filter(|open| *open < MAX_MESSAGE) {
        let Some(end) = find(open + 1, if bytes[open] == b'"' { b"\"" } else { b"}" }) else { break };
        if end > open + 1 {
            all.push((open + 1, end));
        }
        at = end + 1;
    }
    all
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
    fn what_is_inserted_is_not_redacted_again() {
        let names: Vec<String> = (0..40).map(|number| format!("name{number:02}_id")).collect();
        let rest: String = names.iter().map(|name| format!("/{{{name}}}")).collect();
        let (value, written) = (format!("/zq9x7{rest}"), format!("${{env:NOPATH:-/zq9x7}}{rest}"));
        let mut redactor = Redactor::default();
        redactor.note("/zq9x7", "${env:NOPATH:-/zq9x7}");
        redactor.note(&value, &written);
        // The longest comes first: no part of it is left.
        redactor.note("name07_id-and-more", "${env:B}");
        let text = format!("{}, {value}, {written} or name07_id-and-more", names.join(", "));
        let shown = redactor.redact(&text);
        assert!(shown.len() < 1_000 && shown.ends_with(", ${env:NOPATH}…, ${env:NOPATH}… or ${env:B}"), "{shown}");
        assert!(!shown.contains("name") && !shown.contains("-and-more") && !shown.contains("zq9"), "{shown}");
        assert_eq!(redactor.redact("what ${env:NOPATH:-/zq9x7} stands for"), "what ${env:NOPATH} stands for");
        // The same at its place, where each part between braces is one of the value.
        let mut tree = super::super::tree::parse("a: x", 0).expect("YAML");
        (tree.value, tree.written) = (Value::Text(value.clone()), Some(written.into()));
        let text = format!("nothing is called {{id}}: {{{}}}", names.join("}, {"));
        let shown = redactor.redact_at(&tree, &Place::default(), &text);
        assert!(shown.len() < 1_000 && !shown.contains("id}") && !shown.contains("_id"), "{shown}");
    }

    #[test]
    fn messages_are_cut() {
        let mut redactor = Redactor::default();
        redactor.note("S3cret", "${env:LONGER}");
        for text in ["S3cret ".repeat(10_000), "é".repeat(MAX_MESSAGE), "x".repeat(MAX_MESSAGE - 3) + "S3cretS3cret"] {
            let shown = redactor.redact(&text);
            assert!(shown.len() <= MAX_MESSAGE && shown.ends_with('…') && !shown.contains("S3"), "{shown}");
        }
        assert_eq!(redactor.redact(&"x".repeat(MAX_MESSAGE)), "x".repeat(MAX_MESSAGE));
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
