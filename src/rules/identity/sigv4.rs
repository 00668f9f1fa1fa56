//! Verification of AWS Signature Version 4 (the "AWS Signature Version 4 for API requests" of AWS's documentation), in
//! the header `Authorization` and in the query of a presigned URL.

use std::borrow::Cow;

use aws_lc_rs::{constant_time, digest, hmac};
use chrono::NaiveDateTime;
use http::{HeaderMap, Method};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, percent_encode};

use crate::rules::routing::form_decode;

/// The name of the algorithm.
pub const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// The longest time for which a presigned URL may be valid, in seconds.
const MAX_EXPIRES: u64 = 604_800;

/// The most headers that may be signed.
const MAX_SIGNED_HEADERS: usize = 64;

/// The bytes that are not encoded in canonical requests: those that RFC 3986 does not reserve.
pub const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The same in a path, whose segments are separated as they are.
pub const PATH: &AsciiSet = &UNRESERVED.remove(b'/');

/// A request as the signature sees it.
#[derive(Clone, Copy, Debug)]
pub struct SignedRequest<'r> {
    /// The method.
    pub method: &'r Method,
    /// The path in its normal form, in which the target gets it and in which a client has to sign it.
    pub path: &'r str,
    /// The query as it was sent.
    pub query: Option<&'r str>,
    /// The headers.
    pub headers: &'r HeaderMap,
    /// The authority with its port, for `host` where no such header was sent.
    pub authority: &'r str,
}

/// The signature of a request, with what it says of itself.
#[derive(Debug)]
pub struct SignatureV4<'r> {
    /// The id of the key.
    pub key_id: String,
    /// The region of its scope.
    pub region: String,
    /// The service of its scope.
    pub service: String,
    /// Whether it is in the query.
    pub is_presigned: bool,
    scope: String,
    date: Cow<'r, str>,
    time: u64,
    expires: Option<u64>,
    signed_headers: Cow<'r, str>,
    signature: [u8; 32],
}

/// The hash of the body that is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignedPayload<'r> {
    /// The SHA-256 digest, in 64 hexadecimal digits.
    Digest(&'r str),
    /// The body is expressly not signed.
    Unsigned,
    /// The request does not say: it is that of the body.
    OfBody,
    /// The body is signed in a way that is not known here, as in chunks.
    Unknown,
}

/// Parses the signature of a request; `None` if it has none.
///
/// # Errors
/// Returns what is wrong with it; the text may be sent to the client.
pub fn parse<'r>(request: &SignedRequest<'r>) -> Result<Option<SignatureV4<'r>>, &'static str> {
    let mut values = request.headers.get_all(http::header::AUTHORIZATION).iter();
    let header = values.next().map(http::HeaderValue::as_bytes);
    let of_header = header.and_then(|value| {
        let rest = value.strip_prefix(ALGORITHM.as_bytes())?;
        rest.first().is_some_and(u8::is_ascii_whitespace).then_some(rest)
    });
    let is_presigned = pairs(request.query).any(|(name, _)| decode(name) == "X-Amz-Signature");
    match of_header {
        Some(_) if is_presigned || values.next().is_some() => Err("there are several signatures"),
        Some(rest) => {
            let text = std::str::from_utf8(rest).map_err(|_| "the signature is malformed")?;
            of_authorization(request, text).map(Some)
        }
        None if is_presigned => of_query(request).map(Some),
        None => Ok(None),
    }
}

fn of_authorization<'r>(request: &SignedRequest<'r>, text: &'r str) -> Result<SignatureV4<'r>, &'static str> {
    let (mut credential, mut signed_headers, mut signature) = (None, None, None);
    for part in text.split(',') {
        let (name, value) = part.trim().split_once('=').ok_or("the signature is malformed")?;
        let slot = match name {
            "Credential" => &mut credential,
            "SignedHeaders" => &mut signed_headers,
            "Signature" => &mut signature,
            _ => return Err("the signature has an unknown part"),
        };
        if slot.replace(value).is_some() {
            return Err("the signature is malformed");
        }
    }
    let (Some(credential), Some(signed_headers), Some(signature)) = (credential, signed_headers, signature) else {
        return Err("the signature lacks a part");
    };
    let date = single(request.headers, "x-amz-date")?.ok_or("x-amz-date is missing")?;
    signature_of(Cow::Borrowed(credential), Cow::Borrowed(date), Cow::Borrowed(signed_headers), signature, None)
}

fn of_query<'r>(request: &SignedRequest<'r>) -> Result<SignatureV4<'r>, &'static str> {
    let value = |wanted: &str| -> Result<Cow<'r, str>, &'static str> {
        let mut found = pairs(request.query).filter(|(name, _)| decode(name) == wanted);
        match (found.next(), found.next()) {
            (Some((_, value)), None) => Ok(decode(value)),
            (None, _) => Err("the presigned URL lacks a part"),
            (Some(_), Some(_)) => Err("the presigned URL has a part twice"),
        }
    };
    if value("X-Amz-Algorithm")? != ALGORITHM {
        return Err("the algorithm of the signature is not known");
    }
    let expires: u64 = value("X-Amz-Expires")?.parse().map_err(|_| "the presigned URL is malformed")?;
    if expires == 0 || expires > MAX_EXPIRES {
        return Err("the presigned URL is valid for too long");
    }
    let signature = value("X-Amz-Signature")?;
    let (credential, date) = (value("X-Amz-Credential")?, value("X-Amz-Date")?);
    signature_of(credential, date, value("X-Amz-SignedHeaders")?, &signature, Some(expires))
}

fn signature_of<'r>(
    credential: Cow<'r, str>,
    date: Cow<'r, str>,
    signed_headers: Cow<'r, str>,
    signature: &str,
    expires: Option<u64>,
) -> Result<SignatureV4<'r>, &'static str> {
    // A key id may have slashes; what follows it does not.
    let mut parts = credential.rsplitn(5, '/');
    let (Some("aws4_request"), Some(service), Some(region), Some(day), Some(key_id)) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err("the credential of the signature is malformed");
    };
    let time = seconds(&date).ok_or("the date of the signature is malformed")?;
    if date.get(..8) != Some(day) {
        return Err("the date of the signature and of its credential differ");
    }
    let scope = format!("{day}/{region}/{service}/aws4_request");
    let (key_id, region, service) = (key_id.to_owned(), region.to_owned(), service.to_owned());
    let signature = hex_bytes(signature).ok_or("the signature is malformed")?;
    check_signed_headers(&signed_headers)?;
    Ok(SignatureV4 {
        key_id,
        region,
        service,
        is_presigned: expires.is_some(),
        scope,
        date,
        time,
        expires,
        signed_headers,
        signature,
    })
}

/// Checks that the names are in lower case, in ascending order, and that the host is one of them.
fn check_signed_headers(names: &str) -> Result<(), &'static str> {
    let mut last = "";
    for (count, name) in names.split(';').enumerate() {
        if name <= last || count == MAX_SIGNED_HEADERS || name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err("the list of signed headers is malformed");
        }
        last = name;
    }
    if names.split(';').any(|name| name == "host") { Ok(()) } else { Err("the host is not signed") }
}

impl<'r> SignatureV4<'r> {
    /// Checks that the signature is valid at `now`, in seconds since 1970; clocks may differ by `skew`.
    ///
    /// # Errors
    /// Returns that it is not.
    pub fn check_time(&self, now: u64, skew: u64) -> Result<(), &'static str> {
        if self.time > now.saturating_add(skew) {
            return Err("the signature is not valid yet");
        }
        let until = self.time.saturating_add(self.expires.unwrap_or(skew));
        if now > until { Err("the signature has expired") } else { Ok(()) }
    }

    /// Returns the hash of the body that is signed.
    ///
    /// # Errors
    /// When the request has several.
    pub fn payload(&self, request: &SignedRequest<'r>) -> Result<SignedPayload<'r>, &'static str> {
        Ok(match single(request.headers, "x-amz-content-sha256")? {
            Some("UNSIGNED-PAYLOAD") => SignedPayload::Unsigned,
            Some(text) if is_digest(text) => SignedPayload::Digest(text),
            Some(_) => SignedPayload::Unknown,
            // A presigned URL of S3 does not know the body.
            None if self.is_presigned && self.service == "s3" => SignedPayload::Unsigned,
            None => SignedPayload::OfBody,
        })
    }

    /// Returns whether the signature is that of the request with the key `secret`. `payload` is the hash of the body as
    /// the canonical request has it.
    ///
    /// # Errors
    /// When a header that is signed is not there.
    pub fn verify(&self, request: &SignedRequest<'_>, payload: &str, secret: &[u8]) -> Result<bool, &'static str> {
        let canonical = self.canonical_request(request, payload)?;
        let hash = hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
        let to_sign = format!("{ALGORITHM}\n{}\n{}\n{hash}", self.date, self.scope);
        let mut key = hmac_of(&[b"AWS4", secret].concat(), self.date.get(..8).unwrap_or_default().as_bytes());
        for part in [self.region.as_str(), self.service.as_str(), "aws4_request"] {
            key = hmac_of(key.as_ref(), part.as_bytes());
        }
        let expected = hmac_of(key.as_ref(), to_sign.as_bytes());
        Ok(constant_time::verify_slices_are_equal(expected.as_ref(), &self.signature).is_ok())
    }

    /// Returns the canonical request ("Create a canonical request").
    fn canonical_request(&self, request: &SignedRequest<'_>, payload: &str) -> Result<String, &'static str> {
        let mut out = format!("{}\n", request.method);
        // S3 takes paths as they are named; all others encode the path that was sent once more.
        let path: Cow<'_, [u8]> = match self.service.as_str() {
            // A plus sign in them is itself, as targets read it.
            "s3" => percent_decode(request.path.as_bytes()).collect::<Vec<u8>>().into(),
            _ => Cow::Borrowed(request.path.as_bytes()),
        };
        out.extend(percent_encode(if path.is_empty() { b"/" } else { &path }, PATH));
        out.push('\n');
        // In a query it is a blank.
        let encoded = |text: &str| -> String { percent_encode(&form_decode(text.as_bytes()), UNRESERVED).collect() };
        let mut parameters: Vec<(String, String)> = pairs(request.query)
            .map(|(name, value)| (encoded(name), encoded(value)))
            .filter(|(name, _)| !self.is_presigned || name != "X-Amz-Signature")
            .collect();
        parameters.sort_unstable();
        for (index, (name, value)) in parameters.iter().enumerate() {
            if index > 0 {
                out.push('&');
            }
            out.extend([name.as_str(), "=", value.as_str()]);
        }
        out.push('\n');
        for name in self.signed_headers.split(';') {
            out.push_str(name);
            out.push(':');
            push_values(request, name, &mut out)?;
            out.push('\n');
        }
        out.extend(["\n", &self.signed_headers, "\n", payload]);
        Ok(out)
    }
}

/// Appends the values of a signed header, with single blanks within.
fn push_values(request: &SignedRequest<'_>, name: &str, out: &mut String) -> Result<(), &'static str> {
    let mut values = request.headers.get_all(name).iter().map(http::HeaderValue::as_bytes).peekable();
    if values.peek().is_none() {
        if name != "host" {
            return Err("a signed header is missing");
        }
        out.push_str(request.authority);
        return Ok(());
    }
    for (index, value) in values.enumerate() {
        let value = std::str::from_utf8(value).map_err(|_| "a signed header is no text")?;
        if index > 0 {
            out.push(',');
        }
        let mut words = value.split([' ', '\t']).filter(|word| !word.is_empty());
        out.push_str(words.next().unwrap_or_default());
        words.for_each(|word| out.extend([" ", word]));
    }
    Ok(())
}

/// Returns the only value of a header.
fn single<'r>(headers: &'r HeaderMap, name: &str) -> Result<Option<&'r str>, &'static str> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err("a header of the signature is there twice");
    }
    value.to_str().map(|text| Some(text.trim())).map_err(|_| "a header of the signature is malformed")
}

/// Returns the parameters of a query, undecoded.
fn pairs(query: Option<&str>) -> impl Iterator<Item = (&str, &str)> {
    let parts = query.into_iter().flat_map(|query| query.split('&')).filter(|pair| !pair.is_empty());
    parts.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

fn decode(text: &str) -> Cow<'_, str> {
    percent_decode(text.as_bytes()).decode_utf8_lossy()
}

/// Returns the HMAC-SHA256 of a text.
pub fn hmac_of(key: &[u8], text: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text)
}

/// Returns the time of `20150830T123600Z` (ISO 8601 in its basic form), in seconds since 1970.
fn seconds(text: &str) -> Option<u64> {
    let time = NaiveDateTime::parse_from_str(text, "%Y%m%dT%H%M%SZ").ok().filter(|_| text.len() == 16)?;
    u64::try_from(time.and_utc().timestamp()).ok()
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Returns the SHA-256 digest of a body, as canonical requests have it.
pub fn digest_of_body(body: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, body).as_ref())
}

/// Returns bytes in hexadecimal digits, in lower case.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn hex_bytes(text: &str) -> Option<[u8; 32]> {
    if !is_digest(text) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
#[path = "sigv4_tests.rs"]
mod sigv4_tests;
