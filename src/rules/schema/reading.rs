//! The text of a schema or a document, JSON or YAML, as a value; and the place in the text at which a value begins.

use ahash::AHashMap;
use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput};
use serde_json::{Map, Value};

/// The most values of one YAML text, aliases counted each time they are used.
const MAX_NODES: usize = 4_000_000;

/// How deep a text may be: the code that walks it recurses.
const MAX_TEXT_DEPTH: usize = 120;

/// The error that a text is neither JSON nor YAML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadText {
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1.
    pub column: usize,
    /// What is wrong.
    pub text: String,
}

/// Returns whether a text is read as JSON: YAML begins otherwise, but for its flow style.
fn is_json(text: &str) -> bool {
    text.trim_start_matches('\u{feff}').trim_start().starts_with(['{', '['])
}

/// Parses a text as JSON where it begins as JSON does, otherwise as YAML 1.2. Keys that are numbers, such as the
/// statuses of responses, become texts.
///
/// # Errors
/// Returns what is wrong, and where.
pub fn parse_text(text: &str) -> Result<Value, BadText> {
    let text = text.trim_start_matches('\u{feff}');
    if is_json(text) {
        return match serde_json::from_str(text) {
            Ok(value) => Ok(value),
            // YAML in flow style also begins with a brace.
            Err(error) => yaml(text, None).map(|(value, _)| value).map_err(|_| BadText {
                line: error.line(),
                column: error.column(),
                text: format!("no JSON: {}", without_place(&error)),
            }),
        };
    }
    yaml(text, None).map(|(value, _)| value)
}

/// Returns the message of an error without line and column, which are shown before it.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or_default().to_owned()
}

/// Returns line and column, from 1, at which the value of a JSON Pointer begins, or the nearest value above it.
pub fn locate(text: &str, pointer: &str) -> Option<(usize, usize)> {
    let steps: Vec<String> =
        pointer.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~")).collect();
    if is_json(text)
        && let Some(offset) = locate_json(text, &steps)
    {
        let before = &text[..offset];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        return Some((line, column));
    }
    yaml(text, Some(&steps)).ok().and_then(|(_, found)| found)
}

/// Returns the offset of a value in a JSON text that was parsed before.
fn locate_json(text: &str, steps: &[String]) -> Option<usize> {
    let bytes = text.as_bytes();
    let skip_space = |mut at: usize| {
        while bytes.get(at).is_some_and(u8::is_ascii_whitespace) {
            at += 1;
        }
        at
    };
    let mut at = skip_space(text.len() - text.trim_start_matches('\u{feff}').len());
    'steps: for step in steps {
        let container = at;
        let is_list = match bytes.get(at)? {
            b'{' => false,
            b'[' => true,
            _ => return Some(container),
        };
        at = skip_space(at + 1);
        let mut index = 0;
        loop {
            if matches!(bytes.get(at)?, b'}' | b']') {
                return Some(container);
            }
            let is_wanted = if is_list {
                step.parse() == Ok(index)
            } else {
                let end = skip_value(bytes, at)?;
                let key: String = serde_json::from_str(text.get(at..end)?).ok()?;
                at = skip_space(skip_space(end) + 1);
                key == *step
            };
            if is_wanted {
                continue 'steps;
            }
            at = skip_space(skip_value(bytes, at)?);
            if bytes.get(at)? == &b',' {
                at = skip_space(at + 1);
            }
            index += 1;
        }
    }
    Some(at)
}

/// Returns the offset behind a value.
pub fn skip_value(bytes: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 0_usize;
    loop {
        match bytes.get(at)? {
            b'"' => {
                at += 1;
                while *bytes.get(at)? != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' => {
                depth = depth.checked_sub(1)?;
                at += 1;
            }
            b',' | b':' if depth > 0 => at += 1,
            byte if byte.is_ascii_whitespace() => at += 1,
            _ => {
                while bytes.get(at).is_some_and(|b| !matches!(b, b',' | b']' | b'}') && !b.is_ascii_whitespace()) {
                    at += 1;
                }
            }
        }
        if depth == 0 {
            return Some(at);
        }
    }
}

type Found = Option<(usize, usize)>;

/// Parses YAML. Returns the value, and where the one at the end of `wanted` begins.
fn yaml(text: &str, wanted: Option<&[String]>) -> Result<(Value, Found), BadText> {
    let mut reader = YamlReader { parser: Parser::new_from_str(text), anchors: AHashMap::new(), nodes: 0, found: None };
    loop {
        let (event, span) = reader.next()?;
        match event {
            Event::StreamStart | Event::DocumentStart(_) | Event::Nothing => {}
            Event::StreamEnd => return Ok((Value::Null, None)),
            event => {
                let value = reader.node(event, span, wanted, 0)?;
                return Ok((value, reader.found));
            }
        }
    }
}

struct YamlReader<'t> {
    parser: Parser<'t, StrInput<'t>>,
    anchors: AHashMap<usize, Value>,
    nodes: usize,
    /// The place of the value that is looked for, or of the nearest above it.
    found: Found,
}

impl<'t> YamlReader<'t> {
    fn next(&mut self) -> Result<(Event<'t>, Span), BadText> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, span)),
            Some(Err(error)) => {
                let at = error.marker();
                let text = format!("no YAML: {}", error.info());
                Err(BadText { line: at.line(), column: at.col() + 1, text })
            }
            None => Err(BadText { line: 1, column: 1, text: "no YAML: it ends too early".to_owned() }),
        }
    }

    fn bad<T>(span: Span, text: &str) -> Result<T, BadText> {
        Err(BadText { line: span.start.line(), column: span.start.col() + 1, text: text.to_owned() })
    }

    /// Reads the node that begins with an event. `wanted` are the steps from it to the value that is looked for.
    fn node(
        &mut self,
        event: Event<'t>,
        span: Span,
        wanted: Option<&[String]>,
        depth: usize,
    ) -> Result<Value, BadText> {
        if wanted.is_some() {
            self.found = Some((span.start.line(), span.start.col() + 1));
        }
        self.nodes += 1;
        if self.nodes > MAX_NODES || depth > MAX_TEXT_DEPTH {
            return Self::bad(span, "it is too large or too deep");
        }
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, _) => (scalar(&text, style), anchor),
            Event::SequenceStart(anchor, _) => (self.list(wanted, depth)?, anchor),
            Event::MappingStart(anchor, _) => (self.mapping(wanted, depth)?, anchor),
            Event::Alias(id) => {
                let Some(value) = self.anchors.get(&id).cloned() else {
                    return Self::bad(span, "an alias of an anchor that is not there");
                };
                self.nodes += count(&value);
                (value, 0)
            }
            _ => return Self::bad(span, "no YAML: a value was expected"),
        };
        if anchor > 0 {
            self.anchors.insert(anchor, value.clone());
        }
        Ok(value)
    }

    fn list(&mut self, wanted: Option<&[String]>, depth: usize) -> Result<Value, BadText> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                return Ok(Value::Array(items));
            }
            let below = wanted.and_then(|steps| steps.split_first());
            let below = below.filter(|(step, _)| step.parse() == Ok(items.len())).map(|(_, rest)| rest);
            items.push(self.node(event, span, below, depth + 1)?);
        }
    }

    fn mapping(&mut self, wanted: Option<&[String]>, depth: usize) -> Result<Value, BadText> {
        let mut members = Map::new();
        let mut merged = Vec::new();
        loop {
            let (event, span) = self.next()?;
            let key = match event {
                Event::MappingEnd => {
                    for (key, value) in merged.into_iter().flatten() {
                        members.entry(key).or_insert(value);
                    }
                    return Ok(Value::Object(members));
                }
                Event::Scalar(text, ..) => (*text).to_owned(),
                _ => return Self::bad(span, "a key that is a text"),
            };
            let below = wanted.and_then(|steps| steps.split_first());
            let below = below.filter(|(step, _)| **step == key).map(|(_, rest)| rest);
            let (event, value_span) = self.next()?;
            // A mapping begins with its first key; the key before it is where people look.
            let at =
                if matches!(event, Event::MappingStart(..) | Event::SequenceStart(..)) { span } else { value_span };
            let value = self.node(event, at, below, depth + 1)?;
            if key == "<<"
                && let Value::Object(other) = value
            {
                merged.push(other);
            } else if members.insert(key, value).is_some() {
                return Self::bad(span, "a key for the second time in one mapping");
            }
        }
    }
}

fn count(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(count).sum::<usize>(),
        Value::Object(members) => 1 + members.values().map(count).sum::<usize>(),
        _ => 1,
    }
}

/// Returns a scalar by the core schema (YAML 1.2, section 10.3); a quoted one is a text.
fn scalar(text: &str, style: ScalarStyle) -> Value {
    if style != ScalarStyle::Plain {
        return Value::String(text.to_owned());
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let digits = text.trim_start_matches('-');
    let is_number = digits.starts_with(|c: char| c.is_ascii_digit())
        && digits.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'-' | b'+' | b'.' | b'e' | b'E'))
        && !(digits.len() > 1 && digits.starts_with('0') && digits.as_bytes()[1].is_ascii_digit());
    let number = is_number.then(|| {
        let integer = text.parse::<i64>().map(serde_json::Number::from);
        let integer = integer.or_else(|_| text.parse::<u64>().map(serde_json::Number::from));
        integer.ok().or_else(|| serde_json::Number::from_f64(text.parse().ok()?))
    });
    number.flatten().map_or_else(|| Value::String(text.to_owned()), Value::Number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_and_json_have_one_value_and_places() {
        let json = "{\n  \"a\": [1, {\"b/c\": \"x\\\"]\"}],\n  \"200\": null\n}";
        let text = "a:\n  - 1\n  - b/c: 'x\"]'\n200: ~\n";
        assert_eq!(parse_text(json).expect("JSON"), parse_text(text).expect("YAML"));
        assert_eq!([locate(json, "/a/1/b~1c"), locate(text, "/a/1/b~1c")], [Some((2, 20)), Some((3, 10))]);
        assert_eq!([locate(json, "/200"), locate(text, "/200")], [Some((3, 10)), Some((4, 6))]);
        // Of what is missing the place is that of its parent.
        assert_eq!([locate(json, "/a/1/z"), locate(text, "/a/1/z")], [Some((2, 12)), Some((3, 5))]);
        assert_eq!(locate(json, ""), Some((1, 1)));
    }

    #[test]
    fn scalars_are_those_of_the_core_schema() {
        let text = "[2020-01-01, 0123, 1.5, -3, yes, 'true', true, 1e3, 18446744073709551615]";
        let value = parse_text(&format!("a: {text}")).expect("YAML");
        assert_eq!(
            value["a"],
            serde_json::json!(["2020-01-01", "0123", 1.5, -3, "yes", "true", true, 1000.0, u64::MAX])
        );
        let bad = parse_text("{\n \"a\": ]").expect_err("broken");
        assert_eq!((bad.line, bad.column), (2, 7));
        assert!(parse_text("a: 1\na: 2\n").expect_err("twice").text.contains("second time"));
        assert_eq!(parse_text("x: &x {a: 1}\ny:\n  <<: *x\n  b: 2\n").expect("YAML")["y"]["a"], 1);
    }
}
