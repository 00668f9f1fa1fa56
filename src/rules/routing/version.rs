//! The version of an API that a request names: in its path, a header, its query, or a media type.

use std::borrow::Cow;

use ahash::AHashMap;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue};

use super::predicate::parameter;
use super::router::RequestFacts;

/// A place in which a request may name a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VersionSource {
    /// A header.
    Header(HeaderName),
    /// A query parameter.
    Query(String),
    /// A media type in `Accept` or `Content-Type`: the texts before and after the version, in lower case.
    MediaType(String, String),
    /// A parameter of a media type in `Accept` or `Content-Type`.
    MediaTypeParameter(String),
}

/// The versions of an API, and where requests name them.
#[derive(Debug, Default)]
pub struct ApiVersions {
    /// The places besides the path, of which the first that names a version counts.
    pub sources: Vec<VersionSource>,
    /// The version of requests that name none.
    pub default: Option<usize>,
    /// The versions by their names and aliases.
    pub names: AHashMap<Box<str>, usize>,
    /// The versions that are retired: they need no route.
    pub retired: Vec<usize>,
}

/// The version that a request names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamedVersion<'r> {
    /// This one.
    Known(usize),
    /// None, and there is no default.
    Missing,
    /// One that the API does not have.
    Unknown(Cow<'r, str>),
}

/// The versions of an API that a route is for.
#[derive(Clone, Debug)]
pub struct VersionRule {
    /// The API.
    pub api: std::sync::Arc<ApiVersions>,
    /// The place of the segment of the path that names the version, if one does.
    pub segment: Option<usize>,
    /// The versions of the route.
    pub accepted: Vec<usize>,
}

impl VersionRule {
    /// Returns the version that a request on this path names. The path comes first.
    pub fn named<'r>(&self, facts: &RequestFacts<'r>) -> NamedVersion<'r> {
        let Some(segment) = self.segment else { return self.api.named(facts) };
        // The first is what is before the first slash.
        let text = facts.path.split('/').nth(segment + 1).unwrap_or_default();
        self.api.of(text.into())
    }

    /// Returns whether no other route is to get a request that matches the route but for its version: the API is the
    /// one that is meant, and does not have the version. A path that names no version may be of another route.
    pub(super) fn is_final(&self, facts: &RequestFacts<'_>) -> bool {
        match self.named(facts) {
            NamedVersion::Known(version) => self.api.retired.contains(&version),
            NamedVersion::Missing | NamedVersion::Unknown(_) => self.segment.is_none(),
        }
    }

    /// Returns whether the request is for one of the versions of the route.
    pub(super) fn holds(&self, facts: &RequestFacts<'_>) -> bool {
        matches!(self.named(facts), NamedVersion::Known(version) if self.accepted.contains(&version))
    }

    /// Returns whether a request could be for versions of both.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        let is_same = std::sync::Arc::ptr_eq(&self.api, &other.api) && self.segment == other.segment;
        !is_same || self.accepted.iter().any(|version| other.accepted.contains(version))
    }
}

impl ApiVersions {
    fn of<'r>(&self, text: Cow<'r, str>) -> NamedVersion<'r> {
        match self.names.get(&*text) {
            Some(version) => NamedVersion::Known(*version),
            None => NamedVersion::Unknown(text),
        }
    }

    fn named<'r>(&self, facts: &RequestFacts<'r>) -> NamedVersion<'r> {
        let named = self.sources.iter().find_map(|source| source.read(facts));
        match (named, self.default) {
            (Some(text), _) => self.of(text),
            (None, Some(default)) => NamedVersion::Known(default),
            (None, None) => NamedVersion::Missing,
        }
    }
}

impl VersionSource {
    /// Returns the version that the request names there, if it names one.
    fn read<'r>(&self, facts: &RequestFacts<'r>) -> Option<Cow<'r, str>> {
        match self {
            Self::Header(name) => {
                let text = facts.headers.get(name)?.to_str().ok()?.trim();
                (!text.is_empty()).then_some(text.into())
            }
            Self::Query(name) => match parameter(facts.query, name)? {
                Cow::Borrowed(bytes) => Some(String::from_utf8_lossy(bytes)),
                Cow::Owned(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned().into()),
            },
            Self::MediaType(before, after) => media_types(facts).find_map(|member| {
                let media_type = member.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
                let version = media_type.strip_prefix(before.as_str())?.strip_suffix(after.as_str())?;
                (!version.is_empty()).then(|| version.to_owned().into())
            }),
            Self::MediaTypeParameter(name) => media_types(facts).find_map(|member| {
                member.split(';').skip(1).find_map(|pair| {
                    let (key, value) = pair.split_once('=')?;
                    key.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"').into())
                })
            }),
        }
    }
}

/// Returns the members of `Accept`, and then of `Content-Type`.
fn media_types<'r>(facts: &RequestFacts<'r>) -> impl Iterator<Item = &'r str> {
    let texts = |name| facts.headers.get_all(name).iter().filter_map(|value: &HeaderValue| value.to_str().ok());
    texts(ACCEPT).chain(texts(CONTENT_TYPE)).flat_map(|value| value.split(','))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    use http::{HeaderMap, Method};

    use super::*;

    fn rule(segment: Option<usize>) -> VersionRule {
        let sources = vec![
            VersionSource::Header(HeaderName::from_static("x-api-version")),
            VersionSource::Query("v".to_owned()),
            VersionSource::MediaType("application/vnd.example.".to_owned(), "+json".to_owned()),
            VersionSource::MediaTypeParameter("version".to_owned()),
        ];
        let names = [("v1", 0), ("v2", 1), ("latest", 1)].map(|(name, version)| (name.into(), version));
        let api = Arc::new(ApiVersions {
            sources,
            default: Some(0),
            names: names.into_iter().collect(),
            retired: Vec::new(),
        });
        VersionRule { api, segment, accepted: vec![1] }
    }

    fn named(rule: &VersionRule, target: &str, headers: &[(&'static str, &'static str)]) -> String {
        let map: HeaderMap = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let client = Ipv4Addr::LOCALHOST.into();
        let facts = RequestFacts { host: "", path, query, method: &Method::GET, headers: &map, client };
        match rule.named(&facts) {
            NamedVersion::Known(version) => format!("v{}", version + 1),
            NamedVersion::Missing => "missing".to_owned(),
            NamedVersion::Unknown(text) => format!("unknown {text}"),
        }
    }

    #[test]
    fn the_first_place_that_names_a_version_counts() {
        let by_header = rule(None);
        assert_eq!(named(&by_header, "/a", &[]), "v1", "the default");
        assert_eq!(named(&by_header, "/a?v=latest", &[]), "v2");
        assert_eq!(named(&by_header, "/a?v=%76%32", &[]), "v2");
        assert_eq!(named(&by_header, "/a?v=v1", &[("x-api-version", "v2")]), "v2");
        assert_eq!(named(&by_header, "/a?v=v9", &[]), "unknown v9");
        let accept = [("accept", "text/html, application/vnd.Example.v2+json;q=0.9")];
        assert_eq!(named(&by_header, "/a", &accept), "v2");
        assert_eq!(named(&by_header, "/a", &[("accept", "application/json; version=\"v2\"")]), "v2");
        assert_eq!(named(&by_header, "/a", &[("content-type", "application/json;version=v2")]), "v2");
        assert_eq!(named(&by_header, "/a", &[("accept", "application/vnd.other.v2+json")]), "v1");
    }

    #[test]
    fn the_path_comes_before_all() {
        let by_path = rule(Some(1));
        assert_eq!(named(&by_path, "/api/v2/users", &[("x-api-version", "v1")]), "v2");
        assert_eq!(named(&by_path, "/api/v3/users", &[("x-api-version", "v1")]), "unknown v3");
        assert_eq!(named(&by_path, "/api", &[]), "unknown ");
    }
}
