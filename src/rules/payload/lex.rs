//! A scanner for strings and separators of JSON text (RFC 8259, sections 2 and 7) that works a word at a time.

use std::borrow::Cow;

/// The bytes that have a meaning outside of strings.
const STRUCTURAL: [bool; 256] = {
    let mut table = [false; 256];
    let bytes = b"\"{}[],:";
    let mut at = 0;
    while at < bytes.len() {
        table[bytes[at] as usize] = true;
        at += 1;
    }
    table
};

/// Returns the number of bytes before the next of [`STRUCTURAL`].
#[inline]
pub(super) fn plain(data: &[u8]) -> usize {
    data.iter().position(|byte| STRUCTURAL[usize::from(*byte)]).unwrap_or(data.len())
}

/// Returns the position of the comma or bracket behind the value that begins at `from`, if it is there and the value
/// is nested no deeper than `depth`. The result is that of the full scan, for a value whose names do not matter.
///
/// Inlined, because most values are so short that a call would be a good part of the work.
#[inline(always)]
pub(super) fn value_end(data: &[u8], from: usize, depth: usize) -> Option<usize> {
    let mut open = 0;
    let mut place = from;
    loop {
        place += plain(data.get(place..)?);
        match data.get(place)? {
            b'"' => place += string_end(&data[place + 1..]).ok()? + 1,
            b'{' | b'[' if open == depth => return None,
            b'{' | b'[' => open += 1,
            b'}' | b']' | b',' if open == 0 => return Some(place),
            b'}' | b']' => open -= 1,
            _ => {}
        }
        place += 1;
    }
}

/// Returns the position of a string's closing quote, or whether the next byte is escaped if the quote is not there.
#[inline]
pub fn string_end(inside: &[u8]) -> Result<usize, bool> {
    short_string_end(inside).map_or_else(|| long_string_end(inside), Ok)
}

/// Returns the position of the closing quote of a short string without escapes. Most strings are short, and for them
/// a few words are compared faster than a search for long texts starts.
#[inline]
pub(super) fn short_string_end(inside: &[u8]) -> Option<usize> {
    for (at, word) in inside.as_chunks::<8>().0.iter().take(SHORT_WORDS).enumerate() {
        let word = u64::from_le_bytes(*word);
        let quotes = zero_bytes(word ^ (ONES * b'"' as u64));
        let hits = quotes | zero_bytes(word ^ (ONES * b'\\' as u64));
        if hits != 0 {
            let first = hits.trailing_zeros();
            return (quotes >> first & 1 == 1).then_some(at * 8 + first as usize / 8);
        }
    }
    None
}

#[inline(never)]
fn long_string_end(inside: &[u8]) -> Result<usize, bool> {
    let mut from = 0;
    loop {
        let rest = inside.get(from..).ok_or(true)?;
        let at = from + memchr::memchr2(b'"', b'\\', rest).ok_or(false)?;
        if inside[at] == b'"' {
            return Ok(at);
        }
        from = at + 2;
    }
}

/// The maximum length of a short string, in words of eight bytes.
const SHORT_WORDS: usize = 2;

const ONES: u64 = u64::MAX / 255;

/// Returns the highest bit of each byte that is zero, and perhaps of bytes above it ("Bit Twiddling Hacks", zero in
/// word): the lowest of them is right.
#[inline]
fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & (ONES << 7)
}

/// Returns the name with its escapes decoded; a malformed escape is kept.
pub(super) fn unescaped(raw: &[u8]) -> Cow<'_, [u8]> {
    if !raw.contains(&b'\\') {
        return Cow::Borrowed(raw);
    }
    let quoted = [b"\"", raw, b"\""].concat();
    serde_json::from_slice::<String>(&quoted).map_or(Cow::Borrowed(raw), |name| Cow::Owned(name.into_bytes()))
}

/// Returns the text as it stands between two quotes, in ASCII alone, so that it is valid in any superset of ASCII.
pub(super) fn escaped(text: &str) -> Vec<u8> {
    let mut out = String::with_capacity(text.len());
    for unit in text.encode_utf16() {
        match u8::try_from(unit) {
            Ok(byte @ (b'"' | b'\\')) => out.extend(['\\', char::from(byte)]),
            Ok(byte) if byte == b' ' || byte.is_ascii_graphic() => out.push(char::from(byte)),
            _ => out.push_str(&format!("\\u{unit:04x}")),
        }
    }
    out.into_bytes()
}
