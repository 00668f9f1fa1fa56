//! Tests of the PROXY protocol.

use proptest::prelude::*;

use super::*;

/// Writes a header of version 2 for a TCP connection.
fn written(from: SocketAddr, to: SocketAddr, values: &[(u8, Vec<u8>)], checksum: bool) -> Vec<u8> {
    let mut body = Vec::new();
    let family = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            body.extend([from.octets(), to.octets()].concat());
            0x11
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            body.extend([from.octets(), to.octets()].concat());
            0x21
        }
        _ => panic!("one family"),
    };
    body.extend(from.port().to_be_bytes());
    body.extend(to.port().to_be_bytes());
    if checksum {
        body.extend([CRC32C, 0, 4, 0, 0, 0, 0]);
    }
    for (kind, value) in values {
        body.push(*kind);
        body.extend((value.len() as u16).to_be_bytes());
        body.extend(value);
    }
    let mut header = SIGNATURE.to_vec();
    header.extend([0x21, family]);
    header.extend((body.len() as u16).to_be_bytes());
    let at = header.len() + if family == 0x11 { 12 } else { 36 } + 3;
    header.extend(body);
    if checksum {
        let sum = crc32c::crc32c(&header);
        header[at..at + 4].copy_from_slice(&sum.to_be_bytes());
    }
    header
}

fn line(text: &str) -> Result<ProxyHeader, NoHeader> {
    parse_proxy_header(text.as_bytes())
}

#[test]
fn lines_of_version_1() {
    let addresses = |from: &str, to: &str| Some((from.parse().expect("an address"), to.parse().expect("an address")));
    assert_eq!(
        line("PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n").expect("a header").addresses,
        addresses("192.0.2.1:56324", "198.51.100.2:443")
    );
    assert_eq!(
        line("PROXY TCP6 2001:db8::1 ::ffff:192.0.2.1 1 0\r\n").expect("a header").addresses,
        addresses("[2001:db8::1]:1", "[::ffff:192.0.2.1]:0")
    );
    for unknown in ["PROXY UNKNOWN\r\n", "PROXY UNKNOWN ffff:f...f 65535\r\n"] {
        assert_eq!(line(unknown), Ok(ProxyHeader::default()), "{unknown}");
    }
    for wrong in [
        "PROXY TCP4 192.0.2.1 198.51.100.2 56324\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 56324 443 1\r\n",
        "PROXY TCP4  192.0.2.1 198.51.100.2 56324 443\r\n",
        "PROXY TCP4 192.0.2.01 198.51.100.2 56324 443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 056324 443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 +1 443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 65536 443\r\n",
        "PROXY TCP4 2001:db8::1 198.51.100.2 1 443\r\n",
        "PROXY TCP6 192.0.2.1 198.51.100.2 1 443\r\n",
        "PROXY UNKNOWNX\r\n",
        "PROXY UDP4 192.0.2.1 198.51.100.2 1 443\r\n",
        "PROXY \r\n",
        "proxy TCP4 192.0.2.1 198.51.100.2 56324 443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2\r56324 443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\nGET",
        "GET / HTTP/1.1\r\n",
    ] {
        assert!(line(wrong).is_err(), "{wrong:?}");
    }
    let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(MAX_V1 - 16));
    assert_eq!(line(&longest), Ok(ProxyHeader::default()));
    for length in [MAX_V1 - 15, MAX_V1 - 14, 500] {
        assert!(header_length(format!("PROXY UNKNOWN {}\r\n", "x".repeat(length)).as_bytes()).is_err());
    }
}

#[test]
fn kinds_of_version_2() {
    let header = |command: u8, family: u8, rest: &[u8]| {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([command, family]);
        bytes.extend((rest.len() as u16).to_be_bytes());
        bytes.extend(rest);
        parse_proxy_header(&bytes)
    };
    let nothing = Ok(ProxyHeader::default());
    assert_eq!(header(0x20, 0x11, &[1; 12]), nothing);
    assert_eq!(header(0x20, 0xff, &[]), nothing);
    assert_eq!(header(0x21, 0x00, &[0xee, 0xff]), nothing);
    assert_eq!(header(0x21, 0x31, &[0; 216]), nothing);
    assert_eq!(header(0x21, 0x12, &[1; 12]), nothing);
    for unspecified in [0x01, 0x02, 0x10, 0x20, 0x30] {
        assert_eq!(header(0x21, unspecified, &[1; 3]), nothing);
    }
    for (command, family, rest) in [
        (0x11, 0x11, 12),
        (0x22, 0x11, 12),
        (0x21, 0x41, 12),
        (0x21, 0x13, 12),
        (0x21, 0x03, 0),
        (0x21, 0x11, 11),
        (0x21, 0x21, 35),
        (0x21, 0x11, 14),
    ] {
        assert!(header(command, family, &vec![1; rest]).is_err(), "{command} {family} {rest}");
    }
}

#[test]
fn values_within_that_about_tls() {
    let mut tls = vec![1, 0, 0, 0, 0];
    tls.extend(*b"\x21\x00\x07TLSv1.3\x22\x00\x03one\x28\x00\x02DR");
    let (from, to) = ("192.0.2.1:1".parse().expect("an address"), "192.0.2.2:2".parse().expect("an address"));
    let values = [(0x20, tls), (0x04, vec![0; 9]), (0xe0, b"x".to_vec())];
    let header = parse_proxy_header(&written(from, to, &values, true)).expect("a header");
    let found: Vec<(u16, &[u8])> = header.values.iter().map(|(kind, value)| (*kind, &**value)).collect();
    assert_eq!(found, [(0x20, &[1, 0, 0, 0, 0][..]), (0x2021, b"TLSv1.3"), (0x2022, b"one"), (0xe0, b"x")]);
    assert!(parse_proxy_header(&written(from, to, &[(0x20, vec![1, 0])], false)).is_err());
}

/// What a receiver makes of the bytes of a connection that has come to its end.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// The connection has the addresses of the header.
    Named,
    /// The header is skipped: the actual addresses are used.
    Skipped,
    /// The connection is closed.
    Closed,
}

fn outcome(bytes: &[u8]) -> Outcome {
    let Ok(HeaderStart::Length(length)) = header_length(bytes) else { return Outcome::Closed };
    // The payload begins right behind it.
    match bytes.get(..length).map(parse_proxy_header) {
        Some(Ok(ProxyHeader { addresses: Some(_), .. })) => Outcome::Named,
        Some(Ok(_)) => Outcome::Skipped,
        Some(Err(_)) | None => Outcome::Closed,
    }
}

/// Every MUST of the text for a receiver, as far as it is about a header: sections 2.1 and 2.2.
#[test]
fn a_receiver_does_what_it_must() {
    use Outcome::{Closed, Named, Skipped};
    let v2 = |start: [u8; 2], length: u16, rest: &[u8]| [&SIGNATURE[..], &start, &length.to_be_bytes(), rest].concat();
    let tcp4 = [192, 0, 2, 1, 192, 0, 2, 2, 0, 1, 0, 2];
    let with = |values: &[u8]| v2([0x21, 0x11], 12 + values.len() as u16, &[&tcp4[..], values].concat());
    let (from, to) = ("192.0.2.1:1".parse().expect("an address"), "192.0.2.2:2".parse().expect("an address"));
    let checked = written(from, to, &[(0xe0, b"x".to_vec())], true);
    let mut damaged = checked.clone();
    damaged[V2_START] ^= 1;
    let long_line = format!("PROXY UNKNOWN {}\r\n", "x".repeat(100));
    let cases: &[(&str, Vec<u8>, Outcome)] = &[
        ("a connection without a header is dropped", b"GET / HTTP/1.1\r\n\r\n".to_vec(), Closed),
        ("1: a line for TCP over IPv4", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nmore".to_vec(), Named),
        ("1: a line for TCP over IPv6", b"PROXY TCP6 ::1 ::2 1 2\r\n".to_vec(), Named),
        ("1: anything before the end of the line of UNKNOWN is ignored", b"PROXY UNKNOWN a b\r\n".to_vec(), Skipped),
        ("1: another protocol does not match exactly", b"PROXY TCP5 1.2.3.4 5.6.7.8 1 2\r\n".to_vec(), Closed),
        ("1: exactly one space", b"PROXY TCP4 1.2.3.4  5.6.7.8 1 2\r\n".to_vec(), Closed),
        ("1: the word is in upper case", b"Proxy TCP4 1.2.3.4 5.6.7.8 1 2\r\n".to_vec(), Closed),
        ("1: addresses have the form of their family", b"PROXY TCP4 ::1 ::2 1 2\r\n".to_vec(), Closed),
        ("1: addresses have no leading zeros", b"PROXY TCP4 01.2.3.4 5.6.7.8 1 2\r\n".to_vec(), Closed),
        ("1: ports have no leading zeros", b"PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n".to_vec(), Closed),
        ("1: ports are at most 65535", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n".to_vec(), Closed),
        ("1: both characters end the line", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n".to_vec(), Closed),
        ("1: none of them is within the line", b"PROXY UNKNOWN a\rb\r\n".to_vec(), Closed),
        ("1: a line has at most 107 characters", long_line.into_bytes(), Closed),
        ("1: a part of a line is none", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2".to_vec(), Closed),
        ("2: a header for TCP over IPv4", with(&[]), Named),
        ("2: only version 2 is accepted", v2([0x31, 0x11], 12, &tcp4), Closed),
        ("2: LOCAL has the actual addresses", v2([0x20, 0x11], 12, &tcp4), Skipped),
        ("2: the length of LOCAL is skipped", v2([0x20, 0], 3, b"abcmore"), Skipped),
        ("2: the family of LOCAL is ignored", v2([0x20, 0xff], 0, b""), Skipped),
        ("2: another command is dropped", v2([0x22, 0x11], 12, &tcp4), Closed),
        ("2: the addresses of no family are ignored", v2([0x21, 0], 5, b"abcde"), Skipped),
        ("2: an unknown family is rejected", v2([0x21, 0x41], 12, &tcp4), Closed),
        ("2: an unknown transport is rejected", v2([0x21, 0x13], 12, &tcp4), Closed),
        ("2: a socket of Unix has 216 octets", v2([0x21, 0x31], 216, &[0; 216]), Skipped),
        ("2: fewer are not enough", v2([0x21, 0x31], 215, &[0; 215]), Closed),
        ("2: fewer are not enough for IPv4", v2([0x21, 0x11], 11, &tcp4[..11]), Closed),
        ("2: a part of a header is none", v2([0x21, 0x11], 12, &tcp4[..11]), Closed),
        ("2: unknown values are skipped", with(b"\xe5\0\x01x\xf9\0\0"), Named),
        ("2: a value ends within the header", with(b"\x02\0\x02x"), Closed),
        ("2: a value has a length", with(b"\x02\0"), Closed),
        ("2: padding is ignored", with(b"\x04\0\x03xyz"), Named),
        ("2: an identity has up to 128 octets", with(&[&[5, 0, 128][..], &[1; 128]].concat()), Named),
        ("2: and no more", with(&[&[5, 0, 129][..], &[1; 129]].concat()), Closed),
        ("2: the value about TLS has five octets and more", with(b"\x20\0\x04\x01\0\0\0"), Closed),
        ("2: a correct checksum is accepted", checked, Named),
        ("2: a wrong one is an invalid connection", damaged, Closed),
        ("2: one of another length too", with(b"\x03\0\x02ab"), Closed),
    ];
    for (rule, bytes, expected) in cases {
        assert_eq!(outcome(bytes), *expected, "{rule}");
        // Nothing is decided before all of it has come.
        if *expected == Named {
            let Ok(HeaderStart::Length(length)) = header_length(bytes) else { panic!("a header") };
            for end in 0..length {
                assert!(matches!(header_length(&bytes[..end]), Ok(HeaderStart::Incomplete | HeaderStart::Length(_))));
                assert_eq!(outcome(&bytes[..end]), Closed, "{rule}");
            }
        }
    }
}

/// The corpus of the fuzz target: a name says whether the file is a header.
#[test]
fn the_corpus_is_parsed_as_its_names_say() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/proxy_header");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).expect("the corpus") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let parsed = parse_proxy_header(&std::fs::read(&path).expect("a file"));
        assert_eq!(parsed.is_ok(), name.starts_with("header"), "{name}: {parsed:?}");
        count += 1;
    }
    assert!(count >= 8);
}

fn addresses() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
    let v4 = any::<([u8; 4], [u8; 4])>().prop_map(|(a, b)| (IpAddr::from(a), IpAddr::from(b)));
    let v6 = any::<([u8; 16], [u8; 16])>().prop_map(|(a, b)| (IpAddr::from(a), IpAddr::from(b)));
    (prop_oneof![v4, v6], any::<(u16, u16)>())
        .prop_map(|((a, b), (from, to))| (SocketAddr::new(a, from), SocketAddr::new(b, to)))
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        (from, to) in addresses(),
        values in proptest::collection::vec((0xe0_u8..0xef, proptest::collection::vec(any::<u8>(), 0..40)), 0..4),
        checksum in any::<bool>(),
        cut in any::<prop::sample::Index>(),
        changed in any::<prop::sample::Index>(),
    ) {
        let bytes = written(from, to, &values, checksum);
        let read = parse_proxy_header(&bytes).expect("a header");
        prop_assert_eq!(read.addresses, Some((from, to)));
        let expected: Vec<(u16, Box<[u8]>)> = values.into_iter().map(|(k, v)| (u16::from(k), v.into())).collect();
        prop_assert_eq!(read.values, expected);
        // Whatever comes behind it is not looked at, and a part of it is incomplete.
        let more = [&bytes[..], b"\x16\x03\x01"].concat();
        prop_assert_eq!(header_length(&more), Ok(HeaderStart::Length(bytes.len())));
        let part = cut.index(V2_START);
        prop_assert_eq!(header_length(&bytes[..part]), Ok(HeaderStart::Incomplete));
        if checksum {
            let mut changed_bytes = bytes.clone();
            let at = V2_START + changed.index(bytes.len() - V2_START);
            changed_bytes[at] ^= 1;
            // The family of the values may change too, so that there is no checksum any more.
            if let Ok(read) = parse_proxy_header(&changed_bytes) {
                prop_assert!(!read.values.is_empty() || at >= V2_START + 12);
            }
        }
    }

    #[test]
    fn version_1_is_read_whole((from, to) in addresses(), cut in any::<prop::sample::Index>()) {
        let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
        let text = format!("PROXY {family} {} {} {} {}\r\n", from.ip(), to.ip(), from.port(), to.port());
        prop_assert_eq!(line(&text).expect("a header").addresses, Some((from, to)));
        prop_assert_eq!(header_length(&text.as_bytes()[..cut.index(text.len())]), Ok(HeaderStart::Incomplete));
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        v2 in any::<bool>(),
    ) {
        let bytes = if v2 { [&SIGNATURE[..], &[0x21, 0x11], &bytes].concat() } else { bytes };
        let _ = header_length(&bytes);
        let _ = parse_proxy_header(&bytes);
        let whole = [&SIGNATURE[..], &[0x21, 0x11], &(bytes.len() as u16).to_be_bytes(), &bytes].concat();
        let _ = parse_proxy_header(&whole);
    }
}
