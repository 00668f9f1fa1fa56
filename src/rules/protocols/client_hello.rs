//! The first message of a TLS connection (`ClientHello`: RFC 8446, section 4.1.2; RFC 5246, section 7.4.1.2), as far as
//! a route is chosen by it: the requested server name and application protocols.
//!
//! The bytes may be those of a connection that is passed on without being decrypted. So nothing is judged that only
//! the end of the connection has to understand: versions, cipher suites, keys. A hello that is larger than a record,
//! or is cut into several, is put together.

use std::borrow::Cow;

/// The most bytes of a hello, with the headers of its records, that are looked at.
pub const MAX_HELLO: usize = 16 * 1024;

/// The length of the header of a record (RFC 8446, section 5.1).
const RECORD_HEADER: usize = 5;

/// The length of the header of a handshake message (section 4).
const MESSAGE_HEADER: usize = 4;

/// The type of a record with handshake messages.
const HANDSHAKE: u8 = 22;

/// The most bytes in a record.
const MAX_RECORD: usize = 1 << 14;

/// The type of the message.
const CLIENT_HELLO: u8 = 1;

/// The types of extensions (RFC 6066, section 3; RFC 7301, section 3.1).
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;

/// The most protocols of a hello that are kept.
const MAX_PROTOCOLS: usize = 32;

/// What a client requests in its hello.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHelloFacts {
    /// The server name in lower case, without a dot at its end.
    pub server_name: Option<String>,
    /// The application protocols in the client's order.
    pub alpn: Vec<Vec<u8>>,
}

/// What is known of the bytes at the start of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HelloStart {
    /// More bytes are needed.
    Incomplete,
    /// It is not TLS.
    NotTls,
    /// It is TLS, and its first message is no hello that can be read: why.
    Malformed(&'static str),
    /// The hello is complete.
    Hello(ClientHelloFacts),
}

/// Reads the hello at the start of the bytes that have come so far, whatever follows it.
pub fn read_client_hello(bytes: &[u8]) -> HelloStart {
    match collect_message(bytes) {
        Ok(Some(message)) => read_message(&message).map_or_else(HelloStart::Malformed, HelloStart::Hello),
        Ok(None) => HelloStart::Incomplete,
        Err(other) => other,
    }
}

/// Returns the first handshake message without its header; `None` where some of it has still to come.
fn collect_message(bytes: &[u8]) -> Result<Option<Cow<'_, [u8]>>, HelloStart> {
    let mut rest = bytes;
    let mut message: Cow<'_, [u8]> = Cow::Borrowed(&[]);
    loop {
        let is_first = rest.len() == bytes.len();
        let Some((part, behind)) = next_record(rest, is_first)? else {
            // The header of the message can be read before the end of its record.
            let begun = rest.get(RECORD_HEADER..).unwrap_or_default();
            let start = [&*message, &begun[..begun.len().min(MESSAGE_HEADER)]].concat();
            message_length(&start)?;
            return if bytes.len() >= MAX_HELLO { Err(HelloStart::Malformed("it is too long")) } else { Ok(None) };
        };
        if message.is_empty() {
            message = Cow::Borrowed(part);
        } else {
            message.to_mut().extend_from_slice(part);
        }
        if let Some(length) = message_length(&message)?
            && message.len() >= length
        {
            return Ok(Some(match message {
                Cow::Borrowed(message) => Cow::Borrowed(&message[MESSAGE_HEADER..length]),
                Cow::Owned(message) => Cow::Owned(message[MESSAGE_HEADER..length].to_vec()),
            }));
        }
        rest = behind;
    }
}

/// Returns the content of the record at the start of the bytes, and what follows it; `None` where it is incomplete.
/// Bytes that cannot be the header of a record are not TLS where they are the first, and malformed behind another.
fn next_record(bytes: &[u8], is_first: bool) -> Result<Option<(&[u8], &[u8])>, HelloStart> {
    let no_record =
        || if is_first { HelloStart::NotTls } else { HelloStart::Malformed("a record is not one of a handshake") };
    // The major version is that of SSL 3.0 and all of TLS; the minor one says nothing (RFC 8446, section 5.1).
    let is_sane = |at: usize, byte: u8| match at {
        0 => byte == HANDSHAKE,
        1 => byte == 3,
        2 => byte <= 4,
        _ => true,
    };
    let header = &bytes[..bytes.len().min(RECORD_HEADER)];
    if !header.iter().enumerate().all(|(at, byte)| is_sane(at, *byte)) {
        return Err(no_record());
    }
    let Some((header, rest)) = bytes.split_first_chunk::<RECORD_HEADER>() else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
    if length == 0 || length > MAX_RECORD {
        return Err(no_record());
    }
    Ok(rest.split_at_checked(length))
}

/// Returns the length of a message with its header, once its header is there.
fn message_length(message: &[u8]) -> Result<Option<usize>, HelloStart> {
    if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
        return Err(HelloStart::Malformed("the first message is not a ClientHello"));
    }
    let Some([_, high, middle, low]) = message.first_chunk::<MESSAGE_HEADER>() else { return Ok(None) };
    let length = MESSAGE_HEADER + u32::from_be_bytes([0, *high, *middle, *low]) as usize;
    if length > MAX_HELLO { Err(HelloStart::Malformed("it is too long")) } else { Ok(Some(length)) }
}

fn read_message(message: &[u8]) -> Result<ClientHelloFacts, &'static str> {
    let mut facts = ClientHelloFacts::default();
    // The version and the random number.
    let mut rest = Reader(message.get(34..).ok_or(TRUNCATED)?);
    rest.vector_8()?; // The session.
    rest.vector_16()?; // The cipher suites.
    rest.vector_8()?; // The compression methods.
    if rest.0.is_empty() {
        // Extensions are optional before TLS 1.3.
        return Ok(facts);
    }
    let mut extensions = Reader(rest.vector_16()?);
    let mut has_name = false;
    while !extensions.0.is_empty() {
        let (kind, content) = (extensions.number_16()?, extensions.vector_16()?);
        match kind {
            SERVER_NAME if std::mem::replace(&mut has_name, true) => return Err("it has two server names"),
            SERVER_NAME => facts.server_name = read_server_name(content)?,
            ALPN if !facts.alpn.is_empty() => return Err("it has two lists of protocols"),
            ALPN => facts.alpn = read_protocols(content)?,
            _ => {}
        }
    }
    Ok(facts)
}

/// Reads the host name of the extension, of which there is one (RFC 6066, section 3): of two, another server could take
/// the other one. It is ASCII without a dot at its end, and internationalised names are
/// A-labels (RFC 6066, section 3); a dot at the end is dropped nevertheless.
fn read_server_name(content: &[u8]) -> Result<Option<String>, &'static str> {
    let mut names = Reader(Reader(content).vector_16()?);
    let mut found = None;
    while !names.0.is_empty() {
        let (kind, name) = (names.number_8()?, names.vector_16()?);
        if kind != 0 {
            continue;
        }
        let name = name.strip_suffix(b".").unwrap_or(name);
        let is_host = !name.is_empty() && name.len() < 254 && name.iter().all(|byte| is_of_host(*byte));
        let text = std::str::from_utf8(name).ok().filter(|_| is_host).ok_or("its server name is no host name")?;
        if found.replace(text.to_ascii_lowercase()).is_some() {
            return Err("it has two server names");
        }
    }
    Ok(found)
}

/// Returns whether an octet may occur in a host name. Underscores and the colons of an IPv6 address are no part of one,
/// and do occur.
const fn is_of_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':')
}

fn read_protocols(content: &[u8]) -> Result<Vec<Vec<u8>>, &'static str> {
    let mut protocols = Reader(Reader(content).vector_16()?);
    let mut out = Vec::new();
    while !protocols.0.is_empty() {
        let protocol = protocols.vector_8()?;
        if protocol.is_empty() {
            return Err("it has a protocol without a name");
        }
        if out.len() < MAX_PROTOCOLS {
            out.push(protocol.to_vec());
        }
    }
    Ok(out)
}

const TRUNCATED: &str = "a part of it goes beyond its end";

/// The bytes that are still to be read.
struct Reader<'h>(&'h [u8]);

impl<'h> Reader<'h> {
    fn take(&mut self, count: usize) -> Result<&'h [u8], &'static str> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(TRUNCATED)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number_8(&mut self) -> Result<u8, &'static str> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn number_16(&mut self) -> Result<u16, &'static str> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// Takes a vector whose length is in one octet.
    fn vector_8(&mut self) -> Result<&'h [u8], &'static str> {
        let length = self.number_8()?;
        self.take(usize::from(length))
    }

    /// Takes a vector whose length is in two octets.
    fn vector_16(&mut self) -> Result<&'h [u8], &'static str> {
        let length = self.number_16()?;
        self.take(usize::from(length))
    }
}

#[cfg(test)]
#[path = "client_hello_tests.rs"]
mod tests;
