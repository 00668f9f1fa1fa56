//! The checks of an expression when it is compiled: its names, its patterns and its cost.

use cel::IdedExpr;
use cel::common::ast::{ComprehensionExpr, EntryExpr, Expr, operators};

use super::values::Pattern;
use super::{FactKind, MATCHES, MAX_ITEMS, PATTERN};

/// The most steps of an evaluation; one takes some 200 ns.
const MAX_COST: u64 = 20_000;

/// The deepest nesting. The interpreter is recursive, and takes some 50 KiB of stack for a level.
const MAX_DEPTH: usize = 20;

/// The most signs that the parser may take for operators before a value, or for fields.
const MAX_SIGNS: usize = 256;

/// The most additions that are written, each of which may copy texts.
const MAX_ADDITIONS: usize = 16;

/// The names of types, for `type(x) == string`.
const TYPES: [&str; 10] = ["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"];

/// The functions, with what a call costs.
const FUNCTIONS: [(&str, u64); 12] = [
    ("size", 1),
    ("contains", 5),
    ("startsWith", 2),
    ("endsWith", 2),
    (MATCHES, 20),
    ("bool", 1),
    ("bytes", 5),
    ("double", 1),
    ("dyn", 1),
    ("int", 1),
    ("string", 5),
    ("uint", 1),
];

/// The operators.
const OPERATORS: [&str; 18] = [
    operators::CONDITIONAL,
    operators::LOGICAL_AND,
    operators::LOGICAL_OR,
    operators::LOGICAL_NOT,
    operators::SUBSTRACT,
    operators::ADD,
    operators::MULTIPLY,
    operators::DIVIDE,
    operators::MODULO,
    operators::EQUALS,
    operators::NOT_EQUALS,
    operators::GREATER_EQUALS,
    operators::LESS_EQUALS,
    operators::GREATER,
    operators::LESS,
    operators::NEGATE,
    operators::INDEX,
    operators::IN,
];

/// What the checks found.
#[derive(Debug, Default)]
pub struct Checked {
    /// The compiled patterns.
    pub patterns: Vec<Pattern>,
    /// The names of the facts that are read.
    pub facts: Vec<&'static str>,
    /// The most steps of an evaluation.
    #[cfg(test)]
    pub cost: u64,
}

/// Checks that brackets and signs are not nested too deeply for the parser, which is recursive.
pub fn nesting(source: &str) -> Result<(), String> {
    let (mut depth, mut signs) = (0_usize, 0_usize);
    for byte in source.bytes() {
        signs = match byte {
            b'!' | b'-' | b'.' | b'?' => signs + 1,
            _ => signs,
        };
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH || signs > MAX_SIGNS {
            return Err("it is nested too deeply".to_owned());
        }
    }
    Ok(())
}

/// Checks an expression and computes its cost.
pub fn check(expression: &IdedExpr, known: &[(&'static str, FactKind)]) -> Result<Checked, String> {
    let mut checker = Checker { known, scopes: Vec::new(), additions: 0, checked: Checked::default() };
    let cost = checker.cost(expression, 0)?;
    if cost > MAX_COST {
        return Err(format!(
            "it may take {cost} steps, and at most {MAX_COST} are allowed: nest fewer loops (a list of a request \
             counts with {MAX_ITEMS} elements)"
        ));
    }
    #[cfg(test)]
    {
        checker.checked.cost = cost;
    }
    Ok(checker.checked)
}

struct Checker<'c> {
    known: &'c [(&'static str, FactKind)],
    /// The variables of the loops around the present place.
    scopes: Vec<String>,
    additions: usize,
    checked: Checked,
}

impl Checker<'_> {
    /// Returns the cost of a value that is used as it is; a map of the request is none.
    fn cost(&mut self, expression: &IdedExpr, depth: usize) -> Result<u64, String> {
        if let Some(name) = self.map_name(&expression.expr) {
            return Err(format!("{name} holds values by name: write {name}[\"NAME\"], or \"NAME\" in {name}"));
        }
        self.cost_of(expression, depth)
    }

    /// Returns the cost of an expression, a map of the request included.
    fn cost_of(&mut self, expression: &IdedExpr, depth: usize) -> Result<u64, String> {
        if depth > MAX_DEPTH {
            return Err("it is nested too deeply".to_owned());
        }
        let depth = depth + 1;
        match &expression.expr {
            Expr::Unspecified => Err("it is incomplete".to_owned()),
            Expr::Literal(_) => Ok(1),
            Expr::Ident(name) => self.named(name),
            Expr::Select(select) => match qualified(&expression.expr) {
                Some(name) if !select.test => self.named(&name),
                _ => Ok(2 + self.cost_of(&select.operand, depth)?),
            },
            Expr::List(list) => list.elements.iter().try_fold(1, |sum, item| Ok(sum + self.cost(item, depth)?)),
            Expr::Map(map) => map.entries.iter().try_fold(1, |sum, entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => {
                    Ok(sum + self.cost(&entry.key, depth)? + self.cost(&entry.value, depth)?)
                }
                EntryExpr::StructField(_) => Err("messages are not known here".to_owned()),
            }),
            Expr::Struct(_) => Err("messages are not known here".to_owned()),
            Expr::Comprehension(comprehension) => self.comprehension(comprehension, depth),
            Expr::Call(call) => {
                let own = self.call(&call.func_name, &call.args)?;
                let target = call.target.iter().try_fold(0, |_, target| self.cost(target, depth))?;
                let maps: &[usize] = match call.func_name.as_str() {
                    operators::INDEX => &[0],
                    operators::IN => &[1],
                    _ => &[],
                };
                call.args.iter().enumerate().try_fold(own + target, |sum, (index, argument)| {
                    let cost = match maps.contains(&index) {
                        true => self.cost_of(argument, depth),
                        false => self.cost(argument, depth),
                    };
                    Ok(sum + cost?)
                })
            }
        }
    }

    /// Returns what a call itself costs.
    fn call(&mut self, name: &str, arguments: &[IdedExpr]) -> Result<u64, String> {
        if name == operators::ADD {
            // What loops add to their results is a part of them.
            if !matches!(arguments.first().map(|first| &first.expr), Some(Expr::Ident(name)) if name == "@result") {
                self.additions += 1;
            }
            if self.additions > MAX_ADDITIONS {
                return Err(format!("it has more than {MAX_ADDITIONS} additions"));
            }
            return Ok(20);
        }
        if OPERATORS.contains(&name) || name == operators::NOT_STRICTLY_FALSE {
            return Ok(1);
        }
        if let Some((_, cost)) = FUNCTIONS.iter().find(|(known, _)| *known == name) {
            return Ok(*cost);
        }
        if name == "type" {
            return Ok(1);
        }
        let known = FUNCTIONS.iter().map(|(known, _)| *known).filter(|known| *known != MATCHES).chain(["matches"]);
        Err(format!("there is no function {name}{}", nearest(name, known)))
    }

    /// Returns the cost of a loop: that of its body for the most elements that its list may have.
    fn comprehension(&mut self, of: &ComprehensionExpr, depth: usize) -> Result<u64, String> {
        let range = self.cost(&of.iter_range, depth)?;
        let count = match &of.iter_range.expr {
            Expr::List(list) => list.elements.len(),
            Expr::Map(map) => map.entries.len(),
            _ => MAX_ITEMS,
        };
        let variables = [Some(&of.iter_var), of.iter_var2.as_ref(), Some(&of.accu_var)];
        let outer = self.scopes.len();
        let init = self.cost(&of.accu_init, depth)?;
        for name in variables.into_iter().flatten() {
            if self.known.iter().any(|(fact, _)| fact.split('.').next() == Some(name.as_str())) {
                return Err(format!("{name} is the name of facts, and cannot be that of a loop's variable"));
            }
            self.scopes.push(name.clone());
        }
        let body = self.cost(&of.loop_cond, depth)? + self.cost(&of.loop_step, depth)?;
        let result = self.cost(&of.result, depth)?;
        self.scopes.truncate(outer);
        Ok(range.saturating_add(init).saturating_add(body.saturating_mul(count as u64)).saturating_add(result))
    }

    /// Returns the name of a map of the request that stands alone.
    fn map_name(&self, expression: &Expr) -> Option<&'static str> {
        let name = qualified(expression).filter(|name| !self.is_variable(name))?;
        self.known.iter().find(|(fact, kind)| *fact == name && *kind == FactKind::Map).map(|(fact, _)| *fact)
    }

    fn is_variable(&self, name: &str) -> bool {
        let root = name.split('.').next().unwrap_or_default();
        self.scopes.iter().any(|variable| variable == root)
    }

    /// Returns the cost of a name with its fields: a fact, a variable of a loop, a type or a pattern.
    fn named(&mut self, name: &str) -> Result<u64, String> {
        if let Some(pattern) = name.strip_prefix(PATTERN) {
            return self.pattern(pattern);
        }
        if self.is_variable(name) || TYPES.contains(&name) {
            return Ok(1);
        }
        let is_it = |(fact, kind): &&(&'static str, FactKind)| {
            let rest = name.strip_prefix(fact);
            rest.is_some_and(|rest| rest.is_empty() || (rest.starts_with('.') && *kind == FactKind::Map))
        };
        if let Some((fact, _)) = self.known.iter().find(is_it) {
            if !self.checked.facts.contains(fact) {
                self.checked.facts.push(fact);
            }
            return Ok(2);
        }
        if let Some((fact, _)) = self.known.iter().find(|(fact, _)| name.starts_with(&format!("{fact}."))) {
            return Err(format!("{fact} has no fields"));
        }
        let below: Vec<&str> =
            self.known.iter().map(|(fact, _)| *fact).filter(|fact| fact.starts_with(&format!("{name}."))).collect();
        if !below.is_empty() {
            return Err(format!("{name} is no value itself: write {}", below.join(", ")));
        }
        Err(format!("there is no {name}{}", nearest(name, self.known.iter().map(|(fact, _)| *fact))))
    }

    fn pattern(&mut self, pattern: &str) -> Result<u64, String> {
        if !self.checked.patterns.iter().any(|known| known.regex.as_str() == pattern) {
            let regex = regex::RegexBuilder::new(pattern).size_limit(1 << 20).build().map_err(|error| {
                let why = error.to_string();
                format!("the pattern {pattern:?} is wrong: {}", why.lines().last().unwrap_or_default())
            })?;
            self.checked.patterns.push(Pattern { regex });
        }
        Ok(1)
    }
}

/// Returns the name that identifiers and fields spell: `request.path`.
fn qualified(expression: &Expr) -> Option<String> {
    let mut segments = Vec::new();
    let mut at = expression;
    loop {
        match at {
            Expr::Ident(name) => {
                segments.push(name.as_str());
                segments.reverse();
                return Some(segments.join("."));
            }
            Expr::Select(select) if !select.test => {
                segments.push(&select.field);
                at = &select.operand.expr;
            }
            _ => return None,
        }
    }
}

/// Returns a hint at the name that is meant.
fn nearest<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> String {
    let known: Vec<&str> = known.collect();
    let near = known.iter().map(|known| (strsim::damerau_levenshtein(word, known), *known)).min();
    match near {
        Some((distance, near)) if distance <= 3 => format!("; did you mean {near}?"),
        _ => format!("; known: {}", known.join(", ")),
    }
}
