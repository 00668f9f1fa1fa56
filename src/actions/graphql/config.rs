//! `graphql` as it is configured.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::notation::{Duration, File, Header, MethodName, Size};

/// A GraphQL API over other APIs: a schema, and for fields the calls to upstreams that their values come from. Other
/// fields are the members of the objects around them. Requests are `POST` with JSON, or `GET` for queries.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Graphql")]
pub struct Config {
    /// The schema, in the language of GraphQL.
    pub schema: File,
    /// Where the values of fields come from, by type and field: `Query.user`.
    pub resolvers: BTreeMap<String, ResolverConfig>,
    /// What an operation may be.
    #[serde(default)]
    pub limits: OperationLimits,
    /// Whether clients may read the schema. Default false.
    #[serde(default)]
    pub introspection: bool,
    /// Documents that clients name by their id.
    pub persisted: Option<PersistedConfig>,
    /// The time from the request's arrival to the end of the last call. Default 10s.
    pub timeout: Option<Duration>,
    /// Headers of the client that all calls send on. Default: accept-language and authorization.
    pub forward_headers: Option<Vec<Header>>,
}

/// Where the value of a field comes from: a call, or with `member` alone another member of the object around it.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Resolver")]
pub struct ResolverConfig {
    /// The member of the object around the field that is its value, where that has another name.
    pub member: Option<String>,
    /// The upstream that is called.
    pub upstream: Option<String>,
    /// The method. Default GET.
    pub method: Option<MethodName>,
    /// The path, with `{args.NAME}` and `{parent.PATH}`. Where such a value is missing there is no call, and the field
    /// is null.
    pub path: Option<String>,
    /// Query parameters, with such values. One of which nothing is left is not sent.
    pub query: BTreeMap<String, String>,
    /// The body, in which such values stand as JSON: `{"name": {args.name}}`, or `{args.input}`.
    pub body: Option<String>,
    /// The members that lead to the value within the response: `data.items`. Default: the document.
    pub take: Option<String>,
    /// Whether a response of 404 is null, and no error. Default true.
    pub not_found_is_null: Option<bool>,
}

/// What an operation may be. What exceeds a limit is not executed.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OperationLimits {
    /// The most levels of fields. Default 12.
    pub depth: u64,
    /// The most fields with an alias. Default 30.
    pub aliases: u64,
    /// The most fields, those of fragments as often as they are used. Default 500.
    pub fields: u64,
    /// The highest cost: one for each field, as often as the lists around it have elements by `first`, `last` or
    /// `limit`. Default 5000.
    pub cost: u64,
    /// The most operations in one request. Default 10.
    pub batch: usize,
    /// The most calls of one operation; fields that need more have an error. Default 50.
    pub calls: usize,
    /// The most calls at a time. Default 16.
    pub concurrency: usize,
    /// The longest request body. Default 256KiB.
    pub request_body: Size,
    /// The largest response of one call, decoded. Default 4MiB.
    pub call_size: Size,
    /// The largest sum of them in one request. Default 16MiB.
    pub size: Size,
}

impl Default for OperationLimits {
    fn default() -> Self {
        Self {
            depth: 12,
            aliases: 30,
            fields: 500,
            cost: 5_000,
            batch: 10,
            calls: 50,
            concurrency: 16,
            request_body: Size(256 << 10),
            call_size: Size(4 << 20),
            size: Size(16 << 20),
        }
    }
}

/// Documents that clients name by their id: by `documentId`, or by the hash of `extensions.persistedQuery`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "PersistedDocuments")]
pub struct PersistedConfig {
    /// A JSON object of documents by their id.
    pub file: File,
    /// Whether no other documents are executed. Default false.
    #[serde(default)]
    pub only: bool,
}
