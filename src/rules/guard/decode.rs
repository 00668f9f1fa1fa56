//! The form of a value in which attacks are looked for.

use std::borrow::Cow;

/// How often a value is decoded: once is what a target does, and once more is what hides from filters.
const MAX_DECODINGS: usize = 3;

/// Returns a value without its encodings: percent-encoding up to three times, `+` for a blank, `%u` and `\u` with
/// four digits of ASCII, HTML's numeric references of ASCII, without NUL, and each run of white space as one blank.
pub fn canonical(raw: &[u8]) -> Cow<'_, [u8]> {
    if !raw.iter().any(|byte| matches!(byte, b'%' | b'+' | b'&' | b'\\' | b'\0' | b'\t' | b'\r' | b'\n')) {
        return Cow::Borrowed(raw);
    }
    let mut value: Vec<u8> = raw.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    for _ in 0..MAX_DECODINGS {
        let decoded = decode(&value);
        if decoded == value {
            break;
        }
        value = decoded;
    }
    Cow::Owned(value)
}

fn hex(digits: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(digits).ok()?;
    text.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u32::from_str_radix(text, 16).ok()).flatten()
}

/// Returns the character at the beginning of `rest`, and the length of its encoding.
fn character(rest: &[u8]) -> Option<(u8, usize)> {
    let ascii = |code: u32| u8::try_from(code).ok().filter(u8::is_ascii);
    match rest {
        [b'%', b'u' | b'U', ..] | [b'\\', b'u', ..] => Some((ascii(hex(rest.get(2..6)?)?)?, 6)),
        // Of other octets, too: a target that reads UTF-8 joins them.
        [b'%', ..] => Some((u8::try_from(hex(rest.get(1..3)?)?).ok()?, 3)),
        [b'\\', b'x', ..] => Some((ascii(hex(rest.get(2..4)?)?)?, 4)),
        [b'&', b'#', ..] => {
            let is_hex = matches!(rest.get(2)?, b'x' | b'X');
            let begin = if is_hex { 3 } else { 2 };
            let digits = rest.get(begin..)?.iter().take(8).take_while(|byte| byte.is_ascii_hexdigit()).count();
            let text = rest.get(begin..begin + digits)?;
            let code = if is_hex { hex(text)? } else { std::str::from_utf8(text).ok()?.parse().ok()? };
            let end = begin + digits;
            Some((ascii(code)?, end + usize::from(rest.get(end) == Some(&b';'))))
        }
        _ => None,
    }
}

/// Decodes a value once.
fn decode(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    let mut at = 0;
    while let Some(byte) = value.get(at) {
        let (byte, length) = character(&value[at..]).unwrap_or((*byte, 1));
        at += length;
        match byte {
            b'\0' => {}
            b'\t' | b'\x0b' | b'\x0c' | b' ' if out.last() == Some(&b' ') => {}
            b'\t' | b'\x0b' | b'\x0c' => out.push(b' '),
            byte => out.push(byte),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn encodings_are_undone() {
        for (raw, wanted) in [
            ("plain", "plain"),
            ("a+b%20%20c", "a b c"),
            ("%2527", "'"),
            ("%u0027%U003c", "'<"),
            ("&#60;script&#x3E;", "<script>"),
            ("\\u003cscript\\x3e", "<script>"),
            ("un%00ion", "union"),
            ("a%0d%0aB: c", "a\r\nB: c"),
            ("100%", "100%"),
            ("%zz%4", "%zz%4"),
            ("AT&T &#; &#x;", "AT&T &#; &#x;"),
        ] {
            assert_eq!(String::from_utf8_lossy(&canonical(raw.as_bytes())), wanted, "{raw}");
        }
    }

    proptest! {
        #[test]
        fn any_value_is_decoded_without_growing(raw in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(canonical(&raw).len() <= raw.len());
        }
    }
}
