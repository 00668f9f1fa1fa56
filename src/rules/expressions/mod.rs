//! Conditions in the Common Expression Language (CEL): compiled and bounded when the configuration is loaded, evaluated
//! for each request.
//!
//! An expression reads facts by their names, each only when it is evaluated. Its cost is computed when it is compiled,
//! with the longest list that a fact may have; a longer list is an error of the evaluation. Patterns of `matches` are
//! constants and compiled once. Nothing here panics: a panic of the interpreter is an error of the evaluation.

mod check;
mod values;

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};

use cel::common::ast::{CallExpr, Expr, LiteralValue};
use cel::common::types::{CelBool, STRING_TYPE};
use cel::common::value::CowVal;
use cel::context::VariableResolver;
use cel::parser::Macro;
use cel::{Context, Env, Program, Value};
use serde_json::Value as Json;

use values::{Pattern, of_fact};

/// The longest expression, in bytes.
pub const MAX_SOURCE: usize = 4_096;

/// The most elements of a list that an expression sees; with a longer one the evaluation fails.
pub const MAX_ITEMS: usize = 512;

/// The name of the function to which `matches` is compiled.
const MATCHES: &str = "matchesPattern";

/// The sign before the text of a pattern in the name of the value that holds it.
const PATTERN: &str = "@~";

/// The kind of a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FactKind {
    /// A text, a number or a truth value.
    Single,
    /// A list of texts.
    List,
    /// Values by name, such as headers.
    Map,
}

/// A fact that an expression reads.
#[derive(Debug)]
pub enum Fact<'f> {
    /// A text.
    Text(Cow<'f, str>),
    /// A number.
    Number(i64),
    /// A truth value.
    Flag(bool),
    /// A list of texts.
    Texts(Vec<Cow<'f, str>>),
    /// A value of a JSON document.
    Json(&'f Json),
    /// Values by name.
    Members(&'f dyn Members),
}

/// Values by name, each read when an expression asks for it.
pub trait Members: std::fmt::Debug + Send + Sync {
    /// Returns the value of that name.
    ///
    /// # Errors
    /// Returns why the value cannot be used: the evaluation fails.
    fn member(&self, name: &str) -> Result<Option<Fact<'_>>, String>;
}

/// The facts of one evaluation.
pub trait Facts: Send + Sync {
    /// Returns the fact of that name; `None` if there is none.
    fn fact(&self, name: &str) -> Option<Fact<'_>>;
}

/// A compiled condition.
#[derive(Debug)]
pub struct Expression {
    program: Program,
    patterns: Vec<Pattern>,
    facts: Vec<&'static str>,
}

/// The functions and macros of all expressions.
static ENVIRONMENT: LazyLock<Option<Arc<Env>>> = LazyLock::new(|| {
    let mut env = Env::stdlib().with_optional_support(false);
    env.add_macro(Macro::receiver("matches", 1, |helper, target, args| {
        let Some(pattern) = args.first().and_then(constant) else {
            let id = args.first().map_or(0, |arg| arg.id);
            return Err(helper.new_error(id, "the pattern of matches has to be a constant text"));
        };
        let pattern = helper.next_expr(Expr::Ident(format!("{PATTERN}{pattern}")));
        let call = CallExpr { func_name: MATCHES.to_owned(), target: target.take().map(Box::new), args: vec![pattern] };
        Ok(Some(helper.next_expr(Expr::Call(call))))
    }))
    .ok()?;
    let matches: cel::common::functions::Function = |args| {
        let text = args.first().and_then(|text| text.downcast_ref::<cel::common::types::CelString<'_>>());
        let pattern = args.get(1).and_then(|pattern| pattern.downcast_ref::<Pattern>());
        match (text, pattern) {
            (Some(text), Some(pattern)) => Ok(CowVal::owned(CelBool::from(pattern.regex.is_match(text.inner())))),
            _ => Err(cel::ExecutionError::missing_argument_or_target()),
        }
    };
    env.add_member_overload(MATCHES, "matches_pattern", STRING_TYPE, vec![values::PATTERN_TYPE], matches).ok()?;
    Some(Arc::new(env))
});

fn constant(expression: &cel::IdedExpr) -> Option<&str> {
    match &expression.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner()),
        _ => None,
    }
}

/// Returns the result of a call of the interpreter, whose panic is an error.
fn guarded<T>(call: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| Err("the interpreter panicked".to_owned()))
}

impl Expression {
    /// Compiles an expression over facts of those names and kinds.
    ///
    /// # Errors
    /// Returns what is wrong with it: its syntax, an unknown name, or that it may cost too much.
    pub fn compile(source: &str, known: &[(&'static str, FactKind)]) -> Result<Self, String> {
        if source.len() > MAX_SOURCE {
            return Err(format!("an expression has at most {MAX_SOURCE} bytes"));
        }
        check::nesting(source)?;
        let env = ENVIRONMENT.as_ref().ok_or("there is no interpreter")?;
        let program = guarded(|| env.compile(source).map_err(|errors| wording(&errors)))?;
        let checked = check::check(program.expression(), known)?;
        Ok(Self { program, patterns: checked.patterns, facts: checked.facts })
    }

    /// Returns the names of the facts that it reads.
    pub fn facts(&self) -> &[&'static str] {
        &self.facts
    }

    /// Returns whether the condition holds.
    ///
    /// # Errors
    /// Returns why it cannot be evaluated, for the log: a missing value, values of other types, a list that is too
    /// long. Whatever depends on the condition has to be rejected then.
    pub fn holds(&self, facts: &dyn Facts) -> Result<bool, String> {
        guarded(|| {
            let env = ENVIRONMENT.as_ref().ok_or("there is no interpreter")?;
            let resolver = Resolver { facts, patterns: &self.patterns };
            let mut context = Context::with_env(Arc::clone(env));
            context.set_variable_resolver(&resolver);
            let value = Value::resolve_val(self.program.expression(), &context).map_err(|error| shorten(&error))?;
            let holds = value.downcast_ref::<CelBool>().map(|holds| *holds.inner());
            holds.ok_or_else(|| format!("the result is not a truth value but of type {}", value.get_type().name()))
        })
    }
}

/// Returns a message of the parser without the part of the expression that it quotes, which may be a secret.
fn without_input(message: &str) -> String {
    let Some(begin) = message.find(" '") else { return message.to_owned() };
    let end = message.rfind(" expecting ").filter(|end| *end > begin).unwrap_or(message.len());
    format!("{}{}", &message[..begin], &message[end..])
}

/// Returns the first error of the parser, without the name of the file that it does not know.
fn wording(errors: &cel::ParseErrors) -> String {
    match errors.errors.first() {
        Some(error) => format!("line {}, column {}: {}", error.pos.0, error.pos.1, without_input(&error.msg)),
        None => "it cannot be parsed".to_owned(),
    }
}

/// Returns an error for the log: values of the request may be in it, so it is bounded.
fn shorten(error: &cel::ExecutionError) -> String {
    let mut text = error.to_string();
    if let Some((end, _)) = text.char_indices().nth(200) {
        text.truncate(end);
    }
    text
}

/// The interpreter's view of facts and patterns.
struct Resolver<'r> {
    facts: &'r dyn Facts,
    patterns: &'r [Pattern],
}

impl VariableResolver for Resolver<'_> {
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        if let Some(pattern) = name.strip_prefix(PATTERN) {
            return self
                .patterns
                .iter()
                .find(|known| known.regex.as_str() == pattern)
                .map(|known| CowVal::Borrowed(known));
        }
        self.facts.fact(name).map(of_fact)
    }
}

#[cfg(test)]
mod tests;
