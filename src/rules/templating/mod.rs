//! Templates in the language of Jinja: compiled and checked when the configuration is loaded, bounded when rendered.
//!
//! A template reads the values that it is given and nothing else: it includes no files, calls no methods, and has no
//! state. A missing value is an error, and so is a template that runs for too long or writes too much. What a value
//! becomes depends on the [`OutputForm`]: in JSON every value is written as JSON, and within a text of the template it
//! is escaped for that text, so that no value can change the structure of the document.

mod check;
mod format;
mod json;
mod literal;
mod write;

use std::fmt;

use minijinja::{AutoEscape, Environment, Error, UndefinedBehavior, Value};

pub use json::{json_value, of_json};
pub use literal::{has_template, is_template, template_of};

/// The longest template, in bytes.
pub const MAX_SOURCE: usize = 64 << 10;

/// The longest output of a template where no smaller limit is given, in bytes.
pub const MAX_OUTPUT: usize = 4 << 20;

/// The most work of one rendering: an instruction, or 64 bytes that are read or written, costs 1.
const FUEL: u64 = 400_000;

/// The deepest nesting of macros and recursive loops, each level of which takes stack.
const MAX_RECURSION: usize = 32;

/// The name under which the environment holds its only template.
const NAME: &str = "template";

/// The form of what a template writes, which decides how values are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputForm {
    /// A JSON document (RFC 8259). A value becomes JSON; within a text of the template it is escaped for that.
    Json,
    /// XML or HTML: `<`, `>`, `&` and quotes of values become entities.
    Xml,
    /// A part of a URL, or of a form: values are percent-encoded, except letters, digits, `-`, `.`, `_` and `~`.
    Url,
    /// Text: values are written as they are.
    Text,
}

/// A compiled template.
pub struct BodyTemplate {
    environment: Environment<'static>,
    form: OutputForm,
    /// The paths of the values that it reads.
    reads: Vec<String>,
    max_output: usize,
}

impl fmt::Debug for BodyTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyTemplate").field("form", &self.form).field("reads", &self.reads).finish_non_exhaustive()
    }
}

impl BodyTemplate {
    /// Compiles a template over values of those names: `request.method`, or `request` for all below it.
    ///
    /// # Errors
    /// Returns what is wrong with it, with line and column: its syntax, an unknown value or filter.
    pub fn new(source: &str, form: OutputForm, known: &[&str]) -> Result<Self, String> {
        if source.len() > MAX_SOURCE {
            return Err(format!("a template has at most {MAX_SOURCE} bytes"));
        }
        let mut environment = Environment::new();
        for name in ["safe", "escape", "e", "tojson", "pprint"] {
            environment.remove_filter(name);
        }
        environment.remove_global("namespace");
        environment.remove_global("debug");
        environment.add_filter("tojson", format::tojson);
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_recursion_limit(MAX_RECURSION);
        environment.set_fuel(Some(FUEL));
        environment.set_debug(true);
        // Everything that is written goes through the formatter, captured blocks and joined texts included.
        environment.set_auto_escape_callback(|_| AutoEscape::Custom("own".into()));
        environment.set_formatter(format::formatter(form));
        check::check_source(source)?;
        environment.add_template_owned(NAME, source.to_owned()).map_err(|error| wording(&error, source))?;
        let mut reads: Vec<String> = match environment.get_template(NAME) {
            Ok(template) => template.undeclared_variables(true).into_iter().collect(),
            Err(error) => return Err(wording(&error, source)),
        };
        reads.retain(|name| !environment.globals().any(|(global, _)| name == global));
        reads.sort_unstable();
        check::check_names(source, &reads, known)?;
        check::check_filters(source, |name| format::has_filter(&environment, name))?;
        Ok(Self { environment, form, reads, max_output: MAX_OUTPUT })
    }

    /// Limits the output to that many bytes.
    #[must_use]
    pub fn with_max_output(mut self, bytes: usize) -> Self {
        self.max_output = bytes;
        self
    }

    /// Returns whether it may read the value of that path, or one below it.
    pub fn reads(&self, path: &str) -> bool {
        self.reads.iter().any(|read| is_within(read, path) || is_within(path, read))
    }

    /// Renders the template.
    ///
    /// # Errors
    /// Returns why it cannot be rendered, for the log: a missing value, too much work or output, or JSON that is none.
    pub fn render(&self, values: Value) -> Result<String, String> {
        let template = self.environment.get_template(NAME).map_err(|error| error.to_string())?;
        let mut out = write::Written::new(self.form, self.max_output);
        let source = template.source();
        template.render_captured_to(values, &mut out).map_err(|error| wording(&error, source))?;
        out.finish()
    }
}

/// Returns whether a path is `of`, or leads into it.
fn is_within(path: &str, of: &str) -> bool {
    path.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Returns an error with its place.
fn wording(error: &Error, source: &str) -> String {
    let what = match error.detail() {
        Some(detail) => detail.chars().take(200).collect(),
        None => error.kind().to_string(),
    };
    let place = match (error.range(), error.line()) {
        (Some(range), _) if range.start <= source.len() => check::place(source, range.start),
        (_, Some(line)) => format!("line {line}"),
        _ => return what,
    };
    let quoted = error.range().and_then(|range| source.get(range)).filter(|text| text.len() <= 60);
    match quoted {
        Some(text) if !text.is_empty() && !text.contains('\n') => format!("{place}: {what}, at {text}"),
        _ => format!("{place}: {what}"),
    }
}

#[cfg(test)]
mod tests;
