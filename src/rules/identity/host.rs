//! The host of a request (RFC 9110, section 7.2; RFC 3986, section 3.2.2).

use std::net::Ipv6Addr;

/// Returns the name or address in an authority, without its port and without the dot at its end; `None` if it is no
/// host.
///
/// Anything else could be read as two different hosts by two parsers.
pub fn host_name(authority: &[u8]) -> Option<&[u8]> {
    if authority.first() == Some(&b'[') {
        let end = memchr::memchr(b']', authority)?;
        let address = std::str::from_utf8(&authority[1..end]).ok()?;
        return (is_port(&authority[end + 1..]) && address.parse::<Ipv6Addr>().is_ok()).then_some(&authority[..=end]);
    }
    let colon = memchr::memchr(b':', authority).unwrap_or(authority.len());
    let (name, port) = authority.split_at(colon);
    let name = name.strip_suffix(b".").unwrap_or(name);
    // No empty label is allowed.
    let mut dot = true;
    for byte in name {
        dot = match byte {
            b'.' if dot => return None,
            b'.' => true,
            b'-' | b'_' => false,
            byte if byte.is_ascii_alphanumeric() => false,
            _ => return None,
        };
    }
    (!dot && is_port(port)).then_some(name)
}

/// Returns whether the text is empty, or a colon and a port, which may be empty.
fn is_port(text: &[u8]) -> bool {
    match text.split_first() {
        None => true,
        Some((b':', digits)) => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        Some(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_what_is_none() {
        for (text, name) in [
            ("a", "a"),
            ("A.example", "A.example"),
            ("a.example.", "a.example"),
            ("a:80", "a"),
            ("a:", "a"),
            ("a.:80", "a"),
            ("127.0.0.1:8080", "127.0.0.1"),
            ("[::1]", "[::1]"),
            ("[::1]:443", "[::1]"),
            ("_x-1.b", "_x-1.b"),
        ] {
            assert_eq!(host_name(text.as_bytes()), Some(name.as_bytes()), "{text}");
        }
        for text in [
            "", ".", "..", "a..", "a..b", ".a", "[a]", "[::1", "[::1]x", "[::1]:x", "a:80:80", "a:b", "a b", "a/b",
            "a@b", ":80", "::1", "a:123456", "\u{e9}", "a]",
        ] {
            assert_eq!(host_name(text.as_bytes()), None, "{text}");
        }
    }
}
