//! OpenAPI 3.0 and 3.1, and Swagger 2.0: operations, and the rules for their requests and responses.

mod coercion;
mod load;
mod media;
mod parameters;
mod rewrite;
mod samples;
mod shape;
mod swagger;
mod template;

use http::{HeaderMap, Method};
use serde_json::Value;

use super::compiled::CompiledSchema;
use super::document::SchemaFault;
use super::instance::{BadJson, parse_json};
use super::violation::{MAX_VIOLATIONS, Violation, ViolationPlace};
use crate::rules::routing::form_decode;

pub use coercion::TextTypes;
pub use load::{load, load_schema};
pub use media::{BodyForm, MediaRange, best, essence, form_of};
pub use parameters::{Parameter, ParameterSource, query_pairs};
pub use rewrite::Direction;
pub use samples::{ResponseSamples, mock};
pub use shape::Shape;
pub use template::PathTemplate;

/// The message for a parameter that is no list and is given several times.
const REPEATED: &str = "is there more than once";

/// What is read of a document.
#[derive(Clone, Debug, Default)]
pub struct DocumentOptions {
    /// The path below which the paths are, if other than that of the first server.
    pub base_path: Option<String>,
    /// Whether read-only members are rejected in requests.
    pub rejects_read_only: bool,
    /// Whether responses are validated.
    pub with_responses: bool,
    /// Whether responses are filtered to what their schemas declare.
    pub with_shapes: bool,
    /// Whether the examples of responses are used.
    pub with_samples: bool,
    /// Whether the integrations of Amazon API Gateway are used, and operations for any method.
    pub with_integrations: bool,
}

/// A document.
#[derive(Debug)]
pub struct ApiDocument {
    /// The path below which its paths are, without a slash at its end.
    pub base: String,
    /// Its operations in the order of the text.
    pub operations: Vec<Operation>,
}

/// The `x-amazon-apigateway-integration` of an operation.
#[derive(Debug)]
pub struct AmazonIntegration {
    /// What it says.
    pub value: Value,
    /// An error without a text at its place.
    pub at: SchemaFault,
}

/// An operation.
#[derive(Debug)]
pub struct Operation {
    /// An error without a text at its place.
    pub at: SchemaFault,
    /// The integration of Amazon API Gateway, if it is used.
    pub integration: Option<AmazonIntegration>,
    /// Its `operationId`, or its method and template.
    pub id: String,
    /// The method.
    pub method: Method,
    /// The path as it is written.
    pub template: String,
    /// The path as a pattern.
    pub path: PathTemplate,
    /// The parameters.
    pub parameters: Vec<Parameter>,
    /// The rules for the request's body, if it may have one.
    pub body: Option<BodyRules>,
    /// The rules for its responses.
    pub responses: Vec<ResponseRules>,
    /// The examples of its responses.
    pub samples: Vec<ResponseSamples>,
}

/// The rules for a request's body.
#[derive(Debug)]
pub struct BodyRules {
    /// Whether there has to be one.
    pub required: bool,
    /// The rules by media type.
    pub contents: Vec<Content>,
}

/// The rules for a response.
#[derive(Debug)]
pub struct ResponseRules {
    /// The statuses that it is for.
    pub status: StatusRange,
    /// The rules by media type.
    pub contents: Vec<Content>,
}

/// The rules for a body of one media type.
#[derive(Debug)]
pub struct Content {
    /// The media type.
    pub range: MediaRange,
    /// The number of its schema.
    number: Option<usize>,
    /// The schema; without one every body is valid.
    pub schema: Option<CompiledSchema>,
    /// The types of the fields of a form.
    pub types: TextTypes,
    /// What may leave, where responses are filtered.
    pub shape: Option<Shape>,
}

/// The statuses that rules are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StatusRange {
    /// All that no others are for.
    Default,
    /// Those of a class, such as 2.
    Class(u16),
    /// One.
    Exact(u16),
}

impl StatusRange {
    /// Parses `200`, `2XX` or `default`.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "default" {
            return Some(Self::Default);
        }
        if let Some(class) = text.strip_suffix("XX").or_else(|| text.strip_suffix("xx")) {
            return class.parse().ok().filter(|class| (1..=5).contains(class)).map(Self::Class);
        }
        text.parse().ok().filter(|status| (100..=599).contains(status)).map(Self::Exact)
    }

    /// Returns whether it has a status.
    pub fn has(self, status: u16) -> bool {
        match self {
            Self::Default => true,
            Self::Class(class) => status / 100 == class,
            Self::Exact(exact) => status == exact,
        }
    }
}

/// The rules for the body of one message.
#[derive(Clone, Copy, Debug)]
pub enum BodyPlan<'o> {
    /// It has none, and needs none.
    Nothing,
    /// It has none, and needs one.
    Missing,
    /// It has another media type than those that are declared.
    OtherType,
    /// It is not looked into.
    Opaque,
    /// It is read in this form, and validated.
    Checked(&'o Content, BodyForm),
}

/// The reason for which a body is not valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadBody {
    /// It is not JSON.
    Json(BadJson),
    /// It is not UTF-8.
    NotUtf8,
    /// It violates its schema.
    Violations(Vec<Violation>),
}

impl Operation {
    /// Gives parameters and bodies their compiled schemas.
    fn set_schemas(&mut self, of: &dyn Fn(usize) -> Option<CompiledSchema>) {
        for parameter in &mut self.parameters {
            parameter.schema = parameter.number.and_then(of);
        }
        let contents = self.body.iter_mut().flat_map(|body| &mut body.contents);
        for content in contents.chain(self.responses.iter_mut().flat_map(|response| &mut response.contents)) {
            content.schema = content.number.and_then(of);
        }
    }

    /// Returns the violations of the parameters of a request. `strict` also rejects parameters of the query that are
    /// not declared.
    pub fn check_parameters(
        &self,
        path: &str,
        query: Option<&str>,
        headers: &HeaderMap,
        strict: bool,
    ) -> Vec<Violation> {
        let mut all = Vec::new();
        if self.parameters.is_empty() && (query.is_none() || !strict) {
            return all;
        }
        let (values, pairs) = (self.path.values(path), query_pairs(query));
        let source = ParameterSource { path: &values, query: &pairs, headers };
        for parameter in &self.parameters {
            parameter.check(&source, &mut all);
        }
        if strict {
            for (name, _) in &pairs {
                let is_declared = self.parameters.iter().any(|parameter| parameter.has_query_name(name));
                if !is_declared && all.len() < MAX_VIOLATIONS {
                    let pointer = super::violation::pointer_step(name);
                    all.push(Violation::new(ViolationPlace::Query, pointer, "additionalProperties", "is not declared"));
                }
            }
        }
        all
    }

    /// Returns the rules for the body of a request of that `Content-Type`.
    pub fn body_plan(&self, content_type: Option<&str>, is_empty: bool) -> BodyPlan<'_> {
        let Some(rules) = &self.body else { return BodyPlan::Nothing };
        if is_empty {
            return if rules.required { BodyPlan::Missing } else { BodyPlan::Nothing };
        }
        plan(&rules.contents, content_type)
    }

    /// Returns the rules for the response of a status: those of the status, else of its class, else the default.
    pub fn response(&self, status: u16) -> Option<&ResponseRules> {
        self.responses.iter().filter(|rules| rules.status.has(status)).max_by_key(|rules| rules.status)
    }
}

impl ResponseRules {
    /// Returns the rules for the body of a response of that `Content-Type`.
    pub fn body_plan(&self, content_type: Option<&str>) -> BodyPlan<'_> {
        plan(&self.contents, content_type)
    }
}

fn plan<'o>(contents: &'o [Content], content_type: Option<&str>) -> BodyPlan<'o> {
    if contents.is_empty() {
        return BodyPlan::OtherType;
    }
    let kind = essence(content_type.unwrap_or_default());
    let Some(content) = media::best(contents, |content| &content.range, kind) else { return BodyPlan::OtherType };
    match (&content.schema, form_of(kind)) {
        (None, _) | (_, BodyForm::Opaque) => BodyPlan::Opaque,
        (Some(_), form) => BodyPlan::Checked(content, form),
    }
}

impl Content {
    /// Validates a body that is read in a form.
    ///
    /// # Errors
    /// Returns why it is not valid.
    pub fn check(&self, form: BodyForm, body: &[u8]) -> Result<Value, BadBody> {
        let value = read_body(form, &self.types, body)?;
        match &self.schema {
            Some(schema) => check_value(schema, &value).map(|()| value),
            None => Ok(value),
        }
    }
}

/// Reads a body as a value.
///
/// # Errors
/// Returns why it cannot be read in that form.
pub fn read_body(form: BodyForm, types: &TextTypes, body: &[u8]) -> Result<Value, BadBody> {
    match form {
        BodyForm::Json => parse_json(body).map_err(BadBody::Json),
        BodyForm::Form => {
            let pairs = body.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).map(|pair| {
                let at = memchr::memchr(b'=', pair).unwrap_or(pair.len());
                let text = |part: &[u8]| String::from_utf8(form_decode(part).into_owned()).ok();
                Some((text(&pair[..at])?, text(pair.get(at + 1..).unwrap_or_default())?))
            });
            let pairs = pairs.collect::<Option<Vec<_>>>().ok_or(BadBody::NotUtf8)?;
            if let Some(name) = types.repeated(pairs.iter().map(|(name, _)| name.as_str())) {
                let pointer = super::violation::pointer_step(name);
                let violation = Violation::new(ViolationPlace::Body, pointer, "style", REPEATED);
                return Err(BadBody::Violations(vec![violation]));
            }
            Ok(types.object(pairs.into_iter()))
        }
        BodyForm::Text | BodyForm::Opaque => match std::str::from_utf8(body) {
            Ok(text) => Ok(Value::String(text.to_owned())),
            Err(_) => Err(BadBody::NotUtf8),
        },
    }
}

/// Validates a value as a body.
///
/// # Errors
/// Returns its violations.
pub fn check_value(schema: &CompiledSchema, value: &Value) -> Result<(), BadBody> {
    if schema.is_valid(value) {
        return Ok(());
    }
    let mut all = Vec::new();
    schema.collect(value, ViolationPlace::Body, "", &mut all);
    Err(BadBody::Violations(all))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
