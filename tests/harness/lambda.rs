//! The API of AWS Lambda with functions of its own, which recomputes every signature.

use std::io::Write;
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use aws_lc_rs::{digest, hmac};
use serde_json::Value;

use super::target::{Seen, Target, answer};

/// What a function responds: the status and the headers of the API, and the payload.
pub struct Returned {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub payload: Vec<u8>,
}

impl Returned {
    pub fn json(text: &str) -> Self {
        Self { status: 200, headers: Vec::new(), payload: text.as_bytes().to_vec() }
    }
}

/// The functions, and the calls that came.
pub struct Functions {
    pub target: Target,
    calls: Arc<Mutex<Vec<Seen>>>,
}

impl Functions {
    /// Starts the API for the key of that secret: `function` gets the path of a call and its event.
    pub fn start(secret: &'static str, function: impl Fn(&str, &Value) -> Returned + Send + Sync + 'static) -> Self {
        let calls: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let noted = Arc::clone(&calls);
        let target = Target::new(move |stream, request| {
            noted.lock().unwrap().push(request.clone());
            if let Err(why) = check_signature(request, secret) {
                let body = format!("{{\"message\":\"{why}\"}}");
                let kind = [("x-amzn-errortype", "InvalidSignatureException")];
                return answer(stream, 403, &kind, body.as_bytes());
            }
            let event = serde_json::from_slice(&request.body).unwrap_or_default();
            let returned = function(&request.target, &event);
            if request.target.contains("response-streaming") && returned.status == 200 {
                return stream_out(stream, &returned.payload);
            }
            let headers: Vec<(&str, &str)> =
                returned.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            answer(stream, returned.status, &headers, &returned.payload)
        });
        Self { target, calls }
    }

    /// The calls so far.
    pub fn calls(&self) -> Vec<Seen> {
        self.calls.lock().unwrap().clone()
    }

    /// The event of the last call.
    pub fn event(&self) -> Value {
        serde_json::from_slice(&self.calls().last().expect("a call").body).expect("JSON")
    }
}

pub fn header(request: &Seen, name: &str) -> Option<String> {
    request.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone())
}

/// A frame of `application/vnd.amazon.eventstream`.
pub fn frame(message: &str, kind: (&str, &str), payload: &[u8]) -> Vec<u8> {
    let mut headers = Vec::new();
    for (name, value) in [(":message-type", message), kind] {
        headers.push(name.len() as u8);
        headers.extend_from_slice(name.as_bytes());
        headers.push(7);
        headers.extend_from_slice(&(value.len() as u16).to_be_bytes());
        headers.extend_from_slice(value.as_bytes());
    }
    let mut out = ((16 + headers.len() + payload.len()) as u32).to_be_bytes().to_vec();
    out.extend_from_slice(&(headers.len() as u32).to_be_bytes());
    out.extend_from_slice(&crc32fast::hash(&out).to_be_bytes());
    out.extend_from_slice(&headers);
    out.extend_from_slice(payload);
    out.extend_from_slice(&crc32fast::hash(&out).to_be_bytes());
    out
}

/// Streams frames; a text `|` between parts is a pause at the socket.
fn stream_out(stream: &mut TcpStream, frames: &[u8]) -> std::io::Result<()> {
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: application/vnd.amazon.eventstream\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes())?;
    for part in frames.chunks(7) {
        write!(stream, "{:x}\r\n", part.len())?;
        stream.write_all(part)?;
        stream.write_all(b"\r\n")?;
    }
    stream.write_all(b"0\r\n\r\n")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// Recomputes the signature of a call.
pub fn check_signature(request: &Seen, secret: &str) -> Result<(), String> {
    let authorization = header(request, "authorization").ok_or("there is no signature")?;
    let part = |name: &str| -> Result<String, String> {
        let rest = authorization.split(&format!("{name}=")).nth(1).ok_or(format!("no {name}"))?;
        Ok(rest.split(',').next().unwrap_or_default().to_owned())
    };
    let (credential, signed) = (part("Credential")?, part("SignedHeaders")?);
    let scope: Vec<&str> = credential.splitn(2, '/').collect();
    let encode = |text: &str, slash: bool| -> String {
        let keeps = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || (slash && byte == b'/');
        text.bytes().map(|b| if keeps(b) { (b as char).to_string() } else { format!("%{b:02X}") }).collect()
    };
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    // The only query is `Qualifier=…`, which is in its canonical form.
    let mut canonical = format!(
        "{}\n{}\n{query}{}\n",
        request.method,
        encode(path, true),
        if query.is_empty() || query.contains('=') { "" } else { "=" }
    );
    for name in signed.split(';') {
        let value = header(request, name).ok_or(format!("{name} is signed and not there"))?;
        canonical.push_str(&format!("{name}:{}\n", value.trim()));
    }
    canonical.push_str(&format!("\n{signed}\n{}", sha256(&request.body)));
    let date = header(request, "x-amz-date").ok_or("no date")?;
    let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{}\n{}", scope[1], sha256(canonical.as_bytes()));
    let sign = |key: &[u8], text: &str| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes());
    let mut key = sign(format!("AWS4{secret}").as_bytes(), scope[1].split('/').next().unwrap_or_default());
    for step in scope[1].split('/').skip(1) {
        key = sign(key.as_ref(), step);
    }
    let expected = hex(sign(key.as_ref(), &to_sign).as_ref());
    if part("Signature")? == expected {
        Ok(())
    } else {
        Err(format!("another signature; canonical: {}", canonical.replace('\n', "|")))
    }
}
