//! An API: the methods of services, and the rules by which requests of HTTP call them (google/api/http.proto).

use http::Method;
use prost_reflect::{
    DescriptorPool, DynamicMessage, ExtensionDescriptor, FileDescriptor, MethodDescriptor, ServiceDescriptor, Value,
};

use super::template::PathTemplate;
use super::tree::{RuleMethod, RuleTree};
use super::types::{FieldPath, Label, MessageId, Types};

/// The most rules of an API.
const MAX_RULES: usize = 20_000;

/// Levels of idempotency with which a call may be sent again: `NO_SIDE_EFFECTS`, `IDEMPOTENT` (descriptor.proto).
const REPEATABLE: [i32; 2] = [1, 2];

/// An API.
#[derive(Debug)]
pub struct Api {
    /// The types of all messages.
    pub types: Types,
    /// The methods that have a rule.
    pub methods: Vec<MethodPlan>,
    /// The rules in their order.
    pub rules: Vec<RulePlan>,
    /// The templates of the rules.
    pub tree: RuleTree,
    /// `google.rpc.Status`.
    pub status: Option<MessageId>,
}

/// A method.
#[derive(Debug)]
pub struct MethodPlan {
    /// Its name, `package.Service/Method`.
    pub name: Box<str>,
    /// Its path.
    pub target: Box<str>,
    /// The message that it takes.
    pub input: MessageId,
    /// The message that it returns.
    pub output: MessageId,
    /// Whether it takes a stream of messages.
    pub takes_stream: bool,
    /// Whether it returns a stream of messages.
    pub returns_stream: bool,
    /// Whether it may be called again, whatever the method of HTTP.
    pub is_repeatable: bool,
    /// Whether it is deprecated.
    pub is_deprecated: bool,
    /// The comment before it.
    pub comment: Option<Box<str>>,
}

/// A rule.
#[derive(Debug)]
pub struct RulePlan {
    /// The number of the method that it calls.
    pub method: usize,
    /// The method of HTTP.
    pub http_method: RuleMethod,
    /// The template as it is written.
    pub text: Box<str>,
    /// The template.
    pub template: PathTemplate,
    /// The field of each variable of the template.
    pub variables: Vec<FieldPath>,
    /// Which part of the message the body is.
    pub body: BodyRule,
    /// The field of the response that is its body.
    pub response: Option<u32>,
}

/// Which part of a message the body of a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyRule {
    /// None.
    None,
    /// The message with all fields that the path does not set.
    All,
    /// The field of that index.
    Field(u32),
}

/// Which services an API has.
#[derive(Clone, Copy, Debug)]
pub struct ApiScope<'s> {
    /// The names of the files whose services are taken.
    pub files: &'s [String],
    /// The names of services that are taken instead.
    pub services: &'s [String],
    /// Whether methods without a rule have one.
    pub unruled: bool,
}

impl Api {
    /// Compiles the services of a pool.
    ///
    /// # Errors
    /// Returns all errors, each with its place if that is known.
    pub fn new(pool: &DescriptorPool, scope: &ApiScope<'_>) -> Result<Self, Vec<String>> {
        let mut errors = Vec::new();
        let services = services(pool, scope, &mut errors);
        let types = Types::new(pool);
        let status = types.id("google.rpc.Status");
        let mut building = Building {
            api: Self { types, methods: Vec::new(), rules: Vec::new(), tree: RuleTree::default(), status },
            errors,
        };
        let extension = pool.get_extension_by_name("google.api.http");
        for method in services.iter().flat_map(ServiceDescriptor::methods) {
            building.method(&method, extension.as_ref(), scope.unruled);
        }
        if building.errors.is_empty() && building.api.rules.is_empty() {
            building.errors.push(
                "no method has a rule (option google.api.http): nothing would be called; set routes_without_rules to \
                 call methods by their names"
                    .to_owned(),
            );
        }
        if building.errors.is_empty() { Ok(building.api) } else { Err(building.errors) }
    }
}

fn services(pool: &DescriptorPool, scope: &ApiScope<'_>, errors: &mut Vec<String>) -> Vec<ServiceDescriptor> {
    if scope.services.is_empty() {
        let is_named =
            |service: &ServiceDescriptor| scope.files.iter().any(|name| name == service.parent_file().name());
        return pool.services().filter(is_named).collect();
    }
    let mut found = Vec::with_capacity(scope.services.len());
    for name in scope.services {
        match pool.get_service_by_name(name) {
            Some(service) => found.push(service),
            None => {
                let all: Vec<String> = pool.services().take(8).map(|service| service.full_name().to_owned()).collect();
                errors.push(format!("there is no service {name}; there are {}", all.join(", ")));
            }
        }
    }
    found
}

/// An API that is being compiled.
struct Building {
    api: Api,
    errors: Vec<String>,
}

impl Building {
    fn method(&mut self, method: &MethodDescriptor, extension: Option<&ExtensionDescriptor>, unruled: bool) {
        let service = method.parent_service();
        let target = format!("/{}/{}", service.full_name(), method.name());
        let options = method.options();
        let rule = extension
            .filter(|extension| options.has_extension(extension))
            .and_then(|extension| options.get_extension(extension).as_message().cloned());
        let mut wrong = Vec::new();
        let (Some(input), Some(output)) =
            (self.api.types.id(method.input().full_name()), self.api.types.id(method.output().full_name()))
        else {
            return;
        };
        let flag = |name: &str| options.get_field_by_name(name).and_then(|value| value.as_bool()).unwrap_or_default();
        let level = options.get_field_by_name("idempotency_level").and_then(|value| value.as_enum_number());
        let plan = MethodPlan {
            name: target[1..].into(),
            target: target.clone().into(),
            input,
            output,
            takes_stream: method.is_client_streaming(),
            returns_stream: method.is_server_streaming(),
            is_repeatable: level.is_some_and(|level| REPEATABLE.contains(&level)),
            is_deprecated: flag("deprecated"),
            comment: comment(&method.parent_file(), method.path()),
        };
        let number = self.api.methods.len();
        let rules = match &rule {
            Some(rule) => rules_of(rule, &mut wrong),
            None if unruled => vec![WrittenRule {
                method: RuleMethod::Is(Method::POST),
                path: target,
                body: "*".to_owned(),
                response: String::new(),
            }],
            None => return,
        };
        self.api.methods.push(plan);
        for rule in &rules {
            if let Err(text) = self.rule(number, rule) {
                wrong.push(text);
            }
        }
        let place = place_of(&method.parent_file(), method.path());
        self.errors.extend(wrong.into_iter().map(|text| format!("{place}{}: {text}", method.full_name())));
    }

    fn rule(&mut self, number: usize, rule: &WrittenRule) -> Result<(), String> {
        let types = &self.api.types;
        let method = &self.api.methods[number];
        let template = PathTemplate::parse(&rule.path).map_err(|why| format!("the path {}: {why}", rule.path))?;
        let mut variables = Vec::with_capacity(template.variables.len());
        for variable in &template.variables {
            let names: Vec<&str> = variable.field.iter().map(String::as_str).collect();
            let path = types.resolve(method.input, &names)?;
            let name = names.join(".");
            let field = types.last(&path).ok_or_else(|| format!("{name} is no field"))?;
            if field.label != Label::Single || !types.is_text(field.kind) {
                return Err(format!("{{{name}}} of the path is no field with one value that is a text"));
            }
            variables.push(path);
        }
        let field = |message: MessageId, name: &str, key: &str| {
            let index = types.message(message).index_of(name).and_then(|index| u32::try_from(index).ok());
            index.ok_or_else(|| format!("{key}: {} has no field {name}", types.message(message).name))
        };
        let body = match rule.body.as_str() {
            "" => BodyRule::None,
            "*" => BodyRule::All,
            name => BodyRule::Field(field(method.input, name, "body")?),
        };
        if let BodyRule::Field(index) = body
            && variables.iter().any(|path| path.0.as_slice() == [(method.input, index)])
        {
            return Err(format!("{} is in the path and is the body", rule.body));
        }
        let response = match rule.response.as_str() {
            "" => None,
            name => Some(field(method.output, name, "response_body")?),
        };
        check_streams(method, body, types)?;
        if self.api.rules.len() >= MAX_RULES {
            return Err(format!("more than {MAX_RULES} rules are too many"));
        }
        let plan = self.api.rules.len();
        self.api.tree.add(plan, &rule.method, &template).map_err(|other| {
            let other = &self.api.rules[other];
            let name = &self.api.methods[other.method].name;
            format!("the path {} matches the same requests as {} of {name}", rule.path, other.text)
        })?;
        self.api.rules.push(RulePlan {
            method: number,
            http_method: rule.method.clone(),
            text: rule.path.as_str().into(),
            template,
            variables,
            body,
            response,
        });
        Ok(())
    }
}

/// Checks that the messages of a stream have a place in the request.
fn check_streams(method: &MethodPlan, body: BodyRule, types: &Types) -> Result<(), String> {
    let is_stream_of_data = matches!(body, BodyRule::Field(_)) && http_body(types, method, body).is_some();
    if method.takes_stream && body != BodyRule::All && !is_stream_of_data {
        return Err("takes a stream of messages: its rule needs body: \"*\"".to_owned());
    }
    Ok(())
}

/// Returns the message `google.api.HttpBody` that the body of a request is.
pub fn http_body(types: &Types, method: &MethodPlan, body: BodyRule) -> Option<MessageId> {
    let id = match body {
        BodyRule::None => return None,
        BodyRule::All => method.input,
        BodyRule::Field(index) => {
            let field = &types.message(method.input).fields[index as usize];
            field.kind.message().filter(|_| field.label == Label::Single)?
        }
    };
    is_http_body(types, id).then_some(id)
}

/// Returns whether a message is `google.api.HttpBody`.
pub fn is_http_body(types: &Types, id: MessageId) -> bool {
    &*types.message(id).name == "google.api.HttpBody"
}

/// A rule as it is written.
struct WrittenRule {
    method: RuleMethod,
    path: String,
    body: String,
    response: String,
}

/// Returns a rule and its additional bindings.
fn rules_of(rule: &DynamicMessage, wrong: &mut Vec<String>) -> Vec<WrittenRule> {
    let mut all = Vec::new();
    all.extend(rule_of(rule, wrong));
    let more = rule.get_field_by_name("additional_bindings");
    for binding in more.iter().filter_map(|value| value.as_list()).flatten().filter_map(Value::as_message) {
        if binding.has_field_by_name("additional_bindings") {
            wrong.push("additional_bindings have no additional_bindings".to_owned());
        }
        all.extend(rule_of(binding, wrong));
    }
    all
}

fn rule_of(rule: &DynamicMessage, wrong: &mut Vec<String>) -> Option<WrittenRule> {
    let text = |message: &DynamicMessage, name: &str| {
        message.get_field_by_name(name).and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
    };
    let known = [
        ("get", Method::GET),
        ("put", Method::PUT),
        ("post", Method::POST),
        ("delete", Method::DELETE),
        ("patch", Method::PATCH),
    ];
    let set = known.into_iter().find(|(name, _)| rule.has_field_by_name(name));
    let (method, path) = match set {
        Some((name, method)) => (RuleMethod::Is(method), text(rule, name)),
        None => {
            let custom = rule.get_field_by_name("custom").filter(|_| rule.has_field_by_name("custom"));
            let Some(custom) = custom.as_deref().and_then(Value::as_message) else {
                wrong.push("its rule has no method and path".to_owned());
                return None;
            };
            let kind = text(custom, "kind");
            let method = match (kind.as_str(), kind.parse()) {
                ("*", _) => RuleMethod::Any,
                (_, Ok(method)) => RuleMethod::Is(method),
                (_, Err(_)) => {
                    wrong.push(format!("custom: \"{kind}\" is no method"));
                    return None;
                }
            };
            (method, text(custom, "path"))
        }
    };
    Some(WrittenRule { method, path, body: text(rule, "body"), response: text(rule, "response_body") })
}

/// Returns the place of a declaration in its file.
fn place_of(file: &FileDescriptor, path: &[i32]) -> String {
    let info = file.file_descriptor_proto().source_code_info.as_ref();
    let location = info.and_then(|info| info.location.iter().find(|location| location.path == path));
    match location.and_then(|location| location.span.first()) {
        Some(line) => format!("{}:{}: ", file.name(), line + 1),
        None => format!("{}: ", file.name()),
    }
}

/// Returns the comment before a declaration.
pub fn comment(file: &FileDescriptor, path: &[i32]) -> Option<Box<str>> {
    let info = file.file_descriptor_proto().source_code_info.as_ref()?;
    let location = info.location.iter().find(|location| location.path == path)?;
    let text: Vec<&str> = location.leading_comments().lines().map(str::trim).collect();
    let text = text.join("\n");
    Some(text.trim()).filter(|text| !text.is_empty()).map(Into::into)
}
