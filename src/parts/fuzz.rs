//! Parsers of what strangers send, for the fuzz tests: each takes any bytes, and panics only where it is wrong.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::rules::expressions::{Expression, Fact, FactKind, Facts, Members};
use crate::rules::identity::message_signature::{self, SignedMessage};
use crate::rules::identity::sigv4::{self, SignedRequest};
use crate::rules::identity::token::{TokenHead, unverified_issuer};
use crate::rules::identity::{Countries, Networks, SignatureKey, check_content_digest};
use crate::rules::payload::{
    Editor, FieldPath, Fields, Hashes, JsonToXml, MaskText, Masks, SetPaths, SetValues, Step, Stripper, XmlToJson,
    form_to_json, json_to_form,
};
use crate::rules::protocols::{Opening, read_opening};
use crate::rules::templating::json_value;

/// A secret for signatures, which no input has.
const SECRET: &[u8] = b"only-for-these-tests-0123456789abcdef";

/// Reads the head and the issuer of a token.
pub fn token(data: &[u8]) {
    let head = TokenHead::parse(data);
    let issuer = unverified_issuer(data);
    if let Ok(head) = head {
        assert_eq!(data.iter().filter(|byte| **byte == b'.').count(), 2, "three parts");
        assert_eq!(head.kind, head.kind.to_ascii_lowercase());
    }
    if let Some(issuer) = issuer {
        assert!(data.len() > issuer.len(), "the issuer is a part of the token");
    }
}

/// A request as a text: its method and target, and a line for each header.
struct WrittenRequest {
    method: Method,
    target: String,
    headers: HeaderMap,
}

fn written(data: &[u8]) -> Option<WrittenRequest> {
    let mut lines = data.split(|byte| *byte == b'\n');
    let first = std::str::from_utf8(lines.next()?).ok()?;
    let (method, target) = first.split_once(' ')?;
    // Both come from parsed heads.
    let fine = target.bytes().all(|byte| byte.is_ascii_graphic());
    let mut request = WrittenRequest {
        method: method.parse().ok()?,
        target: Some(target.to_owned()).filter(|_| fine)?,
        headers: HeaderMap::new(),
    };
    for line in lines.take(64) {
        let at = memchr::memchr(b':', line)?;
        let name = HeaderName::from_bytes(&line[..at]).ok()?;
        request.headers.append(name, HeaderValue::from_bytes(line[at + 1..].trim_ascii()).ok()?);
    }
    Some(request)
}

impl WrittenRequest {
    fn path_and_query(&self) -> (&str, Option<&str>) {
        self.target.split_once('?').map_or((&self.target, None), |(path, query)| (path, Some(query)))
    }
}

/// Makes the base of an HTTP message signature and compares digests; no signature is that of a secret key.
pub fn http_signature(data: &[u8]) {
    let Some(request) = written(data) else { return };
    let (path, query) = request.path_and_query();
    let message = SignedMessage {
        method: &request.method,
        scheme: "https",
        authority: "api.example.com",
        path,
        query,
        headers: &request.headers,
    };
    let _ = check_content_digest(&request.headers, data);
    let Ok(Some(signature)) = message_signature::parse(&request.headers, None) else { return };
    let _ = (signature.check_time(1_618_884_473, 300, 30), signature.covers_target(&message));
    let Ok(base) = signature.base(&message) else { return };
    let text = base.split(|byte| *byte == b'\n').next_back().unwrap_or_default();
    assert!(text.starts_with(b"\"@signature-params\": ("), "the last line has the parameters");
    let key = SignatureKey::secret(SECRET);
    assert!(!key.is_ok_and(|key| key.verify(&base, &signature.signature)), "a forged signature");
}

/// Verifies a signature of AWS's form; none is that of a secret key.
pub fn sigv4(data: &[u8]) {
    let Some(request) = written(data) else { return };
    let (path, query) = request.path_and_query();
    let (method, headers) = (&request.method, &request.headers);
    let signed = SignedRequest { method, path, query, headers, authority: "api.example.com" };
    let Ok(Some(signature)) = sigv4::parse(&signed) else { return };
    let _ = (signature.check_time(1_440_938_160, 300), signature.payload(&signed));
    let verified = signature.verify(&signed, &sigv4::digest_of_body(data), SECRET);
    assert!(verified != Ok(true), "a forged signature");
}

/// Compiles a condition and evaluates it: the cost of one that compiles is bounded.
pub fn condition(data: &[u8]) {
    let Ok(source) = std::str::from_utf8(data) else { return };
    let known = [
        ("request.path", FactKind::Single),
        ("request.headers", FactKind::Map),
        ("identity.groups", FactKind::List),
        ("time.hour", FactKind::Single),
    ];
    // Configurations are compiled in a thread with that stack, and evaluated with what is left of as much.
    let compiled = std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().stack_size(2 << 20);
        builder.spawn_scoped(scope, || Expression::compile(source, &known)).ok()?.join().ok()
    });
    if let Some(Ok(expression)) = compiled {
        let begun = std::time::Instant::now();
        let _ = expression.holds(&Request);
        let time = begun.elapsed();
        assert!(time.as_millis() < 2_000, "{source:?} takes {time:?}");
    }
}

/// The facts of a request, the same for all conditions.
#[derive(Debug)]
struct Request;

impl Members for Request {
    fn member(&self, name: &str) -> Result<Option<Fact<'_>>, String> {
        Ok((name == "x-tenant").then(|| Fact::Text("acme".into())))
    }
}

impl Facts for Request {
    fn fact(&self, name: &str) -> Option<Fact<'_>> {
        Some(match name {
            "request.path" => Fact::Text("/orders/7".into()),
            "request.headers" => Fact::Members(self),
            "identity.groups" => Fact::Texts(vec![Cow::Borrowed("staff"); 500]),
            "time.hour" => Fact::Number(13),
            _ => return None,
        })
    }
}

/// Reads a list of networks, and a database of countries.
pub fn addresses(data: &[u8]) {
    if let Ok(networks) = Networks::parse(data) {
        let _ = networks.contains([127, 0, 0, 1].into());
    }
    if let Ok(countries) = Countries::parse(data.to_vec()) {
        for address in [[127, 0, 0, 1], [0, 0, 0, 0], [255, 255, 255, 255]] {
            let _ = countries.country(address.into());
        }
    }
}

/// Returns what a step makes of a body that comes in parts; `None` where it cannot be read.
fn stepped(mut step: impl Step, body: &[u8], cut: usize) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for part in body.chunks(cut) {
        step.push(part, false, &mut out).ok()?;
    }
    step.push(b"", true, &mut out).ok()?;
    Some(out)
}

/// Edits and converts a body: the first line is the path of a field, and what follows the body.
pub fn payload(data: &[u8]) {
    let at = memchr::memchr(b'\n', data).unwrap_or(data.len());
    let (path, body) = (&data[..at], data.get(at + 1..).unwrap_or_default());
    let path = std::str::from_utf8(path).ok().and_then(|path| path.parse::<FieldPath>().ok());
    if let Some(path) = path {
        let all = std::slice::from_ref(&path);
        if let Ok(fields) = Fields::new(all) {
            let whole = stepped(Stripper::new(&fields), body, usize::MAX);
            assert_eq!(whole, stepped(Stripper::new(&fields), body, 7), "the parts make no difference");
        }
        let mask = MaskText::of_text("***", 4).and_then(|mask| Masks::new(&[(path.clone(), mask)]));
        if let Ok(masks) = mask {
            assert_eq!(stepped(Editor::new(&masks), body, usize::MAX), stepped(Editor::new(&masks), body, 5));
        }
        if let Ok(hashes) = Hashes::new(all, Some(SECRET)) {
            assert_eq!(stepped(Editor::new(&hashes), body, usize::MAX), stepped(Editor::new(&hashes), body, 3));
        }
        if let Ok(paths) = SetPaths::new(all, false) {
            let values = SetValues::new(std::sync::Arc::new(paths), vec![Some(bytes::Bytes::from_static(b"{}"))]);
            let set = stepped(Editor::new(&values), body, usize::MAX);
            assert_eq!(set, stepped(Editor::new(&values), body, 4));
            let is_json = |text: &[u8]| serde_json::from_slice::<serde_json::Value>(text).is_ok();
            assert!(!is_json(body) || set.is_none_or(|set| is_json(&set)), "JSON stays JSON");
        }
    }
    let value = json_value(body);
    assert_eq!(
        value.is_ok(),
        std::str::from_utf8(body).is_ok_and(|text| { serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() })
    );
    let conversion = XmlToJson::default();
    if let Ok(json) = conversion.convert(body) {
        assert!(json_value(json.as_bytes()).is_ok(), "JSON");
    }
    if let Ok(xml) = JsonToXml::new(Some("r".to_owned())).and_then(|root| root.convert(body)) {
        assert!(conversion.convert(xml.as_bytes()).is_ok(), "XML");
    }
    let _ = json_to_form(body);
    if let Ok(json) = form_to_json(body) {
        assert!(json_to_form(json.as_bytes()).is_ok(), "a form");
    }
}

/// Reads the first bytes of a connection at layer 4, whole and as they would come.
///
/// # Panics
/// Panics where fewer bytes are known to be something else than more of them.
pub fn opening(input: &[u8]) {
    let whole = read_opening(input);
    for end in [0, 1, 5, 9, input.len() / 2, input.len().saturating_sub(1)] {
        let early = read_opening(&input[..end.min(input.len())]);
        // A request of PostgreSQL is known at its end, and is malformed with more behind it.
        let is_request = matches!(early, Some(Opening::PostgresSsl | Opening::PostgresGss));
        assert!(early.is_none() || early == whole || is_request, "{early:?} and {whole:?}");
    }
}
