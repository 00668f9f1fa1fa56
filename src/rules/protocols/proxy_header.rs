//! The PROXY protocol, versions 1 and 2 (HAProxy, `doc/proxy-protocol.txt`): the header in which a load balancer names
//! the client of a connection.
//!
//! Whether a connection has such a header is configured and never guessed: a client that could send one would choose
//! its own address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest header of version 1, its end of line included.
pub const MAX_V1: usize = 107;

/// The length of the fixed part of a header of version 2.
pub const V2_START: usize = 16;

/// The longest header of version 2 that is accepted: certificates of clients may be in it.
pub const MAX_V2: usize = 16 * 1024;

/// The first bytes of version 2.
pub(super) const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// The first bytes of version 1.
const WORD: &[u8] = b"PROXY ";

/// Types of values (section 2.2 of the specification).
pub(super) const CRC32C: u8 = 0x03;
const NOOP: u8 = 0x04;
pub(super) const SSL: u8 = 0x20;

/// The types of values that have a meaning for the gateway, as they are found in a header: the negotiated application
/// protocol, the host name that the client requested, the identity of the connection, and what is known of TLS.
pub const ALPN_VALUE: u16 = 0x01;
pub const AUTHORITY_VALUE: u16 = 0x02;
pub const UNIQUE_ID_VALUE: u16 = 0x05;
pub const SSL_VALUE: u16 = SSL as u16;

/// The most bytes of a unique id (section 2.2.5), and of a host name in ASCII.
const MAX_UNIQUE_ID: usize = 128;
const MAX_AUTHORITY: usize = 255;

/// The type under which a value within the one about TLS is found: 0x2022 is the common name of a certificate.
pub const WITHIN_SSL: u16 = 0x2000;

/// The certificate of a client within the value about TLS: it is not kept, since it is large.
const SSL_CERTIFICATE: u16 = 0x2028;

/// A header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyHeader {
    /// The addresses of the client and of that to which it connected; `None` where the proxy speaks for itself (LOCAL,
    /// as for health checks), or does not know them (UNKNOWN), or they are no addresses of the transport in use.
    pub addresses: Option<(SocketAddr, SocketAddr)>,
    /// The further values by their types; those within the value about TLS have 0x2000 added.
    pub values: Vec<(u16, Box<[u8]>)>,
}

/// What is known of the bytes at the start of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderStart {
    /// More bytes are needed.
    Incomplete,
    /// A header of that length.
    Length(usize),
}

/// The error of bytes that are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoHeader(pub &'static str);

/// Returns the length of the header at the start of the bytes.
///
/// # Errors
/// Returns why they are the start of no header.
pub fn header_length(bytes: &[u8]) -> Result<HeaderStart, NoHeader> {
    let shared = bytes.len().min(SIGNATURE.len());
    if bytes[..shared] == SIGNATURE[..shared] {
        let Some(length) = bytes.get(V2_START - 2..V2_START) else { return Ok(HeaderStart::Incomplete) };
        let length = V2_START + usize::from(u16::from_be_bytes([length[0], length[1]]));
        return if length > MAX_V2 { Err(NoHeader("it is too long")) } else { Ok(HeaderStart::Length(length)) };
    }
    let shared = bytes.len().min(WORD.len());
    if bytes[..shared] != WORD[..shared] {
        return Err(NoHeader("the connection does not begin with one"));
    }
    match memchr::memchr2(b'\r', b'\n', &bytes[..bytes.len().min(MAX_V1)]) {
        Some(at) if bytes[at] == b'\n' => Err(NoHeader("its line has no carriage return")),
        Some(at) if at + 1 >= MAX_V1 => Err(NoHeader("it is too long")),
        Some(at) => match bytes.get(at + 1) {
            None => Ok(HeaderStart::Incomplete),
            Some(b'\n') => Ok(HeaderStart::Length(at + 2)),
            Some(_) => Err(NoHeader("its line has a carriage return within")),
        },
        None if bytes.len() >= MAX_V1 => Err(NoHeader("it is too long")),
        None => Ok(HeaderStart::Incomplete),
    }
}

/// Reads the whole header of a connection.
///
/// # Errors
/// Returns what is wrong with it.
pub fn parse_proxy_header(bytes: &[u8]) -> Result<ProxyHeader, NoHeader> {
    if header_length(bytes)? != HeaderStart::Length(bytes.len()) {
        return Err(NoHeader("it is not of the length that it says"));
    }
    if bytes.starts_with(&SIGNATURE) { version_2(bytes, STREAM) } else { version_1(bytes) }
}

/// Reads the header at the start of a datagram (version 2 alone: section 2.2), and returns the payload behind it.
///
/// # Errors
/// Returns what is wrong with it, as that it is not all there.
pub fn parse_proxy_datagram(bytes: &[u8]) -> Result<(ProxyHeader, &[u8]), NoHeader> {
    if !bytes.starts_with(&SIGNATURE) {
        return Err(NoHeader("the datagram does not begin with one"));
    }
    let HeaderStart::Length(length) = header_length(bytes)? else { return Err(NoHeader("it is not complete")) };
    let (header, payload) = bytes.split_at_checked(length).ok_or(NoHeader("it is not complete"))?;
    Ok((version_2(header, DATAGRAM)?, payload))
}

fn version_1(bytes: &[u8]) -> Result<ProxyHeader, NoHeader> {
    let malformed = || NoHeader("its line is malformed");
    let line = bytes.get(WORD.len()..bytes.len() - 2).ok_or_else(malformed)?;
    if line == b"UNKNOWN" || line.starts_with(b"UNKNOWN ") {
        return Ok(ProxyHeader::default());
    }
    let line = std::str::from_utf8(line).map_err(|_| malformed())?;
    let mut parts = line.split(' ');
    let mut next = || parts.next().ok_or_else(malformed);
    let is_v4 = match next()? {
        "TCP4" => true,
        "TCP6" => false,
        _ => return Err(NoHeader("its protocol is neither TCP4 nor TCP6 nor UNKNOWN")),
    };
    let address = |text: &str| -> Option<IpAddr> {
        if is_v4 {
            text.parse::<Ipv4Addr>().ok().map(Into::into)
        } else {
            text.parse::<Ipv6Addr>().ok().map(Into::into)
        }
    };
    let port = |text: &str| -> Option<u16> {
        let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
        text.parse().ok().filter(|_| plain)
    };
    let (from, to) = (address(next()?).ok_or_else(malformed)?, address(next()?).ok_or_else(malformed)?);
    let (from_port, to_port) = (port(next()?).ok_or_else(malformed)?, port(next()?).ok_or_else(malformed)?);
    if parts.next().is_some() {
        return Err(malformed());
    }
    let addresses = Some((SocketAddr::new(from, from_port), SocketAddr::new(to, to_port)));
    Ok(ProxyHeader { addresses, values: Vec::new() })
}

/// Transports in the lower half of the octet that has the address family in its upper half.
pub(super) const STREAM: u8 = 1;
pub(super) const DATAGRAM: u8 = 2;

/// Reads a header of version 2 whose addresses are those of that transport.
fn version_2(bytes: &[u8], transport: u8) -> Result<ProxyHeader, NoHeader> {
    let (start, rest) = bytes.split_at(V2_START);
    match start[12] {
        // LOCAL: what follows is skipped.
        0x20 => return Ok(ProxyHeader::default()),
        0x21 => {}
        _ => return Err(NoHeader("its version or its command is unknown")),
    }
    // Those of another transport, and of no network, leave the actual addresses.
    let (length, has_ip) = match (start[13] >> 4, start[13] & 0xf) {
        // What follows an unspecified family or transport is skipped (section 2.2).
        (0, 0..=2) | (1..=3, 0) => return Ok(ProxyHeader::default()),
        (1, STREAM | DATAGRAM) => (12, true),
        (2, STREAM | DATAGRAM) => (36, true),
        (3, STREAM | DATAGRAM) => (216, false),
        _ => return Err(NoHeader("its address family is unknown")),
    };
    let Some((addresses, values)) = rest.split_at_checked(length) else {
        return Err(NoHeader("it is too short for its addresses"));
    };
    let values = read_values(bytes, values)?;
    let is_of_transport = has_ip && start[13] & 0xf == transport;
    Ok(ProxyHeader { addresses: is_of_transport.then(|| read_addresses(addresses)).flatten(), values })
}

fn read_addresses(bytes: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let (ips, ports) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
    let (from, to) = ips.split_at(ips.len() / 2);
    let ip = |octets: &[u8]| -> Option<IpAddr> {
        let v4 = <[u8; 4]>::try_from(octets).ok().map(IpAddr::from);
        v4.or_else(|| <[u8; 16]>::try_from(octets).ok().map(IpAddr::from))
    };
    let port = |at: usize| u16::from_be_bytes([ports[at], ports[at + 1]]);
    Some((SocketAddr::new(ip(from)?, port(0)), SocketAddr::new(ip(to)?, port(2))))
}

/// Reads the values at the end of a header, and verifies its checksum if there is one.
fn read_values(header: &[u8], bytes: &[u8]) -> Result<Vec<(u16, Box<[u8]>)>, NoHeader> {
    let mut values = Vec::new();
    for value in Values(bytes) {
        let (kind, value) = value?;
        match kind {
            NOOP => {}
            CRC32C => {
                let at = value.as_ptr() as usize - header.as_ptr() as usize;
                if !has_checksum(header, at, value) {
                    return Err(NoHeader("its checksum is wrong"));
                }
            }
            SSL => {
                let parts = value.get(5..).ok_or(NoHeader("its value about TLS is too short"))?;
                values.push((u16::from(SSL), value[..5].into()));
                for part in Values(parts) {
                    let (kind, part) = part?;
                    let kind = WITHIN_SSL | u16::from(kind);
                    if kind != SSL_CERTIFICATE {
                        values.push((kind, part.into()));
                    }
                }
            }
            kind => {
                let most = match u16::from(kind) {
                    UNIQUE_ID_VALUE => MAX_UNIQUE_ID,
                    AUTHORITY_VALUE | ALPN_VALUE => MAX_AUTHORITY,
                    _ => usize::MAX,
                };
                if value.len() > most {
                    return Err(NoHeader("a value is too long"));
                }
                values.push((u16::from(kind), value.into()));
            }
        }
    }
    Ok(values)
}

/// The values in a part of a header.
struct Values<'h>(&'h [u8]);

impl<'h> Iterator for Values<'h> {
    type Item = Result<(u8, &'h [u8]), NoHeader>;

    fn next(&mut self) -> Option<Self::Item> {
        let (kind, rest) = self.0.split_first()?;
        let value = rest.split_first_chunk::<2>().and_then(|(length, rest)| {
            let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
            self.0 = rest;
            Some((*kind, value))
        });
        if value.is_none() {
            self.0 = &[];
        }
        Some(value.ok_or(NoHeader("a value goes beyond its end")))
    }
}

/// Returns whether a header has the checksum (CRC32c: RFC 9260, appendix A) that is its value at `at`: that of all its
/// bytes with zeros there.
fn has_checksum(header: &[u8], at: usize, value: &[u8]) -> bool {
    let Ok(expected) = <[u8; 4]>::try_from(value) else { return false };
    let (before, after) = (&header[..at], &header[at + 4..]);
    let checksum = [before, &[0; 4], after].into_iter().fold(0, crc32c::crc32c_append);
    checksum == u32::from_be_bytes(expected)
}

#[cfg(test)]
#[path = "proxy_header_tests.rs"]
mod tests;
