//! Detection of gRPC and gRPC-Web by the content type.

use bytes::BytesMut;
use http::{HeaderMap, HeaderValue};

use crate::rules::grpc::{encode_text, write_trailers};

/// The two encodings of gRPC-Web (`PROTOCOL-WEB.md` of grpc/grpc).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrpcWeb {
    /// Unencoded frames.
    Binary,
    /// Frames in base64.
    Text,
}

impl GrpcWeb {
    /// Returns the encoding of a content type, in any case and with any parameters, or `None` for another type.
    pub fn of(content_type: &[u8]) -> Option<Self> {
        let rest = after(content_type, b"application/grpc-web")?;
        if ends_type(rest) {
            return Some(Self::Binary);
        }
        after(rest, b"-text").filter(|rest| ends_type(rest)).map(|_| Self::Text)
    }

    /// Returns the encoding of the response to a request in this one: `Accept` decides, and not the type of the request.
    pub fn accepted<'v>(self, accept: impl IntoIterator<Item = &'v HeaderValue>) -> Self {
        let mut members = accept.into_iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
        members.find_map(|member| Self::of(member.trim_ascii())).unwrap_or(self)
    }

    /// Returns the content type without the format of messages, such as `+proto`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Binary => "application/grpc-web",
            Self::Text => "application/grpc-web-text",
        }
    }

    /// Appends a part of a body that consists of frames.
    pub fn write(self, frames: &[u8], out: &mut BytesMut) {
        match self {
            Self::Binary => out.extend_from_slice(frames),
            Self::Text => encode_text(frames, out),
        }
    }

    /// Appends the frame of the trailers.
    pub fn write_trailers(self, trailers: &HeaderMap, out: &mut BytesMut) {
        match self {
            Self::Binary => write_trailers(trailers, out),
            Self::Text => {
                let mut frame = BytesMut::new();
                write_trailers(trailers, &mut frame);
                encode_text(&frame, out);
            }
        }
    }
}

/// Returns the format of messages that a content type of gRPC names, with its plus sign: `+proto` or `+json`.
pub fn message_format(content_type: &[u8]) -> Option<&str> {
    let essence = std::str::from_utf8(content_type).ok()?.split(';').next().unwrap_or_default().trim_end();
    essence.find('+').map(|at| &essence[at..]).filter(|format| format.len() > 1)
}

/// Returns whether a content type is that of gRPC over HTTP/2: `application/grpc`, with or without a subtype and
/// parameters, but not a type that only has it as a prefix, such as `application/grpc-web`.
pub fn is_grpc(content_type: &[u8]) -> bool {
    after(content_type, b"application/grpc").is_some_and(ends_type)
}

fn after<'t>(text: &'t [u8], prefix: &[u8]) -> Option<&'t [u8]> {
    let (head, rest) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

fn ends_type(rest: &[u8]) -> bool {
    matches!(rest.first(), None | Some(b'+' | b';' | b' ' | b'\t'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_are_told_apart() {
        for (text, grpc, web) in [
            ("application/grpc", true, None),
            ("Application/GRPC+proto; charset=x", true, None),
            ("application/grpc;x", true, None),
            ("application/grpcfoo", false, None),
            ("application/grp", false, None),
            ("application/grpc-web", false, Some(GrpcWeb::Binary)),
            ("application/grpc-web+json", false, Some(GrpcWeb::Binary)),
            ("application/grpc-webby", false, None),
            ("application/grpc-web-text", false, Some(GrpcWeb::Text)),
            ("application/grpc-web-text+proto", false, Some(GrpcWeb::Text)),
            ("application/grpc-web-textual", false, None),
        ] {
            assert_eq!((is_grpc(text.as_bytes()), GrpcWeb::of(text.as_bytes())), (grpc, web), "{text}");
        }
    }

    #[test]
    fn the_response_is_as_it_is_accepted() {
        let (text, binary) = (GrpcWeb::Text, GrpcWeb::Binary);
        for (accept, of_binary, of_text) in [
            ("*/*", binary, text),
            ("application/grpc-web-text", text, text),
            ("application/grpc-web+proto", binary, binary),
            ("text/html, application/grpc-web-text+proto;q=0.9, application/grpc-web", text, text),
            ("application/json", binary, text),
        ] {
            let accept = [HeaderValue::from_static(accept)];
            assert_eq!((binary.accepted(&accept), text.accepted(&accept)), (of_binary, of_text), "{accept:?}");
        }
    }

    #[test]
    fn formats_of_messages() {
        assert_eq!(message_format(b"application/grpc+json; charset=utf-8"), Some("+json"));
        assert_eq!(message_format(b"application/grpc-web-text+proto"), Some("+proto"));
        assert_eq!(message_format(b"application/grpc"), None);
        assert_eq!(message_format(b"application/grpc+"), None);
        assert_eq!(message_format(b"application/grpc;a=+b"), None);
    }
}
