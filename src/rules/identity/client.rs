//! The client's address from `X-Forwarded-For`, read from the right.

use std::net::{IpAddr, SocketAddr};

use http::HeaderValue;
use ipnet::IpNet;

/// Returns the address of the client.
///
/// Without a trusted network the peer is the client, whatever the header says. Otherwise the list is walked from the
/// right, past every trusted address; the first address that is not trusted is the client. An entry that is no
/// address ends the walk: everything to its left was written by an untrusted party.
pub fn client_address<'h>(
    peer: IpAddr,
    trusted: &[IpNet],
    forwarded: impl DoubleEndedIterator<Item = &'h [u8]>,
) -> IpAddr {
    let peer = peer.to_canonical();
    let mut client = peer;
    if trusted.is_empty() || !is_trusted(trusted, peer) {
        return peer;
    }
    for line in forwarded.rev() {
        for item in line.rsplit(|b| *b == b',') {
            let Some(address) = parse(item) else { return client };
            client = address;
            if !is_trusted(trusted, address) {
                return client;
            }
        }
    }
    client
}

/// Returns whether the address is in a trusted network.
fn is_trusted(trusted: &[IpNet], address: IpAddr) -> bool {
    trusted.iter().any(|net| net.contains(&address))
}

fn parse(item: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(item).ok()?.trim();
    let bare = text.parse::<IpAddr>().or_else(|_| text.parse::<SocketAddr>().map(|a| a.ip()));
    bare.ok().map(|a| a.to_canonical())
}

/// Returns the `X-Forwarded-For` to forward: the received values with the peer appended.
pub fn forwarded_for<'h>(came: impl Iterator<Item = &'h [u8]>, peer: &[u8]) -> HeaderValue {
    let mut out = Vec::with_capacity(64);
    for line in came.filter(|l| !l.is_empty()) {
        out.extend_from_slice(line);
        out.extend_from_slice(b", ");
    }
    out.extend_from_slice(peer);
    // A list of header values is a valid header value.
    HeaderValue::from_maybe_shared(bytes::Bytes::from(out)).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(peer: &str, trusted: &[&str], lines: &[&str]) -> String {
        let trusted: Vec<IpNet> = trusted.iter().map(|t| t.parse().expect("net")).collect();
        let lines: Vec<&[u8]> = lines.iter().map(|l| l.as_bytes()).collect();
        client_address(peer.parse().expect("ip"), &trusted, lines.into_iter()).to_string()
    }

    #[test]
    fn the_rightmost_stranger() {
        assert_eq!(ask("9.9.9.9", &[], &["1.2.3.4"]), "9.9.9.9");
        assert_eq!(ask("9.9.9.9", &["10.0.0.0/8"], &["1.2.3.4"]), "9.9.9.9");
        assert_eq!(ask("10.0.0.1", &["10.0.0.0/8"], &["1.2.3.4"]), "1.2.3.4");
        assert_eq!(ask("10.0.0.1", &["10.0.0.0/8"], &["6.6.6.6, 1.2.3.4, 10.0.0.9"]), "1.2.3.4");
        assert_eq!(ask("10.0.0.1", &["10.0.0.0/8"], &["6.6.6.6", "1.2.3.4"]), "1.2.3.4");
        assert_eq!(ask("10.0.0.1", &["10.0.0.0/8"], &["1.2.3.4, junk, 10.0.0.2"]), "10.0.0.2");
        assert_eq!(ask("10.0.0.1", &["10.0.0.0/8"], &["[2001:db8::1]:443"]), "2001:db8::1");
        assert_eq!(ask("::ffff:10.0.0.1", &["10.0.0.0/8"], &["::ffff:1.2.3.4"]), "1.2.3.4");
        assert_eq!(ask("10.0.0.1", &["10.0.0.0/8"], &[]), "10.0.0.1");
    }

    #[test]
    fn appends_the_peer() {
        assert_eq!(forwarded_for([b"2.2.2.2".as_slice()].into_iter(), b"1.1.1.1"), "2.2.2.2, 1.1.1.1");
        assert_eq!(forwarded_for([].into_iter(), b"1.1.1.1"), "1.1.1.1");
    }
}
