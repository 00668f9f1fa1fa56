//! A kit to test one filter alone: YAML, a request and a response in; verdict, edits and the response out.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use pingora::http::{RequestHeader, ResponseHeader};

use super::{
    CertificateSources, Chain, CompileContext, Consumers, FilterConfig, Identities, Memories, ResponseView, RouteFacts,
    SharedValues,
};
use crate::exchange::{Allowance, Exchange, Rejection, RequestView};
use crate::live::{ConsumerConfig, ConsumerTable, Live, consumer_digest};
use crate::notation::{Mistakes, Place};

/// A chain of filters with the consumers `one` and `two`, whose API keys are `key-of-one` and `key-of-two`.
pub(super) struct Kit {
    chain: Chain,
    /// The facts about the exchange that the filters see.
    pub exchange: Exchange,
    memories: Memories,
    request: RequestHeader,
}

/// A response as the client would get it.
#[derive(Debug)]
pub(super) struct Changed {
    pub head: ResponseHeader,
    pub body: Vec<u8>,
}

impl Changed {
    /// Returns a header, or `-`.
    pub fn header(&self, name: &str) -> &str {
        self.head.headers.get(name).map_or("-", |value| value.to_str().expect("text"))
    }
}

/// Compiles a list of filters in YAML.
///
/// # Errors
/// Returns the errors as text.
pub(super) fn compile(yaml: &str) -> Result<Kit, String> {
    compile_with(yaml, true)
}

/// Compiles a list of filters in YAML, which are enforced or on trial.
///
/// # Errors
/// Returns the errors as text.
pub(super) fn compile_with(yaml: &str, enforce: bool) -> Result<Kit, String> {
    let configs: Vec<FilterConfig> =
        serde_yaml::with::singleton_map_recursive::deserialize(serde_yaml::Deserializer::from_str(yaml))
            .map_err(|error| error.to_string())?;
    let (mut shared, mut mistakes) = (SharedValues::default(), Mistakes::default());
    let (live, consumers) = (Live::default(), Arc::new(consumers(&mut mistakes)));
    let certificates = CertificateSources { connections: true, trusted_proxies: true };
    let mut filters = Vec::new();
    for (index, config) in configs.iter().enumerate() {
        let mut context = CompileContext {
            route: RouteFacts::new("r", &[], &[], certificates, "filter", true),
            place: Place::default().key("filters").index(index).key(config.key()),
            base: Path::new("."),
            state: None,
            live: &live,
            consumers: &consumers,
            is_partial: false,
            identities: Identities(&|place| consumer_digest(place.to_string().as_bytes())),
            shared: &mut shared,
            mistakes: &mut mistakes,
        };
        let compiled = config.compile(&mut context).map(Arc::new);
        filters.extend(compiled.map(|filter| super::ChainLink { filter, enforced: enforce, condition: None }));
    }
    if !mistakes.is_empty() {
        return Err(mistakes.0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
    }
    let request = RequestHeader::build("GET", b"/", None).expect("a request");
    Ok(Kit { chain: Chain::new(filters), exchange: Exchange::default(), memories: Memories::default(), request })
}

/// Returns the consumers: `one` with the plan `gold` and the scope `read`, and `two` in the group `staff`.
fn consumers(mistakes: &mut Mistakes) -> Consumers {
    let mut table = ConsumerTable::default();
    for (name, more, scopes) in [("one", "plan: gold", "read"), ("two", "groups: [staff]", "")] {
        let hmac = format!("hmac: {{key_id: KEY-OF-{}, secret: secret-key-of-{name}}}", name.to_uppercase());
        let key = format!("api_key: {{value: key-of-{name}, scopes: [{scopes}]}}");
        let yaml = format!("{{credentials: [{{{key}}}, {{{hmac}}}], {more}}}");
        let value: serde_json::Value = serde_yaml::from_str(&yaml).expect("YAML");
        let config: ConsumerConfig = serde_json::from_value(value).expect("a consumer");
        table.add(name, &config, &Place::default(), mistakes);
    }
    let gold = Allowance { rate_limit: vec!["3/h".parse().expect("a rate")], ..Allowance::default() };
    Consumers::new(table, None, [("gold".into(), Arc::new(gold))].into_iter().collect())
}

/// Builds the head of a request: `GET /path`, and headers.
pub(super) fn request(line: &str, headers: &[(&str, &str)]) -> RequestHeader {
    let (method, path) = line.split_once(' ').expect("a method and a path");
    let mut request = RequestHeader::build(method, path.as_bytes(), None).expect("a request");
    for (name, value) in headers {
        request.append_header((*name).to_owned(), *value).expect("a header");
    }
    request
}

/// Builds the head of a response.
pub(super) fn response(status: u16, headers: &[(&str, &str)]) -> ResponseHeader {
    let mut response = ResponseHeader::build(status, None).expect("a response");
    for (name, value) in headers {
        response.append_header((*name).to_owned(), *value).expect("a header");
    }
    response
}

impl Kit {
    /// Runs the filters on a request whose check does not wait.
    pub fn on_request(&mut self, request: RequestHeader) -> Result<(), Box<Rejection>> {
        self.request = request;
        self.chain
            .on_request(&self.request, &mut self.exchange, &mut self.memories)
            .now_or_never()
            .expect("it does not wait")
    }

    /// Runs the filters on the request's whole body.
    pub fn on_request_body(&mut self, body: &[u8]) -> Result<(), Box<Rejection>> {
        self.edit_request_body(body).map(drop)
    }

    /// Runs the filters on the request's whole body, and returns the one for the target.
    pub fn edit_request_body(&mut self, body: &[u8]) -> Result<Bytes, Box<Rejection>> {
        let body = Bytes::copy_from_slice(body);
        self.chain.on_request_body(&body, &self.request, &mut self.exchange, &mut self.memories)
    }

    /// Returns the head that is sent to the target.
    pub fn sent(&self) -> RequestHeader {
        let mut request = self.request.clone();
        let view = RequestView { request: &self.request, exchange: &self.exchange, pattern: None, response: None };
        self.exchange.edits.apply_to_target(&mut request, &view).expect("a path");
        let mut headers = request.headers.clone();
        self.exchange.edits.apply_to_headers(&mut headers, &view);
        for name in self.request.headers.keys() {
            request.remove_header(name);
        }
        for (name, value) in &headers {
            request.append_header(name.clone(), value.clone()).expect("a header");
        }
        request
    }

    /// Returns a response of the target as the client gets it; its body comes in parts of `cut` bytes.
    pub fn on_response(
        &mut self,
        mut head: ResponseHeader,
        body: &[u8],
        cut: usize,
    ) -> Result<Changed, Box<Rejection>> {
        let view = ResponseView { request: &self.request, exchange: &self.exchange, pattern: None, own: false };
        let mut chain = self.chain.on_response(&mut head, &view, &mut self.memories)?;
        let mut out = Vec::new();
        for part in body.chunks(cut.max(1)) {
            let mut part = Some(Bytes::copy_from_slice(part));
            chain.push(&mut part, false).expect("a body that can be looked into");
            out.extend(part.unwrap_or_default());
        }
        let mut last = None;
        chain.push(&mut last, true).expect("a body that can be looked into");
        out.extend(last.unwrap_or_default());
        Ok(Changed { head, body: out })
    }
}

mod tests {
    use super::*;

    #[test]
    fn the_target_sees_the_edits_and_the_filters_do_not() {
        let mut kit = compile("[{api_key: {query: key}}, {headers: {request: {set: {x-a: b}}}}]").expect("filters");
        kit.on_request(request("GET /p?key=key-of-one&a=1", &[("x-a", "client")])).expect("let in");
        assert_eq!(kit.exchange.identity.as_ref().map(|i| &*i.name), Some("one"));
        assert_eq!(kit.request.uri, "/p?key=key-of-one&a=1");
        let sent = kit.sent();
        assert_eq!((sent.uri.to_string().as_str(), sent.headers["x-a"].to_str().expect("text")), ("/p?a=1", "b"));
    }

    #[test]
    fn a_chain_of_body_changes_repairs_the_head_once() {
        let mut kit = compile("[{strip_fields: {response: [a]}}, {strip_fields: {response: [b]}}]").expect("filters");
        kit.on_request(request("GET /", &[("accept-encoding", "br")])).expect("let in");
        assert!(kit.sent().headers.get("accept-encoding").is_none());
        let head = response(
            200,
            &[("content-type", "application/json"), ("content-length", "20"), ("etag", "\"1\""), ("digest", "x")],
        );
        let changed = kit.on_response(head, br#"{"a":1,"b":2,"c":3}"#, 3).expect("JSON");
        assert_eq!(String::from_utf8_lossy(&changed.body), r#"{"c":3}"#);
        assert_eq!(
            [changed.header("content-length"), changed.header("etag"), changed.header("digest")],
            ["-", "W/\"1\"", "-"]
        );
    }

    #[test]
    fn any_of_lets_in_whom_one_lets_in_and_joins_the_challenges() {
        let yaml = "[{any_of: [{jwt: {secret: 0123456789abcdef0123456789abcdef, forward_claims: {sub: \
            x-user}}}, {api_key: {}}]}]";
        let mut kit = compile(yaml).expect("filters");
        let nobody = kit.on_request(request("GET /", &[])).expect_err("nobody");
        assert_eq!(nobody.reason.code(), "credential_missing");
        assert_eq!(nobody.detail, "one of several credentials is required");
        let challenges: Vec<_> = nobody.headers.iter().map(|(_, value)| value.to_str().expect("text")).collect();
        assert_eq!(challenges, ["Bearer realm=\"portcullis\"", "ApiKey header=\"x-api-key\""]);
        let wrong = kit.on_request(request("GET /", &[("x-api-key", "nobody's")])).expect_err("nobody");
        let why = Some("the key is unknown or has expired");
        assert_eq!((wrong.reason.code(), wrong.log.as_deref()), ("api_key_invalid", why));
        let wrong = kit.on_request(request("GET /", &[("authorization", "Bearer x")])).expect_err("no token");
        assert_eq!((wrong.reason.code(), wrong.log.as_deref()), ("token_invalid", Some(&*wrong.detail)));
        kit.on_request(request("GET /", &[("x-api-key", "key-of-two"), ("x-user", "forged")])).expect("two");
        assert_eq!(kit.exchange.identity.as_ref().map(|i| &*i.name), Some("two"));
        assert!(kit.sent().headers.get("x-user").is_none(), "only the filter sets it");
    }

    #[test]
    fn all_of_is_whom_the_first_that_knows_a_consumer_names() {
        let jwt = "jwt: {secret: 0123456789abcdef0123456789abcdef}";
        let bearer = format!("Bearer {}", sign("0123456789abcdef0123456789abcdef"));
        let both = [("authorization", bearer.as_str()), ("x-api-key", "key-of-two"), ("x-second", "key-of-one")];
        let second = "api_key: {header: x-second}";
        for (members, name) in [
            (format!("{{{jwt}}}, {{api_key: {{}}}}"), "two"),
            (format!("{{api_key: {{}}}}, {{{jwt}}}"), "two"),
            (format!("{{{jwt}}}, {{{second}}}, {{api_key: {{}}}}"), "one"),
        ] {
            let mut kit = compile(&format!("[{{all_of: [{members}]}}]")).expect("filters");
            kit.on_request(request("GET /", &both)).expect("all are good");
            assert_eq!(kit.exchange.identity.as_ref().map(|i| &*i.name), Some(name), "{members}");
        }
    }

    #[test]
    fn the_log_names_the_limit_that_rejects() {
        let detail = |yaml: &str, headers: &[(&str, &str)]| {
            let mut kit = compile(yaml).expect("filters");
            let rejected = (0..9).find_map(|_| kit.on_request(request("GET /", headers)).err());
            rejected.and_then(|rejection| rejection.log).expect("a detail")
        };
        let tenant = [("x-tenant", "secret-of-acme"), ("x-api-key", "key-of-one")];
        for (limit, wanted) in [
            ("rate_limit: {limit: [1/s, 1/h], by: {header: x-tenant}}", "limit 1/s and 1/h by the header x-tenant"),
            ("rate_limit: {limit: 1/h, name: users}", "limit users"),
            ("concurrency: {limit: 1, by: [address, host]}", "limit 1 at a time by address and host"),
            ("throttle: {limit: 1/h, max_delay: 1s}", "limit 1/h by address: the wait would be too long"),
        ] {
            assert_eq!(detail(&format!("[{{{limit}}}]"), &tenant), wanted);
        }
        let plan = "[{api_key: {}}, {rate_limit: {limit: 1/h, from_plan: true, by: consumer}}]";
        assert_eq!(detail(plan, &tenant), "limit 3/h by consumer");
    }

    #[test]
    fn what_does_not_authenticate_cannot_be_combined() {
        assert!(
            compile("[{any_of: [{api_key: {}}, {headers: {}}]}]")
                .err()
                .expect("an error")
                .contains("headers does not authenticate")
        );
        assert!(compile("[{all_of: [{api_key: {}}]}]").err().expect("an error").contains("at least two"));
    }

    #[test]
    fn credentials_that_were_not_verified_do_not_go_on() {
        let token = sign("0123456789abcdef0123456789abcdef");
        let jwt = "jwt: {secret: 0123456789abcdef0123456789abcdef, cookie: tok, query: tok}";
        let mut kit = compile(&format!("[{{any_of: [{{{jwt}}}, {{api_key: {{}}}}]}}]")).expect("filters");
        let forged = [("x-api-key", "key-of-one"), ("authorization", "Bearer forged"), ("cookie", "a=1; tok=forged")];
        kit.on_request(request("GET /?tok=forged&b=2", &forged)).expect("the key is good");
        let sent = kit.sent();
        assert!(sent.headers.get("authorization").is_none());
        assert_eq!(sent.uri, "/?b=2");
        assert_eq!(sent.headers["cookie"], "a=1");
        let mut kit = compile(&format!("[{{{jwt}}}]")).expect("a filter");
        let bearer = format!("Bearer {token}");
        let both = [("authorization", bearer.as_str()), ("cookie", "tok=forged; a=J")];
        kit.on_request(request("GET /?tok=forged", &both)).expect("the token is good");
        let sent = kit.sent();
        assert_eq!(sent.headers["authorization"], bearer);
        assert_eq!(sent.uri, "/");
        assert_eq!(sent.headers["cookie"], "a=J");
        for several in [format!("tok={token}; tok=forged"), format!("tok={token}; tok =forged")] {
            let rejected = kit.on_request(request("GET /", &[("cookie", &several)])).expect_err("two tokens");
            assert_eq!(rejected.reason.code(), "token_invalid");
        }
        let mut kit = compile("[{api_key: {forward: true, query: k}}]").expect("a filter");
        let two = [("x-api-key", "key-of-one"), ("x-api-key", "key-of-two")];
        assert!(kit.on_request(request("GET /", &two)).is_err());
        assert!(kit.on_request(request("GET /?k=key-of-one&k=x", &[])).is_err());
    }

    #[test]
    fn on_trial_nobody_is_rejected_and_what_is_not_proven_identifies_nobody() {
        let mut kit = compile_with("[{api_key: {}}]", false).expect("a filter");
        kit.on_request(request("GET /", &[("x-api-key", "for-the-target")])).expect("let in");
        assert!(kit.exchange.identity.is_none());
        assert_eq!(kit.sent().headers["x-api-key"], "for-the-target");
        let found = kit.exchange.would_reject.take().expect("noted");
        assert_eq!((found.reason.code(), found.filter), ("api_key_invalid", "api_key"));
        kit.on_request(request("GET /", &[("x-api-key", "key-of-one")])).expect("let in");
        assert_eq!(kit.exchange.identity.as_ref().map(|i| &*i.name), Some("one"));
        assert!(kit.sent().headers.get("x-api-key").is_none() && kit.exchange.would_reject.is_none());
        // The body would have to prove it, and comes later.
        let seconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
        let now = chrono::DateTime::from_timestamp(seconds.cast_signed(), 0).expect("a time");
        let (day, date) = (now.format("%Y%m%d").to_string(), now.format("%Y%m%dT%H%M%SZ").to_string());
        let forged = format!(
            "AWS4-HMAC-SHA256 Credential=KEY-OF-TWO/{day}/eu/x/aws4_request, SignedHeaders=host;x-amz-date, \
             Signature={}",
            "a".repeat(64)
        );
        let headers = [
            ("host", "h.example"),
            ("content-length", "1"),
            ("x-amz-date", date.as_str()),
            ("authorization", forged.as_str()),
        ];
        let mut kit = compile_with("[{hmac: {body_hash: computed}}]", false).expect("a filter");
        kit.on_request(request("POST /", &headers)).expect("let in");
        kit.on_request_body(b"x").expect("let in");
        assert!(kit.exchange.identity.is_none());
        assert_eq!(kit.exchange.would_reject.as_ref().map(|found| found.filter), Some("hmac"));
    }

    fn sign(secret: &str) -> String {
        let claims = serde_json::json!({"sub": "ada", "exp": 4_102_444_800_u64});
        let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
        jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).expect("a token")
    }
}
