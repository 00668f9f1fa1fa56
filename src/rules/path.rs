//! Path normalisation: every path gets one form before it is used.
//!
//! Routes, filters and the target see the same form, so that no two of them can disagree about the requested resource
//! (RFC 3986, section 6.2.2; the order is that of section 5.2.4):
//!
//! * `%41` becomes `A`: escaped unreserved characters are decoded, other escapes are written in upper case;
//! * characters that a path must not contain, such as `"`, `<` or `^`, are escaped (RFC 3986, section 3.3);
//! * `//` becomes `/`, `/./` and `/%2e/` are removed, `/../` removes a segment;
//! * an encoded slash `%2F` is kept: it is data within a segment and never a separator;
//! * rejected: a path without a leading `/`, one that climbs above the root, a backslash (raw or `%5C`), control
//!   characters (raw or escaped, `%00` included), a broken escape.

use std::borrow::Cow;

/// The maximum length of a path in bytes; the query does not count.
pub const MAX_PATH: usize = 16 * 1024;

/// The reason for which a path is rejected. The text is fit for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadPath {
    /// The path does not start with `/`.
    NotAbsolute,
    /// `..` would leave the root.
    AboveRoot,
    /// A `%` without two hexadecimal digits behind it.
    BadEscape,
    /// A control character, raw or escaped.
    Control,
    /// A backslash, raw or escaped: some targets read it as a slash.
    Backslash,
    /// Over [`MAX_PATH`] bytes.
    TooLong,
}

impl BadPath {
    /// Returns the text for the client.
    pub fn text(self) -> &'static str {
        match self {
            Self::NotAbsolute => "the request target must start with a slash",
            Self::AboveRoot => "the path climbs above its root",
            Self::BadEscape => "the path has a percent sign without two hexadecimal digits",
            Self::Control => "the path has a control character",
            Self::Backslash => "the path has a backslash",
            Self::TooLong => "the path is over 16 KiB",
        }
    }
}

/// Normalises a path. A path in normal form is borrowed.
///
/// # Errors
/// When the path is rejected; see the module documentation.
pub fn normalise(path: &[u8]) -> Result<Cow<'_, str>, BadPath> {
    if path.first() != Some(&b'/') {
        return Err(BadPath::NotAbsolute);
    }
    if path.len() > MAX_PATH {
        return Err(BadPath::TooLong);
    }
    if is_plain(path)
        && let Ok(text) = std::str::from_utf8(path)
    {
        return Ok(Cow::Borrowed(text));
    }
    let unescaped = unescape(path)?;
    Ok(Cow::Owned(remove_dots(&unescaped)?))
}

/// Returns whether the path is in normal form: it has no escape, no special byte, no empty or dotted segment.
fn is_plain(path: &[u8]) -> bool {
    let mut previous = 0;
    for &byte in path {
        let dull = match byte {
            b'%' | b'\\' | b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}' | 0..=0x20 | 0x7f.. => false,
            b'/' | b'.' => previous != b'/',
            _ => true,
        };
        if !dull {
            return false;
        }
        previous = byte;
    }
    true
}

fn hex(byte: Option<&u8>) -> Result<u8, BadPath> {
    let digit = byte.and_then(|b| char::from(*b).to_digit(16));
    digit.map(|d| d as u8).ok_or(BadPath::BadEscape)
}

fn unescape(path: &[u8]) -> Result<String, BadPath> {
    let mut out = String::with_capacity(path.len() + 16);
    let mut at = 0;
    while let Some(&byte) = path.get(at) {
        at += 1;
        let (byte, escaped) = if byte == b'%' {
            let value = hex(path.get(at))? << 4 | hex(path.get(at + 1))?;
            at += 2;
            (value, true)
        } else {
            (byte, false)
        };
        match byte {
            0..=0x1f | 0x7f => return Err(BadPath::Control),
            b'\\' => return Err(BadPath::Backslash),
            b'-' | b'.' | b'_' | b'~' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => out.push(byte.into()),
            b' ' | b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}' | 0x80.. => push_escape(&mut out, byte),
            _ if escaped => push_escape(&mut out, byte),
            _ => out.push(byte.into()),
        }
    }
    Ok(out)
}

fn push_escape(out: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(DIGITS[usize::from(byte >> 4)].into());
    out.push(DIGITS[usize::from(byte & 15)].into());
}

fn remove_dots(path: &str) -> Result<String, BadPath> {
    let mut out = String::with_capacity(path.len());
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            ".." => {
                let parent = out.rfind('/').ok_or(BadPath::AboveRoot)?;
                out.truncate(parent);
                if last {
                    out.push('/');
                }
            }
            "" | "." if last => out.push('/'),
            "" | "." => {}
            _ => {
                out.push('/');
                out.push_str(segment);
            }
        }
    }
    if out.is_empty() {
        out.push('/');
    }
    Ok(out)
}

/// The parts of a path that a target may interpret in another way than the gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ambiguity {
    /// An encoded slash (`%2F`), or a `/`, `.`, `;` or backslash that is encoded more than once, such as `%252F`.
    pub encoded_slash: bool,
    /// Parameters of a segment (RFC 3986, section 3.3): `;x=1` or `%3B`.
    pub parameters: bool,
}

impl Ambiguity {
    /// Returns the ambiguities of a normalised path.
    pub fn of(path: &str) -> Self {
        let bytes = path.as_bytes();
        let mut found = Self::default();
        for at in memchr::memchr2_iter(b'%', b';', bytes) {
            match bytes[at] {
                b';' => found.parameters = true,
                _ => match (escaped(bytes, at + 1), repeatedly_escaped(bytes, at + 1)) {
                    (Some(b'/'), _) | (_, Some(b'/' | b'.' | b';' | b'\\')) => found.encoded_slash = true,
                    (Some(b';'), _) => found.parameters = true,
                    _ => {}
                },
            }
        }
        found
    }

    /// Returns whether `rules` reject a path with these ambiguities.
    pub fn is_rejected_by(self, rules: PathRules) -> bool {
        (self.encoded_slash && rules.reject_encoded_slash) || (self.parameters && rules.reject_parameters)
    }
}

/// The ambiguities for which a path is rejected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathRules {
    /// Rejects [`Ambiguity::encoded_slash`].
    pub reject_encoded_slash: bool,
    /// Rejects [`Ambiguity::parameters`].
    pub reject_parameters: bool,
}

/// Returns the octet that the two hexadecimal digits at this position encode.
fn escaped(bytes: &[u8], at: usize) -> Option<u8> {
    Some(hex(bytes.get(at)).ok()? << 4 | hex(bytes.get(at + 1)).ok()?)
}

/// Returns the octet that results from repeated decoding of an escape whose `%` is itself encoded.
fn repeatedly_escaped(bytes: &[u8], mut at: usize) -> Option<u8> {
    let mut times = 0;
    while bytes.get(at..at + 2) == Some(b"25") {
        (at, times) = (at + 2, times + 1);
    }
    if times == 0 { None } else { escaped(bytes, at) }
}

/// Returns whether a target that decodes `text` may find a dot segment in it.
pub fn hides_dot_segments(text: &str) -> bool {
    let mut plain = Vec::with_capacity(text.len());
    let (bytes, mut at) = (text.as_bytes(), 0);
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        if byte != b'%' {
            plain.push(byte);
            continue;
        }
        while bytes.get(at..at + 2) == Some(b"25") {
            at += 2;
        }
        plain.extend(escaped(bytes, at));
        at += 2;
    }
    // Some targets remove the parameters of a segment first.
    let name = |segment: &[u8]| segment.split(|b| *b == b';').next().map(<[u8]>::to_vec).unwrap_or_default();
    plain.split(|b| matches!(b, b'/' | b'\\')).any(|segment| matches!(name(segment).as_slice(), b"." | b".."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_a_target_may_read_otherwise() {
        let of = |path: &str| (Ambiguity::of(path).encoded_slash, Ambiguity::of(path).parameters);
        for path in ["/a", "/a%20b", "/a%25", "/a%2520b", "/a%2541", "/100%25", "/a%25zz"] {
            assert_eq!(of(path), (false, false), "{path}");
        }
        for path in ["/a%2Fb", "/a%252fb", "/a%252Fb", "/a%25252Fb", "/%252e%252e", "/a%253Bx", "/a%255cb"] {
            assert_eq!(of(path), (true, false), "{path}");
        }
        assert_eq!(of("/a;x=1"), (false, true));
        assert_eq!(of("/a%3Bx"), (false, true));
        assert_eq!(of("/a;x%2Fb"), (true, true));
        for hidden in [
            "..%2F..%2Fadmin",
            "..%2fadmin",
            "a%2F..",
            "..",
            ".",
            "%252e%252e%252fx",
            "..;x%2Fa",
            "a%5C..%5Cb",
            "%2E%2E%2F",
        ] {
            assert!(hides_dot_segments(hidden), "{hidden}");
        }
        for plain in ["a%2Fb", "a..b", "...", "a/b", "a%20", "%", "%2"] {
            assert!(!hides_dot_segments(plain), "{plain}");
        }
    }

    #[test]
    fn the_one_form() {
        for (given, wanted) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a//b", "/a/b"),
            ("/a/./b/", "/a/b/"),
            ("/a/b/..", "/a/"),
            ("/a/%2e%2E/b", "/b"),
            ("/%41%7e", "/A~"),
            ("/a%2fb", "/a%2Fb"),
            ("/a%2f..%2fb", "/a%2F..%2Fb"),
            ("/.well-known/x", "/.well-known/x"),
            ("/a/...", "/a/..."),
            ("//", "/"),
            ("/a b\u{e9}", "/a%20b%C3%A9"),
            ("/\"<>^`{|}", "/%22%3C%3E%5E%60%7B%7C%7D"),
            ("/%22%3c", "/%22%3C"),
        ] {
            assert_eq!(normalise(given.as_bytes()).as_deref(), Ok(wanted), "{given}");
        }
        for (given, why) in [
            ("a", BadPath::NotAbsolute),
            ("", BadPath::NotAbsolute),
            ("*", BadPath::NotAbsolute),
            ("/..", BadPath::AboveRoot),
            ("/a/../..", BadPath::AboveRoot),
            ("/%2e%2e/etc", BadPath::AboveRoot),
            ("/%0", BadPath::BadEscape),
            ("/%zz", BadPath::BadEscape),
            ("/%00", BadPath::Control),
            ("/a%0d%0a", BadPath::Control),
            ("/a\\b", BadPath::Backslash),
            ("/a%5cb", BadPath::Backslash),
        ] {
            assert_eq!(normalise(given.as_bytes()), Err(why), "{given}");
        }
        assert!(matches!(normalise(b"/dull/path.html"), Ok(Cow::Borrowed(_))));
    }

    proptest! {
        #[test]
        fn a_normal_form_is_its_own_and_holds_no_trick(path in "/([a-c./%]|%2e|%2f|%5c|%41){0,24}") {
            if let Ok(once) = normalise(path.as_bytes()) {
                let twice = normalise(once.as_bytes());
                prop_assert_eq!(twice.as_deref(), Ok(&*once));
                prop_assert!(!once.contains("//") && !once.split('/').any(|s| s == "." || s == ".."));
            }
        }

        #[test]
        fn never_panics(path in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = normalise(&path);
        }
    }
}
