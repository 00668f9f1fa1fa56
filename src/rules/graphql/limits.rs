//! The size of a query before it is executed: fragments count wherever they are used.

use std::collections::HashMap;

use apollo_compiler::ast::{Definition, Document, Field, OperationDefinition, OperationType, Selection, Value};
use serde_json::Map;

/// The most of each that a query may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryLimits {
    /// Levels of fields.
    pub depth: u64,
    /// Fields with an alias.
    pub aliases: u64,
    /// Fields.
    pub fields: u64,
    /// The cost: one for each field, as often as the lists around it have elements by `first`, `last` or `limit`.
    pub cost: u64,
}

/// The size of a query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuerySize {
    /// Levels of fields.
    pub depth: u64,
    /// Fields with an alias.
    pub aliases: u64,
    /// Fields.
    pub fields: u64,
    /// The cost.
    pub cost: u64,
}

impl QueryLimits {
    /// Returns which limit a query exceeds, if it does: its name, the size and the limit.
    pub fn exceeded(&self, size: &QuerySize) -> Option<(&'static str, u64, u64)> {
        let all = [
            ("depth", size.depth, self.depth),
            ("aliases", size.aliases, self.aliases),
            ("fields", size.fields, self.fields),
            ("cost", size.cost, self.cost),
        ];
        all.into_iter().find(|(_, size, limit)| size > limit)
    }
}

impl QuerySize {
    /// Returns the size of an operation of a document; of the largest one where none of that name is in it.
    pub fn of(document: &Document, operation: Option<&str>, variables: &Map<String, serde_json::Value>) -> Self {
        let mut sizes = Sizes { fragments: HashMap::new(), known: HashMap::new(), variables };
        let mut operations: Vec<&OperationDefinition> = Vec::new();
        for definition in &document.definitions {
            match definition {
                Definition::FragmentDefinition(fragment) => {
                    sizes.fragments.insert(fragment.name.as_str(), &fragment.selection_set);
                }
                Definition::OperationDefinition(found) => operations.push(found),
                _ => {}
            }
        }
        let named = operations.iter().find(|found| found.name.as_ref().map(|name| name.as_str()) == operation);
        match named {
            Some(named) if operation.is_some() => sizes.of_all(&named.selection_set),
            _ => operations.iter().map(|found| sizes.of_all(&found.selection_set)).fold(Self::default(), Self::larger),
        }
    }

    fn larger(self, other: Self) -> Self {
        Self {
            depth: self.depth.max(other.depth),
            aliases: self.aliases.max(other.aliases),
            fields: self.fields.max(other.fields),
            cost: self.cost.max(other.cost),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            depth: self.depth.max(other.depth),
            aliases: self.aliases.saturating_add(other.aliases),
            fields: self.fields.saturating_add(other.fields),
            cost: self.cost.saturating_add(other.cost),
        }
    }
}

/// Returns the kinds of the operations of a document, with their names.
pub fn operations(document: &Document) -> impl Iterator<Item = (OperationType, Option<&str>)> {
    document.definitions.iter().filter_map(|definition| match definition {
        Definition::OperationDefinition(found) => {
            Some((found.operation_type, found.name.as_ref().map(|name| name.as_str())))
        }
        _ => None,
    })
}

struct Sizes<'d> {
    fragments: HashMap<&'d str, &'d [Selection]>,
    /// The sizes of fragments; `None` while one is measured, so that a cycle ends.
    known: HashMap<&'d str, Option<QuerySize>>,
    variables: &'d Map<String, serde_json::Value>,
}

impl<'d> Sizes<'d> {
    fn of_all(&mut self, selections: &'d [Selection]) -> QuerySize {
        selections.iter().map(|selection| self.of(selection)).fold(QuerySize::default(), QuerySize::plus)
    }

    fn of(&mut self, selection: &'d Selection) -> QuerySize {
        match selection {
            Selection::Field(field) => {
                let within = self.of_all(&field.selection_set);
                QuerySize {
                    depth: within.depth + 1,
                    aliases: within.aliases + u64::from(field.alias.is_some()),
                    fields: within.fields.saturating_add(1),
                    cost: within.cost.saturating_mul(self.elements(field)).saturating_add(1),
                }
            }
            Selection::InlineFragment(fragment) => self.of_all(&fragment.selection_set),
            Selection::FragmentSpread(spread) => {
                let name = spread.fragment_name.as_str();
                if let Some(known) = self.known.get(name) {
                    return known.unwrap_or_default();
                }
                let Some(selections) = self.fragments.get(name).copied() else { return QuerySize::default() };
                self.known.insert(name, None);
                let size = self.of_all(selections);
                self.known.insert(name, Some(size));
                size
            }
        }
    }

    /// Returns how many elements a list has at most, as far as its arguments say it.
    fn elements(&self, field: &Field) -> u64 {
        let counts =
            field.arguments.iter().filter(|argument| matches!(argument.name.as_str(), "first" | "last" | "limit"));
        let values = counts.filter_map(|argument| match &*argument.value {
            Value::Int(number) => number.try_to_i32().ok().and_then(|number| u64::try_from(number).ok()),
            Value::Variable(name) => self.variables.get(name.as_str()).and_then(serde_json::Value::as_u64),
            _ => None,
        });
        values.max().unwrap_or(1).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(text: &str) -> [u64; 4] {
        let document = Document::parse(text, "q").expect("a document");
        let variables = serde_json::json!({"n": 7});
        let size = QuerySize::of(&document, None, variables.as_object().expect("an object"));
        [size.depth, size.aliases, size.fields, size.cost]
    }

    #[test]
    fn sizes_count_fragments_where_they_are_used() {
        assert_eq!(size("{a}"), [1, 0, 1, 1]);
        assert_eq!(size("{a{b c:d{e}}}"), [3, 1, 4, 4]);
        assert_eq!(size("{a(first:10){b} c(limit:$n){d{e}}}"), [3, 0, 5, 11 + 15]);
        assert_eq!(size("{a{...f} b{...f}} fragment f on X{c d{e}}"), [3, 0, 8, 8]);
        assert_eq!(size("query q{a} query r{a{b}}"), [2, 0, 2, 2]);
        // A cycle, which is not valid, ends.
        assert_eq!(size("{...f} fragment f on X{a{...g}} fragment g on X{b ...f}"), [2, 0, 2, 2]);
    }

    #[test]
    fn fragments_that_double_are_measured_at_once() {
        let mut text = "{...f0}".to_owned();
        for number in 0..60 {
            text.push_str(&format!(" fragment f{number} on X {{a{{...f{0}}} b{{...f{0}}}}}", number + 1));
        }
        text.push_str(" fragment f60 on X {c}");
        let [depth, _, fields, cost] = size(&text);
        assert!(depth == 61 && fields > 1 << 60 && cost > 1 << 60);
        let limits = QueryLimits { depth: 100, aliases: 1, fields: 1_000, cost: 1_000 };
        let document = Document::parse(text, "q").expect("a document");
        let exceeded = limits.exceeded(&QuerySize::of(&document, None, &Map::new()));
        assert_eq!(exceeded.map(|(name, ..)| name), Some("fields"));
    }
}
