//! The name of a file below a root, from the path of a request.

use std::fmt;

/// The folder of RFC 8615, which is the only name with a leading dot that is served.
const WELL_KNOWN: &[u8] = b".well-known";

/// The most bytes of a segment that a file system accepts.
const MAX_SEGMENT: usize = 255;

/// The name of a file below a root. None of its segments is empty, begins with a dot (but for `.well-known` at the
/// root) or has a slash, a backslash or a control character.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileName {
    /// The segments, joined with slashes, without a leading one; empty for the root.
    bytes: Vec<u8>,
    /// Whether the path ends with a slash: it names a folder.
    is_folder: bool,
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.bytes))?;
        f.write_str(if self.is_folder && !self.bytes.is_empty() { "/" } else { "" })
    }
}

impl FileName {
    /// Returns the name in a normalised path (see [`crate::rules::path`]), percent-decoded; `None` where the path
    /// names nothing that is served. An empty path is the root without its slash.
    pub fn of_path(path: &str) -> Option<Self> {
        let (inner, is_folder) = match path.strip_prefix('/') {
            Some("") => ("", true),
            Some("/") => return None,
            Some(path) => path.strip_suffix('/').map_or((path, false), |inner| (inner, true)),
            None if path.is_empty() => ("", false),
            None => return None,
        };
        let mut bytes = Vec::with_capacity(inner.len() + 16);
        for (index, segment) in inner.split('/').enumerate().filter(|_| !inner.is_empty()) {
            if index > 0 {
                bytes.push(b'/');
            }
            let start = bytes.len();
            bytes.extend(percent_encoding::percent_decode_str(segment));
            if !is_served(&bytes[start..], index == 0) {
                return None;
            }
        }
        Some(Self { bytes, is_folder })
    }

    /// Returns the name as the file system knows it, relative to the root.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns whether the path ends with a slash: it names a folder.
    pub fn is_folder(&self) -> bool {
        self.is_folder
    }

    /// Returns the name of a file in the folder that this names.
    pub fn join(&self, file: &str) -> Vec<u8> {
        let slash: &[u8] = if self.bytes.is_empty() { b"" } else { b"/" };
        [&self.bytes, slash, file.as_bytes()].concat()
    }
}

/// Returns whether a file or folder of that name is served.
fn is_served(segment: &[u8], first: bool) -> bool {
    let plain = |byte: &u8| !matches!(byte, b'/' | b'\\' | 0..=0x1f | 0x7f);
    let hidden = segment.first() == Some(&b'.') && !(first && segment == WELL_KNOWN);
    !segment.is_empty() && segment.len() <= MAX_SEGMENT && !hidden && segment.iter().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::path::normalise;
    use proptest::prelude::*;

    #[test]
    fn names_of_files_and_folders() {
        for (path, bytes, is_folder) in [
            ("/", &b""[..], true),
            ("", b"", false),
            ("/a", b"a", false),
            ("/a/", b"a", true),
            ("/a/b.html", b"a/b.html", false),
            ("/a%20b/c%25", b"a b/c%", false),
            ("/%C3%A9", "\u{e9}".as_bytes(), false),
            ("/%FF", b"\xff", false),
            ("/.well-known/security.txt", b".well-known/security.txt", false),
            ("/a..b/c.", b"a..b/c.", false),
            ("/%252e%252e", b"%2e%2e", false),
        ] {
            let name = FileName::of_path(path).unwrap_or_else(|| panic!("{path}"));
            assert_eq!((name.as_bytes(), name.is_folder()), (bytes, is_folder), "{path}");
        }
        for path in [
            "a",
            "//",
            "/a//b",
            "/.git/config",
            "/a/.env",
            "/..",
            "/a/../b",
            "/.",
            "/a/.well-known",
            "/.well-known2",
            "/a%2Fb",
            "/..%2F..%2Fetc",
            "/a%5Cb",
            "/a%00",
            "/a%0A",
        ] {
            assert_eq!(FileName::of_path(path), None, "{path}");
        }
        assert_eq!(FileName::of_path(&format!("/{}", "a".repeat(256))), None);
    }

    proptest! {
        #[test]
        fn no_name_leads_out_of_its_folder(path in "/([a-c./%]|%2e|%2f|%5c|%00|%25){0,24}") {
            let normal = normalise(path.as_bytes());
            for path in [Some(path.as_str()), normal.as_deref().ok()].into_iter().flatten() {
                let Some(name) = FileName::of_path(path) else { continue };
                let mut segments = name.as_bytes().split(|b| *b == b'/');
                prop_assert!(name.as_bytes().is_empty() || segments.all(|s| !s.is_empty() && s[0] != b'.'));
                prop_assert!(!name.as_bytes().contains(&0) && !name.as_bytes().contains(&b'\\'));
            }
        }
    }
}
