//! `errors`: pages for the gateway's own rejections.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

/// Pages by status (`404`) or class of statuses (`5xx`). Of several levels the nearest that has a page counts: that of
/// the route, of the listener, of the configuration.
pub type Errors = BTreeMap<String, ErrorPageConfig>;

/// A page in the forms in which it is written; the client's `Accept` chooses. Without one for JSON it is a problem
/// document (RFC 9457), and without one for HTML a plain page. gRPC clients get a status of theirs in any case.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ErrorPageConfig {
    /// HTML with values of the request, best as `${file:PATH}`: also `{status}`, `{title}`, `{reason}`, `{detail}`.
    pub html: Option<String>,
    /// JSON with such values within its strings.
    pub json: Option<String>,
    /// Plain text with such values.
    pub text: Option<String>,
}
