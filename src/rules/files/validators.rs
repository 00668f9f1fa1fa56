//! The validators of a representation (RFC 9110, section 8.8).

use http::HeaderValue;

use super::date::format_date;
use crate::rules::payload::Coding;

/// Modification times up to this one, in seconds since 1970, stand for none: package managers and image builders set 0
/// or 1 on every file, whatever it holds.
const LAST_UNSET: i64 = 1;

/// The validators of a representation of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validators {
    /// The entity tag, strong, from the time of the last modification and the size.
    pub etag: Option<HeaderValue>,
    /// When the file was modified, in seconds since 1970.
    pub modified: Option<i64>,
}

impl Validators {
    /// Returns the validators of a file of that size, modified at that second and nanosecond, in a content coding.
    /// Representations in other codings have other tags (RFC 9110, section 8.8.3.3). A time in the future, after
    /// `now`, is no `Last-Modified` (section 8.8.2.1).
    pub fn new((seconds, nanoseconds): (i64, i64), size: u64, coding: Option<Coding>, now: i64) -> Self {
        if seconds <= LAST_UNSET {
            return Self::default();
        }
        let suffix = coding.map(|coding| format!("-{}", coding.name())).unwrap_or_default();
        let etag = HeaderValue::try_from(format!("\"{seconds:x}.{nanoseconds:x}-{size:x}{suffix}\"")).ok();
        Self { etag, modified: Some(seconds).filter(|seconds| *seconds <= now) }
    }

    /// Returns the value of `Last-Modified`.
    pub fn last_modified(&self) -> Option<HeaderValue> {
        HeaderValue::try_from(format_date(self.modified?)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_representation_has_a_tag_of_its_own() {
        let of = |time, size, coding| Validators::new(time, size, coding, 1_000);
        let tags: std::collections::HashSet<_> = [
            of((100, 0), 10, None),
            of((100, 1), 10, None),
            of((100, 0), 11, None),
            of((101, 0), 10, None),
            of((100, 0), 10, Some(Coding::Br)),
            of((100, 0), 10, Some(Coding::Gzip)),
        ]
        .into_iter()
        .map(|v| v.etag.expect("a tag"))
        .collect();
        assert_eq!(tags.len(), 6);
        assert_eq!(of((100, 0), 10, None).last_modified().unwrap(), "Thu, 01 Jan 1970 00:01:40 GMT");
        assert_eq!(of((2_000, 0), 10, None).last_modified(), None, "it is in the future");
        for unset in [0, 1, -5] {
            assert_eq!(of((unset, 0), 10, None), Validators::default());
        }
    }
}
