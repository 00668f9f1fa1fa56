//! `graphql_limits`: rejects requests to a GraphQL service that are malformed, too large, or not known.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, UPGRADE};
use http::{HeaderMap, Method};
use pingora::http::RequestHeader;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::json::is_other_charset;
use super::{CompileContext, HttpFilter, Needs, Stage, Verdict};
use crate::exchange::{Exchange, GraphqlNote, Reason, Rejection, RelayedResponse};
use crate::notation::{File, Size};
use crate::rules::graphql::{CostRules, GraphqlFailure, GraphqlLimits, GraphqlRequest, KnownDocuments};
use crate::rules::routing::{form_decode, raw_parameters};
use crate::tls::read_file;

/// The largest file of known documents.
const MAX_FILE: u64 = 16 << 20;

/// The type of responses (GraphQL over HTTP, "Media types").
const GRAPHQL_JSON: &str = "application/graphql-response+json";

/// The limits of requests to a GraphQL service.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The most levels of fields. Default 15.
    #[schemars(range(min = 1, max = 100))]
    pub depth: u32,
    /// The most fields of an operation, with fragments in place of their spreads. Default 500.
    #[schemars(range(min = 1))]
    pub fields: u32,
    /// The most aliases, counted likewise. Default 30.
    pub aliases: u32,
    /// The most tokens of a document. Default 5000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub tokens: u32,
    /// The highest cost, and how it is counted. Default: none.
    pub cost: Option<CostConfig>,
    /// The most operations of a request. Default 1.
    #[schemars(range(min = 1, max = 1000))]
    pub batch: u32,
    /// Whether the schema may be read. Default true.
    pub introspection: bool,
    /// Documents that clients name by an id.
    pub persisted: Option<PersistedConfig>,
    /// The longest body, which is held whole. Default 1MiB.
    pub max_body: Size,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            depth: 15,
            fields: 500,
            aliases: 30,
            tokens: 5_000,
            cost: None,
            batch: 1,
            introspection: true,
            persisted: None,
            max_body: Size(1 << 20),
        }
    }
}

/// How the cost of an operation is counted: each field costs 1, times the sizes of the lists that it is in.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "GraphqlCost")]
pub struct CostConfig {
    /// The highest cost.
    #[schemars(range(min = 1))]
    pub max: u64,
    /// The costs of fields by their names, in place of 1.
    #[serde(default)]
    pub fields: BTreeMap<String, u64>,
    /// The arguments that say how long a list is. Default: first, last, limit.
    pub sizes: Option<Vec<String>>,
}

/// Documents that clients name by an id.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "GraphqlPersisted")]
pub struct PersistedConfig {
    /// A file with a JSON object from ids to documents.
    pub file: File,
    /// Whether no others are accepted. Default false.
    #[serde(default)]
    pub only: bool,
}

/// The compiled filter.
#[derive(Debug)]
pub struct Filter {
    limits: GraphqlLimits,
    batch: usize,
    max_body: u64,
}

impl HttpFilter for Filter {
    type Config = Config;
    type Memory = ();
    const STAGE: Stage = Stage::Validate;

    fn compile(config: &Config, context: &mut CompileContext<'_>) -> Option<Self> {
        let known = match &config.persisted {
            Some(persisted) => {
                let path = context.base.join(&persisted.file);
                let read = read_file(&path, MAX_FILE).map_err(|why| format!("cannot read {}: {why}", path.display()));
                let known = read.and_then(|text| KnownDocuments::new(&text));
                Some(context.mistakes.take(&context.place.key("persisted").key("file"), known)?)
            }
            None => None,
        };
        let own = || ["first", "last", "limit"].map(str::to_owned).to_vec();
        let costs = config.cost.as_ref().map(|cost| CostRules {
            fields: cost.fields.clone().into_iter().collect(),
            sizes: cost.sizes.clone().unwrap_or_else(own),
        });
        let limits = GraphqlLimits {
            depth: config.depth,
            fields: config.fields,
            aliases: config.aliases,
            tokens: config.tokens as usize,
            cost: config.cost.as_ref().map(|cost| cost.max),
            costs: costs.unwrap_or_default(),
            introspection: config.introspection,
            known,
            only_known: config.persisted.as_ref().is_some_and(|persisted| persisted.only),
        };
        Some(Self { limits, batch: config.batch as usize, max_body: config.max_body.0 })
    }

    fn needs(&self) -> Needs {
        Needs::RequestBody(self.max_body)
    }

    fn wants_body(&self, request: &RequestHeader, _exchange: &Exchange) -> bool {
        request.method == Method::POST
    }

    async fn on_request(&self, request: &RequestHeader, exchange: &mut Exchange, _memory: &mut ()) -> Verdict {
        let query = request.uri.query();
        let has = |name: &str| raw_parameters(query, name).next().is_some();
        match request.method {
            Method::GET | Method::HEAD if request.headers.contains_key(UPGRADE) => {
                Err(Rejection::new(Reason::GraphqlLimit, "operations over a WebSocket are not accepted here"))
            }
            Method::GET | Method::HEAD if has("query") || has("extensions") || has("documentId") || has("id") => {
                self.check_get(request, exchange)
            }
            // A page, or a probe.
            Method::GET | Method::HEAD | Method::OPTIONS => Ok(()),
            // Some servers read the query of the URL first, others the body.
            Method::POST if has("query") || has("variables") || has("operationName") => {
                Err(Rejection::new(Reason::BodyInvalid, "the operation has to be in the body alone"))
            }
            Method::POST => Ok(()),
            _ => {
                let rejection = Rejection::new(Reason::MethodNotAllowed, "allowed here: GET, POST");
                Err(rejection.header(ALLOW, HeaderValue::from_static("GET, POST")))
            }
        }
    }

    fn on_request_body(&self, body: &[u8], request: &RequestHeader, exchange: &mut Exchange) -> Verdict {
        if request.method != Method::POST {
            return Ok(());
        }
        check_type(&request.headers, exchange)?;
        let requests = self.requests(body).map_err(|why| failure(&GraphqlFailure::Invalid(why), &request.headers))?;
        for one in &requests {
            self.check(one, false, request, exchange)?;
        }
        Ok(())
    }

    fn edit_request_body(
        &self,
        body: &Bytes,
        request: &RequestHeader,
        _exchange: &mut Exchange,
    ) -> Result<Option<Bytes>, Box<Rejection>> {
        if self.limits.known.is_none() || request.method != Method::POST {
            return Ok(None);
        }
        let Ok(mut document) = serde_json::from_slice::<Value>(body) else { return Ok(None) };
        let all = match &mut document {
            Value::Array(all) => all.as_mut_slice(),
            one => std::slice::from_mut(one),
        };
        let mut is_changed = false;
        for one in all {
            let parsed = serde_json::from_value::<GraphqlRequest>(one.clone()).ok();
            let accepted = parsed.and_then(|parsed| self.limits.check(&parsed, false).ok());
            if let (Some(text), Some(members)) = (accepted.and_then(|a| a.document), one.as_object_mut()) {
                members.insert("query".to_owned(), text.into());
                is_changed = true;
            }
        }
        Ok(is_changed.then(|| document.to_string().into()))
    }
}

impl Filter {
    /// Returns the requests of a body: one, or those of a batch.
    fn requests(&self, body: &[u8]) -> Result<Vec<GraphqlRequest>, String> {
        let wrong = |error: serde_json::Error| format!("the body is not a GraphQL request in JSON: {error}");
        if body.trim_ascii_start().first() != Some(&b'[') {
            return serde_json::from_slice(body).map(|one| vec![one]).map_err(wrong);
        }
        let batch: Vec<&serde_json::value::RawValue> = serde_json::from_slice(body).map_err(wrong)?;
        match batch.len() {
            0 => Err("the batch is empty".to_owned()),
            count if count > self.batch => {
                Err(format!("the request has {count} operations, and {} is the most", self.batch))
            }
            _ => batch.into_iter().map(|one| serde_json::from_str(one.get()).map_err(wrong)).collect(),
        }
    }

    fn check(
        &self,
        one: &GraphqlRequest,
        by_get: bool,
        request: &RequestHeader,
        exchange: &mut Exchange,
    ) -> Result<Option<String>, Box<Rejection>> {
        let checked = self.limits.check(one, by_get);
        let kind = checked.as_ref().map_or("rejected", |accepted| accepted.kind.word());
        let name = checked.as_ref().ok().and_then(|accepted| accepted.name.as_deref());
        exchange.graphql.get_or_insert_with(|| Box::new(GraphqlNote::new(name))).add(kind);
        checked.map(|accepted| accepted.document).map_err(|why| failure(&why, &request.headers))
    }

    fn check_get(&self, request: &RequestHeader, exchange: &mut Exchange) -> Verdict {
        let invalid = |why: &str| failure(&GraphqlFailure::Invalid(why.to_owned()), &request.headers);
        let value = |name: &str| {
            let mut values = raw_parameters(request.uri.query(), name);
            match (values.next(), values.next()) {
                (_, Some(_)) => Err(invalid("a parameter is there twice")),
                (value, _) => {
                    let text = value.map(|value| String::from_utf8(form_decode(value).into_owned()));
                    text.transpose().map_err(|_| invalid("a parameter is not UTF-8"))
                }
            }
        };
        let json = |name: &str| -> Result<Value, Box<Rejection>> {
            let Some(text) = value(name)?.filter(|text| !text.is_empty()) else { return Ok(Value::Null) };
            serde_json::from_str(&text).map_err(|_| invalid("a parameter is not JSON"))
        };
        let variables = match json("variables")? {
            Value::Null => None,
            Value::Object(variables) => Some(variables),
            _ => return Err(invalid("variables have to be an object")),
        };
        let one = GraphqlRequest {
            query: value("query")?,
            operation_name: value("operationName")?,
            variables,
            document_id: value("documentId")?,
            id: value("id")?,
            extensions: Some(json("extensions")?),
        };
        match self.check(&one, true, request, exchange)? {
            Some(_) => Err(invalid("a document is named by its id in requests by POST only")),
            None => Ok(()),
        }
    }
}

fn check_type(headers: &HeaderMap, exchange: &Exchange) -> Verdict {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let kind = types.next().and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if types.next().is_some() || essence != "application/json" || is_other_charset(headers, false) {
        return Err(Rejection::new(Reason::MediaType, "send the operation as application/json, in UTF-8"));
    }
    let mut codings = headers.get_all(CONTENT_ENCODING).iter();
    if !exchange.is_decoded && codings.any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(Rejection::new(Reason::MediaType, "send the body without a content coding"));
    }
    Ok(())
}

/// Returns the rejection as GraphQL clients read it: an error in JSON.
fn failure(why: &GraphqlFailure, headers: &HeaderMap) -> Box<Rejection> {
    let (reason, status, code, text) = match why {
        GraphqlFailure::Invalid(text) => (Reason::BodyInvalid, 400, "GRAPHQL_PARSE_FAILED", text.as_str()),
        GraphqlFailure::Limit(text) => (Reason::GraphqlLimit, 400, "GRAPHQL_LIMIT_EXCEEDED", text.as_str()),
        GraphqlFailure::MutationByGet => {
            (Reason::MethodNotAllowed, 405, "METHOD_NOT_ALLOWED", "mutations are called by POST only")
        }
        // The message and the code by which clients know that they have to send the document.
        GraphqlFailure::UnknownDocument => {
            (Reason::GraphqlLimit, 200, "PERSISTED_QUERY_NOT_FOUND", "PersistedQueryNotFound")
        }
        GraphqlFailure::NotKnown => {
            (Reason::GraphqlLimit, 400, "PERSISTED_QUERY_REQUIRED", "only known documents are accepted here")
        }
    };
    let body = json!({"errors": [{"message": text, "extensions": {"code": code}}]}).to_string();
    let accepts = |value: &HeaderValue| value.to_str().is_ok_and(|value| value.contains(GRAPHQL_JSON));
    let is_accepted = headers.get_all(ACCEPT).iter().any(accepts);
    let kind = HeaderValue::from_static(if is_accepted { GRAPHQL_JSON } else { "application/json" });
    let mut rejection = Rejection::new(reason, text.to_owned()).log(text).header(CONTENT_TYPE, kind);
    rejection.relayed = Some(RelayedResponse { status, body: body.into() });
    match why {
        GraphqlFailure::MutationByGet => rejection.header(ALLOW, HeaderValue::from_static("POST")),
        _ => rejection,
    }
}
