//! Reads an OpenAPI document: its operations with their parameters, bodies and responses.

use std::path::{Path, PathBuf};

use ahash::{AHashMap, AHashSet};
use http::Method;
use serde_json::Value;

use super::super::compiled::SetCompiler;
use super::super::document::{DocumentReader, SchemaFault, Spot};
use super::coercion::TextTypes;
use super::media::{BodyForm, MediaRange, form_of};
use super::parameters::{Parameter, ParameterPlace, Style};
use super::rewrite::{Direction, SchemaBuilder, compilable, shared_schema};
use super::shape::{Shape, ShapeBuilder};
use super::swagger::{ANY_METHOD, of_swagger};
use super::template::{PathPlace, PathTemplate};
use super::{
    AmazonIntegration, ApiDocument, BodyRules, Content, DocumentOptions, Operation, ResponseRules, StatusRange,
};
use crate::rules::nearest::nearest;

/// The methods of a path item.
pub const METHODS: &[&str] = &["get", "put", "post", "delete", "options", "head", "patch", "trace"];

/// The methods that an operation for any method stands for.
const ANY_METHODS: &[&str] = &["get", "put", "post", "delete", "options", "head", "patch"];

/// The other keys of a path item.
const OTHER_KEYS: &[&str] = &["$ref", "summary", "description", "servers", "parameters"];

/// The most operations of one document.
const MAX_OPERATIONS: usize = 10_000;

/// Headers of requests that are not parameters (OpenAPI 3.1.1, "Parameter Object").
const NO_PARAMETERS: &[&str] = &["accept", "content-type", "authorization"];

/// Reads a document and compiles its schemas. Returns it with the files that were read.
///
/// # Errors
/// Returns all errors, each with its place.
pub fn load(
    mut reader: DocumentReader,
    path: &Path,
    options: &DocumentOptions,
) -> Result<(ApiDocument, Vec<PathBuf>), Vec<SchemaFault>> {
    let file = reader.open_first(path).map_err(|fault| vec![fault])?;
    let mut loader = Loader { schemas: SchemaBuilder::new(reader), is_shared: false, options };
    let document = loader.document(file);
    let SchemaBuilder { reader, faults, .. } = loader.schemas;
    match document {
        Some(document) if faults.is_empty() => Ok((document, reader.paths())),
        _ => Err(faults),
    }
}

/// Reads a schema of its own, for the bodies of one direction, with its shape. Returns it with the files that were
/// read.
///
/// # Errors
/// Returns all errors, each with its place.
pub fn load_schema(
    reader: DocumentReader,
    file: usize,
    direction: Direction,
) -> Result<(Content, Vec<PathBuf>), Vec<SchemaFault>> {
    let mut schemas = SchemaBuilder::new(reader);
    let number = schemas.add(&Spot { file, pointer: String::new() }, direction);
    let definitions = schemas.finish();
    let mut compiler = SetCompiler::default();
    for number in 0..definitions.len() {
        if let Err((pointer, text)) = compiler.add(&compilable(&definitions, number)) {
            schemas.fault_in(number, &pointer, &text);
        }
    }
    let SchemaBuilder { reader, faults, .. } = schemas;
    if !faults.is_empty() {
        return Err(faults);
    }
    let mut shapes = ShapeBuilder::new(&definitions);
    shapes.add(number, &mut compiler);
    let all = compiler.finish();
    let shape = shapes.finish(&all)(number);
    let types = TextTypes::of(&definitions[number], &|schema| shared_schema(&definitions, schema));
    let schema = all.schema(number);
    let content = Content { range: MediaRange::new("*/*"), number: Some(number), schema, types, shape };
    Ok((content, reader.paths()))
}

struct Loader<'o> {
    schemas: SchemaBuilder,
    /// Whether the path item that is read may be that of several paths.
    is_shared: bool,
    options: &'o DocumentOptions,
}

impl Loader<'_> {
    fn document(&mut self, file: usize) -> Option<ApiDocument> {
        let mut source = self.schemas.reader.file(file);
        let root = Spot { file, pointer: String::new() };
        if source.value.get("swagger").and_then(Value::as_str) == Some("2.0") {
            self.schemas.reader.replace(file, of_swagger(&source.value));
            source = self.schemas.reader.file(file);
        }
        let version = source.value.get("openapi").and_then(Value::as_str).unwrap_or_default();
        if !version.starts_with("3.0") && !version.starts_with("3.1") {
            self.schemas.fault(&root, "expected a document with openapi: 3.0.x or 3.1.x, or swagger: '2.0'");
            return None;
        }
        self.schemas.is_old = version.starts_with("3.0");
        self.schemas.rejects_read_only = self.options.rejects_read_only;
        let base = match &self.options.base_path {
            Some(base) => base.clone(),
            None => base_path(&source.value),
        };
        let mut operations = Vec::new();
        let Some(paths) = source.value.get("paths").and_then(Value::as_object) else {
            self.schemas.fault(&root, "expected paths, a mapping");
            return None;
        };
        let at = root.below("paths");
        for (template, _) in paths.iter().filter(|(template, _)| !template.starts_with("x-")) {
            self.path_item(&at.below(template), template, &base, &mut operations);
        }
        self.check_names(&operations, &at);
        let definitions = self.schemas.finish();
        set_types(&mut operations, &definitions);
        let mut compiler = SetCompiler::default();
        for number in 0..definitions.len() {
            if let Err((pointer, text)) = compiler.add(&compilable(&definitions, number)) {
                self.schemas.fault_in(number, &pointer, &text);
            }
        }
        if !self.schemas.faults.is_empty() {
            return None;
        }
        let shapes = self.options.with_shapes.then(|| shapes(&operations, &definitions, &mut compiler));
        let all = compiler.finish();
        operations.iter_mut().for_each(|operation| operation.set_schemas(&|number| all.schema(number)));
        if let Some(shapes) = shapes {
            set_shapes(&mut operations, &shapes.finish(&all));
        }
        Some(ApiDocument { base, operations })
    }

    /// Notes operations of one name, and those that no request could tell apart.
    fn check_names(&mut self, operations: &[Operation], at: &Spot) {
        let (mut ids, mut paths) = (AHashSet::new(), AHashMap::new());
        for operation in operations {
            let spot = at.below(&operation.template);
            if !ids.insert(&operation.id) {
                self.schemas.fault(&spot, format!("the operationId {} is there twice", operation.id));
            }
            if let Some(other) = paths.insert((operation.path.key(), &operation.method), &operation.template) {
                let method = &operation.method;
                self.schemas.fault(&spot, format!("{method} matches the same requests as {method} of {other}"));
            }
        }
    }

    fn path_item(&mut self, spot: &Spot, text: &str, base: &str, operations: &mut Vec<Operation>) {
        let template = match PathTemplate::parse(base, text) {
            Ok(template) => template,
            Err(text) => return self.schemas.fault(spot, text),
        };
        let Some(item_spot) = self.schemas.follow(spot) else { return };
        let source = self.schemas.reader.file(item_spot.file);
        let Some(item) = source.value.pointer(&item_spot.pointer).filter(|item| item.is_object()) else {
            return self.schemas.fault(&item_spot, "expected a mapping of methods");
        };
        let is_key = |key: &str| METHODS.contains(&key) || OTHER_KEYS.contains(&key) || key.starts_with("x-");
        for (key, _) in item.as_object().into_iter().flatten().filter(|(key, _)| !is_key(key)) {
            let near = nearest(key, METHODS.iter().chain(OTHER_KEYS).copied());
            self.schemas.fault(&item_spot.below(key), format!("a path has no method or key \"{key}\"{near}"));
        }
        // Parameters of an item that several paths share may be for the others.
        self.is_shared = item_spot != *spot;
        let shared = self.parameters(&item_spot.below("parameters"), item.get("parameters"), &template);
        self.is_shared = false;
        for method in METHODS.iter().filter(|method| item.get(**method).is_some()) {
            if operations.len() >= MAX_OPERATIONS {
                return self.schemas.fault(&item_spot, format!("more than {MAX_OPERATIONS} operations"));
            }
            let at = item_spot.below(method);
            operations.extend(self.operation(&at, method, text, &template, &shared));
        }
        if self.options.with_integrations && item.get(ANY_METHOD).is_some() {
            let at = item_spot.below(ANY_METHOD);
            for method in ANY_METHODS.iter().filter(|method| item.get(**method).is_none()) {
                let mut made = self.operation(&at, method, text, &template, &shared);
                if let Some(operation) = &mut made {
                    operation.id = format!("{} {text}", operation.method);
                }
                operations.extend(made);
            }
        }
    }

    fn operation(
        &mut self,
        spot: &Spot,
        method: &str,
        text: &str,
        template: &PathTemplate,
        shared: &[Parameter],
    ) -> Option<Operation> {
        let source = self.schemas.reader.file(spot.file);
        let value = source.value.pointer(&spot.pointer)?;
        if !value.is_object() {
            self.schemas.fault(spot, "expected an operation, which is a mapping");
            return None;
        }
        let method: Method = method.to_ascii_uppercase().parse().ok()?;
        let id = value.get("operationId").and_then(Value::as_str).filter(|id| !id.is_empty());
        let id = id.map_or_else(|| format!("{method} {text}"), str::to_owned);
        let before = self.schemas.faults.len();
        let mut parameters = self.parameters(&spot.below("parameters"), value.get("parameters"), template);
        let is_own = |one: &Parameter| parameters.iter().any(|own| own.name == one.name && own.place == one.place);
        let inherited: Vec<Parameter> = shared.iter().filter(|one| !is_own(one)).cloned().collect();
        parameters.extend(inherited);
        for (number, (name, _)) in template.params.iter().enumerate() {
            let is_it = |one: &Parameter| one.place == ParameterPlace::Path(number);
            if self.schemas.faults.len() == before && !parameters.iter().any(is_it) {
                self.schemas.fault(spot, format!("the parameter {{{name}}} of the path is not declared"));
            }
        }
        let body = value.get("requestBody").and_then(|_| self.body(&spot.below("requestBody")));
        let responses = if self.options.with_responses {
            self.responses(&spot.below("responses"), value.get("responses"))
        } else {
            Vec::new()
        };
        let samples = if self.options.with_samples {
            super::samples::samples(&mut self.schemas, &spot.below("responses"), value.get("responses"))
        } else {
            Vec::new()
        };
        let key = "x-amazon-apigateway-integration";
        let integration = value.get(key).filter(|_| self.options.with_integrations).map(|integration| {
            AmazonIntegration { value: integration.clone(), at: self.schemas.reader.fault(&spot.below(key), "") }
        });
        let at = self.schemas.reader.fault(spot, "");
        Some(Operation {
            at,
            integration,
            id,
            method,
            template: text.to_owned(),
            path: template.clone(),
            parameters,
            body,
            responses,
            samples,
        })
    }

    fn parameters(&mut self, spot: &Spot, list: Option<&Value>, template: &PathTemplate) -> Vec<Parameter> {
        let Some(list) = list else { return Vec::new() };
        let Some(items) = list.as_array() else {
            self.schemas.fault(spot, "expected a list of parameters");
            return Vec::new();
        };
        (0..items.len()).filter_map(|index| self.parameter(&spot.below(&index.to_string()), template)).collect()
    }

    fn parameter(&mut self, spot: &Spot, template: &PathTemplate) -> Option<Parameter> {
        let spot = self.schemas.follow(spot)?;
        let source = self.schemas.reader.file(spot.file);
        let value = source.value.pointer(&spot.pointer)?;
        let text = |key: &str| value.get(key).and_then(Value::as_str);
        let flag = |key: &str| value.get(key).and_then(Value::as_bool);
        let (Some(name), Some(place)) = (text("name"), text("in")) else {
            self.schemas.fault(&spot, "expected a parameter with name and in");
            return None;
        };
        let (place, usual) = match place {
            "path" => {
                let Some(number) = template.params.iter().position(|(known, _)| known == name) else {
                    if !self.is_shared {
                        let near = nearest(name, template.params.iter().map(|(known, _)| known.as_str()));
                        let text = format!("the path has no parameter {{{name}}}{near}");
                        self.schemas.fault(&spot.below("name"), text);
                    }
                    return None;
                };
                (ParameterPlace::Path(number), Style::Simple)
            }
            "query" => (ParameterPlace::Query, Style::Form),
            "header" if NO_PARAMETERS.contains(&name.to_ascii_lowercase().as_str()) => return None,
            "header" => match name.parse() {
                Ok(header) => (ParameterPlace::Header(header), Style::Simple),
                Err(_) => {
                    self.schemas.fault(&spot, format!("{name} cannot be the name of a header"));
                    return None;
                }
            },
            "cookie" => (ParameterPlace::Cookie, Style::Form),
            other => {
                self.schemas.fault(&spot.below("in"), format!("expected path, query, header or cookie, found {other}"));
                return None;
            }
        };
        let content = value.get("content").and_then(Value::as_object).and_then(|content| content.keys().next());
        let style = match (content, text("style")) {
            (Some(_), _) => Style::Content,
            (None, None) => usual,
            (None, Some(word)) => self.style(&spot, word, usual),
        };
        let schema = match content {
            Some(kind) => spot.below("content").below(kind).below("schema"),
            None => spot.below("schema"),
        };
        let has_schema = source.value.pointer(&schema.pointer).is_some();
        Some(Parameter {
            name: name.to_owned(),
            required: matches!(place, ParameterPlace::Path(_)) || flag("required").unwrap_or(false),
            place,
            allow_empty: flag("allowEmptyValue").unwrap_or(false),
            style,
            explode: flag("explode").unwrap_or(matches!(style, Style::Form | Style::DeepObject)),
            types: TextTypes::default(),
            number: has_schema.then(|| self.schemas.add(&schema, Direction::Request)),
            schema: None,
        })
    }

    fn style(&mut self, spot: &Spot, word: &str, usual: Style) -> Style {
        match (word, usual) {
            ("simple", Style::Simple) => Style::Simple,
            ("label", Style::Simple) => Style::Label,
            ("matrix", Style::Simple) => Style::Matrix,
            ("form" | "cookie", Style::Form) => Style::Form,
            ("spaceDelimited", Style::Form) => Style::Space,
            ("pipeDelimited", Style::Form) => Style::Pipe,
            ("deepObject", Style::Form) => Style::DeepObject,
            _ => {
                self.schemas.fault(&spot.below("style"), format!("the style {word} is not one of this place"));
                usual
            }
        }
    }

    fn body(&mut self, spot: &Spot) -> Option<BodyRules> {
        let spot = self.schemas.follow(spot)?;
        let source = self.schemas.reader.file(spot.file);
        let value = source.value.pointer(&spot.pointer)?;
        let contents = self.contents(&spot.below("content"), value.get("content"), Direction::Request);
        Some(BodyRules { required: value.get("required") == Some(&Value::Bool(true)), contents })
    }

    fn contents(&mut self, spot: &Spot, value: Option<&Value>, direction: Direction) -> Vec<Content> {
        let all = value.and_then(Value::as_object).into_iter().flatten();
        all.map(|(kind, content)| {
            let form = form_of(MediaRange::new(kind).as_str());
            let is_checked = form != BodyForm::Opaque || !MediaRange::new(kind).is_exact();
            let number = (is_checked && content.get("schema").is_some())
                .then(|| self.schemas.add(&spot.below(kind).below("schema"), direction));
            Content { range: MediaRange::new(kind), number, schema: None, types: TextTypes::default(), shape: None }
        })
        .collect()
    }

    fn responses(&mut self, spot: &Spot, value: Option<&Value>) -> Vec<ResponseRules> {
        let mut all = Vec::new();
        for (status, _) in value.and_then(Value::as_object).into_iter().flatten() {
            if status.starts_with("x-") {
                continue;
            }
            let at = spot.below(status);
            let Some(range) = StatusRange::parse(status) else {
                self.schemas.fault(&at, "expected a status such as 200, 2XX or default");
                continue;
            };
            let Some(at) = self.schemas.follow(&at) else { continue };
            let source = self.schemas.reader.file(at.file);
            let content = source.value.pointer(&at.pointer).and_then(|response| response.get("content"));
            let contents = self.contents(&at.below("content"), content, Direction::Response);
            all.push(ResponseRules { status: range, contents });
        }
        all
    }
}

/// Sets the types of the texts of parameters and forms, by the rewritten schemas.
fn set_types(operations: &mut [Operation], definitions: &[Value]) {
    let of = |number: Option<usize>| {
        let schema = number.and_then(|number| definitions.get(number));
        TextTypes::of(schema.unwrap_or(&Value::Null), &|schema| shared_schema(definitions, schema))
    };
    for operation in operations {
        for parameter in &mut operation.parameters {
            parameter.types = of(parameter.number);
        }
        for content in operation.body.iter_mut().flat_map(|body| &mut body.contents) {
            if form_of(content.range.as_str()) == BodyForm::Form {
                content.types = of(content.number);
            }
        }
    }
}

/// Returns the shapes of all responses.
fn shapes<'d>(operations: &[Operation], definitions: &'d [Value], compiler: &mut SetCompiler) -> ShapeBuilder<'d> {
    let mut shapes = ShapeBuilder::new(definitions);
    let responses = operations.iter().flat_map(|operation| &operation.responses);
    for number in responses.flat_map(|response| &response.contents).filter_map(|content| content.number) {
        shapes.add(number, compiler);
    }
    shapes
}

/// Sets what responses may have.
fn set_shapes(operations: &mut [Operation], shape: &dyn Fn(usize) -> Option<Shape>) {
    let responses = operations.iter_mut().flat_map(|operation| &mut operation.responses);
    for content in responses.flat_map(|response| &mut response.contents) {
        content.shape = content.number.and_then(shape);
    }
}

/// Returns the path of the first server, with the defaults of its variables.
fn base_path(document: &Value) -> String {
    let server = document.pointer("/servers/0");
    let mut url = server.and_then(|server| server.get("url")).and_then(Value::as_str).unwrap_or("/").to_owned();
    let variables = server.and_then(|server| server.get("variables")).and_then(Value::as_object);
    for (name, variable) in variables.into_iter().flatten() {
        let value = variable.get("default").and_then(Value::as_str).unwrap_or_default();
        url = url.replace(&format!("{{{name}}}"), value);
    }
    let path = match url.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("", |at| &rest[at..]),
        None if url.starts_with('/') => &url,
        None => "",
    };
    path.trim_end_matches('/').to_owned()
}

impl PathTemplate {
    /// Returns the pattern as a key: parameters match alike whatever their names are.
    pub fn key(&self) -> String {
        let params: Vec<usize> = self
            .params
            .iter()
            .filter_map(|(_, place)| if let PathPlace::Segment(index) = place { Some(*index) } else { None })
            .collect();
        let text = self.pattern.to_string();
        let steps = text.split('/').skip(1).enumerate();
        steps.map(|(index, step)| if params.contains(&index) { "/{}".to_owned() } else { format!("/{step}") }).collect()
    }
}
