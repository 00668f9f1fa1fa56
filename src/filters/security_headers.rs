//! `security_headers`: sets the headers by which browsers protect pages, and removes those that name software.
//!
//! The values are those that OWASP's Secure Headers project recommends; what the target sets itself is kept.

use http::header::{
    CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, REFERRER_POLICY, SERVER, STRICT_TRANSPORT_SECURITY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use pingora::http::ResponseHeader;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{CompileContext, HttpFilter, ResponseView, Stage};
use crate::notation::{Duration, HeaderText};

/// Headers that name the software of a target.
static SOFTWARE: [HeaderName; 4] = [
    SERVER,
    HeaderName::from_static("x-powered-by"),
    HeaderName::from_static("x-aspnet-version"),
    HeaderName::from_static("x-aspnetmvc-version"),
];

/// The least `max_age` with which browsers preload a host.
const PRELOAD_AGE: u64 = 31_536_000;

/// Which headers are set.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `page` for websites, `api` for programs, whose responses are never shown as pages: nothing may be loaded or
    /// framed. Default `page`.
    pub preset: Preset,
    /// How long browsers use TLS alone (RFC 6797). Sent over TLS alone. Default 365d.
    pub hsts: Option<Duration>,
    /// Whether that holds for all hosts below this one. Default false.
    pub hsts_subdomains: bool,
    /// Whether browsers may list the host as one with TLS alone; hard to undo. Default false.
    pub hsts_preload: bool,
    /// `Content-Security-Policy`. Default: that of the preset.
    pub content_security_policy: Option<HeaderText>,
    /// `Permissions-Policy`. Default: camera, microphone and position for nobody.
    pub permissions_policy: Option<HeaderText>,
    /// `Referrer-Policy`. Default: that of the preset.
    pub referrer_policy: Option<HeaderText>,
    /// Whether headers that name the target's software are kept. Default false.
    pub keep_software: bool,
}

/// A preset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// Websites.
    #[default]
    Page,
    /// Programs.
    Api,
}

/// The compiled filter.
#[derive(Debug)]
pub struct Filter {
    hsts: HeaderValue,
    headers: Vec<(HeaderName, HeaderValue)>,
    keep_software: bool,
}

impl HttpFilter for Filter {
    type Config = Config;
    type Memory = ();
    const STAGE: Stage = Stage::Edit;

    fn compile(config: &Config, context: &mut CompileContext<'_>) -> Option<Self> {
        let seconds = config.hsts.as_ref().map_or(PRELOAD_AGE, |age| age.0.as_secs());
        if config.hsts_preload && (seconds < PRELOAD_AGE || !config.hsts_subdomains) {
            let place = context.place.key("hsts_preload");
            context.mistakes.add(&place, "needs hsts of at least 365d, and hsts_subdomains: true");
        }
        let mut hsts = format!("max-age={seconds}");
        hsts.push_str(if config.hsts_subdomains { "; includeSubDomains" } else { "" });
        hsts.push_str(if config.hsts_preload { "; preload" } else { "" });
        let (policy, referrer) = match config.preset {
            Preset::Page => (
                "default-src 'self'; object-src 'none'; base-uri 'self'; frame-ancestors 'self'; form-action 'self'",
                "strict-origin-when-cross-origin",
            ),
            Preset::Api => ("default-src 'none'; frame-ancestors 'none'", "no-referrer"),
        };
        let frame = if config.preset == Preset::Api { "DENY" } else { "SAMEORIGIN" };
        let own = |text: &Option<HeaderText>, default: &'static str| {
            text.as_ref().map_or(HeaderValue::from_static(default), |text| text.0.clone())
        };
        Some(Self {
            hsts: HeaderValue::try_from(hsts).ok()?,
            headers: vec![
                (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
                (X_FRAME_OPTIONS, HeaderValue::from_static(frame)),
                (CONTENT_SECURITY_POLICY, own(&config.content_security_policy, policy)),
                (REFERRER_POLICY, own(&config.referrer_policy, referrer)),
                (
                    HeaderName::from_static("permissions-policy"),
                    own(&config.permissions_policy, "camera=(), geolocation=(), microphone=()"),
                ),
                (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
            ],
            keep_software: config.keep_software,
        })
    }

    fn on_response(&self, response: &mut ResponseHeader, view: &ResponseView<'_>, (): &()) {
        if !self.keep_software {
            SOFTWARE.iter().for_each(|name| _ = response.remove_header(name));
        }
        for (name, value) in &self.headers {
            if !response.headers.contains_key(name) {
                let _ = response.insert_header(name.clone(), value.clone());
            }
        }
        if view.exchange.peer.is_secure() && !response.headers.contains_key(STRICT_TRANSPORT_SECURITY) {
            let _ = response.insert_header(STRICT_TRANSPORT_SECURITY, self.hsts.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::filters::test_kit::{compile, request, response};

    #[test]
    fn headers_are_set_where_the_target_has_none() {
        let mut kit = compile("[{security_headers: {preset: api, referrer_policy: origin}}]").expect("a filter");
        kit.on_request(request("GET /", &[])).expect("let in");
        let head = response(200, &[("server", "x/1"), ("x-powered-by", "y"), ("x-frame-options", "SAMEORIGIN")]);
        let changed = kit.on_response(head, b"", 1).expect("a response");
        let all = ["server", "x-powered-by", "x-frame-options", "referrer-policy", "x-content-type-options"];
        assert_eq!(all.map(|name| changed.header(name)), ["-", "-", "SAMEORIGIN", "origin", "nosniff"]);
        assert_eq!(changed.header("strict-transport-security"), "-", "without TLS it has no meaning");
        assert!(changed.header("content-security-policy").starts_with("default-src 'none'"));
        assert!(compile("[{security_headers: {hsts_preload: true}}]").is_err());
    }
}
