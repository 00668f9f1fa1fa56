//! The calls that the demo prints and checks.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::json;

/// The secret in conf/examples/demo.yaml.
const SECRET: &[u8] = b"a-secret-for-the-demo-and-nothing-else";

/// The API key whose digest is in conf/examples/demo.yaml.
const API_KEY: &str = "demo-key-of-the-partner";

/// One call and the expected response.
pub struct Call {
    /// The title.
    pub title: &'static str,
    method: &'static str,
    url: String,
    headers: Vec<(&'static str, String)>,
    /// The number of times it is made; the last response counts.
    times: u32,
    status: u16,
    has: &'static [&'static str],
    lacks: &'static [&'static str],
}

fn token(lifetime: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
    let claims = json!({"sub": "ada", "iss": "https://id.example.com", "aud": "api", "exp": now + lifetime});
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET);
    // Encoding a small document with a shared secret cannot fail.
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap_or_default()
}

/// Returns all calls, for that gateway.
pub fn all(gateway: SocketAddr) -> Vec<Call> {
    let url = |path: &str| format!("http://{gateway}{path}");
    let bearer = |token: String| vec![("authorization", format!("Bearer {token}"))];
    let call = |title, path: &str, status| Call {
        title,
        method: "GET",
        url: url(path),
        headers: Vec::new(),
        times: 1,
        status,
        has: &[],
        lacks: &[],
    };
    let key = || vec![("x-api-key", API_KEY.to_owned())];
    let profile = "/api/v1/users/profile";
    vec![
        Call { has: &["token_missing"], ..call("no token: 401", profile, 401) },
        Call {
            headers: bearer("not.a.token".to_owned()),
            has: &["token_invalid"],
            ..call("a bad token: 401", profile, 401)
        },
        Call { headers: bearer(token(-3600)), has: &["token_expired"], ..call("an expired token: 401", profile, 401) },
        Call {
            headers: bearer(token(86_400)),
            has: &["\"name\":\"Ada\"", "users-"],
            lacks: &["ssn", "internal"],
            ..call("a good token: 200, without its sensitive fields", profile, 200)
        },
        Call {
            headers: key(),
            has: &["Drawbridge"],
            lacks: &["internal"],
            ..call("an API key: 200", "/api/v1/products/", 200)
        },
        Call {
            headers: key(),
            times: 4,
            has: &["rate_limited"],
            ..call("the fourth in a minute: 429", "/api/v1/reports", 429)
        },
        Call { has: &["route_not_found"], ..call("an unknown route: 404", "/nowhere", 404) },
        Call {
            method: "DELETE",
            has: &["method_not_allowed"],
            ..call("a method that is not allowed: 405", profile, 405)
        },
        Call { has: &["no_healthy_target"], ..call("no healthy target: 503", "/down", 503) },
        Call {
            has: &["x-forwarded-for", "traceparent", "x-request-id"],
            ..call("what a target sees: 200", "/echo/hello?x=1", 200)
        },
        Call { has: &["Welcome"], ..call("a fixed response: 200", "/", 200) },
        Call { ..call("a redirect: 308", "/docs/start", 308) },
    ]
}

impl Call {
    /// Returns the call as a command to paste.
    pub fn curl(&self) -> String {
        let method = if self.method == "GET" { String::new() } else { format!(" -X {}", self.method) };
        let headers: String = self.headers.iter().map(|(name, value)| format!(" -H '{name}: {value}'")).collect();
        let one = format!("curl -si{method}{headers} {}", self.url);
        if self.times > 1 { format!("for i in $(seq {}); do {one}; done", self.times) } else { one }
    }

    /// Makes the call and returns what is wrong with the response.
    pub async fn make(&self) -> Result<(), String> {
        let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
        let (mut status, mut body) = (0, Bytes::new());
        for _ in 0..self.times {
            let mut request = Request::builder().method(self.method).uri(&self.url);
            for (name, value) in &self.headers {
                request = request.header(*name, value);
            }
            let request = request.body(Empty::new()).map_err(|e| e.to_string())?;
            let response = client.request(request).await.map_err(|e| e.to_string())?;
            status = response.status().as_u16();
            body = response.into_body().collect().await.map_err(|e| e.to_string())?.to_bytes();
        }
        let text = String::from_utf8_lossy(&body);
        if status != self.status {
            return Err(format!("expected {}, found {status}: {text}", self.status));
        }
        if let Some(missing) = self.has.iter().find(|h| !text.contains(**h)) {
            return Err(format!("{missing} is not in {text}"));
        }
        match self.lacks.iter().find(|l| text.contains(**l)) {
            Some(present) => Err(format!("{present} is in {text}")),
            None => Ok(()),
        }
    }
}
