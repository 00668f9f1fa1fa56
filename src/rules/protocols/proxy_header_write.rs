//! Writing headers of the PROXY protocol.

use std::net::{IpAddr, SocketAddr};

use super::proxy_header::{CRC32C, DATAGRAM, ProxyHeader, SIGNATURE, SSL, STREAM, V2_START, WITHIN_SSL};

/// The most bytes of a header that is written. It is sent at once, and is smaller than a segment of any network in use
/// with what the gateway itself has to say (section 2.2); values that do not fit are left out.
const MAX_WRITTEN: usize = 1_200;

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProxyVersion {
    /// A line of text, with the addresses alone.
    V1,
    /// A binary header, with further values.
    V2 {
        /// Whether it has a checksum.
        checksum: bool,
    },
}

/// The transport whose addresses are in a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HeaderTransport {
    /// That of a connection.
    Stream,
    /// That of a datagram, which version 2 alone has.
    Datagram,
}

/// Returns the bytes of a header. Without addresses it says that the gateway speaks for itself: LOCAL, or in version 1
/// UNKNOWN, the nearest that there is.
pub fn write_proxy_header(header: &ProxyHeader, version: ProxyVersion, transport: HeaderTransport) -> Vec<u8> {
    let addresses = header.addresses.map(of_one_family);
    match version {
        ProxyVersion::V1 => line(addresses),
        ProxyVersion::V2 { checksum } => binary(addresses, &header.values, checksum, transport),
    }
}

/// Returns both addresses as those of one family, since a header has one: IPv4 if both are.
fn of_one_family((from, to): (SocketAddr, SocketAddr)) -> (SocketAddr, SocketAddr) {
    let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let mapped = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(ip) => SocketAddr::new(ip.into(), address.port()),
    };
    let (from, to) = (canonical(from), canonical(to));
    if from.is_ipv4() == to.is_ipv4() { (from, to) } else { (mapped(from), mapped(to)) }
}

fn line(addresses: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    let Some((from, to)) = addresses else { return b"PROXY UNKNOWN\r\n".to_vec() };
    let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
    format!("PROXY {family} {} {} {} {}\r\n", from.ip(), to.ip(), from.port(), to.port()).into_bytes()
}

fn binary(
    addresses: Option<(SocketAddr, SocketAddr)>,
    values: &[(u16, Box<[u8]>)],
    checksum: bool,
    transport: HeaderTransport,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    out.extend(SIGNATURE);
    let transport = match transport {
        HeaderTransport::Stream => STREAM,
        HeaderTransport::Datagram => DATAGRAM,
    };
    // The command is LOCAL or PROXY; the length is known at the end.
    match addresses {
        None => out.extend([0x20, 0, 0, 0]),
        Some((from, to)) => {
            out.extend([0x21, transport | if from.is_ipv4() { 0x10 } else { 0x20 }, 0, 0]);
            for ip in [from.ip(), to.ip()] {
                match ip {
                    IpAddr::V4(ip) => out.extend(ip.octets()),
                    IpAddr::V6(ip) => out.extend(ip.octets()),
                }
            }
            out.extend(from.port().to_be_bytes());
            out.extend(to.port().to_be_bytes());
            write_values(&mut out, values);
        }
    }
    let at = (checksum && addresses.is_some()).then(|| {
        write_value(&mut out, CRC32C, &[0; 4]);
        out.len() - 4
    });
    let length = u16::try_from(out.len() - V2_START).unwrap_or(u16::MAX);
    out[V2_START - 2..V2_START].copy_from_slice(&length.to_be_bytes());
    if let Some(at) = at {
        let checksum = crc32c::crc32c(&out);
        out[at..at + 4].copy_from_slice(&checksum.to_be_bytes());
    }
    out
}

/// Writes the values that fit. Those within the one about TLS are written into it.
fn write_values(out: &mut Vec<u8>, values: &[(u16, Box<[u8]>)]) {
    let mut tls = Vec::new();
    for (kind, value) in values {
        let fits = out.len() + tls.len() + value.len() + 16 <= MAX_WRITTEN;
        let (within, kind) = (*kind & WITHIN_SSL != 0, (*kind & 0xff) as u8);
        match (within, kind) {
            _ if !fits => {}
            (false, SSL) if tls.is_empty() => tls.extend_from_slice(value),
            (true, kind) if !tls.is_empty() => write_value(&mut tls, kind, value),
            (true, _) => {}
            (false, kind) => write_value(out, kind, value),
        }
    }
    if !tls.is_empty() {
        write_value(out, SSL, &tls);
    }
}

fn write_value(out: &mut Vec<u8>, kind: u8, value: &[u8]) {
    let Ok(length) = u16::try_from(value.len()) else { return };
    out.push(kind);
    out.extend(length.to_be_bytes());
    out.extend(value);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rules::protocols::{MAX_V1, parse_proxy_datagram, parse_proxy_header};

    fn any_address() -> impl Strategy<Value = SocketAddr> {
        let v4 = any::<[u8; 4]>().prop_map(IpAddr::from);
        let v6 = any::<[u8; 16]>().prop_map(IpAddr::from);
        (prop_oneof![v4, v6], any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
    }

    fn any_values() -> impl Strategy<Value = Vec<(u16, Box<[u8]>)>> {
        let value = proptest::collection::vec(any::<u8>(), 0..100);
        let plain = (prop_oneof![Just(1), Just(2), Just(5), 0xe0_u16..0xf0], value.clone());
        let within = (0x2021_u16..0x2028, value);
        let tls = (any::<u8>(), proptest::collection::vec(within, 0..4));
        (proptest::collection::vec(plain, 0..4), proptest::option::of(tls)).prop_map(|(plain, tls)| {
            let boxed = |(kind, value): (u16, Vec<u8>)| (kind, value.into_boxed_slice());
            let tls = tls.into_iter().flat_map(|(client, within)| {
                let mut tls = vec![(0x20, vec![client, 0, 0, 0, 1])];
                tls.extend(within);
                tls
            });
            plain.into_iter().chain(tls).map(boxed).collect()
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            addresses in proptest::option::of((any_address(), any_address())),
            values in any_values(),
            checksum in any::<bool>(),
        ) {
            let header = ProxyHeader { addresses, values };
            let expected = addresses.map(of_one_family);
            let line = write_proxy_header(&header, ProxyVersion::V1, HeaderTransport::Stream);
            prop_assert!(line.len() <= MAX_V1);
            let read = parse_proxy_header(&line);
            prop_assert_eq!(read, Ok(ProxyHeader { addresses: expected, values: Vec::new() }));

            let version = ProxyVersion::V2 { checksum };
            let values = if addresses.is_some() { header.values.clone() } else { Vec::new() };
            let read_again = ProxyHeader { addresses: expected, values };
            let stream = write_proxy_header(&header, version, HeaderTransport::Stream);
            prop_assert_eq!(parse_proxy_header(&stream), Ok(read_again.clone()));
            let mut datagram = write_proxy_header(&header, version, HeaderTransport::Datagram);
            // The transports are not taken for each other.
            let unknown = parse_proxy_header(&datagram);
            prop_assert_eq!(unknown.map(|header| header.addresses), Ok(None));
            datagram.extend(b"payload");
            prop_assert_eq!(parse_proxy_datagram(&datagram), Ok((read_again, &b"payload"[..])));
        }
    }

    #[test]
    fn values_that_do_not_fit_are_left_out() {
        let addresses = Some(("192.0.2.1:1".parse().expect("valid"), "192.0.2.2:2".parse().expect("valid")));
        let large: (u16, Box<[u8]>) = (0xe0, vec![1; 1_100].into());
        let small: (u16, Box<[u8]>) = (0xe1, vec![2; 100].into());
        let header = ProxyHeader { addresses, values: vec![large.clone(), small, large] };
        let bytes = write_proxy_header(&header, ProxyVersion::V2 { checksum: true }, HeaderTransport::Stream);
        assert!(bytes.len() <= MAX_WRITTEN);
        assert_eq!(parse_proxy_header(&bytes).expect("a header").values.len(), 1);
    }

    #[test]
    fn the_gateway_speaks_for_itself_without_addresses() {
        let none = ProxyHeader::default();
        let v2 = write_proxy_header(&none, ProxyVersion::V2 { checksum: true }, HeaderTransport::Stream);
        assert_eq!(v2, b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0");
        assert_eq!(write_proxy_header(&none, ProxyVersion::V1, HeaderTransport::Stream), b"PROXY UNKNOWN\r\n");
    }
}
