//! Strict checks of protocols on the wire, octet by octet. They run before a parser that would repair, accept or
//! allocate too much.

mod chunks;
mod client_hello;
mod field_block;
mod h2_frames;
mod opening;
mod proxy_header;
mod proxy_header_write;
mod request_line;

pub use chunks::{ChunkError, Chunks};
pub use client_hello::{ClientHelloFacts, MAX_HELLO};
pub use h2_frames::{FrameScanner, Violation};
pub use opening::{Opening, POSTGRES_SSL_REQUEST, read_opening};
pub use proxy_header::{
    ALPN_VALUE, AUTHORITY_VALUE, HeaderStart, MAX_V1, NoHeader, ProxyHeader, SSL_VALUE, UNIQUE_ID_VALUE, WITHIN_SSL,
    header_length, parse_proxy_datagram, parse_proxy_header,
};
pub use proxy_header_write::{HeaderTransport, ProxyVersion, write_proxy_header};
pub use request_line::{RequestLine, TargetFault};

/// Returns whether an octet may occur in a token (RFC 9110, section 5.6.2).
const fn is_token(byte: u8) -> bool {
    matches!(
        byte,
        b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
    ) || byte.is_ascii_alphanumeric()
}

/// Returns whether an octet may occur in a field value or, except for its two delimiters, in a quoted string (RFC
/// 9110, sections 5.5 and 5.6.4).
const fn is_text(byte: u8) -> bool {
    matches!(byte, b'\t' | 0x20..=0x7e | 0x80..)
}
