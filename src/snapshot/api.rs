//! The versions of an API in their compiled form.

use std::sync::Arc;

use http::header::{HeaderName, HeaderValue};

use crate::exchange::{Edit, Identity, Reason, Rejection};
use crate::rules::routing::{ApiVersions, NamedVersion, RequestFacts, VersionRule, VersionSource};
use crate::telemetry::metrics::VersionUsage;

/// The versions of an API.
#[derive(Debug)]
pub struct Api {
    /// The name.
    pub name: String,
    /// Where requests name a version.
    pub rules: Arc<ApiVersions>,
    /// The versions, by their numbers.
    pub versions: Vec<ApiVersion>,
}

/// A version of an API.
#[derive(Debug)]
pub struct ApiVersion {
    /// The name.
    pub name: String,
    /// The consumers that may use it.
    pub access: VersionAccess,
    /// The time from which requests are rejected, in seconds of Unix time.
    pub ends: Option<u64>,
    /// The fields that tell clients of its lifecycle.
    pub fields: Vec<(HeaderName, HeaderValue)>,
    /// The same as edits of responses.
    pub edits: Arc<[Edit]>,
    /// The version, or the URL, that replaces it.
    pub successor: Option<String>,
    /// The counts of its use.
    pub usage: Arc<VersionUsage>,
}

/// The consumers that may use a version.
#[derive(Debug, PartialEq, Eq)]
pub enum VersionAccess {
    /// All.
    All,
    /// Those in one of these groups, while it is a draft.
    Groups(Vec<String>),
    /// None: it is retired.
    None,
}

impl Api {
    /// Returns the names of the versions that anybody may use now, for clients.
    pub fn offered(&self, now: u64) -> String {
        let offered = self.versions.iter().filter(|one| one.access == VersionAccess::All && !one.has_ended(now));
        offered.map(|version| version.name.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// Returns the rejection of a request that would have matched a route of the API but for its version.
    pub fn rejection(&self, rule: &VersionRule, facts: &RequestFacts<'_>, now: u64) -> Box<Rejection> {
        match rule.named(facts) {
            NamedVersion::Missing => {
                Rejection::new(Reason::VersionMissing, format!("the versions are {}", self.offered(now)))
            }
            NamedVersion::Unknown(_) => {
                // A media type that cannot be sent is not acceptable (RFC 9110, section 15.5.7).
                let by_type = |source: &VersionSource| {
                    matches!(source, VersionSource::MediaType(..) | VersionSource::MediaTypeParameter(_))
                };
                let status = match rule.api.sources.iter().all(by_type) {
                    _ if rule.segment.is_some() => 404,
                    true => 406,
                    false => 400,
                };
                self.unknown(now).status(status)
            }
            NamedVersion::Known(number) => {
                let version = &self.versions[number];
                if version.has_ended(now) {
                    return self.retired(version, now);
                }
                Rejection::new(Reason::RouteNotFound, "").log(format!("the version {} has no such route", version.name))
            }
        }
    }

    /// Returns the rejection of a request for a version that the client does not know, or must not.
    pub fn unknown(&self, now: u64) -> Box<Rejection> {
        Rejection::new(Reason::VersionUnknown, format!("the versions are {}", self.offered(now)))
    }

    /// Returns the rejection of a request for a version that has ended.
    pub fn retired(&self, version: &ApiVersion, now: u64) -> Box<Rejection> {
        let detail = match &version.successor {
            Some(successor) => format!("the version {} has ended; its successor is {successor}", version.name),
            None => format!("the version {} has ended; the versions are {}", version.name, self.offered(now)),
        };
        let mut rejection = Rejection::new(Reason::VersionRetired, detail);
        rejection.headers.extend(version.fields.iter().cloned());
        rejection
    }
}

impl ApiVersion {
    /// Returns whether requests are rejected because the version has ended.
    pub fn has_ended(&self, now: u64) -> bool {
        self.access == VersionAccess::None || self.ends.is_some_and(|ends| ends <= now)
    }

    /// Returns whether a client with that identity may know of the version.
    pub fn is_open_to(&self, identity: Option<&Identity>) -> bool {
        let VersionAccess::Groups(groups) = &self.access else { return true };
        let own = identity.map(Identity::groups).unwrap_or_default();
        groups.iter().any(|group| own.iter().any(|one| **one == **group))
    }
}
