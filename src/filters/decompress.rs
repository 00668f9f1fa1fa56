//! `decompress`: decodes the content coding of request bodies (RFC 9110, section 8.4), for targets that do not.
//!
//! It comes before the filters that inspect bodies, so that they see what the target gets. Authentication sees what the
//! client has sent: that is what a signature is over.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderName;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderValue};
use pingora::http::RequestHeader;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{CodingName, CompileContext, HttpFilter, Needs, Stage, Verdict};
use crate::exchange::{Edit, Exchange, Reason, Rejection};
use crate::notation::Size;
use crate::rules::payload::{Coding, Decoder, Step};

/// The bodies that are decoded.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The codings that are decoded: gzip, br, zstd. A body with another is rejected with 415. Default: all.
    pub codings: Vec<CodingName>,
    /// The largest body, before it is decoded and after. Default 1MiB.
    pub max_size: Size,
    /// How many times longer a body may become; a higher ratio is an attempt to use up memory. Default 100.
    #[schemars(range(min = 1))]
    pub max_ratio: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            codings: vec![CodingName::Zstd, CodingName::Br, CodingName::Gzip],
            max_size: Size(1 << 20),
            max_ratio: 100,
        }
    }
}

/// A body that is not longer than this once decoded is not rejected for its ratio.
const FREE_OF_RATIO: usize = 64 * 1024;

/// The bytes that are decoded at a time: little more than the largest size is decoded of a body that exceeds it.
const PART: usize = 4 * 1024;

/// The compiled filter.
#[derive(Debug)]
pub struct Filter {
    codings: Vec<Coding>,
    accepted: HeaderValue,
    most: u64,
    ratio: usize,
    /// The edits of a request that is decoded.
    edits: Arc<[Edit]>,
}

impl HttpFilter for Filter {
    type Config = Config;
    type Memory = ();
    const STAGE: Stage = Stage::Decode;

    fn compile(config: &Config, context: &mut CompileContext<'_>) -> Option<Self> {
        if config.codings.is_empty() {
            context.mistakes.add(&context.place.key("codings"), "expected at least one of gzip, br and zstd");
        }
        let codings: Vec<Coding> = config.codings.iter().map(|coding| coding.coding()).collect();
        let accepted = codings.iter().map(|coding| coding.name()).collect::<Vec<_>>().join(", ");
        let described = ["content-md5", "digest", "content-digest", "repr-digest"].map(HeaderName::from_static);
        let removed = [CONTENT_ENCODING].into_iter().chain(described).map(Edit::Remove);
        Some(Self {
            accepted: HeaderValue::try_from(accepted).ok()?,
            codings,
            most: config.max_size.0,
            ratio: config.max_ratio as usize,
            edits: removed.collect(),
        })
    }

    fn needs(&self) -> Needs {
        Needs::RequestBody(self.most)
    }

    fn wants_body(&self, request: &RequestHeader, _exchange: &Exchange) -> bool {
        coding(request).is_some()
    }

    async fn on_request(&self, request: &RequestHeader, _exchange: &mut Exchange, (): &mut ()) -> Verdict {
        match coding(request) {
            Some(coding) if self.known(coding).is_none() => Err(self.unknown_coding()),
            _ => Ok(()),
        }
    }

    fn edit_request_body(
        &self,
        body: &Bytes,
        request: &RequestHeader,
        exchange: &mut Exchange,
    ) -> Result<Option<Bytes>, Box<Rejection>> {
        let Some(coding) = coding(request) else { return Ok(None) };
        let known = self.known(coding).and_then(|coding| Decoder::of(coding.name()));
        let mut decoder = known.ok_or_else(|| self.unknown_coding())?;
        let mut decoded = Vec::new();
        let mut parts = body.chunks(PART).peekable();
        while let Some(part) = parts.next() {
            let end = parts.peek().is_none();
            decoder
                .push(part, end, &mut decoded)
                .map_err(|why| Rejection::new(Reason::BodyInvalid, why.to_string()))?;
            if decoded.len() as u64 > self.most {
                let text = format!("at most {} bytes are accepted once decoded", self.most);
                return Err(Rejection::new(Reason::BodyTooLarge, text));
            }
            if decoded.len() > FREE_OF_RATIO && decoded.len() / self.ratio > body.len() {
                let text = format!("the body is more than {} times longer once decoded", self.ratio);
                return Err(Rejection::new(Reason::BodyTooLarge, text));
            }
        }
        exchange.edits.push(&self.edits);
        exchange.is_decoded = true;
        Ok(Some(decoded.into()))
    }
}

impl Filter {
    fn known(&self, coding: &[u8]) -> Option<Coding> {
        let coding = Coding::of(std::str::from_utf8(coding).ok()?)?;
        self.codings.contains(&coding).then_some(coding)
    }

    /// Returns the rejection of a body with another coding, which says those that are decoded (RFC 9110, section
    /// 15.5.16).
    fn unknown_coding(&self) -> Box<Rejection> {
        Rejection::new(Reason::MediaType, "").header(ACCEPT_ENCODING, self.accepted.clone())
    }
}

/// Returns the content coding of a request, if it has one: the text of the field, which may list several.
fn coding(request: &RequestHeader) -> Option<&[u8]> {
    let mut values = request.headers.get_all(CONTENT_ENCODING).iter().map(HeaderValue::as_bytes);
    let value = values.next()?.trim_ascii();
    let is_none = value.is_empty() || value.eq_ignore_ascii_case(b"identity");
    // Two fields are a list, which is never the name of one coding.
    if values.next().is_some() { Some(b",") } else { (!is_none).then_some(value) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;
    use crate::filters::test_kit::{compile, request};

    fn gzip(body: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(body).expect("memory");
        encoder.finish().expect("memory")
    }

    fn sent(yaml: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<(Bytes, bool), Reason> {
        let mut kit = compile(yaml).expect("a filter");
        kit.on_request(request("POST /", headers)).map_err(|rejection| rejection.reason)?;
        let body = kit.edit_request_body(body).map_err(|rejection| rejection.reason)?;
        Ok((body, kit.sent().headers.contains_key(CONTENT_ENCODING)))
    }

    #[test]
    fn bodies_are_decoded_and_others_left_alone() {
        let headers = [("content-encoding", "GZip"), ("content-digest", "sha-256=:x:")];
        let decoded = sent("- decompress: {}", &headers, &gzip(b"some text"));
        assert_eq!(decoded, Ok((Bytes::from_static(b"some text"), false)));
        assert_eq!(sent("- decompress: {}", &[], b"plain"), Ok((Bytes::from_static(b"plain"), false)));
        let zstd = zstd::encode_all(&b"some text"[..], 1).expect("memory");
        let decoded = sent("- decompress: {}", &[("content-encoding", "zstd")], &zstd);
        assert_eq!(decoded, Ok((Bytes::from_static(b"some text"), false)));
    }

    #[test]
    fn other_codings_bombs_and_damage_are_rejected() {
        let gzip_only = "- decompress: {codings: [gzip], max_size: 200KiB}";
        for coding in ["br", "gzip, gzip", "deflate", "gzip2"] {
            assert_eq!(sent(gzip_only, &[("content-encoding", coding)], b"x"), Err(Reason::MediaType), "{coding}");
        }
        let coded = [("content-encoding", "gzip")];
        assert_eq!(sent(gzip_only, &coded, &gzip(&[0; 201 * 1024])), Err(Reason::BodyTooLarge));
        assert_eq!(sent(gzip_only, &coded, &gzip(&[0; 100 * 1024])), Err(Reason::BodyTooLarge), "the ratio");
        assert_eq!(
            sent("- decompress: {max_ratio: 2000}", &coded, &gzip(&[0; 100 * 1024])).map(|one| one.0.len()),
            Ok(102_400)
        );
        let whole = gzip(b"some text");
        assert_eq!(sent(gzip_only, &coded, &whole[..whole.len() - 3]), Err(Reason::BodyInvalid));
        assert_eq!(sent(gzip_only, &coded, b"no gzip at all"), Err(Reason::BodyInvalid));
    }
}
