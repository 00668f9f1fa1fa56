//! The expressions of attacks, each with the level from which on it is used. They are matched against values in lower
//! case, and stand in `patterns.txt`.

use regex::bytes::{RegexSet, RegexSetBuilder};
use schemars::JsonSchema;
use serde::Deserialize;

use super::AttackKinds;

/// A kind of attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AttackKind {
    /// SQL in a value (CWE-89), and operators of document stores (CWE-943).
    SqlInjection,
    /// Script or markup in a value (CWE-79).
    CrossSiteScripting,
    /// A path that leads out of its folder (CWE-22).
    PathTraversal,
    /// A command for a shell (CWE-78).
    CommandInjection,
    /// Files of a system, and inclusion of files by URL (CWE-98, CWE-538).
    FileAccess,
    /// Code of a template, an expression or a language (CWE-94, CWE-917), and serialised objects (CWE-502).
    CodeInjection,
    /// Lines that would be headers of their own (CWE-113).
    HeaderInjection,
    /// Programs that look for weaknesses, by the name that they give themselves.
    Scanner,
}

impl AttackKind {
    /// All kinds.
    const ALL: [Self; 8] = [
        Self::SqlInjection,
        Self::CrossSiteScripting,
        Self::PathTraversal,
        Self::CommandInjection,
        Self::FileAccess,
        Self::CodeInjection,
        Self::HeaderInjection,
        Self::Scanner,
    ];

    /// Returns the name.
    pub fn name(self) -> &'static str {
        match self {
            Self::SqlInjection => "sql_injection",
            Self::CrossSiteScripting => "cross_site_scripting",
            Self::PathTraversal => "path_traversal",
            Self::CommandInjection => "command_injection",
            Self::FileAccess => "file_access",
            Self::CodeInjection => "code_injection",
            Self::HeaderInjection => "header_injection",
            Self::Scanner => "scanner",
        }
    }
}

/// How much is taken for an attack: more is found at a higher level, and more that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Paranoia {
    /// What is hardly ever anything else.
    One,
    /// What is seldom anything else.
    Two,
    /// What is often anything else.
    Three,
}

/// The expressions, by lines.
const LINES: &str = include_str!("patterns.txt");

/// An expression of the file.
#[derive(Clone, Copy, Debug)]
struct Row {
    from: Paranoia,
    kind: AttackKind,
    name: &'static str,
    expression: &'static str,
}

/// Returns the rest of the line that begins with that word.
fn line(word: &str) -> &'static str {
    let lines = LINES.lines().filter_map(|line| line.split_once(' '));
    lines.filter(|(first, _)| *first == word).map(|(_, rest)| rest).next().unwrap_or_default()
}

/// Returns the expressions of all levels.
fn rows() -> impl Iterator<Item = Row> {
    LINES.lines().filter_map(|line| {
        let mut parts = line.splitn(4, ' ');
        let from = match parts.next()? {
            "1" => Paranoia::One,
            "2" => Paranoia::Two,
            "3" => Paranoia::Three,
            _ => return None,
        };
        let (kind, name) = (parts.next()?, parts.next()?);
        let kind = AttackKind::ALL.iter().copied().find(|known| known.name() == kind)?;
        Some(Row { from, kind, name, expression: parts.next()? })
    })
}

/// The names of members by which a document store takes a value for a condition.
pub const STORE_OPERATORS: &[&str] = &[
    "$eq",
    "$ne",
    "$gt",
    "$gte",
    "$lt",
    "$lte",
    "$in",
    "$nin",
    "$not",
    "$nor",
    "$or",
    "$and",
    "$exists",
    "$regex",
    "$where",
    "$expr",
    "$function",
    "$accumulator",
    "$mod",
    "$elemMatch",
    "$lookup",
];

/// The expressions of a level.
#[derive(Debug)]
pub struct PatternSet {
    rows: Vec<Row>,
    set: RegexSet,
    scanners: RegexSet,
}

impl PatternSet {
    /// Compiles the expressions of that level.
    pub fn of(paranoia: Paranoia) -> Self {
        let rows: Vec<Row> = rows().filter(|row| row.from <= paranoia).collect();
        let expressions = rows.iter().map(|row| row.expression.replace("COMMANDS", line("commands"))).collect();
        let build = |all: Vec<String>| {
            // Values are octets, and may be no text. A test compiles every expression.
            RegexSetBuilder::new(all)
                .unicode(false)
                .dot_matches_new_line(true)
                .build()
                .unwrap_or_else(|_| RegexSet::empty())
        };
        Self { set: build(expressions), rows, scanners: build(vec![line("scanners").to_owned()]) }
    }

    /// Returns kind and name of the first expression of one of these kinds that matches.
    pub fn find(&self, lower: &[u8], kinds: AttackKinds) -> Option<(AttackKind, &'static str)> {
        let matching = self.set.matches(lower).into_iter().filter_map(|index| self.rows.get(index));
        matching.map(|row| (row.kind, row.name)).find(|(kind, _)| kinds.has(*kind))
    }

    /// Returns the name of the rule, if the client calls itself one of these programs.
    pub fn scanner(&self, value: &[u8]) -> Option<&'static str> {
        self.scanners.is_match(value).then_some("scanner_name")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_expression_compiles() {
        let written = LINES.lines().filter(|line| line.starts_with(['1', '2', '3'])).count();
        assert_eq!(rows().count(), written, "every line is an expression");
        for paranoia in [Paranoia::One, Paranoia::Two, Paranoia::Three] {
            let set = PatternSet::of(paranoia);
            assert_eq!(set.set.len(), set.rows.len());
            assert!(!set.rows.is_empty() && set.scanners.len() == 1);
        }
    }
}
