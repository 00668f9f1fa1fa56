//! The compilation of `graphql`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use apollo_compiler::Schema;
use apollo_compiler::schema::ExtendedType;
use apollo_compiler::validation::Valid;
use http::Method;
use http::header::{ACCEPT_LANGUAGE, AUTHORIZATION};

use super::config::{Config, ResolverConfig};
use super::{Graphql, MAX_TOKENS};
use crate::actions::ActionContext;
use crate::actions::forward::find;
use crate::notation::{Place, nearest};
use crate::rules::graphql::{
    CostRules, Engine, FieldResolver, FieldSource, GraphqlLimits, KnownDocuments, ResolverText,
};
use crate::tls::read_file;
use crate::upstreams::Upstream;

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest file that is read.
const MAX_FILE: u64 = 16 << 20;

/// Compiles the action.
pub fn compile(config: &Config, context: &mut ActionContext<'_>) -> Graphql {
    let place = context.place.clone();
    let schema = schema(config, context).unwrap_or_else(nothing);
    let mut resolvers = Resolvers { sources: BTreeMap::new(), upstreams: Vec::new() };
    for (name, resolver) in &config.resolvers {
        resolvers.add(name, resolver, &schema, context);
    }
    context.place = place.clone();
    check_roots(&schema, &resolvers, context);
    let limits = &config.limits;
    let bytes = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
    for (key, value) in [
        ("batch", limits.batch),
        ("calls", limits.calls),
        ("concurrency", limits.concurrency),
        ("values", limits.values),
    ] {
        if value == 0 {
            context.mistakes.add(&place.key("limits").key(key), "expected 1 or more");
        }
    }
    Graphql {
        engine: Engine {
            schema,
            sources: resolvers.sources,
            introspection: config.introspection,
            max_calls: limits.calls,
            max_values: limits.values,
            max_bytes: bytes(limits.size.0),
        },
        upstreams: resolvers.upstreams,
        timeout: config.timeout.as_ref().map_or(DEFAULT_TIMEOUT, |timeout| timeout.0),
        batch: limits.batch,
        concurrency: limits.concurrency,
        request_body: limits.request_body.0,
        call_size: bytes(limits.call_size.0),
        size: bytes(limits.size.0),
        forward_headers: match &config.forward_headers {
            Some(list) => list.iter().map(|name| name.0.clone()).collect(),
            None => vec![ACCEPT_LANGUAGE, AUTHORIZATION],
        },
        limits: GraphqlLimits {
            depth: limits.depth,
            aliases: limits.aliases,
            fields: limits.fields,
            tokens: MAX_TOKENS,
            cost: Some(limits.cost),
            costs: CostRules { fields: HashMap::new(), sizes: ["first", "last", "limit"].map(str::to_owned).to_vec() },
            introspection: config.introspection,
            known: persisted(config, context),
            only_known: config.persisted.as_ref().is_some_and(|persisted| persisted.only),
        },
    }
}

/// Reads and checks the schema.
fn schema(config: &Config, context: &mut ActionContext<'_>) -> Option<Valid<Schema>> {
    let place = context.place.key("schema");
    let path = context.base.join(config.schema.as_ref());
    let text =
        read_file(&path, MAX_FILE).and_then(|bytes| String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned()));
    let text = match text {
        Ok(text) => text,
        Err(why) => {
            context.mistakes.add(&place, format!("{}: {why}", path.display()));
            return None;
        }
    };
    match Schema::parse_and_validate(text, &path) {
        Ok(schema) => Some(schema),
        Err(invalid) => {
            for error in invalid.errors.iter() {
                let at = error.line_column_range().map(|range| format!(":{}:{}", range.start.line, range.start.column));
                let text = format!("{}{}: {}", path.display(), at.unwrap_or_default(), error.error);
                context.mistakes.add(&place, text);
            }
            None
        }
    }
}

/// Returns a schema in place of one that cannot be read.
fn nothing() -> Valid<Schema> {
    Valid::assume_valid(Schema::new())
}

/// The resolvers so far.
struct Resolvers {
    sources: BTreeMap<(String, String), FieldSource>,
    /// Where calls go, and whether 404 is null there.
    upstreams: Vec<(Arc<Upstream>, bool)>,
}

impl Resolvers {
    fn add(&mut self, name: &str, config: &ResolverConfig, schema: &Schema, context: &mut ActionContext<'_>) {
        let place = context.place.key("resolvers").key(name.to_owned());
        let Some((kind, field)) = name.split_once('.') else {
            context.mistakes.add(&place, format!("expected a type and a field such as Query.user, found \"{name}\""));
            return;
        };
        let arguments = match arguments_of(schema, kind, field) {
            Ok(arguments) => arguments,
            Err(why) => {
                if !schema.types.is_empty() {
                    context.mistakes.add(&place, why);
                }
                return;
            }
        };
        let source = match (&config.member, &config.upstream) {
            (Some(member), None) => {
                let call = ResolverConfig { member: Some(member.clone()), ..ResolverConfig::default() };
                if format!("{config:?}") != format!("{call:?}") {
                    context.mistakes.add(&place, "a member is no call: expected nothing else beside it");
                }
                FieldSource::Member(member.clone())
            }
            (None, Some(upstream)) => {
                let is_root = is_root(schema, kind);
                let Some(found) = find(upstream, &place.key("upstream"), context) else { return };
                let number = self.number_of(found, config.not_found_is_null.unwrap_or(true));
                let Some(call) = call(config, number, (&place, &arguments, is_root), context) else { return };
                FieldSource::Call(Box::new(call))
            }
            _ => {
                context.mistakes.add(&place, "expected either an upstream or a member");
                return;
            }
        };
        self.sources.insert((kind.to_owned(), field.to_owned()), source);
    }

    /// Returns the number of the calls to an upstream.
    fn number_of(&mut self, upstream: Arc<Upstream>, not_found_is_null: bool) -> usize {
        let known =
            self.upstreams.iter().position(|(known, null)| Arc::ptr_eq(known, &upstream) && *null == not_found_is_null);
        known.unwrap_or_else(|| {
            self.upstreams.push((upstream, not_found_is_null));
            self.upstreams.len() - 1
        })
    }
}

/// Returns the call for a field.
fn call(
    config: &ResolverConfig,
    number: usize,
    (place, arguments, is_root): (&Place, &[String], bool),
    context: &mut ActionContext<'_>,
) -> Option<FieldResolver> {
    let mut text = |text: &str, place: &Place| {
        let parsed = text.parse::<ResolverText>();
        let parsed = context.mistakes.take(place, parsed)?;
        for name in parsed.arguments().filter(|name| !arguments.iter().any(|known| known == name)) {
            let near = nearest(name, arguments.iter().map(String::as_str));
            context.mistakes.add(place, format!("the field has no argument \"{name}\"{near}"));
        }
        if is_root && parsed.names_parent() {
            context.mistakes.add(place, "there is no parent at the root");
        }
        Some(parsed)
    };
    let written = config.path.as_deref().unwrap_or_default();
    let path = text(written, &place.key("path"));
    let query = config
        .query
        .iter()
        .filter_map(|(name, value)| Some((name.clone(), text(value, &place.key("query").key(name.clone()))?)));
    let query = query.collect();
    let body = config.body.as_deref().and_then(|body| text(body, &place.key("body")));
    if !written.starts_with('/') {
        context.mistakes.add(&place.key("path"), format!("expected a path that starts with /, found \"{written}\""));
    }
    let method = config.method.as_ref().map_or(Method::GET, |method| method.0.clone());
    if config.body.is_some() && matches!(method, Method::GET | Method::HEAD) {
        context.mistakes.add(&place.key("body"), format!("a request by {method} has no body"));
    }
    Some(FieldResolver {
        number,
        method,
        path: path?,
        query,
        body,
        take: config.take.iter().flat_map(|take| take.split('.')).map(str::to_owned).collect(),
    })
}

/// Returns the names of the arguments of a field.
fn arguments_of(schema: &Schema, kind: &str, field: &str) -> Result<Vec<String>, String> {
    let Some(ExtendedType::Object(object)) = schema.types.get(kind) else {
        let names = schema.types.iter().filter(|(_, kind)| kind.is_object() && !kind.is_built_in());
        let near = nearest(kind, names.map(|(name, _)| name.as_str()));
        return Err(format!("the schema has no type \"{kind}\" of objects{near}"));
    };
    let Some(found) = object.fields.get(field) else {
        let near = nearest(field, object.fields.keys().map(apollo_compiler::Name::as_str));
        return Err(format!("the type {kind} has no field \"{field}\"{near}"));
    };
    Ok(found.arguments.iter().map(|argument| argument.name.to_string()).collect())
}

fn is_root(schema: &Schema, kind: &str) -> bool {
    let definition = &schema.schema_definition;
    [&definition.query, &definition.mutation].iter().any(|root| root.as_ref().is_some_and(|root| root.as_str() == kind))
}

/// Notes fields at the root that nothing resolves: they would always be null.
fn check_roots(schema: &Schema, resolvers: &Resolvers, context: &mut ActionContext<'_>) {
    let definition = &schema.schema_definition;
    let place = context.place.key("resolvers");
    for root in [&definition.query, &definition.mutation].into_iter().flatten() {
        let Some(ExtendedType::Object(object)) = schema.types.get(root.as_str()) else { continue };
        for field in object.fields.keys() {
            if !resolvers.sources.contains_key(&(root.to_string(), field.to_string())) {
                context.mistakes.add(&place, format!("nothing resolves {root}.{field}: add it"));
            }
        }
    }
}

fn persisted(config: &Config, context: &mut ActionContext<'_>) -> Option<KnownDocuments> {
    let path = context.base.join(config.persisted.as_ref()?.file.as_ref());
    let read = read_file(&path, MAX_FILE).and_then(|bytes| KnownDocuments::new(&bytes));
    let place = context.place.key("persisted").key("file");
    context.mistakes.take(&place, read.map_err(|why| format!("{}: {why}", path.display())))
}
