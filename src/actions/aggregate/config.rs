//! `aggregate` as it is configured.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::notation::{Duration, FreeForm, Header, MethodName, Size, Statuses};

/// Responds with the merged results of several calls to upstreams. Calls run at the same time, except where one uses
/// the result of another.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Aggregate")]
pub struct Config {
    /// The calls. Their order is that of the result.
    #[schemars(length(min = 1, max = 32))]
    pub calls: Vec<CallConfig>,
    /// How the results are merged. Default `named`.
    pub merge: Option<MergeConfig>,
    /// The result as a template in the language of Jinja that writes JSON, in place of `merge`: it reads
    /// `calls.NAME.body`, `calls.NAME.status`, `calls.NAME.ok` and `errors`, the list of failed calls.
    pub template: Option<String>,
    /// The time from the request's arrival to the end of the last call. Default 10s.
    pub timeout: Option<Duration>,
    /// The most calls at a time. Default 16.
    #[serde(default = "concurrency")]
    #[schemars(range(min = 1, max = 256))]
    pub concurrency: usize,
    /// The largest result of one call, decoded. Default 4MiB.
    #[serde(default = "max_part")]
    pub max_part: Size,
    /// The largest sum of all results, decoded. Default 16MiB.
    #[serde(default = "max_size")]
    pub max_size: Size,
    /// The largest request body that calls send on. Default 1MiB.
    pub max_request_body: Option<Size>,
    /// Headers of the client that all calls send on. Default accept-language.
    pub forward_headers: Option<Vec<Header>>,
    /// The headers of the response that come from calls.
    #[serde(default)]
    pub response_headers: Vec<ResponseHeader>,
    /// How failed calls are marked in a result without them.
    #[serde(default)]
    pub errors: ErrorMarks,
    /// The status of the response when a required call fails: `gateway` is 502, 503 or 504 as for a forwarded request;
    /// `call` is that of the call, where it is an error. Default `gateway`.
    #[serde(default)]
    pub failure_status: FailureStatus,
}

fn concurrency() -> usize {
    16
}

fn max_part() -> Size {
    Size(4 << 20)
}

fn max_size() -> Size {
    Size(16 << 20)
}

/// One call. Its texts may have values of the request, and of other calls: `{calls.NAME.body.PATH}`,
/// `{calls.NAME.status}`, `{calls.NAME.header.NAME}`. A value that is missing fails the call, unless it has a default
/// as in `{calls.user.body.team|none}`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Call")]
pub struct CallConfig {
    /// Its name, of letters, digits and `_`; the name of its result.
    pub name: String,
    /// The upstream.
    pub upstream: String,
    /// The method. Default GET.
    #[serde(default = "get")]
    pub method: MethodName,
    /// The path: `/users/{id}`.
    pub path: String,
    /// Query parameters. One of which nothing is left is not sent.
    #[serde(default)]
    pub query: BTreeMap<String, String>,
    /// Query parameters of the client that are sent on.
    #[serde(default)]
    pub forward_query: Vec<String>,
    /// Headers. One of which nothing is left is not sent.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Headers of the client that this call sends on, in place of those of all calls.
    pub forward_headers: Option<Vec<Header>>,
    /// `client` is the body of the request; else a text, in which values of calls stand as JSON, or escaped between
    /// quotes. Default: none.
    pub body: Option<String>,
    /// The media type of a body that is a text. Default application/json.
    pub content_type: Option<String>,
    /// The time of the call, with its retries. Default: that of all.
    pub timeout: Option<Duration>,
    /// Whether there is no result without it. Default true, or false where it has a `fallback`.
    pub required: Option<bool>,
    /// Its result when it fails: any JSON.
    pub fallback: Option<FreeForm>,
    /// The condition of the call (CEL), over the facts of the request as in `authorize`, and over earlier calls:
    /// `calls.user.ok && calls.user.body.kind == "staff"`. A call that is not made has no result.
    pub when: Option<String>,
    /// The statuses that are no failure. Default 2xx.
    pub accept: Option<Statuses>,
    /// The value within its document that is its result: `data.items`. Default: the document.
    pub take: Option<String>,
    /// Whether its result is in the response, and not only for other calls. Default true.
    pub in_result: Option<bool>,
    /// A list within the result of another call, for each element of which the call is made: `calls.user.body.orders`.
    /// The element is `{item}`, and values of it `{item.PATH}`. The result is the list of the results, in that order,
    /// with `null` for those that failed.
    pub for_each: Option<String>,
    /// The most elements of `for_each`, with more of which the call fails. Default 100.
    #[schemars(range(min = 1, max = 1000))]
    pub max_items: Option<usize>,
}

fn get() -> MethodName {
    MethodName(http::Method::GET)
}

/// How results are merged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MergeConfig {
    /// Each under the name of its call.
    #[default]
    Named,
    /// The members of all, which are objects; of members of one name that of the first call counts.
    FlatFirst,
    /// The members of all, which are objects; of members of one name that of the last call counts.
    FlatLast,
    /// The members of all, which are objects; members of one name are a failure (502).
    FlatDistinct,
}

/// A header of the response that comes from a call.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "HeaderOfCall")]
pub struct ResponseHeader {
    /// The call.
    pub call: String,
    /// The header.
    pub header: Header,
    /// Its name in the response. Default: the same.
    pub name: Option<Header>,
}

/// How failed calls are marked in a result without them.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "ErrorMarks")]
pub struct ErrorMarks {
    /// The member with the list of failed calls. Default `errors`.
    pub member: String,
    /// The header with their names. Default `x-partial`.
    pub header: Header,
}

impl Default for ErrorMarks {
    fn default() -> Self {
        Self { member: "errors".to_owned(), header: Header(http::HeaderName::from_static("x-partial")) }
    }
}

/// The status of the response when a required call fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureStatus {
    /// 502, 503 or 504, as for a forwarded request.
    #[default]
    Gateway,
    /// That of the call, where it is an error.
    Call,
}
