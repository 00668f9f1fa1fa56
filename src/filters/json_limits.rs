//! `json_limits`: rejects JSON request bodies that are malformed, or of a shape that is made to harm a parser.

use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderValue};
use pingora::http::RequestHeader;
use schemars::JsonSchema;
use serde::Deserialize;

use super::json::{is_json, is_other_charset};
use super::{CompileContext, HttpFilter, Needs, Stage, Verdict};
use crate::exchange::{Exchange, Reason, Rejection};
use crate::notation::Size;
use crate::rules::payload::{JsonLimits, MAX_JSON_DEPTH};

/// The limits of a JSON body.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The longest body, which is held whole. Default 1MiB.
    pub max_size: Size,
    /// The deepest nesting, 127 at most. Default 32.
    #[schemars(range(min = 1, max = 127))]
    pub max_depth: u32,
    /// The most members of an object. Default 1000.
    pub max_members: u32,
    /// The most elements of a list. Default 10000.
    pub max_elements: u32,
    /// The longest name, in bytes. Default 256.
    pub max_name: u32,
    /// The longest text, in bytes. Default 1048576.
    pub max_text: u32,
    /// What happens to an object with two members of one name, of which some parsers take the first and some the
    /// last. Default `reject`.
    pub duplicate_names: DuplicateNames,
    /// What happens to a body that is not JSON by its `Content-Type`. Default `keep`.
    pub other: OtherBody,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_size: Size(1 << 20),
            max_depth: 32,
            max_members: 1_000,
            max_elements: 10_000,
            max_name: 256,
            max_text: 1 << 20,
            duplicate_names: DuplicateNames::Reject,
            other: OtherBody::Keep,
        }
    }
}

/// What happens to an object with two members of one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DuplicateNames {
    /// 400.
    Reject,
    /// It is accepted.
    Keep,
}

/// What happens to a request body that is not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OtherBody {
    /// It is accepted unchecked.
    Keep,
    /// 415.
    Reject,
}

/// The compiled filter.
#[derive(Debug)]
pub struct Filter {
    limits: JsonLimits,
    size: u64,
    other: OtherBody,
}

impl HttpFilter for Filter {
    type Config = Config;
    type Memory = ();
    const STAGE: Stage = Stage::Validate;

    fn compile(config: &Config, context: &mut CompileContext<'_>) -> Option<Self> {
        if config.max_depth > MAX_JSON_DEPTH {
            context.mistakes.add(&context.place.key("max_depth"), format!("expected at most {MAX_JSON_DEPTH}"));
        }
        let limits = JsonLimits {
            depth: config.max_depth,
            members: config.max_members,
            elements: config.max_elements,
            name: config.max_name,
            text: config.max_text,
            duplicate_names: config.duplicate_names == DuplicateNames::Keep,
        };
        Some(Self { limits, size: config.max_size.0, other: config.other })
    }

    fn needs(&self) -> Needs {
        Needs::RequestBody(self.size)
    }

    fn on_request_body(&self, body: &[u8], request: &RequestHeader, exchange: &mut Exchange) -> Verdict {
        if body.is_empty() {
            return Ok(());
        }
        if !is_json(&request.headers) {
            return match self.other {
                OtherBody::Keep => Ok(()),
                OtherBody::Reject => Err(Rejection::new(Reason::MediaType, "send JSON, as application/json")),
            };
        }
        let mut codings = request.headers.get_all(CONTENT_ENCODING).iter();
        if !exchange.is_decoded && codings.any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
            // RFC 7694, section 3.
            let rejection = Rejection::new(Reason::MediaType, "send the body without a content coding");
            return Err(rejection.header(ACCEPT_ENCODING, HeaderValue::from_static("identity")));
        }
        if is_other_charset(&request.headers, false) {
            return Err(Rejection::new(Reason::MediaType, "send JSON in UTF-8"));
        }
        self.limits.check(body).map_err(|why| Rejection::new(Reason::BodyInvalid, why))
    }
}

#[cfg(test)]
mod tests {
    use crate::filters::test_kit::{compile, request};

    #[test]
    fn a_body_is_judged_by_its_kind_and_shape() {
        let json = [("content-type", "application/json; charset=utf-8")];
        let check = |yaml: &str, headers: &[(&str, &str)], body: &str| {
            let mut kit = compile(yaml).expect("a filter");
            kit.on_request(request("POST /", headers)).expect("the head is fine");
            kit.on_request_body(body.as_bytes())
                .err()
                .map(|rejection| (rejection.reason.code(), rejection.detail.into_owned()))
        };
        let yaml = "[{json_limits: {max_depth: 2, other: reject}}]";
        assert_eq!(check(yaml, &json, "[[1]]"), None);
        assert_eq!(check(yaml, &json, ""), None);
        let deep = check(yaml, &json, "[[[1]]]").expect("a rejection");
        assert_eq!(deep, ("body_invalid", "the document is nested deeper than 2 levels at line 1 column 3".to_owned()));
        assert_eq!(check(yaml, &[], "{").expect("a rejection").0, "body_invalid");
        assert_eq!(check(yaml, &[("content-type", "text/plain")], "{").expect("a rejection").0, "media_type");
        assert_eq!(check("[{json_limits: {}}]", &[("content-type", "text/plain")], "{"), None);
        let other = [("content-type", "application/json; charset=utf-7")];
        assert_eq!(check(yaml, &other, "[]").expect("a rejection").0, "media_type");
        let packed = [json[0], ("content-encoding", "gzip")];
        assert_eq!(check(yaml, &packed, "[]").expect("a rejection").0, "media_type");
    }
}
