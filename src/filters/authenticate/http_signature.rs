//! `http_signature`: requires an HTTP message signature (RFC 9421) with a consumer's key.
//!
//! The algorithm is that of the key and never chosen by the message. Method, target and content have to be signed
//! unless the configuration names other components; the content by `Content-Digest` (RFC 9530), which is compared with
//! the body before the request goes on. A nonce is accepted once.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use http::header::{HeaderName, HeaderValue, WWW_AUTHENTICATE};
use pingora::http::RequestHeader;
use schemars::JsonSchema;
use serde::Deserialize;

use super::hmac::{authority, has_body};
use super::{Authenticated, Unauthenticated, challenges_of};
use crate::exchange::{Edit, Exchange, Identity, Reason, Rejection};
use crate::filters::{CompileContext, Consumers, HttpFilter, Needs, Stage, Verdict};
use crate::live::{NonceUse, Nonces, consumer_digest};
use crate::notation::{Duration, Size};
use crate::rules::identity::check_content_digest;
use crate::rules::identity::message_signature::{MessageSignature, SignedMessage, parse};

const SIGNATURE: HeaderName = HeaderName::from_static("signature");
const SIGNATURE_INPUT: HeaderName = HeaderName::from_static("signature-input");

/// Which signatures are accepted.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The tag of the signature. With it a request may have other signatures besides. Default: any, and only one
    /// signature.
    pub tag: Option<String>,
    /// The components that have to be signed. Default: `@method`, the target (`@target-uri`, or `@authority`, `@path`
    /// and `@query`), and `content-digest` where there is a body.
    pub components: Option<Vec<String>>,
    /// How old a signature may be, at most 1h. Default 5m.
    pub max_age: Option<Duration>,
    /// By how much clocks may differ, at most 60s. Default 30s.
    pub leeway: Option<Duration>,
    /// Whether a signature needs a nonce. One that has a nonce is accepted once in any case. Default `optional`.
    pub nonce: NonceRule,
    /// The most nonces that are remembered, until their signatures expire; further signatures are rejected with 503
    /// meanwhile. Those of all such filters count, which share one memory. Each takes some 60 bytes. Default 100000.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub max_nonces: Option<u32>,
    /// The scheme that clients sign, where it is another than that of the connection, as behind a proxy that ends TLS.
    pub scheme: Option<SignedScheme>,
    /// The largest body, which is held whole. Default 1MiB.
    pub max_body: Option<Size>,
    /// Whether the target sees the signature. Default false.
    pub forward: bool,
}

/// Whether a signature needs a nonce.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NonceRule {
    /// It may have one.
    #[default]
    Optional,
    /// It needs one.
    Required,
}

/// The scheme of the URL that a client signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SignedScheme {
    /// `http`
    Http,
    /// `https`
    Https,
}

/// The compiled filter.
#[derive(Debug)]
pub struct Filter {
    tag: Option<String>,
    components: Option<Vec<String>>,
    max_age: i64,
    leeway: i64,
    nonce: NonceRule,
    max_nonces: usize,
    nonces: Arc<Nonces>,
    scheme: Option<SignedScheme>,
    max_body: u64,
    edits: Arc<[Edit]>,
    consumers: Arc<Consumers>,
}

/// Why a signature is not accepted.
#[derive(Debug)]
enum SignatureProblem {
    Invalid(&'static str),
    Overloaded,
}

impl From<&'static str> for SignatureProblem {
    fn from(why: &'static str) -> Self {
        Self::Invalid(why)
    }
}

fn removal() -> [Edit; 2] {
    [Edit::Remove(SIGNATURE), Edit::Remove(SIGNATURE_INPUT)]
}

impl HttpFilter for Filter {
    type Config = Config;
    type Memory = ();
    const STAGE: Stage = Stage::Authenticate;

    fn compile(config: &Config, context: &mut CompileContext<'_>) -> Option<Self> {
        let place = context.place.clone();
        if !context.consumers.has_signature_keys() && !context.is_partial {
            context.mistakes.add(&place, "no consumer has an http_signature credential, so this would reject everyone");
            return None;
        }
        let mut seconds = |key: &'static str, given: &Option<Duration>, default: i64, most: i64| {
            let time = given.as_ref().map_or(default, |time| i64::try_from(time.0.as_secs()).unwrap_or(i64::MAX));
            if time > most {
                context.mistakes.add(&place.key(key), format!("expected at most {most}s"));
            }
            time
        };
        let (max_age, leeway) =
            (seconds("max_age", &config.max_age, 300, 3_600), seconds("leeway", &config.leeway, 30, 60));
        for (index, component) in config.components.iter().flatten().enumerate() {
            if let Some(why) = wrong_component(component) {
                context.mistakes.add(&place.key("components").index(index), why);
            }
        }
        Some(Self {
            tag: config.tag.clone(),
            components: config.components.clone(),
            max_age,
            leeway,
            nonce: config.nonce,
            max_nonces: config.max_nonces.map_or(100_000, |most| most as usize),
            // One memory for all places: what was used once is used, wherever the filter is moved to.
            nonces: Arc::clone(context.live.nonces()),
            scheme: config.scheme,
            max_body: config.max_body.as_ref().map_or(1 << 20, |size| size.0),
            edits: if config.forward { Arc::default() } else { removal().into() },
            consumers: Arc::clone(context.consumers),
        })
    }

    fn headers_read(_config: &Config) -> Vec<(HeaderName, Vec<String>)> {
        vec![(SIGNATURE, Vec::new()), (SIGNATURE_INPUT, Vec::new())]
    }

    fn needs(&self) -> Needs {
        Needs::RequestBody(self.max_body)
    }

    fn credentials(&self) -> Vec<Edit> {
        removal().into()
    }

    fn challenges(&self) -> Vec<HeaderValue> {
        challenges_of(&self.challenge(Reason::SignatureMissing, ""))
    }

    fn edits(&self) -> Option<&Arc<[Edit]>> {
        Some(&self.edits)
    }

    async fn authenticate(
        &self,
        request: &RequestHeader,
        exchange: &Exchange,
    ) -> Result<Authenticated, Unauthenticated> {
        let invalid = |why| Unauthenticated::invalid(self.challenge(Reason::SignatureInvalid, why));
        let Some(signature) = parse(&request.headers, self.tag.as_deref()).map_err(invalid)? else {
            let rejection = self.challenge(Reason::SignatureMissing, "sign the request as in RFC 9421");
            return Err(Unauthenticated::missing(rejection));
        };
        match self.verify(&signature, &self.message(request, exchange), has_body(request)) {
            Ok(identity) => Ok(Authenticated { identity: Some(identity), ..Authenticated::default() }),
            Err(SignatureProblem::Invalid(why)) => Err(invalid(why)),
            Err(SignatureProblem::Overloaded) => {
                let rejection = Rejection::new(Reason::AuthOverloaded, "").log("there are too many nonces");
                Err(Unauthenticated::unchecked(rejection))
            }
        }
    }

    /// Compares the body with what was signed. Another authenticator of the route may have accepted the request.
    fn on_request_body(&self, body: &[u8], request: &RequestHeader, _exchange: &mut Exchange) -> Verdict {
        let invalid = |why| self.challenge(Reason::SignatureInvalid, why);
        let Some(signature) = parse(&request.headers, self.tag.as_deref()).map_err(invalid)? else { return Ok(()) };
        if signature.covers("content-digest") {
            return check_content_digest(&request.headers, body).map_err(invalid);
        }
        if self.components.is_none() && !body.is_empty() {
            return Err(invalid("content-digest is not signed"));
        }
        Ok(())
    }
}

impl Filter {
    /// Returns the request as signatures see it.
    fn message<'r>(&self, request: &'r RequestHeader, exchange: &Exchange) -> SignedMessage<'r> {
        let scheme = match self.scheme {
            Some(SignedScheme::Http) => "http",
            Some(SignedScheme::Https) => "https",
            None => exchange.scheme(),
        };
        SignedMessage {
            method: &request.method,
            scheme,
            authority: authority(request),
            path: request.uri.path(),
            query: request.uri.query(),
            headers: &request.headers,
        }
    }

    /// Verifies a signature; `with_body` says that the request has a body, which has to be signed too.
    fn verify(
        &self,
        signature: &MessageSignature,
        message: &SignedMessage<'_>,
        with_body: bool,
    ) -> Result<Identity, SignatureProblem> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed());
        signature.check_time(now, self.max_age, self.leeway)?;
        self.check_components(signature, message, with_body)?;
        let key_id = signature.key_id.as_deref().ok_or("the signature has no keyid")?;
        if self.nonce == NonceRule::Required && signature.nonce.is_none() {
            return Err("the signature has no nonce".into());
        }
        let known = self.consumers.by_signature_key(key_id).ok_or("the key is not known")?;
        // Section 3.2, step 6: what the message says has to agree with what is known of the key.
        if signature.algorithm.as_deref().is_some_and(|algorithm| algorithm != known.key.algorithm().name()) {
            return Err("the algorithm is not that of the key".into());
        }
        if !known.key.verify(&signature.base(message)?, &signature.signature) {
            return Err("the signature is not that of this request".into());
        }
        // Only now: a forged signature must not use up the nonce of another.
        if let Some(nonce) = &signature.nonce {
            self.use_nonce(key_id, nonce, signature, now)?;
        }
        Ok(Identity::of(known.consumer, None))
    }

    fn check_components(
        &self,
        signature: &MessageSignature,
        message: &SignedMessage<'_>,
        with_body: bool,
    ) -> Result<(), &'static str> {
        if let Some(components) = &self.components {
            return match components.iter().all(|component| signature.covers(component)) {
                true => Ok(()),
                false => Err("a component that is required is not signed"),
            };
        }
        if !signature.covers("@method") {
            return Err("@method is not signed");
        }
        if !signature.covers_target(message) {
            return Err("the target is not signed: @target-uri, or @authority, @path and @query");
        }
        if with_body && !signature.covers("content-digest") {
            return Err("content-digest is not signed");
        }
        Ok(())
    }

    fn use_nonce(
        &self,
        key_id: &str,
        nonce: &str,
        signature: &MessageSignature,
        now: i64,
    ) -> Result<(), SignatureProblem> {
        let whole = consumer_digest(&[key_id.as_bytes(), b"\0", nonce.as_bytes()].concat());
        let mut digest = [0; 16];
        digest.copy_from_slice(&whole[..16]);
        // Until the signature is rejected for its age.
        let created = signature.created.unwrap_or(now);
        let expiry = created.saturating_add(self.max_age).saturating_add(self.leeway);
        match self.nonces.use_once(digest, expiry, now, self.max_nonces) {
            NonceUse::First => Ok(()),
            NonceUse::Repeated => Err("the nonce has been used before".into()),
            NonceUse::Full => Err(SignatureProblem::Overloaded),
        }
    }

    fn challenge(&self, reason: Reason, why: &'static str) -> Box<Rejection> {
        let challenge = HeaderValue::from_static("Signature realm=\"portcullis\"");
        let rejection = Rejection::new(reason, why).header(WWW_AUTHENTICATE, challenge);
        match self.wanted() {
            Some(wanted) => rejection.header(HeaderName::from_static("accept-signature"), wanted),
            None => rejection,
        }
    }

    /// Returns `Accept-Signature` (RFC 9421, section 5.1): what a signature has to have.
    fn wanted(&self) -> Option<HeaderValue> {
        let default = ["@method", "@target-uri", "content-digest"].map(str::to_owned);
        let components = self.components.as_deref().unwrap_or(&default);
        let list: Vec<String> = components.iter().map(|component| format!("\"{component}\"")).collect();
        let nonce = if self.nonce == NonceRule::Required { ";nonce" } else { "" };
        let tag = self.tag.as_ref().map(|tag| format!(";tag=\"{tag}\"")).unwrap_or_default();
        HeaderValue::try_from(format!("sig=({});created;keyid{nonce}{tag}", list.join(" "))).ok()
    }
}

/// Returns what is wrong with the name of a component.
fn wrong_component(name: &str) -> Option<String> {
    const DERIVED: [&str; 7] =
        ["@method", "@target-uri", "@authority", "@scheme", "@request-target", "@path", "@query"];
    if name.starts_with('@') {
        return (!DERIVED.contains(&name)).then(|| format!("expected one of {}, or a header", DERIVED.join(", ")));
    }
    let is_header = name.parse::<HeaderName>().is_ok_and(|header| header.as_str() == name);
    (!is_header).then(|| "expected the name of a header in lower case, or of a component such as @method".to_owned())
}
