//! The settings of `transform`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::filters::json::Other;
use crate::filters::mask_fields::Masking;
use crate::notation::{Field, FreeForm, Header, HeaderText, MethodName, OneOrMany, Secret, Size};

/// The changes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The steps that change requests, in their order.
    pub request: OneOrMany<RequestStep>,
    /// The steps that change the responses of targets, in their order.
    pub response: OneOrMany<ResponseStep>,
    /// The largest body that is held whole: of requests whose body is changed, and of responses where a step needs
    /// the whole document (`move`, `copy`, `body`, `convert`, and templates that read it). A larger request is
    /// rejected with 413, a larger response with 502, or its connection is closed. Default 1MiB.
    pub max_size: Size,
    /// What happens to bodies that are not JSON where JSON is edited. Default `keep`.
    pub other: Other,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            request: OneOrMany::default(),
            response: OneOrMany::default(),
            max_size: Size(1 << 20),
            other: Other::Keep,
        }
    }
}

/// A step that changes requests: headers, query, cookies, method and path, and then the body: `convert`, `json`,
/// `body`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RequestStep {
    /// The condition under which the step is taken, an expression (CEL) over the request. One that cannot be evaluated
    /// counts as true. Default: always.
    pub when: Option<String>,
    /// Headers.
    pub headers: HeaderChanges,
    /// Parameters of the query.
    pub query: ParameterChanges,
    /// Cookies.
    pub cookies: CookieChanges,
    /// The method. A HEAD request stays one.
    pub method: Option<MethodName>,
    /// The path, which may name values, as `/v2/users/{id}`, or be a template. The query stays.
    pub path: Option<String>,
    /// Converts the body from one format into another.
    pub convert: Option<Conversion>,
    /// Edits of JSON bodies, in their order.
    pub json: OneOrMany<JsonEdits>,
    /// The new body.
    pub body: Option<NewBody>,
}

/// A step that changes responses: status, headers and cookies, and then the body: `convert`, `json`, `body`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ResponseStep {
    /// The condition under which the step is taken, as for requests, and over `response.status` and
    /// `response.headers` as the steps before have left them.
    pub when: Option<String>,
    /// Other statuses: `{404: 410, 5xx: 502}`. 204, 206 and 304 stay.
    pub status: BTreeMap<String, u16>,
    /// Headers.
    pub headers: HeaderChanges,
    /// Attributes of cookies, by the name of the cookie; `*` is every cookie.
    pub cookies: BTreeMap<String, CookieAttributes>,
    /// Converts the body from one format into another.
    pub convert: Option<Conversion>,
    /// Edits of JSON bodies, in their order.
    pub json: OneOrMany<JsonEdits>,
    /// The new body. A response without content stays without.
    pub body: Option<NewBody>,
}

/// Changes of headers, in the order remove, rename, set, add.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HeaderChanges {
    /// Headers that are removed.
    pub remove: Vec<Header>,
    /// Headers, each with its new name.
    pub rename: BTreeMap<String, Header>,
    /// Headers that are set to a text with values, as in the filter `headers`, or to what a template makes.
    pub set: BTreeMap<String, HeaderText>,
    /// Headers that are added to those that are there.
    pub add: BTreeMap<String, HeaderText>,
}

/// Changes of the query, in the order remove, rename, set, add.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ParameterChanges {
    /// Parameters that are removed.
    pub remove: Vec<String>,
    /// Parameters, each with its new name.
    pub rename: BTreeMap<String, String>,
    /// Parameters that are set to a text with values, or to what a template makes.
    pub set: BTreeMap<String, String>,
    /// Parameters that are added to those that are there.
    pub add: BTreeMap<String, String>,
}

/// Changes of the cookies of a request, in the order remove, set.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CookieChanges {
    /// Cookies that are removed.
    pub remove: Vec<String>,
    /// Cookies that are set to a text with values, or to what a template makes.
    pub set: BTreeMap<String, String>,
}

/// Attributes of a cookie that the target sets (RFC 6265).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CookieAttributes {
    /// Whether the cookie is left out.
    pub remove: bool,
    /// `Secure`: sent over TLS alone.
    pub secure: Option<bool>,
    /// `HttpOnly`: not for scripts.
    pub http_only: Option<bool>,
    /// `SameSite`.
    pub same_site: Option<SameSite>,
    /// `Domain`; an empty text removes it.
    pub domain: Option<String>,
    /// `Path`; an empty text removes it.
    pub path: Option<String>,
}

/// From which sites a cookie is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SameSite {
    /// From pages of its own site.
    Strict,
    /// And when a link to it is followed.
    Lax,
    /// From all.
    None,
}

/// Edits of a JSON document, in the order keep, remove, rename, move, copy, set, add, mask, hash.
///
/// A field is named with dots (`user.address.street`, which looks into arrays; `items.*.cost`, `**.internal`), as a
/// JSON Pointer (`/items/0/cost`) or as a JSONPath (`$..internal`, `$.items[*].cost`).
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct JsonEdits {
    /// Fields that are kept; all others are removed: `id`, `user(name,address.city)`.
    pub keep: Vec<String>,
    /// Fields that are removed.
    pub remove: Vec<Field>,
    /// Fields, each with its new name.
    pub rename: BTreeMap<String, String>,
    /// Fields, each with the place to which it is moved: `user.mail: contact.mail`.
    #[serde(rename = "move")]
    pub moves: BTreeMap<String, Field>,
    /// Fields, each with the place to which it is copied.
    pub copy: BTreeMap<String, Field>,
    /// Fields, each with its value, which replaces the one that is there. A text that is one `{{ … }}` is the value of
    /// that expression, and one with several is a text.
    pub set: BTreeMap<String, FreeForm>,
    /// Fields, each with the value that it gets where it is missing.
    pub add: BTreeMap<String, FreeForm>,
    /// Fields whose value is masked, as in `mask_fields`.
    pub mask: Vec<Masking>,
    /// Fields whose value is replaced by its hash, in hexadecimal digits.
    pub hash: Option<HashedFields>,
}

/// Fields whose values are hashed.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HashedFields {
    /// The fields.
    #[schemars(length(min = 1))]
    pub fields: Vec<Field>,
    /// The key of HMAC-SHA-256, without which short values such as telephone numbers are found by trying all. Default:
    /// none, plain SHA-256.
    pub key: Option<Secret>,
}

/// A conversion of bodies whose `Content-Type` says that they are in the first format.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Conversion {
    /// The format in which they come.
    pub from: Format,
    /// The format into which they are converted. One of both is JSON.
    pub to: Format,
    /// Elements of XML that are always arrays: `orders.order`. Default: those that are there several times.
    #[serde(default)]
    pub arrays: Vec<Field>,
    /// What an element of XML without content becomes. Default `text`.
    #[serde(default)]
    pub empty: EmptyElement,
    /// Whether prefixes of names, and the declarations of namespaces, are left out. Default false.
    #[serde(default)]
    pub drop_prefixes: bool,
    /// The root element of XML, within which the document is put. Default: the only member of the document.
    pub root: Option<String>,
}

/// A format of bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// JSON.
    Json,
    /// XML.
    Xml,
    /// A form (`application/x-www-form-urlencoded`).
    Form,
}

/// What an element of XML without content becomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EmptyElement {
    /// An empty text.
    #[default]
    Text,
    /// `null`.
    Null,
}

/// A body that replaces the one that came.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewBody {
    /// The template (Jinja). In JSON its values are JSON, in XML they are escaped, in a form they are encoded.
    pub template: String,
    /// Its `Content-Type`. Default `application/json`.
    #[serde(default = "json_type")]
    pub content_type: HeaderText,
}

fn json_type() -> HeaderText {
    HeaderText(http::HeaderValue::from_static("application/json"))
}
