//! What a JSON Web Token says of itself before it is verified: its head, and its issuer.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Why a token is not acceptable, for the client.
pub type TokenError = &'static str;

const MALFORMED: TokenError = "the token is malformed";

/// The head of a token (RFC 7515, section 4).
#[derive(Debug)]
pub struct TokenHead {
    /// Its algorithm; `None` for one that is not known, as `none`.
    pub algorithm: Option<Algorithm>,
    /// The id of its key.
    pub kid: Option<String>,
    /// Its type, in lower case.
    pub kind: String,
}

impl TokenHead {
    /// Parses the head of a token in the compact form.
    ///
    /// # Errors
    /// When it is malformed, or of a kind that cannot be verified.
    pub fn parse(token: &[u8]) -> Result<Self, TokenError> {
        match token.iter().filter(|byte| **byte == b'.').count() {
            2 => {}
            // RFC 7516, section 9.
            4 => return Err("the token is encrypted, and no key to decrypt it is known"),
            _ => return Err(MALFORMED),
        }
        let head = members(token, 0).ok_or(MALFORMED)?;
        let text = |name: &str| match head.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(_) => Err(MALFORMED),
        };
        // RFC 7515, section 4.1.11, and RFC 7797, section 6: none of them is known here.
        if head.contains_key("crit") || head.get("b64").is_some_and(|b64| *b64 != Value::Bool(true)) {
            return Err("the token has a critical extension that is not known");
        }
        // RFC 7519, section 5.2: the content is a token itself.
        if text("cty")?.is_some_and(|kind| media_type(kind) == "jwt") {
            return Err("the token holds another token");
        }
        Ok(Self {
            algorithm: text("alg")?.and_then(|name| name.parse().ok()),
            kid: text("kid")?.map(str::to_owned),
            kind: media_type(text("typ")?.unwrap_or_default()),
        })
    }
}

/// Returns a type in its normal form: in lower case, without `application/` (RFC 7515, section 4.1.9).
pub fn media_type(kind: &str) -> String {
    let lower = kind.to_ascii_lowercase();
    lower.strip_prefix("application/").map(str::to_owned).unwrap_or(lower)
}

/// Returns the issuer that a token names, before it is verified: only to choose the keys to verify it with.
pub fn unverified_issuer(token: &[u8]) -> Option<String> {
    match members(token, 1)?.remove("iss")? {
        Value::String(issuer) => Some(issuer),
        _ => None,
    }
}

/// Returns the members of a part of a token.
fn members(token: &[u8], part: usize) -> Option<Map<String, Value>> {
    let json = URL_SAFE_NO_PAD.decode(token.split(|byte| *byte == b'.').nth(part)?).ok()?;
    serde_json::from_slice::<StrictObject>(&json).ok().map(|object| object.0)
}

/// A JSON object in which no object has two members of one name: readers differ in which of them counts (RFC 7519,
/// section 4, and RFC 8725, section 2.4).
#[derive(Debug)]
pub struct StrictObject(pub Map<String, Value>);

impl<'de> Deserialize<'de> for StrictObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Strict.deserialize(deserializer)? {
            Value::Object(members) => Ok(Self(members)),
            _ => Err(D::Error::custom("not an object")),
        }
    }
}

/// Reads a value strictly.
struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Bool(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
        Number::from_f64(number).map(Value::Number).ok_or_else(|| E::custom("a number out of range"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Self)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(Self)?;
            if object.insert(name, value).is_some() {
                return Err(A::Error::custom("two members of one name"));
            }
        }
        Ok(Value::Object(object))
    }
}
