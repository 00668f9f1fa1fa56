//! The vectors of RFC 9421, appendix B, examples of its sections, and what must not be accepted.

use super::*;
use crate::rules::identity::{SignatureAlgorithm, SignatureKey};

const VECTORS: &str = include_str!("../../../tests/vectors/http_signatures.json");

fn vector_file() -> serde_json::Value {
    serde_json::from_str(VECTORS).expect("JSON")
}

/// The key of that name in appendix B.1.
fn key(name: &str) -> SignatureKey {
    let known = &vector_file()["keys"][name];
    let bytes = STANDARD.decode(known["key"].as_str().expect("a key")).expect("base64");
    let named = |algorithm: &SignatureAlgorithm| Some(algorithm.name()) == known["algorithm"].as_str();
    match SignatureAlgorithm::ALL.into_iter().find(named).expect("an algorithm") {
        SignatureAlgorithm::HmacSha256 => SignatureKey::secret(&bytes),
        algorithm => SignatureKey::public(algorithm, &bytes),
    }
    .expect("a key")
}

/// A request with its signature.
#[derive(Clone)]
struct Sent {
    method: Method,
    target: String,
    authority: &'static str,
    headers: Vec<(&'static str, String)>,
}

impl Sent {
    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            headers.append(*name, value.parse().expect("a value"));
        }
        headers
    }

    /// Returns whether the signature is that of the key it names.
    fn verify(&self) -> Result<bool, SignatureError> {
        let headers = self.headers();
        let signature = parse(&headers, None)?.ok_or("there is none")?;
        let base = self.base()?;
        Ok(key(signature.key_id.as_deref().unwrap_or_default()).verify(&base, &signature.signature))
    }

    fn base(&self) -> Result<Vec<u8>, SignatureError> {
        let headers = self.headers();
        let (path, query) =
            self.target.split_once('?').map_or((&*self.target, None), |(path, query)| (path, Some(query)));
        let message = SignedMessage {
            method: &self.method,
            scheme: "https",
            authority: self.authority,
            path,
            query,
            headers: &headers,
        };
        parse(&headers, None)?.ok_or("there is none")?.base(&message)
    }
}

fn sent(line: &str, authority: &'static str, headers: &[(&'static str, &str)], input: &str, signature: &str) -> Sent {
    let (method, target) = line.split_once(' ').expect("a method and a target");
    let mut all: Vec<_> = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    all.push(("signature-input", input.to_owned()));
    all.push(("signature", signature.to_owned()));
    Sent { method: method.parse().expect("a method"), target: target.to_owned(), authority, headers: all }
}

/// Appendix B.2.1 to B.2.3, B.2.5, B.2.6 (B.2.4 is a response), B.3 and B.4.
fn vectors() -> Vec<Sent> {
    let file = vector_file();
    let text = |value: &serde_json::Value| -> &'static str { value.as_str().expect("a text").to_owned().leak() };
    let requests = file["requests"].as_array().expect("a list").iter().map(|one| {
        let headers: Vec<(&str, &str)> =
            one["headers"].as_array().expect("a list").iter().map(|pair| (text(&pair[0]), text(&pair[1]))).collect();
        sent(text(&one["line"]), text(&one["authority"]), &headers, text(&one["input"]), text(&one["signature"]))
    });
    requests.chain([transformed("GET /demo?name1=Value1&Name2=value2", &["application/json", "*/*"])]).collect()
}

/// The request of appendix B.4, as intermediaries may change it.
fn transformed(line: &str, accept: &[&str]) -> Sent {
    let headers: Vec<_> = accept.iter().map(|value| ("accept", *value)).collect();
    sent(
        line,
        "example.org",
        &headers,
        r#"transform=("@method" "@path" "@authority" "accept");created=1618884473;keyid="test-key-ed25519""#,
        "transform=:ZT1kooQsEHpZ0I1IjCqtQppOmIqlJPeo7DHR3SoMn0s5JZ1eRGS0A+vyYP9t/LXlh5QMFFQ6cpLt2m0pmj3NDA==:",
    )
}

#[test]
fn the_vectors_of_the_standard() {
    for (index, request) in vectors().iter().enumerate() {
        assert_eq!(
            request.verify(),
            Ok(true),
            "{index}: {}",
            String::from_utf8_lossy(&request.base().expect("a base"))
        );
        let mut forged = request.clone();
        let signature = forged.headers.last_mut().expect("the signature");
        signature.1 = signature.1.replacen(":", ":AAAA", 1);
        assert_eq!(forged.verify(), Ok(false), "{index}");
    }
}

#[test]
fn what_intermediaries_may_change_and_what_not() {
    for (line, accept, holds) in [
        ("GET /demo?name1=Value1&Name2=value2", &["application/json, */*"][..], true),
        ("GET /demo?name1=Value1&Name2=value2&param=added", &["application/json", "*/*"], true),
        ("GET /demo", &[" application/json ", "*/*"], true),
        ("GET /demo", &["*/*", "application/json"], false),
        ("POST /demo", &["application/json", "*/*"], false),
        ("GET /demo/", &["application/json", "*/*"], false),
    ] {
        assert_eq!(transformed(line, accept).verify(), Ok(holds), "{line} {accept:?}");
    }
    let mut other = transformed("GET /demo", &["application/json", "*/*"]);
    other.authority = "other.org";
    assert_eq!(other.verify(), Ok(false));
    other.authority = "EXAMPLE.org:443";
    assert_eq!(other.verify(), Ok(true), "the normal form of the authority");
    for (index, request) in vectors().iter().enumerate().filter(|(_, request)| request.headers.len() > 4) {
        let mut changed = request.clone();
        changed.headers.retain(|(name, _)| *name != "date");
        let input = request.headers[request.headers.len() - 2].1.clone();
        let expected = if input.contains("\"date\"") { Err("a signed header is missing") } else { Ok(true) };
        assert_eq!(changed.verify(), expected, "{index}");
    }
}

/// Returns the first line of the base of a request on which only that component is signed.
fn line(component: &str, target: &str, headers: &[(&'static str, &str)]) -> Result<String, SignatureError> {
    let request = sent(&format!("POST {target}"), "www.example.com", headers, &format!("s=({component})"), "s=::");
    let base = String::from_utf8(request.base()?).expect("ASCII");
    Ok(base.lines().next().unwrap_or_default().to_owned())
}

/// The examples of sections 2.1 and 2.2.
#[test]
fn the_examples_of_components() {
    let headers = [
        ("x-ows-header", "   Leading and trailing whitespace.   "),
        ("cache-control", "max-age=60"),
        ("cache-control", "    must-revalidate"),
        ("example-dict", "  a=1,    b=2;x=1;y=2,   c=(a   b   c), d"),
        ("example-header", "value, with, lots"),
        ("example-header", "of, commas"),
        ("x-empty-header", ""),
        ("content-digest", "sha-256=:AAAA:,   sha-512=:BBBB:"),
    ];
    let target = "/path?param=value&foo=bar&baz=batman&qux=&bar=with+plus+whitespace&fa%C3%A7ade%22%3A%20=something\
                  &var=this%20is%20a%20big%0Amultiline%20value";
    for (component, expected) in [
        (r#""@method""#, r#""@method": POST"#),
        (r#""@scheme""#, r#""@scheme": https"#),
        (r#""@authority""#, r#""@authority": www.example.com"#),
        (r#""@path""#, r#""@path": /path"#),
        (r#""@query-param";name="baz""#, r#""@query-param";name="baz": batman"#),
        (r#""@query-param";name="qux""#, r#""@query-param";name="qux": "#),
        (r#""@query-param";name="bar""#, r#""@query-param";name="bar": with%20plus%20whitespace"#),
        (r#""@query-param";name="fa%C3%A7ade%22%3A%20""#, r#""@query-param";name="fa%C3%A7ade%22%3A%20": something"#),
        (r#""@query-param";name="var""#, r#""@query-param";name="var": this%20is%20a%20big%0Amultiline%20value"#),
        (r#""x-ows-header""#, r#""x-ows-header": Leading and trailing whitespace."#),
        (r#""cache-control""#, r#""cache-control": max-age=60, must-revalidate"#),
        (r#""x-empty-header""#, r#""x-empty-header": "#),
        (r#""example-dict""#, r#""example-dict": a=1,    b=2;x=1;y=2,   c=(a   b   c), d"#),
        (r#""example-dict";key="a""#, r#""example-dict";key="a": 1"#),
        (r#""example-dict";key="d""#, r#""example-dict";key="d": ?1"#),
        (r#""example-dict";key="b""#, r#""example-dict";key="b": 2;x=1;y=2"#),
        (r#""example-dict";key="c""#, r#""example-dict";key="c": (a b c)"#),
        (r#""content-digest";sf"#, r#""content-digest";sf: sha-256=:AAAA:, sha-512=:BBBB:"#),
        (r#""example-header";bs"#, r#""example-header";bs: :dmFsdWUsIHdpdGgsIGxvdHM=:, :b2YsIGNvbW1hcw==:"#),
    ] {
        assert_eq!(line(component, target, &headers).as_deref(), Ok(expected), "{component}");
    }
    for (target, component, expected) in [
        ("/path?param=value", r#""@target-uri""#, r#""@target-uri": https://www.example.com/path?param=value"#),
        ("/path?param=value", r#""@request-target""#, r#""@request-target": /path?param=value"#),
        ("/path?queryString", r#""@query""#, r#""@query": ?queryString"#),
        ("/path", r#""@query""#, r#""@query": ?"#),
        ("", r#""@path""#, r#""@path": /"#),
    ] {
        assert_eq!(line(component, target, &[]).as_deref(), Ok(expected), "{component}");
    }
}

#[test]
fn components_that_cannot_be_signed() {
    let headers = [("example-dict", "a=1"), ("x-text", "a b c"), ("x-bytes", "x")];
    for (component, why) in [
        (r#""@status""#, "a component is not known"),
        (r#""@signature-params""#, "a component is not known"),
        (r#""@method";req"#, "a component has an unknown parameter"),
        (r#""x-text";tr"#, "a component has an unknown parameter"),
        (r#""x-text";foo=1"#, "a component has an unknown parameter"),
        (r#""x-text";sf"#, "a component is signed in a form that is not known for its header"),
        (r#""x-text";key="a""#, "a signed header is no dictionary"),
        (r#""x-bytes";bs;sf"#, "a component has parameters that exclude each other"),
        (r#""example-dict";key="b""#, "a signed member of a header is missing"),
        (r#""x-none""#, "a signed header is missing"),
        (r#""x-none";bs"#, "a signed header is missing"),
        (r#""X-Text""#, "a component is malformed"),
        (r#""@method";sf"#, "a component is malformed"),
        (r#""@path";name="a""#, "a component is malformed"),
        (r#""@query-param""#, "a component is malformed"),
        (r#""@query-param";name="none""#, "a signed parameter of the query is missing"),
        (r#""@query-param";name="a""#, "a signed parameter of the query is there twice"),
        (r#""@query-param";name="%61""#, "a signed parameter of the query is missing"),
        (r#""@method" "@method""#, "a component is signed twice"),
        ("method", "a component's name is no text"),
        ("1", "a component's name is no text"),
    ] {
        assert_eq!(line(component, "/?a=1&a=2", &headers), Err(why), "{component}");
    }
}

#[test]
fn fields_that_are_malformed() {
    let with = |input: &[&str], signature: &[&str]| {
        let mut headers = HeaderMap::new();
        for value in input {
            headers.append("signature-input", value.parse().expect("a value"));
        }
        for value in signature {
            headers.append("signature", value.parse().expect("a value"));
        }
        parse(&headers, None).map(|found| found.is_some())
    };
    let many = (0..9).map(|n| format!("s{n}=()")).collect::<Vec<_>>().join(", ");
    let large = format!("s=({})", (0..65).map(|n| format!("\"x{n}\"")).collect::<Vec<_>>().join(" "));
    let long = format!("s=();nonce=\"{}\"", "x".repeat(MAX_FIELD));
    assert_eq!(with(&[], &[]), Ok(false));
    for (input, signature, why) in [
        (&["s=()"][..], &[][..], "Signature is missing"),
        (&[], &["s=:AAAA:"], "Signature-Input is missing"),
        (&["s=()"], &["t=:AAAA:"], "Signature has no such label"),
        (&["s=()"], &["s=AAAA"], "Signature is malformed"),
        (&["s=()"], &["s=\"AAAA\""], "Signature is malformed"),
        (&["s=()"], &["s=:A*A:"], "the signature is malformed"),
        (&["s=1"], &["s=:AAAA:"], "Signature-Input is malformed"),
        (&["s=("], &["s=:AAAA:"], "the signature is malformed"),
        (&["s=();created=\"1\""], &["s=:AAAA:"], "a parameter of the signature is malformed"),
        (&["s=();created=1.5"], &["s=:AAAA:"], "a parameter of the signature is malformed"),
        (&["s=();keyid=x"], &["s=:AAAA:"], "a parameter of the signature is malformed"),
        (&["s=();nonce=1"], &["s=:AAAA:"], "a parameter of the signature is malformed"),
        (&["a=()", "b=()"], &["a=:AAAA:, b=:AAAA:"], "there are several signatures"),
        (&[&many], &["s0=:AAAA:"], "there are too many signatures"),
        (&[&large], &["s=:AAAA:"], "too many components are signed"),
        (&[&long], &["s=:AAAA:"], "the signature is too long"),
    ] {
        assert_eq!(with(input, signature), Err(why), "{input:?} {signature:?}");
    }
}

#[test]
fn one_of_several_by_its_tag() {
    let mut headers = HeaderMap::new();
    headers.append("signature-input", "a=();keyid=\"1\";tag=\"one\", b=();keyid=\"2\"".parse().expect("a value"));
    headers.append("signature", "a=:AAAA:, b=:AAAA:".parse().expect("a value"));
    let found = parse(&headers, Some("one")).expect("well-formed").expect("a signature");
    assert_eq!(found.key_id.as_deref(), Some("1"));
    assert!(parse(&headers, Some("two")).expect("well-formed").is_none());
    assert!(parse(&headers, None).is_err());
}

#[test]
fn times() {
    let check = |parameters: &str, now: i64| {
        let mut headers = HeaderMap::new();
        headers.append("signature-input", format!("s=(){parameters}").parse().expect("a value"));
        headers.append("signature", "s=:AAAA:".parse().expect("a value"));
        parse(&headers, None).expect("well-formed").expect("a signature").check_time(now, 300, 10)
    };
    let (early, late) = (Err("the signature is not valid yet"), Err("the signature has expired"));
    for (parameters, now, expected) in [
        (";created=1000", 990, Ok(())),
        (";created=1000", 989, early),
        (";created=1000", 1310, Ok(())),
        (";created=1000", 1311, late),
        (";created=1000;expires=1100", 1110, Ok(())),
        (";created=1000;expires=1100", 1111, late),
        (";created=1000;expires=9999", 1311, late),
        (";created=-999999999999999", 1000, late),
        (";created=999999999999999", 1000, early),
        (";expires=2000", 1000, Err("the signature does not say when it was created")),
    ] {
        assert_eq!(check(parameters, now), expected, "{parameters} at {now}");
    }
}

#[test]
fn what_is_covered() {
    let covers = |components: &str, query: Option<&str>| {
        let mut headers = HeaderMap::new();
        headers.append("signature-input", format!("s=({components})").parse().expect("a value"));
        headers.append("signature", "s=:AAAA:".parse().expect("a value"));
        let signature = parse(&headers, None).expect("well-formed").expect("a signature");
        let (method, headers) = (Method::GET, HeaderMap::new());
        let message =
            SignedMessage { method: &method, scheme: "https", authority: "a", path: "/", query, headers: &headers };
        (signature.covers_target(&message), signature.covers("@method"))
    };
    for (components, query, expected) in [
        (r#""@method" "@target-uri""#, Some("a"), (true, true)),
        (r#""@authority" "@path" "@query""#, Some("a"), (true, false)),
        (r#""@authority" "@path""#, Some("a"), (false, false)),
        (r#""@authority" "@path""#, None, (true, false)),
        (r#""@authority" "@request-target""#, Some("a"), (true, false)),
        (r#""@path" "@query""#, Some("a"), (false, false)),
        (r#""@query-param";name="@target-uri""#, Some("a"), (false, false)),
        (r#""@method";x "@target-uri";x"#, Some("a"), (false, false)),
    ] {
        assert_eq!(covers(components, query), expected, "{components} {query:?}");
    }
}
