//! The `Cache-Control` of a result that is made of several responses (RFC 9111, section 5.2.2).

use http::header::{CACHE_CONTROL, HeaderMap, HeaderValue};

/// The strictest terms of several responses. One without `Cache-Control` says nothing, and changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CachingTerms {
    no_store: bool,
    no_cache: bool,
    must_revalidate: bool,
    is_private: bool,
    max_age: Option<u64>,
    shared_max_age: Option<u64>,
}

impl CachingTerms {
    /// Adds the terms of a response.
    pub fn add(&mut self, headers: &HeaderMap) {
        let values = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
        let (mut max_age, mut shared_max_age) = (None, None);
        for directive in values.flat_map(|value| value.split(',')) {
            let (name, argument) = directive.split_once('=').unwrap_or((directive, ""));
            // What cannot be read has no time left.
            let seconds = || Some(argument.trim().trim_matches('"').parse::<u64>().unwrap_or(0));
            match name.trim().to_ascii_lowercase().as_str() {
                "no-store" => self.no_store = true,
                "no-cache" => self.no_cache = true,
                "must-revalidate" | "proxy-revalidate" => self.must_revalidate = true,
                "private" => self.is_private = true,
                "max-age" => max_age = seconds(),
                "s-maxage" => shared_max_age = seconds(),
                _ => {}
            }
        }
        // For shared caches the time of a response without s-maxage is its max-age.
        let of_shared = [shared_max_age.or(max_age), self.shared_max_age.or(self.max_age)].into_iter().flatten().min();
        let has_shared = shared_max_age.is_some() || self.shared_max_age.is_some();
        self.max_age = [max_age, self.max_age].into_iter().flatten().min();
        self.shared_max_age = of_shared.filter(|_| has_shared);
    }

    /// Notes that the result is for one client alone.
    pub fn make_private(&mut self) {
        self.is_private = true;
    }

    /// Returns the value of the header, if there is anything to say.
    pub fn value(&self) -> Option<HeaderValue> {
        if self.no_store {
            return Some(HeaderValue::from_static("no-store"));
        }
        let mut parts: Vec<String> = Vec::new();
        let words =
            [("private", self.is_private), ("no-cache", self.no_cache), ("must-revalidate", self.must_revalidate)];
        parts.extend(words.into_iter().filter(|(_, is_set)| *is_set).map(|(word, _)| word.to_owned()));
        parts.extend(self.max_age.map(|seconds| format!("max-age={seconds}")));
        parts.extend(self.shared_max_age.filter(|_| !self.is_private).map(|seconds| format!("s-maxage={seconds}")));
        if parts.is_empty() { None } else { HeaderValue::try_from(parts.join(", ")).ok() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strictest_terms_hold() {
        for (all, wanted) in [
            (&["", ""][..], None),
            (&["max-age=60", "", "Max-Age=\"5\", public"], Some("max-age=5")),
            (&["max-age=60, s-maxage=600", "max-age=90"], Some("max-age=60, s-maxage=90")),
            (&["s-maxage=600", "max-age=90"], Some("max-age=90, s-maxage=90")),
            (&["max-age=60", "private", "no-cache"], Some("private, no-cache, max-age=60")),
            (&["max-age=x", "max-age=60"], Some("max-age=0")),
            (&["private", "no-store"], Some("no-store")),
        ] {
            let mut terms = CachingTerms::default();
            for one in all {
                let mut headers = HeaderMap::new();
                if !one.is_empty() {
                    headers.insert(CACHE_CONTROL, HeaderValue::from_static(one));
                }
                terms.add(&headers);
            }
            assert_eq!(terms.value().as_ref().and_then(|value| value.to_str().ok()), wanted, "{all:?}");
        }
    }
}
