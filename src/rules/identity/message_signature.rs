//! HTTP message signatures of requests (RFC 9421): what is signed, and the text over which the signature is made.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, Method};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use sfv::{BareItem, Dictionary, FieldType, InnerList, Item, List, ListEntry, Parser};

use crate::rules::routing::form_decode;

/// The most bytes of `Signature-Input` and of `Signature`.
const MAX_FIELD: usize = 8_192;

/// The most components of a signature, and the most signatures of a request.
const MAX_COMPONENTS: usize = 64;
const MAX_SIGNATURES: usize = 8;

/// The fields that are dictionaries (RFC 9651), of which a member or a strict form may be signed.
const DICTIONARIES: [&str; 6] =
    ["content-digest", "repr-digest", "want-content-digest", "want-repr-digest", "priority", "signature"];

/// The bytes that stay in names and values of `@query-param` (the URL standard, `application/x-www-form-urlencoded`).
const FORM: &AsciiSet = &NON_ALPHANUMERIC.remove(b'*').remove(b'-').remove(b'.').remove(b'_');

/// A request as a signature sees it.
#[derive(Clone, Copy, Debug)]
pub struct SignedMessage<'r> {
    /// The method.
    pub method: &'r Method,
    /// `http` or `https`.
    pub scheme: &'r str,
    /// The authority as it was sent.
    pub authority: &'r str,
    /// The path in its normal form, in which the target gets it and in which a client has to sign it.
    pub path: &'r str,
    /// The query as it was sent.
    pub query: Option<&'r str>,
    /// The headers.
    pub headers: &'r HeaderMap,
}

/// A signature of a request, with what it says of itself.
#[derive(Debug)]
pub struct MessageSignature {
    /// The time at which it was made.
    pub created: Option<i64>,
    /// The time until which it is valid.
    pub expires: Option<i64>,
    /// The id of the key.
    pub key_id: Option<String>,
    /// The name of the algorithm, which has to be that of the key.
    pub algorithm: Option<String>,
    /// A text that is used once.
    pub nonce: Option<String>,
    /// The signature itself.
    pub signature: Vec<u8>,
    input: InnerList,
    /// The identifiers of the components as they are written: `"@query-param";name="a"`.
    components: Vec<String>,
}

/// Why there is no usable signature. The texts may be sent to the client.
pub type SignatureError = &'static str;

/// Parses the signature of a request; `None` if it has none. With `tag` it is that with this tag; without, a request
/// has only one.
///
/// # Errors
/// Returns what is wrong with it.
pub fn parse(headers: &HeaderMap, tag: Option<&str>) -> Result<Option<MessageSignature>, SignatureError> {
    let Some(inputs) = dictionary(headers, "signature-input")? else {
        return if headers.contains_key("signature") { Err("Signature-Input is missing") } else { Ok(None) };
    };
    let signatures = dictionary(headers, "signature")?.ok_or("Signature is missing")?;
    if inputs.len() > MAX_SIGNATURES {
        return Err("there are too many signatures");
    }
    let mut found = None;
    for (label, entry) in inputs {
        let ListEntry::InnerList(input) = entry else { return Err("Signature-Input is malformed") };
        if tag.is_some() && text(&input, "tag")?.as_deref() != tag {
            continue;
        }
        if found.replace((label, input)).is_some() {
            return Err("there are several signatures");
        }
    }
    let Some((label, input)) = found else { return Ok(None) };
    let signature = match signatures.get(&label) {
        Some(ListEntry::Item(Item { bare_item: BareItem::ByteSequence(bytes), .. })) => bytes.clone(),
        Some(_) => return Err("Signature is malformed"),
        None => return Err("Signature has no such label"),
    };
    signature_of(input, signature).map(Some)
}

fn signature_of(input: InnerList, signature: Vec<u8>) -> Result<MessageSignature, SignatureError> {
    if input.items.len() > MAX_COMPONENTS {
        return Err("too many components are signed");
    }
    let mut components: Vec<String> = Vec::with_capacity(input.items.len());
    for item in &input.items {
        let identifier = item.serialize();
        // Section 2: each identifier occurs only once.
        if components.contains(&identifier) {
            return Err("a component is signed twice");
        }
        components.push(identifier);
    }
    Ok(MessageSignature {
        created: time(&input, "created")?,
        expires: time(&input, "expires")?,
        key_id: text(&input, "keyid")?,
        algorithm: text(&input, "alg")?,
        nonce: text(&input, "nonce")?,
        signature,
        input,
        components,
    })
}

/// Returns a field that is a dictionary; `None` if there is no such field.
fn dictionary(headers: &HeaderMap, name: &str) -> Result<Option<Dictionary>, SignatureError> {
    let Some(joined) = joined(headers, name) else { return Ok(None) };
    if joined.len() > MAX_FIELD {
        return Err("the signature is too long");
    }
    Parser::new(&joined).parse::<Dictionary>().map(Some).map_err(|_| "the signature is malformed")
}

fn time(input: &InnerList, name: &str) -> Result<Option<i64>, SignatureError> {
    match input.params.get(name) {
        None => Ok(None),
        Some(BareItem::Integer(seconds)) => Ok(Some(i64::from(*seconds))),
        Some(_) => Err("a parameter of the signature is malformed"),
    }
}

fn text(input: &InnerList, name: &str) -> Result<Option<String>, SignatureError> {
    match input.params.get(name) {
        None => Ok(None),
        Some(BareItem::String(text)) => Ok(Some(text.as_str().to_owned())),
        Some(_) => Err("a parameter of the signature is malformed"),
    }
}

/// Returns the values of a field, each trimmed, joined by a comma and a blank (section 2.1).
fn joined(headers: &HeaderMap, name: &str) -> Option<Vec<u8>> {
    let mut values = headers.get_all(name).iter().map(|value| value.as_bytes().trim_ascii());
    let mut joined = values.next()?.to_vec();
    for value in values {
        joined.extend_from_slice(b", ");
        joined.extend_from_slice(value);
    }
    Some(joined)
}

impl MessageSignature {
    /// Returns whether that component is signed, without parameters that change its value.
    pub fn covers(&self, component: &str) -> bool {
        self.components
            .iter()
            .any(|known| known.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) == Some(component))
    }

    /// Returns whether all of the request's target is signed.
    pub fn covers_target(&self, message: &SignedMessage<'_>) -> bool {
        let path = || self.covers("@path") && (message.query.is_none() || self.covers("@query"));
        self.covers("@target-uri") || (self.covers("@authority") && (self.covers("@request-target") || path()))
    }

    /// Checks that the signature is valid at `now`: not older than `max_age`, not expired, and not of a time to come.
    /// Clocks may differ by `skew`. All are seconds.
    ///
    /// # Errors
    /// Returns that it is not.
    pub fn check_time(&self, now: i64, max_age: i64, skew: i64) -> Result<(), SignatureError> {
        let created = self.created.ok_or("the signature does not say when it was created")?;
        if created > now.saturating_add(skew) {
            return Err("the signature is not valid yet");
        }
        let until = created.saturating_add(max_age);
        if now > until.saturating_add(skew) || self.expires.is_some_and(|expires| now > expires.saturating_add(skew)) {
            return Err("the signature has expired");
        }
        Ok(())
    }

    /// Returns the text over which the signature is made (section 2.5).
    ///
    /// # Errors
    /// Returns that a component is not known, or not in the request.
    pub fn base(&self, message: &SignedMessage<'_>) -> Result<Vec<u8>, SignatureError> {
        let mut base = Vec::with_capacity(512);
        for (item, identifier) in self.input.items.iter().zip(&self.components) {
            base.extend_from_slice(identifier.as_bytes());
            base.extend_from_slice(b": ");
            let value = value(item, message)?;
            if value.contains(&b'\n') {
                return Err("a component has several lines");
            }
            base.extend_from_slice(&value);
            base.push(b'\n');
        }
        let list: List = vec![ListEntry::InnerList(self.input.clone())];
        let parameters = list.serialize().ok_or("the signature is malformed")?;
        base.extend_from_slice(b"\"@signature-params\": ");
        base.extend_from_slice(parameters.as_bytes());
        Ok(base)
    }
}

/// The parameters of a component that are known for requests.
#[derive(Debug, Default)]
struct Parameters<'p> {
    strict: bool,
    bytes: bool,
    key: Option<&'p str>,
    name: Option<&'p str>,
}

fn parameters(item: &Item) -> Result<Parameters<'_>, SignatureError> {
    let mut known = Parameters::default();
    for (name, value) in &item.params {
        match (name.as_str(), value) {
            ("sf", BareItem::Boolean(true)) => known.strict = true,
            ("bs", BareItem::Boolean(true)) => known.bytes = true,
            ("key", BareItem::String(key)) => known.key = Some(key.as_str()),
            ("name", BareItem::String(name)) => known.name = Some(name.as_str()),
            // `req` is for responses, and trailers come after the decision.
            _ => return Err("a component has an unknown parameter"),
        }
    }
    Ok(known)
}

/// Returns the value of a component.
fn value(item: &Item, message: &SignedMessage<'_>) -> Result<Vec<u8>, SignatureError> {
    let BareItem::String(name) = &item.bare_item else { return Err("a component's name is no text") };
    let (name, with) = (name.as_str(), parameters(item)?);
    if name.starts_with('@') {
        return derived(name, &with, message);
    }
    if with.name.is_some() || name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err("a component is malformed");
    }
    match with {
        Parameters { bytes: true, strict: false, key: None, .. } => {
            let mut values = message.headers.get_all(name).iter().map(|value| value.as_bytes().trim_ascii()).peekable();
            values.peek().ok_or("a signed header is missing")?;
            let encoded: Vec<String> = values.map(|value| format!(":{}:", STANDARD.encode(value))).collect();
            Ok(encoded.join(", ").into_bytes())
        }
        Parameters { bytes: true, .. } => Err("a component has parameters that exclude each other"),
        Parameters { strict: false, key: None, .. } => {
            joined(message.headers, name).ok_or("a signed header is missing")
        }
        Parameters { key, .. } => {
            let joined = joined(message.headers, name).ok_or("a signed header is missing")?;
            structured(name, key, &joined)
        }
    }
}

/// Returns a dictionary in its strict form, or the member of it with that key (sections 2.1.1 and 2.1.2).
fn structured(name: &str, key: Option<&str>, value: &[u8]) -> Result<Vec<u8>, SignatureError> {
    if key.is_none() && !DICTIONARIES.contains(&name) {
        return Err("a component is signed in a form that is not known for its header");
    }
    let parsed: Dictionary = Parser::new(value).parse().map_err(|_| "a signed header is no dictionary")?;
    let serialized = match key {
        None => parsed.serialize(),
        Some(key) => match parsed.get(key).ok_or("a signed member of a header is missing")? {
            ListEntry::Item(item) => Some(item.serialize()),
            ListEntry::InnerList(list) => vec![ListEntry::InnerList(list.clone())].serialize(),
        },
    };
    serialized.map(String::into_bytes).ok_or("a signed header is empty")
}

/// Returns the value of a derived component (section 2.2).
fn derived(name: &str, with: &Parameters<'_>, message: &SignedMessage<'_>) -> Result<Vec<u8>, SignatureError> {
    if with.strict || with.bytes || with.key.is_some() || with.name.is_some() != (name == "@query-param") {
        return Err("a component is malformed");
    }
    let path = if message.path.is_empty() { "/" } else { message.path };
    let query = || message.query.map(|query| format!("?{query}")).unwrap_or_default();
    Ok(match name {
        "@method" => message.method.as_str().to_owned(),
        "@scheme" => message.scheme.to_owned(),
        "@authority" => authority(message),
        "@target-uri" => format!("{}://{}{path}{}", message.scheme, authority(message), query()),
        "@request-target" => format!("{path}{}", query()),
        "@path" => path.to_owned(),
        // An absent query is an empty one (section 2.2.7).
        "@query" => format!("?{}", message.query.unwrap_or_default()),
        "@query-param" => return parameter(with.name.unwrap_or_default(), message.query),
        _ => return Err("a component is not known"),
    }
    .into_bytes())
}

/// Returns the authority in its normal form: in lower case, without the port of the scheme (section 2.2.3).
fn authority(message: &SignedMessage<'_>) -> String {
    let lower = message.authority.to_ascii_lowercase();
    let port = if message.scheme == "https" { ":443" } else { ":80" };
    lower.strip_suffix(port).map(str::to_owned).unwrap_or(lower)
}

/// Returns the value of a parameter of the query, encoded anew (section 2.2.8). One that occurs twice cannot be signed.
fn parameter(name: &str, query: Option<&str>) -> Result<Vec<u8>, SignatureError> {
    let encoded = |text: &str| percent_encode(&form_decode(text.as_bytes()), FORM).to_string();
    let mut values = query.into_iter().flat_map(|query| query.split('&')).filter_map(|pair| {
        let (known, value) = pair.split_once('=').unwrap_or((pair, ""));
        (encoded(known) == name).then(|| encoded(value))
    });
    let value = values.next().ok_or("a signed parameter of the query is missing")?;
    if values.next().is_some() {
        return Err("a signed parameter of the query is there twice");
    }
    Ok(value.into_bytes())
}

#[cfg(test)]
#[path = "message_signature_tests.rs"]
mod message_signature_tests;
