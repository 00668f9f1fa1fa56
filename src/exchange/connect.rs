//! Detection of the Connect protocol (connectrpc.com/docs/protocol).

use http::Method;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use pingora::http::RequestHeader;

/// The field with the version of the protocol.
pub const CONNECT_VERSION: HeaderName = HeaderName::from_static("connect-protocol-version");

/// The format of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// The binary format of protocol buffers.
    Proto,
    /// JSON.
    Json,
    /// One that is not known.
    Other,
}

impl Codec {
    /// Returns the format of that name.
    pub fn of(name: &str) -> Self {
        match name {
            "proto" => Self::Proto,
            "json" => Self::Json,
            _ => Self::Other,
        }
    }
}

/// The kind of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connect {
    /// A unary call by POST.
    Unary(Codec),
    /// A unary call by GET.
    Get(Codec),
    /// A stream in at least one direction.
    Stream(Codec),
}

impl Connect {
    /// Returns the kind of a request that may be one of the protocol, or `None` for another.
    pub fn of(request: &RequestHeader) -> Option<Self> {
        match request.method {
            Method::POST => {
                let value = request.headers.get(CONTENT_TYPE)?.to_str().ok()?;
                let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
                match essence.strip_prefix("application/")? {
                    "proto" => Some(Self::Unary(Codec::Proto)),
                    "json" => Some(Self::Unary(Codec::Json)),
                    other => other.strip_prefix("connect+").map(|name| Self::Stream(Codec::of(name))),
                }
            }
            Method::GET => {
                let query = request.uri.query().filter(|query| query.split('&').any(|pair| pair == "connect=v1"))?;
                let name = query.split('&').find_map(|pair| pair.strip_prefix("encoding=")).unwrap_or_default();
                Some(Self::Get(Codec::of(name)))
            }
            _ => None,
        }
    }

    /// Returns whether a request says by its fields that it is of the protocol. Others may be plain JSON as well.
    pub fn is_named_by(self, request: &RequestHeader) -> bool {
        matches!(self, Self::Stream(_)) || request.headers.contains_key(CONNECT_VERSION)
    }

    /// Returns the format of messages.
    pub fn codec(self) -> Codec {
        match self {
            Self::Unary(codec) | Self::Get(codec) | Self::Stream(codec) => codec,
        }
    }

    /// Returns the content type of a response with messages.
    pub fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match (self, self.codec()) {
            (Self::Stream(_), Codec::Json) => "application/connect+json",
            (Self::Stream(_), _) => "application/connect+proto",
            (_, Codec::Json) => "application/json",
            _ => "application/proto",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(method: &str, target: &str, content_type: &'static str) -> Option<Connect> {
        let mut request = RequestHeader::build(method, target.as_bytes(), None).expect("a head");
        if !content_type.is_empty() {
            request.insert_header(CONTENT_TYPE, content_type).expect("a field");
        }
        Connect::of(&request)
    }

    #[test]
    fn calls_are_known_by_type_or_query() {
        for (method, target, content_type, kind) in [
            ("POST", "/a.B/C", "application/proto", Some(Connect::Unary(Codec::Proto))),
            ("POST", "/a.B/C", "Application/JSON; charset=utf-8", Some(Connect::Unary(Codec::Json))),
            ("POST", "/a.B/C", "application/connect+json", Some(Connect::Stream(Codec::Json))),
            ("POST", "/a.B/C", "application/connect+xml", Some(Connect::Stream(Codec::Other))),
            ("POST", "/a.B/C", "application/grpc", None),
            ("POST", "/a.B/C", "text/json", None),
            ("POST", "/a.B/C", "", None),
            ("PUT", "/a.B/C", "application/proto", None),
            ("GET", "/a.B/C?connect=v1&encoding=json&message=%7B%7D", "", Some(Connect::Get(Codec::Json))),
            ("GET", "/a.B/C?message=&encoding=proto&base64=1&connect=v1", "", Some(Connect::Get(Codec::Proto))),
            ("GET", "/a.B/C?connect=v1", "", Some(Connect::Get(Codec::Other))),
            ("GET", "/a.B/C?connect=v2&encoding=json", "", None),
            ("GET", "/a.B/C", "application/json", None),
        ] {
            assert_eq!(of(method, target, content_type), kind, "{method} {target} {content_type}");
        }
    }
}
