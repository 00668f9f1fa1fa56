//! What a connection at layer 4 begins with: TLS, or PostgreSQL's request for it, or anything else.
//!
//! A client of PostgreSQL sends a message of 8 bytes before TLS, and waits for one byte ("Message Flow", SSL Session
//! Encryption). The message is unmistakable: no hello of TLS begins so, and no packet of PostgreSQL's own protocol.

use super::client_hello::{ClientHelloFacts, HelloStart, read_client_hello};

/// PostgreSQL's request for TLS, and for encryption by GSSAPI: its length and a number in place of a version.
pub const POSTGRES_SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
const POSTGRES_GSS_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30];

/// The first bytes of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opening {
    /// The hello of TLS.
    Hello(ClientHelloFacts),
    /// PostgreSQL's request for TLS.
    PostgresSsl,
    /// PostgreSQL's request for encryption by GSSAPI.
    PostgresGss,
    /// Another protocol.
    Other,
    /// What cannot be read, and why.
    Malformed(&'static str),
}

/// Returns what the bytes that have come so far are; `None` where more are needed.
pub fn read_opening(bytes: &[u8]) -> Option<Opening> {
    for (request, opening) in
        [(POSTGRES_SSL_REQUEST, Opening::PostgresSsl), (POSTGRES_GSS_REQUEST, Opening::PostgresGss)]
    {
        let shared = bytes.len().min(request.len());
        if bytes[..shared] == request[..shared] {
            return match bytes.len() {
                length if length < request.len() => None,
                length if length == request.len() => Some(opening),
                // They would be in plain text, and would be taken for what is protected (CVE-2021-23214).
                _ => Some(Opening::Malformed("more bytes follow a request for encryption before the response to it")),
            };
        }
    }
    match read_client_hello(bytes) {
        HelloStart::Incomplete => None,
        HelloStart::NotTls => Some(Opening::Other),
        HelloStart::Malformed(why) => Some(Opening::Malformed(why)),
        HelloStart::Hello(facts) => Some(Opening::Hello(facts)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_postgres_are_known_at_their_last_byte() {
        for (request, opening) in
            [(POSTGRES_SSL_REQUEST, Opening::PostgresSsl), (POSTGRES_GSS_REQUEST, Opening::PostgresGss)]
        {
            for end in 0..request.len() {
                assert_eq!(read_opening(&request[..end]), None, "{end}");
            }
            assert_eq!(read_opening(&request), Some(opening));
            let more = [&request[..], b"\x16"].concat();
            assert!(matches!(read_opening(&more), Some(Opening::Malformed(_))));
        }
        // A request to cancel, the start of a session, and the hello of another protocol.
        for other in
            [&b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x01\0\0\0\x02"[..], b"\0\0\0\x08\0\x03\0\0", b"SSH-2.0-", b"\0\x01"]
        {
            assert_eq!(read_opening(other), Some(Opening::Other), "{other:?}");
        }
        assert_eq!(read_opening(b"\x16\x03"), None);
        assert!(matches!(read_opening(b"\x16\x03\x01\0\x01\x02"), Some(Opening::Malformed(_))));
    }
}
