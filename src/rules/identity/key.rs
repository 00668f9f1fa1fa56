//! The key that groups requests: an address, a consumer, a header …

use std::net::IpAddr;

use http::HeaderName;

use crate::rules::balance::hash_key;
use crate::rules::routing::{RequestFacts, cookie, parameter};

/// A part of a request that serves as a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RequestKey {
    /// The client's address.
    Address,
    /// The consumer.
    Consumer,
    /// The path.
    Path,
    /// A header's first value.
    Header(HeaderName),
    /// A cookie's value.
    Cookie(String),
    /// A query parameter's value, decoded.
    Query(String),
}

impl RequestKey {
    /// Returns the hash of the request's key, or `None` when it has none.
    pub fn hash(&self, request: &RequestFacts<'_>, consumer: Option<&str>) -> Option<u64> {
        match self {
            Self::Address => self.hash_address(request.client),
            Self::Consumer => consumer.map(|c| hash_key(c.as_bytes())),
            Self::Path => Some(hash_key(request.path.as_bytes())),
            Self::Header(name) => request.headers.get(name).map(|v| hash_key(v.as_bytes())),
            Self::Cookie(name) => cookie(request.headers, name).map(hash_key),
            Self::Query(name) => parameter(request.query, name).map(|v| hash_key(&v)),
        }
    }

    /// Returns the hash of the key of a client of which nothing but the address is known, or `None` when the key is
    /// another part of a request.
    pub fn hash_address(&self, client: IpAddr) -> Option<u64> {
        let Self::Address = self else { return None };
        Some(match client.to_canonical() {
            IpAddr::V4(v4) => hash_key(&v4.octets()),
            IpAddr::V6(v6) => hash_key(&v6.octets()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, Method};

    #[test]
    fn each_part_counts_alone() {
        let mut headers = HeaderMap::new();
        headers.insert("x-user", "ada".parse().expect("a value"));
        headers.insert("cookie", "a=1; sid=ada".parse().expect("a value"));
        let request = RequestFacts {
            host: "h",
            path: "/ada",
            query: Some("q=ada"),
            method: &Method::GET,
            headers: &headers,
            client: [10, 0, 0, 1].into(),
        };
        let ada = Some(hash_key(b"ada"));
        assert_eq!(RequestKey::Header(HeaderName::from_static("x-user")).hash(&request, None), ada);
        assert_eq!(RequestKey::Cookie("sid".into()).hash(&request, None), ada);
        assert_eq!(RequestKey::Query("q".into()).hash(&request, None), ada);
        assert_eq!(RequestKey::Consumer.hash(&request, Some("ada")), ada);
        assert_eq!(RequestKey::Consumer.hash(&request, None), None);
        assert_eq!(RequestKey::Header(HeaderName::from_static("x-none")).hash(&request, None), None);
        assert_eq!(RequestKey::Path.hash(&request, None), Some(hash_key(b"/ada")));
        assert_eq!(RequestKey::Path.hash_address(request.client), None);
        assert_eq!(RequestKey::Address.hash_address(request.client), RequestKey::Address.hash(&request, None));
        let mapped = RequestFacts { client: "::ffff:10.0.0.1".parse().expect("an address"), ..request };
        assert_eq!(
            RequestKey::Address.hash(&mapped, None),
            RequestKey::Address.hash(&RequestFacts { client: [10, 0, 0, 1].into(), ..mapped }, None)
        );
    }
}
