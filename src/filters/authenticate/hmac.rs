//! `hmac`: requires a signature of AWS's form (AWS Signature Version 4) with a consumer's key.
//!
//! The body is signed too: its hash is in the header `x-amz-content-sha256`, which the signature covers, and is
//! compared with the body before the request goes on.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, TRANSFER_ENCODING, WWW_AUTHENTICATE};
use pingora::http::RequestHeader;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Authenticated, Unauthenticated, challenges_of};
use crate::exchange::{Edit, Exchange, Identity, Reason, Rejection};
use crate::filters::{CompileContext, Consumers, HttpFilter, Needs, Stage, Verdict};
use crate::notation::{Duration, Size};
use crate::rules::identity::sigv4::{ALGORITHM, SignatureV4, SignedPayload, SignedRequest, digest_of_body, parse};

/// The longest time by which clocks may differ, in seconds.
const MAX_SKEW: u64 = 900;

/// The parameters of a presigned URL.
const PARAMETERS: [&str; 6] =
    ["X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders", "X-Amz-Signature"];

/// Which signatures are accepted.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The regions of signatures that are accepted. Default: any.
    pub regions: Vec<String>,
    /// The services of signatures that are accepted. Default: any.
    pub services: Vec<String>,
    /// How long a signature in the header is accepted, and by how much clocks may differ; at most 15m. Default 5m.
    pub max_skew: Option<Duration>,
    /// Whether presigned URLs are accepted: a signature in the query, which is valid as long as it says, at most 7
    /// days. Default false.
    pub presigned: bool,
    /// Whether bodies may be unsigned (`UNSIGNED-PAYLOAD`). Default false.
    pub unsigned_body: bool,
    /// Where the hash of a body is from. Default `header`.
    pub body_hash: BodyHash,
    /// The largest body, which is held whole. Default 1MiB.
    pub max_body: Option<Size>,
    /// Whether the target sees the signature. Default false.
    pub forward: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            regions: Vec::new(),
            services: Vec::new(),
            max_skew: None,
            presigned: false,
            unsigned_body: false,
            body_hash: BodyHash::Header,
            max_body: None,
            forward: false,
        }
    }
}

/// Where the hash of a body is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BodyHash {
    /// From `x-amz-content-sha256`, which a request with a body needs.
    Header,
    /// Computed where that header is missing, as many clients have it. The signature can only be verified once the
    /// whole body has come, and until then anybody may have named the consumer: no limit of the route may count by it.
    Computed,
}

impl Config {
    /// Returns whether a request may have an identity that is verified only with the body, after the limits.
    pub fn is_verified_late(&self) -> bool {
        self.body_hash == BodyHash::Computed
    }
}

/// The compiled filter.
#[derive(Debug)]
pub struct Filter {
    config: Config,
    skew: u64,
    max_body: u64,
    edits: Arc<[Edit]>,
    consumers: Arc<Consumers>,
}

fn removal() -> impl Iterator<Item = Edit> {
    let parameters = PARAMETERS.into_iter().map(|name| Edit::RemoveParameter(name.into()));
    [Edit::RemoveScheme(AUTHORIZATION, ALGORITHM)].into_iter().chain(parameters)
}

impl HttpFilter for Filter {
    type Config = Config;
    type Memory = ();
    const STAGE: Stage = Stage::Authenticate;

    fn compile(config: &Config, context: &mut CompileContext<'_>) -> Option<Self> {
        let place = context.place.clone();
        if !context.consumers.has_hmac_keys() && !context.is_partial {
            context.mistakes.add(&place, "no consumer has an hmac credential, so this would reject everyone");
            return None;
        }
        let skew = config.max_skew.as_ref().map_or(300, |time| time.0.as_secs());
        if skew == 0 || skew > MAX_SKEW {
            context.mistakes.add(&place.key("max_skew"), "expected at least 1s and at most 15m");
        }
        Some(Self {
            skew,
            max_body: config.max_body.as_ref().map_or(1 << 20, |size| size.0),
            edits: if config.forward { Arc::default() } else { removal().collect() },
            consumers: Arc::clone(context.consumers),
            config: config.clone(),
        })
    }

    fn headers_read(_config: &Config) -> Vec<(HeaderName, Vec<String>)> {
        vec![(AUTHORIZATION, Vec::new())]
    }

    fn needs(&self) -> Needs {
        Needs::RequestBody(self.max_body)
    }

    fn credentials(&self) -> Vec<Edit> {
        removal().collect()
    }

    fn challenges(&self) -> Vec<HeaderValue> {
        challenges_of(&challenge(Reason::SignatureMissing, "sign the request with AWS Signature Version 4"))
    }

    fn edits(&self) -> Option<&Arc<[Edit]>> {
        Some(&self.edits)
    }

    async fn authenticate(
        &self,
        request: &RequestHeader,
        _exchange: &Exchange,
    ) -> Result<Authenticated, Unauthenticated> {
        let invalid = |why| Unauthenticated::invalid(challenge(Reason::SignatureInvalid, why));
        let signed = signed_request(request);
        let Some(signature) = parse(&signed).map_err(invalid)? else {
            let rejection = challenge(Reason::SignatureMissing, "sign the request with AWS Signature Version 4");
            return Err(Unauthenticated::missing(rejection));
        };
        self.check(&signature).map_err(invalid)?;
        let payload = match signature.payload(&signed).map_err(invalid)? {
            SignedPayload::Digest(digest) => Some(digest),
            // Where there is no body, nothing is unsigned.
            SignedPayload::Unsigned if self.config.unsigned_body || !has_body(request) => Some("UNSIGNED-PAYLOAD"),
            SignedPayload::Unsigned => return Err(invalid("the body is not signed")),
            SignedPayload::Unknown => return Err(invalid("the form of x-amz-content-sha256 is not known")),
            // The digest of nothing.
            SignedPayload::OfBody if !has_body(request) => {
                Some("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
            }
            SignedPayload::OfBody if self.config.body_hash == BodyHash::Computed => None,
            SignedPayload::OfBody => return Err(invalid("x-amz-content-sha256 is missing")),
        };
        let known = self.consumers.by_hmac_key(&signature.key_id).ok_or_else(|| invalid("the key is not known"))?;
        if let Some(payload) = payload {
            let secret = known.secret.reveal().as_bytes();
            if !signature.verify(&signed, payload, secret).map_err(invalid)? {
                return Err(invalid("the signature is not that of this request"));
            }
        }
        let identity = Some(Identity::of(known.consumer, None));
        Ok(Authenticated { identity, ..Authenticated::default() })
    }

    /// Compares the body with what was signed. Another authenticator of the route may have accepted the request.
    fn on_request_body(&self, body: &[u8], request: &RequestHeader, _exchange: &mut Exchange) -> Verdict {
        let invalid = |why| challenge(Reason::SignatureInvalid, why);
        let signed = signed_request(request);
        let Some(signature) = parse(&signed).map_err(invalid)? else { return Ok(()) };
        match signature.payload(&signed).map_err(invalid)? {
            SignedPayload::Digest(digest) if digest == digest_of_body(body) => Ok(()),
            SignedPayload::Unsigned if self.config.unsigned_body || body.is_empty() => Ok(()),
            SignedPayload::OfBody if !has_body(request) && body.is_empty() => Ok(()),
            SignedPayload::OfBody if has_body(request) && self.config.body_hash == BodyHash::Computed => {
                let known =
                    self.consumers.by_hmac_key(&signature.key_id).ok_or_else(|| invalid("the key is not known"))?;
                let secret = known.secret.reveal().as_bytes();
                match signature.verify(&signed, &digest_of_body(body), secret).map_err(invalid)? {
                    true => Ok(()),
                    false => Err(invalid("the signature is not that of this request")),
                }
            }
            _ => Err(invalid("the body is not the one that was signed")),
        }
    }
}

impl Filter {
    /// Checks what a signature says of itself.
    fn check(&self, signature: &SignatureV4<'_>) -> Result<(), &'static str> {
        let config = &self.config;
        if signature.is_presigned && !config.presigned {
            return Err("presigned URLs are not accepted");
        }
        if !config.regions.is_empty() && !config.regions.contains(&signature.region) {
            return Err("the signature is for another region");
        }
        if !config.services.is_empty() && !config.services.contains(&signature.service) {
            return Err("the signature is for another service");
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        signature.check_time(now, self.skew)
    }
}

/// Returns the request as signatures see it.
fn signed_request(request: &RequestHeader) -> SignedRequest<'_> {
    SignedRequest {
        method: &request.method,
        path: request.uri.path(),
        query: request.uri.query(),
        headers: &request.headers,
        authority: authority(request),
    }
}

/// Returns the authority of a request as it was sent, with its port.
pub(super) fn authority(request: &RequestHeader) -> &str {
    let host = || request.headers.get(HOST).and_then(|host| host.to_str().ok());
    request.uri.authority().map(http::uri::Authority::as_str).or_else(host).unwrap_or_default()
}

/// Returns whether the head announces a body. On HTTP/2 a body may come without that.
pub(super) fn has_body(request: &RequestHeader) -> bool {
    let length = request.headers.get(CONTENT_LENGTH);
    length.is_some_and(|length| length.as_bytes() != b"0") || request.headers.contains_key(TRANSFER_ENCODING)
}

fn challenge(reason: Reason, why: &'static str) -> Box<Rejection> {
    Rejection::new(reason, why)
        .header(WWW_AUTHENTICATE, HeaderValue::from_static("AWS4-HMAC-SHA256 realm=\"portcullis\""))
}
