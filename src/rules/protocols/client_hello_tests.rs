//! Tests of the ClientHello.

use std::sync::Arc;

use proptest::prelude::*;
use rustls::ClientConnection;

use super::*;

/// Returns the hello of rustls for a name.
fn hello_of_rustls(name: &str, alpn: &[&str]) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let roots = rustls::RootCertStore::empty();
    let mut config = builder.expect("versions").with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let name = name.to_owned().try_into().expect("a name");
    let mut client = ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("written");
    hello
}

/// Returns a hello with those extensions.
fn hello(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut all = Vec::new();
    for (kind, content) in extensions {
        all.extend(kind.to_be_bytes());
        all.extend((content.len() as u16).to_be_bytes());
        all.extend(content);
    }
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 0x01, 1, 0]);
    body.extend((all.len() as u16).to_be_bytes());
    body.extend(all);
    let mut message = vec![CLIENT_HELLO];
    message.extend(&(body.len() as u32).to_be_bytes()[1..]);
    message.extend(body);
    message
}

/// Returns a message in records of at most that size.
fn in_records(message: &[u8], size: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for part in message.chunks(size) {
        out.extend([HANDSHAKE, 3, 1]);
        out.extend((part.len() as u16).to_be_bytes());
        out.extend(part);
    }
    out
}

fn name_extension(name: &[u8]) -> (u16, Vec<u8>) {
    let mut content = (name.len() as u16 + 3).to_be_bytes().to_vec();
    content.push(0);
    content.extend((name.len() as u16).to_be_bytes());
    content.extend(name);
    (SERVER_NAME, content)
}

fn alpn_extension(protocols: &[&str]) -> (u16, Vec<u8>) {
    let list: Vec<u8> = protocols.iter().flat_map(|p| [&[p.len() as u8], p.as_bytes()].concat()).collect();
    (ALPN, [&(list.len() as u16).to_be_bytes()[..], &list].concat())
}

fn facts(name: &str, alpn: &[&str]) -> HelloStart {
    let alpn = alpn.iter().map(|protocol| protocol.as_bytes().into()).collect();
    HelloStart::Hello(ClientHelloFacts { server_name: Some(name.into()), alpn })
}

/// The key of X25519MLKEM768 (group 0x11ec), which makes a hello larger than a segment.
fn post_quantum_key() -> (u16, Vec<u8>) {
    let mut content = (4_u16 + 1216).to_be_bytes().to_vec();
    content.extend([0x11, 0xec]);
    content.extend(1216_u16.to_be_bytes());
    content.extend([9; 1216]);
    (51, content)
}

#[test]
fn a_hello_of_rustls_is_read() {
    let hello = hello_of_rustls("Orders.DB.example.com", &["postgresql", "h2"]);
    assert_eq!(read_client_hello(&hello), facts("orders.db.example.com", &["postgresql", "h2"]));
    let HelloStart::Hello(facts) = read_client_hello(&hello_of_rustls("192.0.2.1", &[])) else { panic!("a hello") };
    assert_eq!(facts, ClientHelloFacts::default());
}

#[test]
fn a_hello_cut_at_every_byte_is_incomplete_before_its_end() {
    let padding = (21, vec![0; 700]);
    let large = hello(&[post_quantum_key(), padding, name_extension(b"a.test"), alpn_extension(&["h2"])]);
    assert!(large.len() > 1_460);
    for size in [usize::MAX >> 1, 1_000, 100, 7, 1] {
        let bytes = in_records(&large, size);
        for end in 0..bytes.len() {
            assert_eq!(read_client_hello(&bytes[..end]), HelloStart::Incomplete, "{size} {end}");
        }
        assert_eq!(read_client_hello(&bytes), facts("a.test", &["h2"]), "{size}");
    }
}

#[test]
fn other_protocols_are_known_by_their_first_bytes() {
    for other in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"\0\0\0\x08\x04\xd2\x16\x2f",
        b"S",
        b"\x16\x02",
        b"\x16\x03\x05",
        b"\x16\x03\x01\0\0",
        b"\x16\x03\x01\x40\x01",
        b"\x15\x03\x01\0\x02",
    ] {
        assert_eq!(read_client_hello(other), HelloStart::NotTls, "{other:?}");
    }
    assert_eq!(read_client_hello(b""), HelloStart::Incomplete);
    assert_eq!(read_client_hello(b"\x16"), HelloStart::Incomplete);
}

#[test]
fn what_is_wrong_within_tls_is_said_as_soon_as_it_is_known() {
    let wrong = |bytes: &[u8]| match read_client_hello(bytes) {
        HelloStart::Malformed(why) => why,
        other => panic!("{other:?}"),
    };
    // A ServerHello; a length beyond the limit; another record in between.
    assert_eq!(wrong(b"\x16\x03\x01\x10\0\x02"), "the first message is not a ClientHello");
    assert_eq!(wrong(b"\x16\x03\x01\x10\0\x01\0\x40\x01"), "it is too long");
    assert_eq!(wrong(b"\x16\x03\x01\0\x01\x01\x14\x03\x03\0\x01\x01"), "a record is not one of a handshake");
    let one = |extension| wrong(&in_records(&hello(&[extension]), 9_000));
    assert_eq!(one(name_extension(b"")), "its server name is no host name");
    assert_eq!(one(name_extension(b"a\0b")), "its server name is no host name");
    assert_eq!(one(name_extension("ä.test".as_bytes())), "its server name is no host name");
    assert_eq!(one((SERVER_NAME, vec![0, 9, 0])), TRUNCATED);
    assert_eq!(one((ALPN, vec![0, 1, 0])), "it has a protocol without a name");
    let two = hello(&[name_extension(b"a.test"), name_extension(b"b.test")]);
    assert_eq!(wrong(&in_records(&two, 9_000)), "it has two server names");
    // Records without end.
    let endless = in_records(&[&[CLIENT_HELLO, 0, 0x3f, 0xf0][..], &[0; 4_000]].concat(), 1);
    assert_eq!(wrong(&endless[..MAX_HELLO]), "it is too long");
}

#[test]
fn names_are_normalised_and_hellos_without_extensions_are_hellos() {
    let bytes = in_records(&hello(&[name_extension(b"A_b.Test.")]), 9_000);
    assert_eq!(read_client_hello(&bytes), facts("a_b.test", &[]));
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0, 5, 1, 0]);
    let message = [&[CLIENT_HELLO, 0, 0, body.len() as u8][..], &body].concat();
    assert_eq!(read_client_hello(&in_records(&message, 9_000)), HelloStart::Hello(ClientHelloFacts::default()));
}

/// Returns what rustls reads in a hello.
fn by_rustls(bytes: &[u8]) -> Option<(Option<String>, Vec<Vec<u8>>)> {
    let mut acceptor = rustls::server::Acceptor::default();
    acceptor.read_tls(&mut &*bytes).ok()?;
    let accepted = acceptor.accept().ok().flatten()?;
    let hello = accepted.client_hello();
    let alpn = hello.alpn().map(|all| all.map(<[u8]>::to_vec).collect()).unwrap_or_default();
    Some((hello.server_name().map(str::to_ascii_lowercase), alpn))
}

proptest! {
    #[test]
    fn rustls_reads_the_same(
        labels in proptest::collection::vec("[a-zA-Z0-9]{1,12}", 1..4),
        alpn in proptest::collection::vec("[a-z0-9/.]{1,12}", 0..4),
        size in 1_usize..600,
        changed in proptest::option::of((any::<prop::sample::Index>(), any::<u8>())),
    ) {
        let name = format!("{}.test", labels.join("."));
        let alpn: Vec<&str> = alpn.iter().map(String::as_str).collect();
        let mut bytes = hello_of_rustls(&name, &alpn);
        if let Some((at, value)) = changed {
            let at = RECORD_HEADER + at.index(bytes.len() - RECORD_HEADER);
            bytes[at] = value;
        }
        let bytes = in_records(&bytes[RECORD_HEADER..], size);
        let own = read_client_hello(&bytes);
        if changed.is_none() {
            prop_assert_eq!(&own, &facts(&name.to_ascii_lowercase(), &alpn));
        }
        // What rustls accepts is read here, and in the same way.
        if let Some((name, alpn)) = by_rustls(&bytes) {
            let HelloStart::Hello(facts) = own else { return Err(TestCaseError::fail(format!("{own:?}"))) };
            prop_assert_eq!(facts.server_name.as_deref(), name.as_deref());
            prop_assert_eq!(facts.alpn, alpn);
        }
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
        start in 0_usize..4,
    ) {
        let start: &[u8] = match start {
            0 => b"",
            1 => b"\x16\x03\x01",
            2 => b"\x16\x03\x01\0\x80\x01\0\0\x40",
            _ => b"\x16\x03\x03\x01\x80\x01\0\x01\x40\x03\x03",
        };
        let bytes = [start, &bytes].concat();
        let _ = read_client_hello(&bytes);
        let _ = read_client_hello(&in_records(&bytes, 50));
    }
}
