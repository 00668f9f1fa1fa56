//! The settings of `validate` and of `openapi`.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::notation::{File, FreeForm, Size};

/// Validates requests and responses by JSON Schema 2020-12.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Validate")]
pub struct Config {
    /// The body of the request.
    pub body: Option<BodyConfig>,
    /// The query, as an object of its parameters: each text is a value of the type that the schema has for it, and a
    /// parameter that is a list may be there several times.
    pub query: Option<SchemaConfig>,
    /// The headers, as an object of those that the schema names, in lower case.
    pub headers: Option<SchemaConfig>,
    /// The parameters of the path, as an object.
    pub path: Option<SchemaConfig>,
    /// The longest body of a request, which is held whole. Default 1MiB.
    pub max_body: Size,
    /// The body of the response.
    pub response: Option<ResponseConfig>,
    /// The longest body of a response, which is held whole. Default 1MiB.
    pub max_response: Size,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            body: None,
            query: None,
            headers: None,
            path: None,
            max_body: Size(1 << 20),
            response: None,
            max_response: Size(1 << 20),
        }
    }
}

/// A schema, here or in a file.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SchemaConfig {
    /// The schema itself.
    pub schema: Option<FreeForm>,
    /// The file of the schema, JSON or YAML. It may refer to other files in its folder and in that of the
    /// configuration; nothing is fetched.
    pub file: Option<File>,
}

/// The rules for a body.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BodyConfig {
    /// The schema itself.
    pub schema: Option<FreeForm>,
    /// The file of the schema, JSON or YAML. It may refer to other files in its folder and in that of the
    /// configuration; nothing is fetched.
    pub file: Option<File>,
    /// The media types that are accepted, such as `application/json` or `application/*`; JSON, forms
    /// (`application/x-www-form-urlencoded`) and plain text are validated. Default `application/json` and all
    /// `+json`.
    pub content_types: Vec<String>,
    /// Whether there has to be a body. Default true.
    #[schemars(default = "always")]
    pub required: Option<bool>,
}

fn always() -> Option<bool> {
    None
}

/// The rules for the bodies of successful responses.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResponseConfig {
    /// The schema itself.
    pub schema: Option<FreeForm>,
    /// The file of the schema, JSON or YAML.
    pub file: Option<File>,
    /// What happens to responses. Default `enforce`.
    #[serde(default = "enforce")]
    pub mode: ResponseMode,
}

fn enforce() -> ResponseMode {
    ResponseMode::Enforce
}

/// What happens to responses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResponseMode {
    /// They are not looked into.
    #[default]
    Ignore,
    /// Violations are counted in `portcullis_would_reject_total` and logged, and the response stays as it is.
    Observe,
    /// A response that is not valid is replaced by a 502.
    Enforce,
    /// Only what the schema declares leaves, at any depth; other members are removed.
    Filter,
}

/// An OpenAPI document (3.0 or 3.1), whose paths and methods are those of the route.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "OpenApi")]
pub struct OpenApiConfig {
    /// The file of the document, JSON or YAML. It may refer to other files in its folder and in that of the
    /// configuration; nothing is fetched.
    pub file: File,
    /// The path below which the paths of the document are. Default: the path of its first server.
    pub base_path: Option<String>,
    /// What happens to requests that are not valid. Default `enforce`.
    #[serde(default)]
    pub requests: RequestMode,
    /// What happens to responses that are not as the document declares them. Default `ignore`.
    #[serde(default)]
    pub responses: ResponseMode,
    /// What happens to paths below the base path that the document does not have. Default `reject`.
    #[serde(default)]
    pub unknown_paths: UnknownPaths,
    /// What happens to parameters of the query that the operation does not declare. Default `keep`.
    #[serde(default)]
    pub unknown_query: Unknown,
    /// What happens to read-only members in requests. Default `reject`.
    #[serde(default)]
    pub read_only: ReadOnly,
    /// The operations, by `operationId` or by `METHOD /path`, whose requests get the examples of the document. For all
    /// of them the action is `mock`.
    #[serde(default)]
    pub mock: Vec<String>,
    /// The longest body of a request, which is held whole where it is validated. Default 1MiB.
    #[serde(default = "one_mebibyte")]
    pub max_body: Size,
    /// The longest body of a response, which is held whole where it is validated. Default 1MiB.
    #[serde(default = "one_mebibyte")]
    pub max_response: Size,
}

/// Returns the longest body where none is configured.
pub fn one_mebibyte() -> Size {
    Size(1 << 20)
}

/// What happens to requests that are not valid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RequestMode {
    /// They are not looked into.
    Ignore,
    /// They go on, and are counted in `portcullis_would_reject_total`.
    Observe,
    /// 400, with the list of violations.
    #[default]
    Enforce,
}

/// What happens to paths that the document does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UnknownPaths {
    /// 404, whatever other routes there are.
    #[default]
    Reject,
    /// They are passed on without validation.
    Pass,
    /// Other routes may match them.
    OtherRoutes,
}

/// What happens to what is not declared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unknown {
    /// It is accepted.
    #[default]
    Keep,
    /// 400.
    Reject,
}

/// What happens to read-only members in requests, which are never required.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReadOnly {
    /// 400.
    #[default]
    Reject,
    /// They are accepted.
    Keep,
}
