//! The parts of gRPC-Web that differ from gRPC (`PROTOCOL-WEB.md` of grpc/grpc): base64, and trailers in the body.

use base64::Engine;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use bytes::BytesMut;
use http::{HeaderMap, HeaderName};

use super::frames::{HEADER, frame_header};

/// The flag of the frame that has the trailers.
pub const TRAILERS: u8 = 0x80;

/// Bits behind the last octet are ignored: some encoders leave them.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&ALPHABET, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

/// The fields of a head that are never in the frame of trailers.
const OF_HTTP: [HeaderName; 3] = [http::header::CONTENT_TYPE, http::header::CONTENT_LENGTH, http::header::TRAILER];

/// Decodes base64 that may be padded anywhere: a client pads what it has whenever it flushes.
///
/// # Errors
/// Returns what is wrong with the text.
pub fn decode_text(text: &[u8]) -> Result<Vec<u8>, &'static str> {
    if !text.len().is_multiple_of(4) {
        return Err("the base64 of the body ends within four characters");
    }
    let mut decoded = Vec::with_capacity(text.len() / 4 * 3);
    let mut rest = text;
    while !rest.is_empty() {
        // What follows a pad begins anew, at four characters.
        let end = memchr::memchr(b'=', rest).map_or(rest.len(), |at| (at / 4 + 1) * 4);
        let (padded, behind) = rest.split_at(end);
        BASE64.decode_vec(padded, &mut decoded).map_err(|_| "the body is not base64")?;
        rest = behind;
    }
    Ok(decoded)
}

/// Appends `part` in base64, padded.
pub fn encode_text(part: &[u8], out: &mut BytesMut) {
    let begin = out.len();
    out.resize(begin + part.len().div_ceil(3) * 4, 0);
    let written = BASE64.encode_slice(part, &mut out[begin..]).unwrap_or_default();
    out.truncate(begin + written);
}

/// Appends the frame of the trailers: lines as in HTTP/1, with names in lower case.
pub fn write_trailers(trailers: &HeaderMap, out: &mut BytesMut) {
    let begin = out.len();
    out.extend_from_slice(&[0; HEADER]);
    for (name, value) in trailers.iter().filter(|(name, _)| !OF_HTTP.contains(name)) {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    let length = u32::try_from(out.len() - begin - HEADER).unwrap_or(u32::MAX);
    out[begin..begin + HEADER].copy_from_slice(&frame_header(TRAILERS, length));
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn text_is_decoded_wherever_it_is_padded(
            parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..10),
        ) {
            let mut text = BytesMut::new();
            parts.iter().for_each(|part| encode_text(part, &mut text));
            prop_assert_eq!(decode_text(&text).expect("base64"), parts.concat());
        }

        #[test]
        fn any_text_is_decoded_or_an_error(text in "[A-Za-z0-9+/=\n]{0,40}") {
            if let Ok(bytes) = decode_text(text.as_bytes()) {
                prop_assert!(bytes.len() <= text.len() / 4 * 3);
            }
        }
    }

    #[test]
    fn what_is_no_base64_is_rejected() {
        for wrong in ["AAAAA", "AA=A", "=AAA", "A===", "AA\nA", "====", "AA==A", "AA--"] {
            assert!(decode_text(wrong.as_bytes()).is_err(), "{wrong}");
        }
        assert_eq!(decode_text(b"AB==").expect("bits behind the end"), [0]);
        assert_eq!(decode_text(b"").expect("nothing"), b"");
    }

    #[test]
    fn trailers_are_one_frame() {
        let mut trailers = HeaderMap::new();
        for (name, value) in [("grpc-status", "16"), ("X-More", "a"), ("x-more", "b"), ("content-type", "c")] {
            trailers.append(HeaderName::try_from(name).expect("a name"), HeaderValue::from_static(value));
        }
        let mut out = BytesMut::from(&b"before"[..]);
        write_trailers(&trailers, &mut out);
        let text = b"grpc-status: 16\r\nx-more: a\r\nx-more: b\r\n";
        assert_eq!(out, [b"before", &[0x80, 0, 0, 0, text.len() as u8][..], text].concat());
    }
}
