//! The settings of a client, and their keys in the configuration.

use std::path::Path;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::notation;
use crate::notation::{File, Mistakes, Place};
use crate::rules::resilience::BreakerShape;
use crate::telemetry::metrics::CallKind;
use crate::tls::FileVersion;

/// The breaker of clients: it opens after that many failures in a row, and lets one call through after the cool-down.
const BREAKER: BreakerShape = BreakerShape {
    failures: 5,
    ratio: 0,
    min_requests: 0,
    window: 10_000_000_000,
    cool_down: 2_000_000_000,
    probes: 1,
};

/// The longest time-out.
const MAX_TIMEOUT: Duration = Duration::from_secs(60);

/// What a client is for, and its bounds. Equal settings share one client.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpClientSettings {
    /// What it is for, in the metrics.
    pub kind: CallKind,
    /// The dependency: its breaker and its bounds are its own.
    pub dependency: String,
    /// The CA file to verify it with, instead of the system's CA certificates.
    pub ca: Option<FileVersion>,
    /// The files of the client's certificate and its key.
    pub identity: Option<(FileVersion, FileVersion)>,
    /// The time-out of a call as a whole.
    pub timeout: Duration,
    /// The time-out of connecting, TLS included.
    pub connect_timeout: Duration,
    /// The maximum size of the body of a response.
    pub max_response: usize,
    /// The most calls in progress.
    pub max_concurrent: usize,
    /// The most calls that wait for one in progress to end.
    pub max_waiting: usize,
    /// The breaker.
    pub breaker: Option<BreakerShape>,
}

impl HttpClientSettings {
    /// Returns the defaults.
    pub fn new(kind: CallKind, dependency: impl Into<String>) -> Self {
        Self {
            kind,
            dependency: dependency.into(),
            ca: None,
            identity: None,
            timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(2),
            max_response: 1 << 20,
            max_concurrent: 64,
            max_waiting: 1_024,
            breaker: Some(BREAKER),
        }
    }
}

/// How the gateway calls another server.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CallConfig {
    /// The time-out of a call as a whole, at most 60s. Default 5s.
    pub timeout: Option<notation::Duration>,
    /// The time-out of connecting, TLS included. Default 2s.
    pub connect_timeout: Option<notation::Duration>,
    /// The most calls at a time; further ones wait for their turn within the time-out. Default 64.
    #[schemars(range(min = 1, max = 10_000))]
    pub max_concurrent: Option<u32>,
    /// TLS with the server.
    pub tls: CallTls,
}

/// TLS with a server that the gateway calls.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CallTls {
    /// CA file (PEM) to verify the server with. Default: the system's.
    pub ca: Option<File>,
    /// The client's certificate (PEM), with `key`.
    pub cert: Option<File>,
    /// The key of the client's certificate (PEM).
    pub key: Option<File>,
}

impl CallConfig {
    /// Returns the settings of a client. `base` is the directory in which relative paths begin, and `is_secure` says
    /// whether it makes calls over TLS.
    pub fn settings(
        &self,
        base: &Path,
        defaults: HttpClientSettings,
        is_secure: bool,
        place: &Place,
        mistakes: &mut Mistakes,
    ) -> Option<HttpClientSettings> {
        let before = mistakes.count();
        let timeout = self.timeout.as_ref().map_or(defaults.timeout, |time| time.0);
        if timeout.is_zero() || timeout > MAX_TIMEOUT {
            mistakes.add(&place.key("timeout"), "expected more than 0 and at most 60s");
        }
        let connect_timeout =
            self.connect_timeout.as_ref().map_or(defaults.connect_timeout.min(timeout), |time| time.0);
        if self.connect_timeout.is_some() && (connect_timeout.is_zero() || connect_timeout > timeout) {
            mistakes.add(
                &place.key("connect_timeout"),
                format!("expected more than 0 and at most the {timeout:?} of timeout"),
            );
        }
        let tls = &self.tls;
        if tls.cert.is_some() != tls.key.is_some() {
            mistakes.add(&place.key("tls"), "cert and key need each other");
        }
        if !is_secure && (tls.ca.is_some() || tls.cert.is_some() || tls.key.is_some()) {
            mistakes.add(&place.key("tls"), "the calls use no TLS: the URL is one of http");
        }
        let version = |file: &File| FileVersion::of(base.join(file));
        let settings = HttpClientSettings {
            ca: tls.ca.as_ref().map(version),
            identity: tls.cert.as_ref().zip(tls.key.as_ref()).map(|(cert, key)| (version(cert), version(key))),
            timeout,
            connect_timeout,
            max_concurrent: self.max_concurrent.map_or(defaults.max_concurrent, |count| count as usize),
            ..defaults
        };
        (mistakes.count() == before).then_some(settings)
    }
}
