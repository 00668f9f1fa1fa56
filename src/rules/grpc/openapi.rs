//! An OpenAPI document of an API: the paths of its rules, and the JSON of its messages.

use std::collections::{BTreeMap, BTreeSet};

use http::Method;
use serde_json::{Map, Value, json};

use super::api::{Api, BodyRule, MethodPlan, RulePlan, is_http_body};
use super::template::Segment;
use super::tree::RuleMethod;
use super::types::{Field, Form, Kind, Label, MessageId};
use super::write::JsonStyle;

/// How deep the fields of messages are listed as parameters of a query.
const MAX_QUERY_DEPTH: usize = 3;

/// The most parameters of one operation.
const MAX_PARAMETERS: usize = 200;

/// Returns the method of HTTP of a rule, as a word.
pub fn method_word(method: &RuleMethod) -> &str {
    match method {
        RuleMethod::Is(method) => method.as_str(),
        RuleMethod::Any => "*",
    }
}

/// Returns the document (OpenAPI 3.0.3).
pub fn openapi_document(api: &Api, style: JsonStyle) -> Value {
    let mut writing = Writing { api, style, wanted: BTreeSet::new() };
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    for rule in &api.rules {
        let RuleMethod::Is(method) = &rule.http_method else { continue };
        if !is_known(method) {
            continue;
        }
        let count = counts.entry(rule.method).or_default();
        *count += 1;
        let (path, parameters) = writing.path(rule);
        let operation = writing.operation(rule, *count, parameters);
        paths.entry(path).or_default().insert(method.as_str().to_ascii_lowercase(), operation);
    }
    let names: BTreeSet<&str> = api.methods.iter().filter_map(|method| Some(method.name.split_once('/')?.0)).collect();
    let title = names.iter().copied().collect::<Vec<_>>().join(", ");
    json!({
        "openapi": "3.0.3",
        "info": {"title": title, "version": "1"},
        "paths": paths,
        "components": {"schemas": writing.schemas()},
    })
}

fn is_known(method: &Method) -> bool {
    matches!(method.as_str(), "GET" | "PUT" | "POST" | "DELETE" | "OPTIONS" | "HEAD" | "PATCH" | "TRACE")
}

struct Writing<'a> {
    api: &'a Api,
    style: JsonStyle,
    /// The messages that are referred to.
    wanted: BTreeSet<MessageId>,
}

impl Writing<'_> {
    fn name<'f>(&self, field: &'f Field) -> &'f str {
        if self.style.proto_names { &field.name } else { &field.json_name }
    }

    /// Returns the path of a rule, and its parameters.
    fn path(&self, rule: &RulePlan) -> (String, Vec<Value>) {
        let (mut path, mut parameters) = (String::new(), Vec::new());
        for (at, segment) in rule.template.segments.iter().enumerate() {
            path.push('/');
            if let Segment::Literal(text) = segment {
                path.push_str(text);
                continue;
            }
            let index = rule.template.variables.iter().position(|v| (v.start..v.end).contains(&at));
            let of_variable = index.and_then(|index| rule.template.variables.get(index));
            let base = of_variable.map_or_else(|| format!("segment_{}", at + 1), |variable| variable.field.join("."));
            let wildcards = |range: std::ops::Range<usize>| {
                rule.template.segments[range].iter().filter(|s| !matches!(s, Segment::Literal(_))).count()
            };
            let name = match of_variable {
                Some(variable) if wildcards(variable.start..variable.end) > 1 => {
                    format!("{base}_{}", wildcards(variable.start..at + 1))
                }
                _ => base,
            };
            let field = index.and_then(|index| self.api.types.last(rule.variables.get(index)?));
            let is_whole = of_variable.is_some_and(|variable| !variable.is_multiple);
            let schema = match field.filter(|_| is_whole) {
                Some(field) => self.scalar(field.kind),
                None => json!({"type": "string"}),
            };
            let mut parameter = json!({"name": name, "in": "path", "required": true, "schema": schema});
            if *segment == Segment::Rest {
                parameter["description"] = "The rest of the path, which may have several segments.".into();
            }
            parameters.push(parameter);
            path.push_str(&format!("{{{name}}}"));
        }
        if path.is_empty() {
            path.push('/');
        }
        if let Some(verb) = &rule.template.verb {
            path.push(':');
            path.push_str(verb);
        }
        (path, parameters)
    }

    fn operation(&mut self, rule: &RulePlan, count: usize, mut parameters: Vec<Value>) -> Value {
        let method = &self.api.methods[rule.method];
        let (service, name) = method.name.split_once('/').unwrap_or(("", &method.name));
        let short = service.rsplit('.').next().unwrap_or(service);
        let id = if count == 1 { format!("{short}_{name}") } else { format!("{short}_{name}_{count}") };
        let mut operation = json!({"operationId": id, "tags": [service]});
        if let Some(comment) = &method.comment {
            operation["description"] = comment.to_string().into();
        }
        if method.is_deprecated {
            operation["deprecated"] = true.into();
        }
        if rule.body != BodyRule::All {
            let mut path = Vec::new();
            self.query(rule, method.input, &mut path, &mut parameters);
        }
        if !parameters.is_empty() {
            operation["parameters"] = parameters.into();
        }
        if let Some(body) = self.body(rule, method) {
            operation["requestBody"] = body;
        }
        let (media_type, schema) = self.response(rule, method);
        let status = self.api.status.map_or_else(|| json!({}), |id| self.reference(id));
        operation["responses"] = json!({
            "200": {"description": "The response.", "content": {media_type: {"schema": schema}}},
            "default": {"description": "An error.", "content": {"application/json": {"schema": status}}},
        });
        operation
    }

    /// Adds the fields of a message that a query may set.
    fn query(&self, rule: &RulePlan, id: MessageId, path: &mut Vec<(MessageId, u32)>, parameters: &mut Vec<Value>) {
        for (index, field) in self.api.types.message(id).fields.iter().enumerate() {
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            path.push((id, index));
            let is_bound = rule.variables.iter().any(|variable| variable.0 == *path)
                || path.len() == 1 && rule.body == BodyRule::Field(index);
            if !is_bound && parameters.len() < MAX_PARAMETERS {
                let is_text = self.api.types.is_text(field.kind);
                match (field.label, is_text) {
                    (Label::Single | Label::Repeated { .. }, true) => {
                        let names: Vec<&str> = path.iter().map(|step| self.name(self.api.types.step(*step))).collect();
                        let one = self.scalar(field.kind);
                        let is_list = field.label != Label::Single;
                        let schema = if is_list { json!({"type": "array", "items": one}) } else { one };
                        parameters.push(json!({"name": names.join("."), "in": "query", "schema": schema}));
                    }
                    (Label::Single, false) if path.len() < MAX_QUERY_DEPTH => {
                        let inner = field.kind.message().filter(|id| self.api.types.message(*id).form == Form::Plain);
                        inner.iter().for_each(|inner| self.query(rule, *inner, path, parameters));
                    }
                    _ => {}
                }
            }
            path.pop();
        }
    }

    fn body(&mut self, rule: &RulePlan, method: &MethodPlan) -> Option<Value> {
        let (is_data, schema) = match rule.body {
            BodyRule::None => return None,
            BodyRule::All => (is_http_body(&self.api.types, method.input), self.reference(method.input)),
            BodyRule::Field(index) => {
                let field = &self.api.types.message(method.input).fields[index as usize];
                let is_data = field.kind.message().is_some_and(|id| is_http_body(&self.api.types, id));
                (is_data, self.field(field))
            }
        };
        Some(if is_data {
            json!({"content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}})
        } else {
            let schema = if method.takes_stream { json!({"type": "array", "items": schema}) } else { schema };
            json!({"content": {"application/json": {"schema": schema}}})
        })
    }

    fn response(&mut self, rule: &RulePlan, method: &MethodPlan) -> (&'static str, Value) {
        let field = rule.response.and_then(|at| self.api.types.message(method.output).fields.get(at as usize));
        let id = field.map_or(Some(method.output), |field| field.kind.message());
        if id.is_some_and(|id| is_http_body(&self.api.types, id)) {
            return ("*/*", json!({"type": "string", "format": "binary"}));
        }
        let schema = match field {
            Some(field) => self.field(field),
            None => self.reference(method.output),
        };
        let schema = if method.returns_stream { json!({"type": "array", "items": schema}) } else { schema };
        ("application/json", schema)
    }

    fn reference(&mut self, id: MessageId) -> Value {
        let message = self.api.types.message(id);
        match message.form {
            Form::Plain => {
                self.wanted.insert(id);
                json!({"$ref": format!("#/components/schemas/{}", message.name)})
            }
            Form::Any => json!({
                "type": "object", "properties": {"@type": {"type": "string"}}, "additionalProperties": true,
            }),
            Form::Struct => json!({"type": "object", "additionalProperties": true}),
            Form::Value => json!({"nullable": true}),
            Form::List => json!({"type": "array", "items": {"nullable": true}}),
            Form::Wrapper => {
                let mut schema = message.fields.first().map_or_else(|| json!({}), |field| self.scalar(field.kind));
                schema["nullable"] = true.into();
                schema
            }
            Form::Timestamp => json!({"type": "string", "format": "date-time"}),
            Form::Duration | Form::FieldMask => json!({"type": "string"}),
        }
    }

    fn field(&mut self, field: &Field) -> Value {
        let one = |writing: &mut Self, kind: Kind| match kind.message() {
            Some(id) => writing.reference(id),
            None => writing.scalar(kind),
        };
        match field.label {
            Label::Single => one(self, field.kind),
            Label::Repeated { .. } => json!({"type": "array", "items": one(self, field.kind)}),
            Label::Map => {
                let entry = field.kind.message().map(|id| self.api.types.message(id));
                let value = entry.and_then(|entry| entry.fields.get(1)).map(|value| value.kind);
                json!({"type": "object", "additionalProperties": value.map_or(json!({}), |kind| one(self, kind))})
            }
        }
    }

    fn scalar(&self, kind: Kind) -> Value {
        match kind {
            Kind::Double => json!({"type": "number", "format": "double"}),
            Kind::Float => json!({"type": "number", "format": "float"}),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => json!({"type": "integer", "format": "int32"}),
            Kind::Uint32 | Kind::Fixed32 => json!({"type": "integer", "format": "int64", "minimum": 0}),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => json!({"type": "string", "format": "int64"}),
            Kind::Uint64 | Kind::Fixed64 => json!({"type": "string", "format": "uint64"}),
            Kind::Bool => json!({"type": "boolean"}),
            Kind::String => json!({"type": "string"}),
            Kind::Bytes => json!({"type": "string", "format": "byte"}),
            Kind::Enum(number) => {
                let of = self.api.types.enum_type(number);
                if self.style.enum_numbers {
                    let numbers: Vec<i32> = of.values.iter().map(|(_, number)| *number).collect();
                    json!({"type": "integer", "enum": numbers})
                } else {
                    let names: Vec<&str> = of.values.iter().map(|(name, _)| &**name).collect();
                    json!({"type": "string", "enum": names})
                }
            }
            Kind::Message(id) | Kind::Group(id) => {
                let message = self.api.types.message(id);
                match (message.form, message.fields.first()) {
                    (Form::Timestamp, _) => json!({"type": "string", "format": "date-time"}),
                    (Form::Wrapper, Some(field)) => self.scalar(field.kind),
                    _ => json!({"type": "string"}),
                }
            }
        }
    }

    /// Returns the schemas of all messages that are referred to, by others too.
    fn schemas(&mut self) -> Map<String, Value> {
        let mut done: BTreeMap<MessageId, Value> = BTreeMap::new();
        while let Some(id) = self.wanted.iter().copied().find(|id| !done.contains_key(id)) {
            let message = self.api.types.message(id);
            let mut properties = Map::new();
            for field in &message.fields {
                properties.insert(self.name(field).to_owned(), self.field(field));
            }
            done.insert(id, json!({"type": "object", "properties": properties}));
        }
        let name = |id: MessageId| self.api.types.message(id).name.to_string();
        let mut named: Vec<(String, Value)> = done.into_iter().map(|(id, schema)| (name(id), schema)).collect();
        named.sort_by(|one, other| one.0.cmp(&other.0));
        named.into_iter().collect()
    }
}
