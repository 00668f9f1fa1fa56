//! Signatures of requests to AWS (the "AWS Signature Version 4 for API requests" of AWS's documentation).

use aws_lc_rs::digest;
use chrono::DateTime;
use http::header::{AUTHORIZATION, HOST, HeaderName, HeaderValue};
use http::{HeaderMap, Method};
use percent_encoding::percent_encode;

use super::credentials::AwsKeys;
use crate::rules::identity::sigv4::{ALGORITHM, PATH, UNRESERVED, digest_of_body, hex, hmac_of};
use crate::rules::routing::form_decode;

const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const SECURITY_TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");

/// A request that is to be signed.
#[derive(Clone, Copy, Debug)]
pub struct RequestToSign<'r> {
    /// The method.
    pub method: &'r Method,
    /// The path as it is sent.
    pub path: &'r str,
    /// The query as it is sent.
    pub query: Option<&'r str>,
    /// `Host`, as it is sent.
    pub host: &'r HeaderValue,
    /// The headers that are signed besides `Host`, as they are sent.
    pub headers: &'r [(HeaderName, HeaderValue)],
    /// The body.
    pub body: &'r [u8],
}

/// What a signature is valid for.
#[derive(Clone, Copy, Debug)]
pub struct SigningScope<'s> {
    /// The region.
    pub region: &'s str,
    /// The service.
    pub service: &'s str,
    /// The time, in seconds since 1970.
    pub time: u64,
}

/// Returns the headers that sign a request: the date, the session token if the key has one, and `Authorization`.
/// `None` for a time or a header that cannot be written.
pub fn sign(
    request: &RequestToSign<'_>,
    keys: &AwsKeys,
    scope: SigningScope<'_>,
) -> Option<Vec<(HeaderName, HeaderValue)>> {
    let time = DateTime::from_timestamp(i64::try_from(scope.time).ok()?, 0)?;
    let date = time.format("%Y%m%dT%H%M%SZ").to_string();
    let mut added = vec![(DATE, HeaderValue::try_from(&date).ok()?)];
    if let Some(token) = &keys.session_token {
        let mut token = HeaderValue::from_str(token).ok()?;
        token.set_sensitive(true);
        added.push((SECURITY_TOKEN, token));
    }
    let mut signed = HeaderMap::new();
    signed.append(HOST, request.host.clone());
    for (name, value) in request.headers.iter().chain(&added) {
        signed.append(name.clone(), value.clone());
    }
    let (canonical, names) = canonical_request(request, &signed)?;
    let day = &date[..8];
    let hash = hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
    let credential = format!("{day}/{}/{}/aws4_request", scope.region, scope.service);
    let to_sign = format!("{ALGORITHM}\n{date}\n{credential}\n{hash}");
    let mut key = hmac_of(&[b"AWS4", keys.secret().as_bytes()].concat(), day.as_bytes());
    for part in [scope.region, scope.service, "aws4_request"] {
        key = hmac_of(key.as_ref(), part.as_bytes());
    }
    let signature = hex(hmac_of(key.as_ref(), to_sign.as_bytes()).as_ref());
    let id = &keys.id;
    let text = format!("{ALGORITHM} Credential={id}/{credential}, SignedHeaders={names}, Signature={signature}");
    let mut authorization = HeaderValue::try_from(text).ok()?;
    authorization.set_sensitive(true);
    added.push((AUTHORIZATION, authorization));
    Some(added)
}

/// Returns the canonical request and the names of its signed headers ("Create a canonical request").
fn canonical_request(request: &RequestToSign<'_>, signed: &HeaderMap) -> Option<(String, String)> {
    let mut out = format!("{}\n", request.method);
    // The path that is sent is encoded once more, for all services but S3.
    out.extend(percent_encode(if request.path.is_empty() { b"/" } else { request.path.as_bytes() }, PATH));
    out.push('\n');
    let encoded = |text: &str| -> String { percent_encode(&form_decode(text.as_bytes()), UNRESERVED).collect() };
    let pairs = request.query.into_iter().flat_map(|query| query.split('&')).filter(|pair| !pair.is_empty());
    let mut parameters: Vec<(String, String)> = pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (encoded(name), encoded(value)))
        .collect();
    parameters.sort_unstable();
    for (index, (name, value)) in parameters.iter().enumerate() {
        out.extend([if index > 0 { "&" } else { "" }, name.as_str(), "=", value.as_str()]);
    }
    out.push('\n');
    let mut names: Vec<&str> = signed.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    for name in &names {
        out.extend([name, ":"]);
        for (index, value) in signed.get_all(*name).iter().enumerate() {
            let mut words = value.to_str().ok()?.split([' ', '\t']).filter(|word| !word.is_empty());
            out.extend([if index > 0 { "," } else { "" }, words.next().unwrap_or_default()]);
            words.for_each(|word| out.extend([" ", word]));
        }
        out.push('\n');
    }
    let names = names.join(";");
    out.extend(["\n", &names, "\n", &digest_of_body(request.body)]);
    Some((out, names))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::identity::sigv4::{SignedPayload, SignedRequest, parse};

    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

    /// A vector of AWS's test suite (aws-sig-v4-test-suite): the request, and the signature of its `.authz` file.
    struct Vector {
        name: &'static str,
        request: &'static str,
        headers: &'static [(&'static str, &'static str)],
        body: &'static str,
        signed: &'static str,
        signature: &'static str,
    }

    const VECTORS: &[Vector] = &[
        Vector {
            name: "get-vanilla",
            request: "GET /",
            headers: &[],
            body: "",
            signed: "host;x-amz-date",
            signature: "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
        },
        Vector {
            name: "get-vanilla-query-order-key-case",
            request: "GET /?Param2=value2&Param1=value1",
            headers: &[],
            body: "",
            signed: "host;x-amz-date",
            signature: "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
        },
        Vector {
            name: "get-header-value-trim",
            request: "GET /",
            headers: &[("my-header1", " value1"), ("my-header2", " \"a   b   c\"")],
            body: "",
            signed: "host;my-header1;my-header2;x-amz-date",
            signature: "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
        },
        Vector {
            name: "post-vanilla",
            request: "POST /",
            headers: &[],
            body: "",
            signed: "host;x-amz-date",
            signature: "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
        },
        Vector {
            name: "post-x-www-form-urlencoded",
            request: "POST /",
            headers: &[("content-type", "application/x-www-form-urlencoded")],
            body: "Param1=value1",
            signed: "content-type;host;x-amz-date",
            signature: "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
        },
    ];

    fn signed(vector: &Vector, token: Option<&str>) -> Vec<(HeaderName, HeaderValue)> {
        let (method, target) = vector.request.split_once(' ').expect("a method and a target");
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let headers: Vec<(HeaderName, HeaderValue)> = vector
            .headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        let request = RequestToSign {
            method: &method.parse().expect("a method"),
            path,
            query,
            host: &HeaderValue::from_static("example.amazonaws.com"),
            headers: &headers,
            body: vector.body.as_bytes(),
        };
        let scope = SigningScope { region: "us-east-1", service: "service", time: 1_440_938_160 };
        sign(&request, &AwsKeys::new("AKIDEXAMPLE", SECRET, token), scope).expect("a signature")
    }

    #[test]
    fn requests_are_signed_as_in_the_test_suite() {
        for vector in VECTORS {
            let added = signed(vector, None);
            let (_, authorization) = added.last().expect("headers");
            let expected = format!(
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders={}, \
                 Signature={}",
                vector.signed, vector.signature
            );
            assert_eq!(authorization.to_str().expect("a text"), expected, "{}", vector.name);
            assert!(authorization.is_sensitive());
        }
    }

    #[test]
    fn a_session_token_is_signed_and_the_filter_for_clients_accepts_the_signature() {
        let method = Method::POST;
        let path = "/2015-03-31/functions/arn%3Aaws%3Alambda%3Aus-east-1%3A1%3Afunction%3Af/invocations";
        let host = HeaderValue::from_static("lambda.us-east-1.amazonaws.com");
        let request = RequestToSign {
            method: &method,
            path,
            query: Some("Qualifier=live"),
            host: &host,
            headers: &[(HeaderName::from_static("x-amz-invocation-type"), HeaderValue::from_static("Event"))],
            body: b"{}",
        };
        let keys = AwsKeys::new("AKID", SECRET, Some("a-token"));
        let scope = SigningScope { region: "us-east-1", service: "lambda", time: 1_440_938_160 };
        let mut headers: HeaderMap = sign(&request, &keys, scope).expect("a signature").into_iter().collect();
        headers.insert(HOST, host.clone());
        headers.insert("x-amz-invocation-type", HeaderValue::from_static("Event"));
        assert_eq!(headers["x-amz-security-token"], "a-token");
        let sent = SignedRequest { method: &method, path, query: request.query, headers: &headers, authority: "" };
        let signature = parse(&sent).expect("a signature").expect("one");
        assert_eq!(signature.payload(&sent), Ok(SignedPayload::OfBody));
        assert_eq!(signature.verify(&sent, &digest_of_body(b"{}"), SECRET.as_bytes()), Ok(true));
        assert_eq!(signature.verify(&sent, &digest_of_body(b"{ }"), SECRET.as_bytes()), Ok(false));
    }
}
