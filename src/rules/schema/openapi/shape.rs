//! What a schema declares, so that a response can be filtered to it: members that are not declared never leave.
//!
//! The text is copied, so that numbers and texts stay as they are; only what is declared of it is.

use std::sync::Arc;

use ahash::AHashMap;
use serde_json::Value;
use smallvec::SmallVec;

use super::super::compiled::{CompiledSchema, FORBIDDEN, SchemaSet, SetCompiler};
use super::super::reading::skip_value;
use super::rewrite::{shared_number, shared_schema};

/// What a response may have, by its schema.
#[derive(Clone, Debug)]
pub struct Shape {
    schemas: Arc<SchemaSet>,
    all: Arc<Vec<ShapeNode>>,
    root: usize,
}

/// What one schema declares.
#[derive(Debug, Default)]
struct ShapeNode {
    /// Schemas that apply as well.
    applied: Vec<usize>,
    /// Schemas that may apply: what they declare of members and items is declared, and their types are no condition.
    conditional: Vec<usize>,
    /// Alternatives, each with the number of its schema, of which those apply that a value satisfies.
    choices: Vec<Vec<(Option<usize>, usize)>>,
    members: AHashMap<String, usize>,
    patterns: Vec<(regex::Regex, usize)>,
    /// All other members, where the schema says something of them.
    others: Option<usize>,
    /// Whether it says anything about members: otherwise all are declared.
    names_members: bool,
    first_items: Vec<usize>,
    items: Option<usize>,
    /// The types of values that are declared.
    types: KindSet,
    /// Whether nothing is declared.
    is_nothing: bool,
}

/// Types of JSON, a bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct KindSet(u8);

impl KindSet {
    const ALL: Self = Self(0x3f);
    const ARRAY: Self = Self(1 << 4);
    const OBJECT: Self = Self(1 << 5);

    fn of_name(name: &str) -> Self {
        match name {
            "null" => Self(1),
            "boolean" => Self(1 << 1),
            "number" | "integer" => Self(1 << 2),
            "string" => Self(1 << 3),
            "array" => Self::ARRAY,
            "object" => Self::OBJECT,
            _ => Self(0),
        }
    }

    fn of_value(value: &Value) -> Self {
        Self::of_name(match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        })
    }

    /// Returns the types that a schema declares: by `type`, else by the values of `enum` and `const`, else by keywords
    /// that say something of members or items alone.
    fn of_schema(keywords: &serde_json::Map<String, Value>) -> Self {
        let union = |all: &mut dyn Iterator<Item = Self>| Self(all.fold(0, |all, one| all | one.0));
        match (keywords.get("type"), keywords.get("enum"), keywords.get("const")) {
            (Some(Value::String(one)), ..) => Self::of_name(one),
            (Some(Value::Array(several)), ..) => {
                union(&mut several.iter().filter_map(Value::as_str).map(Self::of_name))
            }
            (_, Some(Value::Array(values)), _) => union(&mut values.iter().map(Self::of_value)),
            (_, _, Some(value)) => Self::of_value(value),
            _ => {
                let has = |keys: &[&str]| keys.iter().any(|key| keywords.contains_key(*key));
                let of_objects = has(&["properties", "patternProperties", "additionalProperties"]);
                match (of_objects, has(&["items", "prefixItems"])) {
                    (true, true) => Self(Self::OBJECT.0 | Self::ARRAY.0),
                    (true, false) => Self::OBJECT,
                    (false, true) => Self::ARRAY,
                    (false, false) => Self::ALL,
                }
            }
        }
    }

    fn has(self, value: &Value) -> bool {
        self.0 & Self::of_value(value).0 != 0
    }
}

impl Default for KindSet {
    fn default() -> Self {
        Self::ALL
    }
}

/// Builds the shapes of the schemas of one document.
#[derive(Debug)]
pub struct ShapeBuilder<'d> {
    definitions: &'d [Value],
    nodes: Vec<ShapeNode>,
    /// The nodes by the addresses of their schemas.
    known: AHashMap<usize, usize>,
    roots: AHashMap<usize, usize>,
}

/// Nodes by their numbers, each with whether it is sure to apply.
type Nodes = SmallVec<[(usize, bool); 8]>;

impl<'d> ShapeBuilder<'d> {
    /// Returns a builder over rewritten schemas.
    pub fn new(definitions: &'d [Value]) -> Self {
        Self { definitions, nodes: Vec::new(), known: AHashMap::new(), roots: AHashMap::new() }
    }

    /// Adds the schema of a number.
    pub fn add(&mut self, number: usize, compiler: &mut SetCompiler) {
        if let Some(schema) = self.definitions.get(number) {
            let node = self.node(schema, compiler);
            self.roots.insert(number, node);
        }
    }

    /// Returns the shape of the schema of each number.
    pub fn finish(self, schemas: &Arc<SchemaSet>) -> impl Fn(usize) -> Option<Shape> {
        let (all, schemas) = (Arc::new(self.nodes), Arc::clone(schemas));
        move |number| {
            let root = *self.roots.get(&number)?;
            Some(Shape { schemas: Arc::clone(&schemas), all: Arc::clone(&all), root })
        }
    }

    fn node(&mut self, schema: &'d Value, compiler: &mut SetCompiler) -> usize {
        let address = std::ptr::from_ref(schema).addr();
        if let Some(known) = self.known.get(&address) {
            return *known;
        }
        let number = self.nodes.len();
        self.known.insert(address, number);
        self.nodes.push(ShapeNode::default());
        let node = self.read(schema, compiler);
        self.nodes[number] = node;
        number
    }

    fn read(&mut self, schema: &'d Value, compiler: &mut SetCompiler) -> ShapeNode {
        let mut node = ShapeNode { is_nothing: *schema == Value::Bool(false), ..ShapeNode::default() };
        let Some(keywords) = schema.as_object() else { return node };
        node.is_nothing |= keywords.contains_key(FORBIDDEN);
        node.types = KindSet::of_schema(keywords);
        let list = |key: &str| keywords.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        if shared_number(schema).is_some()
            && let Some(target) = shared_schema(self.definitions, schema)
        {
            node.applied.push(self.node(target, compiler));
        }
        node.applied.extend(list("allOf").iter().map(|schema| self.node(schema, compiler)));
        for schema in ["if", "then", "else"].iter().filter_map(|key| keywords.get(*key)) {
            node.conditional.push(self.node(schema, compiler));
        }
        for key in ["anyOf", "oneOf"].into_iter().filter(|key| !list(key).is_empty()) {
            // The alternatives are valid schemas, as they are parts of one.
            let choices = list(key).iter().map(|schema| (compiler.add(schema).ok(), self.node(schema, compiler)));
            node.choices.push(choices.collect());
        }
        let named = |key: &str| keywords.get(key).and_then(Value::as_object).into_iter().flatten();
        for (name, schema) in named("properties") {
            node.members.insert(name.clone(), self.node(schema, compiler));
        }
        for (_, schema) in named("dependentSchemas") {
            node.conditional.push(self.node(schema, compiler));
        }
        for (expression, schema) in named("patternProperties") {
            let below = self.node(schema, compiler);
            // The compiler of schemas has accepted it; one that this one does not accept declares nothing.
            node.patterns.extend(regex::Regex::new(expression).ok().map(|expression| (expression, below)));
        }
        for key in ["additionalProperties", "unevaluatedProperties"] {
            if let Some(schema) = keywords.get(key).filter(|schema| **schema != Value::Bool(false)) {
                node.others = Some(self.node(schema, compiler));
            }
        }
        node.names_members = ["properties", "patternProperties", "additionalProperties", "unevaluatedProperties"]
            .iter()
            .any(|key| keywords.contains_key(*key));
        node.first_items.extend(list("prefixItems").iter().map(|schema| self.node(schema, compiler)));
        node.items = keywords.get("items").map(|schema| self.node(schema, compiler));
        node
    }
}

impl Shape {
    /// Returns a document without what is not declared; `null` where the whole has a type that is not declared. `value`
    /// is the document as it was parsed.
    pub fn filter(&self, document: &[u8], value: &Value) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(document.len());
        let mut text = Text { bytes: document, at: 0 };
        text.skip_space();
        let root: Nodes = SmallVec::from_slice(&[(self.root, true)]);
        if !self.allows(&root, value) {
            return Some(b"null".to_vec());
        }
        self.copy(&mut text, &root, value, &mut out)?;
        Some(out)
    }

    /// Returns all schemas that apply to a value.
    fn applied(&self, from: &[(usize, bool)], value: &Value) -> Nodes {
        let mut all: Nodes = SmallVec::new();
        let mut open: Nodes = from.iter().copied().collect();
        while let Some((number, sure)) = open.pop() {
            match all.iter_mut().find(|(known, _)| *known == number) {
                Some((_, known)) if *known || !sure => continue,
                Some((_, known)) => *known = true,
                None => all.push((number, sure)),
            }
            let node = &self.all[number];
            open.extend(node.applied.iter().map(|below| (*below, sure)));
            open.extend(node.conditional.iter().map(|below| (*below, false)));
            for choices in &node.choices {
                let schema = |number: usize| -> Option<CompiledSchema> { self.schemas.schema(number) };
                let fits = |(number, _): &&(Option<usize>, usize)| {
                    number.and_then(schema).is_none_or(|schema| schema.is_valid(value))
                };
                let before = open.len();
                open.extend(choices.iter().filter(fits).map(|(_, below)| (*below, sure)));
                if open.len() == before {
                    // The value is not valid; what any alternative declares is declared.
                    open.extend(choices.iter().map(|(_, below)| (*below, false)));
                }
            }
        }
        all
    }

    /// Returns whether values of that type are declared: by all schemas that are sure to apply, else by any.
    fn allows(&self, from: &[(usize, bool)], value: &Value) -> bool {
        let allows = |&(number, _): &(usize, bool)| self.node_allows(number, value, &mut SmallVec::new());
        if from.iter().any(|(_, sure)| *sure) {
            from.iter().filter(|(_, sure)| *sure).all(allows)
        } else {
            from.iter().any(allows)
        }
    }

    fn node_allows(&self, number: usize, value: &Value, open: &mut SmallVec<[usize; 8]>) -> bool {
        if open.contains(&number) {
            return true;
        }
        let node = &self.all[number];
        if node.is_nothing || !node.types.has(value) {
            return false;
        }
        open.push(number);
        let is_allowed = node.applied.iter().all(|below| self.node_allows(*below, value, open))
            && node.choices.iter().all(|all| all.iter().any(|(_, below)| self.node_allows(*below, value, open)));
        open.pop();
        is_allowed
    }

    /// Copies what is declared of a value whose type is declared.
    fn copy(&self, text: &mut Text<'_>, from: &[(usize, bool)], value: &Value, out: &mut Vec<u8>) -> Option<()> {
        let applied = match value {
            Value::Object(_) | Value::Array(_) => self.applied(from, value),
            _ => return text.copy_value(out),
        };
        let nodes = || applied.iter().map(|(number, _)| &self.all[*number]);
        match value {
            Value::Object(members) if nodes().any(|node| node.names_members) => {
                text.expect(b'{')?;
                out.push(b'{');
                let mut is_first = true;
                for (name, below) in members {
                    let key = text.raw()?;
                    text.expect(b':')?;
                    let declared = self.member(&applied, name);
                    if declared.is_empty() || !self.allows(&declared, below) {
                        text.raw()?;
                    } else {
                        if !is_first {
                            out.push(b',');
                        }
                        is_first = false;
                        out.extend_from_slice(key);
                        out.push(b':');
                        self.copy(text, &declared, below, out)?;
                        text.skip_space();
                    }
                    text.take(b',');
                }
                text.expect(b'}')?;
                out.push(b'}');
                Some(())
            }
            Value::Array(items) if nodes().any(|node| node.items.is_some() || !node.first_items.is_empty()) => {
                text.expect(b'[')?;
                out.push(b'[');
                let mut is_first = true;
                for (index, item) in items.iter().enumerate() {
                    let declared: Nodes = applied.iter().filter_map(|at| self.item(*at, index)).collect();
                    if declared.is_empty() || !self.allows(&declared, item) {
                        text.raw()?;
                    } else {
                        if !is_first {
                            out.push(b',');
                        }
                        is_first = false;
                        self.copy(text, &declared, item, out)?;
                        text.skip_space();
                    }
                    text.take(b',');
                }
                text.expect(b']')?;
                out.push(b']');
                Some(())
            }
            _ => text.copy_value(out),
        }
    }

    /// Returns the schema that another has for an item.
    fn item(&self, (number, sure): (usize, bool), index: usize) -> Option<(usize, bool)> {
        let node = &self.all[number];
        node.first_items.get(index).copied().or(node.items).map(|below| (below, sure))
    }

    /// Returns the schemas of a member; none where it is not declared, or not for this direction.
    fn member(&self, applied: &[(usize, bool)], name: &str) -> Nodes {
        let mut declared: Nodes = SmallVec::new();
        for (number, sure) in applied {
            let node = &self.all[*number];
            let before = declared.len();
            declared.extend(node.members.get(name).map(|below| (*below, *sure)));
            let matching = node.patterns.iter().filter(|(expression, _)| expression.is_match(name));
            declared.extend(matching.map(|(_, below)| (*below, *sure)));
            if declared.len() == before {
                declared.extend(node.others.map(|below| (below, *sure)));
            }
        }
        if declared.iter().any(|(number, _)| self.all[*number].is_nothing) {
            declared.clear();
        }
        declared
    }
}

/// A JSON text that was parsed before.
struct Text<'t> {
    bytes: &'t [u8],
    at: usize,
}

impl<'t> Text<'t> {
    fn skip_space(&mut self) {
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.bytes.get(self.at) == Some(&byte);
        if found {
            self.at += 1;
            self.skip_space();
        }
        found
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        self.skip_space();
        self.take(byte).then_some(())
    }

    /// Returns the text of the value that begins here, and goes behind it.
    fn raw(&mut self) -> Option<&'t [u8]> {
        self.skip_space();
        let end = skip_value(self.bytes, self.at)?;
        let raw = self.bytes.get(self.at..end)?;
        self.at = end;
        self.skip_space();
        Some(raw)
    }

    fn copy_value(&mut self, out: &mut Vec<u8>) -> Option<()> {
        out.extend_from_slice(self.raw()?);
        Some(())
    }
}
