//! A strict parser of the chunked transfer coding (RFC 9112, section 7.1).
//!
//! A chunk line is `1*HEXDIG *( ";" token [ "=" ( token / quoted-string ) ] ) CRLF`. Pingora's parser accepts any
//! octet in an extension, a bare LF included, which another proxy takes for the end of the line: half of a
//! request-smuggling pair. This parser only tracks the framing; it neither copies nor decodes.

use super::{is_text, is_token};

/// The maximum length of a chunk line, with its extensions.
const MAX_LINE: u32 = 4 * 1024;

/// The error for chunked framing that violates the RFC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkError;

impl ChunkError {
    /// Returns the text for the client.
    pub fn text(self) -> &'static str {
        "the chunked framing of the body is malformed"
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ChunkState {
    #[default]
    SizeBegin,
    Size,
    NameBegin,
    Name,
    ValueBegin,
    Value,
    Quoted,
    QuotedPair,
    QuotedEnd,
    LineFeed,
    Data,
    DataReturn,
    DataFeed,
    TrailerBegin,
    TrailerName,
    TrailerValue,
    TrailerFeed,
    LastFeed,
    Done,
}

/// Tracks the chunks of one body over any number of parts.
#[derive(Clone, Debug, Default)]
pub struct Chunks {
    state: ChunkState,
    /// The size of the current chunk, or the rest of it.
    size: u64,
    /// The octets of the current line.
    line: u32,
}

impl Chunks {
    /// Returns whether the last octet of the body has been seen.
    pub fn is_done(&self) -> bool {
        self.state == ChunkState::Done
    }

    /// Processes the next octets, and returns how many of them belong to the body: fewer than there are only where it
    /// ends.
    ///
    /// # Errors
    /// When the framing is malformed. Nothing may be processed after that.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<usize, ChunkError> {
        let mut at = 0;
        while at < bytes.len() && self.state != ChunkState::Done {
            if self.state == ChunkState::Data {
                let left = usize::try_from(self.size).unwrap_or(usize::MAX);
                let taken = left.min(bytes.len() - at);
                at += taken;
                self.size -= taken as u64;
                if self.size == 0 {
                    self.state = ChunkState::DataReturn;
                }
                continue;
            }
            self.state = self.next(bytes[at])?;
            at += 1;
        }
        Ok(at)
    }

    fn next(&mut self, byte: u8) -> Result<ChunkState, ChunkError> {
        use ChunkState as S;
        self.line += 1;
        if self.line > MAX_LINE && self.state < S::Data {
            return Err(ChunkError);
        }
        Ok(match (self.state, byte) {
            (S::SizeBegin | S::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = char::from(byte).to_digit(16).map_or(0, u64::from);
                self.size = self.size.checked_mul(16).ok_or(ChunkError)? + digit;
                S::Size
            }
            (S::Size | S::Name | S::Value | S::QuotedEnd, b';') => S::NameBegin,
            (S::Size | S::Name | S::Value | S::QuotedEnd, b'\r') => S::LineFeed,
            (S::Name, b'=') => S::ValueBegin,
            (S::ValueBegin, b'"') => S::Quoted,
            (S::NameBegin | S::Name, byte) if is_token(byte) => S::Name,
            (S::ValueBegin | S::Value, byte) if is_token(byte) => S::Value,
            (S::Quoted, b'"') => S::QuotedEnd,
            (S::Quoted, b'\\') => S::QuotedPair,
            (S::Quoted | S::QuotedPair, byte) if is_text(byte) => S::Quoted,
            (S::LineFeed, b'\n') if self.size == 0 => S::TrailerBegin,
            (S::LineFeed, b'\n') => S::Data,
            (S::DataReturn, b'\r') => S::DataFeed,
            (S::DataFeed, b'\n') => {
                self.line = 0;
                S::SizeBegin
            }
            (S::TrailerBegin, b'\r') => S::LastFeed,
            (S::TrailerName, b':') => S::TrailerValue,
            (S::TrailerBegin | S::TrailerName, byte) if is_token(byte) => S::TrailerName,
            (S::TrailerValue, b'\r') => S::TrailerFeed,
            (S::TrailerValue, byte) if is_text(byte) => S::TrailerValue,
            (S::TrailerFeed, b'\n') => S::TrailerBegin,
            (S::LastFeed, b'\n') => S::Done,
            _ => return Err(ChunkError),
        })
    }
}

impl PartialOrd for ChunkState {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        (*self as u8).partial_cmp(&(*other as u8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The way in which a body ends.
    #[derive(Debug, PartialEq, Eq)]
    enum End {
        Done(usize),
        Open,
        Bad,
    }

    fn machine(bytes: &[u8], cut: usize) -> End {
        let mut chunks = Chunks::default();
        let (first, second) = bytes.split_at(cut.min(bytes.len()));
        let mut taken = 0;
        for part in [first, second] {
            match chunks.feed(part) {
                Ok(count) => taken += count,
                Err(ChunkError) => return End::Bad,
            }
        }
        if chunks.is_done() { End::Done(taken) } else { End::Open }
    }

    fn line_of(bytes: &[u8]) -> Result<Option<(&[u8], usize)>, ()> {
        match bytes.windows(2).position(|w| w == b"\r\n") {
            Some(end) if !bytes[..end].contains(&b'\n') => Ok(Some((&bytes[..end], end + 2))),
            None if !bytes.contains(&b'\n') => Ok(None),
            _ => Err(()),
        }
    }

    fn extension_is_fine(text: &[u8]) -> bool {
        let token = |t: &[u8]| !t.is_empty() && t.iter().all(|b| is_token(*b));
        match text.iter().position(|b| *b == b'=') {
            None => token(text),
            Some(at) => {
                let (name, value) = (&text[..at], &text[at + 1..]);
                let quoted = value.len() >= 2 && value[0] == b'"' && value[value.len() - 1] == b'"' && {
                    let (mut inner, mut fine) = (value[1..value.len() - 1].iter(), true);
                    while let Some(byte) = inner.next() {
                        fine &= match byte {
                            b'"' => false,
                            b'\\' => inner.next().is_some_and(|b| is_text(*b)),
                            byte => is_text(*byte),
                        };
                    }
                    fine
                };
                token(name) && (token(value) || quoted)
            }
        }
    }

    /// Splits a chunk line at the semicolons that are not within quotes.
    fn fields(line: &[u8]) -> Vec<Vec<u8>> {
        let (mut fields, mut quoted, mut escaped) = (vec![Vec::new()], false, false);
        for &byte in line {
            match byte {
                b';' if !quoted => fields.push(Vec::new()),
                _ => {
                    (quoted, escaped) = match byte {
                        _ if escaped => (quoted, false),
                        b'\\' if quoted => (true, true),
                        b'"' => (!quoted, false),
                        _ => (quoted, false),
                    };
                    fields.last_mut().expect("one").push(byte);
                }
            }
        }
        fields
    }

    /// Does the same by splitting whole lines.
    fn model(bytes: &[u8]) -> End {
        let mut at = 0;
        loop {
            let Ok(line) = line_of(&bytes[at..]) else { return End::Bad };
            let Some((line, length)) = line else { return End::Open };
            let fields = fields(line);
            let digits = !fields[0].is_empty() && fields[0].iter().all(u8::is_ascii_hexdigit);
            if !digits || !fields[1..].iter().all(|f| extension_is_fine(f)) {
                return End::Bad;
            }
            let size = usize::from_str_radix(std::str::from_utf8(&fields[0]).expect("digits"), 16).expect("short");
            at += length;
            if size == 0 {
                break;
            }
            if bytes.len() < at + size + 2 {
                return End::Open;
            }
            if &bytes[at + size..at + size + 2] != b"\r\n" {
                return End::Bad;
            }
            at += size + 2;
        }
        loop {
            let Ok(line) = line_of(&bytes[at..]) else { return End::Bad };
            let Some((line, length)) = line else { return End::Open };
            at += length;
            if line.is_empty() {
                return End::Done(at);
            }
            let Some(colon) = line.iter().position(|b| *b == b':') else { return End::Bad };
            let fine = colon > 0
                && line[..colon].iter().all(|b| is_token(*b))
                && line[colon + 1..].iter().all(|b| is_text(*b));
            if !fine {
                return End::Bad;
            }
        }
    }

    #[test]
    fn the_grammar() {
        for fine in [
            "0\r\n\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
            "00005;a\r\nhello\r\n000\r\n\r\n",
            "A;a=b;c=\"d;\\\" e\";f\r\n0123456789\r\n0;x\r\nTrailer: v\r\nx:\r\n\r\n",
        ] {
            let more = format!("{fine}GET / HTTP/1.1\r\n");
            assert_eq!(machine(more.as_bytes(), 0), End::Done(fine.len()), "{fine}");
        }
        for bad in [
            "5;\r\n",
            "5;\nhello",
            "5\nhello",
            "5 \r\n",
            " 5\r\n",
            "5;a \r\n",
            "5; a\r\n",
            "5;a=\r\n",
            "5;=b\r\n",
            "5;a=b=c\r\n",
            "5;a\0\r\n",
            "5;a=\"\n\"\r\n",
            "5;a\rb",
            "0x5\r\n",
            "+5\r\n",
            "-5\r\n",
            "\r\n",
            ";a\r\n",
            "5\r\nhelloX",
            "5\r\nhello\n",
            "5\r\r",
            "g\r\n",
            "0\r\nX y\r\n",
            "0\r\n: y\r\n",
            "0\r\n x: y\r\n",
            "0\r\nx: y\n",
            "0\r\nx: \0",
            "0\r\n\n",
            "10000000000000000\r\n",
            "5;a=\"b\"c\r\n",
        ] {
            assert_eq!(machine(bad.as_bytes(), 0), End::Bad, "{bad:?}");
        }
        let long = format!("5;{}\r\n", "a".repeat(5000));
        assert_eq!(machine(long.as_bytes(), 7), End::Bad);
    }

    proptest! {
        #[test]
        fn agrees_with_the_model(
            text in "(5|0|2|;|a|=|\"|\\\\| |:|\r|\n|\r\n|0\r\n|\r\n\r\n|2\r\nab\r\n|;a=b|;a=\"b\"){0,12}",
            cut in 0_usize..40,
        ) {
            let bytes = text.as_bytes();
            match (machine(bytes, cut), model(bytes)) {
                // The parser rejects a line as soon as it cannot become valid, before it is complete.
                (End::Bad, End::Open) => {}
                (seen, wanted) => prop_assert_eq!(seen, wanted, "{:?}", text),
            }
            prop_assert_eq!(machine(bytes, cut), machine(bytes, 0));
        }

        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64), cut in 0_usize..64) {
            let _ = machine(&bytes, cut);
        }
    }
}
