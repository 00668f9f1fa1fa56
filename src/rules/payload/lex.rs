//! The strings and separators of JSON text (RFC 8259, sections 2 and 7), found a word at a time.

use std::borrow::Cow;

/// The bytes at which something may change outside of strings.
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

/// How many bytes there are before the next of [`STRUCTURAL`].
#[inline]
pub(super) fn plain(data: &[u8]) -> usize {
    data.iter().position(|byte| STRUCTURAL[usize::from(*byte)]).unwrap_or(data.len())
}

/// The comma or bracket behind the value that begins at `from`, if it is there and the value is no
/// deeper than `depth`. It finds what the levels would, for a value whose names do not matter.
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

/// Where a string's closing quote is; if it is not there, whether the next byte is an escaped one.
#[inline]
pub(super) fn string_end(inside: &[u8]) -> Result<usize, bool> {
    short_string_end(inside).map_or_else(|| long_string_end(inside), Ok)
}

/// Where the closing quote of a short string without escapes is. Most strings are, and looking at a few
/// words does for them what a search made for long texts does only after a start that costs more.
#[inline]
pub(super) fn short_string_end(inside: &[u8]) -> Option<usize> {
    for (at, word) in inside.as_chunks::<8>().0.iter().take(SHORT).enumerate() {
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

/// What a short string is, in words of eight bytes.
const SHORT: usize = 2;

const ONES: u64 = u64::MAX / 255;

/// The highest bit of each byte that is zero, and perhaps of bytes above it ("Bit Twiddling Hacks",
/// zero in word): the lowest of them is right.
#[inline]
fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & (ONES << 7)
}

/// The name with its escapes resolved; an escape that is none stays as it is.
pub(super) fn unescaped(raw: &[u8]) -> Cow<'_, [u8]> {
    if !raw.contains(&b'\\') {
        return Cow::Borrowed(raw);
    }
    let quoted = [b"\"", raw, b"\""].concat();
    serde_json::from_slice::<String>(&quoted).map_or(Cow::Borrowed(raw), |name| Cow::Owned(name.into_bytes()))
}

/// Returns the text as it may stand between two quotes, in ASCII alone, so that it is right in whatever superset of
/// ASCII the document is written.
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
