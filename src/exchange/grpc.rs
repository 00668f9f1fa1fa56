//! Detection of gRPC and gRPC-Web by the content type.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

/// The two encodings of gRPC-Web (`PROTOCOL-WEB.md` of grpc/grpc).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrpcWeb {
    /// Unencoded frames.
    Binary,
    /// Frames in base64.
    Text,
}

/// The flag in a frame's first octet that marks the trailers.
const TRAILERS: u8 = 0x80;

impl GrpcWeb {
    /// Returns the encoding of a content type, in any case and with any parameters, or `None` for another type.
    pub fn of(content_type: &[u8]) -> Option<Self> {
        let rest = after(content_type, b"application/grpc-web")?;
        if ends_type(rest) {
            return Some(Self::Binary);
        }
        after(rest, b"-text").filter(|rest| ends_type(rest)).map(|_| Self::Text)
    }

    /// Returns the content type of a response in this encoding.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Binary => "application/grpc-web+proto",
            Self::Text => "application/grpc-web-text+proto",
        }
    }

    /// Returns the body of a response without messages: one frame with the trailers.
    pub fn trailers(self, status: u8, message: &str) -> Bytes {
        let trailers = format!("grpc-status: {status}\r\ngrpc-message: {message}\r\n");
        let length = u32::try_from(trailers.len()).unwrap_or(u32::MAX).to_be_bytes();
        let frame = [&[TRAILERS], &length[..], trailers.as_bytes()].concat();
        match self {
            Self::Binary => frame.into(),
            Self::Text => STANDARD.encode(frame).into(),
        }
    }
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
    fn trailers_are_one_frame() {
        let text = b"grpc-status: 16\r\ngrpc-message: no\r\n";
        let frame = [&[0x80, 0, 0, 0, text.len() as u8][..], text].concat();
        assert_eq!(GrpcWeb::Binary.trailers(16, "no"), frame);
        assert_eq!(STANDARD.decode(GrpcWeb::Text.trailers(16, "no")).expect("base64"), frame);
    }
}
