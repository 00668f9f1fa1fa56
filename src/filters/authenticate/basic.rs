//! `basic`: requires the name and the password of a consumer (RFC 7617).

use std::sync::Arc;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::header::{AUTHORIZATION, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use pingora::http::RequestHeader;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Authenticated, Unauthenticated};
use crate::exchange::{Edit, Exchange, Identity, Reason, Rejection};
use crate::filters::{CompileContext, Consumers, HttpFilter, Stage};
use crate::live::{PasswordVerdict, Passwords};

/// The longest name.
const MAX_USERNAME: usize = 255;

/// The longest credentials; longer ones are rejected unread.
const MAX_CREDENTIALS: usize = 4_096;

/// The scheme.
const SCHEME: &str = "Basic";

/// The base64 decoder, which accepts the padding at the end or its absence: clients send both.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// How names and passwords are asked for.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What the password is for, which browsers show. Default `restricted`.
    pub realm: String,
    /// Whether the target sees the name and the password. Default false.
    pub forward: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { realm: "restricted".to_owned(), forward: false }
    }
}

/// The compiled filter.
#[derive(Debug)]
pub struct Filter {
    challenge: HeaderValue,
    edits: Arc<[Edit]>,
    consumers: Arc<Consumers>,
    passwords: Arc<Passwords>,
}

impl HttpFilter for Filter {
    type Config = Config;
    type Memory = ();
    const STAGE: Stage = Stage::Authenticate;

    fn compile(config: &Config, context: &mut CompileContext<'_>) -> Option<Self> {
        let place = context.place.clone();
        if !context.consumers.has_passwords() && !context.is_partial {
            context.mistakes.add(&place, "no consumer has a basic credential, so this would reject everyone");
            return None;
        }
        let challenge = challenge(&config.realm);
        Some(Self {
            challenge: context.mistakes.take(&place.key("realm"), challenge)?,
            edits: if config.forward { Arc::default() } else { Arc::new([Edit::RemoveScheme(AUTHORIZATION, SCHEME)]) },
            consumers: Arc::clone(context.consumers),
            passwords: context.live.passwords(),
        })
    }

    fn headers_read(_config: &Config) -> Vec<(HeaderName, Vec<String>)> {
        vec![(AUTHORIZATION, Vec::new())]
    }

    fn credentials(&self) -> Vec<Edit> {
        vec![Edit::RemoveScheme(AUTHORIZATION, SCHEME)]
    }

    fn challenges(&self) -> Vec<HeaderValue> {
        vec![self.challenge.clone()]
    }

    fn edits(&self) -> Option<&Arc<[Edit]>> {
        Some(&self.edits)
    }

    async fn authenticate(
        &self,
        request: &RequestHeader,
        exchange: &Exchange,
    ) -> Result<Authenticated, Unauthenticated> {
        let mut values = request.headers.get_all(AUTHORIZATION).iter();
        let Some(encoded) = values.next().and_then(|value| strip_scheme(value.as_bytes())) else {
            return Err(Unauthenticated::missing(self.rejection(Reason::PasswordMissing)));
        };
        let invalid = || Unauthenticated::invalid(self.rejection(Reason::PasswordInvalid));
        // The target might use another one.
        let decoded = if values.next().is_none() { decode(encoded) } else { None };
        let decoded = decoded.ok_or_else(invalid)?;
        let (username, password) = parts(&decoded).ok_or_else(invalid)?;
        let account = self.consumers.by_username(username);
        let decoy = || self.consumers.decoy(|count| self.passwords.decoy(username, count));
        let hash = account.as_ref().map(|account| Arc::clone(&account.hash)).or_else(decoy).ok_or_else(invalid)?;
        // A name that no consumer has takes as long.
        let verdict =
            Box::pin(self.passwords.verify(exchange.client, username, account.is_some(), &hash, password)).await;
        match (verdict, account) {
            (PasswordVerdict::Right, Some(account)) => {
                let identity = Some(Identity::of(account.consumer, None));
                Ok(Authenticated { identity, ..Authenticated::default() })
            }
            (PasswordVerdict::Right, None) | (PasswordVerdict::Wrong, _) => Err(invalid()),
            (PasswordVerdict::Busy, _) => {
                let rejection = Rejection::new(Reason::AuthOverloaded, "try again in a moment");
                Err(Unauthenticated::unchecked(rejection.header(RETRY_AFTER, HeaderValue::from_static("1"))))
            }
            (PasswordVerdict::Failed(why), _) => Err(Unauthenticated::unavailable(why)),
        }
    }
}

impl Filter {
    fn rejection(&self, reason: Reason) -> Box<Rejection> {
        Rejection::new(reason, "send a name and its password").header(WWW_AUTHENTICATE, self.challenge.clone())
    }
}

/// Returns the challenge: the realm as a quoted string (RFC 9110, section 5.6.4), and that names and passwords are
/// UTF-8 (RFC 7617, section 2.1).
fn challenge(realm: &str) -> Result<HeaderValue, String> {
    let wrong = || "expected visible ASCII characters and spaces".to_owned();
    if !realm.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return Err(wrong());
    }
    let quoted = realm.replace('\\', "\\\\").replace('"', "\\\"");
    HeaderValue::try_from(format!("{SCHEME} realm=\"{quoted}\", charset=\"UTF-8\"")).map_err(|_| wrong())
}

/// Returns what follows the scheme, whose case does not matter.
fn strip_scheme(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(SCHEME.len())?;
    let is_it = scheme.eq_ignore_ascii_case(SCHEME.as_bytes()) && rest.first().is_none_or(|byte| *byte == b' ');
    is_it.then(|| rest.trim_ascii())
}

fn decode(encoded: &[u8]) -> Option<String> {
    if encoded.len() > MAX_CREDENTIALS {
        return None;
    }
    String::from_utf8(BASE64.decode(encoded).ok()?).ok()
}

/// Returns the name, and after the first colon the password. Neither may have control characters (RFC 7617, section
/// 2): bcrypt would end the password at a NUL.
fn parts(decoded: &str) -> Option<(&str, &str)> {
    let (username, password) = decoded.split_once(':')?;
    (username.len() <= MAX_USERNAME && !decoded.contains(char::is_control)).then_some((username, password))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_read_as_the_rfc_has_them() {
        let read = |value: &str| {
            let decoded = decode(strip_scheme(value.as_bytes())?)?;
            parts(&decoded).map(|(name, password)| format!("{name}|{password}"))
        };
        // Those of RFC 7617, sections 2 and 2.1.
        assert_eq!(read("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==").as_deref(), Some("Aladdin|open sesame"));
        assert_eq!(read("basic dGVzdDoxMjPCow==").as_deref(), Some("test|123£"));
        assert_eq!(read("BASIC   YTpiOmM").as_deref(), Some("a|b:c"));
        let wrong =
            ["Basic", "Basic ", "Basic !", "Basic YQ==", "Basic YQA6Yg==", "Basic /zph", "Bearer YTpi", "BasicYTpi"];
        assert!(wrong.iter().all(|value| read(value).is_none()));
        assert!(read(&format!("Basic {}", BASE64.encode(format!("a:{}", "b".repeat(4_000))))).is_none());
        assert!(read(&format!("Basic {}", BASE64.encode(format!("{}:b", "a".repeat(256))))).is_none());
    }

    #[test]
    fn a_realm_is_quoted() {
        let text = challenge("a \"b\" \\c").expect("a challenge");
        assert_eq!(text, "Basic realm=\"a \\\"b\\\" \\\\c\", charset=\"UTF-8\"");
        assert!(challenge("a\nb").is_err() && challenge("ä").is_err());
    }
}
