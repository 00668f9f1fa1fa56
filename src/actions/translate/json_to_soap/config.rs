//! `json_to_soap` as it is configured.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::actions::translate::SoapVersionName;
use crate::actions::translate::soap_terms::EmptyElement;
use crate::notation::{MethodName, Path, Size};

/// JSON, to targets that speak SOAP.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "JsonToSoap")]
pub struct Config {
    /// The version of SOAP that the targets speak. Default `1.1`.
    #[serde(default)]
    pub version: SoapVersionName,
    /// The path at the targets.
    pub path: String,
    /// The operations.
    pub operations: Vec<OperationConfig>,
    /// The namespace of operations that have none.
    #[serde(default)]
    pub namespace: String,
    /// The prefixes that names of members may have, with their namespaces: `{ord: "urn:orders"}` for `ord:id`.
    #[serde(default)]
    pub namespaces: BTreeMap<String, String>,
    /// What an element without content is in JSON. Default the empty text.
    #[serde(default)]
    pub empty: EmptyElement,
    /// The status by the code of a fault, without its prefix: `{Client: 400, Server: 502, OutOfStock: 409}`. The
    /// innermost code of several counts. Default: 400 for `Client` and `Sender`, and 502 for all others.
    #[serde(default)]
    pub fault_status: BTreeMap<String, u16>,
    /// Whether the detail of a fault is in the response. Default false.
    #[serde(default)]
    pub fault_detail: bool,
    /// The longest body of a request. Default 1MiB.
    #[serde(default)]
    pub max_body: Option<Size>,
    /// The longest response of a target. Default 4MiB.
    #[serde(default)]
    pub max_response: Option<Size>,
}

/// An operation.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "JsonToSoapOperation")]
pub struct OperationConfig {
    /// The method of its requests.
    pub method: MethodName,
    /// Their path, with the edits of the route.
    pub path: Path,
    /// The action (`SOAPAction`). Default: none, an empty one.
    pub action: Option<String>,
    /// The element of the request.
    pub element: String,
    /// Its namespace. Default: that of all.
    pub namespace: Option<String>,
    /// Whether the elements within it are in its namespace (`elementFormDefault="qualified"`). Default true.
    #[serde(default = "default_true")]
    pub qualified: bool,
    /// The elements within it, in the order of the target's schema. Default: the parameters of the path, those of the
    /// query, and the members of the body.
    #[serde(default)]
    pub fields: Vec<FieldConfig>,
    /// The element of the response. Another one is an error (502). Default: any.
    pub response_element: Option<String>,
    /// The member of the response's element that is the response, as `AddResult`. Default: all of it.
    pub result: Option<String>,
    /// Elements of the response that are lists even where there is one alone, as paths: `orders.order`.
    #[serde(default)]
    pub arrays: Vec<String>,
    /// Elements of the response that are numbers.
    #[serde(default)]
    pub numbers: Vec<String>,
    /// Elements of the response that are truth values.
    #[serde(default)]
    pub booleans: Vec<String>,
}

/// An element within that of an operation.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "JsonToSoapField")]
pub struct FieldConfig {
    /// Its name.
    pub name: String,
    /// Where its value is: `path.NAME`, `query.NAME`, `body` or `body.a.b`. Default: the member of its name in the
    /// body.
    pub from: Option<String>,
    /// The value where there is none. Default: the element is left out.
    pub default: Option<String>,
}

fn default_true() -> bool {
    true
}
