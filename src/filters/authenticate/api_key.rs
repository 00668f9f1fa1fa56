//! `api_key`: requires a key that belongs to a consumer.

use std::borrow::Cow;
use std::sync::Arc;

use http::header::{HeaderName, HeaderValue, WWW_AUTHENTICATE};
use percent_encoding::percent_decode;
use pingora::http::RequestHeader;
use schemars::JsonSchema;
use serde::Deserialize;
use smallvec::{SmallVec, smallvec};

use super::{Authenticated, Unauthenticated, challenges_of};
use crate::exchange::{Edit, Exchange, Identity, Reason, Rejection};
use crate::filters::{CompileContext, Consumers, HttpFilter, Stage};
use crate::notation::{Header, SecretParameter};
use crate::rules::routing::{form_decode, raw_parameters};

/// The longest key; longer ones are rejected unread.
const MAX_KEY: usize = 512;

/// Where the key is.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The header with the key. Default `x-api-key`.
    pub header: Header,
    /// A query parameter that may hold it instead, encoded as client libraries do (`%2B` for `+`). Default: none,
    /// because URLs are logged everywhere.
    pub query: Option<SecretParameter>,
    /// Whether the target sees the key. Default false.
    pub forward: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { header: Header(HeaderName::from_static("x-api-key")), query: None, forward: false }
    }
}

/// The compiled filter.
#[derive(Debug)]
pub struct Filter {
    header: HeaderName,
    query: Option<String>,
    edits: Arc<[Edit]>,
    /// What a key in the header leaves unread.
    unread: Arc<[Edit]>,
    consumers: Arc<Consumers>,
}

impl HttpFilter for Filter {
    type Config = Config;
    type Memory = ();
    const STAGE: Stage = Stage::Authenticate;

    fn compile(config: &Config, context: &mut CompileContext<'_>) -> Option<Self> {
        if !context.consumers.has_keys() && !context.is_partial {
            let place = context.place.clone();
            context.mistakes.add(&place, "no consumer has an api_key, so this would reject everyone");
            return None;
        }
        let mut edits = Vec::new();
        if !config.forward {
            edits.push(Edit::Remove(config.header.0.clone()));
            edits.extend(config.query.iter().map(|name| Edit::RemoveParameter(name.0.as_str().into())));
        }
        Some(Self {
            header: config.header.0.clone(),
            query: config.query.as_ref().map(|query| query.0.clone()),
            edits: edits.into(),
            unread: config.query.iter().map(|name| Edit::RemoveParameter(name.0.as_str().into())).collect(),
            consumers: Arc::clone(context.consumers),
        })
    }

    fn headers_read(config: &Config) -> Vec<(HeaderName, Vec<String>)> {
        vec![(config.header.0.clone(), vec!["header".to_owned()])]
    }

    fn credentials(&self) -> Vec<Edit> {
        let query = self.query.iter().map(|name| Edit::RemoveParameter(name.as_str().into()));
        [Edit::Remove(self.header.clone())].into_iter().chain(query).collect()
    }

    fn challenges(&self) -> Vec<HeaderValue> {
        challenges_of(&self.challenge(Reason::ApiKeyMissing))
    }

    fn edits(&self) -> Option<&Arc<[Edit]>> {
        Some(&self.edits)
    }

    async fn authenticate(
        &self,
        request: &RequestHeader,
        _exchange: &Exchange,
    ) -> Result<Authenticated, Unauthenticated> {
        let mut headers = request.headers.get_all(&self.header).iter().map(HeaderValue::as_bytes);
        let header = headers.next();
        let name = self.query.as_deref().filter(|_| header.is_none());
        let mut raws = name.into_iter().flat_map(|name| raw_parameters(request.uri.query(), name));
        let raw = raws.next();
        if headers.next().is_some() || raws.next().is_some() {
            // The target might use the other one.
            return Err(self.invalid("there are several keys"));
        }
        let key = header.map(Cow::Borrowed).or_else(|| raw.map(form_decode)).filter(|k| !k.is_empty());
        let Some(key) = key else {
            return Err(Unauthenticated::missing(self.challenge(Reason::ApiKeyMissing)));
        };
        let owner = |key: &[u8]| (key.len() <= MAX_KEY).then(|| self.consumers.by_key(key)).flatten();
        // A + that is not encoded may be meant as itself: URLs that are written by hand have it so.
        let by_hand =
            || raw.filter(|raw| raw.contains(&b'+')).and_then(|raw| owner(&percent_decode(raw).collect::<Vec<u8>>()));
        let Some(known) = owner(&key).or_else(by_hand) else {
            let is_long = key.len() > MAX_KEY;
            return Err(self.invalid(if is_long {
                "the key is too long"
            } else {
                "the key is unknown or has expired"
            }));
        };
        let identity = Some(Identity::of(known.consumer, known.scopes));
        let edits = if header.is_some() { smallvec![Arc::clone(&self.unread)] } else { SmallVec::new() };
        Ok(Authenticated { identity, edits, ..Authenticated::default() })
    }
}

impl Filter {
    /// Returns the error for a key that is not acceptable; why is for the log alone.
    fn invalid(&self, why: &'static str) -> Unauthenticated {
        Unauthenticated::invalid(self.challenge(Reason::ApiKeyInvalid).log(why))
    }

    fn challenge(&self, reason: Reason) -> Box<Rejection> {
        let challenge = HeaderValue::try_from(format!("ApiKey header=\"{}\"", self.header));
        let rejection = Rejection::new(reason, format!("send a valid key in the header {}", self.header));
        match challenge {
            Ok(challenge) => rejection.header(WWW_AUTHENTICATE, challenge),
            Err(_) => rejection,
        }
    }
}
