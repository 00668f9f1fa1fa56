//! The size of a document: its depth, its fields, its aliases and its cost, each fragment measured once, so that spreads of
//! spreads cost no more than the text is long.

use std::collections::HashMap;

use apollo_compiler::ast::{Document, Field, FragmentDefinition, OperationDefinition, OperationType, Selection, Value};
use apollo_compiler::parser::Parser;
use serde_json::{Map, Value as Json};

/// The kind of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationKind {
    /// It has no effect.
    Query,
    /// It has an effect.
    Mutation,
    /// It has a stream of responses.
    Subscription,
}

impl OperationKind {
    /// Returns its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Mutation => "mutation",
            Self::Subscription => "subscription",
        }
    }
}

/// What is measured of an operation, with its fragments in place of their spreads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measures {
    /// The levels of fields.
    pub depth: u32,
    /// The fields.
    pub fields: u32,
    /// The fields with another name in the response.
    pub aliases: u32,
    /// The fields, each as often as the sizes of the lists above it say.
    pub cost: u64,
    /// Whether it reads the schema.
    pub introspects: bool,
}

impl Measures {
    fn add(&mut self, other: Self, times: u64) {
        self.depth = self.depth.max(other.depth);
        self.fields = self.fields.saturating_add(other.fields);
        self.aliases = self.aliases.saturating_add(other.aliases);
        self.cost = self.cost.saturating_add(other.cost.saturating_mul(times));
        self.introspects |= other.introspects;
    }
}

/// How costs are counted.
#[derive(Clone, Debug, Default)]
pub struct CostRules {
    /// The costs of fields by their names; others cost 1.
    pub fields: HashMap<String, u64>,
    /// The arguments that say how long a list is.
    pub sizes: Vec<String>,
}

/// An operation of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeasuredOperation {
    /// Its name.
    pub name: Option<String>,
    /// Its kind.
    pub kind: OperationKind,
    /// Its size.
    pub measures: Measures,
}

/// The deepest nesting that is parsed.
const MAX_NESTING: usize = 200;

/// The longest chain of fragments that spread each other.
const MAX_SPREADS: usize = 100;

/// Parses a document of at most `tokens` tokens, and measures its operations.
///
/// # Errors
/// Returns why it is no document that can be measured.
pub fn measure(
    text: &str,
    tokens: usize,
    rules: &CostRules,
    variables: &Map<String, Json>,
) -> Result<Vec<MeasuredOperation>, String> {
    let parsed = Parser::new().token_limit(tokens).recursion_limit(MAX_NESTING).parse_ast(text, "query");
    let document = parsed.map_err(|error| {
        let first = error.errors.iter().next().map(|error| error.error.to_string());
        first.unwrap_or_else(|| "it is not a document".to_owned())
    })?;
    let mut measuring = Measuring { rules, variables, fragments: fragments(&document)?, known: HashMap::new() };
    let mut operations = Vec::new();
    for definition in &document.definitions {
        if let Some(operation) = definition.as_operation_definition() {
            operations.push(measuring.operation(operation)?);
        } else if definition.as_fragment_definition().is_none() {
            return Err("a request has operations and fragments, and no definitions of types".to_owned());
        }
    }
    if operations.is_empty() { Err("there is no operation".to_owned()) } else { Ok(operations) }
}

fn fragments(document: &Document) -> Result<HashMap<&str, &FragmentDefinition>, String> {
    let mut fragments = HashMap::new();
    for fragment in document.definitions.iter().filter_map(|definition| definition.as_fragment_definition()) {
        if fragments.insert(fragment.name.as_str(), &**fragment).is_some() {
            return Err(format!("the fragment {} is there twice", fragment.name));
        }
    }
    Ok(fragments)
}

struct Measuring<'d> {
    rules: &'d CostRules,
    variables: &'d Map<String, Json>,
    fragments: HashMap<&'d str, &'d FragmentDefinition>,
    /// The fragments that are measured; `None` while one is.
    known: HashMap<&'d str, Option<Measures>>,
}

impl<'d> Measuring<'d> {
    fn operation(&mut self, operation: &'d OperationDefinition) -> Result<MeasuredOperation, String> {
        let kind = match operation.operation_type {
            OperationType::Query => OperationKind::Query,
            OperationType::Mutation => OperationKind::Mutation,
            OperationType::Subscription => OperationKind::Subscription,
        };
        let measures = self.selections(&operation.selection_set, 0)?;
        Ok(MeasuredOperation { name: operation.name.as_ref().map(|name| name.as_str().to_owned()), kind, measures })
    }

    fn selections(&mut self, selections: &'d [Selection], spreads: usize) -> Result<Measures, String> {
        let mut all = Measures::default();
        for selection in selections {
            match selection {
                Selection::Field(field) => all.add(self.field(field, spreads)?, 1),
                Selection::InlineFragment(inline) => all.add(self.selections(&inline.selection_set, spreads)?, 1),
                Selection::FragmentSpread(spread) => all.add(self.spread(&spread.fragment_name, spreads)?, 1),
            }
        }
        Ok(all)
    }

    fn spread(&mut self, name: &'d str, spreads: usize) -> Result<Measures, String> {
        match self.known.get(name) {
            Some(Some(known)) => return Ok(*known),
            Some(None) => return Err(format!("the fragment {name} spreads itself")),
            None if spreads >= MAX_SPREADS => return Err("too many fragments spread each other".to_owned()),
            None => {}
        }
        let fragment = self.fragments.get(name).ok_or_else(|| format!("there is no fragment {name}"))?;
        self.known.insert(name, None);
        let measures = self.selections(&fragment.selection_set, spreads + 1)?;
        self.known.insert(name, Some(measures));
        Ok(measures)
    }

    fn field(&mut self, field: &'d Field, spreads: usize) -> Result<Measures, String> {
        let below = self.selections(&field.selection_set, spreads)?;
        let name = field.name.as_str();
        let own = self.rules.fields.get(name).copied().unwrap_or(1);
        let mut measures = Measures {
            depth: 1,
            fields: 1,
            aliases: u32::from(field.alias.is_some()),
            cost: 0,
            introspects: matches!(name, "__schema" | "__type"),
        };
        let depth = below.depth;
        measures.add(below, 1);
        measures.depth = depth.saturating_add(1);
        measures.cost = own.saturating_add(below.cost).saturating_mul(self.size(field));
        Ok(measures)
    }

    /// Returns how many results the field is asked for, as far as an argument says so.
    fn size(&self, field: &Field) -> u64 {
        let sizes =
            field.arguments.iter().filter(|argument| self.rules.sizes.iter().any(|s| s == argument.name.as_str()));
        let number = |value: &Value| match value {
            Value::Int(number) => number.try_to_i32().ok().map(i64::from),
            Value::Variable(name) => self.variables.get(name.as_str()).and_then(Json::as_i64),
            _ => None,
        };
        // A size that cannot be read is as good as none.
        sizes.filter_map(|argument| number(&argument.value)).map(i64::unsigned_abs).max().unwrap_or(1).max(1)
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use proptest::prelude::*;

    use super::*;

    fn rules() -> CostRules {
        CostRules { fields: HashMap::from([("dear".to_owned(), 10)]), sizes: vec!["first".to_owned()] }
    }

    fn measured(text: &str) -> Result<Measures, String> {
        let variables = serde_json::json!({"n": 7}).as_object().cloned().expect("an object");
        measure(text, 1000, &rules(), &variables).map(|all| all[0].measures)
    }

    #[test]
    fn documents_are_measured() {
        for (text, depth, fields, aliases, cost) in [
            ("{ a }", 1, 1, 0, 1),
            ("{ a { b c } d }", 2, 4, 0, 4),
            ("{ x: a y: a { z: b } }", 2, 3, 3, 3),
            ("{ a(first: 10) { b { c } } }", 3, 3, 0, 30),
            ("query Q($n: Int) { a(first: $n) { b(first: 2) { c } } }", 3, 3, 0, 7 * (1 + 2 * 2)),
            ("{ a(first: -5) { dear } }", 2, 2, 0, 55),
            ("{ a(first: $missing) { b } }", 2, 2, 0, 2),
            ("{ ... on T { a { b } } ...F } fragment F on T { c { d { e } } }", 3, 5, 0, 5),
        ] {
            let measures = measured(text).expect("a document");
            let wanted = Measures { depth, fields, aliases, cost, introspects: false };
            assert_eq!(measures, wanted, "{text}");
        }
        assert!(
            measured("{ a ...F } fragment F on Q { __schema { types { name } } }").expect("a document").introspects
        );
        assert!(!measured("{ a { __typename } }").expect("a document").introspects);
    }

    #[test]
    fn spreads_of_spreads_are_measured_at_once() {
        let mut text = "{ ...F0 } ".to_owned();
        for number in 0..60 {
            let _ = write!(text, "fragment F{number} on T {{ ...F{0} ...F{0} }} ", number + 1);
        }
        text.push_str("fragment F60 on T { a(first: 1000) }");
        let measures = measured(&text).expect("a document");
        assert_eq!((measures.fields, measures.cost), (u32::MAX, u64::MAX));
    }

    #[test]
    fn what_cannot_be_measured_is_an_error() {
        for (text, wanted) in [
            ("{ a", "syntax error"),
            ("", "syntax error"),
            ("{ ...F } fragment F on T { a ...F }", "the fragment F spreads itself"),
            ("{ ...F } fragment F on T { ...G } fragment G on T { b { ...F } }", "the fragment F spreads itself"),
            ("{ ...G }", "there is no fragment G"),
            ("{ ...F } fragment F on T { a } fragment F on T { b }", "the fragment F is there twice"),
            ("fragment F on T { a }", "there is no operation"),
            ("type T { a: Int } query { a }", "no definitions of types"),
        ] {
            let error = measured(text).expect_err(text);
            assert!(error.contains(wanted), "{text}: {error}");
        }
        let deep = format!("{}a{}", "{ a ".repeat(5000), " }".repeat(5000));
        assert!(measured(&deep).is_err());
        let long = format!("{{ {} }}", "a ".repeat(2000));
        assert!(measured(&long).is_err());
        let arguments = format!("{{ a(b: {}1{}) }}", "[".repeat(490), "]".repeat(490));
        assert!(measured(&arguments).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_measured_or_an_error(text in "[{}()\\[\\]a-z:$!@.\" \\n#0-9]{0,80}") {
            let _ = measured(&text);
        }
    }
}
