//! The client's address from `Forwarded` (RFC 7239), read from the right.

use std::net::IpAddr;

use ipnet::IpNet;

/// The most parts of one field line that are read; a line with more is not used.
const MAX_PARTS: usize = 100;

/// What trusted proxies say of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardedClient {
    /// The address of the client.
    pub address: IpAddr,
    /// The scheme that the client used, `http` or `https`.
    pub scheme: Option<&'static str>,
    /// The `Host` that the client sent.
    pub host: Option<String>,
}

/// One part of a list: what one proxy says.
#[derive(Debug, Default)]
struct Part {
    client: Option<IpAddr>,
    scheme: Option<&'static str>,
    host: Option<String>,
}

/// Returns what the trusted proxies say of the client.
///
/// The list is walked from the right, past every trusted address; the first address that is not trusted is the client.
/// A part without an address (`unknown`, an obfuscated identifier), and a malformed line, end the walk: everything to
/// the left was written by an untrusted party.
pub fn forwarded_client<'h>(
    peer: IpAddr,
    trusted: &[IpNet],
    lines: impl DoubleEndedIterator<Item = &'h [u8]>,
) -> ForwardedClient {
    let is_trusted = |address: IpAddr| trusted.iter().any(|net| net.contains(&address));
    let peer = peer.to_canonical();
    let mut found = ForwardedClient { address: peer, scheme: None, host: None };
    if !is_trusted(peer) {
        return found;
    }
    for line in lines.rev() {
        let Some(parts) = parts(line) else { return found };
        for part in parts.into_iter().rev() {
            // Scheme and host are those of the connection whose client the part names.
            (found.scheme, found.host) = (part.scheme, part.host);
            let Some(address) = part.client else { return found };
            found.address = address;
            if !is_trusted(address) {
                return found;
            }
        }
    }
    found
}

/// Returns the parts of a field line (RFC 7239, section 4); `None` if it is malformed.
fn parts(line: &[u8]) -> Option<Vec<Part>> {
    let mut rest = std::str::from_utf8(line).ok()?;
    let mut parts = Vec::new();
    loop {
        let mut part = Part::default();
        let mut seen: u8 = 0;
        rest = trimmed(rest);
        while !rest.is_empty() && !rest.starts_with(',') {
            let (name, behind) = rest.split_once('=')?;
            if !is_token(name) {
                return None;
            }
            let (value, behind) = value(behind)?;
            let bit = match name.to_ascii_lowercase().as_str() {
                "for" => {
                    part.client = address(&value);
                    1
                }
                "proto" => {
                    part.scheme = ["http", "https"].into_iter().find(|scheme| value.eq_ignore_ascii_case(scheme));
                    2
                }
                "host" => {
                    part.host = Some(value);
                    4
                }
                _ => 0,
            };
            // A parameter must not occur twice (section 4).
            if seen & bit != 0 {
                return None;
            }
            seen |= bit;
            rest = trimmed(behind);
            match rest.strip_prefix(';') {
                Some(behind) => rest = trimmed(behind),
                None if rest.is_empty() || rest.starts_with(',') => {}
                None => return None,
            }
        }
        // An empty part says nothing, and is none (RFC 9110, section 5.6.1).
        if seen != 0 || parts.is_empty() && rest.is_empty() {
            parts.push(part);
        }
        match rest.strip_prefix(',') {
            Some(behind) if parts.len() < MAX_PARTS => rest = behind,
            Some(_) => return None,
            None => return Some(parts),
        }
    }
}

fn trimmed(text: &str) -> &str {
    text.trim_start_matches([' ', '\t'])
}

fn is_token(text: &str) -> bool {
    let special = |byte: u8| b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || special(byte))
}

/// Returns the value at the start of a text, a token or a quoted string (RFC 9110, section 5.6.4), and what follows it.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([';', ',', ' ', '\t']).unwrap_or(text.len());
        // Addresses with a port are no token, and are seldom quoted.
        let (value, behind) = text.split_at(end);
        return (is_token(&value.replace(':', ""))).then(|| (value.to_owned(), behind));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            control if control.is_control() && control != '\t' => return None,
            other => value.push(other),
        }
    }
    None
}

/// Returns the address in a node identifier (RFC 7239, section 6).
fn address(node: &str) -> Option<IpAddr> {
    let bare = |text: &str| text.parse::<std::net::Ipv4Addr>().map(IpAddr::from).ok();
    let v6 = || {
        let (address, port) = node.strip_prefix('[')?.split_once(']')?;
        (port.is_empty() || is_port(port.strip_prefix(':')?)).then(|| address.parse::<std::net::Ipv6Addr>().ok())?
    };
    let v4 = || {
        let (address, port) = node.split_once(':')?;
        is_port(port).then(|| bare(address))?
    };
    bare(node).or_else(v4).or_else(|| v6().map(IpAddr::from)).map(|address| address.to_canonical())
}

/// Returns whether a text is a port, or an obfuscated one.
fn is_port(text: &str) -> bool {
    let digits = !text.is_empty() && text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    let obfuscated = |text: &str| is_token(text);
    digits || text.strip_prefix('_').is_some_and(obfuscated)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ask(peer: &str, lines: &[&str]) -> ForwardedClient {
        let trusted: Vec<IpNet> = ["10.0.0.0/8", "fd00::/8"].iter().map(|t| t.parse().expect("net")).collect();
        forwarded_client(peer.parse().expect("ip"), &trusted, lines.iter().map(|l| l.as_bytes()))
    }

    #[test]
    fn the_rightmost_stranger() {
        for (peer, lines, client) in [
            ("9.9.9.9", &["for=1.2.3.4"][..], "9.9.9.9"),
            ("10.0.0.1", &["for=1.2.3.4"], "1.2.3.4"),
            ("10.0.0.1", &["For=\"1.2.3.4:80\""], "1.2.3.4"),
            ("10.0.0.1", &["for=1.2.3.4:80;proto=https"], "1.2.3.4"),
            ("10.0.0.1", &["for=\"[2001:db8:cafe::17]:4711\""], "2001:db8:cafe::17"),
            ("10.0.0.1", &["for=\"[2001:db8::1]\""], "2001:db8::1"),
            ("10.0.0.1", &["for=\"[::ffff:1.2.3.4]:_x\""], "1.2.3.4"),
            ("10.0.0.1", &["for=6.6.6.6, for=1.2.3.4 ; by=10.0.0.1, for=10.0.0.9"], "1.2.3.4"),
            ("10.0.0.1", &["for=6.6.6.6", "for=1.2.3.4"], "1.2.3.4"),
            ("10.0.0.1", &["for=6.6.6.6", "for=10.0.0.2"], "6.6.6.6"),
            ("10.0.0.1", &["for=1.2.3.4, for=unknown, for=10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["for=1.2.3.4, for=_hidden"], "10.0.0.1"),
            ("10.0.0.1", &["for=1.2.3.4, proto=https"], "10.0.0.1"),
            ("10.0.0.1", &["for=1.2.3.4, , for=10.0.0.2,"], "1.2.3.4"),
            // A quoted comma hides nothing.
            ("10.0.0.1", &["for=\"6.6.6.6, for=1.2.3.4"], "10.0.0.1"),
            ("10.0.0.1", &["x=\", for=6.6.6.6\";for=1.2.3.4"], "1.2.3.4"),
            ("10.0.0.1", &["for=1.2.3.4;for=6.6.6.6"], "10.0.0.1"),
            ("10.0.0.1", &["for=[2001:db8::1]"], "10.0.0.1"),
            ("10.0.0.1", &["1.2.3.4"], "10.0.0.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("fd00::1", &["for=\"[fd00::2]\""], "fd00::2"),
        ] {
            assert_eq!(ask(peer, lines).address.to_string(), client, "{lines:?}");
        }
    }

    #[test]
    fn scheme_and_host_are_those_of_the_client() {
        let found =
            ask("10.0.0.1", &["for=6.6.6.6;proto=http, for=1.2.3.4;proto=HTTPS;host=\"a.test:8443\", for=10.0.0.9"]);
        assert_eq!((found.scheme, found.host.as_deref()), (Some("https"), Some("a.test:8443")));
        assert_eq!(ask("10.0.0.1", &["for=1.2.3.4;proto=ftp"]).scheme, None);
        assert_eq!(ask("9.9.9.9", &["for=1.2.3.4;proto=https"]).scheme, None);
    }

    proptest! {
        #[test]
        fn what_a_stranger_sends_changes_nothing(before in "[ -~]{0,60}") {
            // The proxy appends to what it got, as a list or as a further line.
            let line = format!("{before}, for=1.2.3.4");
            let joined = ask("10.0.0.1", &[&line]).address.to_string();
            prop_assert!(joined == "1.2.3.4" || joined == "10.0.0.1", "{}", joined);
            prop_assert_eq!(ask("10.0.0.1", &[&before, "for=1.2.3.4"]).address.to_string(), "1.2.3.4");
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = parts(&bytes);
        }
    }
}
