//! `rest_to_graphql` as it is configured.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::notation::{File, Header, MethodName, Path, Size};

/// Paths and methods, to targets that speak GraphQL.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "RestToGraphql")]
pub struct Config {
    /// The path at which the targets speak GraphQL. Default `/graphql`.
    #[serde(default = "default_path")]
    pub path: String,
    /// The schema of the targets, by which operations are validated when the configuration is loaded, and input objects
    /// when a request comes. Default: none.
    pub schema: Option<File>,
    /// What is called by which requests. Others are forwarded as they are.
    #[schemars(length(min = 1))]
    pub operations: Vec<OperationConfig>,
    /// The statuses of responses for errors without a result, by `extensions.code` of the first error. Default: 502 for
    /// all.
    #[serde(default)]
    pub errors: BTreeMap<String, u16>,
    /// Whether the message of such an error is shown to the client. Default false.
    #[serde(default)]
    pub show_messages: bool,
    /// The longest request body. Default 1MiB.
    #[serde(default = "default_body")]
    pub max_request_body: Size,
    /// The longest response of a target, which is held whole. Default 4MiB.
    #[serde(default = "default_response")]
    pub max_response: Size,
}

fn default_path() -> String {
    "/graphql".to_owned()
}

fn default_body() -> Size {
    Size(1 << 20)
}

fn default_response() -> Size {
    Size(4 << 20)
}

/// An operation, and the requests that call it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "GraphqlOperation")]
pub struct OperationConfig {
    /// The method; GET stands for HEAD, too.
    pub method: MethodName,
    /// The path, with the edits of the route; its parameters are values for variables.
    pub path: Path,
    /// The document with the operation, and with fragments; or `file`.
    pub query: Option<String>,
    /// The file with the document.
    pub file: Option<File>,
    /// The operation's name, where the document has several.
    pub operation: Option<String>,
    /// The values of variables, by their names.
    #[serde(default)]
    pub variables: BTreeMap<String, VariableConfig>,
    /// Where the result is below `data`, such as `user` or `viewer.account`. Default: all of `data`.
    #[serde(default)]
    pub data: String,
    /// What happens to a result of which a part is missing because of errors. Default `accept`.
    #[serde(default)]
    pub partial: Partial,
    /// The status where the result is null without an error. Default 404.
    #[serde(default = "default_null")]
    #[schemars(range(min = 200, max = 599))]
    pub null_status: u16,
    /// The headers of the target's response that are passed on. Default: cache-control, retry-after.
    pub response_headers: Option<Vec<Header>>,
}

fn default_null() -> u16 {
    404
}

/// Where the value of a variable is.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "GraphqlVariable")]
pub struct VariableConfig {
    /// The part of the request.
    pub from: Source,
    /// The name there: of a parameter, a header, a claim or a member of the JSON body (`*` for all of the body). A dot
    /// leads into an object. Default: the variable's.
    pub name: Option<String>,
}

/// A part of a request.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "GraphqlVariableSource")]
pub enum Source {
    /// A parameter of the path.
    Path,
    /// A parameter of the query; several of one name are a list.
    Query,
    /// A header.
    Header,
    /// The body, which is JSON.
    Body,
    /// A claim of the caller's token.
    Claim,
}

/// What happens to a partial result.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "GraphqlPartial")]
pub enum Partial {
    /// It is sent, with `x-partial: true`.
    #[default]
    Accept,
    /// It is an error.
    Reject,
}
