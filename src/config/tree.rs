//! YAML as a tree that remembers where each value stands.

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput};

use super::foreign;
use crate::notation::{MAX_SHOWN, Place, PlaceStep};

/// The most values that a configuration may have in all its files, aliases counted each time they are used.
const MAX_NODES: usize = 4_000_000;

/// The most bytes of text that it may have, counted in the same way, with what references bring in.
const MAX_TEXT: usize = 256 << 20;

/// How deep it may be: the code that walks it recurses.
const MAX_TREE_DEPTH: usize = 64;

/// The most keys of a mapping that are compared one by one.
const FEW_KEYS: usize = 16;

/// A place in a text: the number of the file, line and column, the latter two from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spot {
    pub file: u32,
    pub line: u32,
    pub column: u32,
}

/// A value and where it begins.
#[derive(Clone, Debug)]
pub struct Node {
    pub spot: Spot,
    pub value: Value,
    /// The text as it is written, where a part of it came from a reference and may be a secret.
    pub written: Option<Box<str>>,
}

impl Node {
    /// Returns a value as it is written.
    pub fn new(spot: Spot, value: Value) -> Self {
        Self { spot, value, written: None }
    }
}

/// A key and where it begins.
#[derive(Clone, Debug)]
pub struct MapKey {
    pub spot: Spot,
    pub text: String,
}

/// The values of YAML's core schema (YAML 1.2, section 10.3).
#[derive(Clone, Debug)]
pub enum Value {
    Null,
    /// The word as it is written; it is true if it begins with a t.
    Bool(&'static str),
    Integer(i64),
    Float(Box<Decimal>),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(MapKey, Node)>),
}

/// A number that is no integer, or too large for one.
#[derive(Clone, Debug)]
pub struct Decimal {
    /// The number.
    pub number: f64,
    /// The text as it is written: `1.10` is the number 1.1.
    pub text: Box<str>,
}

/// Returns whether a truth value is true.
pub fn is_true(word: &str) -> bool {
    word.starts_with(['t', 'T'])
}

impl Value {
    /// Returns the text of a number or a truth value as it is written, which is what it is where a text belongs.
    pub fn plain(&self) -> Option<String> {
        match self {
            Self::Bool(word) => Some((*word).to_owned()),
            Self::Integer(number) => Some(number.to_string()),
            Self::Float(decimal) => Some(decimal.text.to_string()),
            _ => None,
        }
    }

    /// Returns a value as it is written in one line; of a list or a mapping only its kind.
    pub fn text(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Bool(word) => is_true(word).to_string(),
            Self::Integer(value) => value.to_string(),
            Self::Float(value) => value.number.to_string(),
            Self::Text(value) => value.clone(),
            Self::List(_) => "[]".to_owned(),
            Self::Map(_) => "{}".to_owned(),
        }
    }

    /// Returns the name of the value's kind in a message.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "true or false",
            Self::Integer(_) | Self::Float(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

/// The error that a text is no YAML, or no configuration's YAML.
#[derive(Debug)]
pub struct BadYaml {
    pub spot: Spot,
    pub text: String,
}

impl Node {
    /// Returns the value at a place, if there is one.
    pub fn at(&self, place: &Place) -> Option<&Self> {
        place.0.iter().try_fold(self, |node, step| match (&node.value, step) {
            (Value::Map(members), PlaceStep::Key(key)) => members.iter().find(|(k, _)| k.text == *key).map(|(_, n)| n),
            (Value::List(items), PlaceStep::Index(index)) => items.get(*index),
            _ => None,
        })
    }

    /// Returns the spot of the value at a place, or of its nearest ancestor, where it is missing.
    pub fn spot_of(&self, place: &Place) -> Spot {
        let (mut node, mut spot) = (self, self.spot);
        for step in &place.0 {
            if let (Value::Map(members), PlaceStep::Name(name)) = (&node.value, step) {
                return members.iter().find(|(k, _)| k.text == *name).map_or(spot, |(k, _)| k.spot);
            }
            let next = match (&node.value, step) {
                (Value::Map(members), PlaceStep::Key(key)) => {
                    members.iter().find(|(k, _)| k.text == *key).map(|(k, n)| (n, k.spot))
                }
                (Value::List(items), PlaceStep::Index(index)) => items.get(*index).map(|n| (n, n.spot)),
                _ => None,
            };
            let Some((below, at)) = next else { return spot };
            let scalar = !matches!(below.value, Value::List(_) | Value::Map(_));
            spot = if scalar { below.spot } else { at };
            node = below;
        }
        spot
    }
}

/// Parses one document.
#[cfg(test)]
pub fn parse(text: &str, file: u32) -> Result<Node, BadYaml> {
    parse_within(text, file, &[], &mut Size::default()).map(|(node, _)| node)
}

/// Parses one document of a configuration of which `size` was read before, and returns it with the keys that are there
/// twice. A text that is no configuration, since none of its keys is one of the `sections`, is not quoted: it may be
/// any file.
pub fn parse_within(
    text: &str,
    file: u32,
    sections: &[&str],
    size: &mut Size,
) -> Result<(Node, Vec<BadYaml>), BadYaml> {
    let mut builder = Builder {
        parser: Parser::new_from_str(text),
        file,
        anchors: Vec::new(),
        size: *size,
        sections,
        known: file == 0,
        again: Vec::new(),
    };
    let is_sections = |node: &Node| file > 0 || matches!(node.value, Value::Map(_) | Value::Null);
    let node = builder.document().and_then(|node| match is_sections(&node) {
        true => Ok(node),
        false => Err(BadYaml {
            spot: node.spot,
            text: format!("expected a mapping with keys such as listeners and routes, found {}", node.value.kind()),
        }),
    });
    let node = node.map_err(|bad| foreign::describe(text, bad))?;
    *size = builder.size;
    if !builder.known {
        let some = sections.join(", ");
        return Err(BadYaml {
            spot: node.spot,
            text: format!("is no configuration: expected a mapping with some of the keys {some}"),
        });
    }
    Ok((node, builder.again))
}

struct Builder<'t> {
    parser: Parser<'t, StrInput<'t>>,
    file: u32,
    anchors: Vec<(usize, Node)>,
    size: Size,
    sections: &'t [&'t str],
    /// Whether it is known to be a configuration.
    known: bool,
    /// The keys that are in a mapping for the second time.
    again: Vec<BadYaml>,
}

/// The size of a tree.
#[derive(Clone, Copy, Debug, Default)]
pub struct Size {
    nodes: usize,
    text: usize,
    depth: usize,
}

impl Size {
    /// Counts so many bytes of text that were not in a file of the configuration.
    ///
    /// # Errors
    /// Fails when the whole is too large by now.
    pub fn add_text(&mut self, bytes: usize) -> Result<(), String> {
        self.text += bytes;
        if self.text > MAX_TEXT { Err(too_large()) } else { Ok(()) }
    }
}

fn too_large() -> String {
    let (values, text) = (MAX_NODES, MAX_TEXT >> 20);
    format!(
        "a configuration that is too large: at most {values} values and {text} MiB of text, \
         each alias counted as what it stands for"
    )
}

impl<'t> Builder<'t> {
    fn spot(&self, span: Span) -> Spot {
        Spot { file: self.file, line: span.start.line() as u32, column: span.start.col() as u32 + 1 }
    }

    fn next(&mut self) -> Result<(Event<'t>, Spot), BadYaml> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, self.spot(span))),
            Some(Err(error)) => {
                let at = error.marker();
                let spot = Spot { file: self.file, line: at.line() as u32, column: at.col() as u32 + 1 };
                // It quotes the file only here.
                let info = if error.info().starts_with("unexpected character") {
                    "unexpected character"
                } else {
                    error.info()
                };
                Err(BadYaml { spot, text: format!("no YAML: {info}") })
            }
            None => Err(BadYaml { spot: Spot::default(), text: "no YAML: it ends too early".to_owned() }),
        }
    }

    fn document(&mut self) -> Result<Node, BadYaml> {
        loop {
            let (event, spot) = self.next()?;
            match event {
                Event::StreamStart | Event::DocumentStart(_) | Event::Nothing => {}
                Event::StreamEnd => {
                    self.known = true;
                    return Ok(Node::new(Spot { line: 1, column: 1, ..spot }, Value::Map(Vec::new())));
                }
                event => {
                    let node = self.node(event, spot, 0)?;
                    return self.only(node);
                }
            }
        }
    }

    /// Checks that nothing follows the document.
    fn only(&mut self, node: Node) -> Result<Node, BadYaml> {
        loop {
            let (event, spot) = self.next()?;
            match event {
                Event::DocumentEnd | Event::Nothing => {}
                Event::StreamEnd => return Ok(node),
                _ => return Err(BadYaml { spot, text: "a second document; a file holds one".to_owned() }),
            }
        }
    }

    fn node(&mut self, event: Event<'t>, spot: Spot, depth: usize) -> Result<Node, BadYaml> {
        let text = if let Event::Scalar(text, ..) = &event { text.len() } else { 0 };
        grow(&mut self.size, Size { nodes: 1, text, depth }, spot)?;
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, _) => (scalar(&text, style), anchor),
            Event::SequenceStart(anchor, _) => (self.list(depth)?, anchor),
            Event::MappingStart(anchor, _) => (self.map(depth)?, anchor),
            Event::Alias(id) => {
                let found = self.anchors.iter().rev().find(|(anchor, _)| *anchor == id).map(|(_, node)| node);
                let node = found
                    .ok_or_else(|| BadYaml { spot, text: "an alias of an anchor that is not there".to_owned() })?;
                // Checked before it is copied: what is small as a text may be large as a tree.
                let size = size(node);
                grow(&mut self.size, Size { depth: depth + size.depth, ..size }, spot)?;
                return Ok(node.clone());
            }
            _ => return Err(BadYaml { spot, text: "no YAML: a value was expected".to_owned() }),
        };
        let node = Node::new(spot, value);
        if anchor > 0 {
            self.anchors.push((anchor, node.clone()));
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Value, BadYaml> {
        let mut items = Vec::new();
        loop {
            let (event, spot) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                // Most are short, and the spare capacity of lists adds up.
                items.shrink_to_fit();
                return Ok(Value::List(items));
            }
            items.push(self.node(event, spot, depth + 1)?);
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value, BadYaml> {
        let mut members: Vec<(MapKey, Node)> = Vec::new();
        let mut merged = Vec::new();
        // A few keys are compared with each other; a set is made where there are many.
        let mut seen = ahash::AHashSet::new();
        loop {
            let (event, spot) = self.next()?;
            let (text, is_plain) = match event {
                Event::MappingEnd => {
                    merged.into_iter().for_each(|other| merge(&mut members, other));
                    members.shrink_to_fit();
                    return Ok(Value::Map(members));
                }
                // Copied, as the parser's has capacity for a line.
                Event::Scalar(text, style, ..) => ((*text).to_owned(), style == ScalarStyle::Plain),
                _ => return Err(BadYaml { spot, text: "a key that is a text".to_owned() }),
            };
            if members.len() == FEW_KEYS {
                seen.extend(members.iter().map(|(key, _): &(MapKey, Node)| key.text.clone()));
            }
            let again = match members.len() {
                ..FEW_KEYS => members.iter().any(|(key, _)| key.text == text),
                _ => !seen.insert(text.clone()),
            };
            self.known |= depth == 0 && self.sections.contains(&text.as_str());
            let (event, value_spot) = self.next()?;
            let node = self.node(event, value_spot, depth + 1)?;
            if is_plain && text == "<<" {
                merged.extend(merged_mappings(node)?);
            } else if depth == 0 && text.starts_with("x-") {
                // It holds what anchors share.
            } else if again {
                self.second(&mut members, MapKey { spot, text }, node);
            } else {
                members.push((MapKey { spot, text }, node));
            }
        }
    }

    /// Notes a key that is there for the second time. What it holds is added to what is there, so that errors in it are
    /// found as well.
    fn second(&mut self, members: &mut [(MapKey, Node)], key: MapKey, node: Node) {
        let name = if self.known { format!("the key \"{}\"", key.text) } else { "a key".to_owned() };
        if self.again.len() < MAX_SHOWN {
            let text = format!("{name} for the second time in one mapping: put what both hold below one");
            self.again.push(BadYaml { spot: key.spot, text });
        }
        let Some((_, first)) = members.iter_mut().find(|(known, _)| known.text == key.text) else { return };
        match (&mut first.value, node.value) {
            (Value::List(items), Value::List(more)) => items.extend(more),
            (Value::Map(members), Value::Map(more)) => merge(members, more),
            _ => {}
        }
    }
}

/// Adds the members of another mapping that are not there.
fn merge(members: &mut Vec<(MapKey, Node)>, other: Vec<(MapKey, Node)>) {
    let known: ahash::AHashSet<String> = members.iter().map(|(key, _)| key.text.clone()).collect();
    members.extend(other.into_iter().filter(|(key, _)| !known.contains(&key.text)));
}

/// Returns the mappings that a merge key (`<<: *anchor`, `<<: [*one, *other]`) adds.
fn merged_mappings(node: Node) -> Result<Vec<Vec<(MapKey, Node)>>, BadYaml> {
    let nodes = match node.value {
        Value::List(items) => items,
        value => vec![Node { value, ..node }],
    };
    let wrong = |spot| BadYaml { spot, text: "<< merges mappings: write <<: *NAME of one that has &NAME".to_owned() };
    nodes
        .into_iter()
        .map(|node| if let Value::Map(members) = node.value { Ok(members) } else { Err(wrong(node.spot)) })
        .collect()
}

/// Counts a part of a tree at its depth.
fn grow(all: &mut Size, part: Size, spot: Spot) -> Result<(), BadYaml> {
    all.nodes += part.nodes;
    all.text += part.text;
    if part.depth > MAX_TREE_DEPTH {
        return Err(BadYaml {
            spot,
            text: format!(
                "a configuration that is too deep: at most {MAX_TREE_DEPTH} mappings and lists in each other"
            ),
        });
    }
    if all.nodes > MAX_NODES || all.text > MAX_TEXT { Err(BadYaml { spot, text: too_large() }) } else { Ok(()) }
}

/// Returns the size of a tree that is no deeper than it may be.
fn size(node: &Node) -> Size {
    let add = |all: Size, below: &Node| {
        let part = size(below);
        Size { nodes: all.nodes + part.nodes, text: all.text + part.text, depth: all.depth.max(1 + part.depth) }
    };
    let one = Size { nodes: 1, text: 0, depth: 0 };
    match &node.value {
        Value::List(items) => items.iter().fold(one, add),
        Value::Map(members) => {
            let keys = members.iter().map(|(key, _)| key.text.len()).sum();
            members.iter().map(|(_, below)| below).fold(Size { text: keys, ..one }, add)
        }
        Value::Text(text) => Size { text: text.len(), ..one },
        _ => one,
    }
}

/// Returns a plain scalar by the core schema; a quoted one is a text.
fn scalar(text: &str, style: ScalarStyle) -> Value {
    if style == ScalarStyle::Plain { plain_scalar(text) } else { Value::Text(text.to_owned()) }
}

/// Returns the value of a text without quotes by the core schema.
pub fn plain_scalar(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        _ => {}
    }
    if let Some(word) = ["true", "True", "TRUE", "false", "False", "FALSE"].into_iter().find(|word| *word == text) {
        return Value::Bool(word);
    }
    let numeric = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.'));
    if numeric {
        let digits = text.trim_start_matches(['-', '+']);
        // With a leading zero it is octal in YAML 1.1 and decimal in YAML 1.2: a text.
        if digits.len() > 1 && digits.bytes().all(|b| b.is_ascii_digit()) && digits.starts_with('0') {
            return Value::Text(text.to_owned());
        }
        if let Ok(integer) = text.parse::<i64>()
            && !text.starts_with('+')
            && text != "-0"
        {
            return Value::Integer(integer);
        }
        let plain = text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'-' | b'+' | b'.' | b'e' | b'E'));
        if let (true, Ok(float)) = (plain, text.parse::<f64>()) {
            return Value::Float(Box::new(Decimal { number: float, text: text.into() }));
        }
    }
    Value::Text(text.to_owned())
}
